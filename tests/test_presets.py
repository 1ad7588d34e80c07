"""Reductions and presets: by hand, against the systems themselves where they are installed, and what they refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastloss as fl
from fastloss.metrics.presets import PRESETS, Preset
from fastloss_kernels.losses import LOSSES
from fastloss_kernels.variants import (
    DenominatorSmoothedDice,
    DenominatorSmoothedTversky,
    FlooredCosineSimilarity,
    FlooredPercentageError,
    FlooredSquaredLogarithmicError,
    PoissonNearZero,
)

LABEL, SCORE, WEIGHT = [1.0, 0.0, 1.0, 0.0, 1.0], [0.9, 0.8, 0.3, 0.1, 0.5], [2.0, 1.0, 0.0, 3.0, None]
LOG = pa.table({"y": LABEL, "p": SCORE, "w": pa.array(WEIGHT), "k": ["a", "a", "b", "b", "b"]})
FLOAT64 = pa.float64()
SQUARES = [(p - y) ** 2 for y, p in zip(LABEL, SCORE, strict=True)]


def total(result: fl.Result, metric: str) -> fl.Value:
    return next(value for value in result.values if value.metric == metric and not value.slice)


# Reductions


@pytest.mark.parametrize(
    ("reduction", "divisors"),
    [
        ("mean", {"": 6.0, "a": 3.0, "b": 3.0}),
        ("sum", {"": 1.0, "a": 1.0, "b": 1.0}),
        # The row of weight 0 is one of the batch; the row without a weight is none.
        ("sum_over_batch_size", {"": 4.0, "a": 2.0, "b": 2.0}),
        ("sum_by_nonzero_weights", {"": 3.0, "a": 2.0, "b": 1.0}),
    ],
)
def test_reductions_by_slice(reduction: Any, divisors: dict[str, float]) -> None:
    result = fl.evaluate(LOG, label="y", prob="p", weight="w", metrics=["brier_score"], by="k", reduction=reduction)
    sums = {"a": 2.0 * SQUARES[0] + SQUARES[1], "b": 3.0 * SQUARES[3]}
    sums[""] = sums["a"] + sums["b"]
    assert len(result.values) == 3
    for value in result.values:
        key = value.slice.get("k", "")
        assert value.value == pytest.approx(sums[key] / divisors[key], rel=1e-15)
        assert value.evidence.get("reduction", "mean") == reduction
    assert (f"reduction {reduction}: " in str(result)) == (reduction != "mean")
    assert result.asked.get("reduction", "mean") == reduction


def test_without_weights_every_row_counts_once() -> None:
    def value(reduction: Any) -> Any:
        return fl.evaluate(LOG, label="y", prob="p", metrics=["brier_score"], reduction=reduction)["brier_score"]

    assert value("sum_over_batch_size") == value("sum_by_nonzero_weights") == value("mean")
    assert value("sum") == pytest.approx(math.fsum(SQUARES), rel=1e-15)


LISTS = pa.table(
    {
        "y": [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0], None],
        "s": [[2.0, 4.0], [0.0], [4.0, None, 0.0], [1.0]],
        "w": [2.0, 1.0, 0.0, 1.0],
        "k": ["a", "a", "b", "b"],
    }
)


@pytest.mark.parametrize(
    ("reduction", "list_reduction", "expected"),
    [
        ("mean", "row", (2 * 2.5 + 9) / 3),
        ("sum", "row", 2 * 2.5 + 9),
        ("sum_over_batch_size", "row", (2 * 2.5 + 9) / 3),
        ("sum_by_nonzero_weights", "row", (2 * 2.5 + 9) / 2),
        ("mean", "element", (2 * 5 + 9) / 5),
        ("sum", "element", 2 * 5 + 9),
        # Three candidates of used lists, and two that are not masked in the list of weight 0.
        ("sum_over_batch_size", "element", (2 * 5 + 9) / 5),
        ("sum_by_nonzero_weights", "element", (2 * 5 + 9) / 3),
    ],
)
def test_reductions_of_lists(reduction: Any, list_reduction: Any, expected: float) -> None:
    result = fl.evaluate(
        LISTS,
        label="y",
        value="s",
        weight="w",
        metrics=["mean_squared_error"],
        reduction=reduction,
        list_reduction=list_reduction,
        by="k",
    )
    assert total(result, "mean_squared_error").value == pytest.approx(expected, rel=1e-15)
    # The slice of a list of weight 0, and of one without a label, has nothing to tell of.
    assert [dict(value.slice) for value in result.values] == [{}, {"k": "a"}]


def test_several_models_and_batches_count_alike() -> None:
    def values(**options: Any) -> Any:
        asked = {"label": "y", "prob": {"one": "p", "two": "q"}, "weight": "w", "metrics": ["brier_score", "ctr"]}
        log = LOG.append_column("q", pa.array([0.5, None, 0.25, 0.5, 0.5]))
        result = fl.evaluate(log, **asked, by="k", reduction="sum_over_batch_size", **options)
        return [(v.metric, v.model, dict(v.slice), v.value, v.n) for v in result.values]

    found = values()
    assert found == values(batch_rows=1) == values(threads=3, batch_rows=2)
    # The second model cannot use row 1: of its batch are rows 0 and 3, and row 2 of weight 0.
    assert found[1][3] == pytest.approx((2.0 * 0.25 + 3.0 * 0.25) / 3.0, rel=1e-15)


def test_no_weight_is_no_value() -> None:
    log = pa.table({"y": [1.0], "p": [0.5], "w": [0.0]})
    for reduction in ("mean", "sum", "sum_over_batch_size", "sum_by_nonzero_weights"):
        result = fl.evaluate(log, label="y", prob="p", weight="w", metrics=["log_loss"], reduction=reduction)
        (value,) = result.values
        assert (value.value, value.reason, value.n) == (None, "no_rows", 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "none"}, "fastloss score"),
        ({"reduction": "average"}, "'sum_by_nonzero_weights'"),
        ({"preset": "theano"}, "'torchrec'"),
    ],
)
def test_refusals(options: Any, message: str) -> None:
    with pytest.raises(fl.UsageError, match=message) as found:
        fl.evaluate(LOG, label="y", prob="p", **options)
    assert "\n" not in str(found.value)


# Presets


def worst(preset: str, kind: Any = FLOAT64, label: float = 1.0, score: float = 0.0, **options: Any) -> Any:
    log = pa.table({"y": [label], "p": pa.array(np.array([score], dtype=kind.to_pandas_dtype()))})
    return fl.evaluate(log, label="y", prob="p", metrics=["log_loss"], preset=preset, **options)["log_loss"]


@pytest.mark.parametrize(
    ("preset", "kind", "expected"),
    [
        ("keras", pa.float64(), 16.11809565095832),
        ("torch", pa.float64(), 100.0),
        ("sklearn", pa.float64(), 36.04365338911715),
        ("sklearn", pa.float32(), 15.942385152878742),
        ("sklearn", pa.float16(), 6.931471805599453),
        ("lightgbm", pa.float64(), 34.538776394910684),
        ("xgboost", pa.float64(), 36.841361487904734),
        ("torchrec", pa.float64(), 39.86313713864835),
    ],
)
def test_the_worst_row_of_each_system(preset: str, kind: Any, expected: float) -> None:
    assert worst(preset, kind) == expected
    # 1 − (1 − 1e-7) is not 1e-7.
    assert worst(preset, kind, 0.0, 1.0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16()])
def test_keras_clips_in_float32(kind: Any) -> None:
    # 1 − 1e-7 is 0.99999988 in float32.
    assert worst("keras", kind, 0.0, 1.0) == 15.942385152878742
    assert worst("keras", kind, 1.0, 0.0) == 16.11809565095832


@pytest.mark.parametrize(
    ("weight", "expected"), [(None, 3.98559), ([2.3, 2.3], 9.1668), ([1.2, 3.4], 4.7827)], ids=["none", "same", "rows"]
)
def test_binary_crossentropy_of_keras_own_tests(weight: Any, expected: float) -> None:
    prediction = pa.FixedSizeListArray.from_arrays(pa.array(np.array([1, 1, 1, 0], dtype=np.float32)), 2)
    log = pa.table({"y": [[1, 0], [1, 0]], "p": prediction, "w": weight or [1.0, 1.0]})
    found = fl.evaluate(
        log, label="y", prob="p", weight=None if weight is None else "w", metrics=["log_loss"], preset="keras"
    )
    assert found["log_loss"] == pytest.approx(expected, rel=2e-6, abs=1e-5 if weight is None else 1e-4)


@pytest.mark.parametrize("metric", ["dice", "tversky", "tversky(alpha=0.3, beta=0.7)"])
def test_an_overlap_of_nothing_is_1_in_keras(metric: str) -> None:
    log = pa.table({"y": [[0.0, 0.0], [1.0, 0.0]], "p": [[0.0, 0.0], [0.5, 0.5]], "k": [0, 1]})

    def values(preset: Any) -> Any:
        result = fl.evaluate(log, label="y", prob="p", metrics=[metric], by="k", preset=preset)
        return [value.value for value in result.values if value.slice]

    assert values(None)[0] == 0.0
    assert values("keras")[0] == 1.0
    # ε is added to the denominator alone.
    overlap, size = (1.0, 2.0) if metric == "dice" else (0.5, 1.0)
    assert values("keras")[1] == pytest.approx(1.0 - overlap / (size + 1e-7), rel=1e-14)
    assert values("keras")[1] > values(None)[1]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_right_and_certain_row_costs_something_where_both_sides_are_clipped(preset: str) -> None:
    epsilon = {"keras": 1e-7, "sklearn": 2.0**-52, "torchrec": 1e-12}.get(preset, 0.0)
    unit = math.log(2.0) if preset == "torchrec" else 1.0
    assert worst(preset, score=1.0) == pytest.approx(-math.log1p(-epsilon) / unit, rel=1e-3)


@pytest.mark.parametrize("preset", PRESETS)
def test_another_saturation_turns_clipping_off(preset: str) -> None:
    assert worst(preset, saturation="exact") == math.inf
    with pytest.raises(fl.DataError):
        worst(preset, saturation="error")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_clips_no_bad_row_and_no_logit(preset: str) -> None:
    with pytest.raises(fl.DataError, match="allowed: 0 <= prob <= 1"):
        worst(preset, score=1.0 + 1e-9)
    log = pa.table({"y": [1.0], "x": [-800.0]})
    unit = math.log(2.0) if preset == "torchrec" else 1.0
    found = fl.evaluate(log, label="y", logit="x", metrics=["log_loss"], preset=preset)["log_loss"]
    assert found == pytest.approx(800.0 / unit, rel=1e-15)


@pytest.mark.parametrize("preset", PRESETS)
def test_clipped_rows_are_counted_by_the_presets_own_bound(preset: str) -> None:
    log = pa.table({"y": [1.0, 1.0, 1.0, 0.0], "p": [1e-8, 1e-13, 0.0, 1e-300]})
    value = fl.evaluate(log, label="y", prob="p", metrics=["log_loss"], preset=preset).values[0]
    expected = {"keras": 3, "torchrec": 2}.get(preset, 1)
    assert value.evidence["n_saturated"] == expected
    assert value.evidence["n_infinite"] == 1


@pytest.mark.parametrize("preset", ["keras", "sklearn", "torchrec"])
def test_log_probabilities_are_clipped_as_probabilities(preset: str) -> None:
    log = pa.table({"y": [1.0, 1.0, 0.0], "l": [-math.inf, 0.0, -0.5]})
    found = fl.evaluate(log, label="y", logprob="l", metrics=["log_loss"], preset=preset)["log_loss"]
    same = pa.table({"y": [1.0, 1.0, 0.0], "p": [0.0, 1.0, math.exp(-0.5)]})
    expected = fl.evaluate(same, label="y", prob="p", metrics=["log_loss"], preset=preset)["log_loss"]
    assert found == pytest.approx(expected, rel=1e-14)


def test_only_losses_that_can_saturate_see_clipped_probabilities() -> None:
    log = pa.table({"y": [1.0, 0.0], "p": [0.0, 0.25]})
    metrics = ["log_loss", "brier_score", "mean_prediction", "normalized_entropy"]
    result = fl.evaluate(log, label="y", prob="p", metrics=metrics, preset="keras")
    assert (result["brier_score"], result["mean_prediction"]) == ((1.0 + 0.0625) / 2, 0.125)
    assert result["normalized_entropy"] == pytest.approx(result["log_loss"] / math.log(2.0), rel=1e-15)


@pytest.mark.parametrize("preset", PRESETS)
def test_lists_of_one_row_are_clipped_as_rows(preset: str) -> None:
    label, prediction = [1.0, 0.0, 1.0, 0.0, 0.5], [0.0, 1.0, 1.0, 0.0, 1e-300]
    asked: dict[str, Any] = {"label": "y", "prob": "p", "metrics": ["log_loss", "binary_focal_crossentropy"]}
    alone = fl.evaluate(pa.table({"y": label, "p": prediction}), **asked, preset=preset)
    lists = pa.table({"y": [[y] for y in label], "p": [[p] for p in prediction]})
    found = fl.evaluate(lists, **asked, preset=preset)
    assert [value.value for value in found.values] == [value.value for value in alone.values]
    assert [v.evidence["n_saturated"] for v in found.values] == [v.evidence["n_saturated"] for v in alone.values]


def test_each_models_column_has_the_epsilon_of_its_own_type() -> None:
    log = pa.table({"y": [1.0], "a": pa.array([0.0], pa.float32()), "b": pa.array([0.0], pa.float64()), "c": [0]})
    found = fl.evaluate(log, label="y", prob={n: n for n in "abc"}, metrics=["log_loss"], preset="sklearn")["log_loss"]
    assert found == {"a": 15.942385152878742, "b": 36.04365338911715, "c": 36.04365338911715}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_what_a_preset_says_of_a_loss_names_a_shipped_one(preset: Preset) -> None:
    shipped = {loss.name for loss in LOSSES}
    for table in (preset.reductions, preset.units, preset.variants, preset.list_inputs):
        assert set(table) <= shipped


def test_torchrec_counts_all_information_in_bits() -> None:
    log = pa.table({"y": [[1.0, 0.0, 0.5]], "x": [[0.5, 2.0, -1.0]]})
    metrics = ["categorical_crossentropy", "entropy", "jensen_shannon", "list_net", "list_mle", "pairwise_logistic"]
    plain = fl.evaluate(log, label="y", logit="x", metrics=metrics)
    bits = fl.evaluate(log, label="y", logit="x", metrics=metrics, preset="torchrec")
    for before, after in zip(plain.values, bits.values, strict=True):
        assert after.value == pytest.approx(before.value / math.log(2.0), rel=1e-15)
        assert after.evidence["unit"] == "bits"
    weighted = fl.evaluate(log, label="y", logit="x", metrics=["lambda_rank"], preset="torchrec").values[0]
    assert "unit" not in weighted.evidence


def test_normalized_entropy_has_no_unit() -> None:
    result = fl.evaluate(LOG, label="y", prob="p", metrics=["log_loss", "normalized_entropy"], preset="torchrec")
    plain = fl.evaluate(LOG, label="y", prob="p", metrics=["log_loss", "normalized_entropy"])
    assert result["normalized_entropy"] == plain["normalized_entropy"]
    assert result["log_loss"] == plain["log_loss"] / math.log(2.0)
    assert [value.evidence.get("unit") for value in result.values] == ["bits", None]


def test_an_explicit_reduction_comes_before_the_presets() -> None:
    asked: dict[str, Any] = {"label": "y", "prob": "p", "weight": "w", "metrics": ["brier_score"]}
    plain = fl.evaluate(LOG, **asked)["brier_score"]
    assert fl.evaluate(LOG, **asked, preset="keras", reduction="mean")["brier_score"] == plain
    assert fl.evaluate(LOG, **asked, preset="keras")["brier_score"] != plain
    torch = {"label": "y", "value": "s", "metrics": ["mean_squared_error"], "preset": "torch"}
    assert fl.evaluate(LISTS, **torch).values[0].evidence["list_reduction"] == "element"
    assert fl.evaluate(LISTS, **torch, list_reduction="row").values[0].evidence["list_reduction"] == "row"


def test_what_a_preset_changes_is_named_in_every_form_of_a_result(tmp_path: Path) -> None:
    result = fl.evaluate(LOG, label="y", prob="p", metrics=["log_loss"], preset="torchrec")
    assert "preset torchrec: probabilities are clipped to 1e-12 and 1 - 1e-12" in str(result)
    assert "unit bits: log_loss" in str(result)
    content = json.loads(result.to_json())
    assert content["plan"]["preset"] == "torchrec"
    assert content["values"][0]["unit"] == "bits"
    assert result.to_arrow().column("unit").to_pylist() == ["bits"]
    asked = {"label": "y", "prob": "p", "metrics": ["log_loss"]}
    plans = [fl.make_plan(LOG, **asked, preset=preset).fingerprint for preset in (None, *PRESETS)]
    assert len(set(plans)) == len(plans)


def test_lists_of_probabilities_as_keras_prepares_them() -> None:
    y, p = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [[0.05, 0.95, 0.0], [0.1, 0.8, 0.1]]
    log = pa.table({"y": y, "p": p, "k": [0, 1], "index": [1, 2]})

    def rows(metric: str, label: str = "y") -> Any:
        result = fl.evaluate(log, label=label, prob="p", metrics=[metric], preset="keras", by="k")
        return [value.value for value in result.values if value.slice]

    assert rows("kl_divergence") == pytest.approx([0.051291982151212744, 2.30258212194778], rel=4e-16)
    assert rows("categorical_crossentropy") == pytest.approx([0.05129329438755058, 2.3025850929940455], rel=4e-16)
    sparse = rows("sparse_categorical_crossentropy", "index")
    assert sparse == pytest.approx([0.051293394387545634, 2.3025850929940455], rel=1e-15)


def test_keras_divides_probabilities_by_their_sum_and_the_others_do_not() -> None:
    log = pa.table({"y": [[1.0, 0.0]], "p": [[0.4, 0.4]]})

    def value(preset: str | None) -> Any:
        return (
            fl.evaluate(log, label="y", prob="p", metrics=["categorical_crossentropy"], preset=preset).values[0].value
        )

    assert value("keras") == pytest.approx(math.log(2.0), rel=1e-15)
    for preset in (None, "torch", "sklearn", "xgboost", "lightgbm"):
        assert value(preset) == pytest.approx(-math.log(0.4), rel=1e-15)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_batch_and_no_thread_changes_a_bit(preset: str) -> None:
    draw = np.random.default_rng(5)
    lengths = draw.integers(1, 9, 400)
    log = pa.table(
        {
            "y": [(draw.random(n) < 0.4).astype(float).tolist() for n in lengths],
            "p": [np.where(draw.random(n) < 0.1, 0.0, draw.random(n)).tolist() for n in lengths],
            "w": draw.choice([0.0, 0.3, 2.0], 400),
            "k": draw.integers(0, 5, 400),
        }
    )
    metrics = ["categorical_crossentropy", "kl_divergence", "log_loss"]

    def bits(**options: Any) -> Any:
        result = fl.evaluate(log, label="y", prob="p", weight="w", metrics=metrics, by="k", preset=preset, **options)
        return [(v.metric, dict(v.slice), v.value, dict(v.evidence)) for v in result.values]

    assert bits() == bits(batch_rows=1) == bits(batch_rows=37, threads=3)


def test_a_list_of_probabilities_0_is_not_divided_by_0() -> None:
    log = pa.table({"y": [[1.0, 0.0]], "p": [[0.0, 0.0]]})
    found = fl.evaluate(log, label="y", prob="p", metrics=["categorical_crossentropy"], preset="keras").values[0]
    assert found.value == pytest.approx(-math.log(1e-7), rel=1e-15)


def test_lists_without_a_positive_label_count_under_a_preset() -> None:
    log = pa.table({"y": [[0.0, 1.0], [0.0, 0.0]], "x": [[0.0, 0.0], [1.0, 2.0]]})
    asked: dict[str, Any] = {"label": "y", "logit": "x", "metrics": ["categorical_crossentropy"]}
    plain, keras = fl.evaluate(log, **asked).values[0], fl.evaluate(log, **asked, preset="keras").values[0]
    assert (plain.n, keras.n) == (1, 2)
    assert (plain.value, keras.value) == (pytest.approx(math.log(2.0)), pytest.approx(0.5 * math.log(2.0)))


def test_torch_leaves_out_the_class_minus_100() -> None:
    log = pa.table({"y": [0, -100], "x": [[1.0, 2.0], [3.0, 4.0]]})
    asked: dict[str, Any] = {"label": "y", "logit": "x", "metrics": ["sparse_categorical_crossentropy"]}
    value = fl.evaluate(log, **asked, preset="torch").values[0]
    assert (value.value, value.n) == (pytest.approx(math.log1p(math.e), rel=1e-15), 1)
    with pytest.raises(fl.DataError):
        fl.evaluate(log, **asked)


def by_hand_percentage(label: float, score: float, floor: float) -> float:
    return abs(score - label) / max(abs(label), floor)


@pytest.mark.parametrize(
    ("preset", "floor", "unit"),
    [("keras", 1e-7, 0.01), ("torch", 1.17e-6, 1.0), ("sklearn", 2.0**-52, 1.0), ("lightgbm", 1.0, 1.0)],
)
def test_percentages_of_a_label_0(preset: str, floor: float, unit: float) -> None:
    log = pa.table({"y": [0.0, 0.5, -3.0], "s": [2.0, 1.0, 3.0]})
    found = fl.evaluate(log, label="y", value="s", metrics=["mean_absolute_percentage_error"], preset=preset)
    expected = sum(by_hand_percentage(y, s, floor) for y, s in ((0.0, 2.0), (0.5, 1.0), (-3.0, 3.0))) / 3 / unit
    assert found["mean_absolute_percentage_error"] == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("loss", "space", "label", "score"),
    [
        (FlooredPercentageError(1.0), "value", [2.0, 0.1, -3.0], [3.0, 0.5, 1.0]),
        (FlooredSquaredLogarithmicError(1e-3), "value", [2.0, -5.0], [3.0, 0.5]),
        (PoissonNearZero(1e-3, "shifted"), "value", [2.0, 0.0], [3.0, 0.5]),
        (PoissonNearZero(1e-3, "floored"), "value", [2.0, 0.0], [3.0, 0.5]),
        (PoissonNearZero(1e-3, "floored_full"), "value", [2.0, 0.0], [3.0, 0.5]),
    ],
)
def test_derivatives_of_what_stands_in(loss: Any, space: str, label: Any, score: Any) -> None:
    label, score, h = np.array(label), np.array(score), 1e-4
    gradient, hessian = loss.gradient_hessian(label, **{space: score})
    value = [loss(label, **{space: score + d}) for d in (-h, 0.0, h)]
    assert gradient == pytest.approx((value[2] - value[0]) / (2 * h), abs=1e-6)
    assert hessian == pytest.approx((value[2] - 2 * value[1] + value[0]) / h**2, abs=1e-5)


def test_below_its_floor_a_prediction_has_no_slope() -> None:
    for loss in (FlooredSquaredLogarithmicError(0.5), PoissonNearZero(0.5, "floored")):
        gradient, hessian = loss.gradient_hessian([1.0], value=[0.25])
        assert (gradient[0], hessian[0]) == (0.0, 0.0)


@pytest.mark.parametrize("loss", [DenominatorSmoothedDice(0.5), DenominatorSmoothedTversky(0.3, 0.7, 0.25)])
def test_derivatives_of_an_overlap_smoothed_in_the_denominator(loss: Any) -> None:
    label, score, h = np.array([[1.0, 0.0, 0.5]]), np.array([[0.75, 0.25, 0.5]]), 1e-4
    gradient, hessian = loss.gradient_hessian(label, prob=score)
    for j in range(3):
        step = h * np.eye(3)[j]
        value = [float(loss(label, prob=score + d * step)[0]) for d in (-1.0, 0.0, 1.0)]
        assert gradient[0, j] == pytest.approx((value[2] - value[0]) / (2 * h), abs=1e-8)
        assert hessian[0, j] == pytest.approx((value[2] - 2 * value[1] + value[0]) / h**2, abs=1e-6)


@pytest.mark.parametrize("floor", [1e-8, 100.0])
def test_derivatives_of_a_cosine_with_a_floor(floor: float) -> None:
    loss = FlooredCosineSimilarity(floor)
    label, score, h = np.array([[1.0, 2.0, -1.0]]), np.array([[3.0, 1.0, 2.0]]), 1e-4
    gradient, hessian = loss.gradient_hessian(label, value=score)
    for j in range(3):
        step = h * np.eye(3)[j]
        value = [float(loss(label, value=score + d * step)[0]) for d in (-1.0, 0.0, 1.0)]
        assert gradient[0, j] == pytest.approx((value[2] - value[0]) / (2 * h), abs=1e-8)
        assert hessian[0, j] == pytest.approx((value[2] - 2 * value[1] + value[0]) / h**2, abs=1e-6)


# Against the systems themselves


def clipped_log_loss(preset: str, weight: Any = None, kind: Any = np.float64) -> tuple[Any, Any, Any]:
    label = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    prediction = np.array([0.0, 1.0, 1.0, 0.0, 0.3, 1e-17]).astype(kind)
    columns = {"y": label, "p": prediction} | ({} if weight is None else {"w": weight})
    asked = {"label": "y", "prob": "p", "metrics": ["log_loss"], "weight": None if weight is None else "w"}
    return label, prediction, fl.evaluate(pa.table(columns), **asked, preset=preset)["log_loss"]


@pytest.mark.parametrize(("kind", "relative"), [(np.float64, 1e-14), (np.float32, 1e-6), (np.float16, 1e-3)])
def test_log_loss_of_scikit_learn(kind: Any, relative: float) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    label, prediction, found = clipped_log_loss("sklearn", kind=kind)
    # It computes in the type of the column.
    assert found == pytest.approx(float(metrics.log_loss(label, prediction)), rel=relative)


def test_losses_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    functional = torch.nn.functional
    weight = np.array([1.0, 2.0, 0.0, 3.0, 0.5, 1.0])
    label, prediction, found = clipped_log_loss("torch", weight)
    tensors = [torch.tensor(values) for values in (prediction, label, weight)]
    assert found == pytest.approx(functional.binary_cross_entropy(*tensors).item(), rel=1e-14)

    counts, rates = np.array([0.0, 1.0, 3.0, 2.0]), np.array([0.0, 0.5, 2.0, 1e-20])
    log = pa.table({"y": counts, "s": rates})
    expected = functional.poisson_nll_loss(torch.tensor(rates), torch.tensor(counts), log_input=False).item()
    assert fl.evaluate(log, label="y", value="s", metrics=["poisson"], preset="torch")["poisson"] == pytest.approx(
        expected, rel=1e-14
    )

    vectors = np.array([[1e-9, 0.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [2.0, 1.0]])
    log = pa.table({"s": vectors[0].tolist(), "y": vectors[1].tolist()})
    expected = -functional.cosine_similarity(*map(torch.tensor, vectors)).mean().item()
    found = fl.evaluate(log, label="y", value="s", metrics=["cosine_similarity"], preset="torch").values[0].value
    assert found == pytest.approx(expected, rel=1e-14)


def xgboost_metric(name: str, label: Any, prediction: Any, weight: Any) -> float:
    xgboost = pytest.importorskip("xgboost", reason="XGBoost is not installed")
    # With no tree and an objective of the identity the margin is the prediction.
    data = xgboost.DMatrix(np.zeros((len(label), 1)), label=label, base_margin=prediction, weight=weight)
    parameters = {"objective": "reg:squarederror", "eval_metric": name, "base_score": 0.0}
    return float(xgboost.Booster(parameters, [data]).eval(data).rpartition(":")[2])


def lightgbm_metric(name: str, label: Any, prediction: Any, weight: Any) -> float:
    lightgbm = pytest.importorskip("lightgbm", reason="LightGBM is not installed")
    quiet = {"verbose": -1, "feature_pre_filter": False, "min_data_in_leaf": 1, "min_data_in_bin": 1}
    data = lightgbm.Dataset(np.zeros((len(label), 1)), label, weight=weight, init_score=prediction, params=quiet)
    parameters = {"objective": "regression", "metric": name, "boost_from_average": False, "verbose": -1}
    return float(lightgbm.Booster(parameters, data).eval_train()[0].metric_value)


@pytest.mark.parametrize(
    ("preset", "measure", "name", "metric", "space", "label", "prediction"),
    [
        ("xgboost", xgboost_metric, "logloss", "log_loss", "prob", [1, 0, 1, 0], [0.0, 1.0, 1e-17, 0.3]),
        ("xgboost", xgboost_metric, "mape", "mape", "value", [1, 2, -3, 0.5], [2, 1, 4, 0]),
        ("xgboost", xgboost_metric, "poisson-nloglik", "poisson", "value", [0, 1, 3, 2], [0, 0.5, 2, 1e-20]),
        ("lightgbm", lightgbm_metric, "mape", "mape", "value", [0.5, 2, -3, 0], [2, 1, 4, 3]),
        ("lightgbm", lightgbm_metric, "poisson", "poisson", "value", [0, 1, 3, 2], [0, 0.5, 2, 1e-20]),
        ("lightgbm", lightgbm_metric, "gamma", "gamma", "value", [1, 1, 3, 2], [1, 0.5, 2, 3]),
    ],
)
def test_metrics_of_the_tree_libraries(
    preset: str, measure: Callable[..., float], name: str, metric: str, space: str, label: Any, prediction: Any
) -> None:
    weight = [1.0, 2.0, 0.5, 3.0]
    expected = measure(name, np.array(label, dtype=np.float64), np.array(prediction, dtype=np.float64), weight)
    log = pa.table({"y": pa.array(label, pa.float64()), "s": pa.array(prediction, pa.float64()), "w": weight})
    found = fl.evaluate(log, label="y", **{space: "s"}, weight="w", metrics=[metric], preset=preset).values[0].value
    # Both compute in float32 in places.
    assert found == pytest.approx(expected, rel=1e-6)


def test_binary_log_loss_of_lightgbm() -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="LightGBM is not installed")
    label, margin, weight = [1.0, 0.0, 1.0, 0.0], [800.0, 800.0, -800.0, -800.0], [1.0, 2.0, 3.0, 4.0]
    quiet = {"verbose": -1, "feature_pre_filter": False, "min_data_in_leaf": 1, "min_data_in_bin": 1}
    data = lightgbm.Dataset(np.zeros((4, 1)), label, weight=weight, init_score=margin, params=quiet)
    parameters = {"objective": "binary", "metric": "binary_logloss", "boost_from_average": False, "verbose": -1}
    expected = float(lightgbm.Booster(parameters, data).eval_train()[0].metric_value)
    log = pa.table({"y": label, "p": [1.0, 1.0, 0.0, 0.0], "w": weight})
    found = fl.evaluate(log, label="y", prob="p", weight="w", metrics=["log_loss"], preset="lightgbm")["log_loss"]
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_result_says_what_the_preset_did_and_nothing_else() -> None:
    log = pa.table({"y": [0.5, 1.0], "p": [0.25, 0.5]})
    first = [
        str(fl.evaluate(log, label="y", preset="keras", **request)).splitlines()[1]
        for request in (
            {"prob": "p", "metrics": ["log_loss"]},
            {"prob": "p", "metrics": ["log_loss"], "saturation": "exact"},
            {"value": "p", "metrics": ["mean_squared_error"]},
        )
    ]
    assert first == ["preset keras: probabilities are clipped to 1e-7 and 1 - 1e-7", "preset keras", "preset keras"]
    stands_in = str(fl.evaluate(log, label="y", value="p", preset="keras", metrics=["poisson"]))
    assert "preset keras: poisson is " in stands_in
    lists = pa.table({"y": [[1.0, 0.0]], "p": [[0.9, 0.9]]})
    assert "categorical_crossentropy divides the probabilities of a list by their sum" in str(
        fl.evaluate(lists, label="y", prob="p", preset="keras")
    )


def test_what_a_preset_cannot_reproduce_is_refused() -> None:
    log = pa.table({"y": [3.0], "p": [2.0]})
    with pytest.raises(fl.UsageError, match="Stirling"):
        fl.evaluate(log, label="y", value="p", metrics=["poisson(full=True)"], preset="torch")


def test_lists_without_a_relevant_candidate_count_as_each_system_counts_them() -> None:
    table = pa.table({"y": [[1.0, 0.0], [0.0, 0.0]], "s": [[1.0, 2.0], [1.0, 2.0]]})
    request: dict[str, Any] = {"label": "y", "score": "s", "metrics": ["map", "map(empty=zero)"]}
    means = {"keras": (0.5, 1), "torchrec": (0.5, 1), "torch": (0.25, 2)}
    means |= dict.fromkeys(("sklearn", "xgboost", "lightgbm"), (0.75, 2))
    assert set(means) == set(PRESETS)
    for preset, expected in means.items():
        result = fl.evaluate(table, **request, preset=preset)
        # What is asked for stays.
        assert [(value.value, value.n) for value in result.values] == [expected, (0.25, 2)]
        assert ("map is map(empty=" in "; ".join(result.conventions)) == (expected[1] == 2)


def ranked_lists() -> tuple[Any, Any, Any]:
    """Graded labels and scores without ties of lists of up to 14 candidates, some without a positive."""
    random = np.random.default_rng(3)
    sizes = random.integers(1, 15, 80)
    n = int(sizes.sum())
    label = random.integers(0, 5, n) * (random.random(n) < 0.5)
    return sizes, label.astype(np.float64), (random.permutation(n) / n).astype(np.float32)


def ranked_by(preset: str, label: Any, metrics: list[str]) -> list[float | None]:
    sizes, _, score = ranked_lists()
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int32)
    table = pa.table(
        {name: pa.ListArray.from_arrays(offsets, column) for name, column in (("y", label), ("s", score))}
    )
    return [v.value for v in fl.evaluate(table, label="y", score="s", metrics=metrics, preset=preset).values]


def test_rankings_of_xgboost() -> None:
    xgboost = pytest.importorskip("xgboost")
    sizes, label, score = ranked_lists()

    def theirs(label: Any, metrics: list[str]) -> list[float]:
        data = xgboost.DMatrix(np.zeros((len(label), 1)), label=label, base_margin=score)
        data.set_group(sizes)
        options = {"objective": "rank:ndcg", "eval_metric": metrics, "base_score": 0.0}
        text = xgboost.train(options, data, num_boost_round=0).eval(data)
        return [float(part.rpartition(":")[2]) for part in text.split("\t")[1:]]

    graded, binary = theirs(label, ["ndcg@5", "ndcg@10"]), theirs(label > 0, ["map@5", "map", "pre@3"])
    assert ranked_by("xgboost", label, ["ndcg_exp2@5", "ndcg_exp2@10"]) == pytest.approx(graded, rel=1e-12)
    found = ranked_by("xgboost", (label > 0) * 1.0, ["map@5", "map", "precision@3"])
    assert found == pytest.approx(binary, rel=1e-12)


def test_rankings_of_lightgbm() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    sizes, label, score = ranked_lists()
    data = lightgbm.Dataset(np.zeros((len(label), 1)), label=label, group=sizes, init_score=score.astype(np.float64))
    found: dict[str, Any] = {}
    options = {"objective": "lambdarank", "metric": ["ndcg", "map"], "eval_at": [5, 10], "verbose": -1}
    lightgbm.train(options, data, 1, valid_sets=[data], callbacks=[lightgbm.record_evaluation(found)])
    theirs = [values[0] for values in found["training"].values()]
    ours = ranked_by("lightgbm", label, ["ndcg_exp2@5", "ndcg_exp2@10", "map@5", "map@10"])
    assert ours == pytest.approx(theirs, rel=1e-12)
