"""What the progress bar is told, and what Ctrl-C leaves on the screen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.model.settings import ReconstructSettings
from pyp_cspr.engine.pipeline.iterate import _label, refine
from pyp_cspr.engine.pipeline.reconstruct import reconstruct
from pyp_cspr.tests.engine.pipeline.killing import hears_ctrl_c


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """One series, so one chunk."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    assert main(["sample", str(folder), "--series", "1", "--particles", "20", "--tilts", "9", "--box", "32", "--pixel", "8",
                 "--pose-error", "3"]) == 0
    return folder


class Bars:
    """Remembers what it is told: (label, total, [(when, count)])."""

    def __init__(self) -> None:
        self.seen: list = []

    @contextmanager
    def __call__(self, label: str, total: int):
        told: list = []
        self.seen.append((label, total, told))
        yield lambda count: told.append((time.perf_counter(), count))


def test_a_large_series_is_told_of_while_it_is_refined(series, tmp_path) -> None:
    bars = Bars()
    refine(str(series), str(series / "reference.mrc"), str(tmp_path / "run"), {"resolution": [40.0, 25.0]}, 2, processes=1,
           threads=1, report=False, bar=bars)
    assert [label.split(",")[0] for label, _, _ in bars.seen] == [f"iteration {number} of 2" for number in range(3)]
    for number, (_, total, told) in enumerate(bars.seen):
        assert total == 180
        counts = [count for _, count in told]
        assert sum(counts) == total
        assert min(counts) > 0
        if number:
            before = next(i for i in range(len(counts)) if sum(counts[: i + 1]) >= 0.5 * total)
            assert before >= 4  # steps of the solver, none of which leaps
            assert max(counts) < 0.4 * total


def test_the_bar_says_how_long_all_iterations_may_take() -> None:
    history = [{"seconds": 60.0}, {"seconds": 500.0}, {"seconds": 600.0}]
    assert [_label(history[:count], 5) for count in range(4)] == [
        "iteration 0 of 5", "iteration 1 of 5", "iteration 2 of 5, 33 min to the end", "iteration 3 of 5, 30 min to the end"]
    assert _label(history, 3) == "iteration 3 of 3"  # the bar itself says that


def test_a_chunk_that_is_done_is_told_of_whole(series, tmp_path) -> None:
    bars = Bars()
    for _ in range(2):
        reconstruct(str(series), str(tmp_path / "run"), ReconstructSettings(), processes=1, report=False, bar=bars,
                    keep_sums=True)
        (tmp_path / "run" / "summary.json").unlink()
    for _, total, told in bars.seen:
        assert sum(count for _, count in told) == total == 180
    assert len(bars.seen[1][2]) == 1


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("wait", [0.02, 0.3])
def test_ctrl_c_while_workers_start_is_one_line(small_sample, tmp_path, wait) -> None:
    """To the whole process group, as a terminal sends it; workers import the program for about a second."""
    command = [sys.executable, "-m", "pyp_cspr.engine.cli", "reconstruct", str(small_sample), "--out", str(tmp_path / "run"),
               "--no-report", "--processes", "2", "--threads", "1"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=hears_ctrl_c)
    while process.poll() is None and not workers("--ppid", process.pid):
        time.sleep(0.005)
    time.sleep(wait)
    started = workers("--ppid", process.pid)
    assert started
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    lines = [line for line in error.replace("\r", "\n").splitlines() if line.strip() and "projections" not in line]
    assert lines == ["cspr reconstruct: stopped; start it again to go on"]
    end = time.monotonic() + 10
    while time.monotonic() < end and workers("-p", *started):
        time.sleep(0.05)
    assert not workers("-p", *started)
    assert main([*command[3:]]) == 0


def workers(which: str, *pids: int) -> list:
    """Ids of the workers that live, of a parent or among some ids (an option of ps).

    ``-ww``: else ps may cut its lines at 80 characters, before the name where Python's path is long.
    """
    command = ["ps", "-ww", "-o", "pid=,stat=,args=", which, ",".join(map(str, pids))]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    lines = [line.split(None, 2) for line in shown.stdout.splitlines() if "spawn_main" in line]
    return [int(pid) for pid, state, _ in lines if not state.startswith("Z")]
