"""The package as Scipion sees it. Skipped where the host is not installed; the engine does not need it."""

from __future__ import annotations

import configparser
import importlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import pyp_cspr
from pyp_cspr.tests.protocols.home import host_variables

HERE = Path(pyp_cspr.__file__).parent


def test_version_and_the_names_the_host_looks_for():
    assert pyp_cspr.__version__.count(".") == 2
    assert (HERE / pyp_cspr._logo).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = pyp_cspr.Nothing


def test_references_are_in_the_bibliography():
    """The host reads the docstring of bibtex.py, and wants no variable ``_bibtex`` beside it."""
    bibtex = importlib.import_module("pyp_cspr.bibtex")
    assert not hasattr(bibtex, "_bibtex")
    for key in pyp_cspr._references:
        assert f"{{{key}," in bibtex.__doc__


def test_protocols_conf_is_one_that_the_host_reads():
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(HERE / "protocols.conf")
    assert parser.sections() == ["PROTOCOLS"]
    for tree in parser.options("PROTOCOLS"):
        assert tree in ("Tomography", "Protocols SPA")  # another title would make a tree of its own
        json.loads(parser.get("PROTOCOLS", tree))


def test_entry_points_name_the_package_and_the_command():
    try:
        files = metadata.distribution("scipion-em-pyp-cspr").entry_points
    except metadata.PackageNotFoundError:
        pytest.skip("the package is not installed")
    found = {(entry.group, entry.name): entry.value for entry in files}
    assert found["pyworkflow.plugin", "pyp_cspr"] == "pyp_cspr"
    assert found["console_scripts", "cspr"] == "pyp_cspr.engine.cli:command"


@pytest.mark.timeout(120)
def test_the_host_finds_the_plugin(tmp_path):
    """In a process of its own: the host reads its environment when imported."""
    pytest.importorskip("pwem", reason="Scipion's packages are not installed")
    code = (
        "from importlib import metadata\n"
        "try: metadata.distribution('scipion-em-pyp-cspr')\n"
        "except metadata.PackageNotFoundError: raise SystemExit(print('not installed'))\n"
        "import pyworkflow as pw\n"
        "domain = pw.Config.getDomain()\n"
        "plugins = domain.getPlugins()\n"
        "assert 'pyp_cspr' in plugins, sorted(plugins)\n"
        "module = plugins['pyp_cspr']\n"
        "plugin = module._pluginInstance\n"
        "import os\n"
        "assert os.path.samefile(plugin.getPath(), os.path.dirname(module.__file__))\n"
        "assert plugin.getName() == 'pyp_cspr', plugin.getName()\n"
        "assert plugin.validateInstallation() == []\n"
        "assert hasattr(plugin.getEnviron(), 'getPrepend')\n"
        "assert set(module._references) <= set(module._bibtex), dict(module._bibtex)\n"
        "print('found')\n"
    )
    environment = {**os.environ, **host_variables(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.strip() == "not installed":
        pytest.skip("the package is not installed, so the host cannot find it")
    assert done.stdout.split()[-1] == "found", done.stdout
    assert "import properly" not in done.stdout + done.stderr
