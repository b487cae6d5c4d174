"""Scipion's sets of a data set that the engine made: nothing of the host is there yet to be copied."""

from __future__ import annotations

from typing import Any, Dict, Sequence, Tuple

import numpy as np
from pwem.objects import Transform
from pyworkflow.object import Float, Integer
from tomo.constants import SCIPION
from tomo.objects import Coordinate3D, CTFTomo, CTFTomoSeries, SubTomogram, TiltImage, TiltSeries, TomoAcquisition, Tomogram

from ...engine.core.geometry import matrix_to_tilt
from ...engine.model.stretches import columns_to_stretches
from ...engine.model.tables import Dataset
from .from_sets import HALF, SCALE
from .geometry import exposure_to_set, particle_to_set
from .to_sets import set_figures


def acquisition(dataset: Dataset, series: int) -> TomoAcquisition:
    """The acquisition of a series."""
    row, tilts = dataset.series, dataset.exposures_of(series)
    _, angles, axes = matrix_to_tilt(dataset.exposures["rotation"][tilts])
    made = TomoAcquisition(
        voltage=float(row["voltage"][series]), sphericalAberration=float(row["cs"][series]),
        amplitudeContrast=float(row["amplitude_contrast"][series]), magnification=10000.0,
        angleMin=float(angles.min()), angleMax=float(angles.max()),
        step=float((angles.max() - angles.min()) / max(len(angles) - 1, 1)), tiltAxisAngle=float(-np.mean(axes)),
    )
    dose = dataset.exposures["dose"][tilts]
    made.setDoseInitial(float(dataset.exposures["dose_before"][tilts].min()))
    made.setDosePerFrame(float(dose.mean()))
    made.setAccumDose(float((dataset.exposures["dose_before"][tilts] + dose).max()))
    return made


def fill_tilt_series(target: Any, dataset: Dataset) -> None:
    """A tilt series for each of the data set's, with images, alignment, doses and excluded views."""
    target.setSamplingRate(float(dataset.series["pixel"][0]))
    target.setAcquisition(acquisition(dataset, 0))
    exposures, (stretches, _) = dataset.exposures, columns_to_stretches(dataset)
    for series, name in enumerate(dataset.series["name"].tolist()):
        pixel, tilts = float(dataset.series["pixel"][series]), dataset.exposures_of(series)
        item = TiltSeries(tsId=name)
        item.setSamplingRate(pixel)
        item.setAcquisition(acquisition(dataset, series))
        item.setAlignment2D()
        target.append(item)
        for row in tilts:
            matrix, angle, _ = exposure_to_set(exposures["rotation"][row], exposures["shift"][row], stretches[row], pixel)
            image = TiltImage(tsId=name, tiltAngle=angle, acquisitionOrder=int(exposures["order"][row]) + 1)
            file = str(exposures["file"][row]) or str(dataset.series["images"][series])
            image.setLocation(int(exposures["slice"][row]) + 1, file)
            image.setSamplingRate(pixel)
            image.setTransform(Transform(matrix))
            image.setEnabled(bool(exposures["enabled"][row]))
            own = acquisition(dataset, series)
            own.setDoseInitial(float(exposures["dose_before"][row]))
            own.setDosePerFrame(float(exposures["dose"][row]))
            own.setAccumDose(float(exposures["dose_before"][row] + exposures["dose"][row]))
            image.setAcquisition(own)
            setattr(image, SCALE, Float(float(exposures["scale"][row])))
            item.append(image)
        item.setAnglesCount(len(tilts))
        item.write()  # or the two databases wait for each other for ever
        target.update(item)
    target.write()


def fill_ctfs(target: Any, tilt_series: Any, dataset: Dataset, fit_resolution: float) -> None:
    """The CTFs of the tilt images of ``fill_tilt_series``; ``tilt_series`` is that set.

    ``fit_resolution`` (angstrom) says how far they fit; 0: it is not known.
    """
    exposures = dataset.exposures
    target.setSetOfTiltSeries(tilt_series)
    for series, item in enumerate([one.clone(ignoreAttrs=[]) for one in tilt_series.iterItems()]):
        estimates = CTFTomoSeries(tsId=item.getTsId())
        estimates.setTiltSeries(item)
        target.append(estimates)
        for row in dataset.exposures_of(series):
            estimate = CTFTomo(index=int(exposures["slice"][row]) + 1, acqOrder=int(exposures["order"][row]) + 1)
            defocus = exposures["defocus"][row].tolist()
            estimate.setDefocusU(defocus[0])  # setStandardDefocus would swap them where the second is the larger
            estimate.setDefocusV(defocus[1])
            estimate.setDefocusAngle(defocus[2])
            estimate.setPhaseShift(float(exposures["phase_shift"][row]))
            estimate.setResolution(fit_resolution)  # other plugins cannot write CTFs without a number
            estimate.setEnabled(bool(exposures["enabled"][row]))
            estimates.append(estimate)
        estimates.write(properties=False)
        target.update(estimates)
    target.write()


def fill_tomograms(target: Any, dataset: Dataset, files: Sequence[str], voxel: float) -> None:
    """A tomogram for each series, of ``files``, with voxels of ``voxel`` angstrom."""
    target.setSamplingRate(voxel)
    target.setAcquisition(acquisition(dataset, 0))
    for series, (name, file) in enumerate(zip(dataset.series["name"].tolist(), files)):
        item = Tomogram(tsId=name)
        item.setFileName(file)
        item.setSamplingRate(voxel)
        item.setOrigin()
        item.setAcquisition(acquisition(dataset, series))
        target.append(item)
    target.write()


def whole_coordinates(dataset: Dataset, voxel: float) -> np.ndarray:
    """The voxel nearest to each particle, ``(n, 3)`` from the tomogram's centre: where a picking program would put it."""
    return np.rint(dataset.particles["position"] / voxel)


def fill_coordinates(target: Any, tomograms: Any, dataset: Dataset, box: int) -> None:
    """A coordinate at the voxel nearest to each particle, with its orientation; boxes of ``box`` voxels."""
    voxel = float(tomograms.getSamplingRate())
    target.setSamplingRate(voxel)
    target.setBoxSize(box)
    target.setPrecedents(tomograms)
    for row, coordinate in enumerate(_coordinates(tomograms, dataset, voxel)):
        matrix = np.eye(4)
        matrix[:3, :3] = dataset.particles["rotation"][row].T
        coordinate.setMatrix(matrix)
        score = float(dataset.particles["score"][row])
        if np.isfinite(score):
            coordinate.setScore(score)
        target.append(coordinate)
    target.write()


def _coordinates(tomograms: Any, dataset: Dataset, voxel: float) -> Sequence[Coordinate3D]:
    known: Dict[str, Any] = {item.getTsId(): item.clone() for item in tomograms.iterItems()}
    made = []
    for place, series in zip(whole_coordinates(dataset, voxel), dataset.particles["series"]):
        coordinate = Coordinate3D()
        coordinate.setVolume(known[str(dataset.series["name"][series])])
        coordinate.setPosition(*[float(value) for value in place], SCIPION)
        made.append(coordinate)
    return made


def fill_sub_tomograms(
    target: Any, coordinates: Any, tomograms: Any, dataset: Dataset, images: Sequence[Tuple[int, str]], voxel: float
) -> None:
    """Sub-tomograms cut at ``fill_coordinates``' voxels: ``images`` has (1-based place, file) of each particle's."""
    target.setSamplingRate(voxel)
    target.setCoordinates3D(coordinates)
    target.setAcquisition(acquisition(dataset, 0))
    particles, pixel = dataset.particles, float(tomograms.getSamplingRate())
    for row, coordinate in enumerate(_coordinates(tomograms, dataset, pixel)):
        item = SubTomogram()
        item.setLocation(*images[row])
        item.setSamplingRate(voxel)
        item.setVolName(coordinate.getTomoId())
        item.setAcquisition(acquisition(dataset, int(particles["series"][row])))
        item.setCoordinate3D(coordinate)
        place = coordinate.getPosition(SCIPION)
        rotation, position = particles["rotation"][row], particles["position"][row]
        item.setTransform(Transform(particle_to_set(rotation, position, place, pixel, voxel)))
        if particles["half"].any():
            setattr(item, HALF, Integer(int(particles["half"][row])))
        if np.isfinite(particles["score"]).any() or (particles["weight"] != 1).any():
            set_figures(item, particles, row)
        target.append(item)
    target.setAlignment3D()
    target.write()
