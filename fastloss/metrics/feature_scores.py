"""The sums behind the gradient with respect to features."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from fastloss.metrics.base import MetricValues, ModelFacts, PlainMetric, SliceStates
from fastloss.metrics.conventions import InputTransform, LossEvaluation
from fastloss.metrics.quantities import FeatureDerivatives, LossGradient, LossHessian, Rows, SquaredGradient
from fastloss.states.base import RowSet, StateSpec
from fastloss.states.categories import CategorySums
from fastloss.states.products import FeatureProducts, FeatureProductSums
from fastloss.states.sums import Sum
from fastloss_kernels.domain import Interval
from fastloss_kernels.exact_sum import ExactSums
from fastloss_kernels.inverse_links import make_logprob_row_by_logit, make_prob_row_by_logit, make_row_by_logit
from fastloss_kernels.losses import Loss


def by_logit(space: str) -> bool:
    """Tell whether the predictions of a space are probabilities, so that a linear layer is one of their logits."""
    return space in ("prob", "logprob")


@dataclass(frozen=True)
class FeatureScores(PlainMetric):
    """The derivatives of a loss by the weights of a linear layer over features, z = w·x + b.

    Where predictions are probabilities or their logarithms, z is the logit. The value is the derivative of the
    mean loss by the bias, Σw·g / Σw, which every slice has. The sums over features are of all rows together.

    Attributes
    ----------
    loss : Loss
        The loss.
    features : tuple of str
        Columns of numbers, or of lists of numbers of one length.
    lists : tuple of str
        Those of them that hold lists.
    sets : tuple of str
        Columns of lists of categories.
    diagonal : bool
        Whether to leave out the curvatures of pairs of features.
    """

    loss: Loss
    features: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    diagonal: bool = False

    definition = "Σw·g / Σw, g = ∂loss/∂prediction"

    @property
    def name(self) -> str:
        """The loss and the features."""
        return f"gradient of {self.loss.full_name} ({', '.join((*self.features, *self.sets))})"

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces of the loss."""
        return tuple(self.loss.formulas)

    def label_range(self, space: str) -> Interval:
        """Return the labels of the loss."""
        return self.loss.label_range

    def prediction_range(self, space: str) -> Interval:
        """Return the predictions of the loss."""
        return self.loss.prediction_range(space)

    def evaluation(self, model: ModelFacts) -> LossEvaluation:
        """Return the loss as it is computed, its derivatives by the logit where predictions are probabilities."""
        found = model.evaluation(self.loss)
        if not by_logit(model.space):
            return found
        row = self.loss.formulas.get("logit")
        if row is None:
            return dataclasses.replace(found, formula=make_row_by_logit(found.formula))
        make = make_prob_row_by_logit if model.space == "prob" else make_logprob_row_by_logit
        # A logit is infinite where a loss of probabilities is clipped, and the gradient by it is bounded.
        parameters, transform = self.loss.parameters("logit"), InputTransform()
        return dataclasses.replace(found, formula=make(row), parameters=parameters, transform=transform)

    def products(self, model: ModelFacts) -> FeatureProducts:
        """Return the sums over features."""
        derivatives = FeatureDerivatives(self.evaluation(model), self.features)
        widths = tuple(0 if name in self.lists else 1 for name in self.features)
        return FeatureProducts(self.rows(model), derivatives, widths, self.diagonal)

    def sharpen(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return the sums over features less their means, if some vary too little beside them."""
        spec = self.products(states.model)
        found: FeatureProductSums = states[spec]
        offsets = found.offsets()
        if not offsets:
            return ()
        return (dataclasses.replace(spec, widths=tuple(found.widths.tolist()), offsets=offsets),)

    def rows(self, model: ModelFacts) -> RowSet:
        """Return the rows that are used."""
        return model.rows()

    def gradient(self, model: ModelFacts) -> Sum:
        """Return Σ w·g."""
        return Sum(self.rows(model), LossGradient(self.evaluation(model)))

    def curvature(self, model: ModelFacts) -> Sum:
        """Return Σ w·h."""
        return Sum(self.rows(model), LossHessian(self.evaluation(model)))

    def square(self, model: ModelFacts) -> Sum:
        """Return Σ (w·g)²."""
        return Sum(self.rows(model), SquaredGradient(self.evaluation(model)))

    def categories(self, model: ModelFacts, column: str) -> CategorySums:
        """Return the sums by the categories of a column of lists."""
        evaluation = self.evaluation(model)
        quantities = (LossGradient(evaluation), LossHessian(evaluation), SquaredGradient(evaluation))
        return CategorySums(self.rows(model), column, quantities, Rows())

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the sums of each slice, and those over features."""
        sums = (self.gradient(model), self.curvature(model), self.square(model))
        sets = (self.categories(model, column) for column in self.sets)
        return (*model.weight(self.rows(model)), *sums, self.products(model), *sets)

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Divide the sum of gradients by the weight."""
        rows = self.rows(states.model)
        total: ExactSums = states[self.gradient(states.model)]
        values = MetricValues(total / states.weight(rows), rows)
        values.explain(states.count(rows) == 0, "no_rows", undefined=True)
        values.explain_infinite()
        return values
