"""Merge the chunks of a run into half maps, a map, FSC curves, stars and a report."""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..pipeline.merge import merge_run
from ..pipeline.resources import cores
from ..pipeline.store import RunStore
from . import print_json
from .options import add_json


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="run folder made by `cspr plan`")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="0: all cores (%(default)s)")
    parser.add_argument("--keep-sums", action="store_true", help="keep the partial sums of the chunks after merging")
    parser.add_argument("--no-report", dest="report", action="store_false", help="write no report.html")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    store = RunStore(args.run_folder)
    if args.threads < 0:
        raise InputError(f"--threads {args.threads}: it must be 0 (all cores) or above")
    store.plan()  # refuses a folder that is no run
    with store.locked():
        summary = merge_run(store, args.threads or cores(), args.keep_sums, args.report)
    if args.json:
        print_json(summary)
    else:
        resolution = summary["resolution_0143"]
        print(f"resolution {'none' if resolution is None else f'{resolution:.2f} A'}: {store.folder / 'map.mrc'}")
    return 0
