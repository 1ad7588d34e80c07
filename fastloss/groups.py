"""The metrics of groups: the rows of each, gathered from all over the log, as lists."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastloss.budget import Execution, format_bytes
from fastloss.columns.grouped import GroupedBatch
from fastloss.engine.engine import Engine
from fastloss.engine.gathering import GatheredRows
from fastloss.engine.list_checks import pieces
from fastloss.errors import UsageError
from fastloss.executors.threads import ThreadExecutor
from fastloss.metrics.resolve import GroupEvaluation
from fastloss.shuffle.store import Partition
from fastloss.states.causes import SMALL_GROUP, Cause
from fastloss.states.evaluation import EvaluationState
from fastloss.states.ledger import Location, Place


@dataclass
class GroupsFound:
    """The state of the groups of one key.

    Attributes
    ----------
    group : GroupEvaluation
        The key, and what is computed.
    state : EvaluationState
        The statistics; its ledger counts groups.
    n_null : int
        Rows whose key is null.
    """

    group: GroupEvaluation
    state: EvaluationState
    n_null: int


class Room:
    """Memory that threads share: who asks for more than is left waits; all of it can be had at once."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._left = n_bytes
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, n_bytes: int) -> Iterator[None]:
        """Take so many bytes for the duration of a block; of more than there are, all."""
        wanted = min(n_bytes, self.n_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= wanted)
            self._left -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._left += wanted
                self._changed.notify_all()


@dataclass(frozen=True)
class PartitionTask:
    """A part of the groups of a key, as a task of an executor."""

    origin: str
    partition: Partition


def partition_tasks(gathered: GatheredRows, execution: Execution, room: Room) -> Iterator[PartitionTask]:
    """Yield the groups of a key in parts, of which all threads hold one at the same time.

    Raises
    ------
    UsageError
        If one group has more rows than there is memory for.
    """
    for partition in gathered.partitions(room.n_bytes // (2 * execution.threads)):
        if partition.n_rows * gathered.row_bytes > room.n_bytes:
            raise _too_large(gathered, partition.n_rows, execution, room)
        yield PartitionTask(f"the groups of {gathered.group.name}", partition)


def evaluate_groups(every: Sequence[GatheredRows], execution: Execution) -> list[GroupsFound]:
    """Evaluate the groups of each key, once all rows are gathered.

    Raises
    ------
    UsageError
        If one group has more rows than there is memory for.
    """
    found = []
    for gathered in every:
        # What reading the log took is free again.
        held = sum(rows.nbytes for rows in every)
        found.append(_evaluate_key(gathered, execution, Room(execution.room_beside(held))))
        gathered.close()
    return found


def _evaluate_key(gathered: GatheredRows, execution: Execution, room: Room) -> GroupsFound:
    group = gathered.group
    engine = Engine(group.evaluation, execution)
    merged = engine.identity()

    def work(task: PartitionTask) -> EvaluationState:
        state = engine.identity()
        with room.take(task.partition.n_rows * gathered.row_bytes):
            batch, n_small = gathered.batch_of(task.partition)
            if n_small:
                state.ledger.n_read += n_small
                where = Location(task.origin, None, -1, None)
                state.ledger.drop(Cause(SMALL_GROUP, group.name, "group"), n_small, where)
            _evaluate(engine, state, batch, execution, task.origin)
        return state

    def merge(task: PartitionTask, state: EvaluationState) -> None:
        merged.merge(state)
        engine.check_merged(merged)

    ThreadExecutor(execution.threads).fold(partition_tasks(gathered, execution, room), work, merge)
    merged.normalize()
    return GroupsFound(group, merged, gathered.n_null)


def _evaluate(engine: Engine, state: EvaluationState, batch: GroupedBatch, execution: Execution, origin: str) -> None:
    # A group was gathered, so that there is room for it.
    for piece in pieces(batch, execution.batch_rows, longest_list=int(batch.starts[-1])):
        engine.update(state, piece, Place(origin, None, -1))
    engine.finish_task(state)


def _too_large(gathered: GatheredRows, n_rows: int, execution: Execution, room: Room) -> UsageError:
    needed = execution.memory_bytes + n_rows * gathered.row_bytes - room.n_bytes
    return UsageError(
        f"a group of {gathered.group.name} has {n_rows:,} rows, and {format_bytes(execution.memory_bytes)} of memory "
        f"have no room to sort them. Leave it out by where=, or raise memory, to {format_bytes(needed * 17 // 16)}."
    )
