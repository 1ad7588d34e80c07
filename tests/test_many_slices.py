"""Many slices: their values put together from parts, written some at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.metrics.evaluate import GroupingValues
from fastloss.metrics.parts import GroupingParts
from fastloss.report import arrow
from fastloss.report.formats import FORMATS
from fastloss.report.view import View

KEYS: dict[str, list[Any]] = {
    "number": [5, -3, None, 2**62, 0],
    "text": ["b", "", None, "é" * 40, "a"],
    "bucket": ["[0, 1)", "[-2, 0)", None, "[10, 20)", "[2, 10)"],
    "flag": [True, None, False, True, None],
}


def make_log(n_rows: int = 400) -> pa.Table:
    """Return a log with slices of every kind of key, some without a positive, some without a row of a model."""
    random = np.random.default_rng(7)
    kinds = random.integers(0, 5, (len(KEYS), n_rows))
    keys = {name: pa.array([of[i] for i in kind]) for (name, of), kind in zip(KEYS.items(), kinds, strict=True)}
    label = random.integers(0, 2, n_rows).astype(float)
    label[(kinds[0] == 1) | (kinds[1] == 0)] = 0.0
    b = [
        None if i == 3 or j == 2 else x for i, j, x in zip(kinds[0], kinds[1], random.normal(size=n_rows), strict=True)
    ]
    weight = random.integers(0, 3, n_rows) / 4
    return pa.table({**keys, "click": label, "a": random.normal(size=n_rows), "b": b, "w": weight})


def evaluate(log: pa.Table, by: Sequence[Any], **options: Any) -> fl.Result:
    metrics = ["log_loss", "calibration", "normalized_entropy", "ctr"]
    return fl.evaluate(log, label="click", logit={"a": "a", "b": "b"}, metrics=metrics, by=by, **options)


@pytest.fixture(scope="module")
def result() -> fl.Result:
    return evaluate(make_log(), [*KEYS, ("number", "text")], weight="w")


def test_values_put_together_from_parts_are_those_of_the_whole(result: fl.Result) -> None:
    # Slices whose weight is 0 alone are among the table's, and are not shown.
    random = np.random.default_rng(1)
    joined = [result.groupings[0]]
    for values in result.groupings[1:]:
        parts = GroupingParts(_without_slices(values))
        for some in np.array_split(random.permutation(values.order), 4):
            parts.add(replace(values, order=some))
            parts.add(_without_slices(values))
        assert parts.n_slices == values.n_slices
        joined.append(parts.joined())
    assert joined[1].columns[0].n is joined[1].columns[2].n, "what metrics share is kept once"
    assert arrow.to_arrow(joined, result.key_types) == arrow.to_arrow(result.groupings, result.key_types)
    assert [g.key_at(int(p)) for g in joined for p in g.order] == [
        g.key_at(int(p)) for g in result.groupings for p in g.order
    ]


def test_parts_may_give_reasons_and_evidence_of_their_own(result: fl.Result) -> None:
    values = result.groupings[1]
    first, second = values.order[:2], values.order[2:]
    column = values.columns[0]
    odd = replace(
        column.values,
        reasons=["", "other", "no_rows"],
        reason=np.full(len(column.n), 1, dtype=np.int16),
        evidence={**column.values.evidence, "n_nan": np.arange(len(column.n))},
        absent={"n_nan": np.arange(len(column.n)) == second[0]},
    )
    parts = GroupingParts(_without_slices(values))
    parts.add(replace(values, order=first))
    parts.add(replace(values, columns=[replace(column, values=odd), *values.columns[1:]], order=second))
    joined = parts.joined()
    found = joined.columns[0].values
    reasons = {repr(joined.key_at(p)["number"]): found.reasons[found.reason[p]] for p in joined.order}
    of_first = {repr(values.key_at(p)["number"]) for p in first}
    assert {key for key, reason in reasons.items() if reason == "other"} == set(reasons) - of_first
    n_nan = {
        repr(joined.key_at(p)["number"]): None if found.absent["n_nan"][p] else found.evidence["n_nan"][p]
        for p in joined.order
    }
    expected = dict.fromkeys(of_first) | {repr(values.key_at(p)["number"]): p for p in second}
    expected[repr(values.key_at(second[0])["number"])] = None
    assert n_nan == expected


def test_no_parts_are_no_slices(result: fl.Result) -> None:
    empty = _without_slices(result.groupings[1])
    assert GroupingParts(empty).joined() is empty


def _without_slices(values: GroupingValues) -> GroupingValues:
    return replace(values, order=np.empty(0, dtype=np.int64))


# ---------------------------------------------------------------------------------------------------------------
# Files


def _read(name: str, content: bytes) -> Any:
    if name == "parquet":
        return pq.read_table(io.BytesIO(content))
    if name == "arrow":
        return pa.ipc.open_file(content).read_all()
    return json.loads(content) if name == "json" else content


@pytest.mark.parametrize("rows_at_once", [1, 7, 50])
@pytest.mark.parametrize("name", ["parquet", "arrow", "csv", "json"])
def test_a_file_written_in_parts_holds_what_one_written_at_once_does(
    result: fl.Result, monkeypatch: pytest.MonkeyPatch, name: str, rows_at_once: int
) -> None:
    views = (View(), View(wide=True), View(slices=3, sort="log_loss", min_rows=40), View(min_rows=10**9))
    for view in views if FORMATS[name].is_table else views[:3:2]:
        whole = FORMATS[name].write(result, view, as_file=True)
        sink = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(arrow, "ROWS_AT_ONCE", rows_at_once)
            FORMATS[name].write_to(result, view, sink, as_file=True)
        expected = whole if isinstance(whole, bytes) else f"{whole}\n".encode()
        assert _read(name, sink.getvalue()) == _read(name, expected)


def test_json_in_parts_is_json_at_once(result: fl.Result) -> None:
    for indent in (None, 2):
        text = result.to_json(indent)
        plain = json.loads(text)
        assert json.dumps(plain, indent=indent, ensure_ascii=False) == text


def test_a_file_of_slices_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    from fastloss.cli import main

    path = tmp_path / "log.parquet"
    pq.write_table(make_log(), path)
    output = tmp_path / "slices.parquet"
    command = ["eval", str(path), "--label", "click", "--logit", "a", "--by", "text", "-o", str(output)]
    assert main(command) == 0
    assert pq.read_table(output)["slice.text"].null_count
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
