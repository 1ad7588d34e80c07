"""Losses as objectives: trees of the real LightGBM and XGBoost, the form of every call, and what is refused."""

from __future__ import annotations

import importlib
import json
import math
import os
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastloss as fl
from fastloss_kernels.losses import LOSSES, ListwiseLoss

ROOT = Path(__file__).parents[1]
ROUNDS = 40
PATIENCE = 5
# Both sides round gradients to float32, by up to 2^-24 = 6e-8 of their weight; in a leaf near zero they cancel.
LEAF_RTOL = 1e-6
LEAF_ATOL = 2e-7
LIGHTGBM = {
    "num_leaves": 15,
    "learning_rate": 0.2,
    "boost_from_average": False,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
XGBOOST = {"max_depth": 4, "eta": 0.2, "objective": "binary:logistic", "base_score": 0.5, "nthread": 1}
REFUSED = {
    "mean_squared_logarithmic_error": "needs prediction > -1, and a booster's score may be any number",
    "zero_one": "has gradient 0 everywhere",
}


def library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # A library may be there and lack one of its own, such as libgomp.
        pytest.skip(f"{name} cannot be imported: {str(error).strip().splitlines()[0]}")


@pytest.fixture(scope="module")
def lightgbm() -> Any:
    return library("lightgbm")


@pytest.fixture(scope="module")
def xgboost() -> Any:
    return library("xgboost")


def make_data(seed: int, weighted: bool = False) -> SimpleNamespace:
    """Rows to train on and rows to stop by, binary labels that depend on some features; weights include 0."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(1200, 5))
    logit = 1.5 * features[:, 0] - features[:, 1] * features[:, 2] - 1.0
    label = (rng.random(1200) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float64)
    weight = rng.uniform(0.0, 3.0, 1200) if weighted else None
    if weight is not None:
        weight[::50] = 0.0

    def part(rows: slice) -> dict[str, Any]:
        return {"data": features[rows], "label": label[rows], "weight": None if weight is None else weight[rows]}

    return SimpleNamespace(train=part(slice(800)), test=part(slice(800, None)))


def train_lightgbm(lightgbm: Any, data: SimpleNamespace, feval: Any = None, **parameters: Any) -> tuple[Any, Any]:
    train = lightgbm.Dataset(**data.train)
    history: dict[str, Any] = {}
    booster = lightgbm.train(
        {**LIGHTGBM, **parameters},
        train,
        ROUNDS,
        valid_sets=[lightgbm.Dataset(**data.test, reference=train)],
        feval=feval,
        callbacks=[lightgbm.record_evaluation(history), lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    return booster, history["valid_0"]


def train_xgboost(xgboost: Any, data: SimpleNamespace, **arguments: Any) -> tuple[Any, Any]:
    history: dict[str, Any] = {}
    booster = xgboost.train(
        {**XGBOOST, "eval_metric": "logloss"},
        xgboost.DMatrix(**data.train),
        ROUNDS,
        evals=[(xgboost.DMatrix(**data.test), "test")],
        evals_result=history,
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
        **arguments,
    )
    return booster, history["test"]


def assert_same_tree(ours: dict[str, Any], theirs: dict[str, Any]) -> int:
    """Compare two nodes of either library's dump and all below them; returns how many leaves there are."""
    leaf = next((key for key in ("leaf", "leaf_value") if key in theirs), None)
    if leaf is not None:
        assert ours[leaf] == pytest.approx(theirs[leaf], rel=LEAF_RTOL, abs=LEAF_ATOL)
        return 1
    # What a split is, without the sums that rounding touches.
    for key in ("split_feature", "threshold", "decision_type", "default_left", "split", "split_condition", "missing"):
        assert ours.get(key) == theirs.get(key)
    return sum(map(assert_same_tree, children(ours), children(theirs)))


def children(node: dict[str, Any]) -> list[dict[str, Any]]:
    return node["children"] if "children" in node else [node["left_child"], node["right_child"]]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_lightgbm_grows_the_trees_of_its_own_log_loss(lightgbm: Any, seed: int, weighted: bool) -> None:
    data = make_data(seed, weighted)
    log_loss = fl.objective("log_loss")
    theirs, their_history = train_lightgbm(lightgbm, data, objective="binary", metric="binary_logloss")
    ours, our_history = train_lightgbm(lightgbm, data, objective=log_loss, metric="None", feval=log_loss.metric)

    assert PATIENCE < ours.best_iteration == theirs.best_iteration < ROUNDS
    np.testing.assert_allclose(our_history["log_loss"], their_history["binary_logloss"], rtol=0.0, atol=1e-6)
    trees = [
        [tree["tree_structure"] for tree in booster.dump_model(num_iteration=-1)["tree_info"]]
        for booster in (ours, theirs)
    ]
    n_leaves = sum(assert_same_tree(mine, other) for mine, other in zip(*trees, strict=True))
    assert n_leaves > 10 * len(trees[0])
    for part in (data.train, data.test):
        expected = theirs.predict(part["data"], raw_score=True)
        np.testing.assert_allclose(ours.predict(part["data"]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_xgboost_grows_the_trees_of_its_own_log_loss(xgboost: Any, seed: int, weighted: bool) -> None:
    data = make_data(seed, weighted)
    log_loss = fl.objective("log_loss")
    theirs, their_history = train_xgboost(xgboost, data)
    ours, our_history = train_xgboost(xgboost, data, obj=log_loss, custom_metric=log_loss.metric)

    assert PATIENCE < ours.best_iteration == theirs.best_iteration < ROUNDS
    # Its report keeps six decimals of a custom metric.
    np.testing.assert_allclose(our_history["log_loss"], their_history["logloss"], rtol=0.0, atol=1e-6)
    trees = [[json.loads(tree) for tree in booster.get_dump(dump_format="json")] for booster in (ours, theirs)]
    n_leaves = sum(assert_same_tree(mine, other) for mine, other in zip(*trees, strict=True))
    assert n_leaves > 5 * len(trees[0])
    for part in (data.train, data.test):
        rows = xgboost.DMatrix(part["data"])
        np.testing.assert_allclose(ours.predict(rows), theirs.predict(rows), rtol=1e-5)


# Since LightGBM 4.7; its older versions know nothing else.
@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")
@pytest.mark.parametrize("weighted", [False, True])
def test_lightgbm_estimators(lightgbm: Any, weighted: bool) -> None:
    base = pytest.importorskip("sklearn.base", reason="the estimators need scikit-learn")
    data = make_data(4, weighted)
    focal = fl.objective("binary_focal_crossentropy", gamma=2)
    names = {k: v for k, v in LIGHTGBM.items() if k != "num_threads"}
    for kind in (lightgbm.LGBMRegressor, lightgbm.LGBMClassifier):
        model = base.clone(kind(**names, n_jobs=1, n_estimators=ROUNDS, objective=focal, metric="None"))
        model.fit(
            data.train["data"],
            data.train["label"],
            sample_weight=data.train["weight"],
            eval_set=[(data.test["data"], data.test["label"])],
            eval_sample_weight=None if data.test["weight"] is None else [data.test["weight"]],
            eval_metric=focal.metric,
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        booster, history = train_lightgbm(lightgbm, data, objective=focal, metric="None", feval=focal.metric)
        assert model.evals_result_["valid_0"] == history
        assert list(history) == ["binary_focal_crossentropy"]
        raw = model.predict(data.test["data"], raw_score=True)
        np.testing.assert_array_equal(raw, booster.predict(data.test["data"]))


@pytest.mark.parametrize("weighted", [False, True])
def test_xgboost_estimators(xgboost: Any, weighted: bool) -> None:
    base = pytest.importorskip("sklearn.base", reason="the estimators need scikit-learn")
    data = make_data(4, weighted)
    focal = fl.objective("binary_focal_crossentropy", gamma=2)
    settings = {"max_depth": 4, "learning_rate": 0.2, "n_jobs": 1, "n_estimators": ROUNDS, "objective": focal}
    # A regressor's score is taken as it stands, a classifier's as a logit.
    for kind, base_score in ((xgboost.XGBRegressor, 0.0), (xgboost.XGBClassifier, 0.5)):
        model = base.clone(
            kind(**settings, base_score=base_score, eval_metric=focal.metric, early_stopping_rounds=PATIENCE)
        )
        model.fit(
            data.train["data"],
            data.train["label"],
            sample_weight=data.train["weight"],
            eval_set=[(data.test["data"], data.test["label"])],
            sample_weight_eval_set=None if data.test["weight"] is None else [data.test["weight"]],
            verbose=False,
        )
        booster, history = train_xgboost(xgboost, data, obj=focal, custom_metric=focal.metric)
        assert model.evals_result()["validation_0"][focal.metric.__name__] == history[focal.metric.__name__]
        raw = model.predict(data.test["data"], output_margin=True)
        expected = booster.predict(
            xgboost.DMatrix(data.test["data"]),
            output_margin=True,
            iteration_range=(0, booster.best_iteration + 1),
        )
        np.testing.assert_allclose(raw, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["binary_focal_crossentropy", "huber", "mean_absolute_error", "hinge", "poisson"])
def test_training_reduces_the_metric(lightgbm: Any, xgboost: Any, name: str) -> None:
    data = make_data(5)
    given = {"binary_focal_crossentropy": {"gamma": 3, "alpha": 0.75}, "huber": {"delta": 0.2}}.get(name, {})
    chosen = fl.objective(name, **given)
    if chosen.loss.label_range.low == -math.inf:
        for part in (data.train, data.test):
            part["label"] = 2.0 * part["data"][:, 0] + np.sin(part["data"][:, 1])
    _, history = train_lightgbm(lightgbm, data, objective=chosen, metric="None", feval=chosen.metric)
    start = chosen.metric(data.test["label"], np.zeros(len(data.test["label"])))
    name = chosen.metric.__name__
    assert min(history[name]) < history[name][0] < start
    _, history = train_xgboost(xgboost, data, obj=chosen, custom_metric=chosen.metric)
    assert min(history[name]) < history[name][0] < start


def refusal(name: str) -> str | None:
    loss = next(loss for loss in LOSSES if loss.name == name)
    return "is a listwise loss" if issubclass(loss, ListwiseLoss) else REFUSED.get(name)


@pytest.mark.parametrize("name", [loss.name for loss in LOSSES])
def test_every_loss_has_usable_derivatives_or_is_refused(name: str) -> None:
    if (reason := refusal(name)) is not None:
        with pytest.raises(fl.UsageError, match=reason):
            fl.objective(name)
        return
    chosen = fl.objective(name)
    label = np.repeat([0.0, 1.0] if chosen.loss.label_range.high == 1.0 else [1.0, 3.0], 41)
    score = np.tile(np.linspace(-20.0, 20.0, 41), 2)
    gradient, hessian = chosen(label, score)
    assert gradient.dtype == hessian.dtype == np.float32
    assert (hessian > 0.0).all()
    true_gradient, true_hessian = chosen.loss.gradient_hessian(label, **{chosen.space: score})
    np.testing.assert_array_equal(gradient, true_gradient.astype(np.float32))
    curved = true_hessian > 1e-16
    np.testing.assert_array_equal(hessian[curved], true_hessian[curved].astype(np.float32))
    assert set(hessian[~curved].tolist()) <= {1.0, float(np.float32(1e-16))}
    losses = chosen.loss(label, **{chosen.space: score})
    assert chosen.metric(label, score) == float(sum(map(Fraction, losses.tolist())) / len(label))


@pytest.mark.parametrize(
    ("name", "label", "score", "expected"),
    [
        # Made of straight lines: 1 on the slopes, at the kink, and where the hinge is flat.
        ("mean_absolute_error", [1.0, 1.0, 1.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]),
        ("pinball(quantile=0.9)", [1.0, 1.0, 1.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]),
        ("hinge", [1.0, 1.0, 1.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]),
        # Straight beyond δ.
        ("huber(delta=2.0)", [0.0, 0.0, 0.0], [1.0, 3.0, -3.0], [1.0, 1.0, 1.0]),
        # Flat beyond the margin, and straight far on the wrong side.
        ("squared_hinge", [1.0, 1.0], [0.0, 2.0], [2.0, 1e-16]),
        ("modified_huber", [1.0, 1.0, 1.0], [-3.0, 0.0, 2.0], [1.0, 2.0, 1e-16]),
        # Bent the other way far from the label.
        ("brier_score", [1.0, 1.0], [-4.0, 0.0], [1e-16, 0.125]),
    ],
)
def test_hessians_where_the_second_derivative_is_not_positive(
    name: str, label: list[float], score: list[float], expected: list[float]
) -> None:
    weight = np.array([2.0, 3.0, 5.0])[: len(label)]
    chosen = fl.objective(name)
    np.testing.assert_allclose(chosen(label, score)[1], expected, rtol=1e-7)
    gradient, hessian = chosen(label, score, weight)
    np.testing.assert_allclose(gradient, weight * chosen(label, score)[0], rtol=1e-7)
    np.testing.assert_allclose(hessian, weight * expected, rtol=1e-7)


@pytest.mark.parametrize(("name", "label"), [("poisson", 2.0), ("gamma", 2.0), ("tweedie", 2.0)])
def test_positive_predictions_are_boosted_as_logarithms(name: str, label: float) -> None:
    chosen = fl.objective(name)
    assert chosen.loss.log_input
    gradient, _ = chosen([label, label, label], [math.log(label) - 1.0, math.log(label), math.log(label) + 1.0])
    assert gradient[0] < 0.0 < gradient[2]
    assert gradient[1] == pytest.approx(0.0, abs=1e-6)


def test_scores_are_logits_margins_or_values() -> None:
    spaces = {name: fl.objective(name).space for name in ("log_loss", "hinge", "mean_squared_error")}
    assert spaces == {"log_loss": "logit", "hinge": "logit", "mean_squared_error": "value"}


def test_the_metric_is_the_number_of_evaluate() -> None:
    rng = np.random.default_rng(6)
    label, score, weight = rng.integers(0, 2, 5000), rng.normal(size=5000) * 9.0, rng.uniform(size=5000)
    table = pa.table({"y": label, "x": score, "w": weight})
    log_loss = fl.objective("log_loss(label_smoothing=0.1)")
    for given, column in ((None, None), (weight, "w")):
        result = fl.evaluate(table, label="y", logit="x", weight=column, metrics=[log_loss.loss])
        assert log_loss.metric(label, score, sample_weight=given) == result[log_loss.loss.full_name]


def test_metrics_answer_as_their_caller_expects() -> None:
    label, score, weight = np.array([0.0, 1.0, 1.0]), np.array([0.5, 0.25, -1.0]), np.array([1.0, 0.0, 3.0])
    metric = fl.objective("binary_focal_crossentropy", gamma=3, alpha=0.5).metric
    name = "binary_focal_crossentropy(gamma=3,alpha=0.5)"
    assert metric.__name__ == name
    plain, weighted = metric(label, score), metric(label, score, sample_weight=weight)
    assert plain != weighted
    # LightGBM's estimators pass weight and group by position, None included.
    assert metric(label, score, None, None) == (name, plain, False)
    assert metric(label, score, weight, None) == (name, weighted, False)

    def data_set(module: str, weight: Any) -> Any:
        members = {"get_label": lambda _: label, "get_weight": lambda _: weight, "__module__": module}
        return type("Data", (), members)()

    assert metric(score, data_set("lightgbm.basic", None)) == (name, plain, False)
    assert metric(score, data_set("lightgbm.basic", weight)) == (name, weighted, False)
    assert metric(score, data_set("xgboost.core", np.array([]))) == (name, plain)
    assert metric(score, data_set("xgboost.core", weight)) == (name, weighted)


def test_rows_of_weight_zero_count_for_nothing() -> None:
    chosen = fl.objective("poisson")
    label, score, weight = [1.0, 2.0], [0.5, 1e4], [2.0, 0.0]
    gradient, hessian = chosen(label, score, weight)
    assert gradient[1] == hessian[1] == 0.0
    assert chosen.metric(label, score, sample_weight=weight) == chosen.metric(label[:1], score[:1])
    assert math.isnan(chosen.metric(label, score, sample_weight=[0.0, 0.0]))
    assert math.isnan(chosen.metric([], []))


@pytest.mark.parametrize(
    ("given", "parameters", "message"),
    [
        ("log_los", {}, "No metric or loss is called 'log_los'. Did you mean 'log_loss'"),
        ("rmse", {}, "root_mean_squared_error is a metric; an objective needs a loss"),
        (3, {}, "A metric is 3; allowed: a name such as 'log_loss'"),
        ("focal_loss", {"gama": 2}, "has no parameter 'gama'; its parameters: label_domain, gamma"),
        ("focal_loss", {"gamma": -1}, "gamma is -1; allowed: gamma >= 0"),
        ("zero_one", {}, "zero_one has gradient 0 everywhere"),
        ("msle", {}, "needs prediction > -1, and a booster's score may be any number"),
    ],
)
def test_refused_requests(given: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(fl.UsageError) as caught:
        fl.objective(given, **parameters)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "label", "score", "weight", "kind", "message"),
    [
        ("log_loss", [0, math.nan], [0, 0], None, fl.DataError, "label of row 1 is nan; allowed: 0 <= label <= 1."),
        ("log_loss", [0, -1], [0, 0], None, fl.DataError, "If labels are -1 and +1, use label_domain='pm1'."),
        ("hinge(label_domain='pm1')", [1, 0], [0, 0], None, fl.DataError, "leave out label_domain='pm1'"),
        (
            "mape",
            [1, 0],
            [0, 0],
            None,
            fl.DataError,
            "label of row 1 is 0.0; allowed: label is a number other than 0.",
        ),
        ("gamma", [-1, 1], [0, 0], None, fl.DataError, "label of row 0 is -1.0; allowed: label > 0."),
        ("log_loss", [0, 1], [0, 0], [1, -1], fl.DataError, "weight of row 1 is -1.0; allowed: weight >= 0."),
        ("log_loss", [0, 1], [0, 0], [1, math.inf], fl.DataError, "weight of row 1 is inf; allowed: weight >= 0"),
        ("log_loss", [0, 1], [[0, 0], [0, 0]], None, fl.UsageError, "the labels have shape (2,), the scores (2, 2)"),
        ("log_loss", None, [0, 0], None, fl.UsageError, "the labels have shape (), the scores (2,)"),
        ("log_loss", [0, 1], [0, 0], [1], fl.UsageError, "the labels have shape (2,), the weights (1,)"),
    ],
)
def test_bad_input(name: str, label: Any, score: Any, weight: Any, kind: type[Exception], message: str) -> None:
    chosen = fl.objective(name)
    for call in (chosen, chosen.metric):
        with pytest.raises(kind) as caught:
            call(label, score, sample_weight=weight)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_gradient_that_is_not_finite_is_not_passed_on() -> None:
    for name, score in (("poisson", 1e4), ("log_loss", math.nan)):
        with pytest.raises(fl.DataError, match=r"row 1 has gradient (inf|nan) .*lower the learning rate"):
            fl.objective(name)([1.0, 1.0], [0.0, score])


def test_an_objective_can_be_stored() -> None:
    chosen = fl.objective(fl.losses.BinaryFocalCrossentropy(gamma=1.5))
    assert chosen == fl.objective("focal_loss", gamma=1.5)
    code = (
        "import sys, pickle, fastloss\n"
        f"focal = pickle.loads({pickle.dumps(chosen)!r})\n"
        "assert focal == fastloss.objective('focal_loss', gamma=1.5)\n"
        "focal.metric([0.0, 1.0], [0.5, 0.5])\n"
        "print(*{'lightgbm', 'xgboost'} & set(sys.modules))"
    )
    path = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **path}
    )
    assert run.stdout.split() == []
