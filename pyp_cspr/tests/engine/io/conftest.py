"""Projects that tests damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyp_cspr.engine.io.relion import write_dataset

from .projects import make_dataset


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder with a data set of raw images."""
    write_dataset(make_dataset(tmp_path), tmp_path)
    return tmp_path
