"""The command csp on a PYP project that a writer of its own has made: it runs, improves the map, goes on, and starts fresh."""

from __future__ import annotations

import json
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
from pyp_cspr.engine.io.mrc import read_map, write_map
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
    said = capsys.readouterr()
    assert "going on after iteration 2" in said.out
    assert "not read" not in said.err  # it is what the project was started from
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


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_an_iteration_that_was_being_written_is_written_again(project, capsys) -> None:
    """Killed before the archive, which comes last. Curves of maps of another box are kept aside."""
    command = [*COMMAND[:-1], "3"]
    assert csp.main(command) == 0
    maps, request = project / "frealign/maps", project / "frealign/scratch/ribo_r01_from02/csp.json"
    (maps / "ribo_r01_02.bz2").unlink()
    request.write_text(json.dumps(dict(json.loads(request.read_text()), published=1, writing=2)))
    others = "".join(f"{256 / shell:14.6f} {1 / shell:14.6f}\n" for shell in range(1, 15))
    (maps / "ribo_r01_fsc.txt").write_text(others)
    capsys.readouterr()
    assert csp.main(command) == 0
    assert "ribo_r01_fsc.txt: has other shells than this map" in capsys.readouterr().err
    assert (maps / "ribo_r01_02.bz2").exists()
    assert (maps / "ribo_r01_fsc_01.txt").read_text() == others
    assert np.loadtxt(maps / "ribo_r01_fsc.txt").shape == (16, 2)


@pytest.mark.timeout(120)
def test_a_result_that_is_there_is_never_written_over(project, capsys) -> None:
    """Nor is anything computed before that is said; and asked twice, the answer is the same."""
    maps = project / "frealign" / "maps"
    maps.mkdir(parents=True)
    (maps / "ribo_r01_02.mrc").write_bytes(b"somebody's")
    for _ in range(2):
        assert csp.main(COMMAND) == 2
        assert "ribo_r01_02.mrc: is there already" in capsys.readouterr().err
        assert (maps / "ribo_r01_02.mrc").read_bytes() == b"somebody's"
    assert not list((project / "frealign/scratch").glob("*/run/iterations/*"))
    assert len(list((project / "frealign/scratch").iterdir())) == 1


@pytest.mark.timeout(120)
def test_another_start_before_the_first_iteration_is_another_run(project, capsys) -> None:
    """A map that is in the way ends the command before it computes."""
    (project / "frealign/maps").mkdir(parents=True)
    (project / "frealign/maps/ribo_r01_02.mrc").write_bytes(b"somebody's")
    (project / "other.txt").write_bytes((project / "alignments.txt").read_bytes())
    (project / "other.mrc").write_bytes((project / "model.mrc").read_bytes())
    runs = project / "frealign/scratch"
    for words, count in ((COMMAND, 1), (["-csp_refine", "other.txt", *COMMAND[2:]], 2), (COMMAND, 2),
                         ([*COMMAND[:2], "-csp_model", "other.mrc", *COMMAND[4:]], 3)):
        assert csp.main(words) == 2
        assert len(list(runs.iterdir())) == count
    requests = [json.loads((runs / f"ribo_r01_from02{end}/csp.json").read_text()) for end in ("", "_2", "_3")]
    assert [Path(one["start"]).name for one in requests] == ["alignments.txt", "other.txt", "alignments.txt"]
    assert [Path(one["reference"]).name for one in requests] == ["model.mrc", "model.mrc", "other.mrc"]
    capsys.readouterr()


@pytest.mark.timeout(120)
def test_a_start_or_optics_that_changed_make_another_run(project, capsys) -> None:
    """The first of them is found again. A map that is in the way ends the command before it computes."""
    (project / "frealign/maps").mkdir(parents=True)
    (project / "frealign/maps/ribo_r01_02.mrc").write_bytes(b"somebody's")

    def runs(*words: str) -> int:
        assert csp.main([*COMMAND, *words]) == 2
        return len(list((project / "frealign/scratch").iterdir()))

    assert [runs(), runs()] == [1, 1]
    changes = [("-csp_ctf_handedness", "True"), ("-scope_cs", "1.1"), ("-scope_wgh", "0.2"), ("-scope_dose_rate", "7.5"),
               ("-scope_voltage", "200"), ("-scope_init_dose", "4"), ("-data_invert", "True"), ("-tomo_ext_binn", "1")]
    for count, words in enumerate(changes, start=2):
        assert runs(*words) == count, words
    assert runs() == len(changes) + 1
    volume, pixel = read_map(project / "model.mrc")
    write_map(project / "model.mrc", 2.0 * volume, pixel)
    assert runs() == len(changes) + 2
    table = project / "alignments.txt"
    lines = table.read_text().splitlines(True)
    table.write_text("".join(lines[:-1]))  # a particle less
    assert runs() == len(changes) + 3
    assert runs() == len(changes) + 3
    capsys.readouterr()


@pytest.mark.timeout(120)
def test_optics_that_changed_while_going_on_make_another_run(sample, project, capsys) -> None:
    """PYP's iteration 4 is there. To name a map or not is no change; a run of a version that kept no optics is another."""
    write_iteration(project, read_dataset(sample), 4, read_map(sample / "reference.mrc")[0])
    (project / "frealign/maps/ribo_r01_05.mrc").write_bytes(b"in the way")
    config = project / ".pyp_config"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "extract_box" not in line))

    def runs(*words: str) -> int:
        assert csp.main(["-tasks_per_arr", "2", *words]) == 2
        return len(list((project / "frealign/scratch").iterdir()))

    assert runs("-csp_model", "model.mrc") == 1
    assert runs() == 1
    assert runs("-csp_ctf_handedness", "True") == 2
    assert read_dataset(project / "frealign/scratch/ribo_r01_from05_2/input").series["hand"].tolist() == [1.0] * 3
    assert runs("-csp_ctf_handedness", "True") == 2
    assert runs() == 2
    request = project / "frealign/scratch/ribo_r01_from05/csp.json"
    old = {name: value for name, value in json.loads(request.read_text()).items() if name not in ("optics", "binnings")}
    request.write_text(json.dumps(old))
    assert [runs(), runs()] == [3, 3]
    capsys.readouterr()


@pytest.mark.timeout(120)
def test_a_start_that_is_not_read_when_going_on_is_said(sample, project, capsys) -> None:
    """PYP's iteration 4 is there. What is typed is said in one note; what a file says, it has said since the start."""
    write_iteration(project, read_dataset(sample), 4, read_map(sample / "reference.mrc")[0])
    (project / "frealign/maps/ribo_r01_05.mrc").write_bytes(b"in the way")
    assert csp.main(COMMAND) == 2
    notes = [line for line in capsys.readouterr().err.splitlines() if "not read" in line]
    assert notes == ["note: not read: -csp_refine alignments.txt, -csp_model model.mrc; the run goes on from iteration 4, "
                     "-csp_skip True starts it anew"]
    with open(project / ".pyp_config", "a") as stream:
        stream.write("csp_refine = alignments.txt\ncsp_model = model.mrc\n")
    assert csp.main(COMMAND[4:]) == 2
    assert "not read" not in capsys.readouterr().err


def test_the_pixel_is_that_of_the_images_wherever_they_are(project) -> None:
    config = project / ".pyp_config"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "scope_pixel" not in line))
    assert opened(project).optics.pixel == 8.0
    (project / "mrc/TS_01.mrc").rename(project / "TS_01.st")
    assert opened(project).optics.pixel == 8.0


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
    ([*COMMAND, "-slurm_walltime", "abc"], "command line: walltime 'abc'; write days-hours:minutes:seconds"),
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
                          cwd=tmp_path, check=False, timeout=50, env={"PYTHONPATH": str(Path(__file__).parents[4])})
    assert done.returncode == 0
    assert "csp_refine_particles" in done.stdout
