"""Link functions and their inverses: the predicted mean of the label from a logit or a log-probability, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from fastloss_kernels.domain import Row
from fastloss_kernels.elementary import exp, log, log1p, sigmoid
from fastloss_kernels.jit import divide, formula

INFINITY = math.inf


@formula
def from_logit(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Return σ(x)."""
    return sigmoid(score), 0.0, 0.0


@formula
def from_logprob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Return e^l."""
    return exp(score), 0.0, 0.0


# The remaining spaces already hold the mean (prob, value), or have none (margin).
INVERSE_LINKS: Mapping[str, Row] = {"logit": from_logit, "logprob": from_logprob}


@formula
def to_logit(probability: float, unused: float) -> float:
    """Return log(p / (1 − p)); near ½ from the distance to it, which keeps more digits."""
    if probability == 0.0:
        return -INFINITY
    if probability == 1.0:
        return INFINITY
    if probability >= 0.5:
        return log1p(divide(2.0 * probability - 1.0, 1.0 - probability))
    if probability >= 0.25:
        return -log1p(divide(1.0 - 2.0 * probability, probability))
    return log(probability) - log1p(-probability)


@formula
def to_logprob(probability: float, unused: float) -> float:
    """Return log p."""
    return log(probability)


LINKS: Mapping[str, Callable[[float, float], float]] = {"logit": to_logit, "logprob": to_logprob}
