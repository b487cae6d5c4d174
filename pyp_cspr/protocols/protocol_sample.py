"""The built-in sample data set as Scipion sets."""

from __future__ import annotations

import os
from typing import Any, Dict, List

from pyworkflow.protocol import params

from ..engine.errors import InputError
from ..engine.sample.settings import SampleSettings
from .new_data import ProtPypCsprData

# parameter of the form, setting, label, help, expert
ROWS = (
    ("nSeries", "series", "Tilt series", "Simulated acquisitions.", False),
    ("nParticles", "particles", "Particles of each tilt series", "100 in each of 2 series are refined in some minutes.", False),
    ("nTilts", "tilts", "Tilt images of each series", "41 is a usual scheme from -60 to 60 degrees.", False),
    ("boxSize", "box", "Box of the reference (pixels)", "Even.", False),
    ("pixelSize", "pixel", "Pixel (A)", "Of the tilt images and of the reference.", False),
    ("dose", "dose", "Dose of each tilt image (e/A^2)", "3 is usual.", True),
    ("poseError", "pose_error", "Error of the rotations (degrees, rms)", "Added to the true poses, to be refined.", False),
    ("positionError", "position_error", "Error of the positions (A, rms)", "Added to the true positions.", False),
    ("tiltError", "tilt_error", "Error of the tilt angles (degrees, rms)", "Added to the true tilt angles.", False),
    ("axisError", "axis_error", "Error of the tilt axes (degrees, rms)", "Added to the true tilt axes.", True),
    ("shiftError", "shift_error", "Error of the tilt images' shifts (A, rms)", "Added to the true shifts.", False),
    ("defocusError", "defocus_error", "Error of the defocus (A, rms)", "Added to the true defocus.", True),
    ("seed", "seed", "Seed", "The same seed gives the same data.", True),
)
ERRORS = {"poseError": 3.0, "positionError": 5.0, "tiltError": 0.3, "shiftError": 5.0}  # something to refine


class ProtPypCsprSample(ProtPypCsprData):
    """Simulates tilt series of a real structure, the adenovirus hexon, with the tomograms and sub-tomograms that sub-volume
    averaging would leave: everything that *refine tilt series* needs, to try it in some minutes. Poses and alignment are
    wrong by the errors of the form; the true values are in the run's extra folder (truth.star).
    """

    _label = "sample data"

    def _defineParams(self, form: Any) -> None:
        default = SampleSettings()
        form.addSection(label="Sample")
        for name, setting, label, text, expert in ROWS:
            value = ERRORS.get(name, getattr(default, setting))
            kind = params.IntParam if isinstance(getattr(default, setting), int) else params.FloatParam
            level = params.LEVEL_ADVANCED if expert else params.LEVEL_NORMAL
            form.addParam(name, kind, default=value, label=label, help=text, expertLevel=level)
        form.addParallelSection(threads=2, mpi=0)

    def _settings(self) -> Dict[str, Any]:
        kinds = SampleSettings().to_dict()
        return {setting: type(kinds[setting])(getattr(self, name).get()) for name, setting, _, _, _ in ROWS}

    def _insertAllSteps(self) -> None:
        self._insertFunctionStep(self.sampleStep, self._settings(), needsGPU=False)
        self._insertFunctionStep(self.tomogramStep, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, needsGPU=False)

    def sampleStep(self, settings: Dict[str, Any]) -> None:
        """The engine's command."""
        options: List[Any] = []
        for name, value in settings.items():
            options += [f"--{name.replace('_', '-')}", value]
        result = os.path.join(self._folder(), "settings.json")
        self.runForResult(result, "sample", self._folder(), *options, "--threads", self.numberOfThreads.get(), "--overwrite")

    def createOutputStep(self) -> None:
        """The sets."""
        # the CTFs are right to the last: Nyquist frequency
        self._createSets(fit_resolution=2.0 * self.pixelSize.get())
        self._createReference()

    def _labels(self) -> Dict[str, str]:
        return {setting: label for _, setting, label, _, _ in ROWS}

    def _errors(self) -> List[str]:
        try:
            SampleSettings.from_dict(self._settings(), "Form")
        except InputError as error:
            return [self._plainly(error)]
        return []

    def _summary(self) -> List[str]:
        if not self.isFinished():
            return ["Not ready yet."]
        settings = self._settings()
        return [f"{settings['series']} tilt series of {settings['tilts']} images at {settings['pixel']:g} A, "
                f"{settings['series'] * settings['particles']} particles.",
                f"True values: {os.path.join(self._folder(), 'truth.star')}"]

    def _methods(self) -> List[str]:
        settings = self._settings()
        return [f"Tilt series of the adenovirus hexon were simulated (cspr): {settings['series']} series of "
                f"{settings['tilts']} images at {settings['pixel']:g} A with {settings['dose']:g} e/A^2 each."]
