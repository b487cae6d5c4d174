"""Constrained single-particle refinement (CSPR) of cryo-electron tomography: a plugin of Scipion with its own engine.

``pyp_cspr.engine`` and the command ``cspr`` work without Scipion: ``Plugin`` is loaded on first use, by the host.
"""

from typing import Any

__version__ = "0.1.0"

_logo = "icon.png"
_references = ["Bartesaghi2018", "Liu2023"]


def __getattr__(name: str) -> Any:
    if name == "Plugin":
        from .plugin import Plugin

        return Plugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
