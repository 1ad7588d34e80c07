"""A pointwise loss over list columns: each candidate is a row, and a list has the mean or the sum of its rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastloss_kernels.domain import SATURATION_EPSILON, Interval, ListRow, Row, RowTest
from fastloss_kernels.jit import divide, formula
from fastloss_kernels.listwise.sums import sum_parts
from fastloss_kernels.losses.base import ListwiseLoss, Loss


@functools.cache
def make_list_row(row: Row, mean: bool) -> ListRow:
    """Make the mean or the sum of a row formula over the unmasked candidates of a list."""

    @formula
    def list_row(score, label, parameters, scratch, gradient, hessian, derivatives):
        count = 0
        for j in range(score.shape[0]):
            x = float(score[j])
            value = row(x, float(label[j]), parameters)[0]
            gradient[j] = value if x == x else 0.0
            count += x == x
        total, lo = sum_parts(gradient)
        divisor = float(count) if mean else 1.0
        if derivatives:
            for j in range(score.shape[0]):
                x = float(score[j])
                _, slope, curvature = row(x, float(label[j]), parameters)
                gradient[j] = divide(slope, divisor) if x == x else 0.0
                hessian[j] = divide(curvature, divisor) if x == x else 0.0
        return divide(total + lo, divisor)

    return list_row


@functools.cache
def make_list_test(test: RowTest) -> Callable[..., bool]:
    """Make the test whether any unmasked candidate of a list passes a row test."""

    @formula
    def list_test(score, label, parameters):
        found = False
        for j in range(score.shape[0]):
            x = float(score[j])
            found |= test(x, float(label[j]), parameters) & (x == x)
        return found

    return list_test


@dataclass(frozen=True)
class OverLists(ListwiseLoss):
    """A pointwise loss of the candidates of each list.

    Parameters
    ----------
    loss : Loss
        A pointwise loss.
    list_reduction : {"row", "element"}
        The mean in the list, as Keras has it; or the sum, which an evaluation then divides by all candidates of all
        lists, as PyTorch has it.
    """

    loss: Loss
    list_reduction: str = "row"

    choices = {"list_reduction": ("row", "element")}

    def __post_init__(self) -> None:
        """Check that the loss is pointwise."""
        if not isinstance(self.loss, Loss) or self.loss.listwise:
            raise ValueError(f"OverLists: loss is {self.loss!r}; allowed: a pointwise loss, such as Hinge().")
        super().__post_init__()

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the loss."""
        return self.loss.name

    @property
    def full_name(self) -> str:
        """The full name of the loss."""
        return self.loss.full_name

    @property
    def definition(self) -> str:  # type: ignore[override]
        """The definition of the loss."""
        return self.loss.definition

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        """The trait of the loss."""
        return self.loss.differentiable

    @property
    def hessian(self) -> str:
        """The trait of the loss."""
        return self.loss.hessian

    @property
    def source(self) -> str:  # type: ignore[override]
        """The source of the loss."""
        return self.loss.source

    @property
    def label_domain(self) -> str:
        """The label domain of the loss."""
        return self.loss.label_domain

    @property
    def label_range(self) -> Interval:  # type: ignore[override]
        """The labels of the loss."""
        return self.loss.label_range

    @property
    def formulas(self) -> Mapping[str, ListRow]:
        """The loss's formulas, over lists."""
        mean = self.list_reduction == "row"
        return {space: make_list_row(row, mean) for space, row in self.loss.formulas.items()}

    @property
    def saturated(self) -> Mapping[str, Callable[..., Any]]:  # type: ignore[override]
        """The loss's tests, over lists."""
        return {space: make_list_test(test) for space, test in self.loss.saturated.items()}

    def lowest_score(self, space: str) -> float:
        """Return −∞, which is a prediction like others."""
        return float("-inf")

    def prediction_range(self, space: str) -> Interval:
        """Return the predictions of the loss."""
        return self.loss.prediction_range(space)

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return the parameters of the loss."""
        return self.loss.parameters(space, epsilon)
