"""Keep the particles that are worth it: by score, by distance to better ones, by the number of their projections.

The automatic threshold follows the idea of Zhou et al. 2020 (Inverse Problems 36, 044002): scores are those of true particles
and of false ones, a normal distribution each, and the threshold is where a particle is as likely to be of one as of the other.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import InputError
from ..io.relion import read_dataset, write_dataset
from ..model.tables import Dataset
from .check import inside_fraction
from .claim import DATA_SET, claim_folder
from .extract import LEAST_INSIDE
from .plan import inputs_of
from .store import RunStore, write_json

FEWEST = 20  # scores, for an automatic threshold
MOST = 5_000  # scores in a fit; of more, as many quantiles stand for all
LEAST_SEPARATION = 2.0  # of two components in units of their rms width; Ashman et al. 1994: below 2 they are not distinct
STRONG_EVIDENCE = 6.0  # least difference of BIC in favour of two components; Kass and Raftery 1995
LEAST_UPPER = 0.1  # a few high scores beside the others do not make all the others false
STARTS = (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)  # quantiles at which the scores are first parted
RULES = ("projections", "no_score", "score", "distance")


@dataclass(frozen=True)
class Mixture:
    """Two normal distributions of scores, the lower first."""

    weights: Tuple[float, float]
    means: Tuple[float, float]
    sigmas: Tuple[float, float]
    bic: float
    bic_one: float  # of a single normal distribution

    @property
    def separation(self) -> float:
        """Distance of the means over the rms of both widths (Ashman's D)."""
        return (self.means[1] - self.means[0]) / float(np.sqrt(0.5 * np.sum(np.square(self.sigmas))))

    def crossing(self) -> Optional[float]:
        """The score between the means at which both components are as likely; None where there is none."""
        # log(w N) of both is a parabola: their difference is a x^2 + b x + c
        w, m, v = (np.array(part) for part in (self.weights, self.means, np.square(self.sigmas)))
        curve, slope, level = -0.5 / v, m / v, np.log(w) - 0.5 * np.log(v) - 0.5 * m**2 / v
        roots = np.roots(np.array([curve[1] - curve[0], slope[1] - slope[0], level[1] - level[0]]))
        between = [float(root.real) for root in roots if abs(root.imag) < 1e-9 and m[0] < root.real < m[1]]
        return between[0] if len(between) == 1 else None


def fit_mixture(scores: NDArray[np.float64]) -> Mixture:
    """The likeliest mixture of two normal distributions, by expectation maximisation from several starts; no chance in it.

    ``scores`` (n,) finite, not all the same. A component is not let narrower than a fiftieth of the whole.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if len(values) > MOST:
        values = np.quantile(values, (np.arange(MOST) + 0.5) / MOST)
    count, spread = len(values), float(values.std())
    if not spread > 0:
        raise ValueError("scores are all the same")
    floor = (spread / 50.0) ** 2
    best = max((_maximise(values, values <= np.quantile(values, start), floor) for start in STARTS), key=lambda found: found[0])
    likelihood, weights, means, variances = best
    order = np.argsort(means)
    one = -0.5 * count * (np.log(2 * np.pi * spread**2) + 1.0)

    def both(part: NDArray) -> Tuple[float, float]:
        return float(part[order[0]]), float(part[order[1]])

    return Mixture(both(weights), both(means), both(np.sqrt(variances)), float(-2 * likelihood + 5 * np.log(count)),
                   float(-2 * one + 2 * np.log(count)))


def _maximise(
    values: NDArray, lower: NDArray[np.bool_], floor: float, iterations: int = 2000
) -> Tuple[float, NDArray, NDArray, NDArray]:
    """(log likelihood, weights, means, variances) of the maximum that is reached from a first parting of the values."""
    share = np.where(lower, 0.95, 0.05)
    share = np.stack([share, 1.0 - share])  # (2, n) of each component in each value
    last = -np.inf
    for _ in range(iterations):
        total = np.maximum(share.sum(axis=1), 1e-9)
        weights, means = total / total.sum(), share @ values / total
        variances = np.maximum((share * (values - means[:, None]) ** 2).sum(axis=1) / total, floor)
        density = (np.log(weights) - 0.5 * np.log(2 * np.pi * variances))[:, None]
        density = density - 0.5 * (values - means[:, None]) ** 2 / variances[:, None]
        both = np.logaddexp(density[0], density[1])
        likelihood = float(both.sum())
        share = np.exp(density - both)
        if abs(likelihood - last) < 1e-8 * abs(likelihood):
            break
        last = likelihood
    return likelihood, weights, means, variances


def automatic_threshold(scores: NDArray[np.float64]) -> Tuple[Optional[float], Optional[Mixture], str]:
    """(threshold or None, the mixture where one was fitted, the reason in words) of finite scores (n,)."""
    if len(scores) < FEWEST:
        return None, None, f"only {len(scores)} scores, too few for an automatic threshold; nothing is removed by score"
    if not np.std(scores) > 1e-9 * max(1.0, float(np.abs(scores).max())):
        return None, None, "all scores are the same; nothing is removed by score"
    mixture = fit_mixture(scores)
    if mixture.bic_one - mixture.bic < STRONG_EVIDENCE:
        return None, mixture, "one normal distribution explains the scores as well as two (BIC); nothing is removed by score"
    threshold = mixture.crossing()
    if threshold is None or mixture.separation < LEAST_SEPARATION or mixture.weights[1] < LEAST_UPPER:
        return None, mixture, "the scores do not fall into two groups; nothing is removed by score"
    return threshold, mixture, (f"two groups of scores: {100 * mixture.weights[0]:.0f} % about {mixture.means[0]:.2f} and "
                                f"{100 * mixture.weights[1]:.0f} % about {mixture.means[1]:.2f}")


def usable_projections(dataset: Dataset) -> NDArray[np.int64]:
    """(particles,) projections that are visible, not of an excluded view, and inside their image."""
    counts = np.zeros(len(dataset.particles), np.int64)
    for series in range(len(dataset.series)):
        used = dataset.used(series)
        if dataset.series["image_size"][series].all():
            used = used & (inside_fraction(dataset, series) >= LEAST_INSIDE)
        counts[dataset.particles_of(series)] = used.sum(axis=1)
    return counts


def apart(positions: NDArray[np.float64], scores: NDArray[np.float64], names: NDArray, distance: float) -> NDArray[np.bool_]:
    """Which of the particles (n, 3) stay if the best is taken first and removes all that are nearer than ``distance``.

    A NaN score is below all others; equal scores go by name.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(positions)
    alive = np.ones(len(positions), bool)
    for row in np.lexsort((names, -np.nan_to_num(scores, nan=-np.inf))).tolist():
        if not alive[row]:
            continue
        near = np.array(tree.query_ball_point(positions[row], distance))
        near = near[np.linalg.norm(positions[near] - positions[row], axis=1) < distance]
        alive[near] = False
        alive[row] = True
    return alive


def choose(
    dataset: Dataset, score: Union[float, str, None] = None, distance: float = 0.0, min_projections: int = 0
) -> Tuple[NDArray[np.bool_], Dict[str, Any]]:
    """(which particles to keep, what was done), rule after rule: projections, score, distance.

    ``score`` is a threshold, "auto" or None; ``distance`` in angstrom and ``min_projections`` are off at 0. Raises InputError
    where a rule cannot be applied or nothing, or nothing of a half-set, would be left.
    """
    if score is None and not distance and not min_projections:
        raise InputError("nothing to filter by; give --score, --distance or --min-projections")
    if distance < 0 or not np.isfinite(distance) or min_projections < 0:
        raise InputError(f"distance {distance:g} A and projections {min_projections}; they must be 0 or above")
    scores, count = dataset.particles["score"], len(dataset.particles)
    has_score = np.isfinite(scores)
    removed = dict.fromkeys(RULES, 0)
    keep = np.ones(count, bool)

    def apply(rule: str, good: NDArray[np.bool_]) -> None:
        removed[rule] = int((keep & ~good).sum())
        keep[:] &= good

    if min_projections:
        apply("projections", usable_projections(dataset) >= min_projections)
    threshold, mixture, reason = None, None, ""
    if score is not None:
        if not has_score.any():
            raise InputError(f"{dataset.source or 'data'}: the particles have no scores; refine them first")
        apply("no_score", has_score)
        if isinstance(score, str):
            if score != "auto":
                raise InputError(f"score {score!r}; give a number or auto")
            threshold, mixture, reason = automatic_threshold(scores[keep])
        else:
            threshold, reason = float(score), "as given"
            if not np.isfinite(threshold):
                raise InputError(f"score {score}; give a number or auto")
        if threshold is not None:
            apply("score", scores >= threshold)
    if distance:
        good = np.ones(count, bool)
        for series in range(len(dataset.series)):
            rows = dataset.particles_of(series)
            rows = rows[keep[rows]]
            if len(rows):
                table = dataset.particles
                good[rows] = apart(table["position"][rows], scores[rows], table["name"][rows], distance)
        apply("distance", good)
    _check_left(dataset, keep)
    return keep, {
        "threshold": threshold, "automatic": score == "auto", "reason": reason,
        "mixture": None if mixture is None else dict(asdict(mixture), separation=mixture.separation),
        "distance": float(distance), "min_projections": int(min_projections),
        "n_particles_before": count, "n_particles": int(keep.sum()), "removed": removed,
    }


def _check_left(dataset: Dataset, keep: NDArray[np.bool_]) -> None:
    if not keep.any():
        raise InputError("the rules would remove all particles; loosen them")
    half = dataset.particles["half"]
    for number in (1, 2):
        if (half == number).any() and not (half[keep] == number).any():
            raise InputError(f"the rules would remove all particles of half-set {number}; loosen them")


def filter_data(
    data: str,
    out: str,
    score: Union[float, str, None] = None,
    distance: float = 0.0,
    min_projections: int = 0,
    overwrite: bool = False,
) -> Dict[str, Any]:
    """Write the data set of the particles that ``choose`` keeps into ``out``, and filter.json; returns what that holds.

    Images are referenced where they are. Raises InputError where ``out`` is the data set itself or holds another one.
    """
    dataset = read_dataset(data, need_images=False)
    store = claim_folder(out, DATA_SET, inputs_of(data, dataset), overwrite)
    keep, result = choose(dataset, score, distance, min_projections)
    kept = dataset.select_particles(keep)
    record = {
        "version": __version__, "data": os.path.abspath(data), **result,
        "half_sets": [int((kept.particles["half"] == number).sum()) for number in (1, 2)],
        "histogram": score_histogram(dataset.particles["score"]),
    }
    _make_folder(store)
    write_dataset(kept, store.folder)
    write_json(store.folder / "filter.json", record)
    return record


def score_histogram(scores: NDArray[np.float64], bins: int = 50) -> Optional[Dict[str, List[float]]]:
    """{"edges": (bins + 1), "counts": (bins)} of all finite scores; None where there are none."""
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return None
    counts, edges = np.histogram(finite, bins)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _make_folder(store: RunStore) -> None:
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{store.folder}: cannot be made ({error.strerror}); choose a folder that can be written") from None
