"""Statistics of an image, and crops of it."""

from __future__ import annotations

from typing import Tuple

import numpy as np
from numpy.typing import NDArray

BLOCK_PIXELS = 65_536  # of a statistics block: as float32 it stays in a core's own cache
OUTLIER = 8.0  # standard deviations: X-rays and hot pixels, beyond what 10^8 pixels of noise reach
MOST_OUTLIERS = 1e-4  # of the pixels
CLIP_ROUNDS = 4


def robust_statistics(image: NDArray) -> Tuple[float, float]:
    """Mean and standard deviation of an image (ny, nx), without the few pixels beyond OUTLIER deviations.

    Where more than MOST_OUTLIERS of the pixels are beyond, they are the image (bright particles on an empty background, say)
    and all are kept. Sums are float64; both are NaN where a pixel is not a number.
    """
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
    from .image_kernels import add_moments

    rows = max(1, BLOCK_PIXELS // image.shape[1])
    with np.errstate(invalid="ignore"):
        start = float(np.median(image[0].astype(np.float32)))  # sums about it lose no digits, which one wild pixel cannot move
    if not np.isfinite(start):
        start = 0.0
    sums, least, largest = np.zeros(3), np.inf, -np.inf
    for row in range(0, image.shape[0], rows):
        block = image[row : row + rows].astype(np.float32).reshape(-1)
        add_moments(sums, block, start, low, high)
        if np.isfinite(low):
            block = block[(block >= low) & (block <= high)]
        if len(block):
            least, largest = min(least, float(block.min())), max(largest, float(block.max()))
    count, total, square = sums.tolist()
    if not count:
        return float("nan"), float("nan"), 0, least, largest
    mean = total / count
    return start + mean, float(np.sqrt(max(square / count - mean * mean, 0.0))), int(count), least, largest


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
    cut(crops, _native(image, begin, end), low, begin, end, float(mean), np.float32(factor))
    return crops


def _native(image: NDArray, begin: NDArray, end: NDArray) -> NDArray:
    """The image in a type that kernels take. Half precision and foreign byte orders are copied, only the rows in use."""
    if image.dtype.isnative and image.dtype != np.float16:
        return image
    first, last = (int(begin[:, 1].min()), int(end[:, 1].max())) if len(begin) else (0, 0)
    copy = np.zeros(image.shape, np.float32)
    copy[first:last] = image[first:last]
    return copy
