"""Post-processing in a project of the host; prints what a test checks, as JSON. Run as a program:

python run_postprocess.py FOLDER

FOLDER holds half1.mrc, half2.mrc and mask.mrc.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict

import mrcfile
import numpy as np
from run_workflow import launch, point


def main(folder: str) -> None:
    import pyworkflow as pw
    from pyworkflow.project import Manager

    pw.Config.getDomain().getPlugins()
    from pwem.emlib.image import ImageHandler
    from pwem.objects import Volume, VolumeMask
    from pwem.protocols import EMProtocol
    from tomo.objects import AverageSubTomogram

    from pyp_cspr.protocols import ProtPypCsprPostProcess

    project = Manager().createProject("postprocess")
    os.chdir(project.path)
    halves = [os.path.join(folder, f"half{number}.mrc") for number in (1, 2)]
    others = []
    for half in halves:  # as Spider, which the engine does not read
        others.append(half.replace(".mrc", ".vol"))
        image = ImageHandler().createImage()
        with mrcfile.open(half) as mrc:
            image.setData(np.array(mrc.data))
        image.write(others[-1])
    source: Any = project.newProtocol(EMProtocol, objLabel="imported")
    project.saveProtocol(source)
    made: Dict[str, Any] = {"average": AverageSubTomogram(), "volume": Volume(), "mask": VolumeMask()}
    for name, files in (("average", halves), ("volume", others)):
        made[name].setFileName(files[0])
        made[name].setHalfMaps(files)
    made["mask"].setFileName(os.path.join(folder, "mask.mrc"))
    for one in made.values():
        one.setSamplingRate(3.0)
    source._defineOutputs(**made)
    source.setStatus("finished")
    project._storeProtocol(source)
    automatic = project.newProtocol(ProtPypCsprPostProcess, objLabel="automatic", numberOfThreads=1)
    point(automatic, "inputAverage", source, "average")
    given = project.newProtocol(ProtPypCsprPostProcess, objLabel="given", numberOfThreads=1, maskSource=2, bFactorSource=1,
                                bFactor=-40.0, resolution=9.0)
    point(given, "inputAverage", source, "volume")
    point(given, "inputMask", source, "mask")
    result: Dict[str, Any] = {}
    for name, protocol in (("automatic", automatic), ("given", given)):
        launch(project, protocol)
        outputs: Dict[str, Any] = {}
        for key, value in protocol.iterOutputAttributes():
            outputs[key] = {"class": value.getClassName(), "file": os.path.abspath(value.getFileName()),
                            "pixel": getattr(value, "_samplingRate", None) and value.getSamplingRate()}
            if key == "fscs":
                outputs[key]["size"] = value.getSize()
            if key == "sharpened":
                outputs[key]["halves"] = [str(half) for half in value.getHalfMaps(asList=True)]
        relations = [one for kind in ("relation_transform", "relation_datasource")
                     for one in project.mapper.getRelationsByName(kind) if one["parent_id"] == protocol.getObjId()]
        result[name] = {"outputs": outputs, "summary": protocol.summary(), "relations": len(relations)}
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
