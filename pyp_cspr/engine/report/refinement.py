"""The report of a refinement, written after every iteration: what became better, what moved, and how well it is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..core.gauge import nearest_equivalent
from ..core.geometry import rotation_angle
from ..core.symmetry import group_matrices
from ..model.tables import Dataset
from . import figures
from .html import Chapter, PageTable, Section, write_report
from .sections import ball_diameter, count, image_section, orientations, particles_section, sentence, size_text, units

BANDS = 3  # ranges of resolution in the plot of weights
REFRESH = 20  # seconds after which a page of a run that goes on loads itself again


@dataclass
class SeriesTables:
    """What an iteration measured on one series: P particles, E exposures."""

    score: NDArray[np.float64]  # (P, E) 0..100, NaN where there is no projection
    view_sigma: NDArray[np.float64]  # (P, E) degrees
    place_sigma: NDArray[np.float64]  # (P, E) angstrom
    amplitude: NDArray[np.float64]  # (E, shells)
    noise: NDArray[np.float64]  # (E, shells)
    factor: NDArray[np.float64]  # (E,)
    b_factor: NDArray[np.float64]  # (E,) square angstrom
    field: float  # angstrom; shell i is at i / field


@dataclass
class RefinementData:
    """All that the report tells. ``history`` is that of summary.json; lists by iteration begin with the start, 0."""

    name: str
    summary: Dict[str, Any]  # of the last iteration's reconstruction
    history: Sequence[Dict[str, Any]]
    planned: int  # iterations, at most
    reason: str  # why it ended; empty while it goes on
    start: Dataset
    end: Dataset
    curves: Sequence[NDArray]  # corrected FSC of each iteration
    first_map: NDArray
    last_map: NDArray
    mask: NDArray
    seconds: Sequence[Dict[str, float]]  # by stage, of each iteration
    journal: Sequence[Dict[str, Any]]  # of the last map
    tables: Sequence[SeriesTables] = ()  # by series; empty as long as nothing was refined
    references: Sequence[str] = ()  # what the last iteration refined against, in words
    threshold: Optional[float] = None  # on the particles' scores


def write_refinement_report(path: Path, data: RefinementData) -> int:
    """Write the page, and at the end its figures as PNG beside it in ``report/``; returns the bytes written.

    Raises InputError where it cannot be written.
    """
    chapters: List[Chapter] = [("Map", _map(data)), ("Particles", _particles(data)), ("Tilt images", _exposures(data)),
                               ("Run", _run(data))]
    refined = len(data.history) > 1
    first = [_curves(data)]
    if refined:
        first += [("From iteration to iteration", _course_text(data), figures.progress(data.history)), _table(data)]
    last = data.history[-1]["iteration"]
    state = units(data.reason) or f"running: iteration {last} of at most {data.planned} is done"
    summary = data.summary
    lead = f"{summary['data']}: {count(summary['n_particles'], 'particle')} of {count(summary['n_series'], 'tilt series')}"
    footer = f"cspr {summary['version']}. Every iteration has a report of its own: iterations/NNN/report.html"
    pngs = path.with_suffix("") if data.reason else None  # they take half as long as the page
    return write_report(path, f"Refinement {data.name}", _facts(data), first, lead, footer, pngs, chapters,
                        state=f"{state[:1].upper()}{state[1:]}", refresh=0 if data.reason else REFRESH)


def _angstrom(value: Optional[float]) -> str:
    return "none" if value is None or not np.isfinite(value) else f"{value:.2f} Å"


def _facts(data: RefinementData) -> Dict[str, Any]:
    first, last, summary = data.history[0], data.history[-1], data.summary
    facts = {"Resolution (FSC 0.143)": _angstrom(last["resolution_0143"])}
    if len(data.history) > 1:
        facts["at the start"] = _angstrom(first["resolution_0143"])
        facts["Views known to"] = f"{last['sigma_rotation']:.2g}°"
        facts["Mean score"] = f"{last['score']:.1f}"
    facts.update({
        "Iterations": f"{last['iteration']}", "Particles": f"{summary['n_particles']:,}",
        "Projections": f"{summary['n_projections']:,}", "Series": f"{summary['n_series']:,}",
        "Symmetry": str(summary["symmetry"]).upper(), "Box": f"{summary['box']} × {summary['pixel']:g} Å",
        "Time": _duration(sum(entry["seconds"] for entry in data.history)),
        "Stack not written": size_text(summary["stack_bytes_not_written"]),
    })
    return facts


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _curves(data: RefinementData) -> Section:
    resolutions = [entry["resolution_0143"] for entry in data.history]
    text = ("Of the half maps, corrected for the mask. The dot is the resolution, where the curve falls to 0.143 or ends "
            "above it.")
    if data.references:
        text += f" Refined against {' and '.join(data.references)}."
    figure = figures.fsc_by_iteration(data.curves, data.summary["box"], data.summary["pixel"], resolutions)
    return ("Fourier shell correlation", text, figure)


def _course_text(data: RefinementData) -> str:
    return ("How far particles turned and moved in each iteration, against how well they are known (dashed). "
            "When they move by less than a third of that and the limit stays, the refinement has converged.")


def _table(data: RefinementData) -> Section:
    columns = (("limit", 2), ("resolution_0143", 2), ("rotation", 3), ("position", 3), ("tilt", 3), ("shift", 3),
               ("sigma_rotation", 3), ("sigma_position", 3), ("score", 2), ("seconds", 1))
    heads = ("iteration", "limit Å", "resolution Å", "particles turned °", "moved Å", "tilts turned °", "shifted Å",
             "particles known to °", "and Å", "score", "seconds")
    rows = []
    for entry in data.history:
        cells = [entry.get(name) for name, _ in columns]
        texts = ["–" if cell is None else f"{cell:.{digits}f}" for cell, (_, digits) in zip(cells, columns)]
        rows.append([str(entry["iteration"]), *texts])
    return ("Iterations", "Medians over particles and tilt images.", PageTable(heads, rows))


def _map(data: RefinementData) -> List[Section]:
    pixel = data.summary["pixel"]
    sections: List[Section] = []
    if len(data.history) > 1:
        sections.append(("Before and after", "The reconstruction at the start and the last one, each filtered by its own FSC.",
                         figures.maps_compared(data.first_map, data.last_map, pixel, ("start", "end"))))
    sections.append(("Map and mask", "The last map. Orange: where the mask is one half.",
                     figures.map_views(data.last_map, pixel, data.mask)))
    sections.append(("Directions of view", "Where the reference is seen from, over all projections. Cells have equal areas.",
                     figures.angular_distribution(orientations(data.end))))
    sections.append(("How the map was finished", "\n\n".join(sentence(entry) for entry in data.journal), None))
    return sections


def _particles(data: RefinementData) -> List[Section]:
    sections: List[Section] = []
    if data.tables:
        turned, moved = particle_moves(data.start, data.end, str(data.summary["symmetry"]))
        sections += [
            ("How far particles moved", "From the start to the end, modulo symmetry.", figures.moves(turned, moved)),
            ("Where particles moved", "Seen along z, from the start to the end.", figures.displacements(data.start, data.end)),
            ("How well they are known", "Standard deviations of every projection, from the joint solve. "
             "A common turn or shift of all is not in them.",
             figures.uncertainties(*(np.concatenate([getattr(table, name).ravel() for table in data.tables])
                                     for name in ("view_sigma", "place_sigma")))),
            ("Scores", "100 times the correlation of image and model, weighted by noise; the mean over the projections.",
             figures.score_histogram(data.end.particles["score"], data.threshold)),
        ]
    seen = image_section(data.end, ball_diameter(data.mask, data.summary["pixel"]))
    if seen is not None:
        sections.append(seen)
    return sections


def particle_moves(start: Dataset, end: Dataset, symmetry: str) -> Tuple[NDArray, NDArray]:
    """Degrees by which particles turned, modulo symmetry, and angstrom by which they moved; rows must agree."""
    before = start.particles["rotation"]
    after = nearest_equivalent(end.particles["rotation"], before, group_matrices(symmetry))
    moved = np.linalg.norm(end.particles["position"] - start.particles["position"], axis=1)
    return np.asarray(rotation_angle(before, after)), moved


def _exposures(data: RefinementData) -> List[Section]:
    sections: List[Section] = []
    end = data.end
    if data.tables:
        weights, bands = weights_by_band(data.tables, data.history[-1]["limit"])
        sections += [
            ("Score by tilt", "Mean over the particles; the shade holds the middle half of them.",
             figures.scores_by_tilt(end, [table.score for table in data.tables])),
            ("Weights of exposures", "Squared amplitude over noise, measured in the images, by range of resolution.",
             figures.exposure_weights(end, weights, bands)),
            ("Change of tilt geometry", "End minus start. Shade: one standard deviation.",
             figures.geometry_change(data.start, end)),
            ("Shift vectors", "How each tilt image was shifted, end minus start.", figures.shift_vectors(data.start, end)),
            ("Amplitudes beyond the dose filter", "What the images show above (1, 0 Å²) or below what dose and tilt predict.",
             figures.factors_by_dose(end, [table.factor for table in data.tables], [table.b_factor for table in data.tables])),
        ]
    if np.abs(end.exposures["defocus"] - data.start.exposures["defocus"]).max(initial=0.0) > 1.0:
        sections.append(("Defocus before and after", "Hollow: before.", figures.defocus_change(data.start, end)))
    else:
        sections.append(("Defocus", "At the specimen's centre, not refined. Bars: astigmatism.", figures.defocus_by_tilt(end)))
    return sections


def weights_by_band(tables: Sequence[SeriesTables], limit: Optional[float]) -> Tuple[List[NDArray], List[str]]:
    """Weights ``(exposures, bands)`` of each series, squared amplitude over noise power, with mean 1 over its exposures in
    every shell, averaged over ranges of shells of equal width from 0 to ``limit`` (angstrom); and the ranges' names."""
    radius = min(table.amplitude.shape[1] for table in tables) - 1
    if limit:
        radius = int(np.clip(tables[0].field / limit, BANDS, radius))
    edges = np.linspace(0, radius, BANDS + 1).round().astype(int)
    names, found = [], []
    for low, high in zip(edges[:-1], edges[1:]):
        start = f"{tables[0].field / low:.0f} to " if low else "to "
        names.append(f"{start}{tables[0].field / high:.0f} Å")
    for table in tables:
        weight = table.amplitude**2 / np.maximum(table.noise, 1e-30)
        weight = weight / np.maximum(weight.mean(axis=0), 1e-30)
        found.append(np.stack([weight[:, low + 1 : high + 1].mean(axis=1) for low, high in zip(edges[:-1], edges[1:])], axis=1))
    return found, names


def _run(data: RefinementData) -> List[Section]:
    return [
        ("Where the time went", "Seconds of computing, added over all chunks and processes.",
         figures.time_by_iteration(data.seconds)),
        particles_section(data.end),
        ("Tilt scheme", "", figures.tilt_scheme(data.end)),
    ]
