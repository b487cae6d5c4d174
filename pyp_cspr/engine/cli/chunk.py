"""Run one chunk of a plan: its two half-map partial sums, and a manifest written last.

A chunk that is finished is not run again. With --debug it is run in the foreground in any case, and chosen particles'
projections are shown beside what the reference says they should be, as pictures and tables.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..errors import InputError
from ..model.task import ChunkTask
from ..pipeline.chunk import run_chunk_file
from ..pipeline.resources import share_out
from ..pipeline.store import read_json
from . import print_json
from .options import add_json, add_threads, progress_bar


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="task file, RUN/tasks/NNNN.json")
    add_threads(parser)
    group = parser.add_argument_group("looking at single projections")
    group.add_argument("--debug", metavar="DIR", help="write sheets and tables of particles into this folder")
    group.add_argument("--particles", nargs="+", default=["3"], metavar="NAME",
                       help="their names, or one number: so many, evenly from the chunk (3)")
    group.add_argument("--reference", default="", metavar="MAP", help="map to compare with (that of the task)")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    if not os.path.isfile(args.task):  # Path's own fails for a long name
        raise InputError(f"{args.task}: no such task file; see `cspr plan`")
    task = ChunkTask.from_dict(read_json(Path(args.task)), args.task)
    _, threads, memory = share_out(1, args.threads, args.memory, 1)
    if args.debug:
        return _debug(args, threads, memory)
    with progress_bar(task.n_projections, f"chunk {task.index:04d}", " projections") as progress:
        manifest = run_chunk_file(Path(args.task), threads, memory, progress)
    if args.json:
        print_json(manifest)
    else:
        print(f"chunk {task.index:04d} ({', '.join(task.series)}): {manifest['journal']['n_projections']} projections inserted")
    return 0


def _debug(args: argparse.Namespace, threads: int, memory: int) -> int:
    from ..pipeline.debug import debug_chunk

    files = debug_chunk(Path(args.task), Path(args.debug).absolute(), args.particles, args.reference, threads, memory,
                        lambda text: print(text, file=sys.stderr, flush=True))
    if args.json:
        print_json({"files": files})
    else:
        print("\n".join(files))
    return 0
