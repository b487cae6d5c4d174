"""Fourier shell correlation: the curve, its phase-randomised correction, and the resolution it crosses a threshold at.

Shells are rounded |k| of the cubic box of N pixels; shell s has the resolution N * pixel / s angstrom. Curves have N // 2 + 1
values. Harauz and van Heel 1986 (the curve); Chen et al. 2013, Ultramicroscopy 135 (phase randomisation).
"""

from __future__ import annotations

from typing import Iterator, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from . import volumes

BLOCK_ELEMENTS = 1 << 20  # voxels treated at once: bounds the temporaries of a large box


def transform(volume: NDArray, threads: int = 1) -> NDArray[np.complex64]:
    """Half transform ``(N, N, N//2+1)`` of a cube in FFT order, about index 0 (the phase of the origin plays no part here)."""
    box = len(volume)
    return volumes.forward(volume, box, np.arange(box), box // 2 + 1, threads)


def inverse(spectrum: NDArray, box: int, threads: int = 1) -> NDArray[np.float32]:
    """The cube of a half transform made by ``transform``."""
    index = np.arange(box)
    cube = volumes.Inverse(box, box, index, box // 2 + 1, threads)
    cube.add(spectrum, 0, index)
    return cube.finish()


def shell_blocks(box: int) -> Iterator[Tuple[slice, NDArray[np.int64]]]:
    """(z planes, shell of every coefficient of those planes ``(planes, N, N//2+1)``) of a half transform in FFT order."""
    k = np.rint(np.fft.fftfreq(box) * box).astype(np.float32)
    x = np.arange(box // 2 + 1, dtype=np.float32)
    yx = k[:, None] ** 2 + x**2
    step = max(1, BLOCK_ELEMENTS // yx.size)
    for first in range(0, box, step):
        planes = slice(first, min(first + step, box))
        yield planes, np.rint(np.sqrt(k[planes, None, None] ** 2 + yx)).astype(np.int64)


def shell_sums(box: int, a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Sums over each shell of the whole sphere, of two half transforms: Re(A conj(B)), |A|^2, |B|^2, 1; ``(4, N//2+1)``."""
    from .fsc_kernels import add_shells

    sums = np.zeros((4, box // 2 + 1))
    k = np.rint(np.fft.fftfreq(box) * box).astype(np.int64)
    add_shells(sums, a, b, k, np.empty(box // 2 + 1, np.int32))
    return sums


def correlate(box: int, a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """FSC of two half transforms, ``(N//2+1,)``; shell 0 is 1, and a shell without power is 0."""
    return curve_of_sums(*shell_sums(box, a, b)[:3])


def curve_of_sums(cross: NDArray, first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """cross / sqrt(first * second) of each shell; 1 at shell 0, 0 where there is no power."""
    product = np.sqrt(first * second)
    curve = np.divide(cross, product, out=np.zeros_like(cross), where=product > 0)
    curve[0] = 1.0
    return curve


def fsc(a: NDArray, b: NDArray, threads: int = 1) -> NDArray[np.float64]:
    """Fourier shell correlation of two cubes ``(N, N, N)``, ``(N//2+1,)``. Raises ValueError where the shapes do not fit."""
    if a.shape != b.shape or a.ndim != 3 or len(set(a.shape)) != 1:
        raise ValueError(f"FSC needs two equal cubes, not {a.shape} and {b.shape}")
    return correlate(a.shape[0], transform(a, threads), transform(b, threads))


def randomise_phases(spectrum: NDArray, box: int, from_shell: int, seed: int) -> NDArray[np.complex64]:
    """A copy of a half transform whose phases at shells >= ``from_shell`` are turned by uniform random angles.

    Amplitudes stay. On the planes that hold both Friedel mates the angle is antisymmetric, so that the volume stays real.
    """
    rng = np.random.default_rng(seed)
    out = np.array(spectrum, dtype=np.complex64)
    for planes, shell in shell_blocks(box):
        beyond = shell >= from_shell
        angle = rng.random(int(beyond.sum()), dtype=np.float32) * np.float32(2 * np.pi)
        turned = np.empty(angle.shape, np.complex64)
        np.cos(angle, out=turned.real)
        np.sin(angle, out=turned.imag)
        out[planes][beyond] *= turned
    mate = -np.arange(box) % box
    for x in (0, box // 2) if box % 2 == 0 else (0,):
        plane = spectrum[:, :, x]
        k = np.rint(np.fft.fftfreq(box) * box)
        beyond = np.rint(np.sqrt(k[:, None] ** 2 + k**2 + x**2)) >= from_shell
        angle = rng.random((box, box)) * 2 * np.pi
        angle -= angle[mate][:, mate]  # the difference of two uniform angles is uniform
        out[:, :, x] = np.where(beyond, plane * np.exp(1j * angle), plane)
    return out


def randomise_from(unmasked: NDArray, threshold: float = 0.8) -> Optional[int]:
    """The first shell where the unmasked FSC is below ``threshold``; None where it never is."""
    below = np.flatnonzero(np.asarray(unmasked)[1:] < threshold)
    return int(below[0]) + 1 if len(below) else None


def correct(masked: NDArray, randomised: NDArray, from_shell: Optional[int]) -> NDArray[np.float64]:
    """(masked - randomised) / (1 - randomised) beyond ``from_shell`` + 1, the masked curve before (Chen et al. 2013).

    The mask spreads phases over about one shell, so the first two shells of randomised phases are left as they are.
    """
    corrected = np.array(masked, dtype=np.float64)
    if from_shell is not None:
        beyond = slice(from_shell + 2, None)
        room = 1.0 - np.minimum(randomised[beyond], 1.0 - 1e-6)
        corrected[beyond] = (corrected[beyond] - randomised[beyond]) / room
    return corrected


def resolution_at(curve: NDArray, threshold: float, box: int, pixel: float) -> float:
    """Resolution in angstrom where an FSC curve first falls below ``threshold``, interpolated linearly between shells.

    Shell 1 may lie below (it holds few coefficients, and the slow background of the maps): the search starts at shell 2 then.
    inf where both are below; the resolution of the last shell where the curve never falls below.
    """
    values = np.asarray(curve, dtype=np.float64)
    start = 1 if len(values) < 3 or values[1] >= threshold else 2
    below = np.flatnonzero(values[start:] < threshold)
    if len(below) == 0:
        return box * pixel / (len(values) - 1)
    shell = start + int(below[0])
    if shell == start:
        return float("inf")
    high, low = values[shell - 1], values[shell]
    return float(box * pixel / (shell - 1 + (high - threshold) / (high - low)))


def resolutions(box: int, pixel: float) -> NDArray[np.float64]:
    """Resolution of every shell in angstrom, ``(N//2+1,)``; inf at shell 0."""
    with np.errstate(divide="ignore"):
        return box * pixel / np.arange(box // 2 + 1, dtype=np.float64)
