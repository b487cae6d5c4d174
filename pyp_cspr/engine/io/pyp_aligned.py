"""One series of PYP's tables, read as exposures and particles. See ``pyp_dataset.py``."""

from __future__ import annotations

from typing import Any, Dict, Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.geometry import pyp_tilt_matrix, pyp_to_particle
from ..core.splines import grid_weights
from ..errors import InputError
from ..model.tables import LARGEST_GRID
from . import pyp_geometry as pyp
from .pyp_series import (
    LARGEST,
    Columns,
    Part,
    PypOptics,
    PypSeries,
    SeriesTables,
    affine_grid,
    particle_name,
    start_exposures,
)

EXACT = 0.02  # angstrom: closer than this, X_SHIFT says where the particle is, not where PYP's formula has it
LEAST_GAIN = 0.5  # of the variance that is left, where a deformation field is worth having

# What is read of each table; keys are whole numbers.
PROJECTIONS = ("X_SHIFT", "Y_SHIFT", "DEFOCUS_1", "DEFOCUS_2", "DEFOCUS_ANGLE", "PHASE_SHIFT", "OCCUPANCY",
               "ORIGINAL_X_POSITION", "ORIGINAL_Y_POSITION")
PROJECTION_KEYS = ("IMAGE_IS_ACTIVE", "IMIND", "PIND", "TIND", "RIND", "FIND")
PARTICLES = ("PSHIFT_X", "PSHIFT_Y", "PSHIFT_Z", "PPSI", "PTHETA", "PPHI", "ORIGINAL_X_POSITION_3D", "ORIGINAL_Y_POSITION_3D",
             "ORIGINAL_Z_POSITION_3D", "PSCORE", "POCC")
TILTS = ("TSHIFT_X", "TSHIFT_Y", "TILTANG", "TILTAXIS")


def _checked(columns: Columns, numbers: Sequence[str], keys: Sequence[str], where: str) -> Columns:
    """The columns of these names: numbers as float64, keys as int64. Raises InputError."""
    found: Columns = {}
    for name in (*keys, *numbers):
        if name not in columns:
            raise InputError(f"{where}: no column {name}; write the table again with it")
        with np.errstate(invalid="ignore"):  # numpy warns of signalling NaN, which are refused below like the others
            values = np.asarray(columns[name], dtype=np.float64)
        bad = ~(np.abs(values) <= LARGEST)
        if name in keys:
            bad |= values != np.rint(values)
        if bad.any():
            kind = "whole number" if name in keys else "number"
            raise InputError(f"{where}: row {int(bad.argmax()) + 1}: {name} is {values[bad][0]:g}, want a {kind} of up to "
                             f"{LARGEST:g}")
        found[name] = values.astype(np.int64) if name in keys else values
    return found


class AlignedSeries:
    """Reads the tables of one series."""

    def __init__(self, series: PypSeries, optics: PypOptics, tables: SeriesTables, source: str) -> None:
        self.series, self.optics = series, optics
        self.where = f"{source}: series {series.name}" if source else f"series {series.name}"
        extra = [name for name in ("PIXEL_SIZE", "ASSIGNED_SUBSET") if name in tables.projections]
        self.projections = _checked(tables.projections, (*PROJECTIONS, *extra), PROJECTION_KEYS, f"{self.where}: projections")
        self.particles = _checked(tables.particles, PARTICLES, ("PIND",), f"{self.where}: particles")
        self.tilts = _checked(tables.tilts, TILTS, ("TIND", "RIND"), f"{self.where}: tilts")
        self._check_pixel()
        self._index()

    def _check_pixel(self) -> None:
        """PIXEL_SIZE is the particles', the images' times a binning; 0 where it was not known."""
        sizes = np.unique(self.projections.get("PIXEL_SIZE", np.zeros(0)))
        times = sizes / self.optics.pixel
        wrong = sizes[(sizes != 0) & (np.abs(times - np.maximum(np.rint(times), 1.0)) > 0.01 * np.abs(times))]
        if len(wrong):
            raise InputError(f"{self.where}: PIXEL_SIZE is {wrong[0]:g} A, no multiple of the images' {self.optics.pixel:g} A; "
                             "check scope_pixel and data_bin")

    def _index(self) -> None:
        """Particle and exposure of every projection."""
        table, n = self.projections, len(self.series.tilt)
        if np.any(table["FIND"] != 0):
            raise InputError(f"{self.where}: movie frames (FIND {int(table['FIND'].max())}); only whole tilts are read, so "
                             "export alignments of averaged tilts (extract_fmt frealign)")
        self.exposure = table["IMIND"]
        bad = np.flatnonzero((self.exposure < 0) | (self.exposure >= n))
        if len(bad):
            raise InputError(f"{self.where}: row {bad[0] + 1}: IMIND {self.exposure[bad[0]]}, but the series has {n} images; "
                             "the table is of another series")
        order = self.series.order[self.exposure]
        bad = np.flatnonzero(table["TIND"] != order)
        if len(bad):
            raise InputError(f"{self.where}: row {bad[0] + 1}: TIND {int(table['TIND'][bad[0]])}, but image "
                             f"{self.exposure[bad[0]]} was taken as {order[bad[0]]}; mend the order of the tilts")
        self.pind = self.particles["PIND"]
        row_of = {index: row for row, index in enumerate(self.pind.tolist())}
        if len(row_of) < len(self.pind):
            raise InputError(f"{self.where}: a PIND occurs twice among the particles; the table is damaged")
        try:
            self.particle = np.array([row_of[int(index)] for index in table["PIND"]], dtype=np.int64)
        except KeyError as error:
            raise InputError(f"{self.where}: PIND {error} has projections but is no particle; these tables are not of one "
                             "run") from None
        tilts = self.tilts
        rows = {(int(t), int(r)): row for row, (t, r) in enumerate(zip(tilts["TIND"], tilts["RIND"]))}
        try:
            self.tilt_row = np.array([rows[int(t), int(r)] for t, r in zip(table["TIND"], table["RIND"])], dtype=np.int64)
        except KeyError as error:
            raise InputError(f"{self.where}: (TIND, RIND) {error} has projections but no tilt; these tables are not of one "
                             "run") from None

    def columns(self) -> Part:
        series, optics, table = self.series, self.optics, self.particles
        stored = np.stack([table[f"ORIGINAL_{axis}_POSITION_3D"] for axis in "XYZ"], axis=-1).astype(np.float64)
        self.s = np.stack([table[f"PSHIFT_{axis}"] for axis in "XYZ"], axis=-1).astype(np.float64)
        position = pyp.position_to_specimen(stored, self.s, series.size, optics.pixel)
        height = 0.5 * (stored[:, 2].min() + stored[:, 2].max()) - 0.5 * series.size[2]
        exposures = start_exposures(series, optics, float(height) * optics.pixel)
        tilts = self._mean_tilts()
        known = np.isfinite(tilts["TILTANG"])
        exposures["rotation"][known] = pyp_tilt_matrix(tilts["TILTANG"][known], tilts["TILTAXIS"][known])
        shift = np.stack([tilts["TSHIFT_X"], tilts["TSHIFT_Y"]], axis=-1)
        exposures["shift"][known] += shift[known]
        grid = self._look_where_they_were_cut(exposures, position, affine_grid(series, optics))
        visible = np.zeros((len(position), len(series.tilt)), bool)
        active = (self.projections["IMAGE_IS_ACTIVE"] >= 0) & (
            (self.projections["OCCUPANCY"] > 0) | (table["POCC"][self.particle] <= 0))
        visible[self.particle[active], self.exposure[active]] = True
        offset = self._defocus(exposures, position)
        half = np.zeros(len(position), np.int64)
        if "ASSIGNED_SUBSET" in self.projections:
            half[self.particle] = self.projections["ASSIGNED_SUBSET"]
            half[(half != 1) & (half != 2)] = 0
        score = np.asarray(table["PSCORE"], float)
        particles = {
            "name": [particle_name(series.name, index) for index in self.pind.tolist()],
            "position": position,
            "rotation": pyp_to_particle(table["PPSI"], table["PTHETA"], table["PPHI"]),
            "half": half,
            "score": np.where(score > 0, score, np.nan),
            "weight": np.clip(np.asarray(table["POCC"], float) / 100.0, 0.0, 1.0),
            "defocus_offset": offset,
        }
        return Part(exposures, particles, visible, grid)

    def _mean_tilts(self) -> Columns:
        """TILTANG, TILTAXIS, TSHIFT_X and Y of each image, the mean over its regions' projections; NaN: not there."""
        tilts, n = self.tilts, len(self.series.tilt)
        count = np.bincount(self.tilt_row, minlength=len(tilts["TIND"])) + 1e-6
        image_of = {int(order): image for image, order in enumerate(self.series.order)}
        image = np.array([image_of.get(int(order), n) for order in tilts["TIND"]], dtype=np.int64)
        inside = image < n
        total = np.bincount(image[inside], count[inside], minlength=n)
        means: Columns = {}
        with np.errstate(invalid="ignore"):
            for name in ("TILTANG", "TILTAXIS", "TSHIFT_X", "TSHIFT_Y"):
                values = np.asarray(tilts[name], float)
                first = np.zeros(n)
                first[image[inside]] = values[inside]  # about which angles of -180 and 180 are averaged
                away = values[inside] - first[image[inside]]
                if name == "TILTAXIS":
                    away = (away + 180.0) % 360.0 - 180.0
                means[name] = first + np.bincount(image[inside], away * count[inside], minlength=n) / total
        return means

    def _look_where_they_were_cut(self, exposures: Dict[str, Any], position: NDArray, grid: int) -> int:
        """Move the exposures' shifts, and give them deformations, so that particles are seen where PYP has them; the grid."""
        table, pixel = self.projections, self.optics.pixel
        crop = np.stack([table["ORIGINAL_X_POSITION"], table["ORIGINAL_Y_POSITION"]], axis=-1).astype(np.float64)
        moved = np.stack([table["X_SHIFT"], table["Y_SHIFT"]], axis=-1).astype(np.float64)
        if self._never_aligned(moved):
            return grid
        image_size = self.series.image_size
        seen = pyp.pixel_to_image(crop, image_size, pixel) + moved
        extent = np.maximum(np.array(image_size) * pixel, 1.0)
        place = np.einsum("qij,qj->qi", exposures["rotation"][self.exposure], position[self.particle])[:, :2]
        residual = seen - place - exposures["shift"][self.exposure]
        if grid:
            control = exposures["deformation"][:, :8].reshape(-1, 4, 2)[self.exposure]
            if np.abs(residual - np.einsum("qc,qci->qi", grid_weights(place, extent, 2), control)).max(initial=0.0) < EXACT:
                return grid
        exposures["deformation"][:] = 0.0
        if np.abs(residual).max(initial=0.0) < EXACT:
            return 0
        count = np.maximum(np.bincount(self.exposure, minlength=len(exposures["shift"])), 1)
        mean = np.stack([np.bincount(self.exposure, residual[:, i], minlength=len(count)) / count for i in range(2)], axis=-1)
        exposures["shift"] = exposures["shift"] + mean
        return self._fit_deformations(exposures, place, residual - mean[self.exposure], extent)

    def _never_aligned(self, moved: NDArray) -> bool:
        """PYP's shifts before the first refinement: what the floor of the crop left, with the wrong sign, in binned pixels."""
        tilts = self.tilts
        untouched = not np.any(tilts["TSHIFT_X"]) and not np.any(tilts["TSHIFT_Y"])
        return bool(untouched and (moved <= 0).all() and (moved > -self.optics.pixel * self.optics.bin).all() and moved.any())

    def _fit_deformations(self, exposures: Dict[str, Any], place: NDArray, residual: NDArray, extent: NDArray) -> int:
        best, chosen = LEAST_GAIN * np.sum(residual**2) / max(len(residual) - 1, 1), 0
        counts = np.bincount(self.exposure, minlength=len(exposures["shift"]))
        for grid in range(2, LARGEST_GRID + 1):
            values = np.zeros((len(counts), 2 * LARGEST_GRID**2))
            free = len(residual) - grid**2 * np.count_nonzero(counts)
            if free < len(residual) // 2:
                break
            left = residual.copy()
            for image in np.flatnonzero(counts):
                rows = np.flatnonzero(self.exposure == image)
                values[image] = pyp.fit_deformation(place[rows], residual[rows], extent, grid)
                control = values[image, : 2 * grid**2].reshape(-1, 2)
                left[rows] -= grid_weights(place[rows], extent, grid) @ control
            variance = np.sum(left**2) / free
            if variance < best:
                best, chosen = LEAST_GAIN * variance, grid
                exposures["deformation"][:] = values
        return chosen

    def _defocus(self, exposures: Dict[str, Any], position: NDArray) -> NDArray[np.float64]:
        """Put the projections' defocus, less their depth, into the exposures; what is left for each particle is returned.

        With the other hand PYP's defocus follows x but not z, so that what is left is no defocus of particles.
        """
        table, hand = self.projections, self.optics.hand
        depth = np.einsum("qj,qj->q", exposures["rotation"][self.exposure, 2], position[self.particle])
        measured = np.stack([table["DEFOCUS_1"], table["DEFOCUS_2"]], axis=-1) - (hand * depth)[:, None]
        n, m = len(exposures["slice"]), len(position)
        count, each = np.bincount(self.exposure, minlength=n), np.bincount(self.particle, minlength=m)
        offset, defocus = np.zeros(m), np.zeros((n, 2))
        for _ in range(20):
            for i in range(2):
                left = measured[:, i] - offset[self.particle]
                defocus[:, i] = np.bincount(self.exposure, left, minlength=n) / np.maximum(count, 1)
            if hand > 0:
                break
            left = (measured - defocus[self.exposure]).mean(axis=1)
            offset = np.bincount(self.particle, left, minlength=m) / np.maximum(each, 1)
            offset -= offset.mean()
        offset[np.abs(offset) < 0.05] = 0.0  # the rounding of float32
        seen = count > 0
        exposures["defocus"][seen, :2] = defocus[seen]
        exposures["defocus"][self.exposure, 2] = table["DEFOCUS_ANGLE"]
        exposures["phase_shift"][self.exposure] = pyp.phase_shift_degrees(table["PHASE_SHIFT"])
        return offset
