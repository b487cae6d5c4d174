"""Chunks as SLURM job arrays, submitted through submitit.

The command itself waits, and merges when the array is done, instead of a dependent job: an iteration cannot be planned before
the last one is merged; a job that depends on an array with ``afterok`` never starts once an element has failed, and with
``afterany`` starts with what there is; and many clusters do not let jobs submit jobs. It asks ``squeue`` at growing
intervals, and sleeps in between. Run it in a job of its own where the head node does not like long commands.

RUN/slurm/jobs.json says which job has which chunk, so that a command that was killed finds its jobs again. ``sacct`` is not
needed: a job that is not in the queue any more is over, and only the manifest says how it went.
"""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

from ..errors import CsprError, InputError
from .chunk import Progress
from .executors import Executor, Resources, Share, SlurmSettings, minutes, read_task, run_quietly
from .resources import GIB
from .store import RunStore, read_json, write_json

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two looks at the queue
SETTLE = 6.0  # seconds in which a shared file system shows what a job wrote last
ANSWER = 20.0  # seconds that the controller may take where nothing depends on it yet
OUTAGE = 1800.0  # seconds in which the controller may not answer
LOG_LINES = 3  # of a failed job's log in the message
HELD = "launch failed requeued held"  # SLURM's reason for a job that will not start any more


class ChunkJob:
    """What an element of the array runs. submitit queues it again where the cluster preempts it."""

    def __init__(self, share: Share) -> None:
        self.share = share

    def __call__(self, path: str) -> str:
        return run_quietly(path, self.share)

    def checkpoint(self, path: str) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, path)


class SlurmExecutor(Executor):
    """Job arrays, an element for each chunk; what is missing is submitted again, ``retries`` times."""

    name = "slurm"

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        for program in ("sbatch", "squeue", "scancel", "srun"):
            if shutil.which(program) is None:
                raise InputError(f"executor slurm: no {program} on the PATH; start the command where jobs can be submitted")
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise InputError("executor slurm: submitit is not installed; pip install submitit") from None

    def _dispatch(self, store: RunStore, waiting: List[Path], progress: Progress) -> Dict[Path, str]:
        return _Array(store, self.resources, progress).run(waiting)


class _Array:
    """The jobs of one plan."""

    def __init__(self, store: RunStore, resources: Resources, progress: Progress) -> None:
        self.store, self.progress = store, progress
        self.settings: SlurmSettings = resources.slurm
        threads = resources.threads or self.settings.tasks
        memory = resources.memory or 0.5 * (self.settings.memory or 4.0)  # half is left to the sums and the program
        self.share = Share(threads, int(memory * GIB))
        self.folder = store.folder / "slurm"
        self.jobs_path = self.folder / "jobs.json"
        self.jobs: Dict[Path, str] = {}  # submitted, and not known to be over
        self.last: Dict[Path, str] = {}  # the last job of each
        self.tries: Dict[Path, int] = {}
        self.told: Set[Path] = set()  # whose projections ``progress`` knows of
        self.silent_since: Optional[float] = None

    def run(self, waiting: List[Path]) -> Dict[Path, str]:
        """Returns when each of these is done or has failed for good; why the latter failed, by task."""
        self.folder.mkdir(exist_ok=True)
        self._find_again(waiting)
        missing, failed = list(waiting), {}
        try:
            while missing:
                self._submit([path for path in missing if path not in self.jobs])
                self._wait()
                missing = self._settled(missing)
                for path in list(missing):
                    reason = self._failed_for_good(path)
                    if reason:
                        failed[path] = reason
                        missing.remove(path)
        except KeyboardInterrupt:
            self._cancel(list(self.jobs.values()))  # killed otherwise, the jobs go on and are found again
            raise
        return failed

    # --- submitting ---------------------------------------------------------------------------------------------------

    def _find_again(self, waiting: List[Path]) -> None:
        """Jobs of a command that was killed, as far as they are still in the queue."""
        if not self.jobs_path.exists():
            return
        queue = None
        while queue is None:
            queue = self._queue_or_wait()
        known = read_json(self.jobs_path)
        for path in waiting:
            job = known.get(path.name, {"id": ""})
            if job["id"] not in queue:
                continue
            if job["task_hash"] == read_task(path).hash:
                self.jobs[path] = self.last[path] = job["id"]
                self.tries[path] = 1
            else:
                self._cancel([job["id"]])  # of a run that this one replaced

    def _submit(self, paths: List[Path]) -> None:
        """As few arrays as the cluster's largest size allows."""
        size = _largest_array()
        for start in range(0, len(paths), size):
            part = paths[start : start + size]
            for path, job in zip(part, self._submit_array(part)):
                self.jobs[path] = self.last[path] = job
                self.tries[path] = self.tries.get(path, 0) + 1
            self._write_jobs()

    def _submit_array(self, paths: List[Path]) -> List[str]:
        import submitit

        s = self.settings
        # Time that is up is no reason to start over: the chunk is submitted again by us, and counted.
        executor = submitit.SlurmExecutor(folder=str(self.folder), max_num_timeout=0)
        extra: Dict[str, Any] = {"requeue": True}  # without which a preempted job cannot be queued again
        known: Dict[str, Any] = {
            "job_name": f"cspr-{self.store.folder.name}", "time": minutes(s.walltime), "cpus_per_task": self.share.threads,
            "stderr_to_stdout": True, "use_srun": False, "array_parallelism": s.at_a_time() or len(paths),
            "partition": s.queue or None, "account": s.account or None, "gres": s.gres or None,
            "mem": f"{max(1, round(s.memory * 1024))}M" if s.memory else None,
        }
        try:
            executor.update_parameters(additional_parameters=extra, **{k: v for k, v in known.items() if v is not None})
            jobs = executor.map_array(ChunkJob(self.share), [str(path) for path in paths])
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
            reason = " ".join(str(error).split())[-300:]
            raise CsprError(f"{self.store.folder}: SLURM refuses the job array ({reason}); mend the slurm settings") from None
        return [str(job.job_id) for job in jobs]

    def _write_jobs(self) -> None:
        known = read_json(self.jobs_path) if self.jobs_path.exists() else {}
        known.update({path.name: {"id": job, "task_hash": read_task(path).hash} for path, job in self.jobs.items()})
        write_json(self.jobs_path, known)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Until no job of ours is in the queue any more. Manifests that appear are told to ``progress``."""
        pause = FIRST_PAUSE
        while self.jobs:
            queue = self._queue_or_wait()
            # A chunk that is whole needs its job no more, even if that is slow to leave the queue.
            for path in [path for path in self.jobs if self._whole(path)]:
                del self.jobs[path]
                self._tell(path)
                pause = FIRST_PAUSE
            if queue is not None:
                held = [job for job in self.jobs.values() if queue.get(job) == HELD]
                self._cancel(held)
                self.jobs = {path: job for path, job in self.jobs.items() if job in queue and job not in held}
            if self.jobs:
                time.sleep(pause)
                pause = min(1.3 * pause, LONGEST_PAUSE)

    def _tell(self, path: Path) -> None:
        if path not in self.told:
            self.told.add(path)
            self.progress(read_task(path).n_projections)

    def _settled(self, missing: List[Path]) -> List[Path]:
        """Those of the tasks that are still not whole after the file system has settled."""
        end = time.monotonic() + SETTLE
        left = [path for path in missing if not self._whole(path)]
        while left and time.monotonic() < end:
            time.sleep(0.5)
            left = [path for path in left if not self._whole(path)]
        for path in set(missing) - set(left):
            self._tell(path)
        return left

    def _whole(self, path: Path) -> bool:
        return self.store.manifest(read_task(path)) is not None

    def _queue_or_wait(self) -> Optional[Dict[str, str]]:
        """Our jobs in the queue, None where the controller does not answer. Raises CsprError when that lasts too long."""
        queue = read_queue()
        if queue is not None:
            self.silent_since = None
            return queue
        self.silent_since = self.silent_since or time.monotonic()
        if time.monotonic() - self.silent_since > OUTAGE:
            raise CsprError(f"{self.store.folder}: SLURM has not answered for {OUTAGE / 60:.0f} minutes; start the command "
                            "again when it does, its jobs are found again")
        time.sleep(FIRST_PAUSE)
        return None

    def _cancel(self, jobs: List[str]) -> None:
        for start in range(0, len(jobs), 100):
            subprocess.run(["scancel", *jobs[start : start + 100]], capture_output=True, timeout=120, check=False)

    # --- failures -----------------------------------------------------------------------------------------------------

    def _failed_for_good(self, path: Path) -> str:
        """Why a task is given up, or nothing if it is to be submitted again."""
        said = self._answer(path)
        if said:
            return said  # the chunk itself says what is wrong: the next try would say the same
        if self.tries[path] <= self.settings.retries:
            return ""
        log = self._log(path)
        lines = " | ".join(_tail(log)) or "its log is empty"
        return f"job {self.last[path]} left no result after {self.tries[path]} tries ({log}: {lines})"

    def _log(self, path: Path) -> Path:
        return self.folder / f"{self.last[path]}_0_log.out"

    def _answer(self, path: Path) -> str:
        """What the chunk returned: an error in one line, an exception of the program, or nothing."""
        result = self._log(path).with_name(f"{self.last[path]}_0_result.pkl")
        if not result.exists():
            return ""
        from submitit.core.utils import pickle_load

        kind, value = pickle_load(result)  # of our own job, in our own folder
        return str(value) if kind == "success" else " | ".join(str(value).strip().splitlines()[-LOG_LINES:])


def _tail(log: Path) -> List[str]:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip()][-LOG_LINES:]


def read_queue() -> Optional[Dict[str, str]]:
    """Reason by id (12 or 12_3) of this user's jobs that wait or run; None where SLURM does not answer."""
    try:
        shown = subprocess.run(["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i|%r"],
                               capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if shown.returncode:
        return None
    rows = [line.split("|", 1) for line in shown.stdout.splitlines() if "|" in line]
    return {job.strip(): reason.strip() for job, reason in rows}


def cluster_answers() -> bool:
    """Whether the controller of a cluster answers now; False where SLURM is installed but there is no cluster."""
    try:
        done = subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=ANSWER, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


def _largest_array() -> int:
    """SLURM's MaxArraySize (1001 where it does not say), which is one more than the largest index."""
    shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", shown.stdout)
    return max(1, min(int(found.group(1)) if found else 1001, 1000))
