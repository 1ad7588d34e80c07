"""NDCG whose gain is 2^y − 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.rankings.ndcg import GainRanking


@dataclass(frozen=True)
class NdcgExp2(GainRanking):
    """The discounted gain of the first k candidates over that of the best order; the gain of a label y is 2^y − 1.

    Parameters
    ----------
    k : int or None
        The last rank that counts; in a shorter list, its length. None: every rank counts.
    """

    name: ClassVar[str] = "ndcg_exp2"
    aliases: ClassVar[tuple[str, ...]] = ()
    normalized = True
    definition = (
        "DCG / DCG of the candidates by label, DCG = Σ (2^y − 1)/log₂(1 + rank) over ranks up to k; "
        "ties are averaged over every order"
    )
    source = "Burges et al., Learning to rank using gradient descent, ICML 2005; ties: as ndcg"

    @property
    def _gain(self) -> str:
        return "exp2"
