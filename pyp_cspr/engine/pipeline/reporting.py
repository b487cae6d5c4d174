"""Read what the report of a refinement tells out of its run folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

import numpy as np

from ..errors import CsprError
from ..io.mrc import read_map
from .plan import chunk_dataset
from .store import RunStore, read_json, read_rows
from .store import read_tables as read_tables_of

if TYPE_CHECKING:
    from ..report.refinement import RefinementData


def report_refinement(folder: Path, history: Sequence[Dict[str, Any]], planned: int, reason: str = "") -> int:
    """Write RUN/report.html and its figures in RUN/report from the iterations of ``history``; returns the bytes written.

    ``reason``: why it has ended.
    """
    from ..report.refinement import write_refinement_report  # drawing is slow to import and not every caller draws

    for path in (folder / "report").glob("[0-9][0-9]_*.png"):  # an iteration may have other figures than the one before
        path.unlink()
    return write_refinement_report(folder / "report.html", load_refinement(folder, history, planned, reason))


def load_refinement(folder: Path, history: Sequence[Dict[str, Any]], planned: int, reason: str = "") -> RefinementData:
    """The data of the report. Raises CsprError where a file of an iteration is missing or damaged."""
    from ..report.refinement import RefinementData, SeriesTables

    stores = [RunStore(folder / "iterations" / f"{entry['iteration']:03d}") for entry in history]
    first, last = stores[0], stores[-1]
    journals = [read_json(store.folder / "journal.json") for store in stores]
    end = read_rows(last.result_path)
    shown = np.unique(end.particles["series"]).tolist()  # a series whose particles were all filtered out has nothing to show
    tables = []
    if last.refinement_path.exists():
        every = read_tables(last, len(end.series))
        for one in (every[row] for row in shown):
            tables.append(SeriesTables(
                one["score"], one["view_sigma"], one["place_sigma"], one["amplitude"], one["noise"], one["factor"],
                one["b_factor"], float(one["field"]),
            ))
    summary = last.finished()
    assert summary is not None  # only finished iterations are in the history
    return RefinementData(
        name=folder.name, summary=summary, history=history, planned=planned, reason=reason,
        start=chunk_dataset(read_rows(first.dataset_path), shown), end=chunk_dataset(end, shown),
        curves=[np.genfromtxt(store.folder / "fsc.csv", delimiter=",", names=True)["corrected"] for store in stores],
        first_map=read_map(first.folder / "map.mrc")[0], last_map=read_map(last.folder / "map.mrc")[0],
        mask=read_map(last.folder / "mask.mrc")[0], seconds=[journal["total"]["seconds"] for journal in journals],
        journal=journals[-1]["finalise"], tables=tables, references=_references(last),
        threshold=_threshold(summary["data"]),
    )


def read_tables(store: RunStore, n_series: int) -> List[Dict[str, np.ndarray]]:
    """The arrays of refinement.npz by series, in the order of the data set's rows (``SeriesOutcome.tables``)."""
    return read_tables_of(store.refinement_path, n_series, f"delete {store.folder} and run again")


def _references(store: RunStore) -> List[str]:
    """In words, what an iteration refined against."""
    if not store.reference_path(1).exists():
        return []
    if store.folder.name == "001":
        return ["the given map"]
    return ["each half's own map"] if store.reference_path(2).exists() else ["one common map"]


def _threshold(data: str) -> Optional[float]:
    """The score threshold that the data were filtered with (``cspr filter``), or None."""
    folder = Path(data) if os.path.isdir(data) else Path(data).parent
    try:
        value = read_json(folder / "filter.json").get("threshold")
    except (CsprError, AttributeError):
        return None
    return float(value) if isinstance(value, (int, float)) else None
