"""Footers: read once for the plan, checked for contradictions, and kept as a few numbers for each row group.

What a footer says is a claim. Negative or contradictory numbers are refused here; that the promised rows are there is
checked when they are read.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from fastloss.columns.arrays import is_text
from fastloss.errors import FastlossError, ReadError, UsageError
from fastloss.files import Stamp, stamp
from fastloss.sources.base import ReadOptions
from fastloss.sources.listing import LogFile, one_line
from fastloss.sources.stores.store import StoreFile

# Size in bytes, and the time of change in nanoseconds; of a file in a store its entity tag, if it has one.
Content = tuple[int, int | str | None]

STREAM_BYTES = 1 << 20
STORE_STREAM_BYTES = 8 << 20
_KEPT_FOOTERS = 16
_KEPT_FOOTER_BYTES = 8 << 20
_DICTIONARY_ENCODINGS = {"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"}
_PHYSICAL_BYTES = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}


class StoredColumn(NamedTuple):
    """A selected column as a file has it.

    Attributes
    ----------
    name : str
        The name that was asked for.
    type : pyarrow.DataType
        Its Arrow type.
    first_leaf, n_leaves : int
        Where its Parquet columns, the leaves, are.
    column : str
        The file's column that holds it.
    steps : tuple of str or None
        The way from there to the field that is meant, as `fastloss.columns.nested.ColumnPath` has it; empty for the
        column itself.
    """

    name: str
    type: pa.DataType
    first_leaf: int
    n_leaves: int
    column: str
    steps: tuple[str | None, ...] = ()


class Footer(NamedTuple):
    """A file's footer, as long as it is needed for the plan; sizes in bytes."""

    file: LogFile
    content: Content
    size: int
    metadata: pq.FileMetaData
    columns: tuple[StoredColumn, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What Arrow is asked to read: columns by name, fields of structs by the paths of their leaves."""
        # Files of one Arrow schema may call the elements of a list otherwise: "element", "item", "array_element".
        schema = self.metadata.schema
        return tuple(
            name
            for column in self.columns
            for name in (
                [schema.column(column.first_leaf + i).path for i in range(column.n_leaves)]
                if column.steps
                else [column.column]
            )
        )


@dataclass(frozen=True, slots=True)
class RowGroup:
    """The promises of a footer for one row group's selected columns; bytes of text by leaf."""

    number: int
    first_row: int
    n_rows: int
    stored_bytes: int
    decoded_bytes: int
    text_bytes: dict[int, int]


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """All that is needed to read one file, for one selection of columns; the same in every process.

    `source` names the source that has read the footer: another may find another file under the same path. `names` is
    what Arrow is asked to read.
    """

    source: str
    file: LogFile
    content: Content
    columns: tuple[StoredColumn, ...]
    names: tuple[str, ...]
    text_leaves: tuple[int, ...]


class _FooterCache:
    """The footers used last, a bounded number of them; safe to share between threads."""

    def __init__(self) -> None:
        self._footers: OrderedDict[object, pq.FileMetaData] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def get(self, identity: object) -> pq.FileMetaData | None:
        with self._lock:
            if identity in self._footers:
                self._footers.move_to_end(identity)
            return self._footers.get(identity)

    def put(self, identity: object, footer: pq.FileMetaData) -> None:
        with self._lock:
            if identity not in self._footers:
                self._n_bytes += footer.serialized_size
            self._footers[identity] = footer
            while len(self._footers) > 1 and (
                len(self._footers) > _KEPT_FOOTERS or self._n_bytes > _KEPT_FOOTER_BYTES
            ):
                self._n_bytes -= self._footers.popitem(last=False)[1].serialized_size


# Of this process: a task opens its file wherever it is sent.
_FOOTERS = _FooterCache()


@contextlib.contextmanager
def opened(
    file: LogFile,
    source: str,
    *,
    content: Content | None = None,
    text_leaves: Sequence[int] = (),
    stream_bytes: int = 0,
    checksums: bool = False,
) -> Iterator[tuple[pq.ParquetFile, pa.NativeFile | StoreFile]]:
    """Open a file for as long as the context lasts; gives the reader and the open file.

    With `content`, a file in a store must be that one, when it is opened and when it has been read.
    """
    with file.filesystem.open_input_file(file.path) as handle:
        found = content_of(file, handle)
        if content is not None and not file.is_local and found != content:
            raise changed(file)
        identity = (source, file.path, found)
        footer = _FOOTERS.get(identity)
        try:
            parquet = pq.ParquetFile(
                handle,
                metadata=footer,
                read_dictionary=list(text_leaves),
                buffer_size=stream_bytes,
                # A store's file fetches ahead by itself: Arrow reads a file of Python one range after another.
                pre_buffer=not file.is_local and not stream_bytes and not isinstance(handle, StoreFile),
                page_checksum_verification=checksums,
                # Spark's INT96 counts nanoseconds of a day; as nanoseconds since 1970 it would wrap after 2262.
                coerce_int96_timestamp_unit="us",
            )
        except FastlossError:
            raise
        except Exception as error:
            raise ReadError(f"cannot open {file.origin!r}: {_what_it_is(handle) or one_line(error)}") from error
        if footer is None:
            _FOOTERS.put(identity, parquet.metadata)
        yield parquet, handle
        if content is not None and isinstance(handle, StoreFile):
            handle.check_unchanged()


@contextlib.contextmanager
def reading(file: LogFile, row_group: int | None = None) -> Iterator[None]:
    """Turn any error of a decoder into a ReadError that names the file and the row group."""
    try:
        yield
    except (FastlossError, MemoryError):
        # Memory that is short says nothing of the file.
        raise
    except Exception as error:
        if "Failed to launch worker thread" in str(error):
            raise UsageError(
                "Arrow cannot start the thread that it reads with: this user's limit on processes is reached; "
                "raise it (ulimit -u), or end other processes."
            ) from error
        where = "" if row_group is None else f", row group {row_group}"
        raise ReadError(f"cannot read {file.origin!r}{where}: {one_line(error)}") from error


def changed(file: LogFile) -> ReadError:
    """Return the error of a file that is not the one that was planned."""
    return ReadError(f"{file.origin!r} changed after its footer was read for the plan; read a complete log.")


def content_of(file: LogFile, handle: pa.NativeFile | StoreFile | None = None) -> Content:
    """Return what tells whether a file has changed; of a file in a store that is open, what its store says of it."""
    if isinstance(handle, StoreFile):
        return handle.content
    if file.is_local:
        status = os.stat(file.path)
        return status.st_size, status.st_mtime_ns
    return stamp(file).content


def stamp_of(file: LogFile, content: Content) -> Stamp:
    """Return the identity of a file as it was planned, or as it is now if it lies in a store."""
    size, mark = content
    return (
        Stamp(os.path.realpath(file.path), size, mark) if file.is_local and not isinstance(mark, str) else stamp(file)
    )


def chunk_ranges(parquet: pq.ParquetFile, row_group: int, columns: Sequence[StoredColumn]) -> list[tuple[int, int]]:
    """Return where the chunks of a row group's columns lie: first byte and size of each."""
    chunks = parquet.metadata.row_group(row_group)
    leaves = [chunks.column(column.first_leaf + i) for column in columns for i in range(column.n_leaves)]
    return [(_first_byte(chunk), int(chunk.total_compressed_size)) for chunk in leaves]


def plan_file(source: str, footer: Footer) -> tuple[PlannedFile, tuple[RowGroup, ...]]:
    """Return what reading these columns of a file takes; `source` names the source that has read the footer.

    Raises
    ------
    ReadError
        If the footer contradicts itself.
    """
    metadata = footer.metadata
    row_groups: list[RowGroup] = []
    first_row = 0
    for number in range(metadata.num_row_groups):
        row_groups.append(_weigh(footer, number, first_row))
        first_row += row_groups[-1].n_rows
    text_leaves = tuple(
        column.first_leaf
        for column in footer.columns
        if is_text(column.type)
        and not _is_part_of_another(column, footer.columns)
        and _reads_as_dictionary(metadata, column.first_leaf)
    )
    planned = PlannedFile(source, footer.file, footer.content, footer.columns, footer.names, text_leaves)
    return planned, tuple(row_groups)


def _is_part_of_another(column: StoredColumn, columns: Sequence[StoredColumn]) -> bool:
    """Tell whether a struct that holds this field is selected too: it is kept as it is stored."""
    return bool(column.steps) and any(
        other.steps != column.steps and other.first_leaf <= column.first_leaf < other.first_leaf + other.n_leaves
        for other in columns
    )


def _what_it_is(handle: pa.NativeFile | StoreFile) -> str | None:
    """Say what a file that does not open as Parquet is, or None if that does not explain it."""
    size = handle.size()
    if size == 0:
        return "it is empty (0 bytes)"
    handle.seek(0)
    head = bytes(handle.read(4))
    handle.seek(max(0, size - 4))
    tail = bytes(handle.read(4))
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


def find_damage(footers: Sequence[Footer]) -> list[ReadError | None]:
    """Return for each footer what Arrow finds wrong with its column chunks, or None.

    Footers of one schema are checked as one, in the time that one of them takes; each alone only if that finds damage.
    """
    alike: dict[object, list[Footer]] = {}
    for footer in footers:
        # What is selected tells schemas apart that differ; where others differ, each is checked alone.
        alike.setdefault((footer.names, id(footer.columns)), []).append(footer)
    found: dict[int, ReadError | None] = {}
    for some in alike.values():
        if len(some) > 1 and all(footer.file.is_local for footer in some) and _are_sound(some):
            found |= dict.fromkeys(map(id, some))
            continue
        for footer in some:
            try:
                with reading(footer.file):
                    _check_chunks(footer.metadata, footer.size, footer.names)
                found[id(footer)] = None
            except ReadError as error:
                found[id(footer)] = error
    return [found[id(footer)] for footer in footers]


def _are_sound(footers: Sequence[Footer]) -> bool:
    names = footers[0].names
    try:
        # A footer of its own: the others' row groups are added to it.
        with footers[0].file.filesystem.open_input_file(footers[0].file.path) as handle:
            together = pq.ParquetFile(handle).metadata
        for footer in footers:
            together.append_row_groups(footer.metadata)
        # (That each chunk lies within its own file is checked where it is weighed.)
        _check_chunks(together, max(footer.size for footer in footers), names)
    except Exception:
        return False
    return True


def _check_chunks(footer: pq.FileMetaData, size: int, names: Sequence[str]) -> None:
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
        next(parquet.iter_batches(batch_size=1, row_groups=row_groups, columns=names, use_threads=False), None)
    except OSError as error:
        if not str(error).startswith(_TOO_SHORT):
            raise


def _weigh(footer: Footer, number: int, first_row: int) -> RowGroup:
    """Return what a row group's footer promises of the selected columns, after checking it for contradictions."""
    file, schema = footer.file, footer.metadata.schema
    row_group = footer.metadata.row_group(number)
    n_rows = row_group.num_rows
    stored = decoded = passing = 0
    text_bytes: dict[int, int] = {}
    contradiction = f"{n_rows} rows" if n_rows < 0 else ""
    for selected in footer.columns:
        kind, first = selected.type, selected.first_leaf
        for leaf in range(first, first + selected.n_leaves):
            chunk, column = row_group.column(leaf), schema.column(leaf)
            chunk_bytes, page_bytes, n_values = (
                chunk.total_compressed_size,
                chunk.total_uncompressed_size,
                chunk.num_values,
            )
            if min(chunk_bytes, page_bytes, n_values) < 0:
                contradiction = f"a negative size in column {column.path!r}"
            elif _first_byte(chunk) + chunk_bytes > footer.size:
                contradiction = f"more of column {column.path!r} than the file has"
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
    return RowGroup(number, first_row, n_rows, stored, decoded, text_bytes)


def _first_byte(chunk: pq.ColumnChunkMetaData) -> int:
    first, dictionary = int(chunk.data_page_offset), chunk.dictionary_page_offset
    return int(dictionary) if dictionary is not None and 0 < dictionary < first else first


def _reads_as_dictionary(footer: pq.FileMetaData, leaf: int) -> bool:
    # Arrow cannot turn delta-encoded text into a dictionary; such a column is read plain, and encoded afterwards.
    return all(
        _DICTIONARY_ENCODINGS.issuperset(footer.row_group(number).column(leaf).encodings)
        for number in range(footer.num_row_groups)
    )


def held_bytes(row_group: RowGroup, n_columns: int, options: ReadOptions) -> int:
    """Return the bytes that reading a row group holds at once, from above."""
    # In pieces, each column holds a stretch of its stream, a page and its dictionary beside the batch.
    pieces = max(options.task_bytes, 4 * STREAM_BYTES * n_columns)
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
