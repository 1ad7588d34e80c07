"""What Arrow arrays of every type share: their bits, what is null, and their values as keys."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastloss.columns.base import BoolArray, Key
from fastloss.errors import DataError


def is_text(data_type: pa.DataType) -> bool:
    """Tell whether a column of this type holds text."""
    return bool(
        pa.types.is_string(data_type) or pa.types.is_large_string(data_type) or pa.types.is_string_view(data_type)
    )


def bits_of(buffer: pa.Buffer, offset: int, n_rows: int) -> BoolArray:
    """Return n_rows bits from a bit offset on, one bool each."""
    first = offset // 8
    packed = np.frombuffer(buffer, np.uint8, (offset + n_rows + 7) // 8 - first, first)
    return np.unpackbits(packed, bitorder="little")[offset % 8 :][:n_rows].view(np.bool_)


def validity_of(column: pa.Array) -> BoolArray | None:
    """Return which rows are not null; None if all."""
    if column.null_count == 0:
        return None
    return bits_of(column.buffers()[0], column.offset, len(column))


def key_values(distinct: pa.Array) -> list[Key]:
    """Return distinct keys as None, bool, int or str."""
    data_type = distinct.type
    if pa.types.is_date(data_type) or pa.types.is_timestamp(data_type):
        # By NumPy, since Python's datetime ends at microseconds and the year 9999.
        unit = "D" if pa.types.is_date32(data_type) else "ms" if pa.types.is_date64(data_type) else data_type.unit
        ticks = pc.fill_null(distinct.view(pa.int32() if unit == "D" else pa.int64()), 0).to_numpy()
        moments = ticks.astype(np.int64).view(f"datetime64[{unit}]")
        suffix = "Z" if pa.types.is_timestamp(data_type) and data_type.tz is not None else ""
        text = np.datetime_as_string(moments.astype("datetime64[D]") if pa.types.is_date(data_type) else moments)
        return [
            _without_zeros(t) + suffix if ok else None
            for t, ok in zip(text.tolist(), distinct.is_valid().to_pylist(), strict=True)
        ]
    try:
        values = distinct.to_pylist()
    except UnicodeDecodeError as error:
        raise DataError(f"a key is not UTF-8 text ({error.reason}); write the log's text as UTF-8.") from error
    if pa.types.is_decimal(data_type):
        return [None if value is None else _without_zeros(format(value, "f")) for value in values]
    return list(values)


def _without_zeros(number: str) -> str:
    """Return a decimal text without the zeros that only tell the column's scale: equal keys of two files are one."""
    return number.rstrip("0").rstrip(".") if "." in number else number
