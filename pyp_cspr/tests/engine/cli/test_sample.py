"""cspr sample and cspr compare."""

from __future__ import annotations

import argparse
import json

import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.cli.sample import add_args, settings_of
from pyp_cspr.engine.sample.settings import SampleSettings

TINY = ["--series", "1", "--particles", "3", "--tilts", "3", "--box", "32", "--pixel", "8"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "data"
    assert main(["sample", str(folder), *TINY, "--pose-error", "2", "--defocus", "20000", "21000"]) == 0
    return folder


def test_defaults_are_those_of_the_settings():
    parser = argparse.ArgumentParser()
    add_args(parser)
    assert settings_of(parser.parse_args(["x"])) == SampleSettings()


def test_every_setting_has_an_option():
    parser = argparse.ArgumentParser()
    add_args(parser)
    args = vars(parser.parse_args(["x"]))
    assert {name for name in SampleSettings().to_dict() if name not in args} == {"defocus_low", "defocus_high"}


def test_json_summary(tmp_path, capsys):
    assert main(["sample", str(tmp_path / "x"), *TINY, "--json", "--noise", "none", "--threads", "1"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["projections"] == 9
    assert values["series"] == 1


def test_bar_goes_to_standard_error(sample, tmp_path, capsys):
    assert main(["sample", str(tmp_path / "x"), *TINY]) == 0
    streams = capsys.readouterr()
    assert "9 projections" in streams.out
    assert "tilt images" in streams.err
    assert "image/s" not in streams.out


def test_compare_prints_a_table_and_json(sample, capsys):
    assert main(["compare", str(sample), str(sample / "truth.star"), "--symmetry", "C3"]) == 0
    text = capsys.readouterr().out
    assert "particle defocus" in text
    assert main(["compare", str(sample), str(sample / "truth.star"), "--symmetry", "C3", "--reference", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert 0.5 < values["before"]["rotation"]["rms"] < 10
    assert values["before"]["position"]["rms"] < 1e-5
    assert main(["compare", str(sample), str(sample / "truth.star"), "--reference"]) == 0
    assert "reference turned by" in capsys.readouterr().out


@pytest.mark.parametrize("words,message", [
    (["--pixel", "0"], "pixel 0"),
    (["--structure", "nowhere.pdb"], "no such structure"),
    (["--box", "16"], "--box"),
])
def test_wrong_input_is_one_line_and_2(tmp_path, capsys, words, message):
    assert main(["sample", str(tmp_path / "x"), *TINY, *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("cspr sample: error:")
    assert message in error
    assert not (tmp_path / "x").exists()


def test_compare_with_something_else_is_one_line(sample, capsys):
    assert main(["compare", str(sample), str(sample / "particles.star")]) == 2
    assert "truth.star" in capsys.readouterr().err
