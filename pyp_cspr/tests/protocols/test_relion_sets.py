"""RELION 5 particles as a set of reliontomo. Oracles: its reader and writer, and our engine's reader of RELION's stars."""

from __future__ import annotations

import os

import numpy as np
import pytest
from emtable import Table

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.io.star import read_star
from pyp_cspr.protocols.adapters import from_sets, relion_sets, to_sets

from .relion_sets import read_set, reliontomo, write_input
from .sets import make_sets

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """(sets, star of the input, its set)."""
    reliontomo()
    folder = tmp_path_factory.mktemp("relion")
    made = make_sets(folder / "sets", magnified=False)
    star = write_input(folder / "stars", made)
    return made, star, read_set(folder / "set", star, made)


@pytest.fixture
def conversion(given):
    made, _, particles = given
    return from_sets.read_sets(particles, made.tilt_series, made.ctfs)


@pytest.fixture
def refined(given, conversion, tmp_path, monkeypatch, random):
    """(refined data set, set made of it): all poses and the geometry changed, one particle removed."""
    _, _, particles = given
    monkeypatch.chdir(tmp_path)  # the project's folder
    result = read_dataset(write_dataset(conversion.dataset, tmp_path / "run")).select_particles([0, 1, 3, 4, 5, 6, 7])
    result.particles["position"] = result.particles["position"] + random.normal(size=(7, 3)) * 9.0
    turn = np.linalg.qr(random.normal(size=(7, 3, 3)))[0]
    result.particles["rotation"] = turn * np.linalg.det(turn)[:, None, None]
    result.particles["half"] = [2, 1, 2, 1, 1, 2, 2]
    result.particles["score"] = np.arange(7) * 5.0
    result.exposures["shift"] = result.exposures["shift"] + 11.0
    os.makedirs("extra")
    filled = type(particles)(filename=str(tmp_path / "filled.sqlite"))
    to_sets.fill_particles(filled, particles, conversion, result)
    to_sets.attach_stars(filled, particles, "extra/relion", conversion, result)
    filled.write()
    return result, filled


def test_poses_are_those_that_the_engine_reads_from_the_stars(given, conversion) -> None:
    _, star, _ = given
    wanted = read_dataset(star)
    dataset = conversion.dataset
    assert len(dataset.particles) == 8
    np.testing.assert_allclose(dataset.particles["position"], wanted.particles["position"], atol=1e-4)
    np.testing.assert_allclose(dataset.particles["rotation"], wanted.particles["rotation"], atol=1e-6)
    assert dataset.particles["half"].tolist() == wanted.particles["half"].tolist() == [1, 1, 2, 2, 1, 1, 2, 2]
    # RELION's stars have 4 of 5 images: the other one is excluded
    used = dataset.exposures["enabled"][:5]
    np.testing.assert_array_equal(dataset.visible[:, used], wanted.visible)
    enabled = dataset.exposures["enabled"]
    for name in ("rotation", "shift", "defocus", "dose_before"):
        found = dataset.exposures[name][enabled]
        np.testing.assert_allclose(found, wanted.exposures[name], rtol=1e-6, atol=1e-6, err_msg=name)
    assert (dataset.box, dataset.box_pixel) == (16, 5.4)
    assert conversion.notes == []


def test_the_set_has_the_refined_poses_and_keeps_the_frame_of_the_images(given, refined, conversion) -> None:
    made, _, particles = given
    result, filled = refined
    assert type(filled) is type(particles)
    assert filled.getSize() == filled.getNReParticles() == 7
    assert (filled.getTsSamplingRate(), filled.getRelionBinning(), filled.getSamplingRate()) == (2.7, 2.0, 5.4)
    again = from_sets.read_sets(filled, made.tilt_series, made.ctfs).dataset
    for name in ("position", "rotation", "half", "score"):
        np.testing.assert_allclose(again.particles[name], result.particles[name], atol=1e-6, err_msg=name)
    before = {item.getObjId(): item.clone() for item in particles.iterItems()}
    for item in filled.iterItems():
        old = before[item.getObjId()]
        assert item.getRelionParticleName() == old.getRelionParticleName()
        assert item.getFileName() == old.getFileName()
        assert (item.getXInImg(), item.getYInImg(), item.getZInImg()) == (old.getXInImg(), old.getYInImg(), old.getZInImg())
        np.testing.assert_allclose(item.getTransform().getMatrix()[:3, :3], old.getTransform().getMatrix()[:3, :3], atol=1e-9)


def test_the_stars_of_the_set_hold_the_refined_data(refined) -> None:
    result, filled = refined
    assert filled.filesMaster == "extra/relion/optimisation_set.star"
    assert filled.getParticlesStar() == "extra/relion/particles.star"
    stars = read_dataset(filled.filesMaster)
    for name in ("position", "rotation", "half", "score"):
        np.testing.assert_allclose(stars.particles[name], result.particles[name], atol=1e-5, err_msg=name)
    used = result.exposures["enabled"]
    for name in ("rotation", "shift", "defocus", "dose_before"):
        np.testing.assert_allclose(stars.exposures[name], result.exposures[name][used], atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(stars.visible, result.visible[:, used[:5]])


def test_reliontomo_reads_the_same_set_from_the_stars(given, refined, tmp_path) -> None:
    made, _, _ = given
    _, filled = refined
    again = read_set(tmp_path / "again", filled.filesMaster, made)
    items = [item.clone() for item in again.iterItems()]
    assert len(items) == 7
    for one, other in zip(filled.iterItems(), items):
        np.testing.assert_allclose(other.getTransform().getMatrix(), one.getTransform().getMatrix(), atol=1e-6)
        for name in ("Rot", "Tilt", "Psi", "X", "Y", "Z", "XInImg", "RdnSubset", "VisibleFrames", "RelionParticleName", "TsId"):
            ours, theirs = getattr(one, f"get{name}")(), getattr(other, f"get{name}")()
            assert theirs == (pytest.approx(ours, abs=1e-6) if isinstance(ours, float) else ours), name


def test_reliontomo_writes_the_same_stars_from_the_set(refined, tmp_path) -> None:
    _, convert = reliontomo()
    _, filled = refined
    (tmp_path / "theirs").mkdir()
    for item in filled.iterItems():
        assert item.getVisibleFrames()
    convert.Writer().pseudoSubtomograms2Star(filled, str(tmp_path / "theirs"), are2dParticles=False)
    written = next((tmp_path / "theirs").glob("*.star"))
    ours, theirs = (Table(fileName=str(path), tableName="particles") for path in (filled.getParticlesStar(), written))
    shared = set(ours.getColumnNames()) & set(theirs.getColumnNames())
    assert {"rlnTomoName", "rlnTomoSubtomogramRot", "rlnAngleRot", "rlnOriginXAngst", "rlnCenteredCoordinateXAngst",
            "rlnRandomSubset", "rlnImageName", "rlnCtfImage", "sciXCoord", "rlnOpticsGroup"} <= shared
    for one, other in zip(ours, theirs):
        for label in shared:
            a, b = getattr(one, label), getattr(other, label)
            assert b == (pytest.approx(a, abs=1e-4) if isinstance(a, float) else a), label


def test_projection_matrices_are_those_that_reliontomo_makes_of_its_stars(given, conversion, tmp_path) -> None:
    """Theirs act on centred coordinates, RELION's on those from the tomogram's corner."""
    _, convert = reliontomo()
    made, star, _ = given
    write_dataset(conversion.dataset, tmp_path)
    tomograms = {item.getTsId(): item.clone() for item in made.tomograms.iterItems()}
    for series, item in enumerate([one.clone(ignoreAttrs=[]) for one in made.tilt_series.iterItems()]):
        name = item.getTsId()
        matrices, places = convert.getProjMatrixList(str(star.parent / f"{name}.star"), tomograms[name], item)
        tilts = read_star(tmp_path / "tilt_series" / f"{name}.star")[name]
        half = conversion.dataset.series["specimen_size"][series] / 2.0
        assert len(places) == 4
        for matrix, place in zip(matrices, places):
            ours = np.stack([tilts.vectors(label, 4)[place - 1] for label in ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ")])
            np.testing.assert_allclose(ours[:, :3], matrix[:3, :3], atol=1e-6)
            np.testing.assert_allclose(ours[:, 3] + ours[:, :3] @ half, matrix[:3, 3], atol=1e-5)


def test_what_cannot_be_read_is_refused(given) -> None:
    made, _, particles = given
    assert relion_sets.refusal(particles) == ""
    particles.setAreRe5Particles(False)
    try:
        with pytest.raises(InputError, match="of RELION 4"):
            from_sets.read_sets(particles, made.tilt_series, made.ctfs)
    finally:
        particles.setAreRe5Particles(True)


def test_frames_of_another_number_of_images_are_said(given, tmp_path) -> None:
    _, _, particles = given
    series = make_sets(tmp_path / "other", magnified=False, excluded=())
    conversion = from_sets.read_sets(particles, series.tilt_series, series.ctfs)
    assert conversion.dataset.visible.all()
    assert "8 particles list visible frames of another number" in conversion.notes[0]
    filled = type(particles)(filename=str(tmp_path / "filled.sqlite"))
    to_sets.fill_particles(filled, particles, conversion, conversion.dataset)
    assert {item.getVisibleFrames() for item in filled.iterItems()} == {"[1,1,1,1,1]"}  # of the refined stars
