"""Arrow columns as NumPy arrays: numbers in a type that float64 holds exactly, keys as codes.

`ArrowBatch` reads a record batch; the functions below it convert one column each.

A decimal column takes one of two routes, both correctly rounded. An unscaled integer of at most 2**53 with a scale of
0 to 22 is divided by the power of ten: both are exact in float64, so the division rounds once. Any other goes through
its decimal text, which Arrow parses with correct rounding. (Arrow's own cast from decimal to float64 rounds twice.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastloss.columns.arrays import bits_of, is_text, key_values, validity_of
from fastloss.columns.base import (
    NUMBER_TYPES,
    BoolArray,
    CodeArray,
    Float64Array,
    GroupKeys,
    IntegerArray,
    Key,
    Keys,
    ListKeys,
    Lists,
    NumberArray,
    Numbers,
)
from fastloss.columns.group_keys import group_keys_of, group_values_of, key_range_of
from fastloss.errors import DataError, SchemaError
from fastloss_kernels.cpu.slices import make_find_integers

if TYPE_CHECKING:
    import polars as pl

_EXACT_INTEGER = 2**53
_EXACT_POWER_OF_TEN = 22
# Finding which entries occur costs more than turning this many into keys.
_SHORT_DICTIONARY = 1024
# From here on, a hash table of our own is worth loading its kernel.
_MANY_ROWS = 1 << 15
# Of so many rows of a batch, it is seen whether most keys differ.
_SAMPLE_ROWS = 1 << 12


class ArrowBatch:
    """An Arrow record batch as a `fastloss.columns.base.Batch`.

    Parameters
    ----------
    record_batch : pyarrow.RecordBatch
        The rows. It stays in reach, for whoever keeps a column as the log has it.
    held : polars.Series of booleans, shape (n_read,), optional
        Which of the rows that were read these are; left out, no row was left out.
    n_read : int, optional
        How many were read.
    """

    def __init__(
        self, record_batch: pa.RecordBatch, *, held: pl.Series | None = None, n_read: int | None = None
    ) -> None:
        self.record_batch = record_batch
        self._held = held
        self.n_read = int(record_batch.num_rows) if n_read is None else n_read
        self._numbers: dict[str, Numbers] = {}
        self._lists: dict[str, Lists] = {}
        self._keys: dict[str, Keys] = {}
        self._group_keys: dict[tuple[str, ...], GroupKeys] = {}

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return int(self.record_batch.num_rows)

    @cached_property
    def kept(self) -> IntegerArray | None:
        """The position of each row among those that were read; None if no row was left out."""
        # Few batches are asked: those in which a row is dropped.
        return None if self._held is None else np.flatnonzero(self._held.fill_null(False).to_numpy())

    @property
    def list_columns(self) -> Sequence[str]:
        """The columns that hold lists."""
        return [field.name for field in self.record_batch.schema if is_list_type(field.type)]

    def numbers(self, column: str) -> Numbers:
        """Return a column of numbers; see `to_numbers`."""
        if column not in self._numbers:
            self._numbers[column] = to_numbers(self.record_batch.column(column), column)
        return self._numbers[column]

    def lists(self, column: str) -> Lists:
        """Return a column of lists; see `to_lists`."""
        if column not in self._lists:
            self._lists[column] = to_lists(self.record_batch.column(column), column)
        return self._lists[column]

    def list_lengths(self, column: str) -> IntegerArray:
        """Return the length of each list of a column, 0 where null, without converting its numbers."""
        return _list_lengths(self.record_batch.column(column))

    def keys(self, column: str) -> Keys:
        """Return a column of keys; see `encode_keys`."""
        if column not in self._keys:
            self._keys[column] = encode_keys(self.record_batch.column(column), column)
        return self._keys[column]

    def list_keys(self, column: str) -> ListKeys:
        """Return a column of lists of keys; see `encode_keys`."""
        lists = self.record_batch.column(column)
        return ListKeys(encode_keys(lists.flatten(), column), _list_offsets(lists), validity_of(lists))

    def group_keys(self, columns: Sequence[str], types: Mapping[str, pa.DataType] | None = None) -> GroupKeys:
        """Return the group key of each row; see `fastloss.columns.group_keys.group_keys_of`."""
        names = tuple(columns)
        if names not in self._group_keys:
            self._group_keys[names] = group_keys_of(self.record_batch, names, types)
        return self._group_keys[names]

    def key_range(self, column: str, types: Mapping[str, pa.DataType] | None = None) -> tuple[Any, Any]:
        """Return the least and the greatest value of a column; see `fastloss.columns.group_keys.key_range_of`."""
        return key_range_of(self.record_batch, column, types)

    def group_values(
        self, columns: Sequence[str], rows: IntegerArray, types: Mapping[str, pa.DataType] | None = None
    ) -> list[pa.Array]:
        """Return the values of a group key in some rows; see `fastloss.columns.group_keys.group_values_of`."""
        return group_values_of(self.record_batch, columns, rows, types)

    def slice(self, first: int, n_rows: int) -> ArrowBatch:
        """Return `n_rows` rows from the row `first` on, nothing of them converted yet."""
        some = self.record_batch.slice(first, n_rows)
        if self._held is None or self.kept is None:
            return ArrowBatch(some)
        start = int(self.kept[first - 1]) + 1 if first else 0
        stop = first + some.num_rows
        end = self.n_read if stop == self.n_rows else int(self.kept[stop - 1]) + 1
        return ArrowBatch(some, held=self._held[start:end], n_read=end - start)


def check_numeric_type(name: str, data_type: pa.DataType) -> None:
    """Check that a column of this type can become float64.

    Parameters
    ----------
    name : str
        The column, for the message.
    data_type : pyarrow.DataType
        Its type.

    Raises
    ------
    SchemaError
        If it is none of float, integer, bool, decimal, all-null, or a dictionary of these.
    """
    value_type = data_type.value_type if pa.types.is_dictionary(data_type) else data_type
    if not (_is_fixed_number(value_type) or pa.types.is_decimal(value_type) or pa.types.is_null(value_type)):
        raise SchemaError(
            f"column {name!r} has type {data_type}; numbers are needed (float, integer, bool or decimal). "
            "Name another column, or an expression such as cast(x as double)."
        )


def check_key_type(name: str, data_type: pa.DataType) -> None:
    """Check that a column of this type can be a slice or group key.

    Parameters
    ----------
    name : str
        The column, for the message.
    data_type : pyarrow.DataType
        Its type.

    Raises
    ------
    SchemaError
        If it is none of string, integer, bool, date, timestamp, decimal, all-null, or a dictionary of these.
    """
    value_type = data_type.value_type if pa.types.is_dictionary(data_type) else data_type
    if pa.types.is_floating(value_type):
        raise SchemaError(
            f"column {name!r} has type {data_type}, and a key must not be floating point: equal keys would depend on "
            "the last bit. Put it into buckets (width_bucket, cut, qcut), or cast it to an integer or a string."
        )
    if not (
        is_text(value_type)
        or pa.types.is_integer(value_type)
        or pa.types.is_boolean(value_type)
        or pa.types.is_date(value_type)
        or pa.types.is_timestamp(value_type)
        or pa.types.is_decimal(value_type)
        or pa.types.is_null(value_type)
    ):
        raise SchemaError(
            f"column {name!r} has type {data_type}; a key must be string, integer, bool, date, timestamp or decimal. "
            "Name another column, or an expression such as cast(x as text)."
        )


def to_numbers(column: pa.Array, name: str) -> Numbers:
    """Return a column's numbers without rounding.

    Arrow's buffer itself is returned where it serves: a float64, float32 or int8 column without nulls is not copied.
    NaN, infinities and negative zero pass unchanged; a null is not a NaN.

    Parameters
    ----------
    column : pyarrow.Array, shape (n_rows,)
        Float, integer, bool, decimal, all-null, or a dictionary of these; slices and offsets are respected.
    name : str
        The column, for messages.

    Raises
    ------
    SchemaError
        If the type is not numeric.
    DataError
        If a 64-bit integer beyond 2**53 in magnitude is present, which float64 cannot hold exactly.
    """
    values, valid = _numbers(column, name)
    if values.dtype == np.bool_:
        values = values.view(np.int8)
    elif values.dtype not in NUMBER_TYPES:
        values = _as_float64(values)
    # One layout, whatever the column: a kernel is compiled anew for each.
    values = np.require(values, requirements=["C_CONTIGUOUS", "ALIGNED"])
    if values.flags.writeable:
        values.flags.writeable = False
    return Numbers(values, valid)


def _as_float64(values: NumberArray) -> Float64Array:
    # In Arrow's memory, which is used again from batch to batch: new pages cost more than the conversion.
    wide = np.frombuffer(pa.allocate_buffer(8 * len(values)), np.float64)
    np.copyto(wide, values)
    return wide


def _numbers(column: pa.Array, name: str) -> tuple[NumberArray, BoolArray | None]:
    check_numeric_type(name, column.type)
    if pa.types.is_dictionary(column.type):
        # Only the entries that occur are looked at: an unused one may hold anything.
        used, codes = _used_entries(column)
        entries, present = to_numbers(used, name)
        return entries.take(codes), None if present is None else present.take(codes)
    n_rows = len(column)
    if n_rows == 0:
        return np.zeros(0), None
    if pa.types.is_null(column.type):
        return np.zeros(n_rows), np.zeros(n_rows, dtype=np.bool_)

    valid = validity_of(column)
    if pa.types.is_decimal(column.type):
        return _decimal_to_float64(column, valid), valid
    if pa.types.is_boolean(column.type):
        values: NumberArray = bits_of(column.buffers()[1], column.offset, n_rows)
    else:
        dtype = np.dtype(column.type.to_pandas_dtype())
        values = np.frombuffer(column.buffers()[1], dtype, column.offset + n_rows)[column.offset :]
    # What lies under a null is undefined: it may be a NaN or an integer too large, and must not be looked at.
    values = values if valid is None else np.where(valid, values, values.dtype.type(0))
    _check_exact(values, name)
    return values, valid


def is_list_type(data_type: pa.DataType) -> bool:
    """Tell whether a column of this type holds lists, of any of Arrow's five kinds."""
    return bool(
        pa.types.is_list(data_type)
        or pa.types.is_large_list(data_type)
        or pa.types.is_fixed_size_list(data_type)
        or pa.types.is_list_view(data_type)
        or pa.types.is_large_list_view(data_type)
    )


def check_list_type(name: str, data_type: pa.DataType) -> None:
    """Check that a column of this type holds lists of numbers.

    Raises
    ------
    SchemaError
        If it is no list, or one of anything but numbers.
    """
    if not is_list_type(data_type):
        raise SchemaError(f"column {name!r} has type {data_type}; a list of numbers is needed.")
    check_numeric_type(name, data_type.value_type)


def to_lists(column: pa.Array, name: str) -> Lists:
    """Return a list column's numbers as float64, and where each list begins.

    Arrow's own buffer is returned where it serves: float64 elements without nulls, in lists that follow each other.

    Parameters
    ----------
    column : pyarrow.Array, shape (n_rows,)
        list, large_list, fixed_size_list, list_view or large_list_view of what `to_numbers` reads; slices and offsets
        are respected, and what lies under a null list is not looked at.
    name : str
        The column, for messages.

    Raises
    ------
    SchemaError
        If the column does not hold lists of numbers.
    DataError
        As `to_numbers`.
    """
    check_list_type(name, column.type)
    valid = validity_of(column)
    offsets = _list_offsets(column)
    numbers, elements_valid = to_numbers(column.flatten(), name)
    values = numbers.astype(np.float64, copy=False)
    values.flags.writeable = False
    return Lists(values, offsets, valid, elements_valid)


def _list_offsets(column: pa.Array) -> IntegerArray:
    offsets = np.zeros(len(column) + 1, dtype=np.int64)
    if len(column):
        np.cumsum(_list_lengths(column), out=offsets[1:])
    return offsets


def _list_lengths(column: pa.Array) -> IntegerArray:
    lengths = pc.list_value_length(column)
    return np.asarray((pc.fill_null(lengths, 0) if lengths.null_count else lengths).to_numpy(), dtype=np.int64)


def read_lists(given: object) -> Lists | None:
    """Read a list column of any library that speaks Arrow, or return None for anything else."""
    column: Any = given
    if not isinstance(given, pa.Array | pa.ChunkedArray):
        if hasattr(given, "__arrow_c_stream__"):
            column = pa.chunked_array(given)
        elif hasattr(given, "__arrow_c_array__"):
            column = pa.array(given)
        else:
            return None
    if not is_list_type(column.type):
        return None
    return to_lists(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column, "list")


def lists_like(given: Any, lists: Lists, values: Float64Array) -> Any:
    """Return numbers for the elements of a list column as a list column, of Polars for Polars, else of Arrow."""
    mask = None if lists.valid is None else pa.array(~lists.valid)
    column = pa.LargeListArray.from_arrays(pa.array(lists.offsets), pa.array(values), mask=mask)
    return type(given)(column) if type(given).__module__.startswith("polars.") else column


def encode_keys(column: pa.Array, name: str) -> Keys:
    """Return a key column as codes, and the distinct values that the codes index.

    Dates and timestamps become ISO 8601 text (with a final ``Z`` where the column has a time zone: Arrow stores UTC),
    decimals plain digits, both without trailing zeros of a fraction.

    Parameters
    ----------
    column : pyarrow.Array, shape (n_rows,)
        String, integer, bool, date, timestamp, decimal, all-null, or a dictionary of these. A short dictionary's
        entries are all among the values, whether they occur or not.
    name : str
        The column, for messages.

    Raises
    ------
    SchemaError
        If the type cannot be a key.
    DataError
        If a text is not UTF-8.
    """
    check_key_type(name, column.type)
    if pa.types.is_integer(column.type) and column.null_count == 0 and len(column) >= _MANY_ROWS:
        return _encode_integers(column)
    if not pa.types.is_dictionary(column.type):
        codes, entries = _encode(column)
    elif len(column.dictionary) <= _SHORT_DICTIONARY and column.indices.null_count == 0:
        entries, codes = column.dictionary, column.indices.to_numpy()
    else:
        entries, codes = _used_entries(column)
    # A dictionary may hold an entry twice, and null both as an entry and as a missing index.
    if pa.types.is_integer(entries.type):
        values, null_code, code_of_entry = _integer_keys(entries, are_distinct=not pa.types.is_dictionary(column.type))
    else:
        values, null_code, code_of_entry = _object_keys(entries)
    if code_of_entry is not None:
        codes = code_of_entry.take(codes)
    return Keys(np.asarray(codes, dtype=np.int32), values, null_code)


def _encode_integers(column: pa.Array) -> Keys:
    """Return the codes of a plain integer column without nulls, by a hash table that is faster than Arrow's."""
    dtype: Any = np.uint64 if pa.types.is_uint64(column.type) else np.int64
    wanted = column.to_numpy().astype(dtype).view(np.int64)
    sample = wanted[:: max(1, len(wanted) // _SAMPLE_ROWS)]
    if 2 * len(np.unique(sample)) > len(sample):
        # Whoever numbers the values of many batches would look nearly as many up after this.
        return Keys(np.arange(len(wanted), dtype=np.int32), wanted.view(dtype), None)
    slots = np.zeros(1 << (2 * len(wanted) - 1).bit_length(), dtype=np.int32)
    distinct, codes = np.empty(len(wanted), dtype=np.int64), np.empty(len(wanted), dtype=np.int64)
    n_distinct = make_find_integers()(wanted, -1, slots, distinct, 0, codes)
    return Keys(codes.astype(np.int32), distinct[:n_distinct].view(dtype), None)


def _integer_keys(entries: pa.Array, *, are_distinct: bool) -> tuple[Any, int | None, CodeArray | None]:
    """Return the distinct entries, the code of null, and each entry's code unless that is its position."""
    valid = validity_of(entries)
    numbers = np.frombuffer(entries.buffers()[1] or b"", entries.type.to_pandas_dtype(), entries.offset + len(entries))
    numbers = numbers[entries.offset :].astype(np.uint64 if pa.types.is_uint64(entries.type) else np.int64, copy=False)
    if are_distinct:
        if valid is None:
            return numbers, None, None
        return np.where(valid, numbers, numbers.dtype.type(0)), int(valid.argmin()), None
    present = numbers if valid is None else numbers[valid]
    distinct, inverse = np.unique(present, return_inverse=True)
    if valid is None:
        return distinct, None, inverse.astype(np.int32)
    code_of_entry = np.full(len(entries), len(distinct), dtype=np.int32)
    code_of_entry[valid] = inverse
    return np.append(distinct, np.zeros(1, distinct.dtype)), len(distinct), code_of_entry


def _object_keys(entries: pa.Array) -> tuple[list[Key], int | None, CodeArray | None]:
    """Return the distinct entries, the code of null, and each entry's code unless that is its position."""
    keys = key_values(entries)
    position = {key: code for code, key in enumerate(dict.fromkeys(keys))}
    null_code = position.get(None)
    if len(position) == len(keys):
        return keys, null_code, None
    return list(position), null_code, np.array([position[key] for key in keys], dtype=np.int32)


def _is_fixed_number(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_floating(data_type) or pa.types.is_integer(data_type) or pa.types.is_boolean(data_type))


def _check_exact(values: NumberArray, name: str) -> None:
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or not values.size:
        return
    for extreme in (int(values.max()), int(values.min())):
        if abs(extreme) > _EXACT_INTEGER:
            raise DataError(
                f"column {name!r} holds the integer {extreme}; float64 is exact up to 2**53 = {_EXACT_INTEGER} in "
                "magnitude. Name another column, or cast this one to float64 when the log is written."
            )


def _decimal_to_float64(column: pa.Array, valid: BoolArray | None) -> Float64Array:
    data_type = column.type
    if pa.types.is_decimal128(data_type) and 0 <= data_type.scale <= _EXACT_POWER_OF_TEN:
        words = np.frombuffer(column.buffers()[1], "<i8", 2 * (column.offset + len(column)))[2 * column.offset :]
        low, high = words[::2], words[1::2]
        if valid is not None:
            low, high = np.where(valid, low, 0), np.where(valid, high, 0)
        # The high word only repeats the sign where the number fits into the low one.
        if ((high == low >> 63) & (low <= _EXACT_INTEGER) & (low >= -_EXACT_INTEGER)).all():
            return np.asarray(low / 10.0**data_type.scale, dtype=np.float64)
    numbers = pc.cast(pc.cast(column, pa.string()), pa.float64())
    if valid is not None:
        numbers = pc.fill_null(numbers, 0.0)
    return np.asarray(numbers.to_numpy(), dtype=np.float64)


def _used_entries(column: pa.DictionaryArray) -> tuple[pa.Array, CodeArray]:
    """Return the dictionary's entries that occur, with a null for a missing index, and each row's place among them."""
    dictionary, indices = column.dictionary, column.indices
    if pa.types.is_string_view(dictionary.type):
        # Arrow has no take for string views.
        dictionary = pc.cast(dictionary, pa.large_string())
    n_entries = len(dictionary)
    if n_entries > len(column):
        # A long dictionary shared by many short batches: hash the few indices instead of counting over all entries.
        codes, distinct = _encode(indices)
        return dictionary.take(distinct), codes
    if indices.null_count:
        indices = pc.fill_null(pc.cast(indices, pa.int64()), n_entries)
    index = indices.to_numpy()
    counts = np.bincount(index, minlength=n_entries + 1)
    used = np.flatnonzero(counts)
    code_of_index = np.zeros(n_entries + 1, dtype=np.int32)
    code_of_index[used] = np.arange(len(used), dtype=np.int32)
    return dictionary.take(pa.array(used, mask=used == n_entries)), code_of_index.take(index)


def _encode(column: pa.Array) -> tuple[CodeArray, pa.Array]:
    """Return codes and distinct values of a plain column; null is a value of its own."""
    if pa.types.is_string_view(column.type):
        # Arrow's dictionary_encode turns a null of a string view into an empty string.
        column = pc.cast(column, pa.large_string())
    elif pa.types.is_decimal32(column.type) or pa.types.is_decimal64(column.type):
        column = pc.cast(column, pa.decimal128(column.type.precision, column.type.scale))
    encoded = pc.dictionary_encode(column, null_encoding="encode")
    return np.asarray(encoded.indices.to_numpy(), dtype=np.int32), encoded.dictionary
