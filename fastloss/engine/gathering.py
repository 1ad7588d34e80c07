"""Gathering: the checked rows of batches, by the key of their group, until a whole group is there."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.base import Batch, IntegerArray, Keys, NumberArray
from fastloss.columns.grouped import GroupedBatch
from fastloss.engine.checks import CheckedBatch
from fastloss.engine.inputs import RowInputs
from fastloss.engine.selection import Mask
from fastloss.engine.workspace import read_only
from fastloss.metrics.resolve import Evaluation, GroupEvaluation
from fastloss.shuffle.grouping import gather, group_rows, hash_keys
from fastloss.shuffle.store import Partition, RowStore
from fastloss.states.slices import SliceTable

# Rows of a partition in the order of their groups.
Order = NDArray[np.int32]

# What a row takes while its partition is evaluated: each number as it is loaded, in the order of the groups, and
# sorted within its group; beside that its key and its place in that order.
_COPIES = 3
_ROW_BYTES = 32


class Gathering(Protocol):
    """Gathers rows that have been checked."""

    def rows_of(self, batch: Batch, checked: CheckedBatch, first_number: int) -> Any:
        """Return what is kept of the rows of a batch; `first_number` is that of its first row in the log."""

    def add(self, rows: Any) -> None:
        """Add the rows of a task; several threads may."""


class StagedRows(NamedTuple):
    """Rows that wait until the task that they are of is read whole."""

    hashes: NDArray[np.uint64]
    columns: list[NumberArray]
    n_null: int

    @property
    def nbytes(self) -> int:
        """The memory that they take."""
        return int(self.hashes.nbytes + sum(column.nbytes for column in self.columns))


@dataclass
class GatheredRows:
    """The rows of all groups of one key.

    Parameters
    ----------
    group : GroupEvaluation
        The key, and what is computed of its groups.
    evaluation : Evaluation
        What is computed of rows.
    memory_bytes : int
        The memory that rows may take before they are written to disk.
    key_types : mapping of str to pyarrow.DataType
        The types of the key's columns in the log; files may store narrower ones.
    """

    group: GroupEvaluation
    evaluation: Evaluation
    memory_bytes: int
    key_types: Mapping[str, Any] = field(default_factory=dict)
    n_null: int = 0
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        """Decide what is kept of a row."""
        request = self.evaluation.request
        self._label = request.label_column
        # Models that read one column share it.
        self._models = {model.column: model.index for model in self.evaluation.models}
        names = [self._label, *self._models]
        names += [] if request.weight is None else [request.weight]
        self._numbers = names
        self._slices = {key: SliceTable((key,), ()) for key in request.keys}
        dtypes = [self._dtype(name) for name in names]
        if self._slices:
            # The number of the row among all of the log, and its slices.
            dtypes += [np.dtype(np.int64), *(np.dtype(np.int32) for _ in self._slices)]
        self._key_columns = 0
        self._dtypes = dtypes
        self._store: RowStore | None = None
        self._masks = False

    def _dtype(self, name: str) -> np.dtype[Any]:
        kind = self.evaluation.types[name].name
        if kind in ("float", "halffloat"):
            return np.dtype(np.float32)
        # A prediction that a model does not use is NaN.
        if kind in ("bool", "int8"):
            return np.dtype(np.float32 if name in self._models else np.int8)
        return np.dtype(np.float64)

    @property
    def row_bytes(self) -> int:
        """What a row takes while its group is evaluated."""
        return _ROW_BYTES + 8 * _COPIES * len(self._numbers)

    def rows_of(self, batch: Batch, checked: CheckedBatch, first_number: int) -> StagedRows | None:
        """Return what is kept of the rows of a batch; `first_number` is that of its first row in the log."""
        keep = _kept_by_any(checked, self.evaluation)
        keys = batch.group_keys(self.group.keys, self.key_types)
        n_null = 0
        if keys.valid is not None:
            n_null = int(np.count_nonzero(~keys.valid if keep is None else keep & ~keys.valid))
            keep = keys.valid if keep is None else keep & keys.valid
        rows = None if keep is None else np.flatnonzero(keep)
        n_rows = batch.n_rows if rows is None else len(rows)
        if n_rows == 0:
            return StagedRows(np.empty(0, np.uint64), [], n_null)

        def taken(values: NDArray[Any]) -> NDArray[Any]:
            return values if rows is None else values[rows]

        columns = [taken(column) for column in keys.columns]
        columns += [taken(values) for values in self._values(checked)]
        if self._slices:
            columns.append(first_number + (np.arange(n_rows) if rows is None else rows))
            for key, table in self._slices.items():
                found = batch.keys(key)
                with self._lock:
                    columns.append(table.positions([taken(found.codes)], [found]).astype(np.int32))
        return StagedRows(taken(keys.hashes), columns, n_null)

    def _values(self, checked: CheckedBatch) -> Iterator[NumberArray]:
        inputs = [model.inputs for model in checked.models]
        assert isinstance(inputs[0], RowInputs)
        dtypes = iter(self._dtypes)
        yield inputs[0].label.astype(next(dtypes), copy=False)
        for index in self._models.values():
            model, facts = checked.models[index], self.evaluation.models[index]
            assert isinstance(model.inputs, RowInputs)
            score = model.inputs.score.astype(next(dtypes), copy=False)
            keep = model.keep.get(facts.rows())
            if keep is None:
                yield score
            else:
                self._masks = self._masks or len(self._models) > 1
                yield np.where(keep, score, np.array(np.nan, dtype=score.dtype))
        if checked.weight is not None:
            yield checked.weight.astype(next(dtypes), copy=False)

    def add(self, rows: StagedRows) -> None:
        """Add the rows of a task; several threads may."""
        with self._lock:
            self.n_null += rows.n_null
            if self._store is None and len(rows.hashes):
                self._key_columns = len(rows.columns) - len(self._dtypes)
                keys = [np.dtype(np.int64)] * self._key_columns
                # The hashes that rows are added with: they need no room beside the keys.
                rehash = functools.partial(_hashes_of, self._key_columns)
                self._store = RowStore([*keys, *self._dtypes], memory_bytes=self.memory_bytes, rehash=rehash)
        if len(rows.hashes):
            assert self._store is not None
            self._store.add(rows.hashes, rows.columns)

    @property
    def nbytes(self) -> int:
        """The memory that the rows take."""
        return 0 if self._store is None else self._store.nbytes

    def partitions(self, most_bytes: int) -> Iterator[Partition]:
        """Yield parts of the rows, the largest first; a group is whole in one of them."""
        if self._store is not None:
            yield from self._store.partitions(most_rows=max(1, most_bytes // self.row_bytes))

    def batch_of(self, partition: Partition) -> tuple[GroupedBatch, int]:
        """Return the groups of a partition, and how many were left out since they have too few rows."""
        # Together, since what lies on disk is read whole.
        n_words = self._key_columns
        loaded = partition.load(range(n_words + len(self._numbers)))
        words = loaded[:n_words]
        # Each is taken away when it is gathered, since a group may be large.
        waiting = loaded[: n_words - 1 : -1]
        del loaded
        order: Order | None
        order, starts = _one_group(words) or group_rows(words)
        n_small = 0
        least = self.evaluation.request.min_group_size
        if least > 1:
            sizes = np.diff(starts)
            large = sizes >= least
            n_small = int(np.count_nonzero(~large))
            if n_small:
                every = np.arange(len(words[0]), dtype=np.int32) if order is None else order
                order = every[np.repeat(large, sizes)]
                starts = np.append(0, np.cumsum(sizes[large]))
        firsts = starts[:-1] if order is None else order[starts[:-1]]
        keys = tuple(word[firsts] for word in words)
        del words
        numbers = {name: _number(waiting.pop(), order) for name in self._numbers}
        weight_column, weight = self.evaluation.request.weight, None
        if weight_column is not None:
            weight = weight_column, read_only(mean_of_groups(numbers[weight_column], starts))
        slice_keys = self._slice_keys(partition, order, starts)
        return GroupedBatch(starts, numbers, weight, slice_keys, self._masks, keys), n_small

    def _slice_keys(self, partition: Partition, order: Order | None, starts: IntegerArray) -> dict[str, Keys]:
        """Return the slices of groups: those of their first rows in the log."""
        found: dict[str, Keys] = {}
        if self._slices:
            first = self._key_columns + len(self._numbers)
            row_numbers, *codes = partition.load(range(first, first + 1 + len(self._slices)))
            if order is None:
                order = np.arange(len(row_numbers), dtype=np.int32)
            firsts = order[_first_rows(row_numbers[order], starts)]
            for (key, table), code in zip(self._slices.items(), codes, strict=True):
                (coded,) = table.coded_keys()
                found[key] = Keys(code[firsts], coded.values, coded.null_code)  # type: ignore[arg-type]
        return found

    @property
    def spilled_bytes(self) -> int:
        """What was written to disk."""
        return 0 if self._store is None else self._store.spilled_bytes

    def close(self) -> None:
        """Give back the memory and the disk that the rows take."""
        if self._store is not None:
            self._store.close()


def _hashes_of(n_words: int, columns: Sequence[NDArray[Any]]) -> NDArray[np.uint64]:
    return hash_keys(columns[:n_words])


def _number(values: NumberArray, order: Order | None) -> NDArray[np.float64]:
    return read_only((values if order is None else gather(values, order)).astype(np.float64, copy=False))


def _one_group(words: Sequence[IntegerArray]) -> tuple[None, IntegerArray] | None:
    """Return where one group begins and ends that all these rows are of, in no other order; None if they are not."""
    if not all(len(word) and word[0] == word[-1] and (word == word[0]).all() for word in words):
        return None
    return None, np.array([0, len(words[0])])


def _kept_by_any(checked: CheckedBatch, evaluation: Evaluation) -> Mask | None:
    """Return the rows that a model uses; None for all of them."""
    keep: Mask | None = None
    for model, facts in zip(checked.models, evaluation.models, strict=True):
        own = model.keep.get(facts.rows())
        if own is None:
            return None
        keep = own if keep is None else keep | own
    return keep


def _first_rows(numbers: IntegerArray, starts: IntegerArray) -> IntegerArray:
    """Return the position of the row with the least number in each group."""
    least = np.minimum.reduceat(numbers, starts[:-1])
    return np.flatnonzero(numbers == np.repeat(least, np.diff(starts)))


def mean_of_groups(weight: NDArray[np.float64], starts: IntegerArray) -> NDArray[np.float64]:
    """Return the mean weight of the rows of each group, the same for any order of the rows."""
    if len(starts) == 1:
        return np.empty(0)
    low, high = np.minimum.reduceat(weight, starts[:-1]), np.maximum.reduceat(weight, starts[:-1])
    different = np.flatnonzero(low != high)
    if not len(different):
        return low
    sizes = np.diff(starts)
    of_different = np.repeat(low != high, sizes)
    values, groups = weight[of_different], np.repeat(np.arange(len(different)), sizes[different])
    # Sorted, so that a sum does not depend on the order in which the rows were read.
    values = values[np.lexsort((values, groups))]
    sums = np.add.reduceat(values, np.append(0, np.cumsum(sizes[different][:-1])))
    means = low.copy()
    means[different] = np.clip(sums / sizes[different], low[different], high[different])
    return means
