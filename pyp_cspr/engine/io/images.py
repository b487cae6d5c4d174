"""Crops of particles, wherever they come from: tilt-series images cut in memory, or stacks that another program cut.

Both sources answer one call: these particles, in this exposure, at these positions. Only what is asked for is read.
"""

from __future__ import annotations

import os
import threading
from typing import Dict, NamedTuple, Optional, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.geometry import project
from ..core.images import cut_crops, robust_statistics
from ..errors import InputError
from ..model.tables import Dataset
from .mrc import MrcStack, open_stack

Placed = Tuple[NDArray[np.float64], NDArray[np.float32]]
Crops = Tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]

PIXEL_TOLERANCE = 0.01  # relative: pixel sizes further apart contradict each other


class SeriesImages:
    """The images of one series.

    ``pixel`` (A) is the pixel size of the crops; ``box`` is the box of extracted stacks, 0 for raw images, which give any
    box; ``bytes_read`` counts the bytes of image data read so far.
    """

    def __init__(self, pixel: float, box: int) -> None:
        self.pixel = pixel
        self.box = box
        self.bytes_read = 0
        self._lock = threading.Lock()

    def _count(self, size: int) -> None:
        with self._lock:  # exposures are read by several threads
            self.bytes_read += size

    def crops(self, exposure_row: int, particle_rows: ArrayLike, u: ArrayLike, box: int) -> Crops:
        """``(images (B, box, box) float32, centre (B, 2) float64, inside (B,) float32)``; particles are white.

        ``exposure_row`` and ``particle_rows`` (B,) are rows of the data set's tables, both of this series; ``u`` (B, 2) is
        where the particles are seen, in angstrom from the image's centre. ``centre`` is the position of pixel box // 2 of each
        crop, so that ``u - centre`` is what is left to shift; ``inside`` is the fraction of the crop that the image covers.

        Raises InputError where an image cannot be used, ValueError for rows of another series.
        """
        raise NotImplementedError

    def place(self, exposure_row: int, particle_rows: ArrayLike, u: ArrayLike, box: int) -> Placed:
        """What ``crops`` says of the same crops, their centres and inside parts, without reading an image."""
        raise NotImplementedError


class RawImages(SeriesImages):
    """Crops cut from the tilt images at the whole pixel nearest to u.

    Each image has its mean subtracted and is divided by its standard deviation (X-rays left out), then multiplied by the
    series' contrast; outside the image a crop is 0, the mean.
    """

    def __init__(self, dataset: Dataset, series: int) -> None:
        super().__init__(float(dataset.series["pixel"][series]), 0)
        self.name = str(dataset.series["name"][series])
        self.contrast = float(dataset.series["contrast"][series])
        rows = dataset.exposures_of(series)
        stack = str(dataset.series["images"][series])
        files = [str(file) or stack for file in dataset.exposures["file"][rows]]
        if not all(files):
            raise InputError(f"series {self.name}: no images are named; add rlnMicrographName to its tilt-series star")
        opened = {file: open_stack(file) for file in dict.fromkeys(files)}
        self._images = {
            int(row): (opened[file], int(image)) for row, file, image in zip(rows, files, dataset.exposures["slice"][rows])
        }
        self._statistics: Dict[int, Tuple[float, float]] = {}
        for mapped, image in self._images.values():
            mapped.image(image)
            check_pixel(mapped, self.pixel, f"series {self.name}")
        sizes = {(mapped.nx, mapped.ny) for mapped in opened.values()}
        said = tuple(dataset.series["image_size"][series].tolist())
        if len(sizes) > 1 or (any(said) and sizes != {said}):
            raise InputError(f"series {self.name}: image sizes {sorted(sizes)}, the star says {said}; make them agree")
        self.nx, self.ny = sizes.pop()
        self._size = np.array([self.nx, self.ny])

    def crops(self, exposure_row: int, particle_rows: ArrayLike, u: ArrayLike, box: int) -> Crops:
        if exposure_row not in self._images:
            raise ValueError(f"exposure {exposure_row} is not of series {self.name}")
        positions = np.asarray(u, dtype=np.float64).reshape(-1, 2)
        if not np.isfinite(positions).all():
            raise ValueError("positions of particles must be finite")
        mean, deviation = self.statistics(exposure_row)
        mapped, image = self._images[exposure_row]
        low, begin, end = self._frames(positions, box)
        crops = cut_crops(np.asarray(mapped.data[image]), low, begin, end, box, mean, self.contrast / deviation)
        mapped.release(image)  # a series' images are larger than all that is kept of them
        return (crops, *self.place(exposure_row, particle_rows, positions, box))

    def place(self, exposure_row: int, particle_rows: ArrayLike, u: ArrayLike, box: int) -> Placed:
        low, begin, end = self._frames(np.asarray(u, dtype=np.float64).reshape(-1, 2), box)
        inside = (end - begin).prod(axis=1) / float(box * box)
        return (low + box // 2 - self._size // 2) * self.pixel, inside.astype(np.float32)

    def _frames(self, positions: NDArray, box: int) -> Tuple[NDArray, NDArray, NDArray]:
        """First pixel of each crop, and of each crop the first and the end of what lies inside the image, ``(B, 2)`` x, y."""
        limit = float(self._size.max() + box) * 2  # a particle further off leaves an empty crop either way
        low = np.clip(np.rint(positions / self.pixel), -limit, limit).astype(np.int64) + self._size // 2 - box // 2
        begin = np.clip(low, 0, self._size)
        return low, begin, np.maximum(np.clip(low + box, 0, self._size), begin)

    def statistics(self, exposure_row: int) -> Tuple[float, float]:
        """Mean and standard deviation of an image, X-rays and hot pixels left out. Raises InputError for a blank image."""
        if exposure_row not in self._statistics:
            mapped, image = self._images[exposure_row]
            source = np.asarray(mapped.data[image])  # a plain view of the map: slices of it cost less
            self._count(source.nbytes)
            mean, deviation = robust_statistics(source)
            if not (np.isfinite(mean) and np.isfinite(deviation)):
                raise InputError(f"{mapped.path}: image {image + 1} has pixels that are not numbers; exclude that view")
            if deviation <= 1e-12 * max(abs(mean), 1e-30):
                raise InputError(f"{mapped.path}: image {image + 1} is blank; exclude that view")
            self._statistics[exposure_row] = mean, deviation
        return self._statistics[exposure_row]


class _OnDisk(NamedTuple):
    """Where the images of a stack lie. Images are read one by one: thousands of stacks cannot all be kept open."""

    path: str
    offset: int  # bytes
    dtype: np.dtype
    slices: NDArray[np.int64]  # image of each exposure of the series, -1: none


class StackImages(SeriesImages):
    """Crops that another program cut: a stack per particle with an image per exposure.

    A refined geometry does not move pixels that are already cut: ``centre`` is where the particle was seen at extraction.
    Another box than the stack's is cut from the stack, or padded with each image's mean, about pixel box // 2.
    """

    def __init__(self, dataset: Dataset, series: int) -> None:
        super().__init__(float(dataset.series["stack_pixel"][series]), int(dataset.series["stack_box"][series]))
        self._dataset, self._series = dataset, series
        self.contrast = np.float32(dataset.series["contrast"][series])
        self._columns = {int(row): column for column, row in enumerate(dataset.exposures_of(series))}
        self._stacks: Dict[int, _OnDisk] = {}

    def crops(self, exposure_row: int, particle_rows: ArrayLike, u: ArrayLike, box: int) -> Crops:
        table = self._dataset.particles
        rows = np.asarray(particle_rows, dtype=np.int64).reshape(-1)
        if exposure_row not in self._columns or (table["series"][rows] != self._series).any():
            raise ValueError(f"exposure {exposure_row} or its particles are not of series {self._series}")
        images = np.empty((len(rows), self.box, self.box), np.float32)
        for image, row in zip(images, rows.tolist()):
            self._read(image, row, self._columns[exposure_row])
        if self.contrast != 1:
            images *= self.contrast
        good = np.isfinite(images.sum(axis=(1, 2)))  # a pixel that is no number makes the sum none
        if not good.all():
            bad = rows[np.flatnonzero(~good)[0]]
            raise InputError(f"{table['stack'][bad]}: has pixels that are not numbers; leave particle {table['name'][bad]} out")
        return (fit_box(images, box), *self.place(exposure_row, rows, u, box))

    def place(self, exposure_row: int, particle_rows: ArrayLike, u: ArrayLike, box: int) -> Placed:
        exposures = self._dataset.exposures
        rotation, shift = exposures["extract_rotation"][exposure_row], exposures["extract_shift"][exposure_row]
        rows = np.asarray(particle_rows, dtype=np.int64).reshape(-1)
        centre, _ = project(rotation, shift, self._dataset.particles["extract_position"][rows])
        return centre, np.ones(len(rows), np.float32)

    def _read(self, out: NDArray[np.float32], row: int, column: int) -> None:
        """Read the image of a particle (row) in an exposure (column) into ``out`` (box, box)."""
        stack = self._stacks.get(row)
        if stack is None:
            stack = self._stacks[row] = self._open(row)
        index = int(stack.slices[column])
        if index < 0:
            raise ValueError(f"particle {row} is not visible in exposure {column} of its series")
        straight = stack.dtype == np.float32 and stack.dtype.isnative
        image = out if straight else np.empty((self.box, self.box), stack.dtype)
        stream = os.open(stack.path, os.O_RDONLY)  # Python's own files cost as much as reading a small image
        try:
            os.lseek(stream, stack.offset + index * image.nbytes, os.SEEK_SET)
            count = os.readv(stream, [image.reshape(-1).view(np.uint8).data])  # the same memory
        finally:
            os.close(stream)
        if count != image.nbytes:
            raise InputError(f"{stack.path}: ends before image {index + 1}; it has changed, start again")
        if not straight:
            out[...] = image
        self._count(image.nbytes)

    def _open(self, row: int) -> _OnDisk:
        stack = open_stack(str(self._dataset.particles["stack"][row]))
        check_stack(stack, self._dataset, self._series, row)
        slices = stack_slices(self._dataset, row, stack.n)
        assert slices is not None  # check_stack refuses such stacks
        return _OnDisk(stack.path, int(stack.data.offset), stack.data.dtype, slices)  # type: ignore[attr-defined]


def open_images(dataset: Dataset, series: int) -> SeriesImages:
    """The images of a series, whichever the data set has. Raises InputError where they are missing or do not fit it."""
    return StackImages(dataset, series) if dataset.is_stacks(series) else RawImages(dataset, series)


def fit_box(images: NDArray[np.float32], box: int) -> NDArray[np.float32]:
    """Images ``(B, n, n)`` cropped or padded to ``(B, box, box)`` about pixel n // 2; padding is each image's mean."""
    size = images.shape[-1]
    if size == box:
        return images
    shift = box // 2 - size // 2
    source = slice(max(-shift, 0), min(box - shift, size))
    if box < size:
        return np.ascontiguousarray(images[:, source, source])
    padded = np.empty((len(images), box, box), np.float32)
    padded[...] = images.mean(axis=(1, 2), dtype=np.float64)[:, None, None]
    padded[:, shift : shift + size, shift : shift + size] = images
    return padded


def check_stack(stack: MrcStack, dataset: Dataset, series: int, particle: int) -> None:
    """Raise InputError where a particle's stack does not fit the data set in box, pixel size or number of images."""
    box, pixel = int(dataset.series["stack_box"][series]), float(dataset.series["stack_pixel"][series])
    name = dataset.particles["name"][particle]
    if (stack.nx, stack.ny) != (box, box):
        raise InputError(f"{stack.path}: {stack.nx} x {stack.ny} pixels, rlnImageSize is {box}; check the optics group")
    check_pixel(stack, pixel, f"particle {name}")
    if stack_slices(dataset, particle, stack.n) is None:
        visible, tilts = int(dataset.visible[particle].sum()), len(dataset.exposures_of(series))
        raise InputError(
            f"{stack.path}: {stack.n} images, particle {name} has {visible} visible frames of {tilts} tilts; "
            "check rlnTomoVisibleFrames"
        )


def stack_slices(dataset: Dataset, particle: int, images: int) -> Optional[NDArray[np.int64]]:
    """Image of a particle's stack for each exposure of its series, -1 where there is none; None where nothing fits.

    RELION's stacks hold the visible frames only, WarpTools' hold all tilts and blank those that are not visible.
    """
    tilts = len(dataset.exposures_of(int(dataset.particles["series"][particle])))
    visible = dataset.visible[particle, :tilts]
    if images == tilts:
        return np.where(visible, np.arange(tilts), -1)
    if images == visible.sum():
        return np.where(visible, np.cumsum(visible) - 1, -1)
    return None


def check_pixel(stack: MrcStack, pixel: float, what: str) -> None:
    """Raise InputError where a header's pixel size contradicts the star's. Headers often say 0 or 1 for "not set"."""
    if stack.pixel not in (0.0, 1.0) and abs(stack.pixel - pixel) > PIXEL_TOLERANCE * pixel:
        raise InputError(f"{stack.path}: pixel size {stack.pixel:g} A in its header, {pixel:g} A for {what}; mend one")
