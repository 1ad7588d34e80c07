"""Cosine similarity of two vectors, negated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, Interval
from fastloss_kernels.double_double import multiply_parts, two_sum
from fastloss_kernels.jit import divide, fma, formula, square_root
from fastloss_kernels.listwise.vectors import dot_parts, power_of_two_below
from fastloss_kernels.losses.base import ListwiseLoss

# Sums are known to about 2⁻⁶² of their largest term.
NOISE = 2.0**-60


@formula
def row(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate −Σt·s/(‖t‖·‖s‖), every sum in two parts, on vectors scaled to a largest element of about 1.

    With a = Σt·s, n = Σs² and r = ‖t‖·‖s‖ the gradient is (a·s − n·t)/(n·r), and the hessian, with v for that
    numerator, (a·(n − s²) − 2s·v)/(n²·r).
    """
    scale = power_of_two_below(score, score)
    label_scale = power_of_two_below(label, score)
    label_square, _ = dot_parts(label, label_scale, label, label_scale, score, gradient, hessian)
    square, square_lo = dot_parts(score, scale, score, scale, score, gradient, hessian)
    dot, dot_lo = dot_parts(score, scale, label, label_scale, score, gradient, hessian)
    norms = square_root(square * label_square)
    defined = norms > 0.0
    cosine = divide(dot + dot_lo, norms)
    cosine = -1.0 if cosine < -1.0 else cosine
    cosine = 1.0 if cosine > 1.0 else cosine
    if derivatives:
        divisor = square * norms
        for j in range(score.shape[0]):
            x = float(score[j])
            s = x * scale
            along, along_lo = multiply_parts(s, dot, dot_lo)
            across, across_lo = multiply_parts(float(label[j]) * label_scale, square, square_lo)
            numerator, lost = two_sum(along, -across)
            numerator += lost + (along_lo - across_lo)
            # What is left of equal parts is rounding.
            numerator = 0.0 if abs(numerator) <= NOISE * abs(along) else numerator
            others = fma(-s, s, square) + square_lo
            curvature = divide(fma(dot, others, -2.0 * s * numerator), divisor * square) * scale * scale
            here = defined & (x == x)
            gradient[j] = divide(numerator, divisor) * scale if here else 0.0
            hessian[j] = curvature if here else 0.0
    return -cosine if defined else 0.0


@dataclass(frozen=True)
class CosineSimilarity(ListwiseLoss):
    """Cosine of the angle between the label's and the prediction's vector, negated: −1 is best, 1 worst.

    A vector of zeros has the loss 0, and derivatives of 0.
    """

    name: ClassVar[str] = "cosine_similarity"
    aliases: ClassVar[tuple[str, ...]] = ("cosine_proximity", "cosine_loss")
    label_range: ClassVar[Interval] = FINITE
    formulas = {"value": row}
    definition = "−Σ t·s/(‖t‖·‖s‖); 0, and subgradient 0, where a norm is 0"
    source = (
        "Manning, Raghavan and Schütze, Introduction to information retrieval (2008), eq. 6.10, negated as in Keras"
    )
