"""One self-contained HTML page: a summary, then sections of text and figures. Works offline, in light and in dark.

Figures are inline SVG whose text and axes take the page's colour; photographs inside them are embedded PNG.
"""

from __future__ import annotations

import html
import io
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple, Union

from matplotlib import rc_context
from matplotlib.figure import Figure

from ..io.config import write_whole
from .style import FAINT, INK, WIDTH


class PageTable(NamedTuple):
    """A table of the page: heads of its columns, and rows of texts."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


# Heading, text (plain; empty lines part paragraphs), and a figure, a table or nothing. Figures wider than usual and tables of
# many columns take the whole width.
Section = Tuple[str, str, Union[Figure, PageTable, None]]
Chapter = Tuple[str, Sequence[Section]]

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --panel: #f5f7f9; --ink: #25313c; --soft: #5b6874; --line: #dfe4e9;
  --accent: #2f7ebc; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14181c; --panel: #1c2228; --ink: #dde4ea; --soft: #97a3ae; --line: #2e363e; --accent: #63a9de; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 36px 24px 56px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 0 0 4px; }
p { margin: 0 0 10px; color: var(--soft); max-width: 75ch; overflow-wrap: anywhere; }
.lead { margin-bottom: 22px; }
dl { display: flex; flex-wrap: wrap; gap: 1px; margin: 0 0 30px; background: var(--line); border: 1px solid var(--line);
  border-radius: 8px; overflow: hidden; }
dl div { background: var(--panel); padding: 11px 14px; flex: 1 1 165px; }
dt { font-size: 12px; color: var(--soft); }
dd { margin: 1px 0 0; font-size: 17px; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h3 { font-size: 19px; margin: 34px 0 12px; letter-spacing: -0.01em; }
nav { display: flex; flex-wrap: wrap; gap: 6px 18px; margin: 0 0 8px; font-size: 14px; }
nav a { color: var(--accent); text-decoration: none; }
nav a:hover { text-decoration: underline; }
.state { display: inline-block; padding: 3px 12px; border-radius: 8px; font-size: 13.5px; max-width: none;
  background: var(--panel); border: 1px solid var(--line); color: var(--ink); margin: 0 0 14px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; margin: 8px 0 6px; }
th, td { text-align: right; padding: 5px 8px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; white-space: normal; vertical-align: bottom; }
tr:last-child td { border-bottom: 0; font-weight: 600; }
.scroll { overflow-x: auto; }
.wide { column-span: all; }
.sections { columns: 2 440px; column-gap: 20px; }
section { border: 1px solid var(--line); border-radius: 8px; padding: 16px 18px 12px; margin: 0 0 20px; break-inside: avoid; }
section svg { display: block; width: 100%; height: auto; margin-top: 6px; }
section p { font-size: 13.5px; margin-bottom: 6px; }
footer { margin-top: 28px; font-size: 12.5px; color: var(--soft); }
@media print { main { padding: 0; } }
""".strip()


def figure_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element in the page's colours; ``name`` keeps its ids apart from other figures' of the page."""
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": name, "savefig.facecolor": "none"}):
        figure.savefig(buffer, format="svg", dpi=144, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for before in ('id="', 'href="#', "url(#"):  # ids must be unique in the page
        text = text.replace(before, f"{before}{name}-")
    return text.replace(INK, "var(--ink)").replace(FAINT, "var(--soft)")


def figure_png(figure: Figure, dpi: int = 144, background: str = "white") -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=background)
    return buffer.getvalue()


def report_page(
    title: str,
    summary: Dict[str, Any],
    sections: Sequence[Section],
    lead: str = "",
    footer: str = "",
    chapters: Sequence[Chapter] = (),
    state: str = "",
    refresh: int = 0,
) -> str:
    """The page as text; see ``write_report``."""
    facts = "".join(
        f"<div><dt>{html.escape(str(name))}</dt><dd>{html.escape(_value(value))}</dd></div>" for name, value in summary.items()
    )
    number = 0
    parts: List[str] = []
    links = "".join(f'<a href="#chapter{index}">{html.escape(name)}</a>' for index, (name, _) in enumerate(chapters))
    for index, (name, members) in enumerate([("", sections), *chapters]):
        if name:
            parts.append(f'<h3 id="chapter{index - 1}">{html.escape(name)}</h3>')
        drawn = []
        for section in members:
            drawn.append(_section(section, f"figure{number}"))
            number += 1
        if drawn:
            parts.append(f'<div class="sections">{"".join(drawn)}</div>')
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="refresh" content="{refresh}">' if refresh else "",
        f"<title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style></head><body><main>",
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="lead">{html.escape(lead)}</p>' if lead else "",
        f'<p class="state">{html.escape(state)}</p>' if state else "",
        f"<dl>{facts}</dl>" if facts else "",
        f"<nav>{links}</nav>" if links else "",
        *parts,
        f"<footer>{html.escape(footer)}</footer>" if footer else "",
        "</main></body></html>",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _section(section: Section, name: str) -> str:
    heading, text, content = section
    paragraphs = "".join(f"<p>{html.escape(part.strip())}</p>" for part in text.split("\n\n") if part.strip())
    wide, drawing = False, ""
    if isinstance(content, PageTable):
        wide, drawing = len(content.heads) > 5, _table(content)
    elif content is not None:
        wide, drawing = content.get_figwidth() > 1.5 * WIDTH, figure_svg(content, name)
    kind = ' class="wide"' if wide else ""
    label = html.escape(heading, quote=True)
    return f'<section{kind} aria-label="{label}"><h2>{html.escape(heading)}</h2>{paragraphs}{drawing}</section>'


def _table(table: PageTable) -> str:
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in table.heads)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def write_report(
    path: Union[str, os.PathLike],
    title: str,
    summary: Dict[str, Any],
    sections: Sequence[Section],
    lead: str = "",
    footer: str = "",
    png_folder: Union[str, os.PathLike, None] = None,
    chapters: Sequence[Chapter] = (),
    state: str = "",
    refresh: int = 0,
) -> int:
    """Write the page; returns the bytes written. With ``png_folder`` the figures are written there as PNG as well.

    ``summary`` are facts by name, shown large; ``sections`` come first, then the named ``chapters`` with theirs. ``state``
    says how far the run is; with ``refresh`` the page loads itself again every so many seconds. The file appears whole or not
    at all. Raises InputError where it cannot be written.
    """
    page = report_page(title, summary, sections, lead, footer, chapters, state, refresh)
    written = write_whole(path, page.encode())
    if png_folder is not None:
        everything = list(sections) + [section for _, members in chapters for section in members]
        for number, (heading, _, content) in enumerate(everything):
            if isinstance(content, Figure):
                word = "".join(c if c.isalnum() else "_" for c in heading.lower()).strip("_")
                written += write_whole(Path(png_folder) / f"{number + 1:02d}_{word}.png", figure_png(content))
    return written
