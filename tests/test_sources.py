"""Sources: the same rows in the same order, however the log is stored, cut, decoded or handed over."""

from __future__ import annotations

import datetime
import decimal
import functools
import itertools
import json
import multiprocessing
import os
import pickle
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from pyarrow import fs

import fastloss as fl
from fastloss.errors import ReadError, SchemaError, UsageError
from fastloss.sources import ReadOptions, listing, open_source
from fastloss.sources.parquet import decoders, pyarrow_decoder
from fastloss.sources.stores.retries import Retries
from fastloss.sources.stores.store import Store

READERS = ["pyarrow", "polars"]


def log_table(n_rows=1000):
    rng = np.random.default_rng(7)
    missing = rng.random(n_rows) < 0.2
    return pa.table(
        {
            "click": pa.array(rng.integers(0, 2, n_rows), pa.int8()),
            "score": pa.array(rng.normal(size=n_rows), pa.float32(), mask=missing),
            "half": pa.array(rng.normal(size=n_rows).astype(np.float16)),
            "seen": pa.array(rng.random(n_rows) < 0.5, mask=missing),
            "price": pa.array([decimal.Decimal(int(i)).scaleb(-2) for i in rng.integers(0, 10**6, n_rows)]),
            "country": pa.array(rng.choice(["DE", "FR", "US"], n_rows), mask=missing),
            "user": pa.array([f"user-{i}" for i in rng.integers(0, 10**9, n_rows)]),
            "nothing": pa.nulls(n_rows, pa.float64()),
            "empty": pa.nulls(n_rows),
            "a.b": pa.array(rng.integers(0, 100, n_rows), pa.uint16()),
            "a": pa.array([{"b": int(i), "c": "x"} for i in rng.integers(0, 100, n_rows)]),
            "^c.*$": pa.array(np.arange(n_rows), pa.int64()),
            "day": pa.array([datetime.date(2024, 1, 1)] * n_rows),
        }
    )


COLUMNS = [name for name in log_table(1).column_names if name != "a"]


def read(log, columns, options):
    """All rows of a log as columns of Python values, after checking what every task promises."""
    source = open_source(log, options)
    found = {name: [] for name in columns}
    for index, task in enumerate(source.tasks(columns, options)):
        assert task.index == index
        n_rows = 0
        for batch in task.read():
            assert batch.record_batch.schema.names == list(columns)
            assert 0 < batch.n_rows <= options.batch_rows
            n_rows += batch.n_rows
            for name in columns:
                found[name] += batch.record_batch.column(name).to_pylist()
        assert task.n_rows in (None, n_rows)
    return found


def table_of(task):
    return pa.Table.from_batches(batch.record_batch for batch in task.read())


def keys_of(batch, name):
    keys = batch.keys(name)
    return [keys.key_of(code) for code in keys.codes]


@pytest.fixture(scope="module")
def table():
    return log_table()


@pytest.mark.parametrize("reader", READERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, 1000), max_size=3),
    group_rows=st.integers(60, 1000),
    columns=st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True),
    batch_rows=st.sampled_from([1, 7, 100, 65_536]),
    task_bytes=st.sampled_from([1, 20_000, 128 << 20]),
    compression=st.sampled_from(["none", "zstd"]),
    page_version=st.sampled_from(["1.0", "2.0"]),
)
def test_rows_do_not_depend_on_how_the_log_is_stored_or_read(
    tmp_path_factory, table, reader, cuts, group_rows, columns, batch_rows, task_bytes, compression, page_version
):
    folder = tmp_path_factory.mktemp("log")
    borders = [0, *sorted(cuts), len(table)]
    for i, (first, last) in enumerate(itertools.pairwise(borders)):
        pq.write_table(
            table.slice(first, last - first),
            folder / f"part-{i}.parquet",
            row_group_size=group_rows,
            compression=compression,
            data_page_version=page_version,
        )
    options = ReadOptions(reader=reader, batch_rows=batch_rows, task_bytes=task_bytes)
    assert read(folder, columns, options) == table.select(columns).to_pydict()


def test_both_readers_give_the_same_numbers_and_keys(tmp_path, table):
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=300)
    numbers, keys = {}, {}
    for reader in READERS:
        options = ReadOptions(reader=reader)
        source = open_source(tmp_path, options)
        batches = [batch for task in source.tasks(COLUMNS, options) for batch in task.read()]
        for name in ("click", "score", "half", "seen", "price", "nothing", "a.b", "^c.*$"):
            for batch in batches:
                values, valid = batch.numbers(name)
                found = (values.tobytes(), None if valid is None else valid.tobytes())
                numbers.setdefault((name, reader), []).append(found)
        for name in ("click", "seen", "price", "country", "user", "day", "empty"):
            for batch in batches:
                keys.setdefault((name, reader), []).append(keys_of(batch, name))
    for found in (numbers, keys):
        for name, reader in found:
            assert found[name, reader] == found[name, "pyarrow"], name


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("store_schema", [True, False])
@pytest.mark.parametrize("task_bytes", [1, 128 << 20])
def test_days_and_moments_are_written_alike_by_both_readers(tmp_path, reader, store_schema, task_bytes):
    moment = datetime.datetime(2024, 7, 1, 12, 30, tzinfo=datetime.UTC)
    columns = {
        "date64": pa.array([datetime.date(2024, 7, 1), None], pa.date64()),
        "date32": pa.array([datetime.date(2024, 7, 1), None], pa.date32()),
        "berlin": pa.array([moment, None], pa.timestamp("us", "Europe/Berlin")),
        "utc": pa.array([moment, None], pa.timestamp("ms", "UTC")),
        "nowhere": pa.array([moment.replace(tzinfo=None), None], pa.timestamp("ns")),
    }
    pq.write_table(pa.table(columns), tmp_path / "log.parquet", store_schema=store_schema)
    options = ReadOptions(reader=reader, task_bytes=task_bytes)
    (task,) = open_source(tmp_path, options).tasks(list(columns), options)
    batches = list(task.read())
    assert {name: [key for batch in batches for key in keys_of(batch, name)] for name in columns} == {
        "date64": ["2024-07-01", None],
        "date32": ["2024-07-01", None],
        # A moment that knows its zone is written in UTC, and says so.
        "berlin": ["2024-07-01T12:30:00Z", None],
        "utc": ["2024-07-01T12:30:00Z", None],
        "nowhere": ["2024-07-01T12:30:00", None],
    }


@pytest.mark.parametrize("reader", READERS)
def test_texts_of_every_encoding_are_read(tmp_path, reader):
    texts = [None if i % 7 == 0 else f"value {i % 50}" for i in range(1000)]
    table = pa.table({"key": texts})
    for encoding in ("PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", None):
        pq.write_table(
            table,
            tmp_path / "log.parquet",
            use_dictionary=encoding is None,
            column_encoding=encoding and {"key": encoding},
        )
        for task_bytes in (1, 128 << 20):
            assert read(tmp_path, ["key"], ReadOptions(reader=reader, task_bytes=task_bytes)) == table.to_pydict()


def test_pandas_categories_and_arrow_types_survive(tmp_path):
    table = pa.table(
        {
            "category": pa.array(["x", "y", None, "x"]).dictionary_encode(),
            "view": pa.array(["x", "y", None, "x"], pa.string_view()),
            "large": pa.array(["x", "y", None, "x"], pa.large_string()),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    for reader in READERS:
        source = open_source(tmp_path, ReadOptions(reader=reader))
        for task in source.tasks(table.column_names, ReadOptions(reader=reader)):
            for batch in task.read():
                for name in table.column_names:
                    assert keys_of(batch, name) == ["x", "y", None, "x"]


@pytest.mark.parametrize("task_bytes", [1 << 16, 1 << 20, 128 << 20])
def test_a_task_holds_no_more_memory_than_it_says(tmp_path, task_bytes):
    rng = np.random.default_rng(0)
    n_rows = 300_000
    columns = {
        "int8": pa.array(rng.integers(0, 2, n_rows), pa.int8()),
        "float32": pa.array(rng.normal(size=n_rows), pa.float32(), mask=rng.random(n_rows) < 0.1),
        "constant": pa.array(np.full(n_rows, 0.5)),
        "float64": pa.array(rng.normal(size=n_rows)),
        "decimal": pa.array(rng.integers(0, 10**6, n_rows)).cast(pa.decimal128(19, 0)),
        "few": pa.array(rng.choice(["US", "Deutschland"], n_rows)),
        "many": pa.array([f"user-{i}" for i in rng.integers(0, 10**9, n_rows)]),
    }
    before = pa.default_memory_pool()
    try:
        for name, array in columns.items():
            pq.write_table(pa.table({name: array}), tmp_path / f"{name}.parquet")
            options = ReadOptions(task_bytes=task_bytes)
            (task,) = open_source(tmp_path / f"{name}.parquet", options).tasks([name], options)
            pool = pa.proxy_memory_pool(pa.system_memory_pool())
            pa.set_memory_pool(pool)
            assert sum(batch.n_rows for batch in task.read()) == n_rows
            pa.set_memory_pool(before)
            assert 0 < pool.max_memory() <= task.decoded_bytes, name
            assert task.decoded_bytes <= max(task_bytes, 4 << 20)
    finally:
        pa.set_memory_pool(before)


def test_the_summary_is_the_sum_of_the_tasks(tmp_path, table):
    pq.write_table(table, tmp_path / "1.parquet", row_group_size=400)
    pq.write_table(table.slice(0, 0), tmp_path / "2.parquet")
    options = ReadOptions()
    source = open_source(tmp_path, options)
    tasks = list(source.tasks(["click", "country"], options))
    summary = source.summary(["click", "country"], options)
    assert (summary.files, summary.row_groups, summary.rows) == (2, len(tasks), 1000)
    assert summary.stored_bytes == sum(task.stored_bytes for task in tasks) > 0
    assert summary.largest_task_bytes == max(task.decoded_bytes for task in tasks)
    assert [(task.origin, task.row_group, task.n_rows) for task in tasks[:3]] == [
        (str(tmp_path / "1.parquet"), i, n) for i, n in enumerate([400, 400, 200])
    ]
    footer = pq.read_metadata(tmp_path / "1.parquet").row_group(0)
    assert tasks[0].stored_bytes == footer.column(0).total_compressed_size + footer.column(5).total_compressed_size


def test_tasks_are_read_from_many_threads_at_once(tmp_path, table):
    for i in range(40):
        pq.write_table(table.slice(i * 25, 25), tmp_path / f"{i:02}.parquet", row_group_size=10)
    options = ReadOptions()
    tasks = list(open_source(tmp_path, options).tasks(["score", "country"], options))
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda task: table_of(task).to_pydict(), tasks))
    for name in ("score", "country"):
        assert [value for part in parts for value in part[name]] == table.column(name).to_pylist()


def test_files_are_closed_between_batches_and_after(tmp_path, table):
    pq.write_table(table, tmp_path / "log.parquet")
    options = ReadOptions(batch_rows=10, task_bytes=1)
    (task,) = open_source(tmp_path, options).tasks(["score"], options)
    held = len(os.listdir("/proc/self/fd"))
    batches = task.read()
    next(batches)
    batches.close()
    assert len(os.listdir("/proc/self/fd")) == held


def rows_and_files_parsed(task):
    """Read a task, and count the footers that this process has parsed for it."""
    parsed = []
    parquet_file = pq.ParquetFile

    def counted(*args, **kwargs):
        parsed.append(kwargs["metadata"] is None)
        return parquet_file(*args, **kwargs)

    pq.ParquetFile = counted
    try:
        return table_of(task).to_pydict(), sum(parsed)
    finally:
        pq.ParquetFile = parquet_file


@pytest.mark.parametrize("reader", READERS)
def test_a_task_is_read_in_another_process_as_in_this_one(tree, reader):
    tree("log/day=1/a.parquet", "log/day=2/b.parquet", table=log_table(200).drop_columns(["a", "day"]))
    options = ReadOptions(reader=reader, batch_rows=70)
    tasks = list(open_source("log", options).tasks(["day", "score", "user"], options))
    expected = [table_of(task).to_pydict() for task in tasks]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(rows_and_files_parsed, [tasks[0], tasks[1], tasks[0]], chunksize=1)
    assert [rows for rows, _ in found] == [expected[0], expected[1], expected[0]]
    if reader == "pyarrow":
        # A process parses a file's footer once.
        assert [parsed for _, parsed in found] == [1, 1, 0]


def test_a_task_of_many_row_groups_is_sent_without_the_others(tmp_path, table):
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=2)
    options = ReadOptions()
    first, *_ = tasks = list(open_source(tmp_path, options).tasks(["click", "user"], options))
    assert len(tasks) == 500
    assert len(pickle.dumps(first)) < 3000


def test_a_task_finds_in_another_process_that_its_file_has_changed(tmp_path, table):
    pq.write_table(table, tmp_path / "log.parquet")
    (task,) = open_source(tmp_path, ReadOptions()).tasks(["click"], ReadOptions())
    sent = pickle.loads(pickle.dumps(task))
    assert sent.origin == task.origin
    pq.write_table(table.slice(1), tmp_path / "log.parquet")
    with pytest.raises(ReadError, match="changed after its footer was read"):
        list(sent.read())


def test_a_task_of_a_stream_is_not_sent_to_another_process(table):
    for log in (table, table.to_reader(), pl.from_arrow(table.select(["click"])).lazy()):
        task = next(open_source(log, ReadOptions()).tasks(["click"], ReadOptions()))
        with pytest.raises(UsageError, match="executor='processes' reads files; use executor='threads'") as refusal:
            pickle.dumps(task)
        assert "\n" not in str(refusal.value)


def test_the_inputs_of_a_log_are_its_files(tmp_path, table, monkeypatch):
    log = tmp_path / "log"
    log.mkdir()
    for name in ("a", "b ü"):
        pq.write_table(table, log / f"{name}.parquet")
    (log / "c.parquet").write_bytes(b"nothing")
    os.symlink(log, tmp_path / "link")
    status = os.stat(log / "a.parquet")
    options = ReadOptions(skip_bad_files=True)
    first, second = open_source(log, options).inputs(["click"])
    assert first == (str(log / "a.parquet"), status.st_size, status.st_mtime_ns)
    assert second.path == str(log / "b ü.parquet")
    monkeypatch.chdir(tmp_path)
    assert open_source("link/a.parquet", options).inputs(["click"]) == [first]
    for frame in (table, pl.from_arrow(table.select(["click"])).lazy()):
        assert open_source(frame, options).inputs(["click"]) is None


# Listing


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(*paths, table=None):
        for path in paths:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            pq.write_table(pa.table({"x": [1.0]}) if table is None else table, path)

    return write


def origins(*entries):
    return [file.origin for file in listing.list_files(entries)]


def test_folders_globs_and_lists_are_sorted_and_skip_hidden_names(tree):
    tree("log/b.parquet", "log/a.PARQUET", "log/c/d.parq", "log/c/e.pq")
    tree("log/_tmp/f.parquet", "log/.git/g.parquet", "log/_h.parquet", "log/readme.txt", "log/_k=1/i.parquet")
    expected = ["log/_k=1/i.parquet", "log/a.PARQUET", "log/b.parquet", "log/c/d.parq", "log/c/e.pq"]
    assert origins("log") == origins("log/") == expected
    assert origins("log/**/*.p*q*", "log/a.PARQUET") == [*(e for e in expected if e != "log/a.PARQUET"), expected[1]]
    assert origins("log/*.parquet") == ["log/b.parquet"]
    assert origins("log/c", "log/b.parquet") == ["log/c/d.parq", "log/c/e.pq", "log/b.parquet"]
    assert origins("log/[bc]*") == ["log/b.parquet", "log/c/d.parq", "log/c/e.pq"]
    assert origins("log/_tmp/*.parquet") == ["log/_tmp/f.parquet"]
    assert origins("log/_*.parquet") == ["log/_h.parquet"]
    assert origins("log/readme.txt") == ["log/readme.txt"]


def test_a_name_with_wildcards_in_it_is_a_file_first(tree):
    tree("part[1].parquet", "part1.parquet")
    assert origins("part[1].parquet") == ["part[1].parquet"]
    assert origins("part[12].parquet") == ["part1.parquet"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("nowhere.parquet", "there is no file or folder 'nowhere.parquet'"),
        ("nowhere/*.parquet", "no file matches 'nowhere/*.parquet'"),
        ("texts", "folder 'texts' holds no file ending in .parquet"),
        ("table/*", "folder 'table' is a Delta Lake table"),
        (["table", "log.parquet"], "folder 'table' is a Delta Lake table"),
        ("gopher://x/y", "the URL 'gopher://x/y' cannot be read"),
        ("s3://bucket*/y", "has a wildcard in its bucket"),
        ("s3://bucket/?.parquet", "has a '?', which begins a URL's options"),
        ("", "a path is empty"),
        ([], "the list of logs is empty"),
        ([1], "may hold paths only"),
        (b"log.parquet", "a log of type bytes cannot be read"),
        (7, "a log of type int cannot be read"),
        (["log.parquet", "*.parquet"], "file 'log.parquet' is found twice, by 'log.parquet' and by '*.parquet'"),
    ],
)
def test_what_names_no_log_says_so(tree, entry, message):
    tree("log.parquet", "table/_delta_log/0.parquet", "table/part.parquet")
    os.makedirs("texts")
    with open("texts/a.txt", "w") as file:
        file.write("x\n1\n")
    with pytest.raises(UsageError) as refusal:
        open_source(entry, ReadOptions())
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


TABLES = {
    "Delta Lake": ("_delta_log/0.json", "deltalake.DeltaTable("),
    "Hudi": (".hoodie/hoodie.properties", "Arrow stream"),
    "Iceberg": ("metadata/00001-a.metadata.json", "give the table of pyiceberg"),
}


@pytest.mark.parametrize("table_format", TABLES)
def test_no_part_of_a_table_format_is_read_by_its_files(tree, table_format):
    marker, way_out = TABLES[table_format]
    tree("table/data/c=a/part.parquet", "table/data/c=b/part.parquet", "plain/metadata/part.parquet")
    os.makedirs(f"table/{os.path.dirname(marker)}")
    with open(f"table/{marker}", "w") as file:
        file.write("{}")
    os.symlink("table/data/c=a", "link")
    store = f"file://{os.getcwd()}"
    parts = ["", "/data", "/data/c=a", "/data/c=a/part.parquet", "/data/*/*.parquet", "/*/*/*", "/**/*.parquet", "/d*"]
    # The folder itself is a log, unless no library reads it.
    names = [f"table{part}" for part in parts if part or table_format == "Hudi"]
    names += [".", "*/*/c=a/*", "link", "link/*.parquet", os.path.abspath("table/data"), f"{store}/table/data/c=a"]
    for name in names:
        with pytest.raises(UsageError, match=rf"table' is (a|an) {table_format} table") as refusal:
            open_source(name, ReadOptions())
        assert way_out in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert origins("plain") == ["plain/metadata/part.parquet"]


@pytest.mark.parametrize("table_format", TABLES)
def test_a_table_format_in_a_store_is_not_read_by_its_files(tree, table_format, monkeypatch):
    marker, way_out = TABLES[table_format]
    tree("logs/table/data/c=a/part.parquet", "logs/plain/part.parquet")
    os.makedirs(f"logs/table/{os.path.dirname(marker)}")
    with open(f"logs/table/{marker}", "w") as file:
        file.write("{}")
    store = Store(fs.SubTreeFileSystem(os.getcwd(), fs.LocalFileSystem()), Retries(0), "s3://")
    monkeypatch.setattr(listing, "_locate", lambda url, stores: (store, url.removeprefix("s3://"), store.url_of))
    for part in ("", "/table", "/table/data", "/table/data/c=a/part.parquet", "/table/*/*/*.parquet", "/*/*/c=a"):
        with pytest.raises(UsageError, match=rf"s3://logs/table' is (a|an) {table_format} table") as refusal:
            open_source(f"s3://logs{part}", ReadOptions())
        assert way_out in str(refusal.value)
    assert origins("s3://logs/p*/*") == ["s3://logs/plain/part.parquet"]


def test_a_store_is_listed_as_a_local_folder_is(tree):
    paths = ["log/day=1/a.parquet", "log/day=2/b.parquet", "log/day=2/c/d.parquet", "log/_tmp/e.parquet"]
    tree(*paths)
    # A subtree file system is none that glob knows, as a store is.
    store = fs.SubTreeFileSystem(os.getcwd(), fs.LocalFileSystem())
    for pattern in ("log/**/*.parquet", "log/day=*/*.parquet", "log/day=[!1]/?.parquet", "log/day=*", "log/*/*/d*"):
        assert sorted(listing._glob(store, pattern)) == origins(pattern)
    url = "file://" + os.getcwd()
    assert origins(f"{url}/log") == [f"{url}/{path}" for path in paths[:3]]
    assert origins(f"{url}/log/day=*/*.parquet") == [f"{url}/{path}" for path in paths[:2]]
    assert read(f"{url}/log", ["x", "day"], ReadOptions()) == {"x": [1.0] * 3, "day": [1, 2, 2]}


def test_a_log_in_a_store_is_read_through_its_file_system(tree, table, monkeypatch):
    tree("log/day=1/a.parquet", "log/day=2/b.parquet", table=table.drop_columns(["day"]))
    store = Store(fs.SubTreeFileSystem(os.getcwd(), fs.LocalFileSystem()), Retries(0), "s3://")
    monkeypatch.setattr(listing, "_locate", lambda url, stores: (store, url.removeprefix("s3://"), store.url_of))
    for task_bytes in (1, 128 << 20):
        found = read("s3://log/*/*.parquet", ["country", "day"], ReadOptions(task_bytes=task_bytes))
        assert found["country"] == table.column("country").to_pylist() * 2
        assert found["day"] == [1] * 1000 + [2] * 1000
    with pytest.raises(UsageError, match="reads local files only"):
        open_source("s3://log/*/*.parquet", ReadOptions(reader="polars"))


# Partition keys


def test_a_linked_folder_is_not_read_twice(tree):
    tree("log/day=1/a.parquet", "log/day=2/b.parquet")
    os.symlink("day=2", "log/latest")
    with pytest.raises(UsageError, match=r"found twice, .*through a link"):
        open_source("log", ReadOptions())


def test_a_partition_key_with_a_leading_zero_is_a_name(tree):
    tree("log/zip=02139/a.parquet", "log/zip=10001/b.parquet")
    assert open_source("log", ReadOptions()).schema.field("zip").type == pa.string()


@pytest.mark.parametrize("reader", READERS)
def test_partition_keys_become_columns(tree, reader):
    tree("log/day=1/city=S%C3%A3o%20Paulo/a.parquet", "log/day=-2/city=__HIVE_DEFAULT_PARTITION__/b.parquet")
    tree("log/day=3/city=7/c.parquet")
    options = ReadOptions(reader=reader)
    for log in ("log", "log/*/*/*.parquet", "log/day=*", origins("log")):
        source = open_source(log, options)
        assert source.schema == pa.schema({"x": pa.float64(), "day": pa.int64(), "city": pa.string()})
        assert read(log, ["city", "x", "day"], options) == {
            "city": [None, "São Paulo", "7"],
            "x": [1.0, 1.0, 1.0],
            "day": [-2, 1, 3],
        }


def test_one_value_that_is_no_integer_makes_the_key_a_string(tree):
    tree("log/v=1/a.parquet", f"log/v={2**63}/b.parquet")
    assert read("log", ["v", "x"], ReadOptions())["v"] == ["1", str(2**63)]
    assert open_source("log/v=1", ReadOptions()).schema.field("v").type == pa.int64()


def test_a_key_that_is_also_a_column_of_the_file_is_an_error_if_it_is_selected(tree):
    tree("log/x=5/a.parquet", table=pa.table({"x": pa.array([1, 2], pa.int32()), "y": [1.0, 2.0]}))
    assert read("log", ["y"], ReadOptions()) == {"y": [1.0, 2.0]}
    for plan in (open_source("log", ReadOptions()).summary, open_source("log", ReadOptions()).tasks):
        with pytest.raises(SchemaError, match=r"column 'x' is in 'log/x=5/a.parquet', and its path has a folder x=…"):
            plan(["x", "y"], ReadOptions())
    # The others take the path's:
    assert ds.dataset("log", partitioning="hive").to_table().column("x").to_pylist() == [5, 5]
    assert pl.read_parquet("log").get_column("x").to_list() == [5, 5]
    # The way out that the message names:
    assert read(pl.scan_parquet("log/x=5/a.parquet", hive_partitioning=False), ["x"], ReadOptions()) == {"x": [1, 2]}


def test_a_key_that_some_paths_lack_is_an_error_only_if_it_is_selected(tree):
    tree("log/day=1/a.parquet", "log/b.parquet")
    assert read("log", ["x"], ReadOptions()) == {"x": [1.0, 1.0]}
    with pytest.raises(SchemaError, match=r"'log/b.parquet' has no folder day=…, and 'log/day=1/a.parquet' has one"):
        open_source("log", ReadOptions()).tasks(["x", "day"], ReadOptions())


# Fields of structs


def nested_table(n_rows=500):
    """Structs and lists of structs with nulls at every level, and the same fields as columns of their own."""
    rng = np.random.default_rng(11)

    def draw(make, missing=0.2):
        return None if rng.random() < missing else make()

    def model():
        return {"score": draw(rng.normal), "name": draw(lambda: str(rng.choice(["a", "b"])))}

    def event():
        return {"label": draw(lambda: int(rng.integers(0, 2))), "model": draw(model), "note": "x" * 20}

    def candidate():
        return {"score": draw(rng.normal), "label": draw(lambda: float(rng.integers(0, 2))), "text": "y" * 20}

    def slate():
        return [draw(candidate) for _ in range(rng.integers(0, 4))]

    events = [draw(event) for _ in range(n_rows)]
    slates = [draw(slate) for _ in range(n_rows)]
    score = pa.float32()
    event_type = pa.struct(
        {"label": pa.int8(), "model": pa.struct({"score": score, "name": pa.string()}), "note": pa.string()}
    )
    candidate_type = pa.struct({"score": score, "label": pa.float64(), "text": pa.string()})
    table = pa.table(
        {
            "event": pa.array(events, event_type),
            "candidates": pa.array(slates, pa.list_(candidate_type)),
            "large": pa.array(slates, pa.large_list(candidate_type)),
            "event.note": pa.array(np.arange(n_rows)),
        }
    )
    models = [e and e["model"] for e in events]
    flat = {
        "event.label": pa.array([e and e["label"] for e in events], pa.int8()),
        "event.model.score": pa.array([m and m["score"] for m in models], score),
        "event.model.name": pa.array([m and m["name"] for m in models], pa.string()),
        # A column's own name comes first.
        "event.note": pa.array(np.arange(n_rows)),
    }
    for name in ("candidates", "large"):
        of = pa.list_ if name == "candidates" else pa.large_list
        for field, kind in (("score", score), ("label", pa.float64())):
            values = [s and [c and c[field] for c in s] for s in slates]
            flat[f"{name}.list.{field}"] = pa.array(values, of(kind))
    return table, pa.table(flat)


NESTED, FLAT = nested_table()


@pytest.mark.parametrize("reader", READERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    cut=st.integers(0, 500),
    group_rows=st.integers(60, 500),
    columns=st.lists(st.sampled_from(FLAT.column_names), min_size=1, unique=True),
    batch_rows=st.sampled_from([1, 7, 65_536]),
    task_bytes=st.sampled_from([1, 20_000, 128 << 20]),
    page_version=st.sampled_from(["1.0", "2.0"]),
    compliant=st.booleans(),
)
def test_fields_of_structs_are_columns_however_the_log_is_stored(
    tmp_path_factory, reader, cut, group_rows, columns, batch_rows, task_bytes, page_version, compliant
):
    folder = tmp_path_factory.mktemp("log")
    for i, part in enumerate((NESTED.slice(0, cut), NESTED.slice(cut))):
        pq.write_table(
            part,
            folder / f"part-{i}.parquet",
            row_group_size=group_rows,
            data_page_version=page_version,
            # The files of a log may name the elements of a list otherwise.
            use_compliant_nested_type=compliant ^ bool(i),
        )
    options = ReadOptions(reader=reader, batch_rows=batch_rows, task_bytes=task_bytes)
    assert read(folder, columns, options) == FLAT.select(columns).to_pydict()


@pytest.mark.parametrize("batch_rows", [7, 65_536])
def test_fields_of_structs_are_columns_of_frames_and_streams(tmp_path, batch_rows):
    columns = FLAT.column_names
    pq.write_table(NESTED, tmp_path / "log.parquet")
    frame = pl.from_arrow(NESTED)
    logs = [
        NESTED,
        NESTED.slice(0, 0),
        pa.Table.from_batches(NESTED.to_batches(max_chunksize=90)),
        NESTED.to_reader(),
        frame,
        frame.lazy(),
        pl.scan_parquet(tmp_path / "log.parquet"),
        ds.dataset(tmp_path / "log.parquet"),
        NESTED.to_batches(max_chunksize=90),
        (pl.from_arrow(batch) for batch in NESTED.to_batches(max_chunksize=90)),
    ]
    for log in logs:
        options = ReadOptions(batch_rows=batch_rows)
        found = pa.table(read(log, columns, options), schema=FLAT.schema)
        assert found == FLAT.slice(0, len(found)), type(log)
        assert len(found) == (0 if log is logs[1] else len(FLAT))
    for log in (NESTED, frame, frame.lazy(), str(tmp_path)):
        source = open_source(log, ReadOptions(), columns)
        assert {name: source.schema.field(name).type for name in columns[:4]} == {
            name: FLAT.schema.field(name).type for name in columns[:4]
        } | ({"event.model.name": source.schema.field("event.model.name").type}), type(log)


@pytest.mark.parametrize("reader", READERS)
def test_of_a_struct_only_the_leaf_that_is_named_is_read(tmp_path, reader):
    pq.write_table(NESTED, tmp_path / "log.parquet", row_group_size=100, compression="none")
    metadata = pq.read_metadata(tmp_path / "log.parquet")
    leaves = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    names = ["event.model.score", "event.label", "candidates.list.score"]
    wanted = [i for i, path in enumerate(leaves) if path.replace("list.element", "list") in names]
    assert len(wanted) == 3
    options = ReadOptions(reader=reader)
    tasks = list(open_source(tmp_path, options).tasks(names, options))
    for number, task in enumerate(tasks):
        group = metadata.row_group(number)
        assert task.stored_bytes == sum(group.column(leaf).total_compressed_size for leaf in wanted)
    expected = read(tmp_path, names, options)

    # Whatever else is read is no longer Parquet.
    content = bytearray((tmp_path / "log.parquet").read_bytes())
    for number in range(metadata.num_row_groups):
        for leaf in set(range(metadata.num_columns)) - set(wanted):
            chunk = metadata.row_group(number).column(leaf)
            first = chunk.dictionary_page_offset or chunk.data_page_offset
            content[first : first + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    (tmp_path / "log.parquet").write_bytes(content)
    assert read(tmp_path, names, options) == expected == FLAT.select(names).to_pydict()
    with pytest.raises(ReadError):
        read(tmp_path, ["event"], options)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("element", ["element", "item", "array_element", "list", "a.b"])
def test_the_elements_of_a_list_may_have_any_name_in_the_file(tmp_path, reader, element):
    kind = NESTED.schema.field("candidates").type.value_type
    table = NESTED.select(["candidates"]).cast(pa.schema({"candidates": pa.list_(pa.field(element, kind))}))
    pq.write_table(table, tmp_path / "log.parquet", use_compliant_nested_type=False)
    assert pq.read_metadata(tmp_path / "log.parquet").schema.column(0).path == f"candidates.list.{element}.score"
    names = ["candidates.list.score", "candidates.list.label"]
    assert read(tmp_path, names, ReadOptions(reader=reader)) == FLAT.select(names).to_pydict()


@pytest.mark.parametrize("reader", READERS)
def test_fields_of_structs_stand_in_expressions(tmp_path, reader):
    pq.write_table(NESTED, tmp_path / "log.parquet")
    pq.write_table(FLAT, tmp_path / "flat.parquet")
    asked = {
        "label": "event.label",
        "logit": {"a": "event.model.score", "b": "event.model.score / 2"},
        "where": "event.model.score < 0.5 and event.label is not null",
        "by": "event.model.name",
        "reader": reader,
    }
    found, expected = (fl.evaluate(tmp_path / f"{name}.parquet", **asked) for name in ("log", "flat"))
    assert found.values == expected.values
    assert found.rows["used"] == expected.rows["used"]


@pytest.mark.parametrize("reader", READERS)
def test_a_struct_and_its_fields_are_read_side_by_side(tmp_path, reader):
    pq.write_table(NESTED, tmp_path / "log.parquet")
    columns = ["event", "event.model.name", "event.model", "candidates", "candidates.list.label"]
    found = read(tmp_path, columns, ReadOptions(reader=reader))
    assert found["event"] == NESTED["event"].to_pylist()
    assert found["event.model"] == [e and e["model"] for e in NESTED["event"].to_pylist()]
    assert found["event.model.name"] == FLAT["event.model.name"].to_pylist()
    assert found["candidates"] == NESTED["candidates"].to_pylist()
    assert found["candidates.list.label"] == FLAT["candidates.list.label"].to_pylist()
    # As a key, a text that is a field is decoded as codes, where nothing else needs it as text.
    options = ReadOptions(reader=reader)
    (task,) = open_source(tmp_path, options).tasks(["event.model.name"], options)
    for batch in task.read():
        assert pa.types.is_dictionary(batch.record_batch.schema.types[0])
        assert keys_of(batch, "event.model.name") == FLAT["event.model.name"].to_pylist()


def test_a_name_of_two_fields_is_refused(tree):
    table = pa.table({"a": [{"b.c": 1.0}], "a.b": [{"c": 2.0}], "x": [1.0]})
    tree("log.parquet", table=table)
    for log in ("log.parquet", table, pl.from_arrow(table), pl.from_arrow(table).lazy()):
        source = open_source(log, ReadOptions(), ["a.b.c", "x"])
        assert source.schema.names.count("a.b.c") == 2
        with pytest.raises(SchemaError, match=r"'a\.b\.c' is in .* 2 times"):
            source.tasks(["a.b.c"], ReadOptions())
        assert read(log, ["a.b"], ReadOptions()) == {"a.b": [{"c": 2.0}]}


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_of_a_frame_only_the_structs_that_are_named_are_converted(library):
    pytest.importorskip(library)

    class Mixed:
        pass

    mixed = [Mixed()] * len(NESTED)
    if library == "pandas":
        frame = NESTED.to_pandas().assign(other=mixed)
    else:
        frame = pl.from_arrow(NESTED).with_columns(pl.Series("other", mixed, pl.Object))
    source = open_source(frame, ReadOptions(), ["event.label", "event.note"])
    assert [f.type for f in source.schema if f.name in ("candidates", "other")] == [pa.null()] * 2
    (task,) = source.tasks(["event.label", "event.note"], ReadOptions())
    assert table_of(task).to_pydict() == FLAT.select(["event.label", "event.note"]).to_pydict()


REQUESTS = {
    "rows": {"label": "event.label", "logit": "event.model.score", "weight": "event.note"},
    "lists": {"label": "candidates.list.label", "logit": "candidates.list.score"},
}


@pytest.mark.parametrize("shape", REQUESTS)
def test_an_evaluation_of_fields_is_that_of_columns(tmp_path, shape):
    request = {**REQUESTS[shape], "by": ["event.model.name"]}
    for name, table in (("nested", NESTED), ("flat", FLAT)):
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "log.parquet", row_group_size=200)
    expected = fl.evaluate(tmp_path / "flat", **request).to_json().replace("/flat/", "/nested/")
    for log in (NESTED, pl.from_arrow(NESTED), pl.scan_parquet(tmp_path / "nested" / "*.parquet")):
        found = json.loads(fl.evaluate(log, **request).to_json())
        assert found["values"] == json.loads(expected)["values"]
    for options in ({}, {"reader": "polars"}, {"executor": "processes", "threads": 2}):
        assert fl.evaluate(tmp_path / "nested", **request, **options).to_json() == expected, options


@pytest.mark.parametrize("shape", REQUESTS)
def test_scores_of_fields_are_those_of_columns(tmp_path, shape):
    keep = ["event.model.name", "candidates.list.label", "event.label"]
    request = {name: column for name, column in REQUESTS[shape].items() if name != "weight"}
    scored = {}
    for name, table in (("nested", NESTED), ("flat", FLAT)):
        for top in (None, 20):
            pq.write_table(table, tmp_path / f"{name}.parquet")
            out = tmp_path / f"{name}-{top}.out.parquet"
            fl.score(tmp_path / f"{name}.parquet", out, loss="log_loss", keep=keep, top=top, **request)
            scored[name, top] = pq.read_table(out)
    for top in (None, 20):
        places = [name for name in ("file",) if top]
        assert scored["nested", top].drop_columns(places) == scored["flat", top].drop_columns(places)


# Schemas


def test_a_missing_column_comes_with_the_nearest_names(tree, table):
    tree("log.parquet", table=table)
    for log in ("log.parquet", table, table.to_reader(), pl.scan_parquet("log.parquet")):
        with pytest.raises(SchemaError, match=r"column 'scores' is not in .*\. Did you mean 'score'"):
            open_source(log, ReadOptions()).tasks(["click", "scores"], ReadOptions())
    with pytest.raises(SchemaError, match=r"column 'a\.d' is not in .*\. Did you mean 'a\.c'"):
        open_source("log.parquet", ReadOptions()).tasks(["a.d"], ReadOptions())


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ({"y": [1.0]}, "column 'x' is in '1.parquet' and not in '2.parquet'"),
        ({"x": ["1"]}, "column 'x' has type double in '1.parquet' and string in '2.parquet'"),
        ({"x": [[1.0]]}, "column 'x' has type double in '1.parquet' and list<element: double> in '2.parquet'"),
    ],
)
def test_drift_between_files_is_found_before_a_row_is_read(tree, later, message):
    tree("1.parquet")
    tree("2.parquet", table=pa.table(later))
    for options in (ReadOptions(), ReadOptions(skip_bad_files=True)):
        source = open_source(["1.parquet", "2.parquet"], options)
        for plan in (functools.partial(m, options=options) for m in (source.summary, source.tasks)):
            with pytest.raises(SchemaError) as refusal:
                plan(["x"])
            assert message in str(refusal.value)


@pytest.mark.parametrize("reader", READERS)
def test_files_may_store_a_number_in_different_widths(tree, reader):
    types = [pa.float64(), pa.float32(), pa.int8(), pa.bool_(), pa.uint32(), pa.null(), pa.decimal128(9, 2)]
    for i, data_type in enumerate(types):
        value = {pa.null(): None, pa.bool_(): True}.get(data_type, 1)
        tree(f"{i}.parquet", table=pa.table({"x": pa.array([value], data_type)}))
    options = ReadOptions(reader=reader)
    found = [b.numbers("x") for t in open_source("*", options).tasks(["x"], options) for b in t.read()]
    assert [values.tolist() for values, _ in found] == [[1.0]] * 5 + [[0.0], [1.0]]


def test_a_repeated_name_can_be_there_and_cannot_be_selected(tree):
    table = pa.Table.from_arrays([pa.array([1.0])] * 3, names=["x", "x", "y"])
    tree("log.parquet", table=table)
    for log in ("log.parquet", table):
        assert read(log, ["y"], ReadOptions()) == {"y": [1.0]}
        with pytest.raises(SchemaError, match=r"'x' is in .* 2 times"):
            open_source(log, ReadOptions()).tasks(["x"], ReadOptions())


@pytest.mark.parametrize("reader", READERS)
def test_logs_without_rows_have_a_schema_and_no_rows(tree, reader):
    empty = pa.table({"x": pa.array([], pa.float64()), "k": pa.array([], pa.string())})
    tree("none.parquet", table=empty)
    with pq.ParquetWriter("groups.parquet", empty.schema) as writer:
        for part in (empty, pa.table({"x": [1.0], "k": ["a"]}), empty):
            writer.write_table(part)
    options = ReadOptions(reader=reader)
    assert read("none.parquet", ["x", "k"], options) == {"x": [], "k": []}
    assert read("groups.parquet", ["x", "k"], options) == {"x": [1.0], "k": ["a"]}
    assert open_source("none.parquet", options).summary(["x"], options).rows == 0
    with pytest.raises(UsageError, match="no column"):
        open_source("none.parquet", options).tasks([], options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ReadOptions(reader="duckdb"), "allowed are 'pyarrow' and 'polars'"),
        (ReadOptions(batch_rows=0), "batch_rows is 0; it must be at least 1"),
        (ReadOptions(task_bytes=0), "task_bytes is 0"),
        (ReadOptions(reader="polars", verify_checksums=True), "cannot verify checksums"),
    ],
)
def test_options_that_cannot_be_met_are_refused(tree, options, message):
    tree("log.parquet")
    with pytest.raises(UsageError, match=message):
        open_source("log.parquet", options)


def test_a_decoder_is_a_module_and_a_name(tree, table, monkeypatch):
    tree("log/day=1/a.parquet", "log/day=2/b.parquet", table=table.drop_columns(["day"]))
    calls = []

    def first_rows(file, row_group, selection, options):
        calls.append(row_group.n_rows)
        for batch in pyarrow_decoder.read(file, row_group, selection, options):
            yield batch.slice(0, n_rows)

    mine = types.SimpleNamespace(
        READS_STORES=False, READS_PIECES=False, READS_FIELDS=False, VERIFIES_CHECKSUMS=False, read=first_rows
    )
    monkeypatch.setitem(sys.modules, "decoder_of_mine", mine)
    monkeypatch.setitem(decoders.DECODERS, "mine", "decoder_of_mine")
    n_rows = 1000
    columns = ["day", "score"]
    assert read("log", columns, ReadOptions(reader="mine")) == read("log", columns, ReadOptions())
    assert calls == [1000, 1000]
    # A row group that is too large for a decoder that reads it whole is left to pyarrow.
    assert read("log", columns, ReadOptions(reader="mine", task_bytes=1)) == read("log", columns, ReadOptions())
    assert calls == [1000, 1000]
    with pytest.raises(UsageError, match="reader='mine' cannot verify checksums"):
        open_source("log", ReadOptions(reader="mine", verify_checksums=True))
    n_rows = 999
    with pytest.raises(ReadError, match="row group 0, promises 1000 rows and delivers 999"):
        read("log", columns, ReadOptions(reader="mine"))


def test_a_reader_that_cannot_verify_checksums_is_refused_for_the_tasks_too(tree):
    tree("log.parquet")
    with pytest.raises(UsageError, match="cannot verify checksums"):
        open_source("log.parquet", ReadOptions()).tasks(["x"], ReadOptions(reader="polars", verify_checksums=True))


# Streams and frames


def test_frames_and_streams_give_the_rows_of_the_table(table, tmp_path):
    pq.write_table(table, tmp_path / "log.parquet")
    columns = ["country", "click", "score", "^c.*$"]
    expected = table.select(columns).to_pydict()
    frame = pl.from_arrow(table.select(columns))
    lazy = pl.scan_parquet(tmp_path / "log.parquet")
    for log in (table, table.to_batches()[0], table.to_reader(7), frame, lazy, frame.lazy()):
        for batch_rows in (11, 65_536):
            options = ReadOptions(batch_rows=batch_rows)
            if isinstance(log, pa.RecordBatchReader):
                log = table.to_reader(7)
            assert read(log, columns, options) == expected


def unreadable_frame(library):
    """A frame of an int8, a float and a column that has no Arrow type."""
    columns = {"x": [1.0, 2.0], "mixed": [1, "a"], "^x$": [3, 4], 'a"b`c': [5, 6]}
    if library == "pandas":
        return pytest.importorskip("pandas").DataFrame(columns)
    if library == "duckdb":
        duckdb = pytest.importorskip("duckdb")
        return duckdb.from_arrow(pa.table({**columns, "mixed": ["1", "a"]})).project(
            """x, error('converted') AS mixed, "^x$", "a""b`c" """
        )
    return pl.DataFrame({**columns, "mixed": pl.Series([object(), object()], dtype=pl.Object)})


@pytest.mark.parametrize("library", ["polars", "pandas", "duckdb"])
def test_of_a_frame_only_what_is_read_is_converted(library):
    frame = unreadable_frame(library)
    options = ReadOptions()
    columns = ['a"b`c', "x", "^x$"]
    for _ in range(2):
        source = open_source(frame, options, columns)
        assert sorted(source.schema.names) == sorted([*columns, "mixed"])
        assert source.schema.field("x").type == pa.float64()
        assert source.schema.field("mixed").type == pa.null()
        tables = [table_of(task) for task in source.tasks(columns, options)]
        assert pa.concat_tables(tables).to_pydict() == {'a"b`c': [5, 6], "x": [1.0, 2.0], "^x$": [3, 4]}
    assert pa.concat_tables(table_of(task) for task in source.tasks(["x"], options)).to_pydict() == {"x": [1.0, 2.0]}
    source = open_source(frame, options, ["nowhere"])
    with pytest.raises(SchemaError, match=r"column 'nowhere' is not in the log\. Known: "):
        source.tasks(["nowhere"], options)


def test_a_column_that_cannot_be_converted_says_so_and_nothing_of_files():
    class Rows:
        def __arrow_c_stream__(self, requested_schema=None):
            raise TypeError("a column holds numbers\nand texts")

    with pytest.raises(SchemaError, match=r"the Rows gives no Arrow stream: a column holds numbers$") as refusal:
        fl.evaluate(Rows(), label="y", logit="x")
    assert "on_bad_file" not in str(refusal.value)


def test_an_index_of_pandas_can_be_read():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": [1.0, 2.0]}, index=pandas.Index([7, 8], name="user"))
    source = open_source(frame, ReadOptions(), ["user", "x"])
    (task,) = source.tasks(["user", "x"], ReadOptions())
    assert table_of(task).to_pydict() == {"user": [7, 8], "x": [1.0, 2.0]}


def test_spark_is_asked_for_columns_by_their_names():
    class DataFrame:
        columns = ("x", "a.b", "c`d")

        def __arrow_c_stream__(self, requested_schema=None):
            raise AssertionError("all columns are converted")

        def select(self, *names):
            return pa.table({name[1:-1].replace("``", "`"): [1.0] for name in names})

    DataFrame.__module__ = "pyspark.sql.classic.dataframe"
    source = open_source(DataFrame(), ReadOptions(), ["c`d", "a.b"])
    (task,) = source.tasks(["c`d", "a.b"], ReadOptions())
    assert table_of(task).to_pydict() == {"c`d": [1.0], "a.b": [1.0]}


def test_long_batches_are_cut_and_short_ones_joined(monkeypatch):
    from fastloss.sources import arrow_stream

    monkeypatch.setattr(arrow_stream, "_LONGEST_TASK_ROWS", 100)
    monkeypatch.setattr(arrow_stream, "_SHORTEST_TASK_ROWS", 10)
    options = ReadOptions()
    table = pa.table({"x": range(250)})
    tasks = list(open_source(table, options).tasks(["x"], options))
    assert [sum(batch.n_rows for batch in task.read()) for task in tasks] == [100, 100, 50]
    tasks = list(open_source(table.to_reader(3), options).tasks(["x"], options))
    assert max(sum(batch.n_rows for batch in task.read()) for task in tasks) == 12
    assert len(tasks) == 21
    keys = [pa.record_batch({"k": pa.array([key], pa.string()).dictionary_encode()}) for key in ("a", "b", None, "a")]
    assert read(pa.RecordBatchReader.from_batches(keys[0].schema, keys), ["k"], options) == {
        "k": ["a", "b", None, "a"]
    }


def test_a_stream_is_read_once_and_a_table_twice(table):
    options = ReadOptions()
    once = open_source(table.to_reader(), options)
    assert once.summary(["click"], ReadOptions()).rows is None
    list(once.tasks(["click"], options))
    with pytest.raises(UsageError, match="RecordBatchReader was already read, and a stream gives its rows once"):
        once.tasks(["click"], options)
    for log in (table, pl.from_arrow(table.select(["click"])), pl.from_arrow(table.select(["click"])).lazy()):
        twice = open_source(log, options)
        for _ in range(2):
            n_rows = [batch.n_rows for task in twice.tasks(["click"], options) for batch in task.read()]
            assert sum(n_rows) == 1000


def test_a_stream_that_fails_is_a_read_error():
    def batches():
        yield pa.record_batch({"x": pa.array([1.0] * 20_000)})
        raise OSError("the line\nis cut")

    options = ReadOptions()
    reader = pa.RecordBatchReader.from_batches(pa.schema({"x": pa.float64()}), batches())
    tasks = open_source(reader, options).tasks(["x"], options)
    assert next(tasks).index == 0
    with pytest.raises(ReadError, match="cannot read the stream after 20000 rows") as failure:
        next(tasks)
    assert "\n" not in str(failure.value)


def test_a_stream_with_a_dictionary_index_out_of_range_is_a_read_error():
    broken = pa.DictionaryArray.from_arrays(pa.array([0, 9], pa.int32()), pa.array(["a"]), safe=False)
    options = ReadOptions()
    with pytest.raises(ReadError, match="cannot read the stream after 0 rows"):
        list(open_source(pa.record_batch({"k": broken}), options).tasks(["k"], options))


def test_a_query_that_fails_is_a_read_error():
    options = ReadOptions()
    query = pl.DataFrame({"k": ["a"]}).lazy().select(pl.col("k").cast(pl.Int32))
    with pytest.raises(ReadError, match="cannot read the stream after 0 rows: conversion"):
        list(open_source(query, options).tasks(["k"], options))
    with pytest.raises(SchemaError, match="the lazy frame gives no schema"):
        open_source(pl.DataFrame({"k": ["a"]}).lazy().select("nothing"), options)


def test_planning_is_done_once_for_a_selection(tmp_path, table, monkeypatch):
    for i in range(3):
        pq.write_table(table, tmp_path / f"{i}.parquet")
    options = ReadOptions()
    source = open_source(tmp_path, options)
    opened, lock = [], threading.Lock()
    parquet_file = pq.ParquetFile

    def counted(*args, **kwargs):
        with lock:
            opened.append(kwargs.get("metadata") is None)
        return parquet_file(*args, **kwargs)

    monkeypatch.setattr(pq, "ParquetFile", counted)
    source.summary(["click"], ReadOptions())
    # Opening the source parsed the first footer. Planning parses the others, and checks all three as one, added to a
    # footer of its own.
    assert sorted(opened) == [False, False, True, True, True]
    for task in source.tasks(["click"], options):
        assert sum(batch.n_rows for batch in task.read()) == 1000
    source.summary(["click"], ReadOptions())
    assert opened[5:] == [False] * 3
