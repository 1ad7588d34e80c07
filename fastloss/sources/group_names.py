"""A group in words: its key and where its rows are, found by reading them once more."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from fastloss.columns.arrays import key_values
from fastloss.columns.group_keys import KeyTypes, restore_values
from fastloss.errors import DataError, FastlossError
from fastloss.sources.base import ReadOptions, Source, Task, gives_rows_once


def not_adjacent(
    source: Source,
    columns: Sequence[str],
    types: KeyTypes,
    options: ReadOptions,
    key: Sequence[int],
    tasks: tuple[int, int],
) -> DataError:
    """Return the error of a group whose rows are not adjacent, though the caller said so.

    Parameters
    ----------
    source : Source
        The log.
    columns : sequence of str
        The columns that were read.
    types : mapping of str to pyarrow.DataType
        The columns of the group key, and their types in the log.
    options : ReadOptions
        How it was read.
    key : sequence of int
        The key, as `GroupKeys.columns` has it.
    tasks : (int, int)
        The tasks that hold it, by their `index`.
    """
    found: dict[int, Task] = {}
    if not gives_rows_once(source):
        last = max(tasks)
        for task in source.tasks(columns, options):
            if task.index in tasks:
                found[task.index] = task
            if task.index >= last:
                break
    name = _name(found[tasks[0]], types, key) if tasks[0] in found else " × ".join(types)
    first, again = (_place(found.get(task), task) for task in tasks)
    where = f"in {first}" if first == again else f"in {first}, and again in {again}"
    return DataError(
        f"the rows of the group {name} are not adjacent, as group_sorted says: they are {where}, with others between "
        "them; sort the log by its groups, or leave out group_sorted."
    )


def _place(task: Task | None, index: int) -> str:
    if task is None:
        return f"batch {index}"
    return repr(task.origin) + ("" if task.row_group is None else f", row group {task.row_group}")


def _name(task: Task, types: KeyTypes, key: Sequence[int]) -> str:
    """Return a group's key as ``column=value``, of several columns with commas."""
    columns = tuple(types)
    # What cannot be read or shown a second time is named by its columns.
    with contextlib.suppress(FastlossError):
        for batch in task.read():
            words = batch.group_keys(columns, types).columns
            rows = np.flatnonzero(np.logical_and.reduce([w == k for w, k in zip(words, key, strict=True)]))
            if len(rows):
                values = zip(types.items(), batch.group_values(columns, rows[:1], types), strict=True)
                shown = ((column, key_values(restore_values(value, kind))[0]) for (column, kind), value in values)
                return ", ".join(f"{column}={value!r}" for column, value in shown)
    return " × ".join(columns)
