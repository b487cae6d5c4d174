"""Scipion's sets to a data set of the engine.

Series, CTFs, tomograms and particles are matched by their tilt-series identifier (tsId), CTFs and tilt images by acquisition
order; what has no partner is left out and said. Every set's sampling rate is its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from tomo.constants import SCIPION
from tomo.objects import SubTomogram

from ...engine.conventions import DARK_PARTICLES, WHITE_PARTICLES
from ...engine.errors import InputError
from ...engine.model.tables import EXPOSURES, PARTICLES, SERIES, Dataset, Table
from . import relion_sets
from .geometry import exposure_from_set, particle_from_set

# Attributes of our own on items of sets. Protocols that copy items by name lose them; nothing depends on their being there.
HALF = "_rlnRandomSubset"  # the name that other plugins use
SCORE = "_csprScore"
SIGMA_ROTATION = "_csprSigmaRotation"
SIGMA_POSITION = "_csprSigmaPosition"
WEIGHT = "_csprWeight"
SCALE = "_csprScale"  # of tilt images: the signal's amplitude (rlnCtfScalefactor)


@dataclass
class Conversion:
    """A data set, where its rows come from, and what was left out, a sentence each.

    ``tilt_rows`` has the exposure row of (tsId, tilt image's objId), ``ctf_rows`` that of (tsId, CTF's objId),
    ``particle_rows`` the particle row of a sub-tomogram's objId.
    """

    dataset: Dataset
    tilt_rows: Dict[Tuple[str, int], int] = field(default_factory=dict)
    ctf_rows: Dict[Tuple[str, int], int] = field(default_factory=dict)
    particle_rows: Dict[int, int] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)


def image_path(name: str) -> str:
    """Absolute path of an image file that the host may have written with its type: ``stack.mrc:mrcs``."""
    head, colon, tail = name.rpartition(":")
    return os.path.abspath(head if colon and "/" not in tail else name)


def read_sets(particles: Any, tilt_series: Any, ctfs: Any, hand: int = -1, dark: bool = True) -> Conversion:
    """The data set of a SetOfSubTomograms, a SetOfTiltSeries and a SetOfCTFTomoSeries.

    ``hand`` is the sign of depth in the defocus; ``dark`` says that particles are dark in the tilt images. Raises InputError
    where nothing is left, or where the sets lack what is needed.
    """
    coordinates = particles.getCoordinates3D()
    if coordinates is None:
        raise InputError("the sub-tomograms have no 3D coordinates; take a set whose particles were picked in tomograms")
    pseudo = relion_sets.is_pseudo(particles)
    if pseudo and relion_sets.refusal(particles):
        raise InputError(relion_sets.refusal(particles))
    series = {item.getTsId(): item.clone(ignoreAttrs=[]) for item in tilt_series.iterItems()}
    estimates = {item.getTsId(): item.clone(ignoreAttrs=[]) for item in ctfs.iterItems()}
    found: Dict[str, List[Dict[str, Any]]] = {}
    notes: List[str] = []
    disabled = 0
    for item in particles.iterItems():
        if not item.isEnabled():
            disabled += 1
            continue
        row = _particle(item, None if pseudo else coordinates.getSamplingRate(), particles.getSamplingRate())
        found.setdefault(row.pop("tsId"), []).append(row)
    if disabled:
        notes.append(f"{disabled} disabled particles are left out")
    used = [name for name in series if name in estimates and name in found]
    notes += _partners(series, estimates, found)
    if not used:
        raise InputError("no tilt series has both CTFs and particles; check that the sets are of the same tilt series (tsId)")
    sizes = _tomogram_sizes(coordinates)
    conversion = Conversion(_empty(), notes=notes)
    tables: Tuple[List, List, List] = ([], [], [])
    flags: List[Any] = []
    for name in used:
        row, exposures = _series(series[name], estimates[name], len(tables[0]), len(tables[1]), hand, dark, conversion)
        size, pixel = sizes.get(name, (np.zeros(3), 0.0))
        row["specimen_size"] = np.rint(np.asarray(size) * pixel / row["pixel"]).astype(int)
        for one in found[name]:
            conversion.particle_rows[one.pop("id")] = len(tables[2])
            flags.append(one.pop("visible", None))
            tables[2].append(dict(one, series=len(tables[0]), name=f"{name}/{one['name']}"))
        tables[0].append(row)
        tables[1].extend(exposures)
    columns = [{key: [row[key] for row in rows] for key in rows[0]} for rows in tables]
    made = [Table(schema, values) for schema, values in zip((SERIES, EXPOSURES, PARTICLES), columns)]
    lengths = np.bincount(made[1]["series"])
    visible = np.arange(lengths.max()) < lengths[made[2]["series"]][:, None]
    conversion.dataset = Dataset(made[0], made[1], made[2], visible, source=f"sets of {len(used)} tilt series")
    notes += _hide(conversion.dataset, flags)
    box = box_of(particles)
    if box:
        conversion.dataset.box = 2 * (box // 2)
        conversion.dataset.box_pixel = float(particles.getSamplingRate())
    conversion.dataset.validate()
    return conversion


def _empty() -> Dataset:
    tables = [Table(schema, {column.name: np.zeros((0,) + column.shape, column.dtype) for column in schema})
              for schema in (SERIES, EXPOSURES, PARTICLES)]
    return Dataset(tables[0], tables[1], tables[2], np.zeros((0, 0), bool))


def _number(item: Any, name: str, otherwise: float) -> float:
    """An attribute of our own, or what stands for it where the item has none."""
    attribute = getattr(item, name, None)
    value = None if attribute is None else attribute.get()
    return otherwise if value is None else float(value)


def box_of(particles: Any) -> int:
    """Width of the sub-tomograms in pixels; 0 where it is not known. Images of RELION's particles may be stacks of 2D ones."""
    if relion_sets.is_pseudo(particles):
        return int(particles.getBoxSize() or 0)
    dimensions = particles.getDim()
    return 0 if dimensions is None else int(dimensions[0])


def series_label(particles: Any) -> str:
    """The attribute of the items that names their tilt series."""
    return relion_sets.SERIES_LABEL if relion_sets.is_pseudo(particles) else str(SubTomogram.COORD_VOL_NAME_FIELD)


def _hide(dataset: Dataset, flags: List[Any]) -> List[str]:
    """Leave out projections that the particles' ``visible`` flags, of the images that are used, exclude; remarks."""
    unlike = 0
    for row, own in enumerate(flags):
        if own is None:
            continue
        used = np.flatnonzero(dataset.exposures["enabled"][dataset.exposures_of(int(dataset.particles["series"][row]))])
        if len(used) == len(own):
            dataset.visible[row, used] = own
        else:
            unlike += 1
    if not unlike:
        return []
    return [f"{unlike} particles list visible frames of another number of images than their tilt series has: not heeded"]


def _particle(item: Any, coordinate_pixel: Optional[float], pixel: float) -> Dict[str, Any]:
    """A particle's row; without ``coordinate_pixel`` it is one of RELION's."""
    if coordinate_pixel is None:
        row = relion_sets.read_particle(item, pixel)
        row["visible"] = relion_sets.read_visible(item)
    else:
        row = dict(_placed(item, coordinate_pixel, pixel), half=int(_number(item, HALF, 0)))
    row.update({
        "id": int(item.getObjId()),
        "name": f"{int(item.getObjId()):07d}",  # half-sets alternate in the order of names
        "score": _number(item, SCORE, np.nan),
        "sigma": (_number(item, SIGMA_ROTATION, 0.0), _number(item, SIGMA_POSITION, 0.0)),
        "weight": _number(item, WEIGHT, 1.0),
    })
    return row


def _placed(item: Any, coordinate_pixel: float, pixel: float) -> Dict[str, Any]:
    """Series and pose of a sub-tomogram."""
    coordinate, number = item.getCoordinate3D(), int(item.getObjId())
    if coordinate is None:
        raise InputError(f"sub-tomogram {number}: has no 3D coordinate; take a set whose particles were picked in tomograms")
    transform = item.getTransform()
    matrix = np.eye(4) if transform is None else transform.getMatrix()
    rotation, position = particle_from_set(matrix, coordinate.getPosition(SCIPION), coordinate_pixel, pixel)
    return {"tsId": coordinate.getTomoId(), "position": position, "rotation": rotation}


def _partners(series: Dict[str, Any], ctfs: Dict[str, Any], particles: Dict[str, List]) -> List[str]:
    notes = []
    for name in sorted(set(series) | set(ctfs) | set(particles), key=str):
        missing = [text for known, text in ((series, "tilt series"), (ctfs, "CTFs"), (particles, "particles"))
                   if name not in known]
        if missing:
            lost = f"; its {len(particles[name])} particles are left out" if name in particles else ""
            notes.append(f"{name}: left out, it has no {' and no '.join(missing)}{lost}")
    return notes


def _tomogram_sizes(coordinates: Any) -> Dict[str, Tuple[Any, float]]:
    """(size in pixels, pixel in angstrom) of the tomograms by tsId; only what can be read."""
    tomograms, sizes = coordinates.getPrecedents(), {}
    for tomogram in tomograms.iterItems() if tomograms is not None else ():
        size = tomogram.getDim()
        if size is not None:
            sizes[tomogram.getTsId()] = (size, float(tomogram.getSamplingRate()))
    return sizes


def _series(
    item: Any, ctfs: Any, row: int, first: int, hand: int, dark: bool, conversion: Conversion
) -> Tuple[Dict[str, Any], List[Dict[str, Any]]]:
    """A series' row and those of its exposures, by their place in the stack."""
    name, pixel = str(item.getTsId()), float(item.getSamplingRate())
    acquisition = item.getAcquisition()
    size = item.getDim()
    images = sorted((image.clone() for image in item.iterItems()), key=lambda image: image.getIndex())
    exposures: List[Dict[str, Any]] = []
    unknown: List[int] = []
    # As CTFTomoSeries.getCtfTomoFromTi, which asks, and then closes, the database for each image.
    found = [estimate.clone() for estimate in ctfs.iterItems()]
    by_order = all(estimate.getAcquisitionOrder() is not None for estimate in found)
    estimates = {_key(estimate, by_order): estimate for estimate in found}
    for image in images:
        estimate = estimates.get(_key(image, by_order))
        if image.isEnabled() and (estimate is None or not estimate.isEnabled()):
            unknown.append(image.getIndex())
        if estimate is not None:
            conversion.ctf_rows[name, int(estimate.getObjId())] = first + len(exposures)
        conversion.tilt_rows[name, int(image.getObjId())] = first + len(exposures)
        exposures.append(_exposure(name, image, estimate, pixel, row))
    known = [one["defocus"] for one in exposures if one["defocus"] is not None]
    if not known:
        raise InputError(f"{name}: no tilt image has a CTF; estimate the CTFs of this tilt series first")
    for one in exposures:
        if one["defocus"] is None:  # never used, but a number
            one["defocus"] = np.mean(known, axis=0)
    if unknown:
        conversion.notes.append(f"{name}: tilt images {', '.join(map(str, unknown))} have no enabled CTF and are left out")
    if not any(one["dose"] for one in exposures):
        conversion.notes.append(f"{name}: the doses of its tilt images are not known, so all weigh the same")
    files = {one["file"] for one in exposures}
    if len(files) == 1:
        for one in exposures:
            one["file"] = ""
    order = np.argsort(np.argsort([one["order"] for one in exposures], kind="stable"))
    for one, place in zip(exposures, order):
        one["order"] = int(place)
    return {
        "name": name, "images": files.pop() if len(files) == 1 else "", "image_size": tuple(int(n) for n in size[:2]),
        "pixel": pixel, "voltage": float(acquisition.getVoltage()), "cs": float(acquisition.getSphericalAberration()),
        "amplitude_contrast": float(acquisition.getAmplitudeContrast()), "hand": float(hand),
        "contrast": DARK_PARTICLES if dark else WHITE_PARTICLES,
    }, exposures


def _key(item: Any, by_order: bool) -> int:
    """What pairs tilt images and CTFs: the acquisition order, or in old sets the place in the stack."""
    return int(item.getAcquisitionOrder() if by_order else item.getIndex())


def _exposure(name: str, image: Any, estimate: Optional[Any], pixel: float, series: int) -> Dict[str, Any]:
    if not image.hasTransform():
        raise InputError(f"{name}: tilt image {image.getIndex()} has no alignment; align the tilt series first")
    tilt = float(image.getTiltAngle())
    rotation, shift = exposure_from_set(image.getTransform().getMatrix(), tilt, pixel)
    before, dose = _dose(image)
    defocus = phase = None
    if estimate is not None:
        defocus = (float(estimate.getDefocusU()), float(estimate.getDefocusV()), float(estimate.getDefocusAngle() or 0.0))
        phase = estimate.getPhaseShift()
    return {
        "series": series, "slice": int(image.getIndex()) - 1, "file": image_path(image.getFileName()),
        "order": int(image.getAcquisitionOrder()), "rotation": rotation, "shift": shift, "dose_before": before, "dose": dose,
        "defocus": defocus, "phase_shift": float(phase or 0.0),
        # where nobody has measured it, as RELION: the ice is 1 / cos(tilt) thick
        "scale": _number(image, SCALE, float(np.cos(np.deg2rad(tilt)))),
        "enabled": bool(image.isEnabled()) and estimate is not None and bool(estimate.isEnabled()),
    }


def _dose(image: Any) -> Tuple[float, float]:
    """(before, of) a tilt image, in e/A^2. The host's ``dose per frame`` is that of the image."""
    acquisition = image.getAcquisition()
    if acquisition is None:
        return 0.0, 0.0
    before, dose, after = acquisition.getDoseInitial(), acquisition.getDosePerFrame(), acquisition.getAccumDose()
    if before is None:
        before = after - dose if after is not None and dose is not None else 0.0
    if dose is None:
        dose = after - before if after is not None else 0.0
    return float(before), float(dose)
