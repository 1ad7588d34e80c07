"""The gradient by features: against NumPy, finite differences and Newton's method, and from the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from conftest import Run

import fastloss as fl

N = 3_000


@pytest.fixture(scope="module")
def log() -> pa.Table:
    random = np.random.default_rng(3)
    a = random.normal(size=N).astype(np.float32)
    b = random.integers(-3, 4, N).astype(np.int16)
    c = random.random(N) < 0.3
    country = random.choice(["DE", "FR", "JP", None], N, p=[0.4, 0.3, 0.2, 0.1])
    z = 0.4 * a - 1.0
    p = 1.0 / (1.0 + np.exp(-(z + 0.3 * b + 0.5 * (country == "DE"))))
    embedding = pa.FixedSizeListArray.from_arrays(random.normal(size=2 * N), 2)
    return pa.table(
        {
            "y": (random.random(N) < p).astype(np.int8),
            "z": z,
            "w": random.choice([0.5, 1.0, 4.0, 0.0], N),
            "a": a,
            "b": b,
            "c": c,
            "country": pa.array(country.tolist()),
            "id": random.integers(0, 5, N),
            "e": embedding,
        }
    )


def columns_of(log: pa.Table, names: list[str]) -> np.ndarray:
    return np.array([log[name].to_numpy().astype(float) for name in names])


def by_hand(x: np.ndarray, g: np.ndarray, h: np.ndarray, w: np.ndarray) -> dict[str, np.ndarray]:
    """Score tests and Newton steps with NumPy: the bias is the last row of x."""
    x = np.vstack([x, np.ones(x.shape[1])])
    gradient, matrix = x @ (w * g), (x * (w * h)) @ x.T
    mean = matrix[:-1, -1] / matrix[-1, -1]
    centred = x[:-1] - mean[:, None]
    score, curvature = centred @ (w * g), (centred**2) @ (w * h)
    return {
        "gradient": gradient / w.sum(),
        "matrix": matrix / w.sum(),
        "z": score / np.sqrt((centred**2) @ (w * g) ** 2),
        "step": -score / curvature,
        "improvement": score**2 / (2 * curvature) / w.sum(),
        "joint": 0.5 * gradient @ np.linalg.solve(matrix, gradient) / w.sum()
        - gradient[-1] ** 2 / (2 * matrix[-1, -1]) / w.sum(),
        "joint_step": -np.linalg.solve(matrix, gradient),
    }


def test_numbers_are_those_of_the_definition(log: pa.Table) -> None:
    names = ["a", "b", "c"]
    found = fl.feature_gradient(log, label="y", logit="z", weight="w", features=names)
    y, z, w = columns_of(log, ["y", "z", "w"])
    g, h = fl.losses.BinaryCrossentropy().gradient_hessian(y, logit=z)
    used = w > 0
    expected = by_hand(columns_of(log, names)[:, used], g[used], h[used], w[used])
    assert found.n == used.sum()
    assert found.weight == w.sum()
    assert found.mean_loss == fl.evaluate(log, label="y", logit="z", weight="w", metrics="log_loss")["log_loss"]
    np.testing.assert_allclose([*found.gradient, found.bias_gradient], expected["gradient"], rtol=1e-12)
    np.testing.assert_allclose(found.gauss_newton, expected["matrix"], rtol=1e-12)
    np.testing.assert_allclose(found.gradient_sums, expected["gradient"][:-1] * w.sum(), rtol=1e-12)
    for name in ("z", "step", "improvement"):
        np.testing.assert_allclose([getattr(s.numbers, name) for s in found.features], expected[name], rtol=1e-11)
    steps = [*(s.numbers.joint_step for s in found.features), found.columns.bias.joint_step]
    np.testing.assert_allclose(steps, expected["joint_step"], rtol=1e-11)
    np.testing.assert_allclose(found.columns.joint_improvement, expected["joint"], rtol=1e-11)
    assert [s.name for s in found.ranked()] == ["b", "a", "c"]
    assert [s.name for s in found.ranked("feature", 2)] == ["a", "b"]


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        ("log_loss", lambda z, y: mpmath.log(1 + mpmath.exp(z)) - y * z),
        ("half_squared_sigmoid", lambda z, y: (1 / (1 + mpmath.exp(-z)) - y) ** 2 / 2),
    ],
)
def test_the_gradient_is_the_derivative_of_the_mean_loss(loss: str, formula: Callable[..., Any]) -> None:
    random = np.random.default_rng(5)
    x, z = random.normal(size=(2, 12)), random.normal(size=12)
    y, w = random.random(12), random.random(12)
    table = pa.table({"y": y, "z": z, "w": w, "a": x[0], "b": x[1]})
    found = fl.feature_gradient(table, label="y", logit="z", weight="w", features="a,b", loss=loss)
    with mpmath.workdps(40):

        def mean(*weights: float) -> Any:
            terms = [
                w[i] * formula(z[i] + weights[0] * x[0, i] + weights[1] * x[1, i] + weights[2], y[i])
                for i in range(12)
            ]
            return mpmath.fsum(terms) / mpmath.fsum(w)

        expected = [float(mpmath.diff(mean, (0, 0, 0), order)) for order in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    np.testing.assert_allclose([*found.gradient, found.bias_gradient], expected, rtol=1e-12)


def test_newton_steps_lead_to_the_maximum_of_the_likelihood(shared_data: Path) -> None:
    """On LightGBM's example: the joint steps fit a logistic regression, after which no feature has a gradient."""
    path = shared_data / "lightgbm" / "examples" / "binary_classification" / "binary.test"
    if not path.exists():
        pytest.skip("LightGBM's example is not here")
    rows = np.loadtxt(path)
    names = [f"f{i}" for i in range(1, 8)]
    z = np.zeros(len(rows))
    improvements = []
    for _ in range(7):
        table = pa.table({"y": rows[:, 0], "z": z} | {f"f{i}": rows[:, i] for i in range(1, 29)})
        found = fl.feature_gradient(table, label="y", logit="z", features=names)
        improvements.append((found.columns.joint_improvement, found.mean_loss))
        steps = [score.numbers.joint_step for score in found.features]
        z = z + columns_of(table, names).T @ np.array(steps) + found.columns.bias.joint_step
    assert np.abs(found.gradient).max() < 1e-14
    from sklearn.linear_model import LogisticRegression

    x, y = columns_of(table, names).T, rows[:, 0]
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000, solver="newton-cholesky").fit(x, y)
    np.testing.assert_allclose(z, fitted.decision_function(x), atol=1e-9)
    # The last step promises what it gives.
    promised, before = improvements[1]
    assert before - improvements[2][1] == pytest.approx(promised, rel=0.1)
    others = fl.feature_gradient(table, label="y", logit="z", features=[f"f{i}" for i in range(1, 29)])
    assert {score.name for score in others.ranked(top=3)} <= {f"f{i}" for i in range(8, 29)}


def test_categories_are_columns_of_ones(log: pa.Table) -> None:
    indicators = {"de": "country = 'DE'", "none": "country is null", "three": "id = 3"}
    ones = fl.feature_gradient(
        log, label="y", logit="z", weight="w", features=list(indicators), with_columns={**indicators}
    )
    found = fl.feature_gradient(log, label="y", logit="z", weight="w", features=["country", "a"], categorical="id")
    by_name = {score.name: score for score in found.features}
    assert list(by_name) == [
        "country=DE",
        "country=FR",
        "country=JP",
        "country=null",
        "a",
        *(f"id={i}" for i in range(5)),
    ]
    for score, name in zip(ones.features, ["country=DE", "country=null", "id=3"], strict=True):
        for number in ("gradient", "gradient_sum", "curvature", "z", "step", "improvement"):
            expected = getattr(score.numbers, number)
            assert getattr(by_name[name].numbers, number) == pytest.approx(expected, rel=1e-11), (name, number)
    used = log["w"].to_numpy() > 0
    assert by_name["country=FR"].n == int((log["country"].to_numpy(zero_copy_only=False) == "FR")[used].sum())
    # All categories but one, as columns of numbers, hold what the group holds.
    columns = {f"c{i}": f"id = {i}" for i in range(4)}
    whole = fl.feature_gradient(
        log, label="y", logit="z", weight="w", features=list(columns), with_columns={**columns}
    )
    assert found.groups["id"].n_categories == 5
    assert found.groups["id"].improvement == pytest.approx(whole.columns.joint_improvement, rel=1e-9)
    assert [float(g) for g in found.gradient] == [by_name["a"].numbers.gradient]


def test_lists_are_columns_by_place(log: pa.Table) -> None:
    flat = np.asarray(log["e"].combine_chunks().flatten()).reshape(-1, 2)
    given = flat.astype(object)
    given[5, 0] = None
    lists = pa.array([None if i == 7 else row for i, row in enumerate(given.tolist())], pa.list_(pa.float64()))
    filled = flat.copy()
    filled[5, 0], filled[7] = 0.0, 0.0
    table = log.append_column("lists", lists).append_column("e0", pa.array(filled[:, 0]))
    table = table.append_column("e1", pa.array(filled[:, 1]))
    found = fl.feature_gradient(table, label="y", logit="z", features=["lists", "b"], batch_rows=6)
    columns = fl.feature_gradient(table, label="y", logit="z", features=["e0", "e1", "b"])
    assert found.names == ("lists[0]", "lists[1]", "b")
    assert np.array_equal(found.gauss_newton, columns.gauss_newton)
    assert [s.numbers for s in found.features] == [s.numbers for s in columns.features]
    # A null place takes nothing from the others.
    assert [s.n for s in found.features] == [N - 2, N - 1, N]
    apart = pa.table({"y": [1, 0, 1, 0], "z": [0.1, 0.3, -0.2, 0.0], "e": [[1.0, None], None, [], [2.0, None]]})
    for batch_rows in (1, 2, 9):
        found = fl.feature_gradient(apart, label="y", logit="z", features="e", batch_rows=batch_rows)
        assert [s.n for s in found.features] == [2, 0]
        assert found.features[0].numbers.gradient is not None
        assert found.features[1].numbers.reason == "constant"


def test_lists_of_categories_are_columns_of_ones(log: pa.Table) -> None:
    random = np.random.default_rng(8)
    tags = [
        None if i % 50 == 0 else random.choice(["x", "y", "z", None], i % 4).tolist() + ["x"] * (i % 3 == 0)
        for i in range(N)
    ]
    ids = [None if tag is None else [{"x": 7, "y": -1, "z": 0}.get(name) for name in tag] for tag in tags]
    table = log.append_column("tags", pa.array(tags, pa.list_(pa.string())))
    table = table.append_column("ids", pa.array(ids, pa.large_list(pa.int32())))
    for name in ("x", "y"):
        table = table.append_column(f"has_{name}", pa.array([tag is not None and name in tag for tag in tags]))
    table = table.append_column("has_null", pa.array([tag is not None and None in tag for tag in tags]))
    ones = fl.feature_gradient(table, label="y", logit="z", weight="w", features="has_x,has_y,has_null")
    expected = fl.feature_gradient(
        table, label="y", logit="z", weight="w", features="a,tags,country", categorical="ids"
    )
    by_name = {score.name: score for score in expected.features}
    for score, names in zip(ones.features, [("x", 7), ("y", -1), ("null", "null")], strict=True):
        for name in (f"tags={names[0]}", f"ids={names[1]}"):
            for number in ("gradient", "curvature", "z", "step", "improvement"):
                found = getattr(by_name[name].numbers, number)
                assert found == pytest.approx(getattr(score.numbers, number), rel=1e-11), (name, number)
    used = table["w"].to_numpy() > 0
    n_without = sum(not tag for tag, kept in zip(tags, used, strict=True) if kept)
    assert expected.groups["tags"].n_without == expected.groups["ids"].n_without == n_without > 0
    assert f"tags: {n_without} rows with no category" in str(expected)
    assert by_name["tags=x"].n == int(table["has_x"].to_numpy()[used].sum())
    assert (expected.groups["tags"].n_categories, expected.groups["tags"].improvement) == (4, None)
    shuffled = table.take(random.permutation(N))
    again = fl.feature_gradient(
        shuffled, label="y", logit="z", weight="w", features="a,tags,country", categorical="ids", batch_rows=101
    )
    assert content_of(again) == content_of(expected)


def test_categories_that_outgrow_the_memory_are_refused() -> None:
    n = 400_000
    ids = pa.LargeListArray.from_arrays(np.arange(n + 1), pa.array(np.arange(n) * 3))
    table = pa.table({"y": np.arange(n) % 2, "z": np.linspace(-1.0, 1.0, n), "ids": ids})
    with pytest.raises(fl.UsageError, match=r"the categories in ids take .* Leave them out, or raise memory"):
        fl.feature_gradient(table, label="y", logit="z", features=(), categorical="ids", memory="256MiB", threads=1)
    ids = table.set_column(2, "id", pa.array(np.arange(n)))
    with pytest.raises(fl.UsageError, match=r"the [\d,]+ categories in id take .* Leave them out, or raise memory"):
        fl.feature_gradient(ids, label="y", logit="z", features=(), categorical="id", memory="256MiB", threads=1)


def content_of(found: fl.FeatureGradient) -> dict[str, Any]:
    content = found.to_dict()
    del content["plan"], content["files"], content["rows"]
    return content


def test_no_digit_depends_on_layout(log: pa.Table, tmp_path: Path) -> None:
    request: dict[str, Any] = {
        "label": "y", "logit": "z", "weight": "w", "features": ["a", "b", "e", "country"]
    }  # fmt: skip
    expected = content_of(fl.feature_gradient(log, **request, threads=1))
    shuffled = log.take(np.random.default_rng(1).permutation(N))
    wide = shuffled.set_column(3, "a", shuffled["a"].cast(pa.float64()))
    wide = wide.set_column(6, "country", wide["country"].dictionary_encode())
    for i, (first, stop) in enumerate([(0, 1), (1, 2_000), (2_000, N)]):
        pq.write_table(wide.slice(first, stop - first), tmp_path / f"{9 - i}.parquet", row_group_size=700)
    assert content_of(fl.feature_gradient(tmp_path, **request, threads=3)) == expected
    for batch_rows in (97, 1_000_000):
        assert content_of(fl.feature_gradient(shuffled, **request, batch_rows=batch_rows)) == expected
    without = {**request, "features": ["a", "b", "e"]}
    alone = content_of(fl.feature_gradient(log, **without))
    assert alone["features"] == expected["features"][:4]


@pytest.mark.slow
def test_processes_give_the_same_digits(log: pa.Table, tmp_path: Path) -> None:
    pq.write_table(log, tmp_path / "log.parquet", row_group_size=700)
    tags = {"with_columns": {"tags": "string_to_array(country, 'R')"}}
    request: dict[str, Any] = {"label": "y", "logit": "z", "features": ["a", "e", "tags", "country"], **tags}
    expected = content_of(fl.feature_gradient(tmp_path, **request, threads=1))
    assert content_of(fl.feature_gradient(tmp_path, **request, executor="processes", threads=2)) == expected
    by_batch = content_of(fl.feature_gradient(log.slice(0, 300), **request, batch_rows=1))
    assert by_batch == content_of(fl.feature_gradient(log.slice(0, 300), **request))


def test_constant_and_collinear_features_are_named_and_not_inverted(log: pa.Table) -> None:
    derived = {"two": "a * 2", "sum": "a + b", "one": "a * 0 + 3.7", "zero": "a * 0"}
    found = fl.feature_gradient(
        log, label="y", logit="z", features=["a", "two", "one", "b", "sum", "zero"], with_columns={**derived}
    )
    assert found.collinear == ["two", "sum"]
    reasons = {score.name: score.numbers.reason for score in found.features}
    assert reasons == {"a": None, "two": None, "one": "constant", "b": None, "sum": None, "zero": "constant"}
    plain = fl.feature_gradient(log, label="y", logit="z", features=["a", "b"])
    assert found.columns.joint_improvement == pytest.approx(plain.columns.joint_improvement, rel=1e-12)
    assert "left out of the step of all, since others determine them: two, sum" in str(found)
    diagonal = fl.feature_gradient(log, label="y", logit="z", features=["a", "b"], diagonal=True)
    assert diagonal.gauss_newton is None
    assert diagonal.columns.joint_improvement is None
    assert [s.to_dict() | {"joint_step": 0} for s in diagonal.features] == [
        s.to_dict() | {"joint_step": 0} for s in plain.features
    ]


def test_a_feature_far_from_zero_keeps_its_digits(log: pa.Table) -> None:
    plain = fl.feature_gradient(log, label="y", logit="z", features="b").features[0].numbers
    far = fl.feature_gradient(log, label="y", logit="z", features="b + 30000").features[0].numbers
    for number in ("z", "step", "improvement"):
        assert getattr(far, number) == pytest.approx(getattr(plain, number), rel=1e-6)


def test_features_far_from_zero_are_summed_less_their_mean(log: pa.Table) -> None:
    """In a second pass, to the digits of what is left of them; with nulls, in lists, and whatever the layout."""
    far, near = (
        {
            "f": log["a"].to_numpy().astype(float) + offset,
            "i": np.where(log["y"].to_numpy() > 0, 4, log["id"].to_numpy()) + (9_000_000_000_000 if offset else 0),
            "e": pa.FixedSizeListArray.from_arrays(np.asarray(log["e"].combine_chunks().flatten()) + offset, 2),
            "n": pa.array(log["a"].to_numpy() + 3.0, mask=np.arange(N) % 5 == 0),
        }
        for offset in (1e9, 0.0)
    )
    near["f"] = far["f"] - 1e9
    near["e"] = pa.FixedSizeListArray.from_arrays(np.asarray(far["e"].flatten()) - 1e9, 2)
    columns = {name: log[name] for name in ("y", "z", "w", "country")}
    table, plain = (pa.table({**columns, **each}) for each in (far, near))
    request: dict[str, Any] = {"label": "y", "logit": "z", "weight": "w", "features": ["f", "n", "i", "e", "country"]}
    found, expected = (fl.feature_gradient(each, **request) for each in (table, plain))
    for score, known in zip(found.features, expected.features, strict=True):
        assert (score.name, score.n, score.numbers.reason) == (known.name, known.n, None)
        for number in ("profiled", "z", "step", "improvement", "noise", "joint_step"):
            value = getattr(known.numbers, number)
            assert getattr(score.numbers, number) == (None if value is None else pytest.approx(value, rel=1e-8)), (
                number
            )
    assert found.columns.joint_improvement == pytest.approx(expected.columns.joint_improvement, rel=1e-8)
    offsets = [1e9, 0.0, 9e12, 1e9, 1e9]
    moved = [score.numbers.joint_step * offset for score, offset in zip(found.features, offsets, strict=False)]
    before = expected.columns.bias.joint_step
    assert found.columns.bias.joint_step == pytest.approx(before - math.fsum(moved), rel=1e-12)
    w, g = log["w"].to_numpy(), 1.0 / (1.0 + np.exp(-log["z"].to_numpy().astype(float))) - log["y"].to_numpy()
    assert found.gradient[0] == pytest.approx(np.dot(w * g, far["f"]) / w.sum(), rel=1e-9)
    shuffled = table.take(np.random.default_rng(1).permutation(N))
    assert content_of(fl.feature_gradient(shuffled, **request, batch_rows=97)) == content_of(found)
    lists = pa.array([None, [1e9, 3.0], [1e9 + 1, 2.0], [1e9 + 3, 5.0], None], pa.list_(pa.float64()))
    tall = pa.table({"y": [1, 0, 1, 0, 0], "z": [0.1, 0.3, -0.2, 0.0, 0.4], "e": lists.fill_null([1e9, 0.0])})
    by_row = fl.feature_gradient(tall, label="y", logit="z", features="e", batch_rows=1)
    assert content_of(by_row) == content_of(fl.feature_gradient(tall, label="y", logit="z", features="e"))
    assert [score.numbers.reason for score in by_row.features] == [None, None]


@pytest.mark.parametrize(
    ("feature", "reason"),
    [
        ("cast(a as double) + 3000000", "varies_too_little"),
        ("cast(a as double) + 1e9", "varies_too_little"),
        ("9000000000000 + id", "varies_too_little"),
        ("cast(a as double) * 1e-200", "too_small"),
        ("cast(a as double) * 0 + 1e9", "constant"),
        ("cast(a as double) * 0 + 1e-200", "constant"),
        ("cast(a as double) * 1e200", "infinite_terms"),
        ("cast(a as double) * 1e-100", None),
    ],
)
def test_what_has_no_digits_is_told_from_what_is_constant(log: pa.Table, feature: str, reason: str | None) -> None:
    # A log that is read once, so that no second pass takes a mean from the numbers.
    found = fl.feature_gradient(log.to_reader(), label="y", logit="z", features=[feature])
    numbers = found.features[0].numbers
    assert numbers.reason == reason
    if reason is not None:
        assert (numbers.z, numbers.step, numbers.improvement, numbers.joint_step) == (None,) * 4
    else:
        plain = fl.feature_gradient(log, label="y", logit="z", features="a").features[0].numbers
        assert numbers.z == pytest.approx(plain.z, rel=1e-12)
    remedies = {"varies_too_little": "subtract an offset, as in --features 'x - 1e9'", "too_small": "'x * 1e200'"}
    assert all((remedy in str(found)) == (reason == known) for known, remedy in remedies.items())


def test_rows_without_a_feature_and_bad_rows() -> None:
    table = pa.table({"y": [1, 0, 1, 0], "z": [0.5, 0.1, -0.2, 1.0], "a": [1.0, None, 2.0, -1.0]})
    found = fl.feature_gradient(table, label="y", logit="z", features="a")
    filled = table.set_column(2, "a", pa.array([1.0, 0.0, 2.0, -1.0]))
    assert found.columns.scores == fl.feature_gradient(filled, label="y", logit="z", features="a").columns.scores
    assert (found.features[0].n, found.n) == (3, 4)
    for bad, shown in ((math.nan, "nan"), (-math.inf, "-inf")):
        broken = table.set_column(2, "a", pa.array([1.0, None, bad, -1.0]))
        with pytest.raises(fl.DataError, match=rf"row 2: feature column 'a' is {shown}; allowed: finite numbers"):
            fl.feature_gradient(broken, label="y", logit="z", features="a")
        dropped = fl.feature_gradient(broken, label="y", logit="z", features="a", on_bad_row="drop")
        rest = table.take([0, 1, 3])
        assert dropped.columns.scores == fl.feature_gradient(rest, label="y", logit="z", features="a").columns.scores
        assert [(d["role"], d["rows"]) for d in dropped.rows["dropped"]] == [("feature", 1)]
    ragged = pa.table({"y": [1, 0, 1], "z": [0.1, 0.2, 0.3], "e": [[1.0, 2.0], None, [1.0]]})
    for batch_rows in (1, 100):
        with pytest.raises(fl.DataError, match=r"feature column 'e' has lists of \d and of \d numbers; allowed: one"):
            fl.feature_gradient(ragged, label="y", logit="z", features="e", batch_rows=batch_rows)
    nan = pa.table({"y": [1, 0], "z": [0.1, 0.2], "e": [[1.0, 2.0], [1.0, math.nan]]})
    with pytest.raises(fl.DataError, match="row 1: feature column 'e' is nan"):
        fl.feature_gradient(nan, label="y", logit="z", features="e")
    assert fl.feature_gradient(nan, label="y", logit="z", features="e", on_bad_row="drop").n == 1


def test_no_rows_and_losses_without_curvature() -> None:
    empty = pa.table({"y": pa.array([], pa.int8()), "z": pa.array([], pa.float64()), "a": pa.array([], pa.float32())})
    found = fl.feature_gradient(empty, label="y", logit="z", features="a")
    assert (found.n, found.mean_loss, found.bias_gradient) == (0, None, None)
    assert [s.numbers.reason for s in found.features] == ["no_rows"]
    assert "null (no rows)" in str(found)
    table = pa.table({"y": [1.0, 2.0, 4.0], "p": [1.5, 1.5, 1.5], "a": [1.0, 2.0, 3.0], "c": ["x", "y", "y"]})
    flat = fl.feature_gradient(table, label="y", value="p", features=["a", "c"], loss="mean_absolute_error")
    assert [s.numbers.reason for s in flat.features] == ["no_curvature"] * 3
    # Gradients 1, -1 and -1 times 1, 2 and 3.
    assert flat.features[0].numbers.z == pytest.approx(-4 / math.sqrt(14), rel=1e-15)
    assert flat.columns.joint_reason == "no_curvature"
    default = fl.feature_gradient(table, label="y", value="p", features="a")
    assert (default.loss, default.gradient.tolist()) == ("mean_squared_error", [(1.0 - 2.0 - 15.0) / 3])


def test_noise_is_told_beside_an_improvement(log: pa.Table) -> None:
    """Categories of one row each fit every residual: all that they promise is noise."""
    random = np.random.default_rng(2)
    n = 2_000
    z = random.normal(size=n)
    y = (random.random(n) < 1.0 / (1.0 + np.exp(-z))).astype(np.int8)
    tens = random.permutation(n) // 10
    table = pa.table({"y": y, "z": z, "one": np.arange(n), "ten": tens, "x": random.normal(size=n)})
    found = fl.feature_gradient(table, label="y", logit="z", features="x", categorical=["one", "ten"])
    one, ten = found.groups["one"], found.groups["ten"]
    assert (one.n_categories, ten.n_categories) == (n, n // 10)
    assert one.noise == pytest.approx(one.improvement, rel=1e-3)
    p = 1.0 / (1.0 + np.exp(-z))
    g, h, b = (np.bincount(tens, values) for values in (p - y, p * (1 - p), (p - y) ** 2))
    assert ten.improvement == pytest.approx(0.5 * ((g**2 / h).sum() - g.sum() ** 2 / h.sum()) / n, rel=1e-12)
    assert ten.noise == pytest.approx(0.5 * ((b / h).sum() - b.sum() / h.sum()) / n, rel=1e-12)
    # Chance alone: within the spread of a χ² of 199 degrees of freedom.
    assert abs(ten.improvement / ten.noise - 1.0) < 4 * math.sqrt(2 / 199)
    numbers = found.features[0].numbers
    assert numbers.improvement == pytest.approx(numbers.noise * numbers.z**2, rel=1e-12)
    assert found.columns.joint_noise == pytest.approx(numbers.noise, rel=1e-12)
    assert "further, by one, 2,000 categories" in str(found)
    wrong = table.set_column(1, "z", pa.array(np.where(y > 0, -9.0, 9.0)))
    found = fl.feature_gradient(wrong, label="y", logit="z", features="z * 2", categorical="one")
    scores = [found.columns.bias, *(score.numbers for score in found.features)]
    assert max(score.improvement for score in scores if score.improvement is not None) <= found.mean_loss
    assert found.groups["one"].improvement == found.columns.joint_improvement == found.mean_loss
    assert "an improvement of the whole mean is a Newton step's that goes too far" in str(found)


def test_the_sign_of_the_score_stands_beside_it(log: pa.Table) -> None:
    found = fl.feature_gradient(log, label="y", logit="z", features=["b + 9", "country"], categorical="id")
    for score in found.features:
        numbers = score.numbers
        assert math.copysign(1, numbers.profiled) == math.copysign(1, numbers.z) == -math.copysign(1, numbers.step)
    shifted, plain = (fl.feature_gradient(log, label="y", logit="z", features=name) for name in ("b + 9", "b"))
    assert shifted.gradient[0] != plain.gradient[0]
    assert shifted.columns.scores[0].profiled == pytest.approx(plain.columns.scores[0].profiled, rel=1e-12)
    assert "profiled: the gradient where the bias is at its best" in str(found)


def test_an_infinite_mean_has_no_improvement() -> None:
    """A logit of the wrong infinity: gradients are finite, the mean is not."""
    table = pa.table(
        {"y": [1, 0, 1, 0], "z": [-math.inf, 0.4, 0.5, 0.9], "a": [1.0, 2.0, 3.0, 5.0], "c": list("uvuv")}
    )
    found = fl.feature_gradient(table, label="y", logit="z", features=["a", "c"])
    assert found.mean_loss == math.inf
    assert {score.numbers.reason for score in found.features} == {"infinite_loss"}
    assert [score.numbers.improvement for score in found.features] == [None] * 3
    assert (found.columns.joint_improvement, found.groups["c"].improvement) == (None, None)
    assert "null (the mean loss is not finite)" in str(found)
    one = (
        table.slice(1).append_column("far", pa.array([1e200, -1e200, 1e200])).append_column("one", pa.array([1, 1, 1]))
    )
    some = fl.feature_gradient(one, label="y", logit="z", features=["far", "a", "one"])
    assert "not in the step of all: far (infinite terms), one (constant)" in str(some)


@pytest.mark.parametrize("loss", ["log_loss", "brier_score", "mean_squared_error"])
def test_the_layer_of_probabilities_is_one_of_logits(log: pa.Table, loss: str) -> None:
    """Derivatives by the logit z of p = σ(z), where the loss is asked for by p, or by log p."""
    z, y, a = log["z"].to_numpy().astype(float), log["y"].to_numpy(), log["a"].to_numpy().astype(float)
    p = 1.0 / (1.0 + np.exp(-z))
    table = log.append_column("p", pa.array(p)).append_column("l", pa.array(np.log(p)))
    slope = p * (1.0 - p)
    g, h = (p - y, slope) if loss == "log_loss" else (
        2 * (p - y) * slope, 2 * slope**2 + 2 * (p - y) * slope * (1 - 2 * p)
    )  # fmt: skip
    expected = by_hand(a[None], g, h, np.ones(N))
    spaces = {"prob": "p"} if loss == "mean_squared_error" else {"prob": "p", "logprob": "l"}
    for space, column in spaces.items():
        found = fl.feature_gradient(table, label="y", features=["a"], loss=loss, **{space: column})  # type: ignore[arg-type]
        np.testing.assert_allclose([*found.gradient, found.bias_gradient], expected["gradient"], rtol=1e-11)
        np.testing.assert_allclose(found.gauss_newton, expected["matrix"], rtol=1e-10)
        assert found.features[0].numbers.z == pytest.approx(expected["z"][0], rel=1e-10)


def test_a_clipped_row_counts_for_what_its_logit_says() -> None:
    p, y = [0.0, 1.0, 0.4, 0.5, 0.9], [1, 1, 0, 1, 0]
    table = pa.table({"y": y, "p": p, "l": np.log(np.maximum(p, 1e-320)), "a": [1.0, 2.0, 3.0, 5.0, 7.0]})
    found = fl.feature_gradient(table, label="y", prob="p", features="a")
    assert found.gradient[0] == pytest.approx(np.dot(np.subtract(p, y), table["a"].to_numpy()) / 5, rel=1e-14)
    assert found.n_saturated == 1
    assert "saturated rows" in str(found)
    again = fl.feature_gradient(table, label="y", logprob="l", features="a")
    np.testing.assert_allclose(again.gradient, found.gradient, rtol=1e-13)


def test_infinite_terms_are_named() -> None:
    table = pa.table({"y": [1, 0, 1, 0], "p": [0.0, 0.4, 0.5, 0.9], "a": [1.0, 2.0, 3.0, 5.0], "c": list("uvuv")})
    huge = table.append_column("far", pa.array([1e200, -1e200, 1e200, 3.0]))
    found = fl.feature_gradient(huge, label="y", logit="p", features="far")
    assert (found.features[0].numbers.reason, found.columns.joint_reason) == ("infinite_terms",) * 2
    found = fl.feature_gradient(table, label="y", prob="p", features=["a", "c"], saturation="exact")
    assert {score.numbers.reason for score in found.features} == {"infinite_loss"}
    assert (found.mean_loss, found.n_saturated) == (math.inf, 1)
    assert found.columns.joint_improvement is None
    assert json.loads(found.to_json())["mean_loss"] == "inf"
    with pytest.raises(fl.DataError, match="saturation="):
        fl.feature_gradient(table, label="y", prob="p", features="a", saturation="error")


def test_many_columns_and_categories_by_quantiles(log: pa.Table) -> None:
    short = log.slice(0, 500)
    wide = short.append_column("many", pa.FixedSizeListArray.from_arrays(np.arange(500.0 * 65) % 7, 65))
    found = fl.feature_gradient(wide, label="y", logit="z", features=["many", "qcut(b, 2)"])
    assert found.gauss_newton is None
    assert "null (too many numbers)" in str(found)
    assert "the step of all takes up to 64 numbers, those of lists counted: name fewer, or leave" in str(found)
    wider = pa.FixedSizeListArray.from_arrays(np.tile(np.arange(500.0 * 65).reshape(500, 65) % 7, 32).ravel(), 65 * 32)
    again = fl.feature_gradient(short.append_column("wide", wider), label="y", logit="z", features="wide")
    assert [s.numbers for s in again.features[65:130]] == [s.numbers for s in found.features[:65]]
    assert len(found.features) == 65 + found.groups["qcut(b, 2)"].n_categories
    few = fl.feature_gradient(wide, label="y", logit="z", features="many[1]", with_columns={"many[1]": "a"})
    assert [score.name for score in few.features] == ["many[1]"]
    signed = fl.feature_gradient(short, label="y * 2 - 1", logit="z", features="a", label_domain="pm1")
    assert signed.columns.scores == fl.feature_gradient(short, label="y", logit="z", features="a").columns.scores


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "nothing"}, "The log has no column 'nothing'"),
        ({"features": "y"}, "The feature 'y' is the label"),
        ({"features": "z"}, "The feature 'z' is the prediction"),
        ({"features": "w", "weight": "w"}, "The feature 'w' is the weight"),
        ({"features": []}, "No feature was named"),
        ({"features": [3]}, r"features is \[3\]; allowed: names of columns"),
        ({"features": "a", "loss": "roc_auc"}, "roc_auc has no gradient by row"),
        ({"features": "a", "loss": "categorical_crossentropy"}, "has no gradient by row; name a pointwise loss"),
        ({"features": "a", "loss": "zero_one"}, "zero_one is a step"),
        ({"features": "e5000"}, "The features have 5,000 columns"),
        ({"features": "a", "logit": None}, "The gradient is of one prediction column"),
        ({"features": "a", "prob": "z"}, "The gradient is of one prediction column"),
        ({"features": "a", "categorical": "a"}, "a key must not be floating point"),
        ({"features": "a", "loss": "mean_squared_error"}, "mean_squared_error reads"),
        ({"features": "a", "logit": "e5000"}, "the prediction column 'e5000' holds lists; the gradient takes one"),
        ({"features": "a", "label": "e5000"}, "the label column 'e5000' holds lists; the gradient takes one label"),
        ({"features": "bin"}, "the feature 'bin' has type binary; allowed: numbers, text, dates, or lists of these"),
        ({"features": "s"}, r"the feature 's' has type struct<a: int64>; .* Name one of its fields: 's.a'"),
        ({"features": (), "categorical": "ls"}, r"the feature 'ls' .* Name one of its fields: 'ls.list.a'"),
    ],
)
def test_what_cannot_be_asked(log: pa.Table, options: dict[str, Any], message: str) -> None:
    log = log.slice(0, 9).append_column("e5000", pa.FixedSizeListArray.from_arrays(np.zeros(9 * 5000), 5000))
    log = log.append_column("bin", pa.array([b"x"] * 9)).append_column("s", pa.array([{"a": 1}] * 9))
    log = log.append_column("ls", pa.array([[{"a": 1}]] * 9))
    with pytest.raises(fl.FastlossError, match=message):
        fl.feature_gradient(log, **{"label": "y", "logit": "z", **options})
    with pytest.raises(fl.UsageError, match="sort is 'size'; allowed"):
        fl.feature_gradient(log.slice(0, 9), label="y", logit="z", features="a").ranked("size")  # type: ignore[arg-type]


def test_the_command_writes_every_format(log: pa.Table, tmp_path: Path, run: Run, fails: Callable[..., str]) -> None:
    pq.write_table(log, tmp_path / "log.parquet")
    words = ["gradient", tmp_path / "log.parquet", "--label", "y", "--logit", "z", "--features", "a,b", "--features"]
    words += ["country", "--categorical", "id", "--weight", "w"]
    status, out, err = run(*words)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].endswith(f"used, {N:,} rows") or f"{N:,} rows read from 1 file" in lines[0]
    assert [line.split()[0] for line in lines if line.startswith(("a ", "b ", "country=DE"))] == [
        "b",
        "country=DE",
        "a",
    ]
    found = fl.feature_gradient(
        log, label="y", logit="z", weight="w", features=["a", "b", "country"], categorical=["id"]
    )
    for ending in ("json", "arrow", "parquet", "csv", "md", "txt"):
        target = tmp_path / f"result.{ending}"
        assert run(*words, "-o", target, "--sort", "improvement", "--top", 3) == (0, "", "")
        expected = found.to_arrow(sort="improvement", top=3)
        if ending == "json":
            content = json.loads(target.read_text())
            assert [f["name"] for f in content["features"]] == expected["name"].to_pylist()
            assert content["gauss_newton"]["names"] == ["a", "b", "bias"]
        elif ending == "arrow":
            assert pa.ipc.open_file(target).read_all() == expected
        elif ending == "parquet":
            assert pq.read_table(target) == expected
        elif ending == "csv":
            assert pl.read_csv(target)["z"].to_list() == expected["z"].to_pylist()
        else:
            assert "… 3 of 11 features" in target.read_text()
    assert found.to_polars().to_arrow().column_names == found.to_arrow().column_names
    assert "--top is -1" in fails(*words, "--top", -1)
    assert "No feature was named" in fails(*words[:6])
    assert "No log was given" in fails(*words[:1], *words[2:])
    assert "does not exist" in fails(*words, "-o", tmp_path / "none" / "x.json")
    status, out, err = run(*words, "--where", "a > 1000")
    assert (status, "no row was used" in err) == (0, True)
