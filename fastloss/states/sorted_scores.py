"""All scores of both classes of a whole log, so that an exact area needs no second pass.

Scores are kept as keys, unsigned integers that have their order, each class by itself: 4 bytes for a float32. Workers
group the keys of a batch by their leading bits. At the end, ranges of keys are put together from all batches, a few
hundred thousand at a time and several ranges at once; each is sorted, and its pairs are counted. There is nothing for
slices, for weights, for labels between 0 and 1 and for more rows than are allowed: the column then gives up, which
depends on the merged data alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers, RowSet, SliceRuns
from fastloss.states.histogram import PairCounts, ScoreRows
from fastloss_kernels.cpu import sorting
from fastloss_kernels.cpu.sorting import TOP_BITS

# uint32 of float32 scores, uint64 of float64.
Keys = NDArray[Any]
# Runs are put together until they have so many rows; longer ones are left to the end.
_LONG_RUN = 1 << 16
# Keys of a range, which are sorted at once.
_RANGE_ROWS = 1 << 18


class _Run(NamedTuple):
    """Keys of some rows, by class, grouped by their leading bits."""

    positive: Keys
    negative: Keys

    @property
    def n_rows(self) -> int:
        return len(self.positive) + len(self.negative)

    @property
    def nbytes(self) -> int:
        return self.positive.nbytes + self.negative.nbytes

    @property
    def is_wide(self) -> bool:
        return self.positive.dtype == np.uint64

    @classmethod
    def of(cls, keys: Keys, label: NDArray[np.int8]) -> _Run:
        """Return the run of keys, by label."""
        grouped, n_positive = np.empty_like(keys), int(np.count_nonzero(label))
        sorting.make_group_keys()(_read_only(keys), _read_only(label), grouped)
        return cls(grouped[:n_positive], grouped[n_positive:])

    def widened(self) -> _Run:
        """Return the keys of the same scores as float64."""
        return (
            self
            if self.is_wide
            else _Run.of(_keys_of(_scores_of(np.concatenate(self)).astype(np.float64)), self.label)
        )

    @property
    def label(self) -> NDArray[np.int8]:
        return np.repeat(np.array([1, 0], dtype=np.int8), list(map(len, self)))

    def joined(self, other: _Run) -> _Run:
        runs = (self, other) if self.is_wide == other.is_wide else (self.widened(), other.widened())
        return _Run.of(np.concatenate([*runs[0], *runs[1]]), np.concatenate([run.label for run in runs]))


@dataclass(frozen=True)
class SortedScores:
    """All scores of rows without slices and weights, by class.

    Attributes
    ----------
    rows : RowSet
        The rows that it takes.
    most_rows : int
        With more than so many, nothing is kept.
    threads : int
        How many count at once; it changes no result.
    """

    rows: RowSet
    most_rows: int
    threads: int = field(default=1, compare=False)

    @property
    def name(self) -> str:
        """The name in state files."""
        return "sorted scores"

    @property
    def bytes_per_slice(self) -> int:
        """What a slice takes: nothing, where there is more than one."""
        return 0

    @property
    def most_bytes(self) -> int:
        """The most bytes of all rows."""
        return 8 * self.most_rows

    def identity(self) -> SortedScoresColumn:
        """Return the column of no rows."""
        return SortedScoresColumn(self.most_rows, self.threads)


class SortedScoresColumn:
    """Runs of keys of the only slice."""

    def __init__(self, most_rows: int, threads: int = 1) -> None:
        self.n_slices = 0
        self._most_rows = most_rows
        self._threads = threads
        self._n_rows = 0
        self._is_whole = True
        self._runs: list[_Run] = []
        # What is counted already, until rows are added.
        self._counted: PairCounts | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the keys."""
        return sum(run.nbytes for run in self._runs)

    def resize(self, n_slices: int) -> None:
        """Have at least so many slices; more than one are not kept."""
        self.n_slices = max(self.n_slices, n_slices)
        if self.n_slices > 1:
            self._give_up()

    def add(self, rows: ScoreRows, runs: SliceRuns) -> None:
        """Add rows, which stay with the caller."""
        if rows.weight is not None or rows.label.dtype != np.int8:
            self._give_up()
        elif self._count(len(rows.score)):
            self._append(_Run.of(_keys_of(rows.score), rows.label))

    def merge(self, other: SortedScoresColumn, positions: Integers) -> None:
        """Add the rows of another column, which stays as it is."""
        if not other._is_whole:
            self._give_up()
        elif self._count(other._n_rows):
            for run in other._runs:
                self._append(run)

    def normalize(self) -> None:
        """Do nothing: what is read does not depend on the runs."""

    def evaluate(self) -> PairCounts | None:
        """Count all pairs of a positive and a negative; None where not all rows were kept."""
        if self._is_whole and self._counted is None:
            self._counted = _count_pairs(self._runs, self._threads)
        return self._counted

    def fields(self) -> Mapping[str, NDArray[Any]]:
        """Return `form`, the slices, the rows allowed and whether all were kept, and the scores of each class."""
        form = np.array([self.n_slices, self._most_rows, self._is_whole], dtype=np.int64)
        runs = [run.widened() for run in self._runs] or [_Run(*(np.zeros(0, dtype=np.uint64),) * 2)]
        positive, negative = (_scores_of(np.sort(np.concatenate(keys))) for keys in zip(*runs, strict=True))
        return {"form": form, "positive": positive, "negative": negative}

    @classmethod
    def from_fields(cls, fields: Mapping[str, NDArray[Any]]) -> SortedScoresColumn:
        """Return the column that has these fields."""
        n_slices, most_rows, is_whole = fields["form"].tolist()
        column = cls(most_rows)
        column.resize(n_slices)
        if not is_whole:
            column._give_up()
        run = _Run(*(_keys_of(fields[name]) for name in ("positive", "negative")))
        if run.n_rows and column._count(run.n_rows):
            column._append(run)
        return column

    def _count(self, n_rows: int) -> bool:
        """Count further rows, and say whether they are to be kept."""
        self._counted = None
        self._n_rows += n_rows
        if self._n_rows > self._most_rows:
            self._give_up()
        return self._is_whole

    def _give_up(self) -> None:
        self._is_whole, self._counted = False, None
        self._runs.clear()

    def _append(self, run: _Run) -> None:
        # Each short run is at least twice as long as the next, so that a row is grouped a few times at most.
        while self._runs and run.n_rows < _LONG_RUN and self._runs[-1].n_rows < 2 * run.n_rows:
            run = self._runs.pop().joined(run)
        self._runs.append(run)


def _keys_of(scores: NDArray[Any]) -> Keys:
    """Return float32 scores as uint32, or float64 as uint64, in the order of the scores; −0 is 0."""
    size = scores.dtype.itemsize
    kind = np.dtype(f"u{size}").type
    bits = (scores + 0.0).view(kind)
    # All bits of a negative score change, and the sign of others.
    keys: Keys = bits ^ ((bits.view(f"i{size}") >> 8 * size - 1).view(kind) | kind(1 << 8 * size - 1))
    return keys


def _scores_of(keys: Keys) -> NDArray[Any]:
    """Return the scores that have these keys."""
    size = keys.dtype.itemsize
    kind = keys.dtype.type
    bits = keys ^ ((~keys.view(f"i{size}") >> 8 * size - 1).view(kind) | kind(1 << 8 * size - 1))
    scores: NDArray[Any] = bits.view(f"f{size}")
    return scores


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _count_pairs(runs: list[_Run], threads: int) -> PairCounts:
    if len({run.is_wide for run in runs}) > 1:
        runs = [run.widened() for run in runs]
    positive, negative = [run.positive for run in runs], [run.negative for run in runs]
    n_positive, n_negative = sum(map(len, positive)), sum(map(len, negative))
    if not n_positive or not n_negative:
        return PairCounts(0, 0, n_positive, n_negative)
    # Each thousandth key or so says where ranges part: between keys of other leading bits.
    step, low_bits = max(1, _RANGE_ROWS >> 8), 8 * positive[0].dtype.itemsize - TOP_BITS
    sample = np.sort(np.concatenate([keys[step // 2 :: step] >> low_bits for keys in (*positive, *negative)]))
    n_ranges = (n_positive + n_negative) // _RANGE_ROWS + 1
    bounds = np.unique(sample[len(sample) * np.arange(1, n_ranges) // n_ranges]) << low_bits
    cuts = [_cuts(keys, bounds) for keys in (positive, negative)]

    def count(number: int) -> tuple[int, int, int, int]:
        above, below = (_sorted_range(*both, number) for both in zip((positive, negative), cuts, strict=True))
        return (*sorting.make_count_sorted()(above, below), len(above), len(below))

    apart = together = n_below = 0
    with ThreadPoolExecutor(threads) as pool:
        for won, tied, n_here, n_negative_here in pool.map(count, range(len(bounds) + 1)):
            apart += won + n_here * n_below
            together += tied
            n_below += n_negative_here
    return PairCounts(apart, together, n_positive, n_negative)


def _cuts(runs: list[Keys], bounds: Keys) -> Integers:
    """Return where each range begins in each run, and where the last one ends, int64 ``(n_runs, n_ranges + 1)``."""
    return np.array([np.concatenate([[0], np.searchsorted(run, bounds), [len(run)]]) for run in runs], dtype=np.int64)


def _sorted_range(runs: list[Keys], cuts: Integers, number: int) -> Keys:
    """Return the sorted keys of a range of all runs."""
    places = cuts[:, number : number + 2].tolist()
    keys = np.concatenate([run[first:end] for run, (first, end) in zip(runs, places, strict=True)])
    sorting.make_sort_keys()(keys, np.empty_like(keys))
    return keys
