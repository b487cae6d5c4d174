"""The arrowhead system of one series: assembly from local equations, solution by Schur complement, covariance.

    [ C   E^T ] [d_particles]     [g_particles]
    [ E   B   ] [d_exposures] = - [g_exposures]

C is block diagonal over particles and B over exposures, because a projection couples one particle with one exposure (bundle
adjustment; Triggs et al. 2000). Eliminating the particles leaves S = B - sum_p E_p^T C_p^-1 E_p, some hundred unknowns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterator, NamedTuple, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..core.refinement import LocalEquations

Array = NDArray[np.float64]
Damping = Union[float, Array]

# A pivot that elimination has left smaller than this fraction of its diagonal is rounding, not information.
SINGULAR = 1e-13
PART_BYTES = 2**22


class Step(NamedTuple):
    """Displacements of the parameters."""

    particles: Array  # (P, kp)
    exposures: Array  # (E, ke)


class Covariance(NamedTuple):
    """Of each particle's parameters and of each exposure's, all others being free too, and between the two."""

    particles: Array  # (P, kp, kp)
    exposures: Array  # (E, ke, ke)
    cross: Array  # (P, kp, E, ke)


@dataclass
class Arrowhead:
    """Gradient and matrix of -log likelihood and priors in the free parameters of one series."""

    particle_gradient: Array  # (P, kp)
    exposure_gradient: Array  # (E, ke)
    particle_matrix: Array  # (P, kp, kp)
    exposure_matrix: Array  # (E, ke, ke)
    coupling: Array  # (P, kp, E * ke)

    @classmethod
    def zeros(cls, particles: int, kp: int, exposures: int, ke: int) -> Arrowhead:
        return cls(
            np.zeros((particles, kp)), np.zeros((exposures, ke)), np.zeros((particles, kp, kp)), np.zeros((exposures, ke, ke)),
            np.zeros((particles, kp, exposures * ke)),
        )

    @classmethod
    def assemble(
        cls,
        local: LocalEquations,
        index: Tuple[NDArray[np.int64], NDArray[np.int64]],
        particle_jacobian: Array,
        exposure_jacobian: Array,
    ) -> Arrowhead:
        """The system of P particles at once; arguments as those of ``enter``."""
        particles, exposures, _, kp = particle_jacobian.shape
        system = cls.zeros(particles, kp, exposures, exposure_jacobian.shape[-1])
        system.exposure_gradient, system.exposure_matrix = system.enter(
            0, local, np.ones(len(local.power)), index, particle_jacobian, exposure_jacobian)
        return system

    def enter(
        self,
        first: int,
        local: LocalEquations,
        weights: Array,
        index: Tuple[NDArray[np.int64], NDArray[np.int64]],
        particle_jacobian: Array,
        exposure_jacobian: Array,
    ) -> Tuple[Array, Array]:
        """Enter all of some particles, ``first`` and those after it; returns their parts of the exposures' gradient and matrix.

        From Q local equations, times ``weights`` (Q,), of projections ``index`` = (particle, counted from ``first``; exposure)
        and the Jacobians ``(n, E, m, k)`` of the n particles; the first m local parameters are taken.
        """
        from . import normal_kernels as kernels

        particles, exposures = particle_jacobian.shape[:2]
        row = np.full((particles, exposures), -1)
        row[index] = np.arange(len(index[0]))
        rows = slice(first, first + particles)
        gradient, matrix = np.zeros(self.exposure_gradient.shape), np.zeros(self.exposure_matrix.shape)
        scratch = np.empty(particle_jacobian.shape[2:]), np.empty(exposure_jacobian.shape[2:])
        kernels.enter(row, local.gradient, local.matrix, weights, particle_jacobian, exposure_jacobian,
                      self.particle_gradient[rows], self.particle_matrix[rows], self.coupling[rows], gradient, matrix, *scratch)
        return gradient, matrix

    def add_priors(
        self, particle_precision: Array, particle_offset: Array, exposure_precision: Array, exposure_offset: Array
    ) -> None:
        """Gaussian priors: ``precision`` (k,) = 1 / sigma^2 on the ``offset`` (n, k) of each parameter from its start."""
        self.particle_gradient += particle_precision * particle_offset
        self.exposure_gradient += exposure_precision * exposure_offset
        self.particle_matrix += np.diag(particle_precision)
        self.exposure_matrix += np.diag(exposure_precision)

    def frozen(self, particles: NDArray[np.bool_], exposures: NDArray[np.bool_]) -> Arrowhead:
        """The system in which the parameters marked in ``particles`` (P, kp) and ``exposures`` (E, ke) do not move."""
        blocks = []
        for matrices, fixed in ((self.particle_matrix, particles), (self.exposure_matrix, exposures)):
            free = np.where(fixed[:, :, None] | fixed[:, None, :], 0.0, matrices)
            blocks.append(free + fixed[:, :, None] * np.eye(fixed.shape[1]))
        columns = particles[:, :, None] | exposures.reshape(-1)
        gradients = np.where(particles, 0.0, self.particle_gradient), np.where(exposures, 0.0, self.exposure_gradient)
        coupling = np.where(columns, 0.0, self.coupling)
        return Arrowhead(gradients[0], gradients[1], blocks[0], blocks[1], coupling)

    def unseen(self) -> Tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Parameters that neither a projection nor a prior touches, ``(P, kp)`` and ``(E, ke)``."""
        return np.einsum("pii->pi", self.particle_matrix) == 0, np.einsum("eii->ei", self.exposure_matrix) == 0

    def solve(self, particle_damping: Damping = 0.0, exposure_damping: Damping = 0.0) -> Step:
        """The Newton step with Marquardt's damping: diagonals times 1 + damping, one number or one for each block.

        Raises numpy.linalg.LinAlgError where the system is singular: a free parameter that nothing determines.
        """
        count, size = self.exposure_gradient.shape
        exposure_matrix = _damped(self.exposure_matrix, exposure_damping)
        inverse = _inverses(_damped(self.particle_matrix, particle_damping))
        if size == 0:
            return Step(-_times(inverse, self.particle_gradient), np.zeros((count, 0)))
        if inverse.shape[1] == 0:
            return Step(np.zeros(self.particle_gradient.shape), -_times(_inverses(exposure_matrix), self.exposure_gradient))
        reduced = self._reduce(inverse, exposure_matrix)
        alone = _times(inverse, self.particle_gradient)
        move = -reduced.solve(self.exposure_gradient.reshape(-1) - alone.reshape(-1) @ self.coupling.reshape(alone.size, -1))
        inner = self.particle_gradient + self.coupling @ move
        return Step(-_times(inverse, inner), move.reshape(count, size))

    def _reduce(self, inverse: Array, exposure_matrix: Array) -> _Factor:
        """S factorised, from the inverses of the particles' blocks."""
        count, size = self.exposure_gradient.shape
        reduced = np.zeros((count * size, count * size))
        for part in self._parts():
            coupling = self.coupling[part]
            flat = coupling.reshape(-1, count * size)
            reduced -= flat.T @ (inverse[part] @ coupling).reshape(flat.shape)
        before = np.einsum("eii->ei", exposure_matrix).reshape(-1)
        for exposure in range(count):
            block = slice(exposure * size, (exposure + 1) * size)
            reduced[block, block] += exposure_matrix[exposure]
        return _Factor(reduced, before)

    def _parts(self) -> Iterator[slice]:
        """Some particles at a time, so that copies of the coupling stay small."""
        each = max(1, self.coupling[:1].nbytes)
        step = max(1, PART_BYTES // each)
        for first in range(0, len(self.coupling), step):
            yield slice(first, first + step)

    def after(self, step: Step) -> Arrowhead:
        """The system where ``step`` has been made: another gradient, the same matrix."""
        move = step.exposures.reshape(-1)
        particle = _times(self.particle_matrix, step.particles) + self.coupling @ move
        carried = step.particles.reshape(-1) @ self.coupling.reshape(step.particles.size, move.size)
        exposure = _times(self.exposure_matrix, step.exposures) + carried.reshape(step.exposures.shape)
        return replace(
            self, particle_gradient=self.particle_gradient + particle, exposure_gradient=self.exposure_gradient + exposure
        )

    def predicted(self, step: Step) -> float:
        """By how much the undamped quadratic model falls: - g.d - d.H.d / 2."""
        total = float(sum(part.sum() for part in self.predicted_apart(step)))
        if self.coupling.size:
            total -= float(np.einsum("pi,pij,j", step.particles, self.coupling, step.exposures.reshape(-1), optimize=True))
        return total

    def predicted_apart(self, step: Step) -> Tuple[Array, Array]:
        """The same of every particle ``(P,)`` and exposure ``(E,)`` without what couples them."""
        out = []
        for gradient, matrix, move in (
            (self.particle_gradient, self.particle_matrix, step.particles),
            (self.exposure_gradient, self.exposure_matrix, step.exposures),
        ):
            out.append(-(gradient * move).sum(axis=1) - 0.5 * np.einsum("ni,nij,nj->n", move, matrix, move, optimize=True))
        return out[0], out[1]

    def covariance(self, damping: float = 0.0) -> Covariance:
        """The inverse's blocks, of diagonals times 1 + ``damping``; a parameter that nothing touches has an infinite variance.

        Raises numpy.linalg.LinAlgError where parameters that something touches are yet not determined.
        """
        count, size = self.exposure_gradient.shape
        particles, kp = self.particle_gradient.shape
        unseen = self.unseen()
        system = self.frozen(*unseen)
        inverse = _inverses(_damped(system.particle_matrix, damping))
        exposure_matrix = _damped(system.exposure_matrix, damping)
        cross = np.zeros((particles, kp, count, size))
        if size == 0 or kp == 0:
            covariance = Covariance(inverse, _inverses(exposure_matrix), cross)
        else:
            whole = system._reduce(inverse, exposure_matrix).solve(np.eye(count * size))
            whole = 0.5 * (whole + whole.T)
            blocks = whole.reshape(count, size, count, size)[np.arange(count), :, np.arange(count), :]
            inner = inverse.copy()
            for part in system._parts():
                spread = inverse[part] @ system.coupling[part]
                towards = spread @ whole
                inner[part] += towards @ np.swapaxes(spread, 1, 2)
                cross[part] = -towards.reshape(cross[part].shape)
            covariance = Covariance(inner, blocks, cross)
        for variances, untouched in zip((covariance.particles, covariance.exposures), unseen):
            block, row = np.nonzero(untouched)
            variances[block, row, row] = np.inf
        return covariance


def projection_covariance(
    covariance: Covariance,
    index: Tuple[NDArray[np.int64], NDArray[np.int64]],
    particle_jacobian: Array,
    exposure_jacobian: Array,
) -> Array:
    """Covariance of the local parameters of every projection of ``index``, ``(Q, m, m)``: what no gauge can change."""
    particle, exposure = index
    inner, outer = particle_jacobian[index], exposure_jacobian[index]

    def carried(left: Array, matrices: Array, right: Array) -> Array:
        product: Array = np.einsum("qik,qkl,qjl->qij", left, matrices, right, optimize=True)
        return product

    mixed = carried(inner, covariance.cross[particle, :, exposure], outer)
    own = carried(inner, covariance.particles[particle], inner) + carried(outer, covariance.exposures[exposure], outer)
    return own + mixed + mixed.transpose(0, 2, 1)


class _Factor:
    """Cholesky factor of a symmetric matrix brought to a unit diagonal: degrees and angstrom differ by orders of magnitude."""

    def __init__(self, matrix: Array, before: Array) -> None:
        """``before`` is the diagonal from which elimination started. Raises LinAlgError where too little of it is left."""
        import scipy.linalg  # slow to import, and a reconstruction does without

        diagonal = np.diag(matrix)
        if not (diagonal > SINGULAR * before).all():
            raise np.linalg.LinAlgError("singular")
        self.scale = 1.0 / np.sqrt(diagonal)
        self.factor = scipy.linalg.cho_factor(matrix * self.scale[:, None] * self.scale, lower=True)
        if (np.diag(self.factor[0]) ** 2 < SINGULAR).any():
            raise np.linalg.LinAlgError("singular")

    def solve(self, right: Array) -> Array:
        import scipy.linalg

        scale = self.scale if right.ndim == 1 else self.scale[:, None]
        solved: Array = scale * scipy.linalg.cho_solve(self.factor, scale * right)
        return solved


def _damped(matrices: Array, damping: Damping) -> Array:
    out = matrices.copy()
    diagonal = np.arange(out.shape[-1])
    factor = 1.0 + np.asarray(damping, dtype=np.float64)
    out[:, diagonal, diagonal] *= factor[:, None] if factor.ndim else factor
    return out


def _inverses(matrices: Array) -> Array:
    """Inverses of symmetric positive blocks ``(n, k, k)``; LinAlgError where one is singular."""
    if not matrices.size:
        return matrices
    diagonal = np.einsum("nii->ni", matrices)
    if not (diagonal > 0).all():
        raise np.linalg.LinAlgError("singular")
    scale = 1.0 / np.sqrt(diagonal)
    both = scale[:, :, None] * scale[:, None, :]
    factor = np.linalg.cholesky(matrices * both)
    if (np.einsum("nii->ni", factor) ** 2 < SINGULAR).any():
        raise np.linalg.LinAlgError("singular")
    inverse = np.linalg.inv(factor)
    solved: Array = both * (np.swapaxes(inverse, 1, 2) @ inverse)
    return solved


def _times(matrices: Array, vectors: Array) -> Array:
    product: Array = (matrices @ vectors[..., None])[..., 0]
    return product
