"""From two half maps to curves, mask, B-factor and a sharpened map: for reconstruction and the commands fsc and postprocess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..core import filters
from ..core import fsc as shells

CURVES = ("unmasked", "masked", "phase_randomised", "corrected")
LEAST_SIGNAL = 0.01  # FSC below which the Wiener filter does not go
Journal = List[Dict[str, Any]]


@dataclass
class Comparison:
    """Two half maps compared. ``curves`` holds the four of ``CURVES``, each ``(N//2+1,)``."""

    curves: Dict[str, NDArray[np.float64]]
    mask: NDArray[np.float32]  # (N, N, N)
    resolution_0143: float  # angstrom, where the corrected curve falls below 0.143; inf: nowhere above
    resolution_05: float
    power: NDArray[np.float64]  # mean |F|^2 of the masked sum of the halves, per shell
    journal: Journal


def compare_halves(
    half1: NDArray,
    half2: NDArray,
    pixel: float,
    mask: Union[str, NDArray] = "auto",
    limit: Optional[int] = None,
    seed: int = 1,
    threads: int = 1,
) -> Comparison:
    """FSC curves of two half maps ``(N, N, N)``: unmasked, masked, phase-randomised, corrected (Chen et al. 2013).

    ``mask`` is "auto", "none" or an array; ``limit`` the last shell that holds data (curves are 0 beyond). Raises ValueError
    where the shapes do not fit.
    """
    if half1.shape != half2.shape or half1.ndim != 3 or len(set(half1.shape)) != 1:
        raise ValueError(f"two equal cubes are needed, not {half1.shape} and {half2.shape}")
    return compare_transforms((half1, half2), (shells.transform(half1, threads), shells.transform(half2, threads)), pixel, mask,
                              limit, seed, threads)


def compare_transforms(
    halves: Tuple[NDArray, NDArray],
    spectra: Tuple[NDArray, NDArray],
    pixel: float,
    mask: Union[str, NDArray] = "auto",
    limit: Optional[int] = None,
    seed: int = 1,
    threads: int = 1,
) -> Comparison:
    """``compare_halves`` with the half transforms of the maps at hand; ``spectra`` are left as they are."""
    box = halves[0].shape[0]
    journal: Journal = []
    sums = shells.shell_sums(box, *spectra)
    power = sums[1] / sums[3]
    # Our own maps end before Nyquist's shell: what is there came through the correction for gridding, and masks add to it.
    last = box // 2 - int(power[-1] < 0.1 * power[-2]) if limit is None else limit
    unmasked = _within(shells.curve_of_sums(*sums[:3]), last)
    values = _mask(spectra, box, pixel, mask, unmasked, threads, journal)

    bare = isinstance(mask, str) and mask == "none"
    masked1, masked2 = spectra if bare else tuple(shells.transform(half * values, threads) for half in halves)
    cross, power1, power2, number = shells.shell_sums(box, masked1, masked2)
    masked = _within(shells.curve_of_sums(cross, power1, power2), last)
    power = (power1 + power2 + 2.0 * cross) / number
    del masked1, masked2

    start = shells.randomise_from(unmasked[: last + 1])
    random = masked.copy()
    if start is None:
        journal.append({"message": "phases not randomised: the unmasked FSC stays above 0.8", "value": None})
    else:
        turned = []
        for number, spectrum in enumerate(spectra):
            noise = shells.randomise_phases(spectrum, box, start, seed=2 * seed + number)
            if not bare:
                noise = shells.transform(shells.inverse(noise, box, threads) * values, threads)
            turned.append(noise)
        random = _within(shells.correlate(box, turned[0], turned[1]), last)
        journal.append({"message": "phases randomised from", "value": float(box * pixel / start), "unit": "A"})
    corrected = _within(shells.correct(masked, random, start), last)
    resolution = shells.resolution_at(corrected, 0.143, box, pixel)
    if not np.isfinite(resolution):
        journal.append({"message": "the halves do not correlate: the corrected FSC starts below 0.143", "value": None})
    elif not (corrected[1 : last + 1] < 0.143).any():
        resolution = box * pixel / last
        journal.append({"message": "the corrected FSC stays above 0.143 up to the last shell: a smaller pixel may show more",
                        "value": resolution, "unit": "A"})
    return Comparison(dict(zip(CURVES, (unmasked, masked, random, corrected))), values, resolution,
                      shells.resolution_at(corrected, 0.5, box, pixel), power, journal)


def _within(curve: NDArray, last: int) -> NDArray[np.float64]:
    curve[last + 1 :] = 0.0
    return curve


def _mask(
    spectra: Tuple[NDArray, NDArray],
    box: int,
    pixel: float,
    mask: Union[str, NDArray],
    unmasked: NDArray,
    threads: int,
    journal: Journal,
) -> NDArray[np.float32]:
    if not isinstance(mask, str):
        values = np.asarray(mask, np.float32)
        if values.shape != (box, box, box):
            raise ValueError(f"mask {values.shape} does not fit maps of {box} pixels")
        journal.append({"message": "mask given", "value": float(values.mean()), "unit": "of the box"})
        return values
    if mask == "none":
        return np.ones((box, box, box), np.float32)
    if mask != "auto":
        raise ValueError(f"mask {mask!r}: auto, none or an array")
    # No finer than what the halves agree on: noise must not shape the mask.
    reliable = shells.resolution_at(unmasked, 0.5, box, pixel)
    limit = max(15.0, 4.0 * pixel, reliable if np.isfinite(reliable) else 0.0)
    made = filters.soft_mask_of_spectra(spectra, box, pixel, resolution=limit, threads=threads)
    journal.append({"message": f"automatic mask: {made.reason}", "value": made.volume, "unit": "A^3"})
    return made.values


def signal_curve(corrected: NDArray) -> NDArray[np.float64]:
    """The FSC as a signal-to-noise ratio may be taken from it: ``LEAST_SIGNAL`` to 0.999.

    From the first shell at or below 0 on it is ``LEAST_SIGNAL``: what little is there is damped to a hundredth, not removed, so
    that a map can still be compared with a better one. The first two shells, where few coefficients lie, take the value of
    the third if they are lower.
    """
    curve = np.clip(np.asarray(corrected, dtype=np.float64), 0.0, 0.999)
    if len(curve) > 3:
        curve[:3] = np.maximum(curve[:3], curve[3])
    gone = np.flatnonzero(curve <= 0.0)
    if len(gone):
        curve[gone[0] :] = 0.0
    return np.maximum(curve, LEAST_SIGNAL)


def fit_b_factor(
    power: NDArray, curve: NDArray, box: int, pixel: float, resolution: float, journal: Journal
) -> Optional[filters.GuinierFit]:
    """The B-factor of a map whose shells have ``power`` and the FSC ``curve``, from 10 A to ``resolution`` (angstrom).

    None, with the reason in the journal, where too few shells are in the range or their power does not fall off.
    """
    fit = filters.guinier(power, curve, box, pixel, finest=resolution)
    if fit is None:
        journal.append({"message": f"no B-factor: 10 A to {resolution:.1f} A is too short a range", "value": None})
        return None
    if fit.b_factor > -2.0 * fit.error:
        said = f"{fit.b_factor:.0f} +- {fit.error:.0f} A^2 from shells {fit.shells[0]} to {fit.shells[1]}"
        journal.append({"message": f"no B-factor: {said} is not a fall-off", "value": None})
        return None
    said = f"B-factor from shells {fit.shells[0]} to {fit.shells[1]}, 10 A to the resolution, +- {fit.error:.0f} A^2"
    journal.append({"message": said, "value": fit.b_factor, "unit": "A^2"})
    return fit


@dataclass
class Sharpened:
    """What post-processing of two half maps ends with."""

    map: NDArray[np.float32]  # (N, N, N), not masked
    compared: Comparison
    resolution: float  # angstrom, of the low-pass
    b_factor: Optional[float]  # square angstrom, negative sharpens; None: not sharpened


def sharpen_halves(
    half1: NDArray,
    half2: NDArray,
    pixel: float,
    mask: Union[str, NDArray] = "auto",
    b_factor: Union[str, float] = "auto",
    resolution: float = 0.0,
    seed: int = 1,
    threads: int = 1,
) -> Sharpened:
    """The average of two half maps ``(N, N, N)``, weighted by C_ref, sharpened, and low-passed (Rosenthal and Henderson 2003).

    ``mask`` as in ``compare_halves``; ``b_factor`` in square angstrom, or "auto" for that of the Guinier plot; ``resolution``
    of the low-pass in angstrom, 0 for that of the corrected FSC at 0.143. Halves that do not correlate are averaged and left
    as they are, unless both are given. Raises ValueError where the shapes do not fit.
    """
    compared = compare_halves(half1, half2, pixel, mask, seed=seed, threads=threads)
    box, journal = len(half1), compared.journal
    average = (0.5 * (half1 + half2)).astype(np.float32)
    limit = resolution or compared.resolution_0143
    if not np.isfinite(limit):
        journal.append({"message": "map: average of the halves, neither weighted nor sharpened", "value": None})
        return Sharpened(average, compared, limit, None)
    limit = max(limit, 2.0 * pixel)
    signal = signal_curve(compared.curves["corrected"])
    factor: Optional[float] = None
    if isinstance(b_factor, str):
        fit = fit_b_factor(compared.power, signal, box, pixel, limit, journal)
        factor = fit.b_factor if fit else None
    else:
        factor = float(b_factor)
        journal.append({"message": "B-factor given", "value": factor, "unit": "A^2"})
    curve = filters.reference_weight(signal) * filters.low_pass_curve(box, pixel, limit)
    if factor is not None:
        curve *= filters.b_factor_curve(box, pixel, factor)
    return Sharpened(filters.radial_filter(average, curve, threads), compared, limit, factor)
