"""The host reads its environment when imported, so it is set here, before any test imports it."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

HOME = Path(tempfile.mkdtemp(prefix="scipion-home-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
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


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """(folder, environment) for programs of the host: the plugin is found even where this is only a checkout."""
    folder = tmp_path_factory.mktemp("host")
    metadata = folder / "metadata" / "scipion_em_pyp_cspr-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: scipion-em-pyp-cspr\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[pyworkflow.plugin]\npyp_cspr = pyp_cspr\n")
    (folder / "hosts.conf").write_text(HOSTS)
    environment = dict(os.environ, SCIPION_HOME=str(folder), SCIPION_USER_DATA=str(folder / "data"),
                       SCIPION_HOSTS=str(folder / "hosts.conf"), PYTHONPATH=os.pathsep.join([str(ROOT), str(metadata.parent)]))
    return folder, environment


@pytest.fixture
def slurm():
    """A SLURM of its own."""
    from .slurm import running

    with running() as made:
        yield made


class WithoutHost(pytest.Module):
    """A file of tests that import the host at once, where it is not installed."""

    def collect(self):
        pytest.skip("Scipion's packages pwem and tomo are not installed", allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    """Such files are skipped, and listed with the reason."""
    if all(importlib.util.find_spec(name) for name in ("pwem", "tomo")):
        return None
    return WithoutHost.from_parent(parent, path=module_path)


# Of the host's own code, on import; every other warning is an error here as well.
HOST_WARNINGS = (
    "ignore:Please use `gaussian_filter` from the `scipy.ndimage` namespace:DeprecationWarning",  # pwem's plotter
)


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/protocols" in str(item.path):
            for warning in HOST_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))
