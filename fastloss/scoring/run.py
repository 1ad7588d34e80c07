"""Carrying out a score plan on threads: one output after the other, or the hardest rows of all files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from fastloss.errors import ReadError
from fastloss.executors import ThreadExecutor, raise_if_stopped
from fastloss.scan import Progress, SkippedTask
from fastloss.scoring.groups import score_groups
from fastloss.scoring.hardest import MEMORY_SHARE, HardestRows
from fastloss.scoring.outputs import Output, OutputCounts
from fastloss.scoring.plan import ScorePlan
from fastloss.scoring.result import ScoreResult, make_result
from fastloss.scoring.rows import RowScorer, value_types
from fastloss.scoring.writer import RowWriter, open_sink, write_table
from fastloss.sources.base import Task


def run_score(score_plan: ScorePlan, report: Callable[[Progress], None] | None = None) -> ScoreResult:
    """Write every output that is not complete.

    Parameters
    ----------
    score_plan : ScorePlan
        The checked request.
    report : callable, optional
        Called with a `Progress` after each part of the log, from any thread but never from two at once.

    Raises
    ------
    FastlossError
        The error of the first file that has one.
    OSError
        If an output cannot be written.
    """
    if score_plan.request.request.group:
        return score_groups(score_plan, report)
    run = _Run(score_plan, report)
    waiting = [output for output in score_plan.outputs if output.complete is None]
    top = score_plan.request.top
    if waiting and top is None:
        run.write_rows(waiting)
    if waiting and top is not None:
        run.write_hardest(waiting[0], top)
    return make_result(score_plan, run.counts, run.written, run.skipped)


class _Run:
    """The progress of a plan. Complete outputs are counted as done."""

    def __init__(self, score_plan: ScorePlan, report: Callable[[Progress], None] | None) -> None:
        self._score_plan = score_plan
        self._plan = plan = score_plan.plan
        self._report = report
        self._lock = threading.Lock()
        self._rows_done = 0
        self._bytes_done = 0
        self.counts = OutputCounts()
        self.written: list[Path] = []
        self.skipped = [SkippedTask(file, None, None, cause) for file, cause in plan.summary.skipped]
        for output in score_plan.outputs:
            if output.complete is not None:
                self.counts.merge(output.complete)
                self._rows_done += output.complete.ledger.n_read
                self._bytes_done += sum(task.stored_bytes for task in output.tasks)

    def write_rows(self, waiting: Sequence[Output]) -> None:
        """Write every row of these outputs."""
        scorer = RowScorer(self._plan.evaluation, self._plan.execution)
        threads = self._plan.execution.threads
        # A thread that has no file of its own writes what another has evaluated; its part of the memory holds that.
        n_files = min(threads, len(waiting))
        in_background = threads >= 2 * n_files

        def write(output: Output) -> OutputCounts | SkippedTask:
            try:
                return self._write_output(output, scorer, in_background=in_background)
            except ReadError as error:
                return self._skip(SkippedTask(output.origin, None, None, str(error)), error)

        def merge(output: Output, found: OutputCounts | SkippedTask) -> None:
            if isinstance(found, SkippedTask):
                self.skipped.append(found)
            else:
                self.counts.merge(found)
                self.written.append(output.path)

        ThreadExecutor(n_files).fold(waiting, write, merge)

    def _write_output(self, output: Output, scorer: RowScorer, *, in_background: bool) -> OutputCounts:
        score_plan, plan = self._score_plan, self._plan
        counts = OutputCounts()
        with open_sink(output.path) as sink:
            writer = RowWriter(
                sink,
                pa.schema([plan.source.schema.field(name) for name in plan.keep]),
                value_types(plan.evaluation),
                score_plan.request.compression,
                score_plan.flush_bytes,
                one_group=not output.inputs,
                in_background=in_background,
            )
            try:
                for task in output.tasks:
                    task_counts = OutputCounts()
                    for scored in scorer.score_task(task, task_counts):
                        raise_if_stopped()
                        writer.add(scored)
                    writer.end_task()
                    counts.merge(task_counts)
                    self._advance(task, task_counts)
                raise_if_stopped()
                output.check_unchanged()
                writer.close(output.metadata(score_plan.asked, counts))
            except BaseException:
                writer.abandon()
                raise
        return counts

    def write_hardest(self, output: Output, n_rows: int) -> None:
        """Write the rows with the largest losses of all tasks."""
        plan = self._plan
        scorer = RowScorer(plan.evaluation, plan.execution)
        hardest = HardestRows(n_rows, plan.keep, plan.execution.memory_bytes // MEMORY_SHARE)

        def find(task: Task) -> tuple[HardestRows, OutputCounts] | SkippedTask:
            found, task_counts = hardest.identity(), OutputCounts()
            try:
                for scored in scorer.score_task(task, task_counts):
                    raise_if_stopped()
                    found.add(scored, task.index, threshold=hardest.threshold)
            except ReadError as error:
                return self._skip(SkippedTask(task.origin, task.row_group, task.n_rows, str(error)), error)
            return found, task_counts

        def merge(task: Task, found: tuple[HardestRows, OutputCounts] | SkippedTask) -> None:
            if isinstance(found, SkippedTask):
                self.skipped.append(found)
                return
            rows, task_counts = found
            hardest.merge(rows)
            self.counts.merge(task_counts)
            self._advance(task, task_counts)

        ThreadExecutor(plan.execution.threads).fold(output.tasks, find, merge)
        table = hardest.table(plan.source.schema, value_types(plan.evaluation))
        output.check_unchanged()
        metadata = output.metadata(self._score_plan.asked, self.counts)
        write_table(output.path, table, self._score_plan.request.compression, metadata)
        self.written.append(output.path)

    def _skip(self, part: SkippedTask, error: ReadError) -> SkippedTask:
        """Return a part of the log that is left out; where the request does not allow that, raise its error."""
        if self._plan.execution.on_bad_file == "raise":
            raise error
        return part

    def _advance(self, task: Task, counts: OutputCounts) -> None:
        summary = self._plan.summary
        with self._lock:
            self._rows_done += counts.ledger.n_read
            self._bytes_done += task.stored_bytes
            if self._report is not None:
                self._report(Progress(self._rows_done, summary.rows, self._bytes_done, summary.stored_bytes))
