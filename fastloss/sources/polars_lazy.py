"""Rows from a Polars lazy frame: its query runs with only the selected columns, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fastloss.errors import ReadError, SchemaError
from fastloss.sources.base import ReadOptions
from fastloss.sources.listing import one_line
from fastloss.sources.scans import ScanSource

if TYPE_CHECKING:
    import polars as pl

_CHUNK_ROWS = 1 << 18


def open_log(log: object, options: ReadOptions, columns: Sequence[str] | None) -> PolarsLazySource:
    """Open a lazy frame; see `fastloss.sources.open_source`."""
    return PolarsLazySource(log)


class PolarsLazySource(ScanSource):
    """A Polars lazy frame as a sequence of batches; each reading runs the query anew.

    Parameters
    ----------
    frame : polars.LazyFrame
        The query. Its memory is its own: Polars decides what it holds.

    Raises
    ------
    SchemaError
        If Polars cannot tell the query's schema.
    """

    def __init__(self, frame: Any) -> None:
        import polars as pl

        try:
            schema = frame.collect_schema()
        except Exception as error:
            raise SchemaError(f"the lazy frame gives no schema: {one_line(error)}") from error
        columns = pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        super().__init__(columns, lambda names, options: collect(frame, names))


def collect(frame: pl.LazyFrame, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Run a query for some of its columns, and yield its batches in order."""
    import polars as pl
    import polars.selectors as cs

    try:
        # In order, so that the first bad row is the same one in every run.
        for chunk in frame.select(cs.by_name(*columns)).collect_batches(chunk_size=_CHUNK_ROWS, maintain_order=True):
            # Arrow puts the columns into the order asked for: a selector keeps the frame's own.
            yield from chunk.to_arrow(compat_level=pl.CompatLevel.oldest()).select(columns).to_batches()
    except pl.exceptions.PanicException as error:
        # A BaseException, which no caller's "except Exception" would stop.
        raise ReadError(f"the lazy frame's query panicked: {one_line(error)}") from error
