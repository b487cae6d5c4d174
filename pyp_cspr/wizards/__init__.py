"""Scipion wizards."""
