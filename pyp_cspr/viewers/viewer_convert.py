"""What *import PYP alignments* read and *export to PYP / RELION* wrote."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Tuple

import numpy as np
from matplotlib.figure import Figure

from ..engine.core.filters import soft_mask
from ..engine.report import figures
from ..engine.report.sections import ball_diameter, image_section
from ..protocols import ProtPypCsprExport, ProtPypCsprImport
from .base import REPORT, Plot, PypCsprViewer
from .runs import NotYet, read_maps
from .viewer_data import DataFolder

LAST = "optimisation_set.star"


def _reference(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    run.dataset()
    if not (run.folder / "reference.mrc").exists():
        raise NotYet("There is no map: the project had none, and none was given.")
    maps, pixel = read_maps(run.folder, "reference")
    return figures.map_views(maps[0], pixel, soft_mask(maps[0], pixel).values)


def _image(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    dataset = run.dataset()
    diameter = dataset.box * dataset.box_pixel / 2.0
    if (run.folder / "reference.mrc").exists():
        maps, pixel = read_maps(run.folder, "reference")
        diameter = ball_diameter(soft_mask(maps[0], pixel).values, pixel)
    section = image_section(dataset, diameter)
    if section is None:
        raise NotYet("The tilt images cannot be read: they may have been moved.")
    assert isinstance(section[2], Figure)
    return section[2]


def _scores(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    scores = run.dataset().particles["score"]
    if not np.isfinite(scores).any():
        raise NotYet("The particles have no scores: nothing has refined them yet.")
    return figures.score_histogram(scores, None)


def _particles(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    dataset = run.dataset()
    counts = [len(dataset.particles_of(row)) for row in range(len(dataset.series))]
    return figures.particles_per_series([str(name) for name in dataset.series["name"]], counts)


DATA_PLOTS = (
    Plot("showImage", "Particles in a tilt image",
         "The least tilted image of the first series; circles are where the particles are.",
         _image),
    Plot("showParticles", "Particles",
         "Of each tilt series.",
         _particles),
    Plot("showScores", "Scores",
         "Of the particles, as the refinement gave them: the mean over a particle's projections.",
         _scores),
    Plot("showScheme", "Tilt scheme",
         "Tilt angles in the order of acquisition, and the dose before each image.",
         lambda run, chosen: figures.tilt_scheme(run.dataset())),
    Plot("showDefocus", "Defocus",
         "At the specimen's centre. Bars: astigmatism.",
         lambda run, chosen: figures.defocus_by_tilt(run.dataset())),
)
IMPORT_PLOTS = (
    Plot("showReference", "Reference",
         "The map that belongs to the alignments. Orange: the automatic mask.",
         _reference),
    *DATA_PLOTS,
)


class PypCsprImportViewer(PypCsprViewer):
    """Figures of what was read."""

    _label = "imported PYP alignments"
    _targets = [ProtPypCsprImport]
    _plots: Tuple[Plot, ...] = IMPORT_PLOTS

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Imported")
        self._addPlots(form, self._plots)

    def _run(self) -> DataFolder:
        return DataFolder(self._folder(), LAST)

    def _getVisualizeDict(self) -> Dict[str, Callable[[Any], Any]]:
        return {name: call for name, call in super()._getVisualizeDict().items() if name != REPORT}


class PypCsprExportViewer(PypCsprImportViewer):
    """Figures of what was written."""

    _label = "exported alignments"
    _targets = [ProtPypCsprExport]
    _plots = DATA_PLOTS

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Exported")
        self._addPlots(form, self._plots)

    def _folder(self) -> Path:
        return Path(self.getProject().getPath(self.protocol._dataFolder())).absolute()
