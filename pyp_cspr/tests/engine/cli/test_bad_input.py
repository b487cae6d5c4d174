"""Bad input is refused in seconds: exit code 2, one line that says what, where and what to do, no traceback."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.io.mrc import read_map, write_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.io.star import read_star, write_star


@pytest.fixture
def data(small_sample, tmp_path):
    """A copy of the small sample that may be broken; image stacks are linked."""
    folder = tmp_path / "data"
    shutil.copytree(small_sample, folder, ignore=shutil.ignore_patterns("*.mrc"))
    for path in small_sample.glob("*.mrc"):
        (folder / path.name).symlink_to(path)
    return folder


def edit(path, block: str, column: str, row: int, value: str) -> None:
    blocks = read_star(path)
    blocks[block].columns[column][row] = value
    write_star(path, blocks)


def truncated_stack(data) -> None:
    path = sorted(data.glob("TS*.mrc"))[0]
    content = path.resolve().read_bytes()
    path.unlink()
    path.write_bytes(content[:-1000])


def missing_column(data) -> None:
    blocks = read_star(data / "particles.star")
    del blocks["particles"].columns["rlnAngleTilt"]
    write_star(data / "particles.star", blocks)


def unknown_series(data) -> None:
    edit(data / "particles.star", "particles", "rlnTomoName", 3, "TS_99")


def zero_pixel(data) -> None:
    edit(data / "tomograms.star", "global", "rlnTomoTiltSeriesPixelSize", 0, "0")


def disagreeing_pixel(data) -> None:
    edit(data / "particles.star", "optics", "rlnTomoTiltSeriesPixelSize", 0, "3.1")


def nan_coordinate(data) -> None:
    blocks = read_star(data / "particles.star")
    for name in list(blocks["particles"].columns):
        if name in ("rlnCoordinateX", "rlnCenteredCoordinateXAngst"):
            blocks["particles"].columns[name][2] = "nan"
    write_star(data / "particles.star", blocks)


def more_tilts_than_images(data) -> None:
    star = sorted((data / "tilt_series").glob("*.star"))[0]
    blocks = read_star(star)
    block = next(iter(blocks.values()))
    for values in block.columns.values():
        values.append(values[-1])
    name = block.columns["rlnMicrographName"][-1]
    block.columns["rlnMicrographName"][-1] = f"{len(block):06d}@{name.split('@')[-1]}"
    write_star(star, blocks)
    edit(data / "tomograms.star", "global", "rlnTomoFrameCount", 0, str(len(block)))


def empty_particles(data) -> None:
    blocks = read_star(data / "particles.star")
    for values in blocks["particles"].columns.values():
        values.clear()
    write_star(data / "particles.star", blocks)


BROKEN = {
    truncated_stack: "truncated",
    missing_column: "rlnAngleTilt",
    unknown_series: "TS_99",
    zero_pixel: "pixel size",
    disagreeing_pixel: "pixel",
    nan_coordinate: "nan",
    more_tilts_than_images: "image",
    empty_particles: "particle",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda function: function.__name__)
@pytest.mark.parametrize("command", ["reconstruct", "check"])
def test_broken_data_are_refused_in_one_line(data, tmp_path, capsys, broken, command) -> None:
    broken(data)
    options = ["--out", str(tmp_path / "run")] if command == "reconstruct" else []
    capsys.readouterr()
    assert main([command, str(data), *options]) == 2
    assert_one_line(capsys, BROKEN[broken])
    assert not (tmp_path / "run").exists()


def change(data, column: str, values, series: str = "") -> None:
    """Set a column of the particles, of one series or of all."""
    blocks = read_star(data / "particles.star")
    columns = blocks["particles"].columns
    old = columns.get(column, [""] * len(blocks["particles"]))
    columns[column] = [values if name == series or not series else value for name, value in zip(columns["rlnTomoName"], old)]
    write_star(data / "particles.star", blocks)


@pytest.mark.parametrize("command", ["reconstruct", "refine"])
def test_a_map_of_nothing_is_refused(data, tmp_path, capsys, command) -> None:
    change(data, "rlnCenteredCoordinateXAngst", "1e6")
    options = [] if command == "reconstruct" else ["--reference", str(data / "reference.mrc")]
    capsys.readouterr()
    assert main([command, str(data), "--out", str(tmp_path / "run"), "--processes", "1", *options]) == 2
    assert "no projection makes the map" in capsys.readouterr().err
    assert not (tmp_path / "run" / "summary.json").exists()


def test_particles_of_one_half_set_are_refused(data, tmp_path, capsys) -> None:
    change(data, "rlnRandomSubset", "2")
    capsys.readouterr()
    assert main(["reconstruct", str(data), "--out", str(tmp_path / "run")]) == 2
    assert_one_line(capsys, "all particles are in half-set 2")


@pytest.mark.parametrize("search", ["search_shift=0", "search_shift=24", "search_cone=20"])
def test_a_series_whose_particles_lie_outside_its_images_is_left_as_it_is(data, tmp_path, capsys, search) -> None:
    """One of three: it adds nothing, and the others are refined."""
    change(data, "rlnCenteredCoordinateXAngst", "1e6", "TS_02")
    command = ["refine", str(data), "--reference", str(data / "reference.mrc"), "--out", str(tmp_path / "run"), "--iterations",
               "1", "--resolution", "30", "--no-report", "--processes", "1", "--set", search]
    assert main(command) == 0
    before, after = read_dataset(data), read_dataset(tmp_path / "run")
    for name in ("position", "rotation"):
        moved = np.abs(after.particles[name] - before.particles[name]).reshape(3, -1).max(axis=1)
        assert moved[1] < 1e-6 < moved[[0, 2]].min()
    assert np.isnan(after.particles["score"].reshape(3, -1)[1]).all()


def assert_one_line(capsys, word: str) -> None:
    out, err = capsys.readouterr()
    lines = [line for line in err.strip().splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert "error:" in lines[0]
    assert word.lower() in lines[0].lower()
    assert "Traceback" not in out + err


def test_a_reference_of_another_box_is_refused(data, tmp_path, capsys) -> None:
    reference, pixel = read_map(data / "reference.mrc")
    write_map(tmp_path / "odd.mrc", reference[:-2], pixel)
    assert main(["check", str(data), "--reference", str(tmp_path / "odd.mrc")]) == 2
    assert_one_line(capsys, "cube")
    write_map(tmp_path / "big.mrc", np.zeros((40, 40, 40), np.float32), pixel)
    assert main(["fsc", str(data / "reference.mrc"), str(tmp_path / "big.mrc")]) == 2
    assert_one_line(capsys, "box")


def test_a_folder_that_cannot_be_written_is_refused(data, tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert main(["reconstruct", str(data), "--out", str(tmp_path / "file" / "run")]) == 2
    assert_one_line(capsys, "cannot be made")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--box", "33"], "even"),
        (["--symmetry", "Q5"], "symmetry"),
        (["--pixel", "2"], "finer"),
        (["--padding", "0.5"], "padding"),
        (["--tasks-per-chunk", "0"], "at least 1"),
        (["--box", "4096"], "larger than its images"),
        (["--memory", "-1"], "memory"),
        (["--processes", "-2"], "processes"),
    ],
)
def test_settings_that_cannot_be_are_refused(data, tmp_path, capsys, options, word) -> None:
    assert main(["reconstruct", str(data), "--out", str(tmp_path / "run"), *options]) == 2
    assert_one_line(capsys, word)


def test_the_data_set_is_not_overwritten(data, capsys) -> None:
    assert main(["reconstruct", str(data), "--out", str(data)]) == 2
    assert_one_line(capsys, "is the data set itself")


def test_a_folder_that_is_no_run(tmp_path, capsys) -> None:
    for command in ("info", "merge"):
        assert main([command, str(tmp_path)]) == 2
        assert_one_line(capsys, "holds no run")


def test_a_missing_data_set(tmp_path, capsys) -> None:
    assert main(["check", str(tmp_path / "nothing")]) == 2
    assert_one_line(capsys, "nothing")
