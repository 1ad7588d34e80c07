"""Categorical hinge loss: the margin between the right candidates of a list and the strongest wrong one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import Interval
from fastloss_kernels.double_double import multiply_parts, two_sum
from fastloss_kernels.jit import fma, formula
from fastloss_kernels.losses.base import ListwiseLoss


@formula
def row(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate max(0, 1 + max (1 − y)·s − Σ y·s); the parameter tells whether a masked right candidate is −∞ or 0.

    Differences and products keep what rounding loses, so that the slack has all digits.
    """
    masked_score = parameters[0]
    wrong = float("-inf")
    wrong_lo = 0.0
    strongest = 0
    right = 0.0
    right_lo = 0.0
    for j in range(score.shape[0]):
        x = float(score[j])
        y = float(label[j])
        masked = not x > float("-inf")
        x = masked_score if masked else x
        rest, rest_lo = two_sum(1.0, -y)
        product, product_lo = multiply_parts(rest, x, 0.0)
        product_lo = fma(rest_lo, x, product_lo)
        product = 0.0 if rest == 0.0 else product
        product_lo = product_lo if abs(product) < float("inf") and rest != 0.0 else 0.0
        product = float("-inf") if masked else product
        stronger = product > wrong
        wrong = product if stronger else wrong
        wrong_lo = product_lo if stronger else wrong_lo
        strongest = j if stronger else strongest
        part, part_lo = multiply_parts(y, x, 0.0)
        part = 0.0 if y == 0.0 else part
        part_lo = part_lo if abs(part) < float("inf") and y != 0.0 else 0.0
        right, lost = two_sum(right, part)
        right_lo += lost + part_lo
    against, lost = two_sum(1.0, wrong)
    slack, slack_lost = two_sum(against, -right)
    lo = lost + slack_lost + (wrong_lo - right_lo)
    # The low word of an infinite number is NaN, and where one is half right and half wrong the loss is infinite.
    lo = lo if abs(slack) < float("inf") else 0.0
    slack = slack + lo if slack == slack else float("inf")
    active = slack > 0.0
    if derivatives:
        for j in range(score.shape[0]):
            y = float(label[j])
            slope = (1.0 - y if j == strongest else 0.0) - y
            counts = active and float(score[j]) > float("-inf")
            gradient[j] = slope if counts else 0.0
            hessian[j] = 0.0
    return slack if active else 0.0


@formula
def saturated(score, label, parameters):
    """Tell whether the loss is infinite: a right candidate is masked, or the score of a wrong one is infinite."""
    found = False
    for j in range(score.shape[0]):
        x = float(score[j])
        y = float(label[j])
        found |= ((y > 0.0) & (not x > float("-inf"))) | ((y < 1.0) & (x == float("inf")))
    return found


@dataclass(frozen=True)
class CategoricalHinge(ListwiseLoss):
    """How far the right candidates of a list fall short of the strongest wrong one plus a margin of 1.

    Labels are one-hot or soft, 0 to 1. As in Keras, the strongest wrong one is the maximum of (1 − y)·s over all
    candidates, so it is at least 0 where a candidate has the label 1. A masked right candidate makes the loss of
    margins infinite.
    """

    name: ClassVar[str] = "categorical_hinge"
    label_range: ClassVar[Interval] = Interval(0.0, 1.0)
    formulas = {"margin": row, "prob": row}
    hessian = "zero"
    saturated = {"margin": saturated}
    definition = "max(0, 1 + max (1 − y)·s − Σ y·s); the first of equal maxima has the gradient, 0 at the joint"
    source = "Crammer and Singer, Multiclass kernel-based vector machines, JMLR 2 (2001), section 3"

    def parameters(self, space: str, epsilon: float = 0.0) -> tuple[float, ...]:
        """Return the score of a masked candidate that is right."""
        return (0.0 if space == "prob" else float("-inf"),)
