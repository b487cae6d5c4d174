"""Tests of the Scipion side: adapters, protocols. Skipped where the host is not installed."""
