"""The host reads its environment when imported, so it is set here, before any test imports it."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from .home import host_variables, plugin_path

HOME = Path(tempfile.mkdtemp(prefix="scipion-home-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ.update(host_variables(HOME))


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """(folder, environment) for programs of the host: the plugin is found even where this is only a checkout."""
    folder = tmp_path_factory.mktemp("host")
    environment = dict(os.environ, **host_variables(folder), PYTHONPATH=plugin_path(folder))
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
