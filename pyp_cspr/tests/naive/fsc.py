"""FSC written from its definition, coefficient by coefficient."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def fsc(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Curve (N//2+1,) of two cubes, over the full transform."""
    box = a.shape[0]
    first, second = np.fft.fftn(a), np.fft.fftn(b)
    cross, power1, power2 = np.zeros(2 * box), np.zeros(2 * box), np.zeros(2 * box)
    for iz in range(box):
        for iy in range(box):
            for ix in range(box):
                k = [i if i <= box / 2 else i - box for i in (iz, iy, ix)]
                shell = round(math.sqrt(k[0] ** 2 + k[1] ** 2 + k[2] ** 2))
                one, two = first[iz, iy, ix], second[iz, iy, ix]
                cross[shell] += (one * two.conjugate()).real
                power1[shell] += abs(one) ** 2
                power2[shell] += abs(two) ** 2
    curve = np.ones(box // 2 + 1)
    for shell in range(1, box // 2 + 1):
        curve[shell] = cross[shell] / math.sqrt(power1[shell] * power2[shell])
    return curve
