"""A batch of rows as an engine reads it: NumPy arrays, whichever library decoded them.

A source gives batches. `fastloss.columns.arrow.ArrowBatch` is the one made of an Arrow record batch; a decoder that
does not go through Arrow gives another class with the same members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

NumberArray = NDArray[Any]
Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
CodeArray = NDArray[np.int32]
IntegerArray = NDArray[np.int64]
Key = None | bool | int | str

# The types that kernels are compiled for. Each holds its numbers exactly, and float64 holds all of theirs.
NUMBER_TYPES = (np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.int8))


class Numbers(NamedTuple):
    """A column of numbers.

    Attributes
    ----------
    values : numpy.ndarray of float64, float32 or int8, shape (n_rows,), C-contiguous, aligned, read-only
        0 where null.
    valid : numpy.ndarray of bool, shape (n_rows,), or None
        Which rows are not null; None if all.
    """

    values: NumberArray
    valid: BoolArray | None


class Lists(NamedTuple):
    """A column of lists: its numbers, one list after the other, and where each list begins.

    Attributes
    ----------
    values : numpy.ndarray of float64, shape (n_elements,), C-contiguous, read-only
        0 where an element is null.
    offsets : numpy.ndarray of int64, shape (n_rows + 1,)
        List i is ``values[offsets[i]:offsets[i + 1]]``; a null list is empty.
    valid : numpy.ndarray of bool, shape (n_rows,), or None
        Which lists are not null; None if all.
    elements_valid : numpy.ndarray of bool, shape (n_elements,), or None
        Which elements are not null; None if all.
    """

    values: Float64Array
    offsets: IntegerArray
    valid: BoolArray | None
    elements_valid: BoolArray | None

    @property
    def lengths(self) -> IntegerArray:
        """The number of elements of each list."""
        return np.diff(self.offsets)

    def lists_with(self, elements: BoolArray) -> BoolArray:
        """Tell which lists hold a marked element; `elements` is bool ``(n_elements,)``."""
        marked = np.zeros(len(self.offsets) - 1, dtype=np.bool_)
        marked[self.holders(np.flatnonzero(elements))] = True
        return marked

    def holders(self, elements: IntegerArray) -> IntegerArray:
        """Return which list each element belongs to; positions in `values`, int64."""
        return np.asarray(np.searchsorted(self.offsets, elements, side="right") - 1, dtype=np.int64)


class Keys(NamedTuple):
    """A column of keys as codes, and the distinct values that the codes index.

    Attributes
    ----------
    codes : numpy.ndarray of int32, shape (n_rows,)
        Positions in `values`.
    values : numpy.ndarray of int64 or uint64, or list of None, bool or str
        Every value that occurs, in no particular order; a few may not occur. None is there twice, except in an array
        of many keys that nearly all differ, which may be the column itself. Integer keys are an array,
        so that a million of them are no million Python objects. `key_of` gives one value of either kind.
    null_code : int or None
        The code of the null rows. In a list, the value there is None; in an array, it is a 0 that means nothing.
    """

    codes: CodeArray
    values: Sequence[Key] | NDArray[np.int64] | NDArray[np.uint64]
    null_code: int | None

    def key_of(self, code: int) -> Key:
        """Return the key of a code as None, bool, int or str."""
        if code == self.null_code:
            return None
        value = self.values[code]
        return int(value) if isinstance(value, np.integer) else value

    def to_list(self) -> list[Key]:
        """Return the values as None, bool, int or str."""
        if not isinstance(self.values, np.ndarray):
            return list(self.values)
        keys: list[Key] = self.values.tolist()
        if self.null_code is not None:
            keys[self.null_code] = None
        return keys


class ListKeys(NamedTuple):
    """A column of lists of keys.

    Attributes
    ----------
    keys : Keys
        The keys of all lists, one after the other.
    offsets : numpy.ndarray of int64, shape (n_rows + 1,)
        List i has the keys from ``offsets[i]`` to ``offsets[i + 1]``; a null list is empty.
    valid : numpy.ndarray of bool, shape (n_rows,), or None
        Which lists are not null; None if all.
    """

    keys: Keys
    offsets: IntegerArray
    valid: BoolArray | None


class GroupKeys(NamedTuple):
    """The key of each row's group, of one column or of several together.

    Attributes
    ----------
    hashes : numpy.ndarray of uint64, shape (n_rows,)
        A well mixed hash of the whole key. Equal keys have equal hashes.
    columns : tuple of numpy.ndarray of int64, shape (n_rows,)
        The key. One array where the key is one column of integers, booleans, dates or times: the integer itself. Two
        arrays for any other key: the words of a 128-bit hash. What stands in a row without a key means nothing.
    valid : numpy.ndarray of bool, shape (n_rows,), or None
        Which rows have a key, of which no column is null; None if all.
    """

    hashes: NDArray[np.uint64]
    columns: tuple[IntegerArray, ...]
    valid: BoolArray | None


class Batch(Protocol):
    """Some rows of a log. Each column is converted when it is first asked for, and once.

    A batch belongs to the thread that reads it.
    """

    @property
    def n_rows(self) -> int:
        """The number of rows."""

    @property
    def n_read(self) -> int:
        """The number of rows that were read, those that a filter left out among them."""

    @property
    def kept(self) -> IntegerArray | None:
        """The position of each row among those that were read, int64 ``(n_rows,)``; None if no row was left out."""

    @property
    def list_columns(self) -> Sequence[str]:
        """The columns that hold lists."""

    def numbers(self, column: str) -> Numbers:
        """Return a column of numbers.

        Raises
        ------
        SchemaError
            If the column is not numeric.
        DataError
            If it holds a 64-bit integer beyond 2**53 in magnitude, which float64 cannot hold exactly.
        """

    def lists(self, column: str) -> Lists:
        """Return a column of lists of numbers; raises as `numbers` does."""

    def list_lengths(self, column: str) -> IntegerArray:
        """Return the length of each list of a column, 0 where null, without converting its numbers."""

    def keys(self, column: str) -> Keys:
        """Return a column of keys.

        Raises
        ------
        SchemaError
            If the column's type cannot be a key.
        DataError
            If a text is not UTF-8.
        """

    def list_keys(self, column: str) -> ListKeys:
        """Return a column of lists of keys; raises as `keys` does."""

    def group_keys(self, columns: Sequence[str], types: Mapping[str, Any] | None = None) -> GroupKeys:
        """Return the group key of each row.

        Parameters
        ----------
        columns : sequence of str
            The columns of the key, one or more.
        types : mapping of str to pyarrow.DataType, optional
            The types that the columns have in the log, whose files may differ; left out, those of this batch.

        Raises
        ------
        SchemaError
            If a column's type cannot be a group key.
        DataError
            If a value does not fit the log's type.
        """

    def key_range(self, column: str, types: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
        """Return the least and the greatest value of a column of a group key, as footers order them.

        Integers for a column whose group key is an integer, else bytes; both are None if every row is null. The
        arguments and what is raised are those of `group_keys`.
        """

    def group_values(
        self, columns: Sequence[str], rows: IntegerArray, types: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """Return the values of a group key's columns in some rows that have a key, as Arrow arrays without nulls.

        They are of int64 where a column's group key is an integer, and of large_binary elsewhere;
        `fastloss.columns.group_keys.restore_values` gives them their types in the log. The arguments and what is
        raised are those of `group_keys`.
        """

    def slice(self, first: int, n_rows: int) -> Batch:
        """Return `n_rows` rows from the row `first` on, and what was read with them since the row before."""


class TaskKeys(Protocol):
    """What is known of the group keys in a task before it is read."""

    def at_edges(self, batch: Batch) -> BoolArray | None:
        """Return which rows are of groups that may have rows in other tasks; None if none is."""


def kept_rows(batch: Batch) -> Callable[[], IntegerArray] | None:
    """Return what finds `Batch.kept` when it is asked for, which takes time; None if no row was left out."""
    if batch.n_read == batch.n_rows:
        return None

    def find() -> IntegerArray:
        kept = batch.kept
        assert kept is not None
        return kept

    return find
