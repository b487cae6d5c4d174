"""Removal of particles by score, distance and number of projections."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any, Dict, List

from pyworkflow.protocol import params
from tomo.objects import SetOfCoordinates3D, SetOfSubTomograms

from ..engine.io.relion import read_dataset
from .base import ProtPypCsprParticles
from .jobs import remove

SCORES = ("by an automatic threshold", "by a given threshold", "no")
GIVEN, NONE = 1, 2


class FilterOutputs(Enum):
    """What there is after the run."""

    particles = SetOfSubTomograms
    coordinates = SetOfCoordinates3D


class ProtPypCsprFilter(ProtPypCsprParticles):
    """Keeps the particles that score well enough in *refine tilt series*, that are not too near to better ones, and that
    enough tilt images show.
    """

    _label = "filter particles"
    _possibleOutputs = FilterOutputs

    def _defineParams(self, form: Any) -> None:
        self._addInput(form)
        form.addSection(label="Rules")
        form.addParam("byScore", params.EnumParam, choices=list(SCORES), default=0, label="Filter by score?",
                      help="The automatic threshold parts the scores in two groups where they fall into two, and removes "
                           "nothing where they do not.")
        form.addParam("score", params.FloatParam, default=0.0, condition=f"byScore=={GIVEN}",
                      label="Lowest score to keep (0 to 100)",
                      help="The scores' distribution is in the report of the refinement.")
        form.addParam("distance", params.FloatParam, default=0.0, label="Least distance between particles (A, 0: any)",
                      help="Of particles nearer than this, the one of the higher score stays. The particle's radius is usual.")
        form.addParam("minProjections", params.IntParam, default=0, label="Least number of projections (0: any)",
                      help="Tilt images, not excluded, that show the particle's box.")

    def _insertAllSteps(self) -> None:
        self._insertConvert()
        self._insertFunctionStep(self.filterStep, self._rules(), needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, needsGPU=False)

    def _rules(self) -> Dict[str, Any]:
        score = {GIVEN: self.score.get(), NONE: None}.get(self.byScore.get(), "auto")
        return {"score": score, "distance": self.distance.get(), "minProjections": self.minProjections.get()}

    def _folder(self) -> str:
        return str(self._getExtraPath("filter"))

    def filterStep(self, rules: Dict[str, Any]) -> None:
        """One job of the engine."""
        score = [] if rules["score"] is None else ["--score", rules["score"]]
        result = os.path.join(self._folder(), "filter.json")
        remove(result)  # of an earlier run: a job that fails must not look as if it had not
        self.runEngine("filter", self._dataFolder(), "--out", self._folder(), *score, "--distance", rules["distance"],
                       "--min-projections", rules["minProjections"], "--overwrite")
        self.readResult(result)

    def createOutputStep(self) -> None:
        """The particles that are left."""
        particles, coordinates = self._newParticles(self._convert(), read_dataset(self._folder()))
        self._defineOutputs(**{FilterOutputs.particles.name: particles, FilterOutputs.coordinates.name: coordinates})
        self._defineTransformRelation(self.inputParticles, particles)
        self._defineSourceRelation(self.inputParticles, coordinates)

    def _validate(self) -> List[str]:
        errors = self._validateInput()
        rules = self._rules()
        if rules["distance"] < 0 or rules["minProjections"] < 0:
            errors.append("Distance and number of projections: must be 0 or above.")
        if rules["score"] is None and not rules["distance"] and not rules["minProjections"]:
            errors.append("Nothing to filter by: choose a score, a distance or a number of projections.")
        return errors

    def _summary(self) -> List[str]:
        path = os.path.join(self._folder(), "filter.json")
        if not os.path.exists(path):
            return ["Not ready yet."]
        result = self.readResult(path)
        lines = [f"{result['n_particles']} of {result['n_particles_before']} particles are left."]
        if result["threshold"] is not None:
            lines.append(f"Score threshold {result['threshold']:.3f}: {result['reason']}.")
        elif result["reason"]:
            lines.append(f"{result['reason']}.")
        return lines + self._notes()
