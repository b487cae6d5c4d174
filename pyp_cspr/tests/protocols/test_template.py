"""The workflow that comes with the package, without windows, against the engine's commands one after the other."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.pipeline.store import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
FIELDS = ["particles=8", "tilts=9", "box=32", "pixel=8", "iterations=1"]


def run(environment, *words, timeout=300):
    done = subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True, timeout=timeout,
                          env=environment, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def project(host):
    """(folders of the runs by name, what was printed, environment)"""
    folder, environment = host
    environment = {name: value for name, value in environment.items() if not name.startswith("SCIPION_")}
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
    again = run(environment, "pyp_cspr.workflow", folder)
    assert again.splitlines()[-1] == text.splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.mrc")} == times


def test_an_unknown_field_is_named(host, tmp_path) -> None:
    environment = {name: value for name, value in host[1].items() if not name.startswith("SCIPION_")}
    for words, message in ((["colour=red"], "colour: the workflow has no such field; it has box, "),
                           (["box=red"], "box=red: ")):
        line = [sys.executable, "-m", "pyp_cspr.workflow", str(tmp_path), *words]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment, check=False)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
