"""Average precision of a list; its mean over lists is the mean average precision (MAP)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON
from fastloss_kernels.double_double import divide_parts, product_parts, two_sum
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.ranked import end_of_ties, positives_among, whole_rank
from fastloss_kernels.rankings.base import Ranking, RankingAtK


@formula
def average_precision(score, label, n_positive, parameters, scratch) -> float:
    """Compute the expected sum of the precisions at the relevant candidates, over a number of relevant ones.

    Let A candidates, R of them relevant, stand above m tied ones, r of them relevant. The i-th of the tied ones is
    relevant with the probability r/m, and then (i − 1)·(r − 1)/(m − 1) relevant ones are expected among the tied ones
    above it. So its expected share is r/m·(R + 1 + (i − 1)·(r − 1)/(m − 1))/(A + i). Numerators times m − 1 are whole.
    """
    last_rank = whole_rank(float(parameters[1]), score.shape[0])
    total = 0.0
    total_lo = 0.0
    n_above = 0
    start = 0
    while start < last_rank:
        end = end_of_ties(score, start)
        if label[start] > 0.0:
            n_tied = end - start
            n_relevant = positives_among(label, start, end)
            others = max(n_tied - 1, 1)
            numerator = float(n_above + 1) * float(others)
            part = 0.0
            part_lo = 0.0
            for rank in range(start + 1, min(end, last_rank) + 1):
                term, term_lo = divide_parts(numerator, 0.0, float(rank), 0.0)
                part, lost = two_sum(part, term)
                part_lo += lost + term_lo
                numerator += float(n_relevant - 1)
            if n_tied > 1:
                part, part_lo = product_parts(part, part_lo, float(n_relevant), 0.0)
                part, part_lo = divide_parts(part, part_lo, float(n_tied) * float(others), 0.0)
            total, lost = two_sum(total, part)
            total_lo += lost + part_lo
            n_above += n_relevant
        start = end
    divisor = float(n_positive)
    if parameters[2] > 0.0:
        divisor = min(divisor, float(parameters[1]))
    total, total_lo = divide_parts(total, total_lo, divisor, 0.0)
    return total + total_lo


@dataclass(frozen=True)
class MeanAveragePrecision(RankingAtK):
    """The sum of the precisions at the relevant candidates among the first k, over the number of relevant ones.

    A candidate is relevant if its label is above 0. The mean over lists is known as MAP.

    Parameters
    ----------
    k : int or None
        The last rank that counts. None: every rank counts.
    denominator : {"positives", "reachable"}
        All relevant candidates, or at most k of them.
    """

    denominator: str = "positives"

    name: ClassVar[str] = "map"
    aliases: ClassVar[tuple[str, ...]] = ("mean_average_precision",)
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {**Ranking.choices, "denominator": ("positives", "reachable")}
    ranking = staticmethod(average_precision)
    definition = (
        "Σ precision at each candidate with y > 0 up to rank k / number of candidates with y > 0; "
        "ties are averaged over every order"
    )
    source = (
        "Buckley and Voorhees, Evaluating evaluation measure stability, SIGIR 2000; ties: McSherry and Najork, "
        "Computing information retrieval performance measures efficiently in the presence of tied scores, ECIR 2008"
    )

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return what the formula reads: the last rank that counts, and whether it bounds the divisor."""
        return (*super().parameters(space, epsilon), float(self.denominator == "reachable"))
