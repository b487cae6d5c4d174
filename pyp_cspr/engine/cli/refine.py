"""Refine particle poses and tilt geometry against a map, and reconstruct: the main job.

Every particle is one rigid body and every tilt image one view of all of them, so both are solved for together. Iteration 0
reconstructs at the start poses; each later one refines each half-set against its own map and reconstructs. Killed at any
moment, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, Dict

from ..io.config import read_toml
from ..model.settings import RefineSettings, of_iteration
from ..pipeline.iterate import refine
from . import print_json
from .options import add_data, add_executor, add_json, add_machine, executor_of, projections_bar, settings_help


def add_args(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument("--reference", required=True, metavar="MAP",
                        help="starting map, of the run's box and pixel: the particles', or --box and --pixel")
    parser.add_argument("--halves", nargs=2, default=(), metavar=("HALF1", "HALF2"),
                        help="half maps of the reference: each half-set starts from its own; the particles must have half-sets")
    parser.add_argument("--out", required=True, metavar="RUN",
                        help="run folder; made if missing, resumed if it holds the same run")
    parser.add_argument("--mask", default="auto", metavar="auto|none|sphere:A|FILE",
                        help="mask of the references; sphere:A is a ball of A angstrom radius (%(default)s)")
    parser.add_argument("--iterations", type=int, default=4, metavar="N", help="at most; 0: only reconstruct (%(default)s)")
    parser.add_argument("--settings", metavar="TOML", help="settings by name; a list has a value for each iteration")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one setting, above those of the file")
    group = parser.add_argument_group("settings that have their own option")
    group.add_argument("--symmetry", metavar="GROUP", help="C1, C3, D7, T, O, I1, I2 ... (C1)")
    group.add_argument("--resolution", type=float, nargs="+", metavar="A",
                       help="finest detail, by iteration; 0: from the FSC (0)")
    group.add_argument("--box", type=int, metavar="PIXELS", help="box of the map (as the data say)")
    group.add_argument("--pixel", type=float, metavar="A", help="pixel of the map (as the data say)")
    group = parser.add_argument_group("run")
    group.add_argument("--tasks-per-chunk", type=int, default=1, metavar="N", help="series in a chunk (%(default)s)")
    group.add_argument("--chunks-elsewhere", action="store_true",
                       help="run no chunk: merge those that are done, plan the next iteration, and print the tasks to be run "
                            "with `cspr chunk` before the next call")
    group.add_argument("--overwrite", action="store_true", help="replace another run in RUN")
    group.add_argument("--no-report", dest="report", action="store_false", help="write no report.html")
    add_machine(parser)
    add_executor(parser)
    add_json(parser)
    parser.epilog = settings_help(
        RefineSettings, "settings, for --settings and --set (a prior is a standard deviation; 0 keeps what it is of)")


def values_of(args: argparse.Namespace) -> Dict[str, Any]:
    """Settings by name from the file, --set and the options, the last above the first."""
    from ..errors import InputError

    values = read_toml(args.settings) if args.settings else {}
    for iteration in range(max((len(value) for value in values.values() if isinstance(value, list)), default=1) or 1):
        of_iteration(values, iteration + 1, args.settings)  # what is wrong in the file is said to be in the file
    kinds = {field.name: type(field.default) for field in fields(RefineSettings)}
    for text in args.set:
        name, _, value = text.partition("=")
        if name not in kinds:
            raise InputError(f"--set {text}: unknown setting {name!r}; known: {', '.join(sorted(kinds))}")
        values[name] = _parsed(value, kinds[name], text)
    for name in ("symmetry", "box", "pixel", "resolution"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    return values


def _parsed(text: str, kind: type, where: str) -> Any:
    from ..errors import InputError

    words = {"true": True, "false": False}
    try:
        parts = [words[part.lower()] if kind is bool else kind(part) for part in text.split(":")]
    except (ValueError, KeyError):
        raise InputError(f"--set {where}: {text!r} is not {kind.__name__}") from None
    return parts[0] if len(parts) == 1 else parts


def main(args: argparse.Namespace) -> int:
    values = values_of(args)
    with executor_of(args) as executor:
        summary = refine(args.data, args.reference, args.out, values, args.iterations, args.mask, args.tasks_per_chunk,
                         overwrite=args.overwrite, report=args.report, bar=projections_bar,
                         chunks_elsewhere=args.chunks_elsewhere, executor=executor, halves=args.halves)
    if args.json:
        print_json(summary)
        return 0
    if "tasks" in summary:
        print("\n".join(summary["tasks"]))
        return 0
    print("iteration  limit/A resolution/A turned/deg  moved/A sigma/deg  score")
    for entry in summary["iterations"]:
        cells = [entry.get(name) for name in ("limit", "resolution_0143", "rotation", "position", "sigma_rotation", "score")]
        texts = ["-" if cell is None else f"{cell:.2f}" for cell in cells]
        print(f"{entry['iteration']:9d} {texts[0]:>8} {texts[1]:>12} {texts[2]:>10} {texts[3]:>8} {texts[4]:>9} {texts[5]:>6}")
    print(summary["reason"])
    print(f"map: {Path(args.out) / 'map.mrc'}")
    return 0
