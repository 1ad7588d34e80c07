"""Smooth approximation of the normalised discounted cumulative gain of a list (ApproxNDCG)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval, ListRow
from fastloss_kernels.double_double import (
    divide_parts,
    log_of_positive_parts,
    product_parts,
    sigmoid_parts,
    two_sum,
)
from fastloss_kernels.elementary import tanh
from fastloss_kernels.jit import divide, exact_add, formula
from fastloss_kernels.listwise.ndcg import GAINS, Gain, label_range_of, make_ideal
from fastloss_kernels.listwise.pairs import difference_parts, fill_nan
from fastloss_kernels.listwise.sums import accumulate, split, sum_parts
from fastloss_kernels.losses.base import PairwiseLoss

# Beyond, a sigmoid is 0 or 1.
FAR = 1000.0


@formula
def scaled_difference(x: float, other: float, temperature: float) -> tuple[float, float]:
    """Compute (x − other)/temperature as hi + lo, bounded where its sigmoid is 0 or 1."""
    difference, lost = difference_parts(x, other)
    u, u_lo = divide_parts(difference, lost, temperature, 0.0)
    near = abs(u) < FAR
    bound = FAR if u > 0.0 else -FAR
    return u if near else bound, u_lo if near else 0.0


@formula
def smooth_rank_after(score, k: int, temperature: float) -> tuple[float, float]:
    """Compute 1 + rank = 2 + Σ σ((s_j − s_k)/T) over all other candidates as hi + lo."""
    own = float(score[k])
    hi = 0.0
    lo = 0.0
    for j in range(score.shape[0]):
        x = float(score[j])
        u, u_lo = scaled_difference(x, own, temperature)
        above, above_lo, below, _ = sigmoid_parts(u)
        above += above_lo + above * below * u_lo
        met = (x > float("-inf")) & (j != k)
        first, second = split(above if met else 0.0, 1.0)
        hi = exact_add(hi, first)
        lo = exact_add(lo, second)
    total, lost = two_sum(2.0, hi)
    return two_sum(total, lost + lo)


@formula
def curve(u: float, u_lo: float) -> tuple[float, float]:
    """Compute the first and the second derivative of the sigmoid."""
    p, p_lo, q, q_lo = sigmoid_parts(u)
    moved = p * q * u_lo
    hi, lo = product_parts(p, p_lo + moved, q, q_lo - moved)
    slope = hi + lo
    return slope, -(slope * tanh(0.5 * u))


@functools.cache
def make_row(gain: Gain) -> ListRow:
    """Make ApproxNDCG of a gain. Parameters are the length of the longest list, and the temperature.

    Notes
    -----
    With G the share of a candidate's gain in the ideal gain, r its smooth rank and f(r) = 1/log(1 + r), the loss is
    −Σ G·f(r). With a = −G·f′(r), b = G·f″(r) and the sigmoid's derivatives at (s_k − s_j)/T, T·gradient_k is
    Σ_j σ′·(a_j − a_k), and T²·hessian_k is Σ_j (σ″·(a_j − a_k) − σ′²·b_j) − b_k·(Σ_j σ′)². The sums run in the order
    of the candidates j, each with what its additions lost beside it.
    """
    ideal_of = make_ideal(gain)

    @formula
    def derivatives_by_rank(gained, gained_lo, after, after_lo, log, log_lo, ideal, ideal_lo):
        """Return a and b of a candidate from its gain, 1 + rank and the logarithm of that."""
        share, share_lo = divide_parts(gained, gained_lo, ideal, ideal_lo)
        scale, scale_lo = product_parts(after, after_lo, log, log_lo)
        square, square_lo = product_parts(scale, scale_lo, log, log_lo)
        hi, lo = divide_parts(share, share_lo, square, square_lo)
        first = hi + lo
        return first, divide(first * (log + 2.0), scale)

    @formula
    def row(score, label, parameters, scratch, gradient, hessian, derivatives):
        longest, temperature = parameters
        n = score.shape[0]
        if n > longest:
            return fill_nan(gradient, hessian, derivatives)
        ideal, ideal_lo = ideal_of(score, label, gradient, hessian)
        if ideal == 0.0:
            # All positive candidates are masked.
            if derivatives:
                for j in range(n):
                    gradient[j] = 0.0
                    hessian[j] = 0.0
            return 0.0
        first = scratch[0, :n]
        second = scratch[1, :n]
        for k in range(n):
            y = float(label[k])
            gradient[k] = 0.0
            hessian[k] = 0.0
            first[k] = 0.0
            second[k] = 0.0
            if (y > 0.0) & (float(score[k]) > float("-inf")):
                gained, gained_lo = gain(y)
                after, after_lo = smooth_rank_after(score, k, temperature)
                log, log_lo = log_of_positive_parts(after, after_lo)
                part, part_lo = divide_parts(gained, gained_lo, log, log_lo)
                gradient[k] = part
                hessian[k] = part_lo
                first[k], second[k] = derivatives_by_rank(
                    gained, gained_lo, after, after_lo, log, log_lo, ideal, ideal_lo
                )
        found, found_lo = sum_parts(gradient)
        rest, _ = sum_parts(hessian)
        value, value_lo = divide_parts(found, found_lo + rest, ideal, ideal_lo)
        if derivatives:
            gradient_lost = scratch[2, :n]
            hessian_lost = scratch[3, :n]
            slopes = scratch[4, :n]
            slopes_lost = scratch[5, :n]
            for k in range(n):
                gradient[k] = 0.0
                gradient_lost[k] = 0.0
                hessian[k] = 0.0
                hessian_lost[k] = 0.0
                slopes[k] = 0.0
                slopes_lost[k] = 0.0
            for j in range(n):
                x = float(score[j])
                if x > float("-inf"):
                    for k in range(n):
                        other = float(score[k])
                        met = (other > float("-inf")) & (k != j)
                        u, u_lo = scaled_difference(other, x, temperature)
                        slope, curvature = curve(u, u_lo)
                        change = float(first[j]) - float(first[k])
                        term = curvature * change - slope * slope * float(second[j])
                        accumulate(gradient, gradient_lost, k, slope * change if met else 0.0)
                        accumulate(hessian, hessian_lost, k, term if met else 0.0)
                        accumulate(slopes, slopes_lost, k, slope if met else 0.0)
            for k in range(n):
                total = float(slopes[k]) + float(slopes_lost[k])
                slope = float(gradient[k]) + float(gradient_lost[k])
                curvature = float(hessian[k]) + float(hessian_lost[k])
                curvature -= float(second[k]) * total * total
                gradient[k] = divide(slope, temperature)
                hessian[k] = divide(divide(curvature, temperature), temperature)
        return -(value + value_lo)

    return row


_ROWS = {gain: dict.fromkeys(("logit", "margin", "value"), make_row(parts)) for gain, parts in GAINS.items()}


@dataclass(frozen=True)
class ApproxNDCG(PairwiseLoss):
    """Minus the NDCG of a list with smooth ranks: 1 + Σ σ((s_j − s_i)/temperature) over all other candidates.

    At least one unmasked candidate has a positive label; a list without one has no loss.

    Parameters
    ----------
    max_pairs : int
        Lists of more than so many pairs of candidates, n·(n − 1)/2, are refused.
    temperature : float
        The nearer to 0, the nearer ranks are to those by score.
    gain : {"exp2", "linear"}
        2^y − 1, for labels from 0 to 1000, or y.
    """

    temperature: float = 0.1
    gain: str = "exp2"

    name: ClassVar[str] = "approx_ndcg_loss"
    aliases: ClassVar[tuple[str, ...]] = ("approx_ndcg",)
    n_scratch: ClassVar[int] = 6
    ranges = {**PairwiseLoss.ranges, "temperature": Interval(0.0, 1e100, low_open=True)}
    choices = {"gain": ("exp2", "linear")}
    definition = "−Σ G_i/log2(1 + rank_i)/ideal DCG, rank_i = 1 + Σ σ((s_j − s_i)/temperature) over j ≠ i"
    source = (
        "Qin, Liu and Li, A general approximation framework for direct optimization of information retrieval "
        "measures, Information Retrieval 13 (2010)"
    )

    @property
    def formulas(self) -> Mapping[str, ListRow]:
        """The formulas of the gain."""
        return _ROWS[self.gain]

    @property
    def label_range(self) -> Interval:  # type: ignore[override]
        """The labels whose gains, and sums of gains, are finite."""
        return label_range_of(self.gain)

    @property
    def needs(self) -> str:
        """A positive label of an unmasked candidate, for a gain to compare with the ideal one."""
        return "unmasked positive"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return the length of the longest list, and the temperature."""
        return (*super().parameters(space, epsilon), float(self.temperature))
