"""Post-processing: what the form refuses, and a run of the host on half maps. RELION's program is the oracle."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pwem.objects import VolumeMask
from tomo.objects import AverageSubTomogram

from pyp_cspr.engine.core.filters import soft_sphere
from pyp_cspr.engine.io.mrc import read_map, write_map
from pyp_cspr.protocols import ProtPypCsprPostProcess
from pyp_cspr.tests.blobs import asymmetric_blobs

pytestmark = pytest.mark.timeout(300)
BOX, PIXEL = 48, 3.0


def write_halves(folder: Path, suffix: str = ".mrc"):
    """Two noisy half maps, and a mask, of which the headers say nothing of the pixel."""
    random = np.random.default_rng(4)
    truth = asymmetric_blobs(PIXEL, 30.0, count=30).volume(BOX, PIXEL)
    names = []
    for number in (1, 2):
        noisy = (truth + 0.3 * truth.std() * random.normal(size=truth.shape)).astype(np.float32)
        names.append(str(folder / f"half{number}{suffix}"))
        write_map(names[-1], noisy, 1.0)
    write_map(folder / "mask.mrc", soft_sphere(BOX, 14.0, 6.0), PIXEL)
    return names


def average_of(names, kind=AverageSubTomogram):
    average = kind()
    average.setFileName(names[0])
    average.setHalfMaps(names)
    average.setSamplingRate(PIXEL)
    return average


@pytest.fixture
def protocol(tmp_path):
    made = ProtPypCsprPostProcess()
    made.inputAverage.set(average_of(write_halves(tmp_path)))
    return made


def one_error(protocol) -> str:
    errors = protocol._validate()
    assert len(errors) == 1, errors
    assert errors[0].endswith(".")
    return errors[0]


def test_what_fits_is_accepted(protocol, tmp_path) -> None:
    assert protocol._validate() == []
    assert protocol._warnings() == []
    assert protocol._summary() == ["Not ready yet."]
    mask = VolumeMask()
    mask.setFileName(str(tmp_path / "mask.mrc"))
    mask.setSamplingRate(PIXEL)
    protocol.maskSource.set(2)
    assert "Mask to use: choose one" in one_error(protocol)
    protocol.inputMask.set(mask)
    assert protocol._validate() == []
    mask.setSamplingRate(2 * PIXEL)
    assert "another box" in one_error(protocol)


@pytest.mark.parametrize("name, value, words", [
    ("resolution", -1.0, "Low-pass filter: must be 0 or above"),
    ("resolution", 5.0, "5 A is finer than the average holds (6 A)"),
    ("seed", -1, "Seed: must be 0 or above"),
])
def test_values_that_cannot_be_are_refused(protocol, name, value, words) -> None:
    getattr(protocol, name).set(value)
    assert words in one_error(protocol)


def test_averages_that_cannot_be_used_are_refused(protocol, tmp_path) -> None:
    names = write_halves(tmp_path)
    protocol.inputAverage.set(average_of([names[0]]))
    assert "no half maps" in one_error(protocol)
    protocol.inputAverage.set(average_of([names[0], str(tmp_path / "gone.mrc")]))
    assert "gone.mrc does not exist" in one_error(protocol)
    write_map(tmp_path / "other.mrc", np.zeros((BOX, BOX, BOX - 2), np.float32), PIXEL)
    protocol.inputAverage.set(average_of([names[0], str(tmp_path / "other.mrc")]))
    assert "differ in size: 48 x 48 x 48 and 46 x 48 x 48 voxels" in one_error(protocol)
    protocol.inputAverage.set(average_of([str(tmp_path / "other.mrc")] * 2))
    assert "must be cubes" in one_error(protocol)


def test_a_blurring_b_factor_is_warned_of(protocol) -> None:
    protocol.bFactorSource.set(1)
    protocol.bFactor.set(30.0)
    assert len(protocol._warnings()) == 1


@pytest.fixture(scope="module")
def runs(host, tmp_path_factory):
    """Two runs in a project: an average with everything automatic, a volume of another format with all given."""
    _, environment = host
    work = tmp_path_factory.mktemp("postprocess")
    environment = dict(environment, SCIPION_USER_DATA=str(work / "data"))
    write_halves(work)
    program = Path(__file__).with_name("run_postprocess.py")
    done = subprocess.run([sys.executable, str(program), str(work)], capture_output=True, text=True, timeout=200,
                          env=environment, cwd=work, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-3000:] + done.stderr[-5000:]
    return work, json.loads(lines[-1][7:])


@pytest.mark.slow
def test_outputs_are_of_the_inputs_class_and_grid(runs) -> None:
    work, found = runs
    for name, kind in (("automatic", "AverageSubTomogram"), ("given", "Volume")):
        outputs = found[name]["outputs"]
        assert outputs["sharpened"]["class"] == kind
        assert outputs["mask"]["class"] == "VolumeMask"
        assert outputs["fscs"]["size"] == 4
        for one in ("sharpened", "mask"):
            assert outputs[one]["pixel"] == PIXEL
            values, pixel = read_map(outputs[one]["file"])
            assert values.shape == (BOX,) * 3
            assert pixel == pytest.approx(PIXEL)  # of the set, not of the headers
        assert len(outputs["sharpened"]["halves"]) == 2
        assert all(os.path.exists(half) for half in outputs["sharpened"]["halves"])
        assert found[name]["relations"] == 4  # a transform, which is a source as well, and two sources
    np.testing.assert_allclose(read_map(found["given"]["outputs"]["mask"]["file"])[0], read_map(work / "mask.mrc")[0])


@pytest.mark.slow
def test_the_summary_says_resolution_and_b_factor(runs) -> None:
    _, found = runs
    summary = " ".join(found["given"]["summary"])
    assert re.search(r"Resolution \(FSC 0.143, corrected for the mask\): [0-9.]+ A\.", summary)
    assert "B factor: -40 A^2." in summary
    assert "Low-pass filter: 9.00 A." in summary
    fitted = re.search(r"B factor: (-?[0-9]+) A\^2\.", " ".join(found["automatic"]["summary"]))
    assert float(fitted.group(1)) < -300.0  # blobs fall off fast


def test_the_summary_says_why_nothing_was_sharpened(protocol, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(protocol, "_getExtraPath", lambda *parts: "/".join([str(tmp_path), *parts]))
    (tmp_path / "postprocess").mkdir()
    journal = [{"message": "mask given", "value": 1.0}, {"message": "no B-factor: 10 A to 12.0 A holds fewer", "value": None}]
    values = {"resolution_0143": 12.0, "b_factor": None, "low_pass": 12.0, "journal": journal}
    (tmp_path / "postprocess" / "summary.json").write_text(json.dumps(values))
    assert protocol._summary() == ["Resolution (FSC 0.143, corrected for the mask): 12.00 A.",
                                   "Not sharpened: 10 A to 12.0 A holds fewer.", "Low-pass filter: 12.00 A."]
    values.update(resolution_0143=None, low_pass=None, journal=[])
    (tmp_path / "postprocess" / "summary.json").write_text(json.dumps(values))
    assert protocol._summary() == ["Resolution (FSC 0.143, corrected for the mask): none.", "Not sharpened."]


@pytest.mark.slow
@pytest.mark.needs_relion
@pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="RELION is not installed (Debian: relion)")
def test_relion_agrees_on_resolution_and_map(runs, tmp_path) -> None:
    work, found = runs
    given = found["given"]["outputs"]
    line = ["relion_postprocess", "--i", str(work / "half1.mrc"), "--i2", str(work / "half2.mrc"), "--mask",
            given["mask"]["file"], "--angpix", str(PIXEL), "--adhoc_bfac", "-40", "--o", str(tmp_path / "post")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    theirs = float(re.search(r"FINAL RESOLUTION:\s*([0-9.]+)", done.stdout).group(1))
    ours = float(re.search(r": ([0-9.]+) A", found["given"]["summary"][0]).group(1))
    assert BOX * PIXEL / ours == pytest.approx(BOX * PIXEL / theirs, abs=1.0)  # they do not interpolate between shells


def test_another_mask_is_converted_anew(protocol, tmp_path, monkeypatch) -> None:
    """The steps' arguments are all that Continue looks at."""
    def first_step():
        steps = []
        monkeypatch.setattr(protocol, "_insertFunctionStep", lambda *words, **unused: steps.append(words))
        protocol._insertAllSteps()
        return steps[0]

    plain = first_step()
    mask = VolumeMask()
    mask.setFileName(str(tmp_path / "mask.mrc"))
    mask.setSamplingRate(PIXEL)
    protocol.maskSource.set(2)
    protocol.inputMask.set(mask)
    given = first_step()
    mask.setFileName(str(tmp_path / "other.mrc"))
    assert len({str(plain), str(given), str(first_step())}) == 3
    json.dumps(given[1:])


def test_methods_say_whether_it_was_sharpened(protocol, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(protocol, "_getExtraPath", lambda *parts: "/".join([str(tmp_path), *parts]))
    (tmp_path / "postprocess").mkdir()
    for b_factor, sharpened in ((None, False), (-80.0, True)):
        (tmp_path / "postprocess" / "summary.json").write_text(json.dumps({"b_factor": b_factor}))
        assert ("sharpened" in protocol._methods()[0]) == sharpened
