"""A particle whose volume, projections and transform are known exactly: a sum of Gaussians without any symmetry.

Everything is written from the definitions (where an atom is, and the Fourier integral of a Gaussian), so that it can
judge the engine's projection, RELION's and each other's signs without interpolation of any kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Blobs:
    """Gaussians of one width: ``positions`` (n, 3) x, y, z from the centre and ``sigma`` in angstrom, ``weights`` (n,)."""

    positions: NDArray[np.float64]
    weights: NDArray[np.float64]
    sigma: float

    def volume(self, box: int, pixel: float) -> NDArray[np.float32]:
        """Density sampled on (box, box, box) [z, y, x], centre at index box // 2."""
        axis = (np.arange(box) - box // 2) * pixel
        total = np.zeros((box, box, box))
        for (x, y, z), weight in zip(self.positions, self.weights):
            total += weight * np.einsum("i,j,k->ijk", *(np.exp(-((axis - c) ** 2) / (2 * self.sigma**2)) for c in (z, y, x)))
        return total.astype(np.float32)

    def image(self, rotation: NDArray, box: int, pixel: float, shift: Sequence[float] = (0.0, 0.0)) -> NDArray[np.float64]:
        """Projection (box, box) [y, x]: the atom at x_ref is seen at (``rotation`` x_ref)_xy + ``shift``, angstrom."""
        axis = (np.arange(box) - box // 2) * pixel
        seen = self.positions @ np.asarray(rotation).T
        total = np.zeros((box, box))
        for (x, y, _), weight in zip(seen, self.weights):
            x, y = x + shift[0], y + shift[1]
            total += weight * np.outer(
                np.exp(-((axis - y) ** 2) / (2 * self.sigma**2)), np.exp(-((axis - x) ** 2) / (2 * self.sigma**2))
            )
        return total * np.sqrt(2 * np.pi) * self.sigma / pixel  # the sum over z of the volume

    def transform(self, k: NDArray, pixel: float) -> NDArray[np.complex128]:
        """Plain forward Fourier sum of ``volume`` at frequencies ``k`` (..., 3) in 1/angstrom, kernel exp(-2 pi i k.x)."""
        envelope = (np.sqrt(2 * np.pi) * self.sigma / pixel) ** 3 * np.exp(-2 * (np.pi * self.sigma) ** 2 * (k**2).sum(-1))
        return envelope * (np.exp(-2j * np.pi * (k @ self.positions.T)) @ self.weights)


def asymmetric_blobs(pixel: float, extent: float, seed: int = 3, count: int = 12) -> Blobs:
    """Blobs of 1.2 pixels inside a sphere of radius ``extent`` angstrom, of different weights and without symmetry."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=(count, 3))
    radius = extent * random.uniform(0.3, 1.0, size=(count, 1))
    positions = radius * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    return Blobs(positions, random.uniform(0.5, 1.5, count), 1.2 * pixel)


def correlation(a: NDArray, b: NDArray) -> float:
    """Pearson's coefficient of two real arrays, or its real part for complex ones without DC."""
    a, b = np.ravel(a), np.ravel(b)
    if not (np.iscomplexobj(a) or np.iscomplexobj(b)):
        a, b = a - a.mean(), b - b.mean()
    return float(np.vdot(a, b).real / np.sqrt(np.vdot(a, a).real * np.vdot(b, b).real))
