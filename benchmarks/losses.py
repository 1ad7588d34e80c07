"""Times every pointwise loss on one core: value, gradient and hessian of 65,536 float64 rows, beside NumPy.

Each loss runs in every space that it accepts, with default parameters. Its NumPy expressions are those of a careful
user: stable forms for all labels that the loss takes and for any value of its parameters, no work done twice, and
three arrays as the result. Both answers are compared before they are timed, in turn, one after the other.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kernels import best_seconds
from benchmarks.machine import describe_machine, describe_versions, figure, figures_table, headline, markdown

ROWS = 65_536
LEAST_RATE = 60.0
LEAST_RATIO = 4.0

# (score, label) -> (value, gradient, hessian)
Expressions = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]

EPSILON = 1e-12


def _zeros(score: np.ndarray) -> np.ndarray:
    return np.zeros_like(score)


def _sigmoids(score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return e^−|x|, σ(x), σ(−x) and their product, whose tails keep their digits."""
    e = np.exp(-np.abs(score))
    likely = 1.0 / (1.0 + e)
    unlikely = e * likely
    right = score > 0.0
    return e, np.where(right, likely, unlikely), np.where(right, unlikely, likely), likely * unlikely


def _log_loss_logit(score, label):
    e = np.exp(-np.abs(score))
    likely = 1.0 / (1.0 + e)
    unlikely = e * likely
    value = np.maximum(score, 0.0) - score * label + np.log1p(e)
    return value, np.where(score > 0.0, likely, unlikely) - label, likely * unlikely


def _log_loss_prob(score, label):
    p = np.clip(score, EPSILON, 1.0 - EPSILON)
    rest = 1.0 - label
    value = -(label * np.log(p) + rest * np.log1p(-p))
    inverse, other_inverse = 1.0 / p, 1.0 / (1.0 - p)
    positive, negative = label * inverse, rest * other_inverse
    return value, negative - positive, positive * inverse + negative * other_inverse


def _log_loss_logprob(score, label):
    # log(1 − eˡ) by Mächler's two forms, each where the other would cancel.
    clipped = np.clip(score, np.log(EPSILON), -EPSILON)
    p, other = np.exp(clipped), -np.expm1(clipped)
    log_other = np.where(clipped > -0.6931471805599453, np.log(other), np.log1p(-p))
    rest = 1.0 - label
    inverse = 1.0 / other
    slope = rest * p * inverse
    return -(label * clipped + rest * log_other), slope - label, slope * inverse


def _focal_logit(score, label, gamma=2.0):
    e, p, other, slope = _sigmoids(score)
    rest = 1.0 - label
    missed = label * other + rest * p
    crossentropy = np.maximum(score, 0.0) - score * label + np.log1p(e)
    turn = (rest - label) * slope
    least = missed ** (gamma - 2.0)
    less = least * missed
    factor = less * missed
    difference = p - label
    turned = gamma * less * turn
    gradient = turned * crossentropy + factor * difference
    bend = gamma * turn * ((gamma - 1.0) * least * turn + less * (other - p))
    hessian = bend * crossentropy + 2.0 * turned * difference + factor * slope
    return factor * crossentropy, gradient, hessian


def _focal_prob(score, label, gamma=2.0):
    p = np.clip(score, EPSILON, 1.0 - EPSILON)
    other, rest = 1.0 - p, 1.0 - label
    missed = label * other + rest * p
    crossentropy = -(label * np.log(p) + rest * np.log1p(-p))
    turn = rest - label
    least = missed ** (gamma - 2.0)
    less = least * missed
    factor = less * missed
    inverse, other_inverse = 1.0 / p, 1.0 / other
    positive, negative = label * inverse, rest * other_inverse
    slope = negative - positive
    turned = gamma * less * turn
    bend = gamma * (gamma - 1.0) * least * turn * turn
    curvature = positive * inverse + negative * other_inverse
    hessian = bend * crossentropy + 2.0 * turned * slope + factor * curvature
    return factor * crossentropy, turned * crossentropy + factor * slope, hessian


def _brier_logit(score, label):
    _, p, other, slope = _sigmoids(score)
    residual = p - label
    doubled = 2.0 * slope
    return residual * residual, residual * doubled, doubled * (slope + residual * (other - p))


def _squared_error(score, label):
    difference = score - label
    return difference * difference, 2.0 * difference, np.full_like(score, 2.0)


def _brier_logprob(score, label):
    p = np.exp(score)
    residual = p - label
    doubled = 2.0 * p
    return residual * residual, residual * doubled, doubled * (residual + p)


def _expectile(score, label, expectile=0.5):
    difference = score - label
    weight = np.where(difference < 0.0, expectile, 1.0 - expectile)
    slope = weight * difference
    return slope * difference, 2.0 * slope, 2.0 * weight


def _exponential(score, label):
    e = np.exp(score)
    rising, falling = (1.0 - label) * e, label / e
    value = rising + falling
    return value, rising - falling, value.copy()


def _gamma(score, label):
    inverse = 1.0 / score
    ratio = label * inverse
    square = inverse * inverse
    return ratio + np.log(score), (score - label) * square, (2.0 * ratio - 1.0) * square


def _generalized_logit(score, label, q=0.7):
    e, p, other, _ = _sigmoids(score)
    shared = np.log1p(e)
    lost = np.expm1(q * (np.minimum(score, 0.0) - shared))
    other_lost = np.expm1(q * (np.minimum(-score, 0.0) - shared))
    rest = 1.0 - label
    positive = label * (1.0 + lost) * other
    negative = rest * (1.0 + other_lost) * p
    value = -(label * lost + rest * other_lost) / q
    return value, negative - positive, positive * (p - q * other) + negative * (other - q * p)


def _generalized_prob(score, label, q=0.7):
    other, rest = 1.0 - score, 1.0 - label
    lost, other_lost = np.expm1(q * np.log(score)), np.expm1(q * np.log1p(-score))
    inverse, other_inverse = 1.0 / score, 1.0 / other
    positive = label * (1.0 + lost) * inverse
    negative = rest * (1.0 + other_lost) * other_inverse
    value = -(label * lost + rest * other_lost) / q
    return value, negative - positive, (1.0 - q) * (positive * inverse + negative * other_inverse)


def _half_squared_error(score, label):
    difference = score - label
    return 0.5 * difference * difference, difference, np.ones_like(score)


def _half_squared_sigmoid(score, label):
    _, p, other, slope = _sigmoids(score)
    residual = p - label
    return 0.5 * residual * residual, residual * slope, slope * (slope + residual * (other - p))


def _hinge(score, label):
    sign = 2.0 * label - 1.0
    slack = 1.0 - sign * score
    return np.maximum(slack, 0.0), np.where(slack > 0.0, -sign, 0.0), _zeros(score)


def _huber(score, label, delta=1.0):
    difference = score - label
    limited = np.clip(difference, -delta, delta)
    return limited * (difference - 0.5 * limited), limited, (limited == difference).astype(np.float64)


def _log_cosh(score, label):
    difference = score - label
    distance = np.abs(difference)
    e = np.exp(-2.0 * distance)
    total = 1.0 + e
    return distance + np.log1p(e) - 0.6931471805599453, np.tanh(difference), 4.0 * e / (total * total)


def _absolute_error(score, label):
    difference = score - label
    return np.abs(difference), np.sign(difference), _zeros(score)


def _absolute_percentage_error(score, label):
    difference = score - label
    size = np.abs(label)
    return np.abs(difference) / size, np.sign(difference) / size, _zeros(score)


def _squared_logarithmic_error(score, label):
    logarithm = np.log1p((score - label) / (1.0 + label))
    inverse = 1.0 / (1.0 + score)
    doubled = 2.0 * inverse
    return logarithm * logarithm, logarithm * doubled, (1.0 - logarithm) * doubled * inverse


def _modified_huber(score, label):
    sign = 2.0 * label - 1.0
    slack = 1.0 - sign * score
    limited = np.clip(slack, 0.0, 2.0)
    doubled = 2.0 * sign
    hessian = np.where((slack > 0.0) & (slack <= 2.0), doubled * sign, 0.0)
    return limited * (2.0 * slack - limited), -doubled * limited, hessian


def _pinball(score, label, quantile=0.5):
    difference = score - label
    value = np.maximum(-quantile * difference, (1.0 - quantile) * difference)
    return value, np.where(difference < 0.0, -quantile, 1.0 - quantile), _zeros(score)


def _poisson(score, label):
    ratio = label / score
    return score - label * np.log(score), 1.0 - ratio, ratio / score


def _poly1_logit(score, label, eps=1.0):
    e, p, other, slope = _sigmoids(score)
    rest = 1.0 - label
    value = np.maximum(score, 0.0) - score * label + np.log1p(e) + eps * (label * other + rest * p)
    turn = eps * (rest - label)
    return value, p - label + turn * slope, slope * (1.0 + turn * (other - p))


def _poly1_prob(score, label, eps=1.0):
    p = np.clip(score, EPSILON, 1.0 - EPSILON)
    other, rest = 1.0 - p, 1.0 - label
    value = eps * (label * other + rest * p) - label * np.log(p) - rest * np.log1p(-p)
    inverse, other_inverse = 1.0 / p, 1.0 / other
    positive, negative = label * inverse, rest * other_inverse
    gradient = negative - positive + eps * (rest - label)
    return value, gradient, positive * inverse + negative * other_inverse


def _pseudo_huber(score, label, slope=1.0):
    difference = score - label
    scaled = difference / slope
    root = np.sqrt(1.0 + scaled * scaled)
    inverse = 1.0 / root
    return difference * difference / (1.0 + root), difference * inverse, inverse * inverse * inverse


def _smooth_l1(score, label, beta=1.0):
    difference = score - label
    limited = np.clip(difference, -beta, beta)
    gradient = limited / beta
    hessian = np.where(np.abs(difference) < beta, 1.0 / beta, 0.0)
    return gradient * (difference - 0.5 * limited), gradient, hessian


def _squared_hinge(score, label):
    sign = 2.0 * label - 1.0
    slack = np.maximum(1.0 - sign * score, 0.0)
    doubled = 2.0 * sign
    return slack * slack, -doubled * slack, np.where(slack > 0.0, doubled * sign, 0.0)


def _tweedie(score, label, power=1.5):
    decay = score ** (1.0 - power)
    ratio = label / score
    value = decay * (label / (power - 1.0) + score / (2.0 - power))
    return value, decay * (1.0 - ratio), decay / score * (power * ratio - (power - 1.0))


def _zero_one(score, label, threshold=0.0):
    return np.where(score > threshold, 1.0 - label, label), _zeros(score), _zeros(score)


def _zero_one_prob(score, label):
    return _zero_one(score, label, 0.5)


# Losses by name, spaces, and what a NumPy user writes for them.
EXPRESSIONS: Mapping[str, Mapping[str, Expressions]] = {
    "log_loss": {"logit": _log_loss_logit, "prob": _log_loss_prob, "logprob": _log_loss_logprob},
    "binary_focal_crossentropy": {"logit": _focal_logit, "prob": _focal_prob},
    "brier_score": {"logit": _brier_logit, "prob": _squared_error, "logprob": _brier_logprob},
    "expectile": {"value": _expectile, "prob": _expectile},
    "exponential": {"margin": _exponential, "logit": _exponential},
    "gamma": {"value": _gamma},
    "generalized_crossentropy": {"logit": _generalized_logit, "prob": _generalized_prob},
    "half_squared_error": {"value": _half_squared_error, "prob": _half_squared_error},
    "half_squared_sigmoid": {"logit": _half_squared_sigmoid},
    "hinge": {"margin": _hinge, "logit": _hinge},
    "huber": {"value": _huber, "prob": _huber},
    "log_cosh": {"value": _log_cosh, "prob": _log_cosh},
    "mean_absolute_error": {"value": _absolute_error, "prob": _absolute_error},
    "mean_absolute_percentage_error": {"value": _absolute_percentage_error},
    "mean_squared_error": {"value": _squared_error, "prob": _squared_error},
    "mean_squared_logarithmic_error": {"value": _squared_logarithmic_error},
    "modified_huber": {"margin": _modified_huber, "logit": _modified_huber},
    "pinball": {"value": _pinball, "prob": _pinball},
    "poisson": {"value": _poisson},
    "poly1": {"logit": _poly1_logit, "prob": _poly1_prob},
    "pseudo_huber": {"value": _pseudo_huber, "prob": _pseudo_huber},
    "smooth_l1": {"value": _smooth_l1, "prob": _smooth_l1},
    "squared_hinge": {"margin": _squared_hinge, "logit": _squared_hinge},
    "tweedie": {"value": _tweedie},
    "zero_one": {"logit": _zero_one, "margin": _zero_one, "prob": _zero_one_prob},
}


@cache
def _clicks() -> tuple[np.ndarray, np.ndarray]:
    """Return logits of a click log and labels drawn from them."""
    random = np.random.default_rng(20_240_229)
    score = random.normal(-2.703, 1.2, ROWS)
    return score, (random.random(ROWS) < 1.0 / (1.0 + np.exp(-score))).astype(np.float64)


@cache
def _amounts(counts: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return positive predictions and labels spread around them: counts, or positive amounts."""
    random = np.random.default_rng(20_240_301)
    mean = np.exp(random.normal(0.5, 0.7, ROWS))
    label = random.poisson(mean).astype(np.float64) if counts else random.gamma(2.0, 0.5 * mean)
    return mean, label


def make_data(loss: Any, space: str) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and labels float64 ``(ROWS,)`` that a loss takes in a space."""
    if space == "value":
        return _amounts(counts=0.0 in loss.label_range and -1.0 not in loss.label_range)
    logit, label = _clicks()
    if space in ("logit", "margin"):
        return logit, label
    log_probability = -np.logaddexp(0.0, -logit)
    return (np.exp(log_probability) if space == "prob" else log_probability), label


def _check(name: str, space: str, found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> None:
    for part, of_numpy, own in zip(("value", "gradient", "hessian"), found, expected, strict=True):
        # What differences of numbers near 1 leave in a careful expression: a relative error where the result is large.
        close = np.isclose(of_numpy, own, rtol=1e-12, atol=1e-14)
        if not close.all():
            i = int(np.argmin(close))
            raise SystemExit(f"{name} ({space}): the {part} by NumPy is {of_numpy[i]!r}, by fastloss {own[i]!r}.")


def measure(rounds: int, seconds: float, names: list[str] | None = None) -> dict[str, Any]:
    """Return the report of a run: machine, versions, cases, losses without NumPy expressions, figures."""
    from fastloss_kernels.cpu.pointwise import make_value_gradient_hessian
    from fastloss_kernels.losses import POINTWISE_LOSSES

    cases: list[dict[str, Any]] = []
    for kind in POINTWISE_LOSSES:
        if names and kind.name not in names:
            continue
        loss = kind()
        for space in loss.formulas:
            score, label = make_data(loss, space)
            outputs = tuple(np.empty(ROWS) for _ in range(3))
            arguments = (score, label, loss.parameters(space), *outputs)
            kernel = make_value_gradient_hessian(loss.formulas[space])
            kernel(*arguments)
            runs: list[Callable[[], Any]] = [lambda k=kernel, a=arguments: k(*a)]  # type: ignore[misc]
            expressions = EXPRESSIONS.get(loss.name, {}).get(space)
            if expressions is not None:
                _check(loss.name, space, expressions(score, label), outputs)
                runs.append(lambda e=expressions, s=score, y=label: e(s, y))  # type: ignore[misc]
            own, *others = (ROWS / taken for taken in best_seconds(runs, rounds, seconds))
            cases.append(
                {
                    "loss": loss.name,
                    "space": space,
                    "rows_per_second": own,
                    "numpy_rows_per_second": others[0] if others else None,
                    "ratio": own / others[0] if others else None,
                }
            )
    return {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "cases": cases,
        "without_expressions": [f"{c['loss']} ({c['space']})" for c in cases if c["ratio"] is None],
        "figures": list(_figures(cases)),
    }


def _figures(cases: list[dict[str, Any]]) -> Any:
    slowest = min(cases, key=lambda case: case["rows_per_second"])
    name = f"{slowest['loss']} ({slowest['space']})"
    yield figure(f"smallest rate: {name}, million rows/s", slowest["rows_per_second"] / 1e6, ">=", LEAST_RATE)
    compared = [case for case in cases if case["ratio"] is not None]
    if compared:
        least = min(compared, key=lambda case: case["ratio"])
        yield figure(
            f"smallest ratio to NumPy: {least['loss']} ({least['space']})", least["ratio"], ">=", LEAST_RATIO, " ×"
        )


def _below(cases: list[dict[str, Any]]) -> list[str]:
    slow = [c for c in cases if c["rows_per_second"] < LEAST_RATE * 1e6]
    near = [c for c in cases if c["ratio"] is not None and c["ratio"] < LEAST_RATIO]
    lines = []
    for what, below, shown in (
        (f"Below {LEAST_RATE:g} million rows/s", slow, lambda c: f"{c['rows_per_second'] / 1e6:.0f}"),
        (f"Below {LEAST_RATIO:g} × NumPy", near, lambda c: f"{c['ratio']:.2f} ×"),
    ):
        listed = ", ".join(f"{c['loss']} ({c['space']}) {shown(c)}" for c in below)
        lines.append(f"{what}: {listed or 'none'}.")
    return lines


def render(report: dict[str, Any]) -> str:
    """Return the report as Markdown tables."""
    rows = [
        [
            f"{case['loss']} ({case['space']})",
            f"{case['rows_per_second'] / 1e6:.0f}",
            "—" if case["ratio"] is None else f"{case['numpy_rows_per_second'] / 1e6:.1f}",
            "—" if case["ratio"] is None else f"{case['ratio']:.1f} ×",
        ]
        for case in report["cases"]
    ]
    parts = [
        headline(report["machine"], report["versions"]),
        f"Value, gradient and hessian on one core, arrays of {ROWS:,} float64 rows.",
        markdown(("loss (space)", "fastloss, Mrow/s", "NumPy, Mrow/s", "ratio"), rows),
    ]
    if report["without_expressions"]:
        parts.append(f"No NumPy expressions are written for: {', '.join(report['without_expressions'])}.")
    parts += _below(report["cases"])
    parts.append(figures_table(report["figures"]))
    return "\n\n".join(parts)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="of which the best counts")
    parser.add_argument("--seconds", type=float, default=0.03, help="of each case in each round")
    parser.add_argument("--loss", action="append", help="measure this one alone; may be given several times")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    report = measure(given.rounds, given.seconds, given.loss)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(render(report))


if __name__ == "__main__":
    main()
