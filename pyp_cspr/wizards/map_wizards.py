"""Wizards that show the reference: mask, diameters, box, resolution, symmetry."""

from __future__ import annotations

from typing import Any, Optional, Tuple

import numpy as np
from numpy.typing import NDArray
from pyworkflow.viewer import DESKTOP_TKINTER
from pyworkflow.wizard import Wizard

from ..engine.core.filters import Mask, soft_mask
from ..engine.errors import CsprError
from ..engine.report import figures
from ..protocols import ProtPypCsprFilter, ProtPypCsprPostProcess, ProtPypCsprReconstruct, ProtPypCsprRefine
from ..protocols.adapters.volumes import resample
from . import compute


class PypCsprWizard(Wizard):
    """Says what is missing instead of failing."""

    _environments = [DESKTOP_TKINTER]

    def show(self, form: Any, *params: Any) -> None:
        """Open the dialog and put what was chosen into the form."""
        try:
            self.ask(form)
        except (CsprError, OSError) as reason:
            from pyworkflow.gui.dialog import showWarning

            text = str(reason)
            showWarning("Not possible yet", f"{text[:1].upper()}{text[1:]}.", form.root)

    def ask(self, form: Any) -> None:
        raise NotImplementedError

    @staticmethod
    def reference(form: Any) -> Tuple[NDArray[np.float32], float]:
        """(voxels, pixel) of the reference. Raises InputError where there is none."""
        return compute.read_cube(compute.find_reference(form.protocol))

    @staticmethod
    def number(form: Any, name: str, otherwise: float) -> float:
        """The value in the form, or another one where that is 0 or none."""
        value = getattr(form.protocol, name).get()
        return float(value) if value else otherwise


class PypCsprMaskDiameterWizard(PypCsprWizard):
    """The circular mask on projections, on the reference."""

    _targets = [(ProtPypCsprRefine, ["maskDiameter"]), (ProtPypCsprReconstruct, ["maskDiameter"])]

    def ask(self, form: Any) -> None:
        from .dialog import FigureDialog, Slider, lines

        volume, pixel = self.reference(form)
        small, coarse = compute.preview(volume, pixel)
        particle = compute.enclosing_diameter(soft_mask(small, coarse).values, coarse)
        extent = len(volume) * pixel
        start = self.number(form, "maskDiameter", round(min(1.2 * particle, extent)))

        def draw(values: Any) -> Any:
            return figures.map_views(small, coarse, compute.ball(len(small), 0.5 * values["diameter"] / coarse))

        def say(values: Any) -> str:
            return lines(f"The particle, with its soft edge, fits into {particle:.0f} A; the box is {extent:.0f} A.",
                         "This circle cuts the particle." if values["diameter"] < particle else
                         "The particle is inside. Neighbours beyond the circle do not count.")

        dialog = FigureDialog(form.root, "Circular mask on projections",
                              "Detail far from the particle is spread there by the CTF: leave some room.",
                              [Slider("diameter", "Diameter (A)", 0, round(extent), 1, start)], draw, say)
        if dialog.resultYes():
            form.setVar("maskDiameter", dialog.values["diameter"])


class PypCsprRadiusWizard(PypCsprWizard):
    """The particle's radius, on the reference."""

    _targets = [(ProtPypCsprRefine, ["particleRadius"])]

    def ask(self, form: Any) -> None:
        from .dialog import FigureDialog, Slider

        volume, pixel = self.reference(form)
        small, coarse = compute.preview(volume, pixel)
        particle = 0.5 * compute.enclosing_diameter(soft_mask(small, coarse).values, coarse)
        start = self.number(form, "particleRadius", round(particle))

        def draw(values: Any) -> Any:
            return figures.map_views(small, coarse, compute.ball(len(small), values["radius"] / coarse))

        def say(values: Any) -> str:
            return f"The particle, with its soft edge, fits into a radius of {particle:.0f} A."

        dialog = FigureDialog(form.root, "Particle's radius",
                              "The search takes angular steps that move this circle by less than the detail that it looks at.",
                              [Slider("radius", "Radius (A)", 0, round(0.5 * len(volume) * pixel), 1, start)], draw, say)
        if dialog.resultYes():
            form.setVar("particleRadius", dialog.values["radius"])


class PypCsprDistanceWizard(PypCsprWizard):
    """The least distance between particles, on the reference, and how many it removes."""

    _targets = [(ProtPypCsprFilter, ["distance"])]

    def ask(self, form: Any) -> None:
        from .dialog import FigureDialog, Slider, lines

        dataset = compute.read_input(form.protocol)
        volume, pixel = self.reference(form)
        small, coarse = compute.preview(volume, pixel)
        radius = 0.5 * compute.enclosing_diameter(soft_mask(small, coarse).values, coarse)
        total = len(dataset.particles)

        def draw(values: Any) -> Any:
            return figures.map_views(small, coarse, compute.ball(len(small), values["distance"] / coarse))

        def say(values: Any) -> str:
            removed = compute.removed_by_distance(dataset, values["distance"]) if values["distance"] > 0 else 0
            return lines(f"No centre of another particle inside the circle. The particle's radius is {radius:.0f} A.",
                         f"{removed} of {total} particles would be removed: those with a better one nearer.")

        high = round(max(0.5 * len(volume) * pixel, 2 * radius))
        dialog = FigureDialog(form.root, "Least distance between particles",
                              "Of two particles nearer than this, the one of the higher score stays.",
                              [Slider("distance", "Distance (A)", 0, high, 1, self.number(form, "distance", round(radius)))],
                              draw, say)
        if dialog.resultYes():
            form.setVar("distance", dialog.values["distance"])


class PypCsprMaskWizard(PypCsprWizard):
    """Which mask the reference gets, outlined."""

    _targets = [(ProtPypCsprRefine, ["maskSource"]), (ProtPypCsprPostProcess, ["maskSource"])]

    def ask(self, form: Any) -> None:
        from .dialog import Choice, FigureDialog, lines

        volume, pixel = self.reference(form)
        small, coarse = compute.preview(volume, pixel)
        made = soft_mask(small, coarse)
        given = form.protocol.inputMask.get()
        shown = [made.values, None, self._given(given, len(small), coarse)]

        def draw(values: Any) -> Any:
            return figures.map_views(small, coarse, shown[values["mask"]])

        def say(values: Any) -> str:
            if values["mask"] == 0:
                return self._about(made, coarse)
            if values["mask"] == 1:
                return "The whole box counts, noise and neighbours too. The FSC is then too low."
            return lines("The orange line is where the given mask is one half." if given is not None else
                         "Choose the mask in the row below this one afterwards.")

        options = [(0, "automatic, from the map"), (1, "none"), (2, "a given mask")]
        dialog = FigureDialog(form.root, "Mask of the reference", "Orange: where the mask is one half.",
                              [Choice("mask", "Mask", options, form.protocol.maskSource.get())], draw, say)
        if dialog.resultYes():
            form.setVar("maskSource", dialog.values["mask"])

    @staticmethod
    def _given(mask: Any, box: int, pixel: float) -> Optional[NDArray[np.float32]]:
        if mask is None:
            return None
        values, own = compute.read_cube(mask)
        return resample(values, own, box, pixel, mask=True)

    @staticmethod
    def _about(mask: Mask, pixel: float) -> str:
        text = (f"It holds {mask.volume / 1000:,.0f} nm³ ({100 * float(mask.values.mean()):.0f} % of the box) and fits into "
                f"{compute.enclosing_diameter(mask.values, pixel):.0f} A.")
        return text if mask.automatic else f"No particle stands out, so that it is a soft ball. {text}"


class PypCsprBoxWizard(PypCsprWizard):
    """Box and pixel of the map, on the reference as it will be resampled."""

    _targets = [(ProtPypCsprRefine, ["mapBox", "mapPixel"]), (ProtPypCsprReconstruct, ["mapBox", "mapPixel"])]

    def ask(self, form: Any) -> None:
        from .dialog import FigureDialog, Slider, lines

        volume, pixel = self.reference(form)
        small, coarse = compute.preview(volume, pixel)
        particle = compute.enclosing_diameter(soft_mask(small, coarse).values, coarse)
        series = form.protocol.inputTiltSeries.get()
        finest = pixel if series is None else float(series.getSamplingRate())
        start = max(self.number(form, "mapPixel", pixel), finest)
        box = int(self.number(form, "mapBox", compute.suggest_box(particle, start)))

        def whole(values: Any) -> int:
            return max(8, 2 * round(values["box"] / 2))

        def draw(values: Any) -> Any:
            extent = whole(values) * values["pixel"]
            shown = min(compute.PREVIEW, whole(values))
            view = resample(small, coarse, shown, extent / shown)
            return figures.map_views(view, extent / shown, compute.ball(shown, 0.5 * particle * shown / extent))

        def say(values: Any) -> str:
            extent, wanted = whole(values) * values["pixel"], compute.suggest_box(particle, values["pixel"])
            small_box = "That is too small: the CTF spreads the particle over its edge." if extent < 1.2 * particle else ""
            good = compute.good_box(whole(values))
            fast = "" if good == whole(values) else f"{good} would be faster."
            return lines(f"{whole(values)} voxels of {values['pixel']:g} A: {extent:.0f} A. The finest detail (Nyquist) is "
                         f"{2 * values['pixel']:.2f} A.",
                         f"The particle fits into {particle:.0f} A (orange), for which {wanted} voxels are usual.",
                         small_box, fast)

        label = f"Pixel (A); that of the tilt images is {finest:g}"
        sliders = [Slider("box", "Box (voxels, even)", 16, max(512, 2 * box), 2, box),
                   Slider("pixel", label, finest, max(4 * finest, 2 * start), 0.01, start)]
        dialog = FigureDialog(form.root, "Box and pixel of the map", "The reference as it will be resampled.", sliders,
                              draw, say)
        if dialog.resultYes():
            form.setVar("mapBox", whole(dialog.values))
            form.setVar("mapPixel", round(dialog.values["pixel"], 4))


class PypCsprResolutionWizard(PypCsprWizard):
    """The finest detail to refine with, from the FSC of the reference's half maps."""

    _targets = [(ProtPypCsprRefine, ["resolution", "searchResolution"]), (ProtPypCsprPostProcess, ["resolution"])]

    def ask(self, form: Any) -> None:
        from .dialog import FigureDialog, Slider, lines

        comparison, box, pixel = compute.compare_reference(compute.find_reference(form.protocol))
        target, final = form.wizParamName, isinstance(form.protocol, ProtPypCsprPostProcess)
        start = compute.suggest_limit(comparison, box, pixel)
        if target == "searchResolution":
            start = max(25.0, start)
        if final and np.isfinite(comparison.resolution_0143):
            start = comparison.resolution_0143

        def draw(values: Any) -> Any:
            return figures.fsc_curves(comparison.curves, box, pixel, comparison.resolution_0143, values["limit"])

        def say(values: Any) -> str:
            agreement = compute.agreement_at(comparison, box, pixel, values["limit"])
            return lines(f"The half maps correlate to {agreement:.2f} at {values['limit']:.1f} A.",
                         f"Their FSC falls to 0.5 at {_angstrom(comparison.resolution_05)} and to 0.143 at "
                         f"{_angstrom(comparison.resolution_0143)}.",
                         "A search needs only coarse detail: 25 A is usual." if target == "searchResolution" else
                         "0 in the form takes the resolution at 0.143." if final else
                         "0 in the form takes the resolution of the half maps before, in each iteration.")

        nyquist = 0.1 * np.ceil(20.0 * pixel - 1e-6)  # to the slider's step, and not finer than the map
        dialog = FigureDialog(form.root, "Finest detail used", "Beyond what the half maps agree on there is noise.",
                              [Slider("limit", "Resolution (A)", round(nyquist, 1), 60.0, 0.1,
                                      round(float(np.clip(start, nyquist, 60.0)), 1))],
                              draw, say)
        if dialog.resultYes():
            form.setVar(target, f"{dialog.values['limit']:g}")


def _angstrom(value: float) -> str:
    return f"{value:.1f} A" if np.isfinite(value) else "no resolution"


class PypCsprSymmetryWizard(PypCsprWizard):
    """Point groups, explained, with the reference's agreement and the reference symmetrised."""

    _targets = [(ProtPypCsprRefine, ["symmetry"]), (ProtPypCsprReconstruct, ["symmetry"])]

    def ask(self, form: Any) -> None:
        from .dialog import Choice, FigureDialog, lines

        volume, pixel = self.reference(form)
        small, coarse = compute.preview(volume, pixel, 48)
        given = str(form.protocol.symmetry.get()).strip().upper()
        groups = list(compute.GROUPS)
        try:
            compute.group_matrices(given)
            groups += [] if given in groups else [given]
        except ValueError:
            given = "C1"
        scores = compute.symmetry_scores(small, coarse, groups)
        best = compute.best_group(scores)

        def draw(values: Any) -> Any:
            return figures.map_views(compute.symmetrised(small, values["symmetry"]), coarse)

        def say(values: Any) -> str:
            score = scores[values["symmetry"]]
            verdict = ("The reference has it." if score >= 0.9 else "The reference does not have it: another group, or the "
                       "reference must be turned first, so that its axes lie where the group has them.")
            return lines(f"The reference agrees with itself turned to {score:.2f} at least (1: perfect). {verdict}"
                         if values["symmetry"] != "C1" else "Nothing is averaged.",
                         f"The highest symmetry that it has is {best}." if best != values["symmetry"] else "")

        options = [(group, f"{group}: {compute.describe_group(group)} ({scores[group]:.2f})") for group in groups]
        dialog = FigureDialog(form.root, "Symmetry", "The reference averaged over the chosen group; in brackets, how well it "
                              "agrees with itself turned. A wrong group blurs it.",
                              [Choice("symmetry", "Point group, axes as in RELION", options, given)], draw, say)
        if dialog.resultYes():
            form.setVar("symmetry", dialog.values["symmetry"])
