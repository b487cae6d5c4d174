"""Errors against the truth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pyp_cspr.engine.core.gauge import Geometry, apply_gauge
from pyp_cspr.engine.core.geometry import rotation_vector_to_matrix
from pyp_cspr.engine.core.symmetry import group_matrices
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.model.tables import Dataset
from pyp_cspr.engine.pipeline.compare import BOUNDS, QUANTITIES, Bounds, compare
from pyp_cspr.engine.sample.acquisition import acquire, add_errors
from pyp_cspr.engine.sample.settings import SampleSettings

SETTINGS = SampleSettings(
    series=2, particles=60, tilts=31, box=32, pixel=8.0, pose_error=1.5, position_error=3.0, tilt_error=0.4, axis_error=0.2,
    shift_error=4.0, defocus_error=200.0,
)


@pytest.fixture(scope="module")
def truth():
    return acquire(SETTINGS, 77.0, lambda name: "")


def copy(data):
    tables = (data.series.copy(), data.exposures.copy(), data.particles.copy())
    return Dataset(*tables, data.visible.copy(), data.box, data.box_pixel)


def test_truth_has_no_error(truth):
    result = compare(truth, truth)
    for stage in ("before", "after"):
        for name, values in result[stage].items():
            assert values["largest"] < 1e-5, (stage, name)
    assert set(result["after"]) == set(QUANTITIES)
    assert (result["n_series"], result["n_particles"], result["n_tilts"]) == (2, 120, 62)


def test_errors_put_in_are_found(truth):
    result = compare(add_errors(truth, SETTINGS), truth)["before"]
    assert result["rotation"]["rms"] == pytest.approx(1.5 * np.sqrt(3), rel=0.1)
    assert result["position"]["rms"] == pytest.approx(3.0 * np.sqrt(3), rel=0.1)
    assert result["tilt"]["rms"] == pytest.approx(0.4, rel=0.2)
    assert result["axis"]["rms"] == pytest.approx(0.2, rel=0.2)
    assert result["xtilt"]["rms"] < 1e-6
    assert result["shift"]["rms"] == pytest.approx(4.0 * np.sqrt(2), rel=0.15)
    assert result["defocus"]["rms"] == pytest.approx(200.0, rel=0.2)
    assert result["projected_pixel"]["rms"] == pytest.approx(result["projected"]["rms"] / 8.0)
    assert result["view"]["rms"] > result["rotation"]["rms"]


def test_magnification_deformation_and_regions_count(truth):
    """As errors of what they move, where the truth has none; and not where it has the same."""
    bent = copy(truth)
    bent.exposures["magnification"] = 1.002
    bent.series["deformation_grid"][0], bent.series["defocus_grid"][1] = 2, 3
    bent.exposures["deformation"][bent.exposures_of(0), :8:2] = 7.0
    bent.exposures["defocus_field"][bent.exposures_of(1), :9] = 90.0
    result = compare(bent, truth)["before"]
    assert result["magnification"]["rms"] == pytest.approx(0.2)
    assert result["particle_defocus"]["largest"] == pytest.approx(90.0)
    moved = np.concatenate([(bent.project(s)[0] - truth.project(s)[0]).reshape(-1, 2) for s in range(2)])
    assert result["projected"]["rms"] == pytest.approx(np.sqrt((moved**2).sum(axis=1).mean()))
    assert result["projected"]["rms"] > 4.0
    same = compare(bent, copy(bent))["before"]
    assert max(values["largest"] for values in same.values()) < 1e-5


@pytest.mark.parametrize("name,setting", [("position", "position_error"), ("shift", "shift_error")])
def test_single_errors_show_in_the_projected_places(truth, name, setting):
    """sqrt(2) of a component's error, whichever parameter brings it."""
    only = dataclasses.replace(SampleSettings(), **{setting: 3.0})
    result = compare(add_errors(truth, only), truth)["before"]
    assert result["projected"]["rms"] == pytest.approx(3.0 * np.sqrt(2), rel=0.1)
    assert result["rotation"]["largest"] < 1e-6
    assert result[name]["rms"] > 3.0


def test_gauge_and_symmetry_are_removed(truth, random):
    moved, group = copy(truth), group_matrices("C3")
    for series in range(2):
        p, e = truth.particles_of(series), truth.exposures_of(series)
        geometry = apply_gauge(
            Geometry(truth.particles["rotation"][p], truth.particles["position"][p], truth.exposures["rotation"][e],
                     truth.exposures["shift"][e]),
            rotation_vector_to_matrix(random.normal(0, 0.03, 3)), random.normal(0, 40, 3))
        moved.particles["rotation"][p] = geometry.rotations @ group[random.integers(0, 3, len(p))]
        moved.particles["position"][p] = geometry.positions
        moved.exposures["rotation"][e] = geometry.tilts
        moved.exposures["shift"][e] = geometry.shifts
    result = compare(moved, truth, "c3")
    assert result["before"]["rotation"]["rms"] > 1
    assert result["before"]["position"]["rms"] > 10
    assert result["before"]["view"]["largest"] < 1e-5
    assert result["before"]["projected"]["largest"] < 1e-6
    for name in ("rotation", "position", "tilt", "axis", "shift", "particle_defocus"):
        assert result["after"][name]["largest"] < 1e-3, name
    assert compare(moved, truth, "C1")["after"]["rotation"]["largest"] > 100


def test_wrong_hand_of_defocus_shows_in_particles_only(truth):
    flipped = copy(truth)
    flipped.series["hand"] = 1.0
    result = compare(flipped, truth)["after"]
    assert result["defocus"]["largest"] < 1e-9
    assert result["particle_defocus"]["largest"] > 300


def test_reference_motion_is_reported(truth):
    moved = copy(truth)
    turn = rotation_vector_to_matrix(np.array([0.0, 0.05, 0.0]))
    moved.particles["rotation"] = truth.particles["rotation"] @ turn
    plain, free = compare(moved, truth), compare(moved, truth, reference=True)
    assert plain["after"]["rotation"]["rms"] == pytest.approx(np.rad2deg(0.05), rel=1e-2)
    assert free["after"]["rotation"]["rms"] < 1e-2
    assert free["reference_rotation"] == pytest.approx(np.rad2deg(0.05), rel=1e-2)
    assert "reference_rotation" not in plain


def test_part_of_the_particles_in_another_order(truth, random):
    found = add_errors(truth, SETTINGS)
    chosen = random.permutation(120)[:50]
    part = found.select_particles(chosen)
    result = compare(part, truth)
    assert result["n_particles"] == 50
    assert result["before"]["rotation"]["rms"] == pytest.approx(1.5 * np.sqrt(3), rel=0.2)


def test_unused_projections_do_not_count(truth):
    found = copy(truth)
    found.exposures["shift"][3] += 100.0
    found.exposures["enabled"][3] = False
    assert compare(found, truth)["before"]["projected"]["largest"] < 1e-6


def test_other_data_are_refused(truth):
    other = copy(truth)
    other.particles["name"] = np.array([f"x{name}" for name in truth.particles["name"]])
    with pytest.raises(InputError, match="particle xTS_01/1: not in series TS_01"):
        compare(other, truth)
    other = copy(truth)
    other.series["name"] = np.array(["A", "B"])
    with pytest.raises(InputError, match="series A: not in the truth"):
        compare(other, truth)
    other = copy(truth)
    other.exposures["slice"] = other.exposures["slice"] + 5
    with pytest.raises(InputError, match="tilt image 32 is not in the truth"):
        compare(other, truth)
    with pytest.raises(InputError, match="symmetry 'Q7'"):
        compare(truth, truth, "Q7")


def drawn(truth, random, rotation=1.2, position=2.5):
    """Particles with normal errors of these rms sizes (all axes together), tilts as they are, and bounds that say so."""
    found = copy(truth)
    count = len(truth.particles)
    turns = rotation_vector_to_matrix(np.deg2rad(random.normal(0, rotation / np.sqrt(3), (count, 3))))
    found.particles["rotation"] = turns @ truth.particles["rotation"]
    found.particles["position"] = truth.particles["position"] + random.normal(0, position / np.sqrt(3), (count, 3))
    seen, view, place = {}, {}, {}
    for series in range(len(truth.series)):
        shape = truth.used(series).shape
        seen[series] = np.ones(shape, bool)
        view[series] = np.full(shape, rotation)
        place[series] = np.full(shape, position * np.sqrt(2 / 3))  # two of three axes are seen
    return found, Bounds(seen, view, place, np.full(count, rotation), np.full(count, position))


def test_errors_as_large_as_their_bounds_have_ratio_and_variance_1(truth, random):
    found, bounds = drawn(truth, random)
    result = compare(found, truth, bounds=bounds)["bound"]
    assert set(result) == set(BOUNDS)
    for name, values in result.items():
        assert values["ratio"] == pytest.approx(1.0, abs=0.1), name
        assert values["variance"] == pytest.approx(1.0, abs=0.2), name
        assert values["ratio"] == pytest.approx(values["error"] / values["bound"])
    assert result["view"]["bound"] == pytest.approx(1.2)
    assert result["projected"]["bound"] == pytest.approx(2.5 * np.sqrt(2 / 3))
    assert (result["view"]["n"], result["rotation"]["n"]) == (120 * 31, 120)
    assert "bound" not in compare(found, truth)


def test_bounds_are_matched_to_their_projections(truth, random):
    """Larger errors where larger ones are expected: the mean square is 1 only if each is divided by its own sigma."""
    found, bounds = drawn(truth, random)
    half = np.arange(120) % 2 == 1
    excess = (found.particles["position"] - truth.particles["position"])[half]
    found.particles["position"][half] += 9 * excess
    for series in range(2):
        bounds.place[series][half[truth.particles_of(series)]] *= 10
    order = random.permutation(120)
    bounds = dataclasses.replace(bounds, position=(bounds.position * np.where(half, 10, 1))[order],
                                 rotation=bounds.rotation[order])
    for series in range(2):
        mine = order[truth.particles["series"][order] == series] - truth.particles_of(series)[0]
        bounds.place[series] = bounds.place[series][mine]
    result = compare(found.select_particles(order), truth, bounds=bounds)["bound"]
    for name in ("projected", "position"):
        assert result[name]["variance"] == pytest.approx(1.0, abs=0.2), name
        assert result[name]["ratio"] == pytest.approx(1.0, abs=0.12), name


def test_projections_that_were_not_seen_and_fixed_parameters_have_no_bound(truth, random):
    found, bounds = drawn(truth, random)
    for series in range(2):
        bounds.seen[series][:, 1:] = False
        bounds.view[series][:, 0] = 0.0
    result = compare(found, truth, bounds=bounds)["bound"]
    assert result["projected"]["n"] == 120
    assert result["view"] == {"unit": "deg", "n": 0, "error": None, "bound": None, "ratio": None, "variance": None}
