"""Sharpen the average of two half maps: mask, FSC, B-factor and a low-pass at the resolution.

OUT gets map_sharpened.mrc (not masked), mask.mrc, fsc.csv, and summary.json last. The B-factor comes from a straight line
through the Guinier plot between 10 A and the resolution (Rosenthal and Henderson 2003), where the maps reach that far.
"""

from __future__ import annotations

import argparse
from typing import Any, Dict, Union

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..io.mrc import write_map
from ..pipeline.claim import MAPS, claim_folder
from ..pipeline.merge import write_fsc
from ..pipeline.store import write_json
from ..reconstruct.postprocess import Sharpened, sharpen_halves
from . import print_json
from .fsc import describe, read_mask, read_pair
from .options import add_json


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="HALF1", help="first half map, not filtered")
    parser.add_argument("b", metavar="HALF2", help="second half map, not filtered")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder; made if missing")
    parser.add_argument("--mask", default="auto", metavar="auto|none|FILE",
                        help="mask of the FSC and the B-factor (%(default)s)")
    parser.add_argument("--b-factor", default="auto", metavar="auto|A^2",
                        help="automatic, or a value: negative sharpens, 0 does not (%(default)s)")
    parser.add_argument("--resolution", type=float, default=0.0, metavar="A",
                        help="of the low-pass; 0: from the FSC (%(default)s)")
    parser.add_argument("--pixel", type=float, default=0.0, metavar="A", help="pixel size, instead of the files'")
    parser.add_argument("--seed", type=int, default=1, help="of the random phases (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads (%(default)s)")
    add_json(parser)


def _b_factor(text: str) -> Union[str, float]:
    if text == "auto":
        return text
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"--b-factor {text}: give auto or a number of square angstrom")
    return value


def summarise(made: Sharpened, box: int, pixel: float) -> Dict[str, Any]:
    """What summary.json holds. Numbers that there are not are null."""
    values = describe(made.compared, box, pixel)
    del values["curves"], values["shell"], values["resolution"]
    values["low_pass"] = float(made.resolution) if np.isfinite(made.resolution) else None
    values["b_factor"] = made.b_factor
    return values


def main(args: argparse.Namespace) -> int:
    inputs = [args.a, args.b, *([] if args.mask in ("auto", "none") else [args.mask])]
    folder = claim_folder(args.out, MAPS, inputs).folder
    a, b, pixel = read_pair(args.a, args.b, args.pixel)
    mask: Union[str, NDArray] = args.mask if args.mask in ("auto", "none") else read_mask(args.mask, len(a))
    if args.threads < 1 or args.seed < 0:
        raise InputError("--threads must be at least 1 and --seed at least 0")
    if not args.resolution >= 0 or np.isinf(args.resolution):
        raise InputError(f"--resolution {args.resolution:g}: it must be 0 or above")
    made = sharpen_halves(a, b, pixel, mask, _b_factor(args.b_factor), args.resolution, args.seed, args.threads)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); give another --out") from None
    (folder / "summary.json").unlink(missing_ok=True)
    write_map(folder / "map_sharpened.mrc", made.map, pixel)
    write_map(folder / "mask.mrc", made.compared.mask, pixel)
    write_fsc(folder / "fsc.csv", made.compared.curves, pixel * len(a))
    values = summarise(made, len(a), pixel)
    write_json(folder / "summary.json", values)
    if args.json:
        print_json(values)
        return 0
    for entry in made.compared.journal:
        value = "" if entry["value"] is None else f": {entry['value']:.6g} {entry.get('unit', '')}".rstrip()
        print(f"{entry['message']}{value}")
    resolution = values["resolution_0143"]
    print(f"resolution (FSC 0.143, corrected for the mask): {'none' if resolution is None else f'{resolution:.2f} A'}")
    print(f"map: {folder / 'map_sharpened.mrc'}")
    return 0
