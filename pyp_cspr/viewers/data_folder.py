"""What the viewers of data sets and maps share: the folder, the figures of any of them, and a form without a report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Optional

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..engine.core.filters import soft_mask
from ..engine.io.relion import read_dataset
from ..engine.model.tables import Dataset
from ..engine.report import figures
from ..engine.report.sections import ball_diameter, image_section
from .base import REPORT, Plot, PypCsprViewer
from .runs import NotYet, read_curves, read_maps, stamp_of

REFERENCE = "reference"


class DataFolder:
    """A folder that a protocol fills; ``last`` is the file that it writes last."""

    def __init__(self, folder: Path, last: str) -> None:
        self.folder, self._last = folder, last

    def stamp(self) -> Any:
        return stamp_of(self.folder, self._last)

    def state(self) -> str:
        return "Finished." if (self.folder / self._last).exists() else "The protocol has not come to its end yet."

    def dataset(self) -> Dataset:
        """Raises NotYet while it is not there."""
        if not (self.folder / self._last).exists():
            raise NotYet(self.state())
        return read_dataset(self.folder, need_images=False)

    def diameter(self) -> float:
        """Of the particles, angstrom: the reference's, or half the box where there is none."""
        if (self.folder / f"{REFERENCE}.mrc").exists():
            maps, pixel = read_maps(self.folder, REFERENCE)
            return ball_diameter(soft_mask(maps[0], pixel).values, pixel)
        dataset = self.dataset()
        return float(dataset.box * dataset.box_pixel / 2.0)


def reference(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    """The map of the data set. Raises NotYet where it has none."""
    run.dataset()
    if not (run.folder / f"{REFERENCE}.mrc").exists():
        raise NotYet("There is no map: the project had none, and none was given.")
    maps, pixel = read_maps(run.folder, REFERENCE)
    return figures.map_views(maps[0], pixel, soft_mask(maps[0], pixel).values)


def particles_in_image(dataset: Dataset, diameter: float) -> Figure:
    """Particles as circles of ``diameter`` angstrom on a tilt image. Raises NotYet where images cannot be read."""
    section = image_section(dataset, diameter)
    if section is None:
        raise NotYet("The tilt images cannot be read: they may have been moved.")
    assert isinstance(section[2], Figure)
    return section[2]


def tilt_image(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    """Particles of the data set on a tilt image."""
    return particles_in_image(run.dataset(), run.diameter())


def masked_map(folder: Path, name: str) -> Figure:
    """A map of a run folder, with the outline of the mask."""
    maps, pixel = read_maps(folder, name, "mask")
    return figures.map_views(maps[0], pixel, None if name == "mask" else maps[1])


def half_maps(folder: Path) -> Figure:
    """The two half maps of a run folder."""
    halves, pixel = read_maps(folder, "half1", "half2")
    return figures.maps_compared(halves[0], halves[1], pixel, ("half 1", "half 2"))


def fsc_of(folder: Path, resolution: Optional[float]) -> Figure:
    """The FSC curves of a run folder, with the resolution (angstrom at 0.143, None: none) marked."""
    masks, pixel = read_maps(folder, "mask")
    return figures.fsc_curves(read_curves(folder), len(masks[0]), pixel, float("nan") if resolution is None else resolution)


def per_series(run: DataFolder, chosen: SimpleNamespace) -> Figure:
    """How many particles each series has."""
    dataset = run.dataset()
    counts = [len(dataset.particles_of(row)) for row in range(len(dataset.series))]
    return figures.particles_per_series([str(name) for name in dataset.series["name"]], counts)


def score_figure(scores: NDArray, threshold: Any, without: str) -> Figure:
    """Histogram of scores. Raises NotYet, which says ``without``, where there are none."""
    if not np.isfinite(scores).any():
        raise NotYet(without)
    return figures.score_histogram(scores, threshold)


SCHEME = Plot("showScheme", "Tilt scheme",
              "Tilt angles in the order of acquisition, and the dose before each image.",
              lambda run, chosen: figures.tilt_scheme(run.dataset()))
DEFOCUS = Plot("showDefocus", "Defocus",
               "At the specimen's centre; particles have their own by their depth. Bars: astigmatism.",
               lambda run, chosen: figures.defocus_by_tilt(run.dataset()))


class PypCsprDataViewer(PypCsprViewer):
    """One section with all plots, and no report."""

    _section = ""

    def _defineParams(self, form: Any) -> None:
        form.addSection(label=self._section)
        self._addPlots(form, self._plots)

    def _getVisualizeDict(self) -> Dict[str, Callable[[Any], Any]]:
        return {name: call for name, call in super()._getVisualizeDict().items() if name != REPORT}
