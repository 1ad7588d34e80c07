"""The errors a user can meet; each message is one line: what was found, what is allowed, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FastlossError(Exception):
    """Base of every error that fastloss raises on purpose; the command line prints it and exits with status 2."""


class UsageError(FastlossError):
    """The request cannot be carried out as asked: an unknown name, an option outside its range."""


class SchemaError(FastlossError):
    """The log's columns are not what the request said they are."""


class DataError(FastlossError):
    """A row holds a value that the request does not allow."""


class ReadError(FastlossError):
    """A file cannot be read, or delivers other rows than it promises."""


class StoreError(FastlossError):
    """A store or a server gives no answer in time, or refuses access; this says nothing of the file."""


class TemporaryFileError(FastlossError):
    """Temporary files cannot be written: there is no room for them, or no folder."""


class WorkerError(FastlossError):
    """A worker process ended before it had returned its result."""


def nearest_names(name: str, known: Iterable[str]) -> str:
    """Return a hint with the nearest known names, or with all of them when none is near.

    Parameters
    ----------
    name : str
        The name that was not found.
    known : iterable of str
        The names that exist.

    Returns
    -------
    str
        A sentence that begins with "Did you mean" or "Known:".
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return "Did you mean " + " or ".join(repr(n) for n in near) + "?"
    shown = ", ".join(repr(n) for n in names[:12]) + (", …" if len(names) > 12 else "")
    return f"Known: {shown}." if names else "There are none."
