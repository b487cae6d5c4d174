"""How ``fourier_kernels`` transforms lines of n elements: radix by radix, with the turns that each pass multiplies by."""

from __future__ import annotations

from functools import lru_cache
from typing import List, NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

_LEAST, _LARGEST_FACTOR = 16, 13  # of lengths that the kernels take


class Passes(NamedTuple):
    """How lines of n elements are transformed, as ``fourier_kernels.transform_lines`` takes it."""

    radices: NDArray[np.int64]  # (P,), their product is n
    turns: NDArray[np.float32]  # flat
    roots: NDArray[np.float32]  # (P, 2 * largest radix)
    first: NDArray[np.int64]  # (P,) where the turns of a pass begin


@lru_cache(maxsize=16)
def passes_of(n: int) -> Optional[Passes]:
    """None where scipy is better: lines that are too short, or whose length has a large prime factor."""
    radices = _radices(n)
    if n < _LEAST or max(radices) > _LARGEST_FACTOR:
        return None
    turns: List[NDArray[np.float32]] = []
    roots = np.zeros((len(radices), 2 * max(radices)), np.float32)
    length = n
    for i, radix in enumerate(radices):
        k = np.arange(radix) if radix % 2 else np.arange(1, radix)  # as each pass wants them
        wave = np.exp(-2j * np.pi * np.outer(np.arange(length // radix), k) / length)
        turns.append(wave.astype(np.complex64).view(np.float32).ravel())
        roots[i, : 2 * radix] = np.exp(-2j * np.pi * np.arange(radix) / radix).astype(np.complex64).view(np.float32)
        length //= radix
    first = np.cumsum([0] + [len(turn) for turn in turns[:-1]])
    return Passes(np.array(radices), np.concatenate(turns), roots, first)


def _radices(n: int) -> List[int]:
    radices = []
    factor = 4
    while n > 1:
        if n % factor == 0:
            radices.append(factor)
            n //= factor
        else:
            factor = {4: 2, 2: 3}.get(factor, factor + 2)
    return radices
