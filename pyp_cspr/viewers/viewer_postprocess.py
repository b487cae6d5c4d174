"""What *post-process* made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List

from matplotlib.figure import Figure
from pyworkflow.protocol import params

from ..engine.pipeline.store import read_json
from ..protocols import ProtPypCsprPostProcess
from .base import REPORT, Plot, PypCsprViewer
from .data_folder import fsc_of, masked_map
from .runs import NotYet, stamp_of

MAPS = ("sharpened map", "mask")
SHARPENED = 0
FILES = ("map_sharpened", "mask")


class PostProcessed:
    """The folder that the engine's command fills; summary.json is its last file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stamp(self) -> Any:
        return stamp_of(self.folder, "summary.json")

    def state(self) -> str:
        return "Finished." if (self.folder / "summary.json").exists() else "Nothing is there yet: the protocol is not done."

    def maps(self) -> Path:
        """Raises NotYet."""
        if not (self.folder / "summary.json").exists():
            raise NotYet(self.state())
        return self.folder


def _fsc(run: PostProcessed, chosen: SimpleNamespace) -> Figure:
    return fsc_of(run.maps(), read_json(run.maps() / "summary.json")["resolution_0143"])


PLOTS = (
    Plot("showFsc", "Fourier shell correlation",
         "Of the half maps. The corrected curve takes away what the mask adds, found with randomised phases.",
         _fsc),
    Plot("showMap", "Sections and projections of the map",
         "Of the map that was chosen. Orange: where the mask is one half.",
         lambda run, chosen: masked_map(run.maps(), FILES[chosen.map])),
)


class PypCsprPostProcessViewer(PypCsprViewer):
    """Figures of a post-processed map."""

    _label = "post-processed map"
    _targets = [ProtPypCsprPostProcess]
    _plots = PLOTS
    _choices = ("map",)

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Map")
        self._addPlots(form, PLOTS[:1])
        form.addParam("map", params.EnumParam, choices=list(MAPS), default=SHARPENED, label="Which map",
                      help="For the next rows.")
        self._addPlots(form, PLOTS[1:])
        self._addChimera(form)

    def _run(self) -> PostProcessed:
        return PostProcessed(self._folder())

    def _mapFiles(self, chosen: SimpleNamespace) -> List[Path]:
        return [self._run().maps() / f"{FILES[chosen.map]}.mrc"]

    def _getVisualizeDict(self) -> Dict[str, Callable[[Any], Any]]:
        return {name: call for name, call in super()._getVisualizeDict().items() if name != REPORT}
