"""One chunk in the foreground, and its particles' projections one by one, as pictures and tables.

DIR/
  start/            at the poses that the task begins with
    PARTICLE.png    a sheet for each chosen particle (``report/figures_debug.py``)
    PARTICLE.csv    the same in numbers, a line for each exposure
    SERIES.png      the correlation of all chosen particles of a series together, by exposure
    scores.csv      a line for each chosen particle, with what its score would be if a sign were another
  refined/          the same after the refinement, where the task refines
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.projection import Reference
from ..errors import CsprError, InputError
from ..io.mrc import read_map
from ..model.settings import ReconstructSettings, RefineSettings
from ..model.tables import Dataset
from ..model.task import ChunkTask
from .check import check_cube
from .chunk import REFERENCE_PADDING, Progress, no_progress, read_references, run_chunk
from .debug_views import COLUMNS, SeriesView, Setup
from .refine_series import magnified, refinement_grid
from .store import RunStore, hash_rows, read_json, read_rows, write_atomic

SHOWN = 8  # exposures on a sheet
Say = Callable[[str], None]


class Particle(NamedTuple):
    series: int
    row: int  # among its series' particles


def quiet(text: str) -> None:
    """For callers that show nothing."""


def debug_chunk(
    path: Path,
    folder: Path,
    particles: Sequence[str] = ("3",),
    reference: str = "",
    threads: int = 1,
    memory: int = 2 * 1024**3,
    say: Say = quiet,
    progress: Progress = no_progress,
) -> List[str]:
    """Run the task of a file and show chosen particles' projections in ``folder``; the files' paths.

    ``particles`` are names, or one number: that many, evenly from the chunk. The chunk is always computed, and its result is
    kept where there was none. A task that only reconstructs has no reference, so ``reference`` (a map) must be given. Raises
    InputError for particles that the chunk does not have and a reference that does not fit, CsprError for a damaged task.
    """
    path = Path(path).absolute()
    task = ChunkTask.from_dict(read_json(path), str(path))
    store = RunStore(path.parent.parent)
    dataset = read_rows(path.with_suffix(".npz"))
    if hash_rows(dataset) != task.rows_hash:
        raise CsprError(f"{path.with_suffix('.npz')}: is not what the task was planned with; plan the run again")
    chosen = choose(dataset, particles)
    kind = "refines and reconstructs" if task.refine else "reconstructs"
    say(f"task {task.index:04d} {kind}: {len(dataset.series)} series, {len(dataset.particles)} particles, "
        f"{task.n_projections} projections, box {task.grid.box} at {task.grid.pixel:g} A")
    wider = magnified(task.settings, dataset)
    settings, resolution, references = _references(store, task, reference, threads, wider)
    grid = refinement_grid(task.grid, resolution)
    setup = Setup(dataset, references, settings, grid, threads, memory)
    files = show(setup, chosen, folder / "start", say)
    given = read_references(store, task, threads, wider) if task.refine else ()
    sums, journal, outcomes = run_chunk(task, dataset, threads, memory, progress, given)
    for stage, seconds in journal.seconds.items():
        say(f"  {stage}: {seconds:.2f} s")
    say(f"  {journal.n_projections} projections inserted, {journal.n_outside} outside their images")
    for outcome in outcomes:
        for stage in outcome.report["stages"]:
            cost = stage["cost"]
            say(f"  series {outcome.report['series']}: to {grid.field / stage['radius']:.3g} A: cost {cost[0]:.6g} -> "
                f"{cost[-1]:.6g} in {stage['evaluations']} evaluations ({stage['reason']})")
    if store.manifest(task) is None:
        store.write_chunk(task, sums, journal.to_dict(), dataset if task.refine else None, outcomes)
        say(f"  result: {store.chunk_folder(task.index)}")
    if task.refine:
        files += show(setup, chosen, folder / "refined", say)
    return files


def choose(dataset: Dataset, wanted: Sequence[str]) -> List[Particle]:
    """The particles of these names, or that many, evenly from the table. Raises InputError."""
    names = [str(name) for name in dataset.particles["name"]]
    if len(wanted) == 1 and wanted[0].isdigit() and wanted[0] not in names:
        count = min(int(wanted[0]), len(names))
        if count < 1:
            raise InputError("--particles 0: nothing to show; give a number above 0, or names")
        rows = np.unique(np.linspace(0, len(names) - 1, count).astype(int)).tolist()
    else:
        unknown = next((name for name in wanted if name not in names), None)
        if unknown is not None:
            raise InputError(f"particle {unknown!r} is not in this chunk, whose first is {names[0]!r}; see the particles star")
        rows = [names.index(name) for name in wanted]
    series = dataset.particles["series"]
    return [Particle(int(series[row]), int(np.searchsorted(dataset.particles_of(int(series[row])), row))) for row in rows]


def _references(
    store: RunStore, task: ChunkTask, reference: str, threads: int, wider: bool
) -> Tuple[ReconstructSettings, float, List[Reference]]:
    """Settings, the finest detail looked at (angstrom), and the maps to compare with."""
    if task.refine and not reference:
        settings: ReconstructSettings = RefineSettings.from_dict(task.settings, f"task {task.index}")
        return settings, task.resolution, read_references(store, task, threads, wider)
    if not reference:
        raise InputError(f"task {task.index:04d} only reconstructs and has no reference; give --reference MAP")
    volume, pixel = read_map(reference)
    check_cube(volume, reference)
    if len(volume) != task.grid.box or abs(pixel - task.grid.pixel) > 1e-2 * task.grid.pixel:
        raise InputError(f"{reference}: box {len(volume)} at {pixel:g} A, but the task's is {task.grid.box} at "
                         f"{task.grid.pixel:g}; resample the map")
    resolution = task.resolution or max(20.0, 3.0 * pixel)
    names = RefineSettings if task.refine else ReconstructSettings
    radius = refinement_grid(task.grid, resolution).radius
    return names.from_dict(task.settings), resolution, [Reference(volume, REFERENCE_PADDING, radius, threads=threads)]


def show(setup: Setup, chosen: Sequence[Particle], folder: Path, say: Say = quiet) -> List[str]:
    """Write sheets and tables; their paths."""
    from ..report.figures_debug import exposure_sheet, particle_sheet, verdict  # drawing is slow to import
    from ..report.html import figure_png

    folder.mkdir(parents=True, exist_ok=True)
    files: List[str] = []
    scores: List[Dict[str, Any]] = []

    def write(name: str, content: bytes) -> None:
        write_atomic(folder / name, lambda stream: stream.write(content))
        files.append(str(folder / name))

    for series in sorted({particle.series for particle in chosen}):
        view = SeriesView(setup, series)
        everything = []
        for particle in chosen:
            if particle.series != series:
                continue
            sheet, raw, sigma = view.sheet(particle.row)
            if sheet is None:
                say(f"  particle {particle.row} of {view.name} lies outside all images")
                continue
            everything.append((raw, sigma, [row["tilt"] for row in sheet.rows]))
            count = len(sheet.rows)
            rows = np.unique(np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int)).tolist()
            stem = _safe(sheet.name)
            write(f"{stem}.png", figure_png(particle_sheet(sheet, rows), dpi=110))
            write(f"{stem}.csv", _table(COLUMNS, sheet.rows))
            scores.append({"particle": sheet.name, "series": sheet.series, **sheet.alternatives})
            say(f"  {sheet.name}: {verdict(sheet)}")
        if everything:
            maps, tilts = _by_tilt(everything)
            figure = exposure_sheet(maps, tilts, view.pixel, len(everything))
            write(f"{_safe(view.name)}.png", figure_png(figure, dpi=110))
    if scores:
        write("scores.csv", _table(max((list(one) for one in scores), key=len), scores))
    return files


def _by_tilt(everything: List[Tuple[NDArray, NDArray, List[float]]]) -> Tuple[NDArray, List[float]]:
    """Particles' correlations added for each tilt angle, in standard deviations; the angles in order."""
    tilts = sorted({tilt for _, _, angles in everything for tilt in angles})
    size = everything[0][0].shape[-1]
    total, variance = np.zeros((len(tilts), size, size)), np.zeros(len(tilts))
    for raw, sigma, angles in everything:
        places = np.searchsorted(tilts, angles)
        total[places] += raw
        variance[places] += sigma**2
    return total / np.sqrt(np.maximum(variance, 1e-30))[:, None, None], tilts


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-+" else "_" for letter in name).lstrip(".") or "particle"


def _table(columns: Sequence[str], rows: Sequence[Dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {name: row.get(name, "") for name in columns}
        writer.writerow({name: f"{cell:.7g}" if isinstance(cell, float) else cell for name, cell in cells.items()})
    return text.getvalue().encode()
