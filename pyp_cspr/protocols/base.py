"""What the protocols share: running the engine, input sets of particles in tilt series, their checks."""

from __future__ import annotations

import math
import os
from typing import Any, Dict, List, Sequence, Set, Tuple

from pyworkflow import BETA
from pyworkflow.object import Pointer
from pyworkflow.protocol import params
from pyworkflow.protocol.constants import STEPS_SERIAL
from tomo.objects import SetOfCoordinates3D, SetOfCTFTomoSeries, SetOfSubTomograms, SetOfTiltSeries
from tomo.protocols.protocol_base import ProtTomoBase

from ..engine.errors import InputError
from ..engine.io.relion import write_dataset
from ..engine.model.tables import Dataset
from .adapters import checks, relion_sets, to_sets
from .adapters.from_sets import Conversion, read_sets
from .form import LABELS, labelled
from .jobs import EngineJobs

HANDS = ((-1, "-1: deeper is less underfocus (usual)"), (1, "+1: deeper is more underfocus"))
PIXEL_TOLERANCE = 1e-3
GIVEN_MASK = 2  # of the forms' kinds of mask


class ProtPypCsprBase(EngineJobs, ProtTomoBase):
    """Common to all protocols here."""

    _devStatus = BETA
    _citationKeys = ("Bartesaghi2018", "Liu2023")
    stepsExecutionMode = STEPS_SERIAL

    def _citations(self) -> List[str]:
        return list(self._citationKeys)

    # --- checks -------------------------------------------------------------------------------------------------------

    def _validate(self) -> List[str]:
        """Called by the host: a sentence for everything in the form that cannot be."""
        return self._emptied() or self._errors()

    def _errors(self) -> List[str]:
        """As ``_validate``, where every number has a value."""
        raise NotImplementedError

    def _emptied(self) -> List[str]:
        """A sentence for each number without a value, and each choice that is none of its list; the host lets them pass where
        they are hidden, and where they come from a file."""
        errors = []
        for name, param in self._definition.iterParams():
            value = getattr(self, name).get() if isinstance(param, (params.IntParam, params.FloatParam)) else 0
            if value is None:
                errors.append(f"{param.getLabel()}: give a number.")
            elif isinstance(param, params.EnumParam) and value not in range(len(param.choices)):
                errors.append(f"{param.getLabel()}: {value} is none of its choices, 0 to {len(param.choices) - 1}.")
        return errors

    # --- remarks ------------------------------------------------------------------------------------------------------

    def _notesFile(self) -> str:
        return str(self._getExtraPath("notes.txt"))

    def _say(self, notes: Sequence[str]) -> None:
        """Keep remarks for the summary; those of the last call count."""
        with open(self._notesFile(), "w", encoding="utf-8") as stream:
            stream.write("".join(f"{note}\n" for note in notes))

    def _notes(self) -> List[str]:
        if not os.path.exists(self._notesFile()):
            return []
        with open(self._notesFile(), encoding="utf-8") as stream:
            return stream.read().splitlines()

    def _labels(self) -> Dict[str, str]:
        """The form's labels of the engine's settings."""
        return LABELS

    def _plainly(self, error: InputError) -> str:
        """The engine's sentence with the form's names of settings."""
        text = labelled(" ".join(str(error).split()), self._labels())
        return text[:1].upper() + text[1:] + "."

    def _summaryFile(self) -> str:
        """What a run of the engine leaves when it is done."""
        return os.path.join(self._folder(), "summary.json")

    @staticmethod
    def _resolution(result: Dict[str, Any]) -> str:
        """A run's resolution, of its summary."""
        found = result["resolution_0143"]
        return f"Resolution (FSC 0.143, corrected for the mask): {'none' if found is None else f'{found:.2f} A'}"

    @staticmethod
    def _converted(result: Dict[str, Any]) -> str:
        """What was converted, of what the engine's command says."""
        one, two = result["halves"]
        return f"{result['n_particles']} particles of {result['n_series']} tilt series, half-sets of {one} and {two}"

    # --- masks --------------------------------------------------------------------------------------------------------

    def _mask(self) -> Any:
        """The mask of the form, if one is given."""
        return self.inputMask.get() if self.maskSource.get() == GIVEN_MASK else None

    def _maskWord(self, source: int) -> str:
        """The engine's word for a choice of ``maskSource``: automatic, none, the given one."""
        return ("auto", "none", str(self._getExtraPath("mask.mrc")))[source]


class ProtPypCsprParticles(ProtPypCsprBase):
    """Input: sub-tomograms with poses, their tilt series and CTFs. Data for the engine lie in extra/data."""

    def _addInput(self, form: Any) -> None:
        form.addSection(label="Input")
        form.addParam("inputParticles", params.PointerParam, pointerClass=SetOfSubTomograms, important=True,
                      label="Sub-tomograms with alignment",
                      help="Result of sub-volume averaging: each sub-tomogram has a 3D coordinate in its tomogram, and the "
                           "rotation and shift that align it with the reference. RELION 5 particles are taken as well. Their "
                           "images are not used.")
        form.addParam("inputTiltSeries", params.PointerParam, pointerClass=SetOfTiltSeries, important=True,
                      label="Tilt series, aligned, not interpolated",
                      help="The images as recorded (raw or binned), with their alignment as transforms. Images that were "
                           "rotated by the alignment, or whose CTF was corrected, cannot be used. Excluded views stay so.")
        form.addParam("inputCTFs", params.PointerParam, pointerClass=SetOfCTFTomoSeries, important=True,
                      label="CTFs of the tilt series", help="A defocus for each tilt image.")
        form.addParam("defocusHand", params.EnumParam, choices=[text for _, text in HANDS], default=0,
                      label="Defocus handedness",
                      help="Sign of a particle's depth in its defocus. -1 fits most data; it is RELION's rlnTomoHand.")
        form.addParam("darkParticles", params.BooleanParam, default=True, expertLevel=params.LEVEL_ADVANCED,
                      label="Particles are dark in the tilt images?",
                      help="As recorded, particles are dark. Say no for images whose contrast was inverted.")

    # --- steps --------------------------------------------------------------------------------------------------------

    def _dataFolder(self) -> str:
        return str(self._getExtraPath("data"))

    def _inputIds(self) -> Tuple[int, ...]:
        return tuple(pointer.get().getObjId() for pointer in (self.inputParticles, self.inputTiltSeries, self.inputCTFs))

    def _hand(self) -> int:
        return HANDS[self.defocusHand.get()][0]

    def _convert(self) -> Conversion:
        return read_sets(self.inputParticles.get(), self.inputTiltSeries.get(), self.inputCTFs.get(), self._hand(),
                         self.darkParticles.get())

    def _insertConvert(self) -> None:
        """The first step; what it depends on is its arguments."""
        arguments = (list(self._inputIds()), self._hand(), self.darkParticles.get())
        self._insertFunctionStep(self.convertStep, *arguments, needsGPU=False)

    def convertStep(self, ids: Sequence[int], hand: int, dark: bool) -> None:
        """Write the sets as a data set of the engine."""
        conversion = self._convert()
        write_dataset(conversion.dataset, self._dataFolder())
        self._say(conversion.notes)

    def _newParticles(self, conversion: Conversion, result: Dataset) -> Tuple[Any, Any]:
        """(particles of the input's class, their coordinates) of a result."""
        source = self.inputParticles.get()
        particles = self._createSet(source.getClass(), "particles%s.sqlite", "")
        to_sets.fill_particles(particles, source, conversion, result)
        to_sets.attach_stars(particles, source, str(self._getExtraPath("relion")), conversion, result)
        coordinates = self._createSet(SetOfCoordinates3D, "coordinates%s.sqlite", "")
        pointer = Pointer()
        pointer.copy(source.getCoordinates3D()._precedentsPointer)
        coordinates.setPrecedents(pointer)
        to_sets.fill_coordinates(coordinates, source, conversion, result)
        return particles, coordinates

    def _machine(self, tasks_per_chunk: int) -> List[Any]:
        """Options that share out the threads of the job among chunks."""
        threads = max(1, self.numberOfThreads.get())
        chunks = math.ceil(self.inputTiltSeries.get().getSize() / max(1, tasks_per_chunk))
        processes = self.processes.get() or min(threads, chunks)
        return ["--processes", processes, "--threads", max(1, threads // processes), "--memory", self.memory.get()]

    def _addParallel(self, form: Any) -> None:
        """Parameters of ``_machine``; the last section of a form."""
        form.addSection(label="Resources")
        self._addChunks(form)
        form.addParam("processes", params.IntParam, default=0, expertLevel=params.LEVEL_ADVANCED,
                      label="Chunks at a time (0: choose)",
                      help="How many chunks are worked on at once; the threads are shared among them.")
        form.addParallelSection(threads=4, mpi=0)

    def _addChunks(self, form: Any) -> None:
        form.addParam("tasksPerChunk", params.IntParam, default=1, label="Tilt series per chunk",
                      help="A chunk is what one process works on, and what a stopped run repeats at most. 1 is right unless "
                           "there are hundreds of small tilt series.")
        form.addParam("memory", params.FloatParam, default=0.0, expertLevel=params.LEVEL_ADVANCED,
                      label="Memory for projections (GB, 0: choose)",
                      help="Of all processes together; where a queue takes each chunk as a job, of each job. 0 takes half of "
                           "what is free.")

    # --- checks -------------------------------------------------------------------------------------------------------

    def _validateInput(self) -> List[str]:
        """A sentence for everything about the input that cannot be."""
        particles, series, ctfs = (pointer.get() for pointer in (self.inputParticles, self.inputTiltSeries, self.inputCTFs))
        if particles is None or series is None or ctfs is None:
            return []  # the host says that itself
        if particles.isEmpty():
            return ["The set of sub-tomograms is empty."]
        errors = []
        if not particles.hasCoordinates3D():
            errors.append("The sub-tomograms have no 3D coordinates: take a set whose particles were picked in tomograms.")
        if relion_sets.is_pseudo(particles) and relion_sets.refusal(particles):
            errors.append(relion_sets.refusal(particles))
        if not series.hasAlignment():
            errors.append("The tilt series are not aligned: align them first.")
        if series.interpolated():
            errors.append("The tilt series are interpolated: take the aligned series whose images were not transformed.")
        if series.ctfCorrected():
            errors.append("The CTF of the tilt series is corrected already: take the series without correction.")
        if not errors:
            if not self._commonSeries():
                errors.append("No tilt series has both CTFs and particles: the identifiers (tsId) of the three sets differ, or "
                              "items are disabled.")
            errors += checks.missing_images(series, self._commonSeries())
        if not errors:
            errors += checks.look_at_images(series, ctfs, self._commonSeries())[0]
        for name, least, label in (("tasksPerChunk", 1, "Tilt series per chunk"), ("memory", 0, "Memory"),
                                   ("processes", 0, "Chunks at a time")):
            if hasattr(self, name) and getattr(self, name).get() < least:
                errors.append(f"{label}: must be {least} or above.")
        return errors

    def _commonSeries(self) -> Set[str]:
        """Tilt series that have CTFs and particles."""
        return checks.common_series(self.inputParticles.get(), self.inputTiltSeries.get(), self.inputCTFs.get())

    def _warnings(self) -> List[str]:
        """What will be left out."""
        inputs = [pointer.get() for pointer in (self.inputParticles, self.inputTiltSeries, self.inputCTFs)]
        return [] if any(one is None for one in inputs) else checks.input_warnings(*inputs)

    def _validateGrid(self, box: int, pixel: float) -> List[str]:
        """A sentence where a map of ``box`` voxels of ``pixel`` angstrom does not fit the tilt images."""
        series = self.inputTiltSeries.get()
        finest = series.getSamplingRate()
        if pixel < finest * (1 - PIXEL_TOLERANCE):
            return [f"The map's pixel, {pixel:g} A, is finer than that of the tilt series, {finest:g} A: give a map pixel of "
                    f"{finest:g} A or more, and the reference is resampled."]
        size = series.getDim()
        if size is not None and box * pixel > min(size[:2]) * finest:
            return [f"The map's box, {box} x {pixel:g} A, is larger than the tilt images ({size[0]} x {size[1]} pixels of "
                    f"{finest:g} A)."]
        return []

    @staticmethod
    def _counts(result: Dict[str, Any]) -> str:
        """What went into a map, of a run's summary."""
        return f"{result['n_particles']} particles, {result['n_projections']} projections of {result['n_series']} tilt series."
