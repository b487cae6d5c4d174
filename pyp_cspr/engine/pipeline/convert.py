"""From one program's files to another's, through the data set: poses, geometry, CTF and half-sets go along."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ..core.geometry import project
from ..errors import InputError
from ..io.mrc import read_map, write_map
from ..io.relion import read_dataset, write_dataset
from ..io.relion_spa import is_spa, read_spa, write_spa
from ..io.star import read_star
from ..model.tables import Dataset
from .check import check_cube
from .chunk import Progress, no_progress
from .claim import STARS, kind_of, spare
from .convert_pyp import find_alignments, find_maps, is_pyp, read_pyp, write_pyp
from .plan import inputs_of

FORMATS = {
    "relion5": "RELION 5 tomography project, which is also the engine's own form",
    "relion4": "RELION 4 tomography project",
    "relion-spa": "RELION single-particle star: each projection a row (--stacks writes their images as well)",
    "pyp": "PYP project with .cistem tables (--stacks writes tilt series that are not one stack each)",
    "pyp-parx": "the same with .parx tables, which round: 0.01 deg, 0.01 A, phase shifts 0.01 rad",
}
RELION = "RELION tomography project"
OF_PYP = ("mrc", "ali", "ctf", "csp", "frealign")
WRITES = {"relion5": (*STARS, "tilt_series"), "relion4": STARS, "relion-spa": ("particles.star", "stacks"), "pyp": OF_PYP,
          "pyp-parx": OF_PYP}  # files, and folders of files

MOVED = 0.1  # angstrom: less is rounding


def read_any(
    path: str, image_size: Optional[Tuple[int, int]] = None, need_images: bool = False, alignments: str = "",
    notes: Optional[List[str]] = None,
) -> Tuple[Dataset, str]:
    """The data set of whatever lies at ``path``, and what that was. ``image_size`` as in ``read_spa``; ``alignments`` are those
    of a PYP project that are meant, if not the last; ``notes`` gets what was assumed of it. Raises InputError."""
    if is_pyp(path):
        return read_pyp(path, alignments, notes), "PYP project"
    if alignments:
        raise InputError(f"--alignments {alignments}: {path} is no PYP project (a folder with a .films or .micrographs list)")
    if os.path.isfile(path) and path.endswith(".star") and is_spa(read_star(path)):
        return read_spa(path, image_size), "RELION single-particle star"
    return read_dataset(path, need_images), RELION


def convert(
    source: str,
    out: str,
    form: str = "relion5",
    stacks: bool = False,
    box: int = 0,
    image_size: Optional[Tuple[int, int]] = None,
    overwrite: bool = False,
    alignments: str = "",
    progress: Progress = no_progress,
    volume: str = "",
) -> Dict[str, Any]:
    """Write what ``source`` holds into the folder ``out`` in another form (one of ``FORMATS``); says what was written.

    Particles without a half-set get one, so that all that is made of them has the same. A map ``volume`` goes along, and its
    box and pixel are then the particles'. Raises InputError.
    """
    if form not in FORMATS:
        raise InputError(f"--to {form}: unknown format; known: {', '.join(FORMATS)}")
    if stacks and form in ("relion5", "relion4"):
        raise InputError(f"--stacks: {form} needs no other images; leave it out, or give --to relion-spa")
    folder = Path(out).absolute()
    named = (os.path.abspath(source), os.path.realpath(source))
    if os.path.realpath(folder) in [os.path.realpath(path if os.path.isdir(path) else os.path.dirname(path)) for path in named]:
        raise InputError(f"{folder}: is where the input lies; give another folder")
    if kind_of(folder):
        raise InputError(f"{folder}: holds {kind_of(folder)}; give another folder")
    if os.path.exists(folder) and any(folder.iterdir()) and not overwrite:
        raise InputError(f"{folder}: is not empty; give another folder, or --overwrite")
    notes: List[str] = []
    dataset, kind = read_any(source, image_size, stacks, alignments, notes)
    stars = inputs_of(source, dataset)[1:] if kind == RELION else [source]
    for path in (*stars, *(_images_of(dataset) if form not in ("relion5", "relion4") else ())):
        spare(folder, path, WRITES[form])
    dataset.assign_halves()
    if volume:
        values, dataset.box_pixel = read_map(volume)
        check_cube(values, volume)
        dataset.box = len(values)
    warnings: List[str] = []
    if form == "relion-spa":
        star = write_spa(dataset, folder, stacks, box, progress)
        warnings = lost_magnification(dataset)
    elif form in ("pyp", "pyp-parx"):
        star, warnings = write_pyp(dataset, folder, form == "pyp-parx", stacks, volume)
        warnings += lost_magnification(dataset)
    else:
        warnings = _hide_excluded(dataset, form)
        star = write_dataset(dataset, folder, 4 if form == "relion4" else 5)
        warnings += _own_columns(dataset) if form == "relion5" else []  # RELION 4's matrices hold them
    if volume and not form.startswith("pyp"):
        write_map(folder / "reference.mrc", values, dataset.box_pixel)
    halves = [int((dataset.particles["half"] == half).sum()) for half in (1, 2)]
    found: Dict[str, Any] = {}
    if is_pyp(source):
        of_project, half_maps = find_maps(source, alignments)
        found = {"alignments": str(find_alignments(source, alignments)), "map": of_project, "half_maps": half_maps}
    return {"read": kind, "written": star, "format": form, "n_series": len(dataset.series),
            "n_particles": len(dataset.particles), "halves": halves, "warnings": notes + warnings, **found}


def _images_of(dataset: Dataset) -> List[str]:
    columns = (dataset.series["images"], dataset.exposures["file"], dataset.particles["stack"])
    return [str(path) for column in columns for path in np.unique(column) if path]


def _hide_excluded(dataset: Dataset, form: str) -> List[str]:
    """RELION has no excluded views: in RELION 5's form particles are not to be seen in them, in place. Warnings."""
    enabled = dataset.exposures["enabled"]
    if enabled.all():
        return []
    if form == "relion5":
        for row in range(len(dataset.series)):
            if dataset.is_stacks(row):
                continue  # their images are counted by what is visible
            rows, particles = dataset.exposures_of(row), dataset.particles_of(row)
            dataset.visible[particles, : len(rows)] &= enabled[rows]
        return []
    return [f"{int((~enabled).sum())} excluded tilt images are used by RELION 4, which has no word for them; RELION 5 has "
            "(rlnTomoVisibleFrames)"]


def _own_columns(dataset: Dataset) -> List[str]:
    """A warning where particles are not seen where the angles and shifts alone say."""
    worst, exposures = 0.0, dataset.exposures
    for row in range(len(dataset.series)):
        rows, position = dataset.exposures_of(row), dataset.particles["position"][dataset.particles_of(row)]
        rigid, _ = project(exposures["rotation"][rows], exposures["shift"][rows], position[:, None])
        worst = max(worst, float(np.linalg.norm(dataset.project(row)[0] - rigid, axis=-1).max(initial=0.0)))
    if worst < MOVED:
        return []
    return ["RELION 5 ignores the magnifications and deformations of tilt images (csprMagnification, csprDeformation): it "
            f"looks for particles up to {worst:.2g} A beside where they are seen"]


def lost_magnification(dataset: Dataset) -> List[str]:
    """A warning where images are magnified, for forms that have no word for it."""
    worst = float(np.abs(dataset.exposures["magnification"] - 1.0).max())
    if not worst:
        return []
    return [f"magnifications of up to {100.0 * worst:.2g} % are lost: particles are where they are seen, but of the size that "
            "the pixel size says"]
