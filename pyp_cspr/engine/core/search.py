"""Scores of rotations over all projections of a particle at once, each at the best of a grid of displacements.

The score is the matched filter A sqrt(2 / B), A = Re sum D* V e and B = sum W |V|^2 over the particle's projections: the
likelihood's gain over no particle at all is A^2 / B where the particle's amplitude is free, which a crowded or badly scaled
data set needs (A - B / 2 would hold a rotation with a strong projection to be better). In pure noise it is normal with
standard deviation 1, so it is read in sigmas, and its sign says whether the particle is there or its negative.

A displacement xi of the particle moves projection e by (T_e xi)_xy. So for each projection the image A(s) is made on a small
grid of shifts, and the images are read at (T_e xi)_xy and added. The images are Fourier sums over some hundred coefficients at
some hundred shifts: done directly, with the symmetry of s and -s, that is cheaper than a fast Fourier transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import run_ranges
from .band import Band
from .fourier import half_extent
from .projection import Reference


@dataclass(frozen=True)
class ShiftGrid:
    """Displacements on a cubic grid of ``step`` angstrom inside a ball of radius ``tolerance``; the centre is one of them."""

    step: float
    tolerance: float

    def __post_init__(self) -> None:
        if not (self.step > 0 and self.tolerance >= 0):
            raise ValueError(f"shift step {self.step} and tolerance {self.tolerance}: want more than 0, and 0 or more")

    def points(self) -> NDArray[np.float64]:
        """``(G, 3)`` angstrom; the origin comes first, so that it wins where nothing is better."""
        reach = int(self.tolerance / self.step + 1e-6)
        axis = np.arange(-reach, reach + 1.0)
        points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        length = np.linalg.norm(points, axis=1)
        keep = np.flatnonzero(length <= self.tolerance / self.step + 1e-6)
        inside: NDArray[np.float64] = points[keep[np.argsort(length[keep], kind="stable")]] * self.step
        return inside

    def half_width(self) -> int:
        """Pixels of ``step`` on each side of an image's centre, with the neighbours that interpolation reads."""
        return int(self.tolerance / self.step + 1e-3) + 1

    def half_image(self) -> NDArray[np.float64]:
        """Shifts ``(H, 2)`` in angstrom of the image's pixels from the centre on, row by row; the others are their mirror."""
        reach = self.half_width()
        y, x = np.divmod(np.arange((2 * reach + 1) ** 2), 2 * reach + 1)
        shifts = np.stack([x - reach, y - reach], axis=-1) * self.step
        return shifts[len(shifts) // 2 :]


class ParticleData(NamedTuple):
    """Weighted coefficients of P particles' projections, sorted by particle, ready for the kernel."""

    parts: NDArray[np.float32]  # (2, Q, n) real and imaginary D, phases about the present centres
    weight: NDArray[np.float32]  # (Q, n)
    kx: NDArray[np.float32]  # (n,)
    ky: NDArray[np.float32]  # (n,)
    first: NDArray[np.int64]  # (P + 1,) rows of each particle
    exposure: NDArray[np.int64]  # (Q,)
    which: NDArray[np.int64]  # (P,) reference
    field: float


def prepare(
    data: NDArray[np.complex64], weight: NDArray[np.float32], rows: NDArray, first: NDArray, exposure: ArrayLike,
    which: ArrayLike, shifts: NDArray, band: Band, field: float, count: int,
) -> ParticleData:
    """Pick ``rows`` (Q,) of ``data`` and ``weight`` (all, n), and their first ``count`` coefficients.

    The phases of ``shifts`` (Q, 2), angstrom, are taken out. ``first`` (P + 1,) are the particles' ends among ``rows``;
    ``exposure`` (Q,), ``which`` (P,).
    """
    kx, ky = band.kx[:count].astype(np.float32), band.ky[:count].astype(np.float32)
    turn = (2 * np.pi / field) * (shifts @ np.stack([kx, ky]).astype(np.float64))
    centred = data[rows, :count] * np.exp(1j * turn)
    parts = np.stack([centred.real, centred.imag]).astype(np.float32)
    first, exposure, which = (np.ascontiguousarray(values, dtype=np.int64) for values in (first, exposure, which))
    return ParticleData(parts, np.ascontiguousarray(weight[rows, :count]), kx, ky, first, exposure, which, float(field))


class Scores(NamedTuple):
    """Of P particles and J rotations."""

    scores: NDArray[np.float32]  # (P, J) in standard deviations of the noise; -inf where there was no such rotation
    best: NDArray[np.int32]  # (P, J) index of the displacement in ``ShiftGrid.points``


def score_rotations(
    particles: ParticleData,
    rotations: ArrayLike,
    tilts: ArrayLike,
    references: Sequence[Reference],
    shifts: ShiftGrid,
    scale: float = 1.0,
    counts: Optional[ArrayLike] = None,
    threads: int = 1,
) -> Scores:
    """Score rotations R of every particle, each at its best displacement.

    ``rotations`` (J, 3, 3) that all particles share, or (P, J, 3, 3), of which the first ``counts`` (P,) are scored; ``tilts``
    T_e (E, 3, 3); ``references`` of one size; ``scale`` is the map's field of view over that of the crops. Shared rotations are
    much faster with many particles, because a slice is taken once for all of them. Raises ValueError where the coefficients
    reach beyond the references or the shapes do not fit.
    """
    from . import search_kernels as kernels

    turns = np.ascontiguousarray(rotations, dtype=np.float64)
    turns = turns[None] if turns.ndim == 3 else turns
    count = len(particles.which)
    if turns.ndim != 4 or turns.shape[2:] != (3, 3) or len(turns) not in (1, count):
        raise ValueError(f"rotations have the shape {turns.shape}, want (J, 3, 3) or ({count}, J, 3, 3)")
    valid = np.full(len(turns), turns.shape[1]) if counts is None else np.ascontiguousarray(counts, dtype=np.int64)
    cubes, grid_scale = _cropped(references, float(np.hypot(particles.kx, particles.ky).max(initial=0.0)) * scale)
    half = shifts.half_image()
    half = np.concatenate([half, half[: len(half) % 2]])  # the kernel takes them in pairs
    phase = (2 * np.pi / particles.field) * (half @ np.stack([particles.kx, particles.ky]))
    points = np.ascontiguousarray((shifts.points() / shifts.step).T, dtype=np.float32)
    scores = np.empty((count, turns.shape[1]), np.float32)
    best = np.empty((count, turns.shape[1]), np.int32)
    cosines, sines = np.cos(phase).astype(np.float32), np.sin(phase).astype(np.float32)
    matrices = np.ascontiguousarray(tilts, dtype=np.float64)

    width = 2 * shifts.half_width() + 1

    def work(start: int, stop: int) -> None:
        scratch = kernels.score_scratch(len(matrices), len(particles.kx), len(cosines), width, points.shape[1])
        kernels.score_rotations(
            scores, best, turns, valid, matrices, scale * grid_scale, particles.parts, particles.weight, particles.first,
            particles.exposure, particles.which, cubes, particles.kx, particles.ky, cosines, sines,
            width, points, scratch, start, stop,
        )

    run_ranges(work, turns.shape[0] * turns.shape[1], threads, pieces_per_thread=8)
    return Scores(scores, best)


def _cropped(references: Sequence[Reference], reach: float) -> Tuple[NDArray[np.float32], float]:
    """The references' cubes cropped to a radius in unpadded Fourier pixels, (C, z, y, 2 x); grid units in such a pixel."""
    first = references[0]
    if reach > first.radius * (1 + 1e-6):
        raise ValueError(f"samples reach {reach:g} Fourier pixels, the references {first.radius:g}")
    extent = min(first.extent, half_extent(first.box, first.padded / first.box, reach))
    inside = slice(first.extent - extent, first.extent + extent + 1)
    cubes = np.stack([np.ascontiguousarray(reference.cube[inside, inside, : extent + 1]) for reference in references])
    return cubes.view(np.float32), first.padded / first.box


def exposure_images(
    particles: ParticleData, rotations: ArrayLike, tilts: NDArray, references: Sequence[Reference], shifts: NDArray,
    scale: float, band: Band, count: int, threads: int = 1,
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A(s) of each exposure at ``shifts`` (S, 2), angstrom, summed over its particles: ``(E, S)``; and B ``(E,)``.

    ``rotations`` (P, 3, 3). A shift common to an exposure's particles only turns the phases of their sum, so one image does.
    """
    exposures = len(tilts)
    products, power = np.zeros((exposures, count), complex), np.zeros(exposures)
    small = band.up_to(count)
    poses = np.asarray(rotations, dtype=np.float64)
    for p, which in enumerate(particles.which):
        rows = slice(particles.first[p], particles.first[p + 1])
        seen = particles.exposure[rows]
        model = references[which].slices(tilts[seen] @ poses[p], small, scale, threads)
        data = particles.parts[0, rows, :count] - 1j * particles.parts[1, rows, :count]
        np.add.at(products, seen, data * model)
        np.add.at(power, seen, (particles.weight[rows, :count] * np.abs(model) ** 2).sum(axis=1))
    phase = (2 * np.pi / particles.field) * (shifts @ np.stack([small.kx, small.ky]).astype(np.float64))
    return products.real @ np.cos(phase).T + products.imag @ np.sin(phase).T, power
