"""Exact sums: equal to `math.fsum` to the bit, whatever the order, the partition and the magnitudes."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastloss_kernels.cpu import slices, sums
from fastloss_kernels.cpu.pointwise import make_value
from fastloss_kernels.exact_sum import (
    ACCUMULATOR_WORDS,
    ADDITIONS_BEFORE_CARRY,
    COMPARED_WORDS,
    LIMBS,
    ExactSum,
    ExactSums,
    add_block,
    add_term,
    carry_digits,
    limbs_of,
    make_divide_rows,
    normalize_words,
)
from fastloss_kernels.exact_sum import rounded as round_in_python
from fastloss_kernels.exact_sum import rounded_quotient as divide_in_python
from fastloss_kernels.losses import HalfSquaredError

finite = st.floats(allow_nan=False, allow_infinity=False)


def many_terms(seed: int, count: int, spread: float, foreign: list[float]) -> list[float]:
    """Terms of about one magnitude (spread in decades) take the vector path, foreign ones send blocks to others."""
    random = np.random.default_rng(seed)
    body = random.normal(size=count) * 10.0 ** random.uniform(-spread, spread, count)
    return [*body.tolist(), *foreign]


lists = st.one_of(
    st.lists(finite, max_size=100),
    st.builds(
        many_terms,
        st.integers(0, 1 << 30),
        st.integers(0, 3000),
        st.sampled_from([0.5, 3.0, 12.0, 40.0, 150.0]),
        st.lists(finite, max_size=2),
    ),
)


def accumulate(terms: np.ndarray) -> np.ndarray:
    accumulator = np.zeros(ACCUMULATOR_WORDS, dtype=np.int64)
    sums.make_add_terms()(terms, accumulator)
    return accumulator


def exact(terms: list[float]) -> Fraction:
    return sum(map(Fraction, terms), Fraction(0))


def rounded(value: Fraction) -> float:
    try:
        return value.numerator / value.denominator
    except OverflowError:
        return math.inf if value > 0 else -math.inf


@given(lists)
@example([1e308] * 4000)
@example([5e-324] * 3000 + [1.0])
@example([1.0, 1e100, 1.0, -1e100])
@example([-1e-320, 2.0**-1022, 1e308, -1e308])
def test_sum_of_any_floats_is_the_exact_sum_rounded_once(terms: list[float]) -> None:
    total = ExactSum.from_words(accumulate(np.array(terms, dtype=np.float64)))
    assert float(total) == rounded(exact(terms))
    assert Fraction(total.units, 1 << 1088) == exact(terms)


@given(lists, st.randoms(use_true_random=False), st.integers(1, 9))
def test_order_and_partition_change_no_bit(terms: list[float], random, parts: int) -> None:
    whole = accumulate(np.array(terms, dtype=np.float64))
    shuffled = terms[:]
    random.shuffle(shuffled)
    pieces = np.array_split(np.array(shuffled, dtype=np.float64), parts)
    merged = np.sum([accumulate(np.ascontiguousarray(piece)) for piece in pieces], axis=0)
    assert ExactSum.from_words(whole) == ExactSum.from_words(merged)


@given(lists)
def test_plain_python_gives_the_same_accumulator(terms: list[float]) -> None:
    array = np.array(terms[:1024], dtype=np.float64)
    plain = np.zeros(ACCUMULATOR_WORDS, dtype=np.int64)
    add_block(plain, array)
    assert ExactSum.from_words(plain) == ExactSum.from_words(accumulate(array))


@given(st.lists(st.floats(), max_size=50))
def test_terms_that_are_no_number_are_counted(terms: list[float]) -> None:
    total = ExactSum.from_words(accumulate(np.array(terms, dtype=np.float64)))
    assert total.n_nan == sum(map(math.isnan, terms))
    assert total.n_positive_infinity == terms.count(math.inf)
    assert total.n_negative_infinity == terms.count(-math.inf)
    if total.n_nan or (total.n_positive_infinity and total.n_negative_infinity):
        assert math.isnan(float(total))
    elif total.n_positive_infinity or total.n_negative_infinity:
        assert float(total) == (math.inf if total.n_positive_infinity else -math.inf)


@given(st.lists(finite, min_size=1, max_size=400), st.lists(finite, min_size=1, max_size=400))
def test_quotient_of_sums_is_rounded_once(numerators: list[float], denominators: list[float]) -> None:
    top = ExactSum.from_words(accumulate(np.array(numerators)))
    bottom = ExactSum.from_words(accumulate(np.array(denominators)))
    if exact(denominators) == 0:
        assert math.isnan(top / bottom)
    else:
        assert top / bottom == rounded(exact(numerators) / exact(denominators))


@given(st.lists(finite, max_size=300), st.integers(1, 40), st.randoms(use_true_random=False))
def test_sums_by_slice_are_the_sums_of_each_slice(terms: list[float], n_slices: int, random) -> None:
    row_slices = np.array([random.randrange(n_slices) for _ in terms], dtype=np.int64)
    order = np.empty(len(terms), dtype=np.int64)
    starts = np.empty(n_slices + 1, dtype=np.int64)
    sums.make_sort_by_slice()(row_slices, n_slices, order, starts)
    assert order.tolist() == np.argsort(row_slices, kind="stable").tolist()
    accumulators = np.zeros((n_slices + 1, ACCUMULATOR_WORDS), dtype=np.int64)
    positions = np.arange(n_slices)[::-1].copy()
    slices.make_add_by_run()(np.array(terms, dtype=np.float64), order, starts, positions, accumulators, 0)
    for k in range(n_slices):
        expected = exact([term for term, own in zip(terms, row_slices, strict=True) if own == k])
        total = ExactSum.from_words(accumulators[positions[k]])
        assert Fraction(total.units, 1 << 1088) == expected
    assert not accumulators[n_slices].any()


@given(st.lists(finite, max_size=2000))
def test_normalizing_keeps_the_number_and_bounds_the_digits(terms: list[float]) -> None:
    accumulator = accumulate(np.array(terms, dtype=np.float64))
    before = ExactSum.from_words(accumulator)
    rows = accumulator.reshape(1, -1)
    normalize_words(rows)
    assert ExactSum.from_words(rows[0]) == before
    assert ((rows[0, : LIMBS - 1] >= 0) & (rows[0, : LIMBS - 1] < 1 << 32)).all()


def test_capacity_exceeds_two_to_the_forty_rows() -> None:
    accumulator = np.zeros(ACCUMULATOR_WORDS, dtype=np.int64)
    add_term(accumulator, 1.7976931348623157e308)
    # 2^40 rows of the largest float64, as merged states: only the addition of words is asked of them.
    for _ in range(40):
        accumulator = accumulator + accumulator
        normalize_words(accumulator.reshape(1, -1))
    total = ExactSum.from_words(accumulator)
    assert Fraction(total.units, 1 << 1088) == Fraction(1.7976931348623157e308) * 2**40


def test_golden_sums(shared_data: Path) -> None:
    cases = json.loads((shared_data / "golden" / "oracle_sums.json").read_text())["cases"]
    assert cases
    for case in cases:
        terms = [float.fromhex(text) for text in case["values_hex"]]
        total = ExactSum.from_words(accumulate(np.array(terms)))
        assert float(total) == float.fromhex(case["exact_sum_hex"]), case["name"]


@pytest.mark.parametrize("n_rows", [0, 1, 1023, 1024, 1025, 4097])
def test_block_borders(n_rows: int) -> None:
    terms = np.linspace(-1.0, 2.0, n_rows) if n_rows else np.empty(0)
    assert float(ExactSum.from_words(accumulate(terms))) == math.fsum(terms)


# ---------------------------------------------------------------------------------------------------------------
# Windows

# Floats whose windows differ: some of any size, most around 1, and what a window has no limbs for.
any_floats = st.one_of(st.floats(), st.floats(-1e3, 1e3), st.sampled_from([0.0, -0.0, 5e-324, 1.7976931348623157e308]))


def window_of(terms: np.ndarray, margin_below: int = 0, margin_above: int = 0) -> tuple[int, int]:
    """The first limb and the number of limbs of the smallest window for the terms, with a margin."""
    first, stop = limbs_of(terms)
    first, stop = (34, 37) if stop == 0 else (first - margin_below, stop + margin_above)
    return max(first, 0), min(stop, LIMBS) - max(first, 0)


@given(st.lists(any_floats, max_size=60))
def test_windowed_terms_add_to_the_same_sum(terms: list[float]) -> None:
    array = np.array(terms, dtype=np.float64)
    low, n_limbs = window_of(array)
    words = np.zeros(n_limbs + 3, dtype=np.int64)
    for term in terms:
        add_term(words, term, low)
    assert ExactSum.from_words(words, low) == ExactSum.from_words(accumulate(array))


@given(lists)
@example([1e308] * 1000 + [-1e-300])
@example([1.0, 2.0**-52] * 300 + [-1.0] * 300)
def test_windowed_blocks_add_to_the_same_sum(terms: list[float]) -> None:
    array = np.array(terms[:1024], dtype=np.float64)
    low, n_limbs = window_of(array, 2, 1)
    words = np.zeros(n_limbs + 3, dtype=np.int64)
    add_block(words, array, low)
    assert ExactSum.from_words(words, low) == ExactSum.from_words(accumulate(array))


@given(st.lists(st.floats(), max_size=40))
def test_smallest_window_holds_every_digit_and_no_limb_more(terms: list[float]) -> None:
    finite_terms = [Fraction(t) for t in terms if math.isfinite(t) and t != 0.0]
    first, stop = limbs_of(np.array(terms, dtype=np.float64))
    if not finite_terms:
        assert (first, stop) == (LIMBS, 0)
        return
    # The lowest bit that a term of its exponent can have, and the highest.
    lowest = min(max(math.frexp(abs(float(t)))[1] - 53, -1074) for t in finite_terms)
    highest = max(max(math.frexp(abs(float(t)))[1] - 53, -1074) for t in finite_terms)
    assert first == (lowest + 1088) // 32
    assert stop == (highest + 1088) // 32 + 3
    assert first >= 0
    assert stop <= LIMBS


# ---------------------------------------------------------------------------------------------------------------
# Many sums at once

hostile_sums = st.one_of(
    st.lists(any_floats, max_size=6),
    # Halfway between two floats, exactly or all but, with the digit that decides far below.
    st.builds(
        lambda m, e, s, tail: [math.ldexp(m, e), s * math.ldexp(0.5, e), tail],
        st.integers(1 << 52, (1 << 53) - 1).map(float),
        st.integers(-1000, 900),
        st.sampled_from([-1.0, 1.0]),
        st.sampled_from([0.0, 5e-324, -5e-324]),
    ),
    # Cancellation to nothing or to almost nothing.
    st.builds(lambda a, b: [a, b, -a, -b, 5e-324], st.floats(allow_nan=False, allow_infinity=False), st.floats(-1, 1)),
    st.lists(st.integers(-50, 50).map(float), max_size=4),
)


def many(sums_of_terms: list[list[float]], windowed: bool, copies: int) -> ExactSums:
    """The sums of lists of terms, repeated so that there are enough for the loops."""
    everything = np.array([t for terms in sums_of_terms for t in terms], dtype=np.float64)
    low, n_limbs = window_of(everything) if windowed else (0, LIMBS)
    words = np.zeros((len(sums_of_terms), n_limbs + 3), dtype=np.int64)
    for row, terms in zip(words, sums_of_terms, strict=True):
        for term in terms:
            add_term(row, term, low)
        carry_digits(row)
    return ExactSums(np.tile(words, (copies, 1)), low)


def same_bits(a: float, b: float) -> bool:
    return np.float64(a).tobytes() == np.float64(b).tobytes() or (math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize("copies", [1, 3000], ids=["few", "many"])
@settings(max_examples=60, deadline=None)
@given(data=st.data(), windowed=st.booleans())
def test_many_sums_are_each_what_one_is(copies: int, data, windowed: bool) -> None:
    n = data.draw(st.integers(1, 4))
    tops = data.draw(st.lists(hostile_sums, min_size=n, max_size=n))
    bottoms = data.draw(st.lists(hostile_sums, min_size=n, max_size=n))
    top, bottom = many(tops, windowed, copies), many(bottoms, windowed, copies)
    assert len(top) == n * copies
    quotients, plus, minus = top / bottom, top + bottom, top - bottom
    floats, equal = top.to_float(), top == bottom
    for i in [*range(n), n * copies - 1]:
        one, other = top[i], bottom[i]
        assert one == ExactSum.from_words(accumulate(np.array(tops[i % n], dtype=np.float64)))
        assert same_bits(floats[i], float(one))
        assert same_bits(quotients[i], one / other)
        assert plus[i] == one + other
        assert minus[i] == one - other
        assert equal[i] == (one == other)
        assert top.is_zero[i] == (one.units == 0)
        assert top.is_finite[i] == one.is_finite
        assert top.n_nan[i] == one.n_nan
        assert (top.n_positive_infinity[i], top.n_negative_infinity[i]) == (
            one.n_positive_infinity,
            one.n_negative_infinity,
        )


def test_many_sums_of_many_rows() -> None:
    random = np.random.default_rng(3)
    terms = random.normal(size=(5000, 3)) * 10.0 ** random.integers(-20, 20, (5000, 3))
    weights = random.integers(0, 5, (5000, 2)).astype(np.float64)
    top, bottom = many(terms.tolist(), True, 1), many(weights.tolist(), True, 1)
    exact_tops = [exact(row) for row in terms.tolist()]
    exact_bottoms = [exact(row) for row in weights.tolist()]
    assert top.to_float().tolist() == [rounded(t) for t in exact_tops]
    expected = [math.nan if b == 0 else rounded(t / b) for t, b in zip(exact_tops, exact_bottoms, strict=True)]
    assert np.array_equal(top / bottom, np.array(expected), equal_nan=True)


def test_quotients_in_the_middle_of_two_floats() -> None:
    random = np.random.default_rng(11)
    tops, bottoms = [], []
    for _ in range(4000):
        # numerator = denominator · (odd integer of 54 bits), off by one unit of the last place or by nothing.
        denominator = int(random.integers(1, 1 << int(random.integers(1, 53))))
        middle = 2 * int(random.integers(1 << 52, 1 << 53)) + 1
        numerator = denominator * middle + int(random.integers(-1, 2))
        high = float(numerator)
        low = float(numerator - int(high))
        scale = 2.0 ** int(random.integers(-200, 200))
        tops.append([high * scale, low * scale, float(numerator - int(high) - int(low)) * scale])
        bottoms.append([float(denominator)])
    top, bottom = many(tops, True, 1), many(bottoms, True, 1)
    out, certain = np.empty(4000), np.empty(4000, dtype=np.bool_)
    make_divide_rows()(top.words, top.low, bottom.words, bottom.low, out, certain)
    assert certain.all()
    assert (top / bottom).tolist() == [rounded(exact(t) / exact(b)) for t, b in zip(tops, bottoms, strict=True)]


@pytest.mark.parametrize("n", [3, 5000])
def test_counts_as_sums(n: int) -> None:
    counts = np.resize(np.array([0, 7, 1 << 40, -3, (1 << 62) + 1]), n).astype(np.int64)
    as_sums = ExactSums.from_counts(counts)
    assert [as_sums[i] for i in range(3)] == [ExactSum.from_count(int(c)) for c in counts[:3]]
    assert as_sums.to_float().tolist() == [float(int(c)) for c in counts]
    assert (as_sums.take(counts == 7).to_float() == 7.0).all()


@given(hostile_sums, hostile_sums)
def test_rounding_in_plain_python_is_the_compiled_one(top: list[float], bottom: list[float]) -> None:
    tops, bottoms = many([top], True, 3000), many([bottom], True, 3000)
    # Python's integers, for the plain formula to compute with.
    one, other = tops.words[0].astype(object), bottoms.words[0].astype(object)
    scratch = np.zeros(COMPARED_WORDS, dtype=object)
    for plain, compiled in (
        (round_in_python(one, tops.low), tops.to_float()[0]),
        (divide_in_python(one, tops.low, other, bottoms.low, scratch), (tops / bottoms)[0]),
    ):
        value, certain = plain
        finite_input = bool(tops.is_finite[0] and bottoms.is_finite[0])
        assert not (certain and finite_input) or same_bits(value, compiled)


@pytest.mark.parametrize("exponent", [-39, -40, -41, -42, -43, -50, -83, -84, -85, -90])
@pytest.mark.parametrize("largest", [1.0, -1.9999, 2.0**-400, 2.0**1000])
def test_a_term_far_above_all_others_of_its_block_loses_none(exponent: int, largest: float) -> None:
    # The first level of a split leaves terms up to 2⁻⁴¹ of the largest, with all their bits, to the second one, whose
    # sum of 1,023 of them is exact as long as it is cut no further than 44 bits down.
    random = np.random.default_rng(-exponent)
    terms = np.append(largest * 2.0 ** (exponent + random.uniform(-1.0, 0.0, 1023)), largest)
    assert Fraction(ExactSum.from_words(accumulate(terms)).units, 1 << 1088) == exact(terms.tolist())


def test_an_accumulator_holds_as_many_additions_as_are_allowed_between_carries() -> None:
    words = np.zeros(ACCUMULATOR_WORDS, dtype=np.int64)
    # Every bit of the significand is set, in each place that it may have in a digit.
    most = 0
    for shift in range(64):
        words[:] = 0
        add_term(words, math.ldexp(2.0 - 2.0**-52, shift))
        most = max(most, int(words[:LIMBS].max()))
    assert most >= (1 << 32) - 1
    # Beside a digit that a carry has left.
    assert most * ADDITIONS_BEFORE_CARRY + (1 << 32) < 1 << 63


@pytest.mark.parametrize("n_rows", [1, 2, 1023, 1024, 1025, 2049, 3 * 1024 + 1])
def test_values_summed_as_they_are_computed_are_the_sum_of_the_values(n_rows: int) -> None:
    loss = HalfSquaredError()
    row, parameters = loss.formulas["value"], loss.parameters("value")
    score, label = np.linspace(-3.0, 5.0, n_rows) ** 3, np.zeros(n_rows)
    # The last row alone outweighs all others.
    score[-1] = 1e9
    values, fused = np.empty(n_rows), np.zeros(ACCUMULATOR_WORDS, dtype=np.int64)
    make_value(row)(score, label, parameters, values)
    sums.make_add_values(row)(score, label, parameters, fused)
    assert ExactSum.from_words(fused) == ExactSum.from_words(accumulate(values))
    assert Fraction(ExactSum.from_words(fused).units, 1 << 1088) == exact(values.tolist())
