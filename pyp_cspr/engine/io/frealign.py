"""FREALIGN's .par and PYP's .parx: one line of fixed width for each projection; the number of columns tells the kind.

Units: degrees; angstrom for shifts and defoci (underfocus positive), also for the tilt and frame shifts of a .parx. The
angles PPSI, PTHETA and PPHI of a .parx have the opposite sign of PSI, THETA and PHI. Values are kept as the file has them:
``pyp_geometry.py`` gives them meaning.

Sources: the tables of PYP's frealign_parfile.py and of CSP's parameter reader, restated in our own words; FREALIGN v8 and v9.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .text import decode_lines, fields, read_bytes, whole, write_lines

PathLike = Union[str, "os.PathLike[str]"]

Column = Tuple[str, int, int]  # name, width, decimals (-1: a whole number)

NUMBER_MODULUS = 10_000_000  # NO has seven digits; PYP lets it wrap

_HEAD: List[Column] = [("NO", 7, -1), ("PSI", 8, 2), ("THETA", 8, 2), ("PHI", 8, 2)]
_DEFOCUS: List[Column] = [("DF1", 9, 1), ("DF2", 9, 1), ("ANGAST", 8, 2)]
_V8: List[Column] = [*_HEAD, ("SHX", 8, 2), ("SHY", 8, 2), ("MAG", 8, 0), ("FILM", 6, -1), *_DEFOCUS]
_V9: List[Column] = [*_HEAD, ("SHX", 10, 2), ("SHY", 10, 2), ("MAG", 8, 0), ("FILM", 6, -1), *_DEFOCUS]
_SCORES: List[Column] = [("OCC", 8, 2), ("LOGP", 10, 0), ("SIGMA", 11, 4), ("SCORE", 8, 2), ("CHANGE", 8, 2)]
_CSP: List[Column] = [("PTLIND", 9, -1), ("TILTAN", 9, 2), ("DOSEXX", 9, 2), ("SCANOR", 9, -1)]
_CSP += [("CNFDNC", 9, 2), ("PTLCCX", 9, 2)]
_CSP += [("AXIS", 10, 4), ("NORM0", 10, 4), ("NORM1", 10, 4), ("NORM2", 10, 4)]
_CSP += [(f"MATRIX{index:02d}", 10, 4) for index in range(16)]
_CSP += [("PPSI", 10, 4), ("PTHETA", 10, 4), ("PPHI", 10, 4)]

_CCLIN: List[Column] = [*_V8, ("PRESA", 7, 2), ("DPRESA", 8, 2)]
_FREALIGN: List[Column] = [*_V9, *_SCORES]
_FREALIGNX: List[Column] = [*_V9, ("PSHIFT", 8, 2), *_SCORES]

# 13, 16, 17, 42, 45 and 46 columns.
KINDS: Dict[str, List[Column]] = {
    "cclin": _CCLIN,
    "frealign": _FREALIGN,
    "frealignx": _FREALIGNX,
    "cclin_parx": [*_CCLIN, *_CSP],
    "parx": [*_FREALIGN, *_CSP],
    "frealignx_parx": [*_FREALIGNX, *_CSP],
}


@dataclass
class ParTable:
    """The lines of a .par or .parx: ``columns`` by PYP's names, int64 for NO, FILM, PTLIND and SCANOR, else float64.

    ``kind`` is a key of ``KINDS``; ``header`` holds the comment lines (they begin with C); ``where`` names the file.
    """

    kind: str
    columns: Dict[str, NDArray[Any]]
    header: List[str] = field(default_factory=list)
    where: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    @property
    def extended(self) -> bool:
        """Whether it has CSP's 29 columns."""
        return "PTLIND" in self.columns


def read_par(path: PathLike, numbered: bool = True) -> ParTable:
    """Read a .par or .parx of any kind; ``numbered`` False reads a ``.allparxs``, whose lines lack NO.

    Raises InputError, with line and column, for what is no such file.
    """
    return parse_par(read_bytes(path), os.fspath(path), numbered)


def parse_par(data: bytes, where: str, numbered: bool = True) -> ParTable:
    """The same for bytes that came from ``where``."""
    header: List[str] = []
    lines: List[str] = []
    rows: List[int] = []
    for row, line in enumerate(decode_lines(data, where), 1):
        if line[:1] == "C":
            if not lines:
                header.append(line)
        elif line.strip():
            lines.append(line)
            rows.append(row)
    if not lines:
        raise InputError(f"{where}: no lines of parameters; the file is empty")
    kind = _kind(lines[0], where, rows[0], numbered)
    columns = KINDS[kind] if numbered else KINDS[kind][1:]
    values = _numbers(lines, columns, where, rows)
    table = ParTable(kind, {}, header, where)
    for index, (name, _, decimals) in enumerate(columns):
        table.columns[name] = whole(values[:, index], where, rows, name) if decimals < 0 else values[:, index].copy()
    if not numbered:
        table.columns = {"NO": (np.arange(len(table)) + 1) % NUMBER_MODULUS, **table.columns}
    return table


def _kind(line: str, where: str, row: int, numbered: bool) -> str:
    missing = 0 if numbered else 1
    found = len(line.split())
    for kind, columns in KINDS.items():
        if found == len(columns) - missing:
            return kind
    for kind, columns in KINDS.items():  # values that fill their fields touch: then the width tells
        if len(line.rstrip("\r")) == sum(width for _, width, _ in columns[missing:]):
            return kind
    want = ", ".join(str(len(columns) - missing) for columns in KINDS.values())
    raise InputError(f"{where}: line {row}: {found} columns; a parameter file has {want}")


def _numbers(lines: Sequence[str], columns: Sequence[Column], where: str, rows: Sequence[int]) -> NDArray[np.float64]:
    """``(lines, columns)`` float64."""
    try:  # NumPy's reader first: tables of a data set have millions of numbers
        values = np.loadtxt(lines, dtype=np.float64, comments=None, ndmin=2)
    except ValueError:
        values = np.empty((0, 0))
    if values.shape == (len(lines), len(columns)) and np.all(np.isfinite(values)):
        return values
    values = np.empty((len(lines), len(columns)))
    for index, line in enumerate(lines):
        words = _cut(line, columns)
        if len(words) != len(columns):
            raise InputError(f"{where}: line {rows[index]}: {len(words)} columns, want {len(columns)} as in its first line")
        for place, ((name, _, _), word) in enumerate(zip(columns, words)):
            try:
                values[index, place] = float(word)
            except ValueError:
                values[index, place] = np.nan
            if not np.isfinite(values[index, place]):
                raise InputError(f"{where}: line {rows[index]}: {name} (column {place + 1}) is {word[:40]!r}, want a number")
    return values


def _cut(line: str, columns: Sequence[Column]) -> List[str]:
    """Words between blanks; where these are too few, because values touch, the fixed fields."""
    words = line.split()
    line = line.rstrip("\r")
    if len(words) >= len(columns) or len(line) != sum(width for _, width, _ in columns):
        return words
    words, start = [], 0
    for _, width, _ in columns:
        words.append(line[start : start + width].strip())
        start += width
    return words


def write_par(path: PathLike, table: ParTable, numbered: bool = True) -> None:
    """Write a table in its kind's fixed fields; ``numbered`` False writes a ``.allparxs``: no header and no NO.

    A value too wide for its field loses decimals and never touches its neighbour, so PYP's readers, those that split at
    blanks and those that cut at characters, get the same. NO wraps after seven digits, as in PYP. Raises InputError where
    the file cannot be written, ValueError for a table that its kind cannot hold.
    """
    lines = format_par(table, numbered)
    write_lines(path, lines)


def format_par(table: ParTable, numbered: bool = True) -> List[str]:
    """The lines of ``write_par``. Raises ValueError."""
    columns = KINDS[table.kind] if numbered else KINDS[table.kind][1:]
    missing = [name for name, _, _ in columns if name not in table.columns]
    if missing:
        raise ValueError(f"a table of kind {table.kind} needs the column {missing[0]}")
    if len({len(values) for values in table.columns.values()}) > 1:
        raise ValueError("columns of different lengths")
    texts = []
    for name, width, decimals in columns:
        values = np.asarray(table.columns[name], dtype=np.float64)
        if name == "NO":
            texts.append([f"{int(value) % NUMBER_MODULUS:{width}d}" for value in values.tolist()])
        elif decimals < 0 and np.any(values != np.rint(values)):
            raise ValueError(f"{name} holds whole numbers")
        else:
            texts.append(fields(values, width, max(decimals, 0), name))
    body = ["".join(row) for row in zip(*texts)]
    if not numbered:
        return body
    header = [line if line.startswith("C") else f"C {line}" for line in table.header] or default_header(table.kind)
    return header + body


def default_header(kind: str) -> List[str]:
    """Three comment lines, as PYP has them: what it is, the columns' numbers, their names above their fields."""
    columns = KINDS[kind]
    numbers = "".join(f"{index:{width}d}" for index, (_, width, _) in enumerate(columns, 1))
    names = "".join(f"{name:>{width}}" for name, width, _ in columns)
    return [f"C FREALIGN parameter file ({kind}, {len(columns)} columns)", "C" + numbers[1:], "C" + names[1:]]
