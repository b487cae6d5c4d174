"""`cspr chunk --debug`: tables say what the geometry says, sheets see a wrong sign, and the chunk's result is the same."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Dict, List

import numpy as np
import pytest
from PIL import Image

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.geometry import euler_to_matrix
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.io.mrc import read_map, write_map
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.model.settings import ReconstructSettings
from pyp_cspr.engine.pipeline.check import with_signs
from pyp_cspr.engine.pipeline.debug_views import SeriesView, Setup
from pyp_cspr.engine.pipeline.plan import map_grid
from pyp_cspr.engine.pipeline.refine_series import refinement_grid
from pyp_cspr.engine.pipeline.store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
SIGNS = ("as given", "tilt angles negated", "pose transposed", "pose mirrored", "psi negated", "contrast inverted")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data set with little noise, so that single particles say something."""
    folder = tmp_path_factory.mktemp("debug") / "data"
    options = ["--series", "1", "--particles", "12", "--tilts", "11", "--box", "32", "--pixel", "8", "--seed", "3"]
    assert main(["sample", str(folder), *options]) == 0
    return folder


def debug(data: Path, work: Path, reference: Path, *options: str) -> int:
    """Plan ``data`` in work/run and show its only chunk in work/debug."""
    assert main(["plan", str(data), "--out", str(work / "run")]) == 0
    return main(["chunk", str(work / "run" / "tasks" / "0000.json"), "--debug", str(work / "debug"), "--threads", "1",
                 "--reference", str(reference), *options])


def table(path: Path) -> List[Dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def mean_scores(work: Path) -> Dict[str, float]:
    rows = table(work / "debug" / "start" / "scores.csv")
    return {name: float(np.mean([float(row[name]) for row in rows])) for name in rows[0] if name not in ("particle", "series")}


@pytest.fixture(scope="module")
def right(data, tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("right")
    assert debug(data, work, data / "reference.mrc", "--particles", "4", "--json") == 0
    return work


def test_the_table_says_where_and_how_each_projection_was_seen(data, right) -> None:
    dataset = read_dataset(data)
    u, depth = dataset.project(0)
    order = np.argsort([float(x) for x in dataset.exposures["dose_before"]])
    name = str(dataset.particles["name"][0])
    rows = table(right / "debug" / "start" / (name.replace("/", "_") + ".csv"))
    assert len(rows) == int(dataset.used(0)[0].sum())
    assert [float(row["tilt"]) for row in rows] == sorted(float(row["tilt"]) for row in rows)
    for row in rows:
        e = int(np.flatnonzero(dataset.exposures["slice"] == int(float(row["slice"])))[0])
        np.testing.assert_allclose([float(row["x"]), float(row["y"])], u[0, e], rtol=1e-5, atol=1e-3)
        assert float(row["depth"]) == pytest.approx(depth[0, e], rel=1e-5, abs=1e-3)
        pixel = dataset.series["pixel"][0]
        np.testing.assert_allclose([float(row["crop_x"]), float(row["crop_y"])], np.rint(u[0, e] / pixel) * pixel, atol=1e-3)
        view = euler_to_matrix(*[float(row[label]) for label in ("rot", "tilt_of_view", "psi")])
        np.testing.assert_allclose(view, dataset.exposures["rotation"][e] @ dataset.particles["rotation"][0], atol=1e-6)
        defocus = dataset.exposures["defocus"][e, :2].mean() + dataset.series["hand"][0] * depth[0, e]
        assert 0.5 * (float(row["defocus_u"]) + float(row["defocus_v"])) == pytest.approx(defocus, rel=1e-5)
        assert float(row["dose"]) == pytest.approx(dataset.exposures["dose_before"][order[int(float(row["order"]))]])


def test_right_signs_have_the_best_score_and_a_peak_in_the_middle(right) -> None:
    scores = mean_scores(right)
    assert max(scores, key=lambda name: scores[name]) in ("as given", "defocus hand reversed")  # at 8 A the hand hardly matters
    for name in SIGNS[1:]:
        assert scores["as given"] > 1.3 * scores[name], name
    for path in (right / "debug" / "start").glob("*_[0-9]*.csv"):
        peaks = np.array([[float(row["peak_x"]), float(row["peak_y"])] for row in table(path) if float(row["peak"]) > 5])
        assert len(peaks) >= 4
        assert (np.abs(peaks) <= 8.0).all(axis=1).mean() > 0.7  # a pixel


@pytest.mark.parametrize("change, cause", [("tilt", "tilt angles negated"), ("contrast", "contrast inverted"),
                                           ("pose", "pose transposed"), ("hand", "pose mirrored")])
def test_a_wrong_sign_is_named(data, tmp_path, capsys, change, cause) -> None:
    dataset = read_dataset(data)
    if change == "tilt":
        dataset = with_signs(dataset, -1, 1)
    elif change == "contrast":
        dataset.series["contrast"] = -dataset.series["contrast"]
    elif change == "pose":
        dataset.particles["rotation"] = np.swapaxes(dataset.particles["rotation"], 1, 2).copy()
    else:
        mirror = np.diag([1.0, 1.0, -1.0])
        dataset.particles["rotation"] = mirror @ dataset.particles["rotation"] @ mirror
    write_dataset(dataset, tmp_path / "wrong")
    assert debug(tmp_path / "wrong", tmp_path, data / "reference.mrc", "--particles", "2") == 0
    scores = mean_scores(tmp_path)
    assert max(scores, key=lambda name: scores[name]) == cause
    assert scores[cause] > 2.0 * scores["as given"]  # the wrong poses do not get to choose the weights
    said = capsys.readouterr().err
    assert ("the contrast is inverted" if change == "contrast" else f"with {cause}") in said


def test_a_shift_shows_as_a_displaced_peak(data, tmp_path, capsys) -> None:
    """All exposures moved by (40, -24) A: the particle is seen at minus that from where it is said to be."""
    dataset = read_dataset(data)
    dataset.exposures["shift"] = dataset.exposures["shift"] + np.array([40.0, -24.0])
    write_dataset(dataset, tmp_path / "moved")
    assert debug(tmp_path / "moved", tmp_path, data / "reference.mrc", "--particles", "2") == 0
    peaks = [[float(row["peak_x"]), float(row["peak_y"])] for path in (tmp_path / "debug" / "start").glob("*_[0-9]*.csv")
             for row in table(path) if float(row["peak"]) > 6]
    np.testing.assert_allclose(np.median(peaks, axis=0), [-40.0, 24.0], atol=8.0)
    assert "Å away from the middle" in capsys.readouterr().err


def test_the_sheets_are_pictures_that_are_not_empty(right) -> None:
    pictures = sorted((right / "debug" / "start").glob("*.png"))
    assert len(pictures) == 5  # four particles and their series
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.width > 800
            assert np.asarray(picture.convert("L"), dtype=float).std() > 8


def test_the_result_of_the_chunk_is_that_of_a_run_without(data, right, tmp_path) -> None:
    assert main(["plan", str(data), "--out", str(tmp_path / "run")]) == 0
    assert main(["chunk", str(tmp_path / "run" / "tasks" / "0000.json"), "--threads", "1"]) == 0
    one, two = (folder / "run" / "chunks" / "0000" / "half1.sums" for folder in (tmp_path, right))
    assert one.read_bytes() == two.read_bytes()
    assert RunStore(right / "run").unfinished() == []


def test_what_is_shown_is_magnified_as_what_is_computed(data) -> None:
    """The reference's slices in the pictures give the sums that the refinement computes."""
    dataset = read_dataset(data)
    dataset.assign_halves()
    dataset.exposures["magnification"] = np.linspace(0.95, 1.05, len(dataset.exposures))
    settings = ReconstructSettings()
    grid = refinement_grid(map_grid(dataset, settings), 18.0)
    reference = Reference(read_map(data / "reference.mrc")[0], 1.5, grid.box // 2 - 1)
    view = SeriesView(Setup(dataset, [reference], settings, grid, 1, 2**30), 0)
    model, c = view.model, view.model.projections
    rows = np.arange(len(model))
    orientations, shifts = view.geometry.orientations()[c.particle, c.exposure], view.geometry.centres()[c.particle, c.exposure]
    ctf = np.ones((len(rows), len(model.band)))
    expected = view._expected(model, rows, orientations, shifts - c.centre, ctf, view.impartial)
    model.premultiplied = True  # then the first of the sums leaves the CTF out, as here
    found = np.zeros((len(model.exposures), model.shells))
    for row, e in enumerate(c.exposure):
        one = (model.coefficients(rows[row : row + 1])[0] * expected[row].conj()).real
        found[e] += np.bincount(model.band.shell, one, model.shells)
    np.testing.assert_allclose(found, model.shell_sums(view.geometry).match * view.impartial.amplitude,
                               atol=1e-4 * np.abs(found).max())


def test_the_result_of_a_task_that_refines_magnifications_is_the_same(data, tmp_path, capsys) -> None:
    rows = {}
    for name in ("with", "without"):
        command = ["refine", str(data), "--reference", str(data / "reference.mrc"), "--out", str(tmp_path / name),
                   "--iterations", "1", "--resolution", "24", "--chunks-elsewhere", "--no-report", "--json",
                   "--set", "prior_magnification=1"]
        for options in ([], ["--debug", str(tmp_path / "debug"), "--particles", "1"] if name == "with" else []):
            capsys.readouterr()
            assert main(command) == 0
            (task,) = json.loads(capsys.readouterr().out)["tasks"]
            assert main(["chunk", task, "--threads", "1", *options]) == 0
        with np.load(tmp_path / name / "iterations" / "001" / "chunks" / "0000" / "rows.npz") as arrays:
            rows[name] = {part: arrays[part] for part in ("particles.rotation", "exposures.magnification")}
    for part in rows["with"]:
        np.testing.assert_array_equal(rows["with"][part], rows["without"][part])


def test_a_task_that_refines_is_shown_before_and_after(data, tmp_path, capsys) -> None:
    command = ["refine", str(data), "--reference", str(data / "reference.mrc"), "--out", str(tmp_path / "run"), "--iterations",
               "1", "--resolution", "30", "--chunks-elsewhere", "--no-report", "--json"]
    assert main(command) == 0
    for task in json.loads(capsys.readouterr().out)["tasks"]:
        assert main(["chunk", task, "--threads", "1"]) == 0
    capsys.readouterr()
    assert main(command) == 0
    (task,) = json.loads(capsys.readouterr().out)["tasks"]
    assert main(["chunk", task, "--threads", "1", "--debug", str(tmp_path / "debug"), "--particles", "1", "--json"]) == 0
    shown = capsys.readouterr()
    assert {Path(file).parent.name for file in json.loads(shown.out)["files"]} == {"start", "refined"}
    assert "refines and reconstructs" in shown.err
    assert "cost" in shown.err
    assert main(["chunk", task, "--threads", "1", "--json"]) == 0  # done already
    assert json.loads(capsys.readouterr().out)["journal"]["n_projections"] > 0


def test_what_cannot_be_shown_is_said_in_one_line(data, tmp_path, capsys) -> None:
    assert debug(data, tmp_path, data / "reference.mrc", "--particles", "nobody") == 2
    assert "'nobody' is not in this chunk" in capsys.readouterr().err
    task = str(tmp_path / "run" / "tasks" / "0000.json")
    assert main(["chunk", task, "--debug", str(tmp_path / "d")]) == 2
    assert "give --reference MAP" in capsys.readouterr().err
    volume, pixel = read_map(data / "reference.mrc")
    write_map(tmp_path / "small.mrc", volume[4:-4, 4:-4, 4:-4], pixel)
    assert main(["chunk", task, "--debug", str(tmp_path / "d"), "--reference", str(tmp_path / "small.mrc")]) == 2
    assert "resample the map" in capsys.readouterr().err
