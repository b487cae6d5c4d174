"""The engine's jobs of a refinement: the check of the hand, and the refinement as one job or as a job for each chunk."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List

from ..engine.io.config import write_toml
from ..engine.model.task import ChunkTask
from ..engine.pipeline.store import RunStore, read_json, write_json
from .adapters import checks
from .adapters.volumes import half_maps
from .base import ProtPypCsprParticles
from .jobs import remove, whole_json

SURE = 3.0  # standard deviations: then the hand of the data is not as given


class RefineJobs(ProtPypCsprParticles):
    """Steps that send jobs, with the files that they agree on; the form is in the protocol."""

    # --- files --------------------------------------------------------------------------------------------------------

    def _folder(self) -> str:
        return str(self._getExtraPath("refine"))

    def _halves(self) -> List[str]:
        """The reference's half maps, if each half-set is to start from its own."""
        return half_maps(self.inputReference.get()) if self.useHalfMaps.get() else []

    def _halfFiles(self) -> List[str]:
        return [str(self._getExtraPath(f"half{number}.mrc")) for number in (1, 2)]

    def _planFile(self, iteration: int) -> str:
        return str(self._getExtraPath(f"plan_{iteration:03d}.json"))

    def _grid(self) -> Dict[str, Any]:
        return self.readResult(str(self._getExtraPath("grid.json")))

    # --- how many -----------------------------------------------------------------------------------------------------

    def _tries(self) -> int:
        return 1 + max(0, self.retries.get())

    def _concurrency(self) -> int:
        """Jobs at a time: one of the host's threads is the master's."""
        return max(1, self.numberOfThreads.get() - 1)

    def _jobThreads(self) -> int:
        return max(1, self.binThreads.get())

    def _chunkCount(self) -> int:
        return math.ceil(len(self._commonSeries()) / max(1, self.tasksPerChunk.get()))

    # --- steps --------------------------------------------------------------------------------------------------------

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
        halves = ["--halves", *self._halfFiles()] if self._halves() and checks.all_in_half_sets(self._dataFolder()) else []
        return ["refine", self._dataFolder(), "--reference", self._getExtraPath("reference.mrc"), *halves,
                "--out", self._folder(), "--mask", self._maskWord(request["mask"]), "--iterations", iterations, "--settings",
                settings, "--tasks-per-chunk", request["tasks_per_chunk"]]

    def refineStep(self, request: Dict[str, Any], iterations: int) -> None:
        """One job of the engine, which goes on where it was if it was stopped."""
        self.waitForEarlier("refine")
        remove(self._summaryFile())  # of fewer or more iterations: a job that fails must not look as if it had not
        options = self._options(request, iterations)
        options += ["--processes", self._concurrency(), "--threads", self._jobThreads(), "--memory", self.memory.get()]
        self.completeJob(lambda: whole_json(self._summaryFile()) is not None, *options, name="refine",
                         tries=self._tries() if self.useQueueForSteps() else 1,
                         threads=self._concurrency() * self._jobThreads())

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
        log = str(self._getLogsPath(f"{name}.log"))
        memory = self.memory.get() if self.useQueueForSteps() else self.memory.get() / self._concurrency()
        try:
            self.completeJob(lambda: store.manifest(task) is not None, "chunk", store.task_path(chunk), "--threads",
                             self._jobThreads(), "--memory", memory, log=log, name=name, threads=self._jobThreads(),
                             tries=self._tries())
        except RuntimeError as error:
            raise RuntimeError(f"chunk {chunk} of iteration {iteration} ({', '.join(task.series)}) failed; its log: {log}. "
                               f"Continue the run when the cause is gone: what is done is kept.\n"
                               f"{error}") from None
