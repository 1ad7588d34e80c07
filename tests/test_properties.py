"""Laws that hold for every loss in an evaluation, whatever its formula: weights, order, pieces, threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastloss as fl
from fastloss.metrics.means import MeanLoss
from fastloss_kernels.losses import LOSSES, ListwiseLoss, Loss
from tests.oracles.list_losses import LISTS, Lists
from tests.test_list_losses import labels_of as list_labels
from tests.test_list_losses import random_scores as list_scores
from tests.test_losses import labels_of, random_scores

CASES = [pytest.param(loss(), space, id=f"{loss.__name__}-{space}") for loss in LOSSES for space in loss().formulas]
ROWS = 60


def random_log(loss: Loss, space: str) -> pa.Table:
    random = np.random.default_rng(11)
    weight = random.integers(0, 3, ROWS).astype(np.float64)
    columns: dict[str, Any] = {"w": weight, "k": random.integers(0, 4, ROWS)}
    if isinstance(loss, ListwiseLoss):
        kind = LISTS.get(type(loss).__name__, Lists()).labels[0]
        lengths = random.integers(2, 9, ROWS)
        labels = [list_labels(kind, n, random) for n in lengths]
        columns["s"] = [list_scores(space, n, random) for n in lengths]
        columns["y"] = [int(label[0]) for label in labels] if loss.label_kind == "index" else labels
    else:
        labels = [y for _, y in labels_of(loss) if abs(y) < 1e6]
        columns["s"] = random_scores(loss, space, ROWS)
        columns["y"] = random.choice(labels, ROWS)
    return pa.table(columns)


def values(log: pa.Table, loss: Loss, space: str, **options: Any) -> list[tuple[Any, ...]]:
    found = fl.evaluate(log, label="y", weight="w", by="k", metrics=[loss], **{space: "s"}, **options)
    return [(tuple(v.slice.items()), v.value, v.weight) for v in found.values]


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_a_weight_of_two_is_the_row_twice_and_a_weight_of_zero_is_no_row(loss: Loss, space: str) -> None:
    log = random_log(loss, space)
    weights = log["w"].to_numpy().astype(int)
    repeated = log.take(np.repeat(np.arange(ROWS), weights))
    repeated = repeated.set_column(0, "w", pa.array(np.ones(len(repeated))))
    assert values(repeated, loss, space) == values(log, loss, space)


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_order_pieces_and_threads_change_no_bit(loss: Loss, space: str) -> None:
    log = random_log(loss, space)
    expected = values(log, loss, space)
    assert values(log, loss, space, batch_rows=1) == expected
    shuffled = log.take(np.random.default_rng(2).permutation(ROWS))
    assert values(shuffled, loss, space, batch_rows=7, threads=3) == expected
    halves = pa.concat_tables([log.slice(31), log.slice(0, 31)])
    assert values(halves, loss, space) == expected


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_the_mean_is_that_of_the_array_call(loss: Loss, space: str) -> None:
    log = random_log(loss, space)
    found = fl.evaluate(log, label="y", weight="w", metrics=[loss], **{space: "s"})[MeanLoss(loss).name]
    label = log["y"].combine_chunks() if isinstance(loss, ListwiseLoss) else log["y"].to_numpy()
    score = log["s"].combine_chunks() if isinstance(loss, ListwiseLoss) else log["s"].to_numpy()
    weight = log["w"].to_numpy()
    rows = loss(label, **{space: score})
    usable = ~np.isnan(rows) & (weight > 0)
    assert usable.any()
    assert found == pytest.approx(np.average(rows[usable], weights=weight[usable]), rel=1e-13)


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_a_log_of_no_rows_has_no_loss(loss: Loss, space: str) -> None:
    empty = random_log(loss, space).slice(0, 0)
    (value,) = fl.evaluate(empty, label="y", weight="w", metrics=[loss], **{space: "s"}).values
    assert (value.value, value.reason, value.n) == (None, "no_rows", 0)


BOTH = [pytest.param(loss(), id=loss.__name__) for loss in LOSSES if {"logit", "prob"} <= set(loss().formulas)]


@pytest.mark.parametrize("loss", BOTH)
def test_logits_and_probabilities_agree_where_both_are_exact(loss: Loss) -> None:
    if isinstance(loss, ListwiseLoss):
        # Equal logits of 2, 4 and 8 candidates are probabilities without a rounding.
        sizes = [2, 4, 8]
        label: Any = [np.eye(n)[0].tolist() for n in sizes] if loss.label_kind == "list" else [0, 1, 2]
        logit = [[0.0] * n for n in sizes]
        prob = [[1.0 / n] * n for n in sizes]
    else:
        label, logit, prob = [0.0, 1.0, 0.25], [0.0, 0.0, 0.0], [0.5, 0.5, 0.5]
    assert loss(label, logit=logit) == pytest.approx(loss(label, prob=prob), rel=4e-16)
