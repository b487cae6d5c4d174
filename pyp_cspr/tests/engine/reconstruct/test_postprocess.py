"""The four curves: what a mask does to them, and what the correction takes out."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core import filters
from pyp_cspr.engine.core import fsc as shells
from pyp_cspr.engine.reconstruct.postprocess import CURVES, compare_halves, sharpen_halves
from pyp_cspr.tests.blobs import asymmetric_blobs


def test_the_correction_removes_what_a_tight_mask_feigns(random):
    """Noise alone, under one tight mask, correlates; the corrected curve must not."""
    box = 48
    mask = filters.soft_sphere(box, 5.0, 1.0)
    mask[24:, 24:, 24:] = 0.0  # sharp faces, the worst of masks
    signal = filters.low_pass(random.normal(size=(box, box, box)), 1.0, 8.0) * 6  # shared up to shell 6 only
    masked, corrected = [], []
    for seed in range(6):
        # The noise of a map is not white: coarse noise leaks through a sharp mask into fine shells.
        halves = [signal + random.normal(size=signal.shape) for _ in range(2)]
        compared = compare_halves(*halves, pixel=1.0, mask=mask, seed=seed)
        masked.append(compared.curves["masked"][9:])
        corrected.append(compared.curves["corrected"][9:])
    assert np.mean(masked) > 0.1
    assert abs(np.mean(corrected)) < 0.25 * np.mean(masked)


def test_pure_noise_has_no_resolution(random):
    halves = random.normal(size=(2, 40, 40, 40))
    compared = compare_halves(*halves, pixel=2.0, mask=filters.soft_sphere(40, 6.0, 3.0))
    assert compared.resolution_0143 > 15
    assert abs(compared.curves["corrected"][5:].mean()) < 0.05
    assert compare_halves(*halves, pixel=2.0, mask="none").resolution_0143 > 15


def test_a_mask_finds_the_signal_that_noise_outside_hides(random):
    pixel = 3.0
    truth = asymmetric_blobs(pixel, 7 * pixel, count=20).volume(48, pixel)
    halves = [truth + 0.6 * truth.std() * 4 * random.normal(size=truth.shape) for _ in range(2)]
    masked = compare_halves(*halves, pixel=pixel, mask=filters.soft_mask(truth, pixel).values)
    bare = compare_halves(*halves, pixel=pixel, mask="none")
    assert masked.resolution_0143 < 0.95 * bare.resolution_0143
    np.testing.assert_array_equal(bare.curves["masked"], bare.curves["unmasked"])
    np.testing.assert_allclose(bare.curves["unmasked"], shells.fsc(*halves), atol=1e-6)
    # A true signal survives the correction.
    low = slice(1, 8)
    np.testing.assert_allclose(masked.curves["corrected"][low], masked.curves["masked"][low], atol=0.1)


def test_before_randomisation_the_corrected_curve_is_the_masked_one(random):
    truth = asymmetric_blobs(3.0, 21.0).volume(32, 3.0)
    halves = [truth + 0.5 * truth.std() * random.normal(size=truth.shape) for _ in range(2)]
    compared = compare_halves(*halves, pixel=3.0)
    start = shells.randomise_from(compared.curves["unmasked"])
    assert start is not None
    np.testing.assert_array_equal(compared.curves["corrected"][: start + 2], compared.curves["masked"][: start + 2])
    assert set(compared.curves) == set(CURVES)
    assert compared.mask.shape == truth.shape


def test_equal_maps_reach_the_last_shell():
    truth = asymmetric_blobs(3.0, 21.0).volume(32, 3.0)
    compared = compare_halves(truth, truth, pixel=3.0)
    assert compared.resolution_0143 == pytest.approx(6.0)
    assert any("not randomised" in entry["message"] for entry in compared.journal)
    assert any("last shell" in entry["message"] for entry in compared.journal)


def test_the_same_seed_gives_the_same_curves(random):
    halves = random.normal(size=(2, 24, 24, 24)) + asymmetric_blobs(1.0, 5.0).volume(24, 1.0)
    first, second = (compare_halves(*halves, pixel=1.0, seed=5) for _ in range(2))
    for name in CURVES:
        np.testing.assert_array_equal(first.curves[name], second.curves[name])
    other = compare_halves(*halves, pixel=1.0, seed=6)
    assert (other.curves["phase_randomised"] != first.curves["phase_randomised"]).any()


def test_inputs_that_do_not_fit_are_refused(random):
    a = random.normal(size=(16, 16, 16))
    with pytest.raises(ValueError, match="two equal cubes"):
        compare_halves(a, a[:8], 1.0)
    with pytest.raises(ValueError, match="does not fit"):
        compare_halves(a, a, 1.0, mask=np.ones((8, 8, 8)))
    with pytest.raises(ValueError, match="auto, none or an array"):
        compare_halves(a, a, 1.0, mask="tight")


def test_real_ribosome_under_noise_gets_a_mask(shared_data, random):
    """The average of EMPIAR-10499, 12 A/pixel, box 32, at the noise of a few particles."""
    from pyp_cspr.engine.io.mrc import read_map

    average, pixel = read_map(shared_data / "real" / "empiar10499" / "average.mrc")
    peak = np.abs(average).max()
    halves = [average + 0.3 * peak * random.normal(size=average.shape) for _ in range(2)]
    compared = compare_halves(*halves, pixel=pixel or 12.0)
    centre = len(average) // 2
    assert 0.03 < compared.mask.mean() < 0.6
    assert compared.mask[centre - 2 : centre + 3, centre - 2 : centre + 3, centre - 2 : centre + 3].mean() > 0.9


def flat_halves(random, b_factor, noise, box=64, pixel=2.0):
    """Halves of points, whose spectrum is flat, damped by ``b_factor``; and the points in the mask's sphere."""
    truth = np.zeros((box,) * 3)
    places = random.integers(-12, 13, size=(400, 3))
    np.add.at(truth, tuple(box // 2 + places[np.linalg.norm(places, axis=1) < 12].T), 1.0)
    damped = filters.radial_filter(truth, filters.b_factor_curve(box, pixel, b_factor))
    halves = [damped + noise * damped.std() * random.normal(size=truth.shape) for _ in range(2)]
    return truth, halves, filters.soft_sphere(box, 18.0, 6.0)


def test_sharpening_undoes_a_planted_b_factor(random):
    truth, halves, mask = flat_halves(random, 120.0, 0.1)
    made = sharpen_halves(*halves, pixel=2.0, mask=mask)
    assert made.b_factor == pytest.approx(-120.0, abs=15.0)
    assert made.resolution == made.compared.resolution_0143 < 7.0
    limit = int(64 * 2.0 / (1.2 * made.resolution))
    power = [np.sqrt(shells.shell_sums(64, shells.transform(one), shells.transform(one))[0]) for one in (truth, made.map)]
    # Where nearly no noise is, the amplitudes of all shells are those of the truth.
    ratio = power[1][4:limit] / power[0][4:limit]
    np.testing.assert_allclose(ratio / ratio.mean(), 1.0, atol=0.15)


def test_a_given_b_factor_and_resolution_are_used(random):
    _, halves, mask = flat_halves(random, 120.0, 0.1)
    plain = sharpen_halves(*halves, pixel=2.0, mask=mask, b_factor=0.0, resolution=8.0)
    made = sharpen_halves(*halves, pixel=2.0, mask=mask, b_factor=-60.0, resolution=8.0)
    assert (plain.b_factor, made.b_factor, made.resolution) == (0.0, -60.0, 8.0)
    expected = filters.radial_filter(plain.map, filters.b_factor_curve(64, 2.0, -60.0))
    np.testing.assert_allclose(made.map, expected, atol=1e-5 * np.abs(made.map).max())
    beyond = shells.shell_sums(64, shells.transform(made.map), shells.transform(made.map))[0]
    assert beyond[20:].max() < 1e-8 * beyond.max()  # shell 16 is 8 A
    fine = sharpen_halves(*halves, pixel=2.0, mask=mask, b_factor=0.0, resolution=1.0)
    assert fine.resolution == 4.0  # not beyond Nyquist


def test_halves_that_do_not_correlate_are_only_averaged(random):
    halves = random.normal(size=(2, 32, 32, 32))
    halves[1] -= (halves[1] * halves[0]).mean() * halves[0]
    halves[1] -= 0.2 * halves[0]  # in no shell by chance
    made = sharpen_halves(*halves, pixel=2.0, mask="none")
    assert made.b_factor is None
    np.testing.assert_allclose(made.map, halves.mean(axis=0), atol=1e-6)
    assert made.compared.journal[-1]["message"] == "map: average of the halves, neither weighted nor sharpened"
