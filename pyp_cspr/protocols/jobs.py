"""Commands of the engine as jobs of the host: on this machine, or in its queue.

What the host does not see to itself: a job that failed looks as one that did not, so results are looked for; the queue may
not answer for a while; and where the protocol's process dies, its jobs in the queue go on. The number of each job is
therefore written down while it runs, in logs/jobs/NAME, and the next process waits for it instead of sending another one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Set

import psutil  # type: ignore[import-untyped]
from pwem.protocols import EMProtocol
from pyworkflow.protocol.constants import STATUS_NEW, STATUS_RUNNING
from pyworkflow.protocol.launch import _checkJobStatus

RETRY_WAIT = 15.0  # seconds; Stop cancels jobs one after another before it ends this process, which must not replace them
POLL = 5.0  # seconds, of a job that was found
PATIENCE = 1800.0  # seconds in which a queue may not answer
SILENT_QUEUE = re.compile(r"contact|connect|timed out|timeout|temporarily|unreachable|communicat", re.IGNORECASE)
TAIL = 8  # lines of a log in a message

# Each step is a thread. record: file for the number of its job; job: that number; start: when it was sent
_step = threading.local()


class EngineJobs(EMProtocol):
    """Runs commands of the engine as jobs."""

    def runEngine(self, *arguments: Any, output: str = "", log: str = "", threads: int = 1, name: str = "") -> None:
        """Run a command of the engine as a job of ``threads`` threads.

        Its standard output goes to the file ``output``, and what it says on the way to the file ``log``, if these are named.
        ``name`` is of this job alone, the command if it is not given: a job of that name that is in the queue since before
        this process started is waited for first.

        Raises RuntimeError with the engine's own one-line message where it fails. A job of a queue that fails looks as one
        that does not: callers must look for its results.
        """
        name = name or str(arguments[0])
        self.waitForEarlier(name)
        queued = self.useQueueForSteps()
        # Without a queue the job is a child of this process, and ends when it is gone.
        program = sys.executable if queued else f"exec {sys.executable}"
        command = "-m pyp_cspr.engine.cli " + ("" if queued else f"--end-with {os.getpid()} ")
        command += " ".join(shlex.quote(str(one)) for one in arguments)
        command += f" > {shlex.quote(output)}" if output else ""
        command += f" 2> {shlex.quote(log)}" if log else ""
        _step.record, _step.job, _step.start = self._record(name), None, time.time()
        try:
            self._submit(program, command, threads, queued)
        except RuntimeError as error:
            raise RuntimeError(self.lastError(log) or str(error)) from None
        finally:
            _step.record = None

    def _submit(self, program: str, command: str, threads: int, queued: bool) -> None:
        """Run a job to its end; a queue that does not answer is asked again for PATIENCE seconds."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.runJob(program, command, numberOfMpi=1, numberOfThreads=threads)
                return
            except Exception as error:  # noqa: BLE001 - whatever the host's executor raises
                silent = queued and _step.job is None and SILENT_QUEUE.search(str(error))
                if not silent or time.monotonic() > end:
                    raise RuntimeError(str(error)) from None
            self.warning(f"the queue does not answer; asking again in {RETRY_WAIT:g} s")
            time.sleep(RETRY_WAIT)

    def completeJob(self, done: Callable[[], bool], *arguments: Any, name: str, tries: int = 1, output: str = "", log: str = "",
                    threads: int = 1) -> None:
        """Run a job of the engine until ``done()``, ``tries`` times at most, as ``runEngine``; not at all where it is done.

        On this machine an error of the engine's own is the same the next time, so it is not tried again.
        Raises RuntimeError with what is known of the last job that failed.
        """
        self.waitForEarlier(name)
        if done():
            return
        for number in range(max(1, tries)):
            if number and self.useQueueForSteps():
                time.sleep(RETRY_WAIT)
            error = ""
            try:
                self.runEngine(*arguments, output=output, log=log, threads=threads, name=name)
            except RuntimeError as caught:
                error = str(caught)
            if done():
                return
            reason = self._why(log, error)
            self.warning(f"{name} left no result ({number + 1} of {max(1, tries)} tries): {reason}")
            if not self.useQueueForSteps() and self.lastError(log):
                break
        raise RuntimeError(f"after {number + 1} tries: {reason}" if number else reason)

    def _why(self, log: str, error: str) -> str:
        """Why a job left no result: the engine's own line or the host's, what the queue says, and the ends of the logs."""
        own = self.lastError(log)
        reasons = [own or error or "its job ended without a result (killed, cancelled or out of time)"]
        job = getattr(_step, "job", None)
        if job is not None:
            reasons += [f"job {job} of the queue{self._state(job)}"]
        tails = []
        for path in [log] + self._queueLogs():
            lines = tail(path)
            if lines and lines != [own]:
                tails.append(f"end of {path}:\n" + "\n".join(f"  {line}" for line in lines))
        return "\n".join(["; ".join(reasons)] + tails)

    def _state(self, job: int) -> str:
        """What the queue says about a job that has ended, if it still knows it."""
        host = self.getHostConfig()
        pattern = host.getJobDoneRegex()
        shown = subprocess.run(host.getCheckCommand() % {"JOB_ID": job}, shell=True, stdout=subprocess.PIPE, check=False)
        found = re.search(pattern, shown.stdout.decode(errors="replace")) if pattern else None
        return f": {found.group(0)}" if found else ""

    def _queueLogs(self) -> List[str]:
        """Where the queue's own messages about the last job of this step are, as in our hosts.conf."""
        step = getattr(threading.current_thread(), "thId", None)
        if getattr(_step, "job", None) is None or step is None:
            return []
        logs = Path(self._getLogsPath()).glob(f"*-{step}-*.err")
        return [str(path) for path in logs if path.stat().st_mtime >= _step.start - 1]  # others are of earlier processes

    def lastError(self, log: str = "") -> str:
        """The last error line of the engine in the file ``log``, or in the logs of the job and the protocol, or nothing."""
        for path in [log] if log else self._queueLogs() + [self.getStderrLog(), self.getStdoutLog()]:
            if path and os.path.exists(path):
                with open(path, errors="replace", encoding="utf-8") as stream:
                    lines = [line.strip() for line in stream if "cspr " in line and ": error: " in line]
                if lines:
                    return lines[-1]
        return ""

    def runForResult(self, path: str, *arguments: Any, **options: Any) -> Dict[str, Any]:
        """``runEngine`` for a command that leaves a JSON file at ``path``, which is returned.

        That of an earlier run is removed first: a job that fails must not look as if it had not.
        """
        remove(path)
        self.runEngine(*arguments, **options)
        return self.readResult(path)

    def readResult(self, path: str) -> Dict[str, Any]:
        """A JSON file that a finished command must have left. Raises RuntimeError where it did not."""
        result = whole_json(path)
        if result is None:
            reason = self.lastError() or "the job ended without a result: look for its log in the logs folder"
            raise RuntimeError(f"{path} is missing: {reason}")
        return result

    # --- earlier processes of this protocol ---------------------------------------------------------------------------

    def run(self) -> None:
        """Called by the host in the protocol's own process.

        One that has failed lives on while the jobs of other steps go on, and would then report its failure once more. It is
        ended if it does: its jobs in the queue are found again.
        """
        record = Path(self._getLogsPath("process.json"))
        earlier, own = whole_json(str(record)) or {}, psutil.Process()
        if earlier.get("host") == socket.gethostname() and earlier["pid"] != own.pid:
            try:
                process = psutil.Process(earlier["pid"])
                if process.create_time() == earlier["started"]:
                    process.kill()
            except psutil.Error:
                pass  # it has ended, as it should
        record.write_text(json.dumps({"host": socket.gethostname(), "pid": own.pid, "started": own.create_time()}),
                          encoding="utf-8")
        super().run()

    def loadSteps(self) -> List[Any]:
        """Called by the host for the steps of the last execution, to see what is done.

        It takes a step as done where its own arguments are the same. Here those that follow on a changed one are not done.
        """
        earlier: List[Any] = super().loadSteps()
        changed: Set[int] = set()
        for number, (old, new) in enumerate(zip(earlier, self._steps), start=1):
            if new != old or changed.intersection(int(one) for one in new.getPrerequisites()):
                changed.add(number)
                old.setStatus(STATUS_NEW)
        return earlier

    # --- jobs in the queue --------------------------------------------------------------------------------------------

    def _record(self, name: str) -> Path:
        return Path(self._getLogsPath("jobs", name))

    def appendJobId(self, jobId: Any) -> None:
        """Called by the host when a job has been submitted."""
        super().appendJobId(jobId)
        record: Optional[Path] = getattr(_step, "record", None)
        if record is not None:
            _step.job = jobId
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(f"{jobId}\n", encoding="utf-8")

    def removeJobId(self, jobId: Any) -> None:
        """Called by the host when a job has ended."""
        if jobId in self._jobId:
            super().removeJobId(jobId)
        record: Optional[Path] = getattr(_step, "record", None)
        if record is not None:
            record.unlink(missing_ok=True)

    def waitForEarlier(self, name: str) -> None:
        """Return when the job of this name that an earlier process of this protocol left in the queue, if any, has ended."""
        record = self._record(name)
        job = _number(record)
        if job is not None:
            self.info(f"{name} is job {job} of the queue already, sent by an earlier process: waiting for its end")
            _step.record = record
            self.appendJobId(job)
            self._store(self._jobId)
            while _checkJobStatus(self.getHostConfig(), job) == STATUS_RUNNING:
                time.sleep(POLL)
            self.removeJobId(job)
            self._store(self._jobId)
            _step.record = None

    def cancelEarlier(self) -> None:
        """Cancel all jobs that earlier processes of this protocol left in the queue, and wait for their ends."""
        for record in sorted(Path(self._getLogsPath("jobs")).glob("*")):
            job = _number(record)
            if job is not None:
                command = self.getHostConfig().getCancelCommand() % {"JOB_ID": job}
                subprocess.run(command, shell=True, check=False)
                self.waitForEarlier(record.name)

    def cleanWorkingDir(self) -> None:
        """Called by the host before a protocol starts anew."""
        for record in Path(self._getLogsPath("jobs")).glob("*"):
            job = _number(record)
            if job is not None:
                subprocess.run(self.getHostConfig().getCancelCommand() % {"JOB_ID": job}, shell=True, check=False)
        super().cleanWorkingDir()


def _number(record: Path) -> Optional[int]:
    """The job's number in a record, or None where there is no record."""
    try:
        return int(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def whole_json(path: str) -> Optional[Dict[str, Any]]:
    """The object of a JSON file, or None where it is missing or not whole."""
    try:
        with open(path, encoding="utf-8") as stream:
            values: Dict[str, Any] = json.load(stream)
    except (OSError, ValueError):
        return None
    return values


def remove(path: str) -> None:
    """Remove a file that may be there."""
    Path(path).unlink(missing_ok=True)


def tail(path: str) -> List[str]:
    """The last lines of a log; of a progress bar the last state."""
    if not path or not os.path.exists(path):
        return []
    with open(path, errors="replace", encoding="utf-8", newline="\n") as stream:
        lines = [line.rstrip().split("\r")[-1].strip() for line in stream]
    return [line for line in lines if line][-TAIL:]
