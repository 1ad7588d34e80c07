"""Calibration maps: the logit that a prediction stands for, and the features whose weighted sum is a new logit.

Platt's map is σ(a·x + b) of a logit x, temperature scaling σ(x/T), and the beta map σ(a·log p − b·log(1 − p) + c).
Each is a logistic regression on features of the logit, so that one fit does for all. Probabilities are clipped where
the log loss clips them.

References
----------
Platt, Probabilistic outputs for support vector machines, 1999; Guo, Pleiss, Sun and Weinberger, On calibration of
modern neural networks, ICML 2017; Kull, Silva Filho and Flach, Beta calibration, AISTATS 2017.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fastloss_kernels.domain import SATURATION_EPSILON
from fastloss_kernels.elementary import exp, expm1, log, log1p, softplus
from fastloss_kernels.jit import formula

_LOWEST = log(SATURATION_EPSILON)
_LOG_HALF = -0.6931471805599453

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
