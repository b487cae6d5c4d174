"""Landmarks of refined particles. Oracles: the host's own projection, reader and image files."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest
from pyworkflow.object import Pointer
from tomo.objects import LandmarkModel, SetOfLandmarkModels, SetOfTiltSeries
from tomo.protocols.protocol_project_coordinates import ProtProjectCoordinates

from pyp_cspr.engine.core.geometry import euler_to_matrix
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.protocols.adapters import from_sets, to_sets
from pyp_cspr.protocols.adapters.landmarks import fill_landmarks

from .sets import make_sets

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=[False, True], ids=["rigid", "magnified"])
def shown(request, tmp_path, random):
    """(sets, refined data set, refined tilt series, landmarks): poses and geometry moved, a particle removed."""
    made = make_sets(tmp_path / "sets", size=(96, 80), pixel=4.0, coordinate_pixel=8.0, sub_pixel=4.0,
                     magnified=request.param, shift=3.0)
    conversion = from_sets.read_sets(made.particles, made.tilt_series, made.ctfs)
    write_dataset(conversion.dataset, tmp_path / "stars")
    result = read_dataset(tmp_path / "stars").select_particles([0, 2, 3, 4, 5, 6, 7])
    result.particles["position"] = result.particles["position"] + random.normal(size=(7, 3)) * 9.0
    result.particles["position"][1, 1] += 1000.0  # outside every image
    result.exposures["shift"] = result.exposures["shift"] + random.normal(size=result.exposures["shift"].shape) * 5.0
    result.exposures["rotation"] = euler_to_matrix(2.0, 0.0, 0.0) @ result.exposures["rotation"]
    series = SetOfTiltSeries(filename=str(tmp_path / "series.sqlite"))
    to_sets.fill_tilt_series(series, made.tilt_series, conversion, result)
    landmarks = SetOfLandmarkModels(filename=str(tmp_path / "landmarks.sqlite"))
    fill_landmarks(landmarks, str(tmp_path / "landmarks"), series, Pointer(series), conversion, result, 120.4)
    return made, conversion, result, series, landmarks


def test_models_are_of_the_refined_series_and_read_by_the_host(shown, tmp_path) -> None:
    _, _, _, series, landmarks = shown
    assert landmarks.getSetOfTiltSeries() is series
    models = [model.clone() for model in landmarks.iterItems()]
    assert [model.getTsId() for model in models] == ["TS_1", "TS_2"]
    assert [model.getCount() for model in models] == [2, 4]  # of 3 and 4, one outside
    assert all(model.getSize() == 120 and not model.applyTSTransformation() for model in models)
    rows = models[0].retrieveInfoTable()
    assert len(rows) == 2 * 4  # an excluded view
    assert {int(row[2]) for row in rows} == {1, 2, 3, 5}
    assert {int(row[3]) for row in rows} == {1, 4}  # the numbers of the sub-tomograms, of which 2 was removed and 3 is outside
    # tomo's own writer makes the same file
    copy = LandmarkModel(tsId="TS_1", fileName=str(tmp_path / "copy.sfid"))
    for row in rows:
        copy.addLandmark(*row)
    with open(copy.getFileName(), newline="") as theirs, open(models[0].getFileName(), newline="") as ours:
        assert theirs.read() == ours.read()


def test_landmarks_are_where_the_host_projects_the_refined_particles(shown) -> None:
    _, _, result, series, landmarks = shown
    oracle = ProtProjectCoordinates()
    checked = 0
    for number, item in enumerate([one.clone(ignoreAttrs=[]) for one in series.iterItems()]):
        images = {image.getIndex(): image.clone() for image in item.iterItems()}
        model = landmarks.getLandmarkModelFromTsId(item.getTsId())
        numbers = {int(str(name).split("/")[1]): row for row, name in enumerate(result.particles["name"])}
        for x, y, image, chain, *_ in model.retrieveInfoTable():
            position = result.particles["position"][numbers[int(chain)]]
            assert result.particles["series"][numbers[int(chain)]] == number
            host = oracle._projectCoordinate(images[int(image)], np.append(position / 4.0, 1.0))[:2] + (48, 40)
            np.testing.assert_allclose((float(x), float(y)), host, atol=1e-3)
            checked += 1
    assert checked == 6 * 4


def test_a_planted_spot_is_where_its_landmark_says(shown, tmp_path) -> None:
    """The spot's place comes from the matrices in the set, by hand; the landmark must point at its brightest pixel."""
    _, _, result, series, landmarks = shown
    item = series.getFirstItem()
    images = {image.getIndex(): image.clone() for image in item.iterItems()}
    stack = np.zeros((5, 80, 96), np.float32)
    y, x = np.mgrid[:80, :96]
    for index, image in images.items():
        tilt = np.deg2rad(image.getTiltAngle())
        X = result.particles["position"][0] / 4.0
        aligned = np.array([np.cos(tilt) * X[0] + np.sin(tilt) * X[2], X[1], 1.0])
        place = np.linalg.solve(image.getTransform().getMatrix(), aligned)[:2] + (48, 40)
        stack[index - 1] = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 18.0)
    with mrcfile.new(tmp_path / "spots.mrc") as mrc:
        mrc.set_data(stack)
    rows = [row for row in landmarks.getLandmarkModelFromTsId(item.getTsId()).retrieveInfoTable() if row[3] == "1"]
    assert len(rows) == 4
    with mrcfile.open(tmp_path / "spots.mrc") as mrc:
        for px, py, image, *_ in rows:
            brightest = np.unravel_index(mrc.data[int(image) - 1].argmax(), (80, 96))
            assert (round(float(py)), round(float(px))) == brightest
