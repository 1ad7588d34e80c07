"""Carrying out a plan of groups: the rows of each, from all over the log, become one row of its values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pyarrow as pa

from fastloss.executors import ThreadExecutor, raise_if_stopped
from fastloss.groups import PartitionTask, Room, open_groups, partition_tasks
from fastloss.metrics.means import MeanLoss
from fastloss.metrics.resolve import Evaluation
from fastloss.scan import Progress, TaskWork, run_pass
from fastloss.scoring.group_output import EveryGroup, KeyedTables, TableWriter, WorstGroups
from fastloss.scoring.group_values import GroupCounts, GroupScorer, ScoredGroups
from fastloss.scoring.outputs import OutputCounts
from fastloss.scoring.plan import ScorePlan
from fastloss.scoring.result import GroupsWritten, ScoreResult, make_group_result
from fastloss.scoring.writer import open_sink
from fastloss_kernels.rankings import Ranking

# Parts of the memory that is left when the log has been read: what the worst groups may take, and what all of them may
# while they are sorted, when nothing else is under way any more.
_HELD_PART = 8
_SORTED_PART = 2
# A table of keys and values is made of a part of the groups at once; Arrow's texts of one column end at 2 GiB.
MOST_PARTITION_BYTES = 1 << 30


def score_groups(score_plan: ScorePlan, report: Callable[[Progress], None] | None = None) -> ScoreResult:
    """Write the values of every group, or of the worst ones.

    Parameters
    ----------
    score_plan : ScorePlan
        The checked request.
    report : callable, optional
        Called with a `Progress` after each part of the log, never twice at once.

    Raises
    ------
    FastlossError
        As in `fastloss.scoring.run.run_score`.
    OSError
        If the output cannot be written.
    """
    plan = score_plan.plan
    (output,) = score_plan.outputs
    (group,) = plan.evaluation.groups
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(open_sink(output.path))
        of_groups = open_groups(plan, group, stack, tells_keys=True)
        gathered = of_groups.rows
        work = TaskWork.of(plan.evaluation, plan.execution, of_groups=[of_groups])
        scanned = run_pass(plan, report, work)
        output.check_unchanged()
        tables = KeyedTables(gathered, [metric.name for metric in group.evaluation.metrics])
        writer = TableWriter(sink, tables.schema, score_plan.request.compression)
        try:
            # What reading the log took is free again.
            room_bytes = plan.execution.room_beside(gathered.nbytes)
            held_bytes = room_bytes // _HELD_PART
            top = score_plan.request.top
            groups: EveryGroup | WorstGroups
            if top is None:
                groups = EveryGroup(tables, writer, room_bytes // _SORTED_PART)
            else:
                smallest = smallest_is_worst(group.evaluation)
                groups = WorstGroups(tables, writer, held_bytes, top, smallest=smallest)
            room = Room(room_bytes - held_bytes)
            scorer = GroupScorer(gathered, plan.execution)
            counts = GroupCounts()

            def score(task: PartitionTask) -> tuple[ScoredGroups | pa.Table, GroupCounts]:
                raise_if_stopped()
                found = GroupCounts()
                with room.take(gathered.bytes_of(task.partition)):
                    scored = scorer.score(gathered.batch_of(task.partition), found)
                with room.take(len(scored.sizes) * (tables.group_bytes + tables.key_bytes)):
                    return groups.prepare(scored), found

            def merge(task: PartitionTask, found: tuple[ScoredGroups | pa.Table, GroupCounts]) -> None:
                of_groups, of_counts = found
                groups.add(of_groups)
                counts.merge(of_counts)

            # After the rows of a part comes the table of its groups: one for each row, at worst.
            most_bytes = min(room.n_bytes // (2 * plan.execution.threads), MOST_PARTITION_BYTES)
            row_bytes = gathered.row_bytes
            most_bytes = most_bytes * row_bytes // max(row_bytes, tables.group_bytes + tables.key_bytes)
            tasks = partition_tasks(gathered, plan.execution, room, max(1, most_bytes))
            ThreadExecutor(plan.execution.threads).fold(tasks, score, merge)
            groups.finish()
            raise_if_stopped()
            written = GroupsWritten(group, counts, writer.n_rows, gathered.n_null, groups.order)
            writer.close(output.metadata(score_plan.asked, OutputCounts(scanned.state.ledger)))
        except BaseException:
            writer.abandon()
            raise
    return make_group_result(score_plan, scanned.state.ledger, written, scanned.skipped)


def smallest_is_worst(evaluation: Evaluation) -> bool:
    """Tell whether the smallest values of the first metric are the worst, as of rankings, or the largest."""
    metric = evaluation.metrics[0]
    assert isinstance(metric, MeanLoss)
    return isinstance(metric.loss, Ranking)
