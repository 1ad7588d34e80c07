"""Every ranking metric, one file each; `RANKINGS` lists what is imported here: metrics, listing and docs read it."""

from __future__ import annotations

from fastloss_kernels.rankings.base import Ranking as Ranking
from fastloss_kernels.rankings.bpref import Bpref as Bpref
from fastloss_kernels.rankings.dcg import Dcg as Dcg
from fastloss_kernels.rankings.expected_reciprocal_rank import ExpectedReciprocalRank as ExpectedReciprocalRank
from fastloss_kernels.rankings.hit_rate import HitRate as HitRate
from fastloss_kernels.rankings.list_auc import ListAuc as ListAuc
from fastloss_kernels.rankings.mean_average_precision import MeanAveragePrecision as MeanAveragePrecision
from fastloss_kernels.rankings.ndcg import Ndcg as Ndcg
from fastloss_kernels.rankings.ndcg_exp2 import NdcgExp2 as NdcgExp2
from fastloss_kernels.rankings.precision import PrecisionAtK as PrecisionAtK
from fastloss_kernels.rankings.r_precision import RPrecision as RPrecision
from fastloss_kernels.rankings.rank_biased_precision import RankBiasedPrecision as RankBiasedPrecision
from fastloss_kernels.rankings.recall import RecallAtK as RecallAtK
from fastloss_kernels.rankings.reciprocal_rank import ReciprocalRank as ReciprocalRank
from fastloss_kernels.rankings.xauc import Xauc as Xauc

RANKINGS: tuple[type[Ranking], ...] = tuple(
    ranking
    for ranking in list(globals().values())
    if isinstance(ranking, type) and issubclass(ranking, Ranking) and isinstance(vars(ranking).get("name"), str)
)
