"""Loops that bring the rows of a key together: partitions by hash, narrow columns, and the groups of a partition.

A batch is written in the order of its partitions: places are found once, and each column is scattered to them. Columns
are written as unsigned integers of 0, 1, 2, 4 or 8 bytes, the distance from the batch's smallest number, or as the
floats that they are. Where columns of several batches meet, they are given by addresses, since each may have a width
of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastloss_kernels.cpu.slices import mix_bits
from fastloss_kernels.jit import (
    compile_cpu,
    float32_at,
    float64_at,
    formula,
    prefetch,
    uint8_at,
    uint16_at,
    uint32_at,
    uint64_at,
)

# How the numbers of a float column are written: as whole numbers, as float32 or as float64.
WHOLE, SINGLE, DOUBLE = 0, 1, 2
# A hash table of groups begins with as many slots as there are rows, within these bounds, and doubles when half of
# them are used. Few slots in use mean few keys that are compared in vain: 6 ns a row where an eighth as many take 8.
_FEWEST_SLOTS, _MOST_FIRST_SLOTS = 1 << 12, 1 << 20
# Beyond so many slots, what rows to come need is fetched ahead of them: so many rows.
_SLOTS_IN_CACHE = 1 << 18
_AHEAD = 16
# Lanes of a checksum: their multiplications overlap.
CHECKSUM_LANES = 4


@functools.cache
def make_hash_integers() -> Callable[..., None]:
    """Make ``hash_integers(keys, hashes)``: int64 keys to uint64 hashes, different ones for different keys."""

    def hash_integers(keys, hashes):
        for i in range(keys.shape[0]):
            hashes[i] = np.uint64(mix_bits(keys[i]))

    return compile_cpu(hash_integers)


@formula
def partition_of(wanted, skipped_bits, n_bits, apart):
    """Return the partition of a hash: one of its own if it is in `apart`, else its `n_bits` after the skipped ones."""
    for i in range(apart.shape[0]):
        if apart[i] == wanted:
            return (1 << n_bits) + i
    # By 64 bits no integer can be shifted, and `n_bits` may be 0.
    return np.int64((wanted << np.uint64(skipped_bits)) >> np.uint64(1) >> np.uint64(63 - n_bits))


@functools.cache
def make_place_rows() -> Callable[..., None]:
    """Make ``place_rows(address, skipped_bits, n_bits, apart, starts, places)``.

    Row i of a batch, whose uint64 hashes are at the address, goes to ``places[i]``, and those of partition p to
    ``starts[p]`` and on, in the order of the batch. ``starts`` is int32 ``(n_partitions + 1,)``, places are int32.
    """

    def place_rows(address, skipped_bits, n_bits, apart, starts, places):
        n_rows = places.shape[0]
        hashes = uint64_at(address, n_rows)
        starts[:] = 0
        for i in range(n_rows):
            starts[partition_of(hashes[i], skipped_bits, n_bits, apart) + 1] += np.int32(1)
        for partition in range(1, starts.shape[0]):
            starts[partition] += starts[partition - 1]
        following = starts.copy()
        for i in range(n_rows):
            partition = partition_of(hashes[i], skipped_bits, n_bits, apart)
            place = following[partition]
            following[partition] = place + np.int32(1)
            places[i] = place

    return compile_cpu(place_rows)


@functools.cache
def make_scatter() -> Callable[..., None]:
    """Make ``scatter(values, width, places, out)``: number i goes to place ``places[i]``.

    `values` and `out` are addresses of numbers of 1, 2, 4 or 8 bytes.
    """

    def scatter(values, width, places, out):
        n_rows = places.shape[0]
        if width == 1:
            from8, to8 = uint8_at(values, n_rows), uint8_at(out, n_rows)
            for i in range(n_rows):
                to8[places[i]] = from8[i]
        elif width == 2:
            from16, to16 = uint16_at(values, n_rows), uint16_at(out, n_rows)
            for i in range(n_rows):
                to16[places[i]] = from16[i]
        elif width == 4:
            from32, to32 = uint32_at(values, n_rows), uint32_at(out, n_rows)
            for i in range(n_rows):
                to32[places[i]] = from32[i]
        else:
            from64, to64 = uint64_at(values, n_rows), uint64_at(out, n_rows)
            for i in range(n_rows):
                to64[places[i]] = from64[i]

    return compile_cpu(scatter)


@functools.cache
def make_unpack_integers() -> Callable[..., None]:
    """Make ``unpack_integers(addresses, counts, widths, smallest, out)``: pieces of a column, one after the other.

    Piece k has ``counts[k]`` numbers of ``widths[k]`` bytes, to which ``smallest[k]``, uint64, is added; with a width
    of 0 each is the smallest. `out` is unsigned, and sums wrap around.
    """

    def unpack_integers(addresses, counts, widths, smallest, out):
        begin = 0
        for piece in range(counts.shape[0]):
            n_rows = counts[piece]
            least = smallest[piece]
            part = out[begin : begin + n_rows]
            begin += n_rows
            if widths[piece] == 0:
                for i in range(n_rows):
                    part[i] = least
            elif widths[piece] == 1:
                bytes1 = uint8_at(addresses[piece], n_rows)
                for i in range(n_rows):
                    part[i] = np.uint64(bytes1[i]) + least
            elif widths[piece] == 2:
                bytes2 = uint16_at(addresses[piece], n_rows)
                for i in range(n_rows):
                    part[i] = np.uint64(bytes2[i]) + least
            elif widths[piece] == 4:
                bytes4 = uint32_at(addresses[piece], n_rows)
                for i in range(n_rows):
                    part[i] = np.uint64(bytes4[i]) + least
            else:
                bytes8 = uint64_at(addresses[piece], n_rows)
                for i in range(n_rows):
                    part[i] = bytes8[i] + least

    return compile_cpu(unpack_integers)


@functools.cache
def make_unpack_floats() -> Callable[..., None]:
    """Make ``unpack_floats(addresses, counts, kinds, widths, smallest, out)``: as `make_unpack_integers`, to floats.

    The pieces are of the kinds `WHOLE`, of up to 4 bytes, `SINGLE` or `DOUBLE`; all are exact in the type of `out`.
    """

    def unpack_floats(addresses, counts, kinds, widths, smallest, out):
        begin = 0
        for piece in range(counts.shape[0]):
            n_rows = counts[piece]
            least = np.int64(smallest[piece])
            part = out[begin : begin + n_rows]
            begin += n_rows
            if kinds[piece] == SINGLE:
                singles = float32_at(addresses[piece], n_rows)
                for i in range(n_rows):
                    part[i] = singles[i]
            elif kinds[piece] == DOUBLE:
                doubles = float64_at(addresses[piece], n_rows)
                for i in range(n_rows):
                    part[i] = doubles[i]
            elif widths[piece] == 0:
                for i in range(n_rows):
                    part[i] = least
            elif widths[piece] == 1:
                bytes1 = uint8_at(addresses[piece], n_rows)
                for i in range(n_rows):
                    part[i] = np.int64(bytes1[i]) + least
            elif widths[piece] == 2:
                bytes2 = uint16_at(addresses[piece], n_rows)
                for i in range(n_rows):
                    part[i] = np.int64(bytes2[i]) + least
            else:
                bytes4 = uint32_at(addresses[piece], n_rows)
                for i in range(n_rows):
                    part[i] = np.int64(bytes4[i]) + least

    return compile_cpu(unpack_floats)


@formula
def _turn(lane, word):
    """Take a word into a lane of a checksum: one-to-one in either, so that no single damaged word goes unseen."""
    lane = (lane ^ word) * np.uint64(0x9E3779B185EBCA87)
    return (lane << np.uint64(31)) | (lane >> np.uint64(33))


@functools.cache
def make_checksum() -> Callable[..., int]:
    """Make ``checksum(words, seed)`` of uint64 words, as many as a multiple of `CHECKSUM_LANES`."""

    def checksum(words, seed):
        a = b = c = d = np.uint64(seed)
        for i in range(0, words.shape[0], CHECKSUM_LANES):
            a = _turn(a, words[i])
            b = _turn(b, words[i + 1])
            c = _turn(c, words[i + 2])
            d = _turn(d, words[i + 3])
        return _turn(_turn(_turn(a, b), c), d)

    return compile_cpu(checksum)


@formula
def _hash_of(first, second, i):
    """Hash key i, whose second column is empty where there is none."""
    if second.shape[0] > 0:
        return mix_bits(first[i] ^ mix_bits(second[i]))
    return mix_bits(first[i])


@functools.cache
def make_group_rows() -> Callable[..., np.ndarray]:
    """Make ``group_rows(first, second, order) -> starts``: the rows of group k are ``order[starts[k]:starts[k + 1]]``.

    The keys are int64; a key is the pair of row i, or ``first[i]`` alone where `second` is empty. Groups come in the
    order in which they are first seen, rows of a group in their own. `order` is int32, `starts` int64.
    """

    def group_rows(first, second, order):
        n_rows = first.shape[0]
        paired = second.shape[0] > 0
        n_slots = _FEWEST_SLOTS
        while n_slots < min(n_rows, _MOST_FIRST_SLOTS):
            n_slots *= 2
        slots = np.zeros(n_slots, dtype=np.int32)
        mask = n_slots - 1
        numbers = np.empty(n_rows, dtype=np.int32)
        # Of each group the key and the number of rows, side by side. What is not written takes no memory.
        known = np.empty(2 * n_rows, dtype=np.int64)
        seconds = np.empty(second.shape[0], dtype=np.int64)
        n_groups = 0
        for i in range(n_rows):
            if n_slots > _SLOTS_IN_CACHE:
                prefetch(slots, _hash_of(first, second, min(i + 2 * _AHEAD, n_rows - 1)) & mask)
                ahead = _hash_of(first, second, min(i + _AHEAD, n_rows - 1)) & mask
                prefetch(known, 2 * max(slots[ahead] - 1, 0))
            slot = _hash_of(first, second, i) & mask
            while True:
                number = slots[slot] - 1
                if number < 0:
                    number = n_groups
                    known[2 * number] = first[i]
                    known[2 * number + 1] = 0
                    if paired:
                        seconds[number] = second[i]
                    n_groups += 1
                    slots[slot] = n_groups
                    break
                if known[2 * number] == first[i] and (not paired or seconds[number] == second[i]):
                    break
                slot = (slot + 1) & mask
            numbers[i] = number
            known[2 * number + 1] += 1
            if 2 * n_groups > n_slots:
                n_slots *= 2
                mask = n_slots - 1
                slots = np.zeros(n_slots, dtype=np.int32)
                keys = known[: 2 * n_groups : 2]
                for group in range(n_groups):
                    slot = _hash_of(keys, seconds, group) & mask
                    while slots[slot] != 0:
                        slot = (slot + 1) & mask
                    slots[slot] = group + 1
        starts = np.empty(n_groups + 1, dtype=np.int64)
        starts[0] = 0
        for group in range(n_groups):
            starts[group + 1] = starts[group] + known[2 * group + 1]
            # From here on, where the next row of the group goes.
            known[group] = starts[group]
        for i in range(n_rows):
            place = known[numbers[i]]
            known[numbers[i]] = place + 1
            order[place] = i
        return starts

    return compile_cpu(group_rows)


@functools.cache
def make_gather() -> Callable[..., None]:
    """Make ``gather(values, order, out)``: ``out[i] = values[order[i]]``, of unsigned integers of one width."""

    def gather(values, order, out):
        for i in range(order.shape[0]):
            out[i] = values[order[i]]

    return compile_cpu(gather)
