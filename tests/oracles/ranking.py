"""Metrics of ranking from their definitions, in exact fractions; never calls the library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import mpmath
from mpmath import mpf

Row = tuple[float, float, float]  # label, score, weight


def masses(rows: Iterable[Row]) -> dict[float, tuple[Fraction, Fraction]]:
    """Return positive and negative mass of every score; −0 and 0 are one."""
    found: dict[float, tuple[Fraction, Fraction]] = {}
    for label, score, weight in rows:
        positive, negative = found.get(score + 0.0, (Fraction(0), Fraction(0)))
        y, w = Fraction(label), Fraction(weight)
        found[score + 0.0] = positive + w * y, negative + w * (1 - y)
    return found


def roc_auc(rows: Iterable[Row]) -> Fraction | None:
    """Return Σ over pairs of a positive and a negative, 1 where the positive has the higher score and ½ in a tie."""
    found = list(masses(rows).items())
    pairs = sum((p * n for _, (p, _) in found for _, (_, n) in found), Fraction(0))
    won = Fraction(0)
    for score, (p, _) in found:
        for other, (_, n) in found:
            won += p * n * (Fraction(1) if score > other else Fraction(1, 2) if score == other else 0)
    return won / pairs if pairs else None


def gauc(
    groups: Iterable[Sequence[Row]], weighting: str, *, drop_constant: bool = False, one_class: float | None = None
) -> Fraction | None:
    """Return the mean of the groups' AUCs, weighted by what each group holds."""
    total = weight = Fraction(0)
    for rows in groups:
        positive = sum((Fraction(w) * Fraction(y) for y, _, w in rows), Fraction(0))
        negative = sum((Fraction(w) * (1 - Fraction(y)) for y, _, w in rows), Fraction(0))
        of_group = {
            "impressions": Fraction(len(rows)),
            "uniform": Fraction(1),
            "positives": positive,
            "sample_weight": positive + negative,
            "pairs": positive * negative,
        }[weighting]
        if positive and negative:
            if drop_constant and len(masses(rows)) == 1:
                continue
            auc = roc_auc(rows)
            assert auc is not None
        elif one_class is None:
            continue
        else:
            auc = Fraction(one_class)
        total, weight = total + of_group * auc, weight + of_group
    return total / weight if weight else None


def orders(scores: Sequence[float]) -> Iterable[list[int]]:
    """Yield the candidates in every order that their scores allow, each equally often."""
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            yield list(order)


def labels_in_order(labels: Sequence[float], scores: Sequence[float]) -> Iterable[tuple[float, ...]]:
    """Yield the labels, from the first rank on, in every order that the scores allow, each equally often."""
    tied = [
        [y for y, s in zip(labels, scores, strict=True) if s == score] for score in sorted(set(scores), reverse=True)
    ]
    for chosen in itertools.product(*(sorted(set(itertools.permutations(group))) for group in tied)):
        yield tuple(itertools.chain(*chosen))


def expected(value: Callable[[Sequence[float]], Any], labels: Sequence[float], scores: Sequence[float]) -> Any:
    """Return the mean of a number over every order of the labels."""
    found = [value(order) for order in labels_in_order(labels, scores)]
    return sum(found[1:], found[0]) / len(found)


def gain_at(order: Sequence[float], k: float, exp2: bool = False) -> mpf:
    """Return Σ gain/log₂(1 + rank) over ranks up to k; the gain is the label, or 2^label − 1."""
    ranked = [(rank, mpf(y)) for rank, y in enumerate(order, 1) if rank <= k]
    return mpmath.fsum((mpf(2) ** y - 1 if exp2 else y) / mpmath.log(1 + rank, 2) for rank, y in ranked)


def dcg(labels: Sequence[float], scores: Sequence[float], k: float = math.inf, exp2: bool = False) -> mpf:
    """Return the expected discounted cumulative gain, to many digits."""
    with mpmath.workdps(50):
        return expected(lambda order: gain_at(order, k, exp2), labels, scores)


def ndcg(labels: Sequence[float], scores: Sequence[float], k: float = math.inf, exp2: bool = False) -> mpf:
    """Return the expected discounted cumulative gain over that of the labels in descending order."""
    with mpmath.workdps(50):
        return dcg(labels, scores, k, exp2) / gain_at(sorted(labels, reverse=True), k, exp2)


def hits_at(order: Sequence[float], k: float) -> Fraction:
    """Return how many of the first k labels are above 0."""
    return Fraction(sum(y > 0 for rank, y in enumerate(order, 1) if rank <= k))


def precision_at_k(labels: Sequence[float], scores: Sequence[float], k: float, denominator: str = "k") -> Fraction:
    """Return the expected share of relevant candidates among the first k."""
    divisor = min(k, len(labels)) if denominator == "length" else k
    return expected(lambda order: hits_at(order, k), labels, scores) / Fraction(divisor)


def positives(labels: Sequence[float], k: float, denominator: str) -> Fraction:
    """Return how many labels are above 0, or at most k of them."""
    found = sum(y > 0 for y in labels)
    return Fraction(min(k, found) if denominator == "reachable" else found)


def recall_at_k(
    labels: Sequence[float], scores: Sequence[float], k: float, denominator: str = "positives"
) -> Fraction:
    """Return the expected share of the relevant candidates that are among the first k."""
    return expected(lambda order: hits_at(order, k), labels, scores) / positives(labels, k, denominator)


def hit_rate(labels: Sequence[float], scores: Sequence[float], k: float) -> Fraction:
    """Return the probability that one of the first k labels is above 0."""
    return expected(lambda order: Fraction(hits_at(order, k) > 0), labels, scores)


def mean_average_precision(
    labels: Sequence[float], scores: Sequence[float], k: float = math.inf, denominator: str = "positives"
) -> Fraction:
    """Return the expected sum of the precisions at relevant ranks up to k, over the number of relevant candidates."""

    def total(order: Sequence[float]) -> Fraction:
        ranks = [rank for rank, y in enumerate(order, 1) if y > 0 and rank <= k]
        return sum((Fraction(above, rank) for above, rank in enumerate(ranks, 1)), Fraction(0))

    return expected(total, labels, scores) / positives(labels, k, denominator)


def reciprocal_rank(labels: Sequence[float], scores: Sequence[float], k: float = math.inf) -> Fraction:
    """Return the mean over all orders of 1/rank of the first relevant candidate, 0 where that rank is beyond k."""
    found = []
    for order in orders(scores):
        rank = 1 + next(place for place, candidate in enumerate(order) if labels[candidate] > 0)
        found.append(Fraction(1, rank) if rank <= k else Fraction(0))
    return sum(found, Fraction(0)) / len(found)


def reciprocal_rank_of_ties(above: int, tied: int, relevant: int, k: float = math.inf) -> Fraction:
    """Return the same, of so many tied candidates, by counting where the first relevant one may stand."""
    return sum(
        (
            Fraction(math.comb(tied - place, relevant - 1), math.comb(tied, relevant) * (above + place))
            for place in range(1, tied - relevant + 2)
            if above + place <= k
        ),
        Fraction(0),
    )


def curve(rows: Iterable[Row]) -> list[tuple[float, Fraction, Fraction]]:
    """Return what each threshold gives, from the highest score down: the score, and both masses at it and above."""
    points: list[tuple[float, Fraction, Fraction]] = []
    positive = negative = Fraction(0)
    for score, (p, n) in sorted(masses(rows).items(), reverse=True):
        positive, negative = positive + p, negative + n
        points.append((score, positive, negative))
    return points


def steps(rows: Iterable[Row]) -> list[tuple[Fraction, Fraction, Fraction, Fraction]]:
    """Return both masses before and after each score, from the highest down."""
    points = [(Fraction(0), Fraction(0)), *((p, n) for _, p, n in curve(rows))]
    return [(*before, *after) for before, after in itertools.pairwise(points)]


def average_precision(rows: Iterable[Row]) -> Fraction | None:
    """Return Σ (recall − recall before) · precision over the scores."""
    found = steps(rows)
    if not found or found[-1][2] == 0:
        return None
    return sum(((p - p0) * p / (p + n) for p0, _, p, n in found if p > p0), Fraction(0)) / found[-1][2]


def kolmogorov_smirnov(rows: Iterable[Row]) -> Fraction | None:
    """Return the largest |true positive rate − false positive rate|."""
    points = curve(rows)
    if not points or 0 in points[-1][1:]:
        return None
    _, positives, negatives = points[-1]
    return max(abs(p / positives - n / negatives) for _, p, n in points)


def partial_roc_auc(rows: Iterable[Row], max_fpr: float) -> Fraction | None:
    """Return McClish's standardised area below the lines of the ROC curve up to a false positive rate."""
    found = steps(rows)
    if not found or 0 in found[-1][2:]:
        return None
    positives, negatives = found[-1][2:]
    end, area = Fraction(max_fpr), Fraction(0)
    for p0, n0, p, n in found:
        x0, y0, x, y = n0 / negatives, p0 / positives, n / negatives, p / positives
        if x0 >= end or x == x0:
            continue
        cut = min(x, end)
        area += (cut - x0) * (y0 + y0 + (y - y0) * (cut - x0) / (x - x0)) / 2
    return (1 + (area - end * end / 2) / (end - end * end / 2)) / 2


def lift(rows: Iterable[Row], top: float) -> Fraction | None:
    """Return the rate of positives in the top share of the weight over that of all; a tie at its end in proportion."""
    found = steps(rows)
    if not found or found[-1][2] == 0:
        return None
    positives, weight = found[-1][2], sum(found[-1][2:])
    wanted, taken = Fraction(top) * weight, Fraction(0)
    for p0, n0, p, n in found:
        inside = p + n - p0 - n0
        taken += (p - p0) * min(inside, max(wanted - p0 - n0, 0)) / inside
    return taken / wanted / (positives / weight)


def rates(rows: Iterable[Row]) -> list[tuple[float, float, float, float]]:
    """Return threshold, precision, recall and false positive rate of each score, masses and quotients rounded."""
    points = curve(rows)
    if not points:
        return []
    _, positives, negatives = points[-1]

    def quotient(a: Fraction, b: Fraction) -> float:
        return float(a) / float(b) if b else math.nan

    return [(s, quotient(p, p + n), quotient(p, positives), quotient(n, negatives)) for s, p, n in points]


def mean_over_orders(
    value: Callable[[Sequence[float]], Fraction], label: Sequence[float], score: Sequence[float]
) -> Fraction:
    """Return the mean of what is computed of the labels in the order of the ranks, over every order of ties."""
    found = [value([label[i] for i in order]) for order in orders(score)]
    return sum(found, Fraction(0)) / len(found)


def expected_reciprocal_rank(labels: Sequence[int], scores: Sequence[float], k: int, max_label: int = 4) -> Fraction:
    """Return Σ 1/rank · R · Π (1 − R above), with R = (2^y − 1)/2^max_label."""

    def value(ranked: Sequence[float]) -> Fraction:
        total, reading = Fraction(0), Fraction(1)
        for rank, y in enumerate(ranked[:k], 1):
            stop = Fraction(2 ** int(y) - 1, 2**max_label)
            total += reading * stop / rank
            reading *= 1 - stop
        return total

    return mean_over_orders(value, labels, scores)


def rank_biased_precision(labels: Sequence[float], scores: Sequence[float], p: float, k: float = math.inf) -> Fraction:
    """Return (1 − p)·Σ p^(rank − 1) over relevant candidates."""
    step = Fraction(p)

    def value(ranked: Sequence[float]) -> Fraction:
        weights = (step**i for i, y in enumerate(ranked) if y > 0 and i < k)
        return (1 - step) * sum(weights, Fraction(0))

    return mean_over_orders(value, labels, scores)


def bpref(labels: Sequence[float], scores: Sequence[float]) -> Fraction:
    """Return the mean over relevant candidates of 1 − min(n, R)/min(N, R), n of the N irrelevant ones above."""

    def value(ranked: Sequence[float]) -> Fraction:
        n_relevant = sum(y > 0 for y in ranked)
        least = min(len(ranked) - n_relevant, n_relevant)
        total, above = Fraction(0), 0
        for y in ranked:
            if y > 0:
                total += 1 - Fraction(min(above, n_relevant), least) if above else 1
            else:
                above += 1
        return total / n_relevant

    return mean_over_orders(value, labels, scores)


def r_precision(labels: Sequence[float], scores: Sequence[float]) -> Fraction:
    """Return the share of relevant candidates among the first R, R of them being relevant."""
    n_relevant = sum(y > 0 for y in labels)
    return mean_over_orders(
        lambda ranked: Fraction(sum(y > 0 for y in ranked[:n_relevant]), n_relevant), labels, scores
    )


def xauc(labels: Sequence[float], scores: Sequence[float]) -> Fraction | None:
    """Return the share of pairs with different labels whose scores are in the same order, ½ where these are equal."""
    found = []
    for (y, s), (y0, s0) in itertools.combinations(zip(labels, scores, strict=True), 2):
        if y != y0:
            found.append(Fraction(1, 2) if s == s0 else Fraction(int((y > y0) == (s > s0))))
    return sum(found, Fraction(0)) / len(found) if found else None
