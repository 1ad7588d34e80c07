"""Half squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, Interval
from fastloss_kernels.double_double import square, two_sum
from fastloss_kernels.jit import formula
from fastloss_kernels.losses.base import Loss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate ½(ŷ − y)² as 2·((ŷ − y)/2)², which overflows only where the result does."""
    difference, lost = two_sum(score, -label)
    return 2.0 * square(0.5 * difference, 0.5 * lost), difference, 1.0


@dataclass(frozen=True)
class HalfSquaredError(Loss):
    """Half the squared difference of prediction and label, in squared units of the label; its gradient is ŷ − y."""

    name: ClassVar[str] = "half_squared_error"
    label_range: ClassVar[Interval] = FINITE
    formulas = {"value": row, "prob": row}
    is_nonnegative = True
    definition = "½(ŷ − y)²"
    source = "Bishop, PRML (2006), eq. 5.14"
