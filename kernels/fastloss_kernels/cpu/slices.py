"""Loops over many slices: adding terms and counts to the slice of each row, merging, and finding slices by key.

Accumulators are windowed (`fastloss_kernels.exact_sum`): int64 ``(n_slices, n_limbs + 3)`` from the limb `low` on.

A hash table finds the number of a key. Numbers are dense and in the order in which keys were first seen, so keys
and everything kept for them are plain arrays; the table holds 4 bytes a slot: the number plus 1, 0 where free. It has
a power of two of slots, at most half of them used, and is searched from the slot that the key's hash names onwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastloss_kernels.exact_sum import BLOCK_ROWS, add_block, add_term, carry_digits, limbs_of
from fastloss_kernels.jit import compile_cpu, formula, prefetch

# Below this length of a run, adding term by term is shorter than splitting.
_SHORT_RUN = 16
# How many rows ahead the memory of a slice is asked for. That of a million slices in random order comes from outside
# of the caches: 20 ns a term with it, 35 ns without (AMD EPYC, both cores busy).
_AHEAD = 16


@functools.cache
def make_limbs_of() -> Callable[..., tuple[int, int]]:
    """Make ``limbs_of(terms)``: the window that float64 ``(n_rows,)`` needs; see `exact_sum.limbs_of`."""

    def find_limbs(terms):
        return limbs_of(terms)

    return compile_cpu(find_limbs)


@functools.cache
def make_add_by_row() -> Callable[..., None]:
    """Make ``add_by_row(terms, positions, words, low)``: term i goes to the slice ``positions[i]``.

    The window must hold the terms, as `limbs_of` has it. This is the loop for many slices with few rows each:
    neighbouring rows go to different slices, so the memory of several is fetched at a time.
    """

    def add_by_row(terms, positions, words, low):
        last = terms.shape[0] - 1
        for i in range(last + 1):
            prefetch(words, positions[min(i + _AHEAD, last)])
            add_term(words[positions[i]], terms[i], low)

    return compile_cpu(add_by_row)


@functools.cache
def make_add_by_run() -> Callable[..., None]:
    """Make ``add_by_run(terms, order, starts, positions, words, low)``: each run of terms goes to its slice.

    Run k is ``terms[order[starts[k]:starts[k + 1]]]``, or ``terms[starts[k]:starts[k + 1]]`` where `order` is empty,
    and goes to the slice ``positions[k]``. The window must hold the terms, as `limbs_of` has it.
    """

    def add_by_run(terms, order, starts, positions, words, low):
        n_limbs = words.shape[1] - 3
        ordered = order.shape[0] > 0
        block = np.empty(BLOCK_ROWS)
        # Blocks need two limbs below those of their terms and one above.
        margin = np.zeros(n_limbs + 6, dtype=np.int64)
        for run in range(starts.shape[0] - 1):
            accumulator = words[positions[run]]
            first = starts[run]
            stop = starts[run + 1]
            if stop - first < _SHORT_RUN:
                for i in range(first, stop):
                    add_term(accumulator, terms[order[i]] if ordered else terms[i], low)
                continue
            margin[:] = 0
            for start in range(first, stop, BLOCK_ROWS):
                end = min(start + BLOCK_ROWS, stop)
                if ordered:
                    for i in range(start, end):
                        block[i - start] = terms[order[i]]
                    add_block(margin, block[: end - start], low - 2)
                else:
                    add_block(margin, terms[start:end], low - 2)
            # What stood in the two lowest limbs has been carried up: the sum's digits are those of its terms.
            carry_digits(margin)
            for limb in range(n_limbs):
                accumulator[limb] += margin[limb + 2]
            accumulator[n_limbs - 1] += margin[n_limbs + 2] << 32
            for count in range(3):
                accumulator[n_limbs + count] += margin[n_limbs + 3 + count]

    return compile_cpu(add_by_run)


@functools.cache
def make_merge_words() -> Callable[..., None]:
    """Make ``merge_words(words, other, positions, shift)``: ``other[i]`` is added to ``words[positions[i]]``.

    Both are windowed accumulators. The window of `other` begins `shift` limbs above that of `words`, which holds it.
    """

    def merge_words(words, other, positions, shift):
        n_limbs = words.shape[1] - 3
        n_other = other.shape[1] - 3
        inside = shift + n_other < n_limbs
        end = other.shape[0] - 1
        for i in range(end + 1):
            prefetch(words, positions[min(i + _AHEAD, end)])
            accumulator = words[positions[i]]
            for limb in range(n_other):
                accumulator[shift + limb] += other[i, limb]
            if inside and n_other > 0:
                # The last limb of a window may be long; inside of another it would use up the room of a digit.
                last = shift + n_other - 1
                long = other[i, n_other - 1] >> 32
                accumulator[last] -= long << 32
                accumulator[last + 1] += long
            for count in range(3):
                accumulator[n_limbs + count] += other[i, n_other + count]

    return compile_cpu(merge_words)


@functools.cache
def make_add_counts() -> Callable[..., None]:
    """Make ``add_counts(numbers, positions, counts)``: ``counts[positions[i]] += numbers[i]``, all int64."""

    def add_counts(numbers, positions, counts):
        for i in range(positions.shape[0]):
            counts[positions[i]] += numbers[i]

    return compile_cpu(add_counts)


@functools.cache
def make_count_rows() -> Callable[..., None]:
    """Make ``count_rows(positions, counts)``: ``counts[positions[i]] += 1``."""

    def count_rows(positions, counts):
        for i in range(positions.shape[0]):
            counts[positions[i]] += 1

    return compile_cpu(count_rows)


# ---------------------------------------------------------------------------------------------------------------
# Keys


@formula
def mix_bits(key):
    """Spread the bits of a 64-bit integer over all of a hash (the finalizer of SplitMix64, Steele et al. 2014)."""
    z = np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64(z ^ (z >> np.uint64(31)))


@functools.cache
def make_find_integers() -> Callable[..., int]:
    """Make ``find_integers(wanted, skipped, slots, keys, n_keys, numbers) -> n_keys``.

    The number of ``wanted[i]``, int64, goes to ``numbers[i]``; keys not yet known get the next numbers and are written
    to `keys`, which must have room. The position `skipped` is left out; -1 for none.
    """

    def find_integers(wanted, skipped, slots, keys, n_keys, numbers):
        mask = slots.shape[0] - 1
        last = wanted.shape[0] - 1
        for i in range(last + 1):
            prefetch(slots, mix_bits(wanted[min(i + 2 * _AHEAD, last)]) & mask)
            prefetch(keys, max(slots[mix_bits(wanted[min(i + _AHEAD, last)]) & mask] - 1, 0))
            if i == skipped:
                continue
            key = wanted[i]
            slot = mix_bits(key) & mask
            while True:
                number = slots[slot] - 1
                if number < 0:
                    number = n_keys
                    keys[number] = key
                    n_keys += 1
                    slots[slot] = n_keys
                    break
                if keys[number] == key:
                    break
                slot = (slot + 1) & mask
            numbers[i] = number
        return n_keys

    return compile_cpu(find_integers)


@functools.cache
def make_fill_slots() -> Callable[..., None]:
    """Make ``fill_slots(hashes, hashed, n_keys, skipped, slots)``: enter the numbers of known keys in a free table.

    `hashes` are hashes where `hashed`, else integer keys to be hashed; the number `skipped` is left out.
    """

    def fill_slots(hashes, hashed, n_keys, skipped, slots):
        mask = slots.shape[0] - 1
        for number in range(n_keys):
            ahead = hashes[min(number + _AHEAD, n_keys - 1)]
            prefetch(slots, (ahead if hashed else mix_bits(ahead)) & mask)
            if number == skipped:
                continue
            slot = (hashes[number] if hashed else mix_bits(hashes[number])) & mask
            while slots[slot] != 0:
                slot = (slot + 1) & mask
            slots[slot] = number + 1

    return compile_cpu(fill_slots)


@formula
def hash_bytes(data, first, stop):
    """Hash ``data[first:stop]``, uint8, eight bytes at a time."""
    state = np.int64(stop - first)
    i = first
    while i + 8 <= stop:
        word = np.int64(0)
        for j in range(8):
            word |= np.int64(data[i + j]) << (8 * j)
        state = mix_bits(state ^ word)
        i += 8
    word = np.int64(0)
    shift = 0
    while i < stop:
        word |= np.int64(data[i]) << shift
        shift += 8
        i += 1
    return mix_bits(state ^ word)


@functools.cache
def make_find_texts() -> Callable[..., int]:
    """Make ``find_texts(data, offsets, skipped, slots, hashes, known, known_offsets, n_keys, numbers) -> n_keys``.

    The number of the text ``data[offsets[i]:offsets[i + 1]]``, uint8, goes to ``numbers[i]``; texts not yet known get
    the next numbers and are written to the end of `known`, their ends to `known_offsets` and their hashes to `hashes`,
    which must all have room. The position `skipped` is left out; -1 for none.
    """

    def find_texts(data, offsets, skipped, slots, hashes, known, known_offsets, n_keys, numbers):
        mask = slots.shape[0] - 1
        for i in range(offsets.shape[0] - 1):
            if i == skipped:
                continue
            first = offsets[i]
            length = offsets[i + 1] - first
            wanted = hash_bytes(data, first, first + length)
            slot = wanted & mask
            while True:
                number = slots[slot] - 1
                if number < 0:
                    number = n_keys
                    end = known_offsets[number]
                    for j in range(length):
                        known[end + j] = data[first + j]
                    known_offsets[number + 1] = end + length
                    hashes[number] = wanted
                    n_keys += 1
                    slots[slot] = n_keys
                    break
                if hashes[number] == wanted:
                    start = known_offsets[number]
                    same = known_offsets[number + 1] - start == length
                    j = 0
                    while same and j < length:
                        same = known[start + j] == data[first + j]
                        j += 1
                    if same:
                        break
                slot = (slot + 1) & mask
            numbers[i] = number
        return n_keys

    return compile_cpu(find_texts)
