"""Cost, gradient and Gauss-Newton matrix of projections in pose, CTF and magnification, from unweighted data.

``refinement.py`` works on D = a C X / s^2, in which the CTF is fixed. Here C is computed on the way, from each projection's own
defocus and phase, so that its parameters can move: dY/dq = a C'(chi) dchi/dq V e, never divided by C.
"""

from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import run_ranges
from .band import Band
from .projection import Reference, check_scales
from .refinement import AMPLITUDE, LocalEquations, flat_cubes

# Rotation about the microscope's x, y, z (radians), shift in x, y (angstrom), log of the amplitude, mean defocus m and the
# components of astigmatism a1, a2 (angstrom), phase shift (radians), log of the magnification about the particle's centre. The
# defocus form is (Axx, Axy, Ayy) = (m + a1, a2, m - a1).
CTF_PARAMETERS = 11
DEFOCUS, PHASE, MAGNIFICATION = slice(6, 9), 9, 10
_OPTICS = slice(6, 10)  # defocus and phase
_FROM_DATA = np.r_[0:6, 25:29, 55]  # sums that have the amplitude once

_ROTATIONS = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
_CTF = np.array([[0, 1, 2, 3], [1, 4, 5, 6], [2, 5, 7, 8], [3, 6, 8, 9]])


def form_to_components(form: ArrayLike) -> NDArray[np.float64]:
    """(m, a1, a2) = (mean defocus, half the difference times cos and sin of twice the angle) of forms ``(..., 3)``."""
    axx, axy, ayy = np.moveaxis(np.asarray(form, dtype=np.float64), -1, 0)
    return np.stack([0.5 * (axx + ayy), 0.5 * (axx - ayy), axy], axis=-1)


def components_to_form(components: ArrayLike) -> NDArray[np.float64]:
    """The inverse of ``form_to_components``; linear, so that changes may be converted as well."""
    mean, first, second = np.moveaxis(np.asarray(components, dtype=np.float64), -1, 0)
    return np.stack([mean + first, second, mean - first], axis=-1)


def form_to_defocus(form: ArrayLike) -> NDArray[np.float64]:
    """(df_u >= df_v, angle in degrees) ``(..., 3)``: the inverse of ``ctf.defocus_form``."""
    mean, first, second = np.moveaxis(form_to_components(form), -1, 0)
    half = np.hypot(first, second)
    return np.stack([mean + half, mean - half, 0.5 * np.rad2deg(np.arctan2(second, first))], axis=-1)


def ctf_equations(
    data: NDArray[np.complex64],
    band: Band,
    field: float,
    amplitude: ArrayLike,
    noise: ArrayLike,
    exposure: ArrayLike,
    references: Sequence[Reference],
    which: ArrayLike,
    rotations: ArrayLike,
    shifts: ArrayLike,
    forms: ArrayLike,
    phases: ArrayLike,
    wavelength: float,
    cs: float,
    scale: ArrayLike = 1.0,
    rows: Optional[ArrayLike] = None,
    count: Optional[int] = None,
    threads: int = 1,
    premultiplied: bool = False,
    magnified: bool = False,
    gain: Optional[ArrayLike] = None,
) -> LocalEquations:
    """Evaluate P projections; gradient ``(P, 11)`` and matrix ``(P, 11, 11)`` in the order of ``CTF_PARAMETERS``.

    ``data`` (Q, n) are unweighted coefficients X; ``rows`` (P,) picks among them (default: all). ``amplitude`` a and ``noise``
    s^2 are (E, shells), and ``exposure`` (P,) picks among those. ``forms`` (P, 3) in angstrom and ``phases`` (P,) in radians as
    in ``weighting.ctf_values``, ``wavelength`` in angstrom, ``cs`` in mm. The others as in ``refinement.local_equations``; so
    are cost, first five parameters and their matrix, of D and W with this CTF. What concerns the magnification is 0 unless
    ``magnified``; what concerns the CTF is 0 of ``premultiplied`` data C X, where it is part of the data. ``gain`` (P,)
    multiplies the amplitude.

    Raises ValueError for shapes that do not fit, and where the band reaches beyond the references.
    """
    from . import ctf_refinement_kernels as kernels

    first = references[0]
    matrices = np.ascontiguousarray(rotations, dtype=np.float64)
    number = len(matrices)
    picked = np.arange(number) if rows is None else np.ascontiguousarray(rows, dtype=np.int64)
    count = len(band) if count is None else int(count)
    if count < 1:
        return LocalEquations(np.zeros(number), np.zeros(number), np.zeros((number, CTF_PARAMETERS)),
                              np.zeros((number, CTF_PARAMETERS, CTF_PARAMETERS)))
    form, phase = np.asarray(forms, dtype=np.float64), np.asarray(phases, dtype=np.float64)
    if form.shape != (number, 3) or phase.shape != (number,):
        raise ValueError(f"forms {form.shape} and phases {phase.shape} do not fit {number} projections")
    signal, power = np.asarray(amplitude, dtype=np.float64), np.asarray(noise, dtype=np.float64)
    shells = band.shell[:count].astype(np.intp)
    if signal.shape != power.shape or signal.ndim != 2 or signal.shape[1] <= shells[-1]:
        raise ValueError(f"amplitude {signal.shape} and noise {power.shape}: want (exposures, more than {shells[-1]})")
    reach = float(np.hypot(band.kx[:count], band.ky[:count].astype(float)).max())
    scales = check_scales(scale, number, reach, first.radius)
    to_data = np.ascontiguousarray((signal / power)[:, shells], dtype=np.float32)
    to_weight = np.ascontiguousarray((signal**2 / power)[:, shells], dtype=np.float32)
    form = np.ascontiguousarray(0.5 * wavelength * form / field**2)  # of Fourier pixels, in turns
    constant = np.ascontiguousarray(phase / (2.0 * np.pi))
    quartic = 0.25 * wavelength**3 * cs * 1e7 / field**4
    matrices = matrices * (scales * first.padded / first.box)
    cubes = flat_cubes(references)
    line = first.extent + 1
    plane = line * (2 * first.extent + 1)
    limit = int(max(band.kx[:count].max(), np.abs(band.ky[:count]).max()))
    turns = np.ascontiguousarray(np.asarray(shifts, dtype=np.float64) / field)
    choice = np.ascontiguousarray(which, dtype=np.int64)
    place = np.ascontiguousarray(exposure, dtype=np.int64)
    out = np.empty((number, kernels.SUMS))
    flat = np.ascontiguousarray(data).view(np.float32)
    radial = True if magnified else None

    def work(start: int, stop: int) -> None:
        scratch, offsets = np.empty((kernels.SCRATCH, kernels.CHUNK), np.float32), np.empty(kernels.CHUNK, np.int32)
        table = np.empty((4, 2 * limit + 1), np.float32)
        kernels.evaluate_ctf(out, flat, picked, to_data, to_weight, place, form, constant, quartic, matrices, turns, cubes,
                             choice, first.extent, line, plane, band.kx, band.ky, count, limit, premultiplied, radial,
                             scratch, offsets, table, start, stop)

    run_ranges(work, number, threads, pieces_per_thread=4)
    if gain is not None:
        factor = np.asarray(gain, dtype=np.float64)[:, None]
        out *= factor**2
        out[:, _FROM_DATA] /= factor
    bend = np.pi * wavelength * (limit / field) ** 2  # chi in radians of 1 A of defocus at the limit
    return _unpack(out, 2.0 * np.pi / field, np.array([bend, bend, bend, 1.0]), premultiplied)


def _unpack(sums: NDArray[np.float64], radians: float, units: NDArray[np.float64], premultiplied: bool) -> LocalEquations:
    """The kernel's sums as gradient and matrix.

    ``radians`` turn a Fourier pixel's phase into that of an angstrom, ``units`` (4,) chi's change in the sums into radians.
    """
    gradient = np.empty((len(sums), CTF_PARAMETERS))
    gradient[:, :3] = 2.0 * (sums[:, 7:10] - sums[:, 1:4])
    gradient[:, 3:5] = -2.0 * radians * sums[:, 4:6]
    gradient[:, AMPLITUDE] = 2.0 * (sums[:, 6] - sums[:, 0])
    gradient[:, _OPTICS] = 2.0 * units * (sums[:, 29:33] - sums[:, 25:29])
    gradient[:, MAGNIFICATION] = 2.0 * (sums[:, 56] - sums[:, 55])
    matrix = np.zeros((len(sums), CTF_PARAMETERS, CTF_PARAMETERS))  # a shift turns the phase: it meets no real factor of V
    matrix[:, :3, :3] = 2.0 * sums[:, 10 + _ROTATIONS]
    matrix[:, 3, 3], matrix[:, 4, 4] = 2.0 * radians**2 * sums[:, 22], 2.0 * radians**2 * sums[:, 24]
    matrix[:, 3, 4] = matrix[:, 4, 3] = 2.0 * radians**2 * sums[:, 23]
    matrix[:, _OPTICS, _OPTICS] = 2.0 * units[:, None] * units * sums[:, 45 + _CTF]
    matrix[:, AMPLITUDE, AMPLITUDE] = 2.0 * sums[:, 6]
    matrix[:, MAGNIFICATION, MAGNIFICATION] = 2.0 * sums[:, 60]

    def mixed(first: Any, second: Any, values: NDArray) -> None:
        matrix[:, first, second] = values
        matrix[:, second, first] = np.swapaxes(values, 1, 2) if values.ndim == 3 else values

    turns, shifts = slice(0, 3), slice(3, 5)
    mixed(turns, shifts, 2.0 * radians * sums[:, 16:22].reshape(-1, 3, 2))
    mixed(turns, AMPLITUDE, 2.0 * sums[:, 7:10])
    mixed(turns, _OPTICS, 2.0 * units * sums[:, 33:45].reshape(-1, 3, 4))
    mixed(turns, MAGNIFICATION, 2.0 * sums[:, 57:60])
    mixed(shifts, MAGNIFICATION, 2.0 * radians * sums[:, 61:63])
    mixed(_OPTICS, AMPLITUDE, 2.0 * units * sums[:, 29:33])
    mixed(_OPTICS, MAGNIFICATION, 2.0 * units * sums[:, 63:67])
    mixed(AMPLITUDE, MAGNIFICATION, 2.0 * sums[:, 56])
    if premultiplied:
        gradient[:, _OPTICS], matrix[:, _OPTICS], matrix[:, :, _OPTICS] = 0.0, 0.0, 0.0
    return LocalEquations(sums[:, 0].copy(), sums[:, 6].copy(), gradient, matrix)
