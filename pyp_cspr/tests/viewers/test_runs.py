"""What run folders hold while a run goes on and afterwards, and every figure of the viewers drawn from them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pyp_cspr.engine.cli import main
from pyp_cspr.engine.io.mrc import read_map
from pyp_cspr.engine.io.relion import read_dataset
from pyp_cspr.engine.pipeline.store import RunStore
from pyp_cspr.viewers import runs, viewer_convert, viewer_data, viewer_postprocess, viewer_reconstruct, viewer_refine
from pyp_cspr.viewers.runs import NotYet, ReconstructionRun, RefinementRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
SAMPLE = ["--series", "2", "--particles", "6", "--tilts", "7", "--box", "32", "--pixel", "8", "--pose-error", "3"]
MACHINE = ["--processes", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A sample, its refinement, reconstruction, filtered particles and post-processed map."""
    folder = tmp_path_factory.mktemp("runs")
    data, reference = str(folder / "data"), str(folder / "data" / "reference.mrc")
    names = {name: str(folder / name) for name in ("refine", "reconstruct", "filter", "postprocess")}
    assert main(["sample", data, *SAMPLE]) == 0
    refine = ["refine", data, "--reference", reference, "--out", names["refine"], "--iterations", "2", *MACHINE]
    assert main([*refine, "--set", "resolution=40:30"]) == 0
    assert main(["reconstruct", data, "--out", names["reconstruct"], "--box", "32", *MACHINE]) == 0
    assert main(["filter", names["refine"], "--out", names["filter"], "--score", "auto", "--distance", "1"]) == 0
    halves = [str(folder / "refine" / f"half{number}.mrc") for number in (1, 2)]
    assert main(["postprocess", *halves, "--out", names["postprocess"], "--threads", "1"]) == 0
    return folder


@pytest.fixture
def going_on(folders, tmp_path):
    """The refinement as it was in the second iteration, with one of two chunks done."""
    folder = tmp_path / "refine"
    shutil.copytree(folders / "refine", folder)
    (folder / "summary.json").unlink()
    for name in ("summary.json", "result.npz", "map.mrc"):
        (folder / "iterations" / "002" / name).unlink()
    (folder / "iterations" / "002" / "chunks" / "0001" / "manifest.json").unlink()
    return RefinementRun(str(folder), 5)


def chosen(**values) -> SimpleNamespace:
    return SimpleNamespace(**dict(dict(iteration=-1, series="all", map=0, chunk=0), **values))


def drawn(figure) -> np.ndarray:
    """The pixels of a figure: drawing finds what making it does not."""
    figure.set_facecolor("white")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_a_finished_refinement(folders) -> None:
    run = RefinementRun(str(folders / "refine"), 2)
    summary = json.loads((folders / "refine" / "summary.json").read_text())
    assert run.finished() == 3
    assert run.state() == "Finished after iteration 2: all iterations done."
    data = run.data()
    assert data.history == summary["iterations"]
    assert data.reason == "all iterations done"
    assert run.data() is data  # nothing is read twice
    assert [entry["iteration"] for entry in run.data(1).history] == [0, 1]
    with pytest.raises(NotYet, match=r"Iteration 3 is not done\."):
        run.data(3)


def test_a_refinement_that_goes_on(going_on) -> None:
    assert going_on.state() == "Iteration 1 of at most 5 is done. Iteration 2 is going on: 1 of 2 chunks done."
    assert len(going_on.data().history) == 2
    assert going_on.data().reason == ""
    assert going_on.maps().name == "001"
    before = going_on.stamp()
    (going_on.folder / "iterations" / "002" / "summary.json").write_text("{}")
    assert going_on.stamp() != before


def test_a_refinement_that_has_not_begun(tmp_path) -> None:
    run = RefinementRun(str(tmp_path / "none"), 4)
    assert run.state() == "The refinement has not started yet."
    for look in (run.data, run.maps):
        with pytest.raises(NotYet, match="has not started yet"):
            look()
    assert run.stamp() == ()
    reconstruction = ReconstructionRun(str(tmp_path / "none"))
    with pytest.raises(NotYet, match="has not started yet"):
        reconstruction.summary()


def test_chunks_tell_what_they_did(folders, going_on, tmp_path) -> None:
    store = RunStore(folders / "refine" / "iterations" / "002")
    text = runs.chunk_text(store, 1, tmp_path, 2)
    assert text.startswith("Chunk 1 of iteration 2\nTilt series: TS_02\nState: done\n\nProjections: 42, of which 0 outside")
    assert "TS_02: " in text
    assert "evaluations up to 3" in text
    (tmp_path / "iteration_002_chunk_0001.log").write_text("cspr chunk: error: no space left\n")
    text = runs.chunk_text(going_on.store(2), 1, tmp_path, 2)
    assert "State: not done" in text
    assert text.endswith("Log of its job (iteration_002_chunk_0001.log):\n\ncspr chunk: error: no space left\n\n")
    with pytest.raises(NotYet, match="the chunks are 0 to 1"):
        runs.chunk_text(store, 2, tmp_path, 2)
    with pytest.raises(NotYet, match="No chunks are planned"):
        runs.chunk_text(RunStore(tmp_path), 0, tmp_path)


def test_one_series_of_a_data_set(folders) -> None:
    whole = read_dataset(folders / "data")
    part = runs.of_series(whole, 1)
    part.validate()
    assert part.series["name"].tolist() == ["TS_02"]
    np.testing.assert_array_equal(part.project(0)[0], whole.project(1)[0])
    np.testing.assert_array_equal(part.used(0), whole.used(1))


@pytest.mark.parametrize("plot", viewer_refine.PypCsprRefineViewer._plots, ids=lambda plot: plot.name)
def test_figures_of_a_refinement(folders, going_on, plot) -> None:
    finished = RefinementRun(str(folders / "refine"), 2)
    last = drawn(plot.make(finished, chosen()))
    assert last.std() > 1
    assert drawn(plot.make(going_on, chosen())).std() > 1  # while it goes on
    nothing = RefinementRun(str(folders / "nothing"), 2)
    with pytest.raises(NotYet):
        plot.make(nothing, chosen())


@pytest.mark.parametrize("name", ["showTiltScores", "showWeights", "showShifts", "showScores", "showImage"])
def test_figures_follow_the_chosen_series(folders, name) -> None:
    run = RefinementRun(str(folders / "refine"), 2)
    plot = next(one for one in viewer_refine.PypCsprRefineViewer._plots if one.name == name)
    images = [drawn(plot.make(run, chosen(series=series))) for series in ("TS_01", "TS_02")]
    assert images[0].shape != images[1].shape or np.abs(images[0].astype(int) - images[1]).max() > 50


@pytest.mark.parametrize("number", range(len(viewer_refine.MAPS)))
def test_maps_of_a_refinement(folders, number) -> None:
    run = RefinementRun(str(folders / "refine"), 2)
    plot = next(one for one in viewer_refine.PypCsprRefineViewer._plots if one.name == "showMap")
    assert drawn(plot.make(run, chosen(map=number))).std() > 1


@pytest.mark.parametrize("viewer, name, run", [
    (viewer_refine.PypCsprRefineViewer, "refine", lambda folder: RefinementRun(str(folder), 2)),
    (viewer_reconstruct.PypCsprReconstructViewer, "reconstruct", lambda folder: ReconstructionRun(str(folder))),
    (viewer_postprocess.PypCsprPostProcessViewer, "postprocess", viewer_postprocess.PostProcessed),
])
def test_what_chimerax_opens(folders, viewer, name, run) -> None:
    """Files that are there, and both where two are chosen."""
    maps = sys.modules[viewer.__module__].MAPS
    window = SimpleNamespace(_run=lambda: run(folders / name))
    opened = {label: viewer._mapFiles(window, chosen(map=number)) for number, label in enumerate(maps)}
    for label, paths in opened.items():
        assert len(set(paths)) == 1 + (label in ("half maps", "start and end"))
        assert all(read_map(path)[0].std() > 0 for path in paths)
    assert len({tuple(paths) for paths in opened.values()}) == len(maps)
    if "half maps" in opened:
        assert [path.name for path in opened["half maps"]] == ["half1.mrc", "half2.mrc"]


@pytest.mark.parametrize("plot", viewer_reconstruct.PypCsprReconstructViewer._plots, ids=lambda plot: plot.name)
def test_figures_of_a_reconstruction(folders, plot) -> None:
    for number in range(len(viewer_reconstruct.MAPS)) if plot.name == "showMap" else [0]:
        assert drawn(plot.make(ReconstructionRun(str(folders / "reconstruct")), chosen(map=number))).std() > 1
    with pytest.raises(NotYet):
        plot.make(ReconstructionRun(str(folders / "nothing")), chosen())


@pytest.mark.parametrize("plot", viewer_data.PypCsprSampleViewer._plots, ids=lambda plot: plot.name)
def test_figures_of_the_sample(folders, plot) -> None:
    assert drawn(plot.make(viewer_data.DataFolder(folders / "data", "settings.json"), chosen())).std() > 1
    with pytest.raises(NotYet):
        plot.make(viewer_data.DataFolder(folders / "nothing", "settings.json"), chosen())


@pytest.mark.parametrize("plot", viewer_data.PypCsprFilterViewer._plots, ids=lambda plot: plot.name)
def test_figures_of_filtered_particles(folders, plot) -> None:
    run = viewer_data.FilterFolder(folders / "filter", Path(folders / "refine"))
    assert drawn(plot.make(run, chosen())).std() > 1
    assert run.state().endswith(" of 12 particles are left.")
    with pytest.raises(NotYet):
        plot.make(viewer_data.FilterFolder(folders / "nothing", Path(folders / "refine")), chosen())


@pytest.mark.parametrize("plot", viewer_postprocess.PypCsprPostProcessViewer._plots, ids=lambda plot: plot.name)
def test_figures_of_a_post_processed_map(folders, plot) -> None:
    for number in range(len(viewer_postprocess.MAPS)):
        assert drawn(plot.make(viewer_postprocess.PostProcessed(Path(folders / "postprocess")), chosen(map=number))).std() > 1
    with pytest.raises(NotYet):
        plot.make(viewer_postprocess.PostProcessed(Path(folders / "nothing")), chosen())


@pytest.mark.parametrize("plot", viewer_convert.PypCsprImportViewer._plots, ids=lambda plot: plot.name)
def test_figures_of_imported_and_exported_data(folders, plot) -> None:
    """A data set with a map and scores; without them the reason is said, and all else is drawn."""
    run = viewer_data.DataFolder(folders / "refine", viewer_convert.LAST)
    sample = viewer_data.DataFolder(folders / "data", viewer_convert.LAST)
    lacking = {"showReference": (run, "There is no map"), "showScores": (sample, "no scores")}
    if plot.name in lacking:
        without, words = lacking[plot.name]
        with pytest.raises(NotYet, match=words):
            plot.make(without, chosen())
        run = sample if plot.name == "showReference" else run
    assert drawn(plot.make(run, chosen())).std() > 1
    with pytest.raises(NotYet):
        plot.make(viewer_data.DataFolder(folders / "nothing", viewer_convert.LAST), chosen())
