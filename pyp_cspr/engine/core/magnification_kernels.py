"""The part of ``ctf_refinement_kernels.py`` that concerns the magnification: the slice's derivative along k, and its sums.

An image magnified by m shows V(m M^T k) at k, and dV/d ln m = k . (microscope-frame gradient): a radial derivative.
"""

from __future__ import annotations

import numpy as np

from ._jit import jit


@jit
def radial_derivative(out, axr, axi, ayr, ayi, azr, azi, flip, kx, ky, low, size, matrix):
    """out[:, j] = real and imaginary part of dV/d ln m of ``size`` coefficients from ``low`` on, from the derivatives ``a..``
    by the cube's axes.

    ``flip`` is -1 where the Friedel mate was read: V = conj V(-s), so real derivatives change sign, imaginary ones do not.
    """
    xx, xy, xz = np.float32(matrix[0, 0]), np.float32(matrix[0, 1]), np.float32(matrix[0, 2])
    yx, yy, yz = np.float32(matrix[1, 0]), np.float32(matrix[1, 1]), np.float32(matrix[1, 2])
    for j in range(size):
        fx, fy = np.float32(kx[low + j]), np.float32(ky[low + j])
        sx, sy, sz = fx * xx + fy * yx, fx * xy + fy * yy, fx * xz + fy * yz
        out[0, j] = flip[j] * (sx * axr[j] + sy * ayr[j] + sz * azr[j])
        out[1, j] = sx * axi[j] + sy * ayi[j] + sz * azi[j]


@jit
def radial_sums(
    out, radial, vr, vi, r1r, r1i, r2r, r2i, r3r, r3i, dr, di, gain, ctf, slope, weight, kx, ky, low, size, unit,
):
    """Add the sums of ``size`` coefficients from ``low`` on to out[55:67].

    With r the radial derivative, g those by rotations (``r1`` to ``r3``), the rest as in ``evaluate_ctf``: 55 C Re X* r e;
    56 w C^2 Re V* r; 57-59 w C^2 Re g* r; 60 w C^2 |r|^2; 61-62 w C^2 Re r* dV/ds; 63-66 w C C' Re V* r t.
    """
    data = model = own = np.float32(0.0)
    gx = gy = gz = px = py = np.float32(0.0)
    t1 = t2 = t3 = t4 = np.float32(0.0)
    for j in range(size):
        fx, fy = np.float32(kx[low + j]), np.float32(ky[low + j])
        rr, ri = radial[0, j], radial[1, j]
        data += gain[j] * (dr[j] * rr - di[j] * ri)
        w = weight[low + j] * ctf[j] * ctf[j]
        model += w * (vr[j] * rr + vi[j] * ri)
        own += w * (rr * rr + ri * ri)
        gx += w * (r1r[j] * rr + r1i[j] * ri)
        gy += w * (r2r[j] * rr + r2i[j] * ri)
        gz += w * (r3r[j] * rr + r3i[j] * ri)
        turned = w * (vi[j] * rr - vr[j] * ri)  # Re(w conj(r) (-i V))
        px += fx * turned
        py += fy * turned
        mixed = weight[low + j] * ctf[j] * slope[j] * (vr[j] * rr + vi[j] * ri)
        t1 += mixed * (fx * fx + fy * fy)
        t2 += mixed * (fx * fx - fy * fy)
        t3 += mixed * (fx * fy)
        t4 += mixed
    out[55] += data
    out[56] += model
    out[57] += gx
    out[58] += gy
    out[59] += gz
    out[60] += own
    out[61] += px
    out[62] += py
    out[63] += unit * t1
    out[64] += unit * t2
    out[65] += np.float32(2.0) * unit * t3
    out[66] += t4
