"""PYP's alignments of tilt series and the engine's data set.

PYP keeps a table of projections (where each was cut out, and its angles and shifts), one of particles and one of tilts. The
engine keeps particles and exposures and computes the projections. Reading takes poses from particles and tilts, and where the
exposures really look from where the projections were cut: PYP cuts at whole pixels below the true place, and does not move the
crops when a tilt turns. Writing gives crops at whole pixels and shifts that hold the rest, so that nothing is lost on the way.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.geometry import pyp_tilt_matrix
from ..errors import InputError
from ..model.tables import EXPOSURES, PARTICLES, SERIES, Dataset, Table
from . import pyp_geometry as pyp
from .pyp_aligned import AlignedSeries
from .pyp_series import (
    Columns,
    Part,
    PypOptics,
    PypSeries,
    SeriesTables,
    affine_grid,
    base_shift,
    particle_name,
    start_exposures,
)

__all__ = ["PypOptics", "PypSeries", "SeriesTables", "read_pyp_dataset", "series_of", "start_dataset", "write_pyp_dataset"]

NO_LOGP, NO_SIGMA = -500.0, 1.0  # PYP's own values where nothing is known


# --- reading ------------------------------------------------------------------------------------------------------------


def read_pyp_dataset(
    series: Sequence[PypSeries], optics: PypOptics, tables: Mapping[str, SeriesTables], source: str = ""
) -> Dataset:
    """The data set of aligned series; those without tables or particles are left out.

    Raises InputError for tables that contradict each other or the series.
    """
    used = [one for one in series if one.name in tables and any(map(len, tables[one.name].particles.values()))]
    if not used:
        raise InputError(f"{source or 'alignments'}: no particles of the project's series; check the .films file")
    parts = [AlignedSeries(one, optics, tables[one.name], source).columns() for one in used]
    return _assemble(used, optics, parts, source)


def start_dataset(
    series: Sequence[PypSeries], optics: PypOptics, poses: Mapping[str, Tuple[NDArray, NDArray, NDArray]], source: str = ""
) -> Dataset:
    """The data set before any projection was aligned.

    ``poses`` by series: index of the picked position ``(m,)``, R_p ``(m, 3, 3)``, and the displacement from the picked position
    ``(m, 3)`` in unbinned pixels, as ``pyp_geometry.volume_to_particle`` gives them.

    Raises InputError where a particle has no position.
    """
    used = [one for one in series if len(poses.get(one.name, ((),))[0])]
    if not used:
        raise InputError(f"{source or 'alignments'}: no particles of the project's series; check names and the .films file")
    parts = []
    for one in used:
        index, rotation, moved = poses[one.name]
        stored = one.positions_of(index, source) + moved
        height = 0.5 * (one.positions[:, 2].min() + one.positions[:, 2].max()) - 0.5 * one.size[2]
        exposures = start_exposures(one, optics, float(height) * optics.pixel)
        particles = {
            "name": [particle_name(one.name, i) for i in np.asarray(index).tolist()],
            "position": pyp.position_to_specimen(stored, np.zeros(3), one.size, optics.pixel),
            "rotation": rotation,
        }
        parts.append(Part(exposures, particles, np.tile(one.enabled, (len(index), 1)), affine_grid(one, optics)))
    return _assemble(used, optics, parts, source)


def _assemble(series: Sequence[PypSeries], optics: PypOptics, parts: Sequence[Part], source: str) -> Dataset:
    columns: Dict[str, Any] = {
        "name": [one.name for one in series],
        "images": [one.images for one in series],
        "image_size": [one.image_size for one in series],
        "specimen_size": [one.specimen_size for one in series],
        "deformation_grid": [part.grid for part in parts],
    }
    for name in ("pixel", "voltage", "cs", "amplitude_contrast", "hand", "contrast"):
        columns[name] = [getattr(optics, name)] * len(series)
    exposures = {name: np.concatenate([np.asarray(part.exposures[name]) for part in parts]) for name in parts[0].exposures}
    exposures["series"] = np.repeat(np.arange(len(parts)), [len(part.exposures["slice"]) for part in parts])
    particles = {name: np.concatenate([np.asarray(part.particles[name]) for part in parts]) for name in parts[0].particles}
    particles["series"] = np.repeat(np.arange(len(parts)), [len(part.visible) for part in parts])
    widest = max(part.visible.shape[1] for part in parts)
    visible = [np.pad(part.visible, ((0, 0), (0, widest - part.visible.shape[1]))) for part in parts]
    dataset = Dataset(Table(SERIES, columns), Table(EXPOSURES, exposures), Table(PARTICLES, particles), np.concatenate(visible),
                      optics.box, optics.pixel * optics.bin if optics.box else 0.0, source=source)
    dataset.validate()
    return dataset


# --- writing ------------------------------------------------------------------------------------------------------------


def write_pyp_dataset(
    dataset: Dataset, known: Mapping[str, PypSeries], scores: Optional[Mapping[str, NDArray]] = None
) -> Tuple[Dict[str, SeriesTables], List[str]]:
    """PYP's tables of every series, and warnings of what PYP has no word for.

    ``known`` are the project's series, against whose .xf the tilts' shifts are counted; one that is missing is aligned by the
    data set itself. ``scores`` ``(particles, exposures)`` by series, NaN where there is none; without them a projection has
    its particle's.
    """
    tables, warnings = {}, []
    for row, name in enumerate(dataset.series["name"].tolist()):
        turned = pyp.exposures_to_tilts(dataset.exposures["rotation"][dataset.exposures_of(row)])
        if turned.lost > 1e-3:
            warnings.append(f"series {name}: rotations about x that differ by up to {turned.lost:.3g} deg between tilts are "
                            "lost; PYP has none")
        score = None if scores is None else scores.get(name)
        tables[name] = _series_tables(dataset, row, known.get(name), turned, score)
        unseen = int((~dataset.used(row).any(axis=1)).sum())
        if unseen:
            warnings.append(f"series {name}: no tilt sees {unseen} of its particles; PYP keeps half-sets, and .parx keeps "
                            "particles, with the projections, so these are lost")
    return tables, warnings


def series_of(dataset: Dataset, row: int) -> PypSeries:
    """The metadata of a series of a data set, its exposures sorted by slice and its refined geometry as the alignment."""
    rows = _by_slice(dataset, row)
    exposures, series = dataset.exposures.take(rows), dataset.series
    turned = pyp.exposures_to_tilts(exposures["rotation"])
    linear = np.swapaxes(pyp_tilt_matrix(np.zeros(len(rows)), turned.axis), 1, 2)[:, :2, :2]
    size = series["image_size"][row]
    middle = pyp.image_to_pixel(exposures["shift"], size, float(series["pixel"][row])) - size / 2.0
    return PypSeries(
        str(series["name"][row]), str(series["images"][row]), (int(size[0]), int(size[1])),
        tuple(series["specimen_size"][row].tolist()), linear, -np.einsum("eij,ej->ei", linear, middle), turned.tilt,
        exposures["order"], exposures["defocus"], exposures["enabled"],
    )


def _by_slice(dataset: Dataset, row: int) -> NDArray[np.int64]:
    rows = dataset.exposures_of(row)
    tilt = pyp.exposures_to_tilts(dataset.exposures["rotation"][rows]).tilt
    return rows[np.lexsort((tilt, dataset.exposures["slice"][rows]))]


def _particle_indices(names: Sequence[str]) -> NDArray[np.int64]:
    """PIND: what PYP's own names say, else the place in the list."""
    found = [re.search(r"_spk(\d+)$", name) for name in names]
    numbers = [int(match.group(1)) for match in found if match]
    if len(set(numbers)) == len(names):
        return np.array(numbers, dtype=np.int64)
    return np.arange(len(names))


def _particle_pixel(box_pixel: float, pixel: float) -> float:
    """What PIXEL_SIZE can be: the images' pixel times a whole binning. It is only the images' where the box has another."""
    return box_pixel if abs(box_pixel / pixel - max(round(box_pixel / pixel), 1)) < 1e-2 else pixel


def _series_tables(
    dataset: Dataset, row: int, known: Optional[PypSeries], turned: pyp.TiltGeometry, score: Optional[NDArray]
) -> SeriesTables:
    series, pixel = dataset.series, float(dataset.series["pixel"][row])
    in_table, ordered = dataset.exposures_of(row), _by_slice(dataset, row)
    column = np.searchsorted(in_table, ordered)  # of dataset.visible and of the projections
    exposures = dataset.exposures.take(ordered)
    particles = dataset.particles.take(dataset.particles_of(row))
    size = series["specimen_size"][row].astype(float)
    stored, s = pyp.specimen_to_position(particles["position"] @ turned.turn.T, size, pixel)
    rotation = turned.turn @ particles["rotation"]
    tilt, axis = turned.tilt[column], turned.axis[column]
    images = exposures["slice"]
    if len(np.unique(images)) < len(images):  # tilts in files of their own
        images = np.arange(len(images))
    base = base_shift(known, pixel)[images] if known is not None else exposures["shift"]
    tilt_shift = exposures["shift"] - base
    u, moved = dataset.project(row)[0][:, column], dataset.defocus_changes(row)[:, column]
    seen = dataset.visible[dataset.particles_of(row)][:, column] & exposures["enabled"]
    one = pyp.project_particles(rotation[:, None], s[:, None], tilt, axis, tilt_shift)
    crop = np.rint(pyp.image_to_pixel(u - one.shift, series["image_size"][row], pixel))
    shift = u - pyp.pixel_to_image(crop, series["image_size"][row], pixel)
    p, e = np.nonzero(seen)
    pind = _particle_indices(particles["name"].tolist())
    ones = np.ones(len(p))
    scored = np.nan_to_num(particles["score"][p] if score is None else score[:, column][p, e])
    projections: Columns = {
        "POSITION_IN_STACK": np.arange(1, len(p) + 1),
        "PSI": one.psi[p, e], "THETA": one.theta[p, e], "PHI": one.phi[p, e],
        "X_SHIFT": shift[p, e, 0], "Y_SHIFT": shift[p, e, 1],
        "DEFOCUS_1": exposures["defocus"][e, 0] + moved[p, e], "DEFOCUS_2": exposures["defocus"][e, 1] + moved[p, e],
        "DEFOCUS_ANGLE": exposures["defocus"][e, 2], "PHASE_SHIFT": np.deg2rad(exposures["phase_shift"][e]),
        "IMAGE_IS_ACTIVE": np.zeros(len(p)), "OCCUPANCY": 100.0 * particles["weight"][p], "LOGP": NO_LOGP * ones,
        "SIGMA": NO_SIGMA * ones, "SCORE": scored, "PIXEL_SIZE": _particle_pixel(dataset.box_pixel, pixel) * ones,
        "MICROSCOPE_VOLTAGE": series["voltage"][row] * ones, "MICROSCOPE_CS": series["cs"][row] * ones,
        "AMPLITUDE_CONTRAST": series["amplitude_contrast"][row] * ones, "BEAM_TILT_X": 0 * ones, "BEAM_TILT_Y": 0 * ones,
        "IMAGE_SHIFT_X": 0 * ones, "IMAGE_SHIFT_Y": 0 * ones,
        "ORIGINAL_X_POSITION": crop[p, e, 0], "ORIGINAL_Y_POSITION": crop[p, e, 1],
        "IMIND": images[e], "PIND": pind[p], "TIND": exposures["order"][e], "RIND": 0 * ones, "FIND": 0 * ones,
        "FSHIFT_X": 0 * ones, "FSHIFT_Y": 0 * ones,
    }
    if particles["half"].any():
        projections["ASSIGNED_SUBSET"] = particles["half"][p]
    angles = pyp.particle_angles(rotation)
    blocks: Columns = {"PIND": pind}
    blocks.update({f"PSHIFT_{axis_name}": s[:, i] for i, axis_name in enumerate("XYZ")})
    blocks.update(zip(("PPSI", "PTHETA", "PPHI"), angles))
    blocks.update({f"ORIGINAL_{axis_name}_POSITION_3D": stored[:, i] for i, axis_name in enumerate("XYZ")})
    blocks.update({"PSCORE": np.nan_to_num(particles["score"]), "POCC": 100.0 * particles["weight"]})
    tilts: Columns = {"TIND": exposures["order"], "RIND": np.zeros(len(ordered)), "TSHIFT_X": tilt_shift[:, 0],
                      "TSHIFT_Y": tilt_shift[:, 1], "TILTANG": tilt, "TILTAXIS": axis}
    return SeriesTables(projections, blocks, tilts)
