"""Tests of the wizards."""
