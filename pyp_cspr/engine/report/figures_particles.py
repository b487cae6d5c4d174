"""Figures of particles: where they are, from where they are seen, how they moved and how well they are known."""

from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from ..model.tables import Dataset
from .style import DENSITY, INK, PALETTE, WIDTH, contrast_limits, new_figure, round_down, short, styled


@styled
def angular_distribution(rotations: ArrayLike, per: str = "projections") -> Figure:
    """How often the reference is seen from where: ``rotations`` ``(n, 3, 3)``, reference -> microscope (or specimen).

    Mollweide map (equal areas) of the direction of the beam in the reference's frame, the third row of the matrix; rot is the
    longitude and 90 degrees - tilt the latitude. Opposite views are drawn where they are, not folded.
    """
    matrices = np.asarray(rotations, dtype=np.float64).reshape(-1, 3, 3)
    direction = matrices[:, 2]
    longitude = np.arctan2(direction[:, 1], direction[:, 0])
    height = np.clip(direction[:, 2], -1.0, 1.0)
    figure = new_figure(WIDTH, 3.3)
    axes = figure.add_subplot(projection="mollweide")
    rows = int(np.clip(np.sqrt(len(matrices) / 8.0), 8, 36))
    # Cells of equal area: even steps of longitude and of the sine of the latitude.
    x_edges, z_edges = np.linspace(-np.pi, np.pi, 2 * rows + 1), np.linspace(-1.0, 1.0, rows + 1)
    counts, _ = np.histogramdd(np.stack([longitude, height], axis=1), bins=(x_edges, z_edges))
    mesh = axes.pcolormesh(x_edges, np.arcsin(z_edges), np.where(counts > 0, counts, np.nan).T, cmap=DENSITY, vmin=0,
                           vmax=max(1.0, float(counts.max())), rasterized=True)
    axes.grid(True)
    axes.set_xticks(np.deg2rad([-120, -60, 0, 60, 120]))
    axes.set_xticklabels([])
    axes.set_xlabel("rot from -180° to 180°")
    latitudes = [60, 30, 0, -30, -60]
    axes.set_yticks(np.deg2rad(latitudes))
    axes.set_yticklabels([f"{90 - degrees}°" for degrees in latitudes], fontsize=7)
    axes.set_ylabel("tilt")
    bar = figure.colorbar(mesh, ax=axes, shrink=0.75, pad=0.03)
    bar.set_label(f"{per} in a cell")
    bar.outline.set_visible(False)
    return figure


@styled
def particles_per_series(names: Sequence[str], counts: ArrayLike, halves: Optional[ArrayLike] = None) -> Figure:
    """Bars of ``counts`` ``(n,)`` by series; ``halves`` ``(n, 2)`` splits them. Above 30 series: a histogram of counts."""
    values = np.asarray(counts)
    if len(values) > 30:
        figure = new_figure(WIDTH, 2.8)
        axes = figure.subplots()
        step = max(1, -(-int(np.ptp(values) + 1) // 25))  # whole numbers in every bin
        edges = np.arange(values.min() - 0.5, values.max() + step + 0.5, step)
        axes.hist(values, bins=edges, color=PALETTE[0], rwidth=0.92)
        axes.set(xlabel="particles in a series", ylabel="series")
        return figure
    figure = new_figure(WIDTH, 0.9 + 0.24 * max(2, len(values)))
    axes = figure.subplots()
    place = np.arange(len(values))
    if halves is None:
        axes.barh(place, values, color=PALETTE[0], height=0.7)
    else:
        parts = np.asarray(halves)
        axes.barh(place, parts[:, 0], color=PALETTE[0], height=0.7, label="half 1")
        axes.barh(place, parts[:, 1], left=parts[:, 0], color=PALETTE[1], height=0.7, label="half 2")
        figure.legend(loc="outside upper right", ncols=2)
    for y, value in zip(place, values):
        axes.annotate(f"{value}", (value, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(place, [short(name) for name in names])
    axes.set_ylim(max(2, len(values)) - 0.5, -0.5)
    axes.set(xlabel="particles", xlim=(0, 1.1 * max(1, float(values.max(initial=0)))))
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@styled
def particles_in_image(
    image: NDArray, pixel: float, positions: ArrayLike, diameter: float, labels: str = "", most: int = 800
) -> Figure:
    """Where particles fall in a tilt image: circles of ``diameter`` at ``positions`` ``(n, 2)``, angstrom from its centre.

    The image ``(ny, nx)`` is binned to ``most`` pixels or fewer and its contrast stretched; +x is along columns, +y along rows.
    """
    ny, nx = image.shape
    step = int(np.ceil(max(nx, ny) / most))
    binned = bin_image(image, step)
    height = float(np.clip(5.2 * ny / nx, 2.0, 8.0))
    figure = new_figure(5.6, height + 0.35)
    axes = figure.subplots()
    # A pixel i is at (i - n // 2) * pixel, and fills half a pixel on either side; a binned one the same as its members.
    used = np.array(binned.shape) * step
    left, bottom = (-(nx // 2) - 0.5) * pixel, (-(ny // 2) - 0.5) * pixel
    low, high = contrast_limits(smooth(binned), 0.5, 99.5)
    axes.imshow(smooth(binned), cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="nearest",
                extent=(left, left + used[1] * pixel, bottom, bottom + used[0] * pixel))
    _circles(axes, np.asarray(positions, dtype=float).reshape(-1, 2), diameter)
    extent = max(nx, ny) * pixel
    axes.set(xlim=(left, left + nx * pixel), ylim=(bottom, bottom + ny * pixel), xticks=[], yticks=[], aspect="equal")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.grid(False)
    _image_scale_bar(axes, left, bottom, extent)
    axes.set_title(labels)
    return figure


def _circles(axes: Any, positions: NDArray, diameter: float) -> None:
    from matplotlib.collections import EllipseCollection

    size = np.full(len(positions), diameter)
    circles = EllipseCollection(size, size, np.zeros(len(positions)), units="xy", offsets=positions,
                                offset_transform=axes.transData, facecolors="none", edgecolors=PALETTE[1], linewidths=1.0)
    axes.add_collection(circles)


def _image_scale_bar(axes: Any, left: float, bottom: float, extent: float) -> None:
    length = round_down(extent / 5)
    x, y = left + 0.04 * extent, bottom + 0.04 * extent
    label = f"{length / 10:g} nm" if length < 10_000 else f"{length / 10_000:g} µm"
    axes.plot([x, x + length], [y, y], color="black", linewidth=6, solid_capstyle="butt", alpha=0.5)
    axes.plot([x, x + length], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    text = axes.text(x + length / 2, y + 0.015 * extent, label, color="white", ha="center", va="bottom", fontsize=9)
    text.set_bbox(dict(facecolor="black", alpha=0.5, edgecolor="none", pad=1.5))


def bin_image(image: NDArray, step: int) -> NDArray[np.float32]:
    """Means of ``step`` x ``step`` pixels; what does not fill a block at the far edges is left out."""
    ny, nx = (size // step * step for size in image.shape)
    blocks = np.asarray(image[:ny, :nx], np.float32).reshape(ny // step, step, nx // step, step)
    return blocks.mean(axis=(1, 3))


def smooth(image: NDArray) -> NDArray[np.float32]:
    """A Gaussian of one pixel, so that particles show through the noise."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(np.asarray(image, np.float32), 1.0)


def _histogram(axes: Any, values: NDArray, label: str, unit: str, colour: str, highest: Optional[float] = None) -> None:
    """Counts of values from 0, with the median marked; the few beyond ``highest`` are counted in the last bin."""
    if not len(values):
        axes.set(xlabel=f"{label} ({unit})", yticks=[])
        return
    end = highest if highest is not None else max(float(np.percentile(values, 99.5)) * 1.05, 1e-9)
    bins = int(np.clip(2.0 * np.cbrt(len(values)), 12, 60))
    axes.hist(np.minimum(values, end), bins=np.linspace(0.0, end, bins + 1), color=colour, rwidth=0.93)
    middle = float(np.median(values))
    axes.axvline(middle, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
    right = middle > 0.6 * end
    gap = "" if unit == "°" else " "
    axes.annotate(f"median {middle:.3g}{gap}{unit}", (middle, 1.0), xycoords=("data", "axes fraction"),
                  xytext=(-4 if right else 4, -2), textcoords="offset points", va="top", ha="right" if right else "left")
    axes.set(xlabel=f"{label} ({unit})", xlim=(0.0, end))
    axes.set_ylim(top=1.12 * axes.get_ylim()[1])
    axes.grid(axis="x", visible=False)


@styled
def moves(rotation: ArrayLike, displacement: ArrayLike) -> Figure:
    """How far particles turned (degrees) and moved (angstrom), ``(n,)`` each, as histograms."""
    figure = new_figure(WIDTH, 2.7)
    left, right = figure.subplots(1, 2)
    _histogram(left, np.asarray(rotation), "turned by", "°", PALETTE[0])
    _histogram(right, np.asarray(displacement), "moved by", "Å", PALETTE[2])
    left.set_ylabel("particles")
    return figure


@styled
def uncertainties(view: ArrayLike, place: ArrayLike) -> Figure:
    """Standard deviations of each projection's view (degrees) and place (angstrom), any shape; NaN is left out."""
    figure = new_figure(WIDTH, 2.7)
    left, right = figure.subplots(1, 2)
    angles, lengths = (np.asarray(values, dtype=float).ravel() for values in (view, place))
    _histogram(left, angles[np.isfinite(angles)], "view known to", "°", PALETTE[0])
    _histogram(right, lengths[np.isfinite(lengths)], "place known to", "Å", PALETTE[2])
    left.set_ylabel("projections")
    return figure


@styled
def score_histogram(scores: ArrayLike, threshold: Optional[float] = None) -> Figure:
    """Scores of particles ``(n,)``, 0 to 100; with a ``threshold``, what lies below it is pale and counted."""
    values = np.asarray(scores, dtype=float)
    values = values[np.isfinite(values)]
    figure = new_figure(WIDTH, 2.7)
    axes = figure.subplots()
    if len(values):
        margin = max(0.5, 0.05 * float(np.ptp(values)))
        low, high = float(values.min()) - margin, float(values.max()) + margin
        if threshold is not None:
            low, high = min(low, threshold - margin), max(high, threshold + margin)
        # Room beside them, but not beyond 0 and 100 where no value is.
        low, high = max(low, min(0.0, float(values.min()))), min(high, max(100.0, float(values.max())))
        edges = np.linspace(low, high, int(np.clip(2.0 * np.cbrt(len(values)), 12, 60)) + 1)
        kept = values >= (-np.inf if threshold is None else threshold)
        # In the bin of the threshold the kept ones stand on those below it.
        bars = axes.hist([values[~kept], values[kept]], bins=edges, color=[PALETTE[0]] * 2, rwidth=0.93, stacked=True)[2]
        for bar in bars[0]:
            bar.set_alpha(0.35)
        if threshold is not None:
            axes.axvline(threshold, color=PALETTE[1], linewidth=1.6)
            axes.annotate(f"threshold {threshold:.3g}: {int((~kept).sum()):,} below", (threshold, 1.0),
                          xycoords=("data", "axes fraction"), xytext=(4, -2), textcoords="offset points", va="top",
                          color=PALETTE[1], fontweight="bold")
            axes.set_ylim(top=1.12 * axes.get_ylim()[1])
    axes.set(xlabel="score (mean over the particle's projections)", ylabel="particles")
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@styled
def displacements(start: Dataset, end: Dataset, most: int = 2) -> Figure:
    """Arrows along which particles moved, seen along z, for the first ``most`` series; lengthened by a round factor."""
    series = [row for row in range(len(end.series)) if len(end.particles_of(row))][:most]
    figure = new_figure(WIDTH, 3.3 if len(series) > 1 else 4.4)
    panels = np.atleast_1d(figure.subplots(1, max(1, len(series))))
    shown = [(end.particles_of(row), end.series["name"][row]) for row in series]
    lengths = [np.linalg.norm((end.particles["position"] - start.particles["position"])[rows], axis=1) for rows, _ in shown]
    extent = max((float(np.ptp(start.particles["position"][rows][:, :2], axis=0).max()) for rows, _ in shown), default=1.0)
    longest = max((float(np.percentile(values, 95)) for values in lengths), default=0.0)
    factor = max(1.0, round_down(0.14 * max(extent, 1.0) / longest)) if longest > 0 else 1.0
    for axes, (rows, name) in zip(panels, shown):
        before, after = start.particles["position"][rows] / 10.0, end.particles["position"][rows] / 10.0
        way = factor * (after - before)
        axes.plot(before[:, 0], before[:, 1], "o", color=PALETTE[0], markersize=2.2, alpha=0.6, linewidth=0)
        axes.quiver(before[:, 0], before[:, 1], way[:, 0], way[:, 1], angles="xy", scale_units="xy", scale=1.0,
                    color=PALETTE[0], width=0.0045, headwidth=4.0, headlength=4.5)
        axes.set(xlabel="x (nm)", aspect="equal")
        middle = 0.5 * (before[:, :2].min(axis=0) + before[:, :2].max(axis=0))
        half = 0.055 * max(extent, 1.0)
        axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
        axes.set_title(f"{short(str(name), 18)}, arrows × {factor:g}")
    panels[0].set_ylabel("y (nm)")
    return figure
