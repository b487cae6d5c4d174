"""Reconstruction at the poses that the particles have."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any, Dict, List

from pwem.objects import SetOfFSCs
from pyworkflow.protocol import params
from tomo.objects import AverageSubTomogram

from ..engine.errors import InputError
from ..engine.io.config import write_toml
from ..engine.model.settings import ReconstructSettings
from . import form as rows
from .adapters import to_sets
from .adapters.from_sets import box_of
from .base import ProtPypCsprParticles

KNOWN = ReconstructSettings().to_dict()
RECONSTRUCTION = tuple(row for row in rows.RECONSTRUCTION if row.setting in KNOWN)  # nothing is measured for other weights


class ReconstructOutputs(Enum):
    """What there is after the run."""

    average = AverageSubTomogram
    fscs = SetOfFSCs


class ProtPypCsprReconstruct(ProtPypCsprParticles):
    """Reconstructs the average of the particles from the tilt images themselves, at the poses and alignment that they have,
    with half maps and their Fourier shell correlation. Nothing is refined.
    """

    _label = "reconstruct from tilt series"
    _possibleOutputs = ReconstructOutputs

    def _defineParams(self, form: Any) -> None:
        self._addInput(form)
        form.addSection(label="Reconstruction")
        form.addParam("mapBox", params.IntParam, default=0, help="Even.",
                      label="Box of the map (pixels, 0: the sub-tomograms')")
        form.addParam("mapPixel", params.FloatParam, default=0.0, label="Pixel of the map (A, 0: the sub-tomograms')",
                      help="Not finer than the tilt images. Unbinned sub-tomograms are not needed for an unbinned map.")
        rows.add_rows(form, RECONSTRUCTION)
        form.addSection(label="Selection")
        rows.add_rows(form, rows.SELECTION)
        self._addParallel(form)

    def _insertAllSteps(self) -> None:
        self._insertConvert()
        self._insertFunctionStep(self.reconstructStep, self._values(), self.tasksPerChunk.get(), needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, needsGPU=False)

    def _values(self) -> Dict[str, Any]:
        return dict(rows.values_of(self, RECONSTRUCTION + rows.SELECTION), box=self.mapBox.get(), pixel=self.mapPixel.get())

    def _folder(self) -> str:
        return str(self._getExtraPath("reconstruct"))

    def reconstructStep(self, values: Dict[str, Any], tasks_per_chunk: int) -> None:
        """One job of the engine."""
        settings = str(self._getExtraPath("settings.toml"))
        write_toml(settings, values)
        self.runForResult(self._summaryFile(), "reconstruct", self._dataFolder(), "--out", self._folder(), "--settings",
                          settings, "--tasks-per-chunk", tasks_per_chunk, *self._machine(tasks_per_chunk), "--overwrite")

    def createOutputStep(self) -> None:
        """The average and its curves."""
        grid = self.readResult(os.path.join(self._folder(), "run.json"))["grid"]
        average = to_sets.average(self._folder(), grid["pixel"])
        curves = SetOfFSCs.create(self._getPath())
        to_sets.fill_curves(curves, self._folder())
        self._defineOutputs(**{ReconstructOutputs.average.name: average, ReconstructOutputs.fscs.name: curves})
        for target in (average, curves):
            self._defineSourceRelation(self.inputParticles, target)
            self._defineSourceRelation(self.inputTiltSeries, target)

    def _errors(self) -> List[str]:
        errors = self._validateInput()
        try:
            ReconstructSettings.from_dict(self._values(), "Form")
        except InputError as error:
            errors.append(self._plainly(error))
        particles = self.inputParticles.get()
        if not errors and particles is not None and self.inputTiltSeries.get() is not None:
            pixel = self.mapPixel.get() or particles.getSamplingRate()
            box = self.mapBox.get() or round(box_of(particles) * particles.getSamplingRate() / pixel)
            errors += self._validateGrid(box, pixel)
            if not box:
                errors.append("The box of the sub-tomograms is not known: give a box of the map.")
        return errors

    def _summary(self) -> List[str]:
        if not os.path.exists(self._summaryFile()):
            return ["Not ready yet."]
        result = self.readResult(self._summaryFile())
        return [self._counts(result), f"{self._resolution(result)}.",
                f"Report: {os.path.join(self._folder(), 'report.html')}"] + self._notes()

    def _methods(self) -> List[str]:
        return ["The average was reconstructed from the tilt images, at the particles' poses and the alignment of the tilt "
                f"series (cspr){', the images weighted by their doses' if self.doseWeighting.get() else ''}."]
