"""List columns end to end: every Arrow kind, masks, bad lists, both reductions, and what no layout may change."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.columns.arrow import to_lists

KINDS = {
    "list": pa.list_(pa.float64()),
    "large_list": pa.large_list(pa.float64()),
    "list_view": pa.list_view(pa.float64()),
    "large_list_view": pa.large_list_view(pa.float64()),
}
SCORES = [[1.0, 2.0, 3.0], [0.5, -0.5], [4.0], [2.0, 1.0, 0.0, -1.0]]
LABELS = [[0.0, 1.0, 0.0], [1.0, 0.0], [1.0], [0.0, 0.0, 0.5, 0.5]]


def crossentropy(score: list[float], label: list[float]) -> float:
    total = math.log(sum(math.exp(s - max(score)) for s in score))
    return sum(y * (max(score) + total - s) for s, y in zip(score, label, strict=True))


def random_log(n_rows: int, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 30, n_rows)
    scores = [random.normal(size=n).tolist() for n in lengths]
    labels = [np.eye(n)[random.integers(n)].tolist() for n in lengths]
    return pa.table(
        {
            "y": pa.array(labels, pa.list_(pa.float32())),
            "s": pa.array(scores, pa.list_(pa.float64())),
            "i": [int(np.argmax(label)) for label in labels],
            "w": random.integers(0, 4, n_rows) / 4,
            "k": random.integers(0, 3, n_rows),
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_list_gives_the_same(kind: str) -> None:
    expected = math.fsum(crossentropy(s, y) for s, y in zip(SCORES, LABELS, strict=True)) / len(SCORES)
    columns = {"y": pa.array(LABELS, KINDS[kind]), "s": pa.array(SCORES, KINDS[kind])}
    result = fl.evaluate(pa.table(columns), label="y", logit="s")
    assert result["categorical_crossentropy"] == pytest.approx(expected, rel=1e-15)
    # A slice has a first offset that is not zero.
    sliced = fl.evaluate(pa.table(columns).slice(1), label="y", logit="s")
    rest = math.fsum(crossentropy(s, y) for s, y in zip(SCORES[1:], LABELS[1:], strict=True)) / 3
    assert sliced["categorical_crossentropy"] == pytest.approx(rest, rel=1e-15)


def test_lists_of_a_fixed_size() -> None:
    scores, labels = [[1.0, 2.0], None, [0.0, 5.0]], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    table = pa.table({"y": pa.array(labels, pa.list_(pa.int8(), 2)), "s": pa.array(scores, pa.list_(pa.float32(), 2))})
    result = fl.evaluate(table, label="y", logit="s")
    expected = (crossentropy([1.0, 2.0], [1.0, 0.0]) + crossentropy([0.0, 5.0], [0.0, 1.0])) / 2
    assert result["categorical_crossentropy"] == pytest.approx(expected, rel=1e-15)
    assert [(d["cause"], d["rows"]) for d in result.rows["dropped"]] == [("null_prediction", 1)]


def test_what_lies_under_a_null_list_is_not_looked_at() -> None:
    values = pa.array([1.0, math.nan, 2.0, 3.0])
    column = pa.ListArray.from_arrays(pa.array([0, 2, 4], pa.int32()), values, mask=pa.array([True, False]))
    lists = to_lists(column, "s")
    assert lists.values.tolist() == [2.0, 3.0]
    assert lists.offsets.tolist() == [0, 0, 2]
    assert lists.valid is not None
    assert lists.valid.tolist() == [False, True]


def test_lists_that_have_no_loss_are_counted_by_cause() -> None:
    scores = [[1.0, 2.0], [], None, [1.0, 2.0], [None, -math.inf], [1.0, None], [1.0, 2.0]]
    labels = [[1.0, 0.0], [], [1.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [None, 1.0]]
    result = fl.evaluate(pa.table({"y": labels, "s": scores}), label="y", logit="s")
    found = {(d["cause"], d["column"]): d["rows"] for d in result.rows["dropped"]}
    assert found == {
        ("empty_list", "s"): 1,
        ("null_prediction", "s"): 1,
        ("no_positive", "y"): 1,
        ("all_masked", "s"): 1,
    }
    # A single candidate that is not masked is certain.
    assert result["categorical_crossentropy"] == pytest.approx(crossentropy([1.0, 2.0], [1.0, 0.0]) / 3, rel=1e-15)


def test_coverage_is_the_share_of_candidates_in_lists_that_are_used() -> None:
    table = pa.table(
        {
            # A list of each kind: good, no positive, no pair, masked, empty, null, of weight 0.
            "y": [[0, 1, 0], [0, 0], [1, 1, 1, 1, None], [1], [], None, [1, 0]],
            "s": [[0.1, 0.2, 0.3], [0.1, 0.2], [0.1, 0.2, 0.3, 0.4, 0.5], [None], [], [0.5], [0.1, 0.2]],
            "w": [2, 1, 1, 1, 1, 1, 0],
            "c": ["a", "b", "a", "b", "b", "b", "a"],
        }
    )
    metrics = ["categorical_crossentropy", "pairwise_logistic", "log_loss", "mrr"]
    request: dict[str, Any] = {"label": "y", "logit": "s", "weight": "w"}
    result = fl.evaluate(table, **request, metrics=metrics)
    found = {v.metric: v.evidence.get("coverage") for v in result.values}
    expected = {"categorical_crossentropy": 7 / 9, "pairwise_logistic": 3 / 9, "log_loss": None}
    assert found == {**expected, "reciprocal_rank": 7 / 9}
    # Alone, a metric says the same.
    for name, share in expected.items():
        (alone,) = fl.evaluate(table, **request, metrics=[name]).values
        assert alone.evidence.get("coverage") == share
        assert alone.value == result[name]
    common = fl.evaluate(table, **request, metrics=metrics, common_rows=True)
    assert {v.evidence["coverage"] for v in common.values} == {3 / 9}
    sliced = fl.evaluate(table, **request, metrics=metrics[:2], by=["c"])
    assert {(v.slice["c"], v.metric): v.evidence.get("coverage") for v in sliced.values if v.slice} == {
        ("a", "categorical_crossentropy"): 1.0,
        ("a", "pairwise_logistic"): 3 / 7,
    }


@pytest.mark.parametrize("masked", [None, -math.inf])
def test_a_positive_label_of_a_masked_candidate_is_infinite_and_counted(masked: float | None) -> None:
    table = pa.table({"y": [[1.0, 0.0], [0.0, 1.0]], "s": [[1.0, 2.0], [0.0, masked]]})
    result = fl.evaluate(table, label="y", logit="s")
    (value,) = result.values
    assert value.value == math.inf
    assert (value.n, value.evidence["n_saturated"], value.evidence["n_infinite"]) == (2, 1, 1)
    with pytest.raises(fl.DataError, match="row 1: column 's' rules out"):
        fl.evaluate(table, label="y", logit="s", saturation="error")


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([[1.0, math.nan]], [[1.0, 0.0]], "row 0: logit column 's' is nan"),
        ([[1.0], [1.0, 2.0]], [[1.0], [1.0]], "row 1: column 's' has a list of another length"),
        ([[math.inf, math.inf, 0.0]], [[1.0, 0.0, 0.0]], "row 0: column 's' has two candidates at infinity"),
        ([[1.0, 2.0]], [[1.0, -1.0]], "row 0: label column 'y' is -1.0; allowed: label >= 0"),
        ([[1.0, 2.0]], [[1.0, math.nan]], "row 0: label column 'y' is nan"),
    ],
)
def test_a_bad_list_stops_or_is_dropped(scores: list[list[float]], labels: list[list[float]], message: str) -> None:
    good = pa.table({"y": [*labels, [0.0, 1.0]], "s": [*scores, [1.0, 1.0]]})
    with pytest.raises(fl.DataError, match=message):
        fl.evaluate(good, label="y", logit="s")
    result = fl.evaluate(good, label="y", logit="s", on_bad_row="drop")
    used = 2 if len(scores) == 2 else 1
    assert result.rows["used"] == used
    if used == 1:
        assert result["categorical_crossentropy"] == pytest.approx(math.log(2), rel=1e-15)


@pytest.mark.parametrize("name", ["pairwise_logistic", "pairwise_hinge", "lambda_rank", "approx_ndcg"])
def test_a_list_of_too_many_pairs_stops_or_is_dropped(name: str) -> None:
    scores, labels = (
        [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0], [0.0, 1.0]],
        [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0]],
    )
    table = pa.table({"y": labels, "s": scores})
    request = {"label": "y", "logit": "s", "metrics": [f"{name}(max_pairs=3)"]}
    with pytest.raises(fl.DataError) as raised:
        fl.evaluate(table, **request)
    (line,) = str(raised.value).splitlines()
    assert "row 1: column 's' has a list of more candidates than max_pairs allows; raise max_pairs" in line
    found = fl.evaluate(table, **request, on_bad_row="drop")
    assert [(d["cause"], d["rows"]) for d in found.rows["dropped"]] == [("list_too_long", 1)]
    expected = fl.evaluate(table.take([0, 2]), **request)
    assert [v.value for v in found.values] == [v.value for v in expected.values]
    # Six pairs are as many as four candidates have.
    assert fl.evaluate(table, label="y", logit="s", metrics=[f"{name}(max_pairs=6)"]).rows["used"] == 3


def test_an_index_label_must_point_at_a_candidate() -> None:
    table = pa.table({"i": [0, 2, -1], "s": [[1.0, 2.0], [1.0, 2.0], [3.0]]})
    with pytest.raises(fl.DataError, match=r"row 1: label column 'i' is 2\.0"):
        fl.evaluate(table, label="i", logit="s")
    ignoring = fl.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    result = fl.evaluate(table.slice(0, 1), label="i", logit="s", metrics=[ignoring])
    assert result[ignoring.full_name] == pytest.approx(crossentropy([1.0, 2.0], [1.0, 0.0]), rel=1e-15)
    dropped = fl.evaluate(table, label="i", logit="s", metrics=[ignoring], on_bad_row="drop").rows["dropped"]
    assert {d["cause"]: d["rows"] for d in dropped} == {"ignored_class": 1, "outside_domain": 1}


@pytest.mark.parametrize("data_type", [pa.int8(), pa.int64(), pa.float64()], ids=str)
def test_a_null_index_is_no_class(data_type: pa.DataType) -> None:
    """Neither the class 0, which stands under a null, nor any other."""
    scores = [[5.0, 0.0], [0.0, 1.0], [3.0, 0.0], [1.0, 2.0]]
    table = pa.table({"y": pa.array([None, 1, None, 0], data_type), "s": scores})
    asked: dict[str, Any] = {"label": "y", "logit": "s", "metrics": ["sparse_categorical_crossentropy"]}
    result = fl.evaluate(table, **asked)
    assert result["sparse_categorical_crossentropy"] == fl.evaluate(table.take([1, 3]), **asked)[asked["metrics"][0]]
    assert result.rows["used"] == 2
    assert [(found["cause"], found["rows"]) for found in result.rows["dropped"]] == [("null_label", 2)]


def test_index_and_one_hot_labels_agree_to_the_bit() -> None:
    log = random_log(500)
    dense = fl.evaluate(log, label="y", logit="s", weight="w", by="k")
    sparse = fl.evaluate(log, label="i", logit="s", weight="w", by="k")
    assert [v.value for v in dense.values] == [v.value for v in sparse.values]


def test_pointwise_losses_over_lists_by_row_and_by_element() -> None:
    # A worked example: row means 1.1 and 1.5.
    scores = [[0.6, 0.4], [0.4, 0.6, 0.9]]
    labels = [[0.0, 1.0], [0.0, 0.0, 1.0]]
    table = pa.table({"y": labels, "s": scores, "w": [1.0, 3.0]})
    elements = [[1.6, 0.6], [1.4, 1.6, 0.1]]
    by_row = fl.evaluate(table, label="y", margin="s", metrics=["hinge"])
    assert by_row["hinge"] == pytest.approx((1.1 + 3.1 / 3) / 2, rel=1e-15)
    by_element = fl.evaluate(table, label="y", margin="s", metrics=["hinge"], list_reduction="element")
    assert by_element["hinge"] == pytest.approx(sum(map(sum, elements)) / 5, rel=1e-15)
    weighted = fl.evaluate(table, label="y", margin="s", metrics=["hinge"], list_reduction="element", weight="w")
    assert weighted["hinge"] == pytest.approx((2.2 + 3 * 3.1) / (2 + 9), rel=1e-15)
    assert [r.values[0].evidence["list_reduction"] for r in (by_row, by_element)] == ["row", "element"]
    assert "list_reduction element: the mean over all candidates of all lists" in str(by_element)
    assert by_element.to_polars()["list_reduction"].to_list() == ["element"]


@pytest.mark.parametrize(
    ("name", "space"), [("log_loss", "logit"), ("mean_squared_error", "value"), ("huber", "value")]
)
def test_lists_of_one_row_are_the_rows(name: str, space: str) -> None:
    random = np.random.default_rng(5)
    label, score = random.random(1000), random.normal(size=1000)
    rows = pa.table({"y": label, "s": score})
    lists = pa.table({"y": label.reshape(-1, 1).tolist(), "s": score.reshape(-1, 1).tolist()})
    expected = fl.evaluate(rows, label="y", metrics=[name], **{space: "s"})
    for reduction in ("row", "element"):
        found = fl.evaluate(lists, label="y", metrics=[name], list_reduction=reduction, **{space: "s"})
        assert found[name] == expected[name]


def test_masked_candidates_take_no_part_in_a_mean() -> None:
    table = pa.table({"y": [[1.0, 0.0, None]], "s": [[1.0, None, 3.0]]})
    result = fl.evaluate(table, label="y", value="s", metrics=["mean_squared_error"])
    assert result["mean_squared_error"] == 0.0
    # Minus infinity is a logit like others for a loss of rows: certain, and right for the label 0.
    table = pa.table({"y": [[1.0, 0.0]], "s": [[0.0, -math.inf]]})
    assert fl.evaluate(table, label="y", logit="s", metrics=["log_loss"])["log_loss"] == math.log(2) / 2


def test_no_layout_changes_a_bit(tmp_path: Path) -> None:
    log = random_log(3000, seed=3)
    expected = fl.evaluate(
        log, label="y", logit="s", weight="w", by="k", metrics=["categorical_crossentropy", "log_loss"]
    )
    shuffled = log.take(np.random.default_rng(1).permutation(log.num_rows))
    for number, (table, rows) in enumerate([(log, 10_000), (log, 700), (shuffled, 64)]):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table, path, row_group_size=rows)
        for options in ({}, {"threads": 3, "batch_rows": 7}, {"batch_rows": 1}, {"reader": "polars"}):
            found = fl.evaluate(
                path,
                label="y",
                logit="s",
                weight="w",
                by="k",
                metrics=["categorical_crossentropy", "log_loss"],
                **options,
            )
            assert [v.value for v in found.values] == [v.value for v in expected.values], (number, options)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"label": "y", "logit": "w"}, "both must hold lists, or both numbers"),
        ({"label": "i", "logit": "s", "metrics": ["categorical_crossentropy"]}, "sparse_categorical_crossentropy"),
        (
            {"label": "y", "logit": "s", "metrics": ["sparse_categorical_crossentropy"]},
            "use 'categorical_crossentropy'",
        ),
        ({"label": "y", "logit": "s", "metrics": ["ctr"]}, "ctr reads one number a row"),
        ({"label": "w", "logit": "s", "metrics": ["log_loss"]}, "both must hold lists"),
        ({"label": "w", "logit": "k", "metrics": ["categorical_crossentropy"]}, "column 'k' holds numbers"),
        ({"label": "y", "logit": "s", "weight": "y"}, "one number a row is needed"),
        ({"label": "y", "logit": "s", "list_reduction": "all"}, "'row' or 'element'"),
        ({"label": "y", "logit": {"a": "s", "b": "w"}}, "column 's' holds lists and column 'w' numbers"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_row_is_read(request_: dict[str, object], message: str) -> None:
    with pytest.raises((fl.UsageError, fl.SchemaError), match=message):
        fl.make_plan(random_log(3), **request_)


def test_lists_of_text_are_refused() -> None:
    with pytest.raises(fl.SchemaError, match="numbers are needed"):
        fl.make_plan(pa.table({"y": [[1.0]], "s": [["a"]]}), label="y", logit="s")


@pytest.mark.parametrize("form", ["arrow", "chunked", "polars", "numpy", "arrays", "pandas"])
def test_array_calls_take_list_columns_of_every_library(form: str) -> None:
    scores = [[1.0, 2.0, 3.0], [0.5, -0.5, 0.0]]
    labels = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    make = {
        "arrow": lambda rows: pa.array(rows, pa.list_(pa.float32())),
        "chunked": lambda rows: pa.chunked_array([pa.array(rows[:1]), pa.array(rows[1:])]),
        "polars": lambda rows: pl.Series(rows),
        "numpy": np.array,
        "arrays": lambda rows: [np.array(row) for row in rows],
        "pandas": lambda rows: pytest.importorskip("pandas").Series(rows),
    }[form]
    loss = fl.losses.CategoricalCrossentropy()
    expected = [crossentropy(s, y) for s, y in zip(scores, labels, strict=True)]
    assert loss(make(labels), logit=make(scores)).tolist() == pytest.approx(expected, rel=1e-15)
    gradient, hessian = loss.gradient_hessian(make(labels), logit=make(scores))
    kinds = {"arrow": pa.Array, "chunked": pa.Array, "polars": pl.Series, "numpy": np.ndarray, "pandas": pa.Array}
    assert isinstance(gradient, kinds.get(form, list))
    plain = loss.gradient(np.array(labels), logit=np.array(scores))
    assert [list(row) for row in getattr(gradient, "to_pylist", lambda: gradient)()] == plain.tolist()
    assert len(hessian) == 2


def test_array_calls_on_lists_that_have_no_loss() -> None:
    score = pa.array([[1.0, None], [None, None], None, [math.nan, 1.0], [1.0, 2.0], []])
    label = pa.array([[1.0, 0.0], [1.0, 0.0], [1.0], [1.0, 0.0], [None, 1.0], []])
    loss = fl.losses.CategoricalCrossentropy()
    found = loss(label, logit=score)
    assert found[[0, 4]].tolist() == [0.0, 0.0]
    assert np.isnan(found[[1, 2, 3, 5]]).all()
    assert loss.gradient(label, logit=score).to_pylist()[2] is None
    with pytest.raises(ValueError, match="List 0 has 1 labels and 2 candidates"):
        loss(pa.array([[1.0]]), logit=pa.array([[1.0, 2.0]]))
    with pytest.raises(ValueError, match="OverLists"):
        fl.losses.Hinge()(label, margin=score)
    assert fl.losses.OverLists(fl.losses.Hinge())([[1.0, 0.0]], margin=[[0.5, 0.5]]).tolist() == [1.0]


def test_a_null_label_of_minus_one_or_one_is_masked() -> None:
    table = pa.table({"y": [[1.0, -1.0, None]], "s": [[1.0, 0.0, 2.0]]})
    result = fl.evaluate(table, label="y", logit="s", metrics=["categorical_crossentropy"], label_domain="pm1")
    assert result["categorical_crossentropy"] == pytest.approx(crossentropy([1.0, 0.0], [1.0, 0.0]), rel=1e-15)


def test_infinite_logits_are_predictions_like_others_for_losses_of_rows() -> None:
    table = pa.table({"y": [[1.0, 1.0]], "s": [[math.inf, math.inf]]})
    assert fl.evaluate(table, label="y", logit="s", metrics=["log_loss"])["log_loss"] == 0.0


def test_a_loss_over_lists_is_named_itself_in_an_evaluation() -> None:
    over = fl.losses.OverLists(fl.losses.Hinge(), "element")
    with pytest.raises(fl.UsageError, match="list_reduction="):
        fl.make_plan(random_log(3), label="y", margin="s", metrics=[over])
    for wrong in ("hinge", fl.losses.CategoricalCrossentropy(), over):
        with pytest.raises(ValueError, match="a pointwise loss"):
            fl.losses.OverLists(wrong)


def test_two_defined_losses_of_one_name_are_not_taken_for_each_other() -> None:
    def define(factor: float, **domain: object) -> fl.losses.Loss:
        return fl.losses.define(lambda prediction, label: factor * (prediction - label) ** 2, name="own", **domain)()

    log = pa.table({"y": [1.0, 0.5], "p": [1.5, 1.0]})
    first, second = define(1.0), define(3.0)
    with pytest.raises(fl.UsageError, match="Two different losses are called 'own'"):
        fl.evaluate(log, label="y", value="p", metrics=[first, second])
    others = [define(1.0, label_range=(0.0, 2.0)), define(1.0, prediction_range=(0.0, 2.0))]
    plans = [fl.make_plan(log, label="y", value="p", metrics=[loss]) for loss in (first, second, *others)]
    assert len({plan.fingerprint for plan in plans}) == 4
    assert plans[0].fingerprint == fl.make_plan(log, label="y", value="p", metrics=[define(1.0)]).fingerprint


def test_a_list_that_the_memory_has_no_room_for_is_refused() -> None:
    log = pa.table({"y": [[1.0, *[0.0] * 400_000]], "s": [[0.0] * 400_001]})
    assert fl.evaluate(log, label="y", logit="s")["categorical_crossentropy"] == pytest.approx(math.log(400_001))
    plan = fl.make_plan(log, label="y", logit="s", memory="180MiB", threads=1, batch_rows=1000)
    assert plan.execution.longest_list < 400_001
    with pytest.raises(fl.UsageError, match=r"a list of 400,001 elements, and the memory has room for [\d,]+; raise"):
        fl.evaluate(log, label="y", logit="s", memory="180MiB", threads=1, batch_rows=1000)


def test_a_list_that_no_model_can_use_is_counted_once() -> None:
    table = pa.table({"y": [[0.0, 0.0], [1.0, 0.0]], "a": [[1.0, 2.0], [1.0, 2.0]], "b": [[2.0, 1.0], [None, None]]})
    rows = fl.evaluate(table, label="y", logit={"a": "a", "b": "b"}).rows
    assert rows["used"] == {"a": 1, "b": 0}
    assert {(d["cause"], d["column"]): d["rows"] for d in rows["dropped"]} == {
        ("no_positive", "y"): 1,
        ("all_masked", "b"): 1,
    }


def test_words_of_parameters_need_no_quotes() -> None:
    table = pa.table({"y": [[1.0, 0.0]], "s": [[1.0, 2.0]]})
    result = fl.evaluate(table, label="y", logit="s", metrics=["multi_positive_crossentropy(form=mass)"])
    assert "multi_positive_crossentropy(form='mass')" in result
    assert list(result) == ["multi_positive_crossentropy(form='mass')"]
    assert result["multi_positive_crossentropy(form=mass)"] == pytest.approx(crossentropy([1.0, 2.0], [1.0, 0.0]))
    rows = pa.table({"y": [1.0], "s": [0.5]})
    poisson = fl.evaluate(rows, label="y", value="s", metrics=["poisson(log_input=true)"])
    assert poisson["poisson(log_input=True)"] == pytest.approx(math.exp(0.5) - 0.5)
    with pytest.raises(fl.UsageError, match="each parameter once"):
        fl.evaluate(rows, label="y", value="s", metrics=["huber(delta=1,delta=2)"])


@pytest.mark.parametrize("wrong", [2, -1])
def test_an_index_outside_its_list_is_told_what_is_allowed(wrong: int) -> None:
    table = pa.table({"i": [wrong], "s": [[1.0, 2.0]]})
    with pytest.raises(fl.DataError, match=r"allowed: the index of one of the list's candidates, from 0\. 1 bad row"):
        fl.evaluate(table, label="i", logit="s")


def test_an_own_loss_that_is_no_number_says_so() -> None:
    def naive(p: float, y: float) -> float:
        return -y * math.log(p) - (1 - y) * math.log(1 - p)

    own = fl.losses.define(naive, space="prob")
    log = pa.table({"y": [0.0, 1.0], "p": [0.0, 0.5]})
    (value,) = fl.evaluate(log, label="y", prob="p", metrics=[own()]).values
    assert (value.value, value.reason, value.evidence["n_nan"]) == (None, "nan_loss", 1)


def test_none_in_a_python_list_is_a_null_and_nan_is_not() -> None:
    loss = fl.losses.CategoricalCrossentropy()
    found = loss([[1, 0], [1, None], [1, 0], None], logit=[[1.0, None], [1.0, 2.0], [1.0, math.nan], [1.0]])
    assert found[:2].tolist() == [0.0, 0.0]
    assert np.isnan(found[2:]).all()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.array([1j]), "complex128; allowed: real numbers"),
        (np.array(["a"]), "allowed: real numbers"),
        (np.array(["2026-01-01"], dtype="datetime64[D]"), "allowed: real numbers"),
        (np.array([2**53 + 1]), "an integer beyond 2"),
    ],
)
def test_array_calls_refuse_what_float64_does_not_hold(label: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fl.losses.MeanSquaredError()(label, value=np.array([1.0]))


def test_what_a_masked_array_masks_is_no_number() -> None:
    label = np.ma.masked_array([1.0, 2.0], mask=[False, True])
    found = fl.losses.MeanSquaredError()(label, value=[0.0, 0.0])
    assert found[0] == 1.0
    assert math.isnan(found[1])
