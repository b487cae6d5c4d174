"""What ``core.insertion`` does, on the whole centred grid: every sample and its Friedel mate, one corner at a time."""

from __future__ import annotations

from typing import Tuple

import numpy as np
from numpy.typing import NDArray

from .projection import corners


def insert(
    data: NDArray, weight: NDArray, rotations: NDArray, kx: NDArray, ky: NDArray, padded: int, ratio: float
) -> Tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """(numerator, denominator), each ``(padded,) * 3`` with zero frequency at padded // 2."""
    numerator = np.zeros((padded,) * 3, complex)
    denominator = np.zeros((padded,) * 3)
    for b, m in enumerate(rotations):
        for j in range(len(kx)):
            point = ratio * (kx[j] * m[0] + ky[j] * m[1])
            for sign in (1, -1):
                value = data[b, j] if sign > 0 else np.conj(data[b, j])
                for place, part in corners(sign * point, padded):
                    numerator[place] += part * value
                    denominator[place] += part * weight[b, j]
    return numerator, denominator


def symmetrise(numerator: NDArray, denominator: NDArray, matrices: NDArray, extent: int) -> Tuple[NDArray, NDArray]:
    """Sums of all copies g k, trilinear, of whole centred grids; only inside the sphere of ``extent``."""
    padded = len(numerator)
    results = np.zeros_like(numerator), np.zeros_like(denominator)
    axis = range(-extent, extent + 1)
    for z in axis:
        for y in axis:
            for x in axis:
                if x * x + y * y + z * z > extent * extent:
                    continue
                at = (z + padded // 2, y + padded // 2, x + padded // 2)
                for g in matrices:
                    for place, part in corners(g @ np.array([x, y, z], float), padded):
                        results[0][at] += part * numerator[place]
                        results[1][at] += part * denominator[place]
    return results
