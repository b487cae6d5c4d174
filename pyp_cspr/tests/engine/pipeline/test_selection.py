"""Which projections refine and which make the map: the masks, and what small runs do with them."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.geometry import tilt_to_matrix
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.core.rotation_grid import random_rotations
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.mrc import read_map, write_map
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.model.settings import ReconstructSettings, RefineSettings
from pyp_cspr.engine.model.tables import EXPOSURES, PARTICLES, SERIES, Dataset, Table
from pyp_cspr.engine.model.task import ChunkJournal, ChunkTask, MapGrid
from pyp_cspr.engine.pipeline.compare import compare, read_run
from pyp_cspr.engine.pipeline.iterate import read_mask, refine
from pyp_cspr.engine.pipeline.plan import map_grid
from pyp_cspr.engine.pipeline.reconstruct import reconstruct
from pyp_cspr.engine.pipeline.selection import (
    MapChoice,
    choose_for_map,
    informing,
    informing_dataset,
    projections_of_map,
    score_limits,
)
from pyp_cspr.engine.pipeline.series_model import SeriesModel, geometry_of
from pyp_cspr.engine.pipeline.store import read_json
from pyp_cspr.engine.sample.truth import read_truth

TILTS = np.array([0.0, 30.0, -30.0, 50.0, -50.0])  # in the order of acquisition; the table is sorted by angle
ORDER = np.argsort(TILTS)


def dataset(particles: int = 8, seed: int = 1) -> Dataset:
    """Two series of five tilts; scores 10, 20, ... in the order of the particles."""
    random = np.random.default_rng(seed)
    tilts = np.tile(TILTS[ORDER], 2)
    tables = (
        Table(SERIES, {"name": np.array(["a", "b"]), "images": np.array(["", ""]), "image_size": np.full((2, 2), 1000),
                       "pixel": [2.0, 2.0], "voltage": [300.0] * 2, "cs": [2.7] * 2, "amplitude_contrast": [0.07] * 2}),
        Table(EXPOSURES, {"series": np.repeat([0, 1], len(TILTS)), "slice": np.tile(np.arange(len(TILTS)), 2),
                          "order": np.tile(ORDER, 2), "rotation": tilt_to_matrix(0 * tilts, tilts, 0 * tilts),
                          "defocus": np.tile([3.1e4, 2.9e4, 0.0], (2 * len(TILTS), 1))}),
        Table(PARTICLES, {"name": [f"p{i:02d}" for i in range(particles)], "series": np.arange(particles) % 2,
                          "position": random.uniform(-800, 800, (particles, 3)),
                          "rotation": random_rotations(particles, random),
                          "score": 10.0 * np.arange(1, particles + 1), "half": 1 + np.arange(particles) // 2 % 2}),
    )
    return Dataset(*tables, np.ones((particles, len(TILTS)), bool))


def mask(data: Dataset, **values: Any) -> np.ndarray:
    settings = ReconstructSettings.from_dict(values)
    return projections_of_map(data, 0, settings, choose_for_map(data, settings, score_limits(data, settings)))


def test_without_settings_all_used_projections_make_the_map() -> None:
    data = dataset()
    data.visible[2, 1] = False
    data.exposures["enabled"] = np.arange(10) != 4
    np.testing.assert_array_equal(mask(data), data.used(0))


def test_tilt_angles() -> None:
    assert mask(dataset(), map_tilt_min=-30.0, map_tilt_max=45.0)[0].tolist() == [False, True, True, True, False]
    assert mask(dataset(), map_tilt_min=10.0)[0].tolist() == [False, False, False, True, True]


def test_exposures_count_in_the_order_of_acquisition() -> None:
    np.testing.assert_array_equal(mask(dataset(), map_last=1)[0], np.isin(TILTS[ORDER], [0.0, 30.0]))
    np.testing.assert_array_equal(mask(dataset(), map_first=1, map_last=2)[0], np.isin(TILTS[ORDER], [30.0, -30.0]))
    np.testing.assert_array_equal(mask(dataset(), map_first=4, map_last=-1)[0], TILTS[ORDER] == -50.0)


@pytest.mark.parametrize("hand", [1.0, -1.0])
def test_defocus_is_that_of_the_projection_itself(hand) -> None:
    data = dataset()
    data.series["hand"] = [hand, hand]
    data.particles["defocus_offset"] = np.arange(8) * 100.0
    _, depth = data.project(0)
    defocus = 3e4 + hand * depth + data.particles["defocus_offset"][data.particles_of(0)][:, None]
    got = mask(data, map_defocus_min=29800.0, map_defocus_max=30500.0)
    np.testing.assert_array_equal(got, (defocus >= 29800) & (defocus <= 30500))
    assert 0 < got.sum() < got.size
    assert mask(data, map_defocus_max=5e4).all()


def test_theta_is_freealigns() -> None:
    """The angle between the beam and the reference's z axis: acos of M[2, 2], M = T R."""
    data = dataset()
    rows, particles = data.exposures_of(0), data.particles_of(0)
    orientation = data.exposures["rotation"][rows][None] @ data.particles["rotation"][particles][:, None]
    theta = np.rad2deg(np.arccos(orientation[..., 2, 2]))
    got = mask(data, map_theta_min=40.0, map_theta_max=120.0)
    np.testing.assert_array_equal(got, (theta >= 40) & (theta <= 120))
    assert 0 < got.sum() < got.size


@pytest.mark.parametrize(("values", "kept"), [
    ({"map_score_min": 0.5}, [50, 60, 70, 80]), ({"map_score_max": 0.5}, [10, 20, 30, 40]),
    ({"map_score_min": 35.0}, [40, 50, 60, 70, 80]), ({"map_score_min": 35.0, "map_score_max": 60.0}, [40, 50, 60]),
    ({"map_particles": 0.25}, [70, 80]), ({"map_particles": 0.01}, [80]), ({"map_particles": 3.0}, [60, 70, 80]),
    ({"map_particles": 99.0}, [10, 20, 30, 40, 50, 60, 70, 80]), ({"map_particles": 0.5, "map_score_max": 60.0}, [50, 60]),
    ({"map_particles": 0.0}, [10, 20, 30, 40, 50, 60, 70, 80]),  # too few for an automatic threshold
])
def test_particles_by_their_scores_in_the_whole_data_set(values, kept) -> None:
    data, settings = dataset(), ReconstructSettings.from_dict(values)
    choice = choose_for_map(data, settings, score_limits(data, settings))
    assert data.particles["score"][choice.kept].tolist() == kept


def test_the_automatic_threshold_parts_two_groups() -> None:
    data = dataset(particles=200)
    random = np.random.default_rng(5)
    scores = np.concatenate([random.normal(10, 1, 80), random.normal(20, 1, 120)])
    data.particles["score"] = scores
    settings = ReconstructSettings(map_particles=0.0)
    choice = choose_for_map(data, settings, score_limits(data, settings))
    np.testing.assert_array_equal(choice.kept, scores > 15)


def test_particles_without_a_score_are_kept() -> None:
    data, settings = dataset(), ReconstructSettings(map_particles=0.5)
    data.particles["score"] = np.array([np.nan, 1, 2, 3, 4, 5, 6, np.nan])
    choice = choose_for_map(data, settings, score_limits(data, settings))
    assert choice.kept.tolist() == [True, False, False, False, True, True, True, True]
    data.particles["score"] = np.full(8, np.nan)
    assert score_limits(data, settings) == {}
    assert choose_for_map(data, settings, {}).kept.all()


def test_no_particle_left_is_refused() -> None:
    with pytest.raises(InputError, match=r"no particle has a score from 90\.00 to"):
        score_limits(dataset(), ReconstructSettings(map_score_min=90.0))


def test_particles_by_their_weight() -> None:
    data = dataset()
    data.particles["weight"] = np.linspace(0, 1, 8)
    assert mask(data, map_weight_min=0.5).all(axis=1).tolist() == [False, False, True, True]  # those of series a: 0, 2, 4, 6


def test_weights_by_score() -> None:
    data, settings = dataset(), ReconstructSettings(score_b_factor=4.0)
    data.particles["score"][3] = np.nan
    limits = score_limits(data, settings)
    assert limits == {"mean": pytest.approx(320 / 7)}
    choice = choose_for_map(data, settings, limits)
    k = np.array([0.0, 0.1, 0.2])
    expected = np.exp((60.0 - 320 / 7) * k**2)
    np.testing.assert_allclose(choice.weights(np.array([5]), k)[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(choice.weights(np.array([3]), k)[0], 1.0)
    wild = MapChoice(np.ones(2, bool), np.array([1e9, -1e9]))
    assert np.isfinite(wild.weights(np.arange(2), k)).all()
    assert not choose_for_map(data, ReconstructSettings(), {}).exponents.any()


def test_projections_that_refine_particles() -> None:
    data = dataset()
    data.visible[2, 2] = False  # the untilted one, exposure 0
    first = informing(data, 0, RefineSettings(refinement_last=2))
    np.testing.assert_array_equal(first[0], np.abs(TILTS[ORDER]) < 40)
    assert first[1].sum() == 2
    enough = informing(data, 0, RefineSettings(refinement_last=2, refinement_projections=3))
    assert enough.sum(axis=1).tolist() == [3, 0, 3, 3]
    np.testing.assert_array_equal(informing(data, 0, RefineSettings()), data.used(0))
    np.testing.assert_array_equal(informing_dataset(data, 0, RefineSettings(refinement_last=2)).used(0), first)
    assert data.visible.sum() == 39


@pytest.mark.parametrize("values", [
    {"map_first": -1}, {"map_last": -2}, {"map_first": 3, "map_last": 2}, {"map_tilt_min": 10.0, "map_tilt_max": 5.0},
    {"map_particles": -1.0}, {"refinement_first": 5, "refinement_last": 4}, {"refinement_projections": -1},
    {"low_resolution": -1.0}, {"score_fraction": -1.0}, {"map_defocus_min": 2e5}, {"map_theta_max": -1.0},
    {"map_resolution": -1.0},
])
def test_settings_that_cannot_be_are_refused(values) -> None:
    with pytest.raises(InputError, match=next(iter(values)).rsplit("_", 1)[0]):
        RefineSettings.from_dict(values)


# --- small runs -----------------------------------------------------------------------------------------------------

SAMPLE = ["--series", "3", "--particles", "12", "--tilts", "9", "--box", "32", "--pixel", "8", "--seed", "3"]
ERRORS = ["--pose-error", "3", "--position-error", "6", "--tilt-error", "0.4", "--axis-error", "0.3", "--shift-error", "4"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "data"
    assert main(["sample", str(folder), *SAMPLE, *ERRORS]) == 0
    return folder


def run(sample: Path, out: Path, iterations: int = 1, mask: str = "auto", **values: Any) -> dict:
    return refine(str(sample), str(sample / "reference.mrc"), str(out), dict(values, symmetry="C3"), iterations, mask, 3, 1, 2,
                  report=False)


@pytest.fixture(scope="module")
def whole(sample, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    run(sample, out)
    return out


def same_map(one: Path, two: Path) -> bool:
    return bool(np.array_equal(read_map(one / "map.mrc")[0], read_map(two / "map.mrc")[0]))


def test_a_map_of_some_exposures_is_that_of_the_others_disabled(sample, tmp_path) -> None:
    settings = ReconstructSettings(map_last=4, symmetry="C3")
    summary = reconstruct(str(sample), str(tmp_path / "some"), settings, processes=1, report=False)
    assert summary["n_projections"] == 36 * 5
    data = read_dataset(sample)
    data.exposures["enabled"] = data.exposures["order"] <= 4
    write_dataset(data, tmp_path / "data")
    reconstruct(str(tmp_path / "data"), str(tmp_path / "rest"), ReconstructSettings(symmetry="C3"), processes=1, report=False)
    one, two = (read_map(tmp_path / name / "map.mrc")[0] for name in ("some", "rest"))
    np.testing.assert_allclose(one, two, atol=1e-5 * np.abs(two).max())


def test_late_exposures_are_fitted_to_particles_that_early_ones_refined(sample, tmp_path) -> None:
    late = tmp_path / "late"
    run(sample, late, refinement_last=5, resolution=24.0)
    data = read_run(str(late))[0]
    truth = read_truth(sample / "truth.star")
    before, after = (compare(one, truth, "C3")["after"] for one in (read_dataset(sample), data))
    for name in ("position", "rotation", "shift", "tilt"):
        assert after[name]["rms"] < 0.75 * before[name]["rms"], name
    outside = data.exposures["order"] > 5
    moved = np.linalg.norm(data.exposures["shift"] - read_dataset(sample).exposures["shift"], axis=1)
    assert np.median(moved[outside]) > 1.0  # they start some 4 A off
    with np.load(late / "refinement.npz") as arrays:
        assert np.isfinite(arrays["0.score"]).all()
        columns = data.exposures["order"][data.exposures_of(0)] > 5
        assert np.isnan(arrays["0.view_sigma"][:, columns]).all()
        assert np.isfinite(arrays["0.view_sigma"][:, ~columns]).all()


def test_particles_refined_by_early_exposures_do_not_follow_late_ones(sample, tmp_path) -> None:
    """Late images displaced by 16 A draw the particles along, unless these are refined by the early ones alone."""
    wrong = tmp_path / "wrong"
    copytree(sample, wrong)
    data = read_dataset(wrong)
    for series in range(3):
        path = str(data.series["images"][series])
        assert path.startswith(str(wrong))
        stack, rows = read_map(path)[0].copy(), data.exposures_of(series)
        for image in data.exposures["slice"][rows[data.exposures["order"][rows] > 5]]:
            stack[image] = np.roll(stack[image], 2, axis=0)
        write_map(path, stack, float(data.series["pixel"][series]))
    fixed = {"prior_tilt_angle": 0.0, "prior_axis_angle": 0.0, "prior_shift": 0.0, "resolution": 24.0}
    found = {}
    for name, source, last in (("early", sample, 5), ("wrong early", wrong, 5), ("all", sample, -1), ("wrong all", wrong, -1)):
        run(source, tmp_path / name, refinement_last=last, **fixed)
        found[name] = read_run(str(tmp_path / name))[0].particles["position"]
    early, everything = (np.sqrt(np.mean((found[f"wrong {name}"] - found[name]) ** 2)) for name in ("early", "all"))
    # Not zero: the curve of amplitudes of a series is measured on all its exposures.
    assert early < 0.2 * everything


def test_particles_with_too_few_projections_stay(sample, tmp_path) -> None:
    out = tmp_path / "few"
    data = read_dataset(sample)
    data.visible[5, 3:] = False
    write_dataset(data, tmp_path / "data")
    refine(str(tmp_path / "data"), str(sample / "reference.mrc"), str(out), {"symmetry": "C3", "refinement_projections": 4}, 1,
           "auto", 3, 1, 2, report=False)
    after = read_run(str(out))[0]
    moved = np.linalg.norm(after.particles["position"] - data.particles["position"], axis=1)
    assert moved[5] < 1e-9
    assert np.median(moved) > 1.0
    with pytest.raises(InputError, match="no projection is left to refine by"):
        run(sample, tmp_path / "none", refinement_projections=50)


@pytest.mark.slow
def test_a_search_by_early_exposures_with_a_particle_that_stays(sample, tmp_path) -> None:
    data = read_dataset(sample)
    data.visible[5, 3:] = False
    write_dataset(data, tmp_path / "data")
    values = {"symmetry": "C3", "refinement_projections": 4, "refinement_last": 6, "search_cone": 10.0, "search_shift": 10.0,
              "particle_radius": 60.0}
    refine(str(tmp_path / "data"), str(sample / "reference.mrc"), str(tmp_path / "run"), values, 1, "auto", 3, 1, 2,
           report=False)
    after = read_run(str(tmp_path / "run"))[0]
    assert np.linalg.norm(after.particles["position"][5] - data.particles["position"][5]) < 1e-9
    truth = read_truth(sample / "truth.star")
    before, found = (compare(one, truth, "C3")["after"]["position"]["rms"] for one in (data, after))
    assert found < 0.75 * before


def test_the_best_particles_make_the_map_of_iteration_2_by_the_scores_of_iteration_1(sample, tmp_path) -> None:
    out = tmp_path / "half"
    summary = run(sample, out, 2, map_particles=0.5)
    tasks = [ChunkTask.from_dict(read_json(path), "") for path in sorted((out / "iterations" / "002" / "tasks").glob("*.json"))]
    assert [entry["iteration"] for entry in summary["iterations"]] == [0, 1, 2]
    assert sum(task.n_projections for task in tasks) == 18 * 9
    assert summary["n_projections"] == 18 * 9
    first = json.loads((out / "iterations" / "001" / "summary.json").read_text())
    assert first["n_projections"] == 36 * 9  # no scores yet


@pytest.mark.parametrize("values", [
    {"score_b_factor": 200.0}, {"map_score_min": 0.3}, {"exposure_weighting": "score", "score_fraction": 1.0},
    {"exposure_weighting": "score", "score_transition": 0.1},
])
def test_scores_of_iteration_1_change_the_map_of_iteration_2(sample, tmp_path, values) -> None:
    run(sample, tmp_path / "one", 2, **values)
    run(sample, tmp_path / "two", 2, **{name: value for name, value in values.items() if name == "exposure_weighting"})
    assert same_map(tmp_path / "one" / "iterations" / "001", tmp_path / "two" / "iterations" / "001")
    assert not same_map(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(("values", "mask"), [({"low_resolution": 100.0}, "auto"), ({}, "sphere:90")])
def test_other_settings_change_what_is_refined(sample, whole, tmp_path, values, mask) -> None:
    run(sample, tmp_path / "run", 1, mask, **values)
    one, two = (read_run(str(folder))[0].particles["position"] for folder in (whole, tmp_path / "run"))
    assert 1e-3 < np.abs(one - two).max() < 12.0


def test_low_resolution_leaves_the_coarse_shells_out(sample, tmp_path) -> None:
    data = read_dataset(sample)
    data.assign_halves()
    grid = map_grid(data, RefineSettings())
    reference = Reference(read_map(sample / "reference.mrc")[0], 1.5, grid.radius)
    model = SeriesModel(data, 0, [reference], grid, RefineSettings(low_resolution=100.0), ChunkJournal())
    model.measure(geometry_of(data, 0))
    weight = next(model.search_data()).weight
    coarse = model.k[model.band.shell] < 1 / 100.0
    assert coarse.any()
    assert not weight[:, coarse].any()
    assert weight[:, ~coarse].any(axis=0).all()


def test_map_resolution_ends_the_map(sample, tmp_path) -> None:
    assert map_grid(read_dataset(sample), ReconstructSettings(map_resolution=32.0)).radius == 8  # 32 pixels of 8 A
    axis = np.arange(32) - 16
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    share = {}
    for limit in (0.0, 32.0):
        out = tmp_path / f"{limit:g}"
        reconstruct(str(sample), str(out), ReconstructSettings(map_resolution=limit), processes=1, report=False)
        power = np.abs(np.fft.fftshift(np.fft.fftn(read_map(out / "half1.mrc")[0]))) ** 2
        share[limit] = power[(radius > 10) & (radius < 15)].mean() / power[(radius > 5) & (radius < 7)].mean()
    assert share[32.0] < 0.05 * share[0.0]


def test_spherical_masks() -> None:
    grid = MapGrid(64, 2.0, 96, 31)
    ball = read_mask("sphere:40", grid)
    assert ball.shape == (64, 64, 64)
    assert ball[32, 32, 32] == ball[32, 32, 32 + 20] == 1.0
    assert ball[32 + 22, 32, 32] == pytest.approx(0.5 + 0.5 * np.cos(np.pi * 0.4), abs=1e-6)
    assert ball[32, 32 + 25, 32] == pytest.approx(0.0, abs=1e-7)
    assert read_mask("sphere:1000", grid)[0].max() < 1e-6  # never beyond the box
    for text in ("sphere:", "sphere:x", "sphere:-3", "sphere:nan"):
        with pytest.raises(InputError, match="want sphere:RADIUS"):
            read_mask(text, grid)
