"""The engine: from raw tilt images and poses to half maps. It knows nothing of Scipion.

The names below are the public interface; each is loaded on first use, so that importing the engine costs nothing.
Read ``engine/conventions.py`` first.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, List

from .. import __version__

_HOME = {
    "CsprError": "errors",
    "InputError": "errors",
    "Dataset": "model.tables",
    "ReconstructSettings": "model.settings",
    "RefineSettings": "model.settings",
    "reconstruct": "pipeline.reconstruct",
    "refine": "pipeline.iterate",
    "read_dataset": "io.relion",
    "write_dataset": "io.relion",
    "read_map": "io.mrc",
    "write_map": "io.mrc",
    "make_band": "core.band",
    "Reference": "core.projection",
    "Accumulator": "core.insertion",
    "fsc": "core.fsc",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> List[str]:
    return sorted([*globals(), *_HOME])
