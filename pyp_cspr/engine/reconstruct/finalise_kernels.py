"""Kernels of ``finalise.py``: mean weight of each shell, and the quotient of the sums."""

from __future__ import annotations

import numpy as np

from ..core._jit import jit
from ..core._simd import flat


@jit
def add_weights(total, number, sums, begin, plane, radius):
    """total, number (shells,) += weight and 1 of every voxel of the whole sphere, by its shell on the padded grid.

    ``sums``: a tuple of the sums (n, 3) of accumulators, which are added up; ``begin`` (n, n) says where the rows of those
    within reach lie in them; ``plane`` (n, n) float32 replaces their x = 0. Voxels beyond ``radius`` do not count.
    """
    size = plane.shape[0]
    reach, u2, u3 = size // 2, np.uint64(2), np.uint64(3)
    for z in range(size):
        for y in range(size):
            yz = np.float64((z - reach) ** 2 + (y - reach) ** 2)
            for x in range(reach + 1):
                length = np.sqrt(yz + np.float64(x * x))
                if length > radius:
                    break
                shell = np.uint32(length + 0.5)
                if x == 0:
                    total[shell] += plane[z, y]
                    number[shell] += 1.0
                else:
                    weight, at = 0.0, u3 * np.uint64(begin[z, y] + x) + u2
                    for one in sums:
                        weight += flat(one)[at]
                    total[shell] += 2.0 * weight
                    number[shell] += 2.0


@jit
def divide(columns, sums, begin, plane_numerator, plane_denominator, radius, least, extra, keep, first):
    """columns[z, y, x] = (-1)^(x + y + z) num / (den + extra) of the sums' rows y from ``first`` on, in FFT order along z.

    ``columns`` complex64 (P, rows, reach + 1), wholly written; ``sums`` and ``begin`` as in ``add_weights``, completed by the
    planes. By shell: ``least`` denominator, ``extra`` to add, ``keep`` 0 or 1; the first shell, and what lies beyond ``radius``
    or has no weight, is 0.
    """
    size = plane_numerator.shape[0]
    reach, padded = size // 2, columns.shape[0]
    zero, u1, u2, u3 = np.complex64(0.0), np.uint64(1), np.uint64(2), np.uint64(3)
    for k in range(padded):
        z = k + reach if k <= reach else k - padded + reach
        for row in range(columns.shape[1]):
            if k > reach and k < padded - reach:
                columns[k, row, :] = zero
                continue
            y = first + row
            yz = np.float64((z - reach) ** 2 + (y - reach) ** 2)
            for x in range(reach + 1):
                length = np.sqrt(yz + np.float64(x * x))
                shell = np.uint32(length + 0.5)
                if length > radius:
                    columns[k, row, x:] = zero
                    break
                if x == 0:
                    re, im = np.float64(plane_numerator[z, y].real), np.float64(plane_numerator[z, y].imag)
                    weight = np.float64(plane_denominator[z, y])
                else:
                    re, im, weight, at = 0.0, 0.0, 0.0, u3 * np.uint64(begin[z, y] + x)
                    for one in sums:
                        re += flat(one)[at]
                        im += flat(one)[at + u1]
                        weight += flat(one)[at + u2]
                factor = 0.0
                if weight > 0.0 and shell > 0:
                    factor = keep[shell] / (max(weight, least[shell]) + extra[shell])
                if (x + y + z) & 1:  # as of the frequencies: reach is in y and in z
                    factor = -factor
                columns[k, row, x] = np.complex64(complex(re * factor, im * factor))
