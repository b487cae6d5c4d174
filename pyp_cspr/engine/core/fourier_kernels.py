"""Kernels of ``fourier.py``: transforms of real images, eight lines at a time, and the coefficients of a band out of them.

A transform goes radix by radix (Stockham's scheme, in which nothing is reordered: Swarztrauber 1984, Parallel Computing 1:45).
It runs over lines of ``n`` complex numbers, eight lines side by side: element i of all eight is one vector of real parts and
one of imaginary parts, so that every step is a vector instruction. A pass of radix r over what earlier passes have left as
``run / 8`` interleaved lines of r m elements reads vectors that are ``stride`` floats apart, and writes them without a gap.
"""

from __future__ import annotations

import numpy as np

from ._jit import jit
from ._simd import flat, load8, store8

LANES = 8
MARGIN = 16  # floats beside each row of a copied image: rows of 2^n bytes would get in each other's way in the cache


@jit
def pick(out, transforms, offset, factor):
    """out[b, j] = transforms[b, offset[j]] * factor[j].

    ``out`` (B, n) and ``transforms`` (B, m) complex64; ``offset`` (n,) intp, not negative; ``factor`` (n,) float32.
    """
    for b in range(len(out)):
        for j in range(offset.size):
            out[b, j] = transforms[b, offset[j]] * factor[j]


@jit
def radix_4(x, base, stride, imag, y, half, turns, m, run):
    """One pass from ``x``, at ``base``, imaginary parts ``imag`` floats farther, to ``y``, imaginary parts from ``half`` on.

    ``turns`` (m, 3, 2): cosine and sine of -2 pi p k / (4 m), for k = 1 to 3.
    """
    im, step, length, out = np.uint64(imag), np.uint64(stride), np.uint64(run), np.uint64(half)
    u1, u2, u3, u4, u5, u6 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4), np.uint64(5), np.uint64(6)
    far = np.uint64(m) * step
    for i in range(m):
        p = np.uint64(i)
        t = u6 * p
        c1, s1, c2, s2, c3, s3 = turns[t], turns[t + u1], turns[t + u2], turns[t + u3], turns[t + u4], turns[t + u5]
        i0, o0 = np.uint64(base) + p * step, u4 * p * length
        i1, o1 = i0 + far, o0 + length
        i2, o2 = i1 + far, o1 + length
        i3, o3 = i2 + far, o2 + length
        for lane in range(0, run, LANES):
            q = np.uint64(lane)
            ar, ai = load8(x, i0 + q), load8(x, i0 + im + q)
            br, bi = load8(x, i1 + q), load8(x, i1 + im + q)
            cr, ci = load8(x, i2 + q), load8(x, i2 + im + q)
            dr, di = load8(x, i3 + q), load8(x, i3 + im + q)
            er, ei, fr, fi = ar + cr, ai + ci, ar - cr, ai - ci
            gr, gi, hr, hi = br + dr, bi + di, bi - di, dr - br  # h = -i (b - d)
            store8(y, o0 + q, er + gr)
            store8(y, o0 + out + q, ei + gi)
            vr, vi = fr + hr, fi + hi
            store8(y, o1 + q, vr * c1 - vi * s1)
            store8(y, o1 + out + q, vr * s1 + vi * c1)
            vr, vi = er - gr, ei - gi
            store8(y, o2 + q, vr * c2 - vi * s2)
            store8(y, o2 + out + q, vr * s2 + vi * c2)
            vr, vi = fr - hr, fi - hi
            store8(y, o3 + q, vr * c3 - vi * s3)
            store8(y, o3 + out + q, vr * s3 + vi * c3)


@jit
def radix_2(x, base, stride, imag, y, half, turns, m, run):
    """As ``radix_4``; ``turns`` (m, 2)."""
    im, step, length, out = np.uint64(imag), np.uint64(stride), np.uint64(run), np.uint64(half)
    u1, u2 = np.uint64(1), np.uint64(2)
    for i in range(m):
        p = np.uint64(i)
        c, s = turns[u2 * p], turns[u2 * p + u1]
        i0, o0 = np.uint64(base) + p * step, u2 * p * length
        i1, o1 = i0 + np.uint64(m) * step, o0 + length
        for lane in range(0, run, LANES):
            q = np.uint64(lane)
            ar, ai = load8(x, i0 + q), load8(x, i0 + im + q)
            br, bi = load8(x, i1 + q), load8(x, i1 + im + q)
            store8(y, o0 + q, ar + br)
            store8(y, o0 + out + q, ai + bi)
            vr, vi = ar - br, ai - bi
            store8(y, o1 + q, vr * c - vi * s)
            store8(y, o1 + out + q, vr * s + vi * c)


@jit
def radix_odd(x, base, stride, imag, y, half, turns, roots, radix, m, run):
    """As ``radix_4``, for any odd radix r; ``turns`` (m, r, 2), ``roots`` (r, 2): cosine and sine of -2 pi k / r.

    Elements j and r - j go together: their sum has the cosine, their difference the sine, of k and, mirrored, of r - k.
    """
    im, step, length, out = np.uint64(imag), np.uint64(stride), np.uint64(run), np.uint64(half)
    u1, u2, r = np.uint64(1), np.uint64(2), np.uint64(radix)
    far, middle = np.uint64(m) * step, (radix + 1) // 2
    for i in range(m):
        p = np.uint64(i)
        i0, o0, t = np.uint64(base) + p * step, r * p * length, u2 * p * r
        for lane in range(0, run, LANES):
            q = np.uint64(lane)
            ar, ai = load8(x, i0 + q), load8(x, i0 + im + q)
            sr, si = ar, ai
            near = i0 + q
            for _ in range(1, radix):
                near += far
                sr, si = sr + load8(x, near), si + load8(x, near + im)
            store8(y, o0 + q, sr)
            store8(y, o0 + out + q, si)
            for j in range(1, middle):
                k = np.uint64(j)
                turn, near, mate = k, i0 + far + q, i0 + (r - u1) * far + q
                c, s = roots[u2 * turn], roots[u2 * turn + u1]
                br, bi, dr, di = load8(x, near), load8(x, near + im), load8(x, mate), load8(x, mate + im)
                er, ei, fr, fi = ar + (br + dr) * c, ai + (bi + di) * c, (br - dr) * s, (bi - di) * s
                for _ in range(2, middle):
                    near, mate, turn = near + far, mate - far, turn + k
                    if turn >= r:
                        turn -= r
                    c, s = roots[u2 * turn], roots[u2 * turn + u1]
                    br, bi, dr, di = load8(x, near), load8(x, near + im), load8(x, mate), load8(x, mate + im)
                    er, ei, fr, fi = er + (br + dr) * c, ei + (bi + di) * c, fr + (br - dr) * s, fi + (bi - di) * s
                vr, vi = er - fi, ei + fr
                c, s = turns[t + u2 * k], turns[t + u2 * k + u1]
                store8(y, o0 + k * length + q, vr * c - vi * s)
                store8(y, o0 + k * length + out + q, vr * s + vi * c)
                vr, vi = er + fi, ei - fr
                c, s = turns[t + u2 * (r - k)], turns[t + u2 * (r - k) + u1]
                store8(y, o0 + (r - k) * length + q, vr * c - vi * s)
                store8(y, o0 + (r - k) * length + out + q, vr * s + vi * c)


@jit
def transform_lines(x, base, stride, imag, out, one, two, radices, turns, roots, first):
    """Transform eight lines from ``x``, at ``base``, to ``out``, which may be the same memory; by way of ``one`` and ``two``.

    ``out``, ``one``, ``two`` (2, n, 8), flat. ``radices`` (P,); pass i finds its turns from first[i] on, its roots in roots[i].
    """
    half = out.size // 2
    n, run = half // LANES, LANES
    source, at, step, im = x, base, stride, imag
    for i in range(radices.size):
        radix = radices[i]
        m = n // radix
        target = out if i == radices.size - 1 else (one if i % 2 == 0 else two)
        own = turns[first[i] :]
        if radix == 4:
            radix_4(source, at, step, im, target, half, own, m, run)
        elif radix == 2:
            radix_2(source, at, step, im, target, half, own, m, run)
        else:
            radix_odd(source, at, step, im, target, half, own, roots[i], radix, m, run)
        n, run = m, run * radix
        source, at, step, im = target, 0, run, half


@jit
def transform_images(
    images, out, place, real, imaginary, picture, columns, rows, one, two, radices, turns, roots, first, start, stop
):
    """out[b, j] = what is at place[j] in the transform of images[b], its parts times real[j] and imaginary[j].

    ``images`` (B, N, N) float32, N even and at least 16; ``out`` complex64 seen as float32 (B, 2 n). Scratch are ``picture``
    (N, N + MARGIN), ``columns`` (2, N, 8), flat, ``rows`` (blocks, 2 * N * 8), ``one`` and ``two`` as ``columns``. First
    columns c and c + N / 2 are transformed as real and imaginary part of one line; taken apart, and turned, they are in
    ``rows`` [ky / 8, part, x, ky % 8], of which x becomes kx.
    """
    box, width = images.shape[1], picture.shape[1]
    half, plane = box // 2, np.uint64(LANES * box)
    pixels, turned = flat(picture), flat(rows)
    lanes, right, both = np.uint64(LANES), np.uint64(LANES * half), np.uint64(LANES * half) + plane
    a_half = np.float32(0.5)
    for b in range(start, stop):
        for y in range(box):
            source, target = images[b, y], picture[y]
            for x in range(box):
                target[x] = source[x]
        c = 0
        while True:
            transform_lines(pixels, c, width, half, columns, one, two, radices, turns, roots, first)
            for ky in range(min(LANES * len(rows), half)):
                p, q = np.uint64(LANES * ky), np.uint64(LANES * ((box - ky) % box))
                t = np.uint64(ky // LANES) * (plane + plane) + np.uint64(LANES * c + ky % LANES)
                for _ in range(LANES):
                    pr, pi, qr, qi = columns[p], columns[p + plane], columns[q], columns[q + plane]
                    turned[t] = a_half * (pr + qr)
                    turned[t + plane] = a_half * (pi - qi)
                    turned[t + right] = a_half * (pi + qi)
                    turned[t + both] = a_half * (qr - pr)
                    p, q, t = p + np.uint64(1), q + np.uint64(1), t + lanes
            if c == half - LANES:
                break
            c = min(c + LANES, half - LANES)  # the last eight may be there twice
        for k in range(len(rows)):
            base = k * 2 * LANES * box
            transform_lines(turned, base, LANES, LANES * box, rows[k], one, two, radices, turns, roots, first)
        for j in range(place.size):
            t = np.uint64(place[j])
            out[b, 2 * j] = turned[t] * real[j]
            out[b, 2 * j + 1] = turned[t + plane] * imaginary[j]
