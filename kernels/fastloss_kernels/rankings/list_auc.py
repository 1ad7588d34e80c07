"""The AUC of one list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import Interval
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.auc import pairs_of, quotient_of_pairs
from fastloss_kernels.rankings.base import PairRanking


@formula
def list_auc(score, label, n_positive, parameters, scratch) -> float:
    """Compute the share of pairs of a positive and a negative that are in order, ties counting ½; NaN without one."""
    won, won_lo, positives, positives_lo, negatives, negatives_lo, _ = pairs_of(score, label, label, False)
    if positives == 0.0 or negatives == 0.0:
        return float("nan")
    hi, lo = quotient_of_pairs(won, won_lo, positives, positives_lo, negatives, negatives_lo)
    return min(hi + lo, 1.0)


@dataclass(frozen=True)
class ListAuc(PairRanking):
    """The probability that a positive candidate has a higher score than a negative one, ties counting ½.

    A label y between 0 and 1 is a positive with the part y, and a negative with the part 1 − y. Means over lists by
    other weights, and of weighted candidates, are `gauc`.
    """

    name: ClassVar[str] = "list_auc"
    label_range: ClassVar[Interval] = Interval(0.0, 1.0)
    ranking = staticmethod(list_auc)
    definition = "Σ y⁺·y⁻ of pairs with the positive above the negative, ½ in a tie, / Σ y⁺ · Σ y⁻, within each list"
    source = "Hanley and McNeil, Radiology 143, 1982"

    @property
    def needs(self) -> str:
        """A positive and a negative, unless lists of one class have a value."""
        return self._needs("classes")
