"""The particles star and its optics groups, RELION 4 and 5. See ``relion.py``."""

from __future__ import annotations

import os
from typing import Dict, List, Optional, Sequence

import numpy as np
from numpy.typing import NDArray

from ..conventions import WHITE_PARTICLES
from ..core.geometry import euler_to_matrix
from ..errors import InputError
from ..model.tables import PARTICLES, Dataset, Table
from .images import PIXEL_TOLERANCE, check_stack
from .mrc import open_stack
from .relion_labels import ANGLES, CENTRED, CORNER, ORIGINS, SIZES, SUBTOMOGRAM_ANGLES
from .relion_tomograms import resolve
from .star import StarBlock

# Columns of particles.star that the Dataset holds, so they are not kept as extra ones. The images of particles that are
# read from tilt series again (pseudo-subtomograms) are dropped: poses move, old pixels do not.
KNOWN_PARTICLE_COLUMNS = frozenset(
    ANGLES
    + SUBTOMOGRAM_ANGLES
    + CENTRED
    + CORNER
    + ORIGINS
    + ("rlnTomoName", "rlnTomoParticleName", "rlnOpticsGroup", "rlnImageName", "rlnCtfImage", "rlnTomoVisibleFrames")
    + ("rlnRandomSubset", "csprScore", "csprWeight", "csprDefocusOffset")
)


def has_stacks(blocks: Dict[str, StarBlock], particles: StarBlock, optics: Optional[StarBlock]) -> bool:
    """Whether particles bring 2D stacks: RELION says it in data_general or by the dimensionality of the optics group."""
    if "rlnImageName" not in particles:
        return False
    general = blocks.get("general")
    if general is not None and "rlnTomoSubTomosAre2DStacks" in general:
        return general.integers("rlnTomoSubTomosAre2DStacks")[:1].tolist() == [1]
    return optics is not None and "rlnImageDimensionality" in optics and set(optics.texts("rlnImageDimensionality")) == {"2"}


def read_particles(block: StarBlock, where: str, series: Table, exposures: Table, stacks: bool) -> Dataset:
    """The data set of a particles block whose series are known; with ``stacks`` its images are extracted stacks.

    ``where`` names its star. Raises InputError.
    """
    count = len(block)
    rows = {name: row for row, name in enumerate(series["name"].tolist())}
    names = block.texts("rlnTomoName")
    unknown = next((name for name in names if name not in rows), None)
    if unknown is not None:
        row = names.index(unknown)
        raise InputError(f"{where}: particle {row + 1} is of series {unknown!r}, unknown to the tomograms star; mend one")
    owner = np.array([rows[name] for name in names])
    if not block.has(*ANGLES) and not block.has(*SUBTOMOGRAM_ANGLES):
        missing = next(label for label in ANGLES if label not in block)
        raise InputError(f"{where}: data_{block.name} has no column _{missing}; add the particles' angles")
    outer, inner = _euler(block, SUBTOMOGRAM_ANGLES), _euler(block, ANGLES)
    coordinate = _coordinates(block, where, series, owner)
    origin = np.stack([block.floats(label, 0.0) for label in ORIGINS], axis=-1)
    half = block.integers("rlnRandomSubset", 0)
    if count and not np.isin(half, (0, 1, 2)).all():
        raise InputError(f"{where}: rlnRandomSubset is {half[~np.isin(half, (0, 1, 2))][0]}; want 1 or 2")
    columns = {
        "name": block.columns["rlnTomoParticleName"] if "rlnTomoParticleName" in block else _number_names(names),
        "series": owner,
        "position": coordinate - np.einsum("nij,nj->ni", outer, origin),
        "rotation": outer @ inner,
        "half": half,
        "score": _scores(block),
        "weight": block.floats("csprWeight", 1.0),
        "defocus_offset": block.floats("csprDefocusOffset", 0.0),
        "extract_position": coordinate if stacks else np.zeros_like(coordinate),
    }
    if stacks:
        columns["stack"] = _resolve_stacks(block.texts("rlnImageName"), where)
    extra = {name: list(values) for name, values in block.columns.items() if name not in KNOWN_PARTICLE_COLUMNS}
    lengths = np.bincount(exposures["series"], minlength=len(series))
    visible = _visible(block, where, lengths[owner])
    return Dataset(series, exposures, Table(PARTICLES, columns), visible, extra=extra)


def _euler(block: StarBlock, labels: Sequence[str]) -> NDArray[np.float64]:
    return euler_to_matrix(*[block.floats(label, 0.0) for label in labels])


def _coordinates(block: StarBlock, where: str, series: Table, owner: NDArray[np.int64]) -> NDArray[np.float64]:
    """Angstrom from the tomogram's centre. The centred form (RELION 5) wins where both are given, as in RELION."""
    if block.has(*CENTRED):
        return np.stack([block.floats(label) for label in CENTRED], axis=-1)
    corner = np.stack([block.floats(label) for label in CORNER], axis=-1)
    size = series["specimen_size"]
    lacking = np.flatnonzero(~size.all(axis=1))
    if np.isin(owner, lacking).any():
        name = series["name"][lacking[0]]
        raise InputError(f"{where}: rlnCoordinateX, Y, Z of series {name} need the tomogram's size; add {', '.join(SIZES)}")
    return (corner - size[owner] / 2.0) * series["pixel"][owner][:, None]


def _number_names(series: Sequence[str]) -> List[str]:
    """RELION's own names for particles without one: series/1, series/2, ..."""
    seen: Dict[str, int] = {}
    names = []
    for name in series:
        seen[name] = seen.get(name, 0) + 1
        names.append(f"{name}/{seen[name]}")
    return names


def _scores(block: StarBlock) -> NDArray[np.float64]:
    """csprScore, NaN where a particle has none ("nan", which ``StarBlock.floats`` would refuse)."""
    if "csprScore" not in block:
        return np.full(len(block), np.nan)
    texts = ["-1" if text == "nan" else text for text in block.columns["csprScore"]]
    scores = StarBlock(block.name, {"csprScore": texts}, True, block.where).floats("csprScore")
    return np.where(scores < 0, np.nan, scores)


def _resolve_stacks(names: Sequence[str], where: str) -> List[str]:
    """Absolute paths; the folder is searched for once, since the stacks of one file share it."""
    root, found = None, []
    for name in names:
        path = None if root is None else os.path.normpath(os.path.join(root, name))
        if path is None or (not os.path.exists(path)):
            path = resolve(name, where)
            if os.path.exists(path) and not os.path.isabs(name):
                root = path[: len(path) - len(os.path.normpath(name))] or None
        found.append(path)
    return found


def _visible(block: StarBlock, where: str, lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    width = int(lengths.max(initial=0))
    visible = np.arange(width) < lengths[:, None]
    if "rlnTomoVisibleFrames" not in block:
        return visible
    known: Dict[str, List[bool]] = {}
    for row, text in enumerate(block.columns["rlnTomoVisibleFrames"]):
        flags = known.get(text)
        if flags is None:
            parts = text.strip("[]").replace(",", " ").split()
            if any(part not in ("0", "1") for part in parts):
                raise InputError(f"{where}: particle {row + 1}: rlnTomoVisibleFrames is {text[:40]!r}, want [1,0,...]")
            flags = known[text] = [part == "1" for part in parts]
        if len(flags) != lengths[row]:
            raise InputError(
                f"{where}: particle {row + 1}: rlnTomoVisibleFrames has {len(flags)} values for {lengths[row]} tilts; mend one"
            )
        visible[row, : len(flags)] = flags
    return visible


def apply_optics(dataset: Dataset, block: StarBlock, optics: StarBlock, stacks: bool) -> None:
    """Check the optics groups against the tomograms star and take the box, its pixel size and "premultiplied" from them."""
    where = optics.where
    if len(optics) == 0:
        raise InputError(f"{where}: data_optics is empty; add the particles' optics group")
    numbers = optics.integers("rlnOpticsGroup").tolist() if "rlnOpticsGroup" in optics else [1]
    used = block.integers("rlnOpticsGroup", numbers[0])
    unknown = np.flatnonzero(~np.isin(used, numbers))
    if len(unknown):
        row = int(unknown[0])
        raise InputError(f"{where}: particle {row + 1} is of optics group {used[row]}, which data_optics does not list")
    group = {number: row for row, number in enumerate(numbers)}
    pairs = sorted({(int(s), group[int(g)]) for s, g in zip(dataset.particles["series"], used)})
    box = optics.integers("rlnImageSize", 0)
    pixel = optics.floats("rlnImagePixelSize", 0.0)
    premultiplied = optics.integers("rlnCtfDataAreCtfPremultiplied", 0) != 0
    for label, column in (("rlnTomoTiltSeriesPixelSize", "pixel"), ("rlnVoltage", "voltage")):
        if label not in optics:
            continue
        values = optics.floats(label)
        for row, index in pairs:
            want = dataset.series[column][row]
            if not abs(values[index] - want) <= PIXEL_TOLERANCE * want:
                name = dataset.series["name"][row]
                raise InputError(
                    f"{where}: optics group {numbers[index]}: _{label} {values[index]:g}, tomograms star {want:g} "
                    f"for series {name}; make them agree"
                )
    boxes = {(int(box[index]), float(pixel[index])) for _, index in pairs}
    if len(boxes) == 1:
        dataset.box, dataset.box_pixel = boxes.pop()
    if dataset.box < 0 or dataset.box_pixel < 0:
        raise InputError(f"{where}: rlnImageSize {dataset.box}, rlnImagePixelSize {dataset.box_pixel:g}; they must be above 0")
    if not stacks:
        return
    for row, index in pairs:
        name = dataset.series["name"][row]
        if box[index] <= 0 or pixel[index] <= 0:
            raise InputError(
                f"{where}: optics group {numbers[index]}: rlnImageSize {box[index]}, rlnImagePixelSize {pixel[index]:g}; "
                "extracted stacks need both above 0"
            )
        if sum(series == row for series, _ in pairs) > 1:
            raise InputError(f"{where}: series {name} has particles of several optics groups; write one group for each series")
        dataset.series["stack_box"][row] = box[index]
        dataset.series["stack_pixel"][row] = pixel[index]
        dataset.series["premultiplied"][row] = premultiplied[index]
        dataset.series["contrast"][row] = WHITE_PARTICLES


def rescale_warp_coordinates(dataset: Dataset, block: StarBlock) -> None:
    """WarpTools counts the corner coordinates of 2D stacks in pixels of the stacks; RELION counts in those of the tilt series.

    Its files are known by their matrices, which have no translation at all (W = 0 in each): a real one is never so.
    """
    if block.has(*CENTRED):
        return
    corner = np.stack([block.floats(label) for label in CORNER], axis=-1)
    series, exposures, particles = dataset.series, dataset.exposures, dataset.particles
    for row in range(len(series)):
        tilts, rows = dataset.exposures_of(row), dataset.particles_of(row)
        pixel, size = series["pixel"][row], series["specimen_size"][row]
        centre = exposures["rotation"][tilts][:, :2] @ (size / 2.0) - series["image_size"][row] // 2
        if not size.all() or np.abs(exposures["shift"][tilts] / pixel - centre).max(initial=0.0) > 0.5:
            continue
        cut = corner[rows] * series["stack_pixel"][row] - size / 2.0 * pixel
        particles["position"][rows] += cut - particles["extract_position"][rows]
        particles["extract_position"][rows] = cut


def set_extraction(dataset: Dataset) -> None:
    """Stacks whose star does not say otherwise were cut with the geometry of the star."""
    for row in range(len(dataset.series)):
        rows = dataset.exposures_of(row)
        if dataset.is_stacks(row) and not dataset.exposures["extract_rotation"][rows].any():
            dataset.exposures["extract_rotation"][rows] = dataset.exposures["rotation"][rows]
            dataset.exposures["extract_shift"][rows] = dataset.exposures["shift"][rows]


def check_stacks(dataset: Dataset, need_images: bool) -> None:
    """Every stack must exist; the first of each series must fit (the others are checked when they are read)."""
    for row in range(len(dataset.series)):
        particles = dataset.particles_of(row)
        names = dataset.particles["stack"][particles]
        if need_images:
            missing = next((name for name in names.tolist() if not os.path.exists(name)), None)
            if missing is not None:
                raise InputError(f"{dataset.source}: the stack {missing} does not exist; mend rlnImageName or move the stack")
        if len(names) and os.path.exists(names[0]):
            check_stack(open_stack(names[0]), dataset, row, int(particles[0]))
