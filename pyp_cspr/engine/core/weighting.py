"""Weighted coefficients: D = a C X exp(+2 pi i k.r) / s^2 and W = a^2 C^2 / s^2, ready for insertion.

X is the transform of a crop, C its CTF, a(|k|) the amplitude and s^2(|k|) the noise power of its exposure, and r = u - u_crop
where the particle's centre lies from the crop's. Their sums over projections are a map's numerator and denominator.
"""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import run_ranges
from .band import Band

COMMON_STEP = 0.25  # Fourier pixels between the values of ``common_weight``

def dose_amplitude(k: ArrayLike, dose_before: ArrayLike, dose: ArrayLike, voltage: float) -> NDArray[np.float64]:
    """Signal amplitude left at the middle of an exposure: exp(-(dose_before + dose / 2) / (2 Nc(k))).

    ``k`` in 1/angstrom, doses in e/A^2, ``voltage`` in kV; shapes broadcast. Nc = 0.24499 k^-1.6649 + 2.8141 at 300 kV and 0.8
    of it at 200 kV (Grant and Grigorieff 2015, eLife 4:e06980), linear in the voltage between and beyond, but at least 0.4
    of it. 1 at k = 0.
    """
    k = np.asarray(k, dtype=np.float64)
    positive = k > 0
    critical = 0.24499 * np.where(positive, k, 1.0) ** -1.6649 + 2.8141
    critical = critical * max(0.4, 0.8 + 0.2 * (voltage - 200.0) / 100.0)
    middle = np.asarray(dose_before, float) + 0.5 * np.asarray(dose, float)
    return np.where(positive, np.exp(-middle / (2.0 * critical)), 1.0)


def score_weight(k: ArrayLike, score: float, fraction: float = 4.0, transition: float = 0.75) -> NDArray[np.float64]:
    """PYP's weight of an exposure by its mean score: exp(-transition (1 - score^fraction)^4 exp(7.62 k)).

    ``k`` in cycles for each pixel of the images; ``score`` from 0, the worst exposure, to 1, the best, whose weight is 1.
    Defaults are PYP's reconstruct_dose_weighting_fraction and _transition.
    """
    return np.exp(-transition * (1.0 - score**fraction) ** 4 * np.exp(7.62 * np.asarray(k, dtype=np.float64)))


def common_weight(
    field: float, radius: float, defocus: ArrayLike, phase: ArrayLike, wavelength: ArrayLike, cs: ArrayLike, number: ArrayLike
) -> NDArray[np.float64]:
    """Factor g(k) of all D and W of a run, at every ``COMMON_STEP`` of a Fourier pixel of ``field`` angstrom, past ``radius``.

    In num / den a factor that all images share cancels, but for this: a voxel's value is the mean over all samples within a
    voxel of it, so where weights rise or fall steeply it is that of the heavier side. Below the CTF's first extremum C^2 grows
    like k^4, behind it it falls, in all images much alike. g is 1 / mean C^2, smoothed over two voxels, and times k / k1 below
    the first extremum k1 of the mean, because the density of slices goes as 1 / k. From the minimum behind it on g stays as it
    is there, and it is at most 1 / 0.3: what all images have nothing of must not count as much as its neighbours. Measured at
    padding 1 (4,000 projections, defocus 2 to 4 um): the FSC to the truth of shell 3 rises from 0.989 to 0.9999, that of shell
    9 from 0.994 to 0.998.

    Of each exposure (E,): mean ``defocus`` in angstrom, ``phase`` in radians (``ctf.phase_offset``), ``wavelength`` in angstrom
    and the ``number`` of its projections; ``cs`` (E,) in mm.
    """
    pixels = np.arange(0.0, radius + 2.0, COMMON_STEP)
    weight = np.asarray(number, dtype=np.float64)
    if not weight.sum() > 0:
        return np.ones(len(pixels))
    mean, lam, aberration = (np.asarray(values, np.float64)[:, None] for values in (defocus, wavelength, cs))
    k2 = (pixels / field) ** 2
    chi = np.pi * lam * mean * k2 - 0.5 * np.pi * lam**3 * aberration * 1e7 * k2**2 + np.asarray(phase, np.float64)[:, None]
    square = weight @ np.sin(chi) ** 2 / weight.sum()
    reach = int(round(1.0 / COMMON_STEP))
    kernel = 1.0 - np.abs(np.arange(-reach, reach + 1)) * COMMON_STEP  # what trilinear insertion spreads a sample over
    for _ in range(2):
        square = np.convolve(np.pad(square, reach, mode="edge"), kernel / kernel.sum(), "valid")
    falls, rises = np.diff(square) <= 0, np.diff(square) > 0
    first = int(np.argmax(falls)) if falls.any() else len(square) - 1
    second = first + int(np.argmax(rises[first:])) if rises[first:].any() else len(square) - 1
    square[second:] = square[second]
    least = np.where(np.arange(len(square)) < first, 0.003, 0.3) * square[first]
    factor: NDArray[np.float64] = square[first] / np.maximum(square, least)
    return factor * np.minimum(pixels / pixels[first], 1.0) if first else factor


def ctf_values(
    band: Band,
    field: float,
    defocus_form: ArrayLike,
    phase: ArrayLike,
    wavelength: float,
    cs: float,
    threads: int = 1,
) -> NDArray[np.float32]:
    """C of every coefficient, ``(B, len(band))``, by the same arithmetic as ``weigh``.

    ``field`` is the crop's field of view in angstrom; ``defocus_form`` ``(B, 3)`` and ``phase`` ``(B,)`` are those of
    ``ctf.defocus_form`` (angstrom) and ``ctf.phase_offset`` (radians); ``wavelength`` in angstrom, ``cs`` in mm.
    """
    from . import weighting_kernels as kernels

    form, constant, quartic = chi_in_turns(defocus_form, phase, wavelength, cs)
    kx, ky = frequencies(band, field)
    out = np.empty((len(form), len(band)), np.float32)
    run_ranges(lambda i, j: kernels.fill_ctf(out, kx, ky, form, constant, quartic, i, j), len(form), threads)
    return out


def weigh(
    coefficients: NDArray[np.complex64],
    band: Band,
    field: float,
    residual: ArrayLike,
    defocus_form: ArrayLike,
    phase: ArrayLike,
    wavelength: float,
    cs: float,
    amplitude: ArrayLike,
    power: ArrayLike,
    premultiplied: bool = False,
    threads: int = 1,
    which: Optional[ArrayLike] = None,
    common: ArrayLike = 1.0,
) -> NDArray[np.float32]:
    """Turn X into D in place and return W, ``(B, len(band))``.

    ``coefficients`` (B, len(band)) X, or C X where ``premultiplied``; ``residual`` ``(B, 2)`` r in angstrom; ``amplitude`` a
    and ``power`` s^2 by shell, each ``(n_shells,)`` or ``(T, n_shells)`` with n_shells > the band's last shell; ``which`` (B,)
    says which of the T tables is each image's (default: the only one, or one each); ``common`` (n,) multiplies D and W (see
    ``common_weight``). The others as in ``ctf_values``. Raises ValueError for shapes that do not fit and for
    noise power that is not above 0.
    """
    from . import weighting_kernels as kernels

    form, constant, quartic = chi_in_turns(defocus_form, phase, wavelength, cs)
    moved = np.ascontiguousarray(residual, dtype=np.float64)
    count = len(form)
    if coefficients.dtype != np.complex64 or coefficients.shape != (count, len(band)) or not coefficients.flags.c_contiguous:
        raise ValueError(f"coefficients must be contiguous complex64 of shape {(count, len(band))}")
    if moved.shape != (count, 2):
        raise ValueError(f"residual has the shape {moved.shape}, want {(count, 2)}")
    signal, noise = np.atleast_2d(np.asarray(amplitude, float)), np.atleast_2d(np.asarray(power, float))
    tables = max(len(signal), len(noise))
    if which is None:
        which = np.arange(count) if tables == count else np.zeros(count, np.int64)
    table = np.ascontiguousarray(which, dtype=np.int64)
    fits = {len(signal), len(noise)} <= {1, tables} and table.shape == (count,)
    fits = fits and bool(((table >= 0) & (table < tables)).all())
    if min(signal.shape[1], noise.shape[1]) <= band.shell[-1] or not fits:
        want = f"{count} images of {int(band.shell[-1]) + 1} shells"
        raise ValueError(f"amplitude {signal.shape} and power {noise.shape} do not fit {want}")
    used = slice(1, int(band.shell[-1]) + 1)  # shell 0 has no coefficient
    if not (noise[:, used] > 0).all():
        raise ValueError("the noise power must be above 0 in every shell")
    shells = band.shell.astype(np.intp)
    signal, noise = signal[:, shells], noise[:, shells]
    to_data = np.ascontiguousarray(common * signal / noise, dtype=np.float32)
    to_weight = np.ascontiguousarray(common * signal**2 / noise, dtype=np.float32)
    kx, ky = frequencies(band, field)
    weight = np.empty(coefficients.shape, np.float32)
    data = coefficients.view(np.float32)

    def work(start: int, stop: int) -> None:
        kernels.weigh(
            data, weight, kx, ky, form, constant, quartic, moved, table, to_data, to_weight, premultiplied, start, stop
        )

    run_ranges(work, count, threads)
    return weight


def frequencies(band: Band, field: float) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """kx and ky of the band in 1/angstrom; ``field`` in angstrom, ValueError where it is not above 0."""
    if not field > 0:
        raise ValueError(f"field of view {field}: it must be above 0")
    return band.kx / float(field), band.ky / float(field)


def chi_in_turns(
    defocus_form: ArrayLike, phase: ArrayLike, wavelength: float, cs: float
) -> Tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """chi / (2 pi) as a quadratic form ``(B, 3)``, a constant ``(B,)`` and the factor of -|k|^4."""
    form = np.asarray(defocus_form, dtype=np.float64)
    if form.ndim != 2 or form.shape[1] != 3:
        raise ValueError(f"defocus_form has the shape {form.shape}, want (B, 3)")
    constant = np.broadcast_to(np.asarray(phase, np.float64) / (2.0 * np.pi), (len(form),))
    return np.ascontiguousarray(0.5 * wavelength * form), np.ascontiguousarray(constant), 0.25 * wavelength**3 * cs * 1e7
