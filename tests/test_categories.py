"""Sums by categories of rows that have any number of them: the laws of their states."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastloss.states.base import RowSet
from fastloss.states.categories import CategorySums, CategorySumsColumn


class Named(NamedTuple):
    name: str


class Keys(NamedTuple):
    values: list[Any]
    null_code: int | None


SPEC = CategorySums(RowSet(0), "tags", (Named("term"), Named("other")), Named("rows"))
Part = list[tuple[float, list[str | None]]]


def column_of(part: Part) -> CategorySumsColumn:
    column = SPEC.identity()
    column.resize(1)
    values = list(dict.fromkeys(tag for _, tags in part for tag in tags))
    rows = np.array([i for i, (_, tags) in enumerate(part) for _ in tags], dtype=np.int64)
    codes = np.array([values.index(tag) for _, tags in part for tag in tags], dtype=np.int32)
    terms = np.array([term for term, _ in part], dtype=np.float64)
    column.add((terms, -terms), rows, codes, Keys(values, values.index(None) if None in values else None))
    return column


def merged(*columns: CategorySumsColumn) -> CategorySumsColumn:
    total = SPEC.identity()
    total.resize(1)
    for column in columns:
        total.merge(column, np.zeros(1, dtype=np.int64))
    return total


def read(column: CategorySumsColumn) -> tuple[Any, ...]:
    found = copy.deepcopy(column).evaluate()
    n = [*found.n.tolist(), found.n_rows]
    return found.keys, n, [[sums[i] for i in range(len(found.keys))] for sums in found.sums]


_PARTS = st.lists(st.tuples(st.floats(-1e9, 1e9), st.lists(st.sampled_from(["a", "b", "ä", "", None]), max_size=4)))


@settings(max_examples=30)
@given(_PARTS, _PARTS, _PARTS)
def test_merging_is_associative_and_commutative_and_loses_nothing(first: Part, second: Part, third: Part) -> None:
    a, b, c = map(column_of, (first, second, third))
    before = [read(column) for column in (a, b, c)]
    whole = read(column_of([*first, *second, *third]))
    assert read(merged(a, b, c)) == read(merged(c, a, b)) == read(merged(merged(a, b), c)) == whole
    assert [read(column) for column in (a, b, c)] == before
    stored = CategorySumsColumn.from_fields(merged(a, b, c).fields())
    assert (read(stored), stored.n_slices) == (whole, 1)
    assert read(merged(stored, a)) == read(merged(a, b, c, a))


def test_a_row_has_a_category_once() -> None:
    keys, n, (terms, others) = read(column_of([(2.0, ["a", "a", "b"]), (3.0, ["b"]), (5.0, [])]))
    assert (keys, n) == (["a", "b"], [1, 2, 2])
    assert [float(term) for term in terms] == [2.0, 5.0]
    assert [float(term) for term in others] == [-2.0, -5.0]
    assert SPEC.name == "sums by categories in tags: term, other"
    assert (SPEC.bytes_per_slice, SPEC.most_bytes, column_of([(1.0, ["a"])]).nbytes > 0) == (0, 1, True)
