"""A PYP project folder: where metadata are looked for, and alignments of PYP's first generation (.parx)."""

from __future__ import annotations

import bz2
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pyp_cspr.engine.core.geometry import rotation_angle
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.boxes import AllBoxes, write_allboxes
from pyp_cspr.engine.io.frealign import ParTable, default_header, format_par, write_par
from pyp_cspr.engine.io.parameter_archive import read_archive, write_archive
from pyp_cspr.engine.io.pyp_dataset import PypOptics
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.io.volumes_txt import new_volumes, read_volumes, write_volumes
from pyp_cspr.engine.pipeline.convert import convert
from pyp_cspr.engine.pipeline.convert_pyp import read_pyp
from pyp_cspr.engine.pipeline.pyp_project import Binnings, PypProject
from pyp_cspr.engine.pipeline.pyp_results import Results, shell_statistics
from pyp_cspr.tests.engine.pyp_writer import REC_BINNING, positions, recorded, write_project


@pytest.fixture
def project(small_sample, tmp_path) -> Path:
    write_project(tmp_path / "project", read_dataset(small_sample))
    return tmp_path / "project"


def opened(folder: Path) -> PypProject:
    return PypProject(str(folder), PypOptics(8.0, dose=3.0), Binnings(volumes=2.0))


def test_a_pickle_stands_above_texts(project) -> None:
    texts = opened(project).series()[0]
    n = len(texts.tilt)
    tables = {
        "tomo": {name: np.array([size / REC_BINNING]) for name, size in zip("xyz", texts.specimen_size)},
        "tlt": texts.tilt[:, None] + 1.0, "order": {"order": np.arange(n)[::-1].copy()},
        "ali": np.concatenate([texts.linear.reshape(n, 4), texts.offset + 2.0], axis=1),
        "ctf": {name: np.full(n, value) for name, value in (("tilt_angle", 0.0), ("df1", 3e4), ("df2", 2e4), ("ast", 12.0))},
        "box": np.array([[10.0, 20.0, 5.0, 0.0]]), "exclude": [2],
    }
    (project / "pkl").mkdir()
    (project / "pkl" / f"{texts.name}.pkl").write_bytes(pickle.dumps(tables))
    found = opened(project).series()[0]
    assert found.specimen_size == texts.specimen_size
    assert_allclose(found.tilt, texts.tilt + 1.0)
    assert_allclose(found.offset, texts.offset + 2.0)
    assert found.order.tolist() == list(range(n))[::-1]
    assert_allclose(found.ctf, np.tile([3e4, 2e4, 12.0], (n, 1)))
    assert found.enabled.tolist() == [image != 2 for image in range(n)]
    assert_allclose(found.positions, [[40.0, 80.0, texts.specimen_size[2] - 20.0]])


def put_pickle(project: Path, **tables) -> None:
    (project / "pkl").mkdir(exist_ok=True)
    (project / "pkl" / "TS_01.pkl").write_bytes(pickle.dumps(tables))


def columns_of(names, *values):
    return {name: np.full(9, value) for name, value in zip(names.split(), values)}


@pytest.mark.parametrize("key, value", [
    ("ctf", np.zeros((3, 4))), ("ctf", np.zeros((9, 3))), ("ctf", columns_of("df1 df2 cc est_res", 2e4, 2e4, 0.5, 8.0)),
    ("ctf", {"df1": np.zeros(3), "df2": np.zeros(9), "ast": np.zeros(9)}), ("ctf", np.full((9, 4), 1e30)),
    ("order", [1, 1, 1]), ("order", np.full(9, 1e30)), ("order", "abc"), ("order", 5), ("order", [None]),
    ("ali", np.zeros((2, 2))), ("ali", np.zeros((9, 6))), ("ali", np.full((9, 6), 1e300)),
    ("ali", np.tile([-1.0, 0, 0, 1, 0, 0], (9, 1))),
    ("tlt", ["x"]), ("tlt", np.full(9, np.nan)), ("tlt", columns_of("x y", 1, 1)),
    ("tomo", np.zeros((1, 3))), ("tomo", [[-4.0, -3, 1]]), ("tomo", [[1e18, 1e18, 1e18]]), ("tomo", [[1e300, 1e300, 1]]),
    ("tomo", [[np.inf, 1, 1]]), ("tomo", 5.0), ("tomo", "a"), ("tomo", [24.0, 24, 16]),
    ("box", np.zeros((4, 2))), ("box", np.full((2, 3), 1e20)), ("exclude", [1e30]),
])
def test_wrong_tables_of_a_pickle_are_refused(project, key, value) -> None:
    put_pickle(project, **{key: value})
    with pytest.raises(InputError, match="TS_01"):
        opened(project).series()


@pytest.mark.parametrize("key", ["tomo", "tlt", "order", "ali", "ctf", "box", "vir", "exclude"])
@pytest.mark.parametrize("empty", [np.array([]), np.zeros((0, 4)), [], {}, {"x": np.array([]), "y": []}, None])
def test_an_empty_table_of_a_pickle_is_none(project, key, empty) -> None:
    texts = opened(project).series()[0]
    put_pickle(project, **{key: empty})
    found = opened(project).series()[0]
    for name in ("specimen_size", "tilt", "order", "linear", "ctf", "positions", "enabled"):
        np.testing.assert_array_equal(getattr(found, name), getattr(texts, name), err_msg=name)


def test_columns_of_a_pickle_go_by_name(project) -> None:
    """As pandas' tables have them, in any order; without names by place."""
    put_pickle(project, ctf=columns_of("cc ast df2 df1", 0.5, 12.0, 2e4, 3e4))
    assert_allclose(opened(project).series()[0].ctf, np.tile([3e4, 2e4, 12.0], (9, 1)))
    put_pickle(project, ctf=columns_of("0 1 2 3 4", 60.0, 3e4, 2e4, 12.0, 0.5), tlt=columns_of("tilt_angle", 7.0))
    found = opened(project).series()[0]
    assert_allclose(found.ctf, np.tile([3e4, 2e4, 12.0], (9, 1)))
    assert_allclose(found.tilt, 7.0)


@pytest.mark.parametrize("table", [[[310.0, 222.5, 2.0], [1.0, 5.0, 7.0]], [2, 7], {"exclude_view": [2, 7]},
                                   {"x": [310.0, 1.0], "y": [222.5, 5.0], "exclude_view": [2.0, 7.0]}])
def test_excluded_views_are_the_z_of_the_models_points(project, table) -> None:
    put_pickle(project, exclude=np.array(table) if isinstance(table, list) else table)
    assert np.flatnonzero(~opened(project).series()[0].enabled).tolist() == [2, 7]


def test_picked_boxes_have_the_binning_of_the_tomogram(project) -> None:
    """A .rec or the settings say it; the size alone, in unbinned pixels, does not."""
    size = opened(project).series()[0].specimen_size
    put_pickle(project, box=np.array([[10.0, 20.0, 5.0, 0.0]]))
    want = [[10.0 * REC_BINNING, 20.0 * REC_BINNING, size[2] - 5.0 * REC_BINNING]]
    assert_allclose(opened(project).series()[0].positions, want)
    (project / "ali" / "TS_01.size").write_text("".join(f"{value}\n" for value in size))
    with pytest.raises(InputError, match="by how much is not known; give tomo_rec_binning"):
        opened(project).series()
    known = PypProject(str(project), PypOptics(8.0), Binnings(float(REC_BINNING)))
    assert_allclose(known.series()[0].positions, want)


@pytest.mark.parametrize("name, text, words", [
    ("ali/TS_01.size", "99999999999999999999\n9\n9\n", "size is 1e.20 9 9; want x, y and z of 1 to 1,000,000 pixels"),
    ("ali/TS_01.size", "10\n0.5\n10\n", "size is 10 0.5 10"), ("ali/TS_01.size", "10\n10\n", "size is 10 10"),
    ("raw/TS_01.order", "1e30\n" * 9, "its .order: 1e.30, want"),
    ("ali/TS_01.tlt", "1e300\n" * 9, "tilt angles: 1e.300, want"), ("ali/TS_01.xf", "1e300 0 0 1e300 0 0\n" * 9, "xf"),
    ("ctf/TS_01.ctf", "", "CTF has 0 rows, want 9"), ("ctf/TS_01.ctf", "0 1 2\n" * 9, "line 1: 3 numbers, want tilt_angle"),
    ("ctf/TS_01.ctf", "0 nan 2 3\n" * 9, "line 1: df1 is 'nan'"), ("ctf/TS_01.ctf", "0 1e30 2 3\n" * 9, "1e.30, want numbers"),
    ("csp/TS_01_boxes3d.txt", "0 1e300 0 0 1 Yes\n", "positions: 1e.300"),
])
@pytest.mark.filterwarnings("error")
def test_wild_numbers_of_texts_are_refused(project, name, text, words) -> None:
    (project / name).write_text(text)
    with pytest.raises(InputError, match=words):
        opened(project).series()


def boxes(project: Path, change) -> None:
    """The boxes of TS_01 with their lines changed, the header kept."""
    path = project / "csp" / "TS_01_boxes3d.txt"
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *change(lines)]) + "\n")


def test_boxes_go_by_their_index(project) -> None:
    first = opened(project).read_alignments(project / "alignments.txt")
    boxes(project, lambda lines: lines[::-1])
    again = opened(project).read_alignments(project / "alignments.txt")
    assert_allclose(again.particles["position"], first.particles["position"])
    boxes(project, lambda lines: [line for line in lines if line.split()[0] != "1"])
    with pytest.raises(InputError, match=r"series TS_01: particle 1, but \d+ positions are known and none is its own"):
        opened(project).read_alignments(project / "alignments.txt")
    boxes(project, lambda lines: [*lines, "2000000000\t" + lines[0].split("\t", 1)[1]])
    with pytest.raises(InputError, match="particle 1, but"):  # a large index needs no memory
        opened(project).read_alignments(project / "alignments.txt")
    boxes(project, lambda lines: ["-1" + line.lstrip()[1:] if line.split()[0] == "0" else line for line in lines])
    with pytest.raises(InputError, match="PTLIDX is below 0"):
        opened(project).read_alignments(project / "alignments.txt")


def test_particles_that_are_not_kept_are_left_out_and_that_is_said(project, small_sample) -> None:
    first = opened(project).read_alignments(project / "alignments.txt")
    boxes(project, lambda lines: [line.replace("Yes", " No") if line.split()[0] in "02" else line for line in lines])
    reader = opened(project)
    found = reader.read_alignments(project / "alignments.txt")
    left = [name for name in first.particles["name"].tolist() if name not in ("TS_01_spk0000", "TS_01_spk0002")]
    assert found.particles["name"].tolist() == left
    assert "series TS_01: 2 particles are left out (Keep_CSP No in TS_01_boxes3d.txt)" in reader.notes
    assert_allclose(found.exposures["defocus"], first.exposures["defocus"])  # the specimen's height is that of all


@pytest.mark.parametrize("key", ["csp_refine", "csp_model", "data_set"])
def test_names_that_no_file_can_have_are_refused(project, key) -> None:
    text = re.sub(rf"(?m)^{key} =.*\n", "", (project / ".pyp_config").read_text())
    text = text.replace("extract_box = 32", "extract_box = 0")  # the map would say it
    (project / ".pyp_config").write_text(text + f"{key} = {'a' * 5000}\n")
    with pytest.raises(InputError, match=r": no (alignments ribo_r01_01|aaa)"):
        read_pyp(str(project))


# --- spikes of virions --------------------------------------------------------------------------------------------------


def virions(project: Path, *counts: int) -> Path:
    """The sub-volume table of TS_01 with its particles as spikes of virions, whose lists are written; -1: no list."""
    (project / "ribo.films").write_text("TS_01\n")
    table = read_volumes(project / "alignments.txt")
    own = [row for row, (name, _, _) in enumerate(table.keys()) if name == "TS_01"]
    parts = ("number", "wedge", "position", "box", "normal", "matrix", "magnification", "score")
    table = replace(table, **{part: getattr(table, part)[own] for part in parts})
    table.filename = []
    (project / "sva").mkdir()
    for virion, count in enumerate(counts):
        table.filename += [f"TS_01_vir{virion:04d}_spk{spike:04d}.mrc" for spike in range(max(count, 0))]
        if count >= 0:
            cut = new_volumes(count)
            cut.filename = table.filename[-count:] if count else []
            write_volumes(project / "sva" / f"TS_01_vir{virion:04d}_cut.txt", cut)
    assert len(table.filename) == len(own)
    write_volumes(project / "spikes.txt", table)
    return project / "spikes.txt"


def count_of(small_sample) -> int:
    return len(read_dataset(small_sample).particles_of(0))


def test_spikes_count_through_all_virions(project, small_sample) -> None:
    first = opened(project).read_alignments(project / "alignments.txt")
    mine = first.particles["series"] == 0
    table = virions(project, 1, -1, 0, count_of(small_sample) - 1)  # as PYP, one without a list has no spikes
    found = opened(project).read_alignments(table)
    assert found.particles["name"].tolist() == first.particles["name"][mine].tolist()
    assert_allclose(found.particles["position"], first.particles["position"][mine])
    assert_allclose(found.particles["rotation"], first.particles["rotation"][mine])


def test_spikes_whose_lists_are_not_there_are_refused(project, small_sample) -> None:
    table = virions(project, 2, count_of(small_sample) - 2)
    lists = [project / "sva" / f"TS_01_vir000{number}_cut.txt" for number in (0, 1)]
    kept = lists[0].read_text()
    lists[0].unlink()  # those of virion 1 would be taken for particles 0 and on
    with pytest.raises(InputError, match=r"cut\.txt list \d+ spikes, but \d+ positions are known; put all of them there"):
        opened(project).read_alignments(table)
    lists[0].write_text(kept + lists[1].read_text().split("\n", 1)[1])
    lists[1].unlink()
    with pytest.raises(InputError, match=r"sva: TS_01_vir0001_cut\.txt has 0 spikes or is not there, .* names spike 0"):
        opened(project).read_alignments(table)
    table.write_text(table.read_text().replace("_vir0001_", "_vir900000000_"))
    with pytest.raises(InputError, match=r"vir900000000_cut\.txt has 0 spikes or is not there"):  # at once
        opened(project).read_alignments(table)
    (project / "csp" / "TS_01_boxes3d.txt").unlink()
    put_pickle(project, vir=np.array([[5.0, 5, 5, 2]]), box=np.zeros((3, 4)))  # of virions, and no boxes of particles
    with pytest.raises(InputError, match=r"but 0 positions are known; .* and csp/TS_01_boxes3d\.txt"):
        opened(project).read_alignments(table)


def test_parx_of_one_series(project, small_sample) -> None:
    """A table of the first generation, with its crops and boxes: the same data set as the stars."""
    data = read_dataset(small_sample)
    name, pixel = "TS_01", 8.0
    (project / "ribo.films").write_text(name + "\n")
    exposures = data.exposures.take(data.exposures_of(0))
    poses = data.particles["rotation"][data.particles_of(0)]
    rec = recorded(data, 0)
    true = positions(data, 0, rec)
    n, m = len(exposures), len(poses)
    boxes = [f"{i:8d}\t{x:8.1f}\t{y:8.1f}\t{z:8.1f}\t{1:8.2f}\t     Yes" for i, (x, y, z) in enumerate(true)]
    (project / "csp" / f"{name}_boxes3d.txt").write_text("PTLIDX X Y Z Score Keep_CSP\n" + "\n".join(boxes) + "\n")
    mirror = np.diag([1.0, -1.0, 1.0])
    tilt = np.rad2deg(np.arctan2(-exposures["rotation"][:, 2, 0], exposures["rotation"][:, 2, 2]))
    axis = -np.rad2deg(np.arctan2(exposures["rotation"][:, 1, 0], exposures["rotation"][:, 0, 0]))
    p, e = [index.ravel() for index in np.meshgrid(np.arange(m), np.arange(n), indexing="ij")]
    u = np.einsum("qij,qj->qi", exposures["rotation"][e], (true[p] - rec / 2))[:, :2] + exposures["shift"][e] / pixel
    u += data.series["image_size"][0] // 2
    columns = {key: np.zeros(m * n) for key in ("PSI", "THETA", "PHI", "LOGP", "CHANGE", "DOSEXX", "CNFDNC", "PTLCCX",
                                                "NORM0", "NORM1", "NORM2", "PPSI", "PTHETA", "PPHI")}
    rotations = mirror @ poses @ mirror
    for i in range(16):
        row, column = divmod(i, 4)
        columns[f"MATRIX{i:02d}"] = rotations[p, row, column] if row < 3 and column < 3 else np.zeros(m * n)
    columns["MATRIX12"] = columns["MATRIX13"] = np.full(m * n, pixel / 2)
    columns.update(NO=np.arange(m * n) + 1, SHX=np.full(m * n, pixel / 2), SHY=np.full(m * n, pixel / 2), FILM=np.zeros(m * n),
                   MAG=np.full(m * n, 1e4), DF1=exposures["defocus"][e, 0], DF2=exposures["defocus"][e, 1],
                   ANGAST=exposures["defocus"][e, 2], OCC=np.full(m * n, 100.0), SIGMA=np.ones(m * n),
                   SCORE=np.full(m * n, 17.0), PTLIND=p, TILTAN=tilt[e], SCANOR=exposures["order"][e], AXIS=axis[e])
    write_par(project / "old.parx", ParTable("parx", columns))
    write_allboxes(project / "csp" / f"{name}.allboxes", AllBoxes(np.floor(u).astype(int), e))
    found = opened(project).read_alignments(project / "old.parx")
    assert rotation_angle(found.particles["rotation"], poses).max() < 0.02  # four decimals of a matrix
    assert_allclose(found.particles["position"], data.particles["position"][data.particles_of(0)], atol=0.05 * pixel + 0.01)
    assert rotation_angle(found.exposures["rotation"], exposures["rotation"]).max() < 0.01
    assert np.abs(found.exposures["shift"] - exposures["shift"]).max() < 0.5 * pixel
    assert np.abs((found.exposures["shift"] - exposures["shift"]).mean(axis=0)).max() < 0.12 * pixel
    assert_allclose(found.particles["score"], 17.0)


# --- parameter archives and tables --------------------------------------------------------------------------------------


@pytest.fixture
def parx(small_sample, tmp_path) -> Path:
    """A project with .parx tables, unpacked to one text for all its series."""
    convert(str(small_sample), str(tmp_path / "made"), "pyp-parx")
    lines = []
    for table, _ in read_archive(tmp_path / "made/frealign/maps/made_r01_01.bz2").values():
        lines += format_par(table)[len(default_header(table.kind)):]
    (tmp_path / "made" / "all.parx").write_text("\n".join(["C", *lines]) + "\n")
    return tmp_path / "made"


def test_one_parx_of_several_series(parx) -> None:
    """FILM tells them apart, also where their lines are mixed; packed or not."""
    want = read_pyp(str(parx))
    assert len(want.series) == 3
    lines = (parx / "all.parx").read_text().splitlines()
    mixed = sorted(lines[1:], key=lambda line: int(line.split()[0]))  # NO is of each series
    assert mixed != lines[1:]
    (parx / "mixed.parx.bz2").write_bytes(bz2.compress("\n".join(mixed + [""]).encode()))
    (parx / "all.par").write_bytes((parx / "all.parx").read_bytes())
    for name in ("all.parx", "mixed.parx.bz2", "all.par"):
        found = read_pyp(str(parx), name)
        for column in ("name", "half", "position", "rotation"):
            np.testing.assert_array_equal(found.particles[column], want.particles[column], err_msg=f"{name} {column}")
        np.testing.assert_array_equal(found.exposures["shift"], want.exposures["shift"])


def test_a_parx_of_other_series_is_refused(parx) -> None:
    lines = (parx / "all.parx").read_text().splitlines()
    assert lines[1][59:65] == "     0"  # FILM
    (parx / "other.parx").write_text("\n".join([lines[0], lines[1][:64] + "3" + lines[1][65:], *lines[2:]]) + "\n")
    with pytest.raises(InputError, match=r"other\.parx: FILM 3, but made\.films lists 3 series"):
        read_pyp(str(parx), "other.parx")
    (parx / "broken.parx.bz2").write_bytes(bz2.compress(b"x")[:-3])
    with pytest.raises(InputError, match=r"broken\.parx\.bz2: not a table packed with bzip2"):
        read_pyp(str(parx), "broken.parx.bz2")
    (parx / "plain.par").write_text("".join(line[:136] + "\n" for line in lines[1:]))
    with pytest.raises(InputError, match=r"plain\.par: has no PYP columns"):
        read_pyp(str(parx), "plain.par")
    (parx / "made.films").write_text("TS_01\n")
    with pytest.raises(InputError, match=r"all\.parx: FILM 1, but made\.films lists 1 series"):
        read_pyp(str(parx), "all.parx")


def test_trap_half_sets_in_ptlccx(parx) -> None:
    """Taken from it where the archive as a whole has both, and nothing that PYP itself might have written."""
    path = parx / "frealign" / "maps" / "made_r01_01.bz2"
    tables = read_archive(path)
    names = list(tables)
    for values, frames, want in (((1, 2, 2), 0, [1, 2, 2]), ((1, 1, 1), 0, [0, 0, 0]), ((0, 0, 0), 0, [0, 0, 0]),
                                 ((1, 2, 3), 0, [0, 0, 0]), ((1, 2, 2), -1, [0, 0, 0]), ((0, 1, 2), 0, [0, 1, 2])):
        for name, value in zip(names, values):
            tables[name][0].columns["PTLCCX"][:] = value
            tables[name][0].columns["CNFDNC"][:] = frames if name == names[1] else 0
        write_archive(path, tables)
        found = read_pyp(str(parx))
        assert [set(found.particles["half"][found.particles["series"] == row]) for row in range(3)] == [{one} for one in want]


def test_particles_of_a_parx_that_are_not_kept_are_left_out(parx) -> None:
    first = read_pyp(str(parx))
    boxes(parx, lambda lines: [line.replace("Yes", " No") if line.split()[0] in "13" else line for line in lines])
    notes = []
    found = read_pyp(str(parx), notes=notes)
    assert notes == ["series TS_01: 2 particles are left out (Keep_CSP No in TS_01_boxes3d.txt)"]
    kept = ~np.isin(first.particles["name"], ["TS_01_spk0001", "TS_01_spk0003"])
    np.testing.assert_array_equal(found.particles["name"], first.particles["name"][kept])
    assert_allclose(found.particles["position"], first.particles["position"][kept], atol=0.02)
    for path in (parx / "csp").glob("*_boxes3d.txt"):
        path.write_text(path.read_text().replace("Yes", " No"))
    with pytest.raises(InputError, match="no particles of the project's series"):
        read_pyp(str(parx))


def test_tables_of_two_classes_are_refused(small_sample, tmp_path) -> None:
    for form in ("pyp", "pyp-parx"):
        convert(str(small_sample), str(tmp_path / form), form)
        path = tmp_path / form / "frealign" / "maps" / f"{form}_r01_01.bz2"
        tables = read_archive(path)
        tables["TS_02_r02"] = tables["TS_02_r01"]
        write_archive(path, tables)
        with pytest.raises(InputError, match="TS_02_r02 is a second table of series TS_02; classes are not read"):
            read_pyp(str(tmp_path / form))


@pytest.mark.parametrize("value", [1e30, 1e300])
def test_wild_numbers_of_alignments_are_refused(project, parx, value) -> None:
    table = read_volumes(project / "alignments.txt")
    table.matrix[2, 0, 1] = value
    write_volumes(project / "alignments.txt", table)
    with pytest.raises(InputError, match=r"alignments\.txt: matrix: 1e"):
        opened(project).read_alignments(project / "alignments.txt")
    words = (parx / "all.parx").read_text().splitlines()
    words[3] = words[3][: words[3].rindex(" ")] + f" {value:g}"
    (parx / "all.parx").write_text("\n".join(words) + "\n")
    with pytest.raises(InputError, match=r"all\.parx: PPHI: 1e"):
        read_pyp(str(parx), "all.parx")


def test_a_fresh_start_moves_what_is_there(project) -> None:
    results = Results(opened(project))
    for folder in ("frealign/maps", "ali/ribo_r01_02", "frealign/scratch/ribo_r01_from02"):
        (project / folder).mkdir(parents=True)
    (project / "frealign/maps/ribo_r01_02.mrc").write_bytes(b"map")
    (project / "frealign/maps/other_r01_02.mrc").write_bytes(b"of another data set")
    first = results.set_aside()
    assert (first / "maps/ribo_r01_02.mrc").read_bytes() == b"map"
    assert (first / "ali/ribo_r01_02").is_dir()
    assert (first / "scratch/ribo_r01_from02").is_dir()
    assert (project / "frealign/maps/other_r01_02.mrc").exists()
    (project / "frealign/maps/ribo_r01_02.mrc").write_bytes(b"second")
    assert (results.set_aside() / "maps/ribo_r01_02.mrc").read_bytes() == b"second"
    assert (first / "maps/ribo_r01_02.mrc").read_bytes() == b"map"


def test_statistics_follow_the_fsc() -> None:
    curve = np.linspace(0.99, 0.0, 16)
    statistics = shell_statistics(8.0, 32, curve, curve, 4000.0, 500)
    assert_allclose(statistics.rec_ssnr, 2 * curve / (1 - curve), rtol=2e-3)
    assert (np.diff(statistics.part_ssnr) < 0).all()
    more = shell_statistics(8.0, 32, curve, curve, 4000.0, 1000)
    assert_allclose(more.part_ssnr, statistics.part_ssnr / 2)  # the same map from twice as many projections
