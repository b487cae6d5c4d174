"""A SLURM of its own for a test: munged, slurmctld and two slurmd on this machine, everything in one folder. No accounting."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
NODES = ("n1", "n2")
CONFIGURATION = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort={port}
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0
MinJobAge=600
KillWait=2
SlurmdTimeout=10
MessageTimeout=3
JobRequeue=0
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 RealMemory=2000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


class Job(NamedTuple):
    """A job that waits or runs."""

    number: str
    state: str  # PENDING, RUNNING ...
    node: str
    script: str  # its text


def installed() -> bool:
    """Whether all programs are there."""
    return all(shutil.which(name) or Path("/usr/sbin", name).exists() for name in PROGRAMS)


def _free_ports(count: int) -> List[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Slurm:
    """In a new folder, or the one that is in this folder. ``environment`` makes sbatch and its relatives use it."""

    def __init__(self, folder: Path) -> None:
        import getpass

        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.key = folder / "munge" / "key"
        self.environment: Dict[str, str] = dict(os.environ, SLURM_CONF=str(self.configuration),
                                                PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
        if self.configuration.exists():
            return
        for name in ("munge", "state", "spool.n1", "spool.n2"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        (folder / "munge").chmod(0o711)
        self.key.write_bytes(os.urandom(1024))
        self.key.chmod(0o600)
        port, first, second = _free_ports(3)
        host = socket.gethostname().split(".")[0]
        self.configuration.write_text(CONFIGURATION.format(host=host, user=getpass.getuser(), folder=folder, port=port,
                                                           first=first, second=second))

    def start(self) -> None:
        """Start all daemons. Raises RuntimeError or CalledProcessError where they do not. Call ``stop``."""
        key, folder = self.key, self.folder
        self._run("munged", "--force", f"--key-file={key}", f"--socket={folder}/munge/socket",
                  f"--pid-file={folder}/munge/pid", f"--log-file={folder}/munge/log", f"--seed-file={folder}/munge/seed")
        self.start_controller()
        for name in NODES:
            self._run("slurmd", "-N", name)
        self._wait()

    def _run(self, *command: str) -> str:
        """A command; daemons detach themselves, and must not keep our pipes open."""
        log = self.folder / "commands.log"
        with open(log, "ab") as stream:
            subprocess.run(command, stdout=stream, stderr=stream, timeout=30, env=self.environment, check=True)
        return log.read_text(errors="replace")

    def ask(self, *command: str) -> str:
        """What a command says on its standard output; nothing where it fails."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.environment, check=False)
        return done.stdout

    def _wait(self) -> None:
        end = time.time() + 30
        while time.time() < end:
            if self.ask("sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"]:
                return
            time.sleep(0.3)
        raise RuntimeError(f"SLURM did not start: {(self.folder / 'slurmctld.log').read_text()[-2000:]}")

    # --- what is going on ---------------------------------------------------------------------------------------------

    def jobs(self) -> List[Job]:
        """Jobs that wait or run."""
        found = []
        for line in self.ask("squeue", "-h", "-o", "%i %T %N").splitlines():
            number, state, *node = line.split()
            script = re.search(r"Command=(\S+)", self.ask("scontrol", "-o", "show", "job", number))
            path = Path(script.group(1)) if script else Path()
            found.append(Job(number, state, "".join(node), path.read_text() if path.is_file() else ""))
        return found

    def states(self) -> List[str]:
        """How the jobs ended, in the order of their ends."""
        log = self.folder / "jobs.log"
        words = log.read_text().split() if log.exists() else []
        return [word.split("=", 1)[1] for word in words if word.startswith("JobState=")]

    def known_states(self) -> List[str]:
        """States of all jobs that the controller remembers, which is ten minutes."""
        return re.findall(r"JobState=(\w+)", self.ask("scontrol", "-o", "show", "jobs"))

    # --- mishaps ------------------------------------------------------------------------------------------------------

    def start_controller(self) -> None:
        self._run("slurmctld")

    def stop_controller(self) -> None:
        self._end("slurmctld.pid", signal.SIGTERM)

    def kill_node(self, name: str, job: str) -> None:
        """As if it had lost its power: its daemon and all processes of the job that runs there."""
        import psutil

        script = f"/spool.{name}/job{int(job):05d}/slurm_script"
        end = time.time() + 30
        while time.time() < end:
            found = [one for one in psutil.process_iter(["cmdline"]) if script in " ".join(one.info["cmdline"] or [])]
            if found:
                break
            time.sleep(0.05)
        [shell] = found
        step = shell.parent()
        assert step is not None
        assert "slurmstepd" in " ".join(step.cmdline())
        self._end(f"slurmd.{name}.pid", signal.SIGKILL)
        for one in [step, *step.children(recursive=True)]:
            one.kill()

    def drain(self, on: bool) -> None:
        """Whether nodes take no new jobs."""
        state = ["State=DRAIN", "Reason=test"] if on else ["State=RESUME"]
        self._run("scontrol", "update", f"NodeName={','.join(NODES)}", *state)

    def stop(self) -> None:
        """End the daemons that were started here, by their numbers."""
        self.ask("scancel", "--state=PENDING,RUNNING", "--partition=debug")
        for name in [f"slurmd.{node}.pid" for node in NODES] + ["slurmctld.pid", "munge/pid"]:
            self._end(name, signal.SIGTERM)

    def _end(self, name: str, number: int) -> None:
        path = self.folder / name
        if path.exists():
            try:
                process = int(path.read_text())
                os.kill(process, number)
                end = time.time() + 10
                while time.time() < end:
                    os.kill(process, 0)
                    time.sleep(0.1)
            except (ProcessLookupError, ValueError):
                pass
            path.unlink(missing_ok=True)


@contextmanager
def running() -> Iterator[Slurm]:
    """A SLURM of two nodes while the block lasts, in a folder with a short name: sockets are in it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    made = Slurm(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
