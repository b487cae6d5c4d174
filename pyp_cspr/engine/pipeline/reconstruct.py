"""Plan, run and merge in one call: the whole reconstruction of a data set."""

from __future__ import annotations

import time
from typing import Any, Dict

from ..model.settings import ReconstructSettings
from .chunk import Progress, no_progress
from .local import run_tasks
from .merge import merge_run
from .plan import plan_run
from .resources import share_out
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
) -> Dict[str, Any]:
    """Half maps, map, FSC and stars in the folder ``out``; returns the summary. Called again, it resumes.

    ``memory`` in GB for all processes together; 0 chooses, as for ``processes`` and ``threads``.
    """
    start = time.perf_counter()
    store: RunStore = plan_run(data, out, settings, tasks_per_chunk, overwrite)
    paths = store.task_paths()
    count, each, budget = share_out(processes, threads, memory, len(paths))
    finished = store.finished()
    if finished is not None:
        return finished
    run_tasks(paths, count, each, budget, progress)
    summary = merge_run(store, count * each, keep_sums, report)
    summary["seconds"] = round(time.perf_counter() - start, 3)
    write_json(store.folder / "summary.json", summary)
    return summary
