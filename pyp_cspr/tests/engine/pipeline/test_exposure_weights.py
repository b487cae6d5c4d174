"""How much exposures and series weigh in a refined map: by their measured signal and noise."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.filters import soft_mask
from pyp_cspr.engine.core.fsc import fsc
from pyp_cspr.engine.io.mrc import open_stack, read_map, write_map, write_stack
from pyp_cspr.engine.model.task import MapGrid
from pyp_cspr.engine.pipeline.extract import CropGrid
from pyp_cspr.engine.pipeline.merge import common_level
from pyp_cspr.engine.pipeline.refine_series import ExposureWeights

QUICK = ["--symmetry", "C3", "--no-report", "--processes", "1", "--threads", "1"]


def test_weights_of_an_exposure() -> None:
    """A positive B-factor lowers the amplitude; the noise is read at its resolution, and held beyond what was measured."""
    grid = CropGrid(4.0, MapGrid(32, 4.0, 32, 15))
    noise = np.array([[9.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 99.0]])
    weights = ExposureWeights(np.array([1.0, 0.5]), np.array([0.0, 300.0]), noise, 64.0, 3.0)
    prior = np.linspace(1.0, 0.8, 16)
    amplitude, power = weights.of(1, prior, grid)
    resolution = 128.0 / np.arange(1, 16)
    np.testing.assert_allclose(amplitude[0], 1.5)
    np.testing.assert_allclose(amplitude[1:], 1.5 * prior[1:] * np.exp(-300.0 / (4.0 * resolution**2)))
    assert amplitude[15] < 0.5 * amplitude[1]
    np.testing.assert_allclose(power[:7], 1.0 + 0.5 * np.arange(7))  # its shells are half as far apart
    np.testing.assert_allclose(power[7:], 4.0)  # the last two, which the partly filled one is smoothed into, are not used
    bright = replace(weights, factor=np.array([1.0, 50.0]))
    np.testing.assert_allclose(bright.of(1, prior, grid)[0][0], 3.0 * 4.0)


def test_the_common_level_is_the_median_of_those_that_have_projections() -> None:
    seen, unseen = np.array([[50.0, np.nan]]), np.full((1, 2), np.nan)
    series = ((2.0, seen), (9.0, unseen), (3.0, seen), (7.0, seen))
    tables = [{"level": np.array(level), "score": score} for level, score in series]
    assert common_level(tables) == 3.0
    assert common_level(tables[1:2]) == 1.0


def refine(data: Path, out: Path, *options: str) -> None:
    assert main(["refine", str(data), "--reference", str(data / "reference.mrc"), "--out", str(out), *QUICK, *options]) == 0


def with_noise(sample: Path, folder: Path, noisy: tuple, random: np.random.Generator) -> Path:
    """The sample with threefold noise in the images of some series."""
    shutil.copytree(sample, folder)
    for name in noisy:
        stack = open_stack(sample / f"{name}.mrc")
        images = np.array(stack.data, dtype=np.float32)
        noise = random.standard_normal(images.shape, dtype=np.float32) * images.std(axis=(1, 2), keepdims=True)
        write_stack(folder / f"{name}.mrc", images + 3.0 * noise, stack.pixel)
    return folder


def levels_of(run: Path) -> np.ndarray:
    with np.load(run / "refinement.npz") as arrays:
        return np.array([arrays[f"{row}.level"] for row in range(3)])


def scale_of(volume: np.ndarray, truth: np.ndarray) -> float:
    """How many times the truth a map is, by least squares."""
    return float((volume * truth).sum() / (truth * truth).sum())


def test_neither_the_reference_nor_the_iteration_sets_the_scale_of_a_map(small_sample, tmp_path) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_sample, data)
    truth, pixel = read_map(data / "reference.mrc")
    refine(data, tmp_path / "plain", "--iterations", "2", "--resolution", "30")
    write_map(data / "reference.mrc", 8.0 * truth, pixel)
    refine(data, tmp_path / "bright", "--iterations", "1", "--resolution", "30")
    maps = [read_map(tmp_path / "plain" / "iterations" / f"{i:03d}" / "map.mrc")[0] for i in range(3)]
    bright = read_map(tmp_path / "bright" / "map.mrc")[0]
    assert np.linalg.norm(bright - maps[1]) < 1e-4 * np.linalg.norm(maps[1])
    truth = truth * soft_mask(truth, pixel).values
    scales = np.array([scale_of(volume, truth) for volume in maps])
    np.testing.assert_allclose(scales, scales[0], rtol=0.1)
    assert scales[2] == pytest.approx(scales[1], rel=0.03)
    levels = [levels_of(tmp_path / name / "iterations" / "001") for name in ("plain", "bright")]
    np.testing.assert_allclose(levels[1], levels[0] / 8.0, rtol=1e-4)


@pytest.mark.slow
def test_noisy_series_weigh_as_little_as_they_tell(small_sample, tmp_path, random, monkeypatch) -> None:
    """Two of three series with three times the noise: their signal over the images' deviation is 10^-1/2 of the third's."""
    data = with_noise(small_sample, tmp_path / "data", ("TS_02", "TS_03"), random)
    refine(data, tmp_path / "weighted", "--iterations", "1", "--resolution", "30")
    levels = levels_of(tmp_path / "weighted")
    np.testing.assert_allclose(levels[1:] / levels[0], 10**-0.5, rtol=0.2)
    of = ExposureWeights.of
    monkeypatch.setattr(ExposureWeights, "of", lambda self, *rest: of(replace(self, level=1.0), *rest))
    refine(data, tmp_path / "equal", "--iterations", "1", "--resolution", "30")
    truth, pixel = read_map(data / "reference.mrc")
    mask = soft_mask(truth, pixel).values
    weighted, equal = (
        fsc(read_map(tmp_path / name / "map.mrc")[0] * mask, truth * mask)[4:14] for name in ("weighted", "equal")
    )
    assert weighted.mean() > equal.mean() + 0.02
