from __future__ import annotations

import os
import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.mrc import open_stack, read_map, write_map, write_stack


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f2", "f4"])
def test_stack_round_trip(tmp_path, random, dtype):
    images = random.uniform(0, 100, (3, 5, 7)).astype(dtype)
    write_stack(tmp_path / "a.mrc", iter(images), 1.35)
    stack = open_stack(tmp_path / "a.mrc")
    assert (stack.n, stack.ny, stack.nx) == (3, 5, 7)
    assert stack.pixel == pytest.approx(1.35, rel=1e-6)
    assert stack.data.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(stack.data, images)
    np.testing.assert_array_equal(stack.image(2), images[2])
    assert mrcfile.validate(str(tmp_path / "a.mrc")) or dtype == "f2"  # mode 12 is newer than this validator's standard
    with mrcfile.open(str(tmp_path / "a.mrc")) as mrc:
        assert mrc.is_image_stack()
        np.testing.assert_array_equal(mrc.data, images)


def test_map_round_trip(tmp_path, random):
    volume = random.normal(size=(4, 6, 5))
    write_map(tmp_path / "new folder" / "m.mrc", volume, 2.5)
    values, pixel = read_map(tmp_path / "new folder" / "m.mrc")
    np.testing.assert_array_equal(values, volume.astype(np.float32))
    assert values.dtype == np.float32
    assert pixel == pytest.approx(2.5)
    with mrcfile.open(str(tmp_path / "new folder" / "m.mrc")) as mrc:
        assert mrc.is_volume()
        assert mrc.header.dmax == volume.astype(np.float32).max()


@pytest.mark.parametrize(("cell", "good"), [((8, 8, 8.05), True), ((8, 0, 0), True), ((8, 10, 8), False), ((8, 8, 6.4), False)])
def test_maps_whose_voxels_are_no_cubes_are_refused(tmp_path, cell, good):
    path = tmp_path / "m.mrc"
    write_map(path, np.ones((4, 4, 4), np.float32), 8.0)
    with mrcfile.open(str(path), mode="r+") as mrc:
        mrc.header.cella.x, mrc.header.cella.y, mrc.header.cella.z = (4 * size for size in cell)
    if good:
        assert read_map(path)[1] == 8.0
    else:
        with pytest.raises(InputError, match=r"m\.mrc: voxels of 8 x .* A; resample"):
            read_map(path)


def test_big_endian(tmp_path, random):
    images = random.integers(-999, 999, (2, 3, 4)).astype("<i2")
    write_stack(tmp_path / "a.mrc", images, 2.0)
    raw = (tmp_path / "a.mrc").read_bytes()
    header = bytearray(1024)
    header[:212] = np.frombuffer(raw[:212], "<i4").astype(">i4").tobytes()
    header[104:108], header[208:212], header[212:216] = raw[104:108], b"MAP ", b"\x11\x11\0\0"
    (tmp_path / "b.mrc").write_bytes(bytes(header) + images.astype(">i2").tobytes())
    stack = open_stack(tmp_path / "b.mrc")
    np.testing.assert_array_equal(stack.data, images)
    assert stack.pixel == 2.0


def test_extended_header_is_skipped(tmp_path, random):
    images = random.normal(size=(2, 3, 4)).astype("<f4")
    write_stack(tmp_path / "a.mrc", images, 2.0)
    raw = bytearray((tmp_path / "a.mrc").read_bytes())
    raw[92:96] = struct.pack("<i", 768)
    (tmp_path / "a.mrc").write_bytes(raw[:1024] + b"x" * 768 + raw[1024:])
    np.testing.assert_array_equal(open_stack(tmp_path / "a.mrc").data, images)


@pytest.mark.parametrize(("flags", "dtype"), [(0, "u1"), (1, "i1")])
def test_imod_says_whether_bytes_are_signed(tmp_path, flags, dtype):
    write_stack(tmp_path / "a.mrc", np.full((1, 2, 2), -1, "i1"), 1.0)
    raw = bytearray((tmp_path / "a.mrc").read_bytes())
    raw[152:160] = struct.pack("<ii", 1146047817, flags)
    (tmp_path / "a.mrc").write_bytes(raw)
    assert open_stack(tmp_path / "a.mrc").data.dtype == np.dtype(dtype)


def test_no_map_stamp_is_read(tmp_path):
    write_stack(tmp_path / "a.st", np.ones((1, 2, 2), "i2"), 1.0)
    raw = bytearray((tmp_path / "a.st").read_bytes())
    raw[208:216] = bytes(8)
    (tmp_path / "a.st").write_bytes(raw)
    assert open_stack(tmp_path / "a.st").data.sum() == 4


@pytest.mark.parametrize("length", [0, 500, 1023, 1024, 1024 + 47])
def test_truncated(tmp_path, length):
    write_stack(tmp_path / "a.mrc", np.ones((2, 3, 4), "i2"), 1.0)
    os.truncate(tmp_path / "a.mrc", length)
    with pytest.raises(InputError, match=r"a\.mrc: truncated"):
        open_stack(tmp_path / "a.mrc")


def test_wrong_files(tmp_path, random):
    with pytest.raises(InputError, match="cannot be read"):
        open_stack(tmp_path / "missing.mrc")
    with pytest.raises(InputError, match="cannot be read"):
        open_stack(tmp_path)
    for seed in range(30):
        noise = np.random.default_rng(seed).bytes(4096)
        (tmp_path / "noise.mrc").write_bytes(noise)
        with pytest.raises(InputError, match=r"noise\.mrc"):
            open_stack(tmp_path / "noise.mrc")
    with mrcfile.new(str(tmp_path / "complex.mrc")) as mrc:
        mrc.set_data(np.ones((2, 3, 4), np.complex64))
    with pytest.raises(InputError, match="mode 4"):
        open_stack(tmp_path / "complex.mrc")
    write_stack(tmp_path / "a.mrc", np.ones((2, 3, 4), "i2"), 1.0)
    with pytest.raises(InputError, match="image 3 of a stack of 2"):
        open_stack(tmp_path / "a.mrc").image(2)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_stack(tmp_path / "a.mrc", np.ones((1, 2, 2), "i2"), 1.0)
    with pytest.raises(ValueError, match="image 1"):
        write_stack(tmp_path / "a.mrc", iter([np.zeros((2, 2), "i2"), np.zeros((3, 2), "i2")]), 1.0)
    with pytest.raises(ValueError, match="an image"):
        write_stack(tmp_path / "a.mrc", iter([]), 1.0)
    assert open_stack(tmp_path / "a.mrc").data.sum() == 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.mrc"]


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_map(tmp_path / "file" / "m.mrc", np.zeros((2, 2, 2), np.float32), 1.0)


def test_only_touched_images_are_read(tmp_path):
    path = Path(tmp_path / "big.mrc")
    write_stack(path, (np.full((8, 8), i, "i2") for i in range(3)), 1.0)
    with open(path, "r+b") as file:  # a header of a huge sparse stack: opening must not read it
        file.seek(8)
        file.write(struct.pack("<i", 2_000_000))
        file.truncate(1024 + 2_000_000 * 128)
    with pytest.raises(InputError, match="2000000"):
        open_stack(path)  # more images than any series has
    with open(path, "r+b") as file:
        file.seek(8)
        file.write(struct.pack("<i", 900_000))
    assert open_stack(path).data[2, 0, 0] == 2
