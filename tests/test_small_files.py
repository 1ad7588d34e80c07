"""Small files that are evaluated together: what is promised of each of them, and the same bits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.errors import DataError, FastlossError, ReadError, SchemaError, UsageError
from fastloss.plan import Plan
from fastloss.sources.base import Task
from fastloss.sources.joining import joined
from fastloss.states.ledger import Location, Parts, Place

N_FILES = 40
GROUP_ROWS = 17
ASKED: dict[str, Any] = {
    "label": "click",
    "prob": "p",
    "weight": "w",
    "by": ["country", ["country", "place"]],
    "metrics": ["log_loss", "calibration", "roc_auc(exact=True)"],
    "on_bad_row": "drop",
    "saturation": "exact",
    "threads": 2,
}


def make_table(number: int) -> pa.Table:
    r = np.random.default_rng([11, number])
    n = int(r.integers(1, 60))
    p = r.random(n)
    p[r.random(n) < 0.03] = 1.5
    click = (r.random(n) < 0.4).astype(float)
    click[r.random(n) < 0.03] = np.nan
    return pa.table(
        {
            "click": click,
            "p": pa.array(p, mask=r.random(n) < 0.05),
            "w": r.exponential(1.0, n),
            "country": pa.array(r.choice(["DE", "FR", f"only in {number}", "US"], n), mask=r.random(n) < 0.1),
            "place": r.integers(0, 3, n),
        }
    )


def write_log(folder: Path, tables: list[pa.Table]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:03}.parquet" for number in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(table, path, row_group_size=GROUP_ROWS, compression="none")
    return paths


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return write_log(tmp_path / "log", [make_table(number) for number in range(N_FILES)])


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Evaluate as if nothing were ever joined."""

    def evaluate(*args: Any, **options: Any) -> fl.Result:
        with monkeypatch.context() as patch:
            patch.setattr("fastloss.budget._LARGEST_JOINED_BYTES", 0)
            assert all(not task.parts for task in tasks_of(fl.make_plan(*args, **options)))
            return fl.evaluate(*args, **options)

    return evaluate


def tasks_of(plan: Plan) -> list[Task]:
    return list(plan.source.tasks(plan.columns, plan.joining_options))


def content(result: fl.Result) -> Any:
    return json.loads(result.to_json())


def spoil(path: Path, row_group: int, column: int = 1) -> None:
    """Make a row group unreadable; the footer stays as it is."""
    chunk = pq.read_metadata(path).row_group(row_group).column(column)
    first = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(path.read_bytes())
    data[first : first + 16] = b"\xff" * 16
    path.write_bytes(data)


def test_small_row_groups_are_joined_in_order_and_within_bounds(paths: list[Path]) -> None:
    plan = fl.make_plan(paths, **ASKED)
    single = list(plan.source.tasks(plan.columns, plan.read_options))
    tasks, options = tasks_of(plan), plan.joining_options
    assert not any(task.parts for task in single)
    assert len(tasks) < len(single) / 4
    parts = [part for task in tasks for part in task.parts or (task,)]
    assert [(p.origin, p.row_group, p.n_rows) for p in parts] == [(t.origin, t.row_group, t.n_rows) for t in single]
    for task in tasks:
        assert task.n_rows is not None
        assert task.n_rows <= options.join_rows
        assert task.n_rows == sum(part.n_rows or 0 for part in task.parts)
        assert task.decoded_bytes <= options.join_bytes
        (batch,) = task.read()
        assert batch.n_rows == task.n_rows
    # Every thread has something to do until the end.
    assert len(tasks) >= 4 * plan.execution.threads
    assert plan.memory_bound >= plan.execution.memory_bound(max(task.decoded_bytes for task in tasks))
    assert plan.memory_bound <= plan.execution.memory_bytes


def test_a_task_of_many_rows_or_bytes_stays_alone(paths: list[Path]) -> None:
    plan = fl.make_plan(paths, **ASKED)
    single = list(plan.source.tasks(plan.columns, plan.read_options))
    options = dataclasses.replace(plan.joining_options, join_rows=1000, join_bytes=1 << 20)
    single[5] = dataclasses.replace(single[5], n_rows=990)
    single[10] = dataclasses.replace(single[10], decoded_bytes=1 << 20)
    single[15] = dataclasses.replace(single[15], n_rows=None)
    found = [len(task.parts) or 1 for task in joined(single[:20], options)]
    assert sum(found) == 20
    assert found == [5, 1, 4, 1, 4, 1, 4]


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_the_result_is_that_of_each_row_group_alone(paths: list[Path], one_by_one: Any, executor: str) -> None:
    expected = content(one_by_one(paths, **ASKED))
    assert content(fl.evaluate(paths, **ASKED, executor=executor)) == expected
    assert expected["rows"]["dropped"]


def test_lists_are_joined(tmp_path: Path, one_by_one: Any) -> None:
    tables = []
    for number in range(30):
        r = np.random.default_rng([12, number])
        lengths = r.integers(0, 6, 30)
        label = [r.integers(0, 2, k).astype(float).tolist() for k in lengths]
        score = [r.normal(size=k + (r.random() < 0.05)).tolist() for k in lengths]
        kind = pa.large_list(pa.float32()) if number % 3 == 0 else pa.list_(pa.float64())
        tables.append(pa.table({"y": pa.array(label, pa.list_(pa.float64())), "x": pa.array(score, kind)}))
    paths = write_log(tmp_path, tables)
    asked = {
        "label": "y",
        "logit": "x",
        "metrics": ["categorical_crossentropy", "lambda_rank", "log_loss"],
        "on_bad_row": "drop",
        # A batch of lists is cut into pieces.
        "batch_rows": 40,
        "threads": 1,
    }
    assert any(task.parts for task in tasks_of(fl.make_plan(paths, **asked)))
    expected = content(one_by_one(paths, **asked))
    assert content(fl.evaluate(paths, **asked)) == expected
    assert any("length" in json.dumps(cause) for cause in expected["rows"]["dropped"])


def test_the_first_place_of_a_cause_names_file_row_group_and_row(tmp_path: Path) -> None:
    tables = [pa.table({"y": [0.0, 1.0] * 25, "x": [0.5] * 50}) for _ in range(20)]
    spoiled = tables[13].to_pydict()
    spoiled["x"][40], spoiled["x"][41] = float("nan"), float("nan")
    tables[13] = pa.table(spoiled)
    tables[17] = tables[13]
    paths = write_log(tmp_path, tables)
    asked = {"label": "y", "logit": "x", "on_bad_row": "drop", "threads": 1}
    for log in (paths, paths[::-1]):
        assert any(task.parts for task in tasks_of(fl.make_plan(log, **asked)))
        (cause,) = fl.evaluate(log, **asked).rows["dropped"]
        assert cause["rows"] == 4
        assert cause["first"] == f"{paths[13]}, row group 2, row 6"
    for where, row in (("x is distinct from 7.0", 6), ("x is distinct from 0.5", 6)):
        (cause,) = fl.evaluate(paths, **asked, where=where).rows["dropped"]
        assert cause["first"] == f"{paths[13]}, row group 2, row {row}"


@pytest.mark.parametrize("order", [1, -1])
def test_filters_and_derived_columns_keep_places_and_bits(paths: list[Path], one_by_one: Any, order: int) -> None:
    asked = {**ASKED, "where": "place < 2 and country is distinct from 'FR'", "by": "lower(country)"}
    assert any(task.parts for task in tasks_of(fl.make_plan(paths[::order], **asked)))
    expected = content(one_by_one(paths, **asked))
    assert content(fl.evaluate(paths[::order], **asked)) == expected
    assert expected["rows"]["filtered"]


def test_unreadable_row_groups_alone_are_skipped(paths: list[Path], one_by_one: Any) -> None:
    long = [path for path in paths if pq.read_metadata(path).num_row_groups > 1]
    spoil(long[2], 1)
    spoil(long[3], 0)
    for executor in ("threads", "processes"):
        asked = {**ASKED, "on_bad_file": "skip", "executor": executor}
        result = fl.evaluate(paths, **asked)
        found = content(result)
        skipped = [(part["file"], part["row_group"]) for part in result.files["skipped"]]
        assert skipped == [(str(long[2]), 1), (str(long[3]), 0)]
        assert found == content(one_by_one(paths, **asked))
    n_rows = sum(pq.read_metadata(path).num_rows for path in paths)
    lost = pq.read_metadata(long[2]).row_group(1).num_rows + GROUP_ROWS
    assert found["rows"]["read"] == n_rows - lost


def change(path: Path, **columns: Any) -> None:
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values(table))
    pq.write_table(table, path, row_group_size=GROUP_ROWS, compression="none")


def beyond(table: pa.Table) -> pa.Array:
    return pa.array([2**53 + 1] * table.num_rows)


def test_an_error_is_that_of_the_first_row_group(tmp_path: Path, one_by_one: Any) -> None:
    clean = [make_table(number).select(["click", "p", "w", "country"]).slice(0, 0) for number in range(3)]
    rows = {"click": [0.0, 1.0] * 20, "p": [0.5] * 40, "w": [1] * 40, "country": ["3"] * 40}
    paths = write_log(tmp_path, [*clean, *[pa.table(rows)] * 30])
    asked: dict[str, Any] = {"label": "click", "prob": "p", "weight": "w", "threads": 1}

    def bad_row(path: Path) -> None:
        change(path, p=lambda table: pa.array([0.5] * 30 + [1.5, 1.5] + [0.5] * 8))

    def saturated(path: Path) -> None:
        change(path, p=lambda table: pa.array([0.0] * 40))

    def text(path: Path) -> None:
        change(path, country=lambda table: pa.array(["3"] * 20 + ["three"] + ["3"] * 19))

    damages: list[tuple[Any, type[FastlossError], dict[str, Any]]] = [
        (lambda path: spoil(path, 1), ReadError, {}),
        (bad_row, DataError, {}),
        (saturated, DataError, {"saturation": "error"}),
        (text, DataError, {"with_columns": {"k": "cast(country as bigint)"}, "by": ["k"]}),
    ]
    assert any(task.parts for task in tasks_of(fl.make_plan(paths, **asked)))
    for damage, kind, more in damages:
        whole = {path: path.read_bytes() for path in paths}
        for number in (9, 8, 21):
            damage(paths[number])
        with pytest.raises(kind) as expected:
            one_by_one(paths, **asked, **more)
        with pytest.raises(kind) as found:
            fl.evaluate(paths, **asked, **more)
        assert str(found.value) == str(expected.value)
        assert f"{paths[8].name}" in str(found.value)
        for path, data in whole.items():
            path.write_bytes(data)
    # A bad row stands before a file that cannot be read, and a file that cannot be read before a bad row.
    bad_row(paths[12])
    spoil(paths[13], 0)
    bad_row(paths[14])
    with pytest.raises(DataError, match=r"012\.parquet, row group 1, row 13: .* 2 bad rows in this part"):
        fl.evaluate(paths, **asked)
    spoil(paths[11], 0)
    with pytest.raises(ReadError, match=r"011\.parquet', row group 0"):
        fl.evaluate(paths, **asked)
    change(paths[5], w=beyond)
    with pytest.raises(DataError, match="column 'w' holds the integer 9007199254740993"):
        fl.evaluate(paths, **asked)


def test_a_list_that_is_too_long_is_refused_in_joined_files_too(tmp_path: Path) -> None:
    def lists(n: int) -> pa.Table:
        column = pa.array([[1, 0] * (n // 2)], pa.list_(pa.int8()))
        return pa.table({"y": column, "x": column})

    paths = write_log(tmp_path, [lists(2)] * 30 + [lists(70_000)] + [lists(2)] * 9)
    asked = {"label": "y", "logit": "x", "metrics": ["categorical_crossentropy"], "batch_rows": 4096}
    asked |= {"memory": 165 << 20, "threads": 1}
    assert any(paths[30].name in part.origin for task in tasks_of(fl.make_plan(paths, **asked)) for part in task.parts)
    with pytest.raises(UsageError, match="a list of 70,000 elements"):
        fl.evaluate(paths, **asked)


def test_files_of_different_types_are_joined_as_far_as_they_are_alike(tmp_path: Path, one_by_one: Any) -> None:
    tables = []
    for number in range(N_FILES):
        table = make_table(number)
        kinds = [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.string_view()]
        country = table["country"].combine_chunks().cast(kinds[number // 2 % 4])
        kind = [pa.float64(), pa.float32()][number // 5 % 2]
        table = table.set_column(3, "country", country).set_column(1, "p", table["p"].cast(kind))
        tables.append(table.set_column(2, "w", pa.array(range(table.num_rows), [pa.int8(), pa.int64()][number % 2])))
    paths = write_log(tmp_path, tables)
    expected = content(one_by_one(paths, **ASKED))
    assert content(fl.evaluate(paths, **ASKED)) == expected
    plan = fl.make_plan(paths, **ASKED)
    counts = [(len(list(task.read())), len(task.parts)) for task in tasks_of(plan)]
    assert any(n_batches > 1 for n_batches, _ in counts)
    assert sum(n_batches for n_batches, _ in counts) < sum(n_parts for _, n_parts in counts)


def test_partition_keys_and_missing_columns_are_joined(tmp_path: Path, one_by_one: Any) -> None:
    for number in range(24):
        folder = tmp_path / f"day={number % 3}" / f"place={number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        table = make_table(number).drop_columns(["place"])
        pq.write_table(table if number % 5 else table.drop_columns(["country"]), folder / f"{number}.parquet")
    asked = {**ASKED, "by": [["day", "country"], "place"], "missing_columns": "null"}
    assert any(task.parts for task in tasks_of(fl.make_plan(tmp_path, **asked)))
    assert content(fl.evaluate(tmp_path, **asked)) == content(one_by_one(tmp_path, **asked))


def test_files_of_other_formats_are_joined(tmp_path: Path, one_by_one: Any) -> None:
    for number in range(24):
        with pa.ipc.new_file(tmp_path / f"{number:02}.arrow", make_table(0).schema) as writer:
            writer.write_table(make_table(number), max_chunksize=GROUP_ROWS)
    plan = fl.make_plan(tmp_path, **ASKED)
    assert any(task.parts for task in tasks_of(plan))
    assert content(fl.evaluate(tmp_path, **ASKED)) == content(one_by_one(tmp_path, **ASKED))


@pytest.mark.parametrize("entries", [["a", None], [f"{i}" for i in range(100)]], ids=["null", "too many"])
def test_dictionaries_that_cannot_be_made_one(tmp_path: Path, one_by_one: Any, entries: list[Any]) -> None:
    for number in range(24):
        texts = [entry and f"{number} {entry}" for entry in entries]
        keys = pa.DictionaryArray.from_arrays(pa.array(range(len(texts)), pa.int8()), pa.array(texts))
        table = pa.table({"y": [0.0, 1.0] * (len(texts) // 2), "x": np.linspace(-number, 1, len(texts)), "k": keys})
        with pa.ipc.new_file(tmp_path / f"{number:02}.arrow", table.schema) as writer:
            writer.write_table(table)
    asked = {"label": "y", "logit": "x", "by": "k", "threads": 1}
    tasks = tasks_of(fl.make_plan(tmp_path, **asked))
    assert any(len(list(task.read())) == len(task.parts) > 1 for task in tasks)
    expected = content(one_by_one(tmp_path, **asked))
    assert content(fl.evaluate(tmp_path, **asked)) == expected


def test_the_polars_reader_reads_joined_files(paths: list[Path], one_by_one: Any) -> None:
    asked = {**ASKED, "reader": "polars"}
    assert any(task.parts for task in tasks_of(fl.make_plan(paths, **asked)))
    assert content(fl.evaluate(paths, **asked)) == content(one_by_one(paths, **asked))


def test_progress_counts_all_rows_and_bytes(paths: list[Path]) -> None:
    seen: list[fl.Progress] = []
    found = fl.evaluate(paths, **{**ASKED, "metrics": ["log_loss"]}, progress=seen.append)
    assert (seen[-1].rows, seen[-1].stored_bytes) == (seen[-1].total_rows, seen[-1].total_bytes)
    assert seen[-1].rows == found.rows["read"]
    assert [p.rows for p in seen] == sorted(p.rows for p in seen)


def test_scoring_joins_no_files(paths: list[Path], tmp_path: Path) -> None:
    asked = {"label": "click", "prob": "p", "loss": "log_loss", "on_bad_row": "drop"}
    fl.score(paths, tmp_path / "out", **asked)
    for path in paths:
        (output,) = (tmp_path / "out").rglob(path.name)
        mine, theirs = pq.read_metadata(output), pq.read_metadata(path)
        assert [mine.row_group(i).num_rows for i in range(mine.num_row_groups)] == [
            theirs.row_group(i).num_rows for i in range(theirs.num_row_groups)
        ]


def test_a_file_that_changes_after_the_plan_is_an_error(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in ("pyarrow", "polars"):
        plan = fl.make_plan(paths, **ASKED, reader=reader)
        task = next(task for task in tasks_of(plan) if task.parts)
        changed = task.parts[-1].origin
        pq.write_table(make_table(99), changed)
        with pytest.raises(ReadError, match=f"{Path(changed).name}' changed after its footer was read"):
            list(task.read())


def test_schemas_that_do_not_go_together_are_refused_as_ever(paths: list[Path]) -> None:
    change(paths[7], p=lambda table: pa.array(["x"] * table.num_rows))
    with pytest.raises(SchemaError, match="'p' has type double in"):
        fl.evaluate(paths, **ASKED)


def test_a_place_counts_through_its_parts() -> None:
    names = [("b", 0), ("b", 1), ("c", 0), ("a", 10), ("a", 9)]
    parts = Parts.of(names, [3, 0, 2, 1, 4])
    rows = [("b", 0, 0), ("b", 0, 1), ("b", 0, 2), ("c", 0, 0), ("c", 0, 1), ("a", 10, 0)]
    rows += [("a", 9, i) for i in range(4)]
    place = Place("b", 0, 0, None, parts)
    assert [place.location(i, 0.5) for i in range(10)] == [Location(*row, 0.5) for row in rows]
    kept = np.array([0, 3, 6])
    later = Place("b", 0, 2, lambda: kept, parts)
    assert [later.location(i)[:3] for i in range(3)] == [rows[2], rows[5], rows[8]]
    random = np.random.default_rng(0)
    for _ in range(100):
        marked = random.random(10) < 0.3
        if marked.any():
            first = place.first(marked)
            assert marked[first]
            assert place.location(first).order == min(place.location(i).order for i in np.flatnonzero(marked).tolist())
