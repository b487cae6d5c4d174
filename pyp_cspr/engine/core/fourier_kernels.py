"""Kernel of ``fourier.py``: pick the coefficients of a band out of transforms."""

from __future__ import annotations

from ._jit import jit


@jit
def pick(out, transforms, offset, factor):
    """out[b, j] = transforms[b, offset[j]] * factor[j].

    ``out`` (B, n) and ``transforms`` (B, m) complex64; ``offset`` (n,) intp, not negative; ``factor`` (n,) float32.
    """
    for b in range(len(out)):
        for j in range(offset.size):
            out[b, j] = transforms[b, offset[j]] * factor[j]
