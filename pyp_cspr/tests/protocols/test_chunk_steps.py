"""Steps of chunks whose jobs fail, lie or were done before: real plans and chunks, the host's job runner replaced."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.pipeline.store import RunStore
from pyp_cspr.protocols import ProtPypCsprRefine, jobs
from pyp_cspr.protocols.jobs import whole_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "data"
    options = ["--series", "2", "--particles", "6", "--tilts", "5", "--box", "24", "--pixel", "10"]
    assert main(["sample", str(folder), *options]) == 0
    return folder


@pytest.fixture
def protocol(sample, tmp_path, monkeypatch, capsys):
    """A refinement protocol whose folders are in tmp_path, planned for iteration 0; ``jobs`` has the commands that were run."""
    made = ProtPypCsprRefine()
    made.jobs, made.breaks = [], []

    def run_job(program, command, **unused):
        """As a shell would: the engine in this process, its errors in the log of the chunk."""
        words = shlex.split(command)
        output = {mark: words[words.index(mark) + 1] for mark in (">", "2>") if mark in words}
        start = words.index("--end-with") + 2 if "--end-with" in words else words.index("pyp_cspr.engine.cli") + 1
        words = words[start : min([words.index(mark) for mark in output] or [len(words)])]
        made.jobs.append(words)
        if words[0] == "chunk" and made.breaks:
            made.breaks.pop(0)(output)
            return
        capsys.readouterr()
        code = main(words)
        if ">" in output:
            (tmp_path / output[">"]).write_text(capsys.readouterr().out)
        if code:
            raise OSError(f"exit code {code}")

    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(made, "runJob", run_job)
    monkeypatch.setattr(made, "_getExtraPath", lambda *parts: "/".join([str(tmp_path), *parts]))
    monkeypatch.setattr(made, "_getLogsPath", lambda *parts: "/".join([str(tmp_path / "logs"), *parts]))
    monkeypatch.setattr(made, "_dataFolder", lambda: str(sample))
    monkeypatch.setattr(made, "_halves", list)
    (tmp_path / "reference.mrc").write_bytes((sample / "reference.mrc").read_bytes())
    (tmp_path / "grid.json").write_text(json.dumps({"box": 24, "pixel": 10.0}))
    made.binThreads.set(1)
    made.request = {"inputs": [], "settings": {"resolution": 45.0}, "mask": 0, "tasks_per_chunk": 1}
    made.planStep(0, made.request, 1)
    return made


def silent(output) -> None:
    """A job that was killed: the queue says that it ended, and nothing is there."""


def failing(output) -> None:
    with open(output["2>"], "w") as stream:
        stream.write("0%\r50%\r  a second line\ncspr chunk: error: no space left\n")
    raise OSError("exit code 1")


def chunk_jobs(protocol):
    return [words for words in protocol.jobs if words[0] == "chunk"]


def test_a_lost_job_is_run_again(protocol) -> None:
    protocol.breaks = [silent, silent]
    protocol.chunkStep(0, 1)
    assert len(chunk_jobs(protocol)) == 3
    assert chunk_jobs(protocol)[0][1].endswith("tasks/0001.json")


def test_an_error_of_the_engine_is_run_again_only_in_a_queue(protocol, monkeypatch) -> None:
    """On another node a disk may not be full."""
    protocol.breaks = [failing, failing]
    with pytest.raises(RuntimeError, match="no space left"):
        protocol.chunkStep(0, 1)
    assert len(chunk_jobs(protocol)) == 1
    queued(protocol, monkeypatch)
    protocol.chunkStep(0, 1)
    assert len(chunk_jobs(protocol)) == 3


def test_each_job_of_a_queue_may_use_the_memory_of_the_form(protocol, monkeypatch) -> None:
    """On this machine they share it."""
    protocol.memory.set(32.0)
    protocol.numberOfThreads.set(9)
    protocol.breaks = [failing] * 2
    for in_queue, memory in ((False, "4.0"), (True, "32.0")):
        if in_queue:
            queued(protocol, monkeypatch)
            protocol.retries.set(0)
        with pytest.raises(RuntimeError):
            protocol.chunkStep(0, 1)
        words = chunk_jobs(protocol)[-1]
        assert words[words.index("--memory") + 1] == memory


def queued(protocol, monkeypatch) -> None:
    monkeypatch.setattr(protocol, "useQueueForSteps", lambda: True)
    monkeypatch.setattr(protocol, "_state", lambda job: "")
    monkeypatch.setattr(jobs, "RETRY_WAIT", 0.0)


def test_a_chunk_that_is_done_is_not_run_again_and_a_damaged_one_is(protocol, tmp_path) -> None:
    protocol.chunkStep(0, 0)
    protocol.chunkStep(0, 0)
    assert len(chunk_jobs(protocol)) == 1
    store = RunStore(tmp_path / "refine" / "iterations" / "000")
    (store.chunk_folder(0) / "half1.sums").write_bytes(b"short")
    protocol.chunkStep(0, 0)
    assert len(chunk_jobs(protocol)) == 2


@pytest.mark.parametrize("broken, reason", [(failing, "no space left"), (silent, "its job ended without a result")])
def test_a_chunk_that_fails_for_good_stops_with_its_name_and_log(protocol, broken, reason) -> None:
    protocol.retries.set(1)
    protocol.breaks = [broken] * (2 if broken is silent else 1)
    with pytest.raises(RuntimeError) as caught:
        protocol.chunkStep(0, 1)
    assert "chunk 1 of iteration 0 (TS_02) failed; its log: " in str(caught.value)
    assert ("after 2 tries: " in str(caught.value)) == (broken is silent)
    assert reason in str(caught.value)
    assert ("  a second line" in str(caught.value)) == (broken is failing)
    assert "iteration_000_chunk_0001.log" in str(caught.value)
    protocol.chunkStep(0, 1)  # the cause is gone: it goes on


def test_a_plan_with_a_chunk_missing_does_not_go_on(protocol) -> None:
    protocol.chunkStep(0, 0)
    with pytest.raises(RuntimeError, match="iteration 0 has chunks that are not done"):
        protocol.planStep(1, protocol.request, 1)


def test_the_end_and_what_comes_after_it(protocol, tmp_path) -> None:
    """All steps to the summary; then plans and chunks of iterations that are not needed do nothing; another request does."""
    for iteration in (0, 1):
        for chunk in (0, 1, 2):  # one more than there are
            protocol.chunkStep(iteration, chunk)
        protocol.planStep(iteration + 1, protocol.request, 1)
    assert json.loads((tmp_path / "refine" / "summary.json").read_text())["reason"] == "all iterations done"
    count = len(protocol.jobs)
    protocol.chunkStep(2, 0)
    protocol.planStep(3, protocol.request, 1)
    assert len(protocol.jobs) == count
    protocol.planStep(0, dict(protocol.request, settings={"resolution": 50.0}), 1)
    assert not (tmp_path / "refine" / "summary.json").exists()
    assert len(json.loads((tmp_path / "plan_000.json").read_text())["tasks"]) == 2


def test_more_iterations_go_on_where_the_run_was(protocol) -> None:
    """Asked for one more iteration, all steps are run again; those of chunks that were merged run no job."""
    for iteration in (0, 1):
        for chunk in (0, 1):
            protocol.chunkStep(iteration, chunk)
        protocol.planStep(iteration + 1, protocol.request, 1)
    protocol.jobs.clear()
    protocol.planStep(0, protocol.request, 2)
    for iteration in (0, 1, 2):
        for chunk in (0, 1):
            protocol.chunkStep(iteration, chunk)
        protocol.planStep(iteration + 1, protocol.request, 2)
    tasks = [words[1] for words in chunk_jobs(protocol)]
    assert len(tasks) == 2
    assert all("iterations/002" in task for task in tasks)
    assert len(json.loads((Path(protocol._folder()) / "summary.json").read_text())["iterations"]) == 3


def test_a_result_that_is_half_written_is_none(protocol, tmp_path) -> None:
    (tmp_path / "plan_000.json").write_text('{"iteration": 0, "ta')
    assert whole_json(str(tmp_path / "plan_000.json")) is None
    with pytest.raises(RuntimeError, match=r"plan_000\.json is missing"):
        protocol.chunkStep(0, 0)
