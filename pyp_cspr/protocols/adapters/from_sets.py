"""Scipion's sets to a data set of the engine.

Series, CTFs, tomograms and particles are matched by their tilt-series identifier (tsId), CTFs and tilt images by acquisition
order; what has no partner is left out and said. Every set's sampling rate is its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray
from tomo.constants import SCIPION
from tomo.objects import SubTomogram

from ...engine.conventions import DARK_PARTICLES, WHITE_PARTICLES
from ...engine.errors import InputError
from ...engine.model.stretches import stretches_to_columns
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
NO_IMAGE = "no tilt image is enabled and has an enabled CTF"


@dataclass
class Conversion:
    """A data set, where its rows come from, and what was left out, a sentence each.

    ``tilt_rows`` has the exposure row of (tsId, tilt image's objId), ``ctf_rows`` that of (tsId, CTF's objId),
    ``particle_rows`` the particle row of a sub-tomogram's objId.
    """

    dataset: Dataset = field(default_factory=lambda: _empty())
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
    series, estimates = by_name(tilt_series), by_name(ctfs)
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
    used, lost = _partners(series, estimates, found)
    notes += lost
    if not used:
        raise InputError("no tilt series has both CTFs and particles; check that the sets are of the same tilt series (tsId), "
                         "and enabled")
    sizes = _tomogram_sizes(coordinates)
    conversion = Conversion(notes=notes)
    tables: Tuple[List, List, List] = ([], [], [])
    flags: List[Any] = []
    for name in used:
        row, exposures = read_series(series[name], estimates[name], conversion, len(tables[0]), len(tables[1]), hand, dark)
        if not exposures:
            notes.append(f"{name}: left out, {NO_IMAGE}; its {len(found[name])} particles are left out")
            continue
        size, pixel = sizes.get(name, (np.zeros(3), 0.0))
        row["specimen_size"] = np.rint(np.asarray(size) * pixel / row["pixel"]).astype(int)
        for one in found[name]:
            conversion.particle_rows[one.pop("id")] = len(tables[2])
            flags.append(one.pop("visible", None))
            tables[2].append(dict(one, series=len(tables[0]), name=f"{name}/{one['name']}"))
        tables[0].append(row)
        tables[1].extend(exposures)
    if not tables[0]:
        raise InputError(f"{', '.join(used)}: {NO_IMAGE}; enable some, or estimate their CTFs")
    columns = [{key: [row[key] for row in rows] for key in rows[0]} for rows in tables]
    made = [Table(schema, values) for schema, values in zip((SERIES, EXPOSURES, PARTICLES), columns)]
    lengths = np.bincount(made[1]["series"])
    visible = np.arange(lengths.max()) < lengths[made[2]["series"]][:, None]
    conversion.dataset = Dataset(made[0], made[1], made[2], visible, source=f"sets of {len(tables[0])} tilt series")
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


def scores_of(particles: Any) -> NDArray[np.float64]:
    """The scores that *refine tilt series* gave to particles, NaN for those without."""
    # a list, as the set's iterator gives the same object again
    return np.array([_number(item, SCORE, np.nan) for item in particles.iterItems()], dtype=float)


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


def by_name(items: Any) -> Dict[str, Any]:
    """Copies of the items of a set of series, by tsId; the host's own copies may lose that an item is disabled."""
    copies = {}
    for item in items.iterItems():
        copies[item.getTsId()] = item.clone(ignoreAttrs=[])
        copies[item.getTsId()].setEnabled(item.isEnabled())
    return copies


def _partners(series: Dict[str, Any], ctfs: Dict[str, Any], particles: Dict[str, List]) -> Tuple[List[str], List[str]]:
    """(the series that have all, in order, and a sentence for each of the others)."""
    notes, left = [], set()
    for name in sorted(set(series) | set(ctfs) | set(particles), key=str):
        missing = [text for known, text in ((series, "tilt series"), (ctfs, "CTFs"), (particles, "particles"))
                   if name not in known]
        reasons = [f"it has no {' and no '.join(missing)}"] if missing else []
        reasons += [f"its {text} disabled" for known, text in ((series, "tilt series is"), (ctfs, "CTFs are"))
                    if name in known and not known[name].isEnabled()]
        if reasons:
            lost = f"; its {len(particles[name])} particles are left out" if name in particles else ""
            notes.append(f"{name}: left out, {' and '.join(reasons)}{lost}")
            left.add(name)
    return [name for name in series if name not in left], notes


def _tomogram_sizes(coordinates: Any) -> Dict[str, Tuple[Any, float]]:
    """(size in pixels, pixel in angstrom) of the tomograms by tsId; only what can be read."""
    tomograms, sizes = coordinates.getPrecedents(), {}
    for tomogram in tomograms.iterItems() if tomograms is not None else ():
        size = tomogram.getDim()
        if size is not None:
            sizes[tomogram.getTsId()] = (size, float(tomogram.getSamplingRate()))
    return sizes


def read_series(
    item: Any, ctfs: Any, conversion: Conversion, row: int = 0, first: int = 0, hand: int = -1, dark: bool = True
) -> Tuple[Dict[str, Any], List[Dict[str, Any]]]:
    """(a series' row, those of its exposures by their place in the stack); nothing where no image can be used.

    ``row`` and ``first`` are the series' row and its first exposure's in the tables; ``conversion`` is told where the rows come
    from. Raises InputError where a number that is needed is not known.
    """
    name, acquisition = str(item.getTsId()), item.getAcquisition()
    pixel = _known(item.getSamplingRate(), name, "its pixel size")
    size = [int(_known(one, name, "the size of its images", "import it again")) for one in (item.getDim() or (None, None))[:2]]
    pairs = _pairs(name, item, ctfs)
    if not any(_usable(image, estimate) for image, estimate in pairs):
        return {}, []
    exposures: List[Dict[str, Any]] = []
    unknown: List[int] = []
    for image, estimate in pairs:
        if image.isEnabled() and not _usable(image, estimate):
            unknown.append(image.getIndex())
        exposure = _exposure(name, image, estimate, row)
        if estimate is not None and exposure["defocus"] is not None:
            conversion.ctf_rows[name, int(estimate.getObjId())] = first + len(exposures)
        conversion.tilt_rows[name, int(image.getObjId())] = first + len(exposures)
        exposures.append(exposure)
    known = [one["defocus"] for one in exposures if one["defocus"] is not None]
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
    matrices, tilts = ([one.pop(key) for one in exposures] for key in ("matrix", "tilt"))
    rotation, shift, stretch = exposure_from_set(matrices, tilts, pixel)
    magnification, deformation, grid = stretches_to_columns(stretch, size, pixel)
    for number, one in enumerate(exposures):
        one.update(rotation=rotation[number], shift=shift[number], magnification=magnification[number],
                   deformation=deformation[number])
    return {
        "name": name, "images": files.pop() if len(files) == 1 else "", "image_size": size,
        "pixel": pixel, "voltage": _known(acquisition.getVoltage(), name, "its voltage"),
        "cs": _known(acquisition.getSphericalAberration(), name, "its spherical aberration"),
        "amplitude_contrast": _known(acquisition.getAmplitudeContrast(), name, "its amplitude contrast"), "hand": float(hand),
        "contrast": DARK_PARTICLES if dark else WHITE_PARTICLES, "deformation_grid": grid,
    }, exposures


def _pairs(name: str, item: Any, ctfs: Any) -> List[Tuple[Any, Optional[Any]]]:
    """The tilt images of a series by their place in the stack, each with its CTF."""
    images = sorted((image.clone() for image in item.iterItems()), key=lambda image: int(image.getIndex()))
    # As CTFTomoSeries.getCtfTomoFromTi, which asks, and then closes, the database for each image.
    found = [estimate.clone() for estimate in ctfs.iterItems()]
    by_order = all(estimate.getAcquisitionOrder() is not None for estimate in found)
    estimates = {_key(name, estimate, by_order): estimate for estimate in found}
    return [(image, estimates.get(_key(name, image, by_order))) for image in images]


def _key(name: str, item: Any, by_order: bool) -> int:
    """What pairs tilt images and CTFs: the acquisition order, or in old sets the place in the stack."""
    if by_order:
        return int(_known(item.getAcquisitionOrder(), f"{name}: tilt image {item.getIndex()}", "its acquisition order"))
    return int(_known(item.getIndex(), name, "the tilt image of a CTF, by acquisition order or place in the stack,",
                      "estimate its CTFs again"))


def _usable(image: Any, estimate: Optional[Any]) -> bool:
    return bool(image.isEnabled()) and estimate is not None and bool(estimate.isEnabled())


def _known(value: Any, where: str, what: str, remedy: str = "import the tilt series with it") -> float:
    """A number that a set must hold. Raises InputError where it does not."""
    if value is None or not np.isfinite(value):
        raise InputError(f"{where}: {what} is not known; {remedy}")
    return float(value)


def _exposure(name: str, image: Any, estimate: Optional[Any], series: int) -> Dict[str, Any]:
    """An exposure's row, with its matrix and tilt angle in place of the geometry."""
    where = f"{name}: tilt image {image.getIndex()}"
    matrix = image.getTransform().getMatrix() if image.hasTransform() else np.zeros((3, 3))
    determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    if not abs(determinant) > 0:
        raise InputError(f"{where} has no alignment; align the tilt series first")
    if determinant < 0:
        raise InputError(f"{where}: its alignment mirrors the image; align the images as they were recorded")
    tilt = _known(image.getTiltAngle(), where, "its tilt angle")
    before, dose = _dose(image)
    enabled = _usable(image, estimate)
    defocus = phase = None
    if estimate is not None:
        found = (estimate.getDefocusU(), estimate.getDefocusV(), estimate.getDefocusAngle() or 0.0)
        if enabled or not any(value is None or np.isnan(value) for value in found):
            defocus = tuple(_known(value, where, "its defocus", "estimate it, or exclude the image") for value in found)
        phase = estimate.getPhaseShift()
    return {
        "series": series, "slice": int(image.getIndex()) - 1, "file": image_path(image.getFileName()),
        "order": int(_known(image.getAcquisitionOrder(), where, "its acquisition order")), "matrix": matrix, "tilt": tilt,
        "dose_before": before, "dose": dose, "defocus": defocus, "phase_shift": float(phase or 0.0),
        # where nobody has measured it, as RELION: the ice is 1 / cos(tilt) thick
        "scale": _number(image, SCALE, float(np.cos(np.deg2rad(tilt)))), "enabled": enabled,
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
