"""ROC AUC: the definition in exact fractions, certain bounds, exact by a second pass, the same for every partition."""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import fastloss as fl
from fastloss import cli
from fastloss.metrics.base import ModelFacts, SliceStates
from fastloss.metrics.conventions import RequestConventions
from fastloss.metrics.quantities import Rows, Weight
from fastloss.metrics.roc_auc import WIDEST, RocAuc
from fastloss.states.base import RowSet, SliceRuns, StateSpec
from fastloss.states.counts import Count
from fastloss.states.histogram import ScoreHistogram, ScoreHistogramColumn
from fastloss.states.sums import Sum
from tests.oracles.ranking import Row
from tests.oracles.ranking import roc_auc as by_definition

scores = st.one_of(
    st.sampled_from([0.0, -0.0, 0.25, 1.0, -1.0, math.inf, -math.inf, 5e-324]),
    st.floats(allow_nan=False),
    st.integers(0, 50).map(lambda k: 1.0 + k * 2.0**-40),
)
plain = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), scores, st.just(1.0)), max_size=40)
weighted = st.lists(st.tuples(st.floats(0, 1, width=16), scores, st.floats(0.125, 100, width=32)), max_size=40)
# Room for 3 scores, 6 buckets, or all; bytes of unweighted rows.
limits = st.tuples(st.sampled_from([0, 100, 4 << 20]), st.sampled_from([0, 200, 8 << 20]))
ROWS = RowSet(0)


def table(rows: list[Row], space: str = "x") -> pa.Table:
    label, score, weight = (np.array([row[k] for row in rows], dtype=np.float64) for k in range(3))
    return pa.table({"y": label, space: score, "w": weight})


def total(log: object, metric: str = "roc_auc", **options: Any) -> Any:
    """The total's value of one metric, with its evidence."""
    result = fl.evaluate(log, label="y", logit="x", metrics=[metric], **options)
    return result.values[0]


def rounded(value: Fraction) -> float:
    return value.numerator / value.denominator


def facts(is_weighted: bool) -> ModelFacts:
    return ModelFacts(0, "x", "logit", "x", is_weighted, False, RequestConventions(None, "clip", ()))


def histogram(spec: ScoreHistogram, rows: list[Row], is_weighted: bool) -> ScoreHistogramColumn:
    column = spec.identity()
    column.resize(1)
    label, score, weight = (np.array([row[k] for row in rows], dtype=np.float64) for k in range(3))
    runs = SliceRuns(None, np.array([0, len(rows)]), np.zeros(1, dtype=np.int64))
    column.add_rows(score, label, weight if is_weighted else None, runs)
    return column


def evaluated(metric: RocAuc, rows: list[Row], is_weighted: bool, score_bytes: int, bucket_bytes: int) -> Any:
    """What the metric evaluates to where histograms have little room, after a second pass if it wants one."""
    small = ScoreHistogram(ROWS, score_bytes, bucket_bytes, slice_buckets=0)
    kept: dict[StateSpec, Any] = {
        ScoreHistogram(ROWS): histogram(small, rows, is_weighted).evaluate(),
        Count(ROWS, Rows()): np.array([len(rows)]),
        Sum(ROWS, Weight()): None,
    }
    for spec in metric.refine(SliceStates(facts(is_weighted), kept, 1)):
        assert isinstance(spec, ScoreHistogram)
        kept[spec] = histogram(spec, rows, is_weighted).evaluate()
    return metric.evaluate(SliceStates(facts(is_weighted), kept, 1))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_scores_are_ranked_as_they_stand(kind: type) -> None:
    # https://github.com/Lightning-AI/torchmetrics/issues/2819: a sigmoid makes all of them 1, and the area 0.5.
    logits = [98.0950, 98.4612, 98.1145, 98.1506, 97.6037, 98.9425, 99.2644, 99.5014, 99.7280, 99.6595, 99.6931]
    logits += [99.4667, 99.9623, 99.8949, 99.8768]
    log = pa.table({"y": [0] + [1] * 14, "x": np.array(logits, dtype=kind)})
    assert total(log).value == 13 / 14


@pytest.mark.parametrize("space", ["logit", "prob", "logprob", "margin", "value", "score"])
def test_every_space_is_ranked(space: str) -> None:
    score = np.array([-0.5, -0.25, -0.125, 0.0]) if space == "logprob" else np.array([0.0, 0.25, 0.25, 1.0])
    log = pa.table({"y": [0.0, 1.0, 0.0, 1.0], "x": score})
    result = fl.evaluate(log, label="y", metrics=["roc_auc"], **{space: "x"})
    assert result["roc_auc"] == (0.75 if space == "logprob" else 0.875)


@given(plain)
@example([(1.0, 0.0, 1.0), (0.0, -0.0, 1.0)])
@example([(1.0, math.inf, 1.0), (0.0, math.inf, 1.0), (0.0, -math.inf, 1.0)])
@settings(max_examples=60)
def test_it_is_the_definition(rows: list[Row]) -> None:
    wanted = by_definition(rows)
    found = total(table(rows))
    if wanted is None:
        assert (found.value, found.reason) == (None, "one_class" if rows else "no_rows")
        assert found.evidence == {}
    else:
        assert found.value == found.evidence["low"] == found.evidence["high"] == rounded(wanted)


@given(weighted)
# What is as good as no positive is one.
@example([(0.5, 1.0, 2.0)])
@settings(max_examples=60)
def test_weights_and_labels_between_split_a_row(rows: list[Row]) -> None:
    wanted = by_definition(rows)
    found = total(table(rows), weight="w")
    assert found.value == (None if wanted is None else rounded(wanted))


def test_a_row_of_weight_0_is_no_row() -> None:
    rows: list[Row] = [(1.0, 2.0, 1.0), (0.0, 3.0, 0.0), (0.0, 1.0, 1.0)]
    assert total(table(rows), weight="w").value == 1.0
    found = total(table([(1.0, 2.0, 1.0), (0.0, 3.0, 0.0)]), weight="w")
    assert (found.value, found.reason) == (None, "one_class")


def test_labels_of_minus_one_are_negatives() -> None:
    log = pa.table({"y": [-1, 1, -1, 1], "x": [0.5, 0.25, 0.0, 1.0]})
    assert total(log, label_domain="pm1").value == 0.75


def test_lists_are_refused() -> None:
    log = pa.table({"y": [[0, 1]], "x": [[0.5, 0.25]]})
    with pytest.raises(fl.UsageError, match="roc_auc reads one number a row, and column 'x' holds lists"):
        total(log)


@given(st.booleans(), st.data(), limits)
def test_the_exact_value_lies_within_the_bounds(is_weighted: bool, data: st.DataObject, room: tuple[int, int]) -> None:
    rows = data.draw(weighted if is_weighted else plain)
    wanted = by_definition(rows)
    found = evaluated(RocAuc(), rows, is_weighted, *room)
    if wanted is None:
        assert found.undefined[0]
        assert found.reasons[found.reason[0]] in ("no_rows", "one_class")
    else:
        low, high = (Fraction(found.evidence[name][0]) for name in ("low", "high"))
        assert found.undefined[0] == (float(high) - float(low) > WIDEST)
        value = Fraction(found.value[0])
        if low == high:
            assert value == low == rounded(wanted)
        else:
            assert low <= wanted <= high
            assert abs(value - (low + high) / 2) <= Fraction(1, 1 << 52)
        assert 0 <= low <= value <= high <= 1


@given(st.booleans(), st.data(), limits)
def test_a_second_pass_is_exact(is_weighted: bool, data: st.DataObject, room: tuple[int, int]) -> None:
    rows = data.draw(weighted if is_weighted else plain)
    wanted = by_definition(rows)
    found = evaluated(RocAuc(exact=True), rows, is_weighted, *room)
    assert found.undefined[0] == (wanted is None)
    if wanted is not None:
        assert found.value[0] == found.evidence["low"][0] == found.evidence["high"][0] == rounded(wanted)


def test_bounds_are_rounded_outward() -> None:
    # Of 3 positives and 7 negatives, 1 of 21 pairs is won for certain and 2 are in one bucket: 1/21 is no float64.
    rows: list[Row] = [(1.0, 0.0, 1.0)] * 2 + [(0.0, 1.0, 1.0)] * 5
    rows += [(1.0, 2.0, 1.0), (0.0, 2.0 + 2.0**-50, 1.0), (0.0, 2.0 + 2.0**-49, 1.0)]
    found = evaluated(RocAuc(), rows, False, 0, 8 << 20)
    low, high, value = found.evidence["low"][0], found.evidence["high"][0], found.value[0]
    assert Fraction(low) < Fraction(5, 21) < Fraction(math.nextafter(low, 1))
    assert Fraction(math.nextafter(high, 0)) < Fraction(7, 21) < Fraction(high)
    assert value == 6 / 21


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """A log of more scores than a histogram keeps apart, in four files."""
    generator = np.random.default_rng(11)
    n = 150_000
    score = generator.normal(size=n).astype(np.float32) * 1.5 - 2
    columns = {
        "x": score,
        "y": (generator.random(n) < 1 / (1 + np.exp(-score))).astype(np.int8),
        "w": generator.uniform(0.5, 3, n),
        "c": generator.integers(0, 3, n),
    }
    folder = tmp_path_factory.mktemp("log")
    for k in range(4):
        part = {name: column[k::4] for name, column in columns.items()}
        pq.write_table(pa.table(part), folder / f"{k}.parquet", row_group_size=15_000)
    return folder, columns


def everything(result: fl.Result) -> str:
    return json.dumps([value.to_dict() for value in result.values])


def test_it_agrees_with_scikit_learn(log: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, c = log
    for weight in (None, "w"):
        wanted = roc_auc_score(c["y"], c["x"], sample_weight=None if weight is None else c[weight])
        found = total(folder, weight=weight)
        assert found.evidence["low"] < wanted < found.evidence["high"]
        assert found.evidence["high"] - found.evidence["low"] < 2e-5
        assert found.value == pytest.approx(wanted, abs=1e-7)
        exact = total(folder, "roc_auc(exact=true)", weight=weight)
        # scikit-learn adds rounded trapezoids.
        assert exact.value == exact.evidence["low"] == exact.evidence["high"] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("metric", ["roc_auc", "roc_auc(exact=true)"])
def test_threads_batches_and_files_change_nothing(
    log: tuple[Path, dict[str, np.ndarray]], metric: str, weight: str | None, tmp_path: Path
) -> None:
    folder, columns = log
    shuffled = np.arange(len(columns["y"]))
    random.Random(3).shuffle(shuffled)
    one = tmp_path / "one.parquet"
    pq.write_table(pa.table({name: column[shuffled] for name, column in columns.items()}), one)

    def evaluate(path: Path, **options: Any) -> str:
        return everything(
            fl.evaluate(path, label="y", logit="x", weight=weight, metrics=[metric], by=["c"], **options)
        )

    wanted = evaluate(folder, threads=1)
    assert evaluate(folder, threads=2, batch_rows=7_001) == wanted
    assert evaluate(one, threads=2, batch_rows=100_000) == wanted


def test_slices_have_values_of_their_own(log: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, c = log
    result = fl.evaluate(folder, label="y", logit="x", metrics=["roc_auc(exact=true)", "log_loss"], by=["c"])
    values = [value for value in result.values if value.metric == "roc_auc(exact=True)"]
    assert [value.slice for value in values] == [{}, *({"c": k} for k in range(3))]
    for value in values:
        rows = np.ones(len(c["y"]), dtype=bool) if not value.slice else c["c"] == value.slice["c"]
        assert value.value == pytest.approx(roc_auc_score(c["y"][rows], c["x"][rows]), rel=1e-12)
        assert value.n == rows.sum()


def test_the_total_is_the_same_beside_any_slices(log: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, c = log
    alone = total(folder)
    many = pa.table({name: c[name] for name in "xyw"} | {"user": np.arange(len(c["y"])) // 20})
    for found, by in ((folder, ["c"]), (many, ["user"])):
        result = fl.evaluate(found, label="y", logit="x", metrics=["roc_auc"], by=by)
        assert result.values[0].to_dict() == alone.to_dict()
    # Of slices with few rows all scores are kept apart.
    for value in result.values[1:]:
        assert value.value is None or value.evidence["low"] == value.evidence["high"]
    assert {value.reason for value in result.values[1:]} == {None, "one_class"}


def test_what_no_second_pass_can_hold_is_refused(log: tuple[Path, dict[str, np.ndarray]]) -> None:
    with pytest.raises(fl.UsageError, match="more than 1,000 different scores of column 'x'"):
        total(log[0], "roc_auc(exact=true, most_scores=1000)")


def test_histograms_count_in_the_memory(log: tuple[Path, dict[str, np.ndarray]]) -> None:
    def plan(n_models: int, **options: Any) -> fl.Plan:
        models = {str(k): "x" for k in range(n_models)}
        return fl.make_plan(log[0], label="y", logit=models, metrics=["roc_auc"], threads=1, **options)

    # 32 MiB of a merged histogram; a thread holds the rows of a batch or row group, here all of them, in 5 bytes each.
    assert plan(3).memory_bound - plan(2).memory_bound == (32 << 20) + 150_000 * 5
    with pytest.raises(fl.UsageError, match=r"254 MiB of histograms of scores\. Raise memory to [\d,]+ MiB"):
        plan(10, by=["c"])
    assert plan(10, by=["c"], memory="4GiB").memory_bound <= 4 << 30
    # So do threads that read a table, a million rows of which they hold at once at most.
    two = {"a": "x", "b": "x"}
    rows = pq.read_table(log[0])
    assert fl.make_plan(rows, label="y", logit=two, metrics=["roc_auc"], by=["c"]).memory_bound <= 512 << 20


def test_a_stream_has_no_second_pass(log: tuple[Path, dict[str, np.ndarray]]) -> None:
    rows = pq.read_table(log[0])
    stream = pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches())
    with pytest.raises(fl.UsageError, match=r"second pass over the log, for an exact value: .* gives its rows once"):
        total(stream, "roc_auc(exact=true)", weight="w")
    # All scores of rows without weights are kept in the first.
    stream = pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches())
    assert total(stream, "roc_auc(exact=true)").value == total(log[0], "roc_auc(exact=true)").value
    few = rows.slice(0, 1000)
    stream = pa.RecordBatchReader.from_batches(few.schema, few.to_batches())
    assert total(stream, "roc_auc(exact=true)").value == total(few).value


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("roc_auc(exact=1)", "exact is 1; allowed: true or false."),
        ("roc_auc(most_scores=0)", "most_scores is 0; allowed: a whole number from 1."),
        ("roc_auc(bins=3)", "roc_auc has no parameter 'bins'; its parameters: exact, most_scores."),
    ],
)
def test_parameters_are_checked(metric: str, words: str) -> None:
    with pytest.raises(fl.UsageError) as error:
        total(table([(1.0, 1.0, 1.0)]), metric)
    assert str(error.value) == words


def test_the_command_line_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(table([(1.0, 2.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 1.0)]), tmp_path / "log.parquet")
    arguments = ["eval", str(tmp_path / "log.parquet"), "--label", "y", "--logit", "x", "-m", "roc_auc"]
    assert cli.main([*arguments, "--format", "json"]) == 0
    [value] = json.loads(capsys.readouterr().out)["values"]
    assert (value["value"], value["low"], value["high"]) == (0.75, 0.75, 0.75)


def test_scores_too_close_for_their_size_give_no_value_but_bounds() -> None:
    rng = np.random.default_rng(11)
    x = rng.normal(size=200_000)
    label = (rng.random(len(x)) < 1.0 / (1.0 + np.exp(-x))).astype(np.int8)
    log = pa.table({"y": label, "x": x, "far": x + 1e9})
    found = fl.evaluate(log, label="y", value={"x": "x", "far": "far"}, metrics=["roc_auc", "roc_auc(exact=true)"])
    by_place = {(value.metric, value.model): value for value in found.values}
    far = by_place["roc_auc", "far"]
    assert (far.value, far.reason) == (None, "scores_too_close")
    assert far.evidence["low"] <= by_place["roc_auc(exact=True)", "far"].value <= far.evidence["high"]
    assert by_place["roc_auc(exact=True)", "far"].value == pytest.approx(by_place["roc_auc", "x"].value, abs=1e-5)
    assert "null (scores_too_close)" in str(found)
