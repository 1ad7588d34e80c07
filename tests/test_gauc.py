"""The mean of the AUCs of lists, against its definition and scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import fastloss as fl
from fastloss.metrics.gauc import WEIGHTINGS
from fastloss_kernels.cpu.list_auc import CONSTANT, NO_NEGATIVE, NO_POSITIVE, VALID, make_list_auc
from tests.oracles import ranking as oracle

LABEL, SCORE = "y", "s"
# Groups of one, two and three rows, one of a single class.
EXAMPLE: dict[str, Any] = {
    "y": [[1, 0, 0, 0], [1, 1], [1, 1, 0]],
    "s": [[0.8, 0.8, 0.3, 0.1], [0.7, 0.6], [0.9, 0.5, 0.2]],
}
COUNTS = ("n_groups", "n_valid", "n_no_pos", "n_no_neg", "n_constant")


def named(**parameters: Any) -> str:
    return f"gauc({', '.join(f'{name}={value!r}' for name, value in parameters.items())})"


def evaluated(table: Any, *metrics: str, **request: Any) -> list[Any]:
    found = fl.evaluate(pa.table(table), label="y", prob="s", metrics=list(metrics), **request)
    return list(found.values)


def close(value: float | None, exact: Fraction | None, ulps: float = 4.0) -> bool:
    """Terms are rounded once, and so is their quotient."""
    if value is None or exact is None:
        return value is None and exact is None
    return abs(Fraction(value) - exact) <= Fraction(ulps) * Fraction(math.ulp(float(exact)))


@pytest.mark.parametrize(
    ("weighting", "exact"),
    [
        ("uniform", Fraction(11, 12)),
        ("impressions", Fraction(19, 21)),
        ("positives", Fraction(17, 18)),
        ("pairs", Fraction(9, 10)),
        ("sample_weight", Fraction(19, 21)),
    ],
)
def test_weightings_of_the_example(weighting: str, exact: Fraction) -> None:
    (value,) = evaluated(EXAMPLE, named(weighting=weighting))
    assert close(value.value, exact, 1.0)
    assert value.n == 2
    assert [value.evidence[name] for name in COUNTS] == [3, 2, 0, 1, 0]
    assert value.evidence["coverage"] == 7 / 9


def test_presets_say_what_a_list_of_one_class_is() -> None:
    metrics = ("gauc(weighting='uniform')", "gauc(weighting='uniform', one_class='skip')")
    found = {preset: evaluated(EXAMPLE, *metrics, preset=preset) for preset in ("torchrec", "lightgbm", "sklearn")}
    assert {preset: [v.value for v in values] for preset, values in found.items()} == {
        "torchrec": [pytest.approx(7 / 9, rel=1e-15), pytest.approx(11 / 12, rel=1e-15)],
        "lightgbm": [pytest.approx(17 / 18, rel=1e-15), pytest.approx(11 / 12, rel=1e-15)],
        "sklearn": [pytest.approx(11 / 12, rel=1e-15)] * 2,
    }
    assert found["torchrec"][0].evidence["one_class"] == 0.5
    assert found["torchrec"][0].evidence["coverage"] == 1.0
    assert "one_class" not in found["sklearn"][0].evidence


def test_constant_lists_count_a_half_or_are_left_out() -> None:
    table = {"y": [[1, 0, 0], [1, 0], [0, 0]], "s": [[0.5, 0.5, 0.5], [0.9, 0.1], [0.5, 0.5]]}
    kept, dropped = evaluated(table, "gauc", "gauc(drop_constant=true)")
    assert kept.value == 0.7
    assert dropped.value == 1.0
    for value in (kept, dropped):
        assert [value.evidence[name] for name in COUNTS] == [3, 2, 1, 0, 1]
    assert kept.evidence["coverage"] == 5 / 7
    assert dropped.evidence["coverage"] == 2 / 7


def test_no_value_has_a_reason() -> None:
    table = {
        "y": [[1, 1], [0], [1, 0], [1, 0], [], None],
        "s": [[0.2, 0.1], [0.3], [0.5, 0.5], [0.9, 0.1], [], [0.5]],
        "c": ["one", "one", "constant", "good", "empty", "empty"],
    }
    request: dict[str, Any] = {"label": "y", "prob": "s", "by": ["c"]}
    metrics = ["gauc", "gauc(drop_constant=true)", "gauc(weighting='pairs', one_class=0.5)"]
    result = fl.evaluate(pa.table(table), metrics=metrics, **request)
    found = {(v.slice["c"], v.metric): (v.value, v.reason) for v in result.values if v.slice}
    plain, dropping, halved = metrics[0], "gauc(drop_constant=True)", "gauc(weighting='pairs', one_class=0.5)"
    assert found == {
        ("one", plain): (None, "one_class"),
        ("one", dropping): (None, "one_class"),
        # A list of one class has no pairs.
        ("one", halved): (None, "one_class"),
        ("constant", plain): (0.5, None),
        ("constant", dropping): (None, "constant_scores"),
        ("constant", halved): (0.5, None),
        ("good", plain): (1.0, None),
        ("good", dropping): (1.0, None),
        ("good", halved): (1.0, None),
    }
    (nothing,) = evaluated(
        {"y": pa.array([[]], pa.list_(pa.int8())), "s": pa.array([[]], pa.list_(pa.float64()))}, "gauc"
    )
    assert (nothing.value, nothing.reason, nothing.n) == (None, "no_rows", 0)
    assert "coverage" not in nothing.evidence


numbers = st.sampled_from([0.0, -0.0, 0.25, 0.5, 0.5 + 2**-53, 1.0])
binary = st.sampled_from([0.0, 1.0])
soft = st.sampled_from([0.0, 1.0, 0.25, 1 / 3, 1 - 2**-53, 2**-60])
weights = st.one_of(st.sampled_from([1.0, 2.0, 0.1]), st.integers(1, 2**53).map(lambda k: k * 2.0**-53))


@st.composite
def lists(draw: Any, labels: Any) -> list[list[oracle.Row]]:
    """Lists with many ties, some of one class."""
    row = st.tuples(labels, numbers, weights)
    return list(draw(st.lists(st.lists(row, min_size=1, max_size=7), min_size=1, max_size=5)))


def sorted_arrays(groups: Sequence[Sequence[oracle.Row]]) -> tuple[Any, ...]:
    """Return the candidates as the loop reads them: by score, and of one score by label."""
    ranked = [row for rows in groups for row in sorted(rows, key=lambda row: (-row[1], -row[0]))]
    label, score, weight = (np.array(column) for column in zip(*ranked, strict=True))
    for array in (label, score, weight):
        array.setflags(write=False)
    return score, np.cumsum([0, *map(len, groups)]), label, weight


@settings(max_examples=30, deadline=None)
@given(groups=st.one_of(lists(binary), lists(soft)), weighted=st.booleans(), data=st.data())
def test_the_loop_gives_each_list_and_the_same_bits_for_every_order(groups: Any, weighted: bool, data: Any) -> None:
    def found(of: Any) -> tuple[Any, ...]:
        n = len(of)
        out = np.empty(n, dtype=np.int8), np.empty((5, n)), np.empty((5, n))
        score, offsets, label, weight = sorted_arrays(of)
        nothing = np.empty(0)
        nothing.setflags(write=False)
        make_list_auc()(score, offsets, label, weight if weighted else nothing, np.arange(n), *out)
        return out

    kind, weight, value = found(groups)
    for i, rows in enumerate(groups):
        of_list = rows if weighted else [(y, s, 1.0) for y, s, _ in rows]
        auc = oracle.roc_auc(of_list)
        positive = sum(Fraction(w) * Fraction(y) for y, _, w in of_list)
        constant = len(oracle.masses(of_list)) == 1
        expected = (CONSTANT if constant else VALID) if auc is not None else NO_NEGATIVE if positive else NO_POSITIVE
        assert kind[i] == expected
        for k, weighting in enumerate(WEIGHTINGS):
            assert 0.0 <= value[k, i] <= weight[k, i]
            if auc is not None:
                exact = {
                    "impressions": Fraction(len(rows)),
                    "uniform": Fraction(1),
                    "positives": positive,
                    "sample_weight": sum(Fraction(w) for _, _, w in of_list),
                    "pairs": positive * (sum(Fraction(w) for _, _, w in of_list) - positive),
                }[weighting]
                assert close(weight[k, i], exact, 0.501)
                assert close(value[k, i], exact * auc, 0.501)
    shuffled = [data.draw(st.permutations(rows)) for rows in groups]
    for first, second in zip((kind, weight, value), found(shuffled), strict=True):
        assert np.array_equal(first, second)


@settings(max_examples=12, deadline=None)
@given(groups=st.one_of(lists(binary), lists(soft)), drop=st.booleans(), data=st.data())
def test_an_evaluation_is_the_definition_for_every_order_of_lists_and_candidates(
    groups: Any, drop: bool, data: Any
) -> None:
    def values(of: Any) -> list[Any]:
        table = {
            "y": pa.array([[y for y, _, _ in rows] for rows in of], pa.list_(pa.float64())),
            "s": pa.array([[s for _, s, _ in rows] for rows in of], pa.list_(pa.float64())),
            # A list's weight is that of each of its candidates.
            "w": [rows[0][2] for rows in of],
        }
        metrics = [named(weighting=w, drop_constant=drop) for w in WEIGHTINGS]
        plain = evaluated(table, *metrics, "gauc(one_class=0.5)")
        return [*plain, *evaluated(table, *metrics, weight="w")]

    found = values(groups)
    alone = [[(y, s, 1.0) for y, s, _ in rows] for rows in groups]
    weighted = [[(y, s, rows[0][2]) for y, s, _ in rows] for rows in groups]
    expected = [oracle.gauc(alone, w, drop_constant=drop) for w in WEIGHTINGS]
    expected += [oracle.gauc(alone, "impressions", one_class=0.5)]
    expected += [oracle.gauc(weighted, w, drop_constant=drop) for w in WEIGHTINGS]
    for value, exact in zip(found, expected, strict=True):
        assert close(value.value, exact), value
    shuffled = data.draw(st.permutations([data.draw(st.permutations(rows)) for rows in groups]))
    same = values(shuffled)[: len(WEIGHTINGS) + 1]
    assert [(v.value, v.evidence) for v in same] == [(v.value, v.evidence) for v in found[: len(WEIGHTINGS) + 1]]


def test_scikit_learn_gives_the_same_auc_of_each_list() -> None:
    random = np.random.default_rng(7)
    ids, label, score = [], [], []
    exact: dict[str, float] = {}
    for i in range(40):
        n = int(random.integers(2, 60))
        y, s = random.integers(0, 2, n), random.integers(0, 8, n) / 8
        y[:2] = 0, 1
        ids.append(str(i))
        label.append(y.tolist())
        score.append(s.tolist())
        exact[str(i)] = roc_auc_score(y, s)
    table = pa.table({"y": label, "s": score, "id": ids})
    result = fl.evaluate(table, label="y", prob="s", metrics=["gauc", "gauc(weighting='uniform')"], by=["id"])
    sliced = {v.slice["id"]: v.value for v in result.values if v.slice and v.metric == "gauc"}
    assert sliced == pytest.approx(exact, rel=1e-14)
    lengths = np.array(list(map(len, label)))
    assert result["gauc"] == pytest.approx(np.average(list(exact.values()), weights=lengths), rel=1e-14)
    assert result["gauc(weighting='uniform')"] == pytest.approx(np.mean(list(exact.values())), rel=1e-14)
    # With weights of rows.
    weights_of = [random.integers(1, 2**53, len(y)) * 2.0**-53 for y in label]
    groups = [list(zip(*columns, strict=True)) for columns in zip(label, score, weights_of, strict=True)]
    arrays = sorted_arrays(groups)
    out = np.empty(40, dtype=np.int8), np.empty((5, 40)), np.empty((5, 40))
    make_list_auc()(*arrays, np.arange(40), *out)
    of_lists = [
        roc_auc_score(*columns[:2], sample_weight=columns[2]) for columns in zip(label, score, weights_of, strict=True)
    ]
    assert out[2][WEIGHTINGS.index("uniform")] == pytest.approx(of_lists, rel=1e-13)


def test_long_lists_are_counted_in_whole_numbers() -> None:
    random = np.random.default_rng(2)
    n = 300_000
    y, s = (random.random(n) < 0.3).astype(float), random.integers(0, 1000, n) / 1000
    p, q = (np.bincount((s * 1000).round().astype(int), weights=w, minlength=1000).astype(int) for w in (y, 1 - y))
    won = sum(int(a) * (2 * int(q[:i].sum()) + int(q[i])) for i, a in enumerate(p))
    (value,) = evaluated({"y": [y.tolist()], "s": [s.tolist()]}, "gauc(weighting='pairs')")
    assert value.value == float(Fraction(won, 2 * int(p.sum()) * int(q.sum())))


def test_masked_candidates_have_no_part() -> None:
    table = {"y": [[1, 0, 0, None], [1, 0]], "s": [[0.5, 0.2, None, 0.9], [None, 0.5]]}
    (value,) = evaluated(table, "gauc")
    assert value.value == 1.0
    assert [value.evidence[name] for name in COUNTS] == [2, 1, 1, 0, 0]
    assert value.evidence["coverage"] == 2 / 3
    # −∞ is a score like others, among logits too.
    table = {"y": [[1, 0, 0]], "s": [[1.0, 2.0, -math.inf]]}
    of_logits = fl.evaluate(pa.table(table), label="y", logit="s", metrics="gauc")
    of_scores = fl.evaluate(pa.table(table), label="y", score="s", metrics="gauc")
    assert (of_logits["gauc"], of_scores["gauc"]) == (0.5, 0.5)


def test_weights_of_any_size() -> None:
    table = {"y": [[1, 0, 0], [1, 0]], "s": [[0.5, 0.7, 0.2], [0.7, 0.5]]}
    metrics = [named(weighting=w) for w in WEIGHTINGS]
    found = evaluated({**table, "w": [1e-200, 1e-200]}, *metrics, weight="w")
    assert [v.value for v in found[:4]] == [0.7, 0.75, 0.75, 0.7]
    # A pair would weigh 1e-400.
    assert (found[4].value, found[4].reason) == (None, "weights_too_small")
    found = evaluated({**table, "w": [1e200, 1e200]}, *metrics, weight="w")
    assert [v.value for v in found[:4]] == [0.7, 0.75, 0.75, 0.7]
    assert (found[4].value, found[4].reason) == (None, "infinite_terms")


def test_saved_states_merge_to_the_same_bits(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    table = pa.table(
        {
            "y": [random.integers(0, 2, 6).tolist() for _ in range(60)],
            "s": [(random.integers(0, 5, 6) / 7).tolist() for _ in range(60)],
            "c": [str(i % 3) for i in range(60)],
        }
    )
    request: dict[str, Any] = {"label": "y", "prob": "s", "metrics": ["gauc"], "by": ["c"]}
    whole = fl.evaluate(table, **request)
    for number, part in enumerate((table.slice(0, 17), table.slice(17))):
        fl.evaluate(part, **request, state=tmp_path / f"{number}.arrow")
    merged = fl.merge([tmp_path / "0.arrow", tmp_path / "1.arrow"])
    assert [v.to_dict() for v in merged.values] == [v.to_dict() for v in whole.values]


def test_what_is_not_understood_is_refused() -> None:
    table = pa.table(EXAMPLE)
    request: dict[str, Any] = {"label": "y", "prob": "s"}
    for given_metric, message in (
        ("gauc(weighting='clicks')", r"weighting is 'clicks'; allowed: 'impressions', 'uniform'"),
        ("gauc(one_class=2)", r"one_class is 2; allowed: 0 <= one_class <= 1, or 'skip'"),
        ("gauc(drop_constant=1)", r"drop_constant is 1; allowed: true or false"),
        ("uauc", r"no metric 'uauc' \(yet\)\. What comes near: \"gauc\(weighting='uniform'\)\""),
    ):
        with pytest.raises(fl.UsageError, match=message):
            fl.evaluate(table, metrics=given_metric, **request)
    flat = pa.table({"y": [0, 1], "s": [0.1, 0.2]})
    with pytest.raises(fl.UsageError, match=r"gauc reads lists of predictions, and column 's' holds numbers"):
        fl.evaluate(flat, metrics="gauc", **request)
    index = pa.table({"y": [0, 1], "s": [[0.1, 0.2], [0.2, 0.3]]})
    with pytest.raises(fl.UsageError, match=r"gauc reads a label for each candidate"):
        fl.evaluate(index, metrics="gauc", **request)
    with pytest.raises(fl.UsageError, match=r"gauc is a metric"):
        fl.objective("gauc")
    with pytest.raises(fl.DataError, match=r"label column 'y' is 2.0; allowed: 0 <= label <= 1"):
        fl.evaluate(pa.table({"y": [[0, 2]], "s": [[0.1, 0.2]]}), metrics="gauc", **request)
