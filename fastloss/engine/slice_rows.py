"""The rows of slices: checked rows of a log, gathered until all rows of a slice are there.

Of slices that are too many for the memory, statistics are kept of some at a time. The rows of the log go into a
`RowStore` by the hash of their slice's key; then each partition, which holds all rows of its slices, is evaluated by
itself by the engine that evaluates batches.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from fastloss.budget import Execution
from fastloss.columns.base import Batch, Keys, NumberArray
from fastloss.columns.group_keys import KeyTypes, is_text_key, texts_of
from fastloss.columns.grouped import GroupedBatch
from fastloss.engine.checks import CheckedBatch, ModelRows
from fastloss.engine.engine import Engine, SlicesOutgrownError
from fastloss.engine.inputs import RowInputs
from fastloss.engine.selection import Mask
from fastloss.engine.workspace import read_only
from fastloss.metrics.evaluate import GroupingValues, evaluate_table
from fastloss.metrics.resolve import Evaluation
from fastloss.shuffle.grouping import hash_integers
from fastloss.shuffle.key_store import KeyStore
from fastloss.shuffle.store import Partition, RowStore, log2_partitions_for
from fastloss.states.evaluation import EvaluationState
from fastloss.states.ledger import Place
from fastloss.states.slices import KeyColumn, SliceTable, Texts

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_ORIGIN = "<rows of slices>"
# What a slice takes beside its statistics: its key, and its place in a hash table.
_KEY_BYTES = 32
# Copies of the texts of keys that are there at a time.
_TEXT_COPIES = 4
# Of fewer slices among the first rows it cannot be told how many there will be.
_FEW_SLICES = 1 << 12
# From so many slices on, their statistics are far from the processor: rows are faster gathered first.
_MANY_SLICES = 1 << 19


def sliced_by(evaluation: Evaluation, groupings: tuple[tuple[str, ...], ...]) -> Evaluation:
    """Return an evaluation with other slices."""
    return replace(evaluation, request=replace(evaluation.request, by=groupings))


class StagedRows(NamedTuple):
    """Rows that wait until the task that they are of is read whole."""

    hashes: Hashes
    columns: list[NumberArray]


class WatchingEngine(Engine):
    """An engine that tells early that slices will outgrow the memory, by how many there are in the first rows.

    Parameters
    ----------
    evaluation, execution
        As of `Engine`.
    n_rows : int
        The rows of the log.
    watched : tuple of tuples of str
        The groupings that it is told of, by their keys.
    """

    def __init__(
        self, evaluation: Evaluation, execution: Execution, n_rows: int, watched: tuple[tuple[str, ...], ...]
    ) -> None:
        super().__init__(evaluation, execution)
        self._n_rows = n_rows
        self._watched = watched
        self._most = min(_MANY_SLICES, execution.slices_bytes // _slice_bytes(evaluation))

    def _add(self, state: EvaluationState, batch: Batch, checked: CheckedBatch, place: Place) -> None:
        super()._add(state, batch, checked, place)
        ledger = state.ledger
        n_rows = ledger.n_read - ledger.n_filtered
        n_all = self._n_rows * n_rows // ledger.n_read
        many = [
            table.keys
            for table in state.tables
            if table.keys in self._watched
            and table.n_slices > _FEW_SLICES
            and expected_distinct(table.n_slices, n_rows, n_all) > self._most
        ]
        if many:
            raise SlicesOutgrownError("slices are about to outgrow the memory", tuple(many))


def _slice_bytes(evaluation: Evaluation) -> int:
    """Return about what the statistics of a slice take."""
    return _KEY_BYTES + sum(spec.bytes_per_slice for spec in evaluation.specs)


def expected_distinct(n_distinct: int, n_rows: int, n_all: int) -> float:
    """Return how many different keys are to be expected among all rows, of which `n_rows` have `n_distinct`.

    As if every key were as frequent as any other: where some are rarer than others there are more.
    """
    low, high = math.log(n_distinct), math.log(1e18)
    for _ in range(60):
        middle = (low + high) / 2
        known = math.exp(middle)
        if -known * math.expm1(-n_rows / known) < n_distinct:
            low = middle
        else:
            high = middle
    known = math.exp(low)
    return min(float(n_all), -known * math.expm1(-n_all / known))


class _CheckedRows(NamedTuple):
    """Rows that have been checked, in place of a batch."""

    n_rows: int
    keys_of: dict[str, Keys]

    def keys(self, column: str) -> Keys:
        return self.keys_of[column]


class _PartitionEngine(Engine):
    """An engine of rows that have been checked."""

    def update_checked(self, state: EvaluationState, rows: _CheckedRows, checked: CheckedBatch, place: Place) -> None:
        with np.errstate(all="ignore"), self.workspace.scope():
            self._add(state, cast("Batch", rows), checked, place)

    def _check_memory(self, state: EvaluationState, *, merged: bool) -> None:
        """Do nothing: a partition has no more rows than there is memory for."""


class SliceRows:
    """The rows of all slices by some keys. Several threads may add to them at once.

    Parameters
    ----------
    keys : tuple of str
        The slice columns.
    evaluation : Evaluation
        What is computed, of columns of one number a row.
    execution : Execution
        How the log is read.
    memory_bytes : int
        The memory that rows, and the texts of keys, may take before they are written to disk.
    key_types : mapping of str to pyarrow.DataType
        The types of the key columns in the log.
    n_rows : int, optional
        The rows of the log, where that is known: then partitions are seldom split.
    """

    waits_for_task = False

    def __init__(
        self,
        keys: tuple[str, ...],
        evaluation: Evaluation,
        execution: Execution,
        memory_bytes: int,
        key_types: KeyTypes,
        n_rows: int | None = None,
    ) -> None:
        self.keys = keys
        # Integers are keys as they stand. Of texts there are hashes of two words, and a store of the texts. Other keys
        # have numbers in the order in which they were first seen.
        self._key_types = key_types
        hashed = [key for key in keys if is_text_key(key_types[key])]
        text_bytes = memory_bytes // (4 * len(hashed)) if hashed else 0
        self._texts = {key: KeyStore({key: key_types[key]}, memory_bytes=text_bytes) for key in hashed}
        memory_bytes -= text_bytes * len(hashed)
        self._words = {key: (key, f"{key}\0") if key in self._texts else (key,) for key in keys}
        words = tuple(word for of_key in self._words.values() for word in of_key)
        self._n_words = len(words)
        self.evaluation = sliced_by(evaluation, (words,))
        self._engine = _PartitionEngine(self.evaluation, execution)
        self._batch_rows = execution.batch_rows
        types = evaluation.types
        self._numbered = {
            key: SliceTable((key,), ())
            for key in keys
            if key not in self._texts and not re.fullmatch(r"u?int\d+", types[key].name)
        }
        self._unsigned = {key for key in keys if types[key].name == "uint64"}
        self._lock = threading.Lock()
        self._row_sets = sorted({spec.rows for spec in evaluation.specs})
        # Models that read one column share it.
        self._models = {model.column: model.index for model in evaluation.models}
        self._most_rows = 0
        self.n_rows = 0
        self._may_saturate = [False] * len(evaluation.models)
        weight = evaluation.request.weight
        numbers = [*self._models, *(() if weight is None else (weight,))]
        label = "int8" if types[evaluation.request.label_column].name in ("bool", "int8") else "float64"
        if evaluation.label_domain == "pm1":
            label = "float64"
        n_flags = len(self._row_sets) + len(keys)
        # A store spends nothing on what is the same in all rows, if it has two bytes or more.
        flags = next(kind for kind in ("uint16", "uint32", "uint64") if n_flags <= 8 * np.dtype(kind).itemsize)
        dtypes = ["int64"] * self._n_words + [flags, label]
        dtypes += ["float32" if types[name].is_single else "float64" for name in numbers]
        self._flag = np.dtype(flags).type
        self._dtypes = list(map(np.dtype, dtypes))
        self._store = RowStore(
            self._dtypes,
            memory_bytes=memory_bytes,
            log2_partitions=8 if n_rows is None else log2_partitions_for(n_rows),
            rehash=lambda columns: self._hashes_of(columns[: self._n_words]),
        )

    @property
    def nbytes(self) -> int:
        """The memory that keys other than integers take."""
        return sum(table.nbytes for table in self._numbered.values())

    @property
    def text_bytes(self) -> int:
        """What the texts of a slice's key take, on average, while they are found, sorted and written."""
        return sum(_TEXT_COPIES * (8 + texts.value_bytes) for texts in self._texts.values())

    # -----------------------------------------------------------------------------------------------------------
    # Gathering

    def rows_of(self, batch: Batch, checked: CheckedBatch, first_number: int, edges: Mask | None = None) -> StagedRows:
        """Return what is kept of the rows of a batch that some model uses; their numbers are not kept."""
        flags, rows = self._flags(checked, batch.n_rows)
        keys: list[Integers] = []
        for position, key in enumerate(self.keys):
            if key in self._numbered:
                keys.append(self._numbers_of(batch, key, rows))
                continue
            words, null = self._words_of(batch, key, rows)
            keys += words
            if null is not None:
                flags |= null * self._flag(1 << len(self._row_sets) + position)
        columns = [*keys, flags]
        columns += [
            (values if rows is None else values[rows]).astype(dtype, copy=False)
            for values, dtype in zip(self._values(checked), self._dtypes[len(columns) :], strict=True)
        ]
        return StagedRows(self._hashes_of(keys), columns)

    def _hashes_of(self, words: Sequence[NumberArray]) -> Hashes:
        if len(self.keys) == 1 and self._texts:
            # A hash already: the texts of a partition's slices are side by side in their store, too.
            return words[0].view(np.uint64)
        return _hash_of(words)

    def _flags(self, checked: CheckedBatch, n_rows: int) -> tuple[NumberArray, Integers | None]:
        """Return a bit for each set of rows that a row is in, and which rows of the batch are in one; None for all."""
        every, flags = 0, None
        for bit, row_set in enumerate(self._row_sets):
            keep_of = checked.models[row_set.model].keep
            keep = keep_of.get(row_set)
            if row_set in keep_of and keep is None:
                every |= 1 << bit
            elif keep is not None:
                marked = keep * self._flag(1 << bit)
                flags = marked if flags is None else flags | marked
        for number, model in enumerate(checked.models):
            self._may_saturate[number] |= model.may_saturate
        if flags is None:
            return np.full(n_rows, every, dtype=self._flag), None
        flags |= self._flag(every)
        if flags.all():
            return flags, None
        rows = np.flatnonzero(flags)
        return flags[rows], rows

    def _numbers_of(self, batch: Batch, key: str, rows: Integers | None) -> Integers:
        """Return the number of each row's key; null has one, too."""
        found = batch.keys(key)
        with self._lock:
            return self._numbered[key].positions([found.codes if rows is None else found.codes[rows]], [found])

    def _words_of(self, batch: Batch, key: str, rows: Integers | None) -> tuple[list[Integers], Mask | None]:
        """Return the key of each row, as one integer or two, and which rows have none; None if all have one."""
        found = batch.group_keys((key,), self._key_types)
        if key in self._texts:
            self._texts[key].add(batch, found)
        words, null = list(found.columns), None
        if found.valid is not None:
            # What stands in a row without a key means nothing.
            words, null = [np.where(found.valid, word, 0) for word in words], ~found.valid
        if rows is None:
            return words, null
        return [word[rows] for word in words], None if null is None else null[rows]

    def _values(self, checked: CheckedBatch) -> Iterator[NumberArray]:
        first = checked.models[0].inputs
        assert isinstance(first, RowInputs)
        yield first.label
        for index in self._models.values():
            inputs = checked.models[index].inputs
            assert isinstance(inputs, RowInputs)
            yield inputs.score
        if checked.weight is not None:
            yield checked.weight

    def settle(self, staged: Sequence[StagedRows]) -> Iterator[GroupedBatch]:
        """Gather the rows of a task; there are no groups to yield."""
        for rows in staged:
            self._store.add(rows.hashes, rows.columns)
            with self._lock:
                self.n_rows += len(rows.hashes)
        return iter(())

    # -----------------------------------------------------------------------------------------------------------
    # Evaluating

    def partitions(self, most_bytes: int) -> Iterator[Partition]:
        """End adding, and return the partitions, each of which takes so many bytes at most when it is evaluated.

        One that a single slice has most rows of is not loaded at once.
        """
        row_bytes = sum(dtype.itemsize for dtype in self._dtypes) + _slice_bytes(self.evaluation)
        self._most_rows = max(_FEW_SLICES, most_bytes // row_bytes)
        return self._store.partitions(self._most_rows)

    def _parts(self, partition: Partition) -> Iterator[list[NumberArray]]:
        """Return the rows of a partition, at once unless one slice has most of them."""
        if partition.n_rows > self._most_rows:
            return partition.parts(self._batch_rows)
        return iter((partition.load(),))

    def evaluate(self, partition: Partition | None) -> tuple[GroupingValues, SliceTable]:
        """Return the values of the slices of a partition, or of no slice, and what they are together.

        Keys are integers yet, and in no order.
        """
        state = self._engine.identity()
        for columns in () if partition is None else self._parts(partition):
            for first in range(0, len(columns[0]), self._batch_rows):
                some = [column[first : first + self._batch_rows] for column in columns]
                keys, checked = self._checked(some)
                rows = _CheckedRows(len(some[0]), keys)
                self._engine.update_checked(state, rows, checked, Place(_ORIGIN, None, first))
        (table,) = state.tables
        values = evaluate_table(self.evaluation, table, self.evaluation.specs, ordered=False)
        return replace(values, histograms={}, bins={}), table.total()

    def restored(self, columns: Sequence[KeyColumn]) -> list[KeyColumn]:
        """Return keys as they are in the log."""
        restored, words = [], iter(columns)
        for key in self.keys:
            column = next(words)
            if key in self._texts:
                column = self._restored_texts(key, column, next(words))
            elif key in self._numbered and isinstance(column.values, np.ndarray):
                (column,) = self._numbered[key].keys_at(column.values.view(np.int64))
            restored.append(column)
        return restored

    def _restored_texts(self, key: str, high: KeyColumn, low: KeyColumn) -> KeyColumn:
        null = high.null
        if not isinstance(high.values, np.ndarray) or (null is not None and null.all()):
            return KeyColumn([None] * len(high.values), null)
        has_text = np.ones(len(high.values), dtype=np.bool_) if null is None else ~null
        words = [np.asarray(word.values).view(np.int64)[has_text] for word in (high, low)]
        number_of = np.arange(len(words[0]))
        if len(self.keys) > 1:
            # One of several keys may be that of many slices.
            pairs, number_of = np.unique(np.stack(words, axis=1), axis=0, return_inverse=True)
            words = [pairs[:, 0].copy(), pairs[:, 1].copy()]
        (texts,) = self._texts[key].lookup(words)
        numbers: Integers | None = None
        if null is not None or len(self.keys) > 1:
            numbers = np.zeros(len(has_text), dtype=np.int64)
            numbers[has_text] = number_of
        return KeyColumn(Texts(*texts_of(texts, numbers, null)), null)

    def _checked(self, columns: Sequence[NumberArray]) -> tuple[dict[str, Keys], CheckedBatch]:
        words = iter(columns[: self._n_words])
        flags = columns[self._n_words]
        label, *numbers = map(read_only, columns[self._n_words + 1 :])
        keys = {}
        for position, key in enumerate(self.keys):
            null = _bit(flags, len(self._row_sets) + position)
            for word in self._words[key]:
                # Of two words, the first tells of null.
                keys[word] = self._keys_of(key, next(words), null if word == key else None)
        masks = {row_set: _bit(flags, bit) for bit, row_set in enumerate(self._row_sets)}
        scores = dict(zip(self._models, numbers, strict=False))
        models = [
            ModelRows(
                RowInputs(scores[model.column], label),
                {rows: _unless_all(mask) for rows, mask in masks.items() if rows.model == model.index},
                self._may_saturate[model.index],
            )
            for model in self.evaluation.models
        ]
        return keys, CheckedBatch(numbers[len(self._models)] if len(numbers) > len(self._models) else None, models)

    def _keys_of(self, key: str, values: NumberArray, null: Mask | None) -> Keys:
        codes = np.arange(len(values), dtype=np.int32)
        integers = values.view(np.uint64) if key in self._unsigned else values
        if null is None or not null.any():
            return Keys(codes, integers, None)
        first = int(null.argmax())
        return Keys(np.where(null, np.int32(first), codes), integers, first)

    def close_rows(self) -> None:
        """Give back the memory and the disk that the rows take."""
        self._store.close()

    def close(self) -> None:
        """Give back the memory and the disk that the rows, and the texts of keys, take."""
        self._store.close()
        for texts in self._texts.values():
            texts.close()


def _hash_of(keys: Sequence[NumberArray]) -> Hashes:
    hashes = hash_integers(keys[0])
    for key in keys[1:]:
        hashes = hash_integers((hashes * _MULTIPLIER ^ key.view(np.uint64)).view(np.int64))
    return hashes


def _bit(flags: NumberArray, bit: int) -> Mask:
    return np.asarray(flags & flags.dtype.type(1 << bit), dtype=np.bool_)


def _unless_all(mask: Mask) -> Mask | None:
    return None if mask.all() else mask
