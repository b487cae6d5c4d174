"""Slow, readable twins of the compiled kernels. The product never imports them."""
