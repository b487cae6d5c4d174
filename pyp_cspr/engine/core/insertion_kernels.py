"""Kernels of ``insertion.py``: sort samples into slabs of the half cube, and add each slab's samples to the sums.

A sample is a record of six float32: x, y (indices in the half cube), the fraction of z above its slab, and the real part,
imaginary part and weight. A slab is what lies between two z planes. Indices are unsigned so that no negative ones are looked
for.
"""

from __future__ import annotations

import numpy as np

from ._jit import jit

CHUNK = 512  # samples whose coordinates are computed at once


@jit
def count_slabs(rotations, kx, ky, centre, counts, slab, start, stop):
    """counts[b, s] = samples of image b in slab s.

    ``rotations`` (B, 2, 3) float32 take (kx, ky) to grid units; ``slab`` (n,) int32 is scratch.
    """
    for b in range(start, stop):
        x0, x1 = rotations[b, 0, 0], rotations[b, 1, 0]
        z0, z1 = rotations[b, 0, 2], rotations[b, 1, 2]
        for j in range(kx.size):
            z = kx[j] * z0 + ky[j] * z1
            slab[j] = np.int32((-z if kx[j] * x0 + ky[j] * x1 < 0 else z) + centre)
        for s in range(counts.shape[1]):
            counts[b, s] = 0
        for j in range(kx.size):
            counts[b, np.uint32(slab[j])] += 1


@jit
def place_slabs(counts, first):
    """counts -> where each image's first record of each slab goes; first[s] = first record of slab s, ``(slabs + 1,)``."""
    total = 0
    for s in range(counts.shape[1]):
        first[s] = total
        for b in range(counts.shape[0]):
            here = counts[b, s]
            counts[b, s] = total
            total += here
    first[counts.shape[1]] = total


@jit
def write_records(rotations, kx, ky, centre, data, weight, counts, scratch, records, start, stop):
    """Write the samples of images start to stop where ``counts`` says, those with x < 0 as their Friedel mates.

    ``scratch`` is (4, CHUNK) float32.
    """
    one = np.float32(1.0)
    for b in range(start, stop):
        x0, x1 = rotations[b, 0, 0], rotations[b, 1, 0]
        y0, y1 = rotations[b, 0, 1], rotations[b, 1, 1]
        z0, z1 = rotations[b, 0, 2], rotations[b, 1, 2]
        for low in range(0, kx.size, CHUNK):
            size = min(CHUNK, kx.size - low)
            for i in range(size):
                u, v = kx[low + i], ky[low + i]
                x = u * x0 + v * x1
                y = u * y0 + v * y1
                z = u * z0 + v * z1
                sign = -one if x < 0 else one
                scratch[0, i] = x * sign
                scratch[1, i] = y * sign + centre
                scratch[2, i] = (-z if x < 0 else z) + centre
                scratch[3, i] = sign
            for i in range(size):
                z = scratch[2, i]
                s = np.uint32(z)
                p = np.uint64(counts[b, s])
                counts[b, s] += 1
                value = data[b, low + i]
                records[p, 0] = scratch[0, i]
                records[p, 1] = scratch[1, i]
                records[p, 2] = z - np.float32(s)
                records[p, 3] = value.real
                records[p, 4] = value.imag * scratch[3, i]
                records[p, 5] = weight[b, low + i]


@jit
def deposit(records, first, sums, parity, slabs_per_block, start, stop):
    """Add the records of the slab blocks 2 i + parity, i from start to stop, to eight neighbours each in ``sums`` (z, y, x, 3).

    Blocks of one parity share no plane, so they may run at once; which thread runs one does not change a sum.
    """
    flat = sums.reshape(sums.size)
    row = np.uint64(3 * sums.shape[2])
    plane = np.uint64(3 * sums.shape[2] * sums.shape[1])
    slabs = first.size - 1
    u1, u2, u3, u4, u5 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4), np.uint64(5)
    for i in range(start, stop):
        begin = (2 * i + parity) * slabs_per_block
        for s in range(begin, min(begin + slabs_per_block, slabs)):
            base = np.uint64(s) * plane
            for p in range(np.uint64(first[s]), np.uint64(first[s + 1])):
                x, y = records[p, 0], records[p, 1]
                ix, iy = np.uint32(x), np.uint32(y)
                fx, fy = np.float64(x - np.float32(ix)), np.float64(y - np.float32(iy))
                fz = np.float64(records[p, 2])
                re, im, w = np.float64(records[p, 3]), np.float64(records[p, 4]), np.float64(records[p, 5])
                re1, im1, w1 = re * fx, im * fx, w * fx
                re0, im0, w0 = re - re1, im - im1, w - w1
                t3 = fz * fy
                t2, t1 = fz - t3, fy - t3
                t0 = 1.0 - fz - t1
                q = base + np.uint64(iy) * row + u3 * np.uint64(ix)
                flat[q] += re0 * t0
                flat[q + u1] += im0 * t0
                flat[q + u2] += w0 * t0
                flat[q + u3] += re1 * t0
                flat[q + u4] += im1 * t0
                flat[q + u5] += w1 * t0
                r = q + row
                flat[r] += re0 * t1
                flat[r + u1] += im0 * t1
                flat[r + u2] += w0 * t1
                flat[r + u3] += re1 * t1
                flat[r + u4] += im1 * t1
                flat[r + u5] += w1 * t1
                r = q + plane
                flat[r] += re0 * t2
                flat[r + u1] += im0 * t2
                flat[r + u2] += w0 * t2
                flat[r + u3] += re1 * t2
                flat[r + u4] += im1 * t2
                flat[r + u5] += w1 * t2
                r = q + plane + row
                flat[r] += re0 * t3
                flat[r + u1] += im0 * t3
                flat[r + u2] += w0 * t3
                flat[r + u3] += re1 * t3
                flat[r + u4] += im1 * t3
                flat[r + u5] += w1 * t3


@jit
def add_turned(source, target, matrices, extent, start, stop):
    """target(v) += sum over matrices g of source(g v), trilinear, for planes z from start to stop.

    Both are (z, y, x, 3) sums; ``source`` has its x = 0 plane completed. What g takes outside the sphere is left out.
    """
    limit = extent * extent
    for iz in range(start, stop):
        z = iz - extent
        for iy in range(target.shape[1]):
            y = iy - extent
            for x in range(target.shape[2]):
                if x * x + y * y + z * z > limit:
                    continue
                re, im, w = 0.0, 0.0, 0.0
                for g in range(matrices.shape[0]):
                    sx = matrices[g, 0, 0] * x + matrices[g, 0, 1] * y + matrices[g, 0, 2] * z
                    sy = matrices[g, 1, 0] * x + matrices[g, 1, 1] * y + matrices[g, 1, 2] * z
                    sz = matrices[g, 2, 0] * x + matrices[g, 2, 1] * y + matrices[g, 2, 2] * z
                    sign = 1.0
                    if sx < 0:
                        sx, sy, sz, sign = -sx, -sy, -sz, -1.0
                    sy += extent
                    sz += extent
                    jx, jy, jz = min(int(sx), extent - 1), min(int(sy), 2 * extent - 1), min(int(sz), 2 * extent - 1)
                    jx, jy, jz = max(jx, 0), max(jy, 0), max(jz, 0)
                    fx, fy, fz = sx - jx, sy - jy, sz - jz
                    for corner in range(4):
                        t = (fz if corner > 1 else 1.0 - fz) * (fy if corner & 1 else 1.0 - fy)
                        cz, cy = jz + (corner >> 1), jy + (corner & 1)
                        a, b = t * (1.0 - fx), t * fx
                        re += a * source[cz, cy, jx, 0] + b * source[cz, cy, jx + 1, 0]
                        im += sign * (a * source[cz, cy, jx, 1] + b * source[cz, cy, jx + 1, 1])
                        w += a * source[cz, cy, jx, 2] + b * source[cz, cy, jx + 1, 2]
                target[iz, iy, x, 0] += re
                target[iz, iy, x, 1] += im
                target[iz, iy, x, 2] += w
