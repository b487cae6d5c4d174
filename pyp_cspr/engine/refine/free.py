"""Refinement of free poses: every projection by itself, five parameters each. Single particles, for the most part."""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core._jit import run_ranges
from ..core.band import Band
from ..core.projection import Reference
from ..core.refinement import flat_cubes

REASONS = ("converged", "evaluations used up", "no step lowers the cost", "no information")  # by status

# Stop where a step promises less than this in the cost: 0.3 sigma, squared, halved. The coarse stages only have to bring a
# projection into the reach of the next one.
GAIN = 0.05
COARSE_GAIN = 0.5

_TILE = 8  # a stage's coefficients are taken in tiles of so many by so many, which lie together in the reference


class FreePoses(NamedTuple):
    """Of P projections."""

    rotations: NDArray[np.float64]  # (P, 3, 3) M
    shifts: NDArray[np.float64]  # (P, 2) angstrom
    covariance: NDArray[np.float64]  # (P, 5, 5) rotation about the microscope's x, y, z (radians), shift x, y (angstrom)
    cost: NDArray[np.float64]  # (P, 2) at the last count: at its beginning and where it was last looked at, priors included
    evaluations: NDArray[np.int32]  # (P, stages)
    status: NDArray[np.int8]  # (P,) of the last stage: an index of REASONS


def refine_free(
    data: NDArray[np.complex64],
    weight: NDArray[np.float32],
    band: Band,
    field: float,
    references: Sequence[Reference],
    which: ArrayLike,
    rotations: ArrayLike,
    shifts: ArrayLike,
    counts: Sequence[int],
    threads: int = 1,
    scale: float = 1.0,
    rows: Optional[ArrayLike] = None,
    gain: float = GAIN,
    coarse_gain: float = COARSE_GAIN,
    max_evaluations: int = 25,
    rotation_sigma: Optional[float] = None,
    shift_sigma: Optional[float] = None,
) -> FreePoses:
    """Refine P projections from ``rotations`` (P, 3, 3) and ``shifts`` (P, 2) in angstrom, each by Levenberg-Marquardt.

    ``data``, ``weight`` (Q, n), ``band``, ``field``, ``references``, ``which`` (P,), ``scale``, ``rows`` (P,) as in
    ``core.refinement.local_equations``. ``counts``: the coefficients used at each stage, from coarse to fine (``band.prefix``).
    A stage ends where the undamped step promises less than ``gain`` (``coarse_gain`` before the last stage) of the cost, that
    is of -log likelihood; that step is still taken. It ends at the latest after ``max_evaluations``. A step that raises the
    cost is taken back and damped. ``rotation_sigma`` (degrees, each axis) and ``shift_sigma`` (angstrom) are standard
    deviations of Gaussian priors about the start; None is no prior.

    A projection without information (no weight) keeps its pose and has an infinite covariance. The result of a projection does
    not depend on the others nor on ``threads``. Raises ValueError where the shapes or counts do not fit.
    """
    from . import free_kernels as kernels

    first = references[0]
    poses = np.array(rotations, dtype=np.float64, order="C")
    moved = np.array(shifts, dtype=np.float64, order="C")
    number = len(poses)
    picked = np.arange(number) if rows is None else np.ascontiguousarray(rows, dtype=np.int64)
    choice = np.broadcast_to(np.asarray(which, dtype=np.int64), (number,)).copy()
    limits = np.asarray(counts, dtype=np.int64)
    if poses.shape != (number, 3, 3) or moved.shape != (number, 2) or picked.shape != (number,):
        raise ValueError(f"rotations {poses.shape}, shifts {moved.shape} and rows {picked.shape} do not fit each other")
    if data.shape != weight.shape or data.shape[1:] != (len(band),):
        raise ValueError(f"data {data.shape} and weight {weight.shape} are not of a band of {len(band)}")
    if number and not (0 <= picked.min() and picked.max() < len(data) and 0 <= choice.min() and choice.max() < len(references)):
        raise ValueError("rows or which name what is not there")
    if not len(limits) or limits[0] < 1 or limits[-1] > len(band) or (np.diff(limits) < 0).any():
        raise ValueError(f"counts {list(counts)}: want them from coarse to fine, 1 to {len(band)}")
    order = tile_order(band, limits)
    kx, ky = band.kx[order], band.ky[order]
    reach = float(np.hypot(kx.astype(float), ky).max()) * scale
    if reach > first.radius * (1 + 1e-6):
        raise ValueError(f"samples reach {reach:g} Fourier pixels, the reference {first.radius:g}")
    cubes = flat_cubes(references)
    flat = np.ascontiguousarray(data, dtype=np.complex64).view(np.float32)
    weights = np.ascontiguousarray(weight, dtype=np.float32)
    gains = np.full(len(limits), coarse_gain)
    gains[-1] = gain
    sigmas = [np.deg2rad(rotation_sigma) if rotation_sigma else np.inf, shift_sigma if shift_sigma else np.inf]
    precision = 1.0 / np.array(sigmas) ** 2
    covariance, cost = np.empty((number, 5, 5)), np.empty((number, 2))
    evaluations, status = np.empty((number, len(limits)), np.int32), np.empty(number, np.int8)
    line = first.extent + 1
    plane = line * (2 * first.extent + 1)
    ratio = scale * first.padded / first.box

    def work(start: int, stop: int) -> None:
        kernels.descend(
            poses, moved, covariance, cost, evaluations, status, flat, weights, picked, cubes, choice, first.extent, line,
            plane, ratio, float(field), kx, ky, order, limits, gains, int(max_evaluations), precision,
            kernels.make_workspace(len(order)), start, stop,
        )

    run_ranges(work, number, threads, pieces_per_thread=16)
    return FreePoses(poses, moved, covariance, cost, evaluations, status)


def tile_order(band: Band, counts: ArrayLike) -> NDArray[np.int32]:
    """The first ``counts[-1]`` coefficients, those of each stage together and within a stage tile by tile."""
    edges = np.asarray(counts)
    index = np.arange(edges[-1])
    kx, ky = band.kx[: edges[-1]].astype(int), band.ky[: edges[-1]].astype(int)
    stage = np.searchsorted(edges, index, side="right")
    return np.lexsort((ky, kx, ky // _TILE, kx // _TILE, stage)).astype(np.int32)
