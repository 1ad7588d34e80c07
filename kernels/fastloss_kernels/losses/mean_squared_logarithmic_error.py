"""Mean squared logarithmic error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import Interval
from fastloss_kernels.double_double import log_ratio_parts, square, two_sum
from fastloss_kernels.jit import divide, formula
from fastloss_kernels.losses.base import Loss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate (log(1 + ŷ) − log(1 + y))² as the square of one logarithm, of (1 + ŷ)/(1 + y): see `log_ratio_parts`.

    Two logarithms would cancel where prediction and label agree.
    """
    top, top_lo = two_sum(1.0, score)
    bottom, bottom_lo = two_sum(1.0, label)
    difference, lost = two_sum(score, -label)
    infinite = (score == float("inf")) & (label == label)
    top_lo = 0.0 if infinite else top_lo
    lost = 0.0 if infinite else lost
    hi, lo = log_ratio_parts(top, top_lo, bottom, bottom_lo, difference, lost)
    logarithm = hi + lo
    slope = divide(2.0 * logarithm, top)
    curvature = divide(divide(2.0 * ((1.0 - hi) - lo), top), top)
    value = float("inf") if infinite else square(hi, lo)
    return value, 0.0 if infinite else slope, 0.0 if infinite else curvature


@dataclass(frozen=True)
class MeanSquaredLogarithmicError(Loss):
    """Squared difference of log(1 + ŷ) and log(1 + y); predictions and labels are above −1."""

    name: ClassVar[str] = "mean_squared_logarithmic_error"
    aliases: ClassVar[tuple[str, ...]] = ("msle", "mean_squared_log_error")
    label_range: ClassVar[Interval] = Interval(-1.0, float("inf"), low_open=True, high_open=True)
    formulas = {"value": row}
    is_nonnegative = True
    definition = "(log(1 + ŷ) − log(1 + y))²"
    source = "Tofallis, A better measure of relative prediction accuracy, J. Oper. Res. Soc. 66 (2015)"

    def prediction_range(self, space: str) -> Interval:
        """Return the numbers above −1."""
        return Interval(-1.0, float("inf"), low_open=True)
