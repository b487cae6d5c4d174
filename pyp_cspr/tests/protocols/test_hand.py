"""Data and references of the wrong hand: the check before a refinement finds them in the images, and stops the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.filters import mirrored
from pyp_cspr.engine.io.mrc import read_map, write_map
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.pipeline.check import with_signs
from pyp_cspr.protocols import ProtPypCsprRefine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
# The hand of the defocus shows where particles are far apart in depth, and in few of them only without noise.
THICK = ["--series", "1", "--particles", "40", "--tilts", "15", "--box", "48", "--pixel", "5", "--thickness", "4000",
         "--noise", "none", "--defocus", "15000", "15000", "--seed", "4"]


@pytest.fixture
def protocol(tmp_path, monkeypatch):
    """A refinement whose folders are in tmp_path; the engine is run by a shell, as the host does without a queue."""
    made = ProtPypCsprRefine()

    def run_job(program, command, **unused):
        subprocess.run(f"{program} {command}", shell=True, check=True, timeout=200)

    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(made, "runJob", run_job)
    monkeypatch.setattr(made, "_getExtraPath", lambda *parts: "/".join([str(tmp_path), *parts]))
    monkeypatch.setattr(made, "_getLogsPath", lambda *parts: "/".join([str(tmp_path / "logs"), *parts]))
    return made


def check(protocol, monkeypatch, data, reference) -> None:
    monkeypatch.setattr(protocol, "_dataFolder", lambda: str(data))
    write_map(protocol._getExtraPath("reference.mrc"), *reference)
    protocol.checkHandStep([])


def test_ribosomes_and_an_average_of_the_other_hand(protocol, monkeypatch, shared_data) -> None:
    """EMPIAR-10499: the average of the whole set is mirrored against the particles' angles."""
    folder = shared_data / "real" / "empiar10499"
    average, pixel = read_map(folder / "average.mrc")
    check(protocol, monkeypatch, folder, (mirrored(average).copy(), pixel))
    with pytest.raises(RuntimeError, match=r"The data fit better if you .*mirror the reference: mean score"):
        check(protocol, monkeypatch, folder, (average, pixel))


@pytest.mark.parametrize("tilt, hand, advice", [
    (1, 1, ""), (1, -1, "take the other defocus handedness: "), (-1, 1, "negate the tilt angles and mirror the reference: ")])
def test_wrong_signs_of_the_geometry(protocol, monkeypatch, tmp_path, thick, tilt, hand, advice) -> None:
    reference, pixel = read_map(thick / "reference.mrc")
    if tilt < 0:
        reference = mirrored(reference).copy()
    write_dataset(with_signs(read_dataset(thick), tilt, hand), tmp_path / "data")
    if not advice:
        check(protocol, monkeypatch, tmp_path / "data", (reference, pixel))
        return
    with pytest.raises(RuntimeError, match=f"The data fit better if you {advice}"):
        check(protocol, monkeypatch, tmp_path / "data", (reference, pixel))


@pytest.fixture(scope="module")
def thick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thick") / "data"
    assert main(["sample", str(folder), *THICK]) == 0
    return folder


def test_a_project_of_the_host_stops_before_it_refines(host, tmp_path) -> None:
    """The sample refined against its mirrored reference: the run fails with the advice, and nothing was refined."""
    folder, environment = host
    program = Path(__file__).with_name("run_hand.py")
    done = subprocess.run([sys.executable, str(program), str(folder)], capture_output=True, text=True, timeout=200,
                          env=dict(environment, SCIPION_USER_DATA=str(tmp_path / "data")), cwd=tmp_path, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == 1, done.stdout[-3000:] + done.stderr[-5000:]
    result = json.loads(lines[0][7:])
    assert result["status"] == "failed"
    assert "The data fit better if you mirror the reference" in result["error"]
    assert result["outputs"] == []
    assert (Path(result["folder"]) / "extra" / "check.json").exists()
    assert not (Path(result["folder"]) / "extra" / "refine").exists()
