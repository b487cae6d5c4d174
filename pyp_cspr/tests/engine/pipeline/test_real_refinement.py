"""20 real ribosomes in cells, refined against the average of the whole set from the deposited and from wrong poses."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.core.filters import mirrored, soft_mask
from pyp_cspr.engine.core.fsc import fsc
from pyp_cspr.engine.core.geometry import rotation_angle, rotation_vector_to_matrix
from pyp_cspr.engine.io.mrc import read_map, write_map
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.pipeline.iterate import refine

# Crowded surroundings: crops are masked, and priors of the size of the errors keep particles from their neighbours.
SETTINGS = {"mask_diameter": 260.0, "resolution": 30.0, "start_resolution": 60.0, "prior_rotation": 5.0, "prior_position": 7.0,
            "prior_tilt_angle": 0.0, "prior_axis_angle": 0.0, "prior_shift": 0.0, "half_references": False}


@pytest.mark.slow
def test_wrong_poses_come_back_and_none_is_lost(shared_data, tmp_path) -> None:
    folder = shared_data / "real" / "empiar10499"
    average, pixel = read_map(folder / "average.mrc")
    average = np.ascontiguousarray(mirrored(average))
    mask = soft_mask(average, pixel).values
    write_map(tmp_path / "reference.mrc", average, pixel)
    deposited, wrong = read_dataset(folder), read_dataset(folder)
    rng = np.random.default_rng(1)
    turns = rotation_vector_to_matrix(np.deg2rad(rng.normal(0, 10 / np.sqrt(3), (20, 3))))
    wrong.particles["rotation"] = turns @ wrong.particles["rotation"]
    wrong.particles["position"] = wrong.particles["position"] + rng.normal(0, 24 / np.sqrt(3), (20, 3))
    write_dataset(wrong, tmp_path / "wrong")
    found = {}
    for name, data in (("deposited", folder), ("wrong", tmp_path / "wrong")):
        out = tmp_path / f"run_{name}"
        refine(str(data), str(tmp_path / "reference.mrc"), str(out), SETTINGS, 1, processes=1, report=False)
        after = read_dataset(out).particles
        angle = rotation_angle(after["rotation"], deposited.particles["rotation"])
        distance = np.linalg.norm(after["position"] - deposited.particles["position"], axis=1)
        maps = [read_map(out / "iterations" / f"00{i}" / "map.mrc")[0] for i in (0, 1)]
        agreement = [fsc(map_ * mask, average * mask)[1:9].mean() for map_ in maps]
        found[name] = np.median(angle), np.median(distance), angle.max(), distance.max(), agreement
    assert found["wrong"][0] < 1.3 * found["deposited"][0]
    assert found["wrong"][1] < 1.3 * found["deposited"][1]
    for name in found:
        assert found[name][2] < 20.0
        assert found[name][3] < 50.0  # a ribosome's radius is 130 A
        assert found[name][4][1] > 0.98 * found["deposited"][4][0]
