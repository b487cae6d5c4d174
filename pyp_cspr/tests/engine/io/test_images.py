from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pyp_cspr.engine.core.geometry import project
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.images import fit_box, open_images
from pyp_cspr.engine.io.mrc import open_stack, write_stack
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.model.tables import Dataset

from .projects import PIXEL, SIZES, TILTS, make_dataset

SIGMA = 1.3  # pixels, of a planted blob


def blob(nx: int, ny: int, x: float, y: float) -> np.ndarray:
    """A Gaussian of height 100 about column x and row y."""
    column, row = np.arange(nx), np.arange(ny)
    return 100 * np.outer(np.exp(-((row - y) ** 2) / (2 * SIGMA**2)), np.exp(-((column - x) ** 2) / (2 * SIGMA**2)))


def centre_of_mass(image: np.ndarray) -> np.ndarray:
    """(x, y) of an image's bright spot."""
    spot = np.where(image > 0.01 * image.max(), image, 0.0)
    rows, columns = np.indices(image.shape)
    return np.array([(spot * columns).sum(), (spot * rows).sum()]) / spot.sum()


def plant(dataset: Dataset, series: int, particle: int, dtype: str = "f4", background: float = 0.0) -> None:
    """Write the stack of a series with a blob in each tilt, where ``Dataset.project`` sees the particle."""
    nx, ny = SIZES[series]
    u, _ = dataset.project(series)
    images = [np.full((ny, nx), 7.0)]  # slice 0 belongs to no exposure
    for x, y in u[particle] / PIXEL + np.array([nx // 2, ny // 2]):
        images.append(background + dataset.series["contrast"][series] * blob(nx, ny, x, y))
    write_stack(dataset.series["images"][series], [image.astype(dtype) for image in images], PIXEL)


@pytest.mark.parametrize("series", [0, 1])  # even image sizes and dark particles; odd sizes and white particles
@pytest.mark.parametrize(("dtype", "background"), [("f4", 0.0), ("f2", 50.0), ("i2", -1000.0), ("u2", 3000.0), ("i1", 0.0)])
def test_a_planted_point_is_found_where_it_was_projected(tmp_path, series, dtype, background):
    dataset = make_dataset(tmp_path)
    plant(dataset, series, 1, dtype, background)
    images = open_images(dataset, series)
    assert (images.pixel, images.box) == (PIXEL, 0)
    u, _ = dataset.project(series)
    row = dataset.particles_of(series)[1]
    for box in (12, 14):
        for column, exposure in enumerate(dataset.exposures_of(series)):
            crops, centre, inside = images.crops(exposure, [row], u[1:2, column], box)
            assert crops.shape == (1, box, box)
            assert crops.dtype == np.float32
            residual = (u[1, column] - centre[0]) / PIXEL
            assert (np.abs(residual) <= 0.5 + 1e-9).all()
            if inside[0] < 0.99:
                continue
            floor = np.median(crops[0])
            np.testing.assert_allclose(centre_of_mass(crops[0] - floor), box // 2 + residual, atol=0.03)


@pytest.mark.parametrize("series", [0, 1])
def test_near_the_edge(tmp_path, series):
    """A blob 4 pixels from each edge: the crop reaches out of the image, the blob stays where it is, the rest is 0."""
    dataset = make_dataset(tmp_path)
    nx, ny = SIZES[series]
    sign = dataset.series["contrast"][series]
    box, exposure = 16, dataset.exposures_of(series)[0]
    for x, y in ((4.3, 20.0), (nx - 5.4, 20.2), (30.0, 4.25), (30.0, ny - 5.0), (4.0, 4.0), (nx - 5.2, ny - 4.9)):
        image = 20 + sign * blob(nx, ny, x, y)
        write_stack(dataset.series["images"][series], [image.astype("f4")] * (TILTS[series] + 1), PIXEL)
        images = open_images(dataset, series)
        u = (np.array([[x, y]]) - np.array([nx // 2, ny // 2])) * PIXEL
        crops, centre, inside = images.crops(exposure, dataset.particles_of(series)[:1], u, box)
        residual = (u - centre)[0] / PIXEL
        low = np.rint([x, y]).astype(int) - box // 2
        covered = [np.clip(low[i] + box, 0, n) - np.clip(low[i], 0, n) for i, n in enumerate((nx, ny))]
        assert inside[0] == pytest.approx(covered[0] * covered[1] / box**2)
        assert inside[0] < 1
        outside = crops[0] == 0  # exactly the mean
        assert outside.sum() == box * box - covered[0] * covered[1]
        floor = crops[0][~outside].min()
        found = centre_of_mass(np.where(outside, 0.0, crops[0] - floor))
        np.testing.assert_allclose(found, box // 2 + residual, atol=0.03)


def test_far_outside(tmp_path):
    dataset = make_dataset(tmp_path)
    images = open_images(dataset, 0)
    rows = dataset.particles_of(0)
    crops, centre, inside = images.crops(0, rows[:2], np.array([[1e9, 0.0], [-1e300, 5.0]]), 16)
    assert (crops == 0).all()
    assert (inside == 0).all()
    assert np.isfinite(centre).all()
    with pytest.raises(ValueError, match="finite"):
        images.crops(0, rows[:1], np.array([[np.nan, 0.0]]), 16)
    with pytest.raises(ValueError, match="not of series"):
        images.crops(TILTS[0], rows[:1], np.zeros((1, 2)), 16)


def test_crops_are_normalised_and_white(tmp_path, random):
    dataset = make_dataset(tmp_path)
    images = open_images(dataset, 0)
    nx, ny = SIZES[0]
    crops, _, inside = images.crops(2, dataset.particles_of(0)[:1], np.zeros((1, 2)), max(nx, ny))
    source = open_stack(dataset.series["images"][0]).data[dataset.exposures["slice"][2]].astype(float)
    start = (max(nx, ny) - ny) // 2 + (max(nx, ny) // 2 - ny // 2) - (max(nx, ny) - ny) // 2
    np.testing.assert_allclose(crops[0, start : start + ny], -(source - source.mean()) / source.std(), atol=1e-5)
    assert inside[0] == pytest.approx(ny / nx)


def test_x_rays_do_not_change_the_normalisation(tmp_path, random):
    dataset = make_dataset(tmp_path)
    nx, ny = SIZES[0]
    clean = random.normal(1000, 50, (ny, nx)).astype("i2")
    struck = clean.copy()
    struck[3, 4], struck[20, 30] = 32000, -30000
    results = []
    for image in (clean, struck):
        write_stack(dataset.series["images"][0], [image] * (TILTS[0] + 1), PIXEL)
        results.append(open_images(dataset, 0).statistics(0))
    assert results[0] == pytest.approx((clean.astype(float).mean(), clean.astype(float).std()), rel=1e-12)
    assert results[1] == pytest.approx(results[0], rel=2e-3)


def test_statistics_of_large_offsets_keep_their_digits(tmp_path, random):
    dataset = make_dataset(tmp_path)
    image = (60000 + random.integers(0, 3, SIZES[0][::-1])).astype("u2")
    write_stack(dataset.series["images"][0], [image] * (TILTS[0] + 1), PIXEL)
    assert open_images(dataset, 0).statistics(0) == pytest.approx(
        (image.astype(float).mean(), image.astype(float).std()), rel=1e-10
    )


def test_each_tilt_is_read_once_and_only_if_asked_for(tmp_path):
    dataset = make_dataset(tmp_path)
    images = open_images(dataset, 0)
    assert images.bytes_read == 0
    rows = dataset.particles_of(0)
    for _ in range(3):
        images.crops(1, rows, np.zeros((len(rows), 2)), 8)
    assert images.bytes_read == SIZES[0][0] * SIZES[0][1] * 4


@pytest.mark.parametrize(("value", "message"), [(5.0, "image 2 is blank"), (np.nan, "image 2 has pixels that are not numbers")])
def test_useless_images_are_named(tmp_path, value, message):
    dataset = make_dataset(tmp_path)
    data = np.array(open_stack(dataset.series["images"][0]).data)
    data[1] = value
    write_stack(dataset.series["images"][0], data, PIXEL)
    images = open_images(dataset, 0)
    images.crops(1, dataset.particles_of(0)[:1], np.zeros((1, 2)), 8)
    with pytest.raises(InputError, match=message):
        images.crops(0, dataset.particles_of(0)[:1], np.zeros((1, 2)), 8)


def test_raw_images_that_do_not_fit(tmp_path):
    dataset = make_dataset(tmp_path)
    dataset.series["image_size"] = np.array(SIZES) + 1
    with pytest.raises(InputError, match="make them agree"):
        open_images(dataset, 0)
    dataset.series["images"] = ""
    with pytest.raises(InputError, match="no images are named"):
        open_images(dataset, 0)


# ----------------------------------------------------------------------------------------------------------------- stacks


@pytest.mark.parametrize("everything", [False, True])
def test_stacks_give_the_image_of_the_exposure(tmp_path, random, everything):
    """RELION's stacks hold visible frames only, WarpTools' all tilts."""
    dataset = make_dataset(tmp_path, stacks=True)
    row = 1
    pixels = random.normal(size=(TILTS[0], 16, 16)).astype("f2")
    visible = dataset.visible[row, : TILTS[0]]
    assert not visible.all()
    write_stack(dataset.particles["stack"][row], pixels if everything else pixels[visible], 9.25)
    images = open_images(dataset, 0)
    assert (images.pixel, images.box) == (9.25, 16)
    for column in range(TILTS[0]):
        if not visible[column]:
            with pytest.raises(ValueError, match="not visible"):
                images.crops(column, [row], np.zeros((1, 2)), 16)
            continue
        crops, centre, inside = images.crops(column, [row], np.full((1, 2), 99.0), 16)
        np.testing.assert_array_equal(crops[0], pixels[column].astype("f4"))
        exposures, particles = dataset.exposures, dataset.particles
        cut, _ = project(
            exposures["extract_rotation"][column], exposures["extract_shift"][column], particles["extract_position"][row]
        )
        np.testing.assert_array_equal(centre[0], cut)
        assert inside[0] == 1
    with pytest.raises(ValueError, match="not of series"):
        images.crops(0, [dataset.particles_of(1)[0]], np.zeros((1, 2)), 16)


def test_unmoved_stacks_have_no_residual(tmp_path):
    dataset = make_dataset(tmp_path, stacks=True)
    for name in ("rotation", "shift"):
        dataset.exposures[f"extract_{name}"] = dataset.exposures[name]
    dataset.particles["extract_position"] = dataset.particles["position"]
    write_dataset(dataset, tmp_path)
    again = read_dataset(tmp_path)
    for series in (0, 1):
        images = open_images(again, series)
        u, _ = again.project(series)
        for column, exposure in enumerate(again.exposures_of(series)):
            seen = again.used(series)[:, column]
            if seen.any():
                _, centre, _ = images.crops(exposure, again.particles_of(series)[seen], u[seen, column], 16)
                np.testing.assert_allclose(u[seen, column], centre, atol=1e-9)


def test_only_the_images_asked_for_are_read(tmp_path):
    dataset = make_dataset(tmp_path, stacks=True)
    rows = dataset.particles_of(1)[dataset.visible[dataset.particles_of(1), 1]]
    images = open_images(dataset, 1)
    images.crops(TILTS[0] + 1, rows, np.zeros((len(rows), 2)), 16)
    assert images.bytes_read == 16 * 16 * 2 * len(rows)


def test_a_stack_that_shrinks_while_it_is_read_is_refused(tmp_path):
    dataset = make_dataset(tmp_path, stacks=True)
    rows = dataset.particles_of(1)[dataset.visible[dataset.particles_of(1), 1]]
    images = open_images(dataset, 1)
    images.crops(TILTS[0] + 1, rows, np.zeros((len(rows), 2)), 16)
    path = Path(str(dataset.particles["stack"][rows[0]]))
    path.write_bytes(path.read_bytes()[:1100])
    with pytest.raises(InputError, match="it has changed"):
        images.crops(TILTS[0] + 1, rows, np.zeros((len(rows), 2)), 16)


@pytest.mark.parametrize(("size", "box"), [(16, 12), (16, 20), (15, 12), (15, 20), (16, 15), (14, 17), (17, 17)])
def test_fit_box_keeps_the_centre(random, size, box):
    images = random.normal(size=(2, size, size)).astype("f4")
    fitted = fit_box(images, box)
    assert fitted.shape == (2, box, box)
    half = min(size, box) // 2 - 1
    old = slice(size // 2 - half, size // 2 + half + 1)
    new = slice(box // 2 - half, box // 2 + half + 1)
    np.testing.assert_array_equal(fitted[:, new, new], images[:, old, old])
    if box > size:
        np.testing.assert_allclose(fitted[:, 0, 0], images.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_stacks_with_bad_pixels_are_named(tmp_path):
    dataset = make_dataset(tmp_path, stacks=True)
    data = np.array(open_stack(dataset.particles["stack"][0]).data)
    data[2, 3, 3] = np.inf
    write_stack(dataset.particles["stack"][0], data, 9.25)
    with pytest.raises(InputError, match="leave particle TS_a/0 out"):
        open_images(dataset, 0).crops(2, [0], np.zeros((1, 2)), 16)


def test_real_stacks(shared_data):
    dataset = read_dataset(shared_data / "real" / "empiar10499")
    for series in (0, 1):
        images = open_images(dataset, series)
        u, _ = dataset.project(series)
        rows = dataset.particles_of(series)
        used = dataset.used(series)
        for column, exposure in enumerate(dataset.exposures_of(series)):
            seen = used[:, column]
            if seen.any():
                crops, centre, _ = images.crops(exposure, rows[seen], u[seen, column], 32)
                np.testing.assert_allclose(u[seen, column], centre, atol=1e-9)
                assert (crops.std(axis=(1, 2)) > 0.1).all()  # WarpTools' blank images are not visible frames
        assert images.bytes_read == dataset.used(series).sum() * 32 * 32 * 2
