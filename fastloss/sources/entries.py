"""The entries of a log that is named by paths: what the user wrote, as a list of texts."""

from __future__ import annotations

import os
from typing import Any

from fastloss.errors import UsageError


def names_files(log: object) -> bool:
    """Tell whether a log is a path, or a list or tuple that holds anything but batches."""
    if isinstance(log, (list, tuple)):
        return not log or not all(map(speaks_arrow, log))
    return isinstance(log, (str, os.PathLike))


def entries_of(log: object) -> list[str] | None:
    """Return the paths, globs, folders and URLs of a log, or None for one that is here as rows.

    Raises
    ------
    UsageError
        If a list is empty, or holds something else beside paths.
    """
    if not names_files(log):
        return None
    listed: Any = log if isinstance(log, (list, tuple)) else [log]
    if not listed:
        raise UsageError("the list of logs is empty; name at least one file, folder or glob.")
    return [_path(entry) for entry in listed]


def speaks_arrow(log: object) -> bool:
    """Tell whether an object hands over rows by Arrow's C interface."""
    return hasattr(log, "__arrow_c_stream__") or hasattr(log, "__arrow_c_array__")


def _path(entry: object) -> str:
    text = os.fspath(entry) if isinstance(entry, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise UsageError(
            f"a list of logs may hold paths only, or record batches only, and holds a {type(entry).__name__}."
        )
    if not text:
        raise UsageError("a path is empty; name a file, a folder or a glob.")
    return text
