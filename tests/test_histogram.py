"""Histograms of scores: exact masses, and the same histogram for every order, partition and number of slices."""

from __future__ import annotations

import math
import random
import struct
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastloss.states.base import RowSet, SliceRuns
from fastloss.states.histogram import FIRST_DROPPED_BITS, Buckets, ScoreHistogram, ScoreHistogramColumn
from fastloss_kernels.cpu.histogram import MOST_DROPPED_BITS, ordered_bits
from fastloss_kernels.exact_sum import LOWEST_EXPONENT

Row = tuple[float, float, float, int]  # label, score, weight, slice

scores = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, float("inf"), float("-inf"), 5e-324, -5e-324, 1.7e308]),
    st.floats(allow_nan=False),
    st.floats(-4, 4, width=32),
    st.integers(0, 300).map(lambda k: 1.0 + k * 2.0**-40),
)
labels = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
weights = st.one_of(
    st.sampled_from([1.0, 2.0, 0.5]), st.floats(0.125, 10, width=32), st.floats(1e-100, 1e100), st.just(5e-324)
)
weighted_rows = st.lists(st.tuples(labels, scores, weights, st.integers(0, 3)), max_size=60)
plain_rows = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), scores, st.just(1.0), st.integers(0, 3)), max_size=60)
# Room for few scores and few buckets, so that every level is met.
specs = st.builds(
    ScoreHistogram,
    st.just(RowSet(0)),
    score_bytes=st.sampled_from([0, 200, 600, 4 << 20]),
    bucket_bytes=st.sampled_from([0, 100, 400, 3000, 32 << 20]),
    slice_buckets=st.sampled_from([0, 1, 3, 64]),
)


def scattered_rows(seed: int, count: int) -> list[Row]:
    """Unweighted rows whose scores fill many pages of buckets."""
    generator = np.random.default_rng(seed)
    drawn = generator.normal(size=count) * 10.0 ** generator.uniform(-8, 8, count)
    return [(float(i % 2), score, 1.0, 0) for i, score in enumerate(drawn.tolist())]


def add(column: ScoreHistogramColumn, rows: list[Row], weighted: bool, way: int = 0) -> ScoreHistogramColumn:
    """Add rows in one of the three ways in which rows tell their slices."""
    column.resize(4)
    slices = np.array([row[3] for row in rows], dtype=np.int64)
    order = np.argsort(slices, kind="stable")
    starts = np.searchsorted(slices[order], np.arange(5)).astype(np.int64)
    if way == 0:
        runs = SliceRuns(order, starts, np.arange(4))
    elif way == 1:
        rows = [rows[i] for i in order.tolist()]
        runs = SliceRuns(None, starts, np.arange(4))
    else:
        runs = SliceRuns(None, None, slices)
    label, score, weight = (np.array([row[k] for row in rows], dtype=np.float64) for k in range(3))
    column.add_rows(score, label, weight if weighted else None, runs)
    return column


def content(column: ScoreHistogramColumn) -> dict[str, object]:
    return {name: (field.shape, field.tolist()) for name, field in column.fields().items()}


def naive(rows: list[Row], dropped_bits: int) -> dict[tuple[int, int], tuple[Fraction, Fraction]]:
    """Positive mass and weight by slice and bucket."""
    found: dict[tuple[int, int], tuple[Fraction, Fraction]] = {}
    for label, score, weight, position in rows:
        bits = struct.unpack("<q", struct.pack("<d", score + 0.0))[0]
        bits = bits if bits >= 0 else -(bits & (1 << 63) - 1) - 1
        key = position, bits >> dropped_bits
        positive, total = found.get(key, (Fraction(0), Fraction(0)))
        found[key] = positive + Fraction(label) * Fraction(weight), total + Fraction(weight)
    return found


def read(column: ScoreHistogramColumn) -> dict[tuple[int, int], tuple[Fraction, Fraction]]:
    fields = column.fields()
    low, n_digits = int(fields["form"][1]), fields["masses"].shape[1] // 2

    def mass(digits: list[int]) -> Fraction:
        return Fraction(sum(digit << 64 * k for k, digit in enumerate(digits)) << 64 * low, 1 << 1088)

    slices = np.repeat(np.arange(column.n_slices), np.diff(fields["starts"])).tolist()
    return {
        (position, bucket): (mass(digits[:n_digits]), mass(digits[n_digits:]))
        for position, bucket, digits in zip(slices, fields["buckets"].tolist(), fields["masses"].tolist(), strict=True)
    }


@given(st.lists(scores, min_size=2, max_size=20))
def test_bits_are_in_the_order_of_the_scores(values: list[float]) -> None:
    for a in values:
        for b in values:
            assert (ordered_bits(a) < ordered_bits(b)) == (a < b)
            assert (ordered_bits(a) == ordered_bits(b)) == (a == b)


@given(weighted_rows, st.integers(0, 2))
# The product's rounding error is below 0 here, and borrows.
@example([(0.1, 0.0, 0.3, 0), (0.7, 0.0, 0.3, 0), (1 / 3, 0.0, 1e30, 0)], 0)
def test_masses_are_exact(rows: list[Row], way: int) -> None:
    # Products below the normal numbers are rounded to the smallest number.
    rows = [row for row in rows if row[0] in (0.0, 1.0) or row[0] * row[2] > 1e-290]
    column = add(ScoreHistogram(RowSet(0)).identity(), rows, True, way)
    assert column.dropped_bits == 0
    assert read(column) == naive(rows, 0)


@given(weighted_rows, specs)
def test_the_fewest_bits_are_dropped_at_which_buckets_fit(rows: list[Row], spec: ScoreHistogram) -> None:
    rows = [(float(label > 0.5), *others) for label, *others in rows]
    column = add(spec.identity(), rows, True)
    cell_bytes = 16 + 8 * column.fields()["masses"].shape[1]
    levels = [0, *range(FIRST_DROPPED_BITS, MOST_DROPPED_BITS)]
    limits = [(spec.bucket_bytes if level else spec.score_bytes) // cell_bytes for level in levels]
    fits = []
    for level, limit in zip(levels, limits, strict=True):
        by_slice = Counter(position for position, _ in naive(rows, level))
        if sum(max(0, count - spec.slice_buckets) for count in by_slice.values()) <= limit:
            fits.append(level)
    assert column.dropped_bits == min([*fits, MOST_DROPPED_BITS])
    assert read(column) == naive(rows, column.dropped_bits)


@given(st.booleans(), st.data(), specs, st.integers(1, 5), st.randoms(use_true_random=False))
def test_order_and_partition_change_nothing(
    weighted: bool, data: st.DataObject, spec: ScoreHistogram, n_parts: int, generator: random.Random
) -> None:
    rows = data.draw(weighted_rows if weighted else plain_rows)
    whole = add(spec.identity(), rows, weighted)
    shuffled = rows[:]
    generator.shuffle(shuffled)
    parts = []
    for k in range(n_parts):
        part = spec.identity()
        for piece in (shuffled[k::n_parts][:3], shuffled[k::n_parts][3:]):
            add(part, piece, weighted, generator.randrange(3))
        parts.append(part)
    before = [content(part) for part in parts]
    generator.shuffle(parts)
    merged = spec.identity()
    merged.resize(4)
    for part in parts:
        merged.merge(part, np.arange(4))
    assert content(merged) == content(whole)
    assert sorted(map(str, before)) == sorted(str(content(part)) for part in parts)


@pytest.mark.parametrize("bucket_bytes", [32 << 20, 1 << 20, 100_000])
def test_many_scattered_scores_are_kept_in_any_layout(bucket_bytes: int) -> None:
    rows = scattered_rows(7, 20_000)
    spec = ScoreHistogram(RowSet(0), score_bytes=100_000, bucket_bytes=bucket_bytes)
    whole = add(spec.identity(), rows, False)
    assert read(whole) == naive(rows, whole.dropped_bits)
    assert whole.dropped_bits > 0
    assert whole.nbytes <= spec.most_bytes
    merged = spec.identity()
    merged.resize(4)
    for k in range(7):
        merged.merge(add(spec.identity(), rows[k::7], False), np.arange(4))
    assert content(merged) == content(whole)


def many_rows(seed: int, n_rows: int, spread: float) -> dict[str, np.ndarray]:
    """Rows of four slices, whose scores hardly repeat, or do where `spread` is small."""
    generator = np.random.default_rng(seed)
    return {
        "score": np.round(generator.normal(size=n_rows) * spread * 1000).astype(np.float32) / np.float32(1000),
        "label": generator.integers(0, 2, n_rows).astype(np.int8),
        "weight": generator.uniform(0.5, 3, n_rows).astype(np.float32),
        "slice": np.sort(generator.integers(0, 4, n_rows)),
    }


def add_columns(column: ScoreHistogramColumn, given: dict[str, np.ndarray], rows: np.ndarray, weighted: bool) -> None:
    """Add rows, ascending, in the types of a log."""
    part = {name: values[rows] for name, values in given.items()}
    starts = np.searchsorted(part["slice"], np.arange(5)).astype(np.int64)
    runs = SliceRuns(None, starts, np.arange(4))
    column.resize(4)
    column.add_rows(part["score"], part["label"], part["weight"] if weighted else None, runs)


def as_rows(given: dict[str, np.ndarray], weighted: bool) -> list[Row]:
    score, label, weight, position = (given[name].tolist() for name in ("score", "label", "weight", "slice"))
    weights = weight if weighted else [1.0] * len(score)
    return [tuple(row) for row in zip(map(float, label), score, weights, position, strict=True)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("spread", [0.02, 1e4])
def test_rows_that_are_held_count_as_those_that_are_not(weighted: bool, spread: float) -> None:
    given = many_rows(3, 8_000, spread)
    # 1 MiB of buckets: half of that has room for the table of pages from 19 bits a bucket on.
    spec = ScoreHistogram(RowSet(0), score_bytes=50_000, bucket_bytes=1 << 20)
    whole = spec.identity()
    for row in range(0, 8_000, 500):
        # Rows that tell a slice each are never held.
        add(whole, as_rows({name: values[row : row + 500] for name, values in given.items()}, weighted), weighted, 2)
    assert read(whole) == naive(as_rows(given, weighted), whole.dropped_bits)
    parts = [spec.identity() for _ in range(3)]
    for number, part in enumerate(parts):
        for piece in range(4):
            add_columns(part, given, np.arange(8_000)[number::3][piece::4], weighted)
    assert all(part._held for part in parts)
    held = sum(part.nbytes for part in parts)
    merged = spec.identity()
    merged.resize(4)
    for part in parts:
        merged.merge(part, np.arange(4))
    assert held == sum(part.nbytes for part in parts)
    assert content(merged) == content(whole)
    again = spec.identity()
    again.resize(2)
    for part in parts:
        again.merge(part, np.array([1, 0, 1, 1]))
    total = spec.identity()
    total.resize(2)
    total.merge(whole, np.array([1, 0, 1, 1]))
    assert content(again) == content(total)
    # What is held is counted when somebody looks.
    assert [part.dropped_bits > 0 for part in parts] == [spread > 1] * 3
    assert not any(part._held for part in parts)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_table_of_pages_finds_what_a_hash_table_finds(weighted: bool) -> None:
    given = many_rows(5, 30_000, 1.0)
    rows = as_rows(given, weighted)
    found = {}
    # Tables take half of the memory for buckets at most: at the level of these scores, one for 4 slices, or none.
    for bucket_bytes in (32 << 20, 8 << 20):
        column = ScoreHistogram(RowSet(0), score_bytes=0, bucket_bytes=bucket_bytes).identity()
        for piece in range(3):
            add_columns(column, given, np.arange(30_000)[piece::3], weighted)
        assert column.dropped_bits == FIRST_DROPPED_BITS
        found[bool(len(column._table))] = read(column)
    assert found[True] == found[False] == naive(rows, FIRST_DROPPED_BITS)


def test_a_table_grows_with_the_slices_until_it_is_too_large() -> None:
    spec = ScoreHistogram(RowSet(0), score_bytes=0, bucket_bytes=32 << 20, slice_buckets=0)
    column, rows = spec.identity(), []
    for position in range(12):
        column.resize(position + 1)
        score = np.linspace(-1, 1, 50) * (position + 1)
        runs = SliceRuns(None, np.array([0, 50]), np.array([position]))
        column.add_rows(score, np.ones(50), None, runs)
        assert column.n_buckets == 50 * (position + 1)
        assert len(column._table) <= (32 << 20) // 4
        rows += [(1.0, x, 1.0, position) for x in score.tolist()]
    assert not len(column._table)
    assert read(column) == naive(rows, FIRST_DROPPED_BITS)


@given(weighted_rows, specs)
def test_merging_slices_into_one_is_their_total(rows: list[Row], spec: ScoreHistogram) -> None:
    total = spec.identity()
    total.resize(4)
    total.merge(add(spec.identity(), rows, True), np.zeros(4, dtype=np.int64))
    assert content(total) == content(add(spec.identity(), [(*row[:3], 0) for row in rows], True))


@given(weighted_rows, specs)
def test_fields_give_the_column_back(rows: list[Row], spec: ScoreHistogram) -> None:
    column = add(spec.identity(), rows, True)
    again = ScoreHistogramColumn.from_fields(column.fields())
    assert content(again) == content(column)
    more: list[Row] = [(1.0, 0.25, 3.0, 2), (0.0, 1e200, 1e-30, 0)]
    assert content(add(again, more, True)) == content(add(column, more, True))


@given(plain_rows, st.sampled_from([48, 52, MOST_DROPPED_BITS]))
def test_only_rows_of_given_buckets_count(rows: list[Row], dropped_bits: int) -> None:
    coarse = {key[1] for key in naive(rows, dropped_bits)}
    kept = {bucket for bucket in coarse if bucket % 3}
    bits = 0
    for bucket in kept:
        bits |= 1 << bucket + (1 << 63 - dropped_bits)
    only = Buckets(dropped_bits, bits.to_bytes(max(8, (1 << 64 - dropped_bits) // 8), "little"))
    column = add(ScoreHistogram(RowSet(0), only=only).identity(), rows, False)
    assert read(column) == {key: value for key, value in naive(rows, 0).items() if key[1] >> dropped_bits in kept}


def test_mixed_buckets_are_those_of_both_classes_in_any_slices() -> None:
    rows = [(1.0, 1.0, 1.0, 0), (0.0, 1.0 + 2.0**-50, 1.0, 0), (1.0, 2.0, 1.0, 0), (0.0, 3.0, 1.0, 1)]
    rows += [(1.0, -2.0, 1.0, 0), (0.0, -2.0, 1.0, 1)]
    column = add(ScoreHistogram(RowSet(0), score_bytes=0, slice_buckets=0).identity(), rows, False)
    found = column.evaluate().mixed_buckets()
    assert found.dropped_bits == FIRST_DROPPED_BITS
    bits = sum(1 << (ordered_bits(x) >> FIRST_DROPPED_BITS) + (1 << 63 - FIRST_DROPPED_BITS) for x in (1.0, -2.0))
    assert int.from_bytes(found.words, "little") == bits


def test_no_rows_are_no_buckets() -> None:
    column = ScoreHistogram(RowSet(0)).identity()
    found = column.evaluate()
    assert (found.starts.tolist(), found.buckets.tolist(), column.n_slices) == ([0], [], 0)
    column.resize(2)
    assert [(pairs.positive, pairs.negative) for pairs in column.evaluate().count_pairs()] == [(0, 0), (0, 0)]


@given(weighted_rows, specs)
def test_bounds_and_masses_of_buckets_are_those_of_the_rows(rows: list[Row], spec: ScoreHistogram) -> None:
    found = add(spec.identity(), rows, True).evaluate()
    lowest, highest = found.score_bounds()
    positive, weight = found.masses_as_float()
    n_rows = 0
    for number in range(len(found.buckets)):
        of_slice = int(np.searchsorted(found.starts, number, side="right")) - 1
        inside = [row for row in rows if row[3] == of_slice and lowest[number] <= row[1] <= highest[number]]
        n_rows += len(inside)
        exact = float(sum(Fraction(w) for _, _, w, _ in inside))
        assert weight[number] == pytest.approx(exact, rel=2.3e-16, abs=2.0**-1074)
        exact = float(sum(Fraction(y) * Fraction(w) for y, _, w, _ in inside))
        assert positive[number] == pytest.approx(exact, rel=2.3e-16, abs=2.0**-1000)
    assert n_rows == len(rows)


# As random numbers are: multiples of one unit, most of whose fractions end in zeros far below it.
multiples = st.tuples(st.integers(1, 1 << 53), st.sampled_from([2.0**-53, 2.0**-24, 2.0**-90])).map(math.prod)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), multiples), min_size=1, max_size=20))
@example([(1.0, 5.0 * 2.0**-53), (0.0, 0.5 + 2.0**-53)])
def test_weights_of_any_last_bit_are_exact_beside_hard_labels(weighed: list[tuple[float, float]]) -> None:
    rows = [(label, 0.5, weight, 0) for label, weight in weighed]
    found = add(ScoreHistogram(RowSet(0)).identity(), rows, True).evaluate()
    n_digits = found.masses.shape[1] // 2
    unit = Fraction(2) ** (64 * found.low_digit + LOWEST_EXPONENT)
    positive, weight = (
        sum(int(digit) << 64 * k for k, digit in enumerate(found.masses[0, first : first + n_digits])) * unit
        for first in (0, n_digits)
    )
    assert weight == sum(Fraction(w) for _, w in weighed)
    assert positive == sum(Fraction(w) for y, w in weighed if y)
