"""Sets made with the host's own classes from plain numbers, without the adapters under test."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, List

import mrcfile
import numpy as np
from pwem.objects import Transform
from tomo.constants import SCIPION
from tomo.objects import (
    Coordinate3D,
    CTFTomo,
    CTFTomoSeries,
    SetOfCoordinates3D,
    SetOfCTFTomoSeries,
    SetOfSubTomograms,
    SetOfTiltSeries,
    SetOfTomograms,
    SubTomogram,
    TiltImage,
    TiltSeries,
    TomoAcquisition,
    Tomogram,
)

from pyp_cspr.engine.core.geometry import rotation_vector_to_matrix


@dataclass
class Made:
    """The sets and, by name, the numbers that went in."""

    particles: Any = None
    tilt_series: Any = None
    ctfs: Any = None
    tomograms: Any = None
    coordinates: Any = None
    transforms: List[np.ndarray] = field(default_factory=list)
    places: List[np.ndarray] = field(default_factory=list)


def write_image(path: Path, shape, pixel: float) -> str:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.zeros(shape, np.float32))
        if len(shape) == 3 and shape[0] != shape[1]:
            mrc.set_image_stack()
        mrc.voxel_size = pixel
    return str(path)


def make_sets(
    folder: Path, names=("TS_1", "TS_2"), ctf_names=None, particle_names=None, tilts: int = 5, pixel: float = 2.7,
    coordinate_pixel: float = 10.8, sub_pixel: float = 5.4, size=(64, 48), excluded=(3,), magnified: bool = True,
    first_order: int = 1, per_series: int = 4, seed: int = 3, shift: float = 7.0, spread: float = 2.0,
) -> Made:
    """Tilt series of ``tilts`` images of ``size``, and ``per_series`` sub-tomograms in each, all numbers random.

    Matrices have a magnification and a skew where ``magnified``; ``spread`` is that of the coordinates, in their pixels.
    """
    random = np.random.default_rng(seed)
    made = Made()
    ctf_names = names if ctf_names is None else ctf_names
    particle_names = names if particle_names is None else particle_names
    folder.mkdir(parents=True, exist_ok=True)
    _add_tilt_series(made, folder, names, tilts, pixel, size, excluded, magnified, first_order, random)
    _add_ctfs(made, folder, ctf_names, random)
    _add_particles(made, folder, particle_names, coordinate_pixel, sub_pixel, per_series, shift, spread, random)
    return made


def _add_tilt_series(made, folder, names, tilts, pixel, size, excluded, magnified, first_order, random) -> None:
    made.tilt_series = SetOfTiltSeries(filename=str(folder / "tiltseries.sqlite"))
    acquisition = TomoAcquisition(voltage=200.0, sphericalAberration=1.9, amplitudeContrast=0.11, magnification=10000.0,
                                  tiltAxisAngle=-80.0)
    made.tilt_series.setAcquisition(acquisition)
    made.tilt_series.setSamplingRate(pixel)
    for name in names:
        item = TiltSeries(tsId=name)
        item.setSamplingRate(pixel)
        item.setAcquisition(acquisition)
        made.tilt_series.append(item)
        stack = write_image(folder / f"{name}.mrcs", (tilts, size[1], size[0]), pixel)
        order = random.permutation(tilts)
        for index in range(tilts):
            angle = np.deg2rad(83.0 + random.normal())
            linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            if magnified:
                linear = linear @ (1.005 * np.eye(2) + 0.003 * random.normal(size=(2, 2)))
            matrix = np.eye(3)
            matrix[:2, :2], matrix[:2, 2] = linear, random.normal(size=2) * 6.0
            image = TiltImage(tsId=name, tiltAngle=-60 + 30.0 * index + random.normal(),
                              acquisitionOrder=int(order[index]) + first_order)
            image.setLocation(index + 1, stack)
            image.setSamplingRate(pixel)
            image.setTransform(Transform(matrix))
            own = acquisition.clone()
            own.setDoseInitial(3.3 * float(order[index]))
            own.setDosePerFrame(3.3)
            own.setAccumDose(3.3 * float(order[index] + 1))
            image.setAcquisition(own)
            image.setEnabled(index not in excluded)
            item.append(image)
        item.setAnglesCount(tilts)
        item.write()
        made.tilt_series.update(item)
    made.tilt_series.write()


def _add_ctfs(made, folder, ctf_names, random) -> None:
    made.ctfs = SetOfCTFTomoSeries(filename=str(folder / "ctfs.sqlite"))
    made.ctfs.setSetOfTiltSeries(made.tilt_series)
    for item in [one.clone(ignoreAttrs=[]) for one in made.tilt_series.iterItems()]:
        if item.getTsId() not in ctf_names:
            continue
        series = CTFTomoSeries(tsId=item.getTsId())
        series.setTiltSeries(item)
        made.ctfs.append(series)
        images = [image.clone() for image in item.iterItems()]
        for image in reversed(images):  # another order than the images': only the acquisition order pairs them
            estimate = CTFTomo(index=image.getIndex(), acqOrder=image.getAcquisitionOrder())
            estimate.setDefocusU(20000.0 + 1000.0 * image.getIndex() + random.normal())
            estimate.setDefocusV(19000.0 + 1000.0 * image.getIndex() + random.normal())
            estimate.setDefocusAngle(40.0 + random.normal())
            estimate.setPhaseShift(12.5 + random.normal())
            estimate.setResolution(8.0)
            series.append(estimate)
        series.write(properties=False)
        made.ctfs.update(series)
    made.ctfs.write()


def _add_particles(made, folder, particle_names, coordinate_pixel, sub_pixel, per_series, shift, spread,
                   random) -> None:
    made.tomograms = SetOfTomograms(filename=str(folder / "tomograms.sqlite"))
    made.tomograms.setSamplingRate(coordinate_pixel)
    kept = {}
    for name in particle_names:
        tomogram = Tomogram(tsId=name)
        tomogram.setFileName(write_image(folder / f"{name}_tomogram.mrc", (20, 30, 40), coordinate_pixel))
        tomogram.setSamplingRate(coordinate_pixel)
        tomogram.setOrigin()
        made.tomograms.append(tomogram)
        kept[name] = tomogram.clone()
    made.tomograms.write()
    made.coordinates = SetOfCoordinates3D(filename=str(folder / "coordinates.sqlite"))
    made.coordinates.setSamplingRate(coordinate_pixel)
    made.coordinates.setBoxSize(8)
    made.coordinates.setPrecedents(made.tomograms)
    made.particles = SetOfSubTomograms(filename=str(folder / "subtomograms.sqlite"))
    made.particles.setSamplingRate(sub_pixel)
    made.particles.setCoordinates3D(made.coordinates)
    cube = write_image(folder / "sub.mrc", (16, 16, 16), sub_pixel)
    for name in particle_names:
        for _ in range(per_series):
            place = random.normal(size=3) * spread
            inverse = np.eye(4)
            inverse[:3, :3] = rotation_vector_to_matrix(random.normal(size=3) * 2.0)
            inverse[:3, 3] = -shift * random.normal(size=3)
            coordinate = Coordinate3D()
            coordinate.setVolume(kept[name])
            coordinate.setPosition(*place.tolist(), SCIPION)
            made.coordinates.append(coordinate)
            item = SubTomogram()
            item.setFileName(cube)
            item.setSamplingRate(sub_pixel)
            item.setVolName(name)
            item.setCoordinate3D(coordinate.clone())
            item.setTransform(Transform(np.linalg.inv(inverse)))
            made.particles.append(item)
            made.transforms.append(np.linalg.inv(inverse))
            made.places.append(place)
    made.coordinates.write()
    made.particles.setAlignment3D()
    made.particles.write()


def change(items, field, value, series=None, index=None) -> None:
    """Set an attribute, or ``enabled``, of the items of a set of series that are of ``series`` (all) and ``index`` (all).

    ``index`` 0 means the series itself.
    """
    for item in [one.clone(ignoreAttrs=[]) for one in items.iterItems()]:
        if series not in (None, item.getTsId()):
            continue
        inside = [] if index == 0 else [one.clone() for one in item.iterItems() if index in (None, one.getIndex())]
        for one in inside or [item]:
            if field == "enabled":
                one.setEnabled(value)
            else:
                attrgetter(field)(one).set(value)
            if inside:
                item.update(one)
        if inside:
            item.write(properties=False)
        items.update(item)
    items.write()
