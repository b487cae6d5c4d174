"""How far the parameters of a data set are from the truth, before and after what the images cannot tell is taken away."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.gauge import Geometry, nearest_equivalent, remove_gauge
from ..core.geometry import matrix_to_tilt, project, rotation_angle
from ..core.symmetry import group_matrices
from ..errors import CsprError, InputError
from ..io.relion import read_dataset
from ..model.tables import Dataset
from .store import RunStore, read_rows

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
    "particle_defocus": ("A", "mean defocus of a projection, with the particle's depth and all else that is its own"),
    "magnification": ("%", "magnification of a tilt image"),
}


# quantity -> (unit, what its bound comes from)
BOUNDS = {
    "view": ("deg", "the full covariance of particles and tilt images"),
    "projected": ("A", "the full covariance of particles and tilt images"),
    "rotation": ("deg", "the particles' own uncertainties"),
    "position": ("A", "the particles' own uncertainties"),
}


@dataclass(frozen=True)
class Bounds:
    """What a refinement says of its own errors: standard deviations of a whole error, all axes together.

    They are the Cramer-Rao bounds at the solution, for the noise that was measured there. By row of the data set's series:
    ``seen``, ``view`` (deg) and ``place`` (A), ``(particles, exposures)``. By particle row: ``rotation`` (deg) and ``position``
    (A); these hold in the series' frame as the priors fix it, so what moves all particles together is part of them.
    """

    seen: Dict[int, NDArray[np.bool_]]
    view: Dict[int, NDArray[np.float64]]
    place: Dict[int, NDArray[np.float64]]
    rotation: NDArray[np.float64]
    position: NDArray[np.float64]


def read_run(path: str) -> Tuple[Dataset, Optional[Bounds]]:
    """The data set of a run folder, or of any other, and the bounds where it is a refinement.

    Raises CsprError where the files of a refinement do not belong together.
    """
    store = RunStore(Path(path))
    summary = store.finished() if os.path.isdir(path) else None
    if summary is None or not store.refinement_path.exists() or not _refined(store, summary):
        return read_dataset(path, need_images=False), None
    dataset = read_rows(store.result_path)
    seen, view, place = {}, {}, {}
    try:
        with np.load(store.refinement_path, allow_pickle=False) as arrays:
            for series in range(len(dataset.series)):
                if f"{series}.score" not in arrays.files:
                    continue
                shape = (len(dataset.particles_of(series)), len(dataset.exposures_of(series)))
                parts = [arrays[f"{series}.{name}"] for name in ("score", "view_sigma", "place_sigma")]
                if any(part.shape != shape for part in parts):
                    raise ValueError(f"series {series}: {parts[0].shape} projections, want {shape}")
                seen[series], view[series], place[series] = np.isfinite(parts[0]), parts[1], parts[2]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CsprError(f"{store.refinement_path}: does not belong to result.npz ({error}); run the refinement again") from None
    sigma = dataset.particles["sigma"] * np.sqrt(3.0)  # the table has the rms over axes
    return dataset, Bounds(seen, view, place, sigma[:, 0], sigma[:, 1])


def _refined(store: RunStore, summary: Dict[str, Any]) -> bool:
    """Whether a finished run is a refinement, or one iteration of it; a later reconstruction in its folder is not."""
    if "iterations" in summary:
        return len(summary["iterations"]) > 1
    return store.plan_path.exists() and bool(store.plan().get("refine"))


@dataclass
class _Pair:
    """One series in both data sets, rows matched."""

    series: int  # row of the estimate's
    particles: NDArray[np.int64]  # rows of the estimate's

    estimate: Geometry
    truth: Geometry
    used: NDArray[np.bool_]  # (particles, exposures)
    pixel: float
    defocus: Tuple[NDArray, NDArray]  # mean of df_u and df_v, (exposures,) each
    hand: Tuple[float, float]
    magnification: Tuple[NDArray, NDArray]  # (exposures,) each
    # What places (particles, exposures, 2) and defoci (particles, exposures) have beyond the rigid geometry and the depth:
    # magnification, deformation, regions, the particles' own
    places: Tuple[NDArray, NDArray]
    defoci: Tuple[NDArray, NDArray]


def compare(
    estimate: Dataset, truth: Dataset, symmetry: str = "C1", reference: bool = False, bounds: Optional[Bounds] = None
) -> Dict[str, Any]:
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
    if bounds is not None:
        result["bound"] = _against_bounds(pairs, after, group, bounds)
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
            series, mine,
            _geometry(estimate, mine, rows),
            _geometry(truth, theirs, match),
            estimate.used(series),
            float(truth.series["pixel"][other]),
            (estimate.exposures["defocus"][rows, :2].mean(axis=1), truth.exposures["defocus"][match, :2].mean(axis=1)),
            (float(estimate.series["hand"][series]), float(truth.series["hand"][other])),
            (estimate.exposures["magnification"][rows], truth.exposures["magnification"][match]),
            *zip(_beyond_rigid(estimate, series, mine, rows), _beyond_rigid(truth, other, theirs, match)),
        ))
    return pairs


def _beyond_rigid(dataset: Dataset, series: int, particles: NDArray, exposures: NDArray) -> Tuple[NDArray, NDArray]:
    """Of rows of one series: places minus those of the rigid geometry, changes of the defocus minus those by depth."""
    where = np.searchsorted(dataset.particles_of(series), particles)
    which = np.searchsorted(dataset.exposures_of(series), exposures)
    tilts, shifts = dataset.exposures["rotation"][exposures], dataset.exposures["shift"][exposures]
    rigid, depth = project(tilts, shifts, dataset.particles["position"][particles][:, None])
    places = dataset.project(series)[0][where][:, which]
    defoci = dataset.defocus_changes(series)[where][:, which]
    return places - rigid, defoci - dataset.series["hand"][series] * depth


def _geometry(dataset: Dataset, particles: NDArray, exposures: NDArray) -> Geometry:
    return Geometry(
        dataset.particles["rotation"][particles], dataset.particles["position"][particles],
        dataset.exposures["rotation"][exposures], dataset.exposures["shift"][exposures],
    )


def _pose_errors(pair: _Pair, found: Geometry, group: NDArray) -> Dict[str, NDArray[np.float64]]:
    """Errors of particles (P,), and of projections (P, E): "view" in degrees, "projected" in angstrom."""
    truth = pair.truth
    copies = nearest_equivalent(found.rotations, truth.rotations, group)
    seen, _ = project(found.tilts, found.shifts, found.positions[:, None])
    true_seen, _ = project(truth.tilts, truth.shifts, truth.positions[:, None])
    views = found.tilts @ found.rotations[:, None]  # (particles, exposures, 3, 3)
    flat, true_flat = views.reshape(-1, 3, 3), (truth.tilts @ truth.rotations[:, None]).reshape(-1, 3, 3)
    angle = rotation_angle(nearest_equivalent(flat, true_flat, group), true_flat)
    return {
        "rotation": rotation_angle(copies, truth.rotations),
        "position": np.linalg.norm(found.positions - truth.positions, axis=1),
        "view": angle.reshape(views.shape[:2]),
        "projected": np.linalg.norm(seen + pair.places[0] - true_seen - pair.places[1], axis=2),
    }


def _summary(pairs: List[_Pair], estimates: List[Geometry], group: NDArray) -> Dict[str, Dict[str, Any]]:
    errors: Dict[str, List[NDArray]] = {name: [] for name in QUANTITIES}
    for pair, found in zip(pairs, estimates):
        truth = pair.truth
        pose = _pose_errors(pair, found, group)
        for name in ("rotation", "position"):
            errors[name].append(pose[name])
        for name in ("view", "projected"):
            errors[name].append(pose[name][pair.used])
        errors["projected_pixel"].append(pose["projected"][pair.used] / pair.pixel)
        for name, angle, true_angle in zip(("xtilt", "tilt", "axis"), matrix_to_tilt(found.tilts), matrix_to_tilt(truth.tilts)):
            errors[name].append(np.abs((angle - true_angle + 180.0) % 360.0 - 180.0))
        errors["shift"].append(np.linalg.norm(found.shifts - truth.shifts, axis=1))
        errors["defocus"].append(np.abs(pair.defocus[0] - pair.defocus[1]))
        _, depth = project(found.tilts, found.shifts, found.positions[:, None])
        _, true_depth = project(truth.tilts, truth.shifts, truth.positions[:, None])
        here = pair.defocus[0] + pair.hand[0] * depth + pair.defoci[0]
        there = pair.defocus[1] + pair.hand[1] * true_depth + pair.defoci[1]
        errors["particle_defocus"].append(np.abs(here - there)[pair.used])
        errors["magnification"].append(100.0 * np.abs(pair.magnification[0] - pair.magnification[1]))
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


def _against_bounds(pairs: List[_Pair], estimates: List[Geometry], group: NDArray, bounds: Bounds) -> Dict[str, Dict[str, Any]]:
    """Of each of ``BOUNDS``: rms error, bound (rms of the same rows' sigma), their ratio, and the mean of (error / sigma)^2.

    The last is 1 where the uncertainties are right, whatever the number of axes: sigma is that of the whole error.
    """
    errors: Dict[str, List[NDArray]] = {name: [] for name in BOUNDS}
    sigmas: Dict[str, List[NDArray]] = {name: [] for name in BOUNDS}
    for pair, found in zip(pairs, estimates):
        if pair.series not in bounds.seen:
            continue
        used = bounds.seen[pair.series] & pair.used
        pose = _pose_errors(pair, found, group)
        good = used.any(axis=1)  # a particle without projections has no error of its own
        rows = pair.particles[good]
        found_sigmas = {
            "view": bounds.view[pair.series][used], "projected": bounds.place[pair.series][used],
            "rotation": bounds.rotation[rows], "position": bounds.position[rows],
        }
        for name, values in found_sigmas.items():
            errors[name].append(pose[name][good if name in ("rotation", "position") else used])
            sigmas[name].append(values)
    return {
        name: _ratio(np.concatenate(errors[name]), np.concatenate(sigmas[name]), unit)
        for name, (unit, _) in BOUNDS.items()
    }


def _ratio(errors: NDArray, sigmas: NDArray, unit: str) -> Dict[str, Any]:
    known = np.isfinite(sigmas) & (sigmas > 0)  # 0: kept fixed
    errors, sigmas = errors[known], sigmas[known]
    if not len(errors):
        return {"unit": unit, "n": 0, "error": None, "bound": None, "ratio": None, "variance": None}
    error, bound = float(np.sqrt(np.mean(errors**2))), float(np.sqrt(np.mean(sigmas**2)))
    return {"unit": unit, "n": len(errors), "error": error, "bound": bound, "ratio": error / bound,
            "variance": float(np.mean((errors / sigmas) ** 2))}
