"""Every reader, fed with damaged and invented files: it reads them or says in one line what is wrong, and needs little for it.

A few hundred cases for each reader in the fast suite; with ``CSPR_FUZZ_CASES=20000`` 20,000 damaged and 1,000 invented ones.
"""

from __future__ import annotations

import bz2
import os
import pickle
import re
import struct
import tarfile
import time
import tracemalloc
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyp_cspr.engine.errors import CsprError, InputError
from pyp_cspr.engine.io import boxes, cistem, config, frealign, imod, mrc, statistics_txt, volumes_txt
from pyp_cspr.engine.io.parameter_archive import read_archive, read_archive_stat, write_archive
from pyp_cspr.engine.io.pyp_pickle import read_pkl
from pyp_cspr.engine.io.pyp_series import PypSeries
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.io.relion_spa import read_spa, write_spa
from pyp_cspr.engine.io.relion_writing import write_dataset
from pyp_cspr.engine.io.star import StarBlock, read_star, write_star
from pyp_cspr.engine.model.settings import ReconstructSettings, RefineSettings
from pyp_cspr.engine.pipeline import store
from pyp_cspr.engine.pipeline.convert_pyp import read_pyp, write_pyp
from pyp_cspr.engine.pipeline.pyp_metadata import SeriesFiles
from pyp_cspr.tests.engine.io.projects import PIXEL, make_dataset
from pyp_cspr.tests.engine.io.test_frealign import make as make_par
from pyp_cspr.tests.engine.io.test_parameter_archive import make_tables
from pyp_cspr.tests.golden import cistem as golden

CASES = int(os.environ.get("CSPR_FUZZ_CASES", "200"))
INVENTED = max(CASES // 20, 100)
SECONDS = 20.0  # for one case, on a busy computer; all but a few take less than 0.01
MEMORY = 48 * 2**20  # bytes held at once while reading files of a few kilobytes

NASTY = [
    *(b"nan", b"inf", b"-inf", b"1e999", b"1e300", b"1e-320", b"-1", b"0", b"1.5", b"1_0", b"0x10", b"2147483648", b""),
    *(b"99999999999999999999", b"-9223372036854775809", b"\0", b"\xc3\xa9", b"\xff", b"\xd9\xa3", b"\xe2\x80\xa8", b"\x0c"),
    *(b"'", b'"', b"#", b"C", b"[", b"{", b"=", b"\r", b"\n", b"\t", b"data_", b"loop_", b"_x", b"true", b"a" * 5000),
]
EXTREME = [0, 1, -1, 2, 255, 2**15, 2**31 - 1, -(2**31), 2**24, 2**30, 10**9]


Files = Dict[str, bytes]  # by their names in a folder


class Reader(NamedTuple):
    """How to read, and sound input for it."""

    read: Callable[[Path], Any]
    seeds: List[Files]
    text: bool = True


def damage(data: bytes, random: np.random.Generator, text: bool) -> bytes:
    """One to four changes: bits, bytes, header numbers, words, and parts cut out, doubled, moved or put in."""
    buffer = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        place = int(random.integers(0, len(buffer) + 1))
        if random.random() < 0.4:
            place = min(place, int(random.integers(0, 120)))  # headers
        length = int(min(random.integers(1, 40), len(buffer) - place))
        kind = int(random.integers(0, 9))
        if kind == 0 and length:
            buffer[place] ^= 1 << int(random.integers(0, 8))
        elif kind == 1 and length:
            buffer[place] = int(random.choice([0, 255, 127, 128, 32, 10, 45, int(random.integers(0, 256))]))
        elif kind == 2:
            del buffer[place : place + length]
        elif kind == 3:
            buffer[place:place] = buffer[place : place + length] * int(random.integers(1, 4))
        elif kind == 4:
            del buffer[place:]
        elif kind == 5:
            buffer[place:place] = random.bytes(length)
        elif kind == 6 and not text:
            form = str(random.choice(["<i", ">i", "<q", "<h"]))
            value = int(random.choice(EXTREME))
            raw = struct.pack(form, value if form != "<h" else (value + 2**15) % 2**16 - 2**15)
            buffer[place : place + len(raw)] = raw
        elif text:  # a word for another
            words = bytes(buffer).split(b" ")
            words[int(random.integers(0, len(words)))] = NASTY[int(random.integers(0, len(NASTY)))]
            buffer = bytearray(b" ".join(words))
        else:
            buffer[place : place + length] = bytes(length)
    return bytes(buffer)


TOKENS = st.one_of(
    st.sampled_from([word.decode("latin-1") for word in NASTY]),
    st.integers(-5, 10**6).map(str),
    st.floats(width=32).map(repr),
    st.sampled_from(["loop_", "data_particles", "_rlnTomoName #1", "EXCLUDELIST", "number", "PTLIDX", "Yes", "x_spk0001.rec"]),
    st.text(max_size=8),
)
LINES = st.lists(st.lists(TOKENS, max_size=18).map(" ".join), max_size=12).map("\n".join)
REPEATED = st.builds(lambda line, times: (line + "\n") * times, st.lists(TOKENS, max_size=48).map("\t".join), st.integers(1, 4))
TEXT = st.one_of(LINES, REPEATED, st.text(max_size=200)).map(lambda text: text.encode("utf-8", "surrogatepass"))
IDENTITY = st.one_of(st.sampled_from(sorted(cistem.NAMES)), st.integers(-(2**63), 2**63 - 1))
TABLE = st.builds(
    lambda columns, counts, rows: struct.pack("<ii", len(columns) + counts[0], counts[1])
    + b"".join(struct.pack("<qb", *column) for column in columns) + rows,
    st.lists(st.tuples(IDENTITY, st.one_of(st.integers(1, 9), st.integers(-128, 127))), max_size=8),
    st.tuples(st.one_of(st.just(0), st.integers(-3, 2**30)), st.one_of(st.integers(0, 3), st.integers(-(2**31), 2**31 - 1))),
    st.one_of(st.binary(max_size=200), st.just(bytes(64))),
)
BLOCKS = st.lists(st.tuples(st.sampled_from([15, 35, 0, -1]), TABLE), max_size=3).map(
    lambda blocks: b"".join(struct.pack("<q", block) + table for block, table in blocks)
)
MRC = st.builds(
    lambda sizes, tail, rest: (struct.pack("<4i", *sizes) + tail).ljust(1024, b"\0")[:1024] + rest,
    st.lists(st.one_of(st.integers(0, 8), st.integers(-(2**31), 2**31 - 1)), min_size=4, max_size=4),
    st.binary(max_size=240),
    st.binary(max_size=400),
)
TAR = st.one_of(st.binary(max_size=300), st.binary(max_size=1500).map(lambda data: data.ljust(2048, b"\0"))).map(bz2.compress)
BINARY = st.one_of(st.binary(max_size=400), TABLE, BLOCKS, MRC, TAR)


def _seed(folder: Path, write: Callable[..., None], *values: Any, name: str = "file") -> Files:
    path = folder / name
    write(path, *values)
    return {name: path.read_bytes()}


def _stars(folder: Path, stacks: bool) -> Files:
    folder.mkdir()
    write_dataset(make_dataset(folder, stacks=stacks, images=False), folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.star"))}


def _maps(folder: Path) -> List[Files]:
    seeds = []
    for kind in ("int8", "int16", "uint16", "float16", "float32"):
        seeds.append(_seed(folder, mrc.write_map, np.arange(60).reshape(3, 4, 5).astype(kind), 1.5))
    extended = bytearray(seeds[-1]["file"])
    extended[92:96] = struct.pack("<i", 128)
    swapped = struct.pack(">4i", 2, 2, 1, 2) + bytes(seeds[-1]["file"][16:208]) + b"MAP \x11\x11\0\0" + bytes(808) + bytes(16)
    return [*seeds, {"file": bytes(extended[:1024]) + bytes(128) + bytes(extended[1024:])}, {"file": swapped}]


def _imod(folder: Path) -> Files:
    imod.write_xf(folder / "file.xf", np.tile(np.eye(2), (3, 1, 1)), np.zeros((3, 2)))
    imod.write_angles(folder / "file.tlt", [-3.0, 0.0, 3.0])
    imod.write_angles(folder / "file.xtilt", [0.0, 0.0, 0.5])
    files = {name: (folder / name).read_bytes() for name in ("file.xf", "file.tlt", "file.xtilt")}
    return {**files, "tilt.com": b"$tilt\nXAXISTILT 1.5\nEXCLUDELIST 2\n", "newst.com": b"$newstack\nExcludeSections 0\n"}


def _general(folder: Path) -> Dict[str, Reader]:
    """The engine's own files, RELION's and IMOD's."""
    star = [StarBlock("general", {"rlnA": ["1"]}, False), StarBlock("p", {"rlnX": ["1.5", "a b"], "rlnY": ["[1,2]", "x"]})]
    files = _imod(folder)
    given = _seed(folder, config.write_settings, ReconstructSettings(box=64))
    refine = _seed(folder, config.write_settings, RefineSettings())
    stars = [_stars(folder / "relion", False), _stars(folder / "stacks", True)]
    write_spa(make_dataset(folder), folder / "spa", box=4)
    spa = {"file": (folder / "spa" / "particles.star").read_bytes()}
    return {
        "star": Reader(read_star, [_seed(folder, write_star, star)]),
        "xf": Reader(imod.read_xf, [{"file": files["file.xf"]}]),
        "tlt": Reader(imod.read_angles, [{"file": files["file.tlt"]}]),
        "imod": Reader(lambda path: imod.read_alignment(path.parent / "file.st"), [files]),
        "toml": Reader(config.read_toml, [_seed(folder, config.write_toml, {"a": {"b": [1, 2.5, "x"]}})]),
        "settings": Reader(lambda path: config.read_settings(path, ReconstructSettings), [given]),
        "refine": Reader(lambda path: config.read_settings(path, RefineSettings), [refine]),
        "json": Reader(config.read_json, [_seed(folder, config.write_json, {"a": [1, None, {"b": "x"}]})]),
        "relion": Reader(lambda path: read_dataset(path.parent, need_images=False), stars),
        "spa": Reader(lambda path: read_spa(path, (60, 46)), [spa]),
    }


def _pyp(folder: Path) -> Dict[str, Reader]:
    """PYP's and FREALIGN's text files."""
    random = np.random.default_rng(7)
    volumes = volumes_txt.new_volumes(4)
    volumes.matrix[:, :3] = random.normal(size=(4, 3, 4)).round(3)
    volumes.filename = [f"TS_vir0001_spk{row:04d}.mrc" for row in range(4)]
    all_boxes = boxes.AllBoxes(np.arange(8).reshape(4, 2), np.arange(4), np.zeros(4, int))
    boxes3d = boxes.Boxes3d(np.arange(3), np.ones((3, 3)), np.ones(3), np.array([True, False, True]))
    fsc = statistics_txt.FscTable(np.array([40.0, 20.0, 10.0]), np.array([[1, 1], [0.9, 0.95], [0.1, 0.2]]))
    curve = np.linspace(1, 0, 8)
    statistics = statistics_txt.new_statistics(2.0, 16, curve, curve, curve, curve)
    pars = [_seed(folder, frealign.write_par, make_par(kind, random, 4)) for kind in frealign.KINDS]
    named = _seed(folder, volumes_txt.write_volumes, volumes)
    scores = _seed(folder, statistics_txt.write_exposure_scores, [1.0, -1.0])
    without = _seed(folder, frealign.write_par, make_par("parx", random, 3), False)
    return {
        "par": Reader(frealign.read_par, pars),
        "allparxs": Reader(lambda path: frealign.read_par(path, numbered=False), [without]),
        "volumes": Reader(lambda path: volumes_txt.read_volumes(path).keys(), [named]),
        "coordinates": Reader(volumes_txt.read_coordinates, [_seed(folder, volumes_txt.write_coordinates, np.ones((3, 4)))]),
        "allboxes": Reader(boxes.read_allboxes, [_seed(folder, boxes.write_allboxes, all_boxes)]),
        "boxes3d": Reader(boxes.read_boxes3d, [_seed(folder, boxes.write_boxes3d, boxes3d)]),
        "films": Reader(boxes.read_names, [_seed(folder, boxes.write_names, ["TS_01", "TS_02", "TS 3"])]),
        "fsc": Reader(statistics_txt.read_fsc, [_seed(folder, statistics_txt.write_fsc, fsc)]),
        "statistics": Reader(statistics_txt.read_statistics, [_seed(folder, statistics_txt.write_statistics, statistics)]),
        "scores": Reader(statistics_txt.read_exposure_scores, [scores]),
    }


def _read_archive(path: Path) -> None:
    read_archive(path)
    read_archive_stat(path)


def _sum(path: Path) -> None:
    """All pixels are there: none lies outside the file."""
    with np.errstate(all="ignore"):  # invented numbers
        mrc.open_stack(path).data.sum(dtype=np.float64)


def _binary(folder: Path) -> Dict[str, Reader]:
    table = cistem.new_projections(2)
    table.columns["STACK_FILENAME"] = np.array(["a.mrc", ""], dtype=object)
    named = _seed(folder, cistem.write_cistem, table)
    packed = _seed(folder, write_archive, make_tables(np.random.default_rng(8)), cistem.new_projections(2))["file"]
    tables = {"tlt": np.arange(5.0), "box": {"x": [1, 2], "y": np.arange(2)}, "name": "TS_01", "none": None, "size": 1.5}
    pickles = [{"file": pickle.dumps(tables, protocol)} for protocol in (0, 2, 4)]
    return {
        "cistem": Reader(cistem.read_cistem, [{"file": golden.PROJECTIONS}, named], False),
        "extended": Reader(cistem.read_extended, [{"file": golden.EXTENDED}], False),
        "stat": Reader(cistem.read_stat, [{"file": golden.PROJECTIONS}], False),
        "mrc": Reader(_sum, _maps(folder), False),
        "map": Reader(mrc.read_map, _maps(folder), False),
        "pkl": Reader(read_pkl, pickles, False),
        "archive": Reader(_read_archive, [{"file": packed}], False),
        "tar": Reader(_read_archive, [{"file": bz2.decompress(packed)}], False),  # damaged before it is packed
    }


def _small_project(folder: Path, parx: bool) -> Tuple[Files, Dict[str, PypSeries]]:
    """A project of two series, with its archive of alignments unpacked; what it says of each series."""
    dataset = make_dataset(folder)
    for column in ("voltage", "cs", "amplitude_contrast", "hand", "contrast"):
        dataset.series[column] = dataset.series[column][0]
    made = folder / ("parx" if parx else "cistem")
    path, _ = write_pyp(dataset, made, parx, stacks=True)
    with tarfile.open(path) as archive:
        for member in filter(tarfile.TarInfo.isfile, archive.getmembers()):
            target = made / "frealign" / "maps" / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.extractfile(member).read())
    Path(path).unlink()
    known = {name: SeriesFiles(made, name, PIXEL, 0.0).read() for name in ("TS_a", "TS_b")}
    return {str(file.relative_to(made)): file.read_bytes() for file in sorted(made.rglob("*")) if file.is_file()}, known


def _projects(folder: Path) -> Dict[str, Reader]:
    """PYP's projects as a whole: their texts, sub-volume tables, pickles and tables."""
    folder = folder / "projects"
    folder.mkdir()
    texts, known = _small_project(folder, True)
    spikes = {name: data for name, data in texts.items() if not name.endswith(".parx")}
    table = volumes_txt.new_volumes(5)
    table.filename = ["TS_a_vir0000_spk0000.mrc", "TS_a_vir0001_spk0000.mrc", "TS_b_spk0000.rec", "TS_b_spk0002.rec"]
    table.filename.insert(2, "TS_a_vir0001_spk0001.mrc")
    for virion, count in enumerate((1, 2)):
        cut = volumes_txt.new_volumes(count)
        cut.filename = [f"TS_a_vir{virion:04d}_spk{spike:04d}.mrc" for spike in range(count)]
        spikes[f"sva/TS_a_vir{virion:04d}_cut.txt"] = _seed(folder, volumes_txt.write_volumes, cut)["file"]
    spikes["sva.txt"] = _seed(folder, volumes_txt.write_volumes, table)["file"]
    spikes[".pyp_config"] = re.sub(rb"csp_refine *=.*", b"csp_refine = sva.txt", texts[".pyp_config"])
    binary, _ = _small_project(folder, False)
    binary = {name: data for name, data in binary.items() if not name.startswith(("ali", "ctf", "csp"))}  # as in the pickles
    for name, one in known.items():
        count = len(one.tilt)
        tables = {
            "tomo": {axis: np.array([size]) for axis, size in zip("xyz", one.specimen_size)},
            "ali": np.concatenate([one.linear.reshape(count, 4), one.offset], axis=1), "tlt": one.tilt[:, None],
            "order": {"order": one.order}, "exclude": np.array([[1.0, 2.0, 3.0]]), "box": one.positions,
            "ctf": {column: one.ctf[:, i] for i, column in enumerate(("df1", "df2", "ast"))},
        }
        binary[f"pkl/{name}.pkl"] = pickle.dumps(tables, 2)
    rows = _seed(folder, store.write_rows, make_dataset(folder, images=False))
    read = Reader(lambda path: read_pyp(str(path.parent)), [texts, spikes])
    tables_read = read._replace(seeds=[binary], text=False)
    return {"project": read, "tables": tables_read, "rows": Reader(store.read_rows, [rows], False)}


NAMES = ["star", "xf", "tlt", "imod", "toml", "settings", "refine", "json", "relion", "spa"]
NAMES += ["par", "allparxs", "volumes", "coordinates", "allboxes", "boxes3d", "films", "fsc", "statistics", "scores"]
NAMES += ["cistem", "extended", "stat", "mrc", "map", "pkl", "archive", "tar"]
NAMES += ["project", "tables", "rows"]
# Which file of a folder is invented, where it is not the first.
INVENTED_FILE = {"relion": "particles.star", "project": "csp/TS_a_boxes3d.txt",
                 "tables": "frealign/maps/cistem_r01_01/TS_a_r01_extended.cistem"}


@pytest.fixture(scope="module")
def readers(tmp_path_factory) -> Dict[str, Reader]:
    folder = tmp_path_factory.mktemp("seeds")
    made = {**_general(folder), **_pyp(folder), **_binary(folder), **_projects(folder)}
    assert list(made) == NAMES
    return made


def check(reader: Reader, path: Path, data: bytes) -> bool:
    """Whether the file was read. Anything but a result or one line of CsprError fails, so does much time or memory.

    Memory is measured, which takes time, for all binary files, whose headers say sizes, and for every eighth of the others.
    """
    measured = not reader.text or len(data) % 8 == 0
    peak = 0
    start = time.perf_counter()
    if measured:
        tracemalloc.start()
    try:
        reader.read(path)
        good = True
    except CsprError as error:
        message = str(error)
        assert message.isprintable(), (message, data[:300])
        assert "Traceback" not in message
        assert len(message) < 1000, (message, data[:300])
        good = False
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error}; from {data[:3000]!r}") from error
    finally:
        if measured:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peak < MEMORY, (peak, data[:300])
    seconds = time.perf_counter() - start
    assert seconds < SECONDS, (seconds, data[:300])
    return good


def place_files(folder: Path, files: Files) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.mark.timeout(3600 if CASES > 1000 else 300)
@pytest.mark.parametrize("name", NAMES)
def test_damaged_files(readers, tmp_path, name):
    reader = readers[name]
    random = np.random.default_rng(20240611)
    counts = {True: 0, False: 0}
    for index, files in enumerate(reader.seeds):  # sound as they are
        place_files(tmp_path / str(index), {n: bz2.compress(d) if name == "tar" else d for n, d in files.items()})
        assert check(reader, tmp_path / str(index) / next(iter(files)), b""), name
    for _ in range(CASES):
        index = int(random.integers(0, len(reader.seeds)))
        files = reader.seeds[index]
        target = sorted(files)[int(random.integers(0, len(files)))]
        path = tmp_path / str(index) / target
        data = damage(files[target], random, reader.text)
        path.write_bytes(bz2.compress(data, 1) if name == "tar" else data)
        counts[check(reader, path if len(files) == 1 else tmp_path / str(index) / "file", data)] += 1
        if len(files) > 1:
            path.write_bytes(files[target])
    assert counts[False] > CASES // 20, counts  # the changes do reach what the reader checks


@pytest.mark.timeout(3600 if CASES > 1000 else 300)
@pytest.mark.parametrize("name", NAMES)
def test_invented_files(readers, tmp_path, name):
    reader = readers[name]
    files = reader.seeds[0]
    place_files(tmp_path, files)
    target = tmp_path / INVENTED_FILE.get(name, sorted(files)[0])

    @settings(max_examples=INVENTED, deadline=None, derandomize=True, database=None,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])
    @given(data=TEXT if reader.text else BINARY)
    def run(data: bytes) -> None:
        target.write_bytes(bz2.compress(data, 1) if name == "tar" else data)
        check(reader, target if len(files) == 1 else tmp_path / "file", data)

    run()


def test_messages_are_short_however_long_the_value(tmp_path):
    write_star(tmp_path / "a.star", {"p": StarBlock(columns={"rlnX": ["9" * 10**6 + "x"]})})
    with pytest.raises(InputError, match=r"^.*a\.star: data_p row 1: _rlnX is '999.* \.\.\. 999.*want a number$") as caught:
        read_star(tmp_path / "a.star")["p"].floats("rlnX")
    assert len(str(caught.value)) <= 900


def test_messages_are_one_printable_line():
    assert str(InputError("a\nb\x1b[31m\u2028c\udcffd é")) == "a b?[31m c?d é"
