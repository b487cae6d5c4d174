"""The report of a refinement, from loaded data, while it goes on and when it has ended."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pyp_cspr.engine.core.symmetry import group_matrices
from pyp_cspr.engine.report.refinement import (
    RefinementData,
    SeriesTables,
    particle_moves,
    weights_by_band,
    write_refinement_report,
)
from pyp_cspr.tests.blobs import asymmetric_blobs
from pyp_cspr.tests.engine.report.test_figures import make_dataset
from pyp_cspr.tests.engine.report.test_html import Checker
from pyp_cspr.tests.engine.report.test_refinement_figures import HISTORY, moved

SUMMARY = {"box": 32, "pixel": 4.0, "symmetry": "c1", "n_particles": 12, "n_projections": 80, "n_series": 2, "data": "folder",
           "version": "0.1", "stack_bytes_not_written": 5.6e9}


def tables(random, particles: int = 6, exposures: int = 7, shells: int = 16) -> SeriesTables:
    score = random.uniform(5, 20, (particles, exposures))
    score[:, 3] = np.nan
    return SeriesTables(score, 0.1 * score, 0.2 * score, random.uniform(0.5, 1, (exposures, shells)),
                        random.uniform(1, 2, (exposures, shells)), np.ones(exposures), np.zeros(exposures), 128.0)


@pytest.fixture
def data(random) -> RefinementData:
    start = make_dataset()
    end, _ = moved(start)
    end.particles["score"] = random.uniform(5, 20, 12)
    volume = asymmetric_blobs(4.0, 32.0).volume(32, 4.0)
    mask = (volume > 0.2 * volume.max()).astype(np.float32)
    return RefinementData(
        name="run", summary=SUMMARY, history=HISTORY, planned=4, reason="", start=start, end=end,
        curves=[np.linspace(1, 0, 17)] * 3, first_map=0.5 * volume**2, last_map=volume, mask=mask,
        seconds=[{"read": 1.0}, {"refine": 2.0}, {"refine": 1.0}],
        journal=[{"message": "B-factor +- 3 A^2", "value": -50.0, "unit": "A^2"}],
        tables=[tables(random), tables(random)], references=["each half's own map"],
    )


def test_a_run_that_goes_on_loads_itself_again(data, tmp_path):
    path = tmp_path / "report.html"
    assert write_refinement_report(path, data) == path.stat().st_size
    assert not (tmp_path / "report").exists()
    page = path.read_text()
    assert 'http-equiv="refresh"' in page
    assert "Running: iteration 2 of at most 4 is done" in page


def test_the_page_of_a_finished_run_is_whole(data, tmp_path):
    data.reason = "converged: the limit stays at 8.3 A and poses moved by 0.05 deg"
    path = tmp_path / "report.html"
    written = write_refinement_report(path, data)
    figures = [figure.stat().st_size for figure in (tmp_path / "report").glob("*.png")]
    assert len(figures) > 12
    assert written == path.stat().st_size + sum(figures)
    page = path.read_text()
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert not [one for one in set(checker.ids) if checker.ids.count(one) > 1]
    assert all(ref.startswith(("#", "data:image/png;base64,")) for ref in checker.references)
    assert {ref[1:] for ref in checker.references if ref.startswith("#")} <= set(checker.ids)
    assert 'http-equiv="refresh"' not in page
    assert "Converged: the limit stays at 8.3 Å and poses moved by 0.05°" in page
    assert "B-factor ± 3 Å²: -50 Å²." in page
    assert "each half&#x27;s own map" in page
    assert "<td>20.00</td>" in page  # the resolution of iteration 1
    assert "<td>–</td>" in page
    for heading in ("Before and after", "How far particles moved", "How well they are known", "Scores", "Weights of exposures",
                    "Change of tilt geometry", "Shift vectors", "Where the time went"):
        assert f"<h2>{heading}</h2>" in page
    assert "<h2>Defocus before and after</h2>" not in page


def test_a_start_without_refinement_is_reported(data, tmp_path):
    data.history, data.curves, data.seconds, data.tables = HISTORY[:1], data.curves[:1], data.seconds[:1], ()
    write_refinement_report(tmp_path / "report.html", data)
    page = (tmp_path / "report.html").read_text()
    assert "Running: iteration 0 of at most 4 is done" in page
    assert "<h2>Scores</h2>" not in page
    assert "<h2>Before and after</h2>" not in page


def test_changed_defocus_is_shown(data, tmp_path):
    data.end.exposures["defocus"] = data.end.exposures["defocus"] + np.array([50.0, 50.0, 0.0])
    write_refinement_report(tmp_path / "report.html", data)
    assert "<h2>Defocus before and after</h2>" in (tmp_path / "report.html").read_text()


def test_moves_are_modulo_symmetry():
    start, end = make_dataset(), make_dataset()
    turn = Rotation.from_rotvec([0.0, np.deg2rad(3.0), 0.0]).as_matrix()
    copies = group_matrices("C3")[np.arange(12) % 3]
    end.particles["rotation"] = turn @ start.particles["rotation"] @ copies
    end.particles["position"] = start.particles["position"] + np.array([3.0, 0.0, 4.0])
    turned, shifted = particle_moves(start, end, "C3")
    np.testing.assert_allclose(turned, 3.0, atol=1e-6)
    np.testing.assert_allclose(shifted, 5.0)
    assert particle_moves(start, end, "C1")[0].max() > 100


def test_weights_have_mean_one_in_every_band(random):
    series = [tables(random, shells=20), tables(random, shells=16)]
    weights, names = weights_by_band(series, 10.0)
    assert names == ["to 32 Å", "32 to 16 Å", "16 to 10 Å"] or len(names) == 3
    for table, weight in zip(series, weights):
        assert weight.shape == (7, 3)
        np.testing.assert_allclose(weight.mean(axis=0), 1.0)
        shells = table.amplitude**2 / table.noise
        shells = shells / shells.mean(axis=0)
        np.testing.assert_allclose(weight[:, 0], shells[:, 1:5].mean(axis=1))
