"""Opens every wizard of every form and every row of every viewer, on the X server of DISPLAY; run as a program in the host's
environment:

python run_every_window.py FOLDER

After the session of run_gui.py, particles are filtered, reconstructed and post-processed from the forms, each with its wizards,
exported and imported, and all results are looked at. Prints what tests check, as JSON; pictures go to FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Dict

from pyp_cspr.tests.protocols.run_workflow import launch, point
from pyp_cspr.tests.viewers.gui import Driver, press, windows
from pyp_cspr.tests.viewers.run_gui import SAMPLE, Session

REFINED = {"inputTiltSeries": "refine.tiltSeries", "inputCTFs": "refine.ctfs"}
# forms to fill in: name of the run, inputs, and by parameter of a wizard the control and its value
FORMS: Dict[str, Any] = {
    "ProtPypCsprFilter": ("kept", dict(REFINED, inputParticles="refine.particles"), {
        "score": ("score", 0.5), "byScore": ("score", 0.4), "distance": ("distance", 3.0), "minProjections": ("count", 2)}),
    "ProtPypCsprReconstruct": ("map", dict(REFINED, inputParticles="kept.particles"), {
        "symmetry": ("symmetry", "C3"), "maskDiameter": ("diameter", 190.0), "mapPixel": ("pixel", 9.0), "mapBox": ("box", 30),
        "mapTiltMin": ("low", -50), "mapTiltMax": ("high", 40)}),
    "ProtPypCsprPostProcess": ("sharpened", {"inputAverage": "map.average"}, {
        "maskSource": ("mask", 1), "resolution": ("limit", 33.3)}),
}
AGAIN = {"particleRadius": ("radius", 77.0), "resolution": ("limit", 31.5), "searchResolution": ("limit", 45.5),
         "mapPixel": ("pixel", 8.5), "mapTiltMax": ("high", 45)}
VIEWED = ("Sample", "Filter", "Reconstruct", "PostProcess", "Export", "Import")


class EveryWindow(Session):
    """The session of the tests."""

    def steps(self) -> Any:
        yield from super().steps()
        for name, (label, inputs, chosen) in FORMS.items():
            yield from self.fill_in_with_wizards(name, label, inputs, chosen)
            yield from self.run_form(name)
        inputs = dict(REFINED, inputParticles="kept.particles", inputReference="refine.average")
        yield from self.fill_in_with_wizards("ProtPypCsprRefine", "again", inputs, AGAIN)
        yield from self.close_forms()
        self.convert()
        for name in VIEWED:
            yield from self.look_at(f"ProtPypCspr{name}")
        yield from self.failing_window()

    def fill_in_with_wizards(self, name: str, label: str, inputs: Dict[str, str], chosen: Dict[str, Any]) -> Any:
        yield from self.waited_form(name, label)
        for parameter, output in inputs.items():
            yield from self.choose(parameter, output)
        yield from self.wizards(chosen)
        values = {parameter: str(getattr(self.form.protocol, parameter).get()) for parameter in chosen}
        self.seen.setdefault("values", {})[name] = values

    def run_form(self, name: str) -> Any:
        before = self.run_of(name)
        press(self.root, self.form.root, "Execute")
        yield lambda: not windows(self.root)
        yield lambda: self.run_of(name) is not None and (before is None or self.run_of(name).getObjId() != before.getObjId())
        yield from self.end_of(name)
        assert self.run_of(name).isFinished(), self.run_of(name).getErrorMessage()

    def convert(self) -> None:
        """To a project of PYP, and back."""
        from pyp_cspr.protocols import ProtPypCsprExport, ProtPypCsprImport

        project, refined, target = self.window.project, self.run_of("ProtPypCsprRefine"), str(self.folder / "pyp")
        export = project.newProtocol(ProtPypCsprExport, exportTo=0, outputFolder=target, writeImages=True)
        for parameter, output in (("inputParticles", "particles"), ("inputTiltSeries", "tiltSeries"), ("inputCTFs", "ctfs"),
                                  ("inputReference", "average")):
            point(export, parameter, refined, output)
        launch(project, export)
        launch(project, project.newProtocol(ProtPypCsprImport, projectPath=target))

    def look_at(self, name: str) -> Any:
        """Every row of a viewer that opens a window here."""
        yield from self.viewer(name)
        self.keep(self.form.root, f"{name}_viewer")
        rows = [row for row in self.form.visualizeDict if row in self.form.widgetDict and row != "showReport"]
        for row in rows:
            yield from self.plot(row, f"{name}.{row}")
        yield from self.close_forms()

    def failing_window(self) -> Any:
        """A window whose look at a run fails once, as where a file is half-written by another program, looks again."""
        from pyp_cspr.viewers import window

        looks = []

        def stamp() -> int:
            looks.append(len(looks))
            if len(looks) == 2:
                raise ValueError("half-written")
            return len(looks)

        window.LOOK_EVERY = 100
        opened = window.FigureWindow(self.root, "failing", "", _figure, stamp, lambda: f"{len(looks)} looks")
        yield lambda: len(looks) > 5
        opened.close()
        self.seen["looks"] = len(looks)
        self.seen["raised"] = [error for error in self.driver.errors if "half-written" in error]
        self.driver.errors[:] = [error for error in self.driver.errors if "half-written" not in error]


def _figure() -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(2, 2))


def main(folder: str) -> None:
    session = EveryWindow(Path(folder).absolute(), SAMPLE)
    session.driver = Driver(session.root, session.steps(), 240.0)
    session.window.show()
    print("RESULT " + json.dumps(dict(session.seen, errors=session.driver.errors)))
    sys.stdout.flush()
    os._exit(0)  # the project's server thread and main loops that were left must not keep it


if __name__ == "__main__":
    main(sys.argv[1])
