"""Slices: from key values to positions, and a state column for each statistic.

A slice is one combination of the values of its key columns. Slices are numbered in the order in which they are first
seen, and that number is their position in every column. The order of the log, and that of merging, decide which slice
has which position; nothing that is read may depend on it, so readers take slices in the order of `sorted_positions`.

Each key column has an index: integers and texts are kept as plain arrays behind a hash table of
`fastloss_kernels.cpu.slices`, so that a million of them are no million Python objects. A column whose values are of
several types (as hive partitions of several files may be) falls back to a dictionary of Python objects. A combination
of several keys is a chain of pairs: the numbers of the first two columns' values are the two halves of a 64-bit
integer key, whose number is paired with that of the third column's, and so on.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers, StateColumn, StateSpec, grown
from fastloss_kernels.cpu import slices as kernels

Key = None | bool | int | str
IntegerKeys = NDArray[np.int64] | NDArray[np.uint64]
_LOW_HALF = 0xFFFF_FFFF
# So many texts Python sorts at once; NumPy sorts longer ones only as Python objects too.
_FEW_TEXTS = 4096
_LONG_TEXT_WORDS = 8
# Intervals as buckets of numbers are called, here and by pandas and Polars; what is no number has a bucket, too.
_INTERVAL = re.compile(r"([\[(])(-?(?:inf|[\d.]+(?:e[+-]?\d+)?)), ?(-?(?:inf|[\d.]+(?:e[+-]?\d+)?))[\])]", re.ASCII)
_NO_NUMBER = "NaN"
# Keys looked up at a time, each of which may be new: there is never room for many more than there are, and the table
# of a few thousand slices stays in the cache.
_MOST_NEW = 1 << 12
# While there are few keys, a table has so many times as much room as they need; and up to how much.
_SPARE, _MOST_SPARE = 8, 1 << 19


@dataclass(frozen=True)
class Texts:
    """Texts as UTF-8 bytes, one after the other: text i is ``data[offsets[i]:offsets[i + 1]]``."""

    data: NDArray[np.uint8]
    offsets: Integers

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Return texts as bytes."""
        data = "".join(texts).encode(errors="surrogatepass")
        lengths = list(map(len, texts))
        if len(data) != sum(lengths):
            lengths = [len(text.encode(errors="surrogatepass")) for text in texts]
        offsets = np.append(0, np.cumsum(np.array(lengths, dtype=np.int64)))
        return cls(np.frombuffer(data, dtype=np.uint8), offsets)

    def __len__(self) -> int:
        """Return how many texts there are."""
        return len(self.offsets) - 1

    def to_list(self) -> list[str]:
        """Return the texts."""
        data = self.data.tobytes()
        return [
            data[first:stop].decode(errors="surrogatepass")
            for first, stop in itertools.pairwise(self.offsets.tolist())
        ]

    def take(self, positions: Integers) -> Texts:
        """Return the texts at some positions."""
        firsts, lengths = self.offsets[positions], np.diff(self.offsets)[positions]
        offsets = np.append(0, np.cumsum(lengths))
        # Byte j of a text is as far from its new place as its first byte is.
        source = np.arange(offsets[-1]) + np.repeat(firsts - offsets[:-1], lengths)
        return Texts(self.data[source], offsets)


# An array of integers, texts as bytes, or Python objects.
Values = IntegerKeys | Texts | Sequence[Key]


class KeyValues(Protocol):
    """The meaning of a key column's codes: `fastloss.columns.base.Keys`, or anything with these members."""

    @property
    def values(self) -> Values:
        """The value of each code, none twice."""

    @property
    def null_code(self) -> int | None:
        """The code of null, if there is one; a None in a list may do without."""


class KeyColumn(NamedTuple):
    """The value that each slice has in one key column.

    Attributes
    ----------
    values : numpy.ndarray of int64 or uint64, Texts, or list of None, bool, int or str
        One for each slice.
    null : numpy.ndarray of bool, shape (n_slices,), or None
        Which slices have no value; None if all have one. In a list they are None too; in an array or in texts, what
        stands there means nothing.
    """

    values: IntegerKeys | Texts | list[Key]
    null: NDArray[np.bool_] | None

    def to_list(self) -> list[Key]:
        """Return the values as None, bool, int or str."""
        values = _objects(self.values)
        for i in [] if self.null is None else np.flatnonzero(self.null).tolist():
            values[i] = None
        return values


class CodedKeys(NamedTuple):
    """The slices of a table in one key column, as codes.

    Attributes
    ----------
    codes : numpy.ndarray of int64, shape (n_slices,)
        The code of each slice.
    values : numpy.ndarray of int64 or uint64, Texts, or list of None, bool, int or str
        The value of each code.
    null_code : int or None
        The code of null; in a list, null is None and may do without.
    """

    codes: Integers
    values: Values
    null_code: int | None


def take_keys(column: KeyColumn, positions: Integers) -> KeyColumn:
    """Return the keys of some slices."""
    null = None if column.null is None else column.null[positions]
    if isinstance(column.values, Texts):
        return KeyColumn(column.values.take(positions), null)
    if isinstance(column.values, np.ndarray):
        return KeyColumn(column.values[positions], null)
    return KeyColumn([column.values[i] for i in positions.tolist()], null)


def keys_bytes(column: KeyColumn) -> int:
    """Return about how many bytes keys take."""
    null = 0 if column.null is None else column.null.nbytes
    if isinstance(column.values, Texts):
        return null + column.values.data.nbytes + column.values.offsets.nbytes
    return null + (column.values.nbytes if isinstance(column.values, np.ndarray) else 100 * len(column.values))


def join_keys(parts: Sequence[KeyColumn]) -> KeyColumn:
    """Return the keys of several parts, one after the other."""
    lengths = [len(part.values) for part in parts]
    nulls = [np.zeros(n, dtype=np.bool_) if p.null is None else p.null for p, n in zip(parts, lengths, strict=True)]
    null = np.concatenate(nulls)
    # A part of the null key alone has a list.
    typed = [p.values for p, n in zip(parts, nulls, strict=True) if not (isinstance(p.values, list) and n.all())]
    if typed and all(isinstance(values, Texts) for values in typed):
        texts = [p.values if isinstance(p.values, Texts) else Texts.of([""] * len(p.values)) for p in parts]
        return KeyColumn(_join_texts(texts), null if null.any() else None)
    dtypes = {values.dtype if isinstance(values, np.ndarray) else None for values in typed}
    if len(dtypes) == 1 and (dtype := dtypes.pop()) is not None:
        integers = [p.values if isinstance(p.values, np.ndarray) else np.zeros(len(p.values), dtype) for p in parts]
        return KeyColumn(_one_array(integers), null if null.any() else None)
    return KeyColumn([key for part in parts for key in part.to_list()], null if null.any() else None)


def _one_array(parts: Sequence[Any]) -> IntegerKeys:
    joined: IntegerKeys = np.concatenate(parts)
    return joined


def _join_texts(texts: Sequence[Texts]) -> Texts:
    ends = itertools.accumulate((int(text.offsets[-1] - text.offsets[0]) for text in texts), initial=0)
    offsets = [text.offsets[1:] - text.offsets[0] + end for text, end in zip(texts, ends, strict=False)]
    data = [text.data[text.offsets[0] : text.offsets[-1]] for text in texts]
    return Texts(np.concatenate(data), np.concatenate([np.zeros(1, dtype=np.int64), *offsets]))


def order_of(columns: Sequence[KeyColumn]) -> Integers:
    """Return the positions of slices, all of which differ, in the order of their keys: see `sorted_positions`."""
    if len(columns) == 1 and isinstance(columns[0].values, np.ndarray):
        null = columns[0].null
        return _null_last(_integer_order(columns[0].values), -1 if null is None else int(null.argmax()))
    table = SliceTable(tuple(map(str, range(len(columns)))), ())
    coded = [_coded(column) for column in columns]
    positions = table.positions([codes.codes for codes in coded], coded)
    slice_at = np.empty(len(positions), dtype=np.int64)
    slice_at[positions] = np.arange(len(positions))
    return np.asarray(slice_at[table.sorted_positions()])


def _integer_order(values: IntegerKeys) -> Integers:
    """Return the positions of integers, all of which differ, in their order."""
    if not len(values):
        return np.empty(0, dtype=np.int64)
    low, high = int(values.min()), int(values.max())
    n_bits = len(values).bit_length()
    if (high - low).bit_length() + n_bits > 64:
        return np.argsort(values)
    # A number and its position in one integer: these sort many times as fast as positions.
    both = (values.view(np.uint64) - np.uint64(low % (1 << 64))) << np.uint64(n_bits)
    both |= np.arange(len(values), dtype=np.uint64)
    both.sort()
    both &= np.uint64((1 << n_bits) - 1)
    return both.view(np.int64)


def _coded(column: KeyColumn) -> CodedKeys:
    """Return a code for each slice; null is one key, however often it is there."""
    codes = np.arange(len(column.values))
    if column.null is None:
        return CodedKeys(codes, column.values, None)
    first = int(column.null.argmax())
    return CodedKeys(np.where(column.null, first, codes), column.values, first)


def _objects(values: Values) -> list[Key]:
    if isinstance(values, np.ndarray):
        integers: list[Key] = values.tolist()
        return integers
    return list(values.to_list() if isinstance(values, Texts) else values)


# ---------------------------------------------------------------------------------------------------------------
# One key column


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array that may be written: Numba compiles a loop anew for arrays that may not."""
    return array if array.flags.writeable else array.copy()


def _slots_for(n_keys: int) -> NDArray[np.int32]:
    return np.zeros(1 << max(4, (2 * n_keys - 1).bit_length()), dtype=np.int32)


class _Integers:
    """Numbers of 64-bit integers, which are kept by their bits; `dtype` is how these are read."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.n = 0
        self.null = -1
        self._keys: Integers = np.zeros(0, dtype=np.int64)
        self._slots = _slots_for(0)

    @property
    def nbytes(self) -> int:
        return self._keys.nbytes + self._slots.nbytes

    def numbers_of(self, values: IntegerKeys, null: int) -> Integers:
        """Return the number of each value, new ones included; the value at the position `null` is none."""
        bits = _writable(np.ascontiguousarray(values).view(np.int64))
        numbers = np.empty(len(bits), dtype=np.int64)
        find = kernels.make_find_integers()
        for first in range(0, len(bits), _MOST_NEW):
            part = slice(first, first + _MOST_NEW)
            _make_room(self, len(bits[part]))
            self.n = find(bits[part], null - first, self._slots, self._keys, self.n, numbers[part])
        if null >= 0:
            numbers[null] = self.number_of_null()
        return numbers

    def number_of_null(self) -> int:
        if self.null < 0:
            _make_room(self, 0)
            self.null, self.n = self.n, self.n + 1
        return self.null

    def _grow(self, n_wanted: int) -> None:
        if n_wanted > len(self._keys):
            self._keys = grown(self._keys, self.n, n_wanted)

    def _hashes(self) -> tuple[Integers, bool]:
        return self._keys, False

    @property
    def values(self) -> IntegerKeys:
        """The values by number."""
        return self._keys[: self.n].view(self.dtype)

    def to_list(self) -> list[Key]:
        keys = _objects(self.values)
        if self.null >= 0:
            keys[self.null] = None
        return keys

    def column(self, numbers: Integers) -> KeyColumn:
        return KeyColumn(self.values[numbers], None if self.null < 0 else numbers == self.null)

    def order(self) -> Integers:
        """Return the numbers in the order of their values, null last."""
        return _null_last(np.argsort(self.values), self.null)


class _Texts:
    """Numbers of texts, kept as UTF-8."""

    def __init__(self) -> None:
        self.n = 0
        self.null = -1
        self._data: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
        self._offsets: Integers = np.zeros(1, dtype=np.int64)
        self._hash_of: Integers = np.zeros(0, dtype=np.int64)
        self._slots = _slots_for(0)

    @property
    def nbytes(self) -> int:
        return self._data.nbytes + self._offsets.nbytes + self._hash_of.nbytes + self._slots.nbytes

    def numbers_of(self, values: Texts, null: int) -> Integers:
        """Return the number of each text, new ones included; the text at the position `null` is none."""
        numbers = np.empty(len(values.offsets) - 1, dtype=np.int64)
        find = kernels.make_find_texts()
        data, ends = _writable(values.data), _writable(values.offsets)
        for first in range(0, len(numbers), _MOST_NEW):
            part = slice(first, first + _MOST_NEW)
            offsets = ends[first : first + _MOST_NEW + 1]
            _make_room(self, len(offsets) - 1)
            used, added = int(self._offsets[self.n]), int(offsets[-1] - offsets[0])
            if used + added > len(self._data):
                self._data = grown(self._data, used, used + added)
            known = (self._slots, self._hash_of, self._data, self._offsets)
            self.n = find(data, offsets, null - first, *known, self.n, numbers[part])
        if null >= 0:
            numbers[null] = self.number_of_null()
        return numbers

    def number_of_null(self) -> int:
        if self.null < 0:
            _make_room(self, 0)
            self.null, self.n = self.n, self.n + 1
            self._offsets[self.n] = self._offsets[self.null]
        return self.null

    def _grow(self, n_wanted: int) -> None:
        if n_wanted > len(self._hash_of):
            self._hash_of = grown(self._hash_of, self.n, n_wanted)
            self._offsets = grown(self._offsets, self.n + 1, len(self._hash_of) + 1)

    def _hashes(self) -> tuple[Integers, bool]:
        return self._hash_of, True

    @property
    def values(self) -> Texts:
        """The texts by number."""
        offsets = self._offsets[: self.n + 1]
        return Texts(self._data[: int(offsets[-1])], offsets)

    def to_list(self) -> list[Key]:
        keys: list[Key] = list(self.values.to_list())
        if self.null >= 0:
            keys[self.null] = None
        return keys

    def column(self, numbers: Integers) -> KeyColumn:
        return KeyColumn(self.values.take(numbers), None if self.null < 0 else numbers == self.null)

    def order(self) -> Integers:
        intervals = _interval_order(self.values, self.null)
        return _null_last(_text_order(self.values) if intervals is None else intervals, self.null)


def _interval_order(texts: Texts, null: int) -> Integers | None:
    """Return the positions of intervals in the order of their bounds, NaN last; None unless all texts are intervals.

    The position `null` is left out.
    """
    keys: dict[int, tuple[float, float, float, str]] = {}
    for position in range(len(texts)):
        if position == null:
            continue
        text = texts.data[texts.offsets[position] : texts.offsets[position + 1]].tobytes().decode(errors="replace")
        found = _INTERVAL.fullmatch(text)
        # Texts that are no intervals are seen to be none by the first of them.
        if found is None and text != _NO_NUMBER:
            return None
        try:
            low, is_open, high = (found[2], found[1] == "(", found[3]) if found else ("inf", True, "inf")
            keys[position] = float(low), float(is_open), float(high), text
        except ValueError:
            return None
    return np.array(sorted(keys, key=keys.__getitem__), dtype=np.int64)


def _text_order(texts: Texts) -> Integers:
    """Return the positions of texts in their order, which is that of their UTF-8 bytes."""
    lengths = np.diff(texts.offsets)
    n_words = -(-int(lengths.max(initial=0)) // 8)
    if len(texts) <= _FEW_TEXTS or n_words > _LONG_TEXT_WORDS:
        known = texts.to_list()
        return np.array(sorted(range(len(known)), key=lambda number: known[number]), dtype=np.int64)
    # Bytes as the digits of integers, the first the highest; where one text begins another, the shorter comes first.
    padded = np.zeros((len(texts), 8 * n_words), dtype=np.uint8)
    padded[np.arange(8 * n_words) < lengths[:, None]] = texts.data[texts.offsets[0] : texts.offsets[-1]]
    words = padded.view(">u8").astype(np.uint64)
    return np.asarray(np.lexsort((lengths, *words.T[::-1])), dtype=np.int64)


class _Objects:
    """Numbers of Python objects, for columns of several types and of booleans."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, Key], int] = {}

    @property
    def n(self) -> int:
        return len(self._numbers)

    @property
    def nbytes(self) -> int:
        # A dictionary's entry with its tuple, its number and a short text.
        return 250 * len(self._numbers)

    def numbers_of(self, values: Sequence[Key], null: int) -> Integers:
        # The type is part of the key: True is not 1.
        numbers = self._numbers
        keys = [("", None) if i == null or v is None else (type(v).__name__, v) for i, v in enumerate(values)]
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)

    @property
    def only_null(self) -> bool:
        return all(value is None for _, value in self._numbers)

    def to_list(self) -> list[Key]:
        return [value for _, value in self._numbers]

    def column(self, numbers: Integers) -> KeyColumn:
        values = self.to_list()
        taken = [values[i] for i in numbers.tolist()]
        missing = np.array([value is None for value in taken], dtype=np.bool_)
        return KeyColumn(taken, missing if missing.any() else None)

    def order(self) -> Integers:
        # Booleans, integers, texts; each by value; null last.
        keys: list[tuple[str, Any]] = list(self._numbers)
        order = sorted(range(len(keys)), key=lambda i: (keys[i][1] is None, *keys[i]))
        return np.array(order, dtype=np.int64)


def _null_last(order: Integers, null: int) -> Integers:
    return order if null < 0 else np.append(order[order != null], null)


Table = TypeVar("Table", _Integers, _Texts)


def _make_room(table: Table, n_new: int) -> None:
    """Make room for so many further values and null."""
    n_wanted = table.n + n_new + 1
    table._grow(n_wanted)
    if 2 * n_wanted > len(table._slots):
        # More than is asked for: each time, everything known is entered anew.
        table._slots = _slots_for(max(n_wanted + n_wanted // 2, min(_SPARE * n_wanted, _MOST_SPARE)))
        kernels.make_fill_slots()(*table._hashes(), table.n, table.null, table._slots)


class _KeyIndex:
    """Numbers the values of one key column, whichever types they turn out to have."""

    def __init__(self) -> None:
        self.table: _Integers | _Texts | _Objects | None = None

    @property
    def n(self) -> int:
        return 0 if self.table is None else self.table.n

    @property
    def nbytes(self) -> int:
        return 0 if self.table is None else self.table.nbytes

    def numbers_of_rows(self, codes: NDArray[Any], values: Values, null: int) -> Integers:
        """Return the number of each row's value; values that no row has stay unknown."""
        if not len(codes):
            return np.empty(0, dtype=np.int64)
        if len(codes) == len(values) and _counts_up(codes):
            return self.numbers_of(values, null)
        present = np.zeros(len(values), dtype=np.bool_)
        present[codes] = True
        if present.all():
            return np.asarray(self.numbers_of(values, null)[codes])
        which = np.flatnonzero(present)
        taken: Values
        if isinstance(values, Texts):
            taken = values.take(which)
        elif isinstance(values, np.ndarray):
            taken = values[which]
        else:
            taken = [values[i] for i in which.tolist()]
        number_of_code = np.zeros(len(values), dtype=np.int64)
        null = int(np.searchsorted(which, null)) if null >= 0 and present[null] else -1
        number_of_code[which] = self.numbers_of(taken, null)
        return np.asarray(number_of_code[codes])

    def numbers_of(self, values: Values, null: int) -> Integers:
        """Return the number of each value, new ones included; `null` is the position of null, -1 if there is none."""
        values, null = _typed(values, null)
        table = self.table
        if isinstance(values, np.ndarray | Texts):
            if table is None or (isinstance(table, _Objects) and table.only_null):
                self.table = _Integers(values.dtype) if isinstance(values, np.ndarray) else _Texts()
                if table is not None:
                    self.table.number_of_null()
                table = self.table
            if isinstance(values, Texts) and isinstance(table, _Texts):
                return table.numbers_of(values, null)
            if isinstance(values, np.ndarray) and isinstance(table, _Integers):
                dtype = _common_type(table, values)
                if dtype is not None:
                    table.dtype = dtype
                    return table.numbers_of(values, null)
        elif isinstance(table, _Integers | _Texts) and all(value is None for value in values):
            return np.full(len(values), table.number_of_null(), dtype=np.int64)
        return self._as_objects().numbers_of(_objects(values), null)

    def _as_objects(self) -> _Objects:
        if not isinstance(self.table, _Objects):
            known = [] if self.table is None else self.table.to_list()
            self.table = _Objects()
            self.table.numbers_of(known, -1)
        return self.table

    def merge(self, other: _KeyIndex) -> Integers:
        """Return this index's number of each of another's values."""
        theirs = other.table
        if theirs is None:
            return np.empty(0, dtype=np.int64)
        if isinstance(theirs, _Objects):
            return self.numbers_of(theirs.to_list(), -1)
        return self.numbers_of(theirs.values, theirs.null)

    def column(self, numbers: Integers) -> KeyColumn:
        return KeyColumn([], None) if self.table is None else self.table.column(numbers)

    def coded(self, numbers: Integers) -> CodedKeys:
        table = self.table
        if isinstance(table, _Integers | _Texts):
            return CodedKeys(numbers, table.values, None if table.null < 0 else table.null)
        return CodedKeys(numbers, [] if table is None else table.to_list(), None)

    def order(self) -> Integers:
        return np.empty(0, dtype=np.int64) if self.table is None else self.table.order()

    def ranks(self) -> Integers:
        """Return the place of each number in `order`."""
        order = self.order()
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = np.arange(len(order))
        return ranks


def _counts_up(codes: NDArray[Any]) -> bool:
    return codes[0] == 0 and codes[-1] == len(codes) - 1 and bool((np.diff(codes) == 1).all())


def _typed(values: Values, null: int) -> tuple[Values, int]:
    """Return Python objects as an array or as texts if they are all of one such type, and where null is."""
    if isinstance(values, np.ndarray | Texts):
        return values, null
    nulls = [i for i, value in enumerate(values) if value is None]
    kinds = {type(value) for value in values if value is not None}
    if len(nulls) > 1 or (null >= 0 and nulls not in ([], [null])):
        return values, null
    null = nulls[0] if nulls else null
    if kinds == {str}:
        return Texts.of(["" if value is None else str(value) for value in values]), null
    if kinds == {int}:
        integers = [0 if value is None else int(value) for value in values]
        if min(integers) >= -(1 << 63) and max(integers) < 1 << 63:
            return np.array(integers, dtype=np.int64), null
        if min(integers) >= 0 and max(integers) < 1 << 64:
            return np.array(integers, dtype=np.uint64), null
    return values, null


def _common_type(table: _Integers, values: IntegerKeys) -> np.dtype[Any] | None:
    """Return the type that the bits of the known integers and of these can be read as; None if there is none."""
    if table.dtype == values.dtype:
        return table.dtype
    known = table._keys[: table.n].view(table.dtype)
    signed, unsigned = (values, known) if values.dtype == np.int64 else (known, values)
    if not (unsigned > np.uint64((1 << 63) - 1)).any():
        return np.dtype(np.int64)
    return np.dtype(np.uint64) if not (signed < 0).any() else None


# ---------------------------------------------------------------------------------------------------------------


class SliceTable:
    """Slices by key, and a state column for each statistic kept of them.

    Parameters
    ----------
    keys : tuple of str
        The key columns; without any there is one slice, the total, at position 0.
    specs : sequence of StateSpec
        What is kept.
    """

    def __init__(self, keys: tuple[str, ...], specs: Sequence[StateSpec]) -> None:
        self.keys = keys
        self.specs = tuple(specs)
        self.columns: list[StateColumn] = [spec.identity() for spec in self.specs]
        self.n_slices = 0
        self._column_of = dict(zip(self.specs, self.columns, strict=True))
        self._indexes = [_KeyIndex() for _ in keys]
        self._pairs = [_Integers(np.dtype(np.int64)) for _ in keys[1:]]
        if not keys:
            self._resize(1)

    @property
    def nbytes(self) -> int:
        """About how many bytes everything takes."""
        parts: list[Any] = [*self.columns, *self._indexes, *self._pairs]
        return sum(part.nbytes for part in parts)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the specifications: they hold formulas, and whoever merges the table knows them."""
        return {**self.__dict__, "specs": (), "_column_of": {}}

    def column(self, spec: StateSpec) -> StateColumn:
        """Return the column of a statistic."""
        return self._column_of[spec]

    def positions(self, codes: Sequence[NDArray[Any]], values: Sequence[KeyValues]) -> Integers:
        """Return the positions of slices, with room in every column for those not seen before.

        Parameters
        ----------
        codes : sequence of integer arrays, shape (m,)
            For each key column the code of the value that each of m slices has there. A slice may come twice: the
            codes of all rows of a batch give the position of every row.
        values : sequence of KeyValues
            For each key column what its codes mean. Values that no code names do not count as seen.

        Returns
        -------
        numpy.ndarray of int64, shape (m,)
        """
        numbers = [
            index.numbers_of_rows(code, value.values, -1 if value.null_code is None else value.null_code)
            for index, code, value in zip(self._indexes, codes, values, strict=True)
        ]
        return self._combine(numbers)

    def _combine(self, numbers: list[Integers]) -> Integers:
        """Return the positions of slices from the numbers of their values in each key column."""
        assert numbers, "a table without keys has one slice, at position 0"
        positions = numbers[0]
        for pairs, number in zip(self._pairs, numbers[1:], strict=True):
            positions = pairs.numbers_of((positions << 32) | number, -1)
        self._resize(self._pairs[-1].n if self._pairs else self._indexes[0].n)
        return positions

    def _resize(self, n_slices: int) -> None:
        if n_slices > self.n_slices:
            self.n_slices = n_slices
            for column in self.columns:
                column.resize(n_slices)

    def _numbers(self) -> list[Integers]:
        """Return the number of each slice's value in each key column."""
        positions = np.arange(self.n_slices)
        numbers: list[Integers] = []
        for pairs in reversed(self._pairs):
            both = pairs.values[positions].view(np.int64)
            numbers.append(both & _LOW_HALF)
            positions = both >> 32
        return [positions, *reversed(numbers)] if self.keys else []

    def merge(self, other: SliceTable) -> None:
        """Add another table of the same keys and statistics to this one; the other keeps its values."""
        assert (self.keys, len(self.columns)) == (other.keys, len(other.columns))
        if not other.n_slices:
            return
        if self.keys:
            mine = [index.merge(theirs) for index, theirs in zip(self._indexes, other._indexes, strict=True)]
            positions = self._combine(
                [number[theirs] for number, theirs in zip(mine, other._numbers(), strict=True)]
                if self._pairs
                else mine
            )
        else:
            positions = np.zeros(1, dtype=np.int64)
        for column, theirs in zip(self.columns, other.columns, strict=True):
            column.merge(theirs, positions)

    def positions_of(self, keys: Sequence[CodedKeys], n_slices: int) -> Integers:
        """Return the positions of another table's slices, by the keys that this table has.

        Parameters
        ----------
        keys : sequence of CodedKeys
            For each key column of this table what the other has there.
        n_slices : int
            How many slices the other has.
        """
        if not keys:
            return np.zeros(n_slices, dtype=np.int64)
        return self.positions([key.codes for key in keys], keys)

    def normalize(self) -> None:
        """Bring every column into the form that is read and stored."""
        for column in self.columns:
            column.normalize()

    def total(self) -> SliceTable:
        """Return a table without keys whose one slice is all of these together."""
        total = SliceTable((), self.specs)
        if self.n_slices:
            positions = np.zeros(self.n_slices, dtype=np.int64)
            for column, mine in zip(total.columns, self.columns, strict=True):
                column.merge(mine, positions)
        return total

    def coded_keys(self) -> list[CodedKeys]:
        """Return the slices in each key column, by position, with no Python object for a slice."""
        return [index.coded(number) for index, number in zip(self._indexes, self._numbers(), strict=True)]

    def key_columns(self) -> list[KeyColumn]:
        """Return the value of each slice in each key column, by position."""
        return [index.column(number) for index, number in zip(self._indexes, self._numbers(), strict=True)]

    def keys_at(self, positions: Integers) -> list[KeyColumn]:
        """Return the value of some slices in each key column."""
        if len(self.keys) == 1:
            return [self._indexes[0].column(positions)]
        return [index.column(number[positions]) for index, number in zip(self._indexes, self._numbers(), strict=True)]

    def sorted_positions(self) -> Integers:
        """Return the positions in the order of their keys, the first key column first.

        Booleans come before integers, these before texts, and null last.
        """
        if not self.keys:
            return np.zeros(1, dtype=np.int64)
        if len(self.keys) == 1:
            return self._indexes[0].order()
        ranks = [index.ranks()[number] for index, number in zip(self._indexes, self._numbers(), strict=True)]
        return np.asarray(np.lexsort(ranks[::-1]), dtype=np.int64)
