"""Normalized discounted cumulative gain (NDCG): the gain of a list's order over that of the best order."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, SPACES, Interval, ListRow
from fastloss_kernels.double_double import divide_parts
from fastloss_kernels.jit import float64_bits, float64_from_bits, formula
from fastloss_kernels.listwise.cumulative_gain import TINY_LABEL, TINY_SCALE, discounted_gain, ideal_gain
from fastloss_kernels.listwise.discounts import tabulated
from fastloss_kernels.listwise.ndcg import LOG2, label_range_of
from fastloss_kernels.listwise.ranked import whole_rank
from fastloss_kernels.rankings.base import RankingAtK, RankingFormula, without_derivatives


@functools.cache
def make_gain_ranking() -> RankingFormula:
    """Make the formula of DCG and NDCG, whose parameters choose the gain, and whether it is normalized."""
    tables = tabulated()

    @formula
    def gain_ranking(score, label, n_positive, parameters, scratch) -> float:
        known = tables
        last_rank = whole_rank(float(parameters[1]), score.shape[0])
        # A maximum of integers is a vector instruction; labels are at least 0.
        highest = 0
        for j in range(label.shape[0]):
            highest = max(highest, float64_bits(float(label[j])))
        tiny = float64_from_bits(highest) < TINY_LABEL
        # 2^y − 1 is y·log 2 of tiny labels, to every digit.
        exp2 = (parameters[2] > 0.0) & (not tiny)
        scale = TINY_SCALE if tiny else 1.0
        gain, gain_lo = discounted_gain(known, score, label, last_rank, exp2, scale)
        if parameters[3] > 0.0:
            best, best_lo = ideal_gain(known, label, highest, n_positive, last_rank, exp2, scale, scratch[0])
            gain, gain_lo = divide_parts(gain, gain_lo, best, best_lo)
            scale = 1.0
        elif tiny & (parameters[2] > 0.0):
            gain, gain_lo = gain * LOG2, gain_lo * LOG2
        return (gain + gain_lo) / scale

    return gain_ranking


@dataclass(frozen=True)
class GainRanking(RankingAtK):
    """A ranking metric of discounted gains.

    Attributes
    ----------
    normalized : bool
        Whether the gain is divided by that of the best order.
    gain : {"linear", "exp2"}
        The gain of a label.
    """

    normalized: ClassVar[bool]
    n_scratch: ClassVar[int] = 1

    @property
    def _gain(self) -> str:
        return "linear"

    @property
    def label_range(self) -> Interval:  # type: ignore[override]
        """Labels whose gains, and sums of gains, are finite."""
        return label_range_of(self._gain)

    @property
    def formulas(self) -> Mapping[str, ListRow]:  # type: ignore[override]
        """The formula in every space."""
        return dict.fromkeys(SPACES, without_derivatives(make_gain_ranking()))

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return what the formula reads: the last rank that counts, the gain, and whether it is normalized."""
        return (*super().parameters(space, epsilon), float(self._gain == "exp2"), float(self.normalized))


@dataclass(frozen=True)
class Ndcg(GainRanking):
    """The discounted gain of the first k candidates over that of the best order; a label is its own gain.

    Parameters
    ----------
    k : int or None
        The last rank that counts; in a shorter list, its length. None: every rank counts.
    """

    name: ClassVar[str] = "ndcg"
    aliases: ClassVar[tuple[str, ...]] = ("ndcg_score", "normalized_discounted_cumulative_gain")
    normalized = True
    definition = (
        "DCG / DCG of the candidates by label, DCG = Σ y/log₂(1 + rank) over ranks up to k; "
        "ties are averaged over every order"
    )
    source = (
        "Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 20(4), 2002; ties: "
        "McSherry and Najork, Computing information retrieval performance measures efficiently in the presence of "
        "tied scores, ECIR 2008"
    )
