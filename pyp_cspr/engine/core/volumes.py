"""Transforms of real cubes and back, by our own kernels where the size allows it and else by scipy, with the same result.

A cube of N pixels is padded with zeros to P: its pixel 0 is pixel P // 2 - N // 2 of the padded one. Only frequencies that are
asked for are kept, and no padded cube is ever held. Sums are plain and about pixel 0 of the padded cube; an inverse transform
is divided by P^3.
"""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from ._jit import run_ranges
from .fourier_kernels import LANES
from .passes import Passes, passes_of

Index = NDArray[np.int64]


def forward(volume: NDArray, padded: int, index: Index, width: int, threads: int = 1) -> NDArray[np.complex64]:
    """Transform of a cube ``(N, N, N)`` at the frequencies ``index`` (0 to P - 1) of z and y, and 0 to ``width`` - 1 of x.

    ``(len(index), len(index), width)``, ``width`` at most P // 2 + 1.
    """
    from . import volume_kernels as kernels

    cube = np.ascontiguousarray(volume, dtype=np.float32)
    passes = _passes(len(cube), padded)
    if passes is None:
        return _forward_by_scipy(cube, padded, index, width, threads)
    box, first, index = len(cube), padded // 2 - len(cube) // 2, np.ascontiguousarray(index, dtype=np.int64)
    planes = np.empty((box, len(index), 2, -(-width // LANES) * LANES), np.float32)
    spectrum = np.empty((len(index), len(index), width), np.complex64)
    parts = spectrum.view(np.float32)

    def along_x_and_y(start: int, stop: int) -> None:
        rows = np.zeros((box, *planes.shape[2:]), np.float32)
        kernels.forward_planes(cube, planes, index, first, *_scratch(padded), rows, *passes, start, stop)

    def along_z(start: int, stop: int) -> None:
        column = np.empty((box, *planes.shape[2:]), np.float32)
        kernels.forward_columns(planes, parts, index, first, *_scratch(padded), column, *passes, start, stop)

    run_ranges(along_x_and_y, box, threads)
    run_ranges(along_z, len(index), threads)
    return spectrum


class Inverse:
    """A cube of N pixels from its transform, which comes some rows of y at a time.

    ``padded`` P; ``index`` are the frequencies of y that there are, and in x there are 0 to ``width`` - 1.
    """

    def __init__(self, box: int, padded: int, index: Index, width: int, threads: int = 1) -> None:
        self.box, self.padded, self.width, self.threads = box, padded, width, threads
        self.index = np.ascontiguousarray(index, dtype=np.int64)
        self._passes = _passes(box, padded)
        self._first = padded // 2 - box // 2
        if self._passes is None:
            self._planes: Any = np.empty((box, len(index), width), np.complex64)
        else:
            self._planes = np.empty((box, len(index), 2, -(-width // LANES) * LANES), np.float32)

    def add(self, rows: NDArray[np.complex64], low: int, index: Index) -> None:
        """The transform ``(len(index), n, width)`` of rows ``low`` to ``low`` + n of y, at the frequencies ``index`` of z."""
        from . import volume_kernels as kernels

        rows, index = np.ascontiguousarray(rows, dtype=np.complex64), np.ascontiguousarray(index, dtype=np.int64)
        passes = self._passes
        if passes is None:
            self._planes[:, low : low + rows.shape[1]] = self._inverse_along(rows, 0, index)
            return
        parts = rows.view(np.float32)

        def along_z(start: int, stop: int) -> None:
            kernels.inverse_columns(parts, self._planes, low, index, self._first, *_scratch(self.padded), *passes, start, stop)

        run_ranges(along_z, rows.shape[1], self.threads)

    def finish(self) -> NDArray[np.float32]:
        """The cube ``(N, N, N)``."""
        from . import volume_kernels as kernels

        box, padded, passes = self.box, self.padded, self._passes
        if passes is None:
            return self._finish_by_scipy()
        volume = np.empty((box, box, box), np.float32)
        scale = np.float32(1.0 / float(padded) ** 3)

        def along_y_and_x(start: int, stop: int) -> None:
            rows = np.zeros((box, *self._planes.shape[2:]), np.float32)
            full = np.zeros(2 * padded * LANES, np.float32)
            kernels.inverse_planes(self._planes, volume, self.index, self._first, scale, *_scratch(padded), rows, full,
                                   *passes, start, stop)

        run_ranges(along_y_and_x, box, self.threads)
        return volume

    def _finish_by_scipy(self) -> NDArray[np.float32]:
        import scipy.fft

        planes = self._inverse_along(self._planes, 1, self.index)
        cube = scipy.fft.irfft(planes, n=self.padded, axis=2, workers=self.threads)
        return np.ascontiguousarray(cube[:, :, self._first : self._first + self.box], dtype=np.float32)

    def _inverse_along(self, values: NDArray, axis: int, index: Index) -> NDArray[np.complex64]:
        import scipy.fft

        shape = list(values.shape)
        shape[axis] = self.padded
        wide, place = np.zeros(shape, np.complex64), [slice(None)] * 3
        wide[_at(place, axis, index)] = values
        cube = scipy.fft.ifft(wide, axis=axis, overwrite_x=True, workers=self.threads)
        return np.asarray(cube[_at(place, axis, slice(self._first, self._first + self.box))])


def _passes(box: int, padded: int) -> Optional[Passes]:
    return None if box % 2 or box < 2 * LANES else passes_of(padded)


def _scratch(padded: int) -> Tuple[NDArray[np.float32], ...]:
    """(line, out, one, two) of the kernels; ``line`` is zeros."""
    line = np.zeros(2 * padded * LANES, np.float32)
    return (line, *np.empty((3, line.size), np.float32))


def _forward_by_scipy(cube: NDArray, padded: int, index: Index, width: int, threads: int) -> NDArray[np.complex64]:
    import scipy.fft

    box, first = len(cube), padded // 2 - len(cube) // 2

    def along(values: NDArray, axis: int, transform: Callable) -> NDArray:
        if box < padded:
            shape = list(values.shape)
            shape[axis] = padded
            wide = np.zeros(shape, values.dtype)
            wide[_at([slice(None)] * 3, axis, slice(first, first + box))] = values
            values = wide
        return np.asarray(transform(values, axis=axis, workers=threads))

    part = along(cube, 2, scipy.fft.rfft)[:, :, :width]
    part = along(part, 1, scipy.fft.fft).take(index, axis=1)
    return np.ascontiguousarray(along(part, 0, scipy.fft.fft).take(index, axis=0), dtype=np.complex64)


def _at(place: List[Any], axis: int, what: Any) -> Tuple[Any, ...]:
    return tuple(what if i == axis else one for i, one in enumerate(place))
