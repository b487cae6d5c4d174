"""Kernel of ``search.py``: the score of rotations over all projections of a particle, at every displacement of a grid."""

from __future__ import annotations

import numpy as np

from ._jit import jit
from .projection_kernels import CHUNK, take_slices

IMAGES = 4  # made at a time


@jit
def sum_phases(fourier, table, out):
    """out[i, h] = sum over j of fourier[i, j] table[h, j]. ``fourier`` (4, n), ``table`` (H, n), H even, ``out`` (4, H).

    Two rows of the table against four images: eight sums in registers for six loads.
    """
    half, count = table.shape
    for h in range(0, half, 2):
        a0 = a1 = a2 = a3 = np.float32(0.0)
        b0 = b1 = b2 = b3 = np.float32(0.0)
        for j in range(count):
            s, t = table[h, j], table[h + 1, j]
            x0, x1, x2, x3 = fourier[0, j], fourier[1, j], fourier[2, j], fourier[3, j]
            a0 += x0 * s
            a1 += x1 * s
            a2 += x2 * s
            a3 += x3 * s
            b0 += x0 * t
            b1 += x1 * t
            b2 += x2 * t
            b3 += x3 * t
        out[0, h], out[0, h + 1] = a0, b0
        out[1, h], out[1, h + 1] = a1, b1
        out[2, h], out[2, h + 1] = a2, b2
        out[3, h], out[3, h + 1] = a3, b3


@jit
def add_image(volume, image, width, points, tilt):
    """volume[g] += image at (tilt points_g)_xy by bilinear interpolation.

    ``points`` (3, G) and the image's pixels are in one unit; ``image`` is flat, rows of ``width``, its centre the origin.
    ``tilt`` (2, 3).
    """
    xx, xy, xz = tilt[0, 0], tilt[0, 1], tilt[0, 2]
    yx, yy, yz = tilt[1, 0], tilt[1, 1], tilt[1, 2]
    centre = np.float32(width // 2)
    for g in range(points.shape[1]):
        a, b, c = points[0, g], points[1, g], points[2, g]
        x = xx * a + xy * b + xz * c + centre
        y = yx * a + yy * b + yz * c + centre
        ix, iy = np.uint32(x), np.uint32(y)
        fx, fy = x - np.float32(ix), y - np.float32(iy)
        o = np.uint64(iy * np.uint32(width) + ix)
        low = image[o] + fx * (image[o + np.uint64(1)] - image[o])
        q = o + np.uint64(width)
        high = image[q] + fx * (image[q + np.uint64(1)] - image[q])
        volume[g] += low + fy * (high - low)


def score_scratch(exposures, count, height, width, points):
    """What ``score_rotations`` works in, for E, n, H, the width of an image, and G points."""
    matrices, lists = 2 * ((exposures, 2, 3),), 3 * ((exposures, count),)
    images = (IMAGES, height), (IMAGES, height), (width * width // 2 * 2 + 1,)
    shapes = ((4, CHUNK), *matrices, (exposures, 2 * count), *lists, (2, IMAGES, count), *images, (points,))
    return tuple([np.zeros(shape, np.float32) for shape in shapes])


@jit
def score_rotations(
    scores, best, rotations, counts, tilts, scale, data, weight, first, exposure, which, cubes, kx, ky,
    cosines, sines, width, points, scratch, start, stop
):
    """scores[p, j] = the largest A sqrt(2 / B) over ``points``, and best[p, j] the point where it is.

    A = sum over the particle's projections of Re sum D* V e, and B that of W |V|^2. ``rotations`` float64 (S, J, 3, 3) of the
    particles: S = 1, all share them, or one set each, of which the first ``counts[s]`` are scored. ``tilts`` float64 (E, 3, 3);
    ``scale`` takes Fourier pixels to those of the cubes. ``data`` float32 (2, Q, n) real and imaginary parts of D, its phases
    about the present centres, and ``weight`` (Q, n), sorted by particle: those of p are ``first[p]`` to ``first[p + 1]``.
    ``cubes`` float32 (C, z, y, 2 x), ``which[p]`` chooses one. ``cosines`` and ``sines`` (H, n) of 2 pi k.s at the image's
    pixels from its centre on, H made even; ``width`` pixels in a row. Items ``start`` to ``stop`` are s J + j. ``scratch`` is
    that of ``score_scratch``.
    """
    each, count = rotations.shape[1], kx.size
    particles, exposures, half = which.size, tilts.shape[0], width * width // 2 + 1
    chunks, rows, seen, mixed, real, imag, power, fourier, even, odd, image, volume = scratch
    for e in range(exposures):
        for a in range(2):
            for b in range(3):
                seen[e, a, b] = tilts[e, a, b]
    for item in range(start, stop):
        j, own = item % each, item // each
        low, high = (0, particles) if rotations.shape[0] == 1 else (own, own + 1)
        if j >= counts[own]:
            for p in range(low, high):
                scores[p, j] = -np.inf
                best[p, j] = 0
            continue
        turn = rotations[own, j]
        for e in range(exposures):
            for a in range(2):
                for b in range(3):
                    rows[e, a, b] = scale * (
                        tilts[e, a, 0] * turn[0, b] + tilts[e, a, 1] * turn[1, b] + tilts[e, a, 2] * turn[2, b]
                    )
        for c in range(cubes.shape[0]):
            fresh = False
            for p in range(low, high):
                if which[p] != c:
                    continue
                if not fresh:
                    take_slices(cubes[c], rows, kx, ky, mixed, chunks, 0, exposures)
                    for e in range(exposures):
                        for i in range(count):
                            re, im = mixed[e, 2 * i], mixed[e, 2 * i + 1]
                            real[e, i] = re
                            imag[e, i] = im
                            power[e, i] = re * re + im * im
                    fresh = True
                volume[:] = 0.0
                total = 0.0
                for block in range(first[p], first[p + 1], IMAGES):
                    size = min(IMAGES, first[p + 1] - block)
                    for b in range(size):
                        q = block + b
                        e = exposure[q]
                        part = np.float32(0.0)
                        for i in range(count):
                            fourier[0, b, i] = data[0, q, i] * real[e, i] + data[1, q, i] * imag[e, i]
                            fourier[1, b, i] = data[0, q, i] * imag[e, i] - data[1, q, i] * real[e, i]
                            part += weight[q, i] * power[e, i]
                        total += part
                    sum_phases(fourier[0], cosines, even)
                    sum_phases(fourier[1], sines, odd)
                    for b in range(size):
                        for h in range(half):  # the image at -s has the other sign of the sines
                            image[half - 1 + h] = even[b, h] + odd[b, h]
                            image[half - 1 - h] = even[b, h] - odd[b, h]
                        add_image(volume, image, width, points, seen[exposure[block + b]])
                top = 0
                for g in range(1, points.shape[1]):
                    if volume[g] > volume[top]:
                        top = g
                best[p, j] = top
                scores[p, j] = volume[top] * np.sqrt(2.0 / total) if total > 0.0 else 0.0
