"""The built-in sample data set as Scipion sets."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any, Dict, List

import numpy as np
from pyworkflow.protocol import params
from tomo.objects import (
    AverageSubTomogram,
    SetOfCoordinates3D,
    SetOfCTFTomoSeries,
    SetOfSubTomograms,
    SetOfTiltSeries,
    SetOfTomograms,
)

from ..engine.errors import InputError
from ..engine.io.mrc import open_stack, read_map, write_map
from ..engine.io.relion import read_dataset
from ..engine.sample.settings import SampleSettings
from ..engine.sample.tomogram import back_project
from .adapters import new_sets
from .base import ProtPypCsprBase
from .jobs import remove

LARGEST_TOMOGRAM = 160  # voxels across


class SampleOutputs(Enum):
    """What there is after the run."""

    tiltSeries = SetOfTiltSeries
    ctfs = SetOfCTFTomoSeries
    tomograms = SetOfTomograms
    coordinates = SetOfCoordinates3D
    subTomograms = SetOfSubTomograms
    reference = AverageSubTomogram


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


class ProtPypCsprSample(ProtPypCsprBase):
    """Simulates tilt series of a real structure, the adenovirus hexon, with the tomograms and sub-tomograms that sub-volume
    averaging would leave: everything that *refine tilt series* needs, to try it in some minutes. Poses and alignment are
    wrong by the errors of the form; the true values are in the run's extra folder (truth.star).
    """

    _label = "sample data"
    _possibleOutputs = SampleOutputs

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

    def _folder(self) -> str:
        return str(self._getExtraPath("data"))

    def sampleStep(self, settings: Dict[str, Any]) -> None:
        """The engine's command."""
        options: List[Any] = []
        for name, value in settings.items():
            options += [f"--{name.replace('_', '-')}", value]
        result = os.path.join(self._folder(), "settings.json")
        remove(result)  # of an earlier run: a job that fails must not look as if it had not
        self.runEngine("sample", self._folder(), *options, "--threads", self.numberOfThreads.get(), "--overwrite")
        self.readResult(result)

    def _binning(self, dataset: Any) -> int:
        return max(1, int(np.ceil(dataset.series["specimen_size"].max() / LARGEST_TOMOGRAM)))

    def tomogramStep(self) -> None:
        """A binned tomogram of each series, and the particles' sub-volumes out of it, white."""
        dataset = read_dataset(self._folder())
        binning = self._binning(dataset)
        voxel = float(dataset.series["pixel"][0]) * binning
        places = new_sets.whole_coordinates(dataset, voxel).astype(int)
        box = self._subBox(binning)
        for series, name in enumerate(dataset.series["name"].tolist()):
            tilts = dataset.exposures.take(dataset.exposures_of(series))
            nx, ny, nz = (int(n) for n in 2 * (dataset.series["specimen_size"][series] // (2 * binning)))
            images = open_stack(dataset.series["images"][series]).data[tilts["slice"]]
            pixel = float(dataset.series["pixel"][series])
            tomogram = back_project(images, tilts["rotation"], tilts["shift"], pixel, (nx, ny, nz), voxel)
            write_map(os.path.join(self._folder(), f"{name}_tomogram.mrc"), tomogram, voxel)
            padded = np.pad(tomogram, box)
            cubes = []
            for x, y, z in places[dataset.particles_of(series)]:
                low = np.array([z, y, x]) + np.array(tomogram.shape) // 2 + box - box // 2
                cubes.append(-padded[tuple(slice(first, first + box) for first in low)])
            for number, cube in zip(dataset.particles_of(series), cubes):
                write_map(self._cube(int(number)), cube, voxel)

    def _subBox(self, binning: int) -> int:
        return max(8, 2 * int(np.ceil(self.boxSize.get() / binning / 2)))

    def _cube(self, row: int) -> str:
        folder = str(self._getExtraPath("subtomograms"))
        os.makedirs(folder, exist_ok=True)
        return os.path.join(folder, f"{row + 1:06d}.mrc")

    def createOutputStep(self) -> None:
        """The sets."""
        dataset = read_dataset(self._folder())
        binning = self._binning(dataset)
        voxel = float(dataset.series["pixel"][0]) * binning
        for number, name in enumerate(dataset.series["images"].tolist()):
            dataset.series["images"][number] = os.path.relpath(name)
        series = self._createSetOfTiltSeries()
        new_sets.fill_tilt_series(series, dataset)
        self._defineOutputs(**{SampleOutputs.tiltSeries.name: series})
        ctfs = self._createSet(SetOfCTFTomoSeries, "ctfs%s.sqlite", "")
        new_sets.fill_ctfs(ctfs, series, dataset)
        self._defineOutputs(**{SampleOutputs.ctfs.name: ctfs})
        tomograms = self._createSetOfTomograms()
        files = [os.path.join(self._folder(), f"{name}_tomogram.mrc") for name in dataset.series["name"].tolist()]
        new_sets.fill_tomograms(tomograms, dataset, files, voxel)
        self._defineOutputs(**{SampleOutputs.tomograms.name: tomograms})
        coordinates = self._createSetOfCoordinates3D(tomograms)
        new_sets.fill_coordinates(coordinates, tomograms, dataset, self._subBox(binning))
        self._defineOutputs(**{SampleOutputs.coordinates.name: coordinates})
        particles = self._createSetOfSubTomograms()
        cubes = [(0, self._cube(row)) for row in range(len(dataset.particles))]
        new_sets.fill_sub_tomograms(particles, coordinates, tomograms, dataset, cubes, voxel)
        reference = AverageSubTomogram()
        reference.setFileName(os.path.join(self._folder(), "reference.mrc"))
        reference.setSamplingRate(read_map(reference.getFileName())[1])
        self._defineOutputs(**{SampleOutputs.subTomograms.name: particles, SampleOutputs.reference.name: reference})
        for target in (ctfs, tomograms, particles):
            self._defineSourceRelation(series, target)
        self._defineSourceRelation(tomograms, coordinates)
        self._defineSourceRelation(coordinates, particles)

    def _validate(self) -> List[str]:
        try:
            SampleSettings.from_dict(self._settings(), "Form")
        except InputError as error:
            return [f"{error}."]
        return []

    def _summary(self) -> List[str]:
        if not self.isFinished():
            return ["Not ready yet."]
        settings = self._settings()
        return [f"{settings['series']} tilt series of {settings['tilts']} images at {settings['pixel']:g} A, "
                f"{settings['series'] * settings['particles']} particles.",
                f"True values: {os.path.join(self._folder(), 'truth.star')}"]
