"""One job for each chunk through a real SLURM, with a job cancelled on the way: the same numbers as the engine's command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import pyp_cspr
from pyp_cspr.engine.pipeline.store import read_rows

from .slurm import Slurm, installed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif(not installed(), reason="SLURM is not installed (Debian: slurm-wlm and munge)"),
]


@pytest.fixture
def slurm():
    """In a folder with a short name: sockets are in it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    made = Slurm(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_chunks_as_jobs_of_slurm_one_of_them_cancelled(host, slurm, tmp_path) -> None:
    folder, environment = host
    hosts = Path(pyp_cspr.__file__).parent / "templates" / "hosts_slurm.conf"
    environment = dict(environment, SCIPION_HOSTS=str(hosts), SLURM_CONF=slurm.environment["SLURM_CONF"],
                       SCIPION_USER_DATA=str(tmp_path / "data"))
    program = Path(__file__).with_name("run_queue.py")
    done = subprocess.run([sys.executable, str(program), str(folder), "cancel"], capture_output=True, text=True, timeout=350,
                          env=environment, cwd=tmp_path, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-3000:] + done.stderr[-5000:]
    result = json.loads(lines[-1][7:])
    assert result["status"] == "finished", result["error"]
    assert result["cancelled"]
    # three plans and two chunks in each of two iterations, one of which was run twice
    states = slurm.states()
    assert sorted(states) == ["CANCELLED"] + ["COMPLETED"] * 7
    assert len(result["seen"]) == 8
    assert result["outputs"] == ["average", "coordinates", "fscs", "particles", "tiltSeries"]

    out = tmp_path / "command"
    data = result["data"]
    line = [sys.executable, "-m", "pyp_cspr.engine.cli", "refine", data, "--reference", data + "/reference.mrc",
            "--out", str(out), "--resolution", "40", "--iterations", "1", "--processes", "1", "--threads", "1", "--no-report"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    one, other = read_rows(out / "result.npz"), read_rows(Path(result["folder"]) / "extra" / "refine" / "result.npz")
    for name in ("position", "rotation", "score"):
        np.testing.assert_allclose(other.particles[name], one.particles[name], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(other.exposures["shift"], one.exposures["shift"], atol=1e-6)
