"""Refinement of particle poses and tilt geometry."""

from __future__ import annotations

import json
import os
from enum import Enum
from pathlib import Path
from typing import Any, Dict, List, Tuple

from pwem.objects import SetOfFSCs
from pyworkflow.object import Pointer
from pyworkflow.protocol import params
from pyworkflow.protocol.constants import STEPS_PARALLEL
from tomo.objects import (
    AverageSubTomogram,
    SetOfCoordinates3D,
    SetOfCTFTomoSeries,
    SetOfLandmarkModels,
    SetOfSubTomograms,
    SetOfTiltSeries,
)

from ..engine.errors import InputError
from ..engine.model.settings import of_iteration
from ..engine.pipeline.store import read_rows
from . import form as rows
from .adapters import checks, to_sets
from .adapters.landmarks import fill_landmarks
from .adapters.volumes import volume_of, write_volume
from .base import GIVEN_MASK
from .refine_jobs import RefineJobs

MASKS = ("automatic, from the map", "none", "a given mask")
DISPATCH = ("one job for all", "a job for each chunk")
ONE_JOB = 0


class RefineOutputs(Enum):
    """What there is after the run; CTFs only where defocus was refined."""

    particles = SetOfSubTomograms
    coordinates = SetOfCoordinates3D
    average = AverageSubTomogram
    tiltSeries = SetOfTiltSeries
    ctfs = SetOfCTFTomoSeries
    landmarks = SetOfLandmarkModels
    fscs = SetOfFSCs


class ProtPypCsprRefine(RefineJobs):
    """Refines the rotations and positions of particles together with the geometry of the tilt images that show them
    (constrained single-particle refinement), against the projections themselves, and reconstructs: the step after
    sub-volume averaging. Each half-set is refined against its own map.

    Outputs: the particles with new transforms, scores and half-sets; their coordinates; the average with half maps; the tilt
    series with new alignment; their CTFs where defocus was refined; landmarks that show where the particles are in the tilt
    images; Fourier shell correlations.
    """

    _label = "refine tilt series"
    _possibleOutputs = RefineOutputs
    stepsExecutionMode = STEPS_PARALLEL

    # --- form ---------------------------------------------------------------------------------------------------------

    def _defineParams(self, form: Any) -> None:
        self._addInput(form)
        form.addParam("inputReference", params.PointerParam, pointerClass="Volume", important=True, label="Reference volume",
                      help="The average of the sub-tomograms, white particle. It gives the box and pixel of the refined map; "
                           "other ones can be given in Reconstruction.")
        form.addParam("useHalfMaps", params.BooleanParam, default=True, expertLevel=params.LEVEL_ADVANCED,
                      label="Start each half-set from its own half map?",
                      help="Where the reference has half maps and the particles half-sets: what was kept apart stays so. Say "
                           "no if the half maps are not of the half-sets that the particles have.")
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
        form.addSection(label="Selection")
        rows.add_rows(form, rows.SELECTION + rows.INFORMING)
        form.addSection(label="Resources")
        form.addParam("dispatch", params.EnumParam, choices=list(DISPATCH), default=ONE_JOB,
                      label="How to run",
                      help="One job is the fastest on one machine. A job for each chunk is for a cluster whose queue takes the "
                           "jobs of this protocol one by one: then each tilt series is refined by a job of its own, in each "
                           "iteration.")
        form.addParam("retries", params.IntParam, default=2, expertLevel=params.LEVEL_ADVANCED,
                      label="Tries after a failed job",
                      help="Of each job in a queue, before the run stops; on this machine, of a chunk's job that was killed.")
        self._addChunks(form)
        form.addParallelSection(threads=3, mpi=0, binThreads=2, binThreadsHelp="Threads of each chunk's process or job.")

    # --- steps --------------------------------------------------------------------------------------------------------

    def _insertAllSteps(self) -> None:
        mask = self._mask()
        volumes = [self.inputReference.get().getFileName(), mask.getFileName() if mask else "", self.mapBox.get(),
                   self.mapPixel.get(), self._halves()]
        self._insertConvert()
        self._insertFunctionStep(self.volumesStep, *volumes, needsGPU=False)
        inputs = [*self._inputIds(), self._hand(), self.darkParticles.get(), *volumes]
        if self.checkHand.get():
            self._insertFunctionStep(self.checkHandStep, inputs, needsGPU=False)
        request = {"inputs": inputs, "settings": self._values(), "mask": self.maskSource.get(),
                   "tasks_per_chunk": self.tasksPerChunk.get()}
        before = [len(self._steps)]
        if self.dispatch.get() == ONE_JOB:
            before = [self._insertFunctionStep(self.refineStep, request, self.iterations.get(), prerequisites=before,
                                               needsGPU=False)]
        else:
            before = self._insertChunks(request, before)
        self._insertFunctionStep(self.createOutputStep, self.iterations.get(), prerequisites=before, needsGPU=False)

    def _inputIds(self) -> Tuple[int, ...]:
        """Those of the volumes as well: other ones may have the same file names."""
        volumes = (self.inputReference.get(), self._mask())
        return (*super()._inputIds(), *(volume.getObjId() for volume in volumes if volume is not None))

    def _values(self) -> Dict[str, Any]:
        return rows.values_of(self, rows.ROWS)

    def volumesStep(self, reference: str, mask: str, box: int, pixel: float, halves: List[str]) -> None:
        """Write the reference, and the mask if one is given, on the map's grid."""
        box, pixel = write_volume(self.inputReference.get(), self._getExtraPath("reference.mrc"), box, pixel)
        if mask:
            write_volume(self._mask(), self._getExtraPath("mask.mrc"), box, pixel, mask=True)
        for source, target in zip(halves, self._halfFiles()):
            write_volume(volume_of(source, self.inputReference.get().getSamplingRate()), target, box, pixel)
        with open(self._getExtraPath("grid.json"), "w", encoding="utf-8") as stream:
            json.dump({"box": box, "pixel": pixel}, stream)

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
        owner = Pointer(self, extended=RefineOutputs.tiltSeries.name)
        shown = self._createSet(SetOfLandmarkModels, "landmarks%s.sqlite", "")
        fill_landmarks(shown, self._getExtraPath("landmarks"), series, owner, conversion, result, self._diameter(coordinates))
        self._defineOutputs(**{RefineOutputs.landmarks.name: shown})
        # The host keeps an output of an earlier execution whatever this one does, so it must not keep old numbers.
        if to_sets.defocus_moved(conversion, result) or os.path.exists(self._getPath("ctfs.sqlite")):
            ctfs = self._createSet(SetOfCTFTomoSeries, "ctfs%s.sqlite", "")
            to_sets.fill_ctfs(ctfs, self.inputCTFs.get(), owner, conversion, result)
            self._defineOutputs(**{RefineOutputs.ctfs.name: ctfs})
            self._defineTransformRelation(self.inputCTFs, ctfs)
            self._defineSourceRelation(series, ctfs)
        self._defineTransformRelation(self.inputParticles, particles)
        self._defineTransformRelation(self.inputTiltSeries, series)
        for target in (coordinates, outputs[RefineOutputs.average.name], curves):
            self._defineSourceRelation(self.inputParticles, target)
        for target in (particles, coordinates, shown):  # the host follows the last relation first
            self._defineSourceRelation(series, target)
        if self._halves() and not conversion.dataset.particles["half"].all():
            notes.append("The particles have no half-sets: both started from the reference, not from its half maps")
        self._say(conversion.notes + notes)

    def _diameter(self, coordinates: Any) -> float:
        """Of the particles' boxes, angstrom; of the map's where the coordinates have none."""
        box = coordinates.getBoxSize()
        grid = self._grid()
        return float(box * coordinates.getSamplingRate() if box else grid["box"] * grid["pixel"])

    # --- information --------------------------------------------------------------------------------------------------

    def _errors(self) -> List[str]:
        errors = self._validateInput()
        if self.iterations.get() < 0:
            errors.append("Iterations: must be 0 or above.")
        if self.retries.get() < 0:
            errors.append("Tries after a failed job: must be 0 or above.")
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
        missing = [name for name in self._halves() if not os.path.exists(name)]
        if missing:
            return [f"The reference's half map {missing[0]} does not exist: do not start from half maps, or take another one."]
        if len(set(size)) != 1:
            return [f"The reference is {size[0]} x {size[1]} x {size[2]} voxels: it must be a cube."]
        if not self.mapBox.get() and size[0] % 2:
            return [f"The reference's box, {size[0]}, is odd: give an even box of the map, and it is resampled."]
        if mask is not None and (mask.getDim() != size or abs(mask.getSamplingRate() / reference.getSamplingRate() - 1) > 0.01):
            return ["The mask has another box or pixel than the reference."]
        return self._validateGrid(self.mapBox.get() or size[0], self.mapPixel.get() or reference.getSamplingRate())

    def _warnings(self) -> List[str]:
        warnings: List[str] = super()._warnings()
        particles, reference = self.inputParticles.get(), self.inputReference.get()
        if particles is not None and reference is not None:
            warnings += checks.reference_warnings(particles, reference)
            pixel = self.mapPixel.get() or reference.getSamplingRate()
            for name in ("resolution", "map_resolution"):
                warnings += checks.resolution_warnings(self._values()[name], pixel)
        if self.priorThirdAngle.get() > 0:
            warnings.append("An X-tilt is refined, which Scipion's tilt series cannot hold: the average has it, sets do not.")
        rare = (self.priorDeformation, self.priorParticleDefocus, self.priorRegionalDefocus)
        if any(prior.get() > 0 for prior in rare):
            warnings.append("Deformations and the defocus of particles and regions cannot be held by Scipion's sets: the "
                            "average has them, sets do not.")
        if self.sameReference.get() or not self.halfReferences.get():
            warnings.append("The half-sets are not refined independently: the FSC will be too good.")
        return warnings

    def _summary(self) -> List[str]:
        if not os.path.exists(self._summaryFile()):
            return ["Not ready yet."]
        result = self.readResult(self._summaryFile())
        count = len(result["iterations"]) - 1
        lines = [self._counts(result),
                 f"{self._resolution(result)} after {count} iteration{'' if count == 1 else 's'}; {result['reason']}.",
                 f"Report: {os.path.join(self._folder(), 'report.html')}"]
        return lines + self._notes()

    def _methods(self) -> List[str]:
        independent = self.halfReferences.get() and not self.sameReference.get()
        return ["Particle poses and tilt-series geometry were refined together against the tilt images by constrained "
                "single-particle refinement (cspr), " +
                ("each half-set against its own map." if independent else "both half-sets against the same map.")]
