"""What ``core.projection`` does, on the whole centred transform in double precision, one corner at a time."""

from __future__ import annotations

from typing import Iterator, Tuple

import numpy as np
from numpy.typing import NDArray


def centred_transform(volume: NDArray, padded: int) -> NDArray[np.complex128]:
    """Plain Fourier sum of a map about its centre, zero-padded, ``(padded,) * 3`` with zero frequency at padded // 2."""
    box = len(volume)
    space = np.zeros((padded,) * 3)
    first = padded // 2 - box // 2
    space[(slice(first, first + box),) * 3] = volume
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(space)))


def corners(point: NDArray, padded: int) -> Iterator[Tuple[Tuple[int, int, int], float]]:
    """The eight ((z, y, x), weight) around a point (x, y, z) in grid units, on the periodic centred grid."""
    low = np.floor(point).astype(int)
    part = point - low
    for dx in (0, 1):
        for dy in (0, 1):
            for dz in (0, 1):
                weight = (part[0] if dx else 1 - part[0]) * (part[1] if dy else 1 - part[1]) * (part[2] if dz else 1 - part[2])
                place = (low[2] + dz, low[1] + dy, low[0] + dx)
                z, y, x = ((i + padded // 2) % padded for i in place)
                yield (z, y, x), weight


def slices(
    transform: NDArray, rotations: NDArray, kx: NDArray, ky: NDArray, ratio: float
) -> NDArray[np.complex128]:
    """(B, n) trilinear samples of a centred transform at ``ratio`` M^T (kx, ky, 0)."""
    padded = len(transform)
    out = np.zeros((len(rotations), len(kx)), complex)
    for b, m in enumerate(rotations):
        for j in range(len(kx)):
            point = ratio * (kx[j] * m[0] + ky[j] * m[1])
            out[b, j] = sum(weight * transform[place] for place, weight in corners(point, padded))
    return out
