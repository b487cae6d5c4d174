"""Figures of exposures: tilt scheme, defocus, noise, scores, weights, and how their geometry changed."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from ..core.geometry import matrix_to_tilt
from ..model.tables import Dataset
from .style import FAINT, INK, PALETTE, TILTS, WIDTH, new_figure, series_style, short, styled


def exposure_tilts(dataset: Dataset) -> NDArray[np.float64]:
    """Tilt angle of every exposure in degrees ``(n_exposures,)``: ytilt of its geometry."""
    return np.asarray(matrix_to_tilt(dataset.exposures["rotation"])[1])


@styled
def defocus_by_tilt(dataset: Dataset) -> Figure:
    """Defocus (mean of the two axes, micrometre) of every exposure against its tilt angle; bars show the astigmatism."""
    figure = new_figure(WIDTH, 3.0)
    axes = figure.subplots()
    tilts, defocus = exposure_tilts(dataset), dataset.exposures["defocus"] / 1e4
    count = len(dataset.series)
    for series in range(count):
        rows = dataset.exposures_of(series)
        rows = rows[np.argsort(tilts[rows])]
        mean, half = defocus[rows, :2].mean(axis=1), 0.5 * np.abs(defocus[rows, 0] - defocus[rows, 1])
        line = axes.plot(tilts[rows], mean, "o-", color=PALETTE[series % len(PALETTE)], **series_style(count),
                         label=short(str(dataset.series["name"][series])))
        if count <= 4:
            axes.vlines(tilts[rows], mean - half, mean + half, color=line[0].get_color(), linewidth=3.0, alpha=0.3)
    axes.set(xlabel="tilt angle (°)", ylabel="defocus (µm)")
    if count <= 8:
        axes.legend(loc="best")
    return figure


@styled
def tilt_scheme(dataset: Dataset, limits: Optional[Tuple[float, float]] = None) -> Figure:
    """Tilt angle in the order of acquisition, and the dose that had accumulated before each exposure.

    What lies outside ``limits``, two tilt angles in degrees, is shaded.
    """
    figure = new_figure(WIDTH, 3.0)
    left, right = figure.subplots(1, 2)
    tilts, table = exposure_tilts(dataset), dataset.exposures
    count = len(dataset.series)
    for series in range(count):
        rows = dataset.exposures_of(series)
        rows = rows[np.argsort(table["order"][rows], kind="stable")]
        look = dict(color=PALETTE[series % len(PALETTE)], **series_style(count))
        left.plot(table["order"][rows] + 1, tilts[rows], "o-", label=short(str(dataset.series["name"][series]), 16), **look)
        right.plot(tilts[rows], table["dose_before"][rows], "o", **look)
    skipped = ~table["enabled"]
    if skipped.any():
        left.plot(table["order"][skipped] + 1, tilts[skipped], "x", color=PALETTE[4], markersize=6, label="excluded")
        right.plot(tilts[skipped], table["dose_before"][skipped], "x", color=PALETTE[4], markersize=6)
    left.set(xlabel="image in order of acquisition", ylabel="tilt angle (°)")
    left.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    right.set(xlabel="tilt angle (°)", ylabel="dose before (e/Å²)", ylim=(0, None))
    if limits is not None:
        ends = left.get_ylim()
        for low, high in ((ends[0], limits[0]), (limits[1], ends[1])):
            if low < high:
                left.axhspan(low, high, color=FAINT, alpha=0.5, linewidth=0, zorder=0)
                right.axvspan(low, high, color=FAINT, alpha=0.5, linewidth=0, zorder=0)
        left.set_ylim(ends)
        right.set_xlim(ends)
    if count <= 6 or skipped.any():
        handles, labels = left.get_legend_handles_labels()
        keep = slice(None) if count <= 6 else slice(-1, None)
        left.legend(handles[keep], labels[keep], loc="best", fontsize=7)
    return figure


@styled
def noise_by_exposure(names: Sequence[str], tilts: Sequence[ArrayLike], power: Sequence[ArrayLike]) -> Figure:
    """Noise power of exposures against their tilt angle: for each series (by name) two arrays of one length."""
    figure = new_figure(WIDTH, 2.8)
    axes = figure.subplots()
    for index, (name, tilt, values) in enumerate(zip(names, tilts, power)):
        order = np.argsort(np.asarray(tilt))
        axes.plot(np.asarray(tilt)[order], np.asarray(values)[order], "o-", color=PALETTE[index % len(PALETTE)],
                  label=short(name), **series_style(len(names)))
    axes.set(xlabel="tilt angle (°)", ylabel="noise power", ylim=(0, None))
    if len(names) <= 8:
        axes.legend(loc="best")
    return figure


def _lines_by_tilt(
    axes: Any, dataset: Dataset, values: Sequence[NDArray], errors: Sequence[NDArray] = (), labels: bool = False
) -> None:
    """One line for each series: ``values[i]`` ``(E,)`` of series i against its tilt angles; NaN is left out."""
    tilts, count = exposure_tilts(dataset), len(dataset.series)
    for series in range(count):
        angle, value = tilts[dataset.exposures_of(series)], np.asarray(values[series], dtype=float)
        order = np.argsort(angle)
        order = order[np.isfinite(value[order])]
        colour = PALETTE[series % len(PALETTE)]
        label = short(str(dataset.series["name"][series]), 16) if labels and count <= 8 else None
        axes.plot(angle[order], value[order], "o-", color=colour, label=label, **series_style(count))
        if len(errors) and count <= 4:
            half = np.asarray(errors[series])[order]
            axes.fill_between(angle[order], value[order] - half, value[order] + half, color=colour, alpha=0.22, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 3, 6, 10]))


@styled
def scores_by_tilt(dataset: Dataset, scores: Sequence[NDArray]) -> Figure:
    """Mean score of the projections of each exposure against its tilt angle; ``scores[i]`` is ``(particles, exposures)`` of
    series i, NaN where there is no projection. The shade holds the middle half of the particles."""
    figure = new_figure(WIDTH, 3.0)
    axes = figure.subplots()
    tilts, count = exposure_tilts(dataset), len(dataset.series)
    means = []
    for series, table in enumerate(scores):
        seen = np.isfinite(table).any(axis=0)
        mean = np.full(table.shape[1], np.nan)
        mean[seen] = np.nanmean(table[:, seen], axis=0)
        means.append(mean)
        if count <= 4 and seen.any():
            angle = tilts[dataset.exposures_of(series)][seen]
            low, high = np.nanpercentile(table[:, seen], [25, 75], axis=0)
            order = np.argsort(angle)
            axes.fill_between(angle[order], low[order], high[order], color=PALETTE[series % len(PALETTE)], alpha=0.16,
                              linewidth=0)
    _lines_by_tilt(axes, dataset, means, labels=True)
    axes.set(xlabel="tilt angle (°)", ylabel="score")
    axes.set_ylim(bottom=0)
    if count <= 8:
        axes.legend(loc="best")
    return figure


@styled
def exposure_weights(dataset: Dataset, weights: Sequence[NDArray], bands: Sequence[str]) -> Figure:
    """Weights of exposures against tilt angle and against dose: ``weights[i]`` is ``(exposures, bands)`` of series i, with
    mean 1 over the exposures; ``bands`` names the ranges of resolution."""
    figure = new_figure(WIDTH, 3.1)
    left, right = figure.subplots(1, 2, sharey=True)
    tilts, table, count = exposure_tilts(dataset), dataset.exposures, len(dataset.series)
    look = dict(series_style(count), markersize=3.2 if count <= 4 else 1.6, linewidth=0)
    for band, label in enumerate(bands):
        for series in range(count):
            rows = dataset.exposures_of(series)
            value = np.asarray(weights[series])[:, band]
            marks = dict(color=PALETTE[band], marker="o", label=label if series == 0 else None, **look)
            left.plot(tilts[rows], value, **marks)
            right.plot(table["dose_before"][rows] + 0.5 * table["dose"][rows], value, **marks)
    for axes in (left, right):
        axes.axhline(1.0, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)))
    left.set(xlabel="tilt angle (°)", ylabel="weight, mean 1")
    left.set_ylim(bottom=0)
    right.set(xlabel="dose at mid exposure (e/Å²)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper right", ncols=len(bands), handletextpad=0.2)
    return figure


@styled
def factors_by_dose(dataset: Dataset, factors: Sequence[NDArray], b_factors: Sequence[NDArray]) -> Figure:
    """Amplitude factor and B-factor (square angstrom) of exposures, beyond the dose filter, against dose; ``(E,)`` each."""
    figure = new_figure(WIDTH, 2.7)
    table, count = dataset.exposures, len(dataset.series)
    dose = table["dose_before"] + 0.5 * table["dose"]
    for axes, values, label in zip(figure.subplots(1, 2), (factors, b_factors), ("amplitude factor", "B-factor (Å²)")):
        for series in range(count):
            rows = dataset.exposures_of(series)
            order = np.argsort(dose[rows])
            axes.plot(dose[rows][order], np.asarray(values[series])[order], "o-", color=PALETTE[series % len(PALETTE)],
                      label=short(str(dataset.series["name"][series]), 12), **dict(series_style(count), linewidth=0.7))
        axes.set(xlabel="dose at mid exposure (e/Å²)", ylabel=label)
    if count <= 4:
        axes.legend(loc="best", fontsize=7)
    return figure


@styled
def geometry_change(start: Dataset, end: Dataset) -> Figure:
    """How far tilt angle, axis angle, third angle (where it moved) and shifts are from their start, by tilt angle; the shade
    is one standard deviation to either side, where it is known."""
    before, after = (matrix_to_tilt(dataset.exposures["rotation"]) for dataset in (start, end))
    turn = [(a - b + 180.0) % 360.0 - 180.0 for a, b in zip(after, before)]
    shift, sigma = end.exposures["shift"] - start.exposures["shift"], end.exposures["sigma"]
    panels: List[Tuple[str, NDArray, NDArray]] = [
        ("tilt angle (°)", turn[1], sigma[:, 0]), ("axis angle (°)", turn[2], sigma[:, 1]),
        ("shift x (Å)", shift[:, 0], sigma[:, 2]), ("shift y (Å)", shift[:, 1], sigma[:, 3]),
    ]
    if np.abs(turn[0]).max() > 0.01:
        panels.insert(2, ("third angle (°)", turn[0], np.zeros(len(turn[0]))))
    rows = -(-len(panels) // 2)
    figure = new_figure(WIDTH, 0.3 + 1.9 * rows)
    grid = figure.subplots(rows, 2, sharex=True, squeeze=False)
    for axes, (label, values, errors) in zip(grid.flat, panels):
        parts = [end.exposures_of(series) for series in range(len(end.series))]
        axes.axhline(0.0, color=INK, linewidth=0.6)
        _lines_by_tilt(axes, end, [values[rows] for rows in parts], [errors[rows] for rows in parts],
                       labels=axes is grid.flat[0])
        axes.set_title(label, loc="left")
    for axes in grid.flat[len(panels):]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("tilt angle (°)")
    if 1 < len(end.series) <= 8:
        figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=min(4, len(end.series)))
    return figure


@styled
def shift_vectors(start: Dataset, end: Dataset, most: int = 4) -> Figure:
    """The change of each tilt's shift as an arrow in the image plane, coloured by tilt angle; the first ``most`` series."""
    tilts = exposure_tilts(end)
    count = min(len(end.series), most)
    columns = min(2, count)
    rows = -(-count // columns)
    figure = new_figure(WIDTH, 0.4 + 2.9 * rows if columns > 1 else 4.4)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    change = end.exposures["shift"] - start.exposures["shift"]
    kept = np.isin(end.exposures["series"], np.arange(count))
    reach = 1.12 * max(float(np.abs(change[kept]).max(initial=0.0)), 1e-3)
    norm = Normalize(-np.abs(tilts[kept]).max(), np.abs(tilts[kept]).max())
    for series, axes in enumerate(grid.flat[:count]):
        index = end.exposures_of(series)
        x, y = change[index].T
        zero = np.zeros(len(index))
        arrows = axes.quiver(zero, zero, x, y, tilts[index], cmap=TILTS, norm=norm, angles="xy", scale_units="xy", scale=1.0,
                             width=0.007, headwidth=3.6, headlength=4.2)
        axes.set_title(short(str(end.series["name"][series]), 20))
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("x (Å)")
    for axes in grid[:, 0]:
        axes.set_ylabel("y (Å)")
    bar = figure.colorbar(arrows, ax=grid, shrink=0.8, pad=0.02)
    bar.set_label("tilt angle (°)")
    bar.outline.set_visible(False)
    return figure


@styled
def defocus_change(start: Dataset, end: Dataset) -> Figure:
    """Mean defocus (micrometre) before (hollow) and after (full), and the change (angstrom), by tilt angle."""
    figure = new_figure(WIDTH, 3.0)
    left, right = figure.subplots(1, 2)
    tilts, count = exposure_tilts(end), len(end.series)
    before, after = (dataset.exposures["defocus"][:, :2].mean(axis=1) for dataset in (start, end))
    size = series_style(count)["markersize"]
    for series in range(count):
        rows = end.exposures_of(series)
        colour = PALETTE[series % len(PALETTE)]
        left.plot(tilts[rows], before[rows] / 1e4, "o", color=colour, markerfacecolor="none", markersize=size)
        left.plot(tilts[rows], after[rows] / 1e4, "o", color=colour, markersize=size)
    parts = [end.exposures_of(series) for series in range(count)]
    right.axhline(0.0, color=INK, linewidth=0.6)
    _lines_by_tilt(right, end, [(after - before)[rows] for rows in parts], labels=True)
    left.set(xlabel="tilt angle (°)", ylabel="defocus (µm)")
    right.set(xlabel="tilt angle (°)", ylabel="change (Å)")
    if 1 < count <= 8:
        right.legend(loc="best", fontsize=7)
    return figure
