"""Rank-biased precision (RBP): what a reader finds who goes on to the next candidate with a fixed probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval
from fastloss_kernels.double_double import divide_parts, multiply_parts, two_sum
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.auc import add_parts
from fastloss_kernels.listwise.ranked import end_of_ties, positives_among, whole_rank
from fastloss_kernels.rankings.base import RankingAtK


@formula
def rank_biased_precision(score, label, n_positive, parameters, scratch) -> float:
    """Compute (1 − p)·Σ p^(rank − 1) of relevant candidates, of tied ones the mean weight of their ranks."""
    last_rank = whole_rank(float(parameters[1]), score.shape[0])
    p = float(parameters[2])
    weight, weight_lo = two_sum(1.0, -p)
    total = 0.0
    total_lo = 0.0
    start = 0
    # Far down, nobody reads any more.
    while start < last_rank and weight > 0.0:
        end = end_of_ties(score, start)
        n_relevant = positives_among(label, start, end)
        part = 0.0
        part_lo = 0.0
        for _ in range(start, min(end, last_rank)):
            part, part_lo = add_parts(part, part_lo, weight, weight_lo)
            weight, weight_lo = multiply_parts(p, weight, weight_lo)
        if n_relevant < end - start:
            part, part_lo = multiply_parts(float(n_relevant), part, part_lo)
            part, part_lo = divide_parts(part, part_lo, float(end - start), 0.0)
        total, total_lo = add_parts(total, total_lo, part, part_lo)
        start = end
    return total + total_lo


@dataclass(frozen=True)
class RankBiasedPrecision(RankingAtK):
    """The mean number of relevant candidates that a reader looks at, over that of all; relevant are labels above 0.

    Parameters
    ----------
    k : int or None
        The last rank that counts. None: every rank counts.
    p : float
        The probability that a reader goes on to the next candidate; 0.9 is the one of trec_eval.
    """

    p: float = 0.9

    name: ClassVar[str] = "rbp"
    aliases: ClassVar[tuple[str, ...]] = ("rank_biased_precision",)
    ranges = {**RankingAtK.ranges, "p": Interval(0.0, 1.0, low_open=True, high_open=True)}
    ranking = staticmethod(rank_biased_precision)
    definition = "(1 − p)·Σ p^(rank − 1) of the candidates with y > 0, by score; ties are averaged over every order"
    source = "Moffat and Zobel, Rank-biased precision for measurement of retrieval effectiveness, TOIS 27, 2008"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return what the formula reads: the last rank that counts, and p."""
        return (*super().parameters(space, epsilon), float(self.p))
