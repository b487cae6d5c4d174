"""Kernels of ``finalise.py``: mean weight of each shell, and the quotient of the sums."""

from __future__ import annotations

import numpy as np

from ..core._jit import jit


@jit
def add_weights(total, number, denominators, plane, margin, radius):
    """total, number (shells,) += weight and 1 of every voxel of the whole sphere, by its shell on the padded grid.

    ``denominators``: a tuple of float64 half cubes, which are added up, of which ``margin`` voxels at each end of z and y are
    left out; ``plane`` (n, n) float32 replaces their x = 0. Voxels beyond ``radius`` do not count.
    """
    size = plane.shape[0]
    reach = size // 2
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
                    weight = 0.0
                    for one in denominators:
                        weight += one[z + margin, y + margin, x]
                    total[shell] += 2.0 * weight
                    number[shell] += 2.0


@jit
def divide(
    columns, numerators, denominators, plane_numerator, plane_denominator, margin, radius, least, extra, keep, first
):
    """columns[z, y, x] = (-1)^(x + y + z) num / (den + extra) of the sums' rows y from ``first`` on, in FFT order along z.

    ``columns`` complex64 (P, rows, reach + 1), wholly written; ``numerators`` and ``denominators``: tuples of half cubes, which
    are added up, cut and completed as in ``add_weights``. By shell: ``least`` denominator, ``extra`` to add, ``keep`` 0 or 1;
    the first shell, and what lies beyond ``radius`` or has no weight, is 0.
    """
    size = plane_numerator.shape[0]
    reach, padded = size // 2, columns.shape[0]
    zero = np.complex64(0.0)
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
                    re, im, weight = 0.0, 0.0, 0.0
                    for one in numerators:
                        value = one[z + margin, y + margin, x]
                        re += value.real
                        im += value.imag
                    for other in denominators:
                        weight += other[z + margin, y + margin, x]
                factor = 0.0
                if weight > 0.0 and shell > 0:
                    factor = keep[shell] / (max(weight, least[shell]) + extra[shell])
                if (x + y + z) & 1:  # as of the frequencies: reach is in y and in z
                    factor = -factor
                columns[k, row, x] = np.complex64(complex(re * factor, im * factor))
