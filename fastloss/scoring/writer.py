"""Outputs as Parquet files, each written whole or not at all.

Text is read, and written, as Arrow dictionaries, which saves most of the time and memory that it would take. The files
still declare the plain type: Arrow's schema is put into their metadata by hand.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fastloss.columns.arrays import is_text
from fastloss.files import atomic_file
from fastloss.scoring.request import LOSS_COLUMNS
from fastloss.scoring.rows import ScoredBatch

# A stream's batches may be short; row groups are not.
_STREAM_ROW_GROUP_ROWS = 1 << 20


@contextlib.contextmanager
def open_sink(path: Path) -> Iterator[pa.NativeFile]:
    """Give a file to write to, which takes its own name when the block ends well."""
    with atomic_file(path) as part, pa.OSFile(str(part), "wb") as sink:
        yield sink


def write_table(path: Path, table: pa.Table, compression: str, metadata: Mapping[bytes, str]) -> None:
    """Write a table as one output."""
    with open_sink(path) as sink:
        writer = pq.ParquetWriter(sink, table.schema, compression=compression)
        try:
            writer.write_table(table)
            writer.add_key_value_metadata(metadata)
            writer.close()
        except BaseException:
            leave_open(writer)
            raise


def leave_open(writer: pq.ParquetWriter) -> None:
    """Let a writer that has failed write no footer."""
    # Its finalizer would close, and so write to, a file that may be full.
    writer.is_open = False


class RowWriter:
    """Writes the rows of one output: a row group for each task, or several where one would not fit in the memory.

    Parameters
    ----------
    sink : pyarrow.NativeFile
        The file.
    kept : pyarrow.Schema
        The columns to keep, with the types that the log declares.
    value_types : sequence of pyarrow.DataType
        The types of loss, gradient and hessian.
    compression : str
        The codec.
    flush_bytes : int
        Bytes of rows that may wait before they are written.
    one_group : bool
        Whether tasks share a row group, as the short batches of a stream do.
    in_background : bool
        Whether a thread of its own writes.
    """

    def __init__(
        self,
        sink: pa.NativeFile,
        kept: pa.Schema,
        value_types: Sequence[pa.DataType],
        compression: str,
        flush_bytes: int,
        *,
        one_group: bool,
        in_background: bool,
    ) -> None:
        self._sink = sink
        self._kept = kept
        self._value_types = value_types
        self._compression = compression
        self._flush_bytes = flush_bytes
        self._one_group = one_group
        self._background = ThreadPoolExecutor(1, thread_name_prefix="fastloss-write") if in_background else None
        self._writing: Future[None] | None = None
        self._writer: pq.ParquetWriter | None = None
        self._schema: pa.Schema | None = None
        self._declared: pa.Schema | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._dictionaries: dict[str, pa.Array] = {}

    def add(self, scored: ScoredBatch) -> None:
        """Add the rows of a batch."""
        batch, values, _ = scored
        names = self._kept.names
        schema = self._open([batch.schema.field(name).type for name in names])
        kept = [_as_type(batch.column(name), schema.field(name).type) for name in names]
        self._waiting.append(pa.RecordBatch.from_arrays([*kept, *values], schema=schema))
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += sum(map(self._held_bytes, names, kept)) + sum(value.nbytes for value in values)
        if self._waiting_bytes > self._flush_bytes or (
            self._one_group and self._waiting_rows >= _STREAM_ROW_GROUP_ROWS
        ):
            self._flush()

    def end_task(self) -> None:
        """End the row group, unless tasks share one."""
        if not self._one_group:
            self._flush()

    def close(self, metadata: Mapping[bytes, str]) -> None:
        """Write what is left, and the footer."""
        self._flush()
        self._end_background()
        self._open(self._kept.types)
        assert self._writer is not None
        assert self._declared is not None
        declared = base64.b64encode(self._declared.serialize().to_pybytes()).decode()
        self._writer.add_key_value_metadata({**metadata, b"ARROW:schema": declared})
        self._writer.close()

    def abandon(self) -> None:
        """Write no footer."""
        with contextlib.suppress(Exception):
            self._end_background()
        if self._writer is not None:
            leave_open(self._writer)

    def _open(self, types: Sequence[pa.DataType]) -> pa.Schema:
        """Return the schema of what is written: the first batch's types, to which those of later batches are cast."""
        if self._schema is None:
            names = self._kept.names
            fields = [pa.field(name, kind) for name, kind in zip(names, types, strict=True)]
            declared = [
                pa.field(name, _declared_type(kind, logged))
                for name, kind, logged in zip(names, types, self._kept.types, strict=True)
            ]
            values = [pa.field(name, kind) for name, kind in zip(LOSS_COLUMNS, self._value_types, strict=True)]
            self._schema = pa.schema([*fields, *values])
            self._declared = pa.schema([*declared, *values])
            self._writer = pq.ParquetWriter(
                self._sink,
                self._schema,
                compression=self._compression,
                # A dictionary of floats seldom saves anything, and building it costs more than all the rest.
                use_dictionary=[f.name for f in declared if not pa.types.is_floating(f.type)] or False,
                store_schema=False,
            )
        return self._schema

    def _held_bytes(self, name: str, column: pa.Array) -> int:
        """Return the bytes that a column adds to those that wait; batches may share a dictionary."""
        if not isinstance(column, pa.DictionaryArray):
            return int(column.nbytes)
        dictionary = column.dictionary
        known = self._dictionaries.get(name)
        if known is not None and [_address(b) for b in known.buffers()] == [_address(b) for b in dictionary.buffers()]:
            return int(column.indices.nbytes)
        self._dictionaries[name] = dictionary
        return int(column.indices.nbytes + dictionary.nbytes)

    def _flush(self) -> None:
        if self._writer is not None and self._waiting:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._wait()
            if self._background is not None:
                try:
                    self._writing = self._background.submit(self._write, table)
                except RuntimeError:
                    # The system gives no more threads.
                    self._background = None
            if self._background is None:
                self._write(table)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        self._dictionaries = {}

    def _write(self, table: pa.Table) -> None:
        assert self._writer is not None
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def _end_background(self) -> None:
        try:
            self._wait()
        finally:
            if self._background is not None:
                self._background.shutdown()

    def _wait(self) -> None:
        """Wait for the row group that is being written, and raise its error if it has one."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()


def _address(buffer: pa.Buffer | None) -> int | None:
    return None if buffer is None else int(buffer.address)


def _as_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column if column.type == kind else pc.cast(column, kind)


def _declared_type(kind: pa.DataType, logged: pa.DataType) -> pa.DataType:
    """Return the type that a kept column has for its readers: its type in the log, even if it was read as another."""
    if not pa.types.is_dictionary(kind) or pa.types.is_dictionary(logged):
        return kind
    return logged if is_text(kind.value_type) and is_text(logged) else kind.value_type
