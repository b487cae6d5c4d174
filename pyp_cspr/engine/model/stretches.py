"""What is linear in how a tilt image is stretched, as a matrix and as the columns of a data set. NumPy only.

A particle is seen at u = S (T_e x_p)_xy + b_e, S (2, 2). The columns hold S as a magnification and a deformation.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .tables import LARGEST_GRID, Dataset

ROUNDING = 0.01  # pixels; numbers in text files are rounded to less


def stretches_to_columns(stretch: ArrayLike, size: ArrayLike, pixel: float) -> Tuple[NDArray, NDArray, int]:
    """(magnification (n,), deformation (n, 2 LARGEST_GRID^2), its grid) of a series' S (n, 2, 2).

    The magnification is S's mean along all directions; what is left is linear in the place, which a field of 2 control values
    to a side holds exactly, inside the image of ``size`` (2,) pixels. What moves no corner of it by ROUNDING is none.
    """
    stretch = np.asarray(stretch, dtype=np.float64)
    mean = 0.5 * np.trace(stretch, axis1=1, axis2=2)
    rest = stretch - mean[:, None, None] * np.eye(2)
    corners = _knots(size, 2)
    deformation, grid = np.zeros((len(stretch), 2 * LARGEST_GRID**2)), 0
    moved = np.einsum("eij,cj->eci", rest, corners)
    if np.abs(moved).max(initial=0.0) > ROUNDING:
        deformation[:, :8], grid = pixel * moved.reshape(len(stretch), 8), 2
    if (np.abs(mean - 1.0) * np.abs(corners).max()).max(initial=0.0) <= ROUNDING:
        mean = np.ones(len(stretch))
    return mean, deformation, grid


def columns_to_stretches(dataset: Dataset) -> Tuple[NDArray[np.float64], float]:
    """(S (n, 2, 2) of all exposures, the largest control value of a deformation that is not linear, in angstrom).

    The inverse of ``stretches_to_columns``; of any other deformation S has what is linear (by least squares).
    """
    made, lost = dataset.exposures["magnification"][:, None, None] * np.eye(2), 0.0
    for series in range(len(dataset.series)):
        grid = int(dataset.series["deformation_grid"][series])
        if grid >= 2:
            knots, values = _knots(dataset.field(series), grid), dataset.deformations(series)
            linear = np.linalg.pinv(knots) @ values  # (E, 2, 2), transposed
            lost = max(lost, float(np.abs(values - knots @ linear).max(initial=0.0)))
            made[dataset.exposures_of(series)] += np.swapaxes(linear, 1, 2)
    return made, lost


def _knots(field: ArrayLike, grid: int) -> NDArray[np.float64]:
    """Where the control values of a field are, (grid^2, 2) from its middle, by rows; ``field`` (2,) is its width and height."""
    across = np.linspace(-0.5, 0.5, grid)
    return np.stack(np.meshgrid(across, across), axis=-1).reshape(-1, 2) * np.asarray(field, dtype=np.float64)
