"""Pairwise hinge loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval
from fastloss_kernels.double_double import two_sum
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.pairs import loses_to_infinity, make_pairwise_row
from fastloss_kernels.losses.base import PairwiseLoss


@formula
def pair(difference: float, lost: float, parameters: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Evaluate max(0, margin + d); at the kink the subgradient is 0, the flat side's."""
    hi, lo = two_sum(parameters[1], difference)
    slack = hi + (lo + lost)
    # An infinite difference makes it NaN.
    active = slack > 0.0
    return slack if active else 0.0, 1.0 if active else 0.0, 0.0, 0.0


@dataclass(frozen=True)
class PairwiseHinge(PairwiseLoss):
    """Mean over the pairs of a list with y_i > y_j of max(0, margin − (s_i − s_j)).

    Parameters
    ----------
    max_pairs : int
        Lists of more than so many pairs of candidates, n·(n − 1)/2, are refused.
    margin : float
        How far the score of the higher label is to be above the other, at least 0.
    """

    margin: float = 1.0

    name: ClassVar[str] = "pairwise_hinge"
    aliases: ClassVar[tuple[str, ...]] = ("pairwise_hinge_loss", "margin_ranking_loss")
    formulas = dict.fromkeys(("logit", "margin", "value"), make_pairwise_row(pair))
    hessian = "zero"
    n_scratch: ClassVar[int] = 2
    saturated = dict.fromkeys(("logit", "margin"), loses_to_infinity)
    ranges = {**PairwiseLoss.ranges, "margin": Interval(0.0, 1e100)}
    definition = "mean over y_i > y_j of max(0, margin − (s_i − s_j)); subgradient 0 at the kink"
    source = "Joachims, Optimizing search engines using clickthrough data, KDD (2002), optimization problem 1"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return the length of the longest list, and the margin."""
        return (*super().parameters(space, epsilon), float(self.margin))
