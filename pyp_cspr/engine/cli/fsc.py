"""Compare two half maps: Fourier shell correlation, unmasked, masked, phase-randomised and corrected.

A and B are MRC maps of the same box and pixel. The mask is made from their average (--mask auto), left out (--mask none) or
read from a file. With a reference as B, --mask b makes it from B alone, and --mirror compares with the other hand of B. The
resolution is where the corrected curve (Chen et al. 2013) falls below 0.143.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..core.filters import mirrored, soft_mask
from ..core.fsc import resolutions
from ..errors import InputError
from ..io.mrc import read_map, write_map
from ..pipeline.merge import write_fsc
from ..reconstruct.postprocess import CURVES, Comparison, compare_halves
from . import print_json
from .options import add_json


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="first half map")
    parser.add_argument("b", metavar="B", help="second half map")
    parser.add_argument("--mask", default="auto", metavar="auto|b|none|FILE",
                        help="from the average of both, from B, none, or a map (%(default)s)")
    parser.add_argument("--mirror", action="store_true", help="mirror B in z first")
    parser.add_argument("--shells", type=int, nargs=2, metavar=("LOW", "HIGH"), help="print the mean of each curve over shells")
    parser.add_argument("--pixel", type=float, default=0.0, metavar="A", help="pixel size, instead of the files'")
    parser.add_argument("--out", metavar="CSV", help="write the curves: shell, resolution and the four curves")
    parser.add_argument("--mask-out", metavar="MRC", help="write the mask that was used")
    parser.add_argument("--seed", type=int, default=1, help="of the random phases (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads (%(default)s)")
    add_json(parser)


def read_pair(first: str, second: str, pixel: float = 0.0) -> Tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Two cubes of one box and pixel, and the pixel in angstrom; InputError where they do not fit. ``pixel`` 0: the files'."""
    a, pixel_a = read_map(first)
    b, pixel_b = read_map(second)
    for name, volume in ((first, a), (second, b)):
        _check_map(name, volume)
    if a.shape != b.shape:
        raise InputError(f"{second}: box {len(b)}, but {first} has box {len(a)}; compare maps of the same box")
    if not 0 <= pixel < np.inf:
        raise InputError(f"--pixel {pixel:g}: it must be above 0")
    if pixel > 0:
        return a, b, pixel
    if pixel_a <= 0 or pixel_b <= 0:
        bad = first if pixel_a <= 0 else second
        raise InputError(f"{bad}: its header gives no pixel size; give it with --pixel")
    if abs(pixel_a - pixel_b) > 1e-3 * pixel_a:
        raise InputError(f"{second}: pixel {pixel_b:g} A, but {first} has {pixel_a:g} A; mend the headers or give --pixel")
    return a, b, pixel_a


def _check_map(name: str, volume: NDArray) -> None:
    if volume.ndim != 3 or len(set(volume.shape)) != 1 or len(volume) < 4:
        raise InputError(f"{name}: {' x '.join(str(n) for n in volume.shape[::-1])} voxels; a map must be a cube of 4 or more")
    if not np.isfinite(volume).all():
        raise InputError(f"{name}: holds values that are not numbers; make the map again")


def read_mask(name: str, box: int) -> NDArray[np.float32]:
    """A mask of ``box`` voxels from a file; InputError where it is not one."""
    values, _ = read_map(name)
    _check_map(name, values)
    if len(values) != box:
        raise InputError(f"{name}: box {len(values)}, but the maps have box {box}; make a mask of that box")
    if values.min() < -1e-3 or values.max() > 1.001 or not values.max() > 0:
        raise InputError(f"{name}: values from {values.min():g} to {values.max():g}; a mask goes from 0 to 1")
    return values


def describe(compared: Comparison, box: int, pixel: float) -> Dict[str, Any]:
    """What ``--json`` prints. A resolution is null where the curve never is above its threshold."""
    inverse = resolutions(box, pixel)
    return {
        "box": box,
        "pixel": pixel,
        "resolution_0143": _finite(compared.resolution_0143),
        "resolution_05": _finite(compared.resolution_05),
        "shell": list(range(box // 2 + 1)),
        "resolution": [_finite(value) for value in inverse],
        "curves": {name: [round(float(value), 6) for value in compared.curves[name]] for name in CURVES},
        "journal": compared.journal,
    }


def mean_over(compared: Comparison, low: int, high: int) -> Dict[str, float]:
    """Mean of each curve over shells ``low`` to ``high``, both included. Raises InputError for shells that are not there."""
    last = len(compared.curves["unmasked"]) - 1
    if not 1 <= low <= high <= last:
        raise InputError(f"--shells {low} {high}: they must be from 1 to {last}, the smaller first")
    return {name: float(compared.curves[name][low : high + 1].mean()) for name in CURVES}


def _finite(value: float) -> Union[float, None]:
    return float(value) if np.isfinite(value) else None


def main(args: argparse.Namespace) -> int:
    a, b, pixel = read_pair(args.a, args.b, args.pixel)
    mask: Union[str, NDArray] = args.mask if args.mask in ("auto", "b", "none") else read_mask(args.mask, len(a))
    if args.threads < 1 or args.seed < 0:
        raise InputError("--threads must be at least 1 and --seed at least 0")
    if args.mirror:
        b = mirrored(b)
    if args.mask == "b":
        mask = soft_mask(b, pixel, threads=args.threads).values
    compared = compare_halves(a, b, pixel, mask, seed=args.seed, threads=args.threads)
    if args.out:
        write_fsc(Path(args.out), compared.curves, pixel * len(a))
    if args.mask_out:
        write_map(args.mask_out, compared.mask, pixel)
    values = describe(compared, len(a), pixel)
    if args.shells:
        values["mean"] = mean_over(compared, *args.shells)
    if args.json:
        print_json(values)
        return 0
    print(f"{'shell':>5} {'A':>9} {'unmasked':>9} {'masked':>9} {'random':>9} {'corrected':>9}")
    for shell in range(1, len(values["shell"])):
        row = " ".join(f"{compared.curves[name][shell]:9.3f}" for name in CURVES)
        print(f"{shell:5d} {values['resolution'][shell]:9.2f} {row}")
    for name, mean in values.get("mean", {}).items():
        print(f"mean over shells {args.shells[0]} to {args.shells[1]}, {name}: {mean:.4f}")
    for entry in compared.journal:
        value = "" if entry["value"] is None else f": {entry['value']:.6g} {entry.get('unit', '')}".rstrip()
        print(f"{entry['message']}{value}")
    for name, label in (("resolution_0143", "0.143"), ("resolution_05", "0.5")):
        text = "none" if values[name] is None else f"{values[name]:.2f} A"
        print(f"resolution at {label} of the corrected curve: {text}")
    return 0
