"""Uses the windows as a user does, on the X server of DISPLAY: makes a small sample, fills in the form of *refine tilt series*
by its widgets, with wizards, executes it from the form, looks at the run while it goes on and at its end, and opens the form of
the filter. Pictures of the windows are written to a folder. run_every_window.py goes on from there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict

from pyp_cspr.tests.protocols.run_workflow import launch
from pyp_cspr.tests.viewers.gui import (
    double_click,
    later,
    newest,
    parts,
    picture,
    press,
    row_button,
    texts,
    windows,
)

SAMPLE = {"nSeries": 2, "nParticles": 8, "nTilts": 9, "boxSize": 32, "pixelSize": 8.0}
WINDOW = "1560x820+20+20"
PROTOCOLS_WIDE, RUNS_HIGH = 380, 210  # pixels in the project's window
INPUTS = {"inputParticles": "subTomograms", "inputTiltSeries": "tiltSeries", "inputCTFs": "ctfs",
          "inputReference": "reference"}
WIZARDS = {"symmetry": ("symmetry", "C3"), "maskDiameter": ("diameter", 200.0), "maskSource": ("mask", 0),
           "mapBox": ("box", 32), "exposureWeighting": ("weighting", "dose"), "mapTiltMin": ("low", -50)}


def _runs(process: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)  # the window does not wait for its children
    except psutil.NoSuchProcess:
        return False


class Session:
    """A project window and what was seen in it."""

    numbers: Any = (("iterations", "2"), ("resolution", "40 30"), ("priorDefocus", "500"))  # typed into the form
    chosen: Dict[str, Any] = WIZARDS  # by wizards
    name = "gui"

    def __init__(self, folder: Path, sample: Dict[str, Any]) -> None:
        import pyworkflow as pw
        from pyworkflow.project import Manager

        pw.Config.getDomain().getPlugins()
        from pyp_cspr.protocols import ProtPypCsprSample

        self.folder = folder
        project = Manager().createProject(self.name)
        os.chdir(project.path)
        made = project.newProtocol(ProtPypCsprSample, **sample)
        made.setObjLabel("sample data")
        launch(project, made)
        from pyworkflow.gui.project.project import ProjectWindow

        self.window = ProjectWindow(project.path)
        self.root = self.window.root
        self.seen: Dict[str, Any] = {"project": project.path}
        self.forms: Dict[str, Any] = {}
        self._follow_forms()

    def _follow_forms(self) -> None:
        """Know the form of each window: the host keeps no list of them."""
        from pyworkflow.gui import form

        made, forms = form.FormWindow.__init__, self.forms

        def init(window: Any, *args: Any, **kwargs: Any) -> None:
            made(window, *args, **kwargs)
            forms[str(window.root)] = window

        form.FormWindow.__init__ = init

    @property
    def view(self) -> Any:
        return self.window.getViewWidget()

    def run_of(self, name: str) -> Any:
        """The last run of a protocol class, as the project knows it now."""
        runs = [one for one in self.window.project.getRuns(refresh=True) if one.getClassName() == name]
        return runs[-1] if runs else None

    def end_of(self, name: str) -> Any:
        """Wait until the last run of a class has ended, without asking the host.

        A run writes its state twice at its end. A host that reads it just between takes the first for the last, and the
        run, whose process then is gone, for one that was killed.
        """
        yield lambda: self.run_of(name).getPid()
        process = int(self.run_of(name).getPid())
        yield lambda: not _runs(process)

    def keep(self, window: Any, name: str) -> None:
        """A picture of a window, and how many colours it has: an empty one has few."""
        image = picture(window)
        image.save(self.folder / f"{name}.png")
        self.seen.setdefault("colours", {})[name] = len(image.convert("P").getcolors(256) or [])

    def open_form(self, name: str) -> Any:
        """Open the form of a new protocol from the tree on the left, by a double click."""
        combo = next(one for one in parts(self.view, "TCombobox") if "Tomography" in one["values"])
        combo._var.set("Tomography")  # as choosing it does
        tree = self.view.protTree
        items, found = list(tree.get_children()), None
        while items and found is None:
            item = items.pop(0)
            found = item if item.split(".")[-1] == name else None
            items += tree.get_children(item)
        assert found is not None, name
        self.seen.setdefault("tree", []).append(found)
        tree.see(found)
        yield lambda: tree.bbox(found)
        left, top, width, height = tree.bbox(found)
        later(self.root, lambda: double_click(tree, left + min(width, 120) // 2, top + height // 2))

    def steps(self) -> Any:
        self.root.geometry(WINDOW)
        yield 1.0
        yield from self.fill_in()
        yield from self.execute()
        yield from self.analyse()
        yield from self.close_forms()
        yield from self.filter_particles()

    def fill_in(self) -> Any:
        """The form of a refinement: inputs by their dialogs, wizards, numbers."""
        yield from self.waited_form("ProtPypCsprRefine", "refine")
        form = self.form
        for parameter, output in INPUTS.items():
            yield from self.choose(parameter, f"sample data.{output}")
        yield from self.wizards(self.chosen)
        for parameter, value in self.numbers:
            entry = parts(form.widgetDict[parameter].content, "Entry")[0]
            entry.delete(0, "end")
            entry.insert(0, value)
        form.setVar("checkHand", False)
        notebook = parts(form.root, "TNotebook")[0]
        for tab in range(notebook.index("end")):
            notebook.select(tab)
            yield 0.3
            self.keep(form.root, f"refine_form_{tab}")
        self.seen["form"] = {name: str(getattr(form.protocol, name).get()) for name in (
            "iterations", "resolution", "priorDefocus", "symmetry", "maskDiameter", "mapBox", "exposureWeighting",
            "mapTiltMin", "mapTiltMax")}
        self.seen["validate"] = list(form.protocol.validate())

    def choose(self, parameter: str, output: str) -> Any:
        """An input, in the host's dialog."""
        count = len(windows(self.root))
        later(self.root, row_button(self.form, parameter, "Select").invoke)
        yield lambda: len(windows(self.root)) > count
        dialog = windows(self.root)[-1]
        dialog.tree.selection_set(next(one for one in _items(dialog.tree) if output in str(dialog.tree.item(one))))
        press(self.root, dialog, "Select")
        yield lambda: len(windows(self.root)) == count

    def waited_form(self, name: str, label: str) -> Any:
        """The form of a new protocol, which gets a name."""
        count = len(windows(self.root))
        yield from self.open_form(name)
        yield lambda: len(windows(self.root)) > count
        yield 0.3
        self.form = self.forms[str(windows(self.root)[-1])]
        self.form.runNameVar.set(label)

    def wizards(self, chosen: Dict[str, Any]) -> Any:
        """Wizards of the form, with a value put in: by parameter the control and the value."""
        for parameter, (control, value) in chosen.items():
            yield from self.wizard(parameter, control, value)

    def wizard(self, parameter: str, control: str, value: Any) -> Any:
        count = len(windows(self.root))
        returned = later(self.root, row_button(self.form, parameter, "Wizard").invoke)
        yield lambda: len(windows(self.root)) > count
        dialog = windows(self.root)[-1]
        yield 0.3
        dialog.put(control, value)
        yield lambda: not dialog._timer  # it draws a moment later
        name = f"{self.form.protocol.getClassName()}.{parameter}"
        self.seen.setdefault("wizards", {})[name] = [texts(dialog), dialog.panel.figure is not None]
        self.keep(dialog, name)
        press(self.root, dialog, "Select")
        yield lambda: len(windows(self.root)) == count and returned()  # the answer comes after the window is gone

    def execute(self) -> Any:
        """Execute from the form; the viewer is opened at once and follows the run."""
        press(self.root, self.form.root, "Execute")
        yield lambda: not windows(self.root)
        yield lambda: self.run_of("ProtPypCsprRefine") is not None
        yield from self.viewer("ProtPypCsprRefine")
        later(self.root, row_button(self.form, "showFsc", "Visualize").invoke)
        yield lambda: newest(self.root, "Fourier")
        live = newest(self.root, "Fourier")
        self.seen["early"] = texts(live)
        self.keep(live, "early")
        yield from self.end_of("ProtPypCsprRefine")
        run = self.run_of("ProtPypCsprRefine")
        self.seen["status"] = run.getStatus()
        self.seen["outputs"] = sorted(name for name, _ in run.iterOutputAttributes())
        self.seen["folder"] = os.path.abspath(run.getWorkingDir())
        yield lambda: "Finished after iteration" in texts(live)  # by itself
        self.keep(live, "late")
        press(self.root, live, "Close")
        yield lambda: newest(self.root, "Fourier") is None

    def viewer(self, name: str) -> Any:
        """The viewer of a run, by the button Analyze Results."""
        self.view._selectItemProtocol(self.run_of(name))
        self.view._selection.clear()
        self.view._selection.append(self.run_of(name).getObjId())
        count = len(windows(self.root))
        later(self.root, lambda: self.view.btnAnalyze.event_generate("<ButtonPress-1>"))
        yield lambda: len(windows(self.root)) > count
        yield 0.3
        self.form = self.forms[str(windows(self.root)[-1])]

    def analyse(self) -> Any:
        """Every row of the viewer."""
        form = self.form
        self.keep(form.root, "viewer_form")
        rows = [name for name in form.visualizeDict if name in form.widgetDict and name != "showReport"]
        for name in rows:
            yield from self.plot(name)
        form.setVar("iteration", "0")
        yield from self.plot("showTiltScores", "of_start")
        form.setVar("iteration", "7")
        yield from self.plot("showFsc", "of_later")
        later(self.root, row_button(form, "showReport", "Visualize").invoke)
        yield 1.0
        yield from self.arrange()
        self.keep(self.root, "project")

    def arrange(self) -> Any:
        """The project's window as it is now, with room for the names of protocols, and for all outputs of a run."""
        self.view.refreshRuns()
        self.view._selectItemProtocol(self.run_of("ProtPypCsprRefine"))
        across = next(one for one in self.view.winfo_children() if one.winfo_class() == "Panedwindow")
        across.sash_place(0, PROTOCOLS_WIDE, 1)
        next(one for one in parts(across, "TPanedwindow")).sashpos(0, RUNS_HIGH)
        yield 1.0

    def close_forms(self) -> Any:
        for window in windows(self.root):
            press(self.root, window, "Close")
        yield lambda: not windows(self.root)

    def filter_particles(self) -> Any:
        """The form of the filter with the score wizard, on the refined particles."""
        yield from self.waited_form("ProtPypCsprFilter", "filter")
        for parameter, output in (("inputParticles", "refine.particles"), ("inputTiltSeries", "refine.tiltSeries"),
                                  ("inputCTFs", "sample data.ctfs")):
            yield from self.choose(parameter, output)
        yield from self.wizard("byScore", "score", float(self.lowest_score()))
        self.seen["score_wizard"] = self.seen["wizards"]["ProtPypCsprFilter.byScore"][0]
        self.keep(self.form.root, "filter_form")
        self.seen["filter"] = [self.form.protocol.byScore.get(), self.form.protocol.score.get()]
        yield from self.close_forms()

    def lowest_score(self) -> float:
        """One that removes a quarter of the particles."""
        import numpy as np

        from pyp_cspr.wizards.compute import scores_of

        return round(float(np.quantile(scores_of(self.form.protocol.inputParticles.get()), 0.25)), 1)

    def plot(self, name: str, kept: str = "") -> Any:
        count = len(windows(self.root))
        later(self.root, row_button(self.form, name, "Visualize").invoke)
        yield lambda: len(windows(self.root)) > count
        yield 0.2
        window = windows(self.root)[-1]
        self.seen.setdefault("plots", {})[kept or name] = texts(window) if not parts(window, "Text") else (
            parts(window, "Text")[0].get("1.0", "end"))
        self.keep(window, kept or name)
        press(self.root, window, "Close")
        yield lambda: len(windows(self.root)) == count


def _items(tree: Any, parent: str = "") -> Any:
    for item in tree.get_children(parent):
        yield item
        yield from _items(tree, item)
