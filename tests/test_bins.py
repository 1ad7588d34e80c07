"""Sums by bins: exact, and the same for every way in which rows are added, and for every order of merging."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastloss.states.base import RowSet, SliceRuns
from fastloss.states.bins import BinnedSums, BinnedSumsColumn, Edges
from fastloss_kernels.cpu.bins import make_find_bins

Row = tuple[float, float, float, int, int]  # prediction, label, weight, bin, slice

N_SLICES, N_BINS = 3, 4

# Keys are the numbers of bins.
WHOLE = Edges(np.array([-math.inf, 1.0, 2.0, 3.0, math.inf]), 1.0, 0.0, of_scores=False)

shares = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 5e-324, 1e-20, 2.0**-52]), st.floats(0, 1))
usual = st.one_of(st.sampled_from([1.0, 0.25, 3.0]), st.floats(2.0**-60, 2.0**24), st.integers(1, 2**24).map(float))
weights = st.one_of(usual, st.floats(1e-130, 1e-110), st.floats(5e-324, 1e308), st.just(1e300))


def rows_of(
    weight: st.SearchStrategy[float], label: st.SearchStrategy[float] = shares
) -> st.SearchStrategy[list[Row]]:
    """Rows of some slices and bins."""
    row = st.tuples(shares, label, weight, st.integers(0, N_BINS - 1), st.integers(0, N_SLICES - 1))
    return st.lists(row, max_size=20)


def add(column: BinnedSumsColumn, rows: list[Row], weighted: bool, way: int) -> None:
    """Add rows in one of the three ways in which rows tell their slices."""
    column.resize(N_SLICES)
    slices = np.array([row[4] for row in rows], dtype=np.int64)
    order = np.argsort(slices, kind="stable")
    starts = np.searchsorted(slices[order], np.arange(N_SLICES + 1)).astype(np.int64)
    if way == 0:
        runs = SliceRuns(order, starts, np.arange(N_SLICES))
    elif way == 1:
        rows = [rows[i] for i in order.tolist()]
        runs = SliceRuns(None, starts, np.arange(N_SLICES))
    else:
        runs = SliceRuns(None, None, slices)
    prediction, label, weight = (np.array([row[k] for row in rows], dtype=np.float64) for k in range(3))
    bins = np.array([row[3] for row in rows], dtype=np.float64)
    # Squares overflow to infinities, as they do in the engine.
    with np.errstate(all="ignore"):
        column.add_rows(prediction, label, weight if weighted else None, bins, WHOLE, runs)


def expected(rows: list[Row], weighted: bool) -> list[list[tuple[int, Fraction | float, ...]]]:
    """The count and Σw·y, Σw·p, Σw, Σw² of every bin of every slice; each product is rounded, or infinite."""
    found = []
    for s in range(N_SLICES):
        for b in range(N_BINS):
            own = [(p, y, w if weighted else 1.0) for p, y, w, at, of in rows if (of, at) == (s, b)]
            terms = [(y * w, p * w, w, w * w) for p, y, w in own]
            sums = [
                math.inf if any(map(math.isinf, column)) else sum(map(Fraction, column), Fraction())
                for column in zip(*terms, strict=True)
            ]
            found.append((len(own), *(sums or [Fraction()] * 4)))
    return found


def read(column: BinnedSumsColumn) -> list[tuple[int, Fraction | float, ...]]:
    """All that a column says; squared weights of rows without weights are counts."""
    column.normalize()
    sums = column.evaluate()
    of = (sums.label, sums.prediction, sums.weight, sums.squared_weight)
    return [
        (int(sums.n[i]), *(Fraction(s[i].units, 1 << 1088) if s[i].is_finite else float(s[i]) for s in of))
        for i in range(N_SLICES * N_BINS)
    ]


def new(weighted: bool) -> BinnedSumsColumn:
    """A column without rows."""
    column = BinnedSums(RowSet(0), "width", N_BINS, weighted).identity()
    column.resize(N_SLICES)
    return column


@pytest.mark.parametrize("weighted", [True, False])
@given(
    first=st.one_of(rows_of(st.integers(1, 8).map(float), st.integers(0, 1).map(float)), rows_of(usual)),
    second=rows_of(weights),
    ways=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
@example(first=[(2.0**-80, 0.0, 2.0**24, 0, 0), (1.0, 1.0, 2.0**-50, 0, 0)], second=[], ways=(1, 1))
@example(first=[(0.1, 1.0, 1.0, 1, 0)], second=[(0.3, 1.0, 1e200, 1, 0)], ways=(1, 0))
def test_every_way_gives_the_sums_of_the_definition(
    weighted: bool, first: list[Row], second: list[Row], ways: tuple[int, int]
) -> None:
    """Rows added at once, in parts, merged either way and stored give the same sums."""
    wanted = expected(first + second, weighted)
    one, other, whole = new(weighted), new(weighted), new(weighted)
    add(one, first, weighted, ways[0])
    add(other, second, weighted, ways[1])
    add(whole, first + second, weighted, ways[0])
    assert read(whole) == wanted
    forward, backward = new(weighted), new(weighted)
    positions = np.arange(N_SLICES)
    for merged, parts in ((forward, (one, other)), (backward, (other, one))):
        for part in parts:
            merged.merge(part, positions)
    assert read(forward) == read(backward) == wanted
    assert read(one) == expected(first, weighted)
    again = BinnedSumsColumn.from_fields({name: np.array(field) for name, field in forward.fields().items()})
    assert again.n_slices == N_SLICES
    assert read(again) == wanted


def test_many_rows_fill_several_blocks() -> None:
    """Sums of a block are taken away before they overflow."""
    n = 10_000
    generator = np.random.default_rng(1)
    prediction = generator.random(n)
    runs = SliceRuns(None, np.array([0, n]), np.array([1]))
    column = new(weighted=False)
    column.add_rows(prediction, np.ones(n), None, np.full(n, 2.0), WHOLE, runs)
    assert read(column)[N_BINS + 2] == (n, n, sum(map(Fraction, prediction.tolist())), n, n)


@pytest.mark.parametrize("by_row", [True, False])
def test_many_slices(by_row: bool) -> None:
    """Rows of thousands of slices go to their bins one by one and run by run."""
    n_slices = 3000
    generator = np.random.default_rng(2)
    prediction = generator.random(n_slices * 20)
    bins = generator.integers(0, N_BINS, len(prediction))
    column = BinnedSums(RowSet(0), "width", N_BINS, False).identity()
    column.resize(n_slices)
    of = np.repeat(np.arange(n_slices), 20)
    in_runs = SliceRuns(None, np.arange(n_slices + 1) * 20, np.arange(n_slices))
    runs = SliceRuns(None, None, of) if by_row else in_runs
    column.add_rows(prediction, prediction, None, bins.astype(np.float64), WHOLE, runs)
    sums = column.evaluate()
    at = of * N_BINS + bins
    assert sums.n.tolist() == np.bincount(at, minlength=n_slices * N_BINS).tolist()
    np.testing.assert_allclose(sums.prediction.to_float(), np.bincount(at, prediction), rtol=1e-14)


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=30), st.sampled_from([1, 2, 3, 10, 49]), st.booleans())
def test_a_key_lies_between_the_edges_of_its_bin(logits: list[float], n_bins: int, of_probabilities: bool) -> None:
    """A bin begins at its edge, and the next one where it ends."""
    inner = np.array([-10.0 + 20.0 * i / n_bins for i in range(1, n_bins)])
    ends = [math.inf, -math.inf]
    if of_probabilities:
        logits, inner, ends = [1 / (1 + math.exp(-x)) for x in logits], 1 / (1 + np.exp(-inner)), [0.0, 1.0]
    edges = np.array([-math.inf, *inner, math.inf])
    keys = np.array([*logits, *inner, *np.nextafter(inner, -math.inf), *ends])
    for array in (edges, keys):
        array.flags.writeable = False
    bins = np.empty(len(keys), dtype=np.int32)
    make_find_bins()(keys, edges, n_bins / 20.0, n_bins / 2.0, of_probabilities, bins)
    assert bins.tolist() == [sum(key >= edge for edge in inner) for key in keys.tolist()]
