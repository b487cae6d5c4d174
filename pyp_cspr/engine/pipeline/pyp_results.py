"""What an iteration leaves in a PYP project, in PYP's forms.

PROJECT/frealign/maps/
  NAME_r01_II.mrc                   the map of iteration II; NAME_r01_01.mrc is the starting map
  NAME_r01_half1.mrc _half2.mrc     half maps of the last iteration
  NAME_r01_fsc.txt                  FSC of every iteration
  NAME_r01_II_statistics.txt        shells of the map
  NAME_r01_II.bz2                   alignments: a table of projections, and one of particles and tilts, for each series
PROJECT/ali/NAME_r01_II/SERIES.xf .tlt .xtilt      the refined alignment of the tilts, as IMOD's files
"""

from __future__ import annotations

import re
import shutil
from itertools import count
from pathlib import Path
from typing import Callable, Dict, List, Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.geometry import exposure_to_imod
from ..errors import InputError
from ..io.cistem import CistemTable, ExtendedTable, column_statistics
from ..io.imod import write_angles, write_xf
from ..io.mrc import read_map, write_map
from ..io.parameter_archive import SeriesTable, write_archive
from ..io.pyp_dataset import write_pyp_dataset
from ..io.statistics_txt import FscTable, Statistics, new_statistics, read_fsc, write_fsc, write_statistics
from ..model.tables import Dataset
from .pyp_project import CLASS, PypProject
from .reporting import read_tables
from .store import RunStore, read_rows

MEAN_CTF2 = 0.5  # of a CTF that oscillates


class Results:
    """Writes iterations of a project."""

    def __init__(self, project: PypProject) -> None:
        self.project = project

    def path(self, rest: str) -> Path:
        return self.project.maps / f"{self.project.dataset}_{CLASS}_{rest}"

    def ali(self, iteration: int) -> Path:
        return self.project.folder / "ali" / f"{self.project.dataset}_{CLASS}_{iteration:02d}"

    def files_of(self, iteration: int) -> List[Path]:
        """What an iteration has for itself; half maps and the FSC are of the last one."""
        names = [f"{iteration:02d}.mrc", f"{iteration:02d}_statistics.txt", f"{iteration:02d}.bz2"]
        return [self.path(name) for name in names] + [self.ali(iteration)]

    def is_result(self, path: Path) -> bool:
        """Whether a file is of an iteration, or of all of them; what iteration 1, the start, has is none."""
        prefix = f"{self.project.dataset}_{CLASS}_"
        inside = path.resolve().parent == self.project.maps.resolve() and path.name.startswith(prefix)
        return inside and not re.match(r"0*1(\.|$)", path.name[len(prefix):])

    def set_aside(self, keep: Sequence[Path] = ()) -> Path:
        """Move all iterations out of the way, so that a fresh start overwrites nothing; where to. What to ``keep`` stays."""
        kept = {path.resolve() for path in keep}
        base = self.project.folder / "frealign"
        target = _first_free(lambda number: base / f"previous_{number:02d}")
        prefix = f"{self.project.dataset}_{CLASS}"
        for folder in (self.project.maps, self.project.folder / "ali", base / "scratch"):
            there = sorted(folder.glob(f"{prefix}_*")) if folder.is_dir() else []
            moving = [path for path in there if path.resolve() not in kept]
            for path in moving:
                (target / folder.name).mkdir(parents=True, exist_ok=True)
                shutil.move(str(path), str(target / folder.name / path.name))
        return target

    def write_start(self, model: Path) -> None:
        """The starting map as iteration 1."""
        self.project.maps.mkdir(parents=True, exist_ok=True)
        target = self.path("01.mrc")
        if not target.exists():
            write_map(target, *read_map(model))

    def must_be_free(self, iteration: int) -> None:
        """Raise InputError where something of the iteration is there already."""
        there = [path for path in self.files_of(iteration) if path.exists()]
        if there:
            raise InputError(f"{there[0]}: is there already; move it away, or start fresh with -csp_skip True")

    def write(self, iteration: int, store: RunStore) -> List[str]:
        """Write a finished iteration of a run over what is there of it. The archive, from which the next one starts, comes
        last. Returns warnings."""
        self.project.maps.mkdir(parents=True, exist_ok=True)
        dataset = read_rows(store.result_path)
        volume, pixel = read_map(store.folder / "map.mrc")
        write_map(self.path(f"{iteration:02d}.mrc"), volume, pixel)
        for name in ("half1", "half2"):
            write_map(self.path(f"{name}.mrc"), read_map(store.folder / f"{name}.mrc")[0], pixel)
        warnings = self._write_curves(iteration, store, pixel, len(volume))
        self._write_alignments(iteration, dataset)
        tables, lost = write_pyp_dataset(
            dataset, {series.name: series for series in self.project.series()}, _scores(store, dataset))
        packed: Dict[str, SeriesTable] = {}
        for name, one in tables.items():
            extended = ExtendedTable(CistemTable(one.particles), CistemTable(one.tilts))
            packed[f"{name}_{CLASS}"] = (CistemTable(one.projections), extended)
        stat = column_statistics([table for table, _ in packed.values() if isinstance(table, CistemTable)])
        write_archive(self.path(f"{iteration:02d}.bz2"), packed, stat)
        return warnings + lost

    def _write_curves(self, iteration: int, store: RunStore, pixel: float, box: int) -> List[str]:
        curves = np.genfromtxt(store.folder / "fsc.csv", delimiter=",", names=True)
        shells = slice(1, box // 2 + 1)
        fsc, corrected = (_filled(curves[name][shells], box // 2) for name in ("unmasked", "corrected"))
        resolution = box * pixel / np.arange(1, box // 2 + 1)
        path, warnings = self.path("fsc.txt"), []
        table = read_fsc(path) if path.exists() else FscTable(resolution, np.zeros((len(resolution), 0)))
        if len(table.resolution) != len(resolution) or not np.allclose(table.resolution, resolution, rtol=1e-3):
            away = _first_free(lambda number: self.path(f"fsc_{number:02d}.txt"))
            path.rename(away)
            warnings.append(f"{path}: has other shells than this map of {box} pixels of {pixel:g} A; it is now {away.name}")
            table = FscTable(resolution, np.zeros((len(resolution), 0)))
        write_fsc(path, table.with_curve(iteration, corrected))
        mask = float(read_map(store.folder / "mask.mrc")[0].sum(dtype=np.float64))
        statistics = shell_statistics(pixel, box, fsc, corrected, mask, int(store.plan()["n_projections"]))
        write_statistics(self.path(f"{iteration:02d}_statistics.txt"), statistics)
        return warnings

    def _write_alignments(self, iteration: int, dataset: Dataset) -> None:
        folder = self.ali(iteration)
        folder.mkdir(parents=True, exist_ok=True)
        for row, name in enumerate(dataset.series["name"].tolist()):
            rows = dataset.exposures_of(row)
            rows = rows[np.argsort(dataset.exposures["slice"][rows], kind="stable")]
            linear, offset, tilt, xtilt = exposure_to_imod(
                dataset.exposures["rotation"][rows], dataset.exposures["shift"][rows], float(dataset.series["pixel"][row]))
            write_xf(folder / f"{name}.xf", linear, offset)
            write_angles(folder / f"{name}.tlt", tilt)
            write_angles(folder / f"{name}.xtilt", xtilt)


def shell_statistics(
    pixel: float, box: int, fsc: NDArray, part_fsc: NDArray, mask: float, projections: int
) -> Statistics:
    """The statistics file's columns. ``mask``: voxels of the particle.

    Rec_SSNR = 2 FSC / (1 - FSC). Part_SSNR, of one projection, is cisTEM's fm 2 FSC / (1 - FSC) n / sum CTF^2 of the unmasked
    FSC, with fm = mask / (A box), A the particle's area if it were round; and n / sum CTF^2 = 2 k / (projections x mean CTF^2),
    as slices cross a shell of 4 pi k^2 coefficients on a circle of 2 pi k.
    """
    area = np.pi * (3.0 * mask / (4.0 * np.pi)) ** (2.0 / 3.0)
    shell = np.arange(1, box // 2 + 1)
    rec = 2.0 * np.abs(part_fsc) / (1.00001 - np.minimum(np.abs(part_fsc), 1.0))
    half = 2.0 * np.abs(fsc) / (1.00001 - np.minimum(np.abs(fsc), 1.0))
    part = mask / (area * box) * half * 2.0 * shell / (max(projections, 1) * MEAN_CTF2)
    return new_statistics(pixel, box, fsc, part_fsc, part, rec)


def _first_free(named: Callable[[int], Path]) -> Path:
    """The first of the paths ``named`` 1, 2, ... that is not there."""
    return next(path for path in map(named, count(1)) if not path.exists())


def _filled(curve: NDArray, length: int) -> NDArray[np.float64]:
    """The curve with zeros for shells that it does not reach."""
    values = np.zeros(length)
    values[: len(curve)] = np.nan_to_num(curve[:length])
    return values


def _scores(store: RunStore, dataset: Dataset) -> Dict[str, NDArray]:
    """Scores ``(particles, exposures)`` of a run that refined, by series."""
    if not store.refinement_path.exists():
        return {}
    tables = read_tables(store, len(dataset.series))
    names = dataset.series["name"].tolist()
    return {str(name): tables[row]["score"] for row, name in enumerate(names) if "score" in tables[row]}
