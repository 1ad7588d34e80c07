"""Parquet by Polars, for files that the caller trusts: on a malformed one it may end the whole process."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from fastloss.columns.arrow import ArrowBatch
from fastloss.errors import ReadError
from fastloss.sources.base import ReadOptions
from fastloss.sources.listing import one_line
from fastloss.sources.parquet.footers import PlannedFile, RowGroup
from fastloss.sources.parquet.partitions import Selection

READS_STORES = False
READS_PIECES = False
READS_FIELDS = False
VERIFIES_CHECKSUMS = False


def read(file: PlannedFile, row_group: RowGroup, selection: Selection, options: ReadOptions) -> Iterator[ArrowBatch]:
    """Read the selected columns of a row group; see `fastloss.sources.parquet.decoders.Decoder`."""
    import polars as pl
    import polars.selectors as cs

    try:
        frame = (
            pl.scan_parquet(file.file.path, parallel="none", glob=False, hive_partitioning=False, cache=False)
            # By selector: pl.col would take a name such as "^a.*$" for a pattern.
            .select(cs.by_name(*file.names))
            .slice(row_group.first_row, row_group.n_rows)
            .collect(engine="in-memory")
        )
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    except pl.exceptions.PanicException as error:
        # A BaseException, which no caller's "except Exception" would stop.
        raise ReadError(
            f"cannot read {file.file.origin!r}, row group {row_group.number}: Polars panicked ({one_line(error)}); "
            "use reader='pyarrow'."
        ) from error
    for column in file.columns:
        name, kind = column.name, column.type
        position = table.schema.get_field_index(name)
        if pa.types.is_date(kind) and pa.types.is_timestamp(table.field(position).type):
            # Polars has no date64: it reads a day's first millisecond, which as a key would be another text.
            table = table.set_column(position, name, table.column(position).cast(kind))
    for batch in table.to_batches(max_chunksize=options.batch_rows):
        yield ArrowBatch(selection.of_file(batch, file))
