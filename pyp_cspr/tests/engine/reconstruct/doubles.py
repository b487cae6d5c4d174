"""Accumulators filled from a known map by its exact transform, without any slice: what ideal insertion would leave."""

from __future__ import annotations

from typing import Optional

import numpy as np
from numpy.typing import NDArray

from pyp_cspr.engine.core.insertion import Accumulator


def ideal_accumulator(
    volume: NDArray, padding: float, radius: float, random: Optional[np.random.Generator] = None, noise: float = 0.0
) -> Accumulator:
    """num and den of trilinear insertion at infinitely dense views: the transform of volume * sinc^2, times uneven weights.

    ``noise`` is the standard deviation of each part of a coefficient at weight 1. Without ``random``, all weights are 1.
    Halves of the x = 0 plane are split between a voxel and its mate unevenly, as insertion leaves them.
    """
    box = len(volume)
    padded = 2 * round(box * padding / 2)
    reach = int(np.ceil(radius * padded / box)) + 1
    start = padded // 2 - box // 2
    big = np.zeros((padded,) * 3)
    big[start : start + box, start : start + box, start : start + box] = volume
    sinc = np.sinc((np.arange(padded) - padded // 2) / padded) ** 2
    big *= sinc[:, None, None] * sinc[:, None] * sinc
    transform = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(big)))
    index = (np.arange(-reach, reach + 1) + padded // 2) % padded
    transform = transform[np.ix_(index, index, index[reach:])]
    density = np.ones(transform.shape) if random is None else random.uniform(0.3, 2.0, transform.shape)
    if noise and random is not None:
        error = random.normal(size=transform.shape) + 1j * random.normal(size=transform.shape)
        transform = transform + noise * error / np.sqrt(density)
    numerator = transform * density
    plane, weight = numerator[:, :, 0].copy(), density[:, :, 0].copy()
    share = np.full(weight.shape, 0.3)
    share[reach + 1 :] = 0.7
    share[reach, reach + 1 :] = 0.7
    share[reach, : reach + 1] = 0.3
    if random is not None:  # a voxel and its mate hold one number between them
        weight = 0.5 * (weight + weight[::-1, ::-1])
        plane = 0.5 * (plane + np.conj(plane[::-1, ::-1]))
    numerator[:, :, 0], density[:, :, 0] = plane * share, weight * share
    return from_half(Accumulator(box, padded / box, radius), numerator, density)


def from_half(like: Accumulator, numerator: NDArray, denominator: NDArray) -> Accumulator:
    """An accumulator of the box, padding and radius of ``like`` with the sums of these half cubes."""
    inside = np.arange(like.extent + 1) < like.width[..., None]
    stored = np.stack([numerator.real, numerator.imag, denominator], axis=-1)[inside]
    return Accumulator(like.box, like.padding, like.radius, stored)
