"""The transfer function in NumPy. RELION's own values are in test_relion_peer.py."""

import numpy as np
import pytest
from scipy import constants

from pyp_cspr.engine.core.ctf import ctf, defocus_form, phase_offset, wavelength


@pytest.mark.parametrize(("voltage", "expected"), [(100, 0.037014), (200, 0.025079), (300, 0.019687)])
def test_wavelength_is_de_broglies(voltage, expected):
    energy = voltage * 1e3 * constants.e
    momentum2 = 2 * constants.m_e * energy * (1 + energy / (2 * constants.m_e * constants.c**2))
    assert wavelength(voltage) == pytest.approx(constants.h / np.sqrt(momentum2) * 1e10, rel=3e-5)
    assert wavelength(voltage) == pytest.approx(expected, abs=1e-6)


def test_defocus_form_is_the_cosine_formula(random):
    for defocus_u, defocus_v, angle in random.uniform([5e3, 5e3, -180], [5e4, 5e4, 180], (30, 3)):
        kx, ky = random.normal(scale=0.1, size=(2, 100))
        axx, axy, ayy = defocus_form(defocus_u, defocus_v, angle)
        azimuth = np.arctan2(ky, kx)
        mean, half = (defocus_u + defocus_v) / 2, (defocus_u - defocus_v) / 2
        expected = (mean + half * np.cos(2 * (azimuth - np.deg2rad(angle)))) * (kx**2 + ky**2)
        np.testing.assert_allclose(axx * kx**2 + 2 * axy * kx * ky + ayy * ky**2, expected, rtol=1e-10, atol=1e-8)


def test_defocus_form_in_many_exposures_at_once(random):
    values = random.uniform([5e3, 5e3, -180], [5e4, 5e4, 180], (4, 6, 3))
    form = defocus_form(values[..., 0], values[..., 1], values[..., 2])
    assert form.shape == (4, 6, 3)
    np.testing.assert_allclose(form[2, 3], defocus_form(*values[2, 3]))


def test_swapping_u_and_v_is_a_quarter_turn_of_the_angle():
    np.testing.assert_allclose(defocus_form(2e4, 1e4, 20.0), defocus_form(1e4, 2e4, 110.0), rtol=1e-12)


def test_phase_offset():
    assert float(phase_offset(0.0)) == 0.0
    assert np.sin(phase_offset(0.07)) == pytest.approx(0.07)
    assert float(phase_offset(0.1, 90.0) - phase_offset(0.1)) == pytest.approx(np.pi / 2)
    assert phase_offset(0.1, np.array([0.0, 20.0])).shape == (2,)
    assert np.isfinite(phase_offset(1.0))


def test_ctf_at_the_origin_is_the_amplitude_contrast():
    assert float(ctf(0.0, 0.0, (2e4, 2e4, 0.0), 300.0, 2.7, 0.1)) == pytest.approx(0.1)


def test_first_zero_of_pure_phase_contrast_without_aberration():
    # chi = pi lambda df k^2 = pi at k = 1 / sqrt(lambda df): positive before, negative after.
    k = 1 / np.sqrt(wavelength(300.0) * 2e4)
    before, at, after = ctf(np.array([0.9, 1.0, 1.1]) * k, 0.0, (2e4, 2e4, 0.0), 300.0, 0.0, 0.0)
    assert before > 0.1
    assert at == pytest.approx(0.0, abs=1e-9)
    assert after < -0.1


def test_spherical_aberration_counts_in_millimetres_and_against_underfocus():
    # Scherzer: with df = lambda^2 k^2 Cs / 2 the two cancel.
    k = 0.3
    balance = wavelength(300.0) ** 2 * k**2 * 2.7e7 / 2
    assert float(ctf(k, 0.0, (balance, balance, 0.0), 300.0, 2.7, 0.0)) == pytest.approx(0.0, abs=1e-9)
