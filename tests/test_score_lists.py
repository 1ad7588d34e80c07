"""Scoring of list columns: losses of lists, gradients and hessians as lists beside the kept columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from tests.test_lists import random_log


def scored(log: pa.Table, folder: Path, **options: object) -> pa.Table:
    source, out = folder / "log.parquet", folder / "out.parquet"
    pq.write_table(log, source, row_group_size=97)
    fl.score(
        source, out, overwrite=True, **{"label": "y", "logit": "s", "loss": "categorical_crossentropy", **options}
    )
    return pq.read_table(out)


def test_rows_of_lists_are_those_of_the_array_call(tmp_path: Path) -> None:
    log = random_log(500)
    table = scored(log, tmp_path, keep=["k", "s"])
    assert table.column_names == ["k", "s", "loss", "gradient", "hessian"]
    loss = fl.losses.CategoricalCrossentropy()
    label, score = log["y"].to_pylist(), log["s"].to_pylist()
    assert table["loss"].to_pylist() == loss(label, logit=score).tolist()
    gradient, hessian = loss.gradient_hessian(label, logit=score)
    assert table["gradient"].to_pylist() == [row.tolist() for row in gradient]
    assert table["hessian"].to_pylist() == [row.tolist() for row in hessian]
    assert table["s"].to_pylist() == score
    assert pl.read_parquet(tmp_path / "out.parquet")["gradient"].list.len().to_list() == [len(row) for row in score]


def test_lists_without_a_loss_keep_their_place(tmp_path: Path) -> None:
    kind = pa.list_(pa.float64())
    scores = [[1.0, 2.0], None, [], [3.0, 4.0, 5.0], [0.0, None], [1.0]]
    labels = [[1.0, 0.0], [1.0], [], [0.0, 0.0, 0.0], [1.0, 0.0], [1.0]]
    table = scored(pa.table({"y": pa.array(labels, kind), "s": pa.array(scores, kind)}), tmp_path)
    assert [value is None for value in table["loss"].to_pylist()] == [False, True, True, True, False, False]
    gradients = table["gradient"].to_pylist()
    assert [None if g is None else len(g) for g in gradients] == [2, None, None, None, 2, 1]
    # The masked candidate has no part; what is left is certain.
    assert gradients[4] == [0.0, 0.0]
    assert table["loss"].to_pylist()[4:] == [0.0, 0.0]


def test_no_batch_size_changes_a_byte(tmp_path: Path) -> None:
    log = random_log(400, seed=8)
    tables = [
        scored(log, tmp_path, batch_rows=n, loss="log_loss", list_reduction=r)
        for n in (1, 13, 5000)
        for r in ("row", "element")
    ]
    for number, table in enumerate(tables[2:]):
        assert table.equals(tables[number % 2])
    means, totals = tables[0], tables[1]
    lengths = np.array([len(row) for row in log["s"].to_pylist()])
    assert np.allclose(np.array(means["loss"]) * lengths, np.array(totals["loss"]), rtol=1e-15)


def test_top_lists(tmp_path: Path) -> None:
    log = random_log(300, seed=2)
    everything = scored(log, tmp_path)["loss"].to_pylist()
    top = scored(log, tmp_path, top=5, keep="s")
    assert top["loss"].to_pylist() == sorted(everything, reverse=True)[:5]
    assert all(len(s) == len(g) for s, g in zip(top["s"].to_pylist(), top["gradient"].to_pylist(), strict=True))
    empty = scored(log.slice(0, 0), tmp_path, top=5)
    assert empty.schema.field("gradient").type == pa.large_list(pa.float64())
    assert empty.num_rows == 0


def test_an_index_label_and_a_saturated_list(tmp_path: Path) -> None:
    log = pa.table({"y": [0, 1], "s": pa.array([[1.0, 0.0], [1.0, 0.0]], pa.list_(pa.float64(), 2))})
    account = fl.score(log, tmp_path / "o.parquet", label="y", prob="s", loss="sparse_categorical_crossentropy")
    assert account.rows["saturated"] == 1
    assert pq.read_table(tmp_path / "o.parquet")["loss"].to_pylist() == pytest.approx([0.0, 27.631021115928547])
    with pytest.raises(fl.DataError, match="row 1"):
        fl.score(
            log,
            tmp_path / "p.parquet",
            label="y",
            prob="s",
            loss="sparse_categorical_crossentropy",
            saturation="error",
        )


def test_a_loss_that_was_defined_anew_is_another_request(tmp_path: Path) -> None:
    log = pa.table({"y": [1.0, 2.0], "p": [1.5, 1.0]})
    pq.write_table(log, tmp_path / "log.parquet")

    def define(factor: float) -> type[fl.losses.Loss]:
        return fl.losses.define(lambda prediction, label: factor * (prediction - label) ** 2, name="scaled_square")

    for factor in (2.0, 3.0):
        loss = define(factor)()
        if factor == 3.0:
            with pytest.raises(fl.UsageError, match="another request"):
                fl.score(tmp_path / "log.parquet", tmp_path / "o.parquet", label="y", value="p", loss=loss)
        fl.score(tmp_path / "log.parquet", tmp_path / "o.parquet", label="y", value="p", loss=loss, overwrite=True)
        assert pq.read_table(tmp_path / "o.parquet")["loss"].to_pylist() == [factor * 0.25, factor]


@pytest.mark.parametrize("preset", ["keras", "torch", "sklearn", "xgboost", "lightgbm", "torchrec"])
@pytest.mark.parametrize("lists", [False, True])
def test_rows_of_a_preset_add_up_to_its_evaluation(preset: str, lists: bool, tmp_path: Path) -> None:
    prob = [[0.0, 1.0, 0.0], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0]] if lists else [0.0, 1.0, 0.3, 1e-9]
    label = [[1, 0, 0], [0, 1, 0], [1, 0, 0]] if lists else [1.0, 1.0, 0.0, 0.0]
    log = pa.table({"y": label, "p": prob})
    loss = "categorical_crossentropy" if lists else "log_loss"
    fl.score(log, tmp_path / "o.parquet", label="y", prob="p", loss=loss, preset=preset)
    rows = pq.read_table(tmp_path / "o.parquet")["loss"].to_pylist()
    expected = fl.evaluate(log, label="y", prob="p", metrics=[loss], preset=preset, reduction="sum")[loss]
    assert sum(rows) == pytest.approx(expected, rel=1e-14)
    assert max(rows) > 6.0


def test_the_hardest_lists_are_held_within_the_memory(tmp_path: Path) -> None:
    lists = np.zeros((300_000, 20))
    lists[:, 0] = 1.0
    flat = pa.FixedSizeListArray.from_arrays(pa.array(lists.reshape(-1)), 20)
    log = pa.table({"y": flat, "s": flat})
    with pytest.raises(fl.UsageError, match=r"top is 300,000, and [\d,]+ rows with their lists"):
        fl.score(
            log,
            tmp_path / "o.parquet",
            label="y",
            logit="s",
            loss="categorical_crossentropy",
            top=300_000,
            memory="700MB",
        )
    assert list(tmp_path.iterdir()) == []


def test_the_account_says_what_the_preset_did(tmp_path: Path) -> None:
    log = pa.table({"y": [1.0], "p": [0.5]})
    account = fl.score(log, tmp_path / "o.parquet", label="y", prob="p", loss="log_loss", preset="torchrec")
    assert str(account).splitlines()[1:] == [
        "preset torchrec",
        "probabilities are clipped to 1e-12 and 1 - 1e-12",
        "unit: bits",
    ]
