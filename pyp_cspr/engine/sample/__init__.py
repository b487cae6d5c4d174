"""The built-in sample data set: a real structure, a simulated acquisition."""
