"""The discounts of discounted cumulative gain, 1/log₂(1 + rank), and their sums over ranks, as hi + lo.

A formula that reads the tables has them from what makes it, and names them once: each time that it does, a compiler
for GPUs adds a copy to what fits into 64 KiB.
"""

from __future__ import annotations

import functools
from typing import Any

from fastloss_kernels.double_double import divide_parts, log_of_positive_parts, two_sum
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.ndcg import LOG2, LOG2_SMALL

# Ranks whose discounts are not computed anew.
N_TABULATED = 512
# Of the integers that stand for logarithms and discounts in tables; the last dozen bits are wrong.
_BITS = 180


def _log_of_next(n: int) -> int:
    """Return log((n + 1)/n) times 2^_BITS, by the series of 2·artanh(1/(2n + 1))."""
    term = (2 << _BITS) // (2 * n + 1)
    total, odd = 0, 1
    while term:
        total += term // odd
        term //= (2 * n + 1) ** 2
        odd += 2
    return total


def _parts(fixed: int) -> tuple[float, float]:
    """Return an integer times 2^−_BITS as hi + lo, each rounded to nearest."""
    hi = fixed / (1 << _BITS)
    numerator, denominator = hi.as_integer_ratio()
    return hi, (fixed - (numerator << _BITS) // denominator) / (1 << _BITS)


@functools.cache
def tabulated() -> Any:
    """Return tables float64 ``(4, N_TABULATED + 1)``: hi and lo of each discount, and of their sum up to each rank.

    The entries of rank 0 are 0. They are computed in integers, so that every one is correctly rounded.
    """
    import numpy as np

    tables = np.zeros((4, N_TABULATED + 1))
    log_2 = log = _log_of_next(1)
    total = 0
    for rank in range(1, N_TABULATED + 1):
        discount = (log_2 << _BITS) // log
        total += discount
        tables[:2, rank] = _parts(discount)
        tables[2:, rank] = _parts(total)
        log += _log_of_next(rank + 1)
    return tables


@formula
def discount(tables, rank: int) -> tuple[float, float]:
    """Compute the discount of a rank from 1."""
    if rank <= N_TABULATED:
        return float(tables[0, rank]), float(tables[1, rank])
    log, log_lo = log_of_positive_parts(1.0 + rank, 0.0)
    return divide_parts(LOG2, LOG2_SMALL, log, log_lo)


@formula
def sum_of_discounts(tables, first: int, last: int) -> tuple[float, float]:
    """Compute the sum of the discounts of ranks from `first` to `last`."""
    before = min(first - 1, N_TABULATED)
    known = min(last, N_TABULATED)
    hi, lo = two_sum(float(tables[2, known]), -float(tables[2, before]))
    lo += float(tables[3, known]) - float(tables[3, before])
    hi, lo = two_sum(hi, lo)
    for rank in range(max(first, N_TABULATED + 1), last + 1):
        term, term_lo = discount(tables, rank)
        hi, lost = two_sum(hi, term)
        lo += lost + term_lo
    return two_sum(hi, lo)
