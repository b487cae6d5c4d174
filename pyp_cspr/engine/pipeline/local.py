"""Run chunks on this machine, over processes. A process that dies takes nothing with it but its chunk.

Each worker has a pipe of its own and nothing else in common with the others: no lock that a killed one could leave locked.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from ..errors import CsprError
from .chunk import Progress, no_progress, run_chunk_file


class _Worker(NamedTuple):
    process: Any  # of a spawn context
    pipe: Connection


def run_tasks(
    paths: List[Path], processes: int, threads: int, memory: int, progress: Progress = no_progress
) -> List[Dict[str, Any]]:
    """Run task files; returns their manifests in order. Finished chunks are not run again.

    ``memory`` in bytes is for each process. Raises CsprError with the chunk's name where one fails.
    """
    if processes == 1 or len(paths) <= 1:
        return [run_chunk_file(path, threads, memory, progress) for path in paths]
    context = multiprocessing.get_context("spawn")
    workers: List[_Worker] = []
    try:
        for _ in range(min(processes, len(paths))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
            with _deaf_to_ctrl_c():
                process.start()
            theirs.close()  # so that the end of the worker is the end of the pipe
            workers.append(_Worker(process, ours))
        return _share_out(paths, workers, threads, memory, progress)
    finally:
        for worker in workers:
            worker.pipe.close()
            worker.process.kill()
        for worker in workers:
            worker.process.join()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is started here never hears of Ctrl-C, which goes to all processes of a terminal: this one ends the others.

    A worker would say so with a traceback, from whatever it is importing. Here the signal only waits.
    """
    resource_tracker.ensure_running()  # starting it would let the signal through again
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _share_out(
    paths: List[Path], workers: List[_Worker], threads: int, memory: int, progress: Progress
) -> List[Dict[str, Any]]:
    """Give each worker a path, and the next one as soon as it is done."""
    manifests: Dict[Path, Dict[str, Any]] = {}
    waiting = list(paths)
    busy: Dict[Connection, Path] = {}
    for worker in workers:
        _send(worker.pipe, waiting.pop(0), threads, memory, busy)
    while busy:
        for pipe in wait(list(busy)):
            assert isinstance(pipe, Connection)
            path = busy[pipe]
            try:
                kind, value = pipe.recv()
            except (EOFError, OSError):
                raise _died(path) from None
            if kind == "progress":
                progress(value)
            elif kind == "failed":
                raise value
            else:
                manifests[path] = value
                del busy[pipe]
                if waiting:
                    _send(pipe, waiting.pop(0), threads, memory, busy)
    return [manifests[path] for path in paths]


def _send(pipe: Connection, path: Path, threads: int, memory: int, busy: Dict[Connection, Path]) -> None:
    try:
        pipe.send((path, threads, memory))
    except OSError:
        raise _died(path) from None
    busy[pipe] = path


def _died(path: Path) -> CsprError:
    return CsprError(
        f"{path}: its process died (killed, or out of memory: try fewer --processes or less --memory); "
        "start the command again, finished chunks are kept"
    )


def _serve(pipe: Connection, parent: int) -> None:
    """Run what comes through the pipe until it ends."""
    leave_with_parent(parent)

    def progress(count: int) -> None:
        pipe.send(("progress", count))

    while True:
        try:
            path, threads, memory = pipe.recv()
            answer: Tuple[str, Any] = "done", run_chunk_file(path, threads, memory, progress)
        except (EOFError, BrokenPipeError):
            return
        except (CsprError, OSError) as error:
            answer = "failed", error
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            import traceback

            answer = "failed", RuntimeError(f"{error!r} in a worker\n{traceback.format_exc()}")
        pipe.send(answer)


def leave_with_parent(parent: int) -> None:
    """End this process when its parent ends: one that is killed cannot stop its children, so they look for it."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
