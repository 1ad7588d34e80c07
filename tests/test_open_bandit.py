"""Evaluate the real Open Bandit logs: each policy's clicks predicted by the item's click rate in the other's log.

Data: Saito et al., Open Bandit Dataset and Pipeline, NeurIPS 2021 datasets track (arXiv 2008.07146), 10,000 logged
impressions of each policy. Weights are inverse propensities. Everything is checked against 50 digits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import polars as pl
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss

import fastloss as fl
from fastloss.cli import main
from tests.oracles import evaluation as oracle
from tests.oracles import ranking

METRICS = ["log_loss", "normalized_entropy", "brier_score", "calibration", "ctr", "mean_prediction"]
FEATURE = "user_feature_1"


@pytest.fixture(scope="module")
def logs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both logs as Parquet in a folder with the policy as a hive key, several row groups each."""
    folder = tmp_path_factory.mktemp("open_bandit")
    frames = {
        policy: pl.read_csv(shared_data / "open_bandit" / "obd" / policy / "men" / "men.csv")
        for policy in ("bts", "random")
    }
    for policy, other in (("bts", "random"), ("random", "bts")):
        # One click and one impression more in each class, so that no item's rate is 0 or 1.
        rates = frames[other].group_by("item_id").agg(p=(pl.col("click").sum() + 1) / (pl.len() + 2))
        frame = frames[policy].join(rates, on="item_id", how="left", maintain_order="left")
        frame = frame.with_columns(
            weight=1.0 / pl.col("propensity_score"),
            x=(pl.col("p") / (1.0 - pl.col("p"))).log(),
        ).select("click", "item_id", "position", FEATURE, "p", "x", "weight")
        (folder / f"policy={policy}").mkdir()
        frame.write_parquet(folder / f"policy={policy}" / "log.parquet", row_group_size=3_000)
    return folder


def chosen_rows(logs: Path, slice_: dict[str, Any], score: str) -> list[oracle.Row]:
    frame = pl.read_parquet(logs / "**" / "*.parquet", hive_partitioning=True)
    for key, value in slice_.items():
        frame = frame.filter(pl.col(key).eq_missing(value))
    return list(frame.select("click", score, "weight").cast(pl.Float64).iter_rows())


def evaluate(logs: Path, reader: str) -> fl.Result:
    return fl.evaluate(
        logs,
        label="click",
        predictions={"rate": fl.prob("p"), "logit": fl.logit("x")},
        weight="weight",
        metrics=METRICS,
        by=["policy", "position", FEATURE, ("policy", "position")],
        reader=reader,
    )


def test_open_bandit_against_fifty_digits(logs: Path) -> None:
    result = evaluate(logs, "pyarrow")
    assert evaluate(logs, "polars").to_json() == result.to_json()
    assert result.rows == {"read": 20_000, "used": {"rate": 20_000, "logit": 20_000}, "dropped": []}
    expected: dict[Any, dict[str, Any]] = {}
    for value in result.values:
        score = {"rate": "p", "logit": "x"}[value.model]
        key = (value.model, tuple(value.slice.items()))
        if key not in expected:
            expected[key] = oracle.evaluate(
                chosen_rows(logs, dict(value.slice), score), "prob" if score == "p" else "logit"
            )
        truth = expected[key]
        assert value.n == truth["n"]
        assert abs(value.weight - truth["weight"]) <= abs(truth["weight"]) * mpmath.mpf(2) ** -53
        if value.metric not in truth:
            assert value.value is None
            assert value.reason in {"one_class", "zero_label"}
        else:
            assert abs(value.value - truth[value.metric]) <= abs(truth[value.metric]) * mpmath.mpf("2e-15"), value
    slices = {tuple(v.slice) for v in result.values}
    assert slices == {(), ("policy",), ("position",), (FEATURE,), ("policy", "position")}
    assert result["ctr"]["rate"] == result["ctr"]["logit"]


def test_the_order_of_open_bandit_against_fractions(logs: Path) -> None:
    definitions = {
        "roc_auc": ranking.roc_auc,
        "average_precision": ranking.average_precision,
        "ks": ranking.kolmogorov_smirnov,
        "partial_roc_auc(max_fpr=0.2)": lambda rows: ranking.partial_roc_auc(rows, 0.2),
        "lift@0.05": lambda rows: ranking.lift(rows, 0.05),
    }
    result = fl.evaluate(logs, label="click", prob="p", weight="weight", metrics=list(definitions), by="policy")
    assert [value.metric for value in result.values if not value.slice] == list(definitions)
    chosen = {
        key: chosen_rows(logs, dict(key), "p") for key in {tuple(value.slice.items()) for value in result.values}
    }
    assert len(chosen) == 3
    for value in result.values:
        truth = definitions[value.metric](chosen[tuple(value.slice.items())])
        assert value.value == value.evidence["low"] == value.evidence["high"] == pytest.approx(float(truth), rel=2e-15)


@pytest.mark.parametrize("loss", ["log_loss", "brier_score"])
def test_the_calibration_of_open_bandit_against_scikit_learn(logs: Path, loss: str) -> None:
    parts = [f"{part}(loss={loss!r})" for part in ("miscalibration", "discrimination", "uncertainty")]
    errors = ["expected_calibration_error(binning='logit')", "maximum_calibration_error(n_bins=200)"]
    field = "field_calibration_error(by='policy')"
    asked = [*parts, *errors, field]
    result = fl.evaluate(logs, label="click", prob="p", weight="weight", metrics=asked, by="policy")
    score = log_loss if loss == "log_loss" else brier_score_loss
    excess = {}
    for key in ({}, {"policy": "bts"}, {"policy": "random"}):
        y, p, w = np.array(chosen_rows(logs, key, "p")).T
        best = IsotonicRegression().fit_transform(p, y, sample_weight=w)
        mean, least, base = (
            score(y, each, sample_weight=w) for each in (p, best, np.full(len(y), np.average(y, weights=w)))
        )
        wanted = [mean - least, base - least, base]
        for bins in (np.floor(np.log(p / (1 - p)) + 10).astype(int), np.floor(200 * p).astype(int)):
            gaps, weights = np.abs(np.bincount(bins, w * (p - y))), np.bincount(bins, w)
            used = weights > 0
            wanted.append(gaps.sum() / w.sum() if len(wanted) == 3 else (gaps[used] / weights[used]).max())
        found = [value.value for value in result.values if value.slice == key][:5]
        assert found == pytest.approx(wanted, abs=1e-12)
        excess[len(key), *key.values()] = np.abs((w * (p - y)).sum()), w.sum()
    (_, whole), *each = excess.values()
    assert result[field] == pytest.approx(sum(distance for distance, _ in each) / whole, rel=1e-12)


def test_open_bandit_on_the_command_line(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", str(logs), "--label", "click", "--prob", "p", "--weight", "weight", "--by", "position"]
    assert main([*command, "--format", "json", "-m", ",".join(METRICS)]) == 0
    parsed = json.loads(capsys.readouterr().out)
    result = fl.evaluate(logs, label="click", prob="p", weight="weight", by="position", metrics=METRICS)
    assert parsed == json.loads(result.to_json())
    # The log's own facts, from math.fsum over all rows: 69 and 46 clicks.
    unweighted = fl.evaluate(logs, label="click", prob="p", metrics="ctr", by="policy")
    clicks = {v.slice["policy"]: v.value * v.n for v in unweighted.values if v.slice}
    assert clicks == {"bts": pytest.approx(69), "random": pytest.approx(46)}
