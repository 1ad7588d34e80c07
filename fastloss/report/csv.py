"""A result as CSV, with the columns of its Arrow table.

A null is nothing between two commas, an empty text is ``""``, and numbers read back to the same bits.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.csv

from fastloss.report.arrow import table_of
from fastloss.report.view import Reported, View


def write(result: Reported, view: View, *, as_file: bool) -> str:
    """Return a line of names, and one for each row of the Arrow table."""
    return write_table(table_of(result, view))


def write_table(table: pa.Table) -> str:
    """Return a line of names, and one for each row."""
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(table, sink)
    return str(sink.getvalue().to_pybytes().decode()).removesuffix("\n")
