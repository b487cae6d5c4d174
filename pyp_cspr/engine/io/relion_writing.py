"""Writing a data set as a RELION project, form 5 or 4. See ``relion.py``."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..core.geometry import matrix_to_euler, matrix_to_tilt
from ..errors import InputError
from ..model.stretches import columns_to_stretches
from ..model.tables import Dataset
from .relion_labels import ANGLES, CENTRED, CORNER, EXTRACTED, ORIGINS, PROJECTION, SIZES
from .relion_tomograms import half_pixel
from .star import StarBlock, write_star

PathLike = Union[str, "os.PathLike[str]"]


# What RELION 4 does not know: it has only the matrices, which hold a magnification and what is linear in a deformation as well.
ONLY_IN_5 = ("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst", "rlnTomoTiltMovieIndex",
             "rlnTomoNominalStageTiltAngle", "rlnTomoImportFractionalDose", "rlnMicrographName", "csprMagnification",
             "csprDeformation")
NOT_LINEAR = 0.1  # angstrom: what of a deformation is less is rounding
STACK = ":mrcs"  # RELION takes a file as a stack, and not as a volume, only by its ending or by this


def write_dataset(dataset: Dataset, folder: PathLike, form: int = 5) -> str:
    """Write ``optimisation_set.star``, ``particles.star``, ``tomograms.star`` and ``tilt_series/NAME.star`` in RELION's 5
    form, and return the path of the first. ``read_dataset`` of the folder gives the same data set.

    Image paths inside ``folder`` are written relative to it, others absolute. The optimisation set comes last, so a folder
    that has it is whole. Raises InputError where the folder cannot be written.

    With ``form`` 4 the tilts are blocks of ``tomograms.star``, as RELION 4 has them. Its matrices hold magnifications and
    what is linear in deformations. Other deformations and extracted 2D stacks it does not know: InputError says so. Nor does it
    know the doses of single tilts, so their mean is written.
    """
    if form not in (4, 5):
        raise ValueError(f"form {form}, want 4 or 5")
    root = os.path.abspath(os.fspath(folder))
    stems = file_stems([str(name) for name in dataset.series["name"]])
    if form == 4:
        write_star(os.path.join(root, "tomograms.star"), _tomograms_of_4(dataset, root))
    else:
        for row, stem in enumerate(stems):
            block = _tilt_block(dataset, row, root)
            write_star(os.path.join(root, "tilt_series", f"{stem}.star"), {str(dataset.series["name"][row]): block})
        write_star(os.path.join(root, "tomograms.star"), {"global": _global_block(dataset, stems)})
    groups, optics = _optics_block(dataset)
    particles = _particle_block(dataset, groups, root)
    if form == 4:
        for label in CENTRED:
            del particles.columns[label]
    stacks = any(dataset.is_stacks(row) for row in range(len(dataset.series)))
    write_star(
        os.path.join(root, "particles.star"),
        {
            "general": StarBlock(columns={"rlnTomoSubTomosAre2DStacks": [str(int(stacks))]}, loop=False),
            "optics": optics,
            "particles": particles,
        },
    )
    star = os.path.join(root, "optimisation_set.star")
    files = {"rlnTomoParticlesFile": ["particles.star"], "rlnTomoTomogramsFile": ["tomograms.star"]}
    write_star(star, {"": StarBlock(columns=files, loop=False)})
    return star


def file_stems(names: Sequence[str]) -> List[str]:
    """File names for series: the names themselves, made safe and unique."""
    stems: Dict[str, None] = {}
    for name in names:
        stem = "".join(c if c.isalnum() or c in "._-+" else "_" for c in name).lstrip(".") or "series"
        while stem in stems:
            stem += "_"
        stems[stem] = None
    return list(stems)


def _number(value: Any) -> str:
    return f"{float(value):.12g}"


def _numbers(values: Any) -> List[str]:
    return [f"{value:.12g}" for value in np.asarray(values, dtype=np.float64).tolist()]


def _whole(values: Any) -> List[str]:
    return [str(int(value)) for value in np.asarray(values).tolist()]


def _relative(path: str, root: str) -> str:
    inside = os.path.relpath(path, root) if path else ""
    return path if inside.startswith(os.pardir) else inside


def _global_block(dataset: Dataset, stems: Sequence[str]) -> StarBlock:
    series = dataset.series
    columns = {
        "rlnTomoName": [str(name) for name in series["name"]],
        "rlnTomoTiltSeriesStarFile": [f"tilt_series/{stem}.star" for stem in stems],
        "rlnTomoFrameCount": [str(len(dataset.exposures_of(row))) for row in range(len(series))],
        "rlnVoltage": _numbers(series["voltage"]),
        "rlnSphericalAberration": _numbers(series["cs"]),
        "rlnAmplitudeContrast": _numbers(series["amplitude_contrast"]),
        "rlnMicrographOriginalPixelSize": _numbers(series["pixel"]),
        "rlnTomoHand": _numbers(series["hand"]),
        "rlnTomoTiltSeriesPixelSize": _numbers(series["pixel"]),
    }
    for axis, label in enumerate(SIZES):
        columns[label] = _whole(series["specimen_size"][:, axis])
    columns["csprImageSizeX"] = _whole(series["image_size"][:, 0])
    columns["csprImageSizeY"] = _whole(series["image_size"][:, 1])
    columns["csprContrast"] = _numbers(series["contrast"])
    return StarBlock(columns=columns)


def _tomograms_of_4(dataset: Dataset, root: str) -> Dict[str, StarBlock]:
    """The blocks of RELION 4's tomograms star: the table of series, and one of tilts for each. Raises InputError."""
    series, exposures = dataset.series, dataset.exposures
    table = _global_block(dataset, [""] * len(series))
    del table.columns["rlnTomoTiltSeriesStarFile"]
    blocks = {"global": table}
    stacks, doses = [], []
    stretches, lost = columns_to_stretches(dataset)
    if lost > NOT_LINEAR:
        raise InputError(f"{dataset.source}: RELION 4 knows no deformations of tilt images but linear ones, and these bend "
                         f"by up to {lost:.2g} A; write RELION 5's form")
    for row, name in enumerate(str(name) for name in series["name"]):
        rows = dataset.exposures_of(row)
        if not series["specimen_size"][row].all():
            raise InputError(f"{dataset.source}: series {name}: RELION 4 needs the tomogram's size; write RELION 5's form")
        if dataset.is_stacks(row):
            raise InputError(f"{dataset.source}: series {name}: RELION 4 knows no 2D stacks; write RELION 5's form")
        if (exposures["file"][rows] != "").any() or (exposures["slice"][rows] != np.arange(len(rows))).any():
            raise InputError(f"{dataset.source}: series {name}: RELION 4 wants one stack with the tilts in the star's order; "
                             "write RELION 5's form, or make such a stack")
        block = _tilt_block(dataset, row, root)
        for label in ONLY_IN_5:
            block.columns.pop(label, None)
        linear = exposures["rotation"][rows]
        linear[:, :2] = stretches[rows] @ linear[:, :2]
        block.columns.update(_matrices(dataset, row, linear))
        blocks[name] = block
        stacks.append(_relative(str(series["images"][row]), root) or "none")
        doses.append(float(exposures["dose"][rows].mean()))
    table.columns["rlnTomoTiltSeriesName"] = stacks
    table.columns["rlnTomoImportFractionalDose"] = _numbers(doses)
    return blocks


def _tilt_block(dataset: Dataset, row: int, root: str) -> StarBlock:
    exposures = dataset.exposures.take(dataset.exposures_of(row))
    pixel, images = float(dataset.series["pixel"][row]), str(dataset.series["images"][row])
    specimen, size = dataset.series["specimen_size"][row], dataset.series["image_size"][row]
    rotation, shift = exposures["rotation"], exposures["shift"]
    xtilt, ytilt, zrot = matrix_to_tilt(rotation)
    columns: Dict[str, List[str]] = {}
    files = [str(file) or images for file in exposures["file"]]
    if all(files):
        stacks = {file for image, file in zip(exposures["slice"].tolist(), files) if image > 0}
        columns["rlnMicrographName"] = [
            f"{image + 1:06d}@{_relative(file, root)}{STACK if file in stacks and not file.endswith('.mrcs') else ''}"
            for image, file in zip(exposures["slice"].tolist(), files)]
    else:
        images = ""
    columns["rlnTomoTiltMovieIndex"] = _whole(exposures["order"] + 1)
    columns["rlnTomoNominalStageTiltAngle"] = _numbers(ytilt)
    columns["rlnMicrographPreExposure"] = _numbers(exposures["dose_before"])
    columns["rlnTomoImportFractionalDose"] = _numbers(exposures["dose"])
    for index, label in enumerate(("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")):
        columns[label] = _numbers(exposures["defocus"][:, index])
    columns["rlnPhaseShift"] = _numbers(exposures["phase_shift"])
    columns["rlnCtfScalefactor"] = _numbers(exposures["scale"])
    relion_shift = shift - half_pixel(size) * pixel
    for label, values in zip(
        ("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst"),
        (xtilt, ytilt, zrot, relion_shift[:, 0], relion_shift[:, 1]),
    ):
        columns[label] = _numbers(values)
    if specimen.all():
        columns.update(_matrices(dataset, row, rotation))
    if dataset.series["deformation_grid"][row] >= 2:
        columns["csprDeformation"] = ["[" + ",".join(_numbers(v.ravel())) + "]" for v in dataset.deformations(row)]
    if dataset.series["defocus_grid"][row] >= 2:
        columns["csprDefocusField"] = ["[" + ",".join(_numbers(v)) + "]" for v in dataset.defocus_fields(row)]
    if (exposures["magnification"] != 1).any():
        columns["csprMagnification"] = _numbers(exposures["magnification"])
    if not exposures["enabled"].all():
        columns["csprEnabled"] = _whole(exposures["enabled"])
    moved = (exposures["extract_rotation"] != rotation).any() or (exposures["extract_shift"] != shift).any()
    if dataset.is_stacks(row) and moved:
        angles = matrix_to_tilt(exposures["extract_rotation"])
        for label, values in zip(EXTRACTED, tuple(angles) + tuple(exposures["extract_shift"].T)):
            columns[label] = _numbers(values)
    return StarBlock(columns=columns)


def _matrices(dataset: Dataset, row: int, linear: NDArray[np.float64]) -> Dict[str, List[str]]:
    """The columns of the matrices that take corner coordinates of a series' tomogram to pixels of its images; ``linear``
    (n, 3, 3) does so about their centres."""
    shift = dataset.exposures["shift"][dataset.exposures_of(row)] / dataset.series["pixel"][row]
    last = -linear @ (dataset.series["specimen_size"][row] / 2.0)
    last[:, :2] += dataset.series["image_size"][row] // 2 + shift
    columns = {}
    for axis, label in enumerate(PROJECTION):
        rows = np.concatenate([linear[:, axis], last[:, axis : axis + 1]], axis=1)
        columns[label] = ["[" + ",".join(_numbers(values)) + "]" for values in rows]
    columns["rlnTomoProjW"] = ["[0,0,0,1]"] * len(linear)
    return columns


def _optics_block(dataset: Dataset) -> Tuple[NDArray[np.int64], StarBlock]:
    """(optics group of each series, the block): series with the same optics and box share a group."""
    series = dataset.series
    keys: List[Tuple[Any, ...]] = []
    groups = np.zeros(len(series), np.int64)
    for row in range(len(series)):
        stack = dataset.is_stacks(row)
        box = int(series["stack_box"][row]) if stack else dataset.box
        box_pixel = float(series["stack_pixel"][row]) if stack else dataset.box_pixel
        optics = tuple(float(series[name][row]) for name in ("voltage", "cs", "amplitude_contrast", "pixel"))
        key = optics + (box, box_pixel, bool(series["premultiplied"][row]), stack)
        if key not in keys:
            keys.append(key)
        groups[row] = keys.index(key) + 1
    columns: Dict[str, List[str]] = {
        "rlnOpticsGroup": [str(index + 1) for index in range(len(keys))],
        "rlnOpticsGroupName": [f"opticsGroup{index + 1}" for index in range(len(keys))],
    }
    labels = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnTomoTiltSeriesPixelSize")
    for index, label in enumerate(labels):
        columns[label] = [_number(key[index]) for key in keys]
    if all(key[4] > 0 and key[5] > 0 for key in keys):
        columns["rlnImageSize"] = [str(key[4]) for key in keys]
        columns["rlnImagePixelSize"] = [_number(key[5]) for key in keys]
        columns["rlnTomoSubtomogramBinning"] = [_number(key[5] / key[3]) for key in keys]
    columns["rlnCtfDataAreCtfPremultiplied"] = [str(int(key[6])) for key in keys]
    if all(key[7] for key in keys):
        columns["rlnImageDimensionality"] = ["2"] * len(keys)
    return groups, StarBlock(columns=columns)


def _particle_block(dataset: Dataset, groups: NDArray[np.int64], root: str) -> StarBlock:
    particles, series = dataset.particles, dataset.series
    owner = particles["series"]
    stacks = (series["stack_box"] > 0)[owner]
    coordinate = np.where(stacks[:, None], particles["extract_position"], particles["position"])
    origin = coordinate - particles["position"]
    rot, tilt, psi = matrix_to_euler(particles["rotation"])
    columns: Dict[str, List[str]] = {
        "rlnTomoName": [str(name) for name in series["name"][owner]],
        "rlnTomoParticleName": [str(name) for name in particles["name"]],
        "rlnOpticsGroup": _whole(groups[owner]),
    }
    for axis, label in enumerate(CENTRED):
        columns[label] = _numbers(coordinate[:, axis])
    if series["specimen_size"].all():
        corner = coordinate / series["pixel"][owner][:, None] + series["specimen_size"][owner] / 2.0
        for axis, label in enumerate(CORNER):
            columns[label] = _numbers(corner[:, axis])
    for label, values in zip(ANGLES + ORIGINS, (rot, tilt, psi) + tuple(origin.T)):
        columns[label] = _numbers(values)
    if particles["half"].any():
        columns["rlnRandomSubset"] = _whole(particles["half"])
    if stacks.any():
        columns["rlnImageName"] = [_relative(str(name), root) for name in particles["stack"]]
    columns["rlnTomoVisibleFrames"] = _visible_texts(dataset)
    if np.isfinite(particles["score"]).any():
        columns["csprScore"] = _numbers(particles["score"])
    if particles["defocus_offset"].any():
        columns["csprDefocusOffset"] = _numbers(particles["defocus_offset"])
    if (particles["weight"] != 1).any():
        columns["csprWeight"] = _numbers(particles["weight"])
    columns.update({name: values for name, values in dataset.extra.items() if name not in columns})
    return StarBlock(columns=columns)


def _visible_texts(dataset: Dataset) -> List[str]:
    lengths = np.bincount(dataset.exposures["series"], minlength=len(dataset.series))[dataset.particles["series"]]
    known: Dict[bytes, str] = {}
    texts = []
    for flags, length in zip(dataset.visible, lengths.tolist()):
        key = flags[:length].tobytes()
        if key not in known:
            known[key] = "[" + ",".join("1" if flag else "0" for flag in flags[:length]) + "]"
        texts.append(known[key])
    return texts
