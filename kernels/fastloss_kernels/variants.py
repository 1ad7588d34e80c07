"""Losses as other systems compute them near singular points, where they differ from the definition.

They stand in for the losses of the same name under a preset, and are not listed by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, SATURATION_EPSILON, Interval, Row
from fastloss_kernels.elementary import log
from fastloss_kernels.jit import divide, fma, formula, square_root
from fastloss_kernels.listwise.sums import sum_parts
from fastloss_kernels.losses.base import ListwiseLoss, Loss
from fastloss_kernels.losses.dice import Dice
from fastloss_kernels.losses.mean_squared_logarithmic_error import row as squared_logarithmic_row
from fastloss_kernels.losses.poisson import row as poisson_row
from fastloss_kernels.losses.poisson import row_full as poisson_row_full
from fastloss_kernels.losses.tversky import Tversky


@dataclass(frozen=True)
class Floored:
    """Base of losses with a floor."""

    floor: float

    label_range: ClassVar[Interval] = FINITE

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return the floor."""
        return (self.floor,)


@formula
def percentage_row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate |ŷ − y|/max(|y|, floor)."""
    floor = parameters[0]
    size = abs(label)
    divisor = floor if size < floor else size
    difference = score - label
    sign = (1.0 if difference > 0.0 else 0.0) - (1.0 if difference < 0.0 else 0.0)
    sign = sign if difference == difference else difference
    return divide(abs(difference), divisor), divide(sign, divisor), 0.0


@dataclass(frozen=True)
class FlooredPercentageError(Floored, Loss):
    """Mean absolute percentage error whose divisor is at least `floor`, so that a label may be 0."""

    name: ClassVar[str] = "mean_absolute_percentage_error"
    formulas = {"value": percentage_row}
    hessian = "zero"
    definition = "|ŷ − y|/max(|y|, floor)"


@formula
def floored_logarithmic_row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate the squared logarithmic error of max(ŷ, floor) and max(y, floor)."""
    floor = parameters[0]
    s = floor if score < floor else score
    y = floor if label < floor else label
    value, gradient, hessian = squared_logarithmic_row(s, y, parameters)
    below = score < floor
    return value, 0.0 if below else gradient, 0.0 if below else hessian


@dataclass(frozen=True)
class FlooredSquaredLogarithmicError(Floored, Loss):
    """Mean squared logarithmic error of predictions and labels that are raised to `floor`."""

    name: ClassVar[str] = "mean_squared_logarithmic_error"
    formulas = {"value": floored_logarithmic_row}
    definition = "(log(1 + max(ŷ, floor)) − log(1 + max(y, floor)))²"


@formula
def shifted_poisson_row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate ŷ − y·log(ŷ + shift)."""
    shifted = score + parameters[0]
    share = divide(label, shifted)
    product = label * log(shifted)
    return score - (0.0 if label == 0.0 else product), 1.0 - share, divide(share, shifted)


@formula
def floored_poisson_row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate ŷ − y·log ŷ of a rate that is raised to a floor."""
    floor = parameters[0]
    below = score < floor
    value, gradient, hessian = poisson_row(floor if below else score, label, parameters)
    return value, 0.0 if below else gradient, 0.0 if below else hessian


@formula
def floored_poisson_row_full(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate ŷ − y·log ŷ + log Γ(y + 1) of a rate that is raised to a floor."""
    floor = parameters[0]
    below = score < floor
    value, gradient, hessian = poisson_row_full(floor if below else score, label, parameters)
    return value, 0.0 if below else gradient, 0.0 if below else hessian


_POISSON_NEAR_ZERO: Mapping[str, Row] = {
    "shifted": shifted_poisson_row,
    "floored": floored_poisson_row,
    "floored_full": floored_poisson_row_full,
}


@dataclass(frozen=True)
class PoissonNearZero(Loss):
    """Poisson loss of a rate that may be 0: it is raised to a floor, or its logarithm is that of a larger one.

    Parameters
    ----------
    constant : float
        The floor of the rate, or what the rate is raised by inside the logarithm.
    form : {"shifted", "floored", "floored_full"}
        Which of them; the last adds log Γ(y + 1).
    """

    constant: float
    form: str

    name: ClassVar[str] = "poisson"
    label_range: ClassVar[Interval] = Interval(0.0, float("inf"), high_open=True)
    definition = "ŷ − y·log(ŷ + constant), or ŷ − y·log ŷ with ŷ at least the constant"

    @property
    def formulas(self) -> Mapping[str, Row]:
        """The formula of the form."""
        return {"value": _POISSON_NEAR_ZERO[self.form]}

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return the constant."""
        return (self.constant,)

    def prediction_range(self, space: str) -> Interval:
        """Return the numbers from 0."""
        return Interval(0.0, float("inf"))


@formula
def floored_norm(square: float, floor: float) -> float:
    """Compute a norm from its square, at least the floor."""
    norm = square_root(square)
    return floor if norm < floor else norm


@formula
def cosine_row(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate −Σt·s/(max(‖t‖, floor)·max(‖s‖, floor)); the norms count as constants in the derivatives."""
    floor = parameters[0]
    for j in range(score.shape[0]):
        x = float(score[j])
        gradient[j] = x * x if x == x else 0.0
        hessian[j] = float(label[j]) * float(label[j]) if x == x else 0.0
    square, lo = sum_parts(gradient)
    label_square, label_lo = sum_parts(hessian)
    for j in range(score.shape[0]):
        x = float(score[j])
        gradient[j] = x * float(label[j]) if x == x else 0.0
    dot, dot_lo = sum_parts(gradient)
    norm = floored_norm(square + lo, floor)
    label_norm = floored_norm(label_square + label_lo, floor)
    cosine = divide(divide(dot + dot_lo, norm), label_norm)
    if derivatives:
        for j in range(score.shape[0]):
            x = float(score[j])
            inside = norm > floor
            unit = divide(x, norm)
            along = divide(float(label[j]), label_norm)
            slope = divide(fma(cosine, unit, -along), norm) if inside else divide(-along, norm)
            curvature = divide(divide(fma(cosine, fma(-3.0 * unit, unit, 1.0), 2.0 * along * unit), norm), norm)
            gradient[j] = slope if x == x else 0.0
            hessian[j] = curvature if (x == x) & inside else 0.0
    return -cosine


@dataclass(frozen=True)
class FlooredCosineSimilarity(Floored, ListwiseLoss):
    """Negated cosine similarity whose norms are at least `floor`."""

    name: ClassVar[str] = "cosine_similarity"
    formulas = {"value": cosine_row}
    definition = "−Σ t·s/(max(‖t‖, floor)·max(‖s‖, floor))"


@dataclass(frozen=True)
class DenominatorSmoothedDice(Dice):
    """Dice loss with `smooth` in the denominator alone, so that it is 1 where labels and predictions are all 0."""

    definition = "1 − 2Σpt/(Σp + Σt + smooth)"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return what the Tversky loss reads, with half of what is added beside the misses."""
        return 0.5, 0.5, 0.0, 0.5 * self.smooth


@dataclass(frozen=True)
class DenominatorSmoothedTversky(Tversky):
    """Tversky loss with `smooth` in the denominator alone, so that it is 1 where labels and predictions are all 0."""

    definition = "1 − Σpt/(Σpt + alpha·Σp(1 − t) + beta·Σ(1 − p)t + smooth)"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return alpha and beta, and smooth beside the misses."""
        return float(self.alpha), float(self.beta), 0.0, float(self.smooth)
