"""Wizards that look at particles and tilt series: score, number of projections, weights of exposures."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine.errors import InputError
from ..engine.pipeline.filter import automatic_threshold, usable_projections
from ..engine.report import figures
from ..protocols import ProtPypCsprFilter, ProtPypCsprReconstruct, ProtPypCsprRefine
from ..protocols import form as rows
from ..protocols.protocol_filter import GIVEN
from . import compute
from .map_wizards import PypCsprWizard

WEIGHTINGS = (("measured", "measured: the signal and noise found in each image"),
              ("score", "score: the mean score of each image"), ("dose", "dose: the dose alone"))
MEANING = {"measured": "Each tilt image gets the weight that its own signal and noise have in each shell, besides the dose. "
                       "The best where there are particles enough to measure them.",
           "score": "Each tilt image gets one weight, by its mean score, besides the dose. As older programs do.",
           "dose": "All that counts is how much dose there was before (Grant and Grigorieff 2015). For few particles, whose "
                   "signal cannot be measured."}


class PypCsprScoreWizard(PypCsprWizard):
    """The score threshold, on the histogram."""

    _targets = [(ProtPypCsprFilter, ["score", "byScore"])]

    def ask(self, form: Any) -> None:
        from .dialog import FigureDialog, Slider, lines

        particles = form.protocol.inputParticles.get()
        if particles is None:
            raise InputError("choose the sub-tomograms first")
        scores = compute.scores_of(particles)
        finite = scores[np.isfinite(scores)]
        if not len(finite):
            raise InputError("the particles have no scores: they come with 'refine tilt series'")
        automatic, _, reason = automatic_threshold(finite)
        low, high = compute.score_limits(finite)
        start = self.number(form, "score", low if automatic is None else automatic)

        def draw(values: Any) -> Any:
            return figures.score_histogram(finite, values["score"])

        def say(values: Any) -> str:
            below = int((finite < values["score"]).sum())
            unknown = len(scores) - len(finite)
            return lines(f"{below} of {len(finite)} particles ({100 * below / len(finite):.0f} %) score less and are removed.",
                         f"{unknown} without a score are removed as well." if unknown else "",
                         f"Automatic: {'none' if automatic is None else f'{automatic:.2f}'}. {reason[:1].upper()}{reason[1:]}.")

        value = float(np.clip(start, low, high))
        dialog = FigureDialog(form.root, "Lowest score to keep",
                              "100 times the correlation of image and model: the mean over a particle's projections.",
                              [Slider("score", "Score", low, high, 0.05, round(value, 2))], draw, say)
        if dialog.resultYes():
            form.setVar("byScore", GIVEN)
            form.setVar("score", round(dialog.values["score"], 3))


class PypCsprProjectionsWizard(PypCsprWizard):
    """The least number of projections, on the histogram, with the tilt range of the series."""

    _targets = [(ProtPypCsprFilter, ["minProjections"])]

    def ask(self, form: Any) -> None:
        from .dialog import FigureDialog, Slider, lines

        dataset = compute.read_input(form.protocol)
        counts = usable_projections(dataset)
        low, high, images = compute.tilt_range(dataset)
        most = int(counts.max())

        def draw(values: Any) -> Any:
            figure = figures.score_histogram(counts, values["count"])
            figure.axes[0].set_xlabel("projections of a particle")
            return figure

        def say(values: Any) -> str:
            below = int((counts < values["count"]).sum())
            return lines(f"{below} of {len(counts)} particles have fewer and are removed.",
                         f"{images} tilt images of {len(dataset.series)} series count, from {low:.1f} to {high:.1f} degrees; "
                         f"a particle has {int(counts.min())} to {most} projections inside them.")

        start = int(self.number(form, "minProjections", max(1, most // 2)))
        dialog = FigureDialog(form.root, "Least number of projections",
                              "Particles near the border are missing in tilted images.",
                              [Slider("count", "Projections", 0, most, 1, min(start, most))], draw, say)
        if dialog.resultYes():
            form.setVar("minProjections", int(dialog.values["count"]))


class PypCsprTiltRangeWizard(PypCsprWizard):
    """Which tilt angles make the map, on the tilt scheme."""

    _targets = [(ProtPypCsprRefine, ["mapTiltMin", "mapTiltMax"]), (ProtPypCsprReconstruct, ["mapTiltMin", "mapTiltMax"])]

    def ask(self, form: Any) -> None:
        from .dialog import FigureDialog, Slider, lines

        dataset = compute.read_input(form.protocol)
        first, last, images = compute.tilt_range(dataset)
        # whole degrees, so that the ends take all images
        ends = float(np.floor(first)), float(np.ceil(last))
        given = float(form.protocol.mapTiltMin.get()), float(form.protocol.mapTiltMax.get())

        def draw(values: Any) -> Any:
            return figures.tilt_scheme(dataset, (values["low"], values["high"]))

        def say(values: Any) -> str:
            if values["low"] > values["high"]:
                raise InputError("The lowest angle is above the highest: nothing would be left.")
            kept, dose = compute.share_between(dataset, values["low"], values["high"])
            return lines(f"{kept} of {images} tilt images of {len(dataset.series)} series make the map, with "
                         f"{100 * dose:.0f} % of the dose.", "The others only have no part in the map.")

        sliders = [Slider("low", "From (degrees)", *ends, 1.0, float(np.clip(given[0], *ends))),
                   Slider("high", "To (degrees)", *ends, 1.0, float(np.clip(given[1], *ends)))]
        dialog = FigureDialog(form.root, "Tilt angles of the map", "Shaded: left out of the map. All are usual, as each is "
                              "weighed by its dose and, in a refinement, by its measured signal.", sliders, draw, say)
        if dialog.resultYes():
            for name, value, end, everything in (("mapTiltMin", dialog.values["low"], ends[0], -90.0),
                                                 ("mapTiltMax", dialog.values["high"], ends[1], 90.0)):
                form.setVar(name, everything if value == end else value)


class PypCsprWeightingWizard(PypCsprWizard):
    """How tilt images are weighted, with the tilt scheme."""

    _targets = [(ProtPypCsprRefine, ["exposureWeighting"])]

    def ask(self, form: Any) -> None:
        from .dialog import Choice, FigureDialog, lines

        dataset = compute.read_input(form.protocol)
        low, high, images = compute.tilt_range(dataset)
        words = [word for word, _ in rows.WEIGHTINGS]

        def draw(values: Any) -> Any:
            return figures.tilt_scheme(dataset)

        def say(values: Any) -> str:
            dose = dataset.exposures["dose_before"] + dataset.exposures["dose"]
            return lines(MEANING[values["weighting"]],
                         f"{images} tilt images of {len(dataset.series)} series count, from {low:.1f} to {high:.1f} degrees, "
                         f"up to {float(dose.max()):.0f} e/A² in all.")

        value = words[form.protocol.exposureWeighting.get() or 0]
        dialog = FigureDialog(form.root, "Weights of tilt images", "High tilts and high doses tell less about fine detail.",
                              [Choice("weighting", "Weigh by", WEIGHTINGS, value)], draw, say)
        if dialog.resultYes():
            form.setVar("exposureWeighting", words.index(dialog.values["weighting"]))
