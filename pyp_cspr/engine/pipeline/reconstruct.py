"""Plan, run and merge in one call: the whole reconstruction of a data set."""

from __future__ import annotations

import time
from typing import Any, Dict, Optional

from ..model.settings import ReconstructSettings
from .executors import Bar, Executor, LocalExecutor, Resources, no_bar
from .merge import merge_run
from .plan import planned_run


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
    bar: Optional[Bar] = None,
    executor: Optional[Executor] = None,
) -> Dict[str, Any]:
    """Half maps, map, FSC and stars in the folder ``out``; returns the summary. Called again, it resumes.

    ``memory`` in GB for all processes together; 0 chooses, as for ``processes`` and ``threads``. ``executor`` says who runs the
    chunks instead of processes of this machine; ``bar`` shows how far they are.
    """
    start = time.perf_counter()
    executor = executor or LocalExecutor(Resources(processes, threads, memory))
    with planned_run(data, out, settings, tasks_per_chunk, overwrite) as store:
        finished = store.finished()
        if finished is not None:
            return finished
        with (bar or no_bar)("reconstruct", store.plan()["n_projections"]) as progress:
            executor.run(store, progress)
        return merge_run(store, executor.merge_threads(store), keep_sums, report, start)
