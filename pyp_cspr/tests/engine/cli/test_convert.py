"""`cspr convert`: the ways between the forms, and what is refused. Half-sets survive."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.geometry import matrix_to_tilt, rotation_angle
from pyp_cspr.engine.core.geometry import project as project_points
from pyp_cspr.engine.io.mrc import open_stack, read_map, write_map
from pyp_cspr.engine.io.parameter_archive import read_archive, write_archive
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.io.star import read_star
from pyp_cspr.engine.model.stretches import stretches_to_columns
from pyp_cspr.tests.engine.io.projects import PIXEL, make_dataset


@pytest.fixture
def project(tmp_path):
    """Two series whose stacks hold the tilts in the star's order, as RELION 4 wants them."""
    dataset = make_dataset(tmp_path / "images")
    dataset.exposures["slice"] = np.concatenate([np.arange(5), np.arange(4)])
    dataset.box, dataset.box_pixel = 8, 3.7
    dataset.exposures["order"] = np.concatenate([np.argsort(np.argsort(dataset.exposures["dose_before"][rows]))
                                                 for rows in (slice(0, 5), slice(5, 9))])
    write_dataset(dataset, tmp_path / "five")
    return tmp_path / "five"


def assert_same(one, two, doses: bool = True) -> None:
    for name in ("position", "rotation"):
        np.testing.assert_allclose(two.particles[name], one.particles[name], atol=1e-8)
    np.testing.assert_array_equal(two.particles["half"], one.particles["half"])
    assert two.particles["name"].tolist() == one.particles["name"].tolist()
    names = ("rotation", "shift", "defocus", "phase_shift", "scale", "dose_before", "enabled")
    for name in names + (("dose",) if doses else ()):
        np.testing.assert_allclose(two.exposures[name], one.exposures[name], atol=1e-7, err_msg=name)
    for name in ("pixel", "voltage", "cs", "amplitude_contrast", "hand", "specimen_size", "images"):
        np.testing.assert_array_equal(two.series[name], one.series[name])
    for row in range(len(one.series)):
        np.testing.assert_array_equal(two.used(row), one.used(row))


@pytest.fixture(autouse=True)
def _folders(tmp_path):
    (tmp_path / "images").mkdir()


def test_relion_5_to_4_and_back(project, tmp_path, capsys) -> None:
    assert main(["convert", str(project), str(tmp_path / "four"), "--to", "relion4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["n_series"], said["n_particles"], said["format"]) == (2, 6, "relion4")
    blocks = read_star(tmp_path / "four" / "tomograms.star")
    assert set(blocks) == {"global", "TS_a", "TS_b"}
    assert blocks["TS_a"].has("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ", "rlnTomoProjW", "rlnCtfScalefactor")
    assert not any(label in blocks["TS_a"] for label in ("rlnTomoYTilt", "rlnMicrographName"))
    assert "rlnTomoTiltSeriesStarFile" not in blocks["global"]
    particles = read_star(tmp_path / "four" / "particles.star")["particles"]
    assert particles.has("rlnCoordinateX", "rlnOriginZAngst")
    assert "rlnCenteredCoordinateXAngst" not in particles
    assert main(["convert", str(tmp_path / "four"), str(tmp_path / "again")]) == 0
    assert_same(read_dataset(project), read_dataset(tmp_path / "again"), doses=False)


def test_relion_5_is_told_of_excluded_views_in_its_own_words(project, tmp_path, capsys) -> None:
    """And RELION 4, which has none, is said to use them."""
    dataset = read_dataset(project)
    assert not dataset.exposures["enabled"].all()
    assert main(["convert", str(project), str(tmp_path / "five again")]) == 0
    frames = read_star(tmp_path / "five again" / "particles.star")["particles"].texts("rlnTomoVisibleFrames")
    for row, text in enumerate(frames):
        series = int(dataset.particles["series"][row])
        shown = dataset.visible[row, : len(dataset.exposures_of(series))]
        used = shown & dataset.exposures["enabled"][dataset.exposures_of(series)]
        assert text == "[" + ",".join("1" if one else "0" for one in used) + "]"
    stars = read_star(tmp_path / "five again" / "tilt_series" / "TS_a.star")["TS_a"].texts("rlnMicrographName")
    assert all(name.endswith(":mrcs") for name in stars)  # or RELION reads the stack as a volume
    capsys.readouterr()
    assert main(["convert", str(project), str(tmp_path / "four"), "--to", "relion4"]) == 0
    assert "excluded tilt images are used by RELION 4" in capsys.readouterr().err


def test_a_map_goes_along_and_says_the_particles_box(small_sample, tmp_path, capsys) -> None:
    volume, pixel = read_map(small_sample / "reference.mrc")
    write_map(tmp_path / "small.mrc", volume[::2, ::2, ::2], 2 * pixel)
    words = ["--map", str(tmp_path / "small.mrc")]
    assert main(["convert", str(small_sample), str(tmp_path / "five"), *words]) == 0
    five = read_dataset(tmp_path / "five")
    assert (five.box, five.box_pixel) == (len(volume) // 2, 2 * pixel)
    np.testing.assert_array_equal(read_map(tmp_path / "five" / "reference.mrc")[0], volume[::2, ::2, ::2])
    assert main(["convert", str(small_sample), str(tmp_path / "pyp"), "--to", "pyp", *words]) == 0
    configuration = (tmp_path / "pyp" / ".pyp_config").read_text()
    for line in ("extract_bin = 2", f"extract_box = {len(volume) // 2}", "csp_model = frealign/maps/pyp_r01_01.mrc"):
        assert line in configuration, configuration
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "pyp"), str(tmp_path / "back"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["map"], said["half_maps"]) == (str(tmp_path / "pyp" / "frealign/maps/pyp_r01_01.mrc"), [])
    assert said["alignments"] == str(tmp_path / "pyp" / "frealign/maps/pyp_r01_01.bz2")
    write_map(tmp_path / "odd.mrc", volume, 1.3 * pixel)
    assert main(["convert", str(small_sample), str(tmp_path / "no"), "--to", "pyp", "--map", str(tmp_path / "odd.mrc")]) == 2
    assert "is no multiple of the images'" in capsys.readouterr().err


def test_a_project_that_has_iterations_is_not_written_over(small_sample, tmp_path, capsys) -> None:
    assert main(["convert", str(small_sample), str(tmp_path / "pyp"), "--to", "pyp"]) == 0
    (tmp_path / "pyp" / "frealign" / "maps" / "pyp_r01_02.bz2").write_bytes(b"later")
    assert main(["convert", str(small_sample), str(tmp_path / "pyp"), "--to", "pyp", "--overwrite"]) == 2
    assert "pyp_r01_02.bz2: is an iteration" in capsys.readouterr().err


def test_relion_4_is_not_given_what_it_cannot_hold(project, tmp_path, capsys) -> None:
    dataset = read_dataset(project)
    dataset.exposures["slice"] = dataset.exposures["slice"][::-1].copy()
    write_dataset(dataset, tmp_path / "turned")
    assert main(["convert", str(tmp_path / "turned"), str(tmp_path / "four"), "--to", "relion4"]) == 2
    assert "one stack with the tilts in the star's order" in capsys.readouterr().err


def test_particles_without_half_sets_get_them_and_those_with_keep_theirs(project, tmp_path) -> None:
    dataset = read_dataset(project)
    dataset.particles["half"] = [2, 2, 2, 1, 1, 1]
    write_dataset(dataset, tmp_path / "kept")
    dataset.particles["half"] = 0
    write_dataset(dataset, tmp_path / "none")
    for name, want in (("kept", [2, 2, 2, 1, 1, 1]), ("none", None)):
        assert main(["convert", str(tmp_path / name), str(tmp_path / f"{name}5")]) == 0
        half = read_dataset(tmp_path / f"{name}5").particles["half"].tolist()
        assert half == want if want else sorted(half) == [1, 1, 1, 2, 2, 2]


def test_a_single_particle_star_there_and_back(project, tmp_path) -> None:
    assert main(["convert", str(project), str(tmp_path / "spa"), "--to", "relion-spa"]) == 0
    star = read_star(tmp_path / "spa" / "particles.star")["particles"]
    assert main(["convert", str(tmp_path / "spa" / "particles.star"), str(tmp_path / "five again")]) == 0
    again = read_dataset(tmp_path / "five again")
    assert len(again.particles) == len(star)
    np.testing.assert_array_equal(np.sort(again.particles["half"]), np.sort(star.integers("rlnRandomSubset")))


@pytest.mark.parametrize("form, place, angle, tilt", [("pyp", 1e-5, 1e-4, 1e-5), ("pyp-parx", 2e-4, 5e-4, 0.006)])
def test_relion_to_pyp_and_back(small_sample, tmp_path, form, place, angle, tilt) -> None:
    """float32 is what a .cistem loses; a .parx keeps 0.01 deg of a tilt angle. Half-sets and every projection's place stay."""
    dataset = read_dataset(small_sample)
    dataset.particles["half"] = np.random.default_rng(4).integers(1, 3, len(dataset.particles))
    dataset.particles["position"] += np.random.default_rng(5).normal(0, 20, (len(dataset.particles), 3))
    dataset.exposures["shift"] += np.random.default_rng(6).normal(0, 9, (len(dataset.exposures), 2))
    write_dataset(dataset, tmp_path / "one")
    assert main(["convert", str(tmp_path / "one"), str(tmp_path / "project"), "--to", form]) == 0
    assert main(["convert", str(tmp_path / "project"), str(tmp_path / "two")]) == 0
    one, two = read_dataset(tmp_path / "one"), read_dataset(tmp_path / "two")
    np.testing.assert_array_equal(two.particles["half"], one.particles["half"])
    np.testing.assert_allclose(two.particles["position"], one.particles["position"], atol=place)
    assert rotation_angle(one.particles["rotation"], two.particles["rotation"]).max() < angle
    assert rotation_angle(one.exposures["rotation"], two.exposures["rotation"]).max() < tilt
    assert (two.box, two.box_pixel) == (one.box, one.box_pixel)
    np.testing.assert_allclose(two.exposures["defocus"], one.exposures["defocus"], atol=0.1)
    np.testing.assert_allclose(two.exposures["dose_before"], one.exposures["dose_before"], atol=1e-6)
    for name in ("pixel", "voltage", "cs", "amplitude_contrast", "hand", "contrast", "specimen_size"):
        np.testing.assert_array_equal(two.series[name], one.series[name], err_msg=name)
    for row in range(len(one.series)):
        (u, depth), (v, other) = one.project(row), two.project(row)
        np.testing.assert_allclose(v, u, atol=0.02)
        np.testing.assert_allclose(other, depth, atol=place + 0.3 * (tilt > 1e-3))
        np.testing.assert_array_equal(two.used(row), one.used(row))
    assert all((tmp_path / "project" / "mrc" / f"{name}.mrc").is_symlink() for name in one.series["name"])


@pytest.mark.parametrize("form", ["pyp", "pyp-parx"])
def test_halves_by_series_survive(small_sample, tmp_path, form) -> None:
    """A series of one half only is no reason to make the halves anew."""
    dataset = read_dataset(small_sample)
    dataset.particles["half"] = np.where(dataset.particles["series"] == 1, 2, 1)
    write_dataset(dataset, tmp_path / "one")
    assert main(["convert", str(tmp_path / "one"), str(tmp_path / "project"), "--to", form]) == 0
    assert main(["convert", str(tmp_path / "project"), str(tmp_path / "two")]) == 0
    np.testing.assert_array_equal(read_dataset(tmp_path / "two").particles["half"], dataset.particles["half"])


@pytest.mark.parametrize("form", ["pyp", "pyp-parx"])
def test_what_pyp_has_no_word_for_is_said(small_sample, tmp_path, capsys, form) -> None:
    dataset = read_dataset(small_sample)
    dataset.exposures["enabled"][[0, 3]] = False
    dataset.visible[5] = False
    write_dataset(dataset, tmp_path / "one")
    assert main(["convert", str(tmp_path / "one"), str(tmp_path / "project"), "--to", form]) == 0
    said = capsys.readouterr().err
    assert "2 excluded tilt images have no projections, but" in said
    assert f"series {dataset.series['name'][dataset.particles['series'][5]]}: no tilt sees 1 of its particles" in said


def test_what_was_assumed_of_a_project_is_said(small_sample, tmp_path, capsys) -> None:
    assert main(["convert", str(small_sample), str(tmp_path / "project"), "--to", "pyp"]) == 0
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "project"), str(tmp_path / "two"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []
    (tmp_path / "project" / "ali" / "TS_01.order").unlink()
    assert main(["convert", str(tmp_path / "project"), str(tmp_path / "three")]) == 2  # the table has the order of before
    assert "mend the order of the tilts" in capsys.readouterr().err
    path = tmp_path / "project" / "frealign" / "maps" / "project_r01_01.bz2"
    tables = read_archive(path)
    for table, _ in tables.values():
        table.columns["BEAM_TILT_Y"][:] = 1.5
    write_archive(path, tables)
    order = "".join(f"{value}\n" for value in read_dataset(small_sample).exposures["order"][:9])
    (tmp_path / "project" / "ali" / "TS_01.order").write_text(order)
    assert main(["convert", str(tmp_path / "project"), str(tmp_path / "three")]) == 0
    assert "series TS_01: its beam tilt (BEAM_TILT_X and Y) is not used" in capsys.readouterr().err


@pytest.mark.slow
def test_a_project_of_pyp_reconstructs_to_the_same_map(small_sample, tmp_path, capsys) -> None:
    """But for the exposures' scale factors, which PYP does not know."""
    assert main(["convert", str(small_sample), str(tmp_path / "project"), "--to", "pyp"]) == 0
    assert "scale factors" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "project"), str(tmp_path / "back")]) == 0
    dataset = read_dataset(small_sample)
    dataset.exposures["scale"] = 1.0
    dataset.assign_halves()
    write_dataset(dataset, tmp_path / "straight")
    for name in ("straight", "back"):
        assert main(["reconstruct", str(tmp_path / name), "--out", str(tmp_path / f"{name} run"), "--no-report",
                     "--processes", "1"]) == 0
    one, two = (read_map(tmp_path / f"{name} run" / "half1.mrc")[0] for name in ("straight", "back"))
    assert np.linalg.norm(one - two) < 1e-3 * np.linalg.norm(one)


def test_tilts_out_of_order_become_a_stack_for_pyp(small_sample, tmp_path, capsys) -> None:
    """The stack's images in another order, and one of them not used."""
    dataset = read_dataset(small_sample)
    first = dataset.exposures_of(0)
    keep = np.ones(len(dataset.exposures), bool)
    keep[first[4]] = False
    dataset.exposures = dataset.exposures.take(keep)
    dataset.visible = dataset.visible.copy()
    dataset.visible[dataset.particles_of(0), -1] = False
    write_dataset(dataset, tmp_path / "one")
    assert main(["convert", str(tmp_path / "one"), str(tmp_path / "project"), "--to", "pyp"]) == 2
    assert "--stacks writes it as one" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "one"), str(tmp_path / "project"), "--to", "pyp", "--stacks", "--overwrite"]) == 0
    name = str(dataset.series["name"][0])
    written = open_stack(tmp_path / "project" / "mrc" / f"{name}.mrc")
    assert written.n == len(first) - 1
    one = read_dataset(tmp_path / "one")
    assert main(["convert", str(tmp_path / "project"), str(tmp_path / "two")]) == 0
    two = read_dataset(tmp_path / "two")
    source = open_stack(str(one.series["images"][0]))
    tilts = np.array([matrix_to_tilt(data.exposures["rotation"][data.exposures_of(0)])[1] for data in (one, two)])
    for row, tilt in enumerate(tilts[1]):
        match = int(np.argmin(np.abs(tilts[0] - tilt)))
        np.testing.assert_array_equal(written.image(int(two.exposures["slice"][two.exposures_of(0)[row]])),
                                      source.image(int(one.exposures["slice"][one.exposures_of(0)[match]])))


def test_what_pyp_cannot_hold_is_refused(project, tmp_path, capsys) -> None:
    assert main(["convert", str(project), str(tmp_path / "out"), "--to", "pyp"]) == 2
    assert "series differ in voltage" in capsys.readouterr().err
    assert main(["convert", str(project), str(tmp_path / "out"), "--alignments", "x.bz2"]) == 2
    assert "is no PYP project" in capsys.readouterr().err


def test_single_particles_are_no_tilt_series_of_pyp(project, tmp_path, capsys) -> None:
    assert main(["convert", str(project), str(tmp_path / "spa"), "--to", "relion-spa", "--stacks"]) == 0
    capsys.readouterr()
    for form in ("pyp", "pyp-parx"):
        assert main(["convert", str(tmp_path / "spa" / "particles.star"), str(tmp_path / "out"), "--to", form, "--stacks"]) == 2
        assert "holds single particles" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["pyp", "pyp-parx"])
def test_a_series_without_particles_goes_along(small_sample, tmp_path, form) -> None:
    dataset = read_dataset(small_sample)
    keep = np.flatnonzero(dataset.particles["series"] != 1)
    dataset.particles, dataset.visible = dataset.particles.take(keep), dataset.visible[keep]
    write_dataset(dataset, tmp_path / "one")
    assert main(["convert", str(tmp_path / "one"), str(tmp_path / "project"), "--to", form]) == 0
    names = dataset.series["name"].tolist()
    assert (tmp_path / "project" / "project.films").read_text().split() == names
    assert (tmp_path / "project" / "ctf" / f"{names[1]}.ctf").exists()
    assert main(["convert", str(tmp_path / "project"), str(tmp_path / "two")]) == 0
    two = read_dataset(tmp_path / "two")
    assert two.series["name"].tolist() == [names[0], names[2]]
    np.testing.assert_allclose(two.particles["position"], dataset.particles["position"], atol=2e-4)


def test_the_dose_before_the_first_exposure_goes_along(small_sample, tmp_path, capsys) -> None:
    dataset = read_dataset(small_sample)
    dataset.exposures["dose_before"] += 5.0
    write_dataset(dataset, tmp_path / "one")
    assert main(["convert", str(tmp_path / "one"), str(tmp_path / "project"), "--to", "pyp"]) == 0
    assert "dose" not in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "project"), str(tmp_path / "two")]) == 0
    two = read_dataset(tmp_path / "two")
    np.testing.assert_allclose(two.exposures["dose_before"], dataset.exposures["dose_before"], atol=1e-6)
    np.testing.assert_allclose(two.exposures["dose"], dataset.exposures["dose"])


@pytest.fixture
def stretched(project, tmp_path):
    """The project with magnifications, and in one series skews and turns as well, as alignments of IMOD have them."""
    dataset, random = read_dataset(project), np.random.default_rng(6)
    dataset.exposures["magnification"] = 1 + 0.01 * random.normal(size=9)
    rows = dataset.exposures_of(0)
    linear = np.eye(2) + 0.01 * random.normal(size=(5, 2, 2))
    magnification, deformation, grid = stretches_to_columns(linear, dataset.series["image_size"][0], PIXEL)
    dataset.exposures["magnification"][rows], dataset.exposures["deformation"][rows] = magnification, deformation
    dataset.series["deformation_grid"][0] = grid
    write_dataset(dataset, tmp_path / "stretched")
    return dataset


def test_relion_4s_matrices_hold_what_is_linear_in_a_stretch(stretched, tmp_path, capsys) -> None:
    """Seen by the matrices themselves, and as they are read here; without the stretch particles are elsewhere."""
    assert main(["convert", str(tmp_path / "stretched"), str(tmp_path / "four"), "--to", "relion4", "--json"]) == 0
    assert "ignores" not in capsys.readouterr().out
    again = read_dataset(tmp_path / "four")
    particles = read_star(tmp_path / "four" / "particles.star")["particles"]
    corner = np.array([particles.floats(f"rlnCoordinate{axis}") for axis in "XYZ"] + [np.ones(6)])
    for series, name in enumerate(("TS_a", "TS_b")):
        u, depth = stretched.project(series)
        block = read_star(tmp_path / "four" / "tomograms.star")[name]
        assert not any(label in block for label in ("csprMagnification", "csprDeformation"))
        matrices = np.stack([block.vectors(f"rlnTomoProj{axis}", 4) for axis in "XYZ"], axis=1)
        seen = np.einsum("eij,jp->pei", matrices, corner[:, stretched.particles_of(series)])
        wanted = u / stretched.series["pixel"][series] + stretched.series["image_size"][series] // 2
        np.testing.assert_allclose(seen[..., :2], wanted, atol=1e-6)
        for found, expected in zip(again.project(series), (u, depth)):
            np.testing.assert_allclose(found, expected, atol=1e-5)
        rigid, _ = geometry(stretched, series)
        assert np.abs(rigid - u).max() > 0.3
    assert again.series["deformation_grid"].tolist() == [2, 0]
    np.testing.assert_allclose(again.exposures["magnification"][5:], stretched.exposures["magnification"][5:], atol=1e-9)


def geometry(dataset, series):
    """Where a series' particles are seen without magnifications and deformations."""
    rows, position = dataset.exposures_of(series), dataset.particles["position"][dataset.particles_of(series)]
    return project_points(dataset.exposures["rotation"][rows], dataset.exposures["shift"][rows], position[:, None])


def test_relion_5_is_said_to_ignore_a_stretch(stretched, tmp_path, capsys) -> None:
    assert main(["convert", str(tmp_path / "stretched"), str(tmp_path / "five"), "--overwrite", "--json"]) == 0
    said = " ".join(json.loads(capsys.readouterr().out)["warnings"])
    away = [np.linalg.norm(geometry(stretched, series)[0] - stretched.project(series)[0], axis=-1) for series in (0, 1)]
    worst = max(one.max() for one in away)
    assert f"looks for particles up to {worst:.2g} A beside where they are seen" in said


def test_relion_4_is_not_given_deformations_that_are_not_linear(stretched, tmp_path, capsys) -> None:
    stretched.exposures["deformation"][2, :8] += [1.5, 0.0, -1.5, 0.0, -1.5, 0.0, 1.5, 0.0]  # x y
    write_dataset(stretched, tmp_path / "bent")
    assert main(["convert", str(tmp_path / "bent"), str(tmp_path / "four"), "--to", "relion4"]) == 2
    assert "and these bend by up to 1.5 A; write RELION 5's form" in capsys.readouterr().err


def test_doses_that_pyp_cannot_hold_are_said(small_sample, tmp_path, capsys) -> None:
    """One exposure after a pause in which the specimen was looked at: 8 e/A^2 more, of which the mean takes a part."""
    dataset = read_dataset(small_sample)
    late = dataset.exposures["order"] >= 6
    dataset.exposures["dose_before"][late] += 8.0
    write_dataset(dataset, tmp_path / "one")
    assert main(["convert", str(tmp_path / "one"), str(tmp_path / "project"), "--to", "pyp", "--json"]) == 0
    said = [line for line in json.loads(capsys.readouterr().out)["warnings"] if "doses before" in line]
    assert len(said) == 1
    assert main(["convert", str(tmp_path / "project"), str(tmp_path / "two")]) == 0
    worst = np.abs(read_dataset(tmp_path / "two").exposures["dose_before"] - dataset.exposures["dose_before"]).max()
    assert f"by up to {worst:.3g} e/A^2" in said[0]


@pytest.mark.parametrize("options, words", [
    (["--stacks"], "needs no other images"), (["--to", "relion-spa", "--box", "0"], None),
])
def test_options_that_do_not_go_together(project, tmp_path, capsys, options, words) -> None:
    code = main(["convert", str(project), str(tmp_path / "out"), *options])
    assert code == (2 if words else 0)
    assert (words or "") in capsys.readouterr().err


def test_nothing_is_overwritten_unasked(project, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert main(["convert", str(project), str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["convert", str(project), str(out), "--overwrite"]) == 0
    assert (out / "mine.txt").read_text() == "mine"
    assert main(["convert", str(project), str(project), "--overwrite"]) == 2
    assert "is where the input lies" in capsys.readouterr().err


def test_a_lost_magnification_is_said(small_sample, tmp_path, capsys) -> None:
    dataset = read_dataset(small_sample)
    dataset.exposures["magnification"][2] = 0.985
    write_dataset(dataset, tmp_path / "small")
    for form, lost in (("relion-spa", True), ("pyp", True), ("relion5", False)):
        capsys.readouterr()
        assert main(["convert", str(tmp_path / "small"), str(tmp_path / form), "--to", form, "--json"]) == 0
        said = " ".join(json.loads(capsys.readouterr().out)["warnings"])
        assert ("magnifications of up to 1.5 % are lost" in said) == lost
    u, v = (read_dataset(tmp_path / name).project(0)[0] for name in ("small", "relion5"))
    np.testing.assert_allclose(u, v, atol=1e-6)
    assert main(["convert", str(tmp_path / "pyp"), str(tmp_path / "again")]) == 0
    np.testing.assert_allclose(read_dataset(tmp_path / "again").project(0)[0], u, atol=0.02)  # PYP's places hold it


def contents(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", ["relion5", "relion4", "relion-spa"])
def test_the_input_is_never_written_over_however_it_is_called(project, tmp_path, monkeypatch, capsys, form) -> None:
    (tmp_path / "link").symlink_to(project)
    (tmp_path / "star").mkdir()
    (tmp_path / "star" / "optimisation_set.star").symlink_to(project / "optimisation_set.star")
    before = contents(project)
    monkeypatch.chdir(project)
    for source, out in ((".", "../five"), (".", "../link"), ("../link", "."), ("../five/../five", "."),
                        ("optimisation_set.star", "../link"), ("../link/optimisation_set.star", "."),
                        ("../star/optimisation_set.star", ".")):
        capsys.readouterr()
        assert main(["convert", source, out, "--to", form, "--overwrite"]) == 2, (source, out)
        assert "is where the input lies" in capsys.readouterr().err
        assert contents(project) == before


def test_stars_that_the_input_names_are_not_written_over(project, tmp_path, capsys) -> None:
    """They lie in the folder above the optimisation set."""
    (project / "sets").mkdir()
    shutil.move(str(project / "optimisation_set.star"), str(project / "sets"))
    before = contents(project)
    for form in ("relion5", "relion4", "relion-spa"):
        assert main(["convert", str(project / "sets"), str(project), "--to", form, "--overwrite"]) == 2
        assert "which this command reads" in capsys.readouterr().err
        assert contents(project) == before


def test_tilt_series_of_a_project_are_not_written_over(small_sample, tmp_path, capsys) -> None:
    """Where they are files of its own; links still lead to the images."""
    dataset = read_dataset(small_sample)
    made = tmp_path / "made" / "mrc"
    made.mkdir(parents=True)
    raw = [str(path) for path in dataset.series["images"]]
    for path in raw:
        shutil.copy(path, made)
    dataset.series.columns["images"] = np.array([str(made / os.path.basename(path)) for path in raw])
    write_dataset(dataset, tmp_path / "one")
    before = contents(made)
    for options in ([], ["--stacks"]):
        assert main(["convert", str(tmp_path / "one"), str(made.parent), "--to", "pyp", "--overwrite", *options]) == 2
        assert "which this command reads" in capsys.readouterr().err
        assert contents(made) == before
    for path in raw:
        (made / os.path.basename(path)).unlink()
        (made / os.path.basename(path)).symlink_to(path)
    assert main(["convert", str(tmp_path / "one"), str(made.parent), "--to", "pyp", "--overwrite"]) == 0
    assert [os.path.realpath(path) for path in sorted(made.iterdir())] == [os.path.realpath(path) for path in sorted(raw)]


def test_a_run_is_not_written_over(project, tmp_path, capsys) -> None:
    for mark, what in (("run.json", "a reconstruction"), ("refine.json", "a refinement")):
        run = tmp_path / mark[:-5]
        run.mkdir()
        (run / mark).write_text("{}")
        assert main(["convert", str(project), str(run), "--overwrite"]) == 2
        assert f"holds {what}" in capsys.readouterr().err
        assert [path.name for path in run.iterdir()] == [mark]
