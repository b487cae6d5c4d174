"""The search's kernel against its naive twin, in both ways of giving rotations, and its grids of shifts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from pyp_cspr.engine.core.band import Band, make_band
from pyp_cspr.engine.core.geometry import tilt_to_matrix
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.core.rotation_grid import random_rotations
from pyp_cspr.engine.core.search import ParticleData, ShiftGrid, exposure_images, prepare, score_rotations
from pyp_cspr.tests.naive import search as naive

BOX, FIELD, RADIUS = 12, 48.0, 3.0
PARTICLE, EXPOSURE = np.array([0, 0, 0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 3, 4, 4, 1, 2])
FIRST, WHICH = np.array([0, 5, 7, 8]), np.array([0, 1, 0])


class Problem(NamedTuple):
    data: np.ndarray
    weight: np.ndarray
    shifts: np.ndarray
    tilts: np.ndarray
    references: list[Reference]
    band: Band
    count: int

    def particles(self) -> ParticleData:
        return prepare(self.data, self.weight, np.arange(8), FIRST, EXPOSURE, WHICH, self.shifts, self.band, FIELD, self.count)

    def expected(
        self, particle: int, rotation: np.ndarray, shifts: ShiftGrid, scale: float
    ) -> tuple[float, np.ndarray]:
        rows = np.flatnonzero(particle == PARTICLE)
        tilts = self.tilts[EXPOSURE[rows]]
        slices = self.references[WHICH[particle]].slices(tilts @ rotation, self.band, scale)[:, : self.count]
        kx, ky = self.band.kx[: self.count], self.band.ky[: self.count]
        present = np.exp(2j * np.pi * (self.shifts[rows] @ np.stack([kx, ky])) / FIELD)
        return naive.score(self.data[rows, : self.count] * present, self.weight[rows, : self.count], slices, tilts, kx, ky,
                           FIELD, shifts.step, shifts.tolerance)


@pytest.fixture
def problem(random: np.random.Generator) -> Problem:
    """Noise as data and as references: every sign counts."""
    band = make_band(BOX, 4.0)
    references = [Reference(random.normal(size=(BOX,) * 3).astype(np.float32), 1.5) for _ in range(2)]
    data = (random.normal(size=(8, len(band))) + 1j * random.normal(size=(8, len(band)))).astype(np.complex64)
    weight = random.uniform(0.5, 1.5, data.shape).astype(np.float32)
    tilts = tilt_to_matrix(np.full(5, 3.0), np.array([-50.0, -20.0, 0.0, 25.0, 60.0]), np.full(5, 80.0))
    return Problem(data, weight, random.normal(size=(8, 2)) * 5, tilts, references, band, band.prefix(RADIUS))


@pytest.mark.kernel
@pytest.mark.parametrize("step, tolerance, scale", [(5.0, 8.0, 1.0), (4.0, 8.0, 0.93), (3.0, 0.0, 1.0)])
def test_scores_agree_with_their_naive_twin(
    step: float, tolerance: float, scale: float, problem: Problem, random: np.random.Generator
) -> None:
    shifts, rotations = ShiftGrid(step, tolerance), random_rotations(2, random)
    found = score_rotations(problem.particles(), rotations, problem.tilts, problem.references, shifts, scale)
    for p in range(3):
        for j in range(2):
            score, place = problem.expected(p, rotations[j], shifts, scale)
            assert found.scores[p, j] == pytest.approx(score, rel=1e-4)
            np.testing.assert_allclose(shifts.points()[found.best[p, j]], place)


@pytest.mark.kernel
def test_own_rotations_give_the_scores_of_shared_ones(problem: Problem, random: np.random.Generator) -> None:
    shifts, particles = ShiftGrid(5.0, 6.0), problem.particles()
    rotations = random_rotations(6, random).reshape(3, 2, 3, 3)
    own = score_rotations(particles, rotations, problem.tilts, problem.references, shifts, counts=[2, 2, 1])
    for p in range(3):
        shared = score_rotations(particles, rotations[p], problem.tilts, problem.references, shifts)
        np.testing.assert_array_equal(own.scores[p, :1], shared.scores[p, :1])
        np.testing.assert_array_equal(own.best[p, :1], shared.best[p, :1])
    assert own.scores[2, 1] == -np.inf
    assert np.isfinite(own.scores[:2]).all()


def test_threads_change_nothing(problem: Problem, random: np.random.Generator) -> None:
    shifts, rotations = ShiftGrid(5.0, 9.0), random_rotations(40, random)
    one, three = (
        score_rotations(problem.particles(), rotations, problem.tilts, problem.references, shifts, threads=n) for n in (1, 3)
    )
    np.testing.assert_array_equal(one.scores, three.scores)
    np.testing.assert_array_equal(one.best, three.best)


@pytest.mark.kernel
@pytest.mark.parametrize("scale", [1.0, 0.93])
def test_images_of_exposures_are_the_sums_of_their_particles(
    scale: float, problem: Problem, random: np.random.Generator
) -> None:
    rotations, grid = random_rotations(3, random), ShiftGrid(4.0, 6.0)
    images, power = exposure_images(problem.particles(), rotations, problem.tilts, problem.references, grid.half_image(), scale,
                                    problem.band, problem.count)
    expected, total = np.zeros_like(images), np.zeros_like(power)
    kx, ky = problem.band.kx[: problem.count], problem.band.ky[: problem.count]
    for q, (p, e) in enumerate(zip(PARTICLE, EXPOSURE)):
        matrix = (problem.tilts[e] @ rotations[p])[None]
        model = problem.references[WHICH[p]].slices(matrix, problem.band, scale)[0, : problem.count]
        present = np.exp(2j * np.pi * (kx * problem.shifts[q, 0] + ky * problem.shifts[q, 1]) / FIELD)
        data = problem.data[q, : problem.count] * present
        image = naive.shift_image(data.conj() * model, kx, ky, FIELD, 4.0, grid.half_width())
        expected[e] += image.ravel()[image.size // 2 :]
        total[e] += (problem.weight[q, : problem.count] * np.abs(model) ** 2).sum()
    np.testing.assert_allclose(images, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(power, total, rtol=1e-4)


def test_grid_of_shifts_is_a_ball_about_nothing() -> None:
    points = ShiftGrid(4.0, 13.0).points()
    np.testing.assert_array_equal(points[0], 0.0)
    length = np.linalg.norm(points, axis=1)
    assert (np.diff(length) >= 0).all()
    assert length.max() <= 13.0
    assert len(points) == pytest.approx(4 / 3 * np.pi * (13 / 4) ** 3, rel=0.15)
    assert ShiftGrid(4.0, 12.0).half_width() == 4  # the neighbour of 3
    half = ShiftGrid(4.0, 12.0).half_image()
    np.testing.assert_array_equal(half[0], 0.0)
    np.testing.assert_array_equal(half[1], [4.0, 0.0])
    assert len(half) == 41


def test_wrong_input_is_refused(problem: Problem) -> None:
    for step, tolerance in ((0.0, 5.0), (4.0, -1.0), (4.0, np.nan)):
        with pytest.raises(ValueError, match="tolerance"):
            ShiftGrid(step, tolerance)
    particles, shifts = problem.particles(), ShiftGrid(4.0, 4.0)
    with pytest.raises(ValueError, match="want"):
        score_rotations(particles, np.zeros((2, 4, 3, 3)), problem.tilts, problem.references, shifts)
    with pytest.raises(ValueError, match="reach"):
        score_rotations(particles, np.eye(3)[None], problem.tilts, problem.references, shifts, scale=2.0)
