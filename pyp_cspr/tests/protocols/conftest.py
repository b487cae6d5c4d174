"""The host reads its environment when imported, so it is set here, before any test imports it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

HOME = Path(tempfile.mkdtemp(prefix="scipion-home-"))
ROOT = Path(__file__).resolve().parents[3]
HOSTS = "[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s\n"
(HOME / "hosts.conf").write_text(HOSTS)
os.environ.update(
    SCIPION_HOME=str(HOME),
    SCIPION_USER_DATA=str(HOME / "data"),
    SCIPION_HOSTS=str(HOME / "hosts.conf"),
    SCIPION_DOMAIN="pwem",
    SCIPION_NOTIFY="False",
    SCIPION_TEST_NOSYNC="True",
    SCIPION_PYTHON=sys.executable,
    SCIPION_PRIORITY_PACKAGE_LIST="pwem tomo",
    NO_COLOR="1",
)


def pytest_ignore_collect(collection_path, config):
    """Tests here import the host at once."""
    try:
        import importlib.util

        missing = importlib.util.find_spec("tomo") is None or importlib.util.find_spec("pwem") is None
    except ImportError:
        missing = True
    return True if missing and collection_path.name.startswith("test_") else None


def pytest_collection_modifyitems(items):
    """Warnings of the host's own code are not ours to mend."""
    for item in items:
        if "tests/protocols" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("default"))
