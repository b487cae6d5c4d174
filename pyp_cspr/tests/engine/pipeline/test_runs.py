"""Plan, chunk, merge: the result does not depend on how the work was cut, and nothing is lost when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.pipeline.store import RunStore

from .killing import finished_chunks, is_killed

QUICK = ["--symmetry", "C3", "--no-report", "--threads", "1"]
MAPS = ("half1", "half2", "map")


def reconstruct(data, out, *options) -> None:
    assert main(["reconstruct", str(data), "--out", str(out), *QUICK, *options]) == 0


def maps(run):
    return {name: read_map(run / f"{name}.mrc")[0] for name in MAPS}


@pytest.fixture(scope="module")
def whole(small_sample, tmp_path_factory):
    """One chunk, one process."""
    out = tmp_path_factory.mktemp("run") / "whole"
    reconstruct(small_sample, out, "--tasks-per-chunk", "3", "--processes", "1")
    return out


def assert_same_maps(one, two, tolerance: float) -> None:
    for name, expected in maps(one).items():
        got = maps(two)[name]
        assert np.linalg.norm(got - expected) <= tolerance * np.linalg.norm(expected), name


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--tasks-per-chunk", "2"), ("--tasks-per-chunk", "1", "--processes", "2"),
                                     ("--tasks-per-chunk", "3", "--threads", "2", "--memory", "0.01")])
def test_maps_do_not_depend_on_chunks_processes_threads_or_memory(small_sample, whole, tmp_path, options) -> None:
    out = tmp_path / "run"
    reconstruct(small_sample, out, *options)
    assert_same_maps(whole, out, 1e-6)


def test_the_same_plan_gives_the_same_bits(small_sample, whole, tmp_path) -> None:
    out = tmp_path / "again"
    reconstruct(small_sample, out, "--tasks-per-chunk", "3", "--processes", "1")
    assert_same_maps(whole, out, 0.0)


def test_commands_one_by_one_give_the_same_as_reconstruct(small_sample, tmp_path, capsys) -> None:
    together, apart = tmp_path / "together", tmp_path / "apart"
    reconstruct(small_sample, together, "--processes", "1")
    capsys.readouterr()
    assert main(["plan", str(small_sample), "--out", str(apart), "--symmetry", "C3", "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    for task in reversed(tasks):  # in any order
        assert main(["chunk", str(task), "--threads", "1"]) == 0
    assert main(["merge", str(apart), "--no-report"]) == 0
    assert_same_maps(together, apart, 0.0)


def test_merge_names_the_chunks_that_are_missing(small_sample, tmp_path, capsys) -> None:
    assert main(["plan", str(small_sample), "--out", str(tmp_path / "run")]) == 0
    assert main(["merge", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err.strip()
    assert "3 of 3 chunks are not finished: 0000 (" in error
    assert "\n" not in error


def test_a_run_is_again_a_data_set(small_sample, whole) -> None:
    before, after = read_dataset(small_sample), read_dataset(whole)
    np.testing.assert_allclose(after.particles["position"], before.particles["position"], atol=1e-4)
    np.testing.assert_allclose(after.particles["rotation"], before.particles["rotation"], atol=1e-7)
    np.testing.assert_allclose(after.exposures["rotation"], before.exposures["rotation"], atol=1e-7)
    assert set(np.unique(after.particles["half"])) == {1, 2}


def test_half_sets_persist_through_runs(whole, tmp_path) -> None:
    out = tmp_path / "second"
    reconstruct(whole, out, "--processes", "1")
    np.testing.assert_array_equal(read_dataset(out).particles["half"], read_dataset(whole).particles["half"])
    assert_same_maps(whole, out, 1e-5)


def test_the_run_folder_holds_no_particle_images(whole) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    files = [path for path in whole.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".mrcs", ".part")]
    assert not list(whole.glob("chunks/*/half*.sums"))  # merged sums are removed
    maps_and_rest = sum(path.stat().st_size for path in files)
    assert maps_and_rest < summary["bytes_written"] * 2
    assert summary["n_particles"] == 36
    assert summary["n_projections"] + summary["n_outside"] == 36 * 9


def test_another_plan_is_refused_and_overwrite_replaces_it(small_sample, whole, tmp_path, capsys) -> None:
    out = tmp_path / "run"
    reconstruct(small_sample, out, "--processes", "1", "--padding", "1")
    assert main(["reconstruct", str(small_sample), "--out", str(out), *QUICK]) == 2
    assert "holds a run of other data or settings" in capsys.readouterr().err
    reconstruct(small_sample, out, "--overwrite", "--tasks-per-chunk", "3", "--processes", "1")
    assert_same_maps(whole, out, 0.0)


def test_a_damaged_chunk_is_found_and_made_again(small_sample, tmp_path) -> None:
    out, good = tmp_path / "run", tmp_path / "good"
    reconstruct(small_sample, good, "--processes", "1")
    assert main(["plan", str(small_sample), "--out", str(out), "--symmetry", "C3"]) == 0
    store = RunStore(out)
    for task in store.task_paths():
        assert main(["chunk", str(task), "--threads", "1"]) == 0
    file = store.chunk_folder(1) / "half1.sums"
    file.write_bytes(file.read_bytes()[:-100])
    reconstruct(small_sample, out, "--processes", "1")
    assert_same_maps(good, out, 0.0)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_killed_at_ten_moments_the_map_is_the_same(small_sample, whole, tmp_path) -> None:
    """SIGKILL at random moments from the plan to the end, each of a new run; then the same command again."""
    options = [*QUICK, "--processes", "1"]
    command = [sys.executable, "-m", "pyp_cspr.engine.cli", "reconstruct", str(small_sample), *options]
    good = tmp_path / "good"
    subprocess.run([*command, "--out", str(good)], check=True, capture_output=True, timeout=120)
    marks = [good / "run.json", *good.glob("chunks/*/manifest.json"), good / "summary.json"]
    pauses = np.diff(sorted(path.stat().st_mtime_ns for path in marks)) * 1e-9
    assert len(pauses) == 4
    rng = np.random.default_rng(7)
    cut_short = 0
    for number in range(20):
        out = tmp_path / f"killed {number}"
        done = cut_short % 4  # chunks, and then a random part of the time until the next thing is done

        def reached(out=out, done=done) -> bool:
            return (out / "run.json").exists() and len(list(out.glob("chunks/*/manifest.json"))) >= done

        killed = is_killed([*command, "--out", str(out)], reached, rng.uniform(0.0, 0.9) * pauses[done])
        if not killed or (out / "summary.json").exists():
            pauses[done] *= 0.5  # it was faster this time
            continue
        before = finished_chunks(out)
        assert len(before) >= done
        reconstruct(small_sample, out, "--processes", "1")
        after = finished_chunks(out)
        assert len(after) == 3
        assert {path: after[path] for path in before} == before, "a finished chunk was redone"
        assert_same_maps(good, out, 0.0)
        assert not list(out.rglob("*.part"))
        cut_short += 1
        if cut_short == 10:
            break
    assert cut_short == 10


def test_a_worker_that_dies_is_reported_and_the_run_goes_on(small_sample, whole, tmp_path) -> None:
    """The parent is told in one line; the orphans leave when the parent is killed."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "pyp_cspr.engine.cli", "reconstruct", str(small_sample), "--out", str(out), *QUICK,
               "--processes", "2"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    children: list = []
    end = time.monotonic() + 60
    while not children and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
        children = _children(process.pid)
    assert children, "no worker was seen"
    os.kill(children[-1], signal.SIGKILL)  # it has just begun
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in error
    assert "its process died" in error
    reconstruct(small_sample, out, "--processes", "1")
    assert_same_maps(whole, out, 1e-6)


def _children(pid: int):
    """Worker processes, not the resource tracker."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as stream:
                parent = int(stream.read().rsplit(")", 1)[1].split()[1])
            with open(f"/proc/{entry}/cmdline") as stream:
                command = stream.read()
        except OSError:
            continue
        if parent == pid and "spawn_main" in command:
            found.append(int(entry))
    return found
