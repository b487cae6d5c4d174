"""Compiled: the transform of a map at arbitrary points, with the CTF and a sub-pixel shift, on a half-plane of an image."""

from __future__ import annotations

import math
from typing import Any

from ..core._jit import jit


@jit
def render_half_plane(
    grid: Any,  # complex64 (nz, ny, nx): deapodised transform, index = point + offset, nx holds x >= -offset only
    offset_z: int,
    offset_x: int,
    table: Any,  # float32 (6, per_unit + 1): the window's six weights by the fraction of the point
    rotation: Any,  # float64 (3, 3) M
    scale: float,  # grid points per image frequency step
    limit: float,  # grid points; nothing beyond
    filters: Any,  # float32 (n, n // 2 + 1): multiplies the result
    phase_x: Any,  # complex64 (n // 2 + 1,): the shift along x
    phase_y: Any,  # complex64 (n,)
    defocus: Any,  # float64 (3,): quadratic form times pi lambda / field^2, radians per step^2
    spherical: float,  # pi lambda^3 Cs / (2 field^4), radians per step^4
    offset_phase: float,  # radians; the constant part of chi
    use_ctf: bool,
    out: Any,  # complex64 (n, n // 2 + 1), rfft2 layout
) -> None:
    n = out.shape[0]
    per_unit = table.shape[1] - 1
    for row in range(n):
        ky = row if row < n // 2 else row - n
        for kx in range(n // 2 + 1):
            x = scale * (kx * rotation[0, 0] + ky * rotation[1, 0])
            y = scale * (kx * rotation[0, 1] + ky * rotation[1, 1])
            z = scale * (kx * rotation[0, 2] + ky * rotation[1, 2])
            # Nyquist rows and columns have no mate in the other half: left out
            if x * x + y * y + z * z >= limit * limit or kx == n // 2 or ky == -(n // 2) or filters[row, kx] == 0.0:
                out[row, kx] = 0.0
                continue
            mate = x < 0.0
            if mate:
                x, y, z = -x, -y, -z
            ix, iy, iz = math.floor(x), math.floor(y), math.floor(z)
            fx, fy, fz = int((x - ix) * per_unit + 0.5), int((y - iy) * per_unit + 0.5), int((z - iz) * per_unit + 0.5)
            bx, by, bz = ix - 2 + offset_x, iy - 2 + offset_z, iz - 2 + offset_z
            real = 0.0
            imag = 0.0
            for c in range(6):
                for b in range(6):
                    weight = table[c, fz] * table[b, fy]
                    row_real = 0.0
                    row_imag = 0.0
                    for a in range(6):
                        value = grid[bz + c, by + b, bx + a]
                        row_real += table[a, fx] * value.real
                        row_imag += table[a, fx] * value.imag
                    real += weight * row_real
                    imag += weight * row_imag
            if mate:
                imag = -imag
            factor = float(filters[row, kx])
            if use_ctf:
                square = float(kx * kx + ky * ky)
                chi = defocus[0] * kx * kx + 2.0 * defocus[1] * kx * ky + defocus[2] * ky * ky - spherical * square * square
                factor *= math.sin(chi + offset_phase)
            out[row, kx] = complex(real, imag) * factor * phase_x[kx] * phase_y[row]
