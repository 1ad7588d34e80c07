"""The words that formulas and loops share: the types of formulas, the spaces of predictions, ranges of values."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import NamedTuple

# Pointwise: row(score, label, parameters) -> (value, gradient, hessian), and test(score, label, parameters) -> bool.
Row = Callable[..., tuple[float, float, float]]
RowTest = Callable[..., bool]
# Listwise: list_row(score, label, parameters, scratch, gradient, hessian, derivatives) -> value. Score and label are
# float64 slices of one list of n candidates. Gradient and hessian have the shape (n,): they are scratch, and hold
# results only if derivatives is true. Scratch has the loss's `n_scratch` rows or more, each of n elements or more.
ListRow = Callable[..., float]
# list_test(score, label, parameters) -> bool.
ListTest = Callable[..., bool]

# Spaces a prediction column may be declared in, with the closed interval of its values.
SPACES: dict[str, tuple[float, float]] = {
    "logit": (float("-inf"), float("inf")),
    "prob": (0.0, 1.0),
    "logprob": (float("-inf"), 0.0),
    "margin": (float("-inf"), float("inf")),
    "value": (float("-inf"), float("inf")),
    "score": (float("-inf"), float("inf")),
}
# A score is an order and nothing else, so no loss reads one.
LOSS_SPACES = tuple(space for space in SPACES if space != "score")

# How near to an impossible outcome a probability may come before its loss is clipped (TorchRec's η): float32
# probabilities are not distorted, since their smallest distance from 1 is 6e-8.
SATURATION_EPSILON = 1e-12

# While all predictions lie in here, none rules out an outcome, and no row need be tested for saturation.
UNSATURATED: dict[str, tuple[float, float]] = {
    "logit": (-sys.float_info.max, sys.float_info.max),
    "prob": (2e-12, 1.0 - 2e-12),
    "logprob": (-26.0, -2e-12),
    "margin": (-sys.float_info.max, sys.float_info.max),
}


class Interval(NamedTuple):
    """A range of allowed values; `without_zero` leaves out 0, where a loss divides by the label."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False
    without_zero: bool = False

    def __contains__(self, value: object) -> bool:
        """Tell whether a number lies in the range; NaN never does."""
        if not isinstance(value, (int, float)):
            return False
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and not (self.without_zero and value == 0)

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest float64 in the range."""
        low = math.nextafter(self.low, math.inf) if self.low_open else self.low
        high = math.nextafter(self.high, -math.inf) if self.high_open else self.high
        return low, high

    def describe(self, name: str) -> str:
        """Say the range as an inequality."""
        if self.without_zero:
            return f"{self._replace(without_zero=False).describe(name)} other than 0"
        left = "<" if self.low_open else "<="
        right = "<" if self.high_open else "<="
        if self.low == float("-inf") and self.high == float("inf"):
            return f"{name} is a number"
        if self.high == float("inf"):
            return f"{name} {'>' if self.low_open else '>='} {self.low:g}"
        return f"{self.low:g} {left} {name} {right} {self.high:g}"


FINITE = Interval(float("-inf"), float("inf"), low_open=True, high_open=True)
