"""What *reconstruct from tilt series* made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pyworkflow.protocol import params

from ..engine.report import figures
from ..engine.report.sections import ball_diameter, image_section, orientations
from ..protocols import ProtPypCsprReconstruct
from .base import Plot, PypCsprViewer
from .data_folder import DEFOCUS, SCHEME
from .runs import NotYet, ReconstructionRun, read_curves, read_maps

MAPS = ("map", "sharpened map", "half maps", "mask")
MAP, SHARPENED, HALVES, MASK = range(4)
FILES = {MAP: "map", SHARPENED: "map_sharpened", HALVES: "half1", MASK: "mask"}


def _fsc(run: ReconstructionRun, chosen: SimpleNamespace) -> Figure:
    summary = run.summary()
    resolution = summary["resolution_0143"]
    return figures.fsc_curves(read_curves(run.maps()), summary["box"], summary["pixel"],
                              float("nan") if resolution is None else resolution)


def _map(run: ReconstructionRun, chosen: SimpleNamespace) -> Figure:
    if chosen.map == HALVES:
        halves, pixel = read_maps(run.maps(), "half1", "half2")
        return figures.maps_compared(halves[0], halves[1], pixel, ("half 1", "half 2"))
    maps, pixel = read_maps(run.maps(), FILES[chosen.map], "mask")
    return figures.map_views(maps[0], pixel, None if chosen.map == MASK else maps[1])


def _image(run: ReconstructionRun, chosen: SimpleNamespace) -> Figure:
    masks, pixel = read_maps(run.maps(), "mask")
    section = image_section(run.dataset(), ball_diameter(masks[0], pixel))
    if section is None:
        raise NotYet("The tilt images cannot be read: they may have been moved.")
    assert isinstance(section[2], Figure)
    return section[2]


def _particles(run: ReconstructionRun, chosen: SimpleNamespace) -> Figure:
    dataset = run.dataset()
    rows = [dataset.particles_of(series) for series in range(len(dataset.series))]
    halves = np.array([[int((dataset.particles["half"][row] == number).sum()) for number in (1, 2)] for row in rows])
    return figures.particles_per_series([str(name) for name in dataset.series["name"]], halves.sum(axis=1), halves)


MAP_PLOTS = (
    Plot("showFsc", "Fourier shell correlation",
         "Of the half maps. The corrected curve takes away what the mask adds, found with randomised phases.",
         _fsc),
    Plot("showMap", "Sections and projections of the map",
         "Of the map that was chosen. Orange: where the mask is one half.",
         _map),
)
DATA_PLOTS = (
    Plot("showDirections", "Directions of view",
         "Where the reference is seen from, over all projections. Cells have equal areas.",
         lambda run, chosen: figures.angular_distribution(orientations(run.dataset()))),
    Plot("showImage", "Particles in a tilt image",
         "The least tilted image of the first series. Circles have the size of the mask, and should lie on particles.",
         _image),
    Plot("showParticles", "Particles of each tilt series",
         "How many of each half-set.",
         _particles),
    SCHEME, DEFOCUS,
)


class PypCsprReconstructViewer(PypCsprViewer):
    """Figures of a reconstruction."""

    _label = "reconstruction"
    _targets = [ProtPypCsprReconstruct]
    _plots = MAP_PLOTS + DATA_PLOTS
    _choices = ("map",)

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Map")
        self._addReport(form)
        self._addPlots(form, MAP_PLOTS[:1])
        form.addParam("map", params.EnumParam, choices=list(MAPS), default=MAP, label="Which map", help="For the next rows.")
        self._addPlots(form, MAP_PLOTS[1:])
        self._addChimera(form)
        form.addSection(label="Data")
        self._addPlots(form, DATA_PLOTS)

    def _run(self) -> ReconstructionRun:
        return ReconstructionRun(str(self._folder()))

    def _mapFile(self, chosen: SimpleNamespace) -> Path:
        return self._run().maps() / f"{FILES[chosen.map]}.mrc"
