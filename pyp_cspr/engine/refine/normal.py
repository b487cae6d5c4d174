"""The arrowhead system of one series: assembly from local equations, solution by Schur complement, covariance.

    [ C   E^T ] [d_particles]     [g_particles]
    [ E   B   ] [d_exposures] = - [g_exposures]

C is block diagonal over particles and B over exposures, because a projection couples one particle with one exposure (bundle
adjustment; Triggs et al. 2000). Eliminating the particles leaves S = B - sum_p E_p^T C_p^-1 E_p, some hundred unknowns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Tuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ..core.refinement import LocalEquations


class Step(NamedTuple):
    """Displacements, and the fall of the cost that the quadratic model predicts for them."""

    particles: NDArray[np.float64]  # (P, kp)
    exposures: NDArray[np.float64]  # (E, ke)
    predicted: float


@dataclass
class Arrowhead:
    """Gradient and matrix of -log likelihood and priors in the free parameters of one series."""

    particle_gradient: NDArray[np.float64]  # (P, kp)
    exposure_gradient: NDArray[np.float64]  # (E, ke)
    particle_matrix: NDArray[np.float64]  # (P, kp, kp)
    exposure_matrix: NDArray[np.float64]  # (E, ke, ke)
    coupling: NDArray[np.float64]  # (P, kp, E * ke)

    @classmethod
    def assemble(
        cls,
        local: LocalEquations,
        index: Tuple[NDArray[np.int64], NDArray[np.int64]],
        particle_jacobian: NDArray[np.float64],
        exposure_jacobian: NDArray[np.float64],
    ) -> Arrowhead:
        """From Q local equations of projections ``index`` = (particle, exposure) and the Jacobians ``(P, E, 5, k)``."""
        particles, exposures = particle_jacobian.shape[:2]
        gradient = np.zeros((particles, exposures, particle_jacobian.shape[2]))
        matrix = np.zeros(gradient.shape + (gradient.shape[-1],))
        gradient[index], matrix[index] = local.gradient, local.matrix
        turned = np.swapaxes(particle_jacobian, -1, -2)
        moved = matrix @ exposure_jacobian
        coupling = turned @ moved  # (P, E, kp, ke)
        return cls(
            np.einsum("peak,pea->pk", particle_jacobian, gradient),
            np.einsum("peak,pea->ek", exposure_jacobian, gradient),
            (turned @ matrix @ particle_jacobian).sum(axis=1),
            (np.swapaxes(exposure_jacobian, -1, -2) @ moved).sum(axis=0),
            np.ascontiguousarray(coupling.transpose(0, 2, 1, 3)).reshape(particles, coupling.shape[2], -1),
        )

    def add_priors(
        self,
        particle_precision: NDArray,
        particle_offset: NDArray,
        exposure_precision: NDArray,
        exposure_offset: NDArray,
    ) -> None:
        """Gaussian priors: ``precision`` (k,) = 1 / sigma^2 on the ``offset`` (n, k) of each parameter from its start."""
        self.particle_gradient += particle_precision * particle_offset
        self.exposure_gradient += exposure_precision * exposure_offset
        self.particle_matrix += np.diag(particle_precision)
        self.exposure_matrix += np.diag(exposure_precision)

    def solve(self, damping: float = 0.0) -> Step:
        """The Newton step with Marquardt's damping (diagonals times 1 + ``damping``).

        Raises numpy.linalg.LinAlgError where the system is singular: a free parameter that nothing determines.
        """
        count, size = self.exposure_gradient.shape
        particles = _damped(self.particle_matrix, damping)
        if self.particle_gradient.shape[1] == 0:
            step = -_solve_blocks(_damped(self.exposure_matrix, damping), self.exposure_gradient)
            return Step(np.zeros(self.particle_gradient.shape), step, self._predicted(self.particle_gradient, step))
        if size == 0:
            step = -_solve_blocks(particles, self.particle_gradient)
            return Step(step, np.zeros((count, 0)), self._predicted(step, self.exposure_gradient))
        inverse = np.linalg.inv(particles)
        reduced, right = self._reduce(inverse, _damped(self.exposure_matrix, damping))
        move = -scipy.linalg.cho_solve(scipy.linalg.cho_factor(reduced, lower=True), right)
        inner = self.particle_gradient + self.coupling @ move
        particle_step = -np.einsum("pij,pj->pi", inverse, inner)
        exposure_step = move.reshape(count, size)
        return Step(particle_step, exposure_step, self._predicted(particle_step, exposure_step))

    def _reduce(self, inverse: NDArray, exposure_matrix: NDArray) -> Tuple[NDArray, NDArray]:
        """S and the reduced gradient, from the inverse of the particles' blocks."""
        count, size = self.exposure_gradient.shape
        eliminated = inverse @ self.coupling  # (P, kp, E ke)
        flat = self.coupling.reshape(-1, count * size)
        reduced = -(flat.T @ eliminated.reshape(-1, count * size))
        for exposure in range(count):
            part = slice(exposure * size, (exposure + 1) * size)
            reduced[part, part] += exposure_matrix[exposure]
        right = self.exposure_gradient.reshape(-1) - np.einsum("pkj,pk->j", eliminated, self.particle_gradient)
        return reduced, right

    def _predicted(self, particles: NDArray, exposures: NDArray) -> float:
        """- g.d - d.H.d / 2 of the undamped system."""
        gain = (self.particle_gradient * particles).sum() + (self.exposure_gradient * exposures).sum()
        curved = np.einsum("pi,pij,pj", particles, self.particle_matrix, particles)
        curved += np.einsum("ei,eij,ej", exposures, self.exposure_matrix, exposures)
        if self.coupling.size:
            curved += 2.0 * np.einsum("pi,pij,j", particles, self.coupling, exposures.reshape(-1))
        return float(-gain - 0.5 * curved)

    def covariance(self) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Covariance of each particle's parameters ``(P, kp, kp)`` and each exposure's ``(E, ke, ke)``, all others free too."""
        count, size = self.exposure_gradient.shape
        if self.particle_gradient.shape[1] == 0:
            return np.zeros(self.particle_matrix.shape), np.linalg.inv(self.exposure_matrix)
        inverse = np.linalg.inv(self.particle_matrix)
        if size == 0:
            return inverse, np.zeros((count, 0, 0))
        reduced, _ = self._reduce(inverse, self.exposure_matrix)
        exposures = scipy.linalg.cho_solve(scipy.linalg.cho_factor(reduced, lower=True), np.eye(count * size))
        spread = inverse @ self.coupling
        particles = inverse + spread @ exposures @ np.swapaxes(spread, 1, 2)
        blocks = exposures.reshape(count, size, count, size)
        return particles, blocks[np.arange(count), :, np.arange(count), :]


def _damped(matrices: NDArray, damping: float) -> NDArray[np.float64]:
    out = matrices.copy()
    size = out.shape[-1]
    diagonal = np.arange(size)
    out[:, diagonal, diagonal] *= 1.0 + damping
    return out


def _solve_blocks(matrices: NDArray, right: NDArray) -> NDArray[np.float64]:
    solved: NDArray[np.float64] = np.linalg.solve(matrices, right[..., None])[..., 0]
    return solved
