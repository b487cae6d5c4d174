"""The report page: one file, no links, nothing unescaped."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.report import figures
from pyp_cspr.engine.report.html import report_page, write_report

SUMMARY = {"Resolution": "8.60 Å", "Particles": 12345, "B": -113.84, "None": None, "Yes": True, "<b>": "a & b"}


def make_sections():
    curve = np.linspace(1, 0, 17)
    volume = np.random.default_rng(0).normal(size=(16, 16, 16))
    return [
        ("Curves & <more>", "First.\n\nSecond <script>alert(1)</script>.",
         figures.fsc_curves({"corrected": curve}, 32, 2.0, 8.0)),
        ("Map", "", figures.map_views(volume, 2.0)),
        ("Words", "only", None),
    ]


@pytest.fixture
def sections():
    return make_sections()


class Checker(HTMLParser):
    """Balance of tags, and what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.ids, self.references = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "img", "path", "use", "image", "rect", "circle", "stop", "link"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "xlink:href", "src"):
                self.references.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open[-1] == tag
            self.open.pop()


def test_the_page_is_whole_and_stands_alone(sections):
    page = report_page("Run <1>", SUMMARY, sections, lead="lead & all", footer="foot")
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    for reference in checker.references:
        assert reference.startswith(("#", "data:image/png;base64,"))
        if reference.startswith("#"):
            assert reference[1:] in checker.ids
    for used in re.findall(r"url\(#([^)]*)\)", page):
        assert used in checker.ids
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|<metadata>.*?</metadata>|rdf:\w+="[^"]*"', "", page, flags=re.S)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<title>Run &lt;1&gt;</title>" in page
    assert "12,345" in page
    assert "-113.8" in page
    assert "a &amp; b" in page
    assert page.count("<section") == 3
    assert page.count("<svg") == 2


def test_ink_follows_the_page(sections):
    page = report_page("x", {}, sections)
    assert figures.INK not in page.split("</style>", 1)[1]
    assert "var(--ink)" in page.split("</style>", 1)[1]
    assert "prefers-color-scheme: dark" in page


def test_the_same_content_gives_the_same_bytes():
    assert report_page("x", SUMMARY, make_sections()) == report_page("x", SUMMARY, make_sections())


def test_files_are_written_whole(sections, tmp_path):
    path = tmp_path / "new" / "report.html"
    written = write_report(path, "x", SUMMARY, sections, png_folder=tmp_path / "png")
    names = sorted(os.listdir(tmp_path / "png"))
    assert names == ["01_curves____more.png", "02_map.png"]
    assert all((tmp_path / "png" / name).read_bytes().startswith(b"\x89PNG") for name in names)
    assert written == path.stat().st_size + sum((tmp_path / "png" / name).stat().st_size for name in names)
    assert os.listdir(path.parent) == ["report.html"]
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(blocked / "report.html", "x", {}, [])
