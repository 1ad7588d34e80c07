"""The metrics and losses of each group, one row a group."""

from __future__ import annotations

import datetime
import decimal
import errno
import math
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastloss as fl
from fastloss.cli import main
from fastloss.scoring import groups as scoring_groups
from tests.test_groups import as_lists, log_of

METRICS = ["reciprocal_rank", "ndcg@10", "categorical_crossentropy"]


def scored(log: object, out: Path, **options: Any) -> tuple[pa.Table, fl.ScoreResult]:
    options = {"label": "click", "logit": "score", "loss": METRICS, "group": "user", "overwrite": True, **options}
    result = fl.score(log, out, **options)
    return pq.read_table(out), result


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "groups.parquet"


def test_a_group_has_the_value_of_the_log_of_its_rows(out: Path) -> None:
    log = log_of(300, 15)
    table, result = scored(log, out, loss=[*METRICS, "log_loss"])
    assert table.column_names == ["user", "n", *METRICS, "log_loss"]
    assert table["user"].to_pylist() == list(range(15))
    for row in table.to_pylist():
        alone = log.filter(pa.compute.equal(log["user"], row["user"]))
        found = fl.evaluate(alone, label="click", logit="score", metrics=METRICS, group="user")
        assert [row[metric] for metric in METRICS] == [found[metric] for metric in METRICS]
        score, click = (alone[name].to_numpy().astype(float) for name in ("score", "click"))
        assert row["log_loss"] == pytest.approx(np.mean(np.logaddexp(0, score) - click * score), rel=1e-14)
        assert row["n"] == alone.num_rows
    assert result.rows["scored"] == result.rows["read"] == 300
    assert result.groups["order"] == "key"


@pytest.mark.slow
def test_groups_have_the_losses_of_rows_and_of_list_columns(out: Path) -> None:
    log = log_of(400, 30)
    table, _ = scored(log, out, loss="log_loss")
    for row in table.to_pylist():
        alone = log.filter(pa.compute.equal(log["user"], row["user"]))
        found = fl.evaluate(alone, label="click", logit="score", metrics="log_loss")["log_loss"]
        # The sum of a list is rounded before it is divided.
        assert row["log_loss"] == pytest.approx(found, rel=2**-51)
    for loss in ("log_loss", "categorical_crossentropy"):
        table, _ = scored(log, out, loss=loss, preset="torch", list_reduction="row")
        by_list = as_lists(log)
        fl.score(by_list, out, label="click", logit="score", loss=loss, preset="torch", list_reduction="row",
                 keep="user", overwrite=True)  # fmt: skip
        lists = pq.read_table(out).sort_by("user")
        assert table["user"].equals(lists["user"])
        assert table[loss].to_pylist() == lists["loss"].to_pylist()


NUMBER = np.array([3, 1, 2, 1, 3, 2, 2, 1, 3, 3])
TYPES: dict[str, tuple[pa.DataType, Callable[[int], Any]]] = {
    "int8": (pa.int8(), lambda i: i - 2),
    "uint64": (pa.uint64(), lambda i: 2**63 - 2 + i),
    "bool": (pa.bool_(), lambda i: i > 1),
    "date": (pa.date32(), lambda i: datetime.date(1969, 12, 30 + i % 2)),
    "timestamp": (pa.timestamp("us", "UTC"), lambda i: datetime.datetime(2026, i, 1, tzinfo=datetime.UTC)),
    "string": (pa.string(), lambda i: "ünicode"[: 4 - i]),
    "large_string": (pa.large_string(), lambda i: str(i) * 300),
    "string_view": (pa.string_view(), lambda i: f"a rather long text {i}"),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), lambda i: f"user {i}"),
    "binary": (pa.binary(16), lambda i: bytes([255 - i] * 16)),
    "uuid": (pa.uuid(), lambda i: uuid.UUID(int=i << 120).bytes),
    "decimal": (pa.decimal128(9, 2), lambda i: decimal.Decimal(i) - 2),
}


@pytest.mark.parametrize("name", TYPES)
def test_keys_have_their_own_types(name: str, out: Path) -> None:
    kind, make = TYPES[name]
    rows = {"score": np.round(np.sin(NUMBER * np.arange(10)), 3), "click": [1, 1, 0, 0, 1, 1, 0, 1, 0, 1]}
    values = [make(int(i)) for i in NUMBER]
    log = pa.table({"user": pa.array(values, kind), **rows})
    codes = {value: number for number, value in enumerate(sorted(set(values)))}
    numbered, _ = scored(pa.table({"user": [codes[value] for value in values], **rows}), out)
    table, _ = scored(log, out)
    own = kind.value_type if pa.types.is_dictionary(kind) else kind
    # A log has no views.
    own = pa.large_string() if pa.types.is_string_view(kind) else own
    assert table.schema.field("user").type == own
    expected = pa.array(sorted(set(values)), own)
    assert table["user"].combine_chunks().to_pylist() == expected.to_pylist()
    assert table.drop_columns(["user"]).equals(numbered.drop_columns(["user"]))


def test_a_key_of_two_columns(out: Path) -> None:
    log = log_of(300, 20)
    by_user, _ = scored(log, out)
    table, result = scored(log, out, group=[("country", "user")])
    assert table.column_names[:3] == ["country", "user", "n"]
    assert table.sort_by([("country", "ascending"), ("user", "ascending")]).equals(table)
    assert table.sort_by("user").drop_columns(["country"]).equals(by_user)
    assert "20 of 20 groups by country, user written; 300 of 300 rows scored" in str(result)


@settings(max_examples=15)
@given(data=st.data())
def test_order_batches_and_threads_change_no_bit(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("groups")
    log, key = log_of(300, 40), data.draw(st.sampled_from(["user", "name"]))
    top = data.draw(st.sampled_from([None, 3, 100]))
    expected, _ = scored(log, folder / "a.parquet", group=key, top=top)
    order = np.random.default_rng(data.draw(st.integers(0, 1000))).permutation(log.num_rows)
    how = {"batch_rows": data.draw(st.sampled_from([1, 17, 4096])), "threads": data.draw(st.integers(1, 3))}
    found, _ = scored(log.take(order), folder / "b.parquet", group=key, top=top, **how)
    assert found.equals(expected)


@pytest.mark.parametrize(("loss", "sign"), [("reciprocal_rank", 1), ("log_loss", -1)])
@pytest.mark.parametrize("key", ["user", "name"])
def test_the_worst_groups(loss: str, sign: int, key: str, out: Path) -> None:
    # Many groups share a reciprocal rank.
    log = log_of(900, 120)
    every, _ = scored(log, out, loss=[loss, "ndcg@10"], group=key)
    rows = [row for row in every.to_pylist() if row[loss] is not None]
    rows.sort(key=lambda row: (sign * row[loss], row[key]))
    for top in (1, 7, 60, 1000):
        worst, result = scored(log, out, loss=[loss, "ndcg@10"], group=key, top=top)
        assert worst.to_pylist() == rows[:top]
        assert result.groups["order"] == "value"


@pytest.mark.parametrize("key", ["user", "name"])
def test_groups_that_have_no_room_to_be_sorted_are_written_as_they_come(
    key: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_of(2000, 300)
    expected, _ = scored(log, out, group=key)
    monkeypatch.setattr(scoring_groups, "_SORTED_PART", 1 << 20)
    monkeypatch.setattr(scoring_groups, "MOST_PARTITION_BYTES", 1 << 14)
    table, result = scored(log, out, group=key)
    assert not table.equals(expected)
    assert table.sort_by(key).equals(expected)
    assert result.groups["order"] is None
    assert "groups stand in no order: the memory has no room to sort them" in str(result)


def test_what_has_no_value_is_null_and_counted(out: Path) -> None:
    log = pa.table(
        {
            "user": [1, 2, 1, None, 3, 3, 4],
            "score": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
            "click": [1, 1, 0, 0, 0, 0, None],
        }
    )
    table, result = scored(log, out, loss=["reciprocal_rank", "log_loss"], min_group_size=2)
    assert table.select(["user", "n", "reciprocal_rank"]).to_pydict() == {
        "user": [1, 3],
        "n": [2, 2],
        "reciprocal_rank": [0.5, None],
    }
    assert table["log_loss"].null_count == 0
    assert result.groups == {
        "key": "user",
        "read": 3,
        "written": 2,
        "dropped": [
            {"cause": "no_positive", "column": "click", "role": "label", "groups": 1},
            {"cause": "small_group", "column": "user", "role": "group", "groups": 1},
        ],
        "without_value": {"reciprocal_rank": 1, "log_loss": 0},
        "saturated": {},
        "rows_of_null_key": 1,
        "order": "key",
    }
    assert [(entry["cause"], entry["rows"]) for entry in result.rows["dropped"]] == [("null_label", 1)]
    assert str(result).splitlines() == [
        "2 of 3 groups by user written; 4 of 7 rows scored",
        "1 row left out: null_label in column 'click', first at <stream>, row 6",
        "1 row of no group: null in user",
        "1 group without reciprocal_rank",
        "1 group: no_positive in column 'click'",
        "1 group: small_group in column 'user'",
    ]
    worst, _ = scored(log, out, loss="reciprocal_rank", top=5)
    assert worst["user"].to_pylist() == [1, 2]


def test_a_log_without_rows_has_the_columns(out: Path) -> None:
    for key, top in (("user", None), ("name", None), ("name", 3)):
        table, result = scored(log_of(0, 1), out, group=key, top=top)
        assert (table.num_rows, table.column_names) == (0, [key, "n", *METRICS])
        assert result.groups["written"] == 0


def test_saturated_groups_are_counted(out: Path) -> None:
    log = pa.table({"user": [1, 1, 2, 2], "p": [0.0, 1.0, 0.5, 0.5], "click": [1, 0, 1, 0]})
    options: dict[str, Any] = {"logit": None, "prob": "p", "loss": "categorical_crossentropy"}
    table, result = scored(log, out, **options)
    assert table["categorical_crossentropy"].to_pylist() == [pytest.approx(-math.log(1e-12)), math.log(2)]
    assert result.groups["saturated"] == {"categorical_crossentropy": 1}
    assert "1 group whose predictions rule out what happened, for categorical_crossentropy" in str(result)
    table, _ = scored(log, out, saturation="exact", **options)
    assert table["categorical_crossentropy"].to_pylist() == [math.inf, math.log(2)]


def softmax_log(keys: pa.Array) -> pa.Table:
    return pa.table({"user": keys, "score": [math.inf, math.inf, 0.1, math.inf, math.inf], "click": [1, 0, 1, 1, 0]})


@pytest.mark.parametrize(
    ("keys", "named", "evaluated"),
    [
        (pa.array([17, 17, 2, 300, 300]), "user = 17", "user = 17"),
        (pa.array([2**63 + 1, 2**63 + 1, 0, 2**63 + 2, 2**63 + 2], pa.uint64()), *[f"user = {2**63 + 1}"] * 2),
        (pa.array([1, 1, 0, 2, 2], pa.date32()), "user = 1970-01-02", "user = 1970-01-02"),
        (pa.array(["b", "b", "a", "c", "c"]), "user = '[bc]'", "the groups of user"),
    ],
)
def test_a_bad_group_is_named(keys: pa.Array, named: str, evaluated: str, out: Path) -> None:
    message = "column 'score' has two candidates at infinity"
    log = softmax_log(keys)
    with pytest.raises(fl.DataError, match=f"^{named}: {message}"):
        scored(log, out, loss="categorical_crossentropy")
    assert list(out.parent.iterdir()) == []
    with pytest.raises(fl.DataError, match=f"^{evaluated}: {message}"):
        fl.evaluate(log, label="click", logit="score", metrics="categorical_crossentropy", group="user")
    table, _ = scored(log, out, loss="categorical_crossentropy", on_bad_row="drop")
    assert table["categorical_crossentropy"].null_count == 2


def test_a_saturated_group_is_named(out: Path) -> None:
    log = pa.table({"user": [5, 3, 3, 4, 4], "p": [0.5, 0.0, 1.0, 0.0, 1.0], "click": [1, 1, 0, 1, 0]})
    options: dict[str, Any] = {"saturation": "error", "prob": "p", "group": "user"}
    message = r"^user = 3: column 'p' rules out an outcome that happened"
    with pytest.raises(fl.DataError, match=message):
        scored(log, out, logit=None, loss="categorical_crossentropy", **options)
    with pytest.raises(fl.DataError, match=message):
        fl.evaluate(log, label="click", metrics="categorical_crossentropy", **options)


def test_a_group_that_is_too_large_is_named(out: Path) -> None:
    log = pa.table({"user": np.full(400_000, 17), "score": np.zeros(400_000), "click": np.ones(400_000, np.int8)})
    message = r"^the group user = 17 has 400,000 rows, and 176 MiB of memory have no room to sort them"
    with pytest.raises(fl.UsageError, match=message):
        scored(log, out, memory="176MiB", threads=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "gauc"}, r"gauc has no value of a single group; name 'list_auc'"),
        ({"loss": ["log_loss", "roc_auc"]}, r"roc_auc has no value of a single group; name 'list_auc'"),
        ({"loss": "calibration"}, r"calibration has no value of a single group; name losses and rankings"),
        ({"loss": []}, r"loss names nothing; name one loss"),
        ({"group": None, "loss": ["log_loss", "brier_score"]}, r"loss names 2 losses, and of rows one is written"),
        ({"group": ["user", "name"]}, r"group names 2 keys.* is group=\[\('user', 'name'\)\], .* --group user,name\."),
        ({"group": None, "loss": "ndcg@10"}, r"ndcg@10 has no gradient; .* Of each group it is written by group="),
        ({"keep": "country"}, r"with group= the output has groups; leave out keep"),
        ({"group": "nobody"}, r"The log has no column 'nobody'"),
        ({"group": "other"}, r"floating point"),
        ({"group": None, "loss": "log_loss", "min_group_size": 2}, r"no group= makes groups"),
        (
            {"group": None, "logit": None, "score": "score", "loss": "log_loss"},
            r"an order alone, of which a row has no",
        ),
        ({"logit": None, "score": "score", "loss": "log_loss"}, r"log_loss reads logit= or prob= or logprob="),
        ({"with_columns": {"n": "user"}, "group": "n"}, r"group names the column 'n', and the output has one"),
        ({"top": 0}, r"top is 0; allowed: a whole number from 1"),
    ],
)
def test_what_cannot_be_written_is_refused(options: dict[str, Any], message: str, out: Path) -> None:
    with pytest.raises(fl.FastlossError, match=message):
        scored(log_of(10, 2), out, **options)
    assert list(out.parent.iterdir()) == []


def test_units_of_a_preset(out: Path) -> None:
    log = log_of(300, 15)
    nats, _ = scored(log, out, loss=["log_loss", "ndcg@10"])
    bits, result = scored(log, out, loss=["log_loss", "ndcg@10"], preset="torchrec")
    np.testing.assert_array_equal(bits["log_loss"], nats["log_loss"].to_numpy() / math.log(2))
    assert bits["ndcg@10"].equals(nats["ndcg@10"])
    assert "unit of log_loss: bits" in str(result)


def test_scores_have_rankings(out: Path) -> None:
    log = log_of(300, 15)
    by_logit, _ = scored(log, out, loss="ndcg@10")
    by_score, _ = scored(log, out, loss="ndcg@10", logit=None, score="score")
    assert by_score.equals(by_logit)


def test_an_output_is_replaced_only_if_asked(tmp_path: Path, out: Path) -> None:
    (tmp_path / "log").mkdir()
    pq.write_table(log_of(50, 5), tmp_path / "log/a.parquet")
    scored(tmp_path / "log", out, overwrite=False)
    with pytest.raises(fl.UsageError, match=r"groups.parquet' exists; choose another place, or overwrite=True"):
        scored(tmp_path / "log", out, overwrite=False)
    scored(tmp_path / "log", out)
    with pytest.raises(fl.UsageError, match="lies in the log's folder"):
        scored(tmp_path / "log", tmp_path / "log/groups.parquet")
    with pytest.raises(fl.UsageError, match="is the log's own file"):
        scored([tmp_path / "log/a.parquet"], tmp_path / "log/a.parquet")
    with pytest.raises(fl.UsageError, match="is a folder, and there is one file to write"):
        scored(tmp_path / "log", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["groups.parquet", "log"]


def test_a_disk_that_fills_up(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_nothing(self: pq.ParquetWriter, *arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write_nothing)
    with pytest.raises(OSError, match="No space left on device") as raised:
        scored(log_of(50, 5), out)
    assert raised.value.filename == str(out)
    assert list(out.parent.iterdir()) == []


def test_the_command_line(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(log_of(300, 15), tmp_path / "log.parquet")
    expected, _ = scored(tmp_path / "log.parquet", out, loss=["ndcg@10", "log_loss"], top=4)
    asked = ["--label", "click", "--logit", "score", "--loss", "ndcg@10, log_loss", "--group", "user", "--top", "4"]
    assert main(["score", str(tmp_path / "log.parquet"), str(out), *asked, "--overwrite"]) == 0
    assert pq.read_table(out).equals(expected)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "fastloss: 4 of 15 groups by user written; 300 of 300 rows scored"


@pytest.mark.slow
def test_hashed_keys_beyond_the_memory(tmp_path: Path, out: Path) -> None:
    rng, n = np.random.default_rng(0), 600_000
    user = rng.integers(0, 500_000, n)
    long = np.char.add(user.astype(str), " " + "x" * 180)
    log = pa.table({"user": user, "name": long, "score": rng.normal(size=n), "click": np.arange(n) % 2})
    pq.write_table(log, tmp_path / "log.parquet", row_group_size=50_000)
    options: dict[str, Any] = {"memory": "400MiB", "threads": 2, "loss": "ndcg@10"}
    by_name, result = scored(tmp_path / "log.parquet", out, group="name", **options)
    assert result.groups["order"] is None
    numbers = pa.compute.cast(pa.compute.utf8_slice_codeunits(by_name["name"], 0, 6), pa.string())
    numbers = pa.compute.cast(pa.compute.utf8_rtrim(numbers, " x"), pa.int64())
    by_name = by_name.set_column(0, "user", numbers).sort_by("user")
    by_user, _ = scored(tmp_path / "log.parquet", out, **options)
    assert by_name.equals(by_user.sort_by("user"))
    worst, _ = scored(tmp_path / "log.parquet", out, group="name", top=10, **options)
    values = [value for value in by_user["ndcg@10"].to_pylist() if value is not None]
    assert worst["ndcg@10"].to_pylist() == sorted(values)[:10]


def test_files_that_cannot_be_read_and_rows_that_a_filter_leaves_out(tmp_path: Path, out: Path) -> None:
    (tmp_path / "log").mkdir()
    log = log_of(200, 20)
    pq.write_table(log, tmp_path / "log/a.parquet")
    (tmp_path / "log/b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(fl.ReadError, match=r"log/b\.parquet"):
        scored(tmp_path / "log", out)
    table, result = scored(tmp_path / "log", out, on_bad_file="skip", where="country = 'DE'")
    expected, _ = scored(log.filter(pa.compute.equal(log["country"], "DE")), out)
    assert table.equals(expected)
    assert result.rows["filtered"] + result.rows["scored"] == result.rows["read"] == 200
    assert [Path(entry["file"]).name for entry in result.files["skipped"]] == ["b.parquet"]
    assert "left out by where" in str(result)
