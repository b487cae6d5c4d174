from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.statistics_txt import (
    FscTable,
    new_statistics,
    read_exposure_scores,
    read_fsc,
    read_statistics,
    write_exposure_scores,
    write_fsc,
    write_statistics,
)

# As cisTEM prints it: box 8 at 2 A, shells 1 to 4 as lines 2 to 5, square roots of the ratios.
TEXT = """C        SHELL     RESOLUTION    RING_RADIUS            FSC       Part_FSC  Part_SSNR^0.5   Rec_SSNR^0.5
       2.00000       16.00000        0.12500        0.99000        0.99500        3.00000       20.00000
       3.00000        8.00000        0.25000        0.90000        0.95000        2.00000       10.00000
       4.00000        5.33333        0.37500        0.50000        0.60000        1.50000        4.00000
       5.00000        4.00000        0.50000       -0.10000       -0.12000        0.00000        0.50000
"""


def test_hand_made_statistics(tmp_path):
    (tmp_path / "s.txt").write_text(TEXT)
    statistics = read_statistics(tmp_path / "s.txt")
    assert statistics.shell.tolist() == [1, 2, 3, 4]
    assert statistics.resolution.tolist() == [16, 8, 5.33333, 4]
    assert statistics.fsc.tolist() == [0.99, 0.9, 0.5, -0.1]
    assert statistics.pixel == pytest.approx(2.0)
    write_statistics(tmp_path / "t.txt", statistics)
    assert (tmp_path / "t.txt").read_text() == TEXT


def test_trap_the_file_holds_square_roots_of_the_ssnr(tmp_path):
    (tmp_path / "s.txt").write_text(TEXT)
    statistics = read_statistics(tmp_path / "s.txt")
    assert statistics.part_ssnr.tolist() == [9, 4, 2.25, 0]
    assert statistics.rec_ssnr.tolist() == [400, 100, 16, 0.25]


def test_trap_the_first_line_is_shell_two(tmp_path):
    """cisTEM numbers the origin 1 and leaves it out: line 2 is one cycle per box."""
    curve = np.linspace(1, 0, 16)
    statistics = new_statistics(1.5, 32, curve, curve, curve, curve)
    assert statistics.resolution[0] == 48.0
    assert statistics.resolution[-1] == 3.0
    write_statistics(tmp_path / "s.txt", statistics)
    lines = (tmp_path / "s.txt").read_text().splitlines()
    assert float(lines[1].split()[0]) == 2
    back = read_statistics(tmp_path / "s.txt")
    assert back.shell.tolist() == list(range(1, 17))
    for name in ("resolution", "radius", "fsc", "part_fsc", "part_ssnr", "rec_ssnr"):
        np.testing.assert_allclose(getattr(back, name), getattr(statistics, name), atol=2e-5)
    with pytest.raises(ValueError, match="curves"):
        new_statistics(1.5, 30, curve, curve, curve, curve)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.99500", "x", "line 2: Part_FSC is 'x'"),
        ("        0.50000\n", "\n", "line 5: 6 columns, want 7"),
        ("       3.00000        8", "       4.00000        8", "SHELL does not count by one"),
        ("       2.00000       16.0", "       1.00000       16.0", "row 1: SHELL is 1;"),
        ("8.00000 ", "9.00000 ", "row 2: RESOLUTION is 9, not that of its SHELL"),
        ("16.00000", "-16.0000", "row 1: RESOLUTION is -16"),
        ("1.50000 ", "1e300 ", "row 3: Part_SSNR.* is 1e"),
        ("1.50000 ", "-1.5000 ", "row 3: Part_SSNR.* is -1.5"),
    ],
)
def test_wrong_statistics(tmp_path, old, new, message):
    (tmp_path / "s.txt").write_text(TEXT.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_statistics(tmp_path / "s.txt")


def test_trap_fsc_columns_begin_with_iteration_two(tmp_path):
    resolution = np.array([40.0, 20.0, 10.0])
    table = FscTable(resolution, np.empty((3, 0))).with_curve(2, [1, 0.9, 0.1]).with_curve(4, [1, 0.95, 0.4])
    write_fsc(tmp_path / "d_r01_fsc.txt", table)
    values = np.loadtxt(tmp_path / "d_r01_fsc.txt", ndmin=2)  # as PYP reads it: column j is iteration j + 1
    assert values[:, 0].tolist() == [40, 20, 10]
    assert values[:, 4 - 1].tolist() == [1, 0.95, 0.4]
    back = read_fsc(tmp_path / "d_r01_fsc.txt")
    assert back.curve(2).tolist() == [1, 0.9, 0.1]
    assert back.curve(3).tolist() == [0, 0, 0]
    assert back.curve(4).tolist() == [1, 0.95, 0.4]
    assert back.with_curve(3, [1, 1, 1]).curve(4).tolist() == [1, 0.95, 0.4]
    for iteration in (1, 5):
        with pytest.raises(ValueError, match="no iteration"):
            back.curve(iteration)
    with pytest.raises(ValueError, match="curve"):
        back.with_curve(5, [1, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no numbers"),
        ("10\n", "line 1: 1 columns"),
        ("10 1\n5 1 1\n", "line 2: 3 columns, want 2"),
        ("0 1\n", "row 1: resolution is 0"),
        ("10 inf\n", "FSC is 'inf'"),
    ],
)
def test_wrong_fsc(tmp_path, text, message):
    (tmp_path / "f.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_fsc(tmp_path / "f.txt")


def test_exposure_scores(tmp_path):
    write_exposure_scores(tmp_path / "global_weight.txt", [12.5, np.nan, 0.25])
    assert read_exposure_scores(tmp_path / "global_weight.txt").tolist() == [12.5, -1, 0.25]
    for text in ("1 2\n", "x\n", ""):
        (tmp_path / "global_weight.txt").write_text(text)
        with pytest.raises(InputError, match="global_weight"):
            read_exposure_scores(tmp_path / "global_weight.txt")
