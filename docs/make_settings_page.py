"""Write docs/settings.md, the table of all settings, from their declarations: ``python docs/make_settings_page.py``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Dict, List

from pyp_cspr.engine.model.pyp_keys import all_keys
from pyp_cspr.engine.model.settings import ReconstructSettings, RefineSettings, default_text

PAGE = Path(__file__).resolve().parent / "settings.md"
BEFORE = """# Settings

<!-- by make_settings_page.py -->

`cspr refine` takes each of these as `--set NAME=VALUE`, or from a TOML file given with `--settings`; `cspr reconstruct`
and `cspr plan` take those of the map from such a file. In a refinement a value may be a list with one for each iteration,
the last of which repeats: `--set resolution=20:12:8`, or `resolution = [20, 12, 8]` in the file. Some have an option of
their own (`--help`), which stands above both.

An `exposure` is a tilt image's number in the order of acquisition, from 0. The last column names the keys of
[PYP](pyp.md) that set the same.
"""
PRIORS = """A prior is the standard deviation of what you believe the error to be; 0 keeps what it is of.
"""


def page() -> str:
    """The whole page."""
    of_map = [field.name for field in fields(ReconstructSettings)]
    of_refinement = [field.name for field in fields(RefineSettings) if field.name not in of_map]
    return "\n".join([BEFORE, "## The map\n", *_table(of_map), "", "## Refinement\n", PRIORS, *_table(of_refinement), ""])


def _table(names: List[str]) -> List[str]:
    keys = _keys()
    settings = {field.name: field for field in fields(RefineSettings)}
    rows = [f"| `{name}` | `{default_text(settings[name])}` | {settings[name].metadata['unit']} | "
            f"{settings[name].metadata['text']} | {', '.join(f'`{key}`' for key in keys.get(name, ()))} |" for name in names]
    return ["| setting | default | unit | meaning | PYP |", "| --- | --- | --- | --- | --- |", *rows]


def _keys() -> Dict[str, List[str]]:
    """PYP's keys of each setting."""
    found: Dict[str, List[str]] = {}
    for key in all_keys().values():
        for name in key.sets.split():
            found.setdefault(name, []).append(key.name)
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
