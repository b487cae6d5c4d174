"""Cost, gradient and Gauss-Newton matrix of projections against a reference, in their local parameters.

The cost of a projection is -log likelihood up to a constant: sum over the half-plane of |X - a C V e|^2 / s^2, which needs of
the data only D = a C X / s^2 and W = a^2 C^2 / s^2:  L = -2 Re sum D* V e + sum W |V|^2,  e = exp(-2 pi i k.s).
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import run_ranges
from .band import Band
from .projection import Reference, check_scales

PARAMETERS = 5  # rotation about the microscope's x, y, z (radians), shift in x, y (angstrom)
AMPLITUDE = 5  # log of the amplitude: a sixth parameter where it is asked for
_PAIRS = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])


class LocalEquations(NamedTuple):
    """Of P projections. ``match`` = Re sum D* V e and ``power`` = sum W |V|^2, so the cost is power - 2 match."""

    match: NDArray[np.float64]  # (P,)
    power: NDArray[np.float64]  # (P,)
    gradient: NDArray[np.float64]  # (P, 5) of the cost
    matrix: NDArray[np.float64]  # (P, 5, 5) Gauss-Newton: the Fisher information of the local parameters

    @property
    def cost(self) -> NDArray[np.float64]:
        return self.power - 2.0 * self.match


def local_equations(
    data: NDArray[np.complex64],
    weight: NDArray[np.float32],
    band: Band,
    field: float,
    references: Sequence[Reference],
    which: ArrayLike,
    rotations: ArrayLike,
    shifts: ArrayLike,
    scale: ArrayLike = 1.0,
    rows: Optional[ArrayLike] = None,
    count: Optional[int] = None,
    threads: int = 1,
    gain: Optional[ArrayLike] = None,
) -> LocalEquations:
    """Evaluate P projections.

    ``data`` (Q, n) and ``weight`` (Q, n) are weighted coefficients on ``band``; ``rows`` (P,) picks among them (default: all).
    ``references`` have one size; ``which`` (P,) chooses among them. ``rotations`` M (P, 3, 3); ``shifts`` (P, 2) in angstrom
    from where the particle's centre has phase 0; ``field`` of the crops in angstrom; ``scale`` is the map's field over that,
    times the magnification of the image: one number, or one for each projection (P,).
    ``count`` coefficients are used (default all): a prefix of the band is a lower resolution. ``gain`` (P,) multiplies the
    amplitude; with it, even of 1, gradient and matrix have ``AMPLITUDE`` too.

    Rotations act on the left: M' = exp([w]x) M. Raises ValueError where the band reaches beyond the references.
    """
    from . import refinement_kernels as kernels

    first = references[0]
    matrices = np.ascontiguousarray(rotations, dtype=np.float64)
    picked = np.arange(len(matrices)) if rows is None else np.ascontiguousarray(rows, dtype=np.int64)
    count = len(band) if count is None else int(count)
    reach = float(np.hypot(band.kx[:count], band.ky[:count].astype(float)).max()) if count else 0.0
    scales = check_scales(scale, len(matrices), reach, first.radius)
    matrices = matrices * (scales * first.padded / first.box)
    cubes = flat_cubes(references)
    line = first.extent + 1
    plane = line * (2 * first.extent + 1)
    turns = np.ascontiguousarray(np.asarray(shifts, dtype=np.float64) / field)
    choice = np.ascontiguousarray(which, dtype=np.int64)
    out = np.empty((len(matrices), kernels.SUMS))
    flat = np.ascontiguousarray(data).view(np.float32)

    def work(start: int, stop: int) -> None:
        scratch, offsets = np.empty((kernels.SCRATCH, kernels.CHUNK), np.float32), np.empty(kernels.CHUNK, np.int32)
        kernels.evaluate(out, flat, weight, picked, matrices, turns, cubes, choice, first.extent, line, plane,
                         band.kx, band.ky, count, scratch, offsets, start, stop)

    run_ranges(work, len(matrices), threads, pieces_per_thread=4)
    if gain is None:
        return _unpack(out, 2 * np.pi / field)
    factor = np.asarray(gain, dtype=np.float64)[:, None]
    out[:, :6] *= factor
    out[:, 6:] *= factor**2
    return _with_amplitude(_unpack(out, 2 * np.pi / field), out)


def flat_cubes(references: Sequence[Reference]) -> Tuple[NDArray[np.float32], ...]:
    """The references as the kernels take them, without a copy. Raises ValueError where they differ in size."""
    if any(reference.cube.shape != references[0].cube.shape for reference in references):
        raise ValueError("references differ in size")
    return tuple(reference.cube.view(np.float32).reshape(-1) for reference in references)


def _unpack(sums: NDArray[np.float64], radians: float) -> LocalEquations:
    """The kernel's sums as gradient and matrix; ``radians`` turn a Fourier pixel's phase into that of an angstrom."""
    gradient = np.empty((len(sums), PARAMETERS))
    gradient[:, :3] = 2.0 * (sums[:, 7:10] - sums[:, 1:4])
    gradient[:, 3:] = -2.0 * radians * sums[:, 4:6]
    matrix = np.empty((len(sums), PARAMETERS, PARAMETERS))
    matrix[:, :3, :3] = 2.0 * sums[:, 10 + _PAIRS]
    mixed = 2.0 * radians * sums[:, 16:22].reshape(-1, 3, 2)
    matrix[:, :3, 3:], matrix[:, 3:, :3] = mixed, mixed.transpose(0, 2, 1)
    matrix[:, 3, 3], matrix[:, 4, 4] = 2.0 * radians**2 * sums[:, 22], 2.0 * radians**2 * sums[:, 24]
    matrix[:, 3, 4] = matrix[:, 4, 3] = 2.0 * radians**2 * sums[:, 23]
    return LocalEquations(sums[:, 0].copy(), sums[:, 6].copy(), gradient, matrix)


def _with_amplitude(local: LocalEquations, sums: NDArray[np.float64]) -> LocalEquations:
    """The equations with one more parameter: dY / d ln a = Y, which turns no phase and so meets no shift."""
    gradient = np.concatenate([local.gradient, 2.0 * (sums[:, 6:7] - sums[:, :1])], axis=1)
    matrix = np.zeros((len(sums), PARAMETERS + 1, PARAMETERS + 1))
    matrix[:, :PARAMETERS, :PARAMETERS] = local.matrix
    matrix[:, :3, AMPLITUDE] = matrix[:, AMPLITUDE, :3] = 2.0 * sums[:, 7:10]
    matrix[:, AMPLITUDE, AMPLITUDE] = 2.0 * sums[:, 6]
    return local._replace(gradient=gradient, matrix=matrix)
