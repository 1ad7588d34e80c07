"""Every loss from its definition, in arithmetic so precise that no digit of a float64 result is in doubt.

An oracle is ``oracle(score, label, loss) -> (value, gradient, hessian)`` with mpmath numbers in and out; it reads
nothing of the loss but its parameters. Adding a loss adds its entry to `ORACLES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
from mpmath import mpf

# 1 − σ(745) has 324 zeros behind the point.
PRECISION_DIGITS = 420

Triple = tuple[Any, Any, Any]
Oracle = Callable[[Any, Any, Any], Triple]


def smoothed(label: Any, loss: Any) -> Any:
    s = mpf(loss.label_smoothing)
    return label * (1 - s) + s / 2


def xlogy(x: Any, y: Any) -> Any:
    return mpf(0) if x == 0 else (-mpmath.inf if y == 0 else x * mpmath.log(y))


def softplus(x: Any) -> Any:
    return max(x, mpf(0)) + mpmath.log1p(mpmath.exp(-abs(x)))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x)) if x > 0 else mpmath.exp(x) / (1 + mpmath.exp(x))


def binary_crossentropy_logit(x: Any, label: Any, loss: Any) -> Triple:
    y, q = smoothed(label, loss), mpf(loss.pos_weight)
    value = q * y * softplus(-x) + (1 - y) * softplus(x)
    slope = sigmoid(x) * sigmoid(-x)
    return value, (1 - y) * sigmoid(x) - q * y * sigmoid(-x), (1 + (q - 1) * y) * slope


def binary_crossentropy_prob(p: Any, label: Any, loss: Any) -> Triple:
    y, q = smoothed(label, loss), mpf(loss.pos_weight)
    value = -xlogy(q * y, max(p, EPSILON)) - xlogy(1 - y, max(1 - p, EPSILON))
    gradient = ((1 - y) * p - q * y * (1 - p)) / max(p * (1 - p), EPSILON)
    hessian = q * y / max(p, EPSILON) ** 2 + (1 - y) / max(1 - p, EPSILON) ** 2
    return value, gradient, hessian


def binary_crossentropy_logprob(score: Any, label: Any, loss: Any) -> Triple:
    y, q = smoothed(label, loss), mpf(loss.pos_weight)
    p = mpmath.exp(score)
    rest = max(1 - p, EPSILON)
    value = -xlogy(q * y, max(p, EPSILON)) - xlogy(1 - y, rest)
    return value, (1 - y) * p / rest - q * y, (1 - y) * p / rest**2


def brier_score_logit(x: Any, y: Any, loss: Any) -> Triple:
    residual = (1 - y) * sigmoid(x) - y * sigmoid(-x)
    slope = sigmoid(x) * sigmoid(-x)
    return residual**2, 2 * residual * slope, 2 * slope * (slope + residual * (sigmoid(-x) - sigmoid(x)))


def squared_error(prediction: Any, y: Any, loss: Any) -> Triple:
    return (prediction - y) ** 2, 2 * (prediction - y), mpf(2)


def brier_score_logprob(score: Any, y: Any, loss: Any) -> Triple:
    p = mpmath.exp(score)
    return (p - y) ** 2, 2 * (p - y) * p, 2 * p * (2 * p - y)


def absolute_error(prediction: Any, y: Any, loss: Any) -> Triple:
    return abs(prediction - y), mpmath.sign(prediction - y), mpf(0)


def hinge(score: Any, y: Any, loss: Any) -> Triple:
    t = 2 * y - 1
    margin = mpf(0) if t == 0 else t * score
    return max(mpf(0), 1 - margin), (-t if margin < 1 else mpf(0)), mpf(0)


# The clipping threshold is a decision of the semantics, the decimal number 1e-12 as a float64.
EPSILON = mpf(1e-12)

ORACLES: dict[str, dict[str, Oracle]] = {
    "BinaryCrossentropy": {
        "logit": binary_crossentropy_logit,
        "prob": binary_crossentropy_prob,
        "logprob": binary_crossentropy_logprob,
    },
    "BrierScore": {"logit": brier_score_logit, "prob": squared_error, "logprob": brier_score_logprob},
    "MeanSquaredError": {"value": squared_error, "prob": squared_error},
    "MeanAbsoluteError": {"value": absolute_error, "prob": absolute_error},
    "Hinge": {"margin": hinge, "logit": hinge},
}
