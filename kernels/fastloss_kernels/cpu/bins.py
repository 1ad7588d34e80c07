"""Loops over bins of predictions: which bin each row belongs to, and exact sums of each bin of each slice.

Rows are not sorted by their bins. A block of rows of one slice adds integers to a few words for each bin: every term t
below 2^e is cut into floor(t·2^(51 − e)) and 51 bits more, so that the sums of a block fit 63 bits, and what is left
below these 102 bits, for terms that small, is added by itself. Labels of 0 and 1 and weights that are small multiples
of a power of two, or none, are integers as they are. Two sets of words take the rows in turn: neighbouring rows often
share a bin, and an addition would wait for the one before it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from fastloss_kernels.exact_sum import LOWEST_EXPONENT, add_term
from fastloss_kernels.jit import compile_cpu, float64_from_bits, formula

# Sums of so many numbers below 2^51 stay below 2^62.
_BLOCK_ROWS = 1 << 11
_PART_BITS = 51
_PART = 2.0**_PART_BITS
_MASK = 0xFFFF_FFFF
# Weights of so few bits are integers whose squares, too, add up in a word.
_UNIT_BITS = 25
# The count of a bin stands above the sum of its integer weights.
_COUNT_SHIFT = 40
_COUNTED = 1 << _COUNT_SHIFT
# Words of a bin: label, prediction, weight and squared weight, two parts each, and the count.
_LABEL = 0
_PREDICTION = 2
_WEIGHT = 4
_SQUARE = 6
_COUNT = 8
_N_WORDS = 9
# Nearer than this to the next whole number, the product that guesses a bin is not trusted.
_DOUBT = 1e-9
# Weights whose largest is below 2^25 and from 2^-400 on can be scaled, squared too, without losing a bit.
HIGHEST_EXPONENT = 25
LOWEST_EXPONENT_OF_WEIGHTS = -400


@formula
def _search_bin(key, edges):
    """Return the last bin that begins at the key or below, in steps that are the same for every key."""
    b = 0
    n_left = edges.shape[0] - 1
    while n_left > 1:
        half = n_left >> 1
        b += half if key >= edges[b + half] else 0
        n_left -= half
    return b


@formula
def _find_bins(keys, edges, scale, offset, bins):
    """Write the bin of every key, b with ``edges[b] <= key < edges[b + 1]``; the last one holds ∞ too.

    A product guesses it. Where one comes so near to a whole number that rounding may have moved it, all are searched.
    """
    doubtful = scale == 0.0
    if not doubtful:
        last = np.float64(edges.shape[0] - 2)
        for i in range(keys.shape[0]):
            likely = keys[i] * scale + offset
            distance = likely - math.floor(likely)
            doubtful |= (distance < _DOUBT) | (distance > 1.0 - _DOUBT)
            bins[i] = np.int32(min(max(likely, 0.0), last))
    if doubtful:
        for i in range(keys.shape[0]):
            bins[i] = _search_bin(keys[i], edges)


@functools.cache
def make_find_bins() -> Callable[..., None]:
    """Make ``find_bins(keys, edges, scale, offset, bins)``: ``edges[bins[i]] <= keys[i] < edges[bins[i] + 1]``.

    Edges ascend from −∞ to ∞, float64 ``(n_bins + 1,)``; keys are float64 ``(n_rows,)``, without NaN; bins int32.
    Where edges are equally far apart, ``key * scale + offset`` is 0, 1, ... at the bins' beginnings, but for rounding;
    a `scale` of 0 says that they are not.
    """

    def find_bins(keys, edges, scale, offset, bins):
        n_rows = keys.shape[0]
        for start in range(0, n_rows, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, n_rows)
            _find_bins(keys[start:stop], edges, scale, offset, bins[start:stop])

    return compile_cpu(find_bins)


@formula
def _power_of_two(exponent):
    """Compute 2^exponent for an exponent of a normal number."""
    return float64_from_bits((1023 + exponent) << 52)


@formula
def _add_integer(accumulator, number, position):
    """Add number·2^position, from 0 up to 2^62, to a full accumulator that begins at 2^0."""
    limb = position >> 5
    shift = position & 31
    lower = (number & _MASK) << shift
    upper = (number >> 32) << shift
    accumulator[limb] += lower & _MASK
    accumulator[limb + 1] += (lower >> 32) + (upper & _MASK)
    accumulator[limb + 2] += upper >> 32


@formula
def _cut(term, scale):
    """Cut a term below 2^51/scale into two integers of 51 bits, and what is left, in units of the lower one."""
    scaled = term * scale
    high = np.int64(scaled)
    rest = (scaled - np.float64(high)) * _PART
    low = np.int64(rest)
    return high, low, rest - np.float64(low)


@formula
def _flush(words, at, accumulator, position):
    """Add two parts to an accumulator, the higher at a position."""
    _add_integer(accumulator, words[at], position)
    if words[at + 1] != 0:
        _add_integer(accumulator, words[at + 1], position - _PART_BITS)


@formula
def _are_integers(labels, weights, scale):
    """Tell whether all labels are 0 or 1, and all scaled weights whole."""
    fit = True
    for i in range(labels.shape[0]):
        fit &= (labels[i] == 0.0) | (labels[i] == 1.0)
    for i in range(weights.shape[0]):
        scaled = weights[i] * scale
        fit &= np.float64(np.int64(scaled)) == scaled
    return fit


@functools.cache
def make_add_to_bins() -> Callable[..., None]:
    """Make ``add_to_bins(predictions, labels, weights, keys, edges, scale, offset, order, starts, positions, ...)``.

    The last arguments are ``exponent, counts, label_sums, prediction_sums, weight_sums, square_sums``.

    Run k is the rows ``order[starts[k]:starts[k + 1]]``, or ``starts[k]`` to ``starts[k + 1]`` where `order` is empty,
    and belongs to the slice ``positions[k]``. Predictions, labels and weights are float64 ``(n_rows,)``, the first two
    from 0 to 1, weights above 0 and below 2^exponent; no weights are weights of 1. Keys, edges, scale and offset tell
    bins as in `make_find_bins`.

    The sums are int64: ``counts (n_slices · n_bins,)``, and full accumulators of label, prediction, weight and squared
    weight, ``(n_slices · n_bins, ACCUMULATOR_WORDS)``; the last two are not touched where there are no weights.
    """

    def add_to_bins(
        predictions, labels, weights, keys, edges, scale, offset, order, starts, positions, exponent,
        counts, label_sums, prediction_sums, weight_sums, square_sums,
    ):  # fmt: skip
        n_bins = edges.shape[0] - 1
        ordered = order.shape[0] > 0
        weighted = weights.shape[0] > 0
        cut = _power_of_two(_PART_BITS - exponent)
        left_unit = _power_of_two(exponent - 2 * _PART_BITS)
        square_cut = _power_of_two(_PART_BITS - 2 * exponent)
        square_left_unit = _power_of_two(2 * exponent - 2 * _PART_BITS)
        unit = _power_of_two(_UNIT_BITS - exponent)
        in_units = _are_integers(labels, weights, unit)
        position = exponent - _PART_BITS - LOWEST_EXPONENT
        square_position = position + exponent
        unit_position = exponent - _UNIT_BITS - LOWEST_EXPONENT
        if not weighted:
            unit_position = -LOWEST_EXPONENT
        # Flat: a view of a row would be counted as a reference.
        words = np.zeros(2 * n_bins * _N_WORDS, dtype=np.int64)
        block = np.empty(_BLOCK_ROWS)
        bins = np.empty(_BLOCK_ROWS, dtype=np.int32)
        # Rows of which something is left, and their bins.
        late = np.empty((_BLOCK_ROWS, 2), dtype=np.int64)
        for run in range(starts.shape[0] - 1):
            base = positions[run] * n_bins
            for start in range(starts[run], starts[run + 1], _BLOCK_ROWS):
                stop = min(start + _BLOCK_ROWS, starts[run + 1])
                if ordered:
                    for at in range(start, stop):
                        block[at - start] = keys[order[at]]
                    _find_bins(block[: stop - start], edges, scale, offset, bins)
                else:
                    _find_bins(keys[start:stop], edges, scale, offset, bins)
                n_late = 0
                if in_units:
                    for at in range(start, stop):
                        i = order[at] if ordered else at
                        b = np.int64(bins[at - start])
                        w = weights[i] if weighted else 1.0
                        integer = np.int64(w * unit) if weighted else 1
                        own = ((at & 1) * n_bins + b) * _N_WORDS
                        words[own + _COUNT] += _COUNTED + integer
                        words[own + _LABEL] += integer if labels[i] > 0.0 else 0
                        words[own + _SQUARE] += integer * integer
                        high, low, left = _cut(predictions[i] * w, cut)
                        words[own + _PREDICTION] += high
                        words[own + _PREDICTION + 1] += low
                        if left != 0.0:
                            late[n_late, 0], late[n_late, 1] = i, b
                            n_late += 1
                else:
                    for at in range(start, stop):
                        i = order[at] if ordered else at
                        b = np.int64(bins[at - start])
                        w = weights[i] if weighted else 1.0
                        own = ((at & 1) * n_bins + b) * _N_WORDS
                        words[own + _COUNT] += _COUNTED
                        high, low, some = _cut(labels[i] * w, cut)
                        words[own + _LABEL] += high
                        words[own + _LABEL + 1] += low
                        high, low, left = _cut(predictions[i] * w, cut)
                        words[own + _PREDICTION] += high
                        words[own + _PREDICTION + 1] += low
                        if weighted:
                            high, low, more = _cut(w, cut)
                            words[own + _WEIGHT] += high
                            words[own + _WEIGHT + 1] += low
                            some += more
                            high, low, more = _cut(w * w, square_cut)
                            words[own + _SQUARE] += high
                            words[own + _SQUARE + 1] += low
                            some += more
                        # None of them is below 0.
                        if some + left != 0.0:
                            late[n_late, 0], late[n_late, 1] = i, b
                            n_late += 1
                for k in range(n_late):
                    i, b = late[k, 0], late[k, 1]
                    w = weights[i] if weighted else 1.0
                    add_term(prediction_sums[base + b], _cut(predictions[i] * w, cut)[2] * left_unit)
                    if not in_units:
                        add_term(label_sums[base + b], _cut(labels[i] * w, cut)[2] * left_unit)
                    if weighted and not in_units:
                        add_term(weight_sums[base + b], _cut(w, cut)[2] * left_unit)
                        add_term(square_sums[base + b], _cut(w * w, square_cut)[2] * square_left_unit)
                for b in range(n_bins):
                    for half in range(2):
                        own = (half * n_bins + b) * _N_WORDS
                        if words[own + _COUNT] == 0:
                            continue
                        counts[base + b] += words[own + _COUNT] >> _COUNT_SHIFT
                        _flush(words, own + _PREDICTION, prediction_sums[base + b], position)
                        if in_units:
                            _add_integer(label_sums[base + b], words[own + _LABEL], unit_position)
                        else:
                            _flush(words, own + _LABEL, label_sums[base + b], position)
                        if weighted and in_units:
                            words[own + _COUNT] &= _COUNTED - 1
                            _add_integer(weight_sums[base + b], words[own + _COUNT], unit_position)
                            _add_integer(
                                square_sums[base + b], words[own + _SQUARE], 2 * unit_position + LOWEST_EXPONENT
                            )
                        elif weighted:
                            _flush(words, own + _WEIGHT, weight_sums[base + b], position)
                            _flush(words, own + _SQUARE, square_sums[base + b], square_position)
                        for k in range(_N_WORDS):
                            words[own + k] = 0

    return compile_cpu(add_to_bins)
