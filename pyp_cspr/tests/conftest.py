"""What all tests share. Tests of the host set its variables here, before it is imported."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("MPLBACKEND", "Agg")

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(20240611)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data beside the checkout; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no real data beside the checkout (../shared/data)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def relion() -> str:
    """Path of relion_project; the test is skipped where RELION is not installed."""
    program = shutil.which("relion_project")
    if program is None:
        pytest.skip("RELION is not installed (no relion_project on the PATH)")
    return program
