"""Calibration maps: the coefficients of logistic regression without penalty, in a few passes of exact sums."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
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
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

import fastloss as fl
from fastloss.calibration.buckets import Steps
from fastloss.calibration.newton import MOST_PASSES
from fastloss.columns.mapping import bind_map
from fastloss.maps import CalibrationMap, Mapped
from fastloss.metrics.quantities import FitTerms
from fastloss.states.base import RowSet
from fastloss.states.several_sums import SeveralSums, SeveralSumsColumn

Floats = NDArray[np.float64]


def make_log(seed: int, n: int = 3000, ties: int = 0) -> dict[str, Floats]:
    """Scores that claim too much, labels, weights and soft labels; with ties, so many different scores."""
    random = np.random.default_rng(seed)
    x = random.normal(-1.0, 2.0, n)
    if ties:
        x = np.round(x * ties) / ties
    rate = 1.0 / (1.0 + np.exp(-(0.6 * x + 0.4)))
    return {
        "x": x,
        "y": (random.random(n) < rate).astype(np.float64),
        "w": random.choice([0.25, 1.0, 3.7], n),
        "soft": np.round(random.beta(20.0 * rate, 20.0 * (1.0 - rate)), 3),
    }


def oracle(x: Floats, y: Floats, w: Floats | None = None, intercept: bool = True) -> list[float]:
    """The coefficients that scikit-learn finds; a soft label is two rows."""
    w = np.ones(len(x)) if w is None else w
    features = x[:, None] if x.ndim == 1 else x
    model = LogisticRegression(C=np.inf, tol=1e-14, solver="newton-cholesky", max_iter=200, fit_intercept=intercept)
    model.fit(
        np.concatenate([features, features]),
        np.repeat([1.0, 0.0], len(y)),
        sample_weight=np.concatenate([w * y, w * (1.0 - y)]),
    )
    return [*model.coef_[0].tolist(), *(model.intercept_.tolist() if intercept else [])]


def coefficients(found: fl.Calibration) -> list[float]:
    return list(found.map.coefficients)


@pytest.mark.parametrize(
    ("label", "weight", "ties"), [("y", None, 0), ("y", "w", 8), ("soft", "w", 0)], ids=["plain", "ties", "soft"]
)
@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_agrees_with_scikit_learn(method: Any, label: str, weight: str | None, ties: int) -> None:
    log = make_log(1, ties=ties)
    found = fl.calibrate(pa.table(log), label=label, logit="x", weight=weight, method=method)
    wanted = oracle(log["x"], log[label], None if weight is None else log[weight], intercept=method == "platt")
    assert coefficients(found) == pytest.approx(wanted, rel=1e-9)
    # One pass for the scores, and few for what the histogram, which is exact here, has found already.
    assert found.map.fit["passes"] <= 4


def beta_features(x: Floats) -> Floats:
    return np.stack([-np.logaddexp(0.0, -x), np.logaddexp(0.0, x)], axis=1)


def test_beta_agrees_with_scikit_learn_on_its_features() -> None:
    log = make_log(20, ties=32)
    found = fl.calibrate(pa.table(log), label="soft", logit="x", weight="w", method="beta")
    wanted = oracle(beta_features(log["x"]), log["soft"], log["w"])
    assert coefficients(found) == pytest.approx(wanted, rel=1e-9)
    assert min(wanted[:2]) > 0.0


@pytest.mark.parametrize(
    ("kept", "slopes"), [(1, (-0.4, 1.2)), pytest.param(0, (1.2, -0.4), marks=pytest.mark.slow)], ids=["b", "a"]
)
def test_beta_leaves_out_the_feature_that_turns_negative(kept: int, slopes: tuple[float, float]) -> None:
    log = make_log(21)
    features = beta_features(log["x"])
    rate = 1.0 / (1.0 + np.exp(-(features @ np.array(slopes) + 0.2)))
    log["y"] = (np.random.default_rng(0).random(len(rate)) < rate).astype(np.float64)
    assert oracle(features, log["y"])[1 - kept] < 0.0
    found = coefficients(fl.calibrate(pa.table(log), label="y", logit="x", method="beta"))
    slope, constant = oracle(features[:, [kept]], log["y"])
    assert found == pytest.approx([*((0.0, slope) if kept else (slope, 0.0)), constant], rel=1e-9)


def test_beta_that_would_fall_is_refused() -> None:
    log = make_log(22)
    with pytest.raises(fl.DataError, match="no increasing beta map"):
        fl.calibrate(pa.table({**log, "y": 1.0 - log["y"]}), label="y", logit="x", method="beta")
    two = pa.table({"x": [0.0, 0.0, 1.0, 1.0], "y": [0.0, 1.0, 0.0, 1.0]})
    with pytest.raises(fl.DataError, match="too few different numbers for a map by 'beta'"):
        fl.calibrate(two, label="y", logit="x", method="beta")


@pytest.mark.parametrize(("label", "ties"), [("y", 0), ("soft", 8)])
def test_isotonic_has_the_knots_of_scikit_learn(label: str, ties: int) -> None:
    log = make_log(23, ties=ties)
    found = fl.calibrate(pa.table(log), label=label, logit="x", weight="w", method="isotonic")
    fitted = IsotonicRegression(out_of_bounds="clip").fit(log["x"], log[label], log["w"])
    scores, rates = zip(*found.map.knots, strict=True)
    assert scores == tuple(fitted.X_thresholds_.tolist())
    assert rates == pytest.approx(fitted.y_thresholds_.tolist(), rel=1e-12, abs=1e-300)
    assert found.log_loss_after == found.log_loss_isotonic
    table = pa.table({**log, "q": fitted.predict(log["x"])})
    after = fl.evaluate(table, label=label, prob="q", weight="w", metrics="log_loss").values[0].value
    applied = fl.evaluate(table, label=label, logit="x", weight="w", metrics="log_loss", apply=found).values[0].value
    assert [applied, found.log_loss_after] == pytest.approx([after, after], rel=1e-12)


def test_isotonic_takes_what_other_maps_refuse() -> None:
    table = pa.table({"x": [1.0, 2.0, 2.0, 3.0], "y": [0.0, 0.0, 1.0, 1.0]})
    found = fl.calibrate(table, label="y", logit="x", method="isotonic")
    assert found.map.knots == ((1.0, 0.0), (2.0, 0.5), (3.0, 1.0))
    assert found.log_loss_after == pytest.approx(np.log(2.0) / 2.0, rel=1e-15)
    one = fl.calibrate(pa.table({"x": [1.0, 1.0], "y": [0.0, 1.0]}), label="y", logit="x", method="isotonic")
    assert one.map.knots == ((1.0, 0.5),)
    refused(fl.DataError, "Every label is 1, and", [1.0, 2.0], [1.0, 1.0], method="isotonic")
    refused(fl.DataError, "No row was used", [], [], method="isotonic")


def test_isotonic_on_buckets_covers_every_score() -> None:
    log = many_rows()
    log["p"] = np.clip(1.0 / (1.0 + np.exp(-log["x"])), 0.0, 1.0)
    log["p"][:3] = 0.0, 1.0, 1.0
    found = fl.calibrate(pa.table(log), label="y", prob="p", method="isotonic")
    exact = IsotonicRegression(out_of_bounds="clip").fit(log["p"], log["y"]).predict(log["p"])
    before, best = (
        fl.evaluate(pa.table({**log, "q": q}), label="y", prob="q", metrics="log_loss").values[0].value
        for q in (log["p"], exact)
    )
    # Buckets are a little coarser than scores.
    assert best <= found.log_loss_isotonic < best + 1e-5
    assert found.log_loss_before == pytest.approx(before, rel=1e-12)
    # Each row lies on a step, so that what the steps promise is what the log gives.
    after = fl.evaluate(pa.table(log), label="y", prob="p", metrics="log_loss", apply=found).values[0].value
    assert found.log_loss_after == pytest.approx(after, rel=1e-12)
    shuffled = pa.table(log).take(np.random.default_rng(0).permutation(len(log["p"])))
    assert fl.calibrate(shuffled, label="y", prob="p", method="isotonic", threads=3).map == found.map


def test_steps_beyond_a_bound_are_put_together() -> None:
    random = np.random.default_rng(0)
    low = np.sort(random.random(1000))
    positive = np.sort(random.random(1000)) * 5.0
    steps = Steps(low, low, positive, 5.0 - positive)
    fewer = steps.at_most(20)
    assert len(fewer.low) <= 20
    assert (fewer.low[0], fewer.high[-1]) == (low[0], low[-1])
    assert (np.diff(fewer.rates) > 0.0).all()
    assert fewer.positive.sum() == pytest.approx(positive.sum(), rel=1e-12)
    assert steps.loss() < fewer.loss() < steps.loss() * 1.01
    assert steps.at_most(1000) is steps


def test_agrees_with_mpmath_on_a_few_rows() -> None:
    x, y = [-3.0, -1.5, -0.5, 0.0, 0.25, 1.0, 2.5, 4.0], [0.0, 0.0, 1.0, 0.0, 0.5, 1.0, 0.0, 1.0]
    w = [1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 0.1, 2.0]

    def gradient(a: Any, b: Any) -> list[Any]:
        residuals = [k * (1 / (1 + mpmath.exp(-(a * u + b))) - v) for u, v, k in zip(x, y, w, strict=True)]
        return [mpmath.fsum(r * u for r, u in zip(residuals, x, strict=True)), mpmath.fsum(residuals)]

    with mpmath.workdps(50):
        wanted = mpmath.findroot(gradient, (0.5, 0.0))
        found = fl.calibrate(pa.table({"x": x, "y": y, "w": w}), label="y", logit="x", weight="w")
        for ours, exact in zip(coefficients(found), wanted, strict=True):
            assert abs(ours / exact - 1) < 1e-14


def many_rows() -> dict[str, Floats]:
    log = make_log(2, 180_000)
    assert len(np.unique(log["x"])) > 131_072
    return log


def test_a_histogram_of_buckets_is_only_a_start() -> None:
    log = many_rows()
    found = fl.calibrate(pa.table(log), label="y", logit="x")
    assert coefficients(found) == pytest.approx(oracle(log["x"], log["y"]), rel=1e-9)
    assert found.map.fit["passes"] <= 5
    # As coarse as buckets come: all scores have the same leading bits.
    far = {**log, "x": log["x"] + 2.0**30}
    exact = far["x"] - 2.0**30
    found = fl.calibrate(pa.table(far), label="y", logit="x")
    slope, constant = oracle(exact, log["y"])
    assert coefficients(found) == pytest.approx([slope, constant - slope * 2.0**30], rel=1e-9)
    assert found.map.fit["passes"] < MOST_PASSES


def test_spaces_tell_the_same() -> None:
    log = make_log(3)
    x = log["x"]
    table = pa.table({**log, "p": 1.0 / (1.0 + np.exp(-x)), "l": -np.logaddexp(0.0, -x)})
    for method, space, column in (("platt", "prob", "p"), ("temperature", "logprob", "l")):
        wanted = fl.calibrate(table, label="y", logit="x", method=method)
        found = fl.calibrate(table, label="y", method=method, **{space: column})
        assert coefficients(found) == pytest.approx(coefficients(wanted), rel=1e-11)
        assert found.log_loss_before == pytest.approx(wanted.log_loss_before, rel=1e-12)
        assert found.log_loss_isotonic == pytest.approx(wanted.log_loss_isotonic, rel=1e-12)


def test_impossible_probabilities_are_clipped_where_the_log_loss_clips_them() -> None:
    log = make_log(4)
    p = 1.0 / (1.0 + np.exp(-log["x"]))
    p[:9], p[9:15] = 0.0, 1.0
    x = np.log(np.clip(p, 1e-12, 1.0)) - np.log(np.clip(1.0 - p, 1e-12, 1.0))
    table = pa.table({"p": p, "y": log["y"]})
    found = fl.calibrate(table, label="y", prob="p")
    assert coefficients(found) == pytest.approx(oracle(x, log["y"]), rel=1e-9)
    assert found.map.fit["n_clipped"] == 15
    assert "\n15 rows with a prediction within 1e-12 of 0 or 1, which the fit clips there\n" in str(found)
    small = pa.table(
        {"l": np.append(np.log(p[15:]), [-np.inf, -27.7, -27.6, -9e-13, 0.0]), "y": [*log["y"][15:], *[1.0] * 5]}
    )
    assert fl.calibrate(small, label="y", logprob="l").map.fit["n_clipped"] == 4
    for method in ("isotonic", "temperature"):
        says = "clips" in str(fl.calibrate(table, label="y", prob="p", method=method))
        assert says == (method == "temperature")
    evaluated = fl.evaluate(table, label="y", prob="p", metrics="log_loss")
    assert found.log_loss_before == pytest.approx(evaluated.values[0].value, rel=1e-12)


def test_losses_before_after_and_at_best() -> None:
    log = make_log(5, ties=16)
    found = fl.calibrate(pa.table(log), label="y", logit="x", weight="w")
    before = fl.evaluate(pa.table(log), label="y", logit="x", weight="w", metrics="log_loss").values[0].value
    assert found.log_loss_before == before
    a, b = coefficients(found)
    mapped = pa.table({**log, "x": a * log["x"] + b})
    after = fl.evaluate(mapped, label="y", logit="x", weight="w", metrics="log_loss").values[0].value
    assert found.log_loss_after == pytest.approx(after, rel=1e-14)
    q = IsotonicRegression(out_of_bounds="clip").fit(log["x"], log["y"], log["w"]).predict(log["x"])
    best = fl.evaluate(pa.table({**log, "q": q}), label="y", prob="q", weight="w", metrics="log_loss")
    assert found.log_loss_isotonic == pytest.approx(best.values[0].value, rel=1e-12)
    assert found.log_loss_isotonic < found.log_loss_after < found.log_loss_before


@pytest.mark.parametrize(("factor", "says"), [(Fraction(3), "before"), (Fraction(1, 2), "by the best increasing map")])
def test_a_log_loss_that_no_best_map_has_is_never_a_result(
    monkeypatch: pytest.MonkeyPatch, stored: Path, factor: Fraction, says: str
) -> None:
    def wrong(fit: Any) -> tuple[tuple[float, ...], Any]:
        return (1.0, 0.0), fit._passes.scores().loss.units * factor

    monkeypatch.setattr("fastloss.calibration.calibrate._Fit._coefficients", wrong)
    with pytest.raises(RuntimeError, match=f"the fit of 'x' by 'platt' came to a log loss of .*{says}"):
        fl.calibrate(stored, label="y", logit="x")


def test_buckets_are_no_bound_of_maps_within_them() -> None:
    log = make_log(24, 2000)
    found = fl.calibrate(pa.table({**log, "x": log["x"] + 2.0**30}), label="y", logit="x")
    assert found.log_loss_after < found.log_loss_before
    falling = fl.calibrate(pa.table({**log, "x": -log["x"]}), label="y", logit="x")
    assert falling.log_loss_after < falling.log_loss_isotonic


def facts(log: object, **options: Any) -> str:
    return json.dumps(fl.calibrate(log, label="y", logit="x", weight="w", **options).to_dict())


def test_no_bit_depends_on_threads_batches_order_or_layout(tmp_path: Path) -> None:
    table = pa.table(make_log(6))
    expected = facts(table)
    for threads in (1, 2, 3):
        assert facts(table, threads=threads, batch_rows=1000) == expected
    assert facts(table, batch_rows=7) == expected
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    for name, start, stop in (("b", 0, 100), ("a", 100, 1713), ("c", 1713, 3000)):
        pq.write_table(shuffled.slice(start, stop - start), tmp_path / f"{name}.parquet", row_group_size=257)
    stored = json.loads(facts(tmp_path, threads=2))
    assert {**stored, "files": None} == {**json.loads(expected), "files": None}


def test_no_bit_depends_on_a_batch_of_one_row() -> None:
    table = pa.table(make_log(6, 300))
    assert facts(table, batch_rows=1) == facts(table)


def test_rows_are_those_that_the_request_keeps() -> None:
    log = make_log(7)
    table = pa.table({**log, "k": np.arange(3000) % 3, "t": np.where(log["y"] > 0.0, "yes", "no")})
    kept = table.filter(pa.array(np.arange(3000) % 3 != 1))
    wanted = coefficients(fl.calibrate(kept, label="y", logit="x"))
    found = fl.calibrate(table, label="t", positive="yes", logit="x", where="k <> 1")
    assert coefficients(found) == wanted
    assert found.rows == {"read": 3000, "filtered": 1000, "used": 2000, "dropped": []}
    signed = kept.set_column(1, "y", pa.array(2.0 * kept["y"].to_numpy() - 1.0))
    assert coefficients(fl.calibrate(signed, label="y", label_domain="pm1", logit="x")) == wanted


# ---------------------------------------------------------------------------------------------------------------
# What has no map


def refused(error: type[Exception], match: str, x: list[float], y: list[float], **options: Any) -> None:
    given = {"label": "y", "logit": "x", **options}
    with pytest.raises(error, match=match):
        fl.calibrate(pa.table({"x": pa.array(x, pa.float64()), "y": pa.array(y, pa.float64())}), **given)


rows = st.lists(
    st.tuples(st.integers(-4, 4), st.sampled_from([0.0, 0.0, 1.0, 1.0, 0.25]), st.sampled_from([1.0, 0.5, 3.0])),
    min_size=1,
    max_size=12,
)


def has_map(given_rows: list[tuple[int, float, float]], method: str) -> bool:
    """Whether a finite map is the best: the classes overlap, or each side of 0 has rows that say otherwise."""
    positive = [x for x, y, _ in given_rows if y > 0.0]
    negative = [x for x, y, _ in given_rows if y < 1.0]
    if method == "temperature":
        steeper = any(x > 0 for x in positive) or any(x < 0 for x in negative)
        return steeper and (any(x < 0 for x in positive) or any(x > 0 for x in negative))
    return bool(positive and negative) and min(positive) < max(negative) and min(negative) < max(positive)


@given(rows, st.sampled_from(["platt", "temperature"]))
def test_there_is_a_map_with_no_gradient_or_none(given_rows: list[tuple[int, float, float]], method: Any) -> None:
    x, y, w = (np.array(column, dtype=np.float64) for column in zip(*given_rows, strict=True))
    log = pa.table({"x": x, "y": y, "w": w})
    if not has_map(given_rows, method):
        with pytest.raises(fl.DataError, match=r"separable|Every label|the same number"):
            fl.calibrate(log, label="y", logit="x", weight="w", method=method)
        return
    found = fl.calibrate(log, label="y", logit="x", weight="w", method=method)
    a, *b = coefficients(found)
    with mpmath.workdps(40):
        z = [mpmath.mpf(a) * score + (b[0] if b else 0.0) for score in x.tolist()]
        residuals = [k * (1 / (1 + mpmath.exp(-u)) - v) for u, v, k in zip(z, y.tolist(), w.tolist(), strict=True)]
        curvature = [k / (2 + mpmath.exp(u) + mpmath.exp(-u)) for u, k in zip(z, w.tolist(), strict=True)]
        features = [x.tolist(), *([[1.0] * len(x)] if b else [])]
        # Rounding of coefficients moves a residual by no more than this.
        size = mpmath.fsum(c * (1 + abs(u)) for c, u in zip(curvature, z, strict=True))
        for feature in features:
            slope = mpmath.fsum(r * u for r, u in zip(residuals, feature, strict=True))
            assert abs(slope) <= 1e-13 * (1 + size) * max(1.0, *map(abs, feature))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1.0, 2.0, 3.0], [0.0, 0.0, 1.0]),
        ([1.0, 2.0, 3.0], [1.0, 1.0, 0.0]),
        ([1.0, 2.0, 2.0, 3.0], [0.0, 0.0, 1.0, 1.0]),
        ([1.0, 2.0, 3.0], [1.0, 0.5, 0.0]),
    ],
    ids=["rising", "falling", "tie", "soft"],
)
def test_separable_labels_have_no_map(x: list[float], y: list[float]) -> None:
    refused(fl.DataError, "separable by column 'x': no finite map by 'platt' exists", x, y)


def test_what_determines_no_map_is_refused() -> None:
    refused(fl.DataError, "No row was used", [], [])
    refused(fl.DataError, "Every label is 1, and", [1.0, 2.0], [1.0, 1.0])
    refused(fl.DataError, "Every label is 0, and", [1.0, 2.0], [0.0, 0.0])
    refused(fl.DataError, "the same number in every row", [1.0, 1.0], [0.0, 1.0])
    refused(fl.DataError, "separable", [1.0, -2.0], [1.0, 0.0], method="temperature")
    refused(fl.DataError, "separable", [0.0, -2.0], [1.0, 0.0], method="temperature")
    refused(fl.DataError, "the same number in every row", [0.0, 0.0], [1.0, 0.0], method="temperature")


def test_rows_that_are_not_used_are_told_by_cause() -> None:
    table = pa.table({"x": [1.0, None, 3.0, 4.0], "y": [0.0, 1.0, None, 1.0], "k": [0, 1, 1, 0]})
    says = "4 rows read, 2 rows left out by the filter, 1 null_label in y, 1 null_prediction in x."
    with pytest.raises(fl.DataError, match=f"No row was used, so no map can be fitted: {says}"):
        fl.calibrate(table, label="y", logit="x", where="k = 1")


def test_the_table_of_an_isotonic_map() -> None:
    one = fl.calibrate(pa.table({"x": [1.0, 1.0], "y": [0.0, 1.0]}), label="y", logit="x", method="isotonic")
    assert str(one).splitlines()[2:6] == [
        "isotonic: p increases with the score, linear between knots",
        "        score  probability",
        "knot  1.00000     0.500000",
        "1 knot; the map is constant before the first and after the last",
    ]


def test_one_outcome_may_have_a_temperature() -> None:
    x, y = np.array([2.0, -1.0, 3.0, -2.0]), np.ones(4)
    found = fl.calibrate(pa.table({"x": x, "y": y}), label="y", logit="x", method="temperature")
    residual = (1.0 / (1.0 + np.exp(-found.coefficients["a"] * x)) - 1.0) * x
    assert abs(residual.sum()) < 1e-15


def test_two_scores_are_mapped_to_their_rates() -> None:
    x, y, w = [-1.0, -1.0, 3.0, 3.0], [0.0, 1.0, 0.0, 1.0], [3.0, 1.0, 1.0, 4.0]
    found = fl.calibrate(pa.table({"x": x, "y": y, "w": w}), label="y", logit="x", weight="w")
    a, b = coefficients(found)
    assert [b - a, b + 3.0 * a] == pytest.approx([np.log(1 / 3), np.log(4.0)], rel=1e-14)
    assert found.log_loss_after == pytest.approx(found.log_loss_isotonic, rel=1e-14)


def test_scores_at_the_ends_of_float64_have_a_map_or_an_error() -> None:
    x, y = [-1.7e308, -1.6e308, 1.7e308, 1.6e308, -1e308, 1e308], [0.0, 1.0, 1.0, 0.0, 0.0, 1.0]
    found = fl.calibrate(pa.table({"x": x, "y": y}), label="y", logit="x")
    units = np.array(x) / 2.0**1023
    slope, constant = oracle(units, np.array(y))
    assert coefficients(found) == pytest.approx([slope * 2.0**-1023, constant], rel=1e-9, abs=1e-12)
    refused(fl.DataError, "beyond float64; scale the column", (np.array(x) / 1e308 * 1e-323).tolist(), y)


@pytest.mark.parametrize("scale", [1e-300, 1e-10, 1e10, 1e300])
def test_the_size_of_scores_does_not_matter(scale: float) -> None:
    log = make_log(8, 300)
    plain = coefficients(fl.calibrate(pa.table(log), label="y", logit="x"))
    scaled = fl.calibrate(pa.table({**log, "x": log["x"] * scale}), label="y", logit="x")
    a, b = coefficients(scaled)
    assert [a * scale, b] == pytest.approx(plain, rel=1e-11)


def test_infinite_logits_are_bad_rows() -> None:
    log = make_log(9, 300)
    x = log["x"].copy()
    x[[3, 5]] = [np.inf, -np.inf]
    says = "logit column 'x' is inf; allowed: finite logits.* where='abs\\(x\\) < 1e300'.*on_bad_row='drop' leaves"
    refused(fl.DataError, says, x.tolist(), log["y"].tolist())
    found = fl.calibrate(pa.table({**log, "x": x}), label="y", logit="x", on_bad_row="drop")
    assert (found.rows["used"], found.rows["dropped"][0]["rows"]) == (298, 2)
    filtered = fl.calibrate(pa.table({**log, "x": x}), label="y", logit="x", where="abs(x) < 1e300")
    assert filtered.map.coefficients == found.map.coefficients
    keep = np.isfinite(x)
    assert coefficients(found) == pytest.approx(oracle(x[keep], log["y"][keep]), rel=1e-9)


def test_requests_that_cannot_be_carried_out() -> None:
    table = pa.table({"x": [[1.0], [2.0]], "y": [0.0, 1.0], "z": [1.0, 2.0]})
    with pytest.raises(fl.UsageError, match="reads one number a row"):
        fl.calibrate(table, label="y", logit="x")
    with pytest.raises(fl.UsageError, match="one prediction column, as logit= or prob= or logprob=; got none"):
        fl.calibrate(table, label="y")
    with pytest.raises(fl.UsageError, match="got logit='z', prob='z'"):
        fl.calibrate(table, label="y", logit="z", prob="z")
    with pytest.raises(fl.UsageError, match="method is 'spline'; allowed: 'platt' or 'temperature' or"):
        fl.calibrate(table, label="y", logit="z", method="spline")  # type: ignore[arg-type]
    with pytest.raises(fl.UsageError, match="gives its rows once"):
        fl.calibrate(pa.RecordBatchReader.from_batches(table.schema, table.to_batches()), label="y", logit="z")


# ---------------------------------------------------------------------------------------------------------------
# The file


def test_a_map_is_written_and_read_back(tmp_path: Path) -> None:
    found = fl.calibrate(pa.table(make_log(10, 300)), label="y", logit="x", weight="w")
    found.write(tmp_path / "map.json")
    read = CalibrationMap.read(tmp_path / "map.json")
    assert read == found.map
    assert read.fit == found.map.fit
    assert read.to_dict() == json.loads((tmp_path / "map.json").read_text())
    isotonic = CalibrationMap("isotonic", "prob", (), ((0.0, 0.1), (0.3, 0.1), (0.30000000000000004, 1.0)))
    isotonic.write(tmp_path / "map.json")
    assert CalibrationMap.read(tmp_path / "map.json") == isotonic


GOOD = CalibrationMap("platt", "logit", (1.0, 2.0)).to_dict()
STEPS = CalibrationMap("isotonic", "logit", (), ((0.0, 0.1), (1.0, 0.2))).to_dict()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is no calibration map: Expecting value"),
        ("[1, 2]", "is no calibration map; name a file"),
        ("{}", "is no calibration map; name a file"),
        (json.dumps({**GOOD, "schema_version": 2}), "of version 2, and this release reads version 1"),
        (json.dumps({**GOOD, "method": "spline"}), "maps 'logit' by the method 'spline'"),
        (json.dumps({**GOOD, "space": "margin"}), "maps 'margin'"),
        (json.dumps({**GOOD, "coefficients": {"a": 1.0}}), "coefficients holds None"),
        (json.dumps({**GOOD, "coefficients": {"a": 1.0, "b": "2"}}), "coefficients holds '2'"),
        (json.dumps({**GOOD, "coefficients": {"a": 1.0, "b": True}}), "coefficients holds True"),
        (json.dumps({**GOOD, "coefficients": {"a": 1.0, "b": 10**400}}), "coefficients holds 1000"),
        (json.dumps({**GOOD, "coefficients": {"a": 1.0, "b": float("nan")}}), "it holds NaN"),
        (json.dumps({**GOOD, "coefficients": 3}), "coefficients holds None"),
        (json.dumps({**STEPS, "knots": {"score": [0, 0], "probability": [0, 1]}}), "its knots are 2 scores"),
        (json.dumps({**STEPS, "knots": {"score": [0, 1], "probability": [1, 0]}}), "its knots are 2 scores"),
        (json.dumps({**STEPS, "knots": {"score": [0, 1], "probability": [0, 1.5]}}), "its knots are 2 scores"),
        (json.dumps({**STEPS, "knots": {"score": [0], "probability": [0, 1]}}), "1 scores and 2 probabilities"),
        (json.dumps({**STEPS, "knots": {"score": [], "probability": []}}), "its knots are 0 scores"),
        ("[" * 100_000, "is no calibration map"),
        ('"\\ud800"', "is no calibration map"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(content)
    with pytest.raises(fl.UsageError) as error:
        CalibrationMap.read(path)
    assert says in str(error.value)
    assert "map.json" in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fl.UsageError, match="cannot be read: No such file"):
        CalibrationMap.read(tmp_path / "none.json")


# ---------------------------------------------------------------------------------------------------------------
# Applying


def losses(log: object, **options: Any) -> dict[str, float]:
    found = fl.evaluate(log, label="y", metrics=["log_loss", "mean_prediction"], **options)
    return {f"{value.model} {value.metric}": value.value for value in found.values}


PLATT, HALF = CalibrationMap("platt", "logit", (0.7, 0.3)), CalibrationMap("temperature", "logit", (0.5,))
BETA = CalibrationMap("beta", "logit", (0.8, 1.1, -0.2))
MAPS = {"platt": PLATT, "temperature": HALF, "beta": BETA}
STAIRS = CalibrationMap("isotonic", "prob", (), ((0.1, 0.2), (0.4, 0.3), (0.5, 0.6), (0.9, 0.8)))


def spaces_of(log: dict[str, Floats]) -> dict[str, Floats]:
    x = log["x"]
    return {**log, "p": 1.0 / (1.0 + np.exp(-x)), "l": -np.logaddexp(0.0, -x)}


@pytest.mark.parametrize("space", ["logit", "prob", "logprob"])
def test_a_map_is_its_formula(space: str) -> None:
    log = spaces_of(make_log(12, 400))
    x, p = log["x"], log["p"]
    column = {"logit": "x", "prob": "p", "logprob": "l"}[space]
    by_hand = {
        "platt": 0.7 * x + 0.3,
        "temperature": 0.5 * x,
        "beta": 0.8 * np.log(p) - 1.1 * np.log1p(-p) - 0.2,
        "rate": x + np.log(0.1),
    }
    if space == "logprob":
        # Its logit and its rate are its own; the rest is as for probabilities.
        del by_hand["beta"], by_hand["temperature"]
    table = pa.table({**log, **by_hand})
    wanted = losses(table, logit={name: name for name in by_hand})
    found = losses(
        table,
        **{space: dict.fromkeys(by_hand, column)},
        apply={name: map for name, map in MAPS.items() if name in by_hand},
        sampling_rate={"rate": 0.1},
    )
    assert found == pytest.approx(wanted, rel=1e-12)


def test_an_isotonic_map_is_that_of_scikit_learn() -> None:
    log = spaces_of(make_log(13, 400))
    scores, rates = zip(*STAIRS.knots, strict=True)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(scores, rates)
    table = pa.table({**log, "q": fitted.predict(log["p"])})
    assert losses(table, prob={"m": "p"}, apply=STAIRS) == pytest.approx(losses(table, prob={"m": "q"}), rel=1e-12)
    one = CalibrationMap("isotonic", "prob", (), ((0.4, 0.3),))
    assert losses(table, prob="p", apply=one)["p mean_prediction"] == pytest.approx(0.3, rel=1e-14)


def test_ends_of_spaces_are_mapped_or_refused() -> None:
    logits = pa.table({"x": [-np.inf, np.inf, 0.0, None], "y": [0.0, 1.0, 1.0, 1.0]})
    for map in (
        PLATT,
        CalibrationMap("beta", "logit", (0.0, 1.0, 0.0)),
        CalibrationMap("beta", "logit", (1.0, 0.0, 0.0)),
    ):
        found = fl.evaluate(logits, label="y", logit="x", apply=map, metrics="log_loss")
        # Infinite logits stay infinite on the side of a feature that has a part.
        assert found.rows["used"] == 3
        assert found.rows["dropped"][0]["cause"] == "null_prediction"
    outside = pa.table({"p": [0.5, -0.5, 1.5, 0.0, 1.0, np.nan], "y": [1.0] * 6})
    for options in ({"apply": PLATT}, {"sampling_rate": 0.5}, {"apply": BETA}):
        found = fl.evaluate(outside, label="y", prob="p", metrics="log_loss", on_bad_row="drop", **options)
        assert (found.rows["used"], sum(cause["rows"] for cause in found.rows["dropped"])) == (3, 3)
    above = pa.table({"l": [-np.inf, -1.0, 0.0, 0.5, 900.0], "y": [0.0] * 5})
    found = fl.evaluate(above, label="y", logprob="l", sampling_rate=0.5, metrics="log_loss", on_bad_row="drop")
    assert found.rows["used"] == 3


@pytest.mark.parametrize("bad", [-0.5, 1.5, 7.0, np.nan])
@pytest.mark.parametrize(
    "options", [{"apply": PLATT}, {"apply": STAIRS}, {"sampling_rate": 0.5}], ids=["platt", "isotonic", "rate"]
)
def test_a_bad_number_is_told_as_it_is_stored(tmp_path: Path, options: dict[str, Any], bad: float) -> None:
    table = pa.table({"p": [0.5, 0.25, bad, None, 0.5, 0.75], "y": [1.0, 0.0] * 3, "k": [0, 1, 2, 3, 4, 5]})
    pq.write_table(table, tmp_path / "log.parquet")
    told, dropped = [], []
    for where in (None, "k > 0"):
        for chosen in ({}, options):
            asked = {"label": "y", "prob": "p", "where": where, **chosen}
            with pytest.raises(fl.DataError) as error:
                fl.evaluate(table, metrics="log_loss", **asked)
            told.append(str(error.value))
            dropped.append(fl.evaluate(table, metrics="log_loss", on_bad_row="drop", **asked).rows["dropped"])
            with pytest.raises(fl.DataError, match="prob column 'p' is"):
                fl.score(tmp_path / "log.parquet", tmp_path / "out.parquet", loss="log_loss", **asked)
    assert told[0::2] == told[1::2]
    assert f"prob column 'p' is {bad}; allowed: 0 <= prob <= 1. If these" in told[0]
    assert dropped[0::2] == dropped[1::2]
    # What raw and mapped read is counted once.
    both = fl.evaluate(
        table,
        label="y",
        prob={"a": "p", "b": "p"},
        metrics="log_loss",
        on_bad_row="drop",
        **{name: {"b": given} for name, given in options.items()},
    )
    assert both.rows["dropped"] == dropped[0]


def test_sampling_rates_take_the_odds_back() -> None:
    log = spaces_of(make_log(14, 400))
    p = log["p"]
    table = pa.table({**log, "wanted": p / (p + (1.0 - p) / 0.25)})
    wanted = losses(table, prob={"m": "wanted"})
    for space, column in (("logit", "x"), ("prob", "p"), ("logprob", "l")):
        found = losses(table, **{space: {"m": column, "raw": column}}, sampling_rate={"m": 0.25})
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-12)
        raw = losses(table, **{space: {"raw": column}})
        assert {name: found[name] for name in raw} == raw
    assert losses(table, prob="p", sampling_rate=1)["p mean_prediction"] == pytest.approx(p.mean(), rel=1e-14)
    both = losses(table, logit={"a": "x", "b": "x"}, sampling_rate=0.25)
    assert both["a log_loss"] == both["b log_loss"] == pytest.approx(wanted["m log_loss"], rel=1e-12)


def test_a_fitted_map_gives_the_loss_that_it_promised(tmp_path: Path) -> None:
    log = make_log(15)
    table = pa.table({**log, "k": np.arange(3000) % 3})
    found = fl.calibrate(table, label="y", logit="x", weight="w")
    found.write(tmp_path / "map.json")
    for map in (found, found.map, tmp_path / "map.json", {"m": str(tmp_path / "map.json")}):
        after = losses(table, logit={"m": "x"}, weight="w", apply=map)
        assert after["m log_loss"] == pytest.approx(found.log_loss_after, rel=1e-14)
    # On the log that it was fitted to, a map with a constant has the mean of the labels.
    y, w = log["y"], log["w"]
    assert after["m mean_prediction"] == pytest.approx((w * y).sum() / w.sum(), rel=1e-12)
    # Twice is once: there is nothing left to mend.
    again = fl.calibrate(
        pa.table({**log, "x": found.map.coefficients[0] * log["x"]}), label="y", logit="x", weight="w"
    )
    assert coefficients(again) == pytest.approx([1.0, found.map.coefficients[1]], rel=1e-11)


def test_maps_work_with_filters_slices_expressions_and_states(tmp_path: Path) -> None:
    log = make_log(16, 500)
    table = pa.table({**log, "k": np.arange(500) % 3, "v": 0.7 * log["x"] + 0.3})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=100)
    options: dict[str, Any] = {"label": "y", "where": "k <> 1", "by": ["k"], "metrics": ["log_loss"]}
    wanted = fl.evaluate(tmp_path / "log.parquet", logit={"m": "v"}, **options)
    states = [tmp_path / "a.flstate", tmp_path / "b.flstate"]
    found = fl.evaluate(
        tmp_path / "log.parquet",
        logit={"m": "x + 0 * k"},
        apply=PLATT,
        state=states[0],
        **options,
    )
    assert [v.value for v in found.values] == pytest.approx([v.value for v in wanted.values], rel=1e-13)
    other = tmp_path / "other.parquet"
    pq.write_table(table, other)
    fl.evaluate(other, logit={"m": "x + 0 * k"}, apply=PLATT, state=states[1], **options)
    merged = fl.merge(states)
    assert [v.n for v in merged.values] == [2 * v.n for v in wanted.values]
    fl.evaluate(other, logit={"m": "x + 0 * k"}, apply=BETA, state=states[1], **options)
    with pytest.raises(fl.UsageError):
        fl.merge(states)
    # As other processes are sent it.
    bound = bind_map(Mapped("platt(v)", "v", "logit", PLATT), table.schema)
    assert pickle.loads(pickle.dumps(bound)) == bound


def test_the_map_is_part_of_the_fingerprint() -> None:
    table = pa.table(make_log(17, 20))
    plans = [
        fl.make_plan(table, label="y", logit="x", **options)
        for options in (
            {},
            {"apply": PLATT},
            {"apply": HALF},
            {"apply": CalibrationMap("isotonic", "logit", (), ((0.0, 0.1), (1.0, 0.2)))},
            {"apply": CalibrationMap("isotonic", "logit", (), ((0.0, 0.1), (1.0, 0.3)))},
            {"sampling_rate": 0.5},
            {"sampling_rate": 0.25},
        )
    ]
    assert len({plan.fingerprint for plan in plans}) == len(plans)
    # What is known of its fit changes no number.
    again = fl.make_plan(
        table, label="y", logit="x", apply=CalibrationMap("platt", "logit", (0.7, 0.3), (), {"rows": 3})
    )
    assert again.fingerprint == plans[1].fingerprint
    assert again.asked()["mapped"] == {
        "platt(x)": {"column": "x", "space": "logit", "method": "platt", "a": 0.7, "b": 0.3}
    }
    for plan in plans:
        assert fl.Request.from_dict(json.loads(json.dumps(plan.request.to_dict()))) == plan.request


def test_rows_are_scored_through_a_map(tmp_path: Path) -> None:
    log = make_log(18, 200)
    table = pa.table({**log, "v": 0.7 * log["x"] + 0.3})
    pq.write_table(table, tmp_path / "log.parquet")
    fl.score(tmp_path / "log.parquet", tmp_path / "a.parquet", label="y", logit="x", loss="log_loss", apply=PLATT)
    fl.score(tmp_path / "log.parquet", tmp_path / "b.parquet", label="y", logit="v", loss="log_loss")
    mapped, by_hand = (pq.read_table(tmp_path / name) for name in ("a.parquet", "b.parquet"))
    for column in ("loss", "gradient", "hessian"):
        assert mapped[column].to_numpy() == pytest.approx(by_hand[column].to_numpy(), rel=1e-12)
    total = fl.evaluate(table, label="y", logit="x", metrics="log_loss", apply=PLATT).values[0].value
    assert mapped["loss"].to_numpy().mean() == pytest.approx(total, rel=1e-14)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"logit": {"a": "x", "b": "x"}, "apply": PLATT},
            "apply names no model, and there are 2; name it, such as a=",
        ),
        ({"logit": "x", "apply": {"z": PLATT}}, "apply names a model 'z', which is not there. Known: 'x'"),
        ({"logit": "x", "sampling_rate": {"z": 0.5}}, "sampling_rate names a model 'z'"),
        ({"logit": "x", "apply": 3}, "apply is 3; allowed: a map that calibrate returned, or the path of one"),
        ({"logit": "x", "apply": PLATT, "sampling_rate": 0.5}, "'x' has a map and a sampling rate; give one"),
        ({"value": "x", "apply": PLATT}, "apply is for logit= or prob= or logprob=; 'x' was declared value=. Declare"),
        ({"logit": "x", "apply": STAIRS}, "the map is of prob= by isotonic, and 'x' was declared logit="),
        ({"margin": "x", "sampling_rate": 0.5}, "sampling_rate is for logit= or prob= or logprob=; 'x' was declared"),
        *(({"logit": "x", "sampling_rate": rate}, "sampling_rate is ") for rate in (0, -1, 1.5, True, "half", np.nan)),
    ],
)
def test_maps_that_do_not_fit_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(fl.UsageError) as error:
        fl.evaluate(pa.table(make_log(19, 9)), label="y", **options)
    assert says in str(error.value)


def test_columns_that_cannot_be_mapped_are_refused() -> None:
    table = pa.table({"x": [[1.0], [2.0]], "t": ["a", "b"], "y": [0.0, 1.0], "platt(y)": [1.0, 2.0]})
    with pytest.raises(fl.SchemaError, match="platt\\(x\\) maps one number a row, and column 'x' holds lists"):
        fl.evaluate(table, label="y", logit="x", apply=PLATT)
    with pytest.raises(fl.SchemaError, match="no column 'z'"):
        fl.evaluate(table, label="y", logit="z", apply=PLATT)
    with pytest.raises(fl.SchemaError, match="column 't' has type string"):
        fl.evaluate(table, label="y", logit="t", apply=PLATT)
    with pytest.raises(fl.UsageError, match="has a column 'platt\\(y\\)', as a mapped prediction is called"):
        fl.evaluate(table, label="y", logit="y", apply=PLATT)


# ---------------------------------------------------------------------------------------------------------------
# The command


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    pq.write_table(pa.table(make_log(11, 300)), tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


def test_the_command_prints_the_map_and_writes_it(run: Callable[..., Any], stored: Path, tmp_path: Path) -> None:
    found = fl.calibrate(stored, label="y", logit="x")
    target = tmp_path / "map.json"
    status, out, err = run("calibrate", stored, "--label", "y", "--logit", "x", "-o", target)
    assert (status, out, err) == (0, f"{found}\n", "")
    assert CalibrationMap.read(target) == found.map
    status, out, _ = run("calibrate", stored, "--label", "y", "--logit", "x", "--format", "json")
    assert (status, json.loads(out)) == (0, found.to_dict())


def test_commands_apply_maps(run: Callable[..., Any], fails: Callable[..., str], stored: Path, tmp_path: Path) -> None:
    PLATT.write(tmp_path / "map.json")
    wanted = fl.evaluate(stored, label="y", logit={"a": "x", "b": "x"}, apply={"b": PLATT}, sampling_rate={"a": 0.5})
    words = ["--label", "y", "--logit", "a=x", "--logit", "b=x", "--format", "json"]
    status, out, _ = run("eval", stored, *words, "--apply", f"b={tmp_path / 'map.json'}", "--sampling-rate", "a=0.5")
    assert (status, json.loads(out)["values"]) == (0, wanted.to_dict()["values"])
    (tmp_path / "fastloss.toml").write_text(
        "[evaluations.nightly]\nlog = 'log.parquet'\nlabel = 'y'\nlogit = { a = 'x', b = 'x' }\n"
        "apply = { b = 'map.json' }\nsampling-rate = { a = '0.5' }\n"
    )
    assert fl.run("nightly", tmp_path / "fastloss.toml").to_dict()["values"] == wanted.to_dict()["values"]
    status, out, _ = run("plan", stored, "--label", "y", "--logit", "x", "--apply", tmp_path / "map.json")
    assert "platt(x) = logit x, method platt, a 0.7, b 0.3" in out
    status, _, err = run(
        "score", stored, tmp_path / "out.parquet", "--label", "y", "--logit", "x", "--loss", "log_loss",
        "--sampling-rate", "0.5",
    )  # fmt: skip
    assert (status, err.splitlines()[0][:30]) == (0, "fastloss: 300 of 300 rows scor")
    assert "'b' twice" in fails("eval", stored, *words, "--apply", "b=1", "--apply", "b=2")
    assert "write NAME=" in fails("eval", stored, *words, "--apply", "b=1", "--apply", "c")
    assert "--sampling-rate is 'half'" in fails("eval", stored, *words, "--sampling-rate", "half")
    assert "--apply names no model" in fails("eval", stored, *words, "--apply", "map.json")
    assert "cannot be read: No such file" in fails("eval", stored, *words, "--apply", "a=none.json")


def test_the_command_fails_in_one_line(fails: Callable[..., str], stored: Path, tmp_path: Path) -> None:
    assert "No log was given" in fails("calibrate", "--label", "y", "--logit", "x")
    assert "separable" in fails("calibrate", stored, "--label", "y", "--logit", "y")
    assert "does not exist" in fails("calibrate", stored, "--label", "y", "--logit", "x", "-o", tmp_path / "a" / "b")
    assert "the log's own file" in fails("calibrate", stored, "--label", "y", "--logit", "x", "-o", stored)
    other = tmp_path / "day" / "other.parquet"
    other.parent.mkdir()
    other.write_bytes(stored.read_bytes())
    for name, ending in ((other, ".parquet"), (tmp_path / "map.csv", ".csv"), (tmp_path / "map", "nothing")):
        said = fails("calibrate", stored, "--label", "y", "--logit", "x", "-o", name)
        assert f"--output ends in {ending}; allowed: .json" in said
    assert other.read_bytes() == stored.read_bytes()


# ---------------------------------------------------------------------------------------------------------------
# The state


def summed(seed: int) -> SeveralSumsColumn:
    column = SeveralSums(RowSet(0), FitTerms("temperature", 1, (0.0, 0.0, 1.0), (1.0,), 3)).identity()
    column.resize(2)
    random = np.random.default_rng(seed)
    column.words[:2] = random.integers(-(2**40), 2**40, column.words[:2].shape)
    column.words[:2, :, -3:] = random.integers(0, 9, (2, 3, 3))
    return column


def values(column: SeveralSumsColumn) -> list[Any]:
    return [sums[i] for sums in column.evaluate() for i in range(column.n_slices)]


def test_sums_merge_in_any_order_and_are_stored() -> None:
    positions, swapped = np.array([0, 1]), np.array([1, 0])
    a, b, c = summed(0), summed(1), summed(2)
    before = values(summed(1))
    a.merge(b, positions)
    a.merge(c, positions)
    assert values(b) == before
    other = summed(2)
    other.merge(summed(1), positions)
    other.merge(summed(0), positions)
    assert values(other) == values(a)
    identity = SeveralSumsColumn(3)
    identity.resize(2)
    identity.merge(a, swapped)
    assert values(identity) == [values(a)[i] for i in (1, 0, 3, 2, 5, 4)]
    restored = SeveralSumsColumn.from_fields(a.fields())
    assert values(restored) == values(a)
    one = SeveralSumsColumn(3)
    one.resize(1)
    one.merge(a, np.array([0, 0]))
    assert values(one) == [values(a)[2 * k] + values(a)[2 * k + 1] for k in range(3)]
