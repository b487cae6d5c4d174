"""What ``core.refinement`` does, in double precision, one projection and one corner at a time, from the definitions."""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np
from numpy.typing import NDArray


class Model(NamedTuple):
    """Of one projection: ``value`` (n,) V e, its derivatives ``jacobian`` (n, 5), and the ``cell`` (n, 3) of each sample."""

    value: NDArray[np.complex128]
    jacobian: NDArray[np.complex128]
    cell: NDArray[np.int64]


def sample(transform: NDArray, point: NDArray) -> Tuple[complex, NDArray[np.complex128]]:
    """Trilinear value and its gradient (3,) by x, y, z at a point in grid units of a centred periodic transform."""
    padded = len(transform)
    low = np.floor(point).astype(int)
    part = point - low
    value, gradient = 0.0j, np.zeros(3, complex)
    for corner in np.ndindex(2, 2, 2):  # x, y, z
        weights = np.where(corner, part, 1 - part)
        slopes = np.where(corner, 1.0, -1.0)
        x, y, z = (low + corner + padded // 2) % padded
        f = transform[z, y, x]
        value += weights.prod() * f
        for axis in range(3):
            others = [a for a in range(3) if a != axis]
            gradient[axis] += slopes[axis] * weights[others].prod() * f
    return value, gradient


def model(
    transform: NDArray, rotation: NDArray, shift: NDArray, kx: NDArray, ky: NDArray, field: float, ratio: float
) -> Model:
    """V(ratio M^T k) exp(-2 pi i k.s / field) and its derivatives by w in exp([w]x) M (radians) and by s (angstrom)."""
    count = len(kx)
    value, jacobian, cell = np.zeros(count, complex), np.zeros((count, 5), complex), np.zeros((count, 3), int)
    for j in range(count):
        k = np.array([kx[j], ky[j], 0.0])
        point = ratio * rotation.T @ k
        v, gradient = sample(transform, point)
        phase = np.exp(-2j * np.pi * (k[:2] @ shift) / field)
        value[j] = v * phase
        cell[j] = np.floor(point)
        for axis in range(3):
            # (exp([w]x) M)^T k = M^T exp(-[w]x) k, which changes by M^T (k x w)
            jacobian[j, axis] = gradient @ (ratio * rotation.T @ np.cross(k, np.eye(3)[axis])) * phase
        jacobian[j, 3:] = -2j * np.pi * k[:2] / field * value[j]
    return Model(value, jacobian, cell)


def cost(data: NDArray, weight: NDArray, value: NDArray) -> float:
    """sum W |Y|^2 - 2 Re sum D* Y."""
    return float((weight * np.abs(value) ** 2).sum() - 2.0 * (np.conj(data) * value).real.sum())


def equations(data: NDArray, weight: NDArray, y: Model) -> Tuple[float, float, NDArray, NDArray]:
    """(match, power, gradient (5,), matrix (5, 5)) of one projection."""
    match = (np.conj(data) * y.value).real.sum()
    power = (weight * np.abs(y.value) ** 2).sum()
    gradient = 2.0 * ((weight * np.conj(y.value) - np.conj(data)) @ y.jacobian).real
    matrix = 2.0 * (np.conj(y.jacobian).T @ (weight[:, None] * y.jacobian)).real
    return float(match), float(power), gradient, matrix
