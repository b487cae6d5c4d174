"""Scores of rotations and displacements by definition, one sample and one pixel at a time."""

from __future__ import annotations

from typing import Tuple

import numpy as np
from numpy.typing import NDArray


def shift_image(product: NDArray, kx: NDArray, ky: NDArray, field: float, step: float, reach: int) -> NDArray[np.float64]:
    """A(s) = Re sum conj(D) V exp(-2 pi i k.s) at s = ``step`` (x, y), x and y from -``reach``: (2 reach + 1,) * 2, [y, x]."""
    image = np.zeros((2 * reach + 1,) * 2)
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            for j in range(len(kx)):
                phase = np.exp(-2j * np.pi * step * (kx[j] * x + ky[j] * y) / field)
                image[y + reach, x + reach] += (product[j] * phase).real
    return image


def read_between(image: NDArray, x: float, y: float) -> float:
    """Bilinear interpolation; the origin is the image's centre."""
    reach = len(image) // 2
    column, row = int(np.floor(x)) + reach, int(np.floor(y)) + reach
    fx, fy = x - np.floor(x), y - np.floor(y)
    low = (1 - fx) * image[row, column] + fx * image[row, column + 1]
    high = (1 - fx) * image[row + 1, column] + fx * image[row + 1, column + 1]
    return float((1 - fy) * low + fy * high)


def score(
    data: NDArray, weight: NDArray, slices: NDArray, tilts: NDArray, kx: NDArray, ky: NDArray, field: float, step: float,
    tolerance: float,
) -> Tuple[float, NDArray[np.float64]]:
    """Best A sqrt(2 / B) of one particle and rotation and its displacement (3,), angstrom.

    ``data``, ``weight`` and ``slices`` (E, n) of its projections at ``tilts`` (E, 3, 3).
    """
    reach = int(tolerance / step + 1e-3) + 1
    images = [shift_image(d.conj() * v, kx, ky, field, step, reach) for d, v in zip(data, slices)]
    power = sum((w * np.abs(v) ** 2).sum() for w, v in zip(weight, slices))
    best, place = -np.inf, np.zeros(3)
    for z in range(-reach, reach + 1):
        for y in range(-reach, reach + 1):
            for x in range(-reach, reach + 1):
                point = np.array([x, y, z], float)
                if np.linalg.norm(point) * step > tolerance + 1e-6:
                    continue
                total = sum(read_between(image, *(tilt @ point)[:2]) for image, tilt in zip(images, tilts))
                if total > best:
                    best, place = total, point * step
    return best * np.sqrt(2.0 / power), place
