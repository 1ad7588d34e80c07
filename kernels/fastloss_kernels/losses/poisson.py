"""Poisson loss: the negative log-likelihood of a count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import Interval, Row
from fastloss_kernels.double_double import (
    divide_parts,
    log1p_unit_parts,
    log_of_positive_parts,
    multiply_parts,
    rounded_sum,
    two_sum,
)
from fastloss_kernels.elementary import (
    ONE_MINUS_EULER_HIGH,
    ONE_MINUS_EULER_LOW,
    exp,
    lgamma_2_tail,
    log_tail,
    stirling_tail,
)
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.losses.base import Loss

HALF_LOG_2PI = 0.9189385332046727
# Beyond it, sums and products are scaled down.
LARGE = 2.0**1000


@formula
def derivatives(score: float, label: float) -> tuple[float, float]:
    """Compute 1 − y/ŷ and y/ŷ²."""
    gradient = divide(score - label, score)
    return 1.0 if score == float("inf") else gradient, divide(divide(label, score), score)


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate ŷ − y·log ŷ, the product with what its rounding loses."""
    infinite = score == float("inf")
    hi, lo = log_of_positive_parts(1.0 if infinite else score, 0.0)
    value = value_without_constant(score, hi, lo, label)
    gradient, hessian = derivatives(score, label)
    return value, gradient, hessian


@formula
def row_log(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate eˣ − y·x."""
    rate = exp(score)
    value = value_without_constant(rate, score, 0.0, label)
    return value, rate - label, rate


@formula
def row_full(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate ŷ − y·log ŷ + log Γ(y + 1)."""
    infinite = score == float("inf")
    hi, lo = log_of_positive_parts(1.0 if infinite else score, 0.0)
    value = value_with_constant(score, hi, lo, label)
    gradient, hessian = derivatives(score, label)
    return value, gradient, hessian


@formula
def row_log_full(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate eˣ − y·x + log Γ(y + 1)."""
    rate = exp(score)
    value = value_with_constant(rate, score, 0.0, label)
    return value, rate - label, rate


@formula
def value_without_constant(rate: float, log_hi: float, log_lo: float, label: float) -> float:
    """Compute rate − y·log(rate)."""
    product, product_lo = multiply_parts(label, log_hi, log_lo)
    # An infinite logarithm times a label of 0.
    product = 0.0 if label == 0.0 else product
    product_lo = 0.0 if label == 0.0 else product_lo
    total, lost = two_sum(rate, -product)
    value = rounded_sum(total, lost - product_lo)
    # The rate outgrows its logarithm.
    endless = (rate == float("inf")) & (label == label)
    return rate if endless else value


@formula
def value_with_constant(rate: float, log_hi: float, log_lo: float, label: float) -> float:
    """Compute rate − y·log(rate) + log Γ(y + 1).

    For y above 5/2 the three terms, large and of both signs, become three of one sign (Loader, "Fast and accurate
    computation of binomial probabilities", 2000): half the deviance D = rate − y − y·log(rate/y), ½·log(2πy) and the
    rest of Stirling's series. Where rate and y are near, D = s·(rate − y − y·t), s = (rate − y)/(rate + y), with
    t = (2·atanh(s) − 2s)/s.
    """
    below = label <= 2.5
    small_label = label if below else 0.0
    below_value = value_without_constant(rate, log_hi, log_lo, small_label) + log_factorial(small_label)

    y = 3.0 if below else label
    hi, lo = log_of_positive_parts(y, 0.0)
    inverse = divide(1.0, y)
    # The deviance is as much smaller for both numbers shrunk, and their sum does not overflow.
    huge = (rate > LARGE) | (y > LARGE)
    shrink = 2.0**-16 if huge else 1.0
    rate_given = rate
    rate *= shrink
    y *= shrink
    difference, lost = two_sum(rate, -y)
    total, total_lost = two_sum(rate, y)
    s, s_lo = divide_parts(difference, lost, total, total_lost)
    z = s * s
    near = abs(s) < 0.15
    bent, bent_lost = two_sum(difference, -y * log_tail(z if near else 0.0))
    bent_lost += lost
    near_deviance = fma(s, bent, fma(s, bent_lost, s_lo * bent))

    ratio, ratio_lost = two_sum(log_hi, -hi)
    ratio_lo = ratio_lost + (log_lo - lo)
    product, product_lo = multiply_parts(y, ratio, ratio_lo)
    far, far_lost = two_sum(difference, -product)
    far_deviance = rounded_sum(far, far_lost + (lost - product_lo))
    deviance = near_deviance if near else far_deviance
    deviance *= 2.0**16 if huge else 1.0

    x = inverse * inverse
    q = stirling_tail(x)
    constant = fma(0.5, hi, HALF_LOG_2PI) + fma(inverse, q, 0.5 * lo)
    above_value = deviance + constant
    value = below_value if below else above_value
    # A label that is NaN is not below, and its logarithm no longer shows it.
    value = value if label == label else label
    endless = (rate_given == float("inf")) & (label == label)
    return rate_given if endless else value


@formula
def log_factorial(y: float) -> float:
    """Compute log Γ(1 + y) for 0 ≤ y ≤ 5/2 from log Γ(2 + w) = (1 − γ)·w + w²·Q(w), near its zeros 0 and 1 as well."""
    first = y <= 0.5
    last = y > 1.5
    less = y - 1.0
    much_less = y - 2.0
    w = y if first else less
    w = much_less if last else w
    t = y if first else 0.0
    t = less if last else t
    hi, lo = log1p_unit_parts(t, 0.0)
    sign = -1.0 if first else 1.0
    q = lgamma_2_tail(w)
    return fma(w, ONE_MINUS_EULER_HIGH, sign * hi) + fma(w * w, q, fma(w, ONE_MINUS_EULER_LOW, sign * lo))


@dataclass(frozen=True)
class Poisson(Loss):
    """Negative log-likelihood of a count y ≥ 0 under a predicted rate ŷ > 0, in nats.

    Parameters
    ----------
    log_input : bool
        Whether the prediction is log ŷ, any number, instead of ŷ.
    full : bool
        Whether log Γ(y + 1) is added, which no prediction can change.
    """

    log_input: bool = False
    full: bool = False

    name: ClassVar[str] = "poisson"
    aliases: ClassVar[tuple[str, ...]] = ("poisson_nll", "poisson_nll_loss")
    label_range: ClassVar[Interval] = Interval(0.0, float("inf"), high_open=True)
    definition = "ŷ − y·log ŷ, and log Γ(y + 1) if full; ŷ = eˣ if log_input"
    source = "McCullagh and Nelder, Generalized Linear Models (1989), section 2.2"

    @property
    def formulas(self) -> Mapping[str, Row]:
        """The formula of ŷ, or of log ŷ, with or without the constant."""
        if self.log_input:
            return {"value": row_log_full if self.full else row_log}
        return {"value": row_full if self.full else row}

    def prediction_range(self, space: str) -> Interval:
        """Return the positive numbers, or every number for logarithms."""
        if self.log_input:
            return super().prediction_range(space)
        return Interval(0.0, float("inf"), low_open=True)
