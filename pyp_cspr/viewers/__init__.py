"""Scipion viewers."""
