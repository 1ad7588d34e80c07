"""Rows from anything that speaks the Arrow C stream interface: tables, frames, readers.

One task is one batch of the stream. Long batches are cut, so that a frame of one chunk still feeds several threads;
runs of short batches are joined, so that a stream of single rows does not cost one task a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import pyarrow as pa

from fastloss.columns.arrow import ArrowBatch
from fastloss.columns.nested import ColumnPath, find_columns, take_column, with_fields
from fastloss.errors import FastlossError, ReadError, SchemaError, UsageError, nearest_names
from fastloss.sources.base import ReadOptions, SourceSummary, Task
from fastloss.sources.frames import Frame, as_frame, columns_holding
from fastloss.sources.listing import one_line

_LONGEST_TASK_ROWS = 1 << 20
_SHORTEST_TASK_ROWS = 1 << 14


def open_log(log: object, options: ReadOptions, columns: Sequence[str] | None) -> ArrowStreamSource:
    """Open an object that speaks Arrow; see `fastloss.sources.open_source`."""
    return ArrowStreamSource(log, columns)


class ArrowStreamSource:
    """An object with ``__arrow_c_stream__`` or ``__arrow_c_array__`` as a sequence of batches.

    A table or frame (whatever has a length) can be read any number of times; any other stream once, since a spent
    stream gives no rows and no error.

    Parameters
    ----------
    log : object
        The table, frame or stream.
    columns : sequence of str, optional
        The columns that will be read. Of a frame, no other is converted.

    Raises
    ------
    SchemaError
        If it gives no schema, since a column cannot be converted.
    """

    def __init__(self, log: object, columns: Sequence[str] | None = None) -> None:
        self._log = log
        self._frame = as_frame(log)
        self._spent = False
        stream = self._stream = self._open(columns)
        known = set(stream.schema.names)
        others = [] if self._frame is None else [name for name in self._frame.names if name not in known]
        self._schema = pa.schema([*with_fields(stream.schema), *(pa.field(name, pa.null()) for name in others)])

    @property
    def schema(self) -> pa.Schema:
        """The stream's columns, fields of structs among them; those of a frame that will not be read come last, as if
        they were all null.
        """
        return self._schema

    @property
    def gives_rows_once(self) -> bool:
        """Whether this is a stream, and no table or frame."""
        return not hasattr(self._log, "__len__")

    def tasks(self, columns: Sequence[str], options: ReadOptions) -> Iterator[Task]:
        """Check the columns, then return the batches as tasks; a batch is taken from the stream when its turn comes.

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
            If a column is missing, or its name is not unique.
        UsageError
            If the stream was already read and can be read only once.
        ReadError
            While iterating: if the stream fails.
        """
        column_positions(self._schema, columns)
        if self._spent and self.gives_rows_once:
            raise UsageError(
                f"this {type(self._log).__name__} was already read, and a stream gives its rows once; "
                "make a new one, or pass a table."
            )
        stream = self._stream
        if stream is None or not all(find_columns(stream.schema, name) for name in columns):
            stream = self._open(columns)
        self._stream, self._spent = None, True
        return batch_tasks(stream, list(columns), column_positions(stream.schema, columns), options)

    def summary(self, columns: Sequence[str], options: ReadOptions) -> SourceSummary:
        """Return what a stream tells in advance: its rows, if it is a table; raises as ``tasks`` does."""
        column_positions(self._schema, columns)
        try:
            rows: int | None = len(self._log)  # type: ignore[arg-type]
        except Exception:
            # A stream has no length; a query may have one, and be too busy to tell it.
            rows = None
        return summary_of_stream(rows)

    def inputs(self, columns: Sequence[str]) -> None:
        """Return None: nothing tells one stream from another."""

    def _open(self, columns: Sequence[str] | None) -> pa.RecordBatchReader:
        return open_stream(self._log, columns, self._frame)


def summary_of_stream(rows: int | None) -> SourceSummary:
    """Return what is known of the tasks of a stream that tells its rows, or does not."""
    longest = _LONGEST_TASK_ROWS if rows is None else min(rows, _LONGEST_TASK_ROWS)
    return SourceSummary(
        files=0, row_groups=0, rows=rows, stored_bytes=None, largest_task_bytes=None, largest_task_rows=longest
    )


def open_stream(log: Any, columns: Sequence[str] | None, frame: Frame | None = None) -> pa.RecordBatchReader:
    """Return the batches of an object that speaks Arrow; of a frame, only these columns are converted.

    Raises
    ------
    SchemaError
        If it gives no schema.
    """
    name = type(log).__name__
    try:
        frame = frame or as_frame(log)
        if frame is not None and columns is not None:
            log = frame.select(columns_holding(frame.names, columns))
        if not hasattr(log, "__arrow_c_stream__"):
            log = pa.table(pa.record_batch(log))
        return pa.RecordBatchReader.from_stream(log)
    except Exception as error:
        raise SchemaError(f"the {name} gives no Arrow stream: {one_line(error)}") from error


def column_positions(schema: pa.Schema, columns: Sequence[str]) -> list[ColumnPath]:
    """Return where each column, or field of a struct, is in a schema; a missing or ambiguous name is a SchemaError."""
    if not columns:
        raise UsageError("no column is selected; select at least one.")
    positions = []
    for name in columns:
        found = find_columns(schema, name)
        if not found:
            raise SchemaError(f"column {name!r} is not in the log. {nearest_names(name, with_fields(schema).names)}")
        if len(found) > 1:
            raise SchemaError(f"column {name!r} is in the log {len(found)} times; a selected name must be unique.")
        positions.append(found[0])
    return positions


def narrowed(schema: pa.Schema, columns: Sequence[str]) -> tuple[list[str], list[ColumnPath]]:
    """Return the columns of a schema that hold these, each once, and where these are in them alone."""
    paths = column_positions(schema, columns)
    holding = list(dict.fromkeys(path.column for path in paths))
    return (
        [schema.field(position).name for position in holding],
        [path._replace(column=holding.index(path.column)) for path in paths],
    )


def batch_tasks(
    batches: Iterator[pa.RecordBatch], names: list[str], positions: list[ColumnPath], options: ReadOptions
) -> Iterator[Task]:
    """Yield one task for each batch of a suitable length, made of the columns at these positions."""
    first_row = 0
    for index, batch in enumerate(_suitable_batches(_selected(batches, names, positions))):
        yield Task(
            index=index,
            origin="<stream>",
            row_group=None,
            first_row=first_row,
            n_rows=None,
            stored_bytes=0,
            decoded_bytes=batch.nbytes,
            read=_Slices(batch, options.batch_rows),
        )
        first_row += batch.num_rows


def _selected(
    batches: Iterator[pa.RecordBatch], names: list[str], positions: list[ColumnPath]
) -> Iterator[pa.RecordBatch]:
    n_rows = 0
    try:
        for batch in batches:
            yield take_columns(batch, names, positions)
            n_rows += batch.num_rows
    except FastlossError:
        raise
    except Exception as error:
        raise ReadError(f"cannot read the stream after {n_rows} rows: {one_line(error)}") from error


def take_columns(batch: pa.RecordBatch, names: list[str], positions: list[ColumnPath]) -> pa.RecordBatch:
    """Return the columns at these positions, after checking what another library made of them."""
    held = [batch.column(path.column) for path in positions]
    for column in held:
        column.validate()
    columns = [take_column(column, path.steps) for column, path in zip(held, positions, strict=True)]
    for column in columns:
        # Offsets and lengths are checked, and each index of a dictionary.
        column.validate(full=pa.types.is_dictionary(column.type))
    return pa.RecordBatch.from_arrays(columns, names=names)


def _suitable_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    short: list[pa.RecordBatch] = []
    n_short = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        if batch.num_rows >= _SHORTEST_TASK_ROWS:
            for first in range(0, batch.num_rows, _LONGEST_TASK_ROWS):
                yield batch.slice(first, _LONGEST_TASK_ROWS)
            continue
        if short and batch.schema != short[0].schema:
            # Another width of a number, as the items of an iterable may have.
            yield pa.concat_batches(short)
            short, n_short = [], 0
        short.append(batch)
        n_short += batch.num_rows
        if n_short >= _SHORTEST_TASK_ROWS:
            yield pa.concat_batches(short)
            short, n_short = [], 0
    if short:
        yield pa.concat_batches(short)


class _Slices:
    """Reads a batch that is here, in pieces of at most `batch_rows` rows."""

    def __init__(self, batch: pa.RecordBatch, batch_rows: int) -> None:
        self._batch = batch
        self._batch_rows = batch_rows

    def __call__(self) -> Iterator[ArrowBatch]:
        for first in range(0, self._batch.num_rows, self._batch_rows):
            yield ArrowBatch(self._batch.slice(first, self._batch_rows))

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            "the rows of a stream or a frame are in this process, and another would need a copy of them; "
            "executor='processes' reads files; use executor='threads', or write the log to Parquet."
        )
