"""Numbers of other systems, from their own tests and documentation, under the preset of that system.

Every case of the tables is either applied here or listed in `NOT_APPLIED` with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

import fastloss as fl

TABLES = ("keras_losses", "torch_family", "sklearn", "xgboost_metrics")

NULL_WITHOUT_WEIGHT = "all weights are 0: null here (there is nothing to tell of), 0 in Keras"
NEGATIVE_WEIGHT = "negative weights are bad rows"
ONE_CLASS = "one class alone: null here, NaN or an error there"
OF_LABELS = "a mean over the areas of several label columns"
TRAPEZOIDS = "the area below straight lines between points of precision and recall, which scikit-learn has left"
NO_PROBABILITIES = "labels and predictions up to 6, where overlaps are of probabilities: bad rows"
NO_CORRELATION = "a correlation is no loss"
COVERAGE = "how many labels cover the right ones, which is not in the catalogue"
TIE_AGAINST = "a tie counts against its labels as a whole, which no order of them does"

NOT_APPLIED: Mapping[str, str] = {
    **dict.fromkeys([f"keras_losses-{n:03}" for n in (14, 30, 38, 52, 64, 70)], NULL_WITHOUT_WEIGHT),
    **dict.fromkeys(["keras_losses-140", "keras_losses-144"], NO_PROBABILITIES),
    "torch_family-012": "hinge_embedding, the hinge of a distance, is not in the catalogue",
    "torch_family-052": "the part of the variance that is explained is no loss",
    "torch_family-054": NO_CORRELATION,
    "sklearn-004": "scikit-learn before 1.3 divided rows by their sum; it no longer does, nor does the preset",
    "sklearn-016": ONE_CLASS,
    "sklearn-020": OF_LABELS,
    "sklearn-022": TRAPEZOIDS,
    **dict.fromkeys([f"sklearn-{n:03}" for n in range(42, 50, 2)], COVERAGE),
    **dict.fromkeys(["sklearn-040", "sklearn-058"], TIE_AGAINST),
    "sklearn-070": "a Tweedie power of 3; the power of this loss lies between 1 and 2",
    **dict.fromkeys([f"xgboost_metrics-{n:03}" for n in (4, 10, 22, 28)], NEGATIVE_WEIGHT),
    "xgboost_metrics-032": "a zero-one loss at another threshold than the class border",
    **dict.fromkeys(["xgboost_metrics-034", "xgboost_metrics-042"], "a quantile of 0 or 1 has no pinball loss"),
    "xgboost_metrics-048": "the zero-one loss of several classes is not in the catalogue",
    "xgboost_metrics-060": ONE_CLASS,
}


class Request(NamedTuple):
    """A question to `fastloss.evaluate`, and what is done with its answer."""

    metric: str
    space: str
    label: Any
    prediction: Any
    weight: Any = None
    options: Mapping[str, Any] = {}
    by_row: bool = False
    read: Callable[[float], float] = float


def column(values: Any) -> pa.Array:
    """Return an array as a column: of lists where it has two dimensions."""
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.array(values)


def ask(request: Request, preset: str) -> Any:
    """Return the number, or one for each row."""
    columns = {"y": column(request.label), "s": column(request.prediction)}
    n_rows = len(columns["y"])
    if request.weight is not None:
        columns["w"] = pa.array(np.broadcast_to(np.asarray(request.weight, dtype=np.float64), n_rows))
    if request.by_row:
        columns["row"] = pa.array(range(n_rows))
    result = fl.evaluate(
        pa.table(columns),
        label="y",
        **{request.space: "s"},
        weight=None if request.weight is None else "w",
        metrics=[request.metric],
        preset=preset,
        by=["row"] if request.by_row else [],
        **request.options,
    )
    if request.by_row:
        # A row that was left out has no slice.
        rows = {value.slice["row"]: value.value for value in result.values if value.slice}
        return [rows.get(row, 0.0) for row in range(n_rows)]
    found = result.values[0].value
    return None if found is None else request.read(found)


def numbers(values: Any) -> Any:
    """Return a case's numbers as an array; infinities are words there."""
    return np.array(values, dtype=np.float64)


# Keras

KERAS_NAMES = {
    "MeanSquaredError": ("mean_squared_error", "value"),
    "MeanAbsoluteError": ("mean_absolute_error", "value"),
    "MeanAbsolutePercentageError": ("mean_absolute_percentage_error", "value"),
    "MeanSquaredLogarithmicError": ("mean_squared_logarithmic_error", "value"),
    "Hinge": ("hinge", "margin"),
    "SquaredHinge": ("squared_hinge", "margin"),
    "CategoricalHinge": ("categorical_hinge", "margin"),
    "CosineSimilarity": ("cosine_similarity", "value"),
    "Huber": ("huber", "value"),
    "LogCosh": ("log_cosh", "value"),
    "KLDivergence": ("kl_divergence", "prob"),
    "Poisson": ("poisson", "value"),
    "BinaryCrossentropy": ("log_loss", "prob"),
    "BinaryFocalCrossentropy": ("binary_focal_crossentropy", "prob"),
    "CategoricalCrossentropy": ("categorical_crossentropy", "prob"),
    "CategoricalFocalCrossentropy": ("categorical_focal_crossentropy", "prob"),
    "SparseCategoricalCrossentropy": ("sparse_categorical_crossentropy", "prob"),
    "CategoricalGeneralizedCrossEntropy": ("generalized_crossentropy", "prob"),
    "Dice": ("dice", "prob"),
    "Tversky": ("tversky", "prob"),
}
KERAS_REDUCTIONS = {"sum_over_batch_size": {}, "sum": {"reduction": "sum"}, None: {"reduction": "sum"}}
KERAS_REDUCTIONS |= {"mean_with_sample_weight": {"reduction": "mean"}}


def keras_request(case: Any) -> Request:
    config = dict(case["config"])
    name, space = KERAS_NAMES[case["fn"]]
    space = "logit" if config.pop("from_logits", False) else space
    reduction = config.pop("reduction", "sum_over_batch_size")
    axis = config.pop("axis", -1)
    label, prediction = (np.array(case["inputs"][k]["value"]) for k in ("y_true", "y_pred"))
    prediction = prediction.astype(case["inputs"]["y_pred"]["dtype"])
    if isinstance(axis, list):
        label, prediction = (array.reshape(len(array), -1) for array in (label, prediction))
    elif axis not in (-1, prediction.ndim - 1):
        label, prediction = np.moveaxis(label, axis, -1), np.moveaxis(prediction, axis, -1)
    # Every leading axis counts rows.
    lists = prediction.reshape(-1, prediction.shape[-1])
    index = "Sparse" in case["fn"] or case["fn"] == "CategoricalGeneralizedCrossEntropy"
    labels = label.reshape(-1) if index else label.reshape(-1, label.shape[-1])
    if case["fn"] == "CategoricalGeneralizedCrossEntropy":
        # The loss of the right class, whose label is 1.
        lists, labels = lists[np.arange(len(lists)), labels], np.ones(len(labels))
    weight = case["inputs"].get("sample_weight")
    if isinstance(weight, dict):
        weight = weight["value"]
    weight = None if weight is None else np.array(weight, dtype=np.float64).reshape(-1)
    parameters = ", ".join(f"{key}={value!r}" for key, value in config.items())
    return Request(
        f"{name}({parameters})" if config else name,
        space,
        labels,
        lists,
        weight,
        KERAS_REDUCTIONS[reduction],
        by_row=reduction is None,
    )


# PyTorch, torcheval, torchmetrics


def torch_request(metric: str, space: str, **options: Any) -> Callable[[Any], Request]:
    def request(case: Any) -> Request:
        return Request(metric, space, numbers(case["target"]), numbers(case["input"]), None, options)

    return request


def by_row(make: Callable[[Any], Request]) -> Callable[[Any], Request]:
    return lambda case: make(case)._replace(by_row=True)


def least_gamma(label: Any) -> float:
    """The mean gamma loss of predictions that are the labels: a deviance is twice what a loss has above it."""
    return float(np.mean(1.0 + np.log(label)))


def gamma_deviance(case: Any) -> Request:
    least = least_gamma(numbers(case["target"]))
    return torch_request("gamma", "value")(case)._replace(read=lambda found: 2.0 * (found - least))


def index_request(metric: str, space: str, label: str, prediction: str) -> Callable[[Any], Request]:
    def request(case: Any) -> Request:
        return Request(metric, space, np.array(case[label]), np.array(case[prediction], dtype=np.float64))

    return request


def one_hot_request(metric: str, space: str) -> Callable[[Any], Request]:
    def request(case: Any) -> Request:
        prediction = numbers(case["input"])
        return Request(metric, space, np.eye(prediction.shape[1])[np.array(case["target"])], prediction)

    return request


def multi_margin(case: Any) -> Request:
    # Its weights are of classes, and its mean divides by the number of rows.
    weight = np.array(case["weight"])[np.array(case["target"])]
    return index_request("multi_margin(margin=2)", "margin", "target", "input")(case)._replace(weight=weight)


def one_hot_list_request(metric: str) -> Callable[[Any], Request]:
    make = one_hot_request(metric, "score")
    return lambda case: make(case)._replace(options={"ties": "optimistic"})


def list_request(metric: str) -> Callable[[Any], Request]:
    def request(case: Any) -> Request:
        return Request(metric, "score", numbers([case["target"]]), numbers([case["input"]]))

    return request


TORCH: Mapping[str, Callable[[Any], Request]] = {
    "torch_family-000": torch_request("smooth_l1(beta=1)", "value"),
    "torch_family-002": by_row(torch_request("smooth_l1(beta=1)", "value")),
    "torch_family-004": torch_request("huber(delta=0.5)", "value"),
    "torch_family-006": torch_request("log_loss", "logit", label_domain="pm1"),
    "torch_family-008": torch_request("log_loss", "logit", list_reduction="row"),
    "torch_family-010": multi_margin,
    "torch_family-014": torch_request("log_loss", "logit"),
    "torch_family-016": by_row(torch_request("log_loss", "logit")),
    "torch_family-018": torch_request("normalized_entropy", "prob"),
    "torch_family-020": torch_request("normalized_entropy", "logit"),
    "torch_family-022": torch_request("roc_auc", "score"),
    "torch_family-024": torch_request("average_precision", "prob"),
    "torch_family-036": torch_request("average_precision", "score"),
    "torch_family-056": torch_request("average_precision", "prob"),
    "torch_family-026": lambda case: Request("ctr", "prob", numbers(case["input"]), numbers(case["input"])),
    "torch_family-028": torch_request("calibration", "prob"),
    # A rank there is the number of higher scores.
    "torch_family-030": by_row(one_hot_list_request("hit_rate@2")),
    "torch_family-032": by_row(one_hot_list_request("mrr@2")),
    "torch_family-034": torch_request("mean_squared_error", "value"),
    "torch_family-038": list_request("recall@2"),
    "torch_family-040": torch_request("expected_calibration_error(n_bins=2, norm='l2')", "prob"),
    "torch_family-042": torch_request("hinge", "margin"),
    "torch_family-044": one_hot_request("categorical_hinge", "margin"),
    "torch_family-046": torch_request("log_cosh", "value"),
    "torch_family-048": gamma_deviance,
    "torch_family-050": torch_request("mean_absolute_percentage_error", "value"),
    "torch_family-058": torch_request("log_loss", "logit"),
    "torch_family-060": torch_request("log_loss", "logit", list_reduction="row", reduction="sum"),
}
# Two cases are from Keras' documentation.
OF_KERAS = ("torch_family-058", "torch_family-060")


# scikit-learn


def sklearn_row(metric: str, space: str) -> Callable[[Any], Request]:
    return lambda case: Request(metric, space, numbers([case["y_true"]]), numbers([case["raw_prediction"]]))


def sklearn_texts(case: Any) -> Request:
    label = np.unique(np.array(case["y_true"]), return_inverse=True)[1]
    return Request("sparse_categorical_crossentropy", "prob", label, numbers(case["y_pred"]))


def sklearn_hinge(case: Any) -> Request:
    # The larger of two labels is the positive one.
    label = (np.array(case["y_true"]) == max(case["y_true"])).astype(np.float64)
    return Request("hinge", "margin", label, numbers(case["y_pred"]))


def half_gamma_deviance(case: Any) -> Request:
    least = least_gamma(case["y_true"])
    return sklearn_row("gamma", "value")(case)._replace(read=lambda found: found - least)


def sklearn_sum(case: Any) -> Request:
    return index_request("sparse_categorical_crossentropy", "prob", "y_true", "y_pred")(case)._replace(
        options={"reduction": "sum"}
    )


def sklearn_classes(case: Any) -> Request:
    label, prediction = np.array([case["y_true"]]), numbers([case["raw_prediction"]])
    return Request("sparse_categorical_crossentropy", "logit", label, prediction)


def sklearn_area(case: Any) -> Request:
    # The micro average is that of all labels together.
    return Request("roc_auc", "score", numbers(case["y_true"]).reshape(-1), numbers(case["y_pred"]).reshape(-1))


def sklearn_lists(metric: str, **changes: Any) -> Callable[[Any], Request]:
    def request(case: Any) -> Request:
        return Request(metric, "score", numbers(case["y_true"]), numbers(case["y_pred"]), **changes)

    return request


# The share of pairs in the wrong order; a list without a pair has none.
ranking_loss = sklearn_lists("list_auc(empty=one)", read=lambda found: 1.0 - found)

SKLEARN: Mapping[str, Callable[[Any], Request]] = {
    "sklearn-000": sklearn_texts,
    "sklearn-002": sklearn_sum,
    "sklearn-006": sklearn_hinge,
    "sklearn-008": lambda case: Request("brier_score", "prob", numbers(case["y_true"]), numbers(case["y_pred"])),
    **{f"sklearn-{n:03}": sklearn_area for n in (10, 12, 14, 16, 18)},
    **{f"sklearn-{n:03}": sklearn_lists("map", options={"ties": "pessimistic"}) for n in range(24, 40, 2)},
    **{f"sklearn-{n:03}": ranking_loss for n in (50, 52, 54, 56, 60)},
    "sklearn-062": sklearn_row("mean_absolute_error", "value"),
    "sklearn-064": sklearn_row("pinball(quantile=0.25)", "value"),
    "sklearn-066": sklearn_row("huber(delta=3)", "value"),
    "sklearn-068": sklearn_row("poisson(log_input=True)", "value"),
    "sklearn-072": half_gamma_deviance,
    "sklearn-074": sklearn_row("log_loss", "logit"),
    "sklearn-078": sklearn_classes,
    "sklearn-080": sklearn_classes,
}
# A hessian, which an evaluation has none of.
SKLEARN_HESSIAN = "sklearn-076"


# XGBoost


def xgboost_request(metric: str, space: str) -> Callable[[Any], Request]:
    def request(case: Any) -> Request:
        # Its numbers are float32.
        prediction = np.array(case["pred"], dtype=np.float32)
        return Request(metric, space, np.array(case["label"]), prediction, case["weight"])

    return request


def xgboost_lists(metric: str) -> Callable[[Any], Request]:
    def request(case: Any) -> Request:
        ends = case.get("group_ptr", [0, len(case["pred"])])[1:-1]
        label, prediction = (np.split(numbers(case[name]), ends) for name in ("label", "pred"))
        return Request(metric, "score", [y.tolist() for y in label], [s.tolist() for s in prediction])

    return request


XGBOOST: Mapping[str, Callable[[Any], Request]] = {
    "xgboost_metrics-000": xgboost_request("root_mean_squared_error", "value"),
    "xgboost_metrics-002": xgboost_request("root_mean_squared_error", "value"),
    "xgboost_metrics-006": xgboost_request("log_loss", "prob"),
    "xgboost_metrics-008": xgboost_request("log_loss", "prob"),
    "xgboost_metrics-012": xgboost_request("poisson", "value"),
    "xgboost_metrics-014": xgboost_request("poisson", "value"),
    "xgboost_metrics-016": xgboost_request("mean_absolute_error", "value"),
    "xgboost_metrics-018": xgboost_request("poisson", "value"),
    "xgboost_metrics-020": xgboost_request("poisson", "value"),
    "xgboost_metrics-024": xgboost_request("mean_absolute_percentage_error", "value"),
    "xgboost_metrics-026": xgboost_request("mean_absolute_percentage_error", "value"),
    "xgboost_metrics-030": xgboost_request("pseudo_huber(slope=0.1)", "value"),
    "xgboost_metrics-064": xgboost_lists("ndcg"),
    # Tied candidates stand as they come there.
    "xgboost_metrics-066": lambda case: xgboost_lists("ndcg@2")(case)._replace(options={"ties": "input"}),
    "xgboost_metrics-068": xgboost_lists("ndcg"),
    "xgboost_metrics-070": xgboost_lists("map"),
    "xgboost_metrics-072": xgboost_lists("precision@4"),
    "xgboost_metrics-036": xgboost_request("pinball(quantile=0.2)", "value"),
    "xgboost_metrics-038": xgboost_request("pinball(quantile=0.4)", "value"),
    "xgboost_metrics-040": xgboost_request("pinball(quantile=0.8)", "value"),
    "xgboost_metrics-044": xgboost_request("expectile(expectile=0.2)", "value"),
    "xgboost_metrics-046": xgboost_request("expectile(expectile=0.8)", "value"),
    "xgboost_metrics-050": xgboost_request("sparse_categorical_crossentropy", "prob"),
    **{f"xgboost_metrics-{n:03}": xgboost_request("roc_auc", "score") for n in range(52, 63, 2)},
}

KERAS_IDS = [f"keras_losses-{n:03}" for n in range(0, 158, 2)]
REQUESTS: Mapping[str, tuple[str, Callable[[Any], Request]]] = {
    **dict.fromkeys(KERAS_IDS, ("keras", keras_request)),
    **{i: ("keras" if i in OF_KERAS else "torch", make) for i, make in TORCH.items()},
    **{i: ("sklearn", make) for i, make in SKLEARN.items()},
    **{i: ("xgboost", make) for i, make in XGBOOST.items()},
}
APPLIED = [i for i in REQUESTS if i not in NOT_APPLIED]


def read_cases(shared_data: Path) -> Iterator[Any]:
    for table in TABLES:
        yield from json.loads((shared_data / "golden" / f"{table}.json").read_text())["cases"]


@pytest.fixture(scope="session")
def cases(shared_data: Path) -> dict[str, Any]:
    """Every case by its id."""
    return {case["id"]: case for case in read_cases(shared_data)}


def within(found: Any, case: Any) -> bool:
    expected = numbers(case["expected"]).reshape(-1)
    given = case.get("tolerance", {})
    if "decimal" in given:
        absolute, relative = 1.5 * 10.0 ** -given["decimal"], 0.0
    else:
        absolute = given.get("atol", case.get("abs_tol", 0.0))
        relative = given.get("rtol", case.get("rel_tol", 0.0))
    return bool(np.allclose(np.reshape(found, -1), expected, rtol=relative, atol=absolute))


@pytest.mark.parametrize("identifier", APPLIED)
def test_golden(cases: dict[str, Any], identifier: str) -> None:
    preset, make = REQUESTS[identifier]
    found = ask(make(cases[identifier]), preset)
    assert within(found, cases[identifier]), (found, cases[identifier]["expected"])


def test_golden_hessian(cases: dict[str, Any]) -> None:
    case = cases[SKLEARN_HESSIAN]
    _, hessian = fl.losses.BinaryCrossentropy().gradient_hessian([case["y_true"]], logit=[case["raw_prediction"]])
    assert within(hessian, case)


def test_every_case_is_applied_or_listed_with_a_reason(cases: dict[str, Any]) -> None:
    assert {*APPLIED, SKLEARN_HESSIAN, *NOT_APPLIED} == set(cases)
    assert all(NOT_APPLIED.values())


@pytest.mark.parametrize("identifier", [i for i in NOT_APPLIED if i in REQUESTS])
def test_a_listed_case_cannot_be_applied(cases: dict[str, Any], identifier: str) -> None:
    preset, make = REQUESTS[identifier]
    request = make(cases[identifier])
    if NOT_APPLIED[identifier] == NO_PROBABILITIES:
        with pytest.raises(fl.DataError, match="allowed: 0 <= label <= 1"):
            ask(request, preset)
    else:
        assert ask(request, preset) is None
