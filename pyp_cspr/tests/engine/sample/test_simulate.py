"""Tilt images against images made another way: exact projections of Gaussians, NumPy's FFT, and the CTF of core/ctf.py."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pyp_cspr.engine.core.ctf import ctf
from pyp_cspr.engine.core.geometry import tilt_to_matrix
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.mrc import write_map
from pyp_cspr.engine.model.tables import Dataset
from pyp_cspr.engine.sample.acquisition import acquire
from pyp_cspr.engine.sample.settings import SampleSettings
from pyp_cspr.engine.sample.simulate import Simulator, interaction_constant
from pyp_cspr.engine.sample.structure import load_structure
from pyp_cspr.tests.blobs import asymmetric_blobs, correlation

PIXEL = 4.0
SIZE = 192
BASE = SampleSettings(
    series=1, particles=1, tilts=5, box=40, pixel=PIXEL, seed=2, image_size=SIZE, noise="none", damage=False, thickness=400.0,
    shift=8.0, contrast=0.05,
)


@pytest.fixture(scope="module")
def blobs():
    return asymmetric_blobs(7.0, 40.0, count=7)


@pytest.fixture(scope="module")
def structure(blobs, tmp_path_factory):
    path = tmp_path_factory.mktemp("blobs") / "blobs.mrc"
    write_map(path, blobs.volume(64, 2.5), 2.5)
    return load_structure(str(path), 40, PIXEL)


def simulator(structure, **changes):
    settings = dataclasses.replace(BASE, **changes)
    return Simulator(structure, acquire(settings, structure.radius, lambda name: ""), settings)


def expected_phase(blobs, structure, truth: Dataset, exposure: int, hand: float, contrast: float = 0.05):
    """2 C * phi of the only particle, from the blobs' formula; nothing of the simulation but its scale in volt."""
    rotation, position = truth.exposures["rotation"][exposure], truth.particles["position"][0]
    place = rotation @ position + [*truth.exposures["shift"][exposure], 0]
    image = blobs.image(rotation @ truth.particles["rotation"][0], SIZE, PIXEL, place[:2])
    volt = structure.reference().sum() / blobs.volume(40, PIXEL).sum()
    k = np.fft.fftfreq(SIZE, PIXEL)
    u, v, angle = truth.exposures["defocus"][exposure]
    depth = hand * (rotation @ position)[2]
    contrast_function = ctf(k[None, :], k[:, None], (u + depth, v + depth, angle), 300.0, 2.7, 0.07)
    phase = interaction_constant(300.0) * volt * contrast * image * PIXEL
    return 2 * np.fft.ifft2(np.fft.fft2(phase) * contrast_function).real


@pytest.mark.parametrize("exposure", range(5))
@pytest.mark.parametrize("hand", [1, -1])
def test_image_of_one_particle(blobs, structure, exposure, hand):
    """Place, hand, tilt sign, defocus with depth, astigmatism and scale at once, at tilts of -60 to 60 degrees."""
    made = simulator(structure, hand=hand)
    got = made.phase(exposure)
    want = expected_phase(blobs, structure, made.truth, exposure, hand)
    assert np.abs(got - want).max() < 3e-3 * np.abs(want).max()
    wrong = expected_phase(blobs, structure, made.truth, exposure, -hand)
    depth = abs((made.truth.exposures["rotation"][exposure] @ made.truth.particles["position"][0])[2])
    assert np.abs(got - wrong).max() > 1e-5 * depth * np.abs(want).max()


def test_wrong_tilt_sign_would_show(blobs, structure):
    made = simulator(structure)
    truth = made.truth
    mirrored = Dataset(truth.series, truth.exposures.copy(), truth.particles, truth.visible)
    mirrored.exposures["rotation"] = tilt_to_matrix(np.zeros(5), -np.linspace(-60, 60, 5), np.full(5, 85.3))
    assert correlation(made.phase(0), expected_phase(blobs, structure, truth, 0, -1)) > 0.9999
    assert correlation(made.phase(0), expected_phase(blobs, structure, mirrored, 0, -1)) < 0.7


def test_particle_is_dark_and_where_project_says(structure):
    """Centre of mass after a low-pass where the CTF has not turned over; a strong phase plate makes that all of the band."""
    made = simulator(structure, amplitude_contrast=0.999, defocus_low=1.0, defocus_high=1.0, astigmatism=0.0, thickness=10.0)
    made.truth.exposures["defocus"] = np.tile([1.0, 1.0, 0.0], (5, 1))
    u, _ = made.truth.project(0)
    axis = (np.arange(SIZE) - SIZE // 2) * PIXEL
    for exposure in range(5):
        image = made.expected(exposure)
        dark = image.max() - image.astype(np.float64)
        dark[dark < 0.05 * dark.max()] = 0
        centre = np.array([dark.sum(axis=0) @ axis, dark.sum(axis=1) @ axis]) / dark.sum()
        mass = structure.reference().astype(np.float64)
        mass[mass < 0.02 * mass.max()] = 0
        n = (np.arange(40) - 20) * PIXEL
        own = np.array([mass.sum(axis=(0, 1)) @ n, mass.sum(axis=(0, 2)) @ n, mass.sum(axis=(1, 2)) @ n]) / mass.sum()
        view = made.truth.exposures["rotation"][exposure] @ made.truth.particles["rotation"][0]
        assert np.abs(centre - (u[0, exposure] + (view @ own)[:2])).max() < 2.0  # half a pixel
        assert image.min() < np.median(image) < image.max() + 1e-3
        assert np.median(image) - image.min() > 20 * (image.max() - np.median(image))


def test_underfocus_darkens_the_particle(structure):
    """With the usual underfocus, too: low-passed to 60 A, the particle's place is the darkest of the image."""
    made = simulator(structure, contrast=1.0, defocus_low=25000.0, defocus_high=25000.0)
    image = made.expected(2)
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE, PIXEL), np.fft.fftfreq(SIZE, PIXEL)))
    smooth = np.fft.ifft2(np.fft.fft2(image) * np.exp(-((k * 60) ** 2))).real
    darkest = np.unravel_index(smooth.argmin(), smooth.shape)
    u, _ = made.truth.project(0)
    assert np.hypot(darkest[1] - SIZE // 2 - u[0, 2, 0] / PIXEL, darkest[0] - SIZE // 2 - u[0, 2, 1] / PIXEL) < 8


def test_dose_damps_high_frequencies_of_late_exposures(structure):
    plain, damaged = simulator(structure), simulator(structure, damage=True, dose=10.0)
    order = damaged.truth.exposures["order"]
    first, last = int(np.argmin(order)), int(np.argmax(order))
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE, PIXEL), np.fft.fftfreq(SIZE, PIXEL)))
    for exposure in (first, last):
        before = 10.0 * order[exposure] + 5.0
        ratio = np.fft.fft2(damaged.phase(exposure)) / np.fft.fft2(plain.phase(exposure))
        for shell in (0.015, 0.03, 0.04):
            ring = np.abs(k - shell) < 0.001
            want = np.exp(-before / (2 * (0.24499 * shell**-1.6649 + 2.8141)))
            assert np.median(np.abs(ratio[ring])) == pytest.approx(want, rel=0.02)


def test_electrons_are_counted_through_the_ice(structure):
    made = simulator(structure, thickness=1000.0, contrast=1e-6, image_size=320)
    for exposure, tilt in enumerate((-60, -30, 0, 30, 60)):
        want = 3.0 * PIXEL**2 * np.exp(-1000.0 / 3000.0 / np.cos(np.deg2rad(tilt)))
        assert made.expected(exposure).mean() == pytest.approx(want, rel=1e-4)


def test_noise_is_that_of_electrons(structure):
    made = simulator(structure, noise="poisson", contrast=1e-6)
    image = made.image(2)
    assert image.dtype == np.int16
    expected = made.expected(2)
    assert image.mean() == pytest.approx(expected.mean(), rel=5e-3)
    assert image.var() == pytest.approx(expected.mean(), rel=0.03)
    other = made.image(3)
    assert abs(correlation(image, other)) < 0.03  # every image has its own noise
    assert (made.image(2) == image).all()


def test_threads_do_not_change_the_images(structure):
    made = simulator(structure, noise="poisson")
    calls = []
    one = list(made.images(0, 1, calls.append))
    three = list(made.images(0, 3, lambda count: None))
    assert sum(calls) == 5
    assert all((a == b).all() for a, b in zip(one, three))
    assert (one[1] == made.image(1)).all()


def test_image_without_noise_is_float(structure):
    assert simulator(structure).image(0).dtype == np.float32


def test_counts_never_fall_below_zero(structure):
    assert simulator(structure, contrast=50.0).expected(2).min() == 0


def test_too_many_electrons_for_the_file_are_refused(structure):
    with pytest.raises(InputError, match="int16"):
        simulator(structure, noise="poisson", dose=5000.0).image(2)


def test_particle_at_the_rim_is_cut_not_wrapped(structure):
    made = simulator(structure)
    made.truth.particles["position"] = np.array([[0.0, 0.0, 0.0]])
    made.truth.exposures["shift"] = np.tile([0.5 * SIZE * PIXEL, 0.0], (5, 1))
    half = made.phase(2)
    assert np.abs(half[:, -10:]).max() > 100 * np.abs(half[:, :10]).max()
    made.truth.exposures["shift"] = np.tile([9 * SIZE * PIXEL, 0.0], (5, 1))
    assert not made.phase(2).any()


def test_nothing_is_lost_at_strong_defocus(structure):
    """The field in which a particle is drawn grows with what the CTF spreads."""
    near, far = simulator(structure), simulator(structure, defocus_low=90000.0, defocus_high=90000.0)
    assert far.field > near.field >= 2 * 40


@pytest.mark.parametrize("voltage,want", [(300.0, 6.5262e-4), (200.0, 7.2884e-4), (100.0, 9.2440e-4)])
def test_interaction_constant(voltage, want):
    """Kirkland 2010, table 5.1: 0.6526, 0.7288, 0.9244 rad/(kV A)."""
    assert interaction_constant(voltage) == pytest.approx(want, rel=1e-3)
