"""Settings of each stage: frozen, checked, and read from and written to TOML by ``io/config.py``."""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from math import isfinite
from typing import Any, Dict, Type, TypeVar

from ..core.symmetry import group_matrices
from ..errors import InputError

S = TypeVar("S", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """Base of all settings: makes itself from a dictionary and refuses what it does not know."""

    @classmethod
    def from_dict(cls: Type[S], values: Dict[str, Any], where: str = "settings") -> S:
        known = {f.name for f in fields(cls)}
        for name in values:
            if name not in known:
                raise InputError(f"{where}: unknown setting {name!r}; known: {', '.join(sorted(known))}")
        settings = cls(**{f.name: _checked(values[f.name], f, where) for f in fields(cls) if f.name in values})
        settings.check(where)
        return settings

    def to_dict(self) -> Dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def check(self, where: str = "settings") -> None:
        """Raise InputError for a value that cannot be."""


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _checked(value: Any, setting: Field, where: str) -> Any:
    """The value as the type of the field's default, or InputError."""
    kind = type(setting.default)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (isinstance(value, float) and not isfinite(value)):
        raise InputError(f"{where}: {setting.name} is {value!r}; it must be {_WORDS[kind]}")
    return value


def _setting(default: Any, unit: str, text: str) -> Any:
    """A field with the unit and the meaning that --help and docs/settings.md show."""
    return field(default=default, metadata={"unit": unit, "text": text})


def default_text(setting: Field) -> str:
    """A setting's default as ``--set`` takes it."""
    value = setting.default
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class ReconstructSettings(Settings):
    """What changes the map."""

    box: int = _setting(0, "pixel", "box of the map; 0: as the data say")
    pixel: float = _setting(0.0, "A", "pixel of the map, the images' or larger: binned by Fourier cropping; 0: as the data say")
    symmetry: str = _setting("C1", "", "point group: C1, C3, D7, T, O, I1, I2 ...")
    padding: float = _setting(1.5, "", "Fourier oversampling of the accumulators, 1 to 4")
    dose_weighting: bool = _setting(True, "", "weigh by dose, Grant and Grigorieff 2015, with the doses of the exposures")
    mask_diameter: float = _setting(0.0, "A", "soft circle on the crops before the transform; 0: none")
    seed: int = _setting(1, "", "for everything random")
    map_resolution: float = _setting(0.0, "A", "finest detail of the map; 0: all that its pixels hold")
    # Which projections make the map.
    map_first: int = _setting(0, "exposure", "first exposure of the map, from 0 in the order of acquisition")
    map_last: int = _setting(-1, "exposure", "last exposure of the map; -1: to the end")
    map_tilt_min: float = _setting(-90.0, "deg", "least tilt angle of the map's exposures")
    map_tilt_max: float = _setting(90.0, "deg", "largest such tilt angle")
    map_defocus_min: float = _setting(0.0, "A", "least mean defocus of the map's projections")
    map_defocus_max: float = _setting(1e5, "A", "largest such defocus")
    map_theta_min: float = _setting(0.0, "deg", "least angle between beam and reference's z axis, of the map's projections")
    map_theta_max: float = _setting(180.0, "deg", "largest such angle")
    map_weight_min: float = _setting(0.0, "", "least weight of the map's particles, 0 to 1")
    map_score_min: float = _setting(
        0.0, "", "least score of the map's particles, in the iteration before; up to 1: fraction of the range of all scores")
    map_score_max: float = _setting(1.0, "", "largest such score, likewise; particles without a score are kept")
    map_particles: float = _setting(
        1.0, "", "the map's particles, best by score: 0 automatic, below 1 a fraction, 1 all, above 1 how many")
    score_b_factor: float = _setting(
        0.0, "A^2", "particles weigh by exp(score_b_factor / 4 (score - mean) k^2); 0: all the same")

    def check(self, where: str = "settings") -> None:
        if self.box and (self.box < 16 or self.box % 2):
            raise InputError(f"{where}: box {self.box}; it must be even and at least 16")
        if self.pixel < 0:
            raise InputError(f"{where}: pixel {self.pixel:g} A; it must be above 0")
        if not 1.0 <= self.padding <= 4.0:
            raise InputError(f"{where}: padding {self.padding:g}; it must be from 1 to 4")
        for name in ("mask_diameter", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{where}: {name} {getattr(self, name):g}; it must be 0 or above")
        self._check_selection(where)
        try:
            group_matrices(self.symmetry)
        except ValueError as error:
            raise InputError(f"{where}: symmetry {self.symmetry!r}: {error}") from None

    def _check_selection(self, where: str) -> None:
        for name in ("map_resolution", "map_score_min", "map_score_max", "map_particles", "map_weight_min", "score_b_factor"):
            if getattr(self, name) < 0:
                raise InputError(f"{where}: {name} {getattr(self, name):g}; it must be 0 or above")
        for name in ("map_tilt", "map_defocus", "map_theta"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low > high:
                raise InputError(f"{where}: {name}_min {low:g} is above {name}_max {high:g}; nothing would be left")
        _check_exposures(self.map_first, self.map_last, "map", where)


def _check_exposures(first: int, last: int, name: str, where: str) -> None:
    if first < 0 or last < -1 or (last >= 0 and first > last):
        raise InputError(f"{where}: {name}_first {first} and {name}_last {last}; the first must be 0 or above, the last "
                         "-1 (all) or not before the first")


@dataclass(frozen=True)
class RefineSettings(ReconstructSettings):
    """One iteration of refinement. In a settings file any value may be a list: one for each iteration, the last repeats.

    Standard deviations of the priors, from the parameters that the iteration starts with: a prior of 0 keeps a group fixed.
    """

    resolution: float = _setting(0.0, "A", "finest detail used; 0: from the FSC of the iteration before")
    start_resolution: float = _setting(60.0, "A", "finest detail of the first, coarsest stage")
    same_reference: bool = _setting(False, "", "against the given map in every iteration: for very few particles")
    half_references: bool = _setting(True, "", "each half-set against its own map; false: one common map, PYP's way")
    prior_rotation: float = _setting(30.0, "deg", "prior of the particles' rotations")
    prior_position: float = _setting(20.0, "A", "prior of the particles' positions")
    prior_tilt_angle: float = _setting(1.5, "deg", "prior of the exposures' tilt angles")
    prior_axis_angle: float = _setting(1.0, "deg", "prior of the exposures' tilt axes, in the image's plane")
    prior_third_angle: float = _setting(0.0, "deg", "prior of the exposures' x-tilts")
    prior_shift: float = _setting(100.0, "A", "prior of the exposures' shifts")
    prior_deformation: float = _setting(0.0, "A", "prior of each control value of a field of shifts over each image; usual: 20")
    deformation_grid: int = _setting(2, "", "control values to a side of this field, 2 to 5: the smooth form of PYP's regions")
    prior_magnification: float = _setting(0.0, "%", "prior of the exposures' magnification; usual: 1")
    prior_defocus: float = _setting(0.0, "A", "prior of the exposures' defocus; usual: 750")
    prior_astigmatism: float = _setting(0.0, "A", "prior of the two components of the exposures' astigmatism; usual: 300")
    prior_phase: float = _setting(0.0, "deg", "prior of the phase shift, of exposures with a phase plate; usual: 20")
    prior_amplitude: float = _setting(
        0.0, "%", "prior of the exposures' amplitude, about what is measured before each stage; usual: 30")
    prior_particle_defocus: float = _setting(0.0, "A", "prior of a defocus of the particles' own; usual: 300")
    prior_regional_defocus: float = _setting(
        0.0, "A", "prior of each control value of a field of defocus over each image; usual: 300")
    defocus_grid: int = _setting(2, "", "control values to a side of this field, 2 to 5: PYP's CTF by region")
    hard_tolerances: bool = _setting(False, "", "no parameter goes farther from its start than its prior's value, as in PYP")
    huber: float = _setting(
        0.0, "", "projections that differ by more standard deviations than this lose weight; 0: none; usual: 4")
    exposure_weighting: str = _setting(
        "measured", "", "exposures weigh by measured amplitude and noise; score: by mean scores; dose: by dose alone")
    search_shift: float = _setting(
        0.0, "A", "shifts searched as far by correlation first, of exposures and then of particles; 0: no search")
    search_cone: float = _setting(0.0, "deg", "rotations searched in this cone about the start; 180: all; 0: no search")
    search_step: float = _setting(0.0, "deg", "step of this search; 0: from its resolution")
    search_resolution: float = _setting(25.0, "A", "finest detail of the searches")
    particle_radius: float = _setting(0.0, "A", "radius of the particle, for the search's step; 0: a quarter of the box")
    low_resolution: float = _setting(0.0, "A", "coarsest detail used; 0: no limit")
    refinement_first: int = _setting(
        0, "exposure", "first exposure by which particles are refined; the others are fitted afterwards")
    refinement_last: int = _setting(-1, "exposure", "last such exposure; -1: to the end")
    refinement_projections: int = _setting(0, "", "particles with fewer usable projections stay")
    score_fraction: float = _setting(4.0, "", "f of exposure_weighting score: exp(-t (1 - score^f)^4 exp(7.62 k))")
    score_transition: float = _setting(0.75, "", "t of this weight")

    def check(self, where: str = "settings") -> None:
        super().check(where)
        for name, value in self.to_dict().items():
            if name.startswith(("prior_", "search_")) and value < 0:
                raise InputError(f"{where}: {name} {value:g}; it must be 0 or above")
        if self.search_cone > 0 and self.prior_rotation == 0:
            raise InputError(f"{where}: search_cone {self.search_cone:g} with prior_rotation 0, which keeps rotations; "
                             "change one")
        if self.search_shift > 0 and self.prior_position == self.prior_shift == 0:
            raise InputError(f"{where}: search_shift {self.search_shift:g} with prior_position 0 and prior_shift 0, which keep "
                             "what it would move; change one")
        if self.resolution < 0 or self.start_resolution <= 0:
            raise InputError(f"{where}: resolution {self.resolution:g} and start_resolution {self.start_resolution:g} A; "
                             "they must be above 0 (resolution 0: automatic)")
        if self.search_cone > 180:
            raise InputError(f"{where}: search_cone {self.search_cone:g}; it must be 180 (all rotations) at most")
        for name in ("huber", "particle_radius", "low_resolution", "refinement_projections", "score_fraction",
                     "score_transition"):
            if getattr(self, name) < 0:
                raise InputError(f"{where}: {name} {getattr(self, name):g}; it must be 0 or above")
        _check_exposures(self.refinement_first, self.refinement_last, "refinement", where)
        if self.exposure_weighting not in ("measured", "score", "dose"):
            raise InputError(f"{where}: exposure_weighting {self.exposure_weighting!r}; it must be measured, score or dose")
        for name in ("deformation_grid", "defocus_grid"):
            if not 2 <= getattr(self, name) <= 5:
                raise InputError(f"{where}: {name} {getattr(self, name)}; it must be from 2 to 5")

    def reconstruction(self) -> ReconstructSettings:
        """The part that reconstruction knows."""
        return ReconstructSettings(**{f.name: getattr(self, f.name) for f in fields(ReconstructSettings)})


def of_iteration(values: Dict[str, Any], iteration: int, where: str = "settings") -> RefineSettings:
    """Settings of one iteration (from 1) out of values that may be lists. Raises InputError for what cannot be."""
    chosen = {}
    for name, value in values.items():
        if isinstance(value, (list, tuple)):
            if not value:
                raise InputError(f"{where}: {name} is an empty list; give a value for each iteration")
            value = value[min(iteration, len(value)) - 1]
        chosen[name] = value
    return RefineSettings.from_dict(chosen, where)
