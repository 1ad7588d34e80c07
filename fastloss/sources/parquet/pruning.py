"""Files and row groups that a filter rules out: by partition keys, and by the statistics of footers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from fastloss.columns.pruning import Pruning
from fastloss.sources.listing import LogFile
from fastloss.sources.parquet.footers import Footer, PlannedFile, RowGroup, StoredColumn
from fastloss.sources.parquet.partitions import key_value

_Bound = tuple[Any, Any]


def files_that_may_hold(
    pruning: Pruning, files: Sequence[LogFile], key_types: Mapping[str, pa.DataType]
) -> list[LogFile]:
    """Return the files whose partition keys do not rule out every row."""
    values = [dict(file.keys) for file in files]
    keys = {
        name: pa.array(
            [None if (value := held.get(name)) is None else key_value(value, kind) for held in values], kind
        )
        for name, kind in key_types.items()
    }
    held = pruning.keys_hold(keys, len(files))
    return [file for file, may_hold in zip(files, held.tolist(), strict=True) if may_hold]


class Bounds:
    """The least and the greatest value of the columns that a filter compares, for every row group of a log.

    Parameters
    ----------
    pruning : Pruning
        The filter.
    schema : pyarrow.Schema
        The log's columns.
    """

    def __init__(self, pruning: Pruning, schema: pa.Schema) -> None:
        self._pruning = pruning
        self._types = {name: schema.field(name).type for name in pruning.bounded}
        self._found: dict[str, list[_Bound]] = {name: [] for name in self._types}

    def add(self, footer: Footer) -> None:
        """Add the row groups of a file, in their order."""
        leaves = {column.name: column for column in footer.columns if column.n_leaves == 1}
        for number in range(footer.metadata.num_row_groups):
            for name, found in self._found.items():
                found.append(_bounds(footer, number, leaves.get(name)))

    def row_groups_that_may_hold(
        self, planned: Sequence[tuple[PlannedFile, tuple[RowGroup, ...]]]
    ) -> list[tuple[PlannedFile, tuple[RowGroup, ...]]]:
        """Return the files, in the order in which they were added, with the row groups that are not ruled out."""
        n_row_groups = sum(len(groups) for _, groups in planned)
        if not self._found or not n_row_groups:
            return list(planned)
        bounds = {name: _arrays(found, self._types[name]) for name, found in self._found.items()}
        held = iter(self._pruning.bounds_hold(bounds, n_row_groups).tolist())
        return [(file, tuple(group for group in groups if next(held))) for file, groups in planned]


def _bounds(footer: Footer, number: int, column: StoredColumn | None) -> _Bound:
    if column is None or footer.metadata.schema.column(column.first_leaf).max_repetition_level > 0:
        return None, None
    statistics = footer.metadata.row_group(number).column(column.first_leaf).statistics
    if statistics is None or not statistics.has_min_max:
        return None, None
    try:
        return statistics.min, statistics.max
    except (ValueError, OverflowError):
        # Nanoseconds, and years after 9999, are more than Python's datetime can hold.
        return _exact_time(statistics.min_raw, column.type), _exact_time(statistics.max_raw, column.type)


def _exact_time(stored: int, kind: pa.DataType) -> pa.Scalar | None:
    if not pa.types.is_temporal(kind):
        return None
    return pa.scalar(stored, pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)


def _arrays(found: Sequence[_Bound], kind: pa.DataType) -> tuple[pa.Array, pa.Array]:
    value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
    least, greatest = ([bound[side] for bound in found] for side in range(2))
    try:
        return pa.array(least, value_type), pa.array(greatest, value_type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        # A file that has another type of number: one that does not fit rules out nothing.
        return _fitting(least, value_type), _fitting(greatest, value_type)


def _fitting(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    parts = []
    for value in values:
        try:
            parts.append(pa.array([value], kind))
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            parts.append(pa.nulls(1, kind))
    return pa.concat_arrays(parts)
