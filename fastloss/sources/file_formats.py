"""The formats of files: one line each, known by the ending of a file's name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastloss.errors import UsageError
from fastloss.files import StoredFile


class Format(NamedTuple):
    """A format of files.

    Attributes
    ----------
    name : str
        What a user reads.
    endings : tuple of str
        How the names of its files end, in lower case.
    module : str
        The module that reads it: Parquet's own source, or what `fastloss.sources.file_log.FileReader` says.
    """

    name: str
    endings: tuple[str, ...]
    module: str


def _also_compressed(*endings: str) -> tuple[str, ...]:
    return tuple(ending + more for ending in endings for more in ("", ".gz", ".zst"))


# The first is that of names with no such ending.
FORMATS: Sequence[Format] = (
    Format("Parquet", (".parquet", ".parq", ".pq"), "fastloss.sources.parquet.source"),
    Format("Arrow IPC", (".arrow", ".feather", ".ipc"), "fastloss.sources.arrow_ipc"),
    Format("CSV", _also_compressed(".csv", ".tsv"), "fastloss.sources.delimited_text"),
    Format("JSON lines", _also_compressed(".jsonl", ".ndjson"), "fastloss.sources.json_lines"),
)
PARQUET = FORMATS[0]
ENDINGS: tuple[str, ...] = tuple(ending for format in FORMATS for ending in format.endings)


def format_of(path: str) -> Format:
    """Return the format that a file's name tells; Parquet where it tells none."""
    return next((format for format in FORMATS if path.lower().endswith(format.endings)), PARQUET)


def as_parquet(name: str) -> str:
    """Return a file's name with the ending of Parquet in place of another format's."""
    format = format_of(name)
    if format is PARQUET:
        return name
    ending = max((ending for ending in format.endings if name.lower().endswith(ending)), key=len)
    return name[: -len(ending)] + PARQUET.endings[0]


def format_of_log(files: Iterable[StoredFile]) -> Format:
    """Return the format of all these files; a UsageError if they have several."""
    first: dict[str, str] = {}
    for file in files:
        first.setdefault(format_of(file.origin).name, file.origin)
    if len(first) > 1:
        (name, origin), (other, other_origin) = list(first.items())[:2]
        raise UsageError(
            f"the log has {name} files, such as {origin!r}, and {other} files, such as {other_origin!r}, and must be "
            "of one format; name the files of one, for example by a glob that ends in their ending."
        )
    return next(format for format in FORMATS if format.name in first)
