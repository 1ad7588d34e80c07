"""The passes of a calibration over its log, each an evaluation with a metric of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastloss.errors import ReadError
from fastloss.metrics.base import BINARY_LABEL, PROBABILITY_SPACES, MetricValues, ModelFacts, PlainMetric, SliceStates
from fastloss.metrics.quantities import ClippedRows, FitTerms, LossValue, Rows, Weight
from fastloss.metrics.resolve import resolve
from fastloss.plan import Plan
from fastloss.report.content import dropped_rows, skipped_parts
from fastloss.scan import Progress, run_scan
from fastloss.states.base import RowSet, StateSpec
from fastloss.states.counts import Count
from fastloss.states.histogram import ScoreHistogram, ScoreHistograms
from fastloss.states.several_sums import SeveralSums
from fastloss.states.sums import Sum
from fastloss_kernels.calibration import CLIPPED
from fastloss_kernels.domain import FINITE, SPACES, Interval
from fastloss_kernels.exact_sum import ExactSum
from fastloss_kernels.losses import BinaryCrossentropy

_ROWS = RowSet(0)


class _Pass(PlainMetric):
    """Statistics of one model that are read as they are."""

    spaces = PROBABILITY_SPACES

    def label_range(self, space: str) -> Interval:
        """Return 0 to 1."""
        return BINARY_LABEL

    def prediction_range(self, space: str) -> Interval:
        """Return the space; no infinite logit, which a map cannot move."""
        return FINITE if space == "logit" else Interval(*SPACES[space])

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Raise an error: there is no value."""
        raise AssertionError("a pass has no value")


def _clipped(model: ModelFacts) -> tuple[StateSpec, ...]:
    return (Count(model.rows(), ClippedRows(model.space)),) if model.space in CLIPPED else ()


def _loss_of(model: ModelFacts) -> Sum:
    return Sum(model.rows(), LossValue(model.evaluation(BinaryCrossentropy())))


@dataclass(frozen=True)
class ScoresPass(_Pass):
    """The histogram of the scores, and their log loss as they are.

    Attributes
    ----------
    name : str
        What the request's fingerprint calls it.
    counts_clipped : bool
        Whether the rows are counted whose prediction the fit clips.
    """

    name: str = "calibrate"
    counts_clipped: bool = True
    definition = "positive mass and weight by score"

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the histogram, the weight, the loss and what is clipped."""
        rows = model.rows()
        clipped = _clipped(model) if self.counts_clipped else ()
        return ScoreHistogram(rows), *model.weight(rows), _loss_of(model), *clipped


@dataclass(frozen=True)
class FitPass(_Pass):
    """The sums at a point of a fit."""

    quantity: FitTerms

    definition = "loss, gradient and Hessian of a map"

    @property
    def name(self) -> str:
        """The name of what is summed."""
        return self.quantity.name

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the sums."""
        return (SeveralSums(model.rows(), self.quantity),)


class Scores(NamedTuple):
    """What the first pass finds.

    Attributes
    ----------
    histogram : ScoreHistograms
        The scores.
    n_rows : int
        How many rows are used.
    n_clipped : int
        How many of them have a prediction that the fit clips.
    weight, loss : ExactSum
        Their weight, and their log loss as they are.
    """

    histogram: ScoreHistograms
    n_rows: int
    n_clipped: int
    weight: ExactSum
    loss: ExactSum


@dataclass
class Passes:
    """The passes over one log, which must not change between them.

    Attributes
    ----------
    plan : Plan
        A checked request of one model, whose metric is a `ScoresPass`.
    report : callable or None
        Called with a `Progress` after each part of the log; each pass begins from 0.
    n : int
        How many passes there were.
    """

    plan: Plan
    report: Callable[[Progress], None] | None = None
    n: int = 0
    _rows: dict[str, Any] = dataclasses.field(default_factory=dict)
    _files: dict[str, Any] = dataclasses.field(default_factory=dict)

    def scores(self) -> Scores:
        """Return what the first pass finds."""
        (model,) = self.plan.evaluation.models
        wanted: list[StateSpec] = [ScoreHistogram(_ROWS), Count(_ROWS, Rows()), _loss_of(model)]
        (metric,) = self.plan.evaluation.metrics
        assert isinstance(metric, ScoresPass)
        clipped = _clipped(model) if metric.counts_clipped else ()
        wanted.extend(clipped)
        if model.weighted:
            wanted.append(Sum(_ROWS, Weight()))
        histogram, counts, losses, *more = self._run(self.plan, wanted)
        n_rows, n_clipped = int(counts[0]), int(more.pop(0)[0]) if clipped else 0
        return Scores(histogram, n_rows, n_clipped, more[0][0] if more else ExactSum.from_count(n_rows), losses[0])

    def sums(self, quantity: FitTerms) -> list[ExactSum]:
        """Return the sums at a point."""
        evaluation = self.plan.evaluation
        request = dataclasses.replace(evaluation.request, metrics=(FitPass(quantity),))
        plan = dataclasses.replace(self.plan, evaluation=resolve(request, evaluation.types))
        (found,) = self._run(plan, [SeveralSums(_ROWS, quantity)])
        return [sums[0] for sums in found]

    @property
    def rows(self) -> dict[str, Any]:
        """What became of the rows."""
        return self._rows

    @property
    def files(self) -> dict[str, Any]:
        """What could not be read."""
        return self._files

    def _run(self, plan: Plan, wanted: list[StateSpec]) -> list[Any]:
        scanned = run_scan(plan, self.report)
        self.n += 1
        ledger = scanned.state.ledger
        rows = {
            "read": ledger.n_read,
            **({"filtered": ledger.n_filtered} if plan.request.where else {}),
            "used": ledger.n_read - ledger.n_filtered - sum(ledger.dropped.values()),
            "dropped": dropped_rows(ledger),
        }
        if self.n > 1 and rows != self._rows:
            raise ReadError("the log changed between two passes over it; calibrate when it is complete.")
        self._rows = rows
        self._files = {"read": scanned.n_files, "skipped": skipped_parts(scanned.skipped)}
        (table,) = scanned.state.tables
        return [table.columns[scanned.specs.index(spec)].evaluate() for spec in wanted]
