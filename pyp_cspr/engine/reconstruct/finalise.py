"""From the summed accumulators of the two halves to maps, curves and mask.

An accumulator holds num = sum a C X / s^2 and den = sum a^2 C^2 / s^2 on the padded transform's grid (P = box * padding), the
rows of a half [z, y, x >= 0] with z and y centred. A map is num / (den + regularisation), transformed back about the centre,
cropped to the box, and divided by the sinc^2 that trilinear insertion multiplies it with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..core import filters
from ..core import fsc as shells
from ..core.fourier import gridding_factor
from ..core.insertion import Accumulator
from ..core.volumes import Inverse
from .postprocess import Journal, compare_transforms, fit_b_factor, signal_curve

# Voxels of the transform that hardly any slice touched keep at least this part of their shell's mean weight; their noise would
# swamp the half maps otherwise. Measured with 2 to 20 particles of +-60 degrees: 0.1 gives the best FSC to the truth (0.63
# against 0.60 at 0.02 and 0.54 at 0.003, half Nyquist), and costs 0.003 of it without noise. A Wiener filter needs no more than
# a guard against division by nearly nothing.
LEAST_WEIGHT = 0.1
LEAST_WEIGHT_WIENER = 1e-3
BLOCK_ELEMENTS = 1 << 20


@dataclass
class Finalised:
    """What a reconstruction ends with; maps are ``(N, N, N)`` float32, curves ``(N//2+1,)``."""

    half1: NDArray[np.float32]  # unfiltered, unmasked
    half2: NDArray[np.float32]
    map: NDArray[np.float32]  # both halves' sums, Wiener-filtered, unmasked
    sharpened: NDArray[np.float32]  # map with C_ref for its weight, B-factor, low-passed at the resolution
    mask: NDArray[np.float32]
    curves: Dict[str, NDArray[np.float64]]
    pixel: float
    resolution_0143: float  # angstrom, corrected FSC; inf where the halves do not correlate
    resolution_05: float
    b_factor: Optional[float]  # square angstrom, negative sharpens; None: no range to fit it in
    journal: List[Dict[str, Any]] = field(default_factory=list)


class _Plane(NamedTuple):
    """The x = 0 plane with its Friedel mates added: numerator and denominator ``(n, n)``."""

    numerator: NDArray[np.complex64]
    denominator: NDArray[np.float32]


def finalise(
    accumulator1: Accumulator,
    accumulator2: Accumulator,
    pixel: float,
    mask: Union[str, NDArray] = "auto",
    seed: int = 1,
    threads: int = 1,
    sharpen: bool = True,
) -> Finalised:
    """Maps, mask, curves and B-factor of two half accumulators; ``pixel`` in angstrom.

    Raises ValueError where the two do not fit each other.
    """
    box = accumulator1.box
    limit = min(int(np.floor(accumulator1.radius)), box // 2)
    half1 = solve(accumulator1, threads=threads)
    half2 = solve(accumulator2, threads=threads)
    spectra = (shells.transform(half1, threads), shells.transform(half2, threads))
    compared = compare_transforms((half1, half2), spectra, pixel, mask, limit, seed, threads)
    journal: Journal = list(compared.journal)
    resolution = compared.resolution_0143
    wiener = signal_curve(compared.curves["corrected"])
    if np.isfinite(resolution):
        filtered = solve((accumulator1, accumulator2), wiener=wiener, threads=threads)
        journal.append({"message": "map: Wiener filter from the corrected FSC", "value": resolution, "unit": "A"})
    else:
        filtered = 0.5 * (half1 + half2)
        journal.append({"message": "map: average of the halves, not filtered, because they do not correlate", "value": None})
    b_factor, sharpened = _sharpen(filtered, pixel, wiener, compared.power, resolution, sharpen, threads, journal)
    return Finalised(half1, half2, filtered, sharpened, compared.mask, compared.curves, pixel, resolution,
                     compared.resolution_05, b_factor, journal)


def _sharpen(
    filtered: NDArray,
    pixel: float,
    wiener: NDArray,
    power: NDArray,
    resolution: float,
    sharpen: bool,
    threads: int,
    journal: Journal,
) -> Tuple[Optional[float], NDArray[np.float32]]:
    """(B-factor or None, map): C_ref times exp(-B k^2 / 4), low-passed at the resolution.

    The Wiener map weighs a shell by 2 FSC / (1 + FSC) = C_ref^2, so C_ref is left after one division by it.
    """
    if not np.isfinite(resolution):
        return None, filtered.copy()
    box = len(filtered)
    fit = fit_b_factor(power, wiener, box, pixel, resolution, journal) if sharpen else None
    weight = filters.reference_weight(wiener)
    curve = np.divide(filters.low_pass_curve(box, pixel, resolution), weight, out=np.zeros_like(weight), where=weight > 0.1)
    if fit is not None:
        curve *= filters.b_factor_curve(box, pixel, fit.b_factor)
    return (fit.b_factor if fit else None), filters.radial_filter(filtered, curve, threads)


def solve(
    accumulator: Union[Accumulator, Sequence[Accumulator]], wiener: Optional[NDArray] = None, threads: int = 1
) -> NDArray[np.float32]:
    """The map ``(N, N, N)`` of an accumulator, or of the sum of a sequence of them, corrected for gridding.

    ``wiener`` is the FSC of the two halves, ``(N//2+1,)``: the denominator grows by its shell's mean times
    (1 - FSC) / (2 FSC), which is 1 / SSNR of the sum of the halves, and shells with FSC 0 become 0. Without it the map is
    unfiltered; the denominator then is at least ``LEAST_WEIGHT`` of its shell's mean. The mean density, which no data hold,
    is such that the mean outside the box's sphere is 0. Raises ValueError where accumulators do not fit.

    The inverse transform runs axis by axis over what is not zero, so that no padded volume is ever held.
    """
    halves: Sequence[Accumulator] = [accumulator] if isinstance(accumulator, Accumulator) else accumulator
    first = halves[0]
    box, padded = first.box, first.padded
    for other in halves[1:]:
        if (other.box, other.padded, other.extent) != (box, padded, first.extent):
            raise ValueError(f"accumulators of box {box}, {other.box} and padding {padded}, {other.padded} do not fit")
    ratio = padded / box
    reach = min(int(np.floor(first.radius * ratio + 1e-9)), padded // 2 - 1, first.extent)
    inner = slice(first.extent - reach, first.extent + reach + 1)  # beyond lie voxels that no full weight reaches
    sums, begin = tuple(one.sums for one in halves), np.ascontiguousarray(first.begin[inner, inner])
    plane = _friedel_plane(sums, begin, first.width[inner, inner])
    tables = _regularisation(sums, begin, plane, first.radius * ratio, ratio, wiener)
    volume = _without_background(_quotient(sums, begin, plane, box, padded, tables, first.radius * ratio, threads))
    correction = (1.0 / gridding_factor(box, padded)).astype(np.float32)
    volume *= (correction[:, None] * correction)[:, None, :]
    volume *= correction[:, None]
    return volume


def _friedel_plane(sums: Sequence[NDArray], begin: NDArray, width: NDArray) -> _Plane:
    numerator = np.zeros(begin.shape, np.complex128)
    denominator = np.zeros(begin.shape)
    inside = width > 0
    first = begin[inside]
    for one in sums:
        numerator[inside] += one[first, 0] + 1j * one[first, 1]
        denominator[inside] += one[first, 2]
    numerator = numerator + np.conj(numerator[::-1, ::-1])
    return _Plane(numerator.astype(np.complex64), (denominator + denominator[::-1, ::-1]).astype(np.float32))


def _regularisation(
    sums: Sequence[NDArray], begin: NDArray, plane: _Plane, radius: float, ratio: float, wiener: Optional[NDArray]
) -> Tuple[NDArray, NDArray, NDArray]:
    """(least denominator, addition to it, factor 0 or 1) for every padded shell."""
    from .finalise_kernels import add_weights

    count = int(np.ceil(np.sqrt(3.0) * (len(begin) // 2))) + 3
    total, voxels = np.zeros(count), np.zeros(count)
    add_weights(total, voxels, sums, begin, plane.denominator, radius)
    mean = total / np.maximum(voxels, 1)
    least = LEAST_WEIGHT if wiener is None else LEAST_WEIGHT_WIENER
    extra = np.zeros(count)
    keep = np.ones(count)
    if wiener is not None:
        place = np.arange(count) / ratio
        curve = np.interp(place, np.arange(len(wiener)), np.clip(wiener, 0.0, 1.0), right=0.0)
        keep = (curve > 0).astype(float)
        extra = mean * np.divide(1.0 - curve, 2.0 * curve, out=np.zeros(count), where=curve > 0)
    return least * mean, extra, keep


def _quotient(
    sums: Sequence[NDArray],
    begin: NDArray,
    plane: _Plane,
    box: int,
    padded: int,
    tables: Tuple[NDArray, NDArray, NDArray],
    radius: float,
    threads: int,
) -> NDArray[np.float32]:
    """num / den, transformed back and cropped: ``(N, N, N)``."""
    from .finalise_kernels import divide

    size = len(begin)
    reach = size // 2
    cube = Inverse(box, padded, np.arange(-reach, reach + 1) % padded, reach + 1, threads)
    step = max(1, BLOCK_ELEMENTS // (padded * (reach + 1)))
    for low in range(0, size, step):
        column = np.empty((padded, min(step, size - low), reach + 1), np.complex64)
        divide(column, sums, begin, plane.numerator, plane.denominator, radius, *tables, low)
        cube.add(column, low, np.arange(padded))
    return cube.finish()


def _without_background(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """In place: less the mean outside the box's sphere."""
    box = len(volume)
    axis = np.arange(box, dtype=np.float32) - box // 2
    yx = axis[:, None] ** 2 + axis**2
    background, count = 0.0, 0
    step = max(1, BLOCK_ELEMENTS // box**2)
    for low in range(0, box, step):
        zs = slice(low, min(low + step, box))
        outside = axis[zs, None, None] ** 2 + yx > (box // 2) ** 2
        background += float(volume[zs].sum(where=outside, dtype=np.float64))
        count += int(outside.sum())
    volume -= np.float32(background / max(count, 1))
    return volume
