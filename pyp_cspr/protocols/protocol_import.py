"""A PYP project as Scipion sets."""

from __future__ import annotations

import os
import shutil
from typing import Any, List, Tuple

import numpy as np
from pyworkflow.protocol import params

from ..engine.errors import InputError
from ..engine.model.stretches import columns_to_stretches
from ..engine.model.tables import Dataset
from ..engine.pipeline.convert_pyp import find_alignments, find_maps, project_of_file
from .new_data import DataOutputs, ProtPypCsprData

ALIGNMENTS = (".bz2", ".cistem", ".parx", ".par", ".txt")
MOVED = 0.1  # angstrom: deformations and offsets of the defocus below this are rounding


class ProtPypCsprImport(ProtPypCsprData):
    """Reads the tilt series, alignments, CTFs and particles of a PYP project, so that Scipion goes on where PYP was. The
    images stay where they are; nothing in the project is changed. Tomograms and sub-tomograms are made anew, small ones to
    look at, as PYP's own tomograms are mirrored in z against its particles.
    """

    _label = "import PYP alignments"

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Import")
        form.addParam("projectPath", params.PathParam, important=True, label="PYP project, or an alignment file in it",
                      help="The project's folder (with a .films or .micrographs list): then the last iteration is read, or the "
                           "alignments that the project starts from. Or one file of alignments in it: an archive .bz2 of an "
                           "iteration, a .parx, or the text table of sub-volume averaging (_volumes.txt).")
        form.addParam("referencePath", params.PathParam, default="", label="Reference map (empty: the project's)",
                      help="MRC. If it is not given, the map of the iteration that is read is taken, with its half maps where "
                           "it is the last one; else the starting map. There may be none.")
        form.addParallelSection(threads=1, mpi=0)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _insertAllSteps(self) -> None:
        project, alignments = self._source()
        path = str(find_alignments(project, alignments))
        self._insertFunctionStep(self.importStep, project, alignments, os.path.getmtime(path), needsGPU=False)
        self._insertFunctionStep(self.tomogramStep, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, self.referencePath.get() or "", needsGPU=False)

    def _source(self) -> Tuple[str, str]:
        """(project folder, alignments in it or nothing). Raises InputError."""
        path = os.path.abspath(str(self.projectPath.get() or "").strip())
        project = project_of_file(path)
        if path == project:
            return project, ""
        names = os.listdir(path) if os.path.isdir(path) else [path]  # an archive that lies unpacked
        if not any(name.endswith(ALIGNMENTS) for name in names):
            raise InputError(f"{path}: holds no alignments ({', '.join(ALIGNMENTS)}); give the project's folder or such a file")
        return project, path

    def _resultFile(self) -> str:
        return str(self._getExtraPath("import.json"))

    def importStep(self, project: str, alignments: str, changed: float) -> None:
        """The engine's command; ``changed`` is when the alignments were written."""
        shutil.rmtree(self._folder(), ignore_errors=True)  # of an earlier run
        options = ["--alignments", alignments] if alignments else []
        self.runForResult(self._resultFile(), "convert", project, self._folder(), "--to", "relion5", *options, "--json",
                          output=self._resultFile())

    def createOutputStep(self, reference: str) -> None:
        """The sets, and the map: a copy, as PYP's next iteration replaces its half maps."""
        self._say(self._remarks(self._createSets()))
        result = self.readResult(self._resultFile())
        halves = [] if reference else result["half_maps"]
        if reference or result["map"]:
            shutil.copyfile(reference or result["map"], os.path.join(self._folder(), "reference.mrc"))
            for number, half in enumerate(halves):
                shutil.copyfile(half, os.path.join(self._folder(), f"half{number + 1}.mrc"))
            self._createReference(bool(halves))

    def _remarks(self, dataset: Dataset) -> List[str]:
        """What sets cannot hold, and what other forms must be told."""
        notes = []
        if (dataset.series["hand"] > 0).any():
            notes.append("The defocus handedness of this project is +1: choose that in the forms that ask for it.")
        if (dataset.series["contrast"] > 0).any():
            notes.append("Particles are white in these tilt images: say so in the forms that ask for it.")
        if columns_to_stretches(dataset)[1] > MOVED:
            notes.append("Images are deformed by a local refinement, which Scipion's tilt series cannot hold: "
                         f"{self._folder()} does.")
        if (np.abs(dataset.particles["defocus_offset"]) > MOVED).any():
            notes.append(f"Particles have a defocus of their own, which Scipion's sets cannot hold: {self._folder()} does.")
        return notes

    # --- checks -------------------------------------------------------------------------------------------------------

    def _errors(self) -> List[str]:
        path = str(self.projectPath.get() or "").strip()
        if not path:
            return ["Give the folder of a PYP project."]
        if not os.path.exists(path):
            return [f"{path} does not exist."]
        reference = str(self.referencePath.get() or "").strip()
        if reference and not os.path.isfile(reference):
            return [f"The reference map {reference} does not exist."]
        try:
            find_alignments(*self._source())
        except InputError as error:
            return [self._plainly(error)]
        return []

    def _warnings(self) -> List[str]:
        try:
            found = str(self.referencePath.get() or "") or find_maps(*self._source())[0]
        except InputError:
            return []
        return [] if found else ["The project has no map yet: there will be no reference among the outputs."]

    def _summary(self) -> List[str]:
        if not hasattr(self, DataOutputs.subTomograms.name):
            return ["Not ready yet."]
        result = self.readResult(self._resultFile())
        return [f"{self._converted(result)}.", f"Alignments: {result['alignments']}", *self._notes()]

    def _methods(self) -> List[str]:
        return ["Tilt series, alignments, CTFs and particles were read from a PYP project (cspr)."]
