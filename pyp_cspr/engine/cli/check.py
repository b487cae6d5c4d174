"""Read a data set whole, say what is in it, and refuse what is inconsistent.

With --reference, a sample of particles is scored under both tilt-angle signs, both hands of the defocus and both hands of
the map; the best is named, with how sure that is.
"""

from __future__ import annotations

import argparse
import math
from typing import Any, Dict, List

from ..errors import InputError
from ..io.mrc import read_map
from ..io.relion import read_dataset
from ..pipeline.check import check_cube, score_signs, survey
from ..pipeline.resources import cores
from . import print_json
from .options import add_data, add_json, progress_bar


def add_args(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument("--reference", metavar="MAP", help="map to score the data against")
    parser.add_argument("--resolution", type=float, default=0.0, metavar="A",
                        help="finest detail compared; 0: three pixels of the map, at least 20 A (%(default)s)")
    parser.add_argument("--particles", type=int, default=64, metavar="N", help="particles scored (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="0: all cores (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="for the choice of particles (%(default)s)")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    for name, least in (("particles", 1), ("threads", 0), ("seed", 0), ("resolution", 0)):
        if not least <= getattr(args, name) < math.inf:
            raise InputError(f"--{name} {getattr(args, name):g}: it must be {least} or above")
    dataset = read_dataset(args.data)
    dataset.validate()
    rows = survey(dataset)
    signs: List[Dict[str, Any]] = []
    if args.reference:
        reference, pixel = read_map(args.reference)
        check_cube(reference, args.reference)
        total = 4 * min(args.particles, len(dataset.particles)) * max(row["tilts"] for row in rows)
        with progress_bar(total, "check", " projections") as progress:
            signs = score_signs(dataset, reference, pixel, args.resolution, args.particles, args.threads or cores(), args.seed,
                                progress)
    if args.json:
        print_json({"series": rows, "signs": signs, "best": signs[0] if signs else None})
        return 0
    print_survey(rows)
    if signs:
        print_signs(signs)
    return 0


SURE = 3.0  # sigma by which an answer must lead
QUESTIONS = (
    ("tilt_sign", 1, "negate the tilt angles", "the sign of the tilt angles"),
    ("hand", 1, "reverse rlnTomoHand", "the hand of the defocus"),
    ("mirrored_reference", False, "mirror the reference", "the hand of the reference"),
)


def print_survey(rows: List[Dict[str, Any]]) -> None:
    width = max(6, max(len(row["series"]) for row in rows))
    print(f"{'series':{width}}  tilts     range/deg  particles  projections  outside  pixel/A  box  dose/(e/A^2)  "
          "defocus/um   hand")
    for row in rows:
        tilts = f"{row['tilts'] - row['excluded']}/{row['tilts']}"
        print(f"{row['series']:{width}}  {tilts:>5}  {row['tilt_min']:6.1f} {row['tilt_max']:5.1f}  {row['particles']:9d}  "
              f"{row['projections']:11d}  {row['outside']:7d}  {row['image_pixel']:7.3f}  {row['box']:3d}  "
              f"{row['dose']:12.1f}  {row['defocus_min'] / 1e4:.2f}..{row['defocus_max'] / 1e4:.2f}  {row['hand']:+.0f}")
    total = {name: sum(row[name] for row in rows) for name in ("tilts", "particles", "projections", "outside")}
    print(f"{len(rows)} series, {total['tilts']} tilts, {total['particles']} particles, {total['projections']} projections, "
          f"{total['outside']} of them outside the images")


def print_signs(signs: List[Dict[str, Any]]) -> None:
    print("\ntilt angles  defocus hand  reference   score  behind the best by")
    for sign in signs:
        tilt = "as given" if sign["tilt_sign"] > 0 else "negated "
        hand = "as given" if sign["hand"] > 0 else "reversed"
        mirror = "mirrored" if sign["mirrored_reference"] else "as given"
        print(f"{tilt:11}  {hand:12}  {mirror:9}  {sign['score']:6.2f}  {sign['sigmas']:.1f} sigma")
    advice, open_questions = [], []
    for name, given, change, question in QUESTIONS:
        # How far behind the best is the best of those that answer this question otherwise?
        lead = min(sign["sigmas"] for sign in signs if sign[name] != signs[0][name])
        if lead < SURE:
            open_questions.append(f"{question} ({lead:.1f} sigma)")
        elif signs[0][name] != given:
            advice.append(change)
    print("best: " + ("the data fit better if you " + " and ".join(advice) if advice else "the data are right as given"))
    if open_questions:
        print("these data do not decide: " + ", ".join(open_questions))
