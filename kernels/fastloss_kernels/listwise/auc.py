"""Building blocks of the AUC of one list, whose candidates stand from the highest score to the lowest.

Candidates of equal scores stand from the highest label to the lowest. A label y between 0 and 1 is a positive with the
part y of its weight, and a negative with the part 1 − y.
"""

from __future__ import annotations

from fastloss_kernels.double_double import divide_parts, multiply_parts, product_parts, two_sum
from fastloss_kernels.jit import float64_bits, float64_from_bits, formula
from fastloss_kernels.listwise.sums import sum_parts


@formula
def is_binary(label) -> bool:
    """Tell whether every label is 0 or 1."""
    soft = 0
    for j in range(label.shape[0]):
        y = float(label[j])
        soft += (y != 0.0) & (y != 1.0)
    return soft == 0


@formula
def whole_pairs(score, label) -> tuple[int, int, int]:
    """Count, of labels 0 and 1, twice the pairs won, the positives and the negatives; a tie wins half a pair."""
    won = 0
    positives = 0
    negatives = 0
    run_positives = 0
    run_negatives = 0
    for j in range(score.shape[0]):
        if j > 0 and score[j] != score[j - 1]:
            won += run_negatives * (2 * positives + run_positives)
            positives += run_positives
            negatives += run_negatives
            run_positives = 0
            run_negatives = 0
        positive = 1 if label[j] == 1.0 else 0
        run_positives += positive
        run_negatives += 1 - positive
    won += run_negatives * (2 * positives + run_positives)
    return won, positives + run_positives, negatives + run_negatives


@formula
def scale_of(weight) -> float:
    """Return a power of two that brings the largest weight near 1, so that no product of two overflows."""
    largest = 0
    for j in range(weight.shape[0]):
        largest = max(largest, float64_bits(float(weight[j])))
    return float64_from_bits(min(max(2046 - (largest >> 52), 1), 2045) << 52)


@formula
def add_parts(a: float, a_lo: float, b: float, b_lo: float) -> tuple[float, float]:
    """Compute (a + a_lo) + (b + b_lo) as hi + lo."""
    total, lost = two_sum(a, b)
    return two_sum(total, lost + (a_lo + b_lo))


@formula
def weighted_pairs(
    score, label, weight, weighted: bool, scale: float
) -> tuple[float, float, float, float, float, float]:
    """Sum the weight of the pairs won, of the positives and of the negatives, each as hi + lo, weights times `scale`.

    A pair weighs the product of its weights, and a tie wins half of it. Without weights each candidate weighs 1.
    """
    won = 0.0
    won_lo = 0.0
    positives = 0.0
    positives_lo = 0.0
    negatives = 0.0
    negatives_lo = 0.0
    n = score.shape[0]
    start = 0
    while start < n:
        run_positives = 0.0
        run_positives_lo = 0.0
        run_negatives = 0.0
        run_negatives_lo = 0.0
        at = start
        while at < n and score[at] == score[start]:
            # Candidates of one score and label may stand in any order: the sum of their weights is the same.
            stop = at + 1
            while stop < n and score[stop] == score[start] and label[stop] == label[at]:
                stop += 1
            mass = float(stop - at)
            mass_lo = 0.0
            if weighted:
                mass, mass_lo = sum_parts(weight[at:stop])
                mass *= scale
                mass_lo *= scale
            y = float(label[at])
            no = 1.0 - y
            no_lo = (1.0 - no) - y
            part, part_lo = multiply_parts(y, mass, mass_lo)
            run_positives, run_positives_lo = add_parts(run_positives, run_positives_lo, part, part_lo)
            part, part_lo = product_parts(no, no_lo, mass, mass_lo)
            run_negatives, run_negatives_lo = add_parts(run_negatives, run_negatives_lo, part, part_lo)
            at = stop
        above, above_lo = add_parts(positives, positives_lo, 0.5 * run_positives, 0.5 * run_positives_lo)
        part, part_lo = product_parts(above, above_lo, run_negatives, run_negatives_lo)
        won, won_lo = add_parts(won, won_lo, part, part_lo)
        positives, positives_lo = add_parts(positives, positives_lo, run_positives, run_positives_lo)
        negatives, negatives_lo = add_parts(negatives, negatives_lo, run_negatives, run_negatives_lo)
        start = at
    return won, won_lo, positives, positives_lo, negatives, negatives_lo


@formula
def pairs_of(score, label, weight, weighted: bool) -> tuple[float, ...]:
    """Return what `weighted_pairs` does, and the scale of its weights: by counting where all labels are 0 or 1."""
    if not weighted and is_binary(label):
        twice, positives, negatives = whole_pairs(score, label)
        return 0.5 * float(twice), 0.0, float(positives), 0.0, float(negatives), 0.0, 1.0
    scale = scale_of(weight) if weighted else 1.0
    won, won_lo, positives, positives_lo, negatives, negatives_lo = weighted_pairs(
        score, label, weight, weighted, scale
    )
    return won, won_lo, positives, positives_lo, negatives, negatives_lo, scale


@formula
def quotient_of_pairs(
    won: float, won_lo: float, positives: float, positives_lo: float, negatives: float, negatives_lo: float
) -> tuple[float, float]:
    """Compute the AUC as hi + lo; NaN without a positive or without a negative."""
    pairs, pairs_lo = product_parts(positives, positives_lo, negatives, negatives_lo)
    return divide_parts(won, won_lo, pairs, pairs_lo)
