"""`evaluate` end to end: numbers against the oracle, the ledger, the slices, the forms of a result, and refusals."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastloss as fl
from fastloss.errors import DataError, SchemaError, UsageError
from tests.oracles import evaluation as oracle

ALL_BINARY = ["log_loss", "brier_score", "normalized_entropy", "relative_information_gain"]
ALL_BINARY += ["ctr", "mean_prediction", "calibration", "copc"]


def relative(found: float, expected: Any) -> float:
    return float(abs(oracle.mpf(found) - expected) / abs(expected)) if expected else abs(found)


def total(result: fl.Result, metric: str, **slice_: Any) -> fl.Value:
    (found,) = [v for v in result.values if v.metric == metric and dict(v.slice) == slice_]
    return found


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.sampled_from([0.0, 1.0]), st.floats(0, 1)),
            st.one_of(st.none(), st.floats(-50, 50)),
            st.one_of(st.none(), st.sampled_from([0.0, 1.0, 2.5]), st.floats(1e-3, 100)),
            st.sampled_from(["de", "fr", None]),
        ),
        max_size=40,
    ),
)
def test_every_metric_of_any_log_agrees_with_the_definition(rows: list[tuple[Any, ...]]) -> None:
    table = pa.table(
        {
            "y": pa.array([r[0] for r in rows], pa.float64()),
            "x": pa.array([r[1] for r in rows], pa.float64()),
            "w": pa.array([r[2] for r in rows], pa.float64()),
            "country": pa.array([r[3] for r in rows], pa.string()),
        }
    )
    result = fl.evaluate(table, label="y", logit="x", weight="w", metrics=ALL_BINARY, by="country")
    slices: list[dict[str, Any]] = [{}, *({"country": c} for c in {r[3] for r in rows})]
    for chosen in slices:
        counted = [
            (y, x, w)
            for y, x, w, country in rows
            if y is not None and x is not None and w and (not chosen or country == chosen["country"])
        ]
        expected = oracle.evaluate(counted, "logit")
        if chosen and not any(v.slice == chosen for v in result.values):
            # A slice whose rows all lack a label or a weight has nothing to show.
            assert expected["n"] == 0
            continue
        for metric in ALL_BINARY:
            value = total(result, metric, **chosen)
            assert value.n == expected["n"]
            if metric not in expected:
                assert value.value is None
                assert value.reason in {"no_rows", "one_class", "zero_label", "zero_prediction"}
            elif metric == "relative_information_gain":
                assert value.value == pytest.approx(float(expected[metric]), rel=1e-13, abs=1e-13)
            else:
                assert value.value is not None
                # A product w·y is rounded before it is summed, which a base rate near one amplifies.
                amplified = 1 / (1 - expected["ctr"]) if metric == "normalized_entropy" else 1
                assert relative(value.value, expected[metric]) < 2e-15 * amplified, metric
    dropped = result.rows["dropped"]
    assert result.rows["read"] == len(rows)
    assert result.rows["read"] == result.rows["used"] + sum(d["rows"] for d in dropped)


@pytest.mark.parametrize("space", ["prob", "logprob", "value"])
def test_the_other_spaces(space: str) -> None:
    random = np.random.default_rng(5)
    score = random.beta(0.5, 2, 500)
    score = np.log(score) if space == "logprob" else score
    label = (random.random(500) < 0.3).astype(np.int8)
    metrics = {
        "prob": [*ALL_BINARY, "mean_squared_error", "root_mean_squared_error", "mean_absolute_error"],
        "logprob": ALL_BINARY,
        "value": ["mean_squared_error", "root_mean_squared_error", "mean_absolute_error", "ctr", "calibration"],
    }[space]
    result = fl.evaluate(pa.table({"y": label, "s": score}), label="y", metrics=metrics, **{space: "s"})
    expected = oracle.evaluate([(float(y), float(s), 1.0) for y, s in zip(label, score, strict=True)], space)
    for metric in metrics:
        assert relative(total(result, metric).value, expected[metric]) < 4e-15, metric


def test_weight_two_is_the_row_twice_and_weight_zero_is_no_row() -> None:
    y, x, c = [1, 0, 1, 0], [0.3, -1.7, 2.2, 0.9], ["a", "b", "a", "b"]
    weighted = fl.evaluate(
        pa.table({"y": y, "x": x, "w": [2.0, 1.0, 0.0, 2.0], "c": c}), label="y", logit="x", weight="w", by="c"
    )
    repeated = fl.evaluate(
        pa.table({"y": [1, 1, 0, 0, 0], "x": [0.3, 0.3, -1.7, 0.9, 0.9], "c": ["a", "a", "b", "b", "b"]}),
        label="y",
        logit="x",
        by="c",
    )
    assert [(v.metric, v.slice, v.value, v.weight) for v in weighted.values] == [
        (v.metric, v.slice, v.value, v.weight) for v in repeated.values
    ]
    assert weighted.rows["dropped"][0]["cause"] == "zero_weight"


def test_zero_weight_hides_even_a_bad_row() -> None:
    table = pa.table({"y": [math.nan, 1.0], "x": [0.5, 0.5], "w": [0.0, 1.0]})
    result = fl.evaluate(table, label="y", logit="x", weight="w", metrics="log_loss")
    assert result.rows["used"] == 1


def test_models_are_counted_on_their_own_rows() -> None:
    table = pa.table({"y": [1, 0, 1, 0], "a": [0.1, 0.2, 0.3, 0.4], "b": [None, 0.2, None, 0.4], "c": list("uuvv")})
    result = fl.evaluate(table, label="y", logit={"a": "a", "b": "b"}, metrics=["log_loss", "ctr"], by="c")
    alone = fl.evaluate(table, label="y", logit="b", metrics=["log_loss", "ctr"], by="c")
    for value in alone.values:
        (same,) = [v for v in result.values if (v.metric, v.model, v.slice) == (value.metric, "b", value.slice)]
        assert same == value
    assert result["ctr"] == {"a": 0.5, "b": 0.0}
    assert result.rows["used"] == {"a": 4, "b": 2}
    assert result.rows["dropped"] == [
        {"cause": "null_prediction", "column": "b", "role": "logit", "rows": 2, "first": "<stream>, row 0"}
    ]


def test_slices_and_their_cross() -> None:
    random = np.random.default_rng(11)
    n = 5000
    table = pa.table(
        {
            "y": random.integers(0, 2, n),
            "x": random.normal(size=n),
            "country": pa.array(random.choice(["de", "fr", None], n).tolist()),
            "device": random.integers(0, 3, n),
        }
    )
    result = fl.evaluate(table, label="y", logit="x", metrics=["log_loss"], by=["country", ("country", "device")])
    rows = table.to_pylist()
    for value in result.values:
        chosen = [(r["y"], r["x"], 1.0) for r in rows if all(r[k] == v for k, v in value.slice.items())]
        expected = oracle.evaluate(chosen, "logit")
        assert value.n == expected["n"]
        assert relative(value.value, expected["log_loss"]) < 2e-15
    assert [v.slice for v in result.values[:4]] == [{}, {"country": "de"}, {"country": "fr"}, {"country": None}]
    assert len(result.values) == 1 + 3 + 9


def test_saturated_rows_are_counted() -> None:
    table = pa.table({"y": [1, 1, 0, 0], "p": [0.0, 0.5, 1.0, 0.0], "w": [2.0, 1.0, 0.5, 1.0]})
    clipped = total(fl.evaluate(table, label="y", prob="p", weight="w", metrics="log_loss"), "log_loss")
    assert clipped.evidence == {"n_saturated": 2, "w_saturated": 2.5, "n_infinite": 2}
    assert clipped.value == pytest.approx((2.5 * 27.631021115928547 + math.log(2)) / 4.5, rel=1e-15)
    exact = fl.evaluate(table, label="y", prob="p", weight="w", metrics="log_loss", saturation="exact")
    assert exact["log_loss"] == math.inf
    assert json.loads(exact.to_json())["values"][0]["value"] == "inf"
    near = pa.table({"y": [1, 1], "p": [1e-13, 0.5]})
    found = total(fl.evaluate(near, label="y", prob="p", metrics="log_loss"), "log_loss").evidence
    assert found == {"n_saturated": 1, "w_saturated": 1.0, "n_infinite": 0}
    with pytest.raises(DataError, match=r"<stream>, row 0: column 'p' rules out .*\(prob 0\.0 at label 1\.0\)"):
        fl.evaluate(table, label="y", prob="p", metrics="log_loss", saturation="error")
    logits = pa.table({"y": [1, 1], "x": [-math.inf, math.inf]})
    infinite = total(fl.evaluate(logits, label="y", logit="x", metrics="log_loss"), "log_loss")
    assert infinite.value == math.inf
    assert infinite.evidence["n_saturated"] == 1


def test_signed_labels() -> None:
    signed = fl.evaluate(pa.table({"y": [1, -1, 1], "x": [0.1, 0.2, 0.3]}), label="y", logit="x", label_domain="pm1")
    plain = fl.evaluate(pa.table({"y": [1, 0, 1], "x": [0.1, 0.2, 0.3]}), label="y", logit="x")
    assert [v.value for v in signed.values] == [v.value for v in plain.values]
    with pytest.raises(DataError, match="label_domain='pm1'"):
        fl.evaluate(pa.table({"y": [1, -1], "x": [0.1, 0.2]}), label="y", logit="x")
    with pytest.raises(DataError, match="If labels are 0 and 1, leave out label_domain='pm1'"):
        fl.evaluate(pa.table({"y": [1, 0], "x": [0.1, 0.2]}), label="y", logit="x", label_domain="pm1")


def test_zero_rows_and_all_null_are_null_values_with_a_reason() -> None:
    empty = pa.table({"y": pa.array([], pa.int8()), "x": pa.array([], pa.float32()), "c": pa.array([], pa.string())})
    nulls = pa.table({"y": pa.array([None, None], pa.int8()), "x": [0.1, 0.2], "c": ["a", "a"]})
    for table in (empty, nulls):
        result = fl.evaluate(table, label="y", logit="x", by="c")
        assert all((v.value, v.reason, v.n, v.weight) == (None, "no_rows", 0, 0.0) for v in result.values)
        assert result["log_loss"] is None
        assert result.rows["read"] == table.num_rows
        str(result)


def test_one_class_has_no_normalized_entropy() -> None:
    result = fl.evaluate(pa.table({"y": [0, 0], "x": [0.1, 0.2]}), label="y", logit="x")
    assert total(result, "normalized_entropy").reason == "one_class"
    assert total(result, "calibration").reason == "zero_label"
    assert result["ctr"] == 0.0


def test_infinite_terms_are_named() -> None:
    table = pa.table({"y": [1.0, 2.0], "v": [math.inf, -math.inf], "u": [math.inf, 1.0]})
    nothing = total(fl.evaluate(table, label="y", value="v", metrics="mean_prediction"), "mean_prediction")
    assert (nothing.value, nothing.reason) == (None, "infinite_terms")
    infinite = total(fl.evaluate(table, label="y", value="u", metrics="mean_squared_error"), "mean_squared_error")
    assert (infinite.value, infinite.reason) == (math.inf, "infinite_terms")
    heavy = pa.table({"y": [1, 0], "x": [-3.0, 0.0], "w": [1.7e308, 1.0]})
    overflow = total(fl.evaluate(heavy, label="y", logit="x", weight="w", metrics="log_loss"), "log_loss")
    assert (overflow.value, overflow.reason) == (math.inf, "infinite_terms")


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_bad_rows_are_found_in_every_width(kind: pa.DataType) -> None:
    def column(*numbers: float) -> pa.Array:
        return pa.array(np.array(numbers, dtype=kind.to_pandas_dtype()), kind)

    good = {"y": column(1, 0, 1), "x": column(0.5, 0.5, 0.5), "w": column(1, 1, 1)}
    for name, bad in {"y": [math.inf, math.nan, 2], "x": [math.nan], "w": [math.inf, math.nan, -1]}.items():
        for number in bad:
            table = pa.table(good | {name: column(1, number, 1)})
            for by in ([], ["c"]):
                sliced = table.append_column("c", pa.array(["a", "b", "a"]))
                result = fl.evaluate(sliced, label="y", logit="x", weight="w", by=by, on_bad_row="drop")
                assert result.rows["used"] == 2, (name, number)
    real = {"y": column(1, 2, 3), "v": column(1, 2, 3)}
    for metric, name, number in [
        ("mean_squared_error", "y", math.inf),
        ("mean_squared_logarithmic_error", "v", -1.0),
        ("poisson", "v", 0.0),
    ]:
        table = pa.table(real | {name: column(1, number, 3)})
        with pytest.raises(DataError, match="allowed"):
            fl.evaluate(table, label="y", value="v", metrics=metric)
    zero = fl.evaluate(
        pa.table({"y": [1, 0], "x": [0.1, 0.2], "w": column(1, 0)}), label="y", logit="x", weight="w", metrics="ctr"
    )
    assert zero["ctr"] == 1.0


@pytest.mark.parametrize("name", ["terms", "used label", "used score", "used weight", "ordered terms", "unordered"])
@pytest.mark.parametrize("role", ["label", "logit", "weight"])
def test_a_columns_name_means_nothing_to_the_engine(name: str, role: str) -> None:
    random = np.random.default_rng(2)
    columns = {"label": random.integers(0, 2, 100), "logit": random.integers(-3, 3, 100), "weight": np.arange(1, 101)}
    slices = pa.array(random.choice(["u", "v"], 100).tolist())
    names = {r: name if r == role else r for r in columns}
    for by in ((), "s", ["s", ("s", "t")]):
        plain = pa.table({**columns, "s": slices, "t": slices})
        renamed = pa.table({**{names[r]: values for r, values in columns.items()}, "s": slices, "t": slices})
        expected = fl.evaluate(plain, label="label", logit={"m": "logit"}, weight="weight", by=by)
        found = fl.evaluate(renamed, label=names["label"], logit={"m": names["logit"]}, weight=names["weight"], by=by)
        assert [v.value for v in found.values] == [v.value for v in expected.values]


def test_a_cross_beyond_64_bits() -> None:
    random = np.random.default_rng(4)
    n = 3000
    keys = [f"k{i}" for i in range(7)]
    group = random.integers(0, 128, n)
    entries = pa.array([f"e{i}" for i in range(1024)])
    columns = {
        key: pa.DictionaryArray.from_arrays(pa.array((group * (i + 3)) % 1024, pa.int32()), entries)
        for i, key in enumerate(keys)
    }
    table = pa.table({"y": random.integers(0, 2, n), "x": random.normal(size=n), **columns})
    result = fl.evaluate(table, label="y", logit="x", metrics="ctr", by=[tuple(keys)])
    labels = table["y"].to_numpy()
    assert len(result.values) == 1 + len(set(group.tolist()))
    for value in result.values[1:]:
        rows = (group * 3) % 1024 == int(value.slice["k0"][1:])
        assert [value.slice[k] for k in keys] == [f"e{(group[rows][0] * (i + 3)) % 1024}" for i in range(7)]
        assert value.n == rows.sum()
        assert value.value == labels[rows].sum() / rows.sum()


def test_labels_of_probability_metrics_are_binary() -> None:
    table = pa.table({"y": [1, -1, 2], "x": [0.1, 0.2, 0.3]})
    for metric in ("ctr", "calibration", "copc", "mean_prediction"):
        with pytest.raises(DataError, match="allowed: 0 <= label <= 1"):
            fl.evaluate(table, label="y", logit="x", metrics=metric)
    assert fl.evaluate(table, label="y", value="x", metrics="ctr")["ctr"] == pytest.approx(2 / 3)


def test_rows_of_a_stream_are_counted_from_its_first() -> None:
    y = np.zeros(2_500_000, np.int8)
    y[2_000_000] = 7
    with pytest.raises(DataError, match="<stream>, row 2000000: label"):
        fl.evaluate(pa.table({"y": y, "x": np.zeros(len(y), np.float32)}), label="y", logit="x")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_stream_that_breaks_off_is_an_error_even_when_bad_files_are_skipped(threads: int) -> None:
    schema = pa.schema([("y", pa.int8()), ("x", pa.float64())])

    def batches() -> Any:
        for _ in range(40):
            yield pa.record_batch([np.zeros(60_000, np.int8), np.zeros(60_000)], schema=schema)
        raise OSError("the network is down")

    for _ in range(3):
        reader = pa.RecordBatchReader.from_batches(schema, batches())
        with pytest.raises(fl.ReadError, match="the network is down"):
            fl.evaluate(reader, label="y", logit="x", on_bad_file="skip", threads=threads)


BAD = {
    "nan label": ({"y": [1.0, math.nan]}, "label column 'y' is nan"),
    "label 2": ({"y": [1.0, 2.0]}, "label column 'y' is 2.0; allowed: 0 <= label <= 1"),
    "infinite label": ({"y": [1.0, math.inf]}, "label column 'y' is inf"),
    "nan score": ({"x": [0.0, math.nan]}, "logit column 'x' is nan"),
    "negative weight": ({"w": [1.0, -0.5]}, "weight column 'w' is -0.5; allowed: finite numbers from 0"),
    "infinite weight": ({"w": [1.0, math.inf]}, "weight column 'w' is inf"),
    "nan weight": ({"w": [1.0, math.nan]}, "weight column 'w' is nan"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_stop_or_are_counted(case: str, tmp_path: Path) -> None:
    changed, message = BAD[case]
    table = pa.table({"y": [1.0, 0.0], "x": [0.5, 0.5], "w": [1.0, 1.0]} | changed)
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(DataError) as caught:
        fl.evaluate(tmp_path / "log.parquet", label="y", logit="x", weight="w")
    assert message in str(caught.value)
    assert "log.parquet, row group 0, row 1" in str(caught.value)
    assert "\n" not in str(caught.value)
    result = fl.evaluate(tmp_path / "log.parquet", label="y", logit="x", weight="w", on_bad_row="drop")
    assert result.rows["used"] == 1
    assert sum(d["rows"] for d in result.rows["dropped"]) == 1


def test_probability_outside_its_domain() -> None:
    table = pa.table({"y": [1, 0, 1], "p": [0.5, 1.2, 1.3]})
    with pytest.raises(DataError, match=r"prob column 'p' is 1\.2.*logit=.*2 bad rows"):
        fl.evaluate(table, label="y", prob="p")


def test_the_first_bad_task_is_reported_whatever_the_threads(tmp_path: Path) -> None:
    for i in range(12):
        y = [0.0] * 2000
        if i >= 3:
            y[i] = 7.0 + i
        pq.write_table(pa.table({"y": y, "x": [0.1] * 2000}), tmp_path / f"{i:02}.parquet", row_group_size=500)
    for threads in (1, 2, 7):
        with pytest.raises(DataError, match=r"03\.parquet, row group 0, row 3: label column 'y' is 10\.0"):
            fl.evaluate(tmp_path, label="y", logit="x", threads=threads)


TABLE = pa.table({"click": [1, 0], "score": [0.1, 0.2], "name": ["a", "b"], "p.q": [0.5, 0.5]})


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"label": "clik", "logit": "score"}, SchemaError, "no column 'clik'. Did you mean 'click'"),
        ({"label": "click", "logit": "name"}, SchemaError, "name"),
        ({"label": "click", "logit": "score", "by": "score"}, SchemaError, "score"),
        ({"label": "click"}, UsageError, "No prediction"),
        ({"label": "click", "logit": "score", "metrics": "log_los"}, UsageError, "Did you mean 'log_loss'"),
        ({"label": "click", "logit": "score", "metrics": "log_loss(label_smoothing=2)"}, UsageError, "allowed: 0 <="),
        ({"label": "click", "logit": "score", "metrics": "log_loss(gamma=2)"}, UsageError, "no parameter 'gamma'"),
        ({"label": "click", "logit": "score", "metrics": "log_loss(1"}, UsageError, "Cannot read"),
        ({"label": "click", "logit": "score", "metrics": []}, UsageError, "at least one"),
        ({"label": "click", "logit": "score", "metrics": "mean_squared_error"}, UsageError, "declared logit="),
        ({"label": "click", "logit": "score", "prob": "score"}, UsageError, "Two predictions"),
        ({"label": "click", "logit": "score", "memory": "lots"}, UsageError, "memory is 'lots'"),
        ({"label": "click", "logit": "score", "memory": "1MB"}, UsageError, "Raise memory"),
        ({"label": "click", "logit": "score", "threads": 0}, UsageError, "threads is 0"),
        ({"label": "click", "logit": "score", "saturation": "drop"}, UsageError, "'clip' or 'exact' or 'error'"),
        ({"label": "click", "logit": "score", "by": [("name", "name")]}, UsageError, "different columns"),
        ({"label": "click", "logit": "score", "device": "tpu"}, UsageError, "device"),
        ({"label": "click", "predictions": {"a": "score"}}, UsageError, "allowed: logit"),
        ({"label": "click", "logit": ["score"]}, UsageError, "logit is ['score']"),
        ({"label": ["click"], "logit": "score"}, UsageError, "named by ['click']"),
        ({"label": "click", "logit": "score", "by": 5}, UsageError, "by is 5"),
        ({"label": "click", "logit": "score", "by": [5]}, UsageError, "by holds 5"),
        ({"label": "click", "logit": "score", "metrics": 5}, UsageError, "A metric is 5"),
        ({"label": "click", "logit": "score", "metrics": "log_loss,uauc"}, UsageError, "no metric 'uauc'"),
        ({"label": "click", "logit": "score", "metrics": "log_loss(rows=1)"}, UsageError, "no parameter 'rows'"),
        ({"label": "click", "predictions": ["score"]}, UsageError, "predictions is ['score']"),
    ],
)
def test_impossible_requests_are_refused_before_a_row_is_read(request_: Any, error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        fl.evaluate(TABLE, **request_)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_slices_beyond_the_memory_are_refused() -> None:
    n = 400_000
    table = pa.table({"y": np.zeros(n), "x": np.zeros(n), "u": np.arange(n)})
    with pytest.raises(UsageError, match="Slice by fewer values, or raise memory"):
        fl.evaluate(iter(table.to_batches()), label="y", logit="x", by="u", memory="300MiB", threads=1)


def test_a_file_that_cannot_be_read_says_how_to_go_on(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(fl.ReadError, match="on_bad_file='skip' leaves out what cannot be read"):
        fl.evaluate(tmp_path, label="click", logit="score")
    result = fl.evaluate(tmp_path, label="click", logit="score", on_bad_file="skip")
    assert [skipped["file"] for skipped in result.files["skipped"]] == [str(tmp_path / "b.parquet")]
    assert "on_bad_file" not in result.files["skipped"][0]["cause"]
    assert result.rows["used"] == 2


def test_a_loss_of_ones_own_is_never_read_from_the_cache(tmp_path: Path) -> None:
    code = """
import sys, numpy as np
from fastloss_kernels.cpu.pointwise import make_value
import own
kernel = make_value(own.row)
out = np.empty(1)
kernel(np.ones(1), np.ones(1), (), out)
print(out[0], sum(kernel.stats.cache_hits.values()))
"""
    for factor in (5.0, 7.0):
        (tmp_path / "own.py").write_text(
            "from fastloss_kernels.jit import formula\n"
            f"@formula\ndef row(score, label, parameters):\n    return {factor} * score, 0.0, 0.0\n"
        )
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert run.stdout.split() == [str(factor), "0"]


def test_forms_of_a_result() -> None:
    table = pa.table(
        {"y": [1, 0, 1], "x": [0.1, 0.2, 0.3], "c": ["a", "b", None], "d": pa.array([1, 1, 2], pa.int16())}
    )
    result = fl.evaluate(table, label="y", logit={"m": "x"}, metrics=["log_loss", "ctr"], by=["c", ("c", "d")])
    parsed = json.loads(result.to_json())
    assert set(parsed) == {"schema_version", "fastloss", "plan", "rows", "files", "values"}
    assert parsed["schema_version"] == 1
    assert parsed["plan"]["models"] == {"m": {"logit": "x"}}
    assert parsed["values"][0]["value"] == result["log_loss"]
    assert parsed["values"][0]["slice"] == {}
    frame = result.to_polars()
    assert frame.columns == ["metric", "model", "slice", "slice.c", "slice.d", *frame.columns[5:]]
    assert frame.height == len(result.values) == result.to_arrow().num_rows
    assert frame["value"].to_list() == [v.value for v in result.values]
    with pytest.raises(UsageError, match="no metric 'gauc'"):
        result["gauc"]
    text = str(result)
    assert "log_loss" in text
    assert "by c × d" in text


def test_every_type_of_key_has_its_column() -> None:
    keys = {
        "date": pa.array([0, 1, None], pa.date32()),
        "moment": pa.array([0, 1, None], pa.timestamp("us", "UTC")),
        "number": pa.array([1, 2, None], pa.int16()),
        "flag": pa.array([True, False, None]),
        "name": pa.array(["a", "b", None]).dictionary_encode(),
        "price": pa.array([1, 2, None], pa.int32()).cast(pa.decimal128(12, 0)),
    }
    table = pa.table({"y": [1, 0, 1], "x": [0.1, 0.2, 0.3], **keys})
    result = fl.evaluate(table, label="y", logit="x", metrics="ctr", by=list(keys))
    arrow = result.to_arrow()
    for key in keys:
        slices = [v.slice[key] for v in result.values if key in v.slice]
        assert len([value for value in arrow[f"slice.{key}"].to_pylist() if value is not None]) == len(slices) - 1
        assert slices[-1] is None
    assert [v.slice["date"] for v in result.values if "date" in v.slice] == ["1970-01-01", "1970-01-02", None]
    assert arrow["slice.date"].to_pylist()[1:3] == [dt.date(1970, 1, 1), dt.date(1970, 1, 2)]
    assert result.to_polars().height == arrow.num_rows
    json.loads(result.to_json())


def test_plan_names_what_will_be_read_and_its_fingerprint_ignores_the_machine(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "log.parquet")
    one = fl.make_plan(tmp_path / "log.parquet", label="click", logit="score", by="name", threads=1)
    other = fl.make_plan(tmp_path, label="click", logit="score", by="name", threads=5, memory="2GB")
    third = fl.make_plan(tmp_path, label="click", logit="p.q", by="name")
    assert one.columns == ("click", "score", "name")
    assert one.fingerprint == other.fingerprint != third.fingerprint
    assert one.memory_bound <= one.execution.memory_bytes


@pytest.mark.parametrize("cores", [1, 2, 16, 64, 256])
@pytest.mark.parametrize("by", [(), "name"])
def test_any_number_of_cores_shares_the_memory(tmp_path: Path, monkeypatch: Any, cores: int, by: Any) -> None:
    n = 200_000
    columns = {"click": np.zeros(n, np.int8), "score": np.random.default_rng(0).normal(size=n), "name": ["a"] * n}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    monkeypatch.setattr("fastloss.budget.available_cpus", lambda: cores)
    plan = fl.make_plan(tmp_path, label="click", logit="score", by=by)
    assert 1 <= plan.execution.threads <= cores
    assert plan.execution.threads >= min(cores, 4)
    assert plan.memory_bound <= plan.execution.memory_bytes == 512 << 20


def test_a_dotted_column_and_a_shared_one() -> None:
    result = fl.evaluate(TABLE, label="click", prob={"p": "p.q", "same": "p.q"}, metrics=["log_loss"])
    assert result["log_loss"] == {"p": math.log(2), "same": math.log(2)}


def test_progress_is_reported() -> None:
    seen: list[fl.Progress] = []
    fl.evaluate(TABLE, label="click", logit="score", progress=seen.append)
    assert seen[-1].rows == 2


def test_a_failing_progress_report_is_not_swallowed() -> None:
    def fail(progress: fl.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fl.evaluate(TABLE, label="click", logit="score", progress=fail)


@pytest.mark.parametrize("by", [(), "c"])
@pytest.mark.parametrize("asked", ["1MiB", "100MiB", "163MiB"])
def test_the_memory_that_a_refusal_asks_for_is_enough(tmp_path: Path, by: object, asked: str) -> None:
    import re

    rng = np.random.default_rng(3)
    table = pa.table({"y": rng.integers(0, 2, 50_000), "x": rng.normal(size=50_000), "c": rng.integers(0, 9, 50_000)})
    pq.write_table(table, tmp_path / "log.parquet")
    options = {"label": "y", "logit": "x", "metrics": ["log_loss"], "by": by}
    with pytest.raises(UsageError) as caught:
        fl.evaluate(tmp_path / "log.parquet", **options, memory=asked)
    wanted = re.search(r"(?:need|memory to) ([\d,]+ MiB)", str(caught.value))
    assert wanted is not None, caught.value
    fl.evaluate(tmp_path / "log.parquet", **options, memory=wanted[1].replace(",", ""))


@pytest.mark.parametrize("n_slices", [3, 1000], ids=["few slices", "many slices"])
@pytest.mark.parametrize("by", [(), ("k",), ("k", "j")], ids=["total", "one grouping", "two groupings"])
def test_models_of_the_same_rows_are_each_what_they_are_alone(by: tuple[str, ...], n_slices: int) -> None:
    r = np.random.default_rng(n_slices)
    n = 20_000
    table = pa.table(
        {
            "y": (r.random(n) < 0.3).astype(np.float32),
            "a": r.normal(-2.0, 2.0, n),
            "b": r.normal(-1.0, 3.0, n),
            # One row of this one is dropped: its rows are its own.
            "c": pa.array([None, *r.normal(0.0, 1.0, n - 1)]),
            "w": r.exponential(2.0, n).astype(np.float32),
            "k": r.integers(0, n_slices, n),
            "j": r.integers(0, 4, n),
        }
    )
    metrics = ["log_loss", "ctr", "calibration", "normalized_entropy"]
    asked = {"label": "y", "weight": "w", "metrics": metrics, "by": by, "batch_rows": 3_000}
    together = fl.evaluate(table, logit={"a": "a", "b": "b", "c": "c"}, **asked)
    for model in "abc":
        alone = fl.evaluate(table, logit={model: model}, **asked)
        assert [value for value in together.values if value.model == model] == alone.values
        assert alone.values
