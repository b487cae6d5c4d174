"""An X server without a screen, and the host as the tests of the protocols have it."""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import subprocess

import pytest

from pyp_cspr.tests.protocols.conftest import host, pytest_pycollect_makemodule  # noqa: F401 - a fixture and a hook

SCREEN = "1600x1000x24"


@pytest.fixture(scope="session")
def display():
    """The name of a display of an X server that is started for these tests."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    if importlib.util.find_spec("_tkinter") is None:
        pytest.skip("this Python has no tkinter")
    from PIL import features

    if not features.check("xcb"):
        pytest.skip("this Pillow cannot take pictures of an X server (no xcb)")
    reader, writer = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(writer), "-screen", "0", SCREEN, "-nolisten", "tcp"],
                              pass_fds=[writer], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = select.select([stream], [], [], 30)[0]
        number = stream.readline().strip() if said else ""  # empty where the server did not start
    if not number:
        server.kill()
        server.wait(10)
        pytest.skip(f"Xvfb did not start (exit code {server.returncode})")
    yield f":{number}"
    server.terminate()
    server.wait(10)


def pytest_collection_modifyitems(items):
    """Warnings of the host's own code are not ours to mend."""
    for item in items:
        if "tests/viewers" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("default"))
