"""Values of ranking metrics: against their definitions over every order of ties, and beside other libraries."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf
from sklearn.metrics import dcg_score, label_ranking_average_precision_score, ndcg_score

import fastloss as fl
from fastloss_kernels.listwise.discounts import N_TABULATED, discount, sum_of_discounts, tabulated
from fastloss_kernels.rankings import (
    Dcg,
    HitRate,
    MeanAveragePrecision,
    Ndcg,
    NdcgExp2,
    PrecisionAtK,
    RecallAtK,
    ReciprocalRank,
)
from tests.oracles import ranking as oracle
from tests.test_losses import ulp_error

KS = (None, 1, 2, 3, 7)

# What is computed, and its definition as a function of labels, scores and k.
DEFINED: list[tuple[Any, Any]] = [
    (Dcg, oracle.dcg),
    (lambda k: Dcg(k, gain="exp2"), lambda y, s, k: oracle.dcg(y, s, k, exp2=True)),
    (Ndcg, oracle.ndcg),
    (NdcgExp2, lambda y, s, k: oracle.ndcg(y, s, k, exp2=True)),
    (MeanAveragePrecision, oracle.mean_average_precision),
    (
        lambda k: MeanAveragePrecision(k, denominator="reachable"),
        lambda y, s, k: oracle.mean_average_precision(y, s, k, "reachable"),
    ),
    (ReciprocalRank, oracle.reciprocal_rank),
    (HitRate, oracle.hit_rate),
    (RecallAtK, oracle.recall_at_k),
    (lambda k: RecallAtK(k, denominator="reachable"), lambda y, s, k: oracle.recall_at_k(y, s, k, "reachable")),
    (PrecisionAtK, lambda y, s, k: oracle.precision_at_k(y, s, len(y) if k == math.inf else k)),
    (
        lambda k: PrecisionAtK(k, denominator="length"),
        lambda y, s, k: oracle.precision_at_k(y, s, min(len(y), k), "length"),
    ),
]
NAMES = [make(2).full_name for make, _ in DEFINED]


def exact(value: Any) -> mpf:
    return mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def random_lists(seed: int, n_lists: int, longest: int, graded: bool) -> tuple[list[Any], list[Any]]:
    """Lists with ties and at least one positive; many labels are equal, and some are no whole numbers."""
    random = np.random.default_rng(seed)
    labels, scores = [], []
    while len(labels) < n_lists:
        n = int(random.integers(1, longest + 1))
        label = random.integers(0, 4 if graded else 2, n).astype(float)
        if graded and random.random() < 0.3:
            label = label * random.random(n) * 2.0 ** random.integers(-60, 3)
        if label.any():
            labels.append(label)
            scores.append(random.integers(-1, 3, n) / 4 * random.integers(0, 2, n))
    return labels, scores


@pytest.mark.parametrize(("make", "define"), DEFINED, ids=NAMES)
def test_values_are_means_over_every_order_of_ties(make: Any, define: Any) -> None:
    labels, scores = random_lists(5, 60, 5, graded=make in (Dcg, Ndcg, NdcgExp2, DEFINED[1][0]))
    random = np.random.default_rng(6)
    for k in KS:
        found = make(k)(labels, prob=[abs(s) for s in scores])
        orders = [random.permutation(len(label)) for label in labels]
        moved = make(k)(
            [y[order] for y, order in zip(labels, orders, strict=True)],
            score=[abs(s)[order] for s, order in zip(scores, orders, strict=True)],
        )
        # The same bits for any order of the candidates.
        assert found.tolist() == moved.tolist()
        for value, label, score in zip(found, labels, scores, strict=True):
            with mpmath.workdps(50):
                wanted = exact(define(label.tolist(), abs(score).tolist(), math.inf if k is None else k))
                assert ulp_error(value, wanted) <= 1.0


# Grades, and labels as random as weights are.
LABELS = st.one_of(st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.0, 3.0]), st.integers(0, 2**53).map(lambda k: k * 2.0**-53))
RANKED_LISTS = st.lists(st.tuples(LABELS, st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0])), min_size=1, max_size=6)


@given(RANKED_LISTS.filter(lambda rows: any(y > 0.0 for y, _ in rows)), st.integers(1, 7), st.randoms())
def test_any_list_has_the_values_of_the_definitions(rows: list[Any], k: int, random: Any) -> None:
    shuffled = random.sample(rows, len(rows))
    for make, define in DEFINED:
        (found,) = make(k)([[y for y, _ in rows]], value=[[s for _, s in rows]])
        (moved,) = make(k)([[y for y, _ in shuffled]], value=[[s for _, s in shuffled]])
        assert found == moved
        with mpmath.workdps(50):
            wanted = exact(define([y for y, _ in rows], [s + 0.0 for _, s in rows], k))
            assert ulp_error(found, wanted) <= 1.0


def test_long_ties_are_means_over_every_order_too() -> None:
    # One tie of 14 candidates below others: 2002 arrangements of its 5 positives.
    label = np.array([1.0, 0.0] + [1.0] * 5 + [0.0] * 9 + [1.0, 0.0])
    score = np.array([5.0, 4.0] + [3.0] * 14 + [2.0, 1.0])
    n, tied = len(label), range(2, 16)
    for k in (1, 4, 9, 17, None):
        last = n if k is None else k
        precisions, firsts, hits = [], [], []
        for chosen in itertools.combinations(tied, 5):
            ranks = sorted([1, 17, *(place + 1 for place in chosen)])
            reached = [Fraction(i, rank) for i, rank in enumerate(ranks, 1) if rank <= last]
            precisions.append(sum(reached, Fraction(0)) / 7)
            firsts.append(ranks[1] - 1)
            hits.append(len(reached))
        with mpmath.workdps(50):
            wanted = exact(sum(precisions, Fraction(0)) / len(precisions))
            assert ulp_error(MeanAveragePrecision(k)([label], value=[score])[0], wanted) <= 1.0
            wanted = exact(Fraction(sum(hits), len(hits)) / 7)
            assert ulp_error(RecallAtK(k)([label], value=[score])[0], wanted) <= 1.0
            # Without the one above.
            wanted = exact(Fraction(sum(first <= last - 1 for first in firsts), len(firsts)))
            if k != 1:
                found = HitRate(None if k is None else k - 1)([label[1:]], value=[score[1:]])[0]
                assert ulp_error(found, wanted) <= 1.0


@pytest.mark.parametrize("exp2", [False, True])
@pytest.mark.parametrize("k", [None, 10, 700])
def test_gains_of_long_lists(exp2: bool, k: int | None) -> None:
    random = np.random.default_rng(2)
    # Beyond the ranks whose discounts are tabulated, with ties.
    for label in ((random.random(1500) < 0.2) * 1.0, random.integers(0, 5, 1500) * 1.0, random.random(1500) ** 9):
        score = random.integers(0, 400, 1500) / 8
        with mpmath.workdps(40):
            gain = [mpf(2) ** mpf(y) - 1 if exp2 else mpf(y) for y in label]
            last = 1500 if k is None else k
            discount = [1 / mpmath.log(1 + rank, 2) for rank in range(1, last + 1)] + [mpf(0)] * (1500 - last)
            ideal = mpmath.fdot(sorted(gain, reverse=True), discount)
            total, start = mpf(0), 0
            for value in sorted(set(score), reverse=True):
                tied = np.flatnonzero(score == value)
                mean = mpmath.fsum(gain[i] for i in tied) / len(tied)
                total += mean * mpmath.fsum(discount[start : start + len(tied)])
                start += len(tied)
            assert ulp_error((NdcgExp2 if exp2 else Ndcg)(k)([label], value=[score])[0], total / ideal) <= 1.0
            assert ulp_error(Dcg(k, gain="exp2" if exp2 else "linear")([label], value=[score])[0], total) <= 1.0


def test_labels_of_any_size_keep_their_digits() -> None:
    score = [[3.0, 2.0, 1.0]]
    for size in (5e-324, 1e-310, 1e-300, 1e-150, 1.0, 1e299):
        for metric in (Ndcg(), NdcgExp2()) if size <= 1.0 else (Ndcg(),):
            found = metric([[0.0, 2.0 * size, size]], value=score)[0]
            with mpmath.workdps(400):
                gains = (
                    [mpmath.expm1(y * mpmath.log(2)) for y in (mpf(2.0 * size), mpf(size))]
                    if metric.name == "ndcg_exp2"
                    else [mpf(2), mpf(1)]
                )
                wanted = (gains[0] / mpmath.log(3, 2) + gains[1] / 2) / (gains[0] + gains[1] / mpmath.log(3, 2))
                assert ulp_error(found, wanted) <= 1.0, (metric.name, size)


def test_discounts_are_those_of_their_definition() -> None:
    tables = tabulated()
    with mpmath.workdps(60):
        exact_of = [mpf(0), *(mpmath.log(2) / mpmath.log(1 + rank) for rank in range(1, N_TABULATED + 100))]
        for rank in (*range(1, 40), *range(40, N_TABULATED + 99, 23), N_TABULATED, N_TABULATED + 1):
            hi, lo = discount(tables, rank)
            assert abs(mpf(hi) + mpf(lo) - exact_of[rank]) <= exact_of[rank] * mpf(2) ** -62
        for first, last in ((1, 1), (1, 512), (3, 3), (2, 600), (511, 514), (513, 530), (600, 600), (5, 4)):
            hi, lo = sum_of_discounts(tables, first, last)
            assert abs(mpf(hi) + mpf(lo) - sum(exact_of[first : last + 1])) <= mpf(hi) * mpf(2) ** -62


# SEMANTICS: labels 10, 0, 0, 1, 5 with a linear gain; tied lists and one in another order.
@pytest.mark.parametrize(
    ("score", "ndcg"),
    [
        ([0.5, 0.5, 0.5, 0.5, 0.5], 0.6909785334518438),
        ([1.0, 1.0, 1.0, 0.5, 0.5], 0.699812015449946),
        ([0.1, 0.2, 0.3, 4.0, 70.0], 0.6956940443813074),
        ([9.0, 1.0, 2.0, 3.0, 4.0], 1.0),
    ],
)
def test_acceptance_values(score: list[float], ndcg: float) -> None:
    label = [[10.0, 0.0, 0.0, 1.0, 5.0]]
    assert Ndcg()(label, value=[score])[0] == pytest.approx(ndcg, rel=1e-15)
    assert Dcg()(label, value=[score])[0] == pytest.approx(ndcg * 13.654648767857289, rel=1e-15)
    # A k beyond the list is its length.
    assert Ndcg(k=50)(label, value=[score])[0] == Ndcg(k=5)(label, value=[score])[0] == Ndcg()(label, value=[score])[0]


def test_precision_of_a_short_list_divides_by_k() -> None:
    assert PrecisionAtK(5)([[1.0, 0.0]], value=[[2.0, 1.0]])[0] == 0.2
    assert PrecisionAtK(5, denominator="length")([[1.0, 0.0]], value=[[2.0, 1.0]])[0] == 0.5
    assert RecallAtK(1)([[1.0, 1.0]], value=[[2.0, 1.0]])[0] == 0.5
    assert RecallAtK(1, denominator="reachable")([[1.0, 1.0]], value=[[2.0, 1.0]])[0] == 1.0


@pytest.mark.parametrize("k", [None, 1, 5, 20])
def test_scikit_learn_computes_the_same(k: int | None) -> None:
    random = np.random.default_rng(12)
    for distinct in (4, 40, 10**9):
        label = random.integers(0, 5, (60, 25)).astype(float)
        score = random.integers(0, distinct, (60, 25)) / distinct
        for name, theirs in (("ndcg", ndcg_score), ("dcg", dcg_score)):
            assert ask(f"{name}@{k}" if k else name, label, score) == pytest.approx(
                theirs(label, score, k=k), rel=1e-12
            )
        binary = (label > 2).astype(float)
        binary[binary.sum(axis=1) == 0, 0] = 1.0
        if distinct > 40:
            # Without ties; of tied ones it counts all as above.
            theirs = label_ranking_average_precision_score(binary, score)
            assert ask("map", binary, score) == pytest.approx(theirs, rel=1e-12)


def ask(metric: str, label: Any, score: Any, **options: Any) -> Any:
    """Return what an evaluation of lists gives."""
    columns = {
        name: pa.ListArray.from_arrays(np.append(0, np.cumsum([len(row) for row in rows])), np.concatenate(rows))
        for name, rows in (("y", label), ("s", score))
    }
    return fl.evaluate(pa.table(columns), label="y", score="s", metrics=[metric], **options)[metric]


def test_recommenders_computes_the_same(shared_data: Path) -> None:
    table = json.loads((shared_data / "golden" / "recommenders.json").read_text())
    rated, found = (table["meta"]["tables"][name] for name in ("rating_true", "rating_pred"))
    liked = set(zip(rated["userID"], rated["itemID"], strict=True))
    labels: dict[int, list[float]] = {}
    ranked = sorted(zip(found["userID"], found["itemID"], found["prediction"], strict=True), key=lambda row: -row[2])
    for user, item, _ in ranked:
        labels.setdefault(user, []).append(float((user, item) in liked))
    for user, own in labels.items():
        n_missing = sum(one == user for one, _ in liked) - sum(own)
        # What was not recommended stands behind the last rank that counts.
        own += [0.0] * 10 + [1.0] * int(n_missing)
    scores = [[-float(rank) for rank in range(len(own))] for own in labels.values()]
    names = {"ndcg_at_k": "ndcg", "map_at_k": "map", "precision_at_k": "precision", "recall_at_k": "recall"}
    n_checked = 0
    for case in table["cases"]:
        if case["metric"] in names:
            value = ask(f"{names[case['metric']]}@{case['k']}", list(labels.values()), scores)
            assert value == pytest.approx(case["expected"], rel=case["rel_tol"]), case
            n_checked += 1
        if case["metric"] == "ndcg raw gain log2":
            given = case["pred_scores"] + [0.0] * (len(case["true"]) - len(case["pred_scores"]))
            value = ask(f"ndcg@{case['k']}", [[float(y) for y in case["true"]]], [given])
            assert value == pytest.approx(case["expected"], rel=1e-3), case
            n_checked += 1
    assert n_checked == 5


def test_names() -> None:
    label, score = [[1.0, 0.0, 1.0]], [[1.0, 2.0, 3.0]]
    assert ask("precision@2", label, score) == 0.5
    assert ask("recall@2", label, score) == 0.5
    assert ask("precision_at_k(k=2)", label, score) == 0.5
    assert ask("hit_rate@1", label, score) == 1.0
    assert ask("mrr@1", label, score) == 1.0
    assert ask("map@2", label, score) == 0.5
    assert ask("recall@1(denominator=reachable)", label, score) == 1.0
    assert Ndcg(10).full_name == "ndcg@10"
    assert PrecisionAtK(5, denominator="length").full_name == "precision@5(denominator='length')"
    rows = pa.table({"y": [1.0, 0.0], "s": [0.9, 0.2]})
    # Of rows, they are metrics of a threshold.
    assert fl.evaluate(rows, label="y", prob="s", metrics="precision(threshold=0.5)").values[0].value == 1.0
    with pytest.raises(fl.UsageError, match=r"precision@5 reads lists of predictions, and column 's' holds numbers"):
        fl.evaluate(rows, label="y", prob="s", metrics="precision@5")
    for metric, advice in (("hit_rate", "hit_rate@10"), ("recall_at_k", "recall@10"), (HitRate(), "hit_rate@10")):
        with pytest.raises(fl.UsageError, match=f"needs the last rank that counts; write it behind @, as in {advice}"):
            ask(metric, label, score)  # type: ignore[arg-type]
    with pytest.raises(fl.UsageError, match=r"precision@0\.5: k, behind @, is a whole number"):
        ask("precision@0.5", label, score)
    with pytest.raises(fl.UsageError, match=r"ndcg is given k twice"):
        ask("ndcg@5(k=3)", label, score)


def test_pieces_threads_order_and_weights_of_lists_change_no_bit(tmp_path: Path) -> None:
    random = np.random.default_rng(21)
    rows: dict[str, list[Any]] = {"y": [], "s": [], "w": [], "k": []}
    for _ in range(400):
        n = int(random.integers(0, 40))
        rows["y"].append((random.integers(0, 4, n) * (random.random(n) < random.random())).tolist())
        rows["s"].append(np.where(random.random(n) < 0.5, random.integers(0, 5, n), random.random(n)).tolist())
        rows["w"].append(int(random.integers(0, 3)))
        rows["k"].append(int(random.integers(0, 5)))
    table = pa.table({**rows, "s": pa.array(rows["s"], pa.list_(pa.float64()))})
    names = ["ndcg@5", "ndcg_exp2", "dcg@3", "map", "mrr@10", "hit_rate@2", "precision@3", "recall@7"]

    def values(log: Any, **options: Any) -> Any:
        found = fl.evaluate(log, label="y", score="s", metrics=names, by="k", **options)
        return {(v.metric, tuple(v.slice.items())): v.value for v in found.values}

    expected = values(table, weight="w")
    assert len(expected) == 6 * len(names)
    assert None not in expected.values()
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=37)
    orders = [random.permutation(len(label)) for label in rows["y"]]
    shuffled = {
        name: pa.array([[row[i] for i in order] for row, order in zip(rows[name], orders, strict=True)])
        for name in ("y", "s")
    }
    shuffled["s"] = shuffled["s"].cast(pa.list_(pa.float64()))
    repeated = table.take(np.repeat(np.arange(400), rows["w"]))
    assert values(tmp_path / "log.parquet", weight="w", threads=3) == expected
    assert values(table.take(random.permutation(400)), weight="w", batch_rows=50) == expected
    assert values(pa.table({**shuffled, "w": rows["w"], "k": rows["k"]}), weight="w") == expected
    assert values(repeated) == expected
