"""Run one chunk: a pure function of its task file, its rows and the images that these name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..core._jit import prepare_process
from ..core.insertion import Accumulator
from ..core.projection import Reference
from ..errors import CsprError
from ..io.images import SeriesImages, open_images
from ..io.mrc import read_map
from ..model.settings import ReconstructSettings, RefineSettings
from ..model.tables import LARGEST_MAGNIFICATION, Dataset
from ..model.task import ChunkJournal, ChunkTask
from .extract import CropGrid, ExposureView, source_pixel, stage
from .refine_series import ExposureWeights, ScoreWeights, SeriesOutcome, magnified, refine_one, refinement_grid
from .resources import peak_memory
from .selection import MapChoice, choose_for_map, projections_of_map
from .store import RunStore, hash_array, hash_rows, read_json, read_rows

Progress = Callable[[int], None]
SHARE_OF_REFINEMENT = 0.8  # of the time of a series that is refined; the rest is its insertion
REFERENCE_PADDING = 1.5  # costs 2 % of the accuracy of padding 2 and takes half its time


def no_progress(_: int) -> None:
    """For callers that show none."""


class _SeriesProgress:
    """Tells ``progress`` of a series' projections, first as they are refined, then as they are inserted."""

    def __init__(self, progress: Progress, projections: int, share: float) -> None:
        self.progress, self.projections, self.share = progress, projections, share
        self.told = self.inserted = 0

    def refined(self, part: float) -> None:
        """``part`` of the refinement is done, 0 to 1."""
        self._tell(self.share * part)

    def insert(self, count: int) -> None:
        self.inserted += count
        self._tell(self.share + (1.0 - self.share) * self.inserted / max(1, self.projections))

    def done(self) -> None:
        """Refined, not as many projections may make the map as were planned."""
        self._tell(1.0)

    def _tell(self, part: float) -> None:
        done = int(round(min(part, 1.0) * self.projections))
        if done > self.told:
            self.progress(done - self.told)
            self.told = done


def run_chunk(
    task: ChunkTask,
    dataset: Dataset,
    threads: int = 1,
    memory: int = 2 * 1024**3,
    progress: Progress = no_progress,
    references: Sequence[Reference] = (),
) -> Tuple[Tuple[Accumulator, Accumulator], ChunkJournal, List[SeriesOutcome]]:
    """Two half-map partial sums of the chunk's series, a journal, and of a task that refines the outcome for each series.

    A task that refines moves the rows of ``dataset`` first; ``references`` are its half-sets' maps.

    ``memory`` in bytes bounds the projections in flight; the sums, and up to 512 MB of slices that wait to be added to them,
    come on top. Neither it nor ``threads`` changes the result.
    """
    kind = RefineSettings if task.refine else ReconstructSettings
    settings = kind.from_dict(task.settings, f"task {task.index}")
    grid = task.grid
    sums = tuple(Accumulator(grid.box, grid.padding, grid.radius) for _ in range(2))
    journal = ChunkJournal()
    outcomes: List[SeriesOutcome] = []
    prepare_process()
    choice = choose_for_map(dataset, settings, task.scores)  # by the scores from before
    for series in range(len(dataset.series)):
        weights = None
        images = open_images(dataset, series)
        used = projections_of_map(dataset, series, settings, choice)
        told = _SeriesProgress(progress, int(used.sum()), SHARE_OF_REFINEMENT if task.refine else 0.0)
        if isinstance(settings, RefineSettings):
            outcome = refine_one(dataset, series, references, settings, grid, task.resolution, journal, threads, memory,
                                 task.reference_fsc, images, told.refined)
            outcomes.append(outcome)
            weights = chosen_weights(dataset, series, settings, outcome)
        _insert_series(dataset, series, images, settings, choice, task, sums, journal, threads, memory, told.insert, weights)
        told.done()
        journal.bytes_read += images.bytes_read
    with stage(journal, "insert"):
        for half in sums:
            half.close()
    journal.peak_memory_bytes = peak_memory()
    return (sums[0], sums[1]), journal, outcomes


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
    references = read_references(store, task, threads, magnified(task.settings, dataset)) if task.refine else ()
    sums, journal, outcomes = run_chunk(task, dataset, threads, memory, progress, references)
    return store.write_chunk(task, sums, journal.to_dict(), dataset if task.refine else None, outcomes)


def read_references(store: RunStore, task: ChunkTask, threads: int, magnified: bool = False) -> List[Reference]:
    """The maps that the task refines against, somewhat farther in Fourier space where images are ``magnified``.

    Raises CsprError where they are not those the task was planned with.
    """
    references = []
    radius = refinement_grid(task.grid, task.resolution).radius
    if magnified:
        radius = min(int(np.ceil(radius * (1.0 + LARGEST_MAGNIFICATION))), task.grid.box // 2 - 1)
    for number, expected in enumerate(task.references, start=1):
        path = store.reference_path(number)
        volume, _ = read_map(path)
        if hash_array(volume) != expected:
            raise CsprError(f"{path}: is not what the task was planned with; plan the iteration again")
        references.append(Reference(volume, REFERENCE_PADDING, radius, threads=threads))
    return references


def _insert_series(
    dataset: Dataset,
    series: int,
    images: SeriesImages,
    settings: ReconstructSettings,
    choice: MapChoice,
    task: ChunkTask,
    sums: Tuple[Accumulator, ...],
    journal: ChunkJournal,
    threads: int,
    memory: int,
    progress: Progress,
    weights: Optional[Union[ExposureWeights, ScoreWeights]] = None,
) -> None:
    """Insert every projection of a series that makes the map, exposure by exposure, so that each image is read once."""
    crop_grid = CropGrid(source_pixel(dataset, series), task.grid)
    common = crop_grid.common_weight(task.common_weight, task.grid)
    batch = crop_grid.batch(memory, threads)
    particles = dataset.particles_of(series)
    used = projections_of_map(dataset, series, settings, choice)
    (u, _), changes = dataset.project(series), dataset.defocus_changes(series)
    for column, exposure in enumerate(dataset.exposures_of(series)):
        rows = np.flatnonzero(used[:, column])
        if not len(rows):
            continue
        view = ExposureView(dataset, series, int(exposure), images, crop_grid, settings, journal, threads)
        view.common = common
        if weights is not None:
            view.amplitude, view.power = weights.of(column, view.prior, crop_grid)
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            _insert_batch(view, particles[part], u[part, column], changes[part, column], sums, choice)
            progress(len(part))


def _insert_batch(
    view: ExposureView, particles: NDArray, u: NDArray, changes: NDArray, sums: Tuple[Accumulator, ...], choice: MapChoice
) -> None:
    """Each projection goes into the sum of its particle's half-set, times the particle's weight and that of its score."""
    data, weights, good = view.weighted(particles, u, changes)
    band = view.grid.band
    if band.radius * view.scale > sums[0].radius:  # a magnified image reaches farther than the sums
        inside, band = view.grid.within(sums[0].radius / view.scale)
        data, weights = data.take(inside, axis=1), weights.take(inside, axis=1)
    rotations = view.orientations(particles)
    table, journal = view.dataset.particles, view.journal
    factor = table["weight"][particles].astype(np.float32)
    with stage(journal, "insert"):
        for half, accumulator in enumerate(sums, start=1):
            chosen = np.flatnonzero(good & (table["half"][particles] == half) & (factor > 0))
            if not len(chosen):
                continue
            own = factor[chosen, None]
            if choice.exponents.any():
                own = (own * choice.weights(particles[chosen], band.shell / view.grid.field)).astype(np.float32)
            if (own == 1).all():
                accumulator.insert(data, weights, rotations, band, view.scale, view.threads, which=chosen)
            else:
                part = data[chosen] * own, weights[chosen] * own
                accumulator.insert(*part, rotations[chosen], band, view.scale, view.threads)
            journal.n_projections += len(chosen)
    journal.n_outside += int((~good).sum())


def chosen_weights(
    dataset: Dataset, series: int, settings: RefineSettings, outcome: SeriesOutcome
) -> Optional[Union[ExposureWeights, ScoreWeights]]:
    """How the exposures of a refined series weigh in its map; None: by dose."""
    if settings.exposure_weighting == "measured":
        return outcome.weights
    scores = dataset.exposures["score"][dataset.exposures_of(series)]
    if settings.exposure_weighting == "score" and np.isfinite(scores).any():
        return ScoreWeights(scores, settings.score_fraction, settings.score_transition)
    return None  # the first iteration has no scores yet


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
