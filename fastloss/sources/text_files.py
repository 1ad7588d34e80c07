"""Files of text through Polars' scanners: one task for each file, read in pieces.

A text does not say what its columns hold: Polars tells it from the first lines. A later line that does not fit is an
error. A column without a value there is taken for what the first file of the log has.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fastloss.columns.arrays import is_text
from fastloss.sources.file_log import Part
from fastloss.sources.listing import LogFile, one_line
from fastloss.sources.polars_lazy import collect

if TYPE_CHECKING:
    import polars as pl

# Opens a file, given the types of some columns.
Scan = Callable[[Mapping[str, Any]], "pl.LazyFrame"]

TYPED_LINES = 10_000


@contextlib.contextmanager
def _saying_way_out(way_out: str) -> Iterator[None]:
    import polars as pl

    try:
        yield
    except pl.exceptions.PanicException as error:
        # A BaseException, which no caller's "except Exception" would stop.
        raise ValueError(f"Polars panicked: {one_line(error)}") from error
    except pl.exceptions.ComputeError as error:
        # What Polars proposes after its first line are options that are not at hand here.
        raise ValueError(f"{one_line(error)}; {way_out}") from error


def typed_columns(scan: Scan, way_out: str) -> pa.Schema:
    """Return the columns of a file, by its first lines; the type of one without a value there is null."""
    import polars as pl

    with _saying_way_out(way_out):
        table = scan({}).head(TYPED_LINES).collect().to_arrow(compat_level=pl.CompatLevel.oldest())
    fields = [pa.field(n, pa.null() if c.null_count == len(c) else c.type) for n, c in _named_columns(table)]
    return pa.schema(fields)


def whole_file(file: LogFile) -> list[Part]:
    """Return the one part of a file."""
    return [Part(None, None, file.filesystem.get_file_info(file.path).size, None)]


def read_columns(
    file: LogFile, columns: Sequence[str], schema: pa.Schema, scan: Scan, way_out: str
) -> Iterator[pa.RecordBatch]:
    """Yield some columns of a file, batch by batch."""
    import polars as pl

    own = typed_columns(scan, way_out)
    # In the type of the log, where the first lines do not tell.
    empty = pl.DataFrame(pa.schema([f for f in schema if not pa.types.is_null(f.type)]).empty_table())
    types = {name: empty.schema[name] for name in columns if pa.types.is_null(own.field(name).type) and name in empty}
    with _saying_way_out(way_out):
        for batch in collect(scan(types), list(columns)):
            yield pa.RecordBatch.from_arrays(
                [pa.nulls(len(a)) if is_text(a.type) and a.null_count == len(a) else a for a in batch.columns],
                names=batch.schema.names,
            )


def _named_columns(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield the columns under the names that the file has: Polars renames one that comes twice."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        first = re.sub(r"_duplicated_\d+$", "", name)
        yield (first if first in table.column_names else name), column
