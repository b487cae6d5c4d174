"""Removal of particles by score, distance and number of projections."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any, Dict, List

import numpy as np
from numpy.typing import NDArray
from pyworkflow.protocol import params
from tomo.objects import SetOfCoordinates3D, SetOfSubTomograms

from ..engine.cli.filter import WORDS
from ..engine.io.relion import read_dataset
from .adapters.from_sets import scores_of
from .base import ProtPypCsprParticles

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

    def _resultFile(self) -> str:
        return os.path.join(self._folder(), "filter.json")

    def filterStep(self, rules: Dict[str, Any]) -> None:
        """One job of the engine."""
        score = [] if rules["score"] is None else ["--score", rules["score"]]
        self.runForResult(self._resultFile(), "filter", self._dataFolder(), "--out", self._folder(), *score, "--distance",
                          rules["distance"], "--min-projections", rules["minProjections"], "--overwrite")

    def createOutputStep(self) -> None:
        """The particles that are left."""
        particles, coordinates = self._newParticles(self._convert(), read_dataset(self._folder()))
        self._defineOutputs(**{FilterOutputs.particles.name: particles, FilterOutputs.coordinates.name: coordinates})
        self._defineTransformRelation(self.inputParticles, particles)
        self._defineSourceRelation(self.inputParticles, coordinates)
        for target in (particles, coordinates):  # the host follows the last relation first
            self._defineSourceRelation(self.inputTiltSeries, target)

    def _errors(self) -> List[str]:
        errors = self._validateInput()
        rules = self._rules()
        if rules["distance"] < 0 or rules["minProjections"] < 0:
            errors.append("Distance and number of projections: must be 0 or above.")
        if rules["score"] is None and not rules["distance"] and not rules["minProjections"]:
            errors.append("Nothing to filter by: choose a score, a distance or a number of projections.")
        particles, series = self.inputParticles.get(), self.inputTiltSeries.get()
        if not errors and particles is not None and rules["score"] is not None:
            errors += _score_errors(scores_of(particles), rules["score"])
        if not errors and series is not None:
            most = max((item.getSize() for item in series.iterItems()), default=0)
            if rules["minProjections"] > most:
                errors.append(f"Least number of projections: {rules['minProjections']} is more than the {most} images that a "
                              "tilt series has.")
        return errors

    def _summary(self) -> List[str]:
        if not os.path.exists(self._resultFile()):
            return ["Not ready yet."]
        result = self.readResult(self._resultFile())
        lines = [f"{result['n_particles']} of {result['n_particles_before']} particles are left."]
        removed = [f"{count} {WORDS[rule]}" for rule, count in result["removed"].items() if count]
        if removed:
            lines.append(f"Removed: {', '.join(removed)}.")
        if result["threshold"] is not None:
            lines.append(f"Score threshold {result['threshold']:.3f}: {result['reason']}.")
        elif result["reason"]:
            lines.append(f"{result['reason']}.")
        return lines + self._notes()

    def _methods(self) -> List[str]:
        rules, said = self._rules(), []
        if rules["score"] is not None:
            said.append("score (two groups of scores parted where there are two)" if rules["score"] == "auto"
                        else f"a score of {rules['score']:g} or more")
        if rules["distance"]:
            said.append(f"a distance of {rules['distance']:g} A or more from better particles")
        if rules["minProjections"]:
            said.append(f"{rules['minProjections']} projections or more")
        return [f"Particles were selected by {' and '.join(said)} (cspr)."] if said else []


def _score_errors(scores: NDArray[np.float64], asked: Any) -> List[str]:
    """Why particles of ``scores``, NaN where unknown, cannot be filtered by a score, a number or automatically."""
    if not np.isfinite(scores).any():
        return ["The particles have no scores: refine them first, or do not filter by score."]
    if asked != "auto" and not 0 <= asked <= np.nanmax(scores):
        return [f"Lowest score to keep: must be from 0 to {np.nanmax(scores):.2f}, the best that a particle has."]
    return []
