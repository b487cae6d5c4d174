"""Central slices of a map's transform (convention 11), by trilinear interpolation on a padded grid."""

from __future__ import annotations

from typing import Optional

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import run_ranges
from .band import Band
from .fourier import correct_gridding, half_extent, padded_box, volume_to_half
from .insertion import check_rotations


class Reference:
    """A map's transform, ready for slices; shared by threads, never written.

    ``volume`` (N, N, N), N even; ``padding`` is the Fourier oversampling; ``radius`` (unpadded Fourier pixels, default
    N / 2 - 1) is as far as slices may reach: a smaller one keeps less in memory. The map is divided by sinc^2 first, which
    trilinear interpolation multiplies it with; ``correct`` False leaves that out. Raises ValueError where these do not fit.
    """

    def __init__(
        self,
        volume: NDArray,
        padding: float = 2.0,
        radius: Optional[float] = None,
        correct: bool = True,
        threads: int = 1,
    ) -> None:
        box = len(volume)
        radius = box / 2 - 1 if radius is None else float(radius)
        if volume.shape != (box,) * 3 or box % 2 or padding < 1 or not 0 < radius <= box / 2 - 1:
            what = f"map {volume.shape}, padding {padding}, radius {radius}"
            raise ValueError(f"{what}: want an even cube, padding >= 1, radius < box / 2")
        self.box = box
        self.radius = radius
        self.padded = padded_box(box, padding)
        self.extent = half_extent(box, padding, radius)
        if correct:
            volume = correct_gridding(volume, self.padded)
        self.cube = volume_to_half(volume, self.padded, self.extent, threads)  # (2 r + 1, 2 r + 1, r + 1) complex64

    def slices(self, rotations: ArrayLike, band: Band, scale: ArrayLike = 1.0, threads: int = 1) -> NDArray[np.complex64]:
        """V(``scale`` M^T (kx, ky, 0)) of M = ``rotations`` (B, 3, 3), ``(B, len(band))``.

        ``scale`` is the field of view of the map over that of the images, times their magnification: a number, or one for each
        slice (B,). Raises ValueError for matrices that are not
        rotations and for samples beyond the radius.
        """
        from . import projection_kernels as kernels

        turns = check_rotations(rotations)
        scales = check_scales(scale, len(turns), band.radius, self.radius)
        rows = np.ascontiguousarray(turns[:, :2] * (scales * self.padded / self.box), dtype=np.float32)
        kx, ky = band.kx.astype(np.float32), band.ky.astype(np.float32)
        out = np.empty((len(rows), len(band)), np.complex64)
        cube, flat_out = self.cube.view(np.float32), out.view(np.float32)

        def work(start: int, stop: int) -> None:
            scratch = np.empty((4, kernels.CHUNK), np.float32)
            kernels.take_slices(cube, rows, kx, ky, flat_out, scratch, start, stop)

        run_ranges(work, len(rows), threads)
        return out


def check_scales(scale: ArrayLike, number: int, reach: float, radius: float) -> NDArray[np.float64]:
    """``scale`` ready to multiply ``number`` matrices. Raises ValueError where it brings ``reach`` beyond ``radius``."""
    scales = np.asarray(scale, dtype=np.float64)
    if scales.shape not in ((), (number,)):
        raise ValueError(f"scale {scales.shape}: want one number, or one for each of {number} projections")
    largest = reach * float(scales.max(initial=0.0))
    if largest > radius * (1 + 1e-6):
        raise ValueError(f"samples reach {largest:g} Fourier pixels, the reference {radius:g}")
    return scales if scales.ndim == 0 else scales[:, None, None]
