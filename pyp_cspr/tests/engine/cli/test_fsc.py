"""cspr fsc."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.io.mrc import read_map, write_map
from pyp_cspr.tests.blobs import asymmetric_blobs


@pytest.fixture
def halves(tmp_path, random):
    truth = asymmetric_blobs(3.0, 21.0, count=20).volume(32, 3.0)
    paths = []
    for name in "ab":
        paths.append(str(tmp_path / f"{name}.mrc"))
        write_map(paths[-1], (truth + truth.std() * random.normal(size=truth.shape)).astype(np.float32), 3.0)
    return paths


def test_json_and_table_agree(halves, tmp_path, capsys):
    out = tmp_path / "fsc.csv"
    assert main(["fsc", *halves, "--json", "--out", str(out)]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["box"] == 32
    assert values["pixel"] == pytest.approx(3.0)
    assert 6.0 <= values["resolution_0143"] < 25
    assert values["resolution"][0] is None
    with open(out, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["shell", "resolution", "unmasked", "masked", "phase_randomised", "corrected"]
    assert len(rows) == 17
    for shell, row in enumerate(rows):
        assert int(row["shell"]) == shell
        for name, curve in values["curves"].items():
            assert float(row[name]) == pytest.approx(curve[shell], abs=1e-6)
    assert main(["fsc", *halves]) == 0
    text = capsys.readouterr().out
    assert f"resolution at 0.143 of the corrected curve: {values['resolution_0143']:.2f} A" in text


def test_masks_none_and_file(halves, tmp_path, capsys):
    made = str(tmp_path / "mask.mrc")
    assert main(["fsc", *halves, "--json", "--mask-out", made]) == 0
    auto = json.loads(capsys.readouterr().out)
    assert read_map(made)[0].max() == 1
    assert main(["fsc", *halves, "--json", "--mask", made]) == 0
    again = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(again["curves"]["corrected"], auto["curves"]["corrected"], atol=1e-5)
    assert main(["fsc", *halves, "--json", "--mask", "none"]) == 0
    none = json.loads(capsys.readouterr().out)
    assert none["curves"]["masked"] == none["curves"]["unmasked"]
    assert none["resolution_0143"] > auto["resolution_0143"]


def wrong(capsys, *words):
    assert main(["fsc", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    return error


def test_wrong_input_is_one_line(halves, tmp_path, capsys):
    small = str(tmp_path / "small.mrc")
    write_map(small, np.ones((16, 16, 16), np.float32), 3.0)
    assert "box 16" in wrong(capsys, halves[0], small)
    assert "box 16" in wrong(capsys, *halves, "--mask", small)
    flat = str(tmp_path / "flat.mrc")
    write_map(flat, np.ones((4, 32, 32), np.float32), 3.0)
    assert "must be a cube" in wrong(capsys, halves[0], flat)
    coarse = str(tmp_path / "coarse.mrc")
    write_map(coarse, read_map(halves[1])[0], 4.0)
    assert "pixel 4 A" in wrong(capsys, halves[0], coarse)
    assert main(["fsc", halves[0], coarse, "--pixel", "3"]) == 0
    capsys.readouterr()
    assert "above 0" in wrong(capsys, *halves, "--pixel", "-1")
    broken = str(tmp_path / "nan.mrc")
    with pytest.warns(RuntimeWarning, match="NaN"):
        write_map(broken, np.full((32, 32, 32), np.nan, np.float32), 3.0)
    assert "not numbers" in wrong(capsys, halves[0], broken)
    bright = str(tmp_path / "bright.mrc")
    write_map(bright, np.full((32, 32, 32), 7, np.float32), 3.0)
    assert "from 0 to 1" in wrong(capsys, *halves, "--mask", bright)
    unnamed = str(tmp_path / "unnamed.mrc")
    write_map(unnamed, read_map(halves[1])[0], 0.0)
    assert "no pixel size" in wrong(capsys, halves[0], unnamed)
    assert "missing.mrc" in wrong(capsys, halves[0], str(tmp_path / "missing.mrc"))
    assert "--threads" in wrong(capsys, *halves, "--threads", "0")


def test_noise_has_no_resolution_and_null_says_it(tmp_path, random, capsys):
    paths = []
    for name in "ab":
        paths.append(str(tmp_path / f"{name}.mrc"))
        write_map(paths[-1], random.normal(size=(64, 64, 64)).astype(np.float32), 3.0)
    a = -read_map(paths[0])[0]
    write_map(paths[1], a, 3.0)
    assert main(["fsc", *paths, "--json", "--mask", "none"]) == 0
    assert json.loads(capsys.readouterr().out)["resolution_0143"] is None
    assert main(["fsc", *paths, "--mask", "none"]) == 0
    assert "corrected curve: none" in capsys.readouterr().out
