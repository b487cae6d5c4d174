"""What *import PYP alignments* read and *export to PYP / RELION* wrote."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Tuple

from matplotlib.figure import Figure

from ..protocols import ProtPypCsprExport, ProtPypCsprImport
from .base import Plot
from .data_folder import DEFOCUS, SCHEME, DataFolder, PypCsprDataViewer, per_series, reference, score_figure, tilt_image

LAST = "optimisation_set.star"


def _scores(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    return score_figure(run.dataset().particles["score"], None, "The particles have no scores: nothing has refined them yet.")


DATA_PLOTS = (
    Plot("showImage", "Particles in a tilt image",
         "The least tilted image of the first series; circles are where the particles are.",
         tilt_image),
    Plot("showParticles", "Particles",
         "Of each tilt series.",
         per_series),
    Plot("showScores", "Scores",
         "Of the particles, as the refinement gave them: the mean over a particle's projections.",
         _scores),
    SCHEME, DEFOCUS,
)


class PypCsprImportViewer(PypCsprDataViewer):
    """Figures of what was read."""

    _label = "imported PYP alignments"
    _targets = [ProtPypCsprImport]
    _section = "Imported"
    _plots: Tuple[Plot, ...] = (
        Plot("showReference", "Reference",
             "The map that belongs to the alignments. Orange: the automatic mask.",
             reference),
        *DATA_PLOTS,
    )

    def _run(self) -> DataFolder:
        return DataFolder(self._folder(), LAST)


class PypCsprExportViewer(PypCsprImportViewer):
    """Figures of what was written."""

    _label = "exported alignments"
    _targets = [ProtPypCsprExport]
    _section = "Exported"
    _plots = DATA_PLOTS

    def _folder(self) -> Path:
        return Path(self.getProject().getPath(self.protocol._dataFolder())).absolute()
