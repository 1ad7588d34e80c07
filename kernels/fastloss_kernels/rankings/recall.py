"""Recall at k: the share of a list's relevant candidates that are among its first k."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.rankings.base import Ranking
from fastloss_kernels.rankings.precision import HitsAtK


@dataclass(frozen=True)
class RecallAtK(HitsAtK):
    """The number of relevant candidates among the first k, over that of all; relevant are labels above 0.

    Parameters
    ----------
    k : int
        How many candidates count.
    denominator : {"positives", "reachable"}
        All relevant candidates, or at most k of them, so that a list with more can reach 1.
    """

    denominator: str = "positives"

    name: ClassVar[str] = "recall_at_k"
    short_name: ClassVar[str] = "recall"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {**Ranking.choices, "denominator": ("positives", "reachable")}
    definition = (
        "number of candidates with y > 0 among the first k by score / number of candidates with y > 0; "
        "ties are averaged over every order"
    )
    source = "trec_eval, recall; ties: as ndcg"
