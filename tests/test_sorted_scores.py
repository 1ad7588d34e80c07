"""All scores of a log, by class: pairs counted exactly for every type of score, partition and order."""

from __future__ import annotations

import math
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastloss as fl
from fastloss.states import sorted_scores
from fastloss.states.base import RowSet, SliceRuns
from fastloss.states.histogram import PairCounts, ScoreRows
from fastloss.states.sorted_scores import SortedScores, SortedScoresColumn

ZERO = np.zeros(1, dtype=np.int64)
single = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, 1e-45, -1e-45, 3e38]),
    st.floats(allow_nan=False, width=32),
    st.integers(0, 40).map(lambda k: 1.0 + k * 2.0**-20),
)
double = st.one_of(
    single,
    st.sampled_from([5e-324, -5e-324, 1.7e308]),
    st.floats(allow_nan=False),
    st.integers(0, 40).map(lambda k: 1e9 + k * 2.0**-20),
)


def batch(rows: list[tuple[int, float]], kind: type) -> ScoreRows:
    label = np.array([row[0] for row in rows], dtype=np.int8)
    return ScoreRows(np.array([row[1] for row in rows], dtype=kind), label, None)


def column_of(batches: list[ScoreRows], most_rows: int = 1_000_000) -> SortedScoresColumn:
    column = SortedScores(RowSet(0), most_rows).identity()
    column.resize(1)
    for rows in batches:
        column.add(rows, SliceRuns(None, np.array([0, len(rows.score)]), ZERO))
    return column


def by_definition(rows: list[tuple[int, float]]) -> PairCounts:
    positive, negative = ([score for label, score in rows if label == wanted] for wanted in (1, 0))
    apart = sum(p > n for p in positive for n in negative)
    together = sum(p == n for p in positive for n in negative)
    return PairCounts(apart, together, len(positive), len(negative))


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 1), double), max_size=12), max_size=8),
    st.lists(st.booleans(), min_size=8, max_size=8),
    st.sampled_from([1, 3, 1 << 18]),
    st.randoms(use_true_random=False),
)
def test_pairs_are_those_of_the_definition(
    parts: list[list[tuple[int, float]]], narrow: list[bool], range_rows: int, generator: random.Random
) -> None:
    with np.errstate(over="ignore"):
        kinds = [np.float32 if is_narrow else np.float64 for is_narrow in narrow]
        batches = [batch(rows, kind) for rows, kind in zip(parts, kinds, strict=False)]
    rows = [
        (label, score)
        for given in batches
        for label, score in zip(given.label.tolist(), given.score.tolist(), strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_scores, "_RANGE_ROWS", range_rows)
        assert column_of(batches).evaluate() == by_definition(rows)
        generator.shuffle(batches)
        cut = generator.randrange(len(batches) + 1)
        merged = column_of([])
        for piece in (batches[cut:], batches[:cut]):
            merged.merge(column_of(piece), ZERO)
        assert merged.evaluate() == by_definition(rows)
        again = SortedScoresColumn.from_fields(merged.fields())
        assert again.evaluate() == by_definition(rows)
        assert {name: values.tolist() for name, values in again.fields().items()} == {
            name: values.tolist() for name, values in merged.fields().items()
        }


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 0.0])
def test_many_scores_are_counted_in_ranges(kind: type, spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_scores, "_RANGE_ROWS", 1 << 12)
    monkeypatch.setattr(sorted_scores, "_LONG_RUN", 1 << 10)
    generator = np.random.default_rng(9)
    score = (generator.normal(size=60_000) * spread - 1.5).round(4).astype(kind)
    label = (generator.random(60_000) < 0.4).astype(np.int8)
    parts = [ScoreRows(score[k::23], label[k::23], None) for k in range(23)]
    found = SortedScoresColumn(60_000, threads=2)
    found.resize(1)
    found.merge(column_of(parts[:11]), ZERO)
    # What is counted by now is counted anew.
    assert found.evaluate() == column_of(parts[:11]).evaluate()
    found.merge(column_of(parts[11:]), ZERO)
    _, place, times = np.unique(score, return_inverse=True, return_counts=True)
    positive = np.bincount(place[label == 1], minlength=len(times))
    negative = times - positive
    apart = int((positive * (np.cumsum(negative) - negative)).sum())
    together = int((positive * negative).sum())
    assert found.evaluate() == PairCounts(apart, together, int(positive.sum()), int(negative.sum()))
    assert found.nbytes == 60_000 * np.dtype(kind).itemsize


def test_it_gives_up_where_there_is_more_than_it_is_for() -> None:
    rows = [(k % 2, float(k)) for k in range(10)]
    assert column_of([batch(rows, np.float64)], most_rows=10).evaluate() is not None
    weighted = ScoreRows(np.ones(2), np.ones(2), np.ones(2))
    soft = ScoreRows(np.ones(2), np.array([0.5, 1.0]), None)
    sliced = column_of([batch(rows, np.float64)])
    sliced.resize(2)
    halves = column_of([batch(rows[:5], np.float64)], most_rows=9)
    halves.merge(column_of([batch(rows[5:], np.float64)], most_rows=9), ZERO)
    for column in (column_of([batch(rows, np.float64)], 9), column_of([weighted]), column_of([soft]), sliced, halves):
        assert column.evaluate() is None
        assert column.nbytes == 0
        whole = column_of([batch(rows, np.float32)])
        whole.merge(column, ZERO)
        assert whole.evaluate() is None
        assert SortedScoresColumn.from_fields(whole.fields()).evaluate() is None


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int16"])
def test_exact_areas_of_every_type_are_those_of_counts(kind: str) -> None:
    generator = np.random.default_rng(4)
    n = 300_000
    score = generator.normal(size=n) * 3
    score = (score * 1e3 if kind == "int16" else score).astype(kind)
    label = (generator.random(n) < 0.3).astype(np.int8)
    batches = [pa.record_batch({"x": score[k : k + 40_000], "y": label[k : k + 40_000]}) for k in range(0, n, 40_000)]
    stream = pa.RecordBatchReader.from_batches(batches[0].schema, batches)
    # A stream gives its rows once: one pass is enough.
    found = fl.evaluate(stream, label="y", value="x", metrics=["roc_auc(exact=true)", "gini(exact=true)"])
    area, gini = found.values
    _, place, times = np.unique(score, return_inverse=True, return_counts=True)
    positive = np.bincount(place[label == 1], minlength=len(times))
    negative = times - positive
    below = np.cumsum(negative) - negative
    twice, pairs = int((positive * (2 * below + negative)).sum()), int(positive.sum()) * int(negative.sum())
    assert area.value == area.evidence["low"] == area.evidence["high"] == twice / (2 * pairs)
    assert gini.value == (twice - pairs) / pairs
