"""The equations, the solution and the steps of one free pose against their naive twin; the prior against finite differences."""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np
import pytest
from numpy.typing import NDArray

from pyp_cspr.engine.core.band import make_band
from pyp_cspr.engine.core.geometry import rotation_vector_to_matrix
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.refine import free_kernels as kernels
from pyp_cspr.engine.refine.free import REASONS, refine_free
from pyp_cspr.tests.blobs import asymmetric_blobs
from pyp_cspr.tests.naive import free as naive
from pyp_cspr.tests.naive import projection as naive_projection
from pyp_cspr.tests.naive import refinement as naive_refinement

BOX, PIXEL, PADDING = 16, 5.0, 1.5
FIELD = BOX * PIXEL
COUNT = 6
PRECISIONS = [(0.0, 0.0), (3.0, 0.0), (0.0, 0.7), (3.0, 0.7)]

pytestmark = pytest.mark.kernel


class Problem:
    """Noisy projections of blobs in a CTF's weights, their poses some degrees and angstrom off."""

    def __init__(self, random: np.random.Generator) -> None:
        volume = asymmetric_blobs(PIXEL, 0.3 * FIELD, count=6).volume(BOX, PIXEL)
        self.reference = Reference(volume, PADDING, correct=False)
        self.band = make_band(BOX, 6)
        self.counts = [self.band.prefix(3.5), len(self.band)]
        self.transform = naive_projection.centred_transform(volume, self.reference.padded)
        rotations = rotation_vector_to_matrix(random.normal(0, 2, (COUNT, 3)))
        shifts = random.uniform(-8, 8, (COUNT, 2))
        phase = np.exp(-2j * np.pi * shifts @ np.stack([self.band.kx, self.band.ky]) / FIELD)
        clean = self.reference.slices(rotations, self.band) * phase
        noise = (random.normal(size=(2, *clean.shape)) * [[[1.0]], [[1.0j]]]).sum(axis=0)
        ctf = np.sin(0.4 + 0.05 * (self.band.kx.astype(float) ** 2 + self.band.ky.astype(float) ** 2))
        power = np.mean(np.abs(clean) ** 2)
        self.data = (ctf * (ctf * clean + 0.3 * np.sqrt(power) * noise) / power).astype(np.complex64)
        self.weight = np.broadcast_to(ctf**2 / power, clean.shape).astype(np.float32)
        turns = rotation_vector_to_matrix(random.normal(0, 0.4, (COUNT, 3)))
        self.starts = [naive.Pose(turn @ rotation, shift + random.normal(0, 6.0, 2))
                       for turn, rotation, shift in zip(turns, rotations, shifts)]

    def refine(self, precision: Tuple[float, float], **options: Any):
        sigmas = [1.0 / np.sqrt(value) if value else None for value in precision]
        return refine_free(
            self.data, self.weight, self.band, FIELD, [self.reference], 0, [pose.rotation for pose in self.starts],
            [pose.shift for pose in self.starts], self.counts, shift_sigma=sigmas[1],
            rotation_sigma=sigmas[0] and np.rad2deg(sigmas[0]), **options,
        )

    def evaluate(self, p: int, stage: int, pose: naive.Pose, precision: Tuple[float, float]) -> naive.Equations:
        count = self.counts[stage]
        data, weight = self.data[p, :count], self.weight[p, :count]
        y = naive_refinement.model(self.transform, pose.rotation, pose.shift, self.band.kx[:count], self.band.ky[:count], FIELD,
                                   self.reference.padded / BOX)
        match, power, gradient, matrix = naive_refinement.equations(data, weight, y)
        return naive.with_prior(naive.Equations(power - 2.0 * match, gradient, matrix, power), pose, self.starts[p], precision)


def random_equations(random: np.random.Generator) -> naive.Equations:
    half = random.normal(size=(5, 7)) * np.array([30.0, 20.0, 25.0, 1.0, 1.5])[:, None]
    return naive.Equations(0.0, random.normal(size=5) * 10.0, half @ half.T, 1.0)


def assert_same_covariance(got: NDArray, want: NDArray, tolerance: float) -> None:
    """In units of the standard deviations."""
    unit = np.sqrt(np.diag(want))
    np.testing.assert_allclose(got / np.outer(unit, unit), want / np.outer(unit, unit), atol=tolerance)


# --- one evaluation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_step_is_that_of_the_twins_equations(precision, random: np.random.Generator) -> None:
    """Stopped after a look at each stage: poses show the gradients, the covariance the last matrix, the cost the cost."""
    problem = Problem(random)
    result = problem.refine(precision, gain=np.inf, coarse_gain=np.inf)
    for p, start in enumerate(problem.starts):
        pose = start
        for stage in range(2):
            here = problem.evaluate(p, stage, pose, precision)
            pose = naive.moved(pose, naive.newton(here, 0.0))
        step = np.linalg.norm(pose.rotation - start.rotation)
        assert step > 0.01
        np.testing.assert_allclose(result.rotations[p], pose.rotation, atol=1e-3 * step)
        np.testing.assert_allclose(result.shifts[p], pose.shift, atol=1e-3 * np.abs(pose.shift - start.shift).max())
        assert_same_covariance(result.covariance[p], np.linalg.inv(here.matrix), 1e-3)
        np.testing.assert_allclose(result.cost[p], here.cost, atol=1e-4 * here.power)
    assert (result.evaluations == 1).all()


# --- the prior ------------------------------------------------------------------------------------------------------


def pair(random: np.random.Generator, angle: float) -> Tuple[naive.Pose, naive.Pose]:
    """A pose and another one ``angle`` radians and some angstrom away."""
    axis = random.normal(size=3)
    first = naive.Pose(rotation_vector_to_matrix(random.normal(0, 2, 3)), random.normal(0, 5, 2))
    step = np.concatenate([angle * axis / np.linalg.norm(axis), random.normal(0, 3, 2)])
    return first, naive.moved(first, step)


def prior(pose: naive.Pose, first: naive.Pose, precision) -> Tuple[float, NDArray, NDArray]:
    gradient, matrix = np.zeros(5), np.zeros((5, 5))
    cost = kernels.add_prior(pose.rotation, first.rotation, pose.shift, first.shift, np.array(precision), gradient, matrix)
    return cost, gradient, matrix


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.1, 1.5, 3.0])
def test_the_prior_is_that_of_its_twin(angle, precision, random: np.random.Generator) -> None:
    first, pose = pair(random, angle)
    nothing = naive.Equations(0.0, np.zeros(5), np.zeros((5, 5)), 0.0)
    want = naive.with_prior(nothing, pose, first, precision)
    cost, gradient, matrix = prior(pose, first, precision)
    assert cost == pytest.approx(want.cost, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(gradient, want.gradient, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(matrix, want.matrix)


@pytest.mark.parametrize("angle", [0.05, 0.8, 2.9])
def test_the_priors_gradient_is_the_finite_difference(angle, random: np.random.Generator) -> None:
    """Of its cost, for turns on the left and shifts; for a small angle its matrix is that of the gradient as well."""
    first, pose = pair(random, angle)
    precision, step = (3.0, 0.7), 1e-5
    _, gradient, matrix = prior(pose, first, precision)
    sides = [[naive.moved(pose, sign * step * unit) for sign in (1, -1)] for unit in np.eye(5)]
    difference = [(prior(plus, first, precision)[0] - prior(minus, first, precision)[0]) / (2 * step) for plus, minus in sides]
    np.testing.assert_allclose(gradient, difference, rtol=1e-6, atol=1e-8)
    assert np.abs(gradient).min() > 1e-3
    if angle < 0.1:
        second = [(prior(plus, first, precision)[1] - prior(minus, first, precision)[1]) / (2 * step) for plus, minus in sides]
        np.testing.assert_allclose(second, matrix, atol=0.05 * precision[0])


# --- the solution ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damping", [0.0, 1e-3, 2.0, 1e6])
def test_steps_solve_the_damped_equations(damping, random: np.random.Generator) -> None:
    for _ in range(5):
        equations = random_equations(random)
        factor, step = np.zeros((5, 5)), np.empty(5)
        assert kernels.factorise(equations.matrix, damping, factor)
        gain = kernels.newton_step(factor, equations.gradient, step)
        want = naive.newton(equations, damping)
        np.testing.assert_allclose(step, want, rtol=1e-7)
        assert gain == pytest.approx(-0.5 * equations.gradient @ want, rel=1e-9)
        assert kernels.decrease(equations.matrix, equations.gradient, step) == pytest.approx(naive.promised(equations, want))
        if damping == 0.0:
            inverse = np.empty((5, 5))
            kernels.invert(factor, inverse)
            np.testing.assert_allclose(inverse, np.linalg.inv(equations.matrix), rtol=1e-6)


def test_what_cannot_be_solved_is_said(random: np.random.Generator) -> None:
    factor = np.zeros((5, 5))
    one_direction = np.outer(*[random.normal(size=5)] * 2)
    for matrix in (np.zeros((5, 5)), one_direction, np.diag([1.0, 1.0, -1.0, 1.0, 1.0]), np.full((5, 5), np.nan)):
        assert not kernels.factorise(matrix, 0.0, factor)


@pytest.mark.parametrize("angle", [0.0, 1e-10, 1e-3, 2.0])
def test_turns_are_those_of_the_twin(angle, random: np.random.Generator) -> None:
    first, _ = pair(random, angle)
    axis, step = random.normal(size=3), np.zeros(5)
    step[:3] = angle * axis / np.linalg.norm(axis)
    result = np.empty((3, 3))
    kernels.turn(first.rotation, step, result)
    np.testing.assert_allclose(result, naive.moved(first, step).rotation, atol=1e-12)


# --- the descent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [(0.0, 0.0), (3.0, 0.01)])
def test_the_descent_takes_the_twins_steps(precision, random: np.random.Generator) -> None:
    """Both stages from far away: as many evaluations, the same steps taken back, the same end."""
    problem = Problem(random)
    gains, limit = (0.5, 0.05), 25
    result = problem.refine(precision, gain=gains[1], coarse_gain=gains[0], max_evaluations=limit)
    refused = 0
    for p, start in enumerate(problem.starts):
        want = naive.descend(lambda stage, pose, p=p: problem.evaluate(p, stage, pose, precision), start, gains, limit)
        refused += want.refused
        assert tuple(result.evaluations[p]) == want.evaluations
        assert (REASONS[result.status[p]] == "converged") == want.converged
        np.testing.assert_allclose(result.rotations[p], want.pose.rotation, atol=2e-5)
        np.testing.assert_allclose(result.shifts[p], want.pose.shift, atol=1e-3)
        np.testing.assert_allclose(result.cost[p], want.cost, atol=1e-3)
        assert_same_covariance(result.covariance[p], want.covariance, 0.01)
    assert refused >= 3
