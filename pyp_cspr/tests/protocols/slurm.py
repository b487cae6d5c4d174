"""A SLURM of its own for a test: munged, slurmctld and two slurmd on this machine, everything in one folder. No accounting."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Dict, List

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
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
SlurmdTimeout=15
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
    """In a new folder; ``environment`` makes sbatch and its relatives use it. Call ``stop``."""

    def __init__(self, folder: Path) -> None:
        import getpass

        self.folder = folder
        for name in ("munge", "state", "spool.n1", "spool.n2"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        (folder / "munge").chmod(0o711)
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        port, first, second = _free_ports(3)
        host = socket.gethostname().split(".")[0]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, user=getpass.getuser(), folder=folder, port=port,
                                                                first=first, second=second))
        self.environment: Dict[str, str] = dict(os.environ, SLURM_CONF=str(folder / "slurm.conf"),
                                                PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
        self.key = key

    def start(self) -> None:
        """Start all daemons. Raises RuntimeError or CalledProcessError where they do not."""
        key, folder = self.key, self.folder
        self._run("munged", "--force", f"--key-file={key}", f"--socket={folder}/munge/socket",
                  f"--pid-file={folder}/munge/pid", f"--log-file={folder}/munge/log", f"--seed-file={folder}/munge/seed")
        self._run("slurmctld")
        self._run("slurmd", "-N", "n1")
        self._run("slurmd", "-N", "n2")
        self._wait()

    def _run(self, *command: str) -> str:
        """A command; daemons detach themselves, and must not keep our pipes open."""
        log = self.folder / "commands.log"
        with open(log, "ab") as stream:
            subprocess.run(command, stdout=stream, stderr=stream, timeout=30, env=self.environment, check=True)
        return log.read_text(errors="replace")

    def _wait(self) -> None:
        end = time.time() + 30
        while time.time() < end:
            shown = subprocess.run(["sinfo", "-h", "-N", "-o", "%T"], capture_output=True, text=True, timeout=30,
                                   env=self.environment, check=False)
            if shown.stdout.split() == ["idle", "idle"]:
                return
            time.sleep(0.3)
        raise RuntimeError(f"SLURM did not start: {(self.folder / 'slurmctld.log').read_text()[-2000:]}")

    def states(self) -> List[str]:
        """How the jobs ended, in the order of their ends."""
        log = self.folder / "jobs.log"
        words = log.read_text().split() if log.exists() else []
        return [word.split("=", 1)[1] for word in words if word.startswith("JobState=")]

    def stop(self) -> None:
        """End the daemons that were started here, by their numbers."""
        for name in ("slurmd.n1.pid", "slurmd.n2.pid", "slurmctld.pid", "munge/pid"):
            path = self.folder / name
            if path.exists():
                try:
                    os.kill(int(path.read_text()), 15)
                except (ProcessLookupError, ValueError):
                    continue
