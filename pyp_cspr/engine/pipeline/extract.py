"""Projections in memory: cut from the images, transformed, weighted. Nothing of them is written."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from typing import Dict, Iterator, Sequence, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.band import Band, make_band
from ..core.ctf import defocus_form, phase_offset, wavelength
from ..core.fourier import crops_to_coefficients
from ..core.weighting import COMMON_STEP, dose_amplitude, weigh
from ..io.images import SeriesImages
from ..model.settings import ReconstructSettings
from ..model.tables import Dataset
from ..model.task import ChunkJournal, MapGrid

LEAST_PRIOR = 1e-3  # of the amplitude that premultiplied stacks are divided by
LEAST_INSIDE = 0.75  # a crop with less of its area inside the image is not used


def source_pixel(dataset: Dataset, series: int) -> float:
    """Pixel size in angstrom of the images that particles are cut from."""
    return float(dataset.series["stack_pixel" if dataset.is_stacks(series) else "pixel"][series])


class CropGrid:
    """How crops of a series are cut so that their coefficients fall into the map's transform."""

    def __init__(self, pixel: float, grid: MapGrid) -> None:
        self.pixel = pixel
        self.box = 2 * int(round(grid.field / pixel / 2))
        self.field = self.box * pixel
        self.scale = grid.field / self.field
        radius = min(grid.radius / self.scale, self.box // 2 - 1)
        self.band: Band = make_band(self.box, radius)
        self.factor = (pixel / grid.pixel) ** 2
        self._within: Dict[float, Tuple[NDArray[np.int64], Band]] = {}

    def within(self, radius: float) -> Tuple[NDArray[np.int64], Band]:
        """The coefficients up to ``radius``: which of the band's they are, and a band of their own, the same at each call."""
        if radius not in self._within:
            band = self.band
            inside = np.flatnonzero(np.hypot(band.kx, band.ky.astype(float)) <= radius)
            parts = {name: getattr(band, name)[inside] for name in ("kx", "ky", "shell", "offset", "sign")}
            self._within[radius] = inside, replace(band, radius=radius, **parts)
        return self._within[radius]

    def common_weight(self, curve: Sequence[float], grid: MapGrid) -> ArrayLike:
        """Factor of each coefficient of the band (n,) by the run's ``core.weighting.common_weight``; 1 where there is none."""
        if not len(curve):
            return 1.0
        pixels = np.hypot(self.band.kx, self.band.ky.astype(float)) * (grid.field / self.field)
        return np.interp(pixels, np.arange(len(curve)) * COMMON_STEP, curve)

    def batch(self, memory: int, threads: int) -> int:
        """How many projections fit ``memory`` bytes while they are cut, transformed, weighted and inserted."""
        each = self.box * self.box * (4 + 4 + 8) + len(self.band) * (8 + 4 + 32)
        return int(np.clip(memory // each, 8, 2048))


@contextmanager
def stage(journal: ChunkJournal, name: str) -> Iterator[None]:
    """Add the seconds of the block to a stage of the journal."""
    start = time.perf_counter()
    yield
    journal.seconds[name] = journal.seconds.get(name, 0.0) + time.perf_counter() - start


class ExposureView:
    """One exposure of a series: cuts, transforms and weighs its projections.

    ``journal`` collects the seconds of each stage. ``amplitude`` and ``power`` are the signal's amplitude a and the noise power
    s^2 by shell; they start as the dose filter with the exposure's scale, and 1.
    """

    def __init__(
        self,
        dataset: Dataset,
        series: int,
        exposure: int,
        images: SeriesImages,
        crop_grid: CropGrid,
        settings: ReconstructSettings,
        journal: ChunkJournal,
        threads: int,
    ) -> None:
        self.dataset, self.series, self.row = dataset, series, exposure
        self.images, self.grid, self.settings = images, crop_grid, settings
        self.journal, self.threads = journal, threads
        optics, exposures = dataset.series, dataset.exposures
        self.wavelength = wavelength(optics["voltage"][series])
        self.cs = float(optics["cs"][series])
        self.premultiplied = bool(optics["premultiplied"][series])
        self.phase = float(phase_offset(optics["amplitude_contrast"][series], exposures["phase_shift"][exposure]))
        shells = np.arange(int(crop_grid.band.shell.max()) + 1)
        scale = exposures["scale"][exposure]
        dose = exposures["dose_before"][exposure], exposures["dose"][exposure], optics["voltage"][series]
        self.prior = scale * dose_amplitude(shells / crop_grid.field, *dose)
        self.amplitude = self.prior if settings.dose_weighting else np.full(len(shells), scale)
        self.power = np.ones(len(shells))
        self.common: ArrayLike = 1.0  # see core.weighting.common_weight
        self.scale = crop_grid.scale * float(exposures["magnification"][exposure])  # slices are taken at this times k

    def _defocus(self, changes: NDArray) -> NDArray:
        """(B, 3) quadratic forms of the projections' own defocus."""
        defocus_u, defocus_v, angle = self.dataset.exposures["defocus"][self.row]
        return defocus_form(defocus_u + changes, defocus_v + changes, np.full(len(changes), angle))

    def place(self, particles: NDArray, u: NDArray) -> Tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Centres of the crops ``(B, 2)`` in angstrom, and which of them lie inside the image ``(B,)``."""
        centre, inside = self.images.place(self.row, particles, u, self.grid.box)
        return centre, inside >= LEAST_INSIDE

    def coefficients(self, particles: NDArray, u: NDArray) -> Tuple[NDArray, NDArray, NDArray]:
        """X ``(B, n)`` about the crops' centres, u - centre ``(B, 2)`` in angstrom, and which lie inside the image ``(B,)``."""
        with stage(self.journal, "read"):
            crops, centre, inside = self.images.crops(self.row, particles, u, self.grid.box)
        with stage(self.journal, "fourier"):
            if self.settings.mask_diameter:
                crops = crops * _soft_circle(self.grid.box, 0.5 * self.settings.mask_diameter / self.grid.pixel)
            coefficients = crops_to_coefficients(crops, self.grid.band, self.grid.factor, self.threads)
            if self.premultiplied:
                # Such stacks hold a C X with the dose filter and scale a (WarpTools; RELION 5): here X means C X of one unit.
                coefficients /= np.maximum(self.prior, LEAST_PRIOR)[self.grid.band.shell].astype(np.float32)
        return coefficients, u - centre, inside >= LEAST_INSIDE

    def _phases(self, count: int) -> NDArray[np.float64]:
        return np.full(count, self.phase)

    def weighted(
        self, particles: NDArray, u: NDArray, changes: NDArray
    ) -> Tuple[NDArray[np.complex64], NDArray[np.float32], NDArray[np.bool_]]:
        """D = a C X / s^2 ``(B, n)``, W = a^2 C^2 / s^2 ``(B, n)``, and which projections lie inside the image ``(B,)``.

        ``u`` ``(B, 2)`` and ``changes`` of the defocus ``(B,)`` (``Dataset.defocus_changes``) in angstrom. Without a refinement
        the noise power is 1, to which images are normalised: a noise spectrum only helps together with the signal's amplitude
        in it.
        """
        coefficients, residual, inside = self.coefficients(particles, u)
        with stage(self.journal, "weigh"):
            weight = weigh(
                coefficients, self.grid.band, self.grid.field, residual, self._defocus(changes), self._phases(len(changes)),
                self.wavelength, self.cs, self.amplitude, self.power, self.premultiplied,
                self.threads, common=self.common,
            )
        return coefficients, weight, inside

    def orientations(self, particles: NDArray) -> NDArray[np.float64]:
        """M = T_e R_p, ``(B, 3, 3)``."""
        tilt, poses = self.dataset.exposures["rotation"][self.row], self.dataset.particles["rotation"][particles]
        rotations: NDArray[np.float64] = tilt @ poses
        return rotations


def _soft_circle(box: int, radius: float, edge: float = 5.0) -> NDArray[np.float32]:
    """(box, box) mask: 1 within ``radius`` pixels of the centre, a cosine of ``edge`` pixels to 0."""
    axis = np.arange(box) - box // 2
    distance = np.hypot(axis[:, None], axis[None, :])
    ramp = np.clip((distance - radius) / edge, 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * ramp)).astype(np.float32)
