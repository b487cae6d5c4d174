"""A PYP project folder, read: its series, their metadata, and the alignments that there are.

PROJECT/
  .pyp_config[.toml] frealign.config parameters.config      (io/pyp_config.py)
  NAME.films or NAME.micrographs      the series; NAME is the data set's
  mrc/SERIES.mrc SERIES.rec           tilt series by tilt angle, and the tomogram, of which only the header is read
  pkl/SERIES.pkl                      PYP's tables of a series; or each of them as a text:
  ali/SERIES.xf .tlt .order           alignment, tilt angles, acquisition order, one line for each image
  ctf/SERIES.ctf                      tilt angle, DF1, DF2, ANGAST (and more) for each image
  csp/SERIES_boxes3d.txt SERIES.allboxes     picked positions (unbinned pixels); crops, for .parx
  frealign/maps/NAME_rCC_II.mrc .bz2  maps and alignments of iteration II
Texts are looked for in ali, ctf, mrc, raw, and the project folder itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from ..errors import InputError
from ..io.boxes import read_allboxes, read_names
from ..io.frealign import ParTable, read_par
from ..io.parameter_archive import read_archive
from ..io.pyp_dataset import PypOptics, PypSeries, SeriesTables, read_pyp_dataset, start_dataset
from ..io.pyp_geometry import particle_angles, parx_to_particle, volume_to_particle
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
        """The data set of a sub-volume table (.txt), a parameter archive (.bz2 or folder), or a .par or .parx file.

        Raises InputError for all that does not fit the project.
        """
        if path.suffix == ".txt":
            return self._start(path)
        if path.suffix in (".par", ".parx"):
            if len(self.names) > 1:
                raise InputError(f"{path}: one .parx holds {len(self.names)} series; give the archive with one for each")
            return self._aligned({self.names[0]: self._parx_tables(read_par(path), self.series()[0])}, path)
        tables = {}
        by_name = {series.name: series for series in self.series()}
        for stem, (table, extended) in read_archive(path).items():
            name = re.sub(r"_r\d\d(_\d+)?$", "", stem)
            if name not in by_name:
                continue  # PYP takes series off its list without removing their tables
            if isinstance(table, ParTable):
                tables[name] = self._parx_tables(table, by_name[name])
            elif extended is None:
                raise InputError(f"{path}: {stem}.cistem without {stem}_extended.cistem; make the archive again")
            else:
                tables[name] = SeriesTables(table.columns, extended.particles.columns, extended.tilts.columns)
        return self._aligned(tables, path)

    def _aligned(self, tables: Dict[str, SeriesTables], path: Path) -> Dataset:
        return read_pyp_dataset(self.series(), self.optics, tables, str(path))

    def _start(self, path: Path) -> Dataset:
        volumes = read_volumes(path)
        rotation, moved = volume_to_particle(volumes.normal, volumes.matrix, self.binnings.volumes)
        rows: Dict[str, List[Tuple[int, int]]] = {}
        for row, (name, virion, spike) in enumerate(volumes.keys()):
            index = spike if virion < 0 else self._index_of_spike(name, virion, spike)
            rows.setdefault(name, []).append((index, row))
        poses = {}
        for name, pairs in rows.items():
            order = sorted(pairs)
            chosen = np.array([row for _, row in order])
            poses[name] = (np.array([index for index, _ in order]), rotation[chosen], moved[chosen])
        return start_dataset(self.series(), self.optics, poses, str(path))

    def _index_of_spike(self, name: str, virion: int, spike: int) -> int:
        """PYP counts spikes through all virions of a series."""
        before = 0
        for number in range(virion):
            path = self.folder / "sva" / f"{name}_vir{number:04d}_cut.txt"
            before += len(read_volumes(path)) if path.exists() else 0
        return before + spike

    def _parx_tables(self, table: ParTable, series: PypSeries) -> SeriesTables:
        """A .parx of one series in the form of today's tables, with its .allboxes and _boxes3d.txt."""
        where = table.where
        if not table.extended:
            raise InputError(f"{where}: has no PYP columns (PTLIND to PPHI); a plain .par says nothing of particles and tilts")
        crops = read_allboxes(self.folder / "csp" / f"{series.name}.allboxes")
        c = table.columns
        count = len(c["PSI"])
        if len(crops) != count or crops.frame is not None:
            kind = "with frames" if crops.frame is not None else "crops"
            raise InputError(f"{where}: {count} projections, {series.name}.allboxes has {len(crops)} {kind}; they must be "
                             "of one run, without frames")
        index, first = np.unique(np.asarray(c["PTLIND"]).astype(int), return_index=True)
        if len(index) and (index.min() < 0 or index.max() >= len(series.positions)):
            raise InputError(f"{where}: PTLIND {index.max()}, but {len(series.positions)} positions are known; check "
                             "its _boxes3d.txt")
        matrix = np.stack([c[f"MATRIX{i:02d}"] for i in range(12)], axis=-1).reshape(-1, 3, 4)
        norm = np.stack([c[f"NORM{i}"] for i in range(3)], axis=-1)
        residual = np.stack([c[name] for name in ("PPSI", "PTHETA", "PPHI")], axis=-1)
        rotation, s = parx_to_particle(norm[first], matrix[first], residual[first])
        projections = {name: np.asarray(c[old]) for name, old in (
            ("X_SHIFT", "SHX"), ("Y_SHIFT", "SHY"), ("DEFOCUS_1", "DF1"), ("DEFOCUS_2", "DF2"), ("DEFOCUS_ANGLE", "ANGAST"),
            ("OCCUPANCY", "OCC"), ("SCORE", "SCORE"), ("PIND", "PTLIND"), ("TIND", "SCANOR"))}
        zeros = np.zeros(count)
        projections.update(ORIGINAL_X_POSITION=crops.centre[:, 0], ORIGINAL_Y_POSITION=crops.centre[:, 1], IMIND=crops.tilt,
                           IMAGE_IS_ACTIVE=zeros, RIND=zeros, FIND=zeros, PHASE_SHIFT=np.asarray(c.get("PSHIFT", zeros)))
        half = np.asarray(c["PTLCCX"])  # not used by PYP; `cspr convert` keeps half-sets in it
        if not np.any(c["CNFDNC"]) and set(np.unique(half).tolist()) == {1.0, 2.0}:
            projections["ASSIGNED_SUBSET"] = half
        row = np.searchsorted(index, projections["PIND"].astype(int))
        occupancy = np.zeros(len(index))
        np.maximum.at(occupancy, row, projections["OCCUPANCY"])
        score = np.bincount(row, projections["SCORE"]) / np.maximum(np.bincount(row), 1)
        particles = {"PIND": index, "POCC": occupancy, "PSCORE": score}
        particles.update(zip(("PPSI", "PTHETA", "PPHI"), particle_angles(rotation)))
        for i, axis in enumerate("XYZ"):
            particles[f"PSHIFT_{axis}"] = s[:, i]
            particles[f"ORIGINAL_{axis}_POSITION_3D"] = series.positions[index, i]
        orders, rows = np.unique(np.asarray(c["SCANOR"]).astype(int), return_index=True)
        tilts = {name: np.asarray(c[old])[rows] for name, old in (
            ("TSHIFT_X", "MATRIX12"), ("TSHIFT_Y", "MATRIX13"), ("TILTANG", "TILTAN"), ("TILTAXIS", "AXIS"))}
        tilts.update(TIND=orders, RIND=np.zeros(len(orders)))
        return SeriesTables(projections, particles, tilts)


def _names_in(folder: Path) -> List[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _find_list(folder: Path, dataset: str) -> Tuple[str, List[str]]:
    """(name of the data set, its series) by .films, or else .micrographs."""
    for ending in (".films", ".micrographs"):
        if dataset:
            paths = [folder / f"{dataset}{ending}", folder / "frealign" / f"{dataset}{ending}"]
            found = [path for path in paths if path.exists()]
        else:
            found = sorted(path for path in folder.glob(f"*{ending}") if not path.name.startswith("."))
        if len(found) > 1 and not dataset:
            raise InputError(f"{folder}: {found[0].name} and {found[1].name}; say which with -data_set")
        if found:
            return found[0].stem, read_names(found[0])
    what = f"{dataset}.films" if dataset else "NAME.films"
    raise InputError(f"{folder}: no {what} or .micrographs, so it is no PYP project; start csp in a project's folder")
