"""From a score request to a checked plan: the plan of its evaluation, and the outputs to write."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastloss.errors import UsageError
from fastloss.plan import Plan, execution_options, plan_request, split_options
from fastloss.scoring.hardest import expected_bytes
from fastloss.scoring.names import check_target, refuse_target_in_log
from fastloss.scoring.outputs import (
    Output,
    inspect_new_output,
    inspect_output,
    other_outputs,
    plan_file_outputs,
    plan_stream_output,
)
from fastloss.scoring.request import ScoreRequest
from fastloss.sources.file_lists import entries_of
from fastloss.sources.stores.store import Stores
from fastloss.sources.table_formats import named_table
from fastloss_kernels import FORMULAS_VERSION


@dataclass(frozen=True)
class ScorePlan:
    """A checked request to score a log.

    Attributes
    ----------
    request : ScoreRequest
        What to write.
    plan : Plan
        What is computed, and how the log is read.
    asked : mapping
        All that shapes an output, and nothing else, as plain values.
    outputs : tuple of Output
        The files to write, and those that are complete.
    flush_bytes : int
        Bytes of rows that may wait to be written.
    others : tuple of Path
        Outputs of other runs in the same folder.
    """

    request: ScoreRequest
    plan: Plan
    asked: Mapping[str, Any]
    outputs: tuple[Output, ...]
    flush_bytes: int
    others: tuple[Path, ...] = ()


def make_score_plan(log: object, out: str | os.PathLike[str], *, overwrite: bool = False, **options: Any) -> ScorePlan:
    """Check a request against the log and against what lies at `out`.

    Parameters
    ----------
    log, out, overwrite
        As in `fastloss.score`.
    **options
        The other parameters of `fastloss.score`.

    Raises
    ------
    FastlossError
        If the request is not possible as asked, a file is unreadable, or a foreign file is in an output's place.
    """
    asked, how = split_options(options)
    request = ScoreRequest.of(**asked)
    target = check_target(out)
    execution = execution_options(**how)
    entries = entries_of(log, Stores(execution.storage_options or {}, execution.retry_seconds))
    if entries is not None:
        refuse_target_in_log(target, entries)
    of_groups = bool(request.request.group)
    plan = plan_request(log, request.request, execution, keep=request.keep, of_groups=of_groups)
    if plan.quantiles:
        raise UsageError(
            f"{next(iter(plan.quantiles))} needs a pass over the log before it is scored, which score does not make; "
            "evaluate it, and give score the edges that the result has: cut(score, 0.1, 0.5)."
        )
    top = request.top
    if top is not None and not of_groups and expected_bytes(top, request.keep) > plan.execution.memory_bytes // 4:
        raise UsageError(f"top is {top:,}, too many rows to hold in the memory; ask for fewer, or raise memory.")

    # Half of what a task may take is for what is read, half for what is about to be written.
    flush_bytes = plan.execution.task_bytes // 2
    tasks = plan.source.tasks(plan.columns, dataclasses.replace(plan.read_options, task_bytes=flush_bytes))
    shaping = _asked(request, plan)
    if entries is None or named_table(entries) is not None:
        planned = [plan_stream_output(target, tasks)]
    else:
        planned = plan_file_outputs(
            entries,
            target,
            tasks,
            shaping,
            skipped=[file for file, _ in plan.summary.skipped],
            as_one=of_groups or top is not None,
            stores=plan.read_options.stores,
        )
    inspect = inspect_new_output if of_groups else inspect_output
    outputs = tuple(inspect(output, overwrite=overwrite) for output in planned)
    others = other_outputs(target, outputs) if overwrite else ()
    return ScorePlan(request, plan, shaping, outputs, flush_bytes, others)


def _asked(request: ScoreRequest, plan: Plan) -> dict[str, Any]:
    evaluations = [plan.evaluation, *(group.evaluation for group in plan.evaluation.groups)]
    return {
        **plan.asked(),
        "custom": [custom for evaluation in evaluations for custom in evaluation.custom()],
        "formulas": FORMULAS_VERSION,
        "keep": list(request.keep),
        "top": request.top,
        "compression": request.compression,
    }
