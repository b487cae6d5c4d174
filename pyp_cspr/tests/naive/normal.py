"""What ``refine.normal`` does, on the whole normal matrix, projection by projection."""

from __future__ import annotations

from typing import Tuple

import numpy as np
from numpy.typing import NDArray


def dense_system(
    gradients: NDArray,
    matrices: NDArray,
    index: Tuple[NDArray, NDArray],
    particle_jacobian: NDArray,
    exposure_jacobian: NDArray,
    particle_precision: NDArray,
    exposure_precision: NDArray,
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(gradient (n,), matrix (n, n)), n = P kp + E ke, particles first, with priors about the present parameters."""
    particles, exposures, _, kp = particle_jacobian.shape
    ke = exposure_jacobian.shape[-1]
    size = particles * kp + exposures * ke
    gradient = np.zeros(size)
    matrix = np.diag(np.concatenate([np.tile(particle_precision, particles), np.tile(exposure_precision, exposures)]))
    for local_gradient, local_matrix, p, e in zip(gradients, matrices, *index):
        jacobian = whole_jacobian(particle_jacobian, exposure_jacobian, p, e)
        gradient += jacobian.T @ local_gradient
        matrix += jacobian.T @ local_matrix @ jacobian
    return gradient, matrix


def whole_jacobian(particle_jacobian: NDArray, exposure_jacobian: NDArray, p: int, e: int) -> NDArray[np.float64]:
    """(m, n): the local parameters of one projection by all unknowns."""
    particles, exposures, local, kp = particle_jacobian.shape
    ke = exposure_jacobian.shape[-1]
    jacobian = np.zeros((local, particles * kp + exposures * ke))
    jacobian[:, p * kp : (p + 1) * kp] = particle_jacobian[p, e]
    first = particles * kp + e * ke
    jacobian[:, first : first + ke] = exposure_jacobian[p, e]
    return jacobian
