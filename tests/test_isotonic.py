"""Isotonic regression: its definition in fractions, and scikit-learn as an oracle."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from fastloss_kernels.cpu.isotonic import IsotonicBlocks, pool_adjacent

Cell = tuple[Fraction, Fraction]  # positive mass, weight

whole_cells = st.tuples(st.integers(0, 5), st.integers(0, 5)).map(lambda c: (Fraction(c[0]), Fraction(c[0] + c[1])))
# The digits of these fill two float64; means of neighbours differ in the last of them or not at all.
masses = st.integers(0, 1 << 100).map(lambda k: Fraction(k, 1 << 100))
fine_cells = st.tuples(masses, masses).map(lambda c: (min(c), max(c)))
near_cells = st.tuples(st.integers(0, 3), st.integers(1, 3)).map(
    lambda c: (Fraction((1 << 99) + c[0], 1 << 100) * c[1], Fraction(c[1]))
)


def isotonic_means(cells: list[Cell]) -> list[Fraction]:
    """Return max over a ≤ i of min over b ≥ i of the mean of cells a to b (Robertson, Wright and Dykstra, 1.4.4)."""

    def mean(a: int, b: int) -> Fraction:
        return sum((p for p, _ in cells[a : b + 1]), Fraction()) / sum((w for _, w in cells[a : b + 1]), Fraction())

    n = len(cells)
    return [max(min(mean(a, b) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]


def parts(values: list[Fraction]) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers as hi + lo."""
    hi = [float(value) for value in values]
    lo = [float(value - Fraction(h)) for value, h in zip(values, hi, strict=True)]
    return np.array(hi, dtype=np.float64), np.array(lo, dtype=np.float64)


def pool(slices: list[list[Cell]]) -> IsotonicBlocks:
    """Pool the cells of slices."""
    cells = [cell for each in slices for cell in each]
    starts = np.cumsum([0, *map(len, slices)])
    positive, weight = parts([p for p, _ in cells]), parts([w for _, w in cells])
    return pool_adjacent(starts, positive[0], weight[0], positive[1], weight[1])


@given(st.lists(st.lists(st.one_of(whole_cells, fine_cells, near_cells), max_size=9), max_size=3))
@example([[(Fraction(1), Fraction(3)), (Fraction(2), Fraction(6)), (Fraction(0), Fraction(1))]])
def test_blocks_are_the_definition(slices: list[list[Cell]]) -> None:
    """Blocks end where the mean of the definition rises, and hold the sums of their cells."""
    slices = [[cell for cell in cells if cell[1] > 0] for cells in slices]
    blocks = pool(slices)
    offset = 0
    for s, cells in enumerate(slices):
        wanted = isotonic_means(cells)
        ends = [i + 1 for i in range(len(cells)) if i + 1 == len(cells) or wanted[i] != wanted[i + 1]]
        mine = slice(blocks.starts[s], blocks.starts[s + 1])
        assert (blocks.stops[mine] - offset).tolist() == ends
        first = 0
        for b, end in zip(range(*mine.indices(len(blocks.stops))), ends, strict=True):
            for total, hi, lo in (
                (sum((p for p, _ in cells[first:end]), Fraction()), blocks.positive[b], blocks.positive_lo[b]),
                (sum((w for _, w in cells[first:end]), Fraction()), blocks.weight[b], blocks.weight_lo[b]),
            ):
                assert abs(Fraction(hi) + Fraction(lo) - total) <= total * Fraction(len(cells), 1 << 103)
            first = end
        offset += len(cells)


@given(st.lists(st.one_of(whole_cells, st.just((Fraction(), Fraction()))), min_size=1, max_size=9))
def test_cells_without_weight_change_nothing(cells: list[Cell]) -> None:
    """The sums of blocks are those that are found without empty cells."""
    full = [cell for cell in cells if cell[1] > 0]
    with_empty, without = pool([cells]), pool([full])
    if full:
        assert with_empty.positive.tolist() == without.positive.tolist()
        assert with_empty.weight.tolist() == without.weight.tolist()
    else:
        assert with_empty.weight.tolist() == [0.0]


@pytest.mark.parametrize("n", [1, 40, 3000])
def test_agrees_with_scikit_learn(n: int) -> None:
    """Means of random cells with weights are those of IsotonicRegression to 1e-12."""
    generator = np.random.default_rng(n)
    weight = generator.exponential(size=n)
    mean = np.clip(np.linspace(0, 1, n) + generator.normal(0, 0.3, n), 0, 1)
    blocks = pool_adjacent(np.array([0, n]), weight * mean, weight)
    found = np.repeat(blocks.positive / blocks.weight, np.diff(np.append(0, blocks.stops)))
    wanted = IsotonicRegression().fit(np.arange(n), mean, sample_weight=weight).predict(np.arange(n))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
