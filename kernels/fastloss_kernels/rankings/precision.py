"""Precision at k: the share of relevant candidates among the first k of a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON
from fastloss_kernels.double_double import divide_parts, two_sum
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.ranked import end_of_ties, positives_among, whole_rank
from fastloss_kernels.rankings.base import Ranking, RankingAtK

# What the number of relevant candidates is divided by: k, the candidates that count, the relevant ones, at most k of
# these.
DIVISORS = ("k", "length", "positives", "reachable")


@formula
def expected_hits(score, label, last_rank: int) -> tuple[float, float]:
    """Compute the expected number of relevant candidates among the first ones, as hi + lo.

    Of m tied candidates with r relevant ones, c of whose ranks count, r·c/m are expected.
    """
    hi = 0.0
    lo = 0.0
    start = 0
    while start < last_rank:
        end = end_of_ties(score, start)
        n_relevant = float(positives_among(label, start, end))
        if end > last_rank:
            n_relevant, lo = divide_parts(n_relevant * float(last_rank - start), 0.0, float(end - start), 0.0)
        hi, lost = two_sum(hi, n_relevant)
        lo += lost
        start = end
    return hi, lo


@formula
def hits_over_divisor(score, label, n_positive, parameters, scratch) -> float:
    """Compute the expected number of relevant candidates among the first k, over one of `DIVISORS`."""
    last_rank = whole_rank(float(parameters[1]), score.shape[0])
    hits, hits_lo = expected_hits(score, label, last_rank)
    divisor = float(parameters[1])
    if parameters[2] == 1.0:
        divisor = float(last_rank)
    elif parameters[2] == 2.0:
        divisor = float(n_positive)
    elif parameters[2] == 3.0:
        divisor = min(float(n_positive), divisor)
    value, value_lo = divide_parts(hits, hits_lo, divisor, 0.0)
    return value + value_lo


@dataclass(frozen=True)
class HitsAtK(RankingAtK):
    """A ranking metric that is the number of relevant candidates among the first k over some number."""

    denominator: str = "k"

    needs_k: ClassVar[bool] = True
    ranking = staticmethod(hits_over_divisor)

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return what the formula reads: the last rank that counts, and the divisor."""
        denominator = "length" if self.k is None and self.denominator == "k" else self.denominator
        return (*super().parameters(space, epsilon), float(DIVISORS.index(denominator)))


@dataclass(frozen=True)
class PrecisionAtK(HitsAtK):
    """The number of relevant candidates among the first k, over k; a candidate is relevant if its label is above 0.

    Parameters
    ----------
    k : int
        How many candidates count.
    denominator : {"k", "length"}
        k, as trec_eval has it, so that a shorter list cannot reach 1; or the number of candidates that count.
    """

    denominator: str = "k"

    name: ClassVar[str] = "precision_at_k"
    short_name: ClassVar[str] = "precision"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {**Ranking.choices, "denominator": ("k", "length")}
    definition = "number of candidates with y > 0 among the first k by score / k; ties are averaged over every order"
    source = "trec_eval, P; ties: as ndcg"
