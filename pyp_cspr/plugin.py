"""How Scipion sees this package. Nothing is installed beside it: the engine is pure Python."""

from __future__ import annotations

import os
from typing import Any, List

import pwem
from pyworkflow.utils import Environ


class Plugin(pwem.Plugin):
    # The host looks up the plugin's folder as sys.modules[Plugin.__module__].__path__, so this must be the package.
    __module__ = "pyp_cspr"

    _homeVar = ""
    _pathVars: List[str] = []
    _supportedVersions: List[str] = []
    _url = "https://nextpyp.app"
    _processingField = ["Tomography"]

    @classmethod
    def _defineVariables(cls) -> None:
        """No variables: there is no external program to be found."""

    @classmethod
    def getEnviron(cls) -> Environ:
        """The host's environment, unchanged."""
        return Environ(os.environ)

    @classmethod
    def defineBinaries(cls, env: Any) -> None:
        """No binaries: pip installs everything."""
