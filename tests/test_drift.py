"""Logs whose files differ: in the types of a column, and in the columns that they have."""

from __future__ import annotations

import datetime
import decimal
import itertools
import json
import os

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given

import fastloss as fl
from fastloss.cli import main
from fastloss.errors import DataError, ReadError, SchemaError, UsageError
from fastloss.plan import make_plan
from fastloss.sources import ReadOptions, open_source
from fastloss.sources.schemas import are_one_family, unified

READERS = ["pyarrow", "polars"]
NULL = ReadOptions(missing_as_null=True)
N_ROWS = 120


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(path, columns):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, row_group_size=50)

    return write


def rows(seed=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, N_ROWS)
    models = [{"p": float(p), "q": None if p < 0.2 else float(p) / 2} for p in rng.random(N_ROWS)]
    slates = [[{"s": float(s), "l": float(s > 0)} for s in rng.normal(size=3)] for _ in range(N_ROWS)]
    return {
        "click": pa.array(labels, pa.int8()),
        "a": pa.array(rng.random(N_ROWS), mask=rng.random(N_ROWS) < 0.1),
        "b": pa.array(rng.random(N_ROWS), pa.float32()),
        "w": pa.array(rng.random(N_ROWS)),
        "country": pa.array(rng.choice(["DE", "FR"], N_ROWS)),
        "event": pa.array(models),
        "slate": pa.array(slates),
        "note": pa.array([f"n{i}" for i in range(N_ROWS)]),
    }


def values_and_rows(result):
    found = json.loads(result.to_json())
    return found["values"], found["rows"]


# Columns that some files lack


@pytest.mark.parametrize("lacking", ["first", "last", "middle"])
@pytest.mark.parametrize(
    ("missing", "request_of"),
    [
        (["b"], {"label": "click", "prob": ["a", "b"], "by": ["country"]}),
        (["country"], {"label": "click", "prob": ["a"], "by": ["country", ("country", "click")]}),
        (["w", "a"], {"label": "click", "prob": ["a"], "weight": "w"}),
        (["event"], {"label": "click", "prob": ["event.p", "event.q"]}),
        (["slate"], {"label": "slate.list.l", "logit": ["slate.list.s"], "by": ["country"]}),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, list) else "",
)
def test_a_missing_column_is_a_column_of_nulls(write, lacking, missing, request_of):
    tables = [pa.table(rows(seed)) for seed in range(3)]
    number = {"first": 0, "middle": 1, "last": 2}[lacking]
    schema = tables[0].schema
    for i, table in enumerate(tables):
        nulls = {name: pa.nulls(N_ROWS, schema.field(name).type) for name in missing}
        with_nulls = pa.table(
            {name: nulls.get(name, table[name]) if i == number else table[name] for name in schema.names}
        )
        write(f"nulls/log/{i}.parquet", with_nulls)
        write(f"lacks/log/{i}.parquet", table.drop_columns(missing) if i == number else table)
    space = next(name for name in ("prob", "logit") if name in request_of)
    asked = {**request_of, space: {column: column for column in request_of[space]}}
    os.chdir("nulls")
    expected = values_and_rows(fl.evaluate("log", **asked))
    os.chdir("../lacks")
    for options in ({}, {"reader": "polars"}, {"executor": "processes", "threads": 2}, {"batch_rows": 7}):
        found = fl.evaluate("log", **asked, missing_columns="null", **options)
        assert values_and_rows(found) == expected, options
    assert expected[1]["dropped"] or "country" in missing
    with pytest.raises(SchemaError) as refusal:
        fl.evaluate("log", **asked)
    names = {
        0: ("log/1.parquet", "log/0.parquet"),
        1: ("log/0.parquet", "log/1.parquet"),
        2: ("log/0.parquet", "log/2.parquet"),
    }
    having, without = names[number]
    assert f"is in {having!r} and not in {without!r}" in str(refusal.value)
    assert "missing_columns='null' reads it as null there" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("task_bytes", [1, 128 << 20])
def test_rows_of_a_missing_column_are_null_in_the_types_of_the_log(write, reader, task_bytes):
    columns = rows()
    nested = {"event": pa.array([{"p": 1.0}] * N_ROWS), "click": columns["click"]}
    write("1.parquet", {"click": columns["click"]})
    write("2.parquet", columns)
    write("3.parquet", nested)
    options = ReadOptions(reader=reader, task_bytes=task_bytes, batch_rows=33, missing_as_null=True)
    names = ["click", "a", "event.p", "event.q", "slate.list.s", "note"]
    source = open_source(["1.parquet", "2.parquet", "3.parquet"], options)
    source.survey(names, options)
    batches = [batch.record_batch for task in source.tasks(names, options) for batch in task.read()]
    found = {name: [value for batch in batches for value in batch.column(name).to_pylist()] for name in names}
    nothing = [None] * N_ROWS
    events = columns["event"].to_pylist()
    assert found == {
        "click": columns["click"].to_pylist() * 3,
        "a": nothing + columns["a"].to_pylist() + nothing,
        "event.p": nothing + [e["p"] for e in events] + [1.0] * N_ROWS,
        "event.q": nothing + [e["q"] for e in events] + nothing,
        "slate.list.s": nothing + [[c["s"] for c in s] for s in columns["slate"].to_pylist()] + nothing,
        "note": nothing + columns["note"].to_pylist() + nothing,
    }
    assert batches[0].schema.field("slate.list.s").type == source.schema.field("slate.list.s").type
    assert source.schema.field("a").type == pa.float64()
    summary = source.summary(names, options)
    assert summary.rows == 3 * N_ROWS
    assert [types.name for types in summary.differences] == names[1:]
    # Nothing of a missing column is read, and nothing is counted as read.
    footers = [pq.read_metadata(f"{i}.parquet") for i in (1, 2, 3)]
    stored = [
        sum(
            footer.row_group(group).column(leaf).total_compressed_size
            for group in range(footer.num_row_groups)
            for leaf in range(footer.num_columns)
            if footer.schema.column(leaf).path.replace(".element", "") in names
        )
        for footer in footers
    ]
    assert summary.stored_bytes == sum(stored)


def test_a_column_that_no_file_has_stays_an_error(write):
    write("log/1.parquet", {"click": [1], "p": [0.5]})
    write("log/2.parquet", {"click": [1], "p": [0.5], "newest": [0.5]})
    for options in ({}, {"missing_columns": "null"}):
        with pytest.raises(SchemaError, match=r"no column 'pp'\. Did you mean 'p'"):
            fl.evaluate("log", label="click", prob="pp", **options)
    with pytest.raises(SchemaError, match=r"column 'newst' is in none of 2 files\. Did you mean 'newest'"):
        open_source("log", NULL).tasks(["click", "newst"], NULL)
    with pytest.raises(UsageError, match=r"missing_columns is 'drop'; allowed: 'error' or 'null'"):
        fl.evaluate("log", label="click", prob="p", missing_columns="drop")


def test_a_file_that_has_none_of_the_columns_is_refused(write):
    write("log/1.parquet", {"click": [1], "p": [0.5]})
    write("log/2.parquet", {"x": [1]})
    with pytest.raises(SchemaError, match=r"'log/2.parquet' has none of the columns 'click', 'p'"):
        fl.evaluate("log", label="click", prob="p", missing_columns="null")


@pytest.mark.parametrize("reader", READERS)
def test_a_partition_key_that_a_path_lacks_is_null(write, reader):
    columns = {"click": [1, 0], "p": [0.5, 0.25]}
    write("log/day=1/1.parquet", columns)
    write("log/2.parquet", columns)
    options = ReadOptions(reader=reader, missing_as_null=True)
    source = open_source("log", options, ["p", "day"])
    tables = [pa.table(b.record_batch) for task in source.tasks(["p", "day"], options) for b in task.read()]
    found = [table["day"].to_pylist() for table in tables]
    assert found == [[None, None], [1, 1]]
    result = fl.evaluate("log", label="click", prob="p", by="day", missing_columns="null", reader=reader)
    assert result["log_loss", {"day": None}] == result["log_loss", {"day": 1}]
    with pytest.raises(SchemaError, match=r"'log/2.parquet' has no folder day=.*missing_columns='null'"):
        fl.evaluate("log", label="click", prob="p", by="day")


def test_scores_of_rows_without_their_column_are_null(write):
    columns = rows()
    write("log/1.parquet", {"click": columns["click"], "note": columns["note"]})
    write("log/2.parquet", columns)
    fl.score("log", "out", label="click", prob="a", loss="log_loss", keep=["note", "country"], missing_columns="null")
    first, second = (pq.read_table(f"out/{i}.parquet") for i in (1, 2))
    assert first["loss"].null_count == first["country"].null_count == N_ROWS
    assert first["note"].to_pylist() == second["note"].to_pylist()
    assert first.schema == second.schema
    assert second["country"].to_pylist() == columns["country"].to_pylist()
    fl.score("log", "top.parquet", label="click", prob="a", loss="log_loss", keep="w", top=5, missing_columns="null")
    assert set(pq.read_table("top.parquet")["file"].to_pylist()) == {"log/2.parquet"}


def test_states_merge_whether_or_not_columns_were_missing(write):
    columns = rows()
    write("1.parquet", {name: column for name, column in columns.items() if name != "b"})
    write("2.parquet", columns)
    write("3.parquet", rows(4))
    asked = {"label": "click", "prob": {"a": "a", "b": "b"}}
    whole = fl.evaluate([f"{i}.parquet" for i in (1, 2, 3)], **asked, missing_columns="null")
    fl.evaluate(["1.parquet", "2.parquet"], **asked, missing_columns="null", state="one.state")
    fl.evaluate("3.parquet", **asked, state="two.state")
    assert values_and_rows(fl.merge(["one.state", "two.state"])) == values_and_rows(whole)


FORMATS = {
    "arrow": lambda table, path: feather.write_feather(table, path, compression="uncompressed"),
    "jsonl": lambda table, path: pl.from_arrow(table).write_ndjson(path),
    "csv": lambda table, path: pl.from_arrow(table).write_csv(path),
}


@pytest.mark.parametrize("ending", FORMATS)
def test_logs_of_other_formats_have_one_schema_too(write, ending):
    columns = rows()
    whole = pa.table({name: columns[name] for name in ("click", "a", "country")} | {"new": columns["w"]})
    tables = [whole.drop_columns(["new"]), whole, whole.drop_columns(["country"])]
    for name in ("log", "nulls"):
        os.makedirs(name)
    for i, table in enumerate(tables):
        FORMATS[ending](table, f"log/{i}.{ending}")
        missing = [name for name in whole.column_names if name not in table.column_names]
        nulls = {name: pa.nulls(N_ROWS, whole.schema.field(name).type) for name in missing}
        write(f"nulls/{i}.parquet", pa.table({name: nulls.get(name, whole[name]) for name in whole.column_names}))
    asked = {"label": "click", "prob": {"a": "a", "new": "new"}, "by": "country"}
    expected = fl.evaluate("nulls", **asked)
    for options in ({}, {"executor": "processes", "threads": 2}):
        found = fl.evaluate("log", **asked, missing_columns="null", **options)
        assert values_and_rows(found)[0] == values_and_rows(expected)[0]
        assert found.rows["used"] == expected.rows["used"]
    with pytest.raises(SchemaError, match=r"column 'new' is in 'log/1.*' and not in 'log/0.*missing_columns='null'"):
        fl.evaluate("log", **asked)
    with pytest.raises(SchemaError, match=r"The log has no column 'newst'\. Did you mean 'new'"):
        fl.evaluate(["log/1.*", "log/2.*"], label="click", prob="newst", missing_columns="null")
    plans = [
        make_plan(order, **asked, missing_columns="null") for order in (["log/0.*", "log/1.*"], ["log/1.*", "log/0.*"])
    ]
    assert plans[0].fingerprint == plans[1].fingerprint
    assert [types.name for types in plans[0].summary.differences] == ["new"]


def test_an_item_that_lacks_a_column_of_the_first_is_null_there(write):
    columns = rows()
    whole = pa.table({name: columns[name] for name in ("click", "a", "b", "country", "event")})
    lacking = whole.drop_columns(["b", "country"])
    nulls = {"b": pa.nulls(N_ROWS, pa.float32()), "country": pa.nulls(N_ROWS, pa.string())}
    filled = pa.table({name: nulls.get(name, whole[name]) for name in whole.column_names})
    asked = {"label": "click", "prob": {"a": "a", "b": "b", "p": "event.p"}, "by": "country"}
    expected = values_and_rows(fl.evaluate([whole, filled, whole], **asked))
    items = [whole, lacking, whole]
    for log in (items, iter(items), (pl.from_arrow(item) for item in items)):
        assert values_and_rows(fl.evaluate(log, **asked, missing_columns="null")) == expected
    with pytest.raises(SchemaError, match=r"item 2 of the list: column '(b|country)' is not in the log"):
        fl.evaluate(items, **asked)
    with pytest.raises(SchemaError, match=r"item 2 of the list: column 'click' is not in the log"):
        fl.evaluate([whole, pa.table({"x": [1]})], **asked, missing_columns="null")


# Types


FAMILIES = {
    "numbers": [
        pa.float16(),
        pa.float32(),
        pa.float64(),
        pa.int8(),
        pa.int32(),
        pa.int64(),
        pa.uint8(),
        pa.uint64(),
        pa.bool_(),
        pa.decimal128(9, 2),
        pa.decimal128(20, 0),
        pa.decimal256(60, 30),
        pa.dictionary(pa.int8(), pa.float32()),
    ],
    "texts": [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    "moments": [pa.timestamp("us", "UTC"), pa.timestamp("ns", "Europe/Berlin"), pa.timestamp("s", "UTC")],
    "times": [pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")],
    "dates": [pa.date32(), pa.date64()],
}
FAMILIES["lists"] = [
    of(kind) for of in (pa.list_, pa.large_list, lambda kind: pa.list_(kind, 2)) for kind in FAMILIES["numbers"]
]


@given(st.sampled_from(sorted(FAMILIES)), st.data())
def test_the_type_of_many_files_does_not_depend_on_their_order(family, data):
    kinds = data.draw(st.lists(st.sampled_from([*FAMILIES[family], pa.null()]), min_size=1, max_size=5))
    expected = unified(kinds)
    assert unified(data.draw(st.permutations(kinds))) == expected
    assert unified(kinds * 2) == expected
    assert all(are_one_family(kind, expected) for kind in kinds)
    # It is one of the family, and joining it in changes nothing.
    assert unified([*kinds, expected]) == expected
    for other in FAMILIES:
        if other != family and expected != pa.null():
            assert not any(are_one_family(kind, expected) for kind in FAMILIES[other])


@pytest.mark.parametrize("preset", ["sklearn", "keras"])
def test_the_precision_of_a_column_does_not_depend_on_the_order_of_files(write, preset):
    labels, scores = [1.0, 0.0, 1.0], [0.0, 1.0, 0.3]
    for kind in (pa.float32(), pa.float64()):
        write(f"{kind}.parquet", {"y": pa.array(labels), "p": pa.array(scores, kind)})
    write("int8.parquet", {"y": pa.array(labels), "p": pa.array([0, 1, 1], pa.int8())})
    asked = {"label": "y", "prob": "p", "preset": preset, "metrics": ["log_loss"]}
    for names in (["float", "double"], ["float", "int8"], ["float", "double", "int8"]):
        files = [f"{name}.parquet" for name in names]
        plans = [make_plan(list(order), **asked) for order in itertools.permutations(files)]
        assert {plan.evaluation.types["p"].name for plan in plans} == {"double"}
        assert len({plan.fingerprint for plan in plans}) == 1
        found = {fl.evaluate(list(order), **asked)["log_loss"] for order in itertools.permutations(files)}
        # As of one frame of all the files.
        frame = pl.concat([pl.read_parquet(file) for file in files], how="vertical_relaxed").with_columns(
            pl.col("p").cast(pl.Float64)
        )
        assert found == {fl.evaluate(frame, **asked)["log_loss"]}
    singles = fl.evaluate(["float.parquet"], **asked)["log_loss"]
    assert singles != fl.evaluate(["double.parquet"], **asked)["log_loss"]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["numbers", "lists"])
def test_files_of_every_type_of_number_are_one_log(write, reader, kind):
    for i, data_type in enumerate(FAMILIES[kind]):
        inner = data_type if kind == "numbers" else data_type.value_type
        if pa.types.is_dictionary(inner) or (reader == "polars" and pa.types.is_decimal256(inner)):
            continue
        values = [True if data_type == pa.bool_() else 1, None]
        if kind == "lists":
            values = [[True if inner == pa.bool_() else 1, None]]
        write(f"{i:02}.parquet", {"x": pa.array(values, data_type)})
    options = ReadOptions(reader=reader)
    for batch in (b for task in open_source("*.parquet", options).tasks(["x"], options) for b in task.read()):
        if kind == "lists":
            lists = batch.lists("x")
            assert (lists.values.tolist(), lists.elements_valid.tolist()) == ([1.0, 0.0], [True, False])
        else:
            numbers = batch.numbers("x")
            assert (numbers.values.tolist(), numbers.valid.tolist()) == ([1.0, 0.0], [True, False])


def test_a_type_that_polars_has_not_is_an_error_that_names_the_other_reader(write):
    write("1.parquet", {"x": pa.array([[1, None]], pa.list_(pa.decimal256(60, 30)))})
    options = ReadOptions(reader="polars")
    (task,) = open_source("1.parquet", options).tasks(["x"], options)
    with pytest.raises(ReadError, match=r"'1.parquet', row group 0: Polars panicked .*use reader='pyarrow'"):
        list(task.read())


MOMENT = datetime.datetime(2026, 3, 1, 12, 30, 5)
KEYS = {
    "units": [pa.array([MOMENT, None], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")],
    "zones": [
        pa.array([MOMENT.replace(tzinfo=datetime.UTC), None], pa.timestamp(unit, zone))
        for unit, zone in (("us", "UTC"), ("ms", "Europe/Berlin"), ("ns", "America/New_York"))
    ],
    "dates": [pa.array([MOMENT.date(), None], kind) for kind in (pa.date32(), pa.date64())],
    "integers": [pa.array([7, None], kind) for kind in (pa.int8(), pa.int64(), pa.uint64(), pa.uint16())],
    "decimals": [
        pa.array([decimal.Decimal("1.5"), None], kind) for kind in (pa.decimal128(9, 2), pa.decimal128(20, 4))
    ],
    "texts": [pa.array(["DE", None], kind) for kind in (pa.string(), pa.large_string(), pa.string_view())]
    + [pa.array(["DE", None]).dictionary_encode()],
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KEYS)
def test_a_key_is_one_slice_however_the_files_store_it(write, reader, kind):
    for i, keys in enumerate([*KEYS[kind], pa.nulls(2)]):
        write(f"{i}.parquet", {"click": [1, 0], "p": [0.5, 0.25], "key": keys})
    files = [f"{i}.parquet" for i in range(len(KEYS[kind]) + 1)]
    results = [
        fl.evaluate(order, label="click", prob="p", by="key", metrics=["log_loss"], reader=reader)
        for order in (files, files[::-1])
    ]
    slices = [[(v.slice, v.n, v.value) for v in result.values] for result in results]
    assert slices[0] == slices[1]
    found = {tuple(keys.values()): n for keys, n, _ in slices[0]}
    n_files = len(files)
    assert sorted(found.values()) == [n_files - 1, n_files + 1, 2 * n_files]
    assert found[None,] == n_files + 1


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (KEYS["units"][0], KEYS["zones"][0], r"type timestamp\[ms\] in 'A' and timestamp\[us, tz=UTC\] in 'B'"),
        (KEYS["units"][0], KEYS["dates"][0], r"type timestamp\[ms\] in 'A' and date32\[day\] in 'B'"),
        (KEYS["integers"][0], pa.array([True, None]), r"the key 'key' has type int8 in 'A' and bool in 'B'"),
        (
            KEYS["integers"][0],
            KEYS["decimals"][0],
            r"the key 'key' has type int8 in 'A' and decimal128\(9, 2\) in 'B'",
        ),
        (
            KEYS["integers"][1],
            pa.array([7.0, None]),
            r"must not be floating point.*int64 in 1 file, double in 1 .*'B'",
        ),
        (KEYS["texts"][0], KEYS["integers"][0], r"type string in 'A' and int8 in 'B'"),
    ],
)
def test_keys_that_are_written_differently_are_refused(write, one, other, message):
    write("a.parquet", {"click": [1, 0], "p": [0.5, 0.25], "key": one})
    write("b.parquet", {"click": [1, 0], "p": [0.5, 0.25], "key": other})
    for option in ({}, {"missing_columns": "null"}):
        with pytest.raises(
            SchemaError, match=message.replace("'A'", "'a.parquet'").replace("'B'", "'b.parquet'")
        ) as e:
            fl.evaluate(["a.parquet", "b.parquet"], label="click", prob="p", by="key", **option)
        assert "\n" not in str(e.value)


def test_a_plan_shows_where_files_differ(write, capsys):
    for i, kind in enumerate([pa.float64(), pa.float32(), pa.float64(), pa.float32(), pa.float64()]):
        columns = {"click": pa.array([1, 0], pa.int8()), "p": pa.array([0.5, 0.25], kind), "x": [1, 2]}
        write(f"log/{i}.parquet", columns | ({"new": [0.5, 0.5]} if i == 3 else {}))
    command = ["plan", "log", "--label", "click", "--prob", "p", "--prob", "new", "--missing-columns", "null"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "differs      p: double in 3 files, float in 2 (the first: 'log/1.parquet')\n" in shown
    assert "differs      new: missing in 4 files, double in 1 (the first: 'log/3.parquet')\n" in shown
    assert "missing_columns null" in shown
    assert main([*command, "--format", "json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert [found["column"] for found in described["differences"]] == ["p", "new"]
    assert described["differences"][0]["types"][1] == {"type": "float", "files": 2, "first": "log/1.parquet"}
    assert main([*command[:-2], "--missing-columns", "error"]) == 2
    assert "--missing-columns null" in capsys.readouterr().err
    assert main(["plan", "log", "--label", "click", "--prob", "p"]) == 0
    assert "differs      p: double in 3 files" in capsys.readouterr().out


def test_the_schema_has_what_all_files_have_of_the_columns_that_will_be_read(write):
    write("1.parquet", {"x": pa.array([1], pa.int8()), "y": [1.0], "s": [{"f": 1}]})
    write("2.parquet", {"y": pa.array([1.0], pa.float32()), "z": ["a"], "x": pa.array([1.0])})
    files = ["1.parquet", "2.parquet"]
    first = open_source(files, ReadOptions()).schema
    assert first == pa.schema(
        {"x": pa.int8(), "y": pa.float64(), "s": pa.struct({"f": pa.int64()}), "s.f": pa.int64()}
    )
    # Nothing is refused before it is read: these may be names in an expression.
    for options in (ReadOptions(), NULL):
        source = open_source(files, options)
        source.survey(["x", "z", "nowhere", "s.f"], options)
        assert source.schema.names == ["x", "y", "s", "s.f", "z"]
        assert source.schema.field("x").type == pa.float64()
        assert source.schema.field("y").type == pa.float64()
        assert source.schema.field("z").type == pa.string()
        assert source.summary(["x", "y"], options).rows == 2
    with pytest.raises(SchemaError, match=r"'z' is in '2.parquet' and not in '1.parquet'"):
        open_source(files, ReadOptions()).summary(["x", "z"], ReadOptions())


def test_expressions_see_the_columns_as_all_files_have_them(write):
    columns = rows()
    whole = columns | {"a": pa.array(np.arange(N_ROWS) % 3, pa.int8())}
    write("1.parquet", {name: column for name, column in columns.items() if name not in ("b", "w")})
    write("2.parquet", whole)
    write("3.parquet", columns)
    files = ["1.parquet", "2.parquet", "3.parquet"]
    asked = {
        "label": "click",
        "prob": {"p": "b / 2", "q": "a / 3 + 0.25"},
        "where": "a < 0.75 or w > 0.5",
        "by": "country",
        "metrics": ["log_loss"],
    }
    expected = fl.evaluate(pl.concat([pl.read_parquet(file) for file in files], how="diagonal_relaxed"), **asked)
    for order in itertools.permutations(files):
        for reader in READERS:
            found = fl.evaluate(list(order), **asked, missing_columns="null", reader=reader)
            assert values_and_rows(found)[0] == values_and_rows(expected)[0]
    with pytest.raises(SchemaError, match="missing_columns='null' reads it as null"):
        fl.evaluate(files, **asked)


def test_a_time_that_the_unit_of_all_files_cannot_hold_is_one_line(write):
    for unit in ("us", "ns"):
        moment = datetime.datetime(9999 if unit == "us" else 2026, 12, 31)
        ts = pa.array([moment, moment], pa.timestamp(unit))
        write(f"{unit}.parquet", {"click": [1, 0], "p": [0.5, 0.25], "ts": ts})
    asked = {"label": "click", "prob": "p"}
    # As a key it is text, of any unit.
    assert fl.evaluate(["us.parquet", "ns.parquet"], **asked, by="ts")["log_loss", {"ts": "9999-12-31T00:00:00"}]
    with pytest.raises(DataError, match=r"^us.parquet, row group 0: Expression .* fails: ") as refusal:
        fl.evaluate(["us.parquet", "ns.parquet"], **asked, where="ts + interval '1 day' is not null")
    assert "\n" not in str(refusal.value)


def test_files_that_a_filter_rules_out_need_not_have_the_columns(write):
    columns = rows()
    write("log/day=1/1.parquet", {"click": columns["click"]})
    for day in (2, 3):
        write(f"log/day={day}/1.parquet", rows(day))
    asked = {"label": "click", "prob": "b"}
    found = fl.evaluate("log", **asked, where="day >= 2")
    assert values_and_rows(found)[0] == values_and_rows(fl.evaluate(["log/day=2", "log/day=3"], **asked))[0]
    with pytest.raises(SchemaError, match=r"not in 'log/day=1/1.parquet'"):
        fl.evaluate("log", **asked, where="country = 'DE'")


def test_each_footer_is_read_once_for_a_plan(write, monkeypatch):
    for i in range(20):
        write(
            f"log/{i:02}.parquet", {"click": [1, 0], "p": pa.array([0.5, 0.25], [pa.float64(), pa.float32()][i % 2])}
        )
    opened = []
    parquet_file = pq.ParquetFile

    def counted(source, *args, **kwargs):
        opened.append(source)
        return parquet_file(source, *args, **kwargs)

    monkeypatch.setattr(pq, "ParquetFile", counted)
    make_plan("log", label="click", prob="p")
    # The first for its schema, each for the plan, and two for each type to check all chunks at once.
    assert len(opened) == 1 + 20 + 2 * 2
