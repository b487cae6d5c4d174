"""Say what a run folder holds: its plan, which chunks are finished, and its result."""

from __future__ import annotations

import argparse
import os
from typing import Any, Dict

from ..model.task import ChunkTask
from ..pipeline.store import RunStore, read_json, read_record
from . import print_json
from .options import add_json


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="run folder")
    add_json(parser)


def describe(store: RunStore) -> Dict[str, Any]:
    """What ``--json`` prints: the plan, the state of every chunk, the summary or null."""
    plan = store.plan()
    chunks = []
    for path, chunk in zip(store.task_paths(), plan["chunks"]):
        task = ChunkTask.from_dict(read_json(path), str(path))
        chunks.append(dict(chunk, finished=store.manifest_only(task) is not None))
    return {
        "run": str(store.folder),
        "data": plan["data"],
        "grid": plan["grid"],
        "settings": plan["settings"],
        "n_particles": plan["n_particles"],
        "n_projections": plan["n_projections"],
        "chunks": chunks,
        "summary": store.finished(),
    }


def describe_refinement(store: RunStore) -> Dict[str, Any]:
    """The same of a refinement: its plan, and every iteration that was begun."""
    plan = read_record(store.folder / "refine.json", ("data", "reference"), "start the refinement anew with --overwrite")
    iterations = [RunStore(path.parent) for path in sorted(store.folder.glob("iterations/*/run.json"))]
    return dict(plan, run=str(store.folder), iterations=[describe(one) for one in iterations], summary=store.finished())


def print_refinement(values: Dict[str, Any]) -> None:
    print(f"run       {values['run']}")
    print(f"data      {values['data']}")
    print(f"reference {values['reference']}")
    for number, one in enumerate(values["iterations"]):
        finished = sum(chunk["finished"] for chunk in one["chunks"])
        result = "not merged yet"
        if one["summary"] is not None:
            resolution = one["summary"]["resolution_0143"]
            result = "no resolution" if resolution is None else f"{resolution:.2f} A"
        print(f"iteration {number}: {finished} of {len(one['chunks'])} chunks finished, {result}")
    summary = values["summary"]
    print("result    not finished yet" if summary is None else f"result    {summary['reason']}")


def main(args: argparse.Namespace) -> int:
    store = RunStore(args.run_folder)
    if os.path.exists(store.folder / "refine.json"):
        refinement = describe_refinement(store)
        if args.json:
            print_json(refinement)
        else:
            print_refinement(refinement)
        return 0
    values = describe(store)
    if args.json:
        print_json(values)
        return 0
    finished = sum(chunk["finished"] for chunk in values["chunks"])
    print(f"run       {values['run']}")
    print(f"data      {values['data']}")
    print(f"map       box {values['grid']['box']}, {values['grid']['pixel']:g} A/pixel, {values['settings']['symmetry']}")
    print(f"particles {values['n_particles']}, projections {values['n_projections']}")
    print(f"chunks    {finished} of {len(values['chunks'])} finished")
    for chunk in values["chunks"]:
        if not chunk["finished"]:
            print(f"  waiting {chunk['index']:04d}: {', '.join(chunk['series'])}")
    summary = values["summary"]
    if summary is None:
        print("result    not merged yet")
    else:
        resolution = summary["resolution_0143"]
        print(f"result    {'no resolution' if resolution is None else f'{resolution:.2f} A'} in {summary['seconds']:.1f} s")
    return 0
