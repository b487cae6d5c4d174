"""The workflow that comes with the package, without windows, against the engine's commands one after the other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.pipeline.store import read_rows
from pyp_cspr.workflow import in_order, read_workflow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
FIELDS = ["particles=8", "tilts=9", "box=32", "pixel=8", "iterations=1"]


def run(environment, *words, timeout=300):
    done = subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True, timeout=timeout,
                          env=environment, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def project(host, environment):
    """(folders of the runs by name, what was printed, environment)"""
    folder = host[0]
    text = run(environment, "pyp_cspr.workflow", folder / "out", *FIELDS, timeout=400)
    runs = sorted((folder / "out" / "projects" / "cspr" / "Runs").iterdir())
    names = ("sample", "refine", "filter", "again", "postprocess")
    assert len(runs) == len(names)
    return dict(zip(names, runs)), text, environment


def test_the_numbers_of_the_commands(project, tmp_path) -> None:
    runs, _, environment = project
    data, first, kept, second = runs["sample"] / "extra" / "data", tmp_path / "first", tmp_path / "kept", tmp_path / "second"
    machine = ["--symmetry", "C3", "--iterations", "1", "--processes", "1", "--threads", "1", "--no-report"]
    run(environment, "pyp_cspr.engine.cli", "refine", data, "--reference", data / "reference.mrc", "--out", first, *machine)
    rules = ["--score", "auto", "--distance", "60", "--min-projections", "5"]
    run(environment, "pyp_cspr.engine.cli", "filter", first, "--out", kept, *rules)
    halves = ["--halves", first / "half1.mrc", first / "half2.mrc"]
    run(environment, "pyp_cspr.engine.cli", "refine", kept, "--reference", first / "map.mrc", "--out", second, *halves,
        "--set", "prior_rotation=10", "--set", "prior_position=10", *machine)
    final = [second / "half1.mrc", second / "half2.mrc", "--out", tmp_path / "map"]
    run(environment, "pyp_cspr.engine.cli", "postprocess", *final)

    for name, folder, tolerance in (("refine", first, 1e-6), ("again", second, 1e-4)):
        mine = runs[name] / "extra" / "refine"
        one, other = read_rows(folder / "result.npz"), read_rows(mine / "result.npz")
        for column in ("position", "rotation", "score"):
            np.testing.assert_allclose(other.particles[column], one.particles[column], rtol=tolerance, atol=tolerance)
        for column in ("shift", "rotation"):
            np.testing.assert_allclose(other.exposures[column], one.exposures[column], rtol=tolerance, atol=tolerance)
        for half in ("half1", "half2"):
            wanted = read_map(folder / f"{half}.mrc")[0]
            assert np.abs(read_map(mine / f"{half}.mrc")[0] - wanted).max() < tolerance * np.abs(wanted).max()
    assert len(read_dataset(runs["filter"] / "extra" / "filter").particles) == len(read_dataset(kept).particles)
    wanted = read_map(tmp_path / "map" / "map_sharpened.mrc")[0]
    found = read_map(runs["postprocess"] / "extra" / "postprocess" / "map_sharpened.mrc")[0]
    assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_it_says_where_everything_is_and_goes_on(project) -> None:
    runs, text, environment = project
    for words in ("sample (", "refine again (", "post-process   sharpened", "map_sharpened.mrc"):
        assert words in text
    folder = runs["sample"].parents[3]
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mrc")}
    for fields in ([], FIELDS):
        again = run(environment, "pyp_cspr.workflow", folder, *fields)
        assert again.splitlines()[-1] == text.splitlines()[-1]
    assert "another workflow or other values" in refused(environment, folder, *FIELDS[:-1], "iterations=9")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.mrc")} == times


def refused(environment, *words) -> str:
    """What the program says on standard error as it ends with an error."""
    line = [sys.executable, "-m", "pyp_cspr.workflow", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def environment(host):
    variables = {name: value for name, value in host[1].items() if not name.startswith("SCIPION_")}
    return dict(variables, CSPR_TEST_NO_REPORT="1")


def test_an_unknown_field_is_named(environment, tmp_path) -> None:
    assert "colour: the workflow has no such field; it has box, " in refused(environment, tmp_path, "colour=red")
    assert "box=red: " in refused(environment, tmp_path, "box=red")
    assert not (tmp_path / "projects" / "cspr").exists()


TINY = {"object.className": "ProtPypCsprSample", "object.id": "1", "object.label": "made", "nSeries": 1, "nParticles": 3,
        "nTilts": 3, "boxSize": 16, "pixelSize": 16.0}
KEPT = {"object.className": "ProtPypCsprFilter", "object.id": "2", "object.label": "kept", "inputParticles": "1.subTomograms",
        "inputTiltSeries": "1.tiltSeries", "inputCTFs": "1.ctfs", "byScore": 2, "minProjections": 1}


def test_only_a_whole_workflow_makes_a_project_and_other_values_are_refused(environment, tmp_path) -> None:
    """One folder: a damaged workflow, a good one whose protocols come in the wrong order, the first with a number for its
    identifier and the last without a label, then others."""
    folder, workflow = tmp_path / "out", tmp_path / "workflow.json"
    workflow.write_text(json.dumps([KEPT, TINY])[:-9])
    assert f"{workflow}: is no workflow" in refused(environment, folder, "--template", workflow)
    assert not (folder / "projects" / "cspr").exists()

    unnamed = {name: value for name, value in TINY.items() if name != "object.label"}
    workflow.write_text(json.dumps([dict(KEPT, **{"object.id": "7"}), dict(TINY, **{"object.id": 1}),
                                    dict(unnamed, **{"object.id": "8", "_prerequisites": ["7"]})]))
    text = run(environment, "pyp_cspr.workflow", folder, "--template", workflow)
    assert re.findall(r"^(.+) \(\d+ s\)$", text, re.M) == ["made", "kept", "pyp_cspr - sample data"]
    assert "3 of 3 particles are left." in text
    assert json.loads((folder / "workflow.json").read_text()) == json.loads(workflow.read_text())

    assert run(environment, "pyp_cspr.workflow", folder).splitlines()[-1] == text.splitlines()[-1]
    workflow.write_text(json.dumps([TINY]))
    assert "another workflow or other values" in refused(environment, folder, "--template", workflow)


@pytest.mark.parametrize("entry, words", [
    (dict(KEPT, inputParticles=5), "cannot be loaded: AttributeError"),
    (dict(KEPT, byScore=9), "Filter by score?: 9 is none of its choices, 0 to 2."),
])
def test_odd_values_are_told_in_one_line(environment, tmp_path, entry, words) -> None:
    workflow = tmp_path / "workflow.json"
    workflow.write_text(json.dumps([entry]))
    assert words in refused(environment, tmp_path / "out", "--template", workflow).splitlines()[-1]


@pytest.mark.parametrize("text, message", [
    ("[]", "holds no protocols"), ('{"a": 1}', "holds no protocols"), ('[{"object.id": "1"}]', "holds no protocols"),
    ("[\n {", "is no workflow: "), ("[\n {50 %\n]", "no template: ValueError"), ('[ "~Title|1~ ]', "no template: TypeError"),
    ('[{"object.id": "1", "object.className": "ProtOfNobody"}]', "no installed plugin has ProtOfNobody"),
    (None, "cannot be read"),
])
def test_files_that_hold_no_workflow(tmp_path, text, message) -> None:
    file = tmp_path / "given.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit, match=message) as stopped:
        read_workflow(file, {})
    assert str(stopped.value).startswith(str(file))


def test_signs_of_templates_are_plain_text_in_a_workflow(tmp_path) -> None:
    """What Scipion has exported may hold the signs that templates take for fields and variables."""
    entries = [{"object.className": "ProtUserSubSet", "object.id": "1", "object.comment": "~50 % of them"}]
    file = tmp_path / "exported.json"
    file.write_text(json.dumps(entries))
    assert read_workflow(file, {}) == entries
    with pytest.raises(SystemExit, match=r"box: the workflow .* has no fields"):
        read_workflow(file, {"box": "32"})


def test_protocols_that_wait_for_each_other_are_named() -> None:
    nodes = [SimpleNamespace(run=None, getParents=lambda: [])]
    for number in (2, 1):
        one = SimpleNamespace(getObjId=lambda number=number: number, getPrerequisites=lambda number=number: [str(3 - number)],
                              getObjLabel=lambda number=number: f"run {number}")
        nodes.append(SimpleNamespace(run=one, getParents=lambda: []))
    graph = SimpleNamespace(getNodes=lambda: nodes)
    project = SimpleNamespace(path="here", getRunsGraph=lambda refresh: graph)
    with pytest.raises(SystemExit, match="run 2, run 1: wait for each other"):
        in_order(project)
    del nodes[1:]
    with pytest.raises(SystemExit, match="here: has no protocols"):
        in_order(project)
