"""Iceberg tables, through the library pyiceberg: a table's current snapshot, or the scan that a program made.

The library reads the data files, applies their deletes and refuses the kinds of deletes that it does not know.
"""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from fastloss.errors import UsageError
from fastloss.sources.base import ReadOptions
from fastloss.sources.listing import one_line
from fastloss.sources.scans import ScanSource
from fastloss.sources.table_formats import METADATA_SUFFIX, NamedTable, not_installed

_HINT = "version-hint.text"


def open_log(log: Any, options: ReadOptions, columns: Sequence[str] | None) -> ScanSource:
    """Open a table or a scan that is here as an object; see `fastloss.sources.open_source`."""
    scan = log if hasattr(log, "to_arrow_batch_reader") else log.scan()
    try:
        schema = scan.projection().as_arrow()
    except Exception as error:
        raise UsageError(f"the library pyiceberg cannot read the table: {one_line(error)}; name another.") from error
    return ScanSource(schema, functools.partial(_scan, scan))


def open_folder(table: NamedTable, options: ReadOptions) -> ScanSource:
    """Open the current snapshot of a table that is named by its folder, or by a file of its metadata."""
    try:
        from pyiceberg.table import StaticTable
    except ImportError as error:
        raise not_installed(table, "pyiceberg") from error
    metadata = _current_metadata(table)
    try:
        opened = StaticTable.from_metadata(os.path.abspath(metadata))
    except Exception as error:
        raise UsageError(
            f"cannot open the Iceberg table {table.folder!r}: {one_line(error)}; mend it, or name another."
        ) from error
    return open_log(opened, options, None)


def _scan(scan: Any, columns: list[str], options: ReadOptions) -> Iterator[pa.RecordBatch]:
    yield from scan.select(*columns).to_arrow_batch_reader()


def _current_metadata(table: NamedTable) -> str:
    """Return the file of the table's current metadata; only a catalog, or a hint, knows which of several that is."""
    if table.path.endswith(METADATA_SUFFIX):
        return table.path
    folder = os.path.join(table.path, "metadata")
    found = sorted(glob.glob(f"{glob.escape(folder)}/*{METADATA_SUFFIX}"))
    if len(found) == 1:
        return found[0]
    hint = os.path.join(folder, _HINT)
    if os.path.isfile(hint):
        with open(hint, encoding="utf-8", errors="replace") as file:
            version = file.read().strip()
        hinted = [os.path.join(folder, name) for name in (f"v{version}{METADATA_SUFFIX}", version)]
        hinted = [path for path in hinted if path in found]
        if len(hinted) == 1:
            return hinted[0]
    raise UsageError(
        f"the Iceberg table {table.path!r} has {len(found)} files of metadata, and only its catalog knows which is "
        f"current; name that one, such as {found[-1]!r}, or from Python give the table of the catalog as the log."
    )
