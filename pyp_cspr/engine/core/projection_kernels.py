"""Kernels of ``projection.py``: trilinear samples of a half cube on central slices."""

from __future__ import annotations

import numpy as np

from ._jit import jit
from ._simd import flat

CHUNK = 512  # samples whose coordinates are computed at once


@jit
def take_slices(cube, rotations, kx, ky, out, scratch, start, stop):
    """out[b, j] = cube at rotations_b^T (kx, ky); the conjugate of the Friedel mate where x < 0.

    ``cube`` (z, y, x) and ``out`` (B, n) are complex64 seen as float32, the last axis doubled; ``rotations`` (B, 2, 3) float32
    take (kx, ky) to grid units; ``scratch`` is (4, CHUNK) float32.
    """
    one = np.float32(1.0)
    voxels = flat(cube)
    centre = np.float32(cube.shape[0] // 2)
    row = np.uint64(cube.shape[2])
    plane = np.uint64(cube.shape[2] * cube.shape[1])
    u1, u2, u3 = np.uint64(1), np.uint64(2), np.uint64(3)
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
                scratch[2, i] = z * sign + centre
                scratch[3, i] = sign
            for i in range(size):
                x, y, z = scratch[0, i], scratch[1, i], scratch[2, i]
                ix, iy, iz = np.uint32(x), np.uint32(y), np.uint32(z)
                fx, fy, fz = x - np.float32(ix), y - np.float32(iy), z - np.float32(iz)
                gx = one - fx
                q = np.uint64(iz) * plane + np.uint64(iy) * row + np.uint64(2) * np.uint64(ix)
                r = q + row
                re0 = gx * voxels[q] + fx * voxels[q + u2]
                im0 = gx * voxels[q + u1] + fx * voxels[q + u3]
                re1 = gx * voxels[r] + fx * voxels[r + u2]
                im1 = gx * voxels[r + u1] + fx * voxels[r + u3]
                q += plane
                r += plane
                re2 = gx * voxels[q] + fx * voxels[q + u2]
                im2 = gx * voxels[q + u1] + fx * voxels[q + u3]
                re3 = gx * voxels[r] + fx * voxels[r + u2]
                im3 = gx * voxels[r + u1] + fx * voxels[r + u3]
                re0 += fy * (re1 - re0)
                im0 += fy * (im1 - im0)
                re2 += fy * (re3 - re2)
                im2 += fy * (im3 - im2)
                out[b, 2 * (low + i)] = re0 + fz * (re2 - re0)
                out[b, 2 * (low + i) + 1] = scratch[3, i] * (im0 + fz * (im2 - im0))
