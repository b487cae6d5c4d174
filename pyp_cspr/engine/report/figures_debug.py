"""Single projections beside what the reference says they should be: a sheet for each particle, and one for all together.

Read a sheet by rows: an exposure's image, the reference seen from the same side with the same CTF, what is left, the CTF,
and the correlation of the two as a function of a displacement. Where all is right the two look alike and the correlation has
its peak in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .style import FAINT, INK, PALETTE, WIDE, contrast_limits, short, styled

# Below 0 blue, above 0 orange, 0 the colour of paper.
SIGNED = LinearSegmentedColormap.from_list("signed", ["#1f6fb2", "#8fbbdd", "#f7f7f5", "#f0b48c", "#d9601a"])
HEADS = ("image", "reference x CTF", "image - reference", "CTF", "correlation", "by resolution")
SURE = 5.0  # standard deviations: a peak above this is no noise
AWAY = 1.5  # pixels: a peak nearer to the middle is in it
NEAR = 0.1  # of the box: a peak farther out is not where the particle is said to be


@dataclass
class ParticleSheet:
    """One particle in E exposures, by tilt angle. Images are ``(E, n, n)``."""

    name: str
    series: str
    half: int
    pixel: float  # A, of the images
    resolution: float  # A, the finest detail shown
    rows: List[Dict[str, float]]  # what the table says of each projection: ``pipeline.debug_views.COLUMNS``
    image: NDArray[np.float32]
    model: NDArray[np.float32]
    residual: NDArray[np.float32]
    ctf: NDArray[np.float32]
    correlation: NDArray[np.float32]  # standard deviations of noise
    shells: NDArray[np.float64]  # (E, S) correlation of image and model in each shell
    frequency: NDArray[np.float64]  # (S,) 1/A
    together: NDArray[np.float32]  # (n, n) correlation of all exposures, standard deviations
    alternatives: Dict[str, float]  # mean score if a sign were another; "as given" among them

    @property
    def box(self) -> int:
        return int(self.image.shape[-1])


def peak_of(correlation: NDArray, pixel: float) -> Dict[str, float]:
    """Height of the highest value of a map, and its displacement x, y from the middle in angstrom."""
    y, x = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    middle = len(correlation) // 2
    return {"peak": float(correlation[y, x]), "peak_x": float((x - middle) * pixel), "peak_y": float((y - middle) * pixel),
            "middle": float(correlation[middle, middle])}


def verdict(sheet: ParticleSheet) -> str:
    """What the correlation of all exposures together says, in one sentence."""
    peak = peak_of(sheet.together, sheet.pixel)
    away = float(np.hypot(peak["peak_x"], peak["peak_y"]))
    trough = peak_of(-sheet.together, sheet.pixel)
    best = max(sheet.alternatives, key=lambda name: sheet.alternatives[name])
    if trough["peak"] > max(SURE, 1.2 * peak["peak"]):
        return f"the correlation is negative ({-trough['peak']:.1f} sigma): the contrast is inverted"
    given = sheet.alternatives["as given"]
    hint = f"; the score would be {sheet.alternatives[best]:.1f} instead of {given:.1f} with {best}" \
        if best != "as given" and sheet.alternatives[best] > 1.25 * max(given, 0.5) else ""
    if peak["peak"] < SURE:
        return f"no peak above noise ({peak['peak']:.1f} sigma)" + hint
    if away > NEAR * sheet.box * sheet.pixel:
        return f"the peak ({peak['peak']:.1f} sigma) is {away:.0f} Å away from the middle" + hint
    score = np.array([row["score"] for row in sheet.rows])
    few = max(1, len(score) // 10)
    first = np.argsort(-score)[:few]
    if len(score) >= 5 and score[first].sum() > 0.5 * score.sum():
        angles = ", ".join(_angle(sheet.rows[row]["tilt"]) for row in sorted(first.tolist()))
        return f"a peak of {peak['peak']:.1f} sigma, but only from {angles}: the other exposures do not fit" + hint
    return f"a peak of {peak['peak']:.1f} sigma, {away:.1f} Å from the middle" + hint


@styled
def particle_sheet(sheet: ParticleSheet, chosen: Sequence[int]) -> Figure:
    """The sheet of a particle: a row for each of the ``chosen`` exposures, and below them all exposures together."""
    count, each = len(chosen), 1.42
    figure = Figure(figsize=(WIDE * 0.8, each * count + 4.1))
    grid = figure.add_gridspec(count + 1, 7, width_ratios=[0.82, 1, 1, 1, 1, 1, 1.35], height_ratios=[1.0] * count + [2.0])
    says = verdict(sheet).replace("; ", "\n")
    state = f", half-set {sheet.half}" if sheet.half else ""
    figure.suptitle(f"{short(sheet.name, 48)}   (series {short(sheet.series, 32)}{state}; detail to {sheet.resolution:.3g} Å)\n"
                    f"{says}", fontsize=11.5, x=0.012, ha="left")
    low, high = contrast_limits(np.concatenate([sheet.image[chosen], sheet.model[chosen]]), 0.3, 99.7)
    strongest = float(max(SURE, sheet.correlation[chosen].max()))
    for line, row in enumerate(chosen):
        _row_label(figure.add_subplot(grid[line, 0]), sheet.rows[row])
        greys: Dict[str, Any] = {"cmap": "gray", "vmin": low, "vmax": high}
        for column, (picture, options) in enumerate((
            (sheet.image, greys), (sheet.model, greys), (sheet.residual, greys),
            (sheet.ctf, {"cmap": SIGNED, "vmin": -1, "vmax": 1}),
            (sheet.correlation, {"cmap": SIGNED, "vmin": -strongest, "vmax": strongest}),
        )):
            axes = figure.add_subplot(grid[line, column + 1])
            _picture(axes, picture[row], options)
            if column == 4:
                _mark_peak(axes, picture[row], sheet.pixel)
            if column == 0 and line == 0:
                _scale_bar(axes, sheet)
            if line == 0:
                axes.set_title(HEADS[column])
        axes = figure.add_subplot(grid[line, 6])
        _curve(axes, sheet.frequency, sheet.shells[row], line == count - 1)
        if line == 0:
            axes.set_title(f"{HEADS[5]}: correlation")
    below = grid[count, :].subgridspec(1, 4, width_ratios=[1.0, 1.35, 1.35, 1.25])
    _together(figure.add_subplot(below[0]), sheet)
    _scores(figure.add_subplot(below[1]), sheet)
    _displacements(figure.add_subplot(below[2]), sheet)
    _alternatives(figure.add_subplot(below[3]), sheet)
    return figure


@styled
def exposure_sheet(correlation: NDArray, tilts: Sequence[float], pixel: float, particles: int) -> Figure:
    """The correlation ``(E, n, n)`` of all chosen particles together in each exposure, in standard deviations."""
    columns = 8
    lines = -(-len(tilts) // columns)
    figure = Figure(figsize=(WIDE * 0.8, 1.42 * lines + 0.5))
    figure.suptitle(f"Correlation of {particles} particles together, by exposure: the peak belongs in the middle "
                    f"(side {len(correlation[0]) * pixel:.0f} Å)", fontsize=11.5, x=0.012, ha="left")
    strongest = float(max(SURE, correlation.max()))
    for index, tilt in enumerate(tilts):
        axes = figure.add_subplot(lines, columns, index + 1)
        _picture(axes, correlation[index], {"cmap": SIGNED, "vmin": -strongest, "vmax": strongest})
        _mark_peak(axes, correlation[index], pixel)
        axes.set_title(f"{_angle(tilt)}, {correlation[index].max():.1f} σ", fontsize=8.5)
    return figure


def _angle(degrees: float) -> str:
    return f"{0.0 if abs(degrees) < 0.05 else degrees:+.1f}°"


def _picture(axes: Any, picture: NDArray, options: Dict[str, Any]) -> None:
    axes.imshow(picture, origin="lower", interpolation="nearest", **options)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for side in axes.spines.values():
        side.set(visible=True, color=FAINT, linewidth=0.5)


def _row_label(axes: Any, row: Dict[str, float]) -> None:
    axes.axis("off")
    axes.text(0.0, 0.80, _angle(row["tilt"]), fontsize=12, weight="bold", transform=axes.transAxes, va="center")
    axes.text(0.0, 0.52, f"score {row['score']:.1f}", transform=axes.transAxes, va="center")
    axes.text(0.0, 0.20, f"defocus {1e-4 * 0.5 * (row['defocus_u'] + row['defocus_v']):.2f} µm\ndose {row['dose']:.0f} e/Å²",
              fontsize=7.5, color=FAINT, transform=axes.transAxes, va="center")


def _mark_peak(axes: Any, correlation: NDArray, pixel: float) -> None:
    """A cross in the middle, and a ring about the peak where that is no noise and elsewhere."""
    middle = len(correlation) // 2
    arm, gap = 0.22 * len(correlation), 0.11 * len(correlation)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        axes.plot([middle + dx * gap, middle + dx * arm], [middle + dy * gap, middle + dy * arm], color=INK, linewidth=0.8)
    peak = peak_of(correlation, pixel)
    if peak["peak"] > SURE and np.hypot(peak["peak_x"], peak["peak_y"]) > AWAY * pixel:
        axes.plot(middle + peak["peak_x"] / pixel, middle + peak["peak_y"] / pixel, "o", markersize=10, markerfacecolor="none",
                  markeredgecolor=PALETTE[4], markeredgewidth=1.4)


def _scale_bar(axes: Any, sheet: ParticleSheet) -> None:
    length = 10.0 ** np.floor(np.log10(0.5 * sheet.box * sheet.pixel))
    length *= max(step for step in (1, 2, 5) if step * length <= 0.5 * sheet.box * sheet.pixel)
    start, level = 0.06 * sheet.box, 0.07 * sheet.box
    axes.plot([start, start + length / sheet.pixel], [level, level], color="white", linewidth=2.4, solid_capstyle="butt")
    axes.text(start, level + 0.05 * sheet.box, f"{length:g} Å", color="white", fontsize=7.5)


def _curve(axes: Any, frequency: NDArray, values: NDArray, last: bool) -> None:
    colours = np.where(values >= 0, PALETTE[1], PALETTE[0])
    width = 0.85 * (frequency[1] - frequency[0] if len(frequency) > 1 else frequency[0])
    axes.bar(frequency, values, width=width, color=colours.tolist())
    axes.axhline(0.0, color=INK, linewidth=0.7)
    axes.set(ylim=(-1, 1), yticks=[-1, 0, 1])
    ticks = frequency[-1] * np.array([1 / 3, 2 / 3, 1.0])
    axes.set_xticks(ticks)
    axes.set_xticklabels([f"{1 / tick:.3g} Å" for tick in ticks] if last else [])
    axes.tick_params(labelsize=7.0, length=2)


def _together(axes: Any, sheet: ParticleSheet) -> None:
    strongest = float(max(SURE, np.abs(sheet.together).max()))
    _picture(axes, sheet.together, {"cmap": SIGNED, "vmin": -strongest, "vmax": strongest})
    _mark_peak(axes, sheet.together, sheet.pixel)
    axes.set_title("correlation, all exposures")
    axes.set_xlabel(f"-{strongest:.0f} to {strongest:.0f} σ")


def _scores(axes: Any, sheet: ParticleSheet) -> None:
    tilts = [row["tilt"] for row in sheet.rows]
    axes.plot(tilts, [row["score"] for row in sheet.rows], "o-", color=PALETTE[0], markersize=3.5, linewidth=1.0)
    axes.axhline(0.0, color=INK, linewidth=0.7)
    axes.set(xlabel="tilt angle (°)", title="score")


def _displacements(axes: Any, sheet: ParticleSheet) -> None:
    rows = [row for row in sheet.rows if row["peak"] > SURE]
    for axis, colour in (("x", PALETTE[0]), ("y", PALETTE[1])):
        axes.plot([row["tilt"] for row in rows], [row[f"peak_{axis}"] for row in rows], "o", color=colour, markersize=3.5,
                  label=axis)
    half = 0.5 * sheet.box * sheet.pixel
    largest = max([abs(row[name]) for row in rows for name in ("peak_x", "peak_y")] + [0.2 * half])
    axes.set(ylim=(-1.15 * largest, 1.15 * largest), xlabel="tilt angle (°)", title="peak from the middle (Å)",
             xlim=(min(row["tilt"] for row in sheet.rows) - 3, max(row["tilt"] for row in sheet.rows) + 3))
    axes.axhline(0.0, color=INK, linewidth=0.7)
    if rows:
        axes.legend(loc="best", ncols=2, handletextpad=0.1)
    else:
        axes.text(0.5, 0.6, "no peak above noise", ha="center", transform=axes.transAxes, color=FAINT)


def _alternatives(axes: Any, sheet: ParticleSheet) -> None:
    names = list(sheet.alternatives)[::-1]
    values = [sheet.alternatives[name] for name in names]
    colours = [PALETTE[0] if name == "as given" else FAINT for name in names]
    axes.barh(range(len(names)), values, color=colours, height=0.65)
    axes.set_yticks(range(len(names)))
    axes.set_yticklabels(names)
    axes.axvline(0.0, color=INK, linewidth=0.7)
    axes.set_title("mean score if ...")
