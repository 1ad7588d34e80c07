"""The range of a key in each row group, from the statistics of footers."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq

from fastloss.columns.group_keys import is_bytes
from fastloss.sources.key_ranges import NO_KEYS, KeyRange
from fastloss.sources.parquet.footers import StoredColumn

_UNITS = {"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}


def key_range(footer: pq.FileMetaData, row_group: int, column: StoredColumn, kind: pa.DataType) -> KeyRange | None:
    """Return the range of a column in a row group, or None if it is not known.

    Parameters
    ----------
    footer : pyarrow.parquet.FileMetaData
        The file's footer.
    row_group : int
        The row group.
    column : StoredColumn
        Where the file has the column.
    kind : pyarrow.DataType
        The column's type in the log.
    """
    if column.n_leaves != 1 or footer.schema.column(column.first_leaf).max_repetition_level > 0:
        return None
    chunk = footer.row_group(row_group).column(column.first_leaf)
    statistics = chunk.statistics
    if chunk.num_values == 0 or (
        statistics is not None and statistics.has_null_count and statistics.null_count == chunk.num_values
    ):
        return NO_KEYS
    if statistics is None or not statistics.has_min_max:
        return None
    own = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    own = own.storage_type if isinstance(own, pa.BaseExtensionType) else own
    if pa.types.is_integer(own):
        least, greatest = statistics.min, statistics.max
        ordered = type(least) is type(greatest) is int and least <= greatest
    elif pa.types.is_date32(own) or (pa.types.is_timestamp(own) and own.unit == _unit_of(statistics) == _unit(kind)):
        least, greatest = statistics.min_raw, statistics.max_raw
        ordered = type(least) is type(greatest) is int and least <= greatest
    elif is_bytes(own):
        least, greatest = statistics.min_raw, statistics.max_raw
        ordered = type(least) is type(greatest) is bytes and least <= greatest
    else:
        return None
    return KeyRange(least, greatest) if ordered else None


def _unit_of(statistics: pq.Statistics) -> str | None:
    """Return the unit of the timestamps that a column stores."""
    found = json.loads(statistics.logical_type.to_json()) if statistics.logical_type is not None else {}
    return _UNITS.get(str(found.get("timeUnit")))


def _unit(kind: pa.DataType) -> str | None:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind.unit if pa.types.is_timestamp(kind) else None
