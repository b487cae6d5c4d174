"""What ``core.weighting`` does, written from conventions 12 and 13 with one coefficient at a time."""

from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np
from numpy.typing import NDArray


def ctf_value(kx: float, ky: float, defocus: Sequence[float], phase: float, wavelength: float, cs: float) -> float:
    """C at (kx, ky) in 1/angstrom; ``defocus`` df_u, df_v (angstrom) and angle (degrees), ``phase`` radians, ``cs`` mm."""
    df_u, df_v, angle = defocus
    k2 = kx * kx + ky * ky
    azimuth = np.arctan2(ky, kx) - np.deg2rad(angle)
    df = 0.5 * (df_u + df_v + (df_u - df_v) * np.cos(2 * azimuth))
    return float(np.sin(np.pi * wavelength * k2 * (df - 0.5 * wavelength**2 * k2 * cs * 1e7) + phase))


def weigh(
    coefficients: NDArray,
    kx: NDArray,
    ky: NDArray,
    shell: NDArray,
    field: float,
    residual: NDArray,
    defocus: NDArray,
    phase: NDArray,
    wavelength: float,
    cs: float,
    amplitude: NDArray,
    power: NDArray,
    premultiplied: bool = False,
) -> Tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """(D, W), each (B, n); ``amplitude`` and ``power`` (B, n_shells)."""
    data = np.zeros(coefficients.shape, complex)
    weight = np.zeros(coefficients.shape)
    for b in range(len(coefficients)):
        for j in range(len(kx)):
            x, y = kx[j] / field, ky[j] / field
            c = ctf_value(x, y, defocus[b], phase[b], wavelength, cs)
            a, noise = amplitude[b, shell[j]], power[b, shell[j]]
            back = np.exp(2j * np.pi * (x * residual[b, 0] + y * residual[b, 1]))
            data[b, j] = a * (1.0 if premultiplied else c) * coefficients[b, j] * back / noise
            weight[b, j] = a * a * c * c / noise
    return data, weight
