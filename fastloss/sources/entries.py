"""The entries of a log that is named by paths, and which logs are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from fastloss.errors import FastlossError
from fastloss.sources.stores.options import shown_url


class Entry(str):
    """A path, glob, folder or URL; one that stands in a list knows where.

    Attributes
    ----------
    list_path : str or None
        The list.
    line : int
        The line, from 1.
    """

    __slots__ = ("line", "list_path")

    list_path: str | None
    line: int

    def __new__(cls, text: str, list_path: str | None = None, line: int = 0) -> Entry:
        """Make an entry; one that the user named has no list."""
        entry = super().__new__(cls, text)
        entry.list_path, entry.line = list_path, line
        return entry


def names_files(log: object) -> bool:
    """Tell whether a log is a path, or a list or tuple that holds anything but batches."""
    if isinstance(log, (list, tuple)):
        return not log or not all(map(speaks_arrow, log))
    return isinstance(log, (str, os.PathLike))


@contextlib.contextmanager
def naming_line(entry: str) -> Iterator[None]:
    """Put the list and the line before an error about an entry that stands in a list."""
    try:
        yield
    except FastlossError as error:
        if not isinstance(entry, Entry) or entry.list_path is None:
            raise
        raise type(error)(f"line {entry.line} of the list {shown_url(entry.list_path)!r}: {error}") from error


def speaks_arrow(log: object) -> bool:
    """Tell whether an object hands over rows by Arrow's C interface."""
    return hasattr(log, "__arrow_c_stream__") or hasattr(log, "__arrow_c_array__")
