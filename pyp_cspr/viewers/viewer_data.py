"""What *sample data* and *filter particles* made: data sets of the engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict

import numpy as np
from matplotlib.figure import Figure

from ..engine.core.filters import soft_mask
from ..engine.io.relion import read_dataset
from ..engine.model.tables import Dataset
from ..engine.pipeline.store import read_json
from ..engine.report import figures
from ..engine.report.refinement import particle_moves
from ..engine.report.sections import ball_diameter, image_section
from ..engine.sample.truth import read_truth
from ..protocols import ProtPypCsprFilter, ProtPypCsprSample
from .base import REPORT, Plot, PypCsprViewer
from .runs import NotYet, read_maps, stamp_of

HEXON = "C3"  # symmetry of the sample's structure


class DataFolder:
    """A folder that a protocol fills; ``last`` is the file that it writes last."""

    def __init__(self, folder: Path, last: str) -> None:
        self.folder, self._last = folder, last

    def stamp(self) -> Any:
        return stamp_of(self.folder, self._last)

    def state(self) -> str:
        return "Finished." if (self.folder / self._last).exists() else "The protocol has not come to its end yet."

    def dataset(self) -> Dataset:
        """Raises NotYet while it is not there."""
        if not (self.folder / self._last).exists():
            raise NotYet(self.state())
        return read_dataset(self.folder, need_images=False)


# --- sample ----------------------------------------------------------------------------------------------------------


def _reference(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    run.dataset()
    maps, pixel = read_maps(run.folder, "reference")
    return figures.map_views(maps[0], pixel, soft_mask(maps[0], pixel).values)


def _image(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    dataset = run.dataset()
    maps, pixel = read_maps(run.folder, "reference")
    section = image_section(dataset, ball_diameter(soft_mask(maps[0], pixel).values, pixel))
    if section is None:
        raise NotYet("The tilt images cannot be read: they may have been moved.")
    assert isinstance(section[2], Figure)
    return section[2]


def _errors(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    dataset = run.dataset()
    return figures.moves(*particle_moves(read_truth(run.folder / "truth.star"), dataset, HEXON))


def _geometry(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    dataset = run.dataset()
    return figures.geometry_change(read_truth(run.folder / "truth.star"), dataset)


SAMPLE_PLOTS = (
    Plot("showReference", "Reference",
         "What the particles are made of, low-passed. Orange: the automatic mask.",
         _reference),
    Plot("showImage", "Particles in a tilt image",
         "The least tilted image of the first series; circles are where particles are given to be, errors included.",
         _image),
    Plot("showErrors", "Errors of the given poses",
         "How far the given rotations and positions are from the true ones, modulo symmetry: what there is to refine.",
         _errors),
    Plot("showGeometry", "Errors of the given tilt geometry",
         "Given minus true.",
         _geometry),
    Plot("showScheme", "Tilt scheme",
         "Tilt angles in the order of acquisition, and the dose before each image.",
         lambda run, chosen: figures.tilt_scheme(run.dataset())),
    Plot("showDefocus", "Defocus",
         "At the specimen's centre. Bars: astigmatism.",
         lambda run, chosen: figures.defocus_by_tilt(run.dataset())),
)


class PypCsprSampleViewer(PypCsprViewer):
    """Figures of the sample data."""

    _label = "sample data"
    _targets = [ProtPypCsprSample]
    _plots = SAMPLE_PLOTS

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Sample")
        self._addPlots(form, SAMPLE_PLOTS)

    def _run(self) -> DataFolder:
        return DataFolder(self._folder(), "settings.json")

    def _getVisualizeDict(self) -> Dict[str, Callable[[Any], Any]]:
        return {name: call for name, call in super()._getVisualizeDict().items() if name != REPORT}


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
    scores = run.before().particles["score"]
    if not np.isfinite(scores).any():
        raise NotYet("The particles have no scores: they come with *refine tilt series*.")
    return figures.score_histogram(scores, run.threshold())


def _left(run: FilterFolder, chosen: SimpleNamespace) -> Figure:
    dataset = run.dataset()
    counts = [len(dataset.particles_of(row)) for row in range(len(dataset.series))]
    return figures.particles_per_series([str(name) for name in dataset.series["name"]], counts)


FILTER_PLOTS = (
    Plot("showScores", "Scores, with the threshold",
         "100 times the correlation of image and model: the mean over a particle's projections. Pale: below the "
         "threshold.",
         _scores),
    Plot("showLeft", "Particles that are left",
         "Of each tilt series.",
         _left),
    Plot("showScheme", "Tilt scheme",
         "Tilt angles in the order of acquisition, and the dose before each image.",
         lambda run, chosen: figures.tilt_scheme(run.dataset())),
)


class PypCsprFilterViewer(PypCsprViewer):
    """Figures of what was kept, and why."""

    _label = "filtered particles"
    _targets = [ProtPypCsprFilter]
    _plots = FILTER_PLOTS

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Particles")
        self._addPlots(form, FILTER_PLOTS)

    def _run(self) -> FilterFolder:
        return FilterFolder(self._folder(), Path(self.getProject().getPath(self.protocol._dataFolder())).absolute())

    def _getVisualizeDict(self) -> Dict[str, Callable[[Any], Any]]:
        return {name: call for name, call in super()._getVisualizeDict().items() if name != REPORT}
