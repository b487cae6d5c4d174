"""Scipion protocols: form, steps and outputs around the engine."""
