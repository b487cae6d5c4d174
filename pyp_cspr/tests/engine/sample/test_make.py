"""A whole sample data set: its files say what was simulated."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pyp_cspr.engine.core.geometry import imod_to_exposure
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.config import read_json
from pyp_cspr.engine.io.images import RawImages
from pyp_cspr.engine.io.imod import read_angles, read_xf
from pyp_cspr.engine.io.mrc import open_stack, read_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.sample.make import make_sample
from pyp_cspr.engine.sample.settings import SampleSettings
from pyp_cspr.engine.sample.structure import load_structure
from pyp_cspr.engine.sample.truth import read_truth

TINY = SampleSettings(series=2, particles=4, tilts=5, box=32, pixel=8.0, seed=9)
ERRORS = dict(pose_error=2.0, position_error=4.0, tilt_error=0.6, axis_error=0.3, shift_error=5.0, defocus_error=250.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    make_sample(folder, TINY)
    return folder


def contents(folder, *endings):
    """File contents by name; of MRC files what follows the header, which has the time of writing."""
    return {
        path.name: path.read_bytes()[1024 if path.suffix == ".mrc" else 0 :]
        for path in sorted(folder.rglob("*")) if path.name.endswith(endings)
    }


def test_stars_hold_the_truth_when_no_error_is_asked(tiny):
    data, truth = read_dataset(tiny, need_images=True), read_truth(tiny / "truth.star")
    for kind in ("series", "exposures", "particles"):
        for name, want in getattr(truth, kind).columns.items():
            got = getattr(data, kind)[name]
            if want.dtype.kind == "f":
                assert np.allclose(got, want, rtol=0, atol=1e-6, equal_nan=True), name
            else:
                assert (got == want).all(), name
    assert (data.box, data.box_pixel) == (32, 8.0)
    assert data.visible.all()


def test_stack_is_int16_by_tilt_angle(tiny):
    stack = open_stack(tiny / "TS_01.mrc")
    assert (stack.n, stack.pixel, stack.data.dtype) == (5, 8.0, np.int16)
    assert np.allclose(read_angles(tiny / "TS_01.tlt"), [-60, -30, 0, 30, 60])
    means = stack.data.mean(axis=(1, 2))
    assert means[2] > means[1] > means[0]
    order = read_dataset(tiny).exposures["order"][:5]
    assert order.tolist() == [3, 2, 0, 1, 4]


@pytest.mark.parametrize("errors", [{}, ERRORS])
def test_imod_files_say_what_the_stars_say(tmp_path, errors):
    make_sample(tmp_path, dataclasses.replace(TINY, series=1, xtilt=1.5, **errors))
    data = read_dataset(tmp_path)
    linear, offset = read_xf(tmp_path / "TS_01.xf")
    xtilt = read_angles(tmp_path / "TS_01.xtilt")
    rotation, shift = imod_to_exposure(linear, offset, read_angles(tmp_path / "TS_01.tlt"), xtilt, 8.0)
    assert np.allclose(rotation, data.exposures["rotation"], atol=1e-7)
    assert np.allclose(shift, data.exposures["shift"], atol=1e-5)
    assert np.allclose(xtilt, 1.5, atol=1e-6)
    assert np.abs(shift).max() > 5


def test_errors_are_in_the_stars_and_not_in_the_images(tiny, tmp_path):
    make_sample(tmp_path, dataclasses.replace(TINY, **ERRORS))
    assert contents(tmp_path, ".mrc") == contents(tiny, ".mrc")
    data, truth = read_dataset(tmp_path), read_truth(tmp_path / "truth.star")
    plain = read_truth(tiny / "truth.star")
    assert (truth.particles["position"] == plain.particles["position"]).all()
    for kind, name, least in (("particles", "position", 2), ("particles", "rotation", 0.01), ("exposures", "shift", 2),
                              ("exposures", "rotation", 2e-3), ("exposures", "defocus", 100)):
        assert np.abs(getattr(data, kind)[name] - getattr(truth, kind)[name]).max() > least, name


def test_same_seed_gives_the_same_files_with_any_threads(tiny, tmp_path):
    done = []
    summary = make_sample(tmp_path, TINY, threads=3, done=done.append)
    assert sum(done) == 10
    endings = (".mrc", ".tlt", ".xf", "particles.star", "tomograms.star")
    assert contents(tmp_path, *endings) == contents(tiny, *endings)
    assert summary["projections"] == 2 * 4 * 5
    assert summary["bytes"] == sum((tiny / f"TS_0{i}.mrc").stat().st_size for i in (1, 2))


def test_other_seed_gives_other_images(tiny, tmp_path):
    make_sample(tmp_path, dataclasses.replace(TINY, seed=10))
    first, second = contents(tiny, "TS_01.mrc"), contents(tmp_path, "TS_01.mrc")
    assert first != second


def test_reference_and_settings_are_written(tiny):
    reference, pixel = read_map(tiny / "reference.mrc")
    assert pixel == 8.0
    assert np.array_equal(reference, load_structure("hexon", 32, 8.0).reference())
    written = read_json(tiny / "settings.json")
    assert SampleSettings.from_dict(written["settings"]) == TINY
    assert written["image_size"] == open_stack(tiny / "TS_01.mrc").nx


def test_scale_is_the_signal_in_the_normalised_images(tmp_path):
    """Two noise-free tilts of one untilted geometry through other ice: signal times scale must agree."""
    settings = dataclasses.replace(TINY, series=1, noise="none", tilts=3, damage=False)
    make_sample(tmp_path, settings)
    data = read_dataset(tmp_path)
    assert data.exposures["scale"].max() == pytest.approx(1.0)
    images = RawImages(data, 0)
    counts = 3.0 * 64 * np.exp(-1 / 3 / np.cos(np.deg2rad([-60, 0, 60])))
    want = np.array([counts[i] / images.statistics(i)[1] for i in range(3)])
    assert np.allclose(data.exposures["scale"], want / want.max(), rtol=1e-6)
    noisy = tmp_path / "noisy"
    make_sample(noisy, dataclasses.replace(settings, noise="poisson"))
    # the electrons' own noise dominates: sqrt of the part that came through
    assert np.allclose(read_dataset(noisy).exposures["scale"], np.sqrt(counts / (3.0 * 64)), rtol=0.03)


def test_stack_without_noise_is_float32(tmp_path):
    make_sample(tmp_path, dataclasses.replace(TINY, series=1, tilts=1, noise="none"))
    assert open_stack(tmp_path / "TS_01.mrc").data.dtype == np.float32


def test_sample_is_not_overwritten_unasked(tiny, tmp_path):
    with pytest.raises(InputError, match="--overwrite"):
        make_sample(tiny, TINY)
    small = dataclasses.replace(TINY, series=1, tilts=1)
    make_sample(tmp_path, small)
    make_sample(tmp_path, small, overwrite=True)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        make_sample(tmp_path / "file" / "out", TINY)
