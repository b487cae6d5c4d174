"""Protocols and converters that nobody here wrote take what *refine tilt series* leaves, in a project of the host."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.io.star import read_star
from pyp_cspr.engine.pipeline.store import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(750)]
RELION_PLUGINS = all(importlib.util.find_spec(name) for name in ("reliontomo", "relion", "imod"))
needs_reliontomo = pytest.mark.skipif(not RELION_PLUGINS, reason="the plugins scipion-em-reliontomo, scipion-em-relion and "
                                                                 "scipion-em-imod are not installed")


@pytest.fixture(scope="module")
def chained(host, tmp_path_factory):
    _, environment = host
    folder = tmp_path_factory.mktemp("chaining")
    environment = dict(environment, SCIPION_USER_DATA=str(folder / "data"), CSPR_TEST_NO_REPORT="1")
    line = [sys.executable, str(Path(__file__).with_name("run_chaining.py")), str(folder)] + ["relion"] * RELION_PLUGINS
    done = subprocess.run(line, capture_output=True, text=True, timeout=700, env=environment, cwd=folder, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-3000:] + done.stderr[-5000:]
    found = json.loads(lines[-1][7:])
    with np.load(folder / "chained.npz") as arrays:
        numbers = dict(arrays)
    result = read_rows(Path(found["refine"]) / "extra" / "refine" / "result.npz")
    return SimpleNamespace(numbers=numbers, result=result, **found)


def test_our_own_outputs_are_refined_again(chained) -> None:
    """From its particles, series, CTFs and average, each half-set from its own half map."""
    folder = Path(chained.again) / "extra"
    again = read_rows(folder / "refine" / "result.npz")
    np.testing.assert_array_equal(again.particles["half"], chained.result.particles["half"])
    plan = json.loads((folder / "refine" / "refine.json").read_text())
    assert len(plan["halves"]) == 2
    for number in (1, 2):
        half, pixel = read_map(folder / f"half{number}.mrc")
        before, same = read_map(Path(chained.refine) / "extra" / "refine" / f"half{number}.mrc")
        assert pixel == same
        np.testing.assert_allclose(half, before, atol=1e-6)
    # it starts where the first one ended
    start = read_dataset(folder / "data")
    for name in ("position", "rotation"):
        np.testing.assert_allclose(start.particles[name], chained.result.particles[name], atol=1e-6)
    for name in ("shift", "rotation", "defocus"):
        np.testing.assert_allclose(start.exposures[name], chained.result.exposures[name], atol=1e-6)


def test_tomo_projects_our_coordinates_onto_our_landmarks(chained) -> None:
    """*project coordinates*, which finds the refined tilt series by the relations that we define."""
    ours, theirs = ({tuple(row[:3]): row[3:] for row in chained.numbers[name]} for name in ("ours", "theirs"))
    assert len(ours) == len(theirs) == 2 * 8 * 9
    for key, place in ours.items():
        np.testing.assert_allclose(place, theirs[key], atol=1e-3)
    # that the series are the refined ones: with those of the sample they would fall elsewhere
    assert np.abs(chained.numbers["refined"] - chained.numbers["given"]).max() > 0.1


def test_tomo_finds_the_refined_series_of_our_particles_and_coordinates(chained) -> None:
    """Of the filtered ones as well, by the relations that we define."""
    assert chained.related == dict.fromkeys(
        ("refine.particles", "refine.coordinates", "filter.particles", "filter.coordinates"), chained.series)


def test_tomo_takes_coordinates_from_our_particles(chained) -> None:
    """*extract 3D coordinates* keeps the picked place, and the shift in its matrix: together they are the refined centre."""
    numbers, (pixel, theirs) = chained.numbers, chained.pixels
    matrices = numbers["extracted matrices"]
    centre = theirs * (numbers["extracted"] + np.linalg.inv(matrices)[:, :3, 3])
    np.testing.assert_allclose(centre, chained.result.particles["position"], atol=1e-4)
    np.testing.assert_allclose(numbers["coordinates"] * pixel, chained.result.particles["position"], atol=1e-4)
    rotation = chained.result.particles["rotation"].transpose(0, 2, 1)
    np.testing.assert_allclose(matrices[:, :3, :3], rotation, atol=1e-6)
    np.testing.assert_allclose(numbers["coordinate matrices"][:, :3, :3], rotation, atol=1e-6)


def test_tomo_assigns_our_alignment_to_other_series(chained) -> None:
    np.testing.assert_allclose(chained.numbers["assigned"], chained.numbers["refined"], atol=1e-6)


def test_tomo_splits_our_particles(chained) -> None:
    assert chained.split == [8, 8]


@pytest.mark.needs_relion
@pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="RELION is not installed (Debian: relion)")
def test_relion_finds_the_resolution_of_our_half_maps(chained, tmp_path) -> None:
    line = ["relion_postprocess", "--i", chained.halves[0], "--i2", chained.halves[1], "--mask", chained.mask, "--angpix", "8",
            "--adhoc_bfac", "0", "--o", str(tmp_path / "post")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    theirs = float(re.search(r"FINAL RESOLUTION:\s*([0-9.]+)", done.stdout).group(1))
    ours = float(re.search(r": ([0-9.]+) A", chained.summary[0]).group(1))
    assert 32 * 8.0 / ours == pytest.approx(32 * 8.0 / theirs, abs=1.0)  # they do not interpolate between shells


@needs_reliontomo
def test_reliontomo_writes_stars_of_our_sets_that_agree_with_ours(chained, tmp_path, monkeypatch) -> None:
    folder = Path(chained.stars)
    tomograms = read_star(folder / "tomograms.star")["global"]
    for name, star in zip(tomograms.texts("rlnTomoName"), tomograms.texts("rlnTomoTiltSeriesStarFile")):
        theirs = read_star(star)[name]
        ours = read_star(Path(chained.refine) / "extra" / "refine" / "tilt_series" / f"{name}.star")[name]
        assert len(theirs) == len(ours) == 9
        for label in ("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst", "rlnDefocusU",
                      "rlnDefocusV", "rlnDefocusAngle", "rlnMicrographPreExposure"):
            np.testing.assert_allclose(theirs.floats(label), ours.floats(label), rtol=1e-6, atol=1e-4, err_msg=label)
    star = tmp_path / "optimisation_set.star"
    star.write_text(f"data_\n\n_rlnTomoParticlesFile {folder / 'inParticles.star'}\n"
                    f"_rlnTomoTomogramsFile {folder / 'tomograms.star'}\n")
    monkeypatch.chdir(Path(chained.refine).parents[1])  # the project's folder, from which its paths count
    read = read_dataset(star)
    for name in ("position", "rotation"):
        np.testing.assert_allclose(read.particles[name], chained.result.particles[name], atol=1e-4, err_msg=name)
    for series in range(2):
        u, depth = read.project(series)
        wanted, wanted_depth = chained.result.project(series)
        np.testing.assert_allclose(u, wanted, atol=1e-3)
        np.testing.assert_allclose(depth, wanted_depth, atol=1e-3)


@needs_reliontomo
def test_relions_particles_are_refined_as_sub_tomograms_are(chained) -> None:
    """The same particles as stars of RELION 5, through reliontomo's set: the same numbers, the same class, stars again."""
    assert getattr(chained, "class") == "RelionSetOfPseudoSubtomograms"
    assert chained.notes[0] == "16 particles, 144 projections of 2 tilt series."
    stars = read_dataset(chained.star)
    for name in ("position", "rotation", "half", "score"):
        np.testing.assert_allclose(chained.numbers[f"relion.{name}"], chained.result.particles[name], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(stars.particles[name], chained.result.particles[name], atol=1e-5, err_msg=name)
    for name in ("rotation", "shift", "defocus"):
        np.testing.assert_allclose(stars.exposures[name], chained.result.exposures[name], atol=1e-6, err_msg=name)
