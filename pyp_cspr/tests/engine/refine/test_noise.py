"""A half map holds the noise of the images it was made of; what is measured against it must not be fooled."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.refine.noise import ShellSums, fit_spectra, without_own_noise

SHELLS, EACH, IMAGES = 12, 400, 60
AMPLITUDE, NOISE = 0.8, 1.7


def normal(random, shape):
    return (random.standard_normal(shape) + 1j * random.standard_normal(shape)) / np.sqrt(2.0)


@pytest.fixture
def measured(random):
    """Images a V + n of one signal, their Wiener-filtered half map as reference, the FSC of two such maps, and the sums."""
    power = 0.5 * np.exp(-0.4 * np.arange(SHELLS))[:, None]
    signal = normal(random, (SHELLS, EACH)) * np.sqrt(power)

    def images():
        return AMPLITUDE * signal + np.sqrt(NOISE) * normal(random, (IMAGES, SHELLS, EACH))

    data, others = images(), images()
    half1, half2 = data.mean(axis=0) / AMPLITUDE, others.mean(axis=0) / AMPLITUDE
    fsc = (half1 * half2.conj()).real.sum(axis=1) / np.sqrt((np.abs(half1) ** 2).sum(axis=1) * (np.abs(half2) ** 2).sum(axis=1))
    reference = half1 * fsc[:, None]

    def sums(reference) -> ShellSums:
        match = (data * reference.conj()).real.sum(axis=(0, 2))[None]
        model = IMAGES * (np.abs(reference) ** 2).sum(axis=1)[None]
        total = (np.abs(data) ** 2).sum(axis=(0, 2))[None]
        return ShellSums(match, model, total, np.full((1, SHELLS), float(IMAGES * EACH)), match, model)

    return sums(reference), sums(signal), fsc


def fitted(sums: ShellSums):
    spectra = fit_spectra(sums, np.ones((1, SHELLS)), np.zeros(SHELLS))
    return spectra.amplitude[0], spectra.noise[0]


def test_the_own_noise_in_a_half_map_is_taken_out(measured) -> None:
    own, true, fsc = measured
    assert fsc[0] > 0.8 > fsc[6]  # from well to hardly known
    known, _ = fitted(true)
    assert known[:6] == pytest.approx(AMPLITUDE, rel=0.03)
    naive, _ = fitted(own)
    assert naive[5] > 1.25 * AMPLITUDE  # the trap
    amplitude, noise = fitted(without_own_noise(own, fsc))
    assert amplitude[:6] == pytest.approx(AMPLITUDE, rel=0.05)
    assert noise == pytest.approx(NOISE, rel=0.05)


def test_nothing_changes_where_the_reference_is_perfect(measured) -> None:
    own, _, _ = measured
    for one, two in zip(own, without_own_noise(own, np.ones(SHELLS))):
        assert np.array_equal(one, two)


def planted(random, noise: float):
    """Sums of 21 exposures whose factors, B-factors and curve are known; shells as in the plane, of a field of 256 A."""
    k = np.arange(26) / 256.0
    factor, b_factor = random.uniform(0.4, 1.6, 21), np.linspace(0.0, 180.0, 21)
    factor, b_factor = factor / np.median(factor), b_factor - np.median(b_factor)
    prior = np.exp(-np.linspace(0.0, 3.0, 21)[:, None] * 10.0 * k)
    amplitude = prior * factor[:, None] * np.exp(-0.25 * b_factor[:, None] * k**2) * 3.0 * np.exp(-20.0 * k)
    number = np.broadcast_to(60 * np.pi * np.arange(26.0), amplitude.shape)
    model = number * np.exp(-20.0 * k)
    match = amplitude * model + np.sqrt(0.5 * noise * model) * random.standard_normal(model.shape)
    sums = ShellSums(match, model, amplitude**2 * model + noise * number, number, match, model)
    return sums, prior, k, amplitude, factor, b_factor


def test_factors_and_b_factors_of_exposures_come_back(random) -> None:
    """At a signal of a tenth of the noise's power; the B-factors are tried in steps of 25 A^2."""
    sums, prior, k, amplitude, factor, b_factor = planted(random, 2.0)
    signal = (amplitude**2 * sums.model)[:, 1:].sum() / (2.0 * sums.number.sum())
    assert signal == pytest.approx(0.1, abs=0.05)
    found = fit_spectra(sums, prior, k)
    np.testing.assert_allclose(found.factor, factor, rtol=0.08)
    assert np.sqrt(np.mean((found.factor / factor - 1) ** 2)) < 0.03
    error = found.b_factor - b_factor
    assert abs(error.mean()) < 15.0
    assert np.sqrt(np.mean(error**2)) < 50.0
    assert (found.b_factor * b_factor).sum() / (b_factor**2).sum() == pytest.approx(1.0, abs=0.2)
    np.testing.assert_allclose(found.amplitude[:, 1:12], amplitude[:, 1:12], rtol=0.1)
    assert np.abs(found.noise[:, 1:] / 2.0 - 1).mean() < 0.02


def test_the_level_is_that_of_the_series_in_units_of_the_model(random) -> None:
    """Half the signal has half the level; a model twice as large as well. Nothing found: a standard deviation, not 0."""
    sums, prior, k, amplitude, factor, b_factor = planted(random, 2.0)
    whole = fit_spectra(sums, prior, k)
    shape = prior * factor[:, None] * np.exp(-0.25 * b_factor[:, None] * k**2)
    weight = shape * sums.model
    assert whole.level == pytest.approx((weight * amplitude).sum() / (weight * shape).sum(), rel=0.02)
    data = sums.data - 0.75 * amplitude**2 * sums.model
    weak = fit_spectra(sums._replace(match=0.5 * sums.match, noise_match=0.5 * sums.match, data=data), prior, k)
    assert weak.level == pytest.approx(0.5 * whole.level, rel=0.03)
    np.testing.assert_allclose(weak.factor, whole.factor, rtol=0.03)
    twice = fit_spectra(sums._replace(match=2 * sums.match, model=4 * sums.model, noise_match=2 * sums.match,
                                      noise_model=4 * sums.model), prior, k)
    assert twice.level == pytest.approx(0.5 * whole.level, rel=1e-6)
    nothing = sums._replace(match=-sums.match, noise_match=-sums.match)
    assert 0.0 < fit_spectra(nothing, prior, k).level < 0.02 * whole.level
    blind = sums._replace(match=0 * sums.match, model=0 * sums.model, noise_match=0 * sums.match, noise_model=0 * sums.model)
    assert fit_spectra(blind, prior, k).level == 1.0
