"""Curves: every point against scikit-learn, the stated error against areas in exact fractions, one table for all."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_curve, roc_curve

import fastloss as fl
from fastloss.curves.points import REASONS, CurvePoints
from fastloss.curves.ranked import RANKED_CURVES, ranked_curves
from fastloss.curves.thinning import chord_errors, step_errors
from fastloss.report.formats import FORMATS
from fastloss.states.base import RowSet, SliceRuns
from fastloss.states.cumulated import parts_of
from fastloss.states.histogram import ScoreHistogram, ScoreHistograms
from tests.oracles.ranking import Row, masses

KINDS = tuple(RANKED_CURVES)
COORDINATES = {
    "roc": ("false_positive_rate", "true_positive_rate"),
    "precision_recall": ("recall", "precision"),
    "gain": ("weight_share", "positive_share"),
}
scores = st.one_of(
    st.sampled_from([0.0, -0.0, 0.25, 1.0, -1.0, math.inf, -math.inf, 5e-324]),
    st.floats(allow_nan=False),
    st.integers(0, 50).map(lambda k: 1.0 + k * 2.0**-40),
)
rows_of_one_log = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 0.25]), scores, st.sampled_from([1.0, 0.5, 3.0])), min_size=1, max_size=60
)
# Room for 3 scores, 6 buckets, or all; bytes of unweighted rows.
limits = st.tuples(st.sampled_from([0, 100, 4 << 20]), st.sampled_from([0, 200, 8 << 20]))


def log_of(n: int, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    x = random.normal(size=n)
    return pa.table(
        {
            "y": (random.random(n) < 1 / (1 + np.exp(1 - 2 * x))).astype(np.int8),
            "x": x.astype(np.float32),
            "tied": np.round(x, 1),
            "w": random.choice([0.25, 1.0, 3.5], n),
            "country": random.choice(["DE", "FR", "GB"], n),
        }
    )


def evaluate(log: object, **options: Any) -> fl.Result:
    given: dict[str, Any] = {"label": "y", "logit": {"a": "x", "b": "tied"}, "metrics": "roc_auc"}
    return fl.evaluate(log, **given | options)


def histograms(rows: list[Row], score_bytes: int = 4 << 20, bucket_bytes: int = 8 << 20) -> ScoreHistograms:
    column = ScoreHistogram(RowSet(0), score_bytes, bucket_bytes, slice_buckets=0).identity()
    column.resize(1)
    label, score, weight = (np.array([row[k] for row in rows], dtype=np.float64) for k in range(3))
    runs = SliceRuns(None, np.array([0, len(rows)]), np.zeros(1, dtype=np.int64))
    column.add_rows(score, label, weight, runs)
    return column.evaluate()


def whole_curve(kind: str, rows: list[Row]) -> list[tuple[Fraction, Fraction]]:
    """All points by the definition, each different score a threshold."""
    of_scores = masses(rows)
    positives, negatives = (sum((mass[k] for mass in of_scores.values()), Fraction(0)) for k in range(2))
    found = [] if kind == "precision_recall" else [(Fraction(0), Fraction(0))]
    above, below = Fraction(0), Fraction(0)
    for score in sorted(of_scores, reverse=True):
        above, below = above + of_scores[score][0], below + of_scores[score][1]
        if kind == "roc":
            found.append((below / negatives, above / positives))
        elif kind == "gain":
            found.append(((above + below) / (positives + negatives), above / positives))
        else:
            found.append((above / positives, above / (above + below)))
    return found


def area(kind: str, points: list[tuple[Fraction, Fraction]]) -> Fraction:
    if kind == "precision_recall":
        before = [Fraction(0), *(x for x, _ in points)]
        return sum(((x - at) * y for (x, y), at in zip(points, before, strict=False)), Fraction(0))
    pairs = itertools.pairwise(points)
    return sum(((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in pairs), Fraction(0))


def coordinates(kind: str, curves: CurvePoints) -> list[tuple[Fraction, Fraction]]:
    x, y = (curves.columns[name].tolist() for name in COORDINATES[kind])
    return [(Fraction(a), Fraction(b)) for a, b in zip(x, y, strict=True)]


@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("model", ["a", "b"])
def test_all_points_are_those_of_scikit_learn(model: str, weight: str | None) -> None:
    log = log_of(3_000)
    result = evaluate(log, weight=weight)
    label, score = log["y"].to_numpy(), log["x" if model == "a" else "tied"].to_numpy()
    weights = None if weight is None else log["w"].to_numpy()
    roc = result.curve("roc", model=model, points=None).to_polars()
    fpr, tpr, thresholds = roc_curve(label, score, sample_weight=weights, drop_intermediate=False)
    np.testing.assert_allclose(roc["false_positive_rate"], fpr, rtol=1e-12)
    np.testing.assert_allclose(roc["true_positive_rate"], tpr, rtol=1e-12)
    assert roc["threshold"][0] is None
    assert roc["threshold"][1:].to_list() == thresholds[1:].tolist()
    assert set(roc["area_error"]) == {0.0}
    found = result.curve("precision_recall", model=model, points=None).to_polars().reverse()
    precision, recall, thresholds = precision_recall_curve(label, score, sample_weight=weights)
    # scikit-learn adds a point without a threshold, of recall 0 and precision 1.
    np.testing.assert_allclose(found["precision"], precision[:-1], rtol=1e-12)
    np.testing.assert_allclose(found["recall"], recall[:-1], rtol=1e-12)
    assert found["threshold"].to_list() == thresholds.tolist()
    gain = result.curve("gain", model=model, points=None).to_polars()
    taken = [(score >= t).astype(float) * (1.0 if weights is None else weights) for t in gain["threshold"][1:]]
    total = len(label) if weights is None else weights.sum()
    np.testing.assert_allclose(gain["weight_share"][1:], [w.sum() / total for w in taken], rtol=1e-12)
    np.testing.assert_allclose(gain["positive_share"], tpr, rtol=1e-12)
    np.testing.assert_allclose(gain["lift"][1:], (gain["positive_share"] / gain["weight_share"])[1:], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@given(rows=rows_of_one_log, room=limits, points=st.sampled_from([None, 3, 7, 20]))
@example(rows=[(1.0, 0.5, 1.0)], room=(4 << 20, 8 << 20), points=3)
@example(rows=[(1.0, 0.5, 1.0), (0.0, 0.5, 1.0)], room=(0, 0), points=3)
@example(rows=[(k % 2, 1 + k * 2.0**-40, 1.0) for k in range(40)], room=(0, 0), points=None)
@settings(max_examples=40, deadline=None)
def test_the_stated_error_holds(kind: str, rows: list[Row], room: tuple[int, int], points: int | None) -> None:
    curves = ranked_curves(kind, histograms(rows, *room), np.zeros(1, dtype=np.int64), points)
    has_positive = any(label > 0 for label, _, _ in rows)
    has_negative = any(label < 1 for label, _, _ in rows)
    assert curves.area_error is not None
    if not has_positive or (kind == "roc" and not has_negative):
        assert REASONS[curves.reasons[0]] == ("one_class" if kind == "roc" else "no_positive")
        assert all(np.isnan(column).tolist() == [True] for column in curves.columns.values())
        return
    assert curves.reasons.tolist() == [0]
    whole, found = whole_curve(kind, rows), coordinates(kind, curves)
    assert abs(area(kind, found) - area(kind, whole)) <= Fraction(float(curves.area_error[0])) + Fraction(1, 10**14)
    # The ends are in, what is left of the points is in order, and thresholds take what the points say.
    if kind != "precision_recall":
        assert found[0] == (0, 0)
    assert found[-1] == pytest.approx(whole[-1], rel=1e-14)
    assert len(found) <= (points or len(whole))
    lowest = [t for t in curves.columns["threshold"].tolist() if not math.isnan(t)]
    assert lowest == sorted(set(lowest), reverse=True)
    positives = sum(label * weight for label, _, weight in rows)
    for threshold, (x, y) in zip(lowest[::-1], found[::-1], strict=False):
        share = sum(label * weight for label, score, weight in rows if score >= threshold) / positives
        assert float(x if kind == "precision_recall" else y) == pytest.approx(share, rel=1e-12)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12), st.data())
def test_what_lies_between_is_measured_in_fractions(steps: list[tuple[int, int]], data: st.DataObject) -> None:
    x, y = (np.cumsum([step[k] for step in steps]).astype(np.float64) for k in range(2))
    kept = np.array([True, *(data.draw(st.booleans()) for _ in steps[2:]), True])
    found = chord_errors(x, y, kept).sum()
    # The area between the lines, where neither crosses the other; more where they do.
    corners = list(zip(map(Fraction, x.tolist()), map(Fraction, y.tolist()), strict=True))
    between = Fraction(0)
    ends = np.flatnonzero(kept).tolist()
    for first, last in itertools.pairwise(ends):
        part = corners[first : last + 1]
        between += abs(area("roc", part) - area("roc", [part[0], part[-1]]))
    assert found >= float(between) - 1e-9
    widths = np.diff(x, prepend=0.0)
    assert (
        step_errors(widths, y, kept).sum() >= abs((widths * y).sum() - np.diff(x[kept], prepend=0.0) @ y[kept]) - 1e-9
    )


def test_two_hundred_points_lose_little() -> None:
    result = evaluate(log_of(20_000), logit="x")
    for kind, most in (("roc", 1e-3), ("gain", 1e-3), ("precision_recall", 5e-3)):
        table = result.curve(kind).to_polars()
        whole = result.curve(kind, points=None).to_polars()
        assert len(whole) > 10_000
        assert 150 < len(table) <= 200
        assert table["area_error"][0] < most
        # Every point is one of the whole curve.
        coordinates_of = ("threshold", *COORDINATES[kind])
        assert set(table.select(coordinates_of).rows()) <= set(whole.select(coordinates_of).rows())


def test_the_area_of_all_points_is_the_metric() -> None:
    result = evaluate(log_of(20_000), logit="x", weight="w", metrics=["roc_auc", "average_precision"])
    roc, steps = (result.curve(kind, points=None).to_polars() for kind in ("roc", "precision_recall"))
    x, y = roc["false_positive_rate"].to_numpy(), roc["true_positive_rate"].to_numpy()
    assert result["roc_auc"] == pytest.approx(float(np.diff(x) @ (y[1:] + y[:-1]) / 2), rel=1e-12)
    widths = np.diff(steps["recall"].to_numpy(), prepend=0.0)
    assert result["average_precision"] == pytest.approx(float(widths @ steps["precision"].to_numpy()), rel=1e-12)


def test_a_jump_keeps_both_of_its_ends() -> None:
    # Half of all rows have one score, amid a thousand others.
    random = np.random.default_rng(1)
    x = np.concatenate([random.normal(size=1_000), np.full(1_000, 0.1)])
    log = pa.table({"y": random.integers(0, 2, 2_000), "x": x})
    result = fl.evaluate(log, label="y", logit="x", metrics="roc_auc")
    table = result.curve("roc", points=50).to_polars()
    assert table["area_error"][0] < 2e-3
    steps = table["false_positive_rate"].diff().drop_nulls() + table["true_positive_rate"].diff().drop_nulls()
    assert steps.max() == pytest.approx(1.0, abs=0.05)


def test_slices_and_models_stand_in_one_table() -> None:
    log = log_of(2_000)
    result = evaluate(log, by="country")
    for kind in KINDS:
        table = result.curve(kind, by="country", points=20).to_polars()
        assert table.columns[:2] == ["model", "slice.country"]
        assert table.select("slice.country", "model").unique(maintain_order=True).rows() == [
            (country, model) for country in ("DE", "FR", "GB") for model in "ab"
        ]
        for country in ("DE", "FR", "GB"):
            alone = evaluate(log.filter(pa.compute.equal(log["country"], country))).curve(kind, points=20).to_polars()
            of_slice = result.curve(kind, slice={"country": country}, points=20).to_polars()
            assert of_slice.drop("slice.country").equals(alone)
            assert table.filter(pl.col("slice.country") == country).equals(of_slice)
        total = result.curve(kind, points=20)
        assert total.to_polars().columns[:2] == ["model", "threshold"]
        assert (
            result.curve(kind, model="b", points=20)
            .to_polars()
            .equals(total.to_polars().filter(pl.col("model") == "b"))
        )


def test_what_has_no_curve_says_why() -> None:
    log = pa.table({"y": [1, 1, 0, 1, None], "x": [0.5, 0.5, 1.0, 2.0, 3.0], "k": ["a", "a", "b", "c", "d"]})
    result = fl.evaluate(log, label="y", logit="x", metrics="roc_auc", by="k")
    table = result.curve("roc", by="k").to_polars()
    assert table.rows() == [("x", key, None, None, None, None, "one_class") for key in ("a", "b", "c")]
    found = result.curve("precision_recall", by="k").to_polars()
    assert found.select("slice.k", "recall", "precision", "reason").rows() == [
        ("a", 1.0, 1.0, None), ("b", None, None, "no_positive"), ("c", 1.0, 1.0, None)
    ]  # fmt: skip
    empty = fl.evaluate(log.slice(0, 0), label="y", logit="x", metrics="roc_auc", by="k")
    assert empty.curve("gain").to_polars().rows() == [("x", *[None] * 5, "no_rows")]
    assert empty.curve("gain", by="k").to_polars().rows() == []
    tied = fl.evaluate(pa.table({"y": [0, 1], "x": [1.0, 1.0]}), label="y", logit="x", metrics="roc_auc")
    assert tied.curve("roc").to_polars().rows() == [
        ("x", None, 0.0, 0.0, 0.0, None), ("x", 1.0, 1.0, 1.0, 0.0, None)
    ]  # fmt: skip


def test_reliability_is_what_the_bins_hold() -> None:
    log = log_of(5_000)
    p = 1 / (1 + np.exp(-log["tied"].to_numpy()))
    log = log.append_column("p", pa.array(p))
    asked: dict[str, Any] = {"label": "y", "prob": "p", "metrics": ["log_loss", "expected_calibration_error"]}
    result = fl.evaluate(log, **asked, by="country")
    of_slices = result.curve("reliability", by="country").to_polars()
    assert of_slices.columns[:4] == ["model", "slice.country", "low", "high"]
    for country in (None, "DE", "FR", "GB"):
        rows = log if country is None else log.filter(pa.compute.equal(log["country"], country))
        table = result.curve("reliability", slice=None if country is None else {"country": country}).to_polars()
        if country is not None:
            assert of_slices.filter(pl.col("slice.country") == country).equals(table)
        label, prediction = rows["y"].to_numpy(), rows["p"].to_numpy()
        bins = (prediction * 20).astype(int)
        assert [round(low * 20) for low in table["low"]] == sorted(set(bins.tolist()))
        for row in table.to_dicts():
            inside = bins == round(row["low"] * 20)
            assert row["low"] <= prediction[inside].min() <= prediction[inside].max() < row["high"]
            assert (row["n"], row["weight"]) == (inside.sum(), inside.sum())
            assert row["mean_label"] == pytest.approx(label[inside].mean(), rel=1e-14)
            assert row["mean_prediction"] == pytest.approx(prediction[inside].mean(), rel=1e-14)
            interval = binomtest(int(label[inside].sum()), int(row["n"])).proportion_ci(method="wilson")
            assert (row["wilson_low"], row["wilson_high"]) == pytest.approx((interval.low, interval.high), abs=1e-12)
        error = (table["n"] * (table["mean_label"] - table["mean_prediction"]).abs()).sum() / len(label)
        keys = {} if country is None else {"country": country}
        assert result["expected_calibration_error", keys] == pytest.approx(error, rel=1e-12)


def test_bins_of_any_metric_are_a_reliability_curve() -> None:
    log = log_of(2_000)
    few = "expected_calibration_error(n_bins=4, binning='mass')"
    asked: dict[str, Any] = {"label": "y", "logit": "x"}
    result = fl.evaluate(log, **asked, metrics=[few, "maximum_calibration_error"])
    by_mass = result.curve("reliability", metric=few).to_polars()
    assert by_mass["n"].to_list() == [500] * 4
    with pytest.raises(fl.UsageError, match=r"different ones: .*n_bins=4, .*, maximum_.*; choose one by metric=\."):
        result.curve("reliability")
    same = fl.evaluate(
        log, **asked, metrics=[few, few.replace("expected", "maximum"), "ece(n_bins=4,binning=mass,norm=l2)"]
    )
    assert same.curve("reliability").to_polars().equals(by_mass)
    by_width = result.curve("reliability", metric="maximum_calibration_error").to_polars()
    alone = fl.evaluate(log, **asked, metrics="ctr", curves="reliability")
    assert alone.metrics == ["ctr"]
    assert alone.curve("reliability").to_polars().equals(by_width)
    weighted = fl.evaluate(log, **asked, weight="w", metrics=few).curve("reliability").to_polars()
    assert weighted["n"].null_count() == weighted["wilson_low"].null_count() == 4
    assert weighted["weight"].sum() == log["w"].to_numpy().sum()
    # Where a metric has bins, a curve of them keeps no others.
    with_curve = fl.evaluate(log, **asked, metrics=few, curves="reliability")
    assert with_curve.fingerprint == fl.evaluate(log, **asked, metrics=few).fingerprint
    for wrong, words in (
        ({"kind": "reliability", "metric": "expected_calibration_error(n_bins=5)"}, ("n_bins=5", "n_bins=4")),
        ({"kind": "roc", "metric": few}, ("no bins",)),
        ({"kind": "roc", "slice": "DE"}, ("slice is 'DE'", "such as {'country': 'DE'}")),
    ):
        with pytest.raises(fl.UsageError) as refused:
            result.curve(**wrong)
        assert all(word in str(refused.value) for word in words)
    with pytest.raises(fl.UsageError, match="expected_calibration_error"):
        evaluate(log).curve("reliability")
    with pytest.raises(fl.UsageError, match="expected_calibration_error reads"):
        fl.evaluate(log, label="y", value="x", metrics="roc_auc", curves="reliability")
    empty = fl.evaluate(log.slice(0, 0), **asked, metrics=few).curve("reliability").to_polars()
    assert empty.rows() == [("x", *[None] * 8, "no_rows")]


def test_slices_worked_on_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    result = evaluate(log_of(3_000), by="country")
    whole = {kind: result.curve(kind, by="country", points=30).to_arrow() for kind in KINDS}
    monkeypatch.setattr("fastloss.states.histogram.parts_of", lambda starts, most=0: parts_of(starts, 100))
    for kind in KINDS:
        assert result.curve(kind, by="country", points=30).to_arrow().equals(whole[kind])


def test_one_table_for_all_ways_of_reading(tmp_path: Path) -> None:
    log = log_of(20_011)
    shuffled = log.take(np.random.default_rng(2).permutation(len(log)))
    halves = (log.slice(0, 7_000), log.slice(7_000))
    for number, half in enumerate(halves):
        pq.write_table(half, tmp_path / f"{number}.parquet", row_group_size=3_000)

    def digest(result: fl.Result) -> str:
        tables = [result.curve(kind, by="country", points=50).to_arrow() for kind in (*KINDS, "reliability")]
        return hashlib.sha256(b"".join(repr(table.to_pydict()).encode() for table in tables)).hexdigest()

    options: dict[str, Any] = {"weight": "w", "by": "country", "curves": "reliability"}
    expected = digest(evaluate(log, **options))
    assert digest(evaluate(shuffled, **options, batch_rows=999)) == expected
    assert digest(evaluate(tmp_path, **options, threads=2, memory="1GiB")) == expected
    for number in range(2):
        evaluate(tmp_path / f"{number}.parquet", **options, state=tmp_path / f"{number}.state")
    states = [tmp_path / "1.state", tmp_path / "0.state"]
    assert digest(fl.merge(states)) == expected
    assert fl.merge(states, by=()).curve("roc").to_arrow().equals(evaluate(log, weight="w").curve("roc").to_arrow())


def test_what_cannot_be_drawn_is_one_line() -> None:
    result = evaluate(log_of(100), by="country")
    for wrong, words in (
        ({"kind": "ROC"}, ("'ROC'", "'roc'")),
        ({"kind": "roc", "model": "c"}, ("'c'", "'a'")),
        ({"kind": "roc", "points": 2}, ("points is 2",)),
        ({"kind": "roc", "slice": {"country": "XX"}}, ("XX",)),
        ({"kind": "roc", "by": "day"}, ("day", "country")),
        ({"kind": "roc", "by": "country", "slice": {"country": "DE"}}, ("slice=", "by=")),
    ):
        with pytest.raises(fl.UsageError) as refused:
            result.curve(**wrong)
        assert all(word in str(refused.value) for word in words)
        assert "\n" not in str(refused.value)
    with pytest.raises(fl.UsageError, match="roc_auc"):
        evaluate(log_of(100), metrics="log_loss").curve("roc")


def test_a_curve_is_a_table_of_any_library() -> None:
    curve = evaluate(log_of(500), logit="x").curve("roc", points=10)
    assert pl.DataFrame(curve).equals(curve.to_polars())
    assert pa.table(curve).equals(curve.to_arrow())
    assert len(str(curve).splitlines()) == len(curve) + 1
    assert curve.to_pandas()["true_positive_rate"].iloc[-1] == 1.0
    assert repr(curve) == f"<fastloss.Curve roc of {len(curve)} points>"


ASKED = ("--label", "y", "--logit", "a=x", "--logit", "b=tied", "--by", "country")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    pq.write_table(log_of(3_000), path)
    return path


def of_total_and_slices(result: fl.Result, kind: Any) -> pl.DataFrame:
    """The curves of a result by one key, as a file has them."""
    total = result.curve(kind).to_polars().with_columns(pl.lit("").alias("slice"))
    slices = result.curve(kind, by="country").to_polars().with_columns(pl.lit("country").alias("slice"))
    return pl.concat([slices.clear(), total, slices], how="diagonal").select(
        "model", "slice", pl.exclude("model", "slice")
    )


def test_a_command_writes_curves_and_prints_what_it_prints_without_them(run: Any, path: Path, tmp_path: Path) -> None:
    kinds = (*KINDS, "reliability")
    files = {kind: tmp_path / f"{kind}.parquet" for kind in kinds}
    words = [word for kind in kinds for word in ("--curve", f"{kind}={files[kind]}")]
    plain = run("eval", path, *ASKED)
    assert run("eval", path, *ASKED, *words, "--state", tmp_path / "state") == plain
    result = evaluate(path, by="country", curves="reliability")
    for kind in kinds:
        assert pl.read_parquet(files[kind]).equals(of_total_and_slices(result, kind))
        files[kind].unlink()
    assert run("merge", tmp_path / "state", *words)[0] == 0
    for kind in kinds:
        assert pl.read_parquet(files[kind]).equals(of_total_and_slices(result, kind))
    # Curves of scores are drawn from one statistic: what keeps it for one merges with what keeps it for another.
    other = tmp_path / "other.parquet"
    pq.write_table(log_of(100, seed=3), other)
    assert run("eval", other, *ASKED, *words[:2], *words[-2:], "--state", tmp_path / "second")[0] == 0
    both = fl.merge([tmp_path / "state", tmp_path / "second"])
    assert both.curve("gain").to_arrow().equals(evaluate([path, other]).curve("gain").to_arrow())


def test_every_format_holds_the_same_points(run: Any, path: Path, tmp_path: Path) -> None:
    expected = of_total_and_slices(evaluate(path, by="country"), "roc")
    endings = (".parquet", ".arrow", ".csv", ".json", ".md", ".txt")
    for ending in endings:
        assert run("eval", path, *ASKED, "--curve", f"roc={tmp_path / f'roc{ending}'}")[0] == 0
    assert pl.read_parquet(tmp_path / "roc.parquet").equals(expected)
    assert pl.read_ipc(tmp_path / "roc.arrow").equals(expected)
    by_csv = pl.read_csv(tmp_path / "roc.csv", schema=expected.schema)
    numbers = ("threshold", "false_positive_rate", "true_positive_rate", "area_error")
    assert by_csv.select("model", *numbers).equals(expected.select("model", *numbers))
    assert json.loads((tmp_path / "roc.json").read_text()) == expected.to_dicts()
    assert (tmp_path / "roc.md").read_text().count("\n") == len(expected) + 2
    assert (tmp_path / "roc.txt").read_text().count("\n") == len(expected) + 1
    few = tmp_path / "few.json"
    assert run("eval", path, *ASKED, "--slices", 1, "--sort", "n", "--curve", f"roc={few}")[0] == 0
    assert len({row["slice.country"] for row in json.loads(few.read_text())}) == 4
    different = ("-m", "ece(n_bins=5),ece(n_bins=3,binning=mass)", "--curve", f"reliability={few}")
    status, _, err = run("eval", path, *ASKED, *different)
    assert status == 2
    assert err.endswith("binning='mass'); evaluate one of them beside --curve.\n")


def test_a_threshold_may_be_infinite(tmp_path: Path) -> None:
    log = pa.table({"y": [1, 0, 1], "x": [math.inf, 0.0, -math.inf]})
    result = fl.evaluate(log, label="y", logit="x", metrics="roc_auc")
    table = result.curve("roc").to_arrow()
    assert table["threshold"].to_pylist() == [None, math.inf, 0.0, -math.inf]
    written = json.loads(str(FORMATS["json"].write_table(table)))
    assert [row["threshold"] for row in written] == [None, "inf", 0.0, "-inf"]
    assert FORMATS["json"].write_table(table.slice(0, 0)) == "[]"


def test_mistakes_are_one_line_before_the_log_is_read(fails: Any, path: Path, tmp_path: Path) -> None:
    out = tmp_path / "roc.csv"
    for words, said in (
        (("--curve", f"auc={out}"), "precision_recall=FILE"),
        (("--curve", "roc"), "--curve is 'roc'"),
        (("--curve", "roc=-"), "--curve is 'roc=-'"),
        (("--curve", f"roc={tmp_path / 'roc.xlsx'}"), ".xlsx; allowed: "),
        (("--curve", f"roc={tmp_path / 'no' / 'roc.csv'}"), "does not exist"),
        (("--curve", f"roc={path}"), "the log's own file"),
        (("--curve", f"roc={out}", "--curve", f"gain={out}"), "name two files"),
        (("--curve", f"roc={out}", "-o", out), "--output and --curve"),
    ):
        for command in ("eval", "plan"):
            assert said in fails(command, path, *ASKED, *words)
    lists = pa.table({"y": [[1, 0]], "x": [[0.5, 0.1]]})
    with pytest.raises(fl.UsageError, match="holds lists"):
        fl.evaluate(lists, label="y", logit="x", curves="roc")
    with pytest.raises(fl.UsageError, match="'gain'"):
        fl.evaluate(lists, label="y", logit="x", curves=["roc", "lorenz"])
    fl.evaluate(path, label="y", logit="x", state=tmp_path / "state")
    assert "--curve roc=FILE" in fails("merge", tmp_path / "state", "--curve", f"roc={out}")
    labels = pa.table({"y": [2.0, 0.0], "x": [0.5, 0.1]})
    asked: dict[str, Any] = {"label": "y", "value": "x", "metrics": "mean_prediction"}
    assert fl.evaluate(labels, **asked)["mean_prediction"] == 0.3
    with pytest.raises(fl.DataError):
        fl.evaluate(labels, **asked, curves="roc")


def test_a_file_of_evaluations_names_curves(run: Any, fails: Any, path: Path, tmp_path: Path) -> None:
    file = tmp_path / "fastloss.toml"
    table = f'log = "{path}"\nlabel = "y"\nlogit = "x"\n'
    file.write_text(f'[evaluations.one]\n{table}curve = {{ roc = "roc.json" }}\n')
    assert run("run", "one", "--file", file)[0] == 0
    written = json.loads((tmp_path / "roc.json").read_text())
    assert len(written) == 200
    assert fl.run("one", file).curve("roc").to_arrow().to_pylist() == written
    file.write_text("".join(f'[evaluations.{name}]\n{table}curve = "roc=roc.json"\n' for name in ("one", "two")))
    assert "give each a file of its own" in fails("run", "one", "two", "--file", file)
