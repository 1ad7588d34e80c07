"""Scores that many rows share among many others, as defaults and clipped ranges have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import fastloss as fl

FAMILIES = ["roc_auc", "average_precision", "ks", "partial_roc_auc", "lift@0.1", "miscalibration", "discrimination"]
POINTS = ["precision(recall=0.5{})", "recall(precision=0.3{})", "recall(false_positive_rate=0.02{})"]
METRICS = [*FAMILIES, *(name.format("") for name in POINTS)]
EXACT = [
    *("lift(top=0.1,exact=true)" if name == "lift@0.1" else f"{name}(exact=true)" for name in FAMILIES),
    *(name.format(",exact=true") for name in POINTS),
]


def log_of(kind: str, n: int = 260_000) -> pl.DataFrame:
    generator = np.random.default_rng(7)
    score = generator.normal(size=n) - 2.0
    label = (generator.random(n) < 1.0 / (1.0 + np.exp(-score))).astype(np.int8)
    drawn = generator.random(n)
    score = {
        "a default": lambda: np.where(drawn < 0.3, -1.2345, score),
        "two defaults": lambda: np.where(drawn < 0.05, 0.0, np.where(drawn > 0.9, -3.3, score)),
        "a clipped range": lambda: np.clip(score, -3.1, 0.7),
        "infinities": lambda: np.where(drawn < 0.1, np.inf, np.where(drawn > 0.95, -np.inf, score)),
    }[kind]()
    weight = generator.random(n)
    return pl.DataFrame({"y": label, "s": score, "w": weight, "k": generator.integers(0, 2, n)})


@pytest.mark.parametrize(
    ("kind", "weight"),
    [
        ("a default", None),
        ("infinities", "w"),
        pytest.param("two defaults", "w", marks=pytest.mark.slow),
        pytest.param("a clipped range", None, marks=pytest.mark.slow),
    ],
)
def test_bounds_hold_and_are_near_each_other(kind: str, weight: str | None) -> None:
    log = log_of(kind)
    space = {"margin": "s"} if kind == "infinities" else {"logit": "s"}
    metrics, exact = METRICS, EXACT
    if kind == "infinities":
        metrics, exact = ([m for m in all_of if "calib" not in m and "discr" not in m] for all_of in (METRICS, EXACT))
    asked = {"label": "y", **space, "weight": weight, "by": "k"}
    found = fl.evaluate(log, metrics=metrics, **asked)
    for value, right in zip(found.values, fl.evaluate(log, metrics=exact, **asked).values, strict=True):
        assert (value.value is None) == (right.value is None), value
        if value.value is None:
            assert value.reason == right.reason == "precision_not_reached"
            continue
        low, high = value.evidence["low"], value.evidence["high"]
        assert low <= value.value <= high
        assert low <= right.value <= high
        assert high - low <= 1e-3 * max(1.0, high), value


def test_one_pass_alone_leaves_the_order_open(tmp_path: Path) -> None:
    log = log_of("a default")
    asked = {"label": "y", "logit": "s", "metrics": "roc_auc"}
    whole = fl.evaluate(log, **asked)
    stream = fl.evaluate(log.to_arrow().to_reader(), **asked)
    saved = fl.evaluate(log, **asked, state=str(tmp_path / "state.arrow"))
    for one_pass in (stream, saved, fl.merge([str(tmp_path / "state.arrow")])):
        (value,) = one_pass.values
        assert (value.value, value.reason) == (None, "scores_too_close")
    assert whole.values[0].value is not None


def test_the_values_are_the_same_for_every_order_and_division(tmp_path: Path) -> None:
    log = log_of("a default")
    asked = {"label": "y", "logit": "s", "weight": "w", "metrics": FAMILIES[:3], "by": "k"}
    whole = fl.evaluate(log, **asked).to_dict()["values"]
    shuffled = log.sample(fraction=1.0, shuffle=True, seed=3)
    shuffled.write_parquet(tmp_path / "log.parquet", row_group_size=30_000)
    assert fl.evaluate(tmp_path / "log.parquet", threads=3, batch_rows=7_000, **asked).to_dict()["values"] == whole


@pytest.mark.parametrize(("kind", "n_passes"), [("smooth", 1), ("a default", 2)])
def test_smooth_scores_take_one_pass_in_small_weighted_slices_too(kind: str, n_passes: int) -> None:
    log = log_of("a default")
    generator = np.random.default_rng(11)
    if kind == "smooth":
        log = log.with_columns(pl.Series("s", generator.normal(size=len(log))))
    log = log.with_columns(pl.Series("k", generator.integers(0, 300, len(log)) ** 2 // 900))
    seen: list[int] = []
    asked = {"label": "y", "logit": "s", "weight": "w", "metrics": "roc_auc", "by": "k"}
    fl.evaluate(log, **asked, progress=lambda done: seen.append(done.rows))
    assert seen.count(len(log)) == n_passes
