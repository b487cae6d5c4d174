"""Plots: a table or an array in, a matplotlib ``Figure`` out. Report, viewers and commands share them.

No pyplot and no window: a ``Figure`` object draws itself to any file with ``savefig``. Colours read on white and on black; the
background is transparent, and ``INK`` is what ``html.py`` replaces by the page's text colour.
"""

from __future__ import annotations

from functools import wraps
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar, cast

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from ..core.fsc import resolutions
from ..model.tables import Dataset

INK = "#25313c"  # axes and text
FAINT = "#8b97a3"  # grids, second thoughts: reads on both backgrounds
PALETTE = ("#2f7ebc", "#e07b39", "#3c9d6b", "#9467bd", "#c44e52", "#7f8c8d", "#c2a13b", "#17a2b0")
# From nearly the page's own colour to full blue: more is stronger on white and on black.
DENSITY = LinearSegmentedColormap.from_list("density", ["#2f7ebc14", "#2f7ebcff"])
WIDTH = 6.4  # inches of a figure with one panel

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.constrained_layout.use": True,
}

F = TypeVar("F", bound=Callable[..., Figure])


def _styled(function: F) -> F:
    """Draw with ``STYLE``, whatever the user's matplotlibrc says."""

    @wraps(function)
    def drawn(*args: Any, **kwargs: Any) -> Figure:
        with rc_context(STYLE):
            return function(*args, **kwargs)

    return cast(F, drawn)


def _figure(width: float = WIDTH, height: float = 3.4) -> Figure:
    return Figure(figsize=(width, height))


# --- the map ------------------------------------------------------------------------------------------------------------


@_styled
def fsc_curves(curves: Dict[str, NDArray], box: int, pixel: float, resolution: float = float("nan")) -> Figure:
    """The FSC curves of a map, ``(N//2+1,)`` each by name, with ``resolution`` (angstrom, at 0.143) marked where finite."""
    figure = _figure()
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
        # The curve comes down from the upper left: the label goes to the right, or above where Nyquist is near.
        far = 1 / resolution > 0.8 * frequency[-1]
        axes.annotate(f"{resolution:.2f} Å", (1 / resolution, 0.143), xytext=(0, 32) if far else (8, 10), fontsize=10,
                      textcoords="offset points", fontweight="bold", color=PALETTE[0], ha="center" if far else "left")
    axes.axhline(0.0, color=INK, linewidth=0.6)
    axes.set(xlim=(0, frequency[-1]), ylim=(min(-0.08, min(float(c.min()) for c in curves.values()) - 0.02), 1.03),
             ylabel="Fourier shell correlation")
    _resolution_axis(axes, frequency[-1])
    axes.legend(loc="upper right")
    return figure


def _resolution_axis(axes: Any, highest: float) -> None:
    """Ticks at whole frequencies, labelled with the resolution in angstrom."""
    ticks = [tick for tick in MaxNLocator(nbins=7).tick_values(0.0, highest) if 0 < tick <= highest * 1.0001]
    axes.set_xticks(ticks)
    axes.set_xticklabels([f"{1 / tick:.3g}" for tick in ticks])
    axes.set_xlabel("resolution (Å)")


def _grey(axes: Any, image: NDArray, pixel: float, limits: Optional[Tuple[float, float]] = None) -> None:
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


def contrast_limits(image: NDArray, low: float = 0.5, high: float = 99.8) -> Tuple[float, float]:
    """Grey values of the given percentiles; a flat image gets a range that is not empty."""
    bottom, top = np.percentile(image, [low, high])
    return (float(bottom), float(top)) if top > bottom else (float(bottom) - 0.5, float(bottom) + 0.5)


@_styled
def map_views(volume: NDArray, pixel: float, mask: Optional[NDArray] = None) -> Figure:
    """The three central sections of a map ``(N, N, N)`` (with the outline of ``mask``) and its projections along x, y and z."""
    figure = _figure(WIDTH, 4.5)
    axes = figure.subplots(2, 3)
    centre, extent = len(volume) // 2, len(volume) * pixel
    limits = contrast_limits(np.stack([volume[centre], volume[:, centre], volume[:, :, centre]]))
    names = (("z", "x", "y"), ("y", "x", "z"), ("x", "y", "z"))
    for column, (normal, across, up) in enumerate(names):
        section = np.take(volume, centre, axis=column)
        _grey(axes[0, column], section, pixel, limits)
        if mask is not None:
            outline = np.take(mask, centre, axis=column)
            if outline.min() < 0.5 < outline.max():
                place = (np.arange(len(volume)) - centre) * pixel
                axes[0, column].contour(place, place, outline, levels=[0.5], colors=[PALETTE[1]], linewidths=0.9)
        axes[0, column].set_title(f"section at {normal} = 0")
        _grey(axes[1, column], volume.sum(axis=column), pixel)
        axes[1, column].set_title(f"projection along {normal}")
        for row in range(2):
            axes[row, column].set_xlabel(across, labelpad=2)
            axes[row, column].set_ylabel(up, labelpad=2)
    _scale_bar(axes[1, 0], extent)
    return figure


def _scale_bar(axes: Any, extent: float) -> None:
    """A bar of about a quarter of the view, of 1, 2 or 5 times a power of ten angstrom."""
    length = _round_down(extent / 4)
    left, bottom = -extent / 2 + 0.05 * extent, -extent / 2 + 0.06 * extent
    axes.plot([left, left + length], [bottom, bottom], color="white", linewidth=2.5, solid_capstyle="butt")
    label = f"{length / 10:g} nm" if length >= 100 else f"{length:g} Å"
    axes.text(left + length / 2, bottom + 0.025 * extent, label, color="white", ha="center", va="bottom", fontsize=8)


def _round_down(value: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is not above ``value``."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(step for step in (1, 2, 5) if step * power <= value))


# --- particles ----------------------------------------------------------------------------------------------------------


@_styled
def angular_distribution(rotations: ArrayLike, per: str = "projections") -> Figure:
    """How often the reference is seen from where: ``rotations`` ``(n, 3, 3)``, reference -> microscope (or specimen).

    Mollweide map (equal areas) of the direction of the beam in the reference's frame, the third row of the matrix; rot is the
    longitude and 90 degrees - tilt the latitude. Opposite views are drawn where they are, not folded.
    """
    matrices = np.asarray(rotations, dtype=np.float64).reshape(-1, 3, 3)
    direction = matrices[:, 2]
    longitude = np.arctan2(direction[:, 1], direction[:, 0])
    height = np.clip(direction[:, 2], -1.0, 1.0)
    figure = _figure(WIDTH, 3.3)
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


@_styled
def particles_per_series(names: Sequence[str], counts: ArrayLike, halves: Optional[ArrayLike] = None) -> Figure:
    """Bars of ``counts`` ``(n,)`` by series; ``halves`` ``(n, 2)`` splits them. Above 30 series: a histogram of counts."""
    values = np.asarray(counts)
    if len(values) > 30:
        figure = _figure(WIDTH, 2.8)
        axes = figure.subplots()
        step = max(1, -(-int(np.ptp(values) + 1) // 25))  # whole numbers in every bin
        edges = np.arange(values.min() - 0.5, values.max() + step + 0.5, step)
        axes.hist(values, bins=edges, color=PALETTE[0], rwidth=0.92)
        axes.set(xlabel="particles in a series", ylabel="series")
        return figure
    figure = _figure(WIDTH, 0.9 + 0.24 * max(2, len(values)))
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
    axes.set_yticks(place, [_short(name) for name in names])
    axes.set_ylim(max(2, len(values)) - 0.5, -0.5)
    axes.set(xlabel="particles", xlim=(0, 1.1 * max(1, float(values.max(initial=0)))))
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _short(name: str, length: int = 24) -> str:
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-(length // 2) + 1:]}"


@_styled
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
    figure = _figure(5.6, height + 0.35)
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
    length = _round_down(extent / 5)
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


# --- exposures ----------------------------------------------------------------------------------------------------------


def exposure_tilts(dataset: Dataset) -> NDArray[np.float64]:
    """Tilt angle of every exposure in degrees ``(n_exposures,)``: ytilt of its geometry."""
    from ..core.geometry import matrix_to_tilt

    return np.asarray(matrix_to_tilt(dataset.exposures["rotation"])[1])


def _series_style(count: int) -> Dict[str, Any]:
    few = count <= 8
    return {"markersize": 3.5 if few else 2.0, "linewidth": 1.2 if few else 0.6, "alpha": 1.0 if few else 0.5}


@_styled
def defocus_by_tilt(dataset: Dataset) -> Figure:
    """Defocus (mean of the two axes, micrometre) of every exposure against its tilt angle; bars show the astigmatism."""
    figure = _figure(WIDTH, 3.0)
    axes = figure.subplots()
    tilts, defocus = exposure_tilts(dataset), dataset.exposures["defocus"] / 1e4
    count = len(dataset.series)
    for series in range(count):
        rows = dataset.exposures_of(series)
        rows = rows[np.argsort(tilts[rows])]
        mean, half = defocus[rows, :2].mean(axis=1), 0.5 * np.abs(defocus[rows, 0] - defocus[rows, 1])
        line = axes.plot(tilts[rows], mean, "o-", color=PALETTE[series % len(PALETTE)], **_series_style(count),
                         label=_short(str(dataset.series["name"][series])))
        if count <= 4:
            axes.vlines(tilts[rows], mean - half, mean + half, color=line[0].get_color(), linewidth=3.0, alpha=0.3)
    axes.set(xlabel="tilt angle (°)", ylabel="defocus (µm)")
    if count <= 8:
        axes.legend(loc="best")
    return figure


@_styled
def tilt_scheme(dataset: Dataset) -> Figure:
    """Tilt angle in the order of acquisition, and the dose that had accumulated before each exposure."""
    figure = _figure(WIDTH, 3.0)
    left, right = figure.subplots(1, 2)
    tilts, table = exposure_tilts(dataset), dataset.exposures
    count = len(dataset.series)
    for series in range(count):
        rows = dataset.exposures_of(series)
        rows = rows[np.argsort(table["order"][rows], kind="stable")]
        look = dict(color=PALETTE[series % len(PALETTE)], **_series_style(count))
        left.plot(table["order"][rows] + 1, tilts[rows], "o-", label=_short(str(dataset.series["name"][series]), 16), **look)
        right.plot(tilts[rows], table["dose_before"][rows], "o", **look)
    skipped = ~table["enabled"]
    if skipped.any():
        left.plot(table["order"][skipped] + 1, tilts[skipped], "x", color=PALETTE[4], markersize=6, label="excluded")
        right.plot(tilts[skipped], table["dose_before"][skipped], "x", color=PALETTE[4], markersize=6)
    left.set(xlabel="image in order of acquisition", ylabel="tilt angle (°)")
    left.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    right.set(xlabel="tilt angle (°)", ylabel="dose before (e/Å²)", ylim=(0, None))
    if count <= 6 or skipped.any():
        handles, labels = left.get_legend_handles_labels()
        keep = slice(None) if count <= 6 else slice(-1, None)
        left.legend(handles[keep], labels[keep], loc="best", fontsize=7)
    return figure


@_styled
def noise_by_exposure(names: Sequence[str], tilts: Sequence[ArrayLike], power: Sequence[ArrayLike]) -> Figure:
    """Noise power of exposures against their tilt angle: for each series (by name) two arrays of one length."""
    figure = _figure(WIDTH, 2.8)
    axes = figure.subplots()
    for index, (name, tilt, values) in enumerate(zip(names, tilts, power)):
        order = np.argsort(np.asarray(tilt))
        axes.plot(np.asarray(tilt)[order], np.asarray(values)[order], "o-", color=PALETTE[index % len(PALETTE)],
                  label=_short(name), **_series_style(len(names)))
    axes.set(xlabel="tilt angle (°)", ylabel="noise power", ylim=(0, None))
    if len(names) <= 8:
        axes.legend(loc="best")
    return figure


# --- the run ------------------------------------------------------------------------------------------------------------


@_styled
def timings(seconds: Dict[str, float]) -> Figure:
    """Where the time went: one bar with a part for each stage, largest first, and a legend with seconds."""
    stages: List[Tuple[str, float]] = sorted(((k, float(v)) for k, v in seconds.items() if v > 0), key=lambda item: -item[1])
    total = sum(value for _, value in stages)
    figure = _figure(WIDTH, 1.1 + 0.22 * ((len(stages) + 3) // 4))
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
