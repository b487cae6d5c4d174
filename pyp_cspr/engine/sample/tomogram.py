"""A small tomogram of a tilt series by weighted back-projection: to look at, and to cut sub-volumes from."""

from __future__ import annotations

from typing import Iterable, Tuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ..core.geometry import project


def back_project(
    images: Iterable[NDArray], rotations: NDArray, shifts: NDArray, pixel: float, size: Tuple[int, int, int], voxel: float
) -> NDArray[np.float32]:
    """The tomogram ``(nz, ny, nx)`` of ``size`` (nx, ny, nz) voxels of ``voxel`` angstrom, its centre at index size // 2.

    ``images`` (ny, nx), of which one is held at a time, have pixels of ``pixel`` angstrom and the geometry T_e ``(n, 3, 3)``,
    b_e ``(n, 2)``. Each image is weighted by its frequency across the tilt axis (Radermacher 2006, section 3), filtered to
    the voxels' Nyquist frequency, and normalised to a mean of 0 and a standard deviation of 1 before.
    """
    from scipy.ndimage import map_coordinates

    x, y, z = ((np.arange(n) - n // 2) * voxel for n in size)
    volume = np.zeros((len(z), len(y) * len(x)), np.float32)
    plane = np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=-1)
    for image, rotation, shift in zip(images, rotations, shifts):
        centre = np.array([image.shape[1] // 2, image.shape[0] // 2])
        filtered = _weigh(np.asarray(image, np.float32), rotation, pixel, voxel)
        for layer, height in zip(volume, z):
            seen, _ = project(rotation, shift, np.column_stack([plane, np.full(len(plane), height)]))
            place = seen / pixel + centre
            layer += map_coordinates(filtered, [place[:, 1], place[:, 0]], order=1, mode="constant")
    return volume.reshape(len(z), len(y), len(x)) / np.float32(len(rotations))


def _weigh(image: NDArray[np.float32], rotation: NDArray, pixel: float, voxel: float) -> NDArray[np.float32]:
    image = (image - image.mean()) / max(float(image.std()), 1e-12)
    ky = np.fft.fftfreq(image.shape[0], pixel)[:, None]
    kx = np.fft.rfftfreq(image.shape[1], pixel)[None]
    axis = rotation[:2, 1] / np.linalg.norm(rotation[:2, 1])  # where the specimen's y axis, the tilt axis, is seen
    weight = np.abs(kx * axis[1] - ky * axis[0]) * 2.0 * voxel
    weight *= np.exp(-2.0 * (kx**2 + ky**2) * voxel**2)
    return scipy.fft.irfft2(scipy.fft.rfft2(image) * weight.astype(np.float32), s=image.shape)
