"""Kernel of ``ctf_refinement.py``: cost, gradient and Gauss-Newton matrix in pose and CTF parameters, from unweighted data."""

from __future__ import annotations

import numpy as np

from ._jit import jit
from .magnification_kernels import radial_derivative, radial_sums
from .refinement_kernels import CHUNK, sample
from .weighting_kernels import chi_at, sine_of_turns

SUMS = 67  # see ``evaluate_ctf``
SCRATCH = 19  # rows of CHUNK float32


@jit
def evaluate_ctf(
    out, data, rows, to_data, to_weight, exposure, form, constant, quartic, matrices, shifts, cubes, which, origin, line, plane,
    kx, ky, count, limit, premultiplied, magnified, scratch, offsets, table, start, stop,
):
    """out[p, :] = the 67 sums of projections ``start`` to ``stop``.

    ``data`` float32 (Q, 2 n) is X and ``rows[p]`` the row of p in it; ``to_data`` a / s^2 and ``to_weight`` a^2 / s^2 are
    float32 (E, n), their row ``exposure[p]``. chi in turns is the quadratic ``form`` float64 (P, 3) of (kx, ky) in Fourier
    pixels plus ``constant`` (P,) minus ``quartic`` |k|^4. Where ``premultiplied``, data are C X: sums with C' mean nothing. The
    others as in ``refinement_kernels.evaluate``.

    The sums, with V the slice, C the CTF and C' its derivative by chi, w the weight, z = Re X* V e a / s^2, g the slice's
    derivatives by a rotation, k = (kx, ky), t = (k^2, kx^2 - ky^2, 2 kx ky, 1), the first three over ``limit``^2:
    0 C z; 1-3 C Re X* g e; 4-5 C Re X* dV/ds e; 6 w C^2 |V|^2; 7-9 w C^2 Re V* g; 10-15 w C^2 Re g* g (xx xy xz yy yz zz);
    16-21 w C^2 Re g* dV/ds (xx xy yx yy zx zy); 22-24 w C^2 |V|^2 (kx^2 kxky ky^2); 25-28 C' z t; 29-32 w C C' |V|^2 t;
    33-44 w C C' Re V* g t (g slow, t fast); 45-54 w C'^2 |V|^2 t t (11 12 13 14 22 23 24 33 34 44);
    55-66 those of ``magnification_kernels.radial_sums`` where ``magnified`` is True; compiled without them where it is None.

    ``scratch`` float32 (SCRATCH, CHUNK), ``offsets`` int32 (CHUNK,) and ``table`` float32 (4, 2 ``limit`` + 1) hold what comes
    between.
    """
    xs, ys, zs, flip = scratch[0], scratch[1], scratch[2], scratch[3]
    vr, vi, axr, axi, ayr, ayi = scratch[4], scratch[5], scratch[6], scratch[7], scratch[8], scratch[9]
    azr, azi, dr, di = scratch[10], scratch[11], scratch[12], scratch[13]
    radial, ctf, slope = scratch[14:16], scratch[16], scratch[17]
    gain = scratch[18] if premultiplied else ctf  # what the data are still to be multiplied with
    scratch[18] = np.float32(1.0)
    width = 2 * limit + 1
    unit = np.float32(1.0 / (limit * limit))
    for p in range(start, stop):
        row = rows[p]
        cube = cubes[which[p]]
        e = exposure[p]
        axx, axy, ayy, offset = form[p, 0], form[p, 1], form[p, 2], constant[p]
        xx, xy, xz = np.float32(matrices[p, 0, 0]), np.float32(matrices[p, 0, 1]), np.float32(matrices[p, 0, 2])
        yx, yy, yz = np.float32(matrices[p, 1, 0]), np.float32(matrices[p, 1, 1]), np.float32(matrices[p, 1, 2])
        zx, zy, zz = np.float32(matrices[p, 2, 0]), np.float32(matrices[p, 2, 1]), np.float32(matrices[p, 2, 2])
        for k in range(width):
            angle_x = 2.0 * np.pi * (k - limit) * shifts[p, 0]
            angle_y = 2.0 * np.pi * (k - limit) * shifts[p, 1]
            table[0, k] = np.cos(angle_x)
            table[1, k] = np.sin(angle_x)
            table[2, k] = np.cos(angle_y)
            table[3, k] = np.sin(angle_y)
        for s in range(SUMS):
            out[p, s] = 0.0
        for low in range(0, count, CHUNK):
            size = min(CHUNK, count - low)
            kxs, kys = kx[low : low + size], ky[low : low + size]
            sample(cube, matrices[p], kxs, kys, size, origin, line, plane, xs, ys, zs, offsets, flip, vr, vi, axr, axi,
                   ayr, ayi, azr, azi)
            for j in range(size):  # conj(X) e a / s^2
                a, b = kx[low + j] + limit, ky[low + j] + limit
                er = table[0, a] * table[2, b] - table[1, a] * table[3, b]
                ei = -(table[0, a] * table[3, b] + table[1, a] * table[2, b])
                xr, xi = data[row, 2 * (low + j)], data[row, 2 * (low + j) + 1]
                dr[j] = to_data[e, low + j] * (xr * er + xi * ei)
                di[j] = to_data[e, low + j] * (xr * ei - xi * er)
            for j in range(size):
                x, y = np.float64(kx[low + j]), np.float64(ky[low + j])
                turns = chi_at(axx, axy, ayy, offset, quartic, x, y)
                ctf[j] = sine_of_turns(turns)
                slope[j] = sine_of_turns(turns + 0.25)
            if magnified is not None:
                radial_derivative(radial, axr, axi, ayr, ayi, azr, azi, flip, kx, ky, low, size, matrices[p])
            # The slice's derivatives by a rotation replace those by the cube's axes. Of a Friedel mate, V = conj V(-s), the
            # real derivatives change sign, the imaginary ones do not.
            for j in range(size):
                fx, fy = np.float32(kx[low + j]), np.float32(ky[low + j])
                sign = flip[j]
                gxr, gyr, gzr = axr[j] * sign, ayr[j] * sign, azr[j] * sign
                gxi, gyi, gzi = axi[j], ayi[j], azi[j]
                mxr, mxi = xx * gxr + xy * gyr + xz * gzr, xx * gxi + xy * gyi + xz * gzi
                myr, myi = yx * gxr + yy * gyr + yz * gzr, yx * gxi + yy * gyi + yz * gzi
                mzr, mzi = zx * gxr + zy * gyr + zz * gzr, zx * gxi + zy * gyi + zz * gzi
                vi[j] *= sign
                axr[j], axi[j] = -fy * mzr, -fy * mzi
                ayr[j], ayi[j] = fx * mzr, fx * mzi
                azr[j], azi[j] = fy * mxr - fx * myr, fy * mxi - fx * myi
            # with the data
            s0 = s1 = s2 = s3 = s4 = s5 = q1 = q2 = q3 = q4 = np.float32(0.0)
            for j in range(size):
                fx, fy = np.float32(kx[low + j]), np.float32(ky[low + j])
                c = gain[j]
                z = dr[j] * vr[j] - di[j] * vi[j]
                yr, yi = c * dr[j], c * di[j]
                s0 += c * z
                s1 += yr * axr[j] - yi * axi[j]
                s2 += yr * ayr[j] - yi * ayi[j]
                s3 += yr * azr[j] - yi * azi[j]
                turned = yr * vi[j] + yi * vr[j]
                s4, s5 = s4 + fx * turned, s5 + fy * turned
                z *= slope[j]
                q1 += z * (fx * fx + fy * fy)
                q2 += z * (fx * fx - fy * fy)
                q3 += z * (fx * fy)
                q4 += z
            out[p, 0] += s0
            out[p, 1] += s1
            out[p, 2] += s2
            out[p, 3] += s3
            out[p, 4] += s4
            out[p, 5] += s5
            out[p, 25] += unit * q1
            out[p, 26] += unit * q2
            out[p, 27] += np.float32(2.0) * unit * q3
            out[p, 28] += q4
            # with the model, pose against pose
            s6 = s7 = s8 = s9 = np.float32(0.0)
            hxx = hxy = hxz = hyy = hyz = hzz = np.float32(0.0)
            pxx = pxy = pyx = pyy = pzx = pzy = np.float32(0.0)
            qxx = qxy = qyy = np.float32(0.0)
            for j in range(size):
                fx, fy = np.float32(kx[low + j]), np.float32(ky[low + j])
                w = to_weight[e, low + j] * ctf[j] * ctf[j]
                r1r, r1i, r2r, r2i, r3r, r3i = axr[j], axi[j], ayr[j], ayi[j], azr[j], azi[j]
                wr, wi = w * vr[j], w * vi[j]
                power = wr * vr[j] + wi * vi[j]
                s6 += power
                s7 += wr * r1r + wi * r1i
                s8 += wr * r2r + wi * r2i
                s9 += wr * r3r + wi * r3i
                hxx += w * (r1r * r1r + r1i * r1i)
                hxy += w * (r1r * r2r + r1i * r2i)
                hxz += w * (r1r * r3r + r1i * r3i)
                hyy += w * (r2r * r2r + r2i * r2i)
                hyz += w * (r2r * r3r + r2i * r3i)
                hzz += w * (r3r * r3r + r3i * r3i)
                t1 = wi * r1r - wr * r1i
                t2 = wi * r2r - wr * r2i
                t3 = wi * r3r - wr * r3i
                pxx += fx * t1
                pxy += fy * t1
                pyx += fx * t2
                pyy += fy * t2
                pzx += fx * t3
                pzy += fy * t3
                qxx += power * fx * fx
                qxy += power * fx * fy
                qyy += power * fy * fy
            out[p, 6] += s6
            out[p, 7] += s7
            out[p, 8] += s8
            out[p, 9] += s9
            out[p, 10] += hxx
            out[p, 11] += hxy
            out[p, 12] += hxz
            out[p, 13] += hyy
            out[p, 14] += hyz
            out[p, 15] += hzz
            out[p, 16] += pxx
            out[p, 17] += pxy
            out[p, 18] += pyx
            out[p, 19] += pyy
            out[p, 20] += pzx
            out[p, 21] += pzy
            out[p, 22] += qxx
            out[p, 23] += qxy
            out[p, 24] += qyy
            # with the model, CTF against pose and CTF
            a1 = a2 = a3 = a4 = np.float32(0.0)
            b11 = b12 = b13 = b14 = b21 = b22 = b23 = b24 = b31 = b32 = b33 = b34 = np.float32(0.0)
            c11 = c12 = c13 = c14 = c22 = c23 = c24 = c33 = c34 = c44 = np.float32(0.0)
            for j in range(size):
                fx, fy = np.float32(kx[low + j]), np.float32(ky[low + j])
                t1 = unit * (fx * fx + fy * fy)
                t2 = unit * (fx * fx - fy * fy)
                t3 = np.float32(2.0) * unit * fx * fy
                w = to_weight[e, low + j]
                mixed, pure = w * ctf[j] * slope[j], w * slope[j] * slope[j]
                power = vr[j] * vr[j] + vi[j] * vi[j]
                m = mixed * power
                a1 += m * t1
                a2 += m * t2
                a3 += m * t3
                a4 += m
                m = mixed * (vr[j] * axr[j] + vi[j] * axi[j])
                b11 += m * t1
                b12 += m * t2
                b13 += m * t3
                b14 += m
                m = mixed * (vr[j] * ayr[j] + vi[j] * ayi[j])
                b21 += m * t1
                b22 += m * t2
                b23 += m * t3
                b24 += m
                m = mixed * (vr[j] * azr[j] + vi[j] * azi[j])
                b31 += m * t1
                b32 += m * t2
                b33 += m * t3
                b34 += m
                m = pure * power
                c11 += m * t1 * t1
                c12 += m * t1 * t2
                c13 += m * t1 * t3
                c14 += m * t1
                c22 += m * t2 * t2
                c23 += m * t2 * t3
                c24 += m * t2
                c33 += m * t3 * t3
                c34 += m * t3
                c44 += m
            out[p, 29] += a1
            out[p, 30] += a2
            out[p, 31] += a3
            out[p, 32] += a4
            out[p, 33] += b11
            out[p, 34] += b12
            out[p, 35] += b13
            out[p, 36] += b14
            out[p, 37] += b21
            out[p, 38] += b22
            out[p, 39] += b23
            out[p, 40] += b24
            out[p, 41] += b31
            out[p, 42] += b32
            out[p, 43] += b33
            out[p, 44] += b34
            out[p, 45] += c11
            out[p, 46] += c12
            out[p, 47] += c13
            out[p, 48] += c14
            out[p, 49] += c22
            out[p, 50] += c23
            out[p, 51] += c24
            out[p, 52] += c33
            out[p, 53] += c34
            out[p, 54] += c44
            if magnified is not None:
                radial_sums(out[p], radial, vr, vi, axr, axi, ayr, ayi, azr, azi, dr, di, gain, ctf, slope,
                            to_weight[e], kx, ky, low, size, unit)
