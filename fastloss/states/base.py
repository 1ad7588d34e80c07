"""Statistics of slices: the specification of one, and the column that holds it for many slices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


# The first need of sets of rows that no metric uses: those of weight 0, and lists that lack what the other needs name.
ZERO_WEIGHT = "zero_weight"
LEFT_OUT = "left_out"


class RowSet(NamedTuple):
    """Which rows a statistic takes.

    Attributes
    ----------
    model : int
        The model whose prediction must be usable, by its position in the request.
    needs : tuple of str
        Of list columns, what a list must hold: "candidate", "positive", "pair". Empty for pointwise columns.
    """

    model: int
    needs: tuple[str, ...] = ()

    @property
    def is_used(self) -> bool:
        """Whether metrics use these rows; others are counted alone."""
        return self.needs[:1] not in ((ZERO_WEIGHT,), (LEFT_OUT,))


class SliceRuns(NamedTuple):
    """Which slice each of some rows belongs to.

    Attributes
    ----------
    order : numpy.ndarray of int64, or None
        The rows in the order of their slices; None if they stand in that order, or if `starts` is None.
    starts : numpy.ndarray of int64, shape (n_runs + 1,), or None
        The rows ``order[starts[k]:starts[k + 1]]`` belong to the slice ``positions[k]``. None if there is a position
        for each row, in the order of the rows: the better way for many slices with few rows each.
    positions : numpy.ndarray of int64, shape (n_runs,) or (n_rows,)
        Positions of slices.
    """

    order: Integers | None
    starts: Integers | None
    positions: Integers

    def in_own_slices(self) -> SliceRuns:
        """Return the same runs, each of which belongs to a slice of its own."""
        return self._replace(positions=np.arange(len(self.positions)))


class StateColumn(Protocol):
    """One statistic of many slices: arrays whose first axis is the slice.

    A new column has no slices. Merging is associative and commutative in all that `evaluate` returns.
    """

    @property
    def n_slices(self) -> int:
        """How many slices there are."""

    @property
    def nbytes(self) -> int:
        """How many bytes the arrays take, room for further slices included."""

    def resize(self, n_slices: int) -> None:
        """Have at least `n_slices` slices; new ones hold what no rows give. Growing step by step takes linear time."""

    def merge(self, other: Self, positions: Integers) -> None:
        """Add slice i of `other`, which keeps its values, to the slice ``positions[i]``; positions may repeat."""

    def normalize(self) -> None:
        """Bring the arrays into the form that is read and stored."""

    def evaluate(self) -> Any:
        """Return the statistic of every slice, as arrays or an object of arrays.

        They may share memory with the column: read them before it changes.
        """

    def fields(self) -> Mapping[str, NDArray[Any]]:
        """Return all that a state file stores."""

    @classmethod
    def from_fields(cls, fields: Mapping[str, NDArray[Any]]) -> Self:
        """Return the column that has these fields."""


class StateSpec(Protocol):
    """Says what is kept for each slice: frozen and hashable."""

    @property
    def rows(self) -> RowSet:
        """The rows it takes."""

    @property
    def name(self) -> str:
        """A name that is stable between releases, and unique among the specifications of a request and row set."""

    @property
    def bytes_per_slice(self) -> int:
        """About how many bytes a slice takes."""

    def identity(self) -> Any:
        """Return a `StateColumn` without slices."""


def bounded_bytes(spec: StateSpec) -> int:
    """Return what a column may take for all slices together, beside what each slice takes; 0 for most columns."""
    found: int = getattr(spec, "most_bytes", 0)
    return found


def bounded_task_bytes(spec: StateSpec, n_rows: int | None, row_bytes: int) -> int:
    """Return what such a column may take in the state of a task of so many rows; None where that is not known."""
    of_task = getattr(spec, "most_task_bytes", None)
    found: int = bounded_bytes(spec) if of_task is None or n_rows is None else of_task(n_rows, row_bytes)
    return found


class Named(Protocol):
    """A quantity that is summed or counted: frozen and hashable."""

    @property
    def name(self) -> str:
        """A name that is stable between releases."""


def grown(array: NDArray[Any], n_used: int, n_wanted: int) -> NDArray[Any]:
    """Return a longer array with the first `n_used` rows of `array`, the others 0, that has room for `n_wanted`.

    A row of 64 bytes starts at a multiple of 64, so that it lies in one cache line.
    """
    capacity = max(n_wanted, len(array) + len(array) // 4, 8)
    row_bytes = array.itemsize * math.prod(array.shape[1:])
    if row_bytes % 64:
        longer = np.zeros((capacity, *array.shape[1:]), dtype=array.dtype)
        longer[:n_used] = array[:n_used]
        return longer
    memory = np.zeros(capacity * row_bytes + 64, dtype=np.uint8)
    first = -memory.ctypes.data % 64
    longer = memory[first : first + capacity * row_bytes].view(array.dtype).reshape(capacity, *array.shape[1:])
    longer[:n_used] = array[:n_used]
    return longer
