"""The host's real windows: forms, wizards, viewers; filled in, pressed and looked at by a program on an X server of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyp_cspr.engine.pipeline.store import read_json
from pyp_cspr.viewers import PypCsprRefineViewer

pytestmark = [pytest.mark.slow, pytest.mark.needs_x, pytest.mark.timeout(700)]
PROGRAM = Path(__file__).with_name("run_gui.py")
FEWEST_COLOURS = 20  # of a window with a figure; an empty one has 3


@pytest.fixture(scope="module")
def session(host, display):
    """What was seen; a hung window is killed."""
    folder, environment = host
    browser = folder / "browser.sh"
    browser.write_text(f"#!/bin/sh\necho \"$@\" >> {folder}/browser.txt\n")
    browser.chmod(0o755)
    environment = dict(environment, DISPLAY=display, BROWSER=f"{browser} %s")
    done = subprocess.run([sys.executable, str(PROGRAM), str(folder)], capture_output=True, text=True, timeout=600,
                          env=environment, cwd=folder, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == 1, done.stdout[-3000:] + done.stderr[-5000:]
    seen = json.loads(lines[-1][7:])
    assert seen["errors"] == [], "\n".join(seen["errors"])
    return SimpleNamespace(home=folder, **seen)


def test_wizards_put_their_values_into_the_form(session) -> None:
    wanted = {"symmetry": "C3", "maskDiameter": "200.0", "mapBox": "32", "exposureWeighting": "2",
              "mapTiltMin": "-50.0", "mapTiltMax": "90.0"}
    assert {name: session.form[name] for name in wanted} == wanted
    assert all(drawn for _, drawn in session.wizards.values())
    assert "The reference has it." in session.wizards["symmetry"][0]
    assert "32 voxels of 8 A: 256 A." in session.wizards["mapBox"][0]
    assert "16 of 18 tilt images of 2 series make the map, with 89 % of the dose." in session.wizards["mapTiltMin"][0]


def test_the_form_is_filled_in_and_executed(session) -> None:
    assert session.tree[0] == ".Tomography.Subtomogram averaging.Particle per Tilt.ProtPypCsprRefine"
    assert session.validate == []
    assert session.form["resolution"] == "40 30"
    assert session.status == "finished"
    assert {"average", "coordinates", "ctfs", "fscs", "particles", "tiltSeries"} <= set(session.outputs)
    settings = read_json(Path(session.folder) / "extra" / "refine" / "refine.json")["settings"]
    wanted = {"symmetry": "C3", "mask_diameter": 200.0, "box": 32, "exposure_weighting": "dose", "prior_defocus": 500.0,
              "map_tilt_min": -50.0, "map_tilt_max": 90.0, "resolution": [40.0, 30.0]}
    assert {name: settings[name] for name in wanted} == wanted


def test_the_score_wizard_chooses_a_threshold(session) -> None:
    kind, score = session.filter
    assert kind == 1  # a given threshold
    assert 0 < score < 100
    text = session.wizards["byScore"][0]
    assert re.search(r"[345] of 16 particles \(\d+ %\) score less and are removed\.", text)


def test_the_viewer_follows_the_run(session) -> None:
    assert "has not started yet" in session.early or "is going on" in session.early
    assert session.colours["late"] > session.colours["early"]


def test_every_row_of_the_viewer_shows_something(session) -> None:
    rows = [plot.name for plot in PypCsprRefineViewer._plots]
    assert set(rows) | {"showLog", "of_start", "of_later"} == set(session.plots)
    for name in rows:
        assert session.colours[name] >= FEWEST_COLOURS, name
        assert "Finished after iteration 2: all iterations done." in session.plots[name]
    assert "Nothing is refined at the start" in session.plots["of_start"]
    assert "Iteration 7 is not done." in session.plots["of_later"]
    assert session.plots["showLog"].startswith("Chunk 0 of iteration 2\nTilt series: TS_01\nState: done\n")


def test_the_report_opens_in_the_browser(session) -> None:
    opened = (session.home / "browser.txt").read_text().split()
    assert opened == [(Path(os.path.realpath(session.folder)) / "extra" / "refine" / "report.html").as_uri()] or opened == [
        (Path(session.folder) / "extra" / "refine" / "report.html").as_uri()]
