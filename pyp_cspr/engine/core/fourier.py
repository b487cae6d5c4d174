"""Transforms between real space and the layouts that the kernels use.

Images become lists of the coefficients of a band; volumes become *half cubes*: arrays indexed [z, y, x] of shape
``(2 r + 1, 2 r + 1, r + 1)`` with the zero frequency at [r, r, 0], x never negative. Phases are about pixel
box // 2 and sums are plain (conventions 2 and 3).
"""

from __future__ import annotations

from typing import Optional

import numpy as np
from numpy.typing import NDArray

from ._jit import run_ranges
from .band import Band
from .passes import Passes, passes_of
from .volumes import forward

_IMAGES_AT_ONCE = 2**17  # pixels of a batch of images: about half a megabyte, which stays in a core's own cache
_PRUNE_BELOW = 0.8  # columns of the half transform needed, below which the second pass leaves the others out


def crops_to_coefficients(
    images: NDArray[np.float32], band: Band, factor: float, threads: int = 1
) -> NDArray[np.complex64]:
    """Coefficients ``(B, len(band))`` of images ``(B, box, box)``, times ``factor``, with phases about pixel box // 2.

    Raises ValueError where the images are not of the band's box.
    """
    images = np.ascontiguousarray(images, dtype=np.float32)
    if images.ndim != 3 or images.shape[1:] != (band.box, band.box):
        raise ValueError(f"images have the shape {images.shape}, want (B, {band.box}, {band.box})")
    sign = (band.sign * np.float32(factor)).astype(np.float32)
    result = np.empty((len(images), len(band)), np.complex64)
    passes = passes_of(band.box)
    if passes is None:
        _by_scipy(images, band, sign, result, threads)
    else:
        _by_kernels(images, band, sign, result, threads, passes)
    return result


def _by_kernels(
    images: NDArray, band: Band, sign: NDArray[np.float32], result: NDArray[np.complex64], threads: int, passes: Passes
) -> None:
    from . import fourier_kernels as kernels

    box, place, size = band.box, band.place, 2 * band.box * kernels.LANES
    imaginary = np.where(band.ky < 0, -sign, sign)
    blocks = int(place.max(initial=0)) // size + 1

    def transform(start: int, stop: int) -> None:
        picture = np.empty((box, box + kernels.MARGIN), np.float32)
        columns, one, two = np.empty((3, size), np.float32)
        rows = np.zeros((blocks, size), np.float32)  # what is beyond the band is transformed too
        kernels.transform_images(images, result.view(np.float32), place, sign, imaginary, picture, columns, rows, one, two,
                                 *passes, start, stop)

    run_ranges(transform, len(images), threads)


def _by_scipy(images: NDArray, band: Band, sign: NDArray[np.float32], result: NDArray[np.complex64], threads: int) -> None:
    import scipy.fft

    from .fourier_kernels import pick

    half = band.box // 2 + 1
    columns = int(band.kx.max()) + 1
    if columns > _PRUNE_BELOW * half:
        columns = half
    offset = (band.ky % band.box).astype(np.intp) * columns + band.kx
    step = max(1, _IMAGES_AT_ONCE // band.box**2)

    def transform(start: int, stop: int) -> None:
        for first in range(start, stop, step):
            last = min(first + step, stop)
            if columns == half:
                whole = scipy.fft.rfft2(images[first:last], workers=1)
            else:
                rows = scipy.fft.rfft(images[first:last], workers=1)[:, :, :columns]
                whole = scipy.fft.fft(np.ascontiguousarray(rows), axis=1, overwrite_x=True, workers=1)
            pick(result[first:last], whole.reshape(last - first, -1), offset, sign)

    run_ranges(transform, len(images), threads)


def coefficients_to_images(coefficients: NDArray, band: Band) -> NDArray[np.float32]:
    """Images ``(B, box, box)`` of coefficients ``(B, len(band))``: the inverse of ``crops_to_coefficients`` within the band."""
    import scipy.fft

    values = np.asarray(coefficients) * band.sign
    values[:, band.kx == 0] *= 2.0  # their mates lie in the same column, which is zero there
    half = np.zeros((len(values), band.box * (band.box // 2 + 1)), np.complex64)
    half[:, band.offset] = values
    half = half.reshape(len(values), band.box, band.box // 2 + 1)
    return np.asarray(scipy.fft.irfft2(half, s=(band.box, band.box)), dtype=np.float32)


def padded_box(box: int, padding: float) -> int:
    """The even number of pixels nearest to ``box * padding``."""
    return 2 * int(round(box * padding / 2.0))


def half_extent(box: int, padding: float, radius: float) -> int:
    """r of a half cube: ``radius`` unpadded Fourier voxels on the padded grid, with the neighbours of every sample."""
    return int(np.ceil(radius * padded_box(box, padding) / box - 1e-9)) + 1


def gridding_factor(box: int, padded: int) -> NDArray[np.float64]:
    """``(box,)`` sinc^2((i - box // 2) / padded): what trilinear interpolation multiplies a map with along one axis."""
    return np.asarray(np.sinc((np.arange(box) - box // 2) / padded) ** 2, dtype=np.float64)


def correct_gridding(volume: NDArray, padded: int) -> NDArray[np.float32]:
    """``volume`` (N, N, N) divided by the gridding factor of each axis; float32."""
    inverse = (1.0 / gridding_factor(len(volume), padded)).astype(np.float32)
    result = np.asarray(volume, np.float32) * inverse
    result *= inverse[:, None]
    result *= inverse[:, None, None]
    return result


def volume_to_half(
    volume: NDArray, padded: Optional[int] = None, extent: Optional[int] = None, threads: int = 1
) -> NDArray[np.complex64]:
    """Half cube of a map (N, N, N) padded with zeros to ``padded``; ``extent`` r at most padded // 2, which is the default."""
    box = len(volume)
    padded = box if padded is None else padded
    extent = padded // 2 if extent is None else extent
    if padded % 2 or padded < box or not 0 < extent <= padded // 2:
        raise ValueError(f"padded size {padded} and extent {extent} do not fit a box of {box}")
    half = forward(volume, padded, np.arange(-extent, extent + 1) % padded, extent + 1, threads)
    _flip_odd(half, extent)  # moves the origin from pixel 0 to pixel padded / 2
    return half


def complete_plane(half: NDArray) -> NDArray:
    """Add to the plane x = 0 of sums (half cube, in place) its Friedel mates, which lie in the same plane; returns ``half``.

    Inserting only k and never -k leaves every plane with x > 0 whole, but in this one a sample and its mate differ.
    """
    plane = half[:, :, 0]
    plane += np.conj(plane[::-1, ::-1])
    return half


def _flip_odd(half: NDArray, extent: int) -> None:
    """Multiply a half cube by (-1)^(x + y + z), in place."""
    sign = (1.0 - 2.0 * (np.arange(-extent, extent + 1) % 2)).astype(half.real.dtype)
    half *= sign[extent:]
    half *= sign[:, None]
    half *= sign[:, None, None]
