"""Logs that a program hands over: iterables of record batches, datasets, and what is refused among them."""

from __future__ import annotations

import types

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.errors import ReadError, SchemaError, UsageError
from fastloss.sources import ReadOptions, open_source

REQUEST = {"label": "click", "logit": "score", "by": "country", "metrics": ["log_loss", "calibration"]}

SCORED = {"label": "click", "logit": "score", "loss": "log_loss"}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(5)
    missing = rng.random(1000) < 0.1
    columns = {
        "click": pa.array(rng.integers(0, 2, 1000), pa.int8()),
        "score": pa.array(rng.normal(size=1000), mask=missing),
        "country": pa.array(rng.choice(["DE", "FR", "US"], 1000), mask=missing),
        "a.b": pa.array(np.arange(1000)),
        "^c.*$": pa.array(np.arange(1000)),
    }
    return pa.table(columns)


def rows(source, columns, options=None):
    options = options or ReadOptions()
    tables = []
    for index, task in enumerate(source.tasks(columns, options)):
        batches = [batch.record_batch for batch in task.read()]
        assert task.index == index
        assert all(0 < batch.num_rows <= options.batch_rows for batch in batches)
        tables += [pa.table(batch) for batch in batches]
    return pa.concat_tables(tables).to_pydict() if tables else {name: [] for name in columns}


class Twice:
    """Rows that can be begun anew."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


class ArrayAlone:
    """What has `__arrow_c_array__` and nothing else."""

    def __init__(self, batch):
        self.batch = batch

    def __arrow_c_array__(self, requested_schema=None):
        return self.batch.__arrow_c_array__(requested_schema)


def handed_over(table, tmp_path):
    """The table as every kind of object that a program may hand over."""
    batches = table.to_batches(max_chunksize=77)
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=300)
    dataset = ds.dataset(tmp_path / "log.parquet")
    return {
        "table": table,
        "generator of batches": (batch for batch in batches),
        "generator of tables": (table.slice(first, 333) for first in range(0, 1000, 333)),
        "generator of frames": (pl.from_arrow(batch) for batch in batches),
        "generator of readers": (table.slice(first, 500).to_reader(70) for first in (0, 500)),
        "list": batches,
        "tuple": tuple(table.slice(first, 250) for first in range(0, 1000, 250)),
        "map": map(ArrayAlone, batches),
        "begun anew": Twice(batches),
        "dataset": dataset,
        "dataset of batches": ds.dataset(batches),
        "dataset filtered": dataset.filter(ds.field("a.b") >= 0),
        "reader of a scanner": dataset.scanner().to_reader(),
    }


def test_however_it_is_handed_over_a_log_has_one_result(table, tmp_path):
    pq.write_table(table, tmp_path / "log.parquet")
    expected = fl.evaluate(tmp_path / "log.parquet", **REQUEST).to_dict()
    for name, log in handed_over(table, tmp_path).items():
        found = fl.evaluate(log, **REQUEST).to_dict()
        assert found["values"] == expected["values"], name
        assert found["rows"]["used"] == expected["rows"]["used"] < found["rows"]["read"] == 1000, name


def test_rows_come_in_order_and_in_batches_of_the_length_asked_for(table, tmp_path):
    columns = ["^c.*$", "click", "a.b"]
    expected = table.select(columns).to_pydict()
    for batch_rows in (11, 65_536):
        for name, log in handed_over(table, tmp_path).items():
            source = open_source(log, ReadOptions(), columns)
            assert rows(source, columns, ReadOptions(batch_rows=batch_rows)) == expected, name


def test_what_can_be_begun_anew_is_read_twice_and_a_generator_once(table, tmp_path):
    for name, log in handed_over(table, tmp_path).items():
        source = open_source(log, ReadOptions(), ["a.b"])
        assert len(rows(source, ["a.b"])["a.b"]) == 1000
        if name.startswith(("generator", "map", "reader")):
            with pytest.raises(UsageError, match="was already read"):
                source.tasks(["a.b"], ReadOptions())
        else:
            assert rows(source, ["click"])["click"] == table.column("click").to_pylist(), name


def test_a_generator_is_asked_for_a_batch_when_its_turn_comes(table):
    asked = []

    def batches():
        for first in range(0, 100_000, 20_000):
            asked.append(first)
            yield pa.record_batch({"x": np.arange(first, first + 20_000)})

    source = open_source(batches(), ReadOptions())
    assert asked == [0]
    assert source.summary(["x"], ReadOptions()).rows is None
    tasks = source.tasks(["x"], ReadOptions())
    for taken in range(1, 6):
        task = next(tasks)
        assert (task.first_row, len(asked)) == (20_000 * (taken - 1), taken)


def test_a_list_of_batches_tells_its_rows(table):
    source = open_source(table.to_batches(max_chunksize=100), ReadOptions())
    assert source.summary(["click"], ReadOptions()).rows == 1000


def test_of_an_item_only_what_is_read_is_converted():
    frame = pl.DataFrame({"x": [1.0], "mixed": pl.Series([object()], dtype=pl.Object)})
    source = open_source((frame for _ in range(3)), ReadOptions(), ["x"])
    assert rows(source, ["x"]) == {"x": [1.0] * 3}


def test_of_a_dataset_only_what_is_read_is_scanned(table, tmp_path):
    class Recorded:
        def __init__(self, dataset):
            self.schema, self.dataset, self.asked = dataset.schema, dataset, []

        def scanner(self, **options):
            self.asked.append(options["columns"])
            return self.dataset.scanner(**options)

    from fastloss.sources import dataset as opener

    dataset = Recorded(ds.dataset(table.append_column("x", table["a.b"])))
    assert rows(opener.open_log(dataset, ReadOptions(), None), ["x", "a.b"]) == {
        "x": [*range(1000)],
        "a.b": [*range(1000)],
    }
    assert dataset.asked == [["x", "a.b"]]


def test_later_items_may_have_other_columns_and_numbers_of_another_width():
    items = [
        pa.record_batch({"x": pa.array([1], pa.int8()), "y": [0]}),
        pa.record_batch({"more": ["a"], "y": [1], "x": pa.array([2.5])}),
        pa.record_batch({"x": pa.nulls(1), "y": [1]}),
    ]
    source = open_source(items, ReadOptions())
    found = [batch.numbers("x") for task in source.tasks(["x"], ReadOptions()) for batch in task.read()]
    assert [values.tolist() for values, _ in found] == [[1.0], [2.5], [0.0]]
    assert [None if valid is None else valid.tolist() for _, valid in found] == [None, None, [False]]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"y": [1.0]}, "item 2 of the list: column 'x' is not in the log"),
        ({"x": ["1"]}, "column 'x' has type double in item 1 of the list and string in item 2"),
    ],
)
def test_drift_between_items_is_refused_when_it_comes(second, message):
    source = open_source([pa.record_batch({"x": [1.0]}), pa.record_batch(second)], ReadOptions())
    with pytest.raises(SchemaError, match=message):
        rows(source, ["x"])


def failing():
    yield pa.record_batch({"x": [1.0] * 20_000})
    raise OSError("the line\nis cut")


def not_rows():
    yield pa.record_batch({"x": [1.0] * 20_000})
    yield {"x": [1.0]}


@pytest.mark.parametrize(
    ("log", "error", "message"),
    [
        (failing, UsageError, r"the log is a function, .*; give failing\(\) instead of failing"),
        (lambda: failing(), UsageError, "the log is a function"),
        (failing(), ReadError, "cannot read the stream after 20000 rows: the line"),
        (not_rows(), UsageError, "item 2 of the generator is a dict; allowed are pyarrow record batches"),
        (iter([1]), UsageError, "item 1 of the list_iterator is a int"),
        (iter([]), SchemaError, "the list_iterator gives no batch, or was already read"),
        ((1 / 0 for _ in "a"), ReadError, "cannot read the generator: division by zero"),
        ([pa.record_batch({"x": [1.0]}), "log.parquet"], UsageError, "may hold paths only, or record batches only"),
        ({"x": [1.0]}, UsageError, "a log of type dict cannot be read"),
        (types.SimpleNamespace(), UsageError, "a log of type SimpleNamespace cannot be read"),
    ],
)
def test_what_is_no_log_says_so_in_a_line(log, error, message):
    with pytest.raises(error, match=message) as refusal:
        rows(open_source(log, ReadOptions()), ["x"])
    assert "\n" not in str(refusal.value)


def test_a_missing_column_comes_with_the_nearest_names(table, tmp_path):
    for name, log in handed_over(table, tmp_path).items():
        with pytest.raises(SchemaError, match=r"column 'scores' is not in the log\. Did you mean 'score'"):
            open_source(log, ReadOptions()).tasks(["click", "scores"], ReadOptions())
        assert name


def test_processes_are_refused_for_rows_that_are_here(table, tmp_path):
    for log in (iter(table.to_batches()), table.to_batches(), ds.dataset(table)):
        with pytest.raises(UsageError, match="executor='processes' reads files; use executor='threads'"):
            fl.evaluate(log, **REQUEST, executor="processes")


def test_rows_of_a_generator_are_scored(table, tmp_path):
    fl.score(iter(table.to_batches(max_chunksize=100)), tmp_path / "a.parquet", **SCORED)
    fl.score(table, tmp_path / "b.parquet", **SCORED)
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))
