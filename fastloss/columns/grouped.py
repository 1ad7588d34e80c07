"""Batches of groups: the rows of each are lists, as if the log held list columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastloss.columns.base import Float64Array, GroupKeys, IntegerArray, Keys, ListKeys, Lists, Numbers


@dataclass(frozen=True)
class GroupedBatch:
    """Some groups as a `fastloss.columns.base.Batch`, one row a group.

    Attributes
    ----------
    name : str
        The columns of the key.
    starts : numpy.ndarray of int64, shape (n_groups + 1,)
        The rows of group i are those from ``starts[i]`` to ``starts[i + 1]``.
    columns : mapping of str to numpy.ndarray of float64, shape (n_rows,)
        The numbers of the rows, by group; NaN where a row is not used by the models of a column.
    weight : tuple of str and numpy.ndarray of float64, shape (n_groups,), or None
        The column of weights, and the weight of each group.
    slice_keys : mapping of str to Keys
        The slice keys of each group.
    masked : bool
        Whether there may be a NaN.
    words : tuple of numpy.ndarray of int64, shape (n_groups,)
        The key of each group, as `GroupKeys.columns` has it.
    n_small : int
        How many groups were left out since they have too few rows.
    ties : numpy.ndarray of float64, shape (n_rows,), or None
        What decides between rows of equal scores, by group; the larger stands first.
    key_types : mapping of str to pyarrow.DataType
        The types of the key's columns in the log.
    """

    name: str
    starts: IntegerArray
    columns: Mapping[str, Float64Array]
    weight: tuple[str, Float64Array] | None
    slice_keys: Mapping[str, Keys]
    masked: bool = False
    words: tuple[IntegerArray, ...] = ()
    n_small: int = 0
    ties: Float64Array | None = None
    key_types: Mapping[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """What stands for the place of one of them."""
        return f"the groups of {self.name}"

    @property
    def n_rows(self) -> int:
        """The number of groups."""
        return len(self.starts) - 1

    @property
    def n_read(self) -> int:
        """The number of groups: no filter leaves one out."""
        return self.n_rows

    @property
    def kept(self) -> IntegerArray | None:
        """None: no filter leaves out a group."""
        return None

    @property
    def list_columns(self) -> Sequence[str]:
        """The columns of the rows' numbers."""
        return list(self.columns)

    def numbers(self, column: str) -> Numbers:
        """Return the weights of the groups."""
        assert self.weight is not None
        assert self.weight[0] == column
        return Numbers(self.weight[1], None)

    def lists(self, column: str) -> Lists:
        """Return the numbers of the rows of each group."""
        values = self.columns[column]
        masked = np.isnan(values) if self.masked else None
        if masked is None or not masked.any():
            return Lists(values, self.starts, None, None)
        filled = np.where(masked, 0.0, values)
        filled.flags.writeable = False
        return Lists(filled, self.starts, None, ~masked)

    def list_lengths(self, column: str) -> IntegerArray:
        """Return the number of rows of each group."""
        return np.diff(self.starts)

    def keys(self, column: str) -> Keys:
        """Return a slice key of each group."""
        return self.slice_keys[column]

    def list_keys(self, column: str) -> ListKeys:
        """Raise: rows of groups have numbers alone."""
        raise NotImplementedError(column)

    def group_keys(self, columns: Sequence[str], types: Mapping[str, Any] | None = None) -> GroupKeys:
        """Raise: groups are in no group."""
        raise NotImplementedError(columns)

    def key_range(self, column: str, types: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
        """Raise: groups are in no group."""
        raise NotImplementedError(column)

    def group_values(
        self, columns: Sequence[str], rows: IntegerArray, types: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """Raise: groups are in no group."""
        raise NotImplementedError(columns)

    def slice(self, first: int, n_rows: int) -> GroupedBatch:
        """Return `n_rows` groups from the group `first` on."""
        starts = self.starts[first : first + n_rows + 1]
        begin, end = int(starts[0]), int(starts[-1])
        return GroupedBatch(
            self.name,
            starts - begin,
            {name: values[begin:end] for name, values in self.columns.items()},
            None if self.weight is None else (self.weight[0], self.weight[1][first : first + n_rows]),
            {name: keys._replace(codes=keys.codes[first : first + n_rows]) for name, keys in self.slice_keys.items()},
            self.masked,
            tuple(words[first : first + n_rows] for words in self.words),
            ties=None if self.ties is None else self.ties[begin:end],
            key_types=self.key_types,
        )
