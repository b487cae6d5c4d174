"""Slips of the user end in one line and exit code 2: numbers that cannot be, misspelt words, files that are not there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyp_cspr.engine.cli import guarded, main
from pyp_cspr.engine.io.mrc import write_map

ROOT = Path(__file__).resolve().parents[4]


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("options, message", [
    (["--memory", "nan"], "memory nan"), (["--memory", "inf"], "memory inf"), (["--seed", "-1"], "seed -1"),
    (["--mask-diameter", "-5"], "mask_diameter -5"), (["--slurm", "queue=cpu"], "without --executor slurm"),
])
@pytest.mark.parametrize("command", ["reconstruct", "refine"])
def test_options_of_runs(small_sample, tmp_path, capsys, command, options, message) -> None:
    words = [command, str(small_sample), "--out", str(tmp_path / "run")]
    if command == "refine":
        words += ["--reference", str(small_sample / "reference.mrc")]
        names = {"--seed": "seed", "--mask-diameter": "mask_diameter"}
        if options[0] in names:
            options = ["--set", f"{names[options[0]]}={options[1]}"]
    assert main([*words, *options]) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [
    ["--particles", "-3"], ["--particles", "0"], ["--resolution", "nan"], ["--resolution", "inf"], ["--resolution", "-4"],
    ["--seed", "-1"], ["--threads", "-2"],
])
def test_options_of_check(small_sample, capsys, options) -> None:
    assert main(["check", str(small_sample), "--reference", str(small_sample / "reference.mrc"), *options]) == 2
    assert f"{options[0]} {options[1]}" in one_line(capsys)


@pytest.mark.parametrize("command", ["fsc", "postprocess"])
@pytest.mark.parametrize("pixel", ["nan", "inf", "-1"])
def test_pixels_of_maps(tmp_path, random, capsys, command, pixel) -> None:
    for name in ("a.mrc", "b.mrc"):
        write_map(tmp_path / name, random.normal(size=(16, 16, 16)).astype(np.float32), 2.0)
    out = ["--out", str(tmp_path / "out")] if command == "postprocess" else []
    assert main([command, str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc"), "--pixel", pixel, *out]) == 2
    assert f"--pixel {pixel}" in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_misspelt_command_is_said_to_be_one(capsys) -> None:
    """Whatever its other words are called: there is a command named sample."""
    with pytest.raises(SystemExit) as ended:
        main(["reconstuct", "sample"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "'reconstuct'" in error
    assert "reconstruct" in error.replace("reconstuct", "")
    with pytest.raises(SystemExit):
        main(["--end-with", "1", "merge", "--help"])
    assert "usage: cspr merge" in capsys.readouterr().out


def test_a_setting_that_is_misspelt_in_a_file_names_the_file(small_sample, tmp_path, capsys) -> None:
    path = tmp_path / "mine.toml"
    words = ["refine", str(small_sample), "--reference", str(small_sample / "reference.mrc"), "--out", str(tmp_path / "run"),
             "--settings", str(path)]
    for text, message in (("priour_shift = 3\n", "unknown setting 'priour_shift'"),
                          ("prior_shift = [3, -3]\n", "prior_shift -3"), ("prior_shift = []\n", "empty list")):
        path.write_text(text)
        assert main(words) == 2
        line = one_line(capsys)
        assert message in line
        assert str(path) in line


def test_task_files_that_are_none(tmp_path, capsys) -> None:
    assert main(["chunk", str(tmp_path / "0000.json")]) == 2
    assert "no such task file" in one_line(capsys)
    for text in ("[]", "3", "{}"):
        (tmp_path / "0000.json").write_text(text)
        assert main(["chunk", str(tmp_path / "0000.json")]) == 1
        assert "plan the run again" in one_line(capsys)


def test_a_reference_that_is_no_cube_is_named(small_sample, tmp_path, capsys) -> None:
    path = tmp_path / "flat.mrc"
    write_map(path, np.ones((32, 32, 30), np.float32), 8.0)
    for words in (["check", str(small_sample), "--reference", str(path)],
                  ["refine", str(small_sample), "--reference", str(path), "--out", str(tmp_path / "run")]):
        assert main(words) == 2
        assert f"{path}: 30 x 32 x 32 voxels" in one_line(capsys)


def test_a_report_is_named_only_where_there_is_one(small_sample, tmp_path, capsys) -> None:
    words = ["reconstruct", str(small_sample), "--out", str(tmp_path / "run"), "--processes", "1", "--threads", "1"]
    assert main([*words, "--no-report"]) == 0
    capsys.readouterr()
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "report:" not in out
    assert f"map: {tmp_path / 'run' / 'map.mrc'}" in out
    assert main([*words, "--overwrite"]) == 0
    assert f"report: {tmp_path / 'run' / 'report.html'}" in capsys.readouterr().out
    assert len(list((tmp_path / "run" / "report").glob("*.png"))) >= 7
    assert main([*words, "--overwrite", "--no-report"]) == 0  # nor is the report of the run that was replaced its own
    assert "report:" not in capsys.readouterr().out
    assert not (tmp_path / "run" / "report.html").exists()
    assert not list((tmp_path / "run").glob("report/*"))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0 < summary["seconds"]
    assert 0 < summary["compute_seconds"]


def run_chunk(run: Path, cache: Path, limit: str) -> list:
    """(exit code, lines on standard error) of the first chunk in a process of its own, after a command of the shell."""
    command = f"{limit}; exec {sys.executable} -m pyp_cspr.engine.cli chunk {run}/tasks/0000.json --threads 1"
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # coverage's file is large too
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=110, check=False, cwd=ROOT,
                          env=dict(env, CSPR_CACHE_DIR=str(cache)))
    lines = done.stderr.replace("\r", "\n").splitlines()
    return [done.returncode, *(line for line in lines if line.strip() and "projections" not in line)]


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_no_space_for_a_chunk_is_said_in_one_line(small_sample, tmp_path) -> None:
    """Files of 2, 20 or 60 KiB at most, after the plan. Kernels whose code cannot be kept are run all the same, and no file of
    theirs is left half-written; sums that cannot be written are said."""
    run, cache = tmp_path / "run", tmp_path / "cache"
    assert main(["plan", str(small_sample), "--out", str(run)]) == 0
    code, line = run_chunk(run, cache, "ulimit -f 2")
    assert code == 2
    assert "File too large" in line
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".code"]
    shutil.copytree(run, tmp_path / "whole")
    assert run_chunk(tmp_path / "whole", cache, "true") == [0]
    for blocks in (20, 60):
        code, line = run_chunk(run, cache, f"ulimit -f {blocks}")
        assert code == 2
        assert "half1.sums: cannot be written: File too large" in line
        assert not [path for path in run.rglob("*.npz") if path.parent.name == "0000"]
        assert not list(run.rglob(".*.part"))


def test_names_that_are_too_long_are_said_in_one_line(small_sample, tmp_path, capsys) -> None:
    data, reference, long = str(small_sample), str(small_sample / "reference.mrc"), str(tmp_path / ("x" * 300))
    for words in (["reconstruct", data, "--out", long], ["plan", data, "--out", long], ["convert", data, long],
                  ["refine", data, "--reference", reference, "--out", long],
                  ["postprocess", reference, reference, "--out", long], ["chunk", long], ["info", long], ["merge", long],
                  ["filter", data, "--out", long, "--min-projections", "1"],
                  ["sample", long, "--series", "1", "--particles", "1", "--tilts", "3", "--box", "32", "--pixel", "8"],
                  ["check", long], ["fsc", long, reference], ["compare", long, long]):
        assert main(words) == 2, words
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line and "0/3 [" not in line)  # the bar of sample
        assert "x" * 300 in line


def test_what_the_system_refuses_is_said_in_one_line(small_sample, tmp_path, capsys) -> None:
    """Also where nobody thought of it; a fault of the program still goes up."""
    def refused() -> int:
        raise PermissionError(13, "Permission denied", "/data/\x1b[31mmine")

    assert guarded("cspr x", refused) == 2
    assert one_line(capsys) == "cspr x: error: /data/?[31mmine: Permission denied"
    with pytest.raises(KeyError):
        guarded("cspr x", lambda: {}["fault"])
    assert main(["plan", str(small_sample), "--out", str(tmp_path / "run")]) == 0
    (tmp_path / "file").write_text("")
    capsys.readouterr()
    assert main(["chunk", str(tmp_path / "run/tasks/0000.json"), "--debug", str(tmp_path / "file" / "look"), "--reference",
                 str(small_sample / "reference.mrc"), "--threads", "1"]) == 2
    lines = capsys.readouterr().err.splitlines()  # the first ones say what the task is
    assert lines[-1] == f"cspr chunk: error: {tmp_path}/file/look/start: Not a directory"
    assert not [line for line in lines if "Traceback" in line]
