"""Free poses: truth recovered, errors at their bound and covered, steps taken back, priors, references, threads."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np
import pytest
from numpy.typing import NDArray

from pyp_cspr.engine.core.band import Band, make_band
from pyp_cspr.engine.core.geometry import rotation_angle, rotation_vector_to_matrix
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.core.refinement import local_equations
from pyp_cspr.engine.refine.free import REASONS, FreePoses, refine_free, tile_order
from pyp_cspr.tests.blobs import asymmetric_blobs

BOX, PIXEL = 32, 4.0
FIELD = BOX * PIXEL
STAGES = (5.0, 8.0)  # Fourier pixels before the last


class Problem(NamedTuple):
    data: NDArray[np.complex64]
    weight: NDArray[np.float32]
    band: Band
    reference: Reference
    rotations: NDArray[np.float64]
    shifts: NDArray[np.float64]
    start_rotations: NDArray[np.float64]
    start_shifts: NDArray[np.float64]

    @property
    def counts(self) -> List[int]:
        return [self.band.prefix(radius) for radius in STAGES] + [len(self.band)]

    def refine(self, **changes: Any) -> FreePoses:
        arguments: Dict[str, Any] = {
            "data": self.data, "weight": self.weight, "band": self.band, "field": FIELD,
            "references": [self.reference], "which": 0,
            "rotations": self.start_rotations, "shifts": self.start_shifts, "counts": self.counts,
        }
        return refine_free(**{**arguments, **changes})

    def errors(self, result: FreePoses) -> Tuple[NDArray, NDArray]:
        """Degrees and angstrom of each projection."""
        return rotation_angle(result.rotations, self.rotations), np.linalg.norm(result.shifts - self.shifts, axis=1)


def simulate(
    random: np.random.Generator, count: int, noise: float = 0.0, degrees: float = 2.0, angstrom: float = 3.0
) -> Problem:
    """Projections of blobs by the engine's own projector, a CTF-like oscillation, white noise of power ``noise``^2 |V|^2."""
    reference = Reference(asymmetric_blobs(PIXEL, 0.23 * FIELD).volume(BOX, PIXEL), 2.0)
    band = make_band(BOX, 13)
    rotations = rotation_vector_to_matrix(random.normal(0, 2, (count, 3)))
    shifts = random.uniform(-6, 6, (count, 2))
    clean = reference.slices(rotations, band) * np.exp(-2j * np.pi * shifts @ np.stack([band.kx, band.ky]) / FIELD)
    ctf = np.sin(0.3 + random.uniform(0.02, 0.06, (count, 1)) * (band.kx.astype(float) ** 2 + band.ky.astype(float) ** 2))
    power = (noise or 1.0) ** 2 * np.mean(np.abs(clean) ** 2)
    images = clean * ctf
    if noise:
        images = images + np.sqrt(power / 2) * (random.normal(size=clean.shape) + 1j * random.normal(size=clean.shape))
    return Problem(
        (images * ctf / power).astype(np.complex64), (ctf**2 / power).astype(np.float32), band, reference, rotations, shifts,
        rotation_vector_to_matrix(np.deg2rad(random.normal(0, degrees, (count, 3)))) @ rotations,
        shifts + random.normal(0, angstrom, (count, 2)),
    )


@pytest.mark.kernel
def test_the_truth_comes_back_without_noise(random: np.random.Generator) -> None:
    problem = simulate(random, 40)
    result = problem.refine(gain=1e-9)
    degrees, angstrom = problem.errors(result)
    assert degrees.max() < 1e-3
    assert angstrom.max() < 1e-3 * PIXEL
    assert (result.status == REASONS.index("converged")).all()
    assert problem.errors(result._replace(rotations=problem.start_rotations))[0].min() > 0.1
    unit = result.rotations @ np.swapaxes(result.rotations, 1, 2)
    np.testing.assert_allclose(unit, np.broadcast_to(np.eye(3), unit.shape), atol=1e-12)


def test_errors_reach_their_bound_and_are_covered(random: np.random.Generator) -> None:
    problem = simulate(random, 600, noise=0.4)
    result = problem.refine()
    fisher = local_equations(problem.data, problem.weight, problem.band, FIELD, [problem.reference], np.zeros(600, int),
                             problem.rotations, problem.shifts).matrix
    bound = np.diagonal(np.linalg.inv(fisher), axis1=1, axis2=2).mean(axis=0)
    degrees, angstrom = problem.errors(result)
    assert 0.9 < np.sqrt((degrees**2).mean() / np.rad2deg(np.rad2deg(bound[:3].sum()))) < 1.1
    assert 0.9 < np.sqrt((angstrom**2).mean() / bound[3:].sum()) < 1.1
    relative = problem.rotations @ np.swapaxes(result.rotations, 1, 2)
    turned = 0.5 * np.stack([relative[:, 2, 1] - relative[:, 1, 2], relative[:, 0, 2] - relative[:, 2, 0],
                             relative[:, 1, 0] - relative[:, 0, 1]], axis=1)
    error = np.concatenate([turned, problem.shifts - result.shifts], axis=1)
    normalised = error / np.sqrt(np.diagonal(result.covariance, axis1=1, axis2=2))
    assert ((0.8 < normalised.var(axis=0)) & (normalised.var(axis=0) < 1.25)).all()
    whole = np.einsum("pi,pij,pj->p", error, np.linalg.inv(result.covariance), error)
    assert 4.5 < whole.mean() < 5.6  # chi square of 5
    assert result.evaluations.sum(axis=1).mean() < 12


def test_no_projection_ends_worse_than_it_began(random: np.random.Generator) -> None:
    """From starts far away, where many steps overshoot and must be taken back."""
    problem = simulate(random, 150, noise=1.0, degrees=15.0, angstrom=10.0)
    result = problem.refine(counts=[len(problem.band)], max_evaluations=60)
    ends = local_equations(problem.data, problem.weight, problem.band, FIELD, [problem.reference], np.zeros(150, int),
                           result.rotations, result.shifts).cost
    starts = local_equations(problem.data, problem.weight, problem.band, FIELD, [problem.reference], np.zeros(150, int),
                             problem.start_rotations, problem.start_shifts).cost
    np.testing.assert_allclose(result.cost[:, 0], starts, atol=1e-3)
    assert (ends < starts).all()
    last = ends - result.cost[:, 1]  # of the step that is taken without looking: at most 0.05 is promised
    assert last.mean() < 0
    assert last.max() < 0.3
    staged = problem.refine()
    assert np.median(problem.errors(staged)[0]) <= np.median(problem.errors(result)[0])


def test_evaluations_are_bounded_and_fewer_where_less_is_asked(random: np.random.Generator) -> None:
    problem = simulate(random, 30, noise=1.0, degrees=8.0)
    few = problem.refine(max_evaluations=2)
    assert few.evaluations.shape == (30, 3)
    assert few.evaluations.max() == 2
    assert few.evaluations.min() >= 1
    assert (few.status == REASONS.index("evaluations used up")).any()
    loose, strict = problem.refine(gain=1.0), problem.refine(gain=1e-4)
    assert loose.evaluations[:, 2].sum() < strict.evaluations[:, 2].sum()
    np.testing.assert_array_equal(loose.evaluations[:, :2], strict.evaluations[:, :2])


def test_a_projection_without_information_stays(random: np.random.Generator) -> None:
    problem = simulate(random, 4)
    data, weight = problem.data.copy(), problem.weight.copy()
    data[2], weight[2] = 0.0, 0.0
    result = problem.refine(data=data, weight=weight)
    assert list(result.status) == [0, 0, REASONS.index("no information"), 0]
    np.testing.assert_array_equal(result.rotations[2], problem.start_rotations[2])
    np.testing.assert_array_equal(result.shifts[2], problem.start_shifts[2])
    assert np.isinf(result.covariance[2]).all()
    assert np.isfinite(result.covariance[[0, 1, 3]]).all()
    held = problem.refine(data=data, weight=weight, rotation_sigma=3.0, shift_sigma=7.0)
    np.testing.assert_allclose(held.covariance[2], np.diag([np.deg2rad(3.0) ** 2] * 3 + [49.0] * 2), atol=1e-12)


def test_priors_hold_to_the_start_and_balance_the_data(random: np.random.Generator) -> None:
    problem = simulate(random, 20, noise=2.0)
    tight = problem.refine(rotation_sigma=1e-3, shift_sigma=1e-3)
    assert rotation_angle(tight.rotations, problem.start_rotations).max() < 0.01
    assert np.linalg.norm(tight.shifts - problem.start_shifts, axis=1).max() < 0.02
    degrees, angstrom = 1.0, 0.5
    result = problem.refine(rotation_sigma=degrees, shift_sigma=angstrom, gain=1e-10, max_evaluations=60)
    local = local_equations(problem.data, problem.weight, problem.band, FIELD, [problem.reference], np.zeros(20, int),
                            result.rotations, result.shifts)
    relative = result.rotations @ np.swapaxes(problem.start_rotations, 1, 2)
    angle = np.deg2rad(rotation_angle(problem.start_rotations, result.rotations))
    axis = 0.5 * np.stack([relative[:, 2, 1] - relative[:, 1, 2], relative[:, 0, 2] - relative[:, 2, 0],
                           relative[:, 1, 0] - relative[:, 0, 1]], axis=1)
    pull = np.concatenate([(angle / np.sin(angle))[:, None] * axis / np.deg2rad(degrees) ** 2,
                           (result.shifts - problem.start_shifts) / angstrom**2], axis=1)
    unit = np.sqrt(np.diagonal(result.covariance, axis1=1, axis2=2))
    # The data pull as much as the prior, the other way; trilinear interpolation has kinks, where neither vanishes.
    balance = np.abs((local.gradient + pull) * unit)
    assert np.abs(pull * unit).max() > 1.0
    assert np.median(balance) < 1e-3
    assert balance.max() < 0.1


def test_each_projection_meets_its_own_reference(random: np.random.Generator) -> None:
    problem = simulate(random, 12)
    other = Reference(asymmetric_blobs(PIXEL, 0.23 * FIELD, seed=8).volume(BOX, PIXEL), 2.0)
    which = np.arange(12) % 2
    alone = problem.refine()
    mixed = problem.refine(references=[problem.reference, other], which=which)
    np.testing.assert_array_equal(mixed.rotations[::2], alone.rotations[::2])
    assert problem.errors(mixed)[0][::2].max() < 0.1 < np.median(problem.errors(mixed)[0][1::2])


def test_the_others_and_threads_change_nothing(random: np.random.Generator) -> None:
    problem = simulate(random, 37, noise=1.0)
    whole = problem.refine()
    for one, other in zip(whole, problem.refine(threads=3)):
        np.testing.assert_array_equal(one, other)
    rows = random.permutation(37)[:11]
    part = problem.refine(rows=rows, rotations=problem.start_rotations[rows], shifts=problem.start_shifts[rows])
    for one, other in zip(whole, part):
        np.testing.assert_array_equal(one[rows], other)


def test_scale_is_that_of_the_map(random: np.random.Generator) -> None:
    """Images of a field 5 % narrower: the truth comes back where the scale says so, and not where it does not."""
    scale = 1.05
    problem = simulate(random, 12)
    band = problem.band
    phase = np.exp(-2j * np.pi * problem.shifts @ np.stack([band.kx, band.ky]) * scale / FIELD)
    clean = (problem.reference.slices(problem.rotations, band, scale) * phase).astype(np.complex64)
    weight = np.ones(clean.shape, np.float32)
    result = problem.refine(data=clean, weight=weight, field=FIELD / scale, scale=scale)
    assert problem.errors(result)[0].max() < 0.01
    assert problem.errors(result)[1].max() < 0.02
    wrong = problem.refine(data=clean, weight=weight, field=FIELD / scale)
    assert problem.errors(wrong)[0].max() > 0.05


def test_tiles_keep_the_stages_together() -> None:
    band = make_band(32, 13)
    counts = [band.prefix(5), band.prefix(9), band.prefix(12)]
    order = tile_order(band, counts)
    for count in counts:
        np.testing.assert_array_equal(np.sort(order[:count]), np.arange(count))
    assert len(order) == counts[-1]


def test_wrong_input_is_refused(random: np.random.Generator) -> None:
    problem = simulate(random, 3)
    n = len(problem.band)
    for counts in ([], [0, n], [n, n - 1], [n + 1]):
        with pytest.raises(ValueError, match="coarse to fine"):
            problem.refine(counts=counts)
    with pytest.raises(ValueError, match="do not fit"):
        problem.refine(shifts=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="not of a band"):
        problem.refine(weight=problem.weight[:, 1:])
    with pytest.raises(ValueError, match="not there"):
        problem.refine(rows=[0, 1, 3])
    with pytest.raises(ValueError, match="not there"):
        problem.refine(which=[0, 1, 0])
    with pytest.raises(ValueError, match="reach"):
        problem.refine(scale=1.3)
