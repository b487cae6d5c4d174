"""Every mode's chain rule against finite differences of the geometry itself, and the table of modes."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core.gauge import rotation_vectors
from pyp_cspr.engine.core.geometry import rotation_vector_to_matrix, tilt_to_matrix
from pyp_cspr.engine.refine.parameters import (
    EXPOSURE_MODES,
    LARGEST_MAGNIFICATION,
    LOCAL,
    LOCAL_AMPLITUDE,
    LOCAL_CTF,
    LOCAL_MAGNIFICATION,
    MODES,
    PARTICLE_MODES,
    Layout,
    SeriesGeometry,
    local_size,
    prior_sigmas,
)


@pytest.fixture(params=[1.0, -1.0], ids=["hand+", "hand-"])
def geometry(request, random: np.random.Generator) -> SeriesGeometry:
    """General in everything: third angles, a 3 x 3 deformation, 4 x 4 regions of defocus, some particles beyond their field."""
    particles, exposures = 5, 4
    return SeriesGeometry(
        tilt_to_matrix(random.normal(size=exposures) * 3, [-50.0, -10, 20, 60], [85.0, 84, -95, 86]),
        random.normal(size=(exposures, 2)) * 10, rotation_vector_to_matrix(random.normal(size=(particles, 3))),
        random.uniform(-1, 1, (particles, 3)) * [1800, 1600, 400], (3000.0, 3400.0), 3,
        random.normal(size=(exposures, 9, 2)) * 30, request.param, random.normal(size=(exposures, 3)) * 100,
        random.normal(size=particles) * 50, random.normal(size=exposures) * 0.1, 1 + random.normal(size=exposures) * 0.01,
        4, random.normal(size=(exposures, 16)) * 200, random.normal(size=exposures) * 0.1,
    )


def seen(geometry: SeriesGeometry, reference: SeriesGeometry) -> np.ndarray:
    """What a projection's local parameters change, (P, E, 11): rotation against ``reference``, centre, amplitude, defocus,
    phase, magnification."""
    turned = rotation_vectors(geometry.orientations() @ np.swapaxes(reference.orientations(), -1, -2))
    amplitude, phase, magnification = (
        np.broadcast_to(values[:, None], turned.shape[:2] + (1,))
        for values in (geometry.amplitude, geometry.phase, np.log(geometry.magnification))
    )
    return np.concatenate([turned, geometry.centres(), amplitude, geometry.defocus_changes(), phase, magnification], axis=-1)


@pytest.mark.parametrize("name", list(MODES))
def test_chain_rule_is_the_finite_difference_of_the_geometry(name: str, geometry: SeriesGeometry) -> None:
    mode = MODES[name]
    expected = mode.derivative(geometry, LOCAL_MAGNIFICATION)
    rows = len(geometry.poses) if mode in PARTICLE_MODES else len(geometry.tilts)
    step = 1e-3 if mode.unit == "A" else 1e-6
    for column in range(mode.columns(geometry)):
        sides = []
        for sign in (1, -1):
            moved = geometry.copy()
            change = np.zeros((rows, mode.columns(geometry)))
            change[:, column] = sign * step
            mode.move(moved, change)
            sides.append(seen(moved, geometry))
        difference = (sides[0] - sides[1]) / (2 * step)
        scale = np.abs(difference).max()
        assert scale > 0
        np.testing.assert_allclose(expected[..., column], difference, atol=1e-6 * max(scale, 1.0))


@pytest.mark.parametrize("name", [name for name, mode in MODES.items() if mode.local < LOCAL_MAGNIFICATION])
def test_with_fewer_local_parameters_the_first_rows_are_the_same(name: str, geometry: SeriesGeometry) -> None:
    mode = MODES[name]
    every = mode.derivative(geometry, LOCAL_MAGNIFICATION)
    for local in {mode.local, LOCAL_AMPLITUDE, LOCAL_CTF} - set(range(mode.local)):
        np.testing.assert_array_equal(every[:, :, :local], mode.derivative(geometry, local))


@pytest.mark.parametrize("name", list(MODES))
def test_offset_is_what_was_moved(name: str, geometry: SeriesGeometry, random: np.random.Generator) -> None:
    mode = MODES[name]
    rows = len(geometry.poses) if mode in PARTICLE_MODES else len(geometry.tilts)
    step = random.normal(size=(rows, mode.columns(geometry))) * (0.1 if mode.unit != "%" else 0.002)
    moved = geometry.copy()
    mode.move(moved, step)
    np.testing.assert_allclose(mode.offset(moved, geometry), step, atol=1e-9)
    np.testing.assert_array_equal(mode.offset(geometry, geometry.copy()), 0)


def test_moving_a_copy_leaves_the_original(geometry: SeriesGeometry) -> None:
    before = geometry.copy()
    for modes, rows in ((PARTICLE_MODES, len(geometry.poses)), (EXPOSURE_MODES, len(geometry.tilts))):
        layout = Layout.of(modes, list(MODES), geometry)
        moved = geometry.copy()
        layout.move(moved, np.full((rows, layout.size), 0.01))
        assert np.abs(layout.offset(moved, geometry, rows)).min() > 0.001
    for name, value in vars(before).items():
        np.testing.assert_array_equal(getattr(geometry, name), value)


def test_a_rise_towards_the_source_changes_defocus_by_the_hand() -> None:
    """Sentence 10: at zero tilt, 100 A along z and hand -1, defocus falls by 100 A; the tilted view sees the cosine."""
    still = SeriesGeometry(tilt_to_matrix(0.0, np.array([0.0, 60.0]), 0.0), np.zeros((2, 2)), np.eye(3)[None], np.zeros((1, 3)),
                           hand=-1.0)
    raised = still.copy()
    MODES["position"].move(raised, np.array([[0.0, 0.0, 100.0]]))
    change = raised.defocus_changes() - still.defocus_changes()
    np.testing.assert_allclose(change[0], [[-100, 0, 0], [-50, 0, 0]], atol=1e-9)


def test_a_magnification_spreads_particles_about_the_specimens_origin() -> None:
    """Shift, deformation and depth are those of the image and of the specimen: they are not magnified."""
    one = SeriesGeometry(np.eye(3)[None], np.array([[7.0, -3.0]]), np.eye(3)[None].repeat(2, 0),
                         np.array([[0.0, 0, 50], [1000.0, -500, 100]]))
    wide = one.copy()
    MODES["magnification"].move(wide, np.array([[0.01]]))
    np.testing.assert_allclose(wide.centres()[:, 0], [[7, -3], [1017, -508]])
    np.testing.assert_array_equal(wide.defocus_changes(), one.defocus_changes())
    MODES["magnification"].move(wide, np.array([[1.0]]))
    assert wide.magnification == 1 + LARGEST_MAGNIFICATION


def test_regions_of_defocus_follow_the_particle() -> None:
    flat = SeriesGeometry(np.eye(3)[None], np.zeros((1, 2)), np.eye(3)[None].repeat(3, 0),
                          np.array([[-1000.0, 0, 0], [0.0, 0, 0], [1000.0, 0, 0]]), (2000.0, 2000.0), defocus_grid=2,
                          regional_defocus=np.array([[-80.0, 80.0, -80.0, 80.0]]))
    np.testing.assert_allclose(flat.defocus_changes()[:, 0, 0], [-80, 0, 80])


def test_what_may_be_left_out_is_zero() -> None:
    turns = np.tile(np.eye(3), (4, 1, 1))
    plain = SeriesGeometry(turns, np.zeros((4, 2)), turns[:2], np.zeros((2, 3)), grid=2)
    assert plain.deformations.shape == (4, 4, 2)
    assert plain.defocus.shape == (4, 3)
    assert plain.particle_defocus.shape == (2,)
    assert plain.phase.shape == (4,)
    assert plain.regional_defocus.shape == (4, 0)
    np.testing.assert_array_equal(plain.magnification, np.ones(4))
    assert not plain.defocus_changes().any()


def test_the_priors_of_modes_are_pyps_tolerances() -> None:
    """Defaults of pyp_config.toml, where PYP has the mode."""
    wanted = {"rotation": 30.0, "position": 20.0, "tilt_angle": 1.5, "axis_angle": 1.0, "shift": 100.0, "defocus": 750.0}
    assert {name: sigma for name, sigma in prior_sigmas().items() if name in wanted} == wanted
    assert all(np.isfinite(sigma) and sigma > 0 for sigma in prior_sigmas().values())


def test_layouts(geometry: SeriesGeometry) -> None:
    free = ("tilt_angle", "shift", "rotation")
    particles, exposures = Layout.of(PARTICLE_MODES, free, geometry), Layout.of(EXPOSURE_MODES, free, geometry)
    assert (particles.size, exposures.size, particles.local) == (3, 3, LOCAL)
    assert exposures.slices == {"tilt_angle": slice(0, 1), "shift": slice(1, 3)}
    np.testing.assert_allclose(exposures.precision({"tilt_angle": 1.5, "shift": 100.0}),
                               [1 / np.deg2rad(1.5) ** 2, 1e-4, 1e-4])
    np.testing.assert_array_equal(exposures.precision({}), 0)
    np.testing.assert_allclose(exposures.bounds({"shift": 50.0}), [np.inf, 50, 50])
    assert Layout.of(EXPOSURE_MODES, ("deformation",), geometry).size == 18
    flat = SeriesGeometry(geometry.tilts, geometry.shifts, geometry.poses, geometry.positions)
    assert Layout.of(EXPOSURE_MODES, ("deformation",), flat).size == 0
    assert Layout.of(EXPOSURE_MODES, ("regional_defocus",), geometry).size == 16
    assert Layout.of(EXPOSURE_MODES, ("regional_defocus",), flat).size == 0
    assert local_size(("rotation", "defocus")) == LOCAL_CTF
    assert local_size(("magnification", "defocus")) == LOCAL_MAGNIFICATION
    assert local_size(("amplitude", "shift")) == LOCAL_AMPLITUDE
    with pytest.raises(ValueError, match="no mode 'tilt'"):
        local_size(("tilt",))
