"""A refinement whose chunks others run: plan, chunks, merge and plan, ... gives what one call gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.pipeline.store import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "data"
    options = ["--series", "2", "--particles", "6", "--tilts", "7", "--box", "24", "--pixel", "10", "--pose-error", "3"]
    assert main(["sample", str(folder), *options]) == 0
    return folder


def test_calls_and_chunks_in_turn_give_what_one_call_gives(sample, tmp_path, capsys) -> None:
    command = ["refine", str(sample), "--reference", str(sample / "reference.mrc"), "--iterations", "2", "--no-report",
               "--resolution", "50", "40", "--processes", "1", "--threads", "1", "--json"]
    assert main([*command, "--out", str(tmp_path / "one")]) == 0

    def call():
        capsys.readouterr()
        assert main([*command, "--out", str(tmp_path / "other"), "--chunks-elsewhere"]) == 0
        return json.loads(capsys.readouterr().out)

    for iteration in range(3):
        waiting = call()
        assert waiting["iteration"] == iteration
        assert [task[-9:] for task in waiting["tasks"]] == ["0000.json", "0001.json"]
        assert main(["chunk", waiting["tasks"][1], "--threads", "1"]) == 0
        assert call() == {"iteration": iteration, "tasks": waiting["tasks"][:1]}  # only what is missing
        assert main(["chunk", waiting["tasks"][0], "--threads", "1"]) == 0
    summary = call()
    assert summary["reason"] == "all iterations done"
    assert call()["resolution_0143"] == summary["resolution_0143"]
    one, other = (read_rows(tmp_path / name / "result.npz") for name in ("one", "other"))
    for name in ("position", "rotation", "score"):
        np.testing.assert_array_equal(one.particles[name], other.particles[name])
    np.testing.assert_array_equal(one.exposures["shift"], other.exposures["shift"])
