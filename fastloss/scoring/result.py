"""The account of scoring: counts of rows, and the files that were written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fastloss.metrics.resolve import Evaluation, GroupEvaluation
from fastloss.report.content import count_of, dropped_rows, skipped_parts
from fastloss.scan import SkippedTask
from fastloss.scoring.group_values import GroupCounts
from fastloss.scoring.outputs import OutputCounts
from fastloss.scoring.plan import ScorePlan
from fastloss.states.ledger import Ledger


@dataclass(frozen=True)
class ScoreResult:
    """The account that `fastloss.score` returns.

    Attributes
    ----------
    rows : dict
        ``read``, ``scored``, ``saturated`` (their loss was clipped or is infinite), and ``dropped``: causes, with
        the number of rows that have no loss and the place of the first. Files of an earlier run are counted in. Of
        groups, ``scored`` are the rows in those that were evaluated, and `groups` says what is saturated.
    files : dict
        ``written``, ``complete`` (left as an earlier run had written them), ``skipped``, and with ``overwrite``
        ``others``: outputs of other runs in the same folder, which no file of this log has replaced.
    conventions : list of str
        What the preset did.
    groups : dict
        Empty of rows. Of groups: ``key``, ``read``, ``written``; ``dropped``: causes, with the number of groups that
        lack what some metric needs; ``without_value`` and ``saturated``: for each metric, how many of the groups that
        were evaluated have none, or one that is clipped or infinite; ``rows_of_null_key``; ``order``: "key", "value",
        or None where groups stand in no order.
    """

    rows: dict[str, Any]
    files: dict[str, Any]
    conventions: list[str] = field(default_factory=list)
    groups: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the account in lines."""
        return "\n".join(self._of_groups() if self.groups else self._of_rows())

    def _of_groups(self) -> list[str]:
        rows, groups = self.rows, self.groups
        filtered = f", {rows['filtered']:,} left out by where" if "filtered" in rows else ""
        name = groups["key"]
        lines = [
            f"{groups['written']:,} of {count_of(groups['read'], 'group')} by {name} written; "
            f"{rows['scored']:,} of {count_of(rows['read'], 'row')} scored{filtered}"
        ]
        lines += [
            f"{count_of(entry['rows'], 'row')} left out: {entry['cause']} in column {entry['column']!r}, "
            f"first at {entry['first']}"
            for entry in rows["dropped"]
        ]
        if groups["rows_of_null_key"]:
            lines.append(f"{count_of(groups['rows_of_null_key'], 'row')} of no group: null in {name}")
        lines += [
            f"{count_of(count, 'group')} without {metric}"
            for metric, count in groups["without_value"].items()
            if count
        ]
        lines += [
            f"{count_of(entry['groups'], 'group')}: {entry['cause']} in column {entry['column']!r}"
            for entry in groups["dropped"]
        ]
        lines += [
            f"{count_of(count, 'group')} whose predictions rule out what happened, for {metric}"
            for metric, count in groups["saturated"].items()
        ]
        if groups["order"] is None:
            lines.append("groups stand in no order: the memory has no room to sort them")
        lines += self.conventions
        return lines + [f"skipped: {entry['cause']}" for entry in self.files["skipped"]]

    def _of_rows(self) -> list[str]:
        rows, files = self.rows, self.files
        complete = f", {count_of(len(files['complete']), 'file')} already complete" if files["complete"] else ""
        filtered = f", {rows['filtered']:,} left out by where" if "filtered" in rows else ""
        lines = [
            f"{rows['scored']:,} of {count_of(rows['read'], 'row')} scored{filtered}; "
            f"{count_of(len(files['written']), 'file')} written{complete}"
        ]
        lines += [
            f"{count_of(entry['rows'], 'row')} without a loss: {entry['cause']} in column {entry['column']!r}, "
            f"first at {entry['first']}"
            for entry in rows["dropped"]
        ]
        if rows["saturated"]:
            lines.append(f"{count_of(rows['saturated'], 'row')} whose prediction rules out what happened")
        lines += self.conventions
        lines += [f"skipped: {entry['cause']}" for entry in files["skipped"]]
        if others := files["others"]:
            lines.append(
                f"{count_of(len(others), 'output')} of other runs {'is' if len(others) == 1 else 'are'} left in the "
                f"folder, the first {others[0]!r}; remove those that do not belong to this log"
            )
        return lines


class GroupsWritten(NamedTuple):
    """What became of groups.

    Attributes
    ----------
    group : GroupEvaluation
        Their key, and what was computed.
    counts : GroupCounts
        Counts of them.
    n_written, n_null : int
        Groups that were written, and rows whose key is null.
    order : str or None
        What the groups stand in the order of.
    """

    group: GroupEvaluation
    counts: GroupCounts
    n_written: int
    n_null: int
    order: str | None


def make_group_result(
    score_plan: ScorePlan, ledger: Ledger, written: GroupsWritten, skipped: Iterable[SkippedTask]
) -> ScoreResult:
    """Return the account of groups that were written."""
    counts = written.counts
    rows = {
        "read": ledger.n_read,
        **({"filtered": ledger.n_filtered} if score_plan.plan.request.where else {}),
        "scored": counts.n_rows,
        "dropped": dropped_rows(ledger),
    }
    groups = {
        "key": written.group.name,
        "read": counts.ledger.n_read,
        "written": written.n_written,
        "dropped": [
            {"cause": cause.name, "column": cause.column, "role": cause.role, "groups": count}
            for cause, count in sorted(counts.ledger.dropped.items())
        ],
        "without_value": counts.without_value,
        "saturated": counts.saturated,
        "rows_of_null_key": written.n_null,
        "order": written.order,
    }
    files = {
        "written": [str(output.path) for output in score_plan.outputs],
        "complete": [],
        "others": [],
        "skipped": skipped_parts(sorted(skipped, key=str)),
    }
    return ScoreResult(rows, files, _conventions(written.group.evaluation), groups)


def make_result(
    score_plan: ScorePlan, counts: OutputCounts, written: Iterable[Path], skipped: Iterable[SkippedTask]
) -> ScoreResult:
    """Return the account of a plan that was carried out."""
    ledger = counts.ledger
    rows = {
        "read": ledger.n_read,
        **({"filtered": ledger.n_filtered} if score_plan.plan.request.where else {}),
        "scored": ledger.n_read - ledger.n_filtered - sum(ledger.dropped.values()),
        "saturated": counts.saturated,
        "dropped": dropped_rows(ledger),
    }
    files = {
        "written": sorted(map(str, written)),
        "complete": sorted(str(output.path) for output in score_plan.outputs if output.complete is not None),
        "others": list(map(str, score_plan.others)),
        "skipped": skipped_parts(sorted(skipped, key=str)),
    }
    return ScoreResult(rows, files, _conventions(score_plan.plan.evaluation))


def _conventions(evaluation: Evaluation) -> list[str]:
    preset = evaluation.request.preset
    said = [] if preset is None else [f"preset {preset}", *evaluation.said]
    units = [(loss, evaluation.conventions.unit(loss)) for loss in evaluation.losses]
    if len(units) == 1:
        return [*said, *(f"unit: {unit.name}" for _, unit in units if unit is not None)]
    return [*said, *(f"unit of {loss.full_name}: {unit.name}" for loss, unit in units if unit is not None)]
