"""Radial filters of maps, the Guinier fit, and masks."""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from .fsc import inverse, resolutions, shell_blocks, transform


def filter_spectrum(spectrum: NDArray, box: int, curve: NDArray) -> NDArray[np.complex64]:
    """Multiply a half transform in place by ``curve``: a factor for each shell (any length); shells beyond it become 0."""
    factor = np.zeros(max(len(curve), int(np.ceil(box * 0.87)) + 2), np.float32)  # the corner is at sqrt(3) / 2 box
    factor[: len(curve)] = curve
    for planes, shell in shell_blocks(box):
        spectrum[planes] *= factor[shell]
    return spectrum


def radial_filter(volume: NDArray, curve: NDArray, threads: int = 1) -> NDArray[np.float32]:
    """The map ``(N, N, N)`` with its shells multiplied by ``curve`` ``(n,)``; shells beyond it become 0."""
    box = volume.shape[0]
    return inverse(filter_spectrum(transform(volume, threads), box, curve), box, threads)


def low_pass_curve(box: int, pixel: float, resolution: float, edge: float = 3.0) -> NDArray[np.float64]:
    """1 up to ``resolution`` (angstrom), then a raised cosine to 0 over ``edge`` shells, centred; ``(N//2+1,)``."""
    shell = np.arange(box // 2 + 1, dtype=np.float64)
    cut = box * pixel / resolution
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((shell - cut) / max(edge, 1e-6) + 0.5, 0.0, 1.0))


def low_pass(volume: NDArray, pixel: float, resolution: float, edge: float = 3.0, threads: int = 1) -> NDArray[np.float32]:
    """The map low-passed to ``resolution`` angstrom with a cosine edge of ``edge`` shells."""
    return radial_filter(volume, low_pass_curve(volume.shape[0], pixel, resolution, edge), threads)


def b_factor_curve(box: int, pixel: float, b_factor: float) -> NDArray[np.float64]:
    """exp(-B k^2 / 4) on every shell, B in square angstrom: a negative B sharpens."""
    return np.exp(-0.25 * b_factor / resolutions(box, pixel) ** 2)


def reference_weight(curve: NDArray) -> NDArray[np.float64]:
    """C_ref = sqrt(2 FSC / (1 + FSC)), Rosenthal and Henderson 2003: correlation of the full map with the true one."""
    clipped = np.clip(curve, 0.0, 1.0)
    return np.sqrt(2.0 * clipped / (1.0 + clipped))


class GuinierFit(NamedTuple):
    b_factor: float  # square angstrom, of the sharpening: negative for a map that falls off
    error: float  # its standard error, from the scatter of the shells about the line
    intercept: float  # ln amplitude at k = 0
    shells: Tuple[int, int]  # first and last shell of the fit


SPAN = 0.75  # finest over coarsest resolution of a B-factor's fit, at most


def guinier(
    power: NDArray, curve: NDArray, box: int, pixel: float, finest: float, coarsest: float = 10.0, least: int = 4
) -> Optional[GuinierFit]:
    """B-factor by a straight line through ln(C_ref |F|) against k^2 (Rosenthal and Henderson 2003).

    ``power`` mean |F|^2 and ``curve`` FSC of each shell ``(N//2+1,)``. The range is from ``coarsest`` to ``finest`` (angstrom);
    coarser than 10 A a spectrum follows the fold and not Wilson's statistics. None where fewer than ``least`` shells lie in it
    or it does not reach ``SPAN`` of the coarsest: over so little the fold's own ups and downs are far larger than any fall-off.
    """
    resolution = resolutions(box, pixel)
    weight = reference_weight(curve)
    use = (resolution <= coarsest) & (resolution >= finest) & (np.asarray(power) > 0) & (weight > 0)
    rows = np.flatnonzero(use)
    if len(rows) < least or finest > SPAN * coarsest:
        return None
    k2 = 1.0 / resolution[rows] ** 2
    amplitude = 0.5 * np.log(power[rows]) + np.log(weight[rows])
    slope, intercept = np.polyfit(k2, amplitude, 1)
    scatter = float(((amplitude - slope * k2 - intercept) ** 2).sum()) / (len(rows) - 2)
    error = np.sqrt(scatter / ((k2 - k2.mean()) ** 2).sum())
    return GuinierFit(float(4.0 * slope), float(4.0 * error), float(intercept), (int(rows[0]), int(rows[-1])))


def soft_sphere(box: int, radius: float, edge: float) -> NDArray[np.float32]:
    """1 inside ``radius`` about the centre, a raised cosine to 0 over ``edge`` beyond it (pixels); ``(N, N, N)``."""
    axis = (np.arange(box, dtype=np.float32) - box // 2) ** 2
    return _cosine_edge(np.sqrt(axis[:, None, None] + axis[:, None] + axis) - np.float32(radius), edge)


def _cosine_edge(distance: NDArray, edge: float) -> NDArray[np.float32]:
    """1 where ``distance`` <= 0, falling to 0 at ``edge``."""
    part = np.clip(distance * np.float32(1.0 / max(edge, 1e-6)), 0.0, 1.0)
    inside = (part > 0) & (part < 1)
    mask = (part <= 0).astype(np.float32)
    mask[inside] = 0.5 + 0.5 * np.cos(np.float32(np.pi) * part[inside])
    return mask


COARSER = 1.3  # factor between the low-passes that ``soft_mask`` tries


class Mask(NamedTuple):
    values: NDArray[np.float32]  # (N, N, N), 0..1
    automatic: bool  # False: the soft sphere
    reason: str  # one sentence for the journal
    threshold: float  # density of the low-passed map; NaN for the sphere
    volume: float  # cubic angstrom within the mask (sum of its values)


def soft_mask(
    volume: NDArray,
    pixel: float,
    resolution: Optional[float] = None,
    extend: Optional[float] = None,
    edge: Optional[float] = None,
    threads: int = 1,
) -> Mask:
    """A soft mask about the particle in a map ``(N, N, N)`` of white density; ``pixel`` in angstrom.

    The map is low-passed to ``resolution`` (default: the coarsest of 15 A and 4 pixels) and binned to suit; inside the largest
    sphere, the threshold of Otsu (1979) splits particle from background; the component with most density above it stays, its
    holes are filled, it is grown by ``extend`` (default: the larger of 1 pixel and 5 A) and gets a cosine edge of ``edge``
    (default: the larger of 3 pixels and 15 A). The component must hold 0.3 to 60 % of the sphere and stand 4 standard
    deviations of what is outside above it; while it does not, the low-pass is made coarser, up to a quarter of the box. If
    none will do, the mask is a soft sphere, and ``reason`` says why. It is never empty.
    """
    return soft_mask_of_spectra([transform(volume, threads)], volume.shape[0], pixel, resolution, extend, edge, threads)


def soft_mask_of_spectra(
    spectra: Sequence[NDArray],
    box: int,
    pixel: float,
    resolution: Optional[float] = None,
    extend: Optional[float] = None,
    edge: Optional[float] = None,
    threads: int = 1,
) -> Mask:
    """``soft_mask`` of a map given as half transforms (see ``fsc.transform``), whose sum it is."""
    field = box * pixel
    start = min(max(15.0, 4.0 * pixel) if resolution is None else resolution, field / 4)
    extend = max(pixel, 5.0) if extend is None else extend
    edge = max(3.0 * pixel, 15.0) if edge is None else edge
    steps = int(np.log(field / 4 / start) / np.log(COARSER))
    for used in [start * COARSER**step for step in range(steps + 1)] + [field / 4]:
        # 3.5 pixels to the resolution; the centres of an odd box and a binned one are not the same point.
        small = box if box % 2 else min(box, max(32, 2 * int(np.ceil(1.75 * field / used))))
        coarse = _crop_spectrum(spectra[0], box, small)
        for spectrum in spectra[1:]:
            coarse += _crop_spectrum(spectrum, box, small)
        filter_spectrum(coarse, small, low_pass_curve(small, field / small, used))
        component, threshold, reason = _particle(inverse(coarse, small, threads))
        if component is not None:
            break
    else:
        fallback = soft_sphere(box, 0.5 * box - max(1.0, edge / pixel) - 1.0, edge / pixel)
        return Mask(fallback, False, f"soft sphere: {reason}", float("nan"), float(fallback.sum(dtype=float)) * pixel**3)
    from scipy.ndimage import distance_transform_edt

    # Distance from the surface, which lies half a pixel outside the last voxel's centre; then up to the full grid.
    distance = distance_transform_edt(~component, sampling=field / small).astype(np.float32) - np.float32(0.5 * field / small)
    mask = _upsample(distance, box)
    for plane in mask:
        plane[...] = _cosine_edge(plane - np.float32(extend), edge)
    size = float(mask.sum(dtype=float)) * pixel**3
    return Mask(mask, True, f"map at {used:.1f} A, {reason}", threshold, size)


def _crop_spectrum(spectrum: NDArray, box: int, small: int) -> NDArray[np.complex64]:
    """The half transform of the same field on ``small`` pixels (both even); scaled so that densities stay."""
    if small == box:
        return np.array(spectrum, dtype=np.complex64)
    half = small // 2
    rows = np.r_[0:half, box - half : box]
    out = spectrum[np.ix_(rows, rows, np.arange(half + 1))] * np.float32((small / box) ** 3)
    out[half], out[:, half], out[:, :, half] = 0.0, 0.0, 0.0  # the Nyquist planes have no mate here
    return out.astype(np.complex64)


def _particle(binned: NDArray) -> Tuple[Optional[NDArray[np.bool_]], float, str]:
    """(component or None, threshold, reason) of a low-passed map."""
    from scipy.ndimage import binary_fill_holes, label
    from scipy.ndimage import sum as sum_of

    box = binned.shape[0]
    axis = (np.arange(box, dtype=np.float32) - box // 2) ** 2
    sphere = (axis[:, None, None] + axis[:, None] + axis) <= (0.5 * box - 1.0) ** 2
    values = binned[sphere]
    if not np.ptp(values) > 0:
        return None, float("nan"), "the map is flat"
    threshold = otsu(values)
    labels, count = label((binned > threshold) & sphere)
    if count == 0:
        return None, threshold, "nothing rises above the background"
    weight = sum_of(binned - threshold, labels, np.arange(1, count + 1))
    component = labels == 1 + int(np.argmax(weight))
    share = float(component.sum()) / float(sphere.sum())
    outside = binned[sphere & (labels == 0)]
    contrast = float(binned[component].mean() - outside.mean()) / max(float(outside.std()), 1e-30)
    if not 0.003 <= share <= 0.6:
        return None, threshold, f"the densest component fills {100 * share:.1f} % of the box's sphere (0.3 to 60 wanted)"
    if contrast < 4.0:
        return None, threshold, f"the densest component stands only {contrast:.1f} deviations above its surroundings (4 wanted)"
    reason = f"component of {100 * share:.1f} % of the box's sphere, {contrast:.1f} deviations above the rest"
    return binary_fill_holes(component), threshold, reason


def otsu(values: NDArray, bins: int = 256) -> float:
    """The threshold that maximises the variance between the two classes (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=bins)
    middle = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts, dtype=np.float64)
    moment = np.cumsum(counts * middle)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * below / below[-1] - moment) ** 2 / (below * above)
    return float(edges[1:][np.nanargmax(np.where(np.isfinite(between), between, -1.0))])


def _upsample(volume: NDArray, box: int) -> NDArray[np.float32]:
    """Linear interpolation of a cube to ``box`` pixels of the same field, centre on centre; the ends are extended.

    Without BLAS, whose last bits depend on the number of its threads: masks must be the same on every machine.
    """
    small = volume.shape[0]
    if small == box:
        return volume
    place = (np.arange(box) - box // 2) * (small / box) + small // 2
    place = np.clip(place, 0.0, small - 1.0)
    low = np.minimum(place.astype(int), small - 2)
    part = (place - low).astype(np.float32)
    planes = np.asarray(volume, np.float32)
    for axis in (2, 1):
        weight = part if axis == 2 else part[:, None]
        planes = planes.take(low, axis) * (1 - weight) + planes.take(low + 1, axis) * weight
    out = np.empty((box,) * 3, np.float32)
    for plane, first, weight in zip(out, low, part):  # plane by plane, so that the temporaries stay in the cache
        np.multiply(planes[first], 1 - weight, out=plane)
        plane += planes[first + 1] * weight
    return out


def mirrored(volume: NDArray) -> NDArray:
    """The volume with z -> -z about voxel N // 2: the other hand."""
    flipped = volume[::-1]
    return np.roll(flipped, 1, axis=0) if len(volume) % 2 == 0 else flipped
