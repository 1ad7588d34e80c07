"""Tversky loss: what false positives and false negatives take from the overlap of two sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval
from fastloss_kernels.double_double import two_sum
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.listwise.sums import sum_parts
from fastloss_kernels.listwise.vectors import power_of_two_of
from fastloss_kernels.losses.base import ListwiseLoss


@formula
def row(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate N/D with N = α·Σp(1 − t) + β·Σ(1 − p)t and D = Σpt + s + N, never as 1 − (Σpt + s)/D.

    Parameters are α, β, s and an excess, which a variant of this loss adds to N. With N′ and D′ for what a probability
    adds, the gradient is (N′·(D − N) − N·t)/D², and the hessian −2·D′/D of it. Of derivatives, all sums are hi + lo,
    and are scaled until D lies in [1, 2), so that its powers are numbers.
    """
    alpha, beta, smooth, excess = parameters
    for j in range(score.shape[0]):
        p = float(score[j])
        term = p * float(label[j])
        gradient[j] = term if p >= 0.0 else 0.0
    overlap, overlap_lo = sum_parts(gradient)
    for j in range(score.shape[0]):
        p = float(score[j])
        t = float(label[j])
        term = fma(alpha * p, 1.0 - t, beta * t * (1.0 - p))
        gradient[j] = term if p >= 0.0 else 0.0
    missed, missed_lo = sum_parts(gradient)
    all_missed = (missed + missed_lo) + excess
    all_total = ((overlap + overlap_lo) + smooth) + all_missed
    if derivatives:
        overlap, lost = two_sum(overlap, smooth)
        overlap_lo += lost
        missed, lost = two_sum(missed, excess)
        missed_lo += lost
        total, lost = two_sum(overlap, missed)
        total_lo = lost + (overlap_lo + missed_lo)
        scale = power_of_two_of(total)
        overlap *= scale
        overlap_lo *= scale
        missed *= scale
        missed_lo *= scale
        total *= scale
        inverse = divide(1.0, total)
        lost = fma(-inverse, total_lo * scale, fma(-inverse, total, 1.0))
        square = inverse * inverse
        cube = square * inverse
        square_lost = fma(inverse, inverse, -square)
        cube_lost = fma(square, inverse, -cube)
        by_square = (square + fma(2.0 * square, lost, square_lost)) * scale
        by_cube = (cube + fma(3.0 * cube, lost, fma(square_lost, inverse, cube_lost))) * (-2.0 * scale)
        for j in range(score.shape[0]):
            p = float(score[j])
            t = float(label[j])
            rise = fma(alpha, 1.0 - t, -(beta * t))
            denominator_slope = fma(alpha, 1.0 - t, (1.0 - beta) * t)
            numerator = fma(rise, overlap, -(missed * t)) + fma(rise, overlap_lo, -(missed_lo * t))
            here = (p >= 0.0) & (all_total > 0.0)
            gradient[j] = numerator * by_square if here else 0.0
            hessian[j] = (numerator * denominator_slope) * by_cube * scale if here else 0.0
    return divide(all_missed, all_total) if all_total > 0.0 else 0.0


@dataclass(frozen=True)
class Tversky(ListwiseLoss):
    """1 less the Tversky index of the labels and the predicted probabilities of a list; 0 where both are empty.

    Parameters
    ----------
    alpha : float
        Weight of false positives, at least 0.
    beta : float
        Weight of false negatives, at least 0.
    smooth : float
        What is added to numerator and denominator, at least 0.
    """

    alpha: float = 0.5
    beta: float = 0.5
    smooth: float = 1e-7

    name: ClassVar[str] = "tversky"
    aliases: ClassVar[tuple[str, ...]] = ("tversky_loss",)
    label_range: ClassVar[Interval] = Interval(0.0, 1.0)
    formulas = {"prob": row}
    ranges = {name: Interval(0.0, 1e100) for name in ("alpha", "beta", "smooth")}
    definition = "1 − (Σpt + smooth)/(Σpt + alpha·Σp(1 − t) + beta·Σ(1 − p)t + smooth)"
    source = (
        "Tversky, Features of similarity, Psychological Review 84 (1977), ratio model; "
        "Salehi et al., Tversky loss function for image segmentation, arXiv:1706.05721 (2017), section 2"
    )

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return alpha, beta and smooth, and 0 for what is added to the misses."""
        return float(self.alpha), float(self.beta), float(self.smooth), 0.0
