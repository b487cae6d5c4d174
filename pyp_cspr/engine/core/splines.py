"""Smooth fields over a tilt image: uniform cubic B-splines on a square grid of control values, with natural ends.

Along an axis the n control values c_0 ... c_n-1 have their knots evenly from one side of the image to the other. A value beyond
either end follows from the natural condition, no curvature there: c_-1 = 2 c_0 - c_1. So n control values are n free
parameters, two of them make a straight line, the curve meets c_0 and c_n-1 at the ends, and the weights add up to 1 everywhere.
Value, slope and curvature are continuous. Beyond the image the field is that of its edge.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def grid_weights(position: ArrayLike, field: ArrayLike, grid: int) -> NDArray[np.float64]:
    """Weights ``(..., grid^2)`` of the control values, by rows.

    ``position`` ``(..., 2)`` in angstrom from the image's centre, without the exposure's shift; ``field`` (2,) width and height
    that the ``grid`` (2 or more to a side) spans. A ``grid`` below 2 has no control values.
    """
    place = np.asarray(position, dtype=np.float64)
    if grid < 2:
        return np.zeros(place.shape[:-1] + (0,))
    weights, _ = _along(place, field, grid)
    return _outer(weights[..., 1, :], weights[..., 0, :])


def grid_slopes(position: ArrayLike, field: ArrayLike, grid: int) -> NDArray[np.float64]:
    """How ``grid_weights`` change with x and with y, ``(..., 2, grid^2)`` per angstrom."""
    place = np.asarray(position, dtype=np.float64)
    if grid < 2:
        return np.zeros(place.shape + (0,))
    weights, slopes = _along(place, field, grid)
    by_x = _outer(weights[..., 1, :], slopes[..., 0, :])
    by_y = _outer(slopes[..., 1, :], weights[..., 0, :])
    return np.stack([by_x, by_y], axis=-2)


def _outer(rows: NDArray, columns: NDArray) -> NDArray[np.float64]:
    product: NDArray[np.float64] = rows[..., :, None] * columns[..., None, :]
    return product.reshape(rows.shape[:-1] + (rows.shape[-1] * columns.shape[-1],))


def _along(position: NDArray, field: ArrayLike, grid: int) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of each axis' control values and their slopes per angstrom, ``(..., 2, grid)``, x first."""
    per_angstrom = (grid - 1) / np.asarray(field, dtype=np.float64)
    place = position * per_angstrom + 0.5 * (grid - 1)
    away = np.clip(place, 0.0, grid - 1.0)[..., None] - np.arange(-1, grid + 1)
    distance = np.abs(away)
    outer = np.clip(2.0 - distance, 0.0, None)
    inner = np.clip(1.0 - distance, 0.0, None)
    weights = outer**3 / 6.0 - 4.0 * inner**3 / 6.0  # the cardinal cubic B-spline, of support 4
    slopes = np.sign(away) * (2.0 * inner**2 - 0.5 * outer**2) * per_angstrom[:, None]
    inside = (place >= 0) & (place <= grid - 1)
    return _folded(weights), _folded(np.where(inside[..., None], slopes, 0.0))


def _folded(weights: NDArray) -> NDArray[np.float64]:
    """Of ``grid`` + 2 values, the first and last of which follow from the natural ends, those of the free ones."""
    out: NDArray[np.float64] = weights[..., 1:-1].copy()
    out[..., 0] += 2.0 * weights[..., 0]
    out[..., 1] -= weights[..., 0]
    out[..., -1] += 2.0 * weights[..., -1]
    out[..., -2] -= weights[..., -1]
    return out
