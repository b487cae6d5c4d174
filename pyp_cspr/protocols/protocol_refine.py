"""Refinement of particle poses and tilt geometry."""

from __future__ import annotations

import json
import math
import os
import shutil
from enum import Enum
from pathlib import Path
from typing import Any, Dict, List, Tuple

from pwem.objects import SetOfFSCs
from pyworkflow.object import Pointer
from pyworkflow.protocol import params
from pyworkflow.protocol.constants import STEPS_PARALLEL
from tomo.objects import AverageSubTomogram, SetOfCoordinates3D, SetOfCTFTomoSeries, SetOfSubTomograms, SetOfTiltSeries

from ..engine.errors import InputError
from ..engine.io.config import write_toml
from ..engine.model.settings import of_iteration
from ..engine.model.task import ChunkTask
from ..engine.pipeline.store import RunStore, read_json, read_rows
from . import form as rows
from .adapters import to_sets
from .adapters.volumes import write_volume
from .base import ProtPypCsprParticles

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
    stepsExecutionMode = STEPS_PARALLEL

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
        reference, mask = self.inputReference.get(), self._mask()
        self._insertConvert()
        self._insertFunctionStep(self.volumesStep, reference.getFileName(), mask.getFileName() if mask else "",
                                 self.mapBox.get(), self.mapPixel.get(), needsGPU=False)
        if self.checkHand.get():
            self._insertFunctionStep(self.checkHandStep, self._hand(), needsGPU=False)
        request = (self._values(), self.iterations.get(), self.tasksPerChunk.get(), self.maskSource.get())
        before = [len(self._steps)]
        if self.dispatch.get() == ONE_JOB:
            before = [self._insertFunctionStep(self.refineStep, *request, prerequisites=before, needsGPU=False)]
        else:
            before = self._insertChunks(request, before)
        self._insertFunctionStep(self.createOutputStep, self.iterations.get(), prerequisites=before, needsGPU=False)

    def _insertChunks(self, request: Tuple, before: List[int]) -> List[int]:
        """Steps plan -> chunks -> plan -> ...; a plan merges the chunks before it. Returns what the output waits for."""
        for iteration in range(self.iterations.get() + 1):
            plan = self._insertFunctionStep(self.planStep, iteration, *request, prerequisites=before, needsGPU=False)
            before = [
                self._insertFunctionStep(self.chunkStep, iteration, chunk, prerequisites=[plan], needsGPU=False)
                for chunk in range(self._chunkCount())
            ]
        last = self.iterations.get() + 1
        return [self._insertFunctionStep(self.planStep, last, *request, prerequisites=before, needsGPU=False)]

    def _chunkCount(self) -> int:
        return math.ceil(len(self._commonSeries()) / max(1, self.tasksPerChunk.get()))

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
                       self._jobThreads(), "--json", output=result, threads=self._jobThreads())
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

    def _options(self, values: Dict[str, Any], iterations: int, tasks_per_chunk: int, mask: int) -> List[Any]:
        """The engine's command line; what another request left in the run folder is removed."""
        grid = self.readResult(str(self._getExtraPath("grid.json")))
        request: Dict[str, Any] = {"settings": dict(values, **grid), "mask": mask, "tasks_per_chunk": tasks_per_chunk}
        settings, asked = str(self._getExtraPath("settings.toml")), str(self._getExtraPath("request.json"))
        write_toml(settings, request["settings"])
        if not os.path.exists(asked) or self.readResult(asked) != request:
            shutil.rmtree(self._folder(), ignore_errors=True)
        with open(asked, "w", encoding="utf-8") as stream:
            json.dump(request, stream)
        source = self._getExtraPath("mask.mrc") if mask == GIVEN_MASK else ("auto", "none")[mask]
        options = ["--mask", source, "--iterations", iterations, "--settings", settings, "--tasks-per-chunk", tasks_per_chunk]
        data = ["refine", self._dataFolder(), "--reference", self._getExtraPath("reference.mrc"), "--out", self._folder()]
        return data + options

    def _summaryFile(self) -> str:
        return os.path.join(self._folder(), "summary.json")

    def _removeSummary(self) -> None:
        if os.path.exists(self._summaryFile()):
            os.remove(self._summaryFile())  # of fewer or more iterations: a job that fails must not look as if it had not

    def refineStep(self, values: Dict[str, Any], iterations: int, tasks_per_chunk: int, mask: int) -> None:
        """One job of the engine, which goes on where it was if it was stopped."""
        self._removeSummary()
        options = self._options(values, iterations, tasks_per_chunk, mask)
        self.runEngine(*options, *self._machine(tasks_per_chunk), threads=self._concurrency() * self._jobThreads())
        self.readResult(self._summaryFile())

    def _planFile(self, iteration: int) -> str:
        return str(self._getExtraPath(f"plan_{iteration:03d}.json"))

    def planStep(self, iteration: int, values: Dict[str, Any], iterations: int, tasks_per_chunk: int, mask: int) -> None:
        """Merge the chunks of the iteration before, and plan this one; nothing is left to do where the run has converged."""
        path = self._planFile(iteration)
        if iteration and "tasks" not in self.readResult(self._planFile(iteration - 1)):
            shutil.copyfile(self._planFile(iteration - 1), path)
            return
        self._removeSummary()
        if os.path.exists(path):
            os.remove(path)
        options = self._options(values, iterations, tasks_per_chunk, mask) + ["--chunks-elsewhere", "--json"]
        machine = ["--processes", 1, "--threads", self._jobThreads(), "--memory", self.memory.get()]
        self.runEngine(*options, *machine, output=path, threads=self._jobThreads())
        result = self.readResult(path)
        if "tasks" not in result:
            self.readResult(self._summaryFile())
        elif result["iteration"] != iteration:
            raise RuntimeError(f"iteration {result['iteration']} has chunks that are not done: {', '.join(result['tasks'])}")

    def chunkStep(self, iteration: int, chunk: int) -> None:
        """One job of the engine for one chunk, tried again where it leaves no whole result; a finished one is kept."""
        planned = self.readResult(self._planFile(iteration))
        if "tasks" not in planned:
            return  # converged before
        store = RunStore(os.path.join(self._folder(), "iterations", f"{iteration:03d}"))
        if chunk >= len(store.task_paths()):
            return
        task = ChunkTask.from_dict(read_json(store.task_path(chunk)), str(store.task_path(chunk)))
        log = str(self._getLogsPath(f"iteration_{iteration:03d}_chunk_{chunk:04d}.log"))
        reason, tries = "", 1 + max(0, self.retries.get())
        memory = self.memory.get() / self._concurrency()
        for _ in range(tries):
            if store.manifest(task) is not None:
                return
            try:
                self.runEngine("chunk", store.task_path(chunk), "--threads", self._jobThreads(), "--memory", memory, log=log,
                               threads=self._jobThreads())
            except RuntimeError as error:
                reason = str(error)
        if store.manifest(task) is None:
            reason = reason or self.lastError(log) or "its job ended without a result (killed, cancelled or out of time)"
            raise RuntimeError(f"chunk {chunk} of iteration {iteration} ({', '.join(task.series)}) failed {tries} times: "
                               f"{reason}; its log: {log}. Continue the run when the cause is gone: what is done is kept.")

    def _concurrency(self) -> int:
        """Jobs at a time: one of the host's threads is the master's."""
        return max(1, self.numberOfThreads.get() - 1)

    def _jobThreads(self) -> int:
        return max(1, self.binThreads.get())

    def _machine(self, tasks_per_chunk: int) -> List[Any]:
        return ["--processes", self._concurrency(), "--threads", self._jobThreads(), "--memory", self.memory.get()]

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
