"""Keep the particles that score well enough, are not too near to better ones, and have enough projections.

Writes a data set of those to FOLDER, with the images where they are, and filter.json with what each rule removed.
Rules apply in this order: projections, score, distance. The automatic threshold parts the scores in two groups where they
fall into two, and removes nothing where they do not.
"""

from __future__ import annotations

import argparse
from typing import Any, Dict, Union

from ..pipeline.filter import filter_data
from . import print_json
from .options import add_data, add_json

WORDS = {
    "projections": "with too few projections",
    "no_score": "without a score",
    "score": "below the score",
    "distance": "too near to a better one",
}


def _score(text: str) -> Union[float, str]:
    return text if text == "auto" else float(text)


def add_args(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of the new data set; made if missing")
    parser.add_argument("--score", type=_score, metavar="X|auto", help="lowest score to keep, 0 to 100; auto: two groups")
    parser.add_argument("--distance", type=float, default=0.0, metavar="A",
                        help="least distance of particles of a series, best first; 0: any (%(default)s)")
    parser.add_argument("--min-projections", type=int, default=0, metavar="N",
                        help="least number of usable projections (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set in FOLDER")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    result = filter_data(args.data, args.out, args.score, args.distance, args.min_projections, args.overwrite)
    if args.json:
        print_json(result)
        return 0
    print_result(result)
    print(f"data: {args.out}")
    return 0


def print_result(result: Dict[str, Any]) -> None:
    if result["threshold"] is not None:
        print(f"score threshold {result['threshold']:.3f}: {result['reason']}")
    elif result["reason"]:
        print(result["reason"])
    for rule, count in result["removed"].items():
        if count:
            print(f"removed {count:7d} {WORDS[rule]}")
    print(f"kept    {result['n_particles']:7d} of {result['n_particles_before']} particles, half-sets of "
          f"{result['half_sets'][0]} and {result['half_sets'][1]}")
