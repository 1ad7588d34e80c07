"""Pairwise logistic loss (RankNet, BPR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.elementary import exp_of_parts, log1p_unit, sigmoids
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.pairs import loses_to_infinity, make_pairwise_row
from fastloss_kernels.losses.base import PairwiseLoss


@formula
def pair(difference: float, lost: float, parameters: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Evaluate log(1 + e^d), its slope σ(d) and its curvature, from e^−|d|; what d lost goes on with it."""
    above = difference > 0.0
    e = exp_of_parts(-abs(difference), -lost if above else lost)
    curved = log1p_unit(e)
    likely, unlikely = sigmoids(e)
    value = difference + (curved + lost)
    # σ(d) = 1 − σ(−d).
    return value if above else curved, 1.0 if above else 0.0, -unlikely if above else unlikely, unlikely * likely


@dataclass(frozen=True)
class PairwiseLogistic(PairwiseLoss):
    """Mean over the pairs of a list with y_i > y_j of log(1 + e^(s_j − s_i)), in nats: RankNet's and BPR's loss.

    Parameters
    ----------
    max_pairs : int
        Lists of more than so many pairs of candidates, n·(n − 1)/2, are refused.
    """

    name: ClassVar[str] = "pairwise_logistic"
    aliases: ClassVar[tuple[str, ...]] = ("pairwise_logistic_loss", "bpr", "ranknet")
    unit: ClassVar[str] = "nats"
    formulas = dict.fromkeys(("logit", "margin", "value"), make_pairwise_row(pair))
    n_scratch: ClassVar[int] = 2
    saturated = dict.fromkeys(("logit", "margin"), loses_to_infinity)
    definition = "mean over y_i > y_j of log(1 + e^−(s_i − s_j))"
    source = (
        "Burges et al., Learning to rank using gradient descent, ICML (2005), section 3; "
        "Rendle et al., BPR, UAI (2009), section 4.1"
    )
