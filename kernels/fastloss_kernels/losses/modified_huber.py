"""Modified Huber loss of a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.double_double import square
from fastloss_kernels.jit import formula
from fastloss_kernels.losses.base import BinaryLoss
from fastloss_kernels.losses.squared_hinge import slack_parts


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate max(0, 1 − z)² for z = t·s ≥ −1 and −4·z below, t = 2y − 1.

    The second derivative at z = 1 is 0, the flat side's; at z = −1 it is 2t², the square's.
    """
    sign, slack, lo = slack_parts(score, label)
    active = slack > 0.0
    far = (slack > 2.0) | ((slack == 2.0) & (lo > 0.0))
    near_value = square(slack, lo)
    far_value = -4.0 * (sign * score)
    value = far_value if far else near_value
    near_gradient = -2.0 * sign * slack
    far_gradient = -4.0 * sign
    gradient = far_gradient if far else near_gradient
    hessian = 2.0 * sign * sign
    hessian = 0.0 if far else hessian
    # Written so that NaN stays NaN.
    value = 0.0 if slack <= 0.0 else value
    return value, (gradient if active else 0.0), (hessian if active else 0.0)


@dataclass(frozen=True)
class ModifiedHuber(BinaryLoss):
    """Squared hinge loss with a straight line for margins below −1; labels 0 and 1 count as −1 and +1."""

    name: ClassVar[str] = "modified_huber"
    formulas = {"margin": row, "logit": row}
    is_nonnegative = True
    definition = (
        "max(0, 1 − z)² if z ≥ −1, else −4·z, z = t·s, t = 2y − 1; second derivative 0 at z = 1, 2t² at z = −1"
    )
    source = "Zhang, Solving large scale linear prediction problems using SGD algorithms, ICML (2004)"
