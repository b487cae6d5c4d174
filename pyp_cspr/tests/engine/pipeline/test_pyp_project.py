"""A PYP project folder: where metadata are looked for, and alignments of PYP's first generation (.parx)."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pyp_cspr.engine.core.geometry import rotation_angle
from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.boxes import AllBoxes, write_allboxes
from pyp_cspr.engine.io.frealign import ParTable, write_par
from pyp_cspr.engine.io.pyp_dataset import PypOptics
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.pipeline.pyp_project import Binnings, PypProject
from pyp_cspr.engine.pipeline.pyp_results import Results, shell_statistics
from pyp_cspr.tests.engine.pyp_writer import REC_BINNING, positions, recorded, write_project


@pytest.fixture
def project(small_sample, tmp_path) -> Path:
    write_project(tmp_path / "project", read_dataset(small_sample))
    return tmp_path / "project"


def opened(folder: Path) -> PypProject:
    return PypProject(str(folder), PypOptics(8.0, dose=3.0), Binnings(volumes=2.0))


def test_a_pickle_stands_above_texts(project) -> None:
    texts = opened(project).series()[0]
    n = len(texts.tilt)
    tables = {
        "tomo": {name: np.array([size / REC_BINNING]) for name, size in zip("xyz", texts.specimen_size)},
        "tlt": texts.tilt[:, None] + 1.0, "order": {"order": np.arange(n)[::-1].copy()},
        "ali": np.concatenate([texts.linear.reshape(n, 4), texts.offset + 2.0], axis=1),
        "ctf": {name: np.full(n, value) for name, value in (("tilt_angle", 0.0), ("df1", 3e4), ("df2", 2e4), ("ast", 12.0))},
        "box": np.array([[10.0, 20.0, 5.0, 0.0]]), "exclude": [2],
    }
    (project / "pkl").mkdir()
    (project / "pkl" / f"{texts.name}.pkl").write_bytes(pickle.dumps(tables))
    found = opened(project).series()[0]
    assert found.specimen_size == texts.specimen_size
    assert_allclose(found.tilt, texts.tilt + 1.0)
    assert_allclose(found.offset, texts.offset + 2.0)
    assert found.order.tolist() == list(range(n))[::-1]
    assert_allclose(found.ctf, np.tile([3e4, 2e4, 12.0], (n, 1)))
    assert found.enabled.tolist() == [image != 2 for image in range(n)]
    assert_allclose(found.positions, [[40.0, 80.0, texts.specimen_size[2] - 20.0]])


@pytest.mark.parametrize("key, value", [("ctf", np.zeros((3, 4))), ("order", [1, 1, 1]), ("ali", np.zeros((2, 2))),
                                        ("tlt", ["x"])])
def test_wrong_tables_of_a_pickle_are_refused(project, key, value) -> None:
    (project / "pkl").mkdir()
    (project / "pkl" / "TS_01.pkl").write_bytes(pickle.dumps({key: value}))
    with pytest.raises(InputError, match="TS_01"):
        opened(project).series()


def test_parx_of_one_series(project, small_sample) -> None:
    """A table of the first generation, with its crops and boxes: the same data set as the stars."""
    data = read_dataset(small_sample)
    name, pixel = "TS_01", 8.0
    (project / "ribo.films").write_text(name + "\n")
    exposures = data.exposures.take(data.exposures_of(0))
    poses = data.particles["rotation"][data.particles_of(0)]
    rec = recorded(data, 0)
    true = positions(data, 0, rec)
    n, m = len(exposures), len(poses)
    boxes = [f"{i:8d}\t{x:8.1f}\t{y:8.1f}\t{z:8.1f}\t{1:8.2f}\t     Yes" for i, (x, y, z) in enumerate(true)]
    (project / "csp" / f"{name}_boxes3d.txt").write_text("PTLIDX X Y Z Score Keep_CSP\n" + "\n".join(boxes) + "\n")
    mirror = np.diag([1.0, -1.0, 1.0])
    tilt = np.rad2deg(np.arctan2(-exposures["rotation"][:, 2, 0], exposures["rotation"][:, 2, 2]))
    axis = -np.rad2deg(np.arctan2(exposures["rotation"][:, 1, 0], exposures["rotation"][:, 0, 0]))
    p, e = [index.ravel() for index in np.meshgrid(np.arange(m), np.arange(n), indexing="ij")]
    u = np.einsum("qij,qj->qi", exposures["rotation"][e], (true[p] - rec / 2))[:, :2] + exposures["shift"][e] / pixel
    u += data.series["image_size"][0] // 2
    columns = {key: np.zeros(m * n) for key in ("PSI", "THETA", "PHI", "LOGP", "CHANGE", "DOSEXX", "CNFDNC", "PTLCCX",
                                                "NORM0", "NORM1", "NORM2", "PPSI", "PTHETA", "PPHI")}
    rotations = mirror @ poses @ mirror
    for i in range(16):
        row, column = divmod(i, 4)
        columns[f"MATRIX{i:02d}"] = rotations[p, row, column] if row < 3 and column < 3 else np.zeros(m * n)
    columns["MATRIX12"] = columns["MATRIX13"] = np.full(m * n, pixel / 2)
    columns.update(NO=np.arange(m * n) + 1, SHX=np.full(m * n, pixel / 2), SHY=np.full(m * n, pixel / 2), FILM=np.zeros(m * n),
                   MAG=np.full(m * n, 1e4), DF1=exposures["defocus"][e, 0], DF2=exposures["defocus"][e, 1],
                   ANGAST=exposures["defocus"][e, 2], OCC=np.full(m * n, 100.0), SIGMA=np.ones(m * n),
                   SCORE=np.full(m * n, 17.0), PTLIND=p, TILTAN=tilt[e], SCANOR=exposures["order"][e], AXIS=axis[e])
    write_par(project / "old.parx", ParTable("parx", columns))
    write_allboxes(project / "csp" / f"{name}.allboxes", AllBoxes(np.floor(u).astype(int), e))
    found = opened(project).read_alignments(project / "old.parx")
    assert rotation_angle(found.particles["rotation"], poses).max() < 0.02  # four decimals of a matrix
    assert_allclose(found.particles["position"], data.particles["position"][data.particles_of(0)], atol=0.05 * pixel + 0.01)
    assert rotation_angle(found.exposures["rotation"], exposures["rotation"]).max() < 0.01
    assert np.abs(found.exposures["shift"] - exposures["shift"]).max() < 0.5 * pixel
    assert np.abs((found.exposures["shift"] - exposures["shift"]).mean(axis=0)).max() < 0.12 * pixel
    assert_allclose(found.particles["score"], 17.0)


def test_a_fresh_start_moves_what_is_there(project) -> None:
    results = Results(opened(project))
    for folder in ("frealign/maps", "ali/ribo_r01_02", "frealign/scratch/ribo_r01_from02"):
        (project / folder).mkdir(parents=True)
    (project / "frealign/maps/ribo_r01_02.mrc").write_bytes(b"map")
    (project / "frealign/maps/other_r01_02.mrc").write_bytes(b"of another data set")
    first = results.set_aside()
    assert (first / "maps/ribo_r01_02.mrc").read_bytes() == b"map"
    assert (first / "ali/ribo_r01_02").is_dir()
    assert (first / "scratch/ribo_r01_from02").is_dir()
    assert (project / "frealign/maps/other_r01_02.mrc").exists()
    (project / "frealign/maps/ribo_r01_02.mrc").write_bytes(b"second")
    assert (results.set_aside() / "maps/ribo_r01_02.mrc").read_bytes() == b"second"
    assert (first / "maps/ribo_r01_02.mrc").read_bytes() == b"map"


def test_statistics_follow_the_fsc() -> None:
    curve = np.linspace(0.99, 0.0, 16)
    statistics = shell_statistics(8.0, 32, curve, curve, 4000.0, 500)
    assert_allclose(statistics.rec_ssnr, 2 * curve / (1 - curve), rtol=2e-3)
    assert (np.diff(statistics.part_ssnr) < 0).all()
    more = shell_statistics(8.0, 32, curve, curve, 4000.0, 1000)
    assert_allclose(more.part_ssnr, statistics.part_ssnr / 2)  # the same map from twice as many projections
