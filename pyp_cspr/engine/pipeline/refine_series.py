"""Refine one series in memory: extract its coefficients once, then measure noise and solve, from coarse to fine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.ctf import defocus_form, phase_offset, wavelength
from ..core.projection import Reference
from ..core.refinement import LocalEquations, local_equations
from ..core.weighting import ctf_values, dose_amplitude, weigh
from ..io.images import open_images
from ..model.settings import ReconstructSettings
from ..model.tables import Dataset
from ..model.task import ChunkJournal, MapGrid
from ..refine.noise import ShellSums, Spectra, fit_spectra, shell_totals
from ..refine.parameters import SeriesGeometry
from ..refine.solve import Solution, SolveOptions, solve_series
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
        _, depth = geometry.undeformed()
        moved = self.dataset.series["hand"][self.series] * depth[c.particle, c.exposure]
        defocus = self.exposures["defocus"][c.exposure]
        return defocus_form(defocus[:, 0] + moved, defocus[:, 1] + moved, defocus[:, 2])

    def shell_sums(self, geometry: SeriesGeometry) -> ShellSums:
        """Data against model by exposure and shell."""
        c, band = self.coefficients, self.band
        count = len(self.exposures)
        sums = ShellSums(*(np.zeros((count, self.shells)) for _ in range(4)))
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
            # Of premultiplied data, C X, the model is C^2 V; divided by C, the sums are those of X where C is not small.
            shift = centres[particles, exposure] - c.centre[rows]
            model *= np.exp(-2j * np.pi * (shift @ frequency)).astype(np.complex64)
            data = c.data[rows]
            if self.premultiplied:
                sums.match[exposure] = shell_totals((data * model.conj()).real, band.shell, self.shells)
                sums.model[exposure] = shell_totals(np.abs(model * ctf) ** 2, band.shell, self.shells)
                sums.data[exposure] = shell_totals(np.abs(data) ** 2, band.shell, self.shells)
                sums.count[exposure] = shell_totals(ctf**2, band.shell, self.shells)
            else:
                model *= ctf
                sums.match[exposure] = shell_totals((data * model.conj()).real, band.shell, self.shells)
                sums.model[exposure] = shell_totals(np.abs(model) ** 2, band.shell, self.shells)
                sums.data[exposure] = shell_totals(np.abs(data) ** 2, band.shell, self.shells)
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
        return spectra

    def equations(self, rotations: NDArray, centres: NDArray, count: int) -> LocalEquations:
        """Local equations of all projections with the first ``count`` coefficients."""
        shifts = centres - self.coefficients.centre
        return local_equations(self.weighted, self.weight, self.band, self.grid.field, self.references, self.which, rotations,
                               shifts, self.grid.scale, count=count, threads=self.threads)


def geometry_of(dataset: Dataset, series: int, grid: int = 0) -> SeriesGeometry:
    """The present unknowns of a series."""
    rows, particles = dataset.exposures_of(series), dataset.particles_of(series)
    size = dataset.series["image_size"][series] * dataset.series["pixel"][series]
    deformations = np.zeros((len(rows), grid * grid, 2))
    return SeriesGeometry(
        dataset.exposures["rotation"][rows].copy(), dataset.exposures["shift"][rows].copy(),
        dataset.particles["rotation"][particles].copy(), dataset.particles["position"][particles].copy(),
        (float(size[0]) or 1.0, float(size[1]) or 1.0), grid, deformations,
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
    model: SeriesModel, start: SeriesGeometry, radii: Sequence[float], options: SolveOptions
) -> Tuple[Solution, Spectra, Dict[str, Any]]:
    """Solve at each radius in turn (Fourier pixels of the crops), with noise and amplitude measured before each."""
    begin = time.perf_counter()
    geometry, reports, evaluations = start, [], 0
    for number, radius in enumerate(radii):
        spectra = model.measure(geometry)
        count = model.band.prefix(radius)

        def evaluate(rotations: NDArray, centres: NDArray, _: int, count: int = count) -> LocalEquations:
            return model.equations(rotations, centres, count)

        last = number == len(radii) - 1
        solution = solve_series(start, geometry, model.coefficients.used, evaluate, last, options)
        geometry = solution.geometry
        evaluations += solution.report.evaluations
        reports.append({"radius": float(radius), "evaluations": solution.report.evaluations,
                        "cost": [float(value) for value in solution.report.cost], "reason": solution.report.reason})
    seconds = time.perf_counter() - begin
    journal = {"stages": reports, "evaluations": evaluations, "projections": len(model.coefficients.data), "seconds": seconds}
    return solution, spectra, journal
