"""Sums of float64 that are exact: rounded once, when they are read, so that no order or partition can matter.

An accumulator is `ACCUMULATOR_WORDS` int64: `LIMBS` digits of 32 bits that hold a fixed-point number from 2^-1088
up, and three counts of the terms that are NaN or infinite. Digits carry lazily: `normalize` brings them into
[0, 2^32), the last one keeps the sign. Two accumulators merge by adding their words.

A windowed accumulator keeps the limbs ``[low, low + n_limbs)`` alone, in int64 ``(n_limbs + 3,)`` with the counts
last: a million slices need no digits for magnitudes that never occur. It must hold every limb that `limbs_of` names
for its terms. A term adds less than 2^20 to the third of its limbs, so the last limb of a window, int64 like all,
holds the sum of 2^42 terms.

A block of `BLOCK_ROWS` terms is not added term by term. Every term v is split by (v + M) − M, where M = 1.5·2^K and
K lies so far above the block's largest exponent that all the high parts are multiples of one unit and their sum
stays below 2^53 units: plain additions of them are exact in any order and vectorise. What remains is split again
42 bits further down, and once more where the block needs it; a remainder after that sends the block to the
term-by-term path. The method is the error-free splitting of Rump, Ogita and Oishi, "Accurate floating-point
summation" (2008), with the long accumulator of Kulisch behind it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastloss_kernels.jit import compile_cpu, exact_add, float64_bits, float64_from_bits, fma, formula

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
def add_term(accumulator, term, low=0):
    """Add one float64 to an accumulator, exactly; `low` is the first limb of its window, which must hold the term."""
    bits = float64_bits(term)
    exponent = (bits >> 52) & 0x7FF
    fraction = bits & _FRACTION_MASK
    if exponent == 0x7FF:
        counts = accumulator.shape[0] - 3
        if fraction != 0:
            accumulator[counts] += 1
        elif bits > 0:
            accumulator[counts + 1] += 1
        else:
            accumulator[counts + 2] += 1
        return
    if exponent == 0:
        exponent = 1
    else:
        fraction |= _HIDDEN_BIT
    position = exponent - 1075 - LOWEST_EXPONENT
    # Zero is in every window, although the limbs of its exponent are not.
    limb = max((position >> 5) - low, 0)
    shift = position & 31
    lower = (fraction & _MASK) << shift
    upper = (fraction >> 32) << shift
    if bits >= 0:
        accumulator[limb] += lower & _MASK
        accumulator[limb + 1] += (lower >> 32) + (upper & _MASK)
        accumulator[limb + 2] += upper >> 32
    else:
        accumulator[limb] -= lower & _MASK
        accumulator[limb + 1] -= (lower >> 32) + (upper & _MASK)
        accumulator[limb + 2] -= upper >> 32


@formula
def limbs_of(terms):
    """Return the first limb of the smallest window for these terms, and the limb after its last; (LIMBS, 0) for none.

    Zeros, NaN and infinities need no limb.
    """
    smallest = 0x7FF
    largest = 0
    for i in range(terms.shape[0]):
        magnitude = float64_bits(terms[i]) & _MAGNITUDE_MASK
        exponent = magnitude >> 52
        counted = (magnitude != 0) & (exponent != 0x7FF)
        smallest = min(smallest, exponent if counted else 0x7FF)
        # One more than the exponent, so that 0 is left for no term.
        largest = max(largest, exponent + 1 if counted else 0)
    if largest == 0:
        return LIMBS, 0
    first = (max(smallest, 1) - 1075 - LOWEST_EXPONENT) >> 5
    last = (max(largest - 1, 1) - 1075 - LOWEST_EXPONENT) >> 5
    return first, last + 3


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
def add_block(accumulator, terms, low=0):
    """Add at most `BLOCK_ROWS` terms to an accumulator, exactly.

    The window of a windowed accumulator must hold the terms and two limbs below and one above theirs, since what is
    added are partial sums.
    """
    largest = largest_magnitude_bits(terms)
    exponent = largest >> 52
    if largest == 0:
        return
    # Outside this range the splitters, or what they leave, would overflow or fall below the normal numbers.
    if exponent > 2046 - (_BLOCK_BITS + 2) or exponent < 200:
        for i in range(terms.shape[0]):
            add_term(accumulator, terms[i], low)
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
                add_term(accumulator, terms[i], low)
            return
        add_term(accumulator, sum_third, low)
    add_term(accumulator, sum_first, low)
    add_term(accumulator, sum_second, low)


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
    def from_words(cls, words: np.ndarray, low: int = 0) -> ExactSum:
        """Read an accumulator, int64 ``(n_limbs + 3,)`` from the limb `low` on; fastest if it is normalized."""
        n_limbs = len(words) - 3
        counts = (int(words[n_limbs]), int(words[n_limbs + 1]), int(words[n_limbs + 2]))
        if not n_limbs:
            return cls(0, *counts)
        digits = words[: n_limbs - 1]
        units = int(words[n_limbs - 1]) << 32 * (n_limbs - 1)
        if not (digits >> 32).any():
            units += int.from_bytes(digits.astype("<u4").tobytes(), "little")
        else:
            for limb, digit in enumerate(digits.tolist()):
                units += digit << 32 * limb
        return cls(units << 32 * low, *counts)

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

    def __sub__(self, other: ExactSum) -> ExactSum:
        """Subtract a sum, exactly; its infinities change their sign."""
        return ExactSum(
            self.units - other.units,
            self.n_nan + other.n_nan,
            self.n_positive_infinity + other.n_negative_infinity,
            self.n_negative_infinity + other.n_positive_infinity,
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


# ---------------------------------------------------------------------------------------------------------------
# Many sums at once


@formula
def carry_digits(accumulator):
    """Carry every digit but the last of an accumulator into [0, 2^32)."""
    last = accumulator.shape[0] - 4
    carry = 0
    for limb in range(last):
        digit = accumulator[limb] + carry
        accumulator[limb] = digit & _MASK
        carry = digit >> 32
    if last >= 0:
        accumulator[last] += carry


@formula
def _magnitude_digit(words, position, n_limbs, lowest, negative):
    # Digit of |value| in [0, 2^32). The last limb is two of them; `lowest` is the lowest limb that is not 0.
    if position < 0 or position > n_limbs:
        return 0
    limb = min(position, n_limbs - 1)
    digit = words[limb]
    if negative:
        # Two's complement: zeros stay up to the lowest digit, which is negated; those above it are inverted.
        inverted = -digit if limb == lowest else ~digit
        digit = 0 if limb < lowest else inverted
    return digit >> 32 if position == n_limbs else digit & _MASK


@formula
def leading_digits(words, low):
    """Return the sign, 106 leading bits and the exponent of a normalized accumulator's number.

    Returns
    -------
    sign : int
        -1, 0 or 1.
    high, following : int
        53 bits each, the first of `high` being 1: the number is sign·(high + following·2^-53 + rest)·2^exponent.
    rest : int
        0 if nothing is left below these bits.
    exponent : int
    """
    n_limbs = words.shape[0] - 3
    lowest = 0
    while lowest < n_limbs and words[lowest] == 0:
        lowest += 1
    if lowest == n_limbs:
        return 0, 0, 0, 0, 0
    negative = words[n_limbs - 1] < 0
    top = n_limbs
    while _magnitude_digit(words, top, n_limbs, lowest, negative) == 0:
        top -= 1
    a = _magnitude_digit(words, top, n_limbs, lowest, negative)
    b = _magnitude_digit(words, top - 1, n_limbs, lowest, negative)
    c = _magnitude_digit(words, top - 2, n_limbs, lowest, negative)
    d = _magnitude_digit(words, top - 3, n_limbs, lowest, negative)
    e = _magnitude_digit(words, top - 4, n_limbs, lowest, negative)
    # The exponent of a digit of 32 bits, which a float64 holds exactly, is the place of its first bit.
    shift = 31 - ((float64_bits(float(a)) >> 52) - 1023)
    back = 32 - shift
    a = ((a << shift) & _MASK) | (b >> back)
    b = ((b << shift) & _MASK) | (c >> back)
    c = ((c << shift) & _MASK) | (d >> back)
    d = ((d << shift) & _MASK) | (e >> back)
    high = (a << 21) | (b >> 11)
    following = ((b & 0x7FF) << 42) | (c << 10) | (d >> 22)
    rest = (d & 0x3F_FFFF) | ((e << shift) & _MASK) | (1 if lowest < top - 4 else 0)
    return (-1 if negative else 1), high, following, rest, 32 * (top + low) - 21 - shift + LOWEST_EXPONENT


@formula
def rounded(words, low):
    """Round a normalized accumulator to float64; return the number and whether it is certain."""
    sign, high, following, rest, exponent = leading_digits(words, low)
    if sign == 0:
        return 0.0, True
    half = 1 << 52
    if following > half or (following == half and (rest != 0 or high & 1 == 1)):
        high += 1
    if high >> 53 != 0:
        high >>= 1
        exponent += 1
    field = exponent + 1075
    if field < 1 or field > 2046:
        return 0.0, False
    magnitude = float64_from_bits((field << 52) | (high & _FRACTION_MASK))
    return (magnitude if sign > 0 else -magnitude), True


# The window in which `_is_beyond` compares two products of 106 by 54 bits.
_COMPARED_LOW = 30
COMPARED_WORDS = 8 + 3


@formula
def _is_beyond(top, top_low, bottom, bottom_low, middle_high, middle_low, words):
    """Return the sign of (top + top_low) - (bottom + bottom_low)·(middle_high + middle_low), exactly.

    All are integers of at most 53 bits times 2^-53 or more and the products below 2^110; `words` is scratch, int64
    ``(COMPARED_WORDS,)``.
    """
    for i in range(COMPARED_WORDS):
        words[i] = 0
    add_term(words, top, _COMPARED_LOW)
    add_term(words, top_low, _COMPARED_LOW)
    product = bottom * middle_high
    add_term(words, -product, _COMPARED_LOW)
    add_term(words, -fma(bottom, middle_high, -product), _COMPARED_LOW)
    product = bottom_low * middle_high
    add_term(words, -product, _COMPARED_LOW)
    add_term(words, -fma(bottom_low, middle_high, -product), _COMPARED_LOW)
    add_term(words, -(bottom * middle_low), _COMPARED_LOW)
    add_term(words, -(bottom_low * middle_low), _COMPARED_LOW)
    carry_digits(words)
    last = COMPARED_WORDS - 4
    if words[last] < 0:
        return -1
    for i in range(last + 1):
        if words[i] != 0:
            return 1
    return 0


@formula
def rounded_quotient(numerator, numerator_low, denominator, denominator_low, words):
    """Divide two normalized accumulators; return the quotient rounded once and whether it is certain.

    `words` is scratch, int64 ``(COMPARED_WORDS,)``.

    Notes
    -----
    The quotient of two double-double numbers (hi + lo) is within 2^-100 of its size. Where that does not decide the
    rounding, the numerator is compared with the denominator times the middle between the two neighbouring floats, in
    exact arithmetic. It is not certain where a sum has more than 106 bits and that would be needed, nor where the
    result is not a normal number.
    """
    sign, high, following, rest, exponent = leading_digits(numerator, numerator_low)
    other_sign, other_high, other_following, other_rest, other_exponent = leading_digits(denominator, denominator_low)
    if sign == 0 or other_sign == 0:
        return 0.0, other_sign > 0
    top = float(high)
    top_low = float(following) * 2.0**-53
    bottom = float(other_high)
    bottom_low = float(other_following) * 2.0**-53
    likely = top / bottom
    remainder = fma(-likely, bottom, top) + fma(-likely, bottom_low, top_low)
    lost = remainder / bottom
    quotient = likely + lost
    lost -= quotient - likely
    error = quotient * 2.0**-98
    bits = float64_bits(quotient)
    if not (quotient + (lost + error) == quotient and quotient + (lost - error) == quotient):
        if (rest | other_rest) != 0:
            return 0.0, False
        # The middle is half a unit above the float below it, whose 53 bits are `fraction`.
        if lost < 0.0:
            bits -= 1
        fraction = (bits & _FRACTION_MASK) | _HIDDEN_BIT
        scale = float64_from_bits((1023 + 1076 - (bits >> 52)) << 52)
        beyond = _is_beyond(top * scale, top_low * scale, bottom, bottom_low, 2.0 * float(fraction), 1.0, words)
        if beyond > 0 or (beyond == 0 and fraction & 1 == 1):
            bits += 1
    field = (bits >> 52) + exponent - other_exponent
    if field < 1 or field > 2046:
        return 0.0, False
    magnitude = float64_from_bits((field << 52) | (bits & _FRACTION_MASK))
    return (magnitude if sign == other_sign else -magnitude), True


@functools.cache
def make_carry_rows() -> Callable[..., None]:
    """Make ``carry_rows(words)``: normalize accumulators, int64 ``(n, n_limbs + 3)``."""

    def carry_rows(words):
        for i in range(words.shape[0]):
            carry_digits(words[i])

    return compile_cpu(carry_rows)


@functools.cache
def make_round_rows() -> Callable[..., None]:
    """Make ``round_rows(words, low, out, certain)``: `rounded` of each accumulator."""

    def round_rows(words, low, out, certain):
        for i in range(words.shape[0]):
            out[i], certain[i] = rounded(words[i], low)

    return compile_cpu(round_rows)


@functools.cache
def make_divide_rows() -> Callable[..., None]:
    """Make ``divide_rows(numerators, low, denominators, other_low, out, certain)``: `rounded_quotient` by row."""
    import numpy as np

    def divide_rows(numerators, low, denominators, other_low, out, certain):
        scratch = np.empty(COMPARED_WORDS, dtype=np.int64)
        for i in range(numerators.shape[0]):
            out[i], certain[i] = rounded_quotient(numerators[i], low, denominators[i], other_low, scratch)

    return compile_cpu(divide_rows)


# Up to this many, Python's integers take less time than loading a kernel.
_FEW = 2048


class ExactSums:
    """Many exact sums: what `ExactSum` is for one, with the same bits.

    Parameters
    ----------
    words : numpy.ndarray of int64, shape (n, n_limbs + 3)
        Normalized accumulators; they are kept, not copied.
    low : int
        The first limb of their window.
    """

    def __init__(self, words: NDArray[np.int64], low: int = 0) -> None:
        self.words = words
        self.low = low

    @classmethod
    def from_counts(cls, counts: NDArray[np.int64]) -> ExactSums:
        """Return integers, int64 ``(n,)``, as sums."""
        import numpy as np

        words = np.zeros((len(counts), 5), dtype=np.int64)
        words[:, 0] = counts & _MASK
        words[:, 1] = counts >> 32
        return cls(words, -LOWEST_EXPONENT // 32)

    @property
    def n_limbs(self) -> int:
        """How many limbs the window has."""
        return self.words.shape[1] - 3

    def __len__(self) -> int:
        """Return how many sums there are."""
        return len(self.words)

    def __getitem__(self, position: int) -> ExactSum:
        """Return one of the sums."""
        return ExactSum.from_words(self.words[position], self.low)

    def take(self, positions: NDArray[np.int64] | NDArray[np.bool_]) -> ExactSums:
        """Return the sums at some positions, or those that a mask marks."""
        return ExactSums(self.words[positions], self.low)

    def __add__(self, other: ExactSums) -> ExactSums:
        """Add, exactly, sum by sum."""
        mine, theirs, low = self._aligned(other)
        return ExactSums(normalize_words(mine + theirs), low)

    def __sub__(self, other: ExactSums) -> ExactSums:
        """Subtract, exactly, sum by sum; the infinities of `other` change their sign."""
        mine, theirs, low = self._aligned(other)
        words = mine - theirs
        words[:, -3] = mine[:, -3] + theirs[:, -3]
        words[:, -2] = mine[:, -2] + theirs[:, -1]
        words[:, -1] = mine[:, -1] + theirs[:, -2]
        return ExactSums(normalize_words(words), low)

    def __truediv__(self, other: ExactSums) -> NDArray[np.float64]:
        """Divide and round once, sum by sum; a division by zero is NaN."""
        import numpy as np

        if len(self) <= _FEW:
            return np.array([self[i] / other[i] for i in range(len(self))], dtype=np.float64)
        out = np.empty(len(self))
        certain = np.empty(len(self), dtype=np.bool_)
        make_divide_rows()(self.words, self.low, other.words, other.low, out, certain)
        doubtful = ~certain
        for sums in (self, other):
            doubtful |= ~sums.is_finite
        zero = np.zeros(len(self), dtype=np.bool_)
        # A denominator of 0 is among the doubtful.
        zero[doubtful] = other.take(doubtful).is_zero
        out[zero] = np.nan
        for i in np.flatnonzero(doubtful & ~zero).tolist():
            out[i] = self[i] / other[i]
        return out

    def __eq__(self, other: object) -> NDArray[np.bool_]:  # type: ignore[override]
        """Tell which sums are equal, in number and in what they counted; bool ``(n,)``."""
        if not isinstance(other, ExactSums):
            return NotImplemented
        mine, theirs, _ = self._aligned(other)
        return (mine == theirs).all(axis=1)

    __hash__ = None  # type: ignore[assignment]

    def to_float(self) -> NDArray[np.float64]:
        """Round each sum once to float64."""
        import numpy as np

        if len(self) <= _FEW:
            return np.array([float(self[i]) for i in range(len(self))], dtype=np.float64)
        out = np.empty(len(self))
        certain = np.empty(len(self), dtype=np.bool_)
        make_round_rows()(self.words, self.low, out, certain)
        if self.words[:, -3:].any():
            certain &= self.is_finite
        for i in np.flatnonzero(~certain).tolist():
            out[i] = float(self[i])
        return out

    @property
    def n_nan(self) -> NDArray[np.int64]:
        """How many terms of each sum were NaN."""
        return self.words[:, -3]

    @property
    def n_positive_infinity(self) -> NDArray[np.int64]:
        """How many terms of each sum were +inf."""
        return self.words[:, -2]

    @property
    def n_negative_infinity(self) -> NDArray[np.int64]:
        """How many terms of each sum were -inf."""
        return self.words[:, -1]

    @property
    def is_finite(self) -> NDArray[np.bool_]:
        """Whether every term of each sum was a finite number."""
        return ~_any_by_row(self.words[:, -3:])

    @property
    def is_zero(self) -> NDArray[np.bool_]:
        """Whether the finite terms of each sum add up to 0."""
        return ~_any_by_row(self.words[:, :-3])

    def _aligned(self, other: ExactSums) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Return the words of both in one window that holds either, and its first limb."""
        if not self.n_limbs or not other.n_limbs:
            # A window without limbs may begin anywhere.
            given = self if self.n_limbs else other
            low, n_limbs = given.low, given.n_limbs
            return widened(self.words, low, low, n_limbs), widened(other.words, low, low, n_limbs), low
        low = min(self.low, other.low)
        n_limbs = max(self.low + self.n_limbs, other.low + other.n_limbs) - low
        return widened(self.words, self.low, low, n_limbs), widened(other.words, other.low, low, n_limbs), low


def _any_by_row(words: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows hold anything but 0: as ``words.any(axis=1)`` does, which is slow for short rows."""
    import numpy as np

    found = np.zeros(len(words), dtype=np.bool_)
    for column in range(words.shape[1]):
        found |= words[:, column] != 0
    return found


def widened(words: NDArray[np.int64], low: int, new_low: int, n_limbs: int) -> NDArray[np.int64]:
    """Return normalized accumulators in a window of `n_limbs` limbs from `new_low` on, which holds theirs, normalized.

    The same array is returned if that is its window.
    """
    import numpy as np

    old = words.shape[1] - 3
    if (low, old) == (new_low, n_limbs):
        return words
    wider = np.zeros((len(words), n_limbs + 3), dtype=np.int64)
    wider[:, low - new_low : low - new_low + old] = words[:, :old]
    wider[:, n_limbs:] = words[:, old:]
    return normalize_words(wider)


def normalize_words(words: NDArray[np.int64]) -> NDArray[np.int64]:
    """Normalize accumulators, int64 ``(n, n_limbs + 3)``, in place, and return them."""
    if len(words) > _FEW:
        make_carry_rows()(words)
        return words
    for limb in range(words.shape[1] - 4):
        words[:, limb + 1] += words[:, limb] >> 32
        words[:, limb] &= _MASK
    return words
