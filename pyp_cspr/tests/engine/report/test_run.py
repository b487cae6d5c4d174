"""The report of a run, from the objects that the merge has."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.io.mrc import write_stack
from pyp_cspr.engine.model.task import MapGrid
from pyp_cspr.engine.reconstruct.finalise import finalise
from pyp_cspr.engine.report.run import write_run_report
from pyp_cspr.engine.report.sections import orientations, sentence
from pyp_cspr.tests.blobs import asymmetric_blobs
from pyp_cspr.tests.engine.reconstruct.doubles import ideal_accumulator
from pyp_cspr.tests.engine.report.test_figures import make_dataset

GRID = MapGrid(box=32, pixel=4.0, padded=32, radius=15)
SUMMARY = {"resolution_0143": 9.0, "box": 32, "pixel": 4.0, "symmetry": "c1", "n_particles": 12, "n_projections": 80,
           "n_series": 2, "bytes_read": 123456, "stack_bytes_not_written": 5.6e9, "data": "folder", "version": "0.1"}


@pytest.fixture
def result(random):
    truth = asymmetric_blobs(4.0, 32.0, count=20).volume(32, 4.0)
    return finalise(*(ideal_accumulator(truth, 1.0, 15, random, noise=3.0) for _ in range(2)), 4.0)


def journal_of(result, exposures=()):
    chunks = [{"exposures": list(exposures)}]
    return {"finalise": result.journal, "chunks": chunks, "total": {"seconds": {"read": 1.0, "insert": 2.0, "add": 0.0}}}


def test_a_run_of_stacks_has_no_tilt_image(result, tmp_path):
    dataset = make_dataset()
    dataset.series["stack_box"] = 32
    path = tmp_path / "run" / "report.html"
    written = write_run_report(path, dataset, result, GRID, SUMMARY, journal_of(result))
    page = path.read_text()
    figures = list((tmp_path / "run" / "report").glob("*.png"))
    assert len(figures) >= 7
    assert written == path.stat().st_size + sum(figure.stat().st_size for figure in figures)
    assert "<h1>Reconstruction run</h1>" in page
    assert "9.00 Å" in page
    assert "5.6 GB" in page
    assert "12 particles of 2 tilt series" in page
    assert "6 particles in half 1, 6 in half 2." in page
    assert "Particles in a tilt image" not in page
    assert "<h2>Noise</h2>" not in page


def test_a_run_of_images_shows_one_and_its_noise(result, tmp_path, random):
    dataset = make_dataset()
    stack = tmp_path / "TS.mrc"
    write_stack(stack, random.normal(size=(7, 64, 64)).astype(np.float32), 4.0)
    dataset.series["images"] = [str(stack)] * 2
    noise = [{"series": "TS_01", "exposure": i, "noise_power": 1.0 + i} for i in range(3)] + [{"series": "gone"}]
    path = tmp_path / "report.html"
    write_run_report(path, dataset, result, GRID, dict(SUMMARY, resolution_0143=None), journal_of(result, noise))
    page = path.read_text()
    assert "Particles in a tilt image" in page
    assert "<h2>Noise</h2>" in page
    assert "<dd>none</dd>" in page


def test_images_that_have_moved_do_not_stop_the_report(result, tmp_path):
    dataset = make_dataset()
    dataset.series["images"] = [str(tmp_path / "gone.mrc")] * 2
    write_run_report(tmp_path / "report.html", dataset, result, GRID, SUMMARY, journal_of(result))
    assert "Particles in a tilt image" not in (tmp_path / "report.html").read_text()


def test_a_run_without_correlation_is_reported(tmp_path, random):
    empty = np.zeros((32, 32, 32))
    result = finalise(*(ideal_accumulator(empty, 1.0, 15, random, noise=3.0) for _ in range(2)), 4.0)
    assert result.resolution_0143 > 20
    write_run_report(tmp_path / "report.html", make_dataset(), result, GRID, dict(SUMMARY, resolution_0143=None),
                     journal_of(result))
    assert "Sharpened map" in (tmp_path / "report.html").read_text()


def test_orientations_are_those_of_the_projections_that_count():
    dataset = make_dataset(series=1, tilts=7, particles=2)
    dataset.visible[1, 0] = False
    found = orientations(dataset)
    assert found.shape == (2 * 6 - 1, 3, 3)  # one exposure is excluded
    want = dataset.exposures["rotation"][1] @ dataset.particles["rotation"][1]
    assert min(np.abs(found - want).max(axis=(1, 2))) < 1e-12


def test_journal_entries_become_sentences():
    assert sentence({"message": "mask: map at 27.0 A, 5.9 %", "value": 1084000.0, "unit": "A^3"}) == (
        "Mask: map at 27.0 Å, 5.9 %: 1,084 nm³."
    )
    assert sentence({"message": "B-factor", "value": -113.84, "unit": "A^2"}) == "B-factor: -114 Å²."
    assert sentence({"message": "none", "value": None}) == "None."
