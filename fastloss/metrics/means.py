"""Metrics that are quotients of sums over the log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastloss.metrics.base import (
    ANY_LABEL,
    MEAN_SPACES,
    PROBABILITY_SPACES,
    MetricValues,
    ModelFacts,
    PlainMetric,
    SliceStates,
)
from fastloss.metrics.conventions import LossEvaluation, RequestConventions
from fastloss.metrics.presets import Unit
from fastloss.metrics.quantities import (
    Candidates,
    InfiniteRows,
    Label,
    LossValue,
    Positives,
    PredictedMean,
    Rows,
    SaturatedRows,
    SaturatedWeight,
    Weight,
)
from fastloss.states.base import RowSet, StateSpec
from fastloss.states.counts import Count
from fastloss.states.sums import Sum
from fastloss_kernels.domain import Interval
from fastloss_kernels.elementwise import map_formula
from fastloss_kernels.exact_sum import ExactSums
from fastloss_kernels.information import binary_entropy
from fastloss_kernels.losses import BinaryCrossentropy, ListwiseLoss, Loss, MeanSquaredError
from fastloss_kernels.over_lists import OverLists


@dataclass(frozen=True)
class MeanLoss:
    """The weighted mean of a loss, Σw·l / Σw, or what another reduction makes of it.

    `sum` is Σw·l. `sum_over_batch_size` divides it by the number of rows, those of weight 0 too, and
    `sum_by_nonzero_weights` by that of the others. A pointwise loss of all candidates of lists counts candidates where
    others count rows, and its mean is Σw·l / Σw·n, n the candidates of a list.

    Of lists, some of which may lack what the loss needs, ``coverage`` is the share that those which are used hold of
    the unmasked candidates of all.
    """

    loss: Loss
    reduction: str = "mean"
    conventions: RequestConventions | None = None

    rounds_weights = True

    @property
    def name(self) -> str:
        """The loss's name with its changed parameters."""
        return self.loss.full_name

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces of the loss."""
        return tuple(self.loss.formulas)

    @property
    def definition(self) -> str:
        """The loss's formula."""
        return self.loss.definition

    def over_lists(self) -> bool:
        """Return whether the loss reads lists."""
        return isinstance(self.loss, ListwiseLoss)

    def label_range(self, space: str) -> Interval:
        """Return the labels of the loss, or of what stands in for it under the preset."""
        return self.loss.label_range if self.conventions is None else self.conventions.label_range(self.loss)

    def prediction_range(self, space: str) -> Interval:
        """Return the predictions of the loss, or of what stands in for it under the preset."""
        if self.conventions is None:
            return self.loss.prediction_range(space)
        return self.conventions.prediction_range(self.loss, space)

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the loss, its divisor and, where the loss can saturate, how much of it did."""
        evaluation = model.evaluation(self.loss)
        rows = model.rows(evaluation.needs)
        total = Sum(rows, LossValue(evaluation))
        others = (*_saturation(evaluation, model, rows), *_candidates(model, rows))
        return (*model.weight(rows), *self._divisors(model, rows), total, *others)

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Divide the two sums and round once, and once more into the unit of a preset."""
        model = states.model
        evaluation = model.evaluation(self.loss)
        rows = model.rows(evaluation.needs)
        n = states.count(rows)
        total: ExactSums = states[Sum(rows, LossValue(evaluation))]
        value = total / self._divisor(states, rows)
        if self._unit is not None:
            value = value / self._unit.size
        values = MetricValues(value, rows)
        self._add_evidence(values, states, evaluation)
        values.explain(n == 0, "no_rows", undefined=True)
        # No shipped loss is NaN on a good row. A custom one may be, where its formula is 0·∞.
        is_nan = (total.n_nan > 0) & (values.reason == 0)
        if is_nan.any():
            values.explain(is_nan, "nan_loss", undefined=True)
            values.evidence["n_nan"] = total.n_nan
            values.absent["n_nan"] = ~is_nan
        values.explain_infinite()
        return values

    def refine(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return nothing: one pass is enough."""
        return ()

    def sharpen(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return nothing: one pass is enough."""
        return ()

    def _add_evidence(self, values: MetricValues, states: SliceStates, evaluation: LossEvaluation) -> None:
        if self.reduction != "mean":
            values.evidence["reduction"] = self.reduction
        if isinstance(self.loss, OverLists):
            values.evidence["list_reduction"] = self.loss.list_reduction
        if self._unit is not None:
            values.evidence["unit"] = self._unit.name
        if evaluation.transform.ranked is not None and evaluation.transform.ranked.ties != "average":
            values.evidence["ties"] = evaluation.transform.ranked.ties
        if evaluation.saturated is not None:
            saturated = states[Count(values.rows, SaturatedRows(evaluation))]
            values.evidence["n_saturated"] = saturated
            if states.model.weighted:
                weight = states[Sum(values.rows, SaturatedWeight(evaluation))].to_float()
            else:
                weight = saturated.astype(np.float64)
            values.evidence["w_saturated"] = weight
            values.evidence["n_infinite"] = states[Count(values.rows, InfiniteRows(evaluation))]
        if counts := _candidates(states.model, values.rows):
            used, left_out = (states[spec] for spec in counts)
            values.evidence["coverage"] = used / (used + left_out)
            values.absent["coverage"] = used + left_out == 0

    @property
    def _unit(self) -> Unit | None:
        return None if self.conventions is None else self.conventions.unit(self.loss)

    @property
    def _by_element(self) -> bool:
        return isinstance(self.loss, OverLists) and self.loss.list_reduction == "element"

    def _divisors(self, model: ModelFacts, rows: RowSet) -> tuple[StateSpec, ...]:
        """Return what the sum is divided by, besides the weight: one sum, or counts that add up."""
        if self.reduction == "mean":
            return (Sum(rows, Candidates()),) if self._by_element else ()
        if self.reduction == "sum":
            return ()
        counted = Candidates() if self._by_element else Rows()
        if self.reduction == "sum_by_nonzero_weights":
            return (Count(rows, counted),)
        if not model.weighted:
            return (Count(rows, counted),)
        return (Count(rows, counted), Count(model.zero_weight_rows, counted))

    def _divisor(self, states: SliceStates, rows: RowSet) -> ExactSums:
        divisors = self._divisors(states.model, rows)
        if self.reduction == "mean":
            if not divisors:
                return states.weight(rows)
            candidates: ExactSums = states[divisors[0]]
            return candidates
        if not divisors:
            return ExactSums.from_counts(np.ones(states.n_slices, dtype=np.int64))
        return ExactSums.from_counts(np.sum([states[spec] for spec in divisors], axis=0, dtype=np.int64))


def _saturation(evaluation: LossEvaluation, model: ModelFacts, rows: RowSet) -> tuple[StateSpec, ...]:
    if evaluation.saturated is None:
        return ()
    weight = (Sum(rows, SaturatedWeight(evaluation)),) if model.weighted else ()
    return (Count(rows, SaturatedRows(evaluation)), *weight, Count(rows, InfiniteRows(evaluation)))


def _candidates(model: ModelFacts, rows: RowSet) -> tuple[StateSpec, ...]:
    """Return the candidates of the lists that are used, and of those that lack what the loss needs, if lists may."""
    if not model.lists or rows.needs == ("candidate",):
        return ()
    return Count(rows, Candidates()), Count(model.left_out(rows), Candidates())


@dataclass(frozen=True)
class RootMeanSquaredError(PlainMetric):
    """The square root of the mean squared error."""

    name = "root_mean_squared_error"
    spaces = ("value", "prob")
    definition = "√(Σw·(ŷ − y)² / Σw)"

    def label_range(self, space: str) -> Interval:
        """Return the labels of the squared error."""
        return ANY_LABEL

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the squared error and the weight."""
        return MeanLoss(MeanSquaredError()).states(model)

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Take the square root of the rounded mean."""
        values = MeanLoss(MeanSquaredError()).evaluate(states)
        values.value = np.sqrt(values.value)
        return values


@dataclass(frozen=True)
class NormalizedEntropy(PlainMetric):
    """Log loss divided by the entropy of the base rate of the same rows and weights.

    References
    ----------
    He et al., Practical lessons from predicting clicks on ads at Facebook, ADKDD 2014, section 3.
    """

    complement: bool = False

    spaces = PROBABILITY_SPACES

    @property
    def name(self) -> str:
        """Its own name, or that of its complement, the relative information gain."""
        return "relative_information_gain" if self.complement else "normalized_entropy"

    @property
    def definition(self) -> str:
        """The formula."""
        quotient = "log_loss / entropy(Σw·y / Σw)"
        return f"1 − {quotient}" if self.complement else quotient

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return what log loss needs, and the labels."""
        return (*MeanLoss(BinaryCrossentropy()).states(model), Sum(model.rows(), Label()))

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Divide the mean log loss by the base rate's entropy."""
        values = MeanLoss(BinaryCrossentropy()).evaluate(states)
        label: ExactSums = states[Sum(values.rows, Label())]
        weight = states.weight(values.rows)
        # A mean that is not defined keeps its own reason.
        values.explain((label.is_zero | (label == weight)) & ~values.undefined, "one_class", undefined=True)
        rate, rest = label / weight, (weight - label) / weight
        defined = np.flatnonzero(~values.undefined)
        entropy = np.full(states.n_slices, np.nan)
        entropy[defined] = map_formula(binary_entropy, rate[defined], rest[defined])
        with np.errstate(all="ignore"):
            quotient = values.value / entropy
            values.value = 1.0 - quotient if self.complement else quotient
        return values


@dataclass(frozen=True)
class SumQuotient(PlainMetric):
    """The quotient of two sums, rounded once."""

    name: str
    numerator: Label | PredictedMean
    denominator: Label | PredictedMean | Weight
    definition: str
    spaces: tuple[str, ...] = MEAN_SPACES

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return both sums."""
        rows = model.rows()
        below = () if isinstance(self.denominator, Weight) else (Sum(rows, self.denominator),)
        return (*model.weight(rows), Sum(rows, self.numerator), *below)

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Divide the two sums."""
        rows = states.model.rows()
        above: ExactSums = states[Sum(rows, self.numerator)]
        below: ExactSums
        below = states.weight(rows) if isinstance(self.denominator, Weight) else states[Sum(rows, self.denominator)]
        values = MetricValues(above / below, rows)
        values.explain(states.count(rows) == 0, "no_rows", undefined=True)
        values.explain(below.is_finite & below.is_zero, f"zero_{_WORDS[type(self.denominator)]}", undefined=True)
        values.explain_infinite()
        return values


@dataclass(frozen=True)
class ClickThroughRate(SumQuotient):
    """The mean label; of binary labels, ``n_positive`` says how many rows are above 0."""

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return both sums, and the count of positives."""
        positives = () if model.space == "value" else (Count(model.rows(), Positives()),)
        return (*super().states(model), *positives)

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Divide the two sums."""
        values = super().evaluate(states)
        if states.model.space != "value":
            values.evidence["n_positive"] = states[Count(values.rows, Positives())]
        return values


_WORDS = {Label: "label", PredictedMean: "prediction", Weight: "weight"}

CTR = ClickThroughRate("ctr", Label(), Weight(), "Σw·y / Σw", (*MEAN_SPACES, "margin", "score"))
MEAN_PREDICTION = SumQuotient("mean_prediction", PredictedMean(), Weight(), "Σw·ŷ / Σw, ŷ = σ(x) for logits")
CALIBRATION = SumQuotient("calibration", PredictedMean(), Label(), "Σw·ŷ / Σw·y")
COPC = SumQuotient("copc", Label(), PredictedMean(), "Σw·y / Σw·ŷ: clicks over predicted clicks")
