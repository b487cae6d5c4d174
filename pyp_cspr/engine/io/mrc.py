"""MRC files: maps read and written whole, stacks mapped into memory. Arrays are [z, y, x] and [y, x]; lengths in angstrom.

Headers are read by mrcfile; the data are mapped here, because a tilt series must not be read whole and because a short
file must be refused before anything is computed from it.
"""

from __future__ import annotations

import io
import mmap
import os
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable, Tuple, Union

import mrcfile
import numpy as np
from mrcfile import utils as mrc_utils
from mrcfile.mrcinterpreter import MrcInterpreter
from numpy.typing import NDArray

from ..errors import InputError

PathLike = Union[str, "os.PathLike[str]"]

REAL_MODES = {0: "int8", 1: "int16", 2: "float32", 6: "uint16", 12: "float16"}
HEADER_BYTES = 1024
IMOD_STAMP = 1146047817  # at byte 152; then bit 0 of the flags at byte 156 says that bytes are signed
VOXEL_TOLERANCE = 0.01  # of a map: relative, by which its axes may differ
LARGEST_AXIS = 1_000_000  # a header beyond this is not an MRC header


@dataclass(frozen=True)
class MrcStack:
    """A stack of ``n`` images of ``ny`` x ``nx`` pixels, mapped into memory: nothing is read until it is indexed.

    ``data`` is ``(n, ny, nx)`` in the file's own number type; ``pixel`` is 0 where the header does not say.
    """

    path: str
    n: int
    ny: int
    nx: int
    pixel: float
    data: NDArray[Any]

    def image(self, index: int) -> NDArray[Any]:
        """One image ``(ny, nx)``, still mapped. Raises InputError where the stack has no such image."""
        if not 0 <= index < self.n:
            raise InputError(f"{self.path}: image {index + 1} of a stack of {self.n}; check the star files against the stack")
        return self.data[index]

    def release(self, index: int) -> None:
        """Give the memory of an image's pages back; they are read again when they are wanted."""
        mapping: Any = getattr(self.data, "_mmap", None)
        if not hasattr(mapping, "madvise") or not hasattr(mmap, "MADV_DONTNEED"):
            return
        size = self.data[index].nbytes
        first = int(self.data.offset) % mmap.ALLOCATIONGRANULARITY + index * size  # type: ignore[attr-defined]
        start = first - first % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_DONTNEED, start, first + size - start)


def open_stack(path: PathLike) -> MrcStack:
    """Map an MRC stack (int8, int16, uint16, float16 or float32; either byte order).

    Raises InputError where the file is missing, is not MRC, has a number type that images cannot have, or is shorter than
    its header says.
    """
    name = os.fspath(path)
    header, extended = _read_header(name)
    nx, ny, n = int(header.nx), int(header.ny), int(header.nz)
    if not all(0 < size <= LARGEST_AXIS for size in (nx, ny, n)):
        raise InputError(f"{name}: MRC header says {nx} x {ny} x {n} pixels; the file is damaged or not MRC")
    mode = int(header.mode)
    if mode not in REAL_MODES:
        raise InputError(f"{name}: MRC mode {mode}; convert it to one of {sorted(REAL_MODES)}")
    dtype = np.dtype(mrc_utils.data_dtype_from_header(header))
    if mode == 0 and _bytes_are_unsigned(header):
        dtype = np.dtype("u1")
    if extended < 0:
        raise InputError(f"{name}: MRC header says an extended header of {extended} bytes; the file is damaged or not MRC")
    offset, count = HEADER_BYTES + extended, n * ny * nx
    want, have = offset + count * dtype.itemsize, os.path.getsize(name)
    if have < want:
        raise InputError(f"{name}: truncated: {have} bytes, the header wants {want}; copy or make the file again")
    try:
        data = np.memmap(name, dtype=dtype, mode="r", offset=offset, shape=(n, ny, nx))
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read: {_reason(error)}") from None
    return MrcStack(name, n, ny, nx, _voxel(header)[0], data)


def read_map(path: PathLike) -> Tuple[NDArray[np.float32], float]:
    """A map ``(nz, ny, nx)`` float32 and its pixel size (0 where the header does not say).

    Raises InputError, as ``open_stack`` does, and for voxels that are not cubes.
    """
    stack = open_stack(path)
    sizes = _voxel(_read_header(stack.path)[0])
    said = [size for size in sizes if size > 0]
    if said and max(said) > (1.0 + VOXEL_TOLERANCE) * min(said):
        what = " x ".join(f"{size:g}" for size in sizes)
        raise InputError(f"{stack.path}: voxels of {what} A; resample the map to cubes, or mend the cell in its header")
    return np.ascontiguousarray(stack.data, dtype=np.float32), stack.pixel


def write_map(path: PathLike, array: NDArray[Any], pixel: float) -> None:
    """Write a map ``(nz, ny, nx)`` or an image ``(ny, nx)`` as float32, or as it is where its type is an MRC type.

    The file appears whole or not at all. Raises InputError where it cannot be written.
    """
    values = np.asarray(array)
    if values.ndim not in (2, 3):
        raise ValueError(f"a map has 2 or 3 axes, not {values.ndim}")
    if values.dtype.newbyteorder("=") not in [np.dtype(name) for name in REAL_MODES.values()]:
        values = values.astype(np.float32)

    def write(temporary: str) -> None:
        with mrcfile.new(temporary, overwrite=True) as mrc:
            mrc.set_data(np.ascontiguousarray(values))
            mrc.voxel_size = pixel

    write_aside(path, write)


def write_stack(path: PathLike, images: Iterable[NDArray[Any]], pixel: float) -> None:
    """Write images ``(ny, nx)`` of one size and type, one after the other, as an MRC image stack.

    ``images`` may be a generator: only one image is held. The file appears whole or not at all. Raises InputError where it
    cannot be written, ValueError where there is no image or where they differ in size.
    """
    iterator = iter(images)
    first = np.asarray(next(iterator, np.empty((0, 0))))
    if first.size == 0:
        raise ValueError("a stack needs an image")

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:
            file.write(b"\0" * HEADER_BYTES)
            count, image = 0, first
            while True:
                if image.shape != first.shape or image.dtype != first.dtype:
                    raise ValueError(f"image {count}: {image.shape} {image.dtype}, want {first.shape} {first.dtype}")
                file.write(np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<")).tobytes())
                count += 1
                try:
                    image = np.asarray(next(iterator))
                except StopIteration:
                    break
        header = _stack_header((count,) + first.shape, first.dtype, pixel)
        with open(temporary, "r+b") as file:
            file.write(header)

    write_aside(path, write)


def write_aside(path: PathLike, write: Callable[[str], None]) -> None:
    """Let ``write`` make a temporary file beside ``path``, then put it in place, so no reader ever sees half a file.

    Raises InputError where the folder or the file cannot be written.
    """
    target = Path(path)
    temporary = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=str(target.parent))
        os.close(handle)
        write(temporary)
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, str(target))
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {_reason(error)}; check the folder, its rights and its space") from None
    finally:
        with suppress(OSError):  # in place already, or the error above is the one to be told
            os.unlink(temporary)


def _stack_header(shape: Tuple[int, ...], dtype: Any, pixel: float) -> bytes:
    """1024 bytes, little-endian: mrcfile fills the header of an empty stack of this shape."""
    with tempfile.TemporaryDirectory() as folder:
        name = os.path.join(folder, "header.mrc")
        with mrcfile.new(name) as mrc:
            mrc.set_data(np.zeros((1,) + shape[1:], dtype=np.dtype(dtype).newbyteorder("<")))
            mrc.set_image_stack()
            mrc.header.nz = mrc.header.mz = shape[0]
            mrc.voxel_size = pixel
            mrc.header.mz = 1  # MRC2014: an image stack has mz = 1
            mrc.header.cella.z = pixel
            header = mrc.header.copy()
    header.dmin, header.dmax, header.dmean, header.rms = 0.0, -1.0, -2.0, -1.0  # MRC2014's way to say: not known
    return bytes(header.tobytes())


def _read_header(name: str) -> Tuple[Any, int]:
    """(mrcfile's header, bytes of the extended header). The extended header itself is not read: it may be huge."""
    try:
        with open(name, "rb") as file:
            raw = bytearray(file.read(HEADER_BYTES))
        if len(raw) < HEADER_BYTES:
            raise InputError(
                f"{name}: truncated: {len(raw)} bytes, an MRC header alone has {HEADER_BYTES}; copy or make it again"
            )
        extended, raw[92:96] = raw[92:96], bytes(4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # permissive: old programs leave out the MAP stamp
            header = MrcInterpreter(io.BytesIO(bytes(raw)), permissive=True, header_only=True).header.copy()
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {_reason(error)}; check the path") from None
    except ValueError as error:
        raise InputError(f"{name}: not an MRC file: {_reason(error)}") from None
    return header, int(np.frombuffer(extended, header.dtype["nsymbt"])[0])


def _voxel(header: Any) -> Tuple[float, ...]:
    """x, y, z in angstrom; 0 where the header does not say."""
    pairs = ((header.mx, header.cella.x), (header.my, header.cella.y), (header.mz, header.cella.z))
    return tuple(float(size) / int(cells) if cells > 0 and np.isfinite(size) and size > 0 else 0.0 for cells, size in pairs)


def _bytes_are_unsigned(header: Any) -> bool:
    """IMOD's rule: its stamp without the signed flag means unsigned bytes; all other files are signed (MRC2014)."""
    order = header.dtype["nx"].byteorder
    stamp, flags = np.frombuffer(header.extra2.tobytes()[40:48], dtype=np.dtype("i4").newbyteorder(order))
    return bool(stamp == IMOD_STAMP and not flags & 1)


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__
