"""One job for each chunk through a real SLURM, while jobs, nodes, data and the controller fail: the numbers of the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyp_cspr
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.pipeline.store import read_rows

from .slurm import installed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif(not installed(), reason="SLURM is not installed (Debian: slurm-wlm and munge)"),
]
NAMES = {"average", "coordinates", "fscs", "particles", "tiltSeries"}


def drive(scenario, host, tmp_path, slurm=None):
    """What run_queue.py saw."""
    folder, environment = host
    environment = dict(environment, SCIPION_USER_DATA=str(tmp_path / "data"))
    if slurm is not None:
        hosts, template = tmp_path / "hosts.conf", Path(pyp_cspr.__file__).parent / "templates" / "hosts_slurm.conf"
        cancel = "scancel %_(JOB_ID)s"  # slowly, as where there are many: Stop has not ended the process when it sees the first
        assert cancel in template.read_text()
        hosts.write_text(template.read_text().replace(cancel, cancel + " && sleep 0.7"))
        environment.update(SCIPION_HOSTS=str(hosts), SLURM_CONF=slurm.environment["SLURM_CONF"], CSPR_TEST_NO_REPORT="1")
    program = Path(__file__).with_name("run_queue.py")
    done = subprocess.run([sys.executable, str(program), str(folder), scenario], capture_output=True, text=True, timeout=450,
                          env=environment, cwd=tmp_path, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    logs = [path.read_text(errors="replace")[-6000:] for path in tmp_path.glob("data/projects/*/Runs/*Refine/logs/run.std*")]
    assert lines, "\n".join([done.stdout[-3000:], done.stderr[-5000:], *logs])
    return json.loads(lines[-1][7:])


def assert_as_by_command(result, out, environment):
    """The run of the protocol has the numbers of an undisturbed `cspr refine`."""
    data = result["data"]
    line = [sys.executable, "-m", "pyp_cspr.engine.cli", "refine", data, "--reference", data + "/reference.mrc",
            "--out", str(out), "--resolution", "40", "--iterations", "1", "--processes", "1", "--threads", "1", "--no-report"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    run = Path(result["folder"]) / "extra" / "refine"
    one, other = read_rows(out / "result.npz"), read_rows(run / "result.npz")
    for name in ("position", "rotation", "score"):
        np.testing.assert_allclose(other.particles[name], one.particles[name], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(other.exposures["shift"], one.exposures["shift"], atol=1e-6)
    for name in ("map", "half1", "half2"):
        wanted = read_map(out / f"{name}.mrc")[0]
        assert np.abs(read_map(run / f"{name}.mrc")[0] - wanted).max() < 1e-6 * np.abs(wanted).max()


def test_a_cancelled_job_a_dead_node_lost_data_and_a_silent_controller(host, slurm, tmp_path) -> None:
    result = drive("mishaps", host, tmp_path, slurm)
    assert result["status"] == "finished", result["error"]
    assert set(result["outputs"]) >= NAMES
    # Asked of the controller: the log of ended jobs has that of a dead node only when the node is back.
    assert sorted(slurm.known_states()) == ["CANCELLED"] + ["COMPLETED"] * 7 + ["FAILED", "NODE_FAIL"]
    # three plans and two chunks in each of two iterations, three of which were run twice
    seen = list(result["seen"].values())
    assert sorted(set(seen)) == ["0 0", "0 1", "1 0", "1 1", "plan"]
    for chunk in ("0 0", "0 1", "1 0"):
        assert seen.count(chunk) == 2
    assert seen.count("1 1") == 1
    assert len({result["cancelled"], result["failed"], result["lost"]}) == 3
    for words in ("JobState=CANCELLED", "JobState=FAILED", "JobState=NODE_FAIL", "(1 of 3 tries)"):
        assert words in result["log"]
    assert_as_by_command(result, tmp_path / "command", host[1])
