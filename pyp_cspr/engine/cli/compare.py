"""Compare a run or a data set with the truth of the sample it was made from.

Prints the errors of particle rotations and positions, of the tilt geometry and of defocus, before and after the motions
that no image can tell are removed: each series' own frame, and with --reference also a turn and a shift of the reference.
"""

from __future__ import annotations

import argparse

from ..io.relion import read_dataset
from ..pipeline.compare import QUANTITIES, compare
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
    result = compare(read_dataset(args.data), read_truth(args.truth), args.symmetry, args.reference)
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
    if args.reference:
        shift = ", ".join(f"{value:.3f}" for value in result["reference_shift"])
        print(f"reference turned by {result['reference_rotation']:.4f} deg, shifted by ({shift}) A")
    return 0
