"""Loops over keys: unsigned integers of 32 or 64 bits that have the order of the scores that they are made of.

NumPy's sort takes 20 to 50 ns a score on processors that compress vectors slowly; counting digits takes 2 ns a digit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastloss_kernels.jit import compile_cpu, formula

# What keys are grouped by, and a digit that they are sorted by.
TOP_BITS = 16
_DIGIT_BITS = 11


@formula
def place_by_digit(keys, shift, counts, out):
    """Put keys into the order of one digit, those of equal digits as they were; `counts` has a 0 for each digit."""
    mask, right = np.uint64(counts.shape[0] - 1), np.uint64(shift)
    for i in range(keys.shape[0]):
        counts[(np.uint64(keys[i]) >> right) & mask] += np.uint64(1)
    begin = np.uint64(0)
    for digit in range(counts.shape[0]):
        count = counts[digit]
        counts[digit] = begin
        begin += count
    for i in range(keys.shape[0]):
        digit = (np.uint64(keys[i]) >> right) & mask
        place = counts[digit]
        counts[digit] = place + np.uint64(1)
        out[place] = keys[i]


@functools.cache
def make_group_keys() -> Callable[..., None]:
    """Make ``group_keys(keys, grouped)``: put keys into the order of their `TOP_BITS` leading bits."""

    def group_keys(keys, grouped):
        counts = np.zeros(1 << TOP_BITS, dtype=np.uint64)
        place_by_digit(keys, 8 * keys.itemsize - TOP_BITS, counts, grouped)

    return compile_cpu(group_keys)


@functools.cache
def make_sort_keys() -> Callable[..., None]:
    """Make ``sort_keys(keys, spare)``: sort keys where they are, with the help of an array as long."""

    def sort_keys(keys, spare):
        if keys.shape[0] == 0:
            return
        # Bits in which keys differ: other digits are not looked at.
        differ = np.uint64(0)
        for i in range(keys.shape[0]):
            differ |= np.uint64(keys[i]) ^ np.uint64(keys[0])
        counts = np.empty(1 << _DIGIT_BITS, dtype=np.uint64)
        here, there, is_moved = keys, spare, False
        for shift in range(0, 8 * keys.itemsize, _DIGIT_BITS):
            if (differ >> np.uint64(shift)) & np.uint64((1 << _DIGIT_BITS) - 1) != np.uint64(0):
                counts[:] = np.uint64(0)
                place_by_digit(here, shift, counts, there)
                here, there, is_moved = there, here, not is_moved
        if is_moved:
            keys[:] = here

    return compile_cpu(sort_keys)


@functools.cache
def make_count_sorted() -> Callable[..., tuple[int, int]]:
    """Make ``count_sorted(positive, negative) -> (below, tied)``: pairs of sorted keys, and those of equal ones.

    `below` counts the pairs whose negative is below the positive.
    """

    def count_sorted(positive, negative):
        below, tied, first, end = 0, 0, 0, 0
        n_negative = negative.shape[0]
        for i in range(positive.shape[0]):
            key = positive[i]
            while first < n_negative and negative[first] < key:
                first += 1
            end = max(first, end)
            while end < n_negative and negative[end] == key:
                end += 1
            below += first
            tied += end - first
        return below, tied

    return compile_cpu(count_sorted)
