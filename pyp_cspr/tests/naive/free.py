"""What ``refine.free_kernels`` does to one projection, in double precision, from the definitions."""

from __future__ import annotations

from typing import Callable, NamedTuple, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

MOST_DAMPING, LEAST_DAMPING = 1e6, 1e-6
ROUNDING = 3e-7  # of the power: what single precision can tell


class Equations(NamedTuple):
    """Of one pose: about turns on the left (radians) and shifts (angstrom)."""

    cost: float
    gradient: NDArray[np.float64]  # (5,)
    matrix: NDArray[np.float64]  # (5, 5)
    power: float  # sum W |V|^2


class Pose(NamedTuple):
    rotation: NDArray[np.float64]  # (3, 3)
    shift: NDArray[np.float64]  # (2,) angstrom


class Descent(NamedTuple):
    """Where one projection ends, with what is reported of it."""

    pose: Pose
    covariance: NDArray[np.float64]  # (5, 5)
    cost: Tuple[float, float]
    evaluations: Tuple[int, ...]
    converged: bool
    refused: int  # steps that were taken back


def moved(pose: Pose, step: NDArray) -> Pose:
    """exp([w]x) M and s + t of a step (w, t)."""
    return Pose(Rotation.from_rotvec(step[:3]).as_matrix() @ pose.rotation, pose.shift + step[3:])


def prior_cost(pose: Pose, first: Pose, precision: Sequence[float]) -> float:
    """precision / 2 times the square of the angle between the rotations (radians) and of the way between the shifts."""
    turned = Rotation.from_matrix(pose.rotation @ first.rotation.T).as_rotvec()
    return float(0.5 * precision[0] * turned @ turned + 0.5 * precision[1] * ((pose.shift - first.shift) ** 2).sum())


def with_prior(equations: Equations, pose: Pose, first: Pose, precision: Sequence[float]) -> Equations:
    """A Gaussian about the first pose, with |w|^2 for its second derivative as if it were flat."""
    turned = Rotation.from_matrix(pose.rotation @ first.rotation.T).as_rotvec()
    diagonal = np.repeat(np.asarray(precision, float), (3, 2))
    pull = diagonal * np.concatenate([turned, pose.shift - first.shift])
    return Equations(equations.cost + prior_cost(pose, first, precision), equations.gradient + pull,
                     equations.matrix + np.diag(diagonal), equations.power)


def newton(equations: Equations, damping: float) -> NDArray[np.float64]:
    """Marquardt's step: -(H + damping diag H)^-1 gradient."""
    return np.linalg.solve(equations.matrix + damping * np.diag(np.diag(equations.matrix)), -equations.gradient)


def promised(equations: Equations, step: NDArray) -> float:
    """How much lower the quadratic model is after a step."""
    return float(-equations.gradient @ step - 0.5 * step @ equations.matrix @ step)


def descend(evaluate: Callable[[int, Pose], Equations], first: Pose, gains: Sequence[float], limit: int) -> Descent:
    """Levenberg-Marquardt through all stages: ``evaluate(stage, pose)`` with the prior; a stage ends below ``gains[stage]``.

    A step that does not lower the cost is taken back and damped tenfold; the last one is taken without looking.
    """
    pose, used, begun, converged, refused = first, [], 0.0, False, 0
    for stage, enough in enumerate(gains):
        here, damping, count, converged, stuck = evaluate(stage, pose), 1e-3, 1, False, False
        begun = here.cost
        while not converged and not stuck:
            step = newton(here, 0.0)
            if promised(here, step) < max(enough, ROUNDING * here.power):
                pose, converged = moved(pose, step), True
                continue
            stuck = True
            while stuck and count < limit and damping <= MOST_DAMPING:
                step = newton(here, damping)
                there = evaluate(stage, moved(pose, step))
                count += 1
                gained = here.cost - there.cost
                if gained > 0:
                    if gained > 0.5 * promised(here, step):
                        damping = max(0.1 * damping, LEAST_DAMPING)
                    pose, here, stuck = moved(pose, step), there, False
                else:
                    damping, refused = max(10.0 * damping, 1e-2), refused + 1
        used.append(count)
    return Descent(pose, np.linalg.inv(here.matrix), (begun, here.cost), tuple(used), converged, refused)
