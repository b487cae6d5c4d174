"""Refine one series in memory: extract its coefficients once, then measure noise and solve, from coarse to fine."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.ctf import defocus_form, phase_offset, wavelength
from ..core.ctf_refinement import components_to_form, ctf_equations, form_to_defocus
from ..core.projection import Reference
from ..core.refinement import LocalEquations, local_equations
from ..core.weighting import ctf_values, dose_amplitude, weigh
from ..io.images import open_images
from ..model.settings import ReconstructSettings, RefineSettings
from ..model.tables import Dataset
from ..model.task import ChunkJournal, MapGrid
from ..refine.noise import ShellSums, Spectra, fit_spectra, shell_totals
from ..refine.parameters import SeriesGeometry, tolerances
from ..refine.search import SearchData, SearchSettings, search_exposure_shifts, search_rotations, search_translations
from ..refine.solve import CtfChange, Evaluate, Solution, SolveOptions, solve_series
from .extract import CropGrid, ExposureView, source_pixel


@dataclass
class SeriesCoefficients:
    """The unweighted in-band coefficients of a series' used projections, about the crops' centres."""

    crop_grid: CropGrid
    data: NDArray[np.complex64]  # (Q, n)
    particle: NDArray[np.int64]  # (Q,) index within the series
    exposure: NDArray[np.int64]  # (Q,) index within the series
    centre: NDArray[np.float64]  # (Q, 2) angstrom
    used: NDArray[np.bool_]  # (P, E): the projections, in the order of data
    bytes_read: int


def extract_series(
    dataset: Dataset, series: int, grid: MapGrid, settings: ReconstructSettings, journal: ChunkJournal, threads: int
) -> SeriesCoefficients:
    """Cut and transform every used projection of a series that lies inside its image."""
    images = open_images(dataset, series)
    crop_grid = CropGrid(source_pixel(dataset, series), grid)
    particles = dataset.particles_of(series)
    used = dataset.used(series).copy()
    u, _ = dataset.project(series)
    count = int(used.sum())
    data = np.empty((count, len(crop_grid.band)), np.complex64)
    centre = np.empty((count, 2))
    row_of = np.full(used.shape, -1, np.int64)
    row_of[used] = np.arange(count)
    keep = np.ones(count, bool)
    for column, exposure in enumerate(dataset.exposures_of(series)):
        rows = np.flatnonzero(used[:, column])
        view = ExposureView(dataset, series, int(exposure), images, crop_grid, settings, journal, threads)
        for start in range(0, len(rows), 256):
            part = rows[start : start + 256]
            coefficients, residual, good = view.coefficients(particles[part], u[part, column])
            target = row_of[part, column]
            data[target], centre[target], keep[target] = coefficients, u[part, column] - residual, good
    journal.n_outside += int((~keep).sum())
    index = np.nonzero(used)
    used[index[0][~keep], index[1][~keep]] = False
    return SeriesCoefficients(crop_grid, data[keep], index[0][keep], index[1][keep], centre[keep], used, images.bytes_read)


class SeriesModel:
    """The coefficients of a series against the half-sets' references, at any geometry."""

    def __init__(
        self, dataset: Dataset, series: int, coefficients: SeriesCoefficients, references: Sequence[Reference], threads: int
    ) -> None:
        self.dataset, self.series, self.coefficients = dataset, series, coefficients
        self.references, self.threads = references, threads
        rows = dataset.exposures_of(series)
        table, optics = dataset.exposures.take(rows), dataset.series
        self.exposures = table
        self.half = dataset.particles["half"][dataset.particles_of(series)]
        self.which = np.minimum(self.half[coefficients.particle], len(references)) - 1
        self.wavelength, self.cs = wavelength(optics["voltage"][series]), float(optics["cs"][series])
        self.premultiplied = bool(optics["premultiplied"][series])
        self.base = defocus_form(*table["defocus"].T)  # (E, 3), at depth 0
        self.phase = phase_offset(optics["amplitude_contrast"][series], table["phase_shift"])
        band, grid = coefficients.crop_grid.band, coefficients.crop_grid
        self.band, self.grid = band, grid
        self.shells = int(band.shell.max()) + 1
        self.k = np.arange(self.shells) / grid.field
        voltage = optics["voltage"][series]
        self.prior = np.stack([
            scale * dose_amplitude(self.k, before, dose, voltage)
            for scale, before, dose in zip(table["scale"], table["dose_before"], table["dose"])
        ])
        self.weighted: NDArray[np.complex64] = np.empty((0, 0), np.complex64)
        self.weight: NDArray[np.float32] = np.empty((0, 0), np.float32)

    def forms(self, geometry: SeriesGeometry) -> NDArray[np.float64]:
        """(Q, 3) defocus of every projection at its present depth."""
        c = self.coefficients
        return self.base[c.exposure] + components_to_form(geometry.defocus_changes()[c.particle, c.exposure])

    def shell_sums(self, geometry: SeriesGeometry) -> ShellSums:
        """Data against model by exposure and shell.

        Premultiplied data are C X. Their least squares have the weight 1 / (C^2 s^2), so the amplitude comes from the sums of
        C X V* and C^2 |V|^2, and the noise from |C X - a C^2 V|^2, whose expectation is C^2 s^2.
        """
        c, band = self.coefficients, self.band
        count = len(self.exposures)
        sums = ShellSums(*(np.zeros((count, self.shells)) for _ in range(6)))
        forms, orientations, centres = self.forms(geometry), geometry.orientations(), geometry.centres()
        frequency = np.stack([band.kx, band.ky]).astype(np.float64) / self.grid.field
        for exposure in range(count):
            rows = np.flatnonzero(c.exposure == exposure)
            if not len(rows):
                continue
            particles = c.particle[rows]
            model = np.empty((len(rows), len(band)), np.complex64)
            for which, reference in enumerate(self.references):
                part = np.flatnonzero(self.which[rows] == which)
                if len(part):
                    model[part] = reference.slices(orientations[particles[part], exposure], band, self.grid.scale, self.threads)
            ctf = ctf_values(band, self.grid.field, forms[rows], self.phase[c.exposure[rows]], self.wavelength, self.cs)
            shift = centres[particles, exposure] - c.centre[rows]
            model *= np.exp(-2j * np.pi * (shift @ frequency)).astype(np.complex64)
            data = c.data[rows]

            def add(table: NDArray, values: NDArray, exposure: int = exposure) -> None:
                table[exposure] = shell_totals(values, band.shell, self.shells)

            add(sums.data, np.abs(data) ** 2)
            if self.premultiplied:
                add(sums.match, (data * model.conj()).real)
                model *= ctf
                add(sums.model, np.abs(model) ** 2)
                model *= ctf
                add(sums.noise_match, (data * model.conj()).real)
                add(sums.noise_model, np.abs(model) ** 2)
                add(sums.count, ctf**2)
            else:
                model *= ctf
                add(sums.match, (data * model.conj()).real)
                add(sums.model, np.abs(model) ** 2)
                sums.noise_match[exposure], sums.noise_model[exposure] = sums.match[exposure], sums.model[exposure]
                sums.count[exposure] = len(rows) * np.bincount(band.shell, minlength=self.shells)
        return sums

    def measure(self, geometry: SeriesGeometry) -> Spectra:
        """Amplitude and noise at this geometry, and the coefficients weighted by them."""
        spectra = fit_spectra(self.shell_sums(geometry), self.prior, self.k)
        c = self.coefficients
        self.weighted = c.data.copy()
        self.weight = np.empty(c.data.shape, np.float32)
        forms = self.forms(geometry)
        for exposure in range(len(self.exposures)):
            rows = np.flatnonzero(c.exposure == exposure)
            if len(rows):
                part = self.weighted[rows]
                self.weight[rows] = weigh(
                    part, self.band, self.grid.field, np.zeros((len(rows), 2)), forms[rows], self.phase[c.exposure[rows]],
                    self.wavelength, self.cs, spectra.amplitude[exposure], spectra.noise[exposure], self.premultiplied,
                    self.threads,
                )
                self.weighted[rows] = part
        self.spectra = spectra
        return spectra

    def equations(
        self,
        rotations: NDArray,
        centres: NDArray,
        count: int,
        rows: Optional[NDArray[np.int64]] = None,
        ctf: Optional[CtfChange] = None,
    ) -> LocalEquations:
        """Local equations of projections (all, or ``rows``) with the first ``count`` coefficients.

        With ``ctf``, what the geometry adds to each projection's CTF, the CTF is part of the model and its parameters of the
        equations; else it is as it was when ``measure`` was called last.
        """
        picked = np.arange(len(self.coefficients.data)) if rows is None else rows
        shifts = centres - self.coefficients.centre[picked]
        if ctf is None:
            return local_equations(self.weighted, self.weight, self.band, self.grid.field, self.references, self.which[picked],
                                   rotations, shifts, self.grid.scale, rows=picked, count=count, threads=self.threads)
        exposure = self.coefficients.exposure[picked]
        return ctf_equations(
            self.coefficients.data, self.band, self.grid.field, self.spectra.amplitude, self.spectra.noise, exposure,
            self.references, self.which[picked], rotations, shifts, self.base[exposure] + ctf.form,
            self.phase[exposure] + ctf.phase, self.wavelength, self.cs, self.grid.scale, picked, count, self.threads,
            self.premultiplied,
        )


def geometry_of(dataset: Dataset, series: int, grid: int = 0) -> SeriesGeometry:
    """The present unknowns of a series."""
    rows, particles = dataset.exposures_of(series), dataset.particles_of(series)
    size = dataset.series["image_size"][series] * dataset.series["pixel"][series]
    deformations = np.zeros((len(rows), grid * grid, 2))
    return SeriesGeometry(
        dataset.exposures["rotation"][rows].copy(), dataset.exposures["shift"][rows].copy(),
        dataset.particles["rotation"][particles].copy(), dataset.particles["position"][particles].copy(),
        (float(size[0]) or 1.0, float(size[1]) or 1.0), grid, deformations, float(dataset.series["hand"][series]),
    )


def stage_radii(field: float, start: float, limit: float) -> List[float]:
    """Fourier radii from a coarse resolution (angstrom), each doubled, to the limit."""
    radii, resolution = [], max(start, limit)
    while resolution > limit * 1.2:
        radii.append(field / resolution)
        resolution /= 2.0
    radii.append(field / limit)
    return radii


def refine_series(
    model: SeriesModel, start: SeriesGeometry, geometry: SeriesGeometry, radii: Sequence[float], options: SolveOptions
) -> Tuple[Solution, Spectra, Dict[str, Any]]:
    """Solve at each radius in turn (Fourier pixels of the crops), with noise and amplitude measured before each.

    From ``geometry``; the priors hold to ``start``.
    """
    begin = time.perf_counter()
    reports, evaluations = [], 0
    for number, radius in enumerate(radii):
        spectra = model.measure(geometry)
        count = model.band.prefix(radius)

        evaluate = _evaluator(model, count)
        last = number == len(radii) - 1
        solution = solve_series(start, geometry, model.coefficients.used, evaluate, last, options)
        geometry = solution.geometry
        evaluations += solution.report.evaluations
        reports.append({"radius": float(radius), "evaluations": solution.report.evaluations,
                        "cost": [float(value) for value in solution.report.cost], "reason": solution.report.reason})
    seconds = time.perf_counter() - begin
    journal = {"stages": reports, "evaluations": evaluations, "projections": len(model.coefficients.data), "seconds": seconds}
    return solution, spectra, journal


def _evaluator(model: SeriesModel, count: int) -> Evaluate:
    def evaluate(
        rotations: NDArray, centres: NDArray, rows: Optional[NDArray[np.int64]] = None, ctf: Optional[CtfChange] = None
    ) -> LocalEquations:
        return model.equations(rotations, centres, count, rows, ctf)

    return evaluate


def search(
    model: SeriesModel, start: SeriesGeometry, radii: Sequence[float], settings: RefineSettings, options: SolveOptions
) -> SeriesGeometry:
    """Where to begin: the start, or what searches of shifts and rotations find, as the settings ask.

    The candidates of a rotation search are polished one after the other, particles alone, and the best of each particle stays.
    """
    geometry = start.copy()
    if not (settings.search_shift or settings.search_cone):
        return geometry
    model.measure(geometry)
    c = model.coefficients
    data = SearchData(
        model.weighted, model.weight, model.band, model.grid.field, model.grid.scale, model.references, model.which, c.particle,
        c.exposure, c.centre, model.threads,
    )
    resolution = max(settings.search_resolution, model.grid.field / model.band.radius)
    if settings.search_shift and "shift" in options.free and not settings.search_cone:
        moved, _ = search_exposure_shifts(data, geometry, 2.0 * resolution, settings.search_shift)
        geometry.shifts = geometry.shifts + moved
    if settings.search_shift and not settings.search_cone:
        moved, _ = search_translations(data, geometry, resolution, settings.search_shift)
        geometry.positions = geometry.positions + moved
    if settings.search_cone:
        geometry = _search_rotations(model, data, geometry, resolution, settings, options)
    return geometry


def _search_rotations(
    model: SeriesModel, data: SearchData, geometry: SeriesGeometry, resolution: float, settings: RefineSettings,
    options: SolveOptions,
) -> SeriesGeometry:
    radius = 0.25 * model.grid.field * model.grid.scale  # of the particle: half the box is its diameter
    how = SearchSettings(radius, resolution, settings.search_cone, settings.search_shift, angle_step=settings.search_step,
                         symmetry=settings.symmetry)
    candidates = search_rotations(data, geometry, how, settings.seed)
    count = model.band.prefix(model.grid.field / resolution)
    used = model.coefficients.used
    particle_only = replace(options, free=("rotation", "position"))
    best_cost = np.full(len(geometry.poses), np.inf)
    best = geometry.copy()
    for k in range(candidates.scores.shape[1]):
        trial = geometry.copy()
        there = np.isfinite(candidates.scores[:, k])
        trial.poses[there] = candidates.rotations[there, k]
        trial.positions[there] += candidates.displacements[there, k]
        solution = solve_series(trial, trial, used, _evaluator(model, count), False, particle_only)
        cost = np.zeros(len(trial.poses))
        np.add.at(cost, np.nonzero(used)[0], solution.local.cost)
        better = there & (cost < best_cost)
        best_cost[better] = cost[better]
        best.poses[better], best.positions[better] = solution.geometry.poses[better], solution.geometry.positions[better]
    return best


MODES = ("rotation", "position", "tilt_angle", "axis_angle", "third_angle", "shift", "defocus", "astigmatism")


def refinement_grid(grid: MapGrid, resolution: float) -> MapGrid:
    """The map's grid, only as far in Fourier space as ``resolution`` (angstrom) goes."""
    radius = int(np.clip(grid.field / resolution, 2, grid.radius))
    return MapGrid(grid.box, grid.pixel, grid.padded, radius)


def solve_options(settings: RefineSettings) -> SolveOptions:
    """Free are the groups whose prior is not 0."""
    sigmas = {mode: float(getattr(settings, f"prior_{mode}")) for mode in MODES}
    free = tuple(mode for mode in MODES if sigmas[mode] > 0)
    bounds = tolerances() if settings.hard_tolerances else {}
    return SolveOptions(free=free, sigmas={mode: sigmas[mode] for mode in free}, tolerances=bounds, huber=settings.huber)


@dataclass(frozen=True)
class ExposureWeights:
    """Amplitude relative to the prior, and noise, of a series' exposures; shells of ``field`` angstrom."""

    factor: NDArray[np.float64]  # (E,)
    b_factor: NDArray[np.float64]  # (E,)
    noise: NDArray[np.float64]  # (E, shells)
    field: float

    def of(self, exposure: int, prior: NDArray, crop_grid: CropGrid) -> Tuple[NDArray, NDArray]:
        """(amplitude, noise power) on the shells of ``crop_grid``; beyond what was measured the last noise holds.

        The series' common curve is left out: it is the same for all that meets in a shell of the map.
        """
        k = np.arange(len(prior)) / crop_grid.field
        amplitude = prior * self.factor[exposure] * np.exp(-0.25 * self.b_factor[exposure] * k**2)
        measured = self.noise[exposure]
        last = max(1, len(measured) - 2)  # the outermost shell is only partly filled
        power = np.interp(k * self.field, np.arange(last), measured[:last])
        return np.minimum(amplitude, 4.0 * prior.max()), power


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
                "b_factor": self.weights.b_factor, "field": np.array(self.weights.field)}


def refine_one(
    dataset: Dataset,
    series: int,
    references: Sequence[Reference],
    settings: RefineSettings,
    grid: MapGrid,
    resolution: float,
    journal: ChunkJournal,
    threads: int,
) -> SeriesOutcome:
    """Refine one series of ``dataset`` in place."""
    fine = refinement_grid(grid, resolution)
    coefficients = extract_series(dataset, series, fine, settings, journal, threads)
    journal.bytes_read += coefficients.bytes_read
    model = SeriesModel(dataset, series, coefficients, references, threads)
    start = geometry_of(dataset, series)
    limit = fine.field / fine.radius
    radii = stage_radii(model.grid.field, settings.start_resolution, limit)
    options = solve_options(settings)
    begin = time.perf_counter()
    found = search(model, start, radii, settings, options)
    journal.seconds["search"] = journal.seconds.get("search", 0.0) + time.perf_counter() - begin
    solution, spectra, report = refine_series(model, start, found, radii, options)
    journal.seconds["refine"] = journal.seconds.get("refine", 0.0) + report["seconds"]
    score = projection_scores(model, solution, spectra)
    view, place = uncertainties(model, solution)
    _store(dataset, series, solution, score)
    report.update(series=str(dataset.series["name"][series]), resolution=limit)
    weights = ExposureWeights(spectra.factor, spectra.b_factor, spectra.noise, model.grid.field)
    return SeriesOutcome(weights, spectra.amplitude, score, view, place, report)


def projection_scores(model: SeriesModel, solution: Solution, spectra: Spectra) -> NDArray[np.float64]:
    """(P, E) 100 times the correlation of each projection with its model, weighted by 1 / s^2; at least 0.01 as PYP writes."""
    c = model.coefficients
    inverse = (1.0 / spectra.noise)[:, model.band.shell].astype(np.float32)
    power = np.empty(len(c.data))
    for exposure in range(len(model.exposures)):
        rows = np.flatnonzero(c.exposure == exposure)
        power[rows] = (np.abs(c.data[rows]) ** 2) @ inverse[exposure]
    if model.premultiplied:
        power *= 2.0  # their noise is that of X times C, and the mean of C^2 is one half
    correlation = solution.local.match / np.sqrt(np.maximum(solution.local.power * power, 1e-30))
    score = np.full(c.used.shape, np.nan)
    score[c.used] = np.clip(100.0 * correlation, 0.01, 100.0)
    return score


def uncertainties(model: SeriesModel, solution: Solution) -> Tuple[NDArray, NDArray]:
    """(P, E) standard deviation of each projection's view (degrees, over three axes) and place (angstrom, over x and y)."""
    variance = np.diagonal(solution.projection_covariance, axis1=1, axis2=2)
    view, place = (np.full(model.coefficients.used.shape, np.nan) for _ in range(2))
    view[model.coefficients.used] = np.rad2deg(np.sqrt(variance[:, :3].sum(axis=1)))
    place[model.coefficients.used] = np.sqrt(variance[:, 3:5].sum(axis=1))
    return view, place


def _store(dataset: Dataset, series: int, solution: Solution, score: NDArray) -> None:
    """Write the solution into the data set's rows."""
    geometry = solution.geometry
    rows, particles = dataset.exposures_of(series), dataset.particles_of(series)
    dataset.exposures["rotation"][rows], dataset.exposures["shift"][rows] = geometry.tilts, geometry.shifts
    if geometry.defocus.any():
        form = defocus_form(*dataset.exposures["defocus"][rows].T) + components_to_form(geometry.defocus)
        dataset.exposures["defocus"][rows] = form_to_defocus(form)
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
    columns = (("tilt_angle", [0], np.rad2deg(1.0)), ("axis_angle", [1], np.rad2deg(1.0)), ("shift", [2, 3], 1.0))
    for mode, where, unit in columns:
        if mode in solution.exposure_layout.slices:
            part = variance[:, solution.exposure_layout.slices[mode]]
            dataset.exposures["sigma"][rows[:, None], where] = unit * np.sqrt(part)
