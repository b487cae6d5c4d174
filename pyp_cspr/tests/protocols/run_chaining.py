"""Sample -> refine -> protocols that nobody here wrote; prints what a test checks, as JSON. Run as a program:

python run_chaining.py FOLDER [relion]

FOLDER gets chained.npz. With ``relion``, RELION 5 particles of the sample's stars, as reliontomo reads them, are refined too.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict

import numpy as np
from run_workflow import SAMPLE, launch, point

INPUTS = (("inputTiltSeries", "tiltSeries"), ("inputCTFs", "ctfs"), ("inputReference", "reference"))
REFINE = {"iterations": 1, "resolution": "40", "priorDefocus": 500.0, "numberOfThreads": 1, "checkHand": False}


def relion_particles(project: Any, sample: Any) -> Any:
    """A protocol whose output is the sample's stars as a set of reliontomo."""
    from pwem.protocols import EMProtocol
    from relion_sets import read_set, reliontomo

    reliontomo()
    made = SimpleNamespace(tilt_series=sample.tiltSeries, coordinates=sample.coordinates)
    source: Any = project.newProtocol(EMProtocol, objLabel="stars")
    project.saveProtocol(source)
    source.makeWorkingDir()
    star = os.path.join(sample._getExtraPath("data"), "optimisation_set.star")
    pixel = sample.tiltSeries.getSamplingRate()
    particles = read_set(Path(source.getWorkingDir()), star, made, pixel, 1.0, SAMPLE["boxSize"])
    source._defineOutputs(particles=particles)
    source.setStatus("finished")
    project._storeProtocol(source)
    return source


def table(coordinates: Any) -> Any:
    """Positions (n, 3) in pixels from the centre, and matrices (n, 4, 4)."""
    from tomo.constants import SCIPION

    items = [(item.getPosition(SCIPION), item.getMatrix().copy()) for item in coordinates.iterCoordinates()]
    return np.array([item[0] for item in items]), np.array([item[1] for item in items])


def landmarks(models: Any) -> np.ndarray:
    """(series, chain, image, x, y) of all models."""
    rows = []
    for number, model in enumerate(models.iterItems()):
        rows += [[number, float(row[3]), float(row[2]), float(row[0]), float(row[1])] for row in model.retrieveInfoTable()]
    return np.array(rows)


def transforms(series: Any) -> np.ndarray:
    return np.array([image.getTransform().getMatrix() for one in series.iterItems() for image in one.iterItems()])


def main(folder: str, relion: bool) -> None:
    import pyworkflow as pw
    from pyworkflow.project import Manager

    pw.Config.getDomain().getPlugins()
    from tomo.objects import SetOfTiltSeries
    from tomo.protocols import ProtAssignTransformationMatrixTiltSeries, ProtProjectCoordinates, ProtTomoExtractCoords
    from tomo.protocols.protocol_split_evenodd_subtomos import ProtSplitEvenOddTomoSet
    from tomo.utils import getObjFromRelation

    from pyp_cspr.protocols import ProtPypCsprFilter, ProtPypCsprPostProcess, ProtPypCsprRefine, ProtPypCsprSample
    from pyp_cspr.protocols.adapters.from_sets import read_sets

    project = Manager().createProject("chaining")
    os.chdir(project.path)
    sample = launch(project, project.newProtocol(ProtPypCsprSample, objLabel="sample", **SAMPLE))

    def refined(label: str, source: Any, output: str, before: Any = None) -> Any:
        """Refined particles of ``source``; those of a refinement ``before`` with its tilt series, CTFs and average."""
        protocol = project.newProtocol(ProtPypCsprRefine, objLabel=label, **REFINE)
        point(protocol, "inputParticles", source, output)
        for name, other in INPUTS:
            point(protocol, name, before or sample, "average" if before and other == "reference" else other)
        return launch(project, protocol)

    def chained(kind: Any, pointers: Dict[str, Any], **values: Any) -> Any:
        protocol = project.newProtocol(kind, **values)
        for name, (source, output) in pointers.items():
            point(protocol, name, source, output)
        return launch(project, protocol)

    refine = refined("refine", sample, "subTomograms")
    kept = project.newProtocol(ProtPypCsprFilter, objLabel="filter", byScore=2, minProjections=1)
    for name, source, output in (("inputParticles", refine, "particles"), ("inputTiltSeries", refine, "tiltSeries"),
                                 ("inputCTFs", refine, "ctfs")):
        point(kept, name, source, output)
    launch(project, kept)
    found = {f"{name}.{output}": getObjFromRelation(getattr(source, output), refine, SetOfTiltSeries)
             for name, source in (("refine", refine), ("filter", kept)) for output in ("particles", "coordinates")}
    again = refined("refine again", refine, "particles", refine)
    projected = chained(ProtProjectCoordinates, {"inputCoordinates": (refine, "coordinates")})
    extracted = chained(ProtTomoExtractCoords, {"inputSubTomos": (refine, "particles"), "inputTomos": (sample, "tomograms")},
                        boxSize=16)
    assigned = chained(ProtAssignTransformationMatrixTiltSeries, {"getTMSetOfTiltSeries": (refine, "tiltSeries"),
                                                                  "setTMSetOfTiltSeries": (sample, "tiltSeries")})
    split = chained(ProtSplitEvenOddTomoSet, {"inputSet": (refine, "particles")})
    sharpened = chained(ProtPypCsprPostProcess, {"inputAverage": (refine, "average")}, numberOfThreads=1)
    outputs = {key: value for protocol in (extracted, assigned) for key, value in protocol.iterOutputAttributes()}
    taken = next(value for _, value in extracted.iterOutputAttributes())
    arrays = {
        "coordinates": table(refine.coordinates)[0], "coordinate matrices": table(refine.coordinates)[1],
        "extracted": table(taken)[0], "extracted matrices": table(taken)[1],
        "ours": landmarks(refine.landmarks), "theirs": landmarks(projected.landmarkModels),
        "refined": transforms(refine.tiltSeries), "given": transforms(sample.tiltSeries),
        "assigned": transforms(next(value for key, value in assigned.iterOutputAttributes())),
    }
    result: Dict[str, Any] = {
        "again": os.path.join(project.path, again.getWorkingDir()),
        "pixels": [refine.coordinates.getSamplingRate(), taken.getSamplingRate()],
        "related": {name: series.getFileName() for name, series in found.items()}, "series": refine.tiltSeries.getFileName(),
        "refine": os.path.join(project.path, refine.getWorkingDir()), "names": sorted(outputs),
        "split": [value.getSize() for _, value in split.iterOutputAttributes()],
        "halves": [os.path.abspath(half) for half in sharpened.sharpened.getHalfMaps(asList=True)],
        "mask": os.path.abspath(sharpened.mask.getFileName()), "summary": sharpened.summary(),
    }
    if relion:
        from relion_sets import reliontomo

        _, convert = reliontomo()
        stars = os.path.join(folder, "stars")
        os.makedirs(stars, exist_ok=True)
        writer = convert.Writer()
        sets = {name: {item.getTsId(): item.clone(ignoreAttrs=[]) for item in items.iterItems()}
                for name, items in (("series", refine.tiltSeries), ("ctfs", refine.ctfs))}
        tomograms = {item.getTsId(): item.clone() for item in sample.tomograms.iterItems()}
        writer.tomoSet2Star(tomograms, sets["series"], stars, outFileName="tomograms.star")
        writer.tsSet2Star(sets["series"], sets["ctfs"], stars)
        writer.coords2Star(refine.coordinates, tomograms, stars,
                           coordsScale=refine.coordinates.getSamplingRate() / refine.tiltSeries.getSamplingRate())
        result["stars"] = stars
        pseudo = refined("refine RELION's", relion_particles(project, sample), "particles")
        result["relion"] = os.path.join(project.path, pseudo.getWorkingDir())
        result["class"] = pseudo.particles.getClassName()
        result["star"] = os.path.abspath(pseudo.particles.filesMaster)
        result["notes"] = pseudo.summary()
        again = read_sets(pseudo.particles, pseudo.tiltSeries, pseudo.ctfs).dataset
        for name in ("position", "rotation", "half", "score"):
            arrays[f"relion.{name}"] = again.particles[name]
    np.savez(os.path.join(folder, "chained.npz"), **arrays)
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], "relion" in sys.argv[2:])
