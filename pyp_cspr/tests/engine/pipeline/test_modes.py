"""Modes of refinement through the whole pipeline: what is refined is stored, written, read and used again."""

from __future__ import annotations

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.fsc import fsc
from pyp_cspr.engine.core.geometry import rotation_z
from pyp_cspr.engine.core.projection import Reference
from pyp_cspr.engine.core.weighting import score_weight
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.model.settings import RefineSettings
from pyp_cspr.engine.model.task import ChunkJournal
from pyp_cspr.engine.pipeline.check import score_signs
from pyp_cspr.engine.pipeline.iterate import set_exposure_scores
from pyp_cspr.engine.pipeline.plan import map_grid
from pyp_cspr.engine.pipeline.refine_series import mend_exposures, refine_one, refinement_grid
from pyp_cspr.engine.pipeline.series_model import SeriesModel, geometry_of
from pyp_cspr.engine.refine.solve import SolveOptions
from pyp_cspr.engine.sample.truth import read_truth


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A noise-free series of 16 hexons at the truth."""
    folder = tmp_path_factory.mktemp("modes") / "data"
    options = ["--series", "1", "--particles", "16", "--tilts", "13", "--box", "64", "--pixel", "4", "--noise", "none",
               "--no-overlap", "--seed", "11"]
    assert main(["sample", str(folder), *options]) == 0
    return folder


def refine(folder, out, *settings) -> None:
    options = [word for setting in settings for word in ("--set", setting)]
    reference = str(folder.parent / "data" / "reference.mrc")
    command = ["refine", str(folder), "--reference", reference, "--out", str(out), "--symmetry", "C3", "--iterations", "1",
               "--resolution", "9", "--no-report", "--processes", "1", *options]
    assert main(command) == 0


def written(clean, tmp_path, change):
    """The clean data set with something changed, as a data set of its own."""
    dataset = read_dataset(clean)
    change(dataset)
    folder = tmp_path / "changed"
    write_dataset(dataset, folder)
    return folder


def place_error(run, clean) -> float:
    """Largest rms over the exposures of the projected places' error, angstrom."""
    found, truth = read_dataset(run), read_truth(clean / "truth.star")
    difference = found.project(0)[0] - truth.project(0)[0]
    return float(np.sqrt((difference**2).mean(axis=(0, 2))).max())


@pytest.mark.slow
def test_a_smooth_deformation_is_refined_written_and_read(clean, tmp_path) -> None:
    rng = np.random.default_rng(5)

    def bend(dataset) -> None:
        dataset.series["deformation_grid"][0] = 2
        dataset.exposures["deformation"][:, :8] = rng.normal(0, 8, (len(dataset.exposures), 8))

    bent = written(clean, tmp_path, bend)
    again = read_dataset(bent)
    assert again.series["deformation_grid"][0] == 2
    start = place_error(bent, clean)
    assert start > 4.0
    (tmp_path / "data").symlink_to(clean)
    refine(bent, tmp_path / "run", "prior_deformation=20", "prior_rotation=0", "prior_position=0", "prior_tilt_angle=0",
           "prior_axis_angle=0", "prior_shift=0")
    assert place_error(tmp_path / "run", clean) < 0.1
    refine(bent, tmp_path / "without", "prior_rotation=0", "prior_position=0", "prior_tilt_angle=0", "prior_axis_angle=0")
    assert place_error(tmp_path / "without", clean) > 1.0  # a shift cannot do it


@pytest.fixture(scope="module")
def magnified(tmp_path_factory):
    """As ``clean``, but the tilt images are magnified by 0.6 % rms, made by the simulator; the stars say so."""
    folder = tmp_path_factory.mktemp("magnified") / "data"
    options = ["--series", "1", "--particles", "16", "--tilts", "13", "--box", "64", "--pixel", "4", "--noise", "none",
               "--no-overlap", "--seed", "11", "--magnification", "0.6"]
    assert main(["sample", str(folder), *options]) == 0
    return folder


def same_size(dataset) -> None:
    dataset.exposures["magnification"] = 1.0


@pytest.mark.slow
@pytest.mark.parametrize("others", [(), ("prior_amplitude=30", "prior_deformation=5", "prior_defocus=300")],
                         ids=["alone", "with others"])
def test_magnifications_are_refined_written_and_read(magnified, tmp_path, others) -> None:
    """With poses and tilts, which the images of an independent projector hold still."""
    wrong = written(magnified, tmp_path, same_size)
    truth = read_truth(magnified / "truth.star").exposures["magnification"]
    assert np.abs(truth - 1).max() > 0.008
    assert place_error(wrong, magnified) > 2.0
    (tmp_path / "data").symlink_to(magnified)
    refine(wrong, tmp_path / "run", "prior_magnification=1", *others)
    assert place_error(tmp_path / "run", magnified) < 0.1
    found = read_dataset(tmp_path / "run").exposures["magnification"]
    # A common factor is that of all positions: only the particles' own size tells it.
    np.testing.assert_allclose(found / found.mean(), truth / truth.mean(), atol=2e-4)
    assert abs(found.mean() - truth.mean()) < 1e-3


def test_a_check_sees_images_as_large_as_they_are(tmp_path) -> None:
    """Without noise the right signs leave nothing unexplained; slices that are too small or large would leave 0.4 %."""
    data = tmp_path / "data"
    options = ["--series", "1", "--particles", "4", "--tilts", "7", "--box", "64", "--pixel", "4", "--noise", "none",
               "--no-overlap", "--seed", "11", "--magnification", "1.5"]
    assert main(["sample", str(data), *options]) == 0
    reference, pixel = read_map(data / "reference.mrc")
    best = score_signs(read_dataset(data), reference, pixel, 9.0)[0]
    assert (best["tilt_sign"], best["mirrored_reference"]) == (1, False)
    assert best["score"] > 99.95


@pytest.mark.slow
def test_a_known_magnification_is_used_by_reconstruction(magnified, tmp_path) -> None:
    """Places and slices: without either the map is worse. The sums end where those of an image that is too large would not."""
    wrong = written(magnified, tmp_path, same_size)
    reference, _ = read_map(magnified / "reference.mrc")
    curves = {}
    for name, folder in (("right", magnified), ("wrong", wrong)):
        out = tmp_path / name
        assert main(["reconstruct", str(folder), "--out", str(out), "--symmetry", "C3", "--processes", "1"]) == 0
        curves[name] = fsc(read_map(out / "map.mrc")[0], reference)
    assert curves["right"][1:28].min() > 0.98
    assert curves["wrong"][20:28].mean() < curves["right"][20:28].mean() - 0.02


@pytest.mark.slow
def test_defocus_by_region_is_refined_written_and_read(clean, tmp_path) -> None:
    rng = np.random.default_rng(8)

    def change(dataset) -> None:
        dataset.series["defocus_grid"][0] = 2
        dataset.exposures["defocus_field"][:, :4] = rng.normal(0, 300, (len(dataset.exposures), 4))

    wrong = written(clean, tmp_path, change)
    truth = read_truth(clean / "truth.star").defocus_changes(0)
    before = read_dataset(wrong)
    assert before.series["defocus_grid"][0] == 2
    assert np.sqrt(((before.defocus_changes(0) - truth) ** 2).mean()) > 120
    (tmp_path / "data").symlink_to(clean)
    refine(wrong, tmp_path / "run", "prior_regional_defocus=500")
    assert np.sqrt(((read_dataset(tmp_path / "run").defocus_changes(0) - truth) ** 2).mean()) < 15.0


def test_all_of_our_columns_come_back(clean, tmp_path) -> None:
    rng = np.random.default_rng(9)

    def change(dataset) -> None:
        dataset.series["deformation_grid"][0], dataset.series["defocus_grid"][0] = 5, 3
        count = len(dataset.exposures)
        dataset.exposures["deformation"] = rng.normal(0, 8, (count, 50))
        dataset.exposures["defocus_field"][:, :9] = rng.normal(0, 300, (count, 9))
        dataset.exposures["magnification"] = 1 + rng.normal(0, 0.005, count)
        dataset.particles["defocus_offset"] = rng.normal(0, 100, len(dataset.particles))
        changed.append(dataset)

    changed = []
    again = read_dataset(written(clean, tmp_path, change))
    for name in ("deformation", "defocus_field", "magnification"):
        np.testing.assert_allclose(again.exposures[name], changed[0].exposures[name], rtol=1e-10)
    np.testing.assert_allclose(again.project(0)[0], changed[0].project(0)[0], atol=1e-6)
    np.testing.assert_allclose(again.defocus_changes(0), changed[0].defocus_changes(0), atol=1e-6)
    geometry = geometry_of(again, 0)
    np.testing.assert_allclose(geometry.centres(), again.project(0)[0], atol=1e-9)
    np.testing.assert_allclose(geometry.defocus_changes()[..., 0], again.defocus_changes(0), atol=1e-9)


@pytest.mark.parametrize("has", [0, 1])
def test_a_field_that_only_one_series_has_comes_back(small_sample, tmp_path, has) -> None:
    dataset = read_dataset(small_sample)
    dataset.series["deformation_grid"][has], dataset.series["defocus_grid"][has] = 2, 3
    rows = dataset.exposures_of(has)
    dataset.exposures["deformation"][rows, :8] = np.random.default_rng(3).normal(0, 8, (len(rows), 8))
    dataset.exposures["defocus_field"][rows, :9] = np.random.default_rng(4).normal(0, 300, (len(rows), 9))
    write_dataset(dataset, tmp_path / "one")
    again = read_dataset(tmp_path / "one", need_images=False)
    for series in range(3):
        np.testing.assert_allclose(again.project(series)[0], dataset.project(series)[0], atol=1e-6)
        np.testing.assert_allclose(again.defocus_changes(series), dataset.defocus_changes(series), atol=1e-6)


def test_a_field_of_the_wrong_size_and_a_wild_magnification_are_refused(clean, tmp_path) -> None:
    def change(dataset) -> None:
        dataset.series["defocus_grid"][0] = 2

    folder = written(clean, tmp_path, change)
    star = next((folder / "tilt_series").glob("*.star"))
    text = star.read_text()
    star.write_text(text.replace("[0,0,0,0]", "[0,0,0]", 1))
    with pytest.raises(InputError, match=r"csprDefocusField must hold n\^2 numbers"):
        read_dataset(folder)
    with pytest.raises(InputError, match="check the pixel size"):
        read_dataset(written(clean, tmp_path, lambda dataset: dataset.exposures["magnification"].__setitem__(3, 1.2)))


def test_the_ctf_of_premultiplied_images_is_not_refined(clean) -> None:
    dataset = read_dataset(clean)
    dataset.series["premultiplied"] = True
    settings = RefineSettings(prior_defocus=100.0, prior_magnification=1.0)
    grid = map_grid(dataset, settings)
    reference = Reference(read_map(clean / "reference.mrc")[0], 1.5, grid.radius)
    with pytest.raises(InputError, match="set prior_defocus to 0"):
        refine_one(dataset, 0, [reference], settings, grid, 12.0, ChunkJournal(), 1)


@pytest.mark.slow
def test_defocus_and_astigmatism_of_exposures_are_refined(clean, tmp_path) -> None:
    rng = np.random.default_rng(6)

    def change(dataset) -> None:
        dataset.exposures["defocus"][:, :2] += rng.normal(0, 400, len(dataset.exposures))[:, None]
        dataset.exposures["defocus"][:, 0] += 150

    wrong = written(clean, tmp_path, change)
    truth = read_truth(clean / "truth.star").exposures["defocus"]
    (tmp_path / "data").symlink_to(clean)
    refine(wrong, tmp_path / "run", "prior_defocus=750", "prior_astigmatism=300")
    found = read_dataset(tmp_path / "run").exposures["defocus"]
    before = read_dataset(wrong).exposures["defocus"]
    error = np.abs(found[:, :2].mean(axis=1) - truth[:, :2].mean(axis=1))
    assert np.abs(before[:, :2].mean(axis=1) - truth[:, :2].mean(axis=1)).mean() > 200
    assert error.max() < 40.0
    components = [0.5 * (f[:, 0] - f[:, 1]) * np.exp(2j * np.deg2rad(f[:, 2])) for f in (found, truth)]
    assert np.abs(components[0] - components[1]).max() < 40.0


@pytest.mark.slow
def test_defocus_offsets_of_particles_are_refined_and_used(clean, tmp_path) -> None:
    rng = np.random.default_rng(7)

    def change(dataset) -> None:
        dataset.particles["defocus_offset"] = rng.normal(0, 400, len(dataset.particles))

    wrong = written(clean, tmp_path, change)
    assert np.abs(read_dataset(wrong).particles["defocus_offset"]).max() > 300
    (tmp_path / "data").symlink_to(clean)
    refine(wrong, tmp_path / "run", "prior_particle_defocus=500", "prior_tilt_angle=0", "prior_axis_angle=0", "prior_shift=0")
    assert np.abs(read_dataset(tmp_path / "run").particles["defocus_offset"]).max() < 40.0


def test_scores_of_exposures_are_means_over_the_data_set(clean) -> None:
    dataset = read_dataset(clean)
    order = dataset.exposures["order"]
    score = np.tile(100.0 - order, (len(dataset.particles), 1)).astype(float)
    score[0, 3] = np.nan
    set_exposure_scores(dataset, [{"score": score}])
    np.testing.assert_allclose(dataset.exposures["score"], 1 - order / order.max(), atol=1e-12)
    set_exposure_scores(dataset, [{}])
    assert np.isnan(dataset.exposures["score"]).all()


@pytest.mark.parametrize(
    ("k", "score", "expected"),
    [(0.1, 0.75, 0.70), (0.25, 0.75, 0.33), (0.5, 0.75, 0.0006), (0.1, 0.5, 0.29), (0.25, 0.5, 0.02), (0.3, 1.0, 1.0)],
)
def test_score_weights_are_those_of_pyp(k, score, expected) -> None:
    """The table that PYP's formula gives with its defaults."""
    assert score_weight(k, score) == pytest.approx(expected, abs=0.006)


@pytest.mark.slow
def test_score_weighting_changes_the_map_from_the_second_iteration_on(clean, tmp_path) -> None:
    runs = {}
    for weighting in ("score", "dose"):
        out = tmp_path / weighting
        command = ["refine", str(clean), "--reference", str(clean / "reference.mrc"), "--out", str(out), "--symmetry", "C3",
                   "--iterations", "2", "--resolution", "12", "--no-report", "--processes", "1",
                   "--set", f"exposure_weighting={weighting}"]
        assert main(command) == 0
        runs[weighting] = [read_map(out / "iterations" / f"00{i}" / "half1.mrc")[0] for i in (1, 2)]
    np.testing.assert_array_equal(runs["score"][0], runs["dose"][0])
    assert np.abs(runs["score"][1] - runs["dose"][1]).max() > 1e-3 * np.abs(runs["dose"][1]).max()


@pytest.mark.slow
def test_an_exposure_in_a_side_maximum_is_put_right(clean) -> None:
    """Shift, tilt and axis wrong together, as descent left them once; the other exposures stay as they are."""
    dataset = read_dataset(clean)
    dataset.assign_halves()
    settings = RefineSettings()
    grid = refinement_grid(map_grid(dataset, settings), 12.0)
    reference = Reference(read_map(clean / "reference.mrc")[0], 1.5, grid.radius)
    model = SeriesModel(dataset, 0, [reference], grid, settings, ChunkJournal())
    true = geometry_of(dataset, 0)
    start, found = true.copy(), true.copy()
    start.shifts[5] += [6.0, -5.0]
    start.tilts[5] = rotation_z(0.7) @ start.tilts[5]
    found.shifts[5] += [24.0, -20.0]
    found.tilts[5] = rotation_z(1.5) @ found.tilts[5]
    assert mend_exposures(model, start, found, SolveOptions()) == 1
    error = np.linalg.norm(found.centres() - true.centres(), axis=-1).mean(axis=0)
    assert error[5] < 8.0
    assert np.delete(error, 5).max() == 0.0
    assert mend_exposures(model, start, found, SolveOptions()) == 0


@pytest.mark.slow
def test_an_exposure_is_put_right_within_its_tolerance(clean) -> None:
    """One image lies 60 A off and may go 20 A: it goes there at most, and does not keep the series from being refined."""
    ends = {}
    for off, values in ((0.0, {}), (60.0, {"hard_tolerances": True, "prior_shift": 20.0})):
        dataset = read_dataset(clean)
        dataset.assign_halves()
        dataset.particles["position"] += [4.0, -3.0, 2.0]
        dataset.exposures["shift"][5, 0] += off
        start = dataset.exposures["shift"].copy()
        settings = RefineSettings.from_dict({"symmetry": "C3", **values})
        grid = map_grid(dataset, settings)
        reference = Reference(read_map(clean / "reference.mrc")[0], 1.5, refinement_grid(grid, 12.0).radius)
        outcome = refine_one(dataset, 0, [reference], settings, grid, 12.0, ChunkJournal(), 1)
        ends[off] = np.delete(dataset.project(0)[0], 5, axis=1)
        assert {stage["reason"] for stage in outcome.report["stages"]} == {"converged"}
    assert np.abs(dataset.exposures["shift"] - start).max() <= 20.0 * (1 + 1e-6)
    assert np.linalg.norm(ends[60.0] - ends[0.0], axis=-1).max() < 2.0
