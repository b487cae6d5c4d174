"""What ``reconstruct.finalise.solve`` does, on the full padded transform and with plain sums."""

from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np
from numpy.typing import NDArray


def full_sums(accumulator: Any) -> Any:
    """(numerator, denominator) on the whole centred grid (P, P, P): every voxel and its Friedel mate."""
    padded, reach = accumulator.padded, accumulator.extent
    numerators, denominators = accumulator.numerator, accumulator.denominator
    numerator = np.zeros((padded,) * 3, complex)
    denominator = np.zeros((padded,) * 3)
    limit = accumulator.radius * padded / accumulator.box
    for z in range(-reach, reach + 1):
        for y in range(-reach, reach + 1):
            for x in range(reach + 1):
                if z * z + y * y + x * x > limit * limit:
                    continue
                value = numerators[z + reach, y + reach, x]
                weight = denominators[z + reach, y + reach, x]
                c = padded // 2
                numerator[c + z, c + y, c + x] += value
                numerator[c - z, c - y, c - x] += np.conj(value)
                denominator[c + z, c + y, c + x] += weight
                denominator[c - z, c - y, c - x] += weight
    return numerator, denominator


def solve(accumulators: Sequence[Any], least: float, wiener: Optional[NDArray] = None) -> NDArray[np.float64]:
    """The map (N, N, N); ``least`` is the smallest part of a shell's mean weight."""
    box, padded = accumulators[0].box, accumulators[0].padded
    numerator, denominator = (sum(parts) for parts in zip(*(full_sums(one) for one in accumulators)))
    k = np.arange(padded) - padded // 2
    length = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    inside = length <= accumulators[0].radius * padded / box
    transform = np.zeros(numerator.shape, complex)
    shell = np.rint(length).astype(int)
    for s in range(1, shell[inside].max() + 1):
        here = inside & (shell == s)
        mean = denominator[here].mean()
        weight = np.maximum(denominator[here], least * mean)
        if wiener is not None:
            curve = np.interp(s * box / padded, np.arange(len(wiener)), wiener)
            if curve <= 0:
                continue
            weight = weight + mean * (1 - curve) / (2 * curve)
        transform[here] = numerator[here] / weight
    volume = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(transform))).real
    start = padded // 2 - box // 2
    volume = volume[start : start + box, start : start + box, start : start + box]
    axis = np.arange(box) - box // 2
    outside = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 > (box // 2) ** 2
    sinc = np.sinc(axis / padded) ** 2
    return (volume - volume[outside].mean()) / (sinc[:, None, None] * sinc[:, None] * sinc)
