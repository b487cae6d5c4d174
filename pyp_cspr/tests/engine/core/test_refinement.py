"""Local equations against their naive twin and against finite differences; their signs, prefixes, references and threads."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from pyp_cspr.engine.core.band import Band, make_band
from pyp_cspr.engine.core.geometry import rotation_vector_to_matrix
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.core.refinement import LocalEquations, local_equations
from pyp_cspr.tests.blobs import asymmetric_blobs
from pyp_cspr.tests.naive import projection as naive_projection
from pyp_cspr.tests.naive import refinement as naive

FIELD = 37.0


class Setup(NamedTuple):
    data: NDArray[np.complex64]
    weight: NDArray[np.float32]
    band: Band
    volumes: NDArray[np.float32]  # (2, N, N, N)
    references: Any
    rotations: NDArray[np.float64]
    shifts: NDArray[np.float64]

    def equations(self, **changes: Any) -> LocalEquations:
        arguments: Dict[str, Any] = {
            "data": self.data, "weight": self.weight, "band": self.band, "field": FIELD, "references": self.references[:1],
            "which": np.zeros(len(self.rotations), int), "rotations": self.rotations, "shifts": self.shifts,
        }
        return local_equations(**{**arguments, **changes})


def random_setup(random: np.random.Generator, padding: float = 1.5, count: int = 5) -> Setup:
    box, radius = 12, 4.5
    volumes = random.normal(size=(2, box, box, box)).astype(np.float32)
    references = [Reference(volume, padding, correct=False) for volume in volumes]
    band = make_band(box, radius)
    size = (count, len(band))
    data = (random.normal(size=size) + 1j * random.normal(size=size)).astype(np.complex64)
    weight = random.uniform(0.1, 1.0, size).astype(np.float32)
    rotations = rotation_vector_to_matrix(random.normal(0, 2, (count, 3)))
    return Setup(data, weight, band, volumes, references, rotations, random.normal(0, 5, (count, 2)))


@pytest.mark.kernel
@pytest.mark.parametrize("padding, scale", [(1.0, 1.0), (1.5, 1.0), (2.0, 1.0), (1.5, 1.07)])
def test_equations_agree_with_their_naive_twin(padding: float, scale: float, random: np.random.Generator) -> None:
    """Two references, rows in another order with one of them twice, shifts of many angstrom."""
    setup = random_setup(random, padding=padding)
    which, rows = np.array([0, 1, 1, 0, 1]), np.array([3, 0, 4, 3, 1])
    result = setup.equations(references=setup.references, which=which, rows=rows, scale=scale)
    padded = setup.references[0].padded
    transforms = [naive_projection.centred_transform(volume, padded) for volume in setup.volumes]
    for p in range(5):
        y = naive.model(transforms[which[p]], setup.rotations[p], setup.shifts[p], setup.band.kx, setup.band.ky, FIELD,
                        scale * padded / 12)
        match, power, gradient, matrix = naive.equations(setup.data[rows[p]], setup.weight[rows[p]], y)
        tolerance = 2e-5 * power
        assert abs(result.match[p] - match) < tolerance
        assert abs(result.power[p] - power) < tolerance
        assert abs(result.cost[p] - naive.cost(setup.data[rows[p]], setup.weight[rows[p]], y.value)) < 2 * tolerance
        unit = np.sqrt(np.diag(matrix))  # the gradient of unit steps, in units of their standard deviations
        np.testing.assert_allclose(result.gradient[p] / unit, gradient / unit, atol=2e-5 * np.sqrt(power))
        np.testing.assert_allclose(result.matrix[p] / np.outer(unit, unit), matrix / np.outer(unit, unit), atol=1e-5)


@pytest.mark.parametrize("parameter", range(5), ids=["x", "y", "z", "shift x", "shift y"])
def test_gradient_is_the_finite_difference(parameter: int, random: np.random.Generator) -> None:
    """Of the same interpolated function in double precision; samples that change their voxel at the step count for nothing."""
    setup = random_setup(random, count=3)
    padded = setup.references[0].padded
    transform = naive_projection.centred_transform(setup.volumes[0], padded)
    step = 2e-5
    weight, data, sides = setup.weight.copy(), setup.data.copy(), []
    for p in range(3):
        pair = []
        for sign in (1, -1):
            moved = np.zeros(5)
            moved[parameter] = sign * step
            rotation = rotation_vector_to_matrix(moved[:3]) @ setup.rotations[p]
            shift = setup.shifts[p] + moved[3:]
            pair.append(naive.model(transform, rotation, shift, setup.band.kx, setup.band.ky, FIELD, padded / 12))
        crossed = (pair[0].cell != pair[1].cell).any(axis=1)
        assert crossed.mean() < 0.1
        weight[p, crossed], data[p, crossed] = 0.0, 0.0
        sides.append(pair)
    result = setup.equations(data=data, weight=weight)
    for p, (plus, minus) in enumerate(sides):
        difference = (naive.cost(data[p], weight[p], plus.value) - naive.cost(data[p], weight[p], minus.value)) / (2 * step)
        size = np.sqrt(result.matrix[p, parameter, parameter] * result.power[p])
        assert abs(result.gradient[p, parameter] - difference) < 1e-4 * abs(difference) + 1e-5 * size
        slope = (plus.value - minus.value) / (2 * step)
        diagonal = 2.0 * (weight[p] * np.abs(slope) ** 2).sum()
        assert result.matrix[p, parameter, parameter] == pytest.approx(diagonal, rel=1e-4)


@pytest.mark.parametrize("parameter", range(5), ids=["x", "y", "z", "shift x", "shift y"])
def test_the_step_leads_back_to_the_true_pose(parameter: int, random: np.random.Generator) -> None:
    """Noise-free data of a smooth particle: one Gauss-Newton step undoes a small displacement of one parameter alone."""
    box, pixel = 32, 3.0
    blobs = asymmetric_blobs(pixel, 0.22 * box * pixel)
    reference, band = Reference(blobs.volume(box, pixel), 2.0), make_band(box, 10)
    field = box * pixel
    rotations = rotation_vector_to_matrix(random.normal(0, 2, (4, 3)))
    shifts = random.normal(0, 4, (4, 2))
    k = np.stack([band.kx, band.ky]) / field
    data = reference.slices(rotations, band) * np.exp(-2j * np.pi * shifts @ k)
    moved = np.zeros(5)
    moved[parameter] = 0.01 if parameter < 3 else 0.3
    weight = np.ones(data.shape, np.float32)
    result = local_equations(data.astype(np.complex64), weight, band, field, [reference], np.zeros(4, int),
                             rotation_vector_to_matrix(moved[:3]) @ rotations, shifts + moved[3:])
    step = -np.linalg.solve(result.matrix, result.gradient[:, :, None])[:, :, 0]
    np.testing.assert_allclose(step[:, parameter], -moved[parameter], rtol=0.1)
    step[:, parameter] += moved[parameter]
    assert np.abs(step[:, :3]).max() < 0.0015
    assert np.abs(step[:, 3:]).max() < 0.05


def test_a_prefix_is_a_smaller_band(random: np.random.Generator) -> None:
    setup = random_setup(random)
    small = make_band(12, 3)
    count = setup.band.prefix(3)
    assert 0 < len(small) <= count < len(setup.band)
    result = setup.equations(count=count)
    cut = setup.equations(weight=np.where(np.arange(len(setup.band)) < count, setup.weight, 0).astype(np.float32),
                          data=np.where(np.arange(len(setup.band)) < count, setup.data, 0).astype(np.complex64))
    for one, other in zip(result, cut):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())
    assert not np.allclose(result.power, setup.equations().power, rtol=0.01)


def test_whole_turns_of_a_shift_change_nothing(random: np.random.Generator) -> None:
    """A field of view is a turn of every coefficient: the phases are right far from 0 as well."""
    setup = random_setup(random)
    near, far = setup.equations(), setup.equations(shifts=setup.shifts + [3 * FIELD, -5 * FIELD])
    np.testing.assert_allclose(far.match, near.match, atol=1e-4 * near.power.max())
    np.testing.assert_allclose(far.power, near.power, rtol=1e-6)


def test_threads_change_nothing(random: np.random.Generator) -> None:
    setup = random_setup(random, count=23)
    for one, other in zip(setup.equations(), setup.equations(threads=3)):
        np.testing.assert_array_equal(one, other)


def test_wrong_input_is_refused(random: np.random.Generator) -> None:
    setup = random_setup(random)
    with pytest.raises(ValueError, match="reach"):
        setup.equations(scale=1.4)
    with pytest.raises(ValueError, match="differ in size"):
        setup.equations(references=[setup.references[0], Reference(setup.volumes[0], 2.0)])
