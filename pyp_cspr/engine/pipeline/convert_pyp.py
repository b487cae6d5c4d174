"""A PYP project read for, and made of, other programs' data sets. What lies where: ``pyp_project.py``.

Written are texts, links to the tilt series, and the alignments as iteration 1, from which

    csp -csp_model MAP

starts: the configuration names them, and a map that is written as well. A .parx has no column for half-sets, so its unused
PTLCCX holds them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.geometry import matrix_to_tilt
from ..errors import InputError
from ..io.boxes import AllBoxes, Boxes3d, write_allboxes, write_boxes3d, write_names
from ..io.cistem import CistemTable, ExtendedTable, column_statistics
from ..io.frealign import ParTable
from ..io.imod import write_angles, write_xf
from ..io.mrc import open_stack, read_map, write_map, write_stack
from ..io.parameter_archive import SeriesTable, write_archive
from ..io.pyp_config import parse_arguments, read_configuration, write_configuration
from ..io.pyp_dataset import PypSeries, SeriesTables, series_of, write_pyp_dataset
from ..io.pyp_geometry import plane_defocus
from ..io.relion_writing import file_stems
from ..io.text import write_lines
from ..model.pyp_settings import PypProject as Asked
from ..model.pyp_settings import project_of
from ..model.tables import Dataset
from .pyp_project import CLASS, PypProject
from .pyp_run import open_project

START = 1  # the iteration that a project starts from


def is_pyp(path: str) -> bool:
    """Whether a folder is a PYP project: it has a list of series."""
    folder = Path(path)
    return os.path.isdir(folder) and any(any(folder.glob(pattern)) for pattern in ("*.films", "*.micrographs"))


def project_of_file(path: str) -> str:
    """The project folder that a path is, or that the file at ``path`` lies in. Raises InputError where there is none."""
    start = Path(path).absolute()
    found = next((str(folder) for folder in (start, *start.parents) if is_pyp(str(folder))), None)
    if found is None:
        raise InputError(f"{path}: is no PYP project, nor a file in one: no folder here has a .films or .micrographs list")
    return found


def read_pyp(path: str, alignments: str = "", notes: Optional[List[str]] = None) -> Dataset:
    """The data set of a project at ``alignments``, or else at its last iteration, its start, or what its configuration names.

    What was assumed, or is not used, is added to ``notes``. Raises InputError where there is none of these, or it does not fit.
    """
    project, _ = _open(path)
    dataset = project.read_alignments(find_alignments(path, alignments))
    if notes is not None:
        notes += project.notes
    return dataset


def _open(path: str) -> Tuple[PypProject, Asked]:
    configuration = read_configuration(path)
    asked = project_of(configuration)
    return open_project(path, asked, int(configuration.value("extract_box"))), asked


def find_alignments(path: str, alignments: str = "") -> Path:
    """The alignments that ``read_pyp`` reads. Raises InputError where there are none."""
    project, asked = _open(path)
    done = project.iterations()
    candidates = [Path(path, alignments)] if alignments else []
    candidates += [project.alignments_of(done[-1])] if done else [project.alignments_of(START)]
    candidates += [Path(path, asked.alignments)] if asked.alignments else []
    found = next((candidate for candidate in candidates if os.path.exists(candidate)), None)
    if found is None or (alignments and found != candidates[0]):
        raise InputError(f"{path}: no alignments {candidates[0].name}, so nothing has been refined yet; name a file of "
                         "alignments")
    return found


def find_maps(path: str, alignments: str = "") -> Tuple[str, List[str]]:
    """The map that belongs to the alignments, and its two half maps; empty where there are none.

    Half maps are of the last iteration. Alignments of no iteration have the starting map.
    """
    project, asked = _open(path)
    base = str(project.maps / f"{project.dataset}_{CLASS}_")
    number = re.fullmatch(re.escape(base) + r"(\d+)(\.bz2)?", str(find_alignments(path, alignments).absolute()))
    iteration = int(number.group(1)) if number else START
    maps = [Path(f"{base}{iteration:02d}.mrc")]
    maps += [Path(path, asked.model)] if iteration == START and asked.model else []
    found = next((str(volume.absolute()) for volume in maps if os.path.exists(volume)), "")
    halves = [f"{base}half1.mrc", f"{base}half2.mrc"]
    last = bool(found) and project.iterations()[-1:] == [iteration] and all(Path(half).exists() for half in halves)
    return found, halves if last else []


def write_pyp(
    dataset: Dataset, folder: Path, parx: bool = False, stacks: bool = False, volume: str = ""
) -> Tuple[str, List[str]]:
    """Write a project; (path of its alignments, warnings of what PYP has no word for).

    With ``parx`` the alignments are .parx instead of .cistem. With ``stacks`` tilt series that are not one stack by tilt angle
    are written as such; without it they are refused. ``volume`` becomes the starting map. Raises InputError, also where the
    folder has iterations already, which would count as later ones.
    """
    name = file_stems([folder.name])[0]
    maps = folder / "frealign" / "maps"
    later = sorted(path for path in maps.glob(f"{name}_{CLASS}_[0-9]*") if not path.name.startswith(f"{name}_{CLASS}_01"))
    if later:
        raise InputError(f"{later[0]}: is an iteration of a project that is here already; give another folder")
    stems = file_stems([str(text) for text in dataset.series["name"]])
    dataset = Dataset(dataset.series.copy(), dataset.exposures.copy(), dataset.particles, dataset.visible, dataset.box,
                      dataset.box_pixel, dataset.extra, dataset.source)
    dataset.series["name"] = np.array(stems)
    configuration = write_configuration(parse_arguments(_arguments(dataset, name, volume)))
    for row, stem in enumerate(stems):
        _write_images(dataset, row, folder / "mrc" / f"{stem}.mrc", stacks)
    known = {stem: series_of(dataset, row) for row, stem in enumerate(stems)}
    tables, warnings = write_pyp_dataset(dataset, known)
    for stem in stems:
        _write_texts(folder, known[stem], tables[stem], dataset)
    warnings += _lost_doses(dataset)
    if (dataset.exposures["scale"] != 1).any():
        warnings.append("the exposures' scale factors (rlnCtfScalefactor) are lost; PYP has none")
    excluded = int((~dataset.exposures["enabled"]).sum())
    if excluded:
        warnings.append(f"{excluded} excluded tilt images have no projections, but PYP's texts have no word for them: whatever "
                        "reads the whole series uses them")
    write_names(folder / f"{name}.films", stems)
    write_lines(folder / ".pyp_config", configuration.splitlines())
    packed: Dict[str, SeriesTable] = {}
    for stem, one in tables.items():
        if parx and not len(one.projections["PSI"]):
            continue  # a .parx has at least a line
        extended = ExtendedTable(CistemTable(one.particles), CistemTable(one.tilts))
        film = stems.index(stem)
        packed[f"{stem}_{CLASS}"] = (_par_table(one, film), None) if parx else (CistemTable(one.projections), extended)
    path = maps / f"{name}_{CLASS}_{START:02d}.bz2"
    maps.mkdir(parents=True, exist_ok=True)
    if volume:
        write_map(path.with_suffix(".mrc"), *read_map(volume))
    stat = column_statistics([table for table, _ in packed.values() if isinstance(table, CistemTable)]) if not parx else None
    write_archive(path, packed, stat)
    return str(path), warnings


def _arguments(dataset: Dataset, name: str, volume: str) -> List[str]:
    """PYP's keys for what a project says once for all series. Raises InputError where they differ in it."""
    series = dataset.series
    if (np.bincount(dataset.exposures["series"], minlength=len(series)) == 1).all():
        raise InputError(f"{dataset.source}: holds single particles, one image of each series; a PYP project is written of "
                         "tilt series only; give --to relion5 or relion-spa")
    for column in ("pixel", "voltage", "cs", "amplitude_contrast", "hand", "contrast"):
        if len(set(series[column].tolist())) > 1:
            raise InputError(f"{dataset.source}: series differ in {column}; PYP has one for all: write a project for each")
    if any(dataset.is_stacks(row) for row in range(len(series))):
        raise InputError(f"{dataset.source}: only extracted 2D stacks are here; PYP wants the tilt series")
    pixel = float(series["pixel"][0])
    binning = dataset.box_pixel / pixel if dataset.box_pixel else 1.0
    whole = round(binning) if abs(binning - round(binning)) < 1e-3 else 1
    if volume and abs(binning - whole) > 1e-2:
        raise InputError(f"{volume}: its pixel, {dataset.box_pixel:g} A, is no multiple of the images' {pixel:g} A, as PYP "
                         "wants it; resample the map")
    box = 2 * round(dataset.box * binning / whole / 2)
    words = {"data_set": name, "data_mode": "tomo", "scope_pixel": f"{pixel:.9g}",
             "scope_voltage": f"{series['voltage'][0]:.9g}", "scope_cs": f"{series['cs'][0]:.9g}",
             "scope_wgh": f"{series['amplitude_contrast'][0]:.9g}",
             "scope_dose_rate": f"{_doses(dataset)[0]:.9g}", "scope_init_dose": f"{_doses(dataset)[1]:.9g}",
             "csp_ctf_handedness": str(series["hand"][0] > 0),
             "data_invert": str(series["contrast"][0] > 0), "extract_bin": str(whole), "extract_box": str(box),
             "csp_refine": f"frealign/maps/{name}_{CLASS}_{START:02d}.bz2"}
    if volume:
        words["csp_model"] = f"frealign/maps/{name}_{CLASS}_{START:02d}.mrc"
    return [text for key, value in words.items() for text in (f"-{key}", value)]


def _doses(dataset: Dataset) -> Tuple[float, float]:
    """PYP's dose of every exposure, and that before the first, e/A^2: their means, the second not below 0."""
    exposures = dataset.exposures
    dose = float(exposures["dose"].mean())
    return dose, max(0.0, float((exposures["dose_before"] - exposures["order"] * dose).mean()))


def _lost_doses(dataset: Dataset) -> List[str]:
    """Warnings where doses are not those that PYP computes of its two values."""
    exposures, (dose, before), lines = dataset.exposures, _doses(dataset), []
    low, high = float(exposures["dose"].min()), float(exposures["dose"].max())
    if high - low > 1e-3 * max(high, 1.0):
        lines.append(f"doses of {low:g} to {high:g} e/A^2 are written as their mean; PYP has one for all exposures")
    worst = float(np.abs(before + exposures["order"] * dose - exposures["dose_before"]).max())
    if worst > 1e-3 * max(float(exposures["dose_before"].max()), 1.0):
        lines.append(f"the doses before the exposures change by up to {worst:.3g} e/A^2; PYP has {before:.4g} e/A^2 before the "
                     f"first, and {dose:.4g} for each")
    return lines


def _write_images(dataset: Dataset, row: int, target: Path, stacks: bool) -> None:
    """Link the tilt series, or write it by tilt angle and renumber the exposures' slices, in place."""
    rows = dataset.exposures_of(row)
    exposures, series = dataset.exposures, dataset.series
    name, pixel = str(series["name"][row]), float(series["pixel"][row])
    files = [str(file) or str(series["images"][row]) for file in exposures["file"][rows]]
    missing = next((file for file in files if not os.path.exists(file)), None)
    if missing is not None:
        raise InputError(f"{dataset.source}: series {name}: its images {missing or '(none)'!r} are not here; mend the path")
    target.parent.mkdir(parents=True, exist_ok=True)
    slices = exposures["slice"][rows]
    if len(set(files)) == 1 and sorted(slices.tolist()) == list(range(open_stack(files[0]).n)):
        source = os.path.realpath(files[0])  # which may be named by the link that is here already
        if target.is_symlink():
            target.unlink()
        target.symlink_to(source)
        return
    if not stacks:
        raise InputError(f"{dataset.source}: series {name} is not one stack of {len(rows)} images; --stacks writes it as one")
    order = np.argsort(matrix_to_tilt(exposures["rotation"][rows])[1], kind="stable")

    def images() -> Iterator[NDArray]:
        for place in order.tolist():
            yield np.asarray(open_stack(files[place]).image(int(slices[place])))

    write_stack(target, images(), pixel)
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows))
    exposures["slice"][rows] = rank
    exposures["file"][rows] = ""
    names = series["images"].tolist()
    names[row] = str(target)
    series.columns["images"] = np.array(names)


def _write_texts(folder: Path, series: PypSeries, tables: SeriesTables, dataset: Dataset) -> None:
    """Alignment, tilt angles, order, CTF, the tomogram's size, positions and crops of a series."""
    for name in ("ali", "ctf", "csp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    base = folder / "ali" / series.name
    write_xf(f"{base}.xf", series.linear, series.offset)
    write_angles(f"{base}.tlt", series.tilt)
    write_lines(f"{base}.order", [str(int(value)) for value in series.order])
    write_lines(f"{base}.size", [str(value) for value in series.specimen_size])
    particles, projections = tables.particles, tables.projections
    # A CTF is measured where the specimen's middle is seen, and that is not at depth 0. Without particles nothing says where.
    z = particles["ORIGINAL_Z_POSITION_3D"] if len(particles["PIND"]) else np.full(1, series.size[2] / 2)
    height = 0.5 * (z.min() + z.max()) - series.size[2] / 2
    pixel, hand = float(dataset.series["pixel"][0]), float(dataset.series["hand"][0])
    away = plane_defocus(series.tilt, series.offset, height * pixel, pixel, hand)
    write_lines(folder / "ctf" / f"{series.name}.ctf", [
        f"{tilt:.4f} {u - depth:.2f} {v - depth:.2f} {angle:.4f}"
        for tilt, (u, v, angle), depth in zip(series.tilt, series.ctf, away)])
    position = np.stack([particles[f"ORIGINAL_{axis}_POSITION_3D"] for axis in "XYZ"], axis=-1)
    write_boxes3d(folder / "csp" / f"{series.name}_boxes3d.txt", Boxes3d(
        np.asarray(particles["PIND"], np.int64), position, np.asarray(particles["PSCORE"], float),
        np.ones(len(position), bool)))
    centre = np.stack([projections["ORIGINAL_X_POSITION"], projections["ORIGINAL_Y_POSITION"]], axis=-1)
    write_allboxes(folder / "csp" / f"{series.name}.allboxes", AllBoxes(centre, np.asarray(projections["IMIND"], np.int64)))


def _par_table(tables: SeriesTables, film: int) -> ParTable:
    """The same as one .parx: NORM 0, MATRIX [1 | t], the whole pose in PPSI, PTHETA, PPHI."""
    c, particles, tilts = tables.projections, tables.particles, tables.tilts
    count = len(c["PSI"])
    p = np.searchsorted(np.sort(particles["PIND"]), c["PIND"])
    p = np.argsort(particles["PIND"], kind="stable")[p]
    k = np.argsort(tilts["TIND"], kind="stable")[np.searchsorted(np.sort(tilts["TIND"]), c["TIND"])]
    zero, one = np.zeros(count), np.ones(count)
    columns: Dict[str, Any] = {
        "NO": c["POSITION_IN_STACK"], "PSI": c["PSI"] % 360.0, "THETA": c["THETA"], "PHI": c["PHI"] % 360.0,
        "SHX": c["X_SHIFT"], "SHY": c["Y_SHIFT"], "MAG": 10000.0 * one, "FILM": film * one, "DF1": c["DEFOCUS_1"],
        "DF2": c["DEFOCUS_2"], "ANGAST": c["DEFOCUS_ANGLE"], "PSHIFT": c["PHASE_SHIFT"], "OCC": c["OCCUPANCY"],
        "LOGP": c["LOGP"], "SIGMA": c["SIGMA"], "SCORE": c["SCORE"], "CHANGE": zero, "PTLIND": c["PIND"],
        "TILTAN": tilts["TILTANG"][k], "DOSEXX": zero, "SCANOR": c["TIND"], "CNFDNC": zero,
        "PTLCCX": c.get("ASSIGNED_SUBSET", zero), "AXIS": tilts["TILTAXIS"][k], "NORM0": zero, "NORM1": zero, "NORM2": zero,
    }
    for index in range(16):
        columns[f"MATRIX{index:02d}"] = one if index in (0, 5, 10) else zero
    # s = -N J t with N = 1, J = diag(1, -1, 1)
    for index, axis, sign in ((3, "X", -1.0), (7, "Y", 1.0), (11, "Z", -1.0)):
        columns[f"MATRIX{index:02d}"] = sign * particles[f"PSHIFT_{axis}"][p]
    columns["MATRIX12"], columns["MATRIX13"] = tilts["TSHIFT_X"][k], tilts["TSHIFT_Y"][k]
    for name in ("PPSI", "PTHETA", "PPHI"):
        columns[name] = particles[name][p]
    kind = "frealignx_parx" if np.any(columns["PSHIFT"]) else "parx"
    if kind == "parx":
        del columns["PSHIFT"]
    return ParTable(kind, columns)
