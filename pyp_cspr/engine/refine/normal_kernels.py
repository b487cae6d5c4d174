"""Kernel of ``normal.py``: local equations into the blocks of the arrowhead system."""

from __future__ import annotations

from ..core._jit import jit


@jit
def enter(row, gradient, matrix, weight, inner, outer, particle_gradient, particle_matrix, coupling, exposure_gradient,
          exposure_matrix, by_particle, by_exposure):
    """Add projections of n particles to their blocks of the system, whose other arrays start at 0.

    ``row`` (n, E) int64 is a projection's place in ``gradient`` (Q, m), ``matrix`` (Q, m, m) and ``weight`` (Q,); -1: there is
    none. ``inner`` (n, E, m, kp) and ``outer`` (n, E, m, ke) are Jacobians; ``coupling`` is (n, kp, E * ke).
    ``by_particle`` (m, kp) and ``by_exposure`` (m, ke) are scratch.
    """
    m, kp, ke = inner.shape[2], inner.shape[3], outer.shape[3]
    for p in range(row.shape[0]):
        for e in range(row.shape[1]):
            r = row[p, e]
            if r < 0:
                continue
            w = weight[r]
            by_particle[:] = 0.0
            by_exposure[:] = 0.0
            for i in range(m):
                for j in range(m):
                    value = w * matrix[r, i, j]
                    for a in range(kp):
                        by_particle[i, a] += value * inner[p, e, j, a]
                    for k in range(ke):
                        by_exposure[i, k] += value * outer[p, e, j, k]
            for i in range(m):
                slope = w * gradient[r, i]
                for a in range(kp):
                    value = inner[p, e, i, a]
                    particle_gradient[p, a] += value * slope
                    for b in range(kp):
                        particle_matrix[p, a, b] += value * by_particle[i, b]
                    for k in range(ke):
                        coupling[p, a, e * ke + k] += value * by_exposure[i, k]
                for k in range(ke):
                    value = outer[p, e, i, k]
                    exposure_gradient[e, k] += value * slope
                    for b in range(ke):
                        exposure_matrix[e, k, b] += value * by_exposure[i, b]
