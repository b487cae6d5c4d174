"""The text files beside PYP's maps: ``_fsc.txt``, ``_statistics.txt``, and exposure scores (``global_weight.txt``).

Sources: cisTEM's resolution_statistics for the statistics, PYP's plots and postprocess modules for the others, restated in our
own words.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import List, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .text import PathLike, number, read_lines, write_lines

FIRST_ITERATION = 2  # PYP's first refinement; the first column of curves
STATISTICS = ("SHELL", "RESOLUTION", "RING_RADIUS", "FSC", "Part_FSC", "Part_SSNR^0.5", "Rec_SSNR^0.5")
UNKNOWN_SCORE = -1.0
LARGEST = 1e9  # of a resolution in angstrom or a root of a signal-to-noise ratio


@dataclass
class FscTable:
    """``_rCC_fsc.txt``: ``fsc[:, j]`` is the curve of iteration ``j + 2``; an iteration that was not run is all 0."""

    resolution: NDArray[np.float64]  # (shells,) angstrom
    fsc: NDArray[np.float64]  # (shells, iterations)

    def curve(self, iteration: int) -> NDArray[np.float64]:
        """The FSC of an iteration, counted as PYP does, from 2. Raises ValueError where there is none."""
        if not FIRST_ITERATION <= iteration < FIRST_ITERATION + self.fsc.shape[1]:
            raise ValueError(f"no iteration {iteration}: {self.fsc.shape[1]} from {FIRST_ITERATION} on")
        return self.fsc[:, iteration - FIRST_ITERATION]

    def with_curve(self, iteration: int, curve: ArrayLike) -> FscTable:
        """This table with the FSC of one more iteration, or with another for one it has."""
        if iteration < FIRST_ITERATION or np.shape(curve) != self.resolution.shape:
            raise ValueError(f"iteration {iteration}: a curve of {np.shape(curve)} for {self.resolution.shape} shells")
        fsc = np.zeros((len(self.resolution), max(self.fsc.shape[1], iteration - FIRST_ITERATION + 1)))
        fsc[:, : self.fsc.shape[1]] = self.fsc
        fsc[:, iteration - FIRST_ITERATION] = curve
        return FscTable(self.resolution, fsc)


def read_fsc(path: PathLike) -> FscTable:
    """Read ``_rCC_fsc.txt``: resolution, then one column for each iteration from 2 on. Raises InputError."""
    values = _read_table(path, ("resolution", "FSC"))
    bad = np.flatnonzero(values[:, 0] <= 0)
    if len(bad):
        raise InputError(f"{os.fspath(path)}: row {bad[0] + 1}: resolution is {values[bad[0], 0]:g}, want angstrom above 0")
    return FscTable(values[:, 0].copy(), values[:, 1:].copy())


def write_fsc(path: PathLike, table: FscTable) -> None:
    """Write ``_rCC_fsc.txt``. Raises InputError where it cannot be written."""
    rows = np.concatenate([np.reshape(table.resolution, (-1, 1)), table.fsc], axis=1)
    write_lines(path, [" ".join(f"{value:14.6f}" for value in row) for row in rows])


@dataclass
class Statistics:
    """``_rCC_II_statistics.txt``: one row for each shell of the map's transform from the first, ``shell`` being 1, to Nyquist.

    The file counts the shell of the origin as number 1 and holds square roots of both SSNR; here ``part_ssnr`` and
    ``rec_ssnr`` are the ratios themselves.
    """

    shell: NDArray[np.int64]  # (shells,) from 1: cycles per box
    resolution: NDArray[np.float64]  # angstrom
    radius: NDArray[np.float64]  # cycles per pixel
    fsc: NDArray[np.float64]
    part_fsc: NDArray[np.float64]  # corrected for the part of the box that the particle fills
    part_ssnr: NDArray[np.float64]  # of the particle in a projection
    rec_ssnr: NDArray[np.float64]  # of the map

    @property
    def pixel(self) -> float:
        """Pixel of the map in angstrom, from resolution and radius."""
        return float(np.median(self.resolution * self.radius))


def new_statistics(
    pixel: float, box: int, fsc: ArrayLike, part_fsc: ArrayLike, part_ssnr: ArrayLike, rec_ssnr: ArrayLike
) -> Statistics:
    """Statistics of shells 1 to ``box // 2`` of a map of ``box`` pixels of ``pixel`` angstrom."""
    shell = np.arange(1, box // 2 + 1)
    curves = [np.asarray(curve, dtype=np.float64) for curve in (fsc, part_fsc, part_ssnr, rec_ssnr)]
    if any(curve.shape != shell.shape for curve in curves):
        raise ValueError(f"curves of {[curve.shape for curve in curves]}, want {shell.shape}")
    return Statistics(shell, pixel * box / shell, shell / box, *curves)


def read_statistics(path: PathLike) -> Statistics:
    """Read ``_rCC_II_statistics.txt``. Raises InputError, also where shells, resolutions and radii are not of one map."""
    name = os.fspath(path)
    values = _read_table(path, STATISTICS)
    shell = values[:, 0] - 1
    resolution, radius = values[:, 1], values[:, 2]
    for column, bad in (
        ("SHELL", (shell < 1) | (shell != np.rint(shell)) | (shell > 1e6)),
        ("RESOLUTION", (resolution <= 0) | (resolution > LARGEST)),
        ("RING_RADIUS", (radius <= 0) | (radius > 1)),
        ("Part_SSNR^0.5", (values[:, 5] < 0) | (values[:, 5] > LARGEST)),
        ("Rec_SSNR^0.5", (values[:, 6] < 0) | (values[:, 6] > LARGEST)),
    ):
        if np.any(bad):
            row = int(np.flatnonzero(bad)[0])
            value = values[row, STATISTICS.index(column)]
            raise InputError(f"{name}: row {row + 1}: {column} is {value:g}; the file is damaged")
    if len(shell) > 1 and np.any(np.diff(shell) != 1):
        raise InputError(f"{name}: SHELL does not count by one; lines are missing or come twice")
    field = resolution * shell  # pixel x box
    if np.any(np.abs(field / np.median(field) - 1) > 0.01):
        row = int(np.argmax(np.abs(field / np.median(field) - 1)))
        raise InputError(f"{name}: row {row + 1}: RESOLUTION is {resolution[row]:g}, not that of its SHELL; file damaged")
    return Statistics(shell.astype(np.int64), resolution.copy(), radius.copy(), values[:, 3].copy(), values[:, 4].copy(),
                      np.square(values[:, 5]), np.square(values[:, 6]))


def write_statistics(path: PathLike, statistics: Statistics) -> None:
    """Write ``_rCC_II_statistics.txt`` in cisTEM's layout. Raises InputError where it cannot be written."""
    lines = ["C" + "".join(f"{name:>14} " for name in STATISTICS).rstrip()[1:]]
    columns: Sequence[NDArray] = (statistics.shell + 1, statistics.resolution, statistics.radius, statistics.fsc,
                                  statistics.part_fsc, np.sqrt(statistics.part_ssnr), np.sqrt(statistics.rec_ssnr))
    lines += [" ".join(f"{value:14.5f}" for value in row) for row in zip(*columns)]
    write_lines(path, lines)


def read_exposure_scores(path: PathLike) -> NDArray[np.float64]:
    """``weights/global_weight.txt``: mean score of exposure f of the data set on line f + 1, ``(n,)``; -1 where unknown.

    Raises InputError.
    """
    values = _read_table(path, ("score",))
    if values.shape[1] != 1:
        raise InputError(f"{os.fspath(path)}: {values.shape[1]} columns, want one score a line")
    return values[:, 0].copy()


def write_exposure_scores(path: PathLike, scores: ArrayLike) -> None:
    """Write scores ``(n,)``; what is not finite is written as unknown, -1. Raises InputError where it cannot be written."""
    values = np.asarray(scores, dtype=np.float64)
    write_lines(path, [f"{value if np.isfinite(value) else UNKNOWN_SCORE:.6f}" for value in values])


def _read_table(path: PathLike, columns: Sequence[str]) -> NDArray[np.float64]:
    """``(rows, columns)``; lines that begin with C or # are comments; the last of two ``columns`` may repeat."""
    name = os.fspath(path)
    rows: List[List[float]] = []
    for row, line in enumerate(read_lines(path), 1):
        words = line.split()
        if not words or words[0][0] in "C#":
            continue
        want = len(rows[0]) if rows else len(columns)
        if len(words) != want and (rows or len(columns) != 2 or len(words) < 2):
            raise InputError(f"{name}: line {row}: {len(words)} columns, want {want}")
        rows.append([number(word, name, row, columns[min(place, len(columns) - 1)]) for place, word in enumerate(words)])
    if not rows:
        raise InputError(f"{name}: no numbers; the file is empty")
    return np.array(rows)
