"""csp on a real SLURM of two nodes and under mpirun: the same map as on this machine. Who runs the tasks where nobody says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from pyp_cspr.engine.cli import main as cspr
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.parameter_archive import read_archive
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.pipeline import pyp_run
from pyp_cspr.engine.pipeline.pyp_run import choose_executor
from pyp_cspr.tests.engine.pyp_writer import write_project
from pyp_cspr.tests.protocols.slurm import installed, running

ROOT = str(Path(__file__).parents[4])
SAMPLE = ["--series", "3", "--particles", "8", "--tilts", "7", "--box", "32", "--pixel", "8", "--seed", "3",
          "--pose-error", "3", "--position-error", "6", "--shift-error", "4"]
CSP = [sys.executable, "-m", "pyp_cspr.engine.cli.csp"]
# tilts are fitted to all particles of their series, so two iterations see what the first one left
COMMAND = [*CSP, "-csp_refine", "alignments.txt", "-csp_model", "model.mrc", "-particle_fmt", "frealign", "-rhref", "40",
           "-maxiter", "3", "-slurm_tasks", "1"]
MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}

needs_slurm = pytest.mark.skipif(not installed(), reason="SLURM is not installed (Debian: slurm-wlm and munge)")


@pytest.fixture(scope="module")
def slurm():
    pytest.importorskip("submitit", reason="submitit is not installed")
    with running() as made:
        yield made


@pytest.fixture
def mpirun() -> str:
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    program = shutil.which("mpirun")
    if program is None:
        pytest.skip("MPI is not installed (no mpirun on the PATH)")
    return program


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "data"
    assert cspr(["sample", str(folder), *SAMPLE]) == 0
    return folder


def make_project(sample: Path, folder: Path) -> Path:
    write_project(folder, read_dataset(sample), "C3")
    volume, pixel = read_map(sample / "reference.mrc")
    with mrcfile.new(str(folder / "model.mrc")) as mrc:
        mrc.set_data(volume)
        mrc.voxel_size = pixel
    return folder


def run(command, folder: Path, environment=os.environ) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, env=dict(environment, PYTHONPATH=ROOT), capture_output=True, text=True,
                          timeout=150, check=False)


@pytest.fixture(scope="module")
def local(sample, tmp_path_factory) -> Path:
    folder = make_project(sample, tmp_path_factory.mktemp("local") / "project")
    done = run([*COMMAND, "-executor", "local"], folder)
    assert done.returncode == 0, done.stderr
    return folder


def assert_same_results(one: Path, two: Path) -> None:
    """Maps, half maps and alignments of both iterations."""
    for name in ("02", "03", "half1", "half2"):
        expected, got = (read_map(folder / f"frealign/maps/ribo_r01_{name}.mrc")[0] for folder in (one, two))
        assert np.linalg.norm(got - expected) <= 1e-6 * np.linalg.norm(expected), name
    expected, got = (read_archive(folder / "frealign/maps/ribo_r01_03.bz2") for folder in (one, two))
    assert list(expected) == list(got)
    assert len(got) == 3
    for name in expected:
        for column in ("PSI", "THETA", "X_SHIFT", "DEFOCUS_1"):
            ours, theirs = (archive[name][0].columns[column] for archive in (expected, got))
            np.testing.assert_allclose(theirs, ours, atol=1e-3, err_msg=column)


# --- who runs the tasks --------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """Neither SLURM nor MPI; the function puts a program of that name and exit code on the PATH."""
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def program(name: str, code: int) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\necho up\nexit {code}\n")
        (tmp_path / name).chmod(0o755)

    return program


def test_without_a_cluster_tasks_run_here(bare) -> None:
    assert choose_executor("", False) == ("local", "")
    assert choose_executor("", True) == ("local", "")  # keys of a project that was on a cluster
    assert choose_executor("mpi", False) == ("mpi", "")


def test_where_a_cluster_answers_tasks_are_jobs_and_that_is_said(bare) -> None:
    bare("sbatch", 0)
    bare("sinfo", 0)
    name, why = choose_executor("", False)
    assert name == "slurm"
    assert "-executor local" in why
    assert choose_executor("local", True) == ("local", "")


def test_slurm_without_a_cluster_is_waited_for_only_if_its_keys_are_given(bare) -> None:
    bare("sbatch", 0)
    bare("sinfo", 1)
    name, why = choose_executor("", False)
    assert name == "local"
    assert "no SLURM answers" in why
    assert choose_executor("", True)[0] == "slurm"


def test_under_mpirun_nothing_else_is_possible(bare, monkeypatch) -> None:
    bare("sbatch", 0)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
    assert choose_executor("", True) == ("mpi", "")
    assert choose_executor("mpi", True) == ("mpi", "")
    with pytest.raises(InputError, match="mpirun has started 3 of this command"):
        choose_executor("local", False)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert choose_executor("local", False) == ("local", "")


def test_what_the_keys_ask_for_reaches_the_executor(monkeypatch, tmp_path) -> None:
    from pyp_cspr.engine.io.pyp_config import read_configuration

    asked = {}
    monkeypatch.setattr(pyp_run, "make_executor", lambda name, resources: asked.update(name=name, resources=resources))
    words = "-slurm_tasks 2 -slurm_memory_per_task 3 -slurm_max_cpus 9 -slurm_walltime 2:00:00 -slurm_queue cpu"
    words += " -slurm_account lab -slurm_gres ssd:1 -slurm_merge_retries 4 -slurm_merge_tasks 5"
    configuration = read_configuration(str(tmp_path), words.split())
    pyp_run._executor("slurm", pyp_run.resources_of(configuration), configuration)
    resources = asked["resources"]
    assert (asked["name"], resources.threads, resources.merge_threads) == ("slurm", 2, 5)
    slurm = resources.slurm
    assert (slurm.queue, slurm.account, slurm.walltime, slurm.gres, slurm.retries) == ("cpu", "lab", "2:00:00", "ssd:1", 4)
    assert (slurm.tasks, slurm.memory, slurm.at_a_time()) == (2, 6.0, 4)


def test_every_setting_of_the_project_and_its_resources_is_read() -> None:
    """A key that sets what nobody reads would have no effect, and not say so."""
    from dataclasses import fields

    from pyp_cspr.engine.model.pyp_settings import PypProject, PypResources

    folder = Path(pyp_run.__file__).parent
    text = "".join((folder / name).read_text() for name in ("pyp_run.py", "convert_pyp.py"))
    for kind, name in ((PypProject, "asked"), (PypResources, "resources")):
        for field in fields(kind):
            by_name = f'"{field.name}"' in text  # of getattr(asked, name)
            assert by_name or re.search(rf"\b{name}\.{field.name}\b", text), field.name


# --- the same map --------------------------------------------------------------------------------------------------------


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_job_arrays_on_two_nodes_give_the_same_map(slurm, sample, local, tmp_path) -> None:
    """Nothing says that SLURM is to be used: its cluster answers."""
    project = make_project(sample, tmp_path / "project")
    done = run([*COMMAND, "-slurm_memory_per_task", "0.5", "-slurm_walltime", "0:05:00"], project, slurm.environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("note: tasks run as SLURM job arrays") == 1
    assert_same_results(local, project)
    assert slurm.states() == ["COMPLETED"] * 9  # three series; the start and two iterations
    nodes = {word.split("=")[1] for word in (slurm.folder / "jobs.log").read_text().split() if word.startswith("NodeList=")}
    assert nodes == {"n1", "n2"}
    script = next((project / "frealign/scratch/ribo_r01_from02/run/iterations/002/slurm").glob("*_submission.sh")).read_text()
    for line in ("--time=5", "--cpus-per-task=1", "--mem=512M", "--array=0-2%3"):
        assert f"#SBATCH {line}\n" in script, line


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_what_slurm_refuses_is_said_and_nothing_is_written(slurm, sample, tmp_path) -> None:
    project = make_project(sample, tmp_path / "project")
    done = run([*COMMAND, "-slurm_queue", "nowhere"], project, slurm.environment)
    assert done.returncode == 1
    assert "SLURM refuses the job array" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((project / "frealign/maps").glob("*_02*"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_three_processes_of_mpi_give_the_same_map(mpirun, sample, local, tmp_path) -> None:
    """One of them leads: everything is said and written once. Then it starts fresh, which must happen once as well."""
    project = make_project(sample, tmp_path / "project")
    command = [mpirun, "-n", "3", *COMMAND]
    environment = dict(os.environ, **MPI)
    done = run(command, project, environment)
    assert done.returncode == 0, done.stderr
    for number in ("2", "3"):
        assert done.stdout.count(f"iteration {number}: ") == 1
    assert_same_results(local, project)
    done = run([*command, "-csp_skip", "True", "-maxiter", "2"], project, environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("starting fresh") == 1
    assert (project / "frealign/previous_01/maps/ribo_r01_03.mrc").exists()
    assert not (project / "frealign/previous_02").exists()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_mistakes_under_mpi_are_said(mpirun, sample, tmp_path) -> None:
    project = make_project(sample, tmp_path / "project")
    command = [mpirun, "-n", "2", *CSP, "-csp_refine", "nothing.txt", "-csp_model", "model.mrc"]
    done = run(command, project, dict(os.environ, **MPI))
    assert done.returncode == 2
    assert done.stderr.count("csp: error: -csp_refine nothing.txt: no such file") == 1
    assert "Traceback" not in done.stderr
