"""What ``core.images`` does, a pixel at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cut_crops(
    image: NDArray, low: NDArray, begin: NDArray, end: NDArray, box: int, mean: float, factor: float
) -> NDArray[np.float64]:
    """Crops (B, box, box) whose pixel [0, 0] is image pixel ``low`` (x, y); 0 beyond the image, whatever begin and end say."""
    ny, nx = image.shape
    crops = np.zeros((len(low), box, box))
    for b, (x0, y0) in enumerate(low):
        for y in range(box):
            for x in range(box):
                if 0 <= x0 + x < nx and 0 <= y0 + y < ny:
                    crops[b, y, x] = (float(image[y0 + y, x0 + x]) - mean) * factor
    return crops
