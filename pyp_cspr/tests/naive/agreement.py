"""What ``core.agreement`` does, with one coefficient at a time."""

from __future__ import annotations

from typing import Sequence

import numpy as np
from numpy.typing import NDArray

from .weighting import ctf_value


def agreement(
    data: NDArray,
    slices: NDArray,
    kx: NDArray,
    ky: NDArray,
    shell: NDArray,
    field: float,
    shifts: NDArray,
    defocus: Sequence[Sequence[float]],
    phase: NDArray,
    wavelength: float,
    cs: float,
    premultiplied: bool,
) -> NDArray[np.float64]:
    """The six sums (Q, shells, 6) of ``data`` X, or C X where ``premultiplied``, against Y = C V e; ``slices`` (Q, n) are V."""
    sums = np.zeros((len(data), shell.max() + 1, 6))
    for q in range(len(data)):
        for j in range(len(kx)):
            x, y = kx[j] / field, ky[j] / field
            c = ctf_value(x, y, defocus[q], phase[q], wavelength, cs)
            placed = slices[q, j] * np.exp(-2j * np.pi * (x * shifts[q, 0] + y * shifts[q, 1]))
            model = c * placed
            here = data[q, j]
            expected = c * model if premultiplied else model  # what the data hold but for noise
            match = placed if premultiplied else model
            sums[q, shell[j]] += [
                (here * np.conj(match)).real, abs(model) ** 2, abs(here) ** 2,
                (here * np.conj(expected)).real, abs(expected) ** 2, c * c,
            ]
    return sums
