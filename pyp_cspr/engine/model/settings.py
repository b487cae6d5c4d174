"""Settings of each stage: frozen, checked, and read from and written to TOML by ``io/config.py``."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
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


def _checked(value: Any, field: Field, where: str) -> Any:
    """The value as the type of the field's default, or InputError."""
    kind = type(field.default)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (isinstance(value, float) and not isfinite(value)):
        raise InputError(f"{where}: {field.name} is {value!r}; it must be {_WORDS[kind]}")
    return value


@dataclass(frozen=True)
class ReconstructSettings(Settings):
    """What changes the map. ``box`` 0 and ``pixel`` 0.0 mean: as the data say."""

    box: int = 0  # pixels of the map
    pixel: float = 0.0  # angstrom; larger than the images': binned by Fourier cropping
    symmetry: str = "C1"
    padding: float = 1.5  # Fourier oversampling of the accumulators
    dose_weighting: bool = True  # Grant and Grigorieff 2015 with the doses of the exposures
    mask_diameter: float = 0.0  # angstrom; soft circle on the crops before the transform; 0: none
    seed: int = 1
    map_resolution: float = 0.0  # angstrom, finest detail of the map (reconstruct_rrec); 0: all that its pixels hold
    # Which projections make the map. Exposures count from 0 in the order of acquisition; -1: to the last.
    map_first: int = 0  # exposure (reconstruct_firstframe)
    map_last: int = -1  # exposure (reconstruct_lastframe)
    map_tilt_min: float = -90.0  # deg, tilt angle of the exposure (reconstruct_mintilt)
    map_tilt_max: float = 90.0  # deg (reconstruct_maxtilt)
    map_defocus_min: float = 0.0  # angstrom, mean defocus of the projection (reconstruct_mindef)
    map_defocus_max: float = 1e5  # angstrom (reconstruct_maxdef)
    map_theta_min: float = 0.0  # deg, between beam and the reference's z axis (reconstruct_minazh)
    map_theta_max: float = 180.0  # deg (reconstruct_maxazh)
    map_weight_min: float = 0.0  # weight of the particle (reconstruct_min_occ / 100)
    # By the scores of the iteration before; particles without one are kept. Up to 1: fractions of the range of all scores.
    map_score_min: float = 0.0  # (reconstruct_minscore)
    map_score_max: float = 1.0  # (reconstruct_maxscore)
    map_particles: float = 1.0  # the best: 0 automatic, below 1 a fraction, 1 all, above 1 how many (reconstruct_cutoff)
    score_b_factor: float = 0.0  # A^2: particles weigh by exp(score_b_factor / 4 (score - mean) k^2); 0: all the same

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

    resolution: float = 0.0  # angstrom, finest detail used (PYP's rhref); 0: from the FSC
    start_resolution: float = 60.0  # angstrom, of the coarsest stage
    same_reference: bool = False  # against the given map in every iteration (refine_same_ref): for very few particles
    half_references: bool = True  # each half-set against its own map; False: one common map (PYP's way)
    prior_rotation: float = 30.0  # deg, particles (csp_ToleranceParticlesPhi, Psi, Theta)
    prior_position: float = 20.0  # angstrom, particles (csp_ToleranceParticlesShifts)
    prior_tilt_angle: float = 1.5  # deg, exposures (csp_ToleranceMicrographTiltAngles)
    prior_axis_angle: float = 1.0  # deg (csp_ToleranceMicrographTiltAxisAngles)
    prior_third_angle: float = 0.0  # deg
    prior_shift: float = 100.0  # angstrom (csp_ToleranceMicrographShifts)
    prior_deformation: float = 0.0  # angstrom, of each control value of the exposures' deformation fields; usual: 20
    deformation_grid: int = 2  # control values to a side, 2 to 5: the smooth form of PYP's regions (csp_Grid)
    prior_magnification: float = 0.0  # percent, exposures; usual: 1
    prior_defocus: float = 0.0  # angstrom, exposures (csp_ToleranceMicrographDefocus1, Defocus2); usual: 750
    prior_astigmatism: float = 0.0  # angstrom, exposures, of its two components; usual: 300
    prior_phase: float = 0.0  # deg, exposures with a phase plate; usual: 20
    prior_amplitude: float = 0.0  # percent, exposures, about what is measured before each stage; usual: 30
    prior_particle_defocus: float = 0.0  # angstrom, particles; usual: 300
    prior_regional_defocus: float = 0.0  # angstrom, of each control value of the exposures' defocus fields; usual: 300
    defocus_grid: int = 2  # control values to a side, 2 to 5: PYP's CTF by region
    hard_tolerances: bool = False  # keep every parameter in PYP's box about its start as well
    huber: float = 0.0  # projections that differ by more standard deviations than this lose weight; 0: none; usual: 4
    # Exposures weigh by their measured amplitude and noise; by their mean scores over the data set, PYP's way, from iteration
    # 2 on; or by the dose filter alone.
    exposure_weighting: str = "measured"  # measured, score or dose
    search_shift: float = 0.0  # angstrom: particles' translations searched by correlation first; 0: no search
    search_cone: float = 0.0  # deg: rotations searched in this cone about the start; 180: all; 0: no search
    search_step: float = 0.0  # deg; 0: from the search's resolution
    search_resolution: float = 25.0  # angstrom
    particle_radius: float = 0.0  # angstrom, for the search's step; 0: a quarter of the box (particle_rad)
    low_resolution: float = 0.0  # angstrom, coarsest detail used (refine_rlref); 0: no limit
    # Exposures, in the order of acquisition from 0, by which particles are refined. The others are fitted to the particles
    # after that. (csp_UseImagesForRefinementMin, Max)
    refinement_first: int = 0
    refinement_last: int = -1  # -1: all
    refinement_projections: int = 0  # particles with fewer usable projections stay (csp_RefineProjectionCutoff)
    score_fraction: float = 4.0  # of exposure_weighting "score" (reconstruct_dose_weighting_fraction)
    score_transition: float = 0.75  # likewise (reconstruct_dose_weighting_transition)

    def check(self, where: str = "settings") -> None:
        super().check(where)
        for name, value in self.to_dict().items():
            if name.startswith(("prior_", "search_")) and value < 0:
                raise InputError(f"{where}: {name} {value:g}; it must be 0 or above")
        if self.resolution < 0 or self.start_resolution <= 0:
            raise InputError(f"{where}: resolution {self.resolution:g} and start_resolution {self.start_resolution:g} A; "
                             "they must be above 0 (resolution 0: automatic)")
        for name in ("particle_radius", "low_resolution", "refinement_projections", "score_fraction", "score_transition"):
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
