"""Groups: rows of a flat log, in any order, are lists to the metrics that read lists."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastloss as fl
from fastloss.engine.gathering import mean_of_groups
from fastloss.plan import make_plan

METRICS = ["reciprocal_rank", "categorical_crossentropy"]


def log_of(n_rows: int, n_users: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    user = rng.integers(0, n_users, n_rows)
    score = np.round(rng.normal(size=n_rows), 1).astype(np.float32)
    return pa.table(
        {
            "user": user,
            "name": [f"user {i}" for i in user],
            "country": np.array(["DE", "FR", "US"])[user % 3],
            "score": score,
            "other": rng.normal(size=n_rows),
            "click": (rng.random(n_rows) < 0.3).astype(np.int8),
            "weight": rng.random(n_rows),
        }
    )


def as_lists(log: pa.Table, key: str = "user") -> pa.Table:
    """Return the log with a list of the rows of each user, in the order of the log."""
    lists: dict[Any, dict[str, list[Any]]] = {}
    for row in log.to_pylist():
        of_user = lists.setdefault(row[key], {"score": [], "other": [], "click": []})
        for column, values in of_user.items():
            values.append(row[column])
    columns = {column: [found[column] for found in lists.values()] for column in ("score", "other", "click")}
    return pa.table(columns | {key: list(lists)})


def evaluated(log: object, **options: Any) -> fl.Result:
    options = {"label": "click", "logit": "score", "metrics": METRICS, "group": "user", **options}
    return fl.evaluate(log, **options)


def numbers(result: fl.Result) -> list[Any]:
    return [(v.metric, v.model, dict(v.slice), v.value, v.n, v.weight) for v in result.values]


def test_groups_are_what_list_columns_are() -> None:
    log = log_of(3000, 200)
    models = {"a": "score", "b": "other"}
    of_groups = evaluated(log, logit=models)
    of_lists = evaluated(as_lists(log), logit=models, group=None)
    assert numbers(of_groups) == numbers(of_lists)
    assert of_groups.groups["user"]["groups"] == of_lists.rows["read"]
    assert of_groups.rows["read"] == 3000


@settings(max_examples=20)
@given(data=st.data())
def test_order_batches_threads_and_files_change_no_bit(data: st.DataObject, tmp_path_factory: Any) -> None:
    log = log_of(400, 30, seed=data.draw(st.integers(0, 5)))
    expected = numbers(evaluated(log, by="country", metrics=[*METRICS, "log_loss"]))
    order = np.random.default_rng(data.draw(st.integers(0, 1000))).permutation(log.num_rows)
    shuffled, folder = log.take(order), tmp_path_factory.mktemp("log")
    cut = data.draw(st.integers(0, log.num_rows))
    for number, part in enumerate((shuffled.slice(0, cut), shuffled.slice(cut))):
        pq.write_table(part, folder / f"{number}.parquet", row_group_size=data.draw(st.sampled_from([7, 100, 1000])))
    found = evaluated(
        folder,
        by="country",
        metrics=[*METRICS, "log_loss"],
        batch_rows=data.draw(st.sampled_from([1, 13, 4096])),
        threads=data.draw(st.sampled_from([1, 2, 3])),
    )
    assert numbers(found) == expected


def test_a_group_has_the_value_of_the_log_of_its_rows() -> None:
    log = log_of(300, 12)
    by_user = evaluated(log, by="user")
    for user in range(12):
        alone = evaluated(log.filter(pa.compute.equal(log["user"], user)))
        for metric in METRICS:
            try:
                assert by_user[metric, {"user": user}] == alone[metric]
            except fl.UsageError:
                assert alone[metric] is None


def test_several_keys_have_values_of_their_own() -> None:
    log = log_of(500, 40)
    both = evaluated(log, group=["user", ("country", "user"), "name"])
    alone = evaluated(log)
    for metric in METRICS:
        for key in ("user", "country+user", "name"):
            assert both[f"{metric}(group={key})"] == alone[metric]
    assert both.values[0].evidence["group"] == "user"


def test_a_group_weighs_what_its_rows_do_on_average() -> None:
    log = log_of(300, 20).append_column("one", pa.array(np.ones(300)))
    weighted = evaluated(log, weight="weight")
    value = weighted.values[0]
    lists = as_lists(log)
    means = [
        np.mean([w for u, w in zip(log["user"].to_pylist(), log["weight"].to_pylist(), strict=True) if u == user])
        for user in lists["user"].to_pylist()
    ]
    expected = evaluated(lists.append_column("weight", pa.array(means)), weight="weight", group=None).values[0]
    assert value.value == pytest.approx(expected.value, rel=1e-14)
    assert value.weight == pytest.approx(expected.weight, rel=1e-14)
    assert numbers(evaluated(log, weight="one")) == numbers(evaluated(log))


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    seed=st.integers(0, 100),
)
def test_mean_weights_do_not_depend_on_the_order(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    starts = np.append(0, np.cumsum(sizes))
    weight = rng.choice([rng.random(), 1.0, 3.0 * 2.0**-53, 0.1], size=starts[-1])
    found = mean_of_groups(weight, starts)
    other = weight.copy()
    for first, stop in itertools.pairwise(starts):
        other[first:stop] = rng.permutation(weight[first:stop])
        assert found[list(starts).index(first)] == pytest.approx(weight[first:stop].mean(), rel=1e-15)
    np.testing.assert_array_equal(mean_of_groups(other, starts), found)


def test_the_first_row_decides_the_slice() -> None:
    log = pa.table(
        {
            "user": [1, 2, 1, 2],
            "country": ["DE", None, "FR", "FR"],
            "score": [0.1, 0.2, 0.3, 0.4],
            "click": [1, 0, 0, 1],
        }
    )
    result = evaluated(log, metrics=["reciprocal_rank", "ctr"], by="country")
    assert result["reciprocal_rank", {"country": "DE"}] == 0.5
    assert result["reciprocal_rank", {"country": None}] == 1.0
    assert result["reciprocal_rank", {"country": "FR"}] is None
    assert result["ctr", {"country": "FR"}] == 0.5
    reasons = {v.reason for v in result.values if v.slice == {"country": "FR"} and v.value is None}
    assert reasons == {"no_groups"}


def test_rows_of_a_null_key_are_in_no_group() -> None:
    log = pa.table({"user": [1, None, 1, None], "score": [0.1, 0.2, 0.3, 0.4], "click": [1, 0, 0, 1]})
    result = evaluated(log, metrics=["reciprocal_rank", "ctr"])
    assert result["reciprocal_rank"] == 0.5
    assert result["ctr"] == 0.5
    assert result.groups == {"user": {"groups": 1, "dropped": [], "rows_of_null_key": 2}}
    assert "by user: 1 group; 2 rows of no group: null" in str(result)


def test_small_groups_are_left_out_and_counted() -> None:
    log = pa.table({"user": [1, 2, 1, 3, 3], "score": [0.1, 0.2, 0.3, 0.4, 0.5], "click": [1, 1, 0, 0, 0]})
    result = evaluated(log, metrics="reciprocal_rank", min_group_size=2)
    assert result["reciprocal_rank"] == 0.5
    (value,) = result.values
    assert value.n == 1
    dropped = result.groups["user"]["dropped"]
    assert [(entry["cause"], entry["groups"]) for entry in dropped] == [("no_positive", 1), ("small_group", 1)]


def test_rows_that_a_model_cannot_use_are_masked_for_it_alone() -> None:
    log = pa.table(
        {"user": [1, 1, 1], "score": [0.3, 0.2, 0.1], "other": [None, 0.2, 0.1], "click": [1, 1, 0]},
        schema=pa.schema(
            [("user", pa.int64()), ("score", pa.float32()), ("other", pa.float64()), ("click", pa.int8())]
        ),
    )
    found = evaluated(log, metrics="categorical_crossentropy", logit={"a": "score", "b": "other"})
    lists = pa.table({"score": [[0.3, 0.2, 0.1]], "other": [[None, 0.2, 0.1]], "click": [[1, 1, 0]]})
    lists = lists.set_column(0, "score", lists["score"].cast(pa.list_(pa.float32())))
    expected = evaluated(lists, metrics="categorical_crossentropy", logit={"a": "score", "b": "other"}, group=None)
    assert found["categorical_crossentropy"] == expected["categorical_crossentropy"]


def test_a_log_without_rows_has_no_value() -> None:
    result = evaluated(log_of(0, 1), metrics=["reciprocal_rank", "log_loss"], by="country")
    assert [(v.value, v.reason, v.n) for v in result.values] == [(None, "no_rows", 0)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": "log_loss"}, r"no metric here reads lists; add one that does"),
        ({"metrics": "precision,recall"}, r"add one that does, such as 'precision@5' or 'recall@20', or leave out"),
        ({"group": "nobody"}, r"The log has no column 'nobody'"),
        ({"group": "score"}, r"floating point"),
        ({"group": None, "metrics": "reciprocal_rank"}, r"such as group='request_id'"),
        ({"min_group_size": 0}, r"min_group_size is 0; allowed: a whole number from 1"),
        ({"group": None, "min_group_size": 2, "metrics": "log_loss"}, r"no group= makes groups"),
        ({"executor": "processes"}, r"group= gathers rows in one process"),
        ({"state": "x.fls"}, r"A state holds sums, and no groups"),
        ({"group": [("user", "user")]}, r"group holds \('user', 'user'\)"),
    ],
)
def test_what_cannot_be_grouped_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(fl.FastlossError, match=message):
        evaluated(log_of(10, 2), **options)


def test_list_columns_have_groups_as_they_are() -> None:
    with pytest.raises(fl.UsageError, match=r"holds lists as it is; leave out group="):
        evaluated(as_lists(log_of(10, 2)))


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    log = log_of(10, 2).set_column(3, "score", pa.array([float("nan")] * 10, pa.float32()))
    pq.write_table(log, tmp_path / "log.parquet")
    with pytest.raises(fl.DataError, match=r"log.parquet, row group 0, row 0: logit column 'score' is nan"):
        evaluated(tmp_path)


def write_sorted(log: pa.Table, folder: Path, *, row_group_size: int = 50, n_files: int = 3) -> Path:
    bounds = np.linspace(0, log.num_rows, n_files + 1).astype(int)
    for number, (first, stop) in enumerate(itertools.pairwise(bounds.tolist())):
        pq.write_table(log.slice(first, stop - first), folder / f"{number}.parquet", row_group_size=row_group_size)
    return folder


@pytest.mark.parametrize("key", ["user", "name"])
@pytest.mark.parametrize("option", ["recognised", "promised"])
@pytest.mark.parametrize("batch_rows", [7, 4096])
def test_a_log_that_is_grouped_gives_the_same(tmp_path: Path, key: str, option: str, batch_rows: int) -> None:
    log = log_of(1000, 60)
    options: dict[str, Any] = {"group": key, "metrics": [*METRICS, "log_loss"], "by": "country", "weight": "weight"}
    expected = numbers(evaluated(log, **options))
    folder = write_sorted(log.sort_by(key), tmp_path)
    found = evaluated(folder, **options, group_sorted=option == "promised", batch_rows=batch_rows)
    assert numbers(found) == expected


def test_ranges_of_keys_need_no_order_in_a_row_group(tmp_path: Path) -> None:
    log = log_of(1000, 60).sort_by("user")
    rng = np.random.default_rng(0)
    # Rows of a row group in any order.
    order = np.concatenate([first + rng.permutation(50) for first in range(0, 1000, 50)])
    pq.write_table(log.take(order), tmp_path / "log.parquet", row_group_size=50)
    assert numbers(evaluated(tmp_path)) == numbers(evaluated(log))


def test_groups_that_are_not_adjacent_are_named(tmp_path: Path) -> None:
    users = [1, 1, 2, 2, 3, 3, 1, 4]
    log = pa.table({"user": users, "name": [f"u{u}" for u in users], "score": [0.5] * 8, "click": [1, 0] * 4})
    pq.write_table(log, tmp_path / "log.parquet", row_group_size=4)
    for key, value in (("user", "1"), ("name", "'u1'")):
        with pytest.raises(fl.DataError) as caught:
            evaluated(tmp_path, metrics="reciprocal_rank", group=key, group_sorted=True, threads=1)
        assert f"the rows of the group {key}={value} are not adjacent, as group_sorted says" in str(caught.value)
    in_one = tmp_path / "one.parquet"
    pq.write_table(log, in_one)
    with pytest.raises(fl.DataError, match=r"user=1 are not adjacent.*one.parquet', row group 0, with others"):
        evaluated(in_one, metrics="reciprocal_rank", group_sorted=True)


def test_files_may_store_a_key_in_other_widths_and_not_as_other_values(tmp_path: Path) -> None:
    rows = {"y": [0.0, 1.0], "s": [0.1, 0.9]}
    request: dict[str, Any] = {"label": "y", "logit": "s", "group": "k", "metrics": ["mrr"]}

    def log(*keys: pa.Array) -> list[str]:
        for number, key in enumerate(keys):
            pq.write_table(pa.table({**rows, "k": key}), tmp_path / f"{number}.parquet")
        return [str(tmp_path / f"{number}.parquet") for number in range(len(keys))]

    for other in (pa.array([True, False]), pa.array([1, 2]).cast(pa.decimal128(21, 2))):
        with pytest.raises(fl.SchemaError, match=r"the key 'k' has type int64 in .* which are written differently"):
            fl.evaluate(log(pa.array([1, 2]), other), **request)
    texts = pa.array(["a", "b"])
    same = [(pa.array([1, 2], pa.int8()), pa.array([1, 2], pa.uint64())), (texts, texts.dictionary_encode())]
    for key, encoded in same:
        result = fl.evaluate(log(key, encoded), **request)
        # Of two rows each.
        assert result.groups["k"]["groups"] == 2
        assert fl.evaluate(log(key, encoded), **request, min_group_size=2).groups["k"]["groups"] == 2


def test_a_gate_and_a_result_know_metrics_by_their_group() -> None:
    result = evaluated(log_of(500, 40), group=["user", "name"], metrics=["mrr", "reciprocal_rank(k=2)"])
    assert result["mrr(group=user)"] == result["reciprocal_rank(group=user)"]
    assert result["mrr(k=2, group=name)"] == result["reciprocal_rank@2(group=name)"]
    assert "mrr(group=nobody)" not in result
    assert result.selected(sort="mrr(group=user)").values == result.values


def test_a_key_may_be_an_expression() -> None:
    log = log_of(500, 40)
    derived = log.append_column("few", pa.compute.utf8_slice_codeunits(log["name"], 0, 6))
    assert numbers(evaluated(log, group="left(name, 6)")) == numbers(evaluated(derived, group="few"))


def test_the_memory_that_an_error_asks_for_is_enough(tmp_path: Path) -> None:
    log = log_of(60_000, 500)
    log = log.set_column(1, "name", pa.array(["x" * 300 + str(user) for user in log["user"].to_pylist()]))
    pq.write_table(log, tmp_path / "log.parquet", use_dictionary=False)
    options: dict[str, Any] = {"label": "click", "logit": "score", "metrics": ["reciprocal_rank"], "group": "name"}
    with pytest.raises(fl.UsageError, match=r"too little for the largest row group .* Raise memory to") as raised:
        make_plan(tmp_path, **options, threads=2, memory="176MiB")
    asked = re.search(r"Raise memory to (\d+ MiB)", str(raised.value))
    assert asked is not None
    make_plan(tmp_path, **options, threads=2, memory=asked[1])


@pytest.mark.slow
def test_a_group_of_many_rows_has_the_memory_that_it_needs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n_rows = 9_000_000
    log = pa.table(
        {
            "user": np.where(rng.random(n_rows) < 0.7, 7, rng.integers(0, 100_000, n_rows)),
            "score": rng.normal(size=n_rows).astype(np.float32),
            "click": (rng.random(n_rows) < 0.3).astype(np.int8),
        }
    )
    pq.write_table(log, tmp_path / "log.parquet", row_group_size=1 << 20)
    one = evaluated(log.filter(pa.compute.equal(log["user"], 7)), memory="4GiB", metrics=["gauc", "ndcg@10"])
    found = evaluated(
        tmp_path, by="user", memory="1GiB", where='"user" = 7 or "user" < 100', metrics=["gauc", "ndcg@10"]
    )
    assert found["gauc", {"user": 7}] == one["gauc"]
    assert found["ndcg@10", {"user": 7}] == one["ndcg@10"]
    with pytest.raises(
        fl.UsageError, match=r"the group user = 7 has 6,\d\d\d,\d\d\d rows, and 288 MiB of memory have no"
    ):
        evaluated(tmp_path, memory="288MiB", metrics="gauc")


def test_a_model_has_the_same_groups_alone_and_beside_another() -> None:
    log = pa.table(
        {
            "user": [1, 1, 1, 2, 2],
            "country": ["DE", "FR", "FR", "DE", "DE"],
            "click": [1, 0, 0, 1, 0],
            "score": [None, 0.5, 0.9, 0.1, 0.5],
            "other": [0.1, 0.2, 0.3, 0.4, 0.5],
            "weight": [1.0, 1.0, 10.0, 1.0, 1.0],
        }
    )
    metrics = ["ndcg", "mrr(empty=zero)", "gauc", "categorical_crossentropy"]
    for options in ({}, {"weight": "weight"}, {"min_group_size": 3}, {"by": "country"}):
        alone = evaluated(log, metrics=metrics, logit={"a": "score"}, **options)
        beside = evaluated(log, metrics=metrics, logit={"a": "score", "b": "other"}, **options)
        assert numbers(alone) == [found for found in numbers(beside) if found[1] == "a"]


def test_ranking_metrics_are_means_whatever_is_done_with_losses() -> None:
    log = log_of(200, 20)
    expected = evaluated(log, weight="weight", metrics=["ndcg@5", "mrr"])
    for options in ({"preset": "keras"}, {"preset": "torch"}, {"reduction": "sum"}):
        found = evaluated(log, weight="weight", metrics=["mrr"], **options)
        assert found["mrr"] == expected["mrr"] or options.get("preset") == "torch"
        assert found["mrr"] <= 1.0
    loss = evaluated(log, metrics=["categorical_crossentropy", "mrr"], reduction="sum")
    assert (
        loss["categorical_crossentropy"]
        > evaluated(log, metrics="categorical_crossentropy")["categorical_crossentropy"]
    )


def test_equal_ids_are_no_favour() -> None:
    log = pa.table({"user": [1, 1, 1], "score": [1.0, 1.0, 1.0], "id": [7, 7, 7], "click": [0, 1, 0]})
    assert evaluated(log, metrics="mrr", ties="id_desc", id="id")["mrr"] == pytest.approx(1 / 3)


def test_common_rows_hold_for_gauc() -> None:
    log = pa.table({"user": [1, 1, 2, 2, 3, 3], "click": [1, 0, 1, 1, 0, 0], "score": [0.1, 0.2, 0.3, 0.2, 0.4, 0.4]})
    values = evaluated(log, metrics=["ndcg", "gauc"], common_rows=True).values
    assert [value.n for value in values] == [1, 1]
