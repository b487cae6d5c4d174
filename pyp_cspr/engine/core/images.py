"""Statistics of an image, and crops of it."""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np
from numpy.typing import NDArray

OUTLIER = 8.0  # standard deviations: X-rays and hot pixels, beyond what 10^8 pixels of noise reach
MOST_OUTLIERS = 1e-4  # of the pixels
CLIP_ROUNDS = 4


def robust_statistics(image: NDArray) -> Tuple[float, float]:
    """Mean and standard deviation of an image (ny, nx), without the few pixels beyond OUTLIER deviations.

    Where more than MOST_OUTLIERS of the pixels are beyond, they are the image (bright particles on an empty background, say)
    and all are kept. Sums are float64; both are NaN where a pixel is not a number.
    """
    image = _native(image)
    mean, deviation, _, least, largest = _moments(image, -np.inf, np.inf)
    allowed = max(2, int(MOST_OUTLIERS * image.size))
    for _ in range(CLIP_ROUNDS):
        low, high = mean - OUTLIER * deviation, mean + OUTLIER * deviation
        if not np.isfinite(mean) or (least >= low and largest <= high):
            break
        clipped = _moments(image, low, high)
        if image.size - clipped[2] > allowed:
            break
        mean, deviation, _, least, largest = clipped
    return mean, deviation


def _moments(image: NDArray, low: float, high: float) -> Tuple[float, float, int, float, float]:
    """(mean, standard deviation, count of the pixels from ``low`` to ``high``; least, largest of them)."""
    from .image_kernels import LANES, moments

    with np.errstate(invalid="ignore"):
        start = float(np.median(image[0].astype(np.float32)))  # sums about it lose no digits, which one wild pixel cannot move
    if not np.isfinite(start):
        start = 0.0
    scratch = np.empty(image.shape[1], np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    count, total, square, least, largest = moments(image, start, float(low), float(high), *scratch)
    if not count:
        return float("nan"), float("nan"), 0, float(least), float(largest)
    mean = total / count
    return start + mean, float(np.sqrt(max(square / count - mean * mean, 0.0))), int(count), float(least), float(largest)


def cut_crops(
    image: NDArray, low: NDArray[np.int64], begin: NDArray[np.int64], end: NDArray[np.int64],
    box: int, mean: float, factor: float,
) -> NDArray[np.float32]:
    """``(image - mean) * factor`` in crops ``(B, box, box)``, 0 outside the image.

    ``low``, ``begin``, ``end`` (B, 2) are x, y of each crop's first pixel, and of the first and the end of its part that lies
    inside the image (ny, nx).
    """
    from .image_kernels import cut

    crops = np.empty((len(low), box, box), np.float32)
    cut(crops, _native(image, *_rows(begin, end)), low, begin, end, float(mean), np.float32(factor))
    return crops


def _rows(begin: NDArray, end: NDArray) -> Tuple[int, int]:
    """First and end of the image's rows in use."""
    return (int(begin[:, 1].min()), int(end[:, 1].max())) if len(begin) else (0, 0)


def _native(image: NDArray, first: int = 0, last: Optional[int] = None) -> NDArray:
    """The image in a type that kernels take. Half precision and foreign byte orders are copied, rows ``first`` to ``last``."""
    if image.dtype.isnative and image.dtype != np.float16:
        return image
    copy = np.zeros(image.shape, np.float32)
    with np.errstate(invalid="ignore"):
        copy[first:last] = image[first:last]
    return copy
