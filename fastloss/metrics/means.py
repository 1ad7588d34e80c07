"""Metrics that are quotients of sums over the log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fastloss.metrics.form import (
    ANY_LABEL,
    BINARY_LABEL,
    CANDIDATES,
    LABEL,
    PREDICTION,
    ROWS,
    USED_CANDIDATES,
    WEIGHT,
    ZERO_WEIGHT_CANDIDATES,
    ZERO_WEIGHT_ROWS,
    Metric,
    Reading,
    Sums,
    Term,
)
from fastloss.metrics.presets import Preset, Reduction
from fastloss_kernels.domain import SPACES, Interval
from fastloss_kernels.elementary import log, log1p
from fastloss_kernels.exact_sum import ExactSum
from fastloss_kernels.losses import BinaryCrossentropy, Loss, MeanSquaredError
from fastloss_kernels.over_lists import OverLists

PROBABILITY_SPACES = ("logit", "prob", "logprob")
MEAN_SPACES = (*PROBABILITY_SPACES, "value")


@dataclass(frozen=True)
class MeanLoss:
    """The weighted mean of a loss, Σw·l / Σw, or what another reduction makes of it.

    `sum` is Σw·l; `sum_over_batch_size` divides it by the number of rows, those of weight 0 too, and
    `sum_by_nonzero_weights` by that of the others. A pointwise loss of all candidates of lists counts candidates where
    others count rows, and its mean is Σw·l / Σw·n, n the candidates of a list.
    """

    loss: Loss
    reduction: Reduction = "mean"
    preset: Preset | None = None

    @property
    def label(self) -> str:
        """The loss's name with its changed parameters."""
        return self.loss.full_name

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces of the loss."""
        return tuple(self.loss.formulas)

    def label_range(self, space: str) -> Interval:
        """Return the labels of the loss, or of what stands in for it under the preset."""
        return self._form.label_range

    @property
    def description(self) -> str:
        """The loss's formula."""
        return self.loss.definition

    def prediction_range(self, space: str) -> Interval:
        """Return the predictions of the loss, or of what stands in for it under the preset."""
        return self._form.prediction_range(space)

    def terms(self, space: str) -> tuple[Term, ...]:
        """Return the loss, the weight and, where the loss can saturate in this space, how much did."""
        terms = (*dict.fromkeys((WEIGHT, *self._divisors)), Term("loss", self.loss))
        return (*terms, *_saturation(self.loss)) if space in self.loss.saturated else terms

    def read(self, sums: Sums) -> Reading:
        """Divide the two sums and round once, and once more into the unit of a preset."""
        evidence: dict[str, float | int | str] = {}
        if self.reduction != "mean":
            evidence["reduction"] = self.reduction
        if isinstance(self.loss, OverLists):
            evidence["list_reduction"] = self.loss.list_reduction
        unit = None if self.preset is None else self.preset.units.get(self.loss.name)
        if unit is not None:
            evidence["unit"] = unit.name
        if sums.space in self.loss.saturated:
            rows, weight, infinite = _saturation(self.loss)
            evidence["n_saturated"] = sums.count(rows)
            evidence["w_saturated"] = float(sums[weight])
            evidence["n_infinite"] = sums.count(infinite)
        if sums.n == 0:
            return Reading(None, "no_rows", evidence)
        if self.reduction == "mean":
            divisor = sums[self._divisors[0]]
        else:
            divisor = ExactSum.from_count(sum(map(sums.count, self._divisors)) if self._divisors else 1)
        total = sums[Term("loss", self.loss)]
        if total.n_nan:
            # No shipped loss is NaN on a good row; an own one may be, where its formula is 0·∞.
            return Reading(None, "nan_loss", {**evidence, "n_nan": total.n_nan})
        value = total / divisor
        return _finite(value if unit is None else value / unit.size, evidence)

    @property
    def _form(self) -> Loss:
        return self.loss if self.preset is None else self.preset.form(self.loss)

    @property
    def _divisors(self) -> tuple[Term, ...]:
        """What the sum is divided by: one sum, or counts that add up."""
        by_element = isinstance(self.loss, OverLists) and self.loss.list_reduction == "element"
        if self.reduction == "mean":
            return (CANDIDATES if by_element else WEIGHT,)
        if self.reduction == "sum_by_nonzero_weights":
            return (USED_CANDIDATES if by_element else ROWS,)
        if self.reduction == "sum_over_batch_size":
            return (USED_CANDIDATES, ZERO_WEIGHT_CANDIDATES) if by_element else (ROWS, ZERO_WEIGHT_ROWS)
        return ()


def _saturation(loss: Loss) -> tuple[Term, Term, Term]:
    return Term("saturated_rows", loss), Term("saturated_weight", loss), Term("infinite_rows", loss)


def _finite(value: float, evidence: Mapping[str, float | int | str] | None = None) -> Reading:
    """Return a quotient of sums as a reading, with the reason where some term is infinite."""
    if math.isfinite(value):
        return Reading(value, None, evidence or {})
    return Reading(None if math.isnan(value) else value, "infinite_terms", evidence or {})


class _WholeSpace:
    """A metric that accepts whatever its prediction's space holds, and the labels that go with it."""

    def label_range(self, space: str) -> Interval:
        """Return 0 to 1 where predictions are of a binary label, else any number."""
        return ANY_LABEL if space == "value" else BINARY_LABEL

    def prediction_range(self, space: str) -> Interval:
        """Return the whole space."""
        return Interval(*SPACES[space])


@dataclass(frozen=True)
class RootMeanSquaredError(_WholeSpace):
    """The square root of the mean squared error."""

    label = "root_mean_squared_error"
    spaces = ("value", "prob")
    description = "√(Σw·(ŷ − y)² / Σw)"

    def label_range(self, space: str) -> Interval:
        """Return the labels of the squared error."""
        return ANY_LABEL

    def terms(self, space: str) -> tuple[Term, ...]:
        """Return the squared error and the weight."""
        return MeanLoss(MeanSquaredError()).terms(space)

    def read(self, sums: Sums) -> Reading:
        """Take the square root of the rounded mean."""
        mean = MeanLoss(MeanSquaredError()).read(sums)
        return mean if mean.value is None else Reading(math.sqrt(mean.value), mean.reason)


def _entropy(positive: ExactSum, weight: ExactSum) -> float:
    """Compute −c·log c − (1 − c)·log(1 − c) of the base rate c, in nats."""
    rate = positive / weight
    rest = ExactSum(weight.units - positive.units) / weight
    # The logarithm of the larger side is taken through the smaller one, which keeps more digits.
    log_rate = log(rate) if rate < 0.5 else log1p(-rest)
    log_rest = log(rest) if rest < 0.5 else log1p(-rate)
    return -(rate * log_rate + rest * log_rest)


@dataclass(frozen=True)
class NormalizedEntropy(_WholeSpace):
    """Log loss divided by the entropy of the base rate of the same rows and weights.

    References
    ----------
    He et al., Practical lessons from predicting clicks on ads at Facebook, ADKDD 2014, section 3.
    """

    complement: bool = False

    spaces = PROBABILITY_SPACES

    @property
    def label(self) -> str:
        """Its own name, or that of its complement, the relative information gain."""
        return "relative_information_gain" if self.complement else "normalized_entropy"

    @property
    def description(self) -> str:
        """The formula."""
        quotient = "log_loss / entropy(Σw·y / Σw)"
        return f"1 − {quotient}" if self.complement else quotient

    def terms(self, space: str) -> tuple[Term, ...]:
        """Return what log loss needs, and the labels."""
        return (*MeanLoss(BinaryCrossentropy()).terms(space), LABEL)

    def read(self, sums: Sums) -> Reading:
        """Divide the mean log loss by the base rate's entropy."""
        mean = MeanLoss(BinaryCrossentropy()).read(sums)
        if mean.value is None:
            return mean
        if sums[LABEL].units in (0, sums[WEIGHT].units):
            return Reading(None, "one_class", mean.evidence)
        quotient = mean.value / _entropy(sums[LABEL], sums[WEIGHT])
        return Reading(1.0 - quotient if self.complement else quotient, mean.reason, mean.evidence)


@dataclass(frozen=True)
class SumQuotient(_WholeSpace):
    """The quotient of two sums, rounded once."""

    label: str
    numerator: Term
    denominator: Term
    description: str
    spaces: tuple[str, ...] = MEAN_SPACES

    def terms(self, space: str) -> tuple[Term, ...]:
        """Return both sums."""
        return (self.numerator, self.denominator)

    def read(self, sums: Sums) -> Reading:
        """Divide the two sums."""
        if sums.n == 0:
            return Reading(None, "no_rows")
        denominator = sums[self.denominator]
        if denominator.is_finite and denominator.units == 0:
            return Reading(None, f"zero_{self.denominator.quantity}")
        return _finite(sums[self.numerator] / denominator)


MEAN_METRICS: tuple[Metric, ...] = (
    RootMeanSquaredError(),
    NormalizedEntropy(),
    NormalizedEntropy(complement=True),
    SumQuotient("ctr", LABEL, WEIGHT, "Σw·y / Σw", (*MEAN_SPACES, "margin")),
    SumQuotient("mean_prediction", PREDICTION, WEIGHT, "Σw·ŷ / Σw, ŷ = σ(x) for logits"),
    SumQuotient("calibration", PREDICTION, LABEL, "Σw·ŷ / Σw·y"),
    SumQuotient("copc", LABEL, PREDICTION, "Σw·y / Σw·ŷ: clicks over predicted clicks"),
)
ALIASES = {
    "rmse": "root_mean_squared_error",
    "ne": "normalized_entropy",
    "rig": "relative_information_gain",
}
