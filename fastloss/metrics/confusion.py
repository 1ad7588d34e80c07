"""Precision, recall, F1 and the false positive rate: at a threshold, or where another of them is what is wanted."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastloss.errors import UsageError
from fastloss.metrics.base import PROBABILITY_SPACES, Floats, Mask, MetricValues, ModelFacts, SliceStates
from fastloss.metrics.quantities import Label, LabelFrom, WeightFrom
from fastloss.metrics.ranked import Reading
from fastloss.metrics.thresholds import ThresholdGivingMetric
from fastloss.states.base import StateSpec
from fastloss.states.cumulated import Cumulated
from fastloss.states.sums import Sum
from fastloss_kernels.exact_sum import ExactSums
from fastloss_kernels.inverse_links import LINKS

# A quotient of rounded integers whose denominator is a rounded sum.
_ERROR = 2.0**-50


@dataclass(frozen=True)
class _Counts:
    """The sums by slice that a threshold gives; what a metric did not ask for is not there."""

    true_positive: ExactSums
    predicted: ExactSums | None
    positive: ExactSums | None
    weight: ExactSums


class ThresholdMetric(ThresholdGivingMetric):
    """A metric of the rows whose prediction is a threshold or above, which are those predicted to be positive.

    Beside logit=, prob= and logprob= a threshold is a probability, ½ if none is given; else it is in the column's own
    unit. It is compared with predictions as exact numbers: the float32 nearest to 0.7 is below 0.7. Values at a
    threshold are quotients of exact sums, rounded once.

    In place of a threshold another rate may be given: the value is then the best one that a threshold can have that
    keeps that rate, and `threshold` gives it, in the unit in which it is taken. It is read from a histogram of the
    scores, whose thresholds are the ends of its buckets; the bounds say how much better one inside a bucket might be.
    """

    exact: bool
    threshold: float | None
    # The rates that may be given in place of a threshold.
    given_rates: ClassVar[tuple[str, ...]] = ()
    # Which sums the metric reads beside the true positives.
    reads: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        """Refuse parameters of another kind, and more than one of threshold and rates."""
        super().__post_init__()
        given = [name for name in ("threshold", *self.given_rates) if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{self.family} takes one of {', '.join(given)}.")
        for name in given:
            if name != "threshold":
                self.check_share(name)
        if self.threshold is not None:
            found = self.threshold
            if isinstance(found, bool) or not isinstance(found, int | float) or np.isnan(found):
                raise ValueError(f"threshold is {found!r}; allowed: a number.")
            # 0 has one sign, so that −0 is no other threshold.
            object.__setattr__(self, "threshold", float(found) + 0.0)
        if self.exact and not any(name in self.given_rates for name in given):
            ways = " or ".join(f"{self.family}({name}=…)" for name in self.given_rates) or "other metrics"
            raise ValueError(f"exact is for {ways}: {self.family} at a threshold is exact as it is.")

    @property
    def rate(self) -> str | None:
        """The name of the rate that was given in place of a threshold."""
        return next((name for name in self.given_rates if getattr(self, name) is not None), None)

    @property
    def wanted(self) -> float:
        """The rate itself."""
        assert self.rate is not None
        return float(getattr(self, self.rate))

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the sums at the threshold, or the histogram."""
        if self.rate is not None:
            return super().states(model)
        rows, threshold = model.rows(), self._threshold(model)
        predicted = (Sum(rows, WeightFrom(threshold)),) if "predicted" in self.reads else ()
        positive = (Sum(rows, Label()),) if "positive" in self.reads else ()
        return (*model.weight(rows), Sum(rows, LabelFrom(threshold)), *predicted, *positive)

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Divide sums, or read the curve."""
        if self.rate is not None:
            return super().evaluate(states)
        rows, threshold = states.model.rows(), self._threshold(states.model)
        counts = _Counts(
            states[Sum(rows, LabelFrom(threshold))],
            states[Sum(rows, WeightFrom(threshold))] if "predicted" in self.reads else None,
            states[Sum(rows, Label())] if "positive" in self.reads else None,
            states.weight(rows),
        )
        above, below, reason = self.quotient(counts)
        values = MetricValues(above / below, rows)
        values.explain(states.count(rows) == 0, "no_rows", undefined=True)
        values.explain(below.is_zero, reason, undefined=True)
        return values

    def refine(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return what an exact value needs of a rate; a threshold needs nothing."""
        return () if self.rate is None else super().refine(states)

    def sharpen(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return nothing at a threshold, which is exact as it is."""
        return () if self.rate is None else super().sharpen(states)

    @abstractmethod
    def quotient(self, counts: _Counts) -> tuple[ExactSums, ExactSums, str]:
        """Return numerator and denominator, and why there is no value where that is 0."""

    def read(self, points: Cumulated, *, exact: bool) -> Reading:
        """Read the value at a rate."""
        raise NotImplementedError

    def _threshold(self, model: ModelFacts) -> float:
        """Return the threshold in the space of a model's predictions."""
        if model.space not in PROBABILITY_SPACES:
            if self.threshold is None:
                raise UsageError(
                    f"{self.family} needs a threshold beside {model.space}=, in the unit of column {model.column!r}: "
                    f"{self.family}(threshold=0.5)."
                )
            return self.threshold
        probability = 0.5 if self.threshold is None else self.threshold
        if not 0.0 <= probability <= 1.0:
            raise UsageError(
                f"threshold is {probability!r}; beside {model.space}= it is a probability: allowed are 0 to 1."
            )
        link = LINKS.get(model.space)
        return probability if link is None else link(probability, 0.0)


def _recalls(points: Cumulated) -> Floats:
    found: Floats = points.reached.positive / points.whole.positive[points.slices]
    return found


def _precisions(points: Cumulated) -> Floats:
    found: Floats = points.reached.positive / points.reached.weight
    return found


def _best_precisions(points: Cumulated) -> Floats:
    """Return a bound of the precision at any threshold inside each bucket: that of its positives alone."""
    best = points.reached.positive / (points.reached.positive + points.above.negative)
    found: Floats = np.minimum(best * (1.0 + _ERROR), 1.0)
    return found


@dataclass(frozen=True)
class Precision(ThresholdMetric):
    """The share of positives among the rows that are predicted to be positive.

    With `recall`, the largest precision of all thresholds whose recall is that or more, as Keras, TensorFlow Model
    Analysis and torchmetrics define it, which is not always that of the highest such threshold. Of several thresholds
    with this precision, `threshold` is the one with the largest recall.

    Attributes
    ----------
    threshold : float or None
        The lowest prediction of a positive.
    recall : float or None
        In place of a threshold, the recall that it must have.
    """

    threshold: float | None = None
    recall: float | None = None

    family = "precision"
    given_rates = ("recall",)
    reads = ("predicted",)
    parameters: ClassVar[tuple[str, ...]] = ("threshold", "recall", "exact", "most_scores")
    definition = "Σw·y / Σw of rows with prediction ≥ threshold; with recall=r, its maximum where recall ≥ r"

    def quotient(self, counts: _Counts) -> tuple[ExactSums, ExactSums, str]:
        """Divide by the weight that is predicted to be positive."""
        assert counts.predicted is not None
        return counts.true_positive, counts.predicted, "no_predicted_positive"

    def read(self, points: Cumulated, *, exact: bool) -> Reading:
        """Take the largest precision of the points that have the recall."""
        found = np.where(_recalls(points) >= self.wanted, _precisions(points), -1.0)
        value = points.largest(found, np.nan)
        threshold = points.thresholds_at(points.lowest(found == value[points.slices]))
        reasons = [(points.whole.positive == 0.0, "no_positive")]
        inside = points.largest(np.where(self._may_matter(points), _best_precisions(points), 0.0), 0.0)
        high = value if exact else np.maximum(inside, value)
        return Reading(value, value, high, reasons, threshold)

    def open_at(self, points: Cumulated) -> Mask:
        """Return the buckets inside of which the precision may be larger than at all ends of buckets."""
        found = np.where(_recalls(points) >= self.wanted, _precisions(points), -1.0)
        best = points.largest(found, 0.0)
        return self._may_matter(points) & (_best_precisions(points) > best[points.slices])

    def _may_matter(self, points: Cumulated) -> Mask:
        return points.mixed & (_recalls(points) >= self.wanted)


@dataclass(frozen=True)
class Recall(ThresholdMetric):
    """The share of the positives that are predicted to be positive: the true positive rate.

    With `precision` or `false_positive_rate`, the largest recall of all thresholds whose precision is that or more, or
    whose false positive rate is that or less. A threshold above all scores has a false positive rate of 0 and a recall
    of 0.

    Attributes
    ----------
    threshold : float or None
        The lowest prediction of a positive.
    precision, false_positive_rate : float or None
        In place of a threshold, the rate that it must keep.
    """

    threshold: float | None = None
    precision: float | None = None
    false_positive_rate: float | None = None

    family = "recall"
    given_rates = ("precision", "false_positive_rate")
    reads = ("positive",)
    parameters: ClassVar[tuple[str, ...]] = (
        "threshold", "precision", "false_positive_rate", "exact", "most_scores",
    )  # fmt: skip
    definition = "Σw·y of rows with prediction ≥ threshold / Σw·y; with another rate, its maximum where that is kept"

    def quotient(self, counts: _Counts) -> tuple[ExactSums, ExactSums, str]:
        """Divide by the weight of the positives."""
        assert counts.positive is not None
        return counts.true_positive, counts.positive, "no_positive"

    def read(self, points: Cumulated, *, exact: bool) -> Reading:
        """Take the largest recall of the points that keep the rate."""
        kept = self._kept(points)
        found = np.where(kept, _recalls(points), -1.0)
        value = points.largest(found, -1.0)
        threshold = points.thresholds_at(points.highest(kept & (found == value[points.slices])))
        reasons = [(points.whole.positive == 0.0, "no_positive")]
        inside = points.largest(np.where(self._may_keep(points), _recalls(points), -1.0), -1.0)
        high = value if exact else np.maximum(inside, value)
        if self.rate == "false_positive_rate":
            reasons.append((points.whole.negative == 0.0, "no_negative"))
            return Reading(np.maximum(value, 0.0), np.maximum(value, 0.0), np.maximum(high, 0.0), reasons, threshold)
        reasons += [(high < 0.0, "precision_not_reached"), (value < 0.0, "scores_too_close")]
        return Reading(value, value, high, reasons, threshold)

    def open_at(self, points: Cumulated) -> Mask:
        """Return the buckets inside of which the recall may be larger than at all ends that keep the rate."""
        best = points.largest(np.where(self._kept(points), _recalls(points), -1.0), -1.0)
        return self._may_keep(points) & (_recalls(points) > best[points.slices])

    def _kept(self, points: Cumulated) -> Mask:
        if self.rate == "precision":
            return _precisions(points) >= self.wanted
        kept: Mask = points.reached.negative / points.whole.negative[points.slices] <= self.wanted
        return kept

    def _may_keep(self, points: Cumulated) -> Mask:
        """Return the buckets inside of which a threshold may keep the rate."""
        if self.rate == "precision":
            return points.mixed & (_best_precisions(points) >= self.wanted)
        lowest = points.above.negative / points.whole.negative[points.slices]
        return points.mixed & (lowest <= self.wanted)


@dataclass(frozen=True)
class F1(ThresholdMetric):
    """The harmonic mean of precision and recall.

    Attributes
    ----------
    threshold : float or None
        The lowest prediction of a positive.
    """

    threshold: float | None = None

    family = "f1"
    reads = ("predicted", "positive")
    parameters: ClassVar[tuple[str, ...]] = ("threshold",)
    definition = "2·Σw·y of rows with prediction ≥ threshold / (Σw of these rows + Σw·y)"

    def quotient(self, counts: _Counts) -> tuple[ExactSums, ExactSums, str]:
        """Divide twice the true positives by all that are positive and all that are predicted to be."""
        assert counts.predicted is not None
        assert counts.positive is not None
        return counts.true_positive + counts.true_positive, counts.predicted + counts.positive, "no_positive"


@dataclass(frozen=True)
class FalsePositiveRate(ThresholdMetric):
    """The share of the negatives that are predicted to be positive.

    With `recall`, the smallest false positive rate of all thresholds whose recall is that or more.

    Attributes
    ----------
    threshold : float or None
        The lowest prediction of a positive.
    recall : float or None
        In place of a threshold, the recall that it must have.
    """

    threshold: float | None = None
    recall: float | None = None

    family = "false_positive_rate"
    given_rates = ("recall",)
    reads = ("predicted", "positive")
    parameters: ClassVar[tuple[str, ...]] = ("threshold", "recall", "exact", "most_scores")
    definition = "Σw·(1 − y) of rows with prediction ≥ threshold / Σw·(1 − y); with recall=r, its minimum where kept"

    def quotient(self, counts: _Counts) -> tuple[ExactSums, ExactSums, str]:
        """Divide by the weight of the negatives."""
        assert counts.predicted is not None
        assert counts.positive is not None
        return counts.predicted - counts.true_positive, counts.weight - counts.positive, "no_negative"

    def read(self, points: Cumulated, *, exact: bool) -> Reading:
        """Take the false positive rate of the highest point that has the recall."""
        negatives = points.whole.negative[points.slices]
        kept = _recalls(points) >= self.wanted
        found = np.where(kept, points.reached.negative / negatives, 2.0)
        value = points.smallest(found, np.nan)
        threshold = points.thresholds_at(points.lowest(kept & (found == value[points.slices])))
        inside = points.smallest(np.where(kept & points.mixed, points.above.negative / negatives, 2.0), 2.0)
        low = value if exact else np.minimum(inside, value)
        reasons = [(points.whole.positive == 0.0, "no_positive"), (points.whole.negative == 0.0, "no_negative")]
        return Reading(value, low, value, reasons, threshold)

    def open_at(self, points: Cumulated) -> Mask:
        """Return the bucket of each slice in which the recall is reached, if it holds both classes."""
        kept = _recalls(points) >= self.wanted
        first = np.zeros(len(points.slices), dtype=np.bool_)
        at = points.highest(kept)
        first[at[at >= 0]] = True
        return first & points.mixed
