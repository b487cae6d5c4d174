"""PYP's lists beside the parameter tables: crop centres (.allboxes), particles (_boxes3d.txt), series (.films, .micrographs).

Crop centres are in unbinned pixels of the raw image, from its corner; particles' positions in unbinned pixels of PYP's specimen
frame.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import List, Sequence, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .text import PathLike, integer, number, read_lines, write_lines

LONGEST_NAME = 200  # bytes of a series' name: file systems end at 255, and files have endings
BOXES3D = ("PTLIDX", "X", "Y", "Z", "Score", "Keep_CSP")


@dataclass
class AllBoxes:
    """One row for each projection, in the order of the series' parameter lines."""

    centre: NDArray[np.int64]  # (n, 2) x, y: PYP rounds crop centres down
    tilt: NDArray[np.int64]  # (n,) slice of the series, from 0
    frame: Union[NDArray[np.int64], None] = None  # (n,) movie frame, from 0; None: no frames

    def __len__(self) -> int:
        return len(self.tilt)


def floor_centres(centre: ArrayLike) -> Tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(crop centre, rest) of exact centres ``(n, 2)`` in pixels: rounded down, as PYP crops, and what that leaves, 0 to 1.

    The particle is at crop centre + rest. PYP loses the rest; whoever writes .allboxes has to keep it in the shifts.
    """
    exact = np.asarray(centre, dtype=np.float64)
    floor = np.floor(exact)
    return floor.astype(np.int64), exact - floor


def read_allboxes(path: PathLike) -> AllBoxes:
    """Read ``.allboxes``: x y tilt, or x y tilt frame; n may be 0. Raises InputError."""
    name = os.fspath(path)
    columns = ("x", "y", "tilt", "frame")
    rows: List[List[int]] = []
    for row, line in enumerate(read_lines(path), 1):
        words = line.split()
        if not words:
            continue
        if len(words) not in (3, 4) or (rows and len(words) != len(rows[0])):
            raise InputError(f"{name}: line {row}: {len(words)} columns, want {len(rows[0]) if rows else '3 or 4'}")
        rows.append([integer(word, name, row, column) for word, column in zip(words, columns)])
        negative = [column for column, value in zip(columns[2:], rows[-1][2:]) if value < 0]
        if negative:
            raise InputError(f"{name}: line {row}: {negative[0]} is below 0; it counts from 0")
    values = np.array(rows, dtype=np.int64) if rows else np.empty((0, 3), np.int64)
    return AllBoxes(values[:, :2].copy(), values[:, 2].copy(), values[:, 3].copy() if values.shape[1] == 4 else None)


def write_allboxes(path: PathLike, boxes: AllBoxes) -> None:
    """Write ``.allboxes``. Raises InputError where it cannot be written, ValueError for centres that are not whole."""
    parts = [np.reshape(boxes.centre, (-1, 2)), np.reshape(boxes.tilt, (-1, 1))]
    if boxes.frame is not None:
        parts.append(np.reshape(boxes.frame, (-1, 1)))
    values = np.concatenate(parts, axis=1)
    if np.any(values != np.rint(values)):
        raise ValueError("crop centres are whole pixels; floor_centres() divides exact ones")
    write_lines(path, [" ".join(str(int(value)) for value in row) for row in values])


@dataclass
class Boxes3d:
    """Particles of a series: ``index`` counts over all picked positions from 0, as PIND and PTLIND."""

    index: NDArray[np.int64]  # (n,)
    position: NDArray[np.float64]  # (n, 3) unbinned pixels, PYP's specimen frame
    score: NDArray[np.float64]  # (n,)
    keep: NDArray[np.bool_]  # (n,)

    def __len__(self) -> int:
        return len(self.index)


def read_boxes3d(path: PathLike) -> Boxes3d:
    """Read ``_boxes3d.txt``; n may be 0. Raises InputError, also for an index that comes twice or is below 0."""
    name = os.fspath(path)
    index: List[int] = []
    values: List[List[float]] = []
    keep: List[bool] = []
    seen = set()
    for row, line in enumerate(read_lines(path), 1):
        words = line.split()
        if not words or words[0] == BOXES3D[0]:
            continue
        if len(words) != len(BOXES3D):
            raise InputError(f"{name}: line {row}: {len(words)} columns, want {' '.join(BOXES3D)}")
        index.append(integer(words[0], name, row, BOXES3D[0]))
        if index[-1] < 0:
            raise InputError(f"{name}: line {row}: PTLIDX is below 0; it counts from 0")
        if index[-1] in seen:
            raise InputError(f"{name}: line {row}: PTLIDX {index[-1]} a second time; remove one of the lines")
        seen.add(index[-1])
        values.append([number(word, name, row, column) for word, column in zip(words[1:5], BOXES3D[1:5])])
        if words[5].lower() not in ("yes", "no"):
            raise InputError(f"{name}: line {row}: Keep_CSP is {words[5][:40]!r}, want Yes or No")
        keep.append(words[5].lower() == "yes")
    table = np.array(values).reshape(-1, 4)
    return Boxes3d(np.array(index, dtype=np.int64), table[:, :3].copy(), table[:, 3].copy(), np.array(keep, dtype=bool))


def write_boxes3d(path: PathLike, boxes: Boxes3d) -> None:
    """Write ``_boxes3d.txt``: PYP's format keeps a tenth of a pixel. Raises InputError where it cannot be written."""
    lines = ["\t".join(f"{name:>8}" for name in BOXES3D)]
    for index, (x, y, z), score, keep in zip(boxes.index, boxes.position, boxes.score, boxes.keep):
        lines.append(f"{int(index):8d}\t{x:8.1f}\t{y:8.1f}\t{z:8.1f}\t{score:8.2f}\t{'Yes' if keep else 'No':>8}")
    write_lines(path, lines)


def read_names(path: PathLike) -> List[str]:
    """Names of series, one a line, of ``.films`` or ``.micrographs``: FILM counts these lines from 0.

    Raises InputError for a name that comes twice or that is no file name (with a folder in it).
    """
    name = os.fspath(path)
    names: List[str] = []
    seen = set()
    for row, line in enumerate(read_lines(path), 1):
        text = line.strip()
        if not text:
            continue
        if not is_name(text):
            raise InputError(f"{name}: line {row}: {text[:60]!r} is not the name of a series; give names without folders")
        if text in seen:
            raise InputError(f"{name}: line {row}: {text[:60]!r} a second time; the lines number the series: remove one")
        seen.add(text)
        names.append(text)
    if not names:
        raise InputError(f"{name}: no names of series; the file is empty")
    return names


def is_name(text: str) -> bool:
    """Whether ``text`` can be part of a file's name and stays in its folder."""
    short = len(text.encode("utf-8", "replace")) <= LONGEST_NAME
    return short and bool(text.strip()) and not any(mark in text for mark in "/\\\0\r\n") and text not in (".", "..")


def write_names(path: PathLike, names: Sequence[str]) -> None:
    """Write ``.films`` or ``.micrographs``. Raises InputError where it cannot be written, ValueError for what is no name."""
    bad = [name for name in names if not is_name(name) or name != name.strip()]
    if bad or len(set(names)) != len(names):
        raise ValueError(f"{bad[0]!r} is no name" if bad else "a name comes twice")
    write_lines(path, names)
