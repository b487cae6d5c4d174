from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.boxes import (
    AllBoxes,
    Boxes3d,
    floor_centres,
    read_allboxes,
    read_boxes3d,
    read_names,
    write_allboxes,
    write_boxes3d,
    write_names,
)


@pytest.mark.parametrize("frames", [False, True])
def test_allboxes(tmp_path, random, frames):
    frame = random.integers(0, 9, 30) if frames else None
    boxes = AllBoxes(random.integers(-20, 5000, (30, 2)), random.integers(0, 40, 30), frame)
    write_allboxes(tmp_path / "a.allboxes", boxes)
    back = read_allboxes(tmp_path / "a.allboxes")
    assert np.array_equal(back.centre, boxes.centre)
    assert np.array_equal(back.tilt, boxes.tilt)
    assert (back.frame is None) == (not frames)
    if frames:
        assert np.array_equal(back.frame, boxes.frame)
    first = (tmp_path / "a.allboxes").read_text().splitlines()[0].split()
    assert [int(word) for word in first[:3]] == [*boxes.centre[0], boxes.tilt[0]]


def test_trap_centres_are_rounded_down_and_the_rest_is_kept(tmp_path):
    """PYP takes floor, also below 0, and stores floor - exact as a shift; a particle sits at crop centre + rest."""
    exact = np.array([[10.75, 20.25], [-0.25, 7.0], [99.999, -3.5]])
    centre, rest = floor_centres(exact)
    assert centre.tolist() == [[10, 20], [-1, 7], [99, -4]]
    assert np.all((rest >= 0) & (rest < 1))
    np.testing.assert_allclose(centre + rest, exact, atol=1e-12)
    write_allboxes(tmp_path / "a.allboxes", AllBoxes(centre, np.arange(3)))
    assert np.array_equal(read_allboxes(tmp_path / "a.allboxes").centre, centre)
    with pytest.raises(ValueError, match="whole pixels"):
        write_allboxes(tmp_path / "a.allboxes", AllBoxes(exact, np.arange(3)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n", "line 1: 2 columns, want 3 or 4"),
        ("1 2 3\n1 2 3 4\n", "line 2: 4 columns, want 3"),
        ("1 2 x\n", "line 1: tilt is 'x'"),
        ("1.5 2 3\n", "line 1: x is '1.5', want a whole"),
        ("1 2 -1\n", "line 1: tilt is below 0"),
        ("1 2 3 -4\n", "frame is below 0"),
        ("1 1e300 3\n", "y is '1e300', want a whole"),
    ],
)
def test_wrong_allboxes(tmp_path, text, message):
    (tmp_path / "a.allboxes").write_text(text)
    with pytest.raises(InputError, match=message):
        read_allboxes(tmp_path / "a.allboxes")


def test_empty_lists(tmp_path):
    (tmp_path / "a").write_text("")
    assert len(read_allboxes(tmp_path / "a")) == 0
    assert len(read_boxes3d(tmp_path / "a")) == 0
    with pytest.raises(InputError, match="no names"):
        read_names(tmp_path / "a")


BOXES3D = (
    "  PTLIDX\t       X\t       Y\t       Z\t   Score\tKeep_CSP\n"
    "       0\t  1234.5\t    -0.5\t   100.0\t   12.34\t     Yes\n"
    "      13\t     1.0\t     2.0\t     3.0\t    0.00\t      No\n"
)


def test_boxes3d(tmp_path):
    (tmp_path / "a_boxes3d.txt").write_text(BOXES3D)
    boxes = read_boxes3d(tmp_path / "a_boxes3d.txt")
    assert boxes.index.tolist() == [0, 13]
    assert boxes.position.tolist() == [[1234.5, -0.5, 100], [1, 2, 3]]
    assert boxes.score.tolist() == [12.34, 0]
    assert boxes.keep.tolist() == [True, False]
    write_boxes3d(tmp_path / "b.txt", boxes)
    assert (tmp_path / "b.txt").read_text() == BOXES3D
    assert isinstance(boxes, Boxes3d)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\t      No", "", "line 3: 5 columns, want PTLIDX X Y Z"),
        ("      No", "   Maybe", "line 3: Keep_CSP is 'Maybe', want Yes or No"),
        ("      13", "       0", "line 3: PTLIDX 0 a second time"),
        ("  1234.5", "  1234,5", "line 2: X is '1234,5'"),
        ("      13", "      -3", "line 3: PTLIDX is below 0"),
        ("      13", "    13.5", "line 3: PTLIDX is '13.5', want a whole"),
    ],
)
def test_wrong_boxes3d(tmp_path, old, new, message):
    (tmp_path / "a_boxes3d.txt").write_text(BOXES3D.replace(old, new))
    with pytest.raises(InputError, match=message):
        read_boxes3d(tmp_path / "a_boxes3d.txt")


def test_names(tmp_path):
    names = ["TS_01", "TS 02", "ü.3"]
    write_names(tmp_path / "d.films", names)
    assert read_names(tmp_path / "d.films") == names
    (tmp_path / "d.films").write_text("\n TS_01 \r\n\nTS_02")
    assert read_names(tmp_path / "d.films") == ["TS_01", "TS_02"]
    for text, message in (
        ("a\nb\na\n", "line 3: 'a' a second time"),
        ("../a\n", "not the name"),
        ("..\n", "not the name"),
        ("a\0\n", "not the name"),
        ("a" * 201 + "\n", "not the name"),
    ):
        (tmp_path / "d.films").write_text(text)
        with pytest.raises(InputError, match=message):
            read_names(tmp_path / "d.films")
    for wrong in (["a", "a"], ["a/b"], [" a"], [""]):
        with pytest.raises(ValueError, match="name"):
            write_names(tmp_path / "d.films", wrong)
