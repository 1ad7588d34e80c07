"""What a result looks like: every format, choices of slices, and single numbers by name."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import json
import math
import re
import sys
from html.parser import HTMLParser
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.report.formats import FORMATS, format_of
from fastloss.report.table import _difference, _number
from fastloss.report.view import View


def log(**columns: Any) -> pa.Table:
    """Nine rows in four slices of 4, 3, 1 and 1 rows."""
    return pa.table(
        {
            "click": pa.array([1, 0, 0, 0, 1, 1, 0, 0, 1], pa.int8()),
            "score": [0.5, -1.0, 0.25, -2.0, 1.0, 3.0, -0.5, 0.0, 20.0],
            "other": [0.4, -1.5, 0.5, -2.5, 1.0, 2.0, 0.5, 1.0, 2.0],
            "country": ["DE", "DE", "DE", "DE", "A|B", "A|B", "A|B", "", None],
            **columns,
        }
    )


def evaluate(**options: Any) -> fl.Result:
    given: dict[str, Any] = {"logit": {"a": "score", "b": "other"}, "metrics": ["log_loss", "ctr"], "by": "country"}
    return fl.evaluate(log(), label="click", **given | options)


def keys_of(result: fl.Result) -> list[Any]:
    return list(dict.fromkeys(value.slice["country"] for value in result.values if value.slice))


def test_csv_reads_back_to_the_same_values() -> None:
    result = evaluate()
    options = pa.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
    read = pa.csv.read_csv(io.BytesIO(result.to_csv().encode()), convert_options=options)
    expected = result.to_arrow()
    assert read.column_names == expected.column_names
    assert read["value"].to_pylist() == expected["value"].to_pylist()
    assert read["n"].to_pylist() == expected["n"].to_pylist()
    # The null key and the empty one are told apart.
    of_country = read.filter(pa.compute.equal(read["slice"], "country"))["slice.country"]
    assert of_country.to_pylist() == [key for key in ("", "A|B", "DE", None) for _ in range(4)]


def test_binary_formats_hold_the_arrow_table() -> None:
    result = evaluate()
    found = {
        name: FORMATS[name].write(result, View(), as_file=as_file)
        for name, as_file in (("arrow", True), ("parquet", True))
    }
    assert all(isinstance(content, bytes) for content in found.values())
    assert pa.ipc.open_file(pa.py_buffer(found["arrow"])).read_all().equals(result.to_arrow())
    assert pq.read_table(pa.BufferReader(found["parquet"])).equals(result.to_arrow())


def test_markdown_has_every_slice_in_tables_of_as_many_cells() -> None:
    text = evaluate().to_markdown()
    assert text.startswith("- 9 rows read, used: 9 by a, 9 by b\n")
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert len(tables) == 2
    for table in tables:
        rows = [re.split(r"(?<!\\)\|", line) for line in table.splitlines()]
        assert len({len(row) for row in rows}) == 1
        assert rows[1][1].strip() == "---"
    assert "| A\\|B | a | 3 | 2 |" in tables[1]
    assert "b - a" in tables[0]
    table = pa.table({"y": [0, 1] * 60, "x": [0.5] * 120, "k": list(range(120))})
    many = fl.evaluate(table, label="y", logit="x", by="k")
    assert "| 119 |" in many.to_markdown()


def test_a_notebook_shows_tables() -> None:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.texts: list[str] = []
            self.tags: list[str] = []

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.tags.append(tag)

        def handle_data(self, data: str) -> None:
            self.texts.append(data)

    table = log(country=["<b>x</b>"] * 9)
    shown = fl.evaluate(table, label="click", logit="score", metrics="log_loss", by="country")._repr_html_()
    reader = Reader()
    reader.feed(shown)
    assert reader.tags.count("table") == 2
    assert "b" not in reader.tags
    assert "<b>x</b>" in reader.texts


def test_slices_are_chosen_and_sorted() -> None:
    result = evaluate()
    assert keys_of(result) == ["", "A|B", "DE", None]
    assert keys_of(result.selected(2)) == ["DE", "A|B"]
    assert keys_of(result.selected(min_rows=2)) == ["A|B", "DE"]
    assert keys_of(result.selected(sort="n")) == ["DE", "A|B", "", None]
    losses = {key: result["log_loss", {"country": key}]["a"] for key in keys_of(result)}
    assert keys_of(result.selected(sort="binary_crossentropy")) == sorted(losses, key=lambda key: -losses[key])
    assert keys_of(result.selected(1, sort="log_loss")) == [max(losses, key=lambda key: losses[key])]
    assert list(result.selected(0).values) == [v for v in result.values if not v.slice]
    # The result itself stays as it is, and every format follows.
    assert keys_of(result) == ["", "A|B", "DE", None]
    view = View(slices=2)
    in_json = json.loads(FORMATS["json"].write(result, view, as_file=True))["values"]
    assert {value["slice"].get("country") for value in in_json} == {None, "DE", "A|B"}
    written = FORMATS["parquet"].write(result, view, as_file=True)
    assert pq.read_table(pa.BufferReader(written)).num_rows == 3 * 4
    with pytest.raises(fl.UsageError, match=r"sorted by hinge, which is not computed; computed are log_loss, ctr"):
        result.shown(sort="hinge")


def test_a_number_of_a_slice_by_name() -> None:
    result = evaluate(by=["country", ("country", "click")])
    by_place = {(v.metric, v.model, tuple(v.slice.items())): v.value for v in result.values}
    assert result["log_loss", {"country": "DE"}] == {m: by_place["log_loss", m, (("country", "DE"),)] for m in "ab"}
    assert (
        result["log_loss", {"click": 1, "country": None}]["a"]
        == by_place["log_loss", "a", (("country", None), ("click", 1))]
    )
    assert result["log_loss", {}] == result["log_loss"]
    one = evaluate(logit="score")
    assert isinstance(one["log_loss", {"country": "DE"}], float)
    with pytest.raises(fl.UsageError, match=r"no slice \{'country': 'FR'\}"):
        one["log_loss", {"country": "FR"}]
    with pytest.raises(fl.UsageError, match=r"no slices by \('device',\); it has slices by: \('country',\)"):
        one["log_loss", {"device": "phone"}]
    with pytest.raises(fl.UsageError, match="no metric 'hinge'"):
        one["hinge", {"country": "DE"}]
    with pytest.raises(fl.UsageError, match="asked for 0; allowed: the name of a metric"):
        one[0]  # type: ignore[index]


@pytest.mark.parametrize(("space", "column"), [("logit", "score"), ("margin", "score"), ("value", "score")])
def test_positives_of_binary_labels_are_counted(space: str, column: str) -> None:
    result = fl.evaluate(log(), label="click", metrics="ctr", by="country", **{space: column})  # type: ignore[arg-type]
    counts = [value.evidence.get("n_positive") for value in result.values]
    assert counts == ([None] * 5 if space == "value" else [4, 0, 2, 1, 1])
    assert ("positives" in str(result)) == (space != "value")
    assert result.to_arrow().column_names[-1] == ("weight" if space == "value" else "n_positive")


def test_positives_of_labels_of_both_signs() -> None:
    signs = log(click=[1, -1, -1, -1, 1, 1, -1, -1, None])
    found = fl.evaluate(signs, label="click", logit="score", metrics="ctr", label_domain="pm1", by="country")
    assert [value.evidence["n_positive"] for value in found.values] == [3, 0, 2, 1]


def test_positives_of_many_rows_and_slices_are_those_of_polars() -> None:
    n = 50_000
    frame = pl.select(
        y=(pl.int_range(n) * 7919 % 13 == 0).cast(pl.Int8),
        x=(pl.int_range(n) % 17) / 8.0 - 1.0,
        few=pl.int_range(n) * 31 % 7,
        some=pl.int_range(n) * 31 % 101,
        many=pl.int_range(n) * 104_729 % 4_001,
    )
    found = fl.evaluate(frame, label="y", logit="x", metrics="ctr", by=["few", "some", "many"])
    for key in ("few", "some", "many"):
        expected = dict(frame.group_by(key).agg(pl.col("y").sum()).iter_rows())
        assert {v.slice[key]: v.evidence["n_positive"] for v in found.values if key in v.slice} == expected
    assert found.values[0].evidence["n_positive"] == frame["y"].sum()


def test_differences_of_two_models_leave_out_what_is_not_finite() -> None:
    table = log(score=[math.inf, *([0.0] * 8)], click=[0] * 9)
    models = {"a": "score", "b": "other"}
    text = str(fl.evaluate(table, label="click", logit=models, metrics=["log_loss", "ne", "ctr"]))
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert lines["log_loss"][1] == "inf"
    assert len(lines["log_loss"]) == 3
    assert lines["ctr"][1:] == ["0.00000", "0.00000", "+0.00000"]
    assert lines["normalized_entropy"][-1] == "(one_class)"
    three = fl.evaluate(log(), label="click", logit={"a": "score", "b": "other", "c": "score"}, metrics="log_loss")
    assert "b - a" not in str(three)


def test_pandas_has_the_columns_of_arrow() -> None:
    pytest.importorskip("pandas")
    frame = evaluate().to_pandas()
    assert list(frame.columns) == evaluate().to_arrow().column_names
    assert frame["value"].tolist()[0] == evaluate()["log_loss"]["a"]


def test_pandas_keeps_integer_keys_as_they_are() -> None:
    pytest.importorskip("pandas")
    keys = [2**53, 2**53 + 1]
    table = pa.table({"y": [0, 1], "p": [0.25, 0.5], "k": keys})
    frame = fl.evaluate(table, label="y", prob="p", metrics="log_loss", by="k").to_pandas()
    assert frame["slice.k"].isna().tolist() == [True, False, False]
    assert [int(key) for key in frame["slice.k"][1:]] == keys


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (pa.date32(), dt.date(2026, 3, 1)),
        (pa.timestamp("us"), dt.datetime(2026, 3, 1, 12)),
        (pa.timestamp("ns"), dt.datetime(2026, 3, 1, 12)),
        (pa.timestamp("us", "Europe/Berlin"), dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)),
        (pa.decimal128(9, 2), decimal.Decimal("1.50")),
        (pa.int64(), 3),
        (pa.string(), "DE"),
    ],
)
def test_a_slice_is_found_by_a_key_of_its_own_type(kind: pa.DataType, key: Any) -> None:
    table = pa.table({"y": [0, 1], "p": [0.25, 0.5], "k": pa.array([None, key], kind)})
    result = fl.evaluate(table, label="y", prob="p", metrics="log_loss", by="k")
    assert result["log_loss", {"k": key}] == pytest.approx(math.log(2))
    assert result["log_loss", result.values[2].slice] == result.values[2].value
    with pytest.raises(fl.UsageError, match="has no slice"):
        result["log_loss", {"k": dt.date(1999, 1, 1)}]


def test_without_pandas_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(fl.UsageError, match="pandas is not installed"):
        evaluate().to_pandas()


def test_formats_are_known_by_their_endings() -> None:
    endings = {"table": ".txt", "json": ".json", "arrow": ".arrow", "parquet": ".parquet", "csv": ".csv"}
    endings["markdown"] = ".md"
    assert {name: format_of(None, ending).name for name, ending in endings.items()} == {name: name for name in FORMATS}
    assert format_of(None, None).name == "table"
    assert format_of("json", ".result").name == "json"
    with pytest.raises(fl.UsageError, match=r"ends in \.xlsx; allowed: \.txt, \.json, \.arrow, \.parquet, \.csv, "):
        format_of(None, ".xlsx")
    with pytest.raises(fl.UsageError, match=r"--format is json, and --output ends in \.csv, as csv does"):
        format_of("json", ".csv")


def test_a_wide_table_has_a_column_for_each_metric() -> None:
    frame = pl.DataFrame(
        {
            "y": [1.0, 0.0, 1.0, 0.0, 1.0],
            "a": [0.5, -1.0, 2.0, None, 1.0],
            "b": [0.1, -0.2, 0.3, 0.4, -3.0],
            "day": [dt.date(2026, 3, 1), dt.date(2026, 3, 2), None, dt.date(2026, 3, 1), dt.date(2026, 3, 2)],
            "k": [1, 2, 1, 2, 1],
        }
    )
    metrics = ["log_loss", "normalized_entropy", "ctr"]
    result = fl.evaluate(frame, label="y", logit={"a": "a", "b": "b"}, metrics=metrics, by=["day", ("k", "day")])
    wide, long = result.to_arrow(wide=True), result.to_arrow()
    assert wide.column_names == ["model", "slice", "slice.day", "slice.k", "n", "weight", *metrics]
    assert wide.num_rows * len(metrics) == long.num_rows
    assert wide.schema.field("slice.day").type == long.schema.field("slice.day").type == pa.date32()
    names = ("slice", "model", "slice.day", "slice.k")
    values = {(row["metric"], *(row[name] for name in names)): row for row in long.to_pylist()}
    for row in wide.to_pylist():
        for metric in metrics:
            found = values[metric, *(row[name] for name in names)]
            assert (row[metric], row["n"], row["weight"]) == (found["value"], found["n"], found["weight"])
    # A slice of one class has no normalized entropy.
    for metric in metrics:
        assert wide.column(metric).null_count == sum(v.value is None for v in result.values if v.metric == metric)
    assert result.to_polars(wide=True).height == wide.num_rows


@pytest.mark.parametrize(
    "keys",
    [
        pa.array([0, 86_400 * 365, None], pa.timestamp("s")),
        pa.array([1, 1_700_000_000_123_456, None], pa.timestamp("us", "Europe/Berlin")),
        pa.array([1, 1_700_000_000_123_456_789, None], pa.timestamp("ns", "UTC")),
        pa.array([decimal.Decimal("1.50"), decimal.Decimal("-3.25"), None], pa.decimal128(9, 2)),
        pa.array([0, 20_000, None], pa.date32()),
        pa.array(["b", "a", None]),
        pa.array([3, 2**63 - 1, None]),
        pa.array([True, False, None]),
    ],
    ids=lambda keys: str(keys.type),
)
def test_keys_come_out_as_they_went_in(keys: pa.Array) -> None:
    table = pa.table({"y": [1.0, 0.0, 1.0], "p": [0.5, 0.25, 0.75], "k": keys})
    found = fl.evaluate(table, label="y", prob="p", metrics="log_loss", by="k").to_arrow().column("slice.k")
    assert found.type == keys.type
    # (As texts, since Python has no nanoseconds.)
    expected = keys.cast(pa.string()) if pa.types.is_timestamp(keys.type) else keys
    assert set(found.slice(1).cast(expected.type).to_pylist()) == set(expected.to_pylist())


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.5, 0.5 - 1.01e-5, 0.5 + 1e-6, "0.500000 ±2e-05"),
        (0.002, 0.002, 0.0020000301, "0.00200000 ±4e-08"),
        (4.0, 4.0 - 3e-5, 4.0 + 3e-5, "4.00000"),
    ],
)
def test_bounds_that_leave_digits_in_doubt_are_shown_and_never_too_narrow(
    value: float, low: float, high: float, text: str
) -> None:
    assert _number({"value": value, "low": low, "high": high, "reason": None}) == text


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        ((0.5, 0.5, 0.5), (0.75, 0.75, 0.75), "+0.250000"),
        ((0.5, 0.5 - 1.5e-6, 0.5), (0.5, 0.5, 0.5), "+0.00000 ±2e-06"),
        ((0.5, 0.5 - 2**-10, 0.5), (0.625, 0.625, 0.625 + 2**-10), "+0.125000 ±0.002"),
        ((0.5, 0.5, 0.5 + 2**-30), (0.75, 0.75, 0.75), "+0.250000"),
        ((0.5, 0.5, float("inf")), (0.75, 0.75, 0.75), "+0.250000 ±inf"),
        ((0.5, 0.5, 0.5), None, "+0.125000"),
    ],
)
def test_a_difference_may_be_off_by_what_both_values_may(
    a: tuple[float, float, float], b: tuple[float, float, float] | None, text: str
) -> None:
    first = {"value": a[0], "low": a[1], "high": a[2]}
    second = {"value": 0.625} if b is None else {"value": b[0], "low": b[1], "high": b[2]}
    assert _difference(second, first) == text


def test_thresholds_of_operating_points_are_shown() -> None:
    scores = {"a": [2.0, 1.0, 0.0, -1.0], "b": [0.0, 1.0, 2.0, -1.0]}
    log = pa.table({"y": [1, 0, 1, 0], **scores, "k": ["x", "x", "y", "y"]})
    metrics = ["precision(recall=1)", "recall(precision=1)", "ks"]
    result = fl.evaluate(log, label="y", logit={"a": "a", "b": "b"}, metrics=metrics, by="k")
    lines = [line.split() for line in str(result).splitlines()]
    at = lines.index(["total"])
    names = ["precision(recall=1.0)", "threshold", "recall(precision=1.0)", "threshold", "ks"]
    assert [line[0] for line in lines[at + 2 : at + 7]] == names
    assert lines[at + 3] == ["threshold", "0.500000", "0.500000"]
    assert lines[at + 5] == ["threshold", "0.880797", "0.880797"]
    heading = lines.index(["k", "model", "n", *names])
    # No threshold has precision 1 in the slice whose highest row is a negative.
    assert lines[heading + 2][:5] == ["x", "b", "2", "0.500000", "0.500000"]
    assert lines[heading + 2][5:] == ["null", "(precision_not_reached)", "1.00000"]
    wide = result.to_polars(wide=True)
    assert wide["precision(recall=1.0).threshold"].to_list()[:2] == [0.5, 0.5]
    assert wide["recall(precision=1.0).threshold"].null_count() == 1
    assert "ks.threshold" in wide.columns
