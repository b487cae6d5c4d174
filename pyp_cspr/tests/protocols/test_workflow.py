"""The protocols in a real project of the host, in processes of their own, against the engine's command on the same data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.pipeline.store import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
PROGRAM = Path(__file__).with_name("run_workflow.py")


@pytest.fixture(scope="module")
def workflow(host):
    """What the workflow left; a hung protocol is killed."""
    folder, environment = host
    done = subprocess.run([sys.executable, str(PROGRAM), str(folder)], capture_output=True, text=True, timeout=300,
                          env=environment, cwd=folder, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == 1, done.stdout[-3000:] + done.stderr[-5000:]
    with np.load(folder / "refined.npz") as arrays:
        numbers = dict(arrays)
    return SimpleNamespace(numbers=numbers, folder=folder, environment=environment, **json.loads(lines[-1][7:]))


@pytest.fixture(scope="module")
def command(workflow):
    """The run folder of the engine's command on the stars of the sample."""
    data, out = Path(workflow.sample["folder"]) / "extra" / "data", workflow.folder / "command"
    options = ["--set", "resolution=40:30", "--set", "prior_defocus=500", "--iterations", "2", "--processes", "1"]
    options += ["--threads", "1"]
    line = [sys.executable, "-m", "pyp_cspr.engine.cli", "refine", data, "--reference", data / "reference.mrc", "--out", out]
    done = subprocess.run([str(word) for word in line + options], capture_output=True, text=True, timeout=200,
                          env=workflow.environment, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_outputs_of_every_protocol(workflow) -> None:
    assert sorted(workflow.sample["outputs"]) == ["coordinates", "ctfs", "reference", "subTomograms", "tiltSeries", "tomograms"]
    assert sorted(workflow.refine["outputs"]) == ["average", "coordinates", "ctfs", "fscs", "landmarks", "particles",
                                                   "tiltSeries"]
    assert sorted(workflow.chunks["outputs"]) == sorted(workflow.refine["outputs"])
    assert sorted(workflow.filter["outputs"]) == ["coordinates", "particles"]
    assert sorted(workflow.reconstruct["outputs"]) == ["average", "fscs"]
    assert workflow.refine["outputs"]["particles"].startswith("SubTomograms (16 items")
    assert "+ali, 8.00" in workflow.refine["outputs"]["tiltSeries"]
    assert "interp" not in workflow.refine["outputs"]["tiltSeries"]
    for name in ("refine", "reconstruct"):
        assert "(32 x 32 x 32, 8.00" in getattr(workflow, name)["outputs"]["average"]
        assert "w/halves" in getattr(workflow, name)["outputs"]["average"]
    assert workflow.relations >= 3


def test_summaries_say_what_was_done(workflow) -> None:
    assert workflow.sample["summary"][0] == "2 tilt series of 9 images at 8 A, 16 particles."
    assert workflow.refine["summary"][0] == "16 particles, 144 projections of 2 tilt series."
    assert "after 2 iterations" in workflow.refine["summary"][1]
    assert " of 16 particles are left." in workflow.filter["summary"][0]
    assert all(getattr(workflow, name)["citations"] for name in ("sample", "refine", "filter", "reconstruct"))


def test_the_samples_sets_hold_the_samples_numbers(workflow) -> None:
    dataset = read_dataset(Path(workflow.sample["folder"]) / "extra" / "data")
    for name in ("position", "rotation"):
        np.testing.assert_allclose(workflow.numbers[f"sample.particles.{name}"], dataset.particles[name], atol=1e-6)
    for name in ("rotation", "shift", "defocus", "dose_before", "dose", "enabled", "scale", "order"):
        np.testing.assert_allclose(workflow.numbers[f"sample.exposures.{name}"], dataset.exposures[name], atol=1e-6)


def test_the_samples_ctfs_fit_to_nyquist(workflow) -> None:
    assert workflow.fits == [16.0]


def test_the_refined_sets_hold_the_numbers_of_the_command(workflow, command) -> None:
    result = read_rows(command / "result.npz")
    for name in ("position", "rotation", "half", "score", "sigma"):
        found = workflow.numbers[f"refined.particles.{name}"]
        np.testing.assert_allclose(found, result.particles[name], rtol=1e-6, atol=1e-6, err_msg=name)
    for name in ("rotation", "shift", "defocus", "enabled"):
        found = workflow.numbers[f"refined.exposures.{name}"]
        np.testing.assert_allclose(found, result.exposures[name], rtol=1e-6, atol=1e-6, err_msg=name)
    # something was refined at all
    assert np.abs(workflow.numbers["refined.exposures.shift"] - workflow.numbers["sample.exposures.shift"]).max() > 0.5
    assert np.abs(workflow.numbers["refined.exposures.defocus"] - workflow.numbers["sample.exposures.defocus"]).max() > 1.0
    for name in ("map", "half1", "half2"):
        found, pixel = read_map(Path(workflow.refine["folder"]) / "extra" / "refine" / f"{name}.mrc")
        wanted, same = read_map(command / f"{name}.mrc")
        assert pixel == same
        assert np.abs(found - wanted).max() < 1e-6 * np.abs(wanted).max()


def test_a_job_for_each_chunk_gives_the_same(workflow) -> None:
    """Plan, chunks and merge as steps of the host, two chunks at a time."""
    one, other = (Path(getattr(workflow, name)["folder"]) / "extra" / "refine" for name in ("refine", "chunks"))
    for name in ("map", "half1", "half2"):
        np.testing.assert_array_equal(read_map(other / f"{name}.mrc")[0], read_map(one / f"{name}.mrc")[0])
    before, after = read_rows(one / "result.npz"), read_rows(other / "result.npz")
    for name in ("position", "rotation", "score"):
        np.testing.assert_array_equal(after.particles[name], before.particles[name])
    logs = sorted(path.name for path in (other.parent.parent / "logs").glob("iteration_*"))
    assert logs == [f"iteration_{i:03d}_chunk_{k:04d}.log" for i in range(3) for k in range(2)]
