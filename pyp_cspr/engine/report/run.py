"""The report of a run: what was reconstructed, from what, how well, and where the time went."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..io.mrc import open_stack
from ..model.tables import Dataset
from ..model.task import MapGrid
from ..reconstruct.finalise import Finalised
from . import figures
from .html import Section, write_report

MOST_VIEWS = 200_000  # projections in the plot of directions


def write_run_report(
    path: Path, dataset: Dataset, result: Finalised, grid: MapGrid, summary: Dict[str, Any], journal: Dict[str, Any]
) -> int:
    """Write ``report.html``; returns the bytes written. ``summary`` and ``journal`` are those of the run folder."""
    sections = [
        _resolution(result, grid),
        ("Map", "Wiener-filtered with the corrected FSC, not sharpened. Orange: where the mask is one half.",
         figures.map_views(result.map, grid.pixel, result.mask)),
        ("Sharpened map", _sharpening(result), figures.map_views(result.sharpened, grid.pixel)),
        ("Directions of view", "Where the reference is seen from, over all projections that count. Cells have equal areas.",
         figures.angular_distribution(_orientations(dataset))),
        _particles(dataset),
        ("Tilt scheme", "", figures.tilt_scheme(dataset)),
        ("Defocus", "At the specimen's centre; particles have their own by their depth. Bars: astigmatism.",
         figures.defocus_by_tilt(dataset)),
    ]
    seen = _image_section(dataset, result, grid)
    if seen is not None:
        sections.insert(4, seen)
    noise = _noise_section(dataset, journal)
    if noise is not None:
        sections.append(noise)
    seconds = {name: value for name, value in journal["total"]["seconds"].items() if value > 0}
    if seconds:
        sections.append(("Time", "", figures.timings(seconds)))
    lead = f"{summary['data']}: {_count(summary['n_particles'], 'particle')} of {_count(summary['n_series'], 'tilt series')}"
    return write_report(path, _title(path), _facts(summary, result), sections, lead, f"cspr {summary['version']}")


def _title(path: Path) -> str:
    return f"Reconstruction {path.parent.name}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' if number != 1 and not word.endswith('s') else ''}"


def _facts(summary: Dict[str, Any], result: Finalised) -> Dict[str, Any]:
    resolution = summary["resolution_0143"]
    half = result.resolution_05
    return {
        "Resolution (FSC 0.143)": "none" if resolution is None else f"{resolution:.2f} Å",
        "at FSC 0.5": f"{half:.2f} Å" if np.isfinite(half) else "none",
        "B-factor": "none" if result.b_factor is None else f"{result.b_factor:.0f} Å²",
        "Box": f"{summary['box']} × {summary['pixel']:g} Å",
        "Symmetry": str(summary["symmetry"]).upper(),
        "Particles": summary["n_particles"],
        "Projections": summary["n_projections"],
        "Series": summary["n_series"],
        "Read": _bytes(summary["bytes_read"]),
        "Stack not written": _bytes(summary["stack_bytes_not_written"]),
    }


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _resolution(result: Finalised, grid: MapGrid) -> Section:
    sentences = [_sentence(entry) for entry in result.journal]
    figure = figures.fsc_curves(result.curves, grid.box, grid.pixel, result.resolution_0143)
    return ("Resolution", "\n\n".join(sentences), figure)


def _sentence(entry: Dict[str, Any]) -> str:
    """A journal entry as the report writes it: volumes in cubic nanometre, units as they are printed."""
    text, value, unit = str(entry["message"]), entry.get("value"), str(entry.get("unit", ""))
    if value is not None:
        if unit == "A^3":
            value, unit = value / 1000.0, "nm³"
        number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        text += f": {number} {unit.replace('A^2', 'Å²').replace('A', 'Å')}".rstrip()
    text = re.sub(r"(?<=\d) A\b", " Å", text)
    return f"{text[:1].upper()}{text[1:]}."


def _sharpening(result: Finalised) -> str:
    if not np.isfinite(result.resolution_0143):
        return "The halves do not correlate, so nothing is sharpened."
    if result.b_factor is None:
        return f"Low-passed at {result.resolution_0143:.2f} Å. The resolution gives no range to fit a B-factor in."
    return f"B-factor {result.b_factor:.0f} Å², low-passed at {result.resolution_0143:.2f} Å."


def _orientations(dataset: Dataset) -> NDArray[np.float64]:
    """M = T_e R_p of the projections that count, ``(n, 3, 3)``; an even sample of them where there are very many."""
    total = int(sum(dataset.used(series).sum() for series in range(len(dataset.series))))
    step = max(1, -(-total // MOST_VIEWS))
    parts = []
    for series in range(len(dataset.series)):
        particles, exposures = np.nonzero(dataset.used(series))
        tilts = dataset.exposures["rotation"][dataset.exposures_of(series)[exposures[::step]]]
        parts.append(tilts @ dataset.particles["rotation"][dataset.particles_of(series)[particles[::step]]])
    return np.concatenate(parts)


def _particles(dataset: Dataset) -> Section:
    rows = [dataset.particles_of(series) for series in range(len(dataset.series))]
    half = dataset.particles["half"]
    halves = np.array([[int((half[row] == number).sum()) for number in (1, 2)] for row in rows])
    counts = halves.sum(axis=1)
    names = [str(name) for name in dataset.series["name"]]
    text = f"{_count(int(halves[:, 0].sum()), 'particle')} in half 1, {halves[:, 1].sum():,} in half 2."
    return ("Particles", text, figures.particles_per_series(names, counts, halves))


def _image_section(dataset: Dataset, result: Finalised, grid: MapGrid) -> Optional[Section]:
    """The particles of the first raw series in its least tilted image; None where there are only extracted stacks."""
    tilts = figures.exposure_tilts(dataset)
    for series in range(len(dataset.series)):
        found = None if dataset.is_stacks(series) else _least_tilted(dataset, series, tilts)
        if found is None:
            continue
        image, row, column = found
        used = dataset.used(series)[:, column]
        seen = dataset.project(series)[0][used, column]
        name = f"{dataset.series['name'][series]}, {round(float(tilts[row]), 1) + 0.0:g}°"
        figure = figures.particles_in_image(image, float(dataset.series["pixel"][series]), seen, _diameter(result, grid), name)
        text = "The least tilted image of the first series. Circles have the size of the mask."
        return ("Particles in a tilt image", text, figure)
    return None


def _least_tilted(dataset: Dataset, series: int, tilts: NDArray) -> Optional[Tuple[NDArray, int, int]]:
    rows = dataset.exposures_of(series)
    usable = np.flatnonzero(dataset.exposures["enabled"][rows])
    if not len(usable):
        return None
    column = int(usable[np.argmin(np.abs(tilts[rows[usable]]))])
    row = int(rows[column])
    file = str(dataset.exposures["file"][row]) or str(dataset.series["images"][series])
    try:
        image = np.asarray(open_stack(file).image(int(dataset.exposures["slice"][row])), np.float32)
    except InputError:
        return None  # a report is made of what is there: images may have been moved since
    return image, row, column


def _diameter(result: Finalised, grid: MapGrid) -> float:
    """Of a ball of the mask's volume, angstrom."""
    volume = float((result.mask > 0.5).sum()) * grid.pixel**3
    return float(2.0 * (3.0 * volume / (4.0 * np.pi)) ** (1.0 / 3.0))


def _noise_section(dataset: Dataset, journal: Dict[str, Any]) -> Optional[Section]:
    """Noise powers that the chunks noted: entries with ``series``, ``exposure`` (row within the series) and ``noise_power``."""
    tilts = figures.exposure_tilts(dataset)
    found: Dict[str, Tuple[List[float], List[float]]] = {}
    index = {str(name): series for series, name in enumerate(dataset.series["name"])}
    for chunk in journal.get("chunks", ()):
        for entry in chunk.get("exposures", ()):
            if not {"series", "exposure", "noise_power"} <= set(entry) or entry["series"] not in index:
                continue
            row = dataset.exposures_of(index[entry["series"]])[entry["exposure"]]
            angles, powers = found.setdefault(entry["series"], ([], []))
            angles.append(float(tilts[row]))
            powers.append(float(entry["noise_power"]))
    if not found:
        return None
    names = list(found)
    return ("Noise", "", figures.noise_by_exposure(names, [found[n][0] for n in names], [found[n][1] for n in names]))
