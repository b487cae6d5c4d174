"""Run one chunk: a pure function of its task file, its rows and the images that these name."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core._jit import set_threads
from ..core.band import Band, make_band
from ..core.ctf import defocus_form, phase_offset, wavelength
from ..core.fourier import crops_to_coefficients
from ..core.insertion import Accumulator
from ..core.weighting import ctf_values, dose_amplitude, weigh
from ..errors import CsprError
from ..io.images import SeriesImages, open_images
from ..model.settings import ReconstructSettings
from ..model.tables import Dataset
from ..model.task import ChunkJournal, ChunkTask, MapGrid
from .plan import source_pixel
from .resources import peak_memory
from .store import RunStore, hash_rows, read_json, read_rows

Progress = Callable[[int], None]
NOISE_SAMPLE = 256  # crops of an exposure from which its noise spectrum is measured
LEAST_INSIDE = 0.75  # a crop with less of its area inside the image is not used


def no_progress(_: int) -> None:
    """For callers that show none."""


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

    def batch(self, memory: int, threads: int) -> int:
        """How many projections fit ``memory`` bytes while they are cut, transformed, weighted and inserted."""
        each = self.box * self.box * (4 + 4 + 8) + len(self.band) * (8 + 4 + 32)
        return int(np.clip(memory // each, 8, 2048))


def run_chunk(
    task: ChunkTask,
    dataset: Dataset,
    threads: int = 1,
    memory: int = 2 * 1024**3,
    progress: Progress = no_progress,
) -> Tuple[Tuple[Accumulator, Accumulator], ChunkJournal]:
    """Two half-map partial sums of the chunk's series, and a journal.

    ``memory`` in bytes bounds the projections in flight (the sums come on top). Neither it nor ``threads`` changes the result.
    """
    settings = ReconstructSettings.from_dict(task.settings, f"task {task.index}")
    grid = task.grid
    sums = tuple(Accumulator(grid.box, grid.padding, grid.radius) for _ in range(2))
    journal = ChunkJournal()
    set_threads(threads)
    for series in range(len(dataset.series)):
        images = open_images(dataset, series)
        _insert_series(dataset, series, images, settings, grid, sums, journal, threads, memory, progress)
        journal.bytes_read += images.bytes_read
    journal.peak_memory_bytes = peak_memory()
    return (sums[0], sums[1]), journal


def run_chunk_file(path: Path, threads: int = 1, memory: int = 2 * 1024**3, progress: Progress = no_progress) -> Dict[str, Any]:
    """Run the task of a file unless its result is already there; returns the chunk's manifest."""
    path = Path(path).absolute()
    task = ChunkTask.from_dict(read_json(path), str(path))
    store = RunStore(path.parent.parent)
    done = store.manifest(task)
    if done is not None:
        progress(task.n_projections)
        return done
    dataset = read_rows(path.with_suffix(".npz"))
    if hash_rows(dataset) != task.rows_hash:
        raise CsprError(f"{path.with_suffix('.npz')}: is not what the task was planned with; plan the run again")
    sums, journal = run_chunk(task, dataset, threads, memory, progress)
    return store.write_chunk(task, sums, journal.to_dict())


@contextmanager
def _stage(journal: ChunkJournal, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    journal.seconds[name] = journal.seconds.get(name, 0.0) + time.perf_counter() - start


def _insert_series(
    dataset: Dataset,
    series: int,
    images: SeriesImages,
    settings: ReconstructSettings,
    grid: MapGrid,
    sums: Tuple[Accumulator, ...],
    journal: ChunkJournal,
    threads: int,
    memory: int,
    progress: Progress,
) -> None:
    """Insert every used projection of a series, exposure by exposure, so that each image is read once."""
    crop_grid = CropGrid(source_pixel(dataset, series), grid)
    batch = crop_grid.batch(memory, threads)
    particles = dataset.particles_of(series)
    used = dataset.used(series)
    u, depth = dataset.project(series)
    for column, exposure in enumerate(dataset.exposures_of(series)):
        rows = np.flatnonzero(used[:, column])
        if not len(rows):
            continue
        view = _Exposure(dataset, series, int(exposure), images, crop_grid, settings, journal, threads)
        power = view.noise_power(particles[rows], u[rows, column], depth[rows, column])
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            view.insert(particles[part], u[part, column], depth[part, column], power, sums)
            progress(len(part))


class _Exposure:
    """One exposure of a series while its projections are inserted."""

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
        self.amplitude = np.full(len(shells), exposures["scale"][exposure])
        if settings.dose_weighting:
            k = shells / crop_grid.field
            self.amplitude = self.amplitude * dose_amplitude(
                k, exposures["dose_before"][exposure], exposures["dose"][exposure], optics["voltage"][series]
            )

    def _defocus(self, depth: NDArray) -> NDArray:
        """(B, 3) quadratic forms of the projections' own defocus."""
        defocus_u, defocus_v, angle = self.dataset.exposures["defocus"][self.row]
        moved = self.dataset.series["hand"][self.series] * depth
        return defocus_form(defocus_u + moved, defocus_v + moved, np.full(len(depth), angle))

    def _coefficients(self, particles: NDArray, u: NDArray) -> Tuple[NDArray, NDArray, NDArray]:
        """(B, n) transforms, (B, 2) residuals in angstrom, (B,) fraction of the crop that lies inside the image."""
        with _stage(self.journal, "read"):
            crops, centre, inside = self.images.crops(self.row, particles, u, self.grid.box)
        with _stage(self.journal, "fourier"):
            if self.settings.mask_diameter:
                crops = crops * _soft_circle(self.grid.box, 0.5 * self.settings.mask_diameter / self.grid.pixel)
            coefficients = crops_to_coefficients(crops, self.grid.band, self.grid.factor, self.threads)
        return coefficients, u - centre, inside

    def noise_power(self, particles: NDArray, u: NDArray, depth: NDArray) -> NDArray[np.float64]:
        """(shells,) mean power of the crops, from a fixed sample of the exposure's particles; ones where not asked for.

        The signal of single projections is far below their noise, so this is the noise. Of premultiplied stacks the power
        is divided by the mean C^2 of the shell, which gives the noise before multiplication.
        """
        shell = self.grid.band.shell
        if not self.settings.noise_weighting:
            return np.ones(len(self.amplitude))
        sample = np.unique(np.linspace(0, len(particles) - 1, min(len(particles), NOISE_SAMPLE)).astype(int))
        coefficients, _, inside = self._coefficients(particles[sample], u[sample])
        good = inside >= LEAST_INSIDE
        if not good.any():
            return np.ones(len(self.amplitude))
        count = np.bincount(shell, minlength=len(self.amplitude))
        power = np.bincount(shell, (np.abs(coefficients[good]) ** 2).mean(axis=0), minlength=len(count)) / np.maximum(count, 1)
        if self.premultiplied:
            ctf = ctf_values(self.grid.band, self.grid.field, self._defocus(depth[sample][good]), self._phases(good.sum()),
                             self.wavelength, self.cs)
            squared = np.bincount(shell, (ctf**2).mean(axis=0), minlength=len(count)) / np.maximum(count, 1)
            power = power / np.maximum(squared, 1e-3)
        power[count == 0] = power[count > 0][0]
        smooth = np.convolve(np.pad(power, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
        return np.maximum(smooth, 1e-6 * smooth.max())

    def _phases(self, count: int) -> NDArray[np.float64]:
        return np.full(count, self.phase)

    def insert(self, particles: NDArray, u: NDArray, depth: NDArray, power: NDArray, sums: Tuple[Accumulator, ...]) -> None:
        coefficients, residual, inside = self._coefficients(particles, u)
        with _stage(self.journal, "weigh"):
            weight = weigh(coefficients, self.grid.band, self.grid.field, residual, self._defocus(depth),
                           self._phases(len(depth)), self.wavelength, self.cs, self.amplitude, power, self.premultiplied,
                           self.threads)
        good = inside >= LEAST_INSIDE
        table = self.dataset.particles
        rotations = self.dataset.exposures["rotation"][self.row] @ table["rotation"][particles]
        extra = table["weight"][particles].astype(np.float32)
        with _stage(self.journal, "insert"):
            for half, accumulator in enumerate(sums, start=1):
                chosen = np.flatnonzero(good & (table["half"][particles] == half) & (extra > 0))
                if not len(chosen):
                    continue
                data, weights = coefficients[chosen], weight[chosen]
                if (extra[chosen] != 1).any():
                    data, weights = data * extra[chosen, None], weights * extra[chosen, None]
                accumulator.insert(data, weights, rotations[chosen], self.grid.band, self.grid.scale, self.threads)
                self.journal.n_projections += len(chosen)
        self.journal.n_outside += int((~good).sum())


def _soft_circle(box: int, radius: float, edge: float = 5.0) -> NDArray[np.float32]:
    """(box, box) mask: 1 within ``radius`` pixels of the centre, a cosine of ``edge`` pixels to 0."""
    axis = np.arange(box) - box // 2
    distance = np.hypot(axis[:, None], axis[None, :])
    ramp = np.clip((distance - radius) / edge, 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * ramp)).astype(np.float32)


def merge_journals(journals: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Counts and seconds of all chunks added up; the largest memory."""
    seconds: Dict[str, float] = {}
    for journal in journals:
        for name, value in journal["seconds"].items():
            seconds[name] = seconds.get(name, 0.0) + value
    total: Dict[str, Any] = {name: sum(j[name] for j in journals) for name in ("n_projections", "n_outside", "bytes_read")}
    total["seconds"] = seconds
    total["peak_memory_bytes"] = max((j["peak_memory_bytes"] for j in journals), default=0)
    return total
