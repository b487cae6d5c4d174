"""The list of Fourier coefficients that matter: a half-plane inside a radius, sorted so that a lower limit is a prefix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .fourier_kernels import LANES


@dataclass(frozen=True)
class Band:
    """Half-plane coefficients of an image of ``box`` pixels (even) with 1 <= |k| <= ``radius``.

    kx > 0, or kx = 0 and ky > 0: DC, Friedel mates and the column kx = box / 2 are left out. Sorted by shell, the rounded
    |k|, then by kx and ky, so the coefficients up to a smaller radius come first.
    """

    box: int
    radius: float
    kx: NDArray[np.int16]  # (n,)
    ky: NDArray[np.int16]  # (n,)
    shell: NDArray[np.int16]  # (n,)
    offset: NDArray[np.int32]  # (n,) index in a flattened rfft2 of shape (box, box // 2 + 1)
    sign: NDArray[np.float32]  # (n,) (-1)^(kx + ky): moves the origin to pixel box // 2 of each axis (box / 2 even or odd)

    @cached_property
    def place(self) -> NDArray[np.int32]:
        """(n,) index in the flat transform that ``fourier_kernels.transform_images`` makes; that of the mate where ky < 0."""
        mate = self.ky < 0
        kx, ky = np.where(mate, -self.kx, self.kx).astype(np.int64) % self.box, np.abs(self.ky).astype(np.int64)
        return (ky // LANES * 2 * self.box * LANES + kx * LANES + ky % LANES).astype(np.int32)

    def __len__(self) -> int:
        return len(self.kx)

    def up_to(self, count: int) -> Band:
        """The first ``count`` coefficients, which are those of a lower resolution."""
        kx, ky = self.kx[:count], self.ky[:count]
        radius = float(np.hypot(kx, ky.astype(float)).max(initial=1.0))
        return Band(self.box, radius, kx, ky, self.shell[:count], self.offset[:count], self.sign[:count])

    def prefix(self, radius: float) -> int:
        """How many coefficients lie in shells up to round(``radius``)."""
        return int(np.searchsorted(self.shell, round(radius), side="right"))


def make_band(box: int, radius: float) -> Band:
    """The band of an even ``box``; ``radius`` in Fourier pixels, at most box / 2 - 1.

    Raises ValueError where the box is odd or the radius does not fit.
    """
    if box % 2 or box < 4:
        raise ValueError(f"box {box} must be even and at least 4")
    if not 1 <= radius <= box // 2 - 1:
        raise ValueError(f"radius {radius} does not fit a box of {box}")
    limit = int(np.floor(radius))
    ky, kx = np.meshgrid(np.arange(-limit, limit + 1), np.arange(limit + 1), indexing="ij")
    kx, ky = kx.ravel(), ky.ravel()
    length = np.hypot(kx, ky)
    keep = ((kx > 0) | (ky > 0)) & (length <= radius)
    kx, ky, shell = kx[keep], ky[keep], np.rint(length[keep]).astype(np.int16)
    order = np.lexsort((ky, kx, shell))
    kx, ky, shell = kx[order], ky[order], shell[order]
    offset = (ky % box) * (box // 2 + 1) + kx
    sign = 1.0 - 2.0 * ((kx + ky) % 2)
    kx, ky, offset = kx.astype(np.int16), ky.astype(np.int16), offset.astype(np.int32)
    return Band(box, float(radius), kx, ky, shell, offset, sign.astype(np.float32))
