"""L2 norm of the difference of two vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, Interval
from fastloss_kernels.double_double import square, two_sum
from fastloss_kernels.jit import divide, formula, square_root
from fastloss_kernels.listwise.sums import first_position, highest_score, sum_parts
from fastloss_kernels.listwise.vectors import power_of_two_of
from fastloss_kernels.losses.base import ListwiseLoss


@formula
def row(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate √Σd² with d = s − t, scaled to a largest element of about 1; gradient d/‖d‖, hessian (‖d‖² − d²)/‖d‖³.

    The largest square stays out of the sum, so that at its element the hessian's difference is a sum of squares too.
    """
    for j in range(score.shape[0]):
        hessian[j] = abs(float(score[j]) - float(label[j]))
    largest = highest_score(hessian)
    top = first_position(hessian, largest)
    scale = power_of_two_of(largest)
    for j in range(score.shape[0]):
        difference, lost = two_sum(float(score[j]), -float(label[j]))
        gradient[j] = square(difference * scale, lost * scale) if difference == difference else 0.0
    top_square = float(gradient[top])
    gradient[top] = 0.0
    rest, rest_lo = sum_parts(gradient)
    rest += rest_lo
    total = rest + top_square
    norm = square_root(total)
    if derivatives:
        for j in range(score.shape[0]):
            difference, lost = two_sum(float(score[j]), -float(label[j]))
            here = (difference == difference) & (total > 0.0)
            others = top_square + (rest - float(gradient[j]))
            others = rest if j == top else others
            slope = divide(difference * scale, norm)
            curvature = divide(others, total * norm) * scale
            gradient[j] = slope if here else 0.0
            hessian[j] = curvature if here else 0.0
    return divide(norm, scale)


@dataclass(frozen=True)
class L2Norm(ListwiseLoss):
    """Euclidean distance of the label's and the prediction's vector, without a square."""

    name: ClassVar[str] = "l2_norm"
    aliases: ClassVar[tuple[str, ...]] = ("euclidean_distance",)
    label_range: ClassVar[Interval] = FINITE
    formulas = {"value": row}
    definition = "√Σ(s − t)²; subgradient, and hessian, 0 where the vectors are equal"
    source = "Boyd and Vandenberghe, Convex optimization (2004), section A.1.2"
