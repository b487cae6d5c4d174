"""The run folder: what lies where, and how nothing in it is ever half-written.

RUN/
  run.json                     the plan: settings, grid, chunks; written last by the plan
  dataset.npz                  the whole data set as planned, half-sets assigned
  reference1.mrc reference2.mrc    of a run that refines: what its chunks refine against
  tasks/0000.json, 0000.npz    a task and its rows (exact tables)
  chunks/0000/half1.sums, half2.sums, manifest.json    partial sums; the manifest is written last
  map.mrc half1.mrc half2.mrc mask.mrc map_sharpened.mrc fsc.csv journal.json report.html
  optimisation_set.star particles.star tomograms.star tilt_series/    so that a run is again a data set
  result.npz refinement.npz    the data set as merged; scores, weights and uncertainties of a refinement
  summary.json                 written last by the merge: its presence means that the run is whole
  report/                      the figures of report.html as PNG
  .lock                        held by the command that works here; empty
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import tokenize
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..core.insertion import Accumulator
from ..errors import CsprError, InputError
from ..io.mrc import write_aside
from ..model.tables import EXPOSURES, PARTICLES, SERIES, Dataset, Table
from ..model.task import ChunkTask, Manifest, MapGrid
from .refine_series import SeriesOutcome

Sums = Tuple[Accumulator, Accumulator]
# What reading a damaged .npz may raise: RuntimeError where it seems encrypted or compressed in a way that is not known, and
# SyntaxError and TokenError where the header of an array, which is a line of Python, cannot be parsed.
UNREADABLE = (OSError, EOFError, KeyError, ValueError, IndexError, RuntimeError, SyntaxError, tokenize.TokenError,
              zipfile.BadZipFile)


def write_atomic(path: Path, write: Callable[[Any], None]) -> int:
    """Write a file whole or not at all by what ``write`` does to its stream. Returns the bytes written. Raises InputError."""

    def fill(temporary: str) -> None:
        with open(temporary, "wb") as stream:
            write(stream)

    write_aside(path, fill)
    return path.stat().st_size


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> int:
    """Write a whole .npz or none; returns the bytes written.

    ``np.savez`` leaves its archive open where the disk is full, and that complains when the program ends.
    """

    def write(stream: Any) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for name, values in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)

    return write_atomic(path, write)


def write_sums(path: Path, sums: NDArray[np.float64]) -> int:
    """Write a whole file of an accumulator's sums or none; returns the bytes written.

    It is the sums as they lie in memory, and a number of 64 bits by which ``read_sums`` knows them. They are most of what a run
    writes, and the checksums of an .npz take five times as long as writing and reading them.
    """
    check = _check(sums).to_bytes(8, "little")

    def write(stream: Any) -> None:
        stream.write(sums.reshape(-1).view(np.uint8).data)
        stream.write(check)

    return write_atomic(path, write)


def read_sums(path: Path) -> NDArray[np.float64]:
    """``(n, 3)`` float64. Raises OSError, and ValueError where the file is not as it was written."""
    values = np.fromfile(path, np.float64)
    sums = values[:-1]
    if len(values) % 3 != 1 or values.nbytes != os.path.getsize(path) or int(values[-1:].view(np.uint64)[0]) != _check(sums):
        raise ValueError("it is not as it was written")
    return sums.reshape(-1, 3)


def _check(sums: NDArray[np.float64]) -> int:
    """Sum over blocks b of 512 bytes of (2 b + 1) times the sum of the block's words, modulo 2^64; plus the number of words.

    A bit that changes, a block that moves, and a file of zeros show.
    """
    words = sums.reshape(-1).view(np.uint64)
    whole = words.size - words.size % 64
    blocks = np.append(words[:whole].reshape(-1, 64).sum(axis=1, dtype=np.uint64), words[whole:].sum(dtype=np.uint64))
    weights = 2 * np.arange(len(blocks), dtype=np.uint64) + np.uint64(1)
    return (int((blocks * weights).sum(dtype=np.uint64)) + words.size) % 2**64


def write_json(path: Path, values: Any) -> int:
    """Write a whole file or none; how many bytes. NaN is a ValueError: JSON has no word for it."""
    text = json.dumps(values, indent=1, allow_nan=False) + "\n"
    return write_atomic(path, lambda stream: stream.write(text.encode()))


def read_json(path: Path) -> Any:
    """Raises CsprError with one line where the file is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise CsprError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise CsprError(f"{path}: cannot be read ({error})") from None


def read_record(path: Path, names: Sequence[str], remedy: str) -> Dict[str, Any]:
    """A JSON object that has these names. Raises CsprError with the ``remedy`` where the file is missing, damaged or other."""
    try:
        values = read_json(path)
    except CsprError as error:
        raise CsprError(f"{error}; {remedy}") from None
    missing = names if not isinstance(values, dict) else [name for name in names if name not in values]
    if missing:
        raise CsprError(f"{path}: is damaged, it has no {missing[0]!r}; {remedy}")
    return dict(values)


def _rows_arrays(dataset: Dataset) -> Dict[str, np.ndarray]:
    arrays: Dict[str, np.ndarray] = {
        "visible": dataset.visible,
        "box": np.array([dataset.box, dataset.box_pixel]),
        "source": np.array(dataset.source),
    }
    for kind, table in (("series", dataset.series), ("exposures", dataset.exposures), ("particles", dataset.particles)):
        for name, values in table.columns.items():
            arrays[f"{kind}.{name}"] = values
    for name, texts in dataset.extra.items():
        arrays[f"extra.{name}"] = np.asarray(texts, dtype=str)
    return arrays


def hash_rows(dataset: Dataset) -> str:
    """Hex digest of the tables' content."""
    digest = hashlib.blake2b(digest_size=16)
    arrays = _rows_arrays(dataset)
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def hash_array(values: np.ndarray) -> str:
    """Hex digest of an array's content and shape."""
    digest = hashlib.blake2b(f"{values.dtype} {values.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def write_rows(path: Path, dataset: Dataset) -> int:
    """The tables of a data set, bit for bit; returns the bytes written."""
    return write_arrays(path, _rows_arrays(dataset))


def read_rows(path: Path) -> Dataset:
    """The data set of ``write_rows``. Raises CsprError where the file is missing or damaged."""
    with read_arrays(path, "plan the run again") as arrays:
        series, exposures, particles = (
            Table(schema, {c.name: arrays[f"{kind}.{c.name}"] for c in schema if f"{kind}.{c.name}" in arrays})
            for kind, schema in (("series", SERIES), ("exposures", EXPOSURES), ("particles", PARTICLES))
        )
        extra = {name[6:]: arrays[name].tolist() for name in arrays if name.startswith("extra.")}
        box, box_pixel = arrays["box"]
        return Dataset(series, exposures, particles, arrays["visible"], int(box), float(box_pixel), extra,
                       str(arrays["source"]))


@contextmanager
def read_arrays(path: Path, remedy: str) -> Iterator[Dict[str, np.ndarray]]:
    """The arrays of ``write_arrays``. Raises CsprError with the ``remedy`` where the file is missing or damaged, or where what
    the caller looks for in them is not there or does not fit.
    """
    try:
        yield _stored_arrays(path)
    except UNREADABLE as error:
        raise CsprError(f"{path}: cannot be read ({error}); {remedy}") from None


def _stored_arrays(path: Path) -> Dict[str, np.ndarray]:
    """The arrays of an .npz that is not compressed. Nothing is made that is larger than the file, whatever the file says."""
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > os.path.getsize(path):
            raise ValueError("its parts are larger than the file")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("its parts are compressed, which it was not written with")
        for member in members:
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read_header(stream)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize != member.file_size - stream.tell():
                    raise ValueError(f"{member.filename}: its header does not fit it")
            with archive.open(member) as stream:
                values = np.lib.format.read_array(stream, allow_pickle=False)
            name = member.filename[: -len(".npy")] if member.filename.endswith(".npy") else member.filename
            arrays[name] = values
    return arrays


def read_tables(path: Path, count: int, remedy: str) -> List[Dict[str, np.ndarray]]:
    """The arrays ``i.name`` of an .npz by i, the row of one of ``count`` series; the errors of ``read_arrays``."""
    tables: List[Dict[str, np.ndarray]] = [{} for _ in range(count)]
    with read_arrays(path, remedy) as arrays:
        for name, values in arrays.items():
            row, column = name.split(".", 1)
            tables[int(row)][column] = values
    return tables


class RunStore:
    """A run folder. Opening one that exists is how a run resumes."""

    def __init__(self, folder: Union[str, os.PathLike[str]]) -> None:
        self.folder = Path(folder).absolute()

    # --- the plan -------------------------------------------------------------------------------------------------

    @property
    def plan_path(self) -> Path:
        return self.folder / "run.json"

    @property
    def dataset_path(self) -> Path:
        return self.folder / "dataset.npz"

    def rows_path(self, index: int) -> Path:
        return self.task_path(index).with_suffix(".npz")

    @property
    def result_path(self) -> Path:
        """The data set as merged: that of the plan, or with its rows refined."""
        return self.folder / "result.npz"

    @property
    def refinement_path(self) -> Path:
        return self.folder / "refinement.npz"

    def reference_path(self, number: int) -> Path:
        return self.folder / f"reference{number}.mrc"

    def create(self) -> None:
        """Make the folders; InputError where that is not allowed."""
        try:
            (self.folder / "tasks").mkdir(parents=True, exist_ok=True)
            (self.folder / "chunks").mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be made ({error.strerror}); choose a folder that can be written") from None
        if not os.access(self.folder, os.W_OK):
            raise InputError(f"{self.folder}: cannot be written; choose another folder")

    def plan(self) -> Dict[str, Any]:
        if not os.path.exists(self.plan_path):
            raise InputError(f"{self.folder}: holds no run; make one with `cspr plan` or `cspr reconstruct`")
        return read_record(self.plan_path, ("hash", "grid", "chunks"), f"delete {self.folder} and start again")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands out of the folder, which must be there. Raises CsprError where one is at work in it.

        Chunks take no lock: they only write into folders of their own. Not all network file systems have locks; there, two
        commands in one folder are not noticed. The system lets go of the lock of a process that ends, however it ends.
        """
        path = self.folder / ".lock"
        try:
            stream = open(path, "a")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CsprError(f"{self.folder}: another cspr works in this folder; wait until it is done, or give another "
                                "--out") from None
            except OSError:
                pass
            yield

    def grid(self) -> MapGrid:
        return MapGrid(**self.plan()["grid"])

    def task_path(self, index: int) -> Path:
        return self.folder / "tasks" / f"{index:04d}.json"

    def task_paths(self) -> List[Path]:
        return [self.task_path(index) for index in range(len(self.plan()["chunks"]))]

    # --- chunks ---------------------------------------------------------------------------------------------------

    def chunk_folder(self, index: int) -> Path:
        return self.folder / "chunks" / f"{index:04d}"

    def manifest_only(self, task: ChunkTask) -> Optional[Dict[str, Any]]:
        """The manifest of a chunk that was finished, even if its sums were removed after the merge."""
        path = self.chunk_folder(task.index) / "manifest.json"
        if not os.path.exists(path):
            return None
        try:
            manifest = read_record(path, ("task_hash", "files", "journal"), "")
        except CsprError:
            return None
        return manifest if manifest["task_hash"] == task.hash else None

    def manifest(self, task: ChunkTask) -> Optional[Dict[str, Any]]:
        """The manifest of a finished chunk, or None where it is missing, of another task, or not whole."""
        folder = self.chunk_folder(task.index)
        manifest = self.manifest_only(task)
        if manifest is None:
            return None
        for name, size in manifest["files"].items():
            file = folder / name
            if not os.path.exists(file) or os.path.getsize(file) != size:
                return None
        return manifest

    def unfinished(self) -> List[Path]:
        """Task files of the plan's chunks that are not done, or not whole."""
        paths = self.task_paths()
        return [path for path in paths if self.manifest(ChunkTask.from_dict(read_json(path), str(path))) is None]

    def write_chunk(
        self,
        task: ChunkTask,
        sums: Sums,
        journal: Dict[str, Any],
        rows: Optional[Dataset] = None,
        outcomes: Sequence[SeriesOutcome] = (),
    ) -> Dict[str, Any]:
        """The sums, of a refining chunk its new rows and outcomes, and the manifest last."""
        folder = self.chunk_folder(task.index)
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for half, accumulator in enumerate(sums, start=1):
            files[f"half{half}.sums"] = write_sums(folder / f"half{half}.sums", accumulator.sums)
        if rows is not None:
            files["rows.npz"] = write_rows(folder / "rows.npz", rows)
            tables = {f"{i}.{name}": values for i, one in enumerate(outcomes) for name, values in one.tables().items()}
            files["outcome.npz"] = write_arrays(folder / "outcome.npz", tables)
            journal = dict(journal, refinement=[one.report for one in outcomes])
        manifest = Manifest(task.hash, files, journal).to_dict()
        write_json(folder / "manifest.json", manifest)
        return manifest

    def read_sum(self, index: int, half: int, grid: MapGrid) -> Accumulator:
        path = self.chunk_folder(index) / f"half{half}.sums"
        try:
            return Accumulator(grid.box, grid.padding, grid.radius, read_sums(path))
        except (OSError, ValueError) as error:
            raise CsprError(f"{path}: cannot be read ({error}); delete {path.parent} and run again") from None

    def read_refined(self, index: int) -> Tuple[Dataset, List[Dict[str, np.ndarray]]]:
        """The rows of a refining chunk, and the outcome tables of each of its series."""
        folder = self.chunk_folder(index)
        dataset = read_rows(folder / "rows.npz")
        return dataset, read_tables(folder / "outcome.npz", len(dataset.series), f"delete {folder} and run again")

    def remove_sums(self) -> None:
        """The partial sums are larger than the maps; once merged they are not needed. Manifests and journals stay."""
        for path in self.folder.glob("chunks/*/half*.sums"):
            path.unlink()

    # --- the result -----------------------------------------------------------------------------------------------

    def finished(self) -> Optional[Dict[str, Any]]:
        """summary.json, or None while the run is not whole."""
        path = self.folder / "summary.json"
        if not os.path.exists(path):
            return None
        return read_record(path, ("resolution_0143", "seconds"), "delete it and run again")

    def clean(self, chunks: bool = False) -> None:
        """Remove what a killed process left half-written; of ``chunks`` as well only where none can be running, as the jobs of
        a command that was killed may."""
        for path in self.folder.rglob(".*.part"):
            if chunks or "chunks" not in path.relative_to(self.folder).parts:
                path.unlink(missing_ok=True)
