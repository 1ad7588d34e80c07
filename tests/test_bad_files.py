"""Damaged, hostile and strange Parquet files: each reads all of its promised rows, or is one readable error."""

from __future__ import annotations

import collections
import contextlib
import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastloss.columns.arrow import check_numeric_type
from fastloss.errors import DataError, FastlossError, ReadError, SchemaError, UsageError
from fastloss.sources import ReadOptions, open_source
from fastloss.sources.listing import list_files
from fastloss.sources.parquet.footers import reading


def read_all(path, options):
    """Number of rows delivered, after turning each column into numbers or keys where its type allows."""
    source = open_source(path, options)
    n_rows = 0
    for task in source.tasks(source.schema.names, options):
        delivered = 0
        for batch in task.read():
            delivered += batch.n_rows
            for name in batch.record_batch.schema.names:
                for convert in (batch.numbers, batch.keys):
                    with contextlib.suppress(SchemaError, DataError):
                        convert(name)
        assert delivered == task.n_rows
        n_rows += delivered
    return n_rows


def rows_or_error(read, *args):
    """What a read gives: its result, or the error that fastloss meant to raise; any other exception passes."""
    try:
        return read(*args)
    except FastlossError as error:
        return error


def is_complete(seen, outcome="outcome"):
    return seen[outcome] == "ok" and seen["rows_read"] == seen["rows_in_footer"]


@pytest.fixture(scope="session")
def outcomes(shared_data):
    """What pyarrow was seen to do with each file: see SOURCES.md beside it."""
    with open(shared_data / "parquet_outcomes.csv") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("verify_checksums", [False, True])
@pytest.mark.parametrize("task_bytes", [1, 128 << 20])
def test_each_file_reads_its_promised_rows_or_is_one_readable_error(
    shared_data, outcomes, verify_checksums, task_bytes
):
    options = ReadOptions(verify_checksums=verify_checksums, task_bytes=task_bytes)
    read = 0
    for name, seen in outcomes.items():
        found = rows_or_error(read_all, shared_data / name, options)
        if is_complete(seen, "outcome_with_crc_check" if verify_checksums else "outcome"):
            assert found == int(seen["rows_in_footer"]), name
            read += 1
        else:
            assert isinstance(found, FastlossError), f"{name} gave {found} rows; pyarrow alone: {seen}"
            assert "\n" not in str(found)
            assert len(str(found)) < 600
            assert name.rpartition("/")[2] in str(found) or "no column" in str(found)
    assert read >= 28


def test_every_file_of_the_collections_is_in_the_table_of_outcomes(shared_data, outcomes):
    folders = ["parquet-testing/data", "parquet-testing/bad_data", "arrow-testing/data/parquet/fuzzing"]
    files = [f for folder in folders for f in (shared_data / folder).iterdir() if f.suffix not in (".md", ".csv")]
    assert {str(file.relative_to(shared_data)) for file in files} == set(outcomes)


def test_rows_that_are_promised_and_not_there_are_an_error(shared_data, outcomes):
    short = [name for name, seen in outcomes.items() if seen["outcome"] == "ok" and not is_complete(seen)]
    assert len(short) == 3
    for name in short:
        with pytest.raises(FastlossError):
            read_all(shared_data / name, ReadOptions())


@pytest.mark.parametrize("task_bytes", [1 << 16, 128 << 20])
def test_a_wrong_checksum_is_found_where_it_is_asked_for(tmp_path, task_bytes):
    damaged = tmp_path / "log.parquet"
    pq.write_table(pa.table({"x": np.arange(100.0)}), damaged, write_page_checksum=True, use_dictionary=False)
    chunk = pq.read_metadata(damaged).row_group(0).column(0)
    data = bytearray(damaged.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ReadError, match=r"row group 0: .*CRC"):
        read_all(damaged, ReadOptions(verify_checksums=True, task_bytes=task_bytes))
    assert read_all(damaged, ReadOptions(task_bytes=task_bytes)) == 100


def test_the_corrupt_checksums_of_others_are_found(shared_data):
    damaged = shared_data / "parquet-testing" / "data" / "datapage_v1-corrupt-checksum.parquet"
    with pytest.raises(ReadError, match=r"row group 0: .*CRC"):
        read_all(damaged, ReadOptions(verify_checksums=True))
    assert read_all(damaged, ReadOptions()) == 5120


def test_numeric_columns_are_what_arrow_says_they_are(shared_data, outcomes):
    compared = 0
    for name in (name for name, seen in outcomes.items() if is_complete(seen)):
        table = pq.read_table(shared_data / name, partitioning=None)
        for column in table.column_names:
            expected = table.column(column)
            if rows_or_error(check_numeric_type, column, expected.type) is not None:
                continue
            if pa.types.is_integer(expected.type) and any(abs(v or 0) > 2**53 for v in expected.to_pylist()):
                with pytest.raises(DataError, match="float64 is exact up to"):
                    numbers(shared_data / name, column, ReadOptions())
                continue
            assert numbers(shared_data / name, column, ReadOptions()) == [
                None if value is None else repr(float(value)) for value in expected.to_pylist()
            ], f"{name}, {column}"
            compared += 1
    assert compared > 60


def numbers(path, column, options):
    """The column's numbers as text, so that NaN equals NaN and -0.0 does not equal 0.0; None where null."""
    found = []
    for task in open_source(path, options).tasks([column], options):
        for batch in task.read():
            values, valid = batch.numbers(column)
            found += [repr(float(v)) if valid is None or valid[i] else None for i, v in enumerate(values.tolist())]
    return found


def keys(path, column, options):
    found = []
    for task in open_source(path, options).tasks([column], options):
        for batch in task.read():
            codes = batch.keys(column)
            found += [codes.key_of(code) for code in codes.codes]
    return found


def compare_readers(paths):
    """Read each column with both readers; return what was equal, refused by Polars, and different."""
    same, refused, different = [], [], []
    for path in paths:
        for column in open_source(path, ReadOptions()).schema.names:
            for read in (numbers, keys):
                expected = rows_or_error(read, path, column, ReadOptions())
                if isinstance(expected, FastlossError):
                    continue
                found = rows_or_error(read, path, column, ReadOptions(reader="polars"))
                kind = refused if isinstance(found, FastlossError) else same if found == expected else different
                kind.append((path.rpartition("/")[2], column, str(found) if kind is refused else ""))
    return same, refused, different


def test_polars_reads_the_same_from_the_valid_files(shared_data, outcomes):
    paths = [str(shared_data / n) for n, seen in outcomes.items() if "/bad_data/" not in n and "fuzz" not in n]
    valid = [path for path in paths if is_complete(outcomes[str(Path(path).relative_to(shared_data))])]
    # In a process of its own: Polars can end the whole process on what it does not expect.
    script = "import json, sys, test_bad_files as t; json.dump(t.compare_readers(json.load(sys.stdin)), sys.stdout)"
    same, refused, different = json.loads(in_a_process_of_its_own(script, json.dumps(valid)))
    assert len(same) > 200
    # Polars counts INT96 in nanoseconds, which wrap after 2262; it refuses two valid files.
    assert {name for name, *_ in different} == {"int96_from_spark.parquet"}
    assert {name for name, *_ in refused} <= {"dict-page-offset-zero.parquet", "unknown-logical-type.parquet"}


def test_int96_timestamps_beyond_2262_do_not_wrap(shared_data):
    found = keys(shared_data / "parquet-testing" / "data" / "int96_from_spark.parquet", "a", ReadOptions())
    # The third is 9999-12-31T03:00 and is wrong in nanoseconds; the last is out of range in microseconds as well.
    assert found[:5] == [
        "2024-01-01T20:34:56.123456",
        "2024-01-01T01:00:00",
        "9999-12-31T03:00:00",
        "2024-12-30T23:00:00",
        None,
    ]


# Files damaged here


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.parquet"
    rng = np.random.default_rng(3)
    table = pa.table({"x": rng.normal(size=4000), "k": rng.choice(["a", "b"], 4000)})
    pq.write_table(table, path, row_group_size=1000, compression="none", use_dictionary=["k"])
    return path


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "it is empty (0 bytes)"),
        (lambda data: b"PAR1", "Parquet file size is 4 bytes"),
        (lambda data: data[: len(data) // 2], "it begins as Parquet and has no footer: it is cut off, or still being"),
        (lambda data: b"x,y\n1,2\n" * 10, "it is not Parquet (it begins with b'x,y\\n')"),
        (lambda data: data[:-4] + b"PARE", "it is encrypted"),
        (lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1", "cannot open"),
    ],
    ids=["empty", "four bytes", "cut off", "CSV", "encrypted", "footer length"],
)
def test_what_is_not_a_parquet_file_says_what_it_is(log, damage, message):
    log.write_bytes(damage(log.read_bytes()))
    with pytest.raises(ReadError) as failure:
        open_source(log, ReadOptions())
    assert str(log) in str(failure.value)
    assert message in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_bad_row_group_spoils_no_other(log):
    chunk = pq.read_metadata(log).row_group(2).column(0)
    data = bytearray(log.read_bytes())
    data[chunk.data_page_offset : chunk.data_page_offset + 16] = b"\xff" * 16
    log.write_bytes(data)
    tasks = open_source(log, ReadOptions()).tasks(["x"], ReadOptions())
    found = [rows_or_error(lambda task: sum(batch.n_rows for batch in task.read()), task) for task in tasks]
    assert found[:2] + found[3:] == [1000, 1000, 1000]
    assert "row group 2" in str(found[2])


def test_bad_files_are_left_out_and_listed_where_that_is_asked_for(log, tmp_path):
    for name in ("a.parquet", "z.parquet"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ReadError, match=r"a\.parquet.*it is not Parquet"):
        open_source(tmp_path, ReadOptions())
    options = ReadOptions(skip_bad_files=True)
    source = open_source(tmp_path, options)
    summary = source.summary(["x"], options)
    assert (summary.files, summary.rows) == (1, 4000)
    assert [file for file, _ in summary.skipped] == [str(tmp_path / "a.parquet"), str(tmp_path / "z.parquet")]
    assert all("it is not Parquet" in cause for _, cause in summary.skipped)
    assert sum(batch.n_rows for task in source.tasks(["x"], options) for batch in task.read()) == 4000
    log.unlink()
    with pytest.raises(ReadError, match="no file of 2 can be read"):
        open_source(tmp_path, options)


def test_a_file_that_changes_after_planning_is_an_error(log):
    tasks = list(open_source(log, ReadOptions()).tasks(["x"], ReadOptions()))
    pq.write_table(pa.table({"x": [1.0]}), log)
    with pytest.raises(ReadError, match="changed after its footer was read"):
        list(tasks[0].read())
    log.unlink()
    with pytest.raises(ReadError, match="cannot read"):
        list(tasks[0].read())


@pytest.mark.parametrize("promised", [999, 1001, 2**40, 0, -1])
def test_a_footer_that_promises_other_rows_is_an_error(log, promised):
    """Row group 0 claims another number of rows: the footer's integer is rewritten, byte for byte."""
    data = log.read_bytes()
    old, new = zigzag(1000), zigzag(promised)
    footer_bytes = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - footer_bytes : -8]
    # RowGroup.num_rows is field 3, an i64, after total_byte_size (field 2): both are one field id further on.
    position = footer.index(
        b"\x16" + old, footer.index(b"\x16" + zigzag(pq.read_metadata(log).row_group(0).total_byte_size))
    )
    footer = footer[: position + 1] + new + footer[position + 1 + len(old) :]
    log.write_bytes(data[: -8 - footer_bytes] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert pq.read_metadata(log).row_group(0).num_rows == promised
    pool, default = pa.proxy_memory_pool(pa.system_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        for options in (ReadOptions(), ReadOptions(task_bytes=1 << 16)):
            error = rows_or_error(read_all, log, options)
            assert isinstance(error, ReadError)
            assert "row group 0" in str(error)
    finally:
        pa.set_memory_pool(default)
    # What is promised takes no memory; the log itself takes some tens of kilobytes.
    assert pool.max_memory() < 8 << 20


def read_damaged_copies(path, n_copies, seed):
    """Read copies of a log with some bytes changed, every other one in its footer; count what came of them."""
    chance = random.Random(seed)
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    n_rows = pq.read_metadata(path).num_rows
    found = collections.Counter()
    good = path.with_name("good.parquet")
    good.write_bytes(data)
    for i in range(n_copies):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 1, 2, 5])):
            damaged[chance.randrange(footer if i % 2 else 0, len(data))] = chance.randrange(256)
        path.write_bytes(damaged)
        options = ReadOptions(task_bytes=chance.choice([4096, 128 << 20]))
        # Beside another file its footer is checked together with that one's.
        beside = [] if i % 3 else [str(good)]
        outcome = rows_or_error(read_all, [*beside, str(path)], options)
        assert outcome == n_rows * (1 + len(beside)) or isinstance(outcome, FastlossError)
        assert "\n" not in str(outcome)
        if isinstance(outcome, ReadError):
            assert str(path) in str(outcome)
        found[type(outcome).__name__] += 1
    return found


def test_a_chunk_beyond_the_end_of_its_own_file_is_found_beside_a_larger_file(log, tmp_path):
    large = tmp_path / "a" / "large.parquet"
    large.parent.mkdir()
    rng = np.random.default_rng(3)
    pq.write_table(pa.table({"x": rng.normal(size=40_000), "k": ["a"] * 40_000}), large, row_group_size=10_000)
    data = log.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    # Without what is before its footer, the last row groups end behind the end of the file.
    log.write_bytes(b"PAR1" + data[footer:])
    assert len(open_source(large, ReadOptions()).inputs(["x"])) == 1
    with pytest.raises(ReadError, match=r"log\.parquet.*row group 0") as failure:
        open_source([large, log], ReadOptions()).summary(["x"], ReadOptions())
    assert "more of column 'x' than the file has" in str(failure.value)


@pytest.mark.parametrize("n_good", [0, 1, 70])
def test_a_damaged_footer_is_named_among_good_ones(log, tmp_path, n_good):
    damaged = tmp_path / "damaged.parquet"
    data = log.read_bytes()
    damaged.write_bytes(data.replace(b"PAR1", b"PAR2", 1)[:-4] + b"PAR2")
    good = [tmp_path / f"{i}.parquet" for i in range(n_good)]
    for i, path in enumerate(good):
        # Of two schemas, so that not all footers go together.
        pq.write_table(pa.table({"x": [1.0], f"y{i > 35}": [1.0]}), path)
    source = open_source([*good, log, damaged], ReadOptions(skip_bad_files=True))
    assert source.summary(["x"], ReadOptions()).rows == n_good + 4000
    assert [file for file, _ in source.summary(["x"], ReadOptions()).skipped] == [str(damaged)]


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_changed_bytes_never_end_the_process(tmp_path, compression):
    rng = np.random.default_rng(0)
    columns = {
        "click": pa.array(rng.integers(0, 2, 500), pa.int8()),
        "score": pa.array(rng.normal(size=500), pa.float32(), mask=rng.random(500) < 0.1),
        "country": rng.choice(["DE", "FR"], 500),
        "position": rng.integers(0, 9, 500),
        "price": pa.array(rng.integers(0, 99, 500)).cast(pa.decimal128(19, 0)),
    }
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=200, compression=compression)
    script = f"""
import json, pathlib, sys, test_bad_files as t
json.dump(t.read_damaged_copies(pathlib.Path({str(path)!r}), 1200, 5), sys.stdout)
"""
    found = json.loads(in_a_process_of_its_own(script))
    assert sum(found.values()) == 1200
    # A changed value in an uncompressed page cannot be seen; a changed footer mostly is.
    assert found["ReadError"] > 300


def in_a_process_of_its_own(script, text=""):
    """Run a script that may be brought down, with the test modules at hand; return what it prints."""
    run = subprocess.run(
        [sys.executable, "-c", script],
        input=text,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def zigzag(number):
    """A Thrift compact integer."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def test_a_thread_that_arrow_cannot_start_says_nothing_of_the_file(log):
    (file,) = list_files([str(log)])

    def fail():
        with reading(file):
            raise pa.ArrowException("Unknown error: Failed to launch worker thread: Resource temporarily unavailable")

    with pytest.raises(UsageError, match="ulimit -u"):
        fail()
