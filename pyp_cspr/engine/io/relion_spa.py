"""RELION's single-particle stars (3.1, 4 and 5): every row is one image of one particle.

Written, a tilt series becomes as many micrographs as it has tilts, and each projection a particle, with the angles of
M = T_e R_p and its own defocus; rlnGroupName says which of them belong to one particle of the specimen. RELION has no
dose filter in such stars, so rlnCtfBfactor holds the B-factor nearest to it.

Read, a micrograph becomes a series of one exposure with T_e = 1. A particle's defocus against its micrograph's goes into
``defocus_offset``; astigmatism is the micrograph's mean.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..conventions import DARK_PARTICLES
from ..core.ctf import defocus_form
from ..core.ctf_refinement import form_to_defocus
from ..core.geometry import euler_to_matrix, matrix_to_euler, project
from ..core.weighting import dose_amplitude
from ..errors import InputError
from ..model.tables import EXPOSURES, PARTICLES, SERIES, Dataset, Table
from .images import open_images
from .mrc import open_stack, write_stack
from .relion_labels import ANGLES, ORIGINS
from .relion_tomograms import pick_block, resolve
from .relion_writing import file_stems
from .star import StarBlock, read_star, write_star

PathLike = Union[str, "os.PathLike[str]"]
Columns = Dict[str, List[str]]

LEAST_INSIDE = 0.75  # a projection with less of its box inside the image is left out
CROPS_AT_ONCE = 256
ROTATED = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
# Columns that are understood; others are kept as they are.
KNOWN = frozenset(ANGLES + ORIGINS + ROTATED + (
    "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnOpticsGroup", "rlnRandomSubset", "rlnPhaseShift",
    "rlnImageName", "rlnCtfBfactor", "rlnCtfScalefactor", "rlnTomoName", "rlnTomoParticleName", "rlnGroupName",
))


# --- writing ------------------------------------------------------------------------------------------------------------


def write_spa(
    dataset: Dataset, folder: PathLike, stacks: bool = False, box: int = 0, progress: Optional[Callable[[int], None]] = None
) -> str:
    """Write ``particles.star`` with a row for each used projection, and return its path.

    With ``stacks`` the images are cut at the series' own pixel size into ``stacks/SERIES.mrcs``, ``box`` pixels (0: as large
    as the data set says), white particles, mean 0. Projections with less than three quarters of the box inside their image are
    left out. ``progress`` is told how many projections are done. Raises InputError where images are missing, or no box is
    known.
    """
    root = Path(folder).absolute()
    tables: List[Columns] = []
    groups = _OpticsGroups(dataset, box)
    for row, stem in enumerate(file_stems([str(name) for name in dataset.series["name"]])):
        if not len(dataset.particles_of(row)):
            continue
        projections = _Projections(dataset, row, groups.box(row))
        if not len(projections.particle):
            continue
        columns = projections.columns()
        columns["rlnOpticsGroup"] = [str(groups.number(row))] * len(projections.particle)
        if stacks:
            name = f"stacks/{stem}.mrcs"
            write_stack(root / name, projections.crops(progress), projections.pixel)
            columns["rlnImageName"] = [f"{image + 1:06d}@{name}" for image in range(len(projections.particle))]
        tables.append(columns)
    if not tables:
        raise InputError(f"{dataset.source}: no projection lies inside its image; check the data set with `cspr check`")
    together = {name: [value for table in tables for value in table[name]] for name in tables[0]}
    star = root / "particles.star"
    write_star(star, {"optics": groups.block(stacks), "particles": StarBlock(columns=together)})
    return str(star)


class _OpticsGroups:
    """One optics group for all series with the same optics, pixel and box."""

    def __init__(self, dataset: Dataset, box: int) -> None:
        self.dataset, self.asked = dataset, box
        self.keys: List[Tuple[float, ...]] = []

    def box(self, row: int) -> int:
        if self.asked:
            return self.asked
        series, pixel = self.dataset.series, _pixel(self.dataset, row)
        if self.dataset.is_stacks(row):
            return int(series["stack_box"][row])
        if not self.dataset.box:
            raise InputError(f"{self.dataset.source}: does not say how large a particle's box is; give --box PIXELS")
        return 2 * int(round(self.dataset.box * (self.dataset.box_pixel or pixel) / pixel / 2))

    def number(self, row: int) -> int:
        series = self.dataset.series
        optics = tuple(float(series[name][row]) for name in ("voltage", "cs", "amplitude_contrast", "pixel", "premultiplied"))
        key = (*optics, _pixel(self.dataset, row), float(self.box(row)))
        if key not in self.keys:
            self.keys.append(key)
        return self.keys.index(key) + 1

    def block(self, stacks: bool) -> StarBlock:
        columns: Columns = {
            "rlnOpticsGroup": [str(index + 1) for index in range(len(self.keys))],
            "rlnOpticsGroupName": [f"opticsGroup{index + 1}" for index in range(len(self.keys))],
        }
        labels = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnMicrographOriginalPixelSize",
                  "rlnCtfDataAreCtfPremultiplied", "rlnImagePixelSize", "rlnImageSize")
        for index, label in enumerate(labels):
            columns[label] = [f"{key[index]:.12g}" for key in self.keys]
        columns["rlnImageDimensionality"] = ["2"] * len(self.keys)
        if not stacks:
            columns["rlnMicrographPixelSize"] = columns["rlnMicrographOriginalPixelSize"]
        return StarBlock(columns=columns)


def _pixel(dataset: Dataset, row: int) -> float:
    """Pixel size of the images that are cut, angstrom."""
    return float(dataset.series["stack_pixel" if dataset.is_stacks(row) else "pixel"][row])


class _Projections:
    """The projections of a series in the order of its exposures, so that each image is read once."""

    def __init__(self, dataset: Dataset, row: int, box: int) -> None:
        self.dataset, self.row, self.box, self.pixel = dataset, row, box, _pixel(dataset, row)
        used = dataset.used(row)
        place, changes = dataset.project(row)[0], dataset.defocus_changes(row)
        particles, exposures = dataset.particles_of(row), dataset.exposures_of(row)
        column, index = np.nonzero(used.T)
        self.particle, self.exposure = particles[index], exposures[column]
        self.u, self.changes = place[index, column], changes[index, column]
        self.centre, inside = self._place()
        keep = inside >= LEAST_INSIDE
        for name in ("particle", "exposure", "u", "changes", "centre"):
            setattr(self, name, getattr(self, name)[keep])

    def _place(self) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centres of the boxes ``(n, 2)`` in angstrom from the image's centre, and how much of each lies inside ``(n,)``."""
        dataset, size = self.dataset, self.dataset.series["image_size"][self.row]
        if dataset.is_stacks(self.row):
            table, cut = dataset.exposures, dataset.particles["extract_position"][self.particle]
            centre, _ = project(table["extract_rotation"][self.exposure], table["extract_shift"][self.exposure], cut)
            return centre, np.ones(len(centre))
        pixels = np.rint(self.u / self.pixel)
        if not size.all():
            return pixels * self.pixel, np.ones(len(pixels))
        low = np.clip(pixels + size // 2 - self.box // 2, 0, size)
        high = np.clip(pixels + size // 2 - self.box // 2 + self.box, 0, size)
        return pixels * self.pixel, (high - low).prod(axis=1) / float(self.box**2)

    def columns(self) -> Columns:
        """The star's columns by label."""
        dataset, row, p, e = self.dataset, self.row, self.particle, self.exposure
        series, particles, exposures = dataset.series, dataset.particles, dataset.exposures
        rot, tilt, psi = matrix_to_euler(exposures["rotation"][e] @ particles["rotation"][p])
        origin = self.centre - self.u
        moved, defocus = self.changes, exposures["defocus"][e]
        corner = self.centre / float(series["pixel"][row]) + series["image_size"][row] // 2
        names = [str(name) for name in particles["name"][p]]
        files = [str(file) or str(series["images"][row]) for file in exposures["file"][e]]
        numbers: Dict[str, NDArray] = {
            "rlnCoordinateX": corner[:, 0], "rlnCoordinateY": corner[:, 1], "rlnAngleRot": rot, "rlnAngleTilt": tilt,
            "rlnAnglePsi": psi, "rlnOriginXAngst": origin[:, 0], "rlnOriginYAngst": origin[:, 1],
            "rlnDefocusU": defocus[:, 0] + moved, "rlnDefocusV": defocus[:, 1] + moved, "rlnDefocusAngle": defocus[:, 2],
            "rlnPhaseShift": exposures["phase_shift"][e], "rlnCtfScalefactor": exposures["scale"][e],
            "rlnCtfBfactor": self._b_factors(),
        }
        columns: Columns = {
            "rlnMicrographName": [f"{image + 1:06d}@{file or series['name'][row]}" for image, file in
                                  zip(exposures["slice"][e].tolist(), files)],
            "rlnTomoName": [str(series["name"][row])] * len(p),
            "rlnTomoParticleName": names,
            "rlnGroupName": names,
        }
        columns.update({label: [f"{value:.12g}" for value in values.tolist()] for label, values in numbers.items()})
        if particles["half"].any():
            columns["rlnRandomSubset"] = [str(half) for half in particles["half"][p].tolist()]
        return columns

    def _b_factors(self) -> NDArray[np.float64]:
        """B of exp(-B k^2 / 4) nearest to the dose filter of each projection's exposure, up to half a cycle for each pixel.

        Least squares of the logarithms, weighted by the filter's own power.
        """
        table, voltage = self.dataset.exposures, float(self.dataset.series["voltage"][self.row])
        k = np.linspace(0.0, 0.5 / self.pixel, 101)[1:]
        rows, inverse = np.unique(self.exposure, return_inverse=True)
        found = np.empty(len(rows))
        for index, row in enumerate(rows.tolist()):
            amplitude = dose_amplitude(k, table["dose_before"][row], table["dose"][row], voltage)
            weight = amplitude**2 * k**2
            found[index] = -4.0 * (weight * np.log(amplitude)).sum() / (weight * k**2).sum()
        return found[inverse]

    def crops(self, progress: Optional[Callable[[int], None]]) -> Iterator[NDArray[np.float32]]:
        """The images ``(box, box)``, one after the other. Raises InputError."""
        images = open_images(self.dataset, self.row)
        edges = np.flatnonzero(np.diff(self.exposure)) + 1
        for part in np.split(np.arange(len(self.exposure)), edges):
            for start in range(0, len(part), CROPS_AT_ONCE):
                rows = part[start : start + CROPS_AT_ONCE]
                crops, centre, _ = images.crops(int(self.exposure[rows[0]]), self.particle[rows], self.u[rows], self.box)
                if np.abs(centre - self.centre[rows]).max(initial=0.0) > 1e-6:
                    raise ValueError("the star and the images disagree about where a crop lies")
                yield from crops
                if progress is not None:
                    progress(len(rows))


# --- reading ------------------------------------------------------------------------------------------------------------


def is_spa(blocks: Dict[str, StarBlock]) -> bool:
    """Whether a star lists particles of micrographs."""
    return any(block.has("rlnMicrographName", "rlnCoordinateX", *ANGLES) and "rlnCoordinateZ" not in block
               for block in blocks.values())


def read_spa(path: PathLike, image_size: Optional[Tuple[int, int]] = None) -> Dataset:
    """The data set of a particle star of RELION 3.1 or later; its particles are cut from the micrographs again.

    ``image_size`` (x, y) in pixels is for micrographs that are not there. Raises InputError.
    """
    where = os.fspath(path)
    blocks = read_star(path)
    block = pick_block(blocks, "particles", "rlnMicrographName")
    if "optics" not in blocks:
        raise InputError(f"{where}: no data_optics block; convert the star with relion_convert_star (RELION 3.1)")
    if len(block) == 0:
        raise InputError(f"{where}: the particle list is empty; nothing to do")
    optics = blocks["optics"]
    numbers = optics.integers("rlnOpticsGroup").tolist() if "rlnOpticsGroup" in optics else [1]
    used = block.integers("rlnOpticsGroup", numbers[0]).tolist()
    unknown = next((row for row, number in enumerate(used) if number not in numbers), None)
    if unknown is not None:
        raise InputError(f"{where}: particle {unknown + 1} is of optics group {used[unknown]}, which data_optics does not list")
    group = np.array([numbers.index(number) for number in used])
    texts = block.texts("rlnMicrographName")
    micrographs = list(dict.fromkeys(texts))
    rows = {text: row for row, text in enumerate(micrographs)}
    owner = np.array([rows[text] for text in texts])
    first = np.unique(owner, return_index=True)[1]  # micrographs are numbered as they come
    series, slices = _series(where, micrographs, optics, group[first], image_size)
    particles, defocus = _particles(block, where, series, owner)
    exposures = Table(EXPOSURES, {
        "series": np.arange(len(series)), "slice": slices, "rotation": np.tile(np.eye(3), (len(series), 1, 1)),
        "defocus": defocus, "phase_shift": _means(block.floats("rlnPhaseShift", 0.0), owner, len(series)),
    })
    extra = {name: list(values) for name, values in block.columns.items() if name not in KNOWN}
    boxes = {(int(a), float(b)) for a, b in zip(optics.integers("rlnImageSize", 0), optics.floats("rlnImagePixelSize", 0.0))}
    box, pixel = boxes.pop() if len(boxes) == 1 else (0, 0.0)
    visible = np.ones((len(particles), 1), bool)
    dataset = Dataset(series, exposures, particles, visible, box, pixel, extra, os.path.abspath(where))
    dataset.validate()
    return dataset


def _series(
    where: str, micrographs: Sequence[str], optics: StarBlock, group: NDArray, given: Optional[Tuple[int, int]]
) -> Tuple[Table, NDArray[np.int64]]:
    """One series for each micrograph, and which image of its file that is."""
    label = next((name for name in ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize") if name in optics), None)
    if label is None:
        raise InputError(f"{where}: data_optics has no rlnMicrographOriginalPixelSize; add the micrographs' pixel size")
    files, slices, sizes = [], [], []
    for text in micrographs:
        number, at, file = text.partition("@")
        if at and (not number.isdigit() or int(number) < 1):
            raise InputError(f"{where}: rlnMicrographName {text!r}: want a file or NUMBER@STACK, counted from 1")
        slices.append(int(number) - 1 if at else 0)
        files.append(resolve(file if at else text, where))
        if os.path.exists(files[-1]):
            stack = open_stack(files[-1])
            stack.image(slices[-1])
            sizes.append((stack.nx, stack.ny))
        elif given is not None:
            sizes.append(given)
        else:
            raise InputError(f"{where}: the micrograph {files[-1]} does not exist; mend the path, or give --image-size X Y")
    stems = file_stems([f"{Path(file).stem}_{image + 1:03d}" if "@" in text else Path(file).stem
                        for text, file, image in zip(micrographs, files, slices)])
    size = np.array(sizes)
    columns: Dict[str, Any] = {
        "name": stems, "images": files, "image_size": size, "specimen_size": np.column_stack([size, np.ones(len(size), int)]),
        "pixel": optics.floats(label)[group], "voltage": optics.floats("rlnVoltage")[group],
        "cs": optics.floats("rlnSphericalAberration")[group],
        "amplitude_contrast": optics.floats("rlnAmplitudeContrast")[group], "contrast": np.full(len(size), DARK_PARTICLES),
    }
    return Table(SERIES, columns), np.array(slices)


def _particles(block: StarBlock, where: str, series: Table, owner: NDArray) -> Tuple[Table, NDArray[np.float64]]:
    """The particles, and the mean defocus (df_u, df_v, angle) of each micrograph."""
    pixel, size = series["pixel"][owner], series["image_size"][owner]
    corner = np.stack([block.floats("rlnCoordinateX"), block.floats("rlnCoordinateY")], axis=-1)
    origin = np.stack([block.floats(label, 0.0) for label in ORIGINS[:2]], axis=-1)
    position = np.zeros((len(block), 3))
    position[:, :2] = (corner - size // 2) * pixel[:, None] - origin
    form = defocus_form(block.floats("rlnDefocusU"), block.floats("rlnDefocusV"), block.floats("rlnDefocusAngle", 0.0))
    mean = np.stack([_means(values, owner, len(series)) for values in form.T], axis=-1)
    defocus = form_to_defocus(mean)
    own = 0.5 * (block.floats("rlnDefocusU") + block.floats("rlnDefocusV"))
    half = block.integers("rlnRandomSubset", 0)
    if not np.isin(half, (0, 1, 2)).all():
        raise InputError(f"{where}: rlnRandomSubset is {half[~np.isin(half, (0, 1, 2))][0]}; want 1 or 2")
    counts: Dict[int, int] = {}
    names = []
    for row in owner.tolist():
        counts[row] = counts.get(row, 0) + 1
        names.append(f"{series['name'][row]}/{counts[row]}")
    table = Table(PARTICLES, {
        "name": names, "series": owner, "position": position, "half": half,
        "rotation": euler_to_matrix(*[block.floats(label) for label in ANGLES]),
        "defocus_offset": own - 0.5 * (defocus[:, 0] + defocus[:, 1])[owner],
    })
    return table, defocus


def _means(values: NDArray, owner: NDArray, count: int) -> NDArray[np.float64]:
    """Mean of each owner's values."""
    return np.asarray(np.bincount(owner, values, minlength=count) / np.bincount(owner, minlength=count))
