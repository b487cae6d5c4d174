"""Kernels of ``insertion.py``: sort the samples of each image by slabs of the half cube, and add slab after slab to the sums.

A slab is what lies between two z planes. A sample is a record of four float32: the real part, the imaginary part and the
weight, and in place of the fourth an int32, the sample's kx and ky. A sample with x < 0 is kept as its Friedel mate.
"""

from __future__ import annotations

import numpy as np

from ._jit import jit
from ._simd import flat, load4, pack4, store4

CHUNK = 256  # samples whose coordinates are computed at once


@jit
def sort_samples(rotations, kx, ky, centre, data, weight, which, begin, records, slab, code, own, own_codes, start, stop):
    """Write the samples of image which[b] to records[b] in the order of their slabs, for b from start to stop.

    ``rotations`` (B, 2, 3) float32 take (kx, ky) to grid units, ``centre`` is the plane z = 0; ``data`` (I, 2 n) is complex64
    seen as float32, ``weight`` (I, n) float32, ``which`` (B,). Slab s of image b then lies at begin[b, s] to begin[b, s + 1]
    of ``records`` (B, n, 4) float32. ``slab`` and ``code`` (n,) int32, ``own`` (n, 4) float32 and ``own_codes``, the same
    memory as int32, are scratch: an image is sorted in the cache and then written in one go, which takes half the time.
    """
    slabs = begin.shape[1] - 1
    u1, u2, u3, u4 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    line, line_of_codes = flat(own), flat(own_codes)
    for b in range(start, stop):
        x0, x1 = rotations[b, 0, 0], rotations[b, 1, 0]
        z0, z1 = rotations[b, 0, 2], rotations[b, 1, 2]
        for j in range(kx.size):
            k, m = np.float32(kx[j]), np.float32(ky[j])
            z = k * z0 + m * z1
            both = (np.int32(kx[j]) << np.int32(16)) + np.int32(ky[j])
            mate = k * x0 + m * x1 < 0
            slab[j] = np.int32((-z if mate else z) + centre)
            code[j] = -both if mate else both
        place = begin[b]
        place[:] = 0
        for j in range(kx.size):
            place[np.uint32(slab[j])] += 1
        total = 0
        for s in range(slabs):
            here = place[s]
            place[s] = total
            total += here
        values, weights = data[which[b]], weight[which[b]]
        for j in range(kx.size):
            s = np.uint32(slab[j])
            p = u4 * np.uint64(np.uint32(place[s]))
            place[s] += 1
            imaginary = values[2 * j + 1]
            line[p] = values[2 * j]
            line[p + u1] = -imaginary if code[j] < 0 else imaginary
            line[p + u2] = weights[j]
            line_of_codes[p + u3] = code[j]
        for s in range(slabs, 0, -1):  # each has moved to the begin of the next
            place[s] = place[s - 1]
        place[0] = 0
        target = flat(records[b])
        for i in range(line.size):
            target[i] = line[i]


@jit
def deposit(
    records, codes, begin, rotations, centre, sums, row_begin, row_width, planes, scratch, offsets, parity, slabs_per_block,
    start, stop
):
    """Add the records of the slab blocks 2 i + parity, i from start to stop, to eight neighbours each in ``sums`` (n, 3).

    ``records`` to ``rotations`` as ``sort_samples`` leaves them; ``row_begin`` and ``row_width`` (z, y) tell where in the sums
    a row of the half cube lies. ``planes`` (2, y, x, 4), ``scratch`` (3, CHUNK) float32 and
    ``offsets`` (CHUNK,) int32 are scratch: a slab is summed up in two planes, which stay in the cache, and a plane is added to
    the sums when it is complete. Blocks of one parity share no plane, so they may run at once; which thread runs one does not
    change a sum.
    """
    slabs = begin.shape[1] - 1
    one, u1, u2, u3, u4 = np.float64(1.0), np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    both, samples, line_of_codes = flat(planes), flat(records), flat(codes)
    row, plane = np.uint64(planes.shape[2] * 4), np.uint64(planes.shape[1] * planes.shape[2] * 4)
    next_row = np.int32(planes.shape[2] * 4)
    for i in range(start, stop):
        first = (2 * i + parity) * slabs_per_block
        last = min(first + slabs_per_block, slabs)
        planes[first & 1] = 0.0
        for s in range(first, last):
            planes[(s + 1) & 1] = 0.0
            below, above = np.uint64(s & 1) * plane, np.uint64((s + 1) & 1) * plane
            height = centre - np.float32(s)
            for b in range(len(rotations)):
                x0, x1 = rotations[b, 0, 0], rotations[b, 1, 0]
                y0, y1 = rotations[b, 0, 1], rotations[b, 1, 1]
                z0, z1 = rotations[b, 0, 2], rotations[b, 1, 2]
                image = np.uint64(b) * np.uint64(records.shape[1])
                for low in range(begin[b, s], begin[b, s + 1], CHUNK):
                    size = min(CHUNK, begin[b, s + 1] - low)
                    base = u4 * (image + np.uint64(low))
                    for j in range(size):
                        code = line_of_codes[base + u4 * np.uint64(j) + u3]
                        ky = ((code + 32768) & 65535) - 32768
                        k, m = np.float32((code - ky) >> 16), np.float32(ky)
                        x = max(k * x0 + m * x1, np.float32(0.0))  # which rounding may have made negative
                        y = k * y0 + m * y1 + centre
                        ix, iy = np.int32(x), np.int32(y)
                        scratch[0, j] = x - np.float32(ix)
                        scratch[1, j] = y - np.float32(iy)
                        scratch[2, j] = k * z0 + m * z1 + height
                        offsets[j] = iy * next_row + ix * np.int32(4)
                    for j in range(size):
                        p = base + u4 * np.uint64(j)
                        fx, fy, fz = np.float64(scratch[0, j]), np.float64(scratch[1, j]), np.float64(scratch[2, j])
                        re, im, w = samples[p], samples[p + u1], samples[p + u2]
                        value = pack4(np.float64(re), np.float64(im), np.float64(w), 0.0)
                        right = value * fx
                        left = value - right
                        t3 = fz * fy
                        t2, t1 = fz - t3, fy - t3
                        t0 = one - fz - t1
                        corner = np.uint64(np.uint32(offsets[j]))
                        add_square(both, below + corner, row, left, right, t0, t1)
                        add_square(both, above + corner, row, left, right, t2, t3)
            add_plane(sums, row_begin[s], row_width[s], planes[s & 1])
        add_plane(sums, row_begin[last], row_width[last], planes[last & 1])


@jit
def add_square(planes, q, row, left, right, near, far):
    """Add vectors to four neighbours in a plane: ``near`` of left and right at q and right of it, ``far`` of them a row on."""
    u4 = np.uint64(4)
    store4(planes, q, load4(planes, q) + left * near)
    store4(planes, q + u4, load4(planes, q + u4) + right * near)
    q += row
    store4(planes, q, load4(planes, q) + left * far)
    store4(planes, q + u4, load4(planes, q + u4) + right * far)


@jit
def add_plane(sums, begin, width, plane):
    """sums[begin[y] : begin[y] + width[y]] += plane (y, x, 4)[y, : width[y], :3], for every y."""
    total, u3, u4 = flat(sums), np.uint64(3), np.uint64(4)
    for y in range(width.size):
        row, to = flat(plane[y]), u3 * np.uint64(begin[y])
        at = np.uint64(0)
        for _ in range(width[y]):
            total[to] += row[at]
            total[to + np.uint64(1)] += row[at + np.uint64(1)]
            total[to + np.uint64(2)] += row[at + np.uint64(2)]
            to += u3
            at += u4


@jit
def pack(sums, widths, packed):
    """packed (n, 3) = the first widths[z, y] elements of each row of ``sums`` (z, y, x, 3), row after row."""
    line, at = flat(packed), np.uint64(0)
    for z in range(widths.shape[0]):
        for y in range(widths.shape[1]):
            row = flat(sums[z, y])
            for i in range(3 * widths[z, y]):
                line[at] = row[i]
                at += np.uint64(1)


@jit
def unpack(packed, widths, sums):
    """The reverse: the first elements of each row of ``sums``; all others become 0."""
    line, at = flat(packed), np.uint64(0)
    for z in range(widths.shape[0]):
        for y in range(widths.shape[1]):
            row, width = flat(sums[z, y]), 3 * widths[z, y]
            for i in range(width):
                row[i] = line[at]
                at += np.uint64(1)
            for i in range(width, row.size):
                row[i] = 0.0


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
