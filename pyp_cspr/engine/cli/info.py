"""Say what a run folder holds: its plan, which chunks are finished, and its result."""

from __future__ import annotations

import argparse
from typing import Any, Dict

from ..model.task import ChunkTask
from ..pipeline.store import RunStore, read_json
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


def main(args: argparse.Namespace) -> int:
    values = describe(RunStore(args.run_folder))
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
