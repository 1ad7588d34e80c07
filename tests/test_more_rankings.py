"""Rankings beyond the common ones: ERR, RBP, bpref, R-precision and pairs of a list, against their definitions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastloss as fl
from fastloss_kernels.rankings import (
    Bpref,
    ExpectedReciprocalRank,
    ListAuc,
    RankBiasedPrecision,
    Ranking,
    RPrecision,
    Xauc,
)
from tests.oracles import ranking as oracle

TREC = Path(__file__).parents[2] / "shared" / "data" / "trec_eval" / "test"


def units(found: float, exact: Fraction) -> float:
    """Return how many units in the last place a number is off."""
    return float(abs(Fraction(found) - exact) / Fraction(math.ulp(float(exact)))) if exact else float(found != 0)


def auc_of(labels: Any, scores: Any) -> Fraction | None:
    return oracle.roc_auc([(y, s, 1.0) for y, s in zip(labels, scores, strict=True)])


# What is computed, and its definition; of labels from 0 to 4.
AT_RANKS: dict[str, tuple[Ranking, Callable[[Any, Any], Fraction]]] = {
    "err@20": (ExpectedReciprocalRank(), lambda y, s: oracle.expected_reciprocal_rank(y, s, 20)),
    "err@3": (ExpectedReciprocalRank(3, max_label=5), lambda y, s: oracle.expected_reciprocal_rank(y, s, 3, 5)),
    "rbp": (RankBiasedPrecision(), lambda y, s: oracle.rank_biased_precision(y, s, 0.9)),
    "rbp@2": (RankBiasedPrecision(2, p=0.3), lambda y, s: oracle.rank_biased_precision(y, s, 0.3, 2)),
    "bpref": (Bpref(), oracle.bpref),
    "r_precision": (RPrecision(), oracle.r_precision),
}
candidates = st.tuples(st.integers(0, 4).map(float), st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0]))
lists = st.lists(candidates, min_size=1, max_size=6)


def columns(rows: Any) -> tuple[list[float], list[float]]:
    return [y for y, _ in rows], [s for _, s in rows]


@settings(max_examples=60, deadline=None)
@given(rows=lists.filter(lambda rows: any(y > 0 for y, _ in rows)), data=st.data())
def test_ties_are_averaged_over_every_order(rows: Any, data: Any) -> None:
    moved = data.draw(st.permutations(rows))
    for metric, defined in AT_RANKS.values():
        label, score = columns(rows)
        (found,) = metric([label], value=[score])
        assert units(found, defined(label, score)) <= 0.51, metric.full_name
        label, score = columns(moved)
        assert metric([label], value=[score])[0] == found


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(candidates, min_size=1, max_size=9), data=st.data())
def test_pairs_are_counted(rows: Any, data: Any) -> None:
    label, score = columns(rows)
    binary = [min(y, 1.0) for y in label]
    soft = [y / 4 for y in label]
    moved_label, moved_score = columns(data.draw(st.permutations(rows)))
    for metric, of, moved, exact in (
        (Xauc(), label, moved_label, oracle.xauc(label, score)),
        (ListAuc(), binary, [min(y, 1.0) for y in moved_label], auc_of(binary, score)),
        (ListAuc(), soft, [y / 4 for y in moved_label], auc_of(soft, score)),
    ):
        (found,) = metric([of], value=[score])
        if exact is None:
            assert math.isnan(found)
            assert type(metric)(empty="one")([of], value=[score])[0] == 1.0
        else:
            assert units(found, exact) <= 0.51
            assert metric([moved], value=[moved_score])[0] == found


def test_long_lists() -> None:
    random = np.random.default_rng(4)
    n = 900
    label, score = random.integers(0, 5, n).astype(float), random.integers(0, 300, n) / 8
    higher = np.sign(score[:, None] - score)[np.triu_indices(n, 1)]
    larger = np.sign(label[:, None] - label)[np.triu_indices(n, 1)]
    different = larger != 0
    won = int(2 * np.sum(higher[different] == larger[different]) + np.sum(higher[different] == 0))
    assert units(Xauc()([label], value=[score])[0], Fraction(won, 2 * int(different.sum()))) <= 0.5
    # A tie of many candidates, with the relevant ones at random places: 5 of 100 tied, 3 above.
    tied = np.repeat([1.0, 0.0], [3, 100])
    relevant = np.zeros(103)
    relevant[[1, 4, 5, 6, 7, 8]] = 1.0
    # The 6 relevant ones are one of the first three and 5 of the others.
    first, others = Fraction(1, 3), Fraction(5, 100)
    assert units(RPrecision()([relevant], value=[tied])[0], (1 + 3 * others) / 6) <= 0.5
    step = Fraction(0.9)
    exact = (1 - step) * (first * sum(step**i for i in range(3)) + others * sum(step**i for i in range(3, 103)))
    assert units(RankBiasedPrecision()([relevant], value=[tied])[0], exact) <= 0.51


def test_a_long_tie_of_graded_candidates_keeps_its_digits() -> None:
    # Of t tied candidates that all satisfy with R, order does not matter: a geometric distribution.
    stop = Fraction(3, 16)
    exact = sum((stop * (1 - stop) ** (rank - 1) / rank for rank in range(1, 101)), Fraction(0))
    assert units(ExpectedReciprocalRank(100)([[2.0] * 500], value=[[1.0] * 500])[0], exact) <= 0.51
    # One of them at a rank that is as likely as any other.
    exact = Fraction(15, 16) * sum((Fraction(1, rank) for rank in range(1, 51)), Fraction(0)) / 300
    label = [0.0] * 299 + [4.0]
    assert units(ExpectedReciprocalRank(50)([label], value=[[1.0] * 300])[0], exact) <= 0.51


def test_values_by_hand() -> None:
    # Chapelle's cascade: grades 3, 2, 0 of at most 4.
    exact = Fraction(7, 16) + Fraction(9, 16) * Fraction(3, 16) / 2
    assert ExpectedReciprocalRank()([[3, 2, 0]], value=[[3, 2, 1]])[0] == float(exact)
    # Relevant at ranks 1 and 4 of 5: (1 + 1 − 2/2)/2.
    assert Bpref()([[1, 0, 0, 1, 0]], value=[[5, 4, 3, 2, 1]])[0] == 0.5
    # What nobody judged has no part.
    assert Bpref()([[None, 1, None, 0, 1]], value=[[5, 4, 3, 2, 1]])[0] == 0.5
    assert Bpref()([[1, 1]], value=[[2, 1]])[0] == 1.0
    assert RankBiasedPrecision(p=0.5)([[1, 0, 1]], value=[[3, 2, 1]])[0] == 0.625
    assert RPrecision()([[1, 0, 1, 0]], value=[[4, 3, 2, 1]])[0] == 0.5
    # Of the pairs 10–5, 10–1 and 5–1, the scores tie one and turn one around.
    assert Xauc()([[10.0, 5.0, 1.0]], value=[[0.5, 0.5, 0.7]])[0] == pytest.approx(0.5 / 3, rel=1e-15)
    assert Xauc()([[-3.0, -5.0]], value=[[2.0, 1.0]])[0] == 1.0


def test_lists_without_what_is_needed_are_left_out_or_count() -> None:
    table = pa.table({"y": [[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.5, 0.5]], "s": [[2.0, 1.0]] * 4})
    request: dict[str, Any] = {"label": "y", "score": "s"}
    metrics = ["list_auc", "list_auc(empty=zero)", "xauc", "xauc(empty=one)", "bpref", "r_precision(empty=zero)"]
    found = {v.metric: (v.value, v.n) for v in fl.evaluate(table, metrics=metrics, **request).values}
    assert found == {
        "list_auc": (0.75, 2),
        "list_auc(empty='zero')": (0.375, 4),
        "xauc": (1.0, 1),
        "xauc(empty='one')": (1.0, 4),
        "bpref": (1.0, 3),
        "r_precision(empty='zero')": (0.75, 4),
    }
    # Without weights, the mean of the AUCs is that of gauc.
    uniform = fl.evaluate(table, metrics=["gauc(weighting=uniform)"], **request)
    assert uniform.values[0].value == found["list_auc"][0]


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic", "input"])
def test_a_tied_pair_counts_a_half_under_every_rule(ties: Any) -> None:
    table = pa.table({"y": [[1.0, 0.0, 1.0], [0.0, 1.0]], "s": [[0.5, 0.5, 0.2], [0.3, 0.3]]})
    request: dict[str, Any] = {"label": "y", "score": "s"}
    metrics = ["list_auc", "xauc", "gauc", "gauc(weighting=pairs)"]
    found = fl.evaluate(table, metrics=[*metrics, "bpref"], ties=ties, **request)
    expected = fl.evaluate(table, metrics=metrics, **request)
    assert [v.value for v in found.values][:4] == [v.value for v in expected.values] == [0.375, 0.375, 0.35, 1 / 3]
    # They read no ranks.
    with pytest.raises(fl.UsageError, match=r"orders tied candidates for metrics at ranks"):
        fl.evaluate(table, metrics=metrics, ties=ties, **request)


@pytest.mark.parametrize("name", ["err@2", "rbp", "bpref", "r_precision"])
def test_rules_of_ties_give_the_value_of_that_order(name: str) -> None:
    table = pa.table({"y": [[0.0, 2.0, 1.0], [1.0, 0.0, 0.0]], "s": [[0.5, 0.5, 0.2], [0.3, 0.3, 0.9]]})
    strict = {
        "pessimistic": [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]],
        "optimistic": [[2.0, 3.0, 1.0], [2.0, 1.0, 3.0]],
        "input": [[3.0, 2.0, 1.0], [2.0, 1.0, 3.0]],
    }
    request: dict[str, Any] = {"label": "y", "score": "s", "metrics": name}
    for ties, scores in strict.items():
        ordered = table.set_column(1, "s", pa.array(scores))
        assert (
            fl.evaluate(table, ties=ties, **request).values[0].value == fl.evaluate(ordered, **request).values[0].value
        )


def test_names_and_what_is_refused() -> None:
    table = pa.table({"y": [[1.0, 0.0, 2.0]], "s": [[3.0, 2.0, 1.0]]})
    request: dict[str, Any] = {"label": "y", "score": "s"}
    result = fl.evaluate(table, metrics=["err@2(max_label=2)", "rbp(p=0.5)", "rbp@1(p=0.5)", "rprec"], **request)
    assert {v.metric: v.value for v in result.values} == {
        "err@2(max_label=2)": 0.25,
        "rbp(p=0.5)": 0.625,
        "rbp@1(p=0.5)": 0.5,
        "r_precision": 0.5,
    }
    for metric, message in (
        ("err(k=none)", r"k is None; allowed: a whole number from 1 to 1000"),
        ("err@2000", r"k is 2000; allowed: 1 <= k <= 1000"),
        ("err(max_label=1.5)", r"max_label is 1\.5; allowed: a whole number"),
        ("rbp(p=1)", r"p is 1; allowed: 0 < p < 1"),
    ):
        with pytest.raises(fl.UsageError, match=message):
            fl.evaluate(table, metrics=[metric], **request)
    with pytest.raises(fl.DataError, match=r"is 2\.0; allowed: 0 <= label <= 1"):
        fl.evaluate(table, metrics=["err(max_label=1)"], **request)
    with pytest.raises(fl.UsageError, match=r"roc_auc .* column 's' holds lists; name 'gauc', or 'list_auc'\."):
        fl.evaluate(table, metrics=["auc"], **request)
    rows = pa.table({"y": [1.0, 0.0], "s": [2.0, 1.0]})
    assert fl.evaluate(rows, metrics=["auc"], label="y", score="s")["roc_auc"] == 1.0


def test_digits_of_trec_eval() -> None:
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (TREC / "qrels.test").read_text().splitlines():
        topic, _, document, relevance = line.split()
        judged[topic][document] = int(relevance)
    run: dict[str, dict[str, float]] = defaultdict(dict)
    for line in (TREC / "results.test").read_text().splitlines():
        topic, _, document, _, score, _ = line.split()
        run[topic][document] = float(score)
    table: dict[str, list[Any]] = {"topic": [], "label": [], "of_judged": [], "score": []}
    for topic, retrieved in run.items():
        # Ties are ordered by document. What was not retrieved counts as if it stood at the end, relevant ones last.
        ranked = sorted(retrieved, key=lambda name: (retrieved[name], name), reverse=True)
        missing = sorted(set(judged[topic]) - set(retrieved), key=lambda name: judged[topic][name] > 0)
        labels = [judged[topic].get(name) for name in (*ranked, *missing)]
        table["topic"].append(topic)
        table["label"].append([float((y or 0) > 0) for y in labels])
        table["of_judged"].append([None if y is None or y < 0 else float(y > 0) for y in labels])
        table["score"].append([-float(rank) for rank in range(len(labels))])
    request: dict[str, Any] = {"score": "score", "by": ["topic"]}
    found: dict[tuple[str, str], float] = {}
    for label, metrics in (("label", ["r_precision", "rbp@500"]), ("of_judged", ["bpref"])):
        result = fl.evaluate(pa.table(table), label=label, metrics=metrics, **request)
        found |= {(v.metric, v.slice.get("topic", "all")): v.value for v in result.values}
    names = {"Rprec": "r_precision", "rbp": "rbp@500", "bpref": "bpref"}
    compared = 0
    for line in (TREC / "out.test.aq").read_text().splitlines():
        measure, topic, digits = line.split()
        if measure in names:
            assert f"{found[names[measure], topic]:.4f}" == digits, (measure, topic)
            compared += 1
    assert compared == 3 * 4
