"""A refinement that is started again: goes on after SIGKILL anywhere, notices other data, and adds up what it cost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.filters import _upsample
from pyp_cspr.engine.errors import CsprError
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.star import read_star, write_star
from pyp_cspr.engine.model.task import content_hash
from pyp_cspr.engine.pipeline.reporting import read_tables
from pyp_cspr.engine.pipeline.store import RunStore, read_rows, read_sums, write_sums

ONE = ["--processes", "1", "--threads", "1"]
QUICK = ["--no-report", *ONE]


@pytest.fixture(scope="module")
def whole(sample, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert refine(sample, out, "--iterations", "2") == 0
    return out


def refine(data, out, *options: str, quick=QUICK) -> int:
    return main(["refine", str(data), "--reference", str(data / "reference.mrc"), "--out", str(out), "--resolution", "40",
                 *quick, *options])


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


# --- it goes on ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finer(tmp_path_factory) -> Path:
    """At box 64 the mask of the references is made on a coarser grid; with a run that nobody killed."""
    folder = tmp_path_factory.mktemp("finer")
    assert main(["sample", str(folder / "data"), "--series", "2", "--particles", "6", "--tilts", "5"]) == 0
    assert main([*command_of(folder), "--out", str(folder / "good"), *ONE]) == 0
    return folder


def command_of(folder: Path) -> list:
    data = folder / "data"
    return ["refine", str(data), "--reference", str(data / "reference.mrc"), "--iterations", "1", "--resolution", "30",
            "--no-report"]


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not say which cores a process may use")
@pytest.mark.parametrize("options, cores", [(ONE, 0), ([], 1)])
def test_killed_within_an_iteration_it_goes_on_with_other_threads_and_cores(finer, tmp_path, options, cores) -> None:
    """The plan that is there is taken as it is: made again, its references might differ in their last bits."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "pyp_cspr.engine.cli", *command_of(finer), "--out", str(out), *options]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    planned = out / "iterations" / "001" / "run.json"
    while process.poll() is None and not planned.exists():
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    assert planned.exists()
    assert not (out / "summary.json").exists()
    when = planned.stat().st_mtime_ns
    few = sorted(os.sched_getaffinity(0))[: cores or None]
    again = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False,
                           preexec_fn=lambda: os.sched_setaffinity(0, few))
    assert again.returncode == 0, again.stderr
    assert planned.stat().st_mtime_ns == when
    assert summary_of(out)["reason"] == "all iterations done"
    expected, got = (read_map(folder / "map.mrc")[0] for folder in (finer / "good", out))
    assert np.linalg.norm(got - expected) < 1e-5 * np.linalg.norm(expected)


def test_a_plan_that_is_there_is_not_made_again(sample, whole, tmp_path, monkeypatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for path in (run / "summary.json", run / "iterations" / "002" / "summary.json"):
        path.unlink()
    shutil.rmtree(run / "iterations" / "002" / "chunks")

    def other(*arguments):
        raise AssertionError("references are made again")

    monkeypatch.setattr("pyp_cspr.engine.pipeline.iterate.references", other)
    assert refine(sample, run, "--iterations", "2") == 0
    for name in ("half1.mrc", "half2.mrc"):
        np.testing.assert_array_equal(read_map(run / name)[0], read_map(whole / name)[0])


def test_upsampling_is_linear_and_the_same_with_any_number_of_blas_threads(random) -> None:
    from threadpoolctl import threadpool_limits

    axis = np.arange(36.0)
    ramp = (axis[:, None, None] + 2 * axis[:, None] - 3 * axis).astype(np.float32)
    place = np.clip((np.arange(96) - 48) * 36 / 96 + 18, 0, 35)
    expected = place[:, None, None] + 2 * place[:, None] - 3 * place
    np.testing.assert_allclose(_upsample(ramp, 96), expected, atol=1e-4)
    volume = random.normal(size=(36, 36, 36)).astype(np.float32)
    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads):
            found.append(_upsample(volume, 96))
    assert found[0].dtype == np.float32
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


# --- it notices ------------------------------------------------------------------------------------------------------------


def test_particles_that_are_gone_make_it_another_refinement(sample, tmp_path, capsys) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(sample, data)
    assert refine(data, run, "--iterations", "0") == 0
    blocks = read_star(data / "particles.star")
    for values in blocks["particles"].columns.values():
        del values[:3]
    write_star(data / "particles.star", blocks)
    capsys.readouterr()
    assert refine(data, run, "--iterations", "1") == 2
    assert "holds a refinement of other data or settings" in capsys.readouterr().err
    assert refine(data, run, "--iterations", "0", "--overwrite") == 0
    assert summary_of(run)["n_particles"] == 9


def test_a_run_of_another_version_says_so(sample, whole, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    plan = json.loads((run / "refine.json").read_text())
    del plan["hash"]
    plan["program"] = "0.0.7"
    (run / "refine.json").write_text(json.dumps(dict(plan, hash=content_hash(plan))))
    assert refine(sample, run, "--iterations", "2") == 2
    assert "made by cspr 0.0.7, this is" in capsys.readouterr().err


@pytest.mark.parametrize("name, text, code", [
    ("refine.json", "{}", 1), ("refine.json", "[]", 1), ("summary.json", "{}", 1), ("summary.json", "[3", 1),
    ("iterations/002/run.json", "{}", 1), ("iterations/002/summary.json", "{}", 1),
])
def test_a_record_that_is_damaged_is_said_in_one_line_with_a_remedy(sample, whole, tmp_path, capsys, name, text, code) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    if name.endswith("run.json"):
        (run / "iterations" / "002" / "summary.json").unlink()
    (run / name).write_text(text)
    assert refine(sample, run, "--iterations", "2") == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert name in line
    assert "delete" in line or "--overwrite" in line
    assert main(["info", str(run)]) == code
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK"])
def test_arrays_that_are_damaged_are_said_in_one_line(sample, whole, tmp_path, capsys, content) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    last = run / "iterations" / "002"
    (last / "refinement.npz").write_bytes(content)
    with pytest.raises(CsprError, match=r"refinement.npz: cannot be read"):
        read_tables(RunStore(last), 2)
    for path in (run / "summary.json", last / "summary.json"):
        path.unlink()
    manifest = json.loads((last / "chunks" / "0000" / "manifest.json").read_text())
    (last / "chunks" / "0000" / "outcome.npz").write_bytes(content)
    manifest["files"]["outcome.npz"] = len(content)
    for half in ("half1.sums", "half2.sums"):
        (last / "chunks" / "0000" / half).write_bytes(content)
        manifest["files"][half] = len(content)
    (last / "chunks" / "0000" / "manifest.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    assert refine(sample, run, "--iterations", "2") == 1
    assert "outcome.npz: cannot be read" in capsys.readouterr().err.strip().splitlines()[-1]
    store = RunStore(last)
    with pytest.raises(CsprError, match=r"half1.sums: cannot be read"):
        store.read_sum(0, 1, store.grid())


@pytest.mark.parametrize("place, value, said", [(8, 1, "encrypted"), (10, 99, "compressed"), (10, 8, "compressed")])
def test_an_archive_of_another_kind_is_said_in_one_line(sample, whole, tmp_path, place, value, said) -> None:
    """Flags and way of compression in its directory, of all that is read from a run."""
    last = tmp_path / "last"
    shutil.copytree(whole / "iterations" / "002", last)
    store = RunStore(last)
    for name, read in (
        ("result.npz", lambda: read_rows(store.result_path)), ("refinement.npz", lambda: read_tables(store, 2)),
        ("rows.npz", lambda: store.read_refined(0)), ("outcome.npz", lambda: store.read_refined(0)),
    ):
        (path,) = (found for found in last.rglob(name) if "0001" not in found.parts)
        content = path.read_bytes()
        start = content.index(b"PK\x01\x02") + place
        path.write_bytes(content[:start] + bytes([value]) + content[start + 1 :])
        with pytest.raises(CsprError, match=rf"{name}: cannot be read \(.*{said}.*\); "):
            read()
        path.write_bytes(content)


def test_sums_come_back_and_damage_to_them_is_noticed(random, tmp_path) -> None:
    """To the last bit; and one bit of them, parts that are missing or have moved, zeros, or nothing at all."""
    path, sums = tmp_path / "half1.sums", random.normal(size=(500, 3))
    assert write_sums(path, sums) == path.stat().st_size == 8 * 1501
    np.testing.assert_array_equal(read_sums(path), sums)
    content = path.read_bytes()
    assert content[:-8] == sums.astype("<f8").tobytes()  # as documented, not only as read
    words = [int.from_bytes(content[i : i + 8], "little") for i in range(0, len(content), 8)]
    assert words[-1] == (1500 + sum((2 * (i // 64) + 1) * word for i, word in enumerate(words[:-1]))) % 2**64
    for damaged in (content[:700] + bytes([content[700] ^ 4]) + content[701:], content[:-24], content[:-1], content + b"x",
                    content[8:], content[512:1024] + content[:512] + content[1024:], bytes(len(content)), b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not as it was written"):
            read_sums(path)


def test_a_fault_of_the_program_is_not_taken_for_a_damaged_file(whole, monkeypatch) -> None:
    def fault(*arguments) -> None:
        raise AttributeError("no such thing")

    monkeypatch.setattr("pyp_cspr.engine.pipeline.store.Dataset", fault)
    with pytest.raises(AttributeError):
        read_rows(whole / "result.npz")


# --- what it cost ----------------------------------------------------------------------------------------------------------


def test_time_and_bytes_are_those_of_all_iterations_and_stay_when_it_is_done(sample, whole, tmp_path, monkeypatch) -> None:
    run = tmp_path / "run"
    assert refine(sample, run, "--iterations", "1") == 0
    one = summary_of(run)
    start = time.perf_counter()
    assert refine(sample, run, "--iterations", "2") == 0
    wall = time.perf_counter() - start
    each = [summary_of(run / "iterations" / f"{iteration:03d}") for iteration in range(3)]
    two = summary_of(run)
    for name in ("seconds", "compute_seconds", "bytes_read", "bytes_written"):
        assert two[name] == pytest.approx(sum(entry[name] for entry in each))
        assert two[name] > one[name]
    assert two["peak_memory_bytes"] == max(entry["peak_memory_bytes"] for entry in each)
    assert 0 < each[2]["seconds"] <= wall + 0.001
    assert [entry["seconds"] for entry in two["iterations"]] == [entry["seconds"] for entry in each]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert refine(sample, run, "--iterations", "2") == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert refine(sample, run, "--iterations", "1") == 0  # fewer: the results are those of the first iteration again
    assert summary_of(run) == one


def test_the_time_of_an_iteration_is_that_of_the_clock_not_of_all_processes(sample, tmp_path) -> None:
    run = tmp_path / "run"
    start = time.perf_counter()
    assert refine(sample, run, "--iterations", "1", quick=["--no-report", "--processes", "2", "--threads", "1"]) == 0
    wall = time.perf_counter() - start
    summary = summary_of(run)
    assert sum(entry["seconds"] for entry in summary["iterations"]) <= wall
    assert summary["seconds"] > 0.5 * wall  # two workers start anew in each iteration
    assert 0 < summary["compute_seconds"]


def test_a_report_that_is_missing_is_written_and_one_that_is_there_is_kept(sample, tmp_path) -> None:
    run = tmp_path / "run"
    assert refine(sample, run, "--iterations", "1") == 0
    assert not (run / "report.html").exists()
    assert refine(sample, run, "--iterations", "1", quick=ONE) == 0
    page = (run / "report.html").read_text()
    assert "All iterations done" in page
    assert "http-equiv" not in page
    figures = sorted(path.name for path in (run / "report").iterdir())
    assert len(figures) > 8
    assert figures[0] == "01_fourier_shell_correlation.png"
    assert all(path.read_bytes()[1:4] == b"PNG" for path in (run / "report").iterdir())
    assert not list(run.glob("iterations/*/report"))
    when = (run / "report.html").stat().st_mtime_ns
    assert refine(sample, run, "--iterations", "1", quick=ONE) == 0
    assert (run / "report.html").stat().st_mtime_ns == when
    (run / "report" / "01_of_another_run.png").write_bytes(b"")
    assert refine(sample, run, "--iterations", "2", quick=ONE) == 0
    assert "01_of_another_run.png" not in [path.name for path in (run / "report").iterdir()]


# --- settings of the grid ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, message", [
    ("box = [32, 48]\n", "settings: box is a list"), ("padding = [1.5]\n", "padding is a list"),
    ("pixel = [8.0, 8.0]\n", "pixel is a list"),
])
def test_the_grid_is_one_for_all_iterations(sample, tmp_path, capsys, text, message) -> None:
    (tmp_path / "settings.toml").write_text(text)
    assert refine(sample, tmp_path / "run", "--settings", str(tmp_path / "settings.toml")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_finest_detail_of_the_map_may_differ_by_iteration(sample, tmp_path) -> None:
    assert refine(sample, tmp_path / "run", "--iterations", "2", "--set", "map_resolution=40:20") == 0
    radii = [RunStore(tmp_path / "run" / "iterations" / f"{number:03d}").grid().radius for number in range(3)]
    assert radii == [6, 6, 12]
    assert len(read_rows(tmp_path / "run" / "result.npz").particles) == 12
