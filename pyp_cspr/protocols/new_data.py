"""A data set of the engine as new sets of the host: what *sample data* and *import PYP alignments* have in common."""

from __future__ import annotations

import os
from enum import Enum
from typing import Iterator

import numpy as np
from numpy.typing import NDArray
from tomo.objects import (
    AverageSubTomogram,
    SetOfCoordinates3D,
    SetOfCTFTomoSeries,
    SetOfSubTomograms,
    SetOfTiltSeries,
    SetOfTomograms,
)

from ..engine.io.mrc import open_stack, read_map, write_map
from ..engine.io.relion import read_dataset
from ..engine.model.tables import Dataset
from ..engine.sample.tomogram import back_project
from .adapters import new_sets
from .base import ProtPypCsprBase

LARGEST_TOMOGRAM = 160  # voxels across
LEAST_BOX = 8  # voxels of a sub-tomogram


class DataOutputs(Enum):
    """What there is after the run."""

    tiltSeries = SetOfTiltSeries
    ctfs = SetOfCTFTomoSeries
    tomograms = SetOfTomograms
    coordinates = SetOfCoordinates3D
    subTomograms = SetOfSubTomograms
    reference = AverageSubTomogram


class ProtPypCsprData(ProtPypCsprBase):
    """Makes sets of the data set in extra/data. Tomograms are small ones, by back-projection: to look at, and to have
    sub-tomograms. Refinement uses neither.
    """

    _possibleOutputs = DataOutputs

    def _folder(self) -> str:
        return str(self._getExtraPath("data"))

    def _binning(self, dataset: Dataset) -> int:
        return max(1, int(np.ceil(dataset.series["specimen_size"].max() / LARGEST_TOMOGRAM)))

    def _subBox(self, dataset: Dataset) -> int:
        """Voxels of a sub-tomogram: as wide as the particles' box."""
        width = dataset.box * dataset.box_pixel / (float(dataset.series["pixel"][0]) * self._binning(dataset))
        return max(LEAST_BOX, 2 * int(np.ceil(round(width, 6) / 2)))

    def tomogramStep(self) -> None:
        """A binned tomogram of each series, and the particles' sub-volumes out of it, white."""
        dataset = read_dataset(self._folder())
        binning, box = self._binning(dataset), self._subBox(dataset)
        voxel = float(dataset.series["pixel"][0]) * binning
        places = new_sets.whole_coordinates(dataset, voxel).astype(int)
        for series, name in enumerate(dataset.series["name"].tolist()):
            tilts = dataset.exposures.take(dataset.exposures_of(series))
            tilts = tilts.take(tilts["enabled"])
            nx, ny, nz = (int(n) for n in 2 * (dataset.series["specimen_size"][series] // (2 * binning)))
            images = _images(str(dataset.series["images"][series]), tilts["file"], tilts["slice"])
            pixel = float(dataset.series["pixel"][series])
            tomogram = back_project(images, tilts["rotation"], tilts["shift"], pixel, (nx, ny, nz), voxel)
            write_map(os.path.join(self._folder(), f"{name}_tomogram.mrc"), tomogram, voxel)
            padded = np.pad(tomogram, box)
            contrast = np.float32(dataset.series["contrast"][series])
            middle = np.array(tomogram.shape) // 2 + box - box // 2
            for number in dataset.particles_of(series).tolist():
                x, y, z = places[number]
                low = np.clip(np.array([z, y, x]) + middle, 0, np.array(padded.shape) - box)
                cube = contrast * padded[tuple(slice(first, first + box) for first in low)]
                write_map(self._cube(number), cube, voxel)

    def _cube(self, row: int) -> str:
        folder = str(self._getExtraPath("subtomograms"))
        os.makedirs(folder, exist_ok=True)
        return os.path.join(folder, f"{row + 1:06d}.mrc")

    def _createSets(self, fit_resolution: float = 0.0) -> Dataset:
        """All sets but the reference; the data set that they are of.

        ``fit_resolution`` (angstrom) is that of the CTFs' fits; 0, as RELION's stars read it, where it is not known.
        """
        dataset = read_dataset(self._folder())
        voxel = float(dataset.series["pixel"][0]) * self._binning(dataset)
        inside = os.path.abspath(self._folder()) + os.sep
        images = [os.path.relpath(name) if name.startswith(inside) else name for name in dataset.series["images"].tolist()]
        dataset.series["images"] = np.array(images)
        series = self._createSetOfTiltSeries()
        new_sets.fill_tilt_series(series, dataset)
        self._defineOutputs(**{DataOutputs.tiltSeries.name: series})
        ctfs = self._createSet(SetOfCTFTomoSeries, "ctfs%s.sqlite", "")
        new_sets.fill_ctfs(ctfs, series, dataset, fit_resolution)
        self._defineOutputs(**{DataOutputs.ctfs.name: ctfs})
        tomograms = self._createSetOfTomograms()
        files = [os.path.join(self._folder(), f"{name}_tomogram.mrc") for name in dataset.series["name"].tolist()]
        new_sets.fill_tomograms(tomograms, dataset, files, voxel)
        self._defineOutputs(**{DataOutputs.tomograms.name: tomograms})
        coordinates = self._createSetOfCoordinates3D(tomograms)
        new_sets.fill_coordinates(coordinates, tomograms, dataset, self._subBox(dataset))
        self._defineOutputs(**{DataOutputs.coordinates.name: coordinates})
        particles = self._createSetOfSubTomograms()
        cubes = [(0, self._cube(row)) for row in range(len(dataset.particles))]
        new_sets.fill_sub_tomograms(particles, coordinates, tomograms, dataset, cubes, voxel)
        self._defineOutputs(**{DataOutputs.subTomograms.name: particles})
        for target in (ctfs, tomograms, particles):
            self._defineSourceRelation(series, target)
        self._defineSourceRelation(tomograms, coordinates)
        self._defineSourceRelation(coordinates, particles)
        return dataset

    def _createReference(self, halves: bool = False) -> None:
        """The map reference.mrc of the folder, with its half maps where there are some."""
        reference = AverageSubTomogram()
        reference.setFileName(os.path.join(self._folder(), "reference.mrc"))
        reference.setSamplingRate(read_map(reference.getFileName())[1])
        if halves:
            reference.setHalfMaps([os.path.join(self._folder(), f"half{number}.mrc") for number in (1, 2)])
        self._defineOutputs(**{DataOutputs.reference.name: reference})


def _images(stack: str, files: NDArray, slices: NDArray) -> Iterator[NDArray]:
    """The tilt images, one by one."""
    for file, image in zip(files.tolist(), slices.tolist()):
        yield open_stack(file or stack).image(image)
