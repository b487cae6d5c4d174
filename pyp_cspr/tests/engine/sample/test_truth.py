"""truth.star: every number comes back."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.sample.acquisition import acquire
from pyp_cspr.engine.sample.settings import SampleSettings
from pyp_cspr.engine.sample.truth import read_truth, write_truth


@pytest.fixture
def truth():
    settings = SampleSettings(series=2, particles=6, tilts=5, box=32, pixel=8.0)
    return acquire(settings, 77.0, lambda name: f"/data/with space/{name}.mrc")


def test_round_trip_is_exact(truth, tmp_path):
    path = tmp_path / "truth.star"
    write_truth(path, truth)
    read = read_truth(path)
    for kind in ("series", "exposures", "particles"):
        for name, want in getattr(truth, kind).columns.items():
            got = getattr(read, kind)[name]
            assert got.dtype.kind == want.dtype.kind, name
            if name == "rotation":
                assert np.abs(got - want).max() < 1e-12
            elif want.dtype.kind == "f":
                assert np.array_equal(got, want, equal_nan=True), name
            else:
                assert (got == want).all(), name
    assert (read.box, read.box_pixel) == (32, 8.0)
    assert read.visible.all()


def test_other_stars_are_refused(truth, tmp_path):
    path = tmp_path / "truth.star"
    write_truth(path, truth)
    text = path.read_text()
    path.write_text(text.replace("data_cspr_exposures", "data_other"))
    with pytest.raises(InputError, match="no data_cspr_exposures"):
        read_truth(path)
    path.write_text(re.sub(r"(_csprVersion\s+)1", r"\g<1>99", text))
    with pytest.raises(InputError, match="version 99"):
        read_truth(path)
    path.write_text(text.replace("_csprPositionY", "_csprPositionQ"))
    with pytest.raises(InputError, match="csprPositionY"):
        read_truth(path)
