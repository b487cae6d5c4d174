"""Rotations, projections and the forms of other programs. What the signs mean is in test_conventions.py."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pyp_cspr.engine.core import geometry as g


def random_rotations(random: np.random.Generator, count: int) -> np.ndarray:
    return Rotation.from_quat(random.normal(size=(count, 4))).as_matrix()


def test_euler_to_matrix_is_scipys_zyz(random):
    rot, tilt, psi = random.uniform(-180, 180, (3, 50))
    expected = Rotation.from_euler("ZYZ", np.stack([-psi, -tilt, -rot], 1), degrees=True).as_matrix()
    np.testing.assert_allclose(g.euler_to_matrix(rot, tilt, psi), expected, atol=1e-14)


def test_euler_matrices_round_trip_in_any_leading_shape(random):
    matrices = random_rotations(random, 120).reshape(4, 5, 6, 3, 3)
    rot, tilt, psi = g.matrix_to_euler(matrices)
    assert rot.shape == (4, 5, 6)
    assert tilt.min() >= 0
    assert tilt.max() <= 180
    np.testing.assert_allclose(g.euler_to_matrix(rot, tilt, psi), matrices, atol=1e-12)


def test_angles_inside_the_range_come_back_as_they_went_in(random):
    rot, psi = random.uniform(-179, 179, (2, 50))
    tilt = random.uniform(1, 179, 50)
    back = g.matrix_to_euler(g.euler_to_matrix(rot, tilt, psi))
    np.testing.assert_allclose(back, [rot, tilt, psi], atol=1e-10)


@pytest.mark.parametrize("tilt", [0.0, 180.0])
@pytest.mark.parametrize(("rot", "psi"), [(0, 0), (30, 0), (0, -50), (110, 95), (-170, 160), (180, 180)])
def test_degenerate_tilt_gives_psi_zero_and_the_same_matrix(tilt, rot, psi):
    matrix = g.euler_to_matrix(rot, tilt, psi)
    found = g.matrix_to_euler(matrix)
    assert found[1] == pytest.approx(tilt, abs=1e-6)
    assert found[2] == 0.0
    np.testing.assert_allclose(g.euler_to_matrix(*found), matrix, atol=1e-8)


@pytest.mark.parametrize("tilt", [1e-7, 1e-4, 180 - 1e-7])
def test_nearly_degenerate_tilt_keeps_the_matrix(tilt):
    matrix = g.euler_to_matrix(37.0, tilt, -118.0)
    np.testing.assert_allclose(g.euler_to_matrix(*g.matrix_to_euler(matrix)), matrix, atol=1e-8)


def test_rotation_vector_is_the_matrix_exponential(random):
    vectors = random.normal(size=(40, 3)) * np.logspace(-10, 0.4, 40)[:, None]
    np.testing.assert_allclose(g.rotation_vector_to_matrix(vectors), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-14)
    np.testing.assert_array_equal(g.rotation_vector_to_matrix(np.zeros(3)), np.eye(3))
    quarter = g.rotation_vector_to_matrix([0.0, 0.0, np.pi / 2])
    np.testing.assert_allclose(quarter, g.rotation_z(90.0), atol=1e-15)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 45.0, 120.0, 179.9999, 180.0])
def test_rotation_angle_is_exact_from_zero_to_half_a_turn(random, angle):
    first = random_rotations(random, 1)[0]
    axis = random.normal(size=3)
    second = first @ Rotation.from_rotvec(np.deg2rad(angle) * axis / np.linalg.norm(axis)).as_matrix()
    assert float(g.rotation_angle(first, second)) == pytest.approx(angle, rel=1e-6, abs=1e-9)
    assert float(g.rotation_angle(second, first)) == pytest.approx(angle, rel=1e-6, abs=1e-9)


def test_tilt_matrices_round_trip(random):
    xtilt, zrot = random.uniform(-179, 179, (2, 60))
    ytilt = random.uniform(-89, 89, 60)
    np.testing.assert_allclose(g.matrix_to_tilt(g.tilt_to_matrix(xtilt, ytilt, zrot)), [xtilt, ytilt, zrot], atol=1e-10)
    matrices = random_rotations(random, 60)
    np.testing.assert_allclose(g.tilt_to_matrix(*g.matrix_to_tilt(matrices)), matrices, atol=1e-12)


def test_project_broadcasts_particles_over_exposures(random):
    rotations, shifts = random_rotations(random, 4), random.normal(size=(4, 2))
    positions = random.normal(size=(7, 3))
    seen, depth = g.project(rotations, shifts, positions[:, None, :])
    assert seen.shape == (7, 4, 2)
    assert depth.shape == (7, 4)
    for p in range(7):
        for e in range(4):
            expected = rotations[e] @ positions[p]
            np.testing.assert_allclose(seen[p, e], expected[:2] + shifts[e], atol=1e-14)
            assert depth[p, e] == pytest.approx(expected[2], abs=1e-14)


def test_imod_round_trip(random):
    tilt, xtilt = random.uniform(-60, 60, 20), random.uniform(-5, 5, 20)
    angle = random.uniform(-179, 179, 20)
    linear = g.rotation_z(angle)[:, :2, :2]
    offset = random.normal(scale=30, size=(20, 2))
    rotation, shift = g.imod_to_exposure(linear, offset, tilt, xtilt, 1.7)
    back = g.exposure_to_imod(rotation, shift, 1.7)
    for found, expected in zip(back, (linear, offset, tilt, xtilt)):
        np.testing.assert_allclose(found, expected, atol=1e-10)


def test_imod_magnification_moves_positions_but_not_orientations():
    linear = 1.02 * g.rotation_z(85.0)[:2, :2]
    rotation, shift = g.imod_to_exposure(linear, [10.0, -4.0], 20.0, 0.0, 2.0)
    np.testing.assert_allclose(rotation, g.tilt_to_matrix(0.0, 20.0, -85.0), atol=1e-14)
    np.testing.assert_allclose(linear @ shift / 2.0 + [10.0, -4.0], 0.0, atol=1e-12)  # it is seen where F raw + d = 0


def test_pyp_particle_angles_round_trip(random):
    matrices = random_rotations(random, 40)
    np.testing.assert_allclose(g.pyp_to_particle(*g.particle_to_pyp(matrices)), matrices, atol=1e-12)
