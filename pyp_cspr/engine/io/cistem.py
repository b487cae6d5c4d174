"""cisTEM's binary tables, as PYP writes them: ``.cistem``, ``_extended.cistem`` and ``_stat.cistem``. Little-endian, packed.

A table is its number of columns and of rows (int32 each), for each column its id (int64) and type (int8), then the rows.
Columns are found by id, never by place. An extended file is two tables, each after its block id (int64): particles, tilts.

Units: degrees, angstrom, kV, mm, mrad; ORIGINAL_* in unbinned pixels. PPSI, PTHETA and PPHI have the opposite sign of PSI,
THETA and PHI, and a particle's true position is its stored position minus PSHIFT / pixel. ``pyp_geometry.py`` converts.

Source: cisTEM's cistem_parameters and PYP's cistem_star_file.py, restated in our own words.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .cistem_columns import (
    DTYPES,
    IDS,
    NAMES,
    PARTICLE_COLUMNS,
    PROJECTION_COLUMNS,
    TEXT,
    TILT_COLUMNS,
    TYPES,
    VARIABLE,
)
from .mrc import write_aside
from .text import LARGEST_INTEGER, PathLike, read_bytes

PARTICLE_BLOCK, TILT_BLOCK = 15, 35
_TABLE_HEADER = struct.Struct("<ii")
_COLUMN_HEADER = struct.Struct("<qb")
_BLOCK_HEADER = struct.Struct("<q")


@dataclass
class CistemTable:
    """A table by PYP's column names, each value in the file's own number type; ``where`` names the file in messages."""

    columns: Dict[str, NDArray[Any]] = field(default_factory=dict)
    where: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    @property
    def ids(self) -> Dict[str, int]:
        """The columns' ids by name."""
        return {name: IDS[name] for name in self.columns}

    def floats(self, column: str) -> NDArray[np.float64]:
        """A column as float64. Raises InputError where it is missing or holds what is not finite."""
        if column not in self.columns:
            raise InputError(f"{self.where}: no column {column} (id {IDS[column]}); write the table again with it")
        values = np.asarray(self.columns[column], dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise InputError(f"{self.where}: row {bad[0] + 1}: {column} is {values[bad[0]]}, want a finite number")
        return values

    def integers(self, column: str) -> NDArray[np.int64]:
        """A column as int64. Raises InputError where it is missing or holds what is not whole."""
        values = self.floats(column)
        bad = np.flatnonzero((values != np.rint(values)) | (np.abs(values) > LARGEST_INTEGER))
        if len(bad):
            raise InputError(f"{self.where}: row {bad[0] + 1}: {column} is {values[bad[0]]:g}, want a whole number")
        return values.astype(np.int64)


@dataclass
class ExtendedTable:
    """What one series' projections share: particles (key PIND) and tilts (key TIND, RIND)."""

    particles: CistemTable
    tilts: CistemTable


def read_cistem(path: PathLike) -> CistemTable:
    """Read a ``.cistem`` (also a ``_stat.cistem``). Raises InputError, with row, column or byte, for what is not one."""
    return parse_cistem(read_bytes(path), os.fspath(path))


def parse_cistem(data: bytes, where: str) -> CistemTable:
    """The same for bytes that came from ``where``."""
    table, end = _parse_table(data, 0, where)
    _check_end(data, end, where)
    return table


def read_extended(path: PathLike) -> ExtendedTable:
    """Read an ``_extended.cistem``. Raises InputError, also for two rows with the same key."""
    return parse_extended(read_bytes(path), os.fspath(path))


def parse_extended(data: bytes, where: str) -> ExtendedTable:
    """The same for bytes that came from ``where``."""
    blocks: Dict[int, CistemTable] = {}
    place = 0
    for _ in range(2):
        if len(data) < place + 8:
            raise InputError(f"{where}: byte {place}: ends before a block id; want particles and tilts: copy it again")
        (block,) = _BLOCK_HEADER.unpack_from(data, place)
        if block not in (PARTICLE_BLOCK, TILT_BLOCK) or block in blocks:
            want = f"{PARTICLE_BLOCK} (particles) and {TILT_BLOCK} (tilts)"
            raise InputError(f"{where}: byte {place}: block id {block}, want {want}; damaged, or no _extended.cistem")
        blocks[block], place = _parse_table(data, place + 8, where)
    _check_end(data, place, where)
    extended = ExtendedTable(blocks[PARTICLE_BLOCK], blocks[TILT_BLOCK])
    _check_keys(extended.particles, ("PIND",), f"{where}: particles")
    _check_keys(extended.tilts, ("TIND", "RIND"), f"{where}: tilts")
    return extended


def _check_end(data: bytes, end: int, where: str) -> None:
    if len(data) != end:
        raise InputError(f"{where}: byte {end}: {len(data) - end} bytes after the last row; the header and the data disagree")


def _check_keys(table: CistemTable, keys: Sequence[str], where: str) -> None:
    if not len(table):
        return
    for key in keys:
        if key not in table:
            raise InputError(f"{where}: no column {key} (id {IDS[key]}); write the table again with it")
    values = np.stack([np.asarray(table.columns[key], dtype=np.float64) for key in keys], axis=1)
    _, first, inverse = np.unique(values, axis=0, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[np.reshape(inverse, -1)] != np.arange(len(table)))
    if len(again):
        key = ", ".join(f"{name} {value:g}" for name, value in zip(keys, values[again[0]]))
        raise InputError(f"{where}: row {again[0] + 1}: {key} a second time; remove one of the rows")


def _parse_table(data: bytes, start: int, where: str) -> Tuple[CistemTable, int]:
    """(table, place after it). Sizes in the header are held against the bytes that are there before anything is made."""
    if len(data) < start + _TABLE_HEADER.size:
        raise InputError(f"{where}: byte {start}: ends inside the header of a table; copy or make the file again")
    n_columns, n_rows = _TABLE_HEADER.unpack_from(data, start)
    place = start + _TABLE_HEADER.size
    if n_columns < 1 or n_rows < 0:
        raise InputError(f"{where}: byte {start}: {n_columns} columns, {n_rows} rows; damaged, or no cisTEM table")
    if (len(data) - place) // _COLUMN_HEADER.size < n_columns:
        raise InputError(f"{where}: byte {start}: header says {n_columns} columns, the file ends before; copy it again")
    found: List[Tuple[int, int]] = []
    seen = set()
    for index in range(n_columns):
        identity, kind = _COLUMN_HEADER.unpack_from(data, place)
        name = NAMES.get(identity, "")
        what = f"{where}: byte {place}: column {index + 1} (id {identity}{', ' + name if name else ''})"
        if kind not in DTYPES and kind not in (TEXT, VARIABLE):
            raise InputError(f"{what} has the type {kind}; want 1 to 9: damaged, or no cisTEM table")
        if name and (kind in (TEXT, VARIABLE)) != (TYPES[name] == VARIABLE):
            raise InputError(f"{what} has the type {kind}, want {TYPES[name]}; damaged, or no cisTEM table")
        if identity in seen:
            raise InputError(f"{what} a second time; remove one")
        seen.add(identity)
        found.append((identity, kind))
        place += _COLUMN_HEADER.size
    if any(kind in (TEXT, VARIABLE) for _, kind in found):
        return _parse_rows(data, place, n_rows, found, where)
    dtype = np.dtype([(str(identity), DTYPES[kind]) for identity, kind in found])
    have = (len(data) - place) // dtype.itemsize
    if have < n_rows:
        raise InputError(f"{where}: row {have + 1}: ends at byte {len(data)}, the header says {n_rows} rows; copy it again")
    rows = np.frombuffer(data, dtype, n_rows, place)
    columns = {NAMES[identity]: rows[str(identity)].copy() for identity, _ in found if identity in NAMES}
    return CistemTable(columns, where), place + n_rows * dtype.itemsize


def _parse_rows(data: bytes, place: int, n_rows: int, found: Sequence[Tuple[int, int]], where: str) -> Tuple[CistemTable, int]:
    """The same for rows of different lengths: a text is its length (int32) and its characters."""
    if (len(data) - place) // 4 < n_rows:  # every row has a length of 4 bytes at least
        raise InputError(f"{where}: byte {place}: header says {n_rows} rows, the file is too short; copy or make it again")
    values: Dict[int, List[Any]] = {identity: [] for identity, _ in found if identity in NAMES}
    dtypes = {identity: np.dtype(DTYPES[kind]) for identity, kind in found if kind in DTYPES}
    for row in range(n_rows):
        for identity, kind in found:
            size = 4 if kind not in DTYPES else dtypes[identity].itemsize
            begin, end = place, place + size
            if kind not in DTYPES and end <= len(data):
                (length,) = struct.unpack_from("<i", data, place)
                if length < 0:
                    raise InputError(f"{where}: row {row + 1}: byte {place}: a text of {length} bytes; the file is damaged")
                begin, end = end, end + length
            if end > len(data):
                column = NAMES.get(identity, identity)
                raise InputError(f"{where}: row {row + 1}: ends at byte {len(data)} inside column {column}; copy it again")
            if identity in values:
                values[identity].append(data[begin:end])
            place = end
    columns: Dict[str, NDArray[Any]] = {}
    for identity, pieces in values.items():
        if identity in dtypes:
            columns[NAMES[identity]] = np.frombuffer(b"".join(pieces), dtypes[identity]).copy()
        else:
            texts = np.empty(len(pieces), dtype=object)
            texts[:] = [piece.decode("utf-8", "surrogateescape") for piece in pieces]
            columns[NAMES[identity]] = texts
    return CistemTable(columns, where), place


def write_cistem(path: PathLike, table: CistemTable) -> None:
    """Write a table: PYP's columns first and in PYP's order, then others. The file appears whole or not at all.

    Raises InputError where it cannot be written, ValueError for columns that are unknown, of different lengths, or do not fit
    their type. PYP itself finds columns by place once it has read them: give it all 32 (``new_projections``).
    """
    write_bytes(path, format_cistem(table))


def write_extended(path: PathLike, extended: ExtendedTable) -> None:
    """Write an ``_extended.cistem``: all columns of both blocks, in PYP's order. Raises as ``write_cistem``."""
    write_bytes(path, format_extended(extended))


def format_cistem(table: CistemTable) -> bytes:
    """The bytes of ``write_cistem``. Raises ValueError."""
    return _format_table(table, [name for name, _, _ in PROJECTION_COLUMNS])


def format_extended(extended: ExtendedTable) -> bytes:
    """The bytes of ``write_extended``. Raises ValueError."""
    parts = []
    for block, table, wanted in (
        (PARTICLE_BLOCK, extended.particles, PARTICLE_COLUMNS),
        (TILT_BLOCK, extended.tilts, TILT_COLUMNS),
    ):
        order = [name for name, _, _ in wanted]
        full = table if table.columns else CistemTable({name: np.empty(0) for name in order})
        missing = [name for name in order if name not in full]
        if missing:
            raise ValueError(f"block {block} needs the column {missing[0]}")
        parts += [_BLOCK_HEADER.pack(block), _format_table(full, order)]
    return b"".join(parts)


def _format_table(table: CistemTable, order: Sequence[str]) -> bytes:
    names = [name for name in order if name in table] + [name for name in table.columns if name not in order]
    unknown = [name for name in names if name not in IDS]
    if unknown or not names:
        raise ValueError(f"unknown column {unknown[0]!r}" if unknown else "a table needs a column")
    if len({len(table.columns[name]) for name in names}) > 1:
        raise ValueError("columns of different lengths")
    header = _TABLE_HEADER.pack(len(names), len(table))
    header += b"".join(_COLUMN_HEADER.pack(IDS[name], TYPES[name]) for name in names)
    if any(TYPES[name] == VARIABLE for name in names):
        return header + _format_rows(table, names)
    rows = np.empty(len(table), np.dtype([(name, DTYPES[TYPES[name]]) for name in names]))
    for name in names:
        rows[name] = _as_type(table.columns[name], name)
    return header + rows.tobytes()


def _format_rows(table: CistemTable, names: Sequence[str]) -> bytes:
    pieces: List[Callable[[int], bytes]] = []
    for name in names:
        if TYPES[name] == VARIABLE:
            texts = [str(text).encode("utf-8", "surrogateescape") for text in table.columns[name]]
            pieces.append(lambda row, texts=texts: struct.pack("<i", len(texts[row])) + texts[row])  # type: ignore[misc]
        else:
            values = _as_type(table.columns[name], name)
            pieces.append(lambda row, values=values: values[row : row + 1].tobytes())  # type: ignore[misc]
    return b"".join(piece(row) for row in range(len(table)) for piece in pieces)


def _as_type(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Values in the column's type; float32 keep every bit. Raises ValueError for what it cannot hold."""
    values = np.asarray(values)
    dtype = np.dtype(DTYPES[TYPES[name]])
    if dtype.kind in "iu" and values.size:
        limits = np.iinfo(dtype)
        if values.dtype.kind == "f" and not np.all(values == np.rint(values)):
            raise ValueError(f"{name} holds whole numbers")
        if values.min() < limits.min or values.max() > limits.max:
            raise ValueError(f"{name}: {values.min()} to {values.max()} does not fit into {dtype.name}")
    if dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            cast = values.astype(dtype)
        if np.any(np.isinf(cast) & ~np.isinf(values)):
            raise ValueError(f"{name}: a number too large for {dtype.name}")
        return cast
    return values.astype(dtype)


def write_bytes(path: PathLike, data: bytes) -> None:
    """Write ``data``; the file appears whole or not at all. Raises InputError where it cannot be written."""

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:
            file.write(data)

    write_aside(path, write)


def new_projections(count: int) -> CistemTable:
    """All 32 columns for ``count`` projections: numbered from 1, occupancy 100, sigma 1, everything else 0."""
    table = CistemTable({name: np.zeros(count, DTYPES[kind]) for name, _, kind in PROJECTION_COLUMNS})
    table.columns["POSITION_IN_STACK"][:] = np.arange(count) + 1
    table.columns["OCCUPANCY"][:] = 100
    table.columns["SIGMA"][:] = 1
    return table


def films(table: CistemTable) -> Tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(film, active) of IMAGE_IS_ACTIVE: PYP keeps there the series' line in ``.films``, from 0; below 0 is inactive.

    Film 0 is a series like any other, not cisTEM's "inactive". Raises InputError.
    """
    film = table.integers("IMAGE_IS_ACTIVE")
    return film, film >= 0


def column_statistics(tables: Iterable[CistemTable]) -> CistemTable:
    """The two rows of a ``_stat.cistem``: means and variances of PYP's 32 columns over all rows of all ``tables``.

    Whole-number columns hold them cut to whole numbers, as the format has to. Raises InputError, ValueError without a row.
    """
    several = list(tables)
    rows = sum(len(table) for table in several)
    if not rows:
        raise ValueError("no row to take a mean of")
    result = new_projections(2)
    for name, _, kind in PROJECTION_COLUMNS:
        values = np.concatenate([table.floats(name) for table in several])
        pair = np.array([values.mean(), values.var()])
        if np.dtype(DTYPES[kind]).kind in "iu":
            pair = np.clip(np.trunc(pair), np.iinfo(DTYPES[kind]).min, np.iinfo(DTYPES[kind]).max)
        result.columns[name] = pair.astype(DTYPES[kind])
    return result


def read_stat(path: PathLike) -> Dict[str, Tuple[float, float]]:
    """(mean, variance) by column of a ``_stat.cistem``. Raises InputError."""
    table = read_cistem(path)
    if len(table) != 2:
        raise InputError(f"{os.fspath(path)}: {len(table)} rows; a _stat.cistem has 2, means and variances")
    return {name: (float(values[0]), float(values[1])) for name, values in table.columns.items() if values.dtype != object}
