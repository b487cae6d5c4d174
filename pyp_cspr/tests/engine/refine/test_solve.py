"""The joint solve of a series in poses and tilt geometry: truth, bounds, priors, robustness, what must not matter."""

from __future__ import annotations

from typing import Tuple

import numpy as np
import pytest

from pyp_cspr.engine.core.geometry import rotation_angle, rotation_vector_to_matrix
from pyp_cspr.engine.core.refinement import LocalEquations
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.refine.noise import robust_weights
from pyp_cspr.engine.refine.parameters import MODES, prior_sigmas
from pyp_cspr.engine.refine.solve import Solution, SolveOptions, solve_series
from pyp_cspr.tests.engine.refine.simulated import FIELD, PIXEL, RADIUS, SimulatedSeries

RIGID = ("rotation", "position", "tilt_angle", "axis_angle", "shift")
LAST = (FIELD / RADIUS,)


def efficiency(series: SimulatedSeries, solution: Solution) -> Tuple[float, float]:
    """(Rotation, projected position): rms error over the Cramer-Rao bound."""
    error, covariance = series.errors(solution.geometry), solution.projection_covariance
    bound = np.einsum("qii->qi", covariance)
    parts = slice(0, 3), slice(3, 5)
    rotation, position = (float(np.sqrt((error[:, part] ** 2).mean() / bound[:, part].mean())) for part in parts)
    return rotation, position


def test_noise_free_data_give_the_truth_back() -> None:
    """From 4 deg, 8 A on particles and 0.5 deg, 0.5 deg, 4 A on tilts: below 0.001 deg and 0.001 pixel."""
    series = SimulatedSeries()
    before = series.errors(series.start)
    assert np.rad2deg(np.sqrt((before[:, :3] ** 2).sum(axis=1).mean())) > 3
    assert np.sqrt((before[:, 3:] ** 2).sum(axis=1).mean()) > 8
    solution = series.solve(SolveOptions())
    left = series.without_gauge(solution.geometry)
    assert left["rotation"] < 0.001
    assert left["tilt"] < 0.001
    assert left["position"] < 0.001 * PIXEL
    assert left["shift"] < 0.001 * PIXEL
    assert np.rad2deg(np.abs(series.errors(solution.geometry)[:, :3]).max()) < 0.004
    assert np.abs(series.errors(solution.geometry)[:, 3:]).max() < 0.001 * PIXEL


@pytest.mark.slow
def test_noisy_data_reach_the_bound_and_errors_are_as_reported() -> None:
    """Six series of 30 particles: efficiency at most 1.15, variance of normalised errors 0.8 to 1.25."""
    ratios, normalised, evaluations = [], [], []
    for seed in range(6):
        series = SimulatedSeries(particles=30, snr=0.3, seed=seed)
        solution = series.solve(SolveOptions())
        ratios.append(efficiency(series, solution))
        error = series.errors(solution.geometry)
        normalised.append(error**2 / np.einsum("qii->qi", solution.projection_covariance)[:, :5])
        evaluations.append(series.evaluations)
    rotation, position = np.sqrt(np.mean(np.square(ratios), axis=0))
    assert rotation <= 1.15
    assert position <= 1.15
    variance = np.concatenate(normalised).mean(axis=0)
    assert 0.8 < variance[:3].mean() < 1.25
    assert 0.8 < variance[3:].mean() < 1.25
    assert np.mean(evaluations) <= 14  # of all four stages


def test_neither_the_order_of_particles_nor_threads_matter() -> None:
    """Below 1e-7 radians and 1e-5 A, a millionth of the errors: what single precision leaves of another order of sums."""
    order = np.random.default_rng(0).permutation(12)
    plain = SimulatedSeries(12, 21, snr=0.5).solve(SolveOptions()).geometry
    permuted = SimulatedSeries(12, 21, snr=0.5, order=order).solve(SolveOptions()).geometry
    threaded = SimulatedSeries(12, 21, snr=0.5, threads=2).solve(SolveOptions()).geometry
    for other, place in ((permuted, order), (threaded, np.arange(12))):
        assert rotation_angle(other.poses, plain.poses[place]).max() < 5e-6
        assert rotation_angle(other.tilts, plain.tilts).max() < 5e-6
        np.testing.assert_allclose(other.positions, plain.positions[place], atol=1e-5)
        np.testing.assert_allclose(other.shifts, plain.shifts, atol=1e-5)


def test_particles_alone_are_solved_one_by_one() -> None:
    """A series' solution is that of each particle in a series of its own, and the settled ones are not looked at again."""
    free = ("rotation", "position")
    series = SimulatedSeries(10, 21, snr=0.5, perturbed=free)
    solution = series.solve(SolveOptions(free=free), LAST)
    assert solution.report.reason == "converged"
    assert solution.report.projections < 0.9 * solution.report.evaluations * len(series.data)
    whole = series.evaluate(len(series.band), 1)
    for p in (0, 7):
        used = np.zeros_like(series.used)
        used[p] = True
        own = np.flatnonzero(np.nonzero(series.used)[0] == p)

        def evaluate(rotations, centres, rows=None, own=own) -> LocalEquations:
            return whole(rotations, centres, own if rows is None else own[rows])

        single = solve_series(series.start, series.start, used, evaluate, True, SolveOptions(free=free)).geometry
        assert rotation_angle(single.poses[p], solution.geometry.poses[p]) < 1e-6
        np.testing.assert_allclose(single.positions[p], solution.geometry.positions[p], atol=1e-6)
        assert rotation_angle(single.poses[p - 1], series.start.poses[p - 1]) == 0


def test_one_particle_that_cannot_improve_holds_up_no_other() -> None:
    """The data of one particle are of another pose altogether: its steps may fail, the others end where they would."""
    free = ("rotation", "position")
    series = SimulatedSeries(8, 21, snr=0.5, perturbed=free)
    undisturbed = series.solve(SolveOptions(free=free), LAST).geometry
    series.data[:21] = series.data[:21].conj()
    disturbed = series.solve(SolveOptions(free=free), LAST).geometry
    assert rotation_angle(disturbed.poses[1:], undisturbed.poses[1:]).max() < 1e-6
    assert rotation_angle(disturbed.poses[0], undisturbed.poses[0]) > 1


def test_exposures_alone_are_solved_one_by_one() -> None:
    free = ("tilt_angle", "axis_angle", "shift")
    series = SimulatedSeries(20, 21, snr=0.5, perturbed=free)
    solution = series.solve(SolveOptions(free=free))
    rotation, position = efficiency(series, solution)
    assert rotation < 1.2
    assert position < 1.2
    np.testing.assert_array_equal(solution.geometry.poses, series.start.poses)
    np.testing.assert_array_equal(solution.geometry.positions, series.start.positions)


@pytest.mark.parametrize("free", [RIGID, ("rotation", "position"), ("tilt_angle", "shift")])
def test_no_parameter_leaves_its_box(free: Tuple[str, ...]) -> None:
    """Errors larger than the tolerances: many parameters end at their bounds, none beyond, and the solver still settles."""
    series = SimulatedSeries(10, 21, snr=0.5)
    box = {"rotation": 1.5, "position": 3.0, "tilt_angle": 0.3, "axis_angle": 0.2, "shift": 2.0}
    solution = series.solve(SolveOptions(free=free, tolerances=box, max_evaluations=40))
    assert solution.report.evaluations < 40
    at_bound = 0
    for name in free:
        offset = np.abs(MODES[name].offset(solution.geometry, series.start)) / MODES[name].scale
        assert offset.max() <= box[name] * (1 + 1e-6)
        at_bound += int((offset > box[name] * (1 - 1e-6)).sum())
    assert at_bound > 5
    assert solution.report.cost[-1] < solution.report.cost[0]


@pytest.mark.parametrize("free", [RIGID, ("rotation", "position")])
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_a_box_does_not_stop_the_solver_early(free: Tuple[str, ...], seed: int) -> None:
    """From anywhere between start and end, tighter limits lead to no end that is much better."""
    series = SimulatedSeries(6, 15, snr=0.5, seed=seed)
    box = {"position": 3.0, "rotation": 2.0}
    solution = series.solve(SolveOptions(free=free, tolerances=box))
    end = solve_series(series.start, solution.geometry, series.used, series.evaluate(len(series.band), 1), True,
                       SolveOptions(free=free, tolerances=box, max_evaluations=1)).report.cost[0]
    tight = SolveOptions(free=free, tolerances=box, gain=1e-3, max_evaluations=100)
    for part in (0.3, 0.6, 0.9):
        between = series.start.copy()
        for name in free:
            way = MODES[name].offset(solution.geometry, series.start)
            MODES[name].move(between, part * way)
        other = solve_series(series.start, between, series.used, series.evaluate(len(series.band), 1), True, tight)
        assert end - min(other.report.cost) < 10.0


def test_the_last_step_is_taken() -> None:
    """One image two standard deviations off is little in the cost of a whole series, and is put right all the same."""
    series = SimulatedSeries(100, 15, snr=0.5)
    rough = series.solve(SolveOptions()).geometry
    evaluate = series.evaluate(len(series.band), 1)
    solution = solve_series(series.start, rough, series.used, evaluate, True, SolveOptions(gain=1e-6))
    sigma = np.linalg.inv(solution.local.matrix[series.exposure == 7][:, 3:, 3:].sum(axis=0))[0, 0] ** 0.5
    displaced = solution.geometry.copy()
    displaced.shifts[7, 0] += 2 * sigma
    back = solve_series(series.start, displaced, series.used, evaluate, True, SolveOptions()).geometry
    assert abs(back.shifts[7, 0] - solution.geometry.shifts[7, 0]) < 0.5 * sigma


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ["match", "matrix"])
def test_values_that_are_no_numbers_end_in_one_line(part: str) -> None:
    series = SimulatedSeries(4, 5, snr=0.5)
    series.weigh(series.start)
    evaluate = series.evaluate(len(series.band), 1)

    def spoilt(rotations, centres, **extra) -> LocalEquations:
        local = evaluate(rotations, centres, **extra)
        getattr(local, part)[3] = np.nan
        return local

    with pytest.raises(InputError, match="refinement: images"):
        solve_series(series.start, series.start, series.used, spoilt, True, SolveOptions())


def test_wide_tolerances_change_nothing() -> None:
    series = SimulatedSeries(10, 21, snr=0.5)
    wide = {name: 10 * value for name, value in prior_sigmas().items()}
    free, bound = (series.solve(SolveOptions(tolerances=box)).geometry for box in ({}, wide))
    np.testing.assert_allclose(free.positions, bound.positions, rtol=0, atol=1e-9)  # two solves round differently
    np.testing.assert_allclose(free.poses, bound.poses, rtol=0, atol=1e-12)


def test_priors_fix_the_gauge_and_nothing_else() -> None:
    """A wider prior lets the common motion go elsewhere; what is seen stays within a fraction of its standard deviation."""
    series = SimulatedSeries(16, 21, snr=0.5)
    wide = {name: 5 * sigma for name, sigma in prior_sigmas().items()}
    one, other = series.solve(SolveOptions()), series.solve(SolveOptions(sigmas=wide))
    sigma = np.sqrt(np.einsum("qii->qi", one.projection_covariance))
    change = (series.errors(other.geometry) - series.errors(one.geometry)) / sigma
    assert np.sqrt((change**2).mean()) < 0.25
    assert np.trace(other.exposure_covariance.mean(axis=0)) > 4 * np.trace(one.exposure_covariance.mean(axis=0))


def test_strong_priors_hold_the_start() -> None:
    series = SimulatedSeries(8, 11, snr=0.5)
    stiff = dict.fromkeys(RIGID, 1e-5)
    solution = series.solve(SolveOptions(sigmas=stiff))
    assert rotation_angle(solution.geometry.poses, series.start.poses).max() < 1e-4
    assert np.abs(solution.geometry.positions - series.start.positions).max() < 1e-4


def test_parameters_without_prior_that_nothing_determines_are_a_plain_error() -> None:
    series = SimulatedSeries(6, 11, snr=0.5)
    with pytest.raises(InputError, match=r"do not determine .*shift.*give one a finite prior"):
        series.solve(SolveOptions(sigmas={}))


def test_a_particle_and_an_exposure_without_projections_stay_where_they_are() -> None:
    series = SimulatedSeries(8, 11, snr=0.5)
    keep = (np.nonzero(series.used)[0] != 3) & (series.exposure != 5)
    series.used[3], series.used[:, 5] = False, False
    series.data, series.centre, series.exposure = series.data[keep], series.centre[keep], series.exposure[keep]
    for sigmas in (prior_sigmas(), {**prior_sigmas(), "rotation": np.inf}):
        solution = series.solve(SolveOptions(sigmas=sigmas), LAST)
        assert rotation_angle(solution.geometry.poses[3], series.start.poses[3]) < 1e-9
        np.testing.assert_allclose(solution.geometry.shifts[5], series.start.shifts[5], atol=1e-9)
        assert rotation_angle(solution.geometry.poses[2], series.start.poses[2]) > 0.1
    assert np.isinf(np.diag(solution.particle_covariance[3])[:3]).all()
    assert np.isfinite(solution.particle_covariance[2]).all()
    np.testing.assert_allclose(np.sqrt(np.diag(solution.exposure_covariance[5]))[2:], prior_sigmas()["shift"], rtol=1e-6)


def test_nothing_free_is_an_evaluation() -> None:
    series = SimulatedSeries(4, 5, snr=0.5)
    solution = series.solve(SolveOptions(free=()), LAST)
    np.testing.assert_array_equal(solution.geometry.poses, series.start.poses)
    assert solution.report.evaluations == 1


def test_robust_weights_follow_huber(random: np.random.Generator) -> None:
    power = random.uniform(50, 100, 400)
    match = power + np.sqrt(power / 2) * random.normal(size=400)
    match[:4] += np.array([8, -8, 12, -5]) * np.sqrt(power[:4] / 2)
    nothing = np.zeros((400, 5))
    local = LocalEquations(match, power, nothing, np.zeros((400, 5, 5)))
    weights = robust_weights(local, 3.0)
    assert ((weights > 0) & (weights <= 1)).all()
    assert weights[4:].mean() > 0.995
    np.testing.assert_allclose(weights[:4], 3 / np.array([8, 8, 12, 5]), rtol=0.4)
    np.testing.assert_array_equal(robust_weights(local, 0.0), 1)
    shifted = local._replace(match=local.match - 3 * np.sqrt(power / 2))  # all alike: nobody is an outlier
    np.testing.assert_allclose(robust_weights(shifted, 3.0), weights, rtol=1e-9)


@pytest.mark.slow
def test_robust_weights_limit_what_a_few_bad_projections_do() -> None:
    """Every fifteenth projection shows something bright that is no particle."""
    errors = {}
    for huber in (0.0, 3.0):
        squares = []
        for seed in range(4):
            series = SimulatedSeries(20, 21, snr=0.5, seed=seed)
            bad = np.random.default_rng(seed).permutation(len(series.data))[: len(series.data) // 15]
            series.data[bad] += 8 * np.roll(series.data[bad], 7, axis=0) * np.exp(0.5j * series.band.kx)
            solution = series.solve(SolveOptions(huber=huber))
            squares.append((series.errors(solution.geometry)[:, 3:] ** 2).mean())
        errors[huber] = np.sqrt(np.mean(squares))
    assert solution.weights[bad].mean() < 0.7
    assert np.delete(solution.weights, bad).mean() > 0.97
    assert errors[3.0] < 0.7 * errors[0.0]


def test_robust_weights_cost_nothing_where_all_is_well() -> None:
    """Both converge further than by default, which may end a tenth of a standard deviation from the optimum."""
    series = SimulatedSeries(16, 21, snr=0.5)
    plain, robust = (series.solve(SolveOptions(huber=huber, gain=1e-6)).geometry for huber in (0.0, 3.0))
    assert rotation_angle(plain.orientations(), robust.orientations()).max() < 0.1


def test_unknown_modes_are_refused() -> None:
    series = SimulatedSeries(3, 5)
    with pytest.raises(ValueError, match="no mode 'tilt'"):
        series.solve(SolveOptions(free=("tilt",)))


def test_large_errors_are_brought_in() -> None:
    """From 20 deg and 20 A of every particle: all end at the bound, and the evaluations stay few."""
    series = SimulatedSeries(16, 21, snr=0.5, perturbed=())
    random = np.random.default_rng(3)
    axes, away = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in random.normal(size=(2, 16, 3)))
    series.start.poses = rotation_vector_to_matrix(axes * np.deg2rad(20)) @ series.start.poses
    series.start.positions = series.start.positions + 20 * away
    solution = series.solve(SolveOptions())
    rotation, position = efficiency(series, solution)
    assert rotation < 1.3
    assert position < 1.15
    assert series.evaluations <= 25
