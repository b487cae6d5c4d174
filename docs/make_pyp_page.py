"""Write the table of PYP's keys into docs/pyp.md, from their declarations: ``python docs/make_pyp_page.py``."""

from __future__ import annotations

from pathlib import Path

from pyp_cspr.engine.model.pyp_keys import Key, key_groups

PAGE = Path(__file__).resolve().parent / "pyp.md"
BEGIN, END = "<!-- keys, by make_pyp_page.py -->\n", "<!-- end of keys -->\n"


def tables() -> str:
    """The keys with an effect, group by group, and then those without."""
    parts = []
    for title, keys in key_groups().items():
        used = [key for key in keys if key.sets]
        if used:
            rows = [f"| {_name(key)} | {_cell(key.unit)} | {_default(key)} | {_cell(key.meaning)} | {_sets(key)} |"
                    for key in used]
            parts.append("\n".join([f"### {title}", "", "| key | unit | PYP's default | effect here | sets |",
                                    "| --- | --- | --- | --- | --- |", *rows]))
    parts.append("### Known, without effect here\n\nGiven with another value than PYP's default, each is named in a warning.")
    for title, keys in key_groups().items():
        ignored = [key for key in keys if key.ignored]
        if ignored:
            rows = [f"| {_name(key)} | {_default(key)} | {_cell(key.meaning)} | {_cell(key.ignored)} |" for key in ignored]
            parts.append("\n".join([f"#### {title}", "", "| key | PYP's default | in PYP | why it has no effect |",
                                    "| --- | --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def page(text: str) -> str:
    """The page with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def _name(key: Key) -> str:
    old = f"<br>{', '.join(f'`{name}`' for name in key.old)}" if key.old else ""
    return f"**`{key.name}`**{old}"


def _default(key: Key) -> str:
    return f"`{key.write(key.default)}`" if key.default != "" else ""


def _sets(key: Key) -> str:
    return ", ".join(f"`{name}`" for name in key.sets.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
