"""The data set: series, exposures and particles as tables of named columns with units.

A projection is a (particle, exposure) pair of one series; nothing of it is stored. Conventions: ``engine/conventions.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.geometry import project
from ..core.splines import grid_weights
from ..errors import InputError


@dataclass(frozen=True)
class Column:
    """One column of a table; ``shape`` is the shape of one row's value."""

    name: str
    dtype: str
    shape: Tuple[int, ...]
    unit: str
    doc: str
    default: Any = None  # None: the column must be given


LARGEST_GRID = 5  # control values to a side of a field of deformation or defocus
LARGEST_MAGNIFICATION = 0.05  # by which an exposure's may differ from 1

SERIES = (
    Column("name", "U", (), "", "name, unique in the data set (rlnTomoName, tsId)"),
    Column("images", "U", (), "", "absolute path of the image stack; empty where each tilt has its own file or none is needed"),
    Column("image_size", "i8", (2,), "pixel", "width x and height y of the images; 0 where not known"),
    Column("specimen_size", "i8", (3,), "pixel", "x, y, z of the unbinned tomogram", 0),
    Column("pixel", "f8", (), "A", "pixel size of the images"),
    Column("voltage", "f8", (), "kV", "acceleration voltage", 300.0),
    Column("cs", "f8", (), "mm", "spherical aberration", 2.7),
    Column("amplitude_contrast", "f8", (), "", "fraction", 0.07),
    Column("hand", "f8", (), "", "+1 or -1: sign of depth in the defocus (rlnTomoHand)", -1.0),
    Column("contrast", "f8", (), "", "factor that makes particles white: -1 raw, +1 extracted stacks", -1.0),
    Column("stack_pixel", "f8", (), "A", "pixel size of extracted stacks; 0 for raw images", 0.0),
    Column("stack_box", "i8", (), "pixel", "box of extracted stacks; 0 for raw images", 0),
    Column("deformation_grid", "i8", (), "", "control values to a side of the exposures' deformation fields; 0: none", 0),
    Column("defocus_grid", "i8", (), "", "control values to a side of the exposures' defocus fields; 0: none", 0),
    Column("premultiplied", "?", (), "", "extracted stacks are already multiplied by their CTF", False),
)

EXPOSURES = (
    Column("series", "i8", (), "", "row of the series"),
    Column("slice", "i8", (), "", "0-based image in the stack"),
    Column("file", "U", (), "", "absolute path of its file where the tilts of a series are in several; else empty", ""),
    Column("order", "i8", (), "", "0-based acquisition order", 0),
    Column("rotation", "f8", (3, 3), "", "T_e: specimen -> microscope"),
    Column("shift", "f8", (2,), "A", "b_e", 0.0),
    Column("dose_before", "f8", (), "e/A^2", "dose before this exposure", 0.0),
    Column("dose", "f8", (), "e/A^2", "dose of this exposure", 0.0),
    Column("defocus", "f8", (3,), "A, A, deg", "df_u, df_v, astigmatism angle at depth 0"),
    Column("phase_shift", "f8", (), "deg", "phase plate", 0.0),
    Column("scale", "f8", (), "", "signal amplitude relative to an undamaged thin specimen (rlnCtfScalefactor)", 1.0),
    Column("score", "f8", (), "", "mean score of its acquisition order in the data set, 0 worst to 1 best; NaN: none", np.nan),
    Column("deformation", "f8", (2 * LARGEST_GRID**2,), "A", "shift x, y at each control value, by rows of the grid", 0.0),
    Column("magnification", "f8", (), "", "m_e, of the image against the pixel size: u = m_e (T_e x_p)_xy + b_e", 1.0),
    Column("defocus_field", "f8", (LARGEST_GRID**2,), "A", "defocus at each control value, on top of df_u and df_v", 0.0),
    Column("sigma", "f8", (4,), "deg, deg, A, A", "uncertainty of tilt angle, axis angle, shift x, y; 0: not refined", 0.0),
    Column("enabled", "?", (), "", "False: an excluded view, kept but not used", True),
    # Where extracted stacks were cut from: a refined geometry does not move pixels that are already cut.
    Column("extract_rotation", "f8", (3, 3), "", "T_e at extraction of stacks", 0.0),
    Column("extract_shift", "f8", (2,), "A", "b_e at extraction of stacks", 0.0),
)

PARTICLES = (
    Column("name", "U", (), "", "unique in the data set"),
    Column("series", "i8", (), "", "row of the series"),
    Column("position", "f8", (3,), "A", "x_p, from the tomogram's centre"),
    Column("rotation", "f8", (3, 3), "", "R_p: reference -> specimen"),
    Column("half", "i8", (), "", "half-set 1 or 2; 0: not assigned yet", 0),
    Column("score", "f8", (), "", "mean score over projections, 0..100; NaN: none yet", np.nan),
    Column("sigma", "f8", (2,), "deg, A", "uncertainty of rotation and position, rms over axes; 0: not refined", 0.0),
    Column("defocus_offset", "f8", (), "A", "of this particle against its exposures' defocus and its depth", 0.0),
    Column("weight", "f8", (), "", "weight in reconstructions", 1.0),
    Column("stack", "U", (), "", "absolute path of an extracted stack, or empty", ""),
    Column("extract_position", "f8", (3,), "A", "x_p at extraction of the stack", 0.0),
)


class Table:
    """Equally long NumPy columns, checked against a schema. ``table["position"]`` gives the column itself."""

    def __init__(self, schema: Sequence[Column], columns: Dict[str, Any]) -> None:
        known = {column.name for column in schema}
        unknown = sorted(set(columns) - known)
        if unknown:
            raise KeyError(f"unknown column {unknown[0]!r}; known: {', '.join(sorted(known))}")
        length = len(columns[schema[0].name])
        self.schema = tuple(schema)
        self.columns: Dict[str, NDArray] = {}
        for column in schema:
            if column.name in columns:
                values = np.asarray(columns[column.name], dtype=column.dtype)
                if values.shape != (length,) + column.shape:
                    raise ValueError(f"column {column.name!r}: shape {values.shape}, want {(length,) + column.shape}")
            elif column.default is None:
                raise KeyError(f"column {column.name!r} is missing")
            else:
                values = np.full((length,) + column.shape, column.default, dtype=None if column.dtype == "U" else column.dtype)
            self.columns[column.name] = values

    def __len__(self) -> int:
        return len(self.columns[self.schema[0].name])

    def __getitem__(self, name: str) -> NDArray:
        return self.columns[name]

    def __setitem__(self, name: str, values: Any) -> None:
        old = self.columns[name]
        new = np.asarray(values, dtype=None if old.dtype.kind == "U" else old.dtype)
        self.columns[name] = np.broadcast_to(new, old.shape).copy()

    def take(self, rows: Any) -> Table:
        """The rows of an index or boolean array, as a new table."""
        return Table(self.schema, {name: values[rows] for name, values in self.columns.items()})

    def copy(self) -> Table:
        return self.take(np.arange(len(self)))  # a slice would share memory


@dataclass
class Dataset:
    """Series, exposures, particles, and which exposure of its series sees which particle.

    ``visible`` is ``(n_particles, most exposures of a series)`` bool; column i is the i-th exposure row of the particle's
    series. ``extra`` holds particle columns of the source file that mean nothing here; they are written back unchanged.
    """

    series: Table
    exposures: Table
    particles: Table
    visible: NDArray[np.bool_]
    box: int = 0  # of the source's particles (pixels of box_pixel); 0: the source does not say
    box_pixel: float = 0.0
    extra: Dict[str, List[str]] = field(default_factory=dict)
    source: str = ""

    def exposures_of(self, series: int) -> NDArray[np.int64]:
        """Rows of a series' exposures, in table order."""
        return np.flatnonzero(self.exposures["series"] == series)

    def particles_of(self, series: int) -> NDArray[np.int64]:
        """Rows of a series' particles, in table order."""
        return np.flatnonzero(self.particles["series"] == series)

    def used(self, series: int) -> NDArray[np.bool_]:
        """``(particles, exposures)`` of a series: which projections count (visible and not an excluded view)."""
        rows = self.exposures_of(series)
        return self.visible[self.particles_of(series), : len(rows)] & self.exposures["enabled"][rows]

    def project(self, series: int) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
        """u ``(particles, exposures, 2)`` and depth ``(particles, exposures)`` of a series, angstrom."""
        rows = self.exposures_of(series)
        position = self.particles["position"][self.particles_of(series)]
        seen, depth = project(self.exposures["rotation"][rows], 0.0, position[:, None, :])
        u = self.exposures["magnification"][rows, None] * seen + self.exposures["shift"][rows]
        grid = int(self.series["deformation_grid"][series])
        if grid >= 2:
            u = u + np.einsum("peb,ebi->pei", grid_weights(seen, self.field(series), grid), self.deformations(series))
        return u, depth

    def defocus_changes(self, series: int) -> NDArray[np.float64]:
        """``(particles, exposures)`` of a series: what depth, particle and region add to the exposures' defocus, angstrom."""
        rows, particles = self.exposures_of(series), self.particles_of(series)
        position = self.particles["position"][particles]
        seen, depth = project(self.exposures["rotation"][rows], 0.0, position[:, None, :])
        changes: NDArray[np.float64] = self.series["hand"][series] * depth
        changes = changes + self.particles["defocus_offset"][particles, None]
        grid = int(self.series["defocus_grid"][series])
        if grid >= 2:
            changes += np.einsum("peb,eb->pe", grid_weights(seen, self.field(series), grid), self.defocus_fields(series))
        return changes

    def field(self, series: int) -> NDArray[np.float64]:
        """Width and height of a series' images in angstrom; 1 where they are not known."""
        size: NDArray[np.float64] = self.series["image_size"][series] * self.series["pixel"][series]
        return np.where(size > 0, size, 1.0)

    def deformations(self, series: int) -> NDArray[np.float64]:
        """Control values of a series' exposures, ``(E, grid^2, 2)`` in angstrom."""
        grid = int(self.series["deformation_grid"][series])
        values = self.exposures["deformation"][self.exposures_of(series), : 2 * grid**2]
        return values.reshape(len(values), grid**2, 2)

    def defocus_fields(self, series: int) -> NDArray[np.float64]:
        """Control values of the regional defocus of a series' exposures, ``(E, grid^2)`` in angstrom."""
        grid = int(self.series["defocus_grid"][series])
        values: NDArray[np.float64] = self.exposures["defocus_field"][self.exposures_of(series), : grid**2]
        return values

    def is_stacks(self, series: int) -> bool:
        """True where the series' particles bring extracted stacks."""
        return bool(self.series["stack_box"][series] > 0)

    def select_particles(self, rows: Any) -> Dataset:
        """The same series and exposures with some of the particles."""
        index = np.arange(len(self.particles))[rows]
        extra = {name: [values[i] for i in index] for name, values in self.extra.items()}
        return Dataset(self.series, self.exposures, self.particles.take(index), self.visible[index], self.box,
                       self.box_pixel, extra, self.source)

    def assign_halves(self) -> None:
        """Give every particle without a half-set one, alternating within its series; those assigned stay.

        In the order of their names, so that the order of the rows does not matter.
        """
        half = self.particles["half"]
        for series in range(len(self.series)):
            rows = self.particles_of(series)
            free = rows[half[rows] == 0]
            free = free[np.argsort(self.particles["name"][free], kind="stable")]
            first = 1 + series % 2  # alternate the start, so that series of one particle fill both halves
            half[free] = np.where(np.arange(len(free)) % 2 == 0, first, 3 - first)

    def validate(self) -> None:
        """Raise InputError with one line for the first inconsistency."""
        where = self.source or "data set"
        if len(self.series) == 0:
            raise InputError(f"{where}: no tilt series; check the tomograms star")
        if len(self.particles) == 0:
            raise InputError(f"{where}: the particle list is empty; nothing to do")
        names, counts = np.unique(self.particles["name"], return_counts=True)
        if counts.max() > 1:
            raise InputError(f"{where}: particle {names[counts.argmax()]!r} occurs {counts.max()} times; names must be unique")
        names, counts = np.unique(self.series["name"], return_counts=True)
        if counts.max() > 1:
            raise InputError(f"{where}: series {names[counts.argmax()]!r} occurs {counts.max()} times; names must be unique")
        self._validate_numbers(where)

    def _validate_numbers(self, where: str) -> None:
        labels = {"series": self.series["name"], "particles": self.particles["name"]}
        for kind, table in (("series", self.series), ("exposures", self.exposures), ("particles", self.particles)):
            for column in table.schema:
                values = table[column.name]
                if values.dtype.kind != "f" or column.name == "score":
                    continue
                bad = ~np.isfinite(values.reshape(len(table), -1)).all(axis=1)
                if bad.any():
                    row = int(np.flatnonzero(bad)[0])
                    if kind == "exposures":
                        name = f"{self.series['name'][table['series'][row]]} exposure {row}"
                    else:
                        name = str(labels[kind][row])
                    raise InputError(f"{where}: {kind} {name}: {column.name} is not a number; mend or remove that row")
        for row, name in enumerate(self.series["name"]):
            if not self.series["pixel"][row] > 0:
                raise InputError(f"{where}: series {name}: pixel size {self.series['pixel'][row]:g} A; it must be above 0")
            if not self.series["voltage"][row] > 0:
                raise InputError(f"{where}: series {name}: voltage {self.series['voltage'][row]:g} kV; it must be above 0")
            if abs(self.series["hand"][row]) != 1:
                raise InputError(f"{where}: series {name}: hand {self.series['hand'][row]:g}; it must be 1 or -1")
            if len(self.exposures_of(row)) == 0:
                raise InputError(f"{where}: series {name}: no tilt images; check its tilt-series star")
            magnification = self.exposures["magnification"][self.exposures_of(row)]
            if np.abs(magnification - 1.0).max() > LARGEST_MAGNIFICATION + 1e-9:
                raise InputError(f"{where}: series {name}: magnifications {magnification.min():g} to {magnification.max():g}; "
                                 f"they must be within {LARGEST_MAGNIFICATION:g} of 1: check the pixel size")
        for table, kind in ((self.exposures, "exposure"), (self.particles, "particle")):
            rotation = table["rotation"]
            error = np.abs(rotation @ np.swapaxes(rotation, 1, 2) - np.eye(3)).max(axis=(1, 2), initial=0.0)
            error = np.maximum(error, np.linalg.det(rotation) < 0)  # a mirror
            if len(error) and error.max() > 1e-3:
                row = int(error.argmax())
                raise InputError(f"{where}: {kind} {row}: its matrix is not a rotation; check the projection matrices")
