"""Loops over bins of predictions: which bin each row belongs to, and exact sums of each bin of each slice.

Rows are not sorted by their bins. A block of rows of one slice adds integers to a few words for each bin: every term t
below 2^e is cut into floor(t·2^(51 − e)) and 51 bits more, so that the sums of a block fit 63 bits; rows whose terms
are so small that something is left below these 102 bits are listed, for the caller to add it. Labels of 0 and 1 and
weights that are small multiples of a power of two, or none, are integers as they are. Two sets of words take the rows
in turn: neighbouring rows often share a bin, and an addition would wait for the one before it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastloss_kernels.elementary import log, log1p
from fastloss_kernels.exact_sum import LOWEST_EXPONENT
from fastloss_kernels.jit import compile_cpu, float64_from_bits, formula

Floats = NDArray[np.float64]

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
def _guess_bin(place, last):
    """Return the bin of a place among bins of width 1, and whether rounding may have moved it to another."""
    distance = place - math.floor(place)
    return np.int32(min(max(place, 0.0), last)), (distance < _DOUBT) | (distance > 1.0 - _DOUBT)


@formula
def _find_bins(keys, edges, scale, offset, by_odds, bins):
    """Write the bin of every key, b with ``edges[b] <= key < edges[b + 1]``; the last one holds ∞ too.

    A product guesses it. Where one comes so near to a whole number that rounding may have moved it, all are searched.
    """
    last = np.float64(edges.shape[0] - 2)
    doubtful = False
    if by_odds:
        for i in range(keys.shape[0]):
            logit = log(keys[i]) - log1p(-keys[i])
            bins[i], doubt = _guess_bin(logit * scale + offset, last)
            doubtful |= doubt
    else:
        for i in range(keys.shape[0]):
            bins[i], doubt = _guess_bin(keys[i] * scale + offset, last)
            doubtful |= doubt
    if doubtful:
        for i in range(keys.shape[0]):
            bins[i] = _search_bin(keys[i], edges)


@functools.cache
def make_find_bins() -> Callable[..., None]:
    """Make ``find_bins(keys, edges, scale, offset, by_odds, bins)``: the bin of each key, from its edge to the next.

    Edges ascend from −∞ to ∞, float64 ``(n_bins + 1,)``; keys are float64 ``(n_rows,)``, without NaN; bins int32. At
    the beginnings of the bins, ``key * scale + offset`` is 0, 1, ..., but for rounding; if `by_odds`, keys are
    probabilities, and that is so of their logits.
    """

    def find_bins(keys, edges, scale, offset, by_odds, bins):
        n_rows = keys.shape[0]
        for start in range(0, n_rows, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, n_rows)
            _find_bins(keys[start:stop], edges, scale, offset, by_odds, bins[start:stop])

    return compile_cpu(find_bins)


@formula
def _power_of_two(exponent):
    """Compute 2^exponent for an exponent of a normal number."""
    return float64_from_bits((1023 + exponent) << 52)


@formula
def _add_integer(accumulator, low, number, exponent):
    """Add number·2^exponent, a number from 0 up to 2^62, to an accumulator whose window begins at the limb `low`.

    It must hold the three limbs from that of the exponent on, as far as the number has digits there.
    """
    limb = ((exponent - LOWEST_EXPONENT) >> 5) - low
    shift = (exponent - LOWEST_EXPONENT) & 31
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
def _flush(accumulator, low, words, at, exponent):
    """Add two parts, of which the higher one counts units of 2^exponent."""
    _add_integer(accumulator, low, words[at], exponent)
    if words[at + 1] != 0:
        _add_integer(accumulator, low, words[at + 1], exponent - _PART_BITS)


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


def window_of(exponent: int) -> tuple[int, int]:
    """Return the first limb of the accumulators that terms below 2^exponent are added to, and that after the last."""
    first = exponent - 2 * _PART_BITS - LOWEST_EXPONENT
    # Without weights, of which the largest is then 1, labels count as they are.
    unit = (0 if exponent == 1 else exponent - _UNIT_BITS) - LOWEST_EXPONENT
    return first >> 5, (unit >> 5) + 3


def left_of(terms: Floats, exponent: int) -> Floats:
    """Return what the two parts of terms below 2^exponent leave of them."""
    scaled = np.ldexp(terms, _PART_BITS - exponent)
    rest = (scaled - np.floor(scaled)) * _PART
    return np.ldexp(rest - np.floor(rest), exponent - 2 * _PART_BITS)


@functools.cache
def make_add_to_bins() -> Callable[..., int]:
    """Make ``add_to_bins(predictions, labels, weights, keys, edges, scale, offset, ...) -> n_late``.

    The other arguments are ``by_odds, order, starts, positions, exponent, counts, label_sums, prediction_sums,
    weight_sums, square_sums, lows, late``.

    Run k is the rows ``order[starts[k]:starts[k + 1]]``, or ``starts[k]`` to ``starts[k + 1]`` where `order` is empty,
    and belongs to the slice ``positions[k]``. Predictions, labels and weights are float64 ``(n_rows,)``, the first two
    from 0 to 1, weights above 0 and below 2^exponent; no weights are weights of 1. Keys, edges, scale, offset and
    by_odds tell bins as in `make_find_bins`.

    The sums are int64: ``counts (n_slices · n_bins,)``, and accumulators of label, prediction, weight and squared
    weight, ``(n_slices · n_bins, n_limbs + 3)``, whose windows begin at the limbs `lows` and hold those of
    `window_of`, of 2^(2·exponent) for squares. The last two are not touched where there are no weights. Rows of which
    something is left go to ``late (n_rows, 2)``, with their bins.
    """

    def add_to_bins(
        predictions, labels, weights, keys, edges, scale, offset, by_odds, order, starts, positions, exponent,
        counts, label_sums, prediction_sums, weight_sums, square_sums, lows, late,
    ):  # fmt: skip
        n_bins = edges.shape[0] - 1
        ordered = order.shape[0] > 0
        weighted = weights.shape[0] > 0
        cut = _power_of_two(_PART_BITS - exponent)
        square_cut = _power_of_two(_PART_BITS - 2 * exponent)
        unit = _power_of_two(_UNIT_BITS - exponent)
        in_units = _are_integers(labels, weights, unit)
        unit_exponent = exponent - _UNIT_BITS if weighted else 0
        # Flat: a view of a row would be counted as a reference.
        words = np.zeros(2 * n_bins * _N_WORDS, dtype=np.int64)
        block = np.empty(_BLOCK_ROWS)
        bins = np.empty(_BLOCK_ROWS, dtype=np.int32)
        n_late = 0
        for run in range(starts.shape[0] - 1):
            base = positions[run] * n_bins
            for start in range(starts[run], starts[run + 1], _BLOCK_ROWS):
                stop = min(start + _BLOCK_ROWS, starts[run + 1])
                if ordered:
                    for at in range(start, stop):
                        block[at - start] = keys[order[at]]
                    _find_bins(block[: stop - start], edges, scale, offset, by_odds, bins)
                else:
                    _find_bins(keys[start:stop], edges, scale, offset, by_odds, bins)
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
                            late[n_late, 0], late[n_late, 1] = i, base + b
                            n_late += 1
                else:
                    for at in range(start, stop):
                        i = order[at] if ordered else at
                        b = np.int64(bins[at - start])
                        w = weights[i] if weighted else 1.0
                        own = ((at & 1) * n_bins + b) * _N_WORDS
                        words[own + _COUNT] += _COUNTED
                        high, low, left = _cut(labels[i] * w, cut)
                        words[own + _LABEL] += high
                        words[own + _LABEL + 1] += low
                        high, low, more = _cut(predictions[i] * w, cut)
                        words[own + _PREDICTION] += high
                        words[own + _PREDICTION + 1] += low
                        left += more
                        if weighted:
                            high, low, more = _cut(w, cut)
                            words[own + _WEIGHT] += high
                            words[own + _WEIGHT + 1] += low
                            left += more
                            high, low, more = _cut(w * w, square_cut)
                            words[own + _SQUARE] += high
                            words[own + _SQUARE + 1] += low
                            left += more
                        # No part of it is below 0.
                        if left != 0.0:
                            late[n_late, 0], late[n_late, 1] = i, base + b
                            n_late += 1
                for b in range(n_bins):
                    for half in range(2):
                        own = (half * n_bins + b) * _N_WORDS
                        if words[own + _COUNT] == 0:
                            continue
                        counts[base + b] += words[own + _COUNT] >> _COUNT_SHIFT
                        part = exponent - _PART_BITS
                        _flush(prediction_sums[base + b], lows[1], words, own + _PREDICTION, part)
                        if in_units:
                            _add_integer(label_sums[base + b], lows[0], words[own + _LABEL], unit_exponent)
                        else:
                            _flush(label_sums[base + b], lows[0], words, own + _LABEL, part)
                        if weighted and in_units:
                            integer = words[own + _COUNT] & (_COUNTED - 1)
                            _add_integer(weight_sums[base + b], lows[2], integer, unit_exponent)
                            _add_integer(square_sums[base + b], lows[3], words[own + _SQUARE], 2 * unit_exponent)
                        elif weighted:
                            _flush(weight_sums[base + b], lows[2], words, own + _WEIGHT, part)
                            _flush(square_sums[base + b], lows[3], words, own + _SQUARE, part + exponent)
                        for k in range(_N_WORDS):
                            words[own + k] = 0
        return n_late

    return compile_cpu(add_to_bins)
