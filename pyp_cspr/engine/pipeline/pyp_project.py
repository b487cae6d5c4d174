"""A PYP project folder, read: its series, their metadata, and the alignments that there are.

PROJECT/
  .pyp_config[.toml] frealign.config parameters.config      (io/pyp_config.py)
  NAME.films or NAME.micrographs      the series; NAME is the data set's
  mrc/SERIES.mrc SERIES.rec           tilt series by tilt angle, and the tomogram, of which only the header is read
  pkl/SERIES.pkl                      PYP's tables of a series; or each of them as a text:
  ali/SERIES.xf .tlt .order           alignment, tilt angles, acquisition order, one line for each image
  ctf/SERIES.ctf                      tilt angle, DF1, DF2, ANGAST (and more) for each image
  csp/SERIES_boxes3d.txt SERIES.allboxes     picked positions (unbinned pixels); crops, for .parx
  sva/SERIES_virNNNN_cut.txt          how many spikes a virion has, where they were picked on virions
  frealign/maps/NAME_rCC_II.mrc .bz2  maps and alignments of iteration II
Texts are looked for in ali, ctf, mrc, raw, and the project folder itself.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..io.boxes import read_allboxes, read_names
from ..io.frealign import ParTable
from ..io.parameter_archive import is_par, read_archive, read_packed_par
from ..io.pyp_dataset import PypOptics, PypSeries, SeriesTables, read_pyp_dataset, start_dataset
from ..io.pyp_geometry import particle_angles, parx_to_particle, volume_to_particle
from ..io.pyp_series import check_numbers
from ..io.volumes_txt import read_volumes
from ..model.tables import Dataset
from .pyp_metadata import SeriesFiles

CLASS = "r01"


class Binnings(NamedTuple):
    """0: as the files say."""

    tomogram: float = 0.0  # tomo_rec_binning
    volumes: float = 1.0  # tomo_ext_binn, of the sub-volumes of an SVA table


class PypProject:
    """A project folder. ``optics`` and ``binnings`` are what its configuration says."""

    def __init__(self, folder: str, optics: PypOptics, binnings: Optional[Binnings] = None, dataset: str = "") -> None:
        self.folder = Path(folder).absolute()
        self.optics, self.binnings = optics, binnings or Binnings()
        self.dataset, self.names = _find_list(self.folder, dataset)
        self.notes: List[str] = []  # what was assumed
        self._series: Optional[List[PypSeries]] = None

    @property
    def maps(self) -> Path:
        return self.folder / "frealign" / "maps"

    def series(self) -> List[PypSeries]:
        """Metadata of all series. Raises InputError for what is missing or does not fit together."""
        if self._series is None:
            self._series = []
            for name in self.names:
                files = SeriesFiles(self.folder, name, self.optics.pixel, self.binnings.tomogram)
                self._series.append(files.read())
                self.notes += files.notes
        return self._series

    def iterations(self) -> List[int]:
        """Iterations whose alignments are there, in order."""
        pattern = re.compile(re.escape(f"{self.dataset}_{CLASS}_") + r"(\d{2,4})(\.bz2)?")
        found = {int(match.group(1)) for match in map(pattern.fullmatch, _names_in(self.maps)) if match}
        return sorted(number for number in found if number >= 2)

    def alignments_of(self, iteration: int) -> Path:
        """The archive (or else the folder) of an iteration."""
        base = self.maps / f"{self.dataset}_{CLASS}_{iteration:02d}"
        packed = base.with_name(base.name + ".bz2")
        return packed if packed.exists() else base

    def read_alignments(self, path: Path) -> Dataset:
        """The data set of a sub-volume table (.txt), a parameter archive (.bz2 or folder), or a .parx, packed or not.

        Raises InputError for all that does not fit the project.
        """
        if path.suffix == ".txt":
            return self._start(path)
        tables: Dict[str, SeriesTables] = {}
        by_name = {series.name: series for series in self.series()}
        texts = self._by_film(read_packed_par(path)) if is_par(path) else {}
        for stem, (table, extended) in ({} if is_par(path) else read_archive(path)).items():
            name = re.sub(r"_r\d\d(_\d+)?$", "", stem)
            if name not in by_name:
                continue  # PYP takes series off its list without removing their tables
            if name in tables or name in texts:
                raise InputError(f"{path}: {stem} is a second table of series {name}; classes are not read: keep one's tables")
            if isinstance(table, ParTable):
                texts[name] = table
            elif extended is None:
                raise InputError(f"{path}: {stem}.cistem without {stem}_extended.cistem; make the archive again")
            else:
                tables[name] = SeriesTables(table.columns, extended.particles.columns, extended.tilts.columns)
                if any(np.any(table.columns.get(column, 0)) for column in ("BEAM_TILT_X", "BEAM_TILT_Y")):
                    self.notes.append(f"series {name}: its beam tilt (BEAM_TILT_X and Y) is not used")
        halves = _hold_halves(list(texts.values()))
        for name, table in texts.items():
            tables[name] = self._parx_tables(table, by_name[name], halves)
        return read_pyp_dataset(self.series(), self.optics, tables, str(path))

    def _by_film(self, table: ParTable) -> Dict[str, ParTable]:
        """A table of all series as one of each: FILM is the series' line in the .films, from 0."""
        film = np.asarray(table.columns["FILM"])
        films = np.unique(film)
        if len(self.names) == 1 and len(films) == 1:
            return {self.names[0]: table}  # a table of one series may have its number in another project
        bad = films[(films < 0) | (films >= len(self.names))]
        if len(bad):
            raise InputError(f"{table.where}: FILM {bad[0]}, but {self.dataset}.films lists {len(self.names)} series; the "
                             "table is of another list")
        found = {}
        for number in films.tolist():
            columns = {name: np.asarray(values)[film == number] for name, values in table.columns.items()}
            found[self.names[number]] = ParTable(table.kind, columns, where=table.where)
        return found

    def _start(self, path: Path) -> Dataset:
        volumes = read_volumes(path)
        check_numbers(volumes.matrix, f"{path}: matrix")
        check_numbers(volumes.normal, f"{path}: normal")
        rotation, moved = volume_to_particle(volumes.normal, volumes.matrix, self.binnings.volumes)
        by_name = {series.name: series for series in self.series()}
        rows: Dict[str, List[Tuple[int, int]]] = {}
        spikes: Dict[str, Dict[int, int]] = {}
        for row, (name, virion, spike) in enumerate(volumes.keys()):
            if name not in by_name:
                continue
            if virion >= 0 and name not in spikes:
                spikes[name] = self._count_spikes(by_name[name])
            index = spike if virion < 0 else self._index_of_spike(spikes[name], name, virion, spike)
            rows.setdefault(name, []).append((index, row))
        poses = {}
        for name, pairs in rows.items():
            order = self._kept(by_name[name], np.array(sorted(pairs), dtype=np.int64))
            poses[name] = (order[:, 0], rotation[order[:, 1]], moved[order[:, 1]])
        return start_dataset(self.series(), self.optics, poses, str(path))

    def _kept(self, series: PypSeries, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows ``(n, 2)``, with the particle first, whose particle is not left out (Keep_CSP No)."""
        dropped = np.isin(pairs[:, 0], series.left_out)
        if dropped.any():
            self.notes.append(f"series {series.name}: {len(np.unique(pairs[dropped, 0]))} particles are left out "
                              f"(Keep_CSP No in {series.name}_boxes3d.txt)")
        return pairs[~dropped]

    def _count_spikes(self, series: PypSeries) -> Dict[int, int]:
        """Spikes by virion. One without a _cut.txt has none, as in PYP, but all must be as many as the picked positions."""
        folder, counts = self.folder / "sva", {}
        pattern = re.compile(re.escape(series.name) + r"_vir(\d{4,9})_cut\.txt")
        for match in filter(None, map(pattern.fullmatch, _names_in(folder))):
            counts[int(match.group(1))] = len(read_volumes(folder / match.group()))
        if sum(counts.values()) != len(series.positions):
            raise InputError(f"{folder}: {series.name}_virNNNN_cut.txt list {sum(counts.values())} spikes, but "
                             f"{len(series.positions)} positions are known; put all of them there, and "
                             f"csp/{series.name}_boxes3d.txt")
        return counts

    def _index_of_spike(self, counts: Dict[int, int], name: str, virion: int, spike: int) -> int:
        """PYP counts spikes through all virions of a series."""
        if spike >= counts.get(virion, 0):
            raise InputError(f"{self.folder / 'sva'}: {name}_vir{virion:04d}_cut.txt has {counts.get(virion, 0)} spikes or is "
                             f"not there, but the table names spike {spike}, from 0; put the virion's own list there")
        return sum(count for number, count in counts.items() if number < virion) + spike

    def _parx_tables(self, table: ParTable, series: PypSeries, halves: bool) -> SeriesTables:
        """A .parx of one series in the form of today's tables, with its .allboxes and _boxes3d.txt."""
        where = table.where
        if not table.extended:
            raise InputError(f"{where}: has no PYP columns (PTLIND to PPHI); a plain .par says nothing of particles and tilts")
        crops = read_allboxes(self.folder / "csp" / f"{series.name}.allboxes")
        count = len(table)
        if len(crops) != count or crops.frame is not None:
            kind = "with frames" if crops.frame is not None else "crops"
            raise InputError(f"{where}: {count} projections, {series.name}.allboxes has {len(crops)} {kind}; they must be "
                             "of one run, without frames")
        for name, values in table.columns.items():
            check_numbers(values, f"{where}: {name}")
        every = np.stack([np.asarray(table.columns["PTLIND"], np.int64), np.arange(count)], axis=-1)
        kept = self._kept(series, every)[:, 1]
        c = {name: np.asarray(values)[kept] for name, values in table.columns.items()}
        index, first = np.unique(np.asarray(c["PTLIND"], np.int64), return_index=True)
        position = series.positions_of(index, where)
        matrix = np.stack([c[f"MATRIX{i:02d}"] for i in range(12)], axis=-1).reshape(-1, 3, 4)
        norm = np.stack([c[f"NORM{i}"] for i in range(3)], axis=-1)
        residual = np.stack([c[name] for name in ("PPSI", "PTHETA", "PPHI")], axis=-1)
        rotation, s = parx_to_particle(norm[first], matrix[first], residual[first])
        projections = {name: c[old] for name, old in (
            ("X_SHIFT", "SHX"), ("Y_SHIFT", "SHY"), ("DEFOCUS_1", "DF1"), ("DEFOCUS_2", "DF2"), ("DEFOCUS_ANGLE", "ANGAST"),
            ("OCCUPANCY", "OCC"), ("SCORE", "SCORE"), ("PIND", "PTLIND"), ("TIND", "SCANOR"))}
        zeros = np.zeros(len(kept))
        projections.update(ORIGINAL_X_POSITION=crops.centre[kept, 0], ORIGINAL_Y_POSITION=crops.centre[kept, 1],
                           IMIND=crops.tilt[kept], IMAGE_IS_ACTIVE=zeros, RIND=zeros, FIND=zeros,
                           PHASE_SHIFT=c.get("PSHIFT", zeros))
        if halves:
            projections["ASSIGNED_SUBSET"] = c["PTLCCX"]
        row = np.searchsorted(index, projections["PIND"].astype(np.int64))
        occupancy = np.zeros(len(index))
        np.maximum.at(occupancy, row, projections["OCCUPANCY"])
        score = np.bincount(row, projections["SCORE"], len(index)) / np.bincount(row, minlength=len(index))
        particles = {"PIND": index, "POCC": occupancy, "PSCORE": score}
        particles.update(zip(("PPSI", "PTHETA", "PPHI"), particle_angles(rotation)))
        for i, axis in enumerate("XYZ"):
            particles[f"PSHIFT_{axis}"] = s[:, i]
            particles[f"ORIGINAL_{axis}_POSITION_3D"] = position[:, i]
        orders, rows = np.unique(np.asarray(c["SCANOR"]).astype(int), return_index=True)
        tilts = {name: np.asarray(c[old])[rows] for name, old in (
            ("TSHIFT_X", "MATRIX12"), ("TSHIFT_Y", "MATRIX13"), ("TILTANG", "TILTAN"), ("TILTAXIS", "AXIS"))}
        tilts.update(TIND=orders, RIND=np.zeros(len(orders)))
        return SeriesTables(projections, particles, tilts)


def _hold_halves(tables: Sequence[ParTable]) -> bool:
    """Whether PTLCCX, which PYP does not use, holds half-sets, as `cspr convert` writes them: 1 and 2 in the tables together.

    A series may be of one half only. PYP's own tables have 0 there, very old ones the frame from 1, and minus it in CNFDNC.
    """
    both = [table for table in tables if table.extended]
    half = np.unique(np.concatenate([np.zeros(0), *(table.columns["PTLCCX"] for table in both)]))
    frames = any(np.any(table.columns["CNFDNC"]) for table in both)
    return not frames and set(half.tolist()) in ({1.0, 2.0}, {0.0, 1.0, 2.0})


def _names_in(folder: Path) -> List[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _find_list(folder: Path, dataset: str) -> Tuple[str, List[str]]:
    """(name of the data set, its series) by .films, or else .micrographs."""
    for ending in (".films", ".micrographs"):
        if dataset:
            paths = [folder / f"{dataset}{ending}", folder / "frealign" / f"{dataset}{ending}"]
            found = [path for path in paths if os.path.exists(path)]  # Path's own fails for a long name
        else:
            found = sorted(path for path in folder.glob(f"*{ending}") if not path.name.startswith("."))
        if len(found) > 1 and not dataset:
            raise InputError(f"{folder}: {found[0].name} and {found[1].name}; say which with -data_set")
        if found:
            return found[0].stem, read_names(found[0])
    what = f"{dataset}.films" if dataset else "NAME.films"
    raise InputError(f"{folder}: no {what} or .micrographs, so it is no PYP project; start csp in a project's folder")
