"""Kernel of ``refinement.py``: cost, gradient and Gauss-Newton matrix of projections in their local parameters."""

from __future__ import annotations

import math

import numpy as np

from ._jit import jit

CHUNK = 128  # coefficients that are worked on at a time: their scratch stays in the first-level cache
SCRATCH = 14  # rows of CHUNK float32
SUMS = 25  # see ``accumulate``

# sin(pi r) = sum _Sn r^n and cos(pi r) = 1 + sum _Cn r^n: Taylor, right to 6e-8 for |r| <= 1/2
_S1, _S3, _S5, _S7, _S9, _S11 = (np.float32((-1) ** (n // 2) * math.pi**n / math.factorial(n)) for n in range(1, 12, 2))
_C2, _C4, _C6, _C8, _C10, _C12 = (np.float32((-1) ** (n // 2) * math.pi**n / math.factorial(n)) for n in range(2, 13, 2))


@jit
def evaluate(
    out, data, weight, rows, matrices, shifts, cubes, which, origin, line, plane, kx, ky, count, scratch, offsets, start, stop
):
    """out[p, :] = the 25 sums of projections ``start`` to ``stop``: ``accumulate``, each with its own pose and data.

    ``data`` float32 (Q, 2 n) and ``weight`` float32 (Q, n); ``rows[p]`` is the row of p in both. ``matrices`` float64
    (P, 3, 3); ``shifts`` (P, 2) in turns per Fourier pixel; ``cubes`` is a tuple of float32 (voxels * 2,), of which
    ``which[p]`` chooses.
    """
    for p in range(start, stop):
        row = rows[p]
        accumulate(
            out[p], data[row], weight[row], matrices[p], shifts[p, 0], shifts[p, 1], cubes[which[p]], origin, line, plane,
            kx, ky, count, scratch, offsets,
        )


@jit(inline="always")
def sample(
    cube, matrix, kx, ky, size, origin, line, plane, xs, ys, zs, offsets, flip, vr, vi, axr, axi, ayr, ayi, azr, azi
):
    """V and its derivatives by the cube's x, y, z, real and imaginary, of the first ``size`` coefficients; trilinear.

    Where x < 0 the Friedel mate is read as it is, and ``flip`` is -1. ``xs``, ``ys``, ``zs`` and ``offsets`` hold what comes
    between; the others as in ``accumulate``.
    """
    one = np.float32(1.0)
    xx, xy, xz = np.float32(matrix[0, 0]), np.float32(matrix[0, 1]), np.float32(matrix[0, 2])
    yx, yy, yz = np.float32(matrix[1, 0]), np.float32(matrix[1, 1]), np.float32(matrix[1, 2])
    # Unsigned, so that no index is looked at twice for being negative
    u1, u2, u3 = np.uint64(1), np.uint64(2), np.uint64(3)
    row, page = np.uint64(2 * line), np.uint64(2 * plane)
    for j in range(size):
        fx, fy = np.float32(kx[j]), np.float32(ky[j])
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
        o = np.uint64(offsets[j])
        q = o + row
        r = o + page
        t = r + row
        x, y, z = xs[j], ys[j], zs[j]
        d00r, d00i = cube[o + u2] - cube[o], cube[o + u3] - cube[o + u1]
        d01r, d01i = cube[q + u2] - cube[q], cube[q + u3] - cube[q + u1]
        d10r, d10i = cube[r + u2] - cube[r], cube[r + u3] - cube[r + u1]
        d11r, d11i = cube[t + u2] - cube[t], cube[t + u3] - cube[t + u1]
        c00r, c00i = cube[o] + x * d00r, cube[o + u1] + x * d00i
        c01r, c01i = cube[q] + x * d01r, cube[q + u1] + x * d01i
        c10r, c10i = cube[r] + x * d10r, cube[r + u1] + x * d10i
        c11r, c11i = cube[t] + x * d11r, cube[t + u1] + x * d11i
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


@jit
def accumulate(
    out, data, weight, matrix, shift_x, shift_y, cube, origin, line, plane, kx, ky, count, scratch, offsets
):
    """out = the 25 sums of one projection.

    ``data`` float32 (2 n,) is D and ``weight`` float32 (n,) is W. ``matrix`` float64 (3, 3): rows 0 and 1 take kx and ky to the
    cube's voxels (x, y, z), row 2 is the microscope's z axis in the same scale. ``shift_x``, ``shift_y`` in turns per Fourier
    pixel. ``cube`` float32 (voxels * 2,) is a flat half cube [z, y, x >= 0] with ``line`` voxels in x,
    ``plane`` in x and y, z = y = 0 at ``origin``. The first ``count`` coefficients are used. ``kx``, ``ky`` int16 (n,).
    ``scratch`` float32 (SCRATCH, CHUNK) and ``offsets`` int32 (CHUNK,) hold what comes between.

    The sums, with V the slice, e the phase, g the slice's derivatives by a rotation (w x k), and k = (kx, ky):
    0 Re D* V e; 1-3 Re D* g e; 4-5 Re D* dV/ds e; 6 W|V|^2; 7-9 Re W V* g;
    10-15 Re W g* g (xx xy xz yy yz zz); 16-21 Re W g* dV/ds (xx xy yx yy zx zy); 22-24 W |V|^2 (kx^2 kxky ky^2).
    """
    xs, ys, zs, flip = scratch[0], scratch[1], scratch[2], scratch[3]
    vr, vi, axr, axi, ayr, ayi = scratch[4], scratch[5], scratch[6], scratch[7], scratch[8], scratch[9]
    azr, azi, dr, di = scratch[10], scratch[11], scratch[12], scratch[13]
    one, two, half = np.float32(1.0), np.float32(2.0), np.float32(0.5)
    xx, xy, xz = np.float32(matrix[0, 0]), np.float32(matrix[0, 1]), np.float32(matrix[0, 2])
    yx, yy, yz = np.float32(matrix[1, 0]), np.float32(matrix[1, 1]), np.float32(matrix[1, 2])
    zx, zy, zz = np.float32(matrix[2, 0]), np.float32(matrix[2, 1]), np.float32(matrix[2, 2])
    turn_x, turn_y = np.float32(shift_x), np.float32(shift_y)
    for s in range(SUMS):
        out[s] = 0.0
    for low in range(0, count, CHUNK):
        size = min(CHUNK, count - low)
        kxs, kys, ws = kx[low : low + size], ky[low : low + size], weight[low : low + size]
        ds = data[2 * low : 2 * (low + size)]
        sample(cube, matrix, kxs, kys, size, origin, line, plane, xs, ys, zs, offsets, flip, vr, vi, axr, axi, ayr, ayi,
               azr, azi)
        for j in range(size):  # conj(D) e, e = exp(-2 pi i k.s); its sine and cosine from those of half the angle
            turns = np.float32(kxs[j]) * turn_x + np.float32(kys[j]) * turn_y
            r = turns - np.float32(np.int32(turns + (half if turns >= 0 else -half)))
            r2 = r * r
            sine = r * (_S1 + r2 * (_S3 + r2 * (_S5 + r2 * (_S7 + r2 * (_S9 + r2 * _S11)))))
            cosine = one + r2 * (_C2 + r2 * (_C4 + r2 * (_C6 + r2 * (_C8 + r2 * (_C10 + r2 * _C12)))))
            er = one - two * sine * sine
            ei = -two * sine * cosine
            xr, xi = ds[2 * j], ds[2 * j + 1]
            dr[j] = xr * er + xi * ei
            di[j] = xr * ei - xi * er
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = np.float32(0.0)
        hxx = hxy = hxz = hyy = hyz = hzz = np.float32(0.0)
        pxx = pxy = pyx = pyy = pzx = pzy = np.float32(0.0)
        qxx = qxy = qyy = np.float32(0.0)
        for j in range(size):
            fx, fy = np.float32(kxs[j]), np.float32(kys[j])
            w = ws[j]
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
        out[0] += s0
        out[1] += s1
        out[2] += s2
        out[3] += s3
        out[4] += s4
        out[5] += s5
        out[6] += s6
        out[7] += s7
        out[8] += s8
        out[9] += s9
        out[10] += hxx
        out[11] += hxy
        out[12] += hxz
        out[13] += hyy
        out[14] += hyz
        out[15] += hzz
        out[16] += pxx
        out[17] += pxy
        out[18] += pyx
        out[19] += pyy
        out[20] += pzx
        out[21] += pzy
        out[22] += qxx
        out[23] += qxy
        out[24] += qyy
