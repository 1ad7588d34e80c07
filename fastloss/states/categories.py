"""Sums by category of rows that have any number of categories each: lists of words, or of ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers, Named, RowSet, SliceRuns, StateSpec
from fastloss.states.counts import Count, CountColumn
from fastloss.states.slices import KeyValues, SliceTable
from fastloss.states.sums import Sum, SumColumn
from fastloss_kernels.exact_sum import ExactSums


@dataclass(frozen=True)
class CategorySums:
    """The sums of some quantities over the rows that have a category, of all rows together.

    Attributes
    ----------
    rows : RowSet
        The rows that are summed.
    column : str
        The column of lists of categories.
    quantities : tuple of Named
        What is summed.
    counted : Named
        What rows are counted as.
    """

    rows: RowSet
    column: str
    quantities: tuple[Named, ...]
    counted: Named

    @property
    def name(self) -> str:
        """The name in state files."""
        return f"sums by categories in {self.column}: {', '.join(quantity.name for quantity in self.quantities)}"

    @property
    def bytes_per_slice(self) -> int:
        """Nothing: slices have no sums of their own."""
        return 0

    @property
    def most_bytes(self) -> int:
        """One: the total is kept apart from slices, which have no sums."""
        return 1

    def identity(self) -> CategorySumsColumn:
        """Return the sums of no rows."""
        sums = (Sum(self.rows, quantity) for quantity in self.quantities)
        return CategorySumsColumn(self.column, (*sums, Count(self.rows, self.counted)))


@dataclass(frozen=True)
class SumsByCategory:
    """What the sums evaluate to.

    Attributes
    ----------
    keys : list of None, bool, int or str
        The categories, in their order.
    n : numpy.ndarray of int64
        How many rows have each.
    sums : tuple of ExactSums
        The sum of each quantity over these rows.
    n_rows : int
        How many rows have any.
    """

    keys: list[Any]
    n: Integers
    sums: tuple[ExactSums, ...]
    n_rows: int


class CategorySumsColumn:
    """Sums by category of all rows; slices have none.

    Attributes
    ----------
    table : SliceTable
        The categories and their sums.
    n_rows : int
        How many rows have any.
    """

    def __init__(self, column: str, specs: tuple[StateSpec, ...]) -> None:
        self.table = SliceTable((column,), specs)
        self.n_slices = 0
        self.n_rows = 0

    @property
    def nbytes(self) -> int:
        """How many bytes categories and sums take."""
        return self.table.nbytes

    def resize(self, n_slices: int) -> None:
        """Have at least `n_slices` slices."""
        self.n_slices = max(self.n_slices, n_slices)

    def add(
        self, terms: tuple[NDArray[np.float64], ...], rows: Integers, codes: NDArray[Any], values: KeyValues
    ) -> None:
        """Add the terms of rows to their categories, once where a row has one twice.

        Parameters
        ----------
        terms : tuple of numpy.ndarray of float64, shape (n_rows,)
            The terms of each quantity.
        rows, codes : numpy.ndarray of integers, shape (m,)
            A row and a code of its category, for every category of every row.
        values : KeyValues
            What the codes mean.
        """
        if not len(rows):
            return
        positions = self.table.positions([codes], [values])
        both = np.unique(rows * self.table.n_slices + positions)
        rows, positions = np.divmod(both, self.table.n_slices)
        self.n_rows += 1 + int(np.count_nonzero(np.diff(rows)))
        runs = SliceRuns(None, None, positions)
        *sums, count = self.table.columns
        for column, of_rows in zip(sums, terms, strict=True):
            assert isinstance(column, SumColumn)
            column.add(of_rows[rows], runs)
        assert isinstance(count, CountColumn)
        count.add_lengths(runs)

    def merge(self, other: CategorySumsColumn, positions: Integers) -> None:
        """Add the sums of another column."""
        self.table.merge(other.table)
        self.n_rows += other.n_rows

    def normalize(self) -> None:
        """Bring the sums into the form that is read."""
        self.table.normalize()

    def evaluate(self) -> SumsByCategory:
        """Return the sums of each category, in the order of their keys."""
        self.normalize()
        order = self.table.sorted_positions()
        keys = self.table.key_columns()[0].to_list()
        *sums, count = (column.evaluate() for column in self.table.columns)
        in_order = tuple(each.take(order) for each in sums)
        return SumsByCategory([keys[i] for i in order.tolist()], count[order], in_order, self.n_rows)

    def fields(self) -> dict[str, NDArray[Any]]:
        """Return the fields of each sum and of the count, both numbers of the column, and the categories as JSON."""
        self.normalize()
        keys = json.dumps([self.table.keys[0], self.table.key_columns()[0].to_list()]).encode()
        found = {
            f"{number}.{name}": values
            for number, column in enumerate(self.table.columns)
            for name, values in column.fields().items()
        }
        return {
            "keys": np.frombuffer(keys, dtype=np.uint8),
            "counts": np.array([self.n_slices, self.n_rows], dtype=np.int64),
            **found,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, NDArray[Any]]) -> Self:
        """Return the column that has these fields, in memory of its own."""
        name, keys = json.loads(fields["keys"].tobytes())
        numbers = sorted({int(field.partition(".")[0]) for field in fields if field[0].isdecimal()})
        sums = [Sum(RowSet(0), _Stored(str(number))) for number in numbers[:-1]]
        column = cls(name, (*sums, Count(RowSet(0), _Stored("rows"))))
        if keys:
            null = keys.index(None) if None in keys else None
            positions = column.table.positions([np.arange(len(keys))], [_Keys(keys, null)])
            for number, own in zip(numbers, column.table.columns, strict=True):
                stored = {
                    field.partition(".")[2]: array for field, array in fields.items() if field.startswith(f"{number}.")
                }
                own.merge(type(own).from_fields(stored), positions)
        column.n_slices, column.n_rows = fields["counts"].tolist()
        return column


class _Stored(NamedTuple):
    """A quantity of a state that was stored."""

    name: str


class _Keys(NamedTuple):
    """Categories, each its own code."""

    values: list[Any]
    null_code: int | None
