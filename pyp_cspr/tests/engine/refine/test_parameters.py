"""Every mode's chain rule against finite differences of the geometry itself, and the table of modes."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core.gauge import rotation_vectors
from pyp_cspr.engine.core.geometry import rotation_vector_to_matrix, tilt_to_matrix
from pyp_cspr.engine.refine.parameters import (
    EXPOSURE_MODES,
    LOCAL,
    LOCAL_CTF,
    MODES,
    PARTICLE_MODES,
    Layout,
    SeriesGeometry,
    local_size,
    prior_sigmas,
    tolerances,
)


@pytest.fixture(params=[1.0, -1.0], ids=["hand+", "hand-"])
def geometry(request, random: np.random.Generator) -> SeriesGeometry:
    """General in everything: third angles, a 3 x 3 deformation, some particles beyond its field."""
    particles, exposures = 5, 4
    return SeriesGeometry(
        tilt_to_matrix(random.normal(size=exposures) * 3, [-50.0, -10, 20, 60], [85.0, 84, -95, 86]),
        random.normal(size=(exposures, 2)) * 10, rotation_vector_to_matrix(random.normal(size=(particles, 3))),
        random.uniform(-1, 1, (particles, 3)) * [1800, 1600, 400], (3000.0, 3400.0), 3,
        random.normal(size=(exposures, 9, 2)) * 30, request.param, random.normal(size=(exposures, 3)) * 100,
        random.normal(size=particles) * 50, random.normal(size=exposures) * 0.1,
    )


def seen(geometry: SeriesGeometry, reference: SeriesGeometry) -> np.ndarray:
    """What a projection's local parameters change, (P, E, 9): rotation against ``reference``, centre, defocus, phase."""
    turned = rotation_vectors(geometry.orientations() @ np.swapaxes(reference.orientations(), -1, -2))
    phase = np.broadcast_to(geometry.phase[:, None], turned.shape[:2] + (1,))
    return np.concatenate([turned, geometry.centres(), geometry.defocus_changes(), phase], axis=-1)


@pytest.mark.parametrize("name", list(MODES))
def test_chain_rule_is_the_finite_difference_of_the_geometry(name: str, geometry: SeriesGeometry) -> None:
    mode = MODES[name]
    expected = mode.derivative(geometry, LOCAL_CTF)
    rows = len(geometry.poses) if mode in PARTICLE_MODES else len(geometry.tilts)
    step = 1e-6 if mode.unit == "deg" else 1e-3
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


@pytest.mark.parametrize("name", [name for name, mode in MODES.items() if not mode.ctf])
def test_without_ctf_modes_the_first_five_rows_are_the_same(name: str, geometry: SeriesGeometry) -> None:
    long, short = (MODES[name].derivative(geometry, local) for local in (LOCAL_CTF, LOCAL))
    np.testing.assert_array_equal(long[:, :, :LOCAL], short)


@pytest.mark.parametrize("name", list(MODES))
def test_offset_is_what_was_moved(name: str, geometry: SeriesGeometry, random: np.random.Generator) -> None:
    mode = MODES[name]
    rows = len(geometry.poses) if mode in PARTICLE_MODES else len(geometry.tilts)
    step = random.normal(size=(rows, mode.columns(geometry))) * 0.1
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


def test_what_may_be_left_out_is_zero() -> None:
    turns = np.tile(np.eye(3), (4, 1, 1))
    plain = SeriesGeometry(turns, np.zeros((4, 2)), turns[:2], np.zeros((2, 3)), grid=2)
    assert plain.deformations.shape == (4, 4, 2)
    assert plain.defocus.shape == (4, 3)
    assert plain.particle_defocus.shape == (2,)
    assert plain.phase.shape == (4,)
    assert not plain.defocus_changes().any()


def test_the_table_of_modes_has_pyps_names_and_defaults() -> None:
    """Defaults of pyp_config.toml."""
    wanted = {
        "csp_ToleranceParticlesPhi": 30.0, "csp_ToleranceParticlesPsi": 30.0, "csp_ToleranceParticlesTheta": 30.0,
        "csp_ToleranceParticlesShifts": 20.0, "csp_ToleranceMicrographTiltAngles": 1.5,
        "csp_ToleranceMicrographTiltAxisAngles": 1.0, "csp_ToleranceMicrographShifts": 100.0,
        "csp_ToleranceMicrographDefocus1": 750.0, "csp_ToleranceMicrographDefocus2": 750.0,
    }
    for key, value in wanted.items():
        assert {mode.tolerance for mode in MODES.values() if key in mode.pyp} == {value}
    assert tolerances() == {name: mode.tolerance for name, mode in MODES.items()}
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
    assert local_size(("rotation", "defocus")) == LOCAL_CTF
    with pytest.raises(ValueError, match="no mode 'tilt'"):
        local_size(("tilt",))
