"""Reconstruct half maps and a map from tilt series or extracted stacks, at the poses that the data have.

Chunk by chunk, nothing of a particle is written. Killed at any moment, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..pipeline.reconstruct import reconstruct
from . import print_json
from .options import add_executor, add_json, add_machine, add_plan, executor_of, projections_bar, settings_of


def add_args(parser: argparse.ArgumentParser) -> None:
    add_plan(parser)
    add_machine(parser)
    add_executor(parser)
    parser.add_argument("--keep-sums", action="store_true", help="keep the partial sums of the chunks after merging")
    parser.add_argument("--no-report", dest="report", action="store_false", help="write no report.html")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    with executor_of(args) as executor:
        summary = reconstruct(args.data, args.out, settings, args.tasks_per_chunk, overwrite=args.overwrite,
                              keep_sums=args.keep_sums, report=args.report, bar=projections_bar, executor=executor)
    if args.json:
        print_json(summary)
        return 0
    resolution = summary["resolution_0143"]
    print(f"{summary['n_particles']} particles, {summary['n_projections']} projections of {summary['n_series']} series "
          f"in {summary['seconds']:.1f} s")
    print(f"resolution (FSC 0.143, corrected for the mask): {'none' if resolution is None else f'{resolution:.2f} A'}")
    for name in ("map.mrc", "report.html"):  # of a run that was finished without one there is no report
        path = Path(args.out).absolute() / name
        if os.path.exists(path):
            print(f"{path.stem}: {path}")
    return 0
