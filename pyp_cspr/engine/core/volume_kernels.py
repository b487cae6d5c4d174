"""Kernels of ``volumes.py``: transforms of real cubes, padded with zeros or cut to what is wanted, axis by axis.

Between the axes the half transform is kept as planes [z, y, part, x], part 0 real and part 1 imaginary, x filled up to a
multiple of eight: so eight columns side by side are what ``fourier_kernels.transform_lines`` takes. An inverse transform is the
transform with real and imaginary parts changed round, before and after.
"""

from __future__ import annotations

import numpy as np

from ._jit import jit
from ._simd import flat, load8, store8
from .fourier_kernels import LANES, transform_lines


@jit
def forward_planes(volume, planes, index, first, line, out, one, two, rows, radices, turns, roots, begin, start, stop):
    """planes[z] = the half transform of volume[z] in x and y, for z from start to stop, at the frequencies ``index`` of y.

    ``volume`` (N, N, N) float32 is padded: its pixel 0 is the pixel ``first`` of ``padded`` ones. ``planes``
    (N, len(index), 2, width). Scratch: ``line``, zeros, ``out``, ``one`` and ``two`` (2, padded, 8), flat, and ``rows``
    (N, 2, width), zeros.
    """
    box, width = volume.shape[0], rows.shape[2]
    half, length, padded = box // 2, line.size // 2, line.size // (2 * LANES)
    used = min(width, padded // 2 + 1)
    part = np.uint64(length)
    a_half = np.float32(0.5)
    both = flat(rows)
    for z in range(start, stop):
        # Rows y and y + N / 2 are real and imaginary part of one line, eight of which are transformed together.
        y = 0
        while True:
            for i in range(LANES):
                upper, lower = volume[z, y + i], volume[z, y + half + i]
                t = np.uint64(first * LANES + i)
                for x in range(box):
                    line[t] = upper[x]
                    line[t + part] = lower[x]
                    t += np.uint64(LANES)
            transform_lines(line, 0, LANES, length, out, one, two, radices, turns, roots, begin)
            for i in range(LANES):
                upper, lower = rows[y + i], rows[y + half + i]
                for k in range(used):
                    p, q = np.uint64(LANES * k + i), np.uint64(LANES * ((padded - k) % padded) + i)
                    pr, pi, qr, qi = out[p], out[p + part], out[q], out[q + part]
                    upper[0, k], upper[1, k] = a_half * (pr + qr), a_half * (pi - qi)
                    lower[0, k], lower[1, k] = a_half * (pi + qi), a_half * (qr - pr)
            if y == half - LANES:
                break
            y = min(y + LANES, half - LANES)
        target = flat(planes[z])
        for x in range(0, width, LANES):
            fill(line, first, both, x, 2 * width, width, box)
            transform_lines(line, 0, LANES, length, out, one, two, radices, turns, roots, begin)
            for i in range(index.size):
                store8(target, 2 * i * width + x, load8(out, LANES * index[i]))
                store8(target, (2 * i + 1) * width + x, load8(out, length + LANES * index[i]))


@jit
def fill(line, first, source, base, stride, part, count):
    """Eight lines of ``count`` elements from ``source``, imaginary parts ``part`` farther, to ``line`` from ``first`` on."""
    length = line.size // 2
    for i in range(count):
        at = base + i * stride
        store8(line, LANES * (first + i), load8(source, at))
        store8(line, length + LANES * (first + i), load8(source, at + part))


@jit
def forward_columns(planes, spectrum, index, first, line, out, one, two, column, radices, turns, roots, begin, start, stop):
    """spectrum[:, y] = the transform of planes[:, y] in z, for y from start to stop, at the frequencies ``index``.

    ``spectrum`` (len(index), Y, 2 X) float32, which is complex64; ``planes`` and scratch as in ``forward_planes``, and
    ``column`` (N, 2, width).
    """
    box, width, length = planes.shape[0], planes.shape[3], line.size // 2
    both = flat(column)
    for y in range(start, stop):
        gather(planes, y, column)
        for x in range(0, width, LANES):
            fill(line, first, both, x, 2 * width, width, box)
            transform_lines(line, 0, LANES, length, out, one, two, radices, turns, roots, begin)
            size = min(LANES, spectrum.shape[2] // 2 - x)
            for i in range(index.size):
                target, p = spectrum[i, y], LANES * index[i]
                for j in range(size):
                    target[2 * (x + j)] = out[np.uint64(p + j)]
                    target[2 * (x + j) + 1] = out[np.uint64(length + p + j)]


@jit
def gather(planes, y, column):
    """column[z] = planes[z, y]: what lies far apart is fetched once, not once for each of its parts."""
    for z in range(column.shape[0]):
        for part in range(2):
            for x in range(column.shape[2]):
                column[z, part, x] = planes[z, y, part, x]


@jit
def inverse_columns(spectrum, planes, low, index, first, line, out, one, two, radices, turns, roots, begin, start, stop):
    """planes[:, low + y] = the inverse transform of spectrum[:, y] in z, for y from start to stop: pixels ``first`` and on.

    ``spectrum`` (len(index), Y, 2 X) float32 at the frequencies ``index``; those that it lacks are 0. Not divided by the number
    of elements. ``planes`` (N, Y', 2, width); scratch as in ``forward_planes``.
    """
    box, width, length = planes.shape[0], planes.shape[3], line.size // 2
    for y in range(start, stop):
        for x in range(0, width, LANES):
            size = min(LANES, spectrum.shape[2] // 2 - x)
            for i in range(index.size):
                source, p = spectrum[i, y], LANES * index[i]
                for j in range(size):
                    line[np.uint64(length + p + j)] = source[2 * (x + j)]
                    line[np.uint64(p + j)] = source[2 * (x + j) + 1]
                for j in range(size, LANES):
                    line[np.uint64(length + p + j)] = np.float32(0.0)
                    line[np.uint64(p + j)] = np.float32(0.0)
            transform_lines(line, 0, LANES, length, out, one, two, radices, turns, roots, begin)
            for z in range(box):
                target, p = flat(planes[z, low + y]), LANES * (first + z)
                store8(target, x, load8(out, length + p))
                store8(target, width + x, load8(out, p))


@jit
def inverse_planes(
    planes, volume, index, first, scale, line, out, one, two, rows, full, radices, turns, roots, begin, start, stop
):
    """volume[z] = scale times the inverse transform of planes[z] in y and x, for z from start to stop: pixels ``first`` and on.

    ``planes`` (N, len(index), 2, width) at the frequencies ``index`` of y; scratch as in ``forward_planes``, and ``full`` as
    ``line``.
    """
    box, width = volume.shape[0], planes.shape[3]
    half, length, padded = box // 2, line.size // 2, line.size // (2 * LANES)
    used = min(width, padded // 2 + 1)
    part = np.uint64(length)
    for z in range(start, stop):
        source = flat(planes[z])
        for x in range(0, width, LANES):
            for i in range(index.size):
                store8(line, LANES * index[i], load8(source, (2 * i + 1) * width + x))
                store8(line, length + LANES * index[i], load8(source, 2 * i * width + x))
            transform_lines(line, 0, LANES, length, out, one, two, radices, turns, roots, begin)
            for y in range(box):
                target, p = flat(rows[y]), LANES * (first + y)
                store8(target, x, load8(out, length + p))
                store8(target, width + x, load8(out, p))
        y = 0
        while True:
            for i in range(LANES):
                upper, lower = rows[y + i], rows[y + half + i]
                for k in range(used):  # Z = A + i B, of which A and B are the transforms of real rows
                    ar, ai, br, bi = upper[0, k], upper[1, k], lower[0, k], lower[1, k]
                    if k == 0 or 2 * k == padded:
                        ai = bi = np.float32(0.0)
                    p, q = np.uint64(LANES * k + i), np.uint64(LANES * ((padded - k) % padded) + i)
                    full[q + part], full[q] = ar + bi, br - ai
                    full[p + part], full[p] = ar - bi, br + ai
            transform_lines(full, 0, LANES, length, out, one, two, radices, turns, roots, begin)
            for i in range(LANES):
                upper, lower = volume[z, y + i], volume[z, y + half + i]
                t = np.uint64(first * LANES + i)
                for x in range(box):
                    upper[x] = scale * out[t + part]
                    lower[x] = scale * out[t]
                    t += np.uint64(LANES)
            if y == half - LANES:
                break
            y = min(y + LANES, half - LANES)
