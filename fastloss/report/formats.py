"""The formats of a result: one module each, and one line here.

A module has ``write(result, view, as_file)``, which returns a text without its last line end, or bytes, and
``write_table(table)`` for the points of a curve. One that writes a file piece by piece has ``write_to(result, view,
sink)`` or, of tables, ``write_parts(schema, tables, sink, as_file)``. Modules are loaded when they are asked for, so
that names and endings are known without them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from fastloss.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from fastloss.report.view import Reported, View


@dataclass(frozen=True)
class Format:
    """A format of a result.

    Attributes
    ----------
    name : str
        The word of the option ``--format``.
    module : str
        Where it is written.
    endings : tuple of str
        What the names of its files end in.
    is_binary : bool
        Whether it is no text.
    is_read : bool
        Whether a person reads it: then a terminal does not get thousands of slices unasked.
    is_table : bool
        Whether it has the columns of the result's Arrow table, of which there are two kinds.
    """

    name: str
    module: str
    endings: tuple[str, ...]
    is_binary: bool = False
    is_read: bool = False
    is_table: bool = False

    def write(self, result: Reported, view: View, *, as_file: bool) -> str | bytes:
        """Return a result in this format, for a file or for a pipe."""
        return cast("str | bytes", importlib.import_module(self.module).write(result, view, as_file=as_file))

    def write_to(self, result: Reported, view: View, sink: IO[bytes], *, as_file: bool) -> None:
        """Write a result in this format, piece by piece where the format can; a text ends with a line end."""
        module: Any = importlib.import_module(self.module)
        if self.is_table:
            from fastloss.report.arrow import tables_of

            module.write_parts(*tables_of(result, view), sink, as_file)
        elif hasattr(module, "write_to"):
            module.write_to(result, view, sink)
        else:
            sink.write(f"{module.write(result, view, as_file=as_file)}\n".encode())

    def write_table(self, table: pa.Table) -> str | bytes:
        """Return a table of data in this format, for a file."""
        return cast("str | bytes", importlib.import_module(self.module).write_table(table))


FORMATS: Mapping[str, Format] = {
    known.name: known
    for known in (
        Format("table", "fastloss.report.table", (".txt",), is_read=True),
        Format("json", "fastloss.report.json", (".json",)),
        Format("arrow", "fastloss.report.arrow", (".arrow",), is_binary=True, is_table=True),
        Format("parquet", "fastloss.report.parquet", (".parquet",), is_binary=True, is_table=True),
        Format("csv", "fastloss.report.csv", (".csv",), is_table=True),
        Format("markdown", "fastloss.report.markdown", (".md",), is_read=True),
    )
}


def format_of(given: str | None, ending: str | None) -> Format:
    """Return the format of a word, or of a file's ending, or the table for neither.

    Raises
    ------
    UsageError
        If the ending is none that is known and no word is given, or is that of another format than the word.
    """
    by_ending = {known_ending: known for known in FORMATS.values() for known_ending in known.endings}
    if given is not None:
        other = by_ending.get(ending or "")
        if other is not None and other.name != given:
            raise UsageError(f"--format is {given}, and --output ends in {ending}, as {other.name} does; change one.")
        return FORMATS[given]
    if ending is None:
        return FORMATS["table"]
    if ending not in by_ending:
        allowed = ", ".join(by_ending)
        raise UsageError(f"--output ends in {ending or 'nothing'}; allowed: {allowed}, or any name with --format.")
    return by_ending[ending]
