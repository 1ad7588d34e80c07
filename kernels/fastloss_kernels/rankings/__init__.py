"""Every ranking metric, one file each; `RANKINGS` lists what is imported here: metrics, listing and docs read it."""

from __future__ import annotations

from fastloss_kernels.rankings.base import Ranking as Ranking
from fastloss_kernels.rankings.reciprocal_rank import ReciprocalRank as ReciprocalRank

RANKINGS: tuple[type[Ranking], ...] = tuple(
    ranking
    for ranking in list(globals().values())
    if isinstance(ranking, type) and issubclass(ranking, Ranking) and isinstance(vars(ranking).get("name"), str)
)
