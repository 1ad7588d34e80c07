"""Rows from an iterable of record batches: a generator, a list of tables, whatever yields frames.

Each item is projected as it comes and none is kept. A list can be read any number of times, and so can an object whose
``__iter__`` begins anew; a generator once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from fastloss.columns.nested import ColumnPath, find_columns, with_fields
from fastloss.errors import FastlossError, ReadError, SchemaError, UsageError
from fastloss.sources.arrow_stream import (
    ArrowStreamSource,
    batch_tasks,
    column_positions,
    narrowed,
    open_stream,
    summary_of_stream,
    take_columns,
)
from fastloss.sources.base import ReadOptions, SourceSummary, Task
from fastloss.sources.entries import speaks_arrow
from fastloss.sources.listing import one_line
from fastloss.sources.schemas import are_one_family


def open_log(log: object, options: ReadOptions, columns: Sequence[str] | None) -> IterableSource:
    """Open an iterable of record batches; see `fastloss.sources.open_source`."""
    return IterableSource(log, columns, missing_as_null=options.missing_as_null)


class IterableSource:
    """An iterable of record batches, tables or frames; the columns are those of the first.

    A later item may have other columns beside the selected ones, in any order, and a number in another width.

    Parameters
    ----------
    log : iterable
        What yields the items. The first one is taken now.
    columns : sequence of str, optional
        The columns that will be read. Of a frame, no other is converted.
    missing_as_null : bool
        Whether a column that the first item has and a later one lacks is null there.

    Attributes
    ----------
    gives_rows_once : bool
        Whether the rows cannot be read a second time.

    Raises
    ------
    SchemaError
        If there is no item, or it gives no schema.
    UsageError
        If the item holds no rows that Arrow can take.
    ReadError
        If the iterable fails.
    """

    def __init__(self, log: Any, columns: Sequence[str] | None = None, *, missing_as_null: bool = False) -> None:
        self._log = log
        self._missing_as_null = missing_as_null
        self._name = type(log).__name__
        items = self._begin()
        self.gives_rows_once = items is log
        try:
            first = next(items)
        except StopIteration:
            raise SchemaError(
                f"the {self._name} gives no batch, or was already read, so that its columns are not known; "
                "give at least one batch, which may be without rows."
            ) from None
        except FastlossError:
            raise
        except Exception as error:
            raise ReadError(f"cannot read the {self._name}: {one_line(error)}") from error
        self._check_item(first, 1)
        if hasattr(first, "__arrow_c_stream__") and not hasattr(first, "__len__"):
            # A stream is handed over once: its schema and its rows come from one and the same.
            first = open_stream(first, columns)
            self._schema = with_fields(first.schema)
        else:
            self._schema = ArrowStreamSource(first, columns).schema
        self._items: Iterator[Any] | None = itertools.chain([first], items)

    @property
    def schema(self) -> pa.Schema:
        """The first item's schema, fields of structs among the columns."""
        return self._schema

    def tasks(self, columns: Sequence[str], options: ReadOptions) -> Iterator[Task]:
        """Check the columns, then return the batches as tasks; an item is taken when its turn comes.

        Parameters
        ----------
        columns : sequence of str
            Columns to read.
        options : ReadOptions
            Only ``batch_rows`` matters here.

        Returns
        -------
        iterator of Task

        Raises
        ------
        SchemaError
            If a column is missing; while iterating, if a later item lacks one or stores another kind of value.
        UsageError
            If the items were already read and can be read only once.
        ReadError
            While iterating: if the iterable fails.
        """
        column_positions(self._schema, columns)
        items, self._items = self._items, None
        if items is None:
            if self.gives_rows_once:
                raise UsageError(
                    f"this {self._name} was already read, and it gives its batches once; "
                    "make a new one, or give a list of batches or a table."
                )
            items = self._begin()
        names = list(columns)
        stored = list(dict.fromkeys(names))
        _, positions = narrowed(pa.schema([(name, pa.null()) for name in stored]), names)
        return batch_tasks(self._batches(items, stored), names, positions, options)

    def summary(self, columns: Sequence[str], options: ReadOptions) -> SourceSummary:
        """Return what is known in advance: the rows, if there is a list of tables; raises as ``tasks`` does."""
        column_positions(self._schema, columns)
        rows = None
        if isinstance(self._log, (list, tuple)) and all(hasattr(item, "__len__") for item in self._log):
            rows = sum(map(len, self._log))
        return summary_of_stream(rows)

    def inputs(self, columns: Sequence[str]) -> None:
        """Return None: nothing tells one iterable from another."""

    def _begin(self) -> Iterator[Any]:
        try:
            return iter(self._log)
        except Exception as error:
            raise ReadError(f"cannot read the {self._name}: {one_line(error)}") from error

    def _batches(self, items: Iterator[Any], columns: list[str]) -> Iterator[pa.RecordBatch]:
        for number, item in enumerate(items, 1):
            self._check_item(item, number)
            stream = open_stream(item, columns)
            held = [name for name in columns if find_columns(stream.schema, name)]
            if len(held) < len(columns) and not (self._missing_as_null and held):
                # All are looked for, and what is missing is an error.
                held = columns
            paths = self._check_columns(stream.schema, held, number)
            for batch in stream:
                found = dict(zip(held, take_columns(batch, held, paths).columns, strict=True))
                arrays = [
                    found[name] if name in found else pa.nulls(batch.num_rows, self._schema.field(name).type)
                    for name in columns
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=columns)

    def _check_item(self, item: object, number: int) -> None:
        if not speaks_arrow(item):
            raise UsageError(
                f"item {number} of the {self._name} is a {type(item).__name__}; allowed are pyarrow record batches "
                "and tables, and frames with __arrow_c_stream__ or __arrow_c_array__."
            )

    def _check_columns(self, schema: pa.Schema, columns: list[str], number: int) -> list[ColumnPath]:
        paths = self._positions(schema, columns, number)
        for name, path in zip(columns, paths, strict=True):
            kind, expected = path.type, self._schema.field(name).type
            if not are_one_family(kind, expected):
                raise SchemaError(
                    f"column {name!r} has type {expected} in item 1 of the {self._name} and {kind} in item {number}; "
                    "all must store the same kind of value."
                )
        return paths

    def _positions(self, schema: pa.Schema, columns: list[str], number: int) -> list[ColumnPath]:
        try:
            return column_positions(schema, columns)
        except SchemaError as error:
            raise SchemaError(f"item {number} of the {self._name}: {error}") from None
