"""Every loss from its definition, in arithmetic so precise that no digit of a float64 result is in doubt.

An oracle is ``oracle(score, label, loss) -> (value, gradient, hessian)`` with mpmath numbers in and out; it reads
nothing of the loss but its parameters. Adding a loss adds its entry to `ORACLES`.
"""

from __future__ import annotations

import functools
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


# Every label of a grid asks for the same scores; the precision is always the one above.
@functools.cache
def softplus(x: Any) -> Any:
    return max(x, mpf(0)) + mpmath.log1p(mpmath.exp(-abs(x)))


@functools.cache
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


def squared_hinge(score: Any, y: Any, loss: Any) -> Triple:
    t = 2 * y - 1
    slack = 1 if t == 0 else 1 - t * score
    active = slack > 0
    return (slack**2, -2 * t * slack, 2 * t**2) if active else (mpf(0), mpf(0), mpf(0))


def half(oracle: Oracle) -> Oracle:
    return lambda score, y, loss: tuple(number / 2 for number in oracle(score, y, loss))


def class_weight(y: Any, loss: Any) -> Any:
    alpha = loss.alpha
    return mpf(1) if alpha is None else y * mpf(alpha) + (1 - y) * (1 - mpf(alpha))


def binary_focal_crossentropy_logit(x: Any, y: Any, loss: Any) -> Triple:
    p, q, gamma, weight = sigmoid(x), sigmoid(-x), mpf(loss.gamma), class_weight(y, loss)
    missed, missed_1, missed_2 = y * q + (1 - y) * p, (1 - 2 * y) * p * q, (1 - 2 * y) * p * q * (q - p)
    entropy, entropy_1, entropy_2 = y * softplus(-x) + (1 - y) * softplus(x), (1 - y) * p - y * q, p * q
    power, power_1, power_2 = missed**gamma, gamma * missed ** (gamma - 1), gamma * (gamma - 1) * missed ** (gamma - 2)
    value = power * entropy
    gradient = power_1 * missed_1 * entropy + power * entropy_1
    hessian = (power_2 * missed_1**2 + power_1 * missed_2) * entropy
    hessian += 2 * power_1 * missed_1 * entropy_1 + power * entropy_2
    return weight * value, weight * gradient, weight * hessian


def binary_focal_crossentropy_prob(p: Any, y: Any, loss: Any) -> Triple:
    gamma, weight = mpf(loss.gamma), class_weight(y, loss)
    missed, turn = y * (1 - p) + (1 - y) * p, 1 - 2 * y
    value = -xlogy(y, max(p, EPSILON)) - xlogy(1 - y, max(1 - p, EPSILON))
    slope = (1 - y) / max(1 - p, EPSILON) - y / max(p, EPSILON)
    curvature = y / max(p, EPSILON) ** 2 + (1 - y) / max(1 - p, EPSILON) ** 2
    if missed == 0:
        # Here the loss is that of a hard label and tends to missed^(gamma + 1).
        return mpf(0), mpf(0), (mpf(0) if gamma > 1 else mpmath.inf)
    gradient = missed**gamma * (gamma * turn / missed * value + slope)
    bend = gamma * (gamma - 1) * (turn / missed) ** 2 * value + 2 * gamma * turn / missed * slope
    return weight * missed**gamma * value, weight * gradient, weight * missed**gamma * (bend + curvature)


def absolute_percentage_error(prediction: Any, y: Any, loss: Any) -> Triple:
    value, gradient, hessian = absolute_error(prediction, y, loss)
    return value / abs(y), gradient / abs(y), hessian


def squared_logarithmic_error(prediction: Any, y: Any, loss: Any) -> Triple:
    difference = mpmath.log((1 + prediction) / (1 + y))
    return difference**2, 2 * difference / (1 + prediction), 2 * (1 - difference) / (1 + prediction) ** 2


def log_cosh(prediction: Any, y: Any, loss: Any) -> Triple:
    d = abs(prediction - y)
    if d > 1000:
        # The cosh is half an exponential to all digits.
        return d - mpmath.log(2), mpmath.sign(prediction - y), mpf(0)
    value, slope, secant = mpmath.log1p(2 * mpmath.sinh(d / 2) ** 2), mpmath.tanh(d), mpmath.sech(d)
    return value, slope * mpmath.sign(prediction - y), secant**2


def huber(prediction: Any, y: Any, loss: Any) -> Triple:
    d, delta = prediction - y, mpf(loss.delta)
    if abs(d) <= delta:
        return d**2 / 2, d, mpf(1)
    return delta * (abs(d) - delta / 2), delta * mpmath.sign(d), mpf(0)


def smooth_l1(prediction: Any, y: Any, loss: Any) -> Triple:
    d, beta = prediction - y, mpf(loss.beta)
    if abs(d) < beta:
        return d**2 / (2 * beta), d / beta, 1 / beta
    return abs(d) - beta / 2, mpmath.sign(d), mpf(0)


def pseudo_huber(prediction: Any, y: Any, loss: Any) -> Triple:
    d, slope = prediction - y, mpf(loss.slope)
    with mpmath.workdps(1400):
        root = mpmath.sqrt(1 + (d / slope) ** 2)
        return slope**2 * (root - 1), d / root, root**-3


def poisson(prediction: Any, y: Any, loss: Any) -> Triple:
    constant = mpmath.loggamma(y + 1) if loss.full else 0
    if loss.log_input:
        rate = mpmath.exp(prediction)
        return rate - y * prediction + constant, rate - y, rate
    return prediction - y * mpmath.log(prediction) + constant, 1 - y / prediction, y / prediction**2


def zero_one(threshold: Any) -> Oracle:
    return lambda score, y, loss: (1 - y if score > threshold else y, mpf(0), mpf(0))


def exponential(score: Any, y: Any, loss: Any) -> Triple:
    rising = (1 - y) * mpmath.exp(score) if y != 1 else mpf(0)
    falling = y * mpmath.exp(-score)
    return rising + falling, rising - falling, rising + falling


def modified_huber(score: Any, y: Any, loss: Any) -> Triple:
    t = 2 * y - 1
    if t * score < -1:
        return -4 * t * score, -4 * t, mpf(0)
    return squared_hinge(score, y, loss)


def generalized_crossentropy_logit(x: Any, y: Any, loss: Any) -> Triple:
    q = mpf(loss.q)

    def outcome(z: Any) -> Triple:
        p, o, power = sigmoid(z), sigmoid(-z), mpmath.exp(-q * softplus(-z))
        return (1 - power) / q, -power * o, power * o * (p - q * o)

    (value_1, gradient_1, hessian_1), (value_0, gradient_0, hessian_0) = outcome(x), outcome(-x)
    return mixed(y, value_1, value_0), mixed(y, gradient_1, -gradient_0), mixed(y, hessian_1, hessian_0)


def generalized_crossentropy_prob(score: Any, y: Any, loss: Any) -> Triple:
    q = mpf(loss.q)

    def outcome(p: Any) -> Triple:
        if p == 0:
            return 1 / q, mpf(-1) if q == 1 else -mpmath.inf, mpf(0) if q == 1 else mpmath.inf
        return -mpmath.expm1(q * mpmath.log(p)) / q, -(p ** (q - 1)), (1 - q) * p ** (q - 2)

    (value_1, gradient_1, hessian_1), (value_0, gradient_0, hessian_0) = outcome(score), outcome(1 - score)
    return mixed(y, value_1, value_0), mixed(y, gradient_1, -gradient_0), mixed(y, hessian_1, hessian_0)


def mixed(y: Any, of_one: Any, of_zero: Any) -> Any:
    if y in (0, 1):
        return of_one if y == 1 else of_zero
    return y * of_one + (1 - y) * of_zero


def poly1_logit(x: Any, y: Any, loss: Any) -> Triple:
    p, o, eps = sigmoid(x), sigmoid(-x), mpf(loss.eps)
    value = y * softplus(-x) + (1 - y) * softplus(x) + eps * (y * o + (1 - y) * p)
    gradient = (1 - y) * p * (1 + eps * o) - y * o * (1 + eps * p)
    return value, gradient, p * o * (y * (1 + eps * (p - o)) + (1 - y) * (1 + eps * (o - p)))


def poly1_prob(p: Any, y: Any, loss: Any) -> Triple:
    less = 1 + mpf(loss.eps)
    value = -xlogy(y, max(p, EPSILON)) - xlogy(1 - y, max(1 - p, EPSILON))
    value += mpf(loss.eps) * (y * (1 - p) + (1 - y) * p)
    gradient = (1 - y) * (p / max(1 - p, EPSILON) + less) - y * ((1 - p) / max(p, EPSILON) + less)
    return value, gradient, y / max(p, EPSILON) ** 2 + (1 - y) / max(1 - p, EPSILON) ** 2


def pinball(prediction: Any, y: Any, loss: Any) -> Triple:
    q, d = mpf(loss.quantile), prediction - y
    weight = q if d < 0 else 1 - q
    return weight * abs(d), weight * mpmath.sign(d), mpf(0)


def expectile(prediction: Any, y: Any, loss: Any) -> Triple:
    tau, d = mpf(loss.expectile), prediction - y
    weight = tau if d < 0 else 1 - tau
    return weight * d**2, 2 * weight * d, 2 * weight


def gamma(prediction: Any, y: Any, loss: Any) -> Triple:
    if loss.log_input:
        ratio = y * mpmath.exp(-prediction)
        return prediction + ratio, 1 - ratio, ratio
    value = y / prediction + mpmath.log(prediction)
    return value, (prediction - y) / prediction**2, (2 * y - prediction) / prediction**3


def tweedie(prediction: Any, y: Any, loss: Any) -> Triple:
    power = mpf(loss.power)
    logarithm = prediction if loss.log_input else mpmath.log(prediction)
    falling, rising = y * mpmath.exp((1 - power) * logarithm), mpmath.exp((2 - power) * logarithm)
    value = falling / (power - 1) + rising / (2 - power)
    if loss.log_input:
        return value, rising - falling, (power - 1) * falling + (2 - power) * rising
    return value, (rising - falling) / prediction, (power * falling - (power - 1) * rising) / prediction**2


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
    "SquaredHinge": {"margin": squared_hinge, "logit": squared_hinge},
    "HalfSquaredSigmoid": {"logit": half(brier_score_logit)},
    "HalfSquaredError": {"value": half(squared_error), "prob": half(squared_error)},
    "BinaryFocalCrossentropy": {
        "logit": binary_focal_crossentropy_logit,
        "prob": binary_focal_crossentropy_prob,
    },
    "MeanAbsolutePercentageError": {"value": absolute_percentage_error},
    "MeanSquaredLogarithmicError": {"value": squared_logarithmic_error},
    "LogCosh": {"value": log_cosh, "prob": log_cosh},
    "Huber": {"value": huber, "prob": huber},
    "SmoothL1": {"value": smooth_l1, "prob": smooth_l1},
    "PseudoHuber": {"value": pseudo_huber, "prob": pseudo_huber},
    "Poisson": {"value": poisson},
    "ZeroOne": {"logit": zero_one(0), "margin": zero_one(0), "prob": zero_one(0.5)},
    "Exponential": {"margin": exponential, "logit": exponential},
    "ModifiedHuber": {"margin": modified_huber, "logit": modified_huber},
    "GeneralizedCrossentropy": {
        "logit": generalized_crossentropy_logit,
        "prob": generalized_crossentropy_prob,
    },
    "Poly1": {"logit": poly1_logit, "prob": poly1_prob},
    "Pinball": {"value": pinball, "prob": pinball},
    "Expectile": {"value": expectile, "prob": expectile},
    "Gamma": {"value": gamma},
    "Tweedie": {"value": tweedie},
}
