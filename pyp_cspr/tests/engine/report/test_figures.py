"""Figures: they say what their table says, and draw without a window."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation

from pyp_cspr.engine.core.fsc import resolution_at, resolutions
from pyp_cspr.engine.core.geometry import euler_to_matrix, tilt_to_matrix
from pyp_cspr.engine.model.tables import EXPOSURES, PARTICLES, SERIES, Dataset, Table
from pyp_cspr.engine.report import figures
from pyp_cspr.engine.report.html import figure_png
from pyp_cspr.tests.blobs import asymmetric_blobs


def make_dataset(series: int = 2, tilts: int = 7, particles: int = 6, seed: int = 1) -> Dataset:
    random = np.random.default_rng(seed)
    angles = np.linspace(-60, 60, tilts)
    rows = series * tilts
    order = np.argsort(np.argsort(np.abs(angles), kind="stable"))
    tables = [
        Table(SERIES, {
            "name": [f"TS_{i:02d}" for i in range(series)], "images": [""] * series, "pixel": np.full(series, 4.0),
            "image_size": np.full((series, 2), 64),
        }),
        Table(EXPOSURES, {
            "series": np.repeat(np.arange(series), tilts), "slice": np.tile(np.arange(tilts), series),
            "order": np.tile(order, series),
            "rotation": np.tile(tilt_to_matrix(0 * angles, angles, 0 * angles), (series, 1, 1)),
            "dose_before": np.tile(3.0 * order, series), "dose": np.full(rows, 3.0),
            "defocus": np.stack([random.uniform(2e4, 3e4, rows), random.uniform(2e4, 3e4, rows), np.zeros(rows)], axis=1),
            "enabled": np.arange(rows) != 3,
        }),
        Table(PARTICLES, {
            "name": [f"p{i}" for i in range(series * particles)], "series": np.repeat(np.arange(series), particles),
            "position": random.uniform(-100, 100, (series * particles, 3)),
            "rotation": Rotation.random(series * particles, random_state=seed).as_matrix(),
        }),
    ]
    dataset = Dataset(*tables, np.ones((series * particles, tilts), bool))
    dataset.assign_halves()
    return dataset


@pytest.mark.timeout(60)
def test_no_window_and_no_pyplot():
    assert isinstance(figures.timings({"insert": 1.0}), Figure)
    code = "import pyp_cspr.engine.report.figures, sys; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout.strip() == "False"


def test_fsc_curves_mark_the_resolution():
    curve = np.linspace(1.0, -0.05, 33)
    curves = {"unmasked": curve - 0.02, "masked": curve, "phase_randomised": 0.1 * curve, "corrected": curve}
    figure = figures.fsc_curves(curves, 64, 3.0, 7.3)
    axes = figure.axes[0]
    assert "7.30 Å" in [text.get_text() for text in axes.texts]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["unmasked", "masked", "phase randomised", "corrected"]
    marked = next(line for line in axes.lines if line.get_marker() == "o")
    assert marked.get_xdata()[0] == pytest.approx(1 / 7.3)
    drawn = next(line for line in axes.lines if line.get_label() == "corrected")
    np.testing.assert_allclose(drawn.get_xdata(), 1 / resolutions(64, 3.0)[1:])
    np.testing.assert_allclose(drawn.get_ydata(), curve[1:])
    for place, label in zip(axes.get_xticks(), axes.get_xticklabels()):
        assert 1 / place == pytest.approx(float(label.get_text()), rel=0.01)
    assert marked.get_ydata()[0] == pytest.approx(np.interp(64 * 3.0 / 7.3, np.arange(33), curve))  # on the curve
    none = figures.fsc_curves({"unmasked": curve}, 64, 3.0, float("inf"))
    assert not [text for text in none.axes[0].texts if "Å" in text.get_text()]


def test_a_resolution_that_the_pixel_limits_is_marked_on_the_curve_and_said():
    """Curves end with the last shell that holds data, here 31 of 32."""
    curve = np.append(np.linspace(1.0, 0.4, 32), 0.0)
    axes = figures.fsc_curves({"corrected": curve, "masked": curve}, 64, 3.0, 64 * 3.0 / 31).axes[0]
    drawn = next(line for line in axes.lines if line.get_label() == "corrected")
    np.testing.assert_allclose(drawn.get_ydata(), curve[1:32])
    marked = next(line for line in axes.lines if line.get_marker() == "o")
    assert (marked.get_xdata()[0], marked.get_ydata()[0]) == pytest.approx((31 / 192, 0.4))
    texts = [text.get_text() for text in axes.texts]
    assert "6.19 Å" in texts
    assert "limited by the pixel" in texts
    ended = np.append(np.linspace(1.0, 0.4, 20), np.zeros(13))  # the map ends long before Nyquist
    axes = figures.fsc_curves({"corrected": ended}, 64, 3.0, 64 * 3.0 / 19).axes[0]
    assert {"limited by map_resolution"} == {text.get_text() for text in axes.texts if "limited" in text.get_text()}
    falls = np.append(np.linspace(1.0, 0.1, 32), 0.0)
    axes = figures.fsc_curves({"corrected": falls}, 64, 3.0, resolution_at(falls, 0.143, 64, 3.0)).axes[0]
    assert "limited by the pixel" not in [text.get_text() for text in axes.texts]
    marked = next(line for line in axes.lines if line.get_marker() == "o")
    assert marked.get_ydata()[0] == pytest.approx(0.143)


def test_a_chosen_limit_is_a_line_and_no_crossing():
    curve = np.linspace(1.0, -0.05, 33)
    axes = figures.fsc_curves({"corrected": curve}, 64, 3.0, limit=20.0).axes[0]
    assert "20.0 Å" in [text.get_text() for text in axes.texts]
    assert not [line for line in axes.lines if line.get_marker() == "o"]
    upright = [line for line in axes.lines if list(line.get_xdata()) == [1 / 20.0] * 2]
    assert len(upright) == 1


def test_map_views_show_sections_and_projections():
    volume = asymmetric_blobs(3.0, 20.0).volume(24, 3.0)
    mask = (volume > 0.2 * volume.max()).astype(np.float32)
    axes = figures.map_views(volume, 3.0, mask).axes
    for column in range(3):
        np.testing.assert_array_equal(axes[column].images[0].get_array(), np.take(volume, 12, axis=column))
        np.testing.assert_allclose(axes[3 + column].images[0].get_array(), volume.sum(axis=column))
        assert axes[column].images[0].origin == "lower"
    # The voxel at the centre lies about the origin.
    left, right, bottom, top = axes[0].images[0].get_extent()
    assert (left, right, bottom, top) == (-37.5, 34.5, -37.5, 34.5)
    assert len(axes[0].collections) > 0
    assert not figures.map_views(volume, 3.0).axes[0].collections
    assert len(figure_png(figures.map_views(np.zeros((16, 16, 16)), 1.0))) > 1000


def test_directions_are_drawn_at_their_rot_and_tilt():
    matrices = np.concatenate([np.tile(euler_to_matrix(40.0, 70.0, psi), (50, 1, 1)) for psi in (0.0, 90.0, 200.0)])
    mesh = figures.angular_distribution(matrices).axes[0].collections[0]
    counts = np.ma.filled(mesh.get_array().astype(float), np.nan).reshape(8, 16)
    assert np.nansum(counts) == 150
    assert np.isfinite(counts).sum() == 1
    row, column = np.argwhere(np.isfinite(counts))[0]
    low, high = -180 + column * 22.5, -157.5 + column * 22.5
    assert low <= 40 < high
    assert -1 + row * 0.25 <= np.cos(np.deg2rad(70)) < -0.75 + row * 0.25


def test_uniform_directions_fill_equal_areas_equally():
    mesh = figures.angular_distribution(Rotation.random(40_000, random_state=1).as_matrix()).axes[0].collections[0]
    counts = np.ma.filled(mesh.get_array().astype(float), 0)
    assert counts.sum() == 40_000
    assert counts.std() / np.sqrt(counts.mean()) < 1.15


def test_particles_of_few_series_are_bars_and_of_many_a_histogram():
    bars = figures.particles_per_series(["a", "b" * 60], [3, 5], [[1, 2], [3, 2]]).axes[0]
    assert [bar.get_width() for bar in bars.patches] == [1, 3, 2, 2]
    labels = [label.get_text() for label in bars.get_yticklabels()]
    assert labels[0] == "a"
    assert 10 < len(labels[1]) < 30
    many = np.random.default_rng(0).poisson(200, 100)
    histogram = figures.particles_per_series([str(i) for i in range(100)], many).axes[0]
    assert sum(bar.get_height() for bar in histogram.patches) == 100
    assert len(figures.particles_per_series([str(i) for i in range(3)], [1, 2, 3]).axes[0].patches) == 3
    assert sum(b.get_height() for b in figures.particles_per_series(["x"] * 40, [7] * 40).axes[0].patches) == 40


@pytest.mark.parametrize("shape", [(90, 120), (2000, 1500), (64, 64)])
def test_circles_lie_on_the_particles(shape):
    pixel = 2.5
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    rows = np.array([[20, 50], [30, 10]])  # y, x
    scale = 8 * (shape[0] > 500) + 1
    for y, x in rows * scale:
        image[y - 2 * scale : y + 2 * scale + 1, x - 2 * scale : x + 2 * scale + 1] += 30
    positions = (rows[:, ::-1] * scale - np.array([shape[1] // 2, shape[0] // 2])) * pixel
    figure = figures.particles_in_image(image, pixel, positions, 10 * scale * pixel, "TS_01")
    axes = figure.axes[0]
    circles = axes.collections[0]
    np.testing.assert_allclose(circles.get_offsets(), positions)
    picture = axes.images[0]
    left, right, bottom, top = picture.get_extent()
    array = np.asarray(picture.get_array())
    assert max(array.shape) <= 800
    for x, y in positions:
        # Which drawn pixel lies under the circle's centre: it must be a bright one.
        column = int((x - left) / (right - left) * array.shape[1])
        row = int((y - bottom) / (top - bottom) * array.shape[0])
        assert 0 <= row < array.shape[0]
        assert 0 <= column < array.shape[1]
        assert array[row, column] > 0.6 * array.max()
    assert picture.origin == "lower"
    assert len(figure_png(figure)) > 1000


def test_binning_takes_means():
    image = np.arange(35, dtype=float).reshape(5, 7)
    np.testing.assert_allclose(figures.bin_image(image, 2), image[:4, :6].reshape(2, 2, 3, 2).mean(axis=(1, 3)))


def test_exposure_plots_show_the_tables():
    dataset = make_dataset()
    np.testing.assert_allclose(figures.exposure_tilts(dataset)[:7], np.linspace(-60, 60, 7), atol=1e-9)
    defocus = figures.defocus_by_tilt(dataset).axes[0]
    np.testing.assert_allclose(defocus.lines[0].get_xdata(), np.linspace(-60, 60, 7), atol=1e-9)
    np.testing.assert_allclose(defocus.lines[1].get_ydata(), dataset.exposures["defocus"][7:, :2].mean(axis=1) / 1e4)
    left, right = figures.tilt_scheme(dataset).axes
    assert left.lines[0].get_ydata()[0] == pytest.approx(0.0, abs=1e-9)  # dose-symmetric: starts at 0
    np.testing.assert_array_equal(left.lines[0].get_xdata(), np.arange(1, 8))
    np.testing.assert_allclose(sorted(right.lines[0].get_ydata()), 3.0 * np.arange(7))
    assert "excluded" in [text.get_text() for text in left.get_legend().get_texts()]


def test_many_series_draw_without_a_legend():
    dataset = make_dataset(series=12, particles=1)
    assert figures.defocus_by_tilt(dataset).axes[0].get_legend() is None
    assert [t.get_text() for t in figures.tilt_scheme(dataset).axes[0].get_legend().get_texts()] == ["excluded"]


def test_noise_is_sorted_by_tilt():
    axes = figures.noise_by_exposure(["a"], [[30, -30, 0]], [[3.0, 1.0, 2.0]]).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [-30, 0, 30])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1, 2, 3])


def test_timings_add_up():
    figure = figures.timings({"read": 1.0, "insert": 30.0, "nothing": 0.0})
    assert sum(bar.get_width() for bar in figure.axes[0].patches) == pytest.approx(31.0)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["insert 30 s (97 %)", "read 1 s (3 %)"]
    assert not figures.timings({}).legends


@pytest.mark.parametrize(("value", "want"), [(100, 100), (99, 50), (49, 20), (0.019, 0.01), (7, 5)])
def test_scale_bars_are_round(value, want):
    assert figures.round_down(value) == pytest.approx(want)


def test_the_users_matplotlibrc_changes_nothing():
    import matplotlib

    with matplotlib.rc_context({"text.color": "red", "axes.grid": False, "font.size": 30}):
        axes = figures.noise_by_exposure(["a"], [[0, 1]], [[1.0, 2.0]]).axes[0]
    assert axes.xaxis.label.get_fontsize() == 9.0
    assert axes.xaxis.label.get_color() == figures.INK
