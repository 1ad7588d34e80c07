"""Schemas of the parts of a log, compared: which types may stand for one column."""

from __future__ import annotations

import pyarrow as pa

from fastloss.columns.arrow import is_text


def family(kind: pa.DataType) -> str | None:
    """Return the kind of value that a type stores; None for an all-null column, which may stand for anything."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return None
    if is_text(kind):
        return "text"
    if (
        pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    ):
        return "number"
    return str(kind)


def are_one_family(kind: pa.DataType, other: pa.DataType) -> bool:
    """Tell whether one column may be stored under both types."""
    return None in (family(kind), family(other)) or family(kind) == family(other)
