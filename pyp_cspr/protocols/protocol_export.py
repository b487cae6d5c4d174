"""Sets as a project of PYP or RELION."""

from __future__ import annotations

import os
import shutil
from typing import Any, List, Sequence

from pwem.objects import Volume
from pyworkflow.protocol import params

from .adapters.volumes import write_volume
from .base import ProtPypCsprParticles

# what the form says, the engine's name for it, and what to do with it
FORMS = (
    ("PYP (.cistem)", "pyp", "In that folder: csp -tasks_per_arr 2"),
    ("PYP (.parx, as before 2021)", "pyp-parx", "In that folder: csp -tasks_per_arr 2"),
    ("RELION 5 tomography", "relion5", "Give RELION optimisation_set.star."),
    ("RELION 4 tomography", "relion4", "Give RELION optimisation_set.star."),
    ("RELION single particles", "relion-spa", "Each projection is a particle of particles.star."),
)
PYP = ("pyp", "pyp-parx")
SINGLE = 4  # of FORMS


class ProtPypCsprExport(ProtPypCsprParticles):
    """Writes sub-tomograms with their tilt series and CTFs as a project of PYP or RELION: poses, tilt geometry, defocus and
    half-sets. Tilt images are not copied, only named, unless it is asked for.
    """

    _label = "export to PYP / RELION"

    def _defineParams(self, form: Any) -> None:
        self._addInput(form)
        form.addSection(label="Export")
        form.addParam("exportTo", params.EnumParam, choices=[text for text, _, _ in FORMS], default=0, important=True,
                      label="To",
                      help="PYP: a project folder in which csp starts. RELION 5 and 4: an optimisation set with its stars. "
                           "RELION single particles: a star that has a row for each projection, with its own angles, shifts "
                           "and defocus. A .parx rounds angles and shifts to 0.01 degrees and A.")
        form.addParam("outputFolder", params.PathParam, default="", label="Folder to write (empty: in this run's)",
                      help="It is made if it is missing. A PYP project has the folder's name.")
        form.addParam("overwrite", params.BooleanParam, default=False, expertLevel=params.LEVEL_ADVANCED,
                      label="Write into a folder that is not empty?", help="Files of the same names are replaced.")
        form.addParam("inputReference", params.PointerParam, pointerClass=Volume, allowsNull=True,
                      label="Starting map (optional)",
                      help="Goes along, and the particles' box and pixel are then its own; else they are the sub-tomograms'. "
                           "For PYP its pixel must be a whole multiple of that of the tilt images.")
        form.addParam("writeImages", params.BooleanParam, default=False, label="Write images as well?",
                      condition=f"exportTo in (0, 1, {SINGLE})",
                      help="Single particles: the projections are cut out of the tilt images, which takes much disk. PYP: tilt "
                           "series whose images are not in one stack by tilt angle are written as such; without it they "
                           "are refused.")
        form.addParam("boxSize", params.IntParam, default=0, condition=f"exportTo=={SINGLE} and writeImages",
                      label="Box of the images (pixels of the tilt series, 0: the particles')", help="Even.")
        form.addParallelSection(threads=1, mpi=0)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _insertAllSteps(self) -> None:
        self._insertConvert()
        self._insertFunctionStep(self.exportStep, self._target(), self._options(), self._referenceName(), needsGPU=False)

    def _form(self) -> str:
        return FORMS[self.exportTo.get()][1]

    def _target(self) -> str:
        given = str(self.outputFolder.get() or "").strip()
        return os.path.abspath(given or self._getExtraPath("export", self._form()))

    def _images(self) -> bool:
        return bool(self.writeImages.get()) and self._form() in (*PYP, "relion-spa")

    def _options(self) -> List[Any]:
        options: List[Any] = ["--to", self._form()]
        if self._images():
            options.append("--stacks")
            if self._form() == "relion-spa" and self.boxSize.get():
                options += ["--box", self.boxSize.get()]
        if self.overwrite.get():
            options.append("--overwrite")
        return options

    def _referenceName(self) -> str:
        reference = self.inputReference.get()
        return str(reference.getFileName()) if reference is not None else ""

    def _resultFile(self) -> str:
        return str(self._getExtraPath("export.json"))

    def exportStep(self, target: str, options: Sequence[Any], reference: str) -> None:
        """The engine's command."""
        if not str(self.outputFolder.get() or "").strip():
            shutil.rmtree(target, ignore_errors=True)  # of an earlier run
        more: List[Any] = []
        if reference:
            volume = str(self._getExtraPath("reference.mrc"))
            write_volume(self.inputReference.get(), volume)
            more = ["--map", volume]
        result = self.runForResult(self._resultFile(), "convert", self._dataFolder(), target, *options, *more, "--json",
                                   output=self._resultFile())
        self._say([*self._notes(), *result["warnings"]])

    # --- checks -------------------------------------------------------------------------------------------------------

    def _errors(self) -> List[str]:
        errors = self._validateInput()
        target = self._target()
        given = bool(str(self.outputFolder.get() or "").strip())
        if os.path.exists(target) and not os.path.isdir(target):
            errors.append(f"{target} is a file: give a folder.")
        elif given and not self.overwrite.get() and os.path.isdir(target) and os.listdir(target) and not self._written():
            errors.append(f"{target} is not empty: give another folder, or say that it may be overwritten.")
        if self.boxSize.get() < 0 or self.boxSize.get() % 2:
            errors.append("Box of the images: must be even, and 0 or above.")
        return errors + self._validateReference()

    def _written(self) -> bool:
        """Whether this run, which goes on, has written the folder itself."""
        return os.path.exists(self._resultFile())

    def _validateReference(self) -> List[str]:
        reference, series = self.inputReference.get(), self.inputTiltSeries.get()
        size = reference.getDim() if reference is not None else None
        if size is None or series is None:
            return []
        if len(set(size)) != 1:
            return [f"The starting map has {' x '.join(map(str, size))} voxels: it must be a cube."]
        ratio = float(reference.getSamplingRate()) / float(series.getSamplingRate())
        if self._form() in PYP and (abs(ratio - round(ratio)) > 1e-2 or round(ratio) < 1):
            return [f"The starting map's pixel, {reference.getSamplingRate():g} A, is no whole multiple of the tilt series', "
                    f"{series.getSamplingRate():g} A, as PYP wants it: resample the map."]
        return []

    def _summary(self) -> List[str]:
        if not os.path.exists(self._resultFile()) or not self.isFinished():
            return ["Not ready yet."]
        result = self.readResult(self._resultFile())
        label, _, hint = next(entry for entry in FORMS if entry[1] == result["format"])
        return [f"{self._converted(result)}, for {label}.", f"Written: {result['written']}", hint, *self._notes()]

    def _methods(self) -> List[str]:
        return [f"Particles, tilt geometry, defocus and half-sets were written for {FORMS[self.exportTo.get()][0]} (cspr)."]
