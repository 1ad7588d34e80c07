"""Frames of other libraries, narrowed to the columns that are read.

To hand over a frame, its library converts every column to Arrow. That takes time, and it stops at a column of mixed
types, whether anybody reads it or not. A library is known by its module's name, so that none is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Frame(NamedTuple):
    """A frame's columns, and how to take some of them.

    Attributes
    ----------
    names : list of str
        All columns.
    select : callable
        From a list of some of the names to a frame of these. Given none, the frame holds whatever is cheap.
    """

    names: list[str]
    select: Callable[[list[str]], object]


def as_frame(log: Any) -> Frame | None:
    """Return a frame of a library that is known here; None for any other object."""
    library = type(log).__module__.partition(".")[0]
    kind = type(log).__name__
    select: Callable[[list[str]], object]
    if library == "pandas" and kind == "DataFrame":
        select = log.__getitem__
    elif library == "polars" and kind == "DataFrame":
        # A list is taken name by name; a name alone, such as "^a.*$", would be a pattern.
        select = log.__getitem__
    elif library in ("duckdb", "_duckdb") and kind == "DuckDBPyRelation":

        def select(names: list[str]) -> object:
            return log.project(", ".join(_quoted(names or log.columns[:1], '"')))

    elif library == "pyspark" and kind == "DataFrame":

        def select(names: list[str]) -> object:
            return log.select(*_quoted(names, "`"))

    else:
        return None
    names = list(log.columns)
    return Frame(names, select) if all(isinstance(name, str) for name in names) else None


def columns_holding(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return those of a frame's columns that hold a wanted column: itself, or a struct that has it as a field."""
    known = set(names)
    return [
        name
        for name in names
        if any(name == column or (column not in known and column.startswith(f"{name}.")) for column in wanted)
    ]


def _quoted(names: Sequence[str], quote: str) -> list[str]:
    return [f"{quote}{name.replace(quote, 2 * quote)}{quote}" for name in names]
