"""What bounds a refinement: the box of hard tolerances, and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.model.settings import RefineSettings
from pyp_cspr.engine.model.tables import Dataset
from pyp_cspr.engine.model.task import ChunkJournal
from pyp_cspr.engine.pipeline.plan import map_grid
from pyp_cspr.engine.pipeline.refine_series import equations_memory, refine_one, refinement_grid, solve_options
from pyp_cspr.engine.pipeline.series_model import geometry_of
from pyp_cspr.engine.sample.make import make_sample
from pyp_cspr.engine.sample.settings import SampleSettings
from pyp_cspr.engine.sample.truth import read_truth

MB = 2**20


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("limits") / "sample"
    errors = {"pose_error": 2.0, "position_error": 2.0, "tilt_error": 0.0, "axis_error": 0.0, "shift_error": 2.0}
    settings = SampleSettings(series=1, particles=8, tilts=11, box=32, pixel=8.0, dose=20.0, seed=5, **errors)
    make_sample(folder, settings, threads=2)
    return folder


def refined(data: Dataset, sample: Path, memory: int = 2**30, **values: Any) -> Dataset:
    settings = RefineSettings.from_dict({"symmetry": "C3", **values})
    grid = map_grid(data, settings)
    reference = Reference(read_map(str(sample / "reference.mrc"))[0], 1.5, refinement_grid(grid, 17.0).radius)
    refine_one(data, 0, [reference], settings, grid, 17.0, ChunkJournal(), 1, memory)
    return data


def test_the_box_is_as_wide_as_the_priors() -> None:
    options = solve_options(RefineSettings(hard_tolerances=True, prior_rotation=5.0, prior_shift=0.0))
    assert options.tolerances == options.sigmas
    assert options.tolerances["rotation"] == 5.0
    assert "shift" not in options.tolerances
    assert solve_options(RefineSettings(prior_rotation=5.0)).tolerances == {}


def test_a_box_holds_what_is_refined(sample) -> None:
    data = read_dataset(sample)
    start = data.particles["position"].copy()
    free = refined(read_dataset(sample), sample).particles["position"]
    boxed = refined(data, sample, hard_tolerances=True, prior_position=0.5).particles["position"]
    assert np.abs(free - start).max() > 1.0
    assert 0.49 < np.abs(boxed - start).max() < 0.5 * (1 + 1e-6)


def test_box_and_priors_are_about_what_a_search_found(sample) -> None:
    """Start positions lie 40 A off, the box and the prior are 6 A wide: the search goes there, the refinement on from there."""
    truth = read_truth(sample / "truth.star").particles["position"]
    data = read_dataset(sample)
    data.particles["position"] = truth + 40.0 / np.sqrt(3)
    after = refined(data, sample, search_shift=50.0, hard_tolerances=True, prior_position=6.0, prior_shift=0.0)
    error = np.linalg.norm(after.particles["position"] - truth, axis=1)
    assert np.median(error) < 4.0


def test_equations_that_do_not_fit_the_memory_are_refused(sample) -> None:
    values = {"deformation_grid": 5, "prior_deformation": 20.0}
    data = read_dataset(sample)
    options = solve_options(RefineSettings.from_dict(values))
    need = equations_memory(geometry_of(data, 0, 5), options)
    assert need > 5 * equations_memory(geometry_of(data, 0), solve_options(RefineSettings()))
    with pytest.raises(InputError, match=r"its equations alone take .* GB of the .* GB that each process has; give more"):
        refined(data, sample, memory=need, **values)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_twice_the_particles_take_no_more_memory(tmp_path) -> None:
    """Searches and all, with 20 MB for projections. The images of the larger sample alone are larger by 50 MB.

    The first of the three runs is there to compile what the others load: that takes memory too.
    """
    peaks: Dict[int, int] = {}
    for particles in (8, 60, 120):
        data, out = tmp_path / f"data{particles}", tmp_path / f"run{particles}"
        errors = {"pose_error": 2.0, "position_error": 4.0}
        make_sample(data, SampleSettings(series=1, particles=particles, tilts=31, seed=3, **errors), threads=2)
        command = [
            sys.executable, "-m", "pyp_cspr.engine.cli", "refine", str(data), "--reference", str(data / "reference.mrc"),
            "--out", str(out), "--memory", "0.02", "--processes", "1", "--threads", "1", "--iterations", "1",
            "--resolution", "8.5", "--set", "search_shift=10", "--set", "search_resolution=8.5", "--no-report",
        ]
        subprocess.run(command, check=True, timeout=200, capture_output=True)
        peaks[particles] = json.loads((out / "iterations" / "001" / "summary.json").read_text())["peak_memory_bytes"]
    assert peaks[120] < peaks[60] + 20 * MB
