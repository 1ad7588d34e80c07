"""Quantiles of a log's columns: a pass over it before the one that evaluates, and the edges that come of it.

Of N numbers in ascending order, edge k of n parts those before the place ⌈k·N/n⌉ from the number there, where these
differ; of the numbers that do, it is one with the fewest digits. The numbers are those of the rows that the filter
keeps, without null and NaN, each counted once, whatever its weight. Equal numbers are not parted: edges then coincide.

They are counted in the histogram of `fastloss.states.histogram`, which is exact up to 131,072 different numbers.
Beyond that, an edge lies within the histogram's bucket that holds the place, and is off by fewer rows than share their
27 leading bits (fewer bits, in a log of many magnitudes). A histogram depends on its numbers alone, and so do edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.buckets import stored_as
from fastloss.errors import ReadError
from fastloss.executors import EXECUTORS, raise_if_stopped
from fastloss.plan import Plan, suggesting_to_skip
from fastloss.sources.base import Task
from fastloss.sources.derived import DerivedSource
from fastloss.states.base import SliceRuns
from fastloss.states.histogram import (
    BUCKET_BYTES,
    SCORE_BYTES,
    SLICE_BUCKETS,
    ScoreHistogramColumn,
    ScoreHistograms,
    ordered_bits_of,
    scores_of,
)
from fastloss_kernels.exact_sum import LOWEST_EXPONENT

# A row is this bit of the digit that counts are in.
_UNIT_BITS = np.uint64(-LOWEST_EXPONENT & 63)
_MOST_DIGITS = 17
_ONE_SLICE = np.zeros(1, dtype=np.int64)


@dataclass
class Counted:
    """The numbers of some columns.

    Attributes
    ----------
    n_read : int
        Rows that were read.
    histograms : dict of str to ScoreHistogramColumn
        The numbers of each column.
    """

    n_read: int = 0
    histograms: dict[str, ScoreHistogramColumn] = field(default_factory=dict)

    def add(self, column: str, values: NDArray[Any]) -> None:
        """Count numbers, none of which is NaN."""
        zeros = np.zeros(len(values), dtype=np.int8)
        runs = SliceRuns(None, np.array([0, len(values)]), _ONE_SLICE)
        self._histogram(column).add_rows(values, zeros, None, runs)

    def merge(self, other: Counted) -> None:
        """Add what was counted elsewhere."""
        self.n_read += other.n_read
        for column, histogram in other.histograms.items():
            self._histogram(column).merge(histogram, _ONE_SLICE)

    def _histogram(self, column: str) -> ScoreHistogramColumn:
        if column not in self.histograms:
            self.histograms[column] = ScoreHistogramColumn(SCORE_BYTES, BUCKET_BYTES, SLICE_BUCKETS)
            self.histograms[column].resize(1)
        return self.histograms[column]


@dataclass(frozen=True)
class Found:
    """What a pass found.

    Attributes
    ----------
    n_read : int
        Rows that were read.
    edges : dict of str to tuple of float
        The edges of each column of quantiles.
    """

    n_read: int
    edges: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class _CountWork:
    """The work on each task. It can be pickled, and sent to another process."""

    columns: tuple[str, ...]
    skips_bad_files: bool

    def __call__(self, task: Task) -> Counted:
        """Count the numbers of a task, whole or not at all."""
        counted = Counted()
        try:
            for batch in task.read():
                raise_if_stopped()
                counted.n_read += batch.n_read
                for column in self.columns:
                    values, valid = batch.numbers(column)
                    is_number = ~np.isnan(values) if valid is None else valid & ~np.isnan(values)
                    counted.add(column, values[is_number])
        except ReadError:
            if not self.skips_bad_files:
                raise
            # The pass that evaluates reports it.
            return Counted()
        return counted


def find_quantiles(plan: Plan, report: Callable[[int, int], None] | None = None) -> Found | None:
    """Read what a plan's quantiles are of, and return their edges; None if it asks for none.

    Parameters
    ----------
    plan : Plan
        The checked request.
    report : callable, optional
        Called with the rows and the stored bytes that were read, after each task.

    Raises
    ------
    FastlossError
        The error of the first task that has one.
    """
    wanted, source = plan.quantiles, plan.source
    if not wanted:
        return None
    assert isinstance(source, DerivedSource)
    execution, merged, done_bytes = plan.execution, Counted(), 0

    def merge(task: Task, found: Counted) -> None:
        nonlocal done_bytes
        merged.merge(found)
        done_bytes += task.stored_bytes
        if report is not None:
            report(merged.n_read, done_bytes)

    skips = execution.on_bad_file == "skip"
    # What cannot be read of any column is left out of both passes.
    others = source.stored(plan.columns) if skips else ()
    with suggesting_to_skip(execution.on_bad_file):
        EXECUTORS[execution.executor](execution.threads).fold(
            source.with_numbers().tasks((*wanted, *others), plan.read_options), _CountWork(tuple(wanted), skips), merge
        )
    edges = {}
    for column, quantiles in wanted.items():
        histogram = merged.histograms.get(column)
        edges[column] = () if histogram is None else edges_of(histogram.evaluate(), quantiles.n, quantiles.kind)
    return Found(merged.n_read, edges)


def edges_of(found: ScoreHistograms, n: int, kind: str) -> tuple[float, ...]:
    """Return the edges of n quantiles of the numbers of a histogram's only slice.

    Parameters
    ----------
    found : ScoreHistograms
        The numbers.
    n : int
        How many buckets there are to be.
    kind : str
        The type of floats that the numbers were stored in.
    """
    ends = np.cumsum(found.masses[:, -1] >> _UNIT_BITS, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    places = [-(-k * total // n) for k in range(1, n)]
    # Buckets before the first part nothing, and there is none after the last.
    chosen = dict.fromkeys(np.searchsorted(ends, places, side="right").tolist())
    largest = float(np.finfo(kind).max)
    ranges = (_range_of(found, number, largest) for number in chosen if 0 < number < len(ends))
    return tuple(_shortest(above, most, kind) for above, most in ranges if above < most)


def _range_of(found: ScoreHistograms, number: int, most: float) -> tuple[float, float]:
    """Return two numbers: an edge above the first, and not above the second, is one at which the bucket begins."""
    dropped = found.dropped_bits
    start = int(found.buckets[number]) << dropped
    if not dropped:
        return _number_of(int(found.buckets[number - 1])), min(_number_of(start), most)
    largest = _ordered_bits(most)
    if start > largest:
        # Infinity.
        return _number_of(min((int(found.buckets[number - 1]) + 1 << dropped) - 1, largest)), most
    return _number_of(start - 1), _number_of(min(start + (1 << dropped) - 1, largest))


def _number_of(ordered: int) -> float:
    """Return the number that has these ordered bits."""
    return float(scores_of(np.array([ordered], dtype=np.int64))[0])


def _ordered_bits(number: float) -> int:
    return int(ordered_bits_of(np.array([number]))[0])


def _shortest(above: float, most: float, kind: str) -> float:
    """Return a number with the fewest digits that is above one number and not above another, stored in a type."""
    if above < 0.0 <= most:
        return 0.0
    for digits in range(1, _MOST_DIGITS):
        found = float(Context(prec=digits, rounding=ROUND_FLOOR).create_decimal(Decimal(most)))
        if stored_as(kind, [found])[0] > above:
            return found
    return most
