"""The only place with policy: planning, running and merging of chunks, and the run folder."""
