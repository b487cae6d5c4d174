"""The FSC curve, the random phases, and the resolution."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core import fsc as shells
from pyp_cspr.tests.blobs import asymmetric_blobs
from pyp_cspr.tests.naive import fsc as naive


def counts_of(box):
    """How many coefficients of the whole sphere each shell holds."""
    one = np.ones((box, box, box // 2 + 1), np.complex64)
    return shells.shell_sums(box, one, one)[3]



@pytest.mark.parametrize("box", [12, 13])
def test_the_curve_equals_its_definition(random, box):
    a = random.normal(size=(box, box, box))
    b = a + random.normal(size=(box, box, box))
    np.testing.assert_allclose(shells.fsc(a, b), naive.fsc(a, b), atol=1e-6)


def test_a_map_correlates_with_itself_and_is_opposite_to_its_negative(random):
    a = random.normal(size=(24, 24, 24)).astype(np.float32)
    np.testing.assert_allclose(shells.fsc(a, a), 1.0, atol=1e-6)
    np.testing.assert_allclose(shells.fsc(a, -3.0 * a)[1:], -1.0, atol=1e-6)


def test_a_half_pixel_shift_lowers_the_curve():
    blobs = asymmetric_blobs(2.0, 20.0)
    moved = type(blobs)(blobs.positions + [1.0, 0, 0], blobs.weights, blobs.sigma)
    curve = shells.fsc(blobs.volume(32, 2.0), moved.volume(32, 2.0))
    # Over a shell the phase pi k / N cos(theta) averages to a sine cardinal.
    assert curve[8] < 0.95


def test_independent_noise_correlates_as_much_as_chance_says(random):
    box = 32
    counts = counts_of(box)[3:16]
    spread = []
    for _ in range(20):
        a, b = random.normal(size=(2, box, box, box))
        spread.append(shells.fsc(a, b)[3:16])
    # n / 2 independent complex products: the real part of their mean has the variance 1 / n.
    normalised = np.array(spread) * np.sqrt(counts)
    assert abs(normalised.mean()) < 0.2
    assert 0.85 < normalised.std() < 1.15


def test_a_shell_without_power_is_zero_and_shell_zero_is_one():
    np.testing.assert_array_equal(shells.fsc(np.zeros((8, 8, 8)), np.ones((8, 8, 8))), [1, 0, 0, 0, 0])


@pytest.mark.parametrize("shape", [(8, 8, 9), (8, 8)])
def test_only_equal_cubes(shape):
    with pytest.raises(ValueError, match="two equal cubes"):
        shells.fsc(np.zeros(shape), np.zeros(shape))


def test_counts_are_those_of_the_whole_sphere():
    counts = counts_of(16)
    assert counts[0] == 1
    assert counts[1] == 6 + 12  # |k| = 1 and sqrt(2)
    assert abs(counts[7] / (4 * np.pi * 49) - 1) < 0.1


@pytest.mark.parametrize("box", [20, 21])
def test_random_phases_keep_amplitudes_and_lower_shells(random, box):
    volume = random.normal(size=(box, box, box)).astype(np.float32)
    turned, same, other = (
        shells.inverse(shells.randomise_phases(shells.transform(volume), box, 5, seed), box) for seed in (3, 3, 4)
    )
    before, after = np.fft.fftn(volume), np.fft.fftn(turned)
    k = np.fft.fftfreq(box) * box
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2))
    np.testing.assert_allclose(np.abs(after), np.abs(before), atol=2e-4 * np.abs(before).max())
    np.testing.assert_allclose(after[shell < 5], before[shell < 5], atol=1e-3)
    curve = shells.fsc(volume, turned)
    np.testing.assert_allclose(curve[:5], 1.0, atol=1e-5)
    assert np.abs(curve[6:]).max() < 0.25
    np.testing.assert_array_equal(turned, same)
    assert np.abs(shells.fsc(turned, other)[6:]).max() < 0.25


def test_random_phases_start_below_the_threshold():
    assert shells.randomise_from(np.array([1, 0.95, 0.9, 0.79, 0.85])) == 3
    assert shells.randomise_from(np.array([0.0, 0.95, 0.9])) is None


def test_the_correction_is_chens():
    masked = np.array([1, 0.99, 0.98, 0.9, 0.8, 0.5, 0.3])
    random = np.array([1, 0.99, 0.98, 0.5, 0.3, 0.3, 0.3])
    np.testing.assert_allclose(shells.correct(masked, random, 2), [1, 0.99, 0.98, 0.9, 0.5 / 0.7, 0.2 / 0.7, 0.0])
    np.testing.assert_array_equal(shells.correct(masked, random, None), masked)
    assert np.isfinite(shells.correct(masked, np.ones(7), 2)).all()


def test_resolution_is_interpolated_between_shells():
    curve = np.array([1.0, 1.0, 0.9, 0.243, 0.043, 0.9, 0.0])
    assert shells.resolution_at(curve, 0.143, 12, 2.0) == pytest.approx(24 / 3.5)  # the first crossing counts
    assert shells.resolution_at(np.array([1.0, 0.1, 0.9, 0.0]), 0.5, 6, 1.0) == pytest.approx(6 / (2 + 4 / 9))
    assert shells.resolution_at(np.ones(7), 0.143, 12, 2.0) == pytest.approx(4.0)
    assert shells.resolution_at(np.array([1.0, 0.1, 0.1, 0.9]), 0.143, 6, 1.0) == np.inf


def test_shells_do_not_depend_on_the_blocks(random, monkeypatch):
    a, b = random.normal(size=(2, 16, 16, 16))
    whole = shells.fsc(a, b)
    monkeypatch.setattr(shells, "BLOCK_ELEMENTS", 500)
    np.testing.assert_allclose(shells.fsc(a, b), whole, atol=1e-12)
