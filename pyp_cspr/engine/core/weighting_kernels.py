"""Kernels of ``weighting.py``: CTF, phase and weights of coefficient lists."""

from __future__ import annotations

import numpy as np

from ._jit import jit


@jit(inline="always")
def sine_of_turns(turns):
    """sin(2 pi turns) of float64 turns as float32, to 1e-7: Taylor's polynomial of degree 11 on a quarter turn."""
    part, half = np.float32(turns - np.rint(turns)), np.float32(0.5)
    folded = part
    if part > np.float32(0.25):
        folded = half - part
    if part < np.float32(-0.25):
        folded = -half - part
    y = folded * np.float32(6.283185307179586)
    y2 = y * y
    s = np.float32(1.0) - y2 * np.float32(1.0 / 110.0)
    s = np.float32(1.0) - y2 * np.float32(1.0 / 72.0) * s
    s = np.float32(1.0) - y2 * np.float32(1.0 / 42.0) * s
    s = np.float32(1.0) - y2 * np.float32(1.0 / 20.0) * s
    s = np.float32(1.0) - y2 * np.float32(1.0 / 6.0) * s
    return y * s


@jit(inline="always")
def chi_at(axx, axy, ayy, constant, quartic, x, y):
    """chi / (2 pi) at (x, y): axx x^2 + 2 axy x y + ayy y^2 + constant - quartic |k|^4, float64."""
    k2 = x * x + y * y
    return axx * x * x + 2.0 * axy * x * y + ayy * y * y + constant - quartic * k2 * k2


@jit
def fill_ctf(out, kx, ky, form, constant, quartic, start, stop):
    """out[b, j] = sin(2 pi (form_b(k) + constant_b - quartic |k|^4)); ``form`` (B, 3), ``constant`` (B,) float64, in turns."""
    for b in range(start, stop):
        axx, axy, ayy, offset = form[b, 0], form[b, 1], form[b, 2], constant[b]
        for j in range(kx.size):
            x, y = np.float64(kx[j]), np.float64(ky[j])
            out[b, j] = sine_of_turns(chi_at(axx, axy, ayy, offset, quartic, x, y))


@jit
def weigh(data, weight, kx, ky, form, constant, quartic, residual, table, to_data, to_weight, premultiplied, start, stop):
    """In place: data X -> D = to_data C X exp(2 pi i k.residual), weight -> W = to_weight C^2.

    ``data`` is complex64 seen as float32 (B, 2 n). ``to_data`` and ``to_weight`` are (T, n), of which image b has row table[b];
    ``residual`` (B, 2) has the unit of 1 / kx. With ``premultiplied`` the data hold C X already.
    """
    one = np.float32(1.0)
    for b in range(start, stop):
        row = table[b]
        axx, axy, ayy, offset = form[b, 0], form[b, 1], form[b, 2], constant[b]
        rx, ry = residual[b, 0], residual[b, 1]
        for j in range(kx.size):
            x, y = np.float64(kx[j]), np.float64(ky[j])
            c = sine_of_turns(chi_at(axx, axy, ayy, offset, quartic, x, y))
            shift = x * rx + y * ry
            sine, cosine = sine_of_turns(shift), sine_of_turns(shift + 0.25)
            factor = to_data[row, j] * (one if premultiplied else c)
            re, im = data[b, 2 * j], data[b, 2 * j + 1]
            data[b, 2 * j] = factor * (re * cosine - im * sine)
            data[b, 2 * j + 1] = factor * (re * sine + im * cosine)
            weight[b, j] = to_weight[row, j] * c * c
