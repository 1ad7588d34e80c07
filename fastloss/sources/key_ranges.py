"""Logs whose row groups hold ranges of a key: which keys may be in several of them, as footers' statistics say.

Where the ranges of a column do not overlap but at their ends, only the values at these ends may be in several row
groups; the rows of any other value are all in one. What a footer says is a claim, so the rows are checked against it.
Statistics may be cut short: they are bounds then, and hold all the same.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastloss.columns.base import Batch, BoolArray
from fastloss.columns.group_keys import KeyTypes, group_keys_of, is_integer_key
from fastloss.errors import ReadError
from fastloss.sources.base import ReadOptions, Source, Task

# An integer, in the order of integers, or bytes, in the order of bytes.
Value = int | bytes


class KeyRange(NamedTuple):
    """The least and the greatest value of a key in some rows; both are None where no row has one."""

    least: Value | None
    greatest: Value | None

    def __or__(self, other: KeyRange) -> KeyRange:
        """Return the range of both."""
        held: list[Any] = [value for value in (*self, *other) if value is not None]
        return KeyRange(min(held), max(held)) if held else self


NO_KEYS = KeyRange(None, None)


class RangedRowGroup(NamedTuple):
    """A row group of a task, and the range of a key in it; None if it is not known."""

    origin: str
    row_group: int
    range: KeyRange | None


@dataclass(frozen=True)
class KeyRanges:
    """The ranges of a key column in the row groups of a log, which do not overlap but at their ends; can be pickled.

    Attributes
    ----------
    column : str
        The column, one of the group key's.
    types : mapping of str to pyarrow.DataType
        Its type in the log.
    ranges : mapping of (str, int) to KeyRange
        The range in each row group, by file and number.
    shared : tuple of int or of bytes
        The values that may be in several row groups, ascending.
    """

    column: str
    types: KeyTypes
    ranges: Mapping[tuple[str, int], KeyRange]
    shared: tuple[Value, ...]

    def of_task(self, task: Task) -> TaskKeys:
        """Return what is known of the keys of a task, one of those that the source gave for the same columns."""
        ranges = [self.ranges[part.origin, part.row_group or 0] for part in task.parts or (task,)]
        whole = ranges[0]
        for other in ranges[1:]:
            whole |= other
        edges: Sequence[Value] = ()
        if whole.least is not None and whole.greatest is not None:
            first = bisect.bisect_left(self.shared, whole.least)
            edges = self.shared[first : bisect.bisect_right(self.shared, whole.greatest)]
        return TaskKeys(self, task, whole, tuple(edges))


class TaskKeys:
    """The keys of one task: their range, and which of them may be in other tasks, too.

    Attributes
    ----------
    edges : tuple of int or of bytes
        The values that may be in other row groups.
    """

    def __init__(self, ranges: KeyRanges, task: Task, whole: KeyRange, edges: tuple[Value, ...]) -> None:
        self._ranges = ranges
        self._task = task
        self._whole = whole
        self.edges = edges
        self._edge_keys = _keys_of(edges, ranges.types[ranges.column])

    def at_edges(self, batch: Batch) -> BoolArray | None:
        """Check the rows of a batch, and return those whose group may have rows in other tasks; None if none has.

        Raises
        ------
        ReadError
            If a row's key is outside the range that the footer promises.
        """
        column, types = self._ranges.column, self._ranges.types
        found = KeyRange(*batch.key_range(column, types))
        if found.least is None:
            return None
        if found | self._whole != self._whole:
            raise self._broken(found)
        if not self.edges:
            return None
        words = batch.group_keys((column,), types).columns
        flags = np.zeros(batch.n_rows, dtype=np.bool_)
        for edge in zip(*self._edge_keys, strict=True):
            flags |= np.logical_and.reduce([word == part for word, part in zip(words, edge, strict=True)])
        return flags

    def _broken(self, found: KeyRange) -> ReadError:
        task, column, promised = self._task, self._ranges.column, self._whole
        says = "only null" if promised.least is None else f"{promised.least!r} to {promised.greatest!r}"
        joined = " and those joined to it" if task.parts else ""
        return ReadError(
            f"{task.origin!r}, row group {task.row_group}{joined}: statistics of column {column!r} promise {says}, "
            f"and the rows hold {found.least!r} to {found.greatest!r}; the file is damaged: write it again."
        )


def find_key_ranges(
    source: Source, columns: Sequence[str], keys: Sequence[str], types: KeyTypes, options: ReadOptions
) -> KeyRanges | None:
    """Return the ranges of a column of the group key that do not overlap, or None.

    Parameters
    ----------
    source : Source
        The log; one without footers has no ranges.
    columns : sequence of str
        The columns that will be read.
    keys : sequence of str
        The columns of the group key; the first that has such ranges is taken.
    types : mapping of str to pyarrow.DataType
        Their types in the log.
    options : ReadOptions
        How it will be read.
    """
    for key in keys:
        found = _without_overlap(ranges_in(source, key, columns, options))
        if found is not None:
            ranges, shared = found
            return KeyRanges(key, {key: types[key]}, ranges, shared)
    return None


def ranges_in(
    source: Source, column: str, columns: Sequence[str], options: ReadOptions
) -> Iterator[RangedRowGroup] | None:
    """Return the range of a column in each row group of a source's tasks, or None if it has none to tell.

    A source that has row groups has a method for that.
    """
    give = getattr(source, "key_ranges", None)
    found: Iterator[RangedRowGroup] | None = None if give is None else give(column, columns, options)
    return found


def _without_overlap(
    row_groups: Iterable[RangedRowGroup] | None,
) -> tuple[dict[tuple[str, int], KeyRange], tuple[Value, ...]] | None:
    """Return the ranges and the values that may be in several, or None as soon as two ranges overlap."""
    if row_groups is None:
        return None
    ranges: dict[tuple[str, int], KeyRange] = {}
    ordered: list[Any] = []
    for origin, number, found in row_groups:
        if found is None:
            return None
        ranges[origin, number] = found
        if found.least is None:
            continue
        place = bisect.bisect(ordered, found)
        if place and ordered[place - 1].greatest > found.least:
            return None
        if place < len(ordered) and ordered[place].least < found.greatest:
            return None
        ordered.insert(place, found)
    shared = {one.greatest: None for one, other in itertools.pairwise(ordered) if one.greatest == other.least}
    return ranges, tuple(shared)


def _keys_of(values: Sequence[Value], kind: pa.DataType) -> tuple[Any, ...]:
    """Return the group keys of values of a column of this type."""
    if is_integer_key([kind]):
        bits = [int(value) - (1 << 64) if int(value) >= 1 << 63 else int(value) for value in values]
        return (np.array(bits, dtype=np.int64),)
    return group_keys_of(pa.record_batch([pa.array(values, pa.binary())], ["key"]), ["key"]).columns
