"""RELION's single-particle stars: what the rows say, the way there and back, and RELION's own reconstruction from them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.core.ctf import defocus_form
from pyp_cspr.engine.core.fsc import fsc
from pyp_cspr.engine.core.geometry import euler_to_matrix
from pyp_cspr.engine.core.weighting import dose_amplitude
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.images import open_images
from pyp_cspr.engine.io.mrc import open_stack, read_map
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.io.relion_spa import LEAST_INSIDE, read_spa, write_spa
from pyp_cspr.engine.io.star import StarBlock, read_star, write_star
from pyp_cspr.tests.engine.io.projects import make_dataset


@pytest.fixture
def dataset(tmp_path):
    made = make_dataset(tmp_path)
    made.box, made.box_pixel = 8, 3.7
    made.particles["defocus_offset"] = np.linspace(-300.0, 500.0, len(made.particles))
    return made


def rows_of(path: str) -> StarBlock:
    return read_star(path)["particles"]


def test_every_used_projection_is_a_row_with_its_own_angles_place_and_defocus(dataset, tmp_path) -> None:
    block = rows_of(write_spa(dataset, tmp_path / "spa"))
    seen = 0
    for series in range(2):
        pixel, size = dataset.series["pixel"][series], dataset.series["image_size"][series]
        exposures, particles, used = dataset.exposures_of(series), dataset.particles_of(series), dataset.used(series)
        names = block.texts("rlnMicrographName")
        for column, e in enumerate(exposures):
            micrograph = f"{dataset.exposures['slice'][e] + 1:06d}@{dataset.series['images'][series]}"
            for row, p in enumerate(particles):
                tilt, turn, x = (dataset.exposures["rotation"][e], dataset.particles["rotation"][p],
                                 dataset.particles["position"][p])
                u = (tilt @ x)[:2] + dataset.exposures["shift"][e]
                centre = np.rint(u / pixel)
                low = centre + size // 2 - 4
                inside = np.prod(np.clip(low + 8, 0, size) - np.clip(low, 0, size)) / 64.0
                found = [i for i, name in enumerate(names)
                         if name == micrograph and block.columns["rlnGroupName"][i] == dataset.particles["name"][p]]
                if not used[row, column] or inside < LEAST_INSIDE:
                    assert not found
                    continue
                (i,) = found
                seen += 1
                angles = [block.floats(f"rlnAngle{name}")[i] for name in ("Rot", "Tilt", "Psi")]
                np.testing.assert_allclose(euler_to_matrix(*angles), tilt @ turn, atol=1e-9)
                corner = np.array([block.floats(f"rlnCoordinate{axis}")[i] for axis in "XY"])
                origin = np.array([block.floats(f"rlnOrigin{axis}Angst")[i] for axis in "XY"])
                np.testing.assert_array_equal(corner, centre + size // 2)
                np.testing.assert_allclose((corner - size // 2) * pixel - origin, u, atol=1e-8)
                depth = dataset.series["hand"][series] * (tilt @ x)[2] + dataset.particles["defocus_offset"][p]
                for axis, label in enumerate(("rlnDefocusU", "rlnDefocusV")):
                    assert block.floats(label)[i] == pytest.approx(dataset.exposures["defocus"][e, axis] + depth, abs=1e-6)
                assert block.integers("rlnRandomSubset")[i] == dataset.particles["half"][p]
    assert seen == len(block) > 8
    assert "rlnImageName" not in block


def test_the_b_factor_is_that_nearest_to_the_dose_filter(dataset, tmp_path) -> None:
    block = rows_of(write_spa(dataset, tmp_path / "spa"))
    k = np.linspace(0, 0.5 / 3.7, 60)
    for name, b in zip(block.texts("rlnMicrographName"), block.floats("rlnCtfBfactor")):
        files = dataset.series["images"][dataset.exposures["series"]]
        e = [f"{image + 1:06d}@{file}" for image, file in zip(dataset.exposures["slice"], files)].index(name)
        voltage = dataset.series["voltage"][dataset.exposures["series"][e]]
        want = dose_amplitude(k, dataset.exposures["dose_before"][e], dataset.exposures["dose"][e], voltage)
        assert b > 0
        assert np.abs(np.exp(-b * k**2 / 4) - want).max() < 0.1
        assert np.abs(np.exp(-b * k**2 / 8) - want).max() > np.abs(np.exp(-b * k**2 / 4) - want).max()


def test_the_stack_holds_the_crops_in_the_order_of_the_rows(dataset, tmp_path) -> None:
    counts: list = []
    star = write_spa(dataset, tmp_path / "spa", stacks=True, progress=counts.append)
    block = rows_of(star)
    assert sum(counts) == len(block)
    optics = read_star(star)["optics"]
    assert optics.integers("rlnImageSize").tolist() == [8, 8]
    for i in (0, 5, len(block) - 1):
        number, _, file = block.texts("rlnImageName")[i].partition("@")
        image = open_stack(tmp_path / "spa" / file).image(int(number) - 1)
        p = dataset.particles["name"].tolist().index(block.columns["rlnGroupName"][i])
        series = int(dataset.particles["series"][p])
        slice_number = int(block.texts("rlnMicrographName")[i].split("@")[0]) - 1
        e = next(e for e in dataset.exposures_of(series) if dataset.exposures["slice"][e] == slice_number)
        u = dataset.exposures["rotation"][e] @ dataset.particles["position"][p]
        crops, _, _ = open_images(dataset, series).crops(e, [p], u[:2] + dataset.exposures["shift"][e], 8)
        np.testing.assert_array_equal(image, crops[0])


def test_without_a_box_it_is_asked_for(dataset, tmp_path) -> None:
    dataset.box = 0
    with pytest.raises(InputError, match="give --box PIXELS"):
        write_spa(dataset, tmp_path / "spa")
    assert read_star(write_spa(dataset, tmp_path / "spa", box=12))["optics"].integers("rlnImageSize").tolist() == [12, 12]


def test_a_star_that_is_read_and_written_again_says_the_same(dataset, tmp_path) -> None:
    """Each tilt comes back as a micrograph; angles, places, defocus and half-sets are those of before."""
    before = rows_of(write_spa(dataset, tmp_path / "one"))
    back = read_spa(tmp_path / "one" / "particles.star")
    assert len(back.particles) == len(before)
    np.testing.assert_array_equal(back.particles["half"], before.integers("rlnRandomSubset"))
    after = rows_of(write_spa(back, tmp_path / "two"))
    key = [sorted(range(len(block)), key=lambda i, b=block: (b.texts("rlnMicrographName")[i], b.floats("rlnCoordinateX")[i],
                                                             b.floats("rlnCoordinateY")[i], b.floats("rlnOriginXAngst")[i]))
           for block in (before, after)]
    for label, tolerance in (("rlnCoordinateX", 0), ("rlnCoordinateY", 0), ("rlnOriginXAngst", 1e-6), ("rlnOriginYAngst", 1e-6),
                             ("rlnRandomSubset", 0)):
        one, two = (block.floats(label)[order] for block, order in zip((before, after), key))
        np.testing.assert_allclose(two, one, atol=tolerance, err_msg=label)
    one, two = (defocus_form(*(block.floats(f"rlnDefocus{name}")[order] for name in ("U", "V", "Angle")))
                for block, order in zip((before, after), key))
    np.testing.assert_allclose(two, one, atol=1e-4)
    one, two = (euler_to_matrix(*(block.floats(f"rlnAngle{name}")[order] for name in ("Rot", "Tilt", "Psi")))
                for block, order in zip((before, after), key))
    np.testing.assert_allclose(two, one, atol=1e-9)


def test_a_real_star_of_relion_3(shared_data, tmp_path) -> None:
    path = shared_data / "metadata" / "relion_spa" / "relion31.star"
    with pytest.raises(InputError, match="--image-size X Y"):
        read_spa(path)
    dataset = read_spa(path, (4096, 4096))
    block = next(block for name, block in read_star(path).items() if name == "particles")
    assert len(dataset.particles) == len(block)
    assert len(dataset.series) == len(set(block.texts("rlnMicrographName")))
    assert dataset.box == 256
    assert dataset.series["pixel"][0] == pytest.approx(2.806) if "rlnMicrographOriginalPixelSize" in block else True
    write_dataset(dataset, tmp_path / "five")
    again = read_dataset(tmp_path / "five", need_images=False)
    np.testing.assert_allclose(again.particles["position"], dataset.particles["position"], atol=1e-6)
    np.testing.assert_allclose(again.particles["defocus_offset"], dataset.particles["defocus_offset"], atol=1e-6)
    own = block.floats("rlnDefocusU") + block.floats("rlnDefocusV")
    owner = again.particles["series"]
    np.testing.assert_allclose(2 * again.particles["defocus_offset"] + again.exposures["defocus"][owner, :2].sum(axis=1), own,
                               rtol=1e-9)


@pytest.mark.parametrize("label, value, words", [
    ("rlnRandomSubset", "3", "rlnRandomSubset is 3"), ("rlnOpticsGroup", "7", "optics group 7"),
    ("rlnMicrographName", "x@a.mrc", "want a file or NUMBER@STACK"), ("rlnDefocusU", "nan", "rlnDefocusU"),
])
def test_what_cannot_be_is_refused(dataset, tmp_path, label, value, words) -> None:
    path = write_spa(dataset, tmp_path / "spa")
    blocks = read_star(path)
    blocks["particles"].columns[label][2] = value
    write_star(path, blocks)
    with pytest.raises(InputError, match=words):
        read_spa(path)


# --- RELION's own program ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The sample, our reconstruction of it, and its star with images."""
    folder = tmp_path_factory.mktemp("spa")
    options = ["--series", "2", "--particles", "40", "--tilts", "21", "--box", "48", "--pixel", "6", "--seed", "3"]
    assert main(["sample", str(folder / "data"), *options]) == 0
    assert main(["reconstruct", str(folder / "data"), "--out", str(folder / "run"), "--no-report", "--processes", "1"]) == 0
    assert main(["convert", str(folder / "run"), str(folder / "spa"), "--to", "relion-spa", "--stacks"]) == 0
    return folder


def relion_reconstruct(star: Path, half: int) -> np.ndarray:
    command = ["relion_reconstruct", "--i", star.name, "--o", f"{star.stem}_{half}.mrc", "--ctf", "--subset", str(half)]
    done = subprocess.run(command, cwd=star.parent, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return read_map(star.parent / f"{star.stem}_{half}.mrc")[0]


@pytest.mark.needs_relion
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_relion_reconstructs_the_same_half_maps_from_the_star(exported, relion) -> None:
    """Under a soft sphere: near the faces of the box both only have interpolated noise. A wrong sign must not pass."""
    if shutil.which("relion_reconstruct") is None:
        pytest.skip("no relion_reconstruct on the PATH")
    star = exported / "spa" / "particles.star"
    curves = []
    for half in (1, 2):
        ours = read_map(exported / "run" / f"half{half}.mrc")[0]
        curves.append(fsc(_sphere(ours), _sphere(relion_reconstruct(star, half))))
        assert curves[-1][1:20].min() > 0.98, np.round(curves[-1], 3)  # 0.8 of Nyquist, which is shell 24
    halves = [read_map(exported / "run" / f"half{half}.mrc")[0] for half in (1, 2)]
    assert fsc(_sphere(halves[0]), _sphere(halves[1]))[1:20].min() < 0.5  # so it is not the signal alone that agrees
    ours = halves[0]
    for name, labels in (("origins", ("rlnOriginXAngst", "rlnOriginYAngst")), ("psi", ("rlnAnglePsi",))):
        blocks = read_star(star)
        for label in labels:
            blocks["particles"].columns[label] = [str(-value) for value in blocks["particles"].floats(label)]
        wrong = star.with_name(f"wrong_{name}.star")
        write_star(wrong, blocks)
        assert fsc(_sphere(ours), _sphere(relion_reconstruct(wrong, 1)))[1:20].min() < 0.9, name


def _sphere(volume: np.ndarray) -> np.ndarray:
    box = len(volume)
    radius = np.sqrt(((np.indices(volume.shape) - box // 2) ** 2).sum(axis=0))
    return volume * np.clip((0.4 * box - radius) / 4.0, 0.0, 1.0)
