"""What the run folders of the protocols hold at this moment; a run may be going on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from ..engine.errors import CsprError
from ..engine.io.mrc import read_map
from ..engine.model.tables import Dataset, Table
from ..engine.pipeline.store import RunStore, read_json, read_rows

if TYPE_CHECKING:
    from ..engine.report.refinement import RefinementData

LAST = -1


class NotYet(Exception):
    """There is nothing to be seen so far; the message says what is waited for."""


def count_chunks(folder: Path) -> Tuple[int, int]:
    """(finished, planned) chunks of a run folder; (0, 0) where nothing is planned."""
    try:
        planned = len(RunStore(folder).plan()["chunks"])
    except CsprError:
        return 0, 0
    return len(list(folder.glob("chunks/*/manifest.json"))), planned


def stamp_of(folder: Path, pattern: str) -> Tuple[Tuple[str, int], ...]:
    """Names and times of the files of a pattern: another value means that there is something new."""
    found = []
    for path in sorted(folder.glob(pattern)):
        try:
            found.append((str(path), path.stat().st_mtime_ns))
        except OSError:
            continue  # a run that starts anew removes its files
    return tuple(found)


class RefinementRun:
    """The run folder of ``cspr refine``, which may not exist yet; ``planned`` iterations at most."""

    def __init__(self, folder: str, planned: int) -> None:
        self.folder, self.planned = Path(folder).absolute(), planned
        self._cache: Tuple[Any, Optional[RefinementData]] = ((), None)

    def stamp(self) -> Any:
        """Changes when an iteration is finished."""
        return stamp_of(self.folder, "iterations/*/summary.json") + stamp_of(self.folder, "summary.json")

    def store(self, iteration: int) -> RunStore:
        return RunStore(self.folder / "iterations" / f"{iteration:03d}")

    def finished(self) -> int:
        """How many iterations are whole, the start (0) included."""
        number = 0
        while self.store(number).finished() is not None:
            number += 1
        return number

    def state(self) -> str:
        """One sentence: what is done and what is going on."""
        if (self.folder / "summary.json").exists():
            summary = read_json(self.folder / "summary.json")
            reason = str(summary["reason"])
            return f"Finished after iteration {len(summary['iterations']) - 1}: {reason}."
        number = self.finished()
        done, planned = count_chunks(self.store(number).folder)
        parts = [] if number == 0 else [f"Iteration {number - 1} of at most {self.planned} is done."]
        if planned:
            name = "The reconstruction at the start" if number == 0 else f"Iteration {number}"
            parts.append(f"{name} is going on: {done} of {planned} chunks done.")
        return " ".join(parts) or "The refinement has not started yet."

    def data(self, iteration: int = LAST) -> RefinementData:
        """What the report of the run would tell, as of an iteration. Raises NotYet where it is not there."""
        from ..engine.pipeline.iterate import read_history
        from ..engine.pipeline.reporting import load_refinement

        number = self.finished()
        if not number:
            raise NotYet(self.state())
        if iteration >= number:
            raise NotYet(f"Iteration {iteration} is not done. {self.state()}")
        key = (self.stamp(), iteration)
        if self._cache[0] != key or self._cache[1] is None:
            last = number - 1 if iteration < 0 else iteration
            reason = read_json(self.folder / "summary.json")["reason"] if (self.folder / "summary.json").exists() else ""
            self._cache = (key, load_refinement(self.folder, read_history(self.folder, last), self.planned, reason))
        assert self._cache[1] is not None
        return self._cache[1]

    def maps(self, iteration: int = LAST) -> Path:
        """The folder of an iteration's maps. Raises NotYet."""
        number = self.finished()
        if not number or iteration >= number:
            raise NotYet(self.state())
        return self.store(number - 1 if iteration < 0 else iteration).folder


class ReconstructionRun:
    """The run folder of ``cspr reconstruct``, which may not exist yet."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).absolute()

    def stamp(self) -> Any:
        return stamp_of(self.folder, "summary.json")

    def state(self) -> str:
        """One sentence: what is done and what is going on."""
        if (self.folder / "summary.json").exists():
            return "Finished."
        done, planned = count_chunks(self.folder)
        return f"{done} of {planned} chunks done." if planned else "The reconstruction has not started yet."

    def summary(self) -> Dict[str, Any]:
        """Raises NotYet while the run is not whole."""
        found = RunStore(self.folder).finished()
        if found is None:
            raise NotYet(self.state())
        return found

    def dataset(self) -> Dataset:
        self.summary()
        return read_rows(RunStore(self.folder).result_path)

    def maps(self) -> Path:
        self.summary()
        return self.folder


def read_curves(folder: Path) -> Dict[str, NDArray[np.float64]]:
    """The four FSC curves ``(N//2+1,)`` of a run folder by name."""
    table = np.genfromtxt(folder / "fsc.csv", delimiter=",", names=True)
    return {name: table[name] for name in table.dtype.names or () if name not in ("shell", "resolution")}


def of_series(dataset: Dataset, row: int) -> Dataset:
    """The data set of one series alone."""

    def taken(table: Table, rows: NDArray) -> Table:
        part = table.take(rows)
        part["series"] = np.zeros(len(rows), part["series"].dtype)
        return part

    exposures, particles = dataset.exposures_of(row), dataset.particles_of(row)
    return Dataset(dataset.series.take(np.array([row])), taken(dataset.exposures, exposures),
                   taken(dataset.particles, particles), dataset.visible[particles, : len(exposures)], dataset.box,
                   dataset.box_pixel, {}, dataset.source)


def read_maps(folder: Path, *names: str) -> Tuple[List[NDArray[np.float32]], float]:
    """(the maps of those names, their pixel in angstrom) of a run folder."""
    read = [read_map(folder / f"{name}.mrc") for name in names]
    return [values for values, _ in read], float(read[0][1])


def chunk_text(store: RunStore, chunk: int, logs: Path, iteration: Optional[int] = None) -> str:
    """What is known about a chunk: its series, how far it is, its journal, and the log of its job where it had one.

    Raises NotYet where nothing of it is planned.
    """
    try:
        paths = store.task_paths()
    except CsprError:
        raise NotYet("No chunks are planned yet.") from None
    if not 0 <= chunk < len(paths):
        raise NotYet(f"There is no chunk {chunk}: the chunks are 0 to {len(paths) - 1}.")
    task = read_json(paths[chunk])
    lines = [f"Chunk {chunk}" + ("" if iteration is None else f" of iteration {iteration}"),
             f"Tilt series: {', '.join(task['series'])}"]
    path = store.chunk_folder(chunk) / "manifest.json"
    if path.exists():
        lines += ["State: done", "", *_journal_lines(read_json(path)["journal"])]
    else:
        lines.append("State: not done")
    log = logs / f"iteration_{iteration or 0:03d}_chunk_{chunk:04d}.log"
    if log.exists():
        lines += ["", f"Log of its job ({log.name}):", "", log.read_text(encoding="utf-8", errors="replace")]
    else:
        lines += ["", "It had no job of its own: its messages are in the protocol's log."]
    return "\n".join(lines) + "\n"


def _journal_lines(journal: Dict[str, Any]) -> List[str]:
    lines = [f"Projections: {journal['n_projections']:,}, of which {journal['n_outside']:,} outside their images",
             f"Peak memory: {journal['peak_memory_bytes'] / 1e9:.2f} GB", "Seconds:"]
    lines += [f"    {name:<10} {value:10.2f}" for name, value in journal["seconds"].items() if value >= 0.005]
    for entry in journal.get("refinement", ()):
        lines += ["", f"{entry['series']}: {entry['evaluations']} evaluations up to {entry['resolution']:.1f} A"]
        for stage in entry.get("stages", ()):
            cost = stage["cost"]
            lines.append(f"    to shell {stage['radius']:g}: cost {cost[0]:.6g} to {cost[-1]:.6g} in {len(cost)} steps, "
                         f"{stage['reason']}")
    return lines
