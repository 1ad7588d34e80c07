"""Filters and derived columns: what Polars gives for the whole frame, to the bit, whatever the batches."""

from __future__ import annotations

import json
import math
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastloss as fl
from fastloss.cli import main
from fastloss.columns.expressions import bind
from fastloss.errors import DataError, FastlossError, SchemaError, UsageError
from fastloss.expressions import split_list
from fastloss.request import Request

METRICS = ["log_loss", "calibration", "ctr"]
COUNTRIES = ["DE", "FR", "US", None]


def make_frame(n: int = 20_000) -> pl.DataFrame:
    r = np.random.default_rng(5)
    probability = r.beta(0.5, 3.0, n)
    seconds = np.sort(r.integers(0, 86_400 * 10, n))
    return pl.DataFrame(
        {
            "click": r.random(n) < probability,
            "answer": pl.Series(np.where(r.random(n) < probability, "yes", "no")),
            "rating": pl.Series(r.integers(1, 6, n), dtype=pl.Int16),
            "p": [None if x < 0.002 else x for x in probability.tolist()],
            "s": r.normal(-2.0, 2.0, n).astype(np.float32),
            "country": [COUNTRIES[i] for i in r.integers(0, 4, n)],
            "device": pl.Series([["app", "web"][i] for i in r.integers(0, 2, n)], dtype=pl.Categorical),
            "ts": pl.Series(seconds * 1_000_000).cast(pl.Datetime("us")),
            "day": (pl.Series(seconds * 1_000_000).cast(pl.Datetime("us"))).cast(pl.Date),
            "w": r.exponential(1.0, n),
        }
    )


FRAME = make_frame()
CONDITIONS = [
    "country = 'DE'",
    "country = 'DE' and day >= '1970-01-05'",
    "ts between '1970-01-03' and '1970-01-04 12:00:00'",
    "s > 0.5 or country is null",
    "not (device = 'app')",
    "lower(country) in ('de', 'fr')",
    "country is distinct from 'DE'",
    "country is null",
    "coalesce(country, 'none') = 'none'",
    "(country = 'DE') is null",
    "country is not null",
    "rating >= 4 and p < 0.5 and s < 1",
    "hour(ts) between 8 and 17",
    "date_trunc('day', ts) = '1970-01-02'",
    "s > 100",
    "p is not null",
    "cast(rating as text) = '4'",
    "ts::date = '1970-01-03'",
    "country is null",
    "(device = 'app') is null or coalesce(country, 'none') = 'none'",
    "1 = 1 and s > 0.5",
    "s > 0.5 and true and country = 'DE'",
    "s > 0.5 and 1 = 2",
    "s > 0.5 and null",
]
DERIVED = [
    "hour(ts)",
    "date_trunc('hour', ts)",
    "cast(floor(s) as int)",
    "case when s > 0 then 'high' when s > -2 then 'middle' else 'low' end",
    "coalesce(country, 'none')",
    "country || '-' || device",
    "day > '1970-01-04'",
    "rating",
]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    for part in range(4):
        FRAME.slice(part * 5_000, 5_000).write_parquet(folder / f"{part}.parquet", row_group_size=1_300)
    return folder


def of_whole_frame(expression: str) -> pl.Series:
    """What Polars gives for all rows at once."""
    return FRAME.lazy().sql(f"SELECT ({expression}) AS found FROM self").collect().to_series()


def numbers(result: fl.Result) -> list[Any]:
    return [(v.metric, v.model, tuple(v.slice.values()), v.value, v.n) for v in result.values]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_filtered_log_is_the_log_of_the_rows_that_are_left(condition: str, log: Path) -> None:
    asked = {"label": "click", "prob": "p", "weight": "w", "metrics": METRICS, "by": "device"}
    kept = FRAME.filter(of_whole_frame(condition).fill_null(False))
    expected = fl.evaluate(kept, **asked)
    for how in ({}, {"batch_rows": 777}, {"threads": 3}, {"reader": "polars"}):
        found = fl.evaluate(log, **asked, where=condition, **how)
        assert numbers(found) == numbers(expected), how
        assert found.rows["read"] - found.rows["filtered"] == len(kept) or len(kept) == 0
    for source in (FRAME, FRAME.lazy(), FRAME.to_arrow()):
        assert numbers(fl.evaluate(source, **asked, where=condition)) == numbers(expected)


@pytest.mark.parametrize("expression", DERIVED)
def test_a_derived_key_is_polars_own_column(expression: str, log: Path) -> None:
    asked = {"label": "click", "prob": "p", "metrics": METRICS}
    with_column = FRAME.with_columns(of_whole_frame(expression).alias("found"))
    expected = fl.evaluate(with_column, **asked, by="found")
    found = fl.evaluate(log, **asked, by=[expression], batch_rows=999)
    assert numbers(found) == numbers(expected)
    named = fl.evaluate(log, **asked, by="key", with_columns={"key": expression})
    assert numbers(named) == numbers(expected)


def test_numbers_may_be_derived_wherever_a_column_is_named(log: Path) -> None:
    frame = FRAME.with_columns(y=pl.col("rating") >= 4, q=pl.col("p") / 2, v=pl.col("w") * 2 + 1)
    expected = fl.evaluate(frame, label="y", prob={"a": "q"}, weight="v", metrics=METRICS)
    found = fl.evaluate(log, label="rating >= 4", prob={"a": "p / 2"}, weight="w * 2 + 1", metrics=METRICS)
    assert numbers(found) == numbers(expected)
    by_polars = fl.evaluate(
        log,
        label="y",
        prob={"a": "q"},
        weight="v",
        metrics=METRICS,
        # The second reads the first.
        with_columns={"half": pl.col("p") / 2, "q": "half", "y": pl.col("rating") >= 4, "v": pl.col("w") * 2 + 1},
    )
    assert numbers(by_polars) == numbers(expected)


@pytest.mark.parametrize(
    ("label", "positive", "holds"),
    [
        ("answer", "yes", pl.col("answer") == "yes"),
        ("device", "app", pl.col("device") == "app"),
        ("rating", "5", pl.col("rating") == 5),
        ("rating", 5, pl.col("rating") == 5),
        ("click", "false", ~pl.col("click")),
        ("click", True, pl.col("click")),
        ("country", "DE", pl.col("country") == "DE"),
        ("upper(country)", "DE", pl.col("country") == "DE"),
    ],
)
def test_one_value_is_positive(label: str, positive: Any, holds: pl.Expr, log: Path) -> None:
    expected = fl.evaluate(FRAME.with_columns(y=holds), label="y", prob="p", metrics=METRICS)
    found = fl.evaluate(log, label=label, positive=positive, prob="p", metrics=METRICS)
    assert numbers(found) == numbers(expected)
    dropped = {cause["cause"]: cause["rows"] for cause in found.rows["dropped"]}
    assert dropped.get("null_label", 0) == FRAME["country" if "country" in label else "click"].null_count()


def test_dropped_rows_are_named_by_their_place_in_the_file(tmp_path: Path) -> None:
    values = pa.table({"y": [0.0] * 9, "p": [0.5] * 8 + [None], "k": ["a", "b", "b"] * 3})
    pq.write_table(values, tmp_path / "log.parquet", row_group_size=5)
    found = fl.evaluate(tmp_path / "log.parquet", label="y", prob="p", metrics="log_loss", where="k = 'b'", threads=1)
    assert found.rows["dropped"][0]["first"].endswith("row group 1, row 3")
    assert (found.rows["read"], found.rows["filtered"], found.rows["used"]) == (9, 3, 5)
    text = str(found)
    assert "9 rows read from 1 file, 3 left out by where, 5 used" in text


def test_lists_are_filtered(tmp_path: Path) -> None:
    r = np.random.default_rng(3)
    lengths = r.integers(1, 9, 400)
    table = pa.table(
        {
            "s": [r.normal(size=n).tolist() for n in lengths],
            "y": [(r.random(n) < 0.4).astype(float).tolist() for n in lengths],
            "k": r.integers(0, 5, 400),
        }
    )
    asked = {"label": "y", "logit": "s", "metrics": ["categorical_crossentropy", "log_loss"]}
    kept = table.filter(pa.array(table["k"].to_numpy() < 2))
    found = fl.evaluate(table, **asked, where="k < 2", batch_rows=50)
    assert numbers(found) == numbers(fl.evaluate(kept, **asked))
    by_length = fl.evaluate(table, **asked, by="array_length(s)")
    assert {v.slice["array_length(s)"] for v in by_length.values if v.slice} == set(lengths.tolist())


def test_scores_of_the_rows_that_are_left(log: Path, tmp_path: Path) -> None:
    fl.score(log, tmp_path / "out", label="rating >= 4", prob="p", loss="log_loss", keep="ts", where="country = 'DE'")
    fl.score(
        FRAME.filter(pl.col("country") == "DE").with_columns(y=pl.col("rating") >= 4),
        tmp_path / "expected.parquet",
        label="y",
        prob="p",
        loss="log_loss",
        keep="ts",
    )
    assert pq.read_table(tmp_path / "out").equals(pq.read_table(tmp_path / "expected.parquet"))
    hardest = fl.score(log, tmp_path / "top.parquet", label="click", prob="p", loss="log_loss", where="s > 1", top=5)
    assert hardest.rows["filtered"] == FRAME.filter(pl.col("s") <= 1).height
    for row in pq.read_table(tmp_path / "top.parquet").to_pylist():
        part = pq.ParquetFile(row["file"]).read_row_group(row["row_group"]).slice(row["row"], 1).to_pylist()[0]
        assert part["s"] > 1
        assert row["loss"] == pytest.approx(-np.log(part["p"] if part["click"] else 1 - part["p"]))


@pytest.mark.parametrize("how", [{"executor": "processes", "threads": 2}])
def test_processes_filter_too(how: dict[str, Any], log: Path) -> None:
    asked: dict[str, Any] = {
        "label": "click",
        "prob": "p",
        "metrics": METRICS,
        "where": CONDITIONS[1],
        "by": ["hour(ts)"],
    }
    assert numbers(fl.evaluate(log, **asked, **how)) == numbers(fl.evaluate(log, **asked))


# ---------------------------------------------------------------------------------------------------------------
# Refusals

NEEDS_MORE = [
    "sum(p) > 1",
    "p > avg(p)",
    "count(*) > p",
    "row_number() over (order by p) > 3",
    "lag(p) over (order by ts) > 0",
    "case when p > 1 then max(p) else 0 end > 0",
    "first(p) > 0",
    "unnest(array_agg(p)) > 0",
]


@pytest.mark.parametrize("text", NEEDS_MORE)
def test_what_needs_more_than_its_row_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="needs more than its row"):
        fl.evaluate(FRAME, label="click", prob="p", where=text)


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("p").shift(1) > 0,
        pl.col("p").cum_sum() > 0,
        pl.col("p").rank() > 10,
        pl.col("p") > pl.col("p").mean().over("country"),
        pl.col("p").fill_null(strategy="forward") > 0,
        pl.col("p").is_duplicated(),
        pl.col("p").sort() > 0,
        pl.col("p").reverse() > 0,
    ],
)
def test_polars_expressions_that_need_more_are_refused(expression: pl.Expr) -> None:
    with pytest.raises(UsageError, match="needs more than its row"):
        fl.evaluate(FRAME, label="click", prob="p", where=expression)


REFUSED: list[tuple[str, type[FastlossError], str]] = [
    ("nope > 1", SchemaError, "no column 'nope'"),
    ('country = "DE"', SchemaError, "single quotes: 'DE'"),
    ("p", UsageError, "gives double, and a condition"),
    ("1 = 1", UsageError, "reads no column"),
    ("p >", UsageError, "unable to parse"),
    ("p > 'a'", SchemaError, "does not fit the log"),
    ("unknown(p) > 1", UsageError, "unsupported function"),
    (" ", UsageError, "is empty"),
    ("p > 1; drop table x", UsageError, "';' stands outside"),
    ("p > 1 -- all", UsageError, "stands outside"),
    ("p > 1 /* all */", UsageError, "stands outside"),
    ("p > 1) or (1 = 1", UsageError, "do not match"),
    ("country = 'DE", UsageError, "not closed"),
    ("country = e'DE'", UsageError, "prefixed with 'e'"),
    ("p > 0 and not (2.5 < country)", SchemaError, "compares text with numbers"),
    ("country > 1.5", SchemaError, "compares text with numbers"),
    (" or ".join(f"rating = {i}" for i in range(1_000)), UsageError, "nested deeper than 200 levels"),
    (" and ".join(f"rating <> {i}" for i in range(5_000)), UsageError, "nested deeper than 200 levels"),
]


@pytest.mark.parametrize(("text", "error", "said"), REFUSED)
def test_refusals_say_what_was_found(text: str, error: type[FastlossError], said: str) -> None:
    with pytest.raises(error) as caught:
        fl.evaluate(FRAME, label="click", prob="p", where=text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "p > (select max(p) from read_csv('{path}'))",
        "(from read_csv('{path}'))",
        "p in (select * from read_parquet('{path}'))",
        "exists (select 1 from '{path}')",
        "read_csv('{path}') > p",
        "p > (SeLeCt 1)",
        "p > 1 union select 1",
        "p > (table self)",
        "date_trunc('hour', ts) from read_csv('{path}') where (1 = 1",
        "date_trunc('hour', ts)) from read_csv('{path}') where ((1 = 1",
        "(with x as (select 1) select 1)",
    ],
)
def test_nothing_but_the_log_is_read(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    secret = tmp_path / "secret.csv"
    secret.write_text("p\n1\n")
    monkeypatch.setattr(pl, "sql_expr", lambda *arguments: opened.append("sql_expr"))
    monkeypatch.setattr(pl.LazyFrame, "sql", lambda *arguments: opened.append("sql"))
    with pytest.raises(UsageError):
        fl.evaluate(FRAME, label="click", prob="p", where=text.format(path=secret))
    assert not opened


def test_a_row_that_cannot_be_evaluated_is_named(tmp_path: Path) -> None:
    frame = pl.DataFrame({"y": [0.0, 1.0], "p": [0.5, 0.5], "t": ["4", "four"]})
    frame.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"log\.parquet, row group 0: Expression .* fails: .*four"):
        fl.evaluate(tmp_path / "log.parquet", label="y", prob="p", where="cast(t as int) > 3")


def test_a_derived_column_has_a_name_of_its_own() -> None:
    with pytest.raises(UsageError, match="the log has one of that name"):
        fl.evaluate(FRAME, label="click", prob="p", with_columns={"country": "lower(country)"})
    with pytest.raises(UsageError, match="with_columns is"):
        fl.evaluate(FRAME, label="click", prob="p", with_columns=["lower(country)"])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="where is 3"):
        fl.evaluate(FRAME, label="click", prob="p", where=3)


@pytest.mark.parametrize(
    ("label", "positive", "said"),
    [
        ("rating", "high", "holds integers"),
        ("rating", 70_000, "holds integers of type int16"),
        ("click", "yes", "holds booleans"),
        ("ts", "1970", "positive names a value of text"),
        ("nope", "yes", "no column 'nope'"),
        ("click", [1], "positive is"),
    ],
)
def test_a_positive_value_must_be_one_of_the_column(label: str, positive: Any, said: str) -> None:
    with pytest.raises(FastlossError, match=said):
        fl.evaluate(FRAME, label=label, positive=positive, prob="p")


@pytest.mark.parametrize(
    ("kind", "values", "positive"),
    [
        (pa.int64(), [2**53, 2**53 + 1, 2**53 + 2], str(2**53 + 1)),
        (pa.uint64(), [2**63 + 2, 2**63 + 3, 2**64 - 1], str(2**63 + 2)),
        (pa.float32(), [0.1, 0.2, 0.30000001192], "0.1"),
        (pa.int8(), [1, 2, 3], True),
    ],
)
def test_one_value_alone_is_positive(kind: pa.DataType, values: list[Any], positive: Any) -> None:
    table = pa.table({"y": pa.array(values, kind), "x": [0.5, 0.5, 0.5]})
    assert fl.evaluate(table, label="y", positive=positive, prob="x", metrics="ctr")["ctr"] == pytest.approx(1 / 3)


def test_whether_a_writer_used_a_dictionary_is_no_difference(tmp_path: Path) -> None:
    plain = pa.table({"y": [1.0, 0.0], "x": [0.5, 0.25], "k": ["a", "b"]})
    coded = plain.set_column(2, "k", plain["k"].dictionary_encode())
    for number, table in enumerate(
        (plain, coded, plain.cast(pa.schema([*list(plain.schema)[:2], ("k", pa.large_string())])))
    ):
        fl.evaluate(table, label="y", prob="x", metrics="log_loss", by="k", state=tmp_path / f"{number}.arrow")
    merged = fl.merge([tmp_path / f"{number}.arrow" for number in range(3)])
    assert (
        merged.values
        == fl.evaluate(pa.concat_tables([plain] * 3), label="y", prob="x", metrics="log_loss", by="k").values
    )


def test_a_column_whose_name_begins_a_query_stands_in_quotes() -> None:
    frame = FRAME.rename({"s": "values"})
    with pytest.raises(UsageError, match='stands in double quotes: "values"'):
        fl.evaluate(frame, label="click", prob="p", where="values > 0")
    assert fl.evaluate(frame, label="click", prob="p", where='"values" > 0').rows["used"]


def test_a_value_that_no_label_has_is_told() -> None:
    found = fl.evaluate(FRAME, label="answer", positive="maybe", prob="p", metrics="ctr")
    assert "no row has answer = maybe: every label counts as 0" in str(found)
    assert "no row has" not in str(fl.evaluate(FRAME, label="answer", positive="yes", prob="p", metrics="ctr"))


@pytest.mark.parametrize("text", ["k = 2", "k in (1, 2)", "k = 2 and p > 0.5", "k <> 2 and day > '1970-01-02'"])
def test_texts_are_not_compared_with_numbers(text: str) -> None:
    frame = FRAME.with_columns(k=pl.col("rating").cast(pl.String))
    with pytest.raises(SchemaError, match="does not fit the log"):
        fl.evaluate(frame, label="click", prob="p", where=text)
    fl.evaluate(frame, label="click", prob="p", where=text.replace("k ", "cast(k as int) "))


def test_a_text_label_says_what_to_do() -> None:
    with pytest.raises(SchemaError, match="positive"):
        fl.evaluate(FRAME, label="answer", prob="p")


# ---------------------------------------------------------------------------------------------------------------
# Forms


def test_expressions_are_part_of_the_request_and_its_fingerprint(log: Path) -> None:
    def plan(**more: Any) -> Any:
        return fl.make_plan(log, label="click", prob="p", metrics="log_loss", **more)

    conditions: list[Any] = [None, "s > 1", "s > 2", pl.col("s") > 1]
    assert len({plan(where=condition).fingerprint for condition in conditions}) == len(conditions)
    assert plan(where=["s > 1"]).fingerprint == plan(where="s > 1").fingerprint
    request = plan(where=pl.col("s") > 1, with_columns={"k": "hour(ts)"}, positive=True).request
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request
    hash(request)
    assert plan(with_columns={"k": "hour(ts)"}).fingerprint != plan(with_columns={"k": "day"}).fingerprint


def test_a_bound_expression_can_be_pickled() -> None:
    for text in ("s > 1", "date_trunc('hour', ts) > '1970-01-02'"):
        bound = bind(text, FRAME.to_arrow().schema)
        bound.evaluate({name: pa.nulls(1, bound.schema.field(name).type) for name in bound.columns})
        assert pickle.loads(pickle.dumps(bound)) == bound


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b", ["a", "b"]),
        ("coalesce(a, b), c", ["coalesce(a, b)", "c"]),
        ('"a,b",c', ["a,b", "c"]),
        ("case when x = ',' then 1 else 2 end", ["case when x = ',' then 1 else 2 end"]),
        ("a[1, 2],b", ["a[1, 2]", "b"]),
        ("hour(ts)", ["hour(ts)"]),
    ],
)
def test_lists_are_split_at_their_own_commas(text: str, expected: list[str]) -> None:
    assert split_list(text) == expected


def test_the_command_line_takes_what_python_takes(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["eval", str(log), "--label", "answer", "--positive", "yes", "--prob", "a = p / 2", "--format", "json"]
    arguments += ["--where", "country = 'DE'", "--where", "s < 1", "--with", "hour = hour(ts)"]
    arguments += ["--by", "hour,coalesce(country, 'x')", "-m", "log_loss"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    expected = fl.evaluate(
        log,
        label="answer",
        positive="yes",
        prob={"a": "p / 2"},
        where=["country = 'DE'", "s < 1"],
        with_columns={"hour": "hour(ts)"},
        by=[("hour", "coalesce(country, 'x')")],
        metrics="log_loss",
    )
    assert found == json.loads(expected.to_json())
    assert found["plan"]["where"] == ["country = 'DE'", "s < 1"]


def test_the_command_line_says_how_columns_are_derived(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("hour", "= 3", "hour =", "a b = 3"):
        assert main(["eval", str(log), "--label", "click", "--prob", "p", "--with", text]) == 2
        assert "write NAME = EXPRESSION" in capsys.readouterr().err


WORDS = ["p", "s", "country", "'DE'", '"p"', "nope", "1", "0.5", "(", ")", "=", ">", "and", "or", "not", "is", "null"]
WORDS += [
    "in",
    ",",
    "sum",
    "hour",
    "ts",
    "case",
    "when",
    "then",
    "end",
    "select",
    "from",
    "self",
    "-",
    "--",
    "/*",
    ";",
    "::",
]
WORDS += [
    "cast",
    "as",
    "int",
    "like",
    "'%'",
    "between",
    "over",
    "[",
    "]",
    "*",
    "'",
    '"',
    "\\",
    "é",
    "\x00",
    "date_trunc",
]


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=20))
def test_any_text_is_a_condition_or_one_readable_line(text: str) -> None:
    small = FRAME.head(50)
    try:
        found = fl.evaluate(small, label="click", prob="p", metrics="log_loss", where=text)
    except FastlossError as error:
        said = str(error)
        assert "\n" not in said
        return
    held = small.lazy().sql(f"SELECT ({text}) AS found FROM self").collect().to_series().fill_null(False)
    assert found.rows["read"] - found.rows["filtered"] == held.sum()


# ---------------------------------------------------------------------------------------------------------------
# Pruning

PRUNED = [
    # condition, whether row groups of a log sorted by ts can be ruled out
    ("ts >= '1970-01-09'", True),
    ("ts < timestamp '1970-01-02 00:00:00' and s > 0", True),
    ("'1970-01-02' > ts", True),
    ("ts between '1970-01-03' and '1970-01-04'", True),
    ("day = '1970-01-03'", True),
    ("day = '1970-01-03' or day = '1970-01-08'", True),
    ("number > 15000", True),
    ("number < 100 or number = 19999", True),
    ("number > 100.5 and number <= 7000", True),
    ("text >= '15'", True),
    ("x < 100", True),
    ("x > 19000", False),
    ("x = 5", False),
    ("not (number > 15000)", False),
    ("number % 2 = 0", False),
    ("number is null", False),
    ("s > 0", False),
    ("number > 15000 or s > 2", False),
]


@pytest.fixture(scope="module")
def sorted_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sorted")
    numbers_up = pl.int_range(len(FRAME), eager=True)
    frame = FRAME.with_columns(
        number=pl.when(numbers_up % 977 == 0).then(None).otherwise(numbers_up),
        text=numbers_up.cast(pl.String).str.zfill(6),
        # Statistics leave NaN out, and Polars orders it above every number.
        x=pl.when(numbers_up % 1_500 == 3).then(float("nan")).otherwise(numbers_up.cast(pl.Float64)),
    )
    for part in range(4):
        frame.slice(part * 5_000, 5_000).write_parquet(folder / f"{part}.parquet", row_group_size=500)
    return folder


@pytest.mark.parametrize(("condition", "prunes"), PRUNED)
def test_pruning_changes_no_digit(condition: str, prunes: bool, sorted_log: Path) -> None:
    asked = {"label": "click", "prob": "p", "metrics": METRICS, "by": "device"}
    found = fl.evaluate(sorted_log, **asked, where=condition)
    whole = pl.read_parquet(sorted_log / "*.parquet")
    held = whole.lazy().sql(f"SELECT ({condition}) AS found FROM self").collect().to_series()
    assert numbers(found) == numbers(fl.evaluate(whole.filter(held), **asked))
    pruned = found.files.get("pruned", {"files": 0, "row_groups": 0})
    assert (pruned["row_groups"] > 0) == prunes
    assert found.rows["read"] == len(whole) - 500 * pruned["row_groups"]
    plan = fl.make_plan(sorted_log, **asked, where=condition)
    assert plan.summary.pruned_row_groups == pruned["row_groups"]
    assert plan.summary.rows == found.rows["read"]


@pytest.mark.parametrize(
    ("kind", "times", "condition"),
    [
        (pa.timestamp("ns"), [1, 1_000, 2_001, 2**62], "t > timestamp '1970-01-01 00:00:00.000001'"),
        (pa.timestamp("ns", "UTC"), [1, 1_000, 2_001, 2**62], "t >= '1970-01-02'"),
        (pa.timestamp("us"), [0, 5, 2**62, None], "t >= '1970-01-02'"),
        (pa.date32(), [0, 5, 2**30, None], "t >= '1970-01-02'"),
    ],
)
def test_row_groups_are_ruled_out_by_times_that_python_cannot_hold(
    kind: pa.DataType, times: list[int | None], condition: str, tmp_path: Path
) -> None:
    stored = pa.array(times, pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)
    log = pa.table({"t": stored, "y": [0.0, 1.0, 2.0, 3.0]})
    pq.write_table(log, tmp_path / "log.parquet", row_group_size=1)
    found = fl.evaluate(tmp_path, label="y", value="y * y", metrics="mse", where=condition)
    in_memory = fl.evaluate(log, label="y", value="y * y", metrics="mse", where=condition)
    assert numbers(found) == numbers(in_memory)
    assert 0 < found.rows["used"] < log.num_rows
    assert found.files["pruned"]["row_groups"] > 0


NUMBERS = st.integers(-3, 12)


@given(
    st.lists(st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=6),
    st.recursive(
        st.tuples(st.sampled_from(["a", "x"]), st.sampled_from(["<", "<=", "=", ">", ">=", "<>"]), NUMBERS).map(
            lambda parts: f"{parts[0]} {parts[1]} {parts[2]}"
        )
        | st.tuples(NUMBERS, NUMBERS).map(lambda ends: f"a between {ends[0]} and {ends[1]}")
        | st.sampled_from(["a is null", "x is not null", "a in (1, 5)", "a + x > 9"]),
        lambda inner: (
            st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
                lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
            )
            | inner.map(lambda text: f"not ({text})")
        ),
        max_leaves=4,
    ),
)
def test_any_condition_prunes_only_what_it_rules_out(groups: list[list[int | None]], condition: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log.parquet")
        tables = [
            pa.table(
                {
                    "a": pa.array(group, pa.int32()),
                    "x": pa.array([math.nan if value == 9 else value for value in group], pa.float64()),
                    "y": pa.array([0.0] * len(group)),
                }
            )
            for group in groups
        ]
        with pq.ParquetWriter(path, tables[0].schema) as writer:
            for table in tables:
                writer.write_table(table)
        found = fl.evaluate(path, label="y", value="y", metrics="mse", where=condition, threads=1)
        whole = pl.DataFrame(pa.concat_tables(tables))
    held = whole.lazy().sql(f"SELECT ({condition}) AS found FROM self").collect().to_series().fill_null(False)
    assert found.rows["used"] == held.sum()


def test_partitions_are_ruled_out_before_they_are_opened(tmp_path: Path) -> None:
    for day in range(1, 6):
        for country in ("DE", "__HIVE_DEFAULT_PARTITION__"):
            folder = tmp_path / f"day=2026-03-0{day}" / f"country={country}"
            folder.mkdir(parents=True)
            if day < 4:
                # Whoever opens this notices.
                (folder / "0.parquet").write_bytes(b"not Parquet")
            else:
                pq.write_table(pa.table({"y": [0.0, 1.0], "p": [0.2, 0.7]}), folder / "0.parquet")
    (tmp_path / "day=2026-03-00" / "country=FR").mkdir(parents=True)
    pq.write_table(pa.table({"y": [0.0], "p": [0.5]}), tmp_path / "day=2026-03-00" / "country=FR" / "0.parquet")
    found = fl.evaluate(
        tmp_path, label="y", prob="p", metrics="log_loss", where="day >= '2026-03-04' and country = 'DE'"
    )
    assert found.files["pruned"] == {"files": 9, "row_groups": 0}
    assert (found.files["read"], found.rows["used"]) == (2, 4)
    assert "not read, since where rules them out: 9 files" in str(found)
    none = fl.evaluate(tmp_path, label="y", prob="p", metrics="log_loss", where="country = 'FR' and day > '2026'")
    assert none.rows["used"] == 1


def test_states_of_one_filter_merge_to_the_bits_of_one_evaluation(log: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"label": "answer", "positive": "yes", "prob": "p", "metrics": METRICS, "by": ["hour(ts)"]}
    asked["with_columns"] = {"low": "s < 0"}
    parts = sorted(log.glob("*.parquet"))
    for number, part in enumerate(parts):
        fl.evaluate(part, **asked, where="low and country = 'DE'", state=tmp_path / f"{number}.arrow")
    merged = fl.merge([tmp_path / f"{number}.arrow" for number in range(len(parts))])
    whole = fl.evaluate(log, **asked, where="low and country = 'DE'")
    assert merged.values == whole.values
    assert {name: merged.rows[name] for name in ("read", "filtered")} == {
        name: whole.rows[name] for name in ("read", "filtered")
    }
    fl.evaluate(parts[0], **asked, where="low and country = 'FR'", state=tmp_path / "other.arrow")
    with pytest.raises(UsageError, match="where"):
        fl.merge([tmp_path / "1.arrow", tmp_path / "other.arrow"])
