"""A result as a Parquet file, with the columns of its Arrow table."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from fastloss.report.arrow import written
from fastloss.report.view import Reported, View


def write(result: Reported, view: View, *, as_file: bool) -> bytes:
    """Return the content of the file."""
    return written(result, view, write_parts, as_file=as_file)


def write_parts(schema: pa.Schema, tables: Iterator[pa.Table], sink: IO[bytes], as_file: bool) -> None:
    """Write a file of tables, each a row group."""
    # Numbers are mostly different: to look for equal ones takes as long as all the rest.
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=texts) as writer:
        for table in tables:
            writer.write_table(table)


def write_table(table: pa.Table) -> bytes:
    """Return the content of a file of a table."""
    sink = io.BytesIO()
    write_parts(table.schema, iter((table,)), sink, as_file=True)
    return sink.getvalue()
