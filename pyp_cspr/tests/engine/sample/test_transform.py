"""Projections of the simulation against exact ones."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core.ctf import ctf, defocus_form, phase_offset, wavelength
from pyp_cspr.engine.core.geometry import euler_to_matrix
from pyp_cspr.engine.sample.transform import Transform, lattice_to_map, transform_on_lattice
from pyp_cspr.tests.blobs import asymmetric_blobs
from pyp_cspr.tests.naive import transform as naive

PIXEL = 4.0
BOX = 32


def ones(box):
    return np.ones((box, box // 2 + 1), np.float32)


@pytest.fixture(scope="module")
def blobs():
    return asymmetric_blobs(7.0, 28.0, count=8)


@pytest.fixture(scope="module")
def transform(blobs):
    return Transform(blobs.volume(BOX, PIXEL), PIXEL, 0.5 / PIXEL)


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 50, -70), (200, 120, 10), (0, 180, 33)])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, -1.81)])
def test_projection_is_exact_with_its_hand_and_place(blobs, transform, angles, shift):
    """An atom at x is at (M x)_xy + shift, to a thousandth: the mirror image, M^T or a half-pixel would all fail."""
    rotation = euler_to_matrix(*angles)
    want = blobs.image(rotation, 48, PIXEL, np.multiply(shift, PIXEL)) * PIXEL  # line integral
    got = transform.render(rotation, 48, PIXEL, np.array(shift), ones(48))
    assert np.abs(got - want).max() < 1e-3 * want.max()
    assert np.abs(got - want.T).max() > 0.05 * want.max()


def test_projection_on_another_pixel(blobs, transform):
    rotation = euler_to_matrix(40, 60, 80)
    want = blobs.image(rotation, 40, 5.5, (0, 0)) * 5.5
    got = transform.render(rotation, 40, 5.5, np.zeros(2), ones(40))
    assert np.abs(got - want).max() < 2e-3 * want.max()


def test_interpolation_error_is_below_a_ten_thousandth(random):
    """White noise in a ball fills the band; the reference is the plain sum."""
    n = 20
    axis = np.arange(n) - n // 2
    ball = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) < 81
    volume = (random.normal(size=(n, n, n)) * ball).astype(np.float32)
    box = 32
    transform = Transform(volume, 1.0, 0.5)
    rotation = euler_to_matrix(11, 47, 95)
    half = np.fft.rfft2(np.fft.ifftshift(transform.render(rotation, box, 1.0, np.zeros(2), ones(box))))
    want = naive.half_plane(volume, rotation, box, 0.5)
    assert np.linalg.norm(half - want) < 1e-4 * np.linalg.norm(want)


def test_ctf_is_that_of_the_conventions(blobs, transform):
    box, defocus = 64, (21000.0, 18500.0, 35.0)
    rotation, edge, lam = euler_to_matrix(5, 25, 65), 64 * PIXEL, wavelength(300)
    form = defocus_form(*defocus) * np.pi * lam / edge**2
    chi = (form, 0.5 * np.pi * lam**3 * 2.7e7 / edge**4, float(phase_offset(0.1)))
    got = transform.render(rotation, box, PIXEL, np.zeros(2), ones(box), chi)
    plain = np.fft.fft2(blobs.image(rotation, box, PIXEL) * PIXEL)
    frequency = np.fft.fftfreq(box, PIXEL)
    want = np.fft.ifft2(plain * ctf(frequency[None, :], frequency[:, None], defocus, 300, 2.7, 0.1)).real
    assert np.abs(got - want).max() < 2e-3 * np.abs(want).max()


def test_limit_and_filter(transform):
    rotation = euler_to_matrix(1, 2, 3)
    filters = ones(32)
    filters[3, 2] = 0.0
    half = np.fft.rfft2(transform.render(rotation, 32, PIXEL, np.zeros(2), filters))
    whole = np.fft.rfft2(transform.render(rotation, 32, PIXEL, np.zeros(2), ones(32)))
    assert abs(half[3, 2]) < 1e-6 * abs(whole[3, 2])
    assert np.allclose(half[4, 2], whole[4, 2], rtol=1e-4)
    narrow = Transform(np.ones((8, 8, 8), np.float32), PIXEL, 0.2 / PIXEL)
    half = np.fft.rfft2(narrow.render(rotation, 32, PIXEL, np.zeros(2), ones(32)))
    beyond = np.hypot(np.fft.fftfreq(32)[:, None], np.arange(17) / 32) > 0.2
    assert np.abs(half[beyond]).max() < 1e-5 * np.abs(half).max()


def test_lattice_is_the_plain_sum(random):
    volume = random.normal(size=(9, 10, 11)).astype(np.float32)
    lattice = transform_on_lattice(volume, 2.0, 0.013, 8)
    for i, j, k in [(4, 4, 4), (0, 3, 6), (7, 1, 2)]:
        want = naive.plain_sum(volume, np.array([k - 4, j - 4, i - 4]) * 0.013, 2.0) * 8.0
        assert lattice[i, j, k] == pytest.approx(want, rel=1e-4, abs=1e-2)


@pytest.mark.parametrize("n", [24, 32])
def test_lattice_gives_the_map_back(blobs, n):
    """At the same and at a coarser sampling; the blobs are smooth enough for both."""
    edge = BOX * PIXEL
    lattice = transform_on_lattice(blobs.volume(BOX, PIXEL), PIXEL, 1 / edge, 40)
    got = lattice_to_map(lattice, edge, n)
    assert np.abs(got - blobs.volume(n, edge / n)).max() < 2e-3


def test_frequencies_beyond_the_source_are_zero():
    lattice = transform_on_lattice(np.ones((4, 4, 4), np.float32), 10.0, 0.02, 8)
    assert lattice[4, 4, 6] != 0 or lattice[4, 4, 5] != 0
    assert lattice[4, 4, 7] == 0
    assert lattice[6, 6, 4] == 0


def test_larger_map_than_lattice_is_padded(blobs):
    edge = BOX * PIXEL
    lattice = transform_on_lattice(blobs.volume(BOX, PIXEL), PIXEL, 1 / edge, BOX)
    fine = lattice_to_map(lattice, edge, 48)
    assert np.abs(fine - blobs.volume(48, edge / 48)).max() < 2e-3
