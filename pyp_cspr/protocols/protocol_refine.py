"""Refinement of particle poses and tilt geometry."""

from __future__ import annotations

import json
import math
import os
import shutil
from enum import Enum
from pathlib import Path
from typing import Any, Dict, List

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
from ..engine.io.config import write_toml
from ..engine.model.settings import of_iteration
from ..engine.model.task import ChunkTask
from ..engine.pipeline.store import RunStore, read_json, read_rows, write_json
from . import form as rows
from .adapters import checks, to_sets
from .adapters.landmarks import fill_landmarks
from .adapters.volumes import half_maps, volume_of, write_volume
from .base import ProtPypCsprParticles
from .jobs import remove, whole_json

MASKS = ("automatic, from the map", "none", "a given mask")
GIVEN_MASK = 2
DISPATCH = ("one job for all", "a job for each chunk")
ONE_JOB = 0
SURE = 3.0  # standard deviations: then the hand of the data is not as given


class RefineOutputs(Enum):
    """What there is after the run; CTFs only where defocus was refined."""

    particles = SetOfSubTomograms
    coordinates = SetOfCoordinates3D
    average = AverageSubTomogram
    tiltSeries = SetOfTiltSeries
    ctfs = SetOfCTFTomoSeries
    landmarks = SetOfLandmarkModels
    fscs = SetOfFSCs


class ProtPypCsprRefine(ProtPypCsprParticles):
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
        form.addSection(label="Resources")
        form.addParam("dispatch", params.EnumParam, choices=list(DISPATCH), default=ONE_JOB,
                      label="How to run",
                      help="One job is the fastest on one machine. A job for each chunk is for a cluster whose queue takes the "
                           "jobs of this protocol one by one: then each tilt series is refined by a job of its own, in each "
                           "iteration.")
        form.addParam("retries", params.IntParam, default=2, expertLevel=params.LEVEL_ADVANCED,
                      condition=f"dispatch!={ONE_JOB}", label="Tries after a failed job",
                      help="Of one chunk, before the run stops.")
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

    def _insertChunks(self, request: Dict[str, Any], before: List[int]) -> List[int]:
        """Steps plan -> chunks -> plan -> ...; a plan merges the chunks before it. Returns what the output waits for."""
        count = self.iterations.get()
        for iteration in range(count + 1):
            plan = self._insertFunctionStep(self.planStep, iteration, request, count, prerequisites=before, needsGPU=False)
            before = [
                self._insertFunctionStep(self.chunkStep, iteration, chunk, prerequisites=[plan], needsGPU=False)
                for chunk in range(self._chunkCount())
            ]
        return [self._insertFunctionStep(self.planStep, count + 1, request, count, prerequisites=before, needsGPU=False)]

    def _chunkCount(self) -> int:
        return math.ceil(len(self._commonSeries()) / max(1, self.tasksPerChunk.get()))

    def _values(self) -> Dict[str, Any]:
        return rows.values_of(self, rows.WHAT + rows.RESOLUTION + rows.RECONSTRUCTION)

    def _mask(self) -> Any:
        return self.inputMask.get() if self.maskSource.get() == GIVEN_MASK else None

    def _folder(self) -> str:
        return str(self._getExtraPath("refine"))

    def _halves(self) -> List[str]:
        """The reference's half maps, if each half-set is to start from its own."""
        return half_maps(self.inputReference.get()) if self.useHalfMaps.get() else []

    def _halfFiles(self) -> List[str]:
        return [str(self._getExtraPath(f"half{number}.mrc")) for number in (1, 2)]

    def volumesStep(self, reference: str, mask: str, box: int, pixel: float, halves: List[str]) -> None:
        """Write the reference, and the mask if one is given, on the map's grid."""
        box, pixel = write_volume(self.inputReference.get(), self._getExtraPath("reference.mrc"), box, pixel)
        if mask:
            write_volume(self._mask(), self._getExtraPath("mask.mrc"), box, pixel, mask=True)
        for source, target in zip(halves, self._halfFiles()):
            write_volume(volume_of(source, self.inputReference.get().getSamplingRate()), target, box, pixel)
        with open(self._getExtraPath("grid.json"), "w", encoding="utf-8") as stream:
            json.dump({"box": box, "pixel": pixel}, stream)

    def checkHandStep(self, inputs: List[Any]) -> None:
        """Stop where another hand fits the data clearly better."""
        result, log = str(self._getExtraPath("check.json")), str(self._getLogsPath("check.log"))
        remove(result)
        self.completeJob(lambda: whole_json(result) is not None, "check", self._dataFolder(), "--reference",
                         self._getExtraPath("reference.mrc"), "--threads", self._jobThreads(), "--json", output=result, log=log,
                         threads=self._jobThreads(), name="check", tries=self._tries())
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

    def _options(self, request: Dict[str, Any], iterations: int) -> List[Any]:
        """The engine's command line; what another request left in the run folder is removed."""
        request = dict(request, settings=dict(request["settings"], **self._grid()))
        settings, asked = str(self._getExtraPath("settings.toml")), str(self._getExtraPath("request.json"))
        write_toml(settings, request["settings"])
        if whole_json(asked) != request:
            self.cancelEarlier()
            shutil.rmtree(self._folder(), ignore_errors=True)
            write_json(Path(asked), request)
        source = self._getExtraPath("mask.mrc") if request["mask"] == GIVEN_MASK else ("auto", "none")[request["mask"]]
        halves = ["--halves", *self._halfFiles()] if self._halves() and checks.all_in_half_sets(self._dataFolder()) else []
        return ["refine", self._dataFolder(), "--reference", self._getExtraPath("reference.mrc"), *halves,
                "--out", self._folder(), "--mask", source, "--iterations", iterations, "--settings", settings,
                "--tasks-per-chunk", request["tasks_per_chunk"]]

    def _summaryFile(self) -> str:
        return os.path.join(self._folder(), "summary.json")

    def _tries(self) -> int:
        return 1 + max(0, self.retries.get())

    def refineStep(self, request: Dict[str, Any], iterations: int) -> None:
        """One job of the engine, which goes on where it was if it was stopped."""
        self.waitForEarlier("refine")
        remove(self._summaryFile())  # of fewer or more iterations: a job that fails must not look as if it had not
        options = self._options(request, iterations)
        options += ["--processes", self._concurrency(), "--threads", self._jobThreads(), "--memory", self.memory.get()]
        self.completeJob(lambda: whole_json(self._summaryFile()) is not None, *options, name="refine",
                         tries=self._tries() if self.useQueueForSteps() else 1,
                         threads=self._concurrency() * self._jobThreads())

    def _planFile(self, iteration: int) -> str:
        return str(self._getExtraPath(f"plan_{iteration:03d}.json"))

    def planStep(self, iteration: int, request: Dict[str, Any], iterations: int) -> None:
        """Merge the chunks of the iteration before, and plan this one; nothing is left to do where the run has converged, or
        where this iteration was done before, with another number of iterations asked for."""
        path = self._planFile(iteration)
        if iteration and not self._isPlanned(iteration - 1):
            shutil.copyfile(self._planFile(iteration - 1), path)
            return
        name = f"plan_{iteration:03d}"
        self.waitForEarlier(name)
        remove(self._summaryFile())
        remove(path)
        options = self._options(request, iterations) + ["--chunks-elsewhere", "--json"]
        options += ["--processes", 1, "--threads", self._jobThreads(), "--memory", self.memory.get()]
        self.completeJob(lambda: whole_json(path) is not None, *options, name=name, tries=self._tries(), output=path,
                         log=str(self._getLogsPath(f"{name}.log")), threads=self._jobThreads())
        result = self.readResult(path)
        if "tasks" not in result:
            self.readResult(self._summaryFile())
        elif result["iteration"] < iteration:
            raise RuntimeError(f"iteration {result['iteration']} has chunks that are not done: {', '.join(result['tasks'])}")

    def _isPlanned(self, iteration: int) -> bool:
        """Whether the chunks of this iteration are to be run: not after the run has converged."""
        planned = self.readResult(self._planFile(iteration))
        return "tasks" in planned and int(planned["iteration"]) == iteration

    def chunkStep(self, iteration: int, chunk: int) -> None:
        """One job of the engine for one chunk, tried again where it leaves no whole result; a finished one is kept."""
        if not self._isPlanned(iteration):
            return
        store = RunStore(os.path.join(self._folder(), "iterations", f"{iteration:03d}"))
        if chunk >= len(store.task_paths()):
            return
        task = ChunkTask.from_dict(read_json(store.task_path(chunk)), str(store.task_path(chunk)))
        name = f"iteration_{iteration:03d}_chunk_{chunk:04d}"
        log, tries = str(self._getLogsPath(f"{name}.log")), self._tries()
        try:
            self.completeJob(lambda: store.manifest(task) is not None, "chunk", store.task_path(chunk), "--threads",
                             self._jobThreads(), "--memory", self.memory.get() / self._concurrency(), log=log, name=name,
                             threads=self._jobThreads(), tries=tries)
        except RuntimeError as error:
            raise RuntimeError(f"chunk {chunk} of iteration {iteration} ({', '.join(task.series)}) failed {tries} times; "
                               f"its log: {log}. Continue the run when the cause is gone: what is done is kept.\n"
                               f"{error}") from None

    def _concurrency(self) -> int:
        """Jobs at a time: one of the host's threads is the master's."""
        return max(1, self.numberOfThreads.get() - 1)

    def _jobThreads(self) -> int:
        return max(1, self.binThreads.get())

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
        diameter = coordinates.getBoxSize() * coordinates.getSamplingRate()
        fill_landmarks(shown, self._getExtraPath("landmarks"), series, owner, conversion, result, diameter)
        self._defineOutputs(**{RefineOutputs.landmarks.name: shown})
        if to_sets.defocus_moved(conversion, result):
            ctfs = self._createSet(SetOfCTFTomoSeries, "ctfs%s.sqlite", "")
            to_sets.fill_ctfs(ctfs, self.inputCTFs.get(), owner, conversion, result)
            self._defineOutputs(**{RefineOutputs.ctfs.name: ctfs})
            self._defineTransformRelation(self.inputCTFs, ctfs)
            self._defineSourceRelation(series, ctfs)
        self._defineTransformRelation(self.inputParticles, particles)
        self._defineTransformRelation(self.inputTiltSeries, series)
        for target in (coordinates, outputs[RefineOutputs.average.name], curves):
            self._defineSourceRelation(self.inputParticles, target)
        for target in (coordinates, shown):  # the host follows the last relation first
            self._defineSourceRelation(series, target)
        if self._halves() and not conversion.dataset.particles["half"].all():
            notes.append("The particles have no half-sets: both started from the reference, not from its half maps")
        self._say(conversion.notes + notes)

    def _grid(self) -> Dict[str, Any]:
        return self.readResult(str(self._getExtraPath("grid.json")))

    # --- information --------------------------------------------------------------------------------------------------

    def _validate(self) -> List[str]:
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
            warnings += checks.resolution_warnings(self._values()["resolution"], pixel)
        if self.priorThirdAngle.get() > 0:
            warnings.append("An X-tilt is refined, which Scipion's tilt series cannot hold: the average has it, sets do not.")
        rare = (self.priorDeformation, self.priorParticleDefocus, self.priorRegionalDefocus, self.priorMagnification)
        if any(prior.get() > 0 for prior in rare):
            warnings.append("Deformations, magnifications and the defocus of particles and regions cannot be held by Scipion's "
                            "sets: the average has them, sets do not.")
        if self.sameReference.get() or not self.halfReferences.get():
            warnings.append("The half-sets are not refined independently: the FSC will be too good.")
        return warnings

    def _summary(self) -> List[str]:
        if not os.path.exists(self._summaryFile()):
            return ["Not ready yet."]
        result = self.readResult(self._summaryFile())
        resolution = result["resolution_0143"]
        lines = [self._counts(result),
                 f"Resolution (FSC 0.143, corrected for the mask): {'none' if resolution is None else f'{resolution:.2f} A'} "
                 f"after {len(result['iterations']) - 1} iterations; {result['reason']}.",
                 f"Report: {os.path.join(self._folder(), 'report.html')}"]
        return lines + self._notes()

    def _methods(self) -> List[str]:
        return ["Particle poses and tilt-series geometry were refined together against the tilt images by constrained "
                "single-particle refinement (cspr), each half-set against its own map."]
