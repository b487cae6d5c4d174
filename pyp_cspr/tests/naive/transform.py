"""What ``sample.transform`` does: the transform of a map as the plain sum over its voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def plain_sum(volume: NDArray, point: ArrayLike, pixel: float = 1.0) -> complex:
    """sum v(r) exp(-2 pi i k.r) at ``point`` k = (x, y, z) in 1 / ``pixel`` units, r counted from index N // 2 of each axis."""
    total = np.asarray(volume, np.complex128)
    for k in np.asarray(point, float):  # x is the last axis
        r = (np.arange(total.shape[-1]) - total.shape[-1] // 2) * pixel
        total = total @ np.exp(-2j * np.pi * k * r)
    return complex(total)


def half_plane(volume: NDArray, rotation: NDArray, box: int, limit: float) -> NDArray[np.complex128]:
    """(box, box // 2 + 1): the slice at M^T (kx, ky, 0) / box as rfft2 has it, 0 from ``limit`` (1 / pixel) and at Nyquist."""
    out = np.zeros((box, box // 2 + 1), complex)
    for kx in range(box // 2):
        for ky in range(-box // 2 + 1, box // 2):
            if np.hypot(kx, ky) < limit * box:
                out[ky, kx] = plain_sum(volume, rotation.T @ np.array([kx, ky, 0.0]) / box)
    return out
