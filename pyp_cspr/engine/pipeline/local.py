"""Run chunks on this machine, over processes. A process that dies takes nothing with it but its chunk."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Dict, List

from ..errors import CsprError
from .chunk import Progress, no_progress, run_chunk_file

_progress_queue: Any = None


def run_tasks(
    paths: List[Path], processes: int, threads: int, memory: int, progress: Progress = no_progress
) -> List[Dict[str, Any]]:
    """Run task files; returns their manifests in order. Finished chunks are not run again.

    ``memory`` in bytes is for each process. Raises CsprError with the chunk's name where one fails.
    """
    if processes == 1 or len(paths) == 1:
        return [run_chunk_file(path, threads, memory, progress) for path in paths]
    context = multiprocessing.get_context("spawn")
    counts = context.Queue()
    pool = ProcessPoolExecutor(processes, context, _start_worker, (os.getpid(), counts))
    futures = {pool.submit(_work, path, threads, memory): path for path in paths}
    try:
        manifests = _collect(futures, counts, progress)
    except BaseException:
        for future in futures:
            future.cancel()
        # A worker that was killed may have held a lock that the others wait for; what they leave half-done is done again.
        for process in multiprocessing.active_children():
            process.kill()
        pool.shutdown()  # all are dead, so it takes no time; not waiting, Python 3.8 prints a traceback at exit
        raise
    # Nothing is left to do, so this takes no time; without waiting, Python 3.8 leaves workers that its exit then waits for.
    pool.shutdown()
    return [manifests[path] for path in paths]


def _collect(futures: Dict[Future[Dict[str, Any]], Path], counts: Any, progress: Progress) -> Dict[Path, Dict[str, Any]]:
    manifests: Dict[Path, Dict[str, Any]] = {}
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
        _drain(counts, progress)
        for future in done:
            path = futures[future]
            try:
                manifests[path] = future.result()
            except BrokenProcessPool:
                raise CsprError(
                    f"{path}: its process died (killed, or out of memory: try fewer --processes or less --memory); "
                    "start the command again, finished chunks are kept"
                ) from None
    _drain(counts, progress)
    return manifests


def _drain(counts: Any, progress: Progress) -> None:
    while True:
        try:
            progress(counts.get_nowait())
        except queue.Empty:
            return


def _start_worker(parent: int, counts: Any) -> None:
    global _progress_queue
    _progress_queue = counts
    counts.cancel_join_thread()  # progress that nobody reads any more must not keep a worker from ending
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    """A killed parent cannot stop its workers, so they look for it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(path: Path, threads: int, memory: int) -> Dict[str, Any]:
    return run_chunk_file(path, threads, memory, _progress_queue.put)
