"""The rules of ties: how metrics at ranks order candidates of equal scores, in lists and in groups of rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastloss as fl
from fastloss.request import Request

TREC = Path(__file__).parents[2] / "shared" / "data" / "trec_eval" / "test"
METRICS = ["ndcg@3", "dcg", "map", "mrr", "hit_rate@1", "precision@2", "recall@2"]
RULES = ("input", "pessimistic", "optimistic", "id_desc")


def random_lists(n_lists: int, seed: int = 4) -> pa.Table:
    """Lists with many ties, masked candidates and ids that differ within each list."""
    random = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {"y": [], "s": [], "text": [], "number": []}
    for _ in range(n_lists):
        n = int(random.integers(1, 9))
        masked = random.random(n) < 0.1
        rows["y"].append(random.integers(0, 3, n).astype(float).tolist())
        rows["s"].append([None if out else float(s) for s, out in zip(random.integers(0, 3, n), masked, strict=True)])
        # Not in the order of the numbers, beyond float64's integers, and in two languages.
        numbers = random.permutation(20)[:n] * 7 - 70 + 2**60
        rows["number"].append(numbers.tolist())
        rows["text"].append([f"{'é' if number % 2 else 'z'}{number % 97}" for number in numbers.tolist()])
    return pa.table(rows)


def strict_scores(table: pa.Table, rule: str, ids: str = "text") -> pa.Table:
    """Return the lists with scores that have no ties, in the order that a rule gives."""
    scores = []
    for label, score, names in zip(
        table["y"].to_pylist(), table["s"].to_pylist(), table[ids].to_pylist(), strict=True
    ):
        keys = {
            "input": [-place for place in range(len(label))],
            "pessimistic": [-y for y in label],
            "optimistic": label,
            "id_desc": [name.encode() if isinstance(name, str) else name for name in names],
        }[rule]
        order = sorted((i for i, s in enumerate(score) if s is not None), key=lambda i: (score[i], keys[i]))
        ranks = [None if s is None else float(order.index(i)) for i, s in enumerate(score)]
        scores.append(ranks)
    return table.set_column(table.column_names.index("s"), "s", pa.array(scores, pa.list_(pa.float64())))


def values_of(result: Any) -> list[tuple[str, float | None, int]]:
    return [(value.metric, value.value, value.n) for value in result.values]


def flat(table: pa.Table) -> pa.Table:
    """Return the lists as rows with a key."""
    group = np.repeat(np.arange(len(table)), [len(label) for label in table["y"].to_pylist()])
    return pa.table({"g": group, **{name: table[name].combine_chunks().flatten() for name in table.column_names}})


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_an_order_without_ties(rule: str) -> None:
    table = random_lists(150)
    request: dict[str, Any] = {"label": "y", "score": "s", "metrics": METRICS}
    options: dict[str, Any] = {"ties": rule, "id": "text"} if rule == "id_desc" else {"ties": rule}
    expected = values_of(fl.evaluate(strict_scores(table, rule), **request))
    found = fl.evaluate(table, **request, **options)
    assert values_of(found) == expected
    assert {value.evidence["ties"] for value in found.values} == {rule}
    # Rows with a key are the same lists; without an order of their own they may stand anywhere.
    rows = flat(table)
    assert values_of(fl.evaluate(rows, **request, **options, group="g", group_sorted=True)) == expected
    if rule != "input":
        rows = rows.take(np.random.default_rng(1).permutation(len(rows)))
    assert values_of(fl.evaluate(rows, **request, **options, group="g")) == expected


def test_integers_are_compared_as_numbers() -> None:
    table = random_lists(60)
    request: dict[str, Any] = {"label": "y", "score": "s", "metrics": METRICS}
    expected = values_of(fl.evaluate(strict_scores(table, "id_desc", "number"), **request))
    assert values_of(fl.evaluate(table, **request, ties="id_desc", id="number")) == expected
    assert values_of(fl.evaluate(flat(table), **request, ties="id_desc", id="number", group="g")) == expected


def test_best_and_worst_order_bound_the_mean_over_every_order() -> None:
    table = random_lists(40, seed=9)
    found = {
        rule: fl.evaluate(table, label="y", score="s", metrics=METRICS, ties=rule)
        for rule in ("pessimistic", "average", "optimistic")
    }
    for low, mean, high in zip(*(result.values for result in found.values()), strict=True):
        assert low.value < mean.value < high.value
    assert "ties" not in found["average"].values[0].evidence
    assert found["average"].fingerprint != found["optimistic"].fingerprint


@pytest.mark.slow
def test_areas_count_a_tie_as_one_half_under_any_rule() -> None:
    table = random_lists(40)
    request: dict[str, Any] = {"label": "y1", "score": "s", "metrics": ["gauc", "mrr"]}
    binary = pa.array([[float(y > 0) for y in label] for label in table["y"].to_pylist()])
    table = table.append_column("y1", binary)
    areas = {fl.evaluate(table, **request, ties=rule)["gauc"] for rule in ("average", "optimistic", "pessimistic")}
    assert len(areas) == 1


def test_ids_stand_beside_candidates() -> None:
    request: dict[str, Any] = {"label": "y", "score": "s", "metrics": "mrr", "ties": "id_desc", "id": "d"}
    table = pa.table(
        {
            "y": [[0.0, 1.0], None, [1.0, 0.0], [1.0, 0.0]],
            "s": [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]],
            # A null id is the lowest.
            "d": pa.array([["a", None], ["a", "b"], ["c", "d"], ["d", "c"]], pa.list_(pa.string())),
        }
    )
    assert fl.evaluate(table, **request)["reciprocal_rank"] == (1 / 2 + 1 / 2 + 1) / 3
    short = table.set_column(2, "d", pa.array([["a", "b"], None, ["c"], None], pa.list_(pa.string())))
    with pytest.raises(fl.DataError, match=r"column 'd'.*has a list of another length"):
        fl.evaluate(short, **request)
    dropped = fl.evaluate(short, **request, on_bad_row="drop")
    assert dropped["reciprocal_rank"] == 1.0
    assert [(d["cause"], d["column"], d["rows"]) for d in dropped.rows["dropped"]] == [
        ("different_lengths", "d", 2),
        ("null_label", "y", 1),
    ]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ties": "best"}, "ties is 'best'; allowed: 'average' or 'input' or"),
        ({"ties": "id_desc"}, r"ties='id_desc' orders tied candidates by a column; name it by id="),
        ({"id": "d"}, r"id='d' orders tied candidates, and ties is 'average'; give ties='id_desc'"),
        ({"ties": "id_desc", "id": "x"}, r"The log has no column 'x'"),
        (
            {"ties": "id_desc", "id": "one"},
            r"the id column 'one' has type string; a list with an id for each",
        ),
        ({"ties": "id_desc", "id": "s"}, r"the id column 's' has type .*; an id must be integer or string, or"),
        ({"ties": "input", "metrics": "gauc"}, r"ties='input' orders tied candidates for metrics at ranks"),
    ],
)
def test_what_is_not_understood_is_refused(options: dict[str, Any], error: str) -> None:
    table = pa.table({"y": [[0.0, 1.0]], "s": [[1.0, 1.0]], "d": [["a", "b"]], "one": ["a"]})
    with pytest.raises((fl.UsageError, fl.SchemaError), match=error):
        fl.evaluate(table, **{"label": "y", "score": "s", "metrics": "mrr", **options})


def test_a_request_is_stored_with_its_rule() -> None:
    request = Request.of(label="y", score="s", metrics="mrr", ties="id_desc", id="d")
    assert Request.from_dict(request.to_dict()) == request
    assert request.columns == ("y", "s", "d")


def test_trec_eval_prints_the_same_digits() -> None:
    judged: dict[str, dict[str, float]] = {}
    for line in (TREC / "qrels.test").read_text().splitlines():
        topic, _, name, grade = line.split()
        judged.setdefault(topic, {})[name] = float(grade)
    columns: dict[str, list[Any]] = {"topic": [], "y": [], "s": [], "id": []}
    found: dict[str, dict[str, float]] = {}
    for line in (TREC / "results.test").read_text().splitlines():
        topic, _, name, _, score, _ = line.split()
        found.setdefault(topic, {})[name] = float(score)
    for topic, scores in found.items():
        assert len(scores) == 500
        # What was judged relevant and not found stands behind all that was found.
        missing = dict.fromkeys((n for n, y in judged[topic].items() if y > 0 and n not in scores), -math.inf)
        for name, score in {**scores, **missing}.items():
            for column, value in zip(
                columns.values(), (topic, judged[topic].get(name, 0.0), score, name), strict=True
            ):
                column.append(value)
    ours = {"map": "map@500", "recip_rank": "mrr@500", "ndcg": "ndcg@500"}
    for k in (5, 10, 15, 20, 30, 100, 200, 500):
        names = {f"P_{k}": "precision", f"recall_{k}": "recall", f"map_cut_{k}": "map", f"ndcg_cut_{k}": "ndcg"}
        ours |= {theirs: f"{name}@{k}" for theirs, name in names.items()}
    result = fl.evaluate(
        pa.table(columns),
        label="y",
        score="s",
        group="topic",
        metrics=list(dict.fromkeys(ours.values())),
        ties="id_desc",
        id="id",
        by="topic",
    )
    values = {(value.metric, (value.slice or {}).get("topic", "all")): value.value for value in result.values}
    n_checked = 0
    for line in (TREC / "out.test.aq").read_text().splitlines():
        name, topic, printed = line.split()
        if name in ours:
            value = values[ours[name].replace("mrr", "reciprocal_rank"), topic]
            assert f"{value:.4f}" == printed, (name, topic)
            n_checked += 1
    for line in (TREC / "out.test.a").read_text().splitlines():
        name, topic, printed = line.split()
        if name in ours:
            value = values[ours[name].replace("mrr", "reciprocal_rank"), topic]
            assert f"{value:.4f}" == printed, (name, topic)
            n_checked += 1
    assert n_checked >= 35 + 3 * 15
