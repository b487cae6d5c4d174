"""Motions that no image can tell are removed, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core.gauge import (
    Geometry,
    apply_gauge,
    apply_reference_motion,
    find_gauge,
    mean_rotation,
    nearest_equivalent,
    remove_gauge,
    rotation_vectors,
)
from pyp_cspr.engine.core.geometry import project, rotation_angle, rotation_vector_to_matrix, tilt_to_matrix
from pyp_cspr.engine.core.symmetry import group_matrices


def turns(random, count, degrees=None):
    """Random rotations of any size, or of ``degrees`` rms for each component."""
    if degrees is None:
        q = random.normal(size=(count, 3))
        return rotation_vector_to_matrix(q / np.linalg.norm(q, axis=1, keepdims=True) * random.uniform(0, np.pi, (count, 1)))
    return rotation_vector_to_matrix(np.deg2rad(random.normal(0, degrees, (count, 3))))


def series(random, particles=30, exposures=15):
    angles = np.linspace(-60, 60, exposures)
    return Geometry(
        turns(random, particles), random.normal(0, 900, (particles, 3)) * [1, 1, 0.3],
        tilt_to_matrix(np.full(exposures, 1.0), angles, np.full(exposures, 85.0)), random.normal(0, 20, (exposures, 2)),
    )


def assert_same(found, wanted, group=None, angle=1e-5, length=1e-4):
    copies = found.rotations if group is None else nearest_equivalent(found.rotations, wanted.rotations, group)
    assert rotation_angle(copies, wanted.rotations).max() < angle
    assert rotation_angle(found.tilts, wanted.tilts).max() < angle
    assert np.abs(found.positions - wanted.positions).max() < length
    assert np.abs(found.shifts - wanted.shifts).max() < length


def test_gauge_leaves_every_projection_as_it_is(random):
    truth = series(random)
    moved = apply_gauge(truth, turns(random, 1)[0], random.normal(0, 100, 3))
    views = [geometry.tilts[None] @ geometry.rotations[:, None] for geometry in (truth, moved)]
    assert np.allclose(*views, atol=1e-12)
    seen = [project(geometry.tilts, geometry.shifts, geometry.positions[:, None])[0] for geometry in (truth, moved)]
    assert np.allclose(*seen, atol=1e-9)
    assert np.abs(moved.positions - truth.positions).max() > 50


def test_reference_motion_moves_the_map_with_its_particles(random):
    """An atom at G x' + d of the old reference, x' in the new one, stays where it is in the specimen."""
    truth = series(random)
    turn, shift = turns(random, 1)[0], random.normal(0, 5, 3)
    moved = apply_reference_motion(truth, turn, shift)
    atom = random.normal(0, 30, 3)
    old = truth.positions + truth.rotations @ (turn @ atom + shift)
    assert np.allclose(moved.positions + moved.rotations @ atom, old, atol=1e-9)


@pytest.mark.parametrize("degrees", [0.01, 5.0, 90.0, 179.9])
@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2", "O"])
def test_a_random_gauge_is_removed_exactly(random, degrees, symmetry):
    truth, group = series(random), group_matrices(symmetry)
    axis = random.normal(size=3)
    rotation = rotation_vector_to_matrix(np.deg2rad(degrees) * axis / np.linalg.norm(axis))
    moved = apply_gauge(truth, rotation, random.normal(0, 200, 3))
    copies = moved.rotations @ group[random.integers(0, len(group), 30)]
    scrambled = Geometry(copies, moved.positions, moved.tilts, moved.shifts)
    back = apply_gauge(scrambled, *find_gauge(scrambled, truth, group))
    assert_same(back, truth, group)


def test_what_is_exact_decides(random):
    """Noisy rotations do not turn a frame that positions and tilts fix."""
    truth = series(random)
    noisy = Geometry(truth.rotations @ turns(random, 30, 3.0), truth.positions, truth.tilts, truth.shifts)
    rotation, translation = find_gauge(noisy, truth, group_matrices("C1"))
    assert rotation_angle(np.eye(3), rotation) < 2e-3
    assert np.abs(translation).max() < 0.02


def test_errors_stay_after_a_gauge_is_removed(random):
    """The errors found after removal are those put in, although a large motion came on top."""
    truth = series(random, 200, 41)
    noisy = Geometry(
        truth.rotations @ turns(random, 200, 1.0), truth.positions + random.normal(0, 3, (200, 3)),
        truth.tilts @ turns(random, 41, 0.2), truth.shifts + random.normal(0, 2, (41, 2)),
    )
    moved = apply_gauge(noisy, turns(random, 1)[0], random.normal(0, 200, 3))
    back = apply_gauge(moved, *find_gauge(moved, truth, group_matrices("C1")))

    def rms(values):
        return np.sqrt(np.mean(np.square(values)))

    assert rms(rotation_angle(back.rotations, truth.rotations)) == pytest.approx(np.sqrt(3) * 1.0, rel=0.1)
    assert rms(back.positions - truth.positions) == pytest.approx(3.0, rel=0.1)
    assert rms(rotation_angle(back.tilts, truth.tilts)) == pytest.approx(np.sqrt(3) * 0.2, rel=0.2)
    assert rms(back.shifts - truth.shifts) == pytest.approx(2.0, rel=0.2)


def test_gauge_is_a_minimum(random):
    """No small motion makes the weighted sum of squares less: the derivatives are right."""
    truth = series(random, 12, 7)
    noisy = apply_gauge(
        Geometry(truth.rotations @ turns(random, 12, 2.0), truth.positions + random.normal(0, 5, (12, 3)),
                 truth.tilts @ turns(random, 7, 1.0), truth.shifts + random.normal(0, 4, (7, 2))),
        turns(random, 1)[0], np.array([120.0, -50.0, 80.0]))
    group = group_matrices("C1")
    rotation, translation = find_gauge(noisy, truth, group)

    def parts(rotation, translation):
        moved = apply_gauge(noisy, rotation, translation)
        return np.array([
            np.sum(rotation_vectors(moved.rotations @ np.swapaxes(truth.rotations, 1, 2)) ** 2),
            np.sum((moved.positions - truth.positions) ** 2),
            np.sum(rotation_vectors(np.swapaxes(moved.tilts, 1, 2) @ truth.tilts) ** 2),
            np.sum((moved.shifts - truth.shifts) ** 2),
        ])

    best = parts(rotation, translation)
    weight = np.array([36, 36, 21, 14]) / best  # one over each kind's mean square
    for direction in range(6):
        for size in (0.5, -0.5):
            step = np.zeros(6)
            step[direction] = size * (np.deg2rad(0.3) if direction < 3 else 1.0)
            other = parts(rotation_vector_to_matrix(step[:3]) @ rotation, translation + step[3:])
            assert weight @ other > weight @ best


def test_single_tilt_and_single_particle(random):
    truth = series(random, 1, 1)
    moved = apply_gauge(truth, turns(random, 1)[0], random.normal(0, 50, 3))
    assert_same(apply_gauge(moved, *find_gauge(moved, truth, group_matrices("C1"))), truth)


def test_reference_motion_is_removed_over_all_series(random):
    truths = [series(random, 20, 9) for _ in range(3)]
    group = group_matrices("C1")
    turn, shift = turns(random, 1, 4.0)[0], np.array([2.0, -3.0, 1.0])
    moved = [
        apply_gauge(apply_reference_motion(truth, turn, shift), turns(random, 1, 10.0)[0], random.normal(0, 30, 3))
        for truth in truths
    ]
    found, found_turn, found_shift = remove_gauge(moved, truths, group, reference=True)
    for geometry, truth in zip(found, truths):
        assert_same(geometry, truth, angle=1e-3, length=1e-2)
    assert rotation_angle(found_turn, turn.T) < 1e-3
    assert np.allclose(found_shift, -turn.T @ shift, atol=1e-2)
    kept, _, _ = remove_gauge(moved, truths, group)
    assert rotation_angle(kept[0].rotations, truths[0].rotations).mean() > 1


def test_reference_turn_about_the_symmetry_axis(random):
    """A C3 reference is free to turn about z and to slide along it."""
    truths, group = [series(random, 25, 9) for _ in range(2)], group_matrices("C3")
    turn = rotation_vector_to_matrix(np.array([0, 0, 0.4]))
    moved = [apply_reference_motion(truth, turn, np.array([0, 0, 4.0])) for truth in truths]
    found, _, _ = remove_gauge(moved, truths, group, reference=True)
    for geometry, truth in zip(found, truths):
        assert_same(geometry, truth, group, angle=1e-3, length=1e-2)


def test_symmetry_equivalents_count_as_zero(random):
    group = group_matrices("D3")
    rotations = turns(random, 40)
    copies = rotations @ group[random.integers(0, len(group), 40)]
    assert rotation_angle(copies, rotations).max() > 50
    assert rotation_angle(nearest_equivalent(copies, rotations, group), rotations).max() < 1e-5


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.3, 2.0, np.pi - 1e-7, np.pi])
def test_rotation_vectors_invert(random, angle):
    axis = random.normal(size=3)
    vector = angle * axis / np.linalg.norm(axis)
    matrix = rotation_vector_to_matrix(vector)
    found = rotation_vectors(matrix[None])[0]
    assert np.allclose(rotation_vector_to_matrix(found), matrix, atol=1e-6)
    assert np.linalg.norm(found) == pytest.approx(angle, abs=1e-6)


def test_mean_rotation_is_proper(random):
    base = turns(random, 1)[0]
    mean = mean_rotation(base @ turns(random, 500, 2.0))
    assert rotation_angle(mean, base) < 0.5
    assert np.linalg.det(mean_rotation(np.diag([1.0, 1.0, -1.0])[None])) == pytest.approx(1)
