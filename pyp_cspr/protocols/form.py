"""The settings of refinement as rows of a form: one table, from which the form and the engine's settings are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

from pyworkflow.protocol import params

from ..engine.errors import InputError
from ..engine.model.settings import RefineSettings


@dataclass(frozen=True)
class Row:
    """A setting of the engine in the form."""

    setting: str
    label: str
    help: str
    expert: bool = False
    series: bool = False  # a value for each iteration may be given

    @property
    def name(self) -> str:
        """The parameter's name, as the host writes them."""
        first, *others = self.setting.split("_")
        return first + "".join(word.capitalize() for word in others)


WHAT: Tuple[Row, ...] = (
    Row("prior_rotation", "Rotations of particles: allowed change (degrees)",
        "Standard deviation of the change from the start of the iteration. 0 keeps the rotations. 30 is usual after sub-volume "
        "averaging; less where poses are known well."),
    Row("prior_position", "Positions of particles: allowed change (A)",
        "Standard deviation of each component. 0 keeps the positions. 20 is usual."),
    Row("prior_tilt_angle", "Tilt angles: allowed change (degrees)",
        "Standard deviation of each tilt image's angle. 0 keeps the angles. 1.5 is usual."),
    Row("prior_axis_angle", "Tilt axis: allowed change (degrees)",
        "Standard deviation of the direction of the axis in each tilt image. 0 keeps it. 1 is usual."),
    Row("prior_shift", "Shifts of tilt images: allowed change (A)",
        "Standard deviation of each component. 0 keeps the shifts. 100 is usual: the images tell them well."),
    Row("prior_defocus", "Defocus of tilt images: allowed change (A)",
        "0, the default, keeps the defocus. 750 is usual where the resolution is better than 10 A."),
    Row("prior_astigmatism", "Astigmatism: allowed change (A)", "0 keeps it. 300 is usual.", True),
    Row("prior_phase", "Phase of a phase plate: allowed change (degrees)", "0 keeps it. 20 is usual with a phase plate.", True),
    Row("prior_particle_defocus", "Defocus of particles: allowed change (A)",
        "0 keeps it. 300 is usual at high resolution. Scipion's sets cannot hold it: the refined stars of the run do.", True),
    Row("prior_deformation", "Deformation of the specimen: allowed change (A)",
        "Of each control value of a smooth field in each tilt image. 0: none. 20 is usual. Scipion's sets cannot hold it: the "
        "refined stars of the run do.", True),
    Row("deformation_grid", "Control values of the deformation, to a side", "2 to 5.", True),
    Row("prior_regional_defocus", "Defocus by region: allowed change (A)",
        "Of each control value of a smooth field in each tilt image. 0: none. 300 is usual. Scipion's sets cannot hold it: the "
        "refined stars of the run do.", True),
    Row("defocus_grid", "Control values of the defocus by region, to a side", "2 to 5.", True),
    Row("prior_magnification", "Magnification of tilt images: allowed change (percent)",
        "0, the default, keeps it. 1 is usual. Scipion's sets cannot hold it: the refined stars of the run do.", True),
    Row("prior_amplitude", "Signal of tilt images: allowed change (percent)",
        "About what is measured before each stage. 0, the default, keeps that. 30 is usual.", True),
    Row("prior_third_angle", "X-tilt of tilt images: allowed change (degrees)",
        "0, the default, keeps it. Scipion's tilt series cannot hold it: the refined stars of the run do.", True),
    Row("hard_tolerances", "Keep changes inside a box?",
        "Clip every change at the values above, as PYP's csp does; else they are soft limits.", True),
)
RESOLUTION: Tuple[Row, ...] = (
    Row("resolution", "Finest detail used (A), by iteration",
        "One value, or one for each iteration, as: 12 10 8. 0 takes the resolution of the half maps before (FSC 0.143).",
        series=True),
    Row("start_resolution", "Coarsest stage (A)",
        "Each refinement goes from here to the finest detail in stages. 60 is usual.", True),
    Row("same_reference", "Refine against the given reference in every iteration?",
        "Only for very few particles, whose own average is worse. The half maps are then not independent of each other.", True),
    Row("half_references", "A reference for each half-set?",
        "Yes keeps the half-sets independent (gold standard). No refines all particles against one map, as older programs do.",
        True),
    Row("huber", "Weigh down outliers beyond (standard deviations)",
        "Projections that differ more from the reference lose weight. 0: none. 4 is usual where particles are false.", True),
    Row("search_shift", "Search positions first, up to (A), by iteration",
        "0: no search. For poor starts, as 30 0.", True, True),
    Row("search_cone", "Search rotations first, in a cone of (degrees), by iteration",
        "0: no search; 180: all rotations. For poor starts, as 20 0.", True, True),
    Row("search_step", "Angular step of the search (degrees)", "0: from the search's resolution.", True),
    Row("search_resolution", "Finest detail of the search (A)", "25 is usual.", True),
)
RECONSTRUCTION: Tuple[Row, ...] = (
    Row("symmetry", "Symmetry", "C1, C3, D7, T, O, I1, I2 ...: the reference must be turned accordingly, as in RELION."),
    Row("exposure_weighting", "Weigh tilt images by (measured, score or dose)",
        "measured: the signal and noise that the refinement finds in each tilt image, besides the dose; score: their mean "
        "scores; dose: the dose alone."),
    Row("dose_weighting", "Weigh by dose?", "Grant and Grigorieff (2015), with the doses of the tilt images."),
    Row("mask_diameter", "Diameter of a circular mask on projections (A)",
        "0: none. Neighbours beyond it do not count.", True),
    Row("padding", "Padding factor", "Fourier oversampling of the reconstruction, 1 to 4. 1.5 is usual.", True),
    Row("seed", "Seed", "For everything random.", True),
)
NUMBERS = {bool: params.BooleanParam, int: params.IntParam, float: params.FloatParam, str: params.StringParam}
KINDS = {name: type(value) for name, value in RefineSettings().to_dict().items()}


def add_rows(form: Any, rows: Tuple[Row, ...], level: int = params.LEVEL_NORMAL) -> None:
    """Add settings to the current section of a form."""
    default = RefineSettings().to_dict()
    for row in rows:
        kind = params.NumericListParam if row.series else NUMBERS[KINDS[row.setting]]
        value = f"{default[row.setting]:g}" if row.series else default[row.setting]
        form.addParam(row.name, kind, default=value, label=row.label, help=row.help,
                      expertLevel=params.LEVEL_ADVANCED if row.expert else level)


def values_of(protocol: Any, rows: Tuple[Row, ...]) -> Dict[str, Any]:
    """The engine's settings by name, of a protocol's parameters. Raises InputError for what is no number."""
    values: Dict[str, Any] = {}
    for row in rows:
        value = getattr(protocol, row.name).get()
        if row.series:
            values[row.setting] = _numbers(str(value), row.label)
        else:
            values[row.setting] = KINDS[row.setting](value)
    return values


def _numbers(text: str, label: str) -> Any:
    """One number or a list; ``10x2 5`` repeats, as everywhere in the host."""
    numbers: List[float] = []
    try:
        for part in text.split():
            value, _, times = part.partition("x")
            numbers += [float(value)] * (int(times) if times else 1)
    except ValueError:
        raise InputError(f"{label}: {text!r} is not a list of numbers") from None
    if not numbers:
        raise InputError(f"{label}: give a number")
    return numbers[0] if len(numbers) == 1 else numbers
