"""Settings of the map from a file and from options."""

from __future__ import annotations

import argparse

import pytest

from pyp_cspr.engine.cli import plan, reconstruct
from pyp_cspr.engine.cli.options import settings_of
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.model.settings import ReconstructSettings


def parsed(command, *words):
    parser = argparse.ArgumentParser()
    command.add_args(parser)
    return settings_of(parser.parse_args(["data", "--out", "run", *words]))


@pytest.mark.parametrize("command", [plan, reconstruct])
def test_options_stand_above_the_file_and_the_file_above_the_defaults(command, tmp_path) -> None:
    assert parsed(command) == ReconstructSettings()
    path = tmp_path / "settings.toml"
    path.write_text('symmetry = "C3"\npadding = 2.0\nmap_tilt_max = 40.0\ndose_weighting = false\n')
    of_file = ReconstructSettings(symmetry="C3", padding=2.0, map_tilt_max=40.0, dose_weighting=False)
    assert parsed(command, "--settings", str(path)) == of_file
    # also where an option says the default
    wanted = ReconstructSettings(symmetry="C3", padding=1.5, map_tilt_max=40.0, dose_weighting=False, box=64)
    assert parsed(command, "--settings", str(path), "--padding", "1.5", "--box", "64") == wanted
    assert parsed(command, "--no-dose-weighting") == ReconstructSettings(dose_weighting=False)


def test_a_wrong_file_is_named(tmp_path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("prior_shift = 3.0\n")
    with pytest.raises(InputError, match=r"settings\.toml: unknown setting 'prior_shift'"):
        parsed(reconstruct, "--settings", str(path))
