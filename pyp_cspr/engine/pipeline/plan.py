"""Cut a data set into chunks of whole series: one task file each."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..core.ctf import phase_offset, wavelength
from ..core.weighting import common_weight
from ..errors import InputError
from ..io.mrc import write_map
from ..io.relion import find_files, find_tilt_stars, read_dataset
from ..model.settings import ReconstructSettings
from ..model.tables import Dataset
from ..model.task import TASK_VERSION, ChunkTask, MapGrid, content_hash
from .claim import RECONSTRUCTION, claim_run, remove_leftovers
from .extract import source_pixel
from .selection import choose_for_map, projections_of_map, score_limits
from .store import RunStore, hash_array, hash_rows, write_json, write_rows


def map_grid(dataset: Dataset, settings: ReconstructSettings) -> MapGrid:
    """Box and pixel of the map: the settings', else what the data say. Raises InputError where neither says."""
    finest = min(source_pixel(dataset, row) for row in range(len(dataset.series)))
    pixel = settings.pixel or dataset.box_pixel or finest
    if pixel < finest * (1 - 1e-3):
        raise InputError(f"pixel {pixel:g} A is finer than the images' {finest:g} A; give --pixel {finest:g} or more")
    box = settings.box
    if not box and dataset.box:
        box = 2 * int(round(dataset.box * (dataset.box_pixel or finest) / pixel / 2))
    if not box:
        raise InputError("the data do not say how large a particle's box is; give --box PIXELS")
    for row, name in enumerate(dataset.series["name"]):
        size = dataset.series["image_size"][row]
        if not dataset.is_stacks(row) and box * pixel > size.min() * dataset.series["pixel"][row]:
            raise InputError(f"series {name}: box {box} x {pixel:g} A is larger than its images ({size[0]} x {size[1]} pixels)")
    padded = 2 * int(round(box * settings.padding / 2))
    radius = int(box) // 2 - 1
    if settings.map_resolution:
        radius = int(np.clip(box * pixel / settings.map_resolution, 4, radius))
    return MapGrid(int(box), float(pixel), padded, radius)


def chunk_dataset(dataset: Dataset, series: List[int]) -> Dataset:
    """Only these series, renumbered, with their exposures and particles."""
    order = {row: new for new, row in enumerate(series)}
    exposures = dataset.exposures.take(np.isin(dataset.exposures["series"], series))
    chosen = dataset.select_particles(np.isin(dataset.particles["series"], series))
    for table in (exposures, chosen.particles):
        table["series"] = [order[row] for row in table["series"]]
    return Dataset(dataset.series.take(series), exposures, chosen.particles, chosen.visible, dataset.box, dataset.box_pixel,
                   chosen.extra, dataset.source)


@contextmanager
def planned_run(
    data: str, out: str, settings: ReconstructSettings, tasks_per_chunk: int = 1, overwrite: bool = False
) -> Iterator[RunStore]:
    """Read the data, write a task per chunk, and the plan last; the run's folder, which no other command can enter.

    A folder that already holds the same plan is left as it is, so that a run resumes; one that holds another plan, a
    refinement or files of others is refused, or replaced with ``overwrite``.
    """
    dataset = read_planned(data)
    grid = map_grid(dataset, settings)
    check_tasks_per_chunk(tasks_per_chunk)
    with claim_run(out, RECONSTRUCTION, inputs_of(data, dataset), overwrite) as store:
        yield plan_dataset(store, dataset, grid, settings, data, tasks_per_chunk, overwrite)


def plan_run(
    data: str, out: str, settings: ReconstructSettings, tasks_per_chunk: int = 1, overwrite: bool = False
) -> RunStore:
    """``planned_run``, whose chunks others run."""
    with planned_run(data, out, settings, tasks_per_chunk, overwrite) as store:
        return store


def inputs_of(data: str, dataset: Dataset) -> List[str]:
    """Paths of a data set that must not be written over."""
    folder, stars = data if os.path.isdir(data) else os.path.dirname(data) or ".", find_files(dataset.source)
    return [folder, *stars, *find_tilt_stars(stars[1])]


def read_planned(data: str, need_halves: bool = False) -> Dataset:
    """The data set, checked, every particle in a half-set. Raises InputError where, with ``need_halves``, it does not say the
    half-set of every particle.
    """
    dataset = read_dataset(data)
    dataset.validate()
    if need_halves and not dataset.particles["half"].all():
        raise InputError(f"{data}: has particles without a half-set (rlnRandomSubset), so half maps belong to none; leave out "
                         "the half maps")
    dataset.assign_halves()
    halves = set(dataset.particles["half"].tolist())
    if len(halves) == 1 and len(dataset.particles) > 1:
        raise InputError(f"{data}: all particles are in half-set {halves.pop()} (rlnRandomSubset), so there is nothing to "
                         "compare the map with; add the others, or leave that column out")
    return dataset


def check_tasks_per_chunk(count: int) -> None:
    """Raise InputError where a chunk would hold nothing."""
    if count < 1:
        raise InputError(f"tasks per chunk {count}; it must be at least 1")


def plan_dataset(
    store: RunStore,
    dataset: Dataset,
    grid: MapGrid,
    settings: ReconstructSettings,
    data: str,
    tasks_per_chunk: int = 1,
    overwrite: bool = False,
    resolution: float = 0.0,
    references: Sequence[NDArray] = (),
    reference_fsc: Sequence[float] = (),
) -> RunStore:
    """``plan_run`` of a data set at hand. With ``references`` (one map, or one for each half-set) the chunks refine first, with
    detail to ``resolution`` (angstrom). ``reference_fsc``: by shell, the signal's share of references made of these data."""
    check_tasks_per_chunk(tasks_per_chunk)
    store.create()
    store.clean()
    with_particles = [row for row in range(len(dataset.series)) if len(dataset.particles_of(row))]
    groups = [with_particles[i : i + tasks_per_chunk] for i in range(0, len(with_particles), tasks_per_chunk)]
    parts = [chunk_dataset(dataset, group) for group in groups]
    hashes = tuple(hash_array(volume) for volume in references)
    share = tuple(float(value) for value in reference_fsc)
    scores = score_limits(dataset, settings)
    common = common_weight_of(dataset, grid, settings, scores)
    tasks = [_task(index, part, grid, settings, resolution, hashes, share, scores, common) for index, part in enumerate(parts)]
    plan = _plan_document(data, dataset, grid, settings, tasks)
    if os.path.exists(store.plan_path) and not overwrite:
        if store.plan()["hash"] != plan["hash"]:
            raise InputError(f"{store.folder}: holds a run of other data or settings; give another --out, or --overwrite")
        return store
    if os.path.exists(store.plan_path):
        remove_leftovers(store.folder)
    for name in ("run.json", "summary.json"):
        (store.folder / name).unlink(missing_ok=True)
    for number, volume in enumerate(references, start=1):
        write_map(store.reference_path(number), volume, grid.pixel)
    write_rows(store.dataset_path, dataset)
    for task, part in zip(tasks, parts):
        write_rows(store.rows_path(task.index), part)
        write_json(store.task_path(task.index), task.to_dict())
    write_json(store.plan_path, plan)
    return store


def _task(
    index: int, part: Dataset, grid: MapGrid, settings: ReconstructSettings, resolution: float, references: Tuple[str, ...],
    reference_fsc: Tuple[float, ...], scores: Dict[str, float], common: Tuple[float, ...],
) -> ChunkTask:
    choice = choose_for_map(part, settings, scores)
    used = sum(int(projections_of_map(part, row, settings, choice).sum()) for row in range(len(part.series)))
    names = tuple(str(name) for name in part.series["name"])
    return ChunkTask(index, names, used, grid, settings.to_dict(), hash_rows(part), bool(references), resolution, references,
                     reference_fsc, scores, common)


def common_weight_of(
    dataset: Dataset, grid: MapGrid, settings: ReconstructSettings, scores: Dict[str, float]
) -> Tuple[float, ...]:
    """What makes the weights of all chunks even, from the CTFs of what makes the map (``core.weighting.common_weight``)."""
    choice = choose_for_map(dataset, settings, scores)
    exposures, optics = dataset.exposures, dataset.series
    series = exposures["series"]
    number = np.zeros(len(series))
    for row in range(len(optics)):
        number[dataset.exposures_of(row)] = projections_of_map(dataset, row, settings, choice).sum(axis=0)
    curve = common_weight(
        grid.field, grid.radius, exposures["defocus"][:, :2].mean(axis=1),
        phase_offset(optics["amplitude_contrast"][series], exposures["phase_shift"]),
        np.array([wavelength(voltage) for voltage in optics["voltage"]])[series], optics["cs"][series], number,
    )
    return tuple(float(f"{value:.6g}") for value in curve)


def _plan_document(
    data: str, dataset: Dataset, grid: MapGrid, settings: ReconstructSettings, tasks: List[ChunkTask]
) -> Dict[str, Any]:
    document: Dict[str, Any] = {
        "version": TASK_VERSION,
        "program": __version__,
        "data": os.path.abspath(data),
        "grid": {"box": grid.box, "pixel": grid.pixel, "padded": grid.padded, "radius": grid.radius},
        "settings": settings.to_dict(),
        "refine": bool(tasks and tasks[0].refine),
        "resolution": tasks[0].resolution if tasks else 0.0,
        "n_series": len(dataset.series),
        "n_particles": len(dataset.particles),
        "n_projections": sum(task.n_projections for task in tasks),
        "chunks": [{"index": t.index, "series": list(t.series), "n_projections": t.n_projections} for t in tasks],
        "hash": content_hash([task.hash for task in tasks]),
    }
    return document
