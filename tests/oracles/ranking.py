"""Metrics of ranking from their definitions, in exact fractions; never calls the library."""

from __future__ import annotations

from collections.abc import Iterable
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
