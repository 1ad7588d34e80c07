"""One hash of the whole result for any number of threads, batch size, order of rows and files, and row groups."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss as fl

N_ROWS = 30_011


def make_table() -> pa.Table:
    random = np.random.default_rng(0)
    x = random.normal(-2, 3, N_ROWS).astype(np.float32)
    nulls = random.random(N_ROWS) < 0.01
    return pa.table(
        {
            "y": pa.array((random.random(N_ROWS) < 0.2).astype(np.int8), mask=nulls),
            "x": x,
            "z": pa.array(x * random.normal(1, 0.2, N_ROWS), mask=np.roll(nulls, 1)),
            "w": random.choice([0.0, 0.1, 1.0, 1e10, 1e-10], N_ROWS),
            "country": pa.array(random.choice(["de", "fr", "it", None], N_ROWS).tolist()),
            "day": random.integers(0, 200, N_ROWS),
        }
    )


def result_hash(log: object, **execution: object) -> str:
    result = fl.evaluate(
        log,
        label="y",
        logit={"x": "x", "z": "z"},
        weight="w",
        by=["country", ("country", "day")],
        **execution,
    )
    content = result.to_dict()
    for dropped in content["rows"]["dropped"]:
        del dropped["first"]  # The place of the first bad row is the one thing that a layout moves.
    del content["plan"]["fingerprint"]  # It knows the columns' types.
    text = json.dumps([content["plan"], content["rows"], content["values"]], default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return make_table()


@pytest.fixture(scope="module")
def expected(table: pa.Table) -> str:
    return result_hash(table, threads=1)


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("row_group_size", [1_000, 7_001, 100_000])
def test_threads_and_row_groups(
    table: pa.Table, expected: str, tmp_path: Path, threads: int, row_group_size: int
) -> None:
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=row_group_size)
    assert result_hash(tmp_path / "log.parquet", threads=threads, memory="1GB") == expected


@pytest.mark.parametrize("batch_rows", [7, 1000, 65_536, 1_000_001])
def test_batch_sizes(table: pa.Table, expected: str, batch_rows: int) -> None:
    assert result_hash(table, batch_rows=batch_rows, memory="4GB") == expected


def test_batches_of_one_row(table: pa.Table) -> None:
    short = table.slice(0, 700)
    assert result_hash(short, batch_rows=1) == result_hash(short)


def test_order_of_rows_and_files(table: pa.Table, expected: str, tmp_path: Path) -> None:
    shuffled = table.take(np.random.default_rng(1).permutation(N_ROWS))
    bounds = [0, 1, 5_000, 5_000, 17_123, N_ROWS]
    names = []
    for i, (start, stop) in enumerate(itertools.pairwise(bounds)):
        names.append(str(tmp_path / f"{9 - i}.parquet"))
        pq.write_table(shuffled.slice(start, stop - start), names[-1], row_group_size=3_000)
    assert result_hash(names) == expected
    assert result_hash(names[::-1]) == expected
    assert result_hash(tmp_path, reader="polars") == expected


def test_types_that_hold_the_same_numbers(table: pa.Table, expected: str) -> None:
    wider = table.set_column(0, "y", table["y"].cast(pa.float64()))
    wider = wider.set_column(1, "x", wider["x"].cast(pa.float64()))
    wider = wider.set_column(4, "country", wider["country"].dictionary_encode())
    assert result_hash(wider) == expected


def plain_hash(table: pa.Table, **execution: object) -> str:
    """Without slices and nulls: the columns go to the kernels as they stand."""
    result = fl.evaluate(table, label="t", logit="x", label_domain="pm1", on_bad_row="drop", **execution)
    return hashlib.sha256(json.dumps([result.rows["used"], [v.to_dict() for v in result.values]]).encode()).hexdigest()


def test_columns_that_kernels_read_as_they_stand(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    n = 20_000
    x = random.normal(-1, 2, n).astype(np.float32)
    t = random.uniform(-1, 1, n).astype(np.float32)
    t[:50] = np.float32(np.nan)
    table = pa.table({"t": t, "x": x, "c": random.integers(0, 3, n)})
    expected = plain_hash(table)
    for batch_rows in (1_000, 4_999, 20_000):
        assert plain_hash(table, batch_rows=batch_rows) == expected
    assert plain_hash(table.take(random.permutation(n)), batch_rows=3_000) == expected
    wide = table.set_column(0, "t", table["t"].cast(pa.float64())).set_column(1, "x", table["x"].cast(pa.float64()))
    assert plain_hash(wide) == expected
    sliced = fl.evaluate(table, label="t", logit="x", label_domain="pm1", on_bad_row="drop", by="c")
    whole = fl.evaluate(table, label="t", logit="x", label_domain="pm1", on_bad_row="drop")
    assert [v for v in sliced.values if not v.slice] == whole.values


def binned_hash(log: object, **execution: object) -> str:
    """Sums by bins, of rows with weights of any size and of rows without."""
    values = []
    for weight, by in ((None, ["day"]), ("w", ["country"])):
        asked = {"label": "y", "logit": "x", "weight": weight, "by": by, "metrics": "ece(n_bins=3),mce(binning=logit)"}
        values += fl.evaluate(log, **asked, **execution).values
    return hashlib.sha256(json.dumps([value.to_dict() for value in values]).encode()).hexdigest()


def test_sums_by_bins(table: pa.Table, tmp_path: Path) -> None:
    table = table.slice(0, 8_000)
    expected = binned_hash(table, threads=1)
    for batch_rows in (300, 4_999):
        assert binned_hash(table, batch_rows=batch_rows) == expected
    shuffled = table.take(np.random.default_rng(3).permutation(8_000))
    pq.write_table(shuffled, tmp_path / "log.parquet", row_group_size=2_000)
    assert binned_hash(tmp_path / "log.parquet", threads=3) == expected
