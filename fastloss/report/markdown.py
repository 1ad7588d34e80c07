"""A result as Markdown, for a page or a comment of a review."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa

from fastloss.report.table import Section, cells_of, header, sections
from fastloss.report.view import Reported, View, shown


def write(result: Reported, view: View, *, as_file: bool) -> str:
    """Return what was read, and a table for the total and for each grouping."""
    content = shown(result, view)
    return laid_out(header(content), sections(content))


def laid_out(heading: str, sections: Iterable[Section]) -> str:
    """Return tables below the lines of a heading."""
    blocks = ["\n".join(f"- {_escaped(line)}" for line in heading.splitlines())]
    return "\n\n".join([*blocks, *map(_rendered, sections)])


def write_table(table: pa.Table) -> str:
    """Return a table of data."""
    names, *rows = cells_of(table)
    rules = ["---:" if kind in (pa.float64(), pa.int64()) else "---" for kind in table.schema.types]
    return "\n".join([_row([*map(_escaped, names)]), _row(rules), *(_row([*map(_escaped, row)]) for row in rows)])


def _rendered(section: Section) -> str:
    lines = [f"**{_escaped(section.title)}**", ""]
    if section.rows:
        rules = ["---" if side == "l" else "---:" for side in section.sides]
        lines += [_row([_escaped(cell) for cell in section.rows[0]]), _row(rules)]
        lines += [_row([_escaped(cell) for cell in row]) for row in section.rows[1:]]
        lines += [""] * bool(section.notes)
    return "\n".join([*lines, *map(_escaped, section.notes)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    # A bar would end the cell, and the others begin marks or HTML.
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", text)
