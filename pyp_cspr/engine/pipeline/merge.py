"""Add the chunks' partial sums in a fixed order and write the run's public files."""

from __future__ import annotations

import csv
import io
import os
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..core.insertion import Accumulator
from ..core.symmetry import group_matrices
from ..errors import CsprError, InputError
from ..io.mrc import write_map
from ..io.relion import write_dataset
from ..model.settings import ReconstructSettings, RefineSettings
from ..model.tables import Dataset
from ..model.task import ChunkTask, MapGrid
from ..reconstruct.finalise import Finalised, finalise
from .chunk import merge_journals
from .reporting import read_tables
from .resources import peak_memory
from .store import RunStore, read_json, read_rows, write_arrays, write_atomic, write_json, write_rows


def merge_run(
    store: RunStore, threads: int = 1, keep_sums: bool = False, report: bool = True, begun: Optional[float] = None
) -> Dict[str, Any]:
    """Merge a run whose chunks are all finished; returns its summary. A merged run is left as it is.

    ``begun`` is the time (``perf_counter``) from which its seconds count. Where others ran the chunks that is not known, and
    its seconds are what was computed. Raises CsprError naming the chunks that are missing.
    """
    done = store.finished()
    if done is not None:
        return done
    start = time.perf_counter()
    plan = store.plan()
    grid = store.grid()
    kind = RefineSettings if plan["refine"] else ReconstructSettings
    settings = kind.from_dict(plan["settings"], str(store.plan_path))
    tasks = [ChunkTask.from_dict(read_json(path), str(path)) for path in store.task_paths()]
    manifests = [store.manifest(task) for task in tasks]
    missing = [task for task, manifest in zip(tasks, manifests) if manifest is None]
    if missing:
        names = ", ".join(f"{task.index:04d} ({', '.join(task.series)})" for task in missing[:5])
        raise CsprError(f"{store.folder}: {len(missing)} of {len(tasks)} chunks are not finished: {names}; run them first")
    if not any(manifest["journal"]["n_projections"] for manifest in manifests if manifest is not None):
        raise InputError(f"{plan['data']}: no projection makes the map: all lie outside their images, are not visible or weigh "
                         "nothing; look at the data with `cspr check`")
    store.clean(chunks=True)  # they are all done
    dataset = merge_rows(store, tasks) if plan["refine"] else read_rows(store.dataset_path)
    halves = add_sums(store, tasks, grid, settings.symmetry, threads)
    if isinstance(settings, RefineSettings) and settings.exposure_weighting == "measured":
        level = common_level(read_tables(store, len(dataset.series)))
        for half in halves:
            half.sums[:, :2] *= level  # the numerator
    added = time.perf_counter()
    result = finalise(halves[0], halves[1], grid.pixel, seed=settings.seed, threads=threads)
    finalised = time.perf_counter()
    write_rows(store.result_path, dataset)
    written = write_maps(store.folder, result, grid.pixel)
    write_dataset(dataset, store.folder)
    journals = [manifest["journal"] for manifest in manifests if manifest is not None]
    total = merge_journals(journals)
    total["seconds"].update(add=added - start, finalise=finalised - added, write=time.perf_counter() - finalised)
    journal = {"finalise": result.journal, "chunks": journals, "total": total}
    written += write_json(store.folder / "journal.json", journal)
    summary = _summary(plan, dataset, result, total, settings)
    if report:
        from ..report.run import write_run_report  # drawing is slow to import and not every caller draws

        written += write_run_report(store.folder / "report.html", dataset, result, grid, summary, journal)
    chunk_bytes = sum(size for manifest in manifests if manifest is not None for size in manifest["files"].values())
    summary["bytes_written"] = int(written + chunk_bytes + _size_of_stars(store.folder))
    summary["compute_seconds"] = round(sum(total["seconds"].values()), 3)
    summary["seconds"] = summary["compute_seconds"] if begun is None else round(time.perf_counter() - begun, 3)
    summary["peak_memory_bytes"] = max(total["peak_memory_bytes"], peak_memory())
    write_json(store.folder / "summary.json", summary)
    if not keep_sums:
        store.remove_sums()
    return summary


def merge_rows(store: RunStore, tasks: List[ChunkTask]) -> Dataset:
    """The planned data set with the rows that the chunks refined; their outcomes are gathered in refinement.npz.

    There the arrays of series i (row of the data set) are named ``i.score`` and so on (``SeriesOutcome.tables``).
    """
    dataset = read_rows(store.dataset_path)
    row_of = {str(name): row for row, name in enumerate(dataset.series["name"])}
    gathered: Dict[str, np.ndarray] = {}
    for task in tasks:
        part, outcomes = store.read_refined(task.index)
        for series, outcome in enumerate(outcomes):
            row = row_of[str(part.series["name"][series])]
            for name in ("deformation_grid", "defocus_grid"):
                dataset.series[name][row] = part.series[name][series]
            for name in ("position", "rotation", "score", "sigma", "defocus_offset"):
                dataset.particles[name][dataset.particles_of(row)] = part.particles[name][part.particles_of(series)]
            for name in ("rotation", "shift", "defocus", "phase_shift", "deformation", "magnification", "defocus_field",
                         "sigma"):
                dataset.exposures[name][dataset.exposures_of(row)] = part.exposures[name][part.exposures_of(series)]
            gathered.update({f"{row}.{name}": values for name, values in outcome.items()})
    write_arrays(store.refinement_path, gathered)
    return dataset


def common_level(tables: Sequence[Dict[str, NDArray]]) -> float:
    """The median of the series' levels, of those that have projections; ``tables`` as in refinement.npz.

    Levels are in units of the reference, so sums weighted by them make a map in its scale. Times this number it is in that
    of the images, whatever the reference's was, and does not drift from iteration to iteration.
    """
    levels = [float(table["level"]) for table in tables if table and np.isfinite(table["score"]).any()]
    return float(np.median(levels)) if levels else 1.0


def add_sums(
    store: RunStore, tasks: List[ChunkTask], grid: MapGrid, symmetry: str, threads: int = 1
) -> Tuple[Accumulator, Accumulator]:
    """Both half-sets' sums over all chunks, in float64, in the order of the chunks, and their symmetry applied."""
    halves = []
    matrices = group_matrices(symmetry)
    for half in (1, 2):
        total = store.read_sum(tasks[0].index, half, grid)
        for task in tasks[1:]:
            total.add(store.read_sum(task.index, half, grid))
        if len(matrices) > 1:
            total.symmetrise(matrices, threads)
        halves.append(total)
    return halves[0], halves[1]


def write_maps(folder: Path, result: Finalised, pixel: float) -> int:
    """The maps, the mask and fsc.csv; returns the bytes written."""
    maps = {"half1": result.half1, "half2": result.half2, "map": result.map, "mask": result.mask}
    maps["map_sharpened"] = result.sharpened
    written = 0
    for name, volume in maps.items():
        path = folder / f"{name}.mrc"
        write_map(path, volume, pixel)
        written += path.stat().st_size
    return written + write_fsc(folder / "fsc.csv", result.curves, pixel * len(result.map))


def write_fsc(path: Path, curves: Dict[str, Any], field: float) -> int:
    """fsc.csv: shell, resolution (A) and the four curves."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("unmasked", "masked", "phase_randomised", "corrected")
    writer.writerow(("shell", "resolution") + names)
    for shell in range(len(curves["unmasked"])):
        resolution = f"{field / shell:.4f}" if shell else "inf"
        writer.writerow([shell, resolution] + [f"{curves[name][shell]:.6f}" for name in names])
    return write_atomic(path, lambda stream: stream.write(text.getvalue().encode()))


def supported_resolution(curve: NDArray, mask: NDArray, pixel: float, symmetry: str) -> Optional[float]:
    """Where the FSC falls to what half maps of noise may well reach, or to 0.143 if that is more, angstrom; None: at once.

    The FSC of noise has a standard deviation of 1 / sqrt(n), n the independent coefficients of the shell: its 2 pi k^2, times
    the part of the box that the mask holds, over the order of the point group. Twice that is asked for, 0.8 at most. In low
    shells 0.143 is within the noise, and a refinement that goes that far would align noise with noise.
    """
    box = len(mask)
    shells = np.arange(len(curve))
    independent = 2.0 * np.pi * shells**2 * float(mask.mean(dtype=np.float64)) / len(group_matrices(symmetry))
    threshold = np.clip(2.0 / np.sqrt(np.maximum(independent, 1e-3)), 0.143, 0.8)
    below = np.flatnonzero((curve < threshold) & (shells > 0))
    last = int(below[0]) - 1 if len(below) else len(curve) - 1
    return float(box * pixel / last) if last > 0 else None


def _size_of_stars(folder: Path) -> int:
    return sum(path.stat().st_size for pattern in ("*.star", "tilt_series/*.star") for path in folder.glob(pattern))


def _summary(
    plan: Dict[str, Any], dataset: Dataset, result: Finalised, total: Dict[str, Any], settings: ReconstructSettings
) -> Dict[str, Any]:
    resolution = float(result.resolution_0143)
    return {
        "resolution_0143": resolution if np.isfinite(resolution) else None,
        "resolution_supported": supported_resolution(result.curves["corrected"], result.mask, result.pixel, settings.symmetry),
        "n_series": len(dataset.series),
        "n_particles": len(dataset.particles),
        "n_projections": total["n_projections"],
        "n_outside": total["n_outside"],
        "box": plan["grid"]["box"],
        "pixel": plan["grid"]["pixel"],
        "symmetry": settings.symmetry,
        "b_factor": result.b_factor,
        "bytes_read": total["bytes_read"],
        "version": __version__,
        "seed": settings.seed,
        "data": plan["data"],
        "stack_bytes_not_written": int(plan["n_projections"] * plan["grid"]["box"] ** 2 * 4),
        "machine_cores": os.cpu_count(),
    }
