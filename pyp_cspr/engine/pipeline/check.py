"""Read everything, count everything, and, with a reference, find out which signs the data have."""

from __future__ import annotations

import itertools
from typing import Any, Dict, List

import numpy as np
from numpy.typing import NDArray

from ..core.filters import mirrored
from ..core.geometry import matrix_to_tilt, tilt_to_matrix
from ..core.projection import Reference
from ..errors import InputError
from ..io.images import open_images
from ..model.settings import ReconstructSettings
from ..model.tables import Dataset
from ..model.task import ChunkJournal, MapGrid
from .chunk import Progress, no_progress
from .extract import LEAST_INSIDE, CropGrid, ExposureView, source_pixel


def survey(dataset: Dataset) -> List[Dict[str, Any]]:
    """One row per series: what it holds and where its projections fall. Opens every image file's header."""
    rows = []
    for series, name in enumerate(dataset.series["name"]):
        images = open_images(dataset, series)
        exposures = dataset.exposures.take(dataset.exposures_of(series))
        used = dataset.used(series)
        enabled = exposures["enabled"]
        _, ytilt, _ = matrix_to_tilt(exposures["rotation"])
        defocus = exposures["defocus"][enabled, :2].mean(axis=1) if enabled.any() else np.zeros(1)
        rows.append(
            {
                "series": str(name),
                "tilts": int(len(exposures)),
                "excluded": int((~enabled).sum()),
                "tilt_min": float(ytilt.min()),
                "tilt_max": float(ytilt.max()),
                "particles": int(len(used)),
                "projections": int(used.sum()),
                "outside": int((inside_fraction(dataset, series)[used] < LEAST_INSIDE).sum()),
                "image_size": [int(size) for size in dataset.series["image_size"][series]],
                "pixel": float(dataset.series["pixel"][series]),
                "image_pixel": float(images.pixel),
                "box": int(images.box or dataset.box),
                "dose": float((exposures["dose_before"] + exposures["dose"]).max()),
                "defocus_min": float(defocus.min()),
                "defocus_max": float(defocus.max()),
                "hand": float(dataset.series["hand"][series]),
                "images": "extracted stacks" if dataset.is_stacks(series) else str(dataset.series["images"][series]),
            }
        )
    return rows


def inside_fraction(dataset: Dataset, series: int) -> NDArray[np.float64]:
    """(particles, exposures) part of each crop's area that lies inside its image; 1 for extracted stacks."""
    u, _ = dataset.project(series)
    if dataset.is_stacks(series):
        return np.ones(u.shape[:2])
    side = (dataset.box * dataset.box_pixel) or 1.0
    size = dataset.series["image_size"][series] * dataset.series["pixel"][series]
    low = np.maximum(u - side / 2, -size / 2)
    high = np.minimum(u + side / 2, size / 2)
    fraction: NDArray[np.float64] = (np.clip(high - low, 0, None) / side).prod(axis=-1)
    return fraction


def check_cube(reference: NDArray, path: str) -> None:
    """Raise InputError, which names the file, where a reference is not a cube with an even side."""
    if len(set(reference.shape)) != 1 or reference.ndim != 3 or len(reference) % 2:
        shape = " x ".join(map(str, reference.shape[::-1]))
        raise InputError(f"{path}: {shape} voxels; a reference must be a cube with an even side, so make it again")


def with_signs(dataset: Dataset, tilt_sign: int, hand_sign: int) -> Dataset:
    """The data set with the tilt angles, or the sign of depth in the defocus, reversed."""
    series, exposures = dataset.series.copy(), dataset.exposures.copy()
    if tilt_sign < 0:
        xtilt, ytilt, zrot = matrix_to_tilt(exposures["rotation"])
        exposures["rotation"] = tilt_to_matrix(xtilt, -ytilt, zrot)
    series["hand"] = series["hand"] * hand_sign
    return Dataset(series, exposures, dataset.particles, dataset.visible, dataset.box, dataset.box_pixel, dataset.extra,
                   dataset.source)


def score_signs(
    dataset: Dataset,
    reference: NDArray,
    pixel: float,
    resolution: float = 0.0,
    n_particles: int = 64,
    threads: int = 1,
    seed: int = 1,
    progress: Progress = no_progress,
) -> List[Dict[str, Any]]:
    """Score a sample of particles against the reference under every combination of signs; the best first.

    ``reference`` ``(N, N, N)`` at ``pixel`` angstrom; ``resolution`` in angstrom limits what is compared (0: 3 pixels, or
    20 A where the pixel is finer). A score is 100 times the correlation of weighted coefficients with the reference's
    slices. ``sigmas`` says how sure the lead of the best over this one is: the mean paired difference of the particles'
    scores over its standard error.

    Raises InputError where the reference does not fit the data.
    """
    box = len(reference)
    check_cube(reference, "reference")
    grid = MapGrid(box, pixel, 2 * box, box // 2 - 1)
    limit = resolution or max(20.0, 3.0 * pixel)
    shells = max(2, min(grid.radius, int(grid.field / limit)))
    grid = MapGrid(box, pixel, 2 * box, shells)
    finest = max(source_pixel(dataset, row) for row in range(len(dataset.series)))
    if grid.field / shells < 2 * finest:
        raise InputError(f"resolution {limit:g} A is finer than the images allow ({2 * finest:g} A); give a larger number")
    rows = np.arange(len(dataset.particles))
    if len(rows) > n_particles:
        rows = np.sort(np.random.default_rng(seed).choice(rows, n_particles, replace=False))
    sample = dataset.select_particles(rows)
    # A magnified image asks for more of the reference than its coefficients' limit.
    largest = max(1.0, float(dataset.exposures["magnification"].max()))
    reach = min(shells * largest, box / 2 - 1)
    grid = MapGrid(box, pixel, 2 * box, int(reach / largest))
    maps = {False: Reference(reference.astype(np.float32), 2.0, reach),
            True: Reference(np.ascontiguousarray(mirrored(reference)).astype(np.float32), 2.0, reach)}
    results = []
    for tilt_sign, hand_sign in itertools.product((1, -1), (1, -1)):
        signed = with_signs(sample, tilt_sign, hand_sign)
        scores = _particle_scores(signed, maps, grid, threads, progress)
        for mirror, values in scores.items():
            results.append({"tilt_sign": tilt_sign, "hand": hand_sign, "mirrored_reference": mirror, "scores": values})
    return _ranked(results)


def _ranked(results: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    results.sort(key=lambda result: -result["scores"].mean())
    best = results[0]["scores"]
    for result in results:
        scores = result.pop("scores")
        lead = best - scores
        error = lead.std(ddof=1) / np.sqrt(len(lead)) if len(lead) > 1 else 0.0
        result["score"] = float(100 * scores.mean())
        result["sigmas"] = float(lead.mean() / error) if error > 0 else 0.0
    return results


def _particle_scores(
    dataset: Dataset, maps: Dict[bool, Reference], grid: MapGrid, threads: int, progress: Progress
) -> Dict[bool, NDArray[np.float64]]:
    """(particles,) correlation of each particle's projections with each reference."""
    settings = ReconstructSettings()
    count = len(dataset.particles)
    sums = {mirror: np.zeros((count, 2)) for mirror in maps}  # data x model, model x model
    data_power = np.zeros(count)
    for series in range(len(dataset.series)):
        particles = dataset.particles_of(series)
        if not len(particles):
            continue
        images = open_images(dataset, series)
        crop_grid = CropGrid(source_pixel(dataset, series), grid)
        band = crop_grid.band
        used = dataset.used(series)
        (u, _), changes = dataset.project(series), dataset.defocus_changes(series)
        for column, exposure in enumerate(dataset.exposures_of(series)):
            rows = np.flatnonzero(used[:, column])
            if not len(rows):
                continue
            view = ExposureView(dataset, series, int(exposure), images, crop_grid, settings, ChunkJournal(), threads)
            where = particles[rows], u[rows, column], changes[rows, column]
            data, weight, good = view.weighted(*where)
            data[~good], weight[~good] = 0, 0
            # |X|^2 / s^2, from D = a C X / s^2, is the power of what the model is compared with.
            model_free = np.abs(data) ** 2 / np.maximum(weight, 1e-12 * weight.max(initial=1e-30))
            data_power[where[0]] += model_free.sum(axis=1)
            orientations = view.orientations(where[0])
            for mirror, reference in maps.items():
                slices = reference.slices(orientations, band, view.scale, threads)
                sums[mirror][where[0], 0] += (data * slices.conj()).real.sum(axis=1)
                sums[mirror][where[0], 1] += (weight * np.abs(slices) ** 2).sum(axis=1)
            progress(len(rows))
    seen = data_power > 0
    if not seen.any():
        raise InputError("none of the particles lies inside its images; check pixel sizes and coordinates")
    return {mirror: total[seen, 0] / np.sqrt(total[seen, 1] * data_power[seen] + 1e-30) for mirror, total in sums.items()}
