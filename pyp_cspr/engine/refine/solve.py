"""Levenberg-Marquardt over one series: from coarse to fine, every step accepted on the true cost or taken back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Dict, List, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.geometry import matrix_to_tilt
from ..core.refinement import LocalEquations
from .normal import Arrowhead, Step
from .parameters import (
    EXPOSURE_MODES,
    PARTICLE_MODES,
    Layout,
    SeriesGeometry,
    apply_exposure_step,
    apply_particle_step,
)

# (rotations (Q, 3, 3), centres (Q, 2)) -> local equations of the used projections
Evaluate = Callable[[NDArray[np.float64], NDArray[np.float64]], LocalEquations]


@dataclass(frozen=True)
class SolveOptions:
    """Which modes are free, and how long to go on. Standard deviations of the priors in degrees and angstrom."""

    free: Tuple[str, ...] = ("rotation", "position", "tilt_angle", "axis_angle", "shift")
    sigmas: Dict[str, float] = field(default_factory=lambda: {
        "rotation": 30.0, "position": 20.0, "tilt_angle": 1.5, "axis_angle": 1.0, "third_angle": 1.0, "shift": 100.0,
        "deformation": 20.0,
    })
    max_evaluations: int = 25  # at each stage
    # Stop where a step gains, or promises, less than this in the cost for each particle: 0.3 sigma, squared, halved. The
    # coarse stages only have to bring everything into the reach of the next one.
    gain: float = 0.05
    coarse_gain: float = 0.5


@dataclass
class SolveReport:
    """What happened: the cost at every evaluation, and why it ended."""

    cost: List[float] = field(default_factory=list)
    reason: str = ""

    @property
    def evaluations(self) -> int:
        return len(self.cost)


@dataclass
class Solution:
    geometry: SeriesGeometry
    particle_layout: Layout
    exposure_layout: Layout
    particle_covariance: NDArray[np.float64]  # (P, kp, kp)
    exposure_covariance: NDArray[np.float64]  # (E, ke, ke)
    local: LocalEquations
    report: SolveReport


def solve_series(
    start: SeriesGeometry,
    geometry: SeriesGeometry,
    used: NDArray[np.bool_],
    evaluate: Evaluate,
    last: bool,
    options: SolveOptions,
) -> Solution:
    """Refine one series from ``geometry`` at one resolution; the priors hold the parameters to ``start``.

    ``used`` (P, E) says which projections there are, in the order in which ``evaluate`` takes and returns them. ``last`` is
    False for the coarse stages, which end earlier.
    """
    index = np.nonzero(used)
    particles = Layout.of(PARTICLE_MODES, list(options.free), start)
    exposures = Layout.of(EXPOSURE_MODES, list(options.free), start)
    problem = _Problem(start, index, evaluate, particles, exposures, options)
    geometry, local, report = _descend(problem, geometry, last, options)
    covariances = problem.system(geometry, local).covariance()
    return Solution(geometry, particles, exposures, *covariances, local=local, report=report)


@dataclass
class _Problem:
    start: SeriesGeometry
    index: Tuple[NDArray[np.int64], ...]
    evaluate: Evaluate
    particles: Layout
    exposures: Layout
    options: SolveOptions

    def local(self, geometry: SeriesGeometry) -> LocalEquations:
        return self.evaluate(geometry.orientations()[self.index], geometry.centres()[self.index])

    def offsets(self, geometry: SeriesGeometry) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How far every free parameter is from its start: (P, kp), (E, ke), radians and angstrom."""
        start = self.start
        particle = np.zeros((len(geometry.poses), self.particles.size))
        exposure = np.zeros((len(geometry.tilts), self.exposures.size))
        if "rotation" in self.particles.slices:
            particle[:, self.particles.slices["rotation"]] = _rotation_vectors(geometry.poses @ np.swapaxes(start.poses, 1, 2))
        if "position" in self.particles.slices:
            particle[:, self.particles.slices["position"]] = geometry.positions - start.positions
        before, after = matrix_to_tilt(start.tilts), matrix_to_tilt(geometry.tilts)
        for name, which in (("tilt_angle", 1), ("axis_angle", 2), ("third_angle", 0)):
            if name in self.exposures.slices:
                turn = np.deg2rad((after[which] - before[which] + 180.0) % 360.0 - 180.0)
                exposure[:, self.exposures.slices[name]] = turn[:, None]
        if "shift" in self.exposures.slices:
            exposure[:, self.exposures.slices["shift"]] = geometry.shifts - start.shifts
        if "deformation" in self.exposures.slices:
            change = geometry.deformations - start.deformations
            exposure[:, self.exposures.slices["deformation"]] = change.reshape(len(change), -1)
        return particle, exposure

    def prior_cost(self, geometry: SeriesGeometry) -> float:
        particle, exposure = self.offsets(geometry)
        sigmas = self.options.sigmas
        total = (self.particles.precision(sigmas) * particle**2).sum() + (self.exposures.precision(sigmas) * exposure**2).sum()
        return 0.5 * float(total)

    def system(self, geometry: SeriesGeometry, local: LocalEquations) -> Arrowhead:
        index = (self.index[0], self.index[1])
        system = Arrowhead.assemble(local, index, self.particles.derivative(geometry), self.exposures.derivative(geometry))
        particle, exposure = self.offsets(geometry)
        sigmas = self.options.sigmas
        system.add_priors(self.particles.precision(sigmas), particle, self.exposures.precision(sigmas), exposure)
        return system

    def moved(self, geometry: SeriesGeometry, step: Step) -> SeriesGeometry:
        new = geometry.copy()
        apply_particle_step(new, self.particles, step.particles)
        apply_exposure_step(new, self.exposures, step.exposures)
        return new


def _descend(
    problem: _Problem, geometry: SeriesGeometry, last: bool, options: SolveOptions
) -> Tuple[SeriesGeometry, LocalEquations, SolveReport]:
    report = SolveReport(reason="evaluations used up")
    local = problem.local(geometry)
    cost = float(local.cost.sum()) + problem.prior_cost(geometry)
    report.cost.append(cost)
    damping = 1e-3
    enough = (options.gain if last else options.coarse_gain) * len(geometry.poses)
    while report.evaluations < options.max_evaluations:
        step = problem.system(geometry, local).solve(damping)
        if step.predicted < enough:
            report.reason = "converged"
            break
        trial = problem.moved(geometry, step)
        trial_local = problem.local(trial)
        trial_cost = float(trial_local.cost.sum()) + problem.prior_cost(trial)
        report.cost.append(trial_cost)
        gained = cost - trial_cost
        if gained > 0:
            geometry, local, cost = trial, trial_local, trial_cost
            damping = max(damping * (0.1 if gained > 0.5 * step.predicted else 0.5), 1e-6)
            if gained < enough:
                report.reason = "converged"
                break
        else:
            damping = max(damping * 10.0, 1e-2)
            if damping > 1e6:
                report.reason = "no step lowers the cost"
                break
    return geometry, local, report


def _rotation_vectors(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation vectors in radians of matrices ``(n, 3, 3)``."""
    from scipy.spatial.transform import Rotation

    vectors: NDArray[np.float64] = Rotation.from_matrix(matrices).as_rotvec()
    return vectors
