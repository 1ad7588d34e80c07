"""Multi-class margin loss: how far each wrong candidate comes within a margin of the right one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval
from fastloss_kernels.double_double import divide_parts, rounded_sum, two_sum
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.listwise.sums import sum_parts
from fastloss_kernels.losses.base import ListwiseLoss


@formula
def row(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate Σ max(0, margin − s_y + s)^p/K over wrong candidates; at the kink the subgradient is 0."""
    margin, squared = parameters
    right = int(label[0])
    own = float(score[right])
    own = own if own > float("-inf") else float("-inf")
    count = 0
    active = 0
    for j in range(score.shape[0]):
        x = float(score[j])
        here = x > float("-inf")
        count += 1 if here else 0
        difference, lost = two_sum(x, -own)
        hi, margin_lost = two_sum(margin, difference)
        slack, lo = two_sum(hi, margin_lost + lost)
        infinite = difference == float("inf")
        slack = difference if infinite else slack
        lo = 0.0 if infinite else lo
        met = here & (j != right) & (slack > 0.0)
        active += 1 if met else 0
        square = slack * slack
        square_lo = fma(2.0 * slack, lo, fma(slack, slack, -square))
        square_lo = square_lo if square < float("inf") else 0.0
        gradient[j] = (square if squared != 0.0 else slack) if met else 0.0
        hessian[j] = (square_lo if squared != 0.0 else lo) if met else 0.0
    total, total_lo = sum_parts(gradient)
    rest, _ = sum_parts(hessian)
    divisor = float(count)
    value, value_lo = divide_parts(total, total_lo + rest, divisor, 0.0)
    if derivatives:
        for j in range(score.shape[0]):
            x = float(score[j])
            difference, lost = two_sum(x, -own)
            hi, margin_lost = two_sum(margin, difference)
            slack = hi + (margin_lost + lost)
            slack = difference if difference == float("inf") else slack
            met = (x > float("-inf")) & (j != right) & (slack > 0.0)
            slope = 2.0 * slack if squared != 0.0 else 1.0
            gradient[j] = divide(slope, divisor) if met else 0.0
            hessian[j] = divide(2.0, divisor) if met & (squared != 0.0) else 0.0
        total, total_lo = sum_parts(gradient)
        here = own > float("-inf")
        gradient[right] = -(total + total_lo) if here else 0.0
        hessian[right] = divide(2.0 * active, divisor) if here & (squared != 0.0) else 0.0
    return rounded_sum(value, value_lo)


@formula
def saturated(score, label, parameters):
    """Tell whether the loss is infinite: the right candidate is masked, or the score of a wrong one is infinite."""
    right = int(label[0])
    found = not float(score[right]) > float("-inf")
    for j in range(score.shape[0]):
        found |= (j != right) & (float(score[j]) == float("inf"))
    return found


@dataclass(frozen=True)
class MultiMargin(ListwiseLoss):
    """Sum over the wrong candidates of a list of max(0, margin − s_y + s)^p, divided by the number of candidates.

    The label is the index y of the right one. If that is masked, the loss is infinite.

    Parameters
    ----------
    p : int
        The power, 1 or 2.
    margin : float
        How far the right candidate's score is to be above the others, at least 0.
    """

    p: int = 1
    margin: float = 1.0

    name: ClassVar[str] = "multi_margin"
    aliases: ClassVar[tuple[str, ...]] = ("multi_margin_loss",)
    label_kind: ClassVar[str] = "index"
    label_range: ClassVar[Interval] = Interval(0.0, float("inf"), high_open=True)
    formulas = dict.fromkeys(("logit", "margin"), row)
    saturated = dict.fromkeys(("logit", "margin"), saturated)
    ranges = {"margin": Interval(0.0, 1e100)}
    definition = "Σ max(0, margin − s_y + s_j)^p/K over j ≠ y, K candidates; subgradient 0 at the kink"
    source = (
        "PyTorch, torch.nn.MultiMarginLoss; "
        "Weston and Watkins, Support vector machines for multi-class pattern recognition, ESANN (1999)"
    )

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if isinstance(self.p, bool) or self.p not in (1, 2):
            raise ValueError(f"{self.name}: p is {self.p!r}; allowed: 1 or 2.")

    @property
    def hessian(self) -> str:
        """Zero unless the shortfall is squared."""
        return "exact" if self.p == 2 else "zero"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return the margin, and whether its shortfall is squared."""
        return float(self.margin), float(self.p == 2)
