"""Scored groups as a Parquet file: all of them, sorted where there is room, or the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fastloss.budget import format_bytes
from fastloss.columns.base import IntegerArray
from fastloss.columns.group_keys import is_integer_key
from fastloss.engine.gathering import GatheredRows
from fastloss.errors import UsageError
from fastloss.scoring.group_values import ScoredGroups
from fastloss.scoring.request import SIZE_COLUMN
from fastloss.scoring.writer import leave_open

# What is written at once.
_PIECE_ROWS = 1 << 20
# Arrow's texts of one column have offsets of 32 bits.
MOST_TEXT_BYTES = 1 << 30
# The values of keys as they are found, in the order asked for, in the log's type, and sorted.
KEY_COPIES = 4


class KeyedTables:
    """Makes tables of scored groups, with the values of their keys.

    Parameters
    ----------
    gathered : GatheredRows
        Which knows the values of keys.
    metrics : sequence of str
        The names of the values.
    """

    def __init__(self, gathered: GatheredRows, metrics: Sequence[str]) -> None:
        assert gathered.values is not None
        self._values = gathered.values
        self.keys = list(gathered.key_types)
        self.metrics = list(metrics)
        self._n_words = 1 if is_integer_key(list(gathered.key_types.values())) else 2

    @property
    def schema(self) -> pa.Schema:
        """The columns: the key, the number of rows, the metrics."""
        return self.of(self.nothing()).schema

    @property
    def group_bytes(self) -> int:
        """What a group takes beside the values of its key."""
        return 8 * (self._n_words + 1 + len(self.metrics))

    @property
    def key_bytes(self) -> int:
        """What the values of a key take while they are looked up and sorted."""
        return KEY_COPIES * self._values.value_bytes

    def fits(self, n_groups: int, most_bytes: int) -> bool:
        """Tell whether so many groups can be sorted in so much memory."""
        # Twice while they are joined, and their order.
        needed = n_groups * (2 * self.group_bytes + 16 + self.key_bytes)
        return needed <= most_bytes and n_groups * self._values.value_bytes <= MOST_TEXT_BYTES

    def nothing(self) -> ScoredGroups:
        """Return no groups."""
        words = tuple(np.empty(0, dtype=np.int64) for _ in range(self._n_words))
        return ScoredGroups(words, words[0], np.empty((len(self.metrics), 0)))

    def of(self, scored: ScoredGroups) -> pa.Table:
        """Return groups with the values of their keys."""
        columns = [*self._values.lookup(scored.words), pa.array(scored.sizes)]
        # NaN is a group without a value.
        columns += [pa.array(own, from_pandas=True) for own in scored.values]
        return pa.table(columns, names=[*self.keys, SIZE_COLUMN, *self.metrics])

    def order(self, table: pa.Table, first: tuple[str, str] | None = None) -> IntegerArray:
        """Return the order of groups by a column, ascending or descending, and then by the key."""
        columns = [_sortable(table.column(name)) for name in self.keys]
        names = [f"key {number}" for number in range(len(columns))]
        by = [(name, "ascending") for name in names]
        if first is not None:
            columns, names = [*columns, table.column(first[0])], [*names, "value"]
            by = [("value", first[1]), *by]
        found = pc.sort_indices(pa.table(columns, names=names), sort_keys=by)
        return np.asarray(found.to_numpy().astype(np.int64))


def _sortable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as Arrow sorts it."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    return column.cast(_taken_as(column.type))


def _taken_as(kind: pa.DataType) -> pa.DataType:
    """Return the type in which Arrow takes and sorts rows of a column: it can do neither with views."""
    if pa.types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(kind) else kind


def _take(table: pa.Table, rows: IntegerArray) -> pa.Table:
    columns = [
        column.cast(_taken_as(column.type)).take(pa.array(rows)).cast(column.type)
        if _taken_as(column.type) != column.type
        else column.take(pa.array(rows))
        for column in table.columns
    ]
    return pa.table(columns, schema=table.schema)


class TableWriter:
    """Writes tables to one Parquet file, each as a row group or several."""

    def __init__(self, sink: pa.NativeFile, schema: pa.Schema, compression: str) -> None:
        # Keys differ from each other, and values mostly do.
        self._writer = pq.ParquetWriter(sink, schema, compression=compression, use_dictionary=False)
        self.n_rows = 0

    def write(self, table: pa.Table) -> None:
        """Write the rows of a table."""
        if table.num_rows:
            self._writer.write_table(table, row_group_size=_PIECE_ROWS)
            self.n_rows += table.num_rows

    def close(self, metadata: Mapping[bytes, str]) -> None:
        """Write the footer."""
        self._writer.add_key_value_metadata(metadata)
        self._writer.close()

    def abandon(self) -> None:
        """Write no footer."""
        leave_open(self._writer)


class EveryGroup:
    """Writes all groups: sorted by key if there is room to hold them, else as they come.

    Parameters
    ----------
    tables : KeyedTables
        Makes tables of groups.
    writer : TableWriter
        The file.
    most_bytes : int
        The memory in which groups may be sorted.

    Attributes
    ----------
    order : {"key", None}
        What the groups are sorted by.
    """

    def __init__(self, tables: KeyedTables, writer: TableWriter, most_bytes: int) -> None:
        self._tables, self._writer, self._most_bytes = tables, writer, most_bytes
        self._held: list[ScoredGroups] = []
        self._n_held = 0
        self.order: str | None = "key"

    def prepare(self, scored: ScoredGroups) -> ScoredGroups | pa.Table:
        """Return groups to be added; several threads may."""
        return scored if self.order is not None else self._tables.of(scored)

    def add(self, found: ScoredGroups | pa.Table) -> None:
        """Add groups, or write them; one thread at a time."""
        if isinstance(found, pa.Table):
            self._writer.write(found)
        elif self.order is None:
            self._writer.write(self._tables.of(found))
        else:
            self._held.append(found)
            self._n_held += len(found.sizes)
            if not self._tables.fits(self._n_held, self._most_bytes):
                self.order = None
                while self._held:
                    self._writer.write(self._tables.of(self._held.pop()))

    def finish(self) -> None:
        """Write what is held."""
        if self.order is None or not self._n_held:
            return
        table = self._tables.of(_joined(self._held))
        self._held.clear()
        order = self._tables.order(table)
        for first in range(0, len(order), _PIECE_ROWS):
            self._writer.write(_take(table, order[first : first + _PIECE_ROWS]))


def _joined(parts: Sequence[ScoredGroups]) -> ScoredGroups:
    words = tuple(np.concatenate(columns) for columns in zip(*(part.words for part in parts), strict=True))
    sizes = np.concatenate([part.sizes for part in parts])
    return ScoredGroups(words, sizes, np.concatenate([part.values for part in parts], axis=1))


class WorstGroups:
    """Writes the groups with the worst values of the first metric; of equal values, those of the least keys.

    Parameters
    ----------
    tables : KeyedTables
        Makes tables of groups.
    writer : TableWriter
        The file.
    most_bytes : int
        The memory that the groups may take.
    n_groups : int
        How many to write.
    smallest : bool
        Whether the smallest values are the worst, else the largest.

    Attributes
    ----------
    order : "value"
        What the groups are sorted by.
    """

    order = "value"

    def __init__(
        self, tables: KeyedTables, writer: TableWriter, most_bytes: int, n_groups: int, *, smallest: bool
    ) -> None:
        self._tables, self._writer, self._most_bytes = tables, writer, most_bytes
        self._n_groups = n_groups
        self._smallest = smallest
        self._worst: pa.Table | None = None
        # No value that is larger is among the worst, where the smallest are; else their negatives.
        self._threshold = np.inf

    def prepare(self, scored: ScoredGroups) -> pa.Table:
        """Return those of some groups that may be among the worst; several threads may."""
        values = scored.values[0] if self._smallest else -scored.values[0]
        rows = np.flatnonzero(values <= self._threshold)
        if len(rows) > self._n_groups:
            rows = rows[values[rows] <= np.partition(values[rows], self._n_groups - 1)[self._n_groups - 1]]
        return self._cut(self._tables.of(scored.take(rows)))

    def add(self, found: pa.Table) -> None:
        """Add groups; one thread at a time."""
        worst = found if self._worst is None else pa.concat_tables([self._worst, found])
        self._worst = worst = self._cut(worst)
        if worst.nbytes > self._most_bytes:
            raise UsageError(
                f"top is {self._n_groups:,}, and {worst.num_rows:,} groups take {format_bytes(worst.nbytes)}, more "
                "than there is room for; ask for fewer, or raise memory."
            )
        if worst.num_rows == self._n_groups:
            last = worst.column(self._tables.metrics[0])[-1].as_py()
            self._threshold = last if self._smallest else -last

    def _cut(self, table: pa.Table) -> pa.Table:
        direction = "ascending" if self._smallest else "descending"
        order = self._tables.order(table, (self._tables.metrics[0], direction))
        return _take(table, order[: self._n_groups]).combine_chunks()

    def finish(self) -> None:
        """Write the worst groups."""
        if self._worst is not None:
            self._writer.write(self._worst)
