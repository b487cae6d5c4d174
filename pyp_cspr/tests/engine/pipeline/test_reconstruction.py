"""The map that comes out is the particle that went in: same place, same hand, same detail."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.filters import mirrored, soft_mask
from pyp_cspr.engine.core.fsc import fsc
from pyp_cspr.engine.core.geometry import matrix_to_tilt, tilt_to_matrix
from pyp_cspr.engine.core.insertion import Accumulator
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.model.settings import ReconstructSettings
from pyp_cspr.engine.model.task import ChunkTask
from pyp_cspr.engine.pipeline.chunk import run_chunk
from pyp_cspr.engine.pipeline.plan import map_grid
from pyp_cspr.engine.reconstruct.finalise import solve


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A noise-free sample whose particles do not overlap, reconstructed at the true poses."""
    folder = tmp_path_factory.mktemp("clean")
    options = ["--series", "2", "--particles", "60", "--noise", "none", "--no-overlap", "--seed", "2"]
    assert main(["sample", str(folder / "data"), *options]) == 0
    assert main(["reconstruct", str(folder / "data"), "--out", str(folder / "run"), "--symmetry", "C3", "--no-report"]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_noise_free_fsc_to_the_truth(clean) -> None:
    """FSC > 0.99 in every shell up to 0.9 Nyquist."""
    map_, pixel = read_map(clean / "run" / "map.mrc")
    truth, _ = read_map(clean / "data" / "reference.mrc")
    mask = soft_mask(truth, pixel).values
    curve = fsc(map_ * mask, truth * mask)
    assert curve[1 : int(0.45 * len(truth)) + 1].min() > 0.99


@pytest.mark.slow
def test_no_part_of_a_pixel_is_lost(clean) -> None:
    """The map is displaced by less than 0.02 pixel from the truth: the slope of the phases between the two."""
    map_, _ = read_map(clean / "run" / "map.mrc")
    truth, _ = read_map(clean / "data" / "reference.mrc")
    assert np.abs(displacement(map_, truth)).max() < 0.02
    assert np.abs(displacement(np.roll(map_, 1, axis=2), truth) - [0, 0, 1]).max() < 0.02  # it would show


def displacement(moved, fixed) -> np.ndarray:
    """(z, y, x) in pixels by which ``moved`` lies off ``fixed``: least squares of the phase differences."""
    box = len(fixed)
    cross = np.fft.fftn(moved) * np.conj(np.fft.fftn(fixed))
    k = np.stack(np.meshgrid(*[np.fft.fftfreq(box)] * 3, indexing="ij"), axis=-1)
    inside = (np.linalg.norm(k, axis=-1) < 0.2) & (np.linalg.norm(k, axis=-1) > 0)
    shift = np.zeros(3)
    for _ in range(5):
        turned = (cross * np.exp(2j * np.pi * (k @ shift)))[inside]
        a = 2 * np.pi * k[inside]
        weight = np.abs(turned)
        shift = shift + np.linalg.solve((a * weight[:, None]).T @ a, -(a * weight[:, None]).T @ np.angle(turned))
    return shift


def test_a_chunk_ends_with_every_slice_in_its_sums(small_sample, monkeypatch) -> None:
    """Else the last ones' time and memory would be in no journal."""
    dataset = read_dataset(small_sample)
    dataset.assign_halves()
    settings = ReconstructSettings()
    sums, journal, _ = run_chunk(ChunkTask(0, ("all",), 0, map_grid(dataset, settings), settings.to_dict(), ""), dataset)
    assert journal.n_projections
    monkeypatch.delattr(Accumulator, "_deposit")
    assert all(half.sums.any() for half in sums)


# 20 ribosomes of EMPIAR-10499 against the average of the whole set, whose hand is mirrored in z.


@pytest.fixture(scope="module")
def average(shared_data):
    volume, pixel = read_map(shared_data / "real" / "empiar10499" / "average.mrc")
    volume = np.ascontiguousarray(mirrored(volume))
    return volume, soft_mask(volume, pixel).values


def agreement(dataset, average) -> float:
    """Mean FSC over shells 1 to 8 under the average's own mask."""
    volume, mask = average
    dataset.particles["half"] = 1
    settings = ReconstructSettings()
    grid = map_grid(dataset, settings)
    task = ChunkTask(0, ("all",), 0, grid, settings.to_dict(), "")
    (accumulator, _), *_ = run_chunk(task, dataset)
    assert isinstance(accumulator, Accumulator)
    return float(fsc(solve(accumulator) * mask, volume * mask)[1:9].mean())


def test_it_is_a_ribosome(shared_data, average) -> None:
    assert agreement(read_dataset(shared_data / "real" / "empiar10499"), average) > 0.68


@pytest.mark.parametrize("wrong", ["tilt sign", "transposed poses", "hand", "negated psi", "rot and psi swapped"])
def test_wrong_signs_fall_below(shared_data, average, wrong) -> None:
    assert agreement(wrong_dataset(shared_data / "real" / "empiar10499", wrong), average) < 0.55


def test_check_names_the_mirrored_reference(shared_data, capsys) -> None:
    folder = shared_data / "real" / "empiar10499"
    assert main(["check", str(folder), "--reference", str(folder / "average.mrc"), "--resolution", "40", "--json"]) == 0
    best = json.loads(capsys.readouterr().out)["best"]
    assert best["mirrored_reference"] is True
    assert best["tilt_sign"] == 1


def wrong_dataset(folder, wrong: str):
    """The data set with one convention broken."""
    from pyp_cspr.engine.core.geometry import euler_to_matrix, matrix_to_euler

    dataset = read_dataset(folder)
    poses = dataset.particles["rotation"]
    rot, tilt, psi = matrix_to_euler(poses)
    if wrong == "tilt sign":
        xtilt, ytilt, zrot = matrix_to_tilt(dataset.exposures["rotation"])
        dataset.exposures["rotation"] = tilt_to_matrix(xtilt, -ytilt, zrot)
    elif wrong == "transposed poses":
        dataset.particles["rotation"] = np.swapaxes(poses, 1, 2)
    elif wrong == "hand":
        flip = np.diag([1.0, 1.0, -1.0])
        dataset.particles["rotation"] = flip @ poses @ flip
    elif wrong == "negated psi":
        dataset.particles["rotation"] = euler_to_matrix(rot, tilt, -psi)
    else:
        dataset.particles["rotation"] = euler_to_matrix(psi, tilt, rot)
    return dataset
