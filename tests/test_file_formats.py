"""Files of other formats than Parquet: Arrow IPC, CSV and JSON lines."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.cli import main
from fastloss.errors import ReadError, SchemaError, UsageError
from fastloss.sources import ReadOptions, arrow_ipc, open_source

REQUEST = {"label": "click", "logit": "score", "by": "country", "metrics": ["log_loss", "calibration"]}
OPTIONS = ["--label", "click", "--logit", "score", "--by", "country", "-m", "log_loss,calibration"]


def log_table(n_rows=2000):
    rng = np.random.default_rng(3)
    missing = rng.random(n_rows) < 0.1
    return pa.table(
        {
            "other": pa.array([f"row {i}, “{i}”" for i in range(n_rows)]),
            "click": pa.array(rng.integers(0, 2, n_rows), pa.int64()),
            "score": pa.array(rng.normal(size=n_rows), mask=missing),
            "country": pa.array(rng.choice(["DE", "FR", "US"], n_rows), mask=missing),
            "a.b": pa.array(np.arange(n_rows)),
        }
    )


def write_ipc_file(table, path, **options):
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=300)


def write_ipc_stream(table, path, **options):
    with pa.ipc.new_stream(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=300)


def with_categories(table):
    position = table.schema.get_field_index("country")
    return table.set_column(position, "country", table["country"].combine_chunks().dictionary_encode())


def json_lines(table):
    rows = table.to_pylist()
    return "".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows).encode()


def csv(table):
    return pl.from_arrow(table).write_csv(float_precision=None).encode()


WRITERS = {
    "file.arrow": write_ipc_file,
    "lz4.ipc": lambda table, path: write_ipc_file(table, path, compression="lz4"),
    "zstd.arrow": lambda table, path: write_ipc_file(table, path, compression="zstd"),
    "stream.arrow": write_ipc_stream,
    "zstd_stream.ipc": lambda table, path: write_ipc_stream(table, path, compression="zstd"),
    "pandas.feather": lambda table, path: feather.write_feather(table, path, compression="lz4", chunksize=300),
    "polars.arrow": lambda table, path: pl.from_arrow(table).write_ipc(path, compression="zstd"),
    "polars_stream.arrow": lambda table, path: pl.from_arrow(table).write_ipc_stream(path),
    "categories.arrow": lambda table, path: write_ipc_file(with_categories(table), path),
    "polars_categories.arrow": lambda table, path: (
        pl.from_arrow(table).cast({"country": pl.Categorical}).write_ipc(path)
    ),
    "text.csv": lambda table, path: Path(path).write_bytes(csv(table)),
    "TEXT.CSV": lambda table, path: Path(path).write_bytes(csv(table)),
    "text.tsv": lambda table, path: pl.from_arrow(table).write_csv(path, separator="\t"),
    "text.csv.gz": lambda table, path: Path(path).write_bytes(gzip.compress(csv(table))),
    "text.csv.zst": lambda table, path: Path(path).write_bytes(pa.compress(csv(table), "zstd", asbytes=True)),
    "lines.jsonl": lambda table, path: Path(path).write_bytes(json_lines(table)),
    "lines.ndjson": lambda table, path: pl.from_arrow(table).write_ndjson(path),
    "lines.jsonl.gz": lambda table, path: Path(path).write_bytes(gzip.compress(json_lines(table))),
}
IPC = [name for name in WRITERS if name.endswith((".arrow", ".ipc", ".feather"))]
TEXT = [name for name in WRITERS if name not in IPC]


@pytest.fixture(scope="module")
def table():
    return log_table()


@pytest.fixture(scope="module")
def expected(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "log.parquet"
    pq.write_table(table, path, row_group_size=700)
    return fl.evaluate(path, **REQUEST).to_dict()


def rows(source, columns, options=None):
    options = options or ReadOptions()
    found = {name: [] for name in columns}
    for index, task in enumerate(source.tasks(columns, options)):
        n_rows = 0
        for batch in task.read():
            assert batch.record_batch.schema.names == list(columns)
            assert 0 < batch.n_rows <= options.batch_rows
            n_rows += batch.n_rows
            for name in columns:
                found[name] += batch.record_batch.column(name).to_pylist()
        assert task.index == index
        assert task.n_rows in (None, n_rows)
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_any_format_gives_the_numbers_of_parquet(name, table, expected, tmp_path, capsys):
    WRITERS[name](table, tmp_path / name)
    found = fl.evaluate(tmp_path / name, **REQUEST).to_dict()
    assert found["values"] == expected["values"]
    assert found["rows"]["used"] == expected["rows"]["used"] < found["rows"]["read"] == 2000
    assert found["files"] == {"read": 1, "skipped": []}
    assert main(["eval", str(tmp_path / name), *OPTIONS, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"] == expected["values"]


@pytest.mark.parametrize("name", ["zstd.arrow", "stream.arrow", "text.csv", "lines.jsonl"])
def test_several_files_are_one_log(name, table, expected, tmp_path):
    for day, first in enumerate(range(0, 2000, 500)):
        (tmp_path / f"day={day}").mkdir()
        WRITERS[name](table.slice(first, 500), tmp_path / f"day={day}" / name)
    for log in (tmp_path, str(tmp_path / "*" / name), [str(tmp_path / f"day={day}") for day in range(4)]):
        found = fl.evaluate(log, **REQUEST).to_dict()
        assert found["values"] == expected["values"]
        assert found["files"]["read"] == 4
    columns = ["day", "click", "a.b"]
    found = rows(open_source(tmp_path, ReadOptions()), columns, ReadOptions(batch_rows=77))
    assert found["day"] == [day for day in range(4) for _ in range(500)]
    assert found["click"] == table["click"].to_pylist()
    assert found["a.b"] == list(range(2000))


@pytest.mark.parametrize("name", ["file.arrow", "stream.arrow", "text.csv", "lines.jsonl"])
def test_processes_read_the_files_too(name, table, expected, tmp_path):
    WRITERS[name](table, tmp_path / name)
    options = ReadOptions()
    (task, *_) = open_source(tmp_path, options).tasks(["click"], options)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        counts = pool.map(count_rows, [pickle.dumps(task)])
    assert counts == [300 if name == "file.arrow" else 2000]


def count_rows(sent):
    return sum(batch.n_rows for batch in pickle.loads(sent).read())


def test_a_record_batch_is_a_task(table, tmp_path):
    write_ipc_file(table, tmp_path / "a.arrow")
    write_ipc_file(table.slice(0, 0), tmp_path / "b.arrow")
    write_ipc_file(table.slice(0, 100), tmp_path / "c.arrow", compression="zstd")
    source = open_source(tmp_path, ReadOptions())
    tasks = list(source.tasks(["click", "score"], ReadOptions()))
    assert [(Path(task.origin).name, task.row_group, task.first_row, task.n_rows) for task in tasks] == [
        *(("a.arrow", number, 0, n_rows) for number, n_rows in enumerate([300] * 6 + [200])),
        ("c.arrow", 0, 0, 100),
    ]
    assert [sum(batch.n_rows for batch in task.read()) for task in tasks] == [task.n_rows for task in tasks]
    summary = source.summary(["click", "score"], ReadOptions())
    assert (summary.files, summary.row_groups, summary.rows) == (3, 8, 2100)
    assert summary.stored_bytes == sum(task.stored_bytes for task in tasks) >= 2100 * 16
    assert summary.largest_task_bytes == max(task.decoded_bytes for task in tasks)
    assert [Path(stamp.path).name for stamp in source.inputs(["click"])] == ["a.arrow", "b.arrow", "c.arrow"]


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_of_a_record_batch_only_what_is_read_is_loaded(tmp_path, compression):
    columns = {f"c{i}": np.random.default_rng(i).normal(size=50_000) for i in range(200)}
    write_ipc_file(pa.table(columns), tmp_path / "log.arrow", compression=compression)
    options = ReadOptions()
    source = open_source(tmp_path, options)
    tasks = list(source.tasks(["c7", "c150", "c3"], options))
    before = bytes_read()
    for task in tasks:
        assert [batch.record_batch.schema.names for batch in task.read()] == [["c7", "c150", "c3"]]
    # Each batch's metadata is read with it.
    assert bytes_read() - before < 3 * 50_000 * 8 + len(tasks) * 64_000
    assert (tmp_path / "log.arrow").stat().st_size > 200 * 50_000 * 7


def bytes_read():
    """What this process has read, as the system counts it."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize("name", ["text.csv", "lines.jsonl"])
def test_of_a_text_only_what_is_read_is_converted(name, table, tmp_path, monkeypatch):
    import fastloss.sources.text_files as text_files

    asked = []
    collect = text_files.collect

    def recorded(frame, columns):
        batches = list(collect(frame, columns))
        asked.append([batch.schema.names for batch in batches])
        return batches

    monkeypatch.setattr(text_files, "collect", recorded)
    WRITERS[name](table, tmp_path / name)
    rows(open_source(tmp_path, ReadOptions()), ["score", "click"])
    assert [names for batches in asked for names in batches] == [["score", "click"]] * sum(map(len, asked))


def test_a_batch_that_is_too_long_is_mapped_where_it_is_plain(tmp_path):
    table = pa.table({"x": np.arange(100_000.0), "k": ["a", "b"] * 50_000})
    options = ReadOptions(task_bytes=100_000)
    before = pa.default_memory_pool()
    for compression, is_mapped in ((None, True), ("zstd", False)):
        with pa.ipc.new_file(
            tmp_path / "log.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)
        ) as writer:
            writer.write_table(table)
        (task,) = open_source(tmp_path, options).tasks(["x", "k"], options)
        assert (task.decoded_bytes <= options.task_bytes) == is_mapped
        pool = pa.proxy_memory_pool(pa.system_memory_pool())
        pa.set_memory_pool(pool)
        try:
            found = [batch.record_batch.column("x").to_numpy().copy() for batch in task.read()]
        finally:
            pa.set_memory_pool(before)
        assert np.array_equal(np.concatenate(found), table["x"].to_numpy())
        assert pool.max_memory() <= task.decoded_bytes


@pytest.mark.parametrize("name", ["file.arrow", "zstd.arrow", "stream.arrow", "zstd_stream.ipc", "categories.arrow"])
def test_a_file_that_is_cut_off_is_a_read_error(name, table, tmp_path):
    WRITERS[name](table, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    ends = {*range(0, len(whole), len(whole) // 40), len(whole) - 1, len(whole) - 8, len(whole) - 16}
    if name == "stream.arrow":
        ends |= set(message_ends(tmp_path / name))
    for end in sorted(ends):
        (tmp_path / name).write_bytes(whole[:end])
        with pytest.raises(ReadError, match=name) as failure:
            rows(open_source(tmp_path / name, ReadOptions()), ["click", "score", "country"])
        assert "\n" not in str(failure.value)


def message_ends(path):
    """Where a stream may be cut so that all that is left is whole."""
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.MessageReader.open_stream(file)
        for _ in reader:
            yield file.tell()


def test_a_stream_that_another_was_appended_to_is_a_read_error(table, tmp_path):
    write_ipc_stream(table, tmp_path / "a.arrow")
    (tmp_path / "a.arrow").write_bytes(2 * (tmp_path / "a.arrow").read_bytes())
    with pytest.raises(ReadError, match=r"a\.arrow': more follows after its end at 2000 rows"):
        fl.evaluate(tmp_path, **REQUEST)


@pytest.mark.parametrize("name", ["file.arrow", "zstd.arrow", "stream.arrow", "categories.arrow", "polars.arrow"])
def test_a_damaged_file_gives_numbers_or_a_read_error_and_never_ends_the_process(name, table, tmp_path):
    WRITERS[name](table, tmp_path / name)
    whole = bytearray((tmp_path / name).read_bytes())
    rng = np.random.default_rng(0)
    failures = []
    for position in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        (tmp_path / name).write_bytes(damaged)
        try:
            fl.evaluate(tmp_path / name, **REQUEST, on_bad_row="drop")
        except fl.FastlossError as error:
            failures.append(str(error))
    assert len(failures) < 150
    assert not any("\n" in failure for failure in failures)


BAD = {
    "empty.arrow": (b"", "it is empty"),
    "text.arrow": (b"click,score\n", "it is no Arrow IPC file"),
    "old.feather": (b"FEA1\0\0\0\0", "it is Feather of version 1"),
    "empty.csv": (b"", "empty CSV"),
    "wide.csv": (b"click,score,country\n1,0.5,DE\n1,2,DE,more\n", "found more fields"),
    "late.csv": (
        b"click,score,country\n" + b"1,2,DE\n" * 10_000 + b"1,2.5,DE\n",
        r"could not parse `2\.5` as dtype `i64` at column 'score'.*pl\.scan_csv",
    ),
    "bytes.csv": (b"click,score,country\n1,0.5,\xff\xfe\n", "utf-8"),
    "cut.csv.gz": (
        gzip.compress(b"click,score,country\n" + os.urandom(9000).hex().encode())[:-2000],
        "unexpected end",
    ),
    "open.jsonl": (b'{"click":1,"score":0.5,"country":"DE"}\n{"click":1,\n', "Syntax"),
    "array.jsonl": (b"[1,2]\n", "object"),
    "late.jsonl": (
        b'{"click":1,"score":2,"country":"DE"}\n' * 10_000 + b'{"click":1,"score":"b","country":"DE"}\n',
        r"cannot parse 'b'.*pl\.scan_ndjson",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_in_a_line_and_can_be_skipped(name, table, tmp_path, capsys):
    content, message = BAD[name]
    good = f"z.{name.partition('.')[2]}"
    WRITERS["text." + good[2:] if "csv" in good else "lines." + good[2:] if "json" in good else "file.arrow"](
        table.slice(0, 100), tmp_path / good
    )
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ReadError, match=f"{name}.*{message}") as failure:
        fl.evaluate(tmp_path, **REQUEST)
    assert "\n" not in str(failure.value)
    assert main(["eval", str(tmp_path), *OPTIONS]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    found = fl.evaluate(tmp_path, **REQUEST, on_bad_file="skip").to_dict()
    assert found["values"] == fl.evaluate(tmp_path / good, **REQUEST).to_dict()["values"]
    assert [Path(skipped["file"]).name for skipped in found["files"]["skipped"]] == [name]


def test_files_of_several_formats_are_no_log(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pq.write_table(table, "a.parquet")
    write_ipc_file(table, "b.arrow")
    for log in (".", "*", ["b.arrow", "a.parquet"]):
        with pytest.raises(
            UsageError, match=r"Parquet files, such as '.*', and must be of one format|Arrow IPC files"
        ):
            open_source(log, ReadOptions())
    assert open_source("*.arrow", ReadOptions()).summary(["click"], ReadOptions()).rows == 2000
    # What is written beside the files of a log would be part of it.
    assert main(["eval", ".", *OPTIONS, "-o", "c.csv"]) == 2


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ("y\n1\n", "column 'x' is in '1.csv' and not in '2.csv'"),
        ("x\na\n", r"column 'x' has type double in '1.csv' and (large_)?string in '2.csv'"),
        ("x,x\n1,2\n", "column 'x' is in '2.csv' 2 times"),
    ],
)
def test_drift_between_files_is_found_before_a_row_is_read(later, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("1.csv").write_text("x,z\n0.5,1\n")
    Path("2.csv").write_text(later)
    with pytest.raises(SchemaError, match=message):
        open_source(["1.csv", "2.csv"], ReadOptions()).tasks(["x"], ReadOptions())


def test_columns_are_known_by_name_and_typed_by_the_values_there_are(tmp_path):
    (tmp_path / "1.csv").write_text("x,k,y\n0.5,a,\n,,\n")
    (tmp_path / "2.csv").write_text("k,y,x\n,,\n,3,\n")
    (tmp_path / "3.csv").write_text("y,x,k\n")
    (tmp_path / "4.csv").write_text("y,x,k\n7,2,b\n")
    source = open_source(tmp_path, ReadOptions())
    assert rows(source, ["k", "x"]) == {"k": ["a", None, None, None, "b"], "x": [0.5, None, None, None, 2]}
    assert rows(source, ["y"]) == {"y": [None, None, None, 3, 7]}


def test_lists_are_read_from_json_lines_and_arrow(tmp_path):
    lists = pa.table({"clicked": [[1, 0], [0, 1, 0]], "scores": [[0.5, 1.5], [0.25, -1.0, 2.0]]})
    request = {"label": "clicked", "logit": "scores", "metrics": ["categorical_crossentropy"]}
    expected = fl.evaluate(lists, **request).to_dict()["values"]
    write_ipc_file(lists, tmp_path / "a.arrow")
    (tmp_path / "b.jsonl").write_bytes(json_lines(lists))
    for name in ("a.arrow", "b.jsonl"):
        assert fl.evaluate(tmp_path / name, **request).to_dict()["values"] == expected


def test_wildcards_in_a_name_are_only_a_name(table, tmp_path):
    for name in ("log[1].csv", "log[1].jsonl", "log[1].arrow"):
        WRITERS[{".csv": "text.csv", ".jsonl": "lines.jsonl"}.get(Path(name).suffix, "file.arrow")](
            table, tmp_path / name
        )
        assert len(rows(open_source(tmp_path / name, ReadOptions()), ["click"])["click"]) == 2000


def test_a_file_that_changed_after_the_plan_is_a_read_error(table, tmp_path):
    for name in ("file.arrow", "text.csv"):
        WRITERS[name](table, tmp_path / name)
        (task, *_) = open_source(tmp_path / name, ReadOptions()).tasks(["click"], ReadOptions())
        WRITERS[name](table.slice(1), tmp_path / name)
        with pytest.raises(ReadError, match="changed after it was planned"):
            list(task.read())


def test_checksums_are_refused_where_there_are_none(table, tmp_path):
    write_ipc_file(table, tmp_path / "log.arrow")
    with pytest.raises(UsageError, match="Arrow IPC files have no checksums"):
        open_source(tmp_path, ReadOptions(verify_checksums=True))


@pytest.mark.parametrize("name", ["zstd.arrow", "stream.arrow", "text.csv.gz", "lines.jsonl"])
def test_rows_are_scored_file_by_file_to_parquet(name, table, tmp_path):
    (tmp_path / "log" / "day=1").mkdir(parents=True)
    WRITERS[name](table, tmp_path / "log" / "day=1" / name)
    pq.write_table(table, tmp_path / "log.parquet")
    request = {"label": "click", "logit": "score", "loss": "log_loss", "keep": ["a.b"]}
    fl.score(tmp_path / "log", tmp_path / "out", **request)
    fl.score(tmp_path / "log.parquet", tmp_path / "expected.parquet", **request)
    found = pq.read_table(tmp_path / "out" / "day=1" / f"{name.partition('.')[0]}.parquet", partitioning=None)
    assert found.equals(pq.read_table(tmp_path / "expected.parquet"))


def test_the_modules_of_formats_are_what_a_log_of_files_needs():
    from fastloss.sources.file_formats import FORMATS
    from fastloss.sources.file_log import reader_of

    for format in FORMATS[1:]:
        reader = reader_of(format.module)
        assert all(callable(getattr(reader, name)) for name in ("schema", "parts", "read"))
    assert arrow_ipc.READS_STORES


@pytest.mark.parametrize("name", ["zstd.arrow", "stream.arrow", "lines.jsonl"])
def test_fields_of_structs_are_columns(name, table, expected, tmp_path):
    event = pa.StructArray.from_arrays(
        [table[column].combine_chunks() for column in ("click", "score")], names=["click", "score"]
    )
    WRITERS[name](pa.table({"other": table["other"], "event": event, "country": table["country"]}), tmp_path / name)
    request = {**REQUEST, "label": "event.click", "logit": {"score": "event.score"}}
    assert fl.evaluate(tmp_path / name, **request).to_dict()["values"] == expected["values"]


@pytest.mark.parametrize("name", ["zstd.arrow", "text.csv"])
def test_a_filter_on_a_partition_key_leaves_files_unread(name, table, tmp_path):
    for day, first in enumerate(range(0, 2000, 500)):
        (tmp_path / f"day={day}").mkdir()
        WRITERS[name](table.slice(first, 500), tmp_path / f"day={day}" / name)
    found = fl.evaluate(tmp_path, **REQUEST, where="day = 2").to_dict()
    assert found["values"] == fl.evaluate(tmp_path / "day=2", **REQUEST).to_dict()["values"]
    assert found["files"]["read"] == 1


def test_a_plan_says_how_many_files_there_are(table, tmp_path, capsys):
    for name in ("a.csv", "b.csv"):
        WRITERS["text.csv"](table, tmp_path / name)
    assert main(["plan", str(tmp_path), *OPTIONS]) == 0
    assert "2 files, " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["zstd.arrow", "stream.arrow", "text.csv", "lines.jsonl"])
def test_a_column_that_files_lack_can_be_read_as_null(name, table, expected, tmp_path):
    WRITERS[name](table.drop_columns(["score"]), tmp_path / f"a{name}")
    WRITERS[name](table, tmp_path / f"b{name}")
    with pytest.raises(SchemaError, match=r"column 'score' is in .* and not in .*missing_columns='null'"):
        fl.evaluate(tmp_path, **REQUEST)
    found = fl.evaluate(tmp_path, **REQUEST, missing_columns="null").to_dict()
    assert found["values"] == expected["values"]
    assert found["rows"]["read"] == 4000
