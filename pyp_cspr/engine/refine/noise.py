"""Signal amplitude and noise power of every exposure, shell by shell, measured against the current model.

With X the coefficients, Y0 = C V e the model, and sums over the particles of an exposure e in a shell b,

    a = sum Re(X Y0*) / sum |Y0|^2,    s^2 = mean |X - a Y0|^2,

where the amplitude is smoothed by what is known of it: a_e(k) = g_e exp(-B_e k^2 / 4) d_e(k) c(k), with the dose filter and
thickness d_e to start from, one curve c for the series, and a factor and a B-factor for each exposure. Its weight
is a^2 / s^2: damage, ice and motion lower it by themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.refinement import LocalEquations

B_FACTORS = np.arange(-100.0, 801.0, 25.0)  # square angstrom, tried for each exposure relative to the series' curve
ROUNDS = 4  # of fitting the curve and the exposures in turn


class ShellSums(NamedTuple):
    """Sums over the projections of each exposure and shell, ``(E, shells)``."""

    match: NDArray[np.float64]  # Re X Y0*, which with the next gives the amplitude
    model: NDArray[np.float64]  # |Y0|^2
    data: NDArray[np.float64]  # |X|^2, which with the next three gives the noise
    number: NDArray[np.float64]  # of coefficients, in units of their noise
    noise_match: NDArray[np.float64]  # as match and model, in the units of data
    noise_model: NDArray[np.float64]


class Spectra(NamedTuple):
    """``amplitude`` a and ``noise`` s^2, ``(E, shells)``; ``factor`` g and ``b_factor`` B of each exposure ``(E,)``.

    ``level`` is the series' own: least squares of its amplitudes against d_e g_e exp(-B_e k^2 / 4), in units of the model.
    """

    amplitude: NDArray[np.float64]
    noise: NDArray[np.float64]
    factor: NDArray[np.float64]
    b_factor: NDArray[np.float64]
    level: float


def smooth(values: NDArray, count: NDArray) -> NDArray[np.float64]:
    """Mean over three shells (weights 1, 2, 1 times ``count``); shells that hold nothing take a neighbour's."""
    weights = np.where(count > 0, count, 0.0)
    padded = np.pad(weights * np.where(count > 0, values, 0.0), ((0, 0), (1, 1)))
    norm = np.pad(weights, ((0, 0), (1, 1)))
    top = 0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]
    bottom = 0.25 * norm[:, :-2] + 0.5 * norm[:, 1:-1] + 0.25 * norm[:, 2:]
    result = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
    for row, good in zip(result, bottom > 0):
        if good.any():
            where = np.arange(len(row))
            row[~good] = row[good][np.abs(where[~good, None] - where[good]).argmin(axis=1)]
    return result


def without_own_noise(sums: ShellSums, share: NDArray) -> ShellSums:
    """The sums as a reference without the images' own noise would give them; ``share`` (shells,) is the signal's part of
    the reference's power, its FSC f.

    A half map of signal S and noise N = S (1 - f) / f, times its Wiener filter f, matches data that are part of it by
    f S + f N = S, where only f S is the signal's: the noise of an image was added to the map and is found again in the
    image. Left alone it makes amplitudes too large, noise too low and uncertainties too small.
    """
    known = np.clip(share, 0.0, 1.0)
    return sums._replace(match=sums.match * known, noise_match=sums.noise_match * known)


def fit_spectra(sums: ShellSums, prior: NDArray, k: NDArray) -> Spectra:
    """Amplitudes and noise from the sums; ``prior`` d_e(k) ``(E, shells)`` and ``k`` in 1/angstrom ``(shells,)``.

    An exposure in which nothing matches the model keeps a small amplitude, so that it weighs little and is still refined. The
    level is at least its own standard deviation, and 1 where there is no model.
    """
    exposures = len(prior)
    factor, b_factor = np.ones(exposures), np.zeros(exposures)
    noise = _noise(sums, np.zeros_like(prior))
    seen = sums.number.sum(axis=0) > 0
    curve = np.ones(len(k))
    for _ in range(ROUNDS):
        shape = prior * factor[:, None] * np.exp(-0.25 * b_factor[:, None] * k**2)
        top = (shape * sums.match / noise).sum(axis=0)
        bottom = (shape**2 * sums.model / noise).sum(axis=0)
        raw = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
        weights = np.where(seen, bottom, 0.0)[None]
        curve = smooth(raw[None], weights)[0]
        curve = np.maximum(curve, 0.02 * curve.max(initial=1e-12))
        factor, b_factor = _fit_exposures(sums, prior * curve, noise, k)
        # The curve holds the scale of the series, the exposures only what differs between them.
        factor = factor / max(float(np.median(factor)), 1e-12)
        b_factor = b_factor - np.median(b_factor)
        amplitude = prior * curve * factor[:, None] * np.exp(-0.25 * b_factor[:, None] * k**2)
        scale = (amplitude * sums.match / noise).sum() / max((amplitude**2 * sums.model / noise).sum(), 1e-300)
        amplitude = amplitude * max(scale, 1e-6)
        noise = _noise(sums, amplitude)
    shape = relative_amplitude(prior, factor, b_factor, k)
    top, bottom = (shape * sums.match / noise).sum(), (shape**2 * sums.model / noise).sum()
    level = max(top, np.sqrt(0.5 * bottom)) / bottom if bottom > 0 else 1.0
    return Spectra(amplitude, noise, factor, b_factor, float(level))


def relative_amplitude(prior: NDArray, factor: NDArray, b_factor: NDArray, k: NDArray) -> NDArray[np.float64]:
    """d g exp(-B k^2 / 4): ``prior`` (..., shells), ``factor`` and ``b_factor`` (...). At most 4 times the prior's largest: of
    exposures in which nothing matches, factors are wild."""
    amplitude = prior * factor[..., None] * np.exp(-0.25 * b_factor[..., None] * k**2)
    return np.minimum(amplitude, 4.0 * prior.max(axis=-1, keepdims=True))


def _fit_exposures(sums: ShellSums, shape: NDArray, noise: NDArray, k: NDArray) -> tuple[NDArray, NDArray]:
    """The factor and B-factor of each exposure that explain most: the maximum of (sum a A)^2 / sum a^2 B over B-factors."""
    damp = np.exp(-0.25 * B_FACTORS[:, None] * k**2)  # (tried, shells)
    top = damp @ (shape * sums.match / noise).T  # (tried, E)
    bottom = np.maximum(damp**2 @ (shape**2 * sums.model / noise).T, 1e-300)
    gain = np.maximum(top, 0.0) ** 2 / bottom
    # Without signal any B-factor explains as much; a weak prior of 200 A^2 about none decides.
    best = (gain - 0.5 * (B_FACTORS[:, None] / 200.0) ** 2).argmax(axis=0)
    picked = np.arange(len(shape))
    factor = np.maximum(top[best, picked] / bottom[best, picked], 0.05)
    return factor, B_FACTORS[best]


def _noise(sums: ShellSums, amplitude: NDArray) -> NDArray[np.float64]:
    """Mean square residual, smoothed, and not below a thousandth of the exposure's mean."""
    residual = sums.data - 2.0 * amplitude * sums.noise_match + amplitude**2 * sums.noise_model
    power = np.divide(residual, sums.number, out=np.zeros_like(residual), where=sums.number > 0)
    power = smooth(power, sums.number)
    floor = 1e-3 * (residual.sum(axis=1) / np.maximum(sums.number.sum(axis=1), 1.0))
    return np.maximum(power, np.maximum(floor[:, None], 1e-12))


def robust_weights(local: LocalEquations, huber: float) -> NDArray[np.float64]:
    """Huber's weights min(1, c / |z|) ``(P,)`` of projections; 1 for all where c = ``huber`` is 0.

    z = (power - match) / sqrt(power / 2) is normal with variance 1 where a projection is the model and noise. What all share
    (poses still to be found, amplitudes too large) is taken off: the median, and the scale where it is above 1.
    """
    if huber <= 0 or not len(local.power):
        return np.ones(len(local.power))
    z = (local.power - local.match) / np.sqrt(np.maximum(0.5 * local.power, 1e-30))
    z -= np.median(z)
    away = np.abs(z) / max(1.0, 1.4826 * float(np.median(np.abs(z))))
    weights: NDArray[np.float64] = huber / np.maximum(away, huber)
    return weights
