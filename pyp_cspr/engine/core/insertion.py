"""Central slices into a map's numerator and denominator: the transpose of the trilinear interpolation of ``projection.py``."""

from __future__ import annotations

import threading
from functools import partial
from typing import List, Optional, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import run_ranges
from .band import Band
from .fourier import complete_plane, half_extent, padded_box

_SLABS_PER_BLOCK = 4
_RECORD = 24  # bytes
_LEAST_ROOM, _MOST_ROOM = 2**26, 2**28  # bytes of the records of slices that wait, see _room
_NUMBERS = np.dtype([("numerator", np.complex128), ("denominator", np.float64)])

_workspace = threading.local()


class Accumulator:
    """Sums of weighted slices on a padded Fourier grid, float64.

    ``box`` (even) pixels of the map; the grid has ``padded`` = the even number nearest ``box * padding`` points per axis;
    ``radius`` unpadded Fourier pixels is as far as samples may lie. The sums are a half cube (see ``fourier.py``) of extent
    r = ceil(radius * padded / box) + 1.

    Slices wait until there are enough of them that a plane of the sums, once fetched into the processor's cache, is used
    many times; so it does not matter how many are inserted at a call. Results depend neither on that nor on the
    number of threads, to the last bit; on the order of slices, in the last bits only.

    They start from ``stored``, what ``to_array`` gave, or from 0. Raises ValueError for numbers that cannot be, and where the
    shape of ``stored`` is not what they say.
    """

    def __init__(self, box: int, padding: float, radius: float, stored: Optional[NDArray] = None) -> None:
        if box % 2 or box < 4 or padding < 1 or not 0 < radius <= box / 2 - 1:
            raise ValueError(f"box {box}, padding {padding}, radius {radius}: want an even box, padding >= 1, radius < box / 2")
        self.box = box
        self.padding = float(padding)
        self.padded = padded_box(box, padding)
        self.radius = float(radius)
        self.extent = half_extent(box, padding, radius)
        side = 2 * self.extent + 1
        shape = (side, side, self.extent + 1, 3)
        if stored is not None and stored.shape != shape:
            raise ValueError(f"sums have the shape {stored.shape}, want {shape}")
        self._sums = np.empty(shape)  # np.zeros would come in small pages, which cost more than writing zeros
        self._sums[...] = 0.0 if stored is None else stored
        self._waiting: Optional[_Waiting] = None
        self._threads = 1  # of the last insertion, for those who read the sums

    @property
    def numerator(self) -> NDArray[np.complex128]:
        """View of sum D, ``(2 r + 1, 2 r + 1, r + 1)``; its plane x = 0 still lacks the Friedel mates (see ``completed``)."""
        return self._numbers()["numerator"]

    @property
    def denominator(self) -> NDArray[np.float64]:
        """View of sum W, of the same shape."""
        return self._numbers()["denominator"]

    def _numbers(self) -> NDArray:
        self.close()
        return self._sums.view(_NUMBERS)[..., 0]

    def insert(
        self,
        data: NDArray[np.complex64],
        weight: NDArray[np.float32],
        rotations: ArrayLike,
        band: Band,
        scale: float = 1.0,
        threads: int = 1,
        which: Optional[NDArray[np.intp]] = None,
    ) -> None:
        """Add slices: D ``(B, len(band))`` complex64 and W of the same shape, float32, at ``scale`` M^T (kx, ky, 0).

        M are the ``rotations`` (B, 3, 3). ``scale`` is the field of view of the map over that of the images; ``which`` chooses
        the slices to add, all by default. The arrays may be used again afterwards. Raises ValueError for shapes that do not
        fit, matrices that are not rotations, and samples beyond ``radius``.
        """
        turns = check_rotations(rotations)
        if data.shape != (len(turns), len(band)) or weight.shape != data.shape:
            raise ValueError(f"data {data.shape} and weight {weight.shape}: want {(len(turns), len(band))}")
        if band.radius * scale > self.radius * (1 + 1e-6):
            raise ValueError(f"samples reach {band.radius * scale:g} Fourier pixels, the sums {self.radius:g}")
        rows = np.ascontiguousarray(turns[:, :2] * (scale * self.padded / self.box), dtype=np.float32)
        chosen = np.arange(len(rows))[slice(None) if which is None else which]
        self._threads = threads
        while len(chosen):
            waiting = self._room(band)
            part, chosen = chosen[: waiting.room()], chosen[waiting.room() :]
            waiting.add(data, weight, rows, part)
            if not waiting.room():
                self.flush()

    def _room(self, band: Band) -> _Waiting:
        if self._waiting is not None and self._waiting.band is not band:
            self.close()
        if self._waiting is None:
            # All sums go through the cache at each flush: a third of the time with records of their size, a tenth with three
            # times that. So it is three times where that is little, their size where it is much, within bounds.
            sums = self._sums.nbytes
            size = max(min(3 * sums, _LEAST_ROOM), min(sums, _MOST_ROOM))
            self._waiting = _Waiting(band, max(1, size // (_RECORD * len(band))))
        return self._waiting

    def flush(self) -> None:
        """Add the slices that wait to the sums, by as many threads as the last insertion. Reading the sums does so too."""
        if self._waiting is not None and self._waiting.count:
            self._deposit(self._waiting, self._threads)
            self._waiting.count = 0

    def close(self) -> None:
        """Flush, and give back the room for waiting slices."""
        self.flush()
        self._waiting = None

    def _deposit(self, waiting: _Waiting, threads: int) -> None:
        from . import insertion_kernels as kernels

        band, count = waiting.band, waiting.count
        kx, ky = band.kx.astype(np.float32), band.ky.astype(np.float32)
        data, weight, rows = waiting.data[:count], waiting.weight[:count], waiting.rows[:count]
        centre = np.float32(self.extent)
        slabs = 2 * self.extent
        counts = np.empty((count, slabs), np.int64)
        first = np.empty(slabs + 1, np.int64)
        records = _records(count * len(band))

        def count_slabs(start: int, stop: int) -> None:
            kernels.count_slabs(rows, kx, ky, centre, counts, np.empty(len(kx), np.int32), start, stop)

        def write(start: int, stop: int) -> None:
            scratch = np.empty((4, kernels.CHUNK), np.float32)
            kernels.write_records(rows, kx, ky, centre, data, weight, counts, scratch, records, start, stop)

        run_ranges(count_slabs, count, threads)
        kernels.place_slabs(counts, first)
        run_ranges(write, count, threads)
        blocks = -(-slabs // _SLABS_PER_BLOCK)
        for parity in range(2):
            deposit = partial(kernels.deposit, records, first, self._sums, parity, _SLABS_PER_BLOCK)
            run_ranges(deposit, (blocks + 1 - parity) // 2, threads, pieces_per_thread=4)

    def add(self, other: Accumulator) -> None:
        """Add the sums of another accumulator of the same box, padding and radius; ValueError for any other."""
        self._match(other.box, other.padded, other.radius)
        self.flush()
        other.flush()
        self._sums += other._sums

    def _match(self, box: int, padded: int, radius: float) -> None:
        mine = (self.box, self.padded, self.radius)
        if mine != (box, padded, radius):
            raise ValueError(f"sums of (box, padded, radius) {(box, padded, radius)} do not fit those of {mine}")

    def symmetrise(self, matrices: ArrayLike, threads: int = 1) -> None:
        """Replace the sums by those of all symmetry copies: sum over g of sums(g k), ``matrices`` ``(n, 3, 3)`` of a group.

        Trilinear. A map made of folded sums agrees with the truth as one of n-fold insertion does (FSC within 0.002 for C3, D7
        and I at padding 1.5); it is lower by up to (n - 1) / n of a further sinc^2 towards the box's edge.
        """
        from . import insertion_kernels as kernels

        group = check_rotations(matrices)
        if len(group) == 1:
            return
        self.close()
        sums = self._sums
        complete_plane(sums.view(_NUMBERS)["numerator"][..., 0])
        complete_plane(sums.view(_NUMBERS)["denominator"][..., 0])
        for part in split_group(group):
            if len(part) > 1:
                target = np.zeros_like(sums)
                turn = partial(kernels.add_turned, sums, target, part, self.extent)
                run_ranges(turn, len(target), threads, pieces_per_thread=4)
                sums = target
        sums[:, :, 0] *= 0.5  # completing it again restores it
        self._sums = sums

    def completed(self) -> Tuple[NDArray[np.complex128], NDArray[np.float64]]:
        """Copies of numerator and denominator whose plane x = 0 holds the Friedel mates too: what a map is solved from."""
        return complete_plane(self.numerator.copy()), complete_plane(self.denominator.copy())

    def to_array(self) -> NDArray[np.float32]:
        """The sums in single precision ``(..., 3)``, to be stored: real and imaginary part of the numerator, and denominator.

        Not completed, so they can still be added up.
        """
        self.close()
        return self._sums.astype(np.float32)


class _Waiting:
    """Slices of one band that have not been added yet."""

    def __init__(self, band: Band, capacity: int) -> None:
        self.band = band
        self.count = 0
        self.data = np.empty((capacity, len(band)), np.complex64)
        self.weight = np.empty((capacity, len(band)), np.float32)
        self.rows = np.empty((capacity, 2, 3), np.float32)

    def room(self) -> int:
        return len(self.rows) - self.count

    def add(self, data: NDArray, weight: NDArray, rows: NDArray, which: NDArray[np.intp]) -> None:
        part = slice(self.count, self.count + len(which))
        for values, kept in ((data, self.data), (weight, self.weight), (rows, self.rows)):
            np.take(values, which, axis=0, out=kept[part], mode="clip")  # "raise" would copy; insert has looked at them
        self.count = part.stop


def _records(count: int) -> NDArray[np.float32]:
    """Room for records, kept by the thread for its next call: fresh memory costs more than writing it."""
    kept = getattr(_workspace, "records", None)
    if kept is None or len(kept) < count:
        kept = _workspace.records = np.empty((count, _RECORD // 4), np.float32)
    return kept


def split_group(group: NDArray[np.float64]) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C, H) with group = {c h}: H its members that move grid points to grid points, C one member of each coset.

    Summing over C and then over H takes 5 + 12 terms for an icosahedron instead of 60, and those of H are exact.
    """
    on_grid = (np.abs(group - np.rint(group)) < 1e-9).all(axis=(1, 2))
    exact = np.rint(group[on_grid])
    cosets: List[NDArray[np.float64]] = []
    for member in group:
        if not any(np.abs(member - c @ exact).max(axis=(1, 2)).min() < 1e-6 for c in cosets):
            cosets.append(member)
    return np.stack(cosets), np.ascontiguousarray(exact)


def check_rotations(rotations: ArrayLike) -> NDArray[np.float64]:
    """Contiguous float64 ``(B, 3, 3)``; ValueError for another shape or for a matrix that is not orthonormal to 1e-3."""
    turns = np.ascontiguousarray(rotations, dtype=np.float64)
    if turns.ndim != 3 or turns.shape[1:] != (3, 3):
        raise ValueError(f"rotations have the shape {turns.shape}, want (B, 3, 3)")
    error = np.abs(turns @ np.swapaxes(turns, 1, 2) - np.eye(3)).max(axis=(1, 2), initial=0.0)
    if not (error < 1e-3).all():
        raise ValueError(f"matrix {int(np.argmax(~(error < 1e-3)))} is not a rotation")
    return turns
