"""Figures of maps: FSC curves, sections and projections."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..core.fsc import resolutions
from .style import FAINT, INK, PALETTE, WIDE, WIDTH, contrast_limits, new_figure, resolution_axis, round_down, styled


@styled
def fsc_curves(curves: Dict[str, NDArray], box: int, pixel: float, resolution: float = float("nan")) -> Figure:
    """The FSC curves of a map, ``(N//2+1,)`` each by name, with ``resolution`` (angstrom, at 0.143) marked where finite."""
    figure = new_figure()
    axes = figure.subplots()
    frequency = 1.0 / resolutions(box, pixel)[1:]
    looks: Dict[str, Dict[str, Any]] = {
        "corrected": dict(color=PALETTE[0], linewidth=2.2, zorder=5),
        "masked": dict(color=PALETTE[2], linestyle="-"),
        "unmasked": dict(color=PALETTE[1], linestyle="-"),
        "phase_randomised": dict(color=PALETTE[3], linestyle=(0, (4, 2))),
    }
    for name in [n for n in ("unmasked", "masked", "phase_randomised", "corrected") if n in curves]:
        axes.plot(frequency, curves[name][1:], label=name.replace("_", " "), **looks[name])
    for level in (0.143, 0.5):
        axes.axhline(level, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate(f"{level:g}", (1.0, level), xycoords=("axes fraction", "data"), xytext=(3, 0),
                      textcoords="offset points", va="center", fontsize=7.5, color=FAINT)
    if np.isfinite(resolution):
        axes.plot([1 / resolution], [0.143], "o", color=PALETTE[0], markersize=6, zorder=6)
        # The curve comes down from the upper left: the label goes to the right, or to the left where Nyquist is near.
        far = 1 / resolution > 0.8 * frequency[-1]
        axes.annotate(f"{resolution:.2f} Å", (1 / resolution, 0.143), xytext=(-9, 5) if far else (8, 10), fontsize=10,
                      textcoords="offset points", fontweight="bold", color=PALETTE[0], ha="right" if far else "left")
    axes.axhline(0.0, color=INK, linewidth=0.6)
    axes.set(xlim=(0, frequency[-1]), ylim=(min(-0.08, min(float(c.min()) for c in curves.values()) - 0.02), 1.03),
             ylabel="Fourier shell correlation")
    resolution_axis(axes, frequency[-1])
    axes.legend(loc="best")
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
