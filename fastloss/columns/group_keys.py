"""Columns as group keys: numbers that are equal where the keys are, whatever the columns' encoding.

One column of integers, booleans, dates or times is its own key. Any other key is a hash of 128 bits: of a text's
bytes, or of the words of several columns. A hash is the same for every encoding of the same text.

Files of a log may store a column in different types. A key is written as the log's type says: `KeyTypes` has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fastloss.columns.arrays import bits_of, is_text, key_values, validity_of
from fastloss.columns.base import BoolArray, GroupKeys, IntegerArray
from fastloss.errors import DataError, SchemaError

Words = NDArray[np.uint64]
# The types of key columns in a log, by column: those of its schema.
KeyTypes = Mapping[str, pa.DataType]

_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_NOTHING = np.zeros(0, dtype=np.int64)


def check_group_key_type(name: str, data_type: pa.DataType) -> None:
    """Check that a column of this type can be a group key.

    Raises
    ------
    SchemaError
        If it is none of string, binary, UUID, integer, bool, date, time, timestamp, duration, decimal, all-null, or a
        dictionary of these.
    """
    kind = _stored_type(data_type)
    if pa.types.is_floating(kind):
        raise SchemaError(
            f"column {name!r} has type {data_type}, and a group key must not be floating point: equal keys would "
            "depend on the last bit. Cast it to an integer or a string."
        )
    if not (_is_integer_key(kind) or is_bytes(kind) or pa.types.is_decimal(kind)):
        raise SchemaError(
            f"column {name!r} has type {data_type}; a group key must be string, binary, integer, bool, date, time, "
            "timestamp, duration or decimal. Name another column, or an expression such as cast(x as text)."
        )


def is_integer_key(types: Sequence[pa.DataType]) -> bool:
    """Tell whether a group key of columns of these types is one integer; else it is a hash of two words."""
    return len(types) == 1 and _is_integer_key(_stored_type(types[0]))


def group_keys_of(batch: pa.RecordBatch, columns: Sequence[str], types: KeyTypes | None = None) -> GroupKeys:
    """Return the group keys of some rows.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        The rows.
    columns : sequence of str
        The columns of the key, one or more.
    types : mapping of str to pyarrow.DataType, optional
        The types that the columns have in the log; left out, those that they have here.

    Raises
    ------
    SchemaError
        If a column cannot be a key.
    DataError
        If a value does not fit the log's type.
    """
    found = [_key_of(batch.column(name), name, (types or {}).get(name)) for name in columns]
    masks = [valid for _, valid in found if valid is not None]
    valid: BoolArray | None = np.logical_and.reduce(masks) if masks else None
    if len(found) == 1:
        parts = found[0][0]
        if len(parts) == 2:
            return GroupKeys(parts[0].view(np.uint64), parts, valid)
        return GroupKeys(_hash_integers(parts[0]), parts, valid)
    words = np.array([part for parts, _ in found for part in parts], dtype=np.int64).view(np.uint64)
    high, low = _hash_words(words)
    return GroupKeys(high, (high.view(np.int64), low.view(np.int64)), valid)


def key_range_of(batch: pa.RecordBatch, column: str, types: KeyTypes | None = None) -> tuple[Any, Any]:
    """Return the least and the greatest value of a column of some rows; both None if every row is null.

    Integers, in their own order, for a column whose key is an integer, else bytes. The arguments are those of
    `group_keys_of`, for one column; a column of decimals has no such range.
    """
    values = batch.column(column)
    kind = _stored_type(values.type if types is None else types[column])
    if is_integer_key([kind]):
        (keys,), valid = _key_of(values, column, kind)
        keys = keys if valid is None else keys[valid]
        if not len(keys):
            return None, None
        ordered = keys.view(np.uint64) if pa.types.is_uint64(kind) else keys
        return int(ordered.min()), int(ordered.max())
    if isinstance(values, pa.DictionaryArray):
        indices = values.indices.drop_null()
        # Entries that no row uses do not count.
        values = values.dictionary.take(indices if len(values.dictionary) > len(indices) else pc.unique(indices))
    found = pc.min_max(_plain(values).cast(pa.large_binary()))
    return found["min"].as_py(), found["max"].as_py()


def group_values_of(
    batch: pa.RecordBatch, columns: Sequence[str], rows: IntegerArray, types: KeyTypes | None = None
) -> list[pa.Array]:
    """Return the values of a group key's columns in some rows, which have a key: integers, or bytes.

    A value is the same for every encoding, as a key is. The other arguments are those of `group_keys_of`.
    """
    return [_values_of(batch.column(name), name, rows, (types or {}).get(name)) for name in columns]


def _values_of(column: pa.Array, name: str, rows: IntegerArray, log_type: pa.DataType | None) -> pa.Array:
    column = _plain(column).take(pa.array(rows))
    if isinstance(column, pa.DictionaryArray):
        column = _plain(column.dictionary).take(column.indices)
    if is_bytes(column.type):
        return column.cast(pa.large_binary())
    if pa.types.is_decimal(column.type):
        return _decimal_texts(column).cast(pa.large_binary())
    ((integers, *_), _) = _key_of(column, name, log_type)
    return pa.array(integers)


def is_text_key(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds texts, perhaps in a dictionary."""
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def texts_of(
    texts: pa.Array, chosen: IntegerArray | None = None, null: BoolArray | None = None
) -> tuple[NDArray[np.uint8], IntegerArray]:
    """Return texts, or those at the chosen positions, as bytes and where each begins; what is null is empty."""
    texts = texts.cast(pa.large_string())
    return bytes_of(texts if chosen is None else texts.take(pa.array(chosen, mask=null)))


def restore_values(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return what `group_values_of` gave of one column as a column of its type in the log, without dictionary.

    Raises
    ------
    DataError
        If a text is not UTF-8.
    """
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    stored = _stored_type(kind)
    if _is_integer_key(stored):
        return restore_keys(values.to_numpy(), stored)
    if pa.types.is_fixed_size_binary(stored):
        data, offsets = bytes_of(values)
        buffer = pa.py_buffer(data[offsets[0] : offsets[-1]])
        restored = pa.Array.from_buffers(stored, len(values), [None, buffer])
    elif is_text(stored) or pa.types.is_decimal(stored):
        try:
            texts = values.cast(pa.large_string())
        except pa.ArrowInvalid as error:
            raise DataError(f"a group key is not UTF-8 text ({error}); write the log's text as UTF-8.") from error
        restored = texts if pa.types.is_string_view(stored) else texts.cast(stored)
    else:
        restored = values if pa.types.is_binary_view(stored) else values.cast(stored)
    return pa.ExtensionArray.from_storage(kind, restored) if isinstance(kind, pa.BaseExtensionType) else restored


def restore_keys(keys: IntegerArray, kind: pa.DataType) -> pa.Array:
    """Return group keys that are integers as a column of the type that they have in the log.

    Parameters
    ----------
    keys : numpy.ndarray of int64, shape (n_groups,)
        Keys of one column.
    kind : pyarrow.DataType
        The column's type in the log, for which `is_integer_key` holds.
    """
    kind = _stored_type(kind)
    if pa.types.is_null(kind):
        return pa.nulls(len(keys))
    if pa.types.is_boolean(kind):
        return pa.array(keys != 0)
    if pa.types.is_uint64(kind):
        return pa.array(keys.view(np.uint64))
    if pa.types.is_integer(kind):
        return pa.array(keys.astype(kind.to_pandas_dtype()))
    if pa.types.is_date64(kind):
        return pa.array(keys * _DAY["ms"]).view(kind)
    return pa.array(keys.astype(np.int32) if kind.bit_width == 32 else keys).view(kind)


def in_order_of_type(keys: IntegerArray, kind: pa.DataType) -> NDArray[Any]:
    """Return group keys that are integers as numbers in the order of a column's type in the log."""
    return keys.view(np.uint64) if pa.types.is_uint64(_stored_type(kind)) else keys


def key_text(key: int, kind: pa.DataType) -> str:
    """Return a group key that is an integer as the log's type writes it."""
    return str(key_values(restore_keys(np.array([key]), kind))[0])


def _stored_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, without dictionary or extension."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_integer_key(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_date(kind)
        or pa.types.is_time(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_duration(kind)
        or pa.types.is_null(kind)
    )


def is_bytes(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds texts or bytes."""
    return bool(
        is_text(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


_Found = tuple[tuple[IntegerArray, ...], BoolArray | None]


def _key_of(column: pa.Array, name: str, log_type: pa.DataType | None) -> _Found:
    """Return a column as words that are equal where its values are, and which rows are not null."""
    check_group_key_type(name, column.type)
    own = _stored_type(column.type)
    kind = own if log_type is None else _stored_type(log_type)
    n_words = 1 if _is_integer_key(kind) else 2
    if len(column) == 0 or pa.types.is_null(own):
        valid = np.zeros(len(column), dtype=np.bool_) if len(column) else None
        return tuple(np.zeros(len(column), dtype=np.int64) for _ in range(n_words)), valid
    if _is_integer_key(own) != _is_integer_key(kind):
        raise SchemaError(f"the group key {name!r} has type {column.type}, and {log_type} in other files of the log.")
    if isinstance(column, pa.DictionaryArray):
        words, valid = _of_dictionary(column, name, kind)
    else:
        column = _plain(column)
        words, valid = _words_of(column, name, kind), validity_of(column)
    if valid is not None:
        # What lies under a null is undefined.
        words = tuple(np.where(valid, word, 0) for word in words)
    return words, valid


def _of_dictionary(column: pa.DictionaryArray, name: str, kind: pa.DataType) -> _Found:
    entries, valid = _plain(column.dictionary), validity_of(column.indices)
    if len(entries) == 0:
        entries = pa.nulls(1, entries.type)
    filled = column.indices if valid is None else pc.fill_null(column.indices, 0)
    indices = filled.to_numpy().astype(np.int64, copy=False)
    if len(entries) <= len(indices):
        words = tuple(word.take(indices) for word in _words_of(entries, name, kind))
    elif is_bytes(entries.type):
        # Of a long dictionary that short batches share, each row's entry is hashed where it stands.
        words = _hash_bytes(entries, indices)
    else:
        words = _words_of(entries.take(filled), name, kind)
    present = validity_of(entries)
    if present is not None:
        valid = present.take(indices) if valid is None else valid & present.take(indices)
    return words, valid


def _plain(column: pa.Array) -> pa.Array:
    """Return a column without extension, and views as texts that follow each other."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_string_view(column.type):
        return pc.cast(column, pa.large_string())
    return pc.cast(column, pa.large_binary()) if pa.types.is_binary_view(column.type) else column


def _words_of(column: pa.Array, name: str, kind: pa.DataType) -> tuple[IntegerArray, ...]:
    if pa.types.is_decimal(column.type):
        return _decimal_words(column)
    if is_bytes(column.type):
        return _hash_bytes(column, _NOTHING)
    if pa.types.is_null(column.type):
        return (np.zeros(len(column), dtype=np.int64),)
    return (_integers(column, name, kind),)


# ---------------------------------------------------------------------------------------------------------------
# Integers


def _integers(column: pa.Array, name: str, kind: pa.DataType) -> IntegerArray:
    """Return a column's integers as the log's type has them."""
    own, n_rows = column.type, len(column)
    if n_rows == 0:
        return np.zeros(0, dtype=np.int64)
    buffer = column.buffers()[1]
    if pa.types.is_boolean(own):
        return bits_of(buffer, column.offset, n_rows).astype(np.int64)
    dtype = np.dtype(own.to_pandas_dtype() if pa.types.is_integer(own) else f"i{own.bit_width // 8}")
    stored = np.frombuffer(buffer, dtype, column.offset + n_rows)[column.offset :]
    if own == kind and stored.dtype.itemsize == 8 and not pa.types.is_date(own):
        return stored.view(np.int64)
    valid = validity_of(column)
    if valid is not None:
        stored = np.where(valid, stored, stored.dtype.type(0))
    if pa.types.is_integer(own) and pa.types.is_uint64(own) != pa.types.is_uint64(kind):
        _check_signs(stored, name, own, kind)
    integers = stored.astype(np.int64)
    if pa.types.is_date64(own):
        return integers // _DAY["ms"]
    if pa.types.is_timestamp(own) and pa.types.is_timestamp(kind) and own.unit != kind.unit:
        return _in_unit(integers, name, own, kind)
    return integers


def _check_signs(stored: NDArray[Any], name: str, own: pa.DataType, kind: pa.DataType) -> None:
    """Refuse integers that only one of two types of 64 bits holds: the other reads their bits as another integer."""
    outside = int(stored.min()) if pa.types.is_uint64(kind) else int(stored.max())
    if outside < 0 or outside >= 1 << 63:
        raise DataError(
            f"the group key {name!r} holds {outside} as {own}, and the log's type is {kind}, which has no such "
            "integer; store the column in one type."
        )


def _in_unit(ticks: IntegerArray, name: str, own: pa.DataType, kind: pa.DataType) -> IntegerArray:
    """Return moments in the finer unit of the log."""
    factor = _TICKS[kind.unit] // _TICKS[own.unit]
    most = (1 << 63) // factor if factor else 0
    outside = [tick for tick in (int(ticks.min()), int(ticks.max())) if not -most < tick < most]
    if outside:
        moment = np.datetime64(outside[0], own.unit)
        raise DataError(
            f"the group key {name!r} holds {moment} as {own}, and the log's type is {kind}, which does not reach as "
            "far; store the column in one type."
        )
    return ticks * factor


def _hash_integers(keys: IntegerArray) -> Words:
    from fastloss_kernels.cpu.shuffling import make_hash_integers

    hashes = np.empty(len(keys), dtype=np.uint64)
    make_hash_integers()(_read_only(np.require(keys, requirements=["A"])), hashes)
    return hashes


# ---------------------------------------------------------------------------------------------------------------
# Hashes


def _hash_bytes(column: pa.Array, chosen: IntegerArray) -> tuple[IntegerArray, ...]:
    """Return both words of the hash of each text, or of the texts at the chosen positions."""
    from fastloss_kernels.cpu.hashing import make_hash_bytes

    high, low = (np.empty(len(chosen) if len(chosen) else len(column), dtype=np.uint64) for _ in range(2))
    data, offsets = bytes_of(column)
    make_hash_bytes()(data, offsets, _read_only(chosen), 0, high, low)
    return high.view(np.int64), low.view(np.int64)


def bytes_of(column: pa.Array) -> tuple[NDArray[np.uint8], IntegerArray]:
    """Return the bytes of a column of texts, binary or fixed-size binary, read-only, and where each value begins."""
    first, stop = column.offset, column.offset + len(column)
    if len(column) == 0:
        return np.frombuffer(b"", np.uint8), np.zeros(1, dtype=np.int64)
    if pa.types.is_fixed_size_binary(column.type):
        data, offsets = column.buffers()[1], np.arange(first, stop + 1) * column.type.byte_width
    else:
        _, ends, data = column.buffers()
        is_large = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
        offsets = np.frombuffer(ends, np.int64 if is_large else np.int32, stop + 1)[first:].astype(np.int64)
    return _read_only(np.frombuffer(data or b"", np.uint8)), offsets


def _decimal_words(column: pa.Array) -> tuple[IntegerArray, ...]:
    """Return the hash of each decimal's digits, without zeros that only tell the column's scale."""
    texts = _decimal_texts(column)
    indices = texts.indices.to_numpy()
    return tuple(word.take(indices) for word in _hash_bytes(texts.dictionary, _NOTHING))


def _decimal_texts(column: pa.Array) -> pa.DictionaryArray:
    """Return the digits of decimals; a null is an empty text."""
    if pa.types.is_decimal32(column.type) or pa.types.is_decimal64(column.type):
        column = pc.cast(column, pa.decimal128(column.type.precision, column.type.scale))
    encoded = pc.dictionary_encode(column, null_encoding="encode")
    texts = pa.array([value or "" for value in key_values(encoded.dictionary)], pa.large_string())
    return pa.DictionaryArray.from_arrays(encoded.indices, texts)


def _hash_words(words: Words) -> tuple[Words, Words]:
    from fastloss_kernels.cpu.hashing import make_hash_words

    high, low = (np.empty(words.shape[1], dtype=np.uint64) for _ in range(2))
    make_hash_words()(words, high, low)
    return high, low


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array that may not be written: Numba compiles a loop anew for arrays that may."""
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array
