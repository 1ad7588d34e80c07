"""Loops over keys: unsigned integers of 32 or 64 bits that have the order of the scores that they are made of.

NumPy's sort takes 20 to 50 ns a score on processors that compress vectors slowly; counting digits takes 2 ns a digit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastloss_kernels.jit import compile_cpu, formula

# What keys are grouped by, and the most bits of a digit that they are sorted by.
TOP_BITS = 15
_DIGIT_BITS = 12


@formula
def make_places(counts):
    """Turn how many keys there are of each kind into where the first of them goes."""
    begin = np.uint32(0)
    for kind in range(counts.shape[0]):
        count = counts[kind]
        counts[kind] = begin
        begin += count


@functools.cache
def make_group_keys() -> Callable[..., None]:
    """Make ``group_keys(keys, label, grouped)``: put keys of label 1 before those of 0, by their leading bits.

    Labels are int8. The order is that of the `TOP_BITS` leading bits, and among equal ones that of the keys.
    """

    def group_keys(keys, label, grouped):
        right = np.uint64(8 * keys.itemsize - TOP_BITS)
        counts = np.zeros(2 << TOP_BITS, dtype=np.uint32)
        for i in range(keys.shape[0]):
            kind = (np.uint64(keys[i]) >> right) | np.uint64(1 - label[i]) << np.uint64(TOP_BITS)
            counts[kind] += np.uint32(1)
        make_places(counts)
        for i in range(keys.shape[0]):
            kind = (np.uint64(keys[i]) >> right) | np.uint64(1 - label[i]) << np.uint64(TOP_BITS)
            place = counts[kind]
            counts[kind] = place + np.uint32(1)
            grouped[place] = keys[i]

    return compile_cpu(group_keys)


@functools.cache
def make_sort_keys() -> Callable[..., None]:
    """Make ``sort_keys(keys, spare)``: sort fewer than 2^32 keys where they are, with the help of an array as long."""

    def sort_keys(keys, spare):
        if keys.shape[0] == 0:
            return
        # Bits above the highest in which keys differ are not looked at.
        differ = np.uint64(0)
        for i in range(keys.shape[0]):
            differ |= np.uint64(keys[i]) ^ np.uint64(keys[0])
        n_bits = 0
        while n_bits < 64 and differ >> np.uint64(n_bits) != np.uint64(0):
            n_bits += 1
        n_digits = max(1, -(-n_bits // _DIGIT_BITS))
        digit_bits = max(1, -(-n_bits // n_digits))
        mask = np.uint64((1 << digit_bits) - 1)
        counts = np.empty(1 << digit_bits, dtype=np.uint32)
        here, there = keys, spare
        for digit in range(n_digits):
            right = np.uint64(digit * digit_bits)
            counts[:] = np.uint32(0)
            for i in range(here.shape[0]):
                counts[(np.uint64(here[i]) >> right) & mask] += np.uint32(1)
            make_places(counts)
            for i in range(here.shape[0]):
                kind = (np.uint64(here[i]) >> right) & mask
                place = counts[kind]
                counts[kind] = place + np.uint32(1)
                there[place] = here[i]
            here, there = there, here
        if n_digits & 1:
            keys[:] = spare

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
