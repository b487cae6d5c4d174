"""The arrowhead solution against the dense one, its covariance against the dense inverse, and what cannot be determined."""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np
import pytest

from pyp_cspr.engine.core.refinement import LocalEquations
from pyp_cspr.engine.refine.normal import Arrowhead, Step, projection_covariance
from pyp_cspr.tests.naive import normal as naive

P, E, LOCAL = 6, 5, 5


class Case(NamedTuple):
    local: LocalEquations
    index: Tuple[np.ndarray, np.ndarray]
    inner: np.ndarray
    outer: np.ndarray
    precision: Tuple[np.ndarray, np.ndarray]
    system: Arrowhead
    gradient: np.ndarray
    matrix: np.ndarray


def make_case(random: np.random.Generator, kp: int, ke: int, prior: float = 0.3) -> Case:
    """Random equations of most of the projections, units that differ by a hundred; dense and arrowhead."""
    used = random.random((P, E)) < 0.8
    used[0] = True
    used[:, 0] = True
    index = np.nonzero(used)
    count = len(index[0])
    roots = random.normal(size=(count, LOCAL, 12))
    zeros = np.zeros(count)
    local = LocalEquations(zeros, zeros, random.normal(size=(count, LOCAL)), roots @ np.swapaxes(roots, 1, 2))
    inner = random.normal(size=(P, E, LOCAL, kp)) * 10.0 ** random.uniform(-1, 1, kp)
    outer = random.normal(size=(P, E, LOCAL, ke)) * 10.0 ** random.uniform(-1, 1, ke)
    precision = np.full(kp, prior), np.full(ke, 2 * prior)
    system = Arrowhead.assemble(local, (index[0], index[1]), inner, outer)
    system.add_priors(precision[0], np.zeros((P, kp)), precision[1], np.zeros((E, ke)))
    dense = naive.dense_system(local.gradient, local.matrix, (index[0], index[1]), inner, outer, *precision)
    return Case(local, (index[0], index[1]), inner, outer, precision, system, *dense)


SIZES = [(6, 4), (3, 1), (6, 0), (0, 5)]


def flat(step: Step) -> np.ndarray:
    return np.concatenate([step.particles.ravel(), step.exposures.ravel()])


@pytest.mark.kernel
@pytest.mark.parametrize("kp, ke", SIZES)
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_step_is_that_of_the_dense_system(kp: int, ke: int, damping: float, random: np.random.Generator) -> None:
    case = make_case(random, kp, ke)
    expected = -np.linalg.solve(case.matrix + damping * np.diag(np.diag(case.matrix)), case.gradient)
    step = case.system.solve(damping, damping)
    np.testing.assert_allclose(flat(step), expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())
    fall = -case.gradient @ expected - 0.5 * expected @ case.matrix @ expected
    assert case.system.predicted(step) == pytest.approx(fall, rel=1e-9)


@pytest.mark.parametrize("kp, ke", SIZES)
def test_gradient_after_a_step_is_that_of_the_dense_system(kp: int, ke: int, random: np.random.Generator) -> None:
    case = make_case(random, kp, ke)
    step = Step(random.normal(size=(P, kp)), random.normal(size=(E, ke)))
    after = case.system.after(step)
    found = flat(Step(after.particle_gradient, after.exposure_gradient))
    np.testing.assert_allclose(found, case.gradient + case.matrix @ flat(step), rtol=1e-9, atol=1e-9)


def test_each_block_has_its_own_damping(random: np.random.Generator) -> None:
    case = make_case(random, 6, 4)
    inner, outer = random.uniform(0, 2, P), random.uniform(0, 2, E)
    factors = np.concatenate([np.repeat(inner, 6), np.repeat(outer, 4)])
    expected = -np.linalg.solve(case.matrix + np.diag(factors * np.diag(case.matrix)), case.gradient)
    np.testing.assert_allclose(flat(case.system.solve(inner, outer)), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kp, ke", SIZES)
def test_covariance_is_the_inverses_blocks(kp: int, ke: int, random: np.random.Generator) -> None:
    case = make_case(random, kp, ke)
    inverse = np.linalg.inv(case.matrix)
    covariance = case.system.covariance()
    inner = inverse[: P * kp, : P * kp].reshape(P, kp, P, kp)[np.arange(P), :, np.arange(P)]
    outer = inverse[P * kp :, P * kp :].reshape(E, ke, E, ke)[np.arange(E), :, np.arange(E)]
    np.testing.assert_allclose(covariance.particles, inner, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(covariance.exposures, outer, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(covariance.cross, inverse[: P * kp, P * kp :].reshape(P, kp, E, ke), rtol=1e-7, atol=1e-9)
    seen = projection_covariance(covariance, case.index, case.inner, case.outer)
    for one, p, e in zip(seen, *case.index):
        jacobian = naive.whole_jacobian(case.inner, case.outer, p, e)
        np.testing.assert_allclose(one, jacobian @ inverse @ jacobian.T, rtol=1e-6, atol=1e-8)


def test_predicted_apart_adds_up_where_nothing_couples(random: np.random.Generator) -> None:
    for kp, ke in ((6, 0), (0, 5)):
        system = make_case(random, kp, ke).system
        step = system.solve(0.1, 0.1)
        parts = system.predicted_apart(step)
        assert len(parts[0]) == P
        assert len(parts[1]) == E
        assert parts[0].sum() + parts[1].sum() == pytest.approx(system.predicted(step))


def test_frozen_parameters_stay_and_the_others_know(random: np.random.Generator) -> None:
    case = make_case(random, 6, 4)
    particles, exposures = random.random((P, 6)) < 0.2, random.random((E, 4)) < 0.2
    step = flat(case.system.frozen(particles, exposures).solve())
    fixed = np.concatenate([particles.ravel(), exposures.ravel()])
    assert not step[fixed].any()
    expected = -np.linalg.solve(case.matrix[~fixed][:, ~fixed], case.gradient[~fixed])
    np.testing.assert_allclose(step[~fixed], expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())


def test_priors_pull_back_to_the_start(random: np.random.Generator) -> None:
    """Of data that say nothing, one undamped step leads back to the start."""
    case = make_case(random, 6, 4)
    silent = LocalEquations(*(0.0 * part for part in case.local))
    system = Arrowhead.assemble(silent, case.index, case.inner, case.outer)
    offsets = random.normal(size=(P, 6)), random.normal(size=(E, 4))
    system.add_priors(case.precision[0], offsets[0], case.precision[1], offsets[1])
    step = system.solve()
    np.testing.assert_allclose(step.particles, -offsets[0])
    np.testing.assert_allclose(step.exposures, -offsets[1])
    assert system.predicted(step) == pytest.approx(0.5 * sum(((p * o**2).sum() for p, o in zip(case.precision, offsets))))


def test_a_parameter_that_nothing_touches_stays_unknown(random: np.random.Generator) -> None:
    """A particle without projections, and no prior."""
    case = make_case(random, 6, 4, prior=0.0)
    keep = case.index[0] != 2
    local = LocalEquations(*(part[keep] for part in case.local))
    system = Arrowhead.assemble(local, (case.index[0][keep], case.index[1][keep]), case.inner, case.outer)
    unseen = system.unseen()
    assert unseen[0][2].all()
    assert unseen[0].sum() == 6
    assert not unseen[1].any()
    covariance = system.covariance()
    assert np.isinf(np.diag(covariance.particles[2])).all()
    assert np.isfinite(np.delete(covariance.particles, 2, axis=0)).all()
    assert not flat(system.frozen(*unseen).solve()).reshape(-1)[12:18].any()
    with pytest.raises(np.linalg.LinAlgError):
        system.solve()


@pytest.mark.parametrize("damping", [0.0, 1e-3])
def test_a_gauge_without_prior_is_singular_until_it_is_damped(damping: float, random: np.random.Generator) -> None:
    """Particles and exposures that may exchange a common displacement: s = x_p + b_e."""
    case = make_case(random, 2, 2, prior=0.0)
    inner = outer = np.broadcast_to(np.eye(LOCAL)[:, 3:], (P, E, LOCAL, 2))
    system = Arrowhead.assemble(case.local, case.index, inner, outer)
    if damping:
        assert np.isfinite(flat(system.solve(damping, damping))).all()
        return
    with pytest.raises(np.linalg.LinAlgError):
        system.solve()
    with pytest.raises(np.linalg.LinAlgError):
        system.covariance()
    system.add_priors(np.full(2, 1e-4), np.zeros((P, 2)), np.full(2, 1e-4), np.zeros((E, 2)))
    seen = projection_covariance(system.covariance(), case.index, inner, outer)
    assert np.trace(seen[:, 3:, 3:], axis1=1, axis2=2).max() < 1.0  # what is seen is known, though
    assert np.trace(system.covariance().exposures, axis1=1, axis2=2).min() > 1e2  # where it comes from is not
