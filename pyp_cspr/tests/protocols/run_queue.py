"""Refinement of the sample in a project of the host while things go wrong; prints what was seen. Run as a program:

python run_queue.py FOLDER mishaps|killed|local

mishaps: a job for each chunk in the queue; a job is cancelled, another one's data are away for a while, the controller is
stopped for a minute, a node dies. killed: the protocol's process is killed while its jobs are in the queue and the run is
continued; then stopped and continued; then its data are away for good, and come back. local: the protocol's process is
killed while the engine runs on this machine, and the run is continued; then twice more, with the defocus refined and not.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import psutil
from run_workflow import SAMPLE, launch, point
from slurm import Job, Slurm

QUEUE = {"QUEUE_CPUS": "1", "JOB_TIME": "00:10:00", "JOB_MEMORY": "500", "QUEUE_FOR_JOBS": "Y"}
LIMIT = 150.0  # seconds, of any one wait


class Driver:
    """A project with the sample, and a refinement of it."""

    def __init__(self, queue: bool, **values: Any) -> None:
        import pyworkflow as pw
        from pyworkflow.project import Manager

        pw.Config.getDomain().getPlugins()
        from pyp_cspr.protocols import ProtPypCsprRefine, ProtPypCsprSample

        self.slurm = Slurm(Path(os.environ["SLURM_CONF"]).parent) if queue else None
        self.project = Manager().createProject("queue" if queue else "local")
        os.chdir(self.project.path)
        sample = launch(self.project, self.project.newProtocol(ProtPypCsprSample, objLabel="sample", **SAMPLE))
        self.data = Path(self.project.path, sample.getWorkingDir(), "extra", "data")
        self.stack = Path(os.path.realpath([ts.getFirstItem().getFileName() for ts in sample.tiltSeries][1]))
        self.protocol: Any = self.project.newProtocol(ProtPypCsprRefine, objLabel="refine", iterations=1, resolution="40",
                                                      checkHand=False, binThreads=1, **values)
        for name, output in (("inputParticles", "subTomograms"), ("inputTiltSeries", "tiltSeries"), ("inputCTFs", "ctfs"),
                             ("inputReference", "reference")):
            point(self.protocol, name, sample, output)
        if queue:
            self.protocol._useQueue.set(True)
            self.protocol.setQueueParams(["debug", QUEUE])
        self.seen: Dict[str, str] = {}  # number -> what
        self.resumed = 0

    # --- the protocol -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.project.launchProtocol(self.protocol, wait=False)
        self.run = Path(self.project.path, self.protocol.getWorkingDir(), "extra", "refine")

    def resume(self) -> None:
        """What the button Continue does."""
        from pyworkflow.protocol import MODE_RESUME

        self.protocol.runMode.set(MODE_RESUME)
        self.start()
        self.resumed += 1

    def is_active(self) -> bool:
        self.project._updateProtocol(self.protocol)
        return bool(self.protocol.isActive())

    def finish(self) -> str:
        """Wait for the end; its status."""
        until("the end", lambda: not self.jobs_seen() and not self.is_active())
        return str(self.protocol.getStatus())

    def processes(self) -> List[Any]:
        """All that work in this project's folder, but this process."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            words = " ".join(process.info["cmdline"] or [])
            inside = str(self.project.path) in words or "pyp_cspr.engine.cli" in words or "spawn_main" in words
            if inside and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
                try:
                    if process.cwd() == str(self.project.path):
                        found.append(process)
                except psutil.Error:
                    continue
        return found

    def kill(self) -> List[str]:
        """SIGKILL to the protocol's own process, and to nothing else. Returns what of it is left after some seconds."""
        self.project._updateProtocol(self.protocol)
        psutil.Process(int(self.protocol.getPid())).kill()
        until("the host to notice", lambda: not self.is_active())
        time.sleep(2)
        return [" ".join(one.cmdline()) for one in self.processes() if "slurmstepd" not in " ".join(one.cmdline())]

    # --- its jobs -----------------------------------------------------------------------------------------------------

    def jobs_seen(self) -> List[Job]:
        jobs = self.slurm.jobs() if self.slurm else []
        for job in jobs:
            self.seen.setdefault(job.number, what(job))
        return jobs

    def job(self, name: str, state: str = "", besides: str = "") -> Callable[[], Optional[Job]]:
        """A condition: a job of this name in the queue, in that state."""

        def look() -> Optional[Job]:
            for job in self.jobs_seen():
                if what(job) == name and job.number != besides and state in ("", job.state):
                    return job
            assert self.is_active(), f"{self.protocol.getStatus()}: {self.protocol.getErrorMessage()}"
            return None

        return look

    def planned(self, iteration: int) -> Callable[[], bool]:
        path = self.run.parent / f"plan_{iteration:03d}.json"
        return lambda: path.exists() and path.read_text().endswith("}\n")

    def engine(self, name: str) -> Any:
        """The process that computes a chunk; None where there is none."""
        import psutil

        for process in psutil.process_iter(["cmdline", "cwd"]):
            words = process.info["cmdline"] or []
            if "chunk" in words[:-1] and process.info["cwd"] and os.path.samefile(process.info["cwd"], self.project.path):
                path = Path(words[words.index("chunk") + 1])
                if f"{int(path.parent.parent.name)} {int(path.stem)}" == name:
                    return process
        return None

    def manifests(self) -> Dict[str, int]:
        """When each chunk was finished: its results' times."""
        return {str(path.relative_to(self.run)): path.stat().st_mtime_ns
                for path in self.run.glob("iterations/*/chunks/*/manifest.json")}

    def log(self) -> str:
        return Path(self.project.path, self.protocol.getStdoutLog()).read_text(errors="replace")

    def result(self, **more: Any) -> None:
        values = {"status": self.protocol.getStatus(), "error": str(self.protocol.getErrorMessage()), "seen": self.seen,
                  "folder": str(self.run.parent.parent), "data": str(self.data),
                  "outputs": sorted(name for name, _ in self.protocol.iterOutputAttributes()), **more}
        print("RESULT " + json.dumps(values))


def what(job: Job) -> str:
    """What a job does: "plan", or "ITERATION CHUNK"."""
    if "cli chunk " not in job.script:
        return "plan"
    path = Path(job.script.split("cli chunk ")[1].split()[0])
    return f"{int(path.parent.parent.name)} {int(path.stem)}"


def until(name: str, condition: Callable[[], Any], limit: float = LIMIT) -> Any:
    """The first value of a condition that is true."""
    end = time.time() + limit
    while time.time() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.15)
    raise SystemExit(f"waited {limit:g} s in vain for {name}")


def move(path: Path, away: bool) -> None:
    hidden = path.with_name(path.name + ".away")
    (path if away else hidden).rename(hidden if away else path)


def mishaps(driver: Driver) -> None:
    slurm, times = driver.slurm, {}
    assert slurm is not None
    driver.start()
    until("a plan", driver.planned(0))
    move(driver.stack, away=True)
    cancelled = until("chunk 0", driver.job("0 0"))
    slurm.ask("scancel", cancelled.number)
    failed = until("chunk 1", driver.job("0 1"))
    until("its end", lambda: failed.number not in [job.number for job in driver.jobs_seen()])
    move(driver.stack, away=False)
    until("a plan of the next iteration", lambda: driver.run.joinpath("iterations", "000", "map.mrc").exists()
          or driver.planned(1)() or [job for job in driver.jobs_seen() if job.number not in ("1",) and what(job) == "plan"])
    slurm.stop_controller()
    times["stopped"] = time.time()
    while time.time() < times["stopped"] + 60:
        assert driver.is_active(), driver.protocol.getErrorMessage()
        time.sleep(2)
    slurm.start_controller()
    until("a chunk's engine", lambda: driver.engine("1 0")).suspend()  # so that it cannot end before its node does
    lost = until("its job", driver.job("1 0", "RUNNING"))
    slurm.kill_node(lost.node, lost.number)
    driver.finish()
    driver.result(cancelled=cancelled.number, failed=failed.number, lost=lost.number, log=driver.log())


def killed(driver: Driver) -> None:
    slurm = driver.slurm
    assert slurm is not None
    driver.start()
    until("a plan", driver.planned(0))
    slurm.drain(True)
    waiting = [until(name, driver.job(name, "PENDING")).number for name in ("0 0", "0 1")]
    left = driver.kill()
    driver.resume()
    until("the new process", lambda: driver.log().count("waiting for its end") == 2)
    found = sorted(job.number for job in driver.jobs_seen())
    slurm.drain(False)
    until("chunks", lambda: len(driver.manifests()) == 2 or (not driver.is_active() and driver.job("")()))
    before = driver.manifests()
    # Stop: the process must be gone before it tries again
    for name in ("1 0", "1 1"):
        until("a chunk's engine", lambda name=name: driver.engine(name)).suspend()  # so that it does not end before
    until("both jobs", lambda: len(driver.jobs_seen()) == 2)
    driver.project.stopProtocol(driver.protocol)
    until("an empty queue", lambda: not driver.jobs_seen(), 20)
    end = time.time() + 5
    while time.time() < end:
        assert not driver.jobs_seen()
        time.sleep(0.5)
    stopped = [" ".join(one.cmdline()) for one in driver.processes()]
    status = driver.protocol.getStatus()
    # a chunk that fails for good, while the other one waits
    slurm.drain(True)
    driver.protocol.retries.set(0)
    driver.resume()
    held = until("chunk 0", driver.job("1 0", "PENDING"))
    until("chunk 1", driver.job("1 1", "PENDING"))
    slurm.ask("scontrol", "hold", held.number)
    move(driver.stack, away=True)  # the protocol's own checks have passed
    slurm.drain(False)
    until("the failure", lambda: driver.jobs_seen() and not driver.is_active())
    failed, error = driver.protocol.getStatus(), str(driver.protocol.getErrorMessage())
    [earlier] = [one for one in driver.processes() if one.cmdline()[1].endswith("pw_protocol_run.py")]  # the host forgot it
    move(driver.stack, away=False)
    waited = driver.log().count("waiting for its end")
    driver.resume()
    until("the new process", lambda: driver.log().count("waiting for its end") > waited)
    ended = not earlier.is_running() or earlier.status() == psutil.STATUS_ZOMBIE
    slurm.ask("scontrol", "release", held.number)
    driver.finish()
    driver.result(waiting=waiting, left=left, found=found, stopped=stopped, aborted=status, failed=failed, message=error,
                  ended=ended, times=[before, driver.manifests()])


def read_defocus(ctfs: Any) -> List[List[float]]:
    """Of all images, in angstrom."""
    read = [[float(one.getDefocusU()), float(one.getDefocusV())] for series in ctfs.iterItems() for one in series.iterItems()]
    ctfs.close()  # or the next call sees the file that was replaced
    return read


def local(driver: Driver) -> None:
    driver.start()
    until("an iteration", lambda: driver.run.joinpath("iterations", "000", "summary.json").exists())
    until("an engine", lambda: driver.run.joinpath("iterations", "001", "run.json").exists())
    before = driver.manifests()
    maps = driver.run.joinpath("iterations", "000", "map.mrc").stat().st_mtime_ns
    left = driver.kill()
    driver.resume()
    driver.finish()
    same = driver.run.joinpath("iterations", "000", "map.mrc").stat().st_mtime_ns == maps
    times = [before, driver.manifests()]
    defocus = [read_defocus(driver.protocol.inputCTFs.get())]
    os.environ["CSPR_TEST_NO_REPORT"] = "1"  # after a run that was killed while it wrote one
    for prior in (750.0, 0.0):
        driver.protocol.priorDefocus.set(prior)
        driver.project.launchProtocol(driver.protocol, wait=True)  # to be continued, still
        driver.finish()
        defocus.append(read_defocus(driver.protocol.ctfs))
    driver.result(left=left, times=times, same=same, defocus=defocus)


def main(scenario: str) -> None:
    if scenario == "local":
        driver = Driver(False, numberOfThreads=2)
    else:
        driver = Driver(True, numberOfThreads=3, dispatch=1, retries=2)
    try:
        {"local": local, "mishaps": mishaps, "killed": killed}[scenario](driver)
    finally:
        for process in driver.processes():  # of a scenario that went wrong; they keep our output open
            process.kill()


if __name__ == "__main__":
    main(sys.argv[2])
