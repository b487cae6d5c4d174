"""PYP's geometry: reference values, planted points, and each trap of the format under its own name."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pyp_cspr.engine.core import geometry as g
from pyp_cspr.engine.core.splines import grid_weights
from pyp_cspr.engine.io import pyp_geometry as pyp


def rx(a):
    return Rotation.from_euler("x", a, degrees=True).as_matrix()


def ry(a):
    return Rotation.from_euler("y", a, degrees=True).as_matrix()


def rz(a):
    return Rotation.from_euler("z", a, degrees=True).as_matrix()


# TILTAN, AXIS, NORM, R, t -> PSI, THETA, PHI, SHX, SHY, as PYP's own code computes them
VECTORS = [
    (30.0, 0.0, (0, 0, 0), np.eye(3), (0, 0, 0), (180, 30, 180), (0, 0)),
    (30.0, -85.3, (0, 0, 0), np.eye(3), (0, 0, 0), (94.7, 30, 180), (0, 0)),
    (-42.0, 85.3, (40, 0, 110), np.eye(3), (2, -3, 5), (159.1394, 13.2318, 180.9981), (1.8803, 3.8892)),
    (17.0, 12.0, (63, 0, -140), rz(25) @ rx(50) @ rz(-70), (1.5, -2.25, 0.75), (7.2182, 7.4548, 88.9173), (-0.4485, -1.1670)),
]


def wrapped(difference):
    return (np.asarray(difference, float) + 180.0) % 360.0 - 180.0


@pytest.mark.parametrize("vector", VECTORS)
def test_parx_lines_give_the_projections_of_pyp(vector) -> None:
    tilt, axis, norm, matrix, t, angles, shift = vector
    rotation, s = pyp.parx_to_particle(norm, np.column_stack([matrix, t]), np.zeros(3))
    found = pyp.project_particles(rotation, s, tilt, axis, np.zeros(2))
    assert_allclose(wrapped(np.subtract(found[:3], angles)), 0.0, atol=1e-4)
    assert_allclose(found.shift, shift, atol=1e-4)
    other = pyp.project_particles(rotation, -s, tilt, -axis if axis else 90.0, np.zeros(2))
    assert np.abs(wrapped(np.subtract(other[:3], angles))).max() > 1


def naive_projection(tilt, axis, norm, matrix, residual, tilt_shift, frame_shift):
    """PYP's formulas written out with SciPy's matrices: (E_pk, SHX, SHY)."""
    mirror = np.diag([1.0, -1.0, 1.0])
    outer = rz(norm[2]) @ rx(norm[0]) @ rz(norm[1])
    particle = (outer @ mirror @ matrix[:, :3] @ mirror).T
    psi, theta, phi = -np.asarray(residual)
    particle = rz(phi) @ ry(theta) @ rz(psi) @ particle  # E(-q) E_p
    s = -outer @ mirror @ matrix[:, 3]
    seen = rz(-axis) @ ry(tilt)
    return particle @ ry(-tilt) @ rz(axis), -(seen @ s)[:2] + tilt_shift + frame_shift


def test_random_parx_lines_with_residual_angles_and_shifts(random) -> None:
    for _ in range(200):
        tilt, axis = random.uniform(-70, 70), random.uniform(-180, 180)
        norm, residual = random.uniform(-180, 180, (2, 3))
        matrix = np.column_stack([Rotation.from_quat(random.normal(size=4)).as_matrix(), random.normal(0, 8, 3)])
        tilt_shift, frame_shift = random.normal(0, 30, (2, 2))
        expected, shift = naive_projection(tilt, axis, norm, matrix, residual, tilt_shift, frame_shift)
        rotation, s = pyp.parx_to_particle(norm, matrix, residual)
        found = pyp.project_particles(rotation, s, tilt, axis, tilt_shift, frame_shift)
        assert_allclose(rz(found.phi) @ ry(found.theta) @ rz(found.psi), expected, atol=1e-10)
        assert_allclose(found.shift, shift, atol=1e-10)
        assert all(0 <= angle < 360 for angle in found[:3])
        assert_allclose(pyp.projection_matrix(*found[:3]), (rz(-axis) @ ry(tilt)) @ rotation, atol=1e-10)


def test_trap_residual_angles_turn_in_the_reference_frame(random) -> None:
    """E_total = E(-q) E_p: in the specimen's frame they would give another particle."""
    norm, residual = (63.0, 20.0, -140.0), (31.0, -18.0, 5.0)
    matrix = np.column_stack([rz(25) @ rx(50), np.zeros(3)])
    plain, _ = pyp.parx_to_particle(norm, matrix, np.zeros(3))
    turned, _ = pyp.parx_to_particle(norm, matrix, residual)
    by = g.pyp_to_particle(*residual)
    assert_allclose(turned, plain @ by, atol=1e-12)
    assert g.rotation_angle(turned, by @ plain) > 5


def test_parx_matrices_of_four_decimals_become_rotations(random) -> None:
    exact = Rotation.from_quat(random.normal(size=(20, 4))).as_matrix()
    rounded = np.concatenate([np.round(exact, 4), np.zeros((20, 3, 1))], axis=2)
    rotation, _ = pyp.parx_to_particle(np.zeros((20, 3)), rounded, np.zeros((20, 3)))
    assert_allclose(rotation @ np.swapaxes(rotation, 1, 2), np.tile(np.eye(3), (20, 1, 1)), atol=1e-12)


# --- planted points: an atom of the reference is followed to the image, once by PYP's words and once by the specimen --------

SIZE, PIXEL, IMAGE = np.array([480, 512, 160]), 1.7, (400, 420)


def planted(random, stored):
    """An atom of a particle whose alignment is (N, R, t): where it lies in the specimen, by PYP's x = x_pos + N (R~ x + t~)."""
    norm = random.uniform(-180, 180, 3)
    matrix = np.column_stack([Rotation.from_quat(random.normal(size=4)).as_matrix(), random.normal(0, 5, 3)])
    mirror = np.diag([1.0, -1.0, 1.0])
    outer = rz(norm[2]) @ rx(norm[0]) @ rz(norm[1])
    atom = random.normal(0, 10, 3)
    lies = np.asarray(stored) + outer @ (mirror @ matrix[:, :3] @ mirror @ atom + mirror @ matrix[:, 3])
    return norm, matrix, atom, lies


def test_trap_the_sign_of_a_folded_shift(random) -> None:
    """02 writes +s in one place and -s in another. A planted atom: true position = stored - s, added once."""
    stored = np.array([211.0, 300.0, 91.0])
    norm, matrix, atom, lies = planted(random, stored)
    full = np.eye(4)[None].copy()
    full[0, :3] = matrix
    rotation, moved = pyp.volume_to_particle(norm[None], full, 1.0)
    assert_allclose(stored + moved[0] + rotation[0] @ atom, lies, atol=1e-9)
    assert np.linalg.norm(stored - moved[0] + rotation[0] @ atom - lies) > 5
    _, s = pyp.parx_to_particle(norm, matrix, np.zeros(3))
    position = pyp.position_to_specimen(stored, s * PIXEL, SIZE, PIXEL)
    assert_allclose(position + rotation[0] @ atom * PIXEL, (lies - SIZE / 2) * PIXEL, atol=1e-9)


def test_trap_double_counted_sub_volume_shift(random) -> None:
    """The shift is in the start position, so s must be 0: counted twice the particle would be seen 2 |M s| off."""
    norm, matrix, *_ = planted(random, (211.0, 300.0, 91.0))
    full = np.eye(4)[None].copy()
    full[0, :3] = matrix
    _, moved = pyp.volume_to_particle(norm[None], full, 4.0)
    _, s = pyp.parx_to_particle(norm, matrix, np.zeros(3))
    assert_allclose(moved[0], -4.0 * s, atol=1e-9)
    recentred = pyp.position_to_specimen(np.array([211.0, 300.0, 91.0]) + moved[0], np.zeros(3), SIZE, PIXEL)
    twice = pyp.position_to_specimen(np.array([211.0, 300.0, 91.0]) + moved[0], 4.0 * s * PIXEL, SIZE, PIXEL)
    once = pyp.position_to_specimen(np.array([211.0, 300.0, 91.0]), 4.0 * s * PIXEL, SIZE, PIXEL)
    assert_allclose(recentred, once, atol=1e-9)
    assert np.linalg.norm(twice - recentred) > 10


def test_a_projection_lands_where_its_atom_is_seen(random) -> None:
    """The atom's place in the raw image by PYP's 2.3, against crop centre + SHX + the slice's own coordinates."""
    tilts, axis = np.array([-51.0, 0.0, 33.0]), -84.0
    linear = np.tile(rz(axis)[:2, :2], (3, 1, 1))
    offset = random.normal(0, 6, (3, 2))
    stored = np.array([211.0, 300.0, 91.0])
    norm, matrix, atom, lies = planted(random, stored)
    rotation, s = pyp.parx_to_particle(norm, matrix, np.zeros(3))
    seen = pyp.raw_positions(lies[None], SIZE, tilts, linear, offset, IMAGE)[0]
    centre = pyp.raw_positions(stored[None], SIZE, tilts, linear, offset, IMAGE)[0]
    one = pyp.project_particles(rotation, s, tilts, axis, np.zeros((3, 2)))
    slices = pyp.projection_matrix(*one[:3])
    assert_allclose(centre + one.shift + (slices @ atom)[:, :2], seen, atol=1e-9)
    assert np.abs(centre - one.shift + (slices @ atom)[:, :2] - seen).max() > 2
    # and the engine's own: u = T x + b
    base = pyp.pixel_to_image(pyp.raw_shift(linear, offset) + np.array(IMAGE) / 2, IMAGE, PIXEL)
    u, _ = g.project(g.pyp_tilt_matrix(tilts, axis), base, (lies - SIZE / 2) * PIXEL)
    assert_allclose(pyp.image_to_pixel(u, IMAGE, PIXEL), seen, atol=1e-9)


def test_raw_positions_are_the_formula_of_pyp_written_out(random) -> None:
    """Inverse .xf from IMOD's definition; the canvas has the tomogram's size, the raw image its own."""
    tilt, linear, offset = 27.0, rz(84.0)[:2, :2] * 1.01, np.array([7.0, -12.0])
    inverse = np.linalg.inv(linear)
    dx, dy = -inverse @ offset
    x, y, z = stored = np.array([100.0, 350.0, 40.0])
    cx, cy, cz = SIZE / 2
    tx = (x - cx) * np.cos(np.deg2rad(tilt)) + (z - cz) * np.sin(np.deg2rad(tilt))
    u = inverse[0, 0] * tx + inverse[0, 1] * (y - cy) + dx + cx
    v = inverse[1, 0] * tx + inverse[1, 1] * (y - cy) + dy + cy
    expected = u - (SIZE[0] - IMAGE[0]) / 2, v - (SIZE[1] - IMAGE[1]) / 2
    found = pyp.raw_positions(stored[None], SIZE, [tilt], linear[None], offset[None], IMAGE)[0, 0]
    assert_allclose(found, expected, atol=1e-9)


def test_trap_the_z_of_picked_points_counts_from_the_other_end() -> None:
    found = pyp.model_to_positions([[10.0, 20.0, 5.0]], [480, 512, 160], 4)
    assert_allclose(found, [[40.0, 80.0, 140.0]])


def test_stored_positions_are_whole_and_lose_nothing(random) -> None:
    position = random.uniform(-3000, 3000, (50, 3))
    stored, s = pyp.specimen_to_position(position, SIZE, PIXEL)
    assert (stored == np.rint(stored)).all()
    assert np.abs(s).max() <= PIXEL / 2 + 1e-9
    back = pyp.position_to_specimen(stored.astype(np.float32), s.astype(np.float32), SIZE, PIXEL)
    assert_allclose(back, position, atol=1e-6)


def test_sub_volume_rows_of_poses_read_back(random) -> None:
    rotation = Rotation.from_quat(random.normal(size=(9, 4))).as_matrix()
    normal, matrix = pyp.particle_to_volume(rotation)
    again, moved = pyp.volume_to_particle(normal, matrix, 2.0)
    assert_allclose(again, rotation, atol=1e-12)
    assert_allclose(moved, 0.0)


def test_tilts_of_exposures_and_a_common_turn_about_x(random) -> None:
    tilt, zrot = random.uniform(-60, 60, 7), random.uniform(80, 90, 7)
    rotation = g.tilt_to_matrix(np.full(7, 4.0), tilt, zrot)
    found = pyp.exposures_to_tilts(rotation)
    assert found.lost < 1e-9
    assert_allclose(g.pyp_tilt_matrix(found.tilt, found.axis) @ found.turn, rotation, atol=1e-12)
    uneven = pyp.exposures_to_tilts(g.tilt_to_matrix(np.linspace(0, 0.6, 7), tilt, zrot))
    assert uneven.lost == pytest.approx(0.3)


def test_trap_the_stored_axis_is_the_rotation_of_the_forward_xf() -> None:
    linear = rz(-85.3)[None, :2, :2] * 1.002
    assert_allclose(pyp.tilt_axis(linear), -85.3)
    assert_allclose(pyp.tilt_axis(np.linalg.inv(linear)), 85.3)


def test_a_magnification_in_the_xf_is_a_deformation(random) -> None:
    """PYP crops by the whole inverse of the .xf. The rigid exposure with its deformation sees particles at the same place."""
    tilts, offset = np.array([-40.0, 20.0]), random.normal(0, 5, (2, 2))
    linear = np.stack([rz(-85.0)[:2, :2] * 1.02, rz(-84.0)[:2, :2] @ np.array([[0.99, 0.004], [0.0, 1.0]])])
    stored = random.uniform(0.2, 0.8, (12, 3)) * SIZE
    expected = pyp.raw_positions(stored, SIZE, tilts, linear, offset, IMAGE)
    extent = np.array(IMAGE) * PIXEL
    rotation = g.pyp_tilt_matrix(tilts, pyp.tilt_axis(linear))
    place = np.einsum("eij,pj->pei", rotation, (stored - SIZE / 2) * PIXEL)[..., :2]
    base = pyp.pixel_to_image(pyp.raw_shift(linear, offset) + np.array(IMAGE) / 2, IMAGE, PIXEL)
    for grid in (2, 3):
        values = pyp.affine_deformation(linear, extent, grid)[:, : 2 * grid**2].reshape(2, grid**2, 2)
        bent = np.einsum("peb,ebi->pei", grid_weights(place, extent, grid), values)
        assert_allclose(pyp.image_to_pixel(place + base + bent, IMAGE, PIXEL), expected, atol=1e-9)
    assert np.abs(pyp.image_to_pixel(place + base, IMAGE, PIXEL) - expected).max() > 1


@pytest.mark.parametrize("hand", [1.0, -1.0])
def test_defocus_of_an_inclined_plane_away_from_the_centre(random, hand) -> None:
    """A plane of particles; the defocus is measured at the image's centre. Each particle's own follows from its depth."""
    height, offset = 220.0, np.array([[35.0, -14.0]])
    for tilt in (-50.0, 0.0, 38.0):
        axis = -85.0
        linear = rz(axis)[None, :2, :2]
        exposure = g.pyp_tilt_matrix(tilt, axis)
        base = pyp.raw_shift(linear, offset)[0] * PIXEL
        # the point of the plane that is seen at the image's centre: solve (T x)_xy = -b with z = height
        xy = np.linalg.solve(exposure[:2, :2], -base - exposure[:2, 2] * height)
        depth_at_centre = (exposure @ np.append(xy, height))[2]
        centre_of_tomogram = 30000.0
        measured = centre_of_tomogram + hand * depth_at_centre
        added = pyp.plane_defocus(tilt, offset, height, PIXEL, hand)[0]
        assert measured + added == pytest.approx(centre_of_tomogram, abs=1e-6)


def test_the_defocus_of_a_particle_is_pyps_formula_at_its_hand() -> None:
    """dDF = -px [(Z - z_spec) cos a - (X - cX) sin a] for a plane at z_spec seen without a shift, to first order of a."""
    x, z, z_spec, tilt = 300.0, 70.0, 95.0, 4.0
    a = np.deg2rad(tilt)
    ddf = -PIXEL * ((z - z_spec) * np.cos(a) - (x - SIZE[0] / 2) * np.sin(a))
    position = pyp.position_to_specimen([x, 256.0, z], np.zeros(3), SIZE, PIXEL)
    depth = (g.pyp_tilt_matrix(tilt, -85.0) @ position)[2]
    height = (z_spec - SIZE[2] / 2) * PIXEL
    ours = pyp.plane_defocus(tilt, np.zeros(2), height, PIXEL, -1.0) - depth
    assert ours == pytest.approx(ddf, abs=0.2)
