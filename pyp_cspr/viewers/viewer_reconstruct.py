"""What *reconstruct from tilt series* made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import numpy as np
from matplotlib.figure import Figure
from pyworkflow.protocol import params

from ..engine.report import figures
from ..engine.report.sections import ball_diameter, orientations
from ..protocols import ProtPypCsprReconstruct
from .base import Plot, PypCsprViewer
from .data_folder import DEFOCUS, SCHEME, fsc_of, half_maps, masked_map, particles_in_image
from .runs import ReconstructionRun, read_maps

MAPS = ("map", "sharpened map", "half maps", "mask")
MAP, SHARPENED, HALVES, MASK = range(4)
FILES = (("map",), ("map_sharpened",), ("half1", "half2"), ("mask",))


def _fsc(run: ReconstructionRun, chosen: SimpleNamespace) -> Figure:
    return fsc_of(run.maps(), run.summary()["resolution_0143"])


def _map(run: ReconstructionRun, chosen: SimpleNamespace) -> Figure:
    return half_maps(run.maps()) if chosen.map == HALVES else masked_map(run.maps(), FILES[chosen.map][0])


def _image(run: ReconstructionRun, chosen: SimpleNamespace) -> Figure:
    masks, pixel = read_maps(run.maps(), "mask")
    return particles_in_image(run.dataset(), ball_diameter(masks[0], pixel))


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

    def _mapFiles(self, chosen: SimpleNamespace) -> List[Path]:
        return [self._run().maps() / f"{name}.mrc" for name in FILES[chosen.map]]
