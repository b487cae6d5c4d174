"""What the documentation says to do where the hand of the data is wrong: with other people's protocols, in a project."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.pipeline.check import with_signs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
WORKFLOW = [
    {"object.className": "ProtPypCsprSample", "object.id": "1", "object.label": "made", "nSeries": 2, "nParticles": 3,
     "nTilts": 7, "boxSize": 16, "pixelSize": 16.0, "tiltError": 2.0},
    {"object.className": "ProtInvertTiltAngles", "object.id": "2", "object.label": "inverted", "inTsSet": "1.tiltSeries",
     "inCtfSet": "1.ctfs"},
    {"object.className": "ProtPypCsprFilter", "object.id": "3", "object.label": "kept", "inputParticles": "1.subTomograms",
     "inputTiltSeries": "2.tiltSeries", "inputCTFs": "2.ctfs", "byScore": 2, "minProjections": 1},
]


def test_inverted_tilt_angles_are_what_the_check_means(host, tmp_path) -> None:
    """``tomo - invert tilt angles`` gives the geometry that ``cspr check`` scores as negated; particles stay."""
    environment = {name: value for name, value in host[1].items() if not name.startswith("SCIPION_")}
    (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW))
    line = [sys.executable, "-m", "pyp_cspr.workflow", str(tmp_path / "out"), "--template", str(tmp_path / "workflow.json")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    made, _, kept = sorted((tmp_path / "out" / "projects" / "cspr" / "Runs").iterdir())
    given, inverted = read_dataset(made / "extra" / "data"), read_dataset(kept / "extra" / "data")
    wanted = with_signs(given, -1, 1)
    for name in ("rotation", "shift", "defocus", "dose_before", "order"):
        np.testing.assert_allclose(inverted.exposures[name], wanted.exposures[name], atol=1e-4, err_msg=name)
    for name in ("rotation", "position"):
        np.testing.assert_allclose(inverted.particles[name], given.particles[name], atol=1e-3, err_msg=name)
    assert np.abs(inverted.exposures["rotation"] - given.exposures["rotation"]).max() > 0.5
