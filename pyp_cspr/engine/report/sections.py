"""Parts of the page that the reports of a reconstruction and of a refinement share."""

from __future__ import annotations

import re
from typing import Any, Dict, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..io.mrc import open_stack
from ..model.tables import Dataset
from . import figures
from .html import Section

MOST_VIEWS = 200_000  # projections in the plot of directions


def count(number: int, word: str) -> str:
    """``12 particles``, ``1 particle``."""
    return f"{number:,} {word}{'s' if number != 1 and not word.endswith('s') else ''}"


def size_text(number: float) -> str:
    """Bytes with the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def units(text: str) -> str:
    """Figures of a plain text with the units as they are printed."""
    text = re.sub(r"(?<=\d) A\^2", " Å²", text)
    text = re.sub(r"(?<=\d) A\b", " Å", text)
    return re.sub(r"(?<=\d) deg\b", "°", text).replace("+- ", "± ")


def sentence(entry: Dict[str, Any]) -> str:
    """A journal entry as the report writes it: volumes in cubic nanometre, units as they are printed."""
    text, value, unit = str(entry["message"]), entry.get("value"), str(entry.get("unit", ""))
    if value is not None:
        if unit == "A^3":
            value, unit = value / 1000.0, "nm³"
        number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        text += f": {number} {unit.replace('A^2', 'Å²').replace('A', 'Å')}".rstrip()
    text = units(text)
    return f"{text[:1].upper()}{text[1:]}."


def orientations(dataset: Dataset) -> NDArray[np.float64]:
    """M = T_e R_p of the projections that count, ``(n, 3, 3)``; an even sample of them where there are very many."""
    total = int(sum(dataset.used(series).sum() for series in range(len(dataset.series))))
    step = max(1, -(-total // MOST_VIEWS))
    parts = []
    for series in range(len(dataset.series)):
        particles, exposures = np.nonzero(dataset.used(series))
        tilts = dataset.exposures["rotation"][dataset.exposures_of(series)[exposures[::step]]]
        parts.append(tilts @ dataset.particles["rotation"][dataset.particles_of(series)[particles[::step]]])
    return np.concatenate(parts)


def particles_section(dataset: Dataset) -> Section:
    """How many particles each series has in each half."""
    rows = [dataset.particles_of(series) for series in range(len(dataset.series))]
    half = dataset.particles["half"]
    halves = np.array([[int((half[row] == number).sum()) for number in (1, 2)] for row in rows])
    counts = halves.sum(axis=1)
    names = [str(name) for name in dataset.series["name"]]
    text = f"{count(int(halves[:, 0].sum()), 'particle')} in half 1, {halves[:, 1].sum():,} in half 2."
    return ("Particles", text, figures.particles_per_series(names, counts, halves))


def image_section(dataset: Dataset, diameter: float) -> Optional[Section]:
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
        figure = figures.particles_in_image(image, float(dataset.series["pixel"][series]), seen, diameter, name)
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


def ball_diameter(mask: NDArray, pixel: float) -> float:
    """Of a ball of the mask's volume, angstrom."""
    volume = float((mask > 0.5).sum()) * pixel**3
    return float(2.0 * (3.0 * volume / (4.0 * np.pi)) ** (1.0 / 3.0))
