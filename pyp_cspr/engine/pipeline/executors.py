"""Who runs the chunks of an iteration: processes of this machine, a SLURM cluster, or MPI. One call, whoever does it.

    with make_executor("slurm", Resources(slurm=SlurmSettings(queue="cpu"))) as executor:
        refine(data, reference, out, executor=executor)

A chunk is its task file and nothing else, and its manifest is the only proof that it is done: what a process, a job or a
scheduler says about itself is not believed. So whoever was killed, the same call later finds what is missing.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, ContextManager, Dict, List, NamedTuple, Optional, Type

from ..errors import CsprError, InputError
from ..model.settings import Settings
from ..model.task import ChunkTask
from .chunk import Progress, no_progress, run_chunk_file
from .local import run_tasks
from .resources import check_machine, share_out
from .store import RunStore, read_json

EXECUTORS = ("local", "slurm", "mpi")
NAMED = 3  # failures that a message names

# (what is going on, projections) -> context with a progress function
Bar = Callable[[str, int], ContextManager[Progress]]


def no_bar(label: str, total: int) -> ContextManager[Progress]:
    """For callers that show none."""
    return nullcontext(no_progress)


@dataclass(frozen=True)
class SlurmSettings(Settings):
    """What a job array asks for. The names are PYP's ``slurm_`` keys without that word."""

    queue: str = ""  # partition; empty: the cluster's own choice
    account: str = ""
    walltime: str = "1-00:00:00"  # of one chunk: days-hours:minutes:seconds, hours:minutes:seconds, or minutes
    tasks: int = 1  # threads of a chunk
    memory_per_task: float = 4.0  # GB for each thread; 0: do not ask
    gres: str = ""
    max_cpus: int = 0  # of all chunks that run at a time; 0: no limit
    max_memory: float = 0.0  # GB, likewise
    retries: int = 2  # how often a chunk is submitted again

    def check(self, where: str = "settings") -> None:
        minutes(self.walltime, where)
        if self.tasks < 1:
            raise InputError(f"{where}: slurm tasks {self.tasks}; it must be at least 1")
        for name in ("memory_per_task", "max_cpus", "max_memory", "retries"):
            if getattr(self, name) < 0:
                raise InputError(f"{where}: slurm {name} {getattr(self, name):g}; it must be 0 or above")

    @property
    def memory(self) -> float:
        """GB of a chunk."""
        return self.tasks * self.memory_per_task

    def at_a_time(self) -> int:
        """How many chunks may run together; 0: no limit."""
        limits = []
        if self.max_cpus:
            limits.append(max(1, self.max_cpus // self.tasks))
        if self.max_memory and self.memory:
            limits.append(max(1, int(self.max_memory // self.memory)))
        return min(limits, default=0)


def minutes(walltime: str, where: str = "settings") -> int:
    """Whole minutes, at least 1, of SLURM's ways to write a time. Raises InputError."""
    days, dash, clock = walltime.strip().rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
        whole = int(days) if dash else 0
        if not 1 <= len(parts) <= 3 or min(parts) < 0 or whole < 0:
            raise ValueError
    except ValueError:
        raise InputError(f"{where}: walltime {walltime!r}; write days-hours:minutes:seconds, as 1-00:00:00") from None
    if days:
        hours, mins, seconds = (parts + [0, 0])[:3]
    else:
        hours, mins, seconds = {1: [0, parts[0], 0], 2: [0, *parts], 3: parts}[len(parts)]
    total = (whole * 24 + hours) * 60 + mins + (seconds + 59) // 60
    if total < 1:
        raise InputError(f"{where}: walltime {walltime!r} is no time at all; give at least a minute")
    return total


@dataclass(frozen=True)
class Resources:
    """What there is to compute with; 0 chooses. ``memory`` in GB for all processes of this machine together."""

    processes: int = 0
    threads: int = 0
    memory: float = 0.0
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    merge_threads: int = 0  # of the process that adds up what the chunks left


class Share(NamedTuple):
    """What one chunk may use."""

    threads: int
    memory: int  # bytes, of the projections in flight


class Executor:
    """Runs chunks. A context: what it started is ended when the context is left."""

    name = ""

    def __init__(self, resources: Resources) -> None:
        check_machine(resources.processes, resources.threads, resources.memory)
        self.resources = resources

    def run(self, store: RunStore, progress: Progress = no_progress) -> None:
        """Run the chunks of a plan that are not done; when this returns all their manifests are whole.

        ``progress`` is told of projections as they are done. Raises CsprError that names the chunks which failed for good,
        with the ends of their logs; those that finished are kept.
        """
        waiting = store.unfinished()
        for path in sorted(set(store.task_paths()) - set(waiting)):
            progress(read_task(path).n_projections)
        failed = self._dispatch(store, waiting, progress) if waiting else {}
        missing = store.unfinished()
        if missing:
            raise chunks_failed(store, missing, failed)

    def _dispatch(self, store: RunStore, waiting: List[Path], progress: Progress) -> Dict[Path, str]:
        """Run these tasks; why some failed, by task. May also raise at the first failure."""
        raise NotImplementedError

    def merge_threads(self, store: RunStore) -> int:
        """Threads for what comes after the chunks, in this process."""
        count, each, _ = share_out(0, self.resources.merge_threads or self.resources.threads, 0.0, 1)
        return count * each

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], where: Optional[TracebackType]
    ) -> None:
        """Nothing to end here."""


class LocalExecutor(Executor):
    """Processes of this machine, each of which takes the next chunk. The first failure ends the run."""

    name = "local"

    def _dispatch(self, store: RunStore, waiting: List[Path], progress: Progress) -> Dict[Path, str]:
        count, each, budget = self._share(store)
        run_tasks(waiting, count, each, budget, progress)
        return {}

    def _share(self, store: RunStore) -> Any:
        r = self.resources
        # By all chunks of the plan: a run that is resumed must not differ in its threads from one that is not.
        return share_out(r.processes, r.threads, r.memory, len(store.task_paths()))

    def merge_threads(self, store: RunStore) -> int:
        count, each, _ = self._share(store)
        return self.resources.merge_threads or int(count * each)


def make_executor(name: str, resources: Optional[Resources] = None) -> Executor:
    """The executor called "local", "slurm" or "mpi", to be used in a ``with`` statement.

    Under MPI only the first process goes on into the ``with`` block: the others serve it and then leave with SystemExit(0).
    Raises InputError where there is no such executor, or what it needs is not installed.
    """
    resources = resources or Resources()
    if name == "local":
        return LocalExecutor(resources)
    if name == "slurm":
        from .slurm import SlurmExecutor

        return SlurmExecutor(resources)
    if name == "mpi":
        from .mpi import MpiExecutor

        return MpiExecutor(resources)
    raise InputError(f"executor {name!r}; known: {', '.join(EXECUTORS)}")


def read_task(path: Path) -> ChunkTask:
    """The task of a file. Raises CsprError where it is none."""
    return ChunkTask.from_dict(read_json(path), str(path))


def run_quietly(path: str, share: Share) -> str:
    """Run a chunk; nothing, or why it failed in one line. Other exceptions are errors of the program and go up."""
    try:
        run_chunk_file(Path(path), share.threads, share.memory)
    except (CsprError, OSError) as error:
        return " ".join(str(error).split())
    return ""


def chunks_failed(store: RunStore, missing: List[Path], failed: Dict[Path, str]) -> CsprError:
    """One line about the chunks that are missing, and why as far as known."""
    texts = []
    for path in missing[:NAMED]:
        task = read_task(path)
        texts.append(f"{task.index:04d} ({', '.join(task.series)}): {failed.get(path, 'left no result')}")
    more = f"; and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    return CsprError(
        f"{store.folder}: {len(missing)} of {len(store.task_paths())} chunks failed: {'; '.join(texts)}{more}; start the "
        "command again, finished chunks are kept"
    )
