"""Options that several commands share."""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Callable, ContextManager, Dict, Iterator, Type

from ..errors import InputError
from ..io.config import read_toml
from ..model.settings import ReconstructSettings, Settings, default_text
from ..pipeline.executors import EXECUTORS, Executor, Resources, SlurmSettings, make_executor


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="folder with an optimisation_set.star, or that star")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def add_plan(parser: argparse.ArgumentParser) -> None:
    default = ReconstructSettings()
    add_data(parser)
    parser.add_argument("--out", required=True, metavar="RUN",
                        help="run folder; made if missing, resumed if it holds the same run")
    group = parser.add_argument_group("map")
    group.add_argument("--settings", metavar="TOML", help="settings by name; the options stand above them")
    group.add_argument("--box", type=int, metavar="PIXELS", help="box of the map (as the data say)")
    group.add_argument("--pixel", type=float, metavar="A", help="pixel of the map (as the data say)")
    group.add_argument("--symmetry", metavar="GROUP", help=f"C1, C3, D7, T, O, I1, I2 ... ({default.symmetry})")
    group.add_argument("--padding", type=float, metavar="X",
                       help=f"Fourier oversampling of the sums, 1 to 4 ({default.padding:g})")
    group.add_argument("--mask-diameter", type=float, metavar="A",
                       help=f"soft circular mask on the crops before the transform; 0: none ({default.mask_diameter:g})")
    group.add_argument("--no-dose-weighting", dest="dose_weighting", action="store_const", const=False,
                       help="all doses weigh the same")
    group.add_argument("--seed", type=int, help=f"for everything random ({default.seed})")
    group = parser.add_argument_group("run")
    group.add_argument("--tasks-per-chunk", type=int, default=1, metavar="N", help="series in a chunk (%(default)s)")
    group.add_argument("--overwrite", action="store_true", help="replace another run in RUN")
    parser.epilog = settings_help(ReconstructSettings, "settings, for --settings")


def settings_help(kind: Type[Settings], title: str) -> str:
    """A line for each setting: its name, default, unit and meaning."""
    shown = [(f"{one.name} = {default_text(one)}", one.metadata["unit"], one.metadata["text"]) for one in fields(kind)]
    widths = [max(len(row[column]) for row in shown) for column in (0, 1)]
    return f"{title}:\n" + "\n".join(f"  {name:{widths[0]}}  {unit:{widths[1]}}  {text}" for name, unit, text in shown)


def settings_of(args: argparse.Namespace) -> ReconstructSettings:
    """Settings of the file and the options, these above those. Raises InputError for what cannot be."""
    values = read_toml(args.settings) if args.settings else {}
    names = ("box", "pixel", "symmetry", "padding", "mask_diameter", "dose_weighting", "seed")
    values.update({name: getattr(args, name) for name in names if getattr(args, name) is not None})
    return ReconstructSettings.from_dict(values, args.settings or "options")


def add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--processes", type=int, default=0, metavar="N", help="chunks at a time; 0: choose (%(default)s)")
    add_threads(group)


def add_executor(parser: argparse.ArgumentParser) -> None:
    """Who runs the chunks, after ``add_machine``."""
    group = parser.add_argument_group("who runs the chunks")
    group.add_argument("--executor", choices=EXECUTORS, default="local",
                       help="processes of this machine; job arrays of a SLURM cluster; the processes of mpirun (%(default)s)")
    group.add_argument("--slurm", action="append", default=[], metavar="NAME=VALUE",
                       help="what a job asks for: " + ", ".join(
                           f"{f.name}={f.default}" if f.default != "" else f"{f.name}=" for f in fields(SlurmSettings)))


def executor_of(args: argparse.Namespace) -> Executor:
    """The executor that the options ask for, to be used in a ``with`` statement."""
    kinds: Dict[str, Any] = {f.name: type(f.default) for f in fields(SlurmSettings)}
    values: Dict[str, Any] = {}
    for text in args.slurm:
        name, _, value = text.partition("=")
        if name not in kinds:
            raise InputError(f"--slurm {text}: unknown setting {name!r}; known: {', '.join(sorted(kinds))}")
        try:
            values[name] = kinds[name](value)
        except ValueError:
            raise InputError(f"--slurm {text}: {value!r} is not {kinds[name].__name__}") from None
    slurm = SlurmSettings.from_dict(values, "--slurm")
    if values and args.executor != "slurm":
        raise InputError(f"--slurm {args.slurm[0]}: it has no meaning without --executor slurm; add that, or leave it out")
    return make_executor(args.executor, Resources(args.processes, args.threads, args.memory, slurm))


def add_threads(group: argparse._ActionsContainer) -> None:
    group.add_argument("--threads", type=int, default=0, metavar="N", help="threads of each process; 0: choose (%(default)s)")
    group.add_argument("--memory", type=float, default=0.0, metavar="GB",
                       help="for the projections in flight, all processes together; 0: half of what is free (%(default)s)")


def projections_bar(label: str, total: int) -> ContextManager[Callable[[int], None]]:
    """The bar of the chunks of a run."""
    return progress_bar(total, label, " projections")


@contextmanager
def progress_bar(total: int, label: str, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar with time left on standard error; silent where that is not a terminal and the job is short."""
    from tqdm import tqdm

    interactive = sys.stderr.isatty()
    with tqdm(total=total, desc=label, unit=unit, file=sys.stderr, mininterval=0.2 if interactive else 30.0,
              dynamic_ncols=interactive, unit_scale=False) as bar:
        yield bar.update
