"""Tests; ``./test.sh`` runs them with all checks."""
