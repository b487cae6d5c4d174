"""Large errors: displacements and rotations found on grids, scored over all projections of a particle at once.

Nothing here needs a good start. What is found is good to about half a step of the grids, from where Gauss-Newton converges. The
depth, and so the defocus, is that of the start: a displacement in the tolerance changes it by nothing that the low
resolution of a search could see. Nor could it see how a magnification changes a slice; the places have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.band import Band
from ..core.projection import Reference
from ..core.refinement import local_equations
from ..core.rotation_grid import cone_draws, cone_grid, full_grid, in_asymmetric_unit, random_rotations, symmetric_angle
from ..core.search import ParticleData, ShiftGrid, exposure_images, prepare, score_rotations
from ..core.symmetry import group_matrices
from .parameters import SeriesGeometry

MEMORY = 2**26  # bytes of coefficients, and of scores, that a block of particles may take
_LARGEST_STEP = 30.0  # degrees
_SHIFT_STEP = 0.25  # of the resolution
_POOL = 20000  # best rotations of a particle among which the different ones are sought


@dataclass(frozen=True)
class SearchSettings:
    """How to look for rotations; in brackets PYP's names. Angstrom and degrees.

    ``cone`` is the largest angle from the start, 180: all rotations (csp_ToleranceParticlesPsi, Theta, Phi); ``tolerance`` the
    largest displacement (csp_ToleranceParticlesShifts). ``grid_search`` (csp_GridSearch) takes a quasi-uniform grid with no
    rotation farther than ``angle_step`` (csp_AngleStep) from it; otherwise there are ``random_iterations`` draws
    (csp_NumberOfRandomIterations), uniform in the same region. Displacements are always searched on a grid of ``shift_step``
    (csp_ShiftStep). Steps of 0 are found from ``resolution`` and the particle's ``radius``. ``keep`` candidates remain.
    """

    radius: float
    resolution: float = 20.0
    cone: float = 180.0
    tolerance: float = 20.0
    grid_search: bool = True
    random_iterations: int = 0
    angle_step: float = 0.0
    shift_step: float = 0.0
    keep: int = 5
    symmetry: str = "C1"

    def step(self) -> float:
        """Degrees: as given, or resolution over diameter (Crowther), which moves the particle's rim by half the resolution."""
        return self.angle_step or min(float(np.rad2deg(self.resolution / (2.0 * self.radius))), _LARGEST_STEP)

    def shifts(self) -> ShiftGrid:
        return ShiftGrid(self.shift_step or _SHIFT_STEP * self.resolution, self.tolerance)


@dataclass
class SearchData:
    """Weighted coefficients of a series' Q projections, in any order, and what they are compared with."""

    weighted: NDArray[np.complex64]  # (Q, n) D
    weight: NDArray[np.float32]  # (Q, n) W
    band: Band
    field: float  # of the crops, angstrom
    scale: float  # field of the map over that of the crops
    references: Sequence[Reference]
    which: NDArray[np.int64]  # (Q,) reference, the same for all projections of a particle
    particle: NDArray[np.int64]  # (Q,)
    exposure: NDArray[np.int64]  # (Q,)
    centre: NDArray[np.float64]  # (Q, 2) angstrom, of the crops
    threads: int = 1

    def count(self, resolution: float) -> int:
        """How many coefficients the resolution (angstrom) leaves, at least one shell."""
        return self.band.prefix(max(self.field / resolution, float(self.band.shell[0])))


class Candidates(NamedTuple):
    """K of each particle, the best first. Missing ones have the score -inf; particles without projections keep their start."""

    rotations: NDArray[np.float64]  # (P, K, 3, 3) R_p
    displacements: NDArray[np.float64]  # (P, K, 3) angstrom, to be added to x_p
    scores: NDArray[np.float64]  # (P, K) standard deviations of the noise


def search_translations(
    data: SearchData, geometry: SeriesGeometry, resolution: float, tolerance: float, step: float = 0.0
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Displacement of every particle ``(P, 3)`` by at most ``tolerance`` angstrom, and its score ``(P,)``.

    All displacements on a grid of ``step`` (default: a quarter of the resolution) are compared at the present rotations; the
    best is then moved to the score's maximum near it. Particles without projections stay, with score 0.
    """
    shifts, count = ShiftGrid(step or _SHIFT_STEP * resolution, tolerance), data.count(resolution)
    points = shifts.points()
    displacements = np.zeros((len(geometry.poses), 1, 3))
    for members, block in _blocks(data, geometry, count, MEMORY):
        found = score_rotations(block, geometry.poses[members][:, None], geometry.tilts, data.references, shifts, data.scale,
                                threads=data.threads)
        displacements[members, 0] = points[found.best[:, 0]]
    moved, scores = _centre(data, geometry, count, geometry.poses[:, None], displacements, shifts)
    return moved[:, 0], scores[:, 0]


def search_exposure_shifts(
    parts: Iterable[SearchData], geometry: SeriesGeometry, resolution: float, tolerance: float, step: float = 0.0
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shift of every exposure ``(E, 2)``, common to its particles, by at most ``tolerance`` angstrom, and its score ``(E,)``.

    To be added to b_e. Exposures without projections stay, with score 0. Each of ``parts`` holds some of the projections.
    """
    size = step or _SHIFT_STEP * resolution
    reach = int(tolerance / size + 1e-6)
    axis = np.arange(-reach, reach + 1.0) * size
    shifts = np.stack(np.meshgrid(axis, axis, indexing="xy"), axis=-1).reshape(-1, 2)
    length = np.hypot(*shifts.T)
    order = np.argsort(length, kind="stable")  # no shift comes first, and wins where nothing is better
    shifts = shifts[order[length[order] <= tolerance + 1e-6]]
    total, power = np.zeros((len(geometry.tilts), len(shifts))), np.zeros(len(geometry.tilts))
    for data in parts:
        count = data.count(resolution)
        for members, block in _blocks(data, geometry, count, MEMORY):
            images = exposure_images(block, geometry.poses[members], geometry.tilts, data.references, shifts, data.scale,
                                     data.band, count, data.threads)
            total += images[0]
            power += images[1]
    best = total.argmax(axis=1)
    return shifts[best], _sigmas(total[np.arange(len(best)), best], power)


def search_rotations(data: SearchData, geometry: SeriesGeometry, settings: SearchSettings, seed: int) -> Candidates:
    """The best rotations of every particle within the settings' region, each with its best displacement.

    Two candidates of a particle differ by more than 1.5 steps, whatever symmetry mates are taken. The grid is the same for all
    particles (in a cone: about each one's start), so neither their order nor the threads matter. Raises ValueError for settings
    that cannot be.
    """
    _check(settings)
    random = np.random.default_rng(seed)
    group = group_matrices(settings.symmetry)
    everywhere = settings.cone >= 180.0
    turns = _region(settings, random)
    if everywhere:
        turns = turns[in_asymmetric_unit(turns, group)]
    count, shifts = data.count(settings.resolution), settings.shifts()
    points = shifts.points()
    keep = settings.keep
    rotations = np.repeat(geometry.poses[:, None], keep, axis=1)
    displacements = np.zeros((len(geometry.poses), keep, 3))
    scores = np.full((len(geometry.poses), keep), -np.inf)
    each = len(turns) * (8 if everywhere else 80)  # bytes of a particle's scores, and of its own rotations
    for members, block in _blocks(data, geometry, count, MEMORY, each):
        tried, valid = (turns, None) if everywhere else _about(turns, geometry.poses[members], group)
        found = score_rotations(block, tried, geometry.tilts, data.references, shifts, data.scale, valid, data.threads)
        for row, member in enumerate(members):
            own = tried if everywhere else tried[row]
            picked = _different(found.scores[row], own, group, 1.5 * settings.step(), keep)
            rotations[member, : len(picked)] = own[picked]
            displacements[member, : len(picked)] = points[found.best[row, picked]]
            scores[member, : len(picked)] = 0.0
    missing = scores == -np.inf
    displacements, scores = _centre(data, geometry, count, rotations, displacements, shifts)
    scores[missing] = -np.inf
    scores[np.bincount(data.particle, minlength=len(scores)) == 0, 0] = 0.0
    order = np.argsort(-scores, axis=1, kind="stable")
    return Candidates(
        np.take_along_axis(rotations, order[..., None, None], axis=1),
        np.take_along_axis(displacements, order[..., None], axis=1),
        np.take_along_axis(scores, order, axis=1),
    )


def _check(settings: SearchSettings) -> None:
    if settings.radius <= 0 or settings.resolution <= 0 or settings.angle_step < 0 or settings.shift_step < 0:
        raise ValueError("radius and resolution must be above 0, and steps not below it")
    if not 0 < settings.cone <= 180 or settings.keep < 1:
        raise ValueError(f"cone {settings.cone:g} and keep {settings.keep}: want 0 to 180 degrees and at least 1")
    if not settings.grid_search and settings.random_iterations < 1:
        raise ValueError("neither a grid nor random iterations are asked for")


def _region(settings: SearchSettings, random: np.random.Generator) -> NDArray[np.float64]:
    """Rotations to try: of all, or turns about the start."""
    step = settings.step()
    if settings.grid_search:
        return full_grid(step, random) if settings.cone >= 180.0 else cone_grid(settings.cone, step, random)
    if settings.cone >= 180.0:
        return random_rotations(settings.random_iterations, random)
    return cone_draws(settings.random_iterations, settings.cone, random)


def _about(turns: NDArray, poses: NDArray, group: NDArray) -> Tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Turns (J, 3, 3) of each start ``(P, J, 3, 3)`` without mates, those that remain in front, and how many ``(P,)``."""
    tried = turns @ poses[:, None]
    counts = np.full(len(poses), len(turns))
    if len(group) > 1:
        for row, pose in enumerate(poses):
            inside = in_asymmetric_unit(tried[row], group, pose)
            counts[row] = int(inside.sum())
            tried[row] = tried[row][np.argsort(~inside, kind="stable")]
    return tried, counts


def _different(scores: NDArray, rotations: NDArray, group: NDArray, apart: float, keep: int) -> NDArray[np.int64]:
    """Indices of at most ``keep`` best rotations that are more than ``apart`` degrees from each other; finite scores only."""
    pool = np.argsort(-scores, kind="stable")[:_POOL]
    pool = pool[np.isfinite(scores[pool])]
    picked: List[np.int64] = []
    while len(pool) and len(picked) < keep:
        picked.append(pool[0])
        pool = pool[symmetric_angle(rotations[pool[0]], rotations[pool], group) > apart]
    return np.array(picked, np.int64)


def _blocks(
    data: SearchData, geometry: SeriesGeometry, count: int, memory: int, each: int = 0
) -> Iterator[Tuple[NDArray[np.int64], ParticleData]]:
    """Particles that have projections, a few at a time, with their coefficients about the present centres."""
    order = np.argsort(data.particle, kind="stable")
    members, first = np.unique(data.particle[order], return_index=True)
    ends = np.append(first, len(order))
    if not len(members):
        return
    widest = int(np.diff(ends).max()) * count * 36  # with the double-precision copy in ``prepare``
    size = max(1, memory // max(widest, each, 1))
    centres = geometry.centres()
    for start in range(0, len(members), size):
        stop = min(start + size, len(members))
        rows = order[ends[start] : ends[stop]]
        shifts = centres[data.particle[rows], data.exposure[rows]] - data.centre[rows]
        which = np.asarray(data.which)[order[ends[start:stop]]]
        yield members[start:stop], prepare(
            data.weighted, data.weight, rows, ends[start : stop + 1] - ends[start], data.exposure[rows], which, shifts,
            data.band, data.field, count,
        )


def _centre(
    data: SearchData, geometry: SeriesGeometry, count: int, rotations: NDArray, displacements: NDArray, shifts: ShiftGrid
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Displacements ``(P, K, 3)`` after one Gauss-Newton step, where that raises the score, and exact scores (P, K).

    The grid's scores are interpolated and lie up to half a step from the maximum, which would decide between close candidates.
    """
    moved, scores = displacements.copy(), np.empty(displacements.shape[:2])
    for k in range(rotations.shape[1]):
        here = displacements[:, k]
        scores[:, k], step = _evaluate(data, geometry, count, rotations[:, k], here)
        length = np.linalg.norm(step, axis=1, keepdims=True)
        trial = here + step * np.minimum(1.0, shifts.step / np.maximum(length, 1e-12))
        trial_scores, _ = _evaluate(data, geometry, count, rotations[:, k], trial)
        better = (trial_scores > scores[:, k]) & (np.linalg.norm(trial, axis=1) <= shifts.tolerance)
        moved[better, k], scores[better, k] = trial[better], trial_scores[better]
    return moved, scores


def _evaluate(
    data: SearchData, geometry: SeriesGeometry, count: int, poses: NDArray, displacements: NDArray
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score ``(P,)`` at these poses and displacements, and the Gauss-Newton step of the displacement ``(P, 3)``."""
    p, e = data.particle, data.exposure
    tilts = geometry.tilts[e]
    seen = tilts[:, :2]  # (Q, 2, 3)
    shifts = geometry.centres()[p, e] + np.einsum("qij,qj->qi", seen, displacements[p]) - data.centre
    local = local_equations(data.weighted, data.weight, data.band, data.field, data.references, data.which, tilts @ poses[p],
                            shifts, data.scale, count=count, threads=data.threads)
    particles = len(poses)
    match, power = np.bincount(p, local.match, particles), np.bincount(p, local.power, particles)
    gradient, matrix = np.zeros((particles, 3)), np.zeros((particles, 3, 3))
    np.add.at(gradient, p, np.einsum("qik,qi->qk", seen, local.gradient[:, 3:]))
    np.add.at(matrix, p, np.swapaxes(seen, 1, 2) @ local.matrix[:, 3:, 3:] @ seen)
    # The amplitude is free: the curvature is that of the model times match / power.
    amplitude = np.clip(match / np.maximum(power, 1e-300), 0.1, 10.0)
    ridge = 1e-3 * np.trace(matrix, axis1=1, axis2=2) + 1e-30  # of projections along one direction
    step = -np.linalg.solve(matrix + ridge[:, None, None] * np.eye(3), gradient[..., None])[..., 0] / amplitude[:, None]
    return _sigmas(match, power), step


def _sigmas(match: NDArray, power: NDArray) -> NDArray[np.float64]:
    """A sqrt(2 / B), 0 where there is nothing."""
    good = power > 0
    return np.where(good, match * np.sqrt(2.0 / np.where(good, power, 1.0)), 0.0)
