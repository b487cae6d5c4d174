"""Statistics and crops of images, against numpy and a loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core.images import MOST_OUTLIERS, cut_crops, robust_statistics
from pyp_cspr.tests.naive import images as naive

TYPES = ["i1", "i2", "u2", "f2", "f4", ">i2", ">f4"]


@pytest.mark.kernel
@pytest.mark.parametrize("dtype", TYPES)
def test_crops_are_the_pixels(random, dtype):
    """Inside, over each edge, in a corner, wholly outside; the image is not square."""
    image = random.integers(0, 100, (19, 31)).astype(dtype)
    low = np.array([[4, 5], [-3, 2], [27, 4], [5, -6], [7, 15], [-5, -4], [26, 14], [40, 3], [3, -20]])
    size = np.array([31, 19])
    begin = np.clip(low, 0, size)
    end = np.maximum(np.clip(low + 8, 0, size), begin)
    found = cut_crops(image, low, begin, end, 8, 42.5, 0.25)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive.cut_crops(image, low, begin, end, 8, 42.5, 0.25), rtol=1e-6)
    assert (found[0] != 0).all()
    assert not found[-2:].any()


def test_a_read_only_image_is_enough(random):
    image = random.integers(0, 100, (9, 9)).astype("i2")
    image.setflags(write=False)
    low = np.array([[2, 3]])
    np.testing.assert_array_equal(cut_crops(image, low, low, low + 4, 4, 0.0, 1.0)[0], image[3:7, 2:6])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(7, 11), (300, 401), (2, 65_541)])
def test_statistics_are_numpys(random, dtype, shape):
    image = random.integers(20, 100, shape).astype(dtype)
    values = image.astype(np.float64)
    assert robust_statistics(image) == pytest.approx((values.mean(), values.std()), rel=1e-12)


@pytest.mark.kernel
def test_statistics_leave_x_rays_out(random):
    """In the first block, which the sums start from, and in a later one."""
    clean = random.normal(500.0, 20.0, (400, 400)).astype(np.float32)
    struck = clean.copy()
    struck[0, 0], struck[390, 20] = 1e6, -1e5
    kept = np.delete(struck.reshape(-1).astype(np.float64), [0, 390 * 400 + 20])
    assert robust_statistics(struck) == pytest.approx((kept.mean(), kept.std()), rel=1e-12)


@pytest.mark.parametrize("places", [((0, 0),), ((0, 0), (0, 1)), ((0, 5), (399, 3))])
def test_wild_pixels_take_no_digits(random, places):
    """1e20 and 1e10, both in the first row or not, in an image far from 0."""
    clean = random.normal(5e4, 20.0, (400, 400)).astype(np.float32)
    struck = clean.copy()
    for place, value in zip(places, (1e20, -1e10)):
        struck[place] = value
    values = clean.astype(np.float64)
    assert robust_statistics(struck) == pytest.approx((values.mean(), values.std()), rel=1e-4)


def test_bright_particles_are_not_outliers(random):
    image = np.zeros((100, 100), np.float32)
    image.reshape(-1)[random.choice(10_000, int(20 * MOST_OUTLIERS * 10_000), replace=False)] = 1.0
    assert robust_statistics(image) == pytest.approx((image.mean(), image.std()), rel=1e-6)


@pytest.mark.parametrize("values", [(np.nan,), (np.inf,), (np.inf, -np.inf), (np.nan, np.inf)])
@pytest.mark.parametrize("row", [0, 30])
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_pixels_that_are_no_numbers_show(random, values, row, dtype):
    image = random.normal(0.0, 1.0, (50, 60)).astype(dtype)
    image[row, 7 : 7 + len(values)] = values
    assert not np.isfinite(robust_statistics(image)).all()
