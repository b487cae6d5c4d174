"""How far the parameters of a data set are from the truth, before and after what the images cannot tell is taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.gauge import Geometry, nearest_equivalent, remove_gauge
from ..core.geometry import matrix_to_tilt, project, rotation_angle
from ..core.symmetry import group_matrices
from ..errors import InputError
from ..model.tables import Dataset

# quantity -> (unit, what it is)
QUANTITIES = {
    "rotation": ("deg", "angle between particle rotations, modulo symmetry"),
    "position": ("A", "distance of particle centres"),
    "projected": ("A", "distance of particle centres in the images"),
    "projected_pixel": ("pixel", "the same in pixels of the images"),
    "view": ("deg", "angle between projection directions and in-plane angles (T_e R_p), modulo symmetry"),
    "tilt": ("deg", "tilt angle, ytilt"),
    "xtilt": ("deg", "tilt about x"),
    "axis": ("deg", "direction of the tilt axis, zrot"),
    "shift": ("A", "distance of the tilt images' shifts"),
    "defocus": ("A", "mean defocus of a tilt image"),
    "particle_defocus": ("A", "mean defocus of a projection, with the particle's depth"),
}


@dataclass
class _Pair:
    """One series in both data sets, rows matched."""

    estimate: Geometry
    truth: Geometry
    used: NDArray[np.bool_]  # (particles, exposures)
    pixel: float
    defocus: Tuple[NDArray, NDArray]  # mean of df_u and df_v, (exposures,) each
    hand: Tuple[float, float]


def compare(estimate: Dataset, truth: Dataset, symmetry: str = "C1", reference: bool = False) -> Dict[str, Any]:
    """Errors of ``estimate``: rms, median and largest of each of ``QUANTITIES``, before and after the gauge is removed.

    Particles are matched by name, tilt images by series and slice; the estimate may hold fewer of both. With ``reference`` a
    common turn and shift of the reference are removed as well, and reported as ``reference_rotation`` (deg) and
    ``reference_shift`` (A). Raises InputError where the two do not describe the same data or for an unknown ``symmetry``.
    """
    try:
        group = group_matrices(symmetry)
    except ValueError as error:
        raise InputError(f"symmetry {symmetry!r}: {error}") from None
    pairs = _match(estimate, truth)
    before = [pair.estimate for pair in pairs]
    truths = [pair.truth for pair in pairs]
    after, turn, shift = remove_gauge(before, truths, group, reference)
    result: Dict[str, Any] = {
        "n_series": len(pairs),
        "n_particles": int(sum(len(pair.truth.positions) for pair in pairs)),
        "n_tilts": int(sum(len(pair.truth.tilts) for pair in pairs)),
        "symmetry": symmetry.upper(),
        "before": _summary(pairs, before, group),
        "after": _summary(pairs, after, group),
    }
    if reference:
        result["reference_rotation"] = float(rotation_angle(np.eye(3), turn))
        result["reference_shift"] = [float(value) for value in shift]
    return result


def _match(estimate: Dataset, truth: Dataset) -> List[_Pair]:
    series_rows = {str(name): row for row, name in enumerate(truth.series["name"])}
    particle_rows = {str(name): row for row, name in enumerate(truth.particles["name"])}
    pairs = []
    for series, name in enumerate(estimate.series["name"]):
        mine = estimate.particles_of(series)
        if len(mine) == 0:
            continue
        if str(name) not in series_rows:
            raise InputError(f"series {name}: not in the truth; compare with the truth.star of the same sample")
        other = series_rows[str(name)]
        theirs = np.array([particle_rows.get(str(label), -1) for label in estimate.particles["name"][mine]])
        if (theirs < 0).any() or (truth.particles["series"][theirs] != other).any():
            bad = np.flatnonzero((theirs < 0) | (truth.particles["series"][theirs] != other))[0]
            raise InputError(f"particle {estimate.particles['name'][mine][bad]}: not in series {name} of the truth; "
                             "compare with the truth.star of the same sample")
        slices = {int(truth.exposures["slice"][row]): row for row in truth.exposures_of(other)}
        rows = estimate.exposures_of(series)
        match = np.array([slices.get(int(number), -1) for number in estimate.exposures["slice"][rows]])
        if (match < 0).any():
            number = estimate.exposures["slice"][rows][np.flatnonzero(match < 0)[0]]
            raise InputError(f"series {name}: tilt image {number + 1} is not in the truth; compare with its own truth.star")
        pairs.append(_Pair(
            _geometry(estimate, mine, rows),
            _geometry(truth, theirs, match),
            estimate.used(series),
            float(truth.series["pixel"][other]),
            (estimate.exposures["defocus"][rows, :2].mean(axis=1), truth.exposures["defocus"][match, :2].mean(axis=1)),
            (float(estimate.series["hand"][series]), float(truth.series["hand"][other])),
        ))
    return pairs


def _geometry(dataset: Dataset, particles: NDArray, exposures: NDArray) -> Geometry:
    return Geometry(
        dataset.particles["rotation"][particles], dataset.particles["position"][particles],
        dataset.exposures["rotation"][exposures], dataset.exposures["shift"][exposures],
    )


def _summary(pairs: List[_Pair], estimates: List[Geometry], group: NDArray) -> Dict[str, Dict[str, Any]]:
    errors: Dict[str, List[NDArray]] = {name: [] for name in QUANTITIES}
    for pair, found in zip(pairs, estimates):
        truth = pair.truth
        copies = nearest_equivalent(found.rotations, truth.rotations, group)
        errors["rotation"].append(rotation_angle(copies, truth.rotations))
        errors["position"].append(np.linalg.norm(found.positions - truth.positions, axis=1))
        seen, depth = project(found.tilts, found.shifts, found.positions[:, None])
        true_seen, true_depth = project(truth.tilts, truth.shifts, truth.positions[:, None])
        distance = np.linalg.norm(seen - true_seen, axis=2)[pair.used]
        errors["projected"].append(distance)
        errors["projected_pixel"].append(distance / pair.pixel)
        views = found.tilts @ found.rotations[:, None]  # (particles, exposures, 3, 3)
        true_views = truth.tilts @ truth.rotations[:, None]
        flat, true_flat = views.reshape(-1, 3, 3), true_views.reshape(-1, 3, 3)
        errors["view"].append(rotation_angle(nearest_equivalent(flat, true_flat, group), true_flat)[pair.used.ravel()])
        for name, angle, true_angle in zip(("xtilt", "tilt", "axis"), matrix_to_tilt(found.tilts), matrix_to_tilt(truth.tilts)):
            errors[name].append(np.abs((angle - true_angle + 180.0) % 360.0 - 180.0))
        errors["shift"].append(np.linalg.norm(found.shifts - truth.shifts, axis=1))
        errors["defocus"].append(np.abs(pair.defocus[0] - pair.defocus[1]))
        here = pair.defocus[0] + pair.hand[0] * depth
        errors["particle_defocus"].append(np.abs(here - (pair.defocus[1] + pair.hand[1] * true_depth))[pair.used])
    return {name: _statistics(np.concatenate(values), QUANTITIES[name][0]) for name, values in errors.items()}


def _statistics(values: NDArray, unit: str) -> Dict[str, Any]:
    if len(values) == 0:
        return {"unit": unit, "rms": None, "median": None, "largest": None}
    return {
        "unit": unit,
        "rms": float(np.sqrt(np.mean(values**2))),
        "median": float(np.median(values)),
        "largest": float(values.max()),
    }
