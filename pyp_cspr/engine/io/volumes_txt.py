"""PYP's tables of sub-volumes (``*_original_volumes.txt``) and the coordinates that belong to them.

33 columns, at best with tabs between them: number, missing wedge (2), position (3), box size (3), normal (3), matrix (16, row
major, 4 x 4), magnification (3), a score, file name. The file name is the key: it names the series, the virion and the spike.
The same table with positions in the virion's box is a ``_virNNNN_cut.txt``.

Units: degrees; position, box and the matrix's translation in pixels of the sub-volume. The normal's three angles are rotations
about x, then the last and the first z of the chain (``pyp_geometry.py``).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import List, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .text import PathLike, number, read_lines, whole, write_lines

COLUMNS = (
    ["number", "lwedge", "uwedge", "posX", "posY", "posZ", "geomX", "geomY", "geomZ", "normalX", "normalY", "normalZ"]
    + [f"matrix[{index}]" for index in range(16)]
    + ["magnification[0]", "magnification[1]", "magnification[2]", "cutOffset", "filename"]
)
NAME = re.compile(r"(?P<series>.+?)(?:_vir(?P<virion>\d{4,9}))?_spk(?P<spike>\d{4,9})\.(?:mrc|rec)")


@dataclass
class VolumesTable:
    """One row for each sub-volume, n of them. ``score`` is the file's column cutOffset: PYP keeps a correlation score there,
    and it is never an offset.
    """

    number: NDArray[np.int64]  # (n,) from 1
    wedge: NDArray[np.float64]  # (n, 2) lowest and highest tilt angle, degrees
    position: NDArray[np.float64]  # (n, 3) x, y, z of the centre in its box, pixels
    box: NDArray[np.float64]  # (n, 3) pixels
    normal: NDArray[np.float64]  # (n, 3) degrees
    matrix: NDArray[np.float64]  # (n, 4, 4); translation matrix[:, :3, 3] in pixels
    magnification: NDArray[np.float64]  # (n, 3)
    score: NDArray[np.float64]  # (n,)
    filename: List[str] = field(default_factory=list)
    where: str = ""

    def __len__(self) -> int:
        return len(self.number)

    def keys(self) -> List[Tuple[str, int, int]]:
        """(series, virion, spike) of each row, virion -1 where there is none. Raises InputError for other file names."""
        return [parse_name(name, f"{self.where}: row {row + 1}") for row, name in enumerate(self.filename)]


def parse_name(filename: str, where: str) -> Tuple[str, int, int]:
    """(series, virion, spike) of ``SERIES_virNNNN_spkNNNN.mrc``, or (series, -1, spike) of ``SERIES_spkNNNN.rec``.

    Numbers count from 0. Raises InputError.
    """
    match = NAME.fullmatch(filename.replace("\\", "/").rsplit("/", 1)[-1])
    if match is None:
        raise InputError(f"{where}: filename is {filename[:60]!r}, want SERIES_virNNNN_spkNNNN.mrc or SERIES_spkNNNN.rec")
    virion = match.group("virion")
    return match.group("series"), -1 if virion is None else int(virion), int(match.group("spike"))


def new_volumes(count: int) -> VolumesTable:
    """Rows numbered from 1 with identity matrices, magnification 1, all else 0 and without names."""
    zeros = [np.zeros((count, 3)) for _ in range(3)]
    matrix = np.tile(np.eye(4), (count, 1, 1))
    return VolumesTable(np.arange(count) + 1, np.zeros((count, 2)), zeros[0], zeros[1], zeros[2], matrix,
                        np.ones((count, 3)), np.zeros(count), [""] * count)


def read_volumes(path: PathLike) -> VolumesTable:
    """Read a table of sub-volumes, with or without its header line; n may be 0.

    Raises InputError, with line and column, for missing or wrong values and for a last matrix row that is not 0 0 0 1.
    """
    name = os.fspath(path)
    rows, values, files = [], [], []
    for row, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.lstrip().startswith("number"):
            continue
        words = _split(line)
        if len(words) != len(COLUMNS):
            raise InputError(f"{name}: line {row}: {len(words)} columns, want {len(COLUMNS)}")
        values.append([number(word, name, row, column) for word, column in zip(words[:-1], COLUMNS)])
        files.append(words[-1].strip())
        rows.append(row)
    table = np.array(values).reshape(-1, len(COLUMNS) - 1)
    matrix = table[:, 12:28].reshape(-1, 4, 4).copy()
    bad = np.flatnonzero(np.any(matrix[:, 3] != (0, 0, 0, 1), axis=1))
    if len(bad):
        raise InputError(f"{name}: line {rows[bad[0]]}: matrix[12] to [15] are not 0 0 0 1; the matrix is row by row")
    parts = [table[:, first:last].copy() for first, last in ((1, 3), (3, 6), (6, 9), (9, 12), (28, 31))]
    numbers = whole(table[:, 0], name, rows, "number")
    return VolumesTable(numbers, parts[0], parts[1], parts[2], parts[3], matrix, parts[4], table[:, 31].copy(), files, name)


def _split(line: str) -> List[str]:
    """The words between tabs, where there are tabs: a file name may hold blanks."""
    words = line.split("\t")
    if any(len(word.split()) > 1 for word in words[:-1]) or len(words) == 1:
        return line.split(None, len(COLUMNS) - 1)
    return words


def write_volumes(path: PathLike, table: VolumesTable) -> None:
    """Write a table of sub-volumes with its header, tabs between the columns.

    Numbers are written so that reading gives the same float64. Raises InputError where the file cannot be written, ValueError
    for parts of different lengths or a file name with a tab or a line end.
    """
    count = len(table)
    parts = [table.wedge, table.position, table.box, table.normal, table.matrix, table.magnification, table.score]
    if any(len(part) != count for part in parts) or len(table.filename) != count:
        raise ValueError("parts of different lengths")
    widths = (2, 3, 3, 3, 16, 3, 1)
    values = np.concatenate([np.reshape(part, (count, width)) for part, width in zip(parts, widths)], axis=1)
    lines = ["\t".join(COLUMNS)]
    for index, row, filename in zip(table.number, values, table.filename):
        if not filename.strip() or re.search(r"[\t\r\n]", filename) or not np.all(np.isfinite(row)):
            raise ValueError(f"row {index}: filename {filename!r} or a number cannot be written")
        lines.append("\t".join([str(int(index)), *(plain(value) for value in row), filename]))
    write_lines(path, lines)


def plain(value: float) -> str:
    """The shortest text that reads back as the same float64; whole numbers without a point."""
    value = float(value) + 0.0  # no -0
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def read_coordinates(path: PathLike) -> NDArray[np.float64]:
    """Points as text, ``(n, 3)`` x y z or ``(n, 4)`` x y z radius: what IMOD's model2point writes, and PYP's box table.

    n may be 0. Raises InputError.
    """
    name = os.fspath(path)
    values: List[List[float]] = []
    for row, line in enumerate(read_lines(path), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) not in (3, 4) or (values and len(words) != len(values[0])):
            want = len(values[0]) if values else "3 or 4"
            raise InputError(f"{name}: line {row}: {len(words)} columns, want {want}: x y z and perhaps a radius")
        values.append([number(word, name, row, column) for word, column in zip(words, ("x", "y", "z", "radius"))])
    return np.array(values) if values else np.empty((0, 3))


def write_coordinates(path: PathLike, points: ArrayLike) -> None:
    """Write points ``(n, 3)`` or ``(n, 4)``. Raises InputError where the file cannot be written."""
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] not in (3, 4) or not np.all(np.isfinite(array)):
        raise ValueError(f"points {array.shape}, want finite (n, 3) or (n, 4)")
    write_lines(path, ["\t".join(plain(value) for value in row) for row in array])
