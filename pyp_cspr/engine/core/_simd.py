"""Vectors of a few floats, for the loops of kernels that a compiler does not turn into vector instructions by itself.

A vector is loaded from a flat array, added, subtracted, multiplied by another one or by a number, and stored. The plain
functions say what each call means, and run where compilation is off; ``_simd_types`` compiles them to LLVM's vectors, which
exist on every processor. Indices must not be negative, and nothing is checked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def flat(array: NDArray) -> NDArray:
    """All elements of a contiguous array as one line; the same memory."""
    return array.reshape(-1)


def load4(array: NDArray[np.float64], i: int) -> NDArray[np.float64]:
    """array[i : i + 4]."""
    return array[int(i) : int(i) + 4].copy()


def store4(array: NDArray[np.float64], i: int, vector: NDArray[np.float64]) -> None:
    """array[i : i + 4] = vector."""
    array[int(i) : int(i) + 4] = vector


def pack4(a: float, b: float, c: float, d: float) -> NDArray[np.float64]:
    """The vector (a, b, c, d)."""
    return np.array([a, b, c, d])


def load8(array: NDArray[np.float32], i: int) -> NDArray[np.float32]:
    """array[i : i + 8]."""
    return array[int(i) : int(i) + 8].copy()


def store8(array: NDArray[np.float32], i: int, vector: NDArray[np.float32]) -> None:
    """array[i : i + 8] = vector."""
    array[int(i) : int(i) + 8] = vector
