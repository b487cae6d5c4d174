from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.frealign import KINDS, ParTable, default_header, read_par, write_par

COUNTS = {"cclin": 13, "frealign": 16, "frealignx": 17, "cclin_parx": 42, "parx": 45, "frealignx_parx": 46}
WIDTHS = {"cclin": 102, "frealign": 136, "frealignx": 144}
CSP_WIDTH = 6 * 9 + 23 * 10

# Two lines as PYP prints them, by hand.
PAR = (
    "C  FREALIGN NEW parameter file\n"
    "      1  182.18   30.00  180.00      1.88     -3.89   10000     0  23456.7  22345.6  -18.50  100.00      -500"
    "     1.0000   12.34    0.00\n"
    "9999999    0.00    0.00  359.99  -1234.56   1234.56   10000    17      0.0      0.0    0.00    0.00         0"
    "     0.5000    0.01   -1.00\n"
)
PARX_TAIL = (
    "        3   -42.00     0.00       17     0.00     1.00   85.3000   40.0000    0.0000  110.0000"
    "    1.0000    0.0000    0.0000    2.0000    0.0000    1.0000    0.0000   -3.0000    0.0000    0.0000    1.0000    5.0000"
    "   12.5000  -13.5000    0.2500   -0.7500   -1.0000    2.0000   -3.0000"
)


def make(kind, random, count=40):
    table = ParTable(kind, {})
    for name, width, decimals in KINDS[kind]:
        if decimals < 0:
            table.columns[name] = random.integers(0, 10_000, count)
        else:
            high = 10.0 ** (width - decimals - 3 - (decimals > 0))
            table.columns[name] = np.round(random.uniform(-high, high, count), decimals) + 0.0
    return table


@pytest.mark.parametrize("kind", list(KINDS))
def test_round_trip_of_every_kind(tmp_path, random, kind):
    assert len(KINDS[kind]) == COUNTS[kind]
    table = make(kind, random)
    write_par(tmp_path / "a.par", table)
    back = read_par(tmp_path / "a.par")
    assert back.kind == kind
    assert back.header == default_header(kind)
    assert back.extended == kind.endswith("parx")
    assert list(back.columns) == list(table.columns)
    for name, values in table.columns.items():
        np.testing.assert_allclose(back.columns[name], values, atol=1e-9, err_msg=name)
        assert back.columns[name].dtype == (np.int64 if name in ("NO", "FILM", "PTLIND", "SCANOR") else np.float64)
    lines = (tmp_path / "a.par").read_text().splitlines()
    width = WIDTHS[kind.split("_")[0] if kind != "parx" else "frealign"] + (CSP_WIDTH if back.extended else 0)
    assert {len(line) for line in lines} - {len(lines[0])} == {width}
    write_par(tmp_path / "b.par", back)
    assert (tmp_path / "b.par").read_bytes() == (tmp_path / "a.par").read_bytes()


def test_hand_made_lines(tmp_path):
    (tmp_path / "a.par").write_text(PAR)
    table = read_par(tmp_path / "a.par")
    assert table.kind == "frealign"
    assert table.header == ["C  FREALIGN NEW parameter file"]
    assert table.columns["NO"].tolist() == [1, 9999999]
    assert table.columns["SHX"].tolist() == [1.88, -1234.56]
    assert table.columns["FILM"].tolist() == [0, 17]
    assert table.columns["ANGAST"].tolist() == [-18.5, 0]
    assert table.columns["SCORE"].tolist() == [12.34, 0.01]
    write_par(tmp_path / "b.par", table)
    assert (tmp_path / "b.par").read_text() == PAR
    (tmp_path / "a.parx").write_text(PAR.splitlines()[1] + PARX_TAIL + "\n")
    table = read_par(tmp_path / "a.parx")
    assert table.kind == "parx"
    assert table.columns["TILTAN"].tolist() == [-42]
    assert table.columns["SCANOR"].tolist() == [17]
    assert [table.columns[f"MATRIX{index:02d}"][0] for index in (3, 7, 11)] == [2, -3, 5]
    assert [table.columns[name][0] for name in ("PPSI", "PTHETA", "PPHI")] == [-1, 2, -3]
    table.header = ["C"]
    write_par(tmp_path / "b.parx", table)
    assert (tmp_path / "b.parx").read_text() == "C\n" + PAR.splitlines()[1] + PARX_TAIL + "\n"


@pytest.mark.parametrize(("kind", "occ", "score"), [
    ("frealign", slice(92, 99), slice(121, 128)),
    ("parx", slice(92, 99), slice(121, 128)),
    ("frealignx", slice(100, 107), slice(129, 136)),
    ("frealignx_parx", slice(100, 107), slice(129, 136)),
])
def test_pyps_own_readers_understand_our_lines(tmp_path, random, kind, occ, score):
    """PYP cuts OCC and SCORE out at fixed characters, and reads whole files at blanks with C for comments."""
    table = make(kind, random)
    table.columns["OCC"] = np.round(random.uniform(0, 100, 40), 2)
    table.columns["SCORE"] = np.round(random.uniform(0, 100, 40), 2)
    table.columns["OCC"][0] = table.columns["SCORE"][0] = 100.0
    write_par(tmp_path / "a.par", table)
    lines = [line for line in (tmp_path / "a.par").read_text().splitlines() if line[0] != "C"]
    assert [float(line[occ]) for line in lines] == table.columns["OCC"].tolist()
    assert [float(line[score]) for line in lines] == table.columns["SCORE"].tolist()
    values = np.loadtxt(tmp_path / "a.par", comments="C", ndmin=2)
    for index, name in enumerate(table.columns):
        np.testing.assert_allclose(values[:, index], table.columns[name], atol=1e-9)


def test_allparxs_have_no_number_and_the_film_where_pyp_overwrites_it(tmp_path, random):
    table = make("parx", random, 3)
    table.columns["NO"] = np.arange(1, 4)
    table.columns["FILM"] = np.array([0, 17, 99999])
    write_par(tmp_path / "a.allparxs", table, numbered=False)
    lines = (tmp_path / "a.allparxs").read_text().splitlines()
    assert [line[52:58] for line in lines] == ["     0", "    17", " 99999"]
    back = read_par(tmp_path / "a.allparxs", numbered=False)
    assert back.kind == "parx"
    for name, values in table.columns.items():
        np.testing.assert_allclose(back.columns[name], values, atol=1e-9)


def test_trap_numbers_wrap_after_seven_digits(tmp_path, random):
    table = make("frealign", random, 3)
    table.columns["NO"] = np.array([9_999_999, 10_000_000, 10_000_001])
    write_par(tmp_path / "a.par", table)
    back = read_par(tmp_path / "a.par")
    assert back.columns["NO"].tolist() == [9_999_999, 0, 1]


def test_trap_wide_values_never_touch_their_neighbours(tmp_path, random):
    """A tilt shift of -1500 A fills PYP's %10.4f to the brim, and PYP's own reader then fails on its own file."""
    table = make("parx", random, 2)
    table.columns["MATRIX12"] = np.array([-1500.123456, 23456.123456])
    table.columns["SHX"] = np.array([-123456.789, 0.004])
    table.columns["LOGP"] = np.array([-12345678.4, 1.6])
    write_par(tmp_path / "a.parx", table)
    back = read_par(tmp_path / "a.parx")
    assert back.columns["MATRIX12"].tolist() == [-1500.123, 23456.123]
    assert back.columns["SHX"].tolist() == [-123456.8, 0.0]
    assert back.columns["LOGP"].tolist() == [-12345678, 2]
    np.loadtxt(tmp_path / "a.parx", comments="C")
    table.columns["LOGP"][0] = -1e9
    with pytest.raises(ValueError, match="row 1: LOGP: -1e\\+09 does not fit into 10 characters"):
        write_par(tmp_path / "a.parx", table)
    table.columns["LOGP"][0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        write_par(tmp_path / "a.parx", table)


def test_trap_values_that_touch_are_cut_at_their_fields(tmp_path):
    """Other programs do fill fields: such lines are read by character."""
    good, touching = PAR.splitlines()[1:]
    touching = touching.replace("  -1234.56   1234.56", "-123456.78-123456.78")
    touching = touching.replace("      0.0      0.0", "-123456.7-123456.7")
    assert len(touching) == len(good)
    for text in (good + "\n" + touching + "\n", touching + "\n" + good + "\n", touching + "\n"):
        (tmp_path / "a.par").write_text(text)
        table = read_par(tmp_path / "a.par")
        row = text.splitlines().index(touching)
        assert table.columns["SHX"][row] == -123456.78
        assert table.columns["SHY"][row] == -123456.78
        assert table.columns["DF2"][row] == -123456.7
        assert table.columns["NO"][row] == 9999999


def test_trap_particle_angles_keep_their_sign(tmp_path, random):
    """PPSI, PTHETA, PPHI are negated angles; the file's numbers are not touched."""
    table = make("parx", random, 1)
    for name, value in (("PPSI", -160.0), ("PTHETA", -40.0), ("PPHI", -358.5019)):
        table.columns[name][:] = value
    write_par(tmp_path / "a.parx", table)
    back = read_par(tmp_path / "a.parx")
    assert [back.columns[name][0] for name in ("PPSI", "PTHETA", "PPHI")] == [-160.0, -40.0, -358.5019]


def test_trap_last_matrix_elements_are_shifts(tmp_path, random):
    """MATRIX12 to 15 are the tilt's and the frame's shift, and no row 0 0 0 1 is wanted or made."""
    table = make("parx", random, 1)
    for name, value in (("MATRIX12", 12.5), ("MATRIX13", -13.5), ("MATRIX14", 0.25), ("MATRIX15", -0.75)):
        table.columns[name][:] = value
    write_par(tmp_path / "a.parx", table)
    back = read_par(tmp_path / "a.parx")
    assert [back.columns[f"MATRIX{index}"][0] for index in (12, 13, 14, 15)] == [12.5, -13.5, 0.25, -0.75]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  30.00", "  30,00", "line 2: THETA \\(column 3\\) is '30,00', want a number"),
        ("  30.00", "    nan", "line 2: THETA \\(column 3\\) is 'nan'"),
        ("     1.0000", "***********", "line 2: SIGMA \\(column 14\\) is '\\*+'"),
        ("    17", "  17.5", "line 3: FILM is 17.5, want a whole number"),
        ("9999999", "1e99999", "line 3: NO \\(column 1\\) is '1e99999'"),
        ("9999999", "  1e300", "line 3: NO is 1e\\+300, want a whole"),
        ("   -1.00\n", "\n", "line 3: 15 columns, want 16 as in its first line"),
        ("   -1.00\n", "   -1.00 3\n", "line 3: 17 columns, want 16"),
        ("    0.00\n9", "    0.00 1 2\n9", "line 2: 18 columns; a parameter file has 13, 16, 17, 42, 45, 46"),
        (PAR, "C\n", "no lines of parameters"),
    ],
)
def test_wrong_files(tmp_path, old, new, message):
    assert old in PAR
    (tmp_path / "a.par").write_text(PAR.replace(old, new, 1))
    with pytest.raises(InputError, match=f"a\\.par: {message}") as caught:
        read_par(tmp_path / "a.par")
    assert "\n" not in str(caught.value)


def test_unreadable_and_unwritable(tmp_path, random):
    with pytest.raises(InputError, match="cannot be read"):
        read_par(tmp_path / "missing.par")
    (tmp_path / "a.par").write_bytes(b"  1 2\xff")
    with pytest.raises(InputError, match="byte 5: not a text file"):
        read_par(tmp_path / "a.par")
    table = make("frealign", random)
    with pytest.raises(InputError, match="cannot be written"):
        write_par(tmp_path / "a.par" / "b.par", table)
    del table.columns["SCORE"]
    with pytest.raises(ValueError, match="needs the column SCORE"):
        write_par(tmp_path / "b.par", table)
    table.columns["SCORE"] = np.zeros(3)
    with pytest.raises(ValueError, match="different lengths"):
        write_par(tmp_path / "b.par", table)
    table = make("frealign", random)
    table.columns["FILM"] = table.columns["FILM"] + 0.5
    with pytest.raises(ValueError, match="FILM holds whole"):
        write_par(tmp_path / "b.par", table)
    assert not (tmp_path / "b.par").exists()


def test_windows_line_ends_and_trailing_comments(tmp_path):
    text = PAR.replace("\n", "\r\n") + "C  statistics of FREALIGN\r\n"
    (tmp_path / "a.par").write_bytes(text.encode())
    table = read_par(tmp_path / "a.par")
    assert len(table) == 2
    assert len(table.header) == 1
