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

import pyp_cspr.viewers
import pyp_cspr.wizards
from pyp_cspr.engine.pipeline.store import read_json
from pyp_cspr.viewers import PypCsprRefineViewer

pytestmark = [pytest.mark.slow, pytest.mark.needs_x, pytest.mark.timeout(700)]
PROGRAM = Path(__file__).with_name("run_every_window.py")
FEWEST_COLOURS = 20  # of a window with a figure; an empty one has 3


@pytest.fixture(scope="module")
def session(host, display):
    """What was seen; a hung window is killed."""
    folder, environment = host
    browser = folder / "browser.sh"
    browser.write_text(f"#!/bin/sh\necho \"$@\" >> {folder}/browser.txt\n")
    browser.chmod(0o755)
    # The host takes a protocol that ends just as it looks for its process, which it does by itself, for one that was killed.
    environment = dict(environment, DISPLAY=display, BROWSER=f"{browser} %s", SCIPION_GUI_CANCEL_AUTO_REFRESH="True")
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
    words = {"symmetry": "The reference has it.", "mapBox": "32 voxels of 8 A: 256 A.",
             "mapTiltMin": "16 of 18 tilt images of 2 series make the map, with 89 % of the dose."}
    for parameter, said in words.items():
        assert said in session.wizards[f"ProtPypCsprRefine.{parameter}"][0]


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
    assert re.search(r"[345] of 16 particles \(\d+ %\) score less and are removed\.", session.score_wizard)


def test_the_viewer_follows_the_run(session) -> None:
    # that it is between two iterations, a plan is being made
    assert any(words in session.early for words in ("has not started yet", "is going on", " is done."))
    assert session.colours["late"] > session.colours["early"]


def test_every_row_of_the_viewer_shows_something(session) -> None:
    rows = [plot.name for plot in PypCsprRefineViewer._plots]
    assert set(rows) | {"showLog", "of_start", "of_later"} == {name for name in session.plots if "." not in name}
    for name in rows:
        assert session.colours[name] >= FEWEST_COLOURS, name
        assert "Finished after iteration 2: all iterations done." in session.plots[name]
    assert "Nothing is refined at the start" in session.plots["of_start"]
    assert "Iteration 7 is not done." in session.plots["of_later"]
    assert session.plots["showLog"].startswith("Chunk 0 of iteration 2\nTilt series: TS_01\nState: done\n")


@pytest.mark.parametrize("wizard", pyp_cspr.wizards.__all__)
def test_every_wizard_opens_on_every_field(session, wizard) -> None:
    for target, parameters in getattr(pyp_cspr.wizards, wizard)._targets:
        for parameter in parameters:
            text, drawn = session.wizards[f"{target.__name__}.{parameter}"]
            assert drawn, text
            assert session.colours[f"{target.__name__}.{parameter}"] >= FEWEST_COLOURS


def test_values_chosen_in_every_form(session) -> None:
    """By wizards that show a map where the form has none: that of the refinement before the filter."""
    wanted = {
        "ProtPypCsprFilter": {"byScore": "1", "score": "0.4", "distance": "3.0", "minProjections": "2"},
        "ProtPypCsprReconstruct": {"symmetry": "C3", "maskDiameter": "190.0", "mapPixel": "9.0", "mapBox": "30",
                                   "mapTiltMin": "-50.0", "mapTiltMax": "40.0"},
        "ProtPypCsprPostProcess": {"maskSource": "1", "resolution": "33.3"},
        "ProtPypCsprRefine": {"particleRadius": "77.0", "resolution": "31.5", "searchResolution": "45.5", "mapPixel": "8.5",
                              "mapTiltMax": "45.0"},
    }
    assert session.values == wanted


@pytest.mark.parametrize("viewer", [name for name in pyp_cspr.viewers.__all__ if name != "PypCsprRefineViewer"])
def test_every_row_of_every_other_viewer_shows_something(session, viewer) -> None:
    name = viewer.replace("PypCspr", "ProtPypCspr").replace("Viewer", "")
    for plot in getattr(pyp_cspr.viewers, viewer)._plots:
        assert f"{name}.{plot.name}" in session.plots
        assert session.colours[f"{name}.{plot.name}"] >= FEWEST_COLOURS, session.plots[f"{name}.{plot.name}"]


def test_a_window_that_fails_once_goes_on_looking(session) -> None:
    assert len(session.raised) == 1
    assert session.looks > 5


def test_the_report_opens_in_the_browser(session) -> None:
    opened = (session.home / "browser.txt").read_text().split()
    assert opened == [(Path(os.path.realpath(session.folder)) / "extra" / "refine" / "report.html").as_uri()] or opened == [
        (Path(session.folder) / "extra" / "refine" / "report.html").as_uri()]
