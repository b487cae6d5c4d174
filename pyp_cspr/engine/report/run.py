"""The report of a run: what was reconstructed, from what, how well, and where the time went."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ..model.tables import Dataset
from ..model.task import MapGrid
from ..reconstruct.finalise import Finalised
from . import figures
from .html import Section, write_report
from .sections import ball_diameter, count, image_section, orientations, particles_section, sentence, size_text


def write_run_report(
    path: Path, dataset: Dataset, result: Finalised, grid: MapGrid, summary: Dict[str, Any], journal: Dict[str, Any]
) -> int:
    """Write ``report.html``; returns the bytes written. ``summary`` and ``journal`` are those of the run folder.

    The figures are written as PNG as well, into ``report/`` beside it, but not of an iteration of a refinement.
    """
    sections = [
        _resolution(result, grid),
        ("Map", "Wiener-filtered with the corrected FSC, not sharpened. Orange: where the mask is one half.",
         figures.map_views(result.map, grid.pixel, result.mask)),
        ("Sharpened map", _sharpening(result), figures.map_views(result.sharpened, grid.pixel)),
        ("Directions of view", "Where the reference is seen from, over all projections that count. Cells have equal areas.",
         figures.angular_distribution(orientations(dataset))),
        particles_section(dataset),
        ("Tilt scheme", "", figures.tilt_scheme(dataset)),
        ("Defocus", "At the specimen's centre; particles have their own by their depth. Bars: astigmatism.",
         figures.defocus_by_tilt(dataset)),
    ]
    seen = image_section(dataset, ball_diameter(result.mask, grid.pixel))
    if seen is not None:
        sections.insert(4, seen)
    noise = _noise_section(dataset, journal)
    if noise is not None:
        sections.append(noise)
    seconds = {name: value for name, value in journal["total"]["seconds"].items() if value > 0}
    if seconds:
        sections.append(("Time", "Seconds of computing, added over all chunks and processes.", figures.timings(seconds)))
    lead = f"{summary['data']}: {count(summary['n_particles'], 'particle')} of {count(summary['n_series'], 'tilt series')}"
    folder, png_folder = path.parent, None
    if folder.parent.name == "iterations" and folder.name.isdigit():
        title = f"Reconstruction {folder.parent.parent.name}, iteration {int(folder.name)}"
    else:
        title, png_folder = f"Reconstruction {folder.name}", path.with_suffix("")
    return write_report(path, title, _facts(summary, result), sections, lead, f"cspr {summary['version']}", png_folder)


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
        "Read": size_text(summary["bytes_read"]),
        "Stack not written": size_text(summary["stack_bytes_not_written"]),
    }


def _resolution(result: Finalised, grid: MapGrid) -> Section:
    sentences = [sentence(entry) for entry in result.journal]
    figure = figures.fsc_curves(result.curves, grid.box, grid.pixel, result.resolution_0143)
    return ("Resolution", "\n\n".join(sentences), figure)


def _sharpening(result: Finalised) -> str:
    if not np.isfinite(result.resolution_0143):
        return "The halves do not correlate, so nothing is sharpened."
    if result.b_factor is None:
        return f"Low-passed at {result.resolution_0143:.2f} Å. The resolution gives no range to fit a B-factor in."
    return f"B-factor {result.b_factor:.0f} Å², low-passed at {result.resolution_0143:.2f} Å."


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
