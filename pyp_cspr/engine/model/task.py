"""What a chunk is told and what it leaves: both are JSON, versioned, and named by a hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Tuple

from ..errors import CsprError

TASK_VERSION = 4
_TUPLES = ("series", "references", "reference_fsc", "common_weight")


def content_hash(values: Any) -> str:
    """Hex digest of anything that is JSON: the same for the same content, whatever the order of keys."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class MapGrid:
    """The grid that all chunks of a run share, and how far in Fourier space it is filled."""

    box: int  # pixels of the map
    pixel: float  # angstrom
    padded: int  # pixels of the accumulators' transform
    radius: int  # Fourier pixels of the unpadded box

    @property
    def field(self) -> float:
        """Side of the box in angstrom."""
        return self.box * self.pixel

    @property
    def padding(self) -> float:
        return self.padded / self.box


@dataclass(frozen=True)
class ChunkTask:
    """One chunk: some whole series, the settings, and the rows file (exact tables) beside the task file."""

    index: int
    series: Tuple[str, ...]
    n_projections: int
    grid: MapGrid
    settings: Dict[str, Any]
    rows_hash: str  # content of the rows file
    refine: bool = False  # settings are RefineSettings, and the series are refined before they are inserted
    resolution: float = 0.0  # angstrom: the finest detail that refinement uses
    references: Tuple[str, ...] = ()  # hashes of reference1.mrc (and reference2.mrc) beside the run's plan
    reference_fsc: Tuple[float, ...] = ()  # signal over power of references made of these data, by shell of the map
    scores: Dict[str, float] = field(default_factory=dict)  # of the whole data set before the task: least, most, mean
    common_weight: Tuple[float, ...] = ()  # of the whole data set, see core.weighting.common_weight
    version: int = TASK_VERSION

    @property
    def hash(self) -> str:
        return content_hash(self.to_dict())

    def to_dict(self) -> Dict[str, Any]:
        values = asdict(self)
        for name in _TUPLES:
            values[name] = list(values[name])
        return values

    @classmethod
    def from_dict(cls, values: Dict[str, Any], where: str) -> ChunkTask:
        """Raises CsprError where the file is not a task of this version."""
        version = values.get("version") if isinstance(values, dict) else None
        if version != TASK_VERSION:
            raise CsprError(f"{where}: task version {version}, this program reads {TASK_VERSION}; plan the run again")
        try:
            values = dict(values, grid=MapGrid(**values["grid"]))
            values.update((name, tuple(values.get(name, ()))) for name in _TUPLES)
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise CsprError(f"{where}: not a task file ({error}); plan the run again") from None


@dataclass
class Manifest:
    """Written last, so its presence means that a chunk is whole."""

    task_hash: str
    files: Dict[str, int]  # name -> bytes
    journal: Dict[str, Any] = field(default_factory=dict)
    version: int = TASK_VERSION

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass
class ChunkJournal:
    """What a chunk counted and measured; the merge adds the journals up."""

    n_projections: int = 0  # inserted
    n_outside: int = 0  # skipped: too much of the crop lies outside the image
    bytes_read: int = 0
    seconds: Dict[str, float] = field(default_factory=dict)  # per stage
    exposures: List[Dict[str, Any]] = field(default_factory=list)
    peak_memory_bytes: int = 0

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)
