"""Lines of numbers, as PYP, FREALIGN and cisTEM write them: read with the file, row and column in every message."""

from __future__ import annotations

import math
import os
from typing import Iterable, List, Sequence, Union

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .mrc import write_aside

PathLike = Union[str, "os.PathLike[str]"]

LARGEST_INTEGER = 2**53  # beyond it a float64 is no longer a certain whole number


def read_bytes(path: PathLike) -> bytes:
    """The whole file. Raises InputError where it cannot be read."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}; check the path") from None


def read_lines(path: PathLike) -> List[str]:
    """Lines without their ends. Raises InputError where the file cannot be read or is not text."""
    return decode_lines(read_bytes(path), os.fspath(path))


def decode_lines(data: bytes, where: str) -> List[str]:
    """The same for bytes that came from ``where``."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: byte {error.start}: not a text file; give the file itself, not packed") from None
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines and not lines[-1] else lines


def write_lines(path: PathLike, lines: Iterable[str]) -> None:
    """Write lines; the file appears whole or not at all. Raises InputError where it cannot be written."""
    text = "".join(line + "\n" for line in lines)

    def write(temporary: str) -> None:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)

    write_aside(path, write)


def number(text: str, where: str, row: int, column: str) -> float:
    """A finite number. ``row`` counts lines of the file from 1. Raises InputError."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(f"{where}: line {row}: {column} is {text[:40]!r}, want a number")
    return value


def integer(text: str, where: str, row: int, column: str) -> int:
    """A whole number, which may be written as ``3.00``. Raises InputError."""
    value = number(text, where, row, column)
    if value != int(value) or abs(value) > LARGEST_INTEGER:
        raise InputError(f"{where}: line {row}: {column} is {text[:40]!r}, want a whole number")
    return int(value)


def whole(values: NDArray[np.float64], where: str, rows: Sequence[int], column: str) -> NDArray[np.int64]:
    """A column of numbers as int64. ``rows``: lines of the file from 1. Raises InputError."""
    bad = np.flatnonzero((values != np.rint(values)) | (np.abs(values) > LARGEST_INTEGER))
    if len(bad):
        raise InputError(f"{where}: line {rows[bad[0]]}: {column} is {values[bad[0]]:g}, want a whole number")
    return values.astype(np.int64)


def field(value: float, width: int, decimals: int, where: str) -> str:
    """A number in a fixed field, right-justified. What does not fit loses decimals, then is refused (ValueError).

    The first character stays blank, so that readers that split at blanks and readers that cut at characters agree.
    """
    if not np.isfinite(value):
        raise ValueError(f"{where}: {value}, want a finite number")
    for kept in range(decimals, -1, -1):
        text = f"{value:{width}.{kept}f}"
        if len(text) == width and text[0] == " ":
            return text
    raise ValueError(f"{where}: {value:g} does not fit into {width} characters")


def fields(values: NDArray[np.float64], width: int, decimals: int, what: str) -> List[str]:
    """``field`` of a whole column. Raises ValueError that names the row."""
    form = f"%{width}.{decimals}f"
    texts = []
    for row, value in enumerate(values.tolist()):
        text = form % value
        if len(text) != width or text[0] != " " or not math.isfinite(value):
            text = field(value, width, decimals, f"row {row + 1}: {what}")
        texts.append(text)
    return texts
