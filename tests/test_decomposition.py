"""Miscalibration, discrimination and uncertainty: the definition in fractions, scikit-learn, and certain bounds."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss

import fastloss as fl
from fastloss.metrics.base import ModelFacts, SliceStates
from fastloss.metrics.conventions import RequestConventions
from fastloss.metrics.decomposition import Discrimination
from fastloss.metrics.quantities import Rows
from fastloss.states.base import RowSet, SliceRuns
from fastloss.states.counts import Count
from fastloss.states.histogram import ScoreHistogram

Row = tuple[float, float, float, int]  # logit, label, weight, slice
LOSSES = ("log_loss", "brier_score")
PARTS = ("miscalibration", "discrimination", "uncertainty")


def least(loss: str, rate: Fraction) -> float:
    """The mean loss of rows that are predicted their mean label."""
    if loss == "brier_score":
        return float(rate * (1 - rate))
    return -math.fsum(float(share) * math.log(share) for share in (rate, 1 - rate) if share)


def isotonic_loss(loss: str, rows: list[Row]) -> float:
    """The mean loss after isotonic regression, by its max-min formula; rows are split by their labels."""
    scores = sorted({row[0] for row in rows})
    cells = []
    for score in scores:
        own = [(Fraction(y) * Fraction(w), Fraction(w)) for x, y, w, _ in rows if x == score]
        cells.append((sum((p for p, _ in own), Fraction()), sum((w for _, w in own), Fraction())))

    def mean(a: int, b: int) -> Fraction:
        return sum((p for p, _ in cells[a : b + 1]), Fraction()) / sum((w for _, w in cells[a : b + 1]), Fraction())

    n = len(cells)
    means = [max(min(mean(a, b) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]
    total = sum((w for _, w in cells), Fraction())
    parts = []
    for (positive, weight), rate in zip(cells, means, strict=True):
        if loss == "brier_score":
            parts.append(float((positive * (1 - rate) ** 2 + (weight - positive) * rate**2) / total))
        else:
            outcomes = ((positive, rate), (weight - positive, 1 - rate))
            parts += [-float(mass / total) * math.log(share) for mass, share in outcomes if mass]
    return math.fsum(parts)


def table(rows: list[Row]) -> pa.Table:
    """Rows as a log of logits."""
    return pa.table({name: [row[k] for row in rows] for k, name in enumerate(("x", "y", "w", "k"))})


def ask(rows: pa.Table, loss: str, **more: Any) -> fl.Result:
    """The loss and its parts."""
    asked = [loss, *(f"{part}(loss={loss})" for part in PARTS)]
    return fl.evaluate(rows, label="y", logit="x", weight="w", metrics=asked, **more)


labels = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.01, 0.99))
logs = st.lists(
    st.tuples(st.integers(-4, 4).map(float), labels, st.floats(0.01, 100), st.integers(0, 1)), min_size=1, max_size=12
)


@settings(max_examples=15, deadline=None)
@given(logs, st.sampled_from(LOSSES))
def test_every_slice_has_the_parts_of_the_definition(rows: list[Row], loss: str) -> None:
    """Each part to 1e-12; together they are the mean loss; bounds are the value."""
    result = ask(table(rows), loss, by="k")
    for at in range(0, len(result.values), 4):
        mean, *found = result.values[at : at + 4]
        own = [row for row in rows if not mean.slice or row[3] == mean.slice["k"]]
        weight = sum((Fraction(w) for _, _, w, _ in own), Fraction())
        rate = sum((Fraction(y) * Fraction(w) for _, y, w, _ in own), Fraction()) / weight
        spread = sum((Fraction(y) * (1 - Fraction(y)) * Fraction(w) for _, y, w, _ in own), Fraction()) / weight
        recalibrated = isotonic_loss(loss, own)
        lacks = float(spread) if loss == "brier_score" else 0.0
        assert mean.value is not None
        wanted = (
            mean.value + lacks - recalibrated,
            least(loss, rate) - recalibrated,
            least(loss, rate) - lacks,
        )
        assert [value.value for value in found] == pytest.approx(wanted, abs=1e-12)
        first, second, third = (value.value for value in found)
        assert first - second + third == pytest.approx(mean.value, abs=1e-14)
        for value in found[:2]:
            assert value.evidence == {"low": value.value, "high": value.value}


@pytest.mark.parametrize("loss", LOSSES)
def test_agrees_with_scikit_learn_and_bounds_hold_it(loss: str) -> None:
    """Buckets leave the order of some rows open; a second pass gives the exact value, to 1e-12."""
    generator = np.random.default_rng(5)
    n = 140_000
    x = generator.normal(-1, 2, n)
    y = (generator.random(n) < 1 / (1 + np.exp(-0.6 * x))).astype(np.float64)
    w = generator.choice([0.3, 1.0, 2.0], n)
    best = IsotonicRegression(y_min=0, y_max=1).fit_transform(x, y, sample_weight=w)
    score = log_loss if loss == "log_loss" else brier_score_loss
    mean, recalibrated, base = (
        score(y, p, sample_weight=w) for p in (1 / (1 + np.exp(-x)), best, np.full(n, np.average(y, weights=w)))
    )
    log = pa.table({"x": x, "y": y, "w": w})
    asked = [f"{part}(loss={loss}{more})" for part in PARTS[:2] for more in ("", ", exact=true")]
    found = fl.evaluate(log, label="y", logit="x", weight="w", metrics=asked).values
    for (bounded, exact), wanted in zip(
        (found[:2], found[2:]), (mean - recalibrated, base - recalibrated), strict=True
    ):
        assert exact.value == pytest.approx(wanted, abs=1e-12)
        low, high = bounded.evidence["low"], bounded.evidence["high"]
        assert low <= wanted <= high
        assert low <= bounded.value <= high
        assert 0 < high - low < 5e-5
        assert exact.evidence == {"low": exact.value, "high": exact.value}


close = st.one_of(
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, math.inf, -math.inf, 1e308]),
    st.integers(0, 40).map(lambda k: 1.0 + k * 2.0**-52),
    st.floats(-4, 4, width=32),
    st.floats(allow_nan=False),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(close, labels, st.floats(0.1, 10), st.just(0)), min_size=1, max_size=12))
def test_bounds_hold_the_exact_value_for_any_scores(rows: list[Row]) -> None:
    """Where buckets hold several scores, whatever those are, the bounds are certain."""
    model = ModelFacts(0, "x", "logit", "x", False, False, RequestConventions(None, "clip", ()))
    of = RowSet(0)
    spec = ScoreHistogram(of)
    # No score has room to be a bucket of its own.
    column = ScoreHistogram(of, score_bytes=0, slice_buckets=0).identity()
    column.resize(1)
    score, label, weight = (np.array([row[k] for row in rows]) for k in range(3))
    column.add_rows(score, label, weight, SliceRuns(None, np.array([0, len(rows)]), np.array([0])))
    found = column.evaluate()
    assert found.dropped_bits > 0
    for loss in LOSSES:
        metric = Discrimination(loss=loss)
        states = SliceStates(model, {spec: found, Count(of, Rows()): np.array([len(rows)])}, 1)
        values = metric.evaluate(states)
        rate = sum((Fraction(y) * Fraction(w) for _, y, w, _ in rows), Fraction()) / sum(
            Fraction(w) for _, _, w, _ in rows
        )
        exact = least(loss, rate) - isotonic_loss(loss, rows)
        assert values.evidence["low"][0] <= exact + 1e-15
        assert exact - 1e-15 <= values.evidence["high"][0]
        assert values.evidence["low"][0] <= values.value[0] <= values.evidence["high"][0]


def found_of(rows: list[Row], loss: str, **more: Any) -> list[tuple[float | None, str | None]]:
    """The value and the reason of each part."""
    return [(value.value, value.reason) for value in ask(table(rows), loss, **more).values]


@pytest.mark.parametrize("loss", LOSSES)
def test_edges(loss: str) -> None:
    """No rows have no parts; one class has no uncertainty; equal scores discriminate nothing."""
    assert found_of([(0.5, 1.0, 0.0, 0)], loss) == [(None, "no_rows")] * 4
    mean, *parts = found_of([(0.5, 1.0, 2.0, 0), (1.5, 1.0, 1.0, 0)], loss)
    assert parts == [mean, (0.0, None), (0.0, None)]
    assert found_of([(0.5, float(y), 1.0, 0) for y in (0, 1, 1)], loss)[2] == (0.0, None)
    assert found_of([(0.0, 0.5, 1.0, 0)], loss)[1] == (0.0, None)


def test_an_infinite_loss_has_an_infinite_miscalibration() -> None:
    """The other two parts do not depend on what was predicted."""
    rows = [(-math.inf, 1.0, 1.0, 0), (1.0, 0.0, 1.0, 0)]
    mean, miscalibration, *others = found_of(rows, "log_loss", saturation="exact")
    assert mean == miscalibration == (math.inf, "infinite_terms")
    # The positive has the lower score, so the best map knows the base rate alone.
    assert others == [(0.0, None), (pytest.approx(math.log(2)), None)]


def test_other_losses_are_refused() -> None:
    """The error names what is allowed."""
    with pytest.raises(fl.UsageError, match=r"^loss is 'hinge'; allowed: 'log_loss' or 'brier_score'\.$"):
        fl.evaluate(table([(0.5, 1.0, 1.0, 0)]), label="y", logit="x", metrics="miscalibration(loss=hinge)")
