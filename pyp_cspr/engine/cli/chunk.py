"""Run one chunk of a plan: its two half-map partial sums, and a manifest written last.

A chunk that is finished is not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..model.task import ChunkTask
from ..pipeline.chunk import run_chunk_file
from ..pipeline.resources import share_out
from ..pipeline.store import read_json
from . import print_json
from .options import add_json, add_threads, progress_bar


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="task file, RUN/tasks/NNNN.json")
    add_threads(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    task = ChunkTask.from_dict(read_json(Path(args.task)), args.task)
    _, threads, memory = share_out(1, args.threads, args.memory, 1)
    with progress_bar(task.n_projections, f"chunk {task.index:04d}", " projections") as progress:
        manifest = run_chunk_file(Path(args.task), threads, memory, progress)
    if args.json:
        print_json(manifest)
    else:
        print(f"chunk {task.index:04d} ({', '.join(task.series)}): {manifest['journal']['n_projections']} projections inserted")
    return 0
