"""Refinement: reconstruct at the start poses, then iterate refine -> reconstruct until nothing changes any more.

RUN/refine.json is the plan. RUN/iterations/000 is the reconstruction at the start poses, 001 the first refinement; each is a
run folder of its own (``store.py``), so a killed refinement goes on in the chunk where it was. When all is done the last
iteration's results are RUN's own.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..core.filters import radial_filter, soft_mask
from ..core.geometry import rotation_angle
from ..errors import CsprError, InputError
from ..io.mrc import read_map
from ..model.settings import RefineSettings, of_iteration
from ..model.tables import Dataset
from ..model.task import MapGrid, content_hash
from ..reconstruct.postprocess import compare_halves
from .check import check_cube
from .claim import REFINEMENT, claim_run, remove_leftovers
from .executors import Bar, Executor, LocalExecutor, Resources, no_bar
from .merge import merge_run
from .plan import check_tasks_per_chunk, inputs_of, map_grid, plan_dataset, read_planned
from .reporting import read_tables, report_refinement
from .store import RunStore, hash_array, hash_rows, read_record, read_rows, write_atomic, write_json

OF_REFINEMENT = "refinement.npz"  # the reconstruction at the start poses has none
PUBLIC = ("map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "map_sharpened.mrc", "fsc.csv", "particles.star", "tomograms.star",
          "optimisation_set.star", "journal.json", "result.npz", OF_REFINEMENT)  # the optimisation set after what it names
UNKNOWN_RESOLUTION = 60.0  # angstrom, where half maps do not correlate at all
OF_THE_GRID = ("box", "pixel", "padding")  # settings that all iterations share
Given = Tuple[NDArray, List[NDArray], Optional[NDArray], str]  # reference, its half maps, mask or None, what was said of it


class Refinement:
    """One refinement run: its folder, its settings and where it is."""

    def __init__(self, out: str, values: Dict[str, Any], iterations: int) -> None:
        if iterations < 0:
            raise InputError(f"iterations {iterations}; it must be 0 or above")
        self.folder = Path(out).absolute()
        self.values, self.iterations = values, iterations
        for name in OF_THE_GRID:
            if isinstance(values.get(name), (list, tuple)):
                raise InputError(f"settings: {name} is a list; all iterations have one grid, so give one value")
        for iteration in range(1, max(iterations, 1) + 1):
            of_iteration(values, iteration)  # a list with a wrong value must fail now, not after hours

    def settings(self, iteration: int) -> RefineSettings:
        return of_iteration(self.values, max(iteration, 1))

    def store(self, iteration: int) -> RunStore:
        return RunStore(self.folder / "iterations" / f"{iteration:03d}")

    def summary(self, iteration: int) -> Dict[str, Any]:
        summary = self.store(iteration).finished()
        assert summary is not None  # iterations are asked for in turn
        return summary


def refine(
    data: str,
    reference: str,
    out: str,
    values: Optional[Dict[str, Any]] = None,
    iterations: int = 4,
    mask: str = "auto",
    tasks_per_chunk: int = 1,
    processes: int = 0,
    threads: int = 0,
    memory: float = 0.0,
    overwrite: bool = False,
    report: bool = True,
    bar: Optional[Bar] = None,
    chunks_elsewhere: bool = False,
    executor: Optional[Executor] = None,
    halves: Sequence[str] = (),
) -> Dict[str, Any]:
    """Refine poses and tilt geometry of a data set against a map; returns the summary. Called again, it resumes.

    ``values`` are RefineSettings by name, or lists of them by iteration; ``mask`` is "auto", "none", "sphere:RADIUS" in
    angstrom, or a map. The other arguments as in ``reconstruct``; ``executor`` says who runs the chunks, on this machine if
    it is not given.

    With ``chunks_elsewhere`` chunks are left to others: where some of an iteration are not done, what is returned is
    ``{"iteration": i, "tasks": [their task files]}``. Called again when they are done, it merges them and plans the next
    iteration, until it returns the summary.

    ``halves`` are the two half maps of the reference: then the first iteration as well refines each half-set against its own,
    and half-sets that were kept apart before stay so. The particles must have the half-sets of these maps.
    """
    check_tasks_per_chunk(tasks_per_chunk)
    run = Refinement(out, dict(values or {}), iterations)
    dataset = read_planned(data, bool(halves))
    grid = map_grid(dataset, run.settings(1))
    volume = read_reference(reference, grid)
    half_volumes = [read_reference(half, grid) for half in halves]
    given_mask = read_mask(mask, grid) if mask not in ("auto", "none") else None
    plan = {
        "program": __version__, "data": os.path.abspath(data), "reference": os.path.abspath(reference), "mask": mask,
        "settings": run.values, "tasks_per_chunk": tasks_per_chunk, "data_hash": hash_rows(dataset),
        "reference_hash": hash_array(volume), "mask_hash": None if given_mask is None else hash_array(given_mask),
    }
    if halves:
        plan["halves"] = [hash_array(half) for half in half_volumes]
    executor = executor or LocalExecutor(Resources(processes, threads, memory))
    inputs = [*inputs_of(data, dataset), reference, *halves, *([] if given_mask is None else [mask])]
    with claim_run(out, REFINEMENT, inputs, overwrite) as folder:
        _claim(folder, plan, overwrite)
        history: List[Dict[str, Any]] = []
        reason = ""
        while not reason:
            iteration = len(history)
            store = run.store(iteration)
            if (new := store.finished() is None):
                start = time.perf_counter()
                if not store.plan_path.exists():  # the plan of a run that was killed holds: refine.json is the same
                    if iteration == 0:
                        plan_dataset(store, dataset, grid, run.settings(1).reconstruction(), data, tasks_per_chunk)
                    else:
                        maps = (volume, half_volumes, given_mask, mask)
                        _plan_iteration(run, iteration, maps, map_grid(dataset, run.settings(iteration)), data, tasks_per_chunk)
                waiting = store.unfinished() if chunks_elsewhere else []
                if waiting:
                    return {"iteration": iteration, "tasks": [str(path) for path in waiting]}
                with (bar or no_bar)(_label(history, iterations), store.plan()["n_projections"]) as progress:
                    executor.run(store, progress)
                merge_run(store, executor.merge_threads(store), report=report, begun=None if chunks_elsewhere else start)
            history.append(_describe_change(run, iteration))
            reason = converged(history) or ("all iterations done" if iteration == iterations else "")
            if report and new and not reason:
                report_refinement(run.folder, history, iterations)
        return _publish(run, history, reason, report)


def _plan_iteration(run: Refinement, iteration: int, given: Given, grid: MapGrid, data: str, tasks_per_chunk: int) -> None:
    """Plan a refinement of the rows that the iteration before left, against its maps or those given."""
    volume, half_volumes, given_mask, mask = given
    previous, settings = run.store(iteration - 1), run.settings(iteration)
    limit = resolution_limit(settings, run.summary(iteration - 1), grid)
    if iteration == 1 and half_volumes and settings.half_references and not settings.same_reference:
        maps, share = masked_halves(half_volumes, _mask_of(volume, given_mask, mask, grid), grid)
    else:
        maps, share = references(run, iteration, volume, given_mask, mask, grid)
    rows = read_rows(previous.result_path)
    if iteration > 1:
        set_exposure_scores(rows, read_tables(previous, len(rows.series)))
    plan_dataset(run.store(iteration), rows, grid, settings, data, tasks_per_chunk, resolution=limit, references=maps,
                 reference_fsc=share.tolist())


def _label(history: Sequence[Dict[str, Any]], iterations: int) -> str:
    """What the progress bar of the next iteration says: also how long all that are left may take, once one was refined."""
    number = len(history)
    text = f"iteration {number} of {iterations}"
    if number < 2 or number == iterations:
        return text
    left = (iterations + 1 - number) * history[-1]["seconds"]
    return f"{text}, {left / 60:.0f} min to the end" if left > 60 else text


def read_reference(path: str, grid: MapGrid) -> NDArray[np.float32]:
    """The starting map, on the run's grid. Raises InputError where its box or pixel is another."""
    volume, pixel = read_map(path)
    check_cube(volume, path)
    if len(volume) != grid.box or abs(pixel - grid.pixel) > 1e-2 * grid.pixel:
        raise InputError(f"{path}: box {len(volume)} at {pixel:g} A/pixel, but the run's is {grid.box} at {grid.pixel:g}; "
                         "resample the map, or give its --box and --pixel")
    if not np.isfinite(volume).all() or volume.std() == 0:
        raise InputError(f"{path}: is empty or holds values that are not numbers; make the map again")
    return volume


def read_mask(path: str, grid: MapGrid) -> NDArray[np.float32]:
    """A mask on the run's grid: of a file, or a ball for "sphere:RADIUS". Raises InputError where it is not one."""
    if path.startswith("sphere:"):
        return _ball(path, grid)
    values, pixel = read_map(path)
    if values.shape != (grid.box,) * 3:
        raise InputError(f"{path}: {' x '.join(map(str, values.shape))} voxels, but the run's box is {grid.box}; make it again")
    if abs(pixel - grid.pixel) > 1e-2 * grid.pixel:
        raise InputError(f"{path}: {pixel:g} A/pixel, but the run's is {grid.pixel:g}; make it again, or mend its header")
    if values.min() < -1e-3 or values.max() > 1.001 or not values.max() > 0:
        raise InputError(f"{path}: values from {values.min():g} to {values.max():g}; a mask goes from 0 to 1")
    return values


def _ball(text: str, grid: MapGrid, edge: float = 5.0) -> NDArray[np.float32]:
    """1 within the radius, then a cosine of ``edge`` pixels to 0; all of it inside the box."""
    try:
        radius = float(text.partition(":")[2]) / grid.pixel
    except ValueError:
        radius = 0.0
    if not radius > 0:
        raise InputError(f"mask {text!r}: want sphere:RADIUS with a radius in angstrom above 0")
    axis = np.arange(grid.box) - grid.box // 2
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    ramp = np.clip((distance - min(radius, grid.box / 2 - 1 - edge)) / edge, 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * ramp)).astype(np.float32)


def resolution_limit(settings: RefineSettings, before: Dict[str, Any], grid: MapGrid) -> float:
    """Finest detail, angstrom, of an iteration: as set, or as far as the previous half maps' FSC supports it."""
    finest = grid.field / grid.radius
    if settings.resolution:
        return max(settings.resolution, finest)
    # Half maps that do not correlate may seem to in the first few shells, by chance.
    limit = min(before["resolution_supported"] or UNKNOWN_RESOLUTION, UNKNOWN_RESOLUTION)
    if settings.search_cone or settings.search_shift:
        limit = min(limit, settings.search_resolution)  # what is searched cannot have been aligned to begin with
    return float(max(limit, finest))


def references(
    run: Refinement, iteration: int, given: NDArray, given_mask: Optional[NDArray], mask: str, grid: MapGrid
) -> Tuple[List[NDArray[np.float32]], NDArray[np.float64]]:
    """What an iteration refines against: the given map first, then the previous half maps, masked and weighted by their FSC;
    and by shell the signal's share of their power, which is not known of the given map (empty)."""
    if iteration == 1 or run.settings(iteration).same_reference:
        shape = _mask_of(given, given_mask, mask, grid)
        return [np.ascontiguousarray(given * shape, dtype=np.float32)], np.empty(0)
    store = run.store(iteration - 1)
    curve = np.genfromtxt(store.folder / "fsc.csv", delimiter=",", names=True)["corrected"]
    # A half map's signal is FSC of its power; this is its Wiener filter.
    weight = np.clip(curve, 0.0, 1.0)
    weight[: min(3, len(weight))] = 1.0
    shape = np.ones((1, 1, 1), np.float32) if mask == "none" else read_map(store.folder / "mask.mrc")[0]
    shape = shape if given_mask is None else given_mask
    halves = run.settings(iteration).half_references
    names = ("half1", "half2") if halves else ("map",)
    maps = []
    for name in names:
        volume, _ = read_map(store.folder / f"{name}.mrc")
        filtered = radial_filter(volume, weight) if name != "map" else volume
        maps.append(np.ascontiguousarray(filtered * shape, dtype=np.float32))
    return maps, weight if halves else 2.0 * weight / (1.0 + weight)


def masked_halves(
    halves: Sequence[NDArray], shape: NDArray, grid: MapGrid
) -> Tuple[List[NDArray[np.float32]], NDArray[np.float64]]:
    """Half maps that somebody else made of these particles, as ``references`` has its own."""
    values = np.broadcast_to(shape, halves[0].shape)
    curve = compare_halves(halves[0], halves[1], grid.pixel, values).curves["corrected"]
    weight = np.clip(curve, 0.0, 1.0)
    weight[: min(3, len(weight))] = 1.0
    return [np.ascontiguousarray(radial_filter(half, weight) * shape, dtype=np.float32) for half in halves], weight


def _mask_of(volume: NDArray, given: Optional[NDArray], mask: str, grid: MapGrid) -> NDArray:
    if given is not None:
        return given
    return np.ones((1, 1, 1), np.float32) if mask == "none" else soft_mask(volume, grid.pixel).values


def _claim(folder: RunStore, plan: Dict[str, Any], overwrite: bool) -> None:
    """Write refine.json, or resume the same plan; refuse another one unless it may be overwritten."""
    path = folder.folder / "refine.json"
    plan = dict(plan, hash=content_hash(plan))
    if path.exists() and not overwrite:
        before = read_record(path, ("hash",), "give another --out, or --overwrite")
        if before["hash"] != plan["hash"]:
            made = before.get("program")
            which = "" if made == __version__ else f" (made by cspr {made}, this is {__version__})"
            raise InputError(f"{folder.folder}: holds a refinement of other data or settings{which}; give another --out, or "
                             "--overwrite")
        folder.clean()
        return
    if path.exists():
        remove_leftovers(folder.folder)
    shutil.rmtree(folder.folder / "iterations", ignore_errors=True)
    for name in ("summary.json", "report.html"):
        (folder.folder / name).unlink(missing_ok=True)
    write_json(path, plan)


def _describe_change(run: Refinement, iteration: int) -> Dict[str, Any]:
    """The iteration's summary with its limit and how far everything moved."""
    summary = run.summary(iteration)
    entry: Dict[str, Any] = {"iteration": iteration, "limit": None}
    entry.update({name: summary[name] for name in ("resolution_0143", "seconds")})
    if iteration == 0:
        return entry
    before, after = read_rows(run.store(iteration - 1).result_path), read_rows(run.store(iteration).result_path)
    entry["limit"] = run.store(iteration).plan()["resolution"]
    entry.update(changes(before, after))
    return entry


def read_history(folder: Path, last: int) -> List[Dict[str, Any]]:
    """What summary.json tells of the iterations 0 to ``last``, of a run that may be going on; they must be finished."""
    run = Refinement(str(folder), {}, 0)
    return [_describe_change(run, iteration) for iteration in range(last + 1)]


def set_exposure_scores(dataset: Dataset, tables: List[Dict[str, NDArray]]) -> None:
    """The mean score of each acquisition order over the whole data set, from 0 for the worst to 1 for the best, in place.

    ``tables`` are those of refinement.npz, by series: ``score`` (P, E).
    """
    orders = dataset.exposures["order"]
    total, count = np.zeros(orders.max() + 1), np.zeros(orders.max() + 1)
    for series in range(len(dataset.series)):
        score = tables[series].get("score")
        if score is not None:
            rows = dataset.exposures_of(series)
            np.add.at(total, orders[rows], np.nansum(score, axis=0))
            np.add.at(count, orders[rows], np.isfinite(score).sum(axis=0))
    seen = count > 0
    mean = np.full(len(total), np.nan)
    mean[seen] = total[seen] / count[seen]
    spread = np.ptp(mean[seen]) if seen.any() else 0.0
    mean[seen] = (mean[seen] - mean[seen].min()) / spread if spread > 0 else 1.0
    dataset.exposures["score"] = mean[orders]


def changes(before: Dataset, after: Dataset) -> Dict[str, float]:
    """Medians of how far poses and exposures moved, in degrees and angstrom, and of the particles' uncertainties.

    Of particles that have scores: those outside all images stay where they are, and only the priors know of them.
    """
    seen = np.isfinite(after.particles["score"])
    seen = seen if seen.any() else np.ones(len(seen), bool)
    old, new = before.particles.take(seen), after.particles.take(seen)
    turn = rotation_angle(old["rotation"], new["rotation"])
    move = np.linalg.norm(new["position"] - old["position"], axis=1)
    tilt = rotation_angle(before.exposures["rotation"], after.exposures["rotation"])
    shift = np.linalg.norm(after.exposures["shift"] - before.exposures["shift"], axis=1)
    sigma = np.median(new["sigma"], axis=0)
    return {
        "rotation": float(np.median(turn)), "position": float(np.median(move)), "tilt": float(np.median(tilt)),
        "shift": float(np.median(shift)), "sigma_rotation": float(sigma[0]), "sigma_position": float(sigma[1]),
        "score": float(np.nanmean(after.particles["score"])),
    }


def converged(history: List[Dict[str, Any]]) -> str:
    """Why to stop, or nothing: the limit did not get finer and poses moved by less than a third of their uncertainty."""
    if len(history) < 3:
        return ""
    last, previous = history[-1], history[-2]
    finer = (previous["limit"] - last["limit"]) / last["limit"]
    still = last["rotation"] < last["sigma_rotation"] / 3 and last["position"] < last["sigma_position"] / 3
    if finer < 0.02 and still:
        return (f"converged: the limit stays at {last['limit']:.1f} A and poses moved by {last['rotation']:.2f} deg and "
                f"{last['position']:.2f} A, less than a third of their uncertainty")
    return ""


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as content:
        write_atomic(target, lambda stream: shutil.copyfileobj(content, stream))


def _publish(run: Refinement, history: List[Dict[str, Any]], reason: str, report: bool) -> Dict[str, Any]:
    """Copy the last iteration's results to the run folder; summary.json last, and meanwhile there is none.

    What is there already is left as it is. Raises CsprError where the iteration has lost a file.
    """
    last = run.store(history[-1]["iteration"])
    stars = [f"tilt_series/{path.name}" for path in (last.folder / "tilt_series").glob("[!.]*.star")]
    names = [*stars, *PUBLIC]
    if not (last.folder / OF_REFINEMENT).exists() and len(history) == 1:
        names.remove(OF_REFINEMENT)
    done = RunStore(run.folder).finished()
    same = done is not None and done.get("iterations") == history and done.get("reason") == reason
    whole = same and all((run.folder / name).exists() for name in names)
    missing = [name for name in names if not (last.folder / name).exists()]
    if missing and not whole:
        raise CsprError(f"{last.folder / missing[0]}: is missing; delete {last.folder} and start the command again")
    if report and not (same and (run.folder / "report.html").exists()):
        report_refinement(run.folder, history, run.iterations, reason)
    if done is not None and whole:
        return done
    (run.folder / "summary.json").unlink(missing_ok=True)  # of fewer iterations
    (run.folder / "tilt_series").mkdir(exist_ok=True)
    (run.folder / OF_REFINEMENT).unlink(missing_ok=True)  # of more iterations, or of a run that this one replaced
    for name in names:
        _copy(last.folder / name, run.folder / name)
    summary = dict(run.summary(history[-1]["iteration"]), iterations=history, reason=reason, **_used(run, len(history)))
    write_json(run.folder / "summary.json", summary)
    return summary


def _used(run: Refinement, count: int) -> Dict[str, Any]:
    """Time, bytes and memory of all iterations."""
    every = [run.summary(iteration) for iteration in range(count)]
    used: Dict[str, Any] = {name: round(sum(one[name] for one in every), 3)
                            for name in ("seconds", "compute_seconds", "bytes_read", "bytes_written")}
    return dict(used, peak_memory_bytes=max(one["peak_memory_bytes"] for one in every))
