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
