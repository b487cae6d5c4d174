"""Run a workflow of Scipion without its windows, on this machine, one protocol after the other:

    python -m pyp_cspr.workflow FOLDER [--template FILE] [NAME=VALUE ...]

FILE is a workflow as Scipion exports it, or a template with fields; the one of this package (sample data -> refine ->
filter -> refine -> post-process) if none is given. NAME is the short name of a field. FOLDER gets the project, which
Scipion can open, and workflow.json, the workflow with its values. Run again, it goes on after what is finished; other
values or another workflow need a folder of their own.

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

from .engine.errors import CsprError
from .engine.io.config import read_json, write_json

TEMPLATE = Path(__file__).parent / "templates" / "sample_to_map.json.template"
HOSTS = "[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s\n"
PROJECT = "cspr"
WORKFLOW = "workflow.json"  # what the project was made from


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


def read_workflow(file: Path, values: Dict[str, str]) -> List[Dict[str, Any]]:
    """The protocols of a workflow, as the host exports them, with the values of its fields put in.

    Raises SystemExit where it cannot be read, has no such field, or needs what is not installed.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{file}: cannot be read ({error}); give a workflow that Scipion has exported") from None
    try:
        found = json.loads(text)
        if values:
            raise SystemExit(f"{', '.join(values)}: the workflow {file} has no fields; edit it, or give a template")
    except ValueError:  # text around it, or fields in it: a template
        found = _filled_in(file, values)
    entries = found if isinstance(found, list) else []
    if not entries or not all(isinstance(one, dict) and {"object.className", "object.id"} <= set(one) for one in entries):
        raise SystemExit(f"{file}: holds no protocols; give a workflow that Scipion has exported")
    import pyworkflow as pw

    known = pw.Config.getDomain().getProtocols()
    missing = sorted({one["object.className"] for one in entries} - set(known))
    if missing:
        raise SystemExit(f"{file}: no installed plugin has {', '.join(missing)}; install the one that does")
    return entries


def _filled_in(file: Path, values: Dict[str, str]) -> Any:
    from pyworkflow.template import LocalTemplate

    try:
        made = LocalTemplate("pyp_cspr", str(file))
        made.replaceEnvVariables()
        made.parseContent()
    except Exception as error:  # noqa: BLE001 - what a damaged template makes the host raise is of any kind
        raise SystemExit(f"{file}: is no workflow and no template: {error!r}") from None
    fields = made.getParams().values()
    for name, value in values.items():
        try:
            known = made.setParamValue(name, value)
        except Exception as error:  # noqa: BLE001 - the host raises nothing more special
            raise SystemExit(f"{name}={value}: {error}") from None
        if not known:
            there = sorted({one.getAlias() for one in fields})
            raise SystemExit(f"{name}: the workflow has no such field; it has {', '.join(there) or 'none'}")
    content = made.getContent()
    for field in fields:
        content[field.getIndex()] = field.getValue()
    try:
        return json.loads("".join(content))
    except ValueError as error:
        raise SystemExit(f"{file}: is no workflow: {error}") from None


def open_project(folder: Path, template: Optional[Path], values: Dict[str, str]) -> Any:
    """The project, with the workflow's protocols in it. Raises SystemExit where it is one of another workflow."""
    from pyworkflow.project import Manager

    manager, kept = Manager(), folder / WORKFLOW
    asked = read_workflow(template or TEMPLATE, values) if template or values or not manager.hasProject(PROJECT) else None
    if manager.hasProject(PROJECT):
        if not kept.exists():
            raise SystemExit(f"{folder}: its project is not whole, or of another program (no {WORKFLOW}); give another folder")
        if asked is not None and asked != read_json(kept):
            raise SystemExit(f"{folder}: its project has another workflow or other values ({WORKFLOW}); give another folder, "
                             "or neither values nor a template to go on with it")
        project = manager.loadProject(PROJECT)
    else:
        assert asked is not None
        project = manager.createProject(PROJECT)
        try:
            _load(project, asked, template or TEMPLATE)
            write_json(kept, asked)
        except BaseException:
            manager.deleteProject(PROJECT)
            raise
    os.chdir(project.path)
    return project


def _load(project: Any, entries: List[Dict[str, Any]], file: Path) -> None:
    entries = [dict(one, **{"object.id": str(one["object.id"])}) for one in entries]  # as pointers name them
    labels = {one["object.id"]: one.get("object.label") for one in entries}
    try:
        loaded = project.loadProtocols(jsonStr=json.dumps(entries))
    except Exception as error:  # noqa: BLE001 - what odd values make the host raise is of any kind
        raise SystemExit(f"{file}: cannot be loaded: {error!r}") from None
    for number, protocol in loaded.items():
        if labels[number]:
            protocol.setObjLabel(labels[number])  # the host forgets them
        project.saveProtocol(protocol)


def in_order(project: Any) -> List[Any]:
    """The protocols, each after those that it takes its input from or waits for; else in the order of their numbers.

    Raises SystemExit where there are none, or where some wait for each other.
    """
    graph = project.getRunsGraph(refresh=True)
    left = {node.run.getObjId(): node for node in graph.getNodes() if node.run is not None}
    if not left:
        raise SystemExit(f"{project.path}: has no protocols; remove the project, or give another folder")
    needed = {number: {parent.run.getObjId() for parent in node.getParents() if parent.run is not None}
              | {int(other) for other in node.run.getPrerequisites()} for number, node in left.items()}
    ordered: List[Any] = []
    while left:
        ready = next((number for number in sorted(left) if not needed[number] & set(left)), None)
        if ready is None:
            raise SystemExit(f"{', '.join(node.run.getObjLabel() for node in left.values())}: wait for each other")
        ordered.append(left.pop(ready).run)
    return ordered


def run(project: Any) -> List[Any]:
    """Run all protocols that are not finished, in turn; returns them. Raises SystemExit where one fails."""
    from pyworkflow.protocol import MODE_RESUME

    protocols = in_order(project)
    for protocol in protocols:
        start, label = time.time(), protocol.getObjLabel()
        if not protocol.isFinished():
            errors = protocol.validate()
            if errors:
                raise SystemExit(f"{label}: {' '.join(errors)}")
            if not protocol.isSaved():
                protocol.runMode.set(MODE_RESUME)
            protocol.setPrerequisites()  # they are done, and with them the host would only schedule it
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
    parser.add_argument("--template", type=Path, metavar="FILE", help="workflow (that of the sample)")
    parser.add_argument("values", nargs="*", metavar="NAME=VALUE", help="field of the template")
    args = parser.parse_intermixed_args(argv)
    values = dict(value.partition("=")[::2] for value in args.values)
    folder = Path(args.folder).absolute()
    try:
        prepare(folder)
        import pyworkflow as pw

        pw.Config.getDomain().getPlugins()
        project = open_project(folder, args.template and args.template.absolute(), values)
    except (CsprError, OSError) as error:
        raise SystemExit(str(error)) from None
    print("\n" + outputs(project, run(project)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
