"""Saved states: merged in any order they give the bits of one evaluation, and a file that is not whole is refused."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastloss as fl
from fastloss import state_file
from fastloss.cli import main
from fastloss.merging import plan_merge, run_merge
from fastloss.metrics.resolve import resolve
from fastloss.request import ColumnType, Request
from fastloss.scan import ScanResult
from fastloss.states.evaluation import EvaluationState
from fastloss.states.slices import CodedKeys, Texts

ROOT = Path(__file__).parents[1]
N_DAYS = 4

# ---------------------------------------------------------------------------------------------------------------
# Logs: the columns of a day, and what is asked


def numbers(day: int) -> dict[str, Any]:
    """Rows of everything that is counted: nulls, weights of 0, infinite logits, bad labels, keys with and without."""
    draw = np.random.default_rng(day)
    n = 90
    score = draw.normal(size=n) * 10.0 ** draw.integers(-3, 4, n)
    score[:2] = (np.inf, -np.inf)
    label = draw.integers(0, 2, n).astype(np.float64)
    label[5] = 0.25
    return {
        "y": pa.array([None if i == 7 + day else 2.0 if i == 11 and day == 2 else y for i, y in enumerate(label)]),
        "s": pa.array(score),
        "s32": pa.array(draw.normal(size=n), pa.float32()),
        "p": pa.array([None if i % 31 == 3 else p for i, p in enumerate(np.clip(draw.normal(0.5, 0.4, n), 0, 1))]),
        "w": pa.array([-1.0 if i == 50 and day else w for i, w in enumerate(draw.integers(0, 3, n) / 3)]),
        "country": pa.array([None if c > 5 else f"c{c}" * c for c in draw.integers(0, 3 + day, n)]),
        "device": pa.array(draw.integers(-2, 3, n), mask=draw.integers(0, 5, n) == day),
        "app": pa.array(draw.integers(0, 2, n) == 1, mask=draw.integers(0, 9, n) == 0),
    }


def lists(day: int) -> dict[str, Any]:
    draw = np.random.default_rng(day)
    lengths = draw.integers(0, 5, 60)
    return {
        "y": pa.array([draw.integers(0, 2, n).astype(float).tolist() for n in lengths]),
        "s": pa.array([None if n == 4 else draw.normal(size=n).tolist() for n in lengths], pa.list_(pa.float64())),
        "w": pa.array(draw.integers(0, 4, 60).astype(float)),
        "country": pa.array([f"c{c}" for c in draw.integers(0, 3 + day, 60)]).dictionary_encode(),
    }


BOTH = ["country", "device", ("country", "device", "app")]
CASES: dict[str, tuple[Callable[[int], dict[str, Any]], dict[str, Any]]] = {
    "rows": (numbers, {"label": "y", "logit": "s"}),
    "weights and slices": (numbers, {"label": "y", "logit": {"a": "s", "b/c%": "s32"}, "weight": "w", "by": BOTH}),
    "probabilities": (
        numbers,
        {"label": "y", "prob": "p", "by": "app", "saturation": "exact", "metrics": "log_loss,ece(binning=logit)"},
    ),
    "slices alone": (numbers, {"label": "y", "value": "s32", "by": [("app", "device")], "metrics": ["mse", "rmse"]}),
    "histograms": (
        numbers,
        {
            "label": "y",
            "logit": {"a": "s", "b": "s32"},
            "weight": "w",
            "by": BOTH,
            "metrics": ["roc_auc", "log_loss", "mce(binning=mass)", "miscalibration(loss=brier_score)"],
            "memory": "2GiB",
        },
    ),
    "exact": (numbers, {"label": "y", "prob": "p", "metrics": "roc_auc(exact=true)"}),
    "keras": (numbers, {"label": "y", "prob": "p", "weight": "w", "preset": "keras", "by": "country"}),
    "sum": (numbers, {"label": "y", "prob": "p", "weight": "w", "reduction": "sum_over_batch_size"}),
    "lists": (lists, {"label": "y", "logit": "s", "weight": "w", "by": "country"}),
    "losses of lists": (
        lists,
        {"label": "y", "logit": "s", "metrics": ["categorical_crossentropy", "pairwise_logistic", "log_loss"]},
    ),
    "common lists": (
        lists,
        {"label": "y", "logit": "s", "metrics": "log_loss,pairwise_logistic", "common_rows": True, "by": "country"},
    ),
}


class Saved:
    """A log of several days, the state of each, and the result over all of them."""

    def __init__(self, folder: Path, case: str) -> None:
        columns, self.asked = CASES[case]
        self.asked = {**self.asked, "on_bad_row": "drop"}
        self.folder = folder
        self.log = folder / "log"
        self.log.mkdir()
        for day in range(N_DAYS):
            pq.write_table(pa.table(columns(day)), self.log / f"{day}.parquet", row_group_size=37)
        self.states = [str(folder / f"day{day}.arrow") for day in range(N_DAYS)]
        self.results = [self.evaluate(f"{day}.parquet", state=state) for day, state in enumerate(self.states)]

    def evaluate(self, *names: str, **options: Any) -> fl.Result:
        log = [str(self.log / name) for name in names] if names else str(self.log)
        return fl.evaluate(log, **{**self.asked, **options}, threads=1)


@pytest.fixture(scope="module", params=CASES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("saved"), request.param)


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("saved"), "weights and slices")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("saved"), "rows")


# ---------------------------------------------------------------------------------------------------------------
# The bits of one evaluation


def test_states_merged_in_every_order_are_one_evaluation(saved: Saved) -> None:
    expected = saved.evaluate()
    # Each state comes first in one order, and last in another.
    for order in [*(saved.states[i:] + saved.states[:i] for i in range(N_DAYS)), saved.states[::-1]]:
        merged = fl.merge(order)
        assert merged.to_json() == expected.to_json()
        assert str(merged) == str(expected)
    # NaN is not equal to itself.
    assert merged.to_arrow().schema == expected.to_arrow().schema
    assert repr(merged.to_arrow().to_pylist()) == repr(expected.to_arrow().to_pylist())


def test_states_merged_in_every_association_are_one_evaluation(saved: Saved, tmp_path: Path) -> None:
    expected = saved.evaluate().to_json()
    counter = itertools.count()

    def together(*parts: str) -> str:
        path = str(tmp_path / f"{next(counter)}.arrow")
        fl.merge(list(parts), output_state=path)
        return path

    a, b, c, d = saved.states
    assert fl.merge([together(together(a, b), c), d]).to_json() == expected
    assert fl.merge([a, together(b, together(c, d))]).to_json() == expected
    assert fl.merge([together(c, a), together(d, b)]).to_json() == expected
    assert fl.merge(together(d, together(b, c, a))).to_json() == expected


def test_one_state_gives_its_result_again(saved: Saved) -> None:
    for state, result in zip(saved.states, saved.results, strict=True):
        assert fl.merge([state]).to_json() == result.to_json()
        assert fl.merge(Path(state)).to_json() == result.to_json()


trees = st.recursive(st.integers(0, N_DAYS - 1), lambda parts: st.lists(parts, min_size=1, max_size=3), max_leaves=6)


@given(tree=trees)
@settings(max_examples=20)
def test_any_tree_of_merging_is_one_evaluation(sliced: Saved, tree: Any) -> None:
    days: set[int] = set()
    path = merged_tree(sliced, tree, days, itertools.count())
    if path is None:
        return
    expected = sliced.evaluate(*(f"{day}.parquet" for day in sorted(days)))
    assert fl.merge([path]).to_json() == expected.to_json()


def merged_tree(saved: Saved, tree: Any, days: set[int], counter: Iterator[int]) -> str | None:
    """Merge the days of a tree that were not met before, and return the state's path."""
    if isinstance(tree, int):
        new = tree not in days
        days.add(tree)
        return saved.states[tree] if new else None
    parts = [path for part in tree if (path := merged_tree(saved, part, days, counter)) is not None]
    if not parts:
        return None
    path = str(saved.folder / f"tree{next(counter)}.arrow")
    fl.merge(parts, output_state=path)
    return path


@pytest.mark.parametrize(
    "by",
    [
        (),
        "country",
        "app",
        ["device", "country"],
        [("device", "country")],
        [("app", "device", "country"), "app"],
        [("country", "device", "app"), "country", ("device", "app")],
    ],
    ids=str,
)
def test_groupings_are_chosen_and_derived(sliced: Saved, by: Any, tmp_path: Path) -> None:
    expected = sliced.evaluate(by=by).to_json()
    assert fl.merge(sliced.states, by=by, output_state=tmp_path / "some.arrow").to_json() == expected
    assert fl.merge(tmp_path / "some.arrow").to_json() == expected


def test_groupings_that_were_not_saved_are_refused(sliced: Saved, plain: Saved) -> None:
    with pytest.raises(fl.UsageError, match="by asks for hour, and the states keep country, device, country × device"):
        fl.merge(sliced.states, by="hour")
    with pytest.raises(fl.UsageError, match="by asks for country, and the states keep the total alone"):
        fl.merge(plain.states, by="country")
    with pytest.raises(fl.UsageError, match="by holds"):
        fl.merge(plain.states, by=[()])
    assert fl.merge(plain.states, by=()).to_json() == plain.evaluate().to_json()


def test_histograms_of_finer_slices_are_not_made_coarser(tmp_path: Path) -> None:
    state = tmp_path / "state.arrow"
    asked: dict[str, Any] = {"label": "y", "logit": "s", "metrics": "roc_auc", "on_bad_row": "drop", "threads": 1}
    log = pa.table(numbers(0))
    fl.evaluate(log, **asked, by=BOTH, state=state)
    expected = fl.evaluate(log, **asked, by="device")
    assert fl.merge(state, by="device").to_json() == expected.to_json()
    with pytest.raises(fl.UsageError, match=r"by asks for app, and the states keep .* has less detail"):
        fl.merge(state, by="app")


def test_what_needs_a_second_pass_is_refused(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    n = 140_000
    states, both = [], []
    for day in range(2):
        states.append(tmp_path / f"{day}.arrow")
        both.append(pa.table({"y": draw.integers(0, 2, n), "s": draw.normal(size=n)}))
        fl.evaluate(both[-1], label="y", logit="s", metrics="roc_auc(exact=true)", state=states[-1])
    with pytest.raises(fl.UsageError, match="needs a second pass over all logs"):
        fl.merge(states)
    for log, state in zip(both, states, strict=True):
        fl.evaluate(log, label="y", logit="s", metrics="roc_auc", state=state)
    whole = fl.evaluate(pa.concat_tables(both), label="y", logit="s", metrics="roc_auc")
    assert whole.values[0].evidence["low"] < whole["roc_auc"]
    assert fl.merge(states).values == fl.merge(states[::-1]).values == whole.values


def test_skipped_parts_and_files_are_added(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    for day in range(2):
        pq.write_table(pa.table(numbers(day)), log / f"{day}.parquet", row_group_size=30)
        (log / f"bad{day}.parquet").write_bytes(b"PAR1 is not enough PAR1")
    asked: dict[str, Any] = {"label": "y", "logit": "s", "on_bad_file": "skip"}
    states = []
    for day in range(2):
        states.append(tmp_path / f"{day}.arrow")
        fl.evaluate([log / f"{day}.parquet", log / f"bad{day}.parquet"], **asked, state=states[-1])
    expected = fl.evaluate(log, **asked)
    assert [Path(part["file"]).name for part in expected.files["skipped"]] == ["bad0.parquet", "bad1.parquet"]
    assert fl.merge(states).to_json() == fl.merge(states[::-1]).to_json() == expected.to_json()


def test_keys_of_all_kinds_come_back(tmp_path: Path) -> None:
    """Texts that are no valid UTF-8, integers beyond 2^63 and below 0, booleans, columns of several types, null."""
    request = Request.of(label="y", value="p", metrics="mse", by=["key"])
    types = {name: ColumnType("double", False, 2.0**-52) for name in ("y", "p", "key")}
    evaluation = resolve(request, types)
    columns = [
        [[None, "a", "", "é", "\udcff"], ["b", "a", None]],
        [[-1, None, 5], [5, 1 << 62, None]],
        [[1 << 63, None, 5], [5, 1 << 62]],
        [[True, None, False], [True]],
        [["a", 1], [None, True, "a", 1 << 70]],
        [[None], ["a", None]],
        [[], [None], [3]],
    ]
    for number, parts in enumerate(columns):
        whole = EvaluationState.identity(evaluation.groupings, evaluation.specs)
        paths = []
        for i, values in enumerate(parts):
            state = EvaluationState.identity(evaluation.groupings, evaluation.specs)
            for table in (state.tables[0], whole.tables[0]):
                keys = CodedKeys(np.arange(len(values)), values, values.index(None) if None in values else None)
                positions = table.positions([keys.codes], [keys])
                for column in table.columns:
                    if hasattr(column, "counts"):
                        np.add.at(column.counts, positions, i + 1)
            paths.append(tmp_path / f"{number}-{i}.arrow")
            state_file.write_state(paths[-1], evaluation, ScanResult(state, evaluation.specs, n_files=1))
        for order in (paths, paths[::-1]):
            merged = run_merge(plan_merge(order)).state.tables[0]
            assert listed(merged) == listed(whole.tables[0])


def listed(table: Any) -> list[Any]:
    (keys,) = table.key_columns()
    counts = [column.counts for column in table.columns if hasattr(column, "counts")]
    values = keys.to_list()
    return [(type(values[i]), values[i], *(int(c[i]) for c in counts)) for i in table.sorted_positions().tolist()]


def test_a_slice_is_no_python_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 5000
    table = pa.table({"y": [0.0, 1.0] * n, "p": [0.5] * 2 * n, "k": [f"user {i}" for i in range(2 * n)]})
    states = []
    for day in range(2):
        pq.write_table(table.slice(day * n, n), tmp_path / f"{day}.parquet")
        states.append(tmp_path / f"{day}.arrow")
        fl.evaluate(tmp_path / f"{day}.parquet", label="y", prob="p", by="k", state=states[-1])

    def refuse(*_: Any) -> Any:
        raise AssertionError("a Python object for each slice")

    monkeypatch.setattr(Texts, "to_list", refuse)
    monkeypatch.setattr(Texts, "of", refuse)
    merged = run_merge(plan_merge(states))
    assert merged.state.tables[0].n_slices == 2 * n


# ---------------------------------------------------------------------------------------------------------------
# What may not be merged


def refused(states: list[Any], *words: str) -> None:
    """Merging is refused in one sentence that holds these words, in either order of the states."""
    for order in (states, states[::-1]):
        with pytest.raises(fl.UsageError) as caught:
            fl.merge(order)
        assert "\n" not in str(caught.value)
        for word in words:
            assert word in str(caught.value)


def test_overlapping_inputs_are_refused(plain: Saved, tmp_path: Path) -> None:
    both = tmp_path / "both.arrow"
    plain.evaluate("1.parquet", "2.parquet", state=both)
    name = str(plain.log / "2.parquet")
    refused([both, plain.states[2]], repr(str(both)), repr(plain.states[2]), repr(name), "count twice")
    merged = tmp_path / "merged.arrow"
    fl.merge(plain.states[:2], output_state=merged)
    refused([merged, plain.states[1]], repr(str(merged)), repr(plain.states[1]), "1.parquet")
    refused([plain.states[0], plain.states[0]], "are one file")
    link = tmp_path / "link.parquet"
    link.symlink_to(plain.log / "1.parquet")
    fl.evaluate(link, **plain.asked, state=tmp_path / "link.arrow")
    refused([tmp_path / "link.arrow", plain.states[1]], "link.arrow", "day1.arrow", "count twice")


def test_a_changed_input_is_refused(plain: Saved, tmp_path: Path) -> None:
    log, before, after = tmp_path / "log.parquet", tmp_path / "before.arrow", tmp_path / "after.arrow"
    for day, state in enumerate((before, after)):
        pq.write_table(pa.table(numbers(day)), log)
        fl.evaluate(log, **plain.asked, state=state)
    refused([before, after], "before.arrow", "after.arrow", repr(str(log)), "was changed")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metrics": "ctr"}, "metrics is"),
        ({"by": "country"}, "by is"),
        ({"weight": "w"}, "weight is"),
        ({"logit": {"a": "s"}}, "models is"),
        ({"saturation": "exact"}, "saturation is"),
        ({"preset": "torch"}, "preset is"),
        ({"label": "s32", "on_bad_row": "drop"}, "label is"),
        ({"label_domain": "pm1"}, "label_domain is"),
        ({"reduction": "sum"}, "reduction is"),
    ],
    ids=str,
)
def test_another_request_is_refused_with_what_differs(
    plain: Saved, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    other = tmp_path / "other.arrow"
    plain.evaluate("1.parquet", state=other, **change)
    refused([plain.states[0], other], repr(plain.states[0]), repr(str(other)), words, "merge states of one request")


def test_another_column_type_is_refused(plain: Saved, tmp_path: Path) -> None:
    columns = numbers(1)
    pq.write_table(pa.table({**columns, "s": columns["s"].cast(pa.float32())}), tmp_path / "log.parquet")
    fl.evaluate(tmp_path / "log.parquet", **plain.asked, state=tmp_path / "other.arrow")
    refused([plain.states[0], tmp_path / "other.arrow"], "the type of column 's' is", "float")


def test_other_formulas_are_refused(plain: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old.arrow"
    with monkeypatch.context() as patched:
        patched.setattr(state_file, "FORMULAS_VERSION", 0)
        plain.evaluate("1.parquet", state=old)
    refused([plain.states[0], old], repr(plain.states[0]), repr(str(old)), "of the formulas")
    refused([old], repr(str(old)), "version 0 of the formulas")


def test_states_of_streams_are_merged_and_counted(plain: Saved, tmp_path: Path) -> None:
    states = []
    for day in range(2):
        states.append(tmp_path / f"{day}.arrow")
        result = fl.evaluate(pa.table(numbers(day)), **plain.asked, state=states[-1])
        assert fl.merge(states[-1]).to_json() == result.to_json()
    merged = fl.merge([*states, plain.states[2]])
    assert merged.files["unchecked_streams"] == 2
    assert "2 streams or frames among what was merged" in str(merged)
    assert merged["log_loss"] == plain.evaluate(*(f"{day}.parquet" for day in range(3)))["log_loss"]
    # One and the same evaluation is known even so.
    shutil.copy(states[0], tmp_path / "copy.arrow")
    refused([states[0], tmp_path / "copy.arrow"], "0.arrow", "copy.arrow", "one stream")


def test_custom_losses_are_known_by_their_definition(tmp_path: Path) -> None:
    from fastloss_kernels.define import DEFINED

    def squared(x: float, y: float) -> float:
        return (x - y) ** 2

    def tripled(x: float, y: float) -> float:
        return 3.0 * (x - y) ** 2

    state = tmp_path / "state.arrow"
    pq.write_table(pa.table(numbers(0)), tmp_path / "log.parquet")
    try:
        own = fl.losses.define(squared, name="own_of_states")
        found = fl.evaluate(tmp_path / "log.parquet", label="y", value="s32", metrics=[own()], state=state)
        assert fl.merge(state).to_json() == found.to_json()
        fl.losses.define(tripled, name="own_of_states")
        with pytest.raises(fl.UsageError, match="another custom loss 'own_of_states' than this process has; define"):
            fl.merge(state)
        del DEFINED["own_of_states"]
        with pytest.raises(fl.UsageError, match=r"needs the custom loss 'own_of_states': .*define it as it was"):
            fl.merge(state)
    finally:
        DEFINED.pop("own_of_states", None)


# ---------------------------------------------------------------------------------------------------------------
# Files that are not as they were written


def sentence_of(path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises((fl.ReadError, fl.UsageError)) as caught:
        fl.merge([path])
    text = str(caught.value)
    assert "\n" not in text
    assert repr(str(path)) in text
    return text


def test_every_damaged_byte_is_noticed(plain: Saved, tmp_path: Path) -> None:
    content = Path(plain.states[0]).read_bytes()
    damaged = tmp_path / "damaged.arrow"
    step = max(1, len(content) // 600)
    for position in {*range(0, len(content), step), *range(32), *range(len(content) - 80, len(content))}:
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        damaged.write_bytes(changed)
        sentence_of(damaged)


def test_a_file_that_was_cut_off_is_noticed(plain: Saved, tmp_path: Path) -> None:
    content = Path(plain.states[0]).read_bytes()
    short = tmp_path / "short.arrow"
    for length in {0, 1, 5, 6, 7, 8, 10, 16, *range(20, len(content), 97), len(content) - 1}:
        short.write_bytes(content[:length])
        sentence_of(short)
        short.write_bytes(content[len(content) - length :])
        sentence_of(short)
    short.write_bytes(b"")
    assert "is empty" in sentence_of(short)
    short.write_bytes(bytes(len(content)))
    assert "is no state" in sentence_of(short)
    short.write_bytes(content + content)
    assert "is damaged or cut off" in sentence_of(short)


def test_other_files_are_no_states(plain: Saved, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("label,score\n1,0.5\n")
    assert "is no state" in sentence_of(other)
    pq.write_table(pa.table({"a": [1]}), other)
    assert "is no state" in sentence_of(other)
    with pa.ipc.new_file(str(other), pa.schema({"a": pa.int64()})) as writer:
        writer.write_table(pa.table({"a": [1, 2]}))
    assert "an Arrow file without the checksum of a state" in sentence_of(other)
    seal(other)
    assert "is no state" in sentence_of(other)
    assert "it is a folder" in sentence_of(tmp_path)
    assert "there is no such file" in sentence_of(tmp_path / "none")
    with pytest.raises(fl.UsageError, match="No state was given"):
        fl.merge([])
    with pytest.raises(fl.UsageError, match="allowed: a list of files"):
        fl.merge([3])  # type: ignore[list-item]


def seal(path: Path) -> None:
    with path.open("r+b") as file:
        state_file._seal(file)


def rewritten(state: str, path: Path, change: Callable[[dict[str, pa.Array], dict[str, Any]], None]) -> Path:
    """A state with other columns or other metadata, and with a checksum as if it had been written so."""
    with pa.ipc.open_file(state) as reader:
        batch = reader.get_batch(0)
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    metadata = json.loads(batch.schema.metadata[b"fastloss_state"])
    change(columns, metadata)
    changed = pa.record_batch(columns).replace_schema_metadata({"fastloss_state": json.dumps(metadata)})
    with pa.ipc.new_file(str(path), changed.schema) as writer:
        writer.write_batch(changed)
    seal(path)
    return path


def test_a_newer_format_is_refused(sliced: Saved, tmp_path: Path) -> None:
    newer = rewritten(sliced.states[0], tmp_path / "newer.arrow", lambda _, found: found.update(format=2))
    assert "in format 2, and fastloss" in sentence_of(newer)
    same = rewritten(sliced.states[0], tmp_path / "same.arrow", lambda *_: None)
    assert fl.merge([same]).to_json() == sliced.results[0].to_json()


def replace(name: str, array: Any) -> Callable[[dict[str, pa.Array], dict[str, Any]], None]:
    def change(columns: dict[str, pa.Array], _: dict[str, Any]) -> None:
        assert name in columns
        columns[name] = array(columns[name])

    return change


def in_one_row(array: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), array)


ROWS_OF_A = "0/model/a//count of rows/counts"
SUMS_OF_A = "0/model/a//sum of label/words"


@pytest.mark.parametrize(
    "change",
    [
        lambda columns, _: columns.pop(ROWS_OF_A),
        replace(ROWS_OF_A, lambda old: in_one_row(old.flatten()[1:])),
        replace(ROWS_OF_A, lambda old: in_one_row(old.flatten().cast(pa.float64()))),
        replace(ROWS_OF_A, lambda _: pa.array(["counts"])),
        replace(SUMS_OF_A, lambda old: in_one_row(old.flatten().flatten())),
        replace("0/key/0/codes", lambda old: in_one_row(pa.array([7000] * len(old.flatten())))),
        replace("0/key/0/codes", lambda old: in_one_row(pa.array([-1] * len(old.flatten())))),
        replace("0/key/0/codes", lambda old: in_one_row(pa.array(["0"] * len(old.flatten())))),
        replace("0/key/0/values", lambda old: in_one_row(pa.array([None] * len(old.flatten()), pa.large_string()))),
        replace("0/key/0/values", lambda old: in_one_row(pa.array([1] * len(old.flatten())))),
        lambda _, found: found["groupings"].pop(),
        lambda _, found: found["groupings"][0].pop(),
        lambda _, found: found["groupings"][0].append("texts"),
        lambda _, found: found.pop("request"),
        lambda _, found: found.update(read="many", dropped=[1]),
        lambda _, found: found.update(request=[]),
        lambda _, found: found["request"].update(label="p"),
        lambda _, found: found["request"].update(metrics=["no_such_metric"]),
        lambda _, found: found["types"].pop("y"),
        lambda _, found: found["types"].update(y=["float", False, 2.0**-23]),
        lambda _, found: found.update(fingerprint="0123456789abcdef"),
        lambda _, found: found.update(inputs=7),
    ],
)
def test_files_that_contradict_themselves_are_refused(sliced: Saved, tmp_path: Path, change: Any) -> None:
    sentence_of(rewritten(sliced.states[0], tmp_path / "forged.arrow", change))


def test_a_state_that_is_replaced_between_two_looks_is_noticed(plain: Saved, tmp_path: Path) -> None:
    state = tmp_path / "state.arrow"
    shutil.copy(plain.states[0], state)
    plan = plan_merge([state])
    shutil.copy(plain.states[1], state)
    with pytest.raises(fl.ReadError, match="was replaced while it was read"):
        run_merge(plan)


# ---------------------------------------------------------------------------------------------------------------
# Writing


def test_a_state_is_written_over_nothing_that_is_read(sliced: Saved, tmp_path: Path) -> None:
    log = str(sliced.log / "0.parquet")
    for output, words in (
        (log, "the log's own file"),
        (str(sliced.log / "new.parquet"), "would be part of the log"),
        (str(tmp_path), "the folder"),
        ("/dev/null", "no regular file"),
        ("s3://bucket/state.arrow", "written to this machine"),
    ):
        with pytest.raises(fl.UsageError, match=words):
            sliced.evaluate(state=output)
    with pytest.raises(fl.UsageError, match="state is 3; allowed: the path of a file"):
        sliced.evaluate(state=3)
    with pytest.raises(fl.UsageError, match="output_state is ''; allowed: the path of a file"):
        fl.merge(sliced.states, output_state="")
    with pytest.raises(fl.UsageError, match="may hold paths only"):
        fl.evaluate([3], **sliced.asked, state=tmp_path / "state.arrow")
    link = tmp_path / "link.arrow"
    os.link(log, link)
    with pytest.raises(fl.UsageError, match="the log's own file"):
        sliced.evaluate("0.parquet", state=link)
    with pytest.raises(fl.UsageError, match="would overwrite the input"):
        fl.merge(sliced.states, output_state=sliced.states[1])
    with pytest.raises(fl.UsageError, match="would overwrite the input"):
        fl.merge(sliced.states, output_state=link)
    assert pq.read_table(log).num_rows == 90


def test_nothing_is_written_where_the_evaluation_fails(plain: Saved, tmp_path: Path) -> None:
    state = tmp_path / "state.arrow"
    state.write_text("old")
    with pytest.raises(fl.DataError):
        plain.evaluate(state=state, on_bad_row="raise")
    assert state.read_text() == "old"
    assert os.listdir(tmp_path) == ["state.arrow"]


@pytest.mark.parametrize("when", ["state_file._seal", "os.replace"])
def test_a_kill_while_writing_leaves_the_old_file(plain: Saved, tmp_path: Path, when: str) -> None:
    state = tmp_path / "state.arrow"
    shutil.copy(plain.states[1], state)
    before = state.read_bytes()
    program = f"""
import os, signal, sys
import fastloss as fl
from fastloss import state_file
{when} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
fl.merge([{plain.states[0]!r}, {plain.states[2]!r}], output_state={str(state)!r})
"""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert (tmp_path / ".state.arrow.part").stat().st_size > 0
    assert state.read_bytes() == before
    fl.merge([plain.states[0], plain.states[2]], output_state=state)
    assert os.listdir(tmp_path) == ["state.arrow"]
    assert fl.merge(state).to_json() == plain.evaluate("0.parquet", "2.parquet").to_json()


# ---------------------------------------------------------------------------------------------------------------
# The command line

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process; return its status, stdout and stderr."""

    def run_words(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run_words


SLICED = (
    "--label", "y", "--logit", "a=s", "--logit", "b/c%=s32", "--weight", "w", "--on-bad-row", "drop",
    "--by", "country", "--by", "device", "--by", "country,device,app",
)  # fmt: skip


def test_eval_writes_a_state_beside_its_result(run: Run, sliced: Saved, tmp_path: Path) -> None:
    state, output = tmp_path / "state.arrow", tmp_path / "result.json"
    status, out, err = run("eval", sliced.log / "0.parquet", *SLICED, "--state", state, "-o", output)
    assert (status, out, err) == (0, "", "")
    assert output.read_text() == sliced.results[0].to_json(indent=2) + "\n"
    assert fl.merge(state).to_json() == sliced.results[0].to_json()
    state.unlink()
    status, out, _ = run("eval", sliced.log / "0.parquet", *SLICED, "--state", state, "--fail-if", "ctr > 0")
    assert status == 1
    assert out == f"{sliced.results[0]}\n"
    assert fl.merge(state).to_json() == sliced.results[0].to_json()


def test_merge_prints_the_result_of_one_evaluation(run: Run, sliced: Saved, tmp_path: Path) -> None:
    assert run("merge", *sliced.states) == (0, f"{sliced.evaluate()}\n", "")
    state = tmp_path / "state.arrow"
    status, out, err = run("merge", *sliced.states, "--by", "device,country", "--format", "json", "--state", state)
    assert (status, err) == (0, "")
    assert out == sliced.evaluate(by=[("device", "country")]).to_json(indent=2) + "\n"
    status, out, _ = run("merge", state, "--no-by", "--fail-if", "ctr < 1", "--fail-if", "log_loss < 0")
    assert (status, out) == (1, f"{sliced.evaluate(by=())}\n")
    status, out, _ = run("merge", state, "-o", tmp_path / "result.arrow")
    assert (status, out) == (0, "")
    with pa.ipc.open_file(tmp_path / "result.arrow") as reader:
        assert repr(reader.read_all().to_pylist()) == repr(fl.merge(state).to_arrow().to_pylist())


def test_what_cannot_be_merged_or_written_is_one_line(run: Run, sliced: Saved, plain: Saved, tmp_path: Path) -> None:
    one, two = sliced.states[:2]
    log = sliced.log / "0.parquet"
    link = tmp_path / "link.txt"
    os.link(log, link)
    for words, said in (
        (("merge",), "No state was given"),
        (("merge", one, one), "are one file"),
        (("merge", one, plain.states[1]), "answer different requests"),
        (("merge", log), "is no state"),
        (("merge", tmp_path / "none"), "there is no such file; name a file that --state has written"),
        (("merge", one, "--by", "hour"), "by asks for hour"),
        (("merge", one, "--fail-if", "brier > 1", "--no-by", "--fail-if", "mse > 1"), "not computed"),
        (("merge", one, two, "--state", two), "--state "),
        (("merge", one, two, "-o", two), "--output "),
        (("merge", one, two, "-o", link), "would overwrite the input"),
        (("merge", one, two, "--state", link), "would overwrite the input"),
        (("merge", one, "--state", tmp_path / "a.txt", "-o", tmp_path / "a.txt"), "name two files"),
        (("merge", one, "--state", tmp_path / "no" / "a"), "does not exist"),
        (("merge", one, "--state", "/dev/null"), "--state is '/dev/null'"),
        (("eval", log, *SLICED, "--state", link), "the log's own file"),
        (("eval", sliced.log, *SLICED, "--state", sliced.log / "new.parquet"), "would be part of the log"),
        (("eval", log, *SLICED, "--state", tmp_path), "is a folder"),
        (("plan", log, *SLICED, "--state", tmp_path), "is a folder"),
    ):
        status, out, err = run(*words)
        assert (status, out) == (2, ""), words
        assert err.startswith("fastloss: ")
        assert err.count("\n") == 1
        assert said in err


def test_the_documents_example(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "state-files.md").read_text()
    commands, printed = re.findall(r"```(?:sh|text)\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    lines = [line.strip() for line in commands.replace("\\\n", " ").splitlines()]
    demo, loop, evaluate, done, merge = lines
    assert (loop, done) == ("for day in 1 2 3 4; do", "done")
    assert run(*shlex.split(demo)[1:])[0] == 0
    for day in range(1, 5):
        words = shlex.split(evaluate.replace("$day", str(day)).removesuffix("> /dev/null"))
        assert run(*words[1:])[0] == 0
    words = shlex.split(merge.replace("day*.arrow", " ".join(f"day{day}.arrow" for day in range(1, 5))))
    assert run(*words[1:]) == (0, printed, "")
