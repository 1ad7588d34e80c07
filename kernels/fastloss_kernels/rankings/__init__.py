"""Every ranking metric, one file each; `RANKINGS` lists what is imported here: metrics, listing and docs read it."""

from __future__ import annotations

from fastloss_kernels.rankings.base import Ranking as Ranking
from fastloss_kernels.rankings.dcg import Dcg as Dcg
from fastloss_kernels.rankings.hit_rate import HitRate as HitRate
from fastloss_kernels.rankings.mean_average_precision import MeanAveragePrecision as MeanAveragePrecision
from fastloss_kernels.rankings.ndcg import Ndcg as Ndcg
from fastloss_kernels.rankings.ndcg_exp2 import NdcgExp2 as NdcgExp2
from fastloss_kernels.rankings.precision import PrecisionAtK as PrecisionAtK
from fastloss_kernels.rankings.recall import RecallAtK as RecallAtK
from fastloss_kernels.rankings.reciprocal_rank import ReciprocalRank as ReciprocalRank

RANKINGS: tuple[type[Ranking], ...] = tuple(
    ranking
    for ranking in list(globals().values())
    if isinstance(ranking, type) and issubclass(ranking, Ranking) and isinstance(vars(ranking).get("name"), str)
)
