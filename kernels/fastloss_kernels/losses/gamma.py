"""Gamma loss: the negative log-likelihood of a positive label whose spread grows with its mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import Interval, Row
from fastloss_kernels.double_double import divide_parts, log_of_positive_parts, rounded_sum, scaled_exp_parts, two_sum
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.losses.base import Loss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate y/ŷ + log ŷ, both terms with what their rounding loses."""
    infinite = (score == float("inf")) & (label == label)
    bounded = 1.0 if infinite else score
    ratio, ratio_lo = divide_parts(label, 0.0, bounded, 0.0)
    hi, lo = log_of_positive_parts(bounded, 0.0)
    total, lost = two_sum(ratio, hi)
    value = rounded_sum(total, lost + (ratio_lo + lo))
    gradient = divide(divide(bounded - label, bounded), bounded)
    curvature = fma(2.0, divide(label, bounded), -1.0)
    hessian = divide(divide(curvature, bounded), bounded)
    return score if infinite else value, 0.0 if infinite else gradient, 0.0 if infinite else hessian


@formula
def row_log(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate y·e^−x + x."""
    ratio, ratio_lo = scaled_exp_parts(label, -score, 0.0)
    total, lost = two_sum(score, ratio)
    value = rounded_sum(total, lost + ratio_lo)
    ratio += ratio_lo
    empty = (score == float("-inf")) & (label == label)
    return -score if empty else value, 1.0 - ratio, ratio


@dataclass(frozen=True)
class Gamma(Loss):
    """Negative log-likelihood of a label y > 0 under a gamma distribution of mean ŷ > 0, in nats.

    For shape 1 and without the terms that no prediction can change; another shape multiplies the loss.

    Parameters
    ----------
    log_input : bool
        Whether the prediction is log ŷ, any number, instead of ŷ.
    """

    log_input: bool = False

    name: ClassVar[str] = "gamma"
    aliases: ClassVar[tuple[str, ...]] = ("gamma_nll",)
    label_range: ClassVar[Interval] = Interval(0.0, float("inf"), low_open=True, high_open=True)
    definition = "y/ŷ + log ŷ; ŷ = eˣ if log_input"
    source = "McCullagh and Nelder, Generalized Linear Models (1989), section 8.3"

    @property
    def formulas(self) -> Mapping[str, Row]:
        """The formula of ŷ, or of log ŷ."""
        return {"value": row_log if self.log_input else row}

    def prediction_range(self, space: str) -> Interval:
        """Return the positive numbers, or every number for logarithms."""
        if self.log_input:
            return super().prediction_range(space)
        return Interval(0.0, float("inf"), low_open=True)
