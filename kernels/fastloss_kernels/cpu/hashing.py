"""Hashes of 128 bits: of bytes, and of the words of several columns.

Bytes are hashed by MurmurHash3_x64_128 (Appleby 2011). Keys are compared by their hashes alone: of 20 million distinct
ones, two are equal with a probability of 6e-25.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastloss_kernels.jit import compile_cpu, formula, prefetch, word_at

_C1 = np.uint64(0x87C37B91114253D5)
_C2 = np.uint64(0x4CF5AD432745937F)
# How many rows ahead the memory of a slot is asked for.
_AHEAD = 16


@formula
def rotate_left(x, bits):
    """Rotate a uint64 to the left."""
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@formula
def first_word(x):
    """Mix the first word of a block of 16 bytes."""
    return rotate_left(x * _C1, 31) * _C2


@formula
def second_word(x):
    """Mix the second word of a block of 16 bytes."""
    return rotate_left(x * _C2, 33) * _C1


@formula
def add_block(high, low, first, second):
    """Return the state of a hash after a block of two words."""
    high = rotate_left(high ^ first_word(first), 27) + low
    high = high * np.uint64(5) + np.uint64(0x52DCE729)
    low = rotate_left(low ^ second_word(second), 31) + high
    return high, low * np.uint64(5) + np.uint64(0x38495AB5)


@formula
def mix_word(x):
    """Spread the bits of a word over all of it (the finalizer of MurmurHash3)."""
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))


@formula
def finish(high, low, n_bytes):
    """Return the hash of a state after all of `n_bytes` bytes."""
    high ^= np.uint64(n_bytes)
    low ^= np.uint64(n_bytes)
    high += low
    low += high
    high = mix_word(high)
    low = mix_word(low)
    high += low
    return high, low + high


@formula
def last_bytes(data, first, stop):
    """Return ``data[first:stop]``, 1 to 8 bytes, as a little-endian word."""
    if stop >= 8:
        # What stands before them is shifted out.
        return word_at(data, stop - 8) >> np.uint64(8 * (8 - (stop - first)))
    word = np.uint64(0)
    for i in range(first, stop):
        word |= np.uint64(data[i]) << np.uint64(8 * (i - first))
    return word


@formula
def hash_bytes_128(data, first, stop, seed):
    """Return both words of MurmurHash3_x64_128 of ``data[first:stop]``, uint8."""
    high = seed
    low = seed
    i = first
    while i + 16 <= stop:
        high, low = add_block(high, low, word_at(data, i), word_at(data, i + 8))
        i += 16
    if stop - i > 8:
        low ^= second_word(last_bytes(data, i + 8, stop))
        high ^= first_word(word_at(data, i))
    elif stop > i:
        high ^= first_word(last_bytes(data, i, stop))
    return finish(high, low, stop - first)


@functools.cache
def make_hash_bytes() -> Callable[..., None]:
    """Make ``hash_bytes(data, offsets, chosen, seed, high, low)``: the hashes of texts, uint64.

    Text i is ``data[offsets[i]:offsets[i + 1]]``, uint8. Row i gets the hash of the text ``chosen[i]``; where `chosen`
    is empty, of the text i.
    """

    def hash_bytes(data, offsets, chosen, seed, high, low):
        is_chosen = chosen.shape[0] > 0
        for i in range(high.shape[0]):
            text = chosen[i] if is_chosen else i
            high[i], low[i] = hash_bytes_128(data, offsets[text], offsets[text + 1], np.uint64(seed))

    return compile_cpu(hash_bytes)


@functools.cache
def make_hash_words() -> Callable[..., None]:
    """Make ``hash_words(words, high, low)``: row i gets the hash of the bytes of ``words[:, i]``, uint64."""

    def hash_words(words, high, low):
        n_words = words.shape[0]
        for i in range(high.shape[0]):
            state_high = np.uint64(0)
            state_low = np.uint64(0)
            for word in range(0, n_words - 1, 2):
                state_high, state_low = add_block(state_high, state_low, words[word, i], words[word + 1, i])
            if n_words & 1:
                state_high ^= first_word(words[n_words - 1, i])
            high[i], low[i] = finish(state_high, state_low, 8 * n_words)

    return compile_cpu(hash_words)


@functools.cache
def make_find_fresh() -> Callable[..., int]:
    """Make ``find_fresh(high, low, seen, fresh) -> n_fresh``: the rows whose 128-bit key has not been seen lately.

    Their numbers go to the front of `fresh`. `seen` is a table of a power of two of slots, zeros at first, that keeps
    the last key of each slot: a key that lost its slot to another is fresh again. Several threads may share it.
    """

    def find_fresh(high, low, seen, fresh):
        mask = np.uint64(seen.shape[0] - 1)
        n_rows = high.shape[0]
        n_fresh = 0
        for i in range(n_rows):
            prefetch(seen, np.int64(np.uint64(low[min(i + _AHEAD, n_rows - 1)]) & mask))
            slot = np.uint64(low[i]) & mask
            # No key is a zero, which an empty slot is.
            key = np.uint64(high[i]) | np.uint64(1)
            if seen[slot] != key:
                seen[slot] = key
                fresh[n_fresh] = i
                n_fresh += 1
        return n_fresh

    return compile_cpu(find_fresh)
