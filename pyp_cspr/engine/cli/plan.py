"""Cut a data set into chunks and write a task file for each.

Then run every `cspr chunk RUN/tasks/NNNN.json`, anywhere and in any order, and `cspr merge RUN`.
"""

from __future__ import annotations

import argparse

from ..pipeline.plan import plan_run
from . import print_json
from .options import add_json, add_plan, settings_of


def add_args(parser: argparse.ArgumentParser) -> None:
    add_plan(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    store = plan_run(args.data, args.out, settings_of(args), args.tasks_per_chunk, args.overwrite)
    paths = [str(path) for path in store.task_paths()]
    if args.json:
        print_json({"run": str(store.folder), "tasks": paths, "n_projections": store.plan()["n_projections"]})
    else:
        print(f"{len(paths)} chunks, {store.plan()['n_projections']} projections: {store.folder / 'tasks'}")
    return 0
