"""Filters, the Guinier fit and masks."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core import filters
from pyp_cspr.engine.core import fsc as shells
from pyp_cspr.tests.blobs import asymmetric_blobs


def power(volume):
    spectrum = shells.transform(volume)
    return np.divide(*shells.shell_sums(len(volume), spectrum, spectrum)[[0, 3]])


def test_low_pass_keeps_what_is_coarser_and_removes_what_is_finer(random):
    volume = random.normal(size=(32, 32, 32)).astype(np.float32)
    ratio = power(filters.low_pass(volume, 2.0, 8.0, edge=2.0)) / power(volume)  # 8 A is shell 8
    np.testing.assert_allclose(ratio[:8], 1.0, atol=1e-4)
    assert ratio[8] == pytest.approx(0.25, abs=1e-3)
    np.testing.assert_allclose(ratio[9:], 0.0, atol=1e-6)


def test_a_b_factor_sharpens_by_its_definition(random):
    volume = filters.low_pass(random.normal(size=(32, 32, 32)), 2.0, 4.5)
    sharp = filters.radial_filter(volume, filters.b_factor_curve(32, 2.0, -80.0))
    ratio = np.sqrt(power(sharp)[1:12] / power(volume)[1:12])
    np.testing.assert_allclose(ratio, np.exp(80.0 / 4 / shells.resolutions(32, 2.0)[1:12] ** 2), rtol=1e-4)


def test_guinier_finds_the_b_factor_that_was_applied(random):
    box, pixel = 64, 1.5
    volume = filters.radial_filter(random.normal(size=(box, box, box)), filters.b_factor_curve(box, pixel, 120.0))
    fit = filters.guinier(power(volume), np.ones(box // 2 + 1), box, pixel, finest=3.2)
    assert fit is not None
    assert fit.b_factor == pytest.approx(-120.0, abs=5.0)
    assert abs(fit.b_factor + 120.0) < 4 * fit.error < 10.0
    assert shells.resolutions(box, pixel)[fit.shells[0]] <= 10.0
    # The noise in the power is taken out by C_ref.
    curve = np.full(box // 2 + 1, 0.5)
    same = filters.guinier(power(volume) / filters.reference_weight(curve) ** 2, curve, box, pixel, finest=3.2)
    assert same is not None
    assert same.b_factor == pytest.approx(fit.b_factor, abs=1e-6)


def test_guinier_needs_a_range():
    assert filters.guinier(np.ones(33), np.ones(33), 64, 4.0, finest=9.0) is None


def test_c_ref_is_rosenthals():
    np.testing.assert_allclose(filters.reference_weight(np.array([-0.2, 0.143, 1.0])), [0.0, 0.5002, 1.0], atol=1e-4)


def test_soft_sphere_has_its_radius_and_edge():
    sphere = filters.soft_sphere(32, 8.0, 4.0)
    assert sphere[16, 16, 16 + 8] == 1
    assert sphere[16, 16, 16 + 10] == pytest.approx(0.5, abs=1e-6)
    assert sphere[16, 16, 16 + 12] == pytest.approx(0.0, abs=1e-6)
    assert sphere[16, 16, 16 - 8] == 1


def test_otsu_splits_two_heaps(random):
    values = np.concatenate([random.normal(0, 1, 9000), random.normal(10, 1, 1000)])
    assert 3 < filters.otsu(values) < 8


@pytest.mark.parametrize(("box", "pixel"), [(64, 3.0), (48, 6.0), (45, 6.0), (96, 1.6)])
def test_the_mask_covers_the_particle_and_little_else(random, box, pixel):
    blobs = asymmetric_blobs(pixel, 0.25 * box * pixel, count=40)
    blobs = type(blobs)(blobs.positions, blobs.weights, 0.06 * box * pixel)
    clean = blobs.volume(box, pixel)
    noisy = clean + 0.3 * clean.max() * random.normal(size=clean.shape)
    mask = filters.soft_mask(noisy, pixel)
    assert mask.automatic, mask.reason
    assert mask.values.shape == clean.shape
    assert 0 <= mask.values.min()
    assert mask.values.max() == 1
    inside = clean > 0.5 * clean.max()
    assert mask.values[inside].min() > 0.95
    assert (clean * mask.values).sum() > 0.85 * clean.sum()
    assert (mask.values > 0.5).sum() < 4 * (clean > 0.15 * clean.max()).sum()
    assert mask.volume == pytest.approx(mask.values.sum() * pixel**3, rel=1e-3)
    edge = (mask.values > 0.02) & (mask.values < 0.98)
    assert edge.any()
    steps = np.abs(np.diff(mask.values, axis=0)).max()
    assert steps < 0.7  # 3 pixels of cosine, across its steepest part


def test_the_mask_lies_where_the_particle_is():
    """An upsampled mask must not move by half a pixel."""
    box, pixel = 128, 1.0
    axis = np.arange(box) - box // 2
    ball = ((axis[:, None, None] - 7) ** 2 + axis[:, None] ** 2 + (axis + 11) ** 2 < 20**2).astype(np.float32)
    values = filters.soft_mask(ball, pixel).values.astype(float)
    centre = [float((values.sum(axis=tuple(set(range(3)) - {d})) * axis).sum() / values.sum()) for d in range(3)]
    np.testing.assert_allclose(centre, [7, 0, -11], atol=0.1)


def test_the_mask_keeps_only_the_particle():
    box = 64
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = (x**2 + y**2 + z**2 < 14**2).astype(np.float32)
    volume[(x**2 + y**2 + z**2) < 4**2] = 0.0  # a hole is filled
    neighbour = (x - 25) ** 2 + (y + 5) ** 2 + z**2 < 4**2
    volume[neighbour] = 1.0
    mask = filters.soft_mask(volume, 4.0)
    assert mask.automatic
    assert mask.values[32, 32, 32] == 1
    assert mask.values[32, 27, 57] == 0


@pytest.mark.parametrize("kind", ["noise", "flat", "zero"])
def test_without_a_particle_the_mask_is_a_soft_sphere_and_says_so(random, kind):
    volume = {"noise": random.normal(size=(32, 32, 32)), "flat": np.ones((32, 32, 32)), "zero": np.zeros((32, 32, 32))}[kind]
    mask = filters.soft_mask(volume, 12.0)
    assert not mask.automatic
    assert mask.reason.startswith("soft sphere: ")
    assert mask.values[16, 16, 16] == 1
    assert mask.values[0, 0, 0] == 0
    assert mask.volume > 0


def test_filtering_leaves_its_input_alone(random):
    volume = random.normal(size=(16, 16, 16)).astype(np.float32)
    before = volume.copy()
    spectrum = shells.transform(volume)
    kept = spectrum.copy()
    filters.low_pass(volume, 1.0, 4.0)
    filters.soft_mask_of_spectra([spectrum], 16, 2.0)
    np.testing.assert_array_equal(volume, before)
    np.testing.assert_array_equal(spectrum, kept)
