"""The Fourier transform of a map at arbitrary points, to about 1e-5: what the simulated images are made of.

It is not the engine's projector on purpose: a fault of that one must show against these images. A type-2 non-uniform
transform: the map is divided by the transform of a Kaiser-Bessel window, padded twofold, transformed, and interpolated with
that window, six points wide (Beatty, Nishimura and Pauly 2005, IEEE Trans. Med. Imaging 24:799).
"""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from .transform_kernels import render_half_plane

WIDTH = 6  # points of the window; the kernel counts on it
OVERSAMPLING = 2
TABLE = 4096  # window values per point


def frequencies(n: int) -> NDArray[np.int64]:
    """Centred frequency indices -n/2 .. n/2 - 1 of an even ``n``."""
    return np.arange(n) - n // 2


def transform_on_lattice(map_: NDArray, pixel: float, spacing: float, n: int) -> NDArray[np.complex64]:
    """Continuous transform of a map at the n^3 frequencies (i, j, k) * spacing, -n/2 <= i, j, k < n/2, ``[kz, ky, kx]``.

    ``map_`` [z, y, x] has its origin at index size // 2 of each axis; ``pixel`` in angstrom, ``spacing`` in 1/angstrom, both
    arbitrary: it is a plain sum, taken one axis at a time. Frequencies that the map does not resolve are 0.
    """
    result = np.asarray(map_, dtype=np.complex64)
    index = frequencies(n)
    for _ in range(3):  # each turn transforms the last axis and brings it to the front
        x = (np.arange(result.shape[2]) - result.shape[2] // 2) * pixel
        kernel = np.exp(-2j * np.pi * spacing * np.outer(x, index)).astype(np.complex64)
        result = np.moveaxis(result @ kernel, 2, 0)
    # x came first, then y, then z: the axes are [kz, ky, kx] again
    square = index[:, None, None] ** 2 + index[None, :, None] ** 2 + index[None, None, :] ** 2
    known = square * spacing**2 <= (0.5 / pixel) ** 2
    return np.asarray(result * known * pixel**3, dtype=np.complex64)


def lattice_to_map(lattice: NDArray, edge: float, n: int) -> NDArray[np.float32]:
    """Real map ``(n, n, n)`` of a field of ``edge`` angstrom from its transform at multiples of 1/edge."""
    size = lattice.shape[0]
    low = size // 2 - n // 2
    if low < 0:
        whole = np.zeros((n, n, n), np.complex128)
        whole[-low : -low + size, -low : -low + size, -low : -low + size] = lattice
    else:
        whole = lattice[low : low + n, low : low + n, low : low + n].astype(np.complex128)
    whole[0], whole[:, 0], whole[:, :, 0] = 0.0, 0.0, 0.0  # the Nyquist planes have no mate
    volume = scipy.fft.fftshift(scipy.fft.ifftn(scipy.fft.ifftshift(whole))).real
    return np.ascontiguousarray(volume * (n / edge) ** 3, dtype=np.float32)


class Transform:
    """Projections of one map, each with its CTF and position, in the layout of an image's half transform.

    ``map_`` (n, n, n) with its origin at n // 2 and zero towards its edges; ``pixel`` in angstrom; frequencies from ``limit``
    (1/angstrom) on are 0. The map's unit times angstrom is the unit of the projections.
    """

    def __init__(self, map_: NDArray, pixel: float, limit: float) -> None:
        n = map_.shape[0]
        size = OVERSAMPLING * n
        self.edge = size * pixel  # grid points are 1 / edge apart
        self.radius = min(limit * self.edge, size / 2)
        beta = np.pi * np.sqrt((WIDTH / OVERSAMPLING) ** 2 * (OVERSAMPLING - 0.5) ** 2 - 0.8)
        # The window I0(beta sqrt(1 - (2 t / W)^2)) has the transform W sinh(b) / b, b = sqrt(beta^2 - (pi W x)^2).
        x = frequencies(n) / size
        b = np.sqrt(np.maximum(beta**2 - (np.pi * WIDTH * x) ** 2, 1e-12))
        window = WIDTH * np.sinh(b) / b
        deapodised = map_ / (window[:, None, None] * window[:, None] * window)
        padded = np.zeros((size, size, size), np.float32)
        low = size // 2 - n // 2
        padded[low : low + n, low : low + n, low : low + n] = deapodised
        half = scipy.fft.rfftn(scipy.fft.ifftshift(padded))
        reach = int(np.ceil(self.radius)) + WIDTH // 2 + 1
        self._offset_z, self._offset_x = reach, WIDTH // 2
        index = np.arange(-reach, reach + 1)
        columns = np.arange(-self._offset_x, reach + 1) % size
        grid = np.empty((len(index), len(index), len(columns)), np.complex64)
        for i, column in enumerate(columns):
            if column <= size // 2:
                grid[:, :, i] = half[:, :, column][np.ix_(index % size, index % size)]
            else:  # the conjugate of the mate
                grid[:, :, i] = np.conj(half[:, :, size - column][np.ix_(-index % size, -index % size)])
        self._grid = grid * np.float32(pixel**3)
        fraction = np.arange(TABLE + 1) / TABLE
        distance = (np.arange(WIDTH) - (WIDTH // 2 - 1))[:, None] - fraction[None, :]
        self._table = np.i0(beta * np.sqrt(np.maximum(1.0 - (2.0 * distance / WIDTH) ** 2, 0.0))).astype(np.float32)

    def render(
        self,
        rotation: NDArray,
        box: int,
        pixel: float,
        shift: NDArray,
        filters: NDArray,
        chi: Optional[Tuple[NDArray, float, float]] = None,
    ) -> NDArray[np.float32]:
        """The projection ``(box, box)`` along the third row of ``rotation`` M, its origin at pixel box // 2 + ``shift`` (x, y).

        ``filters`` float32 (box, box // 2 + 1) multiplies the half transform. ``chi`` is the CTF's phase: a quadratic form (3,)
        (kx^2, kx ky, ky^2) and a factor of -|k|^4, radians for frequencies in steps of 1 / (box pixel), and a constant.
        """
        half = np.empty((box, box // 2 + 1), np.complex64)
        centre = np.asarray(shift, float) + box // 2
        phase = [np.exp(-2j * np.pi * np.fft.fftfreq(box) * c).astype(np.complex64) for c in centre]
        form, spherical, constant = chi if chi is not None else (np.zeros(3), 0.0, 0.0)
        render_half_plane(
            self._grid, self._offset_z, self._offset_x, self._table, np.ascontiguousarray(rotation, dtype=np.float64),
            self.edge / (box * pixel), self.radius, filters, phase[0][: box // 2 + 1], phase[1],
            np.asarray(form, dtype=np.float64), float(spherical), float(constant), chi is not None, half,
        )
        return scipy.fft.irfft2(half, s=(box, box), overwrite_x=True) / np.float32(pixel**2)
