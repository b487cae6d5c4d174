from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.volumes_txt import (
    COLUMNS,
    new_volumes,
    parse_name,
    read_coordinates,
    read_volumes,
    write_coordinates,
    write_volumes,
)

ROW = (
    "3\t-60.00\t57.50\t32\t31\t30\t64\t62\t60\t63.000000\t10.500000\t-140.000000\t"
    "0\t1\t2\t1.5\t4\t5\t6\t-2.25\t8\t9\t10\t0.75\t0\t0\t0\t1\t1\t1\t1\t0.37\t/a b/sva/TS_01_vir0002_spk0013.mrc"
)


def test_hand_made_row(tmp_path):
    for head in ("", "number  lwedge  uwedge  posX    posY and so on\n"):
        (tmp_path / "a.txt").write_text(head + ROW + "\n\n")
        table = read_volumes(tmp_path / "a.txt")
        assert len(table) == 1
        assert table.number.tolist() == [3]
        assert table.wedge.tolist() == [[-60, 57.5]]
        assert table.position.tolist() == [[32, 31, 30]]
        assert table.box.tolist() == [[64, 62, 60]]
        assert table.normal.tolist() == [[63, 10.5, -140]]
        assert table.magnification.tolist() == [[1, 1, 1]]
        assert table.filename == ["/a b/sva/TS_01_vir0002_spk0013.mrc"]
        assert table.keys() == [("TS_01", 2, 13)]
    (tmp_path / "b.txt").write_text(ROW.replace("\t", "  ") + "\n")  # blanks instead of tabs
    assert read_volumes(tmp_path / "b.txt").filename == ["/a b/sva/TS_01_vir0002_spk0013.mrc"]


def test_trap_matrix_is_row_major_with_its_translation_in_the_last_column(tmp_path):
    (tmp_path / "a.txt").write_text(ROW)
    table = read_volumes(tmp_path / "a.txt")
    assert table.matrix[0].tolist() == [[0, 1, 2, 1.5], [4, 5, 6, -2.25], [8, 9, 10, 0.75], [0, 0, 0, 1]]
    assert table.matrix[:, :3, 3].tolist() == [[1.5, -2.25, 0.75]]
    transposed = ROW.split("\t")
    transposed[12:28] = np.reshape(transposed[12:28], (4, 4)).T.reshape(-1).tolist()
    (tmp_path / "a.txt").write_text("\t".join(transposed))
    with pytest.raises(InputError, match=r"line 1: matrix\[12\] to \[15\] are not 0 0 0 1"):
        read_volumes(tmp_path / "a.txt")


def test_trap_cut_offset_is_a_score_and_no_offset(tmp_path):
    """PYP writes a correlation score where 3DAVG kept an offset along the normal; no position or matrix may change by it."""
    (tmp_path / "a.txt").write_text(ROW)
    (tmp_path / "b.txt").write_text(ROW.replace("\t0.37\t", "\t25\t"))
    first, second = read_volumes(tmp_path / "a.txt"), read_volumes(tmp_path / "b.txt")
    assert first.score.tolist() == [0.37]
    assert second.score.tolist() == [25]
    assert np.array_equal(first.matrix, second.matrix)
    assert np.array_equal(first.position, second.position)


def test_trap_absent_rows_still_count(tmp_path):
    """The name gives the place in the series' list; the row's own number does not."""
    table = new_volumes(3)
    table.filename = ["TS_spk0000.rec", "TS_spk0004.rec", "TS_spk0002.rec"]
    write_volumes(tmp_path / "a.txt", table)
    assert read_volumes(tmp_path / "a.txt").keys() == [("TS", -1, 0), ("TS", -1, 4), ("TS", -1, 2)]


def test_round_trip_to_the_last_bit(tmp_path, random):
    table = new_volumes(50)
    for values in (table.wedge, table.position, table.box, table.normal, table.magnification, table.score):
        values[...] = random.normal(0, 100, values.shape)
    table.matrix[:, :3] = random.normal(0, 3, (50, 3, 4))
    table.filename = [f"TS_{row // 7:02d}_spk{row:04d}.rec" for row in range(50)]
    write_volumes(tmp_path / "a.txt", table)
    back = read_volumes(tmp_path / "a.txt")
    for name in ("number", "wedge", "position", "box", "normal", "matrix", "magnification", "score"):
        assert np.array_equal(getattr(back, name), getattr(table, name)), name
    assert back.filename == table.filename
    lines = (tmp_path / "a.txt").read_text().splitlines()
    assert lines[0].split("\t") == list(COLUMNS)
    assert {len(line.split("\t")) for line in lines} == {33}
    write_volumes(tmp_path / "b.txt", new_volumes(0))
    assert len(read_volumes(tmp_path / "b.txt")) == 0


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("TS_01_spk0007.rec", ("TS_01", -1, 7)),
        ("TS_01_vir0000_spk12345.mrc", ("TS_01", 0, 12345)),
        ("x/y/a_vir0001_vir0003_spk0001.mrc", ("a_vir0001", 3, 1)),
        ("C:\\data\\a.b_spk0001.rec", ("a.b", -1, 1)),
    ],
)
def test_names(name, key):
    assert parse_name(name, "x") == key


@pytest.mark.parametrize("name", ["", "TS.rec", "TS_spk001.rec", "TS_spk0001.tif", "_spk0001.rec", "TS_spk0001.rec.txt",
                                  "TS_spk99999999999999999999.rec"])
def test_wrong_names(name):
    with pytest.raises(InputError, match="a: row 3: filename is"):
        parse_name(name, "a: row 3")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\t57.50", "", "32 columns, want 33"),
        ("57.50", "x", "uwedge is 'x', want a number"),
        ("0.37", "nan", "cutOffset is 'nan'"),
        ("3\t-60", "3.5\t-60", "number is 3.5, want a whole"),
        ("-2.25", "1e999", r"matrix\[7\] is '1e999'"),
    ],
)
def test_wrong_files(tmp_path, old, new, message):
    (tmp_path / "a.txt").write_text("number\n" + ROW.replace(old, new, 1))
    with pytest.raises(InputError, match=r"a\.txt: line 2: " + message):
        read_volumes(tmp_path / "a.txt")


def test_unwritable(tmp_path):
    table = new_volumes(1)
    with pytest.raises(ValueError, match="filename"):
        write_volumes(tmp_path / "a.txt", table)
    table.filename = ["a\tb"]
    with pytest.raises(ValueError, match="filename"):
        write_volumes(tmp_path / "a.txt", table)
    table.filename = []
    with pytest.raises(ValueError, match="lengths"):
        write_volumes(tmp_path / "a.txt", table)


def test_coordinates(tmp_path, random):
    for width in (3, 4):
        points = random.normal(0, 1000, (20, width))
        write_coordinates(tmp_path / "a.txt", points)
        assert np.array_equal(read_coordinates(tmp_path / "a.txt"), points)
    (tmp_path / "a.txt").write_text("# x y z\n   10.00   20.50   30.00\n\n1,2,3\n")
    assert read_coordinates(tmp_path / "a.txt").tolist() == [[10, 20.5, 30], [1, 2, 3]]
    (tmp_path / "a.txt").write_text("")
    assert read_coordinates(tmp_path / "a.txt").shape == (0, 3)
    for text, message in (
        ("1 2\n", "2 columns, want 3 or 4"),
        ("1 2 3\n1 2 3 4\n", "line 2: 4 columns, want 3"),
        ("1 2 z", "z is 'z'"),
    ):
        (tmp_path / "a.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            read_coordinates(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="points"):
        write_coordinates(tmp_path / "a.txt", [[1, 2]])
