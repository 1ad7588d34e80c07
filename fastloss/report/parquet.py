"""A result as a Parquet file, with the columns of its Arrow table."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from fastloss.report.arrow import table_of
from fastloss.report.view import Reported, View


def write(result: Reported, view: View, *, as_file: bool) -> bytes:
    """Return the content of the file."""
    return write_table(table_of(result, view))


def write_table(table: pa.Table) -> bytes:
    """Return the content of a file of a table."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content
