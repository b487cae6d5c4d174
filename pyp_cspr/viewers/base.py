"""What the viewers share: a form whose eyes open figures, the report, logs and ChimeraX."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional, Tuple

from matplotlib.figure import Figure
from pyworkflow.protocol import params
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from ..engine.errors import CsprError
from .runs import NotYet

REPORT, CHIMERA = "showReport", "showChimera"


@dataclass(frozen=True)
class Plot:
    """A row of a viewer's form. ``make`` gets the run and the form's values, by parameter, as they were at the click."""

    name: str  # of the parameter
    label: str
    caption: str
    make: Callable[[Any, SimpleNamespace], Figure]


class PypCsprViewer(ProtocolViewer):
    """A window of rows, each opening a figure that follows the run while it goes on."""

    _environments = [DESKTOP_TKINTER]
    _plots: Tuple[Plot, ...] = ()
    _choices: Tuple[str, ...] = ()  # parameters that are no plots, and that plots look at

    # --- the form -----------------------------------------------------------------------------------------------------

    def _addPlots(self, form: Any, plots: Tuple[Plot, ...]) -> None:
        for plot in plots:
            form.addParam(plot.name, params.LabelParam, label=plot.label, help=plot.caption, important=False)

    def _addReport(self, form: Any) -> None:
        form.addParam(REPORT, params.LabelParam, important=True, label="The report, in the browser",
                      help="One page with all figures. While the run goes on it loads itself again.")

    def _addChimera(self, form: Any) -> None:
        if chimera_program():
            form.addParam(CHIMERA, params.LabelParam, label="The map in ChimeraX",
                          help="Opens what is chosen above; of half maps, or of start and end, both.")

    def _getVisualizeDict(self) -> Dict[str, Callable[[Any], Any]]:
        found: Dict[str, Callable[[Any], Any]] = {plot.name: self._openPlot for plot in self._plots}
        found.update({REPORT: self._openReport, CHIMERA: self._openChimera})
        return found

    # --- what is shown ------------------------------------------------------------------------------------------------

    def _run(self) -> Any:
        """The run folder of the protocol."""
        raise NotImplementedError

    def _folder(self) -> Path:
        return Path(self.getProject().getPath(self.protocol._folder())).absolute()

    def _chosen(self) -> SimpleNamespace:
        return SimpleNamespace(**{name: getattr(self, name).get() for name in self._choices})

    def _title(self, label: str, chosen: SimpleNamespace) -> str:
        return f"{self.protocol.getObjLabel() or self.protocol.getRunName()}: {label}"

    def _openPlot(self, name: Optional[str] = None) -> List[Any]:
        from .window import FigureWindow

        plot = next(one for one in self._plots if one.name == name)
        run, chosen = self._run(), self._chosen()
        FigureWindow(self.getTkRoot(), self._title(plot.label, chosen), plot.caption, lambda: plot.make(run, chosen),
                     run.stamp, run.state)
        return []

    def _openReport(self, name: Optional[str] = None) -> List[Any]:
        import webbrowser

        path = self._folder() / "report.html"
        if not path.exists():
            return [self.infoMessage(f"There is no report yet. {self._run().state()}", "Report")]
        webbrowser.open_new_tab(path.as_uri())
        return []

    def _mapFiles(self, chosen: SimpleNamespace) -> List[Path]:
        """The maps that ChimeraX opens. Raises NotYet."""
        raise NotImplementedError

    def _openChimera(self, name: Optional[str] = None) -> List[Any]:
        from pwem.viewers import ChimeraView

        try:
            paths = self._mapFiles(self._chosen())
        except (NotYet, CsprError) as reason:
            return [self.infoMessage(str(reason), "ChimeraX")]
        return [ChimeraView([str(path) for path in paths])]


def chimera_program() -> str:
    """The ChimeraX that the host knows of, or nothing."""
    from pwem.viewers import Chimera

    program = Chimera.getProgram()
    return str(program) if program and os.path.exists(program) else ""
