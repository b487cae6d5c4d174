"""`cspr convert`: the ways between the forms, and what is refused. Half-sets survive."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.io.star import read_star
from pyp_cspr.tests.engine.io.projects import make_dataset


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
    np.testing.assert_array_equal(two.visible, one.visible)


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


@pytest.mark.parametrize("options, words", [
    (["--stacks"], "needs no particle images"), (["--to", "relion-spa", "--box", "0"], None),
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
