"""Convert alignments between PYP, RELION and the engine: poses, tilt geometry, CTF and half-sets.

No particle image is written unless --stacks asks for it.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext

from ..pipeline.chunk import no_progress
from ..pipeline.convert import FORMATS, convert
from . import print_json
from .options import add_json, progress_bar


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN",
                        help="RELION tomography project (folder or optimisation_set.star), particle star, or PYP project")
    parser.add_argument("out", metavar="OUT", help="folder to write; made if missing")
    parser.add_argument("--to", dest="form", choices=list(FORMATS), default="relion5", help="(%(default)s)")
    parser.add_argument("--stacks", action="store_true",
                        help="relion-spa: cut the images and write them as well; pyp: write tilt series as stacks")
    parser.add_argument("--alignments", default="", metavar="FILE", help="of a PYP project: those meant, if not the last")
    parser.add_argument("--box", type=int, default=0, metavar="PIXELS", help="of the images that are cut (as the data say)")
    parser.add_argument("--map", dest="volume", default="", metavar="MAP",
                        help="goes along as starting map; the particles' box and pixel are then its own")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("X", "Y"),
                        help="pixels of micrographs that a single-particle star names and that are not here")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    add_json(parser)
    parser.epilog = "formats:\n" + "\n".join(f"  {name:10}  {text}" for name, text in FORMATS.items())


def main(args: argparse.Namespace) -> int:
    size = tuple(args.image_size) if args.image_size else None
    with progress_bar(0, "images", " projections") if args.stacks else nullcontext(no_progress) as progress:
        done = convert(args.input, args.out, args.form, args.stacks, args.box, size, args.overwrite,
                       args.alignments, progress, args.volume)
    if args.json:
        print_json(done)
        return 0
    print(f"{done['read']}: {done['n_particles']} particles of {done['n_series']} series, half-sets of {done['halves'][0]} and "
          f"{done['halves'][1]}")
    for line in done["warnings"]:
        print(f"warning: {line}", file=sys.stderr)
    print(done["written"])
    return 0
