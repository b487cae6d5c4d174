"""Which projections refine particles, and which make the map."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from ..core.geometry import matrix_to_tilt
from ..core.refinement import LocalEquations
from ..errors import InputError
from ..model.settings import ReconstructSettings, RefineSettings
from ..model.tables import Dataset
from ..refine.parameters import EXPOSURE_MODES, SeriesGeometry, local_size
from ..refine.solve import Evaluate, Solution, SolveOptions, solve_series

if TYPE_CHECKING:
    from .series_model import SeriesModel

LARGEST_EXPONENT = 20.0  # of a weight by score: a few particles never make the map alone


def score_limits(dataset: Dataset, settings: ReconstructSettings) -> Dict[str, float]:
    """Least and most score of a particle that makes the map, and the mean of all, as the settings need them; else nothing.

    Of the whole data set, so that chunks agree. Raises InputError where no particle would be left.
    """
    scores = dataset.particles["score"]
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return {}
    limits = {"mean": float(scores.mean())} if settings.score_b_factor else {}
    if (settings.map_score_min, settings.map_score_max, settings.map_particles) == (0.0, 1.0, 1.0):
        return limits
    low, high = float(scores.min()), float(scores.max())

    def absolute(value: float) -> float:
        return low + value * (high - low) if value <= 1 else value

    least, most = absolute(settings.map_score_min), absolute(settings.map_score_max)
    best = np.sort(scores)[::-1]
    if settings.map_particles == 0:
        from .filter import automatic_threshold

        threshold, _, _ = automatic_threshold(scores)
        least = max(least, low if threshold is None else threshold)
    elif settings.map_particles != 1:
        share = settings.map_particles < 1
        count = int(np.ceil(settings.map_particles * len(best) - 1e-9)) if share else int(settings.map_particles)
        least = max(least, float(best[min(count, len(best)) - 1]))
    if not ((scores >= least) & (scores <= most)).any():
        raise InputError(f"no particle has a score from {least:.2f} to {most:.2f}; loosen map_score_min, map_score_max or "
                         "map_particles")
    return {**limits, "least": least, "most": most}


class MapChoice(NamedTuple):
    """Particles of the map."""

    kept: NDArray[np.bool_]  # (particles,)
    exponents: NDArray[np.float64]  # (particles,) A^2: the weight is exp(exponent k^2)

    def weights(self, particles: NDArray[np.int64], k: NDArray[np.float64]) -> NDArray[np.float32]:
        """``(B, n)`` for frequencies k (1/angstrom)."""
        exponent = self.exponents[particles][:, None] * k**2
        return np.exp(np.clip(exponent, -LARGEST_EXPONENT, LARGEST_EXPONENT)).astype(np.float32)


def choose_for_map(dataset: Dataset, settings: ReconstructSettings, scores: Dict[str, float]) -> MapChoice:
    """Which particles make the map, by their weights and present scores, and how these weigh; ``scores`` of ``score_limits``.

    Particles without a score are kept and weigh as the mean one does.
    """
    score = dataset.particles["score"]
    kept = dataset.particles["weight"] >= settings.map_weight_min
    if "least" in scores:
        kept = kept & ~((score < scores["least"]) | (score > scores["most"]))
    exponents = 0.25 * settings.score_b_factor * (score - scores.get("mean", np.nan))
    return MapChoice(kept, np.nan_to_num(exponents, nan=0.0))


def projections_of_map(
    dataset: Dataset, series: int, settings: ReconstructSettings, choice: MapChoice
) -> NDArray[np.bool_]:
    """``(P, E)`` of a series: the used projections that the settings let into the map."""
    rows, particles = dataset.exposures_of(series), dataset.particles_of(series)
    rotation = dataset.exposures["rotation"][rows]
    tilt = matrix_to_tilt(rotation)[1]
    good = (tilt >= settings.map_tilt_min) & (tilt <= settings.map_tilt_max)
    good &= _in_order(dataset.exposures["order"][rows], settings.map_first, settings.map_last)
    used = dataset.used(series) & choice.kept[particles][:, None] & good
    if settings.map_defocus_min > 0 or settings.map_defocus_max < 1e5:
        mean = dataset.exposures["defocus"][rows, :2].mean(axis=1)
        defocus = mean + dataset.defocus_changes(series)
        used &= (defocus >= settings.map_defocus_min) & (defocus <= settings.map_defocus_max)
    if settings.map_theta_min > 0 or settings.map_theta_max < 180:
        along = np.einsum("ej,pj->pe", rotation[:, 2], dataset.particles["rotation"][particles][:, :, 2])
        theta = np.rad2deg(np.arccos(np.clip(along, -1.0, 1.0)))  # FREALIGN's THETA: M[2, 2] is its cosine
        used &= (theta >= settings.map_theta_min) & (theta <= settings.map_theta_max)
    return used


def informing(dataset: Dataset, series: int, settings: RefineSettings) -> NDArray[np.bool_]:
    """``(P, E)`` of a series: the used projections by which particles are refined."""
    order = dataset.exposures["order"][dataset.exposures_of(series)]
    used = dataset.used(series) & _in_order(order, settings.refinement_first, settings.refinement_last)
    used[used.sum(axis=1) < settings.refinement_projections] = False
    return used


def informing_dataset(dataset: Dataset, series: int, settings: RefineSettings) -> Dataset:
    """The data set with only those projections of a series visible by which particles are refined."""
    visible = dataset.visible.copy()
    mask = informing(dataset, series, settings)
    visible[dataset.particles_of(series), : mask.shape[1]] &= mask
    return Dataset(dataset.series, dataset.exposures, dataset.particles, visible, dataset.box, dataset.box_pixel,
                   dataset.extra, dataset.source)


def _in_order(order: NDArray[np.int64], first: int, last: int) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = (order >= first) & ((order <= last) | (last < 0))
    return good


def evaluator(model: SeriesModel, count: int, options: SolveOptions) -> Evaluate:
    """The model's equations with the first ``count`` coefficients, also of a series without projections."""
    size = local_size(options.free)
    nothing = LocalEquations(np.zeros(0), np.zeros(0), np.zeros((0, size)), np.zeros((0, size, size)))

    def evaluate(
        rotations: NDArray, centres: NDArray, rows: Optional[NDArray[np.int64]] = None, **optics: Any
    ) -> LocalEquations:
        return model.equations(rotations, centres, count, rows, **optics) if len(rotations) else nothing

    return evaluate


def solve_informed(
    model: SeriesModel, start: SeriesGeometry, geometry: SeriesGeometry, count: int, last: bool, options: SolveOptions
) -> Solution:
    """``solve_series`` with the first ``count`` coefficients, by the projections that inform the refinement.

    Where that are not all, exposures are then fitted to the particles by all projections, as PYP does: particles do not move
    for late, damaged exposures, which still get their geometry and their scores. What such a projection adds to the
    uncertainties is not known: theirs are NaN.
    """
    used, evaluate = model.projections.used, evaluator(model, count, options)
    settings = model.settings
    informs = used & informing(model.dataset, model.series, settings) if isinstance(settings, RefineSettings) else used
    chosen = np.flatnonzero(informs[used])
    if len(chosen) == len(model):  # none as well: then the priors keep all where it is
        return solve_series(start, geometry, used, evaluate, last, options, model.threads)
    if not len(chosen):
        name = model.dataset.series["name"][model.series]
        raise InputError(f"series {name}: no projection is left to refine by; widen refinement_first, refinement_last or "
                         "refinement_projections")

    def evaluate_chosen(
        rotations: NDArray, centres: NDArray, rows: Optional[NDArray[np.int64]] = None, **optics: Any
    ) -> LocalEquations:
        return model.equations(rotations, centres, count, chosen if rows is None else chosen[rows], **optics)

    solution = solve_series(start, geometry, informs, evaluate_chosen, last, options, model.threads)
    names = {mode.name for mode in EXPOSURE_MODES}
    others = replace(options, free=tuple(mode for mode in options.free if mode in names))
    rest = solve_series(start, solution.geometry, used, evaluator(model, count, others), last, others, model.threads)
    if not last:
        return replace(solution, geometry=rest.geometry)
    seen = informs.any(axis=0)
    covariance = np.where(seen[:, None, None], solution.exposure_covariance, rest.exposure_covariance)
    spread = np.full((len(model), *solution.projection_covariance.shape[1:]), np.nan)
    spread[chosen] = solution.projection_covariance
    weights = rest.weights.copy()
    weights[chosen] = solution.weights
    return replace(solution, geometry=rest.geometry, exposure_covariance=covariance, projection_covariance=spread,
                   local=rest.local, weights=weights)
