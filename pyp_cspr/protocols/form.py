"""The settings of refinement as rows of a form: one table, from which the form and the engine's settings are made."""

from __future__ import annotations

import re
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
    condition: str = ""  # for being shown, as the host writes them
    choices: Tuple[Tuple[str, str], ...] = ()  # the engine's words and the form's, of a setting that is one of them

    @property
    def name(self) -> str:
        """The parameter's name, as the host writes them."""
        first, *others = self.setting.split("_")
        return first + "".join(word.capitalize() for word in others)


WEIGHTINGS = (("measured", "measured signal and noise"), ("score", "mean score"), ("dose", "dose alone"))
BY_SCORE = "exposureWeighting==1"  # of these

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
    Row("deformation_grid", "Control values of the deformation, to a side", "2 to 5.", True, condition="priorDeformation"),
    Row("prior_regional_defocus", "Defocus by region: allowed change (A)",
        "Of each control value of a smooth field in each tilt image. 0: none. 300 is usual. Scipion's sets cannot hold it: the "
        "refined stars of the run do.", True),
    Row("defocus_grid", "Control values of the defocus by region, to a side", "2 to 5.", True,
        condition="priorRegionalDefocus"),
    Row("prior_magnification", "Magnification of tilt images: allowed change (percent)",
        "0, the default, keeps it. 1 is usual.", True),
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
    Row("particle_radius", "Particle's radius, for the search's step (A)",
        "A larger particle needs a finer angular step. 0: a quarter of the map's box.", True),
    Row("low_resolution", "Coarsest detail used (A)",
        "Coarser detail, as of ice thickness or a membrane, does not count. 0, the default: all counts. 100 to 300 where it "
        "misleads.", True),
)
RECONSTRUCTION: Tuple[Row, ...] = (
    Row("symmetry", "Symmetry", "C1, C3, D7, T, O, I1, I2 ...: the reference must be turned accordingly, as in RELION."),
    Row("exposure_weighting", "Weigh tilt images by",
        "The signal and noise that the refinement finds in each tilt image, besides the dose; or their mean scores; or the "
        "dose alone.", choices=WEIGHTINGS),
    Row("score_fraction", "Weights by score: fraction",
        "The larger, the less do tilt images of a lower score than the best count. 4 is usual.", True, condition=BY_SCORE),
    Row("score_transition", "Weights by score: transition",
        "The larger, the more fine detail is suppressed. 0.75 is usual.", True, condition=BY_SCORE),
    Row("dose_weighting", "Weigh by dose?", "Grant and Grigorieff (2015), with the doses of the tilt images."),
    Row("mask_diameter", "Diameter of a circular mask on projections (A)",
        "0: none. Neighbours beyond it do not count.", True),
    Row("map_resolution", "Finest detail of the map (A)",
        "Beyond it the map is empty, and the run is a little faster. 0, the default: all that its pixels hold.", True),
    Row("padding", "Padding factor", "Fourier oversampling of the reconstruction, 1 to 4. 1.5 is usual.", True),
    Row("seed", "Seed", "For everything random.", True),
)
# Which projections make the map; those left out of it are refined and scored all the same.
SELECTION: Tuple[Row, ...] = (
    Row("map_particles", "Particles of the map, best by score (1: all)",
        "Below 1 the fraction of the particles, above 1 their number; 0 takes those above an automatic threshold, where the "
        "scores fall into two groups. Scores are those of the iteration before; particles without one are kept."),
    Row("map_tilt_min", "Tilt angles of the map, from (degrees)",
        "Tilt images of a lower tilt angle do not make the map. -90 takes all."),
    Row("map_tilt_max", "Tilt angles of the map, to (degrees)",
        "Tilt images of a higher tilt angle do not make the map. 90 takes all."),
    Row("map_first", "Tilt images of the map, first (0: the one recorded first)",
        "In the order of acquisition, from 0, excluded ones counted too. 1 leaves out the first image, in which the specimen "
        "moves most.", True),
    Row("map_last", "Tilt images of the map, last (-1: all)",
        "In the order of acquisition, from 0. Images recorded later do not make the map, as 9 takes the first ten. Their dose "
        "is weighed anyway, so -1 is usual.", True),
    Row("map_score_min", "Score of particles in the map, from",
        "From 0 to 100, as in the report; up to 1 it is a fraction of the range of all scores: 0 takes all.", True),
    Row("map_score_max", "Score of particles in the map, to",
        "From 0 to 100, as in the report; up to 1 it is a fraction of the range of all scores: 1 takes all.", True),
    Row("map_weight_min", "Weight of particles in the map, from", "A particle's own weight is from 0 to 1. 0 takes all.", True),
    Row("map_defocus_min", "Defocus of projections in the map, from (A)",
        "At the particle, with its depth; 10000 A are 1 micrometre of underfocus. 0 takes all.", True),
    Row("map_defocus_max", "Defocus of projections in the map, to (A)", "100000 takes all.", True),
    Row("map_theta_min", "Angle of view of projections in the map, from (degrees)",
        "Between the beam and the z axis of the reference: 0 is a view along the axis of a cyclic symmetry, 90 one from the "
        "side. 0 takes all.", True),
    Row("map_theta_max", "Angle of view of projections in the map, to (degrees)", "180 takes all.", True),
    Row("score_b_factor", "Weigh particles by score: B factor for each unit of score (A^2)",
        "Particles that score more than the mean count more at fine detail. 0, the default: all count the same. 2 is usual.",
        True),
)
INFORMING: Tuple[Row, ...] = (
    Row("refinement_first", "Tilt images that refine particles, first (0: the one recorded first)",
        "In the order of acquisition, from 0, excluded ones counted too.", True),
    Row("refinement_last", "Tilt images that refine particles, last (-1: all)",
        "Particles are refined by the images up to this one, and those of more dose are fitted to them afterwards: where late "
        "images are damaged.", True),
    Row("refinement_projections", "Least projections of a particle to be refined (0: any)",
        "Particles that fewer tilt images show keep their poses.", True),
)
ROWS = WHAT + RESOLUTION + RECONSTRUCTION + SELECTION + INFORMING
LABELS = dict({row.setting: row.label for row in ROWS}, box="Box of the map", pixel="Pixel of the map")
NUMBERS = {bool: params.BooleanParam, int: params.IntParam, float: params.FloatParam, str: params.StringParam}
KINDS = {name: type(value) for name, value in RefineSettings().to_dict().items()}


def add_rows(form: Any, rows: Tuple[Row, ...], level: int = params.LEVEL_NORMAL) -> None:
    """Add settings to the current section of a form."""
    default = RefineSettings().to_dict()
    for row in rows:
        kind, value, more = NUMBERS[KINDS[row.setting]], default[row.setting], {}
        if row.series:
            kind, value = params.NumericListParam, f"{value:g}"
        elif row.choices:
            words = [word for word, _ in row.choices]
            kind, value, more = params.EnumParam, words.index(value), {"choices": [text for _, text in row.choices]}
        form.addParam(row.name, kind, default=value, label=row.label, help=row.help, condition=row.condition or None,
                      expertLevel=params.LEVEL_ADVANCED if row.expert else level, **more)


def values_of(protocol: Any, rows: Tuple[Row, ...]) -> Dict[str, Any]:
    """The engine's settings by name, of a protocol's parameters. Raises InputError for what is no number."""
    values: Dict[str, Any] = {}
    for row in rows:
        value = getattr(protocol, row.name).get()
        if value is None:
            raise InputError(f"{row.label}: give a value")
        if row.series:
            values[row.setting] = _numbers(str(value), row.label)
        elif row.choices:
            values[row.setting] = row.choices[value][0]
        else:
            values[row.setting] = KINDS[row.setting](value)
    return values


def labelled(text: str, labels: Dict[str, str]) -> str:
    """The engine's words about the settings of a form with its ``labels`` in place of their names.

    A name of one word is known where a message begins with it: "Form: box 33; ...".
    """
    text = text[len("Form: "):] if text.startswith("Form: ") else text
    return re.sub(r"^[a-z]+(?= )|\b[a-z]+(_[a-z]+)+\b",
                  lambda found: f"'{labels[found.group(0)]}'" if found.group(0) in labels else found.group(0), text)


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
