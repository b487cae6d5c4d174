"""Kernel of ``fsc.py``: sums over shells of two half transforms."""

from __future__ import annotations

import numpy as np

from ._jit import jit


@jit
def add_shells(sums, a, b, k, shell):
    """sums (4, shells) float64 += Re(A conj(B)), |A|^2, |B|^2 and 1 of every coefficient of the whole sphere, by its shell.

    ``a`` and ``b`` complex64 (N, N, N//2 + 1) in FFT order, whose frequencies are ``k`` (N,) int64; ``shell`` (N//2 + 1,) int32
    is scratch. A coefficient with 0 < x < N/2 stands for its Friedel mate as well.
    """
    box, width = a.shape[0], a.shape[2]
    shells = sums.shape[1]
    for z in range(box):
        for y in range(box):
            yz = k[z] * k[z] + k[y] * k[y]
            for x in range(width):
                shell[x] = np.int32(np.sqrt(np.float64(yz + x * x)) + 0.5)
            for x in range(width):
                s = shell[x]
                if s < shells:
                    re_a, im_a = np.float64(a[z, y, x].real), np.float64(a[z, y, x].imag)
                    re_b, im_b = np.float64(b[z, y, x].real), np.float64(b[z, y, x].imag)
                    times = 1.0 if x == 0 or 2 * x == box else 2.0
                    sums[0, s] += times * (re_a * re_b + im_a * im_b)
                    sums[1, s] += times * (re_a * re_a + im_a * im_a)
                    sums[2, s] += times * (re_b * re_b + im_b * im_b)
                    sums[3, s] += times
