"""Chunks give the same map whoever runs them: processes here, a real SLURM of two nodes, mpirun. What is killed runs again."""

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
from pyp_cspr.engine.errors import CsprError, InputError
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.pipeline.executors import LocalExecutor, Resources, SlurmSettings, make_executor, minutes
from pyp_cspr.engine.pipeline.plan import plan_run
from pyp_cspr.engine.pipeline.store import RunStore
from pyp_cspr.tests.engine.pipeline.killing import hears_ctrl_c
from pyp_cspr.tests.protocols.slurm import Slurm, installed, running

COMMAND = [sys.executable, "-m", "pyp_cspr.engine.cli"]
QUICK = ["--symmetry", "C3", "--no-report", "--threads", "1"]
SMALL_JOBS = ["--executor", "slurm", "--slurm", "memory_per_task=0.5", "--slurm", "walltime=5"]

needs_slurm = pytest.mark.skipif(not installed(), reason="SLURM is not installed (Debian: slurm-wlm and munge)")


@pytest.fixture(scope="module")
def slurm():
    pytest.importorskip("submitit", reason="submitit is not installed")
    with running() as made:
        yield made


@pytest.fixture(scope="module")
def local(small_sample, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "local"
    assert main(["reconstruct", str(small_sample), "--out", str(out), *QUICK, "--processes", "1"]) == 0
    return out


def reconstruct(data: Path, out: Path, *options: str):
    return [*COMMAND, "reconstruct", str(data), "--out", str(out), *QUICK, *options]


def assert_same_maps(one: Path, two: Path, tolerance: float = 1e-6) -> None:
    for name in ("half1", "half2", "map"):
        expected, got = (read_map(folder / f"{name}.mrc")[0] for folder in (one, two))
        assert np.linalg.norm(got - expected) <= tolerance * np.linalg.norm(expected), name


def queue(slurm: Slurm):
    """(id, state) of the jobs in the queue."""
    shown = subprocess.run(["squeue", "-h", "-r", "-o", "%i %T"], env=slurm.environment, capture_output=True, text=True,
                           timeout=30, check=True)
    return [tuple(line.split()) for line in shown.stdout.splitlines()]


def wait_for(slurm: Slurm, state: str, process: subprocess.Popen) -> str:
    """Id of the first job in that state."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        for job, now in queue(slurm):
            if now == state:
                return job
        time.sleep(0.05)
    raise AssertionError(f"no job is {state}; the command: {process.poll()}")


def states_since(slurm: Slurm, before: int):
    """How the jobs ended, once the last one has left the queue, which is a little after its chunk is done."""
    end = time.monotonic() + 40
    while queue(slurm) and time.monotonic() < end:
        time.sleep(0.2)
    return slurm.states()[before:]


def started(slurm: Slurm, command, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(command, env={**slurm.environment, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, start_new_session=True, preexec_fn=hears_ctrl_c)


# --- what a job asks for -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, expected", [("1-00:00:00", 1440), ("2:30:00", 150), ("5", 5), ("10:30", 11), ("0:01", 1),
                                            ("1-12", 2160), ("1-1:30", 1530), ("90:00:00", 5400)])
def test_walltimes_are_those_of_sbatch(text, expected) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "-5", "1-", "0", "0:00", "1:-2"])
def test_walltimes_that_are_none_are_refused(text) -> None:
    with pytest.raises(InputError, match="walltime"):
        minutes(text)


def test_the_number_of_simultaneous_chunks() -> None:
    assert SlurmSettings().at_a_time() == 0
    assert SlurmSettings(tasks=4, max_cpus=13).at_a_time() == 3
    assert SlurmSettings(tasks=4, memory_per_task=2.0, max_memory=17.0, max_cpus=13).at_a_time() == 2
    assert SlurmSettings(tasks=4, max_cpus=1).at_a_time() == 1  # a limit below one chunk still lets one run


@pytest.mark.parametrize("option, words", [("queues=x", "unknown setting 'queues'"), ("tasks=many", "'many' is not int"),
                                           ("tasks=0", "at least 1"), ("retries=-1", "0 or above"), ("walltime=x", "walltime")])
def test_slurm_settings_are_checked(small_sample, tmp_path, capsys, option, words) -> None:
    assert main(["reconstruct", str(small_sample), "--out", str(tmp_path / "run"), "--slurm", option]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error
    assert not (tmp_path / "run").exists()


def test_what_is_not_there_is_said(monkeypatch, tmp_path) -> None:
    with pytest.raises(InputError, match="known: local, slurm, mpi"):
        make_executor("cloud")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no sbatch on the PATH"):
        make_executor("slurm")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(InputError, match="mpi4py cannot be loaded"):
        make_executor("mpi")


# --- this machine --------------------------------------------------------------------------------------------------------


def test_progress_counts_every_projection_once_and_finished_chunks_are_not_run_again(small_sample, tmp_path) -> None:
    from pyp_cspr.engine.model.settings import ReconstructSettings

    store = plan_run(str(small_sample), str(tmp_path / "run"), ReconstructSettings())
    assert main(["chunk", str(store.task_paths()[1]), "--threads", "1"]) == 0
    written = (store.chunk_folder(1) / "manifest.json").stat().st_mtime_ns
    counts: list = []
    with LocalExecutor(Resources(processes=1, threads=1)) as executor:
        executor.run(store, counts.append)
    assert store.unfinished() == []
    assert sum(counts) == store.plan()["n_projections"]
    assert (store.chunk_folder(1) / "manifest.json").stat().st_mtime_ns == written


def test_only_manifests_are_believed(small_sample, tmp_path, monkeypatch) -> None:
    """A dispatcher that says that all went well although one chunk left nothing."""
    from pyp_cspr.engine.model.settings import ReconstructSettings
    from pyp_cspr.engine.pipeline import executors

    store = plan_run(str(small_sample), str(tmp_path / "run"), ReconstructSettings())
    real = executors.run_tasks
    monkeypatch.setattr(executors, "run_tasks", lambda paths, *rest: real(paths[:-1], *rest))
    with pytest.raises(CsprError, match=r"1 of 3 chunks failed: 0002 .*left no result"):
        LocalExecutor(Resources(processes=1, threads=1)).run(store)


# --- SLURM ---------------------------------------------------------------------------------------------------------------


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_job_array_on_two_nodes_refines_to_the_same_map(slurm, small_sample, tmp_path) -> None:
    command = [*COMMAND, "refine", str(small_sample), "--reference", str(small_sample / "reference.mrc"), "--iterations", "1",
               "--resolution", "40", "--symmetry", "C3", "--no-report", "--threads", "1"]
    subprocess.run([*command, "--out", str(tmp_path / "here"), "--processes", "1"], check=True, capture_output=True, timeout=90)
    before = len(slurm.states())
    done = subprocess.run([*command, "--out", str(tmp_path / "there"), *SMALL_JOBS], env=slurm.environment, capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_maps(tmp_path / "here", tmp_path / "there")
    assert states_since(slurm, before) == ["COMPLETED"] * 6  # three chunks, two iterations
    nodes = {word.split("=")[1] for word in (slurm.folder / "jobs.log").read_text().split() if word.startswith("NodeList=")}
    assert nodes == {"n1", "n2"}
    script = next((tmp_path / "there" / "iterations" / "001" / "slurm").glob("*_submission.sh")).read_text()
    for line in ("--time=5", "--cpus-per-task=1", "--mem=512M", "--array=0-2%3"):
        assert f"#SBATCH {line}\n" in script, line


# A signal to a job whose program has not begun is lost, and a chunk may be done before it comes: so each job says that it has
# begun, and rests.
REST = """
import os, pathlib, time
if "SLURM_JOB_ID" in os.environ:
    pathlib.Path(__file__).with_name("begun").touch()
    time.sleep(3)
"""


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_killed_element_is_submitted_again_and_alone(slurm, small_sample, local, tmp_path) -> None:
    before = len(slurm.states())
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(REST)
    paths = os.pathsep.join(filter(None, [str(slow), slurm.environment.get("PYTHONPATH")]))
    command = reconstruct(small_sample, tmp_path / "run", *SMALL_JOBS, "--slurm", "max_cpus=1")
    process = started(slurm, command, PYTHONPATH=paths)
    job = wait_for(slurm, "RUNNING", process)
    end = time.monotonic() + 30
    while not (slow / "begun").exists() and time.monotonic() < end:
        time.sleep(0.05)
    subprocess.run(["scancel", "--signal=KILL", "--full", job], env=slurm.environment, timeout=30, check=True)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert_same_maps(local, tmp_path / "run")
    states = states_since(slurm, before)
    assert len(states) == 4  # the killed one and only it went twice
    assert states.count("COMPLETED") == 3
    jobs = json.loads((tmp_path / "run" / "slurm" / "jobs.json").read_text())
    assert len({entry["id"].split("_")[0] for entry in jobs.values()}) == 2
    scripts = [path.read_text() for path in (tmp_path / "run" / "slurm").glob("*_submission.sh")]  # in any order
    assert sum("--array=0-2%1" in script for script in scripts) == 1


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_command_that_is_killed_finds_its_jobs_again(slurm, small_sample, local, tmp_path) -> None:
    before = len(slurm.states())
    command = reconstruct(small_sample, tmp_path / "run", *SMALL_JOBS, "--slurm", "max_cpus=1")
    process = started(slurm, command)
    wait_for(slurm, "RUNNING", process)
    end = time.monotonic() + 20
    while not (tmp_path / "run" / "slurm" / "jobs.json").exists() and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    assert queue(slurm), "the jobs go on without the command"
    done = subprocess.run(command, env=slurm.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_maps(local, tmp_path / "run")
    assert states_since(slurm, before) == ["COMPLETED"] * 3  # nothing was submitted twice


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_stopping_the_command_cancels_its_jobs(slurm, small_sample, tmp_path) -> None:
    process = started(slurm, reconstruct(small_sample, tmp_path / "run", *SMALL_JOBS, "--slurm", "max_cpus=1"))
    wait_for(slurm, "PENDING", process)
    end = time.monotonic() + 20
    while not (tmp_path / "run" / "slurm" / "jobs.json").exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped; start it again" in error
    states_since(slurm, 0)
    assert queue(slurm) == []


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_what_fails_for_good_is_named_with_the_end_of_its_log(slurm, small_sample, tmp_path) -> None:
    """One chunk's rows are damaged: it says so itself, and is not tried again. Another is cancelled; no retries are allowed."""
    out = tmp_path / "run"
    assert main(["plan", str(small_sample), "--out", str(out), "--symmetry", "C3"]) == 0
    store = RunStore(out)
    rows = store.rows_path(0)
    shutil.copyfile(store.rows_path(1), rows)
    process = started(slurm, reconstruct(small_sample, out, *SMALL_JOBS, "--slurm", "max_cpus=1", "--slurm", "retries=0"))
    pending = wait_for(slurm, "PENDING", process).split("_")[0] + "_2"
    subprocess.run(["scancel", pending], env=slurm.environment, timeout=30, check=True)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    message = [line for line in error.splitlines() if "error:" in line][-1]
    assert "2 of 3 chunks failed" in message
    assert "is not what the task was planned with" in message
    assert "0002 (" in message
    assert f"job {pending} left no result after 1 tries" in message
    assert [path.stem for path in store.unfinished()] == ["0000", "0002"]  # what was finished is kept


@needs_slurm
@pytest.mark.timeout(100)
def test_what_slurm_refuses_is_said(slurm, small_sample, tmp_path) -> None:
    done = subprocess.run(reconstruct(small_sample, tmp_path / "run", *SMALL_JOBS, "--slurm", "queue=nowhere"),
                          env=slurm.environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "SLURM refuses the job array" in done.stderr
    assert "partition" in done.stderr
    assert "Traceback" not in done.stderr


# --- MPI -----------------------------------------------------------------------------------------------------------------

MPI_ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "OMPI_MCA_rmaps_base_oversubscribe": "1"}


@pytest.fixture
def mpirun() -> str:
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    program = shutil.which("mpirun")
    if program is None:
        pytest.skip("MPI is not installed (no mpirun on the PATH)")
    return program


def under_mpi(mpirun: str, count: int, command):
    return subprocess.run([mpirun, "-n", str(count), *command, "--executor", "mpi"], env=dict(os.environ, **MPI_ENVIRONMENT),
                          capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_three_processes_of_mpi_refine_to_the_same_map(mpirun, small_sample, tmp_path) -> None:
    command = [*COMMAND, "refine", str(small_sample), "--reference", str(small_sample / "reference.mrc"), "--iterations", "1",
               "--resolution", "40", "--symmetry", "C3", "--no-report", "--threads", "1", "--json"]
    subprocess.run([*command, "--out", str(tmp_path / "here"), "--processes", "1"], check=True, capture_output=True, timeout=90)
    done = under_mpi(mpirun, 3, [*command, "--out", str(tmp_path / "there")])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reason"] == "all iterations done"  # one process prints, not three
    assert_same_maps(tmp_path / "here", tmp_path / "there")


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_mpi_names_the_chunk_that_failed_and_keeps_the_others(mpirun, small_sample, local, tmp_path) -> None:
    out = tmp_path / "run"
    assert main(["plan", str(small_sample), "--out", str(out), "--symmetry", "C3"]) == 0
    store = RunStore(out)
    good = store.rows_path(0).read_bytes()
    shutil.copyfile(store.rows_path(1), store.rows_path(0))
    done = under_mpi(mpirun, 2, reconstruct(small_sample, out))
    assert done.returncode != 0
    message = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(message) == 1
    assert "1 of 3 chunks failed: 0000 (" in message[0]
    assert [path.stem for path in store.unfinished()] == ["0000"]
    store.rows_path(0).write_bytes(good)
    done = under_mpi(mpirun, 2, reconstruct(small_sample, out))
    assert done.returncode == 0, done.stderr
    assert_same_maps(local, out)


@pytest.mark.timeout(100)
def test_one_process_of_mpi_is_refused(mpirun, small_sample, tmp_path) -> None:
    done = under_mpi(mpirun, 1, reconstruct(small_sample, tmp_path / "run"))
    assert done.returncode == 2
    assert "start it as mpirun -n N" in done.stderr
    assert "Traceback" not in done.stderr
