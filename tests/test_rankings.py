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
from fastloss_kernels.losses import LOSSES
from fastloss_kernels.rankings import RANKINGS, ReciprocalRank
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
    request: dict[str, Any] = {"label": "y", "logit": "s", "metrics": ["mrr", "reciprocal_rank(k=2)"]}
    result = fl.evaluate(table, **request, weight="w")
    third = (0.5 + 1 / 3) / 2
    assert result["reciprocal_rank"] == pytest.approx((1 * 0.5 + 2 * 1 + third) / 4, rel=1e-15)
    assert result["reciprocal_rank(k=2)"] == pytest.approx((1 * 0.5 + 2 * 1 + 0.25) / 4, rel=1e-15)
    assert [value.n for value in result.values] == [3, 3]
    assert [(d["cause"], d["rows"]) for d in result.rows["dropped"]] == [("no_positive", 1)]
    sliced = fl.evaluate(table, **request, by=["c"])
    assert {(v.metric, v.slice["c"]): v.value for v in sliced.values if v.slice} == {
        ("reciprocal_rank", "a"): 0.75,
        ("reciprocal_rank", "b"): pytest.approx(third, rel=1e-15),
        ("reciprocal_rank(k=2)", "a"): 0.75,
        ("reciprocal_rank(k=2)", "b"): 0.25,
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
    assert list(inspect.signature(kind.ranking).parameters) == ["score", "label", "parameters", "scratch"]
    assert "ranking metric" in render_losses(kind.name)
    taken = {name for loss in LOSSES for name in (loss.name, *loss.aliases, loss.__name__)}
    assert not taken & {kind.name, *kind.aliases, kind.__name__}
    with pytest.raises(ValueError, match="is the name of a shipped loss"):
        fl.losses.define(lambda prediction, label: (prediction - label) ** 2, name=kind.name)
