"""The account of scoring: counts of rows, and the files that were written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastloss.metrics.resolve import Evaluation
from fastloss.report.content import count_of, dropped_rows, skipped_parts
from fastloss.scan import SkippedTask
from fastloss.scoring.outputs import OutputCounts
from fastloss.scoring.plan import ScorePlan


@dataclass(frozen=True)
class ScoreResult:
    """The account that `fastloss.score` returns.

    Attributes
    ----------
    rows : dict
        ``read``, ``scored``, ``saturated`` (their loss was clipped or is infinite), and ``dropped``: causes, with
        the number of rows that have no loss and the place of the first. Files of an earlier run are counted in.
    files : dict
        ``written``, ``complete`` (left as an earlier run had written them), ``skipped``, and with ``overwrite``
        ``others``: outputs of other runs in the same folder, which no file of this log has replaced.
    conventions : list of str
        What the preset did.
    """

    rows: dict[str, Any]
    files: dict[str, Any]
    conventions: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the account in lines."""
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
        return "\n".join(lines)


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
    (loss,) = evaluation.losses
    unit = evaluation.conventions.unit(loss)
    said = [] if preset is None else [f"preset {preset}", *evaluation.said]
    return [*said, *([] if unit is None else [f"unit: {unit.name}"])]
