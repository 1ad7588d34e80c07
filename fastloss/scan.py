"""The scan: tasks of a source, evaluated on reader threads, merged whole into one state.

Each thread reads and evaluates its own tasks, so the threads never nest, and exact sums make the order of merging
irrelevant. Errors are reported for the first task that has one, whatever the threads' timing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fastloss.errors import FastlossError, ReadError
from fastloss.plan import Plan, suggesting_to_skip
from fastloss.sources.base import Task
from fastloss.states.evaluation import EvaluationState

_PATIENCE_S = 2.0


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


def run_scan(plan: Plan, engine: Engine, report: Callable[[Progress], None] | None = None) -> Scanned:
    """Evaluate every task of the plan's source.

    Parameters
    ----------
    plan : Plan
        The checked request.
    engine : Engine
        What evaluates a task.
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
    tasks: Iterator[Task] = plan.source.tasks(plan.columns, plan.read_options)
    lock = threading.Lock()
    stop = threading.Event()
    failures: list[tuple[int, BaseException]] = []
    done_bytes = 0

    def work() -> None:
        nonlocal done_bytes
        while not stop.is_set():
            task: Task | None = None
            try:
                with lock:
                    task = next(tasks, None)
                if task is None:
                    return
                state = engine.run(task)
                if stop.is_set():
                    return
                with lock:
                    scanned.state.absorb(state)
                    engine.check_state(scanned.state)
                    done_bytes += task.stored_bytes
                    if report is not None:
                        read = scanned.state.ledger.n_read
                        report(Progress(read, summary.rows, done_bytes, summary.stored_bytes))
            except ReadError as error:
                # A stream that breaks off between two tasks has no part that could be left out.
                if plan.execution.on_bad_file == "raise" or task is None:
                    fail(task, error)
                    return
                with lock:
                    done_bytes += task.stored_bytes
                    scanned.skipped.append(SkippedTask(task.origin, task.row_group, task.n_rows, str(error)))
            except BaseException as error:
                fail(task, error)
                return

    def fail(task: Task | None, error: BaseException) -> None:
        with lock:
            failures.append((sys.maxsize if task is None else task.index, error))
        # Tasks are handed out in order, so every earlier one is already running and will report its own error.
        stop.set()

    workers: list[threading.Thread] = []
    try:
        for number in range(plan.execution.threads):
            worker = threading.Thread(target=work, name=f"fastloss-{number}", daemon=True)
            worker.start()
            workers.append(worker)
        for worker in workers:
            # A join without a time limit would keep Ctrl-C waiting.
            while worker.is_alive():
                worker.join(0.1)
    except BaseException:
        stop.set()
        for worker in workers:
            # A worker that waits for a stream's producer is left behind; it merges nothing any more.
            worker.join(_PATIENCE_S)
        raise
    if failures:
        expected = [failure for failure in failures if isinstance(failure[1], FastlossError)]
        with suggesting_to_skip(plan.execution.on_bad_file):
            raise min(expected or failures, key=lambda failure: failure[0])[1]
    engine.finish(scanned.state)
    scanned.skipped.sort(key=str)
    return scanned
