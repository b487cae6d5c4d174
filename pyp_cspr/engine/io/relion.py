"""RELION 4 and 5 tomography projects: optimisation_set.star, particles.star, tomograms.star and tilt-series stars.

What the files mean is said in ``engine/conventions.py``, sentences 5 to 10. RELION's projection matrix acts on corner
coordinates in unbinned pixels: W = image size / 2 + shift / pixel - T_e (tomogram size / 2), with halves not rounded, while
our image centre is pixel N // 2; the half pixel of odd images is settled here and nowhere else.

Columns of our own begin with ``cspr``; RELION ignores them. They hold what RELION has no word for: excluded views, scores,
weights, and the geometry with which extracted stacks were cut.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..conventions import DARK_PARTICLES, WHITE_PARTICLES
from ..core.geometry import euler_to_matrix, matrix_to_euler, matrix_to_tilt, tilt_to_matrix
from ..errors import InputError
from ..model.tables import EXPOSURES, PARTICLES, SERIES, Dataset, Table
from . import imod
from .images import PIXEL_TOLERANCE, check_pixel, check_stack
from .mrc import open_stack
from .star import StarBlock, read_star, write_star

PathLike = Union[str, "os.PathLike[str]"]

ROTATION_TOLERANCE = 1e-3  # of a projection matrix, elementwise: more is a magnification or a mistake
FOLDERS_ABOVE = 6  # RELION's paths start at the project folder, which lies above the star

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
SUBTOMOGRAM_ANGLES = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
CENTRED = ("rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")
CORNER = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
PROJECTION = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ")
SIZES = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")
EXTRACTED = ("csprExtractXTilt", "csprExtractYTilt", "csprExtractZRot", "csprExtractXShiftAngst", "csprExtractYShiftAngst")

# Columns of particles.star that the Dataset holds, so they are not kept as extra ones. The images of particles that are
# read from tilt series again (pseudo-subtomograms) are dropped: poses move, old pixels do not.
KNOWN_PARTICLE_COLUMNS = frozenset(
    ANGLES + SUBTOMOGRAM_ANGLES + CENTRED + CORNER + ORIGINS
    + ("rlnTomoName", "rlnTomoParticleName", "rlnOpticsGroup", "rlnImageName", "rlnCtfImage", "rlnTomoVisibleFrames")
    + ("rlnRandomSubset", "csprScore", "csprWeight")
)


# ---------------------------------------------------------------------------------------------------------------- reading


def read_dataset(path: PathLike, need_images: bool = False, images: str = "auto") -> Dataset:
    """The data set of a folder with an ``optimisation_set.star``, or of such a star, in RELION's 4 or 5 form.

    With ``need_images`` every image file must be there and fit; without it, only files that exist are checked. ``images``:
    "auto" takes extracted 2D stacks where particles have them, "raw" always the tilt series, "stacks" always the stacks.

    Raises InputError, in one line, for everything that cannot be: see ``Dataset.validate`` and the tests of this module.
    """
    if images not in ("auto", "raw", "stacks"):
        raise ValueError(f"images {images!r}, want auto, raw or stacks")
    particle_file, tomogram_file, source = _find_files(path)
    blocks = read_star(particle_file)
    particles = _pick_block(blocks, "particles", "rlnTomoName")
    if len(particles) == 0:
        raise InputError(f"{particle_file}: the particle list is empty; nothing to do")
    optics = blocks.get("optics")
    stacks = _has_stacks(blocks, particles, optics) and images != "raw"
    if images == "stacks" and not stacks:
        raise InputError(f"{particle_file}: no extracted 2D stacks (rlnImageName); read the tilt series instead")
    series, exposures = read_tomograms(tomogram_file, need_images=need_images and not stacks)
    dataset = _read_particles(particles, particle_file, series, exposures, stacks)
    dataset.source = source
    if optics is not None:
        _apply_optics(dataset, particles, optics, stacks)
    elif stacks:
        raise InputError(f"{particle_file}: no data_optics block; extracted stacks need rlnImageSize and rlnImagePixelSize")
    dataset.validate()
    if stacks:
        dataset.series["images"] = [name if os.path.exists(name) else "" for name in dataset.series["images"]]
        _set_extraction(dataset)
        _check_stacks(dataset, need_images)
    return dataset


def read_tomograms(path: PathLike, need_images: bool = False) -> Tuple[Table, Table]:
    """The series and the exposures of a ``tomograms.star`` (RELION 4: a block per tomogram; RELION 5: a star per series).

    Raises InputError. The image size is 0 where the images are not there and the file does not say it otherwise.
    """
    where = os.fspath(path)
    blocks = read_star(path)
    table = _pick_block(blocks, "global", "rlnTomoName")
    if len(table) == 0:
        raise InputError(f"{where}: data_{table.name} lists no tomograms; nothing to do")
    reader = _SeriesReader(blocks, table, where, need_images)
    rows = [reader.read(row) for row in range(len(table))]
    series = Table(SERIES, {name: [row[0][name] for row in rows] for name in rows[0][0]})
    columns = {
        name: np.concatenate([np.asarray(row[1][name]) for row in rows]) for name in rows[0][1]
    }
    counts = [len(row[1]["slice"]) for row in rows]
    columns["series"] = np.repeat(np.arange(len(rows)), counts)
    return series, Table(EXPOSURES, columns)


def _find_files(path: PathLike) -> Tuple[str, str, str]:
    """(particles star, tomograms star, optimisation set or folder)."""
    name = os.fspath(path)
    star = os.path.join(name, "optimisation_set.star") if os.path.isdir(name) else name
    if os.path.isdir(name) and not os.path.exists(star):
        raise InputError(f"{name}: no optimisation_set.star in this folder; give such a folder or the star itself")
    for block in read_star(star).values():
        if block.has("rlnTomoParticlesFile", "rlnTomoTomogramsFile"):
            files = [_existing(block.single(label), star) for label in ("rlnTomoParticlesFile", "rlnTomoTomogramsFile")]
            return files[0], files[1], os.path.abspath(star)
    raise InputError(f"{star}: no _rlnTomoParticlesFile and _rlnTomoTomogramsFile; give an optimisation_set.star")


def _pick_block(blocks: Dict[str, StarBlock], name: str, column: str) -> StarBlock:
    """The block called ``name``, or else the first one with ``column``."""
    if name in blocks:
        blocks[name].texts(column)
        return blocks[name]
    for block in blocks.values():
        if column in block:
            return block
    where = next(iter(blocks.values())).where
    raise InputError(f"{where}: no data_{name} block and no column _{column}; this is another kind of STAR file")


def _candidates(name: str, star: str) -> List[str]:
    """Where a path of a star may lie: beside the star, in a folder above it (RELION's project), here."""
    folder = Path(os.path.abspath(star)).parent
    above = [folder] + list(folder.parents)[:FOLDERS_ABOVE]
    return [os.path.normpath(os.path.join(str(root), name)) for root in above + [Path.cwd()]]


def _resolve(name: str, star: str) -> str:
    """Absolute path of a file named in a star; the place beside the star where it exists nowhere."""
    candidates = _candidates(name, star)
    return next((candidate for candidate in candidates if os.path.exists(candidate)), candidates[0])


def _existing(name: str, star: str) -> str:
    found = _resolve(name, star)
    if not os.path.exists(found):
        raise InputError(f"{star}: names {name!r}, which does not exist; mend the path or move the file beside the star")
    return found


class _SeriesReader:
    """Reads the rows of a tomograms star one by one; each gives the columns of one series and of its exposures."""

    def __init__(self, blocks: Dict[str, StarBlock], table: StarBlock, where: str, need_images: bool) -> None:
        self.blocks, self.table, self.where, self.need_images = blocks, table, where, need_images
        self.names = table.texts("rlnTomoName")
        label = "rlnTomoTiltSeriesPixelSize"
        self.pixel = table.floats(label if label in table or "rlnImagePixelSize" not in table else "rlnImagePixelSize")
        self.optics = {
            "voltage": table.floats("rlnVoltage"),
            "cs": table.floats("rlnSphericalAberration"),
            "amplitude_contrast": table.floats("rlnAmplitudeContrast"),
            "hand": table.floats("rlnTomoHand", -1.0),
            "contrast": table.floats("csprContrast", DARK_PARTICLES),
        }
        self.specimen = np.stack([table.integers(size, 0) for size in SIZES], axis=-1)
        self.image_size = np.stack([table.integers(size, 0) for size in ("csprImageSizeX", "csprImageSizeY")], axis=-1)
        self.dose = table.floats("rlnTomoImportFractionalDose", 0.0)
        for row, name in enumerate(self.names):
            if not self.pixel[row] > 0:
                raise InputError(f"{where}: series {name}: pixel size {self.pixel[row]:g} A; it must be above 0")

    def read(self, row: int) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        name, pixel = self.names[row], float(self.pixel[row])
        tilts = self._tilts(row)
        count = len(tilts)
        if count == 0:
            raise InputError(f"{tilts.where}: series {name}: no tilt images; check its tilt-series star")
        if "rlnTomoFrameCount" in self.table and self.table.integers("rlnTomoFrameCount")[row] != count:
            said = self.table.integers("rlnTomoFrameCount")[row]
            raise InputError(f"{self.where}: series {name}: rlnTomoFrameCount says {said} tilts, its table has {count}; mend one")
        stack, files, slices = self._image_files(row, tilts)
        size = self._check_images(name, stack, files, slices, pixel, self.image_size[row])
        if not size.any():
            size = _size_from_geometry(tilts, self.specimen[row], pixel)
        rotation, shift, enabled = self._geometry(row, tilts, size, stack, slices)
        before, dose, order = _doses(tilts, float(self.dose[row]))
        defocus_u = tilts.floats("rlnDefocusU")
        defocus_v = tilts.floats("rlnDefocusV") if "rlnDefocusV" in tilts else defocus_u
        series = {"name": name, "images": stack, "image_size": size, "specimen_size": self.specimen[row], "pixel": pixel}
        series.update({key: values[row] for key, values in self.optics.items()})
        exposures = {
            "slice": slices,
            "file": files,
            "order": order,
            "rotation": rotation,
            "shift": shift,
            "dose_before": before,
            "dose": dose,
            "defocus": np.stack([defocus_u, defocus_v, tilts.floats("rlnDefocusAngle", 0.0)], axis=-1),
            "phase_shift": tilts.floats("rlnPhaseShift", 0.0),
            "scale": tilts.floats("rlnCtfScalefactor", 1.0),
            "enabled": enabled & (tilts.integers("csprEnabled", 1) != 0),
            "extract_rotation": np.zeros((count, 3, 3)),
            "extract_shift": np.zeros((count, 2)),
        }
        if tilts.has(*EXTRACTED):
            angles = [tilts.floats(label) for label in EXTRACTED]
            exposures["extract_rotation"] = tilt_to_matrix(*angles[:3])
            exposures["extract_shift"] = np.stack(angles[3:], axis=-1)
        return series, exposures

    def _tilts(self, row: int) -> StarBlock:
        """The tilt table of a series: in its own star (RELION 5) or in a block of this one (RELION 4)."""
        name = self.names[row]
        if "rlnTomoTiltSeriesStarFile" in self.table:
            file = _existing(self.table.texts("rlnTomoTiltSeriesStarFile")[row], self.where)
            blocks = read_star(file)
            return blocks.get(name) or next(iter(blocks.values()))
        if name not in self.blocks:
            raise InputError(f"{self.where}: series {name}: no block data_{name} and no rlnTomoTiltSeriesStarFile; add its tilts")
        return self.blocks[name]

    def _image_files(self, row: int, tilts: StarBlock) -> Tuple[str, List[str], NDArray[np.int64]]:
        """(stack or "", file of each tilt or "", 0-based image of each tilt)."""
        count = len(tilts)
        if "rlnMicrographName" not in tilts:
            stack = self.table.texts("rlnTomoTiltSeriesName")[row] if "rlnTomoTiltSeriesName" in self.table else ""
            stack = _resolve(stack[: -len(":mrc")] if stack.endswith(":mrc") else stack, self.where) if stack else ""
            return stack, [""] * count, np.arange(count)
        names, slices = [], []
        for text in tilts.texts("rlnMicrographName"):
            number, at, file = text.partition("@")
            if not at:
                number, file = "1", text
            if not number.isdigit() or int(number) < 1:
                raise InputError(f"{tilts.where}: rlnMicrographName {text!r}: want a file or NUMBER@STACK, counted from 1")
            names.append(file[: -len(":mrc")] if file.endswith(":mrc") else file)
            slices.append(int(number) - 1)
        found = {name: _resolve(name, tilts.where) for name in dict.fromkeys(names)}
        if len(found) == 1:
            return found[names[0]], [""] * count, np.array(slices)
        return "", [found[name] for name in names], np.array(slices)

    def _check_images(
        self, name: str, stack: str, files: List[str], slices: NDArray[np.int64], pixel: float, said: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Image size (x, y) of the files, ``said`` where they do not exist and are not needed."""
        used: Dict[str, int] = {}
        for file, image in zip(files, slices):
            used[file or stack] = max(used.get(file or stack, 0), int(image) + 1)
        size = None
        for file, wanted in used.items():
            if not file or not os.path.exists(file):
                if self.need_images:
                    raise InputError(f"{self.where}: series {name}: its images {file or '(none named)'!r} do not exist; mend the path")
                continue
            mapped = open_stack(file)
            if mapped.n < wanted:
                raise InputError(f"{file}: {mapped.n} images, the star of series {name} wants {wanted}; check both")
            check_pixel(mapped, pixel, f"series {name}")
            if size is not None and (mapped.nx, mapped.ny) != size:
                raise InputError(f"{file}: {mapped.nx} x {mapped.ny} pixels, others of series {name} are {size[0]} x {size[1]}")
            size = (mapped.nx, mapped.ny)
        return said if size is None else np.array(size)

    def _geometry(
        self, row: int, tilts: StarBlock, size: NDArray[np.int64], stack: str, slices: NDArray[np.int64]
    ) -> Tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """(T_e, b_e, not excluded) of a series: angles and shifts, or else matrices, or else IMOD's files."""
        name, pixel, specimen = self.names[row], float(self.pixel[row]), self.specimen[row]
        enabled = np.ones(len(tilts), bool)
        if tilts.has("rlnTomoYTilt", "rlnTomoZRot"):
            angles = (tilts.floats("rlnTomoXTilt", 0.0), tilts.floats("rlnTomoYTilt"), tilts.floats("rlnTomoZRot"))
            shift = np.stack([tilts.floats("rlnTomoXShiftAngst", 0.0), tilts.floats("rlnTomoYShiftAngst", 0.0)], axis=-1)
            return tilt_to_matrix(*angles), shift + _half_pixel(size) * pixel, enabled
        if tilts.has(*PROJECTION):
            if not specimen.all():
                raise InputError(f"{self.where}: series {name}: matrices need the tomogram's size; add {', '.join(SIZES)}")
            matrices = np.stack([tilts.vectors(label, 4) for label in PROJECTION], axis=1)
            rotation = _nearest_rotation(matrices[:, :, :3], f"{tilts.where}: series {name}")
            centre = matrices[:, :2, :3] @ (specimen / 2.0)
            return rotation, (matrices[:, :2, 3] + centre - size // 2) * pixel, enabled
        if stack and imod.has_alignment(stack):
            alignment = imod.read_alignment(stack)
            if len(alignment) <= slices.max():
                raise InputError(f"{alignment.path}: {len(alignment)} lines, the star of series {name} wants {slices.max() + 1}")
            rotation, shift = alignment.geometry(pixel)
            return rotation[slices], shift[slices], alignment.enabled[slices]
        raise InputError(
            f"{tilts.where}: series {name}: no geometry; add rlnTomoYTilt, rlnTomoZRot and shifts, or rlnTomoProjX, Y, Z, "
            "or IMOD's .xf and .tlt beside the stack"
        )


def _half_pixel(size: NDArray[np.int64]) -> NDArray[np.float64]:
    """RELION's image centre, size / 2, minus ours, size // 2, in pixels."""
    return (np.asarray(size) % 2) / 2.0


def _nearest_rotation(matrices: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """The rotations nearest to matrices written with few digits. Raises InputError for those that are none."""
    left, stretch, right = np.linalg.svd(matrices)
    bad = (np.abs(stretch - 1.0).max(axis=1) > ROTATION_TOLERANCE) | (np.linalg.det(matrices) < 0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"{where}: tilt {row + 1}: its projection matrix is not a rotation; check rlnTomoProjX, Y, Z")
    return left @ right


def _size_from_geometry(tilts: StarBlock, specimen: NDArray[np.int64], pixel: float) -> NDArray[np.int64]:
    """The image size that makes matrices and shifts, where both are given, say the same; else 0."""
    nothing = np.zeros(2, np.int64)
    if not tilts.has("rlnTomoXShiftAngst", "rlnTomoYShiftAngst", *PROJECTION) or not specimen.all():
        return nothing
    matrices = np.stack([tilts.vectors(label, 4) for label in PROJECTION[:2]], axis=1)
    shift = np.stack([tilts.floats("rlnTomoXShiftAngst"), tilts.floats("rlnTomoYShiftAngst")], axis=-1)
    size = 2.0 * (matrices[:, :, 3] + matrices[:, :, :3] @ (specimen / 2.0) - shift / pixel)
    whole = np.rint(size.mean(axis=0))
    agrees = np.abs(size - whole).max() < 0.1 and whole.min() > 0
    return whole.astype(np.int64) if agrees else nothing


def _doses(tilts: StarBlock, fraction: float) -> Tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """(dose before, dose, order) of each tilt; the dose is the step to the next exposure where the file does not say it."""
    before = tilts.floats("rlnMicrographPreExposure", 0.0)
    count = len(before)
    if "rlnTomoTiltMovieIndex" in tilts:
        order = np.argsort(np.argsort(tilts.integers("rlnTomoTiltMovieIndex"), kind="stable"))
    else:
        order = np.argsort(np.argsort(before, kind="stable"))
    if "rlnTomoImportFractionalDose" in tilts:
        return before, tilts.floats("rlnTomoImportFractionalDose"), order
    if fraction > 0 or count < 2:
        return before, np.full(count, fraction), order
    steps = np.diff(np.sort(before))
    dose = np.empty(count)
    dose[np.argsort(before, kind="stable")] = np.append(steps, np.median(steps))
    return before, dose, order


def _has_stacks(blocks: Dict[str, StarBlock], particles: StarBlock, optics: Optional[StarBlock]) -> bool:
    """Whether particles bring 2D stacks: RELION says it in data_general or by the dimensionality of the optics group."""
    if "rlnImageName" not in particles:
        return False
    general = blocks.get("general")
    if general is not None and "rlnTomoSubTomosAre2DStacks" in general:
        return general.integers("rlnTomoSubTomosAre2DStacks")[:1].tolist() == [1]
    return optics is not None and "rlnImageDimensionality" in optics and set(optics.texts("rlnImageDimensionality")) == {"2"}


def _read_particles(block: StarBlock, where: str, series: Table, exposures: Table, stacks: bool) -> Dataset:
    count = len(block)
    rows = {name: row for row, name in enumerate(series["name"].tolist())}
    names = block.texts("rlnTomoName")
    unknown = next((name for name in names if name not in rows), None)
    if unknown is not None:
        row = names.index(unknown)
        raise InputError(f"{where}: particle {row + 1} is of series {unknown!r}, which the tomograms star does not list; mend one")
    owner = np.array([rows[name] for name in names])
    if not block.has(*ANGLES) and not block.has(*SUBTOMOGRAM_ANGLES):
        missing = next(label for label in ANGLES if label not in block)
        raise InputError(f"{where}: data_{block.name} has no column _{missing}; add the particles' angles")
    outer, inner = _euler(block, SUBTOMOGRAM_ANGLES), _euler(block, ANGLES)
    coordinate = _coordinates(block, where, series, owner)
    origin = np.stack([block.floats(label, 0.0) for label in ORIGINS], axis=-1)
    half = block.integers("rlnRandomSubset", 0)
    if count and not np.isin(half, (0, 1, 2)).all():
        raise InputError(f"{where}: rlnRandomSubset is {half[~np.isin(half, (0, 1, 2))][0]}; want 1 or 2")
    columns = {
        "name": block.columns["rlnTomoParticleName"] if "rlnTomoParticleName" in block else _number_names(names),
        "series": owner,
        "position": coordinate - np.einsum("nij,nj->ni", outer, origin),
        "rotation": outer @ inner,
        "half": half,
        "score": _scores(block),
        "weight": block.floats("csprWeight", 1.0),
        "extract_position": coordinate if stacks else np.zeros_like(coordinate),
    }
    if stacks:
        columns["stack"] = _resolve_stacks(block.texts("rlnImageName"), where)
    extra = {name: list(values) for name, values in block.columns.items() if name not in KNOWN_PARTICLE_COLUMNS}
    lengths = np.bincount(exposures["series"], minlength=len(series))
    visible = _visible(block, where, lengths[owner])
    return Dataset(series, exposures, Table(PARTICLES, columns), visible, extra=extra)


def _euler(block: StarBlock, labels: Sequence[str]) -> NDArray[np.float64]:
    return euler_to_matrix(*[block.floats(label, 0.0) for label in labels])


def _coordinates(block: StarBlock, where: str, series: Table, owner: NDArray[np.int64]) -> NDArray[np.float64]:
    """Angstrom from the tomogram's centre. The centred form (RELION 5) wins where both are given, as in RELION."""
    if block.has(*CENTRED):
        return np.stack([block.floats(label) for label in CENTRED], axis=-1)
    corner = np.stack([block.floats(label) for label in CORNER], axis=-1)
    size = series["specimen_size"]
    lacking = np.flatnonzero(~size.all(axis=1))
    if np.isin(owner, lacking).any():
        name = series["name"][lacking[0]]
        raise InputError(f"{where}: rlnCoordinateX, Y, Z of series {name} need the tomogram's size; add {', '.join(SIZES)}")
    return (corner - size[owner] / 2.0) * series["pixel"][owner][:, None]


def _number_names(series: Sequence[str]) -> List[str]:
    """RELION's own names for particles without one: series/1, series/2, ..."""
    seen: Dict[str, int] = {}
    names = []
    for name in series:
        seen[name] = seen.get(name, 0) + 1
        names.append(f"{name}/{seen[name]}")
    return names


def _scores(block: StarBlock) -> NDArray[np.float64]:
    """csprScore, NaN where a particle has none ("nan", which ``StarBlock.floats`` would refuse)."""
    if "csprScore" not in block:
        return np.full(len(block), np.nan)
    texts = ["-1" if text == "nan" else text for text in block.columns["csprScore"]]
    scores = StarBlock(block.name, {"csprScore": texts}, True, block.where).floats("csprScore")
    return np.where(scores < 0, np.nan, scores)


def _resolve_stacks(names: Sequence[str], where: str) -> List[str]:
    """Absolute paths; the folder is searched for once, since the stacks of one file share it."""
    root, found = None, []
    for name in names:
        path = None if root is None else os.path.normpath(os.path.join(root, name))
        if path is None or (not os.path.exists(path)):
            path = _resolve(name, where)
            if os.path.exists(path) and not os.path.isabs(name):
                root = path[: len(path) - len(os.path.normpath(name))] or None
        found.append(path)
    return found


def _visible(block: StarBlock, where: str, lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    width = int(lengths.max(initial=0))
    visible = np.arange(width) < lengths[:, None]
    if "rlnTomoVisibleFrames" not in block:
        return visible
    known: Dict[str, List[bool]] = {}
    for row, text in enumerate(block.columns["rlnTomoVisibleFrames"]):
        flags = known.get(text)
        if flags is None:
            parts = text.strip("[]").replace(",", " ").split()
            if any(part not in ("0", "1") for part in parts):
                raise InputError(f"{where}: particle {row + 1}: rlnTomoVisibleFrames is {text[:40]!r}, want [1,0,...]")
            flags = known[text] = [part == "1" for part in parts]
        if len(flags) != lengths[row]:
            raise InputError(f"{where}: particle {row + 1}: rlnTomoVisibleFrames has {len(flags)} values, its series {lengths[row]} tilts")
        visible[row, : len(flags)] = flags
    return visible


def _apply_optics(dataset: Dataset, block: StarBlock, optics: StarBlock, stacks: bool) -> None:
    """Check the optics groups against the tomograms star and take the box, its pixel size and "premultiplied" from them."""
    where = optics.where
    if len(optics) == 0:
        raise InputError(f"{where}: data_optics is empty; add the particles' optics group")
    numbers = optics.integers("rlnOpticsGroup").tolist() if "rlnOpticsGroup" in optics else [1]
    used = block.integers("rlnOpticsGroup", numbers[0])
    unknown = np.flatnonzero(~np.isin(used, numbers))
    if len(unknown):
        raise InputError(f"{where}: particle {unknown[0] + 1} is of optics group {used[unknown[0]]}, which data_optics does not list")
    group = {number: row for row, number in enumerate(numbers)}
    pairs = sorted({(int(s), group[int(g)]) for s, g in zip(dataset.particles["series"], used)})
    box = optics.integers("rlnImageSize", 0)
    pixel = optics.floats("rlnImagePixelSize", 0.0)
    premultiplied = optics.integers("rlnCtfDataAreCtfPremultiplied", 0) != 0
    for label, column in (("rlnTomoTiltSeriesPixelSize", "pixel"), ("rlnVoltage", "voltage")):
        if label not in optics:
            continue
        values = optics.floats(label)
        for row, index in pairs:
            want = dataset.series[column][row]
            if not abs(values[index] - want) <= PIXEL_TOLERANCE * want:
                name = dataset.series["name"][row]
                raise InputError(f"{where}: optics group {numbers[index]}: _{label} {values[index]:g}, tomograms star {want:g} "
                                 f"for series {name}; make them agree")
    boxes = {(int(box[index]), float(pixel[index])) for _, index in pairs}
    if len(boxes) == 1:
        dataset.box, dataset.box_pixel = boxes.pop()
    if dataset.box < 0 or dataset.box_pixel < 0:
        raise InputError(f"{where}: rlnImageSize {dataset.box}, rlnImagePixelSize {dataset.box_pixel:g}; they must be above 0")
    if not stacks:
        return
    for row, index in pairs:
        name = dataset.series["name"][row]
        if box[index] <= 0 or pixel[index] <= 0:
            raise InputError(f"{where}: optics group {numbers[index]}: rlnImageSize {box[index]}, rlnImagePixelSize {pixel[index]:g}; "
                             "extracted stacks need both above 0")
        if sum(series == row for series, _ in pairs) > 1:
            raise InputError(f"{where}: series {name} has particles of several optics groups; write one group for each series")
        dataset.series["stack_box"][row] = box[index]
        dataset.series["stack_pixel"][row] = pixel[index]
        dataset.series["premultiplied"][row] = premultiplied[index]
        dataset.series["contrast"][row] = WHITE_PARTICLES


def _set_extraction(dataset: Dataset) -> None:
    """Stacks whose star does not say otherwise were cut with the geometry of the star."""
    for row in range(len(dataset.series)):
        rows = dataset.exposures_of(row)
        if dataset.is_stacks(row) and not dataset.exposures["extract_rotation"][rows].any():
            dataset.exposures["extract_rotation"][rows] = dataset.exposures["rotation"][rows]
            dataset.exposures["extract_shift"][rows] = dataset.exposures["shift"][rows]


def _check_stacks(dataset: Dataset, need_images: bool) -> None:
    """Every stack must exist; the first of each series must fit (the others are checked when they are read)."""
    for row in range(len(dataset.series)):
        particles = dataset.particles_of(row)
        names = dataset.particles["stack"][particles]
        if need_images:
            missing = next((name for name in names.tolist() if not os.path.exists(name)), None)
            if missing is not None:
                raise InputError(f"{dataset.source}: the stack {missing} does not exist; mend rlnImageName or move it beside the star")
        if len(names) and os.path.exists(names[0]):
            check_stack(open_stack(names[0]), dataset, row, int(particles[0]))


# ---------------------------------------------------------------------------------------------------------------- writing


def write_dataset(dataset: Dataset, folder: PathLike) -> str:
    """Write ``optimisation_set.star``, ``particles.star``, ``tomograms.star`` and ``tilt_series/NAME.star`` in RELION's 5
    form, and return the path of the first. ``read_dataset`` of the folder gives the same data set.

    Image paths inside ``folder`` are written relative to it, others absolute. The optimisation set comes last, so a folder
    that has it is whole. Raises InputError where the folder cannot be written.
    """
    root = os.path.abspath(os.fspath(folder))
    stems = _stems([str(name) for name in dataset.series["name"]])
    for row, stem in enumerate(stems):
        block = _tilt_block(dataset, row, root)
        write_star(os.path.join(root, "tilt_series", f"{stem}.star"), {str(dataset.series["name"][row]): block})
    write_star(os.path.join(root, "tomograms.star"), {"global": _global_block(dataset, stems)})
    groups, optics = _optics_block(dataset)
    stacks = any(dataset.is_stacks(row) for row in range(len(dataset.series)))
    write_star(
        os.path.join(root, "particles.star"),
        {
            "general": StarBlock(columns={"rlnTomoSubTomosAre2DStacks": [str(int(stacks))]}, loop=False),
            "optics": optics,
            "particles": _particle_block(dataset, groups, root),
        },
    )
    star = os.path.join(root, "optimisation_set.star")
    files = {"rlnTomoParticlesFile": ["particles.star"], "rlnTomoTomogramsFile": ["tomograms.star"]}
    write_star(star, {"": StarBlock(columns=files, loop=False)})
    return star


def _stems(names: Sequence[str]) -> List[str]:
    """File names for series: the names themselves, made safe and unique."""
    stems: List[str] = []
    for name in names:
        stem = "".join(c if c.isalnum() or c in "._-+" else "_" for c in name).lstrip(".") or "series"
        while stem in stems:
            stem += "_"
        stems.append(stem)
    return stems


def _number(value: Any) -> str:
    return f"{float(value):.12g}"


def _numbers(values: Any) -> List[str]:
    return [f"{value:.12g}" for value in np.asarray(values, dtype=np.float64).tolist()]


def _whole(values: Any) -> List[str]:
    return [str(int(value)) for value in np.asarray(values).tolist()]


def _relative(path: str, root: str) -> str:
    inside = os.path.relpath(path, root) if path else ""
    return path if inside.startswith(os.pardir) else inside


def _global_block(dataset: Dataset, stems: Sequence[str]) -> StarBlock:
    series = dataset.series
    columns = {
        "rlnTomoName": [str(name) for name in series["name"]],
        "rlnTomoTiltSeriesStarFile": [f"tilt_series/{stem}.star" for stem in stems],
        "rlnTomoFrameCount": [str(len(dataset.exposures_of(row))) for row in range(len(series))],
        "rlnVoltage": _numbers(series["voltage"]),
        "rlnSphericalAberration": _numbers(series["cs"]),
        "rlnAmplitudeContrast": _numbers(series["amplitude_contrast"]),
        "rlnMicrographOriginalPixelSize": _numbers(series["pixel"]),
        "rlnTomoHand": _numbers(series["hand"]),
        "rlnTomoTiltSeriesPixelSize": _numbers(series["pixel"]),
    }
    for axis, label in enumerate(SIZES):
        columns[label] = _whole(series["specimen_size"][:, axis])
    columns["csprImageSizeX"] = _whole(series["image_size"][:, 0])
    columns["csprImageSizeY"] = _whole(series["image_size"][:, 1])
    columns["csprContrast"] = _numbers(series["contrast"])
    return StarBlock(columns=columns)


def _tilt_block(dataset: Dataset, row: int, root: str) -> StarBlock:
    exposures = dataset.exposures.take(dataset.exposures_of(row))
    pixel, images = float(dataset.series["pixel"][row]), str(dataset.series["images"][row])
    specimen, size = dataset.series["specimen_size"][row], dataset.series["image_size"][row]
    rotation, shift = exposures["rotation"], exposures["shift"]
    xtilt, ytilt, zrot = matrix_to_tilt(rotation)
    columns: Dict[str, List[str]] = {}
    files = [str(file) or images for file in exposures["file"]]
    if all(files):
        pairs = zip(exposures["slice"].tolist(), files)
        columns["rlnMicrographName"] = [f"{image + 1:06d}@{_relative(file, root)}" for image, file in pairs]
    else:
        images = ""
    columns["rlnTomoTiltMovieIndex"] = _whole(exposures["order"] + 1)
    columns["rlnTomoNominalStageTiltAngle"] = _numbers(ytilt)
    columns["rlnMicrographPreExposure"] = _numbers(exposures["dose_before"])
    columns["rlnTomoImportFractionalDose"] = _numbers(exposures["dose"])
    for index, label in enumerate(("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")):
        columns[label] = _numbers(exposures["defocus"][:, index])
    columns["rlnPhaseShift"] = _numbers(exposures["phase_shift"])
    columns["rlnCtfScalefactor"] = _numbers(exposures["scale"])
    relion_shift = shift - _half_pixel(size) * pixel
    for label, values in zip(
        ("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst"),
        (xtilt, ytilt, zrot, relion_shift[:, 0], relion_shift[:, 1]),
    ):
        columns[label] = _numbers(values)
    if specimen.all():
        last = -rotation @ (specimen / 2.0)
        last[:, :2] += size // 2 + shift / pixel
        for axis, label in enumerate(PROJECTION):
            rows = np.concatenate([rotation[:, axis], last[:, axis : axis + 1]], axis=1)
            columns[label] = ["[" + ",".join(_numbers(values)) + "]" for values in rows]
        columns["rlnTomoProjW"] = ["[0,0,0,1]"] * len(exposures)
    if not exposures["enabled"].all():
        columns["csprEnabled"] = _whole(exposures["enabled"])
    moved = (exposures["extract_rotation"] != rotation).any() or (exposures["extract_shift"] != shift).any()
    if dataset.is_stacks(row) and moved:
        angles = matrix_to_tilt(exposures["extract_rotation"])
        for label, values in zip(EXTRACTED, tuple(angles) + tuple(exposures["extract_shift"].T)):
            columns[label] = _numbers(values)
    return StarBlock(columns=columns)


def _optics_block(dataset: Dataset) -> Tuple[NDArray[np.int64], StarBlock]:
    """(optics group of each series, the block): series with the same optics and box share a group."""
    series = dataset.series
    keys: List[Tuple[Any, ...]] = []
    groups = np.zeros(len(series), np.int64)
    for row in range(len(series)):
        stack = dataset.is_stacks(row)
        box = int(series["stack_box"][row]) if stack else dataset.box
        box_pixel = float(series["stack_pixel"][row]) if stack else dataset.box_pixel
        optics = tuple(float(series[name][row]) for name in ("voltage", "cs", "amplitude_contrast", "pixel"))
        key = optics + (box, box_pixel, bool(series["premultiplied"][row]), stack)
        if key not in keys:
            keys.append(key)
        groups[row] = keys.index(key) + 1
    columns: Dict[str, List[str]] = {
        "rlnOpticsGroup": [str(index + 1) for index in range(len(keys))],
        "rlnOpticsGroupName": [f"opticsGroup{index + 1}" for index in range(len(keys))],
    }
    labels = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnTomoTiltSeriesPixelSize")
    for index, label in enumerate(labels):
        columns[label] = [_number(key[index]) for key in keys]
    if all(key[4] > 0 and key[5] > 0 for key in keys):
        columns["rlnImageSize"] = [str(key[4]) for key in keys]
        columns["rlnImagePixelSize"] = [_number(key[5]) for key in keys]
        columns["rlnTomoSubtomogramBinning"] = [_number(key[5] / key[3]) for key in keys]
    columns["rlnCtfDataAreCtfPremultiplied"] = [str(int(key[6])) for key in keys]
    if all(key[7] for key in keys):
        columns["rlnImageDimensionality"] = ["2"] * len(keys)
    return groups, StarBlock(columns=columns)


def _particle_block(dataset: Dataset, groups: NDArray[np.int64], root: str) -> StarBlock:
    particles, series = dataset.particles, dataset.series
    owner = particles["series"]
    stacks = (series["stack_box"] > 0)[owner]
    coordinate = np.where(stacks[:, None], particles["extract_position"], particles["position"])
    origin = coordinate - particles["position"]
    rot, tilt, psi = matrix_to_euler(particles["rotation"])
    columns: Dict[str, List[str]] = {
        "rlnTomoName": [str(name) for name in series["name"][owner]],
        "rlnTomoParticleName": [str(name) for name in particles["name"]],
        "rlnOpticsGroup": _whole(groups[owner]),
    }
    for axis, label in enumerate(CENTRED):
        columns[label] = _numbers(coordinate[:, axis])
    if series["specimen_size"].all():
        corner = coordinate / series["pixel"][owner][:, None] + series["specimen_size"][owner] / 2.0
        for axis, label in enumerate(CORNER):
            columns[label] = _numbers(corner[:, axis])
    for label, values in zip(ANGLES + ORIGINS, (rot, tilt, psi) + tuple(origin.T)):
        columns[label] = _numbers(values)
    if particles["half"].any():
        columns["rlnRandomSubset"] = _whole(particles["half"])
    if stacks.any():
        columns["rlnImageName"] = [_relative(str(name), root) for name in particles["stack"]]
    columns["rlnTomoVisibleFrames"] = _visible_texts(dataset)
    if np.isfinite(particles["score"]).any():
        columns["csprScore"] = _numbers(particles["score"])
    if (particles["weight"] != 1).any():
        columns["csprWeight"] = _numbers(particles["weight"])
    columns.update({name: values for name, values in dataset.extra.items() if name not in columns})
    return StarBlock(columns=columns)


def _visible_texts(dataset: Dataset) -> List[str]:
    lengths = np.bincount(dataset.exposures["series"], minlength=len(dataset.series))[dataset.particles["series"]]
    known: Dict[bytes, str] = {}
    texts = []
    for flags, length in zip(dataset.visible, lengths.tolist()):
        key = flags[:length].tobytes()
        if key not in known:
            known[key] = "[" + ",".join("1" if flag else "0" for flag in flags[:length]) + "]"
        texts.append(known[key])
    return texts
