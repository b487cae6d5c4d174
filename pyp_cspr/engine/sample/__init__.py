"""The built-in sample data set: a real structure, a simulated acquisition. No part of it is used by the reconstruction."""
