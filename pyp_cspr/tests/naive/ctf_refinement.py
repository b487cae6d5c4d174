"""What ``core.ctf_refinement`` does: the model of one projection in double precision, its derivatives by finite differences."""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np
from numpy.typing import NDArray

from pyp_cspr.engine.core.geometry import rotation_vector_to_matrix
from pyp_cspr.tests.naive import projection

STEPS = np.array([1e-6] * 3 + [1e-4] * 2 + [1e-6] + [1e-2] * 3 + [1e-6] * 2)  # radians, angstrom, log, angstrom, radians, log


class Projection(NamedTuple):
    """What does not move: the reference, the coefficients and the optics. ``field`` in angstrom, ``cs`` in mm."""

    transform: NDArray  # centred, padded
    ratio: float
    kx: NDArray
    ky: NDArray
    field: float
    amplitude: NDArray  # (n,)
    noise: NDArray  # (n,)
    wavelength: float
    cs: float


def model(
    fixed: Projection, rotation: NDArray, shift: NDArray, form: NDArray, phase: float, change: NDArray
) -> NDArray[np.complex128]:
    """a C V exp(-2 pi i k.s) after a ``change`` (11,) of the local parameters."""
    turned = rotation_vector_to_matrix(change[:3]) @ rotation
    v = projection.slices(fixed.transform, turned[None], fixed.kx, fixed.ky, fixed.ratio * np.exp(change[10]))[0]
    kx, ky = fixed.kx / fixed.field, fixed.ky / fixed.field
    mean, first, second = change[6:9]
    axx, axy, ayy = form[0] + mean + first, form[1] + second, form[2] + mean - first
    k2 = kx**2 + ky**2
    lam = fixed.wavelength
    chi = np.pi * lam * (axx * kx**2 + 2 * axy * kx * ky + ayy * ky**2 - lam**2 * fixed.cs * 1e7 * k2**2 / 2)
    chi = chi + phase + change[9]
    x, y = shift + change[3:5]
    return fixed.amplitude * np.exp(change[5]) * np.sin(chi) * v * np.exp(-2j * np.pi * (kx * x + ky * y))


def equations(
    fixed: Projection, data: NDArray, rotation: NDArray, shift: NDArray, form: NDArray, phase: float
) -> Tuple[float, NDArray, NDArray]:
    """(cost without the data's own power, gradient (11,), Gauss-Newton matrix (11, 11))."""
    where = (fixed, rotation, shift, form, phase)
    here = model(*where, np.zeros(11))
    columns = []
    for i, step in enumerate(STEPS):
        change = np.zeros(11)
        change[i] = step
        columns.append((model(*where, change) - model(*where, -change)) / (2 * step))
    jacobian = np.stack(columns, axis=-1)
    weighted = jacobian.conj() / fixed.noise[:, None]
    cost = float((np.abs(data - here) ** 2 / fixed.noise).sum() - (np.abs(data) ** 2 / fixed.noise).sum())
    return cost, -2 * (weighted * (data - here)[:, None]).sum(axis=0).real, 2 * (weighted.T @ jacobian).real
