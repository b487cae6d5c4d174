"""Sets to the engine's data set and back. Oracles: the host's own projection, transforms and matrix conversions."""

from __future__ import annotations

import numpy as np
import pytest
from pwem.emlib.image import ImageHandler
from pwem.objects import SetOfFSCs, Transform
from tomo.constants import BOTTOM_LEFT_CORNER, SCIPION
from tomo.objects import CTFTomoSeries, SetOfCoordinates3D, SetOfCTFTomoSeries, SetOfSubTomograms, SetOfTiltSeries, TiltSeries
from tomo.protocols.protocol_project_coordinates import ProtProjectCoordinates

from pyp_cspr.engine.core.geometry import euler_to_matrix
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.model.stretches import columns_to_stretches
from pyp_cspr.engine.model.tables import Dataset
from pyp_cspr.protocols.adapters import from_sets, to_sets
from pyp_cspr.protocols.adapters.checks import look_at_images

from .sets import change, make_sets

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", params=[
    {"size": (400, 320), "spread": 10.0},  # everything in another sampling rate; matrices with magnifications and skews
    {"magnified": False},
    {"pixel": 8.0, "coordinate_pixel": 8.0, "sub_pixel": 8.0, "size": (33, 49), "first_order": 0, "magnified": False},
], ids=["magnified", "binned", "unbinned"])
def made(request, tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp("sets"), **request.param)


@pytest.fixture(scope="module")
def conversion(made):
    return from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)


def values(table, ignored=()):
    return {name: column for name, column in table.columns.items() if name not in ignored}


def test_series_and_exposures_hold_the_sets_numbers(made, conversion) -> None:
    dataset = conversion.dataset
    assert dataset.series["name"].tolist() == ["TS_1", "TS_2"]
    assert dataset.series["voltage"].tolist() == [200.0, 200.0]
    assert dataset.series["cs"].tolist() == [1.9, 1.9]
    assert dataset.series["amplitude_contrast"].tolist() == [0.11, 0.11]
    assert dataset.series["contrast"].tolist() == [-1.0, -1.0]
    images = [(ts.getTsId(), image.clone()) for ts in made.tilt_series.iterItems() for image in ts.iterItems()]
    ctfs = SetOfCTFTomoSeries(filename=made.ctfs.getFileName())
    ctfs.setSetOfTiltSeries(made.tilt_series)
    assert len(images) == len(dataset.exposures) == 10
    for row, (name, image) in enumerate(images):
        exposures = dataset.exposures
        assert exposures["slice"][row] == image.getIndex() - 1
        assert exposures["enabled"][row] == image.isEnabled() == (image.getIndex() != 4)
        assert exposures["dose_before"][row] == pytest.approx(image.getAcquisition().getDoseInitial(), abs=1e-9)
        assert exposures["dose"][row] == pytest.approx(3.3, abs=1e-9)
        estimate = next(x for x in ctfs.iterItems() if x.getTsId() == name).getCtfTomoFromTi(image, onlyEnabled=False)
        assert estimate.getIndex() == image.getIndex()
        wanted = (estimate.getDefocusU(), estimate.getDefocusV(), estimate.getDefocusAngle())
        np.testing.assert_allclose(exposures["defocus"][row], wanted, atol=1e-9)
        assert exposures["phase_shift"][row] == pytest.approx(estimate.getPhaseShift(), abs=1e-9)
        assert exposures["scale"][row] == pytest.approx(np.cos(np.deg2rad(image.getTiltAngle())), abs=1e-9)
    assert sorted(dataset.exposures["order"][:5]) == list(range(5))
    assert conversion.notes == []


def test_projections_are_where_the_host_projects_them(made, conversion) -> None:
    """tomo's own protocol is the oracle, fed with coordinates to which the sub-tomograms' shifts were added."""
    dataset = conversion.dataset
    pixel = made.tilt_series.getSamplingRate()
    oracle = ProtProjectCoordinates()
    for series, item in enumerate(made.tilt_series.iterItems()):
        u, _ = dataset.project(series)
        for column, image in enumerate(item.iterItems()):
            for row, particle in enumerate(dataset.particles_of(series)):
                shift = np.linalg.inv(made.transforms[particle])[:3, 3]
                centre = made.coordinates.getSamplingRate() * made.places[particle] + made.particles.getSamplingRate() * shift
                host = oracle._projectCoordinate(image, np.append(centre / pixel, 1.0))[:2]
                np.testing.assert_allclose(u[row, column] / pixel, host, atol=1e-6)


def project_as_host(made, item, dataset):
    """Where tomo projects the particles of a data set, ``(particles, images, 2)`` in pixels from the image's centre."""
    positions = dataset.particles["position"][dataset.particles_of(dataset.series["name"].tolist().index(item.getTsId()))]
    pixel, oracle = made.tilt_series.getSamplingRate(), ProtProjectCoordinates()
    images = [image.clone() for image in item.iterItems()]
    return np.array([[oracle._projectCoordinate(image, np.append(place / pixel, 1.0))[:2] for image in images]
                     for place in positions])


def test_a_magnification_moves_particles_far_from_the_centre_as_in_the_host(tmp_path) -> None:
    """Particles at 180 nm in images of 800 nm, matrices times 1.005: without it they would be off by more than 10 A."""
    made = make_sets(tmp_path / "sets", names=("TS_1",), size=(1000, 1000), tilts=3, pixel=8.0, coordinate_pixel=8.0,
                     magnified=False, excluded=(), per_series=3)
    rigid = from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)
    assert (rigid.dataset.exposures["magnification"] == 1).all()
    assert not rigid.dataset.series["deformation_grid"].any()
    item = made.tilt_series.getFirstItem()
    for image in [one.clone() for one in item.iterItems()]:
        matrix = image.getTransform().getMatrix()
        matrix[:2, :2] *= 1.005
        image.setTransform(Transform(matrix))
        item.update(image)
    item.write()
    conversion = from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)
    dataset = conversion.dataset
    np.testing.assert_allclose(dataset.exposures["magnification"], 1 / 1.005, atol=1e-9)
    assert not dataset.series["deformation_grid"].any()
    for one in (dataset, rigid.dataset):
        one.particles["position"][:] = [[1800.0, 1800.0, 0.0], [-1800.0, 1700.0, 100.0], [0.0, -1800.0, -300.0]]
    wanted = project_as_host(made, made.tilt_series.getFirstItem(), dataset)
    np.testing.assert_allclose(dataset.project(0)[0] / 8.0, wanted, atol=1e-6)
    assert np.linalg.norm(rigid.dataset.project(0)[0] - 8.0 * wanted, axis=-1).max() > 10.0


@pytest.mark.parametrize("refined", ["nothing", "rigid", "magnification", "deformation"])
def test_the_host_projects_onto_the_set_that_is_written_as_the_engine_does(tmp_path, random, refined) -> None:
    """A refined magnification, and what is linear in a deformation, is in the matrices as well."""
    made = make_sets(tmp_path / "sets", size=(400, 320), spread=10.0, excluded=())
    conversion = from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)
    assert conversion.dataset.series["deformation_grid"].tolist() == [2, 2]
    result = read_dataset(write_dataset(conversion.dataset, tmp_path / "stars"))
    if refined != "nothing":
        result.exposures["shift"] = result.exposures["shift"] + random.normal(size=result.exposures["shift"].shape) * 5.0
        result.exposures["rotation"] = euler_to_matrix(2.0, 0.0, 0.0) @ result.exposures["rotation"]
    if refined == "magnification":
        result.exposures["magnification"] = result.exposures["magnification"] + 0.01 * random.normal(size=10)
    if refined == "deformation":  # a turn and a stretch in x, which a field of 3 values to a side has exactly as well
        result.series["deformation_grid"] = [3, 3]
        across = np.linspace(-0.5, 0.5, 3)
        x, y = (axis.ravel() for axis in np.meshgrid(across, across))
        result.exposures["deformation"][:, :18] = np.stack([4.0 * x + 3.0 * y, -2.0 * x], axis=-1).ravel()
    series = SetOfTiltSeries(filename=str(tmp_path / "series.sqlite"))
    assert to_sets.fill_tilt_series(series, made.tilt_series, conversion, result) == []
    for number, item in enumerate([one.clone(ignoreAttrs=[]) for one in series.iterItems()]):
        found = result.project(number)[0] / made.tilt_series.getSamplingRate()
        np.testing.assert_allclose(found, project_as_host(made, item, result), atol=1e-5)


def test_relion_4_sees_particles_where_the_host_does(made, conversion, tmp_path) -> None:
    """The magnifications and skews of the sets' matrices are in RELION 4's."""
    again = read_dataset(write_dataset(conversion.dataset, tmp_path / "four", 4))
    for number, item in enumerate([one.clone(ignoreAttrs=[]) for one in made.tilt_series.iterItems()]):
        found = again.project(number)[0] / made.tilt_series.getSamplingRate()
        np.testing.assert_allclose(found, project_as_host(made, item, conversion.dataset), atol=1e-5)


def test_what_is_not_linear_in_a_deformation_is_told(made, conversion) -> None:
    dataset = read_dataset_copy(conversion.dataset)
    assert columns_to_stretches(dataset)[1] < 1e-9
    dataset.series["deformation_grid"] = [2, 2]
    dataset.exposures["deformation"][2, :8] += [1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0, 0.0]  # x y
    assert columns_to_stretches(dataset)[1] == pytest.approx(1.0, abs=1e-9)


def read_dataset_copy(dataset):
    return Dataset(dataset.series.copy(), dataset.exposures.copy(), dataset.particles.copy(), dataset.visible)


def test_positions_count_from_the_centre_of_the_hosts_tomogram(made, conversion) -> None:
    for row, item in enumerate(made.particles.iterSubtomos()):
        coordinate = item.getCoordinate3D()
        corner = np.array(coordinate.getPosition(BOTTOM_LEFT_CORNER))
        size = np.array(coordinate.getVolume().getDim())
        shift = made.particles.getSamplingRate() * np.linalg.inv(made.transforms[row])[:3, 3]
        wanted = (corner - size / 2) * coordinate.getVolume().getSamplingRate() + shift
        np.testing.assert_allclose(conversion.dataset.particles["position"][row], wanted, atol=1e-6)


def test_rotations_are_those_of_xmipp_and_of_the_relion_convention(made, conversion) -> None:
    xmipp = pytest.importorskip("xmippLib")
    from pwem.convert.transformations import euler_from_matrix

    for row, item in enumerate(made.particles.iterItems()):
        inverse = np.linalg.inv(item.getTransform().getMatrix())
        rot, tilt, psi = -np.rad2deg(euler_from_matrix(inverse, "szyz"))  # as scipion-em-relion reads a transform
        rotation = conversion.dataset.particles["rotation"][row]
        np.testing.assert_allclose(rotation, xmipp.Euler_angles2matrix(rot, tilt, psi), atol=1e-6)
        np.testing.assert_allclose(rotation, euler_to_matrix(rot, tilt, psi), atol=1e-9)
        np.testing.assert_allclose(item.getTransform(convention="relion").getMatrix()[:3, :3], rotation.T, atol=1e-9)


def test_a_spot_planted_where_the_engine_says_is_aligned_by_the_host(tmp_path) -> None:
    """The host's own image transform brings it to where an untilted axis would show it."""
    made = make_sets(tmp_path, names=("TS_1",), size=(96, 80), pixel=4.0, coordinate_pixel=4.0, sub_pixel=4.0, per_series=1,
                     magnified=False, shift=3.0)
    dataset = from_sets.read_sets(made.particles, made.tilt_series, made.ctfs).dataset
    u, _ = dataset.project(0)
    y, x = np.mgrid[:80, :96]
    for column, image in enumerate([item.clone() for item in made.tilt_series.getFirstItem().iterItems()]):
        place = u[0, column] / 4.0 + (48, 40)
        spot = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 8.0).astype(np.float32)
        handler, source, target = ImageHandler(), str(tmp_path / "spot.mrc"), str(tmp_path / "moved.mrc")
        picture = handler.createImage()
        picture.setData(spot)
        picture.write(source)
        handler.applyTransform(source, target, image.getTransform().getMatrix(), (80, 96))
        moved = handler.read(target).getData()
        moved = np.where(moved > 0.1, moved, 0.0)  # without the mean, which fills what comes from outside
        found = np.array([(moved * x).sum(), (moved * y).sum()]) / moved.sum()
        tilt = np.deg2rad(image.getTiltAngle())
        X = dataset.particles["position"][0] / 4.0
        wanted = np.array([np.cos(tilt) * X[0] + np.sin(tilt) * X[2], X[1]]) + (48, 40)
        np.testing.assert_allclose(found, wanted, atol=0.1)


def outputs(folder, made, conversion, result):
    folder.mkdir(exist_ok=True)
    particles = SetOfSubTomograms(filename=str(folder / "particles.sqlite"))
    to_sets.fill_particles(particles, made.particles, conversion, result)
    particles.write()
    series = SetOfTiltSeries(filename=str(folder / "series.sqlite"))
    notes = to_sets.fill_tilt_series(series, made.tilt_series, conversion, result)
    ctfs = SetOfCTFTomoSeries(filename=str(folder / "ctfs.sqlite"))
    to_sets.fill_ctfs(ctfs, made.ctfs, series, conversion, result)
    return particles, series, ctfs, notes


def test_a_round_trip_through_the_engines_stars_changes_nothing(made, conversion, tmp_path) -> None:
    write_dataset(conversion.dataset, tmp_path / "stars")
    result = read_dataset(tmp_path / "stars")
    particles, series, ctfs, notes = outputs(tmp_path / "out", made, conversion, result)
    assert notes == []
    assert type(particles) is type(made.particles)
    assert particles.getSamplingRate() == made.particles.getSamplingRate()
    assert particles.hasAlignment3D()
    for before, after in zip(made.particles.iterItems(), [x.clone() for x in particles.iterItems()]):
        assert after.getObjId() == before.getObjId()
        assert after.getFileName() == before.getFileName()
        np.testing.assert_allclose(after.getTransform().getMatrix(), before.getTransform().getMatrix(), atol=1e-6)
        np.testing.assert_allclose(after.getCoordinate3D().getPosition(SCIPION), before.getCoordinate3D().getPosition(SCIPION),
                                   atol=1e-6)
        assert after.getCoordinate3D().getTomoId() == before.getCoordinate3D().getTomoId()
    assert series.getSamplingRate() == made.tilt_series.getSamplingRate()
    assert series.hasAlignment()
    assert not series.interpolated()
    copies = [item.clone(ignoreAttrs=[]) for item in series.iterItems()]
    for before, after in zip(made.tilt_series.iterItems(), copies):
        assert after.getTsId() == before.getTsId()
        pairs = list(zip([x.clone() for x in before.iterItems()], [x.clone() for x in after.iterItems()]))
        assert len(pairs) == 5
        for old, new in pairs:
            assert (new.getIndex(), new.getAcquisitionOrder()) == (old.getIndex(), old.getAcquisitionOrder())
            assert new.isEnabled() == old.isEnabled()
            assert new.getTiltAngle() == pytest.approx(old.getTiltAngle(), abs=1e-6)
            np.testing.assert_allclose(new.getTransform().getMatrix(), old.getTransform().getMatrix(), atol=1e-6)
            for name in ("getDoseInitial", "getDosePerFrame", "getAccumDose"):
                value = getattr(old.getAcquisition(), name)()
                assert getattr(new.getAcquisition(), name)() == pytest.approx(value, abs=1e-6)
    again = from_sets.read_sets(particles, series, ctfs).dataset
    for one, other in ((again.series, conversion.dataset.series), (again.exposures, conversion.dataset.exposures),
                       (again.particles, conversion.dataset.particles)):
        for name, column in values(one).items():
            if column.dtype.kind in "fib":
                np.testing.assert_allclose(column, other[name], atol=1e-6, err_msg=name)
            else:
                assert column.tolist() == other[name].tolist(), name


def test_refined_numbers_reach_the_sets(made, conversion, tmp_path, random) -> None:
    """Changed poses, geometry, defocus, half-sets and scores; one particle removed."""
    rows = np.array([0, 1, 2, 4, 5, 6, 7])
    write_dataset(conversion.dataset, tmp_path / "stars")
    result = read_dataset(tmp_path / "stars").select_particles(rows)
    result.particles["position"] = result.particles["position"] + random.normal(size=(7, 3)) * 9.0
    result.particles["rotation"] = result.particles["rotation"] @ euler_to_matrix(10.0, 20.0, 30.0)
    result.particles["half"] = [1, 2, 1, 2, 2, 1, 2]
    result.particles["score"] = np.where(np.arange(7) == 3, np.nan, np.arange(7) * 5.0)
    result.exposures["shift"] = result.exposures["shift"] + 11.0
    result.exposures["rotation"] = euler_to_matrix(2.0, 0.0, 0.0) @ result.exposures["rotation"]  # turns about the beam
    result.exposures["defocus"] = result.exposures["defocus"] + 123.0
    result.exposures["phase_shift"] = result.exposures["phase_shift"] + 7.0
    particles, series, ctfs, notes = outputs(tmp_path / "out", made, conversion, result)
    assert particles.getSize() == 7
    assert notes == []
    assert to_sets.defocus_moved(conversion, result)
    assert not to_sets.defocus_moved(conversion, conversion.dataset)
    again = from_sets.read_sets(particles, series, ctfs).dataset
    for name in ("position", "rotation", "half", "score"):
        np.testing.assert_allclose(again.particles[name], result.particles[name], atol=1e-6, err_msg=name)
    for name in ("rotation", "shift", "defocus", "phase_shift", "enabled"):
        np.testing.assert_allclose(again.exposures[name], result.exposures[name], atol=1e-6, err_msg=name)
    coordinates = SetOfCoordinates3D(filename=str(tmp_path / "coordinates.sqlite"))
    coordinates.setPrecedents(made.tomograms)
    to_sets.fill_coordinates(coordinates, made.particles, conversion, result)
    coordinates.write()
    pixel = made.coordinates.getSamplingRate()
    found = [item.clone() for item in coordinates.iterItems()]  # an iterator gives the same object again
    assert len(found) == 7
    for row, item in enumerate(found):
        np.testing.assert_allclose(np.array(item.getPosition(SCIPION)) * pixel, result.particles["position"][row], atol=1e-6)


def test_an_xtilt_that_the_host_cannot_hold_is_said(made, conversion, tmp_path) -> None:
    result = read_dataset(write_dataset(conversion.dataset, tmp_path / "stars"))
    from pyp_cspr.engine.core.geometry import rotation_x

    result.exposures["rotation"] = result.exposures["rotation"] @ rotation_x(0.5)
    series = SetOfTiltSeries(filename=str(tmp_path / "series.sqlite"))
    notes = to_sets.fill_tilt_series(series, made.tilt_series, conversion, result)
    assert len(notes) == 2
    assert "TS_1: an X-tilt of up to 0.50 degrees" in notes[0]


def test_what_has_no_partner_is_left_out_and_said(tmp_path) -> None:
    made = make_sets(tmp_path, names=("A", "B", "C"), ctf_names=("A", "B"), particle_names=("A", "C", "D"))
    conversion = from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)
    assert conversion.dataset.series["name"].tolist() == ["A"]
    assert len(conversion.dataset.particles) == 4
    assert conversion.notes == [
        "B: left out, it has no particles",
        "C: left out, it has no CTFs; its 4 particles are left out",
        "D: left out, it has no tilt series and no CTFs; its 4 particles are left out",
    ]


def test_sets_of_other_tilt_series_are_refused(tmp_path) -> None:
    made = make_sets(tmp_path, names=("A",), particle_names=("B",))
    with pytest.raises(InputError, match="no tilt series has both CTFs and particles"):
        from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)


@pytest.mark.parametrize("kind, words", [("tilt_series", "its tilt series is disabled"), ("ctfs", "its CTFs are disabled")])
def test_disabled_series_are_left_out_and_stay_disabled(tmp_path, kind, words) -> None:
    made = make_sets(tmp_path)
    change(getattr(made, kind), "enabled", False, "TS_2", 0)
    conversion = from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)
    assert conversion.dataset.series["name"].tolist() == ["TS_1"]
    assert conversion.notes == [f"TS_2: left out, {words}; its 4 particles are left out"]
    particles, series, ctfs, _ = outputs(tmp_path / "out", made, conversion, conversion.dataset)
    assert particles.getSize() == 4
    copied = {"tilt_series": series, "ctfs": ctfs}
    for name, items in copied.items():
        assert [item.isEnabled() for item in items.iterItems()] == [True, name != kind]
        assert sum(1 for item in items.iterItems() for _ in item.iterItems()) == 10


@pytest.mark.parametrize("kind", ["tilt_series", "ctfs"])
def test_a_series_without_a_usable_image_is_left_out_and_said(tmp_path, kind) -> None:
    made = make_sets(tmp_path)
    change(getattr(made, kind), "enabled", False, "TS_1")
    conversion = from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)
    dataset = conversion.dataset
    assert dataset.series["name"].tolist() == ["TS_2"]
    assert [dataset.used(0).shape, len(dataset.exposures), len(dataset.particles)] == [(4, 5), 5, 4]
    assert conversion.notes == ["TS_1: left out, no tilt image is enabled and has an enabled CTF; its 4 particles are left out"]
    assert set(conversion.tilt_rows.values()) == set(conversion.ctf_rows.values()) == set(range(5))
    assert {name for name, _ in conversion.tilt_rows} == {"TS_2"}
    change(getattr(made, kind), "enabled", False, "TS_2")
    with pytest.raises(InputError, match="TS_1, TS_2: no tilt image is enabled and has an enabled CTF; "):
        from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)


@pytest.mark.parametrize("value", [None, float("nan")])
@pytest.mark.parametrize("kind, field, index, words", [
    ("tilt_series", "_acquisition._voltage", 0, "TS_2: its voltage is not known; "),
    ("tilt_series", "_acquisition._sphericalAberration", 0, "TS_2: its spherical aberration is not known; "),
    ("tilt_series", "_acquisition._amplitudeContrast", 0, "TS_2: its amplitude contrast is not known; "),
    ("tilt_series", "_acqOrder", 3, "TS_2: tilt image 3: its acquisition order is not known; "),
    ("tilt_series", "_tiltAngle", 3, "TS_2: tilt image 3: its tilt angle is not known; "),
    ("ctfs", "_defocusU", 3, "TS_2: tilt image 3: its defocus is not known; estimate it, or exclude the image"),
    ("ctfs", "_defocusV", 3, "TS_2: tilt image 3: its defocus is not known; estimate it, or exclude the image"),
])
def test_numbers_that_are_not_there_are_named(tmp_path, kind, field, index, words, value) -> None:
    if field == "_acqOrder" and value is not None:
        pytest.skip("an Integer has no NaN")
    made = make_sets(tmp_path)
    change(getattr(made, kind), field, value, "TS_2", index)
    with pytest.raises(InputError, match=words) as caught:
        from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)
    errors, _ = look_at_images(made.tilt_series, made.ctfs, {"TS_1", "TS_2"})
    assert errors == [f"{caught.value}."]


def both_refuse(made, words) -> None:
    """The conversion, and the check of the form before it."""
    with pytest.raises(InputError, match=words) as caught:
        from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)
    assert look_at_images(made.tilt_series, made.ctfs, {"TS_1", "TS_2"})[0] == [f"{caught.value}."]


def test_tilt_series_without_a_size_are_refused(tmp_path, monkeypatch) -> None:
    made = make_sets(tmp_path)
    monkeypatch.setattr(TiltSeries, "getDim", lambda series: None)  # of which there are old sets
    with pytest.raises(InputError, match="TS_1: the size of its images is not known; "):
        from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)
    assert len(look_at_images(made.tilt_series, made.ctfs, {"TS_1", "TS_2"})[0]) == 2


def test_a_ctf_of_no_image_is_refused(tmp_path) -> None:
    made = make_sets(tmp_path)
    for field in ("_acqOrder", "_index"):
        change(made.ctfs, field, None, "TS_2", 3 if field == "_acqOrder" else None)
    both_refuse(made, "TS_2: the tilt image of a CTF, by acquisition order or place in the stack, is not known; ")


def test_a_mirrored_alignment_is_named(tmp_path) -> None:
    made = make_sets(tmp_path)
    item = next(one.clone(ignoreAttrs=[]) for one in made.tilt_series.iterItems() if one.getTsId() == "TS_2")
    image = next(one.clone() for one in item.iterItems() if one.getIndex() == 2)
    matrix = image.getTransform().getMatrix()
    matrix[0] *= -1
    image.setTransform(Transform(matrix))
    item.update(image)
    item.write(properties=False)
    both_refuse(made, "TS_2: tilt image 2: its alignment mirrors the image; ")


def test_a_failed_ctf_of_an_excluded_view_does_not_matter_and_stays(tmp_path) -> None:
    """TS_2's image 4 is excluded."""
    made = make_sets(tmp_path)
    change(made.ctfs, "_defocusU", None, "TS_2", 4)
    conversion = from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)
    assert np.isfinite(conversion.dataset.exposures["defocus"]).all()
    _, _, ctfs, _ = outputs(tmp_path / "out", made, conversion, conversion.dataset)
    kept = [one.getDefocusU() for item in ctfs.iterItems() if item.getTsId() == "TS_2" for one in item.iterItems()
            if one.getIndex() == 4]
    assert kept == [None]


@pytest.mark.parametrize("factor, words", [(1.0, ""), (0.0, "TS_1 (0 A)"), (-1.0, "TS_1 (-2.2"), (1e-4, "TS_1 (2.2")])
def test_a_defocus_in_another_unit_is_warned_of(tmp_path, factor, words) -> None:
    made = make_sets(tmp_path, names=("TS_1",))
    for field in ("_defocusU", "_defocusV"):
        for index in range(1, 6):
            change(made.ctfs, field, factor * (20000.0 + 1000.0 * index), "TS_1", index)
    errors, warnings = look_at_images(made.tilt_series, made.ctfs, {"TS_1"})
    assert errors == []
    assert len(warnings) == bool(words)
    assert not words or f"The mean defocus of {words}" in warnings[0]


def test_a_view_without_ctf_is_excluded_and_said(tmp_path) -> None:
    made = make_sets(tmp_path, names=("A",), excluded=())
    series = made.ctfs.getFirstItem()
    lost = next(item.clone() for item in series.iterItems() if item.getIndex() == 2)
    lost.setEnabled(False)
    series.update(lost)
    series.write(properties=False)
    conversion = from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)
    assert conversion.dataset.exposures["enabled"].tolist() == [True, False, True, True, True]
    assert conversion.notes == ["A: tilt images 2 have no enabled CTF and are left out"]


def test_file_names_of_the_host() -> None:
    assert from_sets.image_path("/a/b.mrc:mrcs") == "/a/b.mrc"
    assert from_sets.image_path("/a:b/c.mrc") == "/a:b/c.mrc"


def test_curves_become_fscs(tmp_path) -> None:
    text = "shell,resolution,unmasked,corrected\n0,inf,1.0,1.0\n1,64.0000,0.9,0.95\n2,32.0000,0.1,0.2\n"
    (tmp_path / "fsc.csv").write_text(text)
    curves = SetOfFSCs(filename=str(tmp_path / "fsc.sqlite"))
    to_sets.fill_curves(curves, str(tmp_path))
    curves.write()
    found = {item.getObjLabel(): item.getData() for item in (x.clone() for x in curves.iterItems())}
    assert sorted(found) == ["corrected", "unmasked"]
    assert [float(x) for x in found["corrected"][0]] == [1 / 64, 1 / 32]
    assert [float(y) for y in found["corrected"][1]] == [0.95, 0.2]


def test_the_ratio_of_a_refined_defocus_is_its_own(tmp_path) -> None:
    made = make_sets(tmp_path / "sets")
    ctfs = SetOfCTFTomoSeries(filename=str(tmp_path / "in.sqlite"))
    ctfs.setSetOfTiltSeries(made.tilt_series)
    for item in [one.clone(ignoreAttrs=[]) for one in made.ctfs.iterItems()]:
        copied = CTFTomoSeries(tsId=item.getTsId())
        copied.setTiltSeries(item.getTiltSeries())
        ctfs.append(copied)
        for estimate in [one.clone() for one in item.iterItems()]:
            estimate.standardize()
            copied.append(estimate)
        copied.write(properties=False)
        ctfs.update(copied)
    conversion = from_sets.read_sets(made.particles, made.tilt_series, ctfs)
    conversion.dataset.exposures["defocus"][:, 0] *= 1.1
    target = SetOfCTFTomoSeries(filename=str(tmp_path / "out.sqlite"))
    to_sets.fill_ctfs(target, ctfs, made.tilt_series, conversion, conversion.dataset)
    estimates = [one.clone() for one in target.getFirstItem().iterItems()]
    assert len(estimates) == 5
    for one in estimates:
        assert one.getDefocusRatio() == pytest.approx(one.getDefocusU() / one.getDefocusV())
