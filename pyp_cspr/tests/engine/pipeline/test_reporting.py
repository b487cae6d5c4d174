"""The report of a refinement is read out of its run folder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.errors import CsprError
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
