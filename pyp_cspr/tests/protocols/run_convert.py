"""PYP project -> sets -> every form -> sets, in a project of the host; prints what a test checks, as JSON. Run as a program:

python run_convert.py FOLDER

FOLDER/pyp is a PYP project. FOLDER gets NAME.npz for each import: its sets, read back through the adapters.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict

import numpy as np
from run_workflow import launch, point

INPUTS = (("inputParticles", "subTomograms"), ("inputTiltSeries", "tiltSeries"), ("inputCTFs", "ctfs"),
          ("inputReference", "reference"))


def save(path: str, protocol: Any) -> None:
    """The numbers of imported sets."""
    from tomo.constants import SCIPION

    from pyp_cspr.protocols.adapters.from_sets import read_sets

    dataset = read_sets(protocol.subTomograms, protocol.tiltSeries, protocol.ctfs).dataset
    arrays = {f"particles.{name}": dataset.particles[name] for name in ("position", "rotation", "half", "score", "weight")}
    for name in ("rotation", "shift", "defocus", "dose_before", "dose", "enabled", "order", "slice"):
        arrays[f"exposures.{name}"] = dataset.exposures[name]
    arrays.update(size=dataset.series["specimen_size"], used=np.concatenate([dataset.used(0), dataset.used(1)]),
                  pixel=dataset.series["pixel"], voltage=dataset.series["voltage"], names=dataset.series["name"])
    places = [item.getPosition(SCIPION) for item in protocol.coordinates.iterCoordinates()]
    arrays["coordinates"] = np.array(places) * protocol.coordinates.getSamplingRate()
    np.savez(path, **arrays)


def main(folder: str) -> None:
    import pyworkflow as pw
    from pyworkflow.project import Manager

    pw.Config.getDomain().getPlugins()
    from pyp_cspr.protocols import ProtPypCsprExport, ProtPypCsprImport
    from pyp_cspr.protocols.protocol_export import FORMS

    project = Manager().createProject("convert")
    os.chdir(project.path)
    result: Dict[str, Any] = {}

    def imported(name: str, path: str) -> Any:
        protocol = launch(project, project.newProtocol(ProtPypCsprImport, objLabel=name, projectPath=path))
        save(os.path.join(folder, f"{name}.npz"), protocol)
        reference = protocol.reference
        result[name] = {
            "outputs": {key: str(value) for key, value in protocol.iterOutputAttributes()}, "summary": protocol.summary(),
            "reference": os.path.abspath(reference.getFileName()), "pixel": reference.getSamplingRate(),
            "halves": [os.path.abspath(half) for half in reference.getHalfMaps(asList=True) or ()],
            "images": sorted({image.getFileName() for one in protocol.tiltSeries.iterItems() for image in one.iterItems()}),
            "fits": sorted({one.getResolution() for ctf in protocol.ctfs.iterItems() for one in ctf.iterItems()}),
            "cube": os.path.abspath(protocol.subTomograms.getFirstItem().getFileName()),
        }
        return protocol

    first = imported("first", os.path.join(folder, "pyp"))
    for number, (_, name, _) in enumerate(FORMS):
        target = os.path.join(folder, f"to {name}") if name != "relion5" else ""
        protocol = project.newProtocol(ProtPypCsprExport, objLabel=f"to {name}", exportTo=number, outputFolder=target,
                                       writeImages=name == "relion-spa")
        for parameter, output in INPUTS:
            point(protocol, parameter, first, output)
        launch(project, protocol)
        with open(protocol._getExtraPath("export.json")) as stream:
            result[f"to {name}"] = {"summary": protocol.summary(), **json.load(stream)}
        assert protocol.validate() == [] or not target, protocol.validate()  # so that it may be continued
    imported("pyp", os.path.join(folder, "to pyp"))
    imported("parx", result["to pyp-parx"]["written"])
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
