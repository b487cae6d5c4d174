"""Grids of rotations: no gaps, the right region, one of each set of mates, and the same ones for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core.geometry import rotation_angle, rotation_vector_to_matrix
from pyp_cspr.engine.core.rotation_grid import (
    cone_draws,
    cone_grid,
    full_grid,
    in_asymmetric_unit,
    quaternion_to_matrix,
    random_rotations,
    symmetric_angle,
)
from pyp_cspr.engine.core.symmetry import group_matrices


def farthest(rotations: np.ndarray, grid: np.ndarray, symmetry: str = "C1") -> float:
    """Degrees from a rotation to its nearest point of the grid or of the grid's mates, at most."""
    copies = (grid[:, None] @ group_matrices(symmetry)).reshape(-1, 9)
    trace = np.concatenate([(part.reshape(-1, 9) @ copies.T).max(axis=1) for part in np.array_split(rotations, 20)])
    return float(np.rad2deg(np.arccos(np.clip(0.5 * (trace.min() - 1), -1, 1))))


def test_quaternions_are_turns_about_their_axis() -> None:
    axis, angle = np.array([0.6, 0.0, 0.8]), 0.7
    expected = rotation_vector_to_matrix(axis * angle)
    np.testing.assert_allclose(quaternion_to_matrix([*(axis * np.sin(angle / 2)), np.cos(angle / 2)]), expected, atol=1e-12)


@pytest.mark.parametrize("step", [30.0, 20.0, 11.0])
def test_no_rotation_is_farther_than_the_step_from_the_grid(step: float, random: np.random.Generator) -> None:
    grid = full_grid(step, random)
    probes = random_rotations(3000, random)
    reach = farthest(probes, grid)
    assert 0.7 * step < reach < step  # and no grid that is needlessly fine


@pytest.mark.parametrize("symmetry", ["C1", "C3", "C7", "D2", "T", "O", "I1"])
def test_the_asymmetric_unit_covers_all_rotations_with_their_mates(symmetry: str, random: np.random.Generator) -> None:
    step, order = 12.0, len(group_matrices(symmetry))
    whole = full_grid(step, random)
    grid = whole[in_asymmetric_unit(whole, group_matrices(symmetry))]
    assert len(grid) == pytest.approx(len(whole) / order, rel=0.25)
    assert farthest(random_rotations(1500, random), grid, symmetry) < 1.05 * step  # seams join grids that do not continue
    # No two are mates of each other: halving the copies leaves holes.
    if order > 1:
        assert farthest(random_rotations(1500, random), grid) > 2 * step


def test_asymmetric_unit_lies_about_its_centre(random: np.random.Generator) -> None:
    group, centre = group_matrices("D3"), random_rotations(1, random)[0]
    rotations = random_rotations(500, random)
    inside = in_asymmetric_unit(rotations, group, centre)
    nearest = np.array([min(rotation_angle(centre, r @ g) for g in group) for r in rotations])
    np.testing.assert_array_equal(inside, rotation_angle(centre, rotations) <= nearest + 1e-6)


def test_cone_has_no_gaps_and_ends_where_it_should(random: np.random.Generator) -> None:
    cone, step = 30.0, 7.0
    grid = cone_grid(cone, step, random)
    np.testing.assert_array_equal(grid[0], np.eye(3))
    assert rotation_angle(np.eye(3), grid).max() <= cone + 1e-9
    vectors = random.normal(size=(2000, 3))
    vectors *= np.deg2rad(random.uniform(0, cone - step, (2000, 1))) / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert 0.6 * step < farthest(rotation_vector_to_matrix(vectors), grid) <= step
    assert 0.85 < len(grid) / (4 / 3 * np.pi * cone**3 / ((4 / np.sqrt(5) * step) ** 3 / 2)) < 1.15


def test_draws_are_uniform_within_the_cone(random: np.random.Generator) -> None:
    draws = cone_draws(20000, 180.0, random)[1:]
    assert abs(draws.mean(axis=0)).max() < 0.02  # uniform over all: no matrix element has a mean
    near = rotation_angle(np.eye(3), cone_draws(20000, 40.0, random)[1:])
    assert near.max() <= 40.0
    # The volume within an angle is theta - sin(theta).
    half = np.deg2rad(25.0)
    expected = (half - np.sin(half)) / (np.deg2rad(40.0) - np.sin(np.deg2rad(40.0)))
    assert (near < 25.0).mean() == pytest.approx(expected, abs=0.015)


def test_angle_knows_mates(random: np.random.Generator) -> None:
    group = group_matrices("C4")
    first = random_rotations(5, random)
    turned = rotation_vector_to_matrix(np.deg2rad([0.0, 3.0, 0.0])) @ first
    np.testing.assert_allclose(symmetric_angle(first, turned @ group[2], group), 3.0, atol=1e-6)
    assert (symmetric_angle(first, group[1] @ first, group) > 1.0).any()  # mates are on the right


def test_same_seed_same_grid() -> None:
    for make in (full_grid, lambda step, random: cone_grid(25.0, step, random)):
        first, again, other = (make(15.0, np.random.default_rng(seed)) for seed in (4, 4, 5))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first[1] - other[1]).max() > 1e-3
