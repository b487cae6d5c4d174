"""A protocol whose process is killed, that is stopped, or whose chunk fails for good, goes on: nothing is computed twice."""

from __future__ import annotations

import numpy as np
import pytest

from .slurm import installed
from .test_queue import NAMES, assert_as_by_command, drive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_killed_on_this_machine(host, tmp_path) -> None:
    result = drive("local", host, tmp_path)
    assert result["left"] == []  # the engine ended with the protocol
    assert result["status"] == "finished", result["error"]
    before, after = result["times"]
    assert len(before) >= 2
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    assert result["same"]
    # continued with the defocus refined, and then not: the host keeps the output, which has the present numbers
    given, refined, kept = np.array(result["defocus"])
    assert np.abs(refined - given).max() > 1.0
    np.testing.assert_allclose(kept, given, atol=1e-6)
    assert_as_by_command(result, tmp_path / "command", host[1])


@pytest.mark.skipif(not installed(), reason="SLURM is not installed (Debian: slurm-wlm and munge)")
def test_killed_stopped_and_failed_with_jobs_in_the_queue(host, slurm, tmp_path) -> None:
    result = drive("killed", host, tmp_path, slurm)
    # killed: the jobs that wait in the queue are not sent again
    assert result["left"] == []
    assert result["found"] == sorted(result["waiting"])
    # stopped
    assert result["aborted"] == "aborted"
    assert result["stopped"] == []
    # failed for good
    assert result["failed"] == "failed"
    assert "chunk 1 of iteration 1 (TS_02) failed; its log: " in result["message"]
    assert "cspr chunk: error: " in result["message"]
    assert "JobState=FAILED" in result["message"]
    # continued, while the process that failed still waited for the other chunk
    assert result["ended"]
    assert result["status"] == "finished", result["error"]
    assert set(result["outputs"]) >= NAMES
    first, last = result["times"]
    assert len(first) == 2
    assert len(last) == 4
    assert {name: last[name] for name in first} == first
    seen = list(result["seen"].values())
    assert [seen.count(name) for name in ("0 0", "0 1", "1 0", "1 1")] == [1, 1, 2, 3]
    assert sorted(slurm.states()) == ["CANCELLED"] * 2 + ["COMPLETED"] * 7 + ["FAILED"]
    assert_as_by_command(result, tmp_path / "command", host[1])
