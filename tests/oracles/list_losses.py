"""Every list loss from its definition, in arithmetic so precise that no digit of a float64 result is in doubt.

An oracle is ``oracle(scores, labels, loss) -> (value, [gradient], [hessian])`` with mpmath numbers in and out, one for
each candidate; it reads nothing of the loss but its parameters. A masked candidate's score is None, in the spaces
logit, logprob and margin also −∞. The labels of a loss that reads an index are ``[index]``.

Adding a list loss adds its entry to `LIST_ORACLES`; and to `LISTS`, where its lists are not those of a cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import mpmath
from mpmath import mpf

from tests.oracles.losses import EPSILON, PRECISION_DIGITS, xlogy

__all__ = ["LISTS", "LIST_ORACLES", "LONG_DIGITS", "PRECISION_DIGITS", "Lists"]

# Enough for long lists of moderate scores, and ten times as fast.
LONG_DIGITS = 60

Outputs = tuple[Any, list[Any], list[Any]]
ListOracle = Callable[[Sequence[Any], Sequence[Any], Any], Outputs]


class Lists(NamedTuple):
    """How the lists of a loss are made.

    Attributes
    ----------
    labels : tuple of {"one-hot", "multi-hot", "soft", "distribution", "graded", "vector", "index"}
        "soft" labels are any in [0, 1]; a "distribution" adds up to 1; "graded" ones are 0 to 4; a "vector" holds
        numbers of both signs. The accuracy of derivatives is held to a few ULP for "one-hot" and "index", and to
        the rounding of the parts for others.
    longest : int
        The longest list that is tried, where an oracle of pairs takes too long.
    cancelling : mapping of (space, output) to reason
        Outputs that pass through zero as a difference of their own definition; they are held to as much as one
        rounding of scores, labels or parameters would move them.
    """

    labels: tuple[str, ...] = ("one-hot", "multi-hot", "soft")
    longest: int = 5000
    cancelling: Mapping[tuple[str, str], str] = {}


LISTS: dict[str, Lists] = {
    "SparseCategoricalCrossentropy": Lists(labels=("index",)),
}


# ---------------------------------------------------------------------------------------------------------------
# Parts of definitions


def is_present(score: Any) -> bool:
    """Tell whether a logit, log-probability or margin is unmasked."""
    return score is not None and score != -mpmath.inf


def softmax(scores: Sequence[Any]) -> list[Any]:
    """e^s/Σe^s, 0 where masked."""
    highest = max(s for s in scores if is_present(s))
    if highest == mpmath.inf:
        return [mpf(int(s == highest)) if is_present(s) else mpf(0) for s in scores]
    e = [mpmath.exp(s - highest) if is_present(s) else mpf(0) for s in scores]
    total = mpmath.fsum(e)
    return [x / total for x in e]


def costs(scores: Sequence[Any]) -> list[Any]:
    """−log of the softmax, ∞ where masked."""
    highest = max(s for s in scores if is_present(s))
    if highest == mpmath.inf:
        return [mpf(0) if s == highest else mpmath.inf for s in scores]
    total = mpmath.fsum(mpmath.exp(s - highest) for s in scores if is_present(s))
    others = mpmath.fsum(mpmath.exp(s - highest) for s in scores if is_present(s)) - 1
    log_total = mpmath.log1p(others) if others > 0 else mpmath.log(total)
    return [(highest - s) + log_total if is_present(s) else mpmath.inf for s in scores]


def product(a: Any, b: Any) -> Any:
    """a·b with 0·∞ = 0."""
    return mpf(0) if a == 0 or b == 0 else a * b


def smoothed(labels: Sequence[Any], present: Sequence[bool], loss: Any) -> list[Any]:
    """y·(1 − s) + s/K where unmasked; a masked candidate keeps y·(1 − s)."""
    s = mpf(loss.label_smoothing)
    count = sum(present)
    return [y * (1 - s) + (s / count if here else 0) for y, here in zip(labels, present, strict=True)]


def one_hot(index: Any, length: int) -> list[Any]:
    return [mpf(int(j == index)) for j in range(length)]


# ---------------------------------------------------------------------------------------------------------------
# Losses


def crossentropy_of_logits(scores: Sequence[Any], y: Sequence[Any]) -> Outputs:
    """−Σ y·log p for labels as they come."""
    p = softmax(scores)
    value = mpmath.fsum(product(label, cost) for label, cost in zip(y, costs(scores), strict=True))
    here = [is_present(s) for s in scores]
    total = mpmath.fsum(label for label, present in zip(y, here, strict=True) if present)
    gradient = [p[j] * total - y[j] if here[j] else mpf(0) for j in range(len(scores))]
    hessian = [total * p[j] * (1 - p[j]) for j in range(len(scores))]
    return value, gradient, hessian


def crossentropy_of_probabilities(scores: Sequence[Any], y: Sequence[Any]) -> Outputs:
    """−Σ y·log(max(p, ε)), the probability of a masked candidate 0; derivatives −y/p and y/p², p from ε on."""
    value = -mpmath.fsum(xlogy(y[j], max(scores[j] or mpf(0), EPSILON)) for j in range(len(scores)))
    gradient = [mpf(0) if s is None else -y[j] / max(s, EPSILON) for j, s in enumerate(scores)]
    hessian = [mpf(0) if s is None else y[j] / max(s, EPSILON) ** 2 for j, s in enumerate(scores)]
    return value, gradient, hessian


def crossentropy_of_log_probabilities(scores: Sequence[Any], y: Sequence[Any]) -> Outputs:
    ceiling = -mpmath.log(EPSILON)
    value = mpmath.fsum(product(y[j], min(ceiling, -s) if is_present(s) else ceiling) for j, s in enumerate(scores))
    return value, [-y[j] if is_present(s) else mpf(0) for j, s in enumerate(scores)], [mpf(0)] * len(scores)


def categorical_crossentropy_logit(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    return crossentropy_of_logits(scores, smoothed(labels, [is_present(s) for s in scores], loss))


def categorical_crossentropy_prob(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    return crossentropy_of_probabilities(scores, smoothed(labels, [s is not None for s in scores], loss))


def categorical_crossentropy_logprob(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    return crossentropy_of_log_probabilities(scores, smoothed(labels, [is_present(s) for s in scores], loss))


def sparse(oracle: ListOracle) -> ListOracle:
    """The same of an index."""
    return lambda scores, labels, loss: oracle(scores, one_hot(labels[0], len(scores)), loss)


LIST_ORACLES: dict[str, dict[str, ListOracle]] = {
    "CategoricalCrossentropy": {
        "logit": categorical_crossentropy_logit,
        "prob": categorical_crossentropy_prob,
        "logprob": categorical_crossentropy_logprob,
    },
    "SparseCategoricalCrossentropy": {
        "logit": sparse(categorical_crossentropy_logit),
        "prob": sparse(categorical_crossentropy_prob),
        "logprob": sparse(categorical_crossentropy_logprob),
    },
}
