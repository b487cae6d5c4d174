"""Large errors are found in noisy data: displacements, tilt shifts, and rotations with and without symmetry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pyp_cspr.engine.core.geometry import rotation_angle, rotation_vector_to_matrix
from pyp_cspr.engine.core.rotation_grid import random_rotations, symmetric_angle
from pyp_cspr.engine.core.symmetry import group_matrices
from pyp_cspr.engine.refine.search import (
    Candidates,
    SearchData,
    SearchSettings,
    search_exposure_shifts,
    search_rotations,
    search_translations,
)
from pyp_cspr.tests.series import EXTENT, make_series

COARSE = np.arange(-60, 61, 10)
FINE = np.arange(-60, 61, 5)
SETTINGS = SearchSettings(radius=EXTENT, tolerance=12.0, keep=3)


def displaced(truth, length: float, random: np.random.Generator):
    """The geometry with its particles up to ``length`` off, and by how much ``(P, 3)``."""
    moved = truth.copy()
    offset = random.normal(size=moved.positions.shape)
    offset *= length * random.uniform(0.3, 1.0, (len(offset), 1)) / np.linalg.norm(offset, axis=1, keepdims=True)
    moved.positions = moved.positions + offset
    return moved, offset


def test_displacements_up_to_30_angstrom_are_found(random: np.random.Generator) -> None:
    """From rotations that are 5 degrees off; to half a step of 5 angstrom, and better with the last Gauss-Newton step."""
    series = make_series(12, FINE, 0.03, offset=4.0)
    start, offset = displaced(series.truth, 30.0, random)
    turn = random.normal(size=(12, 3))
    start.poses = rotation_vector_to_matrix(np.deg2rad(5.0) * turn / np.linalg.norm(turn, axis=1, keepdims=True)) @ start.poses
    found, scores = search_translations(series.data, start, 20.0, 31.0)
    error = np.linalg.norm(found + offset, axis=1)
    assert error.max() < 5.0
    assert np.sqrt((error**2).mean()) < 2.5
    assert np.linalg.norm(found, axis=1).max() <= 31.0 + 1e-6
    assert scores.min() > 6.0
    nothing, before = search_translations(series.data, start, 20.0, 0.0)
    assert not nothing.any()
    assert (before < scores).all()


def test_tilt_shifts_up_to_60_angstrom_are_found(random: np.random.Generator) -> None:
    series = make_series(25, COARSE, 0.03)
    start, _ = displaced(series.truth, 6.0, random)
    angle = random.uniform(0, 2 * np.pi, len(COARSE))
    off = 60.0 * random.uniform(0.2, 1, len(COARSE))[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    start.shifts = start.shifts + off
    found, scores = search_exposure_shifts([series.data], start, 20.0, 62.0)
    assert np.linalg.norm(found + off, axis=1).max() < 7.5
    assert scores.min() > 4.0


@pytest.mark.parametrize("symmetry", ["C1", "C3"])
def test_random_rotations_are_found_over_all_of_them(symmetry: str, random: np.random.Generator) -> None:
    series = make_series(12, FINE, 0.02, symmetry, offset=3.0)
    start, offset = displaced(series.truth, 10.0, random)
    start.poses = random_rotations(12, random)
    settings = replace(SETTINGS, symmetry=symmetry, angle_step=12.0)
    found = search_rotations(series.data, start, settings, seed=3)
    angle = symmetric_angle(series.truth.poses[:, None], found.rotations, group_matrices(symmetry))
    assert (angle[:, 0] < 12.0).mean() >= 0.9
    assert (angle.min(axis=1) < 12.0).mean() >= 0.95
    good = angle[:, 0] < 12.0
    assert np.median(np.linalg.norm(found.displacements[:, 0] + offset, axis=1)[good]) < 3.0
    assert (np.diff(found.scores, axis=1) <= 0).all()
    for first in range(3):
        for second in range(first):  # candidates differ, also modulo symmetry
            apart = symmetric_angle(found.rotations[:, first], found.rotations[:, second], group_matrices(symmetry))
            assert apart.min() > 1.5 * 12.0 - 1e-6


def test_a_cone_about_the_start_is_searched(random: np.random.Generator) -> None:
    """25 degrees off: found within 35, out of reach of 10."""
    series = make_series(8, FINE, 0.03, "C3")
    start, _ = displaced(series.truth, 8.0, random)
    turn = random.normal(size=(8, 3))
    start.poses = rotation_vector_to_matrix(np.deg2rad(25.0) * turn / np.linalg.norm(turn, axis=1, keepdims=True)) @ start.poses
    for cone, near in ((35.0, True), (10.0, False)):
        found = search_rotations(series.data, start, replace(SETTINGS, cone=cone, symmetry="C3", tolerance=10.0), seed=1)
        there = found.scores > -np.inf
        assert rotation_angle(start.poses[:, None], found.rotations)[there].max() <= cone + 1e-6
        angle = rotation_angle(series.truth.poses, found.rotations[:, 0])
        assert (angle < SETTINGS.step()).mean() >= 0.9 if near else angle.min() > 14.0


def test_wide_cones_leave_out_symmetry_mates(random: np.random.Generator) -> None:
    """About a start that is right, a cone of 150 degrees holds all three mates of C3; the nearest is given."""
    series = make_series(4, COARSE, 0.05, "C3")
    found = search_rotations(series.data, series.truth, replace(SETTINGS, cone=150.0, symmetry="C3", tolerance=5.0), seed=1)
    assert rotation_angle(series.truth.poses, found.rotations[:, 0]).max() < SETTINGS.step()


def test_random_draws_find_rotations_too(random: np.random.Generator) -> None:
    series = make_series(8, FINE, 0.03, "C3")
    start, _ = displaced(series.truth, 5.0, random)
    start.poses = random_rotations(8, random)
    settings = replace(SETTINGS, symmetry="C3", tolerance=7.0, grid_search=False, random_iterations=9000)
    found = search_rotations(series.data, start, settings, seed=8)
    angle = symmetric_angle(series.truth.poses, found.rotations[:, 0], group_matrices("C3"))
    assert (angle < 15.0).mean() >= 0.9
    settings = replace(settings, cone=20.0, random_iterations=300)
    near = search_rotations(series.data, series.truth, settings, seed=8)
    assert rotation_angle(series.truth.poses, near.rotations[:, 0]).max() < 10.0


def same(first: Candidates, second: Candidates, rtol: float = 0.0) -> None:
    for one, other in zip(first, second):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e3 * rtol)


def test_seeds_decide_and_threads_and_order_do_not(random: np.random.Generator) -> None:
    series = make_series(6, COARSE, 0.05)
    settings = replace(SETTINGS, angle_step=25.0, tolerance=5.0)
    first = search_rotations(series.data, series.truth, settings, seed=1)
    same(first, search_rotations(replace(series.data, threads=3), series.truth, settings, seed=1))
    other = search_rotations(series.data, series.truth, settings, seed=2)
    assert rotation_angle(first.rotations, other.rotations).min() > 0.01
    order = random.permutation(len(series.data.particle))
    mixed = replace(series.data, **{name: getattr(series.data, name)[order] for name in
                                    ("weighted", "weight", "which", "particle", "exposure", "centre")})
    same(first, search_rotations(mixed, series.truth, settings, seed=1), 1e-5)


def test_blocks_of_particles_change_nothing(random: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    series = make_series(5, COARSE, 0.05)
    settings = replace(SETTINGS, angle_step=25.0, tolerance=5.0)
    whole = search_rotations(series.data, series.truth, settings, seed=1)
    shifts = search_exposure_shifts([series.data], series.truth, 20.0, 20.0)
    monkeypatch.setattr("pyp_cspr.engine.refine.search.MEMORY", 1)
    same(whole, search_rotations(series.data, series.truth, settings, seed=1))
    again = search_exposure_shifts([series.data], series.truth, 20.0, 20.0)
    np.testing.assert_array_equal(shifts[0], again[0])


def test_two_references_and_particles_without_projections(random: np.random.Generator) -> None:
    """A particle meets the reference of its own half, here of the wrong hand; one that nobody sees stays where it is."""
    series = make_series(5, FINE, 0.05)
    full = series.data
    keep = full.particle != 3
    data = SearchData(full.weighted[keep], full.weight[keep], full.band, full.field, full.scale,
                      [full.references[0], mirrored(full)], (full.particle[keep] % 2).astype(np.int64), full.particle[keep],
                      full.exposure[keep], full.centre[keep])
    found = search_rotations(data, series.truth, replace(SETTINGS, cone=40.0, tolerance=5.0), seed=1)
    expected = series.truth.poses.copy()
    np.testing.assert_array_equal(found.rotations[3], np.repeat(expected[3:4], 3, axis=0))
    assert not found.displacements[3].any()
    assert found.scores[3, 0] == 0.0
    assert rotation_angle(expected, found.rotations[:, 0])[[0, 2, 4]].max() < SETTINGS.step()
    assert found.scores[1, 0] < 0.8 * found.scores[[0, 2, 4], 0].min()  # the wrong hand matches worse
    moved, scores = search_translations(data, series.truth, 20.0, 10.0)
    assert not moved[3].any()
    assert scores[3] == 0.0


def mirrored(data: SearchData):
    """The first reference with its handedness changed."""
    from pyp_cspr.engine.core.projection import Reference
    from pyp_cspr.tests.series import BOX, blob_map

    return Reference(np.ascontiguousarray(blob_map("C1")[::-1]), 1.5, BOX // 2 - 1)


@pytest.mark.parametrize("bad", [{"radius": 0.0}, {"cone": 200.0}, {"keep": 0}, {"grid_search": False}, {"angle_step": -1.0}])
def test_settings_that_cannot_be_are_refused(bad: dict) -> None:
    series = make_series(1, [0.0], 0.0)
    with pytest.raises(ValueError, match=r"radius|cone|grid"):
        search_rotations(series.data, series.truth, replace(SETTINGS, **bad), seed=1)
