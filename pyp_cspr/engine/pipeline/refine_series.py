"""Refine one series in memory: search if asked, then measure noise and solve, from coarse to fine."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.ctf import defocus_form
from ..core.ctf_refinement import components_to_form, form_to_defocus
from ..core.geometry import matrix_to_tilt, tilt_to_matrix
from ..core.projection import Reference
from ..core.weighting import score_weight
from ..errors import InputError
from ..io.images import SeriesImages
from ..model.settings import RefineSettings
from ..model.tables import LARGEST_MAGNIFICATION, Dataset
from ..model.task import ChunkJournal, MapGrid
from ..refine.noise import Spectra, relative_amplitude
from ..refine.parameters import EXPOSURE_MODES, MODES, PARTICLE_MODES, Layout, SeriesGeometry
from ..refine.search import SearchSettings, search_exposure_shifts, search_rotations, search_translations
from ..refine.solve import Solution, SolveOptions, solve_series
from .extract import CropGrid
from .selection import evaluator, informing_dataset, solve_informed
from .series_model import SeriesModel, geometry_of


def stage_radii(field: float, start: float, limit: float) -> List[float]:
    """Fourier radii from a coarse resolution (angstrom), each doubled, to the limit."""
    radii, resolution = [], max(start, limit)
    while resolution > limit * 1.2:
        radii.append(field / resolution)
        resolution /= 2.0
    radii.append(field / limit)
    return radii


PartDone = Callable[[float], None]
USUAL_EVALUATIONS = 5  # of a stage, for the progress
SHARE_OF_SEARCH = 0.4  # of rotations, in the time of a series' refinement


def untold(part: float) -> None:
    """For callers that show no progress."""


MEND_RESOLUTION = 30.0  # angstrom
MEND_REACH = 60.0  # angstrom
MEND_TILT, MEND_AXIS = 1.0, 2.0  # degrees
MEND_MAGNIFICATION = 2.0  # percent
MEND_BELOW = 0.5  # amplitude of an exposure that is looked at, over the median of the series
MEND_GAIN = 1.3  # by which a score must be above the present one
MEND_LEAST = 8.0  # standard deviations: of ten thousand tries, noise reaches 5


def refine_series(
    model: SeriesModel, start: SeriesGeometry, geometry: SeriesGeometry, radii: Sequence[float], options: SolveOptions,
    progress: PartDone = untold,
) -> Tuple[Solution, Spectra, Dict[str, Any]]:
    """Solve at each radius in turn (Fourier pixels of the crops), with noise and amplitude measured before each.

    From ``geometry``; the priors hold to ``start``. ``progress`` is told which part of the work is done.
    """
    work = np.cumsum(np.square([0.0, *radii])) / np.sum(np.square(radii))  # before each radius: coefficients
    begin = time.perf_counter()
    reports, evaluations, mended = [], 0, -1
    for number, radius in enumerate(radii):
        if number and mended < 0 and (number == len(radii) - 1 or radius > model.field / MEND_RESOLUTION):
            mended = mend_exposures(model, start, geometry, options)
        count = model.band.prefix(radius)
        spectra = model.measure(geometry, count)
        geometry.amplitude[:] = 0.0  # against what was just measured
        last = number == len(radii) - 1
        model.evaluated = _evaluations(progress, work[number], work[number + 1])
        solution = solve_informed(model, start, geometry, count, last, options)
        geometry = solution.geometry
        evaluations += solution.report.evaluations
        reports.append({"radius": float(radius), "evaluations": solution.report.evaluations,
                        "cost": [float(value) for value in solution.report.cost], "reason": solution.report.reason})
    factor = np.exp(geometry.amplitude)
    spectra = spectra._replace(amplitude=spectra.amplitude * factor[:, None], factor=spectra.factor * factor)
    seconds = time.perf_counter() - begin
    journal = {"stages": reports, "evaluations": evaluations, "projections": len(model), "seconds": seconds,
               "exposures_mended": max(mended, 0)}
    return solution, spectra, journal


def _evaluations(progress: PartDone, begin: float, end: float) -> Callable[[], None]:
    """Tells ``progress`` of each evaluation of a stage; how many there will be is not known."""
    number = 0

    def tell() -> None:
        nonlocal number
        number += 1
        progress(begin + (end - begin) * number / (number + USUAL_EVALUATIONS))

    return tell


def mend_exposures(model: SeriesModel, start: SeriesGeometry, geometry: SeriesGeometry, options: SolveOptions) -> int:
    """Put right, in place, exposures that lie in a side maximum of the correlation; returns how many.

    Descent cannot leave such a maximum, and one wrong exposure pulls at all particles. It shows in its amplitude, far below
    that of the others. Tilt angles, axis angles and magnifications about the start's, where they are free, are tried, each with
    all shifts within ``MEND_REACH``, by the correlation of all the exposure's particles together; none beyond the tolerances.
    """
    if "shift" not in options.free or len(geometry.tilts) < 3:
        return 0
    coarse = coarse_model(model, MEND_RESOLUTION, model.memory // 8)  # most of it holds the fine coefficients
    lost = np.flatnonzero(coarse.measure(geometry).factor < MEND_BELOW)
    if not len(lost):
        return 0
    data = list(coarse.search_data(lost))
    now = search_exposure_shifts(data, geometry, MEND_RESOLUTION, 0.0)[1]
    best = np.maximum(MEND_GAIN * now, MEND_LEAST)
    better = geometry.copy()
    xtilt, ytilt, zrot = matrix_to_tilt(start.tilts)
    most = {"tilt_angle": MEND_TILT, "axis_angle": MEND_AXIS, "magnification": MEND_MAGNIFICATION, "shift": MEND_REACH}
    reaches = {mode: min(reach, options.tolerances.get(mode, reach)) for mode, reach in most.items()}
    far = reaches.pop("shift")
    for turn_y, turn_z, percent in product(*(_around(reach, mode, options) for mode, reach in reaches.items())):
        trial = geometry.copy()
        trial.tilts[lost] = tilt_to_matrix(xtilt, ytilt + turn_y, zrot + turn_z)[lost]
        trial.shifts[lost] = start.shifts[lost]
        trial.magnification[lost] = start.magnification[lost] + 0.01 * percent
        moved, score = search_exposure_shifts(data, trial, MEND_RESOLUTION, far)
        for e in lost[score[lost] > best[lost]]:
            best[e] = score[e]
            better.tilts[e], better.shifts[e] = trial.tilts[e], trial.shifts[e] + moved[e]
            better.magnification[e] = trial.magnification[e]
    mended = int((better.shifts[lost] != geometry.shifts[lost]).any(axis=1).sum())
    geometry.tilts, geometry.shifts, geometry.magnification = better.tilts, better.shifts, better.magnification
    return mended


def _around(reach: float, mode: str, options: SolveOptions) -> NDArray[np.float64]:
    """Values within ``reach`` in steps of half a degree or percent; 0 alone where the mode is not free."""
    steps = int(2.0 * reach) if mode in options.free else 0
    return 0.5 * np.arange(-steps, steps + 1)


def coarse_model(model: SeriesModel, resolution: float, memory: int, dataset: Optional[Dataset] = None) -> SeriesModel:
    """The same series only as far as ``resolution`` angstrom, with coefficients of its own."""
    grid = refinement_grid(model.grid, max(resolution, model.field / model.band.radius))
    coarse = SeriesModel(dataset or model.dataset, model.series, model.references, grid, model.settings, ChunkJournal(),
                         model.threads, memory, reference_fsc=model.reference_fsc, opened=model.images)
    if dataset is None:
        coarse.take_coefficients(model)
    return coarse


def search(model: SeriesModel, start: SeriesGeometry, settings: RefineSettings, options: SolveOptions) -> SeriesGeometry:
    """Where to begin: the start, or what searches of shifts and rotations find, as the settings ask; what is fixed stays.

    They look no farther than ``search_resolution``, with coefficients of their own.
    """
    geometry = start.copy()
    if not (settings.search_shift or settings.search_cone):
        return geometry
    resolution = max(settings.search_resolution, model.field / model.band.radius)
    coarse = coarse_model(model, resolution, model.memory, informing_dataset(model.dataset, model.series, settings))
    if settings.search_cone:
        return _search_rotations(coarse, geometry, resolution, settings, options)
    coarse.measure(geometry)
    if "shift" in options.free:
        moved, _ = search_exposure_shifts(coarse.search_data(), geometry, 2.0 * resolution, settings.search_shift)
        geometry.shifts = geometry.shifts + moved
    for data in coarse.search_data() if "position" in options.free else ():
        moved, _ = search_translations(data, geometry, resolution, settings.search_shift)
        geometry.positions = geometry.positions + moved  # 0 for particles of other parts
    return geometry


def _search_rotations(
    model: SeriesModel, geometry: SeriesGeometry, resolution: float, settings: RefineSettings, options: SolveOptions
) -> SeriesGeometry:
    """The candidates of the search are polished one after the other, particles alone; the best of each particle stays."""
    model.measure_blindly(geometry)
    radius = settings.particle_radius or 0.25 * model.field * model.crop_grid.scale  # half the box is its diameter
    reach = settings.search_shift if "position" in options.free else 0.0
    how = SearchSettings(radius, resolution, settings.search_cone, reach, angle_step=settings.search_step,
                         symmetry=settings.symmetry)
    trials = [(geometry.copy(), np.zeros(len(geometry.poses), bool)) for _ in range(how.keep)]
    for data in model.search_data():
        candidates = search_rotations(data, geometry, how, settings.seed)
        searched = np.bincount(data.particle, minlength=len(geometry.poses)) > 0
        for k, (trial, there) in enumerate(trials):
            found = searched & np.isfinite(candidates.scores[:, k])
            trial.poses[found] = candidates.rotations[found, k]
            trial.positions[found] += candidates.displacements[found, k]
            there |= found
    model.measure(trials[0][0])
    particle_only = replace(options, free=("rotation", "position") if "position" in options.free else ("rotation",))
    used, evaluate = model.projections.used, evaluator(model, len(model.band), particle_only)
    best_cost, best = np.full(len(geometry.poses), np.inf), geometry.copy()
    for trial, there in trials:
        solution = solve_series(trial, trial, used, evaluate, False, particle_only, model.threads)
        cost = np.zeros(len(trial.poses))
        np.add.at(cost, np.nonzero(used)[0], solution.local.cost)
        better = there & (cost < best_cost)
        best_cost[better] = cost[better]
        best.poses[better], best.positions[better] = solution.geometry.poses[better], solution.geometry.positions[better]
    return best


def refinement_grid(grid: MapGrid, resolution: float) -> MapGrid:
    """The map's grid, only as far in Fourier space as ``resolution`` (angstrom) goes."""
    radius = int(np.clip(grid.field / resolution, 2, grid.radius))
    return MapGrid(grid.box, grid.pixel, grid.padded, radius)


def magnified(settings: Dict[str, Any], dataset: Dataset, series: Optional[int] = None) -> bool:
    """Whether slices may be taken farther out than the images' coefficients lie, in one ``series`` or in any."""
    rows = slice(None) if series is None else dataset.exposures_of(series)
    return bool(settings.get("prior_magnification", 0.0) > 0 or (dataset.exposures["magnification"][rows] != 1).any())


def solve_options(settings: RefineSettings) -> SolveOptions:
    """Free are the groups whose prior is not 0."""
    sigmas = {mode: float(getattr(settings, f"prior_{mode}")) for mode in MODES}
    free = tuple(mode for mode in MODES if sigmas[mode] > 0)
    bounds = {mode: sigmas[mode] for mode in free} if settings.hard_tolerances else {}
    return SolveOptions(free=free, sigmas={mode: sigmas[mode] for mode in free}, tolerances=bounds, huber=settings.huber)


def equations_memory(geometry: SeriesGeometry, options: SolveOptions) -> int:
    """Bytes that the solver holds at most: local equations, and what couples particles and exposures, three of each."""
    particles, exposures = (Layout.of(modes, options.free, geometry) for modes in (PARTICLE_MODES, EXPOSURE_MODES))
    return 3 * 8 * len(geometry.poses) * len(geometry.tilts) * (particles.local**2 + particles.size * exposures.size)


@dataclass(frozen=True)
class ExposureWeights:
    """Amplitude relative to the prior, and noise, of a series' exposures; shells of ``field`` angstrom."""

    factor: NDArray[np.float64]  # (E,)
    b_factor: NDArray[np.float64]  # (E,)
    noise: NDArray[np.float64]  # (E, shells)
    field: float
    level: float  # of the series, in units of its reference, which all series share (``merge.common_level``)

    def of(self, exposure: int, prior: NDArray, crop_grid: CropGrid) -> Tuple[NDArray, NDArray]:
        """(amplitude, noise power) on the shells of ``crop_grid``; beyond what was measured the last noise holds.

        Of the series' common curve only the level is taken: its shape is the reference's filter, mostly, which all share.
        """
        k = np.arange(len(prior)) / crop_grid.field
        amplitude = relative_amplitude(prior, self.factor[exposure], self.b_factor[exposure], k)
        measured = self.noise[exposure]
        last = max(1, len(measured) - 2)  # the outermost shell is only partly filled
        power = np.interp(k * self.field, np.arange(last), measured[:last])
        return self.level * amplitude, power


@dataclass(frozen=True)
class ScoreWeights:
    """PYP's weights by the exposures' scores (``core.weighting.score_weight``), instead of the dose filter."""

    scores: NDArray[np.float64]  # (E,) 0..1, NaN: not used
    fraction: float = 4.0
    transition: float = 0.75

    def of(self, exposure: int, prior: NDArray, crop_grid: CropGrid) -> Tuple[NDArray, NDArray]:
        """(amplitude, noise power): the weight is 1 / power. The exponent counts frequencies in pixels of the images."""
        k = np.arange(len(prior)) / crop_grid.field * crop_grid.pixel
        score = self.scores[exposure]
        weight = score_weight(k, float(score), self.fraction, self.transition) if np.isfinite(score) else np.zeros(len(k))
        return np.ones(len(k)), 1.0 / np.maximum(weight, 1e-6)


@dataclass
class SeriesOutcome:
    """What the refinement of one series left besides the moved rows."""

    weights: ExposureWeights
    amplitude: NDArray[np.float64]  # (E, shells)
    score: NDArray[np.float64]  # (P, E) 0..100, NaN where there is no projection
    view_sigma: NDArray[np.float64]  # (P, E) deg, rms over three axes times sqrt(3)
    place_sigma: NDArray[np.float64]  # (P, E) angstrom, likewise over x and y
    report: Dict[str, Any]

    def tables(self) -> Dict[str, NDArray]:
        return {"score": self.score, "view_sigma": self.view_sigma, "place_sigma": self.place_sigma,
                "amplitude": self.amplitude, "noise": self.weights.noise, "factor": self.weights.factor,
                "b_factor": self.weights.b_factor, "field": np.array(self.weights.field),
                "level": np.array(self.weights.level)}


def refine_one(
    dataset: Dataset,
    series: int,
    references: Sequence[Reference],
    settings: RefineSettings,
    grid: MapGrid,
    resolution: float,
    journal: ChunkJournal,
    threads: int,
    memory: int = 2 * 1024**3,
    reference_fsc: Sequence[float] = (),
    opened: Optional[SeriesImages] = None,
    progress: PartDone = untold,
) -> SeriesOutcome:
    """Refine one series of ``dataset`` in place. ``reference_fsc`` and ``opened`` as in ``SeriesModel``; ``progress`` is told
    which part is done, 0 to 1."""
    fine = refinement_grid(grid, resolution)
    if magnified(settings.to_dict(), dataset, series):  # of this series alone: what else is in the chunk must not matter
        reach = int(references[0].radius / (1.0 + LARGEST_MAGNIFICATION))
        fine = MapGrid(fine.box, fine.pixel, fine.padded, min(fine.radius, reach))
    options = solve_options(settings)
    names = ", ".join(f"prior_{mode}" for mode in options.free if MODES[mode].ctf)
    if dataset.series["premultiplied"][series] and names:
        raise InputError(f"series {dataset.series['name'][series]}: its images are multiplied by their CTF, which is then "
                         f"fixed; set {names} to 0")
    start = geometry_of(dataset, series, settings.deformation_grid if settings.prior_deformation > 0 else 0,
                        settings.defocus_grid if settings.prior_regional_defocus > 0 else 0)
    need = equations_memory(start, options)
    if memory <= need:
        raise InputError(f"series {dataset.series['name'][series]}: its equations alone take {need / 2**30:.3g} GB of the "
                         f"{memory / 2**30:.3g} GB that each process has; give more --memory or fewer --processes, or a "
                         "smaller deformation_grid or defocus_grid")
    model = SeriesModel(dataset, series, references, fine, settings, journal, threads, memory - need, reference_fsc, opened)
    limit = fine.field / fine.radius
    radii = stage_radii(model.field, settings.start_resolution, limit)
    begin = time.perf_counter()
    found = search(model, start, settings, options)
    journal.seconds["search"] = journal.seconds.get("search", 0.0) + time.perf_counter() - begin
    before = SHARE_OF_SEARCH if settings.search_cone else 0.0
    progress(before)
    # What a search found may be far from the start: the priors are about it.
    solution, spectra, report = refine_series(model, found.copy(), found, radii, options,
                                              lambda part: progress(before + (1.0 - before) * part))
    journal.seconds["refine"] = journal.seconds.get("refine", 0.0) + report["seconds"]
    score = projection_scores(model, solution)
    view, place = uncertainties(model, solution)
    _store(dataset, series, solution, score)
    report.update(series=str(dataset.series["name"][series]), resolution=limit)
    weights = ExposureWeights(spectra.factor, spectra.b_factor, spectra.noise, model.field, spectra.level)
    return SeriesOutcome(weights, spectra.amplitude, score, view, place, report)


def projection_scores(model: SeriesModel, solution: Solution) -> NDArray[np.float64]:
    """(P, E) 100 times the correlation of each projection with its model, weighted by 1 / s^2; at least 0.01 as PYP writes."""
    power = model.data_power()
    if model.premultiplied:
        power *= 2.0  # their noise is that of X times C, and the mean of C^2 is one half
    correlation = solution.local.match / np.sqrt(np.maximum(solution.local.power * power, 1e-30))
    score = np.full(model.projections.used.shape, np.nan)
    score[model.projections.used] = np.clip(100.0 * correlation, 0.01, 100.0)
    return score


def uncertainties(model: SeriesModel, solution: Solution) -> Tuple[NDArray, NDArray]:
    """(P, E) standard deviation of each projection's view (degrees, over three axes) and place (angstrom, over x and y)."""
    variance = np.diagonal(solution.projection_covariance, axis1=1, axis2=2)
    view, place = (np.full(model.projections.used.shape, np.nan) for _ in range(2))
    view[model.projections.used] = np.rad2deg(np.sqrt(variance[:, :3].sum(axis=1)))
    place[model.projections.used] = np.sqrt(variance[:, 3:5].sum(axis=1))
    return view, place


def _store(dataset: Dataset, series: int, solution: Solution, score: NDArray) -> None:
    """Write the solution into the data set's rows."""
    geometry = solution.geometry
    rows, particles = dataset.exposures_of(series), dataset.particles_of(series)
    dataset.exposures["rotation"][rows], dataset.exposures["shift"][rows] = geometry.tilts, geometry.shifts
    if geometry.defocus.any():
        form = defocus_form(*dataset.exposures["defocus"][rows].T) + components_to_form(geometry.defocus)
        dataset.exposures["defocus"][rows] = form_to_defocus(form)
    if geometry.grid >= 2:
        dataset.series["deformation_grid"][series] = geometry.grid
        columns = np.arange(2 * geometry.grid**2)
        dataset.exposures["deformation"][rows[:, None], columns] = geometry.deformations.reshape(len(rows), -1)
    if geometry.defocus_grid >= 2:
        dataset.series["defocus_grid"][series] = geometry.defocus_grid
        columns = np.arange(geometry.defocus_grid**2)
        dataset.exposures["defocus_field"][rows[:, None], columns] = geometry.regional_defocus
    dataset.exposures["magnification"][rows] = geometry.magnification
    dataset.exposures["phase_shift"][rows] += np.rad2deg(geometry.phase)
    dataset.particles["defocus_offset"][particles] = geometry.particle_defocus
    dataset.particles["rotation"][particles] = geometry.poses
    dataset.particles["position"][particles] = geometry.positions
    seen = np.isfinite(score).any(axis=1)
    dataset.particles["score"][particles[seen]] = np.nanmean(score[seen], axis=1)
    variance = np.diagonal(solution.particle_covariance, axis1=1, axis2=2)
    for column, (mode, unit) in enumerate((("rotation", np.rad2deg(1.0)), ("position", 1.0))):
        if mode in solution.particle_layout.slices:
            part = variance[:, solution.particle_layout.slices[mode]]
            dataset.particles["sigma"][particles, column] = unit * np.sqrt(part.mean(axis=1))
    variance = np.diagonal(solution.exposure_covariance, axis1=1, axis2=2)
    modes = (("tilt_angle", [0], np.rad2deg(1.0)), ("axis_angle", [1], np.rad2deg(1.0)), ("shift", [2, 3], 1.0))
    for mode, where, unit in modes:
        if mode in solution.exposure_layout.slices:
            part = variance[:, solution.exposure_layout.slices[mode]]
            dataset.exposures["sigma"][rows[:, None], where] = unit * np.sqrt(part)
