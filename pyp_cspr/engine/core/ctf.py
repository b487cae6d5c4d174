"""The contrast transfer function in NumPy (sentences 12 and 13 of ``engine/conventions.py``).

The compiled kernels of ``weighting_kernels.py`` evaluate the same formula on coefficient lists; this is the readable form.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..conventions import WAVELENGTH_NUMERATOR, WAVELENGTH_RELATIVISTIC


def wavelength(voltage: float) -> float:
    """Electron wavelength in angstrom; ``voltage`` in kV."""
    volt = voltage * 1e3
    return float(WAVELENGTH_NUMERATOR / np.sqrt(volt * (1.0 + WAVELENGTH_RELATIVISTIC * volt)))


def defocus_form(defocus_u: ArrayLike, defocus_v: ArrayLike, angle: ArrayLike) -> NDArray[np.float64]:
    """(Axx, Axy, Ayy) in angstrom, ``(..., 3)``: df(a) k^2 = Axx kx^2 + 2 Axy kx ky + Ayy ky^2, which needs no atan2."""
    mean = 0.5 * (np.asarray(defocus_u, float) + np.asarray(defocus_v, float))
    half = 0.5 * (np.asarray(defocus_u, float) - np.asarray(defocus_v, float))
    twice = 2.0 * np.deg2rad(np.asarray(angle, float))
    cosine, sine = half * np.cos(twice), half * np.sin(twice)
    return np.stack(np.broadcast_arrays(mean + cosine, sine, mean - cosine), axis=-1)


def phase_offset(amplitude_contrast: float, phase_shift: ArrayLike = 0.0) -> NDArray[np.float64]:
    """The part of chi that does not depend on k, radians; ``phase_shift`` in degrees."""
    return np.arctan2(amplitude_contrast, np.sqrt(1.0 - amplitude_contrast**2)) + np.deg2rad(phase_shift)


def ctf(
    kx: ArrayLike,
    ky: ArrayLike,
    defocus: ArrayLike,
    voltage: float,
    cs: float,
    amplitude_contrast: float,
    phase_shift: float = 0.0,
) -> NDArray[np.float64]:
    """C(k) = sin(chi) at ``kx``, ``ky`` in 1/angstrom.

    ``defocus`` is (df_u, df_v, angle) in angstrom and degrees; ``voltage`` in kV, ``cs`` in mm, ``phase_shift`` in degrees.
    """
    kx, ky = np.asarray(kx, float), np.asarray(ky, float)
    axx, axy, ayy = defocus_form(*np.asarray(defocus, float))
    lam = wavelength(voltage)
    k2 = kx**2 + ky**2
    chi = np.pi * lam * (axx * kx**2 + 2 * axy * kx * ky + ayy * ky**2 - 0.5 * lam**2 * (cs * 1e7) * k2**2)
    return np.sin(chi + phase_offset(amplitude_contrast, phase_shift))
