"""PYP projects as sets and sets as projects of PYP and RELION: round trips in the host, and what the forms refuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tomo.objects import AverageSubTomogram

from pyp_cspr.engine.cli import main as cspr
from pyp_cspr.engine.core.geometry import rotation_angle
from pyp_cspr.engine.io.mrc import open_stack, read_map, write_map
from pyp_cspr.engine.io.relion import read_dataset, write_dataset
from pyp_cspr.engine.io.relion_spa import read_spa
from pyp_cspr.protocols import ProtPypCsprExport, ProtPypCsprImport

from .sets import make_sets, write_image

pytestmark = pytest.mark.timeout(300)
SAMPLE = ["--series", "2", "--particles", "8", "--tilts", "9", "--box", "32", "--pixel", "8", "--position-error", "5"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A PYP project with half-sets, scores, weights and an excluded view, that has come to iteration 4."""
    folder = tmp_path_factory.mktemp("convert")
    assert cspr(["sample", str(folder / "sample"), *SAMPLE]) == 0
    dataset = read_dataset(folder / "sample")
    random = np.random.default_rng(2)
    count = len(dataset.particles)
    dataset.particles["half"] = random.permutation(np.arange(count) % 2 + 1)
    dataset.particles["score"] = random.uniform(10, 40, count)
    dataset.particles["weight"] = random.choice([0.5, 1.0], count)
    dataset.exposures["enabled"][3] = False
    write_dataset(dataset, folder / "data")
    pyp = folder / "pyp"
    reference = str(folder / "sample" / "reference.mrc")
    assert cspr(["convert", str(folder / "data"), str(pyp), "--to", "pyp", "--map", reference]) == 0
    maps = pyp / "frealign" / "maps"
    for ending in (".bz2", ".mrc"):
        shutil.copyfile(maps / f"pyp_r01_01{ending}", maps / f"pyp_r01_04{ending}")
    values, pixel = read_map(reference)
    for number in (1, 2):
        write_map(maps / f"pyp_r01_half{number}.mrc", values + np.float32(number), pixel)
    write_map(maps / "pyp_r01_04.mrc", 2 * values, pixel)
    return folder


@pytest.fixture(scope="module")
def converted(project, host):
    _, environment = host
    environment = dict(environment, SCIPION_USER_DATA=str(project / "user"))
    line = [sys.executable, str(Path(__file__).with_name("run_convert.py")), str(project)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=280, env=environment, cwd=project, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-3000:] + done.stderr[-5000:]
    numbers = {}
    for name in ("first", "pyp", "parx"):
        with np.load(project / f"{name}.npz") as arrays:
            numbers[name] = dict(arrays)
    return SimpleNamespace(found=json.loads(lines[-1][7:]), numbers=numbers, folder=project)


def assert_same(found, dataset, place: float, angle: float, tilt: float, defocus: float, score: float = 1e-4) -> None:
    """Sets (their arrays) hold the numbers of a data set, to these tolerances."""
    particles, exposures = dataset.particles, dataset.exposures
    np.testing.assert_array_equal(found["particles.half"], particles["half"])
    np.testing.assert_allclose(found["particles.score"], particles["score"], atol=score)
    np.testing.assert_allclose(found["particles.weight"], particles["weight"], rtol=1e-6)
    np.testing.assert_allclose(found["particles.position"], particles["position"], atol=place)
    assert rotation_angle(found["particles.rotation"], particles["rotation"]).max() < angle
    assert rotation_angle(found["exposures.rotation"], exposures["rotation"]).max() < tilt
    np.testing.assert_allclose(found["exposures.shift"], exposures["shift"], atol=max(place, 1e-3))
    np.testing.assert_allclose(found["exposures.defocus"], exposures["defocus"], atol=defocus)
    for name in ("dose_before", "dose"):
        np.testing.assert_allclose(found[f"exposures.{name}"], exposures[name], atol=1e-5)
    for name in ("order", "slice"):
        np.testing.assert_array_equal(found[f"exposures.{name}"], exposures[name])
    assert found["names"].tolist() == dataset.series["name"].tolist()
    np.testing.assert_array_equal(found["size"], dataset.series["specimen_size"])
    np.testing.assert_allclose(found["pixel"], dataset.series["pixel"])


@pytest.mark.slow
def test_a_pyp_project_becomes_all_sets_that_refinement_needs(converted) -> None:
    one = converted.found["first"]
    assert sorted(one["outputs"]) == ["coordinates", "ctfs", "reference", "subTomograms", "tiltSeries", "tomograms"]
    assert one["outputs"]["subTomograms"].startswith("SubTomograms (16 items")
    assert one["summary"][0] == "16 particles of 2 tilt series, half-sets of 8 and 8."
    assert one["summary"][1] == f"Alignments: {converted.folder}/pyp/frealign/maps/pyp_r01_04.bz2"
    assert_same(converted.numbers["first"], read_dataset(converted.folder / "data"), 1e-4, 1e-4, 1e-4, 0.1)
    assert all(os.path.samefile(image, converted.folder / "sample" / Path(image).name) for image in one["images"])
    assert one["fits"] == [0.0]  # as where no program has estimated it
    # picked places are whole voxels beside the particles
    away = converted.numbers["first"]["coordinates"] - converted.numbers["first"]["particles.position"]
    assert 0.1 < np.abs(away).max() <= 8.001  # half of 16 A


@pytest.mark.slow
def test_the_map_is_that_of_the_iteration_with_its_half_maps(converted) -> None:
    one = converted.found["first"]
    reference, pixel = read_map(converted.folder / "sample" / "reference.mrc")
    assert one["pixel"] == pixel
    np.testing.assert_allclose(read_map(one["reference"])[0], 2 * reference)
    for number, half in enumerate(one["halves"], 1):
        np.testing.assert_allclose(read_map(half)[0], reference + number, atol=1e-6)
    assert len(one["halves"]) == 2
    assert "pyp/frealign" not in one["reference"]  # a copy: the next iteration of PYP replaces half maps
    cube, voxel = read_map(one["cube"])
    assert voxel * len(cube) == pytest.approx(32 * 8.0, abs=2 * voxel)


@pytest.mark.slow
def test_sub_tomograms_are_white_and_centred(converted) -> None:
    """Their mean is brightest within the particle."""
    cubes = sorted(Path(converted.found["first"]["cube"]).parent.glob("*.mrc"))
    assert len(cubes) == 16
    mean = sum(read_map(cube)[0] for cube in cubes) / 16
    axis = np.arange(len(mean)) - len(mean) // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) * 8.0
    assert mean[radius < 40].mean() > mean[(radius > 80) & (radius < 110)].mean() + 3 * mean[radius > 110].std() / 10


@pytest.mark.slow
@pytest.mark.parametrize("name, tolerances", [("pyp", (1e-4, 1e-4, 1e-4, 0.1)), ("parx", (3e-3, 0.01, 0.006, 0.3, 0.006))])
def test_sets_to_pyp_and_back(converted, name, tolerances) -> None:
    """To float32 in a .cistem; a .parx has two decimals of a tilt angle and of a score."""
    assert_same(converted.numbers[name], read_dataset(converted.folder / "data"), *tolerances)
    reference, _ = read_map(converted.found["first"]["reference"])
    again, pixel = read_map(converted.found[name]["reference"])
    assert pixel == converted.found["first"]["pixel"]
    np.testing.assert_array_equal(again, reference)
    assert converted.found[name]["halves"] == []
    # the view that was excluded is not used after the way through PYP, which has no word for it, either
    np.testing.assert_array_equal(converted.numbers[name]["used"], converted.numbers["first"]["used"])


@pytest.mark.slow
def test_sets_to_relion(converted) -> None:
    folder, first = converted.folder, converted.numbers["first"]
    for form in ("relion5", "relion4"):
        written = converted.found[f"to {form}"]
        counts = "16 particles of 2 tilt series, half-sets of 8 and 8"
        assert written["summary"][0] == f"{counts}, for RELION {form[-1]} tomography."
        data = read_dataset(written["written"])
        for name in ("position", "rotation", "half"):
            np.testing.assert_allclose(data.particles[name], first[f"particles.{name}"], atol=1e-6)
        for name in ("rotation", "shift", "defocus"):
            np.testing.assert_allclose(data.exposures[name], first[f"exposures.{name}"], atol=1e-6)
        np.testing.assert_array_equal(np.concatenate([data.used(0), data.used(1)]), first["used"])
        assert (data.box, data.box_pixel) == (32, 8.0)
        assert (Path(written["written"]).parent / "reference.mrc").exists()
    star = folder / "to relion-spa" / "particles.star"
    assert converted.found["to relion-spa"]["written"] == str(star)
    single = read_spa(star)
    assert len(single.particles) == first["used"].sum()
    stacks = sorted((folder / "to relion-spa" / "stacks").glob("*.mrcs"))
    assert sum(open_stack(stack).n for stack in stacks) == first["used"].sum()
    assert open_stack(stacks[0]).nx == 32


# --- forms ---------------------------------------------------------------------------------------------------------------


def one_error(protocol) -> str:
    errors = protocol._validate()
    assert len(errors) == 1, errors
    assert errors[0].endswith(".")
    assert "\n" not in errors[0]
    return errors[0]


def test_what_can_be_imported_is_accepted(project) -> None:
    protocol = ProtPypCsprImport()
    for path in (project / "pyp", project / "pyp" / "frealign" / "maps" / "pyp_r01_01.bz2"):
        protocol.projectPath.set(str(path))
        assert protocol._validate() == []
        assert protocol._warnings() == []
        assert protocol._source() == (str(project / "pyp"), "" if path.name == "pyp" else str(path))
    assert protocol._summary() == ["Not ready yet."]


@pytest.mark.parametrize("path, words", [
    ("", "Give the folder"), ("nowhere", "nowhere does not exist"), ("sample", "is no PYP project, nor a file in one"),
    ("pyp/mrc", "holds no alignments"), ("pyp/frealign/maps/pyp_r01_01.mrc", "holds no alignments"),
])
def test_what_cannot_be_imported_is_refused(project, path, words) -> None:
    protocol = ProtPypCsprImport()
    protocol.projectPath.set(str(project / path) if path else "")
    assert words in one_error(protocol)


def test_a_project_without_alignments_or_map(project, tmp_path) -> None:
    shutil.copytree(project / "pyp", tmp_path / "pyp", symlinks=True)
    maps = tmp_path / "pyp" / "frealign" / "maps"
    protocol = ProtPypCsprImport()
    protocol.projectPath.set(str(tmp_path / "pyp"))
    for path in maps.glob("*.mrc"):
        path.unlink()
    assert "no reference among the outputs" in protocol._warnings()[0]
    protocol.referencePath.set(str(project / "sample" / "reference.mrc"))
    assert protocol._warnings() == []
    protocol.referencePath.set(str(tmp_path / "gone.mrc"))
    assert "gone.mrc does not exist" in one_error(protocol)
    protocol.referencePath.set("")
    for path in maps.glob("*.bz2"):
        path.unlink()
    assert "nothing has been refined yet" in one_error(protocol)


@pytest.fixture
def export(tmp_path):
    made = make_sets(tmp_path / "sets", pixel=5.0, coordinate_pixel=10.0, sub_pixel=10.0)
    protocol = ProtPypCsprExport()
    protocol.setWorkingDir(str(tmp_path / "run"))
    for name, value in (("inputParticles", made.particles), ("inputTiltSeries", made.tilt_series), ("inputCTFs", made.ctfs)):
        getattr(protocol, name).set(value)
    return protocol


def test_what_can_be_exported_is_accepted(export, tmp_path) -> None:
    for number in range(5):
        export.exportTo.set(number)
        assert export._validate() == []
        assert export._target() == str(tmp_path / "run" / "extra" / "export" / export._form())
    export.outputFolder.set(str(tmp_path / "new" / "folder"))
    assert export._validate() == []
    assert export._target() == str(tmp_path / "new" / "folder")
    assert export._summary() == ["Not ready yet."]


def test_folders_that_would_be_overwritten_are_refused(export, tmp_path) -> None:
    export.outputFolder.set(str(tmp_path / "sets"))
    assert "is not empty" in one_error(export)
    export.overwrite.set(True)
    assert export._validate() == []
    (tmp_path / "file").write_text("mine")
    export.outputFolder.set(str(tmp_path / "file"))
    assert "is a file" in one_error(export)


def test_maps_that_do_not_fit_pyp_are_refused(export, tmp_path) -> None:
    reference = AverageSubTomogram()
    reference.setFileName(write_image(tmp_path / "map.mrc", (16, 16, 16), 10.0))
    export.inputReference.set(reference)
    for pixel, words in ((10.0, ""), (5.0, ""), (7.5, "no whole multiple"), (2.5, "no whole multiple")):
        reference.setSamplingRate(pixel)
        if words:
            assert words in one_error(export)
        else:
            assert export._validate() == []
    export.exportTo.set(2)  # RELION takes any
    assert export._validate() == []
    reference.setFileName(write_image(tmp_path / "odd.mrc", (16, 16, 12), 10.0))
    assert "must be a cube" in one_error(export)


def test_options_go_to_the_forms_that_have_them(export) -> None:
    export.writeImages.set(True)
    export.boxSize.set(48)
    options = []
    for number in range(5):
        export.exportTo.set(number)
        options.append(export._options())
    assert options == [["--to", "pyp", "--stacks"], ["--to", "pyp-parx", "--stacks"], ["--to", "relion5"], ["--to", "relion4"],
                       ["--to", "relion-spa", "--stacks", "--box", 48]]
    export.boxSize.set(47)
    assert "must be even" in one_error(export)
