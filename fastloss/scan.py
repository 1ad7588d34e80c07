"""The scan: tasks of a source, evaluated by an executor's workers, merged whole into one state.

Each worker reads and evaluates its own tasks, and exact sums make the order of merging irrelevant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fastloss.errors import ReadError
from fastloss.executors import Executor
from fastloss.plan import Plan, suggesting_to_skip
from fastloss.sources.base import Task
from fastloss.states.evaluation import EvaluationState


class Engine(Protocol):
    """What the scan asks of an engine."""

    def identity(self) -> EvaluationState:
        """Return the state of no rows."""

    def run(self, task: Task) -> EvaluationState:
        """Evaluate one task."""

    def check_state(self, state: EvaluationState) -> None:
        """Refuse a merged state that outgrows the memory."""

    def finish(self, state: EvaluationState) -> None:
        """Bring the merged state into the form that is read fastest."""


class SkippedTask(NamedTuple):
    """A part of the log that could not be read and was left out."""

    file: str
    row_group: int | None
    n_rows: int | None
    cause: str


class Progress(NamedTuple):
    """How far a scan has come; totals are None for streams."""

    rows: int
    total_rows: int | None
    stored_bytes: int
    total_bytes: int | None


@dataclass
class Scanned:
    """The merged state of a log, and what was skipped."""

    state: EvaluationState
    skipped: list[SkippedTask] = field(default_factory=list)
    n_files: int | None = None


def evaluate_task(engine: Engine, task: Task) -> EvaluationState:
    """Return the state of one task, which is evaluated whole or not at all."""
    return engine.run(task)


@dataclass(frozen=True)
class TaskWork:
    """The work of an executor: evaluates a task, or leaves it out if it cannot be read and the request says so."""

    engine: Engine
    skip_unreadable: bool

    def __call__(self, task: Task) -> EvaluationState | SkippedTask:
        """Return the state of a task, or why there is none."""
        try:
            return evaluate_task(self.engine, task)
        except ReadError as error:
            if not self.skip_unreadable:
                raise
            return SkippedTask(task.origin, task.row_group, task.n_rows, str(error))


def run_scan(
    plan: Plan, engine: Engine, executor: Executor, report: Callable[[Progress], None] | None = None
) -> Scanned:
    """Evaluate every task of the plan's source.

    Parameters
    ----------
    plan : Plan
        The checked request.
    engine : Engine
        What evaluates a task.
    executor : Executor
        Where tasks are evaluated.
    report : callable, optional
        Called with a `Progress` after each task, from any thread but never from two at once.

    Raises
    ------
    FastlossError
        The error of the first task that has one.
    """
    summary = plan.summary
    scanned = Scanned(engine.identity(), n_files=summary.files)
    scanned.skipped += [SkippedTask(file, None, None, cause) for file, cause in summary.skipped]
    done_bytes = 0

    def merge(task: Task, outcome: EvaluationState | SkippedTask) -> None:
        nonlocal done_bytes
        done_bytes += task.stored_bytes
        if isinstance(outcome, SkippedTask):
            scanned.skipped.append(outcome)
            return
        scanned.state.absorb(outcome)
        engine.check_state(scanned.state)
        if report is not None:
            report(Progress(scanned.state.ledger.n_read, summary.rows, done_bytes, summary.stored_bytes))

    on_bad_file = plan.execution.on_bad_file
    # A stream that breaks off between two tasks has no part that could be left out: that error is the source's own.
    with suggesting_to_skip(on_bad_file):
        executor.fold(
            plan.source.tasks(plan.columns, plan.read_options), TaskWork(engine, on_bad_file == "skip"), merge
        )
    engine.finish(scanned.state)
    scanned.skipped.sort(key=str)
    return scanned
