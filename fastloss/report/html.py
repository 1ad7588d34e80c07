"""A result as HTML, as a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from fastloss.report.table import Section, header, sections


def render_html(content: Mapping[str, Any]) -> str:
    """Return `Result.shown` as a fragment of HTML."""
    lines = "<br>".join(escape(line) for line in header(content).splitlines())
    return "\n".join([f"<p>{lines}</p>", *map(_rendered, sections(content))])


def _rendered(section: Section) -> str:
    rows = []
    for number, row in enumerate(section.rows):
        cell = "td" if number else "th"
        sides = ("left" if side == "l" else "right" for side in section.sides)
        cells = (
            f'<{cell} style="text-align: {side}">{escape(text)}</{cell}>'
            for side, text in zip(sides, row, strict=True)
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    table = f"<table><caption>{escape(section.title)}</caption>\n" + "\n".join(rows) + "\n</table>"
    return "\n".join([table, *(f"<p>{escape(note)}</p>" for note in section.notes)])
