"""Delta Lake tables, through the library deltalake: the table's snapshot, as the object has it.

A snapshot whose files are read as they are is a Parquet log: its files are those of the snapshot, and its partition
keys those of the log, not those of the paths. It is read by the library's own scan where the files are not all: where
rows are deleted by vectors, columns are renamed, a file has none of the columns, or the table is in a store.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from fastloss.columns.nested import with_fields
from fastloss.errors import SchemaError, UsageError
from fastloss.files import Stamp
from fastloss.sources.base import ReadOptions, Source, SourceSummary, Task
from fastloss.sources.key_ranges import RangedRowGroup, ranges_in
from fastloss.sources.listing import LogFile, one_line
from fastloss.sources.parquet.source import ParquetSource
from fastloss.sources.scans import ScanSource
from fastloss.sources.table_formats import NamedTable, not_installed

# Features of a table that change nothing of how its files are read; deletion vectors are looked for.
_HARMLESS_FEATURES = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "variantType", "variantType-preview"}
_HARMLESS_FEATURES |= {"deletionVectors", "columnMapping"}
_UNMAPPED = (None, "", "none")


def open_log(log: Any, options: ReadOptions, columns: Sequence[str] | None) -> DeltaSource:
    """Open a table that is here as an object; see `fastloss.sources.open_source`."""
    return DeltaSource(log, None, options)


def open_folder(table: NamedTable, options: ReadOptions) -> DeltaSource:
    """Open the latest snapshot of a table that is named by its folder."""
    try:
        from deltalake import DeltaTable
    except ImportError as error:
        raise not_installed(table, "deltalake") from error
    try:
        opened = DeltaTable(table.path)
    except Exception as error:
        raise UsageError(
            f"cannot open the Delta Lake table {table.path!r}: {one_line(error)}; mend it, or name another."
        ) from error
    return DeltaSource(opened, table.path, options)


class DeltaSource:
    """A snapshot of a Delta Lake table.

    Parameters
    ----------
    table : deltalake.DeltaTable
        The table, at the version that it has loaded.
    name : str or None
        The folder, as the user named it.
    options : ReadOptions
        How to read.

    Raises
    ------
    UsageError
        If the library cannot tell the table's columns or files.
    """

    def __init__(self, table: Any, name: str | None, options: ReadOptions) -> None:
        self._name = name or str(table.table_uri)
        try:
            schema = pa.schema(table.schema().to_arrow())
            files = _plain_files(table, name, schema)
        except Exception as error:
            raise UsageError(
                f"the library deltalake cannot read the table {self._name!r}: {one_line(error)}; name another."
            ) from error
        self._scan = ScanSource(schema, functools.partial(_scan, table))
        keys = {name: schema.field(name).type for name in table.metadata().partition_columns}
        # A file that is older than a column has nulls in it: that is the table's own rule.
        reading = dataclasses.replace(options, missing_as_null=True)
        self._files = ParquetSource(files, reading, keys) if files else None
        self._schema = with_fields(schema)

    @property
    def schema(self) -> pa.Schema:
        """The table's columns, fields of structs among them."""
        return self._schema

    def tasks(self, columns: Sequence[str], options: ReadOptions) -> Iterator[Task]:
        """Check the columns, then return the row groups of the snapshot's files, or the batches of a scan, as tasks.

        Raises
        ------
        SchemaError
            If a column is missing.
        ReadError
            If a file, or while iterating the table, cannot be read.
        """
        return self._reading(columns, options).tasks(columns, options)

    def summary(self, columns: Sequence[str], options: ReadOptions) -> SourceSummary:
        """Return what the files tell of these columns; of a scan, nothing. Raises as ``tasks`` does."""
        return self._reading(columns, options).summary(columns, options)

    def inputs(self, columns: Sequence[str]) -> list[Stamp] | None:
        """Return the files that are read, or None for a scan; raises as ``tasks`` does."""
        return self._reading(columns, None).inputs(columns)

    def key_ranges(self, column: str, columns: Sequence[str], options: ReadOptions) -> Iterator[RangedRowGroup] | None:
        """Return the range of a column in each row group of the snapshot's files; None for a scan."""
        return ranges_in(self._reading(columns, options), column, columns, options)

    def _reading(self, columns: Sequence[str], options: ReadOptions | None) -> Source:
        """Return what reads these columns: the snapshot's files, if all of them have the columns."""
        if self._files is not None:
            try:
                if options is None:
                    self._files.inputs(columns)
                else:
                    self._files.summary(columns, options)
                return self._files
            except SchemaError:
                # Such as a file that has none of the columns, or one with a column that is also a partition key.
                self._files = None
        if options is not None and options.verify_checksums:
            raise UsageError(
                f"the Delta Lake table {self._name!r} is read by deltalake, which verifies no checksums; "
                "read it without."
            )
        return self._scan


def _scan(table: Any, columns: list[str], options: ReadOptions) -> Iterator[pa.RecordBatch]:
    yield from pa.RecordBatchReader.from_stream(table.scan(columns=columns))


def _plain_files(table: Any, name: str | None, schema: pa.Schema) -> list[LogFile]:
    """Return the snapshot's files, if they are the whole of it as they are; else none."""
    protocol, metadata = table.protocol(), table.metadata()
    features = set(protocol.reader_features or ())
    if not features <= _HARMLESS_FEATURES or protocol.min_reader_version > 3:
        return []
    if metadata.configuration.get("delta.columnMapping.mode") not in _UNMAPPED:
        return []
    if not all(_is_plain_key(schema.field(key).type) for key in metadata.partition_columns):
        return []
    if "deletionVectors" in features and any(batch.num_rows for batch in _deletion_vectors(table)):
        return []
    root = _stored_path("/", str(table.table_uri).rstrip("/"))
    if root is None:
        return []
    actions = pa.table(table.get_add_actions())
    keys = actions["partition"].to_pylist() if "partition" in actions.schema.names else [{}] * len(actions)
    files = []
    for path, values in zip(actions["path"].to_pylist(), keys, strict=True):
        found = _stored_path(root, path)
        if found is None:
            return []
        typed = tuple((key, _as_text(values[key])) for key in metadata.partition_columns)
        origin = found if name is None else os.path.join(name, os.path.relpath(found, root))
        files.append(LogFile(origin=origin, filesystem=fs.LocalFileSystem(), path=found, keys=typed))
    return sorted(files, key=lambda file: file.origin)


def _deletion_vectors(table: Any) -> Iterator[pa.RecordBatch]:
    yield from pa.RecordBatchReader.from_stream(table.deletion_vectors())


def _is_plain_key(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_date32(kind) or pa.types.is_boolean(kind)
    )


def _as_text(value: object) -> str | None:
    return None if value is None else str(value)


def _stored_path(root: str, path: str) -> str | None:
    """Return where a path lies, which is percent-encoded in a table's log; None if that is elsewhere or not clear."""
    path = path.removeprefix("file://")
    if "://" in path:
        return None
    places = {
        os.path.join(root, place) for place in (path, unquote(path)) if os.path.exists(os.path.join(root, place))
    }
    return places.pop() if len(places) == 1 else None
