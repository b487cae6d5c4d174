"""What *refine tilt series* found, while it runs and afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional

import numpy as np
from matplotlib.figure import Figure
from pyworkflow.protocol import params

from ..engine.report import figures
from ..engine.report.refinement import RefinementData, particle_moves, weights_by_band
from ..engine.report.sections import ball_diameter, orientations
from ..protocols import ProtPypCsprRefine
from .base import Plot, PypCsprViewer
from .data_folder import half_maps, masked_map, particles_in_image
from .runs import NotYet, RefinementRun, chunk_text, of_series, read_maps

ALL_SERIES = "all"
MAPS = ("map", "sharpened map", "half maps", "start and end", "mask")
MAP, SHARPENED, HALVES, COURSE, MASK = range(5)
FILES = (("map",), ("map_sharpened",), ("half1", "half2"), ("map",), ("mask",))
LOG = "showLog"


def _data(run: RefinementRun, chosen: SimpleNamespace, refined: bool = True) -> RefinementData:
    """The run's data as of the chosen iteration, of the chosen series."""
    data = run.data(chosen.iteration)
    if refined and not data.tables:
        raise NotYet(f"Nothing is refined at the start. {run.state()}")
    names = [str(name) for name in data.end.series["name"]]
    if chosen.series == ALL_SERIES or chosen.series not in names:
        return data
    row = names.index(chosen.series)
    tables = [data.tables[row]] if data.tables else []
    return replace(data, start=of_series(data.start, row), end=of_series(data.end, row), tables=tables)


def of_data(draw: Callable[[RefinementData], Figure], refined: bool = True) -> Callable[[Any, SimpleNamespace], Figure]:
    """A plot of the run's data."""
    return lambda run, chosen: draw(_data(run, chosen, refined))


def _fsc(data: RefinementData) -> Figure:
    resolutions = [entry["resolution_0143"] for entry in data.history]
    return figures.fsc_by_iteration(data.curves, data.summary["box"], data.summary["pixel"], resolutions)


def _map(run: RefinementRun, chosen: SimpleNamespace) -> Figure:
    folder = run.maps(chosen.iteration)
    if chosen.map == HALVES:
        return half_maps(folder)
    if chosen.map == COURSE:
        last, pixel = read_maps(folder, "map")
        first, _ = read_maps(run.maps(0), "map")
        return figures.maps_compared(first[0], last[0], pixel, ("start", folder.name.lstrip("0") or "0"))
    return masked_map(folder, FILES[chosen.map][0])


def _image(run: RefinementRun, chosen: SimpleNamespace) -> Figure:
    data = _data(run, chosen, refined=False)
    return particles_in_image(data.end, ball_diameter(data.mask, data.summary["pixel"]))


def _weights(data: RefinementData) -> Figure:
    weights, bands = weights_by_band(data.tables, data.history[-1]["limit"])
    return figures.exposure_weights(data.end, weights, bands)


def _defocus(data: RefinementData) -> Figure:
    if np.abs(data.end.exposures["defocus"] - data.start.exposures["defocus"]).max(initial=0.0) > 1.0:
        return figures.defocus_change(data.start, data.end)
    return figures.defocus_by_tilt(data.end)


MAP_PLOTS = (
    Plot("showFsc", "Fourier shell correlation",
         "Of the half maps, corrected for the mask: the start in orange, the last iteration in bold. Dots: the resolution, at "
         "0.143; where the curve stays above, the map's pixel limits it, and a finer one shows more.",
         of_data(_fsc, False)),
    Plot("showCourse", "Resolution and moves by iteration",
         "How far particles turned and moved in each iteration, against how well they are known (dashed). Below a "
         "third of that, with a limit that stays, the refinement has converged.",
         of_data(lambda data: figures.progress(data.history))),
    Plot("showMap", "Sections and projections of the map",
         "Of the map that was chosen. Orange: where the mask is one half.",
         _map),
)
PARTICLE_PLOTS = (
    Plot("showDirections", "Directions of view",
         "Where the reference is seen from, over all projections. Cells have equal areas.",
         of_data(lambda data: figures.angular_distribution(orientations(data.end)), False)),
    Plot("showScores", "Scores of particles",
         "100 times the correlation of image and model, weighted by noise: the mean over a particle's projections.",
         of_data(lambda data: figures.score_histogram(data.end.particles["score"], data.threshold))),
    Plot("showMoves", "How far particles moved",
         "From the start to the end, modulo symmetry.",
         of_data(lambda data: figures.moves(*particle_moves(data.start, data.end, str(data.summary["symmetry"]))))),
    Plot("showDisplacements", "Where particles moved",
         "Seen along z, from the start to the end.",
         of_data(lambda data: figures.displacements(data.start, data.end))),
    Plot("showUncertainties", "How well they are known",
         "Standard deviations of every projection, from the joint solve. A common turn or shift of all is not in them.",
         of_data(lambda data: figures.uncertainties(*(np.concatenate([getattr(table, name).ravel() for table in data.tables])
                                                      for name in ("view_sigma", "place_sigma"))))),
    Plot("showImage", "Particles in a tilt image",
         "The least tilted image of the chosen series (of the first one, where all are chosen). Circles have the size "
         "of the mask, and should lie on particles.",
         _image),
)
TILT_PLOTS = (
    Plot("showTiltScores", "Score by tilt",
         "Mean over the particles; the shade holds the middle half of them. An image that sticks out is a bad one.",
         of_data(lambda data: figures.scores_by_tilt(data.end, [table.score for table in data.tables]))),
    Plot("showWeights", "Weights of tilt images",
         "Squared amplitude over noise, measured in the images, by range of resolution.",
         of_data(_weights)),
    Plot("showGeometry", "Change of tilt geometry",
         "End minus start. Shade: one standard deviation. It should be random from tilt to tilt.",
         of_data(lambda data: figures.geometry_change(data.start, data.end))),
    Plot("showShifts", "Shift vectors",
         "How each tilt image was shifted, end minus start.",
         of_data(lambda data: figures.shift_vectors(data.start, data.end))),
    Plot("showAmplitudes", "Amplitudes beyond the dose filter",
         "What the images show above (1, 0 Å²) or below what dose and tilt predict.",
         of_data(lambda data: figures.factors_by_dose(data.end, [table.factor for table in data.tables],
                                                      [table.b_factor for table in data.tables]))),
    Plot("showDefocus", "Defocus",
         "Hollow: before refinement. Where it was not refined: as it is; bars are the astigmatism.",
         of_data(_defocus, False)),
)
RUN_PLOTS = (
    Plot("showTime", "Where the time went",
         "Seconds of each stage, added over all processes.",
         of_data(lambda data: figures.time_by_iteration(data.seconds), False)),
)


class PypCsprRefineViewer(PypCsprViewer):
    """Figures of a refinement, as it stands."""

    _label = "refinement"
    _targets = [ProtPypCsprRefine]
    _plots = MAP_PLOTS + PARTICLE_PLOTS + TILT_PLOTS + RUN_PLOTS
    _choices = ("iteration", "map", "series", "chunk")

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Map")
        self._addReport(form)
        form.addParam("iteration", params.IntParam, default=-1, label="Iteration to look at (-1: the last one)",
                      help="0 is the reconstruction at the start. All figures of this window follow it.")
        self._addPlots(form, MAP_PLOTS[:2])
        form.addParam("map", params.EnumParam, choices=list(MAPS), default=MAP, label="Which map",
                      help="'start and end' compares the start with the iteration to look at.")
        self._addPlots(form, MAP_PLOTS[2:])
        self._addChimera(form)
        form.addSection(label="Particles")
        form.addParam("series", params.EnumParam, choices=self._seriesNames(), default=0, label="Tilt series to look at",
                      help="The figures of particles and of tilt images follow it.")
        self._addPlots(form, PARTICLE_PLOTS)
        form.addSection(label="Tilt images")
        self._addPlots(form, TILT_PLOTS)
        form.addSection(label="Run")
        self._addPlots(form, RUN_PLOTS)
        form.addParam("chunk", params.IntParam, default=0, label="Chunk, from 0", help="Of the iteration to look at.")
        form.addParam(LOG, params.LabelParam, label="Journal and log of this chunk",
                      help="The messages of its job, where it had one of its own, and what it measured.")

    def _seriesNames(self) -> List[str]:
        series = self.protocol.inputTiltSeries.get()
        return [ALL_SERIES] + ([] if series is None else [str(name) for name in series.getTSIds()])

    def _chosen(self) -> SimpleNamespace:
        chosen = super()._chosen()
        chosen.series = self._seriesNames()[chosen.series]
        return chosen

    def _title(self, label: str, chosen: SimpleNamespace) -> str:
        parts = [f"iteration {chosen.iteration}"] if chosen.iteration >= 0 else []
        parts += [] if chosen.series == ALL_SERIES else [chosen.series]
        if label == MAP_PLOTS[-1].label:
            parts.append(MAPS[chosen.map])
        return super()._title(label, chosen) + (f" ({', '.join(parts)})" if parts else "")

    def _run(self) -> RefinementRun:
        return RefinementRun(str(self._folder()), self.protocol.iterations.get())

    def _mapFiles(self, chosen: SimpleNamespace) -> List[Path]:
        names = [self._run().maps(chosen.iteration) / f"{name}.mrc" for name in FILES[chosen.map]]
        return [self._run().maps(0) / "map.mrc", *names] if chosen.map == COURSE else names

    def _getVisualizeDict(self) -> Dict[str, Callable[[Any], Any]]:
        return dict(super()._getVisualizeDict(), **{LOG: self._openLog})

    def _openLog(self, name: Optional[str] = None) -> List[Any]:
        from .window import TextWindow

        chosen, run = self._chosen(), self._run()
        iteration = chosen.iteration if chosen.iteration >= 0 else max(0, run.finished() - 1)
        logs = Path(self.getProject().getPath(self.protocol._getLogsPath())).absolute()
        title = f"{self.protocol.getRunName()}: chunk {chosen.chunk} of iteration {iteration}"
        TextWindow(self.getTkRoot(), title, lambda: chunk_text(run.store(iteration), chosen.chunk, logs, iteration))
        return []

    def _validate(self) -> List[str]:
        errors: List[str] = []
        if self.iteration.get() is None or self.iteration.get() < -1:
            errors.append("Iteration to look at: -1 for the last one, or 0 and above.")
        if self.chunk.get() is None or self.chunk.get() < 0:
            errors.append("Chunk: must be 0 or above.")
        return errors

