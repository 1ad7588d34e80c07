"""Formats of tables that keep files which are no longer part of the table: their own library says which are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from pyarrow import fs

from fastloss.errors import UsageError
from fastloss.sources.stores.store import Store

METADATA_SUFFIX = ".metadata.json"


class TableFormat(NamedTuple):
    """A format of tables.

    Attributes
    ----------
    name : str
        What a user reads, with its article.
    folder, suffix : str
        What a table of this format holds: such a folder, with a file in it that ends in the suffix.
    module : str or None
        The module that reads it, with functions `open_folder` and `open_log`; None where none does.
    extra : str
        The extra of this package that installs the format's library.
    way_out : str
        What to do where a part of a table is named, or one in a store.
    """

    name: str
    folder: str
    suffix: str
    module: str | None
    extra: str
    way_out: str


TABLE_FORMATS: Sequence[TableFormat] = (
    TableFormat(
        "a Delta Lake",
        "_delta_log",
        "",
        "fastloss.sources.delta",
        "delta",
        "name the folder {0} alone, if it is local, or from Python give deltalake.DeltaTable({0}) as the log",
    ),
    TableFormat(
        "a Hudi",
        ".hoodie",
        "",
        None,
        "",
        "read it with a library that knows Hudi, and give its rows as an Arrow stream",
    ),
    TableFormat(
        "an Iceberg",
        "metadata",
        METADATA_SUFFIX,
        "fastloss.sources.iceberg",
        "iceberg",
        "name the folder {0} alone, if it is local, or from Python give the table of pyiceberg as the log",
    ),
)


def format_of_folder(filesystem: fs.FileSystem | Store, folder: str) -> TableFormat | None:
    """Return the format of the table that a folder is, or None."""
    held = filesystem.get_file_info([f"{folder}/{table_format.folder}" for table_format in TABLE_FORMATS])
    for info, table_format in zip(held, TABLE_FORMATS, strict=True):
        if info.type != fs.FileType.Directory:
            continue
        if not table_format.suffix:
            return table_format
        if any(
            file.path.endswith(table_format.suffix) for file in filesystem.get_file_info(fs.FileSelector(info.path))
        ):
            return table_format
    return None


class NamedTable(NamedTuple):
    """A table that a user named by its folder, or by a file of its metadata."""

    format: TableFormat
    path: str

    @property
    def folder(self) -> str:
        """The table's folder."""
        return self.path if os.path.isdir(self.path) else os.path.dirname(os.path.dirname(self.path))


def named_table(entries: Sequence[str]) -> NamedTable | None:
    """Return the table of this machine that the only entry of a log names, or None."""
    if len(entries) != 1:
        return None
    path = os.path.expanduser(entries[0].removeprefix("file://"))
    if "://" in path:
        return None
    path = path.rstrip("/") or "/"
    if os.path.isdir(path):
        table_format = format_of_folder(fs.LocalFileSystem(), path)
        return NamedTable(table_format, path) if table_format and table_format.module else None
    if path.endswith(METADATA_SUFFIX) and os.path.isfile(path):
        return next(NamedTable(f, path) for f in TABLE_FORMATS if f.suffix == METADATA_SUFFIX)
    return None


def not_installed(table: NamedTable, library: str) -> UsageError:
    """Return the error that says what to install."""
    return UsageError(
        f"folder {table.folder!r} is {table.format.name} table, and reading it needs {library}; "
        f"pip install 'fastloss[{table.format.extra}]'."
    )
