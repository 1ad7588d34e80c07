"""Slices of any number: where their statistics outgrow the memory, their rows are gathered, and evaluated by parts.

The log is first read as any other. Once the slices of a grouping outgrow the memory, or are about to, that is given
up, and the log is read again: the rows of these slices are gathered by their key (`fastloss.engine.slice_rows`), while
the total and other slices are summed as always. What is left of the slices then is their values.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastloss.budget import Execution, format_bytes
from fastloss.columns.types import check_group_keys
from fastloss.engine.engine import Engine, SlicesOutgrownError
from fastloss.engine.slice_rows import SliceRows, WatchingEngine, sliced_by
from fastloss.errors import UsageError
from fastloss.executors import ThreadExecutor
from fastloss.metrics.choice import Choice
from fastloss.metrics.evaluate import CountedSlices, GroupingValues
from fastloss.metrics.field_calibration import FieldCalibrationError
from fastloss.metrics.parts import GroupingParts, Part, pack
from fastloss.plan import Plan
from fastloss.scan import Progress, ScanResult, TaskWork, read_passes, run_pass, run_scan
from fastloss.shuffle.store import Partition
from fastloss.sources.base import gives_rows_once
from fastloss.states.base import bounded_bytes
from fastloss.states.slices import SliceTable, order_of

Report = Callable[[Progress], None] | None
# So many slices take no memory to speak of.
_FEW_SLICES = 1 << 16


def run_any_scan(
    plan: Plan,
    report: Report = None,
    *,
    sharpens: bool = True,
    keeps_state: bool = False,
    choice: Choice | None = None,
) -> ScanResult:
    """Scan a log with slices of any number; the other parameters, and the errors, are those of `run_scan`.

    Parameters
    ----------
    keeps_state : bool
        Whether the state of all slices is wanted, and not their values alone.
    choice : Choice, optional
        The slices whose values are wanted; of slices that are evaluated by parts, others are not kept.
    """
    if choice is None or choice.is_of_all:
        choice = None

    def read(plan: Plan, report: Report, sharpens: bool) -> ScanResult:
        return _read_by_parts(plan, report, sharpens, choice)

    return run_scan(plan, report, sharpens=sharpens, run_passes=read_passes if keeps_state else read)


def _read_by_parts(plan: Plan, report: Report, sharpens: bool, choice: Choice | None) -> ScanResult:
    gathered: list[tuple[str, ...]] = []
    while True:
        try:
            return _gather(plan, report, gathered, choice) if gathered else _read(plan, report, sharpens)
        except SlicesOutgrownError as error:
            more = [keys for keys in error.groupings if keys not in gathered and _may_gather(plan, keys)]
            if not more:
                raise
            gathered += more


def _read(plan: Plan, report: Report, sharpens: bool) -> ScanResult:
    """Read the log as any other, but give up early where slices will be too many."""
    n_rows = plan.summary.rows
    watched = tuple(keys for keys in plan.request.by if _may_gather(plan, keys))
    if n_rows is None or plan.execution.executor != "threads" or not watched:
        return read_passes(plan, report, sharpens)
    engine = WatchingEngine(plan.evaluation, plan.execution, n_rows, watched)
    return read_passes(plan, report, sharpens, TaskWork.by(engine, plan.evaluation, plan.execution))


def _may_gather(plan: Plan, keys: tuple[str, ...]) -> bool:
    """Tell whether slices can be evaluated by parts: each by itself, by one pass over its rows."""
    evaluation = plan.evaluation
    return (
        keys in evaluation.request.by
        and not gives_rows_once(plan.source)
        and not (evaluation.lists or evaluation.groups or evaluation.hidden or evaluation.slices_are_features)
        and not any(map(bounded_bytes, evaluation.specs))
        and not any(isinstance(m, FieldCalibrationError) and (m.by,) == keys for m in evaluation.metrics)
    )


def _gather(plan: Plan, report: Report, groupings: Sequence[tuple[str, ...]], choice: Choice | None) -> ScanResult:
    """Read the log, and evaluate some groupings by parts."""
    # Rows are gathered in this process.
    execution = dataclasses.replace(plan.execution, executor="threads")
    plan = dataclasses.replace(plan, execution=execution)
    others = tuple(keys for keys in plan.request.by if keys not in groupings)
    evaluation = sliced_by(plan.evaluation, others)
    shares = _shares_of(execution, bool(others))
    with contextlib.ExitStack() as stack:
        rows = [_rows_of(plan, keys, shares.rows // len(groupings)) for keys in groupings]
        for of_keys in rows:
            stack.enter_context(contextlib.closing(of_keys))
        # Where nothing else is summed, the total is that of the slices. A saturated row is told with its place.
        of_slices = not others and plan.request.saturation != "error"
        engine = Engine(evaluation, execution, specs=() if of_slices else None, gathered=rows)
        engine.gathered_bytes = shares.rows
        result = run_pass(plan, report, TaskWork.by(engine, evaluation, execution))
        taken = 0
        for of_keys in rows:
            found = _evaluate(of_keys, execution, bool(others), taken, choice)
            result.gathered[of_keys.keys] = found.values
            taken += found.nbytes
            of_keys.close()
            if of_slices and of_keys is rows[0]:
                result.state.tables = (found.total,)
    result.state.normalize()
    return result


def _rows_of(plan: Plan, keys: tuple[str, ...], memory_bytes: int) -> SliceRows:
    types = check_group_keys(plan.source.schema, keys)
    return SliceRows(keys, plan.evaluation, plan.execution, memory_bytes, types, plan.summary.rows)


class _Shares(NamedTuple):
    """Shares of the memory: for rows that are gathered, for values, and for the partitions in work."""

    rows: int
    values: int
    partitions: int


def _shares_of(execution: Execution, has_others: bool) -> _Shares:
    """Divide the memory, of which slices that are not gathered have a part."""
    slices = execution.slices_bytes
    whole = execution.room_bytes + slices
    rows = min(slices // 2 if has_others else slices * 15 // 16, whole // 2)
    left = whole - rows - (slices // 2 if has_others else 0)
    return _Shares(rows, left * 3 // 4, left // 4)


def _memory_for(execution: Execution, has_others: bool, values_bytes: int) -> int:
    """Return a memory of which values have so much."""
    memory = execution.memory_bytes
    while _shares_of(dataclasses.replace(execution, memory_bytes=memory), has_others).values < values_bytes:
        memory = memory * 5 // 4
    return memory


class _Found(NamedTuple):
    """The values of all slices of a grouping, what they take, and the statistics of all slices together."""

    values: GroupingValues
    nbytes: int
    total: SliceTable


@dataclass(frozen=True)
class _PartitionTask:
    origin: str
    partition: Partition


def _evaluate(rows: SliceRows, execution: Execution, has_others: bool, taken: int, choice: Choice | None) -> _Found:
    """Evaluate the slices of one grouping, where the values of others take so many bytes."""
    empty, total = rows.evaluate(None)
    kept = _Kept(empty, rows, choice)
    shares = _shares_of(execution, has_others)
    n_rows = 0

    def work(task: _PartitionTask) -> tuple[Part, CountedSlices, SliceTable]:
        found, together = rows.evaluate(task.partition)
        return *kept.packed(found), together

    def merge(task: _PartitionTask, found: tuple[Part, CountedSlices, SliceTable]) -> None:
        nonlocal n_rows
        part, counted, together = found
        kept.add(part, counted)
        total.merge(together)
        n_rows += task.partition.n_rows
        needed = taken + rows.nbytes + kept.nbytes
        if needed > shares.values:
            # As if the other rows had as many slices.
            enough = _memory_for(execution, has_others, needed * rows.n_rows // n_rows)
            raise UsageError(
                f"by {' × '.join(rows.keys)} gives {kept.n_slices:,} slices so far, whose values take "
                f"{format_bytes(needed)}, and {format_bytes(execution.memory_bytes)} of memory leave "
                f"{format_bytes(shares.values)} for them. Slice by fewer values, or raise memory, to "
                f"{format_bytes(enough)} or more. On the command line, --top and --min-rows keep fewer of them."
            )

    def tasks() -> Iterator[_PartitionTask]:
        for partition in rows.partitions(shares.partitions // execution.threads):
            yield _PartitionTask(" × ".join(rows.keys), partition)

    ThreadExecutor(execution.threads).fold(tasks(), work, merge)
    rows.close_rows()
    nbytes = rows.nbytes + kept.nbytes
    return _Found(kept.joined(), nbytes, total)


class _Kept:
    """The values of those slices that are wanted, as parts come in."""

    def __init__(self, empty: GroupingValues, rows: SliceRows, choice: Choice | None) -> None:
        if choice is not None:
            empty = dataclasses.replace(empty, key_columns=rows.restored(empty.key_columns), keys=rows.keys)
        self._empty = empty
        self._rows = rows
        self._choice = choice
        self._parts = GroupingParts(empty)
        self._counted = CountedSlices(0, 0)
        # Beyond so many, those are left out that will not be among the first.
        self._most = math.inf if choice is None or choice.slices is None else 8 * choice.slices + _FEW_SLICES

    @property
    def n_slices(self) -> int:
        """How many slices were found."""
        return self._counted.n_slices

    @property
    def nbytes(self) -> int:
        """What is kept takes, with the texts of keys."""
        return self._parts.nbytes + self._parts.n_slices * self._rows.text_bytes

    def packed(self, values: GroupingValues) -> tuple[Part, CountedSlices]:
        """Return what is to be kept of a part, and what is counted of it."""
        if self._choice is None:
            return pack(values), CountedSlices(values.n_slices, values.n_slices)
        # Of slices that are equal in the order, the first by their keys come first, as they are in the log.
        keys = self._rows.restored(values.key_columns)
        used = np.zeros(len(values.columns[0].n), dtype=np.bool_)
        used[values.order] = True
        order = order_of(keys)
        chosen, counted = _chosen(
            dataclasses.replace(values, keys=self._rows.keys, key_columns=keys, order=order[used[order]]), self._choice
        )
        return pack(chosen), counted

    def add(self, part: Part, counted: CountedSlices) -> None:
        """Add a part."""
        mine = self._counted
        self._counted = CountedSlices(mine.n_slices + counted.n_slices, mine.of_min_rows + counted.of_min_rows)
        self._parts.add(part)
        if self._parts.n_slices > self._most and self._choice is not None:
            chosen, _ = _chosen(self._parts.joined(), self._choice)
            self._parts = GroupingParts(self._empty)
            self._parts.add(pack(chosen))

    def joined(self) -> GroupingValues:
        """Return all of them."""
        if self._choice is None:
            return dataclasses.replace(self._parts.joined(self._rows.restored), keys=self._rows.keys)
        chosen, _ = _chosen(self._parts.joined(), self._choice)
        return dataclasses.replace(chosen, counted=self._counted)


def _chosen(values: GroupingValues, choice: Choice) -> tuple[GroupingValues, CountedSlices]:
    chosen, n_large = choice.of(values)
    return dataclasses.replace(values, order=chosen), CountedSlices(values.n_slices, n_large)
