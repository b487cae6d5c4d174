"""The command csp on a PYP project that a writer of its own has made: it runs, improves the map, goes on, and starts fresh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from pyp_cspr.engine.cli import csp
from pyp_cspr.engine.cli import main as cspr
from pyp_cspr.engine.core.filters import soft_mask
from pyp_cspr.engine.core.fsc import fsc
from pyp_cspr.engine.core.geometry import rotation_angle
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.pyp_config import read_configuration
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.model.pyp_settings import project_of
from pyp_cspr.engine.pipeline.pyp_run import open_project
from pyp_cspr.tests.engine.pyp_writer import write_iteration, write_project

SAMPLE = ["--series", "3", "--particles", "12", "--tilts", "9", "--box", "32", "--pixel", "8", "--seed", "3"]
ERRORS = ["--pose-error", "3", "--position-error", "6", "--tilt-error", "0.4", "--axis-error", "0.3", "--shift-error", "4"]
COMMAND = ["-csp_refine", "alignments.txt", "-csp_model", "model.mrc", "-particle_fmt", "frealign", "-tasks_per_arr", "2"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "data"
    assert cspr(["sample", str(folder), *SAMPLE, *ERRORS]) == 0
    return folder


def make_project(sample: Path, folder: Path) -> Path:
    write_project(folder, read_dataset(sample), "C3")
    with open(folder / ".pyp_config", "a") as stream:
        stream.write("executor = local\n")  # even where a cluster would answer
    volume, pixel = read_map(sample / "reference.mrc")
    with mrcfile.new(str(folder / "model.mrc")) as mrc:
        mrc.set_data(low_pass(volume, pixel, 40.0))
        mrc.voxel_size = pixel
    return folder


def low_pass(volume: np.ndarray, pixel: float, resolution: float) -> np.ndarray:
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(n, pixel) for n in volume.shape], indexing="ij")))
    return np.fft.ifftn(np.fft.fftn(volume) * (frequency < 1 / resolution)).real.astype(np.float32)


@pytest.fixture
def project(sample, tmp_path, monkeypatch) -> Path:
    folder = make_project(sample, tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def quality(path: Path, sample: Path) -> float:
    """Mean FSC with the truth over the shells."""
    truth, pixel = read_map(sample / "reference.mrc")
    mask = soft_mask(truth, pixel).values
    return float(np.mean(fsc(read_map(path)[0] * mask, truth * mask)[1:13]))


def opened(folder: Path):
    return open_project(str(folder), project_of(read_configuration(folder, ["-csp_model", "model.mrc"])))


def assert_same_start(found, sample: Path, position: float) -> None:
    """The data set as RELION's stars have it."""
    truth = read_dataset(sample)
    assert found.series["name"].tolist() == truth.series["name"].tolist()
    assert rotation_angle(found.particles["rotation"], truth.particles["rotation"]).max() < 1e-3
    assert rotation_angle(found.exposures["rotation"], truth.exposures["rotation"]).max() < 1e-3
    np.testing.assert_allclose(found.particles["position"], truth.particles["position"], atol=position)
    np.testing.assert_allclose(found.exposures["defocus"], truth.exposures["defocus"], atol=0.1)
    for name in ("order", "dose", "dose_before", "slice"):
        np.testing.assert_allclose(found.exposures[name], truth.exposures[name])
    for row in range(len(truth.series)):
        np.testing.assert_allclose(found.project(row)[1], truth.project(row)[1], atol=0.05)
    for name in ("pixel", "voltage", "cs", "amplitude_contrast", "hand", "image_size", "contrast"):
        assert (found.series[name] == truth.series[name]).all(), name
    assert (found.box, found.box_pixel) == (truth.box, truth.box_pixel)


def test_a_project_is_read_as_it_was_written(sample, project) -> None:
    read = opened(project)
    found = read.read_alignments(project / "alignments.txt")
    assert read.notes == []
    assert_same_start(found, sample, 0.01)
    truth = read_dataset(sample)
    np.testing.assert_allclose(found.exposures["shift"], truth.exposures["shift"], atol=1e-3)


def test_an_iteration_of_pyp_is_read_as_it_was_written(sample, project) -> None:
    """.cistem tables by another writer, crops at the floor: particles are seen where they were, to the floor's own jitter."""
    data = read_dataset(sample)
    write_iteration(project, data, 4, read_map(sample / "reference.mrc")[0])
    read = opened(project)
    assert read.iterations() == [4]
    found = read.read_alignments(read.alignments_of(4))
    assert_same_start(found, sample, 0.01)
    jitter = (found.exposures["shift"] - data.exposures["shift"]) / 8.0
    assert np.abs(jitter).max() < 0.45  # means of 12 crops
    assert np.abs(jitter.mean(axis=0)).max() < 0.07  # no half pixel


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_documented_command(sample, project, capsys) -> None:
    """It runs to the end and improves the map; again it continues, and nothing is overwritten."""
    assert csp.main(COMMAND) == 0
    maps = project / "frealign" / "maps"
    for ending in (".mrc", ".bz2", "_statistics.txt"):
        assert (maps / f"ribo_r01_02{ending}").exists()
    for ending in (".xf", ".tlt"):
        assert (project / "ali" / "ribo_r01_02" / f"TS_01{ending}").exists()
    for name in ("ribo_r01_01.mrc", "ribo_r01_half1.mrc", "ribo_r01_half2.mrc", "ribo_r01_fsc.txt"):
        assert (maps / name).exists()
    chunks = list((project / "frealign/scratch/ribo_r01_from02/run/iterations/001/chunks").iterdir())
    assert len(chunks) == 2  # of 3 series, 2 per task
    start = quality(project / "frealign/scratch/ribo_r01_from02/run/iterations/000/map.mrc", sample)
    assert quality(maps / "ribo_r01_02.mrc", sample) > start + 0.02
    curve = np.loadtxt(maps / "ribo_r01_fsc.txt")
    assert curve.shape == (16, 2)
    np.testing.assert_allclose(curve[:, 0], 8.0 * 32 / np.arange(1, 17), rtol=1e-3)
    before = {path: path.read_bytes() for path in maps.glob("ribo_r01_0[12]*")}

    capsys.readouterr()
    assert csp.main(COMMAND) == 0
    assert "going on after iteration 2" in capsys.readouterr().out
    assert quality(maps / "ribo_r01_03.mrc", sample) > start + 0.02
    assert (maps / "ribo_r01_03.bz2").exists()
    assert all(path.read_bytes() == content for path, content in before.items())
    assert np.loadtxt(maps / "ribo_r01_fsc.txt").shape == (16, 3)
    assert not (project / "frealign/scratch/ribo_r01_from03").exists()  # the same run went on


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_other_settings_start_a_new_run_and_skip_starts_fresh(sample, project, capsys) -> None:
    """One chunk, in this process. Nothing that was there is overwritten: a fresh start moves it away."""
    command = [*COMMAND[:-1], "3"]
    maps = project / "frealign" / "maps"
    assert csp.main(command) == 0
    assert csp.main([*command, "-rhref", "30"]) == 0
    assert (maps / "ribo_r01_03.bz2").exists()
    assert (project / "frealign/scratch/ribo_r01_from03").exists()
    second, third = ((maps / f"ribo_r01_{number:02d}.mrc").read_bytes() for number in (2, 3))
    assert csp.main([*command, "-csp_skip", "True"]) == 0
    assert "previous_01" in capsys.readouterr().out
    assert not (maps / "ribo_r01_03.bz2").exists()
    away = project / "frealign/previous_01"
    assert [(away / f"maps/ribo_r01_{number:02d}.mrc").read_bytes() for number in (2, 3)] == [second, third]
    assert (away / "ali/ribo_r01_02/TS_01.xf").exists()
    np.testing.assert_allclose(read_map(maps / "ribo_r01_02.mrc")[0], read_map(away / "maps/ribo_r01_02.mrc")[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_project_of_pyp_goes_on_here(sample, project, capsys) -> None:
    """PYP's own iteration 4 is there: the next one is 5, with neither alignments nor map given."""
    write_iteration(project, read_dataset(sample), 4, low_pass(*read_map(sample / "reference.mrc"), 40.0))
    assert csp.main(["-tasks_per_arr", "3"]) == 0
    assert "going on after iteration 4" in capsys.readouterr().out
    first = quality(project / "frealign/scratch/ribo_r01_from05/run/iterations/000/map.mrc", sample)
    assert quality(project / "frealign/maps/ribo_r01_05.mrc", sample) > first + 0.02


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_interactive_shows_projections_of_one_chunk(project, capsys) -> None:
    assert csp.main([*COMMAND, "-interactive"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("/")]
    assert any(line.endswith(".png") for line in shown)
    assert all(Path(line).exists() for line in shown)
    assert not list((project / "frealign/maps").glob("*_02*"))


def test_a_fresh_start_from_what_it_would_move_is_refused(sample, project, capsys) -> None:
    write_iteration(project, read_dataset(sample), 4, read_map(sample / "reference.mrc")[0])
    words = ["-csp_refine", "alignments.txt", "-csp_model", "frealign/maps/ribo_r01_04.mrc", "-csp_skip", "True"]
    assert csp.main(words) == 2
    assert "moves away" in capsys.readouterr().err
    assert (project / "frealign/maps/ribo_r01_04.bz2").exists()


@pytest.mark.parametrize("words, message", [
    ([], "give -csp_refine"),
    (["-csp_refine", "nothing.txt", "-csp_model", "model.mrc"], "no such file"),
    (["-csp_refine", "alignments.txt"], "give -csp_model"),
    ([*COMMAND, "-csp_refin_particles", "True"], "did you mean csp_refine_particles"),
    ([*COMMAND, "-particle_fmt", "eman"], "particle_fmt eman"),
    ([*COMMAND, "-data_mode", "spr"], "data_mode spr"),
    ([*COMMAND, "-dataset", "other"], "no other.films"),
])
def test_what_cannot_be_is_one_line(project, capsys, words, message) -> None:
    assert csp.main(words) == 2
    err = capsys.readouterr().err
    errors = [line for line in err.splitlines() if line.startswith("csp: error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (project / "frealign").exists()


def test_files_of_a_series_that_are_missing_are_named(project, capsys) -> None:
    for name, message in (("ali/TS_02.xf", "TS_02.xf"), ("ctf/TS_03.ctf", "TS_03.ctf"), ("mrc/TS_01.rec", "TS_01.rec"),
                          ("mrc/TS_02.mrc", "TS_02.mrc"), ("csp/TS_02_boxes3d.txt", "add it to csp/TS_02_boxes3d.txt")):
        (project / name).rename(project / "away")
        assert csp.main(COMMAND) == 2
        assert message in capsys.readouterr().err
        (project / "away").rename(project / name)


@pytest.mark.timeout(60)
def test_help_is_a_command(tmp_path) -> None:
    done = subprocess.run([sys.executable, "-m", "pyp_cspr.engine.cli.csp", "-help"], capture_output=True, text=True,
                          cwd=tmp_path, check=False, env={"PYTHONPATH": str(Path(__file__).parents[4])})
    assert done.returncode == 0
    assert "csp_refine_particles" in done.stdout
