"""Sums of products of features: exact term by term, and their states obey the laws of merging."""

from __future__ import annotations

import copy
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fastloss.states.base import RowSet
from fastloss.states.products import MOST_PAIRED_COLUMNS, FeatureProducts, FeatureProductsColumn, factors_of
from fastloss_kernels.cpu.products import add_products, make_add_feature_products, scale_column, widen_column
from fastloss_kernels.exact_sum import ACCUMULATOR_WORDS, BLOCK_ROWS, LOWEST_EXPONENT, ExactSum
from fastloss_kernels.jit import float32_at, float64_at, int8_at


def add(
    features: np.ndarray,
    residual: np.ndarray,
    curvature: np.ndarray,
    factors: np.ndarray,
    accumulators: np.ndarray,
) -> None:
    loop = make_add_feature_products()
    n_columns, n_rows = features.shape
    scratch = np.empty((3 * n_columns, BLOCK_ROWS))
    exponents = np.empty((3 * n_columns, 2), dtype=np.int64)
    # Each column in the narrowest type that holds it, and nothing where it is 0.
    with np.errstate(over="ignore"):
        narrow = features.astype(np.float32)
    held = [narrow[i] if (narrow[i] == features[i]).all() else features[i] for i in range(n_columns)]
    held = [x.astype(np.int8) if (np.abs(x) < 9).all() and not (x % 1).any() and x.all() else x for x in held]
    columns = np.array([(x.ctypes.data if x.any() else 0, x.itemsize) for x in held[1:]], dtype=np.int64).reshape(
        -1, 2
    )
    loop(columns, n_rows, residual, curvature, factors, scratch, exponents, accumulators)


def summed(features: np.ndarray, residual: np.ndarray, curvature: np.ndarray) -> list[ExactSum]:
    factors = factors_of(len(features), True)
    accumulators = np.zeros((len(factors), ACCUMULATOR_WORDS), dtype=np.int64)
    add(features, residual, curvature, factors, accumulators)
    return [ExactSum.from_words(words) for words in accumulators]


def expected(features: np.ndarray, residual: np.ndarray, curvature: np.ndarray) -> list[ExactSum]:
    """The definition: float64 products as they are bracketed, each added as a fraction."""
    with np.errstate(all="ignore"):
        columns = [*features, *(curvature * x for x in features), *(residual * x for x in features)]
        terms = [columns[i] * columns[j] for i, j in factors_of(len(features), True).tolist()]
    found = []
    for each in terms:
        finite = sum(map(Fraction, each[np.isfinite(each)].tolist()), Fraction())
        units = finite * 2**-LOWEST_EXPONENT
        assert units.denominator == 1
        counts = (np.isnan(each).sum(), np.isposinf(each).sum(), np.isneginf(each).sum())
        found.append(ExactSum(int(units), *map(int, counts)))
    return found


@pytest.mark.parametrize("n_rows", [1, 1023, 1024, 1025, 2600])
@pytest.mark.parametrize("spread", [0.0, 1.0, 20.0, 60.0])
def test_sums_are_exact(n_rows: int, spread: float) -> None:
    """The wider the terms, the more levels they are split in: two, three, and one term after the other."""
    random = np.random.default_rng(n_rows)
    features = random.normal(size=(4, n_rows)) * 2.0 ** random.normal(0.0, spread, (4, n_rows)).round()
    features[0] = 1.0
    features[1] = features[1].clip(-1e38, 1e38).astype(np.float32)
    features[3] = random.integers(-3, 4, n_rows)
    features[2, random.random(n_rows) < 0.9] = 0.0
    residual, curvature = random.normal(size=n_rows), random.random(n_rows)
    assert summed(features, residual, curvature) == expected(features, residual, curvature)


@pytest.mark.parametrize("smallest", [1.0, 1e-9, 1e-40])
def test_plain_python_gives_the_same_bits(smallest: float) -> None:
    random = np.random.default_rng(2)
    x = random.normal(size=9)
    x[4] = smallest
    residual = random.normal(size=9)
    scaled, widened = np.empty(9), np.empty(9)
    bounds = [scale_column(residual, x, scaled), widen_column(float64_at(x.ctypes.data, 9), widened)]
    accumulator = np.zeros(ACCUMULATOR_WORDS, dtype=np.int64)
    exponents = [[pattern >> 52 for pattern in found] for found in bounds]
    add_products(accumulator, scaled, widened, *exponents)
    exact = sum(map(Fraction, (residual * x * x).tolist())) * 2**-LOWEST_EXPONENT
    assert ExactSum.from_words(accumulator).units == exact
    narrow = np.array([1, -2, 3], dtype=np.int8)
    assert int8_at(narrow.ctypes.data, 3).tolist() == [1, -2, 3]
    assert float32_at(narrow.astype(np.float32).ctypes.data, 0).tolist() == []


_EDGES = [0.0, -0.0, 1.0, -1.0, 1.5e-323, -5e-324, 2.0**-1022, 1e-300, 1e300, 1.7e308, -1.7e308, 0.1, 3.0]
_ANY = st.one_of(st.sampled_from(_EDGES), st.floats(allow_nan=False, allow_infinity=False))


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 40))
def test_sums_are_exact_for_any_numbers(data: st.DataObject, n_rows: int) -> None:
    features = np.ones((3, n_rows))
    features[1:] = data.draw(arrays.arrays(np.float64, (2, n_rows), elements=_ANY))
    extreme = st.one_of(_ANY, st.sampled_from([np.inf, -np.inf, np.nan]))
    residual, curvature = (data.draw(arrays.arrays(np.float64, n_rows, elements=extreme)) for _ in range(2))
    assert summed(features, residual, curvature) == expected(features, residual, curvature)


SPEC = FeatureProducts(RowSet(0), type("Named", (), {"name": "x"})(), (1, 0))
Part = list[tuple[float, list[float] | None, float]]


def column_of(part: Part, diagonal: bool) -> FeatureProductsColumn:
    """The state of rows with a number, a list of two numbers or null, and a residual."""
    column = FeatureProductsColumn((1, 0), diagonal=diagonal)
    column.resize(1)
    if not part:
        return column
    width = 2 if any(numbers is not None for _, numbers, _ in part) else 0
    column.n_null[1] += sum(numbers is None for _, numbers, _ in part)
    factors, accumulators = column.prepare([1, width], len(part))
    column.observe(0, np.array([x for x, *_ in part]), 0)
    for place in range(width):
        seen = np.array([numbers[place] for _, numbers, _ in part if numbers is not None])
        column.observe(1 + place, seen, place * len(seen))
    rows = [[1.0, x, *(numbers or [0.0] * width)] for x, numbers, _ in part]
    residual = np.array([r for *_, r in part])
    add(np.ascontiguousarray(np.array(rows).T), residual, np.abs(residual), factors, accumulators)
    return column


def merged(*columns: FeatureProductsColumn) -> FeatureProductsColumn:
    total = SPEC.identity() if not columns[0].diagonal else FeatureProductsColumn((1, 0), diagonal=True)
    for column in columns:
        total.merge(column, np.zeros(1, dtype=np.int64))
    return total


def read(column: FeatureProductsColumn) -> tuple[Any, ...]:
    found = copy.deepcopy(column).evaluate()
    return (
        found.widths.tolist(),
        found.n_null.tolist(),
        found.lowest.tolist(),
        found.highest.tolist(),
        found.is_paired,
        [found.sums[i] for i in range(len(found.sums))],
    )


_NUMBERS = st.floats(-1e6, 1e6)
_PARTS = st.lists(st.tuples(_NUMBERS, st.none() | st.lists(_NUMBERS, min_size=2, max_size=2), _NUMBERS), max_size=5)


@settings(max_examples=40, deadline=None)
@given(_PARTS, _PARTS, _PARTS, st.booleans())
def test_merging_is_associative_and_commutative_and_loses_nothing(
    first: Part, second: Part, third: Part, diagonal: bool
) -> None:
    a, b, c = (column_of(part, diagonal) for part in (first, second, third))
    before = [read(column) for column in (a, b, c)]
    whole = read(merged(column_of([*first, *second, *third], diagonal)))
    assert read(merged(a, b, c)) == read(merged(c, a, b)) == read(merged(merged(a, b), c)) == whole
    assert [read(column) for column in (a, b, c)] == before
    assert read(FeatureProductsColumn.from_fields(merged(a, b, c).fields())) == whole


def test_lists_of_two_lengths_are_a_conflict_in_any_order() -> None:
    def of_width(width: int) -> FeatureProductsColumn:
        column = FeatureProductsColumn((1, 0))
        column.prepare([1, width], 0)
        return column

    for order in ([2, 3, 5], [5, 3, 2], [3, 2, 5]):
        found = merged(*map(of_width, order))
        assert found.conflict is not None
        assert FeatureProductsColumn.from_fields(found.fields()).conflict == found.conflict
    assert merged(of_width(2), of_width(0), of_width(2)).conflict is None


def test_pairs_are_left_out_where_there_are_many() -> None:
    few, many = MOST_PAIRED_COLUMNS - 1, MOST_PAIRED_COLUMNS
    assert FeatureProductsColumn((1, 0)).prepare([1, few], 0)[0].tolist() == factors_of(1 + 1 + few, True).tolist()
    column = FeatureProductsColumn((1, 0))
    column.prepare([1, 0], 1)
    column.accumulators[:, 40] = np.arange(len(column.accumulators))
    column.prepare([1, many], 0)
    found = column.evaluate()
    assert not found.is_paired
    assert len(found.sums) == 5 * (2 + many) - 2
    # What was summed before the lists were seen stays what it was.
    assert [found.gradient(i).units >> 32 * 40 for i in (0, 1, 2)] == [0, 1, 0]
    assert found.curvature(1, 1).units >> 32 * 40 == 7


def test_digits_are_carried_before_they_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastloss.states import products

    monkeypatch.setattr(products, "ADDITIONS_BEFORE_CARRY", 8)
    part: Part = [(3.0, [1.0, -2.0], -0.1)] * 5
    once = read(merged(*[column_of(part, False)] * 7))
    assert once == read(column_of(part * 7, False))
    assert SPEC.most_bytes == len(factors_of(3, True)) * 8 * ACCUMULATOR_WORDS
    assert (SPEC.name, SPEC.bytes_per_slice) == ("products of x", 0)
