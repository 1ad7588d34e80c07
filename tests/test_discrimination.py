"""Metrics read off curves of thresholds: definitions in exact fractions, certain bounds, exact by a second pass."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import fastloss as fl
from fastloss.metrics import ranked, thresholds
from fastloss.metrics.average_precision import AveragePrecision
from fastloss.metrics.confusion import FalsePositiveRate, Precision, Recall
from fastloss.metrics.ks import KolmogorovSmirnov
from fastloss.metrics.lift import Lift
from fastloss.metrics.names import parse_metric
from fastloss.metrics.partial_roc_auc import PartialRocAuc
from fastloss.metrics.ranked import WIDEST, CurveMetric
from fastloss.metrics.roc_auc import Gini
from fastloss.metrics.thresholds import probabilities_below
from fastloss.states import histogram
from fastloss.states.cumulated import cumulate, parts_of
from fastloss_kernels.inverse_links import LINKS
from tests.conftest import Run
from tests.oracles import ranking as oracle
from tests.test_roc_auc import Row, evaluated, limits, plain, table, weighted

# The relative error of an exact value: a few operations from exact integers.
ERROR = 2.0**-49


def best_precision(rows: list[Row], recall: float) -> float | None:
    return max((p for _, p, r, _ in oracle.rates(rows) if r >= recall), default=None)


def best_recall(rows: list[Row], *, precision: float = 0.0, fpr: float = 1.0) -> float | None:
    found = oracle.rates(rows)
    if not found or math.isnan(found[-1][2]) or (fpr < 1.0 and math.isnan(found[-1][3])):
        return None
    kept = [r for _, p, r, f in found if p >= precision and (fpr == 1.0 or f <= fpr)]
    return max(kept, default=0.0 if fpr < 1.0 else None)


def least_fpr(rows: list[Row], recall: float) -> float | None:
    found = oracle.rates(rows)
    if not found or math.isnan(found[-1][3]):
        return None
    return min((f for _, _, r, f in found if r >= recall), default=None)


Oracle = Callable[[list[Row]], Any]
METRICS: dict[str, tuple[CurveMetric, Oracle]] = {
    "average_precision": (AveragePrecision(), oracle.average_precision),
    "ks": (KolmogorovSmirnov(), oracle.kolmogorov_smirnov),
    "partial_roc_auc": (PartialRocAuc(), lambda rows: oracle.partial_roc_auc(rows, 0.1)),
    "most of roc_auc": (PartialRocAuc(max_fpr=0.7), lambda rows: oracle.partial_roc_auc(rows, 0.7)),
    "lift": (Lift(), lambda rows: oracle.lift(rows, 0.1)),
    "lift of more": (Lift(top=0.6), lambda rows: oracle.lift(rows, 0.6)),
    "precision": (Precision(recall=0.6), lambda rows: best_precision(rows, 0.6)),
    "recall by precision": (Recall(precision=0.6), lambda rows: best_recall(rows, precision=0.6)),
    "recall by fpr": (Recall(false_positive_rate=0.3), lambda rows: best_recall(rows, fpr=0.3)),
    "false_positive_rate": (FalsePositiveRate(recall=0.6), lambda rows: least_fpr(rows, 0.6)),
}
BY_THRESHOLD = [name for name in METRICS if "precision" in name.split() or "recall" in name or "false" in name]


@pytest.mark.parametrize("name", METRICS)
@given(st.booleans(), st.data(), limits)
@settings(max_examples=35)
def test_the_exact_value_lies_within_the_bounds(
    name: str, is_weighted: bool, data: st.DataObject, room: tuple[int, int]
) -> None:
    metric, definition = METRICS[name]
    rows = data.draw(weighted if is_weighted else plain)
    wanted = definition(rows)
    found = evaluated(metric, rows, is_weighted, *room)
    low, high, value = found.evidence["low"][0], found.evidence["high"][0], found.value[0]
    if wanted is None:
        assert found.undefined[0]
        reasons = ("no_rows", "one_class", "no_positive", "no_negative", "precision_not_reached", "scores_too_close")
        assert found.reasons[found.reason[0]] in reasons
        return
    reason = found.reasons[found.reason[0]]
    if found.undefined[0] and found.absent["low"][0]:
        # Whether any threshold keeps the precision is open.
        assert (name, reason) == ("recall by precision", "scores_too_close")
        return
    assert found.undefined[0] == (reason == "scores_too_close")
    assert not found.undefined[0] or high - low > WIDEST
    if low == high:
        assert value == low == pytest.approx(float(wanted), rel=ERROR, abs=ERROR)
    else:
        assert Fraction(low) <= Fraction(wanted) <= Fraction(high)
        assert 0 <= low <= value <= high


@pytest.mark.parametrize("name", METRICS)
@given(st.booleans(), st.data(), limits)
@settings(max_examples=15)
def test_a_second_pass_is_exact(name: str, is_weighted: bool, data: st.DataObject, room: tuple[int, int]) -> None:
    metric, definition = METRICS[name]
    rows = data.draw(weighted if is_weighted else plain)
    wanted = definition(rows)
    found = evaluated(type(metric)(**{**vars(metric), "exact": True}), rows, is_weighted, *room)
    assert found.undefined[0] == (wanted is None)
    if wanted is not None:
        assert found.evidence["low"][0] == found.value[0] == found.evidence["high"][0]
        exact = name in BY_THRESHOLD
        assert found.value[0] == (wanted if exact else pytest.approx(float(wanted), rel=ERROR, abs=ERROR))


@pytest.mark.parametrize("name", BY_THRESHOLD)
@given(weighted, limits)
@settings(max_examples=20)
def test_the_threshold_gives_the_value(name: str, rows: list[Row], room: tuple[int, int]) -> None:
    metric, _ = METRICS[name]
    # As a score, since not every logit has a probability of its own.
    with patch.object(thresholds, "LINKS", {}):
        found = evaluated(metric, rows, True, *room)
    if found.undefined[0] or found.absent["threshold"][0]:
        return
    at = [point for point in oracle.rates(rows) if point[0] >= found.evidence["threshold"][0]][-1]
    place = {"precision": 1, "recall by precision": 2, "recall by fpr": 2, "false_positive_rate": 3}[name]
    assert at[place] == found.value[0]


def cells(n_digits: int) -> st.SearchStrategy[list[list[tuple[int, int]]]]:
    """Masses of buckets of slices, many of them halfway between two float64."""
    bits = {1: 50, 2: 120, 3: 150}[n_digits]
    near = st.builds(
        lambda top, shift, odd: ((top << 1 | 1) << shift) + odd, st.integers(1 << 52, 1 << 53),
        st.integers(0, max(0, bits - 55)), st.integers(-1, 1),
    )  # fmt: skip
    number = st.integers(0, 1 << bits) if n_digits == 1 else st.one_of(st.integers(0, 1 << bits), near, st.just(0))
    return st.lists(st.lists(st.tuples(number, number), max_size=5), max_size=4)


@pytest.mark.parametrize("n_digits", [1, 2, 3])
@given(st.data())
@settings(max_examples=40)
def test_masses_are_cumulated_exactly_and_rounded_once(n_digits: int, data: st.DataObject) -> None:
    slices = data.draw(cells(n_digits))
    starts = np.cumsum([0, *map(len, slices)])
    pairs = [pair for of_slice in slices for pair in of_slice]
    digits = [[x >> (64 * k) & (1 << 64) - 1 for x in (p, p + n) for k in range(n_digits)] for p, n in pairs]
    masses = np.array(digits, dtype=np.uint64).reshape(-1, 2 * n_digits)
    points = cumulate(starts, np.zeros(len(pairs)), masses, 0.0)
    for s, of_slice in enumerate(slices):
        whole = [sum(p for p, _ in of_slice), sum(n for _, n in of_slice)]
        # The unit is a power of two.
        total = sum(whole)
        unit = points.whole.weight[s] / (total / 1) if total else 1.0
        assert math.frexp(unit)[0] == 0.5 or not total
        assert points.whole.positive[s] == float(whole[0]) * unit
        assert points.whole.negative[s] == float(whole[1]) * unit
        for k in range(len(of_slice)):
            above = [sum(x[i] for x in of_slice[k + 1 :]) for i in range(2)]
            at = starts[s] + k
            assert points.above.positive[at] == float(above[0]) * unit
            assert points.reached.negative[at] == float(above[1] + of_slice[k][1]) * unit
            assert points.reached.weight[at] == float(sum(above) + sum(of_slice[k])) * unit
            assert points.inside.negative[at] == float(of_slice[k][1]) * unit


def test_slices_are_cumulated_in_parts() -> None:
    assert list(parts_of(np.array([0]), 3)) == []
    assert list(parts_of(np.array([0, 2, 2, 3, 9, 9, 10]), 3)) == [(0, 3), (3, 4), (4, 6)]
    assert list(parts_of(np.array([0, 0, 0]), 3)) == [(0, 2)]


@pytest.fixture(scope="module")
def columns() -> dict[str, np.ndarray]:
    """Rows with ties, weights and soft labels; more scores than a histogram keeps apart in `x`, few in `t`."""
    generator = np.random.default_rng(5)
    n = 100_000
    x = (generator.normal(size=n) * 1.5 - 2).astype(np.float32)
    y = (generator.random(n) < 1 / (1 + np.exp(-x))).astype(np.float64)
    return {
        "x": x,
        "t": np.round(x, 1),
        "y": y,
        "soft": np.where(generator.random(n) < 0.3, generator.integers(0, 5, n) / 4, y),
        "w": generator.uniform(0.5, 3, n),
        "c": generator.integers(0, 3, n),
    }


def by_scikit_learn(y: Any, x: Any, w: Any) -> dict[str, float]:
    """What scikit-learn computes; a soft label is two rows."""
    weight = np.ones(len(y)) if w is None else w
    label = np.repeat([1, 0], len(y))
    score, weight = np.tile(x, 2), np.concatenate([weight * y, weight * (1 - y)])
    label, score, weight = label[weight > 0], score[weight > 0], weight[weight > 0]
    weights = {"sample_weight": weight}
    precision, recall, _ = sk.precision_recall_curve(label, score, **weights)
    false, true, _ = sk.roc_curve(label, score, drop_intermediate=False, **weights)
    area = sk.roc_auc_score(label, score, **weights)
    return {
        "average_precision": sk.average_precision_score(label, score, **weights),
        "gini": 2 * area - 1,
        "partial_roc_auc": sk.roc_auc_score(label, score, max_fpr=0.1, **weights),
        "partial_roc_auc(max_fpr=0.02)": sk.roc_auc_score(label, score, max_fpr=0.02, **weights),
        "partial_roc_auc(max_fpr=1.0)": area,
        "ks": np.max(np.abs(true - false)),
        "precision": sk.precision_score(label, score >= 0, **weights),
        "recall(threshold=0.25)": sk.recall_score(label, score >= math.log(1 / 3), **weights),
        "f1(threshold=0.25)": sk.f1_score(label, score >= math.log(1 / 3), **weights),
        "false_positive_rate(threshold=0.125)": false_rate(label, score >= -math.log(7), weight),
        "precision(recall=0.8)": precision[recall >= 0.8].max(),
        "recall(precision=0.7)": recall[precision >= 0.7].max(),
        "recall(false_positive_rate=0.05)": true[false <= 0.05].max(),
        "false_positive_rate(recall=0.9)": false[true >= 0.9].min(),
    }


def false_rate(label: Any, predicted: Any, weight: Any) -> float:
    [[tn, fp], _] = sk.confusion_matrix(label, predicted, sample_weight=weight)
    return float(fp / (fp + tn))


@pytest.mark.parametrize(("label", "weight"), [("y", None), ("soft", "w")])
def test_it_agrees_with_scikit_learn(columns: dict[str, np.ndarray], label: str, weight: str | None) -> None:
    log = pa.table(columns)
    ties = by_scikit_learn(columns[label], columns["t"], None if weight is None else columns[weight])
    found = fl.evaluate(log, label=label, logit="t", weight=weight, metrics=list(ties), by=[])
    assert {value.metric: value.value for value in found.values} == pytest.approx(ties, rel=1e-12)
    if weight is None:
        return
    wanted = by_scikit_learn(columns[label], columns["x"], columns[weight])
    bounded = fl.evaluate(log, label=label, logit="x", weight=weight, metrics=list(wanted))
    for value in bounded.values:
        if "threshold=" in value.metric or value.metric == "precision":
            assert value.value == pytest.approx(wanted[value.metric], rel=1e-12)
            continue
        low, high = value.evidence["low"], value.evidence["high"]
        assert low - 1e-12 <= wanted[value.metric] <= high + 1e-12
        assert high - low < 1e-4


def test_a_second_pass_agrees_with_scikit_learn(columns: dict[str, np.ndarray]) -> None:
    wanted = by_scikit_learn(columns["soft"], columns["x"], columns["w"])
    exact = ["average_precision", "precision(recall=0.8)"]
    names = {name: f"{name[:-1]}, exact=True)" if "(" in name else f"{name}(exact=True)" for name in exact}
    found = fl.evaluate(pa.table(columns), label="soft", logit="x", weight="w", metrics=list(names.values()))
    for name, written in names.items():
        assert found[written] == pytest.approx(wanted[name], rel=1e-12)


def test_lift_is_the_rate_at_the_top(columns: dict[str, np.ndarray]) -> None:
    order = np.argsort(-columns["t"], kind="stable")
    y, t = columns["y"][order], columns["t"][order]
    end = len(y) // 10
    tied = t == t[end - 1]
    above = int(np.argmax(tied))
    share = y[:above].sum() + y[tied].mean() * (end - above)
    found = fl.evaluate(pa.table(columns), label="y", score="t", metrics=["lift@0.1", "lift(top=1)"])
    assert found["lift@0.1"] == pytest.approx(share / end / y.mean(), rel=1e-12)
    assert found["lift@1.0"] == 1.0


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int8, np.int64])
def test_every_type_of_scores(kind: Any) -> None:
    generator = np.random.default_rng(2)
    score = generator.integers(-9, 9, 60).astype(kind)
    if kind in (np.float16, np.float32, np.float64):
        score = score / kind(7)
        score[:4] = [np.inf, -np.inf, -0.0, np.finfo(kind).smallest_subnormal]
    label = generator.integers(0, 2, 60)
    rows = [(float(y), float(s), 1.0) for y, s in zip(label, score, strict=True)]
    found = fl.evaluate(pa.table({"y": label, "s": score}), label="y", score="s", metrics=list(SIMPLE))
    for value in found.values:
        wanted = SIMPLE[value.metric](rows)
        assert value.value == pytest.approx(float(wanted), rel=1e-15)
        assert value.value == value.evidence["low"] == value.evidence["high"]


SIMPLE: dict[str, Oracle] = {
    "average_precision": oracle.average_precision,
    "ks": oracle.kolmogorov_smirnov,
    "partial_roc_auc(max_fpr=0.25)": lambda rows: oracle.partial_roc_auc(rows, 0.25),
    "lift@0.2": lambda rows: oracle.lift(rows, 0.2),
}


@given(st.one_of(plain, weighted), st.sampled_from([0.0, 0.25, 1.0, -math.inf, math.inf, 5e-324]))
@settings(max_examples=20)
def test_thresholds_give_quotients_rounded_once(rows: list[Row], threshold: float) -> None:
    def total(chosen: list[Row]) -> tuple[Fraction, Fraction]:
        return (
            sum((Fraction(w) * Fraction(y) for y, _, w in chosen), Fraction(0)),
            sum((Fraction(w) for _, _, w in chosen), Fraction(0)),
        )

    true, predicted = total([row for row in rows if row[1] >= threshold])
    positive, weight = total(rows)
    quotients = {
        "precision": (true, predicted, "no_predicted_positive"),
        "recall": (true, positive, "no_positive"),
        "f1": (2 * true, predicted + positive, "no_positive"),
        "false_positive_rate": (predicted - true, weight - positive, "no_negative"),
    }
    given_ = json.dumps(threshold) if math.isfinite(threshold) else f"{'-' * (threshold < 0)}1e999"
    names = [f"{name}(threshold={given_})" for name in quotients]
    found = fl.evaluate(table(rows), label="y", value="x", weight="w", metrics=names).values
    for value, (above, below, reason) in zip(found, quotients.values(), strict=True):
        assert (
            value.value
            == (
                above / below
                if below == 0
                else above.numerator * below.denominator / (above.denominator * below.numerator)
            )
            if below
            else value.value is None
        )
        assert value.reason == (None if below else reason if rows else "no_rows")


def test_a_threshold_is_a_probability_beside_probabilities() -> None:
    p = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
    log = pa.table({"y": [0, 1, 0, 1, 1], "p": p, "x": np.log(p / (1 - p)), "l": np.log(p)})
    metrics = [
        "precision",
        "recall(threshold=0.75)",
        "recall(threshold=0.7)",
        "recall(threshold=0)",
        "f1(threshold=1)",
    ]
    for space, column in (("prob", "p"), ("logprob", "l"), ("logit", "x")):
        found = fl.evaluate(log, label="y", metrics=metrics, **{space: column})
        assert found["precision"] == 2 / 3
        assert found["recall(threshold=0.7)"] == 2 / 3
        assert found["recall(threshold=0.0)"] == 1.0
        assert found["f1(threshold=1.0)"] == 0.0
    assert fl.evaluate(log, label="y", prob="p", metrics="recall(threshold=0.75)").values[0].value == 2 / 3
    single = pa.table({"y": [1, 1], "p": np.array([0.7, 0.3], dtype=np.float32)})
    # 0.7 is 0.69999999 there, and 0.3 is 0.30000001.
    assert fl.evaluate(single, label="y", prob="p", metrics="recall(threshold=0.7)").values[0].value == 0.0
    assert fl.evaluate(single, label="y", prob="p", metrics="recall(threshold=0.3)").values[0].value == 1.0


def test_metrics_of_one_threshold_share_its_sums() -> None:
    log = pa.table({"y": [0, 1], "p": [0.5, 0.25], "w": [1.0, 2.0]})

    def n_sums(metrics: list[str]) -> int:
        return len(fl.make_plan(log, label="y", prob="p", weight="w", metrics=metrics).evaluation.specs)

    four = [f"{name}(threshold=0.25)" for name in ("precision", "recall", "f1", "false_positive_rate")]
    assert n_sums(four) == n_sums(four[2:3])
    assert n_sums([*four, "f1"]) == n_sums(four) + 2


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        ([], {"no_rows"}),
        ([(1.0, 2.0, 1.0)], {None, "one_class", "no_negative"}),
        ([(0.0, 2.0, 1.0)], {None, "one_class", "no_positive"}),
        ([(1.0, 0.5, 1.0)], {None, "one_class", "no_predicted_positive", "no_negative"}),
        ([(0.0, 2.0, 0.0), (1.0, 1.0, 0.0)], {"no_rows"}),
        ([(0.0, 2.0, 1.0), (1.0, 2.0, 3.0)], {None}),
    ],
)
def test_what_is_not_defined_is_null_with_a_reason(rows: list[Row], reasons: set[str | None]) -> None:
    metrics = [
        "average_precision", "gini", "ks", "partial_roc_auc", "lift@0.1", "precision(threshold=1)",
        "recall(threshold=1)", "f1(threshold=1)", "false_positive_rate(threshold=1)", "precision(recall=0.5)",
        "recall(precision=0.5)", "recall(false_positive_rate=0.5)", "false_positive_rate(recall=0.5)",
    ]  # fmt: skip
    found = fl.evaluate(table(rows), label="y", score="x", weight="w", metrics=metrics).values
    assert {value.reason for value in found} == reasons
    assert all((value.value is None) == (value.reason is not None) for value in found)
    if len(rows) == 2 and reasons == {None}:
        values = {value.metric.partition("(")[0]: value.value for value in found}
        assert values["average_precision"] == values["precision"] == 0.75
        assert (values["gini"], values["ks"], values["partial_roc_auc"]) == (0.0, 0.0, 0.5)
        assert values["lift@0.1"] == pytest.approx(1.0, rel=ERROR)


def test_a_precision_that_no_threshold_has_is_null() -> None:
    log = table([(0.0, 3.0, 1.0), (1.0, 2.0, 1.0)])
    found = fl.evaluate(log, label="y", score="x", metrics=["recall(precision=0.75)", "recall(precision=0.5)"]).values
    assert (found[0].value, found[0].reason) == (None, "precision_not_reached")
    assert (found[1].value, found[1].evidence["threshold"]) == (1.0, 2.0)
    # Above all scores nothing is predicted, and no negative is.
    [value] = fl.evaluate(log, label="y", score="x", metrics=["recall(false_positive_rate=0.5)"]).values
    assert value.value == 0.0
    assert "threshold" not in value.evidence


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("lift@0", "top is 0; allowed: a number above 0 and at most 1."),
        (
            "lift@x",
            "Cannot read the metric 'lift@x': behind @ stands a number, such as lift@0.05 or mrr@10.",
        ),
        (
            "lift@5%",
            "Cannot read the metric 'lift@5%': behind @ stands a number, such as lift@0.05 or mrr@10.",
        ),
        ("recall(fpr=0.1,false_positive_rate=0.2)", "recall is given false_positive_rate twice, as fpr too."),
        ("lift@0.1(top=0.2)", "lift is given top twice, behind @ and in parentheses."),
        (
            "log_loss@1",
            "log_loss has no parameter that is written behind @; its parameters are in parentheses: label_domain, "
            "label_smoothing, pos_weight.",
        ),
        (
            "ks@1",
            "ks has no parameter that is written behind @; its parameters are in parentheses: exact, most_scores.",
        ),
        ("partial_roc_auc(max_fpr=1.5)", "max_fpr is 1.5; allowed: a number above 0 and at most 1."),
        ("precision(threshold=0.5, recall=0.5)", "precision takes one of threshold, recall."),
        ("recall(precision=true)", "precision is True; allowed: a number above 0 and at most 1."),
        ("precision(threshold='a')", "threshold is 'a'; allowed: a number."),
        ("f1(recall=0.5)", "f1 has no parameter 'recall'; its parameters: threshold."),
        ("precision(exact=true)", "exact is for precision(recall=…): precision at a threshold is exact as it is."),
        ("precision(threshold=2)", "threshold is 2.0; beside logit= it is a probability: allowed are 0 to 1."),
    ],
)
def test_parameters_are_checked(metric: str, words: str) -> None:
    with pytest.raises(fl.UsageError) as error:
        fl.evaluate(table([(1.0, 1.0, 1.0)]), label="y", logit="x", metrics=[metric])
    assert str(error.value) == words


def test_a_score_needs_a_threshold() -> None:
    with pytest.raises(fl.UsageError, match=r"f1 needs a threshold beside score=, in the unit of column 'x': f1\(thr"):
        fl.evaluate(table([(1.0, 1.0, 1.0)]), label="y", score="x", metrics=["f1"])


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("lift", "lift@0.1"),
        ("lift@0.25", "lift@0.25"),
        (" lift@.25 ( exact = true ) ", "lift@0.25(exact=True)"),
        ("lift(top=1, most_scores=5)", "lift@1.0"),
        ("fpr", "false_positive_rate"),
        ("precision(recall=1)", "precision(recall=1.0)"),
        ("recall(precision=0.9, exact=true)", "recall(precision=0.9, exact=True)"),
        ("average_precision_score", "average_precision"),
        ("partial_roc_auc(max_fpr=0.2)", "partial_roc_auc(max_fpr=0.2)"),
    ],
)
def test_names_say_what_was_asked(written: str, name: str) -> None:
    metric = parse_metric(written)
    assert metric.name == name
    assert parse_metric(metric.name).name == name


def test_gini_is_null_where_the_area_is() -> None:
    close = [(float(k % 2), 1e9 + k * 2.0**-20, 1.0) for k in range(400)]
    found = evaluated(Gini(), close, False, 0, 8 << 20)
    assert found.reasons[found.reason[0]] == "scores_too_close"
    exact = evaluated(Gini(exact=True), close, False, 0, 8 << 20)
    assert exact.value[0] == float(2 * (oracle.roc_auc(close) or 0) - 1)


def test_few_rows_of_a_slice_leave_nothing_open() -> None:
    generator = np.random.default_rng(8)
    n = 140_000
    x, y, rare = generator.normal(size=n), generator.integers(0, 2, n), np.arange(n) % 7_000 == 0
    log = pa.table({"x": x, "y": y, "rare": rare.astype(np.int8)})
    result = fl.evaluate(log, label="y", logit="x", metrics=["average_precision"], by=["rare"])
    by_slice = {value.slice.get("rare"): value for value in result.values}
    assert by_slice[0].evidence["low"] < by_slice[0].value < by_slice[0].evidence["high"]
    # A row in a bucket of its own is known to be one.
    few = by_slice[1]
    assert few.value == few.evidence["low"] == few.evidence["high"]
    assert few.value == pytest.approx(sk.average_precision_score(y[rare], x[rare]), rel=1e-12)


ALL = [
    "average_precision", "gini", "ks(exact=true)", "partial_roc_auc", "lift@0.1", "precision", "f1", "fpr",
    "recall(threshold=0.25)", "precision(recall=0.8)", "recall(precision=0.7)", "fpr(recall=0.9)",
]  # fmt: skip


def test_threads_batches_and_files_change_nothing(columns: dict[str, np.ndarray], tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(len(columns["x"]))
    for k in range(3):
        part = {name: column[order[k::3]] for name, column in columns.items()}
        pq.write_table(pa.table(part), tmp_path / f"{k}.parquet", row_group_size=17_000)

    def everything(log: object, **options: Any) -> str:
        result = fl.evaluate(log, label="soft", logit="x", weight="w", metrics=ALL, by=["c"], **options)
        return json.dumps([value.to_dict() for value in result.values])

    wanted = everything(pa.table(columns), threads=1)
    assert everything(tmp_path, threads=2, batch_rows=7_001) == wanted


def test_states_merge_to_the_whole(columns: dict[str, np.ndarray], tmp_path: Path) -> None:
    metrics = [name for name in ALL if "exact" not in name]
    asked: dict[str, Any] = {"label": "soft", "logit": "x", "weight": "w", "metrics": metrics, "by": ["c"]}
    whole = pa.table(columns)
    cut = len(whole) // 3
    for k, part in enumerate((whole.slice(0, cut), whole.slice(cut))):
        fl.evaluate(part, **asked, state=tmp_path / f"{k}.state")
    merged = fl.merge([tmp_path / "1.state", tmp_path / "0.state"])
    assert merged.values == fl.evaluate(whole, **asked).values


def test_many_slices_are_read_like_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    n, n_users = 6_000, 400
    user = generator.integers(0, n_users, n)
    columns = {"user": user, "x": generator.integers(0, 9, n), "y": generator.integers(0, 2, n)}
    columns["w"] = generator.uniform(0.5, 2, n)
    asked: dict[str, Any] = {"label": "y", "score": "x", "weight": "w", "by": "user"}
    asked["metrics"] = ["average_precision", "partial_roc_auc(max_fpr=0.5)", "ks", "precision(recall=0.5)", "lift@0.3"]
    found = fl.evaluate(pa.table(columns), **asked).values
    for one in (0, 7, 399):
        rows = user == one
        alone = fl.evaluate(pa.table({name: column[rows] for name, column in columns.items()}), **asked).values
        of_slice = [value for value in found if value.slice == {"user": one}]
        assert of_slice == [value for value in alone if value.slice]
        assert of_slice[0].value == pytest.approx(
            sk.average_precision_score(columns["y"][rows], columns["x"][rows], sample_weight=columns["w"][rows]),
            rel=1e-12,
        )
    # More than a part holds are read part by part.
    monkeypatch.setattr(histogram, "parts_of", lambda starts, most=0: parts_of(starts, 100))
    monkeypatch.setattr(ranked, "PART_BUCKETS", 100)
    assert fl.evaluate(pa.table(columns), **asked).values == found


def test_the_table_says_how_far_a_value_may_be_off() -> None:
    generator = np.random.default_rng(9)
    log = pa.table({"x": generator.normal(size=140_000), "y": generator.integers(0, 2, 140_000)})
    metrics = [f"false_positive_rate(recall=0.{k})" for k in range(2, 9)]
    result = fl.evaluate(log, label="y", score="x", metrics=metrics)
    # Such a value is its upper bound.
    off = {v.metric: v.value - v.evidence["low"] for v in result.values if v.value - v.evidence["low"] > 1e-5}
    assert off
    for metric, far in off.items():
        [line] = [line for line in str(result).splitlines() if line.startswith(metric)]
        assert float(line.partition("±")[2]) == pytest.approx(far, rel=0.5)


def test_gates_and_the_command_line_read_such_names(tmp_path: Path, run: Run) -> None:
    pq.write_table(table([(1.0, 2.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 1.0)]), tmp_path / "log.parquet")
    words = ["eval", tmp_path / "log.parquet", "--label", "y", "--score", "x", "-m", "lift@0.5,precision(recall=0.5)"]
    status, out, _ = run(*words, "--format", "json", "--fail-if", "lift@0.5 < 1.1")
    assert status == 0
    assert [value["metric"] for value in json.loads(out)["values"]] == ["lift@0.5", "precision(recall=0.5)"]
    status, _, err = run(*words, "--fail-if", "lift@0.5 > 1.1")
    assert status == 1
    assert "lift@0.5 of x is " in err


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
@given(st.booleans(), st.data(), limits)
@settings(max_examples=1500)
def test_no_scores_are_found_beyond_the_bounds(
    name: str, is_weighted: bool, data: st.DataObject, room: tuple[int, int]
) -> None:
    metric, definition = METRICS[name]
    rows = data.draw(weighted if is_weighted else plain)
    wanted, found = definition(rows), evaluated(metric, rows, is_weighted, *room)
    if wanted is not None and not (found.undefined[0] and found.absent["low"][0]):
        low, high = found.evidence["low"][0], found.evidence["high"][0]
        slack = Fraction(0 if low < high else ERROR) * max(1, Fraction(wanted))
        assert Fraction(low) - slack <= Fraction(wanted) <= Fraction(high) + slack


@pytest.mark.parametrize("space", ["logit", "logprob"])
def test_a_threshold_that_is_given_can_be_given_back(columns: dict[str, np.ndarray], space: str) -> None:
    score = columns["x"] if space == "logit" else -np.abs(columns["x"])
    log = pa.table({"y": columns["y"], "x": score, "c": columns["c"]})
    rates = {"precision(recall=0.5)": "recall", "recall(false_positive_rate=0.01)": "false_positive_rate"}
    found = fl.evaluate(log, label="y", **{space: "x"}, metrics=[*rates, "ks", "lift@0.1"], by="c").values
    for value in found:
        threshold = value.evidence["threshold"]
        assert 0.0 < threshold < 1.0
        if value.metric not in rates or value.slice:
            continue
        name, other = value.metric.partition("(")[0], rates[value.metric]
        again = fl.evaluate(
            log, label="y", **{space: "x"}, metrics=[f"{each}(threshold={threshold!r})" for each in (name, other)]
        )
        at = {each.metric.partition("(")[0]: each.value for each in again.values}
        # The bounds say how much better a threshold inside a bucket may be; at its end the value is this one.
        assert at[name] == value.value
        limit = float(value.metric.partition("=")[2].rstrip(")"))
        assert at[other] >= limit if other == "recall" else at[other] <= limit


@given(
    st.lists(
        st.one_of(st.floats(-800, 40), st.sampled_from([0.0, -0.0, math.inf, -math.inf, 1e-300, -1e-300, -744.4])),
        min_size=1,
    )
)
@pytest.mark.parametrize("space", ["logit", "logprob"])
def test_probabilities_below_are_the_highest_that_are_no_higher(space: str, scores: list[float]) -> None:
    scores = [-abs(score) for score in scores] if space == "logprob" else scores
    link = LINKS[space]
    for score, found in zip(scores, probabilities_below(np.array(scores), space).tolist(), strict=True):
        assert 0.0 <= found <= 1.0
        assert link(found, 0.0) <= score
        assert link(found, 0.0) == score or found == 1.0 or link(math.nextafter(found, 1.0), 0.0) > score


def test_short_names_mean_the_same() -> None:
    for short, long in (
        ("auc", "roc_auc"),
        ("auroc(exact=True)", "roc_auc(exact=true)"),
        ("aucroc", "roc_auc"),
        ("ap", "average_precision"),
        ("tpr(fpr=0.01)", "recall(false_positive_rate=0.01)"),
        ("fpr(tpr=0.9)", "false_positive_rate(recall=0.9)"),
        ("precision(true_positive_rate=0.5, exact=true)", "precision(recall=0.5, exact=True)"),
    ):
        assert parse_metric(short) == parse_metric(long)
