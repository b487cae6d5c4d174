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

    def check(self, where: str = "settings") -> None:
        if self.box and (self.box < 16 or self.box % 2):
            raise InputError(f"{where}: box {self.box}; it must be even and at least 16")
        if self.pixel < 0:
            raise InputError(f"{where}: pixel {self.pixel:g} A; it must be above 0")
        if not 1.0 <= self.padding <= 4.0:
            raise InputError(f"{where}: padding {self.padding:g}; it must be from 1 to 4")
        try:
            group_matrices(self.symmetry)
        except ValueError as error:
            raise InputError(f"{where}: symmetry {self.symmetry!r}: {error}") from None
