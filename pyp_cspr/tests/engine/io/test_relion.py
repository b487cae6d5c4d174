"""RELION projects: what is written is read again; the form RELION itself writes means what the conventions say."""

from __future__ import annotations

import os
import shutil
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from pyp_cspr.engine.core.geometry import euler_to_matrix, matrix_to_tilt, rotation_angle
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io import imod
from pyp_cspr.engine.io.mrc import open_stack, write_stack
from pyp_cspr.engine.io.relion import read_dataset, read_tomograms, write_dataset
from pyp_cspr.engine.io.star import StarBlock, read_star, write_star

from .projects import PIXEL, SIZES, TILTS, change, columns_of, differences, drop, edit, make_dataset

# --------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("stacks", [False, True])
def test_round_trip_of_everything(tmp_path, stacks):
    dataset = make_dataset(tmp_path, stacks)
    star = write_dataset(dataset, tmp_path)
    assert differences(dataset, read_dataset(tmp_path)) == []
    again = read_dataset(star)
    assert differences(dataset, again) == []
    assert again.source == star
    write_dataset(again, tmp_path / "copy")
    assert differences(again, read_dataset(tmp_path / "copy")) == []


def test_folder_may_be_moved(tmp_path):
    (tmp_path / "a").mkdir()
    write_dataset(make_dataset(tmp_path / "a"), tmp_path / "a")
    shutil.move(str(tmp_path / "a"), str(tmp_path / "b"))
    moved = read_dataset(tmp_path / "b")
    assert all(str(name).startswith(str(tmp_path / "b")) for name in moved.series["images"])


def test_defaults_are_read_back(tmp_path):
    dataset = make_dataset(tmp_path)
    dataset.particles["score"] = np.nan
    dataset.particles["weight"] = 1.0
    dataset.particles["half"] = 0
    dataset.exposures["enabled"] = True
    dataset.box, dataset.box_pixel, dataset.extra = 0, 0.0, {}
    write_dataset(dataset, tmp_path)
    assert differences(dataset, read_dataset(tmp_path)) == []
    text = (tmp_path / "particles.star").read_text() + (tmp_path / "tilt_series" / "TS_a.star").read_text()
    for label in ("csprScore", "csprWeight", "rlnRandomSubset", "csprEnabled", "rlnImageSize"):
        assert label not in text


def test_names_that_make_bad_file_names(tmp_path):
    dataset = make_dataset(tmp_path)
    dataset.series["name"] = ["../x/1", ".._x_1"]
    write_dataset(dataset, tmp_path)
    assert differences(dataset, read_dataset(tmp_path)) == []
    assert len(list((tmp_path / "tilt_series").iterdir())) == 2


def test_stacks_that_were_never_moved_need_no_columns_of_ours(tmp_path):
    dataset = make_dataset(tmp_path, stacks=True)
    dataset.exposures["extract_rotation"] = dataset.exposures["rotation"]
    dataset.exposures["extract_shift"] = dataset.exposures["shift"]
    write_dataset(dataset, tmp_path)
    assert "csprExtract" not in (tmp_path / "tilt_series" / "TS_a.star").read_text()
    assert differences(dataset, read_dataset(tmp_path)) == []


def test_stacks_keep_their_coordinate_and_put_the_difference_in_the_origin(tmp_path):
    dataset = make_dataset(tmp_path, stacks=True)
    write_dataset(dataset, tmp_path)
    block = read_star(tmp_path / "particles.star")["particles"]
    centred = np.stack([block.floats(f"rlnCenteredCoordinate{axis}Angst") for axis in "XYZ"], axis=-1)
    origin = np.stack([block.floats(f"rlnOrigin{axis}Angst") for axis in "XYZ"], axis=-1)
    np.testing.assert_allclose(centred, dataset.particles["extract_position"], atol=1e-9)
    np.testing.assert_allclose(centred - origin, dataset.particles["position"], atol=1e-9)


def test_several_files_in_a_series(tmp_path):
    dataset = make_dataset(tmp_path)
    files = []
    for row, exposure in enumerate(dataset.exposures_of(0)):
        files.append(str(tmp_path / f"tilt_{row}.mrc"))
        write_stack(files[-1], np.ones((1, SIZES[0][1], SIZES[0][0]), "i2"), PIXEL)
        dataset.exposures["slice"][exposure] = 0
    dataset.exposures["file"] = files + [""] * TILTS[1]
    dataset.series["images"] = ["", dataset.series["images"][1]]
    write_dataset(dataset, tmp_path)
    assert differences(dataset, read_dataset(tmp_path)) == []
    star = tmp_path / "tilt_series" / "TS_a.star"
    star.write_text(star.read_text().replace("000001@", ""))  # RELION writes the name alone
    assert differences(dataset, read_dataset(tmp_path)) == []
    os.unlink(files[2])
    assert differences(dataset, read_dataset(tmp_path, need_images=False)) == []
    with pytest.raises(InputError, match=r"series TS_a: images .*tilt_2.mrc' do not exist"):
        read_dataset(tmp_path)


# --------------------------------------------------------------------------------------- what the written numbers mean


def test_matrices_project_corner_pixels_to_pixels(project):
    """RELION's use of the file: (ProjX..W) (rlnCoordinate, 1) is the pixel where ``Dataset.project`` sees the particle."""
    dataset = read_dataset(project)
    labels, rows = columns_of(project / "particles.star", "particles")
    particles = {label: [row[i] for row in rows] for i, label in enumerate(labels[:10])}
    corner = np.array([particles[f"rlnCoordinate{axis}"] for axis in "XYZ"], float).T
    for series, name in enumerate(("TS_a", "TS_b")):
        tilts = read_star(project / "tilt_series" / f"{name}.star")[name]
        matrices = np.stack([tilts.vectors(f"rlnTomoProj{axis}", 4) for axis in "XYZW"], axis=1)
        mine = np.array(particles["rlnTomoName"]) == name
        homogeneous = np.concatenate([corner[mine], np.ones((mine.sum(), 1))], axis=1)
        seen = np.einsum("eij,pj->pei", matrices, homogeneous)
        u, depth = dataset.project(series)
        np.testing.assert_allclose(seen[..., :2], u / PIXEL + np.array(SIZES[series]) // 2, atol=1e-7)
        centre = np.append(dataset.series["specimen_size"][series] / 2.0, 1.0)
        np.testing.assert_allclose((seen - matrices @ centre)[..., 2] * PIXEL, depth, atol=1e-6)  # RELION's getDepthOffset
        np.testing.assert_array_equal(seen[..., 3], 1)


def test_matrices_and_angles_say_the_same(project):
    whole = read_dataset(project)
    for name in ("TS_a", "TS_b"):
        labels = ["rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst"]
        drop(project / "tilt_series" / f"{name}.star", name, *labels)
    assert differences(whole, read_dataset(project)) == []


def test_angles_are_relions(project):
    """Against the formula written out: Rx first, then Ry, then Rz; shift from size / 2, half pixels not rounded."""
    tilts = read_star(project / "tilt_series" / "TS_b.star")["TS_b"]
    x, y, z = (np.deg2rad(tilts.floats(label)) for label in ("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot"))
    shift = np.stack([tilts.floats("rlnTomoXShiftAngst"), tilts.floats("rlnTomoYShiftAngst")], axis=-1)
    dataset = read_dataset(project)
    for i, exposure in enumerate(dataset.exposures_of(1)):
        rx = np.array([[1, 0, 0], [0, np.cos(x[i]), -np.sin(x[i])], [0, np.sin(x[i]), np.cos(x[i])]])
        ry = np.array([[np.cos(y[i]), 0, np.sin(y[i])], [0, 1, 0], [-np.sin(y[i]), 0, np.cos(y[i])]])
        rz = np.array([[np.cos(z[i]), -np.sin(z[i]), 0], [np.sin(z[i]), np.cos(z[i]), 0], [0, 0, 1]])
        np.testing.assert_allclose(dataset.exposures["rotation"][exposure], rz @ ry @ rx, atol=1e-9)
        np.testing.assert_allclose(dataset.exposures["shift"][exposure], shift[i] + 0.5 * PIXEL, atol=1e-8)  # both axes odd


def test_both_forms_of_coordinates(project):
    whole = read_dataset(project)
    star = project / "particles.star"
    block = read_star(star)["particles"]
    corner = np.stack([block.floats(f"rlnCoordinate{axis}") for axis in "XYZ"], axis=-1)
    size = whole.series["specimen_size"][whole.particles["series"]]
    np.testing.assert_allclose((corner - size / 2) * PIXEL, whole.particles["position"], atol=1e-8)
    drop(star, "particles", "rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")
    assert differences(whole, read_dataset(project)) == []
    drop(project / "tomograms.star", "global", "rlnTomoSizeZ")
    with pytest.raises(InputError, match="need the tomogram's size"):
        read_dataset(project)


def test_subtomogram_angles_turn_poses_and_origins(project):
    star = project / "particles.star"
    blocks = read_star(star)
    particles = blocks["particles"]
    before = read_dataset(project)
    angles = (31.0, 47.0, -83.0)
    for label, angle in zip(("Rot", "Tilt", "Psi"), angles):
        particles.columns[f"rlnTomoSubtomogram{label}"] = [str(angle)] * len(particles)
    for axis, value in zip("XYZ", (4.0, -5.0, 6.0)):
        particles.columns[f"rlnOrigin{axis}Angst"] = [str(value)] * len(particles)
    write_star(star, blocks)
    after = read_dataset(project)
    outer = euler_to_matrix(*angles)
    np.testing.assert_allclose(after.particles["rotation"], outer @ before.particles["rotation"], atol=1e-9)
    moved = before.particles["position"] - outer @ np.array([4.0, -5.0, 6.0])
    np.testing.assert_allclose(after.particles["position"], moved, atol=1e-9)
    assert not any("Subtomogram" in name for name in after.extra)


def test_doses_and_order_are_worked_out(project):
    star = project / "tilt_series" / "TS_a.star"
    drop(star, "TS_a", "rlnTomoImportFractionalDose", "rlnTomoTiltMovieIndex")
    blocks = read_star(star)
    blocks["TS_a"].columns["rlnMicrographPreExposure"] = ["6", "2.5", "0", "9", "12.5"]
    write_star(star, blocks)
    exposures = read_dataset(project).exposures
    assert exposures["order"][:5].tolist() == [2, 1, 0, 3, 4]
    np.testing.assert_allclose(exposures["dose"][:5], [3, 3.5, 2.5, 3.5, np.median([2.5, 3.5, 3, 3.5])])


def test_relion_4_form(project):
    """One block per tomogram in tomograms.star, one stack, matrices only."""
    whole = read_dataset(project)
    blocks = read_star(project / "tomograms.star")
    table = blocks["global"]
    del table.columns["rlnTomoTiltSeriesStarFile"]
    table.columns["rlnTomoTiltSeriesName"] = ["cut 0.mrc:mrc", "cut 1.mrc:mrcs"]
    for row, name in enumerate(table.texts("rlnTomoName")):
        tilts = read_star(project / "tilt_series" / f"{name}.star")[name]
        for label in [c for c in tilts.columns if c == "rlnMicrographName" or "Tilt" in c or "ZRot" in c or "Shift" in c]:
            if label != "rlnPhaseShift":
                del tilts.columns[label]
        blocks[name] = tilts
        write_stack(project / f"cut {row}.mrc", open_stack(whole.series["images"][row]).data[1:], PIXEL)
    write_star(project / "tomograms.star", blocks)
    assert set(differences(whole, read_dataset(project))) == {"series.images", "exposures.slice", "exposures.order"}


def test_imod_geometry_beside_the_stack(project):
    whole = read_dataset(project)
    for row, name in enumerate(("TS_a", "TS_b")):
        tilts = read_star(project / "tilt_series" / f"{name}.star")[name]
        geometry = [c for c in tilts.columns if c.startswith(("rlnTomoProj", "rlnTomoXS", "rlnTomoYS"))]
        drop(project / "tilt_series" / f"{name}.star", name, *geometry, "rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot")
        exposures = whole.exposures.take(whole.exposures_of(row))
        rotation = np.concatenate([np.eye(3)[None], exposures["rotation"]])  # the stacks have an image more than the stars
        shift = np.concatenate([np.zeros((1, 2)), exposures["shift"]])
        if row == 0:
            with pytest.raises(InputError, match="no geometry"):
                read_dataset(project)
        imod.write_alignment(os.path.splitext(whole.series["images"][row])[0], rotation, shift, PIXEL)
    (project / "tilt.com").write_text("$tilt -StandardInput\nEXCLUDELIST 3\n")
    again = read_dataset(project)
    assert differences(whole, again, 1e-6) == ["exposures.enabled"]
    expected = whole.exposures["enabled"].copy()
    expected[[1, TILTS[0] + 1]] = False  # view 3 of the stack is slice 2, the second tilt of either star
    np.testing.assert_array_equal(again.exposures["enabled"], expected)


def test_raw_images_of_particles_with_stacks(tmp_path):
    dataset = make_dataset(tmp_path, stacks=True)
    write_dataset(dataset, tmp_path)
    raw = read_dataset(tmp_path, need_images=False, images="raw")
    assert not raw.is_stacks(0)
    assert (raw.particles["stack"] == "").all()
    with pytest.raises(InputError, match="do not exist"):
        read_dataset(tmp_path, images="raw")
    edit(tmp_path / "particles.star", "rlnTomoSubTomosAre2DStacks 1", "rlnTomoSubTomosAre2DStacks 0")
    with pytest.raises(InputError, match="no extracted 2D stacks"):
        read_dataset(tmp_path, images="stacks")
    with pytest.raises(ValueError, match="images 'all'"):
        read_dataset(tmp_path, images="all")


# ------------------------------------------------------------------------------------------------------------ real files


def test_relion_5_project_of_empiar_10164(shared_data):
    star = shared_data / "metadata" / "relion5_tomo_project" / "tilt_series_metadata" / "tilt_series.star"
    series, exposures = read_tomograms(star)
    assert series["name"].tolist() == [f"220728_TS_{n}" for n in ("01", "03", "43", "45", "54")]
    assert (series["image_size"] == (3710, 3838)).all()  # the K2's: no image is there, so matrices and shifts gave it
    assert (series["pixel"] == 1.35).all()
    assert len(exposures) == 205
    for row, name in enumerate(series["name"]):
        tilts = read_star(star.parent / "tilt_series" / f"{name}.star")[name]
        matrices = np.stack([tilts.vectors(f"rlnTomoProj{axis}", 4) for axis in "XYZ"], axis=1)
        rows = exposures["series"] == row
        rotation, shift = exposures["rotation"][rows], exposures["shift"][rows]
        assert rotation_angle(rotation, matrices[:, :, :3]).max() < 1e-4
        corner = matrices[:, :2, 3] + matrices[:, :2, :3] @ (series["specimen_size"][row] / 2)
        np.testing.assert_allclose(corner - series["image_size"][row] / 2, shift / 1.35, atol=2e-3)
        assert sorted(exposures["order"][rows]) == list(range(41))
        np.testing.assert_allclose(exposures["dose"][rows], 3.0, atol=1e-6)
    with pytest.raises(InputError, match="do not exist"):
        read_tomograms(star, need_images=True)


def test_real_stacks_of_empiar_10499(shared_data, tmp_path):
    dataset = read_dataset(shared_data / "real" / "empiar10499")
    assert (len(dataset.series), len(dataset.exposures), len(dataset.particles)) == (2, 74, 20)
    assert (dataset.box, dataset.box_pixel) == (32, 12.0)
    assert dataset.series["premultiplied"].all()
    assert (dataset.series["contrast"] == 1).all()
    assert (dataset.series["image_size"] == 0).all()
    assert dataset.visible[:10].all()
    assert dataset.visible[10].sum() == 35
    assert (dataset.particles["half"] == 0).all()
    assert rotation_angle(dataset.exposures["rotation"], dataset.exposures["extract_rotation"]).max() == 0
    assert dataset.exposures["dose_before"].max() == 92.019
    assert dataset.exposures["defocus"][0].tolist() == [32793.0, 26846.7, 35.02]
    np.testing.assert_allclose(dataset.exposures["dose"], 2.556)
    # WarpTools counts rlnCoordinate in pixels of the stacks, 12 A: in pixels of the tilt series all particles would lie in a
    # corner of the slab of 2,334 A.
    np.testing.assert_allclose(
        dataset.particles["position"][0], np.array([508.142, 86.278, 27.755]) * 12 - np.array([4400, 6000, 1400]) * 1.667 / 2
    )
    assert np.abs(dataset.particles["position"]).max(axis=0)[2] < 1.667 * 1400 / 2
    assert np.ptp(dataset.particles["position"][:, 2]) > 1500
    write_dataset(dataset, tmp_path)
    assert differences(dataset, read_dataset(tmp_path)) == []


def test_warps_dummy_tilt_series_is_ignored(shared_data, tmp_path):
    """WarpTools writes a 2 x 2 x 2 file beside its stars and names it as the tilt series."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("particles.star", "tomograms.star", "optimisation_set.star", "stacks"):
        os.symlink(shared_data / "real" / "empiar10499" / name, folder / name)
    write_stack(folder / "dummy_tiltseries.mrc", np.zeros((2, 2, 2), "f2"), 1.0)
    dataset = read_dataset(folder)
    assert (dataset.series["images"] == "").all()
    assert (dataset.series["image_size"] == 0).all()
    assert [
        name for name in differences(read_dataset(shared_data / "real" / "empiar10499"), dataset) if "stack" not in name
    ] == []
    with pytest.raises(InputError, match=r"2 images, the star of series Unt_050\.tomostar wants 37"):
        read_dataset(folder, images="raw")


def test_warp_and_imod_say_the_same(shared_data):
    """WarpTools' import of an .xf and .tlt: the offsets of its XML are b_e (angstrom), its axis angle is our zrot."""
    folder = shared_data / "metadata" / "warp_xf_import"
    alignment = imod.read_alignment(folder / "00254.mrc")
    rotation, shift = alignment.geometry(10.0)
    root = ElementTree.fromstring((folder / "00254.xml").read_text("utf-8-sig"))

    def numbers(tag: str) -> np.ndarray:
        return np.array(root.find(tag).text.split(), float)

    offset = np.stack([numbers("AxisOffsetX"), numbers("AxisOffsetY")], axis=-1)
    np.testing.assert_allclose(alignment.tilt, numbers("Angles"), atol=0.006)
    _, tilt, zrot = matrix_to_tilt(rotation)
    np.testing.assert_allclose(zrot, numbers("AxisAngle"), atol=1e-3)
    np.testing.assert_allclose(tilt, numbers("Angles"), atol=0.006)
    np.testing.assert_allclose(shift, offset, atol=0.02)


def test_a_particle_costs_few_calls(tmp_path):
    """Data sets have 100,000 particles: reading one more calls a handful of Python functions more, whatever the machine."""
    calls = []
    for count in (1_000, 3_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        write_dataset(make_dataset(folder, particles=count), folder)
        calls.append(0)

        def look(frame, event, arg) -> None:
            calls[-1] += event == "call"

        sys.setprofile(look)
        try:
            again = read_dataset(folder)
        finally:
            sys.setprofile(None)
        assert len(again.particles) == count
    assert calls[1] - calls[0] < 10 * 2_000


def test_what_relion_leaves_out(project):
    """Particles without names are numbered within their series; without visible frames all tilts see them; without a
    data_general block the optics group says what the images are; without optics groups there is no box."""
    drop(project / "particles.star", "particles", "rlnTomoParticleName", "rlnTomoVisibleFrames", "rlnOpticsGroup")
    drop(project / "particles.star", "optics", "rlnOpticsGroup", "rlnVoltage")
    blocks = read_star(project / "particles.star")
    write_star(project / "particles.star", {name: blocks[name] for name in ("optics", "particles")})
    dataset = read_dataset(project)
    assert dataset.particles["name"].tolist() == ["TS_a/1", "TS_a/2", "TS_a/3", "TS_b/1", "TS_b/2", "TS_b/3"]
    assert dataset.visible.sum(axis=1).tolist() == [5, 5, 5, 4, 4, 4]
    assert dataset.box == 32
    write_star(project / "particles.star", {"particles": blocks["particles"]})
    assert read_dataset(project).box == 0
    assert not read_dataset(project).is_stacks(0)


def test_empty_and_negative_optics(project):
    change(project / "particles.star", "optics", "rlnImageSize", 0, "-4")
    change(project / "particles.star", "optics", "rlnImageSize", 1, "-4")
    with pytest.raises(InputError, match="rlnImageSize -4"):
        read_dataset(project)
    blocks = read_star(project / "particles.star")
    blocks["optics"].columns = {label: [] for label in blocks["optics"].columns}
    write_star(project / "particles.star", blocks)
    with pytest.raises(InputError, match="data_optics is empty"):
        read_dataset(project)


def test_unknown_block_names_are_found_by_their_columns(project):
    edit(project / "particles.star", "data_particles", "data_images")
    edit(project / "tomograms.star", "data_global", "data_tomograms")
    edit(project / "tilt_series" / "TS_a.star", "data_TS_a", "data_other")
    assert len(read_dataset(project).particles) == 6
    write_star(project / "particles.star", {"x": StarBlock(columns={"rlnVoltage": ["1"]})})
    with pytest.raises(InputError, match="another kind of STAR"):
        read_dataset(project)
