"""Refinement runs: better poses and a better map, the same whatever the machine did, and no detail where there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.filters import soft_mask
from pyp_cspr.engine.core.fsc import fsc, resolution_at
from pyp_cspr.engine.core.geometry import rotation_angle
from pyp_cspr.engine.io.mrc import read_map, write_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.io.star import read_star, write_star
from pyp_cspr.engine.model.settings import RefineSettings
from pyp_cspr.engine.model.task import MapGrid
from pyp_cspr.engine.pipeline.compare import compare, read_run
from pyp_cspr.engine.pipeline.iterate import converged, resolution_limit
from pyp_cspr.engine.pipeline.merge import supported_resolution
from pyp_cspr.engine.pipeline.refine_series import magnified
from pyp_cspr.engine.pipeline.store import read_rows
from pyp_cspr.engine.sample.truth import read_truth

from .killing import finished_chunks, is_killed

SAMPLE = ["--series", "3", "--particles", "12", "--tilts", "9", "--box", "32", "--pixel", "8", "--seed", "3"]
ERRORS = ["--pose-error", "3", "--position-error", "6", "--tilt-error", "0.4", "--axis-error", "0.3", "--shift-error", "4"]
QUICK = ["--symmetry", "C3", "--no-report"]
ONE = ["--processes", "1", "--threads", "1"]
PARAMETERS = (("particles", "rotation"), ("particles", "position"), ("particles", "score"), ("particles", "sigma"),
              ("exposures", "rotation"), ("exposures", "shift"), ("exposures", "sigma"))


def refine(data: Path, out: Path, *options: str) -> dict:
    reference = data / "reference.mrc"
    if "--reference" not in options:
        options = ("--reference", str(reference), *options)
    assert main(["refine", str(data), "--out", str(out), *QUICK, *options]) == 0
    return json.loads((out / "summary.json").read_text())


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """Three noisy series of 12 hexons with errors in poses and tilts."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    assert main(["sample", str(folder), *SAMPLE, *ERRORS]) == 0
    return folder


@pytest.fixture(scope="module")
def whole(sample, tmp_path_factory) -> Path:
    """Two iterations in one chunk, one process, one thread."""
    out = tmp_path_factory.mktemp("run") / "whole"
    refine(sample, out, "--iterations", "2", "--tasks-per-chunk", "3", *ONE)
    return out


def assert_same_parameters(one: Path, two: Path, tolerance: float) -> None:
    """Particles matched by name; relative to the norm of each column."""
    first, second = read_rows(one / "result.npz"), read_rows(two / "result.npz")
    order = {str(name): row for row, name in enumerate(second.particles["name"])}
    rows = np.array([order[str(name)] for name in first.particles["name"]])
    for table, column in PARAMETERS:
        expected, got = getattr(first, table)[column], getattr(second, table)[column]
        got = got[rows] if table == "particles" else got
        assert np.linalg.norm(got - expected) <= tolerance * np.linalg.norm(expected), (table, column)


def assert_same_maps(one: Path, two: Path, tolerance: float) -> None:
    for name in ("half1", "half2", "map"):
        expected, got = read_map(one / f"{name}.mrc")[0], read_map(two / f"{name}.mrc")[0]
        assert np.linalg.norm(got - expected) <= tolerance * np.linalg.norm(expected), name


# --- it refines -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_noisy_sample_is_refined_to_its_cramer_rao_bound_and_says_so(tmp_path) -> None:
    """The default sample with half-set references, which hold noise of their own: errors, and the reported uncertainties."""
    assert main(["sample", str(tmp_path / "data"), "--pose-error", "4", "--position-error", "8", "--tilt-error", "0.5",
                 "--axis-error", "0.5", "--shift-error", "4"]) == 0
    refine(tmp_path / "data", tmp_path / "run", "--iterations", "3")
    dataset, bounds = read_run(str(tmp_path / "run"))
    result = compare(dataset, read_truth(tmp_path / "data" / "truth.star"), "C3", bounds=bounds)["bound"]
    for name in ("view", "projected"):
        assert result[name]["ratio"] <= 1.15, (name, result[name])
        assert 0.8 <= result[name]["variance"] <= 1.25, (name, result[name])


def test_poses_tilts_and_map_get_better(sample, whole) -> None:
    truth = read_truth(sample / "truth.star")
    start = compare(read_dataset(sample), truth, "C3")["after"]
    dataset, bounds = read_run(str(whole))
    result = compare(dataset, truth, "C3", bounds=bounds)
    end = result["after"]
    factors = {"rotation": 0.5, "position": 0.2, "projected": 0.15, "tilt": 0.5, "axis": 0.6, "shift": 0.2}
    for name, factor in factors.items():
        assert end[name]["rms"] < factor * start[name]["rms"], name
    for name in ("view", "projected"):  # the half maps of 18 particles are noisy themselves, which the bound leaves out
        assert 0.85 < result["bound"][name]["ratio"] < 1.8, (name, result["bound"][name])
        assert 0.7 < result["bound"][name]["variance"] < 3.0, (name, result["bound"][name])
    reference, pixel = read_map(sample / "reference.mrc")
    mask = soft_mask(reference, pixel).values
    before, after = (
        resolution_at(fsc(read_map(folder / "map.mrc")[0] * mask, reference * mask), 0.5, len(reference), pixel)
        for folder in (whole / "iterations" / "000", whole)
    )
    assert after < before / 1.3


def test_what_a_refinement_leaves(sample, whole, capsys) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    assert [entry["iteration"] for entry in summary["iterations"]] == [0, 1, 2]
    assert summary["reason"] == "all iterations done"
    dataset = read_dataset(whole)
    assert np.isfinite(dataset.particles["score"]).all()
    assert set(np.unique(dataset.particles["half"])) == {1, 2}
    with np.load(whole / "refinement.npz") as arrays:
        for row in range(3):
            for name in ("score", "view_sigma", "place_sigma"):
                assert arrays[f"{row}.{name}"].shape == (12, 9)
                assert (arrays[f"{row}.{name}"] > 0).all()
            np.testing.assert_allclose(
                np.nanmean(arrays[f"{row}.score"], axis=1), dataset.particles["score"][dataset.particles_of(row)], rtol=1e-6)
    bounds = read_run(str(whole))[1]  # of whole errors; the table has the rms over three axes
    table = read_rows(whole / "result.npz").particles["sigma"]
    np.testing.assert_allclose(np.stack([bounds.rotation, bounds.position], axis=1) ** 2, 3 * table**2)
    own = np.sqrt(np.mean(bounds.rotation**2))  # of a particle's rotation; its views add what the tilts do not know
    assert 0.9 < np.sqrt(np.mean([np.mean(view**2) for view in bounds.view.values()])) / own < 1.1
    assert not list(whole.rglob("*.part"))
    assert not [path for path in whole.rglob("*") if path.suffix == ".mrcs"]
    capsys.readouterr()
    assert main(["compare", str(whole), str(sample / "truth.star"), "--symmetry", "C3", "--json"]) == 0
    bound = json.loads(capsys.readouterr().out)["bound"]
    assert bound["view"]["n"] == 324
    assert main(["compare", str(whole), str(sample / "truth.star"), "--symmetry", "C3"]) == 0
    assert "(error/sigma)^2" in capsys.readouterr().out
    assert main(["compare", str(whole / "iterations" / "000"), str(sample / "truth.star"), "--json"]) == 0
    assert "bound" not in json.loads(capsys.readouterr().out)
    assert main(["compare", str(whole / "iterations" / "001"), str(sample / "truth.star"), "--json"]) == 0
    assert "bound" in json.loads(capsys.readouterr().out)


def test_no_iteration_is_a_reconstruction_bit_for_bit(sample, tmp_path) -> None:
    refine(sample, tmp_path / "refined", "--iterations", "0", *ONE)
    assert main(["reconstruct", str(sample), "--out", str(tmp_path / "plain"), *QUICK, *ONE]) == 0
    for name in ("half1", "half2", "map", "map_sharpened", "mask"):
        expected, got = (read_map(tmp_path / folder / f"{name}.mrc")[0] for folder in ("plain", "refined"))
        np.testing.assert_array_equal(got, expected)
    for name in ("particles.star", "fsc.csv"):
        assert (tmp_path / "plain" / name).read_text() == (tmp_path / "refined" / name).read_text()
    assert not (tmp_path / "refined" / "refinement.npz").exists()


def test_iterations_0_does_not_keep_the_results_of_another_run(sample, whole, tmp_path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    refine(sample, out, "--iterations", "0", "--overwrite", *ONE)
    assert not (out / "refinement.npz").exists()
    assert read_run(str(out))[1] is None


def test_one_common_reference_and_a_given_mask(sample, whole, tmp_path) -> None:
    options = ["--set", "half_references=false", "--mask", str(whole / "mask.mrc"), "--iterations", "2", *ONE]
    refine(sample, tmp_path / "run", *options)
    assert not (tmp_path / "run" / "iterations" / "002" / "reference2.mrc").exists()
    assert (whole / "iterations" / "002" / "reference2.mrc").exists()
    mask = read_map(whole / "mask.mrc")[0]
    for iteration in ("001", "002"):
        used = read_map(tmp_path / "run" / "iterations" / iteration / "reference1.mrc")[0]
        assert np.abs(used[mask == 0]).max() == 0
        assert used.std() > 0


# --- it is the same -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    ("--tasks-per-chunk", "2", "--processes", "1", "--threads", "1"),
    ("--tasks-per-chunk", "1", "--processes", "2", "--threads", "1"),
    ("--tasks-per-chunk", "3", "--processes", "1", "--threads", "2", "--memory", "0.01"),
])
def test_parameters_do_not_depend_on_chunks_processes_threads_or_memory(sample, whole, tmp_path, options) -> None:
    refine(sample, tmp_path / "run", "--iterations", "2", *options)
    assert_same_parameters(whole, tmp_path / "run", 1e-5)
    assert_same_maps(whole, tmp_path / "run", 1e-5)


def test_the_same_plan_gives_the_same_bits(sample, whole, tmp_path) -> None:
    refine(sample, tmp_path / "run", "--iterations", "2", "--tasks-per-chunk", "3", *ONE)
    assert_same_parameters(whole, tmp_path / "run", 0.0)
    assert_same_maps(whole, tmp_path / "run", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("halves", [True, False])
def test_order_of_particles_does_not_matter(sample, whole, tmp_path, random, halves) -> None:
    """Also where the star says nothing of half-sets: they go by the particles' names."""
    folders = []
    for name in ("sorted", "shuffled"):
        folder = tmp_path / name
        shutil.copytree(sample, folder, ignore=shutil.ignore_patterns("*.mrc"))
        for path in sample.glob("*.mrc"):
            (folder / path.name).symlink_to(path)
        blocks = read_star(folder / "particles.star")
        columns = blocks["particles"].columns
        order = random.permutation(36) if name == "shuffled" else np.arange(36)
        if not halves:
            del columns["rlnRandomSubset"]
        for values in columns.values():
            values[:] = [values[row] for row in order]
        write_star(folder / "particles.star", blocks)
        folders.append(folder)
    ordered = whole
    if not halves:
        ordered = tmp_path / "ordered"
        refine(folders[0], ordered, "--iterations", "1", *ONE)
    refine(folders[1], tmp_path / "run", "--iterations", "2" if halves else "1", *ONE)
    assert_same_parameters(ordered, tmp_path / "run", 1e-5)
    assert_same_maps(ordered, tmp_path / "run", 1e-5)


def test_a_refined_run_is_again_a_data_set(sample, tmp_path) -> None:
    """Reconstructed, it gives the same map; refined again, it goes on from its poses."""
    first = tmp_path / "first"
    refine(sample, first, "--iterations", "1", "--set", "exposure_weighting=dose", *ONE)
    assert main(["reconstruct", str(first), "--out", str(tmp_path / "again"), *QUICK, *ONE]) == 0
    assert_same_maps(first, tmp_path / "again", 1e-5)
    summary = refine(first, tmp_path / "second", "--reference", str(first / "map.mrc"), "--iterations", "1", *ONE)
    truth = read_truth(sample / "truth.star")
    one, two = (compare(read_dataset(folder), truth, "C3")["after"] for folder in (first, tmp_path / "second"))
    assert two["projected"]["rms"] < 1.2 * one["projected"]["rms"]
    assert summary["iterations"][1]["position"] < 4.0
    np.testing.assert_array_equal(
        read_dataset(tmp_path / "second").particles["half"], read_dataset(first).particles["half"])


# --- it stops and goes on -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_stops_when_nothing_changes_and_says_why(sample, tmp_path) -> None:
    summary = refine(sample, tmp_path / "run", "--iterations", "9", "--resolution", "20", *ONE)
    assert len(summary["iterations"]) < 10
    assert summary["reason"].startswith("converged: the limit stays at 2")
    assert len(list((tmp_path / "run" / "iterations").iterdir())) == len(summary["iterations"])


def test_convergence_needs_a_still_limit_and_still_poses() -> None:
    still = {"limit": 20.0, "rotation": 0.1, "position": 0.1, "sigma_rotation": 1.0, "sigma_position": 1.0}
    history = [{"limit": None}, still, still]
    assert converged(history)
    assert not converged(history[:2])
    assert not converged([history[0], dict(still, limit=25.0), still])
    assert not converged([history[0], still, dict(still, rotation=0.9)])
    assert not converged([history[0], still, dict(still, position=0.9)])


def test_the_limit_follows_the_fsc_between_60_a_and_the_grid() -> None:
    grid = MapGrid(32, 8.0, 48, 15)
    automatic = RefineSettings()
    assert resolution_limit(automatic, {"resolution_supported": 25.0}, grid) == 25.0
    assert resolution_limit(automatic, {"resolution_supported": None}, grid) == 60.0
    assert resolution_limit(automatic, {"resolution_supported": 240.0}, grid) == 60.0  # a chance crossing in the first shells
    assert resolution_limit(automatic, {"resolution_supported": 5.0}, grid) == pytest.approx(256 / 15)
    assert resolution_limit(RefineSettings(resolution=30.0), {"resolution_supported": 25.0}, grid) == 30.0


def test_what_noise_may_reach_supports_nothing() -> None:
    """A tenth of the box inside the mask: shell 3 has about 5 independent coefficients, so noise may reach 0.8."""
    mask = np.zeros((32, 32, 32), np.float32)
    mask[:, :, :3] = 1.0
    curve = np.where(np.arange(17) < 9, 0.5, 0.0)
    assert supported_resolution(curve, mask, 8.0, "C1") is None
    curve[:6] = 0.9
    assert supported_resolution(curve, mask, 8.0, "C1") == pytest.approx(256 / 8, rel=0.15)
    assert supported_resolution(curve, mask, 8.0, "C3") > supported_resolution(curve, mask, 8.0, "C1")
    full = np.ones_like(mask)
    assert supported_resolution(np.full(17, 0.2), full, 8.0, "C1") is None


def test_more_iterations_go_on_from_those_that_are_there(sample, whole, tmp_path) -> None:
    out = tmp_path / "run"
    refine(sample, out, "--iterations", "1", "--tasks-per-chunk", "3", *ONE)
    when = (out / "iterations" / "001" / "summary.json").stat().st_mtime_ns
    refine(sample, out, "--iterations", "2", "--tasks-per-chunk", "3", *ONE)
    assert (out / "iterations" / "001" / "summary.json").stat().st_mtime_ns == when
    assert_same_parameters(whole, out, 0.0)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_killed_at_ten_moments_the_parameters_are_the_same(sample, whole, tmp_path) -> None:
    """SIGKILL ten times, each time after something more was done and before the end; finished chunks are not redone."""
    command = [sys.executable, "-m", "pyp_cspr.engine.cli", "refine", str(sample), "--reference", str(sample / "reference.mrc"),
               *QUICK, *ONE, "--iterations", "3"]
    good, out = tmp_path / "good", tmp_path / "killed"

    def marks(run: Path) -> list:
        """Plans, chunks and merges that are done."""
        names = ("run.json", "chunks/*/manifest.json", "summary.json")
        return [path for name in names for path in run.glob(f"iterations/*/{name}")]

    subprocess.run([*command, "--out", str(good)], check=True, capture_output=True, timeout=120)
    pauses = np.diff(sorted(path.stat().st_mtime_ns for path in marks(good))) * 1e-9
    assert len(pauses) == 4 * 5 - 1
    rng = np.random.default_rng(11)
    for _ in range(10):
        before, count = finished_chunks(out, "iterations/*/chunks/*/manifest.json"), len(marks(out))

        def reached(count=count) -> bool:
            return len(marks(out)) > count

        assert is_killed([*command, "--out", str(out)], reached, rng.uniform(0.0, 0.9) * pauses[count])
        if len(marks(out)) > count + 2:
            pauses *= 0.5  # it is faster this time
        after = finished_chunks(out, "iterations/*/chunks/*/manifest.json")
        assert {path: after[path] for path in before} == before, "a finished chunk was redone"
    assert not (out / "summary.json").exists()
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True, timeout=120)
    finished = finished_chunks(out, "iterations/*/chunks/*/manifest.json")
    assert len(finished) == 12
    assert {path: finished[path] for path in after} == after, "a finished chunk was redone"
    assert_same_parameters(good, out, 0.0)
    assert_same_maps(good, out, 0.0)
    assert not list(out.rglob("*.part"))


def test_a_run_that_is_damaged_goes_on_from_its_chunks(sample, whole, tmp_path) -> None:
    """The merge of the second iteration, and one of its chunks, are made again."""
    out = tmp_path / "run"
    refine(sample, out, "--iterations", "2", *ONE)
    last = out / "iterations" / "002"
    (out / "summary.json").unlink()
    (last / "summary.json").unlink()
    (last / "chunks" / "0001" / "manifest.json").write_text("{")
    refine(sample, out, "--iterations", "2", *ONE)
    assert_same_parameters(whole, out, 1e-5)
    assert_same_maps(whole, out, 1e-5)


# --- it invents nothing ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> Path:
    """Images of nothing but shot noise, with the reference of particles that are not there."""
    folder = tmp_path_factory.mktemp("noise") / "data"
    options = ["--series", "2", "--particles", "15", "--tilts", "7", "--box", "48", "--pixel", "8", "--seed", "2"]
    assert main(["sample", str(folder), *options, "--contrast", "1e-6"]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("gold", [True, False])
def test_pure_noise_gives_no_resolution(noise, tmp_path, gold, monkeypatch) -> None:
    """Started at 60 A and then let use ever finer detail, half-sets with their own references agree on nothing beyond 60 A and
    the mask's reach of two shells. With one common reference, whose own noise is taken for signal, they do, so that the test
    can tell."""
    if not gold:
        monkeypatch.setattr("pyp_cspr.engine.pipeline.series_model.without_own_noise", lambda sums, share: sums)
    out = tmp_path / "run"
    weights = "measured" if gold else "dose"  # those measured in noise alone differ by chance, and hide a part of it
    options = ["--set", f"half_references={str(gold).lower()}", "--set", f"exposure_weighting={weights}", "--iterations", "6",
               "--resolution", "60", "28", "25.6", "24", "22.6", "21.4"]
    assert main(["refine", str(noise), "--reference", str(noise / "reference.mrc"), "--out", str(out), "--no-report",
                 *options, *ONE]) == 0
    beyond = int(np.ceil(48 * 8 / 60)) + 1
    curves = [np.genfromtxt(path, delimiter=",", names=True)["corrected"] for path in sorted(out.glob("iterations/*/fsc.csv"))]
    assert len(curves) == 7
    if gold:
        assert max(curve[beyond:].max() for curve in curves) < 0.143
        assert curves[-1][beyond:16].mean() < 0.03
    else:
        assert curves[-1][beyond:16].mean() > 0.06


def test_noise_is_not_followed_to_finer_detail(noise, tmp_path) -> None:
    """With the limit left to the FSC it stays where nothing is known."""
    out = tmp_path / "run"
    assert main(["refine", str(noise), "--reference", str(noise / "reference.mrc"), "--out", str(out), "--no-report",
                 "--iterations", "4", *ONE]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert [entry["limit"] for entry in summary["iterations"][1:]] == [60.0] * (len(summary["iterations"]) - 1)


@pytest.mark.slow
def test_half_maps_of_the_reference_are_the_start_of_their_half_sets(sample, tmp_path):
    """A half-set that is given a wrong map goes astray; the other one does not."""
    values, pixel = read_map(sample / "reference.mrc")
    noise = np.random.default_rng(2).normal(size=(2, *values.shape)) * values.std() * 0.05
    for number in (1, 2):
        write_map(tmp_path / f"half{number}.mrc", values + noise[number - 1], pixel)
    write_map(tmp_path / "wrong.mrc", values[::-1, ::-1, :].copy(), pixel)
    runs = {}
    for name, second in (("right", "half2.mrc"), ("wrong", "wrong.mrc")):
        refine(sample, tmp_path / name, "--halves", str(tmp_path / "half1.mrc"), str(tmp_path / second), "--iterations", "1",
               "--set", "resolution=30", "--set", "prior_tilt_angle=0", "--set", "prior_axis_angle=0", "--set", "prior_shift=0",
               *ONE)
        runs[name] = read_rows(tmp_path / name / "result.npz").particles
    half = runs["right"]["half"]
    assert sorted(np.bincount(half).tolist()) == [0, 18, 18]
    turned = rotation_angle(runs["right"]["rotation"], runs["wrong"]["rotation"])
    # The first half-set notices only the other weight by the FSC of the two maps.
    assert np.median(turned[half == 2]) > 3.0 * np.median(turned[half == 1])


def test_half_maps_without_half_sets_are_refused(sample, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(sample, data)
    blocks = read_star(data / "particles.star")
    del blocks["particles"].columns["rlnRandomSubset"]
    write_star(data / "particles.star", blocks)
    reference = str(data / "reference.mrc")
    assert main(["refine", str(data), "--reference", reference, "--halves", reference, reference, "--out",
                 str(tmp_path / "out")]) == 2
    assert "particles without a half-set" in capsys.readouterr().err


def test_a_series_is_refined_as_far_whatever_else_is_in_its_chunk(sample) -> None:
    """How far slices may reach depends on the magnification of the series' own images."""
    dataset = read_dataset(str(sample))
    dataset.exposures["magnification"][dataset.exposures_of(1)] = 1.01
    assert [magnified({}, dataset, series) for series in range(3)] == [False, True, False]
    assert magnified({}, dataset)
    assert magnified({"prior_magnification": 1.0}, dataset, 0)
