"""Figures of the course of a run: curves and figures by iteration, and where the time went."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ..core.fsc import resolutions as shell_resolutions
from .figures_map import finish_fsc, limited_by, mark_resolution, shells_with_data
from .style import FAINT, PALETTE, WIDTH, new_figure, styled

COURSE = LinearSegmentedColormap.from_list("course", ["#b3bcc5", "#7fb0d8", "#2f7ebc"])


@styled
def timings(seconds: Dict[str, float]) -> Figure:
    """Where the time went: one bar with a part for each stage, largest first, and a legend with seconds."""
    stages: List[Tuple[str, float]] = sorted(((k, float(v)) for k, v in seconds.items() if v > 0), key=lambda item: -item[1])
    total = sum(value for _, value in stages)
    figure = new_figure(WIDTH, 1.1 + 0.22 * ((len(stages) + 3) // 4))
    axes = figure.subplots()
    left = 0.0
    for index, (name, value) in enumerate(stages):
        axes.barh([0], [value], left=left, height=0.6, color=PALETTE[index % len(PALETTE)],
                  label=f"{name} {_seconds(value)} ({100 * value / total:.0f} %)")
        left += value
    axes.set(yticks=[], xlim=(0, max(total, 1e-9)), xlabel="seconds, added over all processes")
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    if stages:
        figure.legend(loc="outside upper left", ncols=min(4, len(stages)), columnspacing=1.2, handlelength=1.0)
    return figure


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"


@styled
def fsc_by_iteration(curves: Sequence[NDArray], box: int, pixel: float, resolutions: Sequence[Optional[float]]) -> Figure:
    """Corrected FSC curves ``(N//2+1,)`` of the iterations, from 0: the start orange, the last bold; ``resolutions``
    (angstrom at 0.143, or None) mark the first and the last. Drawn to the last shell that holds data."""
    figure = new_figure(WIDTH, 3.4)
    axes = figure.subplots()
    frequency = 1.0 / shell_resolutions(box, pixel)
    drawn, last = shells_with_data(curves), len(curves) - 1
    for number, curve in enumerate(curves):
        colour = PALETTE[1] if number == 0 and last else PALETTE[0] if number == last else COURSE(number / max(last, 1))
        look = dict(linewidth=2.4, zorder=5) if number == last else dict(linewidth=1.2 if number == 0 else 0.9)
        name = "start" if number == 0 and last else f"iteration {number}"
        label = name if number in (0, last) or last <= 8 else None
        axes.plot(frequency[drawn], curve[drawn], color=colour, label=label, **look)
    for number in sorted({0, last}):
        resolution = resolutions[number]
        # Where the start is limited as well, its dot lies beside the last one's, and its number is the same.
        if resolution is not None and (number == last or not limited_by(curves[number], drawn)):
            colour = PALETTE[0] if number == last else PALETTE[1]
            mark_resolution(axes, frequency, curves[number], drawn, resolution, colour)
    finish_fsc(axes, frequency[-1], min(float(curve.min()) for curve in curves))
    return figure


def _numbers(history: Sequence[Dict[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([np.nan if entry.get(name) is None else float(entry[name]) for entry in history])


def _above_zero(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN for what a logarithmic axis cannot show."""
    return np.where(values > 0, values, np.nan)


@styled
def progress(history: Sequence[Dict[str, Any]]) -> Figure:
    """By iteration: resolution at 0.143 and the limit that the refinement used (angstrom), and how far particles turned and
    moved against how well they are known. ``history`` is that of summary.json."""
    figure = new_figure(WIDTH, 3.1)
    left, right = figure.subplots(1, 2)
    number = _numbers(history, "iteration")
    resolution, limit = _numbers(history, "resolution_0143"), _numbers(history, "limit")
    left.plot(number, resolution, "o-", color=PALETTE[0], label="resolution (FSC 0.143)", linewidth=2.0)
    left.plot(number, limit, "s--", color=PALETTE[1], markersize=4, linewidth=1.2, label="limit of refinement")
    left.set(ylabel="Å")
    left.set_yscale("log")
    known = np.concatenate([resolution, limit])
    known = known[np.isfinite(known)]
    if len(known):
        _round_log_ticks(left, float(known.min()), float(known.max()))
    left.legend(loc="upper right")
    for name, sigma, label, colour in (("rotation", "sigma_rotation", "turned (°)", PALETTE[0]),
                                       ("position", "sigma_position", "moved (Å)", PALETTE[2])):
        right.plot(number, _above_zero(_numbers(history, name)), "o-", color=colour, label=label)
        right.plot(number, _above_zero(_numbers(history, sigma)), linestyle=(0, (4, 2)), color=colour, linewidth=1.1,
                   label=f"known to ({label[-2]})")
    right.set_yscale("log")
    if len(history) > 1 and not any(np.isfinite(line.get_ydata()).any() for line in right.lines):
        right.set_yticks([])
        right.minorticks_off()
        right.text(0.5, 0.5, "particles stay where they are", ha="center", va="center", transform=right.transAxes, color=FAINT)
    else:
        right.legend(loc="best", fontsize=7.5)
    right.set_title("medians over particles", loc="right")
    for axes in (left, right):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("iteration")
        axes.set_xlim(-0.3 if axes is left else 0.7, max(len(history) - 1, 1) + 0.3)
    return figure


def _round_log_ticks(axes: Any, low: float, high: float) -> None:
    """A few round numbers on a logarithmic axis, whatever its span."""
    steps = [1, 1.5, 2, 3, 4, 5, 6, 8]
    ticks = [step * 10.0**power for power in range(-1, 4) for step in steps if 0.93 * low <= step * 10.0**power <= 1.08 * high]
    axes.set_ylim(0.9 * low, 1.12 * high)
    axes.set_yticks(ticks[:: max(1, -(-len(ticks) // 8))])
    axes.minorticks_off()


@styled
def time_by_iteration(seconds: Sequence[Dict[str, float]]) -> Figure:
    """Seconds of each stage, added over all processes, one bar for each iteration from 0."""
    totals: Dict[str, float] = {}
    for entry in seconds:
        for name, value in entry.items():
            totals[name] = totals.get(name, 0.0) + value
    stages = [name for name, value in sorted(totals.items(), key=lambda item: -item[1]) if value > 0.002 * sum(totals.values())]
    figure = new_figure(WIDTH, 1.3 + 0.26 * max(2, len(seconds)))
    axes = figure.subplots()
    place = np.arange(len(seconds))
    left = np.zeros(len(seconds))
    for index, name in enumerate(stages):
        values = np.array([entry.get(name, 0.0) for entry in seconds])
        axes.barh(place, values, left=left, height=0.66, color=PALETTE[index % len(PALETTE)],
                  label=f"{name} {_seconds(totals[name])}")
        left += values
    axes.set_yticks(place, [f"iteration {number}" for number in place])
    axes.set_ylim(max(2, len(seconds)) - 0.5, -0.5)
    axes.set(xlabel="seconds, added over all processes", xlim=(0, 1.05 * max(float(left.max(initial=0.0)), 1e-9)))
    axes.grid(axis="y", visible=False)
    if stages:
        figure.legend(loc="outside upper left", ncols=min(4, len(stages)), columnspacing=1.2, handlelength=1.0)
    return figure
