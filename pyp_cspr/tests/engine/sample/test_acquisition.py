"""Tilt scheme, places of particles, defocus, errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pyp_cspr.engine.core.gauge import rotation_vectors
from pyp_cspr.engine.core.geometry import matrix_to_tilt, tilt_to_matrix
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.sample.acquisition import (
    acquire,
    add_errors,
    attenuation,
    dose_symmetric_order,
    place,
    random_rotations,
    tilt_angles,
)
from pyp_cspr.engine.sample.settings import SampleSettings

SMALL = SampleSettings(series=2, particles=15, tilts=11, box=32, pixel=8.0, seed=5)


def make(settings=SMALL):
    return acquire(settings, 77.0, lambda name: f"/{name}.mrc")


def test_dose_symmetric_scheme():
    angles = tilt_angles(7, 60)
    assert angles.tolist() == [-60, -40, -20, 0, 20, 40, 60]
    taken = angles[np.argsort(dose_symmetric_order(angles))]
    assert taken.tolist() == [0, 20, -20, -40, 40, 60, -60]
    taken = tilt_angles(4, 45)[np.argsort(dose_symmetric_order(tilt_angles(4, 45)))]
    assert taken.tolist() == [15, -15, -45, 45]
    assert tilt_angles(1, 60).tolist() == [0]
    assert sorted(dose_symmetric_order(tilt_angles(41, 60)).tolist()) == list(range(41))


def test_tables_agree_with_the_settings():
    data = make()
    data.validate()
    assert data.visible.all()
    assert (data.box, data.box_pixel) == (32, 8.0)
    xtilt, ytilt, zrot = matrix_to_tilt(data.exposures["rotation"][:11])
    assert np.allclose(ytilt, tilt_angles(11, 60))
    assert np.allclose(zrot, 85.3)
    assert np.allclose(xtilt, 0)
    assert np.allclose(data.exposures["dose_before"], data.exposures["order"] * 3.0)
    defocus = data.exposures["defocus"]
    assert (defocus[:, 0] > defocus[:, 1]).all()
    assert (defocus[:, :2] > 15000).all()
    assert np.ptp(defocus[:11, 0]) < 3000 < abs(defocus[0, 0] - defocus[11, 0])
    assert np.bincount(data.particles["half"]).tolist() == [0, 15, 15]


def test_particles_are_in_the_ice_in_the_images_and_apart():
    data = make()
    assert np.abs(data.particles["position"][:, 2]).max() <= 500 - 77
    assert np.ptp(data.particles["position"][:, 2]) > 400
    for series in range(2):
        u, _ = data.project(series)
        size = data.series["image_size"][series, 0] * 8.0
        assert np.abs(u).max() <= 0.5 * size - 0.5 * 32 * 8.0
        x = data.particles["position"][data.particles_of(series)]
        distance = np.linalg.norm(x[:, None] - x[None], axis=2) + 1e9 * np.eye(len(x))
        assert distance.min() >= 2.1 * 77


def test_no_overlap_keeps_neighbours_out_of_the_boxes():
    data = make(dataclasses.replace(SMALL, no_overlap=True))
    u, _ = data.project(0)
    distance = np.linalg.norm(u[:, None] - u[None], axis=3) + 1e9 * np.eye(15)[:, :, None]
    assert distance.min() >= 0.5 * 32 * 8.0 + 77
    crowded, _ = make().project(0)
    distance = np.linalg.norm(crowded[:, None] - crowded[None], axis=3) + 1e9 * np.eye(15)[:, :, None]
    assert distance.min() < 0.5 * 32 * 8.0 + 77


def test_image_grows_until_all_fit_and_a_fixed_one_does_not():
    many = dataclasses.replace(SMALL, particles=60, box=64, no_overlap=True, series=1)
    grown = make(many).series["image_size"][0, 0]
    plain = make(dataclasses.replace(many, no_overlap=False)).series["image_size"][0, 0]
    assert grown > plain
    with pytest.raises(InputError, match=r"room for \d+ of 60"):
        make(dataclasses.replace(many, image_size=int(plain) // 2))
    with pytest.raises(InputError, match="room for 0 of 60"):
        make(dataclasses.replace(many, image_size=16))


def test_placing_ends_where_nothing_fits():
    rotation = tilt_to_matrix(np.zeros(2), [0.0, 60.0], np.zeros(2))
    found = place(np.random.default_rng(0), 5, 50.0, 400.0, rotation, np.full((2, 2), 1e4), 10.0, 0.0)
    assert found.shape == (0, 3)


def test_attenuation_is_that_of_the_path():
    rotation = tilt_to_matrix(0.0, [0.0, 60.0], [10.0, 85.0])
    assert np.allclose(attenuation(rotation, 1000, 3000), np.exp([-1 / 3, -2 / 3]))


def test_random_rotations_are_uniform():
    rotation = random_rotations(np.random.default_rng(1), 20000)
    assert np.allclose(rotation @ np.swapaxes(rotation, 1, 2), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(rotation), 1)
    assert np.abs(rotation.mean(axis=0)).max() < 0.02
    assert np.allclose((rotation**2).mean(axis=0), 1 / 3, atol=0.01)
    angle = np.linalg.norm(rotation_vectors(rotation), axis=1)
    assert angle.mean() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.02)  # density (1 - cos a) / pi


def test_same_seed_same_data_other_seed_other_data():
    a, b, c = make(), make(), make(dataclasses.replace(SMALL, seed=6))
    assert (a.particles["position"] == b.particles["position"]).all()
    assert (a.exposures["defocus"] == b.exposures["defocus"]).all()
    assert not np.allclose(a.particles["rotation"], c.particles["rotation"])
    assert not np.allclose(a.particles["position"][:15], a.particles["position"][15:])


def test_zero_errors_are_the_truth():
    truth = make()
    same = add_errors(truth, SMALL)
    for name in ("rotation", "position"):
        assert (same.particles[name] == truth.particles[name]).all()
    for name in ("rotation", "shift", "defocus"):
        assert (same.exposures[name] == truth.exposures[name]).all()


ERRORS = dict(pose_error=2.0, position_error=4.0, tilt_error=0.6, axis_error=0.3, shift_error=5.0, defocus_error=250.0,
              magnification_error=0.5)


def test_errors_have_the_size_asked():
    settings = dataclasses.replace(SMALL, tilts=61, particles=80, pixel=8.0, **ERRORS)
    truth = make(settings)
    kept = truth.exposures["rotation"].copy()
    found = add_errors(truth, settings)
    assert (truth.exposures["rotation"] == kept).all()

    def rms(values):
        return np.sqrt(np.mean(np.square(values)))

    turn = rotation_vectors(np.swapaxes(truth.particles["rotation"], 1, 2) @ found.particles["rotation"])
    assert rms(np.rad2deg(turn)) == pytest.approx(2.0, rel=0.1)
    assert rms(found.particles["position"] - truth.particles["position"]) == pytest.approx(4.0, rel=0.1)
    x, y, z = (np.subtract(a, b) for a, b in zip(matrix_to_tilt(found.exposures["rotation"]), matrix_to_tilt(kept)))
    assert rms(x) < 1e-9
    assert rms(y) == pytest.approx(0.6, rel=0.2)
    assert rms(z) == pytest.approx(0.3, rel=0.2)
    assert rms(found.exposures["shift"] - truth.exposures["shift"]) == pytest.approx(5.0, rel=0.15)
    change = found.exposures["defocus"] - truth.exposures["defocus"]
    assert rms(change[:, 0]) == pytest.approx(250, rel=0.2)
    assert np.allclose(change[:, 0], change[:, 1])
    assert (change[:, 2] == 0).all()
    assert rms(found.exposures["magnification"] - 1) == pytest.approx(0.005, rel=0.2)
    wide = make(dataclasses.replace(settings, magnification=0.4))
    assert rms(wide.exposures["magnification"] - 1) == pytest.approx(0.004, rel=0.2)


def test_magnifications_are_such_as_a_data_set_may_have():
    settings = dataclasses.replace(SMALL, tilts=61, magnification=4.0, magnification_error=4.0)
    truth = make(settings)
    truth.validate()
    add_errors(truth, settings).validate()


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_one_error_does_not_change_another(name):
    everything = add_errors(make(), dataclasses.replace(SMALL, **ERRORS))
    alone = add_errors(make(), dataclasses.replace(SMALL, **{name: ERRORS[name]}))
    columns = {"pose_error": "rotation", "position_error": "position", "shift_error": "shift", "defocus_error": "defocus",
               "magnification_error": "magnification"}
    column = columns.get(name)
    if column is None:
        angles = [matrix_to_tilt(data.exposures["rotation"])[1 if name == "tilt_error" else 2] for data in (everything, alone)]
        assert np.allclose(*angles)
    else:
        kind = "particles" if column in ("rotation", "position") else "exposures"
        assert (getattr(everything, kind)[column] == getattr(alone, kind)[column]).all()


@pytest.mark.parametrize("change,match", [
    ({"series": 0}, "series 0"), ({"pixel": 0.0}, "pixel 0"), ({"box": 33}, "box 33"), ({"noise": "pink"}, "pink"),
    ({"tilt_range": 90.0}, "tilt range"), ({"hand": 0}, "hand 0"), ({"amplitude_contrast": 1.0}, "amplitude contrast"),
    ({"defocus_low": 4e4}, "lower one first"), ({"pose_error": -1.0}, "pose_error -1"),
])
def test_impossible_settings_are_one_line(change, match):
    with pytest.raises(InputError, match=match):
        SampleSettings.from_dict(change)
