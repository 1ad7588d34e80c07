"""One small log in every form that a log can have: one result, to the bit."""

from __future__ import annotations

import json

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import fastloss as fl

REQUEST = {
    "label": "click",
    "logit": {"a": "score"},
    "prob": {"b": "p"},
    "weight": "weight",
    "by": ["country", "day", ("country", "day")],
    "metrics": ["log_loss", "brier_score", "normalized_entropy", "calibration", "roc_auc"],
}


def make_table(n_rows=3000):
    rng = np.random.default_rng(17)
    missing = [rng.random(n_rows) < 0.05 for _ in range(4)]
    unrelated = {f"unrelated {i}": pa.array(rng.integers(0, 1000, n_rows)) for i in range(40)}
    return pa.table(
        {
            **unrelated,
            "click": pa.array(rng.integers(0, 2, n_rows), pa.int64(), mask=missing[0]),
            "score": pa.array(rng.normal(size=n_rows) * 10.0 ** rng.integers(-8, 2, n_rows), mask=missing[1]),
            "p": pa.array(rng.random(n_rows), mask=missing[2]),
            "weight": pa.array(rng.random(n_rows) * 3),
            "country": pa.array(rng.choice(["DE", "FR", "é, “x”\t"], n_rows), mask=missing[3]),
            "day": pa.array(rng.integers(20260301, 20260304, n_rows)),
            "row": pa.array(np.arange(n_rows)),
        }
    )


WHOLE = make_table()
# What is left where the table's first rows were deleted, which is the log in every other form.
LOG = WHOLE.filter(pc.greater_equal(WHOLE["row"], 700))


def parquet(path):
    pq.write_table(LOG, path / "log.parquet", row_group_size=1300)
    return path / "log.parquet"


def polars_parquet(path):
    pl.from_arrow(LOG).write_parquet(path / "log.parquet", row_group_size=1300)
    return path / "log.parquet"


def pandas_parquet(path):
    # Columns of integers that have nulls are floats there.
    LOG.to_pandas().to_parquet(path / "log.parquet", row_group_size=1300)
    return path / "log.parquet"


def duckdb_parquet(path):
    connection = duckdb.connect()
    connection.register("log", LOG)
    connection.execute(f"COPY log TO '{path}/log.parquet' (FORMAT parquet, ROW_GROUP_SIZE 2048, CODEC 'zstd')")
    return path / "log.parquet"


def spark_parquet(path):
    """What Spark writes: names of its own in the schema, times as INT96, snappy, several parts and a mark."""
    for number, first in enumerate((0, 1200)):
        some = LOG.slice(first, 1200)
        part = path / f"part-0000{number}-c000.snappy.parquet"
        pq.write_table(some, part, flavor="spark", use_deprecated_int96_timestamps=True, compression="snappy")
    (path / "_SUCCESS").touch()
    return path


def hive(path):
    ds.write_dataset(LOG, path, format="parquet", partitioning=["day"], partitioning_flavor="hive")
    return path


def file_list(path):
    for number, first in enumerate((0, 1000, 2000)):
        pq.write_table(LOG.slice(first, 1000), path / f"{number}.parquet")
    (path / "files.txt").write_text("2.parquet\n0.parquet\n# all\n1.parquet\n")
    return f"@{path}/files.txt"


def ipc(path, opener, **options):
    with opener(path / "log.arrow", LOG.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(LOG, max_chunksize=999)
    return path / "log.arrow"


def csv(path):
    pl.from_arrow(LOG).write_csv(path / "log.csv")
    return path / "log.csv"


def json_lines(path):
    (path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LOG.to_pylist()))
    return path / "log.jsonl"


def delta(path):
    deltalake = pytest.importorskip("deltalake")
    for first in (0, 1500):
        deltalake.write_deltalake(path / "table", WHOLE.slice(first, 1500), partition_by=["day"], mode="append")
    deltalake.DeltaTable(path / "table").delete("row < 700")
    return path / "table"


def iceberg(path):
    sql = pytest.importorskip("pyiceberg.catalog.sql")
    catalog = sql.SqlCatalog("test", uri=f"sqlite:///{path}/catalog.db", warehouse=f"file://{path}")
    catalog.create_namespace("logs")
    table = catalog.create_table("logs.log", schema=WHOLE.schema)
    table.append(WHOLE)
    table.delete("row < 700")
    catalog.engine.dispose()
    return table


FORMS = {
    "Parquet": parquet,
    "Parquet by Polars": polars_parquet,
    "Parquet by pandas": pandas_parquet,
    "Parquet by DuckDB": duckdb_parquet,
    "Parquet as Spark has it": spark_parquet,
    "Hive": hive,
    "a list of files": file_list,
    "Arrow IPC": lambda path: ipc(path, pa.ipc.new_file),
    "Arrow IPC, zstd": lambda path: ipc(path, pa.ipc.new_file, compression="zstd"),
    "an Arrow stream": lambda path: ipc(path, pa.ipc.new_stream),
    "CSV": csv,
    "JSON lines": json_lines,
    "Delta Lake": delta,
    "Iceberg": iceberg,
    "a table": lambda path: LOG,
    "a reader": lambda path: LOG.to_reader(100),
    "a generator": lambda path: (LOG.slice(first, 321) for first in range(0, len(LOG), 321)),
    "a list of batches": lambda path: LOG.to_batches(max_chunksize=400),
    "a dataset": lambda path: ds.dataset(parquet(path)),
    "a Polars frame": lambda path: pl.from_arrow(LOG),
    "a pandas frame": lambda path: LOG.to_pandas(),
    "a DuckDB relation": lambda path: duckdb.from_arrow(LOG),
    "a lazy frame": lambda path: pl.scan_parquet(parquet(path)),
}


def numbers(log):
    """The result's numbers by what they are of; the order of slices is that of the rows."""
    found = fl.evaluate(log, **REQUEST).to_dict()
    assert found["rows"]["read"] == len(LOG)
    assert all(0 < used < len(LOG) for used in found["rows"]["used"].values())
    of = {(v["metric"], v["model"], json.dumps(v["slice"], sort_keys=True)): v for v in found["values"]}
    return found["rows"]["used"], of


@pytest.fixture(scope="module")
def expected():
    return numbers(LOG)


@pytest.mark.parametrize("form", FORMS)
def test_a_log_has_one_result_in_every_form(form, expected, tmp_path):
    assert numbers(FORMS[form](tmp_path)) == expected
