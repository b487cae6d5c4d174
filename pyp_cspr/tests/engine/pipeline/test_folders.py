"""What is in a folder already: input, other data, other runs, another command, and what a killed one left."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.errors import CsprError, InputError
from pyp_cspr.engine.io import mrc
from pyp_cspr.engine.io.mrc import write_map
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.pipeline.plan import chunk_dataset
from pyp_cspr.engine.pipeline.store import RunStore, write_atomic

QUICK = ["--no-report", "--processes", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def runs(sample, tmp_path_factory) -> Path:
    """A refinement of no iterations, and a reconstruction."""
    folder = tmp_path_factory.mktemp("runs")
    assert refine(sample, folder / "refined", "--iterations", "0") == 0
    assert reconstruct(sample, folder / "reconstructed") == 0
    return folder


@pytest.fixture
def data(sample, tmp_path) -> Path:
    """A copy of the sample's stars, whose images are links."""
    folder = tmp_path / "data"
    shutil.copytree(sample, folder, ignore=shutil.ignore_patterns("*.mrc"))
    for path in sample.glob("*.mrc"):
        (folder / path.name).symlink_to(path)
    return folder


def refine(data, out, *options: str) -> int:
    folder = Path(data).resolve()
    folder = folder if folder.is_dir() else folder.parent
    reference = () if "--reference" in options else ("--reference", str(folder / "reference.mrc"))
    return main(["refine", str(data), *reference, "--out", str(out), *QUICK, *options])


def reconstruct(data, out, *options: str) -> int:
    return main(["reconstruct", str(data), "--out", str(out), *QUICK, *options])


def contents(folder: Path) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink() and path.name != ".lock"}


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


COMMANDS = {
    "reconstruct": reconstruct,
    "refine": refine,
    "plan": lambda data, out, *options: main(["plan", str(data), "--out", str(out), *options]),
    "filter": lambda data, out, *options: main(["filter", str(data), "--out", str(out), "--min-projections", "1", *options]),
}


# --- the input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_input_is_never_written_over_however_it_is_called(data, tmp_path, monkeypatch, capsys, command, overwrite) -> None:
    before = contents(data)
    (tmp_path / "link").symlink_to(data)
    (tmp_path / "stars").mkdir()
    (tmp_path / "stars" / "optimisation_set.star").symlink_to(data / "optimisation_set.star")
    monkeypatch.chdir(data)
    for source, out in ((".", "."), ("../data", "."), ("../link", "."), (".", "../link"), ("optimisation_set.star", "../data"),
                        ("../stars/optimisation_set.star", "../data")):
        assert COMMANDS[command](source, out, *overwrite) == 2, (source, out)
        assert "is the data set itself" in one_line(capsys) or source.startswith("../stars")
    assert contents(data) == before


def test_other_files_that_a_command_reads_are_not_written_over(data, runs, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "reconstructed", run)
    before = contents(run)
    for options in (["--reference", str(run / "map.mrc")], ["--mask", str(run / "mask.mrc")],
                    ["--halves", str(run / "half1.mrc"), str(run / "half2.mrc")]):
        assert refine(data, run, "--overwrite", "--iterations", "0", *options) == 2, options
        assert "which this command reads" in one_line(capsys)
    assert contents(run) == before
    assert refine(runs / "refined" / "iterations" / "000", runs / "refined", "--overwrite", "--reference",
                  str(data / "reference.mrc")) == 2
    assert (runs / "refined" / "iterations" / "000" / "map.mrc").exists()


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
@pytest.mark.parametrize("command", COMMANDS)
def test_tilt_series_stars_of_the_input_are_not_written_over(data, capsys, command, overwrite) -> None:
    """The other stars lie in a folder of their own, so that the folder of these is not the data set's."""
    (data / "sets").mkdir()
    for name in ("optimisation_set.star", "particles.star", "tomograms.star"):
        shutil.move(str(data / name), str(data / "sets"))
    before = contents(data)
    options = ("--reference", str(data / "reference.mrc")) if command == "refine" else ()
    assert COMMANDS[command](data / "sets", data, *options, *overwrite) == 2
    assert f"{data}: holds {data}/tilt_series/TS_01.star, which this command reads" in one_line(capsys)
    assert contents(data) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_folder_name_is_refused(data, command, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert COMMANDS[command](data, "") == 2
    assert "--out is empty" in one_line(capsys)
    assert os.listdir(tmp_path) == ["data"]


# --- what others left ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_another_data_set_is_refused_and_overwritten_only_if_asked_to(data, sample, tmp_path, capsys, command) -> None:
    other = tmp_path / "other"
    shutil.copytree(data, other, symlinks=True)
    before = contents(other)
    options = ("--iterations", "0") if command == "refine" else ()
    assert COMMANDS[command](sample, other, *options) == 2
    assert "holds a data set" in one_line(capsys)
    assert contents(other) == before
    assert COMMANDS[command](sample, other, *options, "--overwrite") == 0


@pytest.mark.parametrize("name", ["iterations/001/mine.txt", "map.mrc", "summary.json", "tilt_series/TS_01.star"])
def test_files_of_others_are_refused(sample, tmp_path, capsys, name) -> None:
    """Also by the name of what a refinement throws away when it starts anew."""
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert refine(sample, tmp_path / "run", "--iterations", "0") == 2
    assert f"holds {name.split('/')[0]}, which is of no run" in one_line(capsys)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["filter.json", "tilt_series/TS_01.star", "tilt_series/TS_99.star"])
def test_files_of_others_are_not_filtered_over(sample, tmp_path, capsys, name) -> None:
    path = tmp_path / "kept" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert COMMANDS["filter"](sample, tmp_path / "kept") == 2
    assert f"holds {name.split('/')[0]}, which is of no run" in one_line(capsys)
    assert path.read_text() == "mine"
    assert COMMANDS["filter"](sample, tmp_path / "kept", "--overwrite") == 0


@pytest.mark.parametrize("command, old", [("reconstruct", "reconstructed"), ("plan", "reconstructed"), ("refine", "refined"),
                                          ("refine", "reconstructed"), ("reconstruct", "refined")])
def test_stars_of_series_that_the_new_run_has_not_are_removed(sample, runs, tmp_path, command, old) -> None:
    run, one = tmp_path / "run", tmp_path / "one"
    shutil.copytree(runs / old, run)
    write_dataset(chunk_dataset(read_dataset(sample), [1]), one)
    shutil.copy(sample / "reference.mrc", one)
    (run / "tilt_series" / "mine.txt").write_text("mine")
    assert len(list(run.glob("tilt_series/*.star"))) == 2
    options = ("--iterations", "0") if command == "refine" else ()
    assert COMMANDS[command](one, run, *options, "--overwrite") == 0
    assert [path.name for path in run.glob("tilt_series/*.star")] == ([] if command == "plan" else ["TS_02.star"])
    assert (run / "tilt_series" / "mine.txt").exists()
    assert len(list(one.glob("tilt_series/*.star"))) == 1


@pytest.mark.parametrize("command, other", [("refine", "reconstructed"), ("reconstruct", "refined"), ("plan", "refined")])
def test_a_run_of_the_other_kind_is_refused_or_replaced_whole(sample, runs, tmp_path, capsys, command, other) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / other, run)
    before = contents(run)
    options = ("--iterations", "0") if command == "refine" else ()
    assert COMMANDS[command](sample, run, *options) == 2
    assert "holds a re" in one_line(capsys)
    assert contents(run) == before
    assert COMMANDS[command](sample, run, *options, "--overwrite") == 0
    assert (run / "refine.json").exists() == (command == "refine")
    assert (run / "run.json").exists() != (command == "refine")
    assert (run / "iterations").exists() == (command == "refine")
    capsys.readouterr()
    assert main(["info", str(run)]) == 0


def test_a_run_is_not_written_over_by_what_is_none(sample, runs, tmp_path, capsys) -> None:
    for name in ("refined", "reconstructed"):
        run = runs / name
        before = contents(run)
        halves = [str(run / f"half{number}.mrc") for number in (1, 2)]
        assert main(["postprocess", *halves, "--out", str(run)]) == 2
        assert "holds a re" in one_line(capsys)
        assert COMMANDS["filter"](sample, run, "--overwrite") == 2
        assert "holds a re" in one_line(capsys)
        assert contents(run) == before
    assert main(["postprocess", *halves, "--out", str(tmp_path / "sharp")]) == 0
    assert main(["postprocess", *halves, "--out", str(tmp_path / "sharp")]) == 0  # again


# --- another command ---------------------------------------------------------------------------------------------------------


def test_a_second_command_in_the_folder_is_refused(sample, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    assert main(["plan", str(sample), "--out", str(run)]) == 0
    task = str(run / "tasks" / "0000.json")
    with RunStore(run).locked():
        for call in (lambda: reconstruct(sample, run), lambda: main(["merge", str(run)]),
                     lambda: main(["plan", str(sample), "--out", str(run)])):
            capsys.readouterr()
            assert call() == 1
            assert "another cspr works in this folder" in one_line(capsys)
        assert main(["chunk", task]) == 0  # as the jobs of a cluster do
    assert reconstruct(sample, run) == 0
    refined = tmp_path / "refined"
    assert refine(sample, refined, "--iterations", "0", "--chunks-elsewhere") == 0
    with RunStore(refined).locked():
        capsys.readouterr()
        assert refine(sample, refined, "--iterations", "0") == 1
        assert "another cspr" in one_line(capsys)
    assert refine(sample, refined, "--iterations", "0") == 0


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch) -> None:
    def refuse(stream, how) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with RunStore(tmp_path).locked(), RunStore(tmp_path).locked():
        pass


def test_the_lock_goes_with_its_holder(tmp_path) -> None:
    with pytest.raises(KeyError), RunStore(tmp_path).locked():
        raise KeyError
    with RunStore(tmp_path).locked(), pytest.raises(CsprError, match="another cspr"), RunStore(tmp_path).locked():
        pass


# --- what cannot be written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_atomic, mrc.write_aside])
def test_why_a_file_could_not_be_written_is_told_whatever_comes_after(tmp_path, monkeypatch, write) -> None:
    def full(target) -> None:
        raise OSError(28, "No space left on device")

    def gone(path, *arguments, **named) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", gone)
        with pytest.raises(InputError, match=r"run\.json: cannot be written: No space left on device"):
            write(tmp_path / "run.json", full)
    assert not (tmp_path / "run.json").exists()
    assert write_atomic(tmp_path / "run.json", lambda stream: stream.write(b"whole")) == 5


# --- what a killed command left ----------------------------------------------------------------------------------------------


def test_half_written_maps_are_removed_and_never_copied(sample, tmp_path, monkeypatch) -> None:
    """Killed within a map, in the iteration and then in the run's own folder."""
    run = tmp_path / "run"

    def killed(temporary: str, *arguments, **named):
        Path(temporary).write_bytes(b"half")
        os.link(temporary, f"{temporary}.kept")  # SIGKILL gives nobody the time to remove it
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mrc.mrcfile, "new", killed)
        with pytest.raises(KeyboardInterrupt):
            write_map(tmp_path / "half1.mrc", np.zeros((4, 4, 4), np.float32), 1.0)
    (left,) = tmp_path.glob(".half1.mrc.*.kept")
    assert left.name[: -len(".kept")].endswith(".part")
    assert refine(sample, run, "--iterations", "0") == 0
    places = [run, run / "tilt_series", run / "iterations" / "000", run / "iterations" / "000" / "tilt_series"]
    for place in places:
        shutil.copy(left, place / ".TS_01.star.abc.part")
    shutil.copy(left, run / "iterations" / "000" / "tilt_series" / ".TS_01.star.abc.star")  # of an older version
    (run / "summary.json").unlink()
    assert refine(sample, run, "--iterations", "0") == 0
    assert not list(run.rglob(".*.part"))
    assert not list((run / "tilt_series").glob(".*"))


def test_a_chunk_that_still_runs_keeps_its_half_written_file(sample, tmp_path) -> None:
    """The jobs of a command that was killed go on, and the next command finds them again."""
    run = tmp_path / "run"
    assert main(["plan", str(sample), "--out", str(run)]) == 0
    (run / "chunks" / "0000").mkdir()
    half = run / "chunks" / "0000" / ".half1.sums.99.part"
    half.write_bytes(b"half")
    assert main(["plan", str(sample), "--out", str(run)]) == 0
    assert half.exists()
    assert reconstruct(sample, run) == 0
    assert not half.exists()


def test_a_result_that_the_iteration_has_lost_is_said_and_the_public_one_kept(sample, runs, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "refined", run)
    source = run / "iterations" / "000" / "map.mrc"
    source.unlink()
    public = (run / "map.mrc").read_bytes()
    assert refine(sample, run, "--iterations", "0") == 0  # nothing is left to do
    assert (run / "map.mrc").read_bytes() == public
    (run / "summary.json").unlink()
    capsys.readouterr()
    assert refine(sample, run, "--iterations", "0") == 1
    assert f"{source}: is missing; delete" in one_line(capsys)
    assert (run / "map.mrc").read_bytes() == public
    shutil.rmtree(source.parent)
    assert refine(sample, run, "--iterations", "0") == 0
    assert json.loads((run / "summary.json").read_text())["reason"] == "all iterations done"
    (run / "half1.mrc").unlink()
    assert refine(sample, run, "--iterations", "0") == 0
    assert (run / "half1.mrc").exists()
