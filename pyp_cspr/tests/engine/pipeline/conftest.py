"""The sample of modules that make none of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyp_cspr.engine.cli import main


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """Two series of six particles, seven tilts."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    options = ["--series", "2", "--particles", "6", "--tilts", "7", "--box", "32", "--pixel", "8"]
    assert main(["sample", str(folder), *options]) == 0
    return folder
