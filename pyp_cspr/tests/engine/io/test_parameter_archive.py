from __future__ import annotations

import bz2
import io
import tarfile

import numpy as np
import pytest

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.cistem import CistemTable, ExtendedTable, column_statistics, format_cistem, new_projections
from pyp_cspr.engine.io.cistem_columns import DTYPES, PARTICLE_COLUMNS, TILT_COLUMNS
from pyp_cspr.engine.io.frealign import KINDS, ParTable
from pyp_cspr.engine.io.parameter_archive import read_archive, read_archive_stat, write_archive
from pyp_cspr.tests.golden import cistem as golden


def make_extended(count):
    particles = CistemTable({name: np.arange(count).astype(DTYPES[kind]) for name, _, kind in PARTICLE_COLUMNS})
    return ExtendedTable(particles, CistemTable({name: np.arange(3).astype(DTYPES[kind]) for name, _, kind in TILT_COLUMNS}))


def make_tables(random):
    tables = {}
    for name, count in (("TS_01_r01", 12), ("TS_02_r01", 7)):
        table = new_projections(count)
        table.columns["PSI"][:] = random.uniform(0, 360, count)
        tables[name] = (table, make_extended(count // 3))
    return tables


def pack(path, members, compress=bz2.compress, form=tarfile.PAX_FORMAT):
    """A tar in bzip2 as someone else makes it; values are bytes or TarInfo."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in members:
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                archive.addfile(info)
    path.write_bytes(compress(buffer.getvalue()))


def test_round_trip(tmp_path, random):
    tables = make_tables(random)
    par = ParTable("parx", {name: np.arange(4) if places < 0 else np.full(4, 0.25) for name, _, places in KINDS["parx"]})
    par.columns["LOGP"] = np.zeros(4)
    par.columns.update({name: np.full(4, 10.0) for name, _, places in KINDS["parx"] if places in (0, 1)})
    tables["TS_03_r01"] = (par, None)
    stat = column_statistics([table for table, _ in list(tables.values())[:2]])
    path = tmp_path / "data_r01_02.bz2"
    write_archive(path, tables, stat)
    with tarfile.open(path, "r:bz2") as archive:  # PYP's names
        assert archive.getnames() == ["data_r01_02"] + [
            f"data_r01_02/{name}"
            for name in ("TS_01_r01.cistem", "TS_01_r01_extended.cistem", "TS_02_r01.cistem", "TS_02_r01_extended.cistem",
                         "TS_03_r01.parx", "data_r01_stat.cistem")
        ]
    back = read_archive(path)
    assert list(back) == list(tables)
    for name in ("TS_01_r01", "TS_02_r01"):
        table, extended = back[name]
        for column, values in tables[name][0].columns.items():
            assert table.columns[column].tobytes() == values.tobytes()
        assert extended.particles.columns["PIND"].tolist() == tables[name][1].particles.columns["PIND"].tolist()
        assert len(extended.tilts) == 3
    table, extended = back["TS_03_r01"]
    assert table.kind == "parx"
    assert extended is None
    assert table.columns["PSI"].tolist() == [0.25] * 4
    assert read_archive_stat(path).columns["PSI"].tolist() == stat.columns["PSI"].tolist()
    first = path.read_bytes()
    write_archive(path, tables, stat)
    assert path.read_bytes() == first
    with tarfile.open(path) as archive:  # the folder as it lies gives the same
        for member in archive.getmembers():
            if member.isfile():
                (tmp_path / "folder").mkdir(exist_ok=True)
                (tmp_path / "folder" / member.name.rsplit("/", 1)[-1]).write_bytes(archive.extractfile(member).read())
    (tmp_path / "folder" / ".hidden.cistem").write_bytes(b"x")
    (tmp_path / "folder" / "notes.txt").write_bytes(b"x")
    assert list(read_archive(tmp_path / "folder")) == list(tables)
    assert len(read_archive_stat(tmp_path / "folder")) == 2


def test_archives_of_parallel_packers(tmp_path):
    """pbzip2, which PYP packs with, writes many bzip2 streams one after the other."""
    table = new_projections(3000)
    table.columns["PSI"][:] = np.random.default_rng(1).random(3000)
    def compress(data):
        return b"".join(bz2.compress(data[start : start + 10_000]) for start in range(0, len(data), 10_000))

    pack(tmp_path / "a.bz2", [("f/x_r01.cistem", format_cistem(table)), ("f/x_r01_used.cistem", b"left out")], compress)
    back = read_archive(tmp_path / "a.bz2")
    assert list(back) == ["x_r01"]
    assert back["x_r01"][0].columns["PSI"].tobytes() == table.columns["PSI"].tobytes()
    assert back["x_r01"][1] is None
    assert read_archive_stat(tmp_path / "a.bz2") is None


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../../a.cistem", golden.PROJECTIONS)], "leads out of the archive"),
        ([("/etc/a.cistem", golden.PROJECTIONS)], "leads out of the archive"),
        ([("f/../a.cistem", golden.PROJECTIONS)], "leads out of the archive"),
        ([("a", link("f/a.cistem", "/etc/passwd", tarfile.SYMTYPE))], "is not a plain file"),
        ([("a", link("f/a.cistem", "b", tarfile.LNKTYPE))], "is not a plain file"),
        ([("a", link("f/a.cistem", "", tarfile.FIFOTYPE))], "is not a plain file"),
        ([("f/a.cistem", golden.PROJECTIONS), ("g/a.cistem", golden.PROJECTIONS)], "a.cistem a second time"),
        ([("f/a_extended.cistem", golden.EXTENDED)], "a_extended.cistem without a.cistem"),
        ([("f/a.txt", b"x")], "no .cistem, .par or .parx"),
        ([("f/a.cistem", golden.PROJECTIONS[:-1])], r"a\.bz2: a\.cistem: row 2: ends at byte"),
        ([("f/a.cistem", golden.EXTENDED)], r"a\.bz2: a\.cistem: "),
        ([("f/a.par", b"1 2 3\n")], r"a\.par: line 1: 3 columns"),
        ([("f/a.par", b"1 2 3\n"), ("f/a.cistem", golden.PROJECTIONS)], r"a\.par: line 1"),
    ],
)
def test_refused_archives(tmp_path, members, message):
    pack(tmp_path / "a.bz2", members)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message) as caught:
        read_archive(tmp_path / "a.bz2")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_truncated_and_foreign_files(tmp_path):
    path = tmp_path / "a.bz2"
    pack(path, [("f/a.cistem", golden.PROJECTIONS), ("f/a_extended.cistem", golden.EXTENDED)])
    assert isinstance(read_archive(path)["a"][1], ExtendedTable)
    data = path.read_bytes()
    for end in [0, 1, 4, 20, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:end])
        with pytest.raises(InputError, match=r"a\.bz2"):
            read_archive(path)
    tar = bz2.decompress(data)
    for end in (0, 100, 512, 700, 1000):
        path.write_bytes(bz2.compress(tar[:end]))
        with pytest.raises(InputError, match=r"a\.bz2"):
            read_archive(path)
    for content in (b"hello", golden.PROJECTIONS, bz2.compress(b"hello" * 1000)):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a parameter archive"):
            read_archive(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_archive(tmp_path / "missing.bz2")


def test_a_small_file_cannot_fill_the_memory(tmp_path):
    path = tmp_path / "a.bz2"
    compressor = bz2.BZ2Compressor()
    info = tarfile.TarInfo("f/a.cistem")
    info.size = 150 * 2**20
    parts = [compressor.compress(info.tobuf())] + [compressor.compress(bytes(2**20)) for _ in range(150)]
    path.write_bytes(b"".join(parts) + compressor.flush())
    assert path.stat().st_size < 2**14
    with pytest.raises(InputError, match="has 157286400 bytes; unpack it"):
        read_archive(path)
    info.size = 2**62  # only said
    path.write_bytes(bz2.compress(info.tobuf() + b"x"))
    with pytest.raises(InputError, match="bytes; unpack it"):
        read_archive(path)
    info.name, info.size = "f/a.txt", 70 * 2**20  # a file that is not wanted
    path.write_bytes(bz2.compress(info.tobuf() + bytes(info.size)))
    with pytest.raises(InputError, match="unpack"):
        read_archive(path)
    pack(path, [("f/a.cistem", golden.PROJECTIONS)])
    with pytest.raises(InputError, match="unpack it"):
        read_archive(path, limit=600)
    assert len(read_archive(path, limit=20_000)) == 1


def test_names_are_checked_on_writing(tmp_path, random):
    tables = make_tables(random)
    for name in ("a/b", "..", "", ".a"):
        with pytest.raises(ValueError, match="no name"):
            write_archive(tmp_path / "a.bz2", {name: tables["TS_01_r01"]})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_archive(tmp_path / "file" / "a.bz2", tables)
