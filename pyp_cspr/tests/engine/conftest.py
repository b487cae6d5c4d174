"""A small sample data set, made once per session by the public command."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyp_cspr.engine.cli import main

SMALL = ["--series", "3", "--particles", "12", "--tilts", "9", "--box", "32", "--pixel", "8", "--seed", "3"]


@pytest.fixture(scope="session")
def small_sample(tmp_path_factory) -> Path:
    """Three noisy series of 12 hexons, 9 tilts, at 8 A."""
    folder = tmp_path_factory.mktemp("sample") / "small"
    assert main(["sample", str(folder), *SMALL]) == 0
    return folder
