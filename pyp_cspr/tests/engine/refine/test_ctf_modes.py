"""Every mode alone and all together recover what was perturbed, to the Cramer-Rao bound; the CTF's modes among them."""

from __future__ import annotations

from typing import Dict, List, Tuple

import numpy as np
import pytest

from pyp_cspr.engine.refine.parameters import LOCAL_CTF, MODES, local_size
from pyp_cspr.engine.refine.solve import Solution, SolveOptions, solve_series
from pyp_cspr.tests.engine.refine.simulated import FIELD, RADIUS, SimulatedSeries

LAST = FIELD / RADIUS
SEEN = {"rotation": slice(0, 3), "position": slice(3, 5), "amplitude": slice(5, 6), "defocus": slice(6, 7),
        "astigmatism": slice(7, 9), "phase": slice(9, 10), "magnification": slice(10, 11)}
SERIES = 4


def seen_errors(series: SimulatedSeries, solution: Solution) -> np.ndarray:
    """(Q, 11), (Q, 10), (Q, 6) or (Q, 5): of the local parameters of every projection."""
    geometry, truth = solution.geometry, series.truth
    defocus = (geometry.defocus_changes() - truth.defocus_changes())[series.used]
    amplitude = (geometry.amplitude - truth.amplitude)[series.exposure, None]
    phase = (geometry.phase - truth.phase)[series.exposure, None]
    magnification = np.log(geometry.magnification / truth.magnification)[series.exposure, None]
    local = np.concatenate([series.errors(geometry), amplitude, defocus, phase, magnification], axis=1)
    return local[:, : solution.projection_covariance.shape[1]]


def efficiencies(free: Tuple[str, ...], snr: float, particles: int = 20, grid: int = 2) -> Dict[str, float]:
    """Rms error over the bound, over several series, of everything that the free modes move."""
    squares: Dict[str, List[float]] = {}
    bounds: Dict[str, List[float]] = {}
    for seed in range(SERIES):
        series = SimulatedSeries(particles, snr=snr, perturbed=free, grid=grid if "deformation" in free else 0, seed=seed,
                                 defocus_grid=2 if "regional_defocus" in free else 0)
        solution = series.solve(SolveOptions(free=free))
        error, variance = seen_errors(series, solution), np.einsum("qii->qi", solution.projection_covariance)
        for name, part in SEEN.items():
            if part.start < error.shape[1] and variance[:, part].mean() > 0:
                squares.setdefault(name, []).append(float((error[:, part] ** 2).mean()))
                bounds.setdefault(name, []).append(float(variance[:, part].mean()))
    return {name: float(np.sqrt(np.sum(squares[name]) / np.sum(bounds[name]))) for name in squares}


@pytest.mark.slow
@pytest.mark.parametrize("name, moves", [
    ("rotation", {"rotation"}), ("position", {"position"}), ("tilt_angle", {"rotation", "position"}),
    ("axis_angle", {"rotation", "position"}), ("third_angle", {"rotation", "position"}), ("shift", {"position"}),
    ("deformation", {"position"}), ("defocus", {"defocus"}), ("astigmatism", {"astigmatism"}),
    ("particle_defocus", {"defocus"}), ("phase", {"phase"}),
    ("regional_defocus", {"defocus"}), ("magnification", {"position", "magnification"}),
    ("amplitude", {"amplitude"}),
])
def test_each_mode_alone_recovers_its_perturbation(name: str, moves: set) -> None:
    # a change of the CTF shows at high frequency only: strong data, so that the bound lies far below what was perturbed
    result = efficiencies((name,), 10.0 if MODES[name].ctf else 0.5)
    assert set(result) == moves
    assert max(result.values()) <= 1.2
    assert min(result.values()) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("free", [
    ("rotation", "position", "tilt_angle", "axis_angle", "shift", "deformation"),
    ("rotation", "position", "tilt_angle", "axis_angle", "shift", "defocus", "astigmatism"),
    ("rotation", "position", "tilt_angle", "axis_angle", "shift", "magnification"),
    tuple(MODES),
])
def test_all_together_recover_their_perturbations(free: Tuple[str, ...]) -> None:
    result = efficiencies(free, 3.0 if "defocus" in free else 0.5)
    assert ("magnification" in result) == ("magnification" in free)
    assert {"rotation", "position"} <= set(result)
    assert ("astigmatism" in result) == ("defocus" in free)
    assert ("defocus" in result) == (local_size(free) >= LOCAL_CTF)  # the CTF then tells of the depth
    assert max(result.values()) <= 1.2


def test_noise_free_defocus_and_astigmatism_come_back() -> None:
    """To a fraction of an angstrom, with poses and tilts; the particles' depths and the hand included."""
    free = ("rotation", "position", "tilt_angle", "axis_angle", "shift", "defocus", "astigmatism")
    series = SimulatedSeries(12, 21, perturbed=free)
    solution = series.solve(SolveOptions(free=free))
    error = seen_errors(series, solution)
    start = (series.start.defocus_changes() - series.truth.defocus_changes())[series.used]
    assert np.sqrt((start**2).mean(axis=0)).min() > 100
    assert np.abs(error[:, 6:9]).max() < 10.0
    assert np.sqrt((error[:, 6:9] ** 2).mean()) < 2.0
    assert np.abs(error[:, 3:5]).max() < 0.01
    assert np.rad2deg(np.abs(error[:, :3]).max()) < 0.01


def test_depth_of_a_particle_is_seen_in_its_defocus() -> None:
    """At a single tilt, nothing but the CTF tells how high a particle lies; a wrong sign would drive it the other way."""
    series = SimulatedSeries(4, 1, snr=1000.0, perturbed=())
    height = np.array([500.0, -600.0, 400.0, -450.0])
    beam = series.truth.tilts[0].T @ np.array([0.0, 0.0, 1.0])
    series.start.positions = series.truth.positions - height[:, None] * beam
    options = SolveOptions(free=("position", "astigmatism"), sigmas={"position": 1e4, "astigmatism": 1e-3})
    solution = series.solve(options, (LAST,))
    sigma = np.sqrt(np.einsum("i,pij,j->p", beam, solution.particle_covariance, beam))
    assert sigma.max() < 60
    moved = (solution.geometry.positions - series.start.positions) @ beam
    assert (np.abs(moved - height) < 4 * sigma).all()


def test_without_ctf_modes_the_fast_path_is_taken() -> None:
    """``evaluate`` is asked for poses only, and for the CTF as soon as one of its modes is free."""
    series = SimulatedSeries(4, 5, snr=0.5)
    series.weigh(series.start)
    whole, asked = series.evaluate(50, 1), []

    def evaluate(rotations, centres, **extra):
        asked.append(sorted(extra))
        return whole(rotations, centres, **extra)

    for free in (("rotation", "position", "shift"), ("rotation", "position", "shift", "phase")):
        solve_series(series.start, series.start, series.used, evaluate, False, SolveOptions(free=free, max_evaluations=2))
    assert asked == [[], [], ["ctf"], ["ctf"]]


def test_ctf_tolerances_bound_their_components() -> None:
    free = ("defocus", "astigmatism")
    series = SimulatedSeries(10, 11, snr=30.0, perturbed=free)
    box = {"defocus": 100.0, "astigmatism": 60.0}
    geometry = series.solve(SolveOptions(free=free, tolerances=box), (LAST,)).geometry
    change = np.abs(geometry.defocus - series.start.defocus)
    assert (change <= np.array([100.0, 60.0, 60.0]) * (1 + 1e-9)).all()
    assert (change[:, 0] > 99.9).sum() > 2
