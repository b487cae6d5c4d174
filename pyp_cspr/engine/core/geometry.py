"""Rotations, projection, and the forms in which other programs write them. Conventions: ``engine/conventions.py``.

Everything here takes and returns float64 and works on any leading shape ``(...)``.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrices = NDArray[np.float64]  # (..., 3, 3)
Vectors = NDArray[np.float64]  # (..., 2) or (..., 3)


def rotation_x(degrees: ArrayLike) -> Matrices:
    """Rx, shape ``(..., 3, 3)``: right-handed, active."""
    return _axis_rotation(degrees, 1, 2)


def rotation_y(degrees: ArrayLike) -> Matrices:
    """Ry, shape ``(..., 3, 3)``: right-handed, active."""
    return _axis_rotation(degrees, 2, 0)


def rotation_z(degrees: ArrayLike) -> Matrices:
    """Rz, shape ``(..., 3, 3)``: right-handed, active."""
    return _axis_rotation(degrees, 0, 1)


def _axis_rotation(degrees: ArrayLike, first: int, second: int) -> Matrices:
    angle = np.deg2rad(np.asarray(degrees, dtype=np.float64))
    matrix = np.zeros(angle.shape + (3, 3))
    matrix[..., [0, 1, 2], [0, 1, 2]] = 1.0
    matrix[..., first, first] = matrix[..., second, second] = np.cos(angle)
    matrix[..., second, first] = np.sin(angle)
    matrix[..., first, second] = -np.sin(angle)
    return matrix


def euler_to_matrix(rot: ArrayLike, tilt: ArrayLike, psi: ArrayLike) -> Matrices:
    """A = Rz(-psi) Ry(-tilt) Rz(-rot), degrees in, shape ``(..., 3, 3)`` out."""
    return rotation_z(-np.asarray(psi, float)) @ rotation_y(-np.asarray(tilt, float)) @ rotation_z(
        -np.asarray(rot, float)
    )


def matrix_to_euler(matrix: ArrayLike) -> Tuple[NDArray, NDArray, NDArray]:
    """(rot, tilt, psi) in degrees of A; tilt in [0, 180]; at tilt 0 and 180, psi is 0 and rot carries all."""
    a = np.asarray(matrix, dtype=np.float64)
    sine = np.hypot(a[..., 2, 0], a[..., 2, 1])
    tilt = np.arctan2(sine, a[..., 2, 2])
    degenerate = sine < 1e-9
    safe = np.where(degenerate, 1.0, 0.0)
    rot = np.arctan2(a[..., 2, 1], a[..., 2, 0] + safe)
    psi = np.arctan2(a[..., 1, 2], -a[..., 0, 2] + safe)
    # tilt = 0: A = Rz(-rot); tilt = 180: A = Ry(180) Rz(-rot). Both have A[1, 0] = -sin(rot), A[1, 1] = cos(rot).
    rot = np.where(degenerate, np.arctan2(-a[..., 1, 0], a[..., 1, 1]), rot)
    psi = np.where(degenerate, 0.0, psi)
    return np.rad2deg(rot), np.rad2deg(tilt), np.rad2deg(psi)


def rotation_vector_to_matrix(vector: ArrayLike) -> Matrices:
    """exp([w]x) of rotation vectors in radians, ``(..., 3)`` to ``(..., 3, 3)``, by Rodrigues' formula."""
    w = np.asarray(vector, dtype=np.float64)
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    small = angle < 1e-8
    safe = np.where(small, 1.0, angle)
    cross = np.zeros(w.shape[:-1] + (3, 3))
    cross[..., 0, 1], cross[..., 0, 2] = -w[..., 2], w[..., 1]
    cross[..., 1, 0], cross[..., 1, 2] = w[..., 2], -w[..., 0]
    cross[..., 2, 0], cross[..., 2, 1] = -w[..., 1], w[..., 0]
    first = np.where(small, 1.0, np.sin(angle) / safe)
    second = np.where(small, 0.5, (1.0 - np.cos(angle)) / safe**2)
    return np.eye(3) + first * cross + second * (cross @ cross)


def rotation_angle(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Angle in degrees of the rotation between two sets of matrices ``(..., 3, 3)``; exact near zero."""
    relative = np.swapaxes(np.asarray(first, float), -1, -2) @ np.asarray(second, float)
    sine = 0.5 * np.sqrt(
        (relative[..., 2, 1] - relative[..., 1, 2]) ** 2
        + (relative[..., 0, 2] - relative[..., 2, 0]) ** 2
        + (relative[..., 1, 0] - relative[..., 0, 1]) ** 2
    )
    cosine = 0.5 * (np.trace(relative, axis1=-2, axis2=-1) - 1.0)
    return np.rad2deg(np.arctan2(sine, cosine))


def tilt_to_matrix(xtilt: ArrayLike, ytilt: ArrayLike, zrot: ArrayLike) -> Matrices:
    """T_e = Rz(zrot) Ry(ytilt) Rx(xtilt), specimen to microscope."""
    return rotation_z(zrot) @ rotation_y(ytilt) @ rotation_x(xtilt)


def matrix_to_tilt(matrix: ArrayLike) -> Tuple[NDArray, NDArray, NDArray]:
    """(xtilt, ytilt, zrot) in degrees of T_e; ytilt in [-90, 90]."""
    t = np.asarray(matrix, dtype=np.float64)
    ytilt = np.arctan2(-t[..., 2, 0], np.hypot(t[..., 2, 1], t[..., 2, 2]))
    xtilt = np.arctan2(t[..., 2, 1], t[..., 2, 2])
    zrot = np.arctan2(t[..., 1, 0], t[..., 0, 0])
    return np.rad2deg(xtilt), np.rad2deg(ytilt), np.rad2deg(zrot)


def project(rotation: ArrayLike, shift: ArrayLike, position: ArrayLike) -> Tuple[Vectors, NDArray[np.float64]]:
    """Where a particle is seen: u ``(..., 2)`` and depth ``(...)``, angstrom.

    ``rotation`` T_e ``(..., 3, 3)``, ``shift`` b_e ``(..., 2)``, ``position`` x_p ``(..., 3)``; leading shapes broadcast.
    """
    seen = np.einsum("...ij,...j->...i", np.asarray(rotation, float), np.asarray(position, float))
    return seen[..., :2] + np.asarray(shift, float), seen[..., 2]


def imod_to_exposure(
    linear: ArrayLike, offset: ArrayLike, tilt: ArrayLike, xtilt: ArrayLike, pixel: float
) -> Tuple[Matrices, Vectors]:
    """(T_e, b_e) of an IMOD alignment.

    ``linear`` F ``(..., 2, 2)`` and ``offset`` d ``(..., 2)`` (pixels) of the .xf, ``tilt`` of the .tlt and ``xtilt`` in
    degrees, ``pixel`` in angstrom. A magnification in F is not part of a rigid geometry: only its rotation is used
    for T_e, and the whole of F for b_e.
    """
    f = np.asarray(linear, dtype=np.float64)
    rotation = np.rad2deg(np.arctan2(f[..., 1, 0] - f[..., 0, 1], f[..., 0, 0] + f[..., 1, 1]))
    shift = -np.einsum("...ij,...j->...i", np.linalg.inv(f), np.asarray(offset, float)) * pixel
    return tilt_to_matrix(xtilt, tilt, -rotation), shift


def exposure_to_imod(
    rotation: ArrayLike, shift: ArrayLike, pixel: float
) -> Tuple[NDArray, NDArray, NDArray, NDArray]:
    """(linear, offset, tilt, xtilt): the inverse of ``imod_to_exposure``."""
    xtilt, ytilt, zrot = matrix_to_tilt(rotation)
    linear = rotation_z(-zrot)[..., :2, :2]
    offset = -np.einsum("...ij,...j->...i", linear, np.asarray(shift, float)) / pixel
    return linear, offset, ytilt, xtilt


def pyp_tilt_matrix(tilt: ArrayLike, axis: ArrayLike) -> Matrices:
    """M_k = Rz(-axis) Ry(tilt) of PYP's tilt angle and tilt-axis angle in degrees."""
    return tilt_to_matrix(np.zeros_like(np.asarray(tilt, float)), tilt, -np.asarray(axis, float))


def particle_to_pyp(rotation: ArrayLike) -> Tuple[NDArray, NDArray, NDArray]:
    """PYP's stored particle angles (Ppsi, Ptheta, Pphi) of R_p: the negated angles of E_p."""
    rot, tilt, psi = matrix_to_euler(rotation)
    return -psi, -tilt, -rot


def pyp_to_particle(psi: ArrayLike, theta: ArrayLike, phi: ArrayLike) -> Matrices:
    """R_p of PYP's stored particle angles."""
    return euler_to_matrix(-np.asarray(phi, float), -np.asarray(theta, float), -np.asarray(psi, float))


def projection_to_frealign(particle: ArrayLike, tilt_matrix: ArrayLike) -> Tuple[NDArray, NDArray, NDArray]:
    """FREALIGN's (psi, theta, phi), each in [0, 360), of E_pk = E_p M_k^T."""
    rot, tilt, psi = matrix_to_euler(np.asarray(tilt_matrix, float) @ np.asarray(particle, float))
    return np.mod(psi, 360.0), np.mod(tilt, 360.0), np.mod(rot, 360.0)


def projection_shift(tilt_matrix: ArrayLike, particle_shift: ArrayLike, image_shift: ArrayLike) -> Vectors:
    """(SHX, SHY) in angstrom: -(M_k s)_xy + T_k (+ F, added by the caller to ``image_shift``)."""
    return project(tilt_matrix, 0.0, -np.asarray(particle_shift, float))[0] + np.asarray(image_shift, float)


def sva_to_particle(norm: ArrayLike, matrix: ArrayLike) -> Tuple[Matrices, Vectors]:
    """(R_p, s) of an SVA alignment.

    ``norm`` (NORM0, NORM1, NORM2) in degrees ``(..., 3)``; ``matrix`` [R | t] ``(..., 3, 4)`` row-major. s has the unit of t,
    and the true position is the stored one - s.
    """
    norm = np.asarray(norm, dtype=np.float64)
    matrix = np.asarray(matrix, dtype=np.float64)
    mirror = np.diag([1.0, -1.0, 1.0])
    outer = rotation_z(norm[..., 2]) @ rotation_x(norm[..., 0]) @ rotation_z(norm[..., 1])
    rotation = outer @ mirror @ matrix[..., :, :3] @ mirror
    shift = -np.einsum("...ij,...j->...i", outer @ mirror, matrix[..., :, 3])
    return rotation, shift
