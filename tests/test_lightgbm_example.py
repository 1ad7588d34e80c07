"""LightGBM's example of binary classification: every feature as a score, against scikit-learn.

Data: examples/binary_classification of microsoft/LightGBM. 500 rows, 28 features, some with few values and long ties;
the weights are those of the first rows of its training part.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk
from sklearn.isotonic import IsotonicRegression

import fastloss as fl

METRICS = ["roc_auc", "partial_roc_auc(max_fpr=0.3)", "average_precision", "ks", "precision(recall=0.5)"]


@pytest.fixture(scope="module")
def log(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as Parquet: label, weight, and a column for each feature."""
    folder = shared_data / "lightgbm" / "examples" / "binary_classification"
    rows = np.loadtxt(folder / "binary.test")
    weight = np.loadtxt(folder / "binary.train.weight")[: len(rows)]
    columns = {"label": rows[:, 0], "weight": weight} | {f"f{k}": rows[:, k] for k in range(1, rows.shape[1])}
    path = tmp_path_factory.mktemp("lightgbm") / "log.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=150)
    return path


@pytest.mark.parametrize("weight", [None, "weight"])
def test_every_feature_ranks_as_scikit_learn_says(log: Path, weight: str | None) -> None:
    table = pq.read_table(log)
    features = [name for name in table.column_names if name.startswith("f")]
    result = fl.evaluate(
        log,
        label="label",
        score={name: name for name in features},
        weight=weight,
        metrics=METRICS,
        memory="4GiB",
    )
    label = table["label"].to_numpy()
    weights = {"sample_weight": None if weight is None else table["weight"].to_numpy()}
    for name in features:
        score = table[name].to_numpy()
        false, true, _ = sk.roc_curve(label, score, drop_intermediate=False, **weights)
        precision, recall, _ = sk.precision_recall_curve(label, score, **weights)
        wanted = [
            sk.roc_auc_score(label, score, **weights),
            sk.roc_auc_score(label, score, max_fpr=0.3, **weights),
            sk.average_precision_score(label, score, **weights),
            np.abs(true - false).max(),
            precision[recall >= 0.5].max(),
        ]
        assert [result[metric][name] for metric in METRICS] == pytest.approx(wanted, rel=1e-12)


def test_thresholds_of_a_feature(log: Path) -> None:
    table = pq.read_table(log)
    label, score = table["label"].to_numpy(), table["f26"].to_numpy()
    asked = ["precision(threshold=0.9)", "recall(threshold=0.9)", "f1(threshold=0.9)", "lift@0.1"]
    found = fl.evaluate(log, label="label", score="f26", metrics=asked)
    predicted = score >= 0.9
    for metric, function in zip(asked, (sk.precision_score, sk.recall_score, sk.f1_score), strict=False):
        assert found[metric] == pytest.approx(function(label, predicted), rel=1e-15)
    top = np.argsort(-score)[:50]
    assert len(np.unique(score)) > 400
    # Where the 50th and the 51st are tied, each class of them counts in proportion.
    share = label[top].mean() / label.mean()
    tied = np.sort(-score)[49] == np.sort(-score)[50]
    assert tied or math.isclose(found["lift@0.1"], share, rel_tol=1e-12)


def test_features_as_logits_are_recalibrated_as_scikit_learn_does(log: Path) -> None:
    """Also of features with few values, whose isotonic map has few steps."""
    table = pq.read_table(log)
    asked = ["log_loss", "miscalibration", "discrimination", "uncertainty", "ece(binning=mass, n_bins=5)"]
    features = ["f1", "f9", "f26"]
    found = fl.evaluate(log, label="label", logit={name: name for name in features}, weight="weight", metrics=asked)
    label, weight = table["label"].to_numpy(), table["weight"].to_numpy()
    for name in features:
        score = table[name].to_numpy()
        best = IsotonicRegression().fit_transform(score, label, sample_weight=weight)
        predicted = 1 / (1 + np.exp(-score))
        mean, least, base = (
            sk.log_loss(label, each, sample_weight=weight)
            for each in (predicted, best, np.full(len(label), np.average(label, weights=weight)))
        )
        _, own = np.unique(score, return_inverse=True)
        mass = np.bincount(own, weight)
        bins = np.floor(5 * (np.cumsum(mass) - mass / 2) / mass.sum()).astype(int)[own]
        error = np.abs(np.bincount(bins, weight * (predicted - label))).sum() / weight.sum()
        wanted = [mean, mean - least, base - least, base, error]
        names = [*asked[:-1], "expected_calibration_error(n_bins=5, binning='mass')"]
        assert [found[metric][name] for metric in names] == pytest.approx(wanted, abs=1e-12)
