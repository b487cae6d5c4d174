"""The sample refined against its mirrored reference in a project of the host; prints what a test checks. Run as a program:

python run_hand.py FOLDER

The environment of the host is set by the caller. FOLDER gets the mirrored reference.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from run_workflow import SAMPLE, launch, point


def main(folder: str) -> None:
    import pyworkflow as pw
    from pyworkflow.project import Manager

    pw.Config.getDomain().getPlugins()
    from pwem.protocols import EMProtocol
    from tomo.objects import AverageSubTomogram

    from pyp_cspr.engine.core.filters import mirrored
    from pyp_cspr.engine.io.mrc import read_map, write_map
    from pyp_cspr.protocols import ProtPypCsprRefine, ProtPypCsprSample

    project = Manager().createProject("hand")
    os.chdir(project.path)
    sample = launch(project, project.newProtocol(ProtPypCsprSample, objLabel="sample", **SAMPLE))
    values, pixel = read_map(sample.reference.getFileName())
    other = os.path.join(folder, "mirrored.mrc")
    write_map(other, mirrored(values).copy(), pixel)
    source: Any = project.newProtocol(EMProtocol, objLabel="imported")
    project.saveProtocol(source)
    reference = AverageSubTomogram()
    reference.setFileName(other)
    reference.setSamplingRate(pixel)
    source._defineOutputs(reference=reference)
    source.setStatus("finished")
    project._storeProtocol(source)
    refine = project.newProtocol(ProtPypCsprRefine, objLabel="refine", iterations=1, numberOfThreads=1)
    for name, where, output in (("inputParticles", sample, "subTomograms"), ("inputTiltSeries", sample, "tiltSeries"),
                                ("inputCTFs", sample, "ctfs"), ("inputReference", source, "reference")):
        point(refine, name, where, output)
    errors = refine.validate()
    assert not errors, errors
    project.launchProtocol(refine, wait=True)
    project._updateProtocol(refine)
    result = {"status": refine.getStatus(), "error": refine.getErrorMessage(),
              "outputs": [name for name, _ in refine.iterOutputAttributes()],
              "folder": os.path.join(project.path, refine.getWorkingDir())}
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
