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


def exposure_from_set(matrix: ArrayLike, tilt: float, pixel: float) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(T_e (3, 3), b_e (2,) in angstrom) of a tilt image: its matrix (3, 3), tilt angle in degrees and pixel size."""
    m = np.asarray(matrix, dtype=np.float64)
    return imod_to_exposure(m[:2, :2], m[:2, 2], tilt, 0.0, pixel)


def exposure_to_set(
    rotation: ArrayLike, shift: ArrayLike, before: ArrayLike, pixel: float
) -> Tuple[NDArray[np.float64], float, float]:
    """(matrix (3, 3), tilt angle, X-tilt that Scipion cannot hold), in degrees, of T_e and b_e.

    ``before`` (3, 3) is the matrix that the tilt image came with: its magnification and skew, which a rigid geometry does not
    know, are kept.
    """
    old = np.asarray(before, dtype=np.float64)
    xtilt, ytilt, zrot = matrix_to_tilt(rotation)
    turned = np.rad2deg(np.arctan2(old[1, 0] - old[0, 1], old[0, 0] + old[1, 1]))
    matrix = np.eye(3)
    matrix[:2, :2] = rotation_z(-float(zrot) - turned)[:2, :2] @ old[:2, :2]
    matrix[:2, 2] = -matrix[:2, :2] @ np.asarray(shift, dtype=np.float64) / pixel
    return matrix, float(ytilt), float(xtilt)
