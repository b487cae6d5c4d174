"""The geometry of a simulated acquisition: tilt scheme, where the particles are, defocus, and errors of known size."""

from __future__ import annotations

from typing import Callable, List, Tuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ..core.geometry import matrix_to_tilt, project, rotation_vector_to_matrix, rotation_z, tilt_to_matrix
from ..errors import InputError
from ..model.tables import EXPOSURES, LARGEST_MAGNIFICATION, PARTICLES, SERIES, Dataset, Table
from .settings import SampleSettings

TRIES = 4000  # places tried for a particle before the image is taken to be full
GROWTH = 1.08  # of an image that proved too small


def generator(seed: int, *key: int) -> np.random.Generator:
    """Random numbers of one purpose. Each purpose has its own stream, so that one setting does not change another's draws."""
    return np.random.default_rng([seed, *key])


def tilt_angles(count: int, largest: float) -> NDArray[np.float64]:
    """``count`` equally spaced angles from -largest to largest, degrees; one tilt is 0."""
    return np.linspace(-largest, largest, count) if count > 1 else np.zeros(1)


def dose_symmetric_order(angles: NDArray) -> NDArray[np.int64]:
    """0-based acquisition order of each angle: outwards, 0, +, -, -, +, +, - (Hagen 2017, J. Struct. Biol. 197:191)."""
    rank = np.round(np.abs(angles), 6)
    levels = np.unique(rank)
    sequence: List[int] = []
    positive_first = True
    for level in levels:
        members = np.flatnonzero(rank == level)
        members = members[np.argsort(angles[members])]
        if len(members) > 1:
            members = members[::-1] if positive_first else members
            positive_first = not positive_first
        sequence.extend(int(i) for i in members)
    order = np.empty(len(angles), np.int64)
    order[sequence] = np.arange(len(angles))
    return order


def attenuation(rotation: NDArray, thickness: float, mean_free_path: float) -> NDArray[np.float64]:
    """Part of the electrons that stay elastic through a slab, by T_e ``(..., 3, 3)``: exp(-thickness / (path cos tilt))."""
    return np.exp(-thickness / (mean_free_path * np.abs(np.asarray(rotation)[..., 2, 2])))


def random_rotations(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Rotations ``(count, 3, 3)`` uniform over all orientations, from normal quaternions (Shoemake 1992)."""
    q = rng.normal(size=(count, 4))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    half = np.arctan2(np.linalg.norm(q[:, 1:], axis=1), q[:, 0])
    axis = q[:, 1:] / np.maximum(np.linalg.norm(q[:, 1:], axis=1, keepdims=True), 1e-300)
    return rotation_vector_to_matrix(axis * (2 * half)[:, None])


def place(
    rng: np.random.Generator, count: int, half_field: float, half_depth: float, rotation: NDArray, shift: NDArray,
    min_distance: float, projected_distance: float,
) -> NDArray[np.float64]:
    """Up to ``count`` particle positions (A) in a slab, one by one at random; fewer where no more fit in ``TRIES`` tries each.

    Every particle is seen within ``half_field`` (A) of the centre of all images (``rotation`` (n, 3, 3), ``shift`` (n, 2)).
    It is ``min_distance`` from all others, and ``projected_distance`` in every tilt image.
    """
    upright = rotation[np.argmax(rotation[:, 2, 2])]
    positions = np.empty((count, 3))
    seen = np.empty((count, len(rotation), 2))
    placed = 0
    tries = 0
    while placed < count and tries < TRIES:
        block = rng.uniform(-1.0, 1.0, (256, 3)) * (half_field, half_field, half_depth)
        block[:, :2] = block[:, :2] @ rotation_z(matrix_to_tilt(upright)[2])[:2, :2]  # the image's frame to the specimen's
        u, _ = project(rotation, shift, block[:, None, :])
        for candidate in np.flatnonzero((np.abs(u) <= half_field).all(axis=(1, 2))):
            tries += 1
            apart = np.sum((positions[:placed] - block[candidate]) ** 2, axis=1) >= min_distance**2
            if not apart.all():
                continue
            if projected_distance > 0:
                if (np.sum((seen[:placed] - u[candidate]) ** 2, axis=2) < projected_distance**2).any():
                    continue
            positions[placed], seen[placed] = block[candidate], u[candidate]
            placed += 1
            tries = 0
            if placed == count:
                break
        else:
            tries += 1  # an image too small for any particle must end, too
    return positions[:placed]


def acquire(settings: SampleSettings, radius: float, images: Callable[[str], str]) -> Dataset:
    """The true data set: geometry, defocus, doses, particles and half-sets. ``images`` gives a series' stack path.

    ``radius`` (A) is the particle's. Raises InputError where the particles do not fit in the image or the ice.
    """
    angles = tilt_angles(settings.tilts, settings.tilt_range)
    order = dose_symmetric_order(angles)
    count = len(angles)
    rotation = tilt_to_matrix(np.full(count, settings.xtilt), angles, np.full(count, settings.axis))
    shifts = [generator(settings.seed, s, 1).normal(0.0, settings.shift, (count, 2)) if settings.shift else np.zeros((count, 2))
              for s in range(settings.series)]
    size, positions = _fill(settings, radius, rotation, shifts)
    names = [f"TS_{s + 1:02d}" for s in range(settings.series)]
    series = Table(SERIES, {
        "name": names,
        "images": [images(name) for name in names],
        "image_size": np.full((settings.series, 2), size),
        "specimen_size": np.tile([size, size, _even(settings.thickness / settings.pixel)], (settings.series, 1)),
        "pixel": np.full(settings.series, settings.pixel),
        "voltage": np.full(settings.series, settings.voltage),
        "cs": np.full(settings.series, settings.cs),
        "amplitude_contrast": np.full(settings.series, settings.amplitude_contrast),
        "hand": np.full(settings.series, settings.hand, float),
    })
    exposures = Table(EXPOSURES, {
        "series": np.repeat(np.arange(settings.series), count),
        "slice": np.tile(np.arange(count), settings.series),
        "order": np.tile(order, settings.series),
        "rotation": np.tile(rotation, (settings.series, 1, 1)),
        "shift": np.concatenate(shifts),
        "dose_before": np.tile(order * settings.dose, settings.series),
        "dose": np.full(settings.series * count, settings.dose),
        "defocus": np.concatenate([_defocus(settings, generator(settings.seed, s, 2), count) for s in range(settings.series)]),
        "scale": np.tile(np.sqrt(attenuation(rotation, settings.thickness, settings.mean_free_path)), settings.series),
    })
    for s in range(settings.series):
        widened = 0.01 * settings.magnification * generator(settings.seed, s, 6).normal(0.0, 1.0, count)
        exposures["magnification"][s * count : (s + 1) * count] = _magnified(1.0 + widened)
    total = settings.series * settings.particles
    particles = Table(PARTICLES, {
        "name": [f"{name}/{i + 1}" for name in names for i in range(settings.particles)],
        "series": np.repeat(np.arange(settings.series), settings.particles),
        "position": np.concatenate(positions),
        "rotation": np.concatenate([random_rotations(generator(settings.seed, s, 4), settings.particles)
                                    for s in range(settings.series)]),
    })
    dataset = Dataset(series, exposures, particles, np.ones((total, count), bool), settings.box, settings.pixel)
    dataset.assign_halves()
    return dataset


def _fill(
    settings: SampleSettings, radius: float, rotation: NDArray, shifts: List[NDArray]
) -> Tuple[int, List[NDArray[np.float64]]]:
    """(image size in pixels, the particles' positions of each series)."""
    half_depth = max(0.5 * settings.thickness - radius, 0.0)
    distance = settings.min_distance or 2.1 * radius
    margin = 0.5 * settings.box * settings.pixel
    projected = margin + radius if settings.no_overlap else 0.0
    # Room for each particle, the boxes at the rim, and the sideways travel of what is high or low in the ice
    need = 2.5 * distance * np.sqrt(settings.particles) + 2 * margin + 0.5 * half_depth + 4 * settings.shift
    size = settings.image_size or _even(need / settings.pixel)
    while True:
        half_field = 0.5 * size * settings.pixel - margin
        found: List[NDArray[np.float64]] = []
        for index, shift in enumerate(shifts):
            rng = generator(settings.seed, index, 3)
            found.append(
                place(rng, settings.particles, half_field, half_depth, rotation, shift, distance, projected)
                if half_field > 0 else np.empty((0, 3))
            )
            if len(found[-1]) < settings.particles:
                break
        fewest = len(found[-1])
        if fewest == settings.particles:
            return size, found
        if settings.image_size:
            raise InputError(
                f"images of {size} pixels: room for {fewest} of {settings.particles} particles; take a larger --image-size, "
                "fewer --particles or a smaller --min-distance"
            )
        size = _even(GROWTH * size)


def _even(value: float) -> int:
    """The next even size whose half has a fast transform."""
    return 2 * scipy.fft.next_fast_len(int(np.ceil(value / 2)), real=True)


def _defocus(settings: SampleSettings, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(df_u, df_v, angle) of each tilt: the series' own, and what focusing and drift add."""
    middle = rng.uniform(settings.defocus_low, settings.defocus_high) + rng.normal(0.0, 300.0, count)
    half = 0.5 * settings.astigmatism * rng.uniform(0.3, 0.9) * (1.0 + rng.uniform(-0.1, 0.1, count))
    angle = rng.uniform(0.0, 180.0) + rng.normal(0.0, 2.0, count)
    return np.stack([middle + half, middle - half, np.mod(angle, 180.0)], axis=1)


def add_errors(truth: Dataset, settings: SampleSettings) -> Dataset:
    """A copy of the data set with the errors of the settings; without errors an equal copy."""
    exposures, particles = truth.exposures.copy(), truth.particles.copy()
    rng = [generator(settings.seed, 1000, i) for i in range(7)]  # one stream for each kind of error
    n, p = len(exposures), len(particles)
    if settings.pose_error:
        turn = rotation_vector_to_matrix(np.deg2rad(rng[0].normal(0.0, settings.pose_error, (p, 3))))
        particles["rotation"] = particles["rotation"] @ turn
    if settings.position_error:
        particles["position"] = particles["position"] + rng[1].normal(0.0, settings.position_error, (p, 3))
    if settings.tilt_error or settings.axis_error:
        xtilt, ytilt, zrot = matrix_to_tilt(exposures["rotation"])
        ytilt = ytilt + rng[2].normal(0.0, 1.0, n) * settings.tilt_error
        zrot = zrot + rng[3].normal(0.0, 1.0, n) * settings.axis_error
        exposures["rotation"] = tilt_to_matrix(xtilt, ytilt, zrot)
    if settings.shift_error:
        exposures["shift"] = exposures["shift"] + rng[4].normal(0.0, settings.shift_error, (n, 2))
    if settings.defocus_error:
        defocus = exposures["defocus"].copy()
        defocus[:, :2] += rng[5].normal(0.0, settings.defocus_error, n)[:, None]
        exposures["defocus"] = defocus
    if settings.magnification_error:
        wrong = exposures["magnification"] + 0.01 * settings.magnification_error * rng[6].normal(0.0, 1.0, n)
        exposures["magnification"] = _magnified(wrong)
    return Dataset(truth.series.copy(), exposures, particles, truth.visible.copy(), truth.box, truth.box_pixel)


def _magnified(values: NDArray) -> NDArray[np.float64]:
    """Magnifications within the bounds that a data set has."""
    return np.clip(values, 1.0 - LARGEST_MAGNIFICATION, 1.0 + LARGEST_MAGNIFICATION)
