"""Refinement of particle poses and tilt geometry."""

from __future__ import annotations

import json
import os
from enum import Enum
from pathlib import Path
from typing import Any, Dict, List

from pwem.objects import SetOfFSCs
from pyworkflow.object import Pointer
from pyworkflow.protocol import params
from tomo.objects import AverageSubTomogram, SetOfCoordinates3D, SetOfCTFTomoSeries, SetOfSubTomograms, SetOfTiltSeries

from ..engine.errors import InputError
from ..engine.io.config import write_toml
from ..engine.model.settings import of_iteration
from ..engine.pipeline.store import read_rows
from . import form as rows
from .adapters import to_sets
from .adapters.volumes import write_volume
from .base import ProtPypCsprParticles

MASKS = ("automatic, from the map", "none", "a given mask")
GIVEN_MASK = 2
SURE = 3.0  # standard deviations: then the hand of the data is not as given


class RefineOutputs(Enum):
    """What there is after the run; CTFs only where defocus was refined."""

    particles = SetOfSubTomograms
    coordinates = SetOfCoordinates3D
    average = AverageSubTomogram
    tiltSeries = SetOfTiltSeries
    ctfs = SetOfCTFTomoSeries
    fscs = SetOfFSCs


class ProtPypCsprRefine(ProtPypCsprParticles):
    """Refines the rotations and positions of particles together with the geometry of the tilt images that show them
    (constrained single-particle refinement), against the projections themselves, and reconstructs: the step after
    sub-volume averaging. Each half-set is refined against its own map.

    Outputs: the particles with new transforms, scores and half-sets; their coordinates; the average with half maps; the tilt
    series with new alignment; their CTFs where defocus was refined; Fourier shell correlations.
    """

    _label = "refine tilt series"
    _possibleOutputs = RefineOutputs

    # --- form ---------------------------------------------------------------------------------------------------------

    def _defineParams(self, form: Any) -> None:
        self._addInput(form)
        form.addParam("inputReference", params.PointerParam, pointerClass="Volume", important=True, label="Reference volume",
                      help="The average of the sub-tomograms, white particle. It gives the box and pixel of the refined map; "
                           "other ones can be given in Reconstruction.")
        form.addParam("maskSource", params.EnumParam, choices=list(MASKS), default=0, label="Mask of the reference",
                      help="The automatic one is soft and follows the particle.")
        form.addParam("inputMask", params.PointerParam, pointerClass="VolumeMask", allowsNull=True, label="Mask",
                      condition=f"maskSource=={GIVEN_MASK}", help="From 0 to 1, on the reference's grid.")
        form.addParam("checkHand", params.BooleanParam, default=True, expertLevel=params.LEVEL_ADVANCED,
                      label="Check the hand first?",
                      help="Scores some particles with both signs of the tilt angles, of the defocus hand and the reference, "
                           "and stops where another choice is clearly better.")
        form.addSection(label="What to refine")
        rows.add_rows(form, rows.WHAT)
        form.addSection(label="Resolution and iterations")
        form.addParam("iterations", params.IntParam, default=4, label="Iterations, at most",
                      help="Each refines all and reconstructs. The run ends earlier where nothing changes any more. 0 only "
                           "reconstructs.")
        rows.add_rows(form, rows.RESOLUTION)
        form.addSection(label="Reconstruction")
        form.addParam("mapBox", params.IntParam, default=0, label="Box of the map (pixels, 0: the reference's)",
                      help="Even. The reference is resampled.")
        form.addParam("mapPixel", params.FloatParam, default=0.0, label="Pixel of the map (A, 0: the reference's)",
                      help="Not finer than the tilt images. The reference is resampled.")
        rows.add_rows(form, rows.RECONSTRUCTION)
        self._addParallel(form)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _insertAllSteps(self) -> None:
        reference, mask = self.inputReference.get(), self._mask()
        self._insertConvert()
        self._insertFunctionStep(self.volumesStep, reference.getFileName(), mask.getFileName() if mask else "",
                                 self.mapBox.get(), self.mapPixel.get(), needsGPU=False)
        if self.checkHand.get():
            self._insertFunctionStep(self.checkHandStep, self._hand(), needsGPU=False)
        self._insertFunctionStep(self.refineStep, self._values(), self.iterations.get(), self.tasksPerChunk.get(),
                                 self.maskSource.get(), needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, self.iterations.get(), needsGPU=False)

    def _values(self) -> Dict[str, Any]:
        return rows.values_of(self, rows.WHAT + rows.RESOLUTION + rows.RECONSTRUCTION)

    def _mask(self) -> Any:
        return self.inputMask.get() if self.maskSource.get() == GIVEN_MASK else None

    def _folder(self) -> str:
        return str(self._getExtraPath("refine"))

    def volumesStep(self, reference: str, mask: str, box: int, pixel: float) -> None:
        """Write the reference, and the mask if one is given, on the map's grid."""
        box, pixel = write_volume(self.inputReference.get(), self._getExtraPath("reference.mrc"), box, pixel)
        if mask:
            write_volume(self._mask(), self._getExtraPath("mask.mrc"), box, pixel, mask=True)
        with open(self._getExtraPath("grid.json"), "w", encoding="utf-8") as stream:
            json.dump({"box": box, "pixel": pixel}, stream)

    def checkHandStep(self, hand: int) -> None:
        """Stop where another hand fits the data clearly better."""
        result = str(self._getExtraPath("check.json"))
        self.runEngine("check", self._dataFolder(), "--reference", self._getExtraPath("reference.mrc"), "--threads",
                       self.numberOfThreads.get(), "--json", output=result)
        signs = self.readResult(result)["signs"]
        given = next(one for one in signs if one["tilt_sign"] > 0 and one["hand"] > 0 and not one["mirrored_reference"])
        best = signs[0]
        if given is not best and given["sigmas"] >= SURE:
            advice = [text for wrong, text in ((best["tilt_sign"] < 0, "negate the tilt angles"),
                                               (best["hand"] < 0, "take the other defocus handedness"),
                                               (best["mirrored_reference"], "mirror the reference")) if wrong]
            raise RuntimeError(f"The data fit better if you {' and '.join(advice)}: mean score {best['score']:.2f} against "
                               f"{given['score']:.2f} as given, {given['sigmas']:.1f} standard errors. Change it, or turn off "
                               "'Check the hand first?'.")

    def refineStep(self, values: Dict[str, Any], iterations: int, tasks_per_chunk: int, mask: int) -> None:
        """One job of the engine, which goes on where it was if it was stopped."""
        grid = self.readResult(str(self._getExtraPath("grid.json")))
        request: Dict[str, Any] = {"settings": dict(values, **grid), "mask": mask, "tasks_per_chunk": tasks_per_chunk}
        settings, asked = str(self._getExtraPath("settings.toml")), str(self._getExtraPath("request.json"))
        write_toml(settings, request["settings"])
        same = os.path.exists(asked) and self.readResult(asked) == request
        with open(asked, "w", encoding="utf-8") as stream:
            json.dump(request, stream)
        summary = os.path.join(self._folder(), "summary.json")
        if os.path.exists(summary):
            os.remove(summary)  # of fewer or more iterations
        source = self._getExtraPath("mask.mrc") if mask == GIVEN_MASK else ("auto", "none")[mask]
        options = ["--mask", source, "--iterations", iterations, "--settings", settings, "--tasks-per-chunk", tasks_per_chunk]
        self.runEngine("refine", self._dataFolder(), "--reference", self._getExtraPath("reference.mrc"), "--out",
                       self._folder(), *options, *self._machine(tasks_per_chunk), *([] if same else ["--overwrite"]))
        self.readResult(summary)

    def createOutputStep(self, iterations: int) -> None:
        """The sets of the refined data."""
        conversion = self._convert()
        result = read_rows(Path(self._folder()) / "result.npz")
        particles, coordinates = self._newParticles(conversion, result)
        outputs: Dict[str, Any] = {RefineOutputs.particles.name: particles, RefineOutputs.coordinates.name: coordinates}
        outputs[RefineOutputs.average.name] = to_sets.average(self._folder(), self._grid()["pixel"])
        series = self._createSetOfTiltSeries()
        notes = to_sets.fill_tilt_series(series, self.inputTiltSeries.get(), conversion, result)
        outputs[RefineOutputs.tiltSeries.name] = series
        curves = SetOfFSCs.create(self._getPath())
        to_sets.fill_curves(curves, self._folder())
        outputs[RefineOutputs.fscs.name] = curves
        self._defineOutputs(**outputs)
        if to_sets.defocus_moved(conversion, result):
            ctfs = self._createSet(SetOfCTFTomoSeries, "ctfs%s.sqlite", "")
            owner = Pointer(self, extended=RefineOutputs.tiltSeries.name)
            to_sets.fill_ctfs(ctfs, self.inputCTFs.get(), owner, conversion, result)
            self._defineOutputs(**{RefineOutputs.ctfs.name: ctfs})
            self._defineTransformRelation(self.inputCTFs, ctfs)
            self._defineSourceRelation(series, ctfs)
        self._defineTransformRelation(self.inputParticles, particles)
        self._defineTransformRelation(self.inputTiltSeries, series)
        for target in (coordinates, outputs[RefineOutputs.average.name], curves):
            self._defineSourceRelation(self.inputParticles, target)
        self._say(conversion.notes + notes)

    def _grid(self) -> Dict[str, Any]:
        return self.readResult(str(self._getExtraPath("grid.json")))

    # --- information --------------------------------------------------------------------------------------------------

    def _validate(self) -> List[str]:
        errors = self._validateInput()
        if self.iterations.get() < 0:
            errors.append("Iterations: must be 0 or above.")
        try:
            values = self._values()
            values.update(box=self.mapBox.get(), pixel=self.mapPixel.get())
            for iteration in range(1, max(self.iterations.get(), 1) + 1):
                of_iteration(values, iteration, "Form")
        except InputError as error:
            errors.append(self._plainly(error))
        if not errors and self.inputReference.get() is not None and self.inputTiltSeries.get() is not None:
            errors += self._validateVolumes()
        return errors

    def _validateVolumes(self) -> List[str]:
        reference, mask = self.inputReference.get(), self._mask()
        size = reference.getDim()
        if self.maskSource.get() == GIVEN_MASK and mask is None:
            return ["Mask: choose one, or another kind of mask."]
        if size is None:
            return [f"The reference {reference.getFileName()} does not exist."]
        if len(set(size)) != 1:
            return [f"The reference is {size[0]} x {size[1]} x {size[2]} voxels: it must be a cube."]
        if not self.mapBox.get() and size[0] % 2:
            return [f"The reference's box, {size[0]}, is odd: give an even box of the map, and it is resampled."]
        if mask is not None and (mask.getDim() != size or abs(mask.getSamplingRate() / reference.getSamplingRate() - 1) > 0.01):
            return ["The mask has another box or pixel than the reference."]
        return self._validateGrid(self.mapBox.get() or size[0], self.mapPixel.get() or reference.getSamplingRate())

    def _warnings(self) -> List[str]:
        warnings = []
        if self.priorThirdAngle.get() > 0:
            warnings.append("An X-tilt is refined, which Scipion's tilt series cannot hold: the average has it, sets do not.")
        if self.sameReference.get() or not self.halfReferences.get():
            warnings.append("The half-sets are not refined independently: the FSC will be too good.")
        return warnings

    def _summary(self) -> List[str]:
        summary = os.path.join(self._folder(), "summary.json")
        if not os.path.exists(summary):
            return ["Not ready yet."]
        result = self.readResult(summary)
        resolution = result["resolution_0143"]
        lines = [self._counts(result),
                 f"Resolution (FSC 0.143, corrected for the mask): {'none' if resolution is None else f'{resolution:.2f} A'} "
                 f"after {len(result['iterations']) - 1} iterations; {result['reason']}.",
                 f"Report: {os.path.join(self._folder(), 'report.html')}"]
        return lines + self._notes()

    def _methods(self) -> List[str]:
        return ["Particle poses and tilt-series geometry were refined together against the tilt images by constrained "
                "single-particle refinement (cspr), each half-set against its own map."]
