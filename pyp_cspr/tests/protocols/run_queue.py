"""Sample -> refine with a job for each chunk in the queue of hosts.conf; prints what was seen. Run as a program:

python run_queue.py FOLDER [cancel]

With ``cancel``, the first job of a chunk that is seen is cancelled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any, List, Set

from run_workflow import SAMPLE, launch, point

QUEUE = {"QUEUE_CPUS": "1", "JOB_TIME": "00:10:00", "JOB_MEMORY": "500", "QUEUE_FOR_JOBS": "Y"}


def jobs() -> List[List[str]]:
    """(number, state, name) of the jobs in the queue."""
    listing = ["squeue", "-h", "-o", "%i %t %j"]
    done = subprocess.run(listing, capture_output=True, text=True, timeout=30, check=False)
    return [line.split() for line in done.stdout.splitlines()]


def main(folder: str, cancel: bool) -> None:
    import pyworkflow as pw
    from pyworkflow.project import Manager

    pw.Config.getDomain().getPlugins()
    from pyp_cspr.protocols import ProtPypCsprRefine, ProtPypCsprSample

    project = Manager().createProject("queue")
    os.chdir(project.path)
    sample = launch(project, project.newProtocol(ProtPypCsprSample, objLabel="sample", **SAMPLE))
    protocol: Any = project.newProtocol(ProtPypCsprRefine, objLabel="refine", iterations=1, resolution="40", numberOfThreads=3,
                                        binThreads=1, dispatch=1, checkHand=False)
    for name, output in (("inputParticles", "subTomograms"), ("inputTiltSeries", "tiltSeries"), ("inputCTFs", "ctfs"),
                         ("inputReference", "reference")):
        point(protocol, name, sample, output)
    protocol._useQueue.set(True)
    protocol.setQueueParams(["debug", QUEUE])
    project.launchProtocol(protocol, wait=False)
    seen: Set[str] = set()
    cancelled = ""
    end = time.time() + 240
    while time.time() < end:
        for number, _, _ in jobs():
            seen.add(number)
            # the job's command says whether it is of a chunk
            asked = ["scontrol", "show", "job", number]
            shown = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
            script = [line.split("=", 1)[1] for line in shown.stdout.split() if line.startswith("Command=")]
            if cancel and not cancelled and script and os.path.exists(script[0]):
                with open(script[0]) as stream:
                    if "cli chunk" in stream.read():
                        subprocess.run(["scancel", number], timeout=30, check=False)
                        cancelled = number
        project._updateProtocol(protocol)
        if not protocol.isActive():
            break
        time.sleep(0.3)
    folder = os.path.join(project.path, protocol.getWorkingDir())
    print("RESULT " + json.dumps({"status": protocol.getStatus(), "error": str(protocol.getErrorMessage()),
                                  "seen": sorted(seen), "cancelled": cancelled, "folder": folder,
                                  "data": os.path.join(project.path, sample.getWorkingDir(), "extra", "data"),
                                  "outputs": sorted(name for name, _ in protocol.iterOutputAttributes())}))


if __name__ == "__main__":
    main(sys.argv[1], "cancel" in sys.argv[2:])
