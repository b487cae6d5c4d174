"""What the host reads when it is imported: variables, and files in a folder."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Dict

from pyp_cspr.workflow import HOSTS

ROOT = Path(__file__).resolve().parents[3]


def host_variables(folder: Path) -> Dict[str, str]:
    """For a host whose settings, projects and list of machines are in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.conf").write_text(HOSTS)
    return dict(SCIPION_HOME=str(folder), SCIPION_USER_DATA=str(folder / "data"), SCIPION_HOSTS=str(folder / "hosts.conf"),
                SCIPION_DOMAIN="pwem", SCIPION_NOTIFY="False", SCIPION_TEST_NOSYNC="True", SCIPION_PYTHON=sys.executable,
                SCIPION_PRIORITY_PACKAGE_LIST="pwem tomo", NO_COLOR="1")


def plugin_path(folder: Path) -> str:
    """A PYTHONPATH on which programs of the host find the plugin even where this is only a checkout, and quick_host.py."""
    metadata = folder / "metadata" / "scipion_em_pyp_cspr-0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: scipion-em-pyp-cspr\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("[pyworkflow.plugin]\npyp_cspr = pyp_cspr\nquick_host = quick_host\n")
    (metadata.parent / "quick_host").mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name("quick_host.py"), metadata.parent / "quick_host" / "__init__.py")
    return os.pathsep.join([str(ROOT), str(metadata.parent)])
