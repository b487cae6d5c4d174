"""cspr refine: its settings, and what it refuses before anything is computed."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tomli_w

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.geometry import rotation_angle
from pyp_cspr.engine.io.mrc import read_map, write_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.model.settings import ReconstructSettings, RefineSettings
from pyp_cspr.engine.pipeline import iterate

ONE = ["--no-report", "--processes", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Two series of six particles, seven tilts."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    options = ["--series", "2", "--particles", "6", "--tilts", "7", "--box", "32", "--pixel", "8", "--pose-error", "2"]
    assert main(["sample", str(folder), *options, "--position-error", "4"]) == 0
    return folder


@pytest.fixture
def run(sample, tmp_path, capsys):
    """Call the command on the sample; returns its exit code."""
    capsys.readouterr()

    def call(*options: str, reference: str = "") -> int:
        reference = reference or str(sample / "reference.mrc")
        return main(["refine", str(sample), "--reference", reference, "--out", str(tmp_path / "run"), *ONE, *options])

    call.data = sample
    return call


def one_line(capsys) -> str:
    out, err = capsys.readouterr()
    lines = [line for line in err.strip().splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("cspr refine: error: ")
    assert out == ""
    return lines[0]


def planned(tmp_path, iteration: int) -> dict:
    return json.loads((tmp_path / "run" / "iterations" / f"{iteration:03d}" / "run.json").read_text())


# --- settings -------------------------------------------------------------------------------------------------------


def test_settings_of_a_file_by_iteration(run, tmp_path) -> None:
    """The last value of a list repeats; options are above --set, which is above the file."""
    values = {"resolution": [60.0, 40], "prior_shift": [0.0, 50.0, 20.0], "half_references": [False, True], "seed": 5,
              "start_resolution": 80, "symmetry": "C1"}
    (tmp_path / "settings.toml").write_text(tomli_w.dumps(values))
    assert run("--settings", str(tmp_path / "settings.toml"), "--set", "start_resolution=70", "--set",
               "prior_axis_angle=0:0.5", "--symmetry", "C3", "--iterations", "3") == 0
    plans = [planned(tmp_path, iteration) for iteration in range(4)]
    assert plans[0]["refine"] is False
    assert [plan["resolution"] for plan in plans[1:]] == [60.0, 40.0, 40.0]
    for name, expected in {"prior_shift": [0.0, 50.0, 20.0], "half_references": [False, True, True], "seed": [5, 5, 5],
                           "start_resolution": [70.0] * 3, "prior_axis_angle": [0.0, 0.5, 0.5], "symmetry": ["C3"] * 3}.items():
        assert [plan["settings"][name] for plan in plans[1:]] == expected, name
    assert plans[0]["settings"]["symmetry"] == "C3"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [entry["limit"] for entry in summary["iterations"]] == [None, 60.0, 40.0, 40.0]
    assert summary["iterations"][1]["shift"] == 0.0  # fixed by its prior
    assert summary["iterations"][2]["shift"] > 0.0


def test_resolutions_as_an_option_and_a_summary_as_json(run, capsys, tmp_path) -> None:
    assert run("--resolution", "50", "30", "--iterations", "2", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert [entry["limit"] for entry in summary["iterations"]] == [None, 50.0, 30.0]
    assert summary["reason"] == "all iterations done"
    assert [planned(tmp_path, iteration)["resolution"] for iteration in (1, 2)] == [50.0, 30.0]


def test_the_table_of_iterations(run, capsys) -> None:
    assert run("--resolution", "40", "--iterations", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["iteration", "limit/A"]
    assert lines[1].split()[:2] == ["0", "-"]
    assert lines[2].split()[:2] == ["1", "40.00"]
    assert lines[3] == "all iterations done"


@pytest.mark.parametrize(("command", "settings"), [
    ("refine", RefineSettings), ("reconstruct", ReconstructSettings), ("plan", ReconstructSettings)])
def test_every_setting_is_a_line_of_the_help(capsys, command, settings) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    lines = lines[next(number for number, line in enumerate(lines) if line.startswith("settings, for")) + 1:]
    assert [line.split()[0] for line in lines] == [field.name for field in dataclasses.fields(settings)]
    assert lines[0].split() == ["box", "=", "0", "pixel", "box", "of", "the", "map;", "0:", "as", "the", "data", "say"]
    assert max(map(len, lines)) <= 150
    if command == "refine":
        assert any(line.split()[:4] == ["prior_tilt_angle", "=", "1.5", "deg"] for line in lines)


def test_the_help_of_all_speaks_to_users(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "Constrained single-particle refinement of tilt series." in text
    assert "module" not in text


@pytest.mark.parametrize(("options", "message"), [
    (["--set", "priour_shift=3"], "unknown setting 'priour_shift'"),
    (["--set", "seed=often"], "is not int"),
    (["--set", "half_references=perhaps"], "is not bool"),
    (["--set", "prior_shift=-3"], "prior_shift -3"),
    (["--set", "prior_shift=3:-3"], "prior_shift -3"),
    (["--set", "padding=9"], "padding 9"),
    (["--resolution", "-4"], "resolution -4"),
    (["--symmetry", "Q9"], "symmetry 'Q9'"),
    (["--iterations", "-1"], "iterations -1"),
    (["--tasks-per-chunk", "0"], "tasks per chunk 0"),
    (["--processes", "-1"], "processes -1"),
    (["--settings", "nowhere.toml"], "nowhere.toml"),
    (["--pixel", "3"], "finer than the images"),
    (["--box", "40"], "the run's is 40"),
])
def test_settings_that_cannot_be_are_refused_in_one_line(run, tmp_path, capsys, options, message) -> None:
    assert run(*options) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("text", "message"), [
    ("prior_turn = 3\n", "unknown setting 'prior_turn'"),
    ("[refine]\nseed = 3\n", "unknown setting 'refine'"),
    ("resolution = []\n", "empty list"),
    ('resolution = [20, "fine"]\n', "resolution is 'fine'"),
    ("half_references = 1\n", "half_references is 1; it must be true or false"),
    ("prior_shift = nan\n", "prior_shift"),
    ("seed = \n", "TOML"),
])
def test_a_settings_file_that_cannot_be_is_refused_in_one_line(run, tmp_path, capsys, text, message) -> None:
    (tmp_path / "settings.toml").write_text(text)
    assert run("--settings", str(tmp_path / "settings.toml")) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "run").exists()


# --- references, masks and folders ----------------------------------------------------------------------------------


def with_nan(volume):
    volume[3, 4, 5] = np.nan
    return volume


REFERENCES = {
    "another box": (lambda volume: volume[2:-2, 2:-2, 2:-2], 8.0, "box 28 at 8"),
    "another pixel": (lambda volume: volume, 7.0, "box 32 at 7"),
    "no cube": (lambda volume: volume[:-2], 8.0, "cube"),
    "not a number": (with_nan, 8.0, "not numbers"),
    "empty": (np.zeros_like, 8.0, "is empty"),
}


@pytest.mark.filterwarnings("ignore:Data array contains NaN")
@pytest.mark.parametrize("kind", REFERENCES)
def test_a_reference_that_cannot_be_is_refused_in_one_line(run, sample, tmp_path, capsys, kind) -> None:
    change, pixel, message = REFERENCES[kind]
    volume = np.array(read_map(sample / "reference.mrc")[0])
    write_map(tmp_path / "other.mrc", np.ascontiguousarray(change(volume)), pixel)
    assert run(reference=str(tmp_path / "other.mrc")) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_missing_or_truncated_reference(run, sample, tmp_path, capsys) -> None:
    assert run(reference=str(tmp_path / "nowhere.mrc")) == 2
    assert "nowhere.mrc" in one_line(capsys)
    content = (sample / "reference.mrc").read_bytes()
    (tmp_path / "short.mrc").write_bytes(content[:-1000])
    assert run(reference=str(tmp_path / "short.mrc")) == 2
    assert "truncated" in one_line(capsys)
    assert not (tmp_path / "run").exists()


MASKS = {
    "another box": (np.ones((16, 16, 16)), "16 x 16 x 16"),
    "no cube": (np.ones((32, 32, 16)), "32 x 32 x 16"),
    "too large values": (np.full((32, 32, 32), 7.0), "from 0 to 1"),
    "negative values": (np.linspace(-1, 1, 32**3).reshape((32,) * 3), "from 0 to 1"),
    "nothing inside": (np.zeros((32, 32, 32)), "from 0 to 1"),
    "not a number": (np.full((32, 32, 32), np.nan), "from 0 to 1"),
}


@pytest.mark.filterwarnings("ignore:Data array contains NaN")
@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_that_cannot_be_is_refused_in_one_line(run, tmp_path, capsys, kind) -> None:
    values, message = MASKS[kind]
    write_map(tmp_path / "mask.mrc", values.astype(np.float32), 8.0)
    assert run("--mask", str(tmp_path / "mask.mrc")) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_mask_of_another_pixel_or_none_at_all(run, tmp_path, capsys) -> None:
    write_map(tmp_path / "mask.mrc", np.ones((32, 32, 32), np.float32), 4.0)
    assert run("--mask", str(tmp_path / "mask.mrc")) == 2
    assert "4 A" in one_line(capsys)
    assert run("--mask", "automatic") == 2
    assert "automatic" in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_folders_that_cannot_be(sample, run, tmp_path, capsys) -> None:
    def refused(*words: str) -> str:
        assert main(["refine", *words, *ONE]) == 2
        return one_line(capsys)

    reference = ["--reference", str(sample / "reference.mrc")]
    assert "is the data set itself" in refused(str(sample), *reference, "--out", str(sample))
    assert "nothing" in refused(str(tmp_path / "nothing"), *reference, "--out", str(tmp_path / "run"))
    (tmp_path / "file").write_text("")
    assert "cannot be made" in refused(str(sample), *reference, "--out", str(tmp_path / "file" / "run"))


def test_another_run_is_refused_and_overwrite_replaces_it(run, tmp_path, capsys) -> None:
    assert run("--resolution", "40", "--iterations", "1") == 0
    capsys.readouterr()
    assert run("--resolution", "50", "--iterations", "1") == 2
    assert "holds a refinement of other data or settings" in one_line(capsys)
    assert planned(tmp_path, 1)["resolution"] == 40.0
    assert run("--resolution", "50", "--iterations", "1", "--overwrite") == 0
    assert planned(tmp_path, 1)["resolution"] == 50.0
    (tmp_path / "run" / "refine.json").write_text("{")
    capsys.readouterr()
    assert run("--resolution", "50", "--iterations", "1") == 1
    assert "refine.json" in one_line(capsys)


# --- what a killed run leaves -----------------------------------------------------------------------------------------


def test_results_of_two_iterations_are_never_taken_for_one_run(run, tmp_path, monkeypatch) -> None:
    """Killed while the results of a second iteration replace those of the first: there is no summary, and no star is cut."""
    assert run("--iterations", "0") == 0
    folder = tmp_path / "run"
    assert (folder / "summary.json").exists()
    order = []
    replace = iterate.write_atomic

    def killed(path, write) -> int:
        order.append(str(path.relative_to(folder)))
        if path == folder / "optimisation_set.star":
            raise KeyboardInterrupt
        return replace(path, write)

    monkeypatch.setattr(iterate, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        iterate.refine(str(run.data), str(run.data / "reference.mrc"), str(folder), {}, 1, processes=1, threads=1, report=False)
    assert not (folder / "summary.json").exists()
    named = {"particles.star", "tomograms.star", "tilt_series/TS_01.star", "tilt_series/TS_02.star"}
    assert named <= set(order[: order.index("optimisation_set.star")])


def test_a_search_of_rotations_leaves_positions_that_are_kept(run, tmp_path) -> None:
    """Its candidates are polished, and that moved them."""
    assert run("--iterations", "1", "--set", "prior_position=0", "--set", "search_cone=8") == 0
    start, found = read_dataset(run.data), read_dataset(tmp_path / "run")
    np.testing.assert_allclose(found.particles["position"], start.particles["position"], atol=1e-6)
    assert rotation_angle(found.particles["rotation"], start.particles["rotation"]).max() > 0.5
