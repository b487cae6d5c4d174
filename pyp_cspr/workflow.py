"""Run a workflow of Scipion without its windows, on this machine, one protocol after the other:

    python -m pyp_cspr.workflow FOLDER [--template FILE] [NAME=VALUE ...]

FILE is a workflow as Scipion exports it, or a template with fields; the one of this package (sample data -> refine ->
filter -> refine -> post-process) if none is given. NAME is the short name of a field. FOLDER gets the project, which
Scipion can open. Run again, it goes on after what is finished.

Scipion reads its settings from the environment when it is imported: what is not set there is set here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

TEMPLATE = Path(__file__).parent / "templates" / "sample_to_map.json.template"
HOSTS = "[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s\n"
PROJECT = "cspr"


def prepare(folder: Path) -> None:
    """The host's settings, where they are not given."""
    folder.mkdir(parents=True, exist_ok=True)
    hosts = folder / "hosts.conf"
    if "SCIPION_HOSTS" not in os.environ:
        hosts.write_text(HOSTS, encoding="utf-8")
    values = {"SCIPION_HOME": folder, "SCIPION_HOSTS": hosts, "SCIPION_DOMAIN": "pwem", "SCIPION_NOTIFY": "False",
              "SCIPION_PYTHON": sys.executable, "SCIPION_PRIORITY_PACKAGE_LIST": "pwem tomo", "NO_COLOR": "1"}
    for name, value in values.items():
        os.environ.setdefault(name, str(value))
    os.environ["SCIPION_USER_DATA"] = str(folder)


def workflow_file(template: Path, values: Dict[str, str]) -> str:
    """A workflow that the host can load, from a template and values of its fields."""
    from pyworkflow.template import LocalTemplate

    made = LocalTemplate("pyp_cspr", str(template))
    made.replaceEnvVariables()
    made.parseContent()
    for name, value in values.items():
        try:
            known = made.setParamValue(name, value)
        except Exception as error:  # noqa: BLE001 - the host raises nothing more special
            raise SystemExit(f"{name}={value}: {error}") from None
        if not known:
            fields = sorted({field.getAlias() for field in made.getParams().values()})
            raise SystemExit(f"{name}: the workflow has no such field; it has {', '.join(fields)}")
    return str(made.createTemplateFile())


def open_project(template: Path, values: Dict[str, str]) -> Any:
    """The project, with the workflow's protocols in it."""
    from pyworkflow.project import Manager

    manager = Manager()
    if manager.hasProject(PROJECT):
        project = manager.loadProject(PROJECT)
    else:
        file = workflow_file(template, values)
        project = manager.createProject(PROJECT)
        with open(file, encoding="utf-8") as stream:
            labels = {one["object.id"]: one.get("object.label", "") for one in json.load(stream)}
        for number, protocol in project.loadProtocols(file).items():
            protocol.setObjLabel(labels[number])  # the host forgets them
            project.saveProtocol(protocol)
        os.remove(file)
    os.chdir(project.path)
    return project


def run(project: Any) -> List[Any]:
    """Run all protocols that are not finished, in turn; returns them. Raises SystemExit where one fails."""
    from pyworkflow.protocol import MODE_RESUME

    protocols = sorted(project.getRuns(), key=lambda protocol: protocol.getObjId())
    for protocol in protocols:
        start, label = time.time(), protocol.getObjLabel()
        if not protocol.isFinished():
            errors = protocol.validate()
            if errors:
                raise SystemExit(f"{label}: {' '.join(errors)}")
            if not protocol.isSaved():
                protocol.runMode.set(MODE_RESUME)
            project.launchProtocol(protocol, wait=True)
            project._updateProtocol(protocol)
        if not protocol.isFinished():
            raise SystemExit(f"{label}: {protocol.getStatus()}: {protocol.getErrorMessage()}\n"
                             f"its logs: {project.path}/{protocol.getStdoutLog()}")
        print(f"\n{label} ({time.time() - start:.0f} s)", *protocol.summary(), sep="\n  ", flush=True)
    return protocols


def outputs(project: Any, protocols: List[Any]) -> str:
    """Where everything is."""
    lines = []
    for protocol in protocols:
        for name, output in protocol.iterOutputAttributes():
            lines.append(f"{protocol.getObjLabel():14s} {name:14s} {output.getFileName().replace(':mrc', '')}")
    return "\n".join([f"Project        {project.path}", *lines])


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pyp_cspr.workflow", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", help="for the project")
    parser.add_argument("--template", type=Path, default=TEMPLATE, metavar="FILE", help="workflow (that of the sample)")
    parser.add_argument("values", nargs="*", metavar="NAME=VALUE", help="field of the template")
    args = parser.parse_intermixed_args(argv)
    values = dict(value.partition("=")[::2] for value in args.values)
    prepare(Path(args.folder).absolute())
    import pyworkflow as pw

    pw.Config.getDomain().getPlugins()
    project = open_project(args.template.absolute(), values)
    print("\n" + outputs(project, run(project)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
