"""A data set of the engine to Scipion's sets: copies of the input sets with the new numbers.

The images, and the coordinates at which sub-tomograms were cut, stay: what moved is in the transforms.
"""

from __future__ import annotations

import csv
from typing import Any, Dict, List, Tuple

import numpy as np
from pwem.objects import FSC, Transform
from pyworkflow.object import Float, Integer
from tomo.constants import SCIPION
from tomo.objects import AverageSubTomogram, Coordinate3D, CTFTomo, CTFTomoSeries, TiltImage, TiltSeries

from ...engine.model.stretches import columns_to_stretches
from ...engine.model.tables import Dataset, Table
from . import relion_sets
from .from_sets import HALF, SCALE, SCORE, SIGMA_POSITION, SIGMA_ROTATION, WEIGHT, Conversion
from .geometry import exposure_to_set, particle_to_set

LARGEST_XTILT = 1e-3  # degrees: more than rounding


def match_rows(conversion: Conversion, result: Dataset) -> Dict[int, int]:
    """The result's row of each particle row that it still has."""
    names = conversion.dataset.particles["name"]
    found = {str(name): row for row, name in enumerate(result.particles["name"])}
    return {row: found[str(name)] for row, name in enumerate(names) if str(name) in found}


def set_figures(item: Any, particles: Table, row: int) -> None:
    """Score, uncertainties and weight of a particle as attributes of its item."""
    for name, value in ((SCORE, particles["score"][row]), (SIGMA_ROTATION, particles["sigma"][row, 0]),
                        (SIGMA_POSITION, particles["sigma"][row, 1]), (WEIGHT, particles["weight"][row])):
        setattr(item, name, Float(float(value) if np.isfinite(value) else None))


def fill_particles(target: Any, source: Any, conversion: Conversion, result: Dataset) -> None:
    """Copy the sub-tomograms that the result has, with its poses, half-sets, scores and uncertainties."""
    rows = match_rows(conversion, result)
    pixel, coordinate_pixel = source.getSamplingRate(), source.getCoordinates3D().getSamplingRate()
    particles, pseudo = result.particles, relion_sets.is_pseudo(source)

    def update(item: Any, _: Any = None) -> None:
        row = rows.get(conversion.particle_rows.get(item.getObjId(), -1))
        item._appendItem = row is not None
        if row is None:
            return
        rotation, position, half = particles["rotation"][row], particles["position"][row], int(particles["half"][row])
        if pseudo:
            enabled = result.exposures["enabled"][result.exposures_of(int(particles["series"][row]))]
            visible = result.visible[row, : len(enabled)][enabled]
            relion_sets.update_particle(item, rotation, position, half, visible, pixel)
        else:
            coordinate = item.getCoordinate3D().getPosition(SCIPION)
            item.setTransform(Transform(particle_to_set(rotation, position, coordinate, coordinate_pixel, pixel)))
            setattr(item, HALF, Integer(half))
        set_figures(item, particles, row)

    target.copyInfo(source)
    target.setAlignment3D()
    target.copyItems(source, updateItemCallback=update)


def attach_stars(target: Any, source: Any, folder: str, conversion: Conversion, result: Dataset) -> None:
    """Where particles are RELION's: the stars of the set that ``fill_particles`` made, in ``folder``."""
    if relion_sets.is_pseudo(source):
        rows = match_rows(conversion, result)
        known = {number: rows[row] for number, row in conversion.particle_rows.items() if row in rows}
        relion_sets.attach_stars(target, source, folder, result, known)


def fill_coordinates(target: Any, source: Any, conversion: Conversion, result: Dataset) -> None:
    """The particles' refined centres and orientations as 3D coordinates, without further shifts."""
    rows = match_rows(conversion, result)
    old = source.getCoordinates3D()
    pixel = float(old.getSamplingRate())
    target.setSamplingRate(pixel)
    target.setBoxSize(old.getBoxSize())
    for item in source.iterItems():
        row = rows.get(conversion.particle_rows.get(item.getObjId(), -1))
        if row is None:
            continue
        before, coordinate = item.getCoordinate3D(), Coordinate3D()
        coordinate.setObjId(item.getObjId())
        if before is None:  # of RELION's particles, which need none
            coordinate.setTomoId(item.getTsId())
        else:
            coordinate.setTomoId(before.getTomoId())
            coordinate._volId.set(before.getVolId())
            coordinate.setGroupId(before.getGroupId())
        coordinate.setPosition(*(result.particles["position"][row] / pixel), SCIPION)
        matrix = np.eye(4)
        matrix[:3, :3] = result.particles["rotation"][row].T
        coordinate.setMatrix(matrix)
        score = float(result.particles["score"][row])
        coordinate.setScore(score if np.isfinite(score) else 0.0)
        target.append(coordinate)


def fill_tilt_series(target: Any, source: Any, conversion: Conversion, result: Dataset) -> List[str]:
    """Copy all tilt series, with the new transforms and tilt angles of those that were refined; remarks, a sentence each."""
    target.copyInfo(source)
    notes: List[str] = []
    exposures, (stretches, _) = result.exposures, columns_to_stretches(result)
    for item in source.iterItems():
        name = item.getTsId()
        copied = TiltSeries()
        copied.copyInfo(item)
        copied.copyObjId(item)
        copied.setEnabled(item.isEnabled())
        target.append(copied)
        worst, pixel = 0.0, float(item.getSamplingRate())
        for image in item.iterItems():
            new = TiltImage()
            new.copyInfo(image, copyId=True)
            new.setAcquisition(image.getAcquisition())
            new.setLocation(image.getLocation())
            row = conversion.tilt_rows.get((name, int(image.getObjId())))
            if row is not None:
                rotation, shift = exposures["rotation"][row], exposures["shift"][row]
                matrix, tilt, xtilt = exposure_to_set(rotation, shift, stretches[row], pixel)
                new.setTransform(Transform(matrix))
                new.setTiltAngle(tilt)
                worst = max(worst, abs(xtilt))
            if hasattr(image, SCALE):
                setattr(new, SCALE, Float(getattr(image, SCALE).get()))
            copied.append(new)
        copied.setAnglesCount(copied.getSize())
        copied.write()  # or the two databases wait for each other for ever
        target.update(copied)
        if worst > LARGEST_XTILT:
            notes.append(f"{name}: an X-tilt of up to {worst:.2f} degrees was refined, which Scipion's tilt series "
                         "cannot hold; the refined stars in the run folder have it")
    target.write()
    return notes


def defocus_moved(conversion: Conversion, result: Dataset, tolerance: float = 1e-3) -> bool:
    """Whether any defocus or phase shift differs by more than ``tolerance`` angstrom (or degrees)."""
    before, after = conversion.dataset.exposures, result.exposures
    return any(np.abs(before[name] - after[name]).max(initial=0.0) > tolerance for name in ("defocus", "phase_shift"))


def fill_ctfs(target: Any, source: Any, tilt_series: Any, conversion: Conversion, result: Dataset) -> None:
    """Copy all CTFs with the refined defocus; ``tilt_series`` is the set (or a pointer to it) that they are of."""
    target.setSetOfTiltSeries(tilt_series)
    for item in source.iterItems():
        name = item.getTsId()
        copied = CTFTomoSeries()
        copied.copyInfo(item)
        copied.setTiltSeries(item.getTiltSeries())
        copied.setTsId(name)
        copied.setObjId(item.getObjId())
        copied.setEnabled(item.isEnabled())
        target.append(copied)
        for estimate in item.iterItems():
            new = CTFTomo()
            new.copyInfo(estimate, copyId=True)
            row = conversion.ctf_rows.get((name, int(estimate.getObjId())))
            if row is not None:
                new.setDefocusU(float(result.exposures["defocus"][row, 0]))
                new.setDefocusV(float(result.exposures["defocus"][row, 1]))
                new.setDefocusAngle(float(result.exposures["defocus"][row, 2]))
                if estimate.getDefocusRatio() is not None and new.getDefocusV():
                    new._defocusRatio.set(new.getDefocusU() / new.getDefocusV())
                if estimate.hasPhaseShift() or result.exposures["phase_shift"][row]:
                    new.setPhaseShift(float(result.exposures["phase_shift"][row]))
            copied.append(new)
        copied.write(properties=False)
        target.update(copied)
    target.write()


def average(folder: str, pixel: float) -> AverageSubTomogram:
    """The map of a run folder with its half maps."""
    volume = AverageSubTomogram()
    volume.setFileName(f"{folder}/map.mrc")
    volume.setHalfMaps([f"{folder}/half1.mrc", f"{folder}/half2.mrc"])
    volume.setSamplingRate(pixel)
    return volume


def read_curves(folder: str) -> Tuple[List[float], Dict[str, List[float]]]:
    """(spatial frequency in 1/A, the curves by name) of a run's fsc.csv, shell 0 left out."""
    with open(f"{folder}/fsc.csv", newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if int(row["shell"]) > 0]
    names = [name for name in rows[0] if name not in ("shell", "resolution")]
    return [1.0 / float(row["resolution"]) for row in rows], {name: [float(row[name]) for row in rows] for name in names}


def fill_curves(target: Any, folder: str) -> None:
    """The Fourier shell correlations of a run as items of a SetOfFSCs."""
    frequency, curves = read_curves(folder)
    for name, values in curves.items():
        curve = FSC(objLabel=name.replace("_", " "))
        curve.setData(frequency, values)
        target.append(curve)
