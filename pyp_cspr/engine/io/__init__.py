"""One file format per module, as ``read_x`` and ``write_x``."""
