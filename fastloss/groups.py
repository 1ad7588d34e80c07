"""The metrics of groups: the rows of each, gathered from all over the log, as lists."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastloss.budget import Execution, format_bytes
from fastloss.columns.types import check_group_keys
from fastloss.engine.engine import Engine
from fastloss.engine.gathering import GatheredRows
from fastloss.errors import UsageError
from fastloss.executors.threads import ThreadExecutor
from fastloss.metrics.resolve import GroupEvaluation
from fastloss.plan import Plan
from fastloss.shuffle.adjacent import NotAdjacentError
from fastloss.shuffle.store import Partition
from fastloss.sources.group_names import not_adjacent
from fastloss.sources.key_ranges import KeyRanges, find_key_ranges
from fastloss.states.evaluation import EvaluationState


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


class RowsOfGroups(NamedTuple):
    """The rows of the groups of one key, and what is known of its values in row groups."""

    rows: GatheredRows
    ranges: KeyRanges | None


def open_groups(
    plan: Plan, group: GroupEvaluation, stack: contextlib.ExitStack, *, tells_keys: bool = False
) -> RowsOfGroups:
    """Return where the rows of groups go, until the stack is closed.

    `tells_keys` says that the values of keys are asked for when all rows are gathered: no group is evaluated before.
    """
    types = check_group_keys(plan.source.schema, group.keys)
    is_adjacent = plan.request.group_sorted
    ranges = None
    if not is_adjacent and not tells_keys:
        ranges = find_key_ranges(plan.source, plan.columns, group.keys, types, plan.joining_options)
    execution = plan.execution
    rows = GatheredRows(
        group,
        plan.evaluation,
        execution.group_bytes,
        types,
        is_adjacent=is_adjacent,
        waits_for_task=ranges is not None,
        n_rows=plan.summary.rows,
        n_threads=execution.threads,
        tells_keys=tells_keys,
    )
    return RowsOfGroups(stack.enter_context(contextlib.closing(rows)), ranges)


class Room:
    """Memory that threads share: who asks for more than is left waits; all of it can be had at once."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._left = n_bytes
        self._changed = threading.Condition()

    def grow(self, n_bytes: int) -> None:
        """Add so much."""
        with self._changed:
            self.n_bytes += n_bytes
            self._left += n_bytes
            self._changed.notify_all()

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


def partition_tasks(
    gathered: GatheredRows, execution: Execution, room: Room, most_bytes: int | None = None
) -> Iterator[PartitionTask]:
    """Yield the groups of a key in parts, of which all threads hold one at the same time.

    `most_bytes` is what a part should take at most; left out, what there is room for.

    Raises
    ------
    UsageError
        If one group has more rows than there is memory for.
    """
    held_bytes = gathered.nbytes
    partitions = gathered.partitions(most_bytes or room.n_bytes // (2 * execution.threads))
    room.grow(held_bytes - gathered.nbytes)
    for partition in partitions:
        if gathered.bytes_of(partition) > room.n_bytes:
            raise _too_large(gathered, partition, execution, room)
        yield PartitionTask(gathered.group.name, partition)


def evaluate_groups(
    every: Sequence[GatheredRows], states: Sequence[EvaluationState], execution: Execution
) -> list[GroupsFound]:
    """Evaluate the groups of each key, once all rows are gathered.

    Parameters
    ----------
    every : sequence of GatheredRows
        The rows of the groups of each key.
    states : sequence of EvaluationState
        The states of the groups that are evaluated already; the others are added.
    execution : Execution
        How much memory and how many threads there are.

    Raises
    ------
    UsageError
        If one group has more rows than there is memory for.
    """
    found = []
    for gathered, state in zip(every, states, strict=True):
        # What reading the log took is free again.
        held = sum(rows.nbytes for rows in every)
        found.append(_evaluate_key(gathered, state, execution, Room(execution.room_beside(held))))
        gathered.close()
    return found


def _evaluate_key(gathered: GatheredRows, merged: EvaluationState, execution: Execution, room: Room) -> GroupsFound:
    group = gathered.group
    engine = Engine(group.evaluation, execution)

    def work(task: PartitionTask) -> EvaluationState:
        state = engine.identity()
        with room.take(gathered.bytes_of(task.partition)):
            engine.update_groups(state, gathered.batch_of(task.partition))
        return state

    def merge(task: PartitionTask, state: EvaluationState) -> None:
        merged.merge(state)
        engine.check_merged(merged)

    ThreadExecutor(execution.threads).fold(partition_tasks(gathered, execution, room), work, merge)
    merged.normalize()
    return GroupsFound(group, merged, gathered.n_null)


def _too_large(gathered: GatheredRows, partition: Partition, execution: Execution, room: Room) -> UsageError:
    needed = execution.memory_bytes + gathered.bytes_of(partition) - room.n_bytes
    return UsageError(
        f"{gathered.name_of_most(partition)} has {partition.n_rows:,} rows, and "
        f"{format_bytes(execution.memory_bytes)} of memory have no room to sort them. Leave it out by where=, or "
        f"raise memory, to {format_bytes(needed * 17 // 16)}."
    )


@contextlib.contextmanager
def naming_groups(plan: Plan) -> Iterator[None]:
    """Say which group it is whose rows are not adjacent, and where they are: the log is read once more for it."""
    try:
        yield
    except NotAdjacentError as error:
        types = check_group_keys(plan.source.schema, error.columns)
        (first, _), (second, _) = error.places
        raise not_adjacent(
            plan.source, plan.columns, types, plan.joining_options, error.key, (first, second)
        ) from error
