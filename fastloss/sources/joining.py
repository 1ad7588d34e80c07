"""Small tasks joined to larger ones: what a task and a batch cost is then paid once for hundreds of small files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from fastloss.columns.arrow import ArrowBatch
from fastloss.columns.base import Batch
from fastloss.sources.base import ReadOptions, Task

# The parts of a batch, and the batch that is made of them.
_COPIES = 2


def joined(tasks: Iterable[Task], options: ReadOptions) -> Iterator[Task]:
    """Return the tasks in their order, neighbours joined as far as ``join_rows`` and ``join_bytes`` allow."""
    waiting: list[Task] = []
    rows_left = bytes_left = 0
    for task in tasks:
        if task.n_rows is None:
            yield from _one(waiting)
            yield task
            waiting = []
            continue
        n_rows, n_bytes = task.n_rows, _COPIES * task.decoded_bytes
        if waiting and (n_rows > rows_left or n_bytes > bytes_left):
            yield from _one(waiting)
            waiting = []
        if not waiting:
            rows_left, bytes_left = options.join_rows, options.join_bytes
        waiting.append(task)
        rows_left -= n_rows
        bytes_left -= n_bytes
    yield from _one(waiting)


def _one(tasks: Sequence[Task]) -> Iterator[Task]:
    if len(tasks) < 2:
        yield from tasks
        return
    parts = tuple(tasks)
    yield dataclasses.replace(
        parts[0],
        n_rows=sum(part.n_rows or 0 for part in parts),
        stored_bytes=sum(part.stored_bytes for part in parts),
        decoded_bytes=_COPIES * sum(part.decoded_bytes for part in parts),
        read=functools.partial(_read, parts),
        parts=parts,
    )


def _read(parts: Sequence[Task]) -> Iterator[Batch]:
    """Yield the rows of some tasks, as few batches as their types allow."""
    alike: list[pa.RecordBatch] = []
    for part in parts:
        for batch in part.read():
            assert isinstance(batch, ArrowBatch)
            # Files may store a column in different types.
            if alike and not batch.record_batch.schema.equals(alike[0].schema):
                yield from _concatenated(alike)
                alike = []
            alike.append(batch.record_batch)
    yield from _concatenated(alike)


def _concatenated(batches: list[pa.RecordBatch]) -> Iterator[Batch]:
    if not batches:
        return
    # Arrow does not make one of dictionaries that hold a null, or more together than their indices can count.
    with contextlib.suppress(pa.ArrowException):
        batches = [pa.concat_batches(batches)]
    yield from map(ArrowBatch, batches)
