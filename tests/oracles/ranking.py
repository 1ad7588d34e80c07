"""Metrics of ranking from their definitions, in exact fractions; never calls the library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

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


def orders(scores: Sequence[float]) -> Iterable[list[int]]:
    """Yield the candidates in every order that their scores allow, each equally often."""
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            yield list(order)


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
