"""Figures of a refinement: what they draw is what the tables hold."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core.geometry import matrix_to_tilt, tilt_to_matrix
from pyp_cspr.engine.report import figures
from pyp_cspr.engine.report.html import figure_png
from pyp_cspr.tests.engine.report.test_figures import make_dataset


def moved(dataset, seed: int = 3):
    """A copy with other tilt angles, axes, shifts and positions."""
    random = np.random.default_rng(seed)
    copy = make_dataset(len(dataset.series), len(dataset.exposures_of(0)), len(dataset.particles_of(0)))
    xtilt, ytilt, zrot = matrix_to_tilt(copy.exposures["rotation"])
    change = random.normal(size=(2, len(ytilt)))
    copy.exposures["rotation"] = tilt_to_matrix(xtilt, ytilt + change[0], zrot + change[1])
    copy.exposures["shift"] = random.normal(size=(len(ytilt), 2))
    copy.exposures["sigma"] = np.full((len(ytilt), 4), 0.1)
    copy.particles["position"] = copy.particles["position"] + random.normal(size=(len(copy.particles), 3))
    return copy, change


def test_the_curves_of_all_iterations_are_drawn_and_the_last_is_bold():
    curves = [np.linspace(1.0, -0.5 + 0.1 * i, 17) for i in range(4)]
    axes = figures.fsc_by_iteration(curves, 32, 3.0, [15.0, 12.0, None, 9.0]).axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 16]
    for line, curve in zip(lines, curves):
        np.testing.assert_allclose(line.get_ydata(), curve[1:])
    assert lines[-1].get_linewidth() > 2 * max(line.get_linewidth() for line in lines[1:-1])
    texts = [text.get_text() for text in axes.texts]
    assert "15.00 Å" in texts
    assert "9.00 Å" in texts
    assert "12.00 Å" not in texts
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["start", "iteration 1", "iteration 2", "iteration 3"]
    alone = figures.fsc_by_iteration(curves[:1], 32, 3.0, [None]).axes[0]
    assert [text.get_text() for text in alone.get_legend().get_texts()] == ["iteration 0"]


def test_a_refinement_that_the_pixel_limits_says_so():
    """The start, limited as well, is not marked a second time; curves end with the last shell that holds data."""
    curves = [np.append(np.linspace(1.0, end, 16), 0.0) for end in (0.2, 0.3, 0.4)]
    axes = figures.fsc_by_iteration(curves, 32, 3.0, [6.4, 6.4, 6.4]).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 15] == [list(c[1:16]) for c in curves]
    assert [list(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"] == [[pytest.approx(0.4)]]
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("6.40 Å") == 1
    assert texts.count("limited by the pixel") == 1


HISTORY = [
    {"iteration": 0, "limit": None, "resolution_0143": None, "seconds": 1.0},
    {"iteration": 1, "limit": 60.0, "resolution_0143": 20.0, "rotation": 3.0, "position": 6.0, "sigma_rotation": 0.7,
     "sigma_position": 1.0, "score": 12.0, "tilt": 0.1, "shift": 1.0, "seconds": 2.0},
    {"iteration": 2, "limit": 20.0, "resolution_0143": 9.0, "rotation": 0.3, "position": 0.5, "sigma_rotation": 0.5,
     "sigma_position": 0.9, "score": 13.0, "tilt": 0.01, "shift": 0.1, "seconds": 2.0},
]


def test_progress_draws_the_history():
    left, right = figures.progress(HISTORY).axes
    resolution, limit = left.lines[:2]
    np.testing.assert_array_equal(resolution.get_ydata(), [np.nan, 20.0, 9.0])
    np.testing.assert_array_equal(limit.get_ydata(), [np.nan, 60.0, 20.0])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [np.nan, 3.0, 0.3])
    np.testing.assert_array_equal(right.lines[1].get_ydata(), [np.nan, 0.7, 0.5])
    assert len(figure_png(figures.progress(HISTORY))) > 1000
    assert len(figure_png(figures.progress(HISTORY[:1]))) > 1000


@pytest.mark.parametrize("still", [
    {"rotation": 0.0, "position": 0.0, "sigma_rotation": 0.0, "sigma_position": None}, {"rotation": 0.0, "position": 0.0}])
def test_progress_of_a_run_that_keeps_its_particles(still):
    """0 has no place on a logarithmic axis; matplotlib's warning of it, an error here, went to the user's terminal."""
    history = HISTORY[:1] + [dict(entry, **still) for entry in HISTORY[1:]]
    figure = figures.progress(history)
    assert len(figure_png(figure)) > 1000
    assert np.isnan(figure.axes[1].lines[0].get_ydata()).all()
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == ([] if "sigma_rotation" not in still else ["particles stay where they are"])


def test_times_of_iterations_add_up():
    figure = figures.time_by_iteration([{"read": 1.0, "insert": 2.0}, {"read": 1.0, "refine": 30.0, "tiny": 1e-4}])
    widths = np.array([bar.get_width() for bar in figure.axes[0].patches])
    assert widths.sum() == pytest.approx(34.0)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["refine 30 s", "read 2 s", "insert 2 s"]


def test_histograms_hold_every_particle_and_their_median():
    left, right = figures.moves(np.arange(101.0), np.full(101, 2.0)).axes
    assert sum(bar.get_height() for bar in left.patches) == 101
    assert sum(bar.get_height() for bar in right.patches) == 101
    assert left.texts[0].get_text() == "median 50°"
    assert right.texts[0].get_text() == "median 2 Å"
    view, _ = figures.uncertainties([[1.0, np.nan], [3.0, 2.0]], np.ones((2, 2))).axes
    assert sum(bar.get_height() for bar in view.patches) == 3
    assert len(figures.moves([], []).axes) == 2


def test_the_threshold_parts_the_scores():
    scores = np.concatenate([np.linspace(5, 9, 30), np.linspace(20, 30, 70), [np.nan]])
    axes = figures.score_histogram(scores, 15.0).axes[0]
    full = sum(bar.get_height() for bar in axes.patches if bar.get_alpha() is None)
    pale = sum(bar.get_height() for bar in axes.patches if bar.get_alpha() is not None)
    assert (full, pale) == (70, 30)
    assert axes.lines[0].get_xdata()[0] == 15.0
    assert "30 below" in axes.texts[0].get_text()
    plain = figures.score_histogram(scores).axes[0]
    assert not plain.lines
    assert sum(bar.get_height() for bar in plain.patches) == 100
    assert not figures.score_histogram([np.nan]).axes[0].patches


def test_bars_of_the_thresholds_bin_stand_on_each_other():
    scores = np.concatenate([np.linspace(10, 30, 200), np.full(40, 19.99), np.full(50, 20.01)])
    axes = figures.score_histogram(scores, 20.0).axes[0]
    here = [bar for bar in axes.patches if bar.get_x() <= 20.0 < bar.get_x() + bar.get_width() and bar.get_height()]
    pale, full = sorted(here, key=lambda bar: bar.get_y())
    assert (pale.get_alpha(), full.get_alpha()) == (0.35, None)
    assert pale.get_height() >= 40
    assert full.get_height() >= 50
    assert pale.get_y() == 0
    assert full.get_y() == pale.get_height()


@pytest.mark.parametrize("values", [[-8.0, 2.0, 5.0], [90.0, 110.0, 121.0]])  # of pure noise; projections, not scores
def test_no_value_is_outside_the_histogram(values):
    assert sum(bar.get_height() for bar in figures.score_histogram(values).axes[0].patches) == 3


def test_what_lies_outside_a_tilt_range_is_shaded():
    left, right = figures.tilt_scheme(make_dataset(), (-70.0, 30.0)).axes
    assert not figures.tilt_scheme(make_dataset()).axes[0].patches
    [across], [along] = left.patches, right.patches  # nothing is below
    assert across.get_extents().transformed(left.transData.inverted()).y0 == pytest.approx(30.0)
    assert along.get_extents().transformed(right.transData.inverted()).x0 == pytest.approx(30.0)


def test_arrows_point_where_particles_went():
    start = make_dataset()
    end, _ = moved(start)
    figure = figures.displacements(start, end)
    assert len(figure.axes) == 2
    arrows = figure.axes[1].collections[0]
    rows = end.particles_of(1)
    way = (end.particles["position"] - start.particles["position"])[rows]
    factor = float(figure.axes[1].get_title().rsplit("× ", 1)[1])
    assert factor >= 1
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], axis=1), factor * way[:, :2] / 10.0)
    np.testing.assert_allclose(arrows.XY, start.particles["position"][rows][:, :2] / 10.0)
    assert figures.displacements(start, start).axes[0].get_title().endswith("× 1")


def test_scores_are_means_by_exposure():
    dataset = make_dataset()
    scores = [np.random.default_rng(i).uniform(0, 100, (6, 7)) for i in range(2)]
    scores[0][:, 2] = np.nan
    scores[1][3, 4] = np.nan
    axes = figures.scores_by_tilt(dataset, scores).axes[0]
    assert len(axes.lines[0].get_xdata()) == 6
    np.testing.assert_allclose(axes.lines[1].get_ydata(), np.nanmean(scores[1], axis=0))
    np.testing.assert_allclose(axes.lines[1].get_xdata(), np.linspace(-60, 60, 7), atol=1e-9)


def test_weights_are_drawn_by_tilt_and_by_dose():
    dataset = make_dataset()
    weights = [np.random.default_rng(i).uniform(0, 2, (7, 2)) for i in range(2)]
    left, right = figures.exposure_weights(dataset, weights, ["low", "high"]).axes
    np.testing.assert_allclose(left.lines[3].get_ydata(), weights[1][:, 1])
    rows = dataset.exposures_of(1)
    np.testing.assert_allclose(right.lines[3].get_xdata(), dataset.exposures["dose_before"][rows] + 1.5)
    two = figures.factors_by_dose(dataset, [np.ones(7)] * 2, [np.arange(7.0)] * 2).axes
    assert [axes.get_ylabel() for axes in two] == ["amplitude factor", "B-factor (Å²)"]


def test_changes_of_geometry_are_end_minus_start():
    start = make_dataset()
    end, change = moved(start)
    panels = figures.geometry_change(start, end).axes
    assert [panel.get_title(loc="left") for panel in panels] == [
        "tilt angle (°)", "axis angle (°)", "shift x (Å)", "shift y (Å)"]
    order = np.argsort(matrix_to_tilt(end.exposures["rotation"])[1][7:])
    for panel, values in zip(panels, (change[0], change[1], *end.exposures["shift"].T)):
        drawn = [line for line in panel.lines if len(line.get_xdata()) == 7]
        np.testing.assert_allclose(drawn[1].get_ydata(), values[7:][order], atol=1e-9)
    xtilt, ytilt, zrot = matrix_to_tilt(end.exposures["rotation"])
    end.exposures["rotation"] = tilt_to_matrix(xtilt + 0.5, ytilt, zrot)
    assert "third angle (°)" in [panel.get_title(loc="left") for panel in figures.geometry_change(start, end).axes]


def test_shift_vectors_are_coloured_by_tilt():
    start = make_dataset(series=3)
    end, _ = moved(start)
    figure = figures.shift_vectors(start, end)
    arrows = figure.axes[2].collections[0]
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], axis=1), end.exposures["shift"][14:])
    np.testing.assert_allclose(arrows.get_array(), matrix_to_tilt(end.exposures["rotation"])[1][14:])


def test_defocus_before_and_after():
    start, end = make_dataset(), make_dataset()
    end.exposures["defocus"] = end.exposures["defocus"] + np.array([100.0, 100.0, 0.0])
    left, right = figures.defocus_change(start, end).axes
    np.testing.assert_allclose(left.lines[1].get_ydata() - left.lines[0].get_ydata(), 0.01)
    np.testing.assert_allclose(right.lines[1].get_ydata(), 100.0)


def test_two_maps_are_drawn_one_above_the_other():
    random = np.random.default_rng(1)
    before, after = random.normal(size=(2, 16, 16, 16))
    axes = figures.maps_compared(before, after, 2.0, ("start", "end")).axes
    for row, volume in enumerate((before, after)):
        for column in range(3):
            np.testing.assert_array_equal(axes[6 * row + column].images[0].get_array(), np.take(volume, 8, axis=column))
            np.testing.assert_allclose(axes[6 * row + 3 + column].images[0].get_array(), volume.sum(axis=column))
    assert [axes[0].get_ylabel(), axes[6].get_ylabel()] == ["start", "end"]
