"""Groups whose rows are adjacent in the log: told from the order of the rows alone.

A run is rows of one key that follow each other. Of a batch, the first run and the last may continue in its neighbours:
they are its edges. Every other run is a whole group, if it is true that rows of a group are adjacent. Whether it is
true is seen in the end: a key must not come twice, but at edges that follow each other.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.base import IntegerArray
from fastloss.errors import DataError
from fastloss.shuffle.grouping import group_rows, hash_keys
from fastloss.shuffle.store import RowStore

# A key: one integer, or the two words of a hash.
Words = tuple[int, ...]
# The number of the task, and that of the batch in it.
Place = tuple[int, int]


class NotAdjacentError(DataError):
    """Rows of a group are not adjacent, though the caller said so.

    Attributes
    ----------
    key : tuple of int
        The key, as `GroupKeys.columns` has it.
    places : tuple of (int, int)
        Two batches that hold it, in the order of the log; they may be one.
    columns : tuple of str
        The columns of the key.
    """

    def __init__(self, key: Words, places: tuple[Place, Place]) -> None:
        super().__init__("the rows of a group are not adjacent, and group_sorted says that they are; leave it out.")
        self.key, self.places = key, places
        self.columns: tuple[str, ...] = ()


class Runs(NamedTuple):
    """The runs of a batch.

    Attributes
    ----------
    starts : numpy.ndarray of int64, shape (n_groups + 1,)
        Whole groups: group i has the rows from ``starts[i]`` to ``starts[i + 1]``. The rows before ``starts[0]`` and
        those from ``starts[-1]`` on are edges.
    """

    starts: IntegerArray

    @property
    def whole(self) -> slice:
        """The rows of whole groups."""
        return slice(int(self.starts[0]), int(self.starts[-1]))


def run_starts(words: Sequence[IntegerArray]) -> IntegerArray:
    """Return where the runs of equal keys begin, and the number of rows behind them."""
    n_rows = len(words[0])
    differ = np.zeros(max(0, n_rows - 1), dtype=np.bool_)
    for word in words:
        differ |= word[1:] != word[:-1]
    inner = np.flatnonzero(differ)
    inner += 1
    return np.concatenate([[0], inner, [n_rows]]) if n_rows else np.zeros(1, dtype=np.int64)


def group_adjacent_rows(words: Sequence[IntegerArray]) -> tuple[NDArray[np.int32] | None, IntegerArray]:
    """Bring rows with equal keys together, as `group_rows` does; the order is None where they are together already."""
    starts = run_starts(words)
    n_runs = len(starts) - 1
    # A search of long runs is much shorter than one of their rows.
    if 2 * n_runs <= len(words[0]) and len(group_rows([word[starts[:-1]] for word in words])[1]) == len(starts):
        return None, starts
    return group_rows(words)


class AdjacentGroups:
    """The groups of a log whose rows are said to be adjacent; several threads may add.

    Parameters
    ----------
    n_words : int
        The columns of a key: 1 or 2.
    memory_bytes : int
        What the keys of the groups may take in memory, to see that none comes twice; beyond it, they go to disk.
    folder : str, optional
        Where a temporary file may lie; by default as `TemporaryFile` has it.
    """

    def __init__(self, n_words: int, *, memory_bytes: int, folder: str | None = None) -> None:
        self._n_words = n_words
        self._keys = RowStore(
            [np.int64] * n_words + [np.int64],
            memory_bytes=memory_bytes,
            folder=folder,
            rehash=lambda columns: hash_keys(columns[:n_words]),
        )
        self._lock = threading.Lock()
        self._places: list[Place] = []
        # The keys of the first and the last run of each batch, and whether there is but one run.
        self._edges: dict[Place, tuple[Words, Words, bool]] = {}

    def __enter__(self) -> AdjacentGroups:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give memory and disk back."""
        self._keys.close()

    def add(self, words: Sequence[IntegerArray], place: Place) -> Runs:
        """Return the runs of a batch.

        Parameters
        ----------
        words : sequence of numpy.ndarray of int64, shape (n_rows,)
            The keys of the rows that are used, in the order of the log.
        place : (int, int)
            Where they stand: batches in the order of these numbers are in the order of the log. Each comes once.

        Raises
        ------
        NotAdjacentError
            If a key has two runs.
        TemporaryFileError
            If there is no room on the disk.
        """
        starts = run_starts(words)
        n_runs = len(starts) - 1
        if n_runs == 0:
            return Runs(starts)
        keys = [word[starts[:-1]] for word in words]
        order, groups = group_rows(keys)
        if len(groups) - 1 < n_runs:
            twice = int(order[groups[np.flatnonzero(np.diff(groups) > 1)[0]]])
            raise NotAdjacentError(_key_at(keys, twice), (place, place))
        with self._lock:
            number = len(self._places)
            self._places.append(place)
            self._edges[place] = _key_at(keys, 0), _key_at(keys, n_runs - 1), n_runs == 1
        if n_runs > 2:
            self._store([key[1:-1] for key in keys], number)
            return Runs(starts[1:-1])
        return Runs(starts[1:2])

    def _store(self, keys: Sequence[IntegerArray], number: int) -> None:
        keys = [np.ascontiguousarray(key) for key in keys]
        self._keys.add(hash_keys(keys), [*keys, np.full(len(keys[0]), number)])

    def check(self) -> None:
        """End adding, and check that the rows of each group were adjacent.

        Raises
        ------
        NotAdjacentError
            If they were not.
        ReadError
            If the temporary file is damaged.
        """
        numbers = {place: number for number, place in enumerate(self._places)}
        seen: dict[Words, Place] = {}
        before: Words | None = None
        for place, (first, last, is_one) in sorted(self._edges.items()):
            for key in (first,) if is_one else (first, last):
                if key != before and key in seen:
                    raise NotAdjacentError(key, (seen[key], place))
                seen[key] = place
                before = key
        if seen:
            edges = [np.array(words, dtype=np.int64) for words in zip(*seen, strict=True)]
            self._keys.add(hash_keys(edges), [*edges, np.array([numbers[place] for place in seen.values()])])
        for partition in self._keys.partitions():
            *keys, where = partition.load()
            order, starts = group_rows(keys)
            twice = np.flatnonzero(np.diff(starts) > 1)
            if len(twice):
                # The least of them, since which rows come first depends on threads.
                key, group = min((_key_at(keys, int(order[starts[group]])), group) for group in twice.tolist())
                held = where[order[starts[group] : starts[group + 1]]]
                first_place, second_place, *_ = sorted(self._places[number] for number in held.tolist())
                raise NotAdjacentError(key, (first_place, second_place))


def _key_at(keys: Sequence[IntegerArray], row: int) -> Words:
    return tuple(int(key[row]) for key in keys)
