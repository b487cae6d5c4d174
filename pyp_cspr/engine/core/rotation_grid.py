"""Grids and random draws of rotations: all of them, those within an angle, and one of each set of symmetry mates."""

from __future__ import annotations

from typing import Optional

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .geometry import rotation_vector_to_matrix

VOLUME = 8.0 * np.pi**2  # of all rotations, in cubic radians
_FEWEST = 100  # below that the spiral's covering is worse than its constant
_PSI = 1.533751168755204288118041  # root of x^4 = x + 4, Alexa 2022


def quaternion_to_matrix(quaternions: ArrayLike) -> NDArray[np.float64]:
    """Rotations ``(..., 3, 3)`` of unit quaternions ``(..., 4)``, the real part last."""
    x, y, z, w = np.moveaxis(np.asarray(quaternions, dtype=np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def random_rotations(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """``(count, 3, 3)``, uniform over all rotations."""
    quaternions = random.normal(size=(count, 4))
    return quaternion_to_matrix(quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True))


def full_grid(step: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Quasi-uniform grid ``(n, 3, 3)`` over all rotations: none is farther than ``step`` (degrees) from its nearest.

    The super-Fibonacci spiral of Alexa (CVPR 2022), n = 8 pi^2 / step^3, turned as a whole by a random rotation. Its covering
    radius is at most 0.99 of the step for all n from 100 on (measured), its mean distance half a step.
    """
    count = max(_FEWEST, int(np.ceil(VOLUME / np.deg2rad(step) ** 3)))
    place = np.arange(count) + 0.5
    inner, outer = np.sqrt(place / count), np.sqrt(1.0 - place / count)
    alpha, beta = 2 * np.pi * place / np.sqrt(2.0), 2 * np.pi * place / _PSI
    spiral = np.stack([inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)], axis=-1)
    turned: NDArray[np.float64] = random_rotations(1, random)[0] @ quaternion_to_matrix(spiral)
    return turned


def cone_grid(cone: float, step: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Grid ``(n, 3, 3)`` of the rotations by at most ``cone`` degrees; the identity comes first.

    A body-centred cubic lattice of rotation vectors with the covering radius ``step``, turned and offset at random. The
    exponential map never lengthens distances, so no rotation by less than cone - step is farther than ``step`` from the grid.
    """
    edge = step * 4.0 / np.sqrt(5.0)  # of the lattice's cube
    reach = int(np.ceil(cone / edge)) + 2
    axis = np.arange(-reach, reach + 1.0)
    corners = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    lattice = np.concatenate([corners, corners + 0.5]) + random.uniform(size=3)
    vectors = edge * lattice @ random_rotations(1, random)[0].T
    vectors = vectors[np.linalg.norm(vectors, axis=1) <= cone]
    return np.concatenate([np.eye(3)[None], rotation_vector_to_matrix(np.deg2rad(vectors))])


def cone_draws(count: int, cone: float, random: np.random.Generator) -> NDArray[np.float64]:
    """``(count + 1, 3, 3)``: the identity, and random rotations by at most ``cone`` degrees, uniform among these."""
    angles = np.linspace(0.0, np.deg2rad(cone), 4097)
    share = angles - np.sin(angles)  # the volume within an angle, up to a factor
    angle = np.interp(random.uniform(size=count) * share[-1], share, angles)
    axis = random.normal(size=(count, 3))
    vectors = angle[:, None] * axis / np.linalg.norm(axis, axis=1, keepdims=True)
    return np.concatenate([np.eye(3)[None], rotation_vector_to_matrix(vectors)])


def in_asymmetric_unit(
    rotations: ArrayLike, symmetry: ArrayLike, centre: Optional[ArrayLike] = None
) -> NDArray[np.bool_]:
    """Which rotations R ``(n, 3, 3)`` are nearer to ``centre`` (3, 3) than their mates R g.

    ``symmetry`` (G, 3, 3) are the g; ``centre`` is the identity by default.
    """
    group = np.asarray(symmetry, dtype=np.float64)
    relative = np.asarray(rotations, dtype=np.float64)
    if centre is not None:
        relative = np.asarray(centre, dtype=np.float64).T @ relative
    traces = np.einsum("nij,gji->ng", relative, group)  # the larger the trace, the smaller the angle
    own = np.trace(relative, axis1=1, axis2=2)
    return np.asarray(own >= traces.max(axis=1) - 1e-9)


def symmetric_angle(first: ArrayLike, second: ArrayLike, symmetry: ArrayLike) -> NDArray[np.float64]:
    """Angle in degrees between rotations ``(..., 3, 3)``, the smallest over the mates R g of either."""
    relative = np.swapaxes(np.asarray(first, float), -1, -2) @ np.asarray(second, float)
    trace = np.einsum("...ij,gji->...g", relative, np.asarray(symmetry, float)).max(axis=-1)
    return np.asarray(np.rad2deg(np.arccos(np.clip(0.5 * (trace - 1.0), -1.0, 1.0))))
