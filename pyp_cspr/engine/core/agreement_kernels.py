"""Kernel of ``agreement.py``: sums over shells of data against model."""

from __future__ import annotations

import numpy as np

from ._jit import jit
from .weighting_kernels import chi_at, sine_of_turns

SUMS = 6  # match, model, data; and where data are premultiplied: noise match, noise model, C^2


@jit
def compare(data, rows, model, kx, ky, first, form, constant, quartic, shift, premultiplied, scratch, out, start, stop):
    """out[b, s] = the sums of image rows[b] against the slice b, over the coefficients first[s] to first[s + 1].

    ``data`` and ``model`` are complex64 seen as float32, the last axis doubled; ``shift`` (B, 2) has the unit of 1 / kx; CTF as
    in ``weighting_kernels.weigh``; ``scratch`` is (6, n) float32.
    """
    for b in range(start, stop):
        image = rows[b]
        axx, axy, ayy, offset = form[b, 0], form[b, 1], form[b, 2], constant[b]
        sx, sy = shift[b, 0], shift[b, 1]
        for j in range(kx.size):
            x, y = np.float64(kx[j]), np.float64(ky[j])
            c = sine_of_turns(chi_at(axx, axy, ayy, offset, quartic, x, y))
            turns = x * sx + y * sy
            sine, cosine = sine_of_turns(turns), sine_of_turns(turns + 0.25)
            v_re, v_im = model[b, 2 * j], model[b, 2 * j + 1]
            x_re, x_im = data[image, 2 * j], data[image, 2 * j + 1]
            # The model turned by exp(-2 pi i k.s): its product with the data is what both sums of match need.
            product = x_re * (v_re * cosine + v_im * sine) + x_im * (v_im * cosine - v_re * sine)
            power = c * c * (v_re * v_re + v_im * v_im)
            scratch[0, j] = product if premultiplied else c * product
            scratch[1, j] = power
            scratch[2, j] = x_re * x_re + x_im * x_im
            if premultiplied:
                scratch[3, j] = c * c * product
                scratch[4, j] = c * c * power
                scratch[5, j] = c * c
        for k in range(out.shape[2]):
            for s in range(first.size - 1):
                total = 0.0
                for j in range(first[s], first[s + 1]):
                    total += np.float64(scratch[k, j])
                out[b, s, k] = total
