"""What the host finds of an installed plugin, as JSON; with a display, the form of each protocol is opened. Run as a program:

python open_forms.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict


def main(folder: str) -> None:
    import pyworkflow as pw
    from pyworkflow.project import Manager

    import pyp_cspr

    domain = pw.Config.getDomain()
    plugin = domain.getPlugins()["pyp_cspr"]
    kinds = {"protocols": domain.getProtocols(), "viewers": domain.getViewers(), "wizards": domain.getWizards()}
    found: Dict[str, Any] = {
        name: sorted(key for key, kind in classes.items() if kind.__module__.startswith("pyp_cspr."))
        for name, classes in kinds.items()
    }
    found["package"] = os.path.dirname(pyp_cspr.__file__)
    found["templates"] = [template.getObjId() for template in plugin._pluginInstance.getTemplates()]
    if os.environ.get("DISPLAY"):
        project = Manager().createProject("forms")
        found["forms"] = {name: open_form(project, domain.getProtocols()[name]) for name in found["protocols"]}
    print("RESULT " + json.dumps(found))


def open_form(project: Any, kind: Any) -> Dict[str, Any]:
    """The form of a protocol as the user sees it: its title and the tabs' names."""
    import tkinter.ttk as ttk

    import pyworkflow.gui.project  # noqa: F401 - the forms cannot be imported before it
    from pyworkflow.gui.form import FormWindow

    window = FormWindow(kind.getClassLabel(), project.newProtocol(kind), lambda *unused: None, None)
    window.root.update()
    tabs, waiting = [], [window.root]
    while waiting:
        widget = waiting.pop()
        waiting += widget.winfo_children()
        if isinstance(widget, ttk.Notebook):
            tabs += [widget.tab(one, "text") for one in widget.tabs()]
    size = [window.root.winfo_reqwidth(), window.root.winfo_reqheight()]
    title = window.root.title()
    window.root.destroy()
    return {"title": title, "tabs": tabs, "size": size}


if __name__ == "__main__":
    main(sys.argv[1])
