"""Link functions and their inverses: the predicted mean of the label from a logit or a log-probability, and back."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

from fastloss_kernels.domain import Row
from fastloss_kernels.elementary import exp, expm1, log, log1p, sigmoid
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


@functools.cache
def make_prob_row_by_logit(row: Row) -> Row:
    """Make of a formula of logits one of probabilities, whose derivatives are by the logit."""

    @formula
    def by_logit(score, label, parameters):
        return row(to_logit(score, 0.0), label, parameters)

    return by_logit


@functools.cache
def make_logprob_row_by_logit(row: Row) -> Row:
    """Make of a formula of logits one of log-probabilities, whose derivatives are by the logit."""

    @formula
    def by_logit(score, label, parameters):
        near = log(-expm1(score))
        far = log1p(-exp(score))
        return row(score - (near if score > -0.6931471805599453 else far), label, parameters)

    return by_logit


@functools.cache
def make_row_by_logit(row: Row) -> Row:
    """Make of a formula of probabilities, which has none of logits, one whose derivatives are by the logit."""

    @formula
    def by_logit(score, label, parameters):
        value, gradient, hessian = row(score, label, parameters)
        other = 1.0 - score
        slope = score * other
        gradient *= slope
        return value, gradient, hessian * slope * slope + gradient * (other - score)

    return by_logit
