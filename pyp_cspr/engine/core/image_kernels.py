"""Kernels of ``images.py``: moments of an image's pixels, and crops."""

from __future__ import annotations

import numpy as np

from ._jit import jit


@jit
def add_moments(out, values, start, low, high):
    """out (3,) += number, sum and sum of squares of ``values - start``, of the values from ``low`` to ``high`` only.

    ``values`` float32 (n,); sums are float64. NaN passes no limit; where there are none (infinite) it reaches the sums.
    """
    count, total, square = 0, 0.0, 0.0
    if np.isinf(low):
        for i in range(values.size):
            difference = np.float64(values[i]) - start
            total += difference
            square += difference * difference
        count = values.size
    else:
        for i in range(values.size):
            value = np.float64(values[i])
            inside = value >= low and value <= high
            difference = value - start if inside else 0.0
            count += 1 if inside else 0
            total += difference
            square += difference * difference
    out[0] += count
    out[1] += total
    out[2] += square


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
