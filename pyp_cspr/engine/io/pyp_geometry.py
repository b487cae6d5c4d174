"""PYP's geometry and the engine's: poses, positions, crops, tilts, defocus. Arrays in, arrays out; nothing is read here.

``engine/conventions.py``, sentences 8, 10 and 16 to 18, says what the numbers mean. PYP's specimen frame has its origin at the
tomogram's corner and counts unbinned pixels; the engine's has its origin at the tomogram's centre and counts angstrom; the axes
are the same, and PYP's z is that of a tomogram read from its end (``model_to_positions``). Angles are in degrees.
"""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.geometry import (
    euler_to_matrix,
    matrix_to_tilt,
    particle_to_pyp,
    projection_shift,
    projection_to_frealign,
    pyp_tilt_matrix,
    pyp_to_particle,
    rotation_x,
    rotation_z,
    sva_to_particle,
)
from ..core.splines import grid_weights
from ..model.tables import LARGEST_GRID

Floats = NDArray[np.float64]


# --- particles ----------------------------------------------------------------------------------------------------------


def model_to_positions(points: ArrayLike, size: ArrayLike, binning: float) -> Floats:
    """PYP positions ``(n, 3)`` in unbinned pixels of points ``(n, 3)`` picked in a tomogram.

    ``size`` ``(3,)`` is the unbinned tomogram's. The z of a picked point counts from the other end of the tomogram.
    """
    positions = np.asarray(points, dtype=np.float64) * binning
    positions[..., 2] = np.asarray(size, float)[2] - positions[..., 2]
    return positions


def position_to_specimen(stored: ArrayLike, shift: ArrayLike, size: ArrayLike, pixel: float) -> Floats:
    """x_p ``(n, 3)`` in angstrom of stored positions (unbinned pixels) and shifts s (angstrom): true = stored - s."""
    return (np.asarray(stored, float) - np.asarray(size, float) / 2.0) * pixel - np.asarray(shift, float)


def specimen_to_position(position: ArrayLike, size: ArrayLike, pixel: float) -> Tuple[Floats, Floats]:
    """(stored, s): the stored position is a whole pixel, so that float32 loses nothing, and s has the rest."""
    true = np.asarray(position, float) / pixel + np.asarray(size, float) / 2.0
    stored = np.rint(true)
    return stored, (stored - true) * pixel


def parx_to_particle(norm: ArrayLike, matrix: ArrayLike, residual: ArrayLike) -> Tuple[Floats, Floats]:
    """(R_p, s) of an extended .parx line: NORM ``(n, 3)``, MATRIX rows [R | t] ``(n, 3, 4)``, PPSI PTHETA PPHI ``(n, 3)``.

    s has the unit of t. The residual angles turn in the reference's frame, E_total = E(-residual) E_p, and R is first made a
    rotation again, as CSP does on reading.
    """
    linear = np.array(matrix, dtype=np.float64)
    left, _, right = np.linalg.svd(linear[..., :3])
    linear[..., :3] = left @ right
    rotation, shift = sva_to_particle(norm, linear)
    angles = np.asarray(residual, dtype=np.float64)
    return rotation @ pyp_to_particle(angles[..., 0], angles[..., 1], angles[..., 2]), shift


def volume_to_particle(normal: ArrayLike, matrix: ArrayLike, binning: float) -> Tuple[Floats, Floats]:
    """(R_p, displacement from the picked position in unbinned pixels) of rows of a sub-volume alignment.

    ``normal`` ``(n, 3)``, ``matrix`` ``(n, 4, 4)`` with its translation in pixels of the sub-volumes, of this ``binning``.
    The displacement, -s, is to be added once: PYP stores it in the position and again as a shift.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    rotation, shift = parx_to_particle(normal, matrix[..., :3, :], np.zeros(matrix.shape[:-2] + (3,)))
    return rotation, -shift * binning


def particle_to_volume(rotation: ArrayLike) -> Tuple[Floats, Floats]:
    """(normal, matrix) of a sub-volume alignment without translation: NORM 0, R = J R_p J. The inverse of the above."""
    rotation = np.asarray(rotation, dtype=np.float64)
    mirror = np.diag([1.0, -1.0, 1.0])
    matrix = np.zeros(rotation.shape[:-2] + (4, 4))
    matrix[..., :3, :3] = mirror @ rotation @ mirror
    matrix[..., 3, 3] = 1.0
    return np.zeros(rotation.shape[:-2] + (3,)), matrix


# --- projections --------------------------------------------------------------------------------------------------------


class Projections(NamedTuple):
    """What a FREALIGN line says of projections: degrees from 0 to 360, and angstrom from the box centre."""

    psi: Floats
    theta: Floats
    phi: Floats
    shift: Floats  # (..., 2)


def project_particles(
    rotation: ArrayLike, shift: ArrayLike, tilt: ArrayLike, axis: ArrayLike, tilt_shift: ArrayLike, frame_shift: ArrayLike = 0.0
) -> Projections:
    """PSI, THETA, PHI, SHX, SHY of particles R_p, s in tilts a, b, T_k, F; leading shapes broadcast."""
    tilts = pyp_tilt_matrix(tilt, axis)
    moved = projection_shift(tilts, shift, np.asarray(tilt_shift, float) + np.asarray(frame_shift, float))
    return Projections(*projection_to_frealign(rotation, tilts), moved)


def projection_matrix(psi: ArrayLike, theta: ArrayLike, phi: ArrayLike) -> Floats:
    """M = T_e R_p of a FREALIGN line: reference to microscope."""
    return euler_to_matrix(phi, theta, psi)


def particle_angles(rotation: ArrayLike) -> Tuple[Floats, Floats, Floats]:
    """P = (Ppsi, Ptheta, Pphi) that PYP stores for R_p."""
    return particle_to_pyp(rotation)


# --- tilts --------------------------------------------------------------------------------------------------------------


class TiltGeometry(NamedTuple):
    """PYP's words for exposures, and what they cannot say."""

    tilt: Floats  # (n,) TILTANG
    axis: Floats  # (n,) TILTAXIS
    turn: Floats  # (3, 3) Q: the specimen is to be turned by it, x' = Q x, R' = Q R
    lost: float  # deg, largest rotation that the two angles and Q leave out


def exposures_to_tilts(rotation: ArrayLike) -> TiltGeometry:
    """PYP has no rotation about x: what all T_e ``(n, 3, 3)`` have in common of it goes into a turn of the specimen."""
    xtilt, ytilt, zrot = matrix_to_tilt(rotation)
    common = float(np.median(xtilt))
    common = 0.0 if abs(common) < 1e-9 else common
    return TiltGeometry(ytilt, -zrot, rotation_x(common), float(np.abs(xtilt - common).max(initial=0.0)))


def raw_shift(linear: ArrayLike, offset: ArrayLike) -> Floats:
    """Where the tomogram's centre is seen, ``(n, 2)`` pixels from half the raw image: -F^-1 d of a .xf."""
    return -np.einsum("...ij,...j->...i", np.linalg.inv(np.asarray(linear, float)), np.asarray(offset, float))


def tilt_axis(linear: ArrayLike) -> Floats:
    """TILTAXIS ``(n,)`` of a .xf: the rotation of F in degrees."""
    f = np.asarray(linear, dtype=np.float64)
    return np.rad2deg(np.arctan2(f[..., 1, 0] - f[..., 0, 1], f[..., 0, 0] + f[..., 1, 1]))


def raw_positions(
    stored: ArrayLike, size: ArrayLike, tilt: ArrayLike, linear: ArrayLike, offset: ArrayLike, image_size: ArrayLike
) -> Floats:
    """u_raw ``(particles, tilts, 2)``: pixel coordinates in the raw images of stored positions ``(particles, 3)``.

    PYP's formula: the inverse of the .xf with all that is in it, a magnification too. The pixel of a crop's centre is the
    floor of it.
    """
    from_centre = np.asarray(stored, float) - np.asarray(size, float) / 2.0
    angle = np.deg2rad(np.asarray(tilt, float))
    x = from_centre[:, None, 0] * np.cos(angle) + from_centre[:, None, 2] * np.sin(angle)
    y = np.broadcast_to(from_centre[:, None, 1], x.shape)
    inverse = np.linalg.inv(np.asarray(linear, float))
    seen = np.einsum("eij,pej->pei", inverse, np.stack([x, y], axis=-1))
    return seen + raw_shift(linear, offset) + np.asarray(image_size, float) / 2.0


def affine_deformation(linear: ArrayLike, field: ArrayLike, grid: int = 2) -> Floats:
    """Control values ``(n, 2 LARGEST_GRID^2)`` of deformation fields: what F^-1 does besides its rotation.

    A magnification or a shear in the .xf is linear in the position, and a bilinear field holds that exactly. ``field`` ``(2,)``
    is the images' width and height in angstrom.
    """
    f = np.asarray(linear, dtype=np.float64)
    excess = np.linalg.inv(f) @ rotation_z(tilt_axis(f))[..., :2, :2] - np.eye(2)
    across = np.linspace(-0.5, 0.5, grid)
    knots = np.stack(np.meshgrid(across, across), axis=-1).reshape(-1, 2) * np.asarray(field, float)
    values = np.zeros((len(f), 2 * LARGEST_GRID**2))
    values[:, : 2 * grid**2] = np.einsum("eij,cj->eci", excess, knots).reshape(len(f), -1)
    return values


def fit_deformation(place: ArrayLike, residual: ArrayLike, field: ArrayLike, grid: int, stiffness: float = 1e-4) -> Floats:
    """Control values ``(2 LARGEST_GRID^2,)`` of the field nearest to ``residual`` ``(n, 2)`` angstrom at ``place`` ``(n, 2)``.

    ``stiffness`` draws values that no particle is near to towards 0.
    """
    weights = grid_weights(np.asarray(place, float), field, grid)
    normal = weights.T @ weights + stiffness * np.eye(grid * grid)
    values = np.zeros(2 * LARGEST_GRID**2)
    values[: 2 * grid * grid] = np.linalg.solve(normal, weights.T @ np.asarray(residual, float)).ravel()
    return values


# --- images -------------------------------------------------------------------------------------------------------------


def pixel_to_image(raw: ArrayLike, image_size: ArrayLike, pixel: float) -> Floats:
    """u in angstrom from the engine's image centre (pixel N // 2) of raw pixel coordinates ``(..., 2)``."""
    return (np.asarray(raw, float) - np.asarray(image_size) // 2) * pixel


def image_to_pixel(u: ArrayLike, image_size: ArrayLike, pixel: float) -> Floats:
    """The inverse of ``pixel_to_image``."""
    return np.asarray(u, float) / pixel + np.asarray(image_size) // 2


def phase_shift_degrees(values: ArrayLike) -> Floats:
    """A table's PHASE_SHIFT in degrees. cisTEM's unit is the radian, but PYP imports RELION's degrees as they are.

    Values beyond a full turn in radians can only be degrees; then all of the table are.
    """
    phase = np.asarray(values, dtype=np.float64)
    return phase if np.any(np.abs(phase) > 2 * np.pi) else np.rad2deg(phase)


def plane_defocus(tilt: ArrayLike, offset: ArrayLike, height: float, pixel: float, hand: float) -> Floats:
    """What to add to the measured defocus of tilts for that of the tomogram's centre, angstrom ``(n,)``.

    A CTF fit sees the specimen where the image's centre is: at d of the .xf, ``offset`` ``(n, 2)`` pixels, on a plane that lies
    ``height`` angstrom above the tomogram's centre. There depth = -d_x tan a + height / cos a. (PYP turns d by the axis angle,
    though it is in the aligned frame already, and has height cos a.)
    """
    angle = np.deg2rad(np.asarray(tilt, float))
    depth = -np.asarray(offset, float)[..., 0] * pixel * np.tan(angle) + height / np.cos(angle)
    return -hand * depth
