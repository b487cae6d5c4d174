"""What all tests share. Tests of the host set its variables here, before it is imported."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")

# The same cases every time, on every machine; a test asks for more with settings of its own.
settings.register_profile("seeded", derandomize=True, database=None)
settings.load_profile("seeded")

REAL_DATA = Path(os.environ.get("CSPR_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")

HOST = ("protocols", "viewers", "wizards")  # folders of the tests of the host, which take longest


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):  # of pytest-xdist 3.7 and later
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list) -> None:
    """Files of the host go first: the longest must not be the last that one of several workers takes up."""
    items.sort(key=lambda item: Path(item.fspath).parent.name not in HOST)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(20240611)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data (docs/architecture.md); the test is skipped where there is none."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data in {REAL_DATA}; CSPR_TEST_DATA names another folder")
    return REAL_DATA


@pytest.fixture(scope="session")
def relion() -> str:
    """Path of relion_project; the test is skipped where RELION is not installed."""
    program = shutil.which("relion_project")
    if program is None:
        pytest.skip("RELION is not installed (no relion_project on the PATH)")
    return program
