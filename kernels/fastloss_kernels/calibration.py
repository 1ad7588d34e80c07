"""Calibration maps: the logit that a prediction stands for, and the features whose weighted sum is a new logit.

Platt's map is σ(a·x + b) of a logit x, temperature scaling σ(x/T), and the beta map σ(a·log p − b·log(1 − p) + c).
Each is a logistic regression on features of the logit, so that one fit does for all. Probabilities are clipped where
the log loss clips them. A map for a sampling rate takes back what leaving out negatives did to the odds.

References
----------
Platt, Probabilistic outputs for support vector machines, 1999; Guo, Pleiss, Sun and Weinberger, On calibration of
modern neural networks, ICML 2017; Kull, Silva Filho and Flach, Beta calibration, AISTATS 2017; He et al.,
Practical lessons from predicting clicks on ads at Facebook, ADKDD 2014, section 6.3.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fastloss_kernels.domain import SATURATION_EPSILON, Row
from fastloss_kernels.elementary import NAN, exp, expm1, log, log1p, log1p_unit, sigmoids, softplus
from fastloss_kernels.jit import divide, fma, formula

_LOWEST = log(SATURATION_EPSILON)
_LOG_HALF = -0.6931471805599453
# The predictions below and above which a logit is clipped.
CLIPPED: Mapping[str, tuple[float, float]] = {
    "prob": (SATURATION_EPSILON, 1.0 - SATURATION_EPSILON),
    "logprob": (_LOWEST, log1p(-SATURATION_EPSILON)),
}

# logit(score) -> the logit that a prediction of a space stands for.
ToLogit = Callable[[float], float]
# feature(score, parameters) -> a feature of the logit.
Feature = Callable[..., float]


@formula
def logit_of_logit(score: float) -> float:
    """Return the logit itself."""
    return score


@formula
def logit_of_prob(score: float) -> float:
    """Compute log p − log(1 − p), both clipped at log ε; NaN outside [0, 1]."""
    positive = log(score)
    positive = _LOWEST if positive < _LOWEST else positive
    negative = log1p(-score)
    negative = _LOWEST if negative < _LOWEST else negative
    return positive - negative


@formula
def logit_of_logprob(score: float) -> float:
    """Compute l − log(1 − e^l), both clipped at log ε; NaN above 0.

    The second is log(−expm1(l)) near zero and log1p(−e^l) below −log 2, as in the log loss.
    """
    positive = _LOWEST if score < _LOWEST else score
    near = log(-expm1(score))
    far = log1p(-exp(score))
    negative = near if score > _LOG_HALF else far
    negative = _LOWEST if negative < _LOWEST else negative
    return positive - negative


LOGITS: Mapping[str, ToLogit] = {"logit": logit_of_logit, "prob": logit_of_prob, "logprob": logit_of_logprob}


@formula
def log_loss(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate y·softplus(−x) + (1 − y)·softplus(x) and its derivatives: the log loss of a finite logit, alone."""
    e = exp(-abs(score))
    rest = 1.0 - label
    likely, unlikely = sigmoids(e)
    positive = likely if score > 0.0 else unlikely
    negative = unlikely if score > 0.0 else likely
    value = fma(abs(score), rest if score > 0.0 else label, log1p_unit(e))
    return value, fma(rest, positive, -(label * negative)), unlikely * likely


class Features(NamedTuple):
    """The features of a map.

    Attributes
    ----------
    of_score : tuple of callable
        ``feature(score, parameters)`` of each that depends on the score.
    constant : bool
        Whether 1 is one more.
    """

    of_score: tuple[Feature, ...]
    constant: bool

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.of_score) + self.constant


@functools.cache
def features_of(kind: str, space: str) -> Features:
    """Return the features of a kind of map over predictions of a space.

    Kinds are ``"platt"``: the logit and 1; ``"temperature"``: the logit; ``"beta"``: log p, −log(1 − p) and 1; and
    ``"beta_a"`` and ``"beta_b"`` with only the first or the second of these. The parameters of features are a center
    for each of two, which is subtracted, and a factor, a power of two: squares of features must not overflow.
    """
    to_logit = LOGITS[space]

    @formula
    def logit(score, parameters):
        return (to_logit(score) - parameters[0]) * parameters[2]

    @formula
    def log_p(score, parameters):
        return (-softplus(-to_logit(score)) - parameters[0]) * parameters[2]

    @formula
    def log_rest(score, parameters):
        return (softplus(to_logit(score)) - parameters[1]) * parameters[2]

    return {
        "platt": Features((logit,), True),
        "temperature": Features((logit,), False),
        "beta": Features((log_p, log_rest), True),
        "beta_a": Features((log_p,), True),
        "beta_b": Features((log_rest,), True),
    }[kind]


@functools.cache
def map_row(kind: str, space: str) -> Row:
    """Return the formula ``row(score, label, parameters)`` of a map, whose value is the new prediction.

    Kinds are ``"platt"``, ``"temperature"`` and ``"beta"``, whose parameters are their coefficients and whose value is
    a logit, and ``"sampling_rate"``, which stays in its space: its parameters are those of `parameters_of_rate`.
    """
    to_logit = LOGITS[space]

    @formula
    def platt(score, label, parameters):
        return fma(parameters[0], to_logit(score), parameters[1]), 0.0, 0.0

    @formula
    def temperature(score, label, parameters):
        return parameters[0] * to_logit(score), 0.0, 0.0

    @formula
    def beta(score, label, parameters):
        x = to_logit(score)
        # A feature that has no part may be infinite.
        positive = parameters[0] * -softplus(-x)
        positive = 0.0 if (parameters[0] == 0.0) & (x == x) else positive
        negative = parameters[1] * softplus(x)
        negative = 0.0 if (parameters[1] == 0.0) & (x == x) else negative
        return positive + negative + parameters[2], 0.0, 0.0

    if kind == "sampling_rate":
        return _RATES[space]
    return {"platt": platt, "temperature": temperature, "beta": beta}[kind]


@formula
def _rate_of_logit(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Compute x + log c: the odds are c times as high."""
    return score + parameters[0], 0.0, 0.0


@formula
def _rate_of_prob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Compute p/(p + (1 − p)/c)."""
    value = divide(score, score + (1.0 - score) * parameters[0])
    return value if (score >= 0.0) & (score <= 1.0) else NAN, 0.0, 0.0


@formula
def _rate_of_logprob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Compute l − log(e^l + (1 − e^l)/c), at most 0."""
    value = score - log(exp(score) - expm1(score) * parameters[0])
    value = 0.0 if value > 0.0 else value
    return value if score <= 0.0 else NAN, 0.0, 0.0


_RATES: Mapping[str, Row] = {"logit": _rate_of_logit, "prob": _rate_of_prob, "logprob": _rate_of_logprob}


def parameters_of_rate(rate: float, space: str) -> tuple[float, ...]:
    """Return the parameters of the map for a sampling rate: negatives were kept at this rate, in (0, 1]."""
    return (log(rate),) if space == "logit" else (1.0 / rate,)
