"""How every figure looks. Colours read on white and on black; the background is transparent.

No pyplot and no window: a ``Figure`` object draws itself to any file with ``savefig``. ``INK`` and ``FAINT`` are what
``html.py`` replaces by the page's own colours.
"""

from __future__ import annotations

from functools import wraps
from typing import Any, Callable, Dict, Tuple, TypeVar, cast

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

INK = "#25313c"  # axes and text
FAINT = "#8b97a3"  # grids, second thoughts: reads on both backgrounds
PALETTE = ("#2f7ebc", "#e07b39", "#3c9d6b", "#9467bd", "#c44e52", "#7f8c8d", "#c2a13b", "#17a2b0")
# From nearly the page's own colour to full blue: more is stronger on white and on black.
DENSITY = LinearSegmentedColormap.from_list("density", ["#2f7ebc14", "#2f7ebcff"])
# Tilt angles: blue below 0, orange above.
TILTS = LinearSegmentedColormap.from_list("tilts", ["#1f6fb2", "#6fa8d6", "#9aa3ab", "#e8a070", "#d9601a"])
WIDTH = 6.4  # inches of a figure with one panel
WIDE = 13.0  # inches of a figure that takes the page's whole width

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


def styled(function: F) -> F:
    """Draw with ``STYLE``, whatever the user's matplotlibrc says."""

    @wraps(function)
    def drawn(*args: Any, **kwargs: Any) -> Figure:
        with rc_context(STYLE):
            return function(*args, **kwargs)

    return cast(F, drawn)


def new_figure(width: float = WIDTH, height: float = 3.4) -> Figure:
    """An empty figure of that many inches; call it inside a ``styled`` function."""
    return Figure(figsize=(width, height))


def resolution_axis(axes: Any, highest: float) -> None:
    """Ticks at whole frequencies, labelled with the resolution in angstrom."""
    ticks = [tick for tick in MaxNLocator(nbins=7).tick_values(0.0, highest) if 0 < tick <= highest * 1.0001]
    axes.set_xticks(ticks)
    axes.set_xticklabels([f"{1 / tick:.3g}" for tick in ticks])
    axes.set_xlabel("resolution (Å)")


def series_style(count: int) -> Dict[str, Any]:
    """Size of lines and marks for that many series in one plot."""
    few = count <= 8
    return {"markersize": 3.5 if few else 2.0, "linewidth": 1.2 if few else 0.6, "alpha": 1.0 if few else 0.5}


def short(name: str, length: int = 24) -> str:
    """The name, its middle left out where it is long."""
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-(length // 2) + 1:]}"


def round_down(value: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is not above ``value``."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(step for step in (1, 2, 5) if step * power <= value))


def contrast_limits(image: NDArray, low: float = 0.5, high: float = 99.8) -> Tuple[float, float]:
    """Grey values of the given percentiles; a flat image gets a range that is not empty."""
    bottom, top = np.percentile(image, [low, high])
    return (float(bottom), float(top)) if top > bottom else (float(bottom) - 0.5, float(bottom) + 0.5)
