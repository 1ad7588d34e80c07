"""Parquet logs, one task for each row group.

A log's footers are read once, for its plan: what is kept of each is a few numbers for a row group, so that a log of
ten thousand files plans in little memory. A task then opens its file anew, reads one row group and closes it: no file
stays open between tasks, and the last few footers are kept so that neighbouring tasks do not parse theirs again.

A row group whose decoded size is within ``ReadOptions.task_bytes`` is decoded whole, the fastest way; a larger one is
decoded piece by piece through a buffered stream, by pyarrow whichever reader is asked for, so that neither its
stored nor its decoded columns are ever held whole. (A single data page cannot be split: writers keep pages near one
megabyte.) Files are read, not mapped: mapped pages would count as this process's memory.

What a footer says is a claim. Negative or contradictory numbers are refused; a promise of too many rows leads to
pieces, which take memory only for rows that are there; a row group that delivers other than the promised rows is an
error.

A ``key=value`` folder in a path is a partition key, a column at the end of the schema: int64 if every file's value is
an integer, else string. Where a file also has a column of that name, the path's value is used, as in pyarrow, Polars,
DuckDB and Spark.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fastloss.columns.arrow import ArrowBatch
from fastloss.errors import FastlossError, ReadError, SchemaError, UsageError, nearest_names
from fastloss.sources.base import Input, ReadOptions, SourceSummary, Stamp, Task
from fastloss.sources.listing import LogFile, list_files, one_line

_STORE_CONNECTIONS = 16
_LIST_SKEW = 8
_STREAM_BYTES = 1 << 20
_STORE_STREAM_BYTES = 8 << 20
_KEPT_FOOTERS = 16
_KEPT_FOOTER_BYTES = 8 << 20
_DICTIONARY_ENCODINGS = {"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"}
_PHYSICAL_BYTES = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}


@dataclass(frozen=True, slots=True)
class _RowGroup:
    """What a footer promises of one row group's selected columns; bytes of text by leaf."""

    number: int
    first_row: int
    n_rows: int
    stored_bytes: int
    decoded_bytes: int
    text_bytes: dict[int, int]


@dataclass(frozen=True, slots=True)
class _PlannedFile:
    """What reading one file takes, for one selection of columns; the same in every process.

    `source` names the source that has read the footer: another may find another file under the same path.
    """

    source: str
    file: LogFile
    stamp: Stamp | None
    text_leaves: tuple[int, ...]
    has_lists: bool


@dataclass(frozen=True, slots=True)
class _Selection:
    """The columns asked for, and the types of the partition keys."""

    columns: tuple[str, ...]
    key_types: Mapping[str, pa.DataType]

    @property
    def stored(self) -> list[str]:
        """The columns to read from the files."""
        return list(dict.fromkeys(name for name in self.columns if name not in self.key_types))


_Plan = list[tuple[_PlannedFile, tuple[_RowGroup, ...]]]


class ParquetSource:
    """A Parquet log: files, globs, folders and URLs as one sequence of row groups.

    The first file's schema is the log's. A later file may store a selected column in another numeric width; a missing
    one or another kind of type is an error that names both files, raised before a row is read.

    Parameters
    ----------
    entries : sequence of str
        What the user named.
    options : ReadOptions
        How to read; ``skip_bad_files`` and ``task_bytes`` also shape the summary.

    Raises
    ------
    UsageError
        If nothing matches, or the reader cannot read from there.
    ReadError
        If the first file (with ``skip_bad_files``: every file) cannot be opened.
    """

    def __init__(self, entries: Sequence[str], options: ReadOptions) -> None:
        self._options = options
        self._files = list_files(entries)
        self._check_reader(options)
        self._name = uuid.uuid4().hex
        self._skipped: dict[str, str] = {}
        self._planned: tuple[tuple[str, ...], _Plan] | None = None
        self._planning = threading.Lock()
        self._key_types = _key_types(self._files)
        self._first, file_schema = self._first_schema()
        fields = [field for field in file_schema if field.name not in self._key_types]
        self._schema = pa.schema(fields + [pa.field(key, kind) for key, kind in self._key_types.items()])

    @property
    def schema(self) -> pa.Schema:
        """Columns of the first file that can be read, then the partition keys."""
        return self._schema

    def tasks(self, columns: Sequence[str], options: ReadOptions) -> Iterator[Task]:
        """Check the columns against every file, then return the tasks: files as listed, row groups in file order.

        Parameters
        ----------
        columns : sequence of str
            Columns to read, partition keys among them.
        options : ReadOptions
            How to read.

        Returns
        -------
        iterator of Task

        Raises
        ------
        SchemaError
            If a column is missing from a file, or is there under another kind of type.
        ReadError
            If a footer cannot be read or contradicts itself, and bad files are not skipped.
        """
        self._check_reader(options)
        names = tuple(columns)
        return self._tasks(self._plan(names), names, options)

    def summary(self, columns: Sequence[str], options: ReadOptions) -> SourceSummary:
        """Return the sizes of these columns as the footers promise them; raises as ``tasks`` does."""
        planned = self._plan(tuple(columns))
        row_groups = [row_group for _, groups in planned for row_group in groups]
        return SourceSummary(
            files=len(planned),
            row_groups=len(row_groups),
            rows=sum(group.n_rows for group in row_groups),
            stored_bytes=sum(group.stored_bytes for group in row_groups),
            largest_task_bytes=max((_held_bytes(g, len(columns), options) for g in row_groups), default=0),
            skipped=list(self._skipped.items()),
        )

    def inputs(self, columns: Sequence[str]) -> list[Input]:
        """Return the files whose rows the tasks of these columns give; raises as ``tasks`` does."""
        return [Input(_uri(entry.file), entry.stamp) for entry, _ in self._plan(tuple(columns))]

    def _check_reader(self, options: ReadOptions) -> None:
        if options.reader == "polars" and options.verify_checksums:
            raise UsageError("reader='polars' cannot verify checksums; use reader='pyarrow', or do not verify.")
        if options.reader == "polars" and not all(file.is_local for file in self._files):
            raise UsageError("reader='polars' reads local files only; use reader='pyarrow' for URLs.")

    def _first_schema(self) -> tuple[LogFile, pa.Schema]:
        for file in self._files:
            try:
                with _reading(file), _opened(file, self._name) as (parquet, _):
                    return file, parquet.schema_arrow
            except ReadError as error:
                self._skip_or_raise(file, error)
        causes = list(self._skipped.values())
        raise ReadError(f"no file of {len(causes)} can be read; the first: {causes[0]}")

    def _skip_or_raise(self, file: LogFile, error: ReadError) -> None:
        if not self._options.skip_bad_files:
            raise error
        self._skipped[file.origin] = str(error)

    # Planning: from footers to a few numbers

    def _plan(self, columns: tuple[str, ...]) -> _Plan:
        with self._planning:
            if self._planned is None or self._planned[0] != columns:
                self._planned = (columns, self._plan_files(columns))
            return self._planned[1]

    def _plan_files(self, columns: tuple[str, ...]) -> _Plan:
        for name in columns:
            if name not in self._schema.names:
                raise SchemaError(
                    f"column {name!r} is not in {self._first.origin!r}. {nearest_names(name, self._schema.names)}"
                )
        stored = [name for name in columns if name not in self._key_types]
        if not stored:
            raise UsageError("no column of the files is selected; select at least one beside the partition keys.")
        files = [file for file in self._files if file.origin not in self._skipped]
        self._check_keys(files, [name for name in columns if name in self._key_types])

        planned = []
        plan_file = functools.partial(self._plan_file, columns=stored)
        # A store answers each footer after some tens of milliseconds: ask for many at once.
        pool = ThreadPoolExecutor(1 if all(file.is_local for file in files) else _STORE_CONNECTIONS)
        try:
            for file, outcome in zip(files, pool.map(plan_file, files), strict=True):
                if isinstance(outcome, ReadError):
                    self._skip_or_raise(file, outcome)
                else:
                    planned.append(outcome)
        finally:
            pool.shutdown(cancel_futures=True)
        return planned

    def _check_keys(self, files: Sequence[LogFile], keys: Sequence[str]) -> None:
        for name in keys:
            having = [any(key == name for key, _ in file.keys) for file in files]
            if not all(having):
                lacking, other = files[having.index(False)].origin, files[having.index(True)].origin
                raise SchemaError(
                    f"the path {lacking!r} has no folder {name}=…, and {other!r} has one; "
                    "name files that share the key, or do without it."
                )

    def _plan_file(
        self, file: LogFile, columns: Sequence[str]
    ) -> tuple[_PlannedFile, tuple[_RowGroup, ...]] | ReadError:
        try:
            with _reading(file), _opened(file, self._name) as (parquet, size):
                leaves = self._column_leaves(file, parquet.schema_arrow, columns)
                footer = parquet.metadata
                _check_chunks(footer, size, columns)
                row_groups: list[_RowGroup] = []
                first_row = 0
                for number in range(footer.num_row_groups):
                    row_groups.append(_weigh(file, footer, number, first_row, leaves))
                    first_row += row_groups[-1].n_rows
                text_leaves = tuple(
                    leaf for kind, leaf, _ in leaves if _is_text(kind) and _reads_as_dictionary(footer, leaf)
                )
                has_lists = any(pa.types.is_nested(kind) for kind, _, _ in leaves)
                planned = _PlannedFile(self._name, file, _stamp(file), text_leaves, has_lists)
                return planned, tuple(row_groups)
        except ReadError as error:
            return error

    def _column_leaves(
        self, file: LogFile, schema: pa.Schema, columns: Sequence[str]
    ) -> list[tuple[pa.DataType, int, int]]:
        """Return type, first leaf and number of leaves of each column, after checking it against the log's schema."""
        leaf_counts = [_count_leaves(field.type) for field in schema]
        leaves = []
        for name in columns:
            positions = schema.get_all_field_indices(name)
            if not positions:
                raise SchemaError(
                    f"column {name!r} is in {self._first.origin!r} and not in {file.origin!r}; "
                    "all files of a log must have the selected columns."
                )
            if len(positions) > 1:
                raise SchemaError(
                    f"column {name!r} is in {file.origin!r} {len(positions)} times; a selected name must be unique."
                )
            kind, expected = schema.field(positions[0]).type, self._schema.field(name).type
            if _family(kind) and _family(expected) and _family(kind) != _family(expected):
                raise SchemaError(
                    f"column {name!r} has type {expected} in {self._first.origin!r} and {kind} in {file.origin!r}; "
                    "all files of a log must store the same kind of value."
                )
            leaves.append((kind, sum(leaf_counts[: positions[0]]), leaf_counts[positions[0]]))
        return leaves

    def _tasks(self, planned: _Plan, columns: tuple[str, ...], options: ReadOptions) -> Iterator[Task]:
        selection = _Selection(columns, self._key_types)
        index = 0
        for entry, row_groups in planned:
            for row_group in row_groups:
                yield Task(
                    index=index,
                    origin=entry.file.origin,
                    row_group=row_group.number,
                    first_row=0,
                    n_rows=row_group.n_rows,
                    stored_bytes=row_group.stored_bytes,
                    decoded_bytes=_held_bytes(row_group, len(columns), options),
                    read=functools.partial(_read, entry, row_group, selection, options),
                )
                index += 1


# Reading: in any process that has the plan of the file


def _read(
    entry: _PlannedFile, row_group: _RowGroup, selection: _Selection, options: ReadOptions
) -> Iterator[ArrowBatch]:
    number, promised = row_group.number, row_group.n_rows
    stored = selection.stored
    keys = dict(entry.file.keys)
    with _reading(entry.file, number):
        if _stamp(entry.file) != entry.stamp:
            raise ReadError(
                f"{entry.file.origin!r} changed after its footer was read for the plan; read a complete log."
            )
        whole = row_group.decoded_bytes <= options.task_bytes
        if options.reader == "polars" and whole:
            batches = _polars_batches(entry, row_group, stored, options)
        else:
            batches = _pyarrow_batches(entry, row_group, stored, options, whole)
        delivered = 0
        for batch in batches:
            delivered += batch.num_rows
            if delivered > promised:
                break
            if batch.num_rows:
                _check_indices(batch)
                arrays = [
                    batch.column(name)
                    if name not in selection.key_types
                    else _constant(keys[name], selection.key_types[name], batch.num_rows)
                    for name in selection.columns
                ]
                yield ArrowBatch(pa.RecordBatch.from_arrays(arrays, names=list(selection.columns)))
        if delivered != promised:
            raise ReadError(
                f"{entry.file.origin!r}, row group {number}, promises {promised} rows and delivers "
                f"{delivered}{' or more' if delivered > promised else ''}; the file is damaged."
            )


def _pyarrow_batches(
    entry: _PlannedFile, row_group: _RowGroup, columns: list[str], options: ReadOptions, whole: bool
) -> Iterator[pa.RecordBatch]:
    stream_bytes = 0 if whole else _STREAM_BYTES if entry.file.is_local else _STORE_STREAM_BYTES
    # Arrow's dictionary grows until the row group ends, whatever the pieces: many distinct texts are read plain.
    most_text = options.task_bytes // (2 * len(columns))
    text_leaves = [leaf for leaf in entry.text_leaves if whole or row_group.text_bytes[leaf] <= most_text]
    with _opened(
        entry.file,
        entry.source,
        text_leaves=text_leaves,
        stream_bytes=stream_bytes,
        checksums=options.verify_checksums,
    ) as (parquet, _):
        if whole:
            table = parquet.read_row_group(row_group.number, columns=columns, use_threads=False)
            yield from table.to_batches(max_chunksize=options.batch_rows)
        else:
            # Half for the batch that is being decoded, half for the one that the caller still holds.
            row_bytes = row_group.decoded_bytes // max(1, row_group.n_rows) + 1
            rows = options.task_bytes // (2 * row_bytes)
            if entry.has_lists:
                # Lists that stand together may be much longer than those of the whole row group are on average.
                rows //= _LIST_SKEW
            yield from parquet.iter_batches(
                batch_size=max(1, min(options.batch_rows, rows)),
                row_groups=[row_group.number],
                columns=columns,
                use_threads=False,
            )


@contextlib.contextmanager
def _opened(
    file: LogFile, source: str, *, text_leaves: Sequence[int] = (), stream_bytes: int = 0, checksums: bool = False
) -> Iterator[tuple[pq.ParquetFile, int]]:
    """Open a file for as long as the context lasts; gives the reader and the file's size in bytes."""
    with file.filesystem.open_input_file(file.path) as handle:
        identity = (source, file.path, _stamp(file))
        footer = _FOOTERS.get(identity)
        try:
            parquet = pq.ParquetFile(
                handle,
                metadata=footer,
                read_dictionary=list(text_leaves),
                buffer_size=stream_bytes,
                pre_buffer=not file.is_local and not stream_bytes,
                page_checksum_verification=checksums,
                # Spark's INT96 counts nanoseconds of a day; as nanoseconds since 1970 it would wrap after 2262.
                coerce_int96_timestamp_unit="us",
            )
        except Exception as error:
            raise ReadError(f"cannot open {file.origin!r}: {_what_it_is(handle) or one_line(error)}") from error
        if footer is None:
            _FOOTERS.put(identity, parquet.metadata)
        yield parquet, handle.size()


class _FooterCache:
    """The footers used last, a bounded number of them; safe to share between threads."""

    def __init__(self) -> None:
        self._footers: OrderedDict[object, pq.FileMetaData] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, identity: object) -> pq.FileMetaData | None:
        with self._lock:
            if identity in self._footers:
                self._footers.move_to_end(identity)
            return self._footers.get(identity)

    def put(self, identity: object, footer: pq.FileMetaData) -> None:
        with self._lock:
            self._footers[identity] = footer
            while len(self._footers) > 1 and (
                len(self._footers) > _KEPT_FOOTERS
                or sum(kept.serialized_size for kept in self._footers.values()) > _KEPT_FOOTER_BYTES
            ):
                self._footers.popitem(last=False)


# Of this process: a task opens its file wherever it is sent.
_FOOTERS = _FooterCache()


@contextlib.contextmanager
def _reading(file: LogFile, row_group: int | None = None) -> Iterator[None]:
    """Turn whatever a decoder raises into a ReadError that names the file and the row group."""
    try:
        yield
    except (FastlossError, MemoryError):
        # Memory that is short says nothing of the file.
        raise
    except Exception as error:
        where = "" if row_group is None else f", row group {row_group}"
        raise ReadError(f"cannot read {file.origin!r}{where}: {one_line(error)}") from error


def _uri(file: LogFile) -> str:
    """Return a name of the file that is the same from every folder, and through every link."""
    return Path(os.path.realpath(file.path)).as_uri() if file.is_local else file.origin


def _stamp(file: LogFile) -> Stamp | None:
    """Return what tells whether a local file has changed; an object in a store is replaced whole, if at all."""
    if not file.is_local:
        return None
    status = os.stat(file.path)
    return status.st_size, status.st_mtime_ns


def _what_it_is(handle: pa.NativeFile) -> str | None:
    """Say what a file that does not open as Parquet is, or None if that does not explain it."""
    size = handle.size()
    if size == 0:
        return "it is empty (0 bytes)"
    handle.seek(0)
    head = handle.read(4)
    handle.seek(max(0, size - 4))
    tail = handle.read(4)
    if b"PARE" in (head, tail):
        return "it is encrypted, and only unencrypted Parquet can be read"
    if head != b"PAR1":
        return f"it is not Parquet (it begins with {head!r})"
    if tail != b"PAR1":
        return "it begins as Parquet and has no footer: it is cut off, or still being written"
    return None


# What Arrow says of a file that ends too early; an exception of the file object's own would stay in memory for ever.
_TOO_SHORT = "File too short: expected to be able to read"


class _Unreadable:
    """A file object that has a size, and gives none of its bytes."""

    closed = False

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, n_bytes: int = -1) -> bytes:
        return b""

    def close(self) -> None:
        self.closed = True


def _check_chunks(footer: pq.FileMetaData, size: int, columns: Sequence[str]) -> None:
    """Let Arrow check what a footer says of each column chunk; raises what Arrow raises.

    pyarrow's metadata objects let a C++ exception through, which ends the process: a flipped bit in a chunk's size
    statistics is enough (it is thrown as in https://github.com/apache/arrow/issues/45283). Its readers turn the same
    exception into a Python one. So a reader is made to look at all chunks at once, as it does before it fetches them
    ahead, on a file that has nothing to fetch.
    """
    if footer.num_row_groups == 0:
        return
    parquet = pq.ParquetFile(_Unreadable(size), metadata=footer, pre_buffer=True)
    row_groups = range(footer.num_row_groups)
    try:
        next(parquet.iter_batches(batch_size=1, row_groups=row_groups, columns=columns, use_threads=False), None)
    except OSError as error:
        if not str(error).startswith(_TOO_SHORT):
            raise


def _weigh(
    file: LogFile, footer: pq.FileMetaData, number: int, first_row: int, leaves: Sequence[tuple[pa.DataType, int, int]]
) -> _RowGroup:
    """Return what a row group's footer promises of the selected columns, after checking it for contradictions."""
    row_group = footer.row_group(number)
    n_rows = row_group.num_rows
    stored = decoded = passing = 0
    text_bytes: dict[int, int] = {}
    contradiction = f"{n_rows} rows" if n_rows < 0 else ""
    for kind, first, count in leaves:
        for leaf in range(first, first + count):
            chunk, column = row_group.column(leaf), footer.schema.column(leaf)
            chunk_bytes, page_bytes, n_values = (
                chunk.total_compressed_size,
                chunk.total_uncompressed_size,
                chunk.num_values,
            )
            if min(chunk_bytes, page_bytes, n_values) < 0:
                contradiction = f"a negative size in column {column.path!r}"
            elif column.max_repetition_level == 0 and n_values != n_rows:
                contradiction = f"{n_rows} rows, and {n_values} values in column {column.path!r}"
            if column.physical_type == "BYTE_ARRAY":
                # Each value has an offset or an index. Each distinct one has its bytes, twice while they are copied,
                # and a slot in a hash table; a distinct value takes four bytes of a page or more.
                text_bytes[leaf] = 48 * min(n_values, page_bytes // 4 + 1) + 2 * page_bytes
                value_bytes = 8 * n_values + text_bytes[leaf]
            else:
                width = _PHYSICAL_BYTES.get(column.physical_type) or max(1, column.length)
                value_bytes = (width + _narrowed_width(kind, width)) * n_values
            levels = (column.max_definition_level > 0) + (column.max_repetition_level > 0)
            stored += chunk_bytes
            decoded += value_bytes + levels * 2 * n_values + n_values // 8 + 64
            # The column being decoded also holds its chunk, a page, and buffers up to twice as long as they will be.
            passing = max(passing, chunk_bytes + page_bytes + value_bytes)
    if contradiction:
        raise ReadError(
            f"cannot read {file.origin!r}, row group {number}: its footer promises {contradiction}; it is damaged."
        )
    decoded += passing if file.is_local else passing + stored
    return _RowGroup(number, first_row, n_rows, stored, decoded, text_bytes)


def _reads_as_dictionary(footer: pq.FileMetaData, leaf: int) -> bool:
    # Arrow cannot turn delta-encoded text into a dictionary; such a column is read plain, and encoded afterwards.
    return all(
        _DICTIONARY_ENCODINGS.issuperset(footer.row_group(number).column(leaf).encodings)
        for number in range(footer.num_row_groups)
    )


def _held_bytes(row_group: _RowGroup, n_columns: int, options: ReadOptions) -> int:
    # In pieces, each column holds a stretch of its stream, a page and its dictionary beside the batch.
    pieces = max(options.task_bytes, 4 * _STREAM_BYTES * n_columns)
    return (
        row_group.decoded_bytes
        if row_group.decoded_bytes <= options.task_bytes
        else min(row_group.decoded_bytes, pieces)
    )


def _narrowed_width(kind: pa.DataType, physical: int) -> int:
    """Return the bytes of the second array that exists for a moment where Arrow's type is not the physical one."""
    try:
        width = int(kind.bit_width) // 8
    except ValueError:
        return 0
    return width if width != physical else 0


def _check_indices(batch: pa.RecordBatch) -> None:
    # Arrow passes a damaged page's dictionary indices on as they are.
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            extremes = pc.min_max(column.indices).as_py()
            if extremes["min"] is not None and not 0 <= extremes["min"] <= extremes["max"] < len(column.dictionary):
                raise IndexError(f"a page of column {name!r} refers to dictionary entries that do not exist")


def _polars_batches(
    entry: _PlannedFile, row_group: _RowGroup, columns: list[str], options: ReadOptions
) -> Iterator[pa.RecordBatch]:
    import polars as pl
    import polars.selectors as cs

    try:
        frame = (
            pl.scan_parquet(entry.file.path, parallel="none", glob=False, hive_partitioning=False, cache=False)
            # By selector: pl.col would take a name such as "^a.*$" for a pattern.
            .select(cs.by_name(*columns))
            .slice(row_group.first_row, row_group.n_rows)
            .collect(engine="in-memory")
        )
    except pl.exceptions.PanicException as error:
        # A BaseException, which no caller's "except Exception" would stop.
        raise ReadError(
            f"cannot read {entry.file.origin!r}, row group {row_group.number}: Polars panicked ({one_line(error)}); "
            "use reader='pyarrow'."
        ) from error
    yield from frame.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches(max_chunksize=options.batch_rows)


def _constant(value: str | None, kind: pa.DataType, n_rows: int) -> pa.Array:
    if value is None:
        return pa.nulls(n_rows, kind)
    entry = pa.array([int(value) if pa.types.is_integer(kind) else value], kind)
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n_rows, dtype=np.int32)), entry)


def _key_types(files: Sequence[LogFile]) -> dict[str, pa.DataType]:
    values: dict[str, set[str | None]] = {}
    for file in files:
        for key, value in file.keys:
            values.setdefault(key, set()).add(value)
    return {key: pa.int64() if _all_integers(found) else pa.string() for key, found in values.items()}


def _all_integers(values: set[str | None]) -> bool:
    # A number with a leading zero is a name, such as a postal code: as an integer it would lose it.
    texts = [value for value in values if value is not None]
    return bool(texts) and all(
        re.fullmatch(r"-?[1-9][0-9]{0,18}|0", text) and -(2**63) <= int(text) < 2**63 for text in texts
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _family(kind: pa.DataType) -> str | None:
    """Return what a type stores, whatever the width; None for an all-null column, which may stand for anything."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return None
    if _is_text(kind):
        return "text"
    if (
        pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    ):
        return "number"
    return str(kind)


def _count_leaves(kind: pa.DataType) -> int:
    """Return the number of Parquet columns that an Arrow type takes."""
    if isinstance(kind, pa.BaseExtensionType):
        return _count_leaves(kind.storage_type)
    if pa.types.is_nested(kind):
        return sum(_count_leaves(kind.field(i).type) for i in range(kind.num_fields))
    return 1
