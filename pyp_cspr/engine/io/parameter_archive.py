"""PYP's parameter archives: a folder of one table for each series, as it lies or packed (``DATASET_rCC_II.bz2``, tar).

Nothing is unpacked to disk: members are read in memory, under the last part of their names, so no name can lead out of a
folder; links are refused and sizes are bounded, so a small file cannot fill the memory.
"""

from __future__ import annotations

import bz2
import io
import os
import tarfile
from contextlib import contextmanager
from typing import BinaryIO, Dict, Iterator, List, Optional, Tuple, Union

from ..errors import InputError
from .boxes import is_name
from .cistem import CistemTable, ExtendedTable, format_cistem, format_extended, parse_cistem, parse_extended
from .frealign import ParTable, format_par, parse_par, read_par
from .mrc import write_aside
from .text import PathLike, read_bytes

SeriesTable = Tuple[Union[CistemTable, ParTable], Optional[ExtendedTable]]

EXTENDED, STAT, USED = "_extended", "_stat", "_used"
PAR_SUFFIXES = (".par", ".parx")
# Tables of numbers pack 3 to 20 times.
LARGEST_RATIO = 200
SMALL_ENOUGH = 64 * 2**20


def read_archive(path: PathLike, limit: int = 0) -> Dict[str, SeriesTable]:
    """Tables by name (``SERIES_rCC``) of a packed archive, or of a folder: (projections, particles and tilts).

    A name's second part is None where there is no ``_extended.cistem``, and always for ``.par`` and ``.parx``. The data set's
    own ``_stat.cistem`` and selections (``_used.cistem``) are left out. ``limit``: bytes that the archive may unpack to; 0: 200
    times its size. Raises InputError for all that is no such archive.
    """
    name = os.fspath(path)
    tables: Dict[str, Union[CistemTable, ParTable]] = {}
    extended: Dict[str, ExtendedTable] = {}
    for member, data in _members(name, limit):
        where = f"{name}: {member}"
        stem, suffix = os.path.splitext(member)
        if stem.endswith((STAT, USED)):
            continue
        if suffix == ".cistem" and stem.endswith(EXTENDED):
            extended[stem[: -len(EXTENDED)]] = parse_extended(data, where)
            continue
        if stem in tables:
            raise InputError(f"{where}: a second table of {stem}; remove one")
        tables[stem] = parse_cistem(data, where) if suffix == ".cistem" else parse_par(data, where)
    alone = [stem for stem in extended if not isinstance(tables.get(stem), CistemTable)]
    if alone:
        raise InputError(f"{name}: {alone[0]}{EXTENDED}.cistem without {alone[0]}.cistem; make the archive again")
    if not tables:
        raise InputError(f"{name}: no .cistem, .par or .parx in it; give a parameter archive of PYP")
    return {stem: (table, extended.get(stem)) for stem, table in tables.items()}


def read_archive_stat(path: PathLike, limit: int = 0) -> Optional[CistemTable]:
    """The data set's ``_stat.cistem`` (means, variances) of an archive or folder, None where it has none. Raises InputError."""
    name = os.fspath(path)
    for member, data in _members(name, limit):
        if member.endswith(STAT + ".cistem"):
            return parse_cistem(data, f"{name}: {member}")
    return None


def is_par(path: PathLike) -> bool:
    """Whether a path names one table of text, and no archive."""
    return os.fspath(path).endswith((*PAR_SUFFIXES, *(suffix + ".bz2" for suffix in PAR_SUFFIXES)))


def read_packed_par(path: PathLike, limit: int = 0) -> ParTable:
    """A ``.par`` or ``.parx`` as it lies or packed (``.par.bz2``, ``.parx.bz2``); ``limit`` as in ``read_archive``.

    Raises InputError.
    """
    name = os.fspath(path)
    if not name.endswith(".bz2"):
        return read_par(path)
    with _unpacked(name, limit) as bounded:
        try:
            data = bounded.read()
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"{name}: not a table packed with bzip2: {' '.join(str(error).split())}; pack it again") from None
    return parse_par(data, name)


def _is_table(member: str) -> bool:
    suffix = os.path.splitext(member)[1]
    return not member.startswith(".") and (suffix == ".cistem" or suffix in PAR_SUFFIXES)


def _members(name: str, limit: int) -> Iterator[Tuple[str, bytes]]:
    """(name without folders, bytes) of every table."""
    if os.path.isdir(name):
        for member in sorted(os.listdir(name)):
            if _is_table(member):
                yield member, read_bytes(os.path.join(name, member))
        return
    with _unpacked(name, limit) as bounded:
        seen = set()
        try:
            with tarfile.open(fileobj=bounded, mode="r|") as archive:
                for info in archive:
                    member = _safe_name(info, bounded, name)
                    if not member or not _is_table(member):
                        continue
                    if member in seen:
                        raise InputError(f"{name}: {member} a second time; make the archive again")
                    seen.add(member)
                    file = archive.extractfile(info)
                    data = file.read() if file is not None else b""
                    if len(data) != info.size:
                        raise InputError(f"{name}: {member}: ends early; copy or make the archive again")
                    yield member, data
            while bounded.read(2**16):  # to the end, so that a file cut short is noticed
                pass
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{name}: not a parameter archive (tar in bzip2): {reason}; copy or make it again") from None


@contextmanager
def _unpacked(name: str, limit: int) -> Iterator[_Bounded]:
    """The bytes of a file packed with bzip2. Raises InputError where it cannot be opened."""
    try:
        size = os.path.getsize(name)
        source = open(name, "rb")
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}; check the path") from None
    with source:
        yield _Bounded(source, limit or max(SMALL_ENOUGH, LARGEST_RATIO * size), name)


def _safe_name(info: tarfile.TarInfo, bounded: _Bounded, name: str) -> str:
    """The member's name without folders, empty for a folder. Raises InputError for what no parameter archive has."""
    if info.isdir():
        return ""
    if not info.isreg() or info.issparse():
        raise InputError(f"{name}: {info.name[:80]!r} is not a plain file; pack the files themselves")
    if info.name.startswith("/") or ".." in info.name.split("/"):
        raise InputError(f"{name}: {info.name[:80]!r} leads out of the archive; nothing of it is read")
    if info.size > bounded.left:
        raise InputError(f"{name}: {info.name[:80]!r} has {info.size} bytes; unpack it and give the folder if this is right")
    return info.name.rsplit("/", 1)[-1]


class _Bounded(io.RawIOBase):
    """The unpacked bytes of a bzip2 file (of several streams, as parallel packers write), never more than ``limit``."""

    def __init__(self, source: BinaryIO, limit: int, name: str) -> None:
        super().__init__()
        self.file = bz2.BZ2File(source)
        self.left = limit
        self.name = name

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(self.left + 1 if size < 0 else min(size, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise InputError(f"{self.name}: unpacks to far more than tables can; unpack it and give the folder if it is right")
        return data


def write_archive(path: PathLike, tables: Dict[str, SeriesTable], stat: Optional[CistemTable] = None) -> None:
    """Pack tables by name as PYP does: in a folder that is named as the archive, ``NAME.cistem`` and ``NAME_extended.cistem``,
    or ``NAME.par`` and ``NAME.parx``; ``stat`` is the data set's ``_stat.cistem``.

    Equal tables give equal bytes. The file appears whole or not at all. Raises InputError where it cannot be written,
    ValueError for what cannot be a table's name.
    """
    folder = os.path.splitext(os.path.basename(os.fspath(path)))[0]
    bad = [name for name in [folder, *tables] if not is_name(name) or name.startswith(".")]
    if bad:
        raise ValueError(f"{bad[0]!r} is no name of a table")

    def write(temporary: str) -> None:
        with tarfile.open(temporary, "w:bz2", format=tarfile.GNU_FORMAT) as archive:
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
            for name, (table, extended) in tables.items():
                for member, data in _files(name, table, extended):
                    _add(archive, f"{folder}/{member}", data)
            if stat is not None:
                _add(archive, f"{folder}/{_stat_name(folder)}", format_cistem(stat))

    write_aside(path, write)


def _files(name: str, table: Union[CistemTable, ParTable], extended: Optional[ExtendedTable]) -> List[Tuple[str, bytes]]:
    if isinstance(table, ParTable):
        text = "".join(line + "\n" for line in format_par(table))
        return [(name + (".parx" if table.extended else ".par"), text.encode())]
    files = [(name + ".cistem", format_cistem(table))]
    if extended is not None:
        files.append((f"{name}{EXTENDED}.cistem", format_extended(extended)))
    return files


def _stat_name(folder: str) -> str:
    """``DATASET_rCC_stat.cistem`` of ``DATASET_rCC_II``."""
    head, _, last = folder.rpartition("_")
    return f"{head if head and last.isdecimal() else folder}{STAT}.cistem"


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    archive.addfile(info, io.BytesIO(data))
