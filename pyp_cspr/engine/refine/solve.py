"""Levenberg-Marquardt over one series: every step accepted on the true cost or taken back.

Where exposures and particles are both free, one step moves all. Where only one kind is, its members do not know of each other:
each has its own damping, is accepted or taken back by itself, and is left alone once it has settled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core._jit import run_ranges
from ..core.ctf_refinement import components_to_form
from ..core.geometry import rotation_vector_to_matrix
from ..core.refinement import LocalEquations
from ..errors import InputError
from .noise import robust_weights
from .normal import Arrowhead, Covariance, Damping, Step, projection_covariance
from .parameters import EXPOSURE_MODES, LOCAL_CTF, PARTICLE_MODES, Layout, SeriesGeometry, prior_sigmas

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

# Damping keeps the first steps out of directions of which the data say little. Before a group counts as settled at the last
# stage, its step is computed again with the least, so that such directions get their due at the end.
START_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-8, 1e6
NOTHING = 1e-6  # of a gain that counts: rounding
BOX_ROUNDS = 5  # of finding which parameters stop at their bounds
BLOCK_BYTES = 2**19  # of derivatives at a time: enough blocks for threads, in a core's own cache


class CtfChange(NamedTuple):
    """What the geometry adds to the CTF of the projections' exposures, depth included."""

    form: Array  # (Q, 3) to the defocus form, angstrom
    phase: Array  # (Q,) radians


# evaluate(rotations (Q, 3, 3), centres (Q, 2)) -> local equations of the used projections, in their order.
# With rows=(Q',): of those alone, whose rotations and centres are then given (where only particles or exposures are free).
# With ctf=CtfChange: gradient and matrix also in defocus, astigmatism and phase (where a mode of the CTF is free).
# With magnification (Q,) of the images: slices are taken at m times k; with ctf as well, gradient and matrix also in its log.
# With gain (Q,) of the amplitude: gradient and matrix also in its log.
Evaluate = Callable[..., LocalEquations]


@dataclass(frozen=True)
class SolveOptions:
    """Which modes are free, and how long to go on. Priors and tolerances in degrees and angstrom, by mode; none: no limit."""

    free: Tuple[str, ...] = ("rotation", "position", "tilt_angle", "axis_angle", "shift")
    sigmas: Dict[str, float] = field(default_factory=prior_sigmas)
    tolerances: Dict[str, float] = field(default_factory=dict)  # hard bounds
    huber: float = 0.0  # projections that differ from the rest by more standard deviations than this lose weight; 0: none do
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
    projections: int = 0  # evaluated in all: fewer than evaluations times projections where some settled early
    rejected: int = 0  # steps taken back, of the series or of single particles or exposures

    @property
    def evaluations(self) -> int:
        return len(self.cost)


@dataclass
class Solution:
    geometry: SeriesGeometry
    particle_layout: Layout
    exposure_layout: Layout
    particle_covariance: Array  # (P, kp, kp); like the two others, nothing (0 of them) after a coarse stage
    exposure_covariance: Array  # (E, ke, ke)
    projection_covariance: Array  # (Q, m, m), m 5, 6, 10 or 11, of the local parameters: free of the gauge
    local: LocalEquations
    weights: Array  # (Q,) robust weights, 1 where there are none
    report: SolveReport


def solve_series(
    start: SeriesGeometry,
    geometry: SeriesGeometry,
    used: NDArray[np.bool_],
    evaluate: Evaluate,
    last: bool,
    options: SolveOptions,
    threads: int = 1,
) -> Solution:
    """Refine one series from ``geometry`` at one resolution; priors and tolerances hold the parameters to ``start``.

    ``used`` (P, E) says which projections there are, in the order in which ``evaluate`` takes and returns them. ``last`` is
    False for the coarse stages, which end earlier. Raises ValueError for unknown modes, and InputError where data and priors
    together do not determine the free parameters.
    """
    index = np.nonzero(used)
    particles = Layout.of(PARTICLE_MODES, options.free, start)
    exposures = Layout.of(EXPOSURE_MODES, options.free, start)
    problem = _Problem(start, (index[0], index[1]), evaluate, particles, exposures, options, threads)
    local = problem.local(geometry)
    if not np.isfinite(local.cost).all():
        raise InputError("refinement: images, or what is known of them, give values that are not numbers; check defocus, dose "
                         "and geometry")
    if problem.loose:  # before any work: is there a solution?
        problem.covariance(problem.system(geometry, local, np.ones(len(local.power))))
    if particles.size and exposures.size:
        geometry, local, report = _descend_jointly(problem, geometry, local, last)
    else:
        geometry, local, report = _descend_apart(problem, geometry, local, last, 0 if particles.size else 1)
    weights = robust_weights(local, options.huber)
    if not last:
        first, second, third = (np.zeros((0, size, size)) for size in (particles.size, exposures.size, particles.local))
        return Solution(geometry, particles, exposures, first, second, third, local, weights, report)
    covariance = problem.covariance(problem.system(geometry, local, weights))
    spread = problem.projection_covariance(covariance, geometry)
    return Solution(geometry, particles, exposures, covariance.particles, covariance.exposures, spread, local, weights, report)


@dataclass
class _Problem:
    start: SeriesGeometry
    index: Tuple[Rows, Rows]
    evaluate: Evaluate
    particles: Layout
    exposures: Layout
    options: SolveOptions
    threads: int

    def __post_init__(self) -> None:
        options = self.options
        # Derivatives are many numbers: those of some particles at a time, the same ones whatever the threads.
        each = 8 * len(self.start.tilts) * self.particles.local * max(1, self.particles.size + self.exposures.size)
        step = max(1, BLOCK_BYTES // each)
        firsts = range(0, len(self.start.poses), step)
        self.blocks = [slice(first, min(first + step, len(self.start.poses))) for first in firsts]
        ends = np.searchsorted(self.index[0], [block.start for block in self.blocks] + [len(self.start.poses)])
        self.rows = [slice(low, high) for low, high in zip(ends[:-1], ends[1:])]
        self.precisions = self.particles.precision(options.sigmas), self.exposures.precision(options.sigmas)
        self.bounds = self.particles.bounds(options.tolerances), self.exposures.bounds(options.tolerances)
        modes = self.particles.modes + self.exposures.modes
        self.loose = [mode.name for mode in modes if not np.isfinite(options.sigmas.get(mode.name, np.inf))]

    def local(self, geometry: SeriesGeometry, rows: Optional[Rows] = None) -> LocalEquations:
        index = self.index if rows is None else (self.index[0][rows], self.index[1][rows])
        extra: Dict[str, object] = {} if rows is None else {"rows": rows}
        if self.particles.local >= LOCAL_CTF:
            form = components_to_form(geometry.defocus_changes()[index])
            extra["ctf"] = CtfChange(form, geometry.phase[index[1]])
        if self.particles.local > LOCAL_CTF or (geometry.magnification != 1).any():
            extra["magnification"] = geometry.magnification[index[1]]
        if "amplitude" in self.exposures.slices:
            extra["gain"] = np.exp(geometry.amplitude[index[1]])
        return self.evaluate(geometry.orientations()[index], geometry.centres()[index], **extra)

    def offsets(self, geometry: SeriesGeometry) -> Tuple[Array, Array]:
        """How far every free parameter is from its start: (P, kp), (E, ke), radians and angstrom."""
        particle = self.particles.offset(geometry, self.start, len(geometry.poses))
        return particle, self.exposures.offset(geometry, self.start, len(geometry.tilts))

    def prior_costs(self, geometry: SeriesGeometry) -> Tuple[Array, Array]:
        """Of every particle ``(P,)`` and exposure ``(E,)``."""
        particle, exposure = self.offsets(geometry)
        return 0.5 * particle**2 @ self.precisions[0], 0.5 * exposure**2 @ self.precisions[1]

    def cost(self, geometry: SeriesGeometry, local: LocalEquations, weights: Array) -> float:
        return float(weights @ local.cost) + float(sum(part.sum() for part in self.prior_costs(geometry)))

    def system(self, geometry: SeriesGeometry, local: LocalEquations, weights: Array) -> Arrowhead:
        system = Arrowhead.zeros(len(geometry.poses), self.particles.size, len(geometry.tilts), self.exposures.size)
        sums: List[Tuple[Array, Array]] = [(np.zeros(0), np.zeros(0))] * len(self.blocks)

        def work(first: int, last: int) -> None:
            for number in range(first, last):
                block, rows = self.blocks[number], self.rows[number]
                part = LocalEquations(*(values[rows] for values in local))
                index = self.index[0][rows] - block.start, self.index[1][rows]
                derivatives = self._derivatives(geometry.of_particles(block))
                sums[number] = system.enter(block.start, part, weights[rows], index, *derivatives)

        run_ranges(work, len(self.blocks), self.threads, pieces_per_thread=4)
        for gradient, matrix in sums:
            system.exposure_gradient += gradient
            system.exposure_matrix += matrix
        offsets = self.offsets(geometry)
        system.add_priors(self.precisions[0], offsets[0], self.precisions[1], offsets[1])
        return system

    def _derivatives(self, geometry: SeriesGeometry) -> Tuple[Array, Array]:
        return self.particles.derivative(geometry), self.exposures.derivative(geometry)

    def projection_covariance(self, covariance: Covariance, geometry: SeriesGeometry) -> Array:
        spread = np.zeros((len(self.index[0]), self.particles.local, self.particles.local))

        def work(first: int, last: int) -> None:
            for block, rows in zip(self.blocks[first:last], self.rows[first:last]):
                some = Covariance(covariance.particles[block], covariance.exposures, covariance.cross[block])
                index = self.index[0][rows] - block.start, self.index[1][rows]
                spread[rows] = projection_covariance(some, index, *self._derivatives(geometry.of_particles(block)))

        run_ranges(work, len(self.blocks), self.threads, pieces_per_thread=4)
        return spread

    def covariance(self, system: Arrowhead) -> Covariance:
        # Priors that are there may be lost in the rounding of much stronger data: then a little is added to the diagonal.
        for damping in (0.0,) if self.loose else (0.0, 1e-9, 1e-6, 1e-3):
            try:
                return system.covariance(damping)
            except np.linalg.LinAlgError:
                continue
        names = ", ".join(self.loose) or "the free parameters"
        raise InputError(f"refinement: images and priors do not determine {names}; give one a finite prior, or fix it")

    def step(
        self, system: Arrowhead, geometry: SeriesGeometry, particle_damping: Damping, exposure_damping: Damping
    ) -> Step:
        """The damped step inside the box. A parameter that would leave it stops at its bound, and the others know."""
        offsets = self.offsets(geometry)
        fixed = []
        gradients = system.particle_gradient, system.exposure_gradient
        for offset, bound, gradient, unseen in zip(offsets, self.bounds, gradients, system.unseen()):
            fixed.append((np.abs(offset) >= bound * (1 - 1e-9)) & (offset * gradient < 0) | unseen)
        step = Step(np.zeros_like(offsets[0]), np.zeros_like(offsets[1]))
        for _ in range(BOX_ROUNDS):
            here = system.after(step) if step.particles.any() or step.exposures.any() else system
            here = here.frozen(fixed[0], fixed[1]) if fixed[0].any() or fixed[1].any() else here
            more = here.solve(particle_damping, exposure_damping)
            whole = [offset + one + other for offset, one, other in zip(offsets, step, more)]
            beyond = [(np.abs(value) > bound) & ~held for value, bound, held in zip(whole, self.bounds, fixed)]
            if not (beyond[0].any() or beyond[1].any()):
                return Step(step.particles + more.particles, step.exposures + more.exposures)
            stopped = []
            for offset, one, value, out, bound in zip(offsets, step, whole, beyond, self.bounds):
                stopped.append(np.where(out, np.copysign(np.broadcast_to(bound, value.shape), value) - offset, one))
            fixed = [held | out for held, out in zip(fixed, beyond)]
            step = Step(*stopped)
        return Step(*(np.clip(value, -bound, bound) - offset for value, bound, offset in zip(whole, self.bounds, offsets)))

    def moved(self, geometry: SeriesGeometry, step: Step) -> SeriesGeometry:
        new = geometry.copy()
        self.particles.move(new, step.particles)
        self.exposures.move(new, step.exposures)
        if "rotation" in self.particles.slices:  # rotation vectors do not add up exactly
            place = self.particles.slices["rotation"]
            bound = self.bounds[0][place]
            vectors = self.particles.offset(new, self.start, len(new.poses))[:, place]
            beyond = (np.abs(vectors) > bound * (1 + 1e-9)).any(axis=1)
            kept = np.clip(vectors[beyond], -bound, bound)
            new.poses[beyond] = rotation_vector_to_matrix(kept) @ self.start.poses[beyond]
        return new


def _descend_jointly(
    problem: _Problem, geometry: SeriesGeometry, local: LocalEquations, last: bool
) -> Tuple[SeriesGeometry, LocalEquations, SolveReport]:
    options = problem.options
    weights = robust_weights(local, options.huber)
    cost = problem.cost(geometry, local, weights)
    report = SolveReport([cost], "evaluations used up", len(local.power))
    damping, refused = START_DAMPING, False
    enough = (options.gain if last else options.coarse_gain) * len(geometry.poses)
    system = problem.system(geometry, local, weights)
    while report.evaluations < options.max_evaluations:
        if damping > MOST_DAMPING:
            report.reason = "no step lowers the cost"
            break
        try:
            step = problem.step(system, geometry, damping, damping)
            predicted = system.predicted(step)
        except np.linalg.LinAlgError:
            predicted = -np.inf
        if predicted < -NOTHING * enough:  # singular, or bent by the box until it leads uphill
            damping, refused = max(damping * 10.0, 1e-2), True
            continue
        if last and predicted < enough and damping > LEAST_DAMPING and not refused:
            damping = LEAST_DAMPING
            continue
        ending = predicted < enough and damping <= 1.0
        if ending and not last:
            report.reason = "converged"
            break
        trial = problem.moved(geometry, step)
        trial_local = problem.local(trial)
        trial_cost = problem.cost(trial, trial_local, weights)
        report.cost.append(trial_cost)
        report.projections += len(local.power)
        gained = cost - trial_cost
        # Little for the series may be much for one exposure, so the last stage takes its last step; rounding must not decide.
        refused = not gained > (-NOTHING * enough if ending else 0.0)
        if not refused:
            geometry, local = trial, trial_local
            weights = robust_weights(local, options.huber)
            cost = problem.cost(geometry, local, weights)
        if ending:
            report.reason = "converged"
            break
        if refused:
            report.rejected += 1
            damping = max(damping * 10.0, 1e-2)
            continue
        damping = max(damping * (0.1 if gained > 0.5 * predicted else 0.5), LEAST_DAMPING)
        if gained < enough and damping <= 1.0 and not last:
            report.reason = "converged"
            break
        system = problem.system(geometry, local, weights)
    return geometry, local, report


def _descend_apart(
    problem: _Problem, geometry: SeriesGeometry, local: LocalEquations, last: bool, kind: int
) -> Tuple[SeriesGeometry, LocalEquations, SolveReport]:
    """Only particles (``kind`` 0) or only exposures (1) are free."""
    options = problem.options
    group = problem.index[kind]
    count = (len(geometry.poses), len(geometry.tilts))[kind]
    enough = options.gain if last else options.coarse_gain

    def costs(now: SeriesGeometry, values: Array, rows: Rows) -> Array:
        return np.bincount(group[rows], values, minlength=count) + problem.prior_costs(now)[kind]

    def damped(system: Arrowhead, damping: Array) -> Tuple[Step, Array]:
        step = problem.step(system, geometry, *((damping, idle) if kind == 0 else (idle, damping)))
        return step, system.predicted_apart(step)[kind]

    everything = np.arange(len(group))
    active = np.bincount(group, minlength=count) > 0
    damping, refused = np.full(count, START_DAMPING), np.zeros(count, bool)
    idle = np.zeros((len(geometry.poses), len(geometry.tilts))[1 - kind])
    report = SolveReport(projections=len(group))
    while True:
        weights = robust_weights(local, options.huber)
        cost = costs(geometry, weights * local.cost, everything)
        report.cost.append(float(cost.sum()))
        if report.evaluations >= options.max_evaluations or not active.any():
            break
        system = problem.system(geometry, local, weights)
        step, predicted = damped(system, damping)
        again = active & _little(predicted, enough) & ~refused
        if last and (damping[again] > LEAST_DAMPING).any():
            damping = np.where(again, LEAST_DAMPING, damping)
            step, predicted = damped(system, damping)
        active = active & ~(_little(predicted, enough) & (damping <= 1.0)) & (damping <= MOST_DAMPING)
        if not active.any():
            break
        rows = np.flatnonzero(active[group])
        trial = problem.moved(geometry, _only(step, kind, active))
        trial_local = problem.local(trial, rows if len(rows) < len(group) else None)
        report.projections += len(rows)
        gained = cost - costs(trial, weights[rows] * trial_local.cost, rows)
        better = active & (gained > 0)
        refused = active & ~better
        report.rejected += int(refused.sum())
        geometry = problem.moved(geometry, _only(step, kind, better))
        taken = better[group[rows]]
        local = LocalEquations(*(_replaced(old, rows[taken], new[taken]) for old, new in zip(local, trial_local)))
        shrink = np.where(gained > 0.5 * predicted, 0.1, 0.5)
        damping = np.where(better, np.maximum(damping * shrink, LEAST_DAMPING), np.maximum(damping * 10.0, 1e-2))
        active = active & ~(better & (gained < enough) & (damping <= 1.0))
    stuck = int((damping > MOST_DAMPING).sum())
    if active.any():
        report.reason = "evaluations used up"
    else:
        report.reason = f"no step lowers the cost of {stuck}" if stuck else "converged"
    return geometry, local, report


def _little(predicted: Array, enough: float) -> NDArray[np.bool_]:
    """Which members have nothing more to gain. A step that the box has bent uphill does not say so: it is to be damped."""
    return (predicted < enough) & (predicted >= -NOTHING * enough)


def _only(step: Step, kind: int, which: NDArray[np.bool_]) -> Step:
    """The step of the members ``which`` of a kind; the others stay."""
    parts = list(step)
    parts[kind] = np.where(which[:, None], parts[kind], 0.0)
    return Step(*parts)


def _replaced(old: Array, rows: Rows, new: Array) -> Array:
    out = old.copy()
    out[rows] = new
    return out
