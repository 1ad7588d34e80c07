"""Sums of float64 that are exact: rounded once, when they are read, so that no order or partition can matter.

An accumulator is `ACCUMULATOR_WORDS` int64: `LIMBS` digits of 32 bits that hold a fixed-point number from 2^-1088
up, and three counts of the terms that are no finite number. Digits carry lazily: `normalize` brings them into
[0, 2^32), the last one keeps the sign. Two accumulators merge by adding their words.

A block of `BLOCK_ROWS` terms is not added term by term. Every term v is split by (v + M) − M, where M = 1.5·2^K and
K lies so far above the block's largest exponent that all the high parts are multiples of one unit and their sum
stays below 2^53 units: plain additions of them are exact in any order and vectorise. What remains is split again
42 bits further down, and once more where the block needs it; a remainder after that sends the block to the
term-by-term path. The method is the error-free splitting of Rump, Ogita and Oishi, "Accurate floating-point
summation" (2008), with the long accumulator of Kulisch behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastloss_kernels.jit import exact_add, float64_bits, float64_from_bits, formula

if TYPE_CHECKING:
    import numpy as np

LIMBS = 68
LOWEST_EXPONENT = -1088
NAN_COUNT = LIMBS
POSITIVE_INFINITY_COUNT = LIMBS + 1
NEGATIVE_INFINITY_COUNT = LIMBS + 2
ACCUMULATOR_WORDS = LIMBS + 3

BLOCK_ROWS = 1024
_BLOCK_BITS = 10
# Every digit of a normalized accumulator is below 2^32 and an addition adds less than 2^33 to it.
ADDITIONS_BEFORE_CARRY = 1 << 28

_MASK = 0xFFFF_FFFF
_MAGNITUDE_MASK = 0x7FFF_FFFF_FFFF_FFFF
_FRACTION_MASK = 0x000F_FFFF_FFFF_FFFF
_HIDDEN_BIT = 0x0010_0000_0000_0000


@formula
def add_term(accumulator, term):
    """Add one float64 to an accumulator, exactly."""
    bits = float64_bits(term)
    exponent = (bits >> 52) & 0x7FF
    fraction = bits & _FRACTION_MASK
    if exponent == 0x7FF:
        if fraction != 0:
            accumulator[NAN_COUNT] += 1
        elif bits > 0:
            accumulator[POSITIVE_INFINITY_COUNT] += 1
        else:
            accumulator[NEGATIVE_INFINITY_COUNT] += 1
        return
    if exponent == 0:
        exponent = 1
    else:
        fraction |= _HIDDEN_BIT
    position = exponent - 1075 - LOWEST_EXPONENT
    limb = position >> 5
    shift = position & 31
    low = (fraction & _MASK) << shift
    high = (fraction >> 32) << shift
    if bits >= 0:
        accumulator[limb] += low & _MASK
        accumulator[limb + 1] += (low >> 32) + (high & _MASK)
        accumulator[limb + 2] += high >> 32
    else:
        accumulator[limb] -= low & _MASK
        accumulator[limb + 1] -= (low >> 32) + (high & _MASK)
        accumulator[limb + 2] -= high >> 32


@formula
def largest_magnitude_bits(terms):
    """Return the bit pattern of the largest |term|; NaN and infinity compare above every number."""
    largest = 0
    for i in range(terms.shape[0]):
        largest = max(largest, float64_bits(terms[i]) & _MAGNITUDE_MASK)
    return largest


@formula
def split_in_two(terms, first, second):
    """Return the sums of two levels of high parts, and whether anything is left below them."""
    sum_first = 0.0
    sum_second = 0.0
    left = 0
    for i in range(terms.shape[0]):
        part = (terms[i] + first) - first
        rest = terms[i] - part
        lower = (rest + second) - second
        sum_first = exact_add(sum_first, part)
        sum_second = exact_add(sum_second, lower)
        left |= float64_bits(rest - lower) & _MAGNITUDE_MASK
    return sum_first, sum_second, left


@formula
def split_third(terms, first, second, third):
    """Return the sum of the third level of high parts, and whether anything is left below it."""
    sum_third = 0.0
    left = 0
    for i in range(terms.shape[0]):
        rest = terms[i] - ((terms[i] + first) - first)
        rest -= (rest + second) - second
        part = (rest + third) - third
        sum_third = exact_add(sum_third, part)
        left |= float64_bits(rest - part) & _MAGNITUDE_MASK
    return sum_third, left


@formula
def add_block(accumulator, terms):
    """Add at most `BLOCK_ROWS` terms to an accumulator, exactly."""
    largest = largest_magnitude_bits(terms)
    exponent = largest >> 52
    if largest == 0:
        return
    # Outside this range the splitters, or what they leave, would overflow or fall below the normal numbers.
    if exponent > 2046 - (_BLOCK_BITS + 2) or exponent < 200:
        for i in range(terms.shape[0]):
            add_term(accumulator, terms[i])
        return
    half = 0x0008_0000_0000_0000
    first = float64_from_bits(((exponent + _BLOCK_BITS + 2) << 52) | half)
    second = float64_from_bits(((exponent + _BLOCK_BITS + 2 - 42) << 52) | half)
    sum_first, sum_second, left = split_in_two(terms, first, second)
    if left != 0:
        third = float64_from_bits(((exponent + _BLOCK_BITS + 2 - 84) << 52) | half)
        sum_third, left = split_third(terms, first, second, third)
        if left != 0:
            for i in range(terms.shape[0]):
                add_term(accumulator, terms[i])
            return
        add_term(accumulator, sum_third)
    add_term(accumulator, sum_first)
    add_term(accumulator, sum_second)


@dataclass(frozen=True)
class ExactSum:
    """The value of an accumulator: an exact number, and counts of the terms that were none.

    Attributes
    ----------
    units : int
        The finite terms' sum as a multiple of 2^`LOWEST_EXPONENT`.
    n_nan, n_positive_infinity, n_negative_infinity : int
        How many terms were NaN or infinite.
    """

    units: int = 0
    n_nan: int = 0
    n_positive_infinity: int = 0
    n_negative_infinity: int = 0

    @classmethod
    def from_words(cls, words: np.ndarray) -> ExactSum:
        """Read an accumulator, int64 ``(ACCUMULATOR_WORDS,)``; fastest if it is normalized."""
        counts = (int(words[NAN_COUNT]), int(words[POSITIVE_INFINITY_COUNT]), int(words[NEGATIVE_INFINITY_COUNT]))
        digits = words[: LIMBS - 1]
        units = int(words[LIMBS - 1]) << 32 * (LIMBS - 1)
        if not (digits >> 32).any():
            return cls(units + int.from_bytes(digits.astype("<u4").tobytes(), "little"), *counts)
        for limb, digit in enumerate(digits.tolist()):
            units += digit << 32 * limb
        return cls(units, *counts)

    @classmethod
    def from_count(cls, count: int) -> ExactSum:
        """Return an integer as a sum."""
        return cls(count << -LOWEST_EXPONENT)

    def __add__(self, other: ExactSum) -> ExactSum:
        """Add two sums, exactly."""
        return ExactSum(
            self.units + other.units,
            self.n_nan + other.n_nan,
            self.n_positive_infinity + other.n_positive_infinity,
            self.n_negative_infinity + other.n_negative_infinity,
        )

    @property
    def is_finite(self) -> bool:
        """Whether every term was a finite number."""
        return not (self.n_nan or self.n_positive_infinity or self.n_negative_infinity)

    def _special(self) -> float:
        if self.n_nan or (self.n_positive_infinity and self.n_negative_infinity):
            return math.nan
        return math.inf if self.n_positive_infinity else -math.inf

    def __float__(self) -> float:
        """Round once to float64."""
        if not self.is_finite:
            return self._special()
        return _quotient(self.units, 1 << -LOWEST_EXPONENT)

    def __truediv__(self, other: ExactSum) -> float:
        """Divide two exact sums and round once; a division by zero is NaN."""
        if not other.is_finite or other.units == 0:
            return math.nan
        if not self.is_finite:
            return self._special() * (1.0 if other.units > 0 else -1.0)
        return _quotient(self.units, other.units)


def _quotient(numerator: int, denominator: int) -> float:
    # Python's int / int is correctly rounded, subnormal results included.
    try:
        return numerator / denominator
    except OverflowError:
        return math.inf if (numerator < 0) == (denominator < 0) else -math.inf
