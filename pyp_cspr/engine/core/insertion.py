"""Central slices into a map's numerator and denominator: the transpose of the trilinear interpolation of ``projection.py``."""

from __future__ import annotations

from functools import partial
from typing import List, Optional, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import run_ranges
from .band import Band
from .fourier import complete_plane, half_extent, padded_box

_SLABS_PER_BLOCK = 4
_RECORD = 16  # bytes of a sample that waits
_LEAST_ROOM, _MOST_ROOM = 3 * 2**23, 2**28  # bytes of the samples that wait, see _room
_NUMBERS = np.dtype([("numerator", np.complex128), ("denominator", np.float64)])


class Accumulator:
    """Sums of weighted slices on a padded Fourier grid, float64.

    ``box`` (even) pixels of the map; the grid has ``padded`` = the even number nearest ``box * padding`` points per axis;
    ``radius`` unpadded Fourier pixels is as far as samples may lie. The sums are a half cube (see ``fourier.py``) of extent
    r = ceil(radius * padded / box) + 1, of which only the voxels of the sphere are kept: half of it.

    Slices wait until there are enough of them that a plane of the sums, once fetched into the processor's cache, is used
    many times; so it does not matter how many are inserted at a call. Results depend neither on that nor on the
    number of threads, to the last bit; on the order of slices, in the last bits only.

    They start from 0, or from ``stored``, what ``sums`` was, which is theirs from then on. Raises ValueError for numbers that
    cannot be, and where the shape of ``stored`` is not what they say.

    ``begin`` and ``width`` (2 r + 1, 2 r + 1): row (z, y) of the half cube is the ``width[z, y]`` sums from ``begin[z, y]`` on.
    """

    def __init__(self, box: int, padding: float, radius: float, stored: Optional[NDArray] = None) -> None:
        if box % 2 or box < 4 or padding < 1 or not 0 < radius <= box / 2 - 1:
            raise ValueError(f"box {box}, padding {padding}, radius {radius}: want an even box, padding >= 1, radius < box / 2")
        self.box = box
        self.padding = float(padding)
        self.padded = padded_box(box, padding)
        self.radius = float(radius)
        self.extent = half_extent(box, padding, radius)
        self.width = _widths(self.extent)
        self.begin = np.cumsum(self.width).reshape(self.width.shape) - self.width
        shape = (int(self.width.sum()), 3)
        if stored is None:
            self._sums = np.empty(shape)  # np.zeros would come in small pages, which cost more
            self._sums[...] = 0.0
        elif stored.shape != shape:
            raise ValueError(f"sums have the shape {stored.shape}, want {shape}")
        else:
            self._sums = np.ascontiguousarray(stored, np.float64)
        self._waiting: Optional[_Waiting] = None
        self._threads = 1  # of the last insertion, for those who read the sums

    @property
    def sums(self) -> NDArray[np.float64]:
        """The sums themselves, ``(n, 3)``: real and imaginary part of the numerator, and denominator, of the sphere's voxels.

        The plane x = 0 still lacks the Friedel mates (see ``completed``), so sums can still be added up. This is what is
        stored. In double precision the number of chunks shows in a map's last bits at most, and mostly in none: stored in
        single precision it would change maps by 1e-7, which a refinement makes larger.
        """
        self.close()
        return self._sums

    @property
    def numerator(self) -> NDArray[np.complex128]:
        """Sum D as a half cube, ``(2 r + 1, 2 r + 1, r + 1)``, not completed; a copy, to be looked at."""
        return np.ascontiguousarray(self._half_cube().view(_NUMBERS)["numerator"][..., 0])

    @property
    def denominator(self) -> NDArray[np.float64]:
        """Sum W, likewise."""
        return np.ascontiguousarray(self._half_cube()[..., 2])

    def _half_cube(self) -> NDArray[np.float64]:
        from . import insertion_kernels as kernels

        half = np.empty((*self.width.shape, self.extent + 1, 3))
        kernels.unpack(self.sums, self.width, half)
        return half

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
        data, weight = np.ascontiguousarray(data, np.complex64), np.ascontiguousarray(weight, np.float32)
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
            waiting.add(data, weight, rows, part, self.extent, threads)
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
            self._waiting = _Waiting(band, max(1, size // (_RECORD * len(band))), 2 * self.extent)
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

        count, slabs = waiting.count, 2 * self.extent
        centre = np.float32(self.extent)
        records, codes, begin, rows = (kept[:count] for kept in (waiting.records, waiting.codes, waiting.begin, waiting.rows))

        def work(parity: int, start: int, stop: int) -> None:
            planes = np.empty((2, 2 * self.extent + 1, self.extent + 1, 4))
            scratch, offsets = np.empty((3, kernels.CHUNK), np.float32), np.empty(kernels.CHUNK, np.int32)
            kernels.deposit(records, codes, begin, rows, centre, self._sums, self.begin, self.width, planes, scratch, offsets,
                            parity, _SLABS_PER_BLOCK, start, stop)

        blocks = -(-slabs // _SLABS_PER_BLOCK)
        for parity in range(2):
            run_ranges(partial(work, parity), (blocks + 1 - parity) // 2, threads, pieces_per_thread=4)

    def add(self, other: Accumulator) -> None:
        """Add the sums of another accumulator of the same box, padding and radius; ValueError for any other."""
        mine, theirs = ((one.box, one.padded, one.radius) for one in (self, other))
        if mine != theirs:
            raise ValueError(f"sums of (box, padded, radius) {theirs} do not fit those of {mine}")
        self.flush()
        self._sums += other.sums

    def symmetrise(self, matrices: ArrayLike, threads: int = 1) -> None:
        """Replace the sums by those of all symmetry copies: sum over g of sums(g k), ``matrices`` ``(n, 3, 3)`` of a group.

        Trilinear. A map made of folded sums agrees with the truth as one of n-fold insertion does (FSC within 0.002 for C3, D7
        and I at padding 1.5); it is lower by up to (n - 1) / n of a further sinc^2 towards the box's edge.
        """
        from . import insertion_kernels as kernels

        group = check_rotations(matrices)
        if len(group) == 1:
            return
        half = self._half_cube()
        complete_plane(half.view(_NUMBERS)["numerator"][..., 0])
        complete_plane(half.view(_NUMBERS)["denominator"][..., 0])
        for part in split_group(group):
            if len(part) > 1:
                target = np.zeros_like(half)
                turn = partial(kernels.add_turned, half, target, part, self.extent)
                run_ranges(turn, len(target), threads, pieces_per_thread=4)
                half = target
        half[:, :, 0] *= 0.5  # completing it again restores it
        kernels.pack(half, self.width, self._sums)

    def completed(self) -> Tuple[NDArray[np.complex128], NDArray[np.float64]]:
        """Half cubes of numerator and denominator whose plane x = 0 holds the Friedel mates too."""
        return complete_plane(self.numerator), complete_plane(self.denominator)


class _Waiting:
    """Slices of one band that have not been added yet, the samples of each sorted by slabs."""

    def __init__(self, band: Band, capacity: int, slabs: int) -> None:
        self.band = band
        self.count = 0
        self.records = np.empty((capacity, len(band), _RECORD // 4), np.float32)
        self.codes = self.records.view(np.int32)
        self.begin = np.empty((capacity, slabs + 1), np.int32)
        self.rows = np.empty((capacity, 2, 3), np.float32)

    def room(self) -> int:
        return len(self.rows) - self.count

    def add(
        self, data: NDArray, weight: NDArray, rows: NDArray, which: NDArray[np.intp], extent: int, threads: int
    ) -> None:
        from . import insertion_kernels as kernels

        part = slice(self.count, self.count + len(which))
        self.rows[part] = rows[which]
        rotations, begin, records = self.rows[part], self.begin[part], self.records[part]
        centre, band, values = np.float32(extent), self.band, data.view(np.float32)

        def sort(start: int, stop: int) -> None:
            slab, code = np.empty((2, len(band)), np.int32)
            own = np.empty(records.shape[1:], np.float32)
            kernels.sort_samples(rotations, band.kx, band.ky, centre, values, weight, which, begin, records, slab, code, own,
                                 own.view(np.int32), start, stop)

        run_ranges(sort, len(which), threads)
        self.count = part.stop


def _widths(extent: int) -> NDArray[np.int64]:
    """How many elements of each row lie in the sphere that holds all neighbours of all samples, (2 r + 1, 2 r + 1)."""
    square = np.arange(-extent, extent + 1) ** 2
    left = (extent + 1) ** 2 - square[:, None] - square
    inside = np.floor(np.sqrt(np.maximum(left, 0)) + 1e-9).astype(np.int64) + 1
    return np.where(left >= 0, np.minimum(inside, extent + 1), 0)


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
