"""The tomograms star and its tilt series, RELION 4 and 5. See ``relion.py``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Dict, List, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..conventions import DARK_PARTICLES
from ..core.geometry import tilt_to_matrix
from ..errors import InputError
from ..model.stretches import stretches_to_columns
from ..model.tables import EXPOSURES, LARGEST_GRID, LARGEST_MAGNIFICATION, SERIES, Table
from . import imod
from .images import check_pixel
from .mrc import open_stack
from .relion_labels import EXTRACTED, PROJECTION, SIZES
from .star import StarBlock, read_star

PathLike = Union[str, "os.PathLike[str]"]

# By how much a projection matrix may stretch: with a magnification and a skew, which are linear in the place in an image of
# known size, and where that is not known; more is a mistake.
LARGEST_STRETCH, ROTATION_TOLERANCE = 2.0 * LARGEST_MAGNIFICATION, 1e-3
FOLDERS_ABOVE = 6  # RELION's paths start at the project folder, which lies above the star


def read_tomograms(path: PathLike, need_images: bool = False, stacks: bool = False) -> Tuple[Table, Table]:
    """The series and the exposures of a ``tomograms.star`` (RELION 4: a block per tomogram; RELION 5: a star per series).

    With ``stacks`` the particles bring their own images, and tilt images that do not exist or do not fit are left out of the
    table (WarpTools names a dummy). The image size is 0 where the images are not there and the file does not say it otherwise;
    b_e is then what the matrices imply about pixel 0. Raises InputError.
    """
    where = os.fspath(path)
    blocks = read_star(path)
    table = pick_block(blocks, "global", "rlnTomoName")
    if len(table) == 0:
        raise InputError(f"{where}: data_{table.name} lists no tomograms; nothing to do")
    reader = _SeriesReader(blocks, table, where, need_images, stacks)
    rows = [reader.read(row) for row in range(len(table))]
    series = Table(SERIES, {name: [row[0][name] for row in rows] for name in rows[0][0]})
    columns = {name: np.concatenate([np.asarray(row[1][name]) for row in rows]) for name in rows[0][1]}
    counts = [len(row[1]["slice"]) for row in rows]
    columns["series"] = np.repeat(np.arange(len(rows)), counts)
    return series, Table(EXPOSURES, columns)


def pick_block(blocks: Dict[str, StarBlock], name: str, column: str) -> StarBlock:
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


def resolve(name: str, star: str) -> str:
    """Absolute path of a file named in a star; the place beside the star where it exists nowhere."""
    candidates = _candidates(name, star)
    return next((candidate for candidate in candidates if os.path.exists(candidate)), candidates[0])


def existing(name: str, star: str) -> str:
    """Absolute path of a file that a star names. Raises InputError where there is none."""
    found = resolve(name, star)
    if not os.path.exists(found):
        raise InputError(f"{star}: names {name!r}, which does not exist; mend the path or move the file beside the star")
    return found


class _SeriesReader:
    """Reads the rows of a tomograms star one by one; each gives the columns of one series and of its exposures."""

    def __init__(self, blocks: Dict[str, StarBlock], table: StarBlock, where: str, need_images: bool, stacks: bool) -> None:
        self.blocks, self.table, self.where = blocks, table, where
        self.need_images, self.stacks = need_images, stacks
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
            raise InputError(f"{self.where}: series {name}: rlnTomoFrameCount {said}, its table has {count} tilts; mend one")
        stack, files, slices = self._image_files(row, tilts)
        size = self.image_size[row]
        try:
            size = self._check_images(name, stack, files, slices, pixel, size)
        except InputError:
            if not self.stacks:
                raise
            stack, files = "", [""] * count
        if not size.any():
            size = _size_from_geometry(tilts, self.specimen[row], pixel)
        rotation, shift, stretch, enabled = self._geometry(row, tilts, size, stack, slices)
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
            "magnification": tilts.floats("csprMagnification", 1.0),
            "enabled": enabled & (tilts.integers("csprEnabled", 1) != 0),
            "extract_rotation": np.zeros((count, 3, 3)),
            "extract_shift": np.zeros((count, 2)),
        }
        exposures["deformation"], series["deformation_grid"] = _control_values(tilts, "csprDeformation", 2, name)
        magnification, deformation, grid = stretches_to_columns(stretch, size, pixel)
        if grid or (magnification != 1.0).any():
            exposures.update(magnification=magnification, deformation=deformation)
            series["deformation_grid"] = grid
        exposures["defocus_field"], series["defocus_grid"] = _control_values(tilts, "csprDefocusField", 1, name)
        if tilts.has(*EXTRACTED):
            angles = [tilts.floats(label) for label in EXTRACTED]
            exposures["extract_rotation"] = tilt_to_matrix(*angles[:3])
            exposures["extract_shift"] = np.stack(angles[3:], axis=-1)
        return series, exposures

    def _tilts(self, row: int) -> StarBlock:
        """The tilt table of a series: in its own star (RELION 5) or in a block of this one (RELION 4)."""
        name = self.names[row]
        if "rlnTomoTiltSeriesStarFile" in self.table:
            file = existing(self.table.texts("rlnTomoTiltSeriesStarFile")[row], self.where)
            blocks = read_star(file)
            return blocks.get(name) or next(iter(blocks.values()))
        if name not in self.blocks:
            raise InputError(f"{self.where}: series {name}: no data_{name} and no rlnTomoTiltSeriesStarFile; add its tilts")
        return self.blocks[name]

    def _image_files(self, row: int, tilts: StarBlock) -> Tuple[str, List[str], NDArray[np.int64]]:
        """(stack or "", file of each tilt or "", 0-based image of each tilt)."""
        count = len(tilts)
        if "rlnMicrographName" not in tilts:
            stack = self.table.texts("rlnTomoTiltSeriesName")[row] if "rlnTomoTiltSeriesName" in self.table else ""
            stack = resolve(re.sub(r":mrcs?$", "", stack), self.where) if stack else ""
            return stack, [""] * count, np.arange(count)
        names, slices = [], []
        for text in tilts.texts("rlnMicrographName"):
            number, at, file = text.partition("@")
            if not at:
                number, file = "1", text
            if not number.isdigit() or int(number) < 1:
                raise InputError(f"{tilts.where}: rlnMicrographName {text!r}: want a file or NUMBER@STACK, counted from 1")
            names.append(re.sub(r":mrcs?$", "", file))
            slices.append(int(number) - 1)
        found = {name: self._image_file(name, tilts.where) for name in dict.fromkeys(names)}
        if len(found) == 1:
            return found[names[0]], [""] * count, np.array(slices)
        return "", [found[name] for name in names], np.array(slices)

    def _image_file(self, name: str, tilt_star: str) -> str:
        """Image paths start where the tomograms star's do; beside the tilt star is only tried."""
        found = resolve(name, self.where)
        beside = found if os.path.exists(found) else resolve(name, tilt_star)
        return beside if os.path.exists(beside) else found

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
                if self.need_images or self.stacks:
                    raise InputError(f"{self.where}: series {name}: images {file or '(none)'!r} do not exist; mend the path")
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
    ) -> Tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """(T_e, b_e, S, not excluded) of a series: angles and shifts, or else matrices, or else IMOD's files.

        Only matrices have an S (n, 2, 2) that is not 1: particles are seen at S (T_e x_p)_xy + b_e.
        """
        name, pixel, specimen = self.names[row], float(self.pixel[row]), self.specimen[row]
        enabled, rigid = np.ones(len(tilts), bool), np.tile(np.eye(2), (len(tilts), 1, 1))
        if tilts.has("rlnTomoYTilt", "rlnTomoZRot"):
            angles = (tilts.floats("rlnTomoXTilt", 0.0), tilts.floats("rlnTomoYTilt"), tilts.floats("rlnTomoZRot"))
            shift = np.stack([tilts.floats("rlnTomoXShiftAngst", 0.0), tilts.floats("rlnTomoYShiftAngst", 0.0)], axis=-1)
            return tilt_to_matrix(*angles), shift + half_pixel(size) * pixel, rigid, enabled
        if tilts.has(*PROJECTION):
            if not specimen.all():
                raise InputError(f"{self.where}: series {name}: matrices need the tomogram's size; add {', '.join(SIZES)}")
            matrices = np.stack([tilts.vectors(label, 4) for label in PROJECTION], axis=1)
            rotation, stretch = _turn_and_stretch(matrices[:, :, :3], LARGEST_STRETCH if size.all() else ROTATION_TOLERANCE,
                                                  f"{tilts.where}: series {name}")
            centre = matrices[:, :2, :3] @ (specimen / 2.0)
            return rotation, (matrices[:, :2, 3] + centre - size // 2) * pixel, stretch, enabled
        if stack and imod.has_alignment(stack):
            alignment = imod.read_alignment(stack)
            if len(alignment) <= slices.max():
                raise InputError(f"{alignment.path}: {len(alignment)} lines, series {name} wants {slices.max() + 1}; mend one")
            rotation, shift = alignment.geometry(pixel)
            return rotation[slices], shift[slices], rigid, alignment.enabled[slices]
        raise InputError(
            f"{tilts.where}: series {name}: no geometry; add rlnTomoYTilt, rlnTomoZRot and shifts, or rlnTomoProjX, Y, Z, "
            "or IMOD's .xf and .tlt beside the stack"
        )


def half_pixel(size: NDArray[np.int64]) -> NDArray[np.float64]:
    """RELION's image centre, size / 2, minus ours, size // 2, in pixels."""
    return (np.asarray(size) % 2) / 2.0


def _turn_and_stretch(
    matrices: NDArray[np.float64], largest: float, where: str
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(the nearest rotations (n, 3, 3), S (n, 2, 2) in the image after them) of matrices (n, 3, 3): their polar decomposition.

    Raises InputError for those that are mirrored or stretch by more than ``largest``.
    """
    left, stretch, right = np.linalg.svd(matrices)
    bad = (np.abs(stretch - 1.0).max(axis=1) > largest) | (np.linalg.det(matrices) < 0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"{where}: tilt {row + 1}: its projection matrix is not a rotation; check rlnTomoProjX, Y, Z")
    return left @ right, ((left * stretch[:, None]) @ np.swapaxes(left, 1, 2))[:, :2, :2]


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


def _control_values(tilts: StarBlock, label: str, parts: int, name: str) -> Tuple[NDArray[np.float64], int]:
    """(control values (n, most), grid) of a field of ``parts`` components: parts grid^2 numbers in brackets for each tilt.

    Zeros and 0 where the series has no such field, as others of the same data set may have.
    """
    values = np.zeros((len(tilts), parts * LARGEST_GRID**2))
    if label not in tilts:
        return values, 0
    rows = []
    where = f"{tilts.where}: series {name}: {label}"
    for text in tilts.texts(label):
        try:
            rows.append([float(part) for part in text.strip("[]").split(",")])
        except ValueError:
            raise InputError(f"{where} {text[:40]!r} is not a list of numbers") from None
    grid = int(round((len(rows[0]) / parts) ** 0.5)) if rows else 0
    if any(len(row) != parts * grid**2 for row in rows) or not 2 <= grid <= LARGEST_GRID:
        count = "n^2" if parts == 1 else f"{parts} n^2"
        raise InputError(f"{where} must hold {count} numbers, n from 2 to {LARGEST_GRID}")
    values[:, : parts * grid**2] = rows
    return values, grid
