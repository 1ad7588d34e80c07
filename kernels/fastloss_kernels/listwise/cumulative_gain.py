"""Building blocks of discounted cumulative gain (DCG) of lists in the order of their scores, and of its ideal."""

from __future__ import annotations

from fastloss_kernels.double_double import divide_parts, product_parts, two_sum
from fastloss_kernels.jit import float64_bits, float64_from_bits, formula
from fastloss_kernels.listwise.discounts import discount, sum_of_discounts
from fastloss_kernels.listwise.ndcg import exp2_gain
from fastloss_kernels.listwise.ranked import end_of_ties, positives_among

# 2^y − 1 is exact for whole labels up to here.
_MOST_EXACT = 52.0
# So many different labels are counted, each in a pass over the list.
MOST_GRADES = 8
# Labels that are all below the first are multiplied by the second, so that no gain loses digits below 1e-308.
TINY_LABEL = 2.0**-400
TINY_SCALE = 2.0**600


@formula
def gain_of(label: float, exp2: bool, scale: float) -> tuple[float, float]:
    """Compute label·scale, or 2^label − 1, as hi + lo."""
    hi, lo = label * scale, 0.0
    if exp2:
        if (label <= _MOST_EXACT) & (label == int(label)):
            hi = float64_from_bits((1023 + int(label)) << 52) - 1.0
        else:
            hi, lo = exp2_gain(label)
    return hi, lo


@formula
def sink(heap, root: int, n: int) -> None:
    """Let a number sink in a heap whose root is the highest."""
    x = heap[root]
    child = 2 * root + 1
    while child < n:
        if child + 1 < n and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= x:
            break
        heap[root] = heap[child]
        root = child
        child = 2 * root + 1
    heap[root] = x


@formula
def discounted_gain(tables, score, label, last_rank: int, exp2: bool, scale: float) -> tuple[float, float]:
    """Compute the discounted gain of the first ranks of a list in the order of its scores, as hi + lo."""
    total = 0.0
    total_lo = 0.0
    start = 0
    while start < last_rank:
        end = end_of_ties(score, start)
        # The labels of equal scores descend.
        if label[start] > 0.0:
            gain, gain_lo = gain_of(float(label[start]), exp2, scale)
            if end == start + 1:
                weight, weight_lo = discount(tables, end)
            else:
                # In the mean over every order, each of the tied ranks has the mean gain.
                for j in range(start + 1, start + positives_among(label, start, end)):
                    term, term_lo = gain_of(float(label[j]), exp2, scale)
                    gain, lost = two_sum(gain, term)
                    gain_lo += lost + term_lo
                gain, gain_lo = divide_parts(gain, gain_lo, float(end - start), 0.0)
                weight, weight_lo = sum_of_discounts(tables, start + 1, min(end, last_rank))
            term, term_lo = product_parts(gain, gain_lo, weight, weight_lo)
            total, lost = two_sum(total, term)
            total_lo += lost + term_lo
        start = end
    return two_sum(total, total_lo)


@formula
def ideal_gain(
    tables, label, highest: int, n_positive: int, last_rank: int, exp2: bool, scale: float, heap
) -> tuple[float, float]:
    """Compute the same of the order of the labels, the highest of which has these bits.

    Equal labels are counted, as long as few are different: grades, or 0 and 1. Others are taken from `heap`, scratch
    as long as the list.
    """
    n_ranks = min(n_positive, last_rank)
    total = 0.0
    total_lo = 0.0
    ranked = 0
    n_different = 0
    grade = highest
    while (ranked < n_ranks) & (n_different < MOST_GRADES):
        # The order of positive numbers is that of their bits.
        n_equal = 0
        lower = 0
        for j in range(label.shape[0]):
            bits = float64_bits(float(label[j]))
            n_equal += 1 if bits == grade else 0
            lower = max(lower, bits if bits < grade else 0)
        gain, gain_lo = gain_of(float64_from_bits(grade), exp2, scale)
        weight, weight_lo = sum_of_discounts(tables, ranked + 1, min(ranked + n_equal, n_ranks))
        term, term_lo = product_parts(gain, gain_lo, weight, weight_lo)
        total, lost = two_sum(total, term)
        total_lo += lost + term_lo
        ranked += n_equal
        grade = lower
        n_different += 1
    if ranked < n_ranks:
        n = 0
        for j in range(label.shape[0]):
            bits = float64_bits(float(label[j]))
            if (bits > 0) & (bits <= grade):
                heap[n] = label[j]
                n += 1
        for root in range(n // 2 - 1, -1, -1):
            sink(heap, root, n)
        for rank in range(ranked + 1, n_ranks + 1):
            gain, gain_lo = gain_of(float(heap[0]), exp2, scale)
            weight, weight_lo = discount(tables, rank)
            term, term_lo = product_parts(gain, gain_lo, weight, weight_lo)
            total, lost = two_sum(total, term)
            total_lo += lost + term_lo
            n -= 1
            heap[0] = heap[n]
            sink(heap, 0, n)
    return two_sum(total, total_lo)
