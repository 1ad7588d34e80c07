"""Discounted cumulative gain (DCG), not normalized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.rankings.base import Ranking
from fastloss_kernels.rankings.ndcg import GainRanking


@dataclass(frozen=True)
class Dcg(GainRanking):
    """The discounted gain of the first k candidates. Its size depends on the labels and on the length of the list.

    Parameters
    ----------
    k : int or None
        The last rank that counts; in a shorter list, its length. None: every rank counts.
    gain : {"linear", "exp2"}
        The gain of a label y: y, or 2^y − 1.
    """

    gain: str = "linear"

    name: ClassVar[str] = "dcg"
    aliases: ClassVar[tuple[str, ...]] = ("dcg_score", "discounted_cumulative_gain")
    normalized = False
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {**Ranking.choices, "gain": ("linear", "exp2")}
    definition = "Σ gain(y)/log₂(1 + rank) over ranks up to k; ties are averaged over every order"
    source = "Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 20(4), 2002"

    @property
    def _gain(self) -> str:
        return self.gain
