"""Lists of files: what the user wrote, and what stands in the lists that it names.

``@files.txt`` is a list: a path, glob, folder or URL on each line, relative to the list's own folder. Blank lines and
lines that begin with ``#`` say nothing. A file whose own name begins with ``@`` is named ``./@…``.
"""

from __future__ import annotations

import glob
import os
import re
from typing import Any

from fastloss.errors import UsageError
from fastloss.sources.entries import Entry, names_files, naming_line
from fastloss.sources.listing import open_entry
from fastloss.sources.stores.options import shown_url
from fastloss.sources.stores.store import Stores


def entries_of(log: object, stores: Stores | None = None) -> list[Entry] | None:
    """Return the paths, globs, folders and URLs of a log, lists expanded, or None for one that is here as rows.

    Parameters
    ----------
    log : object
        As in `fastloss.sources.open_source`.
    stores : Stores, optional
        How stores are reached, where a list lies in one.

    Raises
    ------
    UsageError
        If there is none, something else stands beside paths, or a list cannot be read.
    """
    if not names_files(log):
        return None
    listed: Any = log if isinstance(log, (list, tuple)) else [log]
    if not listed:
        raise UsageError("the list of logs is empty; name at least one file, folder or glob.")
    return [entry for given in listed for entry in _expand(_path(given), stores)]


def _path(entry: object) -> str:
    text = os.fspath(entry) if isinstance(entry, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise UsageError(
            f"a list of logs may hold paths only, or record batches only, and holds a {type(entry).__name__}."
        )
    if not text:
        raise UsageError("a path is empty; name a file, a folder or a glob.")
    return text


def _expand(text: str, stores: Stores | None) -> list[Entry]:
    if not text.startswith("@"):
        return [Entry(text)]
    path = text[1:]
    if not path:
        raise UsageError("'@' names no list; write '@' and the path of a file that holds a path on each line.")
    lines = enumerate(_read(path, stores).splitlines(), 1)
    entries = [_line(path, number, line.strip()) for number, line in lines if not re.match(r"\s*(#|$)", line)]
    if not entries:
        raise UsageError(
            f"the list {shown_url(path)!r} names no file; write a path, glob, folder or URL on each line."
        )
    return entries


def _read(path: str, stores: Stores | None) -> str:
    try:
        if "://" in path:
            return open_entry(path, stores).decode("utf-8-sig")
        with open(os.path.expanduser(path), encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the list {shown_url(path)!r} is not UTF-8 text ({error.reason}); after '@' name a text file "
            "with a path on each line, and a log without '@'."
        ) from error
    except OSError as error:
        raise UsageError(
            f"the list {shown_url(path)!r} cannot be read: {error.strerror or error}; check the path."
        ) from error


def _line(path: str, number: int, text: str) -> Entry:
    with naming_line(Entry("", path, number)):
        if text.startswith("@"):
            raise UsageError(f"{text!r} is a list in a list; name its files here, or the file itself as './{text}'.")
        if "\0" in text:
            raise UsageError("a path holds a zero byte; write a path, glob, folder or URL on each line.")
    if "://" in text or text.startswith(("/", "~")):
        return Entry(text, path, number)
    folder = path[: path.rfind("/") + 1]
    if "://" not in folder and any(c in text for c in "*?["):
        folder = glob.escape(folder)
    return Entry(folder + text.removeprefix("./"), path, number)
