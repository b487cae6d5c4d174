"""A fresh virtual environment and ``pip install .``: the host finds the plugin and all that is in it, and opens its forms."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pyp_cspr.tests.viewers.conftest import display  # noqa: F401 - a fixture

from .home import ROOT, host_variables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NOT_SHIPPED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "demo-output*")


def call(*words, timeout, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout, check=False,
                          **options)
    if done.returncode and reaches_nothing(done.stderr):
        pytest.skip("pip reaches no packages here: " + done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def reaches_nothing(stderr: str) -> bool:
    """Whether pip says that it had no connection. A version that is not there is another matter: it lists those that are."""
    return "connection broken by" in stderr and not re.search(r"from versions: (?!none)", stderr)


@pytest.mark.parametrize("options, offline", [
    (["--index-url", "http://127.0.0.1:9/simple", "--retries", "1"], True),
    (["--no-index", "--find-links", "."], False),
])
def test_only_a_missing_connection_is_a_reason_to_skip(tmp_path, options, offline) -> None:
    """Asked of pip itself: nobody listens at the address; a folder has another version than the one wanted."""
    (tmp_path / "example-1.0.tar.gz").write_bytes(b"")
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *options, "example==2.0"]
    environment = {name: value for name, value in os.environ.items() if not name.lower().startswith("pip_")}
    environment.update(PIP_CONFIG_FILE=os.devnull, no_proxy="127.0.0.1")
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment, check=False)
    assert done.returncode != 0
    assert "No matching distribution found for example==2.0" in done.stderr
    assert reaches_nothing(done.stderr) == offline


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """(the environment's folder, its variables): nothing of this checkout or of other environments is seen there."""
    folder = tmp_path_factory.mktemp("install")
    hidden = ("SCIPION_", "PYTHON", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SHIPPED)
    call(sys.executable, "-m", "venv", folder / "env", timeout=120, env=environment)
    call(folder / "env" / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
         folder / "source", timeout=450, env=environment, cwd=folder)
    environment.update(host_variables(folder), SCIPION_PYTHON=str(folder / "env" / "bin" / "python"))
    environment.pop("DISPLAY", None)
    yield folder, environment
    shutil.rmtree(folder, ignore_errors=True)


def found_in(installed, **variables):
    folder, environment = installed
    program = Path(__file__).with_name("open_forms.py")
    shutil.copy(program, folder)  # beside nothing of this checkout
    text = call(folder / "env" / "bin" / "python", folder / program.name, folder, timeout=200, cwd=folder,
                env=dict(environment, **variables))
    [line] = [line for line in text.splitlines() if line.startswith("RESULT ")]
    return json.loads(line[7:])


def test_the_host_finds_everything(installed) -> None:
    import pyp_cspr.protocols
    import pyp_cspr.wizards

    found = found_in(installed)
    assert found["package"].startswith(str(installed[0]))
    labelled = [name for name in pyp_cspr.protocols.__all__ if vars(getattr(pyp_cspr.protocols, name)).get("_label")]
    assert found["protocols"] == sorted(labelled)
    assert found["wizards"] == sorted(pyp_cspr.wizards.__all__)
    assert [name.replace("PypCspr", "ProtPypCspr").replace("Viewer", "") for name in found["viewers"]] == found["protocols"]
    assert found["templates"] == ["pyp_cspr-sample_to_map"]
    assert (Path(found["package"]) / "templates" / "hosts_slurm.conf").exists()


def test_the_command_works(installed, tmp_path) -> None:
    folder, environment = installed
    sample = ["--series", "1", "--particles", "4", "--tilts", "3", "--box", "24", "--pixel", "10"]
    call(folder / "env" / "bin" / "cspr", "sample", tmp_path / "data", *sample, timeout=120, env=environment)
    assert (tmp_path / "data" / "optimisation_set.star").exists()


@pytest.mark.needs_x
@pytest.mark.skipif(importlib.util.find_spec("_tkinter") is None, reason="this Python has no tkinter")
def test_every_form_opens(installed, display) -> None:  # noqa: F811
    found = found_in(installed, DISPLAY=display)
    assert sorted(found["forms"]) == found["protocols"]
    for form in found["forms"].values():
        assert form["title"]
        assert len(form["tabs"]) >= 1
        assert min(form["size"]) > 200
    assert found["forms"]["ProtPypCsprRefine"]["tabs"] == ["Input", "What to refine", "Resolution and iterations",
                                                         "Reconstruction", "Selection", "Resources"]
