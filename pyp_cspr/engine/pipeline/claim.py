"""Where a command may write: never over its input, and over what others left only if it is told to."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Sequence

from ..errors import InputError
from .store import RunStore

RECONSTRUCTION, REFINEMENT, DATA_SET, MAPS = "a reconstruction", "a refinement", "a data set", "post-processed maps"
MARKS = {REFINEMENT: "refine.json", RECONSTRUCTION: "run.json"}
STARS = ("optimisation_set.star", "particles.star", "tomograms.star")
RESULTS = (*STARS, "tilt_series", "map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "map_sharpened.mrc", "fsc.csv",
           "journal.json", "result.npz", "summary.json", "report.html")
# What each writes, or removes, in a folder that is not yet its own. Maps may be made again.
WRITES = {REFINEMENT: (*RESULTS, "iterations"), RECONSTRUCTION: RESULTS, DATA_SET: (*STARS, "tilt_series", "filter.json"),
          MAPS: ()}
OF_RUNS = ("summary.json", "run.json", "refine.json", "dataset.npz", "refinement.npz")
FOLDERS_OF_RUNS = ("iterations", "tasks", "chunks", "slurm")
OWN = (*RESULTS, *FOLDERS_OF_RUNS, "report")  # names that no input may have in the folder of a run or a data set
OF_MAPS = ("map_sharpened.mrc", "mask.mrc", "fsc.csv", "summary.json")  # nor in that of post-processed maps


def kind_of(folder: Path) -> str:
    """REFINEMENT or RECONSTRUCTION for a run folder, else nothing."""
    # Path's own ``exists`` fails for a long name and in a folder that may not be read.
    return next((kind for kind, mark in MARKS.items() if os.path.exists(folder / mark)), "")


def claim_folder(out: str, kind: str, inputs: Sequence[str] = (), overwrite: bool = False) -> RunStore:
    """The folder ``out``, where a run, a data set or maps may be written.

    Raises InputError where it is one of the ``inputs`` or would lose one; where it holds a run of another kind, or files of
    others by the names that would be written, unless they may be overwritten. A run is not overwritten by what is none.
    """
    if not out.strip():
        raise InputError("--out is empty; give it a folder")
    store = RunStore(out)
    for path in inputs:
        spare(store.folder, path, OF_MAPS if kind == MAPS else OWN)
    found = kind_of(store.folder)
    if found and found != kind and not (overwrite and kind in MARKS):
        hint = ", or --overwrite" if kind in MARKS else ""
        raise InputError(f"{store.folder}: holds {found}; give another folder with --out{hint}")
    others = [] if found else [name for name in WRITES[kind] if os.path.exists(store.folder / name)]
    if others and not overwrite:
        what = DATA_SET if others[0] in STARS else f"{others[0]}, which is of no run"
        raise InputError(f"{store.folder}: holds {what}; give another folder with --out, or --overwrite")
    return store


@contextmanager
def claim_run(out: str, kind: str, inputs: Sequence[str] = (), overwrite: bool = False) -> Iterator[RunStore]:
    """``claim_folder`` for a run: its folder is made and kept from other commands. Raises CsprError where one is in it."""
    store = claim_folder(out, kind, inputs, overwrite)
    store.create()
    with store.locked():
        if kind_of(store.folder) not in ("", kind):
            for name in OF_RUNS:
                (store.folder / name).unlink(missing_ok=True)
            for name in FOLDERS_OF_RUNS:
                shutil.rmtree(store.folder / name, ignore_errors=True)
            remove_leftovers(store.folder)
            store.create()
        yield store


def remove_leftovers(folder: Path) -> None:
    """Remove what of a run that is replaced the new one may not write: its report, and the stars of series that are gone."""
    shutil.rmtree(folder / "report", ignore_errors=True)
    for path in (folder / "report.html", *folder.glob("tilt_series/*.star")):
        path.unlink(missing_ok=True)


def spare(folder: Path, path: str, names: Sequence[str] = OWN) -> None:
    """Raise InputError where the input at ``path`` is the folder, or lies in it by one of these ``names``, which a command
    writes. Links are followed.
    """
    target, source = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    if source == target or (source.parent == target and source.name == "optimisation_set.star"):
        raise InputError(f"{folder}: is the data set itself; give another folder")
    if target in source.parents and source.relative_to(target).parts[0] in names:
        raise InputError(f"{folder}: holds {path}, which this command reads; give another folder")
