"""The scan: tasks of a source, evaluated wherever an executor runs them, merged whole into one state.

This is the only place where engine and source meet. Exact sums make the order of merging irrelevant, and errors are
reported for the first task that has one, independent of timing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from fastloss.budget import Execution
from fastloss.columns.base import kept_rows
from fastloss.engine.engine import Engine
from fastloss.engine.gathering import ROW_BITS
from fastloss.errors import FastlossError, ReadError, UsageError
from fastloss.executors import EXECUTORS
from fastloss.groups import GroupsFound, RowsOfGroups, evaluate_groups, naming_groups, open_groups
from fastloss.metrics.evaluate import GroupingValues, one_pass_specs, refining_specs, sharpening_specs
from fastloss.metrics.resolve import Evaluation, resolve
from fastloss.plan import Plan, suggesting_to_skip
from fastloss.quantiles import find_quantiles
from fastloss.request import ColumnType, Request
from fastloss.sources.base import Task, gives_rows_once
from fastloss.sources.derived import DerivedSource
from fastloss.sources.key_ranges import KeyRanges
from fastloss.states.base import StateSpec
from fastloss.states.evaluation import EvaluationState
from fastloss.states.ledger import Parts, Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastloss.states.slices import SliceTable


_CHANGED = "the log changed between two passes over it; evaluate it when it is complete."


class SkippedTask(NamedTuple):
    """A part of the log that could not be read and was left out."""

    file: str
    row_group: int | None
    n_rows: int | None
    cause: str


class Progress(NamedTuple):
    """How far a scan has come. Totals are None for streams."""

    rows: int
    total_rows: int | None
    stored_bytes: int
    total_bytes: int | None


class Pruned(NamedTuple):
    """What a filter ruled out before it was read: whole files, and row groups of the others."""

    files: int
    row_groups: int


@dataclass
class ScanResult:
    """The merged state of a log, which statistics are in it, what was skipped, what a filter ruled out, quantiles.

    `gathered` has the values of groupings whose slices were too many for a state.
    """

    state: EvaluationState
    specs: tuple[StateSpec, ...]
    skipped: list[SkippedTask] = field(default_factory=list)
    n_files: int | None = None
    pruned: Pruned | None = None
    edges: dict[str, tuple[float, ...]] = field(default_factory=dict)
    groups: list[GroupsFound] = field(default_factory=list)
    gathered: dict[tuple[str, ...], GroupingValues] = field(default_factory=dict)


def evaluate_task(
    engine: Engine, task: Task, *, stops_at_errors: bool = False, ranges: Sequence[KeyRanges | None] = ()
) -> EvaluationState:
    """Evaluate one task, whole or not at all.

    Parameters
    ----------
    engine : Engine
        What evaluates its batches.
    task : Task
        The task.
    stops_at_errors : bool
        Whether an error ends the scan, so that parts of the task may count before its end.
    ranges : sequence of KeyRanges or None
        For each group key, what is known of its values in row groups.

    Raises
    ------
    ReadError
        If the task cannot be read.
    DataError
        If it holds a bad row and bad rows are not dropped, or a saturated row and the request forbids it.
    """
    state = engine.identity()
    row = task.first_row
    first_number = task.index << ROW_BITS
    task_keys = [None if known is None else known.of_task(task) for known in ranges]
    names = [(part.origin, part.row_group) for part in task.parts]
    parts = Parts.of(names, [part.n_rows or 0 for part in task.parts]) if names else None
    for batch in task.read():
        for piece in engine.split_batch(batch):
            place = Place(task.origin, task.row_group, row, kept_rows(piece), parts)
            engine.update(state, piece, place, first_number, task_keys)
            if stops_at_errors:
                engine.settle(state, is_whole=False)
            row += piece.n_read
            first_number += piece.n_read
    engine.finish_task(state)
    return state


class Evaluated(NamedTuple):
    """The state of a task, and what of it was left out."""

    state: EvaluationState
    skipped: tuple[SkippedTask, ...] = ()


@dataclass(frozen=True)
class TaskWork:
    """The work on each task. It can be pickled, and sent to another process.

    Attributes
    ----------
    request : Request
        What was asked.
    types : mapping of str to ColumnType
        The types of its columns.
    execution : Execution
        How the log is read.
    further : tuple of StateSpec
        The statistics to keep besides those of the request, in a second pass.
    of_groups : tuple of RowsOfGroups
        For each group key, where its rows go, and what is known of its values in row groups.
    """

    request: Request
    types: Mapping[str, ColumnType]
    execution: Execution
    further: tuple[StateSpec, ...] = ()
    of_groups: tuple[RowsOfGroups, ...] = ()
    _made: dict[str, Engine] = field(default_factory=dict, compare=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        evaluation: Evaluation,
        execution: Execution,
        further: Sequence[StateSpec] = (),
        of_groups: Sequence[RowsOfGroups] = (),
    ) -> TaskWork:
        """Return the work of an evaluation."""
        work = cls(evaluation.request, evaluation.types, execution, tuple(further), tuple(of_groups))
        work._made["engine"] = work._engine_of(evaluation)
        return work

    @classmethod
    def by(cls, engine: Engine, evaluation: Evaluation, execution: Execution) -> TaskWork:
        """Return the work of an engine, of this process."""
        work = cls(evaluation.request, evaluation.types, execution)
        work._made["engine"] = engine
        return work

    def _engine_of(self, evaluation: Evaluation) -> Engine:
        specs, gathered = (*evaluation.specs, *self.further), [rows for rows, _ in self.of_groups]
        return Engine(evaluation, self.execution, specs=specs, gathered=gathered)

    @property
    def engine(self) -> Engine:
        """The engine of this process."""
        with self._lock:
            if "engine" not in self._made:
                # The statistics of the request hold formulas, which cannot be sent: they are resolved here.
                self._made["engine"] = self._engine_of(resolve(self.request, self.types))
            return self._made["engine"]

    def __call__(self, task: Task) -> Evaluated:
        """Evaluate a task, and say what of it was left out, and why."""
        engine = self.engine
        ranges = [known for _, known in self.of_groups]
        error_of_all: UsageError | None = None
        if task.parts:
            try:
                return Evaluated(evaluate_task(engine, task, ranges=ranges))
            except UsageError as error:
                error_of_all = error
            except FastlossError:
                # One by one, they tell which of them is bad, and the others count.
                pass
        state: EvaluationState | None = None
        skipped: list[SkippedTask] = []
        for part in task.parts or (task,):
            try:
                stops_at_errors = self.execution.on_bad_file == "raise"
                found = evaluate_task(engine, part, stops_at_errors=stops_at_errors, ranges=ranges)
            except ReadError as error:
                if self.execution.on_bad_file == "raise":
                    raise
                skipped.append(SkippedTask(part.origin, part.row_group, part.n_rows, str(error)))
            except UsageError:
                # What all of them need is too much for each that comes after.
                if error_of_all is not None:
                    raise error_of_all from None
                raise
            else:
                if state is None:
                    state = found
                else:
                    state.merge(found)
        return Evaluated(state or engine.identity(), tuple(skipped))

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out the engine, which every process makes for itself."""
        return TaskWork, (self.request, self.types, self.execution, self.further)


Passes = Callable[[Plan, Callable[[Progress], None] | None, bool], ScanResult]


def run_scan(
    plan: Plan,
    report: Callable[[Progress], None] | None = None,
    *,
    sharpens: bool = True,
    run_passes: Passes | None = None,
) -> ScanResult:
    """Evaluate every task of the plan's source, once more where a metric wants it, and after a pass for quantiles.

    Parameters
    ----------
    plan : Plan
        The checked request.
    report : callable, optional
        Called with a `Progress` after each task, never twice at once; each pass begins from 0.
    sharpens : bool
        Whether a second pass may bring bounds together that are far apart; a state is of one pass.
    run_passes : callable, optional
        What reads the log once the quantiles are known; left out, `read_passes`.

    Raises
    ------
    FastlossError
        The error of the first task that has one.
    """
    run_passes = run_passes or read_passes
    found = find_quantiles(plan, _reporting(plan, report))
    if found is None:
        return run_passes(plan, report, sharpens)
    assert isinstance(plan.source, DerivedSource)
    plan_with_edges = dataclasses.replace(plan, source=plan.source.with_edges(found.edges))
    result = run_passes(plan_with_edges, report, sharpens)
    if found.n_read != result.state.ledger.n_read:
        raise ReadError(_CHANGED)
    result.edges = found.edges
    return result


def _reporting(plan: Plan, report: Callable[[Progress], None] | None) -> Callable[[int, int], None] | None:
    summary = plan.summary
    if report is None:
        return None
    return lambda rows, stored: report(Progress(rows, summary.rows, stored, summary.stored_bytes))


def read_passes(
    plan: Plan, report: Callable[[Progress], None] | None, sharpens: bool, work: TaskWork | None = None
) -> ScanResult:
    """Evaluate every task, and once more where a metric wants it; `work` is that of the first pass, if it differs."""
    besides = one_pass_specs(plan.evaluation, plan.execution.threads)
    with contextlib.ExitStack() as stack:
        of_groups = [open_groups(plan, group, stack) for group in plan.evaluation.groups]
        if work is None:
            work = TaskWork.of(plan.evaluation, plan.execution, besides, of_groups)
        with naming_groups(plan):
            first = run_pass(plan, report, work, besides)
            for rows, _ in of_groups:
                rows.end()
        found = evaluate_groups([rows for rows, _ in of_groups], first.state.groups, plan.execution)
    result = _sharpened(plan, report, first, besides, sharpens)
    result.groups = found
    return result


def _sharpened(
    plan: Plan,
    report: Callable[[Progress], None] | None,
    first: ScanResult,
    besides: Sequence[StateSpec],
    sharpens: bool,
) -> ScanResult:
    """Read the log once more if a metric wants it."""
    further, find = _wanted(plan.evaluation, first, refining_specs), refining_specs
    if not further and sharpens and not gives_rows_once(plan.source):
        further, find = _wanted(plan.evaluation, first, sharpening_specs), sharpening_specs
    if not further:
        return first
    # What the first pass kept is kept again: in the second, slices have other positions.
    try:
        specs = (*besides, *further)
        second = run_pass(plan, report, TaskWork.of(plan.evaluation, plan.execution, specs), specs)
    except UsageError as error:
        if find is sharpening_specs:
            return first
        raise UsageError(f"second pass over the log, for an exact value: {error}") from error
    if _wanted(plan.evaluation, second, find) != further:
        raise ReadError(_CHANGED)
    return second


def _wanted(
    evaluation: Evaluation,
    found: ScanResult,
    find: Callable[[Evaluation, SliceTable, Sequence[StateSpec]], list[StateSpec]],
) -> list[StateSpec]:
    """Return what the metrics want of a second pass, for the slices of all groupings."""
    wanted = (find(evaluation, table, found.specs) for table in found.state.tables)
    return list(dict.fromkeys(spec for specs in wanted for spec in specs))


def run_pass(
    plan: Plan, report: Callable[[Progress], None] | None, work: TaskWork, further: Sequence[StateSpec] = ()
) -> ScanResult:
    """Do the work of every task, and merge what it finds."""
    summary, execution = plan.summary, plan.execution
    result = ScanResult(work.engine.identity(), (*plan.evaluation.specs, *further), n_files=summary.files)
    if plan.request.where:
        result.pruned = Pruned(summary.pruned_files, summary.pruned_row_groups)
    result.skipped += [SkippedTask(file, None, None, cause) for file, cause in summary.skipped]
    done_bytes = 0

    def merge(task: Task, found: Evaluated) -> None:
        nonlocal done_bytes
        done_bytes += task.stored_bytes
        result.skipped += found.skipped
        result.state.merge(found.state)
        work.engine.check_merged(result.state)
        if report is not None:
            report(Progress(result.state.ledger.n_read, summary.rows, done_bytes, summary.stored_bytes))

    with suggesting_to_skip(execution.on_bad_file):
        EXECUTORS[execution.executor](execution.threads).fold(
            plan.source.tasks(plan.columns, plan.joining_options), work, merge
        )
    result.state.normalize()
    result.skipped.sort(key=str)
    return result
