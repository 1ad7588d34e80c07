"""Hit rate at k: whether a relevant candidate is among the first k of a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.double_double import divide_parts, product_parts, two_sum
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.ranked import end_of_ties, positives_among, whole_rank
from fastloss_kernels.rankings.base import RankingAtK

# A miss that is less likely does not change a digit.
_UNLIKELY = 2.0**-60


@formula
def hit_rate(score, label, n_positive, parameters, scratch) -> float:
    """Compute the probability that a relevant candidate is among the first k.

    Of m tied candidates with r relevant ones, c of whose ranks count, none of the c is relevant with the probability
    C(m − r, c)/C(m, c), the product over i < min(c, r) of (m − max(c, r) − i)/(m − i).
    """
    last_rank = whole_rank(float(parameters[1]), score.shape[0])
    start = 0
    # The labels of equal scores descend, so the first of them tells whether any is relevant.
    while start < last_rank and not label[start] > 0.0:
        start = end_of_ties(score, start)
    value = 0.0
    if start < last_rank:
        end = end_of_ties(score, start)
        n_tied = end - start
        n_relevant = positives_among(label, start, end)
        n_counted = min(n_tied, last_rank - start)
        miss = 1.0
        miss_lo = 0.0
        i = 0
        while i < min(n_counted, n_relevant) and miss > _UNLIKELY:
            miss, miss_lo = product_parts(miss, miss_lo, float(n_tied - max(n_counted, n_relevant) - i), 0.0)
            miss, miss_lo = divide_parts(miss, miss_lo, float(n_tied - i), 0.0)
            i += 1
        hit, hit_lo = two_sum(1.0, -miss)
        value = hit + (hit_lo - miss_lo)
    return value


@dataclass(frozen=True)
class HitRate(RankingAtK):
    """1 if a relevant candidate is among the first k, else 0; a candidate is relevant if its label is above 0.

    Parameters
    ----------
    k : int
        How many candidates count.
    """

    name: ClassVar[str] = "hit_rate"
    aliases: ClassVar[tuple[str, ...]] = ("hit_ratio", "hr", "success_at_k")
    needs_k: ClassVar[bool] = True
    ranking = staticmethod(hit_rate)
    definition = "1 if a candidate with y > 0 is among the first k, else 0; ties are averaged over every order"
    source = "trec_eval, success; ties: as ndcg"
