"""Every loss, one file each; `LOSSES` lists what is imported here: tests, devices, command line and docs read it."""

from __future__ import annotations

from fastloss_kernels.domain import Interval as Interval
from fastloss_kernels.losses.approx_ndcg import ApproxNDCG as ApproxNDCG
from fastloss_kernels.losses.base import BinaryLoss as BinaryLoss
from fastloss_kernels.losses.base import ListwiseLoss as ListwiseLoss
from fastloss_kernels.losses.base import Loss as Loss
from fastloss_kernels.losses.binary_crossentropy import BinaryCrossentropy as BinaryCrossentropy
from fastloss_kernels.losses.binary_focal_crossentropy import BinaryFocalCrossentropy as BinaryFocalCrossentropy
from fastloss_kernels.losses.brier_score import BrierScore as BrierScore
from fastloss_kernels.losses.categorical_crossentropy import CategoricalCrossentropy as CategoricalCrossentropy
from fastloss_kernels.losses.categorical_focal_crossentropy import (
    CategoricalFocalCrossentropy as CategoricalFocalCrossentropy,
)
from fastloss_kernels.losses.categorical_hinge import CategoricalHinge as CategoricalHinge
from fastloss_kernels.losses.cosine_similarity import CosineSimilarity as CosineSimilarity
from fastloss_kernels.losses.dice import Dice as Dice
from fastloss_kernels.losses.entropy import Entropy as Entropy
from fastloss_kernels.losses.expectile import Expectile as Expectile
from fastloss_kernels.losses.exponential import Exponential as Exponential
from fastloss_kernels.losses.gamma import Gamma as Gamma
from fastloss_kernels.losses.generalized_crossentropy import GeneralizedCrossentropy as GeneralizedCrossentropy
from fastloss_kernels.losses.half_squared_error import HalfSquaredError as HalfSquaredError
from fastloss_kernels.losses.half_squared_sigmoid import HalfSquaredSigmoid as HalfSquaredSigmoid
from fastloss_kernels.losses.hinge import Hinge as Hinge
from fastloss_kernels.losses.huber import Huber as Huber
from fastloss_kernels.losses.jensen_shannon import JensenShannon as JensenShannon
from fastloss_kernels.losses.kl_divergence import KLDivergence as KLDivergence
from fastloss_kernels.losses.l1_norm import L1Norm as L1Norm
from fastloss_kernels.losses.l2_norm import L2Norm as L2Norm
from fastloss_kernels.losses.lambda_rank import LambdaRank as LambdaRank
from fastloss_kernels.losses.list_mle import ListMLE as ListMLE
from fastloss_kernels.losses.list_net import ListNet as ListNet
from fastloss_kernels.losses.log_cosh import LogCosh as LogCosh
from fastloss_kernels.losses.mean_absolute_error import MeanAbsoluteError as MeanAbsoluteError
from fastloss_kernels.losses.mean_absolute_percentage_error import (
    MeanAbsolutePercentageError as MeanAbsolutePercentageError,
)
from fastloss_kernels.losses.mean_squared_error import MeanSquaredError as MeanSquaredError
from fastloss_kernels.losses.mean_squared_logarithmic_error import (
    MeanSquaredLogarithmicError as MeanSquaredLogarithmicError,
)
from fastloss_kernels.losses.modified_huber import ModifiedHuber as ModifiedHuber
from fastloss_kernels.losses.multi_margin import MultiMargin as MultiMargin
from fastloss_kernels.losses.multi_positive_crossentropy import (
    MultiPositiveCrossentropy as MultiPositiveCrossentropy,
)
from fastloss_kernels.losses.pairwise_hinge import PairwiseHinge as PairwiseHinge
from fastloss_kernels.losses.pairwise_logistic import PairwiseLogistic as PairwiseLogistic
from fastloss_kernels.losses.pinball import Pinball as Pinball
from fastloss_kernels.losses.poisson import Poisson as Poisson
from fastloss_kernels.losses.poly1 import Poly1 as Poly1
from fastloss_kernels.losses.pseudo_huber import PseudoHuber as PseudoHuber
from fastloss_kernels.losses.smooth_l1 import SmoothL1 as SmoothL1
from fastloss_kernels.losses.sparse_categorical_crossentropy import (
    SparseCategoricalCrossentropy as SparseCategoricalCrossentropy,
)
from fastloss_kernels.losses.squared_hinge import SquaredHinge as SquaredHinge
from fastloss_kernels.losses.tversky import Tversky as Tversky
from fastloss_kernels.losses.tweedie import Tweedie as Tweedie
from fastloss_kernels.losses.zero_one import ZeroOne as ZeroOne

LOSSES: tuple[type[Loss], ...] = tuple(
    loss
    for loss in list(globals().values())
    if isinstance(loss, type) and issubclass(loss, Loss) and isinstance(vars(loss).get("name"), str)
)
POINTWISE_LOSSES: tuple[type[Loss], ...] = tuple(loss for loss in LOSSES if not issubclass(loss, ListwiseLoss))
LISTWISE_LOSSES: tuple[type[ListwiseLoss], ...] = tuple(loss for loss in LOSSES if issubclass(loss, ListwiseLoss))
