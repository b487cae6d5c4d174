"""CTF, phase and weights against the definitions, and the dose filter against its published values."""

from __future__ import annotations

from typing import Tuple

import numpy as np
import pytest

from pyp_cspr.engine.core.band import Band, make_band
from pyp_cspr.engine.core.ctf import ctf, defocus_form, phase_offset, wavelength
from pyp_cspr.engine.core.weighting import COMMON_STEP, common_weight, ctf_values, dose_amplitude, weigh
from pyp_cspr.tests.naive import weighting as naive

BOX, PIXEL = 16, 2.0
FIELD = BOX * PIXEL
DEFOCUS = np.array([[23000.0, 21000.0, 37.0], [15000.0, 15500.0, -70.0], [-4000.0, -4100.0, 10.0]])
LAMBDA, CS = wavelength(300.0), 2.7
PHASE = phase_offset(0.07, [0.0, 20.0, 95.0])
RESIDUAL = np.array([[0.9, -0.4], [0.0, 0.0], [-31.0, 57.5]])


def _problem(random: np.random.Generator) -> Tuple[Band, np.ndarray, np.ndarray, np.ndarray]:
    band = make_band(BOX, 7)
    shape = (3, len(band))
    data = (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)
    shells = int(band.shell[-1]) + 2
    return band, data, random.uniform(0.3, 1.0, (3, shells)), random.uniform(0.5, 2.0, (3, shells))


@pytest.mark.kernel
@pytest.mark.parametrize("premultiplied", [False, True])
def test_weigh_agrees_with_its_naive_twin(premultiplied: bool, random: np.random.Generator) -> None:
    band, data, amplitude, power = _problem(random)
    expected, expected_weight = naive.weigh(
        data, band.kx, band.ky, band.shell, FIELD, RESIDUAL, DEFOCUS, PHASE, LAMBDA, CS, amplitude, power, premultiplied
    )
    form = defocus_form(*DEFOCUS.T)
    weight = weigh(data, band, FIELD, RESIDUAL, form, PHASE, LAMBDA, CS, amplitude, power, premultiplied)
    np.testing.assert_allclose(data, expected, atol=1e-5)
    np.testing.assert_allclose(weight, expected_weight, atol=1e-5)


def test_one_table_for_all_images_and_threads(random: np.random.Generator) -> None:
    band, data, amplitude, power = _problem(random)
    form = defocus_form(*DEFOCUS.T)
    rows = data.copy()
    one = weigh(data, band, FIELD, RESIDUAL, form, PHASE, LAMBDA, CS, amplitude[0], power[0])
    tables = np.tile(amplitude[:1], (3, 1)), np.tile(power[:1], (3, 1))
    many = weigh(rows, band, FIELD, RESIDUAL, form, PHASE, LAMBDA, CS, *tables, threads=2)
    np.testing.assert_array_equal(one, many)
    np.testing.assert_array_equal(data, rows)


@pytest.mark.kernel
def test_ctf_agrees_with_the_readable_form() -> None:
    band = make_band(64, 31)
    field = 64 * 1.1  # 2.3 A at the band's edge: up to about 60 turns of phase
    form = defocus_form(*DEFOCUS.T)
    values = ctf_values(band, field, form, PHASE, LAMBDA, CS)
    assert values.dtype == np.float32
    for b, (degrees, value) in enumerate(zip([0.0, 20.0, 95.0], values)):
        expected = ctf(band.kx / field, band.ky / field, DEFOCUS[b], 300.0, CS, 0.07, degrees)
        np.testing.assert_allclose(value, expected, atol=5e-7)


def test_positive_ky_is_where_the_angle_points() -> None:
    """A strong astigmatism at +45 degrees: the coefficients (k, k) and (k, -k) see df_u and df_v."""
    band = make_band(BOX, 7)
    values = ctf_values(band, FIELD, defocus_form([20000.0], [10000.0], [45.0]), [0.0], LAMBDA, 0.0)[0]
    k2 = 2 * (3 / FIELD) ** 2
    for ky, df in ((3, 20000.0), (-3, 10000.0)):
        place = np.flatnonzero((band.kx == 3) & (band.ky == ky))[0]
        assert values[place] == pytest.approx(np.sin(np.pi * LAMBDA * k2 * df), abs=1e-6)


def test_residual_moves_the_particle_to_the_centre() -> None:
    """X of a particle at r carries exp(-2 pi i k.r); D must not."""
    band = make_band(BOX, 7)
    r = np.array([[1.3, -0.6]])
    data = np.exp(-2j * np.pi * (band.kx * r[0, 0] + band.ky * r[0, 1]) / FIELD).astype(np.complex64)[None]
    ones = np.ones(9)
    weigh(data, band, FIELD, r, defocus_form([0.0], [0.0], [0.0]), [np.pi / 2], LAMBDA, 0.0, ones, ones)
    np.testing.assert_allclose(data, 1.0, atol=1e-6)


def test_wrong_input_is_refused(random: np.random.Generator) -> None:
    band, data, amplitude, power = _problem(random)
    form = defocus_form(*DEFOCUS.T)

    def call(**changes: object) -> None:
        names = "coefficients band field residual defocus_form phase wavelength cs amplitude power".split()
        arguments = dict(zip(names, (data, band, FIELD, RESIDUAL, form, PHASE, LAMBDA, CS, amplitude, power)))
        weigh(**{**arguments, **changes})

    with pytest.raises(ValueError, match="complex64"):
        call(coefficients=data.astype(complex))
    with pytest.raises(ValueError, match="complex64"):
        call(coefficients=data[:, ::-1])
    with pytest.raises(ValueError, match="residual"):
        call(residual=RESIDUAL[:2])
    with pytest.raises(ValueError, match="do not fit"):
        call(amplitude=np.ones(3))
    with pytest.raises(ValueError, match="noise power"):
        call(power=np.zeros_like(power))
    with pytest.raises(ValueError, match="field of view"):
        call(field=0.0)
    with pytest.raises(ValueError, match="defocus_form"):
        call(defocus_form=form[:, :2])


def test_dose_filter_has_the_published_values() -> None:
    """Grant and Grigorieff 2015: the critical dose at 4 A is 5.28 e/A^2 at 300 kV."""
    critical = 0.24499 * 0.25**-1.6649 + 2.8141
    assert critical == pytest.approx(5.277, abs=0.005)
    assert dose_amplitude(0.25, 10.0, 0.0, 300.0) == pytest.approx(np.exp(-10.0 / (2 * critical)))
    assert dose_amplitude(0.25, 9.0, 2.0, 300.0) == pytest.approx(np.exp(-10.0 / (2 * critical)))  # middle of the exposure
    assert dose_amplitude(0.25, 10.0, 0.0, 200.0) == pytest.approx(np.exp(-10.0 / (2 * 0.8 * critical)))
    assert dose_amplitude(0.25, 10.0, 0.0, 250.0) == pytest.approx(np.exp(-10.0 / (2 * 0.9 * critical)))


def test_dose_filter_broadcasts_and_spares_zero_frequency() -> None:
    values = dose_amplitude(np.linspace(0, 0.25, 5), np.array([[0.0], [50.0]]), 3.0, 300.0)
    assert values.shape == (2, 5)
    assert (values[:, 0] == 1).all()
    assert (np.diff(values, axis=1) < 0).all()
    assert (values[1, 1:] < values[0, 1:]).all()


def test_common_weight_makes_the_mean_weight_even() -> None:
    """g times the mean C^2 grows like k below the first extremum, is nearly flat to the minimum behind it, then g stays."""
    field, lam = 256.0, wavelength(300.0)
    defocus, number = np.linspace(20000.0, 40000.0, 41), np.full(41, 100)
    curve = common_weight(field, 60.0, defocus, np.full(41, 0.07), np.full(41, lam), np.full(41, 2.7), number)
    pixels = np.arange(len(curve)) * COMMON_STEP
    chi = np.pi * lam * defocus[:, None] * (pixels / field) ** 2 - 0.5 * np.pi * lam**3 * 2.7e7 * (pixels / field) ** 4 + 0.07
    mean = (np.sin(chi) ** 2).mean(axis=0)
    before, after = (pixels > 3) & (pixels < 6), (pixels > 7) & (pixels < 10)
    flat = (curve * mean)[after]
    assert flat.max() / flat.min() < 1.4 < 2.0 < mean[after].max() / mean[after].min()
    assert np.ptp(curve[pixels > 13]) == 0
    slope = np.polyfit(np.log(pixels[before]), np.log((curve * mean)[before]), 1)[0]
    assert 0.5 < slope < 1.5  # C^2 alone: 4
    assert np.polyfit(np.log(pixels[before]), np.log(mean[before]), 1)[0] > 2.5


def test_common_weight_counts_projections_and_leaves_even_weights_alone() -> None:
    lam = np.full(2, wavelength(300.0))
    two = common_weight(256.0, 30.0, [20000.0, 40000.0], [0.07, 0.07], lam, [2.7, 2.7], [50, 0])
    one = common_weight(256.0, 30.0, [20000.0], [0.07], lam[:1], [2.7], [50])
    np.testing.assert_allclose(two, one)
    assert one[int(10 / COMMON_STEP) :].max() < 1 / 0.3 + 1e-9  # at zeros that all images share
    assert np.abs(common_weight(256.0, 30.0, [0.0], [0.5 * np.pi], lam[:1], [0.0], [1]) - 1).max() < 1e-12  # no CTF to speak of
    assert (common_weight(256.0, 30.0, [20000.0], [0.07], lam[:1], [2.7], [0]) == 1).all()


def test_common_weight_multiplies_data_and_weight(random: np.random.Generator) -> None:
    band, data, amplitude, power = _problem(random)
    form, level = defocus_form(*DEFOCUS.T), random.uniform(0.5, 2.0, len(band))
    results = []
    for factor in (1.0, level):
        changed = data.copy()
        weight = weigh(changed, band, 128.0, np.zeros((3, 2)), form, np.zeros(3), 0.02, 2.7, amplitude, power, common=factor)
        results.append((changed, weight))
    np.testing.assert_allclose(results[1][0], results[0][0] * level, rtol=1e-5)
    np.testing.assert_allclose(results[1][1], results[0][1] * level, rtol=1e-5)


def test_tables_are_chosen_image_by_image(random: np.random.Generator) -> None:
    band, data, amplitude, power = _problem(random)
    form, which = defocus_form(*DEFOCUS.T), np.array([2, 0, 2])
    rows = data.copy()
    expected = weigh(data, band, FIELD, RESIDUAL, form, PHASE, LAMBDA, CS, amplitude[which], power[which])
    found = weigh(rows, band, FIELD, RESIDUAL, form, PHASE, LAMBDA, CS, amplitude, power, which=which)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(rows, data)
    with pytest.raises(ValueError, match="do not fit"):
        weigh(rows, band, FIELD, RESIDUAL, form, PHASE, LAMBDA, CS, amplitude, power, which=[0, 1, 3])
