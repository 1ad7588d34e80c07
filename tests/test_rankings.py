"""Metrics of rankings against their definitions, and averaged over lists by an evaluation."""

from __future__ import annotations

import inspect
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastloss as fl
from fastloss.report.losses import render_losses
from fastloss_kernels.cpu.ranking import make_rank
from fastloss_kernels.losses import LOSSES
from fastloss_kernels.rankings import RANKINGS, RecallAtK, ReciprocalRank
from tests.oracles import ranking as oracle

SPACES = ("logit", "prob", "logprob", "margin", "value", "score")


def units(found: float, exact: Fraction) -> float:
    """Return how many units in the last place a number is off."""
    return float(abs(Fraction(found) - exact) / Fraction(math.ulp(float(exact)))) if exact else float(found != 0)


@pytest.mark.parametrize("k", [None, 1, 2, 4])
def test_reciprocal_rank_is_the_mean_over_every_order_of_ties(k: int | None) -> None:
    random = np.random.default_rng(3)
    labels, scores = [], []
    while len(labels) < 150:
        n = int(random.integers(1, 7))
        label = random.integers(0, 3, n).astype(float)
        if label.any():
            labels.append(label)
            scores.append(random.integers(0, 3, n) / 4)
    found = ReciprocalRank(k)(labels, prob=scores)
    for value, label, score in zip(found, labels, scores, strict=True):
        exact = oracle.reciprocal_rank(label.tolist(), score.tolist(), math.inf if k is None else k)
        assert units(value, exact) <= 0.5


@pytest.mark.parametrize(
    ("above", "tied", "relevant", "k"),
    [
        (0, 2000, 1, None),
        (7, 3000, 3, None),
        (2, 1500, 700, None),
        (0, 1200, 1200, None),
        (5, 2500, 2, 40),
    ],
)
def test_long_ties_keep_their_digits(above: int, tied: int, relevant: int, k: int | None) -> None:
    score = np.repeat([1.0, 0.0], [above, tied])
    label = np.repeat([0.0, 1.0, 0.0], [above, relevant, tied - relevant])
    exact = oracle.reciprocal_rank_of_ties(above, tied, relevant, math.inf if k is None else k)
    assert units(ReciprocalRank(k)([label], value=[score])[0], exact) <= 0.5
    # The order of the candidates in the list does not matter.
    order = np.random.default_rng(1).permutation(len(score))
    moved = ReciprocalRank(k)([label[order]], value=[score[order]])
    assert moved[0] == ReciprocalRank(k)([label], value=[score])[0]


@pytest.mark.parametrize("carried", [0, 1, 2], ids=["alone", "key before labels", "weight after labels"])
@pytest.mark.parametrize("few", [False, True], ids=["positives", "few positives"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_lists_are_sorted_by_score_then_by_what_decides_ties(carried: int, sign: float, few: bool) -> None:
    random = np.random.default_rng(8)
    lengths = [0, 1, 2, 5, 25, 32, 33, 70, 400, 3000, 5000]
    offsets = np.append(0, np.cumsum(lengths))
    n = int(offsets[-1])
    rising = np.arange(n, dtype=float)
    for score in (random.random(n), random.integers(-1, 3, n) / 2, rising, -rising, np.minimum(rising, rising[::-1])):
        label, extra = random.integers(0, 3, n).astype(float), random.integers(0, 3, n) / 4
        if few:
            label[random.random(n) < 0.9] = 0.0
        else:
            score[random.random(n) < 0.05] = np.nan
            score[random.random(n) < 0.05] = -math.inf
        arrays = [np.array(a) for a in (score, offsets, label, offsets, extra[: n * (carried > 0)])]
        found = [np.empty(len(offsets), np.int64), np.empty(n), np.empty(n), np.empty(n * (carried > 0))]
        for array in arrays:
            array.flags.writeable = False
        make_rank(carried)(*arrays, -1e308, sign, False, *found)
        where = found[0]
        for k, length in enumerate(lengths):
            # NumPy's sort of several keys, the last of which decides first.
            candidates = offsets[k] + np.flatnonzero(score[offsets[k] : offsets[k] + length] >= -1e308)
            keys = {0: (-sign * label, -score), 1: (-sign * label, -extra, -score), 2: (-extra, -sign * label, -score)}
            order = candidates[np.lexsort([key[candidates] for key in keys[carried]])]
            expected = [given[order] for given in (score, label, extra)[: 2 + (carried > 0)]]
            values = [values[where[k] : where[k + 1]] for values in found[1:] if len(values)]
            if not expected[1].any():
                # In whatever order.
                assert sorted(values[0]) == sorted(expected[0])
                continue
            if few and carried == 0:
                # Between two positives, candidates of label 0 may stand in any order.
                gap = np.cumsum(expected[1] > 0)
                assert values[1].tolist() == expected[1].tolist()
                values[0] = values[0][np.lexsort((-values[0], values[1] == 0.0, gap))]
            assert [v.tolist() for v in values] == [e.tolist() for e in expected]


def test_a_strict_order_has_no_equal_scores() -> None:
    arrays = [np.array(a) for a in ([2.0, 5.0, 2.0, math.nan, 5.0, 1.0], [0, 5, 6], [1.0, 0.0, 0.0, 1.0, 2.0, 1.0])]
    score, offsets, label = arrays
    found = [np.empty(3, np.int64), np.empty(6), np.empty(6), np.empty(0)]
    for array in arrays:
        array.flags.writeable = False
    nothing = np.empty(0)
    nothing.flags.writeable = False
    make_rank(0)(score, offsets, label, offsets, nothing, -math.inf, -1.0, True, *found)
    assert found[0].tolist() == [0, 4, 5]
    assert found[1][:5].tolist() == [-1.0, -2.0, -3.0, -4.0, -1.0]
    # Pessimistic: of equal scores the lowest label comes first.
    assert found[2][:5].tolist() == [0.0, 2.0, 0.0, 1.0, 1.0]


def test_a_list_without_a_relevant_candidate_is_what_it_is_said_to_be() -> None:
    table = pa.table({"y": [[0.0, 1.0], [0.0, 0.0]], "s": [[2.0, 1.0], [2.0, 1.0]]})
    metrics = ["mrr", "mrr(empty=zero)", "mrr@1(empty=one)"]
    result = fl.evaluate(table, label="y", logit="s", metrics=metrics)
    assert [(v.metric, v.value, v.n) for v in result.values] == [
        ("reciprocal_rank", 0.5, 1),
        ("reciprocal_rank(empty='zero')", 0.25, 2),
        ("reciprocal_rank@1(empty='one')", 0.5, 2),
    ]
    assert ReciprocalRank(empty="one")([[0.0, 0.0]], value=[[1.0, 2.0]])[0] == 1.0
    with pytest.raises(
        fl.DataError, match=r"row 1: column 'y' has a list without a label above 0, which empty='error'"
    ):
        fl.evaluate(table, label="y", logit="s", metrics=["mrr(empty=error)", "mrr"])
    dropped = fl.evaluate(table, label="y", logit="s", metrics=["mrr(empty=error)"], on_bad_row="drop")
    assert [(value.value, value.n) for value in dropped.values] == [(0.5, 1)]
    assert [d["cause"] for d in dropped.rows["dropped"]] == ["missing_positive"]
    rows = pa.table({"g": [0, 0, 1], "y": [0.0, 1.0, 0.0], "s": [2.0, 1.0, 2.0]})
    with pytest.raises(fl.DataError, match=r"g = 1: column 'y' has a list without a label above 0"):
        fl.evaluate(rows, label="y", logit="s", metrics="mrr(empty=error)", group="g")
    with pytest.raises(ValueError, match=r"List 1 has no label above 0, which empty='error' refuses"):
        ReciprocalRank(empty="error")([[1.0, 0.0], [0.0, 0.0]], value=[[1.0, 2.0]] * 2)
    with pytest.raises(fl.UsageError, match=r"empty is 'nothing'; allowed: 'skip' or 'zero' or 'one' or 'error'"):
        fl.evaluate(table, label="y", logit="s", metrics="mrr(empty=nothing)")


def test_relevant_candidates_at_minus_infinity_are_ranked_where_it_is_a_score() -> None:
    # They were taken for masked ones, and had the value 0.
    assert ReciprocalRank()([[0.0, 1.0, 0.0]], score=[[1.0, -math.inf, -math.inf]])[0] == 5 / 12


def test_rankings_are_objects_that_read_columns_of_lists() -> None:
    label, score = pa.array([[0.0, 1.0], None, [1.0, 0.0]]), pa.array([[1.0, 2.0], [1.0, 2.0], [None, 1.0]])
    found = fl.rankings.ReciprocalRank()(label, score=score)
    assert found[0] == 1.0
    assert np.isnan(found[1:]).all()
    assert {kind.__name__ for kind in fl.rankings.RANKINGS} < set(dir(fl.rankings))


def test_graded_labels_masks_and_zeros() -> None:
    loss = ReciprocalRank()
    # A label above 0 is relevant, however high; a label of 0 or below is not.
    assert loss([[0.0, 3.0, 1.0]], margin=[[9.0, 2.0, 5.0]])[0] == 0.5
    assert loss([[-1.0, 0.25]], margin=[[9.0, 2.0]])[0] == 0.5
    # A masked candidate is not ranked.
    assert loss([[0.0, 1.0]], logit=[[-math.inf, 2.0]])[0] == 1.0
    assert loss([[0.0, 1.0, 0.0]], value=[[None, 2.0, 3.0]])[0] == 0.5
    # −0 and 0 are tied.
    assert loss([[0.0, 1.0]], value=[[0.0, -0.0]])[0] == 0.75
    # Without a relevant candidate there is no value.
    assert np.isnan(loss([[0.0, 0.0], [0.0, 1.0]], logit=[[1.0, 2.0], [1.0, None]])).all()


def test_an_evaluation_averages_a_ranking_over_lists() -> None:
    table = pa.table(
        {
            "y": [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0, 0.0]],
            "s": [[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [1.0, 1.0, 3.0]],
            "w": [1.0, 2.0, 8.0, 1.0],
            "c": ["a", "a", "a", "b"],
        }
    )
    request: dict[str, Any] = {"label": "y", "logit": "s", "metrics": ["mrr", "mrr@2"]}
    result = fl.evaluate(table, **request, weight="w")
    third = (0.5 + 1 / 3) / 2
    assert result["reciprocal_rank"] == pytest.approx((1 * 0.5 + 2 * 1 + third) / 4, rel=1e-15)
    assert result["reciprocal_rank@2"] == pytest.approx((1 * 0.5 + 2 * 1 + 0.25) / 4, rel=1e-15)
    assert [value.n for value in result.values] == [3, 3]
    assert [(d["cause"], d["rows"]) for d in result.rows["dropped"]] == [("no_positive", 1)]
    sliced = fl.evaluate(table, **request, by=["c"])
    assert {(v.metric, v.slice["c"]): v.value for v in sliced.values if v.slice} == {
        ("reciprocal_rank", "a"): 0.75,
        ("reciprocal_rank", "b"): pytest.approx(third, rel=1e-15),
        ("reciprocal_rank@2", "a"): 0.75,
        ("reciprocal_rank@2", "b"): 0.25,
    }
    # A loss beside it leaves it as it was.
    beside = fl.evaluate(table, label="y", logit="s", weight="w", metrics=["mrr", "lambda_rank"])
    assert beside["reciprocal_rank"] == result["reciprocal_rank"]


def test_what_has_no_gradient_is_refused_where_one_is_needed(tmp_path: Any) -> None:
    with pytest.raises(TypeError, match=r"reciprocal_rank is a ranking metric, which has no gradient"):
        ReciprocalRank().gradient([[0.0, 1.0]], logit=[[1.0, 2.0]])
    with pytest.raises(fl.UsageError, match=r"reciprocal_rank is a metric; an objective needs a loss"):
        fl.objective("mrr")
    table = pa.table({"y": [[0.0, 1.0]], "s": [[2.0, 1.0]]})
    with pytest.raises(fl.UsageError, match=r"reciprocal_rank has no gradient; name a loss"):
        fl.score(table, tmp_path / "out.parquet", label="y", logit="s", loss="mrr")
    with pytest.raises(fl.UsageError, match=r"reciprocal_rank reads lists of predictions"):
        fl.evaluate(pa.table({"y": [0.0], "s": [1.0]}), label="y", logit="s", metrics="mrr")
    with pytest.raises(fl.UsageError, match=r"k is 0; allowed: k >= 1"):
        fl.evaluate(table, label="y", logit="s", metrics="mrr(k=0)")
    with pytest.raises(fl.UsageError, match=r"k is 2\.5; allowed: a whole number"):
        fl.evaluate(table, label="y", logit="s", metrics="mrr(k=2.5)")


@pytest.mark.parametrize("kind", RANKINGS, ids=lambda kind: kind.name)
def test_every_ranking_declares_what_a_listwise_loss_declares(kind: Any) -> None:
    ranking = kind()
    assert set(ranking.formulas) == set(SPACES)
    assert kind.__doc__
    assert kind.source
    arguments = ["score", "label", "parameters", "scratch", "gradient", "hessian", "derivatives"]
    assert {tuple(inspect.signature(row).parameters) for row in ranking.formulas.values()} == {tuple(arguments)}
    assert ranking.parameters("score")[0] != ranking.parameters("score")[0]
    assert kind(empty="one").parameters("score")[0] == 1.0
    assert "ranking metric" in render_losses(kind.name)
    taken = {name for loss in LOSSES for name in (loss.name, *loss.aliases, loss.__name__)}
    assert not taken & {kind.name, *kind.aliases, kind.__name__}
    with pytest.raises(ValueError, match="is the name of a shipped loss"):
        fl.losses.define(lambda prediction, label: (prediction - label) ** 2, name=kind.name)


def test_minus_infinity_is_the_lowest_score_in_every_space() -> None:
    # A relevant candidate with the logit −∞ is one that was not found, and no missing one.
    label, score = [[0.0, 1.0, 1.0]], [[1.0, 2.0, -math.inf]]
    assert RecallAtK(2)(label, logit=score)[0] == 0.5
    assert ReciprocalRank()([[0.0, 1.0]], margin=[[5.0, -math.inf]])[0] == 0.5
    table = pa.table({"y": [*label, [1.0, 0.0]], "s": [*score, [-math.inf, -math.inf]]})
    found = fl.evaluate(table, label="y", logit="s", metrics=["recall@2", "map", "gauc"])
    assert found["recall@2"] == 0.75
    assert found["map"] == pytest.approx(((1 + 2 / 3) / 2 + 0.75) / 2, rel=1e-15)
    # Each group is what its rows are alone.
    rows = pa.table({"g": [0, 0, 0, 1, 1], "y": [0, 1, 1, 1, 0], "s": [1.0, 2.0, *[-math.inf] * 3]})
    by_group = fl.evaluate(rows, label="y", logit="s", metrics=["roc_auc", "gauc"], group="g", by="g")
    values = {(v.metric, v.slice["g"]): v.value for v in by_group.values if v.slice}
    assert {key[1]: value for key, value in values.items() if key[0] == "roc_auc"} == {0: 0.5, 1: 0.5}
    assert {key[1]: value for key, value in values.items() if "gauc" in key[0]} == {0: 0.5, 1: 0.5}


@pytest.mark.slow
def test_a_loss_beside_a_ranking_leaves_out_what_it_has_no_probability_for() -> None:
    table = pa.table({"y": [[0.0, 1.0, 1.0], [1.0, 0.0]], "s": [[1.0, 2.0, -math.inf], [-math.inf, -math.inf]]})
    beside = fl.evaluate(table, label="y", logit="s", metrics=["recall@2", "lambda_rank"])
    assert beside["recall@2"] == 0.5
    assert [(value.metric, value.n) for value in beside.values] == [("recall@2", 1), ("lambda_rank", 1)]
