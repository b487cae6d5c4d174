"""Kernel of ``free.py``: Levenberg-Marquardt of one projection after the other, each through all its stages.

One projection is finished before the next is begun, so that its data and its part of the reference stay in the cache.
"""

from __future__ import annotations

import numpy as np

from ..core._jit import jit
from ..core.refinement_kernels import CHUNK, SCRATCH, SUMS, accumulate

CONVERGED, USED_UP, STUCK, EMPTY = 0, 1, 2, 3  # why a projection's last stage ended
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e-6, 1e6
_ROUNDING = 3e-7  # of sum W |V|^2: smaller gains are lost in the cost's single precision


def make_workspace(count):
    """What ``descend`` works in, for lists of ``count`` coefficients."""
    lists = np.empty((SCRATCH, CHUNK), np.float32), np.empty(CHUNK, np.int32), np.empty(2 * count, np.float32)
    small = np.empty(SUMS), np.empty((4, 3, 3)), np.empty((3, 2)), np.empty((3, 5)), np.empty((3, 5, 5))
    return (*lists, np.empty(count, np.float32), *small)


@jit
def descend(
    rotations, shifts, covariance, cost, evaluations, status, data, weight, rows, cubes, which, origin, line, plane, ratio,
    field, kx, ky, order, counts, gains, limit, precision, workspace, start, stop,
):
    """Refine projections ``start`` to ``stop``; ``rotations`` float64 (P, 3, 3) and ``shifts`` (P, 2), angstrom, in place.

    Writes ``covariance`` (P, 5, 5), ``cost`` (P, 2) before and after (at the last stage's resolution; where last looked at),
    ``evaluations`` int32 (P, stages) and ``status`` int8 (P,). ``data``, ``weight``, ``rows``, ``cubes``, ``which``,
    ``origin``, ``line``, ``plane`` as in ``refinement_kernels.evaluate``; ``ratio`` takes Fourier pixels of the images,
    ``field`` angstrom wide, to those of the cube. ``order`` int32 (n,) is how data and weight are read; ``kx`` and ``ky`` are
    in that order already. Stage i takes the first ``counts[i]``, stops below a predicted gain of ``gains[i]`` and after
    ``limit`` evaluations.
    ``precision`` (2,) is 1 / sigma^2 of the priors about the start, of each rotation (radians) and shift (angstrom).
    ``workspace`` is that of ``make_workspace``.
    """
    scratch, offsets, own_data, own_weight, sums, threes, twos, fives, squares = workspace
    matrix, pose, new_pose, first_pose = threes[0], threes[1], threes[2], threes[3]
    shift, new_shift, first_shift = twos[0], twos[1], twos[2]
    gradient, new_gradient, step = fives[0], fives[1], fives[2]
    hessian, new_hessian, factor = squares[0], squares[1], squares[2]
    stages = len(counts)
    for p in range(start, stop):
        row, cube = rows[p], cubes[which[p]]
        all_data, all_weight = data[row], weight[row]
        for j in range(len(order)):
            source = np.uint64(order[j])
            own_data[2 * j] = all_data[source + source]
            own_data[2 * j + 1] = all_data[source + source + np.uint64(1)]
            own_weight[j] = all_weight[source]
        copy_pose(rotations[p], shifts[p], pose, shift)
        copy_pose(pose, shift, first_pose, first_shift)
        ended = EMPTY
        for stage in range(stages):
            damping, used, ended = _FIRST_DAMPING, 1, USED_UP
            for a in range(9):
                matrix.flat[a] = ratio * pose.flat[a]
            accumulate(
                sums, own_data, own_weight, matrix, shift[0] / field, shift[1] / field, cube, origin, line, plane, kx, ky,
                counts[stage], scratch, offsets,
            )
            value = equations(sums, 2.0 * np.pi / field, gradient, hessian)
            value += add_prior(pose, first_pose, shift, first_shift, precision, gradient, hessian)
            if stage == stages - 1:
                cost[p, 0] = value
            while True:
                # Undamped, what is there to gain? If little, the last step is taken without looking again.
                if not factorise(hessian, 0.0, factor):
                    ended = EMPTY
                    break
                enough = max(gains[stage], _ROUNDING * sums[6])  # sums[6]: sum W |V|^2 where it was last looked
                if newton_step(factor, gradient, step) < enough:
                    ended = CONVERGED
                    turn(pose, step, new_pose)
                    new_shift[0], new_shift[1] = shift[0] + step[3], shift[1] + step[4]
                    copy_pose(new_pose, new_shift, pose, shift)
                    break
                accepted = False
                while used < limit and damping <= _MOST_DAMPING:
                    factorise(hessian, damping, factor)
                    newton_step(factor, gradient, step)
                    predicted = decrease(hessian, gradient, step)
                    turn(pose, step, new_pose)
                    new_shift[0], new_shift[1] = shift[0] + step[3], shift[1] + step[4]
                    for a in range(9):
                        matrix.flat[a] = ratio * new_pose.flat[a]
                    accumulate(
                        sums, own_data, own_weight, matrix, new_shift[0] / field, new_shift[1] / field, cube, origin, line,
                        plane, kx, ky, counts[stage], scratch, offsets,
                    )
                    used += 1
                    new_value = equations(sums, 2.0 * np.pi / field, new_gradient, new_hessian)
                    new_value += add_prior(new_pose, first_pose, new_shift, first_shift, precision, new_gradient, new_hessian)
                    gained = value - new_value
                    if gained > 0.0:
                        accepted = True
                        damping = max(damping * (0.1 if gained > 0.5 * predicted else 1.0), _LEAST_DAMPING)
                        copy_pose(new_pose, new_shift, pose, shift)
                        copy_equations(new_gradient, new_hessian, gradient, hessian)
                        value = new_value
                        break
                    damping = max(10.0 * damping, 1e-2)
                if not accepted:
                    ended = USED_UP if used >= limit else STUCK
                    break
            evaluations[p, stage] = used
        cost[p, 1] = value
        status[p] = ended
        copy_pose(pose, shift, rotations[p], shifts[p])
        if factorise(hessian, 0.0, factor):
            invert(factor, covariance[p])
        else:
            covariance[p] = np.inf


@jit
def copy_pose(from_rotation, from_shift, rotation, shift):
    for a in range(3):
        for b in range(3):
            rotation[a, b] = from_rotation[a, b]
    shift[0], shift[1] = from_shift[0], from_shift[1]


@jit
def copy_equations(from_gradient, from_hessian, gradient, hessian):
    for a in range(5):
        gradient[a] = from_gradient[a]
        for b in range(5):
            hessian[a, b] = from_hessian[a, b]


@jit
def equations(sums, radians, gradient, hessian):
    """Gradient (5,) and Gauss-Newton matrix (5, 5) of ``accumulate``'s sums; returns the cost. As ``refinement._unpack``."""
    for a in range(3):
        gradient[a] = 2.0 * (sums[7 + a] - sums[1 + a])
        for b in range(2):
            hessian[a, 3 + b] = hessian[3 + b, a] = 2.0 * radians * sums[16 + 2 * a + b]
    s = 10
    for a in range(3):
        for b in range(a, 3):
            hessian[a, b] = hessian[b, a] = 2.0 * sums[s]
            s += 1
    gradient[3], gradient[4] = -2.0 * radians * sums[4], -2.0 * radians * sums[5]
    square = 2.0 * radians * radians
    hessian[3, 3], hessian[4, 4] = square * sums[22], square * sums[24]
    hessian[3, 4] = hessian[4, 3] = square * sums[23]
    return sums[6] - 2.0 * sums[0]


@jit
def add_prior(pose, first_pose, shift, first_shift, precision, gradient, hessian):
    """Add Gaussian priors about the first pose; returns their cost.

    w, the rotation vector of M M0^T, costs precision |w|^2 / 2; the gradient for turns on the left is exactly precision w.
    """
    cost = 0.0
    if precision[0] > 0.0:
        trace = w0 = w1 = w2 = 0.0
        for c in range(3):
            for a in range(3):
                trace += pose[a, c] * first_pose[a, c]
            w0 += 0.5 * (pose[2, c] * first_pose[1, c] - pose[1, c] * first_pose[2, c])
            w1 += 0.5 * (pose[0, c] * first_pose[2, c] - pose[2, c] * first_pose[0, c])
            w2 += 0.5 * (pose[1, c] * first_pose[0, c] - pose[0, c] * first_pose[1, c])
        sine = np.sqrt(w0 * w0 + w1 * w1 + w2 * w2)
        angle = np.arctan2(sine, 0.5 * (trace - 1.0))
        scale = angle / sine if sine > 1e-9 else 1.0
        gradient[0] += precision[0] * scale * w0
        gradient[1] += precision[0] * scale * w1
        gradient[2] += precision[0] * scale * w2
        for a in range(3):
            hessian[a, a] += precision[0]
        cost += 0.5 * precision[0] * angle * angle
    for b in range(2):
        moved = shift[b] - first_shift[b]
        gradient[3 + b] += precision[1] * moved
        hessian[3 + b, 3 + b] += precision[1]
        cost += 0.5 * precision[1] * moved * moved
    return cost


@jit
def turn(pose, step, result):
    """result = exp([w]x) pose of w = step[:3], made orthogonal to rounding by Rodrigues' formula."""
    x, y, z = step[0], step[1], step[2]
    square = x * x + y * y + z * z
    angle = np.sqrt(square)
    first = np.sin(angle) / angle if angle > 1e-8 else 1.0
    second = (1.0 - np.cos(angle)) / square if angle > 1e-8 else 0.5
    for c in range(3):
        a, b, d = pose[0, c], pose[1, c], pose[2, c]
        u, v, w = y * d - z * b, z * a - x * d, x * b - y * a
        result[0, c] = a + first * u + second * (y * w - z * v)
        result[1, c] = b + first * v + second * (z * u - x * w)
        result[2, c] = d + first * w + second * (x * v - y * u)


@jit
def factorise(hessian, damping, factor):
    """Cholesky factor of hessian + damping diag(hessian); False where that is not positive."""
    for a in range(5):
        for b in range(a + 1):
            total = hessian[a, b]
            if a == b:
                total *= 1.0 + damping
            for c in range(b):
                total -= factor[a, c] * factor[b, c]
            if a == b:
                if not total > 1e-10 * hessian[a, a]:
                    return False
                factor[a, a] = np.sqrt(total)
            else:
                factor[a, b] = total / factor[b, b]
    return True


@jit
def newton_step(factor, gradient, step):
    """step = -(L L^T)^-1 gradient; returns gradient . (L L^T)^-1 gradient / 2, the gain that it promises."""
    gain = 0.0
    for a in range(5):
        total = -gradient[a]
        for b in range(a):
            total -= factor[a, b] * step[b]
        step[a] = total / factor[a, a]
        gain += 0.5 * step[a] * step[a]
    for a in range(4, -1, -1):
        total = step[a]
        for b in range(a + 1, 5):
            total -= factor[b, a] * step[b]
        step[a] = total / factor[a, a]
    return gain


@jit
def decrease(hessian, gradient, step):
    """What the quadratic model promises for a (damped) step."""
    total = 0.0
    for a in range(5):
        total -= gradient[a] * step[a]
        for b in range(5):
            total -= 0.5 * step[a] * hessian[a, b] * step[b]
    return total


@jit
def invert(factor, result):
    """result = (L L^T)^-1."""
    for a in range(5):
        result[a] = 0.0
        result[a, a] = -1.0
        newton_step(factor, result[a], result[a])  # which reads an element before it is written
