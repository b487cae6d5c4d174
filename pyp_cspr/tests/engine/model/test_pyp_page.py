"""docs/pyp.md shows PYP's keys, and docs/settings.md the settings, as they are declared."""

from __future__ import annotations

import importlib.util
from dataclasses import fields
from pathlib import Path

import pytest

import pyp_cspr
from pyp_cspr.engine.model.pyp_keys import all_keys
from pyp_cspr.engine.model.settings import RefineSettings

DOCS = Path(pyp_cspr.__file__).parent.parent / "docs"


def script(name: str):
    path = DOCS / f"{name}.py"
    if not path.exists():
        pytest.skip("not a checkout: no docs")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def maker():
    return script("make_pyp_page")


def test_the_page_is_current(maker) -> None:
    """Run ``python docs/make_pyp_page.py`` where it is not."""
    text = (DOCS / "pyp.md").read_text(encoding="utf-8")
    assert maker.page(text) == text
    assert text.count(maker.BEGIN) == text.count(maker.END) == 1


def test_every_key_is_on_the_page(maker) -> None:
    text = maker.tables()
    for name, key in all_keys().items():
        assert text.count(f"**`{name}`**") == 1, name
        for old in key.old:
            assert f"`{old}`" in text
    assert maker.page(f"before\n{maker.BEGIN}old\n{maker.END}after\n") == f"before\n{maker.BEGIN}\n{text}\n{maker.END}after\n"


def test_the_page_of_settings_is_current() -> None:
    """Run ``python docs/make_settings_page.py`` where it is not."""
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert script("make_settings_page").page() == text
    for setting in fields(RefineSettings):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{setting.name}` |"))
        assert [cell.strip() for cell in row.split("|")[3:5]] == [setting.metadata["unit"], setting.metadata["text"]]
        assert setting.metadata["text"]
