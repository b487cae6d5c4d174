"""Scipion's volumes to map files of the engine, on the grid that a run wants."""

from __future__ import annotations

from typing import Any, List, Tuple

import numpy as np
from numpy.typing import NDArray
from pwem.objects import Volume

from ...engine.core.filters import low_pass
from ...engine.errors import InputError
from ...engine.io.mrc import read_map, write_map
from .from_sets import image_path

MRC = (".mrc", ".map", ".mrcs", ".ccp4", ".rec", ".st")


def is_mrc(name: str) -> bool:
    """Whether a file is of the engine's own format."""
    return name.lower().endswith(MRC)


def half_maps(volume: Any) -> List[str]:
    """Absolute paths of a volume's two half maps; empty where it has none."""
    names = [str(name) for name in volume.getHalfMaps(asList=True) or () if str(name).strip()]
    return [image_path(name) for name in names] if len(names) == 2 else []


def volume_of(name: str, pixel: float) -> Volume:
    """A volume of a file, with voxels of ``pixel`` angstrom."""
    volume = Volume()
    volume.setFileName(name)
    volume.setSamplingRate(pixel)
    return volume


def read_volume(volume: Any) -> Tuple[NDArray[np.float32], float]:
    """(voxels [z, y, x], pixel in angstrom) of a volume of any format that the host reads; its own sampling rate counts."""
    path = image_path(volume.getFileName())
    if is_mrc(path):
        values, _ = read_map(path)
    else:
        from pwem.emlib.image import ImageHandler

        values = np.asarray(ImageHandler().read(volume).getData(), np.float32)
    return values, float(volume.getSamplingRate())


def resample(volume: NDArray[np.float32], pixel: float, box: int, new_pixel: float, mask: bool = False) -> NDArray[np.float32]:
    """A cube (n, n, n) at ``pixel`` angstrom on a grid of ``box`` voxels of ``new_pixel``, about the same centre.

    Outside it is 0. Cubic splines, after a low-pass filter to the new Nyquist frequency; masks linearly, from 0 to 1.
    """
    from scipy.ndimage import affine_transform

    if box == len(volume) and abs(new_pixel - pixel) < 1e-6 * pixel:
        return volume
    source = volume if mask or new_pixel <= pixel else low_pass(volume, pixel, 2.0 * new_pixel)
    ratio = new_pixel / pixel
    offset = len(volume) // 2 - (box // 2) * ratio
    matrix = np.diag([ratio] * 3)  # SciPy warns of a vector in its place
    made = affine_transform(source, matrix, offset, (box,) * 3, np.float32, order=1 if mask else 3, mode="constant")
    return np.clip(made, 0.0, 1.0) if mask else made


def write_volume(volume: Any, path: str, box: int = 0, pixel: float = 0.0, mask: bool = False) -> Tuple[int, float]:
    """Write a volume for the engine; (box, pixel) of it. ``box`` 0 and ``pixel`` 0 mean: the volume's."""
    values, own = read_volume(volume)
    if values.ndim != 3 or len(set(values.shape)) != 1:
        raise InputError(f"{volume.getFileName()}: {' x '.join(map(str, values.shape))} voxels; a reference must be a cube")
    pixel, box = pixel or own, box or len(values)
    write_map(path, resample(values, own, box, pixel, mask), pixel)
    return box, pixel
