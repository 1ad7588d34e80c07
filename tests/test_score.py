"""Scoring: the numbers of the losses themselves, one output for each input, and files that are whole or absent."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.cli import main
from fastloss.errors import DataError, ReadError, SchemaError, UsageError
from fastloss.sources.listing import list_files

ROOT = Path(__file__).parents[1]
BASE: dict[str, Any] = {"label": "click", "logit": "score", "loss": "log_loss"}
OPTIONS = ["--label", "click", "--logit", "score", "--loss", "log_loss"]
VALUES = ["loss", "gradient", "hessian"]


def make_table(n_rows: int = 5_000, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    return pa.table(
        {
            "user": [f"user {i}" for i in random.integers(0, 300, n_rows)],
            "click": pa.array(random.integers(0, 2, n_rows).astype(np.int8), mask=random.random(n_rows) < 0.01),
            "score": pa.array(random.normal(-1, 3, n_rows).astype(np.float32), mask=random.random(n_rows) < 0.01),
            "item": random.integers(0, 2**40, n_rows),
        }
    )


def read(path: Path) -> pa.Table:
    """Read one file, without taking folders of its path for partition keys."""
    return pq.ParquetFile(path).read()


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a folder of four files in hive folders, with row groups of 1,000 and 1,500 rows."""
    for day in (1, 2):
        (tmp_path / f"log/day={day}").mkdir(parents=True)
        for name, size in (("a", 1_000), ("b", 1_500)):
            table = make_table(seed=10 * day + size)
            pq.write_table(table, tmp_path / f"log/day={day}/{name}.parquet", row_group_size=size)
    return tmp_path / "log"


def relative_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------------------------
# Numbers


@pytest.mark.parametrize(
    ("loss", "space"),
    [
        (fl.losses.BinaryCrossentropy(), "logit"),
        (fl.losses.BinaryCrossentropy(label_smoothing=0.1), "prob"),
        (fl.losses.Hinge(label_domain="pm1"), "margin"),
        (fl.losses.MeanSquaredError(), "value"),
    ],
    ids=lambda given: getattr(given, "name", given),
)
def test_values_are_those_of_the_loss(tmp_path: Path, loss: Any, space: str) -> None:
    random = np.random.default_rng(1)
    prediction = random.random(2_000) if space == "prob" else random.normal(0, 20, 2_000)
    if space == "prob":
        prediction[:3] = 0.0, 1.0, 1e-15
    label = random.integers(0, 2, 2_000) * (2 if space == "margin" else 1) - (1 if space == "margin" else 0)
    table = pa.table({"y": label, "x": prediction})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=700)
    fl.score(tmp_path / "log.parquet", tmp_path / "out.parquet", label="y", loss=loss, **{space: "x"})
    out = read(tmp_path / "out.parquet")
    gradient, hessian = loss.gradient_hessian(label, **{space: prediction})
    assert out.schema == pa.schema([(name, pa.float64()) for name in VALUES])
    for name, expected in zip(VALUES, (loss(label, **{space: prediction}), gradient, hessian), strict=True):
        assert out[name].null_count == 0
        assert out[name].to_numpy().tobytes() == expected.tobytes(), name


def test_labels_minus_one_and_one(tmp_path: Path) -> None:
    table = make_table()
    signed = table.set_column(
        1, "click", pa.array([None if y is None else 2 * y - 1 for y in table["click"].to_pylist()])
    )
    fl.score(table, tmp_path / "plain.parquet", **BASE)
    fl.score(signed, tmp_path / "signed.parquet", **BASE, label_domain="pm1")
    assert read(tmp_path / "plain.parquet").equals(read(tmp_path / "signed.parquet"))


@pytest.mark.parametrize(
    "execution",
    [
        {"threads": 1},
        {"threads": 7, "memory": "1GB"},
        {"batch_rows": 7},
        {"batch_rows": 1_000_001, "memory": "2GB"},
        {"reader": "polars"},
        {"compression": "none"},
    ],
    ids=str,
)
def test_no_value_depends_on_the_execution(log: Path, tmp_path: Path, execution: dict[str, Any]) -> None:
    fl.score(log, tmp_path / "expected", **BASE, keep=["user", "item"])
    fl.score(log, tmp_path / "out", **BASE, keep=["user", "item"], **execution)
    assert relative_files(tmp_path / "out") == relative_files(log)
    for name in relative_files(log):
        found = read(tmp_path / "out" / name)
        assert found.cast(read(tmp_path / "expected" / name).schema).equals(read(tmp_path / "expected" / name))
        groups = pq.ParquetFile(tmp_path / "out" / name).metadata, pq.ParquetFile(log / name).metadata
        sizes = [[m.row_group(i).num_rows for i in range(m.num_row_groups)] for m in groups]
        assert sizes[0] == sizes[1]


def test_a_row_group_larger_than_the_memory_is_written_in_pieces(tmp_path: Path) -> None:
    table = make_table(1_000).select(["user", "click", "score"]).take(np.arange(1_000_000) % 1_000)
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=1_000_000, compression="none")
    fl.score(tmp_path / "log.parquet", tmp_path / "out.parquet", **BASE, keep="user", memory="184MiB", threads=1)
    out = pq.ParquetFile(tmp_path / "out.parquet")
    assert out.metadata.num_row_groups > 2
    fl.score(table, tmp_path / "expected.parquet", **BASE, keep="user")
    assert out.read().equals(read(tmp_path / "expected.parquet"))


def test_frames_and_streams_are_logs(tmp_path: Path) -> None:
    table = make_table()
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=1_000)
    fl.score(tmp_path / "log.parquet", tmp_path / "expected.parquet", **BASE, keep="item")
    expected = read(tmp_path / "expected.parquet")
    frame = pl.DataFrame(table)
    for number, given in enumerate([table, table.to_reader(700), frame, frame.lazy()]):
        fl.score(given, tmp_path / f"{number}.parquet", **BASE, keep="item")
        assert read(tmp_path / f"{number}.parquet").equals(expected)


# ---------------------------------------------------------------------------------------------------------------
# Rows that have no loss


def test_rows_without_a_loss_keep_their_place(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": range(7),
            "click": pa.array([1, None, 0, 1, 2, 1, 0], pa.float64()),
            "p": pa.array([0.5, 0.5, None, float("nan"), 0.5, 1.5, 1.0]),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    request: dict[str, Any] = {"label": "click", "prob": "p", "loss": "log_loss", "keep": "n"}
    with pytest.raises(DataError, match=r"row group 0, row 3: .* column 'p' is nan.* 3 bad rows"):
        fl.score(tmp_path / "log.parquet", tmp_path / "out.parquet", **request)
    assert relative_files(tmp_path) == ["log.parquet"]
    scored = fl.score(tmp_path / "log.parquet", tmp_path / "out.parquet", **request, on_bad_row="drop")
    rows = read(tmp_path / "out.parquet").to_pylist()
    assert [row["n"] for row in rows] == list(range(7))
    assert [row["loss"] is not None for row in rows] == [True, *[False] * 5, True]
    assert all((row["loss"] is None) == (row[name] is None) for row in rows for name in VALUES)
    assert rows[6]["loss"] == pytest.approx(-np.log(1e-12))
    counts = {(entry["cause"], entry["column"]): entry["rows"] for entry in scored.rows["dropped"]}
    assert counts == {
        ("null_label", "click"): 1,
        ("null_prediction", "p"): 1,
        ("nan", "p"): 1,
        ("outside_domain", "click"): 1,
        ("outside_domain", "p"): 1,
    }
    assert (scored.rows["read"], scored.rows["scored"], scored.rows["saturated"]) == (7, 2, 1)
    assert "2 of 7 rows scored" in str(scored)
    assert "1 row without a loss: nan in column 'p', first at" in str(scored)


def test_saturation(tmp_path: Path) -> None:
    table = pa.table({"y": [1, 0, 1], "p": [0.0, 0.0, 0.5]})
    request: dict[str, Any] = {"label": "y", "prob": "p", "loss": "log_loss"}
    fl.score(table, tmp_path / "exact.parquet", **request, saturation="exact")
    assert read(tmp_path / "exact.parquet")["loss"].to_pylist()[:2] == [float("inf"), 0.0]
    with pytest.raises(DataError, match="<stream>, row 0: column 'p' rules out an outcome that happened"):
        fl.score(table, tmp_path / "error.parquet", **request, saturation="error")
    assert relative_files(tmp_path) == ["exact.parquet"]


def test_counts_are_those_of_evaluate(log: Path, tmp_path: Path) -> None:
    scored = fl.score(log, tmp_path / "out", **BASE)
    result = fl.evaluate(log, label="click", logit="score", metrics="log_loss")
    assert scored.rows["dropped"] == result.rows["dropped"]
    assert (scored.rows["read"], scored.rows["scored"]) == (result.rows["read"], result.rows["used"])


# ---------------------------------------------------------------------------------------------------------------
# Columns that are kept


def test_kept_columns_are_what_they_were(tmp_path: Path) -> None:
    n_rows = 3_000
    numbers = list(range(n_rows))
    columns = {
        "text": pa.array([None if i % 7 == 0 else f"text {i % 50}" for i in numbers]),
        "large": pa.array([f"large {i}" for i in numbers], pa.large_string()),
        "category": pa.array([f"c{i % 5}" for i in numbers]).dictionary_encode(),
        "list": pa.array([None if i % 11 == 0 else [i, None] for i in numbers], pa.list_(pa.int32())),
        "struct": pa.array([{"x": i, "y": f"y{i % 3}"} for i in numbers]),
        "when": pa.array(numbers, pa.timestamp("us", "Europe/Berlin")),
        "price": pa.array([f"{i}.25" for i in numbers]).cast(pa.decimal128(12, 2)),
        "flag": pa.array([i % 2 == 0 for i in numbers]),
        "nan": pa.array([float("nan") if i % 2 else -0.0 for i in numbers]),
        "odd.name=1": pa.array(numbers, pa.uint16()),
    }
    table = pa.table({"click": [i % 2 for i in numbers], "score": np.linspace(-2, 2, n_rows), **columns})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=1_100)
    fl.score(tmp_path / "log.parquet", tmp_path / "out.parquet", **BASE, keep=[*columns, "score", "click", "text"])
    out = read(tmp_path / "out.parquet")
    assert out.column_names == [*columns, "score", "click", *VALUES]
    kept = table.select(out.column_names[:-3])
    assert out.select(kept.column_names).schema.equals(kept.schema)
    for name in kept.column_names:
        same = out[name].to_pylist() == kept[name].to_pylist()
        assert same or (name == "nan" and out[name].to_numpy().tobytes() == kept[name].to_numpy().tobytes()), name
    fl.score(table, tmp_path / "stream.parquet", **BASE, keep=list(columns))
    assert read(tmp_path / "stream.parquet").select(list(columns)).schema.equals(table.select(list(columns)).schema)
    assert pl.read_parquet(tmp_path / "out.parquet")["text"].to_list() == table["text"].to_pylist()


def test_a_dictionary_that_changes_within_a_row_group(tmp_path: Path) -> None:
    table = make_table(40_000)
    chunks = [
        table.slice(i * 20_000, 20_000)
        .set_column(0, "user", pa.array([f"{i} {j % 9}" for j in range(20_000)]))
        .select(["user", "click", "score"])
        for i in range(2)
    ]
    coded = [chunk.set_column(0, "user", chunk["user"].dictionary_encode()) for chunk in chunks]
    fl.score(pa.concat_tables(coded), tmp_path / "out.parquet", **BASE, keep="user")
    out = pq.ParquetFile(tmp_path / "out.parquet")
    assert out.metadata.num_row_groups == 1
    assert out.read()["user"].to_pylist() == pa.concat_tables(chunks)["user"].to_pylist()


def test_partition_keys_and_files_of_several_widths(log: Path, tmp_path: Path) -> None:
    wide = read(log / "day=2/b.parquet").cast(
        pa.schema(
            [("user", pa.large_string()), ("click", pa.float64()), ("score", pa.float64()), ("item", pa.int64())]
        )
    )
    pq.write_table(wide, log / "day=2/b.parquet", row_group_size=900)
    fl.score(log, tmp_path / "out", **BASE, keep=["day", "user", "score"])
    for name in relative_files(log):
        out, given = read(tmp_path / "out" / name), read(log / name)
        assert out["day"].to_pylist() == [int(name[4])] * len(given)
        assert out["day"].type == pa.int64()
        assert out["user"].cast(pa.large_string()).equals(given["user"].cast(pa.large_string()))
        assert out["score"].equals(given["score"])


@pytest.mark.parametrize(
    ("keep", "error", "message"),
    [
        (["user", "loss"], UsageError, "one of that name already"),
        (["usr"], SchemaError, "Did you mean 'user'"),
        ([1], UsageError, "keep holds 1"),
    ],
)
def test_columns_that_cannot_be_kept(
    log: Path, tmp_path: Path, keep: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fl.score(log, tmp_path / "out", **BASE, keep=keep)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------------
# Where outputs go


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        (["log"], ["2024/x/a.parquet", "day=1/a.parquet", "day=1/b.parquet", "day=2/a.parquet"]),
        (["log/day=1"], ["day=1/a.parquet", "day=1/b.parquet"]),
        (["log/day=*"], ["day=1/a.parquet", "day=1/b.parquet", "day=2/a.parquet"]),
        (["./log/**/a.parquet"], ["2024/x/a.parquet", "day=1/a.parquet", "day=2/a.parquet"]),
        (["log/day=1/a.parquet", "log/day=2/a.parquet"], ["day=1/a.parquet", "day=2/a.parquet"]),
        (["log/2024/x/a.parquet", "log/day=2/a.parquet"], ["2024/x/a.parquet", "day=2/a.parquet"]),
        (["log/2024/x/a.parquet"], ["a.parquet"]),
        (["log/2024"], ["x/a.parquet"]),
        (["log/day=2/../2024/x"], ["a.parquet"]),
    ],
    ids=str,
)
def test_names_of_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: list[str], names: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("day=1/a", "day=1/b", "day=2/a", "2024/x/a"):
        path = tmp_path / f"log/{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(make_table(50), path)
    fl.score(entries, "out", **BASE)
    assert relative_files(tmp_path / "out") == names


def test_a_key_that_is_no_plain_name_is_encoded(tmp_path: Path) -> None:
    keys = ["k=..", "k=.", "k=a\\b", "k=a\tb", "k=%2F..", "k=a..b"]
    for key in keys:
        (tmp_path / "log" / key).mkdir(parents=True)
        pq.write_table(make_table(50), tmp_path / "log" / key / "a.parquet")
    fl.score(tmp_path / "log", tmp_path / "out", **BASE, keep="k")
    written = ["k=%2E%2E", "k=%2E", "k=a%5Cb", "k=a%09b", "k=%2F..", "k=a..b"]
    assert sorted(os.listdir(tmp_path / "out")) == sorted(written)
    for folder, value in zip(written, ["..", ".", "a\\b", "a\tb", "/..", "a..b"], strict=True):
        assert set(read(tmp_path / "out" / folder / "a.parquet")["k"].to_pylist()) == {value}
    # The names say what they said: the outputs are a log with the same keys.
    listed = {file.keys for file in list_files([str(tmp_path / "out")])}
    assert listed == {file.keys for file in list_files([str(tmp_path / "log")])}


def test_outputs_that_would_be_one_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pq.write_table(make_table(50), tmp_path / name / "a.parquet")
    with pytest.raises(UsageError, match="both be written to"):
        fl.score([tmp_path / "one", tmp_path / "two"], tmp_path / "out", **BASE)
    fl.score([tmp_path / "one/a.parquet", tmp_path / "two/a.parquet"], tmp_path / "out", **BASE)
    assert relative_files(tmp_path / "out") == ["one/a.parquet", "two/a.parquet"]


def test_an_empty_file_has_an_empty_output(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    pq.write_table(make_table(50), tmp_path / "log/a.parquet")
    pq.ParquetWriter(tmp_path / "log/b.parquet", make_table(1).schema).close()
    fl.score(tmp_path / "log", tmp_path / "out", **BASE, keep="user")
    empty, full = read(tmp_path / "out/b.parquet"), read(tmp_path / "out/a.parquet")
    assert (len(empty), empty.schema) == (0, full.schema)


def test_an_output_never_takes_the_place_of_the_log(log: Path, tmp_path: Path) -> None:
    file = log / "day=1/a.parquet"
    os.link(file, tmp_path / "linked.parquet")
    (tmp_path / "pointing.parquet").symlink_to(file)
    for target in (file, tmp_path / "linked.parquet", tmp_path / "pointing.parquet"):
        with pytest.raises(UsageError, match="is the log's own file"):
            fl.score(file, target, **BASE, overwrite=True)
    # A file that is skipped is an input too.
    broken = log / "day=2/b.parquet"
    broken.write_bytes(b"no Parquet")
    with pytest.raises(UsageError, match="is the log's own file"):
        fl.score([file, broken], broken, **BASE, top=3, on_bad_file="skip", overwrite=True)
    with pytest.raises(UsageError, match="is the log's own file"):
        fl.score([log / "day=1", log / "day=2"], tmp_path / "log", **BASE, on_bad_file="skip", overwrite=True)
    assert broken.read_bytes() == b"no Parquet"
    broken.unlink()
    # A folder that begins with _ is part of a log if it is a partition.
    for target in (log, log / "scored", log / "day=1/top.parquet", log / "_k=1"):
        with pytest.raises(UsageError, match="lies in the log's folder"):
            fl.score(log, target, **BASE)
    # Hidden folders are no part of a log.
    fl.score(log, log / "_scored", **BASE)
    fl.score(log, log / "_scored", **BASE)
    # What a glob finds of an earlier run's outputs is no log.
    fl.score(str(log / "day=*/*.parquet"), log / "more", **BASE, keep=["click", "score"])
    with pytest.raises(UsageError, match="is itself an output of scoring"):
        fl.score(str(log / "**/*.parquet"), log / "more", **BASE, keep=["click", "score"])


def test_targets_that_do_not_suit(log: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "folder.parquet").mkdir()
    refused: list[tuple[object, str, str]] = [
        (log, "file", "is a file"),
        (log, "file/below", "which is a file"),
        (log, "out.parquet", "looks like a file"),
        (log / "day=1/a.parquet", "missing/out.parquet", "does not exist"),
        (make_table(10), "folder.parquet", "is a folder"),
    ]
    for given, target, message in refused:
        with pytest.raises(UsageError, match=message):
            fl.score(given, tmp_path / target, **BASE)
    with pytest.raises(UsageError, match="of this machine"):
        fl.score(log, "s3://bucket/out", **BASE)
    fl.score(log / "day=1/a.parquet", tmp_path / "folder.parquet", **BASE)
    assert relative_files(tmp_path / "folder.parquet") == ["day=1/a.parquet"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"loss": "normalized_entropy"}, "no value of a single row"),
        ({"loss": "log_los"}, "Did you mean 'log_loss'"),
        ({"loss": "mean_squared_error"}, "the prediction 'score' was declared logit="),
        ({"logit": None}, "takes one prediction column, as logit= or .* got none"),
        ({"prob": "score"}, "got logit='score', prob='score'"),
        ({"top": 0}, "top is 0"),
        ({"top": 10**9}, "too many rows"),
        ({"compression": "zip"}, "compression is 'zip'"),
    ],
)
def test_requests_that_cannot_be_carried_out(
    log: Path, tmp_path: Path, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        fl.score(log, tmp_path / "out", **{**BASE, **request_})


# ---------------------------------------------------------------------------------------------------------------
# What exists


def test_a_second_run_does_what_is_left(log: Path, tmp_path: Path) -> None:
    first = fl.score(log, tmp_path / "out", **BASE, keep="user")
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in relative_files(log)}
    (tmp_path / "out/day=2/a.parquet").unlink()
    seen: list[fl.Progress] = []
    second = fl.score(log, tmp_path / "out", **BASE, keep="user", progress=seen.append)
    assert second.files["written"] == [str(tmp_path / "out/day=2/a.parquet")]
    assert len(second.files["complete"]) == 3
    assert second.rows == first.rows
    assert seen[-1].rows == seen[-1].total_rows == 20_000
    assert seen[-1].stored_bytes == seen[-1].total_bytes
    same = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in relative_files(log)}
    assert [name for name in times if times[name] != same[name]] == ["day=2/a.parquet"]


def test_the_first_row_without_a_loss_is_the_logs_first_in_whatever_order_files_are_scored(
    log: Path, tmp_path: Path
) -> None:
    first = fl.score(log, tmp_path / "out", **BASE)
    assert all("day=1/a.parquet" in entry["first"] for entry in first.rows["dropped"])
    (tmp_path / "out/day=1/a.parquet").unlink()
    assert fl.score(log, tmp_path / "out", **BASE).rows == first.rows


def test_another_request_or_input_does_not_resume(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fl.score(log, out, **BASE)
    changes: list[dict[str, Any]] = [
        {"loss": "log_loss(label_smoothing=0.1)"},
        {"keep": "user"},
        {"saturation": "exact"},
        {"on_bad_row": "drop"},
        {"compression": "snappy"},
    ]
    before = {name: (out / name).read_bytes() for name in relative_files(out)}
    for change in changes:
        with pytest.raises(UsageError, match="from another request, another version of the log"):
            fl.score(log, out, **{**BASE, **change})
    table = read(log / "day=1/b.parquet")
    pq.write_table(table.slice(1), log / "day=1/b.parquet")
    with pytest.raises(UsageError, match=r"day=1/b\.parquet' exists, from another request"):
        fl.score(log, out, **BASE)
    assert {name: (out / name).read_bytes() for name in relative_files(out)} == before
    fl.score(log, out, **BASE, overwrite=True)
    assert len(read(out / "day=1/b.parquet")) == len(table) - 1


def test_overwriting_names_what_stays_from_other_runs(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert fl.score(log, out, **BASE).files["others"] == []
    (log / "day=1/b.parquet").unlink()
    (log / "day=2/a.parquet").rename(log / "day=2/c.parquet")
    pq.write_table(make_table(10), out / "no output.parquet")
    options = {**BASE, "loss": "log_loss(label_smoothing=0.1)"}
    scored = fl.score(log, out, **options, overwrite=True)
    others = [str(out / "day=1/b.parquet"), str(out / "day=2/a.parquet")]
    assert scored.files["others"] == others
    assert f"2 outputs of other runs are left in the folder, the first {others[0]!r}" in str(scored)
    assert main(["score", str(log), str(out), *OPTIONS, "--overwrite"]) == 0
    assert "fastloss: 2 outputs of other runs are left in the folder" in capsys.readouterr().err
    for path in others:
        os.unlink(path)
    scored = fl.score(log, out, **options, overwrite=True)
    assert scored.files["others"] == []
    assert "other runs" not in str(scored)


def test_a_file_of_somebody_else_is_not_replaced(log: Path, tmp_path: Path) -> None:
    for content in (b"text", b"", (log / "day=1/b.parquet").read_bytes()):
        (tmp_path / "out.parquet").write_bytes(content)
        with pytest.raises(UsageError, match="exists and is no output of scoring"):
            fl.score(log / "day=1/a.parquet", tmp_path / "out.parquet", **BASE)
        assert (tmp_path / "out.parquet").read_bytes() == content
    fl.score(log / "day=1/a.parquet", tmp_path / "out.parquet", **BASE, overwrite=True)
    assert len(read(tmp_path / "out.parquet")) == 5_000
    fl.score(make_table(10), tmp_path / "stream.parquet", **BASE)
    with pytest.raises(UsageError, match="exists, from another request"):
        fl.score(make_table(10), tmp_path / "stream.parquet", **BASE)


# ---------------------------------------------------------------------------------------------------------------
# Runs that are stopped

KILLED = """
import os, random, signal, sys, threading
import fastloss as fl
seed, log, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
chance = random.Random(seed)
calls, last, delay = 0, chance.randrange(16), chance.uniform(0, 0.004)
def progress(done):
    global calls
    calls += 1
    if calls > last:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
fl.score(log, out, label="click", logit="score", loss="log_loss", keep="user", threads=2, progress=progress)
signal.pause()
"""


def child(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, check=False, **options
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_run_resumes(log: Path, tmp_path: Path, seed: int) -> None:
    fl.score(log, tmp_path / "expected", **BASE, keep="user")
    killed = child("-c", KILLED, seed, log, tmp_path / "out")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = sorted((tmp_path / "out").rglob("*.parquet"))
    for path in finished:
        assert read(path).equals(read(tmp_path / "expected" / path.relative_to(tmp_path / "out")))
    scored = fl.score(log, tmp_path / "out", **BASE, keep="user")
    assert scored.files["complete"] == sorted(map(str, finished))
    assert relative_files(tmp_path / "out") == relative_files(tmp_path / "expected")
    for name in relative_files(tmp_path / "expected"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_interrupted_run_leaves_whole_files(
    log: Path, tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(done: fl.Progress) -> None:
        if done.rows > 6_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fl.score(log, tmp_path / "out", **BASE, threads=threads, progress=interrupt)
    assert parts(tmp_path) == []
    finished = relative_files(tmp_path / "out")
    if threads == 1:
        assert finished == ["day=1/a.parquet"]
    scored = fl.score(log, tmp_path / "out", **BASE)
    assert len(scored.files["complete"]) == len(finished)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastloss.api.run_score", interrupted)
    assert main(["score", str(log), str(tmp_path / "out"), *OPTIONS]) == 130
    assert capsys.readouterr().err == "fastloss: interrupted\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_signal_leaves_no_hidden_file(log: Path, tmp_path: Path, number: signal.Signals, threads: int) -> None:
    table = make_table(400_000)
    for day in (1, 2):
        pq.write_table(table, log / f"day={day}/large.parquet", row_group_size=20_000)
    words = ["-m", "fastloss", "score", log, tmp_path / "out", *OPTIONS, "--keep", "user,item", "--threads", threads]
    # What the runner of the tests ignores, as under nohup, its children would ignore too.
    kept = signal.signal(number, signal.SIG_DFL)
    running = subprocess.Popen(
        [sys.executable, *map(str, words), "--compression", "gzip"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(number, kept)
    while not any("large" in path.name for path in parts(tmp_path)):
        assert running.poll() is None
        time.sleep(0.001)
    running.send_signal(number)
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (128 + number, "fastloss: interrupted\n")
    assert parts(tmp_path) == []


def test_the_error_is_that_of_the_first_file(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    for number in range(8):
        table = make_table(2_000, number)
        if number >= 3:
            table = table.set_column(2, "score", pa.array([0.0] * 1_999 + [float("nan")]))
        pq.write_table(table, tmp_path / f"log/{number}.parquet", row_group_size=500)
    for threads in (1, 4):
        with pytest.raises(DataError, match=r"log/3\.parquet, row group 3, row 499"):
            fl.score(tmp_path / "log", tmp_path / f"out{threads}", **BASE, threads=threads)
        assert relative_files(tmp_path / f"out{threads}") == ["0.parquet", "1.parquet", "2.parquet"]


def test_a_full_disk(log: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    run = child("-m", "fastloss", "score", log, tmp_path / "out", *OPTIONS, "--threads", "1", preexec_fn=limit)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr == f"fastloss: File too large: '{tmp_path}/out/day=1/a.parquet'\n"
    assert relative_files(tmp_path / "out") == []


def test_a_disk_that_fills_up(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    write_table = pq.ParquetWriter.write_table

    def write_some(self: pq.ParquetWriter, *arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise OSError(errno.ENOSPC, "Error writing bytes to file")
        write_table(self, *arguments, **options)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write_some)
    with pytest.raises(OSError, match="No space left on device") as raised:
        fl.score(log, tmp_path / "out", **BASE, threads=1)
    assert raised.value.filename == str(tmp_path / "out/day=1/b.parquet")
    assert relative_files(tmp_path / "out") == ["day=1/a.parquet"]
    assert len(fl.score(log, tmp_path / "out", **BASE).files["complete"]) == 1


def test_two_runs_do_not_write_one_file(log: Path, tmp_path: Path) -> None:
    with (tmp_path / ".out.parquet.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="being written by another process"):
            fl.score(log / "day=1/a.parquet", tmp_path / "out.parquet", **BASE)
    fl.score(log / "day=1/a.parquet", tmp_path / "out.parquet", **BASE)
    assert parts(tmp_path) == []


def damage(path: Path) -> None:
    """Overwrite the predictions of the first row group."""
    begin = pq.ParquetFile(path).metadata.row_group(0).column(2).dictionary_page_offset
    content = bytearray(path.read_bytes())
    content[begin : begin + 100] = b"\xff" * 100
    path.write_bytes(content)


def test_a_file_that_cannot_be_read(log: Path, tmp_path: Path) -> None:
    damage(log / "day=1/b.parquet")
    (log / "day=2/c.parquet").write_bytes(b"PAR1")
    with pytest.raises(ReadError, match=r"c\.parquet"):
        fl.score(log, tmp_path / "out", **BASE)
    assert not (tmp_path / "out").exists()
    scored = fl.score(log, tmp_path / "out", **BASE, on_bad_file="skip")
    assert relative_files(tmp_path / "out") == ["day=1/a.parquet", "day=2/a.parquet", "day=2/b.parquet"]
    assert [entry["file"] for entry in scored.files["skipped"]] == [
        str(log / "day=1/b.parquet"),
        str(log / "day=2/c.parquet"),
    ]
    assert scored.rows["read"] == 15_000
    assert str(scored).count("skipped: ") == 2


def test_a_file_that_changes_meanwhile(log: Path, tmp_path: Path) -> None:
    file = log / "day=1/a.parquet"

    def touch(done: fl.Progress) -> None:
        if done.rows == 5_000:
            os.utime(file, ns=(1, 1))

    with pytest.raises(ReadError, match="changed while it was scored"):
        fl.score(file, tmp_path / "out.parquet", **BASE, progress=touch)
    assert not (tmp_path / "out.parquet").exists()
    assert parts(tmp_path) == []


# ---------------------------------------------------------------------------------------------------------------
# The hardest rows


def tied(log: Path) -> None:
    """Round the log's predictions, so that many losses are equal, and make one infinite."""
    for path in sorted(log.rglob("*.parquet")):
        table = read(path)
        score = [None if x is None else round(x) / 1.0 for x in table["score"].to_pylist()]
        if path.match("day=2/b.parquet"):
            score[7], score[4_000] = float("inf"), float("-inf")
        pq.write_table(table.set_column(2, "score", pa.array(score)), path, row_group_size=1_500)


def slow_top(log: Path, n_rows: int) -> list[dict[str, Any]]:
    rows = []
    for path in sorted(log.rglob("*.parquet")):
        table = read(path)
        label = table["click"].cast(pa.float64()).to_numpy(zero_copy_only=False)
        score = table["score"].to_numpy(zero_copy_only=False)
        loss = fl.losses.BinaryCrossentropy()(label, logit=score).tolist()
        rows += [
            {"user": user, "loss": value, "file": str(path), "row_group": i // 1_500, "row": i % 1_500}
            for i, (user, value) in enumerate(zip(table["user"].to_pylist(), loss, strict=True))
            if value == value
        ]
    # A stable sort: of equal losses, the earlier row comes first.
    return sorted(rows, key=lambda row: -row["loss"])[:n_rows]


@pytest.mark.parametrize(
    ("n_rows", "execution"),
    [(1, {"threads": 2}), (100, {"threads": 1}), (100, {"threads": 5, "batch_rows": 64, "memory": "1GB"}),
     (3_000, {"threads": 3}), (200_000, {"threads": 2})],
)  # fmt: skip
def test_top_is_the_head_of_the_sorted_log(log: Path, tmp_path: Path, n_rows: int, execution: dict[str, Any]) -> None:
    tied(log)
    fl.score(log, tmp_path / "top.parquet", **BASE, keep="user", top=n_rows, **execution)
    out = read(tmp_path / "top.parquet")
    assert out.column_names == ["user", *VALUES, "file", "row_group", "row"]
    assert out.drop_columns(["gradient", "hessian"]).to_pylist() == slow_top(log, n_rows)


def test_top_of_streams_and_of_nothing(log: Path, tmp_path: Path) -> None:
    table = pa.concat_tables([make_table(30_000), make_table(30_000)])
    fl.score(table, tmp_path / "top.parquet", **BASE, keep="item", top=10)
    rows = read(tmp_path / "top.parquet").to_pylist()
    assert [row["file"] for row in rows] == ["<stream>"] * 10
    assert {row["row_group"] for row in rows} == {None}
    places = [row["row"] for row in rows]
    assert places[1::2] == [place + 30_000 for place in places[::2]]
    assert table["item"].take(places).to_pylist() == [row["item"] for row in rows]
    fl.score(table.slice(0, 0), tmp_path / "none.parquet", **BASE, keep="item", top=10)
    assert read(tmp_path / "none.parquet").schema.equals(read(tmp_path / "top.parquet").schema)
    with pytest.raises(UsageError, match="one of that name already"):
        fl.score(table, tmp_path / "x.parquet", **BASE, keep="row", top=1)
    with pytest.raises(UsageError, match="is a folder, and there is one file to write"):
        fl.score(log, tmp_path, **BASE, top=1)


def test_top_resumes_and_skips(log: Path, tmp_path: Path) -> None:
    request: dict[str, Any] = {**BASE, "top": 20}
    first = fl.score(log, tmp_path / "top.parquet", **request)
    again = fl.score(log, tmp_path / "top.parquet", **request)
    complete = [str(tmp_path / "top.parquet")]
    assert again.files == {"written": [], "complete": complete, "others": [], "skipped": []}
    assert again.rows == first.rows
    damage(log / "day=1/b.parquet")
    with pytest.raises(UsageError, match="from another request"):
        fl.score(log, tmp_path / "top.parquet", **request)
    skipped = fl.score(log, tmp_path / "top.parquet", **request, on_bad_file="skip", overwrite=True).files["skipped"]
    assert [(entry["file"], entry["row_group"]) for entry in skipped] == [(str(log / "day=1/b.parquet"), 0)]


@pytest.mark.parametrize("name", ["top.csv", "top", "top.json"])
def test_rows_of_the_largest_losses_are_parquet_by_name_too(tmp_path: Path, name: str) -> None:
    table = pa.table({"click": [0, 1], "score": [0.5, -0.5]})
    request: dict[str, Any] = {"label": "click", "logit": "score", "loss": "log_loss"}
    with pytest.raises(
        UsageError, match=rf"{name}' would hold Parquet; give it a name in \.parquet or \.parq or \.pq"
    ):
        fl.score(table, tmp_path / name, **request, top=1)
    with pytest.raises(UsageError, match="would hold Parquet"):
        fl.score(table, tmp_path / name, **request)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------------
# The command


def test_the_command(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", str(log), str(tmp_path / "out"), *OPTIONS, "--keep", "user,item", "--keep", "day"]
    assert main(words) == 0
    captured = capsys.readouterr()
    fl.score(log, tmp_path / "expected", **BASE, keep=["user", "item", "day"])
    for name in relative_files(log):
        assert read(tmp_path / "out" / name).equals(read(tmp_path / "expected" / name))
    assert captured.out == ""
    assert captured.err.startswith("fastloss: 19,")
    assert "of 20,000 rows scored; 4 files written" in captured.err
    assert "null_label in column 'click', first at" in captured.err
    assert main([*words, "--compression", "snappy"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("or --overwrite.\n")
    assert main([*words, "--compression", "snappy", "--overwrite", "--threads", "1"]) == 0
    metadata = pq.ParquetFile(tmp_path / "out/day=1/a.parquet").metadata
    assert metadata.row_group(0).column(3).compression == "SNAPPY"
    capsys.readouterr()
    assert main(["score", str(log), *OPTIONS]) == 2
    assert "fastloss score LOG... OUT" in capsys.readouterr().err
    assert main(["score", str(log), str(tmp_path / "top.parquet"), *OPTIONS, "--top", "7"]) == 0
    assert len(read(tmp_path / "top.parquet")) == 7
