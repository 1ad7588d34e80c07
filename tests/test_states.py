"""Laws of states: merging is commutative and associative in all that is read, and nothing is lost on the way."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastloss.states import slices, sums
from fastloss.states.base import RowSet, SliceRuns
from fastloss.states.causes import Cause
from fastloss.states.counts import Count, CountColumn
from fastloss.states.ledger import Ledger, Location
from fastloss.states.slices import SliceTable, Texts
from fastloss.states.sums import Sum, SumColumn
from fastloss_kernels.cpu.slices import mix_bits
from fastloss_kernels.exact_sum import LIMBS, ExactSum


@dataclass(frozen=True)
class Quantity:
    name: str


class Values(NamedTuple):
    values: Any
    null_code: int | None = None


ROWS = RowSet(0)
TERM = Sum(ROWS, Quantity("term"))
OTHER = Sum(ROWS, Quantity("other"))
N = Count(ROWS, Quantity("rows"))
FLAGGED = Count(ROWS, Quantity("flagged"))
SPECS = (TERM, OTHER, N, FLAGGED)

Row = tuple[tuple[Any, ...], float, float, bool]


def by_rows(positions: np.ndarray) -> SliceRuns:
    return SliceRuns(None, None, positions)


def by_runs(positions: np.ndarray, shuffled: bool) -> tuple[np.ndarray, SliceRuns]:
    """Rows in the order of their slices (`shuffled`: in their own order), and the runs of their slices."""
    order = np.argsort(positions, kind="stable")
    present, lengths = np.unique(positions, return_counts=True)
    starts = np.append(0, np.cumsum(lengths))
    return (
        (np.arange(len(order)), SliceRuns(order, starts, present))
        if shuffled
        else (
            order,
            SliceRuns(None, starts, present),
        )
    )


def encoded(column: list[Any], kind: str) -> tuple[np.ndarray, Values]:
    """A key column of a batch as codes and values, in the form that a source of this kind gives."""
    distinct = list(dict.fromkeys((type(v).__name__, v) for v in column))
    values = [v for _, v in distinct]
    codes = np.array([distinct.index((type(v).__name__, v)) for v in column], dtype=np.int32)
    null_code = values.index(None) if None in values else None
    if kind == "array":
        filled = [0 if v is None else v for v in values]
        dtype = np.uint64 if any(v >= 1 << 63 for v in filled) else np.int64
        return codes, Values(np.array(filled, dtype=dtype), null_code)
    if kind == "texts":
        return codes, Values(Texts.of(["" if v is None else v for v in values]), null_code)
    return codes, Values(values, null_code)


def kind_of(column: list[Any], bare: bool) -> str:
    given = [v for v in column if v is not None]
    kinds = {type(v) for v in given}
    if kinds == {int} and not bare:
        # No array holds what is below 0 and what is beyond 2^63.
        return "list" if min(given) < 0 and max(given) >= 1 << 63 else "array"
    return "texts" if kinds == {str} and not bare else "list"


def table_of(rows: list[Row], n_keys: int, how: str = "rows", bare: bool = False) -> SliceTable:
    """The table of some rows, updated as one batch."""
    keys = tuple(f"key{i}" for i in range(n_keys))
    table = SliceTable(keys, SPECS)
    columns = [encoded([row[0][i] for row in rows], kind_of([row[0][i] for row in rows], bare)) for i in range(n_keys)]
    n = len(rows)
    positions = table.positions([c for c, _ in columns], [v for _, v in columns]) if keys else np.zeros(n, np.int64)
    order, runs = (np.arange(n), by_rows(positions)) if how == "rows" else by_runs(positions, how == "shuffled")
    for spec, place in ((TERM, 1), (OTHER, 2)):
        table.column(spec).add(np.array([row[place] for row in rows], dtype=np.float64)[order], runs)
    table.column(N).add_lengths(runs)
    table.column(FLAGGED).add(np.array([row[3] for row in rows], dtype=np.bool_)[order], runs)
    return table


def sort_key(key: tuple[Any, ...]) -> Any:
    return tuple((part is None, type(part).__name__, 0 if part is None else part) for part in key)


def read(table: SliceTable) -> list[tuple[Any, ...]]:
    """Everything that a table says, in the order in which results list it."""
    columns = [column.to_list() for column in table.key_columns()]
    keys = list(zip(*columns, strict=True)) if columns else [()]
    table.normalize()
    terms, others = table.column(TERM).evaluate(), table.column(OTHER).evaluate()
    n, flagged = table.column(N).evaluate(), table.column(FLAGGED).evaluate()
    assert len(keys) == len(terms) == len(others) == len(n) == len(flagged) == table.n_slices
    typed = [tuple((type(part).__name__, part) for part in key) for key in keys]
    return [(typed[i], terms[i], others[i], int(n[i]), int(flagged[i])) for i in table.sorted_positions().tolist()]


def expected(rows: list[Row], n_keys: int) -> list[tuple[Any, ...]]:
    found: dict[Any, list[Row]] = {} if n_keys else {(): []}
    for row in rows:
        found.setdefault(tuple((type(part).__name__, part) for part in row[0]), []).append(row)
    return [
        (key, exact_sum([r[1] for r in of]), exact_sum([r[2] for r in of]), len(of), sum(r[3] for r in of))
        for key, of in sorted(found.items(), key=lambda item: sort_key(tuple(part for _, part in item[0])))
    ]


def exact_sum(terms: list[float]) -> ExactSum:
    numbers = [Fraction(t) for t in terms if math.isfinite(t)]
    units = sum(numbers, Fraction(0)) * (1 << 1088)
    assert units.denominator == 1
    return ExactSum(units.numerator, sum(map(math.isnan, terms)), terms.count(math.inf), terms.count(-math.inf))


integers = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from([-(1 << 63), (1 << 63) - 1]))
unsigned = st.one_of(st.none(), st.integers(0, 3), st.sampled_from([(1 << 63) - 1, 1 << 63, (1 << 64) - 1]))
texts = st.one_of(
    st.none(), st.sampled_from(["", "a", "b", "ab", "é", "日本", "a\0", "0", "1", "long enough for two words"])
)
booleans = st.one_of(st.none(), st.booleans())
key_columns = st.sampled_from([integers, unsigned, texts, booleans])
mixed = st.one_of(integers, unsigned, texts, booleans)
terms = st.one_of(st.floats(), st.floats(-10, 10), st.sampled_from([0.0, -0.0, 1.0, 5e-324, 1e308, -1e308]))


@st.composite
def logs(draw, n_parts: int) -> tuple[int, list[list[Row]]]:
    """Parts of a log with up to three key columns; a column's type may change from part to part."""
    n_keys = draw(st.integers(0, 3))
    change = draw(st.booleans())
    fixed = [draw(key_columns) for _ in range(n_keys)]
    parts = []
    for _ in range(n_parts):
        columns = [draw(st.one_of(key_columns, st.just(mixed))) for _ in range(n_keys)] if change else fixed
        parts.append(draw(st.lists(st.tuples(st.tuples(*columns), terms, terms, st.booleans()), max_size=12)))
    return n_keys, parts


@settings(max_examples=150, deadline=None)
@given(logs(1), st.sampled_from(["rows", "runs", "shuffled"]), st.booleans())
def test_a_table_holds_the_sums_and_counts_of_every_slice(log, how: str, bare: bool) -> None:
    n_keys, (rows,) = log
    assert read(table_of(rows, n_keys, how, bare)) == expected(rows, n_keys)


@settings(max_examples=150, deadline=None)
@given(logs(3), st.booleans(), st.lists(st.sampled_from(["rows", "runs"]), min_size=3, max_size=3))
def test_merging_is_associative_and_commutative_and_changes_no_input(log, bare: bool, how: list[str]) -> None:
    n_keys, (first, second, third) = log
    whole = expected(first + second + third, n_keys)

    def of(part: int) -> SliceTable:
        return table_of(log[1][part], n_keys, how[part], bare)

    left, inner = of(0), of(1)
    left.merge(inner)
    left.merge(of(2))
    right, tail = of(2), of(1)
    tail.merge(of(0))
    right.merge(tail)
    assert read(left) == read(right) == whole
    assert read(inner) == expected(second, n_keys)
    identity = SliceTable(left.keys, SPECS)
    left.merge(identity)
    identity.merge(right)
    assert read(left) == read(identity) == whole


@settings(max_examples=100, deadline=None)
@given(logs(2))
def test_total_is_the_sum_over_all_slices(log) -> None:
    n_keys, (first, second) = log
    table = table_of(first, n_keys)
    table.merge(table_of(second, n_keys))
    assert read(table.total()) == expected([((), *row[1:]) for row in first + second], 0)
    assert read(table) == expected(first + second, n_keys)


@settings(max_examples=60, deadline=None)
@given(logs(2))
def test_fields_are_all_there_is(log) -> None:
    n_keys, (first, second) = log
    table = table_of(first, n_keys)
    restored = SliceTable(table.keys, SPECS)
    if n_keys:
        values = [
            Values(column.values, None if column.null is None or not column.null.any() else int(column.null.argmax()))
            for column in table.key_columns()
        ]
        if table.n_slices and n_keys == 1:
            assert restored.positions([np.arange(table.n_slices)], values).tolist() == list(range(table.n_slices))
    for spec, column in zip(SPECS, table.columns, strict=True):
        again = type(column).from_fields({name: np.array(field) for name, field in column.fields().items()})
        assert again.n_slices == table.n_slices
        fields = again.fields()
        assert fields.keys() == column.fields().keys()
        for name, field in column.fields().items():
            assert np.array_equal(fields[name], field)
        if n_keys <= 1 and table.n_slices:
            restored.column(spec).merge(again, np.arange(table.n_slices))
    if n_keys <= 1:
        assert read(restored) == expected(first, n_keys)
        restored.merge(table_of(second, n_keys))
        assert read(restored) == expected(first + second, n_keys)


@pytest.mark.parametrize("n_slices", [1, 257, 5 * 256 + 1, 40_000])
@pytest.mark.parametrize("kind", ["integers", "texts"])
def test_many_slices_in_any_order_of_merging(n_slices: int, kind: str) -> None:
    random = np.random.default_rng(n_slices)
    tables = []
    n = np.zeros(n_slices, dtype=np.int64)
    total = np.zeros(n_slices)
    for _ in range(3):
        ids = random.integers(0, n_slices, 2 * n_slices + 1)
        whole = random.integers(-1000, 1000, len(ids)).astype(np.float64)
        np.add.at(n, ids, 1)
        np.add.at(total, ids, whole)
        distinct, codes = np.unique(ids, return_inverse=True)
        names: Any = distinct * 7919 - 3
        if kind == "texts":
            names = Texts.of([f"user {name}" for name in names.tolist()])
        table = SliceTable(("user",), SPECS)
        rows = by_rows(table.positions([codes], [Values(names)]))
        table.column(TERM).add(whole, rows)
        table.column(OTHER).add(whole * 2.0**-500, rows)
        table.column(N).add_lengths(rows)
        table.column(FLAGGED).add(whole > 0, rows)
        tables.append(table)
    forward, backward = SliceTable(("user",), SPECS), SliceTable(("user",), SPECS)
    for table in tables:
        forward.merge(table)
    for table in tables[::-1]:
        backward.merge(table)
    seen = np.flatnonzero(n)
    for merged in (forward, backward):
        order = merged.sorted_positions()
        assert merged.n_slices == len(seen)
        names = [int(str(v).removeprefix("user ")) for v in merged.key_columns()[0].to_list()]
        assert kind == "texts" or [names[i] for i in order] == sorted(names)
        ids = (np.array(names) + 3) // 7919
        assert np.array_equal(merged.column(N).evaluate(), n[ids])
        assert np.array_equal(merged.column(TERM).evaluate().to_float(), total[ids])
        assert np.array_equal(merged.column(OTHER).evaluate().to_float(), total[ids] * 2.0**-500)
    one, other = (
        m.column(OTHER).evaluate().take(m.sorted_positions()) / m.column(TERM).evaluate().take(m.sorted_positions())
        for m in (forward, backward)
    )
    assert np.array_equal(one, other, equal_nan=True)


def test_window_follows_the_terms() -> None:
    column = SumColumn()
    column.resize(3)
    positions = np.array([0, 1, 2, 1])
    column.add(np.array([0.0, math.nan, -0.0, math.inf]), by_rows(positions))
    column.normalize()
    assert column.n_limbs == 3
    column.add(np.array([0.25, 0.5, 8.0, 1e-3]), by_rows(positions))
    column.normalize()
    narrow = column.n_limbs
    assert narrow <= 5
    column.add(np.array([1e-300]), by_rows(np.array([2])))
    column.normalize()
    assert narrow < column.n_limbs < LIMBS
    found = column.evaluate()
    assert [found[i] for i in range(3)] == [
        exact_sum([0.25]),
        exact_sum([math.nan, math.inf, 0.5, 1e-3]),
        exact_sum([8.0, 1e-300]),
    ]


@pytest.mark.parametrize("n_rows", [15, 16, 17, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("scale", [1.0, 1e-320, 1e305])
def test_long_runs_at_block_borders(n_rows: int, scale: float) -> None:
    random = np.random.default_rng(n_rows)
    terms = np.concatenate([random.normal(size=n_rows), [1.0, -1.0], random.normal(size=n_rows) * 1e-9]) * scale
    positions = np.repeat(np.array([1, 0, 2]), [n_rows, 2, n_rows])
    order, runs = by_runs(positions, shuffled=True)
    one, other, row_wise = SumColumn(), SumColumn(), SumColumn()
    for column in (one, other, row_wise):
        column.resize(3)
    one.add(terms[order], runs)
    sorted_order, sorted_runs = by_runs(positions, shuffled=False)
    other.add(terms[sorted_order], sorted_runs)
    row_wise.add(terms, by_rows(positions))
    for position in range(3):
        whole = exact_sum(terms[positions == position].tolist())
        assert one.evaluate()[position] == other.evaluate()[position] == row_wise.evaluate()[position] == whole


def test_digits_are_carried_before_they_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "ADDITIONS_BEFORE_CARRY", 8)
    column, merged = SumColumn(), SumColumn()
    column.resize(1)
    merged.resize(1)
    terms = np.full(5, 2.0**33 - 2.0**-19)
    for _ in range(7):
        column.add(terms, by_rows(np.zeros(5, dtype=np.int64)))
        # Never more than what may be added between two carries, and what one addition holds.
        assert abs(column.words[:, : column.n_limbs]).max() <= 2**33 * (8 + 5)
        merged.merge(column, np.zeros(1, dtype=np.int64))
    assert column.evaluate()[0] == exact_sum([2.0**33 - 2.0**-19] * 35)
    assert merged.evaluate()[0] == exact_sum([2.0**33 - 2.0**-19] * 5 * 28)


def test_a_long_last_digit_is_no_digit_inside_a_wider_window() -> None:
    narrow, wide = SumColumn(), SumColumn()
    for column in (narrow, wide):
        column.resize(1)
    term = np.array([float(1 << 50)])
    one_row = SliceRuns(None, np.array([0, 1]), np.zeros(1, dtype=np.int64))
    narrow.add(term, one_row)
    # As if 2^40 rows had been added.
    narrow.words[0, : narrow.n_limbs] *= 1 << 40
    narrow.normalize()
    wide.add(np.array([1e200, 1e-200]), by_rows(np.zeros(2, dtype=np.int64)))
    wide.merge(narrow, np.zeros(1, dtype=np.int64))
    assert abs(wide.words[0, :-3]).max() < 1 << 33
    units = (1 << 90) * (1 << 1088)
    assert wide.evaluate()[0] == ExactSum(units + exact_sum([1e200, 1e-200]).units)


def test_few_terms_a_slice_wait_and_are_not_lost() -> None:
    random = np.random.default_rng(5)
    n_slices, n_rows = 10_000, 3000
    column, whole = SumColumn(), [0] * n_slices
    column.resize(n_slices)
    sizes = []
    for _ in range(9):
        terms, positions = random.normal(size=n_rows), random.integers(0, n_slices, n_rows)
        column.add(terms, by_rows(positions))
        for term, position in zip(terms.tolist(), positions.tolist(), strict=True):
            whole[position] += exact_sum([term]).units
        # Whoever gave the arrays uses them again.
        terms[:], positions[:] = math.nan, 0
        sizes.append(column.nbytes)
    assert sizes[0] < 20 * n_rows
    assert sizes[5] < n_slices * 30 < n_slices * 56 <= sizes[-1]
    merged = SumColumn()
    merged.resize(n_slices)
    merged.merge(column, np.arange(n_slices)[::-1].copy())
    found, backward = column.evaluate(), merged.evaluate()
    assert [found[i].units for i in range(n_slices)] == whole
    assert [backward[i].units for i in range(n_slices)] == whole[::-1]


def test_growing_slice_by_slice_is_amortised() -> None:
    column, counts = SumColumn(), CountColumn()
    grown_at = set()
    for n_slices in range(1, 5000):
        column.resize(n_slices)
        column.normalize()
        counts.resize(n_slices)
        grown_at.add(len(column.words))
        assert len(counts.counts) >= n_slices
    assert len(grown_at) < 40
    assert len(column.words) < 2 * 5000


def test_rows_of_64_bytes_lie_in_one_cache_line() -> None:
    column = SumColumn()
    column.resize(1000)
    column.add(np.array([1.0, 2.0**-40]), by_rows(np.array([3, 4])))
    column.normalize()
    assert column.words.strides[0] == 64
    assert column.words.ctypes.data % 64 == 0


def test_only_accumulator_is_what_is_read() -> None:
    total = SliceTable((), SPECS)
    column = total.column(TERM)
    accumulator = column.only_accumulator(1 << 20)
    assert accumulator.shape == (LIMBS + 3,)
    accumulator[34] += 5
    assert float(column.evaluate()[0]) == 5.0
    column.add(np.array([1.0, 2.0]), SliceRuns(None, np.array([0, 2]), np.zeros(1, dtype=np.int64)))
    assert float(column.evaluate()[0]) == 8.0


def test_values_that_no_row_has_make_no_slice() -> None:
    for values in (np.array([5, 6, 7]), Texts.of(["x", "y", "z"]), ["x", None, "z"], [True, None, False]):
        table = SliceTable(("k",), SPECS)
        positions = table.positions([np.array([2, 0, 2], dtype=np.int32)], [Values(values, 1)])
        assert table.n_slices == 2
        assert positions.tolist() in ([0, 1, 0], [1, 0, 1])
        assert None not in table.key_columns()[0].to_list()


def test_a_column_of_nulls_alone_takes_the_type_that_comes_later() -> None:
    for later in (np.array([5, 6]), Texts.of(["x", "y"])):
        table = SliceTable(("k",), SPECS)
        assert table.positions([np.array([0, 0])], [Values([None], 0)]).tolist() == [0, 0]
        assert table.positions([np.array([1, 0])], [Values(later)]).tolist() == [2, 1]
        assert table.positions([np.array([0])], [Values([None])]).tolist() == [0]
        assert isinstance(table.key_columns()[0].values, type(later))
        expected_keys = [None, *(later.tolist() if isinstance(later, np.ndarray) else later.to_list())]
        assert table.key_columns()[0].to_list() == expected_keys
        assert table.sorted_positions().tolist() == [1, 2, 0]


def test_integers_stay_arrays_whatever_their_sign() -> None:
    table = SliceTable(("k",), SPECS)
    table.positions([np.array([0, 1])], [Values(np.array([3, 4], dtype=np.int64))])
    table.positions([np.array([0, 1])], [Values(np.array([4, (1 << 64) - 1], dtype=np.uint64))])
    column = table.key_columns()[0]
    assert isinstance(column.values, np.ndarray)
    assert column.to_list() == [3, 4, (1 << 64) - 1]
    # Below zero and beyond 2^63 at once no array of integers can hold.
    assert table.positions([np.array([0])], [Values(np.array([-1], dtype=np.int64))]).tolist() == [3]
    assert table.key_columns()[0].to_list() == [3, 4, (1 << 64) - 1, -1]


def test_true_is_not_one() -> None:
    table = SliceTable(("k",), SPECS)
    table.positions([np.array([0, 1])], [Values([1, 0])])
    assert table.positions([np.array([0, 1])], [Values([True, "1"])]).tolist() == [2, 3]
    order = table.sorted_positions().tolist()
    assert [table.key_columns()[0].to_list()[i] for i in order] == [True, 0, 1, "1"]


@pytest.mark.parametrize("few", [0, 1 << 20], ids=["NumPy", "Python"])
@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab\0é日\U0001f600\uffff"), max_size=20), unique=True))
def test_texts_are_in_the_order_of_their_characters(few: int, given_texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "_FEW_TEXTS", few)
        order = slices._text_order(Texts.of(given_texts))
    assert [given_texts[i] for i in order] == sorted(given_texts)


def test_hashes_that_collide_keep_their_keys_apart() -> None:
    # Keys whose hashes end in the same bits stand in one run of the table.
    keys = np.arange(200_000)
    same = keys[mix_bits(keys) & 0xFFF == 7]
    assert len(same) > 30
    index = slices._KeyIndex()
    numbers = index.numbers_of(same, -1)
    assert numbers.tolist() == list(range(len(same)))
    assert index.numbers_of(same[::-1], -1).tolist() == list(range(len(same)))[::-1]


def test_names_and_sizes_of_specifications() -> None:
    assert (TERM.name, N.name) == ("sum of term", "count of rows")
    assert Counter([TERM, OTHER, Sum(ROWS, Quantity("term"))])[TERM] == 2
    table = SliceTable(("k",), SPECS)
    table.positions([np.arange(1000)], [Values(np.arange(1000))])
    assert table.nbytes >= table.n_slices * 8


def test_few_slices_take_the_full_window_and_give_it_back() -> None:
    positions = np.arange(3)
    terms = np.array([1e-300, 3.5, -2.0, 7.0, -1e200, 0.25, -5e-324, 1e-9])
    runs = SliceRuns(None, np.array([0, 2, 5, 8]), positions)
    wide, narrow = SumColumn(), SumColumn()
    for column, scale in ((wide, 1.0), (narrow, 0.0)):
        column.resize(3)
        column.add(terms if scale else np.array([1.5, 3.5, -2.0, 7.0, -9.0, 0.25, -0.5, 1e-9]), runs)
        column.normalize()
    assert [wide.evaluate()[i] for i in range(3)] == [
        exact_sum(terms[a:b].tolist()) for a, b in ((0, 2), (2, 5), (5, 8))
    ]
    assert narrow.n_limbs < 10
    assert narrow.evaluate()[1] == exact_sum([-2.0, 7.0, -9.0])
    assert narrow.evaluate()[2] == exact_sum([0.25, -0.5, 1e-9])
    narrow.merge(wide, positions)
    assert narrow.evaluate()[1] == exact_sum([-2.0, 7.0, -9.0, -2.0, 7.0, -1e200])


NULL, NAN = Cause("null_label", "y", "label"), Cause("nan", "x", "prob")
# The first places of one cause, in the order that holds: by origin, row group and row; of two streams' equal rows, by
# the number found there.
PLACES = [
    Location("a.parquet", 0, 7, -1.0),
    Location("a.parquet", 1, 2, None),
    Location("b.parquet", 0, 0, 2.0),
    Location("stream", None, 3, -2.0),
    Location("stream", None, 3, -1.0),
    Location("stream", None, 3, None),
]


def ledger_of(n_read: int, *dropped: tuple[Cause, int, Location]) -> Ledger:
    ledger = Ledger(n_read)
    for cause, count, location in dropped:
        ledger.drop(cause, count, location)
    return ledger


@pytest.mark.parametrize("last", range(1, len(PLACES)))
def test_ledgers_keep_the_first_place_in_whatever_order_they_merge(last: int) -> None:
    first = PLACES[last - 1]
    parts = [
        ledger_of(10, (NULL, 2, PLACES[last]), (NAN, 1, PLACES[2])),
        ledger_of(20, (NULL, 3, first)),
        ledger_of(5),
        ledger_of(7, (NAN, 4, PLACES[0])),
    ]
    before = copy.deepcopy(parts)
    whole = Ledger(42, {NULL: 5, NAN: 5}, {NULL: first, NAN: PLACES[0]})
    for order in itertools.permutations(parts):
        one_by_one = Ledger()
        for part in order:
            one_by_one.merge(part)
        pairs = [Ledger(), Ledger()]
        for k, part in enumerate(order):
            pairs[k // 2].merge(part)
        pairs[0].merge(pairs[1])
        assert one_by_one == pairs[0] == whole
    assert parts == before


def test_a_ledger_keeps_the_first_place_that_is_dropped() -> None:
    for places in itertools.permutations(PLACES):
        assert ledger_of(0, *((NULL, 1, place) for place in places)).first == {NULL: PLACES[0]}
