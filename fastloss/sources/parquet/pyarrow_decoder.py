"""Parquet by pyarrow: refuses malformed files, reads from stores, whole or in pieces."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from fastloss.columns.arrow import ArrowBatch
from fastloss.sources.base import ReadOptions
from fastloss.sources.parquet.footers import (
    STORE_STREAM_BYTES,
    STREAM_BYTES,
    PlannedFile,
    RowGroup,
    chunk_ranges,
    opened,
)
from fastloss.sources.parquet.partitions import Selection
from fastloss.sources.stores.store import StoreFile

READS_STORES = True
READS_PIECES = True
READS_FIELDS = True
VERIFIES_CHECKSUMS = True

# Lists that stand together may be so much longer than those of the whole row group are on average.
_LIST_SKEW = 8


def read(file: PlannedFile, row_group: RowGroup, selection: Selection, options: ReadOptions) -> Iterator[ArrowBatch]:
    """Read the selected columns of a row group; see `fastloss.sources.parquet.decoders.Decoder`."""
    columns = file.names
    whole = row_group.decoded_bytes <= options.task_bytes
    stream_bytes = 0 if whole else STREAM_BYTES if file.file.is_local else STORE_STREAM_BYTES
    # Arrow's dictionary grows until the row group ends, whatever the pieces: many distinct texts are read plain.
    most_text = options.task_bytes // (2 * len(columns))
    text_leaves = [leaf for leaf in file.text_leaves if whole or row_group.text_bytes[leaf] <= most_text]
    with opened(
        file.file,
        file.source,
        content=file.content,
        text_leaves=text_leaves,
        stream_bytes=stream_bytes,
        checksums=options.verify_checksums,
    ) as (parquet, handle):
        if whole:
            if isinstance(handle, StoreFile):
                handle.fetch_ahead(chunk_ranges(parquet, row_group.number, file.columns))
            table = parquet.read_row_group(row_group.number, columns=columns, use_threads=False)
            # Cut last: a field of a struct is taken of all rows at once.
            batches = iter(table.to_batches())
        else:
            # Half for the batch that is being decoded, half for the one that the caller still holds.
            row_bytes = row_group.decoded_bytes // max(1, row_group.n_rows) + 1
            rows = options.task_bytes // (2 * row_bytes)
            if any(pa.types.is_nested(column.type) for column in file.columns):
                rows //= _LIST_SKEW
            batches = parquet.iter_batches(
                batch_size=max(1, min(options.batch_rows, rows)),
                row_groups=[row_group.number],
                columns=columns,
                use_threads=False,
            )
        for batch in batches:
            selected = selection.of_file(batch, file)
            _check_indices(selected, file)
            for first in range(0, selected.num_rows, options.batch_rows):
                yield ArrowBatch(selected.slice(first, options.batch_rows))


def _check_indices(batch: pa.RecordBatch, file: PlannedFile) -> None:
    # Arrow passes a damaged page's dictionary indices on as they are.
    for name in dict.fromkeys(stored.name for stored in file.columns):
        column = batch.column(name)
        if pa.types.is_dictionary(column.type):
            extremes = pc.min_max(column.indices).as_py()
            if extremes["min"] is not None and not 0 <= extremes["min"] <= extremes["max"] < len(column.dictionary):
                raise IndexError(f"a page of column {name!r} refers to dictionary entries that do not exist")
