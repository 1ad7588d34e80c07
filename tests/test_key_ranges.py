"""Key ranges of row groups: which keys may be in several of them, and what footers promise that is not so."""

from __future__ import annotations

import datetime
import pickle
import struct
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from fastloss.errors import ReadError
from fastloss.plan import open_source
from fastloss.request import Request
from fastloss.sources.base import ReadOptions
from fastloss.sources.derived import derive
from fastloss.sources.key_ranges import find_key_ranges
from tests.servers import files_handler, serving

KINDS = {
    pa.int32(): lambda n: n - 3,
    pa.uint64(): lambda n: 2**63 + n - 4,
    pa.string(): lambda n: "é" * (n // 3) + "z" * n,
    pa.binary(): lambda n: bytes([250 + n % 3]) * n,
    pa.binary(2): lambda n: bytes([200, n]),
    pa.date32(): lambda n: datetime.date(1970, 1, n + 1),
    pa.timestamp("us"): lambda n: datetime.datetime(1969, 12, 31) + n * datetime.timedelta(hours=8),
    pa.dictionary(pa.int8(), pa.string()): lambda n: "k" * n,
}


def open_log(paths, options):
    return open_source([str(path) for path in paths], options)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_keys_in_several_row_groups_are_at_edges(data, tmp_path):
    kind = data.draw(st.sampled_from(list(KINDS)))
    numbers = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=30))
    is_sorted = data.draw(st.booleans())
    values = [None if n == 9 else KINDS[kind](n) for n in (sorted(numbers) if is_sorted else numbers)]
    cut = data.draw(st.integers(0, len(values)))
    paths = []
    for part in (values[:cut], values[cut:]):
        paths.append(tmp_path / f"{len(paths)}.parquet")
        table = pa.table({"label": np.zeros(len(part)), "k": pa.array(part, kind)})
        pq.write_table(table, paths[-1], row_group_size=data.draw(st.integers(1, 9)))
    join_rows = data.draw(st.sampled_from([0, 5]))
    options = ReadOptions(batch_rows=4, join_rows=join_rows, join_bytes=1 << 30)
    source = open_log(data.draw(st.permutations(paths)), options)
    types = {"k": source.schema.field("k").type}
    ranges = find_key_ranges(source, ["label", "k"], ["k"], types, options)
    tasks = list(source.tasks(["label", "k"], options))
    held = [Counter(value for part in read(task) for value in part) for task in tasks]
    if ranges is None:
        # (Rows in order have ranges without overlap, whatever the order of the files.)
        assert not (is_sorted and all(value is not None for value in values))
        return
    ranges = pickle.loads(pickle.dumps(ranges))
    of_row_groups = [set(read_parts(part)) for task in tasks for part in task.parts or (task,)]
    times = Counter(value for held_by_one in of_row_groups for value in held_by_one)
    for task, rows in zip(tasks, held, strict=True):
        keys = ranges.of_task(task)
        for batch in task.read():
            found = keys.at_edges(batch)
            edges = [False] * batch.n_rows if found is None else found.tolist()
            for value, at_edge in zip(batch.record_batch.column("k").to_pylist(), edges, strict=True):
                assert value in rows
                if value is not None:
                    assert at_edge == (times[value] > 1)


def read(task):
    return [batch.record_batch.column("k").to_pylist() for batch in task.read()]


def read_parts(task):
    return [value for part in read(task) for value in part]


def ranges_of(source, options, keys=("k",)):
    types = {key: source.schema.field(key).type for key in keys}
    return find_key_ranges(source, list(source.schema.names), list(keys), types, options)


def test_the_first_column_that_has_ranges_is_taken(tmp_path):
    path, options = tmp_path / "log.parquet", ReadOptions()
    columns = {"mixed": [1, 9, 2, 8], "float": [1.0, 2.0, 3.0, 4.0], "k": ["a", "b", "b", "c"], "label": [0, 1, 0, 1]}
    pq.write_table(pa.table(columns), path, row_group_size=2)
    source = open_log([path], options)
    ranges = ranges_of(source, options, ["mixed", "k"])
    assert (ranges.column, ranges.shared) == ("k", (b"b",))
    assert ranges_of(source, options, ["mixed", "float"]) is None
    pq.write_table(pa.table(columns), path, row_group_size=2, write_statistics=False)
    assert ranges_of(open_log([path], options), options) is None
    assert find_key_ranges(open_source(pa.table(columns), options), ["k"], ["k"], {"k": pa.string()}, options) is None


def test_a_delta_table_has_the_ranges_of_its_files(tmp_path):
    deltalake = pytest.importorskip("deltalake")
    path, options = str(tmp_path / "table"), ReadOptions()
    for first in (4, 0, 8):
        deltalake.write_deltalake(path, pa.table({"k": [first, first + 4], "label": [0.0, 1.0]}), mode="append")
    assert ranges_of(open_log([path], options), options).shared == (4, 8)


def test_footers_are_read_from_a_store_too(tmp_path):
    files = {}
    for number in range(20):
        pq.write_table(pa.table({"k": [number, number + 1], "label": [0.0, 1.0]}), tmp_path / "log.parquet")
        files[f"/{number:02}.parquet"] = (tmp_path / "log.parquet").read_bytes()
    options = ReadOptions()
    with serving(files_handler(files)) as server:
        source = open_log([server.url + path for path in files], options)
        assert ranges_of(source, options).shared == tuple(range(1, 20))


def test_a_derived_column_has_no_ranges(tmp_path):
    path, options = tmp_path / "log.parquet", ReadOptions()
    pq.write_table(pa.table({"k": [1, 2, 3, 4], "label": [0.0, 1.0, 0.0, 1.0]}), path, row_group_size=2)
    request = Request.of(label="label", prob={"m": "label"}, by=["k"], where=["k > 0"], with_columns={"mod": "k % 2"})
    source = derive(open_log([path], options), request, ["mod"], options, ["k", "label"])
    found = find_key_ranges(source, ["k", "mod"], ["mod", "k"], {"k": pa.int64(), "mod": pa.int64()}, options)
    assert (found.column, found.shared) == ("k", ())
    (first, _) = source.tasks(["k", "mod"], options)
    assert found.of_task(first).at_edges(next(first.read())) is None


@pytest.mark.parametrize("joined", [False, True])
def test_statistics_that_are_wrong_are_an_error(tmp_path, joined):
    path = tmp_path / "log.parquet"
    right, wrong = (struct.pack("<q", number) for number in (0x1234567812345678, 0x1234567812345679))
    table = pa.table({"k": [0x1234567812345678, 0x1234567812345999, 0x2234567812345678], "label": [0.0, 0.0, 1.0]})
    pq.write_table(table, path, row_group_size=2, compression="none", use_dictionary=False)
    content = path.read_bytes()
    footer = len(content) - 8 - struct.unpack("<i", content[-8:-4])[0]
    assert right in content[footer:]
    path.write_bytes(content[:footer] + content[footer:].replace(right, wrong))
    options = ReadOptions(join_rows=100 if joined else 0, join_bytes=1 << 30)
    source = open_log([path], options)
    ranges = ranges_of(source, options)
    assert ranges.shared == ()
    task = next(source.tasks(["k", "label"], options))
    (batch,) = task.read()
    with pytest.raises(ReadError, match=r"log.parquet', row group 0") as found:
        ranges.of_task(task).at_edges(batch)
    assert f"statistics of column 'k' promise {0x1234567812345679} to" in str(found.value)
    assert f"the rows hold {0x1234567812345678} to" in str(found.value)
