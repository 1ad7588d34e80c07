"""Schemas of the parts of a log, compared: which types may stand for one column, and which type they are together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from fastloss.columns.arrays import is_text
from fastloss.columns.arrow import is_list_type
from fastloss.errors import SchemaError
from fastloss.sources.base import ColumnTypes

_UNITS = ("s", "ms", "us", "ns")
_INTEGER_DIGITS = 20
_DECIMAL128_DIGITS = 38
_DECIMAL256_DIGITS = 76


def family(kind: pa.DataType) -> str | None:
    """Return the kind of value that a type stores; None for an all-null column, which may stand for anything."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return None
    if is_text(kind):
        return "text"
    if _is_number(kind):
        return "number"
    # As keys, moments of every unit and zone are written alike; but a time without a zone is no moment.
    if pa.types.is_timestamp(kind):
        return "time" if kind.tz is None else "moment"
    return "date" if pa.types.is_date(kind) else str(kind)


def are_one_family(kind: pa.DataType, other: pa.DataType) -> bool:
    """Tell whether one column may be stored under both types."""
    if is_list_type(kind) and is_list_type(other):
        return are_one_family(kind.value_type, other.value_type)
    return None in (family(kind), family(other)) or family(kind) == family(other)


def unified(kinds: Iterable[pa.DataType]) -> pa.DataType:
    """Return the type that stands for all of one family, whatever their order.

    Numbers of different types are float64; but floats alone are the widest of them, integers and booleans alone int64
    or uint64, and these with decimals a decimal. So a column that one file stores as float32 and another as float64
    has the precision of float64. Types of several families have no such type, and the first is returned.
    """
    found = [kind for kind in dict.fromkeys(kinds) if not pa.types.is_null(kind)]
    if len(found) < 2:
        return found[0] if found else pa.null()
    found = list(dict.fromkeys(kind.value_type if pa.types.is_dictionary(kind) else kind for kind in found))
    first = found[0]
    if len(found) == 1 or not all(are_one_family(first, kind) for kind in found):
        return first
    if is_list_type(first):
        return pa.list_(unified(kind.value_type for kind in found))
    if is_text(first):
        return pa.large_string() if any(map(pa.types.is_large_string, found)) else pa.string()
    if pa.types.is_timestamp(first):
        zones = {kind.tz for kind in found}
        unit = max((kind.unit for kind in found), key=_UNITS.index)
        return pa.timestamp(unit, zones.pop() if len(zones) == 1 else "UTC")
    if pa.types.is_date(first):
        return pa.date32()
    return _unified_number(found) if _is_number(first) else first


def check_keys(columns: Sequence[ColumnTypes], keys: Sequence[str]) -> None:
    """Refuse keys of slices and groups that files store as values written differently: true is not 1, 1 is not "1".

    Raises
    ------
    SchemaError
        If there is one; the message names two files.
    """
    for types in columns:
        if types.name not in keys:
            continue
        written: dict[str, tuple[pa.DataType, str]] = {}
        for kind, _, first in types.stored:
            if kind is not None and not pa.types.is_null(kind):
                written.setdefault(_written_as(kind), (kind, first))
        if len(written) > 1:
            (kind, first), (other, other_first), *_ = written.values()
            raise SchemaError(
                f"the key {types.name!r} has type {kind} in {first!r} and {other} in {other_first!r}, which are "
                "written differently as keys; cast one of them when the log is written."
            )


def _written_as(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_decimal, pa.types.is_floating)
    return next((test.__name__ for test in tests if test(kind)), family(kind) or "")


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _unified_number(kinds: Sequence[pa.DataType]) -> pa.DataType:
    if all(map(pa.types.is_floating, kinds)):
        return max(kinds, key=lambda kind: kind.bit_width)
    if all(pa.types.is_integer(kind) or pa.types.is_boolean(kind) for kind in kinds):
        integers = list(filter(pa.types.is_integer, kinds))
        return pa.uint64() if all(map(pa.types.is_unsigned_integer, integers)) else pa.int64()
    decimals = list(filter(pa.types.is_decimal, kinds))
    if not any(map(pa.types.is_floating, kinds)):
        scale = max(kind.scale for kind in decimals)
        whole = [kind.precision - kind.scale for kind in decimals]
        digits = scale + max(whole if len(decimals) == len(kinds) else [*whole, _INTEGER_DIGITS])
        if digits <= _DECIMAL128_DIGITS:
            return pa.decimal128(digits, scale)
        return pa.decimal256(min(digits, _DECIMAL256_DIGITS), scale)
    return pa.float64()
