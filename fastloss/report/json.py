"""A result as a JSON object."""

from __future__ import annotations

import json
import math
from typing import IO, Any

import pyarrow as pa

from fastloss.report.view import Reported, View, selected


def write(result: Reported, view: View, *, as_file: bool) -> str:
    """Return all that a result says of the slices."""
    return selected(result, view).to_json(indent=2)


def write_to(result: Reported, view: View, sink: IO[bytes]) -> None:
    """Write the same, some values at a time."""
    for text in selected(result, view).json_parts(indent=2):
        sink.write(text.encode())
    sink.write(b"\n")


def write_table(table: pa.Table) -> str:
    """Return a table of data as a list of objects, one a line; ±inf are strings, as in a result."""
    rows = [json.dumps({k: _plain(v) for k, v in row.items()}, ensure_ascii=False) for row in table.to_pylist()]
    return "\n".join(["[", ",\n".join(rows), "]"]) if rows else "[]"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value if isinstance(value, str | int | float | None) else str(value)
