"""Compare a run or a data set with the truth of the sample it was made from.

Prints the errors of particle rotations and positions, of the tilt geometry and of defocus, before and after the motions
that no image can tell are removed: each series' own frame, and with --reference also a turn and a shift of the reference.
Of a refinement, also the Cramer-Rao bound of each error, and the mean square of error over uncertainty, which is 1 where the
uncertainties are right.
"""

from __future__ import annotations

import argparse
from typing import Any, Dict

from ..pipeline.compare import BOUNDS, QUANTITIES, compare, read_run
from ..sample.truth import read_truth
from . import print_json
from .options import add_json


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="RUN", help="run folder, data set, or its optimisation_set.star")
    parser.add_argument("truth", metavar="TRUTH", help="truth.star of the sample")
    parser.add_argument("--symmetry", default="C1", metavar="GROUP", help="of the reference (%(default)s)")
    parser.add_argument("--reference", action="store_true", help="also remove a turn and a shift of the reference")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    estimate, bounds = read_run(args.data)
    result = compare(estimate, read_truth(args.truth), args.symmetry, args.reference, bounds)
    if args.json:
        print_json(result)
        return 0
    counts = (f"{result[f'n_{name}']} {name}" for name in ("series", "particles", "tilts"))
    print(", ".join(counts) + f", {result['symmetry']}")
    print(f"{'':18}{'':7}{'before':>20}{'after gauge removal':>24}")
    print(f"{'error':18}{'unit':7}{'rms':>10}{'median':>10}{'rms':>12}{'median':>12}")
    for name in QUANTITIES:
        before, after = result["before"][name], result["after"][name]
        numbers = [before["rms"], before["median"], after["rms"], after["median"]]
        cells = ["-" if number is None else f"{number:.4f}" for number in numbers]
        print(f"{name.replace('_', ' '):18}{before['unit']:7}{cells[0]:>10}{cells[1]:>10}{cells[2]:>12}{cells[3]:>12}")
    if "bound" in result:
        print_bounds(result["bound"])
    if args.reference:
        shift = ", ".join(f"{value:.3f}" for value in result["reference_shift"])
        print(f"reference turned by {result['reference_rotation']:.4f} deg, shifted by ({shift}) A")
    return 0


def print_bounds(bounds: Dict[str, Dict[str, Any]]) -> None:
    print(f"\n{'rms error':18}{'unit':7}{'error':>10}{'bound':>10}{'ratio':>8}{'(error/sigma)^2':>17}")
    for name, (unit, source) in BOUNDS.items():
        values = [bounds[name][key] for key in ("error", "bound", "ratio", "variance")]
        cells = ["-" if value is None else f"{value:.{digits}f}" for value, digits in zip(values, (4, 4, 3, 3))]
        print(f"{name:18}{unit:7}{cells[0]:>10}{cells[1]:>10}{cells[2]:>8}{cells[3]:>17}  of {source}")
