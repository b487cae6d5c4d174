"""What *sample data* and *filter particles* made: data sets of the engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from matplotlib.figure import Figure

from ..engine.io.relion import read_dataset
from ..engine.model.tables import Dataset
from ..engine.pipeline.store import read_json
from ..engine.report import figures
from ..engine.report.refinement import particle_moves
from ..engine.sample.truth import read_truth
from ..protocols import ProtPypCsprFilter, ProtPypCsprSample
from .base import Plot
from .data_folder import DEFOCUS, SCHEME, DataFolder, PypCsprDataViewer, per_series, reference, score_figure, tilt_image

HEXON = "C3"  # symmetry of the sample's structure


# --- sample ----------------------------------------------------------------------------------------------------------


def _errors(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    dataset = run.dataset()
    return figures.moves(*particle_moves(read_truth(run.folder / "truth.star"), dataset, HEXON))


def _geometry(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    dataset = run.dataset()
    return figures.geometry_change(read_truth(run.folder / "truth.star"), dataset)


class PypCsprSampleViewer(PypCsprDataViewer):
    """Figures of the sample data."""

    _label = "sample data"
    _targets = [ProtPypCsprSample]
    _section = "Sample"
    _plots = (
        Plot("showReference", "Reference",
             "What the particles are made of, low-passed. Orange: the automatic mask.",
             reference),
        Plot("showImage", "Particles in a tilt image",
             "The least tilted image of the first series; circles are where particles are given to be, errors included.",
             tilt_image),
        Plot("showErrors", "Errors of the given poses",
             "How far the given rotations and positions are from the true ones, modulo symmetry: what there is to refine.",
             _errors),
        Plot("showGeometry", "Errors of the given tilt geometry",
             "Given minus true.",
             _geometry),
        SCHEME, DEFOCUS,
    )

    def _run(self) -> DataFolder:
        return DataFolder(self._folder(), "settings.json")


# --- filter ----------------------------------------------------------------------------------------------------------


class FilterFolder(DataFolder):
    """Those that are left; ``before`` are all."""

    def __init__(self, folder: Path, data: Path) -> None:
        super().__init__(folder, "filter.json")
        self._data = data

    def state(self) -> str:
        if not (self.folder / "filter.json").exists():
            return super().state()
        result = read_json(self.folder / "filter.json")
        return f"{result['n_particles']} of {result['n_particles_before']} particles are left."

    def before(self) -> Dataset:
        self.dataset()
        return read_dataset(self._data, need_images=False)

    def threshold(self) -> Any:
        return read_json(self.folder / "filter.json")["threshold"]


def _scores(run: FilterFolder, chosen: SimpleNamespace) -> Figure:
    return score_figure(run.before().particles["score"], run.threshold(),
                        "The particles have no scores: they come with *refine tilt series*.")


class PypCsprFilterViewer(PypCsprDataViewer):
    """Figures of what was kept, and why."""

    _label = "filtered particles"
    _targets = [ProtPypCsprFilter]
    _section = "Particles"
    _plots = (
        Plot("showScores", "Scores, with the threshold",
             "100 times the correlation of image and model: the mean over a particle's projections. Pale: below the "
             "threshold.",
             _scores),
        Plot("showLeft", "Particles that are left",
             "Of each tilt series.",
             per_series),
        SCHEME,
    )

    def _run(self) -> FilterFolder:
        return FilterFolder(self._folder(), Path(self.getProject().getPath(self.protocol._dataFolder())).absolute())
