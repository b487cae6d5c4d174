"""Figures of maps: FSC curves, sections and projections."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Optional, Tuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..core.fsc import resolutions
from .style import FAINT, INK, PALETTE, WIDE, WIDTH, contrast_limits, new_figure, resolution_axis, round_down, styled

LEVELS = (0.143, 0.5)


def shells_with_data(curves: Iterable[NDArray]) -> slice:
    """From shell 1 to the last that holds data in any of the curves ``(N//2+1,)``, which are 0 beyond."""
    return slice(1, 1 + max([1, *(int(np.flatnonzero(curve).max(initial=0)) for curve in curves)]))


def limited_by(curve: NDArray, drawn: slice) -> str:
    """In words, what tells the resolution where a corrected FSC stays above 0.143 to its end; empty where the data do."""
    if (curve[drawn] < LEVELS[0]).any():
        return ""
    return "limited by the pixel" if drawn.stop >= len(curve) - 1 else "limited by map_resolution"


def mark_resolution(axes: Any, frequency: NDArray, curve: NDArray, drawn: slice, resolution: float, colour: str) -> None:
    """A dot on an FSC curve at its resolution (angstrom), with the number; nothing where there is no resolution."""
    if not np.isfinite(resolution):
        return
    place = min(1 / resolution, frequency[drawn][-1])
    dot = (place, float(np.interp(place, frequency[drawn], curve[drawn])))
    axes.plot(*[[value] for value in dot], "o", color=colour, markersize=6, zorder=6)
    limited, near_end = limited_by(curve, drawn), place > 0.8 * frequency[-1]
    # The curve comes down from the upper left: free are the right, the line's left where Nyquist is near, and what is below.
    shift = (-9, -16) if limited else (-9, 5) if near_end else (8, 10)
    side = "right" if limited or near_end else "left"
    look: Dict[str, Any] = dict(textcoords="offset points", color=colour, ha=side, zorder=7)
    axes.annotate(f"{resolution:.2f} Å", dot, xytext=shift, fontsize=10, fontweight="bold", **look)
    if limited:
        axes.annotate(limited, dot, xytext=(shift[0], shift[1] - 12), fontsize=8, **look)


def finish_fsc(axes: Any, highest: float, lowest: float) -> None:
    """Levels, axes and legend of a figure of FSC curves, from frequency 0 to ``highest``."""
    for level in LEVELS:
        axes.axhline(level, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate(f"{level:g}", (1.0, level), xycoords=("axes fraction", "data"), xytext=(3, 0),
                      textcoords="offset points", va="center", fontsize=7.5, color=FAINT)
    axes.axhline(0.0, color=INK, linewidth=0.6)
    axes.set(xlim=(0, highest), ylim=(min(-0.08, lowest - 0.02), 1.03), ylabel="Fourier shell correlation")
    resolution_axis(axes, highest)
    axes.legend(loc="best")


@styled
def fsc_curves(
    curves: Dict[str, NDArray], box: int, pixel: float, resolution: float = float("nan"), limit: float = float("nan")
) -> Figure:
    """The FSC curves of a map, ``(N//2+1,)`` each by name, to the last shell that holds data.

    ``resolution`` (angstrom, at 0.143) is marked on the corrected one, and a ``limit`` (angstrom) of the detail to use as a
    vertical line, where they are finite.
    """
    figure = new_figure()
    axes = figure.subplots()
    frequency = 1.0 / resolutions(box, pixel)
    looks: Dict[str, Dict[str, Any]] = {
        "corrected": dict(color=PALETTE[0], linewidth=2.2, zorder=5),
        "masked": dict(color=PALETTE[2], linestyle="-"),
        "unmasked": dict(color=PALETTE[1], linestyle="-"),
        "phase_randomised": dict(color=PALETTE[3], linestyle=(0, (4, 2))),
    }
    drawn = shells_with_data(curves.values())
    for name in [n for n in ("unmasked", "masked", "phase_randomised", "corrected") if n in curves]:
        axes.plot(frequency[drawn], curves[name][drawn], label=name.replace("_", " "), **looks[name])
    if "corrected" in curves:
        mark_resolution(axes, frequency, curves["corrected"], drawn, resolution, PALETTE[0])
    if np.isfinite(limit):
        axes.axvline(1 / limit, color=PALETTE[4], linewidth=1.4)
        far = 1 / limit > 0.8 * frequency[-1]
        axes.annotate(f"{limit:.1f} Å", (1 / limit, 0.0), xycoords=("data", "axes fraction"), xytext=(-5 if far else 5, 5),
                      textcoords="offset points", ha="right" if far else "left", color=PALETTE[4], fontweight="bold")
    finish_fsc(axes, frequency[-1], min(float(curve.min()) for curve in curves.values()))
    return figure


def grey(axes: Any, image: NDArray, pixel: float, limits: Optional[Tuple[float, float]] = None) -> None:
    """A square image; pixel i is drawn about (i - N // 2) * pixel."""
    low, high = limits if limits is not None else contrast_limits(image)
    left = (-(len(image) // 2) - 0.5) * pixel
    right = left + len(image) * pixel
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="nearest",
                extent=(left, right, left, right))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.grid(False)


@styled
def map_views(volume: NDArray, pixel: float, mask: Optional[NDArray] = None) -> Figure:
    """The three central sections of a map ``(N, N, N)`` (with the outline of ``mask``) and its projections along x, y and z."""
    figure = new_figure(WIDTH, 4.5)
    axes = figure.subplots(2, 3)
    centre, extent = len(volume) // 2, len(volume) * pixel
    limits = contrast_limits(np.stack([volume[centre], volume[:, centre], volume[:, :, centre]]))
    names = (("z", "x", "y"), ("y", "x", "z"), ("x", "y", "z"))
    for column, (normal, across, up) in enumerate(names):
        section = np.take(volume, centre, axis=column)
        grey(axes[0, column], section, pixel, limits)
        if mask is not None:
            outline = np.take(mask, centre, axis=column)
            if outline.min() < 0.5 < outline.max():
                place = (np.arange(len(volume)) - centre) * pixel
                axes[0, column].contour(place, place, outline, levels=[0.5], colors=[PALETTE[1]], linewidths=0.9)
        axes[0, column].set_title(f"section at {normal} = 0")
        grey(axes[1, column], volume.sum(axis=column), pixel)
        axes[1, column].set_title(f"projection along {normal}")
        for row in range(2):
            axes[row, column].set_xlabel(across, labelpad=2)
            axes[row, column].set_ylabel(up, labelpad=2)
    scale_bar(axes[1, 0], extent)
    return figure


def scale_bar(axes: Any, extent: float) -> None:
    """A bar of about a quarter of the view, of 1, 2 or 5 times a power of ten angstrom."""
    length = round_down(extent / 4)
    left, bottom = -extent / 2 + 0.05 * extent, -extent / 2 + 0.06 * extent
    axes.plot([left, left + length], [bottom, bottom], color="white", linewidth=2.5, solid_capstyle="butt")
    label = f"{length / 10:g} nm" if length >= 100 else f"{length:g} Å"
    axes.text(left + length / 2, bottom + 0.025 * extent, label, color="white", ha="center", va="bottom", fontsize=8)


VIEWS = (("z", "x", "y"), ("y", "x", "z"), ("x", "y", "z"))  # axis of the array: its normal, what goes across and up


@styled
def maps_compared(before: NDArray, after: NDArray, pixel: float, labels: Tuple[str, str] = ("before", "after")) -> Figure:
    """Two maps ``(N, N, N)`` one above the other: three central sections and three projections, each with its own greys."""
    figure = new_figure(WIDE, WIDE / 3 + 0.45)
    axes = figure.subplots(2, 6)
    centre = len(after) // 2
    for row, (volume, label) in enumerate(zip((before, after), labels)):
        sections = [np.take(volume, centre, axis=axis) for axis in range(3)]
        limits = contrast_limits(np.stack(sections))
        for column, (normal, _, _) in enumerate(VIEWS):
            grey(axes[row, column], sections[column], pixel, limits)
            grey(axes[row, 3 + column], volume.sum(axis=column), pixel)
            if row == 0:
                axes[row, column].set_title(f"section at {normal} = 0")
                axes[row, 3 + column].set_title(f"projection along {normal}")
        axes[row, 0].set_ylabel(label, fontsize=10.5, fontweight="bold")
    scale_bar(axes[1, 0], len(after) * pixel)
    return figure
