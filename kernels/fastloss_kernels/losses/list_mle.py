"""ListMLE: likelihood of the order of a list by its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.double_double import divide_parts, exp_parts, product_parts, rounded_sum, two_sum
from fastloss_kernels.elementary import log1p
from fastloss_kernels.jit import divide, float64_bits, fma, formula
from fastloss_kernels.listwise.ndcg import position_by_label
from fastloss_kernels.listwise.pairs import fill_nan
from fastloss_kernels.losses.base import PairwiseLoss

# A candidate, in the low bits, and the position of another are kept as one whole float64.
CANDIDATE_BITS = 26
CANDIDATE_MASK = 2**CANDIDATE_BITS - 1


@formula
def exp_of_difference(x: float, highest: float) -> tuple[float, float]:
    """Compute e^(x − highest) as hi + lo, 1 for equal numbers, infinite ones too."""
    difference, lost = two_sum(x, -highest)
    e, e_lo = exp_parts(difference if x < highest else 0.0)
    lost = lost if abs(difference) < 1000.0 else 0.0
    return e, fma(e, lost, e_lo)


@formula
def candidate_at(packed: float) -> int:
    """Return the candidate of what is packed for a position."""
    return int(packed) & CANDIDATE_MASK


@formula
def top_at(packed: float) -> int:
    """Return the position of the highest score from a position on."""
    return int(packed) >> CANDIDATE_BITS


@formula
def move_to_candidates(score, label, gradient, hessian):
    """Move derivatives from positions to candidates, cycle by cycle; those moved are marked by the hessian's sign."""
    for first in range(score.shape[0]):
        if float64_bits(float(hessian[first])) >= 0:
            slope = float(gradient[first])
            curvature = float(hessian[first])
            here = first
            position = position_by_label(score, label, here)
            while position != first:
                gradient[here] = gradient[position]
                hessian[here] = -float(hessian[position])
                here = position
                position = position_by_label(score, label, here)
            gradient[here] = slope
            hessian[here] = -curvature
    for j in range(score.shape[0]):
        hessian[j] = -float(hessian[j])


@formula
def derivatives_by_position(score, count, gradient, hessian):
    """Replace what `row` left for each position by the derivatives there.

    With p_i the probability of a candidate at position i, they are Σ p_i − 1 and Σ p_i·(1 − p_i) over the positions up
    to its own. Where it is the highest from i on, 1 − p_i is Σ′/(1 + Σ′), and added up apart; elsewhere p_i is at most
    1/2, and Σ p_i − Σ p_i² cancels little. Sums of 1/(1 + Σ′) and of its square are relative to the highest score from
    here on.
    """
    top = -1
    highest = 0.0
    shares = 0.0
    shares_lo = 0.0
    squares = 0.0
    squares_lo = 0.0
    earlier = 0.0
    at_top = 0.0
    at_top_lo = 0.0
    for i in range(count):
        packed = float(hessian[i])
        x = float(score[candidate_at(packed)])
        if top_at(packed) != top:
            top = top_at(packed)
            before = highest
            highest = float(score[candidate_at(float(hessian[top]))])
            if i > 0:
                e, e_lo = exp_of_difference(highest, before)
                shares, shares_lo = product_parts(shares, shares_lo, e, e_lo)
                squares, squares_lo = product_parts(squares, squares_lo, e, e_lo)
                squares, squares_lo = product_parts(squares, squares_lo, e, e_lo)
            earlier = (shares - squares) + (shares_lo - squares_lo)
            at_top = 0.0
            at_top_lo = 0.0
        rest = float(gradient[i])
        total, total_lo = two_sum(1.0, rest)
        share, share_lo = divide_parts(1.0, 0.0, total, total_lo)
        unlikely = rest * share
        at_top, lost = two_sum(at_top, unlikely * share)
        at_top_lo += lost
        e, e_lo = exp_of_difference(x, highest)
        asked, asked_lo = product_parts(shares, shares_lo, e, e_lo)
        square, square_lo = product_parts(squares, squares_lo, e, e_lo)
        square, square_lo = product_parts(square, square_lo, e, e_lo)
        p, p_lo = product_parts(share, share_lo, e, e_lo)
        left = unlikely if i == top else (1.0 - p) - p_lo
        slope, lost = two_sum(asked, -left)
        curvature = (asked - square) + (asked_lo - square_lo) + p * left
        curvature = earlier + (at_top + at_top_lo) if i == top else curvature
        gradient[i] = slope + (lost + asked_lo)
        # A sign of its own would be taken for a mark.
        hessian[i] = curvature if curvature > 0.0 else 0.0
        shares, lost = two_sum(shares, share)
        shares_lo += lost + share_lo
        power, power_lo = product_parts(share, share_lo, share, share_lo)
        squares, lost = two_sum(squares, power)
        squares_lo += lost + power_lo
    for i in range(count, score.shape[0]):
        gradient[i] = 0.0
        hessian[i] = 0.0


@formula
def row(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate Σ (m − s) + log(1 + Σ′e^(s − m)) over positions, m the highest score from there on, Σ′ over all others.

    Scores are added from the last position to the first, relative to the highest so far.
    """
    n = score.shape[0]
    if n > parameters[0]:
        return fill_nan(gradient, hessian, derivatives)
    count = 0
    for k in range(n):
        hessian[position_by_label(score, label, k)] = float(k)
        count += 1 if float(score[k]) > float("-inf") else 0
    value = 0.0
    value_lo = 0.0
    highest = float("-inf")
    top = 0
    rest = 0.0
    rest_lo = 0.0
    for back in range(count):
        i = count - 1 - back
        k = float(hessian[i])
        x = float(score[int(k)])
        if x >= highest:
            if back > 0:
                e, e_lo = exp_of_difference(highest, x)
                total, lost = two_sum(1.0, rest)
                rest, rest_lo = product_parts(total, lost + rest_lo, e, e_lo)
                rest, rest_lo = two_sum(rest, rest_lo)
            highest = x
            top = i
        else:
            e, e_lo = exp_of_difference(x, highest)
            rest, lost = two_sum(rest, e)
            rest, rest_lo = two_sum(rest, rest_lo + (lost + e_lo))
        gradient[i] = rest
        hessian[i] = fma(float(top), 2.0**CANDIDATE_BITS, k)
        difference, lost = two_sum(highest, -x)
        lost = lost if difference < float("inf") else 0.0
        difference = difference if x < highest else 0.0
        lost = lost if x < highest else 0.0
        inner = log1p(rest)
        value, value_lost = two_sum(value, difference)
        value_lo += lost + value_lost
        value, value_lost = two_sum(value, inner)
        value_lo += value_lost + divide(rest_lo, 1.0 + rest)
    value = rounded_sum(value, value_lo)
    if derivatives:
        derivatives_by_position(score, count, gradient, hessian)
        move_to_candidates(score, label, gradient, hessian)
    return value


@formula
def saturated(score, label, parameters):
    """Tell whether the loss is infinite: another candidate comes before the one that has all probability."""
    top = -1
    for j in range(score.shape[0]):
        top = j if float(score[j]) == float("inf") else top
    found = False
    if top >= 0:
        own = float(label[top])
        for j in range(score.shape[0]):
            y = float(label[j])
            found |= (float(score[j]) > float("-inf")) & ((y > own) | ((y == own) & (j < top)))
    return found


@dataclass(frozen=True)
class ListMLE(PairwiseLoss):
    """Negative log-likelihood, in nats, of the order of a list by its labels in the Plackett–Luce model of its scores.

    The order is by labels, the highest first; of equal labels the first candidate is first. Labels are any numbers,
    and nothing but their order counts. Positions are found by counting, in time that grows with the square of a list's
    length.

    Parameters
    ----------
    max_pairs : int
        Lists of more than so many pairs of candidates, n·(n − 1)/2, are refused.
    """

    name: ClassVar[str] = "list_mle"
    aliases: ClassVar[tuple[str, ...]] = ("listmle", "list_mle_loss")
    unit: ClassVar[str] = "nats"
    formulas = {"logit": row}
    saturated = {"logit": saturated}
    definition = "Σ_i log(Σ e^(s_j)) − s_i, j over i and all after it in the order by labels, equal ones by position"
    source = "Xia et al., Listwise approach to learning to rank: theory and algorithm, ICML (2008)"

    @property
    def needs(self) -> str:
        """No pair: equal labels are in an order too."""
        return "candidate"
