"""Loops over bins of predictions: which bin each row belongs to, and exact sums of each bin of each slice.

Rows are not sorted by their bins. A block of rows of one slice adds integers to a few words for each bin: every term t
below 2^e is cut into floor(t·2^(51 − e)) and 51 bits more, so that the sums of a block fit 63 bits, and what is left
below these 102 bits, for terms that small, is added by itself. Two sets of words take the rows in turn: neighbouring
rows often share a bin, and an addition would wait for the one before it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastloss_kernels.exact_sum import LOWEST_EXPONENT, add_term
from fastloss_kernels.jit import compile_cpu, float64_from_bits, formula

# Sums of so many numbers below 2^51 stay below 2^62.
_BLOCK_ROWS = 1 << 11
_PART_BITS = 51
_PART = 2.0**_PART_BITS
_MASK = 0xFFFF_FFFF
# A row of a block: the count, and the two parts of label, prediction, weight and squared weight.
_N_WORDS = 9
# Weights whose largest is below 2^25 and from 2^-400 on can be scaled, squared too, without losing a bit.
HIGHEST_EXPONENT = 25
LOWEST_EXPONENT_OF_WEIGHTS = -400


@functools.cache
def make_find_bins() -> Callable[..., None]:
    """Make ``find_bins(keys, edges, scale, bins)``: ``edges[bins[i]] <= keys[i] < edges[bins[i] + 1]``.

    Edges ascend from −∞ to ∞, float64 ``(n_bins + 1,)``; keys are float64 ``(n_rows,)``, without NaN; bins int32.
    Edges inside that are `1 / scale` apart, but for their rounding, are found by a product; a `scale` of 0 says that
    they are not.
    """

    def find_bins(keys, edges, scale, bins):
        last = edges.shape[0] - 2
        if scale > 0.0 and last > 0:
            first = edges[1]
            top = np.float64(last)
            for i in range(keys.shape[0]):
                key = keys[i]
                likely = min(max((key - first) * scale + 1.0, 0.0), top)
                b = np.int64(likely)
                b -= 1 if key < edges[b] else 0
                b += 1 if key >= edges[b + 1] else 0
                # The last bin holds ∞ too.
                bins[i] = min(b, last)
        else:
            for i in range(keys.shape[0]):
                key = keys[i]
                b = 0
                beyond = last + 1
                while beyond - b > 1:
                    middle = (b + beyond) >> 1
                    if key >= edges[middle]:
                        b = middle
                    else:
                        beyond = middle
                bins[i] = b

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
def _add_parts(words, at, accumulator, term, scale, unit):
    """Add the parts of a term below 1/scale·2^51 to ``words[at]`` and the next, and what is left to an accumulator."""
    scaled = term * scale
    high = np.int64(scaled)
    rest = (scaled - np.float64(high)) * _PART
    low = np.int64(rest)
    words[at] += high
    words[at + 1] += low
    left = rest - np.float64(low)
    if left != 0.0:
        add_term(accumulator, left * unit)


@formula
def _flush(words, at, accumulator, position):
    """Add two parts to an accumulator, the higher at a position."""
    _add_integer(accumulator, words[at], position)
    _add_integer(accumulator, words[at + 1], position - _PART_BITS)


@functools.cache
def make_add_to_bins() -> Callable[..., None]:
    """Make ``add_to_bins(predictions, labels, weights, bins, order, starts, positions, n_bins, exponent, *sums)``.

    Run k is the rows ``order[starts[k]:starts[k + 1]]``, or ``starts[k]`` to ``starts[k + 1]`` where `order` is empty,
    and belongs to the slice ``positions[k]``. Predictions, labels and weights are float64 ``(n_rows,)``, the first two
    from 0 to 1, weights above 0 and below 2^exponent; no weights are weights of 1.

    The sums are int64: ``counts (n_slices · n_bins,)``, and full accumulators of label, prediction, weight and squared
    weight, ``(n_slices · n_bins, ACCUMULATOR_WORDS)``; the last two are not touched where there are no weights.
    """

    def add_to_bins(
        predictions, labels, weights, bins, order, starts, positions, n_bins, exponent,
        counts, label_sums, prediction_sums, weight_sums, square_sums,
    ):  # fmt: skip
        ordered = order.shape[0] > 0
        weighted = weights.shape[0] > 0
        scale = _power_of_two(_PART_BITS - exponent)
        unit = _power_of_two(exponent - 2 * _PART_BITS)
        square_scale = _power_of_two(_PART_BITS - 2 * exponent)
        square_unit = _power_of_two(2 * exponent - 2 * _PART_BITS)
        position = exponent - _PART_BITS - LOWEST_EXPONENT
        square_position = position + exponent
        words = np.zeros((2, n_bins, _N_WORDS), dtype=np.int64)
        for run in range(starts.shape[0] - 1):
            base = positions[run] * n_bins
            for start in range(starts[run], starts[run + 1], _BLOCK_ROWS):
                for at in range(start, min(start + _BLOCK_ROWS, starts[run + 1])):
                    i = order[at] if ordered else at
                    b = np.int64(bins[i])
                    own = words[at & 1, b]
                    own[0] += 1
                    if weighted:
                        w = weights[i]
                        _add_parts(own, 1, label_sums[base + b], labels[i] * w, scale, unit)
                        _add_parts(own, 3, prediction_sums[base + b], predictions[i] * w, scale, unit)
                        _add_parts(own, 5, weight_sums[base + b], w, scale, unit)
                        _add_parts(own, 7, square_sums[base + b], w * w, square_scale, square_unit)
                    else:
                        _add_parts(own, 1, label_sums[base + b], labels[i], scale, unit)
                        _add_parts(own, 3, prediction_sums[base + b], predictions[i], scale, unit)
                for b in range(n_bins):
                    for half in range(2):
                        own = words[half, b]
                        if own[0] == 0:
                            continue
                        counts[base + b] += own[0]
                        _flush(own, 1, label_sums[base + b], position)
                        _flush(own, 3, prediction_sums[base + b], position)
                        if weighted:
                            _flush(own, 5, weight_sums[base + b], position)
                            _flush(own, 7, square_sums[base + b], square_position)
                        for k in range(_N_WORDS):
                            own[k] = 0

    return compile_cpu(add_to_bins)
