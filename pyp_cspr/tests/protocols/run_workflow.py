"""Sample -> refine -> filter and reconstruct in a project of the host; prints what a test checks, as JSON. Run as a program:

python run_workflow.py FOLDER

The environment of the host is set by the caller. FOLDER gets refined.npz: the refined sets, read back through the adapters.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict

SAMPLE = {"nSeries": 2, "nParticles": 8, "nTilts": 9, "boxSize": 32, "pixelSize": 8.0}


def launch(project: Any, protocol: Any) -> Any:
    """Run a protocol in a process of its own, as the host does, and stop where it failed."""
    errors = protocol.validate()
    assert not errors, errors
    project.launchProtocol(protocol, wait=True)
    project._updateProtocol(protocol)
    if not protocol.isFinished():
        for name in (protocol.getStdoutLog(), protocol.getStderrLog()):
            if os.path.exists(name):
                with open(name, errors="replace") as stream:
                    print(stream.read()[-4000:], file=sys.stderr)
        raise SystemExit(f"{protocol.getClassName()}: {protocol.getStatus()}: {protocol.getErrorMessage()}")
    return protocol


def point(protocol: Any, name: str, source: Any, output: str) -> None:
    pointer = getattr(protocol, name)
    pointer.set(source)
    pointer.setExtended(output)


def save_refined(path: str, refine: Any, sample: Any) -> None:
    """The numbers of the refined sets."""
    import numpy as np

    from pyp_cspr.protocols.adapters.from_sets import read_sets

    dataset = read_sets(refine.particles, refine.tiltSeries, refine.ctfs).dataset
    original = read_sets(sample.subTomograms, sample.tiltSeries, sample.ctfs).dataset
    arrays = {}
    for kind, one in (("refined", dataset), ("sample", original)):
        for name in ("position", "rotation", "half", "score", "sigma"):
            arrays[f"{kind}.particles.{name}"] = one.particles[name]
        for name in ("rotation", "shift", "defocus", "dose_before", "dose", "enabled", "scale", "order"):
            arrays[f"{kind}.exposures.{name}"] = one.exposures[name]
    np.savez(path, **arrays)


def main(folder: str) -> None:
    import pyworkflow as pw
    from pyworkflow.project import Manager

    pw.Config.getDomain().getPlugins()
    from pyp_cspr.protocols import ProtPypCsprFilter, ProtPypCsprReconstruct, ProtPypCsprRefine, ProtPypCsprSample

    project = Manager().createProject("cspr")
    os.chdir(project.path)
    sample = launch(project, project.newProtocol(ProtPypCsprSample, objLabel="sample", **SAMPLE))

    def inputs(protocol: Any, particles: Any, output: str, series: Any = sample) -> Any:
        point(protocol, "inputParticles", particles, output)
        point(protocol, "inputTiltSeries", series, "tiltSeries")
        point(protocol, "inputCTFs", sample, "ctfs")
        return protocol

    refine = inputs(project.newProtocol(ProtPypCsprRefine, objLabel="refine", iterations=2, resolution="40 30",
                                        priorDefocus=500.0, numberOfThreads=1), sample, "subTomograms")
    point(refine, "inputReference", sample, "reference")
    launch(project, refine)
    chunks = inputs(project.newProtocol(ProtPypCsprRefine, objLabel="chunks", iterations=2, resolution="40 30",
                                        priorDefocus=500.0, numberOfThreads=3, binThreads=1, dispatch=1, checkHand=False),
                    sample, "subTomograms")
    point(chunks, "inputReference", sample, "reference")
    os.environ["CSPR_TEST_NO_REPORT"] = "1"  # the protocols have one, and nobody reads a second
    launch(project, chunks)
    rest = inputs(project.newProtocol(ProtPypCsprFilter, objLabel="filter", byScore=2, minProjections=5, distance=60.0,
                                      numberOfThreads=1), refine, "particles", refine)
    launch(project, rest)
    again = inputs(project.newProtocol(ProtPypCsprReconstruct, objLabel="reconstruct", mapBox=32, mapPixel=8.0,
                                       numberOfThreads=1), refine, "particles", refine)
    launch(project, again)
    result: Dict[str, Any] = {"project": project.path}
    runs = {"sample": sample, "refine": refine, "chunks": chunks, "filter": rest, "reconstruct": again}
    for name, protocol in runs.items():
        result[name] = {
            "folder": os.path.join(project.path, protocol.getWorkingDir()),
            "outputs": {key: str(value) for key, value in protocol.iterOutputAttributes()},
            "files": {key: value.getFileName() for key, value in protocol.iterOutputAttributes()},
            "summary": protocol.summary(),
            "citations": len(protocol.citations()),
        }
    save_refined(os.path.join(folder, "refined.npz"), refine, sample)
    result["fits"] = sorted({one.getResolution() for ctf in sample.ctfs.iterItems() for one in ctf.iterItems()})
    result["relations"] = len(project.mapper.getRelationsByName("relation_transform"))
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
