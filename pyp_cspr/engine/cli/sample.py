"""Make a sample data set: a simulated tilt-series acquisition of a real structure, with its truth.

OUT gets raw tilt series (.mrc .tlt .xf), RELION-5 stars, reference.mrc, truth.star and settings.json. The same settings give
the same images and tables, whatever the number of threads. Errors are normal deviates of the given rms on each component; they
go into the stars and the alignment files, never into the images.
"""

from __future__ import annotations

import argparse
from typing import Any, Dict, Tuple

from ..core._jit import available_threads
from ..sample.make import make_sample
from ..sample.settings import SampleSettings
from . import print_json
from .options import add_json, progress_bar

Options = Tuple[Tuple[str, str, str], ...]  # setting, metavar, help

ACQUISITION: Options = (
    ("series", "N", "tilt series"),
    ("particles", "N", "particles of each series"),
    ("tilts", "N", "tilt images of each series"),
    ("dose", "E/A2", "dose of each tilt image"),
    ("pixel", "A", "pixel of the images and the reference"),
    ("image_size", "PIXELS", "width and height of the images; 0: as the particles need"),
    ("tilt_range", "DEG", "largest tilt angle to both sides"),
    ("axis", "DEG", "in-plane direction of the tilt axis"),
    ("xtilt", "DEG", "tilt of the specimen about x"),
    ("magnification", "PERCENT", "rms of the tilt images' magnification; the stars hold it"),
    ("shift", "A", "rms of the tilt images' true shifts"),
    ("astigmatism", "A", "largest true difference of the two defoci"),
    ("voltage", "KV", "acceleration voltage"),
    ("cs", "MM", "spherical aberration"),
    ("amplitude_contrast", "X", "fraction"),
    ("hand", "+1/-1", "sign of depth in the defocus"),
)
SPECIMEN: Options = (
    ("structure", "FILE", "atomic model or map of the particle, or 'hexon': the adenovirus hexon trimer, PDB 6QI5"),
    ("symmetry", "CN", "turn a given model's n-fold axis to z"),
    ("box", "PIXELS", "box of the reference and the particles"),
    ("contrast", "X", "multiplies the particles' potential"),
    ("thickness", "A", "of the ice"),
    ("mean_free_path", "A", "inelastic mean free path in the ice"),
    ("min_distance", "A", "between particles; 0: 1.05 diameters"),
)
ERRORS: Options = (
    ("pose_error", "DEG", "of the particles' rotations"),
    ("position_error", "A", "of the particles' positions"),
    ("tilt_error", "DEG", "of the tilt angles"),
    ("axis_error", "DEG", "of the tilt axes"),
    ("shift_error", "A", "of the tilt images' shifts"),
    ("defocus_error", "A", "of the defocus"),
    ("magnification_error", "PERCENT", "of the magnification"),
)


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="folder of the data set, made if missing")
    default = SampleSettings()
    titles: Dict[str, Options] = {"acquisition": ACQUISITION, "specimen": SPECIMEN, "errors, rms": ERRORS}
    for title, options in titles.items():
        group = parser.add_argument_group(title)
        for name, metavar, text in options:
            value = getattr(default, name)
            option = f"--{name.replace('_', '-')}"
            group.add_argument(option, type=type(value), default=value, metavar=metavar, help=f"{text} (%(default)s)")
        if title == "acquisition":
            group.add_argument("--defocus", type=float, nargs=2, default=[default.defocus_low, default.defocus_high],
                               metavar=("LOW", "HIGH"), help="range of the series' defocus, A (%(default)s)")
            group.add_argument("--noise", choices=("poisson", "none"), default=default.noise,
                               help="none: float32 images (%(default)s)")
            group.add_argument("--no-damage", dest="damage", action="store_false", help="leave out radiation damage")
        elif title == "specimen":
            group.add_argument("--no-overlap", action="store_true",
                               help="no neighbour reaches into a particle's box in any tilt image")
    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=int, default=default.seed, help="for everything random (%(default)s)")
    group.add_argument("--threads", type=int, default=0, metavar="N", help="0: all cores (%(default)s)")
    group.add_argument("--overwrite", action="store_true", help="replace a sample data set in OUT")
    add_json(parser)


def settings_of(args: argparse.Namespace) -> SampleSettings:
    names = [name for options in (ACQUISITION, SPECIMEN, ERRORS) for name, _, _ in options]
    values: Dict[str, Any] = {name: getattr(args, name) for name in names + ["noise", "damage", "no_overlap", "seed"]}
    values["defocus_low"], values["defocus_high"] = args.defocus
    return SampleSettings.from_dict(values, "options")


def main(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    threads = args.threads if args.threads > 0 else available_threads()
    with progress_bar(settings.series * settings.tilts, "tilt images", "image") as done:
        summary = make_sample(args.out, settings, threads, done, args.overwrite)
    if args.json:
        print_json(summary)
    else:
        print(f"{summary['series']} series x {settings.tilts} tilts of {summary['image_size']}^2 pixels, "
              f"{summary['particles']} particles, {summary['projections']} projections, "
              f"{summary['bytes'] / 1e6:.0f} MB: {args.out}")
    return 0
