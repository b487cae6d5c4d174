"""The B-splines of smooth fields: what they must reproduce, their smoothness, their ends and slopes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

from pyp_cspr.engine.core.splines import grid_slopes, grid_weights

FIELD = (3000.0, 2400.0)


@pytest.fixture
def places(random: np.random.Generator) -> np.ndarray:
    return random.uniform(-0.5, 0.5, (50, 2)) * FIELD


@pytest.mark.parametrize("grid", [2, 3, 4, 5])
def test_weights_add_up_to_one_and_reproduce_planes(grid: int, places: np.ndarray) -> None:
    weights = grid_weights(places, FIELD, grid)
    assert weights.shape == (50, grid**2)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-12)
    y, x = (axis.ravel() for axis in np.meshgrid(*(np.linspace(-0.5, 0.5, grid) * side for side in FIELD[::-1]), indexing="ij"))
    np.testing.assert_allclose(weights @ (3 + 0.2 * x - 0.1 * y), 3 + places @ [0.2, -0.1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("grid", [2, 3, 5])
def test_along_an_axis_it_is_the_b_spline_with_natural_ends(grid: int, random: np.random.Generator) -> None:
    values = random.normal(size=grid)
    padded = np.concatenate([[2 * values[0] - values[1]], values, [2 * values[-1] - values[-2]]])
    curve = BSpline(np.arange(-3.0, grid + 3.0), padded, 3)
    t = np.linspace(0, grid - 1, 41)
    place = np.stack([(t / (grid - 1) - 0.5) * FIELD[0], np.zeros(41)], axis=-1)
    control = np.tile(values, grid)  # the same in every row
    np.testing.assert_allclose(grid_weights(place, FIELD, grid) @ control, curve(t), atol=1e-12)
    np.testing.assert_allclose(grid_slopes(place, FIELD, grid)[:, 0] @ control, curve(t, 1) * (grid - 1) / FIELD[0], atol=1e-12)
    np.testing.assert_allclose(curve([0, grid - 1], 2), 0, atol=1e-9)
    np.testing.assert_allclose(curve([0, grid - 1]), values[[0, -1]], atol=1e-12)


@pytest.mark.parametrize("grid", [2, 3, 4, 5])
def test_slopes_are_differences_of_the_weights(grid: int, places: np.ndarray) -> None:
    slopes = grid_slopes(places, FIELD, grid)
    for axis in range(2):
        step = np.eye(2)[axis] * 1e-3
        difference = (grid_weights(places + step, FIELD, grid) - grid_weights(places - step, FIELD, grid)) / 2e-3
        np.testing.assert_allclose(slopes[:, axis], difference, atol=1e-9)


def test_beyond_the_image_the_field_is_that_of_its_edge() -> None:
    edge, beyond = np.array([[1500.0, 300.0]]), np.array([[9000.0, 300.0]])
    np.testing.assert_allclose(grid_weights(beyond, FIELD, 4), grid_weights(edge, FIELD, 4), atol=1e-15)
    assert not grid_slopes(beyond, FIELD, 4)[0, 0].any()
    assert grid_slopes(beyond, FIELD, 4)[0, 1].any()


def test_without_a_grid_there_are_no_weights(places: np.ndarray) -> None:
    assert grid_weights(places, FIELD, 0).shape == (50, 0)
    assert grid_slopes(places, FIELD, 0).shape == (50, 2, 0)
