"""A result as CSV, with the columns of its Arrow table.

A null is nothing between two commas, an empty text is ``""``, and numbers read back to the same bits.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.csv

from fastloss.report.arrow import written
from fastloss.report.view import Reported, View


def write(result: Reported, view: View, *, as_file: bool) -> str:
    """Return a line of names, and one for each row of the Arrow table."""
    return written(result, view, write_parts, as_file=as_file).decode().removesuffix("\n")


def write_parts(schema: pa.Schema, tables: Iterator[pa.Table], sink: IO[bytes], as_file: bool) -> None:
    """Write a line of names, and one for each row."""
    with pa.csv.CSVWriter(sink, schema) as writer:
        for table in tables:
            writer.write_table(table)


def write_table(table: pa.Table) -> str:
    """Return a line of names, and one for each row."""
    sink = io.BytesIO()
    write_parts(table.schema, iter((table,)), sink, as_file=True)
    return sink.getvalue().decode().removesuffix("\n")
