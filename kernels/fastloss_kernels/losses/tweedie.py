"""Tweedie loss: for labels that are often zero and else positive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval, Row
from fastloss_kernels.double_double import (
    divide_parts,
    log_of_positive_parts,
    multiply_parts,
    rounded_sum,
    scaled_exp_parts,
    two_sum,
)
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.losses.base import Loss


@formula
def terms(log_hi: float, log_lo: float, label: float, less: float, rest: float) -> tuple[float, ...]:
    """Compute y·ŷ^−less and ŷ^rest from log ŷ, each as hi + lo."""
    falling_log, falling_log_lo = multiply_parts(-less, log_hi, log_lo)
    falling, falling_lo = scaled_exp_parts(label, falling_log, falling_log_lo)
    rising_log, rising_log_lo = multiply_parts(rest, log_hi, log_lo)
    rising, rising_lo = scaled_exp_parts(1.0, rising_log, rising_log_lo)
    return falling, falling_lo, rising, rising_lo


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate y·ŷ^(1 − ρ)/(ρ − 1) + ŷ^(2 − ρ)/(2 − ρ): both terms are positive, nothing cancels."""
    power, less, rest = parameters
    infinite = (score == float("inf")) & (label == label)
    bounded = 1.0 if infinite else score
    hi, lo = log_of_positive_parts(bounded, 0.0)
    falling, falling_lo, rising, rising_lo = terms(hi, lo, label, less, rest)
    first, first_lo = divide_parts(falling, falling_lo, less, 0.0)
    second, second_lo = divide_parts(rising, rising_lo, rest, 0.0)
    total, lost = two_sum(first, second)
    value = rounded_sum(total, lost + (first_lo + second_lo))
    # The logarithm of a score that is NaN no longer shows it.
    value = value if score == score else score
    exponent, exponent_lo = multiply_parts(-less, hi, lo)
    decay, decay_lo = scaled_exp_parts(1.0, exponent, exponent_lo)
    decay += decay_lo
    share = divide(label, bounded)
    gradient = decay * divide(bounded - label, bounded)
    hessian = divide(decay * fma(power, share, -less), bounded)
    return score if infinite else value, 0.0 if infinite else gradient, 0.0 if infinite else hessian


@formula
def row_log(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate y·e^((1 − ρ)·x)/(ρ − 1) + e^((2 − ρ)·x)/(2 − ρ)."""
    _, less, rest = parameters
    falling, falling_lo, rising, rising_lo = terms(score, 0.0, label, less, rest)
    first, first_lo = divide_parts(falling, falling_lo, less, 0.0)
    second, second_lo = divide_parts(rising, rising_lo, rest, 0.0)
    total, lost = two_sum(first, second)
    value = rounded_sum(total, lost + (first_lo + second_lo))
    return value, rising - falling, fma(less, falling, rest * rising)


@dataclass(frozen=True)
class Tweedie(Loss):
    """Negative log-likelihood of a label y ≥ 0 under a compound Poisson-gamma distribution of mean ŷ > 0, in nats.

    For dispersion 1 and without the terms that no prediction can change.

    Parameters
    ----------
    power : float
        ρ in (1, 2): the variance grows as ŷ^ρ; towards 1 as a count's, towards 2 as a gamma variable's.
    log_input : bool
        Whether the prediction is log ŷ, any number, instead of ŷ.
    """

    power: float = 1.5
    log_input: bool = False

    name: ClassVar[str] = "tweedie"
    aliases: ClassVar[tuple[str, ...]] = ("tweedie_nll",)
    label_range: ClassVar[Interval] = Interval(0.0, float("inf"), high_open=True)
    ranges = {"power": Interval(1.0, 2.0, low_open=True, high_open=True)}
    definition = "y·ŷ^(1 − ρ)/(ρ − 1) + ŷ^(2 − ρ)/(2 − ρ); ŷ = eˣ if log_input"
    source = "Jørgensen, Exponential dispersion models, J. Royal Stat. Soc. B 49 (1987)"

    @property
    def formulas(self) -> Mapping[str, Row]:
        """The formula of ŷ, or of log ŷ."""
        return {"value": row_log if self.log_input else row}

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return ρ, ρ − 1 and 2 − ρ; both differences are exact."""
        return (float(self.power), self.power - 1.0, 2.0 - self.power)

    def prediction_range(self, space: str) -> Interval:
        """Return the positive numbers, or every number for logarithms."""
        if self.log_input:
            return super().prediction_range(space)
        return Interval(0.0, float("inf"), low_open=True)
