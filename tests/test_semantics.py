"""The notes' worked examples that are about losses of rows and their reductions, under the notes' own names.

Expected values come from 60-digit arithmetic; a row may differ by 4e-16·max(1, |value|). The second half has a test
for each of the notes' mistakes that concerns such losses: the right form passes, the form as written would not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastloss as fl
from fastloss.losses import (
    BinaryCrossentropy,
    BrierScore,
    Hinge,
    MeanSquaredError,
    SquaredHinge,
)
from fastloss_kernels.losses import binary_crossentropy

# N4: seven predictions, read as probabilities and as logits.
LABEL = [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
PREDICTION = [0.8, 0.33, 0.77, 0.66, 0.55, 0.002, 0.213]
N4 = pa.table({"label": LABEL, "pred": PREDICTION, "row": range(7)})


def close(expected: Any) -> Any:
    """Equal within what the notes' decimal inputs allow."""
    values = np.atleast_1d(np.asarray(expected, dtype=np.float64))
    tolerance = 4e-16 * np.maximum(1.0, np.abs(values))

    class _Close:
        # NumPy's arrays then leave the comparison to this class.
        __array_ufunc__ = None

        def __eq__(self, found: object) -> bool:
            difference = np.abs(np.atleast_1d(np.asarray(found, dtype=np.float64)) - values)
            return bool(np.all(difference <= tolerance))

        def __repr__(self) -> str:
            return repr(expected)

    return _Close()


def mean(metric: str, space: str, log: pa.Table = N4, **options: Any) -> Any:
    label, score = log.column_names[:2]
    return fl.evaluate(log, label=label, **{space: score}, metrics=[metric], **options).values[0].value


def rows(metric: str, space: str, log: pa.Table = N4, **options: Any) -> Any:
    result = fl.evaluate(
        log, label=log.column_names[0], **{space: log.column_names[1]}, metrics=[metric], by="row", **options
    )
    return [value.value for value in result.values if value.slice]


# N0, logistic regression and factorization machines: log(1 + exp(−y·f))

FM = {
    -2.0: (2.1269280110429727, 0.1269280110429725),
    0.0: (0.6931471805599453, 0.6931471805599453),
    0.7: (0.4031860488854579, 1.103186048885458),
    30.0: (9.357622968839737e-14, 30.000000000000092),
    -800.0: (800.0, 0.0),
}


@pytest.mark.parametrize("f", FM)
def test_n0_logistic(f: float) -> None:
    for y, expected in zip((1.0, -1.0), FM[f], strict=True):
        found = BinaryCrossentropy(label_domain="pm1")([y], logit=[f])[0]
        # The tail keeps its digits, which an absolute tolerance would not see.
        assert abs(found - expected) <= 2 * math.ulp(expected)
        log = pa.table({"y": [y], "f": [f]})
        assert mean("logistic_loss", "logit", log, label_domain="pm1") == found


# N4

BCE = [0.22314355131420976, 0.4004775665971253, 0.2613647641344075, 1.07880966137193, 0.7985076962177716]
BCE += [0.0020020026706730775, 0.23952703056473382]
LEGACY = [0.22314342631421757, 0.4004774173434053, 0.26136463426428613, 1.0788093672543262, 0.7985074739955742]
LEGACY += [0.0020019024702773503, 0.23952690349993888]
SIGMOID = [0.6899744811276124, 0.5817593768418362, 0.6835208937363156, 0.6592603884513855, 0.6341355910108006]
SIGMOID += [0.5004999998333334, 0.553049584279497]
SIGMOID_CE = [0.37110066594777774, 0.8716983585938614, 0.3804980545416522, 1.0766366958882392, 1.0054924814633377]
SIGMOID_CE += [0.694147680559862, 0.8053076173211702]


def test_n4_bce() -> None:
    assert rows("log_loss", "prob") == close(BCE)
    assert mean("log_loss", "prob") == close(0.4291188961244073)
    assert mean("log_loss", "prob", reduction="sum") == close(3.003832272870851)
    assert rows("log_loss", "prob")[1] == close(0.4004775665971253)  # −ln 0.67


def test_n4_bce_of_keras() -> None:
    # No prediction is near 0 or 1, so that clipping changes nothing.
    assert rows("log_loss", "prob", preset="keras") == close(BCE)
    assert mean("log_loss", "prob", preset="keras") == close(0.4291188961244073)


def test_n4_bce_of_the_legacy_keras_is_a_loss_of_ones_own() -> None:
    # It adds 1e-7 inside the logarithms as well, as no system does any more.
    def legacy(label: Any, prob: Any) -> Any:
        p = min(max(prob, 1e-7), 1.0 - 1e-7)
        return -(label * math.log(p + 1e-7) + (1.0 - label) * math.log(1.0 - p + 1e-7))

    assert [legacy(y, p) for y, p in zip(LABEL, PREDICTION, strict=True)] == close(LEGACY)
    loss = fl.losses.define(
        lambda prediction, label: (
            -(label * math.log(prediction + 1e-7) + (1.0 - label) * math.log(1.0 - prediction + 1e-7))
        ),
        name="legacy_keras_bce",
        space="prob",
        label_range=(0.0, 1.0),
        prediction_range=(1e-7, 1.0 - 1e-7),
    )()
    assert loss(LABEL, prob=PREDICTION) == close(LEGACY)
    assert fl.evaluate(N4, label="label", prob="pred", metrics=[loss])["legacy_keras_bce"] == close(
        0.42911873216314655
    )


def test_n4_sigmoid() -> None:
    assert rows("mean_prediction", "logit") == close(SIGMOID)


def test_n4_tf_loss_aftersigmoid() -> None:
    assert rows("log_loss", "logit") == close(SIGMOID_CE)
    assert mean("log_loss", "logit") == close(0.7435545077594143)
    assert mean("log_loss", "logit", reduction="sum") == close(5.2048815543159)
    # From probabilities that were rounded on their way the last digits differ.
    log = pa.table({"label": LABEL, "p": SIGMOID, "row": range(7)})
    np.testing.assert_allclose(rows("log_loss", "prob", log), SIGMOID_CE, rtol=0, atol=6e-16)


def test_n4_float32_literal() -> None:
    log = pa.table({"y": [1.0], "p": pa.array([0.6899745], pa.float32())})
    assert mean("log_loss", "prob", log) == close(0.3711006576862579)
    log = pa.table({"y": [1.0], "p": [0.6899745]})
    assert mean("log_loss", "prob", log) == close(0.37110063859548015)


CAL_LOSS = [0.22314355131420976, 0.0, 0.2613647641344075, 0.0, 0.0, 0.0, 0.0]


def cal_loss() -> Any:
    return fl.losses.define(
        lambda prediction, label: -label * math.log(prediction),
        name="cal_loss",
        space="prob",
        label_range=(0.0, 1.0),
        prediction_range=(1e-300, 1.0),
    )()


def test_n4_cal_loss() -> None:
    assert cal_loss()(LABEL, prob=PREDICTION) == close(CAL_LOSS)


LOSS2 = pa.table({"y": [[1.0, 1.0], [0.0, 0.0]], "p": [[0.7, 0.6], [0.3, 0.2]], "row": range(2)})
LOSS2_ELEMENTS = [[0.3566749439387324, 0.5108256237659907], [0.3566749439387324, 0.22314355131420976]]


def test_n4_loss2() -> None:
    assert rows("log_loss", "prob", LOSS2) == close([0.4337502838523615, 0.2899092476264711])
    assert mean("log_loss", "prob", LOSS2) == close(0.3618297657394163)
    label, prediction = (np.array(LOSS2.column(name).to_pylist()) for name in ("y", "p"))
    assert BinaryCrossentropy()(label, prob=prediction) == close(LOSS2_ELEMENTS)


def test_n4_loss3() -> None:
    log = pa.table({"y": [[1.0], [1.0], [0.0], [0.0]], "p": [[0.7], [0.6], [0.3], [0.2]], "row": range(4)})
    assert rows("log_loss", "prob", log) == close(np.ravel(LOSS2_ELEMENTS))
    assert mean("log_loss", "prob", log) == close(0.3618297657394163)


@pytest.mark.parametrize(
    ("metric", "space", "expected"),
    [
        ("mean_squared_error", "value", 0.14075328571428572),
        ("brier_score", "prob", 0.14075328571428572),
        ("mean_absolute_error", "value", 0.31214285714285717),
        ("half_squared_sigmoid", "logit", 0.13770250854782398),
        ("binary_focal_crossentropy(gamma=2)", "prob", 0.11267273164784232),
        ("binary_focal_crossentropy(gamma=2, alpha=0.25)", "prob", 0.08287941030193327),
        ("log_loss(label_smoothing=0.1)", "prob", 0.5002500953426644),
        ("log_loss(pos_weight=2)", "logit", 0.8509257535436187),
        ("normalized_entropy", "prob", 0.7172667712212404),
        ("calibration", "prob", 1.6625),
        ("copc", "prob", 0.6015037593984962),
        ("ctr", "prob", 2.0 / 7.0),
    ],
)
def test_n4_derived(metric: str, space: str, expected: float) -> None:
    assert mean(metric, space) == close(expected)


def test_n4_bits() -> None:
    assert mean("log_loss", "prob", preset="torchrec") == close(0.6190877033904286)


def test_n4_entropy_of_the_base_rate() -> None:
    # What predictions of the base rate cost.
    log = pa.table({"y": LABEL, "p": [2.0 / 7.0] * 7})
    assert mean("log_loss", "prob", log) == close(0.5982695885852573)
    assert mean("normalized_entropy", "prob", log) == close(1.0)


# N2, hinge

N2_HINGE = pa.table({"y": [[0.0, 1.0], [0.0, 0.0]], "s": [[0.6, 0.4], [0.4, 0.6]], "w": [1.0, 0.0], "row": range(2)})
N2_LABEL, N2_SCORE = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.6, 0.4], [0.4, 0.6]])


def test_n2_hinge() -> None:
    assert Hinge()(N2_LABEL, margin=N2_SCORE) == close([[1.6, 0.6], [1.4, 1.6]])
    assert rows("hinge", "margin", N2_HINGE) == close([1.1, 1.5])
    assert mean("hinge", "margin", N2_HINGE) == close(1.3)
    assert mean("hinge", "margin", N2_HINGE, preset="keras", reduction="sum") == close(2.6)
    assert mean("hinge", "margin", N2_HINGE, reduction="sum", list_reduction="element") == close(5.2)


def test_n2_hinge_weighted() -> None:
    assert mean("hinge", "margin", N2_HINGE, weight="w", reduction="sum_over_batch_size") == close(0.55)
    assert mean("hinge", "margin", N2_HINGE, weight="w", preset="keras") == close(0.55)
    # mean_with_sample_weight
    assert mean("hinge", "margin", N2_HINGE, weight="w") == close(1.1)
    assert mean("hinge", "margin", N2_HINGE, weight="w", reduction="sum_by_nonzero_weights") == close(1.1)


def test_n2_hinge_converts_labels_of_the_whole_column() -> None:
    unconverted = np.maximum(0.0, 1.0 - N2_LABEL * N2_SCORE).mean()
    assert unconverted == close(0.9)
    assert mean("hinge", "margin", N2_HINGE) != close(0.9)
    # Each batch alone, the second of which has only zeros, converts alike.
    assert mean("hinge", "margin", N2_HINGE, batch_rows=1) == close(1.3)


def test_n2_squared_hinge() -> None:
    assert SquaredHinge()(N2_LABEL, margin=N2_SCORE).mean(axis=1) == close([1.46, 2.26])
    assert rows("squared_hinge", "margin", N2_HINGE) == close([1.46, 2.26])
    assert mean("squared_hinge", "margin", N2_HINGE) == close(1.86)


# Part 2: the notes' mistakes


def test_mistake_n0_the_fm_loss_has_a_minus_sign() -> None:
    as_written = [y * math.log(p) + (1.0 - y) * math.log(1.0 - p) for y, p in zip(LABEL, PREDICTION, strict=True)]
    found = BinaryCrossentropy()(LABEL, prob=PREDICTION)
    assert found == close([-value for value in as_written])
    assert (found > 0.0).all()


def test_mistake_n0_it_is_not_the_loss_of_a_negative_binomial() -> None:
    assert "Bernoulli" in (binary_crossentropy.__doc__ or "")
    for name in ("negative_binomial", "negative_binomial_log_likelihood"):
        with pytest.raises(fl.UsageError):
            fl.evaluate(N4, label="label", prob="pred", metrics=[name])


def test_mistake_n1_the_derivative_is_by_z_and_vanishes_for_large_magnitudes() -> None:
    loss = BinaryCrossentropy()
    z = np.array([-2.0, 2.0])
    _, hessian = loss.gradient_hessian([0.0, 0.0], logit=z)
    sigma = 1.0 / (1.0 + np.exp(-z))
    assert hessian == close(sigma * (1.0 - sigma))
    # σ′(σ(z)), as σ'(x) with x for σ's value would read, is another number.
    other = 1.0 / (1.0 + np.exp(-sigma))
    assert hessian != close(other * (1.0 - other))
    _, far = loss.gradient_hessian([1.0, 1.0], logit=[-40.0, 40.0])
    assert 0.0 < far[0] == far[1] < 1e-17


def test_mistake_n1_half_squares_are_another_loss_than_squares() -> None:
    assert mean("half_squared_error", "value") == close(0.14075328571428572 / 2)
    assert mean("mse", "value") == close(0.14075328571428572)
    assert "mse" not in fl.losses.HalfSquaredError.aliases
    assert not set(fl.losses.HalfSquaredError.aliases) & set(MeanSquaredError.aliases)


def test_mistake_n1_the_log_likelihood_is_the_negated_loss() -> None:
    likelihood = math.prod(p if y else 1.0 - p for y, p in zip(LABEL, PREDICTION, strict=True))
    assert mean("log_loss", "prob", reduction="sum") == close(-math.log(likelihood))


def test_mistake_n2_the_loss_of_a_probable_class_is_minus_its_logarithm() -> None:
    found = BinaryCrossentropy()([1.0, 1.0], prob=[0.95, 0.1])
    assert found == close([0.05129329438755058, 2.3025850929940455])
    assert found != close([math.log(0.95), math.log(0.1)])


def test_mistake_n2_the_mean_of_means_is_not_the_mean_of_ragged_lists() -> None:
    ragged = pa.table({"y": [[0.0], [0.0, 0.0, 0.0]], "s": [[2.0], [1.0, 1.0, 1.0]]})
    assert mean("mean_squared_error", "value", ragged) == 2.5
    assert mean("mean_squared_error", "value", ragged, list_reduction="element") == 1.75
    equal = pa.table({"y": [[0.0, 0.0], [0.0, 0.0]], "s": [[2.0, 0.0], [1.0, 1.0]]})
    by_row, by_element = (mean("mse", "value", equal, list_reduction=r) for r in ("row", "element"))
    assert by_row == by_element == 1.5


def test_mistake_n3_the_joint_log_likelihood_is_minus_the_sum_of_losses() -> None:
    joint = math.fsum(math.log(p if y else 1.0 - p) for y, p in zip(LABEL, PREDICTION, strict=True))
    total, single = mean("log_loss", "prob", reduction="sum"), rows("log_loss", "prob")
    assert total == close(-joint)
    # The left side as written is one row's.
    assert all(row != close(total) for row in single)


def test_mistake_n4_cal_loss_is_half_of_the_cross_entropy() -> None:
    found = np.array(BinaryCrossentropy()(LABEL, prob=PREDICTION))
    half = np.array(CAL_LOSS)
    positive = np.array(LABEL) == 1.0
    assert found[positive] == close(half[positive])
    assert (found[~positive] > half[~positive]).all()
    other = np.array(cal_loss()(1.0 - np.array(LABEL), prob=1.0 - np.array(PREDICTION)))
    assert half + other == close(found)


def test_mistake_n4_a_shape_of_seven_by_one_is_seven_rows() -> None:
    log = pa.table({"y": [[y] for y in LABEL], "p": [[p] for p in PREDICTION]})
    value = fl.evaluate(log, label="y", prob="p", metrics=["log_loss"], reduction="sum_over_batch_size").values[0]
    assert (value.n, value.value) == (7, close(3.003832272870851 / 7.0))
    one = pa.table({"y": [LABEL], "p": [PREDICTION]})
    assert fl.evaluate(one, label="y", prob="p", metrics=["log_loss"]).values[0].n == 1


def test_mistake_n4_several_classes_at_once_are_sigmoids_not_a_softmax() -> None:
    log = pa.table({"y": [[1.0, 1.0, 0.0]], "x": [[2.0, 3.0, -1.0]]})
    each = [math.log1p(math.exp(-2.0)), math.log1p(math.exp(-3.0)), math.log1p(math.exp(-1.0))]
    assert mean("log_loss", "logit", log) == close(math.fsum(each) / 3.0)
    assert mean("categorical_crossentropy", "logit", log) != close(math.fsum(each) / 3.0)
    # Exactly one class: an index.
    one = pa.table({"y": [1], "x": [[2.0, 3.0, -1.0]]})
    with pytest.raises(fl.UsageError, match="holds numbers"):
        mean("log_loss", "logit", one)


# The order of predictions

GROUPED = pa.table(
    {
        "y": [1, 0, 0, 0, 1, 1, 1, 1, 0],
        "p": [0.8, 0.8, 0.3, 0.1, 0.7, 0.6, 0.9, 0.5, 0.2],
        "group": list("AAAABBCCC"),
    }
)


@pytest.mark.parametrize("space", ["prob", "logit", "value", "score"])
def test_n4_ranks_all_positives_first(space: str) -> None:
    for metric in ("roc_auc", "gini", "average_precision", "partial_roc_auc", "ks"):
        assert mean(metric, space) == 1.0
    assert mean("lift@0.2", space) == close(3.5)


def test_areas_of_groups_are_of_their_own_rows() -> None:
    found = fl.evaluate(GROUPED, label="y", prob="p", metrics=["roc_auc", "gini", "average_precision"], by="group")
    areas = [value for value in found.values if value.metric == "roc_auc"]
    assert [value.value for value in areas] == [0.825, 5 / 6, None, 1.0]
    assert areas[2].reason == "one_class"
    assert [value.value for value in found.values if value.metric == "gini"] == [0.65, 4 / 6, None, 1.0]
    precision = [value.value for value in found.values if value.metric == "average_precision"]
    assert precision[1:] == [0.5, 1.0, 1.0]


def test_ties_count_one_half_and_are_one_step() -> None:
    tied = pa.table({"y": [1, 0, 1, 0], "s": [0.0, -0.0, 0.0, 0.0]})
    assert (mean("roc_auc", "score", tied), mean("partial_roc_auc", "score", tied)) == (0.5, 0.5)
    assert (mean("gini", "score", tied), mean("ks", "score", tied), mean("average_precision", "score", tied)) == (
        0.0,
        0.0,
        0.5,
    )


def test_without_positives_there_is_no_average_precision() -> None:
    log = pa.table({"y": [0, 0], "s": [0.25, 0.5]})
    [value] = fl.evaluate(log, label="y", score="s", metrics="average_precision").values
    assert (value.value, value.reason, value.n) == (None, "no_positive", 2)


def test_a_soft_label_is_a_positive_and_a_negative() -> None:
    soft = pa.table({"y": [0.25, 1.0, 0.0], "s": [3.0, 2.0, 1.0], "w": [4.0, 2.0, 1.0]})
    hard = pa.table({"y": [1, 0, 1, 0], "s": [3.0, 3.0, 2.0, 1.0], "w": [1.0, 3.0, 2.0, 1.0]})
    metrics = ["roc_auc", "average_precision", "ks", "partial_roc_auc(max_fpr=0.5)", "lift@0.5", "f1(threshold=2.5)"]
    found = [fl.evaluate(log, label="y", score="s", weight="w", metrics=metrics).values for log in (soft, hard)]
    assert [value.value for value in found[0]] == [value.value for value in found[1]]


def test_brier_score_of_a_probability_is_its_squared_error() -> None:
    assert BrierScore()(LABEL, prob=PREDICTION) == close(MeanSquaredError()(LABEL, value=PREDICTION))
