"""Many slices: gathered and evaluated by parts where they outgrow the memory, and written some at a time."""

from __future__ import annotations

import datetime
import decimal
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss import many_slices
from fastloss.budget import Execution
from fastloss.cli import main
from fastloss.engine import slice_rows
from fastloss.engine.engine import SlicesOutgrownError
from fastloss.metrics.evaluate import GroupingValues
from fastloss.metrics.parts import GroupingParts, pack
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
            parts.add(pack(replace(values, order=some)))
            parts.add(pack(_without_slices(values)))
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
    parts.add(pack(replace(values, order=first)))
    parts.add(pack(replace(values, columns=[replace(column, values=odd), *values.columns[1:]], order=second)))
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
# Gathering


@pytest.fixture
def gathers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Gather all slices that may be, and tell which were."""
    monkeypatch.setattr(slice_rows, "_FEW_SLICES", 0)
    monkeypatch.setattr(slice_rows, "_MANY_SLICES", 0)
    seen: list[tuple[str, ...]] = []
    close = slice_rows.SliceRows.close

    def note(rows: slice_rows.SliceRows) -> None:
        seen.append(rows.keys)
        close(rows)

    monkeypatch.setattr(slice_rows.SliceRows, "close", note)
    return seen


def assert_same(result: fl.Result, expected: fl.Result) -> None:
    """Compare all that two results say."""
    assert result.to_json() == expected.to_json()
    assert result.to_arrow() == expected.to_arrow()
    assert str(result) == str(expected)


KEYS_ASKED = [*KEYS, ("number", "text"), ("flag", "bucket", "number")]


@pytest.mark.parametrize("weight", [None, "w"])
def test_gathered_slices_have_the_bits_of_kept_ones(
    gathers: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, weight: str | None
) -> None:
    log, options = make_log(), {"weight": weight, "reduction": "sum_over_batch_size", "saturation": "exact"}
    gathered = evaluate(log, KEYS_ASKED, batch_rows=64, **options)
    assert {(key,) for key in KEYS} < set(gathers)
    monkeypatch.undo()
    n_gathered = len(gathers)
    assert_same(gathered, evaluate(log, KEYS_ASKED, **options))
    assert len(gathers) == n_gathered


def test_slices_that_outgrow_the_memory_are_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    n_rows = 80_000
    user = pa.array(random.integers(0, 2**64, 30_000, dtype=np.uint64)[random.integers(0, 30_000, n_rows)])
    columns = {
        "user": user,
        "item": pc.binary_join_element_wise(pc.cast(user, pa.string()), "é" * 20, "-"),
        "day": pa.array(random.integers(0, 3, n_rows)),
        "click": pa.array(random.integers(0, 2, n_rows).astype(np.int8)),
        "a": pa.array(random.normal(size=n_rows).astype(np.float32)),
        "w": pa.array(random.random(n_rows) * 2.0**-40),
    }
    log = pa.table(columns)
    for number in range(4):
        pq.write_table(log.slice(number * 20_000, 20_000), tmp_path / f"{number}.parquet", row_group_size=6_000)
    asked: dict[str, Any] = {"label": "click", "logit": "a", "weight": "w", "metrics": ["log_loss", "calibration"]}
    for by in (["user", "day"], ["item"]):
        kept = fl.evaluate(str(tmp_path), **asked, by=by).to_arrow()
        with monkeypatch.context() as patch:
            # Rows are written to disk, too.
            patch.setattr(Execution, "slices_bytes", 1 << 20)
            assert fl.evaluate(str(tmp_path), **asked, by=by).to_arrow() == kept
            assert fl.evaluate(str(tmp_path), **asked, by=by, threads=1, batch_rows=5_000).to_arrow() == kept
            with pytest.raises(fl.UsageError, match=rf"by {by[0]} brings the slices to .* so far"):
                fl.evaluate(iter(log.to_batches(20_000)), **asked, by=by)


@pytest.mark.parametrize(
    "metric", ["roc_auc", "field_calibration_error(by='number')", "expected_calibration_error(binning='mass')"]
)
def test_what_needs_all_slices_at_once_is_not_gathered(gathers: list[tuple[str, ...]], metric: str) -> None:
    log = make_log()
    result = fl.evaluate(log, label="click", logit="a", metrics=["log_loss", metric], by="number")
    assert not gathers
    assert result[metric] is not None


def test_a_log_read_in_processes_is_gathered_in_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pq.write_table(make_log(), tmp_path / "log.parquet", row_group_size=100)
    asked: dict[str, Any] = {"label": "click", "logit": "a", "by": ["number", "text"]}
    expected = fl.evaluate(str(tmp_path), **asked)
    # The slices of the merged state are too many.
    monkeypatch.setattr(many_slices, "_read", lambda *_: _raise(SlicesOutgrownError("too many", (("text",),))))
    assert_same(fl.evaluate(str(tmp_path), **asked, executor="processes"), expected)


def _raise(error: Exception) -> Any:
    raise error


LOGS = {
    "no rows": lambda: make_log().slice(0, 0),
    "null keys": lambda: (
        make_log().set_column(0, "number", pa.nulls(400, pa.int64())).set_column(1, "text", pa.nulls(400, pa.string()))
    ),
    "one key": lambda: (
        make_log().set_column(0, "number", pa.array([7] * 400)).set_column(1, "text", pa.array(["x" * 200] * 400))
    ),
    "long keys": lambda: make_log().set_column(1, "text", pa.array([f"{i % 90:0200}" for i in range(400)])),
    "no row is used": lambda: make_log().set_column(4, "click", pa.nulls(400, pa.float64())),
}


@pytest.mark.parametrize("name", LOGS)
def test_odd_logs_are_gathered(gathers: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    log = LOGS[name]()
    gathered = evaluate(log, ["number", "text", ("text", "number")], batch_rows=50)
    monkeypatch.undo()
    assert_same(gathered, evaluate(log, ["number", "text", ("text", "number")]))


def test_keys_of_every_kind_of_column_are_gathered(
    gathers: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = make_log()
    day = pa.array([datetime.date(2026, 3, 1 + i % 9) if i % 7 else None for i in range(400)])
    price = pa.array([decimal.Decimal(i % 5) / 4 for i in range(400)], pa.decimal128(9, 2))
    log = log.append_column("day", day).append_column("price", price)
    log = log.append_column("word", log["text"].combine_chunks().dictionary_encode())
    for number, part in enumerate((log.slice(0, 150), log.slice(150, 250))):
        (tmp_path / f"half={number}").mkdir()
        kind = pa.int32() if number else pa.int64()
        small = part.append_column("size", pa.array([i % 11 for i in range(len(part))], kind))
        pq.write_table(small, tmp_path / f"half={number}" / "log.parquet", row_group_size=60)
    by = ["day", "price", "word", "half", "size", "size % 4", ("qcut(a, 3)", "word"), "flag"]
    options = {"where": "size > 1", "on_bad_row": "drop"}
    gathered = evaluate(str(tmp_path), by, batch_rows=64, **options)
    assert {keys for keys in gathers if len(keys) == 1} >= {("day",), ("word",), ("size",), ("size % 4",)}
    monkeypatch.undo()
    assert_same(gathered, evaluate(str(tmp_path), by, **options))


@pytest.mark.parametrize("memory", [1 << 20, 1])
def test_a_slice_of_most_rows_is_read_in_parts(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.where(np.arange(200_000) % 8 == 0, np.arange(200_000), 7)
    values = np.arange(200_000.0)
    with slice_rows.RowStore([np.int64, np.float64], memory_bytes=memory, log2_partitions=1) as store:
        for first in range(0, 200_000, 20_000):
            part = slice(first, first + 20_000)
            store.add(slice_rows.hash_integers(keys[part]), [keys[part], values[part]])
        found = list(store.partitions(50_000))
        large = max(found, key=lambda partition: partition.n_rows)
        assert large.n_rows >= 175_000
        parts = list(large.parts(30_000))
        assert len(parts) > 4
        assert max(len(part[0]) for part in parts) <= 200_000 // 2
        for column, whole in enumerate(large.load()):
            assert np.array_equal(np.concatenate([part[column] for part in parts]), whole)


def test_a_slice_of_most_rows_has_the_bits_of_a_kept_one(
    gathers: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LOGS["one key"]()
    parts: list[int] = []
    read = slice_rows.Partition.parts
    monkeypatch.setattr(
        slice_rows.Partition, "parts", lambda partition, n: parts.append(partition.n_rows) or read(partition, n)
    )
    monkeypatch.setattr(many_slices, "_shares_of", lambda *_: many_slices._Shares(1 << 20, 4_000, 1_000))
    gathered = evaluate(log, ["number"], batch_rows=50)
    assert parts == [400]
    monkeypatch.undo()
    assert_same(gathered, evaluate(log, ["number"]))


def test_a_part_of_the_log_that_cannot_be_read_has_no_rows_among_those_gathered(
    gathers: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = make_log()
    for number in range(4):
        pq.write_table(log.slice(number * 100, 100), tmp_path / f"{number}.parquet", compression="none")
    damaged = tmp_path / "1.parquet"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    damaged.write_bytes(content)
    asked: dict[str, Any] = {"label": "click", "logit": "a", "by": ["number", "text"], "on_bad_file": "skip"}
    gathered = fl.evaluate(str(tmp_path), **asked, batch_rows=20)
    assert gathered.files["skipped"]
    assert gathers
    monkeypatch.undo()
    assert_same(gathered, fl.evaluate(str(tmp_path), **asked))


def test_a_bad_row_is_told_as_ever(gathers: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log()
    log = log.set_column(5, "a", pa.array([*log["a"].to_pylist()[:-1], float("nan")]))
    said = []
    for _ in range(2):
        with pytest.raises(fl.DataError) as raised:
            evaluate(log, ["number"], batch_rows=50)
        said.append(str(raised.value))
        monkeypatch.undo()
    assert said[0] == said[1]
    assert ("number",) in gathers


def test_a_state_has_all_slices(gathers: list[tuple[str, ...]], tmp_path: Path) -> None:
    log = make_log()
    result = evaluate(log, ["number"], state=tmp_path / "a.state")
    assert not gathers
    assert_same(fl.merge(tmp_path / "a.state"), result)


def test_values_that_outgrow_the_memory_are_an_error(
    gathers: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = many_slices._Shares(1 << 20, 10, 10), many_slices._Shares(1 << 20, 2_000, 10)
    monkeypatch.setattr(
        many_slices, "_shares_of", lambda execution, _: large if execution.memory_bytes > 600 << 20 else small
    )
    with pytest.raises(
        fl.UsageError, match=r"by number gives \d slices so far, whose values take .* memory, to 640 MiB"
    ):
        evaluate(make_log(), ["number"])


@pytest.mark.parametrize(
    ("n_distinct", "n_rows", "n_all", "expected"),
    [
        (1000, 1000, 50_000, 50_000),
        (1000, 1_000_000, 50_000_000, 1000),
        (632_121, 1_000_000, 2_000_000, 864_665),
    ],
)
def test_how_many_slices_are_expected(n_distinct: int, n_rows: int, n_all: int, expected: float) -> None:
    # Of u keys that are equally frequent, u·(1 − e^(−n/u)) occur in n rows.
    assert slice_rows.expected_distinct(n_distinct, n_rows, n_all) == pytest.approx(expected, rel=1e-5)


CHOICES = [
    ["--slices", "3"],
    ["--top", "2", "--sort", "log_loss"],
    ["--top", "4", "--sort", "n", "--min-rows", "70"],
    ["--min-rows", "75", "--sort", "calibration", "--slices", "all"],
    ["--slices", "0"],
    ["--min-rows", "999"],
    ["--fail-if", "number=5: n < 1", "--slices", "1", "--sort", "n"],
]


@pytest.mark.parametrize("fewest_slices", [0, 1 << 16])
def test_slices_are_chosen_of_gathered_ones_as_of_kept_ones(
    gathers: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    fewest_slices: int,
) -> None:
    # Slices that are equal in the order come in that of their keys.
    log = make_log()
    log = pa.concat_tables([log, log.set_column(1, "text", pa.array([f"copy {t}" for t in log["text"].to_pylist()]))])
    path = tmp_path / "log.parquet"
    pq.write_table(log, path)
    asked = ["eval", path, "--label", "click", "--logit", "a", "-m", "log_loss,calibration", "--by", "number"]
    asked += ["--by", "text", "--by", "text,number", "--no-progress"]
    monkeypatch.setattr(many_slices, "_FEW_SLICES", fewest_slices)
    partitions = slice_rows.RowStore.partitions
    monkeypatch.setattr(slice_rows.RowStore, "partitions", lambda store, most: partitions(store, most, joined_rows=1))
    said = []
    for _ in range(2):
        for choice in CHOICES:
            assert main([*map(str, asked), *choice]) == 0
            said.append(capfd.readouterr().out)
        monkeypatch.undo()
    assert len(gathers) >= 3 * len(CHOICES)
    for of_gathered, of_kept in zip(said[: len(CHOICES)], said[len(CHOICES) :], strict=True):
        assert of_gathered == of_kept


# ---------------------------------------------------------------------------------------------------------------
# Files


def _read(name: str, content: bytes) -> Any:
    if name == "parquet":
        return pq.read_table(io.BytesIO(content))
    if name == "arrow":
        return pa.ipc.open_file(content).read_all()
    return json.loads(content) if name == "json" else content


@pytest.mark.parametrize("rows_at_once", [1, 50])
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
    path = tmp_path / "log.parquet"
    pq.write_table(make_log(), path)
    output = tmp_path / "slices.parquet"
    command = ["eval", str(path), "--label", "click", "--logit", "a", "--by", "text", "-o", str(output)]
    assert main(command) == 0
    assert pq.read_table(output)["slice.text"].null_count
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
