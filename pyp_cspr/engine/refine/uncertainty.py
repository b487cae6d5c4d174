"""Uncertainties of what is seen: of the view and the place of every projection, particle and exposure together."""

from __future__ import annotations

from typing import Tuple

import numpy as np
from numpy.typing import NDArray

from .normal import Arrowhead


def projected_variance(
    system: Arrowhead, particle_jacobian: NDArray[np.float64], exposure_jacobian: NDArray[np.float64]
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variance of every projection's view (radians^2, summed over 3 axes) and place (A^2, summed over x and y), ``(P, E)``.

    The Cramer-Rao bound of the local parameters Jp dp + Je de under the full covariance, the coupling of particle and
    exposure included. It does not depend on the gauge, unlike those of the particle's and the exposure's own parameters.
    """
    particles, exposures = particle_jacobian.shape[:2]
    size = exposure_jacobian.shape[-1]
    own = np.linalg.inv(system.particle_matrix) if particle_jacobian.shape[-1] else np.zeros((particles, 0, 0))
    view, place = np.zeros((particles, exposures)), np.zeros((particles, exposures))
    if size == 0:
        for e in range(exposures):
            _add(view, place, e, particle_jacobian[:, e] @ own @ np.swapaxes(particle_jacobian[:, e], 1, 2))
        return view, place
    spread = own @ system.coupling  # (P, kp, E ke): d_particle = -spread d_exposure at the solution
    reduced = -np.einsum("pki,pkj->ij", system.coupling, spread)
    for e in range(exposures):
        part = slice(e * size, (e + 1) * size)
        reduced[part, part] += system.exposure_matrix[e]
    covariance = np.linalg.inv(reduced)
    follow = -spread @ covariance  # covariance of particle with exposure parameters, (P, kp, E ke)
    total = own - follow @ np.swapaxes(spread, 1, 2)
    for e in range(exposures):
        part = slice(e * size, (e + 1) * size)
        jp, je = particle_jacobian[:, e], exposure_jacobian[:, e]
        mixed = jp @ follow[:, :, part] @ np.swapaxes(je, 1, 2)
        _add(view, place, e, jp @ total @ np.swapaxes(jp, 1, 2) + mixed + np.swapaxes(mixed, 1, 2)
             + je @ covariance[part, part] @ np.swapaxes(je, 1, 2))
    return view, place


def _add(view: NDArray, place: NDArray, exposure: int, covariance: NDArray) -> None:
    view[:, exposure] = np.trace(covariance[:, :3, :3], axis1=1, axis2=2)
    place[:, exposure] = np.trace(covariance[:, 3:5, 3:5], axis1=1, axis2=2)
