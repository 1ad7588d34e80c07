"""Scores of which only the order counts: metrics of ranking read them, and nothing else does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from tests.conftest import Run

LOG = pa.table({"y": [0, 1, 0, 1], "s": [-math.inf, 7.5, -1e300, math.inf], "t": [3, 1, 2, 2]})


def test_scores_are_ranked_whatever_they_are() -> None:
    result = fl.evaluate(LOG, label="y", score={"s": "s", "t": "t"}, metrics=["roc_auc", "ctr"])
    assert result["roc_auc"] == {"s": 1.0, "t": 0.125}
    assert result["ctr"] == {"s": 0.5, "t": 0.5}


def test_order_is_what_is_asked_of_scores_by_default() -> None:
    found = fl.evaluate(LOG, label="y", score="s").values
    assert [value.metric for value in found] == ["roc_auc", "average_precision"]
    beside = fl.evaluate(LOG, label="y", score="s", logit={"other": "t"}).values
    assert {value.model for value in beside} == {"s", "other"}
    lists = pa.table({"y": [[0, 1], [1, 0]], "s": [[0.5, 0.25], [math.inf, 3.0]]})
    assert fl.evaluate(lists, label="y", score="s")["reciprocal_rank"] == 0.75


def test_it_is_declared_by_a_name_of_its_own() -> None:
    found = fl.evaluate(LOG, label="y", predictions={"a": fl.ranking_score("s")}, metrics=["roc_auc"])
    assert found["roc_auc"] == 1.0
    with pytest.raises(fl.UsageError, match=r"a column that is only an order is ranking_score\('c'\)"):
        fl.evaluate(LOG, label="y", predictions={"a": fl.score})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "metric", ["log_loss", "hinge", "mean_squared_error", "normalized_entropy", "calibration", "mean_prediction"]
)
def test_what_is_no_order_refuses_it(metric: str) -> None:
    with pytest.raises(fl.UsageError, match=r" reads \w+=.*; the prediction 's' was declared score=\.$"):
        fl.evaluate(LOG, label="y", score="s", metrics=[metric])


def test_nan_is_a_bad_row() -> None:
    log = pa.table({"y": [0, 1], "s": np.array([math.nan, 1.0])})
    with pytest.raises(fl.DataError, match="score column 's' is nan; allowed: score is a number"):
        fl.evaluate(log, label="y", score="s")


def test_no_loss_is_defined_of_it() -> None:
    with pytest.raises(ValueError, match="space is 'score'; allowed: 'logit', 'prob', 'logprob', 'margin', 'value'"):
        fl.losses.define(lambda score, label: score - label, name="of_scores", space="score")
    with pytest.raises(TypeError, match="got score"):
        fl.losses.Hinge()([1.0], score=[0.5])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pq.write_table(LOG, tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


def test_the_command_line_has_it(path: Path, run: Run, fails: Any) -> None:
    status, out, _ = run("eval", path, "--label", "y", "--score", "s", "--score", "b=t", "--format", "json")
    assert status == 0
    values = json.loads(out)["values"]
    assert [(v["model"], v["value"]) for v in values if v["metric"] == "roc_auc"] == [("s", 1.0), ("b", 0.125)]
    said = fails("eval", path, "--label", "y", "--score", "s", "-m", "log_loss")
    assert said.endswith("the prediction 's' was declared --score.\n")
    said = fails("score", path, path.parent / "o.parquet", "--label", "y", "--score", "s", "--loss", "log_loss")
    assert "score='s' is an order alone, of which a row has no loss" in said


def test_a_file_of_evaluations_has_it(path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (path.parent / "fastloss.toml").write_text(
        '[evaluations.order]\nlog = "log.parquet"\nlabel = "y"\nscore = { a = "s" }\nformat = "json"\n'
    )
    monkeypatch.chdir(path.parent)
    status, out, err = run("run", "order")
    assert (status, err) == (0, "")
    assert json.loads(out)["values"][0]["model"] == "a"


def test_the_function_score_is_no_column_of_scores() -> None:
    with pytest.raises(fl.UsageError, match=r"needs out=, label=, loss= .* fastloss\.ranking_score\('s'\)\.$"):
        fl.evaluate("log", label="y", predictions={"a": fl.score("s")})  # type: ignore[call-arg]
