"""Gathering: the checked rows of batches, by the key of their group, until a whole group is there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.base import Batch, IntegerArray, Keys, NumberArray
from fastloss.columns.group_keys import in_order_of_type, is_integer_key, key_text
from fastloss.columns.grouped import GroupedBatch
from fastloss.engine.checks import CheckedBatch
from fastloss.engine.inputs import RowInputs
from fastloss.engine.list_checks import pieces
from fastloss.engine.selection import Mask
from fastloss.engine.ties import ranks_of_keys
from fastloss.engine.workspace import read_only
from fastloss.metrics.resolve import Evaluation, GroupEvaluation
from fastloss.shuffle.adjacent import AdjacentGroups, NotAdjacentError, group_adjacent_rows
from fastloss.shuffle.grouping import gather, group_rows, hash_keys
from fastloss.shuffle.key_store import KeyStore
from fastloss.shuffle.store import Partition, RowStore, log2_partitions_for
from fastloss.states.causes import SMALL_GROUP, Cause
from fastloss.states.ledger import GroupNames, Ledger, Location
from fastloss.states.slices import CodedKeys, SliceTable, Texts

# The rows of a task are numbered from its own number times 2 to the power of this.
ROW_BITS = 40
# Rows of a partition in the order of their groups.
Order = NDArray[np.int32]

# What a row takes while its partition is evaluated: each number as it is loaded, in the order of the groups, and
# sorted within its group; beside that its key and its place in that order.
_COPIES = 3
_THREAD_BYTES = 12 << 20
# From so many rows on, a group may fill the memory.
_LARGE_GROUP = 1 << 21
_ROW_BYTES = 32


class Gathering(Protocol):
    """Gathers rows that have been checked."""

    waits_for_task: bool

    def rows_of(self, batch: Batch, checked: CheckedBatch, first_number: int, edges: Mask | None = None) -> Any:
        """Return what is kept of the rows of a batch; `first_number` is that of its first row in the log.

        `edges` marks the rows of groups that may have rows in other tasks.
        """

    def settle(self, staged: Sequence[Any]) -> Iterator[GroupedBatch]:
        """Gather rows of a task, and yield the groups that are whole; several threads may.

        They are all rows of the task where `waits_for_task`.
        """


class StagedRows(NamedTuple):
    """Rows of a batch that wait until the task that they are of is read whole.

    Attributes
    ----------
    hashes : numpy.ndarray of uint64, shape (n_rows,)
        The hashes of their keys.
    columns : list of numpy.ndarray, shape (n_rows,)
        Their keys, then what is kept of them.
    n_null : int
        Rows whose key is null; they are not among these.
    first_number : int
        The number of the batch's first row in the log.
    edges : numpy.ndarray of bool, shape (n_rows,), or None
        Which rows are of groups that may have rows in other tasks; None if none is. It means nothing where nothing is
        known of the keys of tasks.
    """

    hashes: NDArray[np.uint64]
    columns: list[NumberArray]
    n_null: int
    first_number: int
    edges: Mask | None = None

    def part(self, rows: slice | Mask) -> StagedRows:
        """Return some of these rows."""
        return self._replace(hashes=self.hashes[rows], columns=[column[rows] for column in self.columns], n_null=0)


# load(numbers): the columns of some rows, by number: their keys, then what is kept of them.
Load = Callable[[Sequence[int]], list[NumberArray]]


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
        The types of the key's columns in the log, in the key's order; files may store narrower ones.
    is_adjacent : bool
        Whether the rows of a group are said to be adjacent in the log.
    waits_for_task : bool
        Whether all groups but those at the edges of a task are known to be whole in it.
    n_rows : int or None
        How many rows the log has, if that is known.
    n_threads : int
        How many threads read it.
    tells_keys : bool
        Whether the values of keys are asked for afterwards.

    Attributes
    ----------
    values : KeyStore, or None
        The values of keys.
    """

    group: GroupEvaluation
    evaluation: Evaluation
    memory_bytes: int
    key_types: Mapping[str, Any]
    is_adjacent: bool = False
    waits_for_task: bool = False
    n_rows: int | None = None
    n_threads: int = 1
    tells_keys: bool = False
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
        self._ids = None if request.id is None else SliceTable((request.id,), ())
        self._numbers_rows = bool(self._slices) or request.ties == "input"
        dtypes = [self._dtype(name) for name in names]
        # The number of the row among all of the log, its slices and its id.
        dtypes += [np.dtype(np.int64)] * self._numbers_rows
        # The values of slice keys and of ids, of which rows keep the positions. A column may be both.
        self._tables = [*self._slices.values(), *([] if self._ids is None else [self._ids])]
        dtypes += [np.dtype(np.int32) for _ in self._tables]
        self._key_columns = 1 if is_integer_key([self.key_types[key] for key in self.group.keys]) else 2
        self.values: KeyStore | None = None
        rows_bytes = self.memory_bytes
        if self.tells_keys:
            # Values take about as much as a narrow row; those of integers take none.
            rows_bytes = rows_bytes if self._key_columns == 1 else rows_bytes * 2 // 3
            self.values = KeyStore(self.key_types, memory_bytes=self.memory_bytes - rows_bytes)
        self._dtypes = dtypes
        stored = [np.dtype(np.int64)] * self._key_columns + dtypes
        # What threads take beside it.
        memory_bytes = max(rows_bytes // 2, rows_bytes - self.n_threads * _THREAD_BYTES)
        log2_partitions = 8 if self.n_rows is None else log2_partitions_for(self.n_rows)
        self._store = RowStore(
            stored, memory_bytes=memory_bytes, log2_partitions=log2_partitions, rehash=self._hashes_of
        )
        # As they are staged, and once more side by side, with their places.
        self._task_rows = self.memory_bytes // (self.n_threads * (2 * sum(kind.itemsize for kind in stored) + 16))
        self._adjacent = None
        if self.is_adjacent:
            self._adjacent = AdjacentGroups(self._key_columns, memory_bytes=self.memory_bytes // 2)
        self._masks = False

    def _dtype(self, name: str) -> np.dtype[Any]:
        kind = self.evaluation.types[name]
        if kind.is_single:
            return np.dtype(np.float32)
        # A prediction that a model does not use is NaN.
        if kind.name in ("bool", "int8"):
            return np.dtype(np.float32 if name in self._models else np.int8)
        return np.dtype(np.float64)

    def _hashes_of(self, columns: Sequence[NDArray[Any]]) -> NDArray[np.uint64]:
        return hash_keys(columns[: self._key_columns])

    @property
    def row_bytes(self) -> int:
        """What a row takes while its group is evaluated."""
        ordered = self.evaluation.request.ties in ("input", "id_desc")
        return _ROW_BYTES + 8 * _COPIES * (len(self._numbers) + ordered)

    def bytes_of(self, partition: Partition) -> int:
        """Return what the rows of a partition take while their groups are evaluated."""
        if partition.n_rows <= _LARGE_GROUP:
            return partition.n_rows * self.row_bytes
        # A column after the other.
        return partition.n_rows * (self.row_bytes - _ROW_BYTES // 2 - 8 * (_COPIES - 2) * len(self._numbers))

    def rows_of(self, batch: Batch, checked: CheckedBatch, first_number: int, edges: Mask | None = None) -> StagedRows:
        """Return what is kept of the rows of a batch.

        Parameters
        ----------
        batch : Batch
            The rows.
        checked : CheckedBatch
            Their numbers.
        first_number : int
            The number of the first of them in the log.
        edges : numpy.ndarray of bool, shape (n_rows,), optional
            Which of them are of groups that may have rows in other tasks.
        """
        # Whatever the predictions: a model has the same groups, of the same weights, alone and beside another.
        keep = checked.usable
        keys = batch.group_keys(self.group.keys, self.key_types)
        n_null = 0
        if keys.valid is not None:
            n_null = int(np.count_nonzero(~keys.valid if keep is None else keep & ~keys.valid))
            keep = keys.valid if keep is None else keep & keys.valid
        rows = None if keep is None else np.flatnonzero(keep)
        n_rows = batch.n_rows if rows is None else len(rows)
        if n_rows == 0:
            return StagedRows(np.empty(0, np.uint64), [], n_null, first_number)
        if self.values is not None:
            self.values.add(batch, keys._replace(valid=keep))

        def taken(values: NDArray[Any]) -> NDArray[Any]:
            return values if rows is None else values[rows]

        columns = [taken(column) for column in keys.columns]
        columns += [taken(values) for values in self._values(checked)]
        if self._numbers_rows:
            columns.append(first_number + (np.arange(n_rows) if rows is None else rows))
        for table in self._tables:
            found = batch.keys(*table.keys)
            with self._lock:
                columns.append(table.positions([taken(found.codes)], [found]).astype(np.int32))
        at_edges = None if edges is None else taken(edges)
        return StagedRows(taken(keys.hashes), columns, n_null, first_number, at_edges)

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
            if keep is None or keep is checked.usable:
                yield score
            else:
                self._masks = True
                yield np.where(keep, score, np.array(np.nan, dtype=score.dtype))
        if checked.weight is not None:
            yield checked.weight.astype(next(dtypes), copy=False)

    def settle(self, staged: Sequence[StagedRows]) -> Iterator[GroupedBatch]:
        """Yield the groups that are whole in some rows, and gather those that may go on elsewhere.

        Parameters
        ----------
        staged : sequence of StagedRows
            The rows of a task that was read; of the whole task, where `waits_for_task`.

        Raises
        ------
        NotAdjacentError
            If the rows of a group are not adjacent, and are said to be.
        """
        with self._lock:
            self.n_null += sum(rows.n_null for rows in staged)
        staged = [rows for rows in staged if len(rows.hashes)]
        if self._adjacent is not None:
            for rows in staged:
                yield from self._adjacent_groups(self._adjacent, rows)
        elif self.waits_for_task and 0 < sum(len(rows.hashes) for rows in staged) <= self._task_rows:
            yield from self._groups_of_task(staged)
        else:
            for rows in staged:
                self._store.add(rows.hashes, rows.columns)

    def _adjacent_groups(self, adjacent: AdjacentGroups, rows: StagedRows) -> Iterator[GroupedBatch]:
        with self._naming_columns():
            place = rows.first_number >> ROW_BITS, rows.first_number
            runs = adjacent.add(rows.columns[: self._key_columns], place)
        whole = runs.whole
        for edge in (rows.part(slice(0, whole.start)), rows.part(slice(whole.stop, len(rows.hashes)))):
            if len(edge.hashes):
                self._store.add(edge.hashes, edge.columns)
        if whole.stop > whole.start:
            inner = rows.part(whole)
            yield self._grouped(lambda numbers: [inner.columns[n] for n in numbers], None, runs.starts - whole.start)

    def _groups_of_task(self, staged: Sequence[StagedRows]) -> Iterator[GroupedBatch]:
        inner = []
        for rows in staged:
            if rows.edges is None or not rows.edges.any():
                inner.append(rows.columns)
                continue
            edge = rows.part(rows.edges)
            self._store.add(edge.hashes, edge.columns)
            inner.append(rows.part(~rows.edges).columns)
        columns = [np.concatenate(parts) for parts in zip(*inner, strict=True)]
        if len(columns[0]):
            order, starts = group_adjacent_rows(columns[: self._key_columns])
            yield self._grouped(lambda numbers: [columns[n] for n in numbers], order, starts)

    def end(self) -> None:
        """End gathering.

        Raises
        ------
        NotAdjacentError
            If the rows of a group are not adjacent, and are said to be.
        """
        if self._adjacent is not None:
            with self._naming_columns():
                self._adjacent.check()
            self._adjacent.close()

    @contextlib.contextmanager
    def _naming_columns(self) -> Iterator[None]:
        try:
            yield
        except NotAdjacentError as error:
            error.columns = self.group.keys
            raise

    @property
    def nbytes(self) -> int:
        """The memory that the rows take, and the values of keys."""
        return self._store.nbytes + (0 if self.values is None else self.values.nbytes)

    def partitions(self, most_bytes: int) -> Iterator[Partition]:
        """Return parts of the rows, the largest first; a group is whole in one of them.

        Where one takes more, all rows go to disk first, so that it has the memory.
        """
        return self._store.partitions(most_rows=max(1, most_bytes // self.row_bytes))

    def batch_of(self, partition: Partition) -> GroupedBatch:
        """Return the groups of a partition."""
        order: Order | None
        if partition.n_rows > _LARGE_GROUP:
            # A column after the other, since one group may fill the memory.
            words = partition.load(range(self._key_columns))
            starts = _one_group(words)
            order, starts = group_rows(words) if starts is None else (None, starts)
            del words
            return self._grouped(partition.load, order, starts)
        loaded = partition.load()
        order, starts = group_rows(loaded[: self._key_columns])
        return self._grouped(lambda numbers: [loaded[n] for n in numbers], order, starts)

    def _grouped(self, load: Load, order: Order | None, starts: IntegerArray) -> GroupedBatch:
        """Return groups whose rows are loaded as they are needed."""
        n_small = 0
        least = self.evaluation.request.min_group_size
        if least > 1:
            sizes = np.diff(starts)
            large = sizes >= least
            n_small = int(np.count_nonzero(~large))
            if n_small:
                every = np.arange(starts[-1], dtype=np.int32) if order is None else order
                order = every[np.repeat(large, sizes)]
                starts = np.append(0, np.cumsum(sizes[large]))
        firsts = starts[:-1] if order is None else order[starts[:-1]]
        keys = tuple(word[firsts] for word in load(range(self._key_columns)))
        numbers = {name: self._number(load, number, order) for number, name in enumerate(self._numbers)}
        weight_column, weight = self.evaluation.request.weight, None
        if weight_column is not None:
            weight = weight_column, read_only(mean_of_groups(numbers[weight_column], starts))
        slice_keys = self._slice_keys(load, order, starts)
        ties = self._ties(load, order)
        return GroupedBatch(
            self.group.name, starts, numbers, weight, slice_keys, self._masks, keys, n_small, ties, self.key_types
        )

    def _ties(self, load: Load, order: Order | None) -> NDArray[np.float64] | None:
        """Return what decides between rows of equal scores: the earlier row of the log, or the larger id."""
        first = self._key_columns + len(self._numbers)
        if self.evaluation.request.ties == "input":
            (row_numbers,) = load([first])
            numbers = np.empty(len(row_numbers))
            numbers[np.argsort(row_numbers)] = -np.arange(len(row_numbers), dtype=np.float64)
        elif self._ids is not None:
            (codes,) = load([first + self._numbers_rows + len(self._slices)])
            # Of the ids of these rows alone: there may be more to come.
            with self._lock:
                (known,) = self._ids.coded_keys()
            numbers = _ranks_of_ids(known, codes)
        else:
            return None
        return read_only(numbers if order is None else numbers[order])

    def _number(self, load: Load, number: int, order: Order | None) -> NDArray[np.float64]:
        (values,) = load([self._key_columns + number])
        return read_only((values if order is None else gather(values, order)).astype(np.float64, copy=False))

    def _slice_keys(self, load: Load, order: Order | None, starts: IntegerArray) -> dict[str, Keys]:
        """Return the slices of groups: those of their first rows in the log."""
        found: dict[str, Keys] = {}
        if self._slices:
            first = self._key_columns + len(self._numbers)
            row_numbers, *codes = load(range(first, first + 1 + len(self._slices)))
            if order is None:
                order = np.arange(len(row_numbers), dtype=np.int32)
            firsts = order[_first_rows(row_numbers[order], starts)]
            for (key, table), code in zip(self._slices.items(), codes, strict=True):
                (coded,) = table.coded_keys()
                found[key] = Keys(code[firsts], coded.values, coded.null_code)  # type: ignore[arg-type]
        return found

    def close(self) -> None:
        """Give back the memory and the disk that the rows take."""
        self._store.close()
        if self._adjacent is not None:
            self._adjacent.close()
        if self.values is not None:
            self.values.close()

    def name_of_most(self, partition: Partition) -> str:
        """Return what the group is called that has most rows of a partition which is not joined of small ones."""
        if self._key_columns != 1:
            return f"a group of {self.group.name}"
        keys, counts = np.unique(partition.sample(0), return_counts=True)
        ((name, kind),) = self.key_types.items()
        return f"the group {name} = {key_text(int(keys[counts.argmax()]), kind)}"


def pieces_of_groups(groups: GroupedBatch, most_rows: int, ledger: Ledger) -> Iterator[Batch]:
    """Count the groups that were too small, and yield the others, as many at a time as have so many rows."""
    if groups.n_small:
        ledger.n_read += groups.n_small
        cause = Cause(SMALL_GROUP, groups.name, "group")
        ledger.drop(cause, groups.n_small, Location(groups.origin, None, -1, None))
    # They are at hand, so that there is room for the longest.
    yield from pieces(groups, most_rows, longest_list=int(groups.starts[-1]))


def group_names(batch: Batch) -> GroupNames | None:
    """Return what groups are called whose key is one integer; None where a key is a hash."""
    if not isinstance(batch, GroupedBatch) or len(batch.words) != 1:
        return None
    ((name, kind),) = batch.key_types.items()
    (keys,) = batch.words
    return GroupNames(in_order_of_type(keys, kind), lambda group: f"{name} = {key_text(int(keys[group]), kind)}")


def _one_group(words: Sequence[IntegerArray]) -> IntegerArray | None:
    """Return where the one group begins and ends that all these rows are of; None if they are of several."""
    if not all(word[0] == word[-1] and (word == word[0]).all() for word in words):
        return None
    return np.array([0, len(words[0])])


def _ranks_of_ids(known: CodedKeys, positions: NDArray[Any]) -> NDArray[np.float64]:
    """Return a number for each of some positions in a table of ids, in the order of the ids, null first."""
    present, places = np.unique(positions, return_inverse=True)
    codes, values = known.codes[present], known.values
    own: Any
    if isinstance(values, np.ndarray):
        own = values[codes]
    else:
        own = values.take(codes).to_list() if isinstance(values, Texts) else [values[code] for code in codes]
    at_null = np.flatnonzero(codes == known.null_code) if known.null_code is not None else np.empty(0, np.int64)
    null = int(at_null[0]) if len(at_null) else None
    return ranks_of_keys(Keys(places.astype(np.int32), own, null))[places]


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
