"""Chunks over MPI: ``mpirun -n 5 cspr refine ... --executor mpi``. The first process leads, the others take chunks.

A worker that dies takes the whole MPI job with it, as MPI wants; started again, the command goes on where it was.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, Optional, Type

from ..errors import InputError
from .chunk import Progress
from .executors import Executor, Resources, Share, read_task, run_quietly
from .resources import GIB, available_memory, cores
from .store import RunStore


def mpi_size() -> int:
    """How many processes mpirun has started together with this one, by what it leaves in the environment; else 1."""
    sizes = [os.environ.get(name, "") for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")]
    return max([int(size) for size in sizes if size.isdigit()], default=1)


class MpiExecutor(Executor):
    """The processes of an MPI job. Entering its context is where all but the first one serve until that one leaves it."""

    name = "mpi"

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        try:
            from mpi4py import MPI, futures
        except (ImportError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"executor mpi: mpi4py cannot be loaded ({reason}); install it and an MPI library") from None
        world = MPI.COMM_WORLD
        if world.Get_size() < 2:
            raise InputError("executor mpi: one process only; start it as mpirun -n N cspr ..., N at least 2")
        self.share = _share(resources, world.Split_type(MPI.COMM_TYPE_SHARED).Get_size(), world.Get_rank())
        self._context = futures.MPICommExecutor(world, root=0)
        self._pool: Any = None

    def __enter__(self) -> Executor:
        self._pool = self._context.__enter__()  # the workers stay in here
        if self._pool is None:
            self._context.__exit__(None, None, None)
            raise SystemExit(0)
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], where: Optional[TracebackType]
    ) -> None:
        self._context.__exit__(kind, error, where)

    def _dispatch(self, store: RunStore, waiting: List[Path], progress: Progress) -> Dict[Path, str]:
        from concurrent.futures import as_completed

        if self._pool is None:
            raise ValueError("an MPI executor is used in a with statement")
        running = {self._pool.submit(run_quietly, str(path), self.share): path for path in waiting}
        failed = {}
        for future in as_completed(running):
            path = running[future]
            error = future.result()
            if error:
                failed[path] = error
            else:
                progress(read_task(path).n_projections)
        return failed


def _share(resources: Resources, on_node: int, rank: int) -> Share:
    """Threads and memory of one worker where ``on_node`` processes share the machine; the leader only waits."""
    workers = max(1, on_node - 1 if rank == 0 else on_node)
    threads = resources.threads or max(1, cores() // workers)
    memory = resources.memory * GIB if resources.memory else 0.5 * available_memory()
    return Share(threads, int(memory / workers))
