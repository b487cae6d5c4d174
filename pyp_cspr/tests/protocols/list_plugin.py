"""What the host finds of the plugin, as JSON; run as a program in the host's environment. Every form is made."""

from __future__ import annotations

import json


def main() -> None:
    import pyworkflow as pw

    domain = pw.Config.getDomain()
    assert "pyp_cspr" in domain.getPlugins()
    found = {}
    for name, kind in domain.getProtocols().items():
        if kind.__module__.startswith("pyp_cspr."):
            protocol = kind()
            parameters = {}
            for section in protocol._definition.iterSections():
                for parameter, definition in section.iterParams():
                    parameters[parameter] = {"section": section.getLabel(), "label": definition.getLabel(),
                                             "help": definition.getHelp(), "expert": definition.expertLevel.get()}
            found[name] = {"label": vars(kind).get("_label"), "base": kind.isBase(), "parameters": parameters,
                           "outputs": [output.name for output in kind._possibleOutputs or ()]}
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main()
