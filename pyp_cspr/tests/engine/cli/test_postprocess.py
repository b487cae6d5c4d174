"""cspr postprocess: what it leaves, and what it refuses. RELION's program is the oracle of the numbers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.filters import soft_sphere
from pyp_cspr.engine.io.mrc import read_map, write_map
from pyp_cspr.tests.blobs import asymmetric_blobs


@pytest.fixture
def halves(tmp_path, random):
    truth = asymmetric_blobs(3.0, 30.0, count=30).volume(48, 3.0)
    names = [str(tmp_path / f"half{number}.mrc") for number in (1, 2)]
    for name in names:
        write_map(name, truth + 0.3 * truth.std() * random.normal(size=truth.shape), 3.0)
    return names


def test_files_and_summary(halves, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["postprocess", *halves, "--out", str(out), "--json", "--b-factor", "-50"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "summary.json").read_text())
    assert printed["b_factor"] == -50.0
    assert printed["low_pass"] == printed["resolution_0143"]
    for name in ("map_sharpened", "mask"):
        values, pixel = read_map(out / f"{name}.mrc")
        assert values.shape == (48, 48, 48)
        assert pixel == pytest.approx(3.0)
    assert len((out / "fsc.csv").read_text().splitlines()) == 26
    assert main(["postprocess", *halves, "--out", str(out)]) == 0
    assert f"{printed['resolution_0143']:.2f} A" in capsys.readouterr().out


@pytest.mark.parametrize("words, said", [
    (["--b-factor", "much"], "--b-factor much: give auto or a number"),
    (["--resolution", "-3"], "--resolution -3: it must be 0 or above"),
    (["--pixel", "-1"], "--pixel -1: it must be above 0"),
    (["--threads", "0"], "--threads must be at least 1"),
    (["--mask", "nowhere.mrc"], "nowhere.mrc"),
])
def test_wrong_options_are_one_line(halves, tmp_path, capsys, words, said):
    assert main(["postprocess", *halves, "--out", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_its_own_maps_are_not_written_over_while_they_are_read(halves, tmp_path, monkeypatch, capsys):
    """Half maps beside what is written are none of them."""
    out = tmp_path / "out"
    assert main(["postprocess", *halves, "--out", str(tmp_path)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for words in (["map_sharpened.mrc", "half2.mrc"], ["half1.mrc", "link/map_sharpened.mrc"],
                  ["half1.mrc", "half2.mrc", "--mask", "mask.mrc"]):
        capsys.readouterr()
        assert main(["postprocess", *words, "--out", "."]) == 2, words
        assert "which this command reads" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in before} == before
    assert main(["postprocess", *words, "--out", str(out)]) == 0


@pytest.mark.needs_relion
@pytest.mark.timeout(120)
@pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="RELION is not installed (Debian: relion)")
def test_relions_program_finds_the_same_resolution_and_map(halves, tmp_path):
    mask = str(tmp_path / "mask.mrc")
    write_map(mask, soft_sphere(48, 14.0, 6.0), 3.0)
    line = ["relion_postprocess", "--i", halves[0], "--i2", halves[1], "--o", str(tmp_path / "post"), "--mask", mask,
            "--angpix", "3", "--adhoc_bfac", "-40"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    theirs = float(re.search(r"FINAL RESOLUTION:\s*([0-9.]+)", done.stdout).group(1))
    assert main(["postprocess", *halves, "--out", str(tmp_path / "out"), "--mask", mask, "--b-factor", "-40"]) == 0
    ours = json.loads((tmp_path / "out" / "summary.json").read_text())["resolution_0143"]
    shell = 48 * 3.0
    assert shell / ours == pytest.approx(shell / theirs, abs=1.0)  # RELION gives the last shell above, we interpolate
    maps = [read_map(path)[0].ravel() for path in (tmp_path / "post.mrc", tmp_path / "out" / "map_sharpened.mrc")]
    assert np.corrcoef(maps)[0, 1] > 0.999
