"""Kernel of ``refinement.py``: cost, gradient and Gauss-Newton matrix of projections in their local parameters."""

from __future__ import annotations

import numpy as np

from ._jit import jit

CHUNK = 128  # coefficients that are worked on at a time: their scratch stays in the first-level cache
SUMS = 27  # see ``evaluate``


@jit
def evaluate(
    out, data, weight, rows, matrices, shifts, steps, cubes, which, origin, line, plane, kx, ky, count, limit, start, stop
):
    """out[p, :] = the 27 sums of projections ``start`` to ``stop``.

    ``data`` float32 (Q, 2 n) is D and ``weight`` float32 (Q, n) is W; ``rows[p]`` is the row of p in both. ``matrices`` float64
    (P, 3, 3): rows 0 and 1 take kx and ky to the cube's voxels (x, y, z), row 2 is the microscope's z axis in the same scale.
    ``shifts`` (P, 2) in turns per Fourier pixel. ``steps`` is 2 pi. ``cubes`` float32 (C, voxels * 2) flat half cubes [z, y, x >= 0]
    with ``line`` voxels in x, ``plane`` in x and y, z = y = 0 at ``origin``; ``which[p]`` chooses one. The first ``count``
    coefficients are used; ``limit`` is the largest |kx| or |ky| of them.

    The sums, with V the slice, e the phase, g the slice's derivatives by a rotation (w x k), and k = (kx, ky):
    0 Re D* V e; 1-3 Re D* g e; 4-5 Re D* dV/ds e; 6 W|V|^2; 7-9 Re W V* g;
    10-15 Re W g* g (xx xy xz yy yz zz); 16-21 Re W g* dV/ds (xx xy yx yy zx zy); 22-24 W |V|^2 (kx^2 kxky ky^2); 25-26 unused.
    """
    xs = np.empty(CHUNK, np.float32)
    ys = np.empty(CHUNK, np.float32)
    zs = np.empty(CHUNK, np.float32)
    flip = np.empty(CHUNK, np.float32)
    offsets = np.empty(CHUNK, np.int32)
    vr = np.empty(CHUNK, np.float32)
    vi = np.empty(CHUNK, np.float32)
    axr = np.empty(CHUNK, np.float32)
    axi = np.empty(CHUNK, np.float32)
    ayr = np.empty(CHUNK, np.float32)
    ayi = np.empty(CHUNK, np.float32)
    azr = np.empty(CHUNK, np.float32)
    azi = np.empty(CHUNK, np.float32)
    dr = np.empty(CHUNK, np.float32)
    di = np.empty(CHUNK, np.float32)
    width = 2 * limit + 1
    table = np.empty((4, width), np.float32)
    one = np.float32(1.0)
    for p in range(start, stop):
        row = rows[p]
        cube = cubes[which[p]]
        xx, xy, xz = np.float32(matrices[p, 0, 0]), np.float32(matrices[p, 0, 1]), np.float32(matrices[p, 0, 2])
        yx, yy, yz = np.float32(matrices[p, 1, 0]), np.float32(matrices[p, 1, 1]), np.float32(matrices[p, 1, 2])
        zx, zy, zz = np.float32(matrices[p, 2, 0]), np.float32(matrices[p, 2, 1]), np.float32(matrices[p, 2, 2])
        for k in range(width):
            angle_x = steps * (k - limit) * shifts[p, 0]
            angle_y = steps * (k - limit) * shifts[p, 1]
            table[0, k] = np.cos(angle_x)
            table[1, k] = np.sin(angle_x)
            table[2, k] = np.cos(angle_y)
            table[3, k] = np.sin(angle_y)
        for s in range(SUMS):
            out[p, s] = 0.0
        for low in range(0, count, CHUNK):
            size = min(CHUNK, count - low)
            for j in range(size):
                fx, fy = np.float32(kx[low + j]), np.float32(ky[low + j])
                x = fx * xx + fy * yx
                y = fx * xy + fy * yy
                z = fx * xz + fy * yz
                sign = one if x >= 0 else -one
                x *= sign
                y = y * sign + np.float32(origin)
                z = z * sign + np.float32(origin)
                ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
                xs[j] = x - np.float32(ix)
                ys[j] = y - np.float32(iy)
                zs[j] = z - np.float32(iz)
                flip[j] = sign
                offsets[j] = 2 * (iz * plane + iy * line + ix)
            for j in range(size):
                o = offsets[j]
                q = o + 2 * line
                r = o + 2 * plane
                t = r + 2 * line
                x, y, z = xs[j], ys[j], zs[j]
                d00r, d00i = cube[o + 2] - cube[o], cube[o + 3] - cube[o + 1]
                d01r, d01i = cube[q + 2] - cube[q], cube[q + 3] - cube[q + 1]
                d10r, d10i = cube[r + 2] - cube[r], cube[r + 3] - cube[r + 1]
                d11r, d11i = cube[t + 2] - cube[t], cube[t + 3] - cube[t + 1]
                c00r, c00i = cube[o] + x * d00r, cube[o + 1] + x * d00i
                c01r, c01i = cube[q] + x * d01r, cube[q + 1] + x * d01i
                c10r, c10i = cube[r] + x * d10r, cube[r + 1] + x * d10i
                c11r, c11i = cube[t] + x * d11r, cube[t + 1] + x * d11i
                b0r, b0i = c01r - c00r, c01i - c00i
                b1r, b1i = c11r - c10r, c11i - c10i
                e0r, e0i = c00r + y * b0r, c00i + y * b0i
                e1r, e1i = c10r + y * b1r, c10i + y * b1i
                azr[j] = e1r - e0r
                azi[j] = e1i - e0i
                vr[j] = e0r + z * azr[j]
                vi[j] = e0i + z * azi[j]
                ayr[j] = b0r + z * (b1r - b0r)
                ayi[j] = b0i + z * (b1i - b0i)
                f0r, f0i = d00r + y * (d01r - d00r), d00i + y * (d01i - d00i)
                f1r, f1i = d10r + y * (d11r - d10r), d10i + y * (d11i - d10i)
                axr[j] = f0r + z * (f1r - f0r)
                axi[j] = f0i + z * (f1i - f0i)
            for j in range(size):  # conj(D) e, e = exp(-2 pi i k.s), split so that its tables are read apart from the sums
                a, b = kx[low + j] + limit, ky[low + j] + limit
                er = table[0, a] * table[2, b] - table[1, a] * table[3, b]
                ei = -(table[0, a] * table[3, b] + table[1, a] * table[2, b])
                xr, xi = data[row, 2 * (low + j)], data[row, 2 * (low + j) + 1]
                dr[j] = xr * er + xi * ei
                di[j] = xr * ei - xi * er
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = np.float32(0.0)
            hxx = hxy = hxz = hyy = hyz = hzz = np.float32(0.0)
            pxx = pxy = pyx = pyy = pzx = pzy = np.float32(0.0)
            qxx = qxy = qyy = np.float32(0.0)
            for j in range(size):
                fx, fy = np.float32(kx[low + j]), np.float32(ky[low + j])
                w = weight[row, low + j]
                # The Friedel mate was read: V = conj V(-s); its real derivatives change sign, its imaginary ones do not.
                sign = flip[j]
                ur, ui = vr[j], vi[j] * sign
                gxr, gyr, gzr = axr[j] * sign, ayr[j] * sign, azr[j] * sign
                gxi, gyi, gzi = axi[j], ayi[j], azi[j]
                mxr, mxi = xx * gxr + xy * gyr + xz * gzr, xx * gxi + xy * gyi + xz * gzi
                myr, myi = yx * gxr + yy * gyr + yz * gzr, yx * gxi + yy * gyi + yz * gzi
                mzr, mzi = zx * gxr + zy * gyr + zz * gzr, zx * gxi + zy * gyi + zz * gzi
                r1r, r1i = -fy * mzr, -fy * mzi
                r2r, r2i = fx * mzr, fx * mzi
                r3r, r3i = fy * mxr - fx * myr, fy * mxi - fx * myi
                # sums with the data
                yr, yi = dr[j], di[j]
                s0 += yr * ur - yi * ui
                s1 += yr * r1r - yi * r1i
                s2 += yr * r2r - yi * r2i
                s3 += yr * r3r - yi * r3i
                turned = yr * ui + yi * ur  # Re(conj(D) e (-i) V) = Im(conj(D) e V)
                s4 += fx * turned
                s5 += fy * turned
                # sums with the model
                wr, wi = w * ur, w * ui
                power = wr * ur + wi * ui
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
                t1 = wi * r1r - wr * r1i  # Re(W conj(g) (-i V))
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
            out[p, 0] += s0
            out[p, 1] += s1
            out[p, 2] += s2
            out[p, 3] += s3
            out[p, 4] += s4
            out[p, 5] += s5
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
