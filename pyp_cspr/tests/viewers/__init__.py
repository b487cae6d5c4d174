"""Tests of the windows: real ones, on an X server without a screen."""
