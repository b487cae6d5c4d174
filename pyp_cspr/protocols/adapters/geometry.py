"""Scipion's matrices and the engine's rotations, positions and shifts. NumPy only; ``engine/conventions.py`` has the signs.

A sub-tomogram's matrix M (4 x 4) has particle(r) = reference(M r), so inv(M) = [A | -s]: A turns the reference into the
tomogram, and -s, in pixels of the sub-tomograms, leads from the picked coordinate to the particle's centre. A tilt image's
matrix (3 x 3) takes raw to aligned pixels about the image's centre, as a line of IMOD's .xf does.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...engine.core.geometry import imod_to_exposure, matrix_to_tilt, rotation_z


def particle_from_set(
    matrix: ArrayLike, coordinate: ArrayLike, coordinate_pixel: float, pixel: float
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(R_p (3, 3), x_p (3,) in angstrom) of a sub-tomogram.

    ``matrix`` is its transform (4, 4); ``coordinate`` (3,) counts from the tomogram's centre in pixels of ``coordinate_pixel``,
    the matrix's translation in those of ``pixel``, both in angstrom.
    """
    inverse = np.linalg.inv(np.asarray(matrix, dtype=np.float64))
    return inverse[:3, :3], coordinate_pixel * np.asarray(coordinate, dtype=np.float64) + pixel * inverse[:3, 3]


def particle_to_set(
    rotation: ArrayLike, position: ArrayLike, coordinate: ArrayLike, coordinate_pixel: float, pixel: float
) -> NDArray[np.float64]:
    """The transform (4, 4) of a sub-tomogram that keeps its coordinate: the inverse of ``particle_from_set``."""
    inverse = np.eye(4)
    inverse[:3, :3] = rotation
    inverse[:3, 3] = (np.asarray(position, float) - coordinate_pixel * np.asarray(coordinate, float)) / pixel
    return np.linalg.inv(inverse)


def exposure_from_set(
    matrix: ArrayLike, tilt: ArrayLike, pixel: float
) -> Tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(T_e (n, 3, 3), b_e (n, 2) in angstrom, S (n, 2, 2)) of tilt images: matrices (n, 3, 3), tilt angles in degrees, pixel.

    S is what the matrix does besides its rotation, a magnification or a skew: particles are seen at S (T_e x_p)_xy + b_e.
    """
    m = np.asarray(matrix, dtype=np.float64)
    linear = m[:, :2, :2]
    rotation, shift = imod_to_exposure(linear, m[:, :2, 2], tilt, np.zeros(len(m)), pixel)
    turned = np.rad2deg(np.arctan2(linear[:, 1, 0] - linear[:, 0, 1], linear[:, 0, 0] + linear[:, 1, 1]))
    return rotation, shift, np.linalg.inv(linear) @ rotation_z(turned)[:, :2, :2]


def exposure_to_set(
    rotation: ArrayLike, shift: ArrayLike, stretch: ArrayLike, pixel: float
) -> Tuple[NDArray[np.float64], float, float]:
    """(matrix (3, 3), tilt angle, X-tilt that Scipion cannot hold), in degrees, of a tilt image's T_e (3, 3), b_e (2,) in
    angstrom and S (2, 2), as of ``exposure_from_set``.
    """
    xtilt, ytilt, zrot = matrix_to_tilt(rotation)
    matrix = np.eye(3)
    matrix[:2, :2] = np.linalg.inv(np.asarray(stretch, dtype=np.float64) @ rotation_z(zrot)[:2, :2])
    matrix[:2, 2] = -matrix[:2, :2] @ np.asarray(shift, dtype=np.float64) / pixel
    return matrix, float(ytilt), float(xtilt)
