"""LambdaRank: a pairwise logistic loss, each pair weighted by how much swapping it changes NDCG."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval, ListRow
from fastloss_kernels.double_double import (
    divide_parts,
    exp_parts,
    log1p_unit_parts,
    log_of_positive_parts,
    log_ratio_parts,
    multiply_parts,
    product_parts,
    rounded_sum,
    sigmoid_parts,
    two_sum,
)
from fastloss_kernels.elementary import log
from fastloss_kernels.jit import fma, formula
from fastloss_kernels.listwise.ndcg import GAINS, Gain, label_range_of, make_ideal, rank_of
from fastloss_kernels.listwise.pairs import difference_parts, fill_nan, loses_to_infinity, lowest_label
from fastloss_kernels.listwise.sums import accumulate, sum_parts
from fastloss_kernels.losses.base import PairwiseLoss

# Beyond, e^−|d| is 0.
FAR = 1000.0


@formula
def weight_parts(rank, other_rank, gain, gain_lo, other_gain, other_gain_lo, scale, scale_lo):
    """Compute |G_i − G_j|·|1/log(1 + r_i) − 1/log(1 + r_j)|/ideal, where scale is log(1 + r_i)·ideal.

    The difference of discounts is log((1 + r_j)/(1 + r_i)) over both logarithms, of which nothing cancels.
    """
    further = 1.0 + max(rank, other_rank)
    nearer = 1.0 + min(rank, other_rank)
    ratio, ratio_lo = log_ratio_parts(further, 0.0, nearer, 0.0, further - nearer, 0.0)
    gains, lost = two_sum(gain, -other_gain)
    lost += gain_lo - other_gain_lo
    gains, lost = (-gains, -lost) if gains < 0.0 else (gains, lost)
    top, top_lo = product_parts(ratio, ratio_lo, gains, lost)
    other_log = log(1.0 + other_rank)
    bottom, bottom_lo = product_parts(scale, scale_lo, other_log, 0.0)
    return divide_parts(top, top_lo, bottom, bottom_lo)


@formula
def scaled_difference(loser: float, winner: float, sigma: float) -> tuple[float, float]:
    """Compute σ·(s_loser − s_winner) as hi + lo, bounded where its exponential is 0 or infinite."""
    difference, lost = difference_parts(loser, winner)
    d, d_lo = multiply_parts(sigma, difference, lost)
    near = abs(d) < FAR
    bound = FAR if d > 0.0 else -FAR
    return d if near else bound, d_lo if near else 0.0


@formula
def pair_value(loser: float, winner: float, sigma: float, weight: float, weight_lo: float) -> float:
    """Evaluate w·log(1 + e^d), d = σ·(s_loser − s_winner), as w·max(d, 0) + w·log(1 + e^−|d|)."""
    d, d_lo = scaled_difference(loser, winner, sigma)
    above = d > 0.0
    e, e_lo = exp_parts(-abs(d))
    e_lo = fma(e, -d_lo if above else d_lo, e_lo)
    curved, curved_lo = log1p_unit_parts(e, e_lo)
    part, part_lo = product_parts(weight, weight_lo, curved, curved_lo)
    difference, lost = difference_parts(loser, winner)
    steep, steep_lo = multiply_parts(sigma, weight, weight_lo)
    line, line_lo = product_parts(steep, steep_lo, difference if above else 0.0, lost if above else 0.0)
    total, total_lost = two_sum(line, part)
    return rounded_sum(total, total_lost + (line_lo + part_lo))


@formula
def pair_derivatives(
    loser: float, winner: float, sigma: float, weight: float, weight_lo: float
) -> tuple[float, float]:
    """Evaluate w·σ·p, the derivative by the loser's score, and w·σ²·p·(1 − p), p the chance of the wrong order."""
    d, d_lo = scaled_difference(loser, winner, sigma)
    wrong, wrong_lo, right, right_lo = sigmoid_parts(d)
    moved = wrong * right * d_lo
    steep, steep_lo = multiply_parts(sigma, weight, weight_lo)
    slope, slope_lo = product_parts(steep, steep_lo, wrong, wrong_lo + moved)
    factor, factor_lo = multiply_parts(sigma, right, right_lo - moved)
    curvature, curvature_lo = product_parts(slope, slope_lo, factor, factor_lo)
    return slope + slope_lo, curvature + curvature_lo


@functools.cache
def make_row(gain: Gain) -> ListRow:
    """Make LambdaRank of a gain. Parameters are the length of the longest list, and sigma.

    Notes
    -----
    Derivatives of a candidate are sums over its pairs in the order of the other candidates, each with what its
    additions lost beside it.
    """
    ideal_of = make_ideal(gain)

    @formula
    def derivatives_of_pair(own, own_label, rank, scale, scale_lo, sigma, x, y, other_rank):
        """Return the part that one candidate has in the derivatives by another's score, 0 for equal labels."""
        own_gain, own_gain_lo = gain(own_label)
        other_gain, other_gain_lo = gain(y)
        weight, weight_lo = weight_parts(
            rank, other_rank, own_gain, own_gain_lo, other_gain, other_gain_lo, scale, scale_lo
        )
        loses = y < own_label
        slope, curvature = pair_derivatives(x if loses else own, own if loses else x, sigma, weight, weight_lo)
        slope = slope if loses else -slope
        met = (y != own_label) & (x > float("-inf"))
        return slope if met else 0.0, curvature if met else 0.0

    @formula
    def row(score, label, parameters, scratch, gradient, hessian, derivatives):
        longest, sigma = parameters
        n = score.shape[0]
        if n > longest:
            return fill_nan(gradient, hessian, derivatives)
        ranks = scratch[0, :n]
        ideal, ideal_lo = ideal_of(score, label, gradient, hessian)
        lowest, _ = lowest_label(score, label)
        for k in range(n):
            ranks[k] = rank_of(score, k)
        total = 0.0
        total_lo = 0.0
        infinite = False
        for i in range(n):
            winner = float(score[i])
            own_label = float(label[i])
            if (own_label > lowest) & (winner > float("-inf")):
                rank = float(ranks[i])
                own_gain, own_gain_lo = gain(own_label)
                own_log, own_log_lo = log_of_positive_parts(1.0 + rank, 0.0)
                scale, scale_lo = product_parts(ideal, ideal_lo, own_log, own_log_lo)
                for j in range(n):
                    x = float(score[j])
                    y = float(label[j])
                    met = (y < own_label) & (x > float("-inf"))
                    infinite |= met & (x == float("inf"))
                    other_gain, other_gain_lo = gain(y)
                    weight, weight_lo = weight_parts(
                        rank,
                        float(ranks[j]),
                        own_gain,
                        own_gain_lo,
                        other_gain,
                        other_gain_lo,
                        scale,
                        scale_lo,
                    )
                    term = pair_value(x, winner, sigma, weight, weight_lo)
                    hessian[j] = term if met else 0.0
                value, value_lo = sum_parts(hessian)
                total, lost = two_sum(total, value)
                total_lo += lost + value_lo
        if derivatives:
            gradient_lost = scratch[1, :n]
            hessian_lost = scratch[2, :n]
            for k in range(n):
                gradient[k] = 0.0
                gradient_lost[k] = 0.0
                hessian[k] = 0.0
                hessian_lost[k] = 0.0
            for i in range(n):
                own = float(score[i])
                own_label = float(label[i])
                if own > float("-inf"):
                    rank = float(ranks[i])
                    own_log, own_log_lo = log_of_positive_parts(1.0 + rank, 0.0)
                    scale, scale_lo = product_parts(ideal, ideal_lo, own_log, own_log_lo)
                    for k in range(n):
                        slope, curvature = derivatives_of_pair(
                            own,
                            own_label,
                            rank,
                            scale,
                            scale_lo,
                            sigma,
                            float(score[k]),
                            float(label[k]),
                            float(ranks[k]),
                        )
                        accumulate(gradient, gradient_lost, k, slope)
                        accumulate(hessian, hessian_lost, k, curvature)
            for k in range(n):
                gradient[k] = float(gradient[k]) + float(gradient_lost[k])
                hessian[k] = float(hessian[k]) + float(hessian_lost[k])
        return float("inf") if infinite else rounded_sum(total, total_lo)

    return row


_ROWS = {gain: dict.fromkeys(("logit", "margin", "value"), make_row(parts)) for gain, parts in GAINS.items()}


@dataclass(frozen=True)
class LambdaRank(PairwiseLoss):
    """Sum over the pairs of a list with y_i > y_j of |ΔNDCG|·log(1 + e^−σ(s_i − s_j)), in nats.

    ΔNDCG is what exchanging both candidates changes in the NDCG of the list: (G_i − G_j)·(D_i − D_j)/ideal DCG, with
    gains G of labels and discounts D = 1/log2(1 + rank). Ranks are by score, of equal scores the first is higher. They
    are constant in the derivatives, which are LambdaRank's lambdas: what they are the gradient of changes where two
    candidates change places. The sum is not divided by anything, as in LightGBM with ``lambdarank_norm=False`` and a
    truncation level that no list exceeds.

    Parameters
    ----------
    max_pairs : int
        Lists of more than so many pairs of candidates, n·(n − 1)/2, are refused.
    sigma : float
        The steepness σ > 0.
    gain : {"exp2", "linear"}
        2^y − 1, for labels from 0 to 1000, or y.
    """

    sigma: float = 1.0
    gain: str = "exp2"

    name: ClassVar[str] = "lambda_rank"
    aliases: ClassVar[tuple[str, ...]] = ("lambdarank",)
    hessian = "approximate"
    n_scratch: ClassVar[int] = 3
    saturated = dict.fromkeys(("logit", "margin"), loses_to_infinity)
    ranges = {**PairwiseLoss.ranges, "sigma": Interval(0.0, 1e100, low_open=True)}
    choices = {"gain": ("exp2", "linear")}
    definition = (
        "Σ over y_i > y_j of |G_i − G_j|·|D_i − D_j|/ideal DCG·log(1 + e^−σ(s_i − s_j)), D = 1/log2(1 + rank), "
        "equal scores ranked by position"
    )
    source = "Burges, From RankNet to LambdaRank to LambdaMART, MSR-TR-2010-82 (2010), section 4"

    @property
    def formulas(self) -> Mapping[str, ListRow]:
        """The formulas of the gain."""
        return _ROWS[self.gain]

    @property
    def label_range(self) -> Interval:  # type: ignore[override]
        """The labels whose gains, and sums of gains, are finite."""
        return label_range_of(self.gain)

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return the length of the longest list, and sigma."""
        return (*super().parameters(space, epsilon), float(self.sigma))
