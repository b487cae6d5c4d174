"""What the images of a tilt series cannot tell: a rigid motion of its whole specimen frame, and of the reference.

A rotation Q and a translation c of a series' frame leave every projection as it is:

    R_p -> Q R_p, x_p -> Q x_p + c, T_e -> T_e Q^T, b_e -> b_e - (T_e Q^T c)_xy

M = T_e R_p and u = (T_e x_p)_xy + b_e do not change (sentences 9 and 11 of ``engine/conventions.py``); only the defocus
feels it, through the depth. Where the reference itself is free, so are its turn G and shift d, for all series together:
R_p -> R_p G, x_p -> x_p + R_p d. Two sets of parameters are compared after the motions that bring them closest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from .geometry import rotation_vector_to_matrix

# Smallest standard deviations assumed of a kind of parameter: below these all agree.
FLOOR_ANGLE = np.deg2rad(0.003)
FLOOR_LENGTH = 0.02  # angstrom


@dataclass(frozen=True)
class Geometry:
    """The parameters of one series."""

    rotations: NDArray[np.float64]  # (particles, 3, 3) R_p
    positions: NDArray[np.float64]  # (particles, 3) x_p
    tilts: NDArray[np.float64]  # (exposures, 3, 3) T_e
    shifts: NDArray[np.float64]  # (exposures, 2) b_e


def apply_gauge(geometry: Geometry, rotation: NDArray, translation: NDArray) -> Geometry:
    """Move a series' frame by Q ``rotation`` (3, 3) and c ``translation`` (3,); no projection changes."""
    tilts = geometry.tilts @ rotation.T
    return Geometry(
        rotation @ geometry.rotations,
        geometry.positions @ rotation.T + translation,
        tilts,
        geometry.shifts - (tilts @ translation)[:, :2],
    )


def apply_reference_motion(geometry: Geometry, rotation: NDArray, translation: NDArray) -> Geometry:
    """Turn and shift the reference: R_p -> R_p G, x_p -> x_p + R_p d."""
    return replace(
        geometry, rotations=geometry.rotations @ rotation, positions=geometry.positions + geometry.rotations @ translation
    )


def rotation_vectors(matrices: NDArray) -> NDArray[np.float64]:
    """The rotation vectors, radians, ``(..., 3)`` of ``(..., 3, 3)``; the inverse of ``rotation_vector_to_matrix``."""
    m = np.asarray(matrices, dtype=np.float64)
    sine = 0.5 * np.stack([m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], axis=-1)
    length = np.linalg.norm(sine, axis=-1)
    angle = np.arctan2(length, 0.5 * (np.trace(m, axis1=-2, axis2=-1) - 1.0))
    vector = sine * np.where(length > 1e-12, angle / np.maximum(length, 1e-300), 1.0)[..., None]
    # near a half turn the sine is lost in rounding: the axis is then the eigenvector of the symmetric part
    flat = (angle > 3.0) & (length < 1e-6)
    if flat.any():
        symmetric = 0.5 * (m[flat] + np.swapaxes(m[flat], -1, -2))
        vector[flat] = np.linalg.eigh(symmetric)[1][..., -1] * angle[flat][..., None]
    return vector


def nearest_equivalent(rotations: NDArray, target: NDArray, group: NDArray) -> NDArray[np.float64]:
    """R_p S, S of the point group ``(order, 3, 3)``, that is nearest to the target, for each of ``(n, 3, 3)``."""
    copies = rotations[:, None] @ group[None]  # (n, order, 3, 3)
    trace = np.einsum("ngij,nij->ng", copies, target)
    return copies[np.arange(len(rotations)), trace.argmax(axis=1)]


def mean_rotation(matrices: NDArray) -> NDArray[np.float64]:
    """The rotation (3, 3) nearest to a sum of matrices ``(n, 3, 3)`` (orthogonal Procrustes)."""
    u, _, vt = np.linalg.svd(np.sum(matrices, axis=0))
    return u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt


def find_gauge(
    estimate: Geometry, truth: Geometry, group: NDArray, iterations: int = 50
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(Q, c) that bring the estimate closest to the truth; ``group`` (order, 3, 3) holds the reference's symmetry.

    Gauss-Newton on the residuals of all rotations, positions, tilts and shifts. Each kind weighs by the inverse of its own mean
    square, found on the way (maximum likelihood of four normal errors of unknown size), so what is exact decides.
    """
    rotation = mean_rotation(np.swapaxes(truth.tilts, 1, 2) @ estimate.tilts)  # Q T_est^T = T_true^T; knows no symmetry
    translation = np.mean(truth.positions - estimate.positions @ rotation.T, axis=0)
    variances = np.array([np.deg2rad(1.0) ** 2, 3.0**2, np.deg2rad(1.0) ** 2, 3.0**2])
    floors = np.array([FLOOR_ANGLE, FLOOR_LENGTH, FLOOR_ANGLE, FLOOR_LENGTH]) ** 2
    for _ in range(iterations):
        blocks = _residuals(estimate, truth, group, rotation, translation)
        normal, gradient = np.zeros((6, 6)), np.zeros(6)
        for (residual, jacobian), variance in zip(blocks, variances):
            normal += np.einsum("nia,nib->ab", jacobian, jacobian) / variance
            gradient += np.einsum("nia,ni->a", jacobian, residual) / variance
        step = -np.linalg.lstsq(normal, gradient, rcond=1e-14)[0]
        rotation = rotation_vector_to_matrix(step[:3]) @ rotation
        translation = translation + step[3:]
        blocks = _residuals(estimate, truth, group, rotation, translation)
        updated = np.maximum([np.mean(residual**2) if residual.size else 1.0 for residual, _ in blocks], floors)
        settled = np.allclose(updated, variances, rtol=1e-6, atol=0.0)
        variances = updated
        if settled and np.abs(step[:3]).max() < 1e-10 and np.abs(step[3:]).max() < 1e-6:
            break
    return rotation, translation


def _residuals(
    estimate: Geometry, truth: Geometry, group: NDArray, rotation: NDArray, translation: NDArray
) -> List[Tuple[NDArray, NDArray]]:
    """(residual (n, m), derivative (n, m, 6) by a turn exp([w]) Q and by c) of rotations, positions, tilts, shifts."""
    moved = apply_gauge(estimate, rotation, translation)
    copies = nearest_equivalent(moved.rotations, truth.rotations, group)
    particles, exposures = len(truth.rotations), len(truth.tilts)
    turn = np.concatenate([np.eye(3), np.zeros((3, 3))], axis=1)
    centred = estimate.positions @ rotation.T
    by_position = np.concatenate([-_cross(centred), np.tile(np.eye(3), (particles, 1, 1))], axis=2)
    by_shift = np.concatenate([-(moved.tilts @ _cross(translation)), -moved.tilts], axis=2)[:, :2]
    return [
        (rotation_vectors(copies @ np.swapaxes(truth.rotations, 1, 2)), np.tile(turn, (particles, 1, 1))),
        (moved.positions - truth.positions, by_position),
        (rotation_vectors(np.swapaxes(moved.tilts, 1, 2) @ truth.tilts), np.tile(turn, (exposures, 1, 1))),
        (moved.shifts - truth.shifts, by_shift),
    ]


def _cross(vectors: NDArray) -> NDArray[np.float64]:
    """[v]x ``(..., 3, 3)`` of ``(..., 3)``."""
    v = np.asarray(vectors, dtype=np.float64)
    matrix = np.zeros(v.shape + (3,))
    matrix[..., 0, 1], matrix[..., 0, 2] = -v[..., 2], v[..., 1]
    matrix[..., 1, 0], matrix[..., 1, 2] = v[..., 2], -v[..., 0]
    matrix[..., 2, 0], matrix[..., 2, 1] = -v[..., 1], v[..., 0]
    return matrix


def remove_gauge(
    estimates: Sequence[Geometry], truths: Sequence[Geometry], group: NDArray, reference: bool = False, iterations: int = 50
) -> Tuple[List[Geometry], NDArray[np.float64], NDArray[np.float64]]:
    """(estimates moved onto the truths series by series, G, d); the reference moves only where ``reference`` is True."""
    turn, shift = np.eye(3), np.zeros(3)
    current = list(estimates)
    for _ in range(iterations if reference else 1):
        moved = [
            apply_gauge(geometry, *find_gauge(geometry, truth, group)) for geometry, truth in zip(current, truths)
        ]
        if not reference:
            break
        found = np.concatenate([geometry.rotations for geometry in moved])
        wanted = np.concatenate([geometry.rotations for geometry in truths])
        offsets = np.concatenate([truth.positions - geometry.positions for geometry, truth in zip(moved, truths)])
        copies = nearest_equivalent(found, wanted, group)
        # R_true = (R S) g for all particles; in the frame of the unturned reference that is a turn S g S^-1
        step = mean_rotation(np.swapaxes(copies, 1, 2) @ wanted)
        drift = np.mean(np.einsum("nji,nj->ni", found, offsets), axis=0)
        current = [apply_reference_motion(geometry, step, drift) for geometry in current]
        turn, shift = turn @ step, shift + turn @ drift
        if np.abs(step - np.eye(3)).max() < 1e-9 and np.abs(drift).max() < 1e-6:
            break
    return moved, turn, shift
