"""The report of a refinement is read out of its run folder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.errors import CsprError
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.pipeline.iterate import changes
from pyp_cspr.engine.pipeline.reporting import load_refinement
from pyp_cspr.engine.pipeline.store import RunStore, read_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny refinement of two iterations, of data that were filtered."""
    folder = tmp_path_factory.mktemp("reporting")
    options = ["--series", "2", "--particles", "4", "--tilts", "5", "--box", "32", "--pixel", "8", "--pose-error", "2"]
    assert main(["sample", str(folder / "data"), *options]) == 0
    (folder / "data" / "filter.json").write_text(json.dumps({"threshold": 4.5}))
    assert main(["refine", str(folder / "data"), "--reference", str(folder / "data" / "reference.mrc"),
                 "--out", str(folder / "run"), "--symmetry", "C3", "--iterations", "2"]) == 0
    return folder / "run"


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_refinement_leaves_its_report_and_each_iteration_one(run):
    page = (run / "report.html").read_text()
    assert "<h1>Refinement run</h1>" in page
    assert 'http-equiv="refresh"' not in page
    assert "<h1>Reconstruction run, iteration 1</h1>" in (run / "iterations" / "001" / "report.html").read_text()


@pytest.mark.slow
def test_the_data_are_those_of_the_folder(run):
    history = json.loads((run / "summary.json").read_text())["iterations"]
    data = load_refinement(run, history, 2, "done")
    last = RunStore(run / "iterations" / f"{len(history) - 1:03d}")
    assert len(data.curves) == len(data.seconds) == len(history)
    assert data.threshold == 4.5
    assert data.start.particles["rotation"].tolist() == read_rows(run / "iterations" / "000" / "dataset.npz").particles[
        "rotation"].tolist()
    assert data.end.particles["rotation"].tolist() == read_rows(last.result_path).particles["rotation"].tolist()
    with np.load(last.refinement_path) as arrays:
        np.testing.assert_array_equal(data.tables[1].score, arrays["1.score"])
        assert data.tables[1].field == float(arrays["1.field"])
    assert data.references == ["each half's own map"]
    assert load_refinement(run, history[:2], 2).references == ["the given map"]


@pytest.mark.slow
def test_damaged_tables_are_named(run):
    history = json.loads((run / "summary.json").read_text())["iterations"][:2]
    path = run / "iterations" / "001" / "refinement.npz"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    try:
        with pytest.raises(CsprError, match=r"refinement\.npz: cannot be read"):
            load_refinement(run, history, 2)
    finally:
        path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.timeout(100)
@pytest.mark.parametrize("empty", [0, 1])
def test_a_series_that_lost_all_its_particles_has_no_place_in_the_report(small_sample, tmp_path, empty):
    dataset = read_dataset(small_sample)
    kept = dataset.select_particles(dataset.particles["series"] != empty)
    write_dataset(kept, tmp_path / "data")
    assert main(["refine", str(tmp_path / "data"), "--reference", str(small_sample / "reference.mrc"), "--out",
                 str(tmp_path / "run"), "--iterations", "1", "--resolution", "30", "--processes", "1"]) == 0
    data = load_refinement(tmp_path / "run", json.loads((tmp_path / "run" / "summary.json").read_text())["iterations"], 1)
    assert data.end.series["name"].tolist() == [f"TS_0{i + 1}" for i in range(3) if i != empty]
    assert [len(table.score) for table in data.tables] == [12, 12]
    assert len(read_dataset(tmp_path / "run").series) == 3


def test_particles_that_no_image_shows_do_not_say_that_all_is_still(small_sample):
    """Most are outside: their uncertainty is their prior's, and they do not move."""
    before, after = read_dataset(small_sample), read_dataset(small_sample)
    after.particles["score"][:4] = 30.0
    after.particles["sigma"] = [30.0, 20.0]
    after.particles["sigma"][:4] = [2.0, 1.0]
    after.particles["position"][:4] += [0.0, 3.0, 4.0]
    found = changes(before, after)
    assert (found["position"], found["sigma_rotation"], found["sigma_position"]) == (pytest.approx(5.0), 2.0, 1.0)
    assert found["score"] == pytest.approx(30.0)
