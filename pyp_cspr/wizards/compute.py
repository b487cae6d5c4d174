"""What the wizards compute, without windows: plain functions of arrays and of the host's objects."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from pwem.objects import Volume
from pyworkflow.protocol import Protocol
from tomo.objects import SetOfSubTomograms

from ..engine.core.filters import soft_sphere
from ..engine.core.symmetry import group_matrices
from ..engine.errors import InputError
from ..engine.model.tables import Dataset
from ..engine.pipeline.filter import apart
from ..engine.reconstruct.postprocess import Comparison, compare_halves
from ..protocols.adapters.from_sets import read_sets
from ..protocols.adapters.from_sets import scores_of as scores_of  # for the wizards
from ..protocols.adapters.volumes import half_maps, read_volume, resample, volume_of

PREVIEW = 64  # voxels across, of maps that are only looked at
ROOMY = 1.5  # box over particle: the CTF spreads detail, and neighbours need room to be told apart
GROUPS = ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C12", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "T", "O",
          "I1", "I2", "I3", "I4")


def score_limits(scores: NDArray[np.float64]) -> Tuple[float, float]:
    """Lowest and highest threshold to choose from: whole numbers around the scores, none below 0, which no form takes."""
    low = max(0.0, float(np.floor(scores.min())))
    return low, max(low, float(np.ceil(scores.max())))


def find_reference(protocol: Any) -> Any:
    """The protocol's reference, or else the volume that came with its particles: of the protocol that made them, of the one
    that made that one's, and so on. Raises InputError where there is none.
    """
    for name in ("inputReference", "inputAverage"):
        given = getattr(protocol, name, None)
        if given is not None and given.get() is not None:
            return given.get()
    found = next((output for maker in _makers(protocol) for _, output in maker.iterOutputAttributes(Volume)), None)
    if found is not None:
        return found
    if hasattr(protocol, "inputReference"):
        raise InputError("choose the reference volume first")
    if hasattr(protocol, "inputAverage"):
        raise InputError("choose the average first")
    if protocol.inputParticles.get() is None:
        raise InputError("choose the sub-tomograms first")
    raise InputError("there is no map to show it on: none of the protocols that these particles come from made one; type the "
                     "value")


def _makers(protocol: Any) -> List[Any]:
    """The protocols that the particles of a protocol come from, the nearest first."""
    found = [protocol]
    for one in found:  # which grows
        for _, pointer in one.iterInputAttributes():
            maker = pointer.getObjValue()
            if isinstance(pointer.get(), SetOfSubTomograms) and isinstance(maker, Protocol) and maker not in found:
                found.append(maker)
    return found[1:]


def read_cube(volume: Any) -> Tuple[NDArray[np.float32], float]:
    """(voxels, pixel) of a volume. Raises InputError where it is no cube."""
    values, pixel = read_volume(volume)
    if values.ndim != 3 or len(set(values.shape)) != 1:
        raise InputError(f"{volume.getFileName()}: {' x '.join(map(str, values.shape))} voxels; it must be a cube")
    return values, pixel


def preview(volume: NDArray[np.float32], pixel: float, most: int = PREVIEW) -> Tuple[NDArray[np.float32], float]:
    """The map on a grid of ``most`` voxels or fewer, of the same extent, and its pixel."""
    box = len(volume)
    if box <= most:
        return volume, pixel
    coarse = pixel * box / most
    return resample(volume, pixel, most, coarse), coarse


def enclosing_diameter(mask: NDArray, pixel: float) -> float:
    """Of the smallest ball about the map's centre that holds the mask (above one half), angstrom; 0 of an empty one."""
    inside = np.argwhere(np.asarray(mask) > 0.5)
    if not len(inside):
        return 0.0
    return float(2.0 * pixel * (np.linalg.norm(inside - len(mask) // 2, axis=1).max() + 0.5))


def ball(box: int, radius: float) -> NDArray[np.float32]:
    """A ball about the centre of a box, whose outline at one half is smooth; ``radius`` in voxels."""
    return soft_sphere(box, radius - 1.0, 2.0)


def good_box(least: float) -> int:
    """The smallest even number of voxels, ``least`` or more, without prime factors above 5: fast Fourier transforms."""
    box = max(4, 2 * int(np.ceil(least / 2.0 - 1e-9)))
    while True:
        rest = box
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return box
        box += 2


def suggest_box(diameter: float, pixel: float) -> int:
    """Voxels of ``pixel`` angstrom for a particle of ``diameter`` angstrom with room around it."""
    return good_box(ROOMY * diameter / pixel)


def symmetrised(volume: NDArray[np.float32], group: str) -> NDArray[np.float32]:
    """The mean of a map over the rotations of a point group, about its centre; outside it is 0."""
    return np.mean(_turned(volume, group), axis=0, dtype=np.float32)


def _turned(volume: NDArray[np.float32], group: str) -> List[NDArray[np.float32]]:
    from scipy.ndimage import affine_transform

    centre = np.full(3, len(volume) // 2, float)
    made = []
    for matrix in group_matrices(group):
        turn = matrix[::-1, ::-1]  # axes of the array are z, y, x
        made.append(affine_transform(volume, turn, centre - turn @ centre, output=np.float32, order=1))
    return made


def symmetry_scores(volume: NDArray[np.float32], pixel: float, groups: Sequence[str] = GROUPS) -> Dict[str, float]:
    """How well a map agrees with itself turned, by point group: the least correlation over the group's rotations.

    Inside the largest ball, where all of them are defined, on a coarse grid. 1 is perfect; C1 is 1 always.
    """
    small, _ = preview(volume, pixel, 32)
    axis = (np.arange(len(small)) - len(small) // 2) ** 2
    ball = axis[:, None, None] + axis[:, None] + axis < (0.9 * len(small) / 2) ** 2
    still = small[ball] - small[ball].mean()
    scores = {}
    for group in groups:
        found = []
        for one in _turned(small, group)[1:]:
            other = one[ball] - one[ball].mean()
            found.append(float(still @ other / np.sqrt((still @ still) * (other @ other) + 1e-30)))
        scores[group] = min(found, default=1.0)
    return scores


def describe_group(group: str) -> str:
    """A point group in words."""
    order = len(group_matrices(group))
    if group == "C1":
        return "no symmetry"
    kinds = {"T": "tetrahedral", "O": "octahedral", "I": "icosahedral"}
    if group[0] in kinds:
        axes = {"I1": ", 2-folds on x, y, z; I2 turned by 90°", "I2": ", 2-folds on x, y, z", "I3": ", 5-fold on z",
                "I4": ", 5-fold on z; I3 turned by 180°"}
        return f"{kinds[group[0]]}, {order} positions{axes.get(group, '')}"
    fold = int(group[1:])
    if group[0] == "C":
        return f"{fold}-fold on z, {order} positions"
    return f"{fold}-fold on z and 2-folds across, {order} positions"


def best_group(scores: Dict[str, float], least: float = 0.9) -> str:
    """The group of most rotations that the map agrees with; C1 where none."""
    good = [group for group, score in scores.items() if score >= least]
    return max(good, key=lambda group: (len(group_matrices(group)), scores[group]), default="C1")


def compare_reference(volume: Any) -> Tuple[Comparison, int, float]:
    """(FSC curves of the reference's half maps, box, pixel). Raises InputError where it has none, or they cannot be read."""
    names = half_maps(volume)
    if len(names) != 2:
        raise InputError(f"{volume.getFileName()}: has no half maps, which tell the resolution; leave the field at 0, and each "
                         "iteration takes the resolution of the half maps before")
    pixel = float(volume.getSamplingRate())
    first, second = (read_cube(volume_of(name, pixel))[0] for name in names)
    return compare_halves(first, second, pixel), len(first), pixel


def agreement_at(comparison: Comparison, box: int, pixel: float, limit: float) -> float:
    """The corrected FSC at ``limit`` angstrom, interpolated between shells as its resolutions are."""
    curve = comparison.curves["corrected"]
    return float(np.interp(box * pixel / limit, np.arange(len(curve)), curve))


def suggest_limit(comparison: Comparison, box: int, pixel: float) -> float:
    """The finest detail to refine with, angstrom: where the corrected FSC falls to one half, so that what is used is signal."""
    limit = comparison.resolution_05
    return float(limit) if np.isfinite(limit) else min(60.0, box * pixel / 3.0)


def read_input(protocol: Any) -> Dataset:
    """The protocol's sets as a data set. Raises InputError where they cannot be read, or one is not chosen yet."""
    sets = [getattr(protocol, name).get() for name in ("inputParticles", "inputTiltSeries", "inputCTFs")]
    if any(one is None for one in sets):
        raise InputError("choose the sub-tomograms, the tilt series and their CTFs first")
    return read_sets(*sets).dataset


def removed_by_distance(dataset: Dataset, distance: float) -> int:
    """How many particles have a better one nearer than ``distance`` angstrom."""
    kept = 0
    for series in range(len(dataset.series)):
        rows = dataset.particles_of(series)
        if len(rows):
            table = dataset.particles
            kept += int(apart(table["position"][rows], table["score"][rows], table["name"][rows], distance).sum())
    return len(dataset.particles) - kept


def tilt_range(dataset: Dataset) -> Tuple[float, float, int]:
    """(lowest, highest tilt angle in degrees, images) of the views that are not excluded; 0, 0, 0 where there is none."""
    from ..engine.core.geometry import matrix_to_tilt

    tilts = np.asarray(matrix_to_tilt(dataset.exposures["rotation"])[1])[dataset.exposures["enabled"]]
    return (float(tilts.min()), float(tilts.max()), len(tilts)) if len(tilts) else (0.0, 0.0, 0)


def share_between(dataset: Dataset, low: float, high: float) -> Tuple[int, float]:
    """(images, share of the dose) of the views, of those not excluded, whose tilt angles are from ``low`` to ``high`` degrees.

    The share is that of the images where no dose is known.
    """
    from ..engine.core.geometry import matrix_to_tilt

    enabled = dataset.exposures["enabled"]
    tilts = np.asarray(matrix_to_tilt(dataset.exposures["rotation"])[1])[enabled]
    kept, dose = (tilts >= low) & (tilts <= high), dataset.exposures["dose"][enabled]
    if not dose.sum() > 0:
        dose = np.ones(len(tilts))
    return int(kept.sum()), float(dose[kept].sum() / max(dose.sum(), 1e-30))
