"""Reciprocal rank of the first relevant candidate; its mean over lists is the mean reciprocal rank (MRR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.double_double import divide_parts, product_parts, two_sum
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.ranked import end_of_ties, positives_among
from fastloss_kernels.rankings.base import RankingAtK


@formula
def reciprocal_rank(score, label, n_positive, parameters, scratch) -> float:
    """Compute the expected 1/rank of the first relevant candidate.

    With a candidates above the highest relevant score, and n at that score of which m are relevant, the first relevant
    one is the i-th of the n with the probability C(n − i, m − 1)/C(n, m): m/n for i = 1, and each next one is the one
    before times (n − i − m + 1)/(n − i). Probabilities and their sum are double-double (hi + lo).
    """
    last_rank = float(parameters[1])
    first = 0
    # The labels of equal scores descend, so the first of them tells whether any is relevant.
    while not label[first] > 0.0:
        first = end_of_ties(score, first)
    end = end_of_ties(score, first)
    n_tied = end - first
    n_relevant = positives_among(label, first, end)
    chance, chance_lo = divide_parts(float(n_relevant), 0.0, float(n_tied), 0.0)
    total = 0.0
    total_lo = 0.0
    for i in range(n_tied - n_relevant + 1):
        rank = float(first + 1 + i)
        if rank > last_rank:
            break
        if i > 0:
            chance, chance_lo = product_parts(chance, chance_lo, float(n_tied - n_relevant - i + 1), 0.0)
            chance, chance_lo = divide_parts(chance, chance_lo, float(n_tied - i), 0.0)
        term, term_lo = divide_parts(chance, chance_lo, rank, 0.0)
        total, lost = two_sum(total, term)
        total_lo += lost + term_lo
    return total + total_lo


@dataclass(frozen=True)
class ReciprocalRank(RankingAtK):
    """1/rank of the relevant candidate with the highest score; a candidate is relevant if its label is above 0.

    Parameters
    ----------
    k : int or None
        Ranks beyond count 0. None: every rank counts.
    """

    name: ClassVar[str] = "reciprocal_rank"
    aliases: ClassVar[tuple[str, ...]] = ("mrr", "mean_reciprocal_rank")
    ranking = staticmethod(reciprocal_rank)
    definition = "1/rank of the first candidate with y > 0, by score; ties are averaged over every order"
    source = (
        "Voorhees, The TREC-8 question answering track report, TREC 1999; ties: McSherry and Najork, Computing "
        "information retrieval performance measures efficiently in the presence of tied scores, ECIR 2008"
    )
