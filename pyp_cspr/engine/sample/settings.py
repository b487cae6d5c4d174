"""The settings of a sample data set."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..model.settings import Settings
from .model import HEXON


@dataclass(frozen=True)
class SampleSettings(Settings):
    """What is simulated and what is written. The defaults are the sample data set of the documentation."""

    series: int = 2
    particles: int = 100  # in each series
    tilts: int = 41
    box: int = 64  # pixels, of the reference
    pixel: float = 4.0  # angstrom, of the images and the reference
    dose: float = 3.0  # e/A^2 of each tilt image
    seed: int = 1
    structure: str = HEXON  # or the path of a model or a map
    symmetry: str = "C1"  # Cn turns a given model's axis to z
    noise: str = "poisson"  # or "none": the expected image, float32
    damage: bool = True  # radiation damage
    contrast: float = 1.0  # multiplies the particles' potential
    tilt_range: float = 60.0  # degrees, to both sides
    axis: float = 85.3  # degrees, zrot of all tilts
    xtilt: float = 0.0  # degrees, of the specimen about x
    shift: float = 15.0  # angstrom, rms of each component of the tilts' shifts
    magnification: float = 0.0  # percent, rms of the tilt images' magnification about the pixel size's
    defocus_low: float = 20000.0  # angstrom; each series has a defocus from low to high
    defocus_high: float = 35000.0
    astigmatism: float = 400.0  # angstrom, largest df_u - df_v of a series
    voltage: float = 300.0
    cs: float = 2.7
    amplitude_contrast: float = 0.07
    hand: int = -1
    thickness: float = 1000.0  # angstrom, of the ice
    mean_free_path: float = 3000.0  # angstrom, inelastic, in ice
    image_size: int = 0  # pixels; 0: as the particles need
    min_distance: float = 0.0  # angstrom between particles; 0: 1.05 times the particle's diameter
    no_overlap: bool = False  # in no tilt image does a neighbour reach into a particle's box
    pose_error: float = 0.0  # rms of each rotation component, degrees
    position_error: float = 0.0  # rms of each component, angstrom
    tilt_error: float = 0.0  # rms, degrees
    axis_error: float = 0.0  # rms, degrees
    shift_error: float = 0.0  # rms of each component, angstrom
    defocus_error: float = 0.0  # rms, angstrom
    magnification_error: float = 0.0  # rms, percent

    def check(self, where: str = "settings") -> None:
        for name in ("series", "particles", "tilts"):
            if getattr(self, name) < 1:
                raise InputError(f"{where}: {name} {getattr(self, name)}; it must be at least 1")
        for name in ("pixel", "dose", "voltage", "thickness", "mean_free_path", "contrast"):
            if not getattr(self, name) > 0:
                raise InputError(f"{where}: {name} {getattr(self, name):g}; it must be above 0")
        for name in ("shift", "magnification", "astigmatism", "min_distance", "pose_error", "position_error", "tilt_error",
                     "axis_error", "shift_error", "defocus_error", "magnification_error", "seed", "image_size"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{where}: {name} {getattr(self, name):g}; it must not be negative")
        if self.box < 16 or self.box % 2:
            raise InputError(f"{where}: box {self.box}; it must be even and at least 16")
        if self.noise not in ("poisson", "none"):
            raise InputError(f"{where}: noise {self.noise!r}; it must be poisson or none")
        if not 0 <= self.tilt_range <= 80:
            raise InputError(f"{where}: tilt range {self.tilt_range:g}; it must be from 0 to 80 degrees")
        if self.defocus_high < self.defocus_low:
            raise InputError(f"{where}: defocus from {self.defocus_low:g} to {self.defocus_high:g} A; give the lower one first")
        if not 0 <= self.amplitude_contrast < 1:
            raise InputError(f"{where}: amplitude contrast {self.amplitude_contrast:g}; it must be from 0 to below 1")
        if self.hand not in (-1, 1):
            raise InputError(f"{where}: hand {self.hand}; it must be 1 or -1")
