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
from tests.oracles.losses import ORACLES as LOSS_ORACLES

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
    "ApproxNDCG": Lists(
        labels=("one-hot", "graded"),
        longest=150,
        cancelling={(space, "hessian"): "terms of both signs" for space in ("logit", "margin", "value")},
    ),
    "CategoricalFocalCrossentropy": Lists(
        cancelling={
            ("logit", "hessian"): "the loss is not convex in the logits",
            ("prob", "hessian"): "the oracle's own terms are of both signs",
        }
    ),
    "MultiMargin": Lists(labels=("index",)),
    "MultiPositiveCrossentropy": Lists(
        longest=500, cancelling={("prob", "value"): "the logarithm of a sum of probabilities near 1"}
    ),
    "CosineSimilarity": Lists(labels=("vector",)),
    "Entropy": Lists(
        labels=("vector",), cancelling={("logit", "value"): "a subnormal probability times its logarithm"}
    ),
    "JensenShannon": Lists(
        labels=("distribution", "one-hot"),
        cancelling={
            ("logit", "gradient"): "a subnormal probability times its logarithm",
            ("logit", "hessian"): "terms of both signs",
        },
    ),
    "KLDivergence": Lists(
        labels=("distribution", "one-hot"),
        cancelling={(space, "value"): "terms of both signs" for space in ("logit", "prob", "logprob")},
    ),
    "L1Norm": Lists(labels=("vector", "graded")),
    "L2Norm": Lists(labels=("vector", "graded")),
    "LambdaRank": Lists(labels=("one-hot", "graded"), longest=150),
    "ListMLE": Lists(labels=("graded", "vector"), longest=300),
    "ListNet": Lists(labels=("graded", "vector")),
    "PairwiseHinge": Lists(labels=("one-hot", "graded", "vector"), longest=150),
    "PairwiseLogistic": Lists(labels=("one-hot", "graded", "vector"), longest=150),
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


# ---------------------------------------------------------------------------------------------------------------
# Distributions


def shifted(outputs: Outputs, by: Any) -> Outputs:
    """The same with a constant added to the value."""
    return outputs[0] + by, outputs[1], outputs[2]


def kl_divergence(oracle: Callable[[Sequence[Any], Sequence[Any]], Outputs]) -> ListOracle:
    """The cross-entropy less the labels' entropy."""
    return lambda scores, t, loss: shifted(oracle(scores, t), mpmath.fsum(xlogy(x, x) for x in t))


def through_softmax(scores: Sequence[Any], p: Sequence[Any], slopes: Sequence[Any], bends: Sequence[Any]) -> Outputs:
    """Derivatives by logits, by the chain rule, of what has these derivatives by each probability alone; no value."""
    n = len(scores)
    mean = mpmath.fsum(product(p[k], slopes[k]) for k in range(n))
    own = [product(p[k] ** 2, bends[k]) for k in range(n)]
    gradient = [product(p[j], slopes[j]) - p[j] * mean for j in range(n)]
    # Σ_k bend_k·(∂p_k/∂s_j)² + Σ_k slope_k·∂²p_k/∂s_j².
    hessian = []
    for j in range(n):
        others = mpmath.fsum(own[k] for k in range(n) if k != j)
        moved = own[j] * (1 - p[j]) ** 2 + p[j] ** 2 * others
        hessian.append(moved + (1 - 2 * p[j]) * gradient[j])
    return mpf(0), gradient, hessian


def jensen_shannon(p: Sequence[Any], t: Sequence[Any]) -> Outputs:
    def log_to_mean(x: Any, other: Any) -> Any:
        if x == 0:
            return mpmath.log(2) if other == 0 else -mpmath.inf
        return mpmath.log(2 * x / (x + other))

    n = len(p)
    terms = [product(t[j], log_to_mean(t[j], p[j])) + product(p[j], log_to_mean(p[j], t[j])) for j in range(n)]
    slopes = [log_to_mean(p[j], t[j]) / 2 for j in range(n)]
    bends = [
        mpf(0) if t[j] == 0 else (mpmath.inf if p[j] == 0 else t[j] / (2 * p[j] * (p[j] + t[j]))) for j in range(n)
    ]
    return mpmath.fsum(terms) / 2, slopes, bends


def where_present(scores: Sequence[Any], numbers: Sequence[Any]) -> list[Any]:
    return [mpf(0) if s is None else x for s, x in zip(scores, numbers, strict=True)]


def jensen_shannon_prob(scores: Sequence[Any], t: Sequence[Any], loss: Any) -> Outputs:
    value, slopes, bends = jensen_shannon([s or mpf(0) for s in scores], t)
    return value, where_present(scores, slopes), where_present(scores, bends)


def jensen_shannon_logit(scores: Sequence[Any], t: Sequence[Any], loss: Any) -> Outputs:
    p = softmax(scores)
    value, slopes, bends = jensen_shannon(p, t)
    return value, *through_softmax(scores, p, slopes, bends)[1:]


def entropy_prob(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    q = [s or mpf(0) for s in scores]
    slopes = [mpmath.inf if x == 0 else -1 - mpmath.log(x) for x in q]
    bends = [-mpmath.inf if x == 0 else -1 / x for x in q]
    return -mpmath.fsum(xlogy(x, x) for x in q), where_present(scores, slopes), where_present(scores, bends)


def entropy_logprob(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    q = [mpmath.exp(s) if is_present(s) else mpf(0) for s in scores]
    value = -mpmath.fsum(product(x, s) for x, s in zip(q, scores, strict=True) if is_present(s))
    gradient = [-x * (s + 1) if is_present(s) else mpf(0) for x, s in zip(q, scores, strict=True)]
    hessian = [-x * (s + 2) if is_present(s) else mpf(0) for x, s in zip(q, scores, strict=True)]
    return value, gradient, hessian


def entropy_logit(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    p = softmax(scores)
    logarithms = [-cost for cost in costs(scores)]
    value = -mpmath.fsum(product(x, logarithm) for x, logarithm in zip(p, logarithms, strict=True))
    slopes = [-1 - logarithm for logarithm in logarithms]
    bends = [-1 / x if x > 0 else -mpmath.inf for x in p]
    return value, *through_softmax(scores, p, slopes, bends)[1:]


def list_net(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    return crossentropy_of_logits(
        scores, softmax([y if is_present(s) else None for s, y in zip(scores, labels, strict=True)])
    )


# ---------------------------------------------------------------------------------------------------------------
# Sets


def tversky(scores: Sequence[Any], t: Sequence[Any], loss: Any, dice: bool = False) -> Outputs:
    alpha, beta = (mpf(1) / 2, mpf(1) / 2) if dice else (mpf(loss.alpha), mpf(loss.beta))
    smooth = mpf(loss.smooth) / (2 if dice else 1)
    here = [j for j, s in enumerate(scores) if s is not None]
    gradient, hessian = [mpf(0)] * len(scores), [mpf(0)] * len(scores)
    overlap = mpmath.fsum(scores[j] * t[j] for j in here) + smooth
    missed = mpmath.fsum(alpha * scores[j] * (1 - t[j]) + beta * (1 - scores[j]) * t[j] for j in here)
    total = overlap + missed
    if total == 0:
        return mpf(0), gradient, hessian
    for j in here:
        rise = t[j] + alpha * (1 - t[j]) - beta * t[j]
        gradient[j] = -(t[j] * total - overlap * rise) / total**2
        hessian[j] = -2 * rise / total * gradient[j]
    return missed / total, gradient, hessian


def dice(scores: Sequence[Any], t: Sequence[Any], loss: Any) -> Outputs:
    return tversky(scores, t, loss, dice=True)


# ---------------------------------------------------------------------------------------------------------------
# Vectors


def cosine_similarity(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    here = [j for j, s in enumerate(scores) if s is not None]
    dot = mpmath.fsum(scores[j] * labels[j] for j in here)
    square, label_square = (mpmath.fsum(x[j] ** 2 for j in here) for x in (scores, labels))
    gradient, hessian = [mpf(0)] * len(scores), [mpf(0)] * len(scores)
    if square == 0 or label_square == 0:
        return mpf(0), gradient, hessian
    norms = mpmath.sqrt(square * label_square)
    for j in here:
        s, t = scores[j], labels[j]
        gradient[j] = (dot * s / square - t) / norms
        hessian[j] = (2 * s * t + dot - 3 * dot * s**2 / square) / (square * norms)
    return -dot / norms, gradient, hessian


def l1_norm(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    differences = [mpf(0) if s is None else s - t for s, t in zip(scores, labels, strict=True)]
    return mpmath.fsum(map(abs, differences)), [mpmath.sign(d) for d in differences], [mpf(0)] * len(scores)


def l2_norm(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    differences = [mpf(0) if s is None else s - t for s, t in zip(scores, labels, strict=True)]
    square = mpmath.fsum(d**2 for d in differences)
    norm, nothing = mpmath.sqrt(square), [mpf(0)] * len(scores)
    if norm == 0:
        return norm, nothing, nothing
    hessian = [mpf(0) if s is None else (square - d**2) / norm**3 for s, d in zip(scores, differences, strict=True)]
    return norm, [d / norm for d in differences], hessian


# ---------------------------------------------------------------------------------------------------------------
# Pairs


def over_pairs(pair: Callable[[Any, Any], tuple[Any, Any, Any]]) -> ListOracle:
    """The mean of a function of s_loser − s_winner, given with its derivatives."""

    def oracle(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
        here = [j for j, s in enumerate(scores) if is_present(s)]
        pairs = [(i, j) for i in here for j in here if labels[i] > labels[j]]
        found = [pair(scores[j] - scores[i], loss) for i, j in pairs]
        gradient, hessian = [mpf(0)] * len(scores), [mpf(0)] * len(scores)
        for (i, j), (_, slope, bend) in zip(pairs, found, strict=True):
            gradient[i] -= slope / len(pairs)
            gradient[j] += slope / len(pairs)
            hessian[i] += bend / len(pairs)
            hessian[j] += bend / len(pairs)
        return mpmath.fsum(value for value, _, _ in found) / len(pairs), gradient, hessian

    return oracle


def logistic_pair(d: Any, loss: Any) -> tuple[Any, Any, Any]:
    if abs(d) == mpmath.inf:
        return max(d, mpf(0)), mpf(int(d > 0)), mpf(0)
    e = mpmath.exp(-abs(d))
    slope = 1 / (1 + e) if d > 0 else e / (1 + e)
    return max(d, mpf(0)) + mpmath.log1p(e), slope, e / (1 + e) ** 2


def hinge_pair(d: Any, loss: Any) -> tuple[Any, Any, Any]:
    slack = mpf(loss.margin) + d
    return max(slack, mpf(0)), mpf(int(slack > 0)), mpf(0)


# ---------------------------------------------------------------------------------------------------------------
# Rankings


def gains(labels: Sequence[Any], loss: Any) -> list[Any]:
    return [mpf(2) ** y - 1 if loss.gain == "exp2" else y for y in labels]


def order_of(numbers: Sequence[Any], here: Sequence[int]) -> list[int]:
    """Candidates from the highest number to the lowest; of equal ones the first is first."""
    return sorted(here, key=lambda j: -numbers[j])


def discount(rank: Any) -> Any:
    return 1 / mpmath.log(1 + rank, 2)


def ideal_dcg(labels: Sequence[Any], here: Sequence[int], loss: Any) -> Any:
    gain = gains(labels, loss)
    return mpmath.fsum(gain[j] * discount(rank) for rank, j in enumerate(order_of(labels, here), 1))


def lambda_rank(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    here = [j for j, s in enumerate(scores) if is_present(s)]
    gain, ideal, sigma = gains(labels, loss), ideal_dcg(labels, here, loss), mpf(loss.sigma)
    discounts = {j: discount(rank) for rank, j in enumerate(order_of(scores, here), 1)}
    value, gradient, hessian = mpf(0), [mpf(0)] * len(scores), [mpf(0)] * len(scores)
    for i in here:
        for j in here:
            if labels[i] > labels[j]:
                weight = (gain[i] - gain[j]) * abs(discounts[i] - discounts[j]) / ideal
                cost, slope, bend = logistic_pair(sigma * (scores[j] - scores[i]), loss)
                value += weight * cost
                gradient[i] -= weight * sigma * slope
                gradient[j] += weight * sigma * slope
                hessian[i] += weight * sigma**2 * bend
                hessian[j] += weight * sigma**2 * bend
    return value, gradient, hessian


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x)) if x > 0 else mpmath.exp(x) / (1 + mpmath.exp(x))


def approx_ndcg(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    here = [j for j, s in enumerate(scores) if is_present(s)]
    gain, ideal, temperature = gains(labels, loss), ideal_dcg(labels, here, loss), mpf(loss.temperature)
    value, gradient, hessian = mpf(0), [mpf(0)] * len(scores), [mpf(0)] * len(scores)
    if ideal == 0:
        return value, gradient, hessian
    for i in here:
        above = {j: sigmoid((scores[j] - scores[i]) / temperature) for j in here if j != i}
        slope = {j: p * sigmoid((scores[i] - scores[j]) / temperature) / temperature for j, p in above.items()}
        bend = {j: slope[j] * (1 - 2 * p) / temperature for j, p in above.items()}
        after = 2 + mpmath.fsum(above.values())
        log = mpmath.log(after)
        share = gain[i] / ideal * mpmath.log(2)
        first, second = share / (after * log**2), -share * (log + 2) / (after**2 * log**3)
        value -= share / log
        # The rank falls with the own score as much as it rises with all others.
        gradient[i] -= first * mpmath.fsum(slope.values())
        hessian[i] += first * mpmath.fsum(bend.values()) + second * mpmath.fsum(slope.values()) ** 2
        for j in above:
            gradient[j] += first * slope[j]
            hessian[j] += first * bend[j] + second * slope[j] ** 2
    return value, gradient, hessian


def list_mle(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    order = order_of(labels, [j for j, s in enumerate(scores) if is_present(s)])
    value, gradient, hessian = mpf(0), [mpf(0)] * len(scores), [mpf(0)] * len(scores)
    for position, i in enumerate(order):
        left = order[position:]
        mine = [scores[j] for j in left]
        value += costs(mine)[0]
        gradient[i] -= 1
        for j, p in zip(left, softmax(mine), strict=True):
            gradient[j] += p
            hessian[j] += p * (1 - p)
    return value, gradient, hessian


def multi_positive_logit(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    here = [is_present(s) for s in scores]
    n = len(scores)
    if loss.form in ("sum", "mean"):
        total = mpmath.fsum(y for y, present in zip(labels, here, strict=True) if present)
        divisor = total if loss.form == "mean" and total > 0 else mpf(1)
        value, gradient, hessian = crossentropy_of_logits(scores, labels)
        return value / divisor, [g / divisor for g in gradient], [h / divisor for h in hessian]
    highest = max(s for s in scores if is_present(s))
    if highest == mpmath.inf:
        e = [mpf(int(s == highest)) if present else mpf(0) for s, present in zip(scores, here, strict=True)]
    else:
        e = [mpmath.exp(s - highest) if present else mpf(0) for s, present in zip(scores, here, strict=True)]
    right = [y > 0 for y in labels]
    against = mpmath.fsum(x for x, y in zip(e, right, strict=True) if not y)
    gradient, hessian = [mpf(0)] * n, [mpf(0)] * n
    if loss.form == "mass":
        mass = mpmath.fsum(x for x, y in zip(e, right, strict=True) if y)
        both = mass + against
        for j in range(n):
            if right[j] and here[j]:
                # Of positives that an infinite negative leaves nothing, the shares are still those of their own.
                own = softmax([s if y else None for s, y in zip(scores, right, strict=True)])[j]
                gradient[j] = -own * against / both
                hessian[j] = e[j] * (both - e[j]) / both**2 - own * (1 - own)
            elif here[j]:
                gradient[j] = e[j] / both
                hessian[j] = e[j] * (both - e[j]) / both**2
        return (mpmath.log1p(against / mass) if mass > 0 else mpmath.inf), gradient, hessian
    terms = []
    for i in range(n):
        if right[i] and here[i]:
            shifted = [
                mpmath.exp(s - scores[i]) for s, y in zip(scores, right, strict=True) if is_present(s) and not y
            ]
            infinite = mpmath.inf in [s for s, y in zip(scores, right, strict=True) if is_present(s) and not y]
            finite = highest < mpmath.inf or scores[i] == highest
            r = mpmath.inf if infinite else mpmath.fsum(shifted) if finite or scores[i] < highest else mpf(0)
            terms.append(labels[i] * mpmath.log1p(r))
            share = mpf(1) if infinite else r / (1 + r)
            gradient[i] = -labels[i] * share
            hessian[i] = labels[i] * share * (1 - share)
            parts = (
                softmax([s if not y else None for s, y in zip(scores, right, strict=True)])
                if against_any(here, right)
                else [mpf(0)] * n
            )
            for j in range(n):
                if not right[j] and here[j]:
                    p = parts[j] * share
                    gradient[j] += labels[i] * p
                    hessian[j] += labels[i] * p * (1 - p)
        elif right[i]:
            terms.append(mpmath.inf)
    return mpmath.fsum(terms), gradient, hessian


def against_any(here: Sequence[bool], right: Sequence[bool]) -> bool:
    return any(present and not y for present, y in zip(here, right, strict=True))


def multi_positive_prob(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    n = len(scores)
    if loss.form in ("sum", "mean"):
        divisor = mpmath.fsum(labels) if loss.form == "mean" else mpf(1)
        return crossentropy_of_probabilities(scores, [y / divisor for y in labels])
    right = [y > 0 for y in labels]
    p = [mpf(0) if s is None else s for s in scores]
    gradient, hessian = [mpf(0)] * n, [mpf(0)] * n
    if loss.form == "mass":
        mass = max(EPSILON, mpmath.fsum(x for x, y in zip(p, right, strict=True) if y))
        for j in range(n):
            if right[j] and scores[j] is not None:
                gradient[j], hessian[j] = -1 / mass, 1 / mass**2
        return -mpmath.log(mass), gradient, hessian
    against = mpmath.fsum(x for x, y in zip(p, right, strict=True) if not y)
    value = mpf(0)
    for i in range(n):
        if right[i]:
            q = max(p[i], EPSILON)
            value += labels[i] * mpmath.log1p(against / q)
            if scores[i] is not None:
                gradient[i] = labels[i] * (1 / (q + against) - 1 / q)
                hessian[i] = labels[i] * (1 / q**2 - 1 / (q + against) ** 2)
            for j in range(n):
                if not right[j] and scores[j] is not None:
                    gradient[j] += labels[i] / (q + against)
                    hessian[j] -= labels[i] / (q + against) ** 2
    return value, gradient, hessian


def categorical_focal_logit(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    n = len(scores)
    here = [is_present(s) for s in scores]
    y = [label * mpf(loss.alpha) for label in smoothed(labels, here, loss)]
    gamma = mpf(loss.gamma)
    p, cost = softmax(scores), costs(scores)
    value = mpf(0)
    slopes, bends, q = [mpf(0)] * n, [mpf(0)] * n, [1 - x for x in p]
    for j in range(n):
        if y[j] == 0:
            continue
        if not here[j]:
            value = mpmath.inf
            continue
        value += y[j] * product(power(q[j], gamma), cost[j])
        # p·f′ and p·(p·f′)′ of f = −(1 − p)^γ·log p.
        slopes[j] = -y[j] * (power(q[j], gamma) + product(gamma * p[j] * power(q[j], gamma - 1, p[j]), cost[j]))
        bends[j] = -y[j] * gamma * p[j] * product(power(q[j], gamma - 1, p[j]), cost[j] - 2)
        bends[j] += y[j] * gamma * (gamma - 1) * p[j] ** 2 * product(power(q[j], gamma - 2, p[j]), cost[j])
        if q[j] == 0:
            slopes[j], bends[j] = -y[j] * power(q[j], gamma), mpf(0)
    all_slopes, all_bends = mpmath.fsum(slopes), mpmath.fsum(bends)
    gradient = [slopes[j] - p[j] * all_slopes if here[j] else mpf(0) for j in range(n)]
    hessian = [
        bends[j] * q[j] ** 2 + p[j] ** 2 * (all_bends - bends[j]) - p[j] * q[j] * all_slopes if here[j] else mpf(0)
        for j in range(n)
    ]
    return value, gradient, hessian


def power(base: Any, exponent: Any, factor: Any = 1) -> Any:
    """base^exponent with 0^0 = 1; 0 where the factor beside it is 0, or the base."""
    if factor == 0 or base == 0:
        return mpf(int(base == 0 and exponent == 0))
    return base**exponent


def categorical_focal_prob(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    y = smoothed(labels, [s is not None for s in scores], loss)
    rows = [LOSS_ORACLES["BinaryFocalCrossentropy"]["prob"](s or mpf(0), mpf(1), loss) for s in scores]
    here = [s is not None for s in scores]
    value = mpmath.fsum(label * row[0] for label, row in zip(y, rows, strict=True))
    gradient, hessian = (
        [product(y[j], rows[j][i]) if here[j] else mpf(0) for j in range(len(scores))] for i in (1, 2)
    )
    return value, gradient, hessian


def multi_margin(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    right = int(labels[0])
    here = [j for j, s in enumerate(scores) if is_present(s)]
    value, gradient, hessian = mpf(0), [mpf(0)] * len(scores), [mpf(0)] * len(scores)
    for j in here:
        slack = mpf(loss.margin) - scores[right] + scores[j] if is_present(scores[right]) else mpmath.inf
        if j != right and slack > 0:
            step, turn = (2 * slack, 2) if loss.p == 2 else (mpf(1), 0)
            value += slack**loss.p / len(here)
            for k in (j, right) if right in here else (j,):
                gradient[k] += step / len(here) * (1 if k == j else -1)
                hessian[k] += mpf(turn) / len(here)
    return value, gradient, hessian


def categorical_hinge_margin(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    value, gradient, hessian = categorical_hinge_prob([s if is_present(s) else None for s in scores], labels, loss)
    lost = any(y > 0 and not is_present(s) for s, y in zip(scores, labels, strict=True))
    if not lost:
        return value, gradient, hessian
    # An infinite slack: every part counts.
    gradient = categorical_hinge_slopes(scores, labels)
    return mpmath.inf, gradient, hessian


def categorical_hinge_slopes(scores: Sequence[Any], labels: Sequence[Any]) -> list[Any]:
    wrong = [(1 - y) * s if is_present(s) else -mpmath.inf for s, y in zip(scores, labels, strict=True)]
    k = wrong.index(max(wrong))
    return [(1 - y if j == k else 0) - y if is_present(scores[j]) else mpf(0) for j, y in enumerate(labels)]


def categorical_hinge_prob(scores: Sequence[Any], labels: Sequence[Any], loss: Any) -> Outputs:
    pairs = [(s, y) for s, y in zip(scores, labels, strict=True) if s is not None]
    slack = 1 + max((1 - y) * s for s, y in pairs) - mpmath.fsum(y * s for s, y in pairs)
    nothing = [mpf(0)] * len(scores)
    return (slack, categorical_hinge_slopes(scores, labels), nothing) if slack > 0 else (mpf(0), nothing, nothing)


LIST_ORACLES: dict[str, dict[str, ListOracle]] = {
    "ApproxNDCG": dict.fromkeys(("logit", "margin", "value"), approx_ndcg),
    "CosineSimilarity": {"value": cosine_similarity},
    "Dice": {"prob": dice},
    "Entropy": {"logit": entropy_logit, "prob": entropy_prob, "logprob": entropy_logprob},
    "JensenShannon": {"logit": jensen_shannon_logit, "prob": jensen_shannon_prob},
    "KLDivergence": {
        "logit": kl_divergence(crossentropy_of_logits),
        "prob": kl_divergence(crossentropy_of_probabilities),
        "logprob": kl_divergence(crossentropy_of_log_probabilities),
    },
    "L1Norm": {"value": l1_norm},
    "L2Norm": {"value": l2_norm},
    "LambdaRank": dict.fromkeys(("logit", "margin", "value"), lambda_rank),
    "ListMLE": {"logit": list_mle},
    "ListNet": {"logit": list_net},
    "PairwiseHinge": dict.fromkeys(("logit", "margin", "value"), over_pairs(hinge_pair)),
    "PairwiseLogistic": dict.fromkeys(("logit", "margin", "value"), over_pairs(logistic_pair)),
    "Tversky": {"prob": tversky},
    "CategoricalFocalCrossentropy": {"logit": categorical_focal_logit, "prob": categorical_focal_prob},
    "CategoricalHinge": {"margin": categorical_hinge_margin, "prob": categorical_hinge_prob},
    "CategoricalCrossentropy": {
        "logit": categorical_crossentropy_logit,
        "prob": categorical_crossentropy_prob,
        "logprob": categorical_crossentropy_logprob,
    },
    "MultiMargin": dict.fromkeys(("logit", "margin"), multi_margin),
    "MultiPositiveCrossentropy": {"logit": multi_positive_logit, "prob": multi_positive_prob},
    "SparseCategoricalCrossentropy": {
        "logit": sparse(categorical_crossentropy_logit),
        "prob": sparse(categorical_crossentropy_prob),
        "logprob": sparse(categorical_crossentropy_logprob),
    },
}
