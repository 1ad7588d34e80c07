"""Arrow IPC and Feather files: one task for each record batch of a file, one for the whole of a stream.

A file has a footer that tells where its batches are; a stream has none, and is read from its beginning. Of a batch,
the selected columns alone are read and decompressed. A batch whose columns exceed ``ReadOptions.task_bytes`` is mapped
if its file is local and not compressed: the system can take back the pages that were read.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from fastloss.sources.base import ReadOptions
from fastloss.sources.file_log import Part, check_array
from fastloss.sources.listing import LogFile

READS_STORES = True

_FILE_MAGIC = b"ARROW1"
_STREAM_MAGIC = b"\xff\xff\xff\xff"
_END_OF_STREAM_BYTES = (8, 4)
# Where the first message of a file begins, and positions of fields in Arrow's Message.fbs.
_FIRST_MESSAGE = 8
_MESSAGE_HEADER = 2
_BATCH_COMPRESSION = 3


def schema(file: LogFile) -> pa.Schema:
    """Return the columns of a file or a stream."""
    with _opened(file) as (reader, _):
        return reader.schema


def parts(file: LogFile, columns: Sequence[str], options: ReadOptions) -> list[Part]:
    """Return the record batches of a file; the whole of a stream, which does not tell them."""
    with _opened(file) as (reader, handle):
        is_file, size, found = _has_footer(reader), handle.size(), reader.schema
    if not is_file:
        return [Part(None, None, size, None)]
    rows = _row_counts(file, found)
    row_bytes = _row_bytes(file, columns, rows)
    is_mapped = max(rows, default=0) * row_bytes > options.task_bytes and _is_plain(file)
    n_bytes = [round(n_rows * row_bytes) for n_rows in rows]
    return [
        Part(number, n_rows, stored, options.task_bytes if is_mapped and stored > options.task_bytes else 2 * stored)
        for number, (n_rows, stored) in enumerate(zip(rows, n_bytes, strict=True))
    ]


def read(
    file: LogFile, part: Part, columns: Sequence[str], schema: pa.Schema, options: ReadOptions
) -> Iterator[pa.RecordBatch]:
    """Read some columns of a record batch, or of a stream; see `fastloss.sources.file_log.FileReader`."""
    if part.number is None:
        yield from _read_stream(file, columns)
        return
    if part.decoded_bytes is not None and part.decoded_bytes < part.stored_bytes:
        # Planned as mapped. Not narrowed: that would copy, and a column that nobody looks at takes no memory.
        with pa.memory_map(file.path) as handle:
            yield _checked(pa.ipc.open_file(handle).get_batch(part.number).select(columns))
        return
    with _opened(file, columns) as (reader, _):
        yield _checked(reader.get_batch(part.number).select(columns))


@contextlib.contextmanager
def _opened(file: LogFile, columns: Sequence[str] | None = None) -> Iterator[tuple[Any, pa.NativeFile]]:
    """Open a file or a stream, narrowed to some columns."""
    with file.filesystem.open_input_file(file.path) as handle:
        opener = _opener(handle)
        reader = opener(handle)
        if columns is not None:
            # By position, so that a name with a dot is no path.
            positions = [reader.schema.get_field_index(name) for name in columns]
            handle.seek(0)
            options = pa.ipc.IpcReadOptions(included_fields=positions, use_threads=False)
            reader = opener(handle, options=options)
        yield reader, handle


def _opener(handle: pa.NativeFile) -> Any:
    head = handle.read(8)
    handle.seek(0)
    if head.startswith(_FILE_MAGIC):
        return pa.ipc.open_file
    if head.startswith(_STREAM_MAGIC):
        return pa.ipc.open_stream
    if not head:
        raise ValueError("it is empty (0 bytes)")
    if head.startswith(b"FEA1"):
        raise ValueError("it is Feather of version 1, and version 2 is read; write it anew, by pyarrow or pandas")
    raise ValueError(f"it is no Arrow IPC file (it begins with {head[:6]!r})")


def _has_footer(reader: Any) -> bool:
    return isinstance(reader, pa.ipc.RecordBatchFileReader)


def _row_counts(file: LogFile, schema: pa.Schema) -> list[int]:
    """Return the rows of each record batch, by its narrowest column."""
    if not len(schema):
        raise ValueError("it has no columns")
    narrowest = min(range(len(schema)), key=lambda position: _width(schema.field(position).type))
    with file.filesystem.open_input_file(file.path) as handle:
        options = pa.ipc.IpcReadOptions(included_fields=[narrowest], use_threads=False)
        reader = pa.ipc.open_file(handle, options=options)
        return [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]


def _width(kind: pa.DataType) -> int:
    try:
        return int(kind.bit_width)
    except ValueError:
        return 1 << 30


def _row_bytes(file: LogFile, columns: Sequence[str], rows: Sequence[int]) -> float:
    """Return the bytes of a row of these columns, by the first batch that has rows."""
    number = next((number for number, n_rows in enumerate(rows) if n_rows), None)
    if number is None:
        return 0.0
    with _opened(file, columns) as (reader, _):
        return float(reader.get_batch(number).nbytes) / rows[number]


def _is_plain(file: LogFile) -> bool:
    """Say whether a file is on this machine, and its first record batch not compressed: mapped, it takes no memory."""
    if not file.is_local:
        return False
    with pa.memory_map(file.path) as handle:
        handle.seek(_FIRST_MESSAGE)
        for message in pa.ipc.MessageReader.open_stream(handle):
            if message.type == "record batch":
                return not _is_compressed(message.metadata)
    return False


def _is_compressed(metadata: pa.Buffer) -> bool:
    """Say whether a record batch is compressed, by its metadata: a flatbuffer, from which pyarrow does not tell it."""
    data = memoryview(metadata)

    def number(kind: str, at: int) -> int:
        return int(struct.unpack_from(kind, data, at)[0])

    def field(table: int, index: int) -> int | None:
        offsets = table - number("<i", table)
        slot = 4 + 2 * index
        offset = number("<H", offsets + slot) if slot < number("<H", offsets) else 0
        return table + offset if offset else None

    header = field(number("<I", 0), _MESSAGE_HEADER)
    return header is not None and field(header + number("<I", header), _BATCH_COMPRESSION) is not None


def _read_stream(file: LogFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with _opened(file, columns) as (reader, handle):
        n_rows = 0
        while True:
            before = handle.tell()
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                break
            yield _checked(batch.select(columns))
            n_rows += batch.num_rows
        # A stream that is cut between two batches reads well; so does one that another was appended to.
        if handle.tell() - before not in _END_OF_STREAM_BYTES:
            raise ValueError(
                f"it ends after {n_rows} rows without the mark of an end: it is cut off, or being written"
            )
        if handle.tell() != handle.size():
            raise ValueError(f"more follows after its end at {n_rows} rows; write each stream to a file of its own")


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([check_array(array) for array in batch.columns], names=batch.schema.names)
