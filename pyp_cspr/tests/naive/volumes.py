"""What ``core.volumes`` does: whole transforms of a padded cube, of which parts are taken, in double precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def _window(box: int, padded: int) -> tuple:
    first = padded // 2 - box // 2
    return (slice(first, first + box),) * 3


def forward(volume: NDArray, padded: int, index: NDArray, width: int) -> NDArray[np.complex128]:
    """The half transform at the frequencies ``index`` of z and y, and 0 to ``width`` - 1 of x."""
    space = np.zeros((padded,) * 3)
    space[_window(len(volume), padded)] = volume
    return np.fft.rfftn(space)[np.ix_(index, index, np.arange(width))]


def inverse(spectrum: NDArray, box: int, padded: int, index: NDArray) -> NDArray[np.float64]:
    """The cube of a half transform of which only these frequencies are there."""
    whole = np.zeros((padded, padded, padded // 2 + 1), complex)
    whole[np.ix_(index, index, np.arange(spectrum.shape[2]))] = spectrum
    return np.fft.irfftn(whole, s=(padded,) * 3)[_window(box, padded)]
