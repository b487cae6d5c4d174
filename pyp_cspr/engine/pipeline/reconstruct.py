"""Plan, run and merge in one call: the whole reconstruction of a data set."""

from __future__ import annotations

import time
from typing import Any, Dict, Optional

from ..model.settings import ReconstructSettings
from .chunk import Progress, no_progress
from .executors import Executor, LocalExecutor, Resources
from .merge import merge_run
from .plan import plan_run
from .store import RunStore, write_json


def reconstruct(
    data: str,
    out: str,
    settings: ReconstructSettings,
    tasks_per_chunk: int = 1,
    processes: int = 0,
    threads: int = 0,
    memory: float = 0.0,
    overwrite: bool = False,
    keep_sums: bool = False,
    report: bool = True,
    progress: Progress = no_progress,
    executor: Optional[Executor] = None,
) -> Dict[str, Any]:
    """Half maps, map, FSC and stars in the folder ``out``; returns the summary. Called again, it resumes.

    ``memory`` in GB for all processes together; 0 chooses, as for ``processes`` and ``threads``. ``executor`` says who runs the
    chunks instead of processes of this machine.
    """
    start = time.perf_counter()
    store: RunStore = plan_run(data, out, settings, tasks_per_chunk, overwrite)
    executor = executor or LocalExecutor(Resources(processes, threads, memory))
    finished = store.finished()
    if finished is not None:
        return finished
    executor.run(store, progress)
    summary = merge_run(store, executor.merge_threads(store), keep_sums, report)
    summary["seconds"] = round(time.perf_counter() - start, 3)
    write_json(store.folder / "summary.json", summary)
    return summary
