"""A request is a value: hashable, to JSON and back, with a fingerprint that knows what changes a number."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.budget import ExecutionOptions
from fastloss.request import Request
from fastloss.scan import TaskWork

REQUEST = {
    "label": "y",
    "logit": {"a": "x", "b": "z"},
    "weight": "w",
    "metrics": ["log_loss", fl.losses.BinaryFocalCrossentropy(gamma=3.0), "ctr"],
    "by": ["k", ("k", "m")],
    "saturation": "exact",
}


def log(x_type: pa.DataType | None = None, rows: int = 2_000) -> pa.Table:
    rng = np.random.default_rng(5)
    x = pa.array(rng.normal(size=rows))
    return pa.table(
        {
            "y": rng.integers(0, 2, rows),
            "x": x if x_type is None else x.cast(x_type, safe=False),
            "z": rng.normal(size=rows),
            "w": rng.integers(0, 3, rows),
            "k": rng.choice(["DE", "FR"], rows),
            "m": rng.integers(0, 5, rows),
        }
    )


def test_a_request_goes_through_json_and_keeps_its_hash() -> None:
    request = Request.of(**REQUEST)
    again = Request.from_dict(json.loads(json.dumps(request.to_dict())))
    named = Request.of(**{**REQUEST, "metrics": ["log_loss", "binary_focal_crossentropy(gamma=3.0)", "ctr"]})
    assert again == named
    assert hash(again) == hash(named)
    assert again.to_dict() == request.to_dict()
    plans = [
        fl.make_plan(log(), **options) for options in (REQUEST, {**REQUEST, "metrics": list(again.metrics or ())})
    ]
    assert plans[0].fingerprint == plans[1].fingerprint


def test_the_fingerprint_knows_all_that_can_change_a_number() -> None:
    changes = [
        {"label": "m", "metrics": ["ctr"]},
        {"weight": None},
        {"metrics": ["log_loss"]},
        {"by": ["k"]},
        {"saturation": "clip"},
        {"on_bad_row": "drop"},
        {"preset": "keras"},
        {"reduction": "sum"},
        {"label_domain": "pm1"},
        {"logit": {"a": "x"}},
    ]
    known = {fl.make_plan(log(), **REQUEST).fingerprint}
    for change in changes:
        known.add(fl.make_plan(log(), **{**REQUEST, **change}).fingerprint)
    # Under some presets float32 is clipped elsewhere than float64.
    known.add(fl.make_plan(log(pa.float32()), **REQUEST).fingerprint)
    assert len(known) == len(changes) + 2


@pytest.mark.parametrize("how", [{"threads": 1}, {"memory": "1GiB"}, {"batch_rows": 7}, {"on_bad_file": "skip"}])
def test_the_fingerprint_knows_nothing_else(how: dict[str, object]) -> None:
    assert fl.make_plan(log(), **REQUEST, **how).fingerprint == fl.make_plan(log(rows=3), **REQUEST).fingerprint


def test_every_option_of_execution_is_one_of_evaluate() -> None:
    import dataclasses
    import inspect

    parameters = inspect.signature(fl.evaluate).parameters
    for field in [*dataclasses.fields(ExecutionOptions), *dataclasses.fields(Request)]:
        # Made of the options that name predictions, and maps of them.
        if field.name not in ("models", "mapped"):
            assert field.name in parameters, field.name
            if field.name not in ("label", "metrics"):
                assert parameters[field.name].default == field.default, field.name


def files(folder: Path) -> list[Path]:
    table = log(rows=5_000)
    paths = [folder / f"{i}.parquet" for i in range(3)]
    for i, path in enumerate(paths):
        pq.write_table(table.slice(i * 1_700, 1_700), path, row_group_size=600)
    return paths


def test_the_work_of_a_task_goes_through_pickle(tmp_path: Path) -> None:
    plan = fl.make_plan(files(tmp_path), **REQUEST)
    work = TaskWork.of(plan.evaluation, plan.execution)
    again = pickle.loads(pickle.dumps(work))
    task = next(iter(plan.source.tasks(plan.columns, plan.read_options)))
    mine, theirs = work(task).state, again(pickle.loads(pickle.dumps(task))).state
    assert mine.ledger == theirs.ledger
    for table, other in zip(mine.tables, theirs.tables, strict=True):
        for column, same in zip(table.columns, other.columns, strict=True):
            for name, field in column.fields().items():
                assert np.array_equal(field, same.fields()[name])


def test_processes_give_the_same_bits(tmp_path: Path) -> None:
    paths = files(tmp_path)
    expected = fl.evaluate(paths, **REQUEST).to_json()
    assert fl.evaluate(paths, **REQUEST, executor="processes", threads=2).to_json() == expected
    lists = pa.table({"y": [[0, 1], [1, 0, 0], [0, 0]] * 50, "x": [[0.5, 1.0], [0.1, -2.0, 3.0], [1.0, 2.0]] * 50})
    pq.write_table(lists, tmp_path / "lists.parquet", row_group_size=40)
    ranked = {"label": "y", "logit": "x", "metrics": ["roc_auc", "roc_auc(exact=True)"], "by": "k"}
    expected = fl.evaluate(paths, **ranked).to_json()
    assert fl.evaluate(paths, **ranked, executor="processes", threads=2).to_json() == expected
    options = {"label": "y", "logit": "x", "metrics": ["categorical_crossentropy", "log_loss", "lambda_rank"]}
    expected = fl.evaluate(tmp_path / "lists.parquet", **options).to_json()
    assert fl.evaluate(tmp_path / "lists.parquet", **options, executor="processes", threads=2).to_json() == expected


def test_processes_say_what_they_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(fl.FastlossError, match="threads"):
        fl.evaluate(log(), **REQUEST, executor="processes", threads=1)
    # The error of the first task, with its place, comes from another process as from a thread.
    table = log().set_column(0, "y", pa.array(np.where(np.arange(2_000) == 1_500, 7, 0)))
    pq.write_table(table, tmp_path / "bad.parquet", row_group_size=500)
    with pytest.raises(fl.DataError, match="row group 3, row 0: label column 'y' is 7"):
        fl.evaluate(tmp_path / "bad.parquet", **{**REQUEST, "weight": None}, executor="processes", threads=2)
