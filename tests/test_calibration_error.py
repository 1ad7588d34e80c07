"""Errors of calibration: the definition in fractions, scikit-learn's curve, and bounds from buckets."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

import fastloss as fl
from fastloss.metrics import calibration_error
from fastloss.metrics.base import ModelFacts, SliceStates
from fastloss.metrics.binning import edges_of
from fastloss.metrics.calibration_error import CalibrationBins, ExpectedCalibrationError
from fastloss.metrics.conventions import RequestConventions
from fastloss.states.base import SliceRuns
from fastloss.states.bins import BinnedSums
from fastloss.states.histogram import FIRST_DROPPED_BITS, ScoreHistogram, ordered_bits_of

Row = tuple[float, float, float, int]  # probability, label, weight, slice

shares = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 0.05, 0.1, 0.15000000000000002, 1e-30]), st.floats(0, 1))
logs = st.lists(
    st.tuples(shares, st.one_of(st.sampled_from([0.0, 1.0]), shares), st.floats(0, 100), st.integers(0, 2)),
    min_size=1,
    max_size=15,
)


def table(rows: list[Row], **more: Any) -> pa.Table:
    """Rows as a log of probabilities."""
    columns = {name: [row[k] for row in rows] for k, name in enumerate(("p", "y", "w", "k"))}
    return pa.table(columns | more)


def bin_of(p: float, n_bins: int) -> int:
    """The bin ``[i/B, (i + 1)/B)`` whose edges are the nearest float64; the last one closed."""
    return max(i for i in range(n_bins) if p >= i / n_bins)


def gaps(rows: list[Row], n_bins: int) -> list[tuple[Fraction, Fraction]]:
    """|Σw·p − Σw·y| and Σw of each bin that has rows; products are rounded."""
    found = []
    for b in range(n_bins):
        own = [(p, y, w) for p, y, w, _ in rows if w > 0 and bin_of(p, n_bins) == b]
        predicted, label, weight = (
            sum(map(Fraction, terms), Fraction())
            for terms in ([w * p for p, _, w in own], [w * y for _, y, w in own], [w for _, _, w in own])
        )
        if weight:
            found.append((abs(predicted - label), weight))
    return found


@settings(max_examples=25, deadline=None)
@given(logs, st.sampled_from([1, 3, 20]))
def test_every_slice_has_the_error_of_the_definition(rows: list[Row], n_bins: int) -> None:
    """Both errors are the exact numbers, rounded once; without weight there is none."""
    names = [f"{name}(n_bins={n_bins})" for name in ("ece", "mce")]
    result = fl.evaluate(table(rows), label="y", prob="p", weight="w", by="k", metrics=names)
    for value in result.values:
        own = [row for row in rows if not value.slice or row[3] == value.slice["k"]]
        found = gaps(own, n_bins)
        if not found:
            assert (value.value, value.reason) == (None, "no_rows")
        elif value.reason == "weights_too_small":
            least = (
                min(weight for _, weight in found) if value.metric.startswith("maximum") else value.weight / value.n
            )
            assert 0 < least < 2.0**-960
        elif value.metric.startswith("expected"):
            assert value.value == float(sum(gap for gap, _ in found) / sum(weight for _, weight in found))
        else:
            assert value.value == float(max(gap / weight for gap, weight in found))


def random_log(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Logits, probabilities, labels and weights of a model that is too sure of itself."""
    generator = np.random.default_rng(seed)
    x = generator.normal(-1, 2, n)
    y = (generator.random(n) < 1 / (1 + np.exp(-0.7 * x))).astype(np.float64)
    return {"x": x, "p": 1 / (1 + np.exp(-x)), "y": y, "w": generator.choice([0.5, 1.0, 3.0], n)}


@pytest.mark.parametrize(("strategy", "binning"), [("uniform", "width"), ("quantile", "mass")])
def test_agrees_with_scikit_learn(strategy: str, binning: str) -> None:
    """The means of scikit-learn's bins give the same error, to 1e-12."""
    log = random_log(4000)
    mean_label, mean_prediction = calibration_curve(log["y"], log["p"], n_bins=20, strategy=strategy)
    sizes = np.histogram(log["p"], np.linspace(0, 1, 21))[0] if strategy == "uniform" else np.full(20, 200)
    distance = np.abs(mean_label - mean_prediction)
    wanted = (float(np.average(distance, weights=sizes)), float(distance.max()))
    asked = [f"ece(binning={binning})", f"mce(binning={binning})", f"ece(binning={binning}, norm=l2)"]
    for space in ({"logit": "x"}, {"prob": "p"}):
        result = fl.evaluate(pa.table(log), label="y", **space, metrics=asked)
        *first, squared = (value.value for value in result.values)
        assert first == pytest.approx(wanted, abs=1e-12)
        assert squared == pytest.approx(math.sqrt(np.average(distance**2, weights=sizes)), abs=1e-12)


@pytest.mark.parametrize("space", ["logit", "prob", "logprob"])
def test_bins_of_equal_width_in_the_logit(space: str) -> None:
    """Twenty bins from −10 to 10, of which the outer two hold what lies beyond."""
    log = random_log(3000, seed=1)
    x = np.concatenate([log["x"], [-50.0, 40.0, 12.0, -10.5]])
    y, w = np.append(log["y"], [1.0, 0.0, 1.0, 0.0]), np.append(log["w"], [1.0, 2.0, 3.0, 4.0])
    p = np.array([1 / (1 + math.exp(-each)) if each > -700 else 0.0 for each in x.tolist()])
    bins = np.clip(np.floor(x + 10), 0, 19).astype(int)
    weight, label, predicted = (np.bincount(bins, terms, 20) for terms in (w, w * y, w * p))
    given_log = pa.table({"logit": x, "prob": p, "logprob": -np.log1p(np.exp(-x)), "y": y, "w": w})
    result = fl.evaluate(given_log, label="y", weight="w", **{space: space}, metrics=["ece(binning=logit)"])
    assert result.values[0].value == pytest.approx(np.abs(label - predicted).sum() / weight.sum(), abs=1e-12)


@pytest.mark.parametrize("space", ["logit", "prob"])
def test_bounds_of_equal_mass_hold_the_error_of_the_same_bins(space: str) -> None:
    """Buckets are told apart by 27 bits; the error of the rows in the bins that they make lies inside the bounds."""
    log = random_log(140_000, seed=2)
    scores = log["x" if space == "logit" else "p"]
    asked = ["ece(binning=mass, n_bins=7)", "mce(binning=mass, n_bins=7)"]
    found = fl.evaluate(
        pa.table(log), label="y", weight="w", **{space: "x" if space == "logit" else "p"}, metrics=asked
    )
    _, bucket = np.unique(ordered_bits_of(scores) >> FIRST_DROPPED_BITS, return_inverse=True)
    mass = np.bincount(bucket, log["w"])
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    bins = np.minimum(np.floor(7 * middle), 6).astype(int)[bucket]
    weight, label, predicted = (np.bincount(bins, log["w"] * t) for t in (np.ones(len(bins)), log["y"], log["p"]))
    distance = np.abs(label - predicted) / weight
    wanted = (float(np.average(distance, weights=weight)), float(distance.max()))
    for value, exact in zip(found.values, wanted, strict=True):
        low, high = value.evidence["low"], value.evidence["high"]
        assert low <= exact <= high
        assert low <= value.value <= high
        assert 0 < high - low < 1e-4


def test_slices_in_parts_have_the_errors_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bins of equal mass are made for some slices at a time."""
    log = random_log(600, seed=3)
    given_log = pa.table({**log, "k": np.arange(600) % 40})
    asked = ["ece(binning=mass, n_bins=3)", "mce(binning=mass, n_bins=3)"]
    whole = fl.evaluate(given_log, label="y", logit="x", weight="w", by="k", metrics=asked)
    monkeypatch.setattr(calibration_error, "_BINS_AT_ONCE", 100)
    parts = fl.evaluate(given_log, label="y", logit="x", weight="w", by="k", metrics=asked)
    assert len(parts.values) == 82
    assert parts.values == whole.values


def test_no_rows_have_no_error_and_one_class_has_one() -> None:
    """Null with its reason, and the value that is defined."""
    asked = ["ece", "mce", "ece(binning=mass)", "ece(binning=logit)"]
    none = fl.evaluate(table([(0.5, 1.0, 0.0, 0)]), label="y", prob="p", weight="w", by="k", metrics=asked)
    assert [(value.value, value.reason) for value in none.values] == [(None, "no_rows")] * 4
    assert none.values[2].evidence == {}
    one = fl.evaluate(table([(0.75, 1.0, 2.0, 0)]), label="y", prob="p", weight="w", metrics=asked)
    assert [value.value for value in one.values] == [0.25] * 4


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("ece(n_bins=0)", "n_bins is 0; allowed: a whole number from 1 to 10,000."),
        ("mce(binning=quantile)", "binning is 'quantile'; allowed: 'width' or 'mass' or 'logit'."),
        ("ece(norm=max)", "norm is 'max'; allowed: 'l1' or 'l2'."),
        ("mce(norm=l2)", "mce has no parameter 'norm'; its parameters: n_bins, binning."),
    ],
)
def test_parameters_of_another_kind_are_refused(metric: str, said: str) -> None:
    """The error names what is allowed."""
    with pytest.raises(fl.UsageError) as refused:
        fl.evaluate(table([(0.5, 1.0, 1.0, 0)]), label="y", prob="p", metrics=metric)
    assert str(refused.value) == said


def bins_of(metric: ExpectedCalibrationError, rows: list[Row], *, weighted: bool) -> CalibrationBins:
    """The table of a metric over one slice."""
    model = ModelFacts(0, "p", "prob", "p", weighted, False, RequestConventions(None, "clip", ()))
    prediction, label, weight = (np.array([row[k] for row in rows]) for k in range(3))
    given_weight = weight if weighted else None
    runs = SliceRuns(None, np.array([0, len(rows)]), np.array([0]))
    spec = metric.states(model)[0]
    column = spec.identity()
    column.resize(1)
    if isinstance(spec, ScoreHistogram):
        column.add_rows(prediction, label, given_weight, runs)
    else:
        assert isinstance(spec, BinnedSums)
        edges = edges_of(spec.binning, spec.n_bins, "prob")
        column.add_rows(prediction, label, given_weight, prediction, edges, runs)
    return metric.bins(SliceStates(model, {spec: column.evaluate()}, 1))


def test_the_table_of_bins() -> None:
    """Edges, rows, weight, means, and Wilson's interval by its textbook formula."""
    rows = [(0.1, 0.0, 1.0, 0), (0.2, 1.0, 2.0, 0), (0.3, 0.0, 1.0, 0), (0.9, 1.0, 1.0, 0)]

    def wilson(rate: float, n: float) -> tuple[float, float]:
        z = 1.959963984540054
        center, half = rate + z * z / 2 / n, z * math.sqrt(rate * (1 - rate) / n + z * z / 4 / n / n)
        return (center - half) / (1 + z * z / n), (center + half) / (1 + z * z / n)

    found = bins_of(ExpectedCalibrationError(n_bins=2), rows, weighted=True)
    assert (found.lower.tolist(), found.upper.tolist()) == ([[0.0, 0.5]], [[0.5, 1.0]])
    assert (found.n.tolist(), found.weight.tolist()) == ([[3.0, 1.0]], [[4.0, 1.0]])
    np.testing.assert_allclose(found.mean_prediction, [[0.2, 0.9]], rtol=1e-15)
    assert found.mean_label.tolist() == [[0.5, 1.0]]
    # Kish's effective number of weights 1, 2, 1 is 16 / 6.
    np.testing.assert_allclose(np.stack([found.low, found.high])[:, 0].T, [wilson(0.5, 16 / 6), wilson(1.0, 1.0)])
    plain = bins_of(ExpectedCalibrationError(n_bins=2), rows, weighted=False)
    np.testing.assert_allclose([plain.low[0, 0], plain.high[0, 0]], wilson(1 / 3, 3.0))
    empty = bins_of(ExpectedCalibrationError(n_bins=3), rows, weighted=False)
    assert (empty.n[0, 1], empty.weight[0, 1]) == (0.0, 0.0)
    assert np.isnan([empty.mean_prediction[0, 1], empty.mean_label[0, 1], empty.low[0, 1], empty.high[0, 1]]).all()


def test_the_table_of_bins_of_equal_mass() -> None:
    """A bin begins and ends at its lowest and highest prediction; the rows of weighted bins are not known."""
    rows = [(0.1, 0.0, 1.0, 0), (0.2, 1.0, 1.0, 0), (0.3, 0.0, 1.0, 0), (0.9, 1.0, 1.0, 0)]
    found = bins_of(ExpectedCalibrationError(n_bins=2, binning="mass"), rows, weighted=False)
    assert (found.lower.tolist(), found.upper.tolist()) == ([[0.1, 0.3]], [[0.2, 0.9]])
    assert (found.n.tolist(), found.mean_label.tolist()) == ([[2.0, 2.0]], [[0.5, 0.5]])
    heavy = [(0.1, 0.0, 9.0, 0), *rows[1:]]
    weighted = bins_of(ExpectedCalibrationError(n_bins=2, binning="mass"), heavy, weighted=True)
    assert (weighted.lower.tolist(), weighted.weight.tolist()) == ([[0.1, 0.2]], [[9.0, 3.0]])
    assert np.isnan([weighted.n, weighted.low, weighted.high]).all()


@pytest.mark.parametrize("weight", [3e307, 1e-289, 1e-300, 5e-324])
def test_weights_of_any_size_give_the_value_or_a_reason(weight: float) -> None:
    """Products that underflow or sums that overflow leave no number."""
    p, y = [0.1, 0.3, 0.5, 0.6, 0.8, 0.9, 0.7], [0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    binned = ["ece", "mce", "ece(norm=l2)", "ece(n_bins=3,binning=mass)", "mce(n_bins=3,binning=mass)"]
    sums = ["log_loss", "brier_score", "calibration", "ctr", "miscalibration", "discrimination", "uncertainty"]
    log = pa.table({"p": p, "y": y, "k": list("abababa"), "one": [1.0] * 7, "w": [weight] * 7})
    asked = {"label": "y", "prob": "p", "by": "k", "metrics": [*binned, *sums, "field_calibration_error(by=k)"]}
    wanted = fl.evaluate(log, **asked, weight="one")
    found = fl.evaluate(log, **asked, weight="w")
    for value, right in zip(found.values, wanted.values, strict=True):
        # Slices have half the weight, which does not overflow everywhere.
        large = weight > 1.0 and "mass" in value.metric and value.weight == math.inf
        if right.value is None:
            assert value.reason == right.reason
        elif large or weight < 2.0**-960:
            assert (value.value, value.reason) == (None, "weights_too_large" if large else "weights_too_small")
        else:
            assert value.value == pytest.approx(right.value, rel=1e-12)
    # The order of scores asks for no products.
    area = [fl.evaluate(log, label="y", prob="p", weight=w, metrics="roc_auc")["roc_auc"] for w in ("w", "one")]
    assert area[0] == area[1]


def test_a_bin_of_tiny_weights_beside_others() -> None:
    """The largest distance has no value; means over all weights have, and the table of bins has no mean there."""
    log = pa.table({"p": [0.3, 0.9], "y": [1.0, 1.0], "w": [5e-324, 1.0]})
    result = fl.evaluate(log, label="y", prob="p", weight="w", metrics=["mce", "ece"])
    assert [(v.value, v.reason) for v in result.values] == [(None, "weights_too_small"), (pytest.approx(0.1), None)]
    assert result.curve("reliability").to_polars()["mean_prediction"].to_list() == [None, 0.9]
    small = pa.table({"p": [0.9, 0.9], "y": [1.0, 0.0], "w": [1e-200, 1e-200]})
    bins = fl.evaluate(small, label="y", prob="p", weight="w", metrics="ece").curve("reliability").to_polars()
    assert (bins["mean_label"].to_list(), bins["wilson_low"].to_list()) == ([0.5], [None])
