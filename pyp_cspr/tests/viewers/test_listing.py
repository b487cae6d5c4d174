"""What the host finds of the windows, in an environment without a display."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
PROGRAM = """
import json
import pyworkflow as pw

domain = pw.Config.getDomain()
assert "pyp_cspr" in domain.getPlugins()
protocols = {name: kind for name, kind in domain.getProtocols().items() if kind.__module__.startswith("pyp_cspr.")}
viewers, wizards = {}, {}
for name, kind in domain.getViewers().items():
    if kind.__module__.startswith("pyp_cspr."):
        viewers[name] = [target.__name__ for target in kind._targets]
for name, kind in domain.getWizards().items():
    if kind.__module__.startswith("pyp_cspr."):
        wizards[name] = [[target.__name__, parameters] for target, parameters in kind._targets]
first = {}
offered = {}
for name, kind in protocols.items():
    protocol = kind()
    first[name] = [one.__name__ for one in domain.findViewers(protocol, "tkinter")]
    offered[name] = sorted(parameter for parameter in domain.findWizards(protocol, "tkinter") if protocol.getParam(parameter))
print("RESULT " + json.dumps([viewers, wizards, first, offered]))
"""


@pytest.fixture(scope="module")
def found(host):
    folder, environment = host
    environment = {name: value for name, value in environment.items() if name != "DISPLAY"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, env=environment,
                          cwd=folder, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == 1, done.stdout[-2000:] + done.stderr[-3000:]
    return json.loads(lines[0][7:])


def test_every_protocol_has_its_viewer(found) -> None:
    viewers, _, first, _ = found
    assert all(name.startswith("PypCspr") for name in viewers)
    assert len(viewers) == len(first)
    for protocol, names in first.items():
        assert names[0] == protocol.replace("ProtPypCspr", "PypCspr") + "Viewer"


def test_all_wizards_are_listed(found) -> None:
    import pyp_cspr.wizards

    _, wizards, _, offered = found
    assert sorted(wizards) == sorted(pyp_cspr.wizards.__all__)
    of_map = ["mapBox", "mapPixel", "mapTiltMax", "mapTiltMin", "maskDiameter"]
    assert offered["ProtPypCsprRefine"] == ["exposureWeighting", *of_map, "maskSource", "particleRadius", "resolution",
                                            "searchResolution", "symmetry"]
    assert offered["ProtPypCsprReconstruct"] == [*of_map, "symmetry"]
    assert offered["ProtPypCsprPostProcess"] == ["maskSource", "resolution"]
    assert offered["ProtPypCsprFilter"] == ["byScore", "distance", "minProjections", "score"]
