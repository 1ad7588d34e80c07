"""Exact sums: equal to `math.fsum` to the bit, whatever the order, the partition and the magnitudes."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastloss_kernels.cpu import sums
from fastloss_kernels.exact_sum import ACCUMULATOR_WORDS, LIMBS, ExactSum, add_block, add_term

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
def test_sums_by_cell_are_the_sums_of_each_cell(terms: list[float], n_cells: int, random) -> None:
    cells = np.array([random.randrange(n_cells) for _ in terms], dtype=np.int64)
    order = np.empty(len(terms), dtype=np.int64)
    starts = np.empty(n_cells + 1, dtype=np.int64)
    sums.make_sort_by_cell()(cells, n_cells, order, starts)
    assert order.tolist() == np.argsort(cells, kind="stable").tolist()
    accumulators = np.zeros((n_cells, 2, ACCUMULATOR_WORDS), dtype=np.int64)
    rows = np.arange(n_cells)[::-1].copy()
    sorted_terms = np.empty(len(terms))
    sums.make_take_rows()(np.array(terms, dtype=np.float64), order, sorted_terms)
    sums.make_add_by_cell()(sorted_terms, starts, rows, accumulators, 1)
    for cell in range(n_cells):
        expected = exact([term for term, c in zip(terms, cells, strict=True) if c == cell])
        total = ExactSum.from_words(accumulators[rows[cell], 1])
        assert Fraction(total.units, 1 << 1088) == expected
    assert not accumulators[:, 0].any()


@given(st.lists(finite, max_size=2000))
def test_normalizing_keeps_the_number_and_bounds_the_digits(terms: list[float]) -> None:
    accumulator = accumulate(np.array(terms, dtype=np.float64))
    before = ExactSum.from_words(accumulator)
    rows = accumulator.reshape(1, -1)
    sums.make_normalize()(rows)
    assert ExactSum.from_words(rows[0]) == before
    assert ((rows[0, : LIMBS - 1] >= 0) & (rows[0, : LIMBS - 1] < 1 << 32)).all()


def test_capacity_exceeds_two_to_the_forty_rows() -> None:
    accumulator = np.zeros(ACCUMULATOR_WORDS, dtype=np.int64)
    add_term(accumulator, 1.7976931348623157e308)
    # 2^40 rows of the largest float64, as merged states: only the addition of words is asked of them.
    for _ in range(40):
        accumulator = accumulator + accumulator
        sums.make_normalize()(accumulator.reshape(1, -1))
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
