from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core.geometry import matrix_to_tilt, project, rotation_y, tilt_to_matrix
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io import imod


def test_round_trip(tmp_path, random):
    rotation = tilt_to_matrix(random.uniform(-3, 3, 7), random.uniform(-60, 60, 7), random.uniform(-180, 180, 7))
    shift = random.normal(0, 100, (7, 2))
    imod.write_alignment(tmp_path / "a", rotation, shift, 1.7)
    assert imod.has_alignment(tmp_path / "a.st")
    assert not imod.has_alignment(tmp_path / "b.st")
    alignment = imod.read_alignment(tmp_path / "a.mrc")
    assert len(alignment) == 7
    assert alignment.enabled.all()
    read_rotation, read_shift = alignment.geometry(1.7)
    np.testing.assert_allclose(read_rotation, rotation, atol=1e-8)
    np.testing.assert_allclose(read_shift, shift, atol=1e-6)


def test_aligned_images_show_the_tilted_specimen(tmp_path, random):
    """IMOD's own definition: F (raw position) + d is where the specimen, tilted about y, is seen in the aligned image."""
    angle = np.deg2rad(85.0)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = np.array([3.0, -8.0])
    imod.write_xf(tmp_path / "a.xf", linear[None], offset[None])
    imod.write_angles(tmp_path / "a.tlt", [37.0])
    rotation, shift = imod.read_alignment(tmp_path / "a.mrc").geometry(2.0)
    x = random.normal(size=(20, 3)) * 500
    raw = project(rotation[0], shift[0], x)[0] / 2.0
    aligned = raw @ linear.T + offset
    np.testing.assert_allclose(aligned * 2.0, (x @ rotation_y(37.0).T)[:, :2], atol=1e-5)


def test_excluded_views_and_x_axis_tilt(tmp_path):
    imod.write_xf(tmp_path / "a.xf", np.tile(np.eye(2), (9, 1, 1)), np.zeros((9, 2)))
    imod.write_angles(tmp_path / "a.tlt", np.arange(9.0))
    imod.write_angles(tmp_path / "a.xtilt", np.full(9, 0.5))
    (tmp_path / "tilt.com").write_text("$tilt -StandardInput\nXAXISTILT 2.5\nEXCLUDELIST 2,4-5\nexcludelist2  9\n")
    (tmp_path / "newst.com").write_text("$newstack\nExcludeSections 0,6\n")  # counted from 0
    alignment = imod.read_alignment(tmp_path / "a.mrc")
    assert (np.flatnonzero(~alignment.enabled) + 1).tolist() == [1, 2, 4, 5, 7, 9]
    np.testing.assert_allclose(alignment.xtilt, 3.0)
    assert imod.read_excluded_views(tmp_path / "tilt.com") == [2, 4, 5, 9]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a.xf", "1 0 0 1 0\n", "a.xf: line 1: .*want 6 numbers"),
        ("a.xf", "1 0 0 1 0 nan\n", "want 6 numbers"),
        ("a.xf", "1 0 0 1 0 0\n1 0 0 -1 0 0\n", "line 2: its matrix is singular or mirrored"),
        ("a.xf", "", "the file is empty"),
        ("a.tlt", "1\n2\n3\n", "3 angles, .*a.xf has 2 lines"),
        ("a.tlt", "1\nx\n", "a.tlt: line 2: 'x', want 1 number"),
        ("a.xtilt", "1\n", "1 angles, .*a.tlt has 2"),
        ("tilt.com", "EXCLUDELIST 3\n", "excludes view 3 of 2"),
        ("tilt.com", "EXCLUDELIST 0\n", "'0' is no view"),
        ("tilt.com", "EXCLUDELIST 1-x\n", "'1-x' is no view"),
        ("tilt.com", "EXCLUDELIST 1-999999999\n", "too long"),
        ("tilt.com", "XAXISTILT a\n", "XAXISTILT 'a', want a number"),
    ],
)
def test_wrong_files(tmp_path, file, text, message):
    imod.write_xf(tmp_path / "a.xf", np.tile(np.eye(2), (2, 1, 1)), np.zeros((2, 2)))
    imod.write_angles(tmp_path / "a.tlt", [0.0, 3.0])
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        imod.read_alignment(tmp_path / "a.mrc")
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        imod.read_alignment(tmp_path / "a.mrc")
    (tmp_path / "a.tlt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="not a text file"):
        imod.read_angles(tmp_path / "a.tlt")


def test_real_etomo_files(shared_data):
    alignment = imod.read_alignment(shared_data / "metadata" / "etomofiles" / "TS_001" / "TS_001.st")
    assert len(alignment) == 40
    assert alignment.xtilt[0] == -0.01
    assert alignment.xtilt[39] == 0
    rotation, _ = alignment.geometry(0.6192)
    _, tilt, zrot = matrix_to_tilt(rotation)
    np.testing.assert_allclose(tilt, alignment.tilt, atol=1e-9)
    raw = imod.read_angles(shared_data / "metadata" / "etomofiles" / "TS_001" / "TS_001.rawtlt")
    np.testing.assert_allclose(alignment.tilt[0] - raw[0], 2.88, atol=1e-9)  # its .edf: AngleOffset 2.85
    # Its .edf: ImageRotation 83.9, the axis from the vertical, anticlockwise; F turns the axis onto y.
    np.testing.assert_allclose(zrot, 84.0, atol=1.0)


def test_real_alignments_of_the_cryoet_portal(shared_data):
    folder = shared_data / "metadata" / "cryoet-alignment"
    linear, offset = imod.read_xf(folder / "convert" / "imod_1" / "tilt_1.xf")
    assert linear.shape == (len(imod.read_angles(folder / "convert" / "imod_1" / "tilt_1.tlt")), 2, 2)
    assert offset[0].tolist() == [-58.17, 69.816]
    assert imod.read_excluded_views(folder / "convert" / "imod_1" / "tilt.com") == []
    linear, _ = imod.read_xf(folder / "test.xf")
    assert np.linalg.det(linear[0]) == pytest.approx(1.0, abs=1e-4)
