"""Kernels of ``images.py``: moments of an image's pixels, and crops."""

from __future__ import annotations

import numpy as np

from ._jit import jit

LANES = 32  # extremes of as many pixels at a time, which compilers turn into vector instructions


@jit
def moments(image, start, low, high, line, least, largest):
    """(number, sum and sum of squares of ``value - start``, least, largest) of the pixels from ``low`` to ``high``.

    ``image`` (ny, nx) of any native number type; sums are float64. NaN passes no limit; where there are none (infinite) it
    reaches the sums. ``line`` (nx,), ``least`` and ``largest`` (LANES,) are float32 scratch.
    """
    count, total, square = 0, 0.0, 0.0
    unlimited = np.isinf(low)
    middle = np.float32(0.5 * (low + high))  # in place of pixels that do not count: no extreme
    whole = line.size // LANES * LANES
    least[:], largest[:] = np.float32(np.inf), np.float32(-np.inf)
    for y in range(image.shape[0]):
        row = image[y]
        if unlimited:
            for x in range(line.size):
                line[x] = row[x]
                difference = np.float64(line[x]) - start
                total += difference
                square += difference * difference
            count += line.size
        else:
            within = 0
            for x in range(line.size):
                value = np.float64(row[x])
                inside = value >= low and value <= high
                difference = value - start if inside else 0.0
                line[x] = np.float32(value) if inside else middle
                within += 1 if inside else 0
                total += difference
                square += difference * difference
            count += within
        for x in range(0, whole, LANES):
            for i in range(LANES):
                value = line[x + i]
                least[i] = value if value < least[i] else least[i]
                largest[i] = value if value > largest[i] else largest[i]
        for x in range(whole, line.size):
            least[0], largest[0] = min(least[0], line[x]), max(largest[0], line[x])
    for i in range(1, LANES):
        least[0], largest[0] = min(least[0], least[i]), max(largest[0], largest[i])
    return count, total, square, least[0], largest[0]


@jit
def cut(crops, source, low, begin, end, mean, factor):
    """crops (B, box, box) float32 = (source - mean) * factor inside the image, 0 outside.

    ``source`` (ny, nx) of any native number type. Per crop ``(B, 2)`` int64 x, y: ``low`` its first pixel, ``begin`` and
    ``end`` the part that lies inside the image. ``mean`` float64, ``factor`` float32.
    """
    box = crops.shape[1]
    for b in range(len(crops)):
        x0, x1 = begin[b, 0] - low[b, 0], end[b, 0] - low[b, 0]
        y0, y1 = begin[b, 1] - low[b, 1], end[b, 1] - low[b, 1]
        for y in range(box):
            if y < y0 or y >= y1:
                crops[b, y, :] = 0.0
                continue
            crops[b, y, :x0] = 0.0
            crops[b, y, x1:] = 0.0
            inside, line = crops[b, y, x0:x1], source[y + low[b, 1], begin[b, 0] : end[b, 0]]
            for x in range(inside.size):
                inside[x] = np.float32(np.float64(line[x]) - mean) * factor
