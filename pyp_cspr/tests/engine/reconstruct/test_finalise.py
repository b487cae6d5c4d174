"""From accumulators to maps: nothing moves, nothing is lost, noise is filtered."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pyp_cspr.engine.core import fsc as shells
from pyp_cspr.engine.core.band import make_band
from pyp_cspr.engine.core.filters import reference_weight
from pyp_cspr.engine.core.insertion import Accumulator
from pyp_cspr.engine.reconstruct import finalise as module
from pyp_cspr.engine.reconstruct.finalise import finalise, signal_curve, solve
from pyp_cspr.tests.blobs import asymmetric_blobs
from pyp_cspr.tests.engine.reconstruct.doubles import from_half, ideal_accumulator
from pyp_cspr.tests.naive import finalise as naive

PIXEL = 3.0


def _changed(accumulator, planes, by, weights_by):
    """With the numerator and the denominator of some z planes multiplied."""
    numerator, denominator = accumulator.numerator, accumulator.denominator
    numerator[planes] *= by
    denominator[planes] *= weights_by
    return from_half(accumulator, numerator, denominator)


@pytest.fixture
def truth():
    return asymmetric_blobs(PIXEL, 9 * PIXEL, count=20).volume(32, PIXEL)


@pytest.mark.parametrize("padding", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("uneven", [False, True])
def test_a_known_map_comes_back_in_place(truth, random, padding, uneven):
    found = solve(ideal_accumulator(truth, padding, 15, random if uneven else None))
    assert found.dtype == np.float32
    curve = shells.fsc(found, truth)
    assert curve[1:13].min() > 0.9995
    assert curve[13:15].min() > 0.99  # here sinc^2 wants what lies beyond the radius
    axis = np.arange(32) - 16.0
    for d in range(3):
        profile = tuple(set(range(3)) - {d})
        centre = (found.sum(axis=profile) * axis).sum() / found.sum()
        want = (truth.sum(axis=profile) * axis).sum() / truth.sum()
        assert abs(centre - want) < 0.02
    # Density as well as place: amplitude, and a background of 0.
    scale = (found * truth).sum() / (truth**2).sum()
    assert scale == pytest.approx(1.0, abs=0.01)
    assert np.abs(found - truth).max() < 0.03 * truth.max()


@pytest.mark.parametrize("padding", [1.0, 1.5])
@pytest.mark.parametrize("wiener", [None, np.linspace(1.0, -0.1, 9)])
def test_solving_equals_plain_sums(random, padding, wiener):
    volume = random.normal(size=(16, 16, 16))
    pair = [ideal_accumulator(volume, padding, radius, random, noise=20.0) for radius in (7, 7)]
    pair = [_changed(one, slice(3, 6), 1.0, 1e-5) for one in pair]  # hardly sampled
    found = solve(pair, wiener=None if wiener is None else np.clip(wiener, 0, 1))
    least = module.LEAST_WEIGHT if wiener is None else module.LEAST_WEIGHT_WIENER
    want = naive.solve(pair, least, None if wiener is None else np.clip(wiener, 0, 1))
    assert np.abs(found - want).max() < 2e-5 * np.abs(want).max()


def test_the_map_does_not_depend_on_blocks_or_threads(truth, random, monkeypatch):
    accumulator = ideal_accumulator(truth, 1.5, 14, random, noise=5.0)
    whole = solve(accumulator)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 3000)
    np.testing.assert_allclose(solve(accumulator, threads=2), whole, atol=1e-5 * whole.max())


def test_single_precision_sums_give_the_same_map(truth, random):
    accumulator = ideal_accumulator(truth, 1.5, 14, random)
    exact = solve(accumulator)
    single = Accumulator(32, 1.5, 14, accumulator.sums.astype(np.float32))
    np.testing.assert_allclose(solve(single), exact, atol=1e-5 * exact.max())


def test_empty_voxels_do_not_explode(truth, random):
    accumulator = ideal_accumulator(truth, 1.0, 15, random, noise=2.0)
    wedge = slice(20, 24)
    accumulator = _changed(accumulator, wedge, 1e-5, 1e-9)  # noise that falls with the square root of the weight
    accumulator = _changed(accumulator, slice(5, 6), 0.0, 0.0)
    found = solve(accumulator)
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 3 * truth.max()


def test_an_empty_half_gives_an_empty_map(truth):
    accumulator = ideal_accumulator(truth, 1.0, 15)
    accumulator = Accumulator(accumulator.box, accumulator.padding, accumulator.radius)
    assert not solve(accumulator).any()
    result = finalise(ideal_accumulator(truth, 1.0, 15), accumulator, PIXEL)
    assert result.resolution_0143 == np.inf
    assert np.isfinite(result.map).all()
    assert shells.fsc(result.map, truth)[1:15].min() > 0.99
    assert any("do not correlate" in entry["message"] for entry in result.journal)


def test_accumulators_of_different_grids_are_refused(truth):
    with pytest.raises(ValueError, match="do not fit"):
        solve((ideal_accumulator(truth, 1.0, 15), ideal_accumulator(truth, 1.5, 15)))


def test_the_wiener_map_is_nearer_to_the_truth_than_the_average(truth, random):
    halves = [ideal_accumulator(truth, 1.5, 15, random, noise=8.0) for _ in range(2)]
    result = finalise(*halves, PIXEL)
    average = 0.5 * (result.half1 + result.half2)

    def error(volume):
        return float(((volume - truth) ** 2 * result.mask).sum() / (truth**2 * result.mask).sum())

    assert error(result.map) < 0.8 * error(average)
    assert error(result.map) < error(0.5 * result.map)
    assert 2 * PIXEL < result.resolution_0143 < 20
    assert result.resolution_05 > result.resolution_0143
    # The curves predict what the truth says: C_ref of the corrected FSC is the correlation of the average with the truth.
    real = shells.fsc(average * result.mask, truth * result.mask)
    predicted = reference_weight(result.curves["corrected"])
    shell = int(32 * PIXEL / result.resolution_0143)
    np.testing.assert_allclose(predicted[2 : shell - 1], real[2 : shell - 1], atol=0.15)


def test_beyond_the_inserted_radius_the_curves_are_zero(truth, random):
    result = finalise(*(ideal_accumulator(truth, 1.0, 9, random) for _ in range(2)), PIXEL)
    for curve in result.curves.values():
        assert curve.shape == (17,)
        assert not curve[10:].any()
        assert curve[8] > 0.9
    assert result.resolution_0143 == pytest.approx(32 * PIXEL / 9, rel=0.12)


def test_without_a_range_there_is_no_b_factor_and_the_journal_says_so(truth, random):
    result = finalise(*(ideal_accumulator(truth, 1.0, 15, random, noise=3.0) for _ in range(2)), 8.0)
    assert result.b_factor is None
    assert any(entry["message"].startswith("no B-factor") for entry in result.journal)
    assert np.isfinite(result.sharpened).all()
    assert shells.fsc(result.sharpened, truth)[2:6].min() > 0.9


def test_a_fine_map_is_sharpened(random):
    pixel, box = 1.2, 48
    blobs = asymmetric_blobs(pixel, 12 * pixel, count=200)
    truth = type(blobs)(blobs.positions, blobs.weights, 0.9 * pixel).volume(box, pixel)
    result = finalise(*(ideal_accumulator(truth, 1.0, 23, random, noise=2.0) for _ in range(2)), pixel)
    assert result.b_factor is not None
    # Gaussian atoms of sigma s have B = 8 pi^2 s^2.
    assert result.b_factor == pytest.approx(-8 * np.pi**2 * (0.9 * pixel) ** 2, rel=0.35)

    def high(volume):
        spectrum = np.abs(shells.transform(volume))
        return spectrum[10, 0, 0] / spectrum[4, 0, 0]

    assert high(result.sharpened) > 1.5 * high(result.map)


def test_the_signal_curve_is_least_from_its_first_zero_on():
    curve = signal_curve(np.array([1.0, 0.2, 0.95, 0.9, 0.4, -0.01, 0.3]))
    np.testing.assert_allclose(curve, [0.999, 0.9, 0.95, 0.9, 0.4, 0.01, 0.01])


def test_the_journal_is_json(truth, random):
    for noise in (0.5, 500.0):
        result = finalise(*(ideal_accumulator(truth, 1.0, 15, random, noise=noise) for _ in range(2)), PIXEL)
        assert result.journal == json.loads(json.dumps(result.journal, allow_nan=False))
        assert all({"message", "value"} <= set(entry) for entry in result.journal)


def test_slices_inserted_and_solved_give_the_particle_in_place(random):
    """The real accumulator, fed with exact slices: nothing is shifted, mirrored or scaled."""
    box, extent = 32, 9 * PIXEL
    blobs = asymmetric_blobs(PIXEL, extent, count=20)
    truth = blobs.volume(box, PIXEL)
    band = make_band(box, 15)
    matrices = Rotation.random(600, random_state=4).as_matrix()
    plane = np.stack([band.kx, band.ky], axis=-1) / (box * PIXEL)
    slices = blobs.transform(np.einsum("jc,bcd->bjd", plane, matrices[:, :2]), PIXEL).astype(np.complex64)
    accumulators = [Accumulator(box, 1.5, 15), Accumulator(box, 1.5, 15)]
    for half, accumulator in enumerate(accumulators):
        part = slices[half::2]
        accumulator.insert(part, np.ones(part.shape, np.float32), matrices[half::2], band)
    result = finalise(*accumulators, PIXEL)
    for volume in (result.map, result.half1, result.half2):
        assert shells.fsc(volume, truth)[1:14].min() > 0.98
        axis = np.arange(box) - box // 2
        for d in range(3):
            others = tuple({0, 1, 2} - {d})
            inside = volume * (truth > 0.02 * truth.max())
            want = truth * (truth > 0.02 * truth.max())
            centre = (inside.sum(axis=others) * axis).sum() / inside.sum()
            assert centre == pytest.approx((want.sum(axis=others) * axis).sum() / want.sum(), abs=0.02)
        assert (volume * truth).sum() / (truth**2).sum() == pytest.approx(1.0, abs=0.03)
