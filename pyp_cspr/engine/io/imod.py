"""IMOD's alignment files: .xf, .tlt, .rawtlt, .xtilt, and the views that tilt.com or newst.com leave out.

``engine/conventions.py``, sentence 15, says what they mean. Angles in degrees, offsets in pixels of the raw stack.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import List, Sequence, Set, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.geometry import exposure_to_imod, imod_to_exposure
from ..errors import InputError
from .mrc import write_aside

PathLike = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Alignment:
    """One line per image of the raw stack."""

    path: str  # of the .xf
    linear: NDArray[np.float64]  # (n, 2, 2) F
    offset: NDArray[np.float64]  # (n, 2) d, pixels
    tilt: NDArray[np.float64]  # (n,) degrees
    xtilt: NDArray[np.float64]  # (n,) degrees
    enabled: NDArray[np.bool_]  # (n,) False: an excluded view

    def __len__(self) -> int:
        return len(self.tilt)

    def geometry(self, pixel: float) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(T_e ``(n, 3, 3)``, b_e ``(n, 2)`` angstrom) for images of ``pixel`` angstrom."""
        return imod_to_exposure(self.linear, self.offset, self.tilt, self.xtilt, pixel)


def has_alignment(stack: PathLike) -> bool:
    """Whether a .xf and a .tlt lie beside a stack."""
    base = os.path.splitext(os.fspath(stack))[0]
    return os.path.exists(base + ".xf") and os.path.exists(base + ".tlt")


def read_alignment(stack: PathLike) -> Alignment:
    """The alignment beside a raw stack ``BASE.mrc`` (or ``.st``): BASE.xf, BASE.tlt, BASE.xtilt, tilt.com and newst.com.

    The .xtilt and the command files may be missing. Raises InputError for missing or wrong files and for
    files of different lengths.
    """
    base = os.path.splitext(os.fspath(stack))[0]
    folder = os.path.dirname(base)
    linear, offset = read_xf(base + ".xf")
    tilt = read_angles(base + ".tlt")
    if len(tilt) != len(linear):
        raise InputError(f"{base}.tlt: {len(tilt)} angles, {base}.xf has {len(linear)} lines; they must be of one alignment")
    xtilt = np.zeros(len(tilt))
    if os.path.exists(base + ".xtilt"):
        xtilt = read_angles(base + ".xtilt")
        if len(xtilt) != len(tilt):
            raise InputError(f"{base}.xtilt: {len(xtilt)} angles, {base}.tlt has {len(tilt)}; they must be of one alignment")
    command = os.path.join(folder, "tilt.com")
    if os.path.exists(command):
        xtilt = xtilt + _xaxis_tilt(command)
    enabled = np.ones(len(tilt), bool)
    for command in (os.path.join(folder, "tilt.com"), os.path.join(folder, "newst.com")):
        if os.path.exists(command):
            views = read_excluded_views(command)
            outside = [view for view in views if view > len(tilt)]
            if outside:
                raise InputError(f"{command}: excludes view {outside[0]} of {len(tilt)}; mend EXCLUDELIST")
            enabled[[view - 1 for view in views]] = False
    return Alignment(base + ".xf", linear, offset, tilt, xtilt, enabled)


def read_xf(path: PathLike) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F ``(n, 2, 2)`` and d ``(n, 2)`` of lines A11 A12 A21 A22 DX DY. Raises InputError."""
    values = _read_numbers(path, 6)
    linear = values[:, :4].reshape(-1, 2, 2)
    with np.errstate(all="ignore"):  # of numbers like 1e300
        flat = np.flatnonzero(~(np.linalg.det(linear) > 1e-6))
    if len(flat):
        raise InputError(f"{os.fspath(path)}: line {flat[0] + 1}: its matrix is singular or mirrored; check the alignment")
    return linear, values[:, 4:]


def read_angles(path: PathLike) -> NDArray[np.float64]:
    """Angles ``(n,)`` of a .tlt, .rawtlt or .xtilt. Raises InputError."""
    return _read_numbers(path, 1)[:, 0]


def read_excluded_views(path: PathLike) -> List[int]:
    """Views, counted from 1 in the raw stack, of EXCLUDELIST, EXCLUDELIST2 (tilt.com) or ExcludeSections (counted from 0).

    Lists are comma separated with ranges, as ``3,7-9``. Raises InputError.
    """
    views: Set[int] = set()
    for number, line in enumerate(_read_lines(path), 1):
        match = re.match(r"\s*(EXCLUDELIST2?|ExcludeSections)\s+(.*)", line, re.IGNORECASE)
        if match:
            first = 0 if match.group(1).lower() == "excludesections" else 1
            for text in re.split(r"[,\s]+", match.group(2).strip()):
                span = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
                if span is None or int(span.group(1)) < first:
                    raise InputError(f"{os.fspath(path)}: line {number}: {text!r} is no view; want a list as 3,7-9")
                low, high = int(span.group(1)), int(span.group(2) or span.group(1))
                if high - low > 100_000:
                    raise InputError(f"{os.fspath(path)}: line {number}: {text!r} is too long a list of views")
                views.update(range(low + 1 - first, high + 2 - first))
    return sorted(views)


def _xaxis_tilt(path: str) -> float:
    """XAXISTILT of a tilt.com: a rotation of the whole specimen about x, on top of the .xtilt."""
    for number, line in enumerate(_read_lines(path), 1):
        words = line.split()
        if len(words) >= 2 and words[0].upper() == "XAXISTILT":
            try:
                return float(words[1])
            except ValueError:
                raise InputError(f"{path}: line {number}: XAXISTILT {words[1]!r}, want a number") from None
    return 0.0


def write_alignment(base: PathLike, rotation: ArrayLike, shift: ArrayLike, pixel: float) -> None:
    """Write BASE.xf, BASE.tlt and BASE.xtilt of T_e ``(n, 3, 3)`` and b_e ``(n, 2)`` in angstrom.

    More digits than IMOD writes, which IMOD reads all the same. Raises InputError where the folder cannot be written.
    """
    linear, offset, tilt, xtilt = exposure_to_imod(rotation, shift, pixel)
    name = os.fspath(base)
    write_xf(name + ".xf", linear, offset)
    write_angles(name + ".tlt", tilt)
    write_angles(name + ".xtilt", xtilt)


def write_xf(path: PathLike, linear: ArrayLike, offset: ArrayLike) -> None:
    """Write F ``(n, 2, 2)`` and d ``(n, 2)`` pixels. Raises InputError where the file cannot be written."""
    rows = np.concatenate([np.reshape(linear, (-1, 4)), np.reshape(offset, (-1, 2))], axis=1)
    _write_lines(path, [" ".join(f"{value:14.9f}" for value in row) for row in rows])


def write_angles(path: PathLike, angles: ArrayLike) -> None:
    """Write a .tlt, .rawtlt or .xtilt. Raises InputError where the file cannot be written."""
    _write_lines(path, [f"{angle:12.7f}" for angle in np.asarray(angles, dtype=float)])


def _read_lines(path: PathLike) -> List[str]:
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8", errors="strict") as file:
            return file.read().splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{name}: not a text file; want a file of IMOD") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}; check the path") from None


def _read_numbers(path: PathLike, width: int) -> NDArray[np.float64]:
    name = os.fspath(path)
    rows = []
    for number, line in enumerate(_read_lines(path), 1):
        words = line.split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != width or not np.all(np.isfinite(row)):
            raise InputError(f"{name}: line {number}: {line.strip()[:60]!r}, want {width} number{'s' if width > 1 else ''}")
        rows.append(row)
    if not rows:
        raise InputError(f"{name}: no numbers; the file is empty")
    return np.array(rows)


def _write_lines(path: PathLike, lines: Sequence[str]) -> None:
    def write(temporary: str) -> None:
        with open(temporary, "w", encoding="ascii", newline="\n") as file:
            file.write("".join(line + "\n" for line in lines))

    write_aside(path, write)
