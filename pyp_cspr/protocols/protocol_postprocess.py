"""Mask, Fourier shell correlation and sharpening of an average with half maps."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any, Dict, List

from pwem.objects import SetOfFSCs, Volume, VolumeMask
from pyworkflow.protocol import params
from tomo.objects import AverageSubTomogram

from .adapters import to_sets
from .adapters.volumes import half_maps, is_mrc, volume_of, write_volume
from .base import GIVEN_MASK, PIXEL_TOLERANCE, ProtPypCsprBase

MASKS = ("automatic, from the half maps", "none", "a given mask")
B_FACTORS = ("automatic, from the Guinier plot", "a given one")
GIVEN_B_FACTOR = 1


class PostProcessOutputs(Enum):
    """What there is after the run; the map is of the input's class."""

    sharpened = Volume
    mask = VolumeMask
    fscs = SetOfFSCs


class ProtPypCsprPostProcess(ProtPypCsprBase):
    """Tells the resolution of an average from its two half maps, corrected for what the mask feigns, and sharpens it: weighs
    each shell by its reliability, undoes the fall-off of the amplitudes (B factor), and filters at the resolution.
    """

    _label = "post-process"
    _possibleOutputs = PostProcessOutputs

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Input")
        form.addParam("inputAverage", params.PointerParam, pointerClass="Volume", important=True,
                      label="Average with half maps",
                      help="Any volume or average of sub-tomograms that has its two half maps. They must not be filtered.")
        form.addParam("maskSource", params.EnumParam, choices=list(MASKS), default=0, label="Mask",
                      help="Only what is inside counts for the FSC and the B factor. The automatic one is soft and follows the "
                           "particle. The sharpened map itself is not masked.")
        form.addParam("inputMask", params.PointerParam, pointerClass="VolumeMask", allowsNull=True, label="Mask to use",
                      condition=f"maskSource=={GIVEN_MASK}", help="From 0 to 1, on the average's grid, with a soft edge.")
        form.addSection(label="Sharpening")
        form.addParam("bFactorSource", params.EnumParam, choices=list(B_FACTORS), default=0, label="B factor",
                      help="The automatic one is fitted between 10 A and the resolution (Rosenthal and Henderson 2003): the "
                           "map must be better than about 8 A for it, and is not sharpened otherwise.")
        form.addParam("bFactor", params.FloatParam, default=-100.0, condition=f"bFactorSource=={GIVEN_B_FACTOR}",
                      label="B factor to use (A^2)", help="Negative sharpens, 0 does not. -50 to -300 is usual.")
        form.addParam("resolution", params.FloatParam, default=0.0, label="Low-pass filter (A, 0: the resolution)",
                      help="Finer detail is removed. 0 takes the resolution at FSC 0.143.")
        form.addParam("seed", params.IntParam, default=1, expertLevel=params.LEVEL_ADVANCED, label="Seed",
                      help="Of the random phases that correct the FSC for the mask.")
        form.addParallelSection(threads=2, mpi=0)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _insertAllSteps(self) -> None:
        average, mask = self.inputAverage.get(), self._mask()
        pixel = float(average.getSamplingRate())
        inputs = [(volume.getObjId(), volume.getFileName()) for volume in (average, mask) if volume is not None]
        self._insertFunctionStep(self.convertStep, inputs, half_maps(average), pixel, needsGPU=False)
        self._insertFunctionStep(self.postProcessStep, self._options(), needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, needsGPU=False)

    def _folder(self) -> str:
        return str(self._getExtraPath("postprocess"))

    def _options(self) -> Dict[str, Any]:
        given = self.bFactorSource.get() == GIVEN_B_FACTOR
        return {"mask": self.maskSource.get(), "b-factor": self.bFactor.get() if given else "auto",
                "resolution": self.resolution.get(), "seed": self.seed.get()}

    def _halves(self) -> List[str]:
        """The half maps as MRC files."""
        names = half_maps(self.inputAverage.get())
        return [name if is_mrc(name) else str(self._getExtraPath(f"half{row + 1}.mrc")) for row, name in enumerate(names)]

    def convertStep(self, inputs: List[Any], halves: List[str], pixel: float) -> None:
        """Write half maps of other formats as MRC, and a given mask; ``inputs`` says whose."""
        for source, target in zip(halves, self._halves()):
            if source != target:
                write_volume(volume_of(source, pixel), target)
        if self._mask() is not None:
            write_volume(self._mask(), str(self._getExtraPath("mask.mrc")), mask=True)

    def postProcessStep(self, options: Dict[str, Any]) -> None:
        """One job of the engine."""
        threads = max(1, self.numberOfThreads.get())
        self.runForResult(self._summaryFile(), "postprocess", *self._halves(), "--out", self._folder(), "--mask",
                          self._maskWord(options["mask"]), f"--b-factor={options['b-factor']}", "--resolution",
                          options["resolution"], "--seed", options["seed"], "--pixel",
                          self.inputAverage.get().getSamplingRate(), "--threads", threads, threads=threads)

    def createOutputStep(self) -> None:
        """The sharpened map, the mask and the curves."""
        source = self.inputAverage.get()
        pixel = float(source.getSamplingRate())
        sharpened = AverageSubTomogram() if isinstance(source, AverageSubTomogram) else Volume()
        sharpened.setFileName(os.path.join(self._folder(), "map_sharpened.mrc"))
        sharpened.setHalfMaps(half_maps(source))
        mask = VolumeMask()
        mask.setFileName(os.path.join(self._folder(), "mask.mrc"))
        for volume in (sharpened, mask):
            volume.setSamplingRate(pixel)
        curves = SetOfFSCs.create(self._getPath())
        to_sets.fill_curves(curves, self._folder())
        outputs = PostProcessOutputs
        self._defineOutputs(**{outputs.sharpened.name: sharpened, outputs.mask.name: mask, outputs.fscs.name: curves})
        self._defineTransformRelation(self.inputAverage, sharpened)
        for target in (mask, curves):
            self._defineSourceRelation(self.inputAverage, target)

    # --- information --------------------------------------------------------------------------------------------------

    def _errors(self) -> List[str]:
        errors = []
        if self.inputAverage.get() is not None:
            errors += self._validateVolumes()
        if self.maskSource.get() == GIVEN_MASK and self._mask() is None:
            errors.append("Mask to use: choose one, or another kind of mask.")
        if self.resolution.get() < 0:
            errors.append("Low-pass filter: must be 0 or above.")
        if self.seed.get() < 0:
            errors.append("Seed: must be 0 or above.")
        return errors

    def _validateVolumes(self) -> List[str]:
        average, mask = self.inputAverage.get(), self._mask()
        names, pixel = half_maps(average), average.getSamplingRate()
        if len(names) != 2:
            return ["The average has no half maps: take the one of a refinement that keeps them."]
        missing = [name for name in names if not os.path.exists(name)]
        if missing:
            return [f"The half map {missing[0]} does not exist."]
        first, second = (volume_of(name, pixel).getDim() for name in names)
        if first != second:
            return [f"The half maps differ in size: {' x '.join(map(str, first))} and {' x '.join(map(str, second))} voxels."]
        if len(set(first)) != 1:
            return [f"The half maps are {' x '.join(map(str, first))} voxels: they must be cubes."]
        if mask is not None and (mask.getDim() != first or abs(mask.getSamplingRate() / pixel - 1) > PIXEL_TOLERANCE):
            return ["The mask has another box or pixel than the average."]
        if 0 < self.resolution.get() < 2 * pixel:
            return [f"Low-pass filter: {self.resolution.get():g} A is finer than the average holds ({2 * pixel:g} A)."]
        return []

    def _warnings(self) -> List[str]:
        if self.bFactorSource.get() == GIVEN_B_FACTOR and self.bFactor.get() > 0:
            return ["The B factor is positive: the map is blurred, not sharpened."]
        return []

    def _summary(self) -> List[str]:
        if not os.path.exists(self._summaryFile()):
            return ["Not ready yet."]
        result = self.readResult(self._summaryFile())
        b_factor, lines = result["b_factor"], [f"{self._resolution(result)}."]
        if b_factor is None:
            reason = next((entry["message"] for entry in result["journal"] if entry["message"].startswith("no B-factor: ")), "")
            lines.append(f"Not sharpened{reason and ': '}{reason[len('no B-factor: '):]}.")
        else:
            lines.append(f"B factor: {b_factor:.0f} A^2.")
        if result["low_pass"] is not None:
            lines.append(f"Low-pass filter: {result['low_pass']:.2f} A.")
        return lines

    def _methods(self) -> List[str]:
        done = os.path.exists(self._summaryFile())
        sharpened = done and self.readResult(self._summaryFile())["b_factor"] is not None
        return ["The resolution was estimated from half maps at FSC 0.143, corrected for the mask by phase randomisation; the "
                f"map was weighted by its FSC{', sharpened by a B factor' if sharpened else ''} and low-pass filtered (cspr)."]
